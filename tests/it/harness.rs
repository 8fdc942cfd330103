//! A running Entente in one line: `both(async |site| { .. })` runs a test on SQLite and on PostgreSQL, each with a database of its own,
//! the real server on a loopback port, and clients. PostgreSQL missing is a failure, never a skip.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use entente::{
    app::App,
    bootstrap,
    config::Config,
    env::Env,
    proto::{
        access::access_service_client::AccessServiceClient,
        account::{
            Account, ImportAccountRequest, account_service_client::AccountServiceClient,
            agreement_service_client::AgreementServiceClient,
            benefit_service_client::BenefitServiceClient,
            member_service_client::MemberServiceClient,
            name_claim_service_client::NameClaimServiceClient,
            network_service_client::NetworkServiceClient,
            tenant_association_service_client::TenantAssociationServiceClient,
            verification_service_client::VerificationServiceClient,
        },
        audit::{
            audit_service_client::AuditServiceClient, event_service_client::EventServiceClient,
        },
        directory::{
            ChangePasswordRequest, CreateTenantRequest, CreateUserRequest, FirstAdmin,
            NewMembership, PasswordCredential, SignInRequest, Tenant, TokenSet, User,
            application_service_client::ApplicationServiceClient,
            domain_service_client::DomainServiceClient, group_service_client::GroupServiceClient,
            identity_service_client::IdentityServiceClient,
            invitation_service_client::InvitationServiceClient,
            recovery_service_client::RecoveryServiceClient,
            session_service_client::SessionServiceClient, sign_in_request::Credential,
            tenant_service_client::TenantServiceClient, user_service_client::UserServiceClient,
        },
        offer::{
            offer_service_client::OfferServiceClient, report_service_client::ReportServiceClient,
        },
        operator::{
            AdvanceRequest, mail_service_client::MailServiceClient,
            policy_service_client::PolicyServiceClient,
            reserved_name_service_client::ReservedNameServiceClient,
            staff_service_client::StaffServiceClient,
            test_clock_service_client::TestClockServiceClient,
        },
        relationship::{
            delegated_admin_service_client::DelegatedAdminServiceClient,
            relationship_service_client::RelationshipServiceClient,
        },
    },
    server, start,
    store::connect::Db,
};
use sea_orm::{
    ConnectionTrait as _, Statement,
    sqlx::{self, Connection as _, PgConnection},
};
use tokio::{
    sync::{OnceCell, oneshot},
    task::JoinHandle,
};
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::{
    cost::{Cost, Statements},
    people::eventually,
};

/// The password of everybody in tests who has chosen one.
pub const PASSWORD: &str = "tall blue gate 9";
/// The master key of test databases: made once by chance, worthless elsewhere.
const MASTER_KEY: &str = "q0bq5G7oIiU0F4mS5mVQyXfEoQ2n3sXJmDr6f1kZt8A=";
/// What the operator's first administrator signs in as.
pub const ADMINISTRATOR: &str = "admin@operator.partners.localhost";

/// The databases that every test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// The embedded default.
    Sqlite,
    /// A real server.
    Postgres,
}

/// Runs a test on SQLite, then on PostgreSQL.
pub async fn both(test: impl AsyncFn(Site)) {
    for database in [Database::Sqlite, Database::Postgres] {
        // A failing test's output says which database it was on.
        println!("--- on {database:?}");
        let site = Site::open(database).await;
        test(site).await;
    }
}

/// As `both`, with all that is answered read from the database: where statements are counted.
pub async fn both_asking(test: impl AsyncFn(Site)) {
    for database in [Database::Sqlite, Database::Postgres] {
        println!("--- on {database:?}, without memory");
        let site = Site::open_with(database, |config| {
            config.freshness = entente::config::Freshness::Database;
        });
        test(site.await).await;
    }
}

/// A running Entente with a database of its own.
pub struct Site {
    /// Which database.
    pub database: Database,
    /// The application inside, for what no RPC shows.
    pub app: App,
    /// Where gRPC is served.
    pub address: SocketAddr,
    /// The URL of the PostgreSQL database, for further replicas.
    pub url: Option<String>,
    /// The data folder.
    pub folder: PathBuf,
    channel: Channel,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
    /// Counts statements.
    pub statements: Statements,
    _folder: tempfile::TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
    }
}

