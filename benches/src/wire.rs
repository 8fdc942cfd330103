//! Generated messages and clients, connections, and the bare echo.

use anyhow::{Context as _, Result};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint, Server},
};

#[expect(clippy::all, reason = "generated from the protos")]
mod service {
    include!(concat!(env!("OUT_DIR"), "/service.rs"));
}

#[expect(
    clippy::all,
    clippy::allow_attributes,
    reason = "generated from the proto"
)]
mod echo {
    include!(concat!(env!("OUT_DIR"), "/echo.rs"));
}

pub use echo::entente::bench::v1::{
    EchoRequest, EchoResponse, echo_service_client::EchoServiceClient,
};
use echo::entente::bench::v1::{echo_service_server, echo_service_server::EchoServiceServer};
pub use service::entente::{
    access::v1 as access, account::v1 as account, directory::v1 as directory,
    operator::v1 as operator,
};

/// Connections that all callers of a case share.
pub const CONNECTIONS: usize = 8;

/// What stands in the header of calls.
pub type Token = MetadataValue<Ascii>;

/// The connections to a server.
#[derive(Clone)]
pub struct Wire {
    channels: Vec<Channel>,
}

impl Wire {
    /// Connects.
    pub async fn open(port: u16) -> Result<Self> {
        let mut channels = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let endpoint =
                Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.tcp_nodelay(true);
            channels.push(endpoint.connect().await?);
        }
        Ok(Self { channels })
    }

    /// The connection of a caller.
    pub fn of(&self, caller: usize) -> Channel {
        self.channels[caller % self.channels.len()].clone()
    }

    /// A half each of two servers' connections.
    pub fn halves(one: &Self, other: &Self) -> Self {
        let half = CONNECTIONS / 2;
        let both = one.channels[..half].iter().chain(&other.channels[..half]);
        Self {
            channels: both.cloned().collect(),
        }
    }
}

/// The header's value of an access token.
pub fn token(access_token: &str) -> Result<Token> {
    format!("Bearer {access_token}")
        .parse()
        .context("the access token is no header value")
}

/// A request by whoever has the token.
pub fn by<T>(token: &Token, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", token.clone());
    request
}

/// A new request ID: a UUID of random bits.
pub fn request_id(random: &mut fastrand::Rng) -> String {
    uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes())
        .into_uuid()
        .to_string()
}

struct Echo;

#[tonic::async_trait]
impl echo_service_server::EchoService for Echo {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(EchoResponse { payload }))
    }
}

/// Serves the echo until the process is killed; prints its port first.
pub async fn serve_echo() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let incoming = TcpListenerStream::new(listener);
    let incoming = tokio_stream::StreamExt::map(incoming, |socket| {
        socket.inspect(|s| {
            s.set_nodelay(true).ok();
        })
    });
    Server::builder()
        .add_service(EchoServiceServer::new(Echo))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
