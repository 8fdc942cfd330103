//! The application: the only place where a transaction begins. `read` and `mutate` carry every call: proof, claim, function, audit,
//! domain events, reply, commit; retries around the whole. Functions see `Read` and `Tx`, nothing else.

mod attempt;
mod jobs;
pub mod lanes;
mod lazy;
mod mutate;
mod read;
mod tx;

#[cfg(debug_assertions)]
use std::collections::BTreeSet;
use std::{
    ops::Deref,
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use futures_util::future::BoxFuture;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, IsolationLevel,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::{
    lazy::Lazy,
    read::Read,
    tx::{Outside, Tx},
};
use crate::{
    access::{
        cache::ClockOffset,
        limits::Limits,
        principal::Caller,
        proof::Named,
        refusals::{self, Tally},
        roles::Permission,
        rules::Rule,
        token::Tokens,
    },
    blob::Blobs,
    check::{At, Mode, Request, Violations},
    config::Config,
    dns::Dns,
    env::{Env, Micros},
    error::{Error, Reason, Result, reason_name},
    hash::Hasher,
    keys::Keys,
    names::Name,
    proto::access::Program,
    registry::Registry,
    store::{
        batch::Batch,
        connect::Db,
        memory::{Fact, Kept, Memory},
        scope_key::ScopeKey,
        work::{Origin, Snapshot, Work},
    },
};

/// A call is made so often from memory; if what it used changed each time, it is made from a snapshot.
const TRIES_FROM_MEMORY: u32 = 2;

/// Everything that a call needs; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// Ends what an account has in a programme that it leaves, in the same transaction; gives the names of what ended. `account` knows no slice
/// above it, so that each says at the start what it ends.
pub type Ending = for<'a> fn(&'a mut Tx, Uuid, Program) -> BoxFuture<'a, Result<Vec<Name>>>;

/// The address of an account's primary contact, if it has one. `directory` knows nothing of `account`, so that is put in at the start.
pub type ContactOfAccount = for<'a> fn(&'a Tx, Uuid) -> BoxFuture<'a, Result<Option<String>>>;

/// What `App` holds.
pub struct Inner {
    /// Time, randomness, identifiers.
    pub env: Env,
    /// The keys outside the database.
    pub keys: Keys,
    /// The configuration.
    pub config: Config,
    /// The database.
    pub db: Db,
    /// Signs and verifies access tokens.
    pub tokens: Tokens,
    /// Hashes passwords, bounded.
    pub hasher: Hasher,
    /// Looks names up in the DNS, bounded.
    pub dns: Dns,
    /// Calls a caller may make.
    pub limits: Limits,
    /// Refusals and looks that are still to be audited.
    pub tally: Tally,
    /// The operator's tenant, once it was made.
    pub operator: OnceLock<Uuid>,
    /// Woken at every commit of this process.
    pub committed: Notify,
    /// Set when the server drains: streams end.
    pub draining: CancellationToken,
    /// Where calls that write wait for each other, to share a commit.
    pub lanes: lanes::Lanes,
    /// Writers of one scope that may hold connections at once, scope by scope: a hot scope must not take the whole pool.
    pub turns: moka::sync::Cache<ScopeKey, Arc<tokio::sync::Semaphore>>,
    /// Open streams, by caller.
    pub streams: moka::sync::Cache<Vec<u8>, Arc<tokio::sync::Semaphore>>,
    /// Places of all streams.
    pub all_streams: Arc<tokio::sync::Semaphore>,
    /// The register of companies, if one is configured.
    pub registry: Option<Arc<dyn Registry>>,
    /// Bytes of documents.
    pub blobs: Blobs,
    /// Places of uploads.
    pub uploads: Arc<tokio::sync::Semaphore>,
    /// Places of reads that go through very many rows.
    pub long_reads: Arc<tokio::sync::Semaphore>,
    /// Facts that the database vouches for at each call.
    pub memory: Memory,
    /// Whom to turn to about an account.
    pub contact_of_account: ContactOfAccount,
    /// What ends with a programme.
    pub endings: &'static [Ending],
    /// Whether the database answered lately, for health.
    pub healthy: AtomicBool,
    /// What functions demanded late, by method: held by a test against the rules. None for rights asked for as a whole.
    #[cfg(debug_assertions)]
    pub demanded: std::sync::Mutex<BTreeSet<(&'static str, Option<Permission>)>>,
}

impl Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Wraps what was put together at start.
    #[must_use]
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// The operator's tenant; nil before it was made.
    #[must_use]
    pub fn operator_tenant(&self) -> Uuid {
        self.operator.get().copied().unwrap_or_default()
    }
}

