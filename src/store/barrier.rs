//! The barrier on PostgreSQL: one statement, on a connection of its own, tells which keys changed since the last one, for all calls that
//! wait for it. A call waits for a statement that begins after it came; so what it has from memory is as new as the database, whichever
//! replica changed it.
//!
//! What a round tells is what the snapshot of the round before couldn't see: transactions that were not begun then, or not ended. The order
//! of a sequence isn't that of commits, so no number is a cursor here.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    ConnectionTrait, DbBackend,
    sqlx::{
        Connection as _, PgConnection, Row as _,
        postgres::{PgConnectOptions, PgRow},
    },
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{clock::Clock, sql};
use crate::error::{Error, Reason, Result};

/// Calls that wait at once: many more than are worked on at once.
const MOST_WAITING: usize = 10_000;
/// A batch that still grows is given the runtime so often before its statement is sent.
const YIELDS: usize = 2;
/// A round, with connecting anew if need be, takes at most so long.
const ROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// Variants that are wrong, to show that the tests would notice.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Broken {
    /// As it should be.
    #[default]
    Not = 0,
    /// Who comes while the statement runs is released with its answer.
    Early = 1,
    /// The numbers of transactions are taken for the order of their commits.
    Sequence = 2,
    /// On SQLite: what a commit changes isn't in doubt before it ends.
    Undoubted = 3,
}

/// Where calls wait.
#[derive(Debug)]
pub struct Barrier {
    waiting: mpsc::Sender<oneshot::Sender<bool>>,
    /// Which variant runs.
    #[cfg(debug_assertions)]
    pub broken: Arc<std::sync::atomic::AtomicU8>,
}

impl Barrier {
    /// Starts it; ends with the last of its callers.
    #[must_use]
    pub fn start(clock: Arc<Clock>, options: PgConnectOptions) -> Self {
        let (waiting, calls) = mpsc::channel(MOST_WAITING);
        let options = options.application_name("entente barrier").options([
            ("statement_timeout", "5000"),
            ("default_transaction_read_only", "on"),
        ]);
        #[cfg(debug_assertions)]
        let broken = Arc::default();
        let line = Line {
            clock,
            options,
            open: None,
            #[cfg(debug_assertions)]
            broken: Arc::clone(&broken),
        };
        tokio::spawn(line.run(calls));
        Self {
            waiting,
            #[cfg(debug_assertions)]
            broken,
        }
    }

    /// Waits for a round that begins after this.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the database can't be asked, or is a standby.
    pub async fn pass(&self) -> Result<()> {
        let unavailable = |why: &str| Error::unavailable(Reason::DatabaseUnavailable, why);
        let (passed, wait) = oneshot::channel();
        self.waiting
            .try_send(passed)
            .map_err(|_| unavailable("the barrier takes no more calls"))?;
        match wait.await {
            Ok(true) => Ok(()),
            _ => Err(unavailable("the barrier was lost")),
        }
    }
}

/// Told keys are kept so long at least, by the database's clock, which no test moves: that whoever still needs them hasn't slept for long.
/// Who did finds that they are gone, and forgets everything.
const KEPT: &str = "5 minutes";

/// Removes the keys that were told before the mark of the last time, and sets the next mark.
///
/// # Errors
/// Those of the database.
pub async fn purge<C: ConnectionTrait>(db: &C) -> Result<u64> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(0);
    }
    // What comes from the future lies about where it is from, and would never be old enough.
    let sql = format!(
        "WITH due AS ( \
           UPDATE changed_keys_purge SET below = mark, mark = pg_snapshot_xmin(pg_current_snapshot()), mark_time = clock_timestamp() \
           WHERE mark_time < clock_timestamp() - interval '{KEPT}' RETURNING below \
         ) DELETE FROM changed_keys k USING due \
           WHERE k.xid < due.below OR k.xid >= pg_snapshot_xmax(pg_current_snapshot())"
    );
    Ok(sql::execute(db, sql, []).await?.rows_affected())
}

/// What the last round saw.
struct Seen {
    /// All transactions before this one had ended.
    xmin: u64,
    /// None from this one on was seen.
    xmax: u64,
    /// Those between that hadn't ended.
    running: Vec<u64>,
}

impl Seen {
    /// As PostgreSQL writes a snapshot: `xmin:xmax:xip,xip`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let xmin = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let running = parts.next()?;
        let running = running.split(',').filter(|x| !x.is_empty());
        let running = running
            .map(|x| x.parse().ok())
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            xmin,
            xmax,
            running,
        })
    }
}

/// The connection, and the loop over it.
struct Line {
    clock: Arc<Clock>,
    options: PgConnectOptions,
    open: Option<(PgConnection, Option<Seen>)>,
    #[cfg(debug_assertions)]
    broken: Arc<std::sync::atomic::AtomicU8>,
}

