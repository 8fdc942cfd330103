//! What was measured, on the terminal, as JSON, on the page, and against the baseline.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{
    load::Sample,
    site::Database,
    targets::{self, Asked, Round, Spread, spread},
};

/// The page's part that is written anew stands between these.
const BEGIN: &str = "<!-- measured: written by `make bench` -->";
const END: &str = "<!-- measured: end -->";

/// All of a run.
#[derive(Default, Serialize)]
pub struct Results {
    /// How the program was called.
    pub command: String,
    /// Facts about the machine.
    pub machine: Vec<(String, String)>,
    /// Seconds of a case in a round.
    pub seconds: f64,
    /// What came of each database.
    pub databases: Vec<Outcome>,
}

/// What came of a database.
#[derive(Serialize)]
pub struct Outcome {
    /// Which.
    #[serde(serialize_with = "name")]
    pub database: Database,
    /// Its version.
    pub version: String,
    /// What is worth telling.
    pub notes: Vec<String>,
    /// Files synced a call, by case.
    pub syncs: Vec<(String, f64)>,
    /// Cases in the order in which they ran first.
    pub order: Vec<String>,
    /// Rounds.
    pub rounds: Vec<Round>,
}

fn name<S: serde::Serializer>(database: &Database, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(database.name())
}

/// A number with about three digits.
pub fn short(n: f64) -> String {
    match n.abs() {
        a if a >= 100.0 => {
            let digits = format!("{n:.0}");
            let mut out = String::new();
            for (i, c) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i).is_multiple_of(3) && out != "-" {
                    out.push(',');
                }
                out.push(c);
            }
            out
        }
        a if a >= 10.0 => format!("{n:.1}"),
        _ => format!("{n:.2}"),
    }
}

/// One line about a sample.
pub fn line(sample: &Sample) -> String {
    if let Some(value) = sample.value {
        return short(value);
    }
    let mut line = format!("{}/s", short(sample.rate()));
    for (name, value) in [
        ("p50", sample.p50),
        ("p99", sample.p99),
        ("p99.9", sample.p999),
        ("server", sample.server_cpu),
        ("database", sample.database_cpu),
        ("client", sample.client_cpu),
    ] {
        if let Some(value) = value {
            let _ = write!(line, "  {name} {} µs", short(value));
        }
    }
    for (code, count) in &sample.refused {
        let _ = write!(line, "  {code} {count}");
    }
    if sample.dropped > 0 {
        let _ = write!(line, "  dropped {}", sample.dropped);
    }
    line
}

impl Outcome {
    /// All comparisons that could be made.
    pub fn ratios(&self) -> Vec<(&'static targets::Ratio, Option<Spread>)> {
        let of = |ratio: &'static targets::Ratio| (ratio, ratio.over(&self.rounds));
        targets::of(self.database).map(of).collect()
    }

    fn table_of_targets(&self) -> String {
        let mut text = String::from(
            "| compared | asked | measured: median (least to most) | |\n| --- | --- | --- | --- |\n",
        );
        for (ratio, measured) in self.ratios() {
            let asked = ratio.asked.words();
            let (told, verdict) = match measured {
                None if asked.is_empty() => continue,
                None => ("not run".to_owned(), ""),
                Some(spread) => {
                    let verdict = match ratio.asked.reached(spread.median) {
                        Some(true) => "reached",
                        Some(false) => "**not reached**",
                        None => "",
                    };
                    (ends(spread), verdict)
                }
            };
            let _ = writeln!(text, "| {} | {asked} | {told} | {verdict} |", ratio.name);
        }
        text
    }

    fn table_of_cases(&self) -> String {
        let mut text = String::from(
            "| case/callers | calls/s: median (least to most) | p50 | p99 | p99.9 | CPU: server | database | client | syncs a call | refused | dropped |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for key in &self.order {
            let samples: Vec<&Sample> = self.rounds.iter().filter_map(|r| r.get(key)).collect();
            let over = |f: &dyn Fn(&Sample) -> Option<f64>| {
                spread(samples.iter().filter_map(|s| f(s)).collect())
            };
            let middle = |f: &dyn Fn(&Sample) -> Option<f64>| {
                over(f).map_or_else(String::new, |s| short(s.median))
            };
            let rate = over(&|s| s.value.or_else(|| Some(s.rate())));
            let rate = rate.map_or_else(String::new, ends);
            let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
            for (code, count) in samples.iter().flat_map(|s| &s.refused) {
                *refused.entry(code).or_default() += count;
            }
            let refused: Vec<_> = refused
                .iter()
                .map(|(code, n)| format!("{n} {code}"))
                .collect();
            let dropped: u64 = samples.iter().map(|s| s.dropped).sum();
            let dropped = if dropped == 0 {
                String::new()
            } else {
                dropped.to_string()
            };
            let synced = self.syncs.iter().find(|(name, _)| name == key);
            let _ = writeln!(
                text,
                "| {key} | {rate} | {} | {} | {} | {} | {} | {} | {} | {} | {dropped} |",
                middle(&|s| s.p50),
                middle(&|s| s.p99),
                middle(&|s| s.p999),
                middle(&|s| s.server_cpu),
                middle(&|s| s.database_cpu),
                middle(&|s| s.client_cpu),
                synced.map_or_else(String::new, |(_, n)| short(*n)),
                refused.join(", "),
            );
        }
        text
    }
}

