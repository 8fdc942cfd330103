//! BenefitService, what packages and levels hold (BEN-3): activated, assigned, given back, and never used beyond its count.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, Set, Value,
};
use uuid::Uuid;

use super::{level_of, package::Content, purchase, wire};
use crate::{
    access::{grants, scope::AccountScope},
    account::entity::{
        benefit::{Column, Entity, Model},
        benefit_assignment as assignment, package,
    },
    app::{Read, Tx},
    check::Violations,
    env::Micros,
    error::{Error, Reason, Result},
    names::Name,
    policy,
    proto::{
        account::{
            ActivateBenefitRequest, AssignBenefitRequest, AssignBenefitResponse, Benefit,
            BenefitAssignment, BenefitKind, Level, ListBenefitsRequest, ListBenefitsResponse,
            PackageState, ReleaseBenefitRequest, ReleaseBenefitResponse,
        },
        operator::PolicyKey,
    },
    schedule::CHUNK,
    store::{
        filter::{Field, Kind, OrderField},
        list::{Listing, fold},
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::json,
        update,
    },
};

/// What the benefit of a level is called.
const OF_LEVEL: &str = "Support cases of the level";

const KINDS: &[(&str, i64)] = &[
    ("SEATS", BenefitKind::Seats as i64),
    ("KEYS", BenefitKind::Keys as i64),
    ("CASES", BenefitKind::Cases as i64),
];

const LISTING: Listing = Listing {
    fields: &[
        Field::new("kind", ("benefits", "kind"), Kind::Enum(KINDS)),
        Field::new(
            "package",
            ("benefits", "package_id"),
            Kind::Id { parse: package_id },
        ),
        Field::new("create_time", ("benefits", "create_time"), Kind::TIME),
    ],
    orders: &[
        OrderField::new("create_time", ("benefits", "create_time")),
        OrderField::new("display_name", ("benefits", "display_name_fold")),
    ],
    id: ("benefits", "id"),
};

fn package_id(name: &str) -> Option<Uuid> {
    match Name::parse(name) {
        Some(Name::Package(_, id)) => Some(id),
        _ => None,
    }
}

/// What a benefit is given by, now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    /// How many there are.
    pub total: i64,
    /// Whether its package is in its term, or the level gives any.
    pub is_given: bool,
    /// Until when.
    pub expire_time: Option<Micros>,
}

// ---- what there is

/// The benefit of the account's level is there from its first competency on.
pub(super) async fn ensure_of_level(tx: &mut Tx, account: Uuid) -> Result<()> {
    let there = Entity::find()
        .filter(Column::AccountId.eq(account))
        .filter(Column::PackageId.is_null())
        .one(tx.db())
        .await?;
    if there.is_some() {
        return Ok(());
    }
    let content = Content {
        kind: BenefitKind::Cases as i32,
        display_name: OF_LEVEL.to_owned(),
        count: 0,
    };
    insert(tx, account, None, &content).await
}

async fn insert(
    tx: &mut Tx,
    account: Uuid,
    package: Option<Uuid>,
    content: &Content,
) -> Result<()> {
    let row = Model {
        id: tx.id(),
        account_id: account,
        package_id: package,
        kind: i64::from(content.kind),
        display_name: content.display_name.clone(),
        display_name_fold: fold(&content.display_name),
        total: content.count,
        used: 0,
        activate_time: None,
        create_time: tx.now(),
        version: 1,
    };
    tx.insert(row).await?;
    Ok(())
}

/// A term of a package was confirmed: its contents are there. Of a further term, keys and cases add to what is left; seats are as many as
/// the new term has.
pub(super) async fn add(tx: &mut Tx, of: &package::Model, contents: &[Content]) -> Result<()> {
    let there = Entity::find()
        .filter(Column::AccountId.eq(of.account_id))
        .filter(Column::PackageId.eq(of.id))
        .all(tx.db())
        .await?;
    for content in contents {
        let same = there.iter().find(|row| {
            row.kind == i64::from(content.kind) && row.display_name == content.display_name
        });
        let Some(row) = same else {
            insert(tx, of.account_id, Some(of.id), content).await?;
            continue;
        };
        let total = if row.kind == BenefitKind::Seats as i64 {
            content.count
        } else {
            row.total + content.count
        };
        let mut changed = row.clone().into_active_model();
        changed.total = Set(total);
        changed.version = Set(row.version + 1);
        changed.update(tx.db()).await?;
        fit(tx, row.id, total).await?;
    }
    // Seats that the new term doesn't have ended with the old one.
    let has = |row: &&Model| {
        contents
            .iter()
            .any(|c| i64::from(c.kind) == row.kind && c.display_name == row.display_name)
    };
    let seats = there
        .iter()
        .filter(|row| row.kind == BenefitKind::Seats as i64 && row.total != 0);
    for row in seats.filter(|row| !has(row)) {
        let mut changed = row.clone().into_active_model();
        changed.total = Set(0);
        changed.version = Set(row.version + 1);
        changed.update(tx.db()).await?;
        fit(tx, row.id, 0).await?;
    }
    Ok(())
}

