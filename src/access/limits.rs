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

/// The kinds of calls, each with a default.
const KINDS: [CallKind; 6] = [
    CallKind::Read,
    CallKind::Mutation,
    CallKind::StreamOut,
    CallKind::StreamIn,
    CallKind::Upload,
    CallKind::Download,
];

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The bucket of whom: a principal, or an address for nobody.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// A principal, and the service that acts for it.
    Key(Vec<u8>),
    /// The session of a principal, and that of the service that acts for it.
    Session(Vec<u8>),
    /// Nobody, from a network.
    Address(Option<IpAddr>),
}

/// One limit, as a caller sees it.
pub struct Limit {
    /// The method; empty for a default.
    pub method: &'static str,
    /// The method's kind, or that which this is the default of.
    pub kind: CallKind,
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

    /// Burst and calls a minute of a method.
    fn of(&self, rule: &Rule) -> (u32, u32) {
        match u32::try_from(rule.declared.calls_per_minute).unwrap_or(0) {
            0 => self.default_of(rule.kind),
            declared => self.with_burst(declared),
        }
    }

    fn default_of(&self, kind: CallKind) -> (u32, u32) {
        self.with_burst(match kind {
            CallKind::Mutation => WRITES_A_MINUTE,
            CallKind::StreamOut | CallKind::StreamIn | CallKind::Upload | CallKind::Download => {
                STREAMS_A_MINUTE
            }
            CallKind::Read | CallKind::Unspecified => READS_A_MINUTE,
        })
    }

    fn with_burst(&self, per_minute: u32) -> (u32, u32) {
        let per_minute = per_minute.saturating_mul(self.factor);
        ((per_minute / BURST_SHARE).max(10), per_minute)
    }

    /// Takes one call from the caller's bucket, and from that of its session: whether the session still stands is found out later, and what
    /// is over must not use up what the caller has (`give_back`).
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, `TOO_MANY_CALLS` with when to try again.
    pub fn take(&self, caller: &Caller, rule: &'static Rule) -> Result<()> {
        if let Some(session) = session_of(caller) {
            self.take_of(session, rule)?;
        }
        self.take_of(who(caller), rule)
    }

    /// Gives back what a call took whose session turned out to be over.
    pub fn give_back(&self, caller: &Caller, rule: &'static Rule) {
        if let Some(bucket) = self.buckets.get(&(who(caller), rule.method))
            && let Ok(mut bucket) = bucket.lock()
        {
            bucket.tokens += 1.0;
        }
    }

    fn take_of(&self, whose: Who, rule: &'static Rule) -> Result<()> {
        let (burst, per_minute) = self.of(rule);
        let now = Instant::now();
        let bucket = self.buckets.get_with((whose, rule.method), || {
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

    /// The caller's limits: the default of each kind, those that methods declare, and those of what it has called lately.
    #[must_use]
    pub fn list(&self, caller: &Caller) -> Vec<Limit> {
        let asked = who(caller);
        let mut limits: Vec<Limit> = KINDS
            .into_iter()
            .map(|kind| {
                let (burst, per_minute) = self.default_of(kind);
                Limit {
                    method: "",
                    kind,
                    burst,
                    per_minute,
                    remaining: burst,
                }
            })
            .collect();
        for rule in super::rules::every() {
            let bucket = self.buckets.get(&(asked.clone(), rule.method));
            if bucket.is_none() && rule.declared.calls_per_minute == 0 {
                continue;
            }
            let (burst, per_minute) = self.of(rule);
            limits.push(Limit {
                method: rule.method,
                kind: rule.kind,
                burst,
                per_minute,
                remaining: bucket.map_or(burst, |bucket| left_of(&bucket, burst, per_minute)),
            });
        }
        limits.sort_by_key(|l| (l.method, l.kind as i32));
        limits
    }
}

/// Whole calls that a bucket has by now.
fn left_of(bucket: &Mutex<Bucket>, burst: u32, per_minute: u32) -> u32 {
    let left = bucket.lock().map_or(0.0, |b| {
        let since = Instant::now().saturating_duration_since(b.at).as_secs_f64();
        (b.tokens + since * f64::from(per_minute) / 60.0).min(f64::from(burst))
    });
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the burst"
    )]
    let whole = left as u32;
    whole
}

/// The session, or the key, that a caller came with.
fn session_of(caller: &Caller) -> Option<Who> {
    caller.who?;
    let sessions = [caller.who, caller.via].into_iter().flatten();
    let sessions = sessions.flat_map(|who| who.session.into_bytes());
    Some(Who::Session(sessions.collect()))
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tonic_types::StatusExt as _;
    use uuid::Uuid;

    use super::*;
    use crate::{
        access::{
            principal::{Authenticated, Kind, Principal},
            rules,
        },
        error::Language,
    };

    fn at(address: Option<&str>) -> Caller {
        Caller {
            who: None,
            via: None,
            address: address.map(|a| a.parse().unwrap()),
            language: Language::default(),
            trace_id: String::new(),
        }
    }

    fn nobody() -> Caller {
        at(Some("192.0.2.1"))
    }

    /// A rule that declares no limit of its own.
    fn plain(kind: CallKind) -> &'static Rule {
        rules::every()
            .find(|r| r.kind == kind && r.declared.calls_per_minute == 0)
            .unwrap()
    }

