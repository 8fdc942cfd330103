//! The yardstick of sign-ins: the raw loop of password hashes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::{load::Sample, site::PASSWORD};

/// What the service hashes with (`src/hash.rs`).
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// The raw loop: a thread a core, each with a buffer of its own, hashes like the service's for so long.
pub fn run(seconds: f64) -> Result<Sample> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (over, made) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let begun = Instant::now();
    let threads: Vec<_> = (0..cores)
        .map(|_| {
            let (over, made) = (over.clone(), made.clone());
            std::thread::spawn(move || -> Result<()> {
                let params =
                    Params::new(MEMORY_KIB, PASSES, LANES, Some(32)).map_err(|e| anyhow!("{e}"))?;
                let mut blocks = vec![Block::default(); params.block_count()];
                let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                let mut out = [0; 32];
                while !over.load(Ordering::Relaxed) {
                    argon
                        .hash_password_into_with_memory(
                            PASSWORD.as_bytes(),
                            &[7; 16],
                            &mut out,
                            &mut blocks,
                        )
                        .map_err(|e| anyhow!("{e}"))?;
                    made.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow!("a hashing thread panicked"))??;
    }
    // The last hash of each thread ends after the time, and counts with its time.
    Ok(Sample::of_rate(
        made.load(Ordering::Relaxed),
        begun.elapsed().as_secs_f64(),
    ))
}
