//! Heads of scopes as the last commit left them, on SQLite, where this process alone writes and its commits take turns. A commit takes out
//! what it changes before it is made, and puts it back after, unless another one has begun to commit meanwhile.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{batch::Head, scope_key::ScopeKey};

/// Heads that are remembered; when there are more, all are forgotten.
const MOST_HEADS: usize = 20_000;

/// The heads.
#[derive(Default)]
pub struct Heads(Mutex<Known>);

#[derive(Default)]
struct Known {
    heads: HashMap<ScopeKey, Head>,
    /// Commits that began.
    turn: u64,
}

/// A commit's turn, with what it leaves.
pub(super) struct Turn {
    turn: u64,
    heads: BTreeMap<ScopeKey, Head>,
}

impl Heads {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A head as the last commit left it.
    pub(super) fn get(&self, scope: ScopeKey) -> Option<Head> {
        self.known().heads.get(&scope).cloned()
    }

    /// Before a commit that leaves these.
    pub(super) fn begin(&self, heads: BTreeMap<ScopeKey, Head>) -> Turn {
        let mut known = self.known();
        known.turn += 1;
        for scope in heads.keys() {
            known.heads.remove(scope);
        }
        Turn {
            turn: known.turn,
            heads,
        }
    }

    /// After it, if it was made.
    pub(super) fn end(&self, turn: Turn) {
        let mut known = self.known();
        if known.turn != turn.turn {
            return;
        }
        if known.heads.len() + turn.heads.len() > MOST_HEADS {
            known.heads.clear();
        }
        known.heads.extend(turn.heads);
    }

    /// A commit that nobody knows of was made.
    pub(super) fn forget(&self) {
        self.known().heads.clear();
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(count: i64) -> BTreeMap<ScopeKey, Head> {
        let head = Head {
            audit_count: count,
            audit_hash: Vec::new(),
            event_count: 0,
            last_time: 0,
        };
        BTreeMap::from([(SCOPE, head)])
    }

    const SCOPE: ScopeKey = ScopeKey::Tenant(Uuid::nil());

    fn count(heads: &Heads) -> Option<i64> {
        heads.get(SCOPE).map(|head| head.audit_count)
    }

    #[test]
    fn what_a_commit_leaves_is_known_after_it_and_not_before() {
        let heads = Heads::default();
        let first = heads.begin(at(1));
        assert_eq!(count(&heads), None);
        heads.end(first);
        assert_eq!(count(&heads), Some(1));
        let failed = heads.begin(at(2));
        drop(failed);
        assert_eq!(count(&heads), None);
    }

    #[test]
    fn who_ends_late_overwrites_nobody() {
        let heads = Heads::default();
        let first = heads.begin(at(1));
        let second = heads.begin(at(2));
        heads.end(first);
        assert_eq!(count(&heads), None);
        heads.end(second);
        assert_eq!(count(&heads), Some(2));
        let third = heads.begin(at(3));
        let fourth = heads.begin(at(4));
        heads.end(fourth);
        heads.end(third);
        assert_eq!(count(&heads), Some(4));
    }

    #[test]
    fn they_are_bounded_and_forgotten_as_a_whole() {
        let heads = Heads::default();
        let mut many = at(1);
        for n in 1..=MOST_HEADS {
            let (_, head) = at(1).pop_first().unwrap();
            many.insert(ScopeKey::Tenant(Uuid::from_u128(n as u128)), head);
        }
        heads.end(heads.begin(many));
        assert_eq!(count(&heads), Some(1));
        heads.end(heads.begin(BTreeMap::new()));
        assert_eq!(count(&heads), None);
        heads.end(heads.begin(at(5)));
        heads.forget();
        assert_eq!(count(&heads), None);
    }
}
