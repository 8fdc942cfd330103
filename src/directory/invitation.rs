//! InvitationService: people from outside become guests of a tenant (INV-1 to INV-5).
//!
//! An invitation is pending; it is accepted or revoked, or expires with time, and is pending again when it is sent anew. Its guest is a user
//! that can do nothing until it is tied to its home: the one who holds the address, a user elsewhere or a personal identity, whose
//! credential it signs in with from then on.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, Set,
    sea_query::{Alias, CaseStatement, Expr, ExprTrait as _, Query as Select},
};
use uuid::Uuid;

pub use super::acceptance::{accept_invitation, prepare_accept_invitation};
use super::{
    DELETED, INVITED, acceptance,
    entity::{
        invitation::{self, Column, Entity, Model},
        tenant as tenants, user as users,
    },
    search, session, tenant, user_change,
    wire::{self, NewInvitations},
};
use crate::{
    access::{
        grants,
        link::{self, Link},
        principal::{Kind, Principal},
        scope::{Proof, TenantScope},
    },
    app::{Read, Tx},
    check::Violations,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::LinkKind,
        directory::{
            GetInvitationRequest, Invitation, InvitationState, InviteUsersRequest,
            InviteUsersResponse, ListInvitationsRequest, ListInvitationsResponse,
            ResendInvitationRequest, RevokeInvitationRequest,
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

/// Sent, and not answered yet.
pub(super) const PENDING: i64 = InvitationState::Pending as i64;
/// Accepted.
pub(super) const ACCEPTED: i64 = InvitationState::Accepted as i64;
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

/// The name of an invitation's row.
pub(super) fn name(row: &Model) -> Name {
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

pub(super) fn to_wire(row: &Model, now: Micros) -> Invitation {
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
        // Whose credential the address has may be here under another name, which it had before.
        let holder = acceptance::holder(tx.db(), tx.app(), &email).await?;
        let mut is_here = users::Column::UserNameFold.eq(known_as);
        if let Some(holder) = holder {
            is_here = is_here.or(users::Column::HomeId.eq(holder.id));
        }
        let there = users::Entity::find()
            .filter(users::Column::TenantId.eq(tenant.id))
            .filter(is_here)
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
///
/// # Errors
/// Those of the database.
pub(super) async fn inviter_name<C: ConnectionTrait>(db: &C, row: &Model) -> Result<String> {
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
    let select = Entity::find().filter(Column::TenantId.eq(scope.id()));
    let now = rd.now();
    let found = rd
        .rows_with::<_, Model>(&req, &LISTING, select, shown)
        .await?;
    let invitations = found.rows.iter().map(|row| to_wire(row, now)).collect();
    let page = found.page(invitations);
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

/// An invitation is answered.
///
/// # Errors
/// Those of the database.
pub(super) async fn answer(tx: &mut Tx, old: Model, state: i64) -> Result<Model> {
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
