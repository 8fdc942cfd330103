//! Random sequences of calls against a small model of who may do what (ROL-4 to ROL-13, ACC-1, ACC-13, ACC-20, GRP, APP, INV, TEN-5, TEN-7, REL,
//! ATK-13). The model is written from the rules. It knows roles as sets of permissions from `GetRoleTable`, and the exceptions to ROL-7 from their
//! table; else nothing of the server's.
//!
//! Some sequences share a world: tenants of their own, so that what one left behind meets the next. A world depends on its seed alone, so a
//! failure is replayed by that seed (`ENTENTE_MODEL_SEED`; 0 takes a new one). `ENTENTE_MODEL_SEQUENCES` says how many sequences run on each
//! database. `docs/testing.md` has more.

mod accounts;
mod applications;
mod compare;
mod customers;
mod doors;
mod draw;
mod groups;
mod guests;
mod members;
mod relationships;
mod state;
mod synchronization;
mod tenants;
mod users;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use self::state::{Model, Table};
use crate::{
    harness::{Database, Site},
    people::Service,
};

/// Steps of a sequence, and sequences of a world. What accounts there are changes more often.
const STEPS: u64 = 5;
const SEQUENCES_A_WORLD: u64 = 80;
const SEQUENCES_AN_ACCOUNT: u64 = 10;

type Words = BTreeSet<String>;
/// Why a call is refused: every reason that applies, since the model doesn't know the order of checks.
type Reasons = BTreeSet<&'static str>;
/// What becomes of all by a call, or why it is refused.
type Verdict = Result<Model, Reasons>;

fn words(list: &[&str]) -> Words {
    list.iter().map(|w| (*w).to_owned()).collect()
}

/// Chance that can be repeated (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Up to `most` different ones, at least one.
    fn some<T: Clone + Ord>(&mut self, from: &[T], most: usize) -> Vec<T> {
        let count = 1 + self.below(most);
        let chosen: BTreeSet<T> = (0..count).map(|_| self.pick(from)).collect();
        chosen.into_iter().collect()
    }
}

/// A call, by the noun whose rules it is held against.
#[derive(Clone, Debug)]
enum Step {
    Members(members::Step),
    Accounts(accounts::Step),
    Users(users::Step),
    Groups(groups::Step),
    Applications(applications::Step),
    Guests(guests::Step),
    Tenants(tenants::Step),
    Synchronization(synchronization::Step),
    Relationships(relationships::Step),
    Customers(customers::Step),
}

impl Step {
    /// The accounts that it sets up, which have to be in a state for that, and the permission that is asked for before it is told; none where
    /// there are several ways.
    fn manages(&self) -> (Option<&'static str>, Vec<usize>) {
        use members::Step as Of;
        let all = |memberships: &[(usize, state::Held)]| -> Vec<usize> {
            memberships.iter().map(|(account, _)| *account).collect()
        };
        match self {
            Self::Members(Of::Add(account, ..)) => (None, vec![*account]),
            Self::Members(Of::GrantFinance(account, _)) => (Some("finance.grant"), vec![*account]),
            Self::Members(Of::RestoreManager(account, _)) => {
                (Some("members.restore_manager"), vec![*account])
            }
            Self::Members(Of::Associate(account, _)) => (Some("tenants.manage"), vec![*account]),
            Self::Users(users::Step::Create(new)) => (None, all(&new.memberships)),
            Self::Groups(groups::Step::Create(_, _, memberships)) => (None, all(memberships)),
            Self::Applications(applications::Step::Create(_, memberships)) => {
                (None, all(memberships))
            }
            Self::Guests(guests::Step::Invite(_, _, Some((account, _)))) => (None, vec![*account]),
            _ => (None, Vec::new()),
        }
    }

    /// Whose token goes along.
    fn second_caller(&self) -> Option<usize> {
        match self {
            Self::Members(members::Step::Associate(_, admin))
            | Self::Accounts(accounts::Step::Create(_, admin)) => Some(*admin),
            _ => None,
        }
    }
}

impl Model {
    /// What becomes of all by one call, or every reason why it is refused.
    fn judge(&self, table: &Table, caller: usize, step: &Step) -> Verdict {
        let by = state::By {
            model: self,
            table,
            caller,
        };
        let verdict = self.judge_of_noun(by, step);
        let (first, accounts) = step.manages();
        let Err(stopped) = accounts.iter().try_for_each(|a| self.manages(*a)) else {
            return verdict;
        };
        // Who isn't let in, or to the account, isn't told how it stands.
        let is_let_in = self.signs_in(caller)
            && first.is_none_or(|p| accounts.iter().all(|a| by.on_account(*a, p).is_ok()));
        match verdict {
            Err(reasons) if !is_let_in => Err(reasons),
            Err(reasons) => Err(reasons.union(&stopped).copied().collect()),
            Ok(_) => Err(stopped),
        }
    }

