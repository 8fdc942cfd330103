//! The connection of a transaction that writes, as functions use it. Rows that need not be read back wait here and go out together: before
//! a statement that may read them or refer to them, or at the end. And what the statements of one call did is remembered, so that a call which failed having written
//! nothing need not take along those that share its transaction.

use std::{
    fmt::Write as _,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait as _, ConnectionTrait, DatabaseTransaction,
    DbBackend, DbErr, EntityName as _, EntityTrait, ExecResult, IdenStatic as _, IntoActiveModel,
    Iterable as _, QueryResult, Statement, Value,
    sea_query::{
        DynIden, Expr, InsertStatement, IntoIden as _, PostgresQueryBuilder, SqlWriterValues,
        SqliteQueryBuilder, TableRef,
    },
};
use uuid::Uuid;

/// Rows of one statement: the texts of statements are few, and each is prepared once.
const MOST_ROWS: usize = 64;
/// Rows that wait at once; more go out before they are told to.
const MOST_WAITING: usize = 1_000;

/// The connection.
pub struct Writes {
    db: DatabaseTransaction,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    groups: Vec<Group>,
    /// The group of the present call's last row: its rows go out in its own order, since one may refer to another.
    at: usize,
    /// Rows that waited in each group when the present call began.
    before: Vec<usize>,
    /// Rows of the present call wait.
    waits: bool,
    /// The present call's writes have reached the database.
    wrote: bool,
    /// A statement failed, so the transaction is not to be gone on with.
    failed: bool,
    /// Statements that wrote, but for rows that waited.
    writes: u64,
    /// The present call is being proven.
    proving: bool,
    /// A row has waited, of any call.
    filled: bool,
    /// The keys that were told, taken when so many statements had written.
    keys: Option<(Vec<Uuid>, u64)>,
}

/// Views that a statement may read a table by without naming it.
pub const VIEWS: &[&str] = &[
    "account_reach",
    "account_tenants",
    "active_people",
    "candidates",
    "member_groups",
    "members",
];

/// Rows of one table and the same columns.
struct Group {
    table: TableRef,
    name: &'static str,
    columns: Vec<&'static str>,
    idens: Vec<DynIden>,
    rows: Vec<Vec<Expr>>,
}

