//! Facts remembered from one call to the next, and vouched for by the database at each (ROL-10). A call gathers what it needs, from memory
//! or from the database; before it answers, it has the database vouch for all of it at one moment after the call came: on PostgreSQL a
//! round of the barrier, on SQLite the keys that this process has in doubt and numbers around each commit. What doesn't hold any more is
//! never answered: the call is made anew, and in the end within one snapshot.
//!
//! So what a call answers from memory is what it would have read at that moment, all together. The memory alone never decides.

use std::{
    any::{Any, TypeId},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use sea_orm::{
    ConnectionTrait, DbErr, SqlxError, Statement,
    sqlx::{SqliteConnection, postgres::PgConnectOptions},
};
use uuid::Uuid;

#[cfg(debug_assertions)]
use super::barrier::Broken;
use super::{
    barrier::Barrier,
    batch::Leaves,
    clock::{Clock, Doubted, Stripe},
    heads::{self, Heads},
};
use crate::{config::Freshness, error::Result};

/// What is remembered takes at most so many bytes, by estimate.
const MOST_BYTES: u64 = 32 * 1_024 * 1_024;
/// What an entry takes besides its value: keys, counters, the places in the map and in its queues.
const ENTRY_BYTES: usize = 420;
/// What depends on more keys than this is not remembered: to check it would cost more than to read it.
pub const MOST_DEPS: usize = 100;

/// Something that the database tells, and that may be remembered. Comes from one statement, or, where that is said, from one snapshot.
pub trait Fact: Send + Sync + 'static {
    /// What is told.
    type Value: Send + Sync + 'static;
    /// Whether it takes several statements, so a snapshot of the call's.
    const SEVERAL: bool = false;

    /// What tells it from others of its type.
    fn key(&self) -> [Uuid; 4];

    /// Asks the database.
    fn load<C: ConnectionTrait>(
        &self,
        db: &C,
    ) -> impl Future<Output = Result<Found<Self::Value>>> + Send;
}

/// What the database told.
pub struct Found<V> {
    /// The fact.
    pub value: V,
    /// The keys of all rows that it was made from, as triggers tell them (`m0008_changed_keys.rs`); of absent ones too, if it is kept.
    pub deps: Vec<Uuid>,
    /// What the value takes, in bytes, by estimate.
    pub bytes: usize,
    /// Whether it is worth remembering, and its absence no secret.
    pub keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key(TypeId, [Uuid; 4]);

/// A fact in memory: good as long as nothing it depends on was told of after `at`.
pub struct Kept {
    at: u64,
    deps: Box<[Stripe]>,
    bytes: u32,
    value: Arc<dyn Any + Send + Sync>,
}

/// How the database vouches.
enum Voucher {
    /// Several processes may write.
    Postgres(Barrier),
    /// This process is the only one that writes.
    Sqlite(Arc<Commits>),
}

/// What is remembered, and who vouches for it.
pub struct Memory {
    clock: Arc<Clock>,
    kept: moka::sync::Cache<Key, Arc<Kept>>,
    freshness: Freshness,
    voucher: Voucher,
    #[cfg(debug_assertions)]
    broken: Arc<std::sync::atomic::AtomicU8>,
}

impl Memory {
    /// Empty, over a database.
    #[must_use]
    pub fn new(freshness: Freshness, on: Source) -> Self {
        let clock = Arc::new(Clock::default());
        #[cfg(debug_assertions)]
        let mut broken = Arc::default();
        let voucher = match on {
            Source::Sqlite(commits) => Voucher::Sqlite(commits),
            Source::Postgres(options) => {
                let barrier = Barrier::start(Arc::clone(&clock), *options);
                #[cfg(debug_assertions)]
                {
                    broken = Arc::clone(&barrier.broken);
                }
                Voucher::Postgres(barrier)
            }
        };
        Self {
            clock,
            kept: moka::sync::Cache::builder()
                .max_capacity(MOST_BYTES)
                .weigher(|_, kept: &Arc<Kept>| kept.bytes)
                .build(),
            freshness,
            voucher,
            #[cfg(debug_assertions)]
            broken,
        }
    }

