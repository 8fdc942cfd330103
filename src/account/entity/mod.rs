//! Tables of accounts, visible in this slice only.

pub mod acceptance;
pub mod account;
pub mod agreement;
pub mod agreement_text;
pub mod association;
pub mod benefit;
pub mod benefit_assignment;
pub mod charge;
pub mod competency;
pub mod imported_membership;
pub mod member;
pub mod name_claim;
pub mod network_membership;
pub mod ownership;
pub mod package;
pub mod package_offer;
pub mod review;
pub mod verification_step;
