//! SessionService: signing in and out, tokens, one's own password and sessions (PWD-1, PWD-3, PWD-7 to PWD-9).

use std::net::IpAddr;

use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, FromQueryResult, IntoActiveModel, QueryFilter, Set,
    Value,
};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

pub(crate) use super::recovery::check_complete_password_recovery;
pub use super::recovery::{
    complete_password_recovery, prepare_complete_password_recovery, start_password_recovery,
};
use super::{
    ACTIVE, credential,
    entity::{
        credential as credentials,
        session::{Column, Entity, Model},
        user as users,
    },
    me::Me,
    password,
    sign_in::{self, Target},
    tenant,
    tokens::{self, Opened},
    user_change, wire,
};
use crate::{
    access::{
        cache::Facts as _,
        grants,
        principal::{Authenticated, Kind, Principal},
        scope::{CallerScope, NobodyScope, Proof, TenantScope},
        token,
    },
    app::{App, Outcome, Outside, Read, Tx},
    check::Violations,
    env::{Micros, SECOND_US},
    error::{Error, Reason, Result},
    names::Name,
    proto::directory::{
        ChangePasswordRequest, ChangePasswordResponse, EndSessionRequest, EndSessionResponse,
        EndUserSessionsRequest, EndUserSessionsResponse, GetJwksRequest, Jwks, ListSessionsRequest,
        ListSessionsResponse, Losses, RefreshSessionRequest, SignInRequest, SignOutRequest,
        SignOutResponse, SwitchTenantRequest, TokenSet, WhoAmIRequest, WhoAmIResponse,
        sign_in_request::Credential,
    },
    store::{
        filter::{Field, Kind as FilterKind, OrderField},
        list::{Listing, fold},
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::timestamp,
        update,
    },
};

/// A refresh token just replaced may be used again for so long, as long as its successor wasn't (PWD-1).
const REPLACED_US: Micros = 60 * SECOND_US;

const LISTING: Listing = Listing {
    fields: &[Field::new(
        "create_time",
        ("sessions", "create_time"),
        FilterKind::TIME,
    )],
    orders: &[OrderField::new("create_time", ("sessions", "create_time"))],
    id: ("sessions", "id"),
};

// ---- signing in

/// What was found and checked outside of the transaction.
#[derive(Clone)]
pub struct Checked {
    target: Target,
    /// What changes the credential, or shuts the user out, has locked; nowhere for a name that doesn't exist.
    home: ScopeKey,
    /// Sign-in was locked, so nothing was compared.
    locked: bool,
    /// The hash that the password was held against; checked again inside.
    stored: Option<String>,
    right: bool,
    /// The password's hash with today's parameters, if the stored one is outdated.
    rehashed: Option<String>,
}

#[derive(FromQueryResult)]
struct Found {
    user_id: Uuid,
    tenant_id: Uuid,
    hash: Option<String>,
}

/// A scope that is nobody's: locked for names that don't exist, so that the statements are the same.
const NOWHERE: ScopeKey = ScopeKey::Tenant(Uuid::max());

impl Found {
    fn home(&self) -> ScopeKey {
        if self.tenant_id.is_nil() {
            ScopeKey::Identity(self.user_id)
        } else {
            ScopeKey::Tenant(self.tenant_id)
        }
    }
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
    let mut checked = look_up(app, &given.sign_in_name, outside.caller().address).await?;
    if checked.locked {
        // Nothing is compared while it is: how long that takes would tell whether the password was right.
        return Ok(Some(checked));
    }
    let user = match checked.target {
        Target::User(id) => id,
        Target::Stranger(_) => Uuid::nil(),
    };
    let stored = checked.stored.as_deref();
    checked.right = credential::verify(app, user, stored, &given.password).await?;
    checked.rehashed = match stored {
        Some(stored) if checked.right && credential::is_outdated(stored) => {
            Some(app.hasher.hash(&given.password, &app.env).await?)
        }
        _ => None,
    };
    Ok(Some(checked))
}

