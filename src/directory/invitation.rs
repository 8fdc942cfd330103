//! InvitationService: people from outside become guests of a tenant (INV-1 to INV-5).
//!
//! An invitation is pending; it is accepted or revoked, or expires with time, and is pending again when it is sent anew. Its guest is a user
//! that can do nothing until it is tied to its home: the one who holds the address, a user elsewhere or a personal identity, whose
//! credential it signs in with from then on.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, JoinType,
    QueryFilter, QueryTrait, Set, Value,
    sea_query::{Alias, CaseStatement, Expr, ExprTrait as _, Query as Select},
};
use uuid::Uuid;

use super::{
    ACTIVE, DELETED, INVITED, address,
    entity::{
        invitation::{self, Column, Entity, Model},
        tenant as tenants, user as users,
    },
    identity::{self, NewIdentity},
    password, search, session, tenant, user_change,
    wire::{self, NewInvitations},
};
use crate::{
    access::{
        grants,
        link::{self, Link},
        principal::{Kind, Principal},
        scope::{Proof, TenantScope, TokenScope},
    },
    app::{App, Outside, Read, Tx},
    check::Violations,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::LinkKind,
        directory::{
            AcceptInvitationRequest, AcceptInvitationResponse, GetInvitationRequest, Invitation,
            InvitationState, InviteUsersRequest, InviteUsersResponse, ListInvitationsRequest,
            ListInvitationsResponse, ResendInvitationRequest, RevokeInvitationRequest,
        },
    },
    store::{
        filter::{Field, Kind as FilterKind, OrderField},
        list::{Listing, fold},
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::{self, rfc3339},
        update,
    },
};

const PENDING: i64 = InvitationState::Pending as i64;
const ACCEPTED: i64 = InvitationState::Accepted as i64;
const REVOKED: i64 = InvitationState::Revoked as i64;
const EXPIRED: i64 = InvitationState::Expired as i64;
/// What callers call the states. The last one is never stored: it is what time makes of a pending one.
const STATES: &[(&str, i64)] = &[
    ("PENDING", PENDING),
    ("ACCEPTED", ACCEPTED),
    ("REVOKED", REVOKED),
    ("EXPIRED", EXPIRED),
];
/// A link is good for so long after it was sent (INV-3).
const GOOD_US: Micros = 30 * DAY_US;
/// An expired invitation can be sent anew for so long; then it goes, and the address of somebody who never came with it.
const KEPT_EXPIRED_US: Micros = 30 * DAY_US;
/// Expired invitations ended in one transaction.
const CHUNK: usize = 500;

const LISTING: Listing = Listing {
    fields: &[
        Field::new("state", ("shown", "state"), FilterKind::Enum(STATES)),
        Field::new(
            "email",
            ("invitations", "email_fold"),
            FilterKind::Text(search::INVITED),
        ),
        Field::new(
            "account",
            ("invitations", "account_id"),
            FilterKind::Id { parse: account_id },
        ),
        Field::new(
            "create_time",
            ("invitations", "create_time"),
            FilterKind::TIME,
        ),
        Field::new(
            "expire_time",
            ("invitations", "expire_time"),
            FilterKind::TIME,
        ),
    ],
    orders: &[
        OrderField::new("create_time", ("invitations", "create_time")),
        OrderField::new("email", ("invitations", "email_fold")),
    ],
    id: ("invitations", "id"),
};

fn account_id(name: &str) -> Option<Uuid> {
    match Name::parse(name) {
        Some(Name::Account(id)) => Some(id),
        _ => None,
    }
}

fn name(row: &Model) -> Name {
    Name::Invitation(row.tenant_id, row.id)
}

fn link_of(row: &Model) -> Link {
    Link {
        kind: LinkKind::Invitation,
        subject: row.id,
        scope: ScopeKey::Tenant(row.tenant_id),
    }
}

/// The state of an invitation at an instant.
fn state_at(row: &Model, now: Micros) -> i64 {
    if row.state == PENDING && row.expire_time <= now {
        EXPIRED
    } else {
        row.state
    }
}

