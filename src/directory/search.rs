//! The indexes of trigrams over names in directories, also for lists of what principals and tenants hold elsewhere.

use crate::store::filter::Trigrams;

const fn over(table: &'static str, column: &'static str) -> Trigrams {
    Trigrams { table, column }
}

/// Tenants by display name.
pub(crate) const TENANTS: &[Trigrams] = &[over("tenants", "display_name_fold")];
/// Tenants by domain prefix.
pub(crate) const DOMAINS: &[Trigrams] = &[over("tenants", "domain_prefix")];
/// Invitations by address.
pub(crate) const INVITED: &[Trigrams] = &[over("invitations", "email_fold")];
/// Users by display name.
pub(crate) const USERS: &[Trigrams] = &[over("users", "display_name_fold")];
/// Users by user name.
pub(crate) const USER_NAMES: &[Trigrams] = &[over("users", "user_name_fold")];
/// Applications by display name.
pub(crate) const APPLICATIONS: &[Trigrams] = &[over("applications", "display_name_fold")];
/// Groups by display name.
pub(crate) const GROUPS: &[Trigrams] = &[over("user_groups", "display_name_fold")];
/// All kinds of principals by display name.
pub(crate) const PRINCIPALS: &[Trigrams] = &[
    over("users", "display_name_fold"),
    over("applications", "display_name_fold"),
    over("user_groups", "display_name_fold"),
];
