//! The partner's side of a relationship until it is answered: a draft, sent, and taken back (REL-2, REL-5).

use std::time::Duration;

use sea_orm::Value;
use uuid::Uuid;

use super::{Model, State, change, go_to, of_account, request_mail, wire};
use crate::{
    access::{
        grants::lent::HELPDESK_ADMIN,
        roles::{TENANT_ROLES, bits_of},
        scope::AccountScope,
    },
    app::Tx,
    check::Violations,
    directory,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    proto::relationship::{
        CancelRelationshipRequest, CreateRelationshipRequest, Relationship, RelationshipKind,
        SendRelationshipRequest, UpdateRelationshipRequest,
    },
    store::{list::fold, outbox::Event, sql, update},
};

/// Relationships of an account that haven't ended.
const MOST_OF_AN_ACCOUNT: i64 = 10_000;
/// The customer answers within so long.
const ANSWER_US: Micros = 90 * DAY_US;
/// Requests that an account sends within a day.
const MOST_A_DAY: i64 = 200;

/// What is wrong with what is asked for, as a whole.
fn check(row: &Model, v: &mut Violations) {
    match (
        row.customer_email.is_empty(),
        row.customer_domain.is_empty(),
    ) {
        (true, true) => v.also(
            "relationship.customer_email",
            "is required, or customer_domain",
        ),
        (false, false) => v.also(
            "relationship.customer_domain",
            "stands beside customer_email; one of both is right",
        ),
        _ => {}
    }
    let is_advisor = row.kind == RelationshipKind::Advisor as i64;
    if is_advisor && row.requested_roles != HELPDESK_ADMIN {
        v.also(
            "relationship.requested_roles",
            "must be HELPDESK_ADMIN alone, or left empty, for an ADVISOR",
        );
    }
    if row.requested_roles == 0 {
        v.also(
            "relationship.requested_roles",
            "must name one directory role at least",
        );
    }
    if row.requested_days == 0 {
        v.also("relationship.requested_days", "is required, from 1 to 730");
    }
}

fn check_domain(new: &Relationship, v: &mut Violations) {
    if !new.customer_domain.is_empty()
        && let Err(what) = directory::domain::normal(&new.customer_domain)
    {
        v.also("relationship.customer_domain", what);
    }
}

/// A domain as it is kept; it was checked before.
fn domain(text: &str) -> String {
    directory::domain::normal(text).unwrap_or_default()
}

/// The roles asked for; an advisor needn't say which.
fn requested(kind: i64, roles: &[i32]) -> i64 {
    match bits_of(TENANT_ROLES, roles) {
        0 if kind == RelationshipKind::Advisor as i64 => HELPDESK_ADMIN,
        bits => bits,
    }
}

fn draft(id: Uuid, account: Uuid, new: &Relationship, now: Micros) -> Model {
    let kind = i64::from(new.kind);
    Model {
        id,
        account_id: account,
        tenant_id: None,
        kind,
        state: State::Draft as i64,
        display_name: new.display_name.clone(),
        display_name_fold: fold(&new.display_name),
        message: new.message.clone(),
        customer_email: new.customer_email.clone(),
        customer_domain: domain(&new.customer_domain),
        requested_roles: requested(kind, &new.requested_roles),
        requested_days: i64::from(new.requested_days),
        roles: 0,
        send_time: None,
        answer_expire_time: None,
        accept_time: None,
        accepted_by: String::new(),
        agreement_number: 0,
        end_time: None,
        roles_removed_time: None,
        roles_removed_by: String::new(),
        closed_time: None,
        closed_by: String::new(),
        due_time: None,
        create_time: now,
        update_time: now,
        version: 1,
    }
}

pub(crate) fn check_create_relationship(req: &CreateRelationshipRequest, v: &mut Violations) {
    let Some(new) = &req.relationship else {
        return;
    };
    check_domain(new, v);
    // With whatever domain stands there, so that a bad one isn't told as none.
    let row = Model {
        customer_domain: new.customer_domain.clone(),
        ..draft(Uuid::nil(), Uuid::nil(), new, 0)
    };
    check(&row, v);
}

/// Makes a request, as a draft.
///
/// # Errors
/// `RESOURCE_EXISTS` for a display name that the account uses already, `TOO_MANY_OPEN_RELATIONSHIPS`.
pub async fn create_relationship(
    tx: &mut Tx,
    scope: AccountScope,
    req: CreateRelationshipRequest,
) -> Result<Relationship> {
    let new = req
        .relationship
        .ok_or_else(|| Error::field("relationship", "is required"))?;
    // Counted as they come and end: an account may have many, and makes them in batches.
    let sql = "INSERT INTO relationship_counts (account_id, open_count) VALUES ($1, 1) \
               ON CONFLICT (account_id) DO UPDATE SET open_count = relationship_counts.open_count + 1 RETURNING open_count";
    let open = sql::row(tx.db(), sql, [scope.id().into()]).await?;
    if open.map_or(Ok(0), |row| row.try_get::<i64>("", "open_count"))? > MOST_OF_AN_ACCOUNT {
        return Err(Error::exhausted(Reason::TooManyOpenRelationships, None)
            .with("most", MOST_OF_AN_ACCOUNT.to_string()));
    }
    let row = draft(tx.id(), scope.id(), &new, tx.now());
    tx.insert(row.clone()).await?;
    let mut event = Event::new("entente.relationship.v1.RelationshipCreated", row.name());
    for (field, is) in wire::told(&row) {
        event = event.change(field, serde_json::Value::Null, is);
    }
    tx.emit(event);
    Ok(wire::relationship(&row))
}