impl Writes {
    pub(crate) fn new(db: DatabaseTransaction) -> Self {
        Self {
            db,
            kept: Mutex::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The transaction, and the keys that its rows told, if they were taken already and nothing was written since.
    pub(super) fn into_bare(self) -> (DatabaseTransaction, Option<Vec<Uuid>>) {
        let kept = self
            .kept
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let keys = kept.keys.filter(|(_, at)| *at == kept.writes);
        (self.db, keys.map(|(keys, _)| keys))
    }

    /// Whether the present call has made or changed nothing yet.
    pub(super) fn is_call_clean(&self) -> bool {
        let kept = self.kept();
        !kept.wrote && !kept.waits
    }

    /// Whether nothing of this transaction has reached the database or waits to.
    pub(crate) fn is_clean(&self) -> bool {
        let kept = self.kept();
        kept.writes == 0 && !kept.filled
    }

    /// How many statements wrote, but for rows that waited.
    pub(super) fn writes(&self) -> u64 {
        self.kept().writes
    }

    /// A call is being proven, or no longer. What waits is of things just made, that nobody can have named or held before, so no proof
    /// rests on it.
    pub(crate) fn proving(&self, proving: bool) {
        self.kept().proving = proving;
    }

    /// Another call begins.
    pub(super) fn next_call(&self) {
        let mut kept = self.kept();
        kept.before = kept.groups.iter().map(|g| g.rows.len()).collect();
        (kept.at, kept.waits, kept.wrote) = (0, false, false);
    }

    /// Takes back what the present call did, if it reached the database with nothing; whether it could be.
    pub(super) fn take_back(&self) -> bool {
        let mut kept = self.kept();
        if kept.wrote || kept.failed {
            return false;
        }
        if kept.waits {
            let Kept { groups, before, .. } = &mut *kept;
            groups.truncate(before.len());
            for (group, n) in groups.iter_mut().zip(before) {
                group.rows.truncate(*n);
            }
            (kept.at, kept.waits) = (0, false);
        }
        true
    }

    /// Whether a statement failed.
    pub(super) fn has_failed(&self) -> bool {
        self.kept().failed
    }

    /// Has a row wait.
    ///
    /// # Errors
    /// Those of the database, if too many waited.
    pub(super) async fn insert<M, A>(&self, model: M) -> Result<(), DbErr>
    where
        M: IntoActiveModel<A>,
        A: ActiveModelTrait,
    {
        let model = model.into_active_model();
        let (mut columns, mut idens, mut row) = (Vec::new(), Vec::new(), Vec::new());
        for column in <A::Entity as EntityTrait>::Column::iter() {
            if let ActiveValue::Set(value) | ActiveValue::Unchanged(value) = model.get(column) {
                columns.push(column.as_str());
                idens.push(column.into_iden());
                row.push(column.save_as(Expr::val(value)));
            }
        }
        let entity = A::Entity::default();
        let full = {
            let mut kept = self.kept();
            let name = entity.table_name();
            let first = kept.at;
            let like = kept.groups[first..]
                .iter()
                .position(|g| g.name == name && g.columns == columns);
            kept.at = match like {
                Some(n) => first + n,
                None => {
                    kept.groups.push(Group {
                        table: entity.table_ref(),
                        name,
                        columns,
                        idens,
                        rows: Vec::new(),
                    });
                    kept.groups.len() - 1
                }
            };
            let at = kept.at;
            kept.groups[at].rows.push(row);
            (kept.waits, kept.filled) = (true, true);
            kept.groups.iter().map(|g| g.rows.len()).sum::<usize>() >= MOST_WAITING
        };
        if full { self.flush().await } else { Ok(()) }
    }

    /// Sends the rows that wait.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn flush(&self) -> Result<(), DbErr> {
        for group in self.take() {
            let mut rows = group.rows.into_iter();
            while rows.len() > 0 {
                // Halves of halves: whatever their number, statements have one of seven texts.
                let most = rows.len().min(MOST_ROWS);
                let n = 1 << most.ilog2();
                let insert = inserts(&group.table, &group.idens, rows.by_ref().take(n))?;
                let statement = self.db.get_database_backend().build(&insert);
                self.told(self.db.execute_raw(statement).await)?;
            }
        }
        Ok(())
    }

    /// The rows that wait, no longer.
    fn take(&self) -> Vec<Group> {
        let mut kept = self.kept();
        kept.wrote |= kept.waits;
        (kept.at, kept.waits) = (0, false);
        kept.before.clear();
        std::mem::take(&mut kept.groups)
    }

    /// Begins the last statements of the transaction, with the rows that wait: single ones go out with the others, more of them before, lest
    /// there be a text for each number of them.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) async fn end(&self) -> Result<End<'_>, DbErr> {
        let single = self.kept().groups.iter().all(|g| g.rows.len() == 1);
        if !single {
            self.flush().await?;
        }
        let mut end = End {
            db: self,
            postgres: self.db.get_database_backend() == DbBackend::Postgres,
            sql: String::new(),
            values: Vec::new(),
            parts: 0,
            counts: false,
        };
        let (placeholder, numbered) = if end.postgres {
            ("$", true)
        } else {
            ("?", false)
        };
        let mut text = SqlWriterValues::new(placeholder, numbered);
        for group in self.take() {
            let insert = inserts(&group.table, &group.idens, group.rows)?;
            end.parts += 1;
            let fault = |e: std::fmt::Error| DbErr::Custom(e.to_string());
            if end.postgres {
                let before = if end.parts == 1 { "WITH" } else { "," };
                write!(text, "{before} part{} AS (", end.parts).map_err(fault)?;
                insert.build_collect_any_into(&PostgresQueryBuilder, &mut text);
                text.write_str(")").map_err(fault)?;
            } else {
                insert.build_collect_any_into(&SqliteQueryBuilder, &mut text);
                text.write_str(";").map_err(fault)?;
            }
        }
        let (sql, values) = text.into_parts();
        (end.sql, end.values) = (sql, values.0);
        Ok(end)
    }

