//! A server that is told to stop: who is inside is served to the end, nobody new is let in, and what doesn't end holds it no longer than its
//! bound (COM-13). That calls in flight are finished on both databases is in `processes.rs` too.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    documents::first,
    harness::{empty_postgres_database, new_user, psql, refused},
    people::{People as _, eventually},
    processes::{Setting, get, home},
};

const NOT_SERVING: i32 = 2;
const BOUND: Duration = Duration::from_secs(3);

// proves COM-13
#[tokio::test(flavor = "multi_thread")]
async fn call_that_never_ends_holds_a_stopping_server_no_longer_than_its_bound() {
    for url in [None, Some(empty_postgres_database("drain_bound"))] {
        let bound = ("ENTENTE_DRAIN_TIMEOUT_S", BOUND.as_secs().to_string());
        let setting = Setting::new(url.clone()).with(vec![bound]);
        let mut server = setting.serve(&[]).await;
        let admin = setting.administrator(&server).await;
        let tenant = home(&admin).await;
        let me = admin.who_am_i().await.unwrap().principal;

        let mut health = HealthClient::new(server.nobody().channel);
        let watched = health.watch(HealthCheckRequest::default()).await;
        let mut watched = watched.unwrap().into_inner();
        assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
        let mut events = {
            let request = crate::events::watch(&tenant, "");
            crate::events::open(&admin, request).await.unwrap()
        };
        // An upload of which nothing comes after the first message: it would be waited for for half a minute.
        let (messages, receiver) = mpsc::channel(1);
        messages.send(first(&me, "a.png")).await.unwrap();
        let uploader = admin.clone();
        let upload = tokio::spawn(async move {
            let mut verification = uploader.verification();
            verification
                .upload_document(ReceiverStream::new(receiver))
                .await
        });
        // On PostgreSQL, a call that waits for a lock, and gets it in time.
        let (held, waiting) = match url {
            None => (None, None),
            Some(url) => {
                let held = tokio::task::spawn_blocking(move || {
                    let sql = "BEGIN; SELECT 1 FROM heads FOR UPDATE; SELECT pg_sleep(2); COMMIT";
                    psql(&url, sql);
                });
                tokio::time::sleep(Duration::from_millis(300)).await;
                let (caller, request) = (admin.clone(), new_user(&tenant, "bob"));
                let call = async move { caller.users().create_user(request).await };
                (Some(held), Some(tokio::spawn(call)))
            }
        };
        // All of it has come to the server.
        tokio::time::sleep(Duration::from_millis(500)).await;

        let begun = Instant::now();
        server.signal("-TERM");
        while watched.message().await.unwrap().unwrap().status != NOT_SERVING {}
        let told = get(server.ops, "/readyz").map(|(status, _)| status);
        assert_eq!(told, Some(503));
        eventually(async || TcpStream::connect(("127.0.0.1", server.grpc)).is_err()).await;
        let ended = loop {
            match events.message().await {
                Ok(message) => assert!(message.is_some(), "the stream ended without a word"),
                Err(status) => break status,
            }
        };
        refused(Err::<(), _>(ended), Code::Unavailable, "SHUTTING_DOWN");
        assert!(begun.elapsed() < BOUND, "all that was in time");
        if let (Some(held), Some(waiting)) = (held, waiting) {
            waiting.await.unwrap().unwrap();
            held.await.unwrap();
        }
        assert_eq!(server.ended().await, Some(0), "{}", setting.log());
        let took = begun.elapsed();
        assert!(took > BOUND - Duration::from_millis(500), "{took:?}");
        assert!(took < BOUND + Duration::from_secs(5), "{took:?}");
        assert!(upload.await.unwrap().is_err());
        drop((messages, events, watched));
        // Nobody is half served, and the next one begins where this one ended.
        assert_eq!(setting.run(&["verify-audit"]).status.code(), Some(0));
        drop(setting.serve(&[]).await);
    }
}
