//! The operator: its staff and services, the mails that the service sends, reserved publisher names, and the clock of
//! tests.
//!
//! Nouns and states. A staff is a user or application of the operator tenant with operator roles; it has no states, it is there or it
//! isn't. A mail is `QUEUED`, `SENT` or `FAILED`: queued → sent, by the relay; queued → failed, after many tries; failed → queued, by
//! ResendMail. The test clock has an offset, which only grows.
//!
//! Invariants. Only who lies in the operator tenant and is active is given operator roles, and only by who may also give roles in that
//! tenant. What people and applications can hold, and that one administrator is left, is kept in `access/grants.rs`. What a mail says
//! is never shown. Time never goes back, and moves only where the configuration lets it.

mod entity;
pub mod mail;
pub mod policy;
pub mod reserved_name;
pub mod staff;
pub mod test_clock;
mod wire;
