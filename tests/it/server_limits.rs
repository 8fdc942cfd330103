//! What the server takes at most: headers, calls on a connection, calls at once. Beyond it, each is refused so that its caller knows, and
//! the server lives on. Bounds of messages are in `bad_input.rs`, those of a caller a minute in `staff/limits.rs`.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tonic::Code;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_types::StatusExt as _;

use crate::{
    bad_input::serving,
    harness::{Database, Person, Site, new_user, refused},
    people::{People as _, eventually, second_admin},
};

/// A method for everybody, with a short answer.
const GET_JWKS: &str = "/entente.directory.v1.SessionService/GetJwks";
/// As the server has it: calls of one connection at once.
const MAX_STREAMS: u32 = 256;
/// As the server has it: bytes of a header list, by HTTP/2's own way of counting.
const MAX_HEADER_LIST: usize = 32 * 1_024;
/// The frame of a message without fields.
const EMPTY: [u8; 5] = [0; 5];

/// A request with so many bytes of headers, as HTTP/2 counts them: names, values, and 32 for each.
fn with_headers(bytes: usize) -> http::Request<Full<Bytes>> {
    let authority = "localhost";
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", GET_JWKS),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let size = |name: &str, value: usize| name.len() + value + 32;
    let mut left = bytes;
    left -= usual.map(|(n, v)| size(n, v.len())).iter().sum::<usize>();
    let mut request = http::Request::post(format!("http://{authority}{GET_JWKS}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let mut n = 0;
    while left > 0 {
        let name = format!("x-filling-{n:04}");
        // What is left is never less than a header takes by itself.
        let whole = if left < 3_000 { left } else { 1_000 };
        let value = whole - size(&name, 0);
        left -= whole;
        request = request.header(name, "a".repeat(value));
        n += 1;
    }
    request.body(Full::from(EMPTY.to_vec())).unwrap()
}

type Connection = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> Connection {
    let socket = TcpStream::connect(address).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

// proves COM-18
#[tokio::test]
async fn conversations_with_reflection_beyond_the_bound_are_told_to_come_again() {
    let site = Site::open(Database::Sqlite).await;
    let channel = site.nobody().channel;
    let mut opened = Vec::new();
    let open = async || {
        let mut client = ServerReflectionClient::new(channel.clone());
        client.server_reflection_info(tokio_stream::pending()).await
    };
    let status = loop {
        match open().await {
            Ok(conversation) => opened.push(conversation),
            Err(status) => break status,
        }
        assert!(opened.len() < 1_000, "no bound");
    };
    refused::<()>(Err(status), Code::ResourceExhausted, "OVERLOADED");
    // Nobody else has less of anything, and who leaves makes room.
    serving(&site).await;
    drop(opened);
    eventually(async || open().await.is_ok()).await;
}

// proves COM-9
#[tokio::test]
async fn header_list_is_taken_up_to_its_bound_and_refused_beyond() {
    let site = Site::open(Database::Sqlite).await;
    let mut connection = connect(site.address).await;
    let mut status = async |bytes| {
        connection.ready().await.unwrap();
        let answer = connection.send_request(with_headers(bytes)).await.unwrap();
        answer.status()
    };
    let too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    assert_eq!(status(MAX_HEADER_LIST - 2_000).await, StatusCode::OK);
    assert_eq!(status(MAX_HEADER_LIST + 2_000).await, too_large);
    // The connection is still good.
    assert_eq!(status(1_000).await, StatusCode::OK);
    // A flood of them ends it, and nothing else.
    let flood = connection.send_request(with_headers(2 * 1_024 * 1_024));
    let flood = tokio::time::timeout(Duration::from_secs(60), flood).await;
    if let Ok(answer) = flood.unwrap() {
        assert_eq!(answer.status(), too_large);
    }
    serving(&site).await;
}

/// HTTP/2 by hand, so that frames go out that no library sends.
struct Frames {
    socket: TcpStream,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The error that it tells of; of a GOAWAY it comes after the last stream.
    fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The beginning of a call whose message is still to come.
fn begin(stream: u32) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", GET_JWKS),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // A literal that is not indexed, neither of its texts compressed (RFC 7541, 6.2.2); lengths below 127 are one byte.
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}

fn whole(stream: u32) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, &EMPTY)
}

impl Frames {
    async fn open(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        socket.write_all(preface).await.unwrap();
        let mut frames = Self { socket };
        frames.send(frame(SETTINGS, 0, 0, &[])).await;
        frames
    }

    async fn send(&mut self, bytes: Vec<u8>) {
        self.socket.write_all(&bytes).await.unwrap();
    }

    /// The next frame; None when the server has ended the connection.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = self.socket.read_exact(&mut head);
        let read = tokio::time::timeout(Duration::from_secs(60), read).await;
        read.expect("the server says nothing").ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..].try_into().unwrap()),
            payload,
        })
    }

    /// Waits until a call is answered to its end.
    async fn answered(&mut self, stream: u32) {
        loop {
            let frame = self.next().await.expect("the connection lives");
            assert!(frame.kind != GOAWAY, "error {}", frame.error());
            if frame.stream == stream {
                assert!(frame.kind != RST_STREAM, "error {}", frame.error());
                if frame.flags & END_STREAM != 0 {
                    return;
                }
            }
        }
    }
}

