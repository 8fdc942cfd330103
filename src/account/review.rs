//! VerificationService, the queue of reviews (VER-6): one for all kinds, by kind and subject.
//!
//! A review waits; a reviewer claims it, which holds for 30 minutes and then is over by itself, as if it had been released; it waits for the
//! account if more was asked for; in the end it is decided, or withdrawn with what was reviewed. One is open for a subject at most. Whatever
//! happens to a review happens under the lock of its account, so two reviewers never have it. Who may not handle what is decided here and
//! in `involvement.rs`, for all kinds; what a decision brings about is the kind's own.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, Set,
    sea_query::{Alias, CaseStatement, Expr, ExprTrait as _, Query as Select},
};
use uuid::Uuid;

use super::{
    document::{self, SubjectKind},
    entity::{
        account,
        review::{Column, Entity, Model},
    },
    involvement::{self, Reviewer},
    wire,
};
use crate::{
    access::{grants, principal::Kind, roles::Permission, scope::OperatorScope},
    app::{App, Read, Tx},
    check::Violations,
    env::{MINUTE_US, Micros},
    error::{Error, Reason, Result},
    names::Name,
    proto::account::{
        ClaimReviewRequest, GetReviewRequest, ListReviewsRequest, ListReviewsResponse,
        ReleaseReviewRequest, Review, ReviewDecision, ReviewKind, ReviewState,
    },
    store::{
        filter::{Field, Kind as FilterKind, OrderField},
        list::Listing,
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::rfc3339,
        update,
    },
};

/// A claim holds for so long.
const CLAIM_US: Micros = 30 * MINUTE_US;

const WAITING: i64 = ReviewState::Waiting as i64;
const CLAIMED: i64 = ReviewState::Claimed as i64;
const MORE_REQUESTED: i64 = ReviewState::MoreRequested as i64;
const DECIDED: i64 = ReviewState::Decided as i64;

const STATES: &[(&str, i64)] = &[
    ("WAITING", WAITING),
    ("CLAIMED", CLAIMED),
    ("MORE_REQUESTED", MORE_REQUESTED),
    ("DECIDED", DECIDED),
];

const KINDS: &[(&str, i64)] = &[
    ("EMPLOYMENT", ReviewKind::Employment as i64),
    ("BUSINESS", ReviewKind::Business as i64),
    ("EMPLOYMENT_APPEAL", ReviewKind::EmploymentAppeal as i64),
    ("BUSINESS_APPEAL", ReviewKind::BusinessAppeal as i64),
    ("OFFER", ReviewKind::Offer as i64),
    ("NAME_CLAIM", ReviewKind::NameClaim as i64),
    ("OWNERSHIP", ReviewKind::Ownership as i64),
];

const LISTING: Listing = Listing {
    fields: &[
        Field::new("state", ("shown", "state"), FilterKind::Enum(STATES)),
        Field::new("kind", ("reviews", "kind"), FilterKind::Enum(KINDS)),
        Field::new(
            "account",
            ("reviews", "account_id"),
            FilterKind::Id { parse: account_id },
        ),
        Field::new("create_time", ("reviews", "create_time"), FilterKind::TIME),
    ],
    orders: &[OrderField::new("create_time", ("reviews", "create_time"))],
    id: ("reviews", "id"),
};

fn account_id(name: &str) -> Option<Uuid> {
    match Name::parse(name) {
        Some(Name::Account(id)) => Some(id),
        _ => None,
    }
}

/// The state of a review at an instant.
pub(super) fn state_at(row: &Model, now: Micros) -> i64 {
    let is_over = row.claim_expire_time.is_none_or(|at| at <= now);
    if row.state == CLAIMED && is_over {
        WAITING
    } else {
        row.state
    }
}

fn wrong_state(state: i64) -> Error {
    let name = STATES.iter().find(|(_, number)| *number == state);
    Error::precondition(Reason::WrongState).with("state", name.map_or("", |(name, _)| *name))
}

// ---- opening, withdrawing

