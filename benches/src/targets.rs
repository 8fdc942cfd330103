//! What is compared with what, and what is asked of it.

use std::collections::BTreeMap;

use crate::{load::Sample, site::Database};

/// What of a case is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Calls a second. Turned round, it compares the time that a call takes.
    Rate,
    /// The time that 99 in 100 calls keep within.
    P99,
    /// CPU time of the server a call.
    ServerCpu,
    /// The number of one case alone: milliseconds, MiB.
    Value,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// At least so much.
    Least(f64),
    /// At most so much.
    Most(f64),
    /// Nothing; more is better.
    More,
    /// Nothing; less is better.
    Less,
}

impl Asked {
    /// In words.
    pub fn words(self) -> String {
        match self {
            Self::Least(n) => format!("≥ {n}"),
            Self::Most(n) => format!("≤ {n}"),
            Self::More | Self::Less => String::new(),
        }
    }

    /// Whether it is reached; nothing where nothing is asked.
    pub fn reached(self, value: f64) -> Option<bool> {
        match self {
            Self::Least(n) => Some(value >= n),
            Self::Most(n) => Some(value <= n),
            Self::More | Self::Less => None,
        }
    }

    /// Whether a value is worse than one of before by more than a tenth.
    pub fn lost(self, value: f64, before: f64) -> bool {
        match self {
            Self::Least(_) | Self::More => value < before * 0.9,
            Self::Most(_) | Self::Less => value * 0.9 > before,
        }
    }
}

/// A comparison.
#[derive(Clone, Copy)]
pub struct Ratio {
    /// In words.
    pub name: &'static str,
    /// The case.
    pub of: &'static str,
    /// The case that it is held against; none for a number by itself.
    pub to: &'static str,
    /// What is compared.
    pub metric: Metric,
    /// What is asked of it.
    pub asked: Asked,
}

const fn ratio(
    name: &'static str,
    of: &'static str,
    to: &'static str,
    metric: Metric,
    asked: Asked,
) -> Ratio {
    Ratio {
        name,
        of,
        to,
        metric,
        asked,
    }
}

use Asked::{Least, Less, More, Most};
use Metric::{P99, Rate, ServerCpu, Value};

