//! The cases, and how each is run.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    hashes,
    load::{self, Op, Sample, Window},
    machine::{Meter, Syncs, resident_mib},
    ops,
    seed::{ASKED, Open},
    site::Database,
    wire::Wire,
    world::{Needs, Shared, World},
    yard,
};

/// Calls a second of the open loop: few enough that sign-ins, not reads, fill the machine.
pub const READS_A_SECOND: u32 = 500;
/// Callers of cases that are run for one number only.
pub const MIDDLE: usize = 32;
/// How long what a write left behind is waited for.
const SETTLING: Duration = Duration::from_secs(10);

/// What a case does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The bare echo.
    Echo,
    /// GetUser among 1,000 users, and among 1,000 of a million.
    GetUser,
    /// The same on the large site.
    GetUserLarge,
    /// GetUser of somebody of another tenant, who is there or isn't.
    Refused(bool),
    /// ListUsers: page 1 of 1,000 users.
    ListSmall,
    /// Page 1 of a million.
    ListLarge,
    /// Page 10,000 of a million.
    ListLate,
    /// CheckAccess, one question or 100, about members of 2,000 groups.
    CheckMany(bool),
    /// Of 10 groups.
    CheckFew(bool),
    /// On an account with 110,000 members.
    CheckWide(bool),
    /// With 10 members.
    CheckNarrow(bool),
    /// CreateUser on a hundred tenants.
    Create,
    /// On one tenant.
    CreateHot,
    /// On one tenant by two replicas.
    CreateReplicas,
    /// CreateAccount, all in one, on a hundred tenants.
    OpenAccount,
    /// ListReviews: page 1 of a queue of 1,000.
    ReviewsFew,
    /// Page 1 of 100,000.
    ReviewsMany,
    /// A page in the middle of them.
    ReviewsLate,
    /// SignIn by password.
    SignIn,
    /// Reads at a fixed rate.
    Calm,
    /// The same while people sign in as fast as they can.
    Storm,
    /// Milliseconds from the start to the first answer.
    Start,
    /// pgbench's best on a hundred tenants, with one client, and on one tenant.
    Pgbench(usize),
    /// SQLite itself, one commit a call.
    OneCommit,
    /// The raw loop of hashes.
    Hashes,
}

/// For how many callers a case is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// For each number: 1, 8, 32 and 128.
    All,
    /// For the middle one: it is compared with its like there, and no further ratio needs the others.
    Middle,
    /// It has none.
    No,
}

use Levels::{All, Middle, No};

/// A case: what, its name, for how many callers it is run, and the callers of `bench-quick`.
pub struct Case {
    /// What it does.
    pub what: What,
    /// Its name.
    pub name: &'static str,
    /// For how many callers it is run.
    pub levels: Levels,
    /// Callers in a quick run; none if it is left out.
    pub quick: &'static [usize],
}

const fn case(what: What, name: &'static str, levels: Levels, quick: &'static [usize]) -> Case {
    Case {
        what,
        name,
        levels,
        quick,
    }
}

