//! Password hashes: Argon2id at OWASP's parameters, in a bounded pool of workers (PWD-2). Unbounded, 32 at once took 6 GB.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use tokio::sync::Semaphore;

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
/// Buffers that nobody used for so long are given back.
const IDLE: Duration = Duration::from_secs(30);

/// Hashes and verifies passwords, at most as many at once as there are cores; buffers are used again.
pub struct Hasher {
    workers: Semaphore,
    waiting: Semaphore,
    buffers: Mutex<Vec<Vec<Block>>>,
    last_used: Mutex<Instant>,
    made: AtomicU64,
}

impl Hasher {
    /// With so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: Semaphore::new(workers.max(1)),
            waiting: Semaphore::new(MOST_WAITING),
            buffers: Mutex::default(),
            last_used: Mutex::new(Instant::now()),
            made: AtomicU64::new(0),
        }
    }

    /// Hashes made since the start; that none is left out for anybody is told by it (COM-2, PWD-7).
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
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
        let overloaded = || Error::exhausted(Reason::Overloaded, Some(Duration::from_secs(1)));
        let _place = self.waiting.try_acquire().map_err(|_| overloaded())?;
        let _worker = self.workers.acquire().await.map_err(|_| overloaded())?;
        let params = Params::new(memory, passes, lanes, Some(HASH_BYTES))
            .map_err(|e| Error::internal(e.to_string()))?;
        let mut blocks = self
            .buffers
            .lock()
            .ok()
            .and_then(|mut b| b.pop())
            .unwrap_or_default();
        let done = tokio::task::spawn_blocking(move || {
            let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
            blocks.resize(params.block_count(), Block::default());
            let mut out = vec![0; HASH_BYTES];
            let result = argon.hash_password_into_with_memory(
                password.as_bytes(),
                &salt,
                &mut out,
                &mut blocks,
            );
            result.map(|()| (out, blocks)).map_err(|e| e.to_string())
        })
        .await
        .map_err(|e| Error::internal(e.to_string()))?;
        let (out, blocks) = done.map_err(Error::internal)?;
        self.made.fetch_add(1, Ordering::Relaxed);
        if let (Ok(mut buffers), Ok(mut at)) = (self.buffers.lock(), self.last_used.lock()) {
            buffers.push(blocks);
            *at = Instant::now();
        }
        Ok(out)
    }

    /// Gives the buffers back to the system when no password came for a while.
    pub fn release_if_idle(&self) {
        let idle = self.last_used.lock().is_ok_and(|at| at.elapsed() >= IDLE);
        if let (true, Ok(mut buffers)) = (idle, self.buffers.lock()) {
            *buffers = Vec::new();
        }
    }
}

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
        let hasher = Hasher::new(2);
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
}
