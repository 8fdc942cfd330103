//! Sessions and their tokens: how they are opened, and what a refresh token is (PWD-1).

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sea_orm::{FromQueryResult, Value};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::entity::session::Model;
use crate::{
    access::principal::{Authenticated, Kind, Principal},
    app::{App, Tx},
    env::Micros,
    error::Result,
    keys::Purpose,
    names::Name,
    proto::directory::TokenSet,
    store::{sql, time::timestamp},
};

/// The prefix of refresh tokens, for secret scanners.
const REFRESH_PREFIX: &str = "entr_";
/// Sessions that a person has at once in one tenant; a further one ends the oldest.
const MOST_SESSIONS: i64 = 50;

/// A session to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Whom its tokens name.
    pub principal: Principal,
    /// A guest's home.
    pub home: Option<Uuid>,
    /// The session of the sign-in that it comes from, by SwitchTenant; it ends with that one.
    pub origin: Option<Uuid>,
    /// When the credential was checked.
    pub sign_in_time: Micros,
    /// When it ends by itself.
    pub expire_time: Micros,
}

/// Opens a session, and gives its tokens.
///
/// # Errors
/// Those of the database.
pub async fn open_session(tx: &mut Tx, opened: Opened, temporary: bool) -> Result<TokenSet> {
    let app = tx.app().clone();
    let now = tx.now();
    let id = tx.id();
    let (refresh_token, refresh_hash) = new_refresh_token(&app, id);
    let row = Model {
        id,
        user_id: opened.principal.id,
        tenant_id: opened.principal.tenant,
        client_address: tx.caller().address_text(),
        create_time: now,
        sign_in_time: opened.sign_in_time,
        last_refresh_time: now,
        expire_time: opened.expire_time,
        end_time: None,
        refresh_hash,
        previous_hash: Vec::new(),
        previous_until: 0,
        home_id: opened.home,
        origin_id: opened.origin,
        version: 1,
    };
    tx.insert(row.clone()).await?;
    let sql = "UPDATE sessions SET end_time = $1, version = version + 1 WHERE id IN (SELECT id FROM sessions WHERE user_id = $2 \
               AND end_time IS NULL AND expire_time > $1 ORDER BY create_time DESC, id DESC LIMIT 1000 OFFSET $3)";
    let values: [Value; 3] = [now.into(), opened.principal.id.into(), MOST_SESSIONS.into()];
    sql::execute(tx.db(), sql, values).await?;
    token_set(&app, &row, refresh_token, temporary, now)
}

/// Ends the sessions that SwitchTenant opened from one; gives whose they were.
///
/// # Errors
/// Those of the database.
pub async fn end_opened_from(tx: &mut Tx, session: Uuid) -> Result<Vec<Uuid>> {
    let sql = "UPDATE sessions SET end_time = $1, version = version + 1 WHERE origin_id = $2 AND end_time IS NULL RETURNING user_id";
    let values: [Value; 2] = [tx.now().into(), session.into()];
    let ended = sql::all::<Ended, _>(tx.db(), sql, values).await?;
    Ok(ended.into_iter().map(|row| row.user_id).collect())
}

#[derive(FromQueryResult)]
struct Ended {
    user_id: Uuid,
}

/// Whom the tokens of a session name.
#[must_use]
pub fn principal_of(session: &Model) -> Principal {
    let kind = if session.tenant_id.is_nil() {
        Kind::Identity
    } else {
        Kind::User
    };
    Principal {
        kind,
        id: session.user_id,
        tenant: session.tenant_id,
    }
}

/// What the tokens of a session say, but for how long they are good.
#[must_use]
pub fn authenticated(session: &Model) -> Authenticated {
    Authenticated {
        principal: principal_of(session),
        session: session.id,
        sign_in_time: session.sign_in_time,
        expire_time: Micros::MAX,
    }
}

/// The tokens of a session.
///
/// # Errors
/// Internal, if no key signs now.
pub fn token_set(
    app: &App,
    session: &Model,
    refresh_token: String,
    temporary: bool,
    now: Micros,
) -> Result<TokenSet> {
    let who = authenticated(session);
    let (access_token, expire) = app
        .tokens
        .sign(&who, now, app.config.access_token_lifetime())?;
    Ok(TokenSet {
        access_token,
        access_expire_time: timestamp(expire),
        refresh_token,
        session_expire_time: timestamp(session.expire_time),
        session: who.principal.session_name(session.id).to_string(),
        tenant: if who.principal.kind == Kind::Identity {
            String::new()
        } else {
            Name::Tenant(session.tenant_id).to_string()
        },
        password_change_required: temporary,
    })
}

/// A refresh token: session, 16 random bytes, and a MAC, so that a forged one can't end a session; and what is kept of it.
#[must_use]
pub fn new_refresh_token(app: &App, session: Uuid) -> (String, Vec<u8>) {
    let mut bytes = session.as_bytes().to_vec();
    bytes.extend_from_slice(&app.env.bytes::<16>());
    let mac = app.keys.mac(Purpose::Secret, &[b"refresh token", &bytes]);
    bytes.extend_from_slice(&mac[..16]);
    let token = format!("{REFRESH_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes));
    let hash = refresh_hash(app, &token);
    (token, hash)
}

/// What is kept of a refresh token.
#[must_use]
pub fn refresh_hash(app: &App, token: &str) -> Vec<u8> {
    app.keys
        .mac(Purpose::Secret, &[b"refresh hash", token.as_bytes()])
        .to_vec()
}

/// The session that a token was made for; None for anything that wasn't made here.
#[must_use]
pub fn session_of(app: &App, token: &str) -> Option<Uuid> {
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(token.strip_prefix(REFRESH_PREFIX)?)
        .ok()?;
    let (made, mac) = (bytes.get(..32)?, bytes.get(32..48)?);
    if bytes.len() != 48
        || !bool::from(app.keys.mac(Purpose::Secret, &[b"refresh token", made])[..16].ct_eq(mac))
    {
        return None;
    }
    Uuid::from_slice(&made[..16]).ok()
}
