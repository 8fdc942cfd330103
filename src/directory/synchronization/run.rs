//! How far a synchronisation has come, and what couldn't be taken over: kept for the agent, so that it can go on.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Value};
use uuid::Uuid;

use super::entries::Chunk;
use crate::{
    app::{Read, Tx},
    directory::{
        entity::{
            directory_sync::{self, Model as Row},
            directory_sync_fault::{Column, Entity, Model as FaultRow},
        },
        wire,
    },
    env::Micros,
    error::{Error, Reason, Result, reason_name},
    proto::directory::{DirectoryFault, GetDirectorySynchronizationRequest},
    store::{
        filter::{Field, Kind, OrderField},
        list::{Listing, Page},
        sql::{self, Type},
    },
};

/// Faults that an answer tells.
const MOST_FAULTS_TOLD: i64 = 100;

/// Faults, as GetDirectorySynchronization lists them.
pub const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "external_id",
            ("directory_sync_faults", "external_id"),
            Kind::Exact,
        ),
        Field::new("reason", ("directory_sync_faults", "reason"), Kind::Exact),
        Field::new(
            "create_time",
            ("directory_sync_faults", "create_time"),
            Kind::TIME,
        ),
    ],
    orders: &[OrderField::new(
        "external_id",
        ("directory_sync_faults", "external_id"),
    )],
    id: ("directory_sync_faults", "id"),
};

/// The run last begun.
pub async fn find<C: ConnectionTrait>(db: &C, tenant: Uuid) -> Result<Option<Row>> {
    Ok(directory_sync::Entity::find_by_id(tenant).one(db).await?)
}

/// Forgets run and faults.
pub async fn forget(tx: &Tx, tenant: Uuid) -> Result<()> {
    for sql in [
        "DELETE FROM directory_sync_faults WHERE tenant_id = $1",
        "DELETE FROM directory_syncs WHERE tenant_id = $1",
    ] {
        sql::execute(tx.db(), sql, [tenant.into()]).await?;
    }
    Ok(())
}

/// The run with the chunk that goes on with it.
pub struct Run {
    pub row: Row,
}

impl Run {
    /// Goes on with the run, or begins another; a rehearsal may have any sequence.
    ///
    /// # Errors
    /// `SEQUENCE_GAP`, with the run and its last sequence.
    pub fn go_on(
        known: Option<Row>,
        tenant: Uuid,
        request_id: &str,
        sequence: i64,
        rehearsal: bool,
        now: Micros,
    ) -> Result<Self> {
        // One spelling a run.
        let request_id = Uuid::try_parse(request_id)
            .map_err(|_| Error::field("request_id", "is no UUID"))?
            .to_string();
        let same = known.as_ref().is_some_and(|k| k.request_id == request_id);
        let last = known.as_ref().map_or(0, |k| k.last_sequence);
        let follows = if same {
            sequence == last + 1
        } else {
            sequence == 1
        };
        if !follows && !rehearsal {
            let run = known.map_or_else(String::new, |k| k.request_id);
            return Err(Error::precondition(Reason::SequenceGap)
                .with("last_sequence", last.to_string())
                .with("request_id", run));
        }
        let begun = Row {
            tenant_id: tenant,
            request_id,
            last_sequence: 0,
            upserted_count: 0,
            deleted_count: 0,
            fault_count: 0,
            begin_time: now,
            update_time: now,
        };
        let row = known.filter(|_| same).unwrap_or(begun);
        Ok(Self {
            row: Row {
                last_sequence: sequence,
                update_time: now,
                ..row
            },
        })
    }

    /// Counts what a chunk did: entries with a fault don't count as taken over, even if a part of them was.
    pub fn count(&mut self, chunk: &Chunk, deleted: usize) {
        let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let mut faulty: Vec<usize> = chunk.faults.iter().map(|f| f.index).collect();
        faulty.sort_unstable();
        faulty.dedup();
        let indices = || {
            let users = chunk.users.iter().map(|e| e.index);
            let groups = chunk.groups.iter().map(|e| e.index);
            users
                .chain(groups)
                .chain(chunk.applications.iter().map(|e| e.index))
        };
        let upserted = indices()
            .filter(|i| faulty.binary_search(i).is_err())
            .count();
        self.row.upserted_count += whole(upserted);
        self.row.deleted_count += whole(deleted);
        self.row.fault_count += whole(faulty.len());
    }

