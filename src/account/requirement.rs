//! What an account still has to do (VER-7, AGR-3): the one list of it, each with the method that does it. Submitting asks it, so that nothing
//! is demanded that isn't named here.

use sea_orm::{ConnectionTrait, Value};

use super::{
    agreement,
    entity::{account::Model, verification_step},
    name_claim,
    profile::{self, Profile},
    step, wire,
};
use crate::{
    access::{
        account_state::{self, agreement_name},
        grants::ADMIN_AGENT,
    },
    app::App,
    directory::address,
    env::Micros,
    error::{Language, Result},
    names::Name,
    proto::{
        access::{AccountAct, AgreementKind, Program},
        account::{
            AccountState, NameClaimState, Requirement, RequirementBlock, RequirementCode,
            VerificationStepKind, VerificationStepState,
        },
    },
    store::{scope_key::ScopeKey, sql, time::timestamp},
};

const UPDATE: &str = "entente.account.v1.AccountService/UpdateAccount";
const SUBMIT: &str = "entente.account.v1.AccountService/SubmitAccount";
const ACCEPT: &str = "entente.account.v1.AgreementService/AcceptAgreement";
const CONFIRM_CONTACT: &str = "entente.account.v1.VerificationService/ConfirmContact";
const CONFIRM_APPROVAL: &str = "entente.account.v1.VerificationService/ConfirmApproval";
const RESEND: &str = "entente.account.v1.VerificationService/ResendVerificationMail";
const SUBMIT_STEP: &str = "entente.account.v1.VerificationService/SubmitStep";
const APPEAL: &str = "entente.account.v1.VerificationService/AppealDecision";
const ANSWER_CLAIM: &str = "entente.account.v1.NameClaimService/AnswerNameClaim";
const ADD_MEMBERS: &str = "entente.account.v1.MemberService/AddMembers";

/// All that an account has to do, what is urgent first: overdue agreements, those with a date, then what its enrolment lacks.
///
/// # Errors
/// Those of the database.
pub async fn of_account<C: ConnectionTrait>(
    db: &C,
    app: &App,
    row: &Model,
    language: Language,
    now: Micros,
) -> Result<Vec<Requirement>> {
    let mut all = agreements(db, row, language, now).await?;
    all.extend(of_name_claim(db, row, language).await?);
    if row.state == AccountState::Draft as i64 {
        for field in profile::missing(&wire::account(row)) {
            all.push(Requirement {
                code: RequirementCode::Field as i32,
                text: language.requirement("FIELD", &[("field", &field)]),
                field,
                blocks: RequirementBlock::Submission as i32,
                method: UPDATE.to_owned(),
                ..Requirement::default()
            });
        }
    }
    let enrols = [AccountState::Draft as i64, AccountState::Pending as i64].contains(&row.state);
    if enrols && !has_admin_agent(db, row).await? {
        all.push(Requirement {
            code: RequirementCode::AdminAgent as i32,
            text: language.requirement("ADMIN_AGENT", &[]),
            blocks: if row.state == AccountState::Draft as i64 {
                RequirementBlock::Submission as i32
            } else {
                RequirementBlock::Activation as i32
            },
            method: ADD_MEMBERS.to_owned(),
            ..Requirement::default()
        });
    }
    if row.state == AccountState::Draft as i64 {
        // Submitting takes the word on the way.
        if row.signatory.is_empty() {
            all.push(Requirement {
                code: RequirementCode::Signatory as i32,
                text: language.requirement("SIGNATORY", &[]),
                blocks: RequirementBlock::Submission as i32,
                method: SUBMIT.to_owned(),
                ..Requirement::default()
            });
        }
        all.push(submission(language));
    }
    all.extend(of_steps(db, app, row, language, now).await?);
    Ok(all)
}

/// What a claim on the publisher name waits for: an answer, or another name (ACC-12). Both in every state of the account; what UpdateAccount
/// doesn't do then, answering does.
async fn of_name_claim<C: ConnectionTrait>(
    db: &C,
    row: &Model,
    language: Language,
) -> Result<Option<Requirement>> {
    let Some(claim) = name_claim::on_its_way(db, row.id).await? else {
        return Ok(None);
    };
    let found = if claim.state == NameClaimState::AwaitingAnswer as i64 {
        Requirement {
            code: RequirementCode::NameClaimAnswer as i32,
            text: language.requirement("NAME_CLAIM_ANSWER", &[]),
            detail: claim.statement.clone(),
            blocks: RequirementBlock::PublisherName as i32,
            deadline: timestamp(claim.answer_until),
            method: ANSWER_CLAIM.to_owned(),
            ..Requirement::default()
        }
    } else if claim.state == NameClaimState::Granted as i64 {
        let manages = account_state::allows(row.state, AccountAct::Manage);
        let method = if manages { UPDATE } else { ANSWER_CLAIM };
        Requirement {
            code: RequirementCode::Rename as i32,
            text: language.requirement("RENAME", &[]),
            detail: claim.reason.clone(),
            blocks: RequirementBlock::Account as i32,
            deadline: claim.rename_until.and_then(timestamp),
            method: method.to_owned(),
            field: "publisher_display_name".to_owned(),
            ..Requirement::default()
        }
    } else {
        return Ok(None);
    };
    Ok(Some(Requirement {
        name_claim: Name::NameClaim(claim.id).to_string(),
        ..found
    }))
}

