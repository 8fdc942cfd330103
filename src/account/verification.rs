//! VerificationService (VER-1, VER-2, VER-8): the primary contact confirms by a mailed link, the company approver decides by another.
//!
//! Three steps in order: e-mail, employment, business; and the approver's decision, a part of the last one that is asked for at once. Each is
//! a row, made when the account is submitted: not started, in progress, verified or rejected. A link that ran out makes its step wait for the
//! account, which time says and no row.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, Set, Value,
};
use uuid::Uuid;

pub(crate) use super::document::check_upload_document;
pub use super::document::{download_document, upload_document};
pub(crate) use super::review::check_list_reviews;
pub use super::review::{claim_review, get_review, list_reviews, release_review};
use super::{
    enrolment::state_changed,
    entity::{
        account::{self, Model},
        verification_step::{self as step, Column, Entity},
    },
    profile::{Person, Profile},
    requirement, wire,
};
use crate::{
    access::{
        account_state, grants,
        link::{self, Link},
        scope::{AccountScope, TokenScope},
    },
    app::{Read, Tx},
    check::Violations,
    directory::address,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::LinkKind,
        account::{
            AccountState, ApprovalDecision, ConfirmApprovalRequest, ConfirmApprovalResponse,
            ConfirmContactRequest, ConfirmContactResponse, ContactChoice, GetVerificationRequest,
            ListRequirementsRequest, ListRequirementsResponse, RequirementBlock,
            ResendVerificationMailRequest, Verification, VerificationStepKind as Kind,
            VerificationStepState as State,
        },
        operator::OperatorRole,
    },
    store::{outbox::Event, scope_key::ScopeKey, sql, time::rfc3339, update},
};

/// A link is good for so long (VER-2, VER-8).
const GOOD_US: Micros = 7 * DAY_US;
/// Reviewers who are told that an enrolment was disowned.
const MOST_REVIEWERS_TOLD: i64 = 50;

/// The steps of an account, in order; none for those that were never submitted.
pub(super) async fn steps<C: ConnectionTrait>(db: &C, account: Uuid) -> Result<Vec<step::Model>> {
    Ok(Entity::find()
        .filter(Column::AccountId.eq(account))
        .order_by_asc(Column::Kind)
        .all(db)
        .await?)
}

async fn find<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Model> {
    account::Entity::find_by_id(id)
        .one(db)
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Account", Name::Account(id).to_string()))
}

// ---- beginning, and beginning again

/// An account was submitted: all steps are there, the first and the approver's decision in progress, and both mails on their way.
pub(super) async fn begin(tx: &mut Tx, row: &Model) -> Result<()> {
    let sql = "DELETE FROM verification_steps WHERE account_id = $1";
    sql::execute(tx.db(), sql, [row.id.into()]).await?;
    for kind in [
        Kind::Email,
        Kind::Employment,
        Kind::Business,
        Kind::Approval,
    ] {
        let begins = matches!(kind, Kind::Email | Kind::Approval);
        let state = if begins {
            State::InProgress
        } else {
            State::NotStarted
        };
        let model = step::Model {
            account_id: row.id,
            kind: kind as i64,
            state: state as i64,
            reason: String::new(),
            link_expire_time: begins.then_some(tx.now() + GOOD_US),
            start_time: begins.then_some(tx.now()),
            end_time: None,
            asked: String::new(),
            reviewed: false,
            rejected_by: None,
            appeal_until: None,
            appealed: false,
        };
        Entity::insert(model.into_active_model())
            .exec_without_returning(tx.db())
            .await?;
    }
    send(tx, row, Kind::Email).await?;
    send(tx, row, Kind::Approval).await
}

/// The profile of a submitted account changed: another contact, or another approver, is asked anew.
pub(super) async fn contacts_changed(tx: &mut Tx, old: &Model, row: &Model) -> Result<()> {
    if row.state != AccountState::Pending as i64 {
        return Ok(());
    }
    let (was, is) = (
        Profile::from_stored(&old.profile),
        Profile::from_stored(&row.profile),
    );
    let address = |person: &Option<Person>| person.as_ref().map(|p| p.email.to_lowercase());
    if address(&was.primary_contact) != address(&is.primary_contact) {
        set(tx, row.id, Kind::Email, State::InProgress, "").await?;
        set(tx, row.id, Kind::Employment, State::NotStarted, "").await?;
        set(tx, row.id, Kind::Business, State::NotStarted, "").await?;
        send(tx, row, Kind::Email).await?;
    }
    if address(&was.company_approver) != address(&is.company_approver) {
        set(tx, row.id, Kind::Approval, State::InProgress, "").await?;
        send(tx, row, Kind::Approval).await?;
    }
    Ok(())
}

