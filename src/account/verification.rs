//! VerificationService (VER-1, VER-2, VER-8): the primary contact confirms by a mailed link, the company approver decides by another, and
//! the account sees how far it has come.
//!
//! Three steps in order: e-mail, employment, business; and the approver's decision, a part of the last one that is asked for at once. Each is
//! a row, made when the account is submitted; what follows on what is `step.rs`. A link that ran out makes its step wait for the account,
//! which time says and no row. Reviewers decide the others: `review.rs` is their queue, `submission.rs` the account's side of it, `decision.rs`
//! theirs.

use sea_orm::{ActiveModelTrait, ConnectionTrait, EntityTrait, IntoActiveModel, Set, Value};
use uuid::Uuid;

use super::{
    closing,
    enrolment::state_changed,
    entity::account::{self, Model},
    profile::{Person, Profile},
    progress, requirement, sight,
    step::{self, GOOD_US, set},
    wire,
};
pub(crate) use super::{
    decision::check_decide_review, document::check_upload_document, review::check_list_reviews,
};
pub use super::{
    decision::{decide_review, request_more},
    document::{download_document, upload_document},
    review::{claim_review, get_review, list_reviews, release_review},
    submission::{appeal_decision, submit_step},
};
use crate::{
    access::{
        account_state, grants,
        link::{self, Link},
        scope::{AccountScope, Proof, TokenScope},
    },
    app::{Read, Tx},
    check::Violations,
    directory::{self, address},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::{AgreementKind, LinkKind},
        account::{
            AccountState, ApprovalDecision, ConfirmApprovalRequest, ConfirmApprovalResponse,
            ConfirmContactRequest, ConfirmContactResponse, ContactChoice, EnrolledTenant,
            EnrolmentForApproval, GetEnrolmentForApprovalRequest, GetVerificationRequest,
            ListRequirementsRequest, ListRequirementsResponse, RequirementBlock,
            ResendVerificationMailRequest, Verification, VerificationStepKind as Kind,
            VerificationStepState as State,
        },
        operator::OperatorRole,
    },
    store::{scope_key::ScopeKey, sql, time::rfc3339, update},
};

/// Reviewers who are told that an enrolment was disowned.
const MOST_REVIEWERS_TOLD: i64 = 50;
/// Tenants that an approver is shown.
const MOST_TENANTS_SHOWN: i64 = 100;

pub(super) async fn find<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Model> {
    account::Entity::find_by_id(id)
        .one(db)
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Account", Name::Account(id).to_string()))
}

/// An account was submitted: all steps are there, the first and the approver's decision in progress, and both mails on their way.
pub(super) async fn begin(tx: &mut Tx, row: &Model) -> Result<()> {
    step::make(tx, row.id, |kind| match kind {
        Kind::Email | Kind::Approval => State::InProgress,
        _ => State::NotStarted,
    })
    .await?;
    send(tx, row, Kind::Email).await?;
    send(tx, row, Kind::Approval).await
}

fn link_kind(kind: Kind) -> LinkKind {
    match kind {
        Kind::Approval => LinkKind::CompanyApproval,
        _ => LinkKind::ContactConfirmation,
    }
}

/// Who is asked by mail for a step.
fn asked(profile: &Profile, kind: Kind) -> Option<&Person> {
    match kind {
        Kind::Approval => profile.company_approver.as_ref(),
        _ => profile.primary_contact.as_ref(),
    }
}

/// Mails a link as `send` does, where the account has it mailed as often as it likes: so many to one address, whoever has them sent.
///
/// # Errors
/// `TOO_MANY_CALLS`; those of the database.
pub(super) async fn send_counted(tx: &mut Tx, row: &Model, kind: Kind) -> Result<()> {
    let profile = Profile::from_stored(&row.profile);
    let to = asked(&profile, kind).map(|person| person.email.to_lowercase());
    address::count_mail(tx, "verification", &to.unwrap_or_default()).await?;
    send(tx, row, kind).await
}

/// Mails the link of the primary contact, or of the company approver; the one before is void.
async fn send(tx: &mut Tx, row: &Model, kind: Kind) -> Result<()> {
    let app = tx.app().clone();
    let profile = Profile::from_stored(&row.profile);
    let template = match kind {
        Kind::Approval => Template::CompanyApproval,
        _ => Template::ContactConfirmation,
    };
    let to = asked(&profile, kind).cloned();
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
    let row = find(rd.db(), scope.id()).await?;
    progress::of_account(rd.db(), rd.app(), &row, rd.caller().language, rd.now()).await
}

/// Gives what the enrolment lacks.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub async fn list_requirements(
    rd: &Read,
    proof: Proof,
    req: ListRequirementsRequest,
) -> Result<ListRequirementsResponse> {
    let row = sight::readable(rd, &proof, &req.parent).await?;
    let mut all =
        requirement::of_account(rd.db(), rd.app(), &row, rd.caller().language, rd.now()).await?;
    let is_enrolments =
        |block| !matches!(block, RequirementBlock::Covered | RequirementBlock::Nothing);
    all.retain(|r| is_enrolments(r.blocks()));
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
    step::demand_under_way(&row)?;
    let all = step::all(tx.db(), row.id).await?;
    let asked = step::of(&all, kind);
    // A refusal can be asked about once more; what was confirmed stays.
    if asked.is_none_or(|s| s.state == State::Verified as i64) {
        return Err(Error::precondition(Reason::WrongState).with("state", "VERIFIED"));
    }
    set(tx, row.id, kind, State::InProgress, "").await?;
    send_counted(tx, &row, kind).await?;
    let language = tx.caller().language;
    progress::of_account(tx.db(), tx.app(), &row, language, tx.now()).await
}

