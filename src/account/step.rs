//! The steps of a verification (VER-1): what follows on what, from the e-mail to the active account, and back where a profile changes (VER-5).
//!
//! A step hasn't started, is in progress while somebody else than the account has it, waits for the account (action required), is verified or
//! rejected. The employment begins when the contact confirmed, the business when the employment is verified; the business waits for the
//! company approver too. Who else changes the row of a step calls `advance` afterwards, which does all that follows: so nothing is stuck. Each
//! way into "action required" and "rejected" has its requirement in `requirement.rs`.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel,
    QueryFilter, QueryOrder, Set, Value,
};
use uuid::Uuid;

use super::{
    brought, closing,
    enrolment::state_changed,
    entity::{
        account::{self, Model},
        verification_step::{self as step, Column, Entity},
    },
    name_claim, ownership,
    profile::{Person, Profile},
    program, registered, requirement, review, verification,
};
use crate::{
    access::{account_state, grants, link},
    app::Tx,
    directory::domain,
    env::{DAY_US, Micros},
    error::{Error, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::LinkKind,
        account::{
            AccountState, ReviewKind, VerificationStepKind as Kind, VerificationStepState as State,
        },
    },
    schedule::CHUNK,
    store::{outbox::Event, scope_key::ScopeKey, sql, time::rfc3339},
};

/// A mailed link is good for so long (VER-2, VER-8).
pub(super) const GOOD_US: Micros = 7 * DAY_US;
/// A rejection can be appealed against for so long; then the account is rejected.
pub(super) const APPEAL_US: Micros = 30 * DAY_US;
/// Rejections that became final in one transaction.
const FINAL_A_TURN: i64 = 50;

/// All kinds, in order.
pub(super) const KINDS: [Kind; 4] = [
    Kind::Email,
    Kind::Employment,
    Kind::Business,
    Kind::Approval,
];

/// The steps of an account, in order; none for those that were never submitted.
pub(super) async fn all<C: ConnectionTrait>(db: &C, account: Uuid) -> Result<Vec<step::Model>> {
    Ok(Entity::find()
        .filter(Column::AccountId.eq(account))
        .order_by_asc(Column::Kind)
        .all(db)
        .await?)
}

/// A step that is not there has not started.
pub(super) fn of(all: &[step::Model], kind: Kind) -> Option<&step::Model> {
    all.iter().find(|step| step.kind == kind as i64)
}

pub(super) fn is_in(all: &[step::Model], kind: Kind, state: State) -> bool {
    of(all, kind).is_some_and(|step| step.state == state as i64)
}

/// The state of a step.
fn state_of(row: &step::Model) -> State {
    State::try_from(i32::try_from(row.state).unwrap_or(0)).unwrap_or_default()
}

/// The kind of a step.
fn kind_of(row: &step::Model) -> Option<Kind> {
    KINDS.into_iter().find(|kind| *kind as i64 == row.kind)
}

/// Steps that reviewers decide.
pub(super) fn is_reviewed(kind: Kind) -> bool {
    matches!(kind, Kind::Employment | Kind::Business)
}

/// The kind of step that a review is of, and whether it is an appeal; none for what is no step.
pub(super) fn of_review(kind: i64) -> Option<(Kind, bool)> {
    const EMPLOYMENT: i64 = ReviewKind::Employment as i64;
    const BUSINESS: i64 = ReviewKind::Business as i64;
    const EMPLOYMENT_APPEAL: i64 = ReviewKind::EmploymentAppeal as i64;
    const BUSINESS_APPEAL: i64 = ReviewKind::BusinessAppeal as i64;
    match kind {
        EMPLOYMENT => Some((Kind::Employment, false)),
        BUSINESS => Some((Kind::Business, false)),
        EMPLOYMENT_APPEAL => Some((Kind::Employment, true)),
        BUSINESS_APPEAL => Some((Kind::Business, true)),
        _ => None,
    }
}

