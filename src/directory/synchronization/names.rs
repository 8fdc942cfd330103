//! Names that only one may have, wanted by many at once: who gets which.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

/// A name that an entry wants.
pub struct Want<'a> {
    /// Whose it is to be; none for somebody new.
    pub holder: Option<Uuid>,
    /// The name.
    pub name: &'a str,
}

/// The wants that can't be had, by their places: `held` says who has which of the wanted names now. With `moving` a name is free if its
/// holder gets another one; so names can be swapped. Of two who want the same name the first gets it.
pub fn refused(wants: &[Want<'_>], held: &HashMap<String, Uuid>, moving: bool) -> BTreeSet<usize> {
    let mut refused = BTreeSet::new();
    // Who is refused keeps the old name, so that others may be refused for it; each round refuses at least one more.
    loop {
        let gives_up = |holder: &Uuid| {
            moving
                && wants.iter().enumerate().any(|(i, want)| {
                    want.holder == Some(*holder)
                        && !refused.contains(&i)
                        && held.get(want.name) != Some(holder)
                })
        };
        let mut given: HashMap<&str, usize> = HashMap::new();
        let mut more = Vec::new();
        for (i, want) in wants.iter().enumerate() {
            if refused.contains(&i) {
                continue;
            }
            let free = match held.get(want.name) {
                Some(holder) => want.holder == Some(*holder) || gives_up(holder),
                None => true,
            };
            if !free || given.contains_key(want.name) {
                more.push(i);
            } else {
                given.insert(want.name, i);
            }
        }
        if more.is_empty() {
            return refused;
        }
        refused.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn held(of: &[(&str, u128)]) -> HashMap<String, Uuid> {
        of.iter()
            .map(|(n, id)| ((*n).to_owned(), who(*id)))
            .collect()
    }

    fn want(holder: Option<u128>, name: &str) -> Want<'_> {
        Want {
            holder: holder.map(who),
            name,
        }
    }

    // proves TEN-5
    #[test]
    fn names_are_given_once_swapped_and_handed_on() {
        let there = held(&[("a", 1), ("b", 2)]);
        // Swapped, and kept.
        let swap = [want(Some(1), "b"), want(Some(2), "a")];
        assert!(refused(&swap, &there, true).is_empty());
        assert_eq!(refused(&swap, &there, false).len(), 2);
        assert!(refused(&[want(Some(1), "a")], &there, true).is_empty());
        // The first of two; one that somebody else keeps.
        let twice = [want(None, "c"), want(None, "c"), want(None, "a")];
        assert_eq!(refused(&twice, &there, true), BTreeSet::from([1, 2]));
        // A name that its holder would have given up, had it got the next.
        let chain = [want(None, "a"), want(Some(1), "b")];
        assert_eq!(refused(&chain, &there, true), BTreeSet::from([0, 1]));
        let chain = [want(None, "a"), want(Some(1), "b"), want(Some(2), "c")];
        assert!(refused(&chain, &there, true).is_empty());
    }
}