/// One call, as the layers know it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method's rule.
    pub rule: &'static Rule,
    /// Who calls.
    pub caller: Caller,
    /// Past it, work stops.
    pub deadline: Instant,
    /// Set when the caller is gone.
    pub gone: CancellationToken,
}

/// What a transaction is begun for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begin {
    /// To read.
    Read,
    /// To write what one call or job writes.
    Write,
    /// To write, in a lane.
    Lane,
}

/// How a function ended.
pub enum Outcome<T> {
    /// All is well.
    Done(T),
    /// What it wrote is committed, and this error is the answer; only in methods marked `may_refuse`.
    Refuse(Error),
}

impl App {
    async fn begin(&self, kind: Begin) -> std::result::Result<DatabaseTransaction, DbErr> {
        let write = kind != Begin::Read;
        let options = match (self.db.backend, write) {
            // Read committed, and for writing: the connection's default, so it takes no statement to say so.
            (DbBackend::Postgres, true) => TransactionOptions::default(),
            (DbBackend::Postgres, false) => TransactionOptions {
                isolation_level: Some(IsolationLevel::RepeatableRead),
                access_mode: Some(AccessMode::ReadOnly),
                ..Default::default()
            },
            // The default mode fails most concurrent transactions that read before they write.
            (_, true) => TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..Default::default()
            },
            (_, false) => TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Deferred),
                ..Default::default()
            },
        };
        let pool = match kind {
            Begin::Read => self.db.read.clone(),
            Begin::Write => self.db.write.clone(),
            Begin::Lane => self.db.lanes.clone(),
        };
        // A caller may leave at any await. Left between BEGIN and its answer, a connection would go back to the pool with a transaction
        // open that nobody knows of, and swallow what is written next. So it begins in a task of its own, which is never left: whoever
        // waited being gone, the transaction is dropped when it has begun, and rolled back.
        let begun = tokio::spawn(async move {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the one place where transactions begin"
            )]
            pool.begin_with_options(options).await
        });
        begun
            .await
            .map_err(|e| DbErr::Custom(format!("a transaction did not begin: {e}")))?
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        let db = self.begin(Begin::Read).await?;
        let now = self.now_in(&db).await?;
        Ok(Snapshot::new(db, now))
    }

    /// Begins what a single call or job writes.
    async fn open(&self, kind: Begin) -> Result<Work> {
        let db = self.begin(kind).await?;
        let now = self.now_in(&db).await?;
        Ok(Work::new(Batch::new(db, false, &self.memory), now))
    }

    /// Commits what was written: the one place where that happens. On SQLite what changed is in doubt meanwhile; so the commit is a task of
    /// its own, which is never left: who waits may go.
    async fn commit(&self, batch: Batch) -> std::result::Result<(), DbErr> {
        let news = batch.has_news();
        let (db, leaves) = batch.into_parts();
        let done = match self.memory.doubt(&db, leaves).await? {
            None => db.commit().await,
            // Nothing is waited for in between: what is in doubt is always settled.
            Some(announced) => {
                let app = self.clone();
                let ended = tokio::spawn(async move {
                    let outcome = db.commit().await;
                    #[cfg(debug_assertions)]
                    app.memory.dawdle().await;
                    app.memory.settle(announced, outcome.is_ok());
                    outcome
                });
                let ended = ended.await;
                ended.map_err(|e| DbErr::Custom(format!("a transaction did not end: {e}")))?
            }
        };
        if done.is_ok() && news {
            self.committed.notify_waiters();
        }
        done
    }

    async fn now_in<C: ConnectionTrait>(&self, db: &C) -> Result<Micros> {
        Ok(self.env.now() + self.offset_in(db).await?)
    }

    /// What the test clock adds to the machine's time.
    async fn offset_in<C: ConnectionTrait>(&self, db: &C) -> Result<Micros> {
        if !self.config.enable_test_clock {
            return Ok(0);
        }
        Ok(ClockOffset.load(db).await?.value)
    }

    /// Now, with the test clock's offset, outside of any transaction.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn now(&self) -> Result<Micros> {
        if !self.config.enable_test_clock {
            return Ok(self.env.now());
        }
        let mut used = Vec::with_capacity(1);
        for _ in 0..self.tries_from_memory() {
            let offset = self.known(&ClockOffset, &mut used).await?;
            if self.memory.vouch(&used).await? {
                return Ok(self.env.now() + *offset);
            }
            used.clear();
        }
        self.now_in(&self.db.read).await
    }

    /// Remembers a late demand in builds for tests.
    fn remember_demand(&self, _method: &'static str, _permission: Option<Permission>) {
        #[cfg(debug_assertions)]
        if let Ok(mut demanded) = self.demanded.lock() {
            demanded.insert((_method, _permission));
        }
    }

    fn tries_from_memory(&self) -> u32 {
        if self.memory.is_open() {
            TRIES_FROM_MEMORY
        } else {
            0
        }
    }

    /// A fact from memory, or from a statement that memory takes in; to be vouched for with all else that is used.
    async fn known<F: Fact>(&self, fact: &F, used: &mut Vec<Arc<Kept>>) -> Result<Arc<F::Value>> {
        let (value, kept) = match self.memory.recall(fact) {
            Some(known) => known,
            None => {
                let at = self.memory.number();
                let found = fact.load(&self.db.read).await?;
                self.memory.take(fact, at, found)
            }
        };
        used.push(kept);
        Ok(value)
    }

    /// Runs a job's reading in one snapshot.
    ///
    /// # Errors
    /// Those of the job.
    pub async fn look<T, F>(&self, run: F) -> Result<T>
    where
        F: for<'a> FnOnce(&'a Snapshot) -> BoxFuture<'a, Result<T>>,
    {
        let snapshot = self.snapshot().await?;
        let answer = run(&snapshot).await?;
        snapshot.into_db().commit().await?;
        Ok(answer)
    }

    /// Has a refusal audited where COM-10 asks for it; gives the error that is answered.
    pub(crate) async fn refuse(&self, call: &Call, named: &Named, error: Error) -> Error {
        if error.reason() == Reason::TokenInvalid && call.caller.who.is_some() {
            self.limits.give_back(&call.caller, call.rule);
        }
        let outcome = refusals::Refused::of(call, named, &error);
        if let Some(outcome) = outcome {
            // Spawned: a caller that goes away can't take the trace of its attempt along.
            let app = self.clone();
            let written = tokio::spawn(async move { outcome.write(&app).await }).await;
            if let Err(fault) = written
                .map_err(|e| Error::internal(e.to_string()))
                .and_then(|r| r)
            {
                // Who may not gets to know that he may not, even while the refusal can't be written; the log keeps it.
                tracing::error!(%fault, method = call.rule.method, "a refusal could not be audited");
            }
        } else if error.code() == tonic::Code::Unauthenticated
            || (error.reason() == Reason::LinkInvalid && call.caller.who.is_none())
        {
            // Guesses at mailed tokens count like guesses at credentials.
            refusals::unauthenticated(
                self,
                call.rule.method,
                reason_name(error.reason()),
                &call.caller,
            );
        }
        error
    }
}

/// Whether a function, or its preparation, refused what the proof let through.
fn is_late_refusal(error: &Error) -> bool {
    error.code() == tonic::Code::PermissionDenied
        || matches!(
            error.reason(),
            Reason::RightsAsleep | Reason::RightsBeginLater
        )
}

/// Who did it and by what, for audit and events.
#[must_use]
pub fn origin_of(call: &Call) -> Origin {
    Origin {
        action: call.rule.method.to_owned(),
        actor: call.caller.name(),
        via: call.caller.via_name(),
        relationship: String::new(),
        client_address: call.caller.address_text(),
        trace_id: call.caller.trace_id.clone(),
    }
}

/// Holds a request against its declared limits, all violations at once; texts come out normalised, output-only fields cleared.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn check<R: Request>(request: &mut R) -> Result<()> {
    let mut violations = Violations::default();
    let mode = if R::UPDATES {
        Mode::Update
    } else {
        Mode::Create
    };
    request.check(&At::root(), mode, &mut violations);
    request.check_whole(&mut violations);
    violations.none()
}
