//! Measures the service as it is run, against yardsticks on the same machine in the same minutes: `make bench` and `make bench-quick`.
//!
//! The service is the release binary, as processes of their own with a real configuration; nothing is switched off, only the limits of calls a
//! caller are lifted. PostgreSQL is a cluster of this program's own with its defaults, so every commit is synced. Masses of rows are seeded by SQL;
//! all else goes by the public API, so any version of the service can be measured (`--binary`).
//!
//! Each round runs every case for a short time, those beside each other that are compared. A ratio is formed within a round; told are the median
//! over the rounds and both ends. Client, server and database share the machine's cores.

mod cases;
mod companies;
mod hashes;
mod load;
mod machine;
mod ops;
mod postgres;
mod report;
mod seed;
mod site;
mod targets;
mod wire;
mod world;
mod yard;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::{
    load::{Sample, Window},
    report::{Outcome, Results, line},
    site::Database,
    targets::Round,
    world::World,
};

/// Threads of the client: more would only take turns with server and database.
const CLIENT_THREADS: usize = 2;

/// Measures Entente.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the bare echo; started by `run`.
    Echo,
    /// Lists the cases.
    Cases,
    /// Measures.
    Run(Box<Options>),
}

#[derive(Args)]
struct Options {
    /// Cases to run, instead of all; targets that lack one of theirs aren't told.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a case in a round.
    #[arg(long, default_value_t = 1.6)]
    seconds: f64,
    /// Seconds of warm-up before.
    #[arg(long, default_value_t = 0.4)]
    warm_up: f64,
    /// Databases, instead of both.
    #[arg(long, value_delimiter = ',')]
    database: Vec<Database>,
    /// Users of the large tenant.
    #[arg(long, default_value_t = 1_000_000)]
    users: usize,
    /// Numbers of callers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32, 128])]
    callers: Vec<usize>,
    /// Only the main cases, for one number of callers.
    #[arg(long)]
    quick: bool,
    /// The service's binary.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// A folder for all data, on the disk that is to be measured; the system's for temporary files if not given.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Everything that was measured, as JSON.
    #[arg(long, default_value = "target/bench/results.json")]
    json: PathBuf,
    /// The page whose measured part is written anew.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Holds the run against this baseline; ends with 1 if something lost more than a tenth.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Writes this baseline.
    #[arg(long)]
    write_baseline: Option<PathBuf>,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CLIENT_THREADS)
        .enable_all()
        .build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match Cli::parse().command {
                Command::Echo => serve_echo().await,
                Command::Cases => {
                    for case in cases::CASES {
                        println!("{}", case.name);
                    }
                    Ok(true)
                }
                Command::Run(options) => tokio::select! {
                    done = run(&options) => done,
                    // So that servers end with it.
                    _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
                },
            }
        })
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("entente-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn serve_echo() -> Result<bool> {
    wire::serve_echo().await?;
    Ok(true)
}

async fn run(options: &Options) -> Result<bool> {
    for name in &options.only {
        ensure!(
            cases::CASES.iter().any(|c| c.name == name),
            "{name} is no case; see `cases`"
        );
    }
    ensure!(
        options.rounds > 0 && options.seconds > 0.0,
        "no rounds, or no time"
    );
    let binary = world::binary(options.binary.clone())?;
    // Rather now than after the run.
    report::check(options.page.as_deref(), options.baseline.as_deref())?;
    let under = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new()
        .prefix("entente-bench-")
        .tempdir_in(&under)
        .with_context(|| under.display().to_string())?;
    let mut machine = machine::describe(folder.path());
    let version = machine::output(&binary.display().to_string(), &["--version"]);
    machine.push(("Service".to_owned(), version));
    if machine.iter().any(|(_, value)| value == "tmpfs") {
        eprintln!("the folder lies in memory: syncs cost nothing there, name another by --folder");
    }
    let command: Vec<_> = std::env::args().skip(1).collect();
    let mut results = Results {
        command: format!("entente-bench {}", command.join(" ")),
        machine,
        seconds: options.seconds,
        databases: Vec::new(),
    };
    let both = [Database::Sqlite, Database::Postgres];
    for database in both {
        if options.database.is_empty() || options.database.contains(&database) {
            measure(options, database, &binary, folder.path(), &mut results).await?;
        }
    }
    println!("{}", results.summary());
    if let Some(page) = &options.page {
        results.write_page(page)?;
    }
    if let Some(baseline) = &options.write_baseline {
        results.write_baseline(baseline)?;
    }
    match &options.baseline {
        Some(baseline) => results.compare(baseline),
        None => Ok(true),
    }
}

async fn measure(
    options: &Options,
    database: Database,
    binary: &Path,
    folder: &Path,
    results: &mut Results,
) -> Result<()> {
    let runs = cases::plan(database, &options.only, &options.callers, options.quick);
    if runs.is_empty() {
        return Ok(());
    }
    let mut world =
        World::make(database, binary, folder, options.users, cases::needs(&runs)).await?;
    results.databases.push(Outcome {
        database,
        version: world.version.clone(),
        notes: Vec::new(),
        syncs: Vec::new(),
        order: runs.iter().map(cases::Run::key).collect(),
        rounds: Vec::new(),
    });
    let at = results.databases.len() - 1;
    let window = Window {
        warm_up: Duration::from_secs_f64(options.warm_up),
        measured: Duration::from_secs_f64(options.seconds),
    };
    for round in 1..=options.rounds {
        world.renew().await?;
        let mut samples = Round::new();
        // Every other round goes the other way, so that no case always follows the same one.
        let mut order = runs.clone();
        if round % 2 == 0 {
            order.reverse();
        }
        for of in order {
            match cases::run(&mut world, of, window).await {
                Ok(sample) => {
                    eprintln!(
                        "{} {round}/{} {}: {}",
                        database.name(),
                        options.rounds,
                        of.key(),
                        line(&sample)
                    );
                    samples.insert(of.key(), sample);
                }
                // The other cases are still worth having.
                Err(error) => {
                    eprintln!("{}: FAILED: {error:#}", of.key());
                    let note = format!("{} failed in round {round}: {error:#}", of.key());
                    results.databases[at].notes.push(note);
                }
            }
        }
        results.databases[at].rounds.push(samples);
        results.write_json(&options.json)?;
    }
    if !options.quick {
        results.databases[at].syncs = cases::syncs(&mut world, &runs, window).await?;
        for (name, memory) in cases::memory(&world).await? {
            let outcome = &mut results.databases[at];
            outcome.order.push(name.clone());
            for round in &mut outcome.rounds {
                // Once for the whole run, so the same in each round.
                round.insert(name.clone(), Sample::of_value(memory));
            }
        }
    }
    results.databases[at].notes.append(&mut world.notes);
    results.write_json(&options.json)
}
