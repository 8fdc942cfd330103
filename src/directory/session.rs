//! SessionService: signing in and out, tokens, one's own password and sessions (PWD-1, PWD-3, PWD-7 to PWD-9).

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, FromQueryResult, IntoActiveModel, QueryFilter, Set,
    Value,
};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::{
    ACTIVE, credential,
    entity::{
        credential as credentials,
        session::{Column, Entity, Model},
        tenant as tenants, user as users,
    },
    password,
    sign_in::{self, Target},
    tenant, user_change, wire,
};
use crate::{
    access::{
        grants,
        principal::{Authenticated, Kind, Principal},
        roles::{self, TENANT_ROLES},
        scope::{CallerScope, NobodyScope, Proof, TenantScope},
        token,
    },
    app::{App, Outcome, Outside, Read, Tx},
    env::{Micros, SECOND_US},
    error::{Error, Reason, Result},
    keys::Purpose,
    names::Name,
    proto::directory::{
        AccountChoice, ChangePasswordRequest, ChangePasswordResponse, EndSessionRequest,
        EndSessionResponse, EndUserSessionsRequest, EndUserSessionsResponse, GetJwksRequest, Jwks,
        ListSessionsRequest, ListSessionsResponse, Losses, RefreshSessionRequest, SignInRequest,
        SignOutRequest, SignOutResponse, TokenSet, WhoAmIRequest, WhoAmIResponse,
        sign_in_request::Credential,
    },
    store::{
        filter::{Field, Kind as FilterKind, OrderField},
        list::{Key, Listing, Query, fold},
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::{parse_rfc3339, timestamp},
        update,
    },
};

/// A refresh token just replaced may be used again for so long, as long as its successor wasn't (PWD-1).
const REPLACED_US: Micros = 60 * SECOND_US;
/// The prefix of refresh tokens, for secret scanners.
const REFRESH_PREFIX: &str = "entr_";
/// Sessions that a person has at once; a further sign-in ends the oldest.
const MOST_SESSIONS: i64 = 50;

const LISTING: Listing = Listing {
    fields: &[Field {
        name: "create_time",
        column: ("sessions", "create_time"),
        kind: FilterKind::Instant {
            parse: parse_rfc3339,
        },
    }],
    orders: &[OrderField {
        name: "create_time",
        column: ("sessions", "create_time"),
        descending: false,
    }],
    id: ("sessions", "id"),
};

// ---- signing in

/// What was found and checked outside of the transaction.
#[derive(Clone)]
pub struct Checked {
    target: Target,
    /// The hash that the password was held against; checked again inside.
    stored: Option<String>,
    right: bool,
    /// The password's hash with today's parameters, if the stored one is outdated.
    rehashed: Option<String>,
}

#[derive(FromQueryResult)]
struct Found {
    user_id: Uuid,
    hash: Option<String>,
}

/// Finds the user and holds the password against its credential: as many statements and hashes, whether or not there is such a user.
///
/// # Errors
/// `OVERLOADED`; those of the database.
pub async fn prepare_sign_in(
    outside: &Outside,
    _proof: Proof,
    req: &SignInRequest,
) -> Result<Option<Checked>> {
    let Some(Credential::Password(given)) = &req.credential else {
        return Ok(None);
    };
    let app = outside.app();
    let name = fold(&given.sign_in_name);
    let found = find_by_sign_in_name(app, &name).await?;
    let (target, user, stored) = match found {
        Some(found) => (Target::User(found.user_id), found.user_id, found.hash),
        None => (Target::Stranger(name), Uuid::nil(), None),
    };
    let right = credential::verify(app, user, stored.as_deref(), &given.password).await?;
    let rehashed = match &stored {
        Some(stored) if right && credential::is_outdated(stored) => {
            Some(app.hasher.hash(&given.password, &app.env).await?)
        }
        _ => None,
    };
    Ok(Some(Checked {
        target,
        stored,
        right,
        rehashed,
    }))
}