/// The kind of review that a step goes to.
pub(super) fn review_kind(kind: Kind, appeal: bool) -> ReviewKind {
    match (kind, appeal) {
        (Kind::Employment, false) => ReviewKind::Employment,
        (Kind::Employment, true) => ReviewKind::EmploymentAppeal,
        (_, false) => ReviewKind::Business,
        (_, true) => ReviewKind::BusinessAppeal,
    }
}

/// Changes a step, and tells of the state that it came into.
pub(super) async fn change(
    tx: &mut Tx,
    account: Uuid,
    kind: Kind,
    how: impl FnOnce(&mut step::Model) + Send,
) -> Result<()> {
    let found = Entity::find_by_id((account, kind as i64))
        .one(tx.db())
        .await?;
    let mut row = found.ok_or_else(|| Error::internal("a submitted account lacks a step"))?;
    let before = row.state;
    how(&mut row);
    let state = row.state;
    row.into_active_model().reset_all().update(tx.db()).await?;
    if state != before {
        tx.emit(
            Event::new(
                "entente.account.v1.VerificationStepChanged",
                Name::Account(account),
            )
            .with("kind", kind as i32)
            .with("state", state),
        );
    }
    Ok(())
}

/// Puts a step into a state, with what goes with each.
pub(super) fn enter(row: &mut step::Model, state: State, reason: &str, now: Micros) {
    let is_mailed =
        !matches!(row.kind, k if k == Kind::Employment as i64 || k == Kind::Business as i64);
    row.state = state as i64;
    reason.clone_into(&mut row.reason);
    row.asked = String::new();
    row.appeal_until = None;
    row.link_expire_time = (is_mailed && state == State::InProgress).then_some(now + GOOD_US);
    row.end_time = matches!(state, State::Verified | State::Rejected).then_some(now);
    if matches!(state, State::NotStarted | State::Verified | State::Rejected) {
        row.email_domain = String::new();
    }
    match state {
        State::NotStarted => {
            row.start_time = None;
            row.reviewed = false;
            row.rejected_by = None;
            row.appealed = false;
        }
        State::InProgress if is_mailed => row.start_time = Some(now),
        _ => row.start_time = row.start_time.or(Some(now)),
    }
}

/// Puts a step into a state.
pub(super) async fn set(
    tx: &mut Tx,
    account: Uuid,
    kind: Kind,
    state: State,
    reason: &str,
) -> Result<()> {
    let now = tx.now();
    change(tx, account, kind, |row| enter(row, state, reason, now)).await
}

/// Makes the steps of an account anew, in the states given.
pub(super) async fn make(tx: &mut Tx, account: Uuid, state: impl Fn(Kind) -> State) -> Result<()> {
    let sql = "DELETE FROM verification_steps WHERE account_id = $1";
    sql::execute(tx.db(), sql, [account.into()]).await?;
    for kind in KINDS {
        let mut row = step::Model {
            account_id: account,
            kind: kind as i64,
            state: State::NotStarted as i64,
            reason: String::new(),
            link_expire_time: None,
            start_time: None,
            end_time: None,
            asked: String::new(),
            reviewed: false,
            rejected_by: None,
            appeal_until: None,
            appealed: false,
            email_domain: String::new(),
        };
        enter(&mut row, state(kind), "", tx.now());
        Entity::insert(row.into_active_model())
            .exec_without_returning(tx.db())
            .await?;
    }
    Ok(())
}

// ---- forwards