    fn judge_of_noun(&self, by: state::By<'_>, step: &Step) -> Verdict {
        match step {
            Step::Members(step) => members::judge(by, step),
            Step::Accounts(step) => accounts::judge(by, step),
            Step::Users(step) => users::judge(by, step),
            Step::Groups(step) => groups::judge(by, step),
            Step::Applications(step) => applications::judge(by, step),
            Step::Guests(step) => guests::judge(by, step),
            Step::Tenants(step) => tenants::judge(by, step),
            Step::Synchronization(step) => synchronization::judge(by, step),
            Step::Relationships(step) => relationships::judge(by, step),
            Step::Customers(step) => customers::judge(by, step),
        }
    }
}

fn check(faults: Reasons) -> Result<(), Reasons> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

fn unless(holds: bool, reason: &'static str) -> Result<(), Reasons> {
    check(if holds {
        Reasons::new()
    } else {
        Reasons::from([reason])
    })
}

/// What the sequences came to.
#[derive(Debug, Default)]
struct Tally {
    allowed: BTreeMap<String, usize>,
    refused: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// Many sequences must have come to everything.
    fn hold_up(&self, database: Database, sequences: u64) {
        println!("{database:?}: {self:?}");
        let sum = |of: Vec<&usize>| of.into_iter().sum::<usize>();
        let (allowed, refused) = (
            sum(self.allowed.values().collect()),
            sum(self.refused.values().collect()),
        );
        assert!(allowed * 10 > refused, "{allowed} : {refused}");
        if sequences < 500 {
            return;
        }
        for reason in [
            "CANNOT_GRANT_WHAT_YOU_LACK",
            "CREDENTIAL_ELSEWHERE",
            "DIRECTORY_SYNCHRONIZED",
            "LAST_GLOBAL_ADMIN",
            "LAST_MANAGER",
            "NOTHING_TO_WAKE",
            "NOT_ASSIGNABLE",
            "OWNER_EXISTS",
            "OWNS_ACCOUNT",
            "OWN_CREDENTIAL",
            "NOT_ADDRESSEE",
            "RIGHTS_ASLEEP",
            "SELF_RELATIONSHIP",
            "TENANT_IN_USE",
            "WRONG_STATE",
        ] {
            assert!(self.refused.contains_key(reason), "{reason} never came up");
        }
        for step in world::ALL_STEPS {
            assert!(self.allowed.contains_key(*step), "{step} was never allowed");
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

async fn run(site: &Site, seed: u64, sequences: u64) {
    let database = site.database;
    let service = Service::open(site).await;
    let reviewer = crate::reviews::reviewer(site, "rita").await;
    let mut tally = Tally::default();
    let mut made = 0;
    for (index, begin) in (0..sequences)
        .step_by(usize::try_from(SEQUENCES_A_WORLD).unwrap())
        .enumerate()
    {
        let seed = seed.wrapping_add(index as u64);
        let mut rng = Rng(seed);
        let mut world = world::World::new(site, &service, &reviewer, made).await;
        let left = (sequences - begin).min(SEQUENCES_A_WORLD);
        for sequence in 0..left {
            world.at = format!(
                "{database:?}, sequence {sequence}; replay with ENTENTE_MODEL_SEED={seed} ENTENTE_MODEL_SEQUENCES={}",
                sequence + 1
            );
            if sequence % SEQUENCES_AN_ACCOUNT == 0 {
                world.open_accounts(&mut rng).await;
            }
            for _ in 0..STEPS {
                let (caller, step) = world.draw(&mut rng);
                world.take(caller, &step, &mut tally).await;
            }
            world.compare(&mut rng).await;
        }
        world.compare_all(&mut rng).await;
        made = world.made;
    }
    tally.hold_up(database, sequences);
}

// proves ROL-4, ROL-6, ROL-7, ROL-9, ROL-10, ROL-12, ROL-13, ACC-1, ACC-13, ACC-20, GRP-3, GRP-7, APP-4, APP-5, INV-4, INV-5, TEN-5, TEN-7, USR-6, PWD-5, PWD-6, REL-3, REL-6, REL-8, REL-9, REL-10, REL-12, REL-14, REL-22, ATK-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sequence_of_calls_gives_anybody_more_than_the_callers_could_give() {
    // A gate must not fail by chance for what it did not change: it always runs the same sequences. New ones run nightly.
    let seed = match number("ENTENTE_MODEL_SEED", 20_261_121) {
        0 => u64::from_be_bytes(entente::env::Env::system().bytes::<8>()),
        seed => seed,
    };
    let sequences = number("ENTENTE_MODEL_SEQUENCES", 1_000);
    println!("ENTENTE_MODEL_SEED={seed}");
    // Opened one after the other: the first of its kind makes a template, and blocks meanwhile.
    let sqlite = Site::open(Database::Sqlite).await;
    let postgres = Site::open(Database::Postgres).await;
    tokio::join!(
        run(&sqlite, seed, sequences),
        run(&postgres, seed, sequences)
    );
}
