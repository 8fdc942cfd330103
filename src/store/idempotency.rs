//! Claims of `request_id` (COM-4): the claim comes first, then the work, in one transaction; so two at once give one effect and
//! two equal answers.

use sea_orm::{ConnectionTrait, Value};
use uuid::Uuid;

use super::sql;
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
    fn expire_time(&self, now: Micros) -> Micros {
        if self.for_ever { NEVER } else { now + KEPT_US }
    }
}

/// What became of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours; the work may begin.
    New,
    /// It was claimed before; this was the answer, without its one-time secrets.
    Replay(Vec<u8>),
}

/// A stored answer.
#[derive(Debug)]
pub struct Stored {
    /// The answer, without its one-time secrets.
    pub reply: Vec<u8>,
    /// The call itself ended the caller's right to make it.
    pub ended_right: bool,
}

/// Claims the ID. Waits for another transaction that has claimed it.
///
/// # Errors
/// `REQUEST_ID_REUSED` if it was claimed with another request; those of the database.
pub async fn claim<C: ConnectionTrait>(db: &C, claim: &Claim, now: Micros) -> Result<Claimed> {
    let sql = "INSERT INTO claims (caller, request_id, method, request, reply, ended_right, expire_time) VALUES ($1, $2, $3, $4, $5, false, $6) \
               ON CONFLICT (caller, request_id) DO UPDATE SET method = excluded.method, request = excluded.request, reply = excluded.reply, \
               ended_right = false, expire_time = excluded.expire_time WHERE claims.expire_time <= $7";
    let values: [Value; 7] = [
        bytes(&claim.caller),
        claim.request_id.into(),
        claim.method.clone().into(),
        bytes(&claim.request),
        bytes(&[]),
        claim.expire_time(now).into(),
        now.into(),
    ];
    let done = sql::execute(db, sql, values).await?;
    if done.rows_affected() == 1 {
        return Ok(Claimed::New);
    }
    match look_up(db, claim, now).await? {
        Some(stored) => Ok(Claimed::Replay(stored.reply)),
        // The other transaction's claim was there and is gone: it was rolled back or purged meanwhile.
        None => Err(Error::contended("a claim vanished")),
    }
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
    let sql = "SELECT method, request, reply, ended_right FROM claims WHERE caller = $1 AND request_id = $2 AND expire_time > $3";
    let values: [Value; 3] = [bytes(&claim.caller), claim.request_id.into(), now.into()];
    let Some(row) = sql::row(db, sql, values).await? else {
        return Ok(None);
    };
    let method: String = row.try_get("", "method")?;
    let request: Vec<u8> = row.try_get("", "request")?;
    if method != claim.method || request != claim.request {
        return Err(Error::argument(
            Reason::RequestIdReused,
            "request_id",
            "was used with another request",
        ));
    }
    Ok(Some(Stored {
        reply: row.try_get("", "reply")?,
        ended_right: row.try_get("", "ended_right")?,
    }))
}

/// Stores the answer of a claim, in the transaction that made it; it is kept from `now` on.
///
/// # Errors
/// Those of the database.
pub async fn settle<C: ConnectionTrait>(
    db: &C,
    claim: &Claim,
    reply: &[u8],
    ended_right: bool,
    now: Micros,
) -> Result<()> {
    let sql = "UPDATE claims SET reply = $1, ended_right = $2, expire_time = $3 WHERE caller = $4 AND request_id = $5";
    let values: [Value; 5] = [
        bytes(reply),
        ended_right.into(),
        claim.expire_time(now).into(),
        bytes(&claim.caller),
        claim.request_id.into(),
    ];
    sql::execute(db, sql, values).await?;
    Ok(())
}

fn bytes(of: &[u8]) -> Value {
    Value::Bytes(Some(of.to_vec()))
}

/// Gives a claim up, in the transaction that made it: only successes are claimed and replayed.
///
/// # Errors
/// Those of the database.
pub async fn give_up<C: ConnectionTrait>(db: &C, claim: &Claim) -> Result<()> {
    let sql = "DELETE FROM claims WHERE caller = $1 AND request_id = $2";
    let values: [Value; 2] = [bytes(&claim.caller), claim.request_id.into()];
    sql::execute(db, sql, values).await?;
    Ok(())
}
