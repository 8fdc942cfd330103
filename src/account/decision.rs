//! VerificationService, the reviewers' side of steps (VER-3, VER-4, VER-6): approving, rejecting with a reason, asking for more without limit.

use super::{review, step};
use crate::{
    access::scope::OperatorScope,
    app::Tx,
    check::Violations,
    error::{Error, Result},
    mail::Template,
    proto::account::{
        DecideReviewRequest, RequestMoreRequest, Review, ReviewDecision,
        VerificationStepKind as Kind, VerificationStepState as State,
    },
    store::update,
};

pub(crate) fn check_decide_review(req: &DecideReviewRequest, v: &mut Violations) {
    match req.decision() {
        ReviewDecision::Withdrawn => v.also("decision", "is nobody's to take"),
        _ if req.reason.trim().is_empty() => v.also("reason", "is needed"),
        _ => {}
    }
}

fn step_of(row: &super::entity::review::Model) -> Result<(Kind, bool)> {
    step::of_review(row.kind)
        .ok_or_else(|| Error::field("name", "is of a kind that has a method of its own"))
}

/// Decides a step.
///
/// # Errors
/// `NOT_FOUND`, `REVIEW_NOT_CLAIMED`, `REVIEWER_INVOLVED`, `NO_OTHER_REVIEWER`, `WRONG_STATE`, `ETAG_MISMATCH`, `PEOPLE_ONLY`; `INVALID_ARGUMENT` for a
/// decision without a reason, and for kinds that have a method of their own.
pub async fn decide_review(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: DecideReviewRequest,
) -> Result<Review> {
    let decision = req.decision();
    let DecideReviewRequest {
        name,
        decision: _,
        reason,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let row = review::locked(tx, &name).await?;
    update::check_etag(&etag, row.version)?;
    let (kind, _) = step_of(&row)?;
    review::demand_claimed(tx, &row).await?;
    let (account, by) = (row.account_id, row.claimed_by);
    let progress = review::decide(tx, row, decision, reason.clone()).await?;
    match (decision, progress) {
        (_, review::Progress::NeedsAnother) => {}
        (ReviewDecision::Approve, _) => step::approved(tx, account, kind).await?,
        _ => step::rejected(tx, account, kind, &reason, by).await?,
    }
    let row = review::by_name(tx.db(), &name).await?;
    review::answer(tx, row).await
}

/// Asks the account for more.
///
/// # Errors
/// Those of deciding.
pub async fn request_more(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: RequestMoreRequest,
) -> Result<Review> {
    let RequestMoreRequest {
        name,
        text,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let row = review::locked(tx, &name).await?;
    update::check_etag(&etag, row.version)?;
    let (kind, _) = step_of(&row)?;
    review::demand_claimed(tx, &row).await?;
    let account = row.account_id;
    let row = review::ask(tx, row, text.clone()).await?;
    let now = tx.now();
    step::change(tx, account, kind, |s| {
        step::enter(s, State::ActionRequired, "MORE_REQUESTED", now);
        s.asked.clone_from(&text);
    })
    .await?;
    let company = super::verification::find(tx.db(), account).await?;
    let values = [("asked", text)];
    step::tell(tx, &company, Template::StepAction, &values).await?;
    review::answer(tx, row).await
}
