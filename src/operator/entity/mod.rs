//! Tables of the operator, visible in this slice only.

pub mod mail;
pub mod policy;
pub mod reserved_name;
pub mod staff;
