//! Password hashes: Argon2id at OWASP's parameters, by threads of their own, as many as there are cores (PWD-2). Unbounded, 32 at once took 6 GB.
//!
//! The threads run at a lower priority than all others, where the system lets them: a storm of sign-ins takes what cores have left, and who
//! reads meanwhile hardly waits. Each keeps the memory of its last hash, and gives it back when no password came for a while.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::{
    env::Env,
    error::{Error, Reason, Result},
};

/// Memory of one hash in KiB: 19 MiB (OWASP, 2024).
const MEMORY_KIB: u32 = 19 * 1_024;
/// Passes over it.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
/// Bytes of salt and of hash.
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Hashes that may wait; a longer queue is shed, lest callers wait past their deadlines.
const MOST_WAITING: usize = 256;
/// A thread that got no password for so long gives its memory back.
const IDLE: Duration = Duration::from_secs(30);
/// Blocks of 1 KiB that a thread has room for: 40 MiB, of which it touches those of one hash. The GNU allocator maps what is larger than 32 MiB
/// by itself, and unmaps it when it is given back. Of the 19 MiB alone it would learn to keep such for the next one, among all else; then
/// others' small things lie in between, and each storm of sign-ins takes new memory.
const ROOM: usize = 40 * 1_024;
/// How much nicer the threads are than the others: a tenth of their share of a core that all want.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Hashes and verifies passwords, at most as many at once as it has threads.
pub struct Hasher {
    queue: Arc<Queue>,
}

/// What the threads wait for.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    came: Condvar,
    made: AtomicU64,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    ends: bool,
}

/// A hash to make, and who waits for it.
struct Job {
    password: Zeroizing<String>,
    salt: Vec<u8>,
    params: Params,
    answer: oneshot::Sender<argon2::Result<Vec<u8>>>,
}

impl Hasher {
    /// With so many threads, at least one.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn new(threads: usize) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        // Before the first thread: where one fails, those that are there end.
        let hasher = Self {
            queue: Arc::clone(&queue),
        };
        for _ in 0..threads.max(1) {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name("hash".to_owned())
                .spawn(move || queue.work())?;
        }
        Ok(hasher)
    }

    /// Hashes made since the start; that none is left out for anybody is told by it (COM-2, PWD-7).
    #[must_use]
    pub fn made(&self) -> u64 {
        self.queue.made.load(Ordering::Relaxed)
    }

    /// The PHC string of a password: `$argon2id$v=19$m=..,t=..,p=..$salt$hash`.
    ///
    /// # Errors
    /// `OVERLOADED` if too many wait.
    pub async fn hash(&self, password: &str, env: &Env) -> Result<String> {
        let salt = env.bytes::<SALT_BYTES>();
        let hash = self
            .run(
                password.to_owned(),
                salt.to_vec(),
                (MEMORY_KIB, PASSES, LANES),
            )
            .await?;
        Ok(format!(
            "$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${}${}",
            BASE64_STANDARD_NO_PAD.encode(salt),
            BASE64_STANDARD_NO_PAD.encode(hash)
        ))
    }

    /// Whether a password is that of a PHC string. Without one, a hash is made all the same, so that time tells nothing (PWD-7).
    ///
    /// # Errors
    /// `OVERLOADED` if too many wait; internal, if the stored string is none of ours.
    pub async fn verify(&self, password: &str, stored: Option<&str>) -> Result<bool> {
        let Some(stored) = stored else {
            self.run(
                password.to_owned(),
                vec![0; SALT_BYTES],
                (MEMORY_KIB, PASSES, LANES),
            )
            .await?;
            return Ok(false);
        };
        let (parameters, salt, expected) =
            parse(stored).ok_or_else(|| Error::internal("a stored password hash is malformed"))?;
        let hash = self.run(password.to_owned(), salt, parameters).await?;
        Ok(bool::from(subtle::ConstantTimeEq::ct_eq(
            hash.as_slice(),
            expected.as_slice(),
        )))
    }

    /// Whether a stored hash has other parameters than new ones, and is to be made anew at the next sign-in.
    #[must_use]
    pub fn is_outdated(stored: &str) -> bool {
        parse(stored).is_none_or(|(parameters, ..)| parameters != (MEMORY_KIB, PASSES, LANES))
    }

    async fn run(
        &self,
        password: String,
        salt: Vec<u8>,
        (memory, passes, lanes): (u32, u32, u32),
    ) -> Result<Vec<u8>> {
        let params = Params::new(memory, passes, lanes, Some(HASH_BYTES))
            .map_err(|e| Error::internal(e.to_string()))?;
        let (answer, done) = oneshot::channel();
        let job = Job {
            password: Zeroizing::new(password),
            salt,
            params,
            answer,
        };
        if !self.queue.push(job) {
            let wait = Some(Duration::from_secs(1));
            return Err(Error::exhausted(Reason::Overloaded, wait));
        }
        let hash = done.await.map_err(|e| Error::internal(e.to_string()))?;
        hash.map_err(|e| Error::internal(e.to_string()))
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.queue.lock().ends = true;
        self.queue.came.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics that holds it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False where too many wait.
    fn push(&self, job: Job) -> bool {
        let mut state = self.lock();
        // Those who went away take no place.
        if state.jobs.len() >= MOST_WAITING {
            state.jobs.retain(|job| !job.answer.is_closed());
        }
        if state.jobs.len() >= MOST_WAITING {
            return false;
        }
        state.jobs.push_back(job);
        drop(state);
        self.came.notify_one();
        true
    }

    /// The next job; `None` after a while without one. An error: no more come.
    fn next(&self) -> std::result::Result<Option<Job>, Ended> {
        let state = self.lock();
        let waits = |state: &mut State| state.jobs.is_empty() && !state.ends;
        let (mut state, _) = self
            .came
            .wait_timeout_while(state, IDLE, waits)
            .unwrap_or_else(PoisonError::into_inner);
        if state.ends {
            return Err(Ended);
        }
        Ok(state.jobs.pop_front())
    }

    /// A thread's life.
    fn work(&self) {
        yield_to_others();
        let mut blocks = Vec::new();
        while let Ok(job) = self.next() {
            let Some(job) = job else {
                blocks = Vec::new();
                continue;
            };
            if job.answer.is_closed() {
                continue;
            }
            let hash = job.make(&mut blocks);
            self.made.fetch_add(1, Ordering::Relaxed);
            // Who went away meanwhile needs no answer.
            drop(job.answer.send(hash));
        }
    }
}

