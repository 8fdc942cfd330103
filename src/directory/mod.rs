//! The directory: tenants, their users, groups and applications, personal identities, invitations, and how they sign in.
//!
//! Nouns and states. A tenant is `ACTIVE`, `DELETED`, or purged, when only its prefix is left: create → active ⇄ deleted for 30 days →
//! purged; active and never used → purged. A user is `ACTIVE`, `DISABLED`, `DELETED` or, as a guest to be, `INVITED`:
//! create → active; active ⇄ disabled; active, disabled → deleted; deleted → active for 30 days; invite → invited; invited → active by
//! accepting, → deleted. An invitation is `PENDING`, `ACCEPTED`, `REVOKED` or, by time, `EXPIRED`. An application is `ACTIVE` until it is
//! deleted, which is for good. A group is
//! there or not, and so is a user in it. A domain is `PENDING`, `VERIFIED` or `LAPSED`: named → verified ⇄ lapsed. A session runs until it ends or expires. A personal identity is confirmed → active → closed.
//!
//! Invariants. A user name is unique among a tenant's users that aren't deleted. A restored user has nothing it had, and the guests of a deleted one
//! are deleted with it. A credential that
//! somebody else set is temporary. An address has one credential, and a guest none of its own. A tenant never loses its last global admin,
//! and who is in a group has what it gives (`access/grants`). Groups have users of their own tenant only. What a local directory filled is
//! changed there.

mod acceptance;
pub(crate) mod address;
pub mod application;
pub(crate) mod application_key;
pub(crate) mod asleep;
pub mod candidate;
pub(crate) mod credential;
pub mod domain;
pub(crate) mod domain_look_up;
mod entity;
mod export;
pub mod group;
pub mod identity;
pub mod invitation;
pub mod lent;
pub(crate) mod me;
pub(crate) mod password;
pub(crate) mod recovery;
mod recovery_case;
mod recovery_evidence;
mod recovery_return;
pub(crate) mod search;
pub mod session;
pub(crate) mod sign_in;
pub(crate) mod sign_up;
mod synchronization;
pub mod tenant;
mod tenant_card;
pub(crate) mod tenant_deletion;
pub(crate) mod tokens;
pub mod user;
pub(crate) mod user_admin;
pub(crate) mod user_card;
pub(crate) mod user_change;
pub(crate) mod user_state;
pub(crate) mod wire;

/// Active: users, tenants and applications alike.
pub(crate) const ACTIVE: i64 = 1;
/// A deleted tenant, which can be restored.
pub(crate) const TENANT_DELETED: i64 = 2;
/// What is left of a purged tenant: its prefix.
pub(crate) const TENANT_PURGED: i64 = 3;
/// A user shut out by an admin.
pub(crate) const DISABLED: i64 = 2;
/// A deleted user.
pub(crate) const DELETED: i64 = 3;
/// A guest who was invited and hasn't accepted.
pub(crate) const INVITED: i64 = 4;
/// The kind of a guest.
pub(crate) const GUEST: i64 = 2;
/// The kind of a personal identity.
pub(crate) const IDENTITY: i64 = 3;
/// A deleted user or tenant can be restored for so long (USR-6, TEN-7).
pub(crate) const RESTORABLE_US: crate::env::Micros = 30 * crate::env::DAY_US;
