//! The database goes away under the real program and comes back: health says so for each service, calls are told to try again, and all
//! comes back by itself, as new as the database is then.

use std::time::{Duration, Instant};

use entente::proto::{
    POOL,
    directory::{CreateUserRequest, GetUserRequest},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::{
    claims::replayed,
    harness::{
        ADMINISTRATOR, Caller, PASSWORD, empty_postgres_database, new_user, postgres, psql,
        refused, request_id,
    },
    people::People as _,
    processes::{Server, Setting, get, home, person, sign_in_as},
};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
/// Health asks every 2 seconds, and waits as long for the answer.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// What the line between a server and what it needs carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Connections are broken, and new ones too.
    Cut,
    /// Nothing gets through, and nobody is told.
    Silent,
}

/// Stands between a server and what it needs: PostgreSQL, or a store of documents.
pub struct Between {
    pub port: u16,
    line: watch::Sender<Line>,
}

impl Between {
    pub async fn open(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (line, state) = watch::channel(Line::Open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to, state.clone()));
            }
        });
        Self { port, line }
    }

    /// The URL of a database by this line.
    fn url(&self, url: &str) -> String {
        let direct = format!(":{}/", postgres().port);
        assert!(url.contains(&direct));
        url.replace(&direct, &format!(":{}/", self.port))
    }

    pub fn becomes(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn carry(client: TcpStream, to: u16, mut line: watch::Receiver<Line>) {
    if *line.borrow() == Line::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (there, back) = (line.clone(), line.clone());
    let is_cut = async { line.wait_for(|l| *l == Line::Cut).await.is_ok() };
    tokio::select! {
        () = pass(from_client, to_server, there) => {}
        () = pass(from_server, to_client, back) => {}
        _ = is_cut => {}
    }
}

/// Carries bytes one way until one side ends; what comes while nothing gets through waits, as TCP keeps it.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(n) if n > 0 => n,
            _ => return,
        };
        let ended = line.wait_for(|l| *l != Line::Silent).await.is_err();
        if ended || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// All services of ours, and the empty name that stands for the server.
fn services() -> Vec<String> {
    let names = POOL.services().map(|s| s.full_name().to_owned());
    let own = names.filter(|n| n.starts_with("entente."));
    let all: Vec<_> = std::iter::once(String::new()).chain(own).collect();
    assert!(all.len() > 10);
    all
}