/// All cases, those beside each other that are compared.
pub const CASES: &[Case] = &[
    case(What::Echo, "echo", All, &[MIDDLE]),
    case(What::GetUser, "get-user", All, &[MIDDLE]),
    case(What::GetUserLarge, "get-user-1m", All, &[]),
    case(What::Refused(true), "refused-foreign", Middle, &[]),
    case(What::Refused(false), "refused-missing", Middle, &[]),
    case(What::ListSmall, "list-users", All, &[MIDDLE]),
    case(What::ListLarge, "list-users-1m", Middle, &[MIDDLE]),
    case(What::ListLate, "list-users-1m-late", Middle, &[MIDDLE]),
    case(What::CheckFew(false), "check-10-groups", All, &[MIDDLE]),
    case(What::CheckMany(false), "check-2000-groups", All, &[MIDDLE]),
    case(What::CheckNarrow(false), "check-10-grants", Middle, &[]),
    case(What::CheckWide(false), "check-110000-grants", Middle, &[]),
    case(What::CheckFew(true), "check-10-groups-batch", Middle, &[]),
    case(
        What::CheckMany(true),
        "check-2000-groups-batch",
        Middle,
        &[],
    ),
    case(
        What::CheckNarrow(true),
        "check-10-grants-batch",
        Middle,
        &[],
    ),
    case(
        What::CheckWide(true),
        "check-110000-grants-batch",
        Middle,
        &[],
    ),
    case(What::Create, "create-user", All, &[1, MIDDLE]),
    case(What::CreateHot, "create-user-hot", All, &[MIDDLE]),
    case(What::OpenAccount, "create-account", All, &[MIDDLE]),
    case(What::SignIn, "sign-in", All, &[MIDDLE]),
    case(What::ReviewsFew, "list-reviews", Middle, &[MIDDLE]),
    case(What::ReviewsMany, "list-reviews-100k", Middle, &[MIDDLE]),
    case(What::ReviewsLate, "list-reviews-100k-late", Middle, &[]),
    case(
        What::CreateReplicas,
        "create-user-hot-2-replicas",
        Middle,
        &[],
    ),
    case(What::OneCommit, "sqlite-one-commit", No, &[0]),
    case(What::Pgbench(0), "pgbench", No, &[0]),
    case(What::Pgbench(1), "pgbench-one-client", No, &[0]),
    case(What::Pgbench(2), "pgbench-hot", No, &[0]),
    case(What::Hashes, "hash-loop", No, &[0]),
    case(What::Calm, "reads-calm", No, &[]),
    case(What::Storm, "reads-in-sign-in-storm", No, &[]),
    case(What::Start, "start", No, &[]),
];

/// A case with its number of callers; 0 where it has none.
#[derive(Clone, Copy)]
pub struct Run {
    /// What it does.
    pub what: What,
    name: &'static str,
    callers: usize,
}

impl Run {
    /// What it is called in results: the case's name, and after a slash the callers.
    pub fn key(&self) -> String {
        if self.callers == 0 {
            self.name.to_owned()
        } else {
            format!("{}/{}", self.name, self.callers)
        }
    }
}

/// Cases of a database in the order of a round: by the number of callers, so that what is compared is measured within a minute.
pub fn plan(database: Database, only: &[String], levels: &[usize], quick: bool) -> Vec<Run> {
    let fits = |case: &&Case| {
        let here = match case.what {
            What::OneCommit => database == Database::Sqlite,
            What::Pgbench(_) | What::CreateReplicas => database == Database::Postgres,
            _ => true,
        };
        here && (only.is_empty() || only.iter().any(|name| name == case.name))
    };
    let cases: Vec<&Case> = CASES.iter().filter(fits).collect();
    let run = |case: &Case, callers| Run {
        what: case.what,
        name: case.name,
        callers,
    };
    let mut runs = Vec::new();
    if quick {
        for case in cases {
            runs.extend(case.quick.iter().map(|callers| run(case, *callers)));
        }
        return runs;
    }
    for level in levels {
        let at_level =
            |case: &&&Case| case.levels == All || (case.levels == Middle && *level == MIDDLE);
        runs.extend(cases.iter().filter(at_level).map(|case| run(case, *level)));
    }
    if !levels.contains(&MIDDLE) {
        let middle = cases.iter().filter(|c| c.levels == Middle);
        runs.extend(middle.map(|case| run(case, MIDDLE)));
    }
    let without = cases.iter().filter(|c| c.levels == No);
    runs.extend(without.map(|case| run(case, 0)));
    runs
}

/// What these cases need.
pub fn needs(runs: &[Run]) -> Needs {
    let mut needs = Needs::default();
    for run in runs {
        match run.what {
            What::Echo | What::Hashes => {}
            What::GetUser | What::ListSmall | What::ReviewsFew => needs.small = true,
            What::Start => needs.first = true,
            What::Pgbench(which) => {
                needs.shared = true;
                needs.pgbench[which] = true;
            }
            What::Create
            | What::CreateHot
            | What::CreateReplicas
            | What::OpenAccount
            | What::SignIn
            | What::Refused(_)
            | What::Calm
            | What::Storm
            | What::OneCommit => needs.shared = true,
            _ => needs.large = true,
        }
    }
    needs
}

