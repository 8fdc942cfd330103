//! The application: the only place where a transaction begins. `read` and `mutate` carry every call: proof, claim, function, audit,
//! domain events, reply, commit; retries around the whole. Functions see `Read` and `Tx`, nothing else.

#[cfg(debug_assertions)]
use std::collections::BTreeSet;
use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use futures_util::future::BoxFuture;
use prost::Message;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, FromQueryResult,
    IsolationLevel, Select, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    access::{
        limits::Limits,
        principal::Caller,
        proof::{self, Named},
        refusals::{self, Tally},
        roles::{Permission, Permissions},
        rules::Rule,
        scope::{JobScope, Proof},
        token::{self, Tokens},
    },
    check::{At, Mode, Redact, Request, Violations},
    config::Config,
    env::{Env, Micros},
    error::{Error, Reason, Result, reason_name},
    hash::Hasher,
    keys::{Keys, Mac, Purpose},
    names::Name,
    proto::access::{CallKind, Idempotency},
    store::{
        connect::Db,
        idempotency::{self, Claim, Claimed},
        list::{self, Asker, ListRequest, Listing, Page, Rows, fold},
        scope_key::ScopeKey,
        work::{Origin, Snapshot, Work},
    },
};

/// A transaction that lost against another is run again so often, then answered ABORTED.
const MOST_ATTEMPTS: u32 = 10;
/// Writers of one scope that hold a connection at once; they would only wait for each other.
const WRITERS_A_SCOPE: usize = 4;
/// The first pause before another attempt; doubled each time, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// Everything that a call needs; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

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
    /// Writers of one scope that may hold connections at once, scope by scope: a hot scope must not take the whole pool.
    pub turns: moka::sync::Cache<ScopeKey, Arc<tokio::sync::Semaphore>>,
    /// Open streams, by caller.
    pub streams: moka::sync::Cache<Vec<u8>, Arc<tokio::sync::Semaphore>>,
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

/// How a function ended.
pub enum Outcome<T> {
    /// All is well.
    Done(T),
    /// What it wrote is committed, and this error is the answer; only in methods marked `may_refuse`.
    Refuse(Error),
}

/// A transaction that reads, as functions see it.
pub struct Read {
    app: App,
    call: Call,
    snapshot: Snapshot,
}

impl Deref for Read {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Read {
    /// The application.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.call.caller
    }

    /// `package.Service/Method`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.call.rule.method
    }

    /// A page of a list, as the request asks: of `select`, which is already bound to the list's parent, row by row.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a bad page, filter or order; those of the database.
    pub async fn list<E: EntityTrait, M: FromQueryResult, T: Message>(
        &self,
        request: &impl ListRequest,
        listing: &Listing,
        select: Select<E>,
        to_wire: impl Fn(M) -> T,
    ) -> Result<Page<T>> {
        let mut found = self.rows(request, listing, select).await?;
        let items = std::mem::take(&mut found.rows).into_iter().map(to_wire);
        let items = items.collect();
        Ok(found.page(items))
    }

    /// The rows of a page, where what the answer shows of them takes more than the row: `Rows::page` makes the page of it.
    ///
    /// # Errors
    /// As `list`.
    pub async fn rows<E: EntityTrait, M: FromQueryResult>(
        &self,
        request: &impl ListRequest,
        listing: &Listing,
        select: Select<E>,
    ) -> Result<Rows<'_, M>> {
        let asker = Asker {
            keys: &self.app.keys,
            caller: self.call.caller.key(),
            method: self.method(),
        };
        list::rows(self.db(), asker, request, listing, select).await
    }

    /// What the caller may on a scope now, awake.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn caller_permissions(&self, scope: ScopeKey) -> Result<Permissions> {
        proof::permissions(self.db(), &self.call.caller, scope, self.now()).await
    }
}

/// What preparations see: no transaction, since they hash and wait.
pub struct Outside {
    app: App,
    call: Call,
}

impl Outside {
    /// The application; `look` reads what must be known before.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.call.caller
    }
}

/// A transaction that writes, as functions see it.
pub struct Tx {
    app: App,
    caller: Caller,
    method: &'static str,
    work: Work,
    validate_only: bool,
    /// From when on the call's claim is kept, if it has moved the clock.
    moved_to: Option<Micros>,
}