    /// Whether anything may be answered from memory now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.freshness == Freshness::Barrier
            && match &self.voucher {
                Voucher::Postgres(_) => true,
                Voucher::Sqlite(commits) => commits.all_known(),
            }
    }

    /// The number for a load that begins after this.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.clock.number()
    }

    /// A fact that is remembered, as far as is known without asking; to be vouched for.
    #[must_use]
    pub fn recall<F: Fact>(&self, fact: &F) -> Option<(Arc<F::Value>, Arc<Kept>)> {
        let kept = self.kept.get(&Key(TypeId::of::<F>(), fact.key()))?;
        if !self.clock.holds(kept.at, &kept.deps) {
            return None;
        }
        let value = Arc::clone(&kept.value).downcast().ok()?;
        Some((value, kept))
    }

    /// Takes in what was loaded; `at` is the number from before the load. To be vouched for.
    pub fn take<F: Fact>(
        &self,
        fact: &F,
        at: u64,
        found: Found<F::Value>,
    ) -> (Arc<F::Value>, Arc<Kept>) {
        let mut deps: Vec<_> = found.deps.iter().map(|key| Stripe::of(*key)).collect();
        deps.sort_unstable();
        deps.dedup();
        let bytes = found.bytes + size_of_val(&*deps) + size_of::<F::Value>() + ENTRY_BYTES;
        let value = Arc::new(found.value);
        let kept = Arc::new(Kept {
            at,
            deps: deps.into(),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            value: Arc::clone(&value) as Arc<dyn Any + Send + Sync>,
        });
        if found.keep && kept.deps.len() <= MOST_DEPS {
            self.kept
                .insert(Key(TypeId::of::<F>(), fact.key()), Arc::clone(&kept));
        }
        (value, kept)
    }

    /// Has everything forgotten.
    pub fn forget(&self) {
        self.clock.flush();
        self.forget_heads();
    }

    /// Has the heads of scopes forgotten.
    pub fn forget_heads(&self) {
        if let Voucher::Sqlite(commits) = &self.voucher {
            commits.heads.forget();
        }
    }

    /// Has the database vouch for all that a call used: whether all of it held, together, at a moment after this was asked.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the database can't be asked.
    pub async fn vouch(&self, used: &[Arc<Kept>]) -> Result<bool> {
        if used.is_empty() {
            return Ok(true);
        }
        if let Voucher::Postgres(barrier) = &self.voucher {
            barrier.pass().await?;
        }
        let hold = used
            .iter()
            .all(|kept| self.clock.holds(kept.at, &kept.deps));
        Ok(hold && self.is_open())
    }

    /// Has the database vouch for all that memory holds from here on; whether it did. What is recalled after that is no older than what a
    /// statement would read that begins now.
    pub async fn pass(&self) -> bool {
        self.is_open()
            && match &self.voucher {
                Voucher::Postgres(barrier) => barrier.pass().await.is_ok(),
                // Who writes is alone.
                Voucher::Sqlite(_) => true,
            }
    }

    /// Heads as the last commit left them, where only this process commits.
    pub(super) fn heads(&self) -> Option<Arc<Heads>> {
        match &self.voucher {
            Voucher::Sqlite(commits) if commits.all_known() => Some(Arc::clone(&commits.heads)),
            _ => None,
        }
    }

    /// Before a commit, within its transaction: what it changes is in doubt until `settle`, which has to be called whatever becomes of
    /// the commit, but not before it has ended. None on PostgreSQL, where the barrier tells.
    ///
    /// # Errors
    /// Those of the database; then nothing may be committed.
    pub(crate) async fn doubt<C: ConnectionTrait>(
        &self,
        db: &C,
        leaves: Leaves,
    ) -> std::result::Result<Option<Announced>, DbErr> {
        let Voucher::Sqlite(commits) = &self.voucher else {
            return Ok(None);
        };
        let strange = commits.strange.load(SeqCst);
        if strange != commits.seen.load(SeqCst) {
            commits.heads.forget();
        }
        let keys = match leaves.keys {
            Some(keys) => keys,
            None => take_keys(db).await?,
        };
        #[cfg(debug_assertions)]
        let (keys, late) = if self.is(Broken::Undoubted) {
            (Vec::new(), keys)
        } else {
            (keys, Vec::new())
        };
        let doubted = self.clock.doubt(&keys);
        let turn = commits.heads.begin(leaves.heads);
        commits.ours.store(true, SeqCst);
        Ok(Some(Announced {
            doubted,
            turn,
            strange,
            #[cfg(debug_assertions)]
            late,
        }))
    }

    /// After the commit: what it changed is new from here on.
    pub(crate) fn settle(&self, announced: Announced, committed: bool) {
        let Voucher::Sqlite(commits) = &self.voucher else {
            return;
        };
        self.clock.settle(&announced.doubted);
        if committed {
            commits.heads.end(announced.turn);
        }
        commits.seen.fetch_max(announced.strange, SeqCst);
        #[cfg(debug_assertions)]
        self.clock.apply(&announced.late);
    }

    /// Commits of this process that didn't announce themselves: there are to be none.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn strangers(&self) -> u64 {
        match &self.voucher {
            Voucher::Postgres(_) => 0,
            Voucher::Sqlite(commits) => commits.strange.load(SeqCst),
        }
    }

    /// Has it go wrong in one way, so that a test can show that it would notice.
    #[cfg(debug_assertions)]
    pub fn break_it(&self, how: Broken) {
        self.broken.store(how as u8, SeqCst);
    }

    /// What is wrong for a moment only is so for longer, lest a test wait for hours to see it.
    #[cfg(debug_assertions)]
    pub async fn dawdle(&self) {
        if self.is(Broken::Undoubted) {
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
    }

    #[cfg(debug_assertions)]
    fn is(&self, how: Broken) -> bool {
        self.broken.load(SeqCst) == how as u8
    }
}