/// A case that is load: the call, and whose CPU time counts.
fn load_of(world: &World, what: What) -> Result<Option<(Op, Meter)>> {
    let small = || world.small.as_ref().context("no small site");
    let large = || world.large.as_ref().context("no large site");
    let meter = |open: &Open| open.site.meter(&[&open.server]);
    let checked = |account: &str, people: &[String], batch: bool| {
        let large = large()?;
        let batch = if batch { ASKED } else { 1 };
        let op = ops::check(&large.open.wire, &large.service, account, people, batch);
        anyhow::Ok((op, meter(&large.open)))
    };
    Ok(Some(match what {
        What::Echo => (ops::echo(&world.echo.wire), world.echo.meter()),
        What::GetUser => {
            let (open, users) = small()?;
            (ops::get_user(open, users), meter(open))
        }
        What::GetUserLarge => {
            let large = large()?;
            (ops::get_user(&large.open, &large.users), meter(&large.open))
        }
        What::Refused(there) => {
            let open = &shared(world)?.open;
            (ops::refused(open, there), meter(open))
        }
        What::ListSmall => {
            let (open, _) = small()?;
            (
                ops::list_users(open, &open.people[0].tenant(), ""),
                meter(open),
            )
        }
        What::ListLarge | What::ListLate => {
            let large = large()?;
            let page = if what == What::ListLate {
                &large.late.0
            } else {
                ""
            };
            (
                ops::list_users(&large.open, &large.tenant, page),
                meter(&large.open),
            )
        }
        What::CheckMany(batch) => {
            let (account, held, _) = &large()?.grouped;
            checked(account, held, batch)?
        }
        What::CheckFew(batch) => {
            let (account, _, few) = &large()?.grouped;
            checked(account, few, batch)?
        }
        What::CheckWide(batch) => {
            let large = large()?;
            checked(&large.wide, &large.members_of_both, batch)?
        }
        What::CheckNarrow(batch) => {
            let large = large()?;
            checked(&large.narrow, &large.members_of_both, batch)?
        }
        What::Create | What::CreateHot => {
            let open = &shared(world)?.open;
            let of = if what == What::CreateHot {
                1
            } else {
                open.people.len()
            };
            (
                ops::create(&open.wire, &open.tokens[..of], &open.people[..of]),
                meter(open),
            )
        }
        What::OpenAccount => {
            let shared = shared(world)?;
            let op = ops::open_account(&shared.open, &shared.memberships);
            (op, meter(&shared.open))
        }
        What::ReviewsFew => {
            let (open, _) = small()?;
            (ops::list_reviews(open, ""), meter(open))
        }
        What::ReviewsMany | What::ReviewsLate => {
            let large = large()?;
            let page = if what == What::ReviewsLate {
                &large.late_reviews.0
            } else {
                ""
            };
            (ops::list_reviews(&large.open, page), meter(&large.open))
        }
        What::SignIn => {
            let open = &shared(world)?.open;
            (ops::sign_in(open), meter(open))
        }
        _ => return Ok(None),
    }))
}

fn shared(world: &World) -> Result<&Shared> {
    world.shared.as_ref().context("no shared site")
}

/// Runs a case once.
pub async fn run(world: &mut World, run: Run, window: Window) -> Result<Sample> {
    if let Some((op, meter)) = load_of(world, run.what)? {
        let sample = load::closed(&op, run.callers, window, &meter).await?;
        if writes(run.what) && !meter.quiet(SETTLING).await {
            eprintln!(
                "  {} left work behind that takes longer than {SETTLING:?}",
                run.key()
            );
        }
        return Ok(sample);
    }
    let seconds = window.measured.as_secs_f64();
    match run.what {
        What::CreateReplicas => replicas(world, run.callers, window).await,
        What::Calm | What::Storm => {
            let open = &shared(world)?.open;
            let (meter, reads) = (open.site.meter(&[&open.server]), ops::get_self(open));
            let reads = load::open(&reads, READS_A_SECOND, window, &meter);
            let sample = if run.what == What::Storm {
                // The storm begins before what is measured, and ends after it.
                let longer = Window {
                    measured: window.measured + Duration::from_millis(200),
                    ..window
                };
                let people = ops::sign_in(open);
                let storm = load::closed(&people, MIDDLE, longer, &meter);
                let (reads, storm) = tokio::join!(reads, storm);
                storm?;
                reads?
            } else {
                reads.await?
            };
            meter.quiet(SETTLING).await;
            Ok(sample)
        }
        What::Start => Ok(Sample::of_value(world.start().await?)),
        What::Pgbench(which) => pgbench(world, which, seconds).await,
        What::OneCommit => {
            let shared = shared(world)?;
            let (rows, model) = (shared.rows.clone(), shared.model.clone());
            here(move || yard::one_commit_each(&rows, &model, seconds)).await
        }
        What::Hashes => here(move || hashes::run(seconds)).await,
        other => anyhow::bail!("{other:?} is no case"),
    }
}

