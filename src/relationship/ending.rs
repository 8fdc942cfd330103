//! The end of a relationship (REL-5, REL-7, REL-10): by either side, by time, and with the partner's account. All that is lent ends in the same
//! transaction; the proof of a call looks at the term itself, so no job makes anything late.

use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, Value};
use uuid::Uuid;

use super::{
    Column, Entity, Model, State, answer::of_customer, go_to, link, look::losses, missing,
    of_account, publisher, wire,
};
use crate::{
    access::{account_state, grants::lent, scope::Proof},
    account,
    app::Tx,
    error::Result,
    mail::{self, Template},
    names::Name,
    proto::relationship::{TerminateRelationshipRequest, TerminateRelationshipResponse},
    schedule::CHUNK,
    store::{scope_key::ScopeKey, sql, update},
};

/// Ends an active relationship, by the customer or the partner.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn terminate_relationship(
    tx: &mut Tx,
    proof: Proof,
    req: TerminateRelationshipRequest,
) -> Result<TerminateRelationshipResponse> {
    let (old, is_customer) = match proof.tenant() {
        Ok(tenant) => (
            of_customer(tx, tenant.id(), &req.name, &req.etag).await?,
            true,
        ),
        Err(_) => (of_partner(tx, &proof, &req).await?, false),
    };
    super::check_transition(old.state, State::Terminated)?;
    old.check_not_overdue(tx.now())?;
    let mut losses = losses(tx.db(), old.id).await?;
    if !is_customer {
        // Which of them are there still is the customer's to know.
        losses.made_users.clear();
    }
    let by = tx.caller().name();
    let row = end(tx, &old, State::Terminated, by).await?;
    Ok(TerminateRelationshipResponse {
        resources: vec![wire::relationship(&row)],
        losses: Some(losses),
    })
}

/// A relationship of the partner, with both scopes locked.
async fn of_partner(
    tx: &mut Tx,
    proof: &Proof,
    req: &TerminateRelationshipRequest,
) -> Result<Model> {
    let account = proof.account()?.id();
    let row = of_account(tx.db(), account, &req.name).await?;
    tx.lock(row.scopes()).await?;
    let row = of_account(tx.db(), account, &req.name).await?;
    // Whoever names a tenant means a relationship with that one.
    if !req.tenant.is_empty() && Name::parse(&req.tenant) != row.tenant_id.map(Name::Tenant) {
        return Err(missing(&req.name));
    }
    update::check_etag(&req.etag, row.version)?;
    Ok(row)
}

/// Ends what was accepted, and what is lent by it; both scopes are locked.
async fn end(tx: &mut Tx, old: &Model, to: State, by: String) -> Result<Model> {
    let event = match to {
        State::Expired => "entente.relationship.v1.RelationshipExpired",
        _ => "entente.relationship.v1.RelationshipTerminated",
    };
    super::check_transition(old.state, to)?;
    lent::end(tx, old.id).await?;
    let now = tx.now();
    go_to(tx, old, to, event, |row| {
        row.roles = 0;
        row.due_time = None;
        row.closed_time = Some(now);
        row.closed_by = by;
    })
    .await
}

/// Takes back what wasn't answered; the account is locked.
///
/// # Errors
/// `WRONG_STATE`; those of the database.
pub(super) async fn cancel(tx: &mut Tx, old: &Model, by: String) -> Result<Model> {
    let now = tx.now();
    let event = "entente.relationship.v1.RelationshipCancelled";
    go_to(tx, old, State::Cancelled, event, |row| {
        row.due_time = None;
        row.closed_time = Some(now);
        row.closed_by = by;
    })
    .await
}

// ---- time

/// What says that time may end something.
pub(crate) const NEEDED: &str =
    "SELECT 1 AS one FROM relationships WHERE due_time IS NOT NULL LIMIT 1";

/// Puts the relationship aside that `end_due` ends next: due at $1, and at $2 instead.
pub(crate) const ASIDE: &str = "UPDATE relationships SET due_time = $2 WHERE due_time <= $1 AND id = \
    (SELECT id FROM relationships WHERE due_time <= $1 ORDER BY due_time, id LIMIT 1)";

