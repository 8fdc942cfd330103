//! Calls that write wait for each other here, to share a commit. A lane takes what waits, runs the calls one after another in one
//! transaction, and answers them when it is committed. SQLite has one lane; on PostgreSQL the calls of a tenant are in the same one.
//!
//! - A call that comes alone waits for nobody: it is a batch of one, in a transaction of its own.
//! - A call that fails having written nothing is left out. One that had written, was cut off, or met a database's error spoils the batch: it
//!   is rolled back, and each of its calls runs by itself, as if it had come alone.
//! - No answer is given before the commit, also none that refuses: it may rest on what an earlier call of the batch wrote.
//! - The transaction is the lane's. A caller who leaves before its turn is skipped; after that, its effect is found by its `request_id`.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use prost::Message;
use sea_orm::DbBackend;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    App, Begin, Outcome, Tx,
    attempt::{Attempt, Carried, Given, Proofs},
    tx::Turn,
};
use crate::{
    access::scope::Proof,
    check::{Redact, Request},
    env::Micros,
    error::{Error, Reason, Result},
    store::{batch::Batch, idempotency::Claim, scope_key::ScopeKey, work::Work},
};

/// Lanes on PostgreSQL: while one commits, others work.
const POSTGRES_LANES: usize = 4;
/// Calls that share a commit: more would only wait longer for each other.
const MOST_JOBS: usize = 64;
/// Calls that wait in a lane; the bound of calls at once comes before it.
const MOST_WAITING: usize = 4_096;
/// A batch takes up no further call after that; the rest is the next batch.
const BATCH_WITHIN: Duration = Duration::from_millis(100);
/// A call that others wait for is given so long, then it runs by itself.
const JOB_WITHIN: Duration = Duration::from_millis(100);
/// A batch waits so long for locks that other replicas hold, and for those that its last statements need; on PostgreSQL the server itself
/// waits for none of them longer than a half of that.
const LOCKS_WITHIN: Duration = Duration::from_millis(500);
/// A batch that takes longer doesn't keep the next one from beginning.
const SLOW: Duration = Duration::from_millis(250);
/// Batches of a lane that go on beside it.
const MOST_SLOW: usize = 2;

/// The lanes; they begin with the first call.
pub struct Lanes {
    backend: DbBackend,
    queues: OnceLock<Vec<mpsc::Sender<Box<dyn Job>>>>,
    next: AtomicUsize,
    /// Calls that wait or are at work.
    present: Arc<AtomicUsize>,
    /// Taken while a batch is put together; tests hold it so that calls wait for each other.
    gate: Arc<Semaphore>,
    /// Nothing is shared.
    apart: AtomicBool,
    /// A batch may take its time.
    patient: AtomicBool,
}

impl Lanes {
    /// Those of a database.
    #[must_use]
    pub fn new(backend: DbBackend) -> Self {
        Self {
            backend,
            queues: OnceLock::new(),
            next: AtomicUsize::new(0),
            present: Arc::default(),
            gate: Arc::new(Semaphore::new(1)),
            apart: AtomicBool::new(false),
            patient: AtomicBool::new(false),
        }
    }

    /// How long something of a batch may take.
    fn within(&self, bound: Duration) -> Duration {
        if self.patient.load(Ordering::Relaxed) {
            bound * 100
        } else {
            bound
        }
    }

    /// Has no batch come apart because the machine is busy: for tests.
    #[cfg(debug_assertions)]
    pub fn be_patient(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }

    /// Whether calls are kept apart.
    pub(super) fn are_apart(&self) -> bool {
        self.apart.load(Ordering::Relaxed)
    }

    /// Has each call run by itself from now on, as those of a spoilt batch do: for tests.
    #[cfg(debug_assertions)]
    pub fn keep_apart(&self) {
        self.apart.store(true, Ordering::Relaxed);
    }

    /// How many calls wait or are at work.
    #[must_use]
    pub fn present(&self) -> usize {
        self.present.load(Ordering::SeqCst)
    }