/// That a draft is to be submitted.
pub(super) fn submission(language: Language) -> Requirement {
    Requirement {
        code: RequirementCode::Submission as i32,
        text: language.requirement("SUBMISSION", &[]),
        blocks: RequirementBlock::Activation as i32,
        method: SUBMIT.to_owned(),
        ..Requirement::default()
    }
}

/// What the steps of a verification wait for, of accounts that are being verified, for the first time or anew; of suspended ones what can be
/// appealed.
pub(super) async fn of_steps<C: ConnectionTrait>(
    db: &C,
    app: &App,
    row: &Model,
    language: Language,
    now: Micros,
) -> Result<Vec<Requirement>> {
    let is_anew = row.state == AccountState::Active as i64;
    let is_pending = row.state == AccountState::Pending as i64;
    let is_suspended = row.state == AccountState::Suspended as i64;
    if !(is_anew || is_pending || is_suspended) {
        return Ok(Vec::new());
    }
    let blocks = if is_anew {
        RequirementBlock::Payout
    } else {
        RequirementBlock::Activation
    };
    let profile = Profile::from_stored(&row.profile);
    let mut all = Vec::new();
    for step in step::all(db, row.id).await? {
        let kind = VerificationStepKind::try_from(i32::try_from(step.kind).unwrap_or(0));
        let kind = kind.unwrap_or_default();
        let found = if step::is_reviewed(kind) {
            of_reviewed(&step, language, now)
        } else if is_suspended {
            None
        } else {
            let asked = match kind {
                VerificationStepKind::Approval => profile.company_approver.as_ref(),
                _ => profile.primary_contact.as_ref(),
            };
            let email = asked.map_or("", |person| person.email.as_str());
            of_mailed(db, app, &step, kind, email, language, now).await?
        };
        // While it is suspended only appeals work, and what their reviewers ask for.
        let found =
            found.filter(|r| !is_suspended || step.appealed || r.code() == RequirementCode::Appeal);
        all.extend(found.map(|r| Requirement {
            blocks: blocks as i32,
            step: step_name(kind).to_owned(),
            ..r
        }));
    }
    Ok(all)
}

/// The name of a step on the wire, without its prefix.
pub(super) fn step_name(kind: VerificationStepKind) -> &'static str {
    kind.as_str_name()
        .trim_start_matches("VERIFICATION_STEP_KIND_")
}

/// What a step waits for that is decided by a mailed link: to be confirmed, mailed anew once the link ran out, or another person where it was
/// refused.
async fn of_mailed<C: ConnectionTrait>(
    db: &C,
    app: &App,
    step: &verification_step::Model,
    kind: VerificationStepKind,
    email: &str,
    language: Language,
    now: Micros,
) -> Result<Option<Requirement>> {
    let (code, text, confirm) = match kind {
        VerificationStepKind::Approval => (
            RequirementCode::CompanyApproval,
            "COMPANY_APPROVAL",
            CONFIRM_APPROVAL,
        ),
        _ => (
            RequirementCode::ContactConfirmation,
            "CONTACT_CONFIRMATION",
            CONFIRM_CONTACT,
        ),
    };
    let is_open = step.state == VerificationStepState::InProgress as i64;
    let until = step.link_expire_time.filter(|at| now < *at);
    let mut found = Requirement {
        code: code as i32,
        text: language.requirement(text, &[]),
        deadline: until.and_then(timestamp),
        ..Requirement::default()
    };
    if is_open && until.is_some() {
        confirm.clone_into(&mut found.method);
    } else if is_open {
        RESEND.clone_into(&mut found.method);
        let left = address::mails_left(db, app, "verification", &email.to_lowercase(), now).await?;
        found.attempts_left = Some(left);
    } else if step.state == VerificationStepState::Rejected as i64 {
        UPDATE.clone_into(&mut found.method);
        // The contact gives no reason.
        if kind == VerificationStepKind::Approval {
            step.reason.clone_into(&mut found.detail);
        }
    } else {
        return Ok(None);
    }
    Ok(Some(found))
}

