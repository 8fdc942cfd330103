//! The stripe clock: for each stripe of keys, the number of the last round that told a change of one of them. What is remembered carries
//! the number that was read before it was loaded, and the stripes of the keys that it depends on; it holds if none of these was told of
//! since. Nothing is taken out to invalidate, so what is loaded late can't outlive a change that came meanwhile: it is born stale.
//!
//! A stripe is in doubt while a commit that changes one of its keys is under way in this process: nothing that depends on it holds.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use uuid::Uuid;

/// Keys share stripes; what is told of one costs the others a reload, no more. 512 KiB.
const STRIPES: usize = 1 << 16;
/// The number of what is in doubt: no load is that new.
const IN_DOUBT: u64 = u64::MAX;
/// More keys at once are as good as all.
pub const MOST_KEYS: usize = 4_096;

/// The key of everything: whoever tells it, by hand too, has all forgotten.
pub const EVERYTHING: Uuid = Uuid::nil();

/// The stripe of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stripe(u16);

impl Stripe {
    /// The stripe of a key: IDs are random in their last bytes.
    #[must_use]
    pub fn of(key: Uuid) -> Self {
        let (_, low) = key.as_u64_pair();
        let mixed = low.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        Self(u16::try_from(mixed).unwrap_or_default())
    }
}

/// Which stripes a round tells of.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    All,
    Some(Vec<Stripe>),
}

impl Told {
    fn of(keys: &[Uuid]) -> Self {
        if keys.len() > MOST_KEYS || keys.contains(&EVERYTHING) {
            return Self::All;
        }
        let mut stripes: Vec<_> = keys.iter().map(|k| Stripe::of(*k)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        Self::Some(stripes)
    }
}

/// How many commits under way have each stripe, and everything, in doubt.
#[derive(Debug, Default)]
struct Doubts {
    stripes: BTreeMap<Stripe, u32>,
    all: u32,
}

/// The clock.
#[derive(Debug)]
pub struct Clock {
    stripes: Box<[AtomicU64]>,
    /// The last round that was told as a whole.
    number: AtomicU64,
    /// What was loaded before this round is forgotten.
    floor: AtomicU64,
    /// Who tells takes turns.
    doubts: Mutex<Doubts>,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
            number: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            doubts: Mutex::default(),
        }
    }
}

impl Clock {
    /// The number for a load that begins after this.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(SeqCst)
    }

    /// Whether nothing was told, since `at`, of these stripes.
    #[must_use]
    pub fn holds(&self, at: u64, deps: &[Stripe]) -> bool {
        at >= self.floor.load(SeqCst)
            && deps
                .iter()
                .all(|d| self.stripes[usize::from(d.0)].load(SeqCst) <= at)
    }

    /// A round: these keys changed. Its number is published when each stripe has it.
    pub fn apply(&self, keys: &[Uuid]) {
        if keys.is_empty() {
            return;
        }
        let doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        self.tell(&Told::of(keys), &doubts);
    }

    /// A round that has everything forgotten.
    pub fn flush(&self) {
        self.apply(&[EVERYTHING]);
    }

    fn tell(&self, told: &Told, doubts: &Doubts) {
        let next = self.number.load(SeqCst) + 1;
        match told {
            Told::All if doubts.all == 0 => self.floor.store(next, SeqCst),
            Told::All => {}
            Told::Some(stripes) => {
                for stripe in stripes {
                    if !doubts.stripes.contains_key(stripe) {
                        self.stripes[usize::from(stripe.0)].store(next, SeqCst);
                    }
                }
            }
        }
        self.number.store(next, SeqCst);
    }

    /// Puts keys in doubt, before the commit that changes them begins. `settle` ends it, whatever became of the commit.
    #[must_use]
    pub fn doubt(&self, keys: &[Uuid]) -> Doubted {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        let told = Told::of(keys);
        match &told {
            Told::All => {
                doubts.all += 1;
                self.floor.store(IN_DOUBT, SeqCst);
            }
            Told::Some(stripes) => {
                for stripe in stripes {
                    *doubts.stripes.entry(*stripe).or_default() += 1;
                    self.stripes[usize::from(stripe.0)].store(IN_DOUBT, SeqCst);
                }
            }
        }
        Doubted(told)
    }

    /// The commit has ended: what it changed gets a number, unless another commit has it in doubt.
    pub fn settle(&self, Doubted(told): &Doubted) {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Told::All => doubts.all = doubts.all.saturating_sub(1),
            Told::Some(stripes) => {
                for stripe in stripes {
                    if let Some(count) = doubts.stripes.get_mut(stripe) {
                        *count -= 1;
                        if *count == 0 {
                            doubts.stripes.remove(stripe);
                        }
                    }
                }
            }
        }
        if !matches!(told, Told::Some(stripes) if stripes.is_empty()) {
            self.tell(told, &doubts);
        }
    }
}

/// Keys in doubt.
#[derive(Debug)]
pub struct Doubted(Told);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u128) -> Uuid {
        Uuid::from_u128(n * 0x1_0001_0001)
    }

    fn stripes(keys: &[Uuid]) -> Vec<Stripe> {
        keys.iter().map(|k| Stripe::of(*k)).collect()
    }

    #[test]
    fn what_depends_on_a_key_holds_until_it_is_told_of() {
        let clock = Clock::default();
        let (mine, other) = (stripes(&[key(1), key(2)]), stripes(&[key(3)]));
        let at = clock.number();
        assert!(clock.holds(at, &mine));
        clock.apply(&[key(2)]);
        assert!(!clock.holds(at, &mine));
        assert!(clock.holds(at, &other));
        assert!(clock.holds(clock.number(), &mine));
        // Nothing told is no round.
        let at = clock.number();
        clock.apply(&[]);
        assert_eq!(clock.number(), at);
    }

    #[test]
    fn what_was_loaded_before_a_change_is_born_stale() {
        let clock = Clock::default();
        let at = clock.number();
        clock.apply(&[key(1)]);
        assert!(!clock.holds(at, &stripes(&[key(1)])));
    }

    #[test]
    fn everything_is_forgotten_by_its_key_and_by_too_many() {
        let clock = Clock::default();
        for keys in [vec![EVERYTHING], (1..=4_097).map(key).collect()] {
            let at = clock.number();
            clock.apply(&keys);
            assert!(!clock.holds(at, &[]));
            assert!(clock.holds(clock.number(), &stripes(&keys)));
        }
        let at = clock.number();
        clock.apply(&(1..=4_096).map(key).collect::<Vec<_>>());
        assert!(clock.holds(at, &[]));
    }

    #[test]
    fn nothing_in_doubt_holds_until_all_commits_that_doubt_it_ended() {
        let clock = Clock::default();
        let mine = stripes(&[key(1)]);
        let at = clock.number();
        let first = clock.doubt(&[key(1), key(2)]);
        let second = clock.doubt(&[key(1)]);
        assert!(!clock.holds(at, &mine));
        assert!(!clock.holds(clock.number(), &mine));
        clock.settle(&first);
        assert!(!clock.holds(clock.number(), &mine));
        assert!(clock.holds(clock.number(), &stripes(&[key(2)])));
        clock.settle(&second);
        assert!(!clock.holds(at, &mine));
        assert!(clock.holds(clock.number(), &mine));
        let all = clock.doubt(&[EVERYTHING]);
        let other = clock.doubt(&[EVERYTHING]);
        assert!(!clock.holds(clock.number(), &[]));
        clock.settle(&all);
        assert!(!clock.holds(clock.number(), &[]));
        clock.settle(&other);
        assert!(clock.holds(clock.number(), &[]));
    }
}
