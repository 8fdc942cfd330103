//! The daily look-up of domains (TEN-2): claimed with leases, looked up outside of any transaction, and what came of it written. Only what
//! says that the record is there, or that it isn't, counts: a DNS that fails changes nothing, and is asked again an hour later. One
//! whose record has been gone for 7 days lapses, and the tenant's admins are told; it is looked up on, and is verified again if the record
//! comes back and nobody else has the domain by then.

use futures_util::future::join_all;
use sea_orm::{ColumnTrait, DbBackend, EntityTrait, QueryFilter, Value};
use uuid::Uuid;

use super::{
    ACTIVE,
    application_key::admins_addresses,
    domain::{LAPSED, VERIFIED, lapse, next_look_up, prove, record_name, record_value, verified},
    entity::domain::{Column, Entity, Model},
    tenant,
};
use crate::{
    app::{App, Tx},
    dns::For,
    env::{DAY_US, HOUR_US, MINUTE_US, Micros},
    error::{Reason, Result},
    mail::{self, Template},
    names::Name,
    store::{scope_key::ScopeKey, sql},
};

/// A domain whose record has been gone for so long lapses.
const GONE_US: Micros = 7 * DAY_US;
/// One that lapsed is looked up for so long after its record was first missed; then only on request.
const GIVEN_UP_US: Micros = 90 * DAY_US;
/// A DNS that failed is asked again after so long.
const AGAIN_US: Micros = HOUR_US;
/// A replica holds a domain so long; a killed one's go to another after.
const LEASE_US: Micros = 2 * MINUTE_US;
/// Domains looked up at a time, and at once.
const BATCH: i64 = 20;

/// Looks up what is due; gives how many domains.
///
/// # Errors
/// Those of the database; what the DNS fails at is only noted.
pub(crate) async fn look_up_due(app: &App) -> Result<usize> {
    let mut count = 0;
    loop {
        let now = app.now().await?;
        let lease = app.env.id(now);
        let claimed = claim(app, lease, now).await?;
        if claimed.is_empty() {
            return Ok(count);
        }
        count += claimed.len();
        let answers = join_all(claimed.into_iter().map(async |row| {
            let record = record_name(&row);
            match app.dns.texts(&record, For::Job).await {
                Ok(found) => {
                    let is_there = found.contains(&record_value(&row));
                    (row, Some(is_there))
                }
                Err(fault) => {
                    tracing::info!(%record, fault = %fault.0, "a domain could not be looked up");
                    (row, None)
                }
            }
        }));
        for (row, is_there) in answers.await {
            note(app, &row, lease, is_there).await?;
        }
    }
}

async fn claim(app: &App, lease: Uuid, now: Micros) -> Result<Vec<Model>> {
    // A look without a lock first: mostly nothing is due.
    let sql = "SELECT 1 AS one FROM domains WHERE next_look_up_time <= $1 LIMIT 1";
    if sql::row(&app.db.read, sql, [now.into()]).await?.is_none() {
        return Ok(Vec::new());
    }
    let skip = if app.db.backend == DbBackend::Postgres {
        " FOR UPDATE SKIP LOCKED"
    } else {
        ""
    };
    let sql = format!(
        "UPDATE domains SET lease_id = $1, next_look_up_time = $2 WHERE id IN \
         (SELECT id FROM domains WHERE next_look_up_time <= $3 ORDER BY next_look_up_time LIMIT $4{skip}) RETURNING *"
    );
    let values: [Value; 4] = [
        lease.into(),
        (now + LEASE_US).into(),
        now.into(),
        BATCH.into(),
    ];
    app.keep_books(|db| Box::pin(sql::all::<Model, _>(db, sql, values)))
        .await
}

