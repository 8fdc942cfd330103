//! Credentials: what the service makes carries 128 random bits or more and is kept as a MAC; what people choose is kept as Argon2id.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sea_orm::Value;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::entity::credential::Model;
use crate::{
    access::link,
    app::{App, Tx},
    env::{Env, HOUR_US, Micros},
    error::Result,
    keys::{Keys, Purpose},
    store::sql,
};

/// A temporary password is good for so long (PWD-5).
pub const TEMPORARY_US: Micros = 72 * HOUR_US;
/// Marks the stored form of what the service made.
const MADE: &str = "hmac$";
/// 32 characters that aren't mistaken for each other.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A temporary password of 140 random bits, in groups that can be read out.
#[must_use]
pub fn temporary_password(env: &Env) -> String {
    let bytes = env.bytes::<28>();
    let mut out = String::with_capacity(34);
    for (i, byte) in bytes.iter().enumerate() {
        if i > 0 && i % 4 == 0 {
            out.push('-');
        }
        out.push(char::from(ALPHABET[usize::from(byte & 31)]));
    }
    out
}

/// What is stored of a secret that the service made for a user.
#[must_use]
pub fn stored_made(keys: &Keys, user: Uuid, secret: &str) -> String {
    let mac = keys.mac(
        Purpose::Secret,
        &[b"password", user.as_bytes(), secret.as_bytes()],
    );
    format!("{MADE}{}", BASE64_URL_SAFE_NO_PAD.encode(mac))
}

/// Whether a password is the stored one. One Argon2id is computed, whether or not there is anything to compare with, but for the right
/// secret that the service made.
///
/// # Errors
/// `OVERLOADED`.
pub async fn verify(app: &App, user: Uuid, stored: Option<&str>, password: &str) -> Result<bool> {
    match stored {
        Some(stored) if stored.starts_with(MADE) => {
            let right = bool::from(
                stored
                    .as_bytes()
                    .ct_eq(stored_made(&app.keys, user, password).as_bytes()),
            );
            if !right {
                app.hasher.verify(password, None).await?;
            }
            Ok(right)
        }
        other => app.hasher.verify(password, other).await,
    }
}

/// Whether a stored hash is to be made anew with today's parameters.
#[must_use]
pub fn is_outdated(stored: &str) -> bool {
    !stored.starts_with(MADE) && crate::hash::Hasher::is_outdated(stored)
}

/// Sets a user's credential; failures and locks are forgotten, and links mailed before are void.
///
/// # Errors
/// Those of the database.
pub async fn set(tx: &mut Tx, user: Uuid, hash: &str, temporary: bool) -> Result<()> {
    let now = tx.now();
    let expire_time = temporary.then_some(now + TEMPORARY_US);
    let sql = "INSERT INTO credentials (user_id, hash, temporary, expire_time, change_time, strangers_failed, known_failed) \
               VALUES ($1, $2, $3, $4, $5, 0, 0) ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, temporary = excluded.temporary, \
               expire_time = excluded.expire_time, change_time = excluded.change_time, strangers_failed = 0, known_failed = 0";
    let values: [Value; 5] = [
        user.into(),
        hash.into(),
        temporary.into(),
        Value::BigInt(expire_time),
        now.into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    let sql = "UPDATE sign_in_networks SET failed = 0, locked_until = 0 WHERE user_id = $1 AND failed > 0";
    sql::execute(tx.db(), sql, [user.into()]).await?;
    link::revoke_ways_in(tx, user).await
}

/// Makes the temporary password of a user who was just made; gives it, to be shown once.
///
/// # Errors
/// Those of the database.
pub async fn make_first(tx: &mut Tx, user: Uuid) -> Result<String> {
    let app = tx.app().clone();
    let password = temporary_password(&app.env);
    let row = Model {
        user_id: user,
        hash: stored_made(&app.keys, user, &password),
        temporary: true,
        expire_time: Some(tx.now() + TEMPORARY_US),
        change_time: tx.now(),
        strangers_failed: 0,
        known_failed: 0,
    };
    tx.insert(row).await?;
    Ok(password)
}

/// Makes a temporary password for a user; gives it, to be shown once.
///
/// # Errors
/// Those of the database.
pub async fn make_temporary(tx: &mut Tx, user: Uuid) -> Result<String> {
    let app = tx.app().clone();
    let password = temporary_password(&app.env);
    set(tx, user, &stored_made(&app.keys, user, &password), true).await?;
    Ok(password)
}

/// Ends a temporary password that nobody was shown: nobody counts by it as somebody who can sign in (ROL-9).
///
/// # Errors
/// Those of the database.
pub async fn end_temporary(tx: &mut Tx, user: Uuid) -> Result<()> {
    let sql = "UPDATE credentials SET expire_time = $2 WHERE user_id = $1";
    let values: [Value; 2] = [user.into(), tx.now().into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Ends a user's sessions, those as a guest elsewhere too, all but one if named; gives how many ended.
///
/// # Errors
/// Those of the database.
pub async fn end_sessions(tx: &mut Tx, user: Uuid, but: Option<Uuid>) -> Result<i32> {
    let sql = "UPDATE sessions SET end_time = $1, version = version + 1 WHERE (user_id = $2 OR home_id = $2) AND end_time IS NULL \
               AND expire_time > $1 AND id <> $3";
    let values: [Value; 3] = [tx.now().into(), user.into(), but.unwrap_or_default().into()];
    let done = sql::execute(tx.db(), sql, values).await?;
    Ok(i32::try_from(done.rows_affected()).unwrap_or(i32::MAX))
}