/// Does all that follows from how the steps are: begins those whose turn has come, and makes an account active that is verified in all. Gives
/// the account as it is then.
///
/// # Errors
/// Those of the database.
pub(super) async fn advance(tx: &mut Tx, account: Uuid) -> Result<Model> {
    let row = verification::find(tx.db(), account).await?;
    // Each round begins a step or ends one, so there are few.
    for _ in 0..2 * KINDS.len() {
        let steps = all(tx.db(), account).await?;
        let is = |kind, state| is_in(&steps, kind, state);
        if is(Kind::Email, State::Verified) && is(Kind::Employment, State::NotStarted) {
            begin_employment(tx, &row).await?;
        } else if is(Kind::Employment, State::Verified) && is(Kind::Business, State::NotStarted) {
            // The account brings documents, unless a register is asked first.
            let (state, reason) = if tx.app().registry.is_some() {
                (State::InProgress, registered::WAITS)
            } else {
                (State::ActionRequired, "DOCUMENTS")
            };
            set(tx, account, Kind::Business, state, reason).await?;
        } else if is(Kind::Business, State::InProgress)
            && is(Kind::Approval, State::Verified)
            && of(&steps, Kind::Business).is_some_and(|step| step.reviewed)
        {
            set(tx, account, Kind::Business, State::Verified, "").await?;
        } else {
            return stand(tx, row, &steps).await;
        }
    }
    Err(Error::internal("a verification goes round in circles"))
}

/// Whether an account was active before: it is, or will be again once it isn't suspended any more.
fn is_verified_anew(row: &Model) -> bool {
    let active = AccountState::Active as i64;
    row.state == active
        || (row.state == AccountState::Suspended as i64 && row.state_before == active)
}

/// Whether a rejection can be appealed against: once, and in time where there is a time.
pub(super) fn is_appealable(step: &step::Model, now: Micros) -> bool {
    step.state == State::Rejected as i64
        && !step.appealed
        && step.appeal_until.is_none_or(|until| now < until)
}

/// What an account is by its steps: active once all are verified, and of an active one which it is verified in again.
async fn stand(tx: &mut Tx, row: Model, steps: &[step::Model]) -> Result<Model> {
    let open = KINDS
        .iter()
        .filter(|kind| !is_in(steps, **kind, State::Verified));
    let open = open.fold(0, |bits, kind| bits | 1_i64 << *kind as i64);
    if is_in(steps, Kind::Business, State::Verified)
        && is_in(steps, Kind::Approval, State::Verified)
    {
        ownership::approver_verified(tx, &row).await?;
    }
    let (pending, active) = (AccountState::Pending as i64, AccountState::Active as i64);
    let becomes_active =
        open == 0 && row.state == pending && requirement::has_admin_agent(tx.db(), &row).await?;
    // One that is suspended meanwhile comes back as it was, and `activate_verified` does the rest.
    // Before it is active these are the steps that a change sent back.
    let reverifying = if is_verified_anew(&row) {
        open
    } else {
        row.reverifying & open
    };
    if !becomes_active && reverifying == row.reverifying {
        return Ok(row);
    }
    let mut changed = row.clone().into_active_model();
    if becomes_active {
        account_state::check_transition(row.state, AccountState::Active)?;
        changed.state = Set(active);
    }
    changed.reverifying = Set(reverifying);
    changed.update_time = Set(tx.now());
    changed.version = Set(row.version + 1);
    let changed: Model = changed.update(tx.db()).await?;
    if becomes_active {
        state_changed(tx, &row, &changed);
        tell(tx, &changed, Template::AccountActive, &[]).await?;
        program::activated(tx, &changed).await?;
        brought::arrive(tx, &changed).await?;
    }
    Ok(changed)
}

/// The contact confirmed. An address in a domain that an associated tenant has proven to be its own says enough (VER-3); else there are
/// documents, unless such a domain is proven later.
async fn begin_employment(tx: &mut Tx, row: &Model) -> Result<()> {
    let contact = Profile::from_stored(&row.profile).primary_contact;
    let email = contact.map_or_else(String::new, |contact| contact.email);
    let proven = match domain::verified_tenant_of(tx.db(), &email).await? {
        Some(tenant) => grants::is_associated(tx.db(), row.id, tenant).await?,
        None => false,
    };
    let now = tx.now();
    change(tx, row.id, Kind::Employment, |step| {
        if proven {
            enter(step, State::Verified, "", now);
        } else {
            enter(step, State::ActionRequired, "DOCUMENTS", now);
            step.email_domain = domain::domain_of(&email).unwrap_or_default();
        }
    })
    .await
}

