//! One read, one create and one batch, in this process: their futures dropped at every poll, every statement and every message to the
//! database failed once. Whatever breaks, nothing is half done, and the repetition has one effect (COM-4, COM-13).

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use entente::{
    access::{principal::Caller, rules},
    account::member,
    app::{App, Call, Outcome, Outside},
    directory::user,
    env::Env,
    error::{Error, Language, Reason},
    proto::{
        access::AccountRole,
        account::AddMembersRequest,
        directory::{CreateUserRequest, GetUserRequest},
    },
    start,
};
use sea_orm::{
    ConnectionTrait as _, DbBackend, Statement,
    sqlx::{self, Connection as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::{
    claims::{chains_are_intact, count, execute, tables},
    harness::{Database, Site, both, config, new_user, postgres, request_id, rights},
};

/// The calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Create,
    Batch,
}

const KINDS: [Kind; 3] = [Kind::Read, Kind::Create, Kind::Batch];

/// A request of one of them.
#[derive(Clone, Debug)]
enum Request {
    Get(GetUserRequest),
    Create(Box<CreateUserRequest>),
    Add(AddMembersRequest),
}

/// A tenant with an account, its admin, and three people who are to become members.
pub struct Stage {
    /// The application.
    pub app: App,
    /// The admin, as caller.
    pub who: Caller,
    /// The tenant.
    pub tenant: String,
    account: String,
    admin: String,
    three: Vec<String>,
    made: u32,
}

impl Stage {
    /// Sets it up through a server, which is then ended.
    pub async fn of(site: &mut Site) -> Self {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let mut three = Vec::new();
        for n in 0..3 {
            let mut users = contoso.admin.caller.users();
            let made = users.create_user(new_user(&contoso.name, &format!("three{n}")));
            three.push(made.await.unwrap().into_inner().user.unwrap().name);
        }
        site.settle().await;
        site.stop_serving().await;
        let now = site.app.now().await.unwrap();
        let token = contoso.admin.caller.token.as_deref().unwrap();
        let who = site.app.tokens.verify(token, now).unwrap();
        Self {
            app: site.app.clone(),
            who: Caller {
                who,
                via: None,
                address: None,
                language: Language::English,
                trace_id: String::new(),
            },
            tenant: contoso.name,
            account,
            admin: contoso.admin.name,
            three,
            made: 0,
        }
    }

    /// Has the application reach its database through a cutter.
    pub async fn through_a_cutter(&mut self, site: &Site) -> (Cutter, tempfile::TempDir) {
        let cutter = Cutter::open(postgres().port).await;
        let url = site.url.as_ref().unwrap();
        let through = url.replace(
            &format!(":{}/", postgres().port),
            &format!(":{}/", cutter.port),
        );
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.database_url = Some(through);
        let db = start::open(&config).await.unwrap();
        self.app = start::assemble(config, db, Env::system()).await.unwrap();
        (cutter, folder)
    }

    /// A request that was never made before.
    async fn next(&mut self, kind: Kind) -> Request {
        self.made += 1;
        // Or too little would be asked of the database that could break.
        self.app.memory.forget();
        match kind {
            Kind::Read => Request::Get(GetUserRequest {
                name: self.admin.clone(),
            }),
            Kind::Create => Request::Create(Box::new(CreateUserRequest {
                request_id: request_id(),
                ..new_user(&self.tenant, &format!("user{}", self.made))
            })),
            Kind::Batch => {
                let ids = self.three.iter().map(|name| {
                    let id: uuid::Uuid = name.rsplit('/').next().unwrap().parse().unwrap();
                    match self.app.db.backend {
                        DbBackend::Postgres => format!("'{id}'"),
                        _ => format!("x'{}'", id.simple()),
                    }
                });
                let ids: Vec<_> = ids.collect();
                let sql = format!(
                    "DELETE FROM grants WHERE scope_kind = 2 AND principal_id IN ({})",
                    ids.join(", ")
                );
                execute(&self.app, &sql).await.unwrap();
                Request::Add(AddMembersRequest {
                    parent: self.account.clone(),
                    principals: self.three.clone(),
                    rights: Some(rights(&[AccountRole::Developer])),
                    request_id: request_id(),
                    ..AddMembersRequest::default()
                })
            }
        }
    }

    /// Makes the call; gives whether it was a repetition.
    async fn call(&self, request: Request) -> Result<bool, Error> {
        let call = |path: &str| Call {
            rule: rules::of_path(path).unwrap(),
            caller: self.who.clone(),
            deadline: tokio::time::Instant::now() + Duration::from_secs(60),
            gone: CancellationToken::new(),
        };
        let app = &self.app;
        match request {
            Request::Get(request) => {
                let call = call("/entente.directory.v1.UserService/GetUser");
                let got = app.read(&call, request, &|rd, proof, req| {
                    Box::pin(user::get_user(rd, proof, req))
                });
                got.await.map(|_| false)
            }
            Request::Create(request) => {
                let call = call("/entente.directory.v1.UserService/CreateUser");
                let made = app.mutate(
                    &call,
                    *request,
                    |_: &Outside, _, _| Box::pin(async { Ok(()) }),
                    |tx, proof, req, ()| {
                        Box::pin(async move {
                            let made = user::create_user(tx, proof.tenant()?, req).await;
                            made.map(Outcome::Done)
                        })
                    },
                );
                made.await.map(|(_, replayed)| replayed)
            }
            Request::Add(request) => {
                let call = call("/entente.account.v1.MemberService/AddMembers");
                let added = app.mutate(
                    &call,
                    request,
                    |_: &Outside, _, _| Box::pin(async { Ok(()) }),
                    |tx, proof, req, ()| {
                        Box::pin(async move {
                            let added = member::add_members(tx, proof, req).await;
                            added.map(Outcome::Done)
                        })
                    },
                );
                added.await.map(|(_, replayed)| replayed)
            }
        }
    }

    /// What a whole call adds.
    pub async fn whole(&mut self, kind: Kind) -> Rows {
        let request = self.next(kind).await;
        let before = Rows::of(&self.app).await;
        self.call(request).await.unwrap();
        let whole = Rows::of(&self.app).await.since(&before);
        assert_eq!(whole.0.is_empty(), kind == Kind::Read, "{whole:?}");
        whole
    }

    /// Holds what is there after a call that broke against what was before, and repeats it: one effect in all.
    async fn nothing_half_done(&self, request: Request, before: &Rows, whole: &Rows, what: &str) {
        idle(&self.app).await;
        let added = Rows::of(&self.app).await.since(before);
        let done = added == *whole;
        assert!(
            done || added.0.is_empty(),
            "{what}: half done: {added:?} of {whole:?}"
        );
        chains_are_intact(&self.app).await;
        let replayed = self.call(request).await;
        let replayed = replayed.unwrap_or_else(|e| panic!("{what}: the repetition: {e}"));
        assert_eq!(replayed, done && !whole.0.is_empty(), "{what}");
        let added = Rows::of(&self.app).await.since(before);
        assert_eq!(added, *whole, "{what}: repeated");
    }
}

/// How many rows each table has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows(BTreeMap<String, i64>);

impl Rows {
    pub async fn of(app: &App) -> Self {
        let selects: Vec<_> = tables(app)
            .await
            .into_iter()
            // The index of words keeps house by itself.
            .filter(|t| !t.starts_with("users_search"))
            .map(|t| format!("SELECT '{t}' AS name, COUNT(*) AS n FROM {t}"))
            .collect();
        let sql = selects.join(" UNION ALL ");
        let statement = Statement::from_string(app.db.backend, sql);
        let rows = app.db.read.query_all_raw(statement).await.unwrap();
        let pair = |row: &sea_orm::QueryResult| {
            let (name, n): (String, i64) = (
                row.try_get("", "name").unwrap(),
                row.try_get("", "n").unwrap(),
            );
            (name, n)
        };
        Self(rows.iter().map(pair).collect())
    }

    /// What came since, table by table.
    pub fn since(&self, before: &Self) -> Self {
        let came = self.0.iter().map(|(t, n)| (t.clone(), n - before.0[t]));
        Self(came.filter(|(_, n)| *n != 0).collect())
    }

    /// So often as much.
    pub fn times(&self, n: i64) -> Self {
        let all = self.0.iter().map(|(table, one)| (table.clone(), one * n));
        Self(all.filter(|(_, n)| *n != 0).collect())
    }
}

/// Waits until nothing is done on any connection any more; none is left in a transaction.
pub async fn idle(app: &App) {
    let begun = Instant::now();
    let patient = || {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "a connection never came to rest"
        );
        tokio::time::sleep(Duration::from_millis(2))
    };
    // What a lane has taken, it finishes, whoever left.
    while app.lanes.present() > 0 {
        patient().await;
    }
    if app.db.backend == DbBackend::Postgres {
        let pool = app.db.write.get_postgres_connection_pool();
        while pool.num_idle() < pool.size() as usize {
            patient().await;
        }
        let sql = "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' \
                   AND pid <> pg_backend_pid() AND state <> 'idle'";
        while count(app, sql).await > 0 {
            patient().await;
        }
        return;
    }
    for pool in [&app.db.write, &app.db.read] {
        let pool = pool.get_sqlite_connection_pool();
        while pool.num_idle() < pool.size() as usize {
            patient().await;
        }
        let mut all = Vec::new();
        while let Some(connection) = pool.try_acquire() {
            all.push(connection);
        }
        for connection in &mut all {
            assert!(!connection.is_in_transaction());
            for sql in ["BEGIN", "ROLLBACK"] {
                sqlx::raw_sql(sql).execute(&mut **connection).await.unwrap();
            }
        }
    }
    // Nobody keeps others from writing.
    execute(app, "UPDATE meta SET value = value WHERE key = 'epoch'")
        .await
        .unwrap();
}