/// On both databases.
const BOTH: &[Ratio] = &[
    ratio(
        "GetUser p99 / echo p99, 32 callers",
        "get-user/32",
        "echo/32",
        P99,
        Most(2.5),
    ),
    ratio(
        "GetUser / echo, 1 caller",
        "get-user/1",
        "echo/1",
        Rate,
        More,
    ),
    ratio(
        "GetUser / echo, 8 callers",
        "get-user/8",
        "echo/8",
        Rate,
        More,
    ),
    ratio(
        "CPU of the server: GetUser / echo, 32 callers",
        "get-user/32",
        "echo/32",
        ServerCpu,
        Less,
    ),
    ratio(
        "CPU of the server: GetUser / echo, 128 callers",
        "get-user/128",
        "echo/128",
        ServerCpu,
        Less,
    ),
    ratio(
        "ListUsers / echo, 32 callers",
        "list-users/32",
        "echo/32",
        Rate,
        More,
    ),
    ratio(
        "CheckAccess, 2,000 groups / echo, 32 callers",
        "check-2000-groups/32",
        "echo/32",
        Rate,
        More,
    ),
    // The rate turned round is the time a call.
    ratio(
        "CheckAccess, time: 2,000 groups / 10, 32 callers",
        "check-10-groups/32",
        "check-2000-groups/32",
        Rate,
        Most(1.2),
    ),
    ratio(
        "CheckAccess, time: 110,000 grants / 10, 32 callers",
        "check-10-grants/32",
        "check-110000-grants/32",
        Rate,
        Most(1.2),
    ),
    ratio(
        "CheckAccess of 100, time: 2,000 groups / 10, 32 callers",
        "check-10-groups-batch/32",
        "check-2000-groups-batch/32",
        Rate,
        Most(1.2),
    ),
    ratio(
        "CheckAccess of 100, time: 110,000 grants / 10, 32 callers",
        "check-10-grants-batch/32",
        "check-110000-grants-batch/32",
        Rate,
        Most(1.2),
    ),
    ratio(
        "CreateAccount, all in one / CreateUser, 1 caller",
        "create-account/1",
        "create-user/1",
        Rate,
        More,
    ),
    ratio(
        "CreateAccount, all in one / CreateUser, 32 callers",
        "create-account/32",
        "create-user/32",
        Rate,
        More,
    ),
    ratio(
        "CreateAccount, all in one / CreateUser, 128 callers",
        "create-account/128",
        "create-user/128",
        Rate,
        More,
    ),
    ratio(
        "ListReviews p99: a queue of 100,000 / 1,000, 32 callers",
        "list-reviews-100k/32",
        "list-reviews/32",
        P99,
        Most(1.3),
    ),
    ratio(
        "ListReviews p99: a page in the middle / page 1, 32 callers",
        "list-reviews-100k-late/32",
        "list-reviews-100k/32",
        P99,
        Most(1.3),
    ),
    ratio(
        "ListReviews, time: a queue of 100,000 / 1,000, 32 callers",
        "list-reviews/32",
        "list-reviews-100k/32",
        Rate,
        Less,
    ),
    ratio(
        "ListReviews / ListUsers, 32 callers",
        "list-reviews/32",
        "list-users/32",
        Rate,
        More,
    ),
    ratio(
        "Sign-ins / raw hash loop, 32 callers",
        "sign-in/32",
        "hash-loop",
        Rate,
        Least(0.95),
    ),
    ratio(
        "Reads' p99: in a sign-in storm / without",
        "reads-in-sign-in-storm",
        "reads-calm",
        P99,
        Most(2.0),
    ),
    ratio(
        "ListUsers p99: page 10,000 / page 1, 32 callers",
        "list-users-1m-late/32",
        "list-users-1m/32",
        P99,
        Most(1.3),
    ),
    ratio(
        "ListUsers, time: page 10,000 / page 1, 32 callers",
        "list-users-1m/32",
        "list-users-1m-late/32",
        Rate,
        Less,
    ),
    ratio(
        "ListUsers p99: 1,000,000 users / 1,000, 32 callers",
        "list-users-1m/32",
        "list-users/32",
        P99,
        Most(1.3),
    ),
    ratio(
        "GetUser p99: 1,000,000 users / 1,000, 32 callers",
        "get-user-1m/32",
        "get-user/32",
        P99,
        Most(1.3),
    ),
    // Of what must not show by time (COM-2): 1 but for chance.
    ratio(
        "Refused, time: a user who isn't there / another tenant's, 32 callers",
        "refused-foreign/32",
        "refused-missing/32",
        Rate,
        Less,
    ),
    ratio(
        "Refused, p99: a user who isn't there / another tenant's, 32 callers",
        "refused-missing/32",
        "refused-foreign/32",
        P99,
        Less,
    ),
    ratio("Idle memory, MiB", "memory-idle", "", Value, Most(40.0)),
    ratio(
        "Memory with 1,000,000 users, after the rounds, MiB",
        "memory-1m-users",
        "",
        Value,
        Most(150.0),
    ),
    ratio("Start to first answer, ms", "start", "", Value, Most(150.0)),
];

