//! Limits per caller and method (COM-18): token buckets in memory, one a caller and method, so that no caller starves others.
//! Each replica counts for itself.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{principal::Caller, rules::Rule};
use crate::{
    error::{Error, Reason, Result},
    proto::access::CallKind,
};

/// Reads that a caller may make in a minute.
pub const READS_A_MINUTE: u32 = 60_000;
/// Writes that a caller may make in a minute.
pub const WRITES_A_MINUTE: u32 = 6_000;
/// Streams that a caller may open in a minute.
pub const STREAMS_A_MINUTE: u32 = 600;
/// A burst is what a minute gives, divided by this.
const BURST_SHARE: u32 = 6;
/// Buckets remembered; beyond, the least used begin anew, which only ever gives more.
const MOST_BUCKETS: u64 = 200_000;

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The bucket of whom: a principal, or an address for nobody.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// A principal, and the service that acts for it.
    Key(Vec<u8>),
    /// Nobody, from a network.
    Address(Option<IpAddr>),
}

/// One limit, as a caller sees it.
pub struct Limit {
    /// The method; empty for a default.
    pub method: &'static str,
    /// Calls at once.
    pub burst: u32,
    /// Calls given back a minute.
    pub per_minute: u32,
    /// Calls that could be made now.
    pub remaining: u32,
}

/// All buckets.
pub struct Limits {
    buckets: moka::sync::Cache<(Who, &'static str), Arc<Mutex<Bucket>>>,
    /// Multiplies every limit; tests of load raise it.
    factor: u32,
}

impl Limits {
    /// With every limit so many times as large.
    #[must_use]
    pub fn new(factor: u32) -> Self {
        Self {
            buckets: moka::sync::Cache::builder()
                .max_capacity(MOST_BUCKETS)
                .time_to_idle(Duration::from_secs(600))
                .build(),
            factor: factor.max(1),
        }
    }

    fn of(&self, rule: &Rule) -> (u32, u32) {
        let declared = u32::try_from(rule.declared.calls_per_minute).unwrap_or(0);
        let per_minute = match (declared, rule.kind) {
            (0, CallKind::Mutation) => WRITES_A_MINUTE,
            (
                0,
                CallKind::StreamOut | CallKind::StreamIn | CallKind::Upload | CallKind::Download,
            ) => STREAMS_A_MINUTE,
            (0, _) => READS_A_MINUTE,
            (n, _) => n,
        }
        .saturating_mul(self.factor);
        ((per_minute / BURST_SHARE).max(10), per_minute)
    }

    /// Takes one call from the caller's bucket.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, `TOO_MANY_CALLS` with when to try again.
    pub fn take(&self, caller: &Caller, rule: &'static Rule) -> Result<()> {
        let (burst, per_minute) = self.of(rule);
        let now = Instant::now();
        let bucket = self.buckets.get_with((who(caller), rule.method), || {
            Arc::new(Mutex::new(Bucket {
                tokens: f64::from(burst),
                at: now,
            }))
        });
        let Ok(mut bucket) = bucket.lock() else {
            return Ok(());
        };
        let rate = f64::from(per_minute) / 60.0;
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + since * rate).min(f64::from(burst));
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let wait = Duration::from_secs_f64(((1.0 - bucket.tokens) / rate).clamp(0.001, 60.0));
        Err(Error::exhausted(Reason::TooManyCalls, Some(wait)).with("method", rule.method))
    }

    /// The caller's limits: those it has used lately, and the defaults.
    #[must_use]
    pub fn list(&self, caller: &Caller) -> Vec<Limit> {
        let asked = who(caller);
        let mut limits: Vec<Limit> = [READS_A_MINUTE, WRITES_A_MINUTE, STREAMS_A_MINUTE]
            .map(|n| n.saturating_mul(self.factor))
            .into_iter()
            .map(|n| Limit {
                method: "",
                burst: n / BURST_SHARE,
                per_minute: n,
                remaining: n / BURST_SHARE,
            })
            .collect();
        for rule in super::rules::every() {
            let Some(bucket) = self.buckets.get(&(asked.clone(), rule.method)) else {
                continue;
            };
            let (burst, per_minute) = self.of(rule);
            let remaining = bucket.lock().map_or(0.0, |b| {
                let since = Instant::now().saturating_duration_since(b.at).as_secs_f64();
                (b.tokens + since * f64::from(per_minute) / 60.0).min(f64::from(burst))
            });
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and the burst"
            )]
            limits.push(Limit {
                method: rule.method,
                burst,
                per_minute,
                remaining: remaining as u32,
            });
        }
        limits.sort_by_key(|l| l.method);
        limits
    }
}

/// Whose limits count for a caller.
#[must_use]
pub fn who(caller: &Caller) -> Who {
    if caller.who.is_some() {
        Who::Key(caller.key())
    } else {
        Who::Address(caller.address.map(|a| match a.to_canonical() {
            // A customer's line has a /64 of its own; its single addresses are free.
            IpAddr::V6(a) => IpAddr::V6((u128::from(a) >> 64 << 64).into()),
            v4 => v4,
        }))
    }
}
