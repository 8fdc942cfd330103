//! No read is older than what anybody knew: random changes by transactions that commit at once or late, or never; readers at several
//! servers, whose barriers are cut now and then. What was acknowledged to a writer, or seen by a reader, is the least that every later read
//! shows. Three variants that are wrong, each in its own way, are noticed; else this would prove nothing.
//!
//! `ENTENTE_FRESH_SECONDS` has each run take so long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use entente::{
    app::App,
    error::Error,
    proto::{
        access::TestMyPermissionsRequest,
        directory::{DirectoryRole, GetUserRequest, ListUsersRequest},
    },
    store::barrier::Broken,
};
use sea_orm::{
    ConnectionTrait as _,
    sqlx::{self, Connection as _, PgConnection},
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    harness::{Caller, Database, Person, Site, both, config, psql, serve},
    people::{id, person_as},
    processes::{Server, Setting, home, settle_in},
};

/// Histories of each run in the tests of every day; both databases together make 200.
const HISTORIES: u64 = 100;
/// One history.
const LONG: Duration = Duration::from_millis(60);
/// People whose names are numbered.
const NUMBERED: usize = 3;
/// Readers at once.
const READERS: u64 = 6;

/// Chance that can be had again.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// Something that one writer numbers upwards.
struct Register {
    name: String,
    /// The last number that a write was begun of.
    begun: AtomicI64,
    /// The highest that anybody knows.
    known: AtomicI64,
}

impl Register {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            begun: AtomicI64::new(0),
            known: AtomicI64::new(0),
        }
    }
}

/// Who writes, behind the readers' backs.
enum Pen {
    Sqlite(App),
    Postgres {
        url: String,
        open: Option<PgConnection>,
    },
}

impl Pen {
    fn literal(&self, name: &str) -> String {
        let id = id(name);
        match self {
            Self::Sqlite(_) => format!("x'{}'", id.simple()),
            Self::Postgres { .. } => format!("'{id}'"),
        }
    }

    /// Does one thing in a transaction that stays open so long; whether it is known to be committed.
    async fn write(&mut self, sql: &str, open_for: Duration, give_up: bool) -> bool {
        match self {
            Self::Sqlite(app) => {
                let sql = sql.to_owned();
                let done = app.job("pen", move |tx, _| {
                    let sql = sql.clone();
                    Box::pin(async move {
                        tx.db().execute_unprepared(&sql).await?;
                        // Nobody else writes meanwhile.
                        tokio::time::sleep(open_for / 20).await;
                        if give_up {
                            return Err(Error::internal("given up"));
                        }
                        Ok(())
                    })
                });
                done.await.is_ok()
            }
            Self::Postgres { url, open } => {
                let connection = match open.take() {
                    Some(connection) => Ok(connection),
                    None => PgConnection::connect(url).await,
                };
                let Ok(mut connection) = connection else {
                    return false;
                };
                for (n, step) in ["BEGIN", sql, if give_up { "ROLLBACK" } else { "COMMIT" }]
                    .into_iter()
                    .enumerate()
                {
                    if n == 2 {
                        tokio::time::sleep(open_for).await;
                    }
                    let step = sqlx::raw_sql(sqlx::AssertSqlSafe(step.to_owned()));
                    if step.execute(&mut connection).await.is_err() {
                        return false;
                    }
                }
                *open = Some(connection);
                !give_up
            }
        }
    }
}

/// Where it plays.
struct Stage {
    servers: Vec<Channel>,
    tenant: String,
    admin: Caller,
    /// Whose right comes and goes.
    bob: Caller,
    right: Register,
    /// Who must never see what is written while her right is away.
    eve: Caller,
    eve_name: String,
    secret: String,
    numbered: Vec<Register>,
    over: AtomicBool,
    reads: AtomicU64,
    /// Reads that showed what was over already, or never was.
    stale: AtomicU64,
}

const SECRET: &str = "secret";
const NEVER: &str = "never";

