//! The real program: started, stopped, misconfigured (COM-11, COM-13, COM-19). Killed it is in `killed.rs`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use entente::proto::directory::{
    ChangePasswordRequest, KeyCredential, PasswordCredential, SignInRequest, TokenSet,
    WhoAmIRequest, sign_in_request::Credential,
};
use sea_orm::ConnectionTrait as _;
use tonic::{Status, transport::Endpoint};

use crate::harness::{
    ADMINISTRATOR, Caller, Database, PASSWORD, Site, empty_postgres_database, new_user, psql,
};

/// Made once by chance, worthless elsewhere.
pub const MASTER_KEY: &str = "q0bq5G7oIiU0F4mS5mVQyXfEoQ2n3sXJmDr6f1kZt8A=";
const OTHER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Where a program finds its things.
#[derive(Clone)]
pub struct Setting {
    folder: Arc<tempfile::TempDir>,
    url: Option<String>,
    further: Vec<(&'static str, String)>,
}

impl Setting {
    /// A folder of its own, and a PostgreSQL database unless it is SQLite.
    pub fn new(url: Option<String>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("entente-process-")
            .tempdir()
            .unwrap();
        Self {
            folder: Arc::new(folder),
            url,
            further: Vec::new(),
        }
    }

    /// The database of a site, or what an embedded one holds by now in a copy, for a program of its own.
    pub async fn of(site: &Site) -> Self {
        let setting = Self::new(site.url.clone());
        if site.database == Database::Sqlite {
            fs::create_dir(setting.data()).unwrap();
            let copy = setting.data().join("entente.db");
            let sql = format!("VACUUM INTO '{}'", copy.display());
            site.app.db.write.execute_unprepared(&sql).await.unwrap();
        }
        setting
    }

