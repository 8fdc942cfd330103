//! The README's tour and the cookbook, run with grpcurl.