/// What a test may change of the configuration.
pub fn config(folder: &Path) -> Config {
    Config {
        data_dir: folder.to_path_buf(),
        enable_test_clock: true,
        master_key: Some(MASTER_KEY.to_owned()),
        drain_timeout_s: 5,
        limits_factor: 1_000,
        log_filter: "warn".to_owned(),
        // Nobody answers there: no test asks the DNS of the world.
        dns_servers: "127.0.0.1:9".to_owned(),
        ..Config::default()
    }
}

impl Site {
    /// Opens one.
    pub async fn open(database: Database) -> Self {
        Self::open_with(database, |_| {}).await
    }

    /// Opens one with another configuration.
    pub async fn open_with(database: Database, change: impl FnOnce(&mut Config)) -> Self {
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .ok();
        let temporary = tempfile::Builder::new()
            .prefix("entente-test-")
            .tempdir()
            .unwrap();
        let folder = temporary.path().to_path_buf();
        let mut config = config(&folder);
        let mut url = None;
        match database {
            Database::Sqlite => {
                fs::copy(sqlite_template().await, folder.join("entente.db")).unwrap();
            }
            Database::Postgres => {
                let made = postgres_database().await;
                config.database_url = Some(made.clone());
                url = Some(made);
            }
        }
        change(&mut config);
        let statements = Statements::default();
        let mut db = start::open(&config).await.unwrap();
        statements.watch(&mut db);
        let (app, address, stop, task) = serve_over(config, db).await;
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect_lazy();
        Self {
            database,
            app,
            address,
            url,
            folder,
            channel,
            stop: Some(stop),
            task: Some(task),
            statements,
            _folder: temporary,
        }
    }