impl Stage {
    fn new(
        servers: Vec<Channel>,
        tenant: &str,
        admin: &Caller,
        [bob, eve]: [&Person; 2],
        people: &[String],
    ) -> Arc<Self> {
        Arc::new(Self {
            servers,
            tenant: tenant.to_owned(),
            admin: admin.clone(),
            bob: bob.caller.clone(),
            right: Register::new(&bob.name),
            eve: eve.caller.clone(),
            eve_name: eve.name.clone(),
            secret: people[0].clone(),
            numbered: people[1..].iter().map(|p| Register::new(p)).collect(),
            over: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            stale: AtomicU64::new(0),
        })
    }

    fn at(&self, who: &Caller, dice: &mut Dice) -> Caller {
        let server = dice.below(self.servers.len() as u64);
        Caller {
            channel: self.servers[server as usize].clone(),
            ..who.clone()
        }
    }

    fn judge(&self, good: bool, what: impl FnOnce() -> String) {
        self.reads.fetch_add(1, SeqCst);
        if !good && self.stale.fetch_add(1, SeqCst) == 0 {
            println!("stale: {}", what());
        }
    }

    /// A number was read of which so much was known when the read began.
    fn number(&self, of: &Register, known: i64, shown: &str, where_: &str) {
        let number: i64 = shown.strip_prefix('v').map_or(0, |n| n.parse().unwrap());
        let good = shown != NEVER && number >= known && number <= of.begun.load(SeqCst);
        self.judge(good, || {
            format!("{where_} shows {shown}, known was {known}")
        });
        if good {
            of.known.fetch_max(number, SeqCst);
        }
    }

    async fn read(&self, dice: &mut Dice) {
        match dice.below(8) {
            0..=3 => {
                let of = &self.numbered[dice.below(self.numbered.len() as u64) as usize];
                let known = of.known.load(SeqCst);
                let name = of.name.clone();
                let mut users = self.at(&self.admin, dice).users();
                if let Ok(user) = users.get_user(GetUserRequest { name }).await {
                    self.number(of, known, &user.into_inner().family_name, "GetUser");
                }
            }
            4 => {
                let known: Vec<i64> = self
                    .numbered
                    .iter()
                    .map(|of| of.known.load(SeqCst))
                    .collect();
                let request = ListUsersRequest {
                    parent: self.tenant.clone(),
                    ..ListUsersRequest::default()
                };
                let mut users = self.at(&self.admin, dice).users();
                if let Ok(page) = users.list_users(request).await {
                    let page = page.into_inner().users;
                    for (of, known) in self.numbered.iter().zip(known) {
                        let user = page.iter().find(|u| u.name == of.name).unwrap();
                        self.number(of, known, &user.family_name, "ListUsers");
                    }
                }
            }
            5 | 6 => {
                let known = self.right.known.load(SeqCst);
                let request = TestMyPermissionsRequest {
                    resource: self.tenant.clone(),
                    permissions: vec!["users.read".to_owned()],
                };
                let mut access = self.at(&self.bob, dice).access();
                if let Ok(mine) = access.test_my_permissions(request).await {
                    let has = !mine.into_inner().permissions.is_empty();
                    let begun = self.right.begun.load(SeqCst);
                    // The right is there while the number is even.
                    let possible: Vec<i64> =
                        (known..=begun).filter(|n| (n % 2 == 0) == has).collect();
                    self.judge(!possible.is_empty(), || {
                        format!("bob's right is {has} while it is {known} to {begun}")
                    });
                    if let [only] = possible[..] {
                        self.right.known.fetch_max(only, SeqCst);
                    }
                }
            }
            _ => {
                let eve = self.at(&self.eve, dice);
                let shown = if dice.below(2) == 0 {
                    let name = self.secret.clone();
                    let got = eve.users().get_user(GetUserRequest { name }).await;
                    got.map(|user| user.into_inner().family_name)
                } else {
                    let request = ListUsersRequest {
                        parent: self.tenant.clone(),
                        ..ListUsersRequest::default()
                    };
                    let got = eve.users().list_users(request).await;
                    got.map(|page| {
                        let mut page = page.into_inner().users.into_iter();
                        page.find(|u| u.name == self.secret).unwrap().family_name
                    })
                };
                if let Ok(shown) = shown {
                    self.judge(shown != SECRET, || "eve sees the secret".to_owned());
                }
            }
        }
    }