impl Deref for Tx {
    type Target = Work;
    fn deref(&self) -> &Work {
        &self.work
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Work {
        &mut self.work
    }
}

impl Tx {
    /// The application.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// `package.Service/Method`, or the job.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// A new identifier.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.app.env.id(self.now())
    }

    /// Tells that the service's clock stands there once this is committed: the claim of a call that moves time must not end by it.
    pub(crate) fn clock_moved_to(&mut self, now: Micros) {
        self.moved_to = Some(now);
    }

    /// Whether all of it will be rolled back.
    #[must_use]
    pub fn validate_only(&self) -> bool {
        self.validate_only
    }

    /// What the caller may on a scope now, awake.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn caller_permissions(&self, scope: ScopeKey) -> Result<Permissions> {
        self.demanded(None);
        proof::permissions(self.db(), &self.caller, scope, self.now()).await
    }

    /// Remembers a late demand in builds for tests.
    fn demanded(&self, _permission: Option<Permission>) {
        #[cfg(debug_assertions)]
        if let Ok(mut demanded) = self.app.demanded.lock() {
            demanded.insert((self.method, _permission));
        }
    }

    /// Demands what only the data tells: the permission, on the scope of what is named. The scope is locked.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `RIGHTS_ASLEEP`; those of the database.
    pub async fn demand(&mut self, permission: Permission, on: Name) -> Result<()> {
        self.demanded(Some(permission));
        let scope = on.scope();
        self.work.lock([scope]).await?;
        proof::demand(self.db(), &self.caller, permission, scope, self.now()).await
    }
}

/// What an attempt came to.
enum Attempt<S> {
    /// Committed, with the answer.
    Done(S),
    /// Answered before.
    Replay(Vec<u8>),
    /// Committed, with a refusal.
    Refused(Error),
}

impl App {
    async fn begin(&self, write: bool) -> Result<DatabaseTransaction> {
        let options = match (self.db.backend, write) {
            (DbBackend::Postgres, true) => TransactionOptions {
                isolation_level: Some(IsolationLevel::ReadCommitted),
                access_mode: Some(AccessMode::ReadWrite),
                ..Default::default()
            },
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
        let pool = if write { &self.db.write } else { &self.db.read };
        let pool = pool.clone();
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
        Ok(begun
            .await
            .map_err(|e| Error::internal(format!("a transaction did not begin: {e}")))??)
    }

    async fn snapshot(&self, write: bool) -> Result<Snapshot> {
        let db = self.begin(write).await?;
        let now = self.now_in(&db).await?;
        Ok(Snapshot::new(db, now))
    }

    async fn now_in<C: ConnectionTrait>(&self, db: &C) -> Result<Micros> {
        let now = self.env.now();
        if !self.config.enable_test_clock {
            return Ok(now);
        }
        let sql = "SELECT value FROM meta WHERE key = 'clock_offset'";
        let row = db
            .query_one_raw(Statement::from_string(self.db.backend, sql))
            .await?;
        let offset: Micros = match row {
            Some(row) => row.try_get::<String>("", "value")?.parse().unwrap_or(0),
            None => 0,
        };
        Ok(now + offset)
    }

    /// Now, with the test clock's offset, outside of any transaction.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn now(&self) -> Result<Micros> {
        self.now_in(&self.db.read).await
    }

    fn caller_mac(&self, caller: &Caller) -> Mac {
        self.keys.mac(Purpose::Request, &[b"caller", &caller.key()])
    }

    fn claim_of<R: Request>(&self, call: &Call, request: &R) -> Option<Claim> {
        if !call.rule.claims() || request.validate_only() {
            return None;
        }
        let mut request_id = Uuid::try_parse(request.request_id()).ok()?;
        if call.rule.kind == CallKind::StreamIn {
            // Each chunk of a stream is claimed by itself.
            let mac = self.keys.mac(
                Purpose::Request,
                &[
                    b"chunk",
                    request_id.as_bytes(),
                    &request.sequence().to_be_bytes(),
                ],
            );
            let mut first = [0; 16];
            first.copy_from_slice(&mac[..16]);
            request_id = Uuid::from_bytes(first);
        }
        let mut bare = request.clone();
        bare.clear_request_id();
        let caller = match call.rule.claimed_by() {
            "" => self.caller_mac(&call.caller),
            // No token came, so another alternative is to hold for the caller.
            field if call.caller.who.is_some() && request.text(field).is_empty() => {
                self.caller_mac(&call.caller)
            }
            // Of an open mutation: whoever brings the same token or address.
            field => self.keys.mac(
                Purpose::Request,
                &[
                    b"bearer",
                    field.as_bytes(),
                    fold(request.text(field)).as_bytes(),
                ],
            ),
        };
        Some(Claim {
            caller,
            request_id,
            method: call.rule.method.to_owned(),
            request: self.keys.mac(
                Purpose::Request,
                &[call.rule.method.as_bytes(), &bare.encode_to_vec()],
            ),
            for_ever: call.rule.declared.idempotency() == Idempotency::ForEver,
        })
    }