/// Takes the latest assignments back until no more is used than there is.
async fn fit(tx: &mut Tx, id: Uuid, total: i64) -> Result<()> {
    loop {
        let row = Entity::find_by_id(id).one(tx.db()).await?;
        if row.is_none_or(|row| row.used <= total) {
            return Ok(());
        }
        let last = assignment::Entity::find()
            .filter(assignment::Column::BenefitId.eq(id))
            .order_by_desc(assignment::Column::CreateTime)
            .order_by_desc(assignment::Column::Id)
            .one(tx.db())
            .await?;
        let Some(last) = last else { return Ok(()) };
        give_back(tx, &last).await?;
    }
}

/// How many cases a level gives now.
async fn of_level<C: ConnectionTrait>(db: &C, account: Uuid, now: Micros) -> Result<i64> {
    match level_of(db, account, now).await? {
        Level::Gold => policy::number(db, PolicyKey::GoldCases, now).await,
        Level::Silver => policy::number(db, PolicyKey::SilverCases, now).await,
        Level::Member | Level::Unspecified => Ok(0),
    }
}

/// What gives a benefit now.
async fn given<C: ConnectionTrait>(db: &C, row: &Model, now: Micros) -> Result<Given> {
    let Some(id) = row.package_id else {
        let total = of_level(db, row.account_id, now).await?;
        return Ok(Given {
            total,
            is_given: total > 0,
            expire_time: None,
        });
    };
    let package = package::Entity::find_by_id(id).one(db).await?;
    Ok(given_by(row, package.as_ref(), now))
}

fn given_by(row: &Model, package: Option<&package::Model>, now: Micros) -> Given {
    Given {
        total: row.total,
        is_given: package.is_some_and(|p| purchase::state_of(p, now) == PackageState::Active),
        expire_time: package.and_then(|p| p.expire_time),
    }
}

