//! Tables of accounts, visible in this slice only.

pub mod account;
pub mod association;
pub mod member;