/// What finds employment that waits and lies in a domain which an associated tenant has verified meanwhile: the steps that wait are few.
pub(crate) const PROVEN_LATER: &str = "SELECT s.account_id FROM verification_steps s \
    JOIN domains d ON d.domain_name = s.email_domain AND d.state = 2 \
    JOIN associations a ON a.account_id = s.account_id AND a.tenant_id = d.tenant_id \
    JOIN accounts c ON c.id = s.account_id AND c.state IN (1, 3) \
    WHERE s.email_domain <> '' AND s.kind = 2 AND NOT s.appealed LIMIT 50";

/// Verifies employment that a domain proves which was verified, or whose tenant was associated, after the contact had confirmed.
///
/// # Errors
/// Those of the database.
pub(crate) async fn verify_by_domain(tx: &mut Tx) -> Result<u64> {
    let found = sql::all::<Due, _>(tx.db(), PROVEN_LATER, []).await?;
    tx.lock(found.iter().map(|d| ScopeKey::Account(d.account_id)))
        .await?;
    // After the lock it may have been decided.
    let still = sql::all::<Due, _>(tx.db(), PROVEN_LATER, []).await?;
    for Due { account_id } in &found {
        if still.iter().any(|d| d.account_id == *account_id) {
            let subject = Name::Account(*account_id);
            review::withdraw(tx, ReviewKind::Employment, subject).await?;
            approved(tx, *account_id, Kind::Employment).await?;
        }
    }
    Ok(0)
}

/// Makes accounts active that are verified in all, and had nobody who holds ADMIN_AGENT then (ACC-6).
///
/// # Errors
/// Those of the database.
pub(crate) async fn activate_verified(tx: &mut Tx) -> Result<u64> {
    // Those who still have nobody would keep the others out.
    let sql = format!(
        "SELECT a.id AS account_id FROM accounts a WHERE a.state = 3 \
         AND EXISTS (SELECT 1 FROM verification_steps s WHERE s.account_id = a.id) \
         AND NOT EXISTS (SELECT 1 FROM verification_steps s WHERE s.account_id = a.id AND s.state <> 4) \
         AND EXISTS ({}) LIMIT 50",
        requirement::admin_agents("a.id", "$1")
    );
    let values = [grants::ADMIN_AGENT.into()];
    let found = sql::all::<Due, _>(tx.db(), sql, values).await?;
    tx.lock(found.iter().map(|d| ScopeKey::Account(d.account_id)))
        .await?;
    for Due { account_id } in &found {
        advance(tx, *account_id).await?;
    }
    Ok(0)
}

/// Mails the primary contact.
pub(super) async fn tell(
    tx: &mut Tx,
    row: &Model,
    template: Template,
    more: &[(&str, String)],
) -> Result<()> {
    let contact = Profile::from_stored(&row.profile).primary_contact;
    let Some(contact) = contact else {
        return Ok(());
    };
    let mut values = vec![
        ("name", contact.display_name),
        ("publisher", row.publisher_display_name.clone()),
        ("account", Name::Account(row.id).to_string()),
    ];
    values.extend(more.iter().cloned());
    mail::queue(tx, template, &contact.email, Name::Account(row.id), &values).await
}

/// Mails the primary contact, the owner and the managers: what is decided against an account must not lie with one person alone.
async fn tell_all(
    tx: &mut Tx,
    row: &Model,
    template: Template,
    more: &[(&str, String)],
) -> Result<()> {
    let contact = Profile::from_stored(&row.profile).primary_contact;
    let contact = contact.map_or_else(String::new, |contact| contact.email.to_lowercase());
    tell(tx, row, template, more).await?;
    let mut values = vec![
        ("name", row.publisher_display_name.clone()),
        ("publisher", row.publisher_display_name.clone()),
        ("account", Name::Account(row.id).to_string()),
    ];
    values.extend(more.iter().cloned());
    for to in closing::run_by(tx, row.id).await? {
        if to.to_lowercase() != contact {
            mail::queue(tx, template, &to, Name::Account(row.id), &values).await?;
        }
    }
    Ok(())
}