    /// Lets no batch begin while it is held: for tests.
    ///
    /// # Errors
    /// None: the gate is never closed.
    #[cfg(debug_assertions)]
    pub async fn hold(&self) -> Result<tokio::sync::OwnedSemaphorePermit> {
        let held = self.gate.clone().acquire_owned().await;
        held.map_err(|e| Error::internal(e.to_string()))
    }

    /// A place at work without waiting, if nobody else has one: there is nobody to share a commit with.
    pub(super) fn alone(&self) -> Option<Place> {
        if self.gate.available_permits() == 0 {
            return None;
        }
        let first = self
            .present
            .compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst);
        first.ok().map(|_| Place {
            state: AtomicU8::new(TAKEN),
            present: self.present.clone(),
        })
    }

    fn send(&self, job: Box<dyn Job>) -> Result<()> {
        let queues = self.queues.get_or_init(|| {
            let lanes = match self.backend {
                DbBackend::Postgres => POSTGRES_LANES,
                _ => 1,
            };
            let open = |_| {
                let (sender, receiver) = mpsc::channel(MOST_WAITING);
                tokio::spawn(lane(receiver, self.gate.clone()));
                sender
            };
            (0..lanes).map(open).collect()
        });
        let n = match job.scopes().first() {
            Some(scope) => scope.id().as_bytes().iter().map(|b| usize::from(*b)).sum(),
            None => self.next.fetch_add(1, Ordering::Relaxed),
        };
        let full = || Error::exhausted(Reason::Overloaded, Some(Duration::from_secs(1)));
        queues
            .get(n % queues.len())
            .ok_or_else(full)?
            .try_send(job)
            .map_err(|_| full())
    }
}

/// How a batch ended for a call.
enum End {
    /// It is committed.
    Committed,
    /// Nothing of it was done: each call runs by itself.
    Spoilt,
    /// The connection broke while committing.
    Unknown(String),
}

/// A call that waits for a batch.
trait Job: Send + Sync {
    fn app(&self) -> &App;
    fn scopes(&self) -> &[ScopeKey];
    fn claim(&self) -> Option<&Claim>;
    /// Its turn has come, if its caller is still there.
    fn take(&self) -> bool;
    /// Runs in a transaction of its own.
    fn alone(self: Box<Self>) -> BoxFuture<'static, ()>;
    /// Runs in the batch's transaction, which is given back unless the call has spoilt it, and tells whether it has moved the test clock.
    fn run<'a>(
        &'a mut self,
        batch: Batch,
        now: Micros,
        proofs: &'a mut Proofs,
    ) -> BoxFuture<'a, Option<(Batch, bool)>>;
    fn tell(self: Box<Self>, end: &End);
}

/// What a caller hears of its batch.
enum Told<S> {
    Ended(Result<Attempt<S>>),
    Spoilt,
    Unknown(Carried<S>, String),
}

const WAITS: u8 = 0;
const TAKEN: u8 = 1;
const LEFT: u8 = 2;

/// Where a caller stands in a lane.
pub(super) struct Place {
    state: AtomicU8,
    present: Arc<AtomicUsize>,
}

impl Place {
    fn goes(&self, to: u8) -> bool {
        let gone = self
            .state
            .compare_exchange(WAITS, to, Ordering::SeqCst, Ordering::SeqCst);
        gone.is_ok()
    }
}