/// Waits until health says so of each service, and the port of operations too; the process lives all the time.
async fn all_become(server: &Server, setting: &Setting, status: i32) {
    let begun = Instant::now();
    let mut health = HealthClient::new(server.nobody().channel);
    for service in services() {
        loop {
            let request = HealthCheckRequest {
                service: service.clone(),
            };
            let told = health.check(request).await.unwrap().into_inner().status;
            if told == status {
                break;
            }
            let late = begun.elapsed() > TOLD_WITHIN;
            assert!(!late, "{service:?} is {told}: {}", setting.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let ready = if status == SERVING { 200 } else { 503 };
    assert_eq!(get(server.ops, "/readyz").unwrap().0, ready);
    assert_eq!(get(server.ops, "/livez").unwrap().0, 200);
}

/// Refused for want of the database, with a word on when to try again; where nobody is told, the call's time may have run out first.
#[track_caller]
fn is_lost<T: std::fmt::Debug>(answer: Result<T, Status>, lost: Line) {
    let status = answer.unwrap_err();
    let reason = status.get_details_error_info().map(|i| i.reason);
    let told = (status.code(), reason.as_deref());
    if lost == Line::Silent && told == (Code::DeadlineExceeded, Some("DEADLINE_PASSED")) {
        return;
    }
    assert_eq!(
        told,
        (Code::Unavailable, Some("DATABASE_UNAVAILABLE")),
        "{status:?}"
    );
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
}

async fn lost_and_found(lost: Line) {
    let url = empty_postgres_database(&format!("outage_{lost:?}").to_lowercase());
    let between = Between::open(postgres().port).await;
    let setting = Setting::new(Some(between.url(&url)));
    let server = setting.serve(&[]).await;
    let admin = setting.administrator(&server).await;
    let tenant = home(&admin).await;
    let (bob, bobs) = person(&server, &admin, &tenant, "bob").await;
    bobs.who_am_i().await.unwrap();
    // Another replica, which sees the database all the time.
    let near = Setting::new(Some(url.clone()));
    let replica = near.serve(&[]).await;
    let elsewhere = Caller {
        channel: replica.nobody().channel,
        ..admin.clone()
    };

    all_become(&server, &setting, SERVING).await;
    let mut health = HealthClient::new(server.nobody().channel);
    let service = "entente.directory.v1.UserService".to_owned();
    let watched = health.watch(HealthCheckRequest { service }).await;
    let mut watched = watched.unwrap().into_inner();
    let mut events = {
        let request = crate::events::watch(&tenant, "");
        crate::events::open(&admin, request).await.unwrap()
    };
    while events.message().await.unwrap().unwrap().events.is_empty() {}

    between.becomes(lost);
    all_become(&server, &setting, NOT_SERVING).await;
    let new = CreateUserRequest {
        request_id: request_id(),
        ..new_user(&tenant, "carol")
    };
    // Of each kind one: a read, a write, a sign-in, a proof that memory alone could make, and a stream that is open.
    let mut users = [admin.users(), admin.users()];
    let [reads, writes] = &mut users;
    let stream = async {
        loop {
            match events.message().await {
                Ok(message) => assert!(message.is_some(), "the stream ended without a word"),
                Err(status) => return status,
            }
        }
    };
    let (read, written, signed_in, known, streamed) = tokio::join!(
        reads.get_user(GetUserRequest { name: bob.clone() }),
        writes.create_user(new.clone()),
        sign_in_as(&server, ADMINISTRATOR, PASSWORD),
        bobs.who_am_i(),
        stream,
    );
    is_lost(read, lost);
    is_lost(written, lost);
    is_lost(signed_in.map(|c| c.token), lost);
    is_lost(known, lost);
    is_lost(Err::<(), _>(streamed), lost);
    // Meanwhile the world goes on.
    elsewhere.disable(&bob).await.unwrap();

    between.becomes(Line::Open);
    all_become(&server, &setting, SERVING).await;
    // Nothing from before is believed.
    refused(
        bobs.who_am_i().await,
        Code::Unauthenticated,
        "TOKEN_INVALID",
    );
    admin.user(&bob).await.unwrap();
    let first = admin.users().create_user(new.clone()).await.unwrap();
    let again = admin.users().create_user(new).await.unwrap();
    assert!(replayed(&again));
    assert_eq!(first.into_inner().user, again.into_inner().user);
    let carols = "SELECT count(*) FROM users WHERE user_name = 'carol'";
    assert_eq!(psql(&url, carols), "1");
    let created =
        "SELECT count(*) FROM outbox WHERE is_first AND type = 'entente.directory.v1.UserCreated'";
    assert_eq!(psql(&url, created), "3");
    sign_in_as(&server, ADMINISTRATOR, PASSWORD).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        let next = tokio::time::timeout(TOLD_WITHIN, watched.message()).await;
        told.push(next.unwrap().unwrap().unwrap().status);
    }
    assert_eq!(told, [SERVING, NOT_SERVING, SERVING]);
    let lines = setting.log().lines().count();
    assert!(lines < 500, "{lines} lines were logged");
    assert_eq!(near.run(&["verify-audit"]).status.code(), Some(0));
}

// proves COM-3, COM-4, ROL-10
#[tokio::test(flavor = "multi_thread")]
async fn database_that_breaks_off_is_told_of_and_all_comes_back_by_itself() {
    lost_and_found(Line::Cut).await;
}

// proves COM-3, COM-4, ROL-10
#[tokio::test(flavor = "multi_thread")]
async fn database_that_falls_silent_is_told_of_and_all_comes_back_by_itself() {
    lost_and_found(Line::Silent).await;
}