// ---- decisions

/// A reviewer, or a register, approved of a step.
pub(super) async fn approved(tx: &mut Tx, account: Uuid, kind: Kind) -> Result<()> {
    let now = tx.now();
    change(tx, account, kind, |row| {
        if kind == Kind::Business {
            enter(row, State::InProgress, "COMPANY_APPROVAL", now);
            row.reviewed = true;
        } else {
            enter(row, State::Verified, "", now);
        }
        row.rejected_by = None;
        row.appealed = false;
    })
    .await?;
    advance(tx, account).await?;
    Ok(())
}

/// A reviewer rejected a step: it can be appealed against once. A lost appeal rejects the account; so does time where none was made, but only
/// of an account that was never active. One that is verified anew stays active without the step until an appeal is lost (VER-5, VER-7).
pub(super) async fn rejected(
    tx: &mut Tx,
    account: Uuid,
    kind: Kind,
    reason: &str,
    by: Option<Uuid>,
) -> Result<()> {
    let now = tx.now();
    let steps = all(tx.db(), account).await?;
    let is_final = of(&steps, kind).is_some_and(|step| step.appealed);
    let before = verification::find(tx.db(), account).await?;
    let until = (!is_final && !is_verified_anew(&before)).then_some(now + APPEAL_US);
    change(tx, account, kind, |row| {
        enter(row, State::Rejected, reason, now);
        row.rejected_by = by;
        row.appeal_until = until;
    })
    .await?;
    let row = advance(tx, account).await?;
    if is_final {
        return reject(tx, &row, reason).await;
    }
    let values = [
        ("reason", reason.to_owned()),
        ("until", until.map_or_else(String::new, rfc3339)),
    ];
    tell_all(tx, &row, Template::StepRejected, &values).await
}

/// Refuses an account for good.
async fn reject(tx: &mut Tx, row: &Model, reason: &str) -> Result<()> {
    account_state::check_transition(row.state, AccountState::Rejected)?;
    let mut changed = row.clone().into_active_model();
    changed.state = Set(AccountState::Rejected as i64);
    changed.suspension_reason = Set(String::new());
    changed.reverifying = Set(0);
    changed.update_time = Set(tx.now());
    changed.version = Set(row.version + 1);
    let changed: Model = changed.update(tx.db()).await?;
    state_changed(tx, row, &changed);
    give_up(tx, row.id).await?;
    name_claim::holder_ended(tx, row.id).await?;
    ownership::account_ended(tx, &changed).await?;
    brought::account_ended(tx, &changed).await?;
    program::end_all(tx, &changed).await?;
    let values = [("reason", reason.to_owned())];
    tell_all(tx, &changed, Template::AccountRejected, &values).await
}

