//! BenefitService: levels by competencies (BEN-1), packages that are bought (BEN-2), and what both hold (BEN-3).
//!
//! Nouns and states. A competency counts until it expires; the level follows from how many count now, by policy, and is stored nowhere. A
//! package offer is there, or withdrawn. A package is bought, `PENDING` until billing confirms its first charge, `ACTIVE` in its term, `EXPIRED`
//! for 30 days after, `LAPSED` then; time says which; it is `REFUSED` where billing refused that charge. A charge is open, confirmed or refused, once.
//! A benefit is activated or not; an assignment has no states, and goes when its member is gone, if it is of seats.
//!
//! Invariants. No more of a benefit is used than there is: one statement counts and compares. A package has one open charge at most. What was
//! bought keeps its contents, whatever becomes of the offer, until it is renewed.

mod holding;
mod listing;
mod moved;
mod package;
mod purchase;
mod wire;

pub(super) use self::moved::arrive;
pub(crate) use self::{
    holding::{SEATS_OF_NOBODY, check_list_benefits, release_seats},
    listing::check_list_benefit_assignments,
    package::{check_create_package_offer, check_list_package_offers, check_update_package_offer},
    purchase::check_list_packages,
};
pub use self::{
    holding::{activate_benefit, assign_benefit, list_benefits, release_benefit},
    listing::list_benefit_assignments,
    package::{Content, create_package_offer, list_package_offers, update_package_offer},
    purchase::{buy_package, confirm_billing, list_packages, renew_package},
};

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect, Set,
};
use uuid::Uuid;

use super::entity::{
    account,
    competency::{Column, Entity, Model},
};
use crate::{
    access::scope::{OperatorScope, Proof},
    app::{Read, Tx},
    env::Micros,
    error::{Error, Reason, Result},
    names::Name,
    policy,
    proto::{
        account::{
            Competency, GetMembershipLevelRequest, Level, MembershipLevel, RecordCompetencyRequest,
            RevokeCompetencyRequest, RevokeCompetencyResponse,
        },
        operator::PolicyKey,
    },
    store::{
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::{json, micros, timestamp},
        update,
    },
};

/// Competencies that an account has at most.
const MOST_COMPETENCIES: u64 = 100;

// ---- competencies

/// Records a competency, or renews it.
///
/// # Errors
/// `NOT_FOUND`, `TOO_MANY_COMPETENCIES`; `INVALID_ARGUMENT` for an expiry in the past.
pub async fn record_competency(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: RecordCompetencyRequest,
) -> Result<Competency> {
    let missing = || Error::not_found("entente.dev/Account", req.parent.as_str());
    let Some(Name::Account(account)) = Name::parse(&req.parent) else {
        return Err(missing());
    };
    let new = req.competency.unwrap_or_default();
    let expire_time = new.expire_time.as_ref().map_or(0, micros);
    if expire_time <= tx.now() {
        return Err(Error::field("competency.expire_time", "lies in the past"));
    }
    tx.lock([ScopeKey::Account(account)]).await?;
    let there = account::Entity::find_by_id(account).one(tx.db()).await?;
    there.ok_or_else(missing)?;
    let known = Entity::find()
        .filter(Column::AccountId.eq(account))
        .filter(Column::Code.eq(new.code.as_str()))
        .one(tx.db())
        .await?;
    let before = known.as_ref().map(|row| row.expire_time);
    let row = match known {
        Some(row) => {
            let version = row.version;
            let mut changed = row.into_active_model();
            changed.expire_time = Set(expire_time);
            changed.version = Set(version + 1);
            changed.update(tx.db()).await?
        }
        None => insert(tx, account, new.code, expire_time).await?,
    };
    tx.emit(
        Event::new(
            "entente.account.v1.CompetencyRecorded",
            Name::Competency(account, row.id),
        )
        .change("code", serde_json::Value::Null, row.code.clone())
        .change("expire_time", json(before), json(row.expire_time)),
    );
    holding::ensure_of_level(tx, account).await?;
    Ok(wire::competency(&row))
}

async fn insert(tx: &mut Tx, account: Uuid, code: String, expire_time: Micros) -> Result<Model> {
    let sql = "SELECT COUNT(*) AS n FROM competencies WHERE account_id = $1";
    let there = sql::row(tx.db(), sql, [account.into()]).await?;
    let there = there.map_or(Ok(0), |row| row.try_get::<i64>("", "n"))?;
    if there.unsigned_abs() >= MOST_COMPETENCIES {
        return Err(Error::precondition(Reason::TooManyCompetencies)
            .with("most", MOST_COMPETENCIES.to_string()));
    }
    let row = Model {
        id: tx.id(),
        account_id: account,
        code,
        expire_time,
        create_time: tx.now(),
        version: 1,
    };
    tx.insert(row.clone()).await?;
    Ok(row)
}

