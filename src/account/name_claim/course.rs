//! How a claim goes on: to the reviewers, to a name that is kept, to its end; by the calls of either side, or by time.

use std::collections::BTreeSet;

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel,
    QueryFilter, QueryOrder, Value,
};
use uuid::Uuid;

use super::{
    super::{
        closing,
        enrolment::{self, address_of},
        entity::account::Model as Holder,
        profile::Profile,
        publisher_name, review, standing,
    },
    Column, Entity, Model, account, is_over, on_its_way,
};
use crate::{
    access::grants::OWNER,
    app::Tx,
    env::{DAY_US, Micros},
    error::{Error, Result},
    mail::{self, Template},
    names::Name,
    proto::account::{
        Account, AccountState, NameClaimAnswer as Answer, NameClaimState as State, ReviewKind,
    },
    schedule::CHUNK,
    store::{outbox::Event, scope_key::ScopeKey, sql, time::rfc3339},
};

/// Whoever lost a name has another one within so long.
const RENAME_US: Micros = 30 * DAY_US;
/// A name is kept for whoever won it for so long.
const KEPT_US: Micros = 90 * DAY_US;
/// Claims that are ended in one transaction.
const MOST_A_TURN: u64 = 20;

/// By whom a claim goes on, which says where it is told: who calls is named in what is told, and neither side learns who the other one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A call of the claimant's.
    Claimant,
    /// A call of the holder's.
    Holder,
    /// Time, or the operator's people: told to both.
    Service,
}

impl By {
    /// By whoever does something to the holder's account.
    fn at_holder(tx: &Tx) -> Self {
        let operator = tx.app().operator_tenant();
        match tx.caller().who {
            Some(who) if who.principal.tenant != operator => Self::Holder,
            _ => Self::Service,
        }
    }
}

/// Brings a claim into a state, and tells.
///
/// # Errors
/// Those of the database; the call is made anew if the claim went on meanwhile.
pub(super) async fn change(
    tx: &mut Tx,
    old: &Model,
    to: State,
    by: By,
    more: impl FnOnce(&mut Model),
) -> Result<Model> {
    // Names are taken under the lock of the account that takes them, and not under that of the holder.
    let sql = "UPDATE name_claims SET version = version + 1 WHERE id = $1 AND version = $2";
    let values: [Value; 2] = [old.id.into(), old.version.into()];
    if sql::execute(tx.db(), sql, values).await?.rows_affected() != 1 {
        return Err(Error::contended("a claim on a name went on meanwhile"));
    }
    let mut row = old.clone();
    row.state = to as i64;
    row.update_time = tx.now();
    row.version += 1;
    more(&mut row);
    row.clone()
        .into_active_model()
        .reset_all()
        .update(tx.db())
        .await?;
    let event = Event::new("entente.account.v1.NameClaimChanged", row.name());
    let holder = ScopeKey::Account(row.holder_id);
    let event = match by {
        By::Claimant => event.told_in(row.claimants_scope()),
        By::Holder => event.told_in(holder),
        By::Service if is_there(tx, row.claimants_scope()).await? => {
            event.told_in(holder).also_in(row.claimants_scope())
        }
        By::Service => event.told_in(holder),
    };
    tx.emit(event.change("state", old.state, row.state));
    Ok(row)
}

/// Whether a scope is there still: claimants may be gone for good.
async fn is_there(tx: &Tx, scope: ScopeKey) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM heads WHERE scope_kind = $1 AND scope_id = $2";
    let values: [Value; 2] = [scope.kind().into(), scope.id().into()];
    Ok(sql::row(tx.db(), sql, values).await?.is_some())
}

// ---- mails

