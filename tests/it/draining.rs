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
    documents::{files, first},
    harness::{Held, empty_postgres_database, new_user, refused, wait_for_locks},
    people::{People as _, eventually},
    processes::{Setting, get, home},
};

const NOT_SERVING: i32 = 2;
/// Long enough for all that is done in time, also on a busy machine.
const BOUND: Duration = Duration::from_secs(10);

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
        while events.message().await.unwrap().unwrap().events.is_empty() {}
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
        eventually(async || files(&setting.data().join("blobs")) == 1).await;
        // On PostgreSQL, a call that waits for a lock, and gets it in time.
        let waiting = match url {
            None => None,
            Some(url) => {
                let held = Held::heads(&url).await;
                let (caller, request) = (admin.clone(), new_user(&tenant, "bob"));
                let call = async move { caller.users().create_user(request).await };
                let waiting = tokio::spawn(call);
                wait_for_locks(&url, 1).await;
                Some((held, waiting))
            }
        };

        // All of it has come to the server by now.
        let begun = Instant::now();
        server.signal("-TERM");
        while watched.message().await.unwrap().unwrap().status != NOT_SERVING {}
        if let Some((held, waiting)) = waiting {
            assert!(!waiting.is_finished());
            held.release().await;
            waiting.await.unwrap().unwrap();
        }
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
        assert_eq!(server.ended().await, Some(0), "{}", setting.log());
        let took = begun.elapsed();
        assert!(took > BOUND - Duration::from_millis(500), "{took:?}");
        assert!(took < BOUND + Duration::from_secs(15), "{took:?}");
        assert!(upload.await.unwrap().is_err());
        drop((messages, events, watched));
        // Nobody is half served, and the next one begins where this one ended.
        assert_eq!(setting.run(&["verify-audit"]).status.code(), Some(0));
        drop(setting.serve(&[]).await);
    }
}
