//! The real binary: kill -9, replicas, commands.
