//! What the database's errors mean to a caller: the one mapping, wherever they strike.

use sea_orm::{
    DbErr, RuntimeErr, SqlErr, SqlxError,
    sqlx::{error::DatabaseError, sqlite::SqliteError},
};

use crate::error::{Error, Reason};

/// A unique constraint: its index on PostgreSQL, its columns on SQLite, and what its violation answers.
struct Unique {
    index: &'static str,
    columns: &'static str,
    reason: Reason,
    field: &'static str,
    text: &'static str,
}

/// Every unique constraint that a caller's request can violate.
const UNIQUES: &[Unique] = &[
    Unique {
        index: "tenants_domain_prefix",
        columns: "tenants.domain_prefix",
        reason: Reason::DomainTaken,
        field: "tenant.domain_prefix",
        text: "is taken",
    },
    Unique {
        index: "domains_named",
        columns: "domains.tenant_id, domains.domain_name",
        reason: Reason::ResourceExists,
        field: "domain.domain_name",
        text: "is a domain of this tenant already",
    },
    Unique {
        index: "domains_verified",
        columns: ": domains.domain_name",
        reason: Reason::DomainVerifiedElsewhere,
        field: "name",
        text: "is a domain that another tenant has verified",
    },
    Unique {
        index: "users_user_name",
        columns: "users.tenant_id, users.user_name_fold",
        reason: Reason::UserNameTaken,
        field: "user.user_name",
        text: "is taken in this tenant",
    },
    Unique {
        index: "users_home",
        columns: "users.tenant_id, users.home_id",
        reason: Reason::UserExists,
        field: "name",
        text: "is tied to somebody who is in this tenant as another guest",
    },
    Unique {
        index: "applications_reply_url",
        columns: "applications.tenant_id, applications.reply_url",
        reason: Reason::UriTaken,
        field: "application.reply_url",
        text: "is that of another application of this tenant",
    },
    Unique {
        index: "applications_id_uri",
        columns: "applications.tenant_id, applications.application_id_uri",
        reason: Reason::UriTaken,
        field: "application.application_id_uri",
        text: "is that of another application of this tenant",
    },
    Unique {
        index: "publisher_names_pkey",
        columns: "publisher_names.skeleton",
        reason: Reason::PublisherNameTaken,
        field: "account.publisher_display_name",
        text: "is that of another account",
    },
    Unique {
        index: "name_claims_open",
        columns: "name_claims.holder_id",
        reason: Reason::NameClaimOpen,
        field: "name_claim.publisher_display_name",
        text: "is claimed already",
    },
    Unique {
        index: "reserved_name_keys_pkey",
        columns: "reserved_name_keys.skeleton",
        reason: Reason::ResourceExists,
        field: "reserved_name.display_name",
        text: "is reserved, or one that looks like it",
    },
    Unique {
        index: "recovery_cases_open",
        columns: "recovery_cases.role, recovery_cases.scope_kind, recovery_cases.scope_id",
        reason: Reason::RecoveryCaseOpen,
        field: "recovery_case",
        text: "is there already for this role",
    },
    Unique {
        index: "network_memberships_unused",
        columns: "network_memberships.joined_by_id",
        reason: Reason::AlreadyNetworkMember,
        field: "network_membership",
        text: "is there already",
    },
    Unique {
        index: "relationships_display_name",
        columns: "relationships.account_id, relationships.display_name_fold",
        reason: Reason::ResourceExists,
        field: "relationship.display_name",
        text: "is that of another relationship of this account",
    },
    Unique {
        index: "associations_pkey",
        columns: "associations.account_id, associations.tenant_id",
        reason: Reason::AlreadyAssociated,
        field: "tenant",
        text: "is associated with this account",
    },
    Unique {
        index: "grants_pkey",
        columns: "grants.scope_kind, grants.scope_id, grants.principal_id",
        reason: Reason::AlreadyMember,
        field: "principals",
        text: "is a member already",
    },
];

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        if let Some(SqlErr::UniqueConstraintViolation(text)) = error.sql_err() {
            return UNIQUES
                .iter()
                .find(|u| text.contains(&format!("\"{}\"", u.index)) || text.ends_with(u.columns))
                .map_or_else(
                    || Self::internal(format!("a unique constraint without an answer: {text}")),
                    |u| Self::exists(u.reason, u.field, u.text),
                );
        }
        match &error {
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => return lost(&error),
            DbErr::Exec(RuntimeErr::SqlxError(e)) | DbErr::Query(RuntimeErr::SqlxError(e)) => {
                match &**e {
                    SqlxError::Database(e) => match code(&**e).as_str() {
                        // Serialisation failure, deadlock, lock timeout; SQLite: busy, locked.
                        "40001" | "40P01" | "55P03" | "SQLITE 5" | "SQLITE 6" => {
                            return Self::contended(e.to_string());
                        }
                        // A standby, a server going down or starting, a connection that was ended, a full disk or memory; SQLite: out of
                        // memory, read only, interrupted, input or output failed, disk full, can't be opened, locking failed.
                        "25006" | "25P03" | "57P01" | "57P02" | "57P03" | "08006" | "08003"
                        | "08000" | "08P01" | "53100" | "53200" | "53300" | "SQLITE 7"
                        | "SQLITE 8" | "SQLITE 9" | "SQLITE 10" | "SQLITE 13" | "SQLITE 14"
                        | "SQLITE 15" => return lost(&error),
                        // The statement timeout, which lies beyond every deadline.
                        "57014" => return Self::late(),
                        _ => {}
                    },
                    SqlxError::Io(_)
                    | SqlxError::PoolTimedOut
                    | SqlxError::PoolClosed
                    | SqlxError::WorkerCrashed
                    | SqlxError::Protocol(_) => {
                        return lost(&error);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Self::internal(error.to_string())
    }
}

/// The SQLSTATE of PostgreSQL; SQLite's primary code, whatever detail its extended one adds.
fn code(error: &dyn DatabaseError) -> String {
    let code = error.code().unwrap_or_default();
    match error.try_downcast_ref::<SqliteError>() {
        Some(_) => format!("SQLITE {}", code.parse::<i32>().unwrap_or(0) & 0xff),
        None => code.into_owned(),
    }
}

fn lost(error: &DbErr) -> Error {
    Error::unavailable(Reason::DatabaseUnavailable, error.to_string())
}
