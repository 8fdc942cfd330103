//! What an account still has to do (VER-7, AGR-3): the one list of it, each with the method that does it. Submitting asks it, so that nothing
//! is demanded that isn't named here.

use sea_orm::{ConnectionTrait, Value};

use super::{agreement, entity::account::Model, profile, verification, wire};
use crate::{
    access::{
        account_state::{self, agreement_name},
        grants::ADMIN_AGENT,
    },
    env::Micros,
    error::{Language, Result},
    proto::{
        access::{AgreementKind, Program},
        account::{
            AccountState, Requirement, RequirementBlock, RequirementCode, VerificationStepKind,
            VerificationStepState,
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
const ADD_MEMBERS: &str = "entente.account.v1.MemberService/AddMembers";

/// All that an account has to do, what is urgent first: overdue agreements, those with a date, then what its enrolment lacks.
///
/// # Errors
/// Those of the database.
pub async fn of_account<C: ConnectionTrait>(
    db: &C,
    row: &Model,
    language: Language,
    now: Micros,
) -> Result<Vec<Requirement>> {
    let mut all = agreements(db, row, language, now).await?;
    if row.state == AccountState::Draft as i64 {
        for field in profile::missing(&wire::account(row)) {
            all.push(Requirement {
                code: RequirementCode::Field as i32,
                text: language.requirement("FIELD", &[("field", field)]),
                field: field.to_owned(),
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
            blocks: RequirementBlock::Submission as i32,
            method: ADD_MEMBERS.to_owned(),
            ..Requirement::default()
        });
    }
    if row.state == AccountState::Draft as i64 {
        all.push(Requirement {
            code: RequirementCode::Submission as i32,
            text: language.requirement("SUBMISSION", &[]),
            blocks: RequirementBlock::Activation as i32,
            method: SUBMIT.to_owned(),
            ..Requirement::default()
        });
    }
    if row.state == AccountState::Pending as i64 {
        all.extend(confirmations(db, row, language, now).await?);
    }
    Ok(all)
}

/// What is asked for by mail: to be confirmed by the link, mailed anew once that ran out, or another person where it was refused.
async fn confirmations<C: ConnectionTrait>(
    db: &C,
    row: &Model,
    language: Language,
    now: Micros,
) -> Result<Vec<Requirement>> {
    let mut all = Vec::new();
    for step in verification::steps(db, row.id).await? {
        let (code, text, method) =
            match VerificationStepKind::try_from(i32::try_from(step.kind).unwrap_or(0)) {
                Ok(VerificationStepKind::Email) => (
                    RequirementCode::ContactConfirmation,
                    "CONTACT_CONFIRMATION",
                    CONFIRM_CONTACT,
                ),
                Ok(VerificationStepKind::Approval) => (
                    RequirementCode::CompanyApproval,
                    "COMPANY_APPROVAL",
                    CONFIRM_APPROVAL,
                ),
                _ => continue,
            };
        let is_open = step.state == VerificationStepState::InProgress as i64;
        let method = if is_open && step.link_expire_time.is_some_and(|at| now < at) {
            method
        } else if is_open {
            RESEND
        } else if step.state == VerificationStepState::Rejected as i64 {
            UPDATE
        } else {
            continue;
        };
        all.push(Requirement {
            code: code as i32,
            text: language.requirement(text, &[]),
            blocks: RequirementBlock::Activation as i32,
            deadline: step
                .link_expire_time
                .filter(|at| now < *at)
                .and_then(timestamp),
            method: method.to_owned(),
            ..Requirement::default()
        });
    }
    Ok(all)
}

/// The agreements to accept: of drafts that of the network, of others also those of their programmes whose versions have a date.
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
        if accepted(db, row, kind)
            .await?
            .is_some_and(|n| n >= version.number)
        {
            continue;
        }
        let deadline = account_state::overdue(db, ScopeKey::Account(row.id), kind, now)
            .await?
            .map(|due| due.since)
            .or(version.accept_by_time);
        // An older acceptance stays good where the newer version has no date.
        let blocks = if is_draft {
            RequirementBlock::Submission
        } else if deadline.is_some() {
            RequirementBlock::Covered
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

/// Whether an active person holds ADMIN_AGENT on the account, by itself or by a group (ACC-6).
async fn has_admin_agent<C: ConnectionTrait>(db: &C, row: &Model) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM ( \
               SELECT principal_id AS person FROM grants WHERE scope_kind = 2 AND scope_id = $1 AND (roles & $2) <> 0 \
               UNION ALL SELECT user_id AS person FROM group_rights WHERE scope_kind = 2 AND scope_id = $1 AND (roles & $2) <> 0 \
               ) h JOIN active_people p ON p.id = h.person LIMIT 1";
    let values: [Value; 2] = [row.id.into(), ADMIN_AGENT.into()];
    Ok(sql::row(db, sql, values).await?.is_some())
}