    fn thirty_a_minute() -> &'static Rule {
        rules::every()
            .find(|r| r.declared.calls_per_minute == 30)
            .unwrap()
    }

    /// Time passes for a bucket.
    fn pass(limits: &Limits, caller: &Caller, rule: &'static Rule, time: Duration) {
        let bucket = limits.buckets.get(&(who(caller), rule.method)).unwrap();
        let mut bucket = bucket.lock().unwrap();
        bucket.at = bucket.at.checked_sub(time).unwrap();
    }

    /// How many calls pass at once.
    fn passing(limits: &Limits, caller: &Caller, rule: &'static Rule) -> u32 {
        (0..20_000)
            .take_while(|_| limits.take(caller, rule).is_ok())
            .count()
            .try_into()
            .unwrap()
    }

    // proves COM-18
    #[test]
    fn limits_follow_from_the_kind_unless_the_method_declares_its_own() {
        let limits = Limits::new(1);
        for (kind, burst, per_minute) in [
            (CallKind::Read, 10_000, 60_000),
            (CallKind::Mutation, 1_000, 6_000),
            (CallKind::StreamOut, 100, 600),
        ] {
            assert_eq!(limits.of(plain(kind)), (burst, per_minute), "{kind:?}");
        }
        let own = thirty_a_minute();
        assert_eq!(limits.of(own), (10, 30));
        assert_eq!(Limits::new(100).of(own), (500, 3_000));
        // No factor shuts everybody out.
        assert_eq!(Limits::new(0).of(own), (10, 30));
    }

    // proves COM-18
    #[test]
    fn a_bucket_gives_a_burst_and_fills_by_the_minute_up_to_a_burst() {
        let (limits, caller, rule) = (Limits::new(1), nobody(), thirty_a_minute());
        assert_eq!(passing(&limits, &caller, rule), 10);
        // One comes back in two seconds.
        pass(&limits, &caller, rule, Duration::from_millis(6_200));
        assert_eq!(passing(&limits, &caller, rule), 3);
        pass(&limits, &caller, rule, Duration::from_secs(500));
        assert_eq!(passing(&limits, &caller, rule), 10);
        // Another address, and another method, have buckets of their own.
        assert!(limits.take(&at(Some("192.0.2.2")), rule).is_ok());
        assert!(limits.take(&caller, plain(CallKind::Read)).is_ok());
    }

    // proves COM-18
    #[test]
    fn what_a_dead_session_took_is_given_back_until_its_own_bucket_is_empty() {
        let by = |session: u128| {
            let principal = Principal {
                kind: Kind::User,
                id: Uuid::from_u128(1),
                tenant: Uuid::from_u128(2),
            };
            Caller {
                who: Some(Authenticated {
                    principal,
                    session: Uuid::from_u128(session),
                    sign_in_time: 0,
                    expire_time: i64::MAX,
                }),
                ..nobody()
            }
        };
        let (limits, rule) = (Limits::new(1), thirty_a_minute());
        let (dead, live) = (by(1), by(2));
        for _ in 0..10 {
            limits.take(&dead, rule).unwrap();
            limits.give_back(&dead, rule);
        }
        assert_eq!(passing(&limits, &dead, rule), 0);
        // All sessions of a principal share what it has, and that is whole.
        assert_eq!(passing(&limits, &live, rule), 10);
        assert_eq!(passing(&limits, &by(3), rule), 0);
    }

    // proves COM-18
    #[test]
    fn who_is_refused_is_told_when_the_next_call_passes() {
        let (limits, caller, rule) = (Limits::new(1), nobody(), thirty_a_minute());
        assert_eq!(passing(&limits, &caller, rule), 10);
        let told = |refused: Result<()>| {
            let error = refused.unwrap_err();
            assert_eq!(error.reason(), Reason::TooManyCalls);
            let status = error.to_status(Language::default());
            let delay = status.get_details_retry_info().unwrap().retry_delay;
            delay.unwrap().as_secs_f64()
        };
        // One call in two seconds.
        let wait = told(limits.take(&caller, rule));
        assert!((1.5..=2.0).contains(&wait), "{wait}");
        pass(&limits, &caller, rule, Duration::from_secs(1));
        let wait = told(limits.take(&caller, rule));
        assert!((0.5..=1.0).contains(&wait), "{wait}");
        pass(&limits, &caller, rule, Duration::from_secs(1));
        assert!(limits.take(&caller, rule).is_ok());
    }

    // proves COM-18
    #[test]
    fn the_list_has_defaults_what_methods_declare_and_what_is_left_of_what_was_used() {
        let (limits, caller, rule) = (Limits::new(1), nobody(), thirty_a_minute());
        let list = || limits.list(&caller);
        let all = list();
        let defaults: Vec<_> = all.iter().filter(|l| l.method.is_empty()).collect();
        let told = |l: &&Limit| (l.kind, l.burst, l.per_minute, l.remaining);
        assert_eq!(
            defaults.iter().map(told).collect::<Vec<_>>(),
            [
                (CallKind::Read, 10_000, 60_000, 10_000),
                (CallKind::Mutation, 1_000, 6_000, 1_000),
                (CallKind::StreamOut, 100, 600, 100),
                (CallKind::StreamIn, 100, 600, 100),
                (CallKind::Upload, 100, 600, 100),
                (CallKind::Download, 100, 600, 100),
            ]
        );
        // What declares a limit is there unused; what doesn't, once it was called.
        let declared = rules::every().filter(|r| r.declared.calls_per_minute > 0);
        assert_eq!(all.len(), defaults.len() + declared.count());
        let remaining = |of: &Rule| {
            let list = list();
            let mut own = list.iter().filter(|l| l.method == of.method);
            let told = own.next().map(|l| (l.kind, l.remaining));
            assert!(own.next().is_none());
            told
        };
        assert_eq!(remaining(rule), Some((rule.kind, 10)));
        for _ in 0..6 {
            limits.take(&caller, rule).unwrap();
        }
        assert_eq!(remaining(rule), Some((rule.kind, 4)));
        pass(&limits, &caller, rule, Duration::from_secs(5));
        assert_eq!(remaining(rule), Some((rule.kind, 6)));
        pass(&limits, &caller, rule, Duration::from_secs(500));
        assert_eq!(remaining(rule), Some((rule.kind, 10)));
        let read = plain(CallKind::Read);
        assert_eq!(remaining(read), None);
        limits.take(&caller, read).unwrap();
        assert!(remaining(read).is_some());
        // Another caller hears nothing of that.
        assert_eq!(limits.list(&at(Some("192.0.2.9"))).len(), all.len());
    }

    // proves COM-18
    #[test]
    fn nobody_is_counted_by_network() {
        let same = |one, other| who(&at(Some(one))) == who(&at(Some(other)));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        let first = Ipv4Addr::new(192, 0, 2, 1);
        assert!(who(&nobody()) == Who::Address(Some(first.into())));
        assert!(who(&at(None)) == Who::Address(None));
    }
}
