//! All that the cases of one database run on: the echo, the services with their rows, the yardsticks.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tonic::transport::Endpoint;

use crate::{
    machine::{Meter, resident_mib},
    ops,
    postgres::Cluster,
    seed::{self, Large, Open},
    site::{ADMINISTRATOR, Database, PASSWORD, Site, sign_in},
    wire::{
        Token, Wire, by,
        directory::{WhoAmIRequest, session_service_client::SessionServiceClient},
        request_id,
    },
    yard::{self, Form, Model, Scripts},
};

/// A server that has been idle for so long has given its buffers of hashes back.
const IDLE: Duration = Duration::from_secs(40);

/// The echo, as a process of its own.
pub struct Echo {
    child: Child,
    /// Its connections.
    pub wire: Wire,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Echo {
    async fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("echo")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let wire = Wire::open(line.trim().parse()?).await?;
        Ok(Self { child, wire })
    }

    /// Its CPU time.
    pub fn meter(&self) -> Meter {
        Meter {
            servers: vec![self.child.id()],
            database: None,
        }
    }
}

/// How pgbench is run: what was best.
#[derive(Clone, Copy, Debug)]
pub struct Best {
    /// The form of the script.
    pub form: Form,
    /// Clients.
    pub clients: u32,
    /// Calls a second when it was chosen.
    pub rate: f64,
}

/// The shared site with its yardsticks.
pub struct Shared {
    /// The site; its people are the tenants' admins.
    pub open: Open,
    /// What accounts are opened with.
    pub memberships: Arc<ops::Memberships>,
    /// A copy of its rows, for the yardsticks.
    pub rows: crate::site::Rows,
    /// What the yardsticks copy.
    pub model: Model,
    /// Of pgbench, on PostgreSQL.
    pub scripts: Option<Scripts>,
    /// The best of pgbench on a hundred tenants, with one client, and on one tenant.
    pub best: Option<[Best; 3]>,
}

/// What a case needs of the world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// The small site.
    pub small: bool,
    /// The shared one.
    pub shared: bool,
    /// The large one.
    pub large: bool,
    /// The one that is only started.
    pub first: bool,
    /// pgbench on a hundred tenants, with one client, and on one tenant.
    pub pgbench: [bool; 3],
}

/// All of it.
pub struct World {
    /// Which database.
    pub database: Database,
    /// The echo.
    pub echo: Echo,
    /// A tenant of 1,000 users, and their names.
    pub small: Option<(Open, Vec<String>)>,
    /// A hundred tenants.
    pub shared: Option<Shared>,
    /// A million users.
    pub large: Option<Large>,
    first: Option<(Site, Token)>,
    /// What is worth telling about the run.
    pub notes: Vec<String>,
    /// The database's version.
    pub version: String,
    // Dropped last: the servers go first.
    cluster: Option<Arc<Cluster>>,
}

impl World {
    /// Makes what is needed.
    pub async fn make(
        database: Database,
        binary: &Path,
        folder: &Path,
        users: usize,
        needs: Needs,
    ) -> Result<Self> {
        let cluster = match database {
            Database::Sqlite => None,
            Database::Postgres => Some(Arc::new(Cluster::start(folder)?)),
        };
        let version = match &cluster {
            Some(cluster) => format!("PostgreSQL {}", cluster.version()?),
            None => format!("SQLite {} (yardstick)", rusqlite::version()),
        };
        let folder = folder.join(database.name());
        std::fs::create_dir_all(&folder)?;
        let site = |name: &str| Site::new(binary, &folder, name, cluster.as_ref());
        let mut world = Self {
            database,
            echo: Echo::start().await?,
            small: None,
            shared: None,
            large: None,
            first: None,
            notes: Vec::new(),
            version,
            cluster: cluster.clone(),
        };
        let step = |text: &str| eprintln!("{}: {text}", database.name());
        if needs.small {
            step("a tenant of 1,000 users");
            world.small = Some(
                seed::small(site("small")?)
                    .await
                    .context("the small site")?,
            );
        }
        if needs.shared {
            step("a hundred tenants, and the yardsticks");
            let shared = world.make_shared(site("shared")?, &folder, needs).await;
            world.shared = Some(shared.context("the shared site")?);
        }
        if needs.large {
            step(&format!("a tenant of {users} users"));
            let large = seed::large(site("large")?, users)
                .await
                .context("the large site")?;
            world.notes.push(format!(
                "the large tenant has {users} users; the late page is page {}; the account of many has {} members; the large queue has {} reviews, its \
                 late page is page {}",
                large.late.1, large.members, large.reviews, large.late_reviews.1
            ));
            world.large = Some(large);
        }
        if needs.first {
            let site = site("first")?;
            let (server, wire) = site.serve("data").await?;
            let token = site.settle_in(&wire).await?;
            server.stop().await?;
            world.first = Some((site, token));
        }
        Ok(world)
    }