    /// Numbers one person's name upwards.
    async fn numbers(&self, n: usize, mut pen: Pen, mut dice: Dice) -> Pen {
        let of = &self.numbered[n];
        let who = pen.literal(&of.name);
        let set = |to: &str| format!("UPDATE users SET family_name = '{to}' WHERE id = {who}");
        while !self.over.load(SeqCst) {
            if dice.below(5) == 0 {
                pen.write(&set(NEVER), pause(&mut dice), true).await;
            }
            let next = of.begun.fetch_add(1, SeqCst) + 1;
            if pen
                .write(&set(&format!("v{next}")), pause(&mut dice), false)
                .await
            {
                of.known.fetch_max(next, SeqCst);
            }
        }
        pen
    }

    fn role(pen: &Pen, who: &str, has: bool) -> String {
        let bits = if has {
            1 << DirectoryRole::HelpdeskAdmin as i64
        } else {
            0
        };
        let who = pen.literal(who);
        format!("UPDATE grants SET roles = {bits} WHERE scope_kind = 1 AND principal_id = {who}")
    }

    /// Gives and takes bob's right.
    async fn rights(&self, mut pen: Pen, mut dice: Dice) -> Pen {
        while !self.over.load(SeqCst) {
            let now = self.right.begun.load(SeqCst);
            if dice.below(5) == 0 {
                let other = Self::role(&pen, &self.right.name, now % 2 != 0);
                pen.write(&other, pause(&mut dice), true).await;
            }
            let next = self.right.begun.fetch_add(1, SeqCst) + 1;
            let sql = Self::role(&pen, &self.right.name, next % 2 == 0);
            if pen.write(&sql, pause(&mut dice), false).await {
                self.right.known.fetch_max(next, SeqCst);
            }
        }
        pen
    }

    /// Takes eve's right, writes the secret, covers it, gives the right again.
    async fn secrets(&self, mut pen: Pen, mut dice: Dice) -> Pen {
        let whose = pen.literal(&self.secret);
        let set = |to: &str| format!("UPDATE users SET family_name = '{to}' WHERE id = {whose}");
        let steps = [
            Self::role(&pen, &self.eve_name, false),
            set(SECRET),
            set("open"),
            Self::role(&pen, &self.eve_name, true),
        ];
        while !self.over.load(SeqCst) {
            for step in &steps {
                // Each is done before the next begins.
                while !pen.write(step, pause(&mut dice) / 4, false).await {}
            }
        }
        pen
    }

    /// One history; gives the pens back.
    async fn history(self: &Arc<Self>, pens: Vec<Pen>, seed: u64) -> Vec<Pen> {
        self.over.store(false, SeqCst);
        let mut writers = JoinSet::new();
        for (n, pen) in pens.into_iter().enumerate() {
            let (stage, dice) = (Arc::clone(self), Dice::of(seed * 100 + n as u64));
            writers.spawn(async move {
                match n {
                    0 => stage.rights(pen, dice).await,
                    1 => stage.secrets(pen, dice).await,
                    _ => stage.numbers(n - 2, pen, dice).await,
                }
            });
        }
        let mut readers = JoinSet::new();
        for n in 0..READERS {
            let (stage, mut dice) = (Arc::clone(self), Dice::of(seed * 100 + 50 + n));
            readers.spawn(async move {
                while !stage.over.load(SeqCst) {
                    stage.read(&mut dice).await;
                }
            });
        }
        tokio::time::sleep(LONG).await;
        self.over.store(true, SeqCst);
        readers.join_all().await;
        writers.join_all().await
    }

    /// Histories, one after the other, until there were enough, or `enough` says so.
    async fn play(self: &Arc<Self>, mut pens: Vec<Pen>, enough: impl Fn(&Self, u64) -> bool) {
        let mut n = 0;
        while !enough(self, n) {
            n += 1;
            // Which pen writes what is told by its place.
            pens = self.history(pens, n).await;
            if pens.len() < NUMBERED + 2 {
                panic!("a writer was lost");
            }
        }
        let (reads, stale) = (self.reads.load(SeqCst), self.stale.load(SeqCst));
        println!("{n} histories, {reads} reads, {stale} of them stale");
    }
}

/// How long a transaction stays open: mostly not at all, now and then long.
fn pause(dice: &mut Dice) -> Duration {
    match dice.below(6) {
        0..=2 => Duration::ZERO,
        3 | 4 => Duration::from_millis(dice.below(6)),
        _ => Duration::from_millis(10 + dice.below(40)),
    }
}