// What comes from the future lies about where it is from: a dump of another server.
const ROUND: &str = "SELECT CAST(pg_current_snapshot() AS text) AS snapshot, pg_is_in_recovery() AS standby, \
    (SELECT CAST(CAST(below AS text) AS bigint) FROM changed_keys_purge) AS purged_below, \
    ARRAY(SELECT k.key FROM ( \
      SELECT key FROM changed_keys WHERE xid >= CAST($1 AS xid8) AND xid < pg_snapshot_xmax(pg_current_snapshot()) \
      UNION ALL SELECT key FROM changed_keys WHERE xid = ANY(CAST($2 AS xid8[])) \
    ) k LIMIT 4097) AS keys";

impl Line {
    async fn run(mut self, mut calls: mpsc::Receiver<oneshot::Sender<bool>>) {
        let mut batch = Vec::new();
        loop {
            if calls.recv_many(&mut batch, MOST_WAITING).await == 0 {
                return;
            }
            for _ in 0..YIELDS {
                let before = batch.len();
                tokio::task::yield_now().await;
                while let Ok(call) = calls.try_recv() {
                    batch.push(call);
                }
                if batch.len() == before {
                    break;
                }
            }
            // Whoever comes from here on waits for the next one.
            let good = self.round_or_again().await;
            #[cfg(debug_assertions)]
            if self.is(Broken::Early) {
                // Rare otherwise, so that a test would wait for hours to see it.
                tokio::time::sleep(Duration::from_millis(20)).await;
                while let Ok(call) = calls.try_recv() {
                    batch.push(call);
                }
            }
            for call in batch.drain(..) {
                // A call that is gone waits no more.
                call.send(good).ok();
            }
        }
    }

    #[cfg(debug_assertions)]
    fn is(&self, broken: Broken) -> bool {
        self.broken.load(std::sync::atomic::Ordering::SeqCst) == broken as u8
    }

    /// A round; a lost connection is made anew once: nothing was answered yet, and all is forgotten.
    async fn round_or_again(&mut self) -> bool {
        let both = async {
            match self.round().await {
                Ok(()) => Ok(()),
                Err(first) => {
                    tracing::debug!(%first, "the barrier's connection is made anew");
                    self.open = None;
                    self.round().await
                }
            }
        };
        let fault = match tokio::time::timeout(ROUND_TIMEOUT, both).await {
            Ok(Ok(())) => return true,
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(fault, "the barrier is lost");
        self.open = None;
        false
    }

    async fn round(&mut self) -> std::result::Result<(), sea_orm::SqlxError> {
        // Taken out: a round that is left in its middle leaves no connection behind whose state nobody knows.
        let (mut connection, seen) = match self.open.take() {
            Some(open) => open,
            None => (PgConnection::connect_with(&self.options).await?, None),
        };
        // Before the first snapshot there is nothing to compare with: all is forgotten, whatever changed.
        let from = seen.as_ref().map_or(u64::MAX, |s| s.xmax);
        let running: Vec<String> = match &seen {
            #[cfg(debug_assertions)]
            _ if self.is(Broken::Sequence) => Vec::new(),
            Some(seen) => seen.running.iter().map(ToString::to_string).collect(),
            None => Vec::new(),
        };
        let row: PgRow = sea_orm::sqlx::query(ROUND)
            .bind(from.to_string())
            .bind(format!("{{{}}}", running.join(",")))
            .fetch_one(&mut connection)
            .await?;
        let broken = |what: &str| sea_orm::SqlxError::Protocol(what.to_owned());
        if row.try_get::<bool, _>("standby")? {
            return Err(broken("the database is a standby"));
        }
        let snapshot = Seen::parse(row.try_get("snapshot")?)
            .ok_or_else(|| broken("a snapshot could not be read"))?;
        // None: the tables were emptied by a crash or by hand.
        let purged_below: Option<i64> = row.try_get("purged_below")?;
        let keys: Vec<Uuid> = row.try_get("keys")?;
        let whole = seen.is_some_and(|seen| {
            purged_below
                .and_then(|below| u64::try_from(below).ok())
                .is_some_and(|below| below <= seen.xmin)
        });
        if whole {
            self.clock.apply(&keys);
        } else {
            self.clock.flush();
        }
        self.open = Some((connection, Some(snapshot)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_read_as_they_are_written() {
        let seen = Seen::parse("10:20:10,14").unwrap();
        assert_eq!((seen.xmin, seen.xmax, seen.running), (10, 20, vec![10, 14]));
        let seen = Seen::parse("7:7:").unwrap();
        assert_eq!((seen.xmin, seen.xmax, seen.running), (7, 7, vec![]));
        assert!(Seen::parse("7:").is_none());
        assert!(Seen::parse("a:7:").is_none());
    }
}