/// Takes all that is asked about an account out of the hands of those who are asked: its verification is over.
pub(super) async fn give_up(tx: &mut Tx, account: Uuid) -> Result<()> {
    for kind in [Kind::Employment, Kind::Business] {
        for appeal in [false, true] {
            let of = review_kind(kind, appeal);
            review::withdraw(tx, of, Name::Account(account)).await?;
        }
    }
    for kind in [LinkKind::ContactConfirmation, LinkKind::CompanyApproval] {
        link::revoke(tx, kind, account).await?;
    }
    let sql = "UPDATE verification_steps SET appeal_until = NULL WHERE account_id = $1";
    sql::execute(tx.db(), sql, [account.into()]).await?;
    // Nobody waits for what was under way.
    for row in all(tx.db(), account).await? {
        let is_open = [State::InProgress, State::ActionRequired].contains(&state_of(&row));
        if let Some(kind) = kind_of(&row).filter(|_| is_open) {
            set(tx, account, kind, State::NotStarted, "").await?;
        }
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Due {
    account_id: Uuid,
}

/// Rejects accounts whose rejected step nobody appealed against in time, and that were never active.
///
/// # Errors
/// Those of the database.
pub(crate) async fn reject_unappealed(tx: &mut Tx) -> Result<u64> {
    let sql = "SELECT account_id FROM verification_steps WHERE appeal_until <= $1 ORDER BY appeal_until LIMIT $2";
    let values: [Value; 2] = [tx.now().into(), FINAL_A_TURN.into()];
    let found = sql::all::<Due, _>(tx.db(), sql, values).await?;
    let scopes: Vec<_> = found
        .iter()
        .map(|d| ScopeKey::Account(d.account_id))
        .collect();
    tx.lock(scopes).await?;
    for Due { account_id } in &found {
        let steps = all(tx.db(), *account_id).await?;
        let due = steps
            .iter()
            .find(|s| s.appeal_until.is_some_and(|at| at <= tx.now()));
        if let Some(due) = due {
            let row = verification::find(tx.db(), *account_id).await?;
            if is_verified_anew(&row) {
                // It was given a time once: it has none.
                let sql = "UPDATE verification_steps SET appeal_until = NULL WHERE account_id = $1";
                sql::execute(tx.db(), sql, [(*account_id).into()]).await?;
            } else {
                reject(tx, &row, &due.reason).await?;
            }
        }
    }
    let is_full = i64::try_from(found.len()).is_ok_and(|n| n == FINAL_A_TURN);
    Ok(if is_full { CHUNK.unsigned_abs() } else { 0 })
}

// ---- back

/// Which steps a change of the profile sends back.
#[derive(Clone, Copy, Debug, Default)]
struct Back {
    email: bool,
    employment: bool,
    business: bool,
    approval: bool,
}

impl Back {
    fn of(old: &Model, new: &Model) -> Self {
        let (was, is) = (
            Profile::from_stored(&old.profile),
            Profile::from_stored(&new.profile),
        );
        let address = |p: &Option<Person>| p.as_ref().map(|p| p.email.to_lowercase());
        let name = |p: &Option<Person>| p.as_ref().map(|p| p.display_name.clone());
        // What was never told was never verified: imported accounts may tell it later.
        let contact = was.primary_contact.is_some();
        let email = contact && address(&was.primary_contact) != address(&is.primary_contact);
        let renamed = contact && name(&was.primary_contact) != name(&is.primary_contact);
        let (before, after) = (&was.company_approver, &is.company_approver);
        Self {
            email,
            employment: email || renamed,
            business: old.legal_name != new.legal_name
                || (was.address.is_some() && was.address != is.address),
            approval: before.is_some()
                && (address(before) != address(after) || name(before) != name(after)),
        }
    }

    fn is_none(self) -> bool {
        !(self.email || self.employment || self.business || self.approval)
    }
}

/// The profile of an account changed that is being verified, or was: what it concerns is verified anew. Gives the account as it is then.
///
/// # Errors
/// `WRONG_STATE` while a step that it concerns is rejected or appealed: that is decided first; `TOO_MANY_CALLS` where whom it names had too many mails.
pub(super) async fn profile_changed(tx: &mut Tx, old: &Model, row: Model) -> Result<Model> {
    let back = Back::of(old, &row);
    let is_verified = row.state == AccountState::Active as i64;
    if back.is_none() || !(is_verified || row.state == AccountState::Pending as i64) {
        return Ok(row);
    }
    // Who is to be asked can't be nobody.
    let profile = Profile::from_stored(&row.profile);
    for (is_back, there, field) in [
        (
            back.employment,
            profile.primary_contact.is_some(),
            "account.primary_contact",
        ),
        (
            back.approval,
            profile.company_approver.is_some(),
            "account.company_approver",
        ),
    ] {
        if is_back && !there {
            return Err(Error::field(field, "was verified, and can't be taken away"));
        }
    }
    if all(tx.db(), row.id).await?.is_empty() {
        // Brought in by the operator: taken for verified until now.
        make(tx, row.id, |_| State::Verified).await?;
    }
    let steps = all(tx.db(), row.id).await?;
    for (kind, is_back) in [
        (Kind::Employment, back.employment),
        (Kind::Business, back.business),
    ] {
        let is_stuck = is_in(&steps, kind, State::Rejected)
            || of(&steps, kind).is_some_and(|s| s.appealed && s.state != State::Verified as i64);
        if is_back && is_stuck {
            return Err(
                Error::precondition(crate::error::Reason::WrongState).with("state", "REJECTED")
            );
        }
    }
    if back.email {
        set(tx, row.id, Kind::Email, State::InProgress, "").await?;
        verification::send_counted(tx, &row, Kind::Email).await?;
    }
    if back.employment {
        restart(tx, row.id, Kind::Employment).await?;
        // What comes after waits for it again, if it wasn't done.
        if !is_in(&steps, Kind::Business, State::Verified)
            && !is_in(&steps, Kind::Business, State::Rejected)
            && !of(&steps, Kind::Business).is_some_and(|s| s.appealed)
        {
            restart(tx, row.id, Kind::Business).await?;
        }
    }
    if back.business {
        restart(tx, row.id, Kind::Business).await?;
    }
    if back.approval {
        let now = tx.now();
        change(tx, row.id, Kind::Approval, |s| {
            enter(s, State::InProgress, "", now)
        })
        .await?;
        verification::send_counted(tx, &row, Kind::Approval).await?;
        // The business was approved of by a reviewer, and waits for the new approver only.
        let steps = all(tx.db(), row.id).await?;
        if is_in(&steps, Kind::Business, State::Verified) {
            change(tx, row.id, Kind::Business, |s| {
                enter(s, State::InProgress, "COMPANY_APPROVAL", now);
                s.reviewed = true;
            })
            .await?;
        }
    }
    if !is_verified {
        note_back(tx, &row, &steps).await?;
    }
    advance(tx, row.id).await
}

/// Notes which steps of an account that isn't active yet were verified, and are not any more, so that the answer tells (VER-5).
async fn note_back(tx: &mut Tx, row: &Model, were: &[step::Model]) -> Result<()> {
    let are = all(tx.db(), row.id).await?;
    let is_back = |kind: &&Kind| {
        is_in(were, **kind, State::Verified) && !is_in(&are, **kind, State::Verified)
    };
    let back = KINDS.iter().filter(is_back);
    let back = back.fold(row.reverifying, |bits, kind| bits | 1_i64 << *kind as i64);
    let mut changed = row.clone().into_active_model();
    changed.reverifying = Set(back);
    changed.update(tx.db()).await?;
    Ok(())
}

/// A step begins anew, when its turn has come; what reviewers have of it is void.
async fn restart(tx: &mut Tx, account: Uuid, kind: Kind) -> Result<()> {
    for appeal in [false, true] {
        let of = review_kind(kind, appeal);
        review::withdraw(tx, of, Name::Account(account)).await?;
    }
    set(tx, account, kind, State::NotStarted, "").await
}

/// The steps that an active account is verified in again, from their bits.
pub(super) fn reverified(bits: i64) -> impl Iterator<Item = Kind> {
    KINDS
        .into_iter()
        .filter(move |kind| bits & (1 << *kind as i64) != 0)
}

/// The account whose verification goes on: submitted, or verified anew.
pub(super) fn demand_under_way(row: &account::Model) -> Result<()> {
    let is_anew = row.state == AccountState::Active as i64 && row.reverifying != 0;
    if row.state == AccountState::Pending as i64 || is_anew {
        Ok(())
    } else {
        Err(account_state::wrong_state(row.state))
    }
}