pub(crate) fn check_update_relationship(req: &UpdateRelationshipRequest, v: &mut Violations) {
    if let Some(new) = &req.relationship {
        check_domain(new, v);
    }
}

/// Changes a draft.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE` for what was sent, `ETAG_MISMATCH`, `RESOURCE_EXISTS`; `INVALID_ARGUMENT` for what doesn't go together.
pub async fn update_relationship(
    tx: &mut Tx,
    scope: AccountScope,
    req: UpdateRelationshipRequest,
) -> Result<Relationship> {
    let UpdateRelationshipRequest {
        relationship,
        update_mask,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let new = relationship.ok_or_else(|| Error::field("relationship", "is required"))?;
    let old = of_account(tx.db(), scope.id(), &new.name).await?;
    update::check_etag(&etag, old.version)?;
    if !old.is_in(State::Draft) {
        return Err(super::wrong_state(old.state));
    }
    let mut row = old.clone();
    for field in update::fields(update_mask.as_ref(), &new) {
        match field {
            "display_name" => {
                row.display_name.clone_from(&new.display_name);
                row.display_name_fold = fold(&new.display_name);
            }
            "customer_email" => row.customer_email.clone_from(&new.customer_email),
            "customer_domain" => row.customer_domain = domain(&new.customer_domain),
            "message" => row.message.clone_from(&new.message),
            "requested_roles" => {
                row.requested_roles = requested(row.kind, &new.requested_roles);
            }
            "requested_days" => row.requested_days = i64::from(new.requested_days),
            other => {
                return Err(Error::internal(format!(
                    "{other} is mutable, but nobody changes it"
                )));
            }
        }
    }
    let mut v = Violations::default();
    check(&row, &mut v);
    v.none()?;
    let event = "entente.relationship.v1.RelationshipUpdated";
    let row = change(tx, &old, event, |changed| *changed = row).await?;
    Ok(wire::relationship(&row))
}

/// Sends a draft to the customer: the same is done whoever that is, since a job finds it out and mails (COM-2).
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`, `TOO_MANY_CALLS` for one address or domain, and for the account.
pub async fn send_relationship(
    tx: &mut Tx,
    scope: AccountScope,
    req: SendRelationshipRequest,
) -> Result<Relationship> {
    let old = of_account(tx.db(), scope.id(), &req.name).await?;
    update::check_etag(&req.etag, old.version)?;
    super::check_transition(old.state, State::Pending)?;
    within_bounds(tx, &old).await?;
    let to = if old.customer_email.is_empty() {
        old.customer_domain.clone()
    } else {
        fold(&old.customer_email)
    };
    directory::address::count_mail(tx, "relationship", &to).await?;
    let (now, until) = (tx.now(), tx.now() + ANSWER_US);
    let event = "entente.relationship.v1.RelationshipSent";
    let row = go_to(tx, &old, State::Pending, event, |row| {
        row.send_time = Some(now);
        row.answer_expire_time = Some(until);
        row.due_time = Some(until);
    })
    .await?;
    request_mail::queue(tx, row.id).await?;
    Ok(wire::relationship(&row))
}

/// An account doesn't write to everybody: requests that were sent count for a day, also those that were taken back. The account is locked.
async fn within_bounds(tx: &Tx, row: &Model) -> Result<()> {
    let most = MOST_A_DAY.saturating_mul(i64::from(tx.app().config.limits_factor));
    let sql = "SELECT send_time FROM relationships WHERE account_id = $1 AND send_time > $2 ORDER BY send_time DESC LIMIT 1 OFFSET $3";
    let values: [Value; 3] = [
        row.account_id.into(),
        (tx.now() - DAY_US).into(),
        (most - 1).into(),
    ];
    let Some(found) = sql::row(tx.db(), sql, values).await? else {
        return Ok(());
    };
    let sent: i64 = found.try_get("", "send_time")?;
    let wait = u64::try_from(sent + DAY_US - tx.now()).unwrap_or(0);
    Err(
        Error::exhausted(Reason::TooManyCalls, Some(Duration::from_micros(wait)))
            .with("method", tx.method()),
    )
}

/// Takes back what the customer hasn't answered, or a draft.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn cancel_relationship(
    tx: &mut Tx,
    scope: AccountScope,
    req: CancelRelationshipRequest,
) -> Result<Relationship> {
    let old = of_account(tx.db(), scope.id(), &req.name).await?;
    update::check_etag(&req.etag, old.version)?;
    old.check_not_overdue(tx.now())?;
    let by = tx.caller().name();
    let row = super::ending::cancel(tx, &old, by).await?;
    Ok(wire::relationship(&row))
}