/// Runs for so long each, if that is said.
fn long_run() -> Option<Duration> {
    let seconds = std::env::var("ENTENTE_FRESH_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().unwrap()))
}

fn whole_run(begun: Instant) -> impl Fn(&Stage, u64) -> bool {
    move |_, n| match long_run() {
        Some(long) => begun.elapsed() >= long,
        None => n >= HISTORIES,
    }
}

/// Cuts the barriers of all servers on a database, now and then.
async fn cut_barriers(url: String) {
    let mut dice = Dice::of(7);
    loop {
        tokio::time::sleep(Duration::from_millis(100 + dice.below(600))).await;
        let Ok(mut connection) = PgConnection::connect(&url).await else {
            continue;
        };
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE application_name = 'entente barrier' AND datname = current_database()";
        sqlx::raw_sql(cut).execute(&mut connection).await.ok();
    }
}

/// Three servers in this process over one PostgreSQL, or one over SQLite.
struct Play {
    stage: Arc<Stage>,
    apps: Vec<App>,
    url: Option<String>,
    _folders: Vec<TempDir>,
}

impl Play {
    async fn of(site: &Site) -> Self {
        let contoso = site.tenant("contoso").await;
        let mut people = Vec::new();
        for n in 0..=NUMBERED {
            let request = crate::harness::new_user(&contoso.name, &format!("person{n}"));
            let made = contoso.admin.caller.users().create_user(request).await;
            people.push(made.unwrap().into_inner().user.unwrap().name);
        }
        let bob = person_as(site, &contoso, "bob", DirectoryRole::HelpdeskAdmin).await;
        let eve = person_as(site, &contoso, "eve", DirectoryRole::HelpdeskAdmin).await;
        let mut servers = vec![site.nobody().channel];
        let (mut apps, mut folders) = (vec![site.app.clone()], Vec::new());
        if let Some(url) = &site.url {
            for _ in 0..2 {
                let folder = tempfile::tempdir().unwrap();
                let mut config = config(folder.path());
                config.database_url = Some(url.clone());
                // As in production.
                config.enable_test_clock = false;
                let (app, address, stop) = serve(config).await;
                // It runs until the test's runtime ends.
                std::mem::forget(stop);
                let endpoint = format!("http://{address}");
                let endpoint = tonic::transport::Endpoint::from_shared(endpoint).unwrap();
                servers.push(endpoint.connect_lazy());
                apps.push(app);
                folders.push(folder);
            }
        }
        let admin = &contoso.admin.caller;
        Self {
            stage: Stage::new(servers, &contoso.name, admin, [&bob, &eve], &people),
            apps,
            url: site.url.clone(),
            _folders: folders,
        }
    }

    fn pens(&self) -> Vec<Pen> {
        let pen = || match &self.url {
            Some(url) => Pen::Postgres {
                url: url.clone(),
                open: None,
            },
            None => Pen::Sqlite(self.apps[0].clone()),
        };
        (0..NUMBERED + 2).map(|_| pen()).collect()
    }
}

// proves ROL-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_older_than_what_anybody_knew() {
    both(async |site| {
        let play = Play::of(&site).await;
        let cutting = play.url.clone().map(|url| tokio::spawn(cut_barriers(url)));
        let begun = Instant::now();
        play.stage.play(play.pens(), whole_run(begun)).await;
        if let Some(cutting) = cutting {
            cutting.abort();
        }
        assert!(play.stage.reads.load(SeqCst) > 300);
        assert_eq!(play.stage.stale.load(SeqCst), 0);
    })
    .await;
}

// proves ROL-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variants_that_are_wrong_are_noticed() {
    for (database, how) in [
        (Database::Sqlite, Broken::Undoubted),
        (Database::Postgres, Broken::Early),
        (Database::Postgres, Broken::Sequence),
    ] {
        println!("--- {how:?}");
        // Without the test clock, whose own pass of the barrier puts calls in step with the rounds.
        let site = Site::open_with(database, |c| c.enable_test_clock = false).await;
        let play = Play::of(&site).await;
        for app in &play.apps {
            app.memory.break_it(how);
        }
        let noticed = |stage: &Stage, n: u64| stage.stale.load(SeqCst) > 0 || n >= 10 * HISTORIES;
        play.stage.play(play.pens(), noticed).await;
        assert!(play.stage.stale.load(SeqCst) > 0, "{how:?} went unnoticed");
    }
}