pub(crate) fn check_list_benefits(req: &ListBenefitsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists what level and packages hold.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_benefits(
    rd: &Read,
    scope: AccountScope,
    req: ListBenefitsRequest,
) -> Result<ListBenefitsResponse> {
    let (db, now) = (rd.db(), rd.now());
    let select = Entity::find().filter(Column::AccountId.eq(scope.id()));
    let found = rd.rows::<_, Model>(&req, &LISTING, select).await?;
    let cases = of_level(db, scope.id(), now).await?;
    let ids: Vec<Uuid> = found.rows.iter().filter_map(|row| row.package_id).collect();
    let sql = format!(
        "SELECT * FROM packages WHERE id IN ({})",
        sql::in_ids(db, 1)
    );
    let packages = sql::all::<package::Model, _>(db, sql, [sql::ids(&ids)]).await?;
    let packages: BTreeMap<Uuid, package::Model> =
        packages.into_iter().map(|p| (p.id, p)).collect();
    let shown = found.rows.iter().map(|row| {
        let given = match row.package_id {
            Some(id) => given_by(row, packages.get(&id), now),
            None => Given {
                total: cases,
                is_given: cases > 0,
                expire_time: None,
            },
        };
        wire::benefit(row, given)
    });
    let shown: Vec<Benefit> = shown.collect();
    let page = found.page(shown);
    Ok(ListBenefitsResponse {
        benefits: page.items,
        next_page_token: page.next_page_token,
    })
}

// ---- using it

pub(super) async fn find<C: ConnectionTrait>(
    db: &C,
    scope: AccountScope,
    id: Uuid,
    name: &str,
) -> Result<Model> {
    Entity::find_by_id(id)
        .filter(Column::AccountId.eq(scope.id()))
        .one(db)
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Benefit", name))
}

/// Activates a benefit; one that is already stays so.
///
/// # Errors
/// `NOT_FOUND`, `BENEFIT_NOT_ACTIVE` if its package isn't in its term or the level gives none, `ETAG_MISMATCH`.
pub async fn activate_benefit(
    tx: &mut Tx,
    scope: AccountScope,
    req: ActivateBenefitRequest,
) -> Result<Benefit> {
    let id = Name::parse(&req.name).map(|n| n.id()).unwrap_or_default();
    let mut row = find(tx.db(), scope, id, &req.name).await?;
    update::check_etag(&req.etag, row.version)?;
    let given = given(tx.db(), &row, tx.now()).await?;
    if !given.is_given {
        return Err(Error::precondition(Reason::BenefitNotActive));
    }
    tx.touch(ScopeKey::Account(scope.id()));
    if row.activate_time.is_none() {
        let version = row.version + 1;
        let mut changed = row.into_active_model();
        changed.activate_time = Set(Some(tx.now()));
        changed.version = Set(version);
        row = changed.update(tx.db()).await?;
        tx.emit(
            Event::new(
                "entente.account.v1.BenefitActivated",
                Name::Benefit(scope.id(), id),
            )
            .change(
                "activate_time",
                serde_json::Value::Null,
                json(row.activate_time),
            ),
        );
    }
    Ok(wire::benefit(&row, given))
}

/// Uses some of a benefit.
///
/// # Errors
/// `NOT_FOUND`, `BENEFIT_NOT_ACTIVE`, `BENEFIT_EXHAUSTED` with how many are left, `ETAG_MISMATCH`; `INVALID_ARGUMENT` for an assignee who is
/// no member.
pub async fn assign_benefit(
    tx: &mut Tx,
    scope: AccountScope,
    req: AssignBenefitRequest,
) -> Result<AssignBenefitResponse> {
    let id = Name::parse(&req.name).map(|n| n.id()).unwrap_or_default();
    let row = find(tx.db(), scope, id, &req.name).await?;
    update::check_etag(&req.etag, row.version)?;
    let assignee = assignee(tx, scope, &row, &req.assignee).await?;
    let given = given(tx.db(), &row, tx.now()).await?;
    if !given.is_given || row.activate_time.is_none() {
        return Err(Error::precondition(Reason::BenefitNotActive));
    }
    count(tx, &row, req.count, given.total).await?;
    let made = assignment::Model {
        id: tx.id(),
        account_id: scope.id(),
        benefit_id: id,
        member_id: assignee,
        count: req.count,
        create_time: tx.now(),
    };
    tx.insert(made.clone()).await?;
    let row = find(tx.db(), scope, id, &req.name).await?;
    let shown = wire::assignment(&made);
    tx.emit(
        Event::new(
            "entente.account.v1.BenefitAssigned",
            Name::BenefitAssignment(scope.id(), id, made.id),
        )
        .with("assignee", shown.assignee.clone())
        .with("count", made.count.to_string()),
    );
    Ok(AssignBenefitResponse {
        assignment: Some(shown),
        benefit: Some(wire::benefit(&row, given)),
    })
}

/// The member that a benefit is for.
async fn assignee(tx: &Tx, scope: AccountScope, row: &Model, name: &str) -> Result<Option<Uuid>> {
    let is_needed = row.kind != BenefitKind::Cases as i64;
    match Name::parse(name) {
        None if name.is_empty() && is_needed => Err(Error::field("assignee", "is required")),
        None if name.is_empty() => Ok(None),
        Some(Name::Member(account, id)) if account == scope.id() => {
            let held = grants::find(tx.db(), ScopeKey::Account(account), id).await?;
            held.map(|_| Some(id))
                .ok_or_else(|| Error::field("assignee", "is no member of this account"))
        }
        _ => Err(Error::field("assignee", "is no member of this account")),
    }
}

/// Counts what is used, if there is so much: one statement, whatever else runs.
async fn count(tx: &Tx, row: &Model, more: i64, total: i64) -> Result<()> {
    let sql = "UPDATE benefits SET used = used + $2, version = version + 1 WHERE id = $1 AND used + $2 <= $3";
    let values: [Value; 3] = [row.id.into(), more.into(), total.into()];
    if sql::execute(tx.db(), sql, values).await?.rows_affected() == 1 {
        return Ok(());
    }
    let left = (total - row.used).max(0);
    Err(Error::precondition(Reason::BenefitExhausted).with("left", left.to_string()))
}

/// Gives back what was assigned.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE` for cases, `ETAG_MISMATCH`.
pub async fn release_benefit(
    tx: &mut Tx,
    scope: AccountScope,
    req: ReleaseBenefitRequest,
) -> Result<ReleaseBenefitResponse> {
    let missing = || Error::not_found("entente.dev/BenefitAssignment", req.name.as_str());
    let Some(Name::BenefitAssignment(_, benefit, id)) = Name::parse(&req.name) else {
        return Err(missing());
    };
    let gone = assignment::Entity::find_by_id(id)
        .filter(assignment::Column::AccountId.eq(scope.id()))
        .filter(assignment::Column::BenefitId.eq(benefit))
        .one(tx.db())
        .await?
        .ok_or_else(missing)?;
    let row = find(tx.db(), scope, benefit, &req.name).await?;
    update::check_etag(&req.etag, row.version)?;
    if row.kind == BenefitKind::Cases as i64 {
        return Err(Error::precondition(Reason::WrongState).with("state", "USED"));
    }
    let shown = give_back(tx, &gone).await?;
    let row = find(tx.db(), scope, benefit, &req.name).await?;
    let given = given(tx.db(), &row, tx.now()).await?;
    Ok(ReleaseBenefitResponse {
        resources: vec![shown],
        benefit: Some(wire::benefit(&row, given)),
    })
}

/// Takes an assignment away, and what it used is there again.
async fn give_back(tx: &mut Tx, gone: &assignment::Model) -> Result<BenefitAssignment> {
    let sql = "DELETE FROM benefit_assignments WHERE id = $1";
    sql::execute(tx.db(), sql, [gone.id.into()]).await?;
    let sql = "UPDATE benefits SET used = used - $2, version = version + 1 WHERE id = $1";
    sql::execute(tx.db(), sql, [gone.benefit_id.into(), gone.count.into()]).await?;
    let shown = wire::assignment(gone);
    tx.emit(
        Event::new(
            "entente.account.v1.BenefitReleased",
            Name::BenefitAssignment(gone.account_id, gone.benefit_id, gone.id),
        )
        .with("assignee", shown.assignee.clone())
        .with("count", gone.count.to_string()),
    );
    Ok(shown)
}

/// Seats of those who are no members any more; 1 is `BENEFIT_KIND_SEATS`.
macro_rules! seats_of_nobody {
    ($what:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM benefit_assignments a JOIN benefits b ON b.id = a.benefit_id \
             WHERE b.kind = 1 AND NOT EXISTS (SELECT 1 FROM grants g \
              WHERE g.scope_kind = 2 AND g.scope_id = a.account_id AND g.principal_id = a.member_id)"
        )
    };
}

