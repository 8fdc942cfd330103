//! The customer's side: who is addressed, accepting and declining, and taking back what was lent (REL-3 to REL-6, REL-8).

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{Model, State, Told, change, find, go_to, look::losses, missing, wire, wrong_state};
use crate::{
    access::{
        grants::{
            self,
            lent::{self, Delegation},
        },
        roles::{TENANT_ROLES, bits_of, names_of},
        scope::TenantScope,
    },
    account::acceptance::{self, Consent},
    app::{App, Tx},
    check::Violations,
    directory,
    env::DAY_US,
    error::{Error, Reason, Result},
    proto::{
        access::AgreementKind,
        relationship::{
            AcceptRelationshipRequest, DeclineRelationshipRequest, Relationship,
            RemoveRelationshipRolesRequest, RemoveRelationshipRolesResponse,
        },
    },
    store::{scope_key::ScopeKey, update},
};

/// Whether a request is sent to a tenant: by a domain that it has verified, or by an address that lies in one, or is a member's.
///
/// # Errors
/// Those of the database.
pub(super) async fn is_addressed<C: ConnectionTrait>(
    db: &C,
    app: &App,
    row: &Model,
    tenant: Uuid,
) -> Result<bool> {
    if !row.customer_domain.is_empty() {
        let of = directory::domain::tenant_of(db, &row.customer_domain).await?;
        return Ok(of == Some(tenant));
    }
    let of = directory::domain::verified_tenant_of(db, &row.customer_email).await?;
    Ok(of == Some(tenant)
        || directory::address::is_members(db, app, tenant, &row.customer_email).await?)
}

/// A relationship that a tenant may know of, as it is now that nothing happens to it: the account and the tenant are locked. Nothing more is done for
/// one that it may not know of than for one that isn't there.
async fn locked(
    tx: &mut Tx,
    tenant: Uuid,
    name: &str,
    may_know: impl Fn(&Model) -> bool,
) -> Result<Model> {
    let seen = find(tx.db(), name).await?;
    let seen = seen.filter(|row| may_know(row));
    let seen = seen.ok_or_else(|| missing(name))?;
    tx.lock([ScopeKey::Tenant(tenant), ScopeKey::Account(seen.account_id)])
        .await?;
    find(tx.db(), name).await?.ok_or_else(|| missing(name))
}

/// What was sent to a tenant, and waits for its answer.
async fn waiting(tx: &mut Tx, tenant: Uuid, name: &str, etag: &str) -> Result<Model> {
    // What was never sent is nobody's to know of.
    let row = locked(tx, tenant, name, |row| row.send_time.is_some()).await?;
    let app = tx.app().clone();
    let is_theirs = row.tenant_id == Some(tenant);
    if !is_theirs && !is_addressed(tx.db(), &app, &row, tenant).await? {
        return Err(Error::precondition(Reason::NotAddressee));
    }
    update::check_etag(etag, row.version)?;
    row.check_not_overdue(tx.now())?;
    Ok(row)
}

/// What a customer may lend, and for how many days: no more than was asked for (REL-6).
fn granted(row: &Model, req: &AcceptRelationshipRequest) -> Result<(i64, i64)> {
    let mut v = Violations::default();
    let roles = bits_of(TENANT_ROLES, &req.roles);
    let beyond = names_of(TENANT_ROLES, roles & !row.requested_roles);
    if !beyond.is_empty() {
        v.add("roles", format!("{} wasn't asked for", beyond.join(", ")));
    }
    let days = match i64::from(req.days) {
        0 => row.requested_days,
        days => days,
    };
    if days > row.requested_days {
        let most = row.requested_days;
        v.add("days", format!("is more than asked for, which is {most}"));
    }
    v.none()?;
    Ok((roles, days))
}