/// Where the claimant is reached: who filed the claim, and the primary contact of the account that it is for.
async fn claimants(tx: &Tx, row: &Model) -> Result<Vec<String>> {
    let mut to = address_of(tx, &row.claimant().name()).await?;
    if let Some(id) = row.account_id
        && let Some(own) = account(tx.db(), id).await?
    {
        let contact = Profile::from_stored(&own.profile).primary_contact;
        to.extend(contact.map(|person| person.email));
    }
    to.sort_unstable();
    to.dedup();
    Ok(to)
}

fn values(
    row: &Model,
    holder: Option<&Holder>,
    until: Option<Micros>,
) -> Vec<(&'static str, String)> {
    let reason = [row.reason.as_str(), row.answer_text.as_str(), "–"];
    let reason = reason.into_iter().find(|text| !text.is_empty());
    let mut values = vec![
        ("claimed", row.display_name.clone()),
        ("claim", row.name().to_string()),
        ("reason", reason.unwrap_or_default().to_owned()),
        ("until", until.map_or_else(String::new, rfc3339)),
    ];
    if let Some(holder) = holder {
        values.push(("publisher", holder.publisher_display_name.clone()));
        values.push(("account", Name::Account(holder.id).to_string()));
    }
    values
}

async fn tell_claimant(
    tx: &mut Tx,
    row: &Model,
    template: Template,
    until: Option<Micros>,
) -> Result<()> {
    let values = values(row, None, until);
    for to in claimants(tx, row).await? {
        mail::queue(tx, template, &to, row.name(), &values).await?;
    }
    Ok(())
}

async fn tell_holder(
    tx: &mut Tx,
    row: &Model,
    holder: &Holder,
    template: Template,
    until: Option<Micros>,
) -> Result<()> {
    let values = values(row, Some(holder), until);
    for to in closing::people(tx, holder).await? {
        let about = Name::Account(holder.id);
        mail::queue(tx, template, &to, about, &values).await?;
    }
    Ok(())
}

/// Mails both sides.
///
/// # Errors
/// Those of the database.
pub(super) async fn tell_both(tx: &mut Tx, row: &Model, template: Template) -> Result<()> {
    tell_claimant(tx, row, template, None).await?;
    match account(tx.db(), row.holder_id).await? {
        Some(holder) => tell_holder(tx, row, &holder, template, None).await,
        None => Ok(()),
    }
}

// ---- on

/// The reviewers have it.
///
/// # Errors
/// Those of the database.
pub(super) async fn to_review(tx: &mut Tx, row: &Model, by: By) -> Result<Model> {
    let opened = review::Opened {
        kind: ReviewKind::NameClaim,
        account: row.holder_id,
        subject: row.name(),
        submitter: row.claimant().name(),
        note: row.statement.clone(),
        not_by: None,
        other: Some(row.claimants_side(tx.app().operator_tenant())),
    };
    review::open(tx, opened).await?;
    change(tx, row, State::InReview, by, |new| new.due_time = None).await
}

/// The claimant shall have the name: the holder renames, or, where it is over and never will, the name is free at once.
///
/// # Errors
/// Those of the database.
pub(super) async fn granted(tx: &mut Tx, row: Model, holder: &Holder, by: By) -> Result<Model> {
    if is_over(holder) {
        return free(tx, &row, &BTreeSet::new(), by).await;
    }
    let until = tx.now() + RENAME_US;
    let row = change(tx, &row, State::Granted, by, |new| {
        new.rename_until = Some(until);
        new.due_time = Some(until);
    })
    .await?;
    tell_claimant(tx, &row, Template::NameClaimGranted, Some(until)).await?;
    tell_holder(tx, &row, holder, Template::NameClaimLost, Some(until)).await?;
    Ok(row)
}