/// Puts a step into a state.
async fn set(tx: &mut Tx, account: Uuid, kind: Kind, state: State, reason: &str) -> Result<()> {
    let (now, decided) = (tx.now(), matches!(state, State::Verified | State::Rejected));
    let is_mailed = matches!(kind, Kind::Email | Kind::Approval);
    let out = (is_mailed && state == State::InProgress).then_some(now + GOOD_US);
    let started = (state == State::InProgress).then_some(now);
    let sql = "UPDATE verification_steps SET state = $3, reason = $4, link_expire_time = $5, \
               start_time = CASE WHEN $8 THEN NULL ELSE COALESCE($6, start_time) END, end_time = $7 \
               WHERE account_id = $1 AND kind = $2";
    let values: [Value; 8] = [
        account.into(),
        (kind as i64).into(),
        (state as i64).into(),
        reason.into(),
        out.into(),
        started.into(),
        decided.then_some(now).into(),
        (state == State::NotStarted).into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

fn link_kind(kind: Kind) -> LinkKind {
    match kind {
        Kind::Approval => LinkKind::CompanyApproval,
        _ => LinkKind::ContactConfirmation,
    }
}

/// Mails the link of the primary contact, or of the company approver; the one before is void.
async fn send(tx: &mut Tx, row: &Model, kind: Kind) -> Result<()> {
    let app = tx.app().clone();
    let profile = Profile::from_stored(&row.profile);
    let (to, template) = match kind {
        Kind::Approval => (profile.company_approver, Template::CompanyApproval),
        _ => (
            profile.primary_contact.clone(),
            Template::ContactConfirmation,
        ),
    };
    let to = to.ok_or_else(|| Error::internal("a submitted account lacks a contact"))?;
    let made = Link {
        kind: link_kind(kind),
        subject: row.id,
        scope: ScopeKey::Account(row.id),
    };
    let token = link::make(tx, made, to.email.to_lowercase().as_bytes(), GOOD_US).await?;
    let url = link::url(&app.config, made.kind, &token);
    let contact = profile.primary_contact.unwrap_or_default();
    let values = [
        ("name", to.display_name),
        ("publisher", row.publisher_display_name.clone()),
        ("legal_name", row.legal_name.clone()),
        ("country", row.country_code.clone()),
        ("contact", contact.display_name),
        ("until", rfc3339(tx.now() + GOOD_US)),
        ("link", url.to_string()),
        ("token", token.to_string()),
    ];
    mail::queue(tx, template, &to.email, Name::Account(row.id), &values).await
}

// ---- the account's side

/// Gives how far the verification has come.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn get_verification(
    rd: &Read,
    scope: AccountScope,
    _req: GetVerificationRequest,
) -> Result<Verification> {
    let steps = steps(rd.db(), scope.id()).await?;
    Ok(wire::verification(scope.id(), &steps, rd.now()))
}

/// Gives what the enrolment lacks.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn list_requirements(
    rd: &Read,
    scope: AccountScope,
    _req: ListRequirementsRequest,
) -> Result<ListRequirementsResponse> {
    let row = find(rd.db(), scope.id()).await?;
    let mut all = requirement::of_account(rd.db(), &row, rd.caller().language, rd.now()).await?;
    all.retain(|r| r.blocks() != RequirementBlock::Covered);
    Ok(ListRequirementsResponse { requirements: all })
}

/// Mails a link anew.
///
/// # Errors
/// `WRONG_STATE` where nobody is asked, `ETAG_MISMATCH`, `TOO_MANY_CALLS`; `INVALID_ARGUMENT` for a step that no mail decides.
pub async fn resend_verification_mail(
    tx: &mut Tx,
    scope: AccountScope,
    req: ResendVerificationMailRequest,
) -> Result<Verification> {
    let kind = req.step();
    if !matches!(kind, Kind::Email | Kind::Approval) {
        return Err(Error::field("step", "is decided by no mail"));
    }
    let row = find(tx.db(), scope.id()).await?;
    update::check_etag(&req.etag, row.version)?;
    if row.state != AccountState::Pending as i64 {
        return Err(account_state::wrong_state(row.state));
    }
    let all = steps(tx.db(), row.id).await?;
    let asked = all.iter().find(|s| s.kind == kind as i64);
    // A refusal can be asked about once more; what was confirmed stays.
    if asked.is_none_or(|s| s.state == State::Verified as i64) {
        return Err(Error::precondition(Reason::WrongState).with("state", "VERIFIED"));
    }
    let profile = Profile::from_stored(&row.profile);
    let to = match kind {
        Kind::Approval => profile.company_approver,
        _ => profile.primary_contact,
    };
    let to = to.unwrap_or_default().email.to_lowercase();
    address::count_mail(tx, "verification", &to).await?;
    set(tx, row.id, kind, State::InProgress, "").await?;
    send(tx, &row, kind).await?;
    told(tx, row.id, kind, State::InProgress);
    let steps = steps(tx.db(), row.id).await?;
    Ok(wire::verification(row.id, &steps, tx.now()))
}

/// Tells that a step came into a state.
fn told(tx: &mut Tx, account: Uuid, kind: Kind, state: State) {
    tx.emit(
        Event::new(
            "entente.account.v1.VerificationStepChanged",
            Name::Account(account),
        )
        .with("kind", kind as i32)
        .with("state", state as i32),
    );
}

// ---- by mailed links

