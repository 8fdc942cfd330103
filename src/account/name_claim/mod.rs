//! NameClaimService: claims on publisher names that another account has (ACC-12).
//!
//! States: awaiting answer → in review → granted or refused; granted → kept, once the holder has another name → taken by the claimant, or
//! lapsed. The answer, or 14 days without one, brings a claim to the reviewers; a holder who gives the name up grants it itself. A claim ends
//! with its claimant: a user or identity that is deleted, or the account that it is for.
//!
//! Invariants. One claim at most is on its way (awaiting answer, in review, granted) for what an account has. From the moment the holder has
//! another name, or none, its keys are the claim's, so nobody but the claimant takes the name, or one that looks like it; also those of closed
//! accounts, whose names are never given again otherwise. Who has lost and doesn't rename within 30 days is suspended; renaming ends that.
//! Neither side learns who the other one is: what it says and what became of the claim is all, so events of the one's calls are told to the
//! other by nobody, and its mails name no one.
//!
//! `course.rs` has what states follow on each other, and what time does; `look.rs` who is shown what.

mod course;
mod look;

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Value};
use uuid::Uuid;

pub(crate) use self::course::{ASIDE, end_of_gone, go_on};
pub(super) use self::{
    course::{holder_ended, may_take, renaming, taken},
    look::{demand_sight, is_callers},
};
pub(crate) use look::check_list_name_claims;
pub use look::{get_name_claim, list_name_claims};

use self::{
    course::{By, change, granted, to_review},
    look::{Side, shown},
};
use super::{
    closing,
    document::{self, Subject, SubjectKind},
    enrolment,
    entity::{
        account,
        name_claim::{Column, Entity, Model},
    },
    publisher_name,
    review::{self, Progress},
};
use crate::{
    access::{
        account_state,
        principal::{Kind, Principal},
        roles::Permission,
        scope::{AccountScope, CallerScope, OperatorScope},
    },
    app::Tx,
    check::Violations,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::account::{
        Account, AccountState, AnswerNameClaimRequest, CreateNameClaimRequest,
        DecideNameClaimRequest, NameClaim, NameClaimAnswer as Answer,
        NameClaimDecision as Decision, NameClaimState as State, ReviewDecision, ReviewKind,
    },
    store::{outbox::Event, scope_key::ScopeKey, sql, time::rfc3339, update},
};

/// The holder answers within so long.
const ANSWER_US: Micros = 14 * DAY_US;
/// After a refusal the same side claims the name again so much later.
const REFUSED_US: Micros = 90 * DAY_US;
/// Claims of one claimant that are under way.
const MOST_OF_A_CLAIMANT: i64 = 3;
/// Those of the people of one tenant.
const MOST_OF_A_TENANT: i64 = 20;

const STATES: &[(&str, i64)] = &[
    ("AWAITING_ANSWER", State::AwaitingAnswer as i64),
    ("IN_REVIEW", State::InReview as i64),
    ("GRANTED", State::Granted as i64),
    ("KEPT", State::Kept as i64),
    ("TAKEN", State::Taken as i64),
    ("REFUSED", State::Refused as i64),
    ("LAPSED", State::Lapsed as i64),
    ("ENDED", State::Ended as i64),
];

impl Model {
    fn name(&self) -> Name {
        Name::NameClaim(self.id)
    }

    fn claimant(&self) -> Principal {
        Principal {
            kind: Kind::from_number(self.claimant_kind).unwrap_or(Kind::User),
            id: self.claimant_id,
            tenant: self.claimant_tenant_id,
        }
    }

    /// Where the claimant hears of it: at the account that it is for, else at home.
    fn claimants_scope(&self) -> ScopeKey {
        match self.account_id {
            Some(account) => ScopeKey::Account(account),
            None => self.claimant().home(),
        }
    }

    fn is_in(&self, state: State) -> bool {
        self.state == state as i64
    }

    /// The company of the claimant: the account, else its tenant, else the person. The operator's own people have no company here.
    fn claimants_side(&self, operator: Uuid) -> Uuid {
        match self.account_id {
            Some(account) => account,
            None if self.claimant_tenant_id.is_nil() || self.claimant_tenant_id == operator => {
                self.claimant_id
            }
            None => self.claimant_tenant_id,
        }
    }
}

async fn find<C: ConnectionTrait>(db: &C, name: &str) -> Result<Option<Model>> {
    let Some(Name::NameClaim(id)) = Name::parse(name) else {
        return Ok(None);
    };
    Ok(Entity::find_by_id(id).one(db).await?)
}

fn missing(name: &str) -> Error {
    Error::not_found("entente.dev/NameClaim", name)
}

fn wrong_state(row: &Model) -> Error {
    let name = STATES.iter().find(|(_, state)| *state == row.state);
    Error::precondition(Reason::WrongState).with("state", name.map_or("UNKNOWN", |(name, _)| *name))
}