/// Whose name it is, the credential, and whether sign-in is locked there for this network.
async fn look_up(app: &App, sign_in_name: &str, address: Option<IpAddr>) -> Result<Checked> {
    let name = fold(sign_in_name);
    let (prefix, user_name) = split_sign_in_name(app, &name);
    let (keys, network) = (app.clone(), sign_in::network(address));
    app.look(move |snapshot| {
        Box::pin(async move {
            let db = snapshot.db();
            // A guest signs in with the name of its home.
            let sql = "SELECT u.id AS user_id, u.tenant_id, c.hash AS hash FROM users u JOIN tenants t ON t.id = u.tenant_id AND t.domain_prefix = $1 \
                       LEFT JOIN credentials c ON c.user_id = u.id WHERE u.user_name_fold = $2 AND u.state <> 3 AND u.kind <> 2";
            let values: [Value; 2] = [prefix.into(), user_name.into()];
            let found = sql::one::<Found, _>(db, sql, values).await?;
            let (target, home, stored) = match found {
                // Who has no credential is counted like a name that doesn't exist.
                Some(found) if found.hash.is_some() => {
                    (Target::User(found.user_id), found.home(), found.hash)
                }
                _ => (Target::Stranger(name), NOWHERE, None),
            };
            let counted = sign_in::read(db, &keys.keys, &target, &network, snapshot.now()).await?;
            Ok(Checked {
                target,
                home,
                locked: counted.check(snapshot.now()).is_err(),
                stored,
                right: false,
                rehashed: None,
            })
        })
    })
    .await
}

/// A folded sign-in name taken apart: the prefix of the tenant's domain and the user name there; without prefix, the address of a personal
/// identity.
pub(super) fn split_sign_in_name(app: &App, name: &str) -> (String, String) {
    let of_tenant = name.rsplit_once('@').and_then(|(user_name, domain)| {
        let prefix = domain
            .strip_suffix(app.config.base_domain.as_str())?
            .strip_suffix('.')?;
        Some((prefix.to_owned(), user_name.to_owned()))
    });
    of_tenant.unwrap_or_else(|| (String::new(), name.to_owned()))
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
    // Whatever changes the credential or shuts the user out comes before or after, and ends the sessions that it finds.
    tx.lock([checked.home]).await?;
    let network = sign_in::network(tx.caller().address);
    let counted = sign_in::counted(tx, &checked.target, &network).await?;
    counted.check(tx.now())?;
    if checked.locked {
        // The lock has just ended.
        return Err(Error::aborted(Reason::Conflict));
    }
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
    if tenant.state != ACTIVE || !tenant::note_use(tx, tenant.id, tenant.first_use_time).await? {
        sign_in::failed(tx, &checked.target, &network, counted).await?;
        return Ok(Outcome::Refuse(refused()));
    }
    sign_in::succeeded(tx, user.id, &network).await?;
    if let Some(hash) = checked.rehashed {
        let sql = "UPDATE credentials SET hash = $1 WHERE user_id = $2 AND hash = $3";
        let values: [Value; 3] = [hash.into(), user.id.into(), row.hash.into()];
        sql::execute(tx.db(), sql, values).await?;
    }
    let principal = user_change::principal(&user);
    let opened = Opened {
        principal,
        home: None,
        origin: None,
        sign_in_time: tx.now(),
        expire_time: tx.now() + tx.app().config.session_lifetime(),
    };
    let tokens = tokens::open_session(tx, opened, row.temporary).await?;
    tx.touch(principal.home());
    tx.act_as(principal.name());
    tx.about(tokens.session.clone());
    Ok(Outcome::Done(tokens))
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
    let Some(key) = super::application_key::find_key(tx, id, secret).await? else {
        return Ok(refused());
    };
    if !tenant::note_use(tx, key.tenant_id, key.first_use_time).await? {
        return Ok(refused());
    }
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
        expire_time: key.expire_time,
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
    let id = tokens::session_of(&app, &req.refresh_token).ok_or_else(refused)?;
    let known = Entity::find_by_id(id)
        .one(tx.db())
        .await?
        .ok_or_else(refused)?;
    let principal = tokens::principal_of(&known);
    // Two at once take turns, so that one token has one successor.
    tx.lock([principal.home()]).await?;
    let session = Entity::find_by_id(id)
        .one(tx.db())
        .await?
        .ok_or_else(refused)?;
    let now = tx.now();
    let who = tokens::authenticated(&session);
    // Whoever may not act any more gets no token either: ended, expired, disabled, deleted, or its home is (ATK-17).
    let standing = grants::standing(tx.db(), &who, now).await?;

    let hash = tokens::refresh_hash(&app, &req.refresh_token);
    let current = bool::from(hash.ct_eq(&session.refresh_hash));
    let replaced = !session.previous_hash.is_empty()
        && bool::from(hash.ct_eq(&session.previous_hash))
        && now < session.previous_until;
    if !current && !replaced {
        let mut row = session.clone().into_active_model();
        row.end_time = Set(Some(now));
        row.version = Set(session.version + 1);
        row.update(tx.db()).await?;
        tell_of_end(tx, &session).await?;
        return Ok(Outcome::Refuse(refused()));
    }
    let (refresh_token, refresh_hash) = tokens::new_refresh_token(&app, session.id);
    let mut row = session.clone().into_active_model();
    if current {
        row.previous_hash = Set(session.refresh_hash.clone());
        row.previous_until = Set(now + REPLACED_US);
    }
    row.refresh_hash = Set(refresh_hash);
    row.last_refresh_time = Set(now);
    row.version = Set(session.version + 1);
    let row = row.update(tx.db()).await?;
    tx.touch(principal.home());
    tx.act_as(principal.name());
    tx.about(principal.session_name(session.id).to_string());
    tokens::token_set(
        &app,
        &row,
        refresh_token,
        standing.must_change_password,
        now,
    )
    .map(Outcome::Done)
}