/// Ends with the last that knows of the call.
impl Drop for Place {
    fn drop(&mut self) {
        self.present.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A caller who waits; dropped, it has left.
struct Waiting(Arc<Place>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.goes(LEFT);
    }
}

struct Ride<R, S, P, F> {
    given: Arc<Given<R, P, F>>,
    scopes: Vec<ScopeKey>,
    place: Arc<Place>,
    tell: oneshot::Sender<Told<S>>,
    /// What it came to, told once it is committed.
    ended: Option<Result<Carried<S>>>,
}

impl<R, S, P, F> Job for Ride<R, S, P, F>
where
    R: Request,
    S: Message + Default + Redact + Clone + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>
        + Send
        + Sync
        + 'static,
{
    fn app(&self) -> &App {
        &self.given.app
    }

    fn scopes(&self) -> &[ScopeKey] {
        &self.scopes
    }

    fn claim(&self) -> Option<&Claim> {
        self.given.claim.as_ref()
    }

    fn take(&self) -> bool {
        self.place.goes(TAKEN)
    }

    fn alone(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let ended = self.given.attempt(Begin::Lane, &[]).await;
            // Who has left doesn't hear it.
            self.tell.send(Told::Ended(ended)).ok();
        })
    }

    fn run<'a>(
        &'a mut self,
        batch: Batch,
        now: Micros,
        proofs: &'a mut Proofs,
    ) -> BoxFuture<'a, Option<(Batch, bool)>> {
        Box::pin(async move {
            batch.next_call();
            let mut tx = self.given.tx(Work::new(batch, now), Turn::Idle);
            let call = &self.given.call;
            let carried = tokio::select! {
                biased;
                () = call.gone.cancelled() => return None,
                carried = tokio::time::timeout_at(
                    call.deadline.min(Instant::now() + self.given.app.lanes.within(JOB_WITHIN)),
                    AssertUnwindSafe(self.given.carry::<S>(&mut tx, &[], proofs)).catch_unwind(),
                ) => carried.ok()?.ok()?,
            };
            let batch = tx.batch();
            match &carried {
                Ok(_) if batch.has_failed() => return None,
                Err(_) if !batch.take_back() => return None,
                _ => {}
            }
            let moved = tx.moved_to.is_some();
            self.ended = Some(carried);
            Some((tx.work.into_batch(), moved))
        })
    }

    fn tell(self: Box<Self>, end: &End) {
        let told = match (end, self.ended) {
            (End::Committed, Some(ended)) => Told::Ended(ended.map(|(answer, _)| answer)),
            (End::Unknown(fault), Some(Ok(carried))) => Told::Unknown(carried, fault.clone()),
            _ => Told::Spoilt,
        };
        // Who has left doesn't hear it.
        self.tell.send(told).ok();
    }
}

impl<R: Request, P, F> Given<R, P, F> {
    /// Waits for a batch, and for its end; None if the batch was spoilt and the call is to run by itself.
    pub(super) async fn ride<S>(self: &Arc<Self>) -> Result<Option<Attempt<S>>>
    where
        S: Message + Default + Redact + Clone + Send + Sync + 'static,
        P: Clone + Send + Sync + 'static,
        F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>
            + Send
            + Sync
            + 'static,
    {
        let lanes = &self.app.lanes;
        lanes.present.fetch_add(1, Ordering::SeqCst);
        let place = Arc::new(Place {
            state: AtomicU8::new(WAITS),
            present: lanes.present.clone(),
        });
        let waiting = Waiting(place.clone());
        let (tell, mut told) = oneshot::channel();
        lanes.send(Box::new(Ride {
            scopes: self.scopes(),
            given: self.clone(),
            place,
            tell,
            ended: None,
        }))?;
        let early = tokio::select! {
            told = &mut told => Ok(told),
            () = self.call.gone.cancelled() => Err(Error::cancelled()),
            () = tokio::time::sleep_until(self.call.deadline) => Err(Error::late()),
        };
        let told = match early {
            Ok(told) => told,
            Err(error) if waiting.0.goes(LEFT) => return Err(error),
            // Its turn has come: the lane keeps its deadline until it commits, and then there is an answer.
            Err(_) => told.await,
        };
        match told {
            Ok(Told::Ended(ended)) => ended.map(Some),
            Ok(Told::Spoilt) => Ok(None),
            Ok(Told::Unknown(carried, fault)) => {
                self.after_broken_commit(carried, &fault).await.map(Some)
            }
            Err(_) => Err(Error::internal("a batch ended without an answer")),
        }
    }
}