async fn find_by_sign_in_name(app: &App, name: &str) -> Result<Option<Found>> {
    let (user_name, domain) = name.rsplit_once('@').unwrap_or((name, ""));
    let prefix = domain
        .strip_suffix(app.config.base_domain.as_str())
        .and_then(|p| p.strip_suffix('.'))
        .unwrap_or("")
        .to_owned();
    let user_name = user_name.to_owned();
    app.look(move |snapshot| {
        Box::pin(async move {
            let sql = "SELECT u.id AS user_id, c.hash AS hash FROM users u JOIN tenants t ON t.id = u.tenant_id AND t.domain_prefix = $1 \
                       LEFT JOIN credentials c ON c.user_id = u.id WHERE u.user_name_fold = $2 AND u.state <> 3";
            let values: [Value; 2] = [prefix.into(), user_name.into()];
            sql::one::<Found, _>(snapshot.db(), sql, values).await
        })
    })
    .await
}

/// Signs in, or counts the failure, which is kept though the call fails.
///
/// # Errors
/// `SIGN_IN_FAILED`, whatever is wrong; `SIGN_IN_LOCKED`.
pub async fn sign_in(
    tx: &mut Tx,
    _scope: NobodyScope,
    req: SignInRequest,
    checked: Option<Checked>,
) -> Result<Outcome<TokenSet>> {
    match (req.credential, checked) {
        (Some(Credential::Password(_)), Some(checked)) => sign_in_person(tx, checked).await,
        (Some(Credential::Key(key)), _) => {
            sign_in_application(tx, &key.client_id, &key.secret).await
        }
        _ => Err(Error::field("credential", "is required")),
    }
}

async fn sign_in_person(tx: &mut Tx, checked: Checked) -> Result<Outcome<TokenSet>> {
    let network = sign_in::network(tx.caller().address);
    let counted = sign_in::counted(tx, &checked.target, &network).await?;
    counted.check(tx.now())?;
    let refused = || Error::unauthenticated(Reason::SignInFailed);
    // Whoever it is, or isn't: the same statements.
    let id = match &checked.target {
        Target::User(id) => *id,
        Target::Stranger(_) => Uuid::nil(),
    };
    let row = credentials::Entity::find_by_id(id).one(tx.db()).await?;
    if row.as_ref().map(|r| &r.hash) != checked.stored.as_ref() {
        // The credential changed between the check and now: the check is worth nothing.
        return Err(Error::aborted(Reason::Conflict));
    }
    let user = users::Entity::find_by_id(id).one(tx.db()).await?;
    let usable = row
        .as_ref()
        .is_some_and(|r| r.expire_time.is_none_or(|at| tx.now() < at));
    let (Some(user), Some(row), true) = (
        user.filter(|u| u.state == ACTIVE),
        row,
        checked.right && usable,
    ) else {
        sign_in::failed(tx, &checked.target, &network, counted).await?;
        return Ok(Outcome::Refuse(refused()));
    };
    let tenant = tenant::by_id(tx.db(), user.tenant_id).await?;
    if tenant.state != ACTIVE {
        sign_in::failed(tx, &checked.target, &network, counted).await?;
        return Ok(Outcome::Refuse(refused()));
    }
    sign_in::succeeded(tx, user.id, &network).await?;
    if let Some(hash) = checked.rehashed {
        let sql = "UPDATE credentials SET hash = $1 WHERE user_id = $2";
        let values: [Value; 2] = [hash.into(), user.id.into()];
        sql::execute(tx.db(), sql, values).await?;
    }
    let tokens = open_session(tx, &user, row.temporary).await?;
    tx.touch(ScopeKey::Tenant(user.tenant_id));
    tx.act_as(user_change::name(&user).to_string());
    tx.about(tokens.session.clone());
    Ok(Outcome::Done(tokens))
}

async fn open_session(tx: &mut Tx, user: &users::Model, temporary: bool) -> Result<TokenSet> {
    let app = tx.app().clone();
    let now = tx.now();
    let id = tx.id();
    let (refresh_token, refresh_hash) = new_refresh_token(&app, id);
    let expire_time = now + app.config.session_lifetime();
    let row = Model {
        id,
        user_id: user.id,
        tenant_id: user.tenant_id,
        client_address: tx.caller().address_text(),
        create_time: now,
        sign_in_time: now,
        last_refresh_time: now,
        expire_time,
        end_time: None,
        refresh_hash,
        previous_hash: Vec::new(),
        previous_until: 0,
        version: 1,
    };
    tx.insert(row.clone()).await?;
    let sql = "UPDATE sessions SET end_time = $1, version = version + 1 WHERE id IN (SELECT id FROM sessions WHERE user_id = $2 \
               AND end_time IS NULL AND expire_time > $1 ORDER BY create_time DESC, id DESC LIMIT 1000 OFFSET $3)";
    let values: [Value; 3] = [now.into(), user.id.into(), MOST_SESSIONS.into()];
    sql::execute(tx.db(), sql, values).await?;
    token_set(&app, user.tenant_id, &row, refresh_token, temporary, now)
}