fn state_name(state: i64) -> &'static str {
    STATES
        .iter()
        .find(|(_, s)| *s == state)
        .map_or("UNKNOWN", |(name, _)| name)
}

fn to_wire(row: &Model, now: Micros) -> Invitation {
    wire::invitation(row, state_at(row, now))
}

async fn find<C: ConnectionTrait>(db: &C, scope: TenantScope, name: &str) -> Result<Model> {
    let not_found = || Error::not_found("entente.dev/Invitation", name);
    match Name::parse(name) {
        Some(Name::Invitation(_, id)) => {
            invitation::find(db, scope, id).await?.ok_or_else(not_found)
        }
        _ => Err(not_found()),
    }
}

// ---- inviting

pub(crate) fn check_invite_users(req: &InviteUsersRequest, v: &mut Violations) {
    wire::check_invitations(req, v);
}

/// Invites addresses, all or none (INV-1, INV-2, INV-4).
///
/// # Errors
/// `INVALID_ARGUMENT` naming every address that is bad, repeated, too many, or of somebody in the tenant (`USER_EXISTS`); `OTHER_TENANT`,
/// `NOT_IN_ASSOCIATED_TENANT`, and those of giving.
pub async fn invite_users(
    tx: &mut Tx,
    proof: Proof,
    req: InviteUsersRequest,
) -> Result<InviteUsersResponse> {
    let scope = proof.tenant()?;
    let mut new = wire::new_invitations(&req);
    let row = tenant::find(tx.db(), scope).await?;
    refuse_those_here(tx, &row, &mut new).await?;
    if let Some(account) = new.account {
        check_may_promise(tx, &row, account, new.rights).await?;
    }
    let inviter = tx
        .caller()
        .who
        .map(|who| who.principal)
        .ok_or_else(|| Error::internal("nobody invites"))?;
    let mut invitations = Vec::with_capacity(new.addresses.len());
    for (_, email) in &new.addresses {
        let made = insert(tx, &row, &new, email, inviter).await?;
        invitations.push(to_wire(&made, tx.now()));
    }
    Ok(InviteUsersResponse { invitations })
}

/// Names every address of somebody who is in the tenant already: a guest by it, or a user whose sign-in name it is (INV-4).
async fn refuse_those_here(
    tx: &Tx,
    tenant: &tenants::Model,
    new: &mut NewInvitations,
) -> Result<()> {
    for (place, email) in new.addresses.clone() {
        let folded = fold(&email);
        let (prefix, user_name) = session::split_sign_in_name(tx.app(), &folded);
        let known_as = if prefix == tenant.domain_prefix {
            user_name
        } else {
            folded
        };
        let there = users::Entity::find()
            .filter(users::Column::TenantId.eq(tenant.id))
            .filter(users::Column::UserNameFold.eq(known_as))
            .filter(users::Column::State.ne(DELETED))
            .one(tx.db())
            .await?;
        if let Some(user) = there {
            let hint = if user.state == INVITED {
                "send its invitation anew with ResendInvitation"
            } else {
                "add that user with AddMembers"
            };
            let what = format!(
                "is in the tenant already, as {}; {hint}",
                user_change::name(&user)
            );
            new.fault(place, &email, &what, Some(Reason::UserExists));
        }
    }
    new.check()
}

/// What is promised on an account is what the caller could give there now (ROL-7), through the tenant that it is signed in through (USR-4).
async fn check_may_promise(
    tx: &mut Tx,
    tenant: &tenants::Model,
    account: Uuid,
    rights: grants::Set,
) -> Result<()> {
    let in_tenant = Name::Tenant(tenant.id).to_string();
    if tx
        .caller()
        .who
        .is_none_or(|who| who.principal.tenant != tenant.id)
    {
        return Err(Error::refused(Reason::OtherTenant).with("tenant", in_tenant));
    }
    if !grants::is_associated(tx.db(), account, tenant.id).await? {
        return Err(Error::precondition(Reason::NotInAssociatedTenant).with("principal", in_tenant));
    }
    // A guest to be: nobody yet, who holds nothing.
    let guest = Principal {
        kind: Kind::User,
        id: tx.id(),
        tenant: tenant.id,
    };
    grants::check_may_give(tx, ScopeKey::Account(account), guest, rights).await
}

