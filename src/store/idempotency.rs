//! Claims of `request_id` (COM-4): looked up once the call's scopes are locked, and stored with the answer by the transaction that did the
//! work. Of two at once the second waits, finds that it has lost, is rolled back and looks up again: one effect and two equal answers.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbBackend};
use uuid::Uuid;

use super::sql::{self, Type};
use crate::{
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    keys::Mac,
};

/// A repetition is recognised for so long, unless the method says otherwise.
const KEPT_US: Micros = DAY_US;
/// The end of claims that are kept for ever.
const NEVER: Micros = Micros::MAX;

/// Who asked for what under which ID.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The caller, as a MAC of principal or credential.
    pub caller: Mac,
    /// The ID.
    pub request_id: Uuid,
    /// The method's path.
    pub method: String,
    /// The MAC of the request without its ID.
    pub request: Mac,
    /// Kept as long as what it did, which is for ever: money and invitations.
    pub for_ever: bool,
}

impl Claim {
    pub(super) fn key(&self) -> (Mac, Uuid) {
        (self.caller, self.request_id)
    }

    fn expire_time(&self, now: Micros) -> Micros {
        if self.for_ever { NEVER } else { now + KEPT_US }
    }
}

/// A stored answer.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The answer, without its one-time secrets.
    pub reply: Vec<u8>,
    /// The call itself ended the caller's right to make it.
    pub ended_right: bool,
}

/// What is stored under an ID of a caller, for whatever request.
#[derive(Clone, Debug)]
pub struct Found {
    method: String,
    request: Vec<u8>,
    stored: Stored,
    expire_time: Micros,
}

impl Found {
    pub(super) fn new(claim: &Claim, reply: &[u8], ended_right: bool, kept_from: Micros) -> Self {
        Self {
            method: claim.method.clone(),
            request: claim.request.to_vec(),
            stored: Stored {
                reply: reply.to_vec(),
                ended_right,
            },
            expire_time: claim.expire_time(kept_from),
        }
    }

    pub(super) fn cells(&self, claim: &Claim) -> Vec<serde_json::Value> {
        vec![
            sql::bytes(&claim.caller),
            sql::id(claim.request_id),
            self.method.as_str().into(),
            sql::bytes(&self.request),
            sql::bytes(&self.stored.reply),
            self.stored.ended_right.into(),
            self.expire_time.into(),
        ]
    }

    /// The answer, if it is still kept.
    ///
    /// # Errors
    /// `REQUEST_ID_REUSED` if the ID was used for another request.
    pub fn answer(&self, claim: &Claim, now: Micros) -> Result<Option<Stored>> {
        if self.expire_time <= now {
            return Ok(None);
        }
        if self.method != claim.method || self.request != claim.request {
            return Err(Error::argument(
                Reason::RequestIdReused,
                "request_id",
                "was used with another request",
            ));
        }
        Ok(Some(self.stored.clone()))
    }
}

const COLUMNS: &[(&str, Type)] = &[
    ("caller", Type::Bytes),
    ("request_id", Type::Id),
    ("method", Type::Text),
    ("request", Type::Bytes),
    ("reply", Type::Bytes),
    ("ended_right", Type::Flag),
    ("expire_time", Type::Number),
];

/// What is stored under the IDs of claims, by one statement.
///
/// # Errors
/// Those of the database.
pub async fn find<C: ConnectionTrait>(
    db: &C,
    claims: &[&Claim],
) -> Result<HashMap<(Mac, Uuid), Found>> {
    let wanted = sql::rows(db, 1, &COLUMNS[..2]);
    let columns = "caller, request_id, method, request, reply, ended_right, expire_time";
    let sql = match db.get_database_backend() {
        // One by one by their key: a plan that was made while there were few claims would read all of them, and be kept as they grow.
        DbBackend::Postgres => format!(
            "SELECT c.* FROM ({wanted}) x CROSS JOIN LATERAL \
             (SELECT {columns} FROM claims WHERE caller = x.caller AND request_id = x.request_id LIMIT 1) c"
        ),
        _ => format!("SELECT {columns} FROM claims WHERE (caller, request_id) IN ({wanted})"),
    };
    let keys = claims
        .iter()
        .map(|c| vec![sql::bytes(&c.caller), sql::id(c.request_id)]);
    let mut found = HashMap::new();
    for row in sql::rows_of(db, sql, [sql::table(keys.collect())]).await? {
        let caller: Vec<u8> = row.try_get("", "caller")?;
        let Ok(caller) = Mac::try_from(caller) else {
            continue;
        };
        let one = Found {
            method: row.try_get("", "method")?,
            request: row.try_get("", "request")?,
            stored: Stored {
                reply: row.try_get("", "reply")?,
                ended_right: row.try_get("", "ended_right")?,
            },
            expire_time: row.try_get("", "expire_time")?,
        };
        found.insert((caller, row.try_get("", "request_id")?), one);
    }
    Ok(found)
}

/// The stored answer to the same request of the same caller.
///
/// # Errors
/// `REQUEST_ID_REUSED` if the ID was used for another request; those of the database.
pub async fn look_up<C: ConnectionTrait>(
    db: &C,
    claim: &Claim,
    now: Micros,
) -> Result<Option<Stored>> {
    match find(db, &[claim]).await?.remove(&claim.key()) {
        Some(found) => found.answer(claim, now),
        None => Ok(None),
    }
}

/// The text that stores the claims that parameter `$n` holds, with their answers. It waits for other transactions that store the same. Those
/// that have expired by the time of the next parameter give way; those that have not are left, and not counted among the rows touched.
pub(super) fn insert_sql<C: ConnectionTrait>(db: &C, n: usize) -> String {
    // Without WHERE, SQLite takes the conflict's ON for that of a join.
    format!(
        "{} WHERE 1 = 1 ON CONFLICT (caller, request_id) DO UPDATE SET method = excluded.method, request = excluded.request, \
         reply = excluded.reply, ended_right = excluded.ended_right, expire_time = excluded.expire_time WHERE claims.expire_time <= ${}",
        sql::insert_rows(db, "claims", COLUMNS, n),
        n + 1
    )
}
