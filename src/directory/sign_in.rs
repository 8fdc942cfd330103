//! Guesses are bounded (PWD-7, ATK-25): failures are counted for user and network, and over all; names that don't exist are counted
//! alike, in a table of fixed size, so that nothing tells them apart.

use std::{net::IpAddr, time::Duration};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use crate::{
    app::Tx,
    env::{DAY_US, MINUTE_US, Micros},
    error::{Error, Reason, Result},
    keys::{Keys, Purpose},
    store::sql,
};

/// Failures of one network that lock it for a while.
const FAILURES_A_LOCK: i64 = 10;
/// The first lock; each further one is twice as long.
const FIRST_LOCK_US: Micros = MINUTE_US;
/// The longest lock.
const LONGEST_LOCK_US: Micros = DAY_US;
/// Failures in a row that close password sign-in, from unknown networks and from known ones apart.
const FAILURES_TO_CLOSE: i64 = 100;
/// A network is known for so long after a success.
const KNOWN_US: Micros = 30 * DAY_US;
/// Rows for names that don't exist; half for networks, half for totals. Each counts the name that was tried there last.
const STRANGER_SLOTS: u64 = 1 << 17;

/// The network of an address: /24, or /48.
#[must_use]
pub fn network(address: Option<IpAddr>) -> String {
    match address.map(|a| a.to_canonical()) {
        Some(IpAddr::V4(a)) => {
            let [x, y, z, _] = a.octets();
            format!("{x}.{y}.{z}.0/24")
        }
        Some(IpAddr::V6(a)) => {
            let [x, y, z, ..] = a.segments();
            format!("{x:x}:{y:x}:{z:x}::/48")
        }
        None => "unknown".to_owned(),
    }
}

/// Who is guessed at.
#[derive(Clone, Debug)]
pub enum Target {
    /// A user.
    User(Uuid),
    /// A name that doesn't exist.
    Stranger(String),
}

/// What was counted before this attempt.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    network_failed: i64,
    locked_until: Micros,
    total_failed: i64,
    known: bool,
}

#[derive(FromQueryResult, Default)]
struct NetworkRow {
    failed: i64,
    locked_until: i64,
    last_success_time: i64,
}

#[derive(FromQueryResult, Default)]
struct TotalRow {
    strangers_failed: i64,
    known_failed: i64,
}

#[derive(FromQueryResult)]
struct StrangerRow {
    failed: i64,
    locked_until: i64,
    tag: i64,
}

/// Where a name that doesn't exist is counted, and what tells it from others there.
struct Slot {
    slot: i64,
    tag: i64,
}

