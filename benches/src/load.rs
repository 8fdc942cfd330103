//! Load: callers in a closed loop, each with its next call as soon as the last was answered; or calls in an open loop, begun at a fixed rate
//! whatever comes back, and timed from when they were due.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use futures_util::future::BoxFuture;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tonic::Status;

use crate::machine::Meter;

/// One call, by the caller with this number.
pub type Op =
    Arc<dyn Fn(usize, &mut fastrand::Rng) -> BoxFuture<'static, Result<(), Status>> + Send + Sync>;

/// Latencies in nanoseconds are kept to three digits, up to a minute.
const MOST_NS: u64 = 60_000_000_000;
/// Calls of an open loop that may be under way; one that is due beyond is dropped, and counted.
const MOST_UNDER_WAY: usize = 512;
/// So long is waited for the last answers.
const TAIL: Duration = Duration::from_secs(30);

/// How long a case is run.
#[derive(Clone, Copy)]
pub struct Window {
    /// Before anything counts.
    pub warm_up: Duration,
    /// While it counts.
    pub measured: Duration,
}

/// What was measured of a case in one round. Times are in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Calls answered well that ended within the window; of an open loop, that were due within it.
    pub calls: u64,
    /// Calls answered well in all, warm-up included.
    pub all_calls: u64,
    /// The window's length in seconds.
    pub seconds: f64,
    /// Calls refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Calls of an open loop that were never begun, since too many were under way.
    pub dropped: u64,
    /// Half of the calls took at most so long; nothing where single calls aren't timed.
    pub p50: Option<f64>,
    /// 99 in 100.
    pub p99: Option<f64>,
    /// 999 in 1,000.
    pub p999: Option<f64>,
    /// CPU time of the server a call.
    pub server_cpu: Option<f64>,
    /// CPU time of the database's processes a call.
    pub database_cpu: Option<f64>,
    /// CPU time of this program a call.
    pub client_cpu: Option<f64>,
    /// A number that is no rate: milliseconds of a start, MiB of memory.
    pub value: Option<f64>,
}

impl Sample {
    /// Only a rate: what another program counted.
    pub fn of_rate(calls: u64, seconds: f64) -> Self {
        Self {
            calls,
            all_calls: calls,
            seconds,
            ..Self::default()
        }
    }

    /// Only a number.
    pub fn of_value(value: f64) -> Self {
        Self {
            value: Some(value),
            ..Self::default()
        }
    }

    /// Calls a second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 {
            self.calls as f64 / self.seconds
        } else {
            0.0
        }
    }
}

const WARM_UP: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// What callers count together.
struct Count {
    phase: AtomicU8,
    all: AtomicU64,
    dropped: AtomicU64,
    total: Mutex<Total>,
}

struct Total {
    times: Histogram<u64>,
    refused: BTreeMap<String, u64>,
}

impl Count {
    fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            phase: AtomicU8::new(WARM_UP),
            all: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            total: Mutex::new(Total {
                times: Histogram::new_with_max(MOST_NS, 3)?,
                refused: BTreeMap::new(),
            }),
        }))
    }

    fn sample(&self, seconds: f64) -> Result<Sample> {
        let total = self
            .total
            .lock()
            .map_err(|_| anyhow!("a caller panicked"))?;
        let at = |q: f64| {
            (!total.times.is_empty()).then(|| total.times.value_at_quantile(q) as f64 / 1_000.0)
        };
        Ok(Sample {
            calls: total.times.len(),
            all_calls: self.all.load(Ordering::Relaxed),
            seconds,
            refused: total.refused.clone(),
            dropped: self.dropped.load(Ordering::Relaxed),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            ..Sample::default()
        })
    }
}

/// Goes through warm-up and window; gives the window's true length and what the processes used in it.
async fn pass(window: Window, count: &Count, meter: &Meter) -> (f64, crate::machine::Used) {
    tokio::time::sleep(window.warm_up).await;
    let (before, begun) = (meter.read(), Instant::now());
    count.phase.store(MEASURED, Ordering::SeqCst);
    tokio::time::sleep(window.measured).await;
    count.phase.store(OVER, Ordering::SeqCst);
    let seconds = begun.elapsed().as_secs_f64();
    (seconds, meter.read().since(&before))
}