/// Something for the reviewers.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// What is reviewed.
    pub kind: ReviewKind,
    /// The company that it is about; locked.
    pub account: Uuid,
    /// What is reviewed, by name: one review of a kind is open for it at a time.
    pub subject: Name,
    /// The name of the principal who submits it, who never handles it.
    pub submitter: String,
    /// What the submitter says.
    pub note: String,
    /// The reviewer who decided what is appealed against.
    pub not_by: Option<Uuid>,
    /// Another side, if there is one: an account, a tenant, or a person. Whoever is tied to it doesn't handle the review either.
    pub other: Option<Uuid>,
}

/// Puts something into the queue. What is open already waits again, with what is said of it now.
///
/// # Errors
/// Those of the database.
pub(crate) async fn open(tx: &mut Tx, new: Opened) -> Result<Model> {
    let now = tx.now();
    let operator = tx.app().operator_tenant();
    let is_operators = grants::is_associated(tx.db(), new.account, operator).await?
        || match new.other {
            Some(other) => {
                Name::parse(&new.submitter).is_some_and(|s| s.scope() == ScopeKey::Tenant(operator))
                    || grants::is_associated(tx.db(), other, operator).await?
            }
            None => false,
        };
    let approvals_needed = if is_operators { 2 } else { 1 };
    let row = match find_open(tx.db(), new.kind, new.subject).await? {
        Some(row) => {
            let version = row.version;
            let mut changed = row.into_active_model();
            changed.state = Set(WAITING);
            // Whoever had it, or approved of it, did so of something else.
            changed.claimed_by = Set(None);
            changed.claim_expire_time = Set(None);
            changed.first_approved_by = Set(None);
            changed.approvals_needed = Set(approvals_needed);
            changed.submitter = Set(new.submitter);
            changed.note = Set(new.note);
            changed.update_time = Set(now);
            changed.version = Set(version + 1);
            changed.update(tx.db()).await?
        }
        None => {
            let row = Model {
                id: tx.id(),
                kind: new.kind as i64,
                account_id: new.account,
                subject: new.subject.to_string(),
                submitter: new.submitter,
                note: new.note,
                state: WAITING,
                claimed_by: None,
                claim_expire_time: None,
                more_requested: String::new(),
                not_by: new.not_by,
                approvals_needed,
                first_approved_by: None,
                decided: false,
                decision: 0,
                reason: String::new(),
                decided_by: String::new(),
                decide_time: None,
                create_time: now,
                update_time: now,
                version: 1,
                other_id: new.other,
            };
            tx.insert(row.clone()).await?;
            row
        }
    };
    tx.emit(
        Event::new("entente.account.v1.ReviewOpened", Name::Review(row.id))
            .with("kind", new.kind as i32)
            .with("account", Name::Account(new.account).to_string())
            .with("subject", row.subject.clone()),
    );
    Ok(row)
}

/// The open review of a subject.
///
/// # Errors
/// Those of the database.
pub(crate) async fn find_open<C: ConnectionTrait>(
    db: &C,
    kind: ReviewKind,
    subject: Name,
) -> Result<Option<Model>> {
    Ok(Entity::find()
        .filter(Column::Kind.eq(kind as i64))
        .filter(Column::Subject.eq(subject.to_string()))
        .filter(Expr::cust("NOT reviews.decided"))
        .one(db)
        .await?)
}

/// The open reviews of subjects, by the subject's name.
///
/// # Errors
/// Those of the database.
pub(crate) async fn open_of<C: ConnectionTrait>(
    db: &C,
    kind: ReviewKind,
    subjects: &[String],
) -> Result<BTreeMap<String, Name>> {
    let sql = format!(
        "SELECT id, subject FROM reviews WHERE kind = $1 AND NOT decided AND subject IN ({})",
        sql::in_texts(db, 2)
    );
    let subjects = sql::texts(subjects.iter().map(String::as_str));
    let mut open = BTreeMap::new();
    for row in sql::rows_of(db, sql, [(kind as i64).into(), subjects]).await? {
        open.insert(
            row.try_get("", "subject")?,
            Name::Review(row.try_get("", "id")?),
        );
    }
    Ok(open)
}