    /// With further variables of the environment.
    pub fn with(mut self, further: Vec<(&'static str, String)>) -> Self {
        self.further = further;
        self
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The program with its environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_entente"));
        for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("ENTENTE_")) {
            command.env_remove(name);
        }
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("ENTENTE_MASTER_KEY", MASTER_KEY)
            .env("ENTENTE_LIMITS_FACTOR", "1000")
            .env("ENTENTE_DRAIN_TIMEOUT_S", "5")
            // Nobody answers there: no test asks the DNS of the world.
            .env("ENTENTE_DNS_SERVERS", "127.0.0.1:9")
            .stdin(Stdio::null());
        if let Some(url) = &self.url {
            command.env("ENTENTE_DATABASE_URL", url);
        }
        for (name, value) in &self.further {
            command.env(name, value);
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Starts a server, without waiting for it.
    pub fn spawn(&self, args: &[&str]) -> Server {
        self.spawn_at([free_port(), free_port()], args)
    }

    /// The same, on these ports of gRPC and of operations.
    pub fn spawn_at(&self, [grpc, ops]: [u16; 2], args: &[&str]) -> Server {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let child = self
            .command(&["serve"])
            .args([
                "--listen",
                &format!("127.0.0.1:{grpc}"),
                "--ops-listen",
                &format!("127.0.0.1:{ops}"),
            ])
            .args(args)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Server { child, grpc, ops }
    }

    /// Starts a server and waits until it serves.
    pub async fn serve(&self, args: &[&str]) -> Server {
        let server = self.spawn(args);
        server.ready(self).await;
        server
    }

    /// What was logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The first administrator with a password of its own.
    pub async fn administrator(&self, server: &Server) -> Caller {
        let file = self.data().join("first-administrator-password");
        let temporary = fs::read_to_string(&file).unwrap();
        settle_in(server, temporary.trim()).await
    }
}

/// A running program, killed when dropped.
pub struct Server {
    child: Child,
    /// The port of gRPC.
    pub grpc: u16,
    /// The port of operations.
    pub ops: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, by itself or by somebody.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub async fn ready(&self, setting: &Setting) {
        let begun = Instant::now();
        while get(self.ops, "/readyz").is_none_or(|(status, _)| status != 200) {
            assert!(begun.elapsed().as_secs() < 120, "{}", setting.log());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub fn nobody(&self) -> Caller {
        Caller {
            channel: Endpoint::from_shared(format!("http://127.0.0.1:{}", self.grpc))
                .unwrap()
                .connect_lazy(),
            token: None,
            on_behalf: None,
        }
    }

    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// The most memory that it has had so far, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse().unwrap()
    }

    /// Waits for its end; gives the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed().as_secs() < 120, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A port for a program to listen on. None of those that the system hands out by itself (32,768 and up on Linux), or a connection of
/// another test could take it before the program does; none is given twice.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(20_000 + (std::process::id() % 100) as u16 * 100));
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_768, "no port is left");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// GET over HTTP/1; status and body.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The administrator, signed in by password; gives all tokens.
pub async fn sign_in(server: &Server, password: &str) -> Result<TokenSet, Status> {
    let credential = PasswordCredential {
        sign_in_name: ADMINISTRATOR.to_owned(),
        password: password.to_owned(),
    };
    sign_in_with(server, Credential::Password(credential)).await
}

/// Signs in; gives all tokens.
pub async fn sign_in_with(server: &Server, credential: Credential) -> Result<TokenSet, Status> {
    let request = SignInRequest {
        credential: Some(credential),
        request_id: String::new(),
    };
    let answer = server.nobody().sessions().sign_in(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Somebody, signed in by password.
pub async fn sign_in_as(server: &Server, name: &str, password: &str) -> Result<Caller, Status> {
    let credential = PasswordCredential {
        sign_in_name: name.to_owned(),
        password: password.to_owned(),
    };
    let tokens = sign_in_with(server, Credential::Password(credential)).await?;
    Ok(Caller {
        token: Some(tokens.access_token),
        ..server.nobody()
    })
}

/// An application, signed in.
pub async fn sign_in_by_key(server: &Server, client_id: &str, secret: &str) -> Caller {
    let credential = KeyCredential {
        client_id: client_id.to_owned(),
        secret: secret.to_owned(),
    };
    let tokens = sign_in_with(server, Credential::Key(credential)).await;
    Caller {
        token: Some(tokens.unwrap().access_token),
        ..server.nobody()
    }
}

/// The administrator with a temporary password chooses its own.
pub async fn settle_in(server: &Server, temporary: &str) -> Caller {
    settle_as(server, ADMINISTRATOR, temporary).await
}

/// Somebody with a temporary password chooses its own.
pub async fn settle_as(server: &Server, name: &str, temporary: &str) -> Caller {
    let credential = PasswordCredential {
        sign_in_name: name.to_owned(),
        password: temporary.to_owned(),
    };
    let tokens = sign_in_with(server, Credential::Password(credential)).await;
    let tokens = tokens.unwrap();
    assert!(tokens.password_change_required);
    let restricted = Caller {
        token: Some(tokens.access_token),
        ..server.nobody()
    };
    let request = ChangePasswordRequest {
        old_password: temporary.to_owned(),
        new_password: PASSWORD.to_owned(),
        request_id: String::new(),
    };
    let changed = restricted.sessions().change_password(request).await;
    let tokens = changed.unwrap().into_inner().tokens.unwrap();
    Caller {
        token: Some(tokens.access_token),
        ..server.nobody()
    }
}

/// A user of a tenant, signed in: its name, and with its token.
pub async fn person(
    server: &Server,
    admin: &Caller,
    tenant: &str,
    user_name: &str,
) -> (String, Caller) {
    let request = new_user(tenant, user_name);
    let made = admin.users().create_user(request).await.unwrap();
    let made = made.into_inner();
    let user = made.user.unwrap();
    let caller = settle_as(server, &user.sign_in_name, &made.temporary_password).await;
    (user.name, caller)
}

/// What a program printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The operator's tenant, by the name of whoever is signed in.
pub async fn home(caller: &Caller) -> String {
    let me = caller.sessions().who_am_i(WhoAmIRequest {}).await.unwrap();
    me.into_inner().tenant.unwrap().name
}

// proves COM-19
#[tokio::test]
async fn second_process_on_the_same_folder_is_refused() {
    let setting = Setting::new(None);
    let mut server = setting.serve(&[]).await;
    let second = setting.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--ops-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains(&*setting.data().file_name().unwrap().to_string_lossy()));
    // Other commands would write beside it as well.
    assert_eq!(setting.run(&["recover-admin"]).status.code(), Some(1));
    assert!(
        sign_in(&server, "wrong").await.is_err(),
        "the first serves on"
    );
    // A killed process leaves no lock behind.
    server.signal("-KILL");
    server.ended().await;
    drop(setting.serve(&[]).await);
}

// proves COM-19, COM-21
#[tokio::test]
async fn two_replicas_start_at_once_on_an_empty_database() {
    let url = empty_postgres_database("both_at_once");
    let (one, two) = (
        Setting::new(Some(url.clone())),
        Setting::new(Some(url.clone())),
    );
    let (first, second) = (one.spawn(&[]), two.spawn(&[]));
    first.ready(&one).await;
    second.ready(&two).await;
    assert_eq!(
        psql(&url, "SELECT count(*) FROM tenants WHERE is_operator"),
        "1"
    );
    assert_eq!(psql(&url, "SELECT count(*) FROM users"), "1");
    let passwords: Vec<_> = [&one, &two]
        .iter()
        .filter_map(|s| fs::read_to_string(s.data().join("first-administrator-password")).ok())
        .collect();
    assert_eq!(passwords.len(), 1, "one of them made the administrator");
    let admin = settle_in(&first, passwords[0].trim()).await;
    let over_there = Caller {
        channel: second.nobody().channel,
        ..admin.clone()
    };
    assert_eq!(home(&admin).await, home(&over_there).await);
    // Migrations that have run are run again without harm.
    assert_eq!(one.run(&["migrate"]).status.code(), Some(0));
    assert_eq!(two.run(&["verify-audit"]).status.code(), Some(0));
}

// proves COM-19
#[tokio::test]
async fn at_a_first_start_the_password_is_there_before_anybody_is_let_in() {
    let setting = Setting::new(None);
    let file = setting.data().join("first-administrator-password");
    let server = setting.spawn(&[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    for port in [server.grpc, server.ops] {
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{}", setting.log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(file.exists(), "{}", setting.log());
    }
    // A port that somebody listens on is no reason to touch a database.
    let other = Setting::new(None);
    let taken = format!("127.0.0.1:{}", server.grpc);
    let refused = other.run(&["serve", "--listen", &taken, "--ops-listen", "127.0.0.1:0"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains(&taken));
    assert!(!other.data().exists());
}

// proves COM-19
#[tokio::test]
async fn what_is_configured_wrongly_is_told_plainly_and_no_secret_with_it() {
    let told = |setting: &Setting, args: &[&str]| {
        let done = setting.run(args);
        assert_ne!(done.status.code(), Some(0));
        let told = text(&done.stderr);
        assert!(
            !told.contains("hunter2") && !told.contains("INTERNAL"),
            "{told}"
        );
        told
    };
    let slips = [
        ("ENTENTE_PRODUCTON", "true"),
        (
            "ENTENTE_DATABASE_URL",
            "postgres://user:hunter2@127.0.0.1:99999/db",
        ),
        ("ENTENTE_LISTEN", "localhost:50051"),
        ("ENTENTE_FRESHNESS", "fast"),
        ("ENTENTE_SERVICE_HOST", "10.0.0.1"),
    ];
    let slips = slips.map(|(name, value)| (name, value.to_owned()));
    let setting = Setting::new(None).with(slips.to_vec());
    let faults = told(&setting, &["serve"]);
    for begin in [
        "entente: ENTENTE_PRODUCTON: is no setting; ENTENTE_PRODUCTION is",
        "entente: database_url: must be a URL",
        "entente: listen: must be an IP address and a port",
        "entente: freshness: must be barrier or database",
    ] {
        assert!(faults.lines().any(|l| l.starts_with(begin)), "{faults}");
    }
    assert_eq!(faults.lines().count(), 4, "{faults}");
    assert!(!setting.data().exists());

    let closed = format!("postgres://user:hunter2@127.0.0.1:{}/db", free_port());
    let nobody = told(&Setting::new(Some(closed.clone())), &["migrate"]);
    let (_, place) = closed.split_once("hunter2@").unwrap();
    assert!(
        nobody.contains("database_url: user@") && nobody.contains(place),
        "{nobody}"
    );

    let setting = Setting::new(None);
    let bad = told(&setting, &["bootstrap", "--email", "nobody"]);
    assert!(bad.contains("--email"), "{bad}");
    assert_eq!(setting.run(&["bootstrap", "--json"]).status.code(), Some(0));
    // A key that is missing is no reason to make another one.
    let own = |args: &[&str]| {
        let mut command = setting.command(args);
        command.env_remove("ENTENTE_MASTER_KEY").output().unwrap()
    };
    let refused = own(&["verify-audit"]);
    assert_eq!(refused.status.code(), Some(1));
    let missing = text(&refused.stderr);
    assert!(missing.contains("master.key is missing"), "{missing}");
    assert!(!setting.data().join("master.key").exists());
    // Whoever reads no further isn't told of a fault.
    let mut verify = setting.command(&["verify-audit"]);
    let mut verify = verify
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(verify.stdout.take());
    assert_eq!(verify.wait().unwrap().code(), Some(0));
}

// proves COM-19
#[tokio::test]
async fn as_long_as_nobody_came_in_each_start_says_how_to() {
    let setting = Setting::new(None);
    let way = "entente recover-admin";
    drop(setting.serve(&[]).await);
    assert!(!setting.log().contains(way));
    let server = setting.serve(&[]).await;
    assert_eq!(setting.log().matches(way).count(), 1);
    let file = setting.data().join("first-administrator-password");
    settle_in(&server, fs::read_to_string(&file).unwrap().trim()).await;
    drop(server);
    drop(setting.serve(&[]).await);
    assert_eq!(setting.log().matches(way).count(), 1);
}

// proves COM-19
#[tokio::test]
async fn bootstrap_recover_admin_and_rotate_keys_work_offline() {
    let setting = Setting::new(None);
    let made = setting.run(&["bootstrap", "--json", "--email", "root@operator.example"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let printed = text(&made.stdout);
    let json = printed.lines().find(|l| l.starts_with('{')).unwrap();
    let way: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(way["signInName"], ADMINISTRATOR);
    // It isn't a terminal: nothing that keeps what is printed gets the password.
    assert!(way["temporaryPassword"].is_null());
    let file = way["temporaryPasswordFile"].as_str().unwrap();
    let first = fs::read_to_string(setting.folder.path().join(file))
        .unwrap()
        .trim()
        .to_owned();
    assert_ne!(setting.run(&["bootstrap", "--json"]).status.code(), Some(0));
    assert_eq!(setting.run(&["migrate"]).status.code(), Some(0));

    let server = setting.serve(&[]).await;
    settle_in(&server, &first).await;
    let keys = || -> Vec<String> {
        let (status, body) = get(server.ops, "/.well-known/jwks.json").unwrap();
        assert_eq!(status, 200);
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        let keys = json["keys"].as_array().unwrap().iter();
        keys.map(|k| k["kid"].as_str().unwrap().to_owned())
            .collect()
    };
    let before = keys();
    drop(server);

    let recovered = setting.run(&["recover-admin"]);
    assert_eq!(
        recovered.status.code(),
        Some(0),
        "{}",
        text(&recovered.stderr)
    );
    assert_ne!(
        setting
            .run(&["recover-admin", "--user-name", "nobody"])
            .status
            .code(),
        Some(0)
    );
    let file = setting.data().join("first-administrator-password");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(setting.run(&["rotate-keys"]).status.code(), Some(0));

    let server = setting.serve(&[]).await;
    assert!(
        sign_in(&server, PASSWORD).await.is_err(),
        "the old password is gone"
    );
    settle_in(&server, fs::read_to_string(&file).unwrap().trim()).await;
    let (_, body) = get(server.ops, "/.well-known/jwks.json").unwrap();
    assert!(
        before.iter().all(|k| body.contains(k)),
        "old keys still verify"
    );
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["keys"].as_array().unwrap().len(), before.len() + 1);
}

fn sqlite(folder: &Path, sql: &str) {
    let done = Command::new("python3")
        .args(["-c", "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.executescript(sys.argv[2]); c.commit()"])
        .arg(folder.join("entente.db"))
        .arg(sql)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
}

// proves COM-11
#[tokio::test]
async fn cut_tail_is_found_by_a_checkpoint_kept_elsewhere() {
    let postgres = empty_postgres_database("cut_tail");
    for url in [None, Some(postgres)] {
        let setting = Setting::new(url.clone());
        assert_eq!(setting.run(&["bootstrap", "--json"]).status.code(), Some(0));
        assert_eq!(setting.run(&["recover-admin"]).status.code(), Some(0));
        let verified = setting.run(&["verify-audit"]);
        assert_eq!(verified.status.code(), Some(0));
        let checkpoints = setting.data().join("checkpoints");
        fs::write(&checkpoints, &verified.stdout).unwrap();
        let since = ["verify-audit", "--since", checkpoints.to_str().unwrap()];
        assert_eq!(setting.run(&since).status.code(), Some(0));
        // Whoever has the database cuts the last event and mends the head: the chain alone fits.
        let cut = "DELETE FROM audit_events WHERE scope_kind = 0 AND seq = (SELECT max(seq) FROM audit_events WHERE scope_kind = 0);
                   UPDATE heads SET audit_count = audit_count - 1,
                   audit_hash = (SELECT hash FROM audit_events WHERE scope_kind = 0 ORDER BY seq DESC LIMIT 1) WHERE scope_kind = 0;";
        match &url {
            None => sqlite(
                &setting.data(),
                &format!("DROP TRIGGER audit_events_are_not_deleted; {cut}"),
            ),
            Some(url) => {
                psql(
                    url,
                    &format!("ALTER TABLE audit_events DISABLE TRIGGER USER; {cut}"),
                );
            }
        }
        assert_eq!(setting.run(&["verify-audit"]).status.code(), Some(0));
        assert_eq!(setting.run(&since).status.code(), Some(1));
    }
}

// proves COM-13
#[tokio::test]
async fn sigterm_finishes_calls_in_flight_and_exits_0() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    for url in [None, Some(empty_postgres_database("drained"))] {
        // All of them are done in time, also on a busy machine.
        let patient = ("ENTENTE_DRAIN_TIMEOUT_S", "120".to_owned());
        let setting = Setting::new(url).with(vec![patient]);
        let mut server = setting.serve(&[]).await;
        let admin = setting.administrator(&server).await;
        let tenant = home(&admin).await;
        let mut health = HealthClient::new(server.nobody().channel);
        let request = HealthCheckRequest::default();
        let mut watch = health.watch(request).await.unwrap().into_inner();
        let serving = watch.message().await.unwrap().unwrap();
        assert_eq!(serving.status, 1);
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..40 {
            let (admin, request) = (admin.clone(), new_user(&tenant, &format!("user{n}")));
            calls.spawn(async move { admin.users().create_user(request).await });
        }
        // One is done: the others are on their way.
        calls.join_next().await.unwrap().unwrap().unwrap();
        server.signal("-TERM");
        let mut last = serving.status;
        while let Ok(Some(told)) = watch.message().await {
            last = told.status;
            if last == 2 {
                break;
            }
        }
        assert_eq!(last, 2, "NOT_SERVING");
        drop((watch, health));
        for answer in calls.join_all().await {
            answer.unwrap();
        }
        drop(admin);
        assert_eq!(server.ended().await, Some(0), "{}", setting.log());
        assert_eq!(setting.run(&["verify-audit"]).status.code(), Some(0));
    }
}

// proves COM-14, COM-19
#[test]
fn faults_of_the_configuration_are_all_named_at_once() {
    let setting = Setting::new(None);
    let mut command = setting.command(&["serve", "--enable-test-clock"]);
    let refused = command
        .env("ENTENTE_PRODUCTION", "true")
        .env("ENTENTE_ACCESS_TOKEN_LIFETIME_S", "1")
        .env("ENTENTE_SESSION_LIFETIME_DAYS", "1000")
        .env("ENTENTE_DATABASE_URL", "mysql://nowhere")
        .env("ENTENTE_LISTEN", "nowhere")
        .env("ENTENTE_DRAIN_TIMEOUT_S", "soon")
        .env("ENTENTE_MASTER_KEY", "no base64")
        .env("ENTENTE_LOG_FILTER", "entente=loud")
        .env("ENTENTE_HASH_WORKERS", "100000")
        .env("ENTENTE_MAX_CONCURRENT_CALLS", "9223372036854775807")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let named = text(&refused.stderr);
    for field in [
        "enable_test_clock",
        "public_origin",
        "base_domain",
        "access_token_lifetime_s",
        "session_lifetime_days",
        "database_url",
        "listen",
        "drain_timeout_s",
        "master_key",
        "log_filter",
        "hash_workers",
        "max_concurrent_calls",
    ] {
        let told = format!("entente: {field}: ");
        assert_eq!(named.matches(&told).count(), 1, "{field} in {named}");
    }
    assert!(!setting.data().exists(), "nothing was made");
}

// proves COM-19
#[test]
fn wrong_master_key_is_refused() {
    let setting = Setting::new(None);
    assert_eq!(setting.run(&["bootstrap", "--json"]).status.code(), Some(0));
    // What can't be a key is a fault of the configuration; another's is found out by what it doesn't open.
    let weak = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (key, code) in [(OTHER_KEY, 1), (weak, 2), ("no base64", 2), ("c2hvcnQ=", 2)] {
        let mut command = setting.command(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
        ]);
        let refused = command.env("ENTENTE_MASTER_KEY", key).output().unwrap();
        assert_eq!(refused.status.code(), Some(code), "{key}");
        assert!(!text(&refused.stderr).contains(key), "a key is not printed");
    }
    assert_eq!(setting.run(&["verify-audit"]).status.code(), Some(0));
}

// proves COM-19
#[tokio::test]
async fn port_of_operations_and_reflection_answer() {
    use tonic_reflection::pb::{v1, v1alpha};
    let setting = Setting::new(None);
    let server = setting.serve(&[]).await;
    let status = |path| get(server.ops, path).unwrap().0;
    assert_eq!(
        ["/livez", "/healthz", "/readyz", "/nothing"].map(status),
        [200, 200, 200, 404]
    );
    let (_, body) = get(server.ops, "/.well-known/jwks.json").unwrap();
    let keys: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(keys["keys"][0]["kty"], "OKP");
    assert!(keys["keys"][0].get("d").is_none(), "never the private part");
    let (_, body) = get(server.ops, "/.well-known/openid-configuration").unwrap();
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document["issuer"], "http://localhost:8080");
    // Nobody serves that yet, so the keys are told to be where they are.
    let here = format!("http://127.0.0.1:{}/.well-known/jwks.json", server.ops);
    assert_eq!(document["jwks_uri"], here);
    let named = (
        "ENTENTE_PUBLIC_ORIGIN",
        "https://partners.example".to_owned(),
    );
    let other = Setting::new(None).with(vec![named]);
    let served = other.serve(&[]).await;
    let (_, body) = get(served.ops, "/.well-known/openid-configuration").unwrap();
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    let there = "https://partners.example/.well-known/jwks.json";
    assert_eq!(document["jwks_uri"], there);

    let service = "entente.directory.v1.UserService";
    let mut client =
        v1::server_reflection_client::ServerReflectionClient::new(server.nobody().channel);
    let list = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let answers = client
        .server_reflection_info(tokio_stream::iter([list]))
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    assert!(format!("{answer:?}").contains(service));
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(server.nobody().channel);
    let list = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let answers = client
        .server_reflection_info(tokio_stream::iter([list]))
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    assert!(format!("{answer:?}").contains(service));
}