/// A yardstick that runs in this process; its CPU time is the client's.
async fn here(work: impl FnOnce() -> Result<Sample> + Send + 'static) -> Result<Sample> {
    let meter = Meter::default();
    let before = meter.read();
    let mut sample = tokio::task::spawn_blocking(work).await??;
    let used = meter.read().since(&before).client;
    sample.client_cpu = used.map(|us| us / sample.calls.max(1) as f64);
    Ok(sample)
}

fn writes(what: What) -> bool {
    matches!(
        what,
        What::Create | What::CreateHot | What::OpenAccount | What::SignIn
    )
}

async fn pgbench(world: &World, which: usize, seconds: f64) -> Result<Sample> {
    let shared = shared(world)?;
    let scripts = shared.scripts.as_ref().context("no scripts")?;
    let best = shared.best.context("nothing was chosen")?[which];
    let meter = Meter {
        servers: Vec::new(),
        database: world.database_pid(),
    };
    let before = meter.read();
    let mut sample = scripts
        .run(best.form, which == 2, best.clients, seconds)
        .await?;
    let used = meter.read().since(&before).database;
    sample.database_cpu = used.map(|us| us / sample.calls.max(1) as f64);
    meter.quiet(SETTLING).await;
    Ok(sample)
}

/// Half of the callers at each of two servers on the same database.
async fn replicas(world: &World, callers: usize, window: Window) -> Result<Sample> {
    let open = &shared(world)?.open;
    let (server, wire) = open.site.serve("data2").await?;
    let both = Wire::halves(&open.wire, &wire);
    let op = ops::create(&both, &open.tokens[..1], &open.people[..1]);
    let meter = open.site.meter(&[&open.server, &server]);
    let sample = load::closed(&op, callers, window, &meter).await?;
    meter.quiet(SETTLING).await;
    server.stop().await?;
    Ok(sample)
}

/// Files synced a call, where they can be counted; by cases that write.
pub async fn syncs(world: &mut World, runs: &[Run], window: Window) -> Result<Vec<(String, f64)>> {
    let mut counted = Vec::new();
    for of in runs {
        let asked = writes(of.what) && (of.callers == 1 || of.callers == MIDDLE);
        if !asked && !matches!(of.what, What::Pgbench(_) | What::OneCommit) {
            continue;
        }
        let meter = match (load_of(world, of.what)?, of.what) {
            (Some((_, meter)), _) => meter,
            (None, What::OneCommit) => Meter {
                servers: vec![std::process::id()],
                database: None,
            },
            (None, _) => Meter {
                servers: Vec::new(),
                database: world.database_pid(),
            },
        };
        let Some(perf) = Syncs::count(&meter.processes()).await else {
            world.notes.push(
                "files synced could not be counted: perf is missing, or isn't let".to_owned(),
            );
            break;
        };
        let sample = run(world, *of, window).await?;
        if let Some(count) = perf.end() {
            counted.push((of.key(), count as f64 / sample.all_calls.max(1) as f64));
        }
    }
    Ok(counted)
}

/// Memory of servers at the end, in MiB.
pub async fn memory(world: &World) -> Result<Vec<(String, f64)>> {
    let mut told = Vec::new();
    for (name, open) in [
        ("memory-worked", world.small.as_ref().map(|(open, _)| open)),
        (
            "memory-worked-writes",
            world.shared.as_ref().map(|s| &s.open),
        ),
        ("memory-1m-users", world.large.as_ref().map(|l| &l.open)),
    ] {
        if let Some(open) = open {
            told.push((name.to_owned(), resident_mib(open.server.pid())?));
        }
    }
    if let Some(memory) = world.idle_memory().await? {
        told.push(("memory-idle".to_owned(), memory));
    }
    Ok(told)
}
