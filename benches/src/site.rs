//! A running service: the release binary as a process of its own, its first administrator, and its rows.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tonic::transport::Endpoint;

use crate::{
    machine::Meter,
    postgres::{Cluster, psql},
    wire::{
        Token, Wire, by,
        directory::{
            ChangePasswordRequest, KeyCredential, PasswordCredential, SignInRequest,
            session_service_client::SessionServiceClient, sign_in_request::Credential,
        },
        token,
    },
};

/// Made once by chance, worthless elsewhere.
const MASTER_KEY: &str = "q0bq5G7oIiU0F4mS5mVQyXfEoQ2n3sXJmDr6f1kZt8A=";
/// What the first administrator signs in as.
pub const ADMINISTRATOR: &str = "admin@operator.partners.localhost";
/// The password of everybody.
pub const PASSWORD: &str = "tall blue gate 9";

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Database {
    /// The embedded default.
    Sqlite,
    /// A server of this program's own.
    Postgres,
}

impl Database {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// The rows of a service, behind its back: for seeding, while it is stopped.
#[derive(Clone)]
pub enum Rows {
    /// A file.
    Sqlite(PathBuf),
    /// The URL of a database.
    Postgres(String),
}

impl Rows {
    /// Runs statements.
    pub fn execute(&self, sql: &str) -> Result<()> {
        match self {
            Self::Sqlite(file) => rusqlite::Connection::open(file)?
                .execute_batch(&format!("PRAGMA synchronous = OFF; {sql}"))
                .with_context(|| sql.to_owned()),
            Self::Postgres(url) => psql(url, sql).map(drop),
        }
    }

    /// The first column of a query, as texts.
    pub fn column(&self, sql: &str) -> Result<Vec<String>> {
        match self {
            Self::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file)?;
                let mut statement = connection.prepare(sql)?;
                let rows = statement.query_map([], |row| {
                    Ok(match row.get_ref(0)? {
                        rusqlite::types::ValueRef::Integer(n) => n.to_string(),
                        other => other.as_str().unwrap_or_default().to_owned(),
                    })
                })?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            }
            Self::Postgres(url) => Ok(psql(url, sql)?.lines().map(str::to_owned).collect()),
        }
    }

    /// A UUID as SQL has it, from a resource name or by itself.
    pub fn id(&self, name: &str) -> String {
        let id = name.rsplit('/').next().unwrap_or(name);
        match self {
            Self::Sqlite(_) => format!("x'{}'", id.replace('-', "")),
            Self::Postgres(_) => format!("'{id}'::uuid"),
        }
    }

    /// An expression that reads a UUID as text of 32 or 36 characters.
    pub fn id_text(&self, column: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("lower(hex({column}))"),
            Self::Postgres(_) => format!("{column}::text"),
        }
    }

    /// An expression for a new UUID.
    pub fn new_id(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "randomblob(16)",
            Self::Postgres(_) => "gen_random_uuid()",
        }
    }

    /// A copy, while nobody has it open.
    pub fn copy(&self, cluster: Option<&Cluster>, name: &str) -> Result<Self> {
        match (self, cluster) {
            (Self::Postgres(url), Some(cluster)) => {
                let from = url.rsplit('/').next().context("a URL without a database")?;
                let sql = format!("CREATE DATABASE {name} TEMPLATE {from}");
                psql(&cluster.url("postgres"), &sql)?;
                Ok(Self::Postgres(cluster.url(name)))
            }
            (Self::Sqlite(file), _) => {
                self.execute("PRAGMA wal_checkpoint(TRUNCATE)")?;
                let copy = file.with_file_name(format!("{name}.db"));
                fs::copy(file, &copy)?;
                Ok(Self::Sqlite(copy))
            }
            _ => anyhow::bail!("no cluster for {name}"),
        }
    }
}