/// Gives tokens for another tenant in which the caller has a tied user, or for its home (PWD-8). They belong to a session of their own, as
/// long as the one of the call and no younger.
///
/// # Errors
/// `NO_USER_THERE`, whether or not there is such a tenant.
pub async fn switch_tenant(
    tx: &mut Tx,
    scope: CallerScope,
    req: SwitchTenantRequest,
) -> Result<TokenSet> {
    let SwitchTenantRequest {
        tenant,
        request_id: _,
        validate_only: _,
    } = req;
    let refused = || Error::refused(Reason::NoUserThere);
    let caller = scope.principal();
    let own = users::Entity::find_by_id(caller.id)
        .one(tx.db())
        .await?
        .ok_or_else(refused)?;
    let home = match own.home_id {
        Some(home) => grants::home_principal(home, own.home_tenant_id.unwrap_or_default()),
        None => caller,
    };
    let wanted = match Name::parse(&tenant) {
        Some(Name::Tenant(id)) => id,
        // Where the caller is at home, a personal identity in none.
        _ => home.tenant,
    };
    let to = tied_user(tx, home, wanted).await?.ok_or_else(refused)?;
    // Whatever shuts out the person, here or there, comes before or after: what was found is asked again.
    tx.lock([home.home(), to.home()]).await?;
    let who = tx.caller().who.ok_or_else(refused)?;
    grants::standing(tx.db(), &who, tx.now()).await?;
    let to = tied_user(tx, home, wanted).await?.ok_or_else(refused)?;
    if to.kind == Kind::User {
        let there = tenant::by_id(tx.db(), to.tenant).await?;
        if there.state != ACTIVE || !tenant::note_use(tx, there.id, there.first_use_time).await? {
            return Err(refused());
        }
    }
    let session = Entity::find_by_id(scope.session())
        .one(tx.db())
        .await?
        .ok_or_else(refused)?;
    let opened = Opened {
        principal: to,
        home: (to != home).then_some(home.id),
        origin: Some(session.origin_id.unwrap_or(session.id)),
        sign_in_time: session.sign_in_time,
        expire_time: session.expire_time,
    };
    let tokens = tokens::open_session(tx, opened, false).await?;
    tx.touch(to.home());
    tx.about(tokens.session.clone());
    Ok(tokens)
}

