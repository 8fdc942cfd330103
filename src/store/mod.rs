//! The ground under everything that is kept: connections, transactions, claims, audit chains, the outbox, lists and updates.
//! Knows nothing of access.

pub mod audit;
pub mod barrier;
pub mod batch;
pub mod clock;
pub mod connect;
pub mod facts;
pub mod fault;
pub mod filter;
pub mod heads;
pub mod idempotency;
pub mod json;
pub mod list;
pub mod memory;
pub mod outbox;
pub mod payload;
pub mod scope_key;
pub mod sql;
pub mod time;
pub mod update;
pub mod work;
pub mod writes;

pub use work::{Snapshot, Work};