/// Keeps what the holder has, but for the keys that its new name needs, and what is free of the claimed name, for the claimant.
async fn free(tx: &mut Tx, row: &Model, needed: &BTreeSet<String>, by: By) -> Result<Model> {
    let sql = format!(
        "UPDATE publisher_names SET account_id = NULL, kept_for = $1 WHERE account_id = $2 AND skeleton NOT IN ({})",
        sql::in_texts(tx.db(), 3)
    );
    let changed: [Value; 3] = [
        row.id.into(),
        row.holder_id.into(),
        publisher_name::texts(needed),
    ];
    sql::execute(tx.db(), &sql, changed).await?;
    for key in publisher_name::keys(&row.display_name) {
        let sql = "INSERT INTO publisher_names (skeleton, kept_for) VALUES ($1, $2) ON CONFLICT (skeleton) DO NOTHING";
        let values: [Value; 2] = [key.into(), row.id.into()];
        sql::execute(tx.db(), sql, values).await?;
    }
    let until = tx.now() + KEPT_US;
    let row = change(tx, row, State::Kept, by, |new| {
        new.keep_until = Some(until);
        new.due_time = Some(until);
    })
    .await?;
    tell_claimant(tx, &row, Template::NameClaimKept, Some(until)).await?;
    Ok(row)
}

/// An account takes another name, or none: if somebody claims the one that it had, that is kept for them. A holder who does so before anything
/// is decided gives the name up.
///
/// # Errors
/// Those of the database.
pub(in crate::account) async fn renaming(
    tx: &mut Tx,
    account: Uuid,
    wanted: &BTreeSet<String>,
) -> Result<()> {
    let Some(mut row) = on_its_way(tx.db(), account).await? else {
        return Ok(());
    };
    if !publisher_name::keys(&row.display_name).is_disjoint(wanted) {
        return Ok(());
    }
    let by = By::at_holder(tx);
    if !row.is_in(State::Granted) {
        review::withdraw(tx, ReviewKind::NameClaim, row.name()).await?;
        row.answer = Answer::GiveUp as i64;
        row.answer_time = Some(tx.now());
    }
    free(tx, &row, wanted, by).await?;
    Ok(())
}

/// An account is closed, or rejected for good: it answers nothing any more, and what it lost is free at once.
///
/// # Errors
/// Those of the database.
pub(in crate::account) async fn holder_ended(tx: &mut Tx, account: Uuid) -> Result<()> {
    let by = By::at_holder(tx);
    match on_its_way(tx.db(), account).await? {
        Some(row) if row.is_in(State::AwaitingAnswer) => to_review(tx, &row, by).await.map(drop),
        Some(row) if row.is_in(State::Granted) => {
            free(tx, &row, &BTreeSet::new(), by).await.map(drop)
        }
        _ => Ok(()),
    }
}

// ---- taking

/// Whether a name that is kept for a claim may become this account's: the claim is for it; or the claimant, who had no account, is of one of its
/// tenants, owns it, or calls.
///
/// # Errors
/// Those of the database.
pub(in crate::account) async fn may_take<C: ConnectionTrait>(
    db: &C,
    caller: Option<Uuid>,
    claim: Uuid,
    account: Uuid,
) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM name_claims c WHERE c.id = $1 AND c.state = $2 AND (c.account_id = $3 OR (c.account_id IS NULL AND ( \
               c.claimant_id = $4 \
               OR EXISTS (SELECT 1 FROM associations a WHERE a.account_id = $3 AND a.tenant_id = c.claimant_tenant_id) \
               OR EXISTS (SELECT 1 FROM grants g WHERE g.scope_kind = 2 AND g.scope_id = $3 AND g.principal_id = c.claimant_id \
               AND (g.roles & $5) <> 0))))";
    let values: [Value; 5] = [
        claim.into(),
        (State::Kept as i64).into(),
        account.into(),
        caller.unwrap_or_default().into(),
        OWNER.into(),
    ];
    Ok(sql::row(db, sql, values).await?.is_some())
}

