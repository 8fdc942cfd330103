//! What the kernel tells: CPU time and memory of processes, what the machine is, how often files were synced.

use std::{
    fs,
    io::Read as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// Microseconds of a tick of /proc/<pid>/stat: USER_HZ is 100 on Linux.
const TICK_US: f64 = 10_000.0;

/// Whose CPU time is read.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Processes of the server.
    pub servers: Vec<u32>,
    /// The first process of PostgreSQL; its children count.
    pub database: Option<u32>,
}

/// CPU time used, in microseconds.
#[derive(Clone, Debug)]
pub struct Used {
    /// By the servers.
    pub server: Option<f64>,
    /// By the database.
    pub database: Option<f64>,
    /// By this program.
    pub client: Option<f64>,
}

impl Used {
    /// What was used since an earlier reading.
    pub fn since(&self, before: &Self) -> Self {
        let less = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| (a - b).max(0.0));
        Self {
            server: less(self.server, before.server),
            database: less(self.database, before.database),
            client: less(self.client, before.client),
        }
    }
}

impl Meter {
    /// Reads now.
    pub fn read(&self) -> Used {
        let servers: Vec<f64> = self
            .servers
            .iter()
            .filter_map(|p| Some(stat(*p)?.own))
            .collect();
        Used {
            server: (!servers.is_empty()).then(|| servers.iter().sum()),
            database: self.database.and_then(|pid| {
                // Sessions that have ended count among the children that were waited for.
                let first = stat(pid)?;
                let living = children(pid).into_iter().filter_map(|p| Some(stat(p)?.own));
                Some(first.own + first.ended + living.sum::<f64>())
            }),
            client: stat(std::process::id()).map(|s| s.own),
        }
    }

    /// All processes, for what is counted by process.
    pub fn processes(&self) -> Vec<u32> {
        let database = self.database.into_iter();
        let sessions = self.database.map(children).unwrap_or_default();
        self.servers
            .iter()
            .copied()
            .chain(database)
            .chain(sessions)
            .collect()
    }

    /// Waits until what a case left behind is worked off; false if it isn't after a while.
    pub async fn quiet(&self, most: Duration) -> bool {
        let begun = Instant::now();
        let pause = Duration::from_millis(200);
        while begun.elapsed() < most {
            let before = self.read();
            tokio::time::sleep(pause).await;
            let used = self.read().since(&before);
            let busy = used.server.unwrap_or(0.0) + used.database.unwrap_or(0.0);
            // A twentieth of a core is what idle work comes to.
            if busy / 1_000_000.0 < pause.as_secs_f64() / 20.0 + TICK_US / 1_000_000.0 {
                return true;
            }
        }
        false
    }
}

struct Stat {
    own: f64,
    ended: f64,
    parent: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; what follows doesn't.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |n: usize| fields.get(n - 3)?.parse::<f64>().ok();
    Some(Stat {
        own: (ticks(14)? + ticks(15)?) * TICK_US,
        ended: (ticks(16)? + ticks(17)?) * TICK_US,
        parent: fields.get(1)?.parse().ok()?,
    })
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|child| stat(*child).is_some_and(|s| s.parent == pid))
        .collect()
}

/// Resident memory of a process, in MiB.
pub fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .context("no VmRSS")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib / 1_024.0)
}

/// Counts calls of fsync and fdatasync of processes, by `perf`.
pub struct Syncs {
    perf: Child,
}

impl Syncs {
    /// Begins; None where the kernel or `perf` doesn't let it.
    pub async fn count(processes: &[u32]) -> Option<Self> {
        let processes: Vec<String> = processes.iter().map(u32::to_string).collect();
        let events = "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync";
        let mut perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", events, "-p", &processes.join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        // So that it counts before the load begins.
        tokio::time::sleep(Duration::from_millis(500)).await;
        matches!(perf.try_wait(), Ok(None)).then_some(Self { perf })
    }

    /// Ends; gives the number.
    pub fn end(mut self) -> Option<u64> {
        let id = self.perf.id().to_string();
        Command::new("kill").args(["-INT", &id]).status().ok()?;
        self.perf.wait().ok()?;
        let mut text = String::new();
        self.perf.stderr.take()?.read_to_string(&mut text).ok()?;
        let counts: Vec<u64> = text
            .lines()
            .filter(|l| l.contains("sys_enter_"))
            .filter_map(|l| l.split(',').next()?.parse().ok())
            .collect();
        (!counts.is_empty()).then(|| counts.iter().sum())
    }
}

/// What a command prints, in one line; empty if there is no such command.
pub fn output(command: &str, args: &[&str]) -> String {
    let done = Command::new(command)
        .args(args)
        .stderr(Stdio::null())
        .output();
    done.map(|d| String::from_utf8_lossy(&d.stdout).trim().replace('\n', " "))
        .unwrap_or_default()
}

/// The machine, a line a fact.
pub fn describe(folder: &std::path::Path) -> Vec<(String, String)> {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map(|l| l.trim_start_matches([' ', '\t', ':']).to_owned());
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let files = output(
        "findmnt",
        &["-n", "-o", "FSTYPE", "-T", &folder.display().to_string()],
    );
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    [
        (
            "Cores",
            format!("{cores}, shared by client, server and database"),
        ),
        ("Processor", model.unwrap_or_else(|| "unknown".to_owned())),
        (
            "Memory",
            memory.map_or_else(String::new, |k| format!("{:.1} GiB", k / 1_048_576.0)),
        ),
        ("Kernel", output("uname", &["-sr"])),
        ("Files", files),
        (
            "Load before",
            load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        ),
        ("Rust", output("rustc", &["--version"])),
        (
            "Source",
            output("git", &["describe", "--always", "--dirty"]),
        ),
        ("Date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