/// Whom a person is in a tenant: itself at home, else the active guest that is tied to it.
async fn tied_user(tx: &Tx, home: Principal, tenant: Uuid) -> Result<Option<Principal>> {
    if tenant == home.tenant {
        return Ok(Some(home));
    }
    let guest = users::Entity::find()
        .filter(users::Column::TenantId.eq(tenant))
        .filter(users::Column::HomeId.eq(home.id))
        .filter(users::Column::State.eq(ACTIVE))
        .one(tx.db())
        .await?;
    Ok(guest.as_ref().map(user_change::principal))
}

/// Tells that a session has ended; those that were opened from it by SwitchTenant end with it.
async fn tell_of_end(tx: &mut Tx, session: &Model) -> Result<()> {
    let name = tokens::principal_of(session).session_name(session.id);
    let mut event = Event::new("entente.directory.v1.SessionEnded", name).touches(session.user_id);
    for user in tokens::end_opened_from(tx, session.id).await? {
        event = event.touches(user);
    }
    tx.emit(event);
    Ok(())
}

/// Ends the session of the token. An application's token can't end: delete its key.
///
/// # Errors
/// `PEOPLE_ONLY` to programs; those of the database.
pub async fn sign_out(
    tx: &mut Tx,
    scope: CallerScope,
    _req: SignOutRequest,
) -> Result<SignOutResponse> {
    if !scope.principal().is_person() {
        return Err(Error::refused(Reason::PeopleOnly));
    }
    let sql = "UPDATE sessions SET end_time = $1, version = version + 1 WHERE id = $2 AND end_time IS NULL";
    let values: [Value; 2] = [tx.now().into(), scope.session().into()];
    sql::execute(tx.db(), sql, values).await?;
    tokens::end_opened_from(tx, scope.session()).await?;
    Ok(SignOutResponse {})
}

// ---- oneself

/// Who the caller is, and where it may work (PWD-8).
///
/// # Errors
/// Those of the database.
pub async fn who_am_i(
    rd: &Read,
    scope: CallerScope,
    _req: WhoAmIRequest,
) -> Result<WhoAmIResponse> {
    let me = rd.know(Me {
        app: rd.app().clone(),
        principal: scope.principal(),
    });
    Ok(WhoAmIResponse {
        via: rd.caller().via_name(),
        ..WhoAmIResponse::clone(&*me.await?)
    })
}

/// What was checked and hashed outside of the transaction.
#[derive(Clone)]
pub struct Changed {
    stored: Option<String>,
    right: bool,
    /// The new password's hash; none while sign-in is locked, when nothing is compared.
    hash: Option<String>,
}

pub(crate) fn check_change_password(req: &ChangePasswordRequest, v: &mut Violations) {
    if req.new_password == req.old_password {
        v.also("new_password", "must differ from the old one");
    } else if let Some(fault) = password::fault(&req.new_password, "") {
        v.also("new_password", fault);
    }
}