// proves COM-9
#[tokio::test]
async fn calls_of_one_connection_beyond_the_bound_are_refused_and_the_others_go_on() {
    let site = Site::open(Database::Sqlite).await;
    let mut frames = Frames::open(site.address).await;
    // Clients' streams have odd numbers.
    let stream = |n: u32| 2 * n + 1;
    let beyond = 44;
    let burst = (0..MAX_STREAMS + beyond).flat_map(|n| begin(stream(n)));
    frames.send(burst.collect()).await;
    let mut turned_away = Vec::new();
    while turned_away.len() < beyond as usize {
        let frame = frames.next().await.expect("the connection lives");
        if frame.kind == RST_STREAM {
            assert_eq!(frame.error(), REFUSED_STREAM);
            turned_away.push(frame.stream);
        }
    }
    let last: Vec<_> = (MAX_STREAMS..MAX_STREAMS + beyond).map(stream).collect();
    assert_eq!(turned_away, last);
    // Those that were let in are served, and each leaves its place to another.
    frames.send(whole(stream(0))).await;
    frames.answered(stream(0)).await;
    let next = stream(MAX_STREAMS + beyond);
    let again = [begin(next), whole(next)].concat();
    frames.send(again).await;
    frames.answered(next).await;
    serving(&site).await;
}

// proves COM-9
#[tokio::test]
async fn connection_that_opens_calls_only_to_take_them_back_is_ended() {
    let site = Site::open(Database::Sqlite).await;
    let mut frames = Frames::open(site.address).await;
    let burst = (0..300).flat_map(|n| {
        let stream = 2 * n + 1;
        let back = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        [begin(stream), back].concat()
    });
    let burst: Vec<u8> = burst.collect();
    // The server may have ended it before all is sent.
    frames.socket.write_all(&burst).await.ok();
    let mut told = None;
    while let Some(frame) = frames.next().await {
        if frame.kind == GOAWAY {
            told = Some(frame.error());
            break;
        }
    }
    assert_eq!(told, Some(ENHANCE_YOUR_CALM));
    serving(&site).await;
}

// proves COM-18, COM-3
#[tokio::test]
async fn calls_at_once_beyond_the_bound_are_told_to_come_again() {
    for database in [Database::Sqlite, Database::Postgres] {
        println!("--- on {database:?}");
        // A caller has a quarter of the places at most.
        let site = Site::open_with(database, |c| c.max_concurrent_calls = 8).await;
        let contoso = site.tenant("contoso").await;
        let mut admins = vec![contoso.admin.clone()];
        for name in ["bea", "cid", "dan", "eve"] {
            admins.push(second_admin(&site, &contoso, name).await);
        }
        let overloaded = async |person: &Person| {
            let answer = person.caller.who_am_i().await;
            let status = refused(answer, Code::ResourceExhausted, "OVERLOADED");
            assert!(status.get_details_retry_info().is_some());
            assert!(status.get_details_quota_failure().is_some());
        };
        let mut calls = JoinSet::new();
        // Whoever writes waits meanwhile.
        let held = site.app.lanes.hold().await.unwrap();
        for (i, admin) in admins[..4].iter().enumerate() {
            for n in 0..2 {
                let request = new_user(&contoso.name, &format!("user{i}x{n}"));
                let caller = admin.caller.clone();
                calls.spawn(async move { caller.users().create_user(request).await });
            }
            eventually(async || site.app.lanes.present() == 2 * (i + 1)).await;
            // Its own share is used up, and nobody else's.
            overloaded(admin).await;
            if i < 3 {
                admins[4].caller.who_am_i().await.unwrap();
            }
        }
        // All places are taken.
        overloaded(&admins[4]).await;
        // Whoever asks for health needs none.
        serving(&site).await;
        drop(held);
        // Nobody who was let in has lost anything, and there is room again.
        for made in calls.join_all().await {
            made.unwrap();
        }
        for admin in &admins {
            admin.caller.who_am_i().await.unwrap();
        }
    }
}
