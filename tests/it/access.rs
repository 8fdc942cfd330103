//! The access matrix: every RPC × every kind of caller.