async fn insert(
    tx: &mut Tx,
    tenant: &tenants::Model,
    new: &NewInvitations,
    email: &str,
    inviter: Principal,
) -> Result<Model> {
    let guest = user_change::insert_guest(tx, tenant.id, email, new.account).await?;
    let now = tx.now();
    let row = Model {
        id: tx.id(),
        tenant_id: tenant.id,
        user_id: guest.id,
        email: email.to_owned(),
        email_fold: fold(email),
        account_id: new.account,
        roles: new.rights.roles,
        permissions: new.rights.single.to_stored(),
        inviter_id: inviter.id,
        inviter_kind: inviter.kind as i16,
        inviter_tenant_id: inviter.tenant,
        language: tx.caller().language.tag().to_owned(),
        state: PENDING,
        create_time: now,
        send_time: now,
        expire_time: now + GOOD_US,
        answer_time: None,
        version: 1,
    };
    tx.insert(row.clone()).await?;
    send(tx, tenant, &row).await?;
    let null = || serde_json::Value::Null;
    tx.emit(
        user_change::created(&guest, 0)
            .change("kind", null(), guest.kind)
            .change("state", null(), guest.state),
    );
    let mut event = Event::new("entente.directory.v1.InvitationCreated", name(&row))
        .change("email", null(), row.email.clone())
        .change("user", null(), user_change::name(&guest).to_string())
        .change("state", null(), row.state)
        .change("expire_time", null(), time::json(row.expire_time));
    if let Some(account) = row.account_id {
        event = event
            .change("account", null(), Name::Account(account).to_string())
            .change("rights", null(), new.rights.to_rights());
    }
    tx.emit(event);
    Ok(row)
}

/// Makes the link of an invitation, which kills the one it had, and mails it.
async fn send(tx: &mut Tx, tenant: &tenants::Model, row: &Model) -> Result<()> {
    let token = link::make(tx, link_of(row), &[], GOOD_US).await?;
    let url = link::url(&tx.app().config, LinkKind::Invitation, &token);
    let values = [
        ("organisation", tenant.display_name.clone()),
        ("by", inviter_name(tx.db(), row).await?),
        ("link", url.to_string()),
        ("token", token.to_string()),
        ("until", rfc3339(row.expire_time)),
    ];
    let language = mail::language_of(&row.language);
    mail::queue_in(
        tx,
        language,
        Template::Invitation,
        &row.email,
        name(row),
        &values,
    )
    .await
}

/// What the inviter is called in mails.
async fn inviter_name<C: ConnectionTrait>(db: &C, row: &Model) -> Result<String> {
    let inviter = users::Entity::find_by_id(row.inviter_id).one(db).await?;
    Ok(inviter.map_or_else(|| "An administrator".to_owned(), |u| u.display_name))
}

// ---- reading

/// Gives an invitation.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn get_invitation(
    rd: &Read,
    scope: TenantScope,
    req: GetInvitationRequest,
) -> Result<Invitation> {
    let row = find(rd.db(), scope, &req.name).await?;
    Ok(to_wire(&row, rd.now()))
}