/// The hasher is gone.
struct Ended;

impl Job {
    fn make(&self, blocks: &mut Vec<Block>) -> argon2::Result<Vec<u8>> {
        blocks.reserve_exact(ROOM.saturating_sub(blocks.len()));
        blocks.resize(self.params.block_count(), Block::default());
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let (password, mut out) = (self.password.as_bytes(), vec![0; HASH_BYTES]);
        argon.hash_password_into_with_memory(password, &self.salt, &mut out, blocks)?;
        Ok(out)
    }
}

/// Lowers the priority of this thread; where that can't be, it works at that of all.
#[cfg(target_os = "linux")]
fn yield_to_others() {
    use rustix::process::{getpriority_process, setpriority_process};
    let this = Some(rustix::thread::gettid());
    let lowered = getpriority_process(this)
        .and_then(|nice| setpriority_process(this, nice.saturating_add(NICE)));
    if let Err(refused) = lowered {
        tracing::warn!(%refused, "password hashes run at the priority of everything else");
    }
}

#[cfg(not(target_os = "linux"))]
fn yield_to_others() {}

type Parsed = ((u32, u32, u32), Vec<u8>, Vec<u8>);

fn parse(stored: &str) -> Option<Parsed> {
    let mut parts = stored.split('$');
    let ("", "argon2id", "v=19") = (parts.next()?, parts.next()?, parts.next()?) else {
        return None;
    };
    let mut numbers = [0; 3];
    for (slot, part) in numbers.iter_mut().zip(parts.next()?.split(',')) {
        *slot = part.split_once('=')?.1.parse().ok()?;
    }
    let salt = BASE64_STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    let hash = BASE64_STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    Some(((numbers[0], numbers[1], numbers[2]), salt, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves PWD-2
    #[tokio::test]
    async fn hashes_verify_and_tell_their_parameters() {
        let env = Env::seeded(1, 0);
        let hasher = Hasher::new(2).unwrap();
        let stored = hasher.hash("correct horse battery", &env).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(
            hasher
                .verify("correct horse battery", Some(&stored))
                .await
                .unwrap()
        );
        assert!(
            !hasher
                .verify("correct horse batterz", Some(&stored))
                .await
                .unwrap()
        );
        assert!(!hasher.verify("correct horse battery", None).await.unwrap());
        assert!(!Hasher::is_outdated(&stored));
        assert!(Hasher::is_outdated(
            "$argon2id$v=19$m=1024,t=1,p=1$AAAA$AAAA"
        ));
        assert!(hasher.verify("x", Some("plain")).await.is_err());
    }

    // proves PWD-2
    #[tokio::test]
    async fn nothing_is_hashed_for_those_who_went_away_and_a_long_queue_is_shed() {
        let env = Env::seeded(1, 0);
        let hasher = Hasher::new(1).unwrap();
        let wanted = || Job {
            password: Zeroizing::new("correct horse battery".to_owned()),
            salt: vec![0; SALT_BYTES],
            params: Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).unwrap(),
            answer: oneshot::channel().0,
        };
        for _ in 0..3 * MOST_WAITING {
            assert!(hasher.queue.push(wanted()), "they take no place");
        }
        hasher.hash("correct horse battery", &env).await.unwrap();
        assert_eq!(hasher.made(), 1);
        let (mut places, mut waiting) = (0, Vec::new());
        loop {
            let (answer, done) = oneshot::channel();
            if !hasher.queue.push(Job { answer, ..wanted() }) {
                break;
            }
            waiting.push(done);
            places += 1;
            assert!(places <= 2 * MOST_WAITING);
        }
        assert!(places >= MOST_WAITING);
        let shed = hasher
            .hash("correct horse battery", &env)
            .await
            .unwrap_err();
        assert_eq!(shed.reason(), Reason::Overloaded);
        drop(waiting);
        hasher.hash("correct horse battery", &env).await.unwrap();
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn hashing_yields_to_all_else() {
        let hasher = Hasher::new(1).unwrap();
        assert!(!hasher.verify("x", None).await.unwrap());
        let nice_of = |task: &std::path::Path| -> i32 {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap();
            let after_name = stat.rsplit_once(") ").unwrap().1;
            after_name.split(' ').nth(16).unwrap().parse().unwrap()
        };
        let own = nice_of(std::path::Path::new("/proc/thread-self"));
        let of_hashes: Vec<i32> = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|task| task.unwrap().path())
            .filter(|task| {
                std::fs::read_to_string(task.join("comm")).is_ok_and(|c| c.trim() == "hash")
            })
            .map(|task| nice_of(&task))
            .collect();
        assert!(of_hashes.contains(&(own + NICE).min(19)), "{of_hashes:?}");
    }
}
