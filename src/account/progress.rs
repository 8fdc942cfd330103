//! How far a verification has come, as an account sees it (VER-1, VER-7): always all steps, each with what is to be done about it, its documents, and
//! what reviewers decided of it last.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::{
    document::{self, SubjectKind},
    entity::{account::Model, review},
    requirement, step, wire,
};
use crate::{
    app::App,
    env::Micros,
    error::{Language, Result},
    names::Name,
    proto::account::{
        AccountState, ReviewDecision, ReviewKind, Verification, VerificationDecision,
        VerificationStep, VerificationStepKind as Kind,
    },
};

/// Reviews that are looked through, the latest first.
const MOST_REVIEWS: u64 = 100;
/// Documents of one step that are told, the latest first.
const MOST_DOCUMENTS: usize = 200;
/// Those that are looked through for both steps that have some.
const MOST_PAPERS: u64 = 2 * MOST_DOCUMENTS as u64;

/// How far the verification of an account has come.
///
/// # Errors
/// Those of the database.
pub(super) async fn of_account<C: ConnectionTrait>(
    db: &C,
    app: &App,
    row: &Model,
    language: Language,
    now: Micros,
) -> Result<Verification> {
    let steps = step::all(db, row.id).await?;
    let mut due = requirement::of_steps(db, app, row, language, now).await?;
    if row.state == AccountState::Draft as i64 {
        let mut submission = requirement::submission(language);
        submission.step = requirement::step_name(Kind::Email).to_owned();
        due.push(submission);
    }
    let reviews = reviews(db, row.id).await?;
    let ids: Vec<Uuid> = reviews.iter().map(|review| review.id).collect();
    let papers = document::latest_of_subjects(db, SubjectKind::Review, &ids, MOST_PAPERS).await?;
    let shown = |kind: Kind| -> VerificationStep {
        let mut shown = match step::of(&steps, kind) {
            Some(step) => wire::verification_step(step, now),
            None => wire::step_without_row(row, kind),
        };
        let name = requirement::step_name(kind);
        if let Some(found) = due.iter().find(|r| r.step == name) {
            shown.to_do.clone_from(&found.text);
            shown.method.clone_from(&found.method);
        }
        let of_step: Vec<&review::Model> = reviews
            .iter()
            .filter(|review| is_of(review, kind))
            .collect();
        let papers = papers.iter().filter(|paper| {
            let mut reviews = of_step.iter();
            reviews.any(|review| paper.attached_id == Some(review.id))
        });
        let papers = papers.take(MOST_DOCUMENTS);
        shown.documents = papers.map(document::Model::receipt).collect();
        let decided = of_step.iter().filter(|review| is_decision(review));
        let last = decided.max_by_key(|review| review.decide_time);
        shown.last_decision = last.map(|review| decision(review));
        shown
    };
    Ok(Verification {
        account: Name::Account(row.id).to_string(),
        steps: [Kind::Email, Kind::Employment, Kind::Business]
            .map(shown)
            .to_vec(),
        approval: Some(shown(Kind::Approval)),
    })
}

/// The latest reviews of steps of an account.
async fn reviews<C: ConnectionTrait>(db: &C, account: Uuid) -> Result<Vec<review::Model>> {
    let kinds = [
        ReviewKind::Employment,
        ReviewKind::Business,
        ReviewKind::EmploymentAppeal,
        ReviewKind::BusinessAppeal,
    ];
    Ok(review::Entity::find()
        .filter(review::Column::AccountId.eq(account))
        .filter(review::Column::Kind.is_in(kinds.map(|kind| kind as i64)))
        .order_by_desc(review::Column::CreateTime)
        .order_by_desc(review::Column::Id)
        .limit(MOST_REVIEWS)
        .all(db)
        .await?)
}

fn is_of(row: &review::Model, kind: Kind) -> bool {
    step::of_review(row.kind).is_some_and(|(of, _)| of == kind)
}

/// Withdrawn reviews say nothing about the step.
fn is_decision(row: &review::Model) -> bool {
    let decisions = [ReviewDecision::Approve, ReviewDecision::Reject];
    row.decided && decisions.iter().any(|d| row.decision == *d as i64)
}

fn decision(row: &review::Model) -> VerificationDecision {
    wire::verification_decision(
        row,
        step::of_review(row.kind).is_some_and(|(_, appeal)| appeal),
    )
}

/// A verification as the operator's people see it: what was brought and said is for those who review it.
pub(super) fn masked(mut shown: Verification) -> Verification {
    for step in shown.steps.iter_mut().chain(&mut shown.approval) {
        step.documents.clear();
        step.last_decision = None;
    }
    shown
}