/// Takes the open review of a subject out of the queue, whoever has claimed it: what was reviewed changed, or is gone.
///
/// # Errors
/// Those of the database.
pub(crate) async fn withdraw(tx: &mut Tx, kind: ReviewKind, subject: Name) -> Result<()> {
    match find_open(tx.db(), kind, subject).await? {
        Some(row) => end(tx, row, ReviewDecision::Withdrawn, String::new()).await,
        None => Ok(()),
    }
}

// ---- deciding

/// What a decision comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It counts.
    Final,
    /// Another reviewer must approve as well.
    NeedsAnother,
}

/// The open review of a subject, if the caller has claimed it and may decide it. For kinds that are decided by a method of their own.
///
/// # Errors
/// `WRONG_STATE` if none is open, `REVIEW_NOT_CLAIMED`, `REVIEWER_INVOLVED`, `NO_OTHER_REVIEWER`.
pub(crate) async fn decidable(tx: &mut Tx, kind: ReviewKind, subject: Name) -> Result<Model> {
    let seen = find_open(tx.db(), kind, subject).await?;
    let seen = seen.ok_or_else(|| wrong_state(DECIDED))?;
    tx.lock([ScopeKey::Account(seen.account_id)]).await?;
    // Once more, as it is now that nothing happens to it.
    let row = find_open(tx.db(), kind, subject).await?;
    let row = row.ok_or_else(|| wrong_state(DECIDED))?;
    demand_claimed(tx, &row).await?;
    Ok(row)
}

/// Refuses who hasn't claimed a review, or may not handle it any more.
pub(super) async fn demand_claimed(tx: &Tx, row: &Model) -> Result<()> {
    let me = reviewer(tx)?;
    match state_at(row, tx.now()) {
        CLAIMED if row.claimed_by == Some(me) => {
            demand_uninvolved(tx.db(), tx.app(), row, me, tx.now()).await
        }
        WAITING | CLAIMED => Err(Error::precondition(Reason::ReviewNotClaimed)),
        other => Err(wrong_state(other)),
    }
}

/// Decides a review that the caller has claimed. Of what needs two approvals the first leaves it in the queue.
///
/// # Errors
/// Those of the database.
pub(crate) async fn decide(
    tx: &mut Tx,
    row: Model,
    decision: ReviewDecision,
    reason: String,
) -> Result<Progress> {
    let me = reviewer(tx)?;
    let is_first = row.approvals_needed > 1 && row.first_approved_by.is_none();
    if decision != ReviewDecision::Approve || !is_first {
        end(tx, row, decision, reason).await?;
        return Ok(Progress::Final);
    }
    let event = decided_event(&row, decision);
    let version = row.version;
    let mut changed = row.into_active_model();
    changed.state = Set(WAITING);
    changed.claimed_by = Set(None);
    changed.claim_expire_time = Set(None);
    changed.first_approved_by = Set(Some(me));
    changed.update_time = Set(tx.now());
    changed.version = Set(version + 1);
    changed.update(tx.db()).await?;
    tx.emit(event);
    Ok(Progress::NeedsAnother)
}

fn decided_event(row: &Model, decision: ReviewDecision) -> Event {
    Event::new("entente.account.v1.ReviewDecided", Name::Review(row.id))
        .with("kind", row.kind)
        .with("account", Name::Account(row.account_id).to_string())
        .with("decision", decision as i32)
}