/// The name that was kept for a claim becomes an account's.
///
/// # Errors
/// Those of the database.
pub(in crate::account) async fn taken(tx: &mut Tx, claim: Uuid) -> Result<()> {
    let row = Entity::find_by_id(claim).one(tx.db()).await?;
    let row = row.ok_or_else(|| Error::internal("a name is kept for no claim"))?;
    let sql = "DELETE FROM publisher_names WHERE kept_for = $1";
    sql::execute(tx.db(), sql, [claim.into()]).await?;
    change(tx, &row, State::Taken, By::Claimant, |new| {
        new.due_time = None
    })
    .await?;
    Ok(())
}

// ---- time

/// Who lost a name and is suspended is looked at again after so long.
const AGAIN_US: Micros = 7 * DAY_US;

/// Why an account is suspended that doesn't rename.
pub(super) fn overdue(row: &Model) -> String {
    format!(
        "Its publisher name was to be changed, by {}, and was not.",
        row.name()
    )
}

/// An account that was suspended since it didn't rename goes on, if that is why it is suspended now.
///
/// # Errors
/// Those of the database.
pub(super) async fn let_go_on(tx: &mut Tx, row: &Model, holder: Holder) -> Result<()> {
    let is_suspended = holder.state == AccountState::Suspended as i64;
    if row.suspended && is_suspended && holder.suspension_reason == overdue(row) {
        standing::reinstate(tx, holder).await?;
    }
    Ok(())
}

/// Puts the claim aside that `go_on` does next: due at $1, and at $2 instead.
///
/// Asked for twice: whoever moved it on meanwhile, while this waited, has said itself when it is due.
pub(crate) const ASIDE: &str = "UPDATE name_claims SET due_time = $2 WHERE due_time <= $1 AND id = \
    (SELECT id FROM name_claims WHERE due_time <= $1 ORDER BY due_time, id LIMIT 1)";

/// Does what time does to the claim that is due first: without an answer reviewers have it; who lost and hasn't renamed is suspended; what nobody
/// took is free. One claim a transaction: where it fails it is put aside, and the others go on.
///
/// # Errors
/// Those of the database.
pub(crate) async fn go_on(tx: &mut Tx) -> Result<u64> {
    let due = Entity::find()
        .filter(Column::DueTime.lte(tx.now()))
        .order_by_asc(Column::DueTime)
        .order_by_asc(Column::Id)
        .one(tx.db())
        .await?;
    let Some(due) = due else {
        return Ok(0);
    };
    lock(tx, std::slice::from_ref(&due)).await?;
    // Once more, as it is now that nothing happens to it.
    let row = Entity::find_by_id(due.id).one(tx.db()).await?;
    if let Some(row) = row.filter(|row| row.due_time.is_some_and(|at| at <= tx.now())) {
        if row.is_in(State::AwaitingAnswer) {
            to_review(tx, &row, By::Service).await?;
        } else if row.is_in(State::Granted) {
            not_renamed(tx, &row).await?;
        } else if row.is_in(State::Kept) {
            end(tx, &row, State::Lapsed).await?;
        } else {
            // Time does nothing to the others.
            let sql = "UPDATE name_claims SET due_time = NULL WHERE id = $1";
            sql::execute(tx.db(), sql, [row.id.into()]).await?;
        }
    }
    // The scheduler goes on at once.
    Ok(CHUNK.unsigned_abs())
}

fn left(found: usize) -> u64 {
    if (found as u64) < MOST_A_TURN {
        0
    } else {
        CHUNK.unsigned_abs()
    }
}

async fn lock(tx: &mut Tx, rows: &[Model]) -> Result<()> {
    let scopes = rows
        .iter()
        .flat_map(|row| [ScopeKey::Account(row.holder_id), row.claimants_scope()]);
    tx.lock(scopes).await
}

