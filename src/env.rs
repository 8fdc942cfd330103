//! What the service takes from the world: time, randomness, identifiers. Chosen at start (COM-14); nothing else asks for them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::UNIX_EPOCH,
};

use aws_lc_rs::{hmac, rand};
use uuid::Uuid;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

/// One second in microseconds.
pub const SECOND_US: Micros = 1_000_000;
/// One minute in microseconds.
pub const MINUTE_US: Micros = 60 * SECOND_US;
/// One hour in microseconds.
pub const HOUR_US: Micros = 60 * MINUTE_US;
/// One day in microseconds.
pub const DAY_US: Micros = 24 * HOUR_US;

/// Where time comes from. The test clock's offset is added in transactions (`Tx::now`), since it is a row.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's.
    System,
    /// Moved by hand, for unit tests.
    Manual(Arc<AtomicI64>),
}

/// Where random bytes come from.
#[derive(Clone)]
pub enum Random {
    /// The operating system's generator.
    System,
    /// Reproducible, for tests: HMAC-SHA256 of a counter.
    Seeded(Arc<(hmac::Key, AtomicU64)>),
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Seeded(_) => "Seeded",
        })
    }
}

/// How mails leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTransport {
    /// As `.eml` files in `mails` of the data folder.
    Folder,
}

/// Time, randomness, identifiers, mail.
#[derive(Clone, Debug)]
pub struct Env {
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Mail.
    pub mail: MailTransport,
}

impl Env {
    /// The real world.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clock: Clock::System,
            random: Random::System,
            mail: MailTransport::Folder,
        }
    }

    /// A world of tests that repeats itself from `seed`.
    #[must_use]
    pub fn seeded(seed: u64, start: Micros) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &seed.to_be_bytes());
        Self {
            clock: Clock::Manual(Arc::new(AtomicI64::new(start))),
            random: Random::Seeded(Arc::new((key, AtomicU64::new(0)))),
            mail: MailTransport::Folder,
        }
    }

    /// Now, by the machine's clock, without the test clock's offset.
    #[must_use]
    pub fn now(&self) -> Micros {
        match &self.clock {
            Clock::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the one place")]
                let now = std::time::SystemTime::now();
                now.duration_since(UNIX_EPOCH)
                    .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
            }
            Clock::Manual(now) => now.load(Ordering::SeqCst),
        }
    }

    /// Fills a buffer with random bytes.
    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.random {
            Random::System => {
                // The generator fails only if the operating system has none; going on without randomness is no choice.
                #[expect(
                    clippy::expect_used,
                    reason = "without randomness no secret may be made"
                )]
                rand::fill(bytes).expect("the operating system gives random bytes");
            }
            Random::Seeded(state) => {
                for chunk in bytes.chunks_mut(32) {
                    let n = state.1.fetch_add(1, Ordering::SeqCst);
                    let tag = hmac::sign(&state.0, &n.to_be_bytes());
                    chunk.copy_from_slice(&tag.as_ref()[..chunk.len()]);
                }
            }
        }
    }

    /// `N` random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A new identifier: UUIDv7, so that rows lie in the order they were made.
    #[must_use]
    pub fn id(&self, now: Micros) -> Uuid {
        let millis = u64::try_from(now / 1_000).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.bytes()).into_uuid()
    }
}
