//! Tables of the directory, visible in this slice only. Finders demand a proof of access.

pub mod application;
pub mod application_key;
pub mod candidate;
pub mod credential;
pub mod directory_sync;
pub mod directory_sync_fault;
pub mod domain;
pub mod group;
pub mod group_member;
pub mod invitation;
pub mod recovery_case;
pub mod session;
pub mod tenant;
pub mod user;
