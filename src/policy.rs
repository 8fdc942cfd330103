//! Policies: what the operator decides of the rules, as rows with a date. Slices ask here what is in force; `operator` sets it.
//!
//! A policy has a key, which says the type of its values, their bounds, and the value that holds as long as nobody set any. A row is in force
//! from its time on, until that of a later one; of two for one time the one that was set last counts. Rows are never changed.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use crate::{
    env::Micros,
    error::{Error, Result},
    proto::operator::PolicyKey,
    store::sql,
};

/// What values a policy has. Flags are stored as 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Yes or no.
    Flag,
    /// A number from one to another, both included.
    Number(i64, i64),
}

/// All policies: key, kind of values, default.
const TABLE: &[(PolicyKey, Kind, i64)] = &[
    (PolicyKey::OfferReviewApp, Kind::Flag, 0),
    (PolicyKey::OfferReviewSaas, Kind::Flag, 0),
    (PolicyKey::OfferReviewService, Kind::Flag, 0),
    (PolicyKey::OfferReviewLobApp, Kind::Flag, 0),
    (PolicyKey::SilverCompetencies, Kind::Number(1, 100), 1),
    (PolicyKey::GoldCompetencies, Kind::Number(1, 100), 3),
    (PolicyKey::SilverCases, Kind::Number(0, 10_000), 5),
    (PolicyKey::GoldCases, Kind::Number(0, 10_000), 20),
];

/// The kind of a policy's values, and its default; none for a key that is none.
#[must_use]
pub fn declared(key: PolicyKey) -> Option<(Kind, i64)> {
    let found = TABLE.iter().find(|(of, _, _)| *of == key);
    found.map(|(_, kind, default)| (*kind, *default))
}

/// A row of `policies`.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Row {
    /// Its ID.
    pub id: Uuid,
    /// The number of the key.
    pub policy_key: i64,
    /// The value; of a flag 0 or 1.
    pub value: i64,
    /// From when on.
    pub effective_time: i64,
    /// The name of the principal who set it.
    pub set_by: String,
    /// When.
    pub create_time: i64,
}

/// The row in force; none if nobody set one whose time has come.
///
/// # Errors
/// Those of the database.
pub async fn in_force<C: ConnectionTrait>(
    db: &C,
    key: PolicyKey,
    now: Micros,
) -> Result<Option<Row>> {
    let sql = "SELECT id, policy_key, value, effective_time, set_by, create_time FROM policies WHERE policy_key = $1 AND effective_time <= $2 \
               ORDER BY effective_time DESC, create_time DESC, id DESC LIMIT 1";
    let values: [Value; 2] = [(key as i64).into(), now.into()];
    sql::one(db, sql, values).await
}

/// The number in force.
///
/// # Errors
/// Those of the database.
pub async fn number<C: ConnectionTrait>(db: &C, key: PolicyKey, now: Micros) -> Result<i64> {
    let (_, default) = declared(key)
        .ok_or_else(|| Error::internal(format!("{} is no policy", key.as_str_name())))?;
    Ok(in_force(db, key, now)
        .await?
        .map_or(default, |row| row.value))
}

/// Whether a flag is set.
///
/// # Errors
/// Those of the database.
pub async fn flag<C: ConnectionTrait>(db: &C, key: PolicyKey, now: Micros) -> Result<bool> {
    Ok(number(db, key, now).await? != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_declared_once_with_a_default_within_its_bounds() {
        let named = (1..).map_while(|n| PolicyKey::try_from(n).ok());
        let named: Vec<PolicyKey> = named.collect();
        assert_eq!(named.len(), TABLE.len());
        for key in named {
            let (kind, default) = declared(key).unwrap();
            let (least, most) = match kind {
                Kind::Flag => (0, 1),
                Kind::Number(least, most) => (least, most),
            };
            assert!((least..=most).contains(&default), "{key:?}");
        }
        assert_eq!(declared(PolicyKey::Unspecified), None);
    }
}
