//! The server: THE list of layers and THE list of services; health; draining; the HTTP port of operations.

mod layers;
mod ops;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
};
use tonic::{
    body::Body,
    transport::{Server, server::TcpIncoming},
};
use tower::{Service, ServiceBuilder};

use self::{
    layers::{
        Bounded, Dressed, Layered, PLACES_IN_MEMORY, Places, REFLECTIONS_AT_ONCE, SHARE_OF_MEMORY,
        Timed, Traced,
    },
    ops::serve_ops,
};
use crate::{
    access::{
        layer::{Gate, language},
        refusals, rules,
    },
    app::App,
    call::generated::dispatch,
    error::{Error, Result},
    proto::{FILE_DESCRIPTOR_SET, POOL},
    schedule,
};

/// Header lists are at most so large; HTTP/2's default of 16 MiB feeds floods.
const MAX_HEADER_LIST_BYTES: u32 = 32 * 1_024;
/// Calls of one connection at once.
const MAX_STREAMS: u32 = 256;
/// Streams that a client may open and reset without waiting (rapid reset).
const MAX_PENDING_RESETS: usize = 64;
/// All places are never taken by fewer callers than this.
const CALLERS_AT_LEAST: usize = 4;
/// Connections that wait to be accepted, as the standard library has it.
const BACKLOG: u32 = 1_024;
/// How often health asks the database.
const HEALTH_EVERY: Duration = Duration::from_secs(2);
/// A database that is gone keeps no stopping server longer than this from its end.
const LAST_REFUSALS_WITHIN: Duration = Duration::from_secs(3);

/// Serves until `stop` resolves, then drains: `NOT_SERVING`, calls in flight finished within the bound, refusals written.
///
/// # Errors
/// If a port can't be served.
pub async fn serve(
    app: App,
    listener: TcpListener,
    ops: Option<TcpListener>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    rules::all()?;
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in services() {
        // Until the database has answered, nothing is promised.
        health
            .set_service_status(service, tonic_health::ServingStatus::NotServing)
            .await;
    }
    let watch = tokio::spawn(watch_health(app.clone(), health));
    let scheduler = schedule::start(app.clone());
    let ops = ops.map(|listener| tokio::spawn(serve_ops(app.clone(), listener)));

    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |e: tonic_reflection::server::Error| Error::internal(e.to_string());
    // THE list of services: health, reflection for old and new clients, and everything of ours by path.
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?);
    let api = Api { app: app.clone() };
    let routes =
        tonic::service::Routes::from(routes.routes().into_axum_router().fallback_service(api));

    // THE list of layers, outermost first; each order has its reason.
    let layers = ServiceBuilder::new()
        // Everything below is seen under one trace.
        .layer(Layered(Traced { app: app.clone() }))
        // Bare errors of the framework are dressed as ours, whoever made them.
        .layer(Layered(Dressed))
        // The clock of the call runs from here, waiting for its body included.
        .layer(Layered(Timed))
        // Who may not gets no further, and no body is read for him.
        .layer(Gate(app.clone()))
        // Only a call whose body is there takes a place: who sends slowly holds nobody up.
        .layer(Layered(Bounded {
            places: Places::new(
                app.config.max_concurrent_calls,
                app.config.max_concurrent_calls / CALLERS_AT_LEAST,
            ),
            memory: Places::new(PLACES_IN_MEMORY, SHARE_OF_MEMORY),
            outside: Arc::new(Semaphore::new(REFLECTIONS_AT_ONCE)),
        }))
        .into_inner();

    let (drained, draining) = tokio::sync::oneshot::channel::<()>();
    let signalled = app.clone();
    let bound = Duration::from_secs(u64::from(app.config.drain_timeout_s));
    let on_stop = async move {
        stop.await;
        tracing::info!("draining");
        signalled.draining.cancel();
        // Whoever asks is told before nobody is let in any more.
        watch.await.ok();
        drained.send(()).ok();
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .tcp_keepalive(Some(Duration::from_secs(60)))
        .layer(layers)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, on_stop);
    let done = tokio::select! {
        done = server => done.map_err(|e| Error::internal(format!("serving failed: {e}"))),
        () = async { draining.await.ok(); tokio::time::sleep(bound).await } => {
            tracing::warn!("some calls did not end within the bound of draining");
            Ok(())
        }
    };
    app.draining.cancel();
    scheduler.stop().await;
    if let Some(ops) = ops {
        ops.abort();
    }
    match tokio::time::timeout(LAST_REFUSALS_WITHIN, refusals::flush(&app, true)).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => {
            tracing::error!(%fault, "refusals of the last minute could not be audited");
        }
        Err(_) => tracing::error!("refusals of the last minute could not be audited in time"),
    }
    done
}

/// Names of all services of ours, and the empty one that stands for the server.
fn services() -> Vec<String> {
    let own = POOL
        .services()
        .map(|s| s.full_name().to_owned())
        .filter(|n| n.starts_with("entente."));
    std::iter::once(String::new()).chain(own).collect()
}

/// Tells health what the database is, until the server stops; from then on it serves nobody.
async fn watch_health(app: App, health: tonic_health::server::HealthReporter) {
    let follows = async {
        loop {
            let healthy = tokio::time::timeout(HEALTH_EVERY, app.db.ping())
                .await
                .is_ok_and(|r| r.is_ok());
            if app.healthy.load(Ordering::SeqCst) != healthy {
                if healthy {
                    app.db.weed();
                }
                tracing::info!(healthy, "health changed");
                app.healthy.store(healthy, Ordering::SeqCst);
                tell_health(&health, healthy).await;
            }
            tokio::time::sleep(HEALTH_EVERY).await;
        }
    };
    tokio::select! {
        () = app.draining.cancelled() => {}
        () = follows => {}
    }
    // Wherever it was left: nothing says otherwise after this.
    app.healthy.store(false, Ordering::SeqCst);
    tell_health(&health, false).await;
}

async fn tell_health(health: &tonic_health::server::HealthReporter, healthy: bool) {
    let status = match healthy {
        true => tonic_health::ServingStatus::Serving,
        false => tonic_health::ServingStatus::NotServing,
    };
    for service in services() {
        health.set_service_status(service, status).await;
    }
}

/// All methods of ours, by path.
#[derive(Clone)]
struct Api {
    app: App,
}

impl<B> Service<Request<B>> for Api
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Response<Body>, Infallible>>;
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let app = self.app.clone();
        Box::pin(async move {
            let request = request.map(Body::new);
            let path = request.uri().path().to_owned();
            let language = language(request.headers());
            Ok(match dispatch(app, &path, request).await {
                Some(response) => response,
                None => Error::unimplemented(&path).to_status(language).into_http(),
            })
        })
    }
}

/// Takes a port, naming it if that fails. Nobody is let in before `listen`: whoever waits for the port finds all that a first start leaves.
///
/// # Errors
/// If somebody listens there, or it may not be used.
pub fn take(address: SocketAddr) -> Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    socket
        .and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        })
        .map_err(|e| unusable(address, &e))
}

/// Opens a port that was taken.
///
/// # Errors
/// If somebody else was faster.
pub fn listen(socket: TcpSocket) -> Result<TcpListener> {
    let unspecified = SocketAddr::from(([0; 4], 0));
    let address = socket.local_addr().unwrap_or(unspecified);
    socket.listen(BACKLOG).map_err(|e| unusable(address, &e))
}

fn unusable(address: SocketAddr, error: &std::io::Error) -> Error {
    Error::internal(format!("{address} can't be listened on: {error}"))
}