const SQLITE: &[Ratio] = &[
    ratio(
        "GetUser / echo, 32 callers",
        "get-user/32",
        "echo/32",
        Rate,
        Least(0.75),
    ),
    ratio(
        "GetUser / echo, 128 callers",
        "get-user/128",
        "echo/128",
        Rate,
        Least(0.85),
    ),
    ratio(
        "CreateUser, 100 tenants / one commit a call, 32 callers",
        "create-user/32",
        "sqlite-one-commit",
        Rate,
        Least(3.0),
    ),
    ratio(
        "CreateUser, 100 tenants / one commit a call, 128 callers",
        "create-user/128",
        "sqlite-one-commit",
        Rate,
        Least(5.0),
    ),
    ratio(
        "CreateUser, one hot tenant / one commit a call, 32 callers",
        "create-user-hot/32",
        "sqlite-one-commit",
        Rate,
        Least(5.0),
    ),
    ratio(
        "CreateUser / one commit a call, one caller",
        "create-user/1",
        "sqlite-one-commit",
        Rate,
        Least(0.9),
    ),
];

const POSTGRES: &[Ratio] = &[
    ratio(
        "GetUser / echo, 32 callers",
        "get-user/32",
        "echo/32",
        Rate,
        Least(0.5),
    ),
    ratio(
        "GetUser / echo, 128 callers",
        "get-user/128",
        "echo/128",
        Rate,
        Least(0.7),
    ),
    ratio(
        "CreateUser, 100 tenants / pgbench's best, 32 callers",
        "create-user/32",
        "pgbench",
        Rate,
        Least(1.0),
    ),
    ratio(
        "CreateUser, 100 tenants / pgbench's best, 128 callers",
        "create-user/128",
        "pgbench",
        Rate,
        Least(1.0),
    ),
    ratio(
        "CreateUser, one hot tenant / pgbench's best there, 32 callers",
        "create-user-hot/32",
        "pgbench-hot",
        Rate,
        Least(3.0),
    ),
    ratio(
        "CreateUser, one caller / pgbench, one client",
        "create-user/1",
        "pgbench-one-client",
        Rate,
        Least(0.3),
    ),
    ratio(
        "CreateUser, one hot tenant: two replicas / one, 32 callers",
        "create-user-hot-2-replicas/32",
        "create-user-hot/32",
        Rate,
        Least(0.8),
    ),
];

/// All comparisons of a database.
pub fn of(database: Database) -> impl Iterator<Item = &'static Ratio> {
    let own = match database {
        Database::Sqlite => SQLITE,
        Database::Postgres => POSTGRES,
    };
    own.iter().chain(BOTH)
}

/// A number in each round: its middle and its ends.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

/// The spread of some numbers; nothing if there are none.
pub fn spread(mut numbers: Vec<f64>) -> Option<Spread> {
    numbers.retain(|n| n.is_finite());
    numbers.sort_by(f64::total_cmp);
    let (least, most) = (*numbers.first()?, *numbers.last()?);
    let middle = numbers.len() / 2;
    let median = if numbers.len().is_multiple_of(2) {
        f64::midpoint(numbers[middle - 1], numbers[middle])
    } else {
        numbers[middle]
    };
    Some(Spread {
        median,
        least,
        most,
    })
}

/// A round: each case's sample by its name.
pub type Round = BTreeMap<String, Sample>;

impl Ratio {
    fn metric(&self, sample: &Sample) -> Option<f64> {
        match self.metric {
            Rate => Some(sample.rate()).filter(|r| *r > 0.0),
            P99 => sample.p99,
            ServerCpu => sample.server_cpu,
            Value => sample.value,
        }
    }

    /// Its value in each round by itself, then the spread over the rounds.
    pub fn over(&self, rounds: &[Round]) -> Option<Spread> {
        let in_round = |round: &Round| {
            let of = self.metric(round.get(self.of)?)?;
            if self.to.is_empty() {
                return Some(of);
            }
            Some(of / self.metric(round.get(self.to)?)?)
        };
        spread(rounds.iter().filter_map(in_round).collect())
    }

    /// Whether `bench-quick` holds it against the baseline. Rates and CPU time are steady enough in a short run; the slowest calls aren't.
    pub fn is_steady(&self) -> bool {
        matches!(self.metric, Rate | ServerCpu)
    }
}
