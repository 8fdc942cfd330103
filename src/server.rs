//! The server: THE list of layers and THE list of services; health; draining; the HTTP port of operations.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tonic::{
    body::Body,
    transport::{Server, server::TcpIncoming},
};
use tower::{Layer, Service, ServiceBuilder};
use tracing::Instrument as _;

use crate::{
    access::{
        layer::{Deadline, Gate, Trace, language, stands_outside},
        limits, refusals, rules, token,
    },
    app::{App, Call},
    call::{MAX_MESSAGE_BYTES, generated::dispatch},
    env::Env,
    error::{Error, Language, Reason, Result},
    proto::{FILE_DESCRIPTOR_SET, POOL, access::CallKind},
    schedule,
    store::audit::hex,
};

/// Header lists are at most so large; HTTP/2's default of 16 MiB feeds floods.
const MAX_HEADER_LIST_BYTES: u32 = 32 * 1_024;
/// Calls of one connection at once.
const MAX_STREAMS: u32 = 256;
/// Streams that a client may open and reset without waiting (rapid reset).
const MAX_PENDING_RESETS: usize = 64;
/// A unary call's deadline if the client names none, and the longest that it may name.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
const LONGEST_DEADLINE: Duration = Duration::from_secs(120);
/// A stream's deadline if the client names none.
const STREAM_DEADLINE: Duration = Duration::from_secs(24 * 3_600);
/// All places are never taken by fewer callers than this.
const CALLERS_AT_LEAST: usize = 4;
/// A request's body is there within so long, or the call is given up.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// What a frame adds to its message, and a little: the codec tells the exact limit.
const FRAME_SLACK_BYTES: usize = 1_024;
/// How often health asks the database.
const HEALTH_EVERY: Duration = Duration::from_secs(2);

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
    let watch = tokio::spawn(watch_health(app.clone(), health.clone()));
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
            places: Arc::new(Semaphore::new(app.config.max_concurrent_calls)),
            share: (app.config.max_concurrent_calls / CALLERS_AT_LEAST).max(1),
            shares: moka::sync::Cache::builder()
                .max_capacity(100_000)
                .time_to_idle(Duration::from_secs(600))
                .build(),
        }))
        .into_inner();

    let (drained, draining) = tokio::sync::oneshot::channel::<()>();
    let signalled = app.clone();
    let bound = Duration::from_secs(u64::from(app.config.drain_timeout_s));
    let on_stop = {
        let health = health.clone();
        async move {
            stop.await;
            tracing::info!("draining");
            signalled.draining.cancel();
            for service in services() {
                health
                    .set_service_status(service, tonic_health::ServingStatus::NotServing)
                    .await;
            }
            drained.send(()).ok();
        }
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
    watch.abort();
    scheduler.stop().await;
    if let Some(ops) = ops {
        ops.abort();
    }
    if let Err(fault) = refusals::flush(&app, true).await {
        tracing::error!(%fault, "refusals of the last minute could not be audited");
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

async fn watch_health(app: App, health: tonic_health::server::HealthReporter) {
    loop {
        let healthy = tokio::time::timeout(HEALTH_EVERY, app.db.ping())
            .await
            .is_ok_and(|r| r.is_ok())
            && !app.draining.is_cancelled();
        if app.healthy.swap(healthy, Ordering::SeqCst) != healthy {
            tracing::info!(healthy, "health changed");
            let status = if healthy {
                tonic_health::ServingStatus::Serving
            } else {
                tonic_health::ServingStatus::NotServing
            };
            for service in services() {
                health.set_service_status(service, status).await;
            }
        }
        tokio::time::sleep(HEALTH_EVERY).await;
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

// ---- layers

/// What a layer does around the rest.
trait Around: Clone + Send + Sync + 'static {
    fn around<S>(
        &self,
        request: Request<Body>,
        inner: S,
    ) -> impl Future<Output = std::result::Result<Response<Body>, S::Error>> + Send
    where
        S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
        S::Future: Send,
        S::Error: Send;
}

#[derive(Clone)]
struct Layered<A>(A);

impl<A: Around, S> Layer<S> for Layered<A> {
    type Service = Surrounded<A, S>;
    fn layer(&self, inner: S) -> Surrounded<A, S> {
        Surrounded {
            around: self.0.clone(),
            inner,
        }
    }
}

#[derive(Clone)]
struct Surrounded<A, S> {
    around: A,
    inner: S,
}

impl<A, S> Service<Request<Body>> for Surrounded<A, S>
where
    A: Around,
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, std::result::Result<Response<Body>, S::Error>>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fresh = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, fresh);
        let around = self.around.clone();
        let mut request = request;
        if request.extensions().get::<Begun>().is_none() {
            request.extensions_mut().insert(Begun(Instant::now()));
        }
        Box::pin(async move { around.around(request, inner).await })
    }
}

/// When the outermost layer was called, before the framework's own timer of `grpc-timeout` was made.
#[derive(Clone, Copy)]
struct Begun(Instant);

/// One span a call, under the caller's trace or a new one.
#[derive(Clone)]
struct Traced {
    app: App,
}