/// Where the voucher comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The commits of the one writing connection.
    Sqlite(Arc<Commits>),
    /// How the barrier connects: straight to the primary.
    Postgres(Box<PgConnectOptions>),
}

/// What a commit has in doubt.
pub(crate) struct Announced {
    doubted: Doubted,
    turn: heads::Turn,
    strange: u64,
    #[cfg(debug_assertions)]
    late: Vec<Uuid>,
}

/// Commits on SQLite's one writing connection. All of the application's are announced; while one of a stranger isn't told of yet, such as
/// a statement by hand, nothing is answered from memory. The keys that it left are taken by the next one that is announced.
#[derive(Default)]
pub struct Commits {
    /// The next commit is announced.
    ours: AtomicBool,
    /// Commits of strangers.
    strange: AtomicU64,
    /// Those among them whose keys were told.
    seen: AtomicU64,
    /// What the last ones left.
    heads: Arc<Heads>,
}

impl std::fmt::Debug for Commits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commits")
            .field("strange", &self.strange)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

async fn take_keys<C: ConnectionTrait>(db: &C) -> std::result::Result<Vec<Uuid>, DbErr> {
    let take = "DELETE FROM changed_keys RETURNING key";
    let statement = Statement::from_string(db.get_database_backend(), take);
    let rows = db.query_all_raw(statement).await?;
    rows.iter().map(|row| row.try_get("", "key")).collect()
}

impl Commits {
    fn all_known(&self) -> bool {
        self.strange.load(SeqCst) == self.seen.load(SeqCst)
    }

    /// Has a connection tell its commits, before they are seen.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn watch(
        self: Arc<Self>,
        connection: &mut SqliteConnection,
    ) -> std::result::Result<(), SqlxError> {
        let mut handle = connection.lock_handle().await?;
        self.ours.store(false, SeqCst);
        let rolled_back = Arc::clone(&self);
        handle.set_commit_hook(move || {
            if !self.ours.swap(false, SeqCst) {
                self.strange.fetch_add(1, SeqCst);
            }
            true
        });
        handle.set_rollback_hook(move || rolled_back.ours.store(false, SeqCst));
        Ok(())
    }
}