    async fn make_shared(&mut self, site: Site, folder: &Path, needs: Needs) -> Result<Shared> {
        let mut random = fastrand::Rng::new();
        let request = request_id(&mut random);
        let mut made = None;
        let mut told = String::new();
        let (open, memberships, rows) = seed::shared(
            site,
            async |site, wire, token, admin| {
                let before = yard::counts(&site.rows)?;
                let word = format!("u{:012x}", random.u64(..) >> 16);
                let user =
                    ops::create_user(wire.of(0), token, &admin.tenant(), &word, &request).await?;
                let model = Model {
                    user: user.name,
                    word,
                    request_id: request.clone(),
                };
                told = yard::written(&site.rows, &model, &before)?;
                made = Some(model);
                Ok(())
            },
            |site| site.rows.copy(self.cluster.as_deref(), "yard"),
        )
        .await?;
        self.notes
            .push(format!("rows that one CreateUser adds: {told}"));
        let model = made.context("no model")?;
        let mut shared = Shared {
            open,
            memberships,
            rows,
            model,
            scripts: None,
            best: None,
        };
        if self.database == Database::Postgres {
            let scripts = Scripts::write(&shared.rows, &shared.model, folder)?;
            shared.best = Some(self.choose(&scripts, needs.pgbench).await?);
            shared.scripts = Some(scripts);
        }
        Ok(shared)
    }

    /// Tries pgbench's forms and numbers of clients, and keeps the best.
    async fn choose(&mut self, scripts: &Scripts, wanted: [bool; 3]) -> Result<[Best; 3]> {
        let mut best = [Best {
            form: Form::Function,
            clients: 16,
            rate: 0.0,
        }; 3];
        let ways: [(&str, bool, &[u32]); 3] = [
            ("100 tenants", false, &[8, 16, 32, 64]),
            ("100 tenants, one client", false, &[1]),
            ("one tenant", true, &[1, 2, 8, 32]),
        ];
        for (slot, (name, hot, clients)) in ways.into_iter().enumerate() {
            if !wanted[slot] {
                continue;
            }
            let mut tried = Vec::new();
            for form in Form::ALL {
                for clients in clients {
                    let sample = scripts.run(form, hot, *clients, 1.0).await?;
                    let rate = sample.rate();
                    tried.push(format!("{} by {clients}: {rate:.0}", form.name()));
                    if rate > best[slot].rate {
                        best[slot] = Best {
                            form,
                            clients: *clients,
                            rate,
                        };
                    }
                }
            }
            let Best { form, clients, .. } = best[slot];
            self.notes.push(format!(
                "pgbench, {name}: best is {} by {clients} clients; tried, calls/s: {}",
                form.name(),
                tried.join("; ")
            ));
        }
        Ok(best)
    }

    /// All sign in anew.
    pub async fn renew(&mut self) -> Result<()> {
        if let Some((open, _)) = &mut self.small {
            open.renew().await?;
        }
        if let Some(shared) = &mut self.shared {
            shared.open.renew().await?;
        }
        if let Some(large) = &mut self.large {
            large.renew().await?;
        }
        Ok(())
    }

    /// Starts the service on rows that are there; gives milliseconds until it has answered a call that asks the database.
    pub async fn start(&mut self) -> Result<f64> {
        let (site, token) = self.first.as_mut().context("no site to start")?;
        let begun = Instant::now();
        let server = site.spawn("data")?;
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", server.port))?;
        let took = loop {
            if let Ok(channel) = endpoint.connect().await {
                let who = by(token, WhoAmIRequest {});
                SessionServiceClient::new(channel).who_am_i(who).await?;
                break begun.elapsed();
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(30),
                "the server does not start"
            );
            tokio::time::sleep(Duration::from_micros(500)).await;
        };
        let wire = Wire::open(server.port).await?;
        *token = sign_in(&wire, ADMINISTRATOR, PASSWORD).await?;
        server.stop().await?;
        Ok(took.as_secs_f64() * 1_000.0)
    }

    /// Resident memory of an idle server, in MiB, after 32 people signed in at once and its buffers were given back.
    /// Nothing where no case starts one.
    pub async fn idle_memory(&self) -> Result<Option<f64>> {
        let Some((site, _)) = &self.first else {
            return Ok(None);
        };
        let (server, wire) = site.serve("data").await?;
        let all = (0..32).map(|_| sign_in(&wire, ADMINISTRATOR, PASSWORD));
        for done in futures_util::future::join_all(all).await {
            done?;
        }
        tokio::time::sleep(IDLE).await;
        let memory = resident_mib(server.pid())?;
        server.stop().await?;
        Ok(Some(memory))
    }

    /// Where PostgreSQL listens, if it does.
    pub fn database_pid(&self) -> Option<u32> {
        self.cluster.as_ref().map(|c| c.pid)
    }
}

/// The release binary, unless another was named.
pub fn binary(named: Option<PathBuf>) -> Result<PathBuf> {
    let path = named.unwrap_or_else(|| PathBuf::from("target/release/entente"));
    std::fs::canonicalize(&path)
        .with_context(|| format!("{} isn't there; build it with make build", path.display()))
}