fn with_cpu(mut sample: Sample, used: &crate::machine::Used) -> Sample {
    if sample.calls > 0 {
        let a_call = |us: Option<f64>| us.map(|us| us / sample.calls as f64);
        (sample.server_cpu, sample.database_cpu, sample.client_cpu) = (
            a_call(used.server),
            a_call(used.database),
            a_call(used.client),
        );
    }
    sample
}

/// Runs callers in a closed loop.
pub async fn closed(op: &Op, callers: usize, window: Window, meter: &Meter) -> Result<Sample> {
    let count = Count::new()?;
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (op, count) = (op.clone(), count.clone());
        tasks.spawn(async move { call_on(caller, &op, &count).await });
    }
    let (seconds, used) = pass(window, &count, meter).await;
    let ended = tokio::time::timeout(TAIL, async {
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok::<_, anyhow::Error>(())
    });
    ended
        .await
        .map_err(|_| anyhow!("calls were not answered within {TAIL:?}"))??;
    Ok(with_cpu(count.sample(seconds)?, &used))
}

async fn call_on(caller: usize, op: &Op, count: &Count) -> Result<()> {
    let mut random = fastrand::Rng::new();
    let mut times = Histogram::<u64>::new_with_max(MOST_NS, 3)?;
    let mut refused: BTreeMap<String, u64> = BTreeMap::new();
    let mut all = 0;
    loop {
        if count.phase.load(Ordering::Relaxed) == OVER {
            break;
        }
        let begun = Instant::now();
        let answer = op(caller, &mut random).await;
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(MOST_NS);
        // What ends within the window counts, whenever it began: so no slow call is lost at both edges.
        let counts = count.phase.load(Ordering::Relaxed) == MEASURED;
        match answer {
            Ok(()) => {
                all += 1;
                if counts {
                    times.saturating_record(took);
                }
            }
            Err(status) => {
                *refused.entry(name_of(&status)).or_default() += 1;
                // A server that is gone answers at once, for ever.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    count.all.fetch_add(all, Ordering::Relaxed);
    let mut total = count
        .total
        .lock()
        .map_err(|_| anyhow!("a caller panicked"))?;
    total.times.add(&times)?;
    for (code, n) in refused {
        *total.refused.entry(code).or_default() += n;
    }
    Ok(())
}

fn name_of(status: &Status) -> String {
    format!("{:?}", status.code())
}

/// Begins so many calls a second, whatever comes back; each is timed from when it was due.
pub async fn open(op: &Op, per_second: u32, window: Window, meter: &Meter) -> Result<Sample> {
    let count = Count::new()?;
    let (begin, places) = (count.clone(), Arc::new(Semaphore::new(MOST_UNDER_WAY)));
    let (op, free) = (op.clone(), places.clone());
    let runtime = tokio::runtime::Handle::current();
    // A thread of its own: the runtime's timer is good to a millisecond only, and a call that is late by it would count as slow.
    let beginner = std::thread::spawn(move || {
        let mut random = fastrand::Rng::new();
        let (first, step) = (Instant::now(), Duration::from_secs(1) / per_second);
        for number in 0.. {
            let due = first + step * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let phase = begin.phase.load(Ordering::Relaxed);
            if phase == OVER {
                break;
            }
            let Ok(place) = free.clone().try_acquire_owned() else {
                if phase == MEASURED {
                    begin.dropped.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            };
            let call = op(number as usize, &mut random);
            let count = begin.clone();
            runtime.spawn(async move {
                let answer = call.await;
                let took = u64::try_from(due.elapsed().as_nanos()).unwrap_or(MOST_NS);
                if let Ok(mut total) = count.total.lock() {
                    match answer {
                        Ok(()) if phase == MEASURED => total.times.saturating_record(took),
                        Ok(()) => {}
                        Err(status) => *total.refused.entry(name_of(&status)).or_default() += 1,
                    }
                }
                count.all.fetch_add(1, Ordering::Relaxed);
                drop(place);
            });
        }
    });
    let (seconds, used) = pass(window, &count, meter).await;
    // All places are free when the last call is answered: also the slow ones count.
    let all = u32::try_from(MOST_UNDER_WAY)?;
    let ended = tokio::time::timeout(TAIL, places.acquire_many(all)).await;
    drop(ended.map_err(|_| anyhow!("calls were not answered within {TAIL:?}"))??);
    beginner
        .join()
        .map_err(|_| anyhow!("the beginner of calls panicked"))?;
    Ok(with_cpu(count.sample(seconds)?, &used))
}