/// The claim on what an account has that is on its way.
///
/// # Errors
/// Those of the database.
pub(super) async fn on_its_way<C: ConnectionTrait>(db: &C, holder: Uuid) -> Result<Option<Model>> {
    Ok(Entity::find()
        .filter(Column::HolderId.eq(holder))
        .filter(Column::State.lte(State::Granted as i64))
        .one(db)
        .await?)
}

async fn account<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Option<account::Model>> {
    Ok(account::Entity::find_by_id(id).one(db).await?)
}

/// An account that is over: it answers nothing, and can't be renamed.
fn is_over(row: &account::Model) -> bool {
    [AccountState::Closed, AccountState::Rejected]
        .iter()
        .any(|state| *state as i64 == row.state)
}

// ---- filing

/// Files a claim.
///
/// # Errors
/// `PUBLISHER_NAME_FREE`, `PUBLISHER_NAME_RESERVED`, `NAME_CLAIM_OPEN`, `NAME_CLAIM_REFUSED`, `TOO_MANY_NAME_CLAIMS`; `INVALID_ARGUMENT` for the
/// account's own name, and documents that aren't theirs; `PERMISSION_DENIED` for an account that the caller may not change; those of the account.
pub async fn create_name_claim(
    tx: &mut Tx,
    scope: CallerScope,
    req: CreateNameClaimRequest,
) -> Result<NameClaim> {
    let new = req
        .name_claim
        .ok_or_else(|| Error::field("name_claim", "is required"))?;
    let who = scope.principal();
    let account_id = match Name::parse(&new.account) {
        Some(Name::Account(id)) => {
            tx.demand(Permission::AccountUpdate, Name::Account(id))
                .await?;
            tx.demand_of_account(id).await?;
            Some(id)
        }
        _ => None,
    };
    let holder = holder(tx, &new.publisher_display_name, account_id).await?;
    let now = tx.now();
    let row = Model {
        id: tx.id(),
        display_name: new.publisher_display_name,
        statement: new.statement,
        account_id,
        claimant_kind: who.kind as i16,
        claimant_id: who.id,
        claimant_tenant_id: who.tenant,
        holder_id: holder.id,
        state: State::AwaitingAnswer as i64,
        answer: Answer::Unspecified as i64,
        answer_text: String::new(),
        answer_time: None,
        reason: String::new(),
        decide_time: None,
        answer_until: now + ANSWER_US,
        rename_until: None,
        keep_until: None,
        suspended: false,
        due_time: Some(now + ANSWER_US),
        create_time: now,
        update_time: now,
        version: 1,
    };
    if on_its_way(tx.db(), holder.id).await?.is_some() {
        return Err(open_already());
    }
    within_bounds(tx, &row).await?;
    tx.insert(row.clone()).await?;
    let subject = Subject {
        kind: SubjectKind::NameClaim,
        id: row.id,
        account: account_id,
    };
    document::attach(tx, subject, &new.documents, "name_claim.documents").await?;
    let null = || serde_json::Value::Null;
    tx.emit(
        Event::new("entente.account.v1.NameClaimFiled", row.name())
            .told_in(row.claimants_scope())
            .change("publisher_display_name", null(), row.display_name.clone())
            .change("state", null(), row.state),
    );
    let row = if is_over(&holder) {
        // Nobody is left who could answer.
        to_review(tx, &row, By::Claimant).await?
    } else {
        tell_holder(tx, &row, &holder).await?;
        row
    };
    one(tx, &row, Side::Claimant).await
}

fn open_already() -> Error {
    Error::exists(
        Reason::NameClaimOpen,
        "name_claim.publisher_display_name",
        "is claimed already",
    )
}

/// The account that has a name, locked.
async fn holder(tx: &mut Tx, name: &str, own: Option<Uuid>) -> Result<account::Model> {
    let keys = publisher_name::keys(name);
    let of = |found: &[publisher_name::Holder]| {
        let others = found.iter().filter_map(|h| h.account_id);
        others.filter(|id| Some(*id) != own).min()
    };
    let found = publisher_name::holders(tx.db(), &keys).await?;
    if publisher_name::reserved(tx, name).await? {
        return Err(Error::precondition(Reason::PublisherNameReserved));
    }
    let Some(holder) = of(&found) else {
        return Err(if found.iter().any(|h| h.account_id.is_some()) {
            let field = "name_claim.publisher_display_name";
            Error::field(field, "is the account's own")
        } else if !found.is_empty() {
            open_already()
        } else {
            Error::precondition(Reason::PublisherNameFree)
        });
    };
    tx.lock([ScopeKey::Account(holder)]).await?;
    let still = of(&publisher_name::holders(tx.db(), &keys).await?) == Some(holder);
    let row = account(tx.db(), holder).await?;
    row.filter(|_| still)
        .ok_or_else(|| Error::contended("a name that is claimed went to another account"))
}

