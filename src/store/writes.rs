//! The connection of a transaction that writes, as functions use it. Rows that need not be read back wait here and go out together: before
//! a statement that may read them or refer to them, or at the end. And what the statements of one call did is remembered, so that a call which failed having written
//! nothing need not take along those that share its transaction.

use std::{
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait as _, ConnectionTrait, DatabaseTransaction,
    DbBackend, DbErr, EntityName as _, EntityTrait, ExecResult, IdenStatic as _, IntoActiveModel,
    Iterable as _, QueryResult, Statement,
    sea_query::{DynIden, Expr, InsertStatement, IntoIden as _, TableRef},
};

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

    pub(crate) fn into_bare(self) -> DatabaseTransaction {
        self.db
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
            kept.waits = true;
            kept.groups.iter().map(|g| g.rows.len()).sum::<usize>() >= MOST_WAITING
        };
        if full { self.flush().await } else { Ok(()) }
    }

    /// Sends the rows that wait.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn flush(&self) -> Result<(), DbErr> {
        let groups = {
            let mut kept = self.kept();
            if kept.groups.is_empty() {
                return Ok(());
            }
            kept.wrote |= kept.waits;
            (kept.at, kept.waits) = (0, false);
            kept.before.clear();
            std::mem::take(&mut kept.groups)
        };
        for group in groups {
            let mut rows = group.rows.into_iter();
            while rows.len() > 0 {
                // Halves of halves: whatever their number, statements have one of seven texts.
                let most = rows.len().min(MOST_ROWS);
                let n = 1 << most.ilog2();
                let mut insert = InsertStatement::new();
                insert
                    .into_table(group.table.clone())
                    .columns(group.idens.iter().cloned());
                for row in rows.by_ref().take(n) {
                    insert
                        .values(row)
                        .map_err(|e| DbErr::Custom(e.to_string()))?;
                }
                let statement = self.db.get_database_backend().build(&insert);
                self.told(self.db.execute_raw(statement).await)?;
            }
        }
        Ok(())
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
            let mut kept = self.kept();
            kept.wrote = true;
            kept.writes += 1;
        }
        Ok(())
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