async fn end(tx: &mut Tx, row: Model, decision: ReviewDecision, reason: String) -> Result<()> {
    let event = decided_event(&row, decision);
    let version = row.version;
    let mut changed = row.into_active_model();
    changed.state = Set(DECIDED);
    changed.decided = Set(true);
    changed.claimed_by = Set(None);
    changed.claim_expire_time = Set(None);
    changed.decision = Set(decision as i64);
    changed.reason = Set(reason);
    if decision != ReviewDecision::Withdrawn {
        changed.decided_by = Set(tx.caller().name());
    }
    changed.decide_time = Set(Some(tx.now()));
    changed.update_time = Set(tx.now());
    changed.version = Set(version + 1);
    changed.update(tx.db()).await?;
    tx.emit(event);
    Ok(())
}

/// Asks the account for more; the review leaves the queue until it answers.
pub(super) async fn ask(tx: &mut Tx, row: Model, text: String) -> Result<Model> {
    let event = Event::new("entente.account.v1.ReviewClaimed", Name::Review(row.id));
    let before = name_of(tx, row.claimed_by);
    let version = row.version;
    let mut changed = row.into_active_model();
    changed.state = Set(MORE_REQUESTED);
    changed.claimed_by = Set(None);
    changed.claim_expire_time = Set(None);
    changed.more_requested = Set(text.clone());
    changed.update_time = Set(tx.now());
    changed.version = Set(version + 1);
    let row = changed.update(tx.db()).await?;
    let event = event.change("claimed_by", before, "");
    tx.emit(event.change("more_requested", "", text));
    Ok(row)
}

fn name_of(tx: &Tx, user: Option<Uuid>) -> String {
    user.map_or_else(String::new, |id| {
        Name::User(tx.app().operator_tenant(), id).to_string()
    })
}

// ---- who may

/// The caller, a person.
fn reviewer(tx: &Tx) -> Result<Uuid> {
    let who = tx.caller().who.map(|who| who.principal);
    who.filter(|p| p.kind == Kind::User)
        .map(|p| p.id)
        .ok_or_else(|| Error::refused(Reason::PeopleOnly))
}

/// Those who never handle a review, whatever ties them to the company: who submitted it, decided on it before, or approved of it first.
fn excluded(row: &Model) -> BTreeSet<Uuid> {
    let submitter = Name::parse(&row.submitter).map(|name| name.id());
    [submitter, row.not_by, row.first_approved_by]
        .into_iter()
        .flatten()
        .collect()
}

/// The companies that a review is about: the account, and the other side if there is one.
fn sides(row: &Model) -> impl Iterator<Item = Uuid> {
    [Some(row.account_id), row.other_id].into_iter().flatten()
}

/// Who of the reviewers is tied to the companies of some reviews.
struct Ties {
    reviewers: Vec<Uuid>,
    tied: BTreeSet<(Uuid, Uuid)>,
}

impl Ties {
    /// Of all active reviewers, and of somebody else.
    async fn of<C: ConnectionTrait>(
        db: &C,
        app: &App,
        rows: &[&Model],
        also: Option<Uuid>,
        now: Micros,
    ) -> Result<Self> {
        let mut asked = Reviewer::all(db, app, now).await?;
        let reviewers: Vec<Uuid> = asked.iter().map(|r| r.id).collect();
        if let Some(also) = also.filter(|id| !reviewers.contains(id)) {
            asked.extend(Reviewer::by_id(db, app, also, now).await?);
        }
        let accounts: BTreeSet<Uuid> = rows.iter().flat_map(|row| sides(row)).collect();
        let accounts: Vec<Uuid> = accounts.into_iter().collect();
        let tied = involvement::involved(db, &accounts, &asked, now).await?;
        Ok(Self { reviewers, tied })
    }

    /// Whether no active reviewer may handle an open review.
    fn leave_nobody(&self, row: &Model) -> bool {
        let excluded = excluded(row);
        let may = |id: &Uuid| !excluded.contains(id) && !self.ties(row, *id);
        !row.decided && !self.reviewers.iter().any(may)
    }

    /// Whether somebody is tied to a side of a review.
    fn ties(&self, row: &Model, reviewer: Uuid) -> bool {
        sides(row).any(|side| self.tied.contains(&(side, reviewer)))
    }
}