/// The slots of a name that doesn't exist: for its network, and for its total.
fn slots(keys: &Keys, name: &str, network: &str) -> [Slot; 2] {
    let half = i64::try_from(STRANGER_SLOTS / 2).unwrap_or(0);
    let slot = |parts: &[&[u8]], from: i64| {
        let mac = keys.mac(Purpose::Secret, parts);
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&mac[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Slot {
            slot: from + i64::try_from(number(0) % (STRANGER_SLOTS / 2)).unwrap_or(0),
            tag: number(8).cast_signed(),
        }
    };
    let (name, network) = (name.as_bytes(), network.as_bytes());
    [
        slot(&[b"network", name, network], 0),
        slot(&[b"total", name], half),
    ]
}

/// Guesses at one target at once take turns, so that none goes uncounted.
async fn take_turns(tx: &Tx, target: &Target) -> Result<()> {
    let keys = &tx.app().keys;
    let mac = match target {
        Target::User(user) => keys.mac(Purpose::Secret, &[b"guessed user", user.as_bytes()]),
        Target::Stranger(name) => keys.mac(Purpose::Secret, &[b"guessed name", name.as_bytes()]),
    };
    sql::take_turns(tx.db(), &mac).await
}

/// Reads what was counted: as many statements for whomever.
///
/// # Errors
/// Those of the database.
pub async fn counted(tx: &Tx, target: &Target, network: &str) -> Result<Counted> {
    take_turns(tx, target).await?;
    read(tx.db(), &tx.app().keys, target, network, tx.now()).await
}

/// The same without taking turns, for preparations.
///
/// # Errors
/// Those of the database.
pub async fn read<C: ConnectionTrait>(
    db: &C,
    keys: &Keys,
    target: &Target,
    network: &str,
    now: Micros,
) -> Result<Counted> {
    let name = match target {
        Target::User(user) => return read_of_user(db, *user, network, now).await,
        Target::Stranger(name) => name,
    };
    let mut rows = [(0, 0); 2];
    for (row, Slot { slot, tag }) in rows.iter_mut().zip(slots(keys, name, network)) {
        let sql = "SELECT failed, locked_until, tag FROM sign_in_strangers WHERE slot = $1";
        let there = sql::one::<StrangerRow, _>(db, sql, [slot.into()]).await?;
        if let Some(there) = there.filter(|r| r.tag == tag) {
            *row = (there.failed, there.locked_until);
        }
    }
    let [(network_failed, locked_until), (total_failed, _)] = rows;
    Ok(Counted {
        network_failed,
        locked_until,
        total_failed,
        known: false,
    })
}

async fn read_of_user<C: ConnectionTrait>(
    db: &C,
    user: Uuid,
    network: &str,
    now: Micros,
) -> Result<Counted> {
    let sql = "SELECT failed, locked_until, last_success_time FROM sign_in_networks WHERE user_id = $1 AND network = $2";
    let values: [Value; 2] = [user.into(), network.into()];
    let row = sql::one::<NetworkRow, _>(db, sql, values)
        .await?
        .unwrap_or_default();
    let sql = "SELECT strangers_failed, known_failed FROM credentials WHERE user_id = $1";
    let total = sql::one::<TotalRow, _>(db, sql, [user.into()])
        .await?
        .unwrap_or_default();
    let known = row.last_success_time > 0 && now - row.last_success_time < KNOWN_US;
    Ok(Counted {
        network_failed: row.failed,
        locked_until: row.locked_until,
        total_failed: if known {
            total.known_failed
        } else {
            total.strangers_failed
        },
        known,
    })
}

impl Counted {
    /// Refuses while the network is locked, or sign-in is closed.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, `SIGN_IN_LOCKED`, with when to try again, if trying again helps.
    pub fn check(&self, now: Micros) -> Result<()> {
        if self.total_failed >= FAILURES_TO_CLOSE {
            return Err(Error::exhausted(Reason::SignInLocked, None));
        }
        if now < self.locked_until {
            let wait = u64::try_from(self.locked_until - now).unwrap_or(0);
            return Err(Error::exhausted(
                Reason::SignInLocked,
                Some(Duration::from_micros(wait)),
            ));
        }
        Ok(())
    }
}

/// Counts a failure: two statements, for whomever.
///
/// # Errors
/// Those of the database.
pub async fn failed(tx: &mut Tx, target: &Target, network: &str, before: Counted) -> Result<()> {
    let failed = before.network_failed + 1;
    let locked_until = if failed % FAILURES_A_LOCK == 0 {
        let doublings = u32::try_from(failed / FAILURES_A_LOCK - 1)
            .unwrap_or(0)
            .min(20);
        tx.now()
            + FIRST_LOCK_US
                .saturating_mul(1 << doublings)
                .min(LONGEST_LOCK_US)
    } else {
        before.locked_until
    };
    let db = tx.db();
    match target {
        Target::User(user) => {
            let sql = "INSERT INTO sign_in_networks (user_id, network, failed, locked_until, last_success_time) VALUES ($1, $2, $3, $4, 0) \
                       ON CONFLICT (user_id, network) DO UPDATE SET failed = excluded.failed, locked_until = excluded.locked_until";
            let values: [Value; 4] = [
                (*user).into(),
                network.into(),
                failed.into(),
                locked_until.into(),
            ];
            sql::execute(db, sql, values).await?;
            let column = if before.known {
                "known_failed"
            } else {
                "strangers_failed"
            };
            let sql = format!("UPDATE credentials SET {column} = {column} + 1 WHERE user_id = $1");
            sql::execute(db, sql, [(*user).into()]).await?;
        }
        Target::Stranger(name) => {
            let counts = [(failed, locked_until), (before.total_failed + 1, 0)];
            for (Slot { slot, tag }, (failed, locked_until)) in
                slots(&tx.app().keys, name, network).into_iter().zip(counts)
            {
                let sql = "INSERT INTO sign_in_strangers (slot, failed, locked_until, tag) VALUES ($1, $2, $3, $4) ON CONFLICT (slot) \
                           DO UPDATE SET failed = excluded.failed, locked_until = excluded.locked_until, tag = excluded.tag";
                let values: [Value; 4] =
                    [slot.into(), failed.into(), locked_until.into(), tag.into()];
                sql::execute(db, sql, values).await?;
            }
        }
    }
    Ok(())
}

/// A success: the network is known, what was counted is forgotten, and the person is written to in this language.
///
/// # Errors
/// Those of the database.
pub async fn succeeded(tx: &mut Tx, user: Uuid, network: &str) -> Result<()> {
    let db = tx.db();
    let sql = "INSERT INTO sign_in_networks (user_id, network, failed, locked_until, last_success_time) VALUES ($1, $2, 0, 0, $3) \
               ON CONFLICT (user_id, network) DO UPDATE SET failed = 0, locked_until = 0, last_success_time = excluded.last_success_time";
    let values: [Value; 3] = [user.into(), network.into(), tx.now().into()];
    sql::execute(db, sql, values).await?;
    let sql = "UPDATE credentials SET strangers_failed = 0, known_failed = 0, language = $2 \
               WHERE user_id = $1 AND (strangers_failed > 0 OR known_failed > 0 OR language <> $2)";
    let values: [Value; 2] = [user.into(), tx.caller().language.tag().into()];
    sql::execute(db, sql, values).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves PWD-7
    #[test]
    fn networks_are_slash_24_and_slash_48() {
        assert_eq!(network(Some("192.0.2.77".parse().unwrap())), "192.0.2.0/24");
        assert_eq!(
            network(Some("::ffff:192.0.2.77".parse().unwrap())),
            "192.0.2.0/24"
        );
        assert_eq!(
            network(Some("2001:db8:1:2::3".parse().unwrap())),
            "2001:db8:1::/48"
        );
    }

    // proves PWD-7, ATK-25
    #[test]
    fn locks_end_and_closing_stays() {
        let open = Counted {
            network_failed: 9,
            locked_until: 0,
            total_failed: 99,
            known: false,
        };
        assert!(open.check(1).is_ok());
        assert!(
            Counted {
                locked_until: 10,
                ..open
            }
            .check(9)
            .is_err()
        );
        assert!(
            Counted {
                locked_until: 10,
                ..open
            }
            .check(10)
            .is_ok()
        );
        assert!(
            Counted {
                total_failed: 100,
                ..open
            }
            .check(i64::MAX)
            .is_err()
        );
    }
}