/// Holds the old password against the credential, and hashes the new one.
///
/// # Errors
/// `INVALID_ARGUMENT` for a new password with the user's name in it; `OVERLOADED`.
pub async fn prepare_change_password(
    outside: &Outside,
    proof: Proof,
    req: &ChangePasswordRequest,
) -> Result<Changed> {
    let app = outside.app();
    let principal = proof.caller()?.principal();
    if !principal.is_person() {
        return Err(Error::refused(Reason::PeopleOnly));
    }
    let (keys, network) = (app.clone(), sign_in::network(outside.caller().address));
    let (stored, user_name, home, locked) = app
        .look(move |snapshot| {
            Box::pin(async move {
                let stored = credentials::Entity::find_by_id(principal.id)
                    .one(snapshot.db())
                    .await?
                    .map(|c| c.hash);
                let user = users::Entity::find_by_id(principal.id)
                    .one(snapshot.db())
                    .await?;
                let home = user.as_ref().and_then(|u| u.home_id);
                let (db, now) = (snapshot.db(), snapshot.now());
                let target = Target::User(principal.id);
                let counted = sign_in::read(db, &keys.keys, &target, &network, now).await?;
                let locked = counted.check(now).is_err();
                let user_name = user.map(|u| u.user_name).unwrap_or_default();
                Ok((stored, user_name, home, locked))
            })
        })
        .await?;
    if home.is_some() {
        // A guest's password is its home's (INV-5).
        return Err(Error::precondition(Reason::CredentialElsewhere));
    }
    if let Some(fault) = password::fault(&req.new_password, &user_name) {
        return Err(Error::field("new_password", fault));
    }
    if locked {
        let (right, hash) = (false, None);
        return Ok(Changed {
            stored,
            right,
            hash,
        });
    }
    let right = credential::verify(app, principal.id, stored.as_deref(), &req.old_password).await?;
    // As much work for a wrong one.
    let hash = Some(app.hasher.hash(&req.new_password, &app.env).await?);
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
    // None: the lock has just ended.
    let hash = changed
        .hash
        .ok_or_else(|| Error::aborted(Reason::Conflict))?;
    let usable = row.is_some_and(|r| r.expire_time.is_none_or(|at| tx.now() < at));
    if !(changed.right && usable) {
        sign_in::failed(tx, &target, &network, counted).await?;
        return Ok(Outcome::Refuse(Error::argument(
            Reason::SignInFailed,
            "old_password",
            "is wrong",
        )));
    }
    credential::set(tx, principal.id, &hash, false).await?;
    sign_in::succeeded(tx, principal.id, &network).await?;
    let ended_session_count =
        credential::end_sessions(tx, principal.id, Some(scope.session())).await?;
    let app = tx.app().clone();
    let session = Entity::find_by_id(scope.session()).one(tx.db()).await?;
    let session = session.ok_or_else(|| Error::unauthenticated(Reason::TokenInvalid))?;
    let (refresh_token, refresh_hash) = tokens::new_refresh_token(&app, session.id);
    let mut row = session.clone().into_active_model();
    row.refresh_hash = Set(refresh_hash);
    row.previous_hash = Set(Vec::new());
    row.sign_in_time = Set(tx.now());
    row.last_refresh_time = Set(tx.now());
    row.version = Set(session.version + 1);
    let row = row.update(tx.db()).await?;
    tx.emit(
        Event::new("entente.directory.v1.PasswordChanged", principal.resource())
            .touches(principal.id),
    );
    let tokens = tokens::token_set(&app, &row, refresh_token, false, tx.now())?;
    Ok(Outcome::Done(ChangePasswordResponse {
        ended_session_count,
        tokens: Some(tokens),
        secret_omitted: false,
    }))
}

pub(crate) fn check_list_sessions(req: &ListSessionsRequest, v: &mut Violations) {
    LISTING.check(req, v);
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
    let select = Entity::find()
        .filter(Column::UserId.eq(scope.principal().id))
        .filter(Column::EndTime.is_null())
        .filter(Column::ExpireTime.gt(rd.now()));
    let page = rd
        .list(&req, &LISTING, select, |row: Model| {
            wire::session(&row, scope.session())
        })
        .await?;
    Ok(ListSessionsResponse {
        sessions: page.items,
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
    tell_of_end(tx, &session).await?;
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
    super::user_admin::demand_over(tx, &user).await?;
    let ended_session_count = credential::end_sessions(tx, user.id, None).await?;
    tx.emit(
        Event::new(
            "entente.directory.v1.SessionsEnded",
            user_change::name(&user),
        )
        .with("ended_session_count", ended_session_count)
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