/// Makes those due whose account is over, a chunk of them.
///
/// # Errors
/// Those of the database.
pub(crate) async fn date_those_of_ended_accounts(tx: &mut Tx) -> Result<u64> {
    // The states of an account that is over, as numbers, which its index knows.
    let sql = "UPDATE relationships SET due_time = $1 WHERE id IN (SELECT r.id FROM accounts a JOIN relationships r ON r.account_id = a.id \
               AND r.due_time > $1 WHERE a.state IN (5, 6) LIMIT $2)";
    let values: [Value; 2] = [tx.now().into(), CHUNK.into()];
    Ok(sql::execute(tx.db(), sql, values).await?.rows_affected())
}

/// Ends the relationship that is due first: a request that nobody answered, one whose term is over, and what is left of an account that is. One a
/// transaction: where it fails it is put aside, and the others go on.
///
/// # Errors
/// Those of the database.
pub(crate) async fn end_due(tx: &mut Tx) -> Result<u64> {
    let due = Entity::find()
        .filter(Column::DueTime.lte(tx.now()))
        .order_by_asc(Column::DueTime)
        .order_by_asc(Column::Id)
        .one(tx.db())
        .await?;
    let Some(due) = due else {
        return Ok(0);
    };
    tx.lock(due.scopes()).await?;
    // Once more, as it is now that nothing happens to it; it may have found its customer meanwhile, and is looked at again then.
    let row = Entity::find_by_id(due.id).one(tx.db()).await?;
    let is_due = |row: &Model| row.due_time.is_some_and(|at| at <= tx.now());
    if let Some(row) = row.filter(|row| is_due(row) && row.tenant_id == due.tenant_id) {
        over(tx, &row).await?;
    }
    // The scheduler goes on at once.
    Ok(CHUNK.unsigned_abs())
}

async fn over(tx: &mut Tx, row: &Model) -> Result<()> {
    let nobody = String::new;
    let account_is_over = account_state::is_over(tx.db(), row.account_id).await?;
    if row.is_in(State::Pending) && account_is_over {
        cancel(tx, row, nobody()).await?;
    } else if row.is_in(State::Active) && account_is_over {
        end(tx, row, State::Terminated, nobody()).await?;
    } else if !row.is_overdue(tx.now()) {
        // Not yet, or never.
        let sql = "UPDATE relationships SET due_time = $2 WHERE id = $1";
        let values: [Value; 2] = [row.id.into(), row.until().into()];
        sql::execute(tx.db(), sql, values).await?;
    } else if row.is_in(State::Pending) {
        let now = tx.now();
        let event = "entente.relationship.v1.RelationshipExpired";
        go_to(tx, row, State::Expired, event, |row| {
            row.due_time = None;
            row.closed_time = Some(now);
        })
        .await?;
    } else {
        let row = end(tx, row, State::Expired, nobody()).await?;
        tell_both(tx, &row).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Customer {
    display_name: String,
    contact_email: String,
}

async fn customer(tx: &Tx, tenant: Option<Uuid>) -> Result<Option<Customer>> {
    let sql = "SELECT display_name, contact_email FROM tenants WHERE id = $1";
    sql::one::<Customer, _>(tx.db(), sql, [tenant.into()]).await
}

/// Mails both sides that the term is over: the people of the account, and the tenant's contact.
async fn tell_both(tx: &mut Tx, row: &Model) -> Result<()> {
    let Some(customer) = customer(tx, row.tenant_id).await? else {
        return Ok(());
    };
    let values = [
        ("publisher", publisher(tx.db(), row.account_id).await?),
        ("organisation", customer.display_name),
        ("name", row.display_name.clone()),
        ("link", link(tx, row)),
    ];
    let template = Template::RelationshipExpired;
    for to in account::people_of(tx, row.account_id).await? {
        mail::queue(tx, template, &to, Name::Account(row.account_id), &values).await?;
    }
    if let Some(ScopeKey::Tenant(tenant)) = row.tenant_id.map(ScopeKey::Tenant) {
        let to = customer.contact_email;
        mail::queue(tx, template, &to, Name::Tenant(tenant), &values).await?;
    }
    Ok(())
}