    /// Carries out a call that changes nothing.
    ///
    /// # Errors
    /// Those of the proof, the checks and the function.
    pub async fn read<R, S, F>(&self, call: &Call, mut request: R, run: &F) -> Result<S>
    where
        R: Request,
        F: for<'a> Fn(&'a Read, Proof, R) -> BoxFuture<'a, Result<S>>,
    {
        let named = proof::resolve(call.rule, &request)?;
        let snapshot = self.snapshot(false).await?;
        let now = snapshot.now();
        let rd = Read {
            app: self.clone(),
            call: call.clone(),
            snapshot,
        };
        let proven = match proof::prove(
            rd.db(),
            &self.keys,
            &call.caller,
            call.rule,
            &named,
            &request,
            now,
        )
        .await
        {
            Ok(proven) => proven,
            Err(error) => {
                drop(rd);
                return Err(self.refuse(call, &named, error).await);
            }
        };
        check(&mut request)?;
        let looked: Vec<Name> = if proven.by_operator()
            && proven.masked()
            && named.iter().all(|(_, names)| names.is_empty())
        {
            // A list of what belongs to others is a look at all of it.
            vec![Name::Operator]
        } else if proven.by_operator() {
            named.iter().flat_map(|(_, names)| names).copied().collect()
        } else {
            Vec::new()
        };
        let answer = run(&rd, proven, request).await?;
        rd.snapshot.into_db().commit().await?;
        if !looked.is_empty() {
            // Spawned: a caller that goes away can't take the trace of its look along.
            let (app, call) = (self.clone(), call.clone());
            let written = tokio::spawn(async move {
                for resource in looked {
                    refusals::looked(&app, &call, resource).await?;
                }
                Ok::<(), Error>(())
            });
            written
                .await
                .map_err(|e| Error::internal(e.to_string()))??;
        }
        Ok(answer)
    }

    /// Begins what a stream reads in one batch: proof and snapshot.
    ///
    /// # Errors
    /// Those of the proof.
    pub async fn open_batch<R: Request>(
        &self,
        call: &Call,
        named: &Named,
        request: &R,
    ) -> Result<(Read, Proof)> {
        let snapshot = self.snapshot(false).await?;
        let now = snapshot.now();
        let rd = Read {
            app: self.clone(),
            call: call.clone(),
            snapshot,
        };
        match proof::prove(
            rd.db(),
            &self.keys,
            &call.caller,
            call.rule,
            named,
            request,
            now,
        )
        .await
        {
            Ok(proven) => Ok((rd, proven)),
            Err(error) => {
                drop(rd);
                Err(self.refuse(call, named, error).await)
            }
        }
    }

    /// The first proof of a call that writes, its checks, and, where marked, its preparation outside the transaction.
    ///
    /// # Errors
    /// Those of the proof, the checks and the preparation. A stored answer of a call that ended its caller's right comes as `Ok(Err(..))`.
    async fn first_proof<R, P, G>(
        &self,
        call: &Call,
        request: &mut R,
        prepare: G,
    ) -> Result<std::result::Result<(Named, P), Vec<u8>>>
    where
        R: Request,
        G: for<'a> Fn(&'a Outside, Proof, &'a R) -> BoxFuture<'a, Result<P>>,
    {
        let named = proof::resolve(call.rule, request)?;
        let (rd, proven) = {
            let snapshot = self.snapshot(false).await?;
            let now = snapshot.now();
            let rd = Read {
                app: self.clone(),
                call: call.clone(),
                snapshot,
            };
            match proof::prove(
                rd.db(),
                &self.keys,
                &call.caller,
                call.rule,
                &named,
                request,
                now,
            )
            .await
            {
                Ok(proven) => (rd, proven),
                Err(error) => {
                    // Only where the claimed call itself ended the right is the stored answer given without it (COM-4).
                    check(request).ok();
                    if let Some(claim) = self.claim_of(call, request)
                        && let Ok(Some(stored)) = idempotency::look_up(rd.db(), &claim, now).await
                        && stored.ended_right
                    {
                        return Ok(Err(stored.reply));
                    }
                    drop(rd);
                    return Err(self.refuse(call, &named, error).await);
                }
            }
        };
        check(request)?;
        if call.rule.declared.prepare
            && let Some(claim) = self.claim_of(call, request)
            && let Some(stored) = idempotency::look_up(rd.db(), &claim, rd.now()).await?
        {
            // What was prepared then may not be there any more; the answer is.
            return Ok(Err(stored.reply));
        }
        rd.snapshot.into_db().commit().await?;
        let outside = Outside {
            app: self.clone(),
            call: call.clone(),
        };
        match prepare(&outside, proven, request).await {
            Ok(prepared) => Ok(Ok((named, prepared))),
            Err(error) if is_late_refusal(&error) => Err(self.refuse(call, &named, error).await),
            Err(error) => Err(error),
        }
    }

    /// Carries out a call that writes.
    ///
    /// # Errors
    /// Those of the proof, the checks and the function; then nothing has changed, but for `Outcome::Refuse`.
    pub async fn mutate<R, S, P, G, F>(
        &self,
        call: &Call,
        mut request: R,
        prepare: G,
        run: F,
    ) -> Result<(S, bool)>
    where
        R: Request,
        S: Message + Default + Redact + Clone,
        P: Clone,
        G: for<'a> Fn(&'a Outside, Proof, &'a R) -> BoxFuture<'a, Result<P>>,
        F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>,
    {
        let replayed = |bytes: Vec<u8>| -> Result<(S, bool)> {
            let stored = S::decode(bytes.as_slice())
                .map_err(|e| Error::internal(format!("a stored reply: {e}")))?;
            Ok((stored, true))
        };
        let (named, prepared) = match self
            .in_time(call, self.first_proof(call, &mut request, prepare))
            .await?
        {
            Ok(both) => both,
            Err(reply) => return replayed(reply),
        };
        let claim = self.claim_of(call, &request);
        let mut extra: Vec<ScopeKey> = Vec::new();
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let attempt = self
                .attempt(
                    call,
                    &request,
                    &named,
                    claim.as_ref(),
                    &extra,
                    &prepared,
                    &run,
                )
                .await;
            match attempt {
                Ok(Attempt::Done(answer)) => {
                    self.committed.notify_waiters();
                    return Ok((answer, false));
                }
                Ok(Attempt::Replay(bytes)) => return replayed(bytes),
                Ok(Attempt::Refused(error)) => {
                    if error.code() == tonic::Code::Unauthenticated {
                        refusals::unauthenticated(
                            self,
                            call.rule.method,
                            reason_name(error.reason()),
                            &call.caller,
                        );
                    }
                    return Err(error);
                }
                Err(error) if error.lacks_key() && attempts < MOST_ATTEMPTS => {
                    // In a task of its own, since it commits: a caller that leaves takes nothing along.
                    let app = self.clone();
                    let made = tokio::spawn(async move { token::rotate_keys(&app, false).await });
                    made.await.map_err(|e| Error::internal(e.to_string()))??;
                }
                Err(error) => {
                    let Some(needs) = error.again().map(<[ScopeKey]>::to_vec) else {
                        return Err(if is_late_refusal(&error) {
                            self.refuse(call, &named, error).await
                        } else {
                            error
                        });
                    };
                    if attempts >= MOST_ATTEMPTS {
                        return Err(error);
                    }
                    tracing::debug!(attempts, %error, "a transaction is run again");
                    if needs.is_empty() {
                        let jitter = u64::from(u16::from_be_bytes(self.env.bytes::<2>()));
                        tokio::time::sleep(pause + pause.mul_f64(jitter as f64 / 65_536.0)).await;
                        pause = (pause * 2).min(Duration::from_millis(100));
                    } else {
                        extra = needs;
                    }
                }
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one attempt is given all that the call has come to"
    )]
    async fn attempt<R, S, P, F>(
        &self,
        call: &Call,
        request: &R,
        named: &Named,
        claim: Option<&Claim>,
        extra: &[ScopeKey],
        prepared: &P,
        run: &F,
    ) -> Result<Attempt<S>>
    where
        R: Request,
        S: Message + Default + Redact + Clone,
        P: Clone,
        F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>,
    {
        let work = async {
            let mut scopes = proof::scopes(call.rule, named, &call.caller);
            let _turn = match scopes.last() {
                Some(scope) => Some(self.turn(*scope).await?),
                None => None,
            };
            let mut tx = Tx {
                app: self.clone(),
                caller: call.caller.clone(),
                method: call.rule.method,
                work: Work::new(self.snapshot(true).await?),
                validate_only: request.validate_only(),
                moved_to: None,
            };
            // What a mailed token is about is locked before it is proven, so that it is redeemed once.
            let link = proof::link_of(tx.db(), &self.keys, call.rule, request, tx.now()).await?;
            scopes.extend(link.map(|link| link.scope));
            tx.lock(scopes.into_iter().chain(extra.iter().copied()))
                .await?;
            let now = tx.now();
            let proven = match proof::prove(
                tx.db(),
                &self.keys,
                &call.caller,
                call.rule,
                named,
                request,
                now,
            )
            .await
            {
                Ok(proven) => proven,
                Err(error) => {
                    // The same call, a moment ago, may have ended the right: then its answer is given.
                    if let Some(claim) = claim
                        && let Ok(Some(stored)) = idempotency::look_up(tx.db(), claim, now).await
                        && stored.ended_right
                    {
                        return Ok((tx, Attempt::Replay(stored.reply), Vec::new()));
                    }
                    return Err(error);
                }
            };
            if let Some(claim) = claim
                && let Claimed::Replay(reply) = idempotency::claim(tx.db(), claim, now).await?
            {
                return Ok((tx, Attempt::Replay(reply), Vec::new()));
            }
            let touched: Vec<_> = proven.scopes().collect();
            for scope in touched {
                tx.touch(scope);
            }
            let (answer, outcome) =
                match run(&mut tx, proven, request.clone(), prepared.clone()).await? {
                    Outcome::Done(answer) => (Attempt::Done(answer), "OK"),
                    Outcome::Refuse(error) => {
                        let outcome = reason_name(error.reason());
                        (Attempt::Refused(error), outcome)
                    }
                };
            if tx.validate_only {
                return Ok((tx, answer, Vec::new()));
            }
            let event_id = tx.id();
            let origin = origin_of(call);
            let ended = match (&answer, call.caller.who) {
                (Attempt::Done(_), who)
                    if claim.is_some()
                        && (link.is_some()
                            || who.is_some_and(|who| tx.told_of(who.principal.id))) =>
                {
                    let again = proof::prove(
                        tx.db(),
                        &self.keys,
                        &call.caller,
                        call.rule,
                        named,
                        request,
                        now,
                    );
                    match again.await {
                        Ok(_) => false,
                        // A database that failed says nothing about rights; what was begun may be gone already.
                        Err(error) if error.again().is_some() || error.is_ours() => {
                            return Err(error);
                        }
                        Err(_) => true,
                    }
                }
                _ => false,
            };
            let with_events = call.rule.claims();
            tx.work
                .finish(&self.keys, &origin, outcome, event_id, with_events)
                .await?;
            let mut reply = Vec::new();
            match (claim, &answer) {
                (Some(claim), Attempt::Done(answer)) => {
                    let mut stored = answer.clone();
                    stored.redact();
                    reply = stored.encode_to_vec();
                    let kept_from = tx.moved_to.unwrap_or(now);
                    idempotency::settle(tx.db(), claim, &reply, ended, kept_from).await?;
                }
                (Some(claim), _) => idempotency::give_up(tx.db(), claim).await?,
                (None, _) => {}
            }
            Ok((tx, answer, reply))
        };
        let (tx, answer, reply) = self.in_time(call, work).await?;
        if tx.validate_only {
            tx.work.into_db().rollback().await?;
            return Ok(match answer {
                Attempt::Done(mut answer) => {
                    answer.redact();
                    Attempt::Done(answer)
                }
                other => other,
            });
        }
        // From here on nothing stops it: a commit that has begun is finished (COM-13).
        if let Err(fault) = tx.work.into_db().commit().await {
            let error = Error::from(fault);
            if error.again().is_some() {
                return Err(error);
            }
            // The connection broke while committing: the claim tells whether it was done.
            if let Some(claim) = claim
                && let Ok(now) = self.now().await
                && let Ok(Some(stored)) = idempotency::look_up(&self.db.read, claim, now).await
            {
                // Ours, or that of a repetition which came between: only ours may show its secrets.
                return Ok(if stored.reply == reply {
                    answer
                } else {
                    Attempt::Replay(stored.reply)
                });
            }
            return Err(Error::unavailable(
                Reason::DatabaseUnavailable,
                format!("the commit's outcome is unknown: {error}"),
            ));
        }
        Ok(answer)
    }

    async fn turn(&self, scope: ScopeKey) -> Result<tokio::sync::OwnedSemaphorePermit> {
        let turns = self.turns.get_with(scope, || {
            Arc::new(tokio::sync::Semaphore::new(WRITERS_A_SCOPE))
        });
        turns
            .acquire_owned()
            .await
            .map_err(|e| Error::internal(e.to_string()))
    }

    /// Runs work until the deadline, or until the caller is gone; what it did is rolled back then.
    async fn in_time<T>(&self, call: &Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = call.gone.cancelled() => Err(Error::cancelled()),
            done = tokio::time::timeout_at(call.deadline, work) => done.unwrap_or_else(|_| Err(Error::late())),
        }
    }

    /// Runs a transaction that only writes audit events of its own making.
    pub(crate) async fn note<F>(&self, run: F) -> Result<()>
    where
        F: for<'a> Fn(&'a mut Tx) -> BoxFuture<'a, Result<()>>,
    {
        self.job("note", move |tx, _| run(tx)).await
    }

    /// Runs a job of the service's own in one transaction: with audit and events, without caller.
    ///
    /// # Errors
    /// Those of the job.
    pub async fn job<T, F>(&self, name: &'static str, run: F) -> Result<T>
    where
        F: for<'a> Fn(&'a mut Tx, JobScope) -> BoxFuture<'a, Result<T>>,
    {
        let mut attempts = 0;
        let mut extra = Vec::new();
        loop {
            attempts += 1;
            match self.job_once(name, &extra, &run).await {
                Err(error) if attempts < MOST_ATTEMPTS => match error.again() {
                    None => return Err(error),
                    Some([]) => tokio::time::sleep(FIRST_PAUSE * attempts).await,
                    Some(needs) => extra = needs.to_vec(),
                },
                other => return other,
            }
        }
    }

    async fn job_once<T, F>(&self, name: &'static str, extra: &[ScopeKey], run: &F) -> Result<T>
    where
        F: for<'a> Fn(&'a mut Tx, JobScope) -> BoxFuture<'a, Result<T>>,
    {
        let mut tx = Tx {
            app: self.clone(),
            caller: Caller {
                who: None,
                via: None,
                address: None,
                language: crate::error::Language::English,
                trace_id: String::new(),
            },
            method: name,
            work: Work::new(self.snapshot(true).await?),
            validate_only: false,
            moved_to: None,
        };
        tx.lock(extra.iter().copied()).await?;
        let answer = run(&mut tx, JobScope::new(name)).await?;
        let news = tx.has_news();
        let event_id = tx.id();
        let origin = Origin {
            action: name.to_owned(),
            actor: format!("operator/jobs/{name}"),
            ..Origin::default()
        };
        tx.work
            .finish(&self.keys, &origin, "OK", event_id, true)
            .await?;
        tx.work.into_db().commit().await?;
        if news {
            self.committed.notify_waiters();
        }
        Ok(answer)
    }

    /// Runs a job's reading in one snapshot.
    ///
    /// # Errors
    /// Those of the job.
    pub async fn look<T, F>(&self, run: F) -> Result<T>
    where
        F: for<'a> FnOnce(&'a Snapshot) -> BoxFuture<'a, Result<T>>,
    {
        let snapshot = self.snapshot(false).await?;
        let answer = run(&snapshot).await?;
        snapshot.into_db().commit().await?;
        Ok(answer)
    }

    /// Has a refusal audited where COM-10 asks for it; gives the error that is answered.
    async fn refuse(&self, call: &Call, named: &Named, error: Error) -> Error {
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
    error.code() == tonic::Code::PermissionDenied || error.reason() == Reason::RightsAsleep
}

/// Who did it and by what, for audit and events.
#[must_use]
pub fn origin_of(call: &Call) -> Origin {
    Origin {
        action: call.rule.method.to_owned(),
        actor: call.caller.name(),
        via: call.caller.via_name(),
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
