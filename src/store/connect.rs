//! Connections. SQLite: one for writing, several for reading, the file locked against a second process. PostgreSQL: one pool.

use std::{
    fs::{File, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use entente_migrations::Migrator;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, SqlxError,
    Statement,
    sqlx::{
        ConnectOptions as _, Connection as _, SqliteConnection,
        postgres::PgConnectOptions,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};
use sea_orm_migration::MigratorTrait;

use super::memory::{Commits, Source};
use crate::error::{Error, Reason, Result};

/// Readers beside SQLite's one writer: more only take turns on two cores.
const SQLITE_READERS: u32 = 6;
/// Connections of the pool: PostgreSQL's default allows 100 in all, and two replicas must fit beside tools.
const POSTGRES_CONNECTIONS: u32 = 32;
/// Connections of lanes: one each at work, and some that are slow.
const LANE_CONNECTIONS: u32 = 12;
/// A statement that runs longer is cancelled by the server: a dropped client does not stop it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// A statement waits for a lock so long, in milliseconds; then the transaction is run again.
const LOCKS_WITHIN: &str = "10000";
/// One that calls share, or that a lane waits for, no longer: the server goes on waiting, with all that is locked already, when a batch has
/// given up. Each of its calls then waits by itself.
const LANES_LOCKS_WITHIN: &str = "250";
/// A caller waits for a free connection at most so long, then is told to try again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// The number that all replicas lock while migrating; "entente" on a telephone.
const MIGRATION_LOCK: i64 = 368_3683;

/// The database.
#[derive(Clone, Debug)]
pub struct Db {
    /// For transactions that write.
    pub write: DatabaseConnection,
    /// For transactions that calls share: the plans of their few statements are made once.
    pub lanes: DatabaseConnection,
    /// For transactions that only read.
    pub read: DatabaseConnection,
    /// Which database it is.
    pub backend: DbBackend,
    /// SQLite's commits; none on PostgreSQL.
    commits: Option<Arc<Commits>>,
    /// Held as long as the process lives: nobody else opens the SQLite file.
    _lock: Option<Arc<File>>,
}

impl Db {
    /// Opens the SQLite file in the data folder, which is made if it isn't there.
    ///
    /// # Errors
    /// If another process has it open, or it can't be read.
    pub async fn sqlite(folder: &Path) -> Result<Self> {
        let fault = |e: std::io::Error| Error::internal(format!("{}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(fault)?;
        let lock = File::options()
            .create(true)
            .append(true)
            .open(folder.join("entente.lock"))
            .map_err(fault)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::internal(format!(
                    "{} is in use by another process; stop it, or use PostgreSQL for several (ENTENTE_DATABASE_URL)",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(fault(e)),
        }
        let file = folder.join("entente.db");
        // For its owner alone, also in a folder that is open to others; what SQLite lays beside it is as it.
        File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&file)
            .map_err(fault)?;
        let url = format!("sqlite://{}?mode=rwc", file.display());
        // The writer comes first and alone: several connections at once on a fresh WAL file fail now and then.
        let commits = Arc::<Commits>::default();
        let watched = Arc::clone(&commits);
        let mut options = sqlite_options(&url, 1);
        options.map_sqlx_sqlite_pool_opts(move |o| {
            let watched = Arc::clone(&watched);
            let o = o.after_release(|connection, _| Box::pin(ended(connection)));
            o.after_connect(move |connection, _| Box::pin(Arc::clone(&watched).watch(connection)))
        });
        let write = Database::connect(options).await?;
        let read = Database::connect(sqlite_options(&url, SQLITE_READERS)).await?;
        Ok(Self {
            lanes: write.clone(),
            write,
            read,
            backend: DbBackend::Sqlite,
            commits: Some(commits),
            _lock: Some(Arc::new(lock)),
        })
    }

    /// Connects to PostgreSQL 15 or newer, as a setting says.
    ///
    /// # Errors
    /// If it can't be reached, or is older.
    pub async fn postgres(setting: &str, url: &str) -> Result<Self> {
        let options = postgres_options(url, (POSTGRES_CONNECTIONS, 2), LOCKS_WITHIN, "auto");
        let pool = match Database::connect(options).await {
            Ok(pool) => pool,
            Err(e) => return Err(unreachable(setting, url, &e).await),
        };
        let row = pool
            .query_one_raw(Statement::from_string(
                DbBackend::Postgres,
                "SELECT current_setting('server_version_num')::int AS v",
            ))
            .await?
            .ok_or_else(|| Error::internal("PostgreSQL gave no version"))?;
        let version: i32 = row.try_get("", "v")?;
        if version < 150_000 {
            return Err(Error::internal(format!(
                "{setting}: PostgreSQL 15 or newer is needed; this is {}",
                version / 10_000
            )));
        }
        let options = postgres_options(
            url,
            (LANE_CONNECTIONS, 0),
            LANES_LOCKS_WITHIN,
            "force_generic_plan",
        );
        Ok(Self {
            lanes: Database::connect(options).await?,
            write: pool.clone(),
            read: pool,
            backend: DbBackend::Postgres,
            commits: None,
            _lock: None,
        })
    }

    /// What vouches for memory over this database.
    #[must_use]
    pub fn voucher(&self) -> Source {
        match &self.commits {
            Some(commits) => Source::Sqlite(Arc::clone(commits)),
            None => {
                let pool = self.write.get_postgres_connection_pool();
                Source::Postgres(Box::new(pool.connect_options().as_ref().clone()))
            }
        }
    }

    /// Runs the migrations that are missing; replicas that start at once take turns.
    ///
    /// # Errors
    /// If a step fails; what it did is rolled back on PostgreSQL.
    pub async fn migrate(&self) -> Result<()> {
        if self.backend == DbBackend::Sqlite {
            return Ok(Migrator::up(&self.write, None).await?);
        }
        // A session's advisory lock needs one session: a pool of a single connection, ended with it.
        let pool = self.write.get_postgres_connection_pool();
        let mut guard = pool
            .acquire()
            .await
            .map_err(|e| Error::unavailable(Reason::DatabaseUnavailable, e.to_string()))?;
        let locked = sea_orm::sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(MIGRATION_LOCK)
            .execute(&mut *guard)
            .await;
        locked.map_err(|e| Error::unavailable(Reason::DatabaseUnavailable, e.to_string()))?;
        let outcome = Migrator::up(&self.write, None).await;
        let unlocked = sea_orm::sqlx::query("SELECT pg_advisory_unlock($1)")
            .bind(MIGRATION_LOCK)
            .execute(&mut *guard)
            .await;
        outcome?;
        unlocked.map_err(|e| Error::internal(e.to_string()))?;
        Ok(())
    }

    /// Whether all migrations have run.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub async fn is_current(&self) -> Result<bool> {
        // Only reads: the service's own user need not own the table of migrations.
        let rows = self
            .write
            .query_all_raw(Statement::from_string(
                self.backend,
                "SELECT version FROM seaql_migrations",
            ))
            .await;
        let Ok(rows) = rows else { return Ok(false) };
        let mut done = Vec::with_capacity(rows.len());
        for row in rows {
            done.push(row.try_get::<String>("", "version")?);
        }
        Ok(Migrator::migrations()
            .iter()
            .all(|m| done.iter().any(|d| d == m.name())))
    }

    /// Whether the service's own user could change the tables, as their owner.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn owns_tables(&self) -> Result<bool> {
        if self.backend == DbBackend::Sqlite {
            return Ok(false);
        }
        let sql = "SELECT 1 AS one FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'tenants' AND tableowner = current_user";
        let row = Statement::from_string(self.backend, sql);
        Ok(self.write.query_one_raw(row).await?.is_some())
    }

    /// Takes connections that nobody uses out of the pools: each is tested as it goes back, and closed if it broke while the database was
    /// away. So no call comes upon one.
    pub fn weed(&self) {
        if self.backend != DbBackend::Postgres {
            return;
        }
        for db in [&self.write, &self.lanes] {
            let pool = db.get_postgres_connection_pool();
            let unused: Vec<_> = std::iter::from_fn(|| pool.try_acquire()).collect();
            tracing::debug!(connections = unused.len(), "tested");
        }
    }

    /// Whether the database answers and takes writes.
    ///
    /// # Errors
    /// If it doesn't.
    pub async fn ping(&self) -> Result<()> {
        let sql = match self.backend {
            DbBackend::Postgres => {
                "SELECT CASE WHEN pg_is_in_recovery() THEN 1 ELSE 0 END AS standby"
            }
            _ => "SELECT 0 AS standby",
        };
        let row = self
            .read
            .query_one_raw(Statement::from_string(self.backend, sql))
            .await?;
        let standby: i32 = match row {
            Some(row) => row.try_get("", "standby")?,
            None => 1,
        };
        if standby == 0 {
            Ok(())
        } else {
            Err(Error::unavailable(
                Reason::DatabaseUnavailable,
                "the database is a standby",
            ))
        }
    }
}

/// Whether a connection that comes back has ended its transaction. SQLite rolls back by itself where a disk is full or fails; the rollback
/// that follows then fails, and sqlx counts the transaction as open: the next ones would be nested in none, and one of them never end.
async fn ended(connection: &mut SqliteConnection) -> std::result::Result<bool, SqlxError> {
    if !connection.is_in_transaction() {
        return Ok(true);
    }
    // A rollback that is still queued comes before the answer to this.
    connection.ping().await?;
    let stuck = connection.is_in_transaction();
    if stuck {
        tracing::warn!("a connection didn't end its transaction and is closed");
    }
    Ok(!stuck)
}

/// Why a database can't be connected to. A pool only says that it had no connection in time; one connection by itself says why. The URL holds
/// a password, so only its other parts are told.
async fn unreachable(setting: &str, url: &str, error: &DbErr) -> Error {
    let Ok(options) = url.parse::<PgConnectOptions>() else {
        return Error::internal(format!("{setting}: is no URL that can be read"));
    };
    let tried = tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await;
    let why = match tried {
        Ok(Err(e)) => e.to_string(),
        Ok(Ok(_)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    let place = format!(
        "{}@{}:{}/{}",
        options.get_username(),
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    );
    Error::unavailable(
        Reason::DatabaseUnavailable,
        format!("{setting}: {place} can't be connected to: {why}"),
    )
}

fn postgres_options(
    url: &str,
    (most, least): (u32, u32),
    locks_within_ms: &'static str,
    plans: &'static str,
) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(most)
        .min_connections(least)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_timeout(ACQUIRE_TIMEOUT)
        .statement_timeout(STATEMENT_TIMEOUT)
        .test_before_acquire_if_idle_for(Duration::from_secs(30))
        .set_application_name("entente")
        .sqlx_logging(false)
        .map_sqlx_postgres_opts(move |o| {
            o.options([
                ("lock_timeout", locks_within_ms),
                ("plan_cache_mode", plans),
                ("default_transaction_isolation", "read committed"),
                ("default_transaction_read_only", "off"),
                // Of solid state: so a page is read along its index, even where many rows are alike and few are expected.
                ("random_page_cost", "1.1"),
                // Every statement reads little: to compile one takes longer than to run it.
                ("jit", "off"),
                ("idle_in_transaction_session_timeout", "60000"),
            ])
        });
    options
}

/// Prepared statements that a connection to SQLite keeps, the ones least used going first: more than all methods together have that are
/// called often. sqlx's own hundred would be prepared again and again by a mix of calls.
const KEPT_STATEMENTS: usize = 500;

fn sqlite_options(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .sqlx_logging(false)
        .map_sqlx_sqlite_pool_opts(|o| o.after_release(|connection, _| Box::pin(ended(connection))))
        .map_sqlx_sqlite_opts(|o| {
            o.journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(Duration::from_secs(5))
                .statement_cache_capacity(KEPT_STATEMENTS)
        });
    options
}