fn token_set(
    app: &App,
    tenant: Uuid,
    session: &Model,
    refresh_token: String,
    temporary: bool,
    now: Micros,
) -> Result<TokenSet> {
    let principal = Principal {
        kind: Kind::User,
        id: session.user_id,
        tenant,
    };
    let who = Authenticated {
        principal,
        session: session.id,
        sign_in_time: session.sign_in_time,
    };
    let (access_token, expire) = app
        .tokens
        .sign(&who, now, app.config.access_token_lifetime())?;
    Ok(TokenSet {
        access_token,
        access_expire_time: timestamp(expire),
        refresh_token,
        session_expire_time: timestamp(session.expire_time),
        session: Name::Session(tenant, session.user_id, session.id).to_string(),
        tenant: Name::Tenant(tenant).to_string(),
        password_change_required: temporary,
    })
}

async fn sign_in_application(
    tx: &mut Tx,
    client_id: &str,
    secret: &str,
) -> Result<Outcome<TokenSet>> {
    let refused = || Outcome::Refuse(Error::unauthenticated(Reason::SignInFailed));
    let Ok(id) = Uuid::try_parse(client_id) else {
        return Ok(refused());
    };
    let Some(key) = super::application::find_key(tx, id, secret).await? else {
        return Ok(refused());
    };
    let app = tx.app().clone();
    let principal = Principal {
        kind: Kind::Application,
        id,
        tenant: key.tenant_id,
    };
    let who = Authenticated {
        principal,
        session: key.key_id,
        sign_in_time: tx.now(),
    };
    let lifetime = app
        .config
        .access_token_lifetime()
        .min(key.expire_time - tx.now());
    let (access_token, expire) = app.tokens.sign(&who, tx.now(), lifetime)?;
    tx.touch(ScopeKey::Tenant(key.tenant_id));
    tx.act_as(principal.name());
    tx.about(Name::Key(key.tenant_id, id, key.key_id).to_string());
    Ok(Outcome::Done(TokenSet {
        access_token,
        access_expire_time: timestamp(expire),
        refresh_token: String::new(),
        session_expire_time: timestamp(key.expire_time),
        session: String::new(),
        tenant: Name::Tenant(key.tenant_id).to_string(),
        password_change_required: false,
    }))
}

// ---- refreshing

