//! Tables of accounts, visible in this slice only.

pub mod acceptance;
pub mod account;
pub mod agreement;
pub mod agreement_text;
pub mod association;
pub mod member;
pub mod network_membership;
pub mod review;
pub mod verification_step;