// proves ROL-10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_of_three_programs_is_older_than_what_anybody_knew_while_they_are_killed() {
    let url = crate::harness::empty_postgres_database("fresh_three");
    let settings = [(); 3].map(|()| Setting::new(Some(url.clone())));
    let mut servers: Vec<Server> = Vec::new();
    for setting in &settings {
        servers.push(setting.serve(&[]).await);
    }
    let password = settings
        .iter()
        .find_map(|s| std::fs::read_to_string(s.data().join("first-administrator-password")).ok());
    let admin = settle_in(&servers[0], password.unwrap().trim()).await;
    let tenant = home(&admin).await;
    let mut people = Vec::new();
    let mut both = Vec::new();
    for n in 0..NUMBERED + 3 {
        let mut request = crate::harness::new_user(&tenant, &format!("person{n}"));
        let roles = &mut request.user.as_mut().unwrap().directory_roles;
        *roles = vec![DirectoryRole::HelpdeskAdmin as i32];
        let made = admin.users().create_user(request).await.unwrap();
        let made = made.into_inner();
        let user = made.user.unwrap();
        if n <= NUMBERED {
            people.push(user.name);
            continue;
        }
        let caller = sign_in(&servers[0], &user.sign_in_name, &made.temporary_password).await;
        both.push(Person {
            name: user.name,
            sign_in_name: user.sign_in_name,
            caller,
        });
    }
    psql(&url, "UPDATE users SET rights_asleep_until = NULL");
    let channels = servers.iter().map(|s| s.nobody().channel).collect();
    let stage = Stage::new(channels, &tenant, &admin, [&both[0], &both[1]], &people);
    let pens = (0..NUMBERED + 2).map(|_| Pen::Postgres {
        url: url.clone(),
        open: None,
    });
    let cutting = tokio::spawn(cut_barriers(url.clone()));
    let played = {
        let stage = Arc::clone(&stage);
        let pens = pens.collect();
        let long = long_run().unwrap_or(Duration::from_secs(8));
        let begun = Instant::now();
        let enough =
            move |stage: &Stage, _| begun.elapsed() >= long && stage.reads.load(SeqCst) > 200;
        tokio::spawn(async move { stage.play(pens, enough).await })
    };
    // Killed in the middle, and begun anew where it was.
    tokio::time::sleep(Duration::from_secs(2)).await;
    servers[2].signal("-KILL");
    played.await.unwrap();
    cutting.abort();
    assert!(stage.reads.load(SeqCst) > 200);
    assert_eq!(stage.stale.load(SeqCst), 0);
    let after = servers[1].nobody();
    let after = Caller {
        channel: after.channel,
        ..admin
    };
    let name = people[0].clone();
    let got = after.users().get_user(GetUserRequest { name }).await;
    got.unwrap();
}

/// Signs in with a temporary password, and chooses one.
async fn sign_in(server: &Server, sign_in_name: &str, temporary: &str) -> Caller {
    use entente::proto::directory::{
        ChangePasswordRequest, PasswordCredential, SignInRequest, sign_in_request::Credential,
    };
    let nobody = server.nobody();
    let request = SignInRequest {
        credential: Some(Credential::Password(PasswordCredential {
            sign_in_name: sign_in_name.to_owned(),
            password: temporary.to_owned(),
        })),
        request_id: String::new(),
    };
    let tokens = nobody.sessions().sign_in(request).await.unwrap();
    let restricted = Caller {
        token: Some(tokens.into_inner().access_token),
        ..nobody
    };
    let request = ChangePasswordRequest {
        old_password: temporary.to_owned(),
        new_password: crate::harness::PASSWORD.to_owned(),
        request_id: String::new(),
    };
    let changed = restricted.sessions().change_password(request).await;
    let tokens = changed.unwrap().into_inner().tokens.unwrap();
    Caller {
        token: Some(tokens.access_token),
        ..server.nobody()
    }
}