/// Takes a competency away.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn revoke_competency(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: RevokeCompetencyRequest,
) -> Result<RevokeCompetencyResponse> {
    let missing = || Error::not_found("entente.dev/Competency", req.name.as_str());
    let Some(Name::Competency(account, id)) = Name::parse(&req.name) else {
        return Err(missing());
    };
    tx.lock([ScopeKey::Account(account)]).await?;
    let row = Entity::find_by_id(id)
        .filter(Column::AccountId.eq(account))
        .one(tx.db())
        .await?
        .ok_or_else(missing)?;
    update::check_etag(&req.etag, row.version)?;
    let sql = "DELETE FROM competencies WHERE id = $1";
    sql::execute(tx.db(), sql, [id.into()]).await?;
    tx.emit(
        Event::new(
            "entente.account.v1.CompetencyRevoked",
            Name::Competency(account, id),
        )
        .change("code", row.code.clone(), serde_json::Value::Null)
        .change(
            "expire_time",
            json(row.expire_time),
            serde_json::Value::Null,
        ),
    );
    Ok(RevokeCompetencyResponse {
        resources: vec![wire::competency(&row)],
    })
}

// ---- the level

/// The competencies of an account that count now, the first to expire first.
async fn counting<C: ConnectionTrait>(db: &C, account: Uuid, now: Micros) -> Result<Vec<Model>> {
    Ok(Entity::find()
        .filter(Column::AccountId.eq(account))
        .filter(Column::ExpireTime.gt(now))
        .order_by_asc(Column::ExpireTime)
        .order_by_asc(Column::Id)
        .limit(MOST_COMPETENCIES)
        .all(db)
        .await?)
}

/// How many competencies silver and gold take now.
async fn thresholds<C: ConnectionTrait>(db: &C, now: Micros) -> Result<(i64, i64)> {
    Ok((
        policy::number(db, PolicyKey::SilverCompetencies, now).await?,
        policy::number(db, PolicyKey::GoldCompetencies, now).await?,
    ))
}

fn level_by(count: usize, (silver, gold): (i64, i64)) -> Level {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    if count >= gold {
        Level::Gold
    } else if count >= silver {
        Level::Silver
    } else {
        Level::Member
    }
}

/// The higher of the level that competencies give and of one that was moved from an older programme.
fn higher(attained: Level, moved: Option<Level>) -> Level {
    match moved {
        Some(moved) if moved as i32 > attained as i32 => moved,
        _ => attained,
    }
}

/// The level of an account now.
async fn level_of<C: ConnectionTrait>(db: &C, account: Uuid, now: Micros) -> Result<Level> {
    let count = counting(db, account, now).await?.len();
    let moved = moved::level(db, account, now).await?;
    let attained = level_by(count, thresholds(db, now).await?);
    Ok(higher(attained, moved.map(|(level, _)| level)))
}

/// Gives the level of an account.
///
/// # Errors
/// Those of the database.
pub async fn get_membership_level(
    rd: &Read,
    _proof: Proof,
    req: GetMembershipLevelRequest,
) -> Result<MembershipLevel> {
    let id = Name::parse(&req.name).map(|n| n.id()).unwrap_or_default();
    let account = super::verification::find(rd.db(), id).await?;
    let rows = counting(rd.db(), account.id, rd.now()).await?;
    let thresholds = thresholds(rd.db(), rd.now()).await?;
    let moved = moved::level(rd.db(), account.id, rd.now()).await?;
    let number = |n: i64| i32::try_from(n).unwrap_or(i32::MAX);
    let attained = level_by(rows.len(), thresholds);
    Ok(MembershipLevel {
        level: higher(attained, moved.map(|(level, _)| level)) as i32,
        competency_count: i32::try_from(rows.len()).unwrap_or(i32::MAX),
        silver_competencies: number(thresholds.0),
        gold_competencies: number(thresholds.1),
        competencies: rows.iter().map(wire::competency).collect(),
        moved_level: moved.map_or(0, |(level, _)| level as i32),
        moved_level_expire_time: moved.and_then(|(_, until)| timestamp(until)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves BEN-1
    #[test]
    fn levels_follow_from_how_many_competencies_count() {
        for (count, level) in [
            (0, Level::Member),
            (1, Level::Silver),
            (2, Level::Silver),
            (3, Level::Gold),
            (9, Level::Gold),
        ] {
            assert_eq!(level_by(count, (1, 3)), level, "{count}");
        }
        // Where gold takes no more than silver, it is gold.
        assert_eq!(level_by(2, (2, 2)), Level::Gold);
    }
}
