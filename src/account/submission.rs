//! VerificationService, the account's side of what reviewers decide (VER-3, VER-4, VER-7): documents and answers submitted, rejections appealed
//! against, once.

use uuid::Uuid;

use super::{
    document::{self, Subject, SubjectKind},
    entity::account::Model,
    progress,
    review::{self, Opened},
    step, verification,
};
use crate::{
    access::{account_state, scope::AccountScope},
    app::Tx,
    error::{Error, Reason, Result},
    names::Name,
    proto::account::{
        AccountState, AppealDecisionRequest, SubmitStepRequest, Verification,
        VerificationStepKind as Kind, VerificationStepState as State,
    },
    store::update,
};

fn wrong(state: State) -> Error {
    let name = state.as_str_name();
    let name = name.trim_start_matches("VERIFICATION_STEP_STATE_");
    Error::precondition(Reason::WrongState).with("state", name)
}

fn demand_reviewed(kind: Kind) -> Result<()> {
    if step::is_reviewed(kind) {
        Ok(())
    } else {
        Err(Error::field("step", "is decided by no reviewer"))
    }
}

/// What an account brings to the reviewers.
struct Brought {
    kind: Kind,
    appeal: bool,
    documents: Vec<String>,
    note: String,
    not_by: Option<Uuid>,
}

/// Puts what an account brings into the queue.
async fn bring(tx: &mut Tx, row: &Model, brought: Brought) -> Result<Verification> {
    let Brought {
        kind,
        appeal,
        documents,
        note,
        not_by,
    } = brought;
    let review = review::open(
        tx,
        Opened {
            kind: step::review_kind(kind, appeal),
            account: row.id,
            subject: Name::Account(row.id),
            submitter: tx.caller().name(),
            note,
            not_by,
            other: None,
        },
    )
    .await?;
    let there = document::of_subject(tx.db(), SubjectKind::Review, review.id).await?;
    let most = usize::try_from(crate::document::MOST_OF_A_SUBJECT).unwrap_or(0);
    if there.len() + documents.len() > most {
        return Err(Error::field("documents", "are too many for one review"));
    }
    let subject = Subject {
        kind: SubjectKind::Review,
        id: review.id,
        account: Some(row.id),
    };
    document::attach(tx, subject, &documents, "documents").await?;
    let now = tx.now();
    step::change(tx, row.id, kind, |s| {
        step::enter(s, State::InProgress, "", now);
        s.appealed |= appeal;
    })
    .await?;
    let language = tx.caller().language;
    progress::of_account(tx.db(), tx.app(), row, language, now).await
}

/// Submits what a step waits for.
///
/// # Errors
/// `WRONG_STATE` for a step that waits for nothing, `DOCUMENTS_NEEDED`, `ETAG_MISMATCH`; `INVALID_ARGUMENT` for a step that no reviewer decides, and
/// for documents that are none of the account's.
pub async fn submit_step(
    tx: &mut Tx,
    scope: AccountScope,
    req: SubmitStepRequest,
) -> Result<Verification> {
    let kind = req.step();
    let SubmitStepRequest {
        name: _,
        step: _,
        documents,
        note,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    demand_reviewed(kind)?;
    let row = verification::find(tx.db(), scope.id()).await?;
    update::check_etag(&etag, row.version)?;
    let steps = step::all(tx.db(), row.id).await?;
    // What a reviewer of an appeal asks for is answered also while the account is suspended.
    let is_appealed = step::of(&steps, kind).is_some_and(|s| s.appealed);
    if !(is_appealed && row.state == AccountState::Suspended as i64) {
        step::demand_under_way(&row)?;
    }
    let found = step::of(&steps, kind).ok_or_else(|| wrong(State::NotStarted))?;
    let state = State::try_from(i32::try_from(found.state).unwrap_or(0)).unwrap_or_default();
    if state != State::ActionRequired {
        return Err(wrong(state));
    }
    // What a reviewer asks for may be answered in words.
    let answers = !found.asked.is_empty() && !note.trim().is_empty();
    if documents.is_empty() && !answers {
        return Err(documents_needed());
    }
    let appeal = found.appealed;
    let brought = Brought {
        kind,
        appeal,
        documents,
        note,
        not_by: None,
    };
    bring(tx, &row, brought).await
}

fn documents_needed() -> Error {
    Error::argument(Reason::DocumentsNeeded, "documents", "are needed")
}

/// Appeals against a rejection.
///
/// # Errors
/// `WRONG_STATE` for a step that isn't rejected, or was appealed; `DOCUMENTS_NEEDED`, `ETAG_MISMATCH`; `INVALID_ARGUMENT` as for submitting.
pub async fn appeal_decision(
    tx: &mut Tx,
    scope: AccountScope,
    req: AppealDecisionRequest,
) -> Result<Verification> {
    let kind = req.step();
    let AppealDecisionRequest {
        name: _,
        step: _,
        documents,
        note,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    demand_reviewed(kind)?;
    let row = verification::find(tx.db(), scope.id()).await?;
    update::check_etag(&etag, row.version)?;
    // Also while it is suspended.
    let is_over = [
        AccountState::Rejected,
        AccountState::Closed,
        AccountState::Draft,
    ];
    if is_over.iter().any(|state| row.state == *state as i64) {
        return Err(account_state::wrong_state(row.state));
    }
    let steps = step::all(tx.db(), row.id).await?;
    let found = step::of(&steps, kind).ok_or_else(|| wrong(State::NotStarted))?;
    let state = State::try_from(i32::try_from(found.state).unwrap_or(0)).unwrap_or_default();
    if !step::is_appealable(found, tx.now()) {
        return Err(wrong(state));
    }
    if documents.is_empty() {
        return Err(documents_needed());
    }
    let brought = Brought {
        kind,
        appeal: true,
        documents,
        note,
        not_by: found.rejected_by,
    };
    bring(tx, &row, brought).await
}