pub(crate) fn check_list_invitations(req: &ListInvitationsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists invitations.
///
/// # Errors
/// `INVALID_ARGUMENT` for a page token that is not of this list.
pub async fn list_invitations(
    rd: &Read,
    scope: TenantScope,
    req: ListInvitationsRequest,
) -> Result<ListInvitationsResponse> {
    // With the state that each has now, so that filters go by what is shown.
    let expired = Column::State
        .eq(PENDING)
        .and(Column::ExpireTime.lte(rd.now()));
    let state = CaseStatement::new()
        .case(expired, EXPIRED)
        .finally(Expr::col(Column::State));
    let shown = Select::select()
        .column(Column::Id)
        .expr_as(state, Alias::new("state"))
        .from(Entity)
        .and_where(Column::TenantId.eq(scope.id()))
        .to_owned();
    let mut select = Entity::find().filter(Column::TenantId.eq(scope.id()));
    QueryTrait::query(&mut select).join_subquery(
        JoinType::InnerJoin,
        shown,
        Alias::new("shown"),
        Expr::col((Alias::new("shown"), Alias::new("id"))).equals((Entity, Column::Id)),
    );
    let now = rd.now();
    let page = rd
        .list(&req, &LISTING, select, |row: Model| to_wire(&row, now))
        .await?;
    Ok(ListInvitationsResponse {
        invitations: page.items,
        next_page_token: page.next_page_token,
    })
}

// ---- sending anew, withdrawing

/// Refuses what has been answered.
fn demand_open(row: &Model, now: Micros) -> Result<()> {
    match state_at(row, now) {
        PENDING | EXPIRED => Ok(()),
        other => Err(Error::precondition(Reason::WrongState).with("state", state_name(other))),
    }
}

/// Sends a new link, which kills the old one (INV-3).
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn resend_invitation(
    tx: &mut Tx,
    scope: TenantScope,
    req: ResendInvitationRequest,
) -> Result<Invitation> {
    let ResendInvitationRequest {
        name: of,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = find(tx.db(), scope, &of).await?;
    update::check_etag(&etag, old.version)?;
    let now = tx.now();
    demand_open(&old, now)?;
    let mut row = old.clone().into_active_model();
    row.send_time = Set(now);
    row.expire_time = Set(now + GOOD_US);
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    let tenant = tenant::find(tx.db(), scope).await?;
    send(tx, &tenant, &row).await?;
    tx.emit(
        Event::new("entente.directory.v1.InvitationResent", name(&row))
            .change("state", state_at(&old, now), PENDING)
            .change(
                "expire_time",
                time::json(old.expire_time),
                time::json(row.expire_time),
            ),
    );
    Ok(to_wire(&row, now))
}

/// Withdraws an invitation: its link is dead, its guest deleted (INV-3).
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn revoke_invitation(
    tx: &mut Tx,
    scope: TenantScope,
    req: RevokeInvitationRequest,
) -> Result<Invitation> {
    let RevokeInvitationRequest {
        name: of,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = find(tx.db(), scope, &of).await?;
    update::check_etag(&etag, old.version)?;
    demand_open(&old, tx.now())?;
    let guest = users::find(tx.db(), scope, old.user_id)
        .await?
        .filter(|user| user.state == INVITED)
        .ok_or_else(|| Error::internal("an open invitation without its guest"))?;
    user_change::delete(tx, guest).await?;
    let row = find(tx.db(), scope, &of).await?;
    Ok(to_wire(&row, tx.now()))
}

/// A guest is deleted before it accepted: its invitation is over, and the link dead.
///
/// # Errors
/// Those of the database.
pub(super) async fn withdraw(tx: &mut Tx, guest: Uuid) -> Result<()> {
    let open = Entity::find()
        .filter(Column::UserId.eq(guest))
        .filter(Column::State.eq(PENDING))
        .one(tx.db())
        .await?;
    let Some(old) = open else {
        return Ok(());
    };
    link::revoke(tx, LinkKind::Invitation, old.id).await?;
    let was = state_at(&old, tx.now());
    let row = answer(tx, old, REVOKED).await?;
    let event = Event::new("entente.directory.v1.InvitationRevoked", name(&row));
    tx.emit(event.change("state", was, REVOKED));
    Ok(())
}

async fn answer(tx: &mut Tx, old: Model, state: i64) -> Result<Model> {
    let mut row = old.clone().into_active_model();
    row.state = Set(state);
    row.answer_time = Set(Some(tx.now()));
    row.version = Set(old.version + 1);
    Ok(row.update(tx.db()).await?)
}

/// Ends invitations that expired long ago, with their guests, who are purged like other deleted users; the scheduler's.
///
/// # Errors
/// Those of the database.
pub(crate) async fn purge_invitations(tx: &mut Tx) -> Result<u64> {
    let due = "SELECT u.* FROM invitations i JOIN users u ON u.id = i.user_id AND u.state = 4 \
               WHERE i.state = 1 AND i.expire_time <= $1 ORDER BY i.expire_time LIMIT 500";
    let before = tx.now() - KEPT_EXPIRED_US;
    let guests = sql::all::<users::Model, _>(tx.db(), due, [before.into()]).await?;
    tx.lock(guests.iter().map(|g| ScopeKey::Tenant(g.tenant_id)))
        .await?;
    // Under the locks: one that was sent anew meanwhile stays.
    let guests = sql::all::<users::Model, _>(tx.db(), due, [before.into()]).await?;
    let all = guests.len() == CHUNK;
    for guest in guests {
        user_change::delete(tx, guest).await?;
    }
    Ok(if all { CHUNK as u64 } else { 0 })
}

// ---- accepting

/// How an invitation can be accepted.
enum Way {
    /// The caller is who holds the address.
    Tie(Box<users::Model>),
    /// Nobody holds it yet: a personal identity is made.
    Make,
    /// Not by this caller.
    Refused(Error),
}

/// An invitation whose token was proven, with its tenant; none if it can't be accepted any more.
async fn open<C: ConnectionTrait>(db: &C, link: Link) -> Result<Option<(Model, tenants::Model)>> {
    let row = Entity::find_by_id(link.subject).one(db).await?;
    let Some(row) =
        row.filter(|r| r.state == PENDING && ScopeKey::Tenant(r.tenant_id) == link.scope)
    else {
        return Ok(None);
    };
    let tenant = tenant::by_id(db, row.tenant_id).await?;
    Ok((tenant.state == ACTIVE).then_some((row, tenant)))
}

/// Who the caller has to be (INV-5): whose credential the address has, which is one at most.
async fn way<C: ConnectionTrait>(
    db: &C,
    app: &App,
    row: &Model,
    caller: Option<Principal>,
) -> Result<Way> {
    Ok(match holder(db, app, &row.email).await? {
        None if address::is_work_address(app, &row.email) => {
            Way::Refused(Error::precondition(Reason::WorkAddress))
        }
        None => Way::Make,
        Some(user) if caller != Some(user_change::principal(&user)) => {
            Way::Refused(Error::precondition(Reason::SignInAsHolder))
        }
        // Made in the tenant itself after the invitation was sent.
        Some(user) if user.tenant_id == row.tenant_id => Way::Refused(here_already()),
        Some(user) => Way::Tie(Box::new(user)),
    })
}

/// Who signs in with an address: the user of a tenant whose sign-in name it is, or the personal identity of that address.
async fn holder<C: ConnectionTrait>(
    db: &C,
    app: &App,
    email: &str,
) -> Result<Option<users::Model>> {
    let (prefix, user_name) = session::split_sign_in_name(app, &fold(email));
    let sql = "SELECT u.* FROM users u JOIN tenants t ON t.id = u.tenant_id AND t.domain_prefix = $1 \
               WHERE u.user_name_fold = $2 AND u.state <> 3 AND u.kind <> 2";
    let values: [Value; 2] = [prefix.into(), user_name.into()];
    sql::one::<users::Model, _>(db, sql, values).await
}

fn here_already() -> Error {
    Error::exists(
        Reason::UserExists,
        "token",
        "is for an address whose holder is in the tenant already",
    )
}

/// Finds out how the invitation can be accepted, and hashes the password if an identity is to be made. What is refused is left to the
/// transaction: the very same call may have accepted meanwhile, and then its answer is given.
///
/// # Errors
/// `INVALID_ARGUMENT` for names and password; `OVERLOADED`.
pub async fn prepare_accept_invitation(
    outside: &Outside,
    proof: Proof,
    req: &AcceptInvitationRequest,
) -> Result<Option<String>> {
    let scope = proof.token()?;
    let (link, caller) = (scope.link(), scope.caller().map(|c| c.principal()));
    let app = outside.app();
    let of = app.clone();
    let found = app
        .look(move |snapshot| {
            Box::pin(async move {
                let Some((row, _)) = open(snapshot.db(), link).await? else {
                    return Ok(None);
                };
                let way = way(snapshot.db(), &of, &row, caller).await?;
                Ok(Some((row.email, way)))
            })
        })
        .await?;
    match found {
        None | Some((_, Way::Refused(_))) => Ok(None),
        Some((_, Way::Tie(_))) if req.password.is_empty() => Ok(None),
        Some((_, Way::Tie(_))) => Err(Error::field(
            "password",
            "must be empty: the address has a credential, which the caller is signed in with",
        )),
        Some((email, Way::Make)) => {
            check_new_person(req, &email)?;
            Ok(Some(app.hasher.hash(&req.password, &app.env).await?))
        }
    }
}

fn check_new_person(req: &AcceptInvitationRequest, email: &str) -> Result<()> {
    let mut faults = Vec::new();
    for (field, value) in [
        ("given_name", &req.given_name),
        ("family_name", &req.family_name),
        ("password", &req.password),
    ] {
        if value.is_empty() {
            faults.push((field.to_owned(), "is required".to_owned()));
        }
    }
    if !req.password.is_empty()
        && let Some(fault) = password::fault(&req.password, email)
    {
        faults.push(("password".to_owned(), fault.to_owned()));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(faults))
    }
}

/// Accepts an invitation: the guest is tied to its home, and gets what the inviter may still give (INV-2, INV-4, INV-5). Whatever is refused
/// leaves the token good.
///
/// # Errors
/// `LINK_INVALID`, `SIGN_IN_AS_HOLDER`, `WORK_ADDRESS`, `USER_EXISTS`; `CONFLICT` if the address lost its holder meanwhile.
pub async fn accept_invitation(
    tx: &mut Tx,
    scope: TokenScope,
    req: AcceptInvitationRequest,
    hash: Option<String>,
) -> Result<AcceptInvitationResponse> {
    let app = tx.app().clone();
    let link = scope.link();
    let caller = scope.caller().map(|c| c.principal());
    let (row, tenant) = open(tx.db(), link).await?.ok_or_else(link::invalid)?;
    // Before the scope of an identity that is made here, in the order of locking.
    tx.lock(row.account_id.map(ScopeKey::Account)).await?;
    link::redeem(tx, link).await?;
    let home = match way(tx.db(), &app, &row, caller).await? {
        Way::Tie(user) => *user,
        Way::Refused(error) => return Err(error),
        Way::Make => {
            let hash = hash.ok_or_else(|| Error::aborted(Reason::Conflict))?;
            let new = NewIdentity {
                id: tx.id(),
                email: row.email.clone(),
                given_name: req.given_name.clone(),
                family_name: req.family_name.clone(),
            };
            identity::make(tx, new, &hash).await?
        }
    };
    let home_principal = user_change::principal(&home);
    tx.touch(home_principal.home());
    if caller.is_none() {
        tx.act_as(home_principal.name());
    }
    let guest = tie(tx, &row, &home, &req).await?;
    let row = answer(tx, row, ACCEPTED).await?;
    tx.emit(
        Event::new("entente.directory.v1.InvitationAccepted", name(&row))
            .change("state", PENDING, ACCEPTED)
            .touches(guest.id),
    );
    let promised = wire::promised(&row);
    let given = give(tx, &row, &guest, promised).await?;
    let withheld = promised.beyond(given.unwrap_or_default());
    if row.account_id.is_some() && (given.is_none() || !withheld.is_empty()) {
        tell_withheld(tx, &tenant, &row, &guest, withheld).await?;
    }
    Ok(AcceptInvitationResponse {
        user: Some(wire::user(&app, &guest, &tenant.domain_prefix, 0, tx.now())),
        tenant: Some(wire::tenant(&app, &tenant, true)),
        account: row
            .account_id
            .map_or_else(String::new, |a| Name::Account(a).to_string()),
        joined_account: given.is_some(),
        given: given.map(grants::Set::to_rights),
        withheld: row.account_id.map(|_| withheld.to_rights()),
    })
}

/// Ties the guest of an invitation to its home, under the names that it says, or that it has there.
async fn tie(
    tx: &mut Tx,
    row: &Model,
    home: &users::Model,
    req: &AcceptInvitationRequest,
) -> Result<users::Model> {
    let old = users::Entity::find_by_id(row.user_id)
        .filter(users::Column::State.eq(INVITED))
        .one(tx.db())
        .await?
        .ok_or_else(link::invalid)?;
    let tied = users::Entity::find()
        .filter(users::Column::TenantId.eq(row.tenant_id))
        .filter(users::Column::HomeId.eq(home.id))
        .filter(users::Column::State.ne(DELETED))
        .one(tx.db())
        .await?;
    if tied.is_some() {
        // By an address that it had before.
        return Err(here_already());
    }
    let or = |said: &str, at_home: &str| if said.is_empty() { at_home } else { said }.to_owned();
    let given_name = or(&req.given_name, &home.given_name);
    let family_name = or(&req.family_name, &home.family_name);
    let display_name = wire::display_name(&given_name, &family_name);
    let mut guest = old.clone().into_active_model();
    guest.state = Set(ACTIVE);
    guest.home_id = Set(Some(home.id));
    guest.home_tenant_id = Set(Some(home.tenant_id));
    guest.given_name = Set(given_name);
    guest.family_name = Set(family_name);
    guest.display_name_fold = Set(fold(&display_name));
    guest.display_name = Set(display_name);
    guest.update_time = Set(tx.now());
    guest.version = Set(old.version + 1);
    let guest = guest.update(tx.db()).await?;
    grants::rename(tx, guest.id, &guest.display_name_fold).await?;
    let home = user_change::principal(home).name();
    tx.emit(
        Event::new("entente.directory.v1.UserTied", user_change::name(&guest))
            .change("state", INVITED, ACTIVE)
            .change("home", serde_json::Value::Null, home)
            .change("given_name", old.given_name, guest.given_name.clone())
            .change("family_name", old.family_name, guest.family_name.clone())
            .touches(guest.id),
    );
    Ok(guest)
}

/// Gives what was promised on the account, as far as the inviter may still give it (INV-4); None if not even a membership.
async fn give(
    tx: &mut Tx,
    row: &Model,
    guest: &users::Model,
    promised: grants::Set,
) -> Result<Option<grants::Set>> {
    let Some(account) = row.account_id else {
        return Ok(None);
    };
    let scope = ScopeKey::Account(account);
    tx.touch(scope);
    let to = user_change::principal(guest);
    let given = grants::give_in_name_of(tx, wire::inviter(row), scope, to, promised).await?;
    if let Some(set) = given {
        tx.emit(
            Event::new(
                "entente.account.v1.MemberAdded",
                Name::Member(account, guest.id),
            )
            .change("rights", serde_json::Value::Null, set.to_rights())
            .touches(guest.id),
        );
    }
    Ok(given)
}

/// Tells guest and inviter what was not given (INV-4); the tenant's contact, if the inviter is gone.
async fn tell_withheld(
    tx: &mut Tx,
    tenant: &tenants::Model,
    row: &Model,
    guest: &users::Model,
    withheld: grants::Set,
) -> Result<()> {
    let Some(account) = row.account_id else {
        return Ok(());
    };
    let scope = ScopeKey::Account(account);
    let mut rights = withheld.names(scope).join(", ");
    if rights.is_empty() {
        "membership".clone_into(&mut rights);
    }
    let values = [
        ("name", guest.display_name.clone()),
        ("sign_in_name", guest.user_name.clone()),
        ("by", inviter_name(tx.db(), row).await?),
        ("organisation", tenant.display_name.clone()),
        ("scope", scope.to_string()),
        ("rights", rights),
    ];
    let inviter = users::Entity::find_by_id(row.inviter_id)
        .one(tx.db())
        .await?;
    let address = inviter
        .filter(|u| u.state != DELETED && !u.recovery_email.is_empty())
        .map_or_else(|| tenant.contact_email.clone(), |u| u.recovery_email);
    let language = mail::language_of(&row.language);
    mail::queue(
        tx,
        Template::RightsWithheld,
        &row.email,
        user_change::name(guest),
        &values,
    )
    .await?;
    mail::queue_in(
        tx,
        language,
        Template::RightsWithheldInviter,
        &address,
        user_change::name(guest),
        &values,
    )
    .await
}