    /// Stores the run, and the chunk's faults in place of those that its entries had.
    pub async fn store(&self, tx: &Tx, chunk: &Chunk) -> Result<()> {
        let db = tx.db();
        let row = &self.row;
        let sql = "INSERT INTO directory_syncs (tenant_id, request_id, last_sequence, upserted_count, deleted_count, fault_count, begin_time, update_time) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant_id) DO UPDATE SET request_id = excluded.request_id, \
                   last_sequence = excluded.last_sequence, upserted_count = excluded.upserted_count, deleted_count = excluded.deleted_count, \
                   fault_count = excluded.fault_count, begin_time = excluded.begin_time, update_time = excluded.update_time";
        let values: [Value; 8] = [
            row.tenant_id.into(),
            row.request_id.as_str().into(),
            row.last_sequence.into(),
            row.upserted_count.into(),
            row.deleted_count.into(),
            row.fault_count.into(),
            row.begin_time.into(),
            row.update_time.into(),
        ];
        sql::execute(db, sql, values).await?;
        let sql = format!(
            "DELETE FROM directory_sync_faults WHERE tenant_id = $1 AND external_id IN ({})",
            sql::in_texts(db, 2)
        );
        let all = sql::texts(chunk.external_ids.iter().map(String::as_str));
        sql::execute(db, sql, [row.tenant_id.into(), all]).await?;
        self.store_faults(tx, chunk).await
    }

    async fn store_faults(&self, tx: &Tx, chunk: &Chunk) -> Result<()> {
        // One an entry: the first that was found.
        let mut told = std::collections::BTreeSet::new();
        let rows: Vec<_> = chunk
            .faults
            .iter()
            .filter(|f| told.insert(f.index))
            .map(|f| {
                vec![
                    sql::id(tx.id()),
                    f.external_id.as_str().into(),
                    f.index.into(),
                    reason_name(f.reason).into(),
                    f.field.as_str().into(),
                    f.description.as_str().into(),
                ]
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let columns = [
            ("id", Type::Id),
            ("external_id", Type::Text),
            ("entry_index", Type::Number),
            ("reason", Type::Text),
            ("field", Type::Text),
            ("description", Type::Text),
        ];
        let sql = format!(
            "INSERT INTO directory_sync_faults (tenant_id, external_id, id, sequence, entry_index, reason, field, description, create_time) \
             SELECT $1, x.external_id, x.id, $2, x.entry_index, x.reason, x.field, x.description, $3 FROM ({}) x",
            sql::rows(tx.db(), 4, &columns)
        );
        let values: [Value; 4] = [
            self.row.tenant_id.into(),
            self.row.last_sequence.into(),
            tx.now().into(),
            sql::table(rows),
        ];
        sql::execute(tx.db(), sql, values).await?;
        Ok(())
    }
}

/// The first faults by external ID, for an answer.
pub async fn first_faults<C: ConnectionTrait>(db: &C, tenant: Uuid) -> Result<Vec<FaultRow>> {
    let sql =
        "SELECT * FROM directory_sync_faults WHERE tenant_id = $1 ORDER BY external_id LIMIT $2";
    sql::all::<FaultRow, _>(db, sql, [tenant.into(), MOST_FAULTS_TOLD.into()]).await
}

/// A page of all faults.
pub async fn page_of_faults(
    rd: &Read,
    tenant: Uuid,
    req: &GetDirectorySynchronizationRequest,
) -> Result<Page<DirectoryFault>> {
    let select = Entity::find().filter(Column::TenantId.eq(tenant));
    rd.list(req, &LISTING, select, |row: FaultRow| {
        wire::directory_fault(&row)
    })
    .await
}