/// What a step waits for that reviewers decide: documents, an answer, an appeal.
fn of_reviewed(
    step: &verification_step::Model,
    language: Language,
    now: Micros,
) -> Option<Requirement> {
    if step.state == VerificationStepState::ActionRequired as i64 {
        return Some(Requirement {
            code: RequirementCode::StepSubmission as i32,
            text: language.requirement("STEP_SUBMISSION", &[]),
            detail: step.asked.clone(),
            method: SUBMIT_STEP.to_owned(),
            ..Requirement::default()
        });
    }
    if !step::is_appealable(step, now) {
        return None;
    }
    // Of an account that was active before nothing is decided by time.
    let text = match step.appeal_until {
        Some(_) => "APPEAL",
        None => "APPEAL_ANY_TIME",
    };
    Some(Requirement {
        code: RequirementCode::Appeal as i32,
        text: language.requirement(text, &[]),
        detail: step.reason.clone(),
        deadline: step.appeal_until.and_then(timestamp),
        method: APPEAL.to_owned(),
        attempts_left: Some(1),
        ..Requirement::default()
    })
}

/// The agreements to accept: of drafts that of the network, of others also those of their programmes; those with a date first.
async fn agreements<C: ConnectionTrait>(
    db: &C,
    row: &Model,
    language: Language,
    now: Micros,
) -> Result<Vec<Requirement>> {
    let is_draft = row.state == AccountState::Draft as i64;
    let current = agreement::current(db, now).await?;
    let mut due = Vec::new();
    for (kind, program) in [
        (AgreementKind::PartnerNetwork, None),
        (AgreementKind::Publisher, Some(Program::Marketplace)),
        (AgreementKind::Collaborate, Some(Program::Collaborate)),
        (AgreementKind::Referrals, Some(Program::Referrals)),
    ] {
        if program.is_some_and(|p| row.programs & account_state::bit(p) == 0) {
            continue;
        }
        let Some(version) = current.get(&(kind as i64)) else {
            continue;
        };
        let accepted = accepted(db, row, kind).await?;
        if accepted.is_some_and(|n| n >= version.number) {
            continue;
        }
        let deadline = account_state::deadline(db, kind, accepted, version.number).await?;
        // An older acceptance stays good where the newer version has no date, but whoever enrolled before hears of it. Nobody is told to accept
        // a stand-in that it was enrolled without.
        let blocks = if is_draft {
            RequirementBlock::Submission
        } else if deadline.is_some() {
            RequirementBlock::Covered
        } else if accepted.is_some() || !version.is_placeholder {
            RequirementBlock::Nothing
        } else {
            continue;
        };
        let number = version.number.to_string();
        let name = agreement_name(kind);
        due.push((
            if is_draft { None } else { deadline },
            Requirement {
                code: RequirementCode::Agreement as i32,
                text: language
                    .requirement("AGREEMENT", &[("version", &number), ("agreement", name)]),
                blocks: blocks as i32,
                deadline: if is_draft {
                    None
                } else {
                    deadline.and_then(timestamp)
                },
                method: ACCEPT.to_owned(),
                agreement_version: version.number,
                agreement: name.to_owned(),
                ..Requirement::default()
            },
        ));
    }
    due.sort_by_key(|(deadline, _)| deadline.unwrap_or(i64::MAX));
    Ok(due
        .into_iter()
        .map(|(_, requirement)| requirement)
        .collect())
}

/// The latest version of an agreement that the account accepted.
pub(super) async fn accepted<C: ConnectionTrait>(
    db: &C,
    row: &Model,
    kind: AgreementKind,
) -> Result<Option<i64>> {
    let sql = "SELECT MAX(number) AS n FROM acceptances WHERE scope_kind = $1 AND scope_id = $2 AND kind = $3";
    let scope = ScopeKey::Account(row.id);
    let values: [Value; 3] = [scope.kind().into(), row.id.into(), (kind as i64).into()];
    match sql::row(db, sql, values).await? {
        Some(found) => Ok(found.try_get("", "n")?),
        None => Ok(None),
    }
}

/// The statement that finds active people who hold ADMIN_AGENT, whose bit is the parameter `role`, on an account (ACC-6).
pub(super) fn admin_agents(account: &str, role: &str) -> String {
    format!(
        "SELECT 1 AS one FROM ( \
         SELECT principal_id AS person FROM grants WHERE scope_kind = 2 AND scope_id = {account} AND (roles & {role}) <> 0 \
         UNION ALL SELECT user_id AS person FROM group_rights WHERE scope_kind = 2 AND scope_id = {account} AND (roles & {role}) <> 0 \
         ) h JOIN active_people p ON p.id = h.person"
    )
}

/// Whether an active person holds ADMIN_AGENT on the account, by itself or by a group (ACC-6).
pub(super) async fn has_admin_agent<C: ConnectionTrait>(db: &C, row: &Model) -> Result<bool> {
    let sql = format!("{} LIMIT 1", admin_agents("$1", "$2"));
    let values: [Value; 2] = [row.id.into(), ADMIN_AGENT.into()];
    Ok(sql::row(db, sql, values).await?.is_some())
}