/// A process of the service.
pub struct Server {
    child: Child,
    /// The port of gRPC.
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it in good order.
    pub async fn stop(mut self) -> Result<()> {
        let id = self.pid().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(
                begun.elapsed() < Duration::from_secs(30),
                "the server does not stop"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// A service with a database of its own.
pub struct Site {
    /// Its rows.
    pub rows: Rows,
    binary: PathBuf,
    folder: PathBuf,
    database: Option<u32>,
}

impl Site {
    /// One that has no rows yet.
    pub fn new(
        binary: &Path,
        folder: &Path,
        name: &str,
        cluster: Option<&Arc<Cluster>>,
    ) -> Result<Self> {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        let rows = match cluster {
            Some(cluster) => {
                psql(&cluster.url("postgres"), &format!("CREATE DATABASE {name}"))?;
                Rows::Postgres(cluster.url(name))
            }
            None => Rows::Sqlite(folder.join("data/entente.db")),
        };
        Ok(Self {
            rows,
            binary: binary.to_owned(),
            folder,
            database: cluster.map(|c| c.pid),
        })
    }

    /// Starts a server in a data folder of that name, without waiting for it. Everything is on as it is by default: only the limits of
    /// calls a caller are lifted, and tokens live as long as they may.
    pub fn spawn(&self, data: &str) -> Result<Server> {
        let port = free_port()?;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))?;
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("ENTENTE_")) {
            command.env_remove(name);
        }
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--ops-listen", &format!("127.0.0.1:{}", free_port()?)])
            .args(["--data-dir", data])
            .current_dir(&self.folder)
            .env("ENTENTE_MASTER_KEY", MASTER_KEY)
            .env("ENTENTE_LIMITS_FACTOR", "1000")
            .env("ENTENTE_ACCESS_TOKEN_LIFETIME_S", "3600")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Rows::Postgres(url) = &self.rows {
            command.env("ENTENTE_DATABASE_URL", url);
        }
        let child = command
            .spawn()
            .with_context(|| self.binary.display().to_string())?;
        Ok(Server { child, port })
    }

    /// Starts a server and waits until it takes calls.
    pub async fn serve(&self, data: &str) -> Result<(Server, Wire)> {
        let server = self.spawn(data)?;
        let begun = Instant::now();
        loop {
            let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", server.port))?;
            if endpoint.connect().await.is_ok() {
                let wire = Wire::open(server.port).await?;
                return Ok((server, wire));
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(60),
                "the server does not start; see {}",
                self.folder.join("log").display()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The CPU time of these servers and of their database.
    pub fn meter(&self, servers: &[&Server]) -> Meter {
        Meter {
            servers: servers.iter().map(|s| s.pid()).collect(),
            database: self.database,
        }
    }

    /// Gives the first administrator the password of everybody, once; gives its token.
    pub async fn settle_in(&self, wire: &Wire) -> Result<Token> {
        let file = self.folder.join("data/first-administrator-password");
        let begun = Instant::now();
        while !file.exists() && begun.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let temporary = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let restricted = sign_in(wire, ADMINISTRATOR, temporary.trim()).await?;
        let request = ChangePasswordRequest {
            old_password: temporary.trim().to_owned(),
            new_password: PASSWORD.to_owned(),
            ..ChangePasswordRequest::default()
        };
        let mut sessions = SessionServiceClient::new(wire.of(0));
        let changed = sessions.change_password(by(&restricted, request)).await?;
        token(&changed.into_inner().tokens.unwrap_or_default().access_token)
    }
}

/// Signs in by password.
pub async fn sign_in(wire: &Wire, sign_in_name: &str, password: &str) -> Result<Token> {
    let credential = Credential::Password(PasswordCredential {
        sign_in_name: sign_in_name.to_owned(),
        password: password.to_owned(),
    });
    sign_in_with(wire, credential)
        .await
        .with_context(|| format!("{sign_in_name} can't sign in"))
}

/// Signs an application in.
pub async fn sign_in_by_key(wire: &Wire, client_id: &str, secret: &str) -> Result<Token> {
    let credential = Credential::Key(KeyCredential {
        client_id: client_id.to_owned(),
        secret: secret.to_owned(),
    });
    sign_in_with(wire, credential).await
}

async fn sign_in_with(wire: &Wire, credential: Credential) -> Result<Token> {
    let request = SignInRequest {
        credential: Some(credential),
        ..SignInRequest::default()
    };
    let tokens = SessionServiceClient::new(wire.of(0))
        .sign_in(request)
        .await?;
    token(&tokens.into_inner().access_token)
}

/// A port to listen on: none of those that the system hands out by itself, and none twice.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 24_000 + (std::process::id() % 80) as u16 * 100;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed);
        ensure!(port < 32_768, "no port is left");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
}
