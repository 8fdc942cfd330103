//! Nothing is half done when a deadline passes or a caller leaves (COM-4, COM-13). What breaks within a call: `half_done.rs`.

use std::{net::SocketAddr, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use entente::{
    app::App,
    proto::{
        access::AccountRole,
        account::AddMembersRequest,
        directory::{CreateUserRequest, GetUserRequest},
    },
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::{
    claims::{chains_are_intact, count, replayed},
    half_done::idle,
    harness::{
        Caller, Database, Held, Person, Site, TenantSite, both, new_user, refused, request_id,
        rights,
    },
    people::People as _,
};

const CREATE_USER: &str = "entente.directory.v1.UserService/CreateUser";
const GET_USER: &str = "entente.directory.v1.UserService/GetUser";
const ADD_MEMBERS: &str = "entente.account.v1.MemberService/AddMembers";

/// A connection that keeps no time of its own, so that every answer is the server's.
struct Raw {
    sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    token: String,
}

impl Raw {
    async fn open(address: SocketAddr, caller: &Caller) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(socket))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self {
            sender,
            token: caller.token.clone().unwrap(),
        }
    }

    /// Calls a method with a deadline.
    async fn call<R: Message>(
        &self,
        method: &str,
        request: &R,
        timeout: Duration,
    ) -> Result<(), Status> {
        let message = request.encode_to_vec();
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.put_slice(&message);
        let request = http::Request::post(format!("http://localhost/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.token))
            .header("grpc-timeout", format!("{}u", timeout.as_micros()))
            .body(Full::new(body.freeze()))
            .unwrap();
        let response = self.sender.clone().send_request(request).await.unwrap();
        let (head, body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            return Err(status);
        }
        let trailers = body.collect().await.unwrap().trailers().cloned();
        let status = Status::from_header_map(&trailers.unwrap()).unwrap();
        match status.code() {
            Code::Ok => Ok(()),
            _ => Err(status),
        }
    }
}

/// A tenant with an account, and five people that are to become members, remade for each try.
struct Place {
    contoso: TenantSite,
    account: String,
}

impl Place {
    async fn of(site: &Site) -> Self {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        Self { contoso, account }
    }

    fn user(&self, n: usize) -> CreateUserRequest {
        CreateUserRequest {
            request_id: request_id(),
            ..new_user(&self.contoso.name, &format!("user{n}"))
        }
    }

    async fn five(&self, n: usize) -> AddMembersRequest {
        let mut principals = Vec::new();
        for i in 0..5 {
            let request = new_user(&self.contoso.name, &format!("five{n}x{i}"));
            let made = self.contoso.admin.caller.users().create_user(request).await;
            principals.push(made.unwrap().into_inner().user.unwrap().name);
        }
        AddMembersRequest {
            parent: self.account.clone(),
            principals,
            rights: Some(rights(&[AccountRole::Developer])),
            request_id: request_id(),
            ..AddMembersRequest::default()
        }
    }
}

/// What an effect consists of, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Effects {
    users: i64,
    credentials: i64,
    created: i64,
    audited: i64,
    claims: i64,
    members: i64,
    added: i64,
}

impl Effects {
    async fn of(app: &App) -> Self {
        let of = async |sql: &str| count(app, &format!("SELECT COUNT(*) AS n FROM {sql}")).await;
        let mutations = "method IN ('entente.directory.v1.UserService/CreateUser', 'entente.account.v1.MemberService/AddMembers')";
        Self {
            users: of("users").await,
            credentials: of("credentials").await,
            created: of("outbox WHERE is_first AND type = 'entente.directory.v1.UserCreated'").await,
            audited: of(
                "(SELECT DISTINCT event_id FROM audit_events WHERE outcome = 'OK' AND action IN \
                 ('entente.directory.v1.UserService/CreateUser', 'entente.account.v1.MemberService/AddMembers')) e",
            )
            .await,
            claims: of(&format!("claims WHERE {mutations}")).await,
            members: of("grants WHERE scope_kind = 2").await,
            added: of("outbox WHERE is_first AND type = 'entente.account.v1.MemberAdded'").await,
        }
    }

    /// What was done since, whole: one of each for each user and batch.
    fn whole_since(self, before: Self, what: &str) {
        let users = self.users - before.users;
        let members = self.members - before.members;
        assert_eq!(members % 5, 0, "{what}: a batch is whole or not at all");
        assert_eq!(self.credentials - before.credentials, users, "{what}");
        assert_eq!(self.created - before.created, users, "{what}");
        assert_eq!(self.added - before.added, members, "{what}");
        let mutations = self.audited - before.audited;
        assert!(mutations >= users, "{what}");
        assert_eq!(mutations, users + members / 5, "{what}");
    }
}

/// Deadlines that grow until the call is in time; gives how many were too short.
async fn growing<R: Message>(raw: &Raw, method: &str, next: impl AsyncFn(usize) -> R) -> usize {
    let mut kept = None;
    for n in 0..400 {
        let request = match kept.take() {
            // Nothing was done for a request that is late, unless its commit had begun: sent again as it is, it has one effect either way.
            Some(request) => request,
            None => next(n).await,
        };
        let timeout = Duration::from_micros(200) * u32::try_from(n * n / 8 + n).unwrap();
        match raw.call(method, &request, timeout).await {
            Ok(()) => return n,
            Err(status) => {
                refused::<()>(Err(status), Code::DeadlineExceeded, "DEADLINE_PASSED");
            }
        }
        kept = Some(request);
    }
    panic!("{method} is never in time");
}

/// Waits until no call of somebody's that was left alone is still working.
async fn calm(site: &Site, who: &Person) {
    // It comes after all that was sent over the same connection, so the server knows by now who has left.
    who.caller.who_am_i().await.unwrap();
    idle(&site.app).await;
    site.settle().await;
}

// proves COM-13
#[tokio::test]
async fn call_that_is_late_is_rolled_back_wherever_it_was() {
    both(async |site| {
        let place = Place::of(&site).await;
        let raw = Raw::open(site.address, &place.contoso.admin.caller).await;
        let before = Effects::of(&site.app).await;
        let get = async |_| GetUserRequest {
            name: place.contoso.admin.name.clone(),
        };
        // A read may be faster than a timer's tick.
        growing(&raw, GET_USER, get).await;
        let late = growing(&raw, CREATE_USER, async |n| place.user(n)).await;
        assert!(late > 2, "no call was ever late within its work");
        let late = growing(&raw, ADD_MEMBERS, async |n| place.five(n).await).await;
        assert!(late > 2, "no call was ever late within its work");
        calm(&site, &place.contoso.admin).await;
        let after = Effects::of(&site.app).await;
        after.whole_since(before, "after deadlines");
        assert!(after.users > before.users && after.members == before.members + 5);
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves COM-4, COM-13
#[tokio::test]
async fn caller_that_leaves_finds_one_effect_under_its_request_id() {
    both(async |site| {
        let place = Place::of(&site).await;
        let users = || place.contoso.admin.caller.users();
        let before = Effects::of(&site.app).await;
        let mut left = Vec::new();
        for n in 0..40_usize {
            let request = place.user(n);
            // Pauses between nothing and more than a whole call.
            let pause = Duration::from_micros(u64::try_from(n * n * 37 % 40_009).unwrap());
            let mut users = users();
            let answer = tokio::time::timeout(pause, users.create_user(request.clone())).await;
            if let Ok(answer) = answer {
                answer.unwrap();
            }
            left.push(request);
        }
        calm(&site, &place.contoso.admin).await;
        let between = Effects::of(&site.app).await;
        between.whole_since(before, "after leaving");
        assert_eq!(between.claims - before.claims, between.users - before.users);
        let mut found = 0;
        for request in &left {
            let again = users().create_user(request.clone()).await.unwrap();
            found += i64::from(replayed(&again));
        }
        assert_eq!(found, between.users - before.users);
        let after = Effects::of(&site.app).await;
        after.whole_since(before, "after asking again");
        assert_eq!(after.users - before.users, 40);

        // A batch, and a read that changes nothing.
        let batch = place.five(0).await;
        let members = || place.contoso.admin.caller.members();
        for pause in [1, 4, 8, 12, 16, 24, 32] {
            let (mut members, pause) = (members(), Duration::from_millis(pause));
            let call = members.add_members(batch.clone());
            if let Ok(answer) = tokio::time::timeout(pause, call).await {
                answer.unwrap();
            }
        }
        members().add_members(batch).await.unwrap();
        calm(&site, &place.contoso.admin).await;
        let last = Effects::of(&site.app).await;
        assert_eq!(last.members - after.members, 5);
        last.whole_since(before, "after a batch");
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves COM-13
#[tokio::test]
async fn waiting_for_a_lock_ends_at_the_deadline() {
    let site = Site::open(Database::Postgres).await;
    let place = Place::of(&site).await;
    let raw = Raw::open(site.address, &place.contoso.admin.caller).await;
    let before = Effects::of(&site.app).await;
    // Somebody holds the tenant's head for longer than the caller wants to wait.
    let held = Held::heads(site.url.as_ref().unwrap()).await;
    let request = place.user(0);
    let late = raw.call(CREATE_USER, &request, Duration::from_millis(300));
    // It is answered while the lock is held, and before the database itself gives up, after 10 seconds.
    let late = tokio::time::timeout(Duration::from_secs(8), late).await;
    refused(late.unwrap(), Code::DeadlineExceeded, "DEADLINE_PASSED");
    held.release().await;
    calm(&site, &place.contoso.admin).await;
    assert_eq!(Effects::of(&site.app).await, before);
    // The lock that the late call waited for is free again.
    let made = place
        .contoso
        .admin
        .caller
        .users()
        .create_user(request)
        .await;
    assert!(!replayed(&made.unwrap()));
}

// proves COM-13
#[tokio::test]
async fn connections_are_free_again_after_many_left() {
    both(async |site| {
        let place = Place::of(&site).await;
        let ann: &Person = &place.contoso.admin;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..150_u64 {
            let (ann, request) = (ann.clone(), place.user(usize::try_from(n).unwrap()));
            tasks.spawn(async move {
                let pause = Duration::from_micros(n * 197);
                let mut users = ann.caller.users();
                tokio::time::timeout(pause, users.create_user(request))
                    .await
                    .ok();
            });
        }
        tasks.join_all().await;
        calm(&site, &place.contoso.admin).await;
        let name = ann.name.clone();
        ann.caller
            .users()
            .get_user(GetUserRequest { name })
            .await
            .unwrap();
        let request = place.user(1_000);
        ann.caller.users().create_user(request).await.unwrap();
        chains_are_intact(&site.app).await;
    })
    .await;
}