/// When a future is dropped.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// While what it waits for is being done.
    Wait,
    /// When that is done, and before it hears of it.
    Wake,
}

/// Polls a future so often, then drops it; its answer, if it came before, and how often it was polled.
pub async fn dropped_after<T>(
    polls: usize,
    at: At,
    future: impl Future<Output = T>,
) -> (Option<T>, usize) {
    let mut future = pin!(future);
    let mut done = 0;
    let answer = std::future::poll_fn(|context| {
        if done == polls {
            return Poll::Ready(None);
        }
        done += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if done == polls && matches!(at, At::Wait) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    (answer.await, done)
}

// proves COM-13, COM-4
#[tokio::test]
async fn call_dropped_at_any_poll_leaves_nothing_half_done() {
    both(async |mut site| {
        let mut stage = Stage::of(&mut site).await;
        // In a lane, the transaction isn't the caller's (`lanes.rs`).
        stage.app.lanes.keep_apart();
        for kind in KINDS {
            let whole = stage.whole(kind).await;
            // What is answered at once takes no poll of its own, so their number differs from time to time.
            let mut most = 0;
            for _ in 0..10 {
                let call = stage.next(kind).await;
                let (answer, polls) = dropped_after(usize::MAX, At::Wake, stage.call(call)).await;
                answer.unwrap().unwrap();
                most = most.max(polls);
            }
            for at in [At::Wait, At::Wake] {
                let mut dropped = 0;
                for polls in 0..=most {
                    let request = stage.next(kind).await;
                    let before = Rows::of(&stage.app).await;
                    let call = stage.call(request.clone());
                    let (answer, _) = dropped_after(polls, at, call).await;
                    let what = format!("{kind:?} dropped after {polls} polls, at {at:?}");
                    match answer {
                        Some(answer) => assert!(!answer.unwrap(), "{what}"),
                        None => dropped += 1,
                    }
                    stage
                        .nothing_half_done(request, &before, &whole, &what)
                        .await;
                }
                // A read asks for four facts, and any of them may be there at once.
                let least = if kind == Kind::Read { 1 } else { 3 };
                assert!(dropped >= least, "{kind:?}: dropped {dropped} times");
            }
        }
    })
    .await;
}

/// What a call whose database failed may say.
#[track_caller]
pub fn told_to_try_again(error: &Error, what: &str) {
    let told = (error.code(), error.reason());
    let clear = told == (tonic::Code::Unavailable, Reason::DatabaseUnavailable)
        || told == (tonic::Code::Aborted, Reason::Conflict);
    assert!(clear, "{what}: {error}");
}

/// Interrupts what SQLite does on any connection, once, after so many whole statements and so many steps of its machine.
pub async fn interrupt(site: &Site, statements: u64, steps: i64) -> Arc<AtomicI64> {
    let left = Arc::new(AtomicI64::new(steps));
    let from = site.statements.clone();
    let armed = from.all() + statements;
    for pool in [&site.app.db.write, &site.app.db.read] {
        let pool = pool.get_sqlite_connection_pool();
        let mut all = Vec::new();
        for _ in 0..pool.options().get_max_connections() {
            all.push(pool.acquire().await.unwrap());
        }
        for connection in &mut all {
            let (left, from) = (left.clone(), from.clone());
            let mut handle = connection.lock_handle().await.unwrap();
            handle.set_progress_handler(1, move || {
                from.all() < armed || left.fetch_sub(1, Ordering::SeqCst) != 0
            });
        }
    }
    left
}

// proves COM-4, COM-13
#[tokio::test]
async fn statement_that_fails_on_sqlite_leaves_nothing_half_done() {
    let mut site = Site::open(Database::Sqlite).await;
    let mut stage = Stage::of(&mut site).await;
    for kind in KINDS {
        let whole = stage.whole(kind).await;
        // At its first step a statement has done nothing; a BEGIN has fewer steps than any other. The last one of a call that writes is
        // several in one.
        let steps: &[i64] = match kind {
            Kind::Read => &[0, 8, 40],
            _ => &[0, 8, 40, 120, 300],
        };
        for steps in steps.iter().copied() {
            let mut failed = 0;
            for statements in 0.. {
                let request = stage.next(kind).await;
                let before = Rows::of(&stage.app).await;
                let left = interrupt(&site, statements, steps).await;
                let answer = stage.call(request.clone()).await;
                let reached = left.swap(i64::MAX, Ordering::SeqCst) < 0;
                let what =
                    format!("{kind:?} interrupted after {statements} statements and {steps} steps");
                match &answer {
                    Err(error) => {
                        failed += 1;
                        told_to_try_again(error, &what);
                    }
                    Ok(replayed) => assert!(!replayed, "{what}"),
                }
                stage
                    .nothing_half_done(request, &before, &whole, &what)
                    .await;
                if !reached {
                    let least = match (kind, steps) {
                        (Kind::Read, _) => 3,
                        (_, ..=40) => 5,
                        _ => 0,
                    };
                    assert!(failed > least, "{what}: only {failed} failed");
                    break;
                }
            }
        }
    }
}

// proves COM-4
#[tokio::test]
async fn full_disk_is_told_and_over_when_there_is_room() {
    let mut site = Site::open(Database::Sqlite).await;
    let mut stage = Stage::of(&mut site).await;
    let whole = stage.whole(Kind::Create).await;
    let pages = async |bound: i64| {
        let pool = site.app.db.write.get_sqlite_connection_pool();
        let mut writer = pool.acquire().await.unwrap();
        let sql = format!("PRAGMA max_page_count = {bound}");
        let sql = sqlx::AssertSqlSafe(sql);
        sqlx::raw_sql(sql).execute(&mut *writer).await.unwrap();
    };
    let mut failed = 0;
    for n in 0..200 {
        // What is there is the bound: whatever needs a further page fails.
        pages(1).await;
        let request = stage.next(Kind::Create).await;
        let before = Rows::of(&stage.app).await;
        let answer = stage.call(request.clone()).await;
        pages(1_000_000).await;
        if let Err(error) = answer {
            failed += 1;
            told_to_try_again(&error, "the disk is full");
        }
        let what = format!("call {n} on a full disk");
        stage
            .nothing_half_done(request, &before, &whole, &what)
            .await;
        if failed == 20 {
            return;
        }
    }
    panic!("only {failed} calls needed room");
}

/// Which side of the message it is that isn't carried any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never gets it.
    Before,
    /// The server gets it, and its answer is lost.
    After,
}

/// Stands between this process and PostgreSQL, and cuts the connection that sends the message it counts down to.
pub struct Cutter {
    port: u16,
    left: Arc<AtomicI64>,
    cut: Arc<Mutex<Cut>>,
}

impl Cutter {
    async fn open(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let cut = Arc::new(Mutex::new(Cut::Before));
        let (counted, how) = (left.clone(), cut.clone());
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    return;
                };
                let (left, how) = (counted.clone(), how.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
                        return;
                    };
                    client.set_nodelay(true).ok();
                    server.set_nodelay(true).ok();
                    carry(client, server, &left, &how).await;
                });
            }
        });
        Self { port, left, cut }
    }

    /// Cuts at the n-th message from now.
    pub fn arm(&self, n: i64, cut: Cut) {
        *self.cut.lock().unwrap() = cut;
        self.left.store(n, Ordering::SeqCst);
    }

    /// Cuts no more; whether it has.
    pub fn disarm(&self) -> bool {
        self.left.swap(i64::MAX, Ordering::SeqCst) <= 0
    }
}