/// Refuses what would be too many claims, and one that was refused to the same side lately. The claimant's home is locked.
async fn within_bounds(tx: &Tx, row: &Model) -> Result<()> {
    for (column, id, most) in [
        ("claimant_id", row.claimant_id, MOST_OF_A_CLAIMANT),
        (
            "claimant_tenant_id",
            row.claimant_tenant_id,
            MOST_OF_A_TENANT,
        ),
        (
            "account_id",
            row.account_id.unwrap_or_default(),
            MOST_OF_A_CLAIMANT,
        ),
    ] {
        if id.is_nil() {
            continue;
        }
        let sql =
            format!("SELECT COUNT(*) AS n FROM name_claims WHERE {column} = $1 AND state <= $2");
        let values: [Value; 2] = [id.into(), (State::InReview as i64).into()];
        let n: i64 = match sql::row(tx.db(), &sql, values).await? {
            Some(found) => found.try_get("", "n")?,
            None => 0,
        };
        if n >= most {
            return Err(
                Error::exhausted(Reason::TooManyNameClaims, None).with("most", most.to_string())
            );
        }
    }
    let sql = "SELECT MAX(decide_time) AS decided FROM name_claims WHERE holder_id = $1 AND state = $2 \
               AND (claimant_id = $3 OR (claimant_tenant_id = $4 AND claimant_tenant_id <> $5) OR account_id = $6)";
    let values: [Value; 6] = [
        row.holder_id.into(),
        (State::Refused as i64).into(),
        row.claimant_id.into(),
        row.claimant_tenant_id.into(),
        Uuid::nil().into(),
        row.account_id.unwrap_or_default().into(),
    ];
    let decided: Option<i64> = match sql::row(tx.db(), sql, values).await? {
        Some(found) => found.try_get("", "decided")?,
        None => None,
    };
    match decided.map(|at| at + REFUSED_US) {
        Some(from) if tx.now() < from => {
            Err(Error::precondition(Reason::NameClaimRefused).with("from", rfc3339(from)))
        }
        _ => Ok(()),
    }
}

async fn tell_holder(tx: &mut Tx, row: &Model, holder: &account::Model) -> Result<()> {
    let values = [
        ("publisher", holder.publisher_display_name.clone()),
        ("account", Name::Account(holder.id).to_string()),
        ("claimed", row.display_name.clone()),
        ("statement", row.statement.clone()),
        ("claim", row.name().to_string()),
        ("until", rfc3339(row.answer_until)),
    ];
    for to in closing::people(tx, holder).await? {
        let about = Name::Account(holder.id);
        mail::queue(tx, Template::NameClaimFiled, &to, about, &values).await?;
    }
    Ok(())
}

async fn one(tx: &Tx, row: &Model, side: Side) -> Result<NameClaim> {
    let mut all = shown(tx.db(), std::slice::from_ref(row), |_| side).await?;
    all.pop()
        .ok_or_else(|| Error::internal("a claim on a name is not shown"))
}

// ---- answering

pub(crate) fn check_answer_name_claim(req: &AnswerNameClaimRequest, v: &mut Violations) {
    if req.answer() == Answer::Contest && req.text.trim().is_empty() {
        v.also("text", "is needed to contest");
    }
    if req.answer() == Answer::Contest && !req.new_publisher_display_name.is_empty() {
        v.also("new_publisher_display_name", "goes with GIVE_UP only");
    }
    let next = &req.new_publisher_display_name;
    if !next.is_empty() && publisher_name::misleads(next) {
        v.also("new_publisher_display_name", publisher_name::MISLEADS);
    }
    if req.answer() == Answer::GiveUp && !req.documents.is_empty() {
        v.also("documents", "go with CONTEST only");
    }
}

/// Answers a claim.
///
/// # Errors
/// `NOT_FOUND` for a claim on another account's name, `WRONG_STATE`, `ETAG_MISMATCH`, `PUBLISHER_NAME_TAKEN`, `PUBLISHER_NAME_RESERVED`;
/// `INVALID_ARGUMENT` for a new name that is the one claimed, and documents that aren't the account's.
pub async fn answer_name_claim(
    tx: &mut Tx,
    scope: AccountScope,
    req: AnswerNameClaimRequest,
) -> Result<NameClaim> {
    let row = find(tx.db(), &req.name).await?;
    let row = row.filter(|row| row.holder_id == scope.id());
    let row = row.ok_or_else(|| missing(&req.name))?;
    update::check_etag(&req.etag, row.version)?;
    let row = match req.answer() {
        Answer::Contest => contest(tx, &row, &req).await?,
        Answer::GiveUp | Answer::Unspecified => {
            give_up(tx, &row, req.text, &req.new_publisher_display_name).await?
        }
    };
    one(tx, &row, Side::Holder).await
}