/// Those of these reviews that no active reviewer may handle.
async fn unhandled<C: ConnectionTrait>(
    db: &C,
    app: &App,
    rows: &[&Model],
    now: Micros,
) -> Result<BTreeSet<Uuid>> {
    let open: Vec<&Model> = rows.iter().copied().filter(|row| !row.decided).collect();
    if open.is_empty() {
        return Ok(BTreeSet::new());
    }
    let ties = Ties::of(db, app, &open, None, now).await?;
    let left = open.into_iter().filter(|row| ties.leave_nobody(row));
    Ok(left.map(|row| row.id).collect())
}

/// Refuses who may not handle a review.
async fn demand_uninvolved<C: ConnectionTrait>(
    db: &C,
    app: &App,
    row: &Model,
    me: Uuid,
    now: Micros,
) -> Result<()> {
    let is_out = excluded(row).contains(&me) || {
        let own = Reviewer::by_id(db, app, me, now).await?;
        let own: Vec<Reviewer> = own.into_iter().collect();
        let sides: Vec<Uuid> = sides(row).collect();
        let found = involvement::involved(db, &sides, &own, now).await?;
        !found.is_empty()
    };
    if !is_out {
        return Ok(());
    }
    let nobody = unhandled(db, app, &[row], now).await?;
    Err(Error::refused(if nobody.is_empty() {
        Reason::ReviewerInvolved
    } else {
        Reason::NoOtherReviewer
    }))
}

// ---- the reviewers' calls

fn missing(name: &str) -> Error {
    Error::not_found("entente.dev/Review", name)
}

pub(super) async fn by_name<C: ConnectionTrait>(db: &C, name: &str) -> Result<Model> {
    let id = match Name::parse(name) {
        Some(Name::Review(id)) => id,
        _ => return Err(missing(name)),
    };
    let found = Entity::find_by_id(id).one(db).await?;
    found.ok_or_else(|| missing(name))
}

/// A review with its account locked, so that nothing happens to it meanwhile.
pub(super) async fn locked(tx: &mut Tx, name: &str) -> Result<Model> {
    let account = by_name(tx.db(), name).await?.account_id;
    tx.lock([ScopeKey::Account(account)]).await?;
    by_name(tx.db(), name).await
}

/// Reviews for the wire, item for row.
pub(super) async fn shown<C: ConnectionTrait>(
    db: &C,
    app: &App,
    rows: &[Model],
    now: Micros,
) -> Result<Vec<Review>> {
    let refs: Vec<&Model> = rows.iter().collect();
    let unhandled = unhandled(db, app, &refs, now).await?;
    with_companies(db, app, rows, &unhandled, now).await
}

async fn with_companies<C: ConnectionTrait>(
    db: &C,
    app: &App,
    rows: &[Model],
    unhandled: &BTreeSet<Uuid>,
    now: Micros,
) -> Result<Vec<Review>> {
    let accounts: BTreeSet<Uuid> = rows.iter().map(|row| row.account_id).collect();
    let companies = account::Entity::find()
        .filter(account::Column::Id.is_in(accounts))
        .all(db)
        .await?;
    let companies: BTreeMap<Uuid, account::Model> =
        companies.into_iter().map(|c| (c.id, c)).collect();
    Ok(rows
        .iter()
        .map(|row| {
            let company = companies.get(&row.account_id);
            let mut review = wire::review(app, row, company, now);
            review.no_other_reviewer = unhandled.contains(&row.id);
            review
        })
        .collect())
}

/// One review for the wire.
pub(super) async fn answer(tx: &Tx, row: Model) -> Result<Review> {
    let mut all = shown(tx.db(), tx.app(), &[row], tx.now()).await?;
    all.pop()
        .ok_or_else(|| Error::internal("a review is not shown"))
}