/// Says whether there are any.
pub(crate) const SEATS_OF_NOBODY: &str = concat!(seats_of_nobody!("1 AS one"), " LIMIT 1");

/// Gives back the seats of those who are no members any more, whatever ended that. Keys stay given: whoever left still knows them.
///
/// # Errors
/// Those of the database.
pub(crate) async fn release_seats(tx: &mut Tx) -> Result<u64> {
    let sql = format!("{} ORDER BY a.id LIMIT {CHUNK}", seats_of_nobody!("a.*"));
    let gone = sql::all::<assignment::Model, _>(tx.db(), sql, []).await?;
    let accounts: BTreeSet<Uuid> = gone.iter().map(|one| one.account_id).collect();
    tx.lock(accounts.into_iter().map(ScopeKey::Account)).await?;
    let found = gone.len() as u64;
    for one in gone {
        // Again, under the lock: who came back keeps it, and what was given back meanwhile is.
        let scope = ScopeKey::Account(one.account_id);
        let is_back = match one.member_id {
            Some(id) => grants::find(tx.db(), scope, id).await?.is_some(),
            None => true,
        };
        let row = assignment::Entity::find_by_id(one.id).one(tx.db()).await?;
        if let Some(row) = row.filter(|_| !is_back) {
            give_back(tx, &row).await?;
        }
    }
    Ok(found)
}