async fn contest(tx: &mut Tx, row: &Model, req: &AnswerNameClaimRequest) -> Result<Model> {
    if !row.is_in(State::AwaitingAnswer) || row.answer_until <= tx.now() {
        return Err(wrong_state(row));
    }
    let subject = Subject {
        kind: SubjectKind::NameClaim,
        id: row.id,
        account: Some(row.holder_id),
    };
    document::attach(tx, subject, &req.documents, "documents").await?;
    let answered = Model {
        answer: Answer::Contest as i64,
        answer_text: req.text.clone(),
        answer_time: Some(tx.now()),
        ..row.clone()
    };
    to_review(tx, &answered, By::Holder).await
}

/// The holder gives the name up, or, having lost it, takes another one.
async fn give_up(tx: &mut Tx, row: &Model, text: String, next: &str) -> Result<Model> {
    let is_open = row.is_in(State::AwaitingAnswer) || row.is_in(State::InReview);
    if !is_open && (!row.is_in(State::Granted) || next.is_empty()) {
        return Err(wrong_state(row));
    }
    let holder = account(tx.db(), row.holder_id).await?;
    let holder = holder.ok_or_else(|| Error::internal("the holder of a name is gone"))?;
    // One that is suspended for something else gives the name up, and takes no other one.
    let is_stopped = holder.state == AccountState::Suspended as i64
        && !(row.suspended && holder.suspension_reason == course::overdue(row));
    if !next.is_empty() && (is_over(&holder) || is_stopped) {
        return Err(account_state::wrong_state(holder.state));
    }
    let mut row = row.clone();
    if is_open {
        review::withdraw(tx, ReviewKind::NameClaim, row.name()).await?;
        row.answer = Answer::GiveUp as i64;
        row.answer_text = text;
        row.answer_time = Some(tx.now());
        row = if next.is_empty() {
            granted(tx, row, &holder, By::Holder).await?
        } else {
            // It renames right now.
            change(tx, &row, State::Granted, By::Holder, |_| {}).await?
        };
    }
    if next.is_empty() {
        return Ok(row);
    }
    if !publisher_name::keys(next).is_disjoint(&publisher_name::keys(&row.display_name)) {
        let field = "new_publisher_display_name";
        return Err(Error::field(
            field,
            "is the name that was given up, or looks like it",
        ));
    }
    let new = Account {
        publisher_display_name: next.to_owned(),
        ..Account::default()
    };
    // What that name is has to be told of the account; the claim is told of on the way.
    let renamed = enrolment::change(tx, &holder, &new, &["publisher_display_name"]).await?;
    course::let_go_on(tx, &row, renamed).await?;
    let name = row.name().to_string();
    find(tx.db(), &name).await?.ok_or_else(|| missing(&name))
}

// ---- deciding

/// Decides a claim.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`; those of the queue: `REVIEW_NOT_CLAIMED`, `REVIEWER_INVOLVED`, `NO_OTHER_REVIEWER`, `PEOPLE_ONLY`.
pub async fn decide_name_claim(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: DecideNameClaimRequest,
) -> Result<NameClaim> {
    let seen = find(tx.db(), &req.name).await?;
    let seen = seen.ok_or_else(|| missing(&req.name))?;
    tx.lock([ScopeKey::Account(seen.holder_id)]).await?;
    // As it is now that nothing happens to it.
    let row = find(tx.db(), &req.name).await?;
    let row = row.ok_or_else(|| missing(&req.name))?;
    if !row.is_in(State::InReview) {
        return Err(wrong_state(&row));
    }
    let claimed = review::decidable(tx, ReviewKind::NameClaim, row.name()).await?;
    update::check_etag(&req.etag, row.version)?;
    let reason = req.reason.clone();
    let decided = Model {
        reason: req.reason.clone(),
        decide_time: Some(tx.now()),
        ..row.clone()
    };
    let row = if req.decision() == Decision::Grant {
        match review::decide(tx, claimed, ReviewDecision::Approve, reason).await? {
            Progress::NeedsAnother => row,
            Progress::Final => {
                let holder = account(tx.db(), row.holder_id).await?;
                let holder = holder.ok_or_else(|| Error::internal("a holder is gone"))?;
                granted(tx, decided, &holder, By::Service).await?
            }
        }
    } else {
        review::decide(tx, claimed, ReviewDecision::Reject, reason).await?;
        let row = change(tx, &row, State::Refused, By::Service, |new| {
            new.reason = decided.reason;
            new.decide_time = decided.decide_time;
            new.due_time = None;
        })
        .await?;
        course::tell_both(tx, &row, Template::NameClaimRefused).await?;
        row
    };
    one(tx, &row, Side::Reviewer).await
}