pub(crate) fn check_list_reviews(req: &ListReviewsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists reviews.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_reviews(
    rd: &Read,
    _scope: OperatorScope,
    req: ListReviewsRequest,
) -> Result<ListReviewsResponse> {
    // With the state that each has now, so that filters go by what is shown.
    let over = Column::State
        .eq(CLAIMED)
        .and(Column::ClaimExpireTime.lte(rd.now()));
    let state = CaseStatement::new()
        .case(over, WAITING)
        .finally(Expr::col(Column::State));
    let states = Select::select()
        .column(Column::Id)
        .expr_as(state, Alias::new("state"))
        .from(Entity)
        .to_owned();
    let mut select = Entity::find().filter(Column::Decided.eq(req.decided));
    if req.kind() != ReviewKind::Unspecified {
        select = select.filter(Column::Kind.eq(req.kind() as i64));
    }
    let mut found = rd.rows_with(&req, &LISTING, select, states).await?;
    let rows: Vec<Model> = std::mem::take(&mut found.rows);
    // One look for all reviewers and the caller: it is what a page costs most.
    let (me, refs) = (reading(rd)?, rows.iter().collect::<Vec<_>>());
    let ties = Ties::of(rd.db(), rd.app(), &refs, Some(me), rd.now()).await?;
    let unhandled = rows.iter().filter(|row| ties.leave_nobody(row));
    let unhandled = unhandled.map(|row| row.id).collect();
    let mut reviews = with_companies(rd.db(), rd.app(), &rows, &unhandled, rd.now()).await?;
    for (review, row) in reviews.iter_mut().zip(&rows) {
        if ties.ties(row, me) {
            withhold(review);
        }
    }
    rd.looked(Name::Operator);
    let page = found.page(reviews);
    Ok(ListReviewsResponse {
        reviews: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Those of these accounts, or other sides, that the caller is tied to, or was lately: its own company's matters are told to nobody (VER-6).
///
/// # Errors
/// `PEOPLE_ONLY`; those of the database.
pub(crate) async fn tied_to(
    rd: &Read,
    accounts: impl Iterator<Item = Uuid>,
) -> Result<BTreeSet<Uuid>> {
    let accounts: BTreeSet<Uuid> = accounts.collect();
    let accounts: Vec<Uuid> = accounts.into_iter().collect();
    let own = Reviewer::by_id(rd.db(), rd.app(), reading(rd)?, rd.now()).await?;
    let own: Vec<Reviewer> = own.into_iter().collect();
    let found = involvement::involved(rd.db(), &accounts, &own, rd.now()).await?;
    Ok(found.into_iter().map(|(account, _)| account).collect())
}

/// Leaves out what was said in a review, and by whom.
fn withhold(review: &mut Review) {
    review.submitter.clear();
    review.note.clear();
    review.claimed_by.clear();
    review.more_requested.clear();
    review.reason.clear();
    review.decided_by.clear();
}

/// The caller, a person.
fn reading(rd: &Read) -> Result<Uuid> {
    let who = rd.caller().who.map(|who| who.principal);
    who.filter(|p| p.kind == Kind::User)
        .map(|p| p.id)
        .ok_or_else(|| Error::refused(Reason::PeopleOnly))
}

/// Refuses whoever may not see what a review is about.
///
/// # Errors
/// `REVIEWER_INVOLVED`, `NO_OTHER_REVIEWER`, `PEOPLE_ONLY`; `PERMISSION_DENIED` if there is no such review.
pub(super) async fn demand_sight(rd: &Read, id: Uuid) -> Result<()> {
    let row = Entity::find_by_id(id).one(rd.db()).await?;
    let row = row.ok_or_else(|| Error::denied(Permission::ReviewsHandle))?;
    demand_uninvolved(rd.db(), rd.app(), &row, reading(rd)?, rd.now()).await
}

/// Gives a review, with what the company tells of itself.
///
/// # Errors
/// `NOT_FOUND`, `REVIEWER_INVOLVED`, `NO_OTHER_REVIEWER`, `PEOPLE_ONLY`.
pub async fn get_review(rd: &Read, _scope: OperatorScope, req: GetReviewRequest) -> Result<Review> {
    let me = reading(rd)?;
    let row = by_name(rd.db(), &req.name).await?;
    if row.decided {
        // Whoever decided it may read it on; whoever is tied to the company, never.
        if !tied_to(rd, sides(&row)).await?.is_empty() {
            return Err(Error::refused(Reason::ReviewerInvolved));
        }
    } else {
        demand_uninvolved(rd.db(), rd.app(), &row, me, rd.now()).await?;
    }
    rd.looked(Name::Review(row.id));
    let company = account::Entity::find_by_id(row.account_id)
        .one(rd.db())
        .await?;
    let mut all = shown(rd.db(), rd.app(), std::slice::from_ref(&row), rd.now()).await?;
    let mut review = all.pop().ok_or_else(|| missing(&req.name))?;
    review.company = company.map(|c| wire::reviewed_company(&c));
    let evidence = match (
        row.kind == ReviewKind::NameClaim as i64,
        Name::parse(&row.subject),
    ) {
        (true, Some(Name::NameClaim(claim))) => (SubjectKind::NameClaim, claim),
        _ => (SubjectKind::Review, row.id),
    };
    let documents = document::of_subject(rd.db(), evidence.0, evidence.1).await?;
    review.documents = documents.iter().map(document::Model::receipt).collect();
    Ok(review)
}

/// Takes a review.
///
/// # Errors
/// `NOT_FOUND`, `REVIEW_CLAIMED`, `REVIEWER_INVOLVED`, `NO_OTHER_REVIEWER`, `WRONG_STATE`, `ETAG_MISMATCH`, `PEOPLE_ONLY`.
pub async fn claim_review(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: ClaimReviewRequest,
) -> Result<Review> {
    let ClaimReviewRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let me = reviewer(tx)?;
    let row = locked(tx, &name).await?;
    update::check_etag(&etag, row.version)?;
    let state = state_at(&row, tx.now());
    if state != WAITING && state != CLAIMED {
        return Err(wrong_state(state));
    }
    demand_uninvolved(tx.db(), tx.app(), &row, me, tx.now()).await?;
    if state == CLAIMED && row.claimed_by != Some(me) {
        let until = rfc3339(row.claim_expire_time.unwrap_or_default());
        return Err(Error::precondition(Reason::ReviewClaimed).with("until", until));
    }
    let row = hold(tx, row, Some(me)).await?;
    answer(tx, row).await
}

/// Gives a review back.
///
/// # Errors
/// `NOT_FOUND`, `REVIEW_NOT_CLAIMED`, `WRONG_STATE`, `ETAG_MISMATCH`, `PEOPLE_ONLY`.
pub async fn release_review(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: ReleaseReviewRequest,
) -> Result<Review> {
    let ReleaseReviewRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let me = reviewer(tx)?;
    let row = locked(tx, &name).await?;
    update::check_etag(&etag, row.version)?;
    match state_at(&row, tx.now()) {
        CLAIMED if row.claimed_by == Some(me) => {}
        WAITING | CLAIMED => return Err(Error::precondition(Reason::ReviewNotClaimed)),
        other => return Err(wrong_state(other)),
    }
    let row = hold(tx, row, None).await?;
    answer(tx, row).await
}

/// Gives a review to somebody, or back to the queue.
async fn hold(tx: &mut Tx, row: Model, by: Option<Uuid>) -> Result<Model> {
    let event = Event::new("entente.account.v1.ReviewClaimed", Name::Review(row.id));
    let (before, version) = (row.claimed_by, row.version);
    let mut changed = row.into_active_model();
    changed.state = Set(if by.is_some() { CLAIMED } else { WAITING });
    changed.claimed_by = Set(by);
    changed.claim_expire_time = Set(by.map(|_| tx.now() + CLAIM_US));
    changed.update_time = Set(tx.now());
    changed.version = Set(version + 1);
    let row: Model = changed.update(tx.db()).await?;
    let event = event.change("claimed_by", name_of(tx, before), name_of(tx, by));
    tx.emit(event);
    Ok(row)
}