    /// Opens one over the embedded database that a process left in a folder, with the test's master key.
    pub async fn over(folder: &Path) -> Self {
        let config = config(folder);
        let statements = Statements::default();
        let mut db = start::open(&config).await.unwrap();
        statements.watch(&mut db);
        let (app, address, stop, task) = serve_over(config, db).await;
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect_lazy();
        Self {
            database: Database::Sqlite,
            app,
            address,
            url: None,
            folder: folder.to_path_buf(),
            channel,
            stop: Some(stop),
            task: Some(task),
            statements,
            _folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Nobody.
    pub fn nobody(&self) -> Caller {
        Caller {
            channel: self.channel.clone(),
            token: None,
            on_behalf: None,
        }
    }

    /// Whoever has this token.
    pub fn with_token(&self, token: &str) -> Caller {
        Caller {
            channel: self.channel.clone(),
            token: Some(token.to_owned()),
            on_behalf: None,
        }
    }

    /// A service acting for a person.
    pub fn on_behalf(&self, service: &Caller, person: &Caller) -> Caller {
        Caller {
            channel: self.channel.clone(),
            token: service.token.clone(),
            on_behalf: person.token.clone(),
        }
    }

    /// The operator's first administrator.
    pub async fn operator(&self) -> Caller {
        self.sign_in(ADMINISTRATOR, PASSWORD).await
    }

    /// Signs in by password.
    pub async fn sign_in(&self, sign_in_name: &str, password: &str) -> Caller {
        let tokens = self.tokens(sign_in_name, password).await.unwrap();
        self.with_token(&tokens.access_token)
    }

    /// Signs in by password; gives all tokens.
    pub async fn tokens(&self, sign_in_name: &str, password: &str) -> Result<TokenSet, Status> {
        let credential = PasswordCredential {
            sign_in_name: sign_in_name.to_owned(),
            password: password.to_owned(),
        };
        let request = SignInRequest {
            credential: Some(Credential::Password(credential)),
            request_id: String::new(),
        };
        self.nobody()
            .sessions()
            .sign_in(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Signs in with a temporary password and chooses one.
    pub async fn settle_in(&self, sign_in_name: &str, temporary: &str) -> Caller {
        let restricted = self.sign_in(sign_in_name, temporary).await;
        let request = ChangePasswordRequest {
            old_password: temporary.to_owned(),
            new_password: PASSWORD.to_owned(),
            request_id: String::new(),
        };
        let changed = restricted
            .sessions()
            .change_password(request)
            .await
            .unwrap()
            .into_inner();
        self.with_token(&changed.tokens.unwrap().access_token)
    }

    /// A tenant with its global admin, signed in.
    pub async fn tenant(&self, prefix: &str) -> TenantSite {
        let operator = self.operator().await;
        let made = operator
            .tenants()
            .create_tenant(new_tenant(prefix))
            .await
            .unwrap()
            .into_inner();
        let admin = made.first_admin.unwrap();
        let caller = self
            .settle_in(&admin.sign_in_name, &made.temporary_password)
            .await;
        self.wake(&admin.name).await;
        TenantSite {
            name: made.tenant.unwrap().name,
            admin: Person {
                name: admin.name,
                sign_in_name: admin.sign_in_name,
                caller,
            },
        }
    }

    /// A user of a tenant, signed in.
    pub async fn person(&self, tenant: &TenantSite, user_name: &str) -> Person {
        self.person_with(tenant, user_name, |_| {}).await
    }

    /// A user of a tenant as the request is changed, signed in.
    pub async fn person_with(
        &self,
        tenant: &TenantSite,
        user_name: &str,
        change: impl FnOnce(&mut CreateUserRequest),
    ) -> Person {
        let mut request = new_user(&tenant.name, user_name);
        change(&mut request);
        let made = tenant
            .admin
            .caller
            .users()
            .create_user(request)
            .await
            .unwrap()
            .into_inner();
        let user = made.user.unwrap();
        let caller = self
            .settle_in(&user.sign_in_name, &made.temporary_password)
            .await;
        self.wake(&user.name).await;
        Person {
            name: user.name,
            sign_in_name: user.sign_in_name,
            caller,
        }
    }

    /// Ends the 72 hours in which a new person's rights sleep (ROL-13), without moving time.
    pub async fn wake(&self, user: &str) {
        let id: uuid::Uuid = user.rsplit('/').next().unwrap().parse().unwrap();
        let sql = "UPDATE users SET rights_asleep_until = NULL WHERE id = $1";
        let statement = Statement::from_sql_and_values(self.app.db.backend, sql, [id.into()]);
        self.app.db.write.execute_raw(statement).await.unwrap();
        reconcile(&self.app).await;
    }

    /// An account of a tenant, whose global admin is its manager.
    pub async fn account(&self, tenant: &TenantSite, publisher: &str) -> String {
        let request = ImportAccountRequest {
            account: Some(Account {
                publisher_display_name: publisher.to_owned(),
                legal_name: format!("{publisher} Ltd"),
                country_code: "FR".to_owned(),
                ..Account::default()
            }),
            tenant: tenant.name.clone(),
            first_manager: tenant.admin.name.clone(),
            ..ImportAccountRequest::default()
        };
        self.operator()
            .await
            .accounts()
            .import_account(request)
            .await
            .unwrap()
            .into_inner()
            .name
    }

    /// Moves the service's time.
    pub async fn advance(&self, seconds: i64) {
        let by = Some(prost_types::Duration { seconds, nanos: 0 });
        self.operator()
            .await
            .clock()
            .advance(AdvanceRequest {
                by,
                ..AdvanceRequest::default()
            })
            .await
            .unwrap();
    }

    /// Moves the service's time into the next hour, if this one is nearly over: for what comes once an hour.
    pub async fn early_in_an_hour(&self) {
        const HOUR: i64 = 3_600;
        let second = self.app.now().await.unwrap() / 1_000_000;
        let left = HOUR - second % HOUR;
        if left < 900 {
            self.advance(left).await;
        }
    }

    /// Makes a call, and tells what it cost.
    pub async fn cost_of<T>(&self, call: impl Future<Output = T>) -> (T, Cost) {
        let mails = async || {
            let sql = "SELECT COUNT(*) AS n FROM mails";
            crate::claims::count(&self.app, sql).await
        };
        let (mails_before, hashes_before) = (mails().await, self.app.hasher.made());
        self.statements.start().await;
        let answer = call.await;
        let cost = Cost {
            statements: self.statements.told(),
            hashes: self.app.hasher.made() - hashes_before,
            mails: mails().await - mails_before,
        };
        (answer, cost)
    }

    /// Ends the server, with its scheduler: from here on, only what the test calls in this process reaches the database.
    pub async fn stop_serving(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.take().unwrap().await.unwrap();
    }

    /// Runs the scheduler's due work and sends mails, now.
    pub async fn settle(&self) {
        entente::schedule::settle(&self.app).await.unwrap();
    }
}

/// Tells of what was done to the database behind the service's back: on SQLite the next commit does, and until then nothing comes from
/// memory.
pub async fn reconcile(app: &App) {
    if app.db.backend == sea_orm::DbBackend::Postgres {
        return;
    }
    app.job("reconcile", |_, _| Box::pin(async { Ok(()) }))
        .await
        .unwrap();
}

/// Assembles and serves an Entente in this process, on a free port.
pub async fn serve(config: Config) -> (App, SocketAddr, oneshot::Sender<()>) {
    let db = start::open(&config).await.unwrap();
    let (app, address, stop, _) = serve_over(config, db).await;
    (app, address, stop)
}

async fn serve_over(
    config: Config,
    db: Db,
) -> (App, SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let app = start::assemble(config, db, Env::system()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let served = app.clone();
    let task = tokio::spawn(async move {
        server::serve(served, listener, None, async {
            stopped.await.ok();
        })
        .await
        .unwrap();
    });
    (app, address, stop, task)
}

/// A tenant and its global admin.
#[derive(Clone)]
pub struct TenantSite {
    /// `tenants/..`.
    pub name: String,
    /// Its global admin.
    pub admin: Person,
}

/// A user, signed in.
#[derive(Clone)]
pub struct Person {
    /// `tenants/../users/..`.
    pub name: String,
    /// `user@domain`.
    pub sign_in_name: String,
    /// With its token.
    pub caller: Caller,
}

impl Person {
    /// Its membership of an account.
    pub fn member_of(&self, account: &str) -> String {
        format!(
            "{account}/members/{}",
            self.name.rsplit('/').next().unwrap()
        )
    }
}

/// The request of a tenant.
pub fn new_tenant(prefix: &str) -> CreateTenantRequest {
    CreateTenantRequest {
        tenant: Some(Tenant {
            domain_prefix: prefix.to_owned(),
            display_name: format!("{prefix} Company"),
            contact_email: format!("it@{prefix}.example"),
            ..Tenant::default()
        }),
        first_admin: Some(FirstAdmin {
            given_name: "Ann".to_owned(),
            family_name: "Smith".to_owned(),
            user_name: "ann".to_owned(),
            recovery_email: format!("ann@{prefix}.example"),
            password: String::new(),
        }),
        ..CreateTenantRequest::default()
    }
}

/// The request of a user.
pub fn new_user(tenant: &str, user_name: &str) -> CreateUserRequest {
    CreateUserRequest {
        parent: tenant.to_owned(),
        user: Some(User {
            user_name: user_name.to_owned(),
            given_name: "Given".to_owned(),
            family_name: user_name.to_owned(),
            ..User::default()
        }),
        ..CreateUserRequest::default()
    }
}

/// A membership of an account with roles.
pub fn membership(account: &str, roles: &[entente::proto::access::AccountRole]) -> NewMembership {
    NewMembership {
        account: account.to_owned(),
        rights: Some(rights(roles)),
    }
}

/// Rights of roles.
pub fn rights(roles: &[entente::proto::access::AccountRole]) -> entente::proto::access::Rights {
    entente::proto::access::Rights {
        roles: roles.iter().map(|r| *r as i32).collect(),
        permissions: Vec::new(),
    }
}

/// A new request ID.
pub fn request_id() -> String {
    let bytes = Env::system().bytes::<16>();
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string()
}

/// Whoever calls, with its clients.
#[derive(Clone)]
pub struct Caller {
    /// The connection.
    pub channel: Channel,
    /// The access token.
    pub token: Option<String>,
    /// The token of the person acted for.
    pub on_behalf: Option<String>,
}

/// Puts tokens into headers.
#[derive(Clone)]
pub struct Auth {
    token: Option<String>,
    on_behalf: Option<String>,
}

impl Interceptor for Auth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (key, token) in [
            ("authorization", &self.token),
            ("entente-on-behalf", &self.on_behalf),
        ] {
            if let Some(token) = token {
                let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
                request.metadata_mut().insert(key, value);
            }
        }
        Ok(request)
    }
}

/// What clients are made of.
pub type Wire = InterceptedService<Channel, Auth>;

macro_rules! clients {
    ($($method:ident: $client:ident,)*) => {
        impl Caller {
            $(
                /// The client of the service.
                pub fn $method(&self) -> $client<Wire> {
                    $client::new(self.wire())
                }
            )*
        }
    };
}

clients! {
    access: AccessServiceClient,
    audit: AuditServiceClient,
    events: EventServiceClient,
    tenants: TenantServiceClient,
    users: UserServiceClient,
    groups: GroupServiceClient,
    sessions: SessionServiceClient,
    applications: ApplicationServiceClient,
    domains: DomainServiceClient,
    invitations: InvitationServiceClient,
    recoveries: RecoveryServiceClient,
    identities: IdentityServiceClient,
    accounts: AccountServiceClient,
    members: MemberServiceClient,
    associations: TenantAssociationServiceClient,
    agreements: AgreementServiceClient,
    name_claims: NameClaimServiceClient,
    network: NetworkServiceClient,
    verification: VerificationServiceClient,
    staff: StaffServiceClient,
    mails: MailServiceClient,
    reserved_names: ReservedNameServiceClient,
    benefits: BenefitServiceClient,
    policies: PolicyServiceClient,
    offers: OfferServiceClient,
    reports: ReportServiceClient,
    relationships: RelationshipServiceClient,
    delegated_admin: DelegatedAdminServiceClient,
    clock: TestClockServiceClient,
}

impl Caller {
    /// The connection with the caller's headers.
    pub fn wire(&self) -> Wire {
        InterceptedService::new(
            self.channel.clone(),
            Auth {
                token: self.token.clone(),
                on_behalf: self.on_behalf.clone(),
            },
        )
    }
}

/// Asserts that a call was refused with a code and a reason, with `ErrorInfo` of our domain.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: &str) -> Status {
    let status = result.expect_err("the call was to be refused");
    let info = status.get_details_error_info();
    let told = info.as_ref().map(|i| i.reason.as_str());
    assert_eq!((status.code(), told), (code, Some(reason)), "{status:?}");
    assert_eq!(info.unwrap().domain, "entente");
    if reason == "PERMISSION_MISSING" {
        crate::access::names_what_is_missing(&status);
    }
    status
}

/// The fields that a refusal names.
pub fn fields(status: &Status) -> Vec<String> {
    let bad = status.get_details_bad_request();
    bad.map(|b| b.field_violations.into_iter().map(|v| v.field).collect())
        .unwrap_or_default()
}

// ---- templates: a migrated, bootstrapped database with the administrator's password set

async fn fill(config: Config) {
    let (app, address, stop) = serve(config).await;
    let way = bootstrap::bootstrap(&app, "admin@operator.example")
        .await
        .unwrap()
        .unwrap();
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let nobody = Caller {
        channel,
        token: None,
        on_behalf: None,
    };
    let credential = PasswordCredential {
        sign_in_name: way.sign_in_name,
        password: way.temporary_password.clone(),
    };
    let request = SignInRequest {
        credential: Some(Credential::Password(credential)),
        request_id: String::new(),
    };
    let tokens = nobody
        .sessions()
        .sign_in(request)
        .await
        .unwrap()
        .into_inner();
    let caller = Caller {
        token: Some(tokens.access_token),
        ..nobody
    };
    let request = ChangePasswordRequest {
        old_password: way.temporary_password,
        new_password: PASSWORD.to_owned(),
        request_id: String::new(),
    };
    caller.sessions().change_password(request).await.unwrap();
    entente::schedule::settle(&app).await.unwrap();
    stop.send(()).ok();
    app.draining.cancelled().await;
    // The pools close so that the template may be copied.
    app.db.read.clone().close().await.unwrap();
    app.db.write.clone().close().await.unwrap();
}

async fn sqlite_template() -> PathBuf {
    static TEMPLATE: OnceCell<(tempfile::TempDir, PathBuf)> = OnceCell::const_new();
    let made = TEMPLATE
        .get_or_init(|| async {
            let folder = tempfile::Builder::new()
                .prefix("entente-template-")
                .tempdir()
                .unwrap();
            let config = config(folder.path());
            on_own_runtime(async move { fill(config).await });
            let file = folder.path().join("entente.db");
            assert!(
                !folder.path().join("entente.db-wal").exists(),
                "the template is whole in one file"
            );
            (folder, file)
        })
        .await;
    made.1.clone()
}

/// Runs a future to its end on a runtime of its own, so that what it leaves behind ends with it.
fn on_own_runtime(work: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(work))
        .join()
        .unwrap();
}

/// A PostgreSQL server of the tests' own, ended with this process.
pub struct Postgres {
    /// Its port on loopback.
    pub port: u16,
}

impl Postgres {
    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// The server, started once.
pub fn postgres() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(start_postgres)
}

fn postgres_program(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|dir| {
            dir.flatten()
                .map(|e| e.path().join("bin").join(name))
                .filter(|p| p.exists())
                .collect()
        })
        .unwrap_or_default();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!("PostgreSQL's {name} is missing; scripts/tools.sh test installs it")
    })
}