impl Around for Traced {
    async fn around<S>(
        &self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> std::result::Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
    {
        let trace = request
            .headers()
            .get("traceparent")
            .and_then(|v| v.to_str().ok())
            .and_then(trace_of)
            .unwrap_or_else(|| new_trace(&self.app.env));
        let path = request.uri().path().to_owned();
        request.extensions_mut().insert(Trace(trace.clone()));
        let span = tracing::info_span!("call", trace_id = %trace, path = %path);
        let begun = Instant::now();
        let response = inner.call(request).instrument(span.clone()).await;
        if let Ok(response) = &response {
            let code = tonic::Status::from_header_map(response.headers())
                .map_or(tonic::Code::Ok, |s| s.code());
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            span.in_scope(|| tracing::debug!(?code, duration_us = micros, "answered"));
        }
        response
    }
}

/// The trace ID of a W3C `traceparent`; None if it is malformed.
fn trace_of(header: &str) -> Option<String> {
    let mut parts = header.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hexadecimal = |t: &str, n: usize| {
        t.len() == n
            && t.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let good = hexadecimal(version, 2)
        && version != "ff"
        && hexadecimal(trace, 32)
        && hexadecimal(span, 16);
    (good && trace.bytes().any(|b| b != b'0')).then(|| trace.to_owned())
}

fn new_trace(env: &Env) -> String {
    hex(&env.bytes::<16>())
}

/// Errors that the framework made are turned into ours: malformed, oversized, cut, cancelled, unknown.
#[derive(Clone)]
struct Dressed;

impl Around for Dressed {
    async fn around<S>(
        &self,
        request: Request<Body>,
        mut inner: S,
    ) -> std::result::Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
    {
        let language = language(request.headers());
        let path = request.uri().path().to_owned();
        let response = inner.call(request).await?;
        if stands_outside(&path) {
            return Ok(response);
        }
        Ok(dress(response, language, &path))
    }
}

fn dress(response: Response<Body>, language: Language, path: &str) -> Response<Body> {
    use tonic::Code;
    if response.status() != http::StatusCode::OK {
        let error = match response.status() {
            http::StatusCode::NOT_FOUND | http::StatusCode::METHOD_NOT_ALLOWED => {
                Error::unimplemented(path)
            }
            _ => Error::malformed("the request is no gRPC"),
        };
        return error.to_status(language).into_http();
    }
    let Some(status) = tonic::Status::from_header_map(response.headers()) else {
        return response;
    };
    if status.code() == Code::Ok || !status.details().is_empty() {
        return response;
    }
    let error = Error::of_framework(status.code(), status.message(), path);
    tracing::debug!(bare = %status.message(), %error, path, "dressed");
    error.to_status(language).into_http()
}

/// At most so many calls at once; the rest are told to try again.
#[derive(Clone)]
struct Bounded {
    places: Arc<Semaphore>,
    /// Places that one caller takes at most.
    share: usize,
    shares: moka::sync::Cache<limits::Who, Arc<Semaphore>>,
}

impl Around for Bounded {
    async fn around<S>(
        &self,
        request: Request<Body>,
        mut inner: S,
    ) -> std::result::Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
    {
        if stands_outside(request.uri().path()) {
            return inner.call(request).await;
        }
        let language = language(request.headers());
        let refused = |error: Error| Ok(error.to_status(language).into_http());
        if rules::of_path(request.uri().path()).is_some_and(|r| r.kind == CallKind::StreamIn) {
            // Its body comes chunk by chunk; each is bounded by the codec, and the streams of a caller are.
            return inner.call(request).await;
        }
        let (parts, body) = request.into_parts();
        let whole =
            http_body_util::Limited::new(body, MAX_MESSAGE_BYTES + FRAME_SLACK_BYTES).collect();
        let body = match tokio::time::timeout(BODY_WITHIN, whole).await {
            Err(_) => return refused(Error::late()),
            Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
                return refused(Error::exhausted(Reason::MessageTooLarge, None));
            }
            Ok(Err(_)) => return refused(Error::malformed("the message was cut short")),
            Ok(Ok(whole)) => whole.to_bytes(),
        };
        let overloaded = || Error::exhausted(Reason::Overloaded, Some(Duration::from_secs(1)));
        let who = parts
            .extensions
            .get::<Call>()
            .map(|call| limits::who(&call.caller));
        let own = who.map(|who| {
            self.shares
                .get_with(who, || Arc::new(Semaphore::new(self.share)))
        });
        // A caller's share comes first: what one sends too much must not take the places of others.
        let _own = match own.map(Semaphore::try_acquire_owned) {
            Some(Err(_)) => return refused(overloaded()),
            held => held,
        };
        let Ok(_place) = self.places.try_acquire() else {
            return refused(overloaded());
        };
        inner
            .call(Request::from_parts(parts, Body::new(Full::new(body))))
            .await
    }
}

/// The client's deadline, bounded; a unary call that is late is answered so, whatever it waits for.
#[derive(Clone)]
struct Timed;

/// What a late unary call gets beyond its deadline, so that its own answer comes first if it is about to.
const GRACE: Duration = Duration::from_millis(50);
/// The framework keeps the client's deadline too, with a bare answer: work stops, and ours is given, so long before it. Its timers count
/// milliseconds, so less would be a tie.
const WORK_STOPS_BEFORE: Duration = Duration::from_millis(2);
const ANSWER_BEFORE: Duration = Duration::from_millis(1);

impl Around for Timed {
    async fn around<S>(
        &self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> std::result::Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
    {
        let path = request.uri().path();
        if stands_outside(path) {
            return inner.call(request).await;
        }
        let streams = rules::of_path(path)
            .is_some_and(|r| matches!(r.kind, CallKind::StreamOut | CallKind::StreamIn));
        let asked = request
            .headers()
            .get("grpc-timeout")
            .and_then(|v| v.to_str().ok())
            .and_then(timeout_of);
        let within = match (asked, streams) {
            (Some(asked), false) => asked.min(LONGEST_DEADLINE),
            (None, false) => DEFAULT_DEADLINE,
            (asked, true) => asked.unwrap_or(STREAM_DEADLINE).min(STREAM_DEADLINE),
        };
        let begun = request
            .extensions()
            .get::<Begun>()
            .map_or_else(Instant::now, |b| b.0);
        let end = begun + within;
        let earlier = |by| end.checked_sub(by).unwrap_or(end);
        let (deadline, answer) = if asked == Some(within) && !streams {
            (earlier(WORK_STOPS_BEFORE), earlier(ANSWER_BEFORE))
        } else {
            (end, end + GRACE)
        };
        request.extensions_mut().insert(Deadline(deadline));
        let language = language(request.headers());
        match tokio::time::timeout_at(answer, inner.call(request)).await {
            Ok(response) => response,
            Err(_) => Ok(Error::late().to_status(language).into_http()),
        }
    }
}

/// `grpc-timeout`: up to 8 digits and a unit.
fn timeout_of(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3_600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

// ---- operations over HTTP

async fn serve_ops(app: App, listener: TcpListener) {
    // A scraper or two and a probe; more connections at once are somebody's mistake.
    let places = Arc::new(Semaphore::new(64));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(e) => {
                tracing::warn!(error = %e, "operations: a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let app = app.clone();
        tokio::spawn(async move {
            let service =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let app = app.clone();
                    async move {
                        Ok::<_, Infallible>(
                            answer_ops(&app, request.method(), request.uri().path()).await,
                        )
                    }
                });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service);
            // A client that talks no HTTP is its own trouble.
            tokio::time::timeout(Duration::from_secs(60), connection)
                .await
                .ok();
            drop(place);
        });
    }
}

async fn answer_ops(app: &App, method: &http::Method, path: &str) -> Response<Full<bytes::Bytes>> {
    let reply = |status: u16, kind: &str, body: String| {
        let mut response = Response::new(Full::from(body));
        *response.status_mut() =
            http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        if let Ok(value) = http::HeaderValue::from_str(kind) {
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, value);
        }
        response
    };
    if method != http::Method::GET {
        return reply(405, "text/plain", "only GET\n".to_owned());
    }
    match path {
        "/livez" => reply(200, "text/plain", "alive\n".to_owned()),
        "/healthz" | "/readyz" => {
            if app.healthy.load(Ordering::SeqCst) {
                reply(200, "text/plain", "serving\n".to_owned())
            } else {
                reply(503, "text/plain", "not serving\n".to_owned())
            }
        }
        "/.well-known/jwks.json" => match token::jwks(app).await {
            Ok(keys) => {
                let keys: Vec<_> = keys
                    .iter()
                    .map(|k| serde_json::json!({"kty": k.kty, "crv": k.crv, "x": k.x, "kid": k.kid, "alg": k.alg, "use": k.r#use}))
                    .collect();
                reply(
                    200,
                    "application/jwk-set+json",
                    serde_json::json!({ "keys": keys }).to_string(),
                )
            }
            Err(_) => reply(
                503,
                "text/plain",
                "the database can't be reached\n".to_owned(),
            ),
        },
        "/.well-known/openid-configuration" => {
            let origin = &app.config.public_origin;
            let document = serde_json::json!({
                "issuer": origin,
                "jwks_uri": format!("{origin}/.well-known/jwks.json"),
                "id_token_signing_alg_values_supported": ["EdDSA"],
                "response_types_supported": ["token"],
                "subject_types_supported": ["public"],
            });
            reply(200, "application/json", document.to_string())
        }
        _ => reply(404, "text/plain", "not found\n".to_owned()),
    }
}

/// Binds a port, naming it if that fails.
///
/// # Errors
/// If it is taken or may not be used.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| Error::internal(format!("{address} can't be listened on: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_and_traces_are_read_as_their_standards_say() {
        assert_eq!(timeout_of("100m"), Some(Duration::from_millis(100)));
        assert_eq!(
            timeout_of("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3_600))
        );
        for bad in ["", "S", "123456789S", "1x", "-1S", "1é"] {
            assert_eq!(timeout_of(bad), None, "{bad}");
        }
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            trace_of(good).as_deref(),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(trace_of(bad), None, "{bad}");
        }
    }
}
