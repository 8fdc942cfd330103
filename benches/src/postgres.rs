//! A PostgreSQL of this program's own, with its defaults (every commit is synced), and its programs psql and pgbench.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::load::Sample;

/// A server on loopback; ended when dropped, or when this process ends.
pub struct Cluster {
    /// Its port.
    pub port: u16,
    /// Its first process.
    pub pid: u32,
    folder: PathBuf,
    /// A shell that ends the server as soon as its standard input closes.
    watcher: Child,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        self.watcher.wait().ok();
    }
}

/// A program of the newest PostgreSQL installed.
fn program(name: &str) -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin").join(name))
        .filter(|p| p.exists())
        .collect();
    found.sort();
    found.pop().with_context(|| {
        format!("PostgreSQL's {name} is missing; scripts/tools.sh test installs it")
    })
}

/// PostgreSQL won't run as root.
fn as_postgres(program: &Path) -> Vec<String> {
    let root =
        fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let way: &[&str] = if root {
        &[
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
        ]
    } else {
        &[]
    };
    let program = program.display().to_string();
    way.iter()
        .map(|s| (*s).to_owned())
        .chain([program])
        .collect()
}

impl Cluster {
    /// Starts one in a folder of its own under the given one.
    pub fn start(under: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("postgres-")
            .tempdir_in(under)?
            .keep();
        for path in [under, &folder] {
            let mut permissions = fs::metadata(path)?.permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o777);
            fs::set_permissions(path, permissions)?;
        }
        let data = folder.join("data");
        let initdb = as_postgres(&program("initdb")?);
        let made = Command::new(&initdb[0])
            .args(&initdb[1..])
            .args([
                "-U",
                "postgres",
                "--auth=trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-D",
            ])
            .arg(&data)
            .output()?;
        ensure!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let port = crate::site::free_port()?;
        // Its defaults, but for room for the connections of all servers.
        let script = format!(
            "\"$@\" -D '{data}' -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=300 \
             >'{log}' 2>&1 & server=$!; cat >/dev/null; kill -INT $server; wait $server; rm -rf '{folder}'",
            data = data.display(),
            log = folder.join("log").display(),
            folder = folder.display(),
        );
        let watcher = Command::new("sh")
            .args(["-c", &script, "sh"])
            .args(as_postgres(&program("postgres")?))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut cluster = Self {
            port,
            pid: 0,
            folder,
            watcher,
        };
        cluster.wait()?;
        Ok(cluster)
    }

    fn wait(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let port = self.port.to_string();
            let ready = Command::new(program("pg_isready")?)
                .args(["-q", "-h", "127.0.0.1", "-p", &port])
                .status()?;
            if ready.success() {
                let lock = fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
                self.pid = lock
                    .lines()
                    .next()
                    .context("an empty postmaster.pid")?
                    .parse()?;
                return Ok(());
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(60),
                "PostgreSQL did not start; see {}",
                self.folder.join("log").display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The server's version, in words.
    pub fn version(&self) -> Result<String> {
        psql(&self.url("postgres"), "SHOW server_version")
    }
}

/// Runs SQL; gives what psql prints, a line a row.
pub fn psql(url: &str, sql: &str) -> Result<String> {
    let done = Command::new(program("psql")?)
        .args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
            url,
        ])
        .output()?;
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    ensure!(done.status.success(), "{sql}: {err}");
    Ok(out.trim().to_owned())
}

/// Runs a script by pgbench, prepared, and gives the rate that it tells. The seconds are rounded up: it knows whole ones only.
pub async fn pgbench(url: &str, script: &Path, clients: u32, seconds: f64) -> Result<Sample> {
    let whole = seconds.ceil().max(1.0);
    let mut command = Command::new(program("pgbench")?);
    command.args(["-n", "-M", "prepared", "-T", &whole.to_string()]);
    command.args([
        "-c",
        &clients.to_string(),
        "-j",
        &clients.min(2).to_string(),
    ]);
    command.arg("-f").arg(script).arg(url);
    let done = tokio::task::spawn_blocking(move || command.output()).await??;
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    ensure!(
        done.status.success(),
        "pgbench with {}: {err}",
        script.display()
    );
    let number = |prefix: &str| {
        let line = out.lines().find_map(|l| l.trim().strip_prefix(prefix))?;
        line.trim().split(' ').next()?.parse::<f64>().ok()
    };
    let (Some(tps), Some(calls)) = (
        number("tps = "),
        number("number of transactions actually processed:"),
    ) else {
        bail!("pgbench told no rate: {out}");
    };
    if tps <= 0.0 {
        bail!("pgbench carried nothing out: {out} {err}");
    }
    Ok(Sample::of_rate(calls as u64, calls / tps))
}