async fn not_renamed(tx: &mut Tx, row: &Model) -> Result<()> {
    let Some(holder) = account(tx.db(), row.holder_id).await? else {
        return end(tx, row, State::Ended).await;
    };
    let next = tx.now() + AGAIN_US;
    match AccountState::try_from(i32::try_from(holder.state).unwrap_or(0)).unwrap_or_default() {
        AccountState::Active | AccountState::Pending => {
            let state = AccountState::Suspended as i64;
            tell_holder(tx, row, &holder, Template::NameClaimOverdue, None).await?;
            standing::change(tx, holder, state, overdue(row)).await?;
            change(tx, row, State::Granted, By::Service, |new| {
                new.suspended = true;
                // Should it go on and still not rename, it is suspended again.
                new.due_time = Some(next);
            })
            .await?;
        }
        // A draft does without a name.
        AccountState::Draft => {
            let fields = &["publisher_display_name"];
            enrolment::change(tx, &holder, &Account::default(), fields).await?;
        }
        // Once it goes on, it is suspended for this. Nothing of the claim changes.
        AccountState::Suspended => {
            let sql = "UPDATE name_claims SET due_time = $1 WHERE id = $2";
            sql::execute(tx.db(), sql, [next.into(), row.id.into()]).await?;
        }
        AccountState::Rejected | AccountState::Closed | AccountState::Unspecified => {
            free(tx, row, &BTreeSet::new(), By::Service).await?;
        }
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Gone {
    id: Uuid,
}

/// Ends claims whose claimants are gone: users, identities and applications that were deleted, accounts that were closed or rejected.
///
/// # Errors
/// Those of the database.
pub(crate) async fn end_of_gone(tx: &mut Tx) -> Result<u64> {
    // States of people: 3 is deleted.
    let sql = "SELECT c.id FROM name_claims c WHERE c.state <= 4 AND ( \
               (c.account_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.id = c.account_id AND a.state NOT IN ($1, $2))) \
               OR (c.account_id IS NULL AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = c.claimant_id AND u.state <> 3) \
               AND NOT EXISTS (SELECT 1 FROM applications p WHERE p.id = c.claimant_id))) ORDER BY c.create_time LIMIT $3";
    let values: [Value; 3] = [
        (AccountState::Closed as i64).into(),
        (AccountState::Rejected as i64).into(),
        MOST_A_TURN.cast_signed().into(),
    ];
    let gone = sql::all::<Gone, _>(tx.db(), sql, values).await?;
    let rows = Entity::find()
        .filter(Column::Id.is_in(gone.iter().map(|gone| gone.id)))
        .all(tx.db())
        .await?;
    lock(tx, &rows).await?;
    for row in &rows {
        let row = Entity::find_by_id(row.id).one(tx.db()).await?;
        if let Some(row) = row.filter(|row| row.state <= State::Kept as i64) {
            end(tx, &row, State::Ended).await?;
        }
    }
    Ok(left(rows.len()))
}

/// Ends a claim: what was kept for it is free, or, if it was the name of an account that is over, that one's again.
async fn end(tx: &mut Tx, row: &Model, to: State) -> Result<()> {
    review::withdraw(tx, ReviewKind::NameClaim, row.name()).await?;
    let holder = account(tx.db(), row.holder_id).await?;
    if let Some(over) = holder.as_ref().filter(|holder| is_over(holder)) {
        let own = publisher_name::keys(&over.publisher_display_name);
        if !own.is_disjoint(&publisher_name::keys(&row.display_name)) {
            let sql = format!(
                "UPDATE publisher_names SET account_id = $1, kept_for = NULL WHERE kept_for = $2 AND skeleton IN ({})",
                sql::in_texts(tx.db(), 3)
            );
            let values: [Value; 3] = [over.id.into(), row.id.into(), publisher_name::texts(&own)];
            sql::execute(tx.db(), &sql, values).await?;
        }
    }
    let sql = "DELETE FROM publisher_names WHERE kept_for = $1";
    sql::execute(tx.db(), sql, [row.id.into()]).await?;
    let row = change(tx, row, to, By::Service, |new| new.due_time = None).await?;
    if let Some(holder) = holder {
        let_go_on(tx, &row, holder).await?;
    }
    tell_both(tx, &row, Template::NameClaimEnded).await
}