/// One lane; it ends when the application does. What it holds must not hold the application.
async fn lane(mut queue: mpsc::Receiver<Box<dyn Job>>, gate: Arc<Semaphore>) {
    let mut waiting: VecDeque<Box<dyn Job>> = VecDeque::new();
    let mut slow: FuturesUnordered<JoinHandle<Vec<Box<dyn Job>>>> = FuturesUnordered::new();
    loop {
        if waiting.is_empty() {
            tokio::select! {
                job = queue.recv() => match job {
                    Some(job) => waiting.push_back(job),
                    None => break,
                },
                Some(rest) = slow.next(), if !slow.is_empty() => {
                    waiting.extend(rest.unwrap_or_default());
                    continue;
                }
            }
        }
        drop(gate.acquire().await);
        while waiting.len() < MOST_JOBS
            && let Ok(job) = queue.try_recv()
        {
            waiting.push_back(job);
        }
        let jobs = waiting.drain(..waiting.len().min(MOST_JOBS)).collect();
        // In a task of its own: a panic ends the batch, not the lane.
        let mut running = tokio::spawn(batch(jobs));
        match timeout(SLOW, &mut running).await {
            Ok(rest) => {
                for job in rest.unwrap_or_default().into_iter().rev() {
                    waiting.push_front(job);
                }
            }
            Err(_) => {
                slow.push(running);
                if slow.len() >= MOST_SLOW
                    && let Some(rest) = slow.next().await
                {
                    waiting.extend(rest.unwrap_or_default());
                }
            }
        }
    }
    while let Some(rest) = slow.next().await {
        for job in rest.unwrap_or_default() {
            job.tell(&End::Spoilt);
        }
    }
}

/// One batch; gives the jobs that it didn't come to.
async fn batch(mut jobs: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
    if jobs.len() <= 1 {
        if let Some(job) = jobs.pop()
            && job.take()
        {
            job.alone().await;
        }
        return Vec::new();
    }
    let (end, done) = share(&mut jobs).await;
    let rest = jobs.split_off(done);
    if matches!(end, End::Spoilt) {
        tracing::debug!(calls = done, "a batch is run call by call");
    }
    for job in jobs {
        job.tell(&end);
    }
    rest
}

/// Runs jobs in one transaction; how it ended, and how many they were, from the first.
async fn share(jobs: &mut [Box<dyn Job>]) -> (End, usize) {
    let all = jobs.len();
    let Some(app) = jobs.first().map(|job| job.app().clone()) else {
        return (End::Committed, 0);
    };
    // On SQLite this waits for whoever writes; callers whose deadline passes meanwhile leave.
    let Ok(db) = app.begin(Begin::Lane).await else {
        return (End::Spoilt, all);
    };
    let begun = Instant::now();
    let opened = timeout(
        app.lanes.within(LOCKS_WITHIN),
        open(&app, Batch::new(db, true, &app.memory), jobs),
    )
    .await;
    let Ok(Ok((mut batch, mut offset))) = opened else {
        return (End::Spoilt, all);
    };
    let (mut done, mut proofs) = (0, Proofs::default());
    for job in jobs.iter_mut() {
        if done > 0 && begun.elapsed() > app.lanes.within(BATCH_WITHIN) {
            break;
        }
        done += 1;
        if !job.take() {
            continue;
        }
        let now = app.env.now() + offset;
        let Some((given_back, moved)) = job.run(batch, now, &mut proofs).await else {
            return (End::Spoilt, done);
        };
        batch = given_back;
        if moved {
            match app.offset_in(batch.db()).await {
                Ok(moved) => offset = moved,
                Err(_) => return (End::Spoilt, done),
            }
        }
    }
    if !matches!(
        timeout(app.lanes.within(LOCKS_WITHIN), batch.write()).await,
        Ok(Ok(()))
    ) {
        return (End::Spoilt, done);
    }
    match app.commit(batch).await.map_err(Error::from) {
        Ok(()) => (End::Committed, done),
        Err(error) if error.again().is_some() => (End::Spoilt, done),
        Err(error) => (End::Unknown(error.to_string()), done),
    }
}

/// Locks the scopes of all jobs, and looks their claims up; gives the test clock's offset too.
async fn open(app: &App, mut batch: Batch, jobs: &[Box<dyn Job>]) -> Result<(Batch, Micros)> {
    let offset = app.offset_in(batch.db()).await?;
    let scopes = jobs.iter().flat_map(|job| job.scopes()).copied();
    batch.lock_proven(scopes, &Default::default()).await?;
    let claims = jobs.iter().filter_map(|job| job.claim());
    batch.prepare(claims, &app.memory).await?;
    Ok((batch, offset))
}