/// Accepts a request, and the customer agreement with it.
///
/// # Errors
/// `NOT_FOUND`, `NOT_ADDRESSEE`, `WRONG_STATE`, also of the account, `ETAG_MISMATCH`, `SELF_RELATIONSHIP`, `OPERATOR_TENANT`, `NOT_CURRENT_VERSION`,
/// `PLACEHOLDER_AGREEMENT`, `CANNOT_GRANT_WHAT_YOU_LACK`, `TOO_MANY_RELATIONSHIPS`; `INVALID_ARGUMENT` for more than was asked for.
pub async fn accept_relationship(
    tx: &mut Tx,
    scope: TenantScope,
    req: AcceptRelationshipRequest,
) -> Result<Relationship> {
    let tenant = scope.id();
    let old = waiting(tx, tenant, &req.name, &req.etag).await?;
    super::check_transition(old.state, State::Active)?;
    let (roles, days) = granted(&old, &req)?;
    directory::tenant::not_the_operators(tx, tenant)?;
    if grants::is_associated(tx.db(), old.account_id, tenant).await? {
        return Err(Error::precondition(Reason::SelfRelationship));
    }
    tx.demand_of_account(old.account_id).await?;
    let consent = Consent {
        kind: AgreementKind::Customer,
        number: req.agreement_version,
        language: &req.language_code,
        field: "language_code",
    };
    acceptance::accept(tx, ScopeKey::Tenant(tenant), consent).await?;
    let (now, by) = (tx.now(), tx.caller().name());
    let end_time = now + days * DAY_US;
    let new = Delegation {
        relationship: old.id,
        account: old.account_id,
        tenant,
        roles,
        end_time,
    };
    lent::lend(tx, new).await?;
    let event = "entente.relationship.v1.RelationshipAccepted";
    let row = go_to(tx, &old, State::Active, event, |row| {
        row.tenant_id = Some(tenant);
        row.roles = roles;
        row.end_time = Some(end_time);
        row.due_time = Some(end_time);
        row.accept_time = Some(now);
        row.accepted_by = by;
        row.agreement_number = req.agreement_version;
    })
    .await?;
    Ok(wire::relationship(&row))
}

/// Declines a request.
///
/// # Errors
/// `NOT_FOUND`, `NOT_ADDRESSEE`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn decline_relationship(
    tx: &mut Tx,
    scope: TenantScope,
    req: DeclineRelationshipRequest,
) -> Result<Relationship> {
    let old = waiting(tx, scope.id(), &req.name, &req.etag).await?;
    let (now, by) = (tx.now(), tx.caller().name());
    super::check_transition(old.state, State::Declined)?;
    // It doesn't become the tenant's, but that hears of what its own people did.
    let told = Told {
        event: "entente.relationship.v1.RelationshipDeclined",
        also_in: Some(ScopeKey::Tenant(scope.id())),
    };
    let row = change(tx, &old, told, |row| {
        row.state = State::Declined as i64;
        row.due_time = None;
        row.closed_time = Some(now);
        row.closed_by = by;
    })
    .await?;
    Ok(wire::relationship(&row))
}

/// A relationship that a tenant has accepted, with both scopes locked.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`.
pub(super) async fn of_customer(
    tx: &mut Tx,
    tenant: Uuid,
    name: &str,
    etag: &str,
) -> Result<Model> {
    let is_theirs = |row: &Model| row.tenant_id == Some(tenant);
    let row = locked(tx, tenant, name, is_theirs).await?;
    update::check_etag(etag, row.version)?;
    Ok(row)
}

/// Takes back all roles that a relationship lends; it stays active.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn remove_relationship_roles(
    tx: &mut Tx,
    scope: TenantScope,
    req: RemoveRelationshipRolesRequest,
) -> Result<RemoveRelationshipRolesResponse> {
    let old = of_customer(tx, scope.id(), &req.name, &req.etag).await?;
    if !old.is_in(State::Active) {
        return Err(wrong_state(old.state));
    }
    old.check_not_overdue(tx.now())?;
    let losses = losses(tx.db(), old.id).await?;
    let row = if old.roles == 0 {
        // They were taken back before, or none were lent.
        old
    } else {
        lent::take_back(tx, old.id).await?;
        let (now, by) = (tx.now(), tx.caller().name());
        let event = "entente.relationship.v1.RelationshipRolesRemoved";
        change(tx, &old, event, |row| {
            row.roles = 0;
            row.roles_removed_time = Some(now);
            row.roles_removed_by = by;
        })
        .await?
    };
    Ok(RemoveRelationshipRolesResponse {
        resources: vec![wire::relationship(&row)],
        losses: Some(losses),
    })
}
