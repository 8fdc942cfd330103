//! What an account brings from an older programme (NET-2): a level that counts for its time, competencies, and packages in their terms.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel,
    QueryFilter, Set, Value,
};
use uuid::Uuid;

use super::{holding, purchase};
use crate::{
    account::{
        entity::{competency, package},
        moves::{MovedCompetency, MovedPackage, Moves},
    },
    app::Tx,
    env::Micros,
    error::Result,
    names::Name,
    proto::account::{Level, PackageState},
    store::{outbox::Event, sql, time::json},
};

#[derive(FromQueryResult)]
struct Moved {
    level: i64,
    expire_time: i64,
}

/// The level that an account brought, while it counts, and until when.
pub(super) async fn level<C: ConnectionTrait>(
    db: &C,
    account: Uuid,
    now: Micros,
) -> Result<Option<(Level, Micros)>> {
    let sql =
        "SELECT level, expire_time FROM moved_levels WHERE account_id = $1 AND expire_time > $2";
    let found = sql::one::<Moved, _>(db, sql, [account.into(), now.into()]).await?;
    Ok(found.and_then(|found| {
        let level = Level::try_from(i32::try_from(found.level).ok()?).ok()?;
        Some((level, found.expire_time))
    }))
}

/// What was brought arrives, but for what is over by now; says whether a level does.
///
/// # Errors
/// Those of the database.
pub(in crate::account) async fn arrive(tx: &mut Tx, account: Uuid, moves: &Moves) -> Result<bool> {
    let now = tx.now();
    for one in &moves.competencies {
        if one.expire_time > now {
            keep(tx, account, one).await?;
        }
    }
    for one in &moves.packages {
        bring(tx, account, one).await?;
    }
    let has_level = moves.level != 0 && moves.level_expire_time > now;
    if has_level {
        let sql = "INSERT INTO moved_levels (account_id, level, expire_time) VALUES ($1, $2, $3)";
        let values: [Value; 3] = [
            account.into(),
            i64::from(moves.level).into(),
            moves.level_expire_time.into(),
        ];
        sql::execute(tx.db(), sql, values).await?;
    }
    holding::ensure_of_level(tx, account).await?;
    Ok(has_level)
}

/// A competency is there; one that the operator has recorded meanwhile keeps the later expiry.
async fn keep(tx: &mut Tx, account: Uuid, one: &MovedCompetency) -> Result<()> {
    let known = competency::Entity::find()
        .filter(competency::Column::AccountId.eq(account))
        .filter(competency::Column::Code.eq(one.code.as_str()))
        .one(tx.db())
        .await?;
    let before = known.as_ref().map(|row| row.expire_time);
    if before.is_some_and(|before| before >= one.expire_time) {
        return Ok(());
    }
    let id = if let Some(row) = known {
        let (id, version) = (row.id, row.version);
        let mut changed = row.into_active_model();
        changed.expire_time = Set(one.expire_time);
        changed.version = Set(version + 1);
        changed.update(tx.db()).await?;
        id
    } else {
        let row = competency::Model {
            id: tx.id(),
            account_id: account,
            code: one.code.clone(),
            expire_time: one.expire_time,
            create_time: tx.now(),
            version: 1,
        };
        let id = row.id;
        tx.insert(row).await?;
        id
    };
    tx.emit(
        Event::new(
            "entente.account.v1.CompetencyRecorded",
            Name::Competency(account, id),
        )
        .change("code", serde_json::Value::Null, one.code.clone())
        .change("expire_time", json(before), json(one.expire_time)),
    );
    Ok(())
}

/// A package is there in its term, with what is left in it, unless it can't even be renewed any more.
async fn bring(tx: &mut Tx, account: Uuid, one: &MovedPackage) -> Result<()> {
    let row = package::Model {
        id: tx.id(),
        account_id: account,
        package_offer_id: one.package_offer,
        display_name: one.display_name.clone(),
        currency_code: one.currency_code.clone(),
        amount_minor: one.amount_minor,
        charge_id: None,
        begin_time: Some(one.begin_time),
        expire_time: Some(one.expire_time),
        create_time: tx.now(),
        version: 1,
    };
    if purchase::state_of(&row, tx.now()) == PackageState::Lapsed {
        return Ok(());
    }
    tx.insert(row.clone()).await?;
    holding::add(tx, &row, &one.contents).await?;
    let null = || serde_json::Value::Null;
    tx.emit(
        Event::new(
            "entente.account.v1.PackageMoved",
            Name::Package(account, row.id),
        )
        .change("display_name", null(), row.display_name)
        .change("begin_time", null(), json(row.begin_time))
        .change("expire_time", null(), json(row.expire_time)),
    );
    Ok(())
}