// ---- by mailed links

/// The account of a link, whose verification is under way; the link is used up.
async fn redeemed(tx: &mut Tx, scope: TokenScope) -> Result<Model> {
    let link = scope.link();
    link::redeem(tx, link).await?;
    let row = find(tx.db(), link.subject).await?;
    step::demand_under_way(&row)?;
    Ok(row)
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
            step::advance(tx, row.id).await?;
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
    let all = step::all(tx.db(), account).await?;
    let step = step::of(&all, kind);
    Ok(step.map(|s| wire::verification_step(s, tx.now())))
}

/// The contact has nothing to do with it: an enrolment stops, an active account is to name another contact; the opener and the reviewers are
/// told.
async fn disown(tx: &mut Tx, row: &Model) -> Result<()> {
    set(tx, row.id, Kind::Email, State::Rejected, "NOT_OURS").await?;
    if row.state == AccountState::Pending as i64 {
        step::give_up(tx, row.id).await?;
        set(tx, row.id, Kind::Approval, State::NotStarted, "").await?;
        account_state::check_transition(row.state, AccountState::Draft)?;
        let mut changed = row.clone().into_active_model();
        changed.state = Set(AccountState::Draft as i64);
        changed.submit_time = Set(None);
        changed.reverifying = Set(0);
        // Whoever submits it again says anew that they may.
        changed.signatory = Set(String::new());
        changed.update_time = Set(tx.now());
        changed.version = Set(row.version + 1);
        let changed: Model = changed.update(tx.db()).await?;
        state_changed(tx, row, &changed);
    }
    let values = [
        ("publisher", row.publisher_display_name.clone()),
        ("legal_name", row.legal_name.clone()),
        ("account", Name::Account(row.id).to_string()),
    ];
    let mut told = reviewers(tx).await?;
    // The opener and whoever handed it in; of an imported account, which has neither, those who run it.
    for who in [&row.opened_by, &row.signatory] {
        told.extend(super::enrolment::address_of(tx, who).await?);
    }
    if row.opened_by.is_empty() {
        told.extend(closing::run_by(tx, row.id).await?);
    }
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
    if state == State::Verified {
        super::ownership::approver_approved(tx, &row).await?;
    }
    step::advance(tx, row.id).await?;
    Ok(ConfirmApprovalResponse {
        publisher_display_name: row.publisher_display_name,
        step: decided(tx, row.id, Kind::Approval).await?,
    })
}

/// Tells the whole enrolment to the company approver; the link stays good.
///
/// # Errors
/// `LINK_INVALID`.
pub async fn get_enrolment_for_approval(
    rd: &Read,
    scope: TokenScope,
    _req: GetEnrolmentForApprovalRequest,
) -> Result<EnrolmentForApproval> {
    let row = account::Entity::find_by_id(scope.link().subject)
        .one(rd.db())
        .await?
        .ok_or_else(link::invalid)?;
    let sql = "SELECT kind, MAX(number) AS number FROM acceptances WHERE scope_kind = $1 AND scope_id = $2 GROUP BY kind ORDER BY kind LIMIT 20";
    let values: [Value; 2] = [ScopeKey::Account(row.id).kind().into(), row.id.into()];
    let mut accepted = Vec::new();
    for found in sql::rows_of(rd.db(), sql, values).await? {
        let (kind, number): (i64, i64) = (found.try_get("", "kind")?, found.try_get("", "number")?);
        let kind = AgreementKind::try_from(i32::try_from(kind).unwrap_or(0)).unwrap_or_default();
        accepted.push(format!("{} {number}", account_state::agreement_name(kind)));
    }
    let membership = match row.membership_id {
        Some(id) => super::network::find(rd.db(), id).await?,
        None => None,
    };
    let signatory = Name::parse(&row.signatory).map(|n| n.id());
    let signatory = match signatory {
        Some(id) => directory::user::summary(rd.db(), id).await?,
        None => None,
    };
    let sql = "SELECT t.id, t.display_name FROM associations s JOIN tenants t ON t.id = s.tenant_id \
               WHERE s.account_id = $1 ORDER BY t.id LIMIT $2";
    let values: [Value; 2] = [row.id.into(), MOST_TENANTS_SHOWN.into()];
    let mut tenants = Vec::new();
    for found in sql::rows_of(rd.db(), sql, values).await? {
        tenants.push(EnrolledTenant {
            name: Name::Tenant(found.try_get("", "id")?).to_string(),
            display_name: found.try_get("", "display_name")?,
        });
    }
    let mut shown = wire::enrolment_for_approval(&row, signatory, membership);
    (shown.accepted_agreements, shown.tenants) = (accepted, tenants);
    Ok(shown)
}