/// Carries bytes both ways until one side ends or the count is down.
async fn carry(client: TcpStream, server: TcpStream, left: &AtomicI64, cut: &Mutex<Cut>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = tokio::io::copy(&mut from_server, &mut to_client);
    let requests = async {
        let mut buffer = vec![0; 65_536];
        loop {
            let n = match from_client.read(&mut buffer).await {
                Ok(n) if n > 0 => n,
                _ => return None,
            };
            let last = left.fetch_sub(1, Ordering::SeqCst) == 1;
            if last && *cut.lock().unwrap() == Cut::Before {
                return None;
            }
            if to_server.write_all(&buffer[..n]).await.is_err() {
                return None;
            }
            if last {
                return Some(to_server);
            }
        }
    };
    let cut = tokio::select! {
        _ = answers => None,
        to_server = requests => to_server,
    };
    // The client is told at once that it is alone; the server does what it was sent first.
    drop((from_client, to_client));
    if let Some(mut to_server) = cut {
        to_server.shutdown().await.ok();
        tokio::io::copy(&mut from_server, &mut tokio::io::sink())
            .await
            .ok();
    }
}

// proves COM-4, COM-13
#[tokio::test]
async fn connection_cut_at_any_message_leaves_nothing_half_done() {
    let mut site = Site::open(Database::Postgres).await;
    let mut stage = Stage::of(&mut site).await;
    let (cutter, _folder) = stage.through_a_cutter(&site).await;
    let mut found_done = 0;
    for kind in KINDS {
        let whole = stage.whole(kind).await;
        for cut in [Cut::Before, Cut::After] {
            let (mut failed, mut whole_in_a_row) = (0, 0);
            for n in 1.. {
                let request = stage.next(kind).await;
                let before = Rows::of(&stage.app).await;
                idle(&stage.app).await;
                cutter.arm(n, cut);
                let answer = stage.call(request.clone()).await;
                let reached = cutter.disarm();
                let what = format!("{kind:?} cut {cut:?} message {n}");
                match &answer {
                    Err(error) => {
                        failed += 1;
                        told_to_try_again(error, &what);
                    }
                    // A commit whose answer was lost is found to be done.
                    Ok(replayed) => {
                        assert!(!replayed, "{what}");
                        found_done += i32::from(reached && kind != Kind::Read);
                    }
                }
                stage
                    .nothing_half_done(request, &before, &whole, &what)
                    .await;
                whole_in_a_row = if reached { 0 } else { whole_in_a_row + 1 };
                if whole_in_a_row == 2 {
                    break;
                }
            }
            let least = if kind == Kind::Read { 3 } else { 7 };
            assert!(failed > least, "{kind:?}: only {failed} were cut");
        }
    }
    assert!(found_done > 0, "no commit's answer was ever lost");
}