/// A refresh token: session, 16 random bytes, and a MAC, so that a forged one can't end a session.
fn new_refresh_token(app: &App, session: Uuid) -> (String, Vec<u8>) {
    let mut bytes = session.as_bytes().to_vec();
    bytes.extend_from_slice(&app.env.bytes::<16>());
    let mac = app.keys.mac(Purpose::Secret, &[b"refresh token", &bytes]);
    bytes.extend_from_slice(&mac[..16]);
    let token = format!("{REFRESH_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes));
    let hash = refresh_hash(app, &token);
    (token, hash)
}

fn refresh_hash(app: &App, token: &str) -> Vec<u8> {
    app.keys
        .mac(Purpose::Secret, &[b"refresh hash", token.as_bytes()])
        .to_vec()
}

/// The session that a token was made for; None for anything that wasn't made here.
fn session_of(app: &App, token: &str) -> Option<Uuid> {
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

#[derive(FromQueryResult)]
struct Standing {
    user_state: i64,
    tenant_state: i64,
    temporary: Option<bool>,
}

/// Exchanges a refresh token. One used twice ends the session, and that end is kept though the call fails.
///
/// # Errors
/// `TOKEN_INVALID`, whatever is wrong.
pub async fn refresh_session(
    tx: &mut Tx,
    _scope: NobodyScope,
    req: RefreshSessionRequest,
) -> Result<Outcome<TokenSet>> {
    let app = tx.app().clone();
    let refused = || Error::unauthenticated(Reason::TokenInvalid);
    let id = session_of(&app, &req.refresh_token).ok_or_else(refused)?;
    let tenant: Option<Uuid> = Entity::find_by_id(id)
        .one(tx.db())
        .await?
        .map(|s| s.tenant_id);
    let tenant = tenant.ok_or_else(refused)?;
    // Two at once take turns, so that one token has one successor.
    tx.lock([ScopeKey::Tenant(tenant)]).await?;
    let session = Entity::find_by_id(id)
        .one(tx.db())
        .await?
        .ok_or_else(refused)?;
    let now = tx.now();
    if session.end_time.is_some() || session.expire_time <= now {
        return Err(refused());
    }
    let sql = "SELECT u.state AS user_state, t.state AS tenant_state, c.temporary AS temporary FROM users u JOIN tenants t ON t.id = u.tenant_id \
               LEFT JOIN credentials c ON c.user_id = u.id WHERE u.id = $1";
    let standing = sql::one::<Standing, _>(tx.db(), sql, [session.user_id.into()]).await?;
    let standing = standing
        .filter(|s| s.user_state == ACTIVE && s.tenant_state == ACTIVE)
        .ok_or_else(refused)?;

    let hash = refresh_hash(&app, &req.refresh_token);
    let current = bool::from(hash.ct_eq(&session.refresh_hash));
    let replaced = !session.previous_hash.is_empty()
        && bool::from(hash.ct_eq(&session.previous_hash))
        && now < session.previous_until;
    if !current && !replaced {
        let mut row = session.clone().into_active_model();
        row.end_time = Set(Some(now));
        row.version = Set(session.version + 1);
        row.update(tx.db()).await?;
        tx.emit(session_ended(&session));
        return Ok(Outcome::Refuse(refused()));
    }
    let (refresh_token, refresh_hash) = new_refresh_token(&app, session.id);
    let mut row = session.clone().into_active_model();
    if current {
        row.previous_hash = Set(session.refresh_hash.clone());
        row.previous_until = Set(now + REPLACED_US);
    }
    row.refresh_hash = Set(refresh_hash);
    row.last_refresh_time = Set(now);
    row.version = Set(session.version + 1);
    let row = row.update(tx.db()).await?;
    tx.touch(ScopeKey::Tenant(tenant));
    tx.act_as(Name::User(tenant, session.user_id).to_string());
    tx.about(Name::Session(tenant, session.user_id, session.id).to_string());
    token_set(
        &app,
        tenant,
        &row,
        refresh_token,
        standing.temporary.unwrap_or(false),
        now,
    )
    .map(Outcome::Done)
}

fn session_ended(session: &Model) -> Event {
    Event::new(
        "entente.directory.v1.SessionEnded",
        Name::Session(session.tenant_id, session.user_id, session.id),
    )
    .touches(session.user_id)
}

/// Ends the session of the token. An application's token can't end: delete its key.
///
/// # Errors
/// Those of the database.
pub async fn sign_out(
    tx: &mut Tx,
    scope: CallerScope,
    _req: SignOutRequest,
) -> Result<SignOutResponse> {
    let sql = "UPDATE sessions SET end_time = $1, version = version + 1 WHERE id = $2 AND end_time IS NULL";
    let values: [Value; 2] = [tx.now().into(), scope.session().into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(SignOutResponse {})
}

// ---- oneself

#[derive(FromQueryResult)]
struct Choice {
    account_id: Uuid,
    display_name: String,
    roles: i64,
    permissions: String,
}

/// Who the caller is, and where it may work (PWD-8).
///
/// # Errors
/// Those of the database.
pub async fn who_am_i(
    rd: &Read,
    scope: CallerScope,
    _req: WhoAmIRequest,
) -> Result<WhoAmIResponse> {
    let principal = scope.principal();
    let db = rd.db();
    let tenant = tenants::Entity::find_by_id(principal.tenant)
        .one(db)
        .await?;
    let wire_tenant = tenant.as_ref().map(|t| wire::tenant(rd.app(), t, true));
    let (display_name, temporary) = match principal.kind {
        Kind::User => {
            let user = users::Entity::find_by_id(principal.id).one(db).await?;
            let temporary = credentials::Entity::find_by_id(principal.id)
                .one(db)
                .await?
                .is_some_and(|c| c.temporary);
            (user.map(|u| u.display_name), temporary)
        }
        _ => (
            super::application::summary(db, principal.id)
                .await?
                .map(|a| a.display_name),
            false,
        ),
    };
    let sql = "SELECT a.id AS account_id, a.publisher_display_name AS display_name, g.roles, g.permissions FROM grants g \
               JOIN accounts a ON a.id = g.scope_id \
               JOIN associations s ON s.account_id = g.scope_id AND s.tenant_id = g.tenant_id \
               WHERE g.principal_id = $1 AND g.scope_kind = 2 ORDER BY a.publisher_display_name_fold, a.id LIMIT 1000";
    let choices = sql::all::<Choice, _>(db, sql, [principal.id.into()]).await?;
    let held = grants::held(db, principal.id, ScopeKey::Tenant(principal.tenant)).await?;
    Ok(WhoAmIResponse {
        principal: principal.name(),
        display_name: display_name.unwrap_or_default(),
        tenants: wire_tenant.clone().into_iter().collect(),
        tenant: wire_tenant,
        directory_roles: roles::numbers_of(TENANT_ROLES, held.roles),
        accounts: choices
            .into_iter()
            .map(|c| AccountChoice {
                account: Name::Account(c.account_id).to_string(),
                display_name: c.display_name,
                rights: Some(
                    grants::Set {
                        roles: c.roles,
                        single: roles::Permissions::from_stored(&c.permissions),
                    }
                    .to_rights(),
                ),
            })
            .collect(),
        via: rd.caller().via_name(),
        password_change_required: temporary,
    })
}

/// What was checked and hashed outside of the transaction.
#[derive(Clone)]
pub struct Changed {
    stored: Option<String>,
    right: bool,
    /// The new password's hash; none if the old one was wrong.
    hash: Option<String>,
}

/// Holds the old password against the credential, and hashes the new one.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad new password; `OVERLOADED`.
pub async fn prepare_change_password(
    outside: &Outside,
    proof: Proof,
    req: &ChangePasswordRequest,
) -> Result<Changed> {
    let app = outside.app();
    let principal = proof.caller()?.principal();
    if principal.kind != Kind::User {
        return Err(Error::denied("a password, which applications have none of"));
    }
    let (stored, user_name) = app
        .look(move |snapshot| {
            Box::pin(async move {
                let stored = credentials::Entity::find_by_id(principal.id)
                    .one(snapshot.db())
                    .await?
                    .map(|c| c.hash);
                let user = users::Entity::find_by_id(principal.id)
                    .one(snapshot.db())
                    .await?;
                Ok((stored, user.map(|u| u.user_name).unwrap_or_default()))
            })
        })
        .await?;
    if let Some(fault) = password::fault(&req.new_password, &user_name) {
        return Err(Error::field("new_password", fault));
    }
    if req.new_password == req.old_password {
        return Err(Error::field("new_password", "must differ from the old one"));
    }
    let right = credential::verify(app, principal.id, stored.as_deref(), &req.old_password).await?;
    let hash = if right {
        Some(app.hasher.hash(&req.new_password, &app.env).await?)
    } else {
        None
    };
    Ok(Changed {
        stored,
        right,
        hash,
    })
}

/// Changes the caller's own password; all other sessions end (PWD-3). A wrong old one counts as a failed sign-in.
///
/// # Errors
/// `SIGN_IN_FAILED`, `SIGN_IN_LOCKED`.
pub async fn change_password(
    tx: &mut Tx,
    scope: CallerScope,
    _req: ChangePasswordRequest,
    changed: Changed,
) -> Result<Outcome<ChangePasswordResponse>> {
    let principal = scope.principal();
    let network = sign_in::network(tx.caller().address);
    let target = Target::User(principal.id);
    tx.lock([principal.home()]).await?;
    let counted = sign_in::counted(tx, &target, &network).await?;
    counted.check(tx.now())?;
    let row = credentials::Entity::find_by_id(principal.id)
        .one(tx.db())
        .await?;
    if row.as_ref().map(|r| &r.hash) != changed.stored.as_ref() {
        return Err(Error::aborted(Reason::Conflict));
    }
    let usable = row.is_some_and(|r| r.expire_time.is_none_or(|at| tx.now() < at));
    let (Some(hash), true) = (changed.hash, changed.right && usable) else {
        sign_in::failed(tx, &target, &network, counted).await?;
        return Ok(Outcome::Refuse(Error::argument(
            Reason::SignInFailed,
            "old_password",
            "is wrong",
        )));
    };
    credential::set(tx, principal.id, &hash, false).await?;
    sign_in::succeeded(tx, principal.id, &network).await?;
    let ended_session_count =
        credential::end_sessions(tx, principal.id, Some(scope.session())).await?;
    let app = tx.app().clone();
    let session = Entity::find_by_id(scope.session()).one(tx.db()).await?;
    let session = session.ok_or_else(|| Error::unauthenticated(Reason::TokenInvalid))?;
    let (refresh_token, refresh_hash) = new_refresh_token(&app, session.id);
    let mut row = session.clone().into_active_model();
    row.refresh_hash = Set(refresh_hash);
    row.previous_hash = Set(Vec::new());
    row.sign_in_time = Set(tx.now());
    row.last_refresh_time = Set(tx.now());
    row.version = Set(session.version + 1);
    let row = row.update(tx.db()).await?;
    tx.emit(
        Event::new(
            "entente.directory.v1.PasswordChanged",
            Name::User(principal.tenant, principal.id),
        )
        .touches(principal.id),
    );
    let tokens = token_set(&app, principal.tenant, &row, refresh_token, false, tx.now())?;
    Ok(Outcome::Done(ChangePasswordResponse {
        ended_session_count,
        tokens: Some(tokens),
        secret_omitted: false,
    }))
}

/// The caller's own sessions that haven't ended (PWD-9).
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_sessions(
    rd: &Read,
    scope: CallerScope,
    req: ListSessionsRequest,
) -> Result<ListSessionsResponse> {
    let ListSessionsRequest {
        parent,
        page_size,
        page_token,
        filter,
        order_by,
    } = req;
    let select = Entity::find()
        .filter(Column::UserId.eq(scope.principal().id))
        .filter(Column::EndTime.is_null())
        .filter(Column::ExpireTime.gt(rd.now()));
    let query = Query {
        keys: &rd.app().keys,
        caller: &rd.caller().key(),
        about: &[rd.method(), &parent],
        page_size,
        page_token: &page_token,
        filter: &filter,
        order_by: &order_by,
    };
    let page = query
        .page(rd.db(), select, &LISTING, |row: &Model, _| {
            Key::Number(row.create_time, row.id)
        })
        .await?;
    Ok(ListSessionsResponse {
        sessions: page
            .rows
            .iter()
            .map(|row| wire::session(row, scope.session()))
            .collect(),
        next_page_token: page.next_page_token,
    })
}

/// Ends one of the caller's own sessions.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn end_session(
    tx: &mut Tx,
    scope: CallerScope,
    req: EndSessionRequest,
) -> Result<EndSessionResponse> {
    let EndSessionRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let id = Name::parse(&name).map(|n| n.id()).unwrap_or_default();
    let session = Entity::find_by_id(id)
        .filter(Column::UserId.eq(scope.principal().id))
        .filter(Column::EndTime.is_null())
        .one(tx.db())
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Session", name))?;
    update::check_etag(&etag, session.version)?;
    let mut row = session.clone().into_active_model();
    row.end_time = Set(Some(tx.now()));
    row.version = Set(session.version + 1);
    row.update(tx.db()).await?;
    tx.emit(session_ended(&session));
    let losses = Losses {
        session_count: 1,
        ..Losses::default()
    };
    Ok(EndSessionResponse {
        resources: vec![wire::session(&session, scope.session())],
        losses: Some(losses),
    })
}

/// Ends all sessions of a user.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn end_user_sessions(
    tx: &mut Tx,
    scope: TenantScope,
    req: EndUserSessionsRequest,
) -> Result<EndUserSessionsResponse> {
    let EndUserSessionsRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let id = Name::parse(&name).map(|n| n.id()).unwrap_or_default();
    let user = users::find(tx.db(), scope, id)
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/User", name))?;
    update::check_etag(&etag, user.version)?;
    super::user::demand_over(tx, &user).await?;
    let ended_session_count = credential::end_sessions(tx, user.id, None).await?;
    tx.emit(
        Event::new(
            "entente.directory.v1.SessionsEnded",
            user_change::name(&user),
        )
        .touches(user.id),
    );
    Ok(EndUserSessionsResponse {
        ended_session_count,
    })
}

/// The public keys of access tokens.
///
/// # Errors
/// Those of the database.
pub async fn get_jwks(rd: &Read, _scope: NobodyScope, _req: GetJwksRequest) -> Result<Jwks> {
    Ok(Jwks {
        keys: token::jwks(rd.app()).await?,
    })
}
