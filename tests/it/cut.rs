//! Streams of clients that are cut in the middle of a message: what came whole counts, of the rest nothing is left, and the client goes on
//! where it was.

use std::{io, net, sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, body::Body};

use entente::proto::account::UploadDocumentRequest;

use crate::{
    claims::{chains_are_intact, row_counts},
    documents::{first, png, stored, upload},
    half_done::idle,
    harness::{Caller, Site, both, refused, request_id},
    people::eventually,
    synchronization::{Agent, group, members, name_of, state, sync, user},
};

const SYNC_DIRECTORY: &str = "/entente.directory.v1.TenantService/SyncDirectory";
const UPLOAD_DOCUMENT: &str = "/entente.account.v1.VerificationService/UploadDocument";

/// How a stream ends before it should.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The client says that this is all.
    Ended,
    /// The client takes the call back.
    Reset,
    /// The connection breaks.
    Broken,
}

const CUTS: [Cut; 3] = [Cut::Ended, Cut::Reset, Cut::Broken];

/// A client's stream, sent as bytes, on a connection of its own.
struct Stream {
    bytes: mpsc::Sender<Result<Frame<Bytes>, io::Error>>,
    socket: net::TcpStream,
    answer: JoinHandle<Option<Status>>,
}

impl Stream {
    async fn open(site: &Site, caller: &Caller, path: &str) -> Self {
        let connected = TcpStream::connect(site.address).await.unwrap();
        let connected = connected.into_std().unwrap();
        let socket = connected.try_clone().unwrap();
        let connected = TcpStream::from_std(connected).unwrap();
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(TokioIo::new(connected)).await.unwrap();
        tokio::spawn(connection);
        let (bytes, receiver) = mpsc::channel(1);
        let token = caller.token.as_deref().unwrap();
        let request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::new(StreamBody::new(ReceiverStream::new(receiver))))
            .unwrap();
        let answer = tokio::spawn(async move {
            let (head, body) = sender.send_request(request).await.ok()?.into_parts();
            if let Some(status) = Status::from_header_map(&head.headers) {
                return Some(status);
            }
            let whole = body.collect().await.ok()?;
            Status::from_header_map(whole.trailers()?)
        });
        Self {
            bytes,
            socket,
            answer,
        }
    }

    async fn send(&self, bytes: Vec<u8>) {
        let frame = Frame::data(Bytes::from(bytes));
        self.bytes.send(Ok(frame)).await.unwrap();
    }

    /// Sends the first half of a message, and no more.
    async fn cut(self, site: &Site, message: &impl Message, cut: Cut) {
        let mut bytes = frame(message);
        bytes.truncate(bytes.len() / 2);
        self.send(bytes).await;
        // It is there before the end is.
        tokio::time::sleep(Duration::from_millis(100)).await;
        match cut {
            Cut::Ended => {
                drop(self.bytes);
                let told = self.answer.await.unwrap().expect("an answer comes");
                refused(
                    Err::<(), _>(told),
                    Code::InvalidArgument,
                    "MALFORMED_MESSAGE",
                );
            }
            Cut::Reset => {
                self.bytes.send(Err(io::Error::other("away"))).await.ok();
                self.answer.await.unwrap();
            }
            Cut::Broken => self.socket.shutdown(net::Shutdown::Both).unwrap(),
        }
        // Whatever the server makes of it, it has made, once nobody has a place among streams: each holds what counts them.
        let nobodys = 2;
        eventually(async || {
            let mut all = site.app.streams.iter();
            all.all(|(_, places)| Arc::strong_count(&places) == nobodys)
        })
        .await;
        idle(&site.app).await;
    }
}

/// A message as gRPC sends it.
fn frame(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.extend(message);
    frame
}

// proves TEN-5, COM-4, COM-9
#[tokio::test]
async fn directory_stream_that_is_cut_keeps_its_whole_messages_and_goes_on() {
    both(async |site| {
        for (n, cut) in CUTS.into_iter().enumerate() {
            println!("{cut:?}");
            let tenant = site.tenant(&format!("contoso{n}")).await;
            let mut agent = Agent::of(&site, &tenant).await;
            let whole = agent.message(vec![user("u/a"), group("g/1", &["u/a"])]);
            let half = agent.message(vec![user("u/b"), group("g/1", &["u/b"])]);
            let last = async || {
                let told = state(&agent.caller, &agent.tenant).await.unwrap();
                told.synchronization.unwrap().last_sequence
            };
            let stream = Stream::open(&site, &agent.caller, SYNC_DIRECTORY).await;
            stream.send(frame(&whole)).await;
            eventually(async || last().await == 1).await;
            site.settle().await;
            let before = row_counts(&site.app).await;
            stream.cut(&site, &half, cut).await;

            assert_eq!(row_counts(&site.app).await, before);
            assert_eq!(last().await, 1);
            assert_eq!(name_of(&site, &tenant.name, "users", "u/b").await, None);
            assert_eq!(members(&site, &tenant.name, "g/1").await, ["a"]);
            // The client asks how far it came, and goes on under the same run; from the beginning it may too.
            let answer = sync(&agent.caller, vec![half.clone()]).await.unwrap();
            assert_eq!(answer.synchronization.unwrap().last_sequence, 2);
            assert_eq!(members(&site, &tenant.name, "g/1").await, ["a", "b"]);
            let done = row_counts(&site.app).await;
            sync(&agent.caller, vec![whole, half]).await.unwrap();
            assert_eq!(row_counts(&site.app).await, done);
        }
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves COM-4, COM-9, VER-3
#[tokio::test]
async fn upload_that_is_cut_leaves_nothing_and_may_be_made_again() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let caller = &contoso.admin.caller;
        let content = png(64 * 1_024);
        for (n, cut) in CUTS.into_iter().enumerate() {
            println!("{cut:?}");
            let begin = UploadDocumentRequest {
                request_id: request_id(),
                ..first(&account, &format!("{n}.png"))
            };
            let part = |bytes: &[u8]| UploadDocumentRequest {
                content: bytes.to_vec(),
                ..UploadDocumentRequest::default()
            };
            let (one, other) = content.split_at(content.len() / 2);
            let stream = Stream::open(&site, caller, UPLOAD_DOCUMENT).await;
            stream.send(frame(&begin)).await;
            stream.send(frame(&part(one))).await;
            stream.cut(&site, &part(other), cut).await;
            stored(&site, n).await;
            // Nothing was claimed for what wasn't done.
            upload(caller, begin, &content, 16 * 1_024).await.unwrap();
            stored(&site, n + 1).await;
        }
        chains_are_intact(&site.app).await;
    })
    .await;
}
