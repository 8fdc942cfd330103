//! What accounts keep of a person outside of memberships (IDN-2).

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, Value};
use uuid::Uuid;

use crate::{error::Result, names::Name, store::sql};

/// Names told of one person at most, of each kind.
const MOST_NAMES: i64 = 1_000;

/// The network membership of a personal identity, its claims on publisher names, and the accounts that it owns, owned, or was invited to own.
///
/// # Errors
/// Those of the database.
pub async fn names_of_person<C: ConnectionTrait>(db: &C, identity: Uuid) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    let sql = "SELECT id FROM network_memberships WHERE joined_by_id = $1 ORDER BY id LIMIT $2";
    let values: [Value; 2] = [identity.into(), MOST_NAMES.into()];
    for row in sql::rows_of(db, sql, values).await? {
        names.push(Name::NetworkMembership(row.try_get("", "id")?));
    }
    let sql = "SELECT id FROM name_claims WHERE claimant_id = $1 ORDER BY create_time, id LIMIT $2";
    let values: [Value; 2] = [identity.into(), MOST_NAMES.into()];
    for row in sql::rows_of(db, sql, values).await? {
        names.push(Name::NameClaim(row.try_get("", "id")?));
    }
    let sql = "SELECT account_id FROM ownerships WHERE identity_id = $1 \
               OR email_fold IN (SELECT user_name_fold FROM users WHERE id = $1) ORDER BY create_time LIMIT $2";
    let values: [Value; 2] = [identity.into(), MOST_NAMES.into()];
    let mut accounts = BTreeSet::new();
    for row in sql::rows_of(db, sql, values).await? {
        accounts.insert(row.try_get::<Uuid>("", "account_id")?);
    }
    names.extend(accounts.into_iter().map(Name::Account));
    Ok(names)
}