/// PostgreSQL won't run as root.
fn as_postgres(program: &Path) -> Command {
    let root =
        fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if root {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Starts a PostgreSQL on a free port; a shell watches this process and ends the server, and its folder, with it.
pub fn start_postgres() -> Postgres {
    let folder = tempfile::Builder::new()
        .prefix("entente-postgres-")
        .tempdir()
        .unwrap()
        .keep();
    let mut permissions = fs::metadata(&folder).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o777);
    fs::set_permissions(&folder, permissions).unwrap();
    let data = folder.join("data");
    let made = as_postgres(&postgres_program("initdb"))
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
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let port = crate::processes::free_port();
    let server = as_postgres(&postgres_program("postgres"));
    let script = format!(
        "\"$@\" -D '{data}' -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c max_connections=400 \
         -c full_page_writes=off -c synchronous_commit=on >'{log}' 2>&1 & server=$!; cat >/dev/null; kill -INT $server; wait $server; rm -rf '{folder}'",
        data = data.display(),
        log = folder.join("log").display(),
        folder = folder.display(),
    );
    let watcher = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(server.get_program())
        .args(server.get_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its standard input closes when this process ends, however it ends.
    std::mem::forget(watcher);
    let begun = Instant::now();
    loop {
        let ready = Command::new(postgres_program("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status();
        if ready.is_ok_and(|s| s.success()) {
            return Postgres { port };
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "PostgreSQL did not start; see {}",
            folder.join("log").display()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs SQL on a database of the tests' server; gives what psql prints.
pub fn psql(url: &str, sql: &str) -> String {
    let done = Command::new(postgres_program("psql"))
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
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{sql}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A transaction on PostgreSQL, of a connection of its own: it holds its locks until it is released.
pub struct Held(PgConnection);

impl Held {
    /// Begins with this.
    pub async fn by(url: &str, sql: &str) -> Self {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("BEGIN; {sql}"));
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        Self(connection)
    }

    /// All scopes.
    pub async fn heads(url: &str) -> Self {
        Self::by(url, "SELECT 1 FROM heads FOR UPDATE").await
    }

    /// Commits.
    pub async fn release(mut self) {
        let commit = sqlx::raw_sql("COMMIT");
        commit.execute(&mut self.0).await.unwrap();
    }
}

/// Waits until so many connections to a database of PostgreSQL wait for a lock.
pub async fn wait_for_locks(url: &str, connections: usize) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(async || psql(url, sql).parse::<usize>().unwrap() >= connections).await;
}

/// A copy of the template database; gives its URL.
pub async fn postgres_database() -> String {
    static TEMPLATE: OnceCell<()> = OnceCell::const_new();
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let server = postgres();
    TEMPLATE
        .get_or_init(|| async {
            psql(&server.url("postgres"), "CREATE DATABASE entente_template");
            let folder = tempfile::tempdir().unwrap();
            let mut config = config(folder.path());
            config.database_url = Some(server.url("entente_template"));
            on_own_runtime(async move { fill(config).await });
        })
        .await;
    let name = format!(
        "entente_{}",
        COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
    );
    // A template that somebody is still connected to can't be copied; the last connection may take a moment to end.
    let sql = format!("CREATE DATABASE {name} TEMPLATE entente_template");
    for _ in 0..1_200 {
        let done = Command::new(postgres_program("psql"))
            .args(["-X", "-q", "-c", &sql, &server.url("postgres")])
            .output()
            .unwrap();
        if done.status.success() {
            return server.url(&name);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the template database could not be copied");
}

/// A database that nobody has touched: for migrations.
pub fn empty_postgres_database(name: &str) -> String {
    psql(
        &postgres().url("postgres"),
        &format!("CREATE DATABASE {name}"),
    );
    postgres().url(name)
}