fn ends(spread: Spread) -> String {
    let Spread {
        median,
        least,
        most,
    } = spread;
    if (least - most).abs() < f64::EPSILON {
        return short(median);
    }
    format!("{} ({} to {})", short(median), short(least), short(most))
}

/// Whether the page can be written, and the baseline read.
pub fn check(page: Option<&Path>, base: Option<&Path>) -> Result<()> {
    page.map(around).transpose()?;
    base.map(baseline).transpose()?;
    Ok(())
}

/// The page before and after what is written anew.
fn around(page: &Path) -> Result<(String, String)> {
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let fault = || format!("{} lacks \"{BEGIN}\" or \"{END}\"", page.display());
    let (before, rest) = text.split_once(BEGIN).with_context(fault)?;
    let (_, after) = rest.split_once(END).with_context(fault)?;
    Ok((before.to_owned(), after.to_owned()))
}

fn baseline(file: &Path) -> Result<Baseline> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("{}: write it with make bench-baseline", file.display()))?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

impl Results {
    /// Writes everything as JSON.
    pub fn write_json(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, serde_json::to_string(self)?).with_context(|| file.display().to_string())
    }

    /// What is compared, for the terminal.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for outcome in &self.databases {
            let _ = writeln!(
                text,
                "\n{}\n{}",
                outcome.database.name(),
                outcome.table_of_targets()
            );
        }
        text
    }

    fn measured(&self) -> String {
        let mut text = format!("{BEGIN}\n## Measured\n\n```sh\n{}\n```\n\n", self.command);
        for (name, value) in &self.machine {
            let _ = writeln!(text, "- {name}: {value}");
        }
        let rounds = self
            .databases
            .iter()
            .map(|d| d.rounds.len())
            .max()
            .unwrap_or(0);
        let _ = writeln!(
            text,
            "- Rounds: {rounds}, in each of them every case for {} s after a warm-up; ratios are formed within a round\n",
            self.seconds
        );
        text += "Times are microseconds, CPU times microseconds a call.\n";
        for outcome in &self.databases {
            let _ = writeln!(text, "\n### {}\n", outcome.version);
            text += &outcome.table_of_targets();
            text.push('\n');
            text += &outcome.table_of_cases();
            if !outcome.notes.is_empty() {
                text.push('\n');
            }
            for note in &outcome.notes {
                let _ = writeln!(text, "- {note}");
            }
        }
        text + END
    }

    /// Writes the measured part of the page, and leaves the rest as it is.
    pub fn write_page(&self, file: &Path) -> Result<()> {
        let (before, after) = around(file)?;
        fs::write(file, format!("{before}{}{after}", self.measured()))?;
        Ok(())
    }

    fn steady(&self) -> BTreeMap<String, BTreeMap<String, (f64, Asked)>> {
        let of = |outcome: &Outcome| {
            let kept = outcome
                .ratios()
                .into_iter()
                .filter(|(ratio, _)| ratio.is_steady());
            let kept = kept.filter_map(|(ratio, spread)| {
                Some((ratio.name.to_owned(), (spread?.median, ratio.asked)))
            });
            (outcome.database.name().to_owned(), kept.collect())
        };
        self.databases.iter().map(of).collect()
    }

    /// Writes the baseline that later runs are held against.
    pub fn write_baseline(&self, file: &Path) -> Result<()> {
        let ratios = self.steady().into_iter().map(|(database, all)| {
            (
                database,
                all.into_iter()
                    .map(|(name, (median, _))| (name, median))
                    .collect(),
            )
        });
        let baseline = Baseline {
            machine: self.machine.iter().cloned().collect(),
            ratios: ratios.collect(),
        };
        fs::write(file, serde_json::to_string_pretty(&baseline)? + "\n")?;
        Ok(())
    }

    /// Holds this run against a baseline; gives whether nothing lost more than a tenth.
    pub fn compare(&self, file: &Path) -> Result<bool> {
        let baseline = baseline(file)?;
        let (mut good, mut compared) = (true, 0);
        for (database, ratios) in self.steady() {
            for (name, (now, asked)) in ratios {
                let Some(before) = baseline.ratios.get(&database).and_then(|r| r.get(&name)) else {
                    println!("{database}: {name}: {} (not in the baseline)", short(now));
                    continue;
                };
                let lost = asked.lost(now, *before);
                let mark = if lost { "LOST" } else { "ok" };
                println!(
                    "{mark:4}  {database}: {name}: {} (before {})",
                    short(now),
                    short(*before)
                );
                good &= !lost;
                compared += 1;
            }
        }
        anyhow::ensure!(
            compared > 0,
            "{} has nothing of what was run",
            file.display()
        );
        Ok(good)
    }
}

#[derive(Serialize, Deserialize)]
struct Baseline {
    /// Where it was measured: on another machine ratios differ, too.
    machine: BTreeMap<String, String>,
    /// The median of each comparison, by database.
    ratios: BTreeMap<String, BTreeMap<String, f64>>,
}