/// Writes what came of a look-up: a change of state as a job, all else as bookkeeping.
async fn note(app: &App, row: &Model, lease: Uuid, is_there: Option<bool>) -> Result<()> {
    let now = app.now().await?;
    let gone_for = now - row.missing_since_time.unwrap_or(now);
    let (missing_since, next) = match is_there {
        None => (row.missing_since_time, Some(now + AGAIN_US)),
        Some(true) if row.state == LAPSED => return change(app, row.id, lease, true).await,
        Some(true) => (None, Some(next_look_up(row.id, now))),
        Some(false) if row.state == VERIFIED && gone_for >= GONE_US => {
            return change(app, row.id, lease, false).await;
        }
        Some(false) if row.state == LAPSED && gone_for >= GIVEN_UP_US => {
            (row.missing_since_time, None)
        }
        Some(false) => (
            Some(row.missing_since_time.unwrap_or(now)),
            Some(next_look_up(row.id, now)),
        ),
    };
    books(app, row.id, lease, now, missing_since, next).await
}

/// Keeps what a look-up found without changing the domain's state; nothing if the domain was changed meanwhile.
async fn books(
    app: &App,
    id: Uuid,
    lease: Uuid,
    now: Micros,
    missing_since: Option<Micros>,
    next: Option<Micros>,
) -> Result<()> {
    let sql = "UPDATE domains SET look_up_time = $1, missing_since_time = $2, next_look_up_time = $3, lease_id = NULL \
               WHERE id = $4 AND lease_id = $5";
    let values: [Value; 5] = [
        now.into(),
        missing_since.into(),
        next.into(),
        id.into(),
        lease.into(),
    ];
    let done = app.keep_books(|db| Box::pin(sql::execute(db, sql, values)));
    done.await.map(drop)
}

/// Brings a domain into another state, unless somebody else has changed it meanwhile.
async fn change(app: &App, id: Uuid, lease: Uuid, is_there: bool) -> Result<()> {
    let done = app
        .job("look-up-domains", move |tx, _| {
            Box::pin(async move {
                let Some(seen) = leased(tx, id, lease).await? else {
                    return Ok(());
                };
                tx.lock([ScopeKey::Tenant(seen.tenant_id)]).await?;
                let Some(row) = leased(tx, id, lease).await? else {
                    return Ok(());
                };
                // Its tenant may have been deleted meanwhile, which let the domain go.
                if tenant::by_id(tx.db(), row.tenant_id).await?.state != ACTIVE {
                    return Ok(());
                }
                if is_there {
                    revive(tx, &row).await
                } else {
                    let next = next_look_up(row.id, tx.now());
                    let row = lapse(tx, &row, Some(next)).await?;
                    tell(tx, &row).await
                }
            })
        })
        .await;
    match done {
        // Another tenant was faster; the next day will tell whether it keeps the domain.
        Err(error) if error.reason() == Reason::DomainVerifiedElsewhere => Ok(()),
        other => other,
    }
}

async fn leased(tx: &Tx, id: Uuid, lease: Uuid) -> Result<Option<Model>> {
    Ok(Entity::find_by_id(id)
        .filter(Column::LeaseId.eq(lease))
        .one(tx.db())
        .await?)
}

/// The record of a lapsed domain is back.
async fn revive(tx: &mut Tx, row: &Model) -> Result<()> {
    if verified(tx.db(), &row.domain_name).await?.is_none() {
        return prove(tx, row).await.map(drop);
    }
    let sql = "UPDATE domains SET look_up_time = $1, next_look_up_time = $2, lease_id = NULL WHERE id = $3";
    let now = tx.now();
    let values: [Value; 3] = [now.into(), next_look_up(row.id, now).into(), row.id.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Tells the admins of the tenant that a domain has lapsed.
async fn tell(tx: &mut Tx, row: &Model) -> Result<()> {
    let organisation = tenant::by_id(tx.db(), row.tenant_id).await?.display_name;
    for to in admins_addresses(tx, row.tenant_id).await? {
        let values = [
            ("domain", row.domain_name.clone()),
            ("organisation", organisation.clone()),
            ("record", record_name(row)),
            ("value", record_value(row)),
        ];
        let about = Name::Domain(row.tenant_id, row.id);
        mail::queue(tx, Template::DomainLapsed, &to, about, &values).await?;
    }
    Ok(())
}