    /// Sends the last statements; gives how many rows those under a name touched.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) async fn run(&self, end: End<'_>) -> Result<u64, DbErr> {
        let End {
            postgres,
            mut sql,
            values,
            parts,
            counts,
            ..
        } = end;
        if postgres {
            if parts == 0 {
                return Ok(0);
            }
            let n = if counts {
                "(SELECT COUNT(*) FROM made)"
            } else {
                "CAST(0 AS bigint)"
            };
            sql.push_str(" SELECT ");
            sql.push_str(n);
            sql.push_str(" AS n");
        } else {
            // What memory has to be told of, at the same time: each statement is handed to a thread and back.
            sql.push_str("DELETE FROM changed_keys RETURNING key");
        }
        self.begin_write();
        let backend = self.db.get_database_backend();
        let statement = Statement::from_sql_and_values(backend, sql, values);
        let rows = self.told(self.db.query_all_raw(statement).await)?;
        if postgres {
            let n: Option<i64> = rows.first().map(|row| row.try_get("", "n")).transpose()?;
            return Ok(n.and_then(|n| n.try_into().ok()).unwrap_or(0));
        }
        let (mut made, mut keys) = (0, Vec::new());
        for row in rows {
            match row.try_get::<Uuid>("", "key") {
                Ok(key) => keys.push(key),
                Err(_) => made += row.try_get::<i64>("", "one")?.unsigned_abs(),
            }
        }
        let mut kept = self.kept();
        kept.keys = Some((keys, kept.writes));
        Ok(made)
    }

    fn begin_write(&self) {
        let mut kept = self.kept();
        kept.wrote = true;
        kept.writes += 1;
    }

    fn told<T>(&self, answer: Result<T, DbErr>) -> Result<T, DbErr> {
        if answer.is_err() {
            self.kept().failed = true;
        }
        answer
    }

    /// Sends the rows that a statement may see or refer to, and takes note of what it does.
    async fn begin(&self, sql: &str) -> Result<(), DbErr> {
        // What only reads, or locks rows, leaves nothing behind; of all else it is taken that it writes, and refers to anything.
        let reads = sql.starts_with("SELECT");
        let waits_for = {
            let kept = self.kept();
            let by_view = || VIEWS.iter().any(|view| sql.contains(view));
            let by_name = || kept.groups.iter().any(|group| sql.contains(group.name));
            !kept.groups.is_empty() && !kept.proving && (!reads || by_name() || by_view())
        };
        if waits_for {
            self.flush().await?;
        }
        if !reads {
            self.begin_write();
        }
        Ok(())
    }
}

fn inserts(
    table: &TableRef,
    columns: &[DynIden],
    rows: impl IntoIterator<Item = Vec<Expr>>,
) -> Result<InsertStatement, DbErr> {
    let mut insert = InsertStatement::new();
    insert
        .into_table(table.clone())
        .columns(columns.iter().cloned());
    for row in rows {
        insert
            .values(row)
            .map_err(|e| DbErr::Custom(e.to_string()))?;
    }
    Ok(insert)
}

/// The last statements of a transaction, sent as one: on PostgreSQL each would be a journey, on SQLite a turn of its connection's thread.
pub(super) struct End<'a> {
    db: &'a Writes,
    postgres: bool,
    sql: String,
    values: Vec<Value>,
    parts: usize,
    counts: bool,
}

impl End<'_> {
    /// Adds a statement, whose text is given the number of its first parameter. Of one of them the rows that it touches are counted.
    pub(super) fn add(
        &mut self,
        counted: bool,
        text: impl Fn(&Writes, usize) -> String,
        values: impl IntoIterator<Item = Value>,
    ) {
        let text = text(self.db, self.values.len() + 1);
        self.values.extend(values);
        self.parts += 1;
        self.counts |= counted;
        if self.postgres {
            let before = if self.parts == 1 { "WITH" } else { "," };
            let name = match counted {
                true => "made".to_owned(),
                false => format!("part{}", self.parts),
            };
            self.sql.extend([before, " ", &name, " AS ("]);
        }
        self.sql.push_str(&text);
        if counted {
            self.sql.push_str(" RETURNING 1 AS one");
        }
        self.sql.push(if self.postgres { ')' } else { ';' });
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, DbErr>> + Send + 'a>>;

impl ConnectionTrait for Writes {
    fn get_database_backend(&self) -> DbBackend {
        self.db.get_database_backend()
    }

    fn execute_raw<'a, 'b>(&'a self, statement: Statement) -> Answer<'b, ExecResult>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.begin(&statement.sql).await?;
            self.told(self.db.execute_raw(statement).await)
        })
    }

    fn execute_unprepared<'a, 'c, 'b>(&'a self, sql: &'c str) -> Answer<'b, ExecResult>
    where
        'a: 'b,
        'c: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.begin(sql).await?;
            self.told(self.db.execute_unprepared(sql).await)
        })
    }

    fn query_one_raw<'a, 'b>(&'a self, statement: Statement) -> Answer<'b, Option<QueryResult>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.begin(&statement.sql).await?;
            self.told(self.db.query_one_raw(statement).await)
        })
    }

    fn query_all_raw<'a, 'b>(&'a self, statement: Statement) -> Answer<'b, Vec<QueryResult>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.begin(&statement.sql).await?;
            self.told(self.db.query_all_raw(statement).await)
        })
    }
}