/// The account of a link, `PENDING`; the link is used up.
async fn redeemed(tx: &mut Tx, scope: TokenScope) -> Result<Model> {
    let link = scope.link();
    link::redeem(tx, link).await?;
    let row = find(tx.db(), link.subject).await?;
    if row.state == AccountState::Pending as i64 {
        Ok(row)
    } else {
        Err(account_state::wrong_state(row.state))
    }
}

/// The primary contact confirms, or disowns the enrolment.
///
/// # Errors
/// `LINK_INVALID`, `WRONG_STATE`.
pub async fn confirm_contact(
    tx: &mut Tx,
    scope: TokenScope,
    req: ConfirmContactRequest,
) -> Result<ConfirmContactResponse> {
    let row = redeemed(tx, scope).await?;
    match req.choice() {
        ContactChoice::Confirm => {
            set(tx, row.id, Kind::Email, State::Verified, "").await?;
            // Only then the next step begins.
            set(tx, row.id, Kind::Employment, State::InProgress, "").await?;
            told(tx, row.id, Kind::Email, State::Verified);
        }
        ContactChoice::NotOurs | ContactChoice::Unspecified => disown(tx, &row).await?,
    }
    Ok(ConfirmContactResponse {
        publisher_display_name: row.publisher_display_name,
        step: decided(tx, row.id, Kind::Email).await?,
    })
}

async fn decided(
    tx: &Tx,
    account: Uuid,
    kind: Kind,
) -> Result<Option<crate::proto::account::VerificationStep>> {
    let all = steps(tx.db(), account).await?;
    let step = all.iter().find(|s| s.kind == kind as i64);
    Ok(step.map(|s| wire::verification_step(s, tx.now())))
}

/// The contact has nothing to do with it: the enrolment stops, and the opener and the reviewers are told.
async fn disown(tx: &mut Tx, row: &Model) -> Result<()> {
    set(tx, row.id, Kind::Email, State::Rejected, "NOT_OURS").await?;
    set(tx, row.id, Kind::Approval, State::NotStarted, "").await?;
    link::revoke(tx, LinkKind::CompanyApproval, row.id).await?;
    account_state::check_transition(row.state, AccountState::Draft)?;
    let mut changed = row.clone().into_active_model();
    changed.state = Set(AccountState::Draft as i64);
    changed.submit_time = Set(None);
    changed.update_time = Set(tx.now());
    changed.version = Set(row.version + 1);
    let changed: Model = changed.update(tx.db()).await?;
    told(tx, row.id, Kind::Email, State::Rejected);
    state_changed(tx, row, &changed);
    let values = [
        ("publisher", row.publisher_display_name.clone()),
        ("legal_name", row.legal_name.clone()),
        ("account", Name::Account(row.id).to_string()),
    ];
    let mut told = super::enrolment::address_of(tx, &row.signatory).await?;
    told.extend(reviewers(tx).await?);
    told.sort_unstable();
    told.dedup();
    for to in told {
        let template = Template::EnrolmentDisowned;
        mail::queue(tx, template, &to, Name::Account(row.id), &values).await?;
    }
    Ok(())
}

/// Addresses of the operator's reviewers.
async fn reviewers(tx: &Tx) -> Result<Vec<String>> {
    let sql = "SELECT u.recovery_email FROM grants g JOIN users u ON u.id = g.principal_id AND u.state = $1 \
               WHERE g.scope_kind = 0 AND (g.roles & $2) <> 0 AND u.recovery_email <> '' ORDER BY u.id LIMIT $3";
    let bit = 1_i64 << OperatorRole::OperatorReviewer as i64;
    let values: [Value; 3] = [
        grants::ACTIVE.into(),
        bit.into(),
        MOST_REVIEWERS_TOLD.into(),
    ];
    let rows = sql::rows_of(tx.db(), sql, values).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        found.push(row.try_get("", "recovery_email")?);
    }
    Ok(found)
}

pub(crate) fn check_confirm_approval(req: &ConfirmApprovalRequest, v: &mut Violations) {
    if req.decision() == ApprovalDecision::Refuse && req.reason.trim().is_empty() {
        v.also("reason", "is needed to refuse");
    }
}

/// The company approver decides.
///
/// # Errors
/// `LINK_INVALID`, `WRONG_STATE`; `INVALID_ARGUMENT` for a refusal without a reason.
pub async fn confirm_approval(
    tx: &mut Tx,
    scope: TokenScope,
    req: ConfirmApprovalRequest,
) -> Result<ConfirmApprovalResponse> {
    let row = redeemed(tx, scope).await?;
    let (state, reason) = match req.decision() {
        ApprovalDecision::Approve => (State::Verified, ""),
        ApprovalDecision::Refuse | ApprovalDecision::Unspecified => {
            (State::Rejected, req.reason.as_str())
        }
    };
    set(tx, row.id, Kind::Approval, state, reason).await?;
    told(tx, row.id, Kind::Approval, state);
    Ok(ConfirmApprovalResponse {
        publisher_display_name: row.publisher_display_name,
        step: decided(tx, row.id, Kind::Approval).await?,
    })
}
