//! The layers around every call, but for the gate (`access/layer.rs`): trace, errors, places, deadline. Their order is in `server.rs`.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::{sync::Semaphore, time::Instant};
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::{
    access::{
        layer::{Deadline, Trace, language, stands_outside},
        limits, rules,
    },
    app::{App, Call},
    call::MAX_MESSAGE_BYTES,
    env::Env,
    error::{Error, Language, Reason},
    proto::access::CallKind,
};

/// A unary call's deadline if the client names none, and the longest that it may name.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
const LONGEST_DEADLINE: Duration = Duration::from_secs(120);
/// A stream's deadline if the client names none.
const STREAM_DEADLINE: Duration = Duration::from_secs(24 * 3_600);
/// A request's body is there within so long, or the call is given up.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// What a frame adds to its message, and a little: the codec tells the exact limit.
const FRAME_SLACK_BYTES: usize = 1_024;

/// What a layer does around the rest.
pub(super) trait Around: Clone + Send + Sync + 'static {
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
pub(super) struct Layered<A>(pub(super) A);

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
pub(super) struct Surrounded<A, S> {
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
pub(super) struct Traced {
    pub(super) app: App,
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
    hex::encode(env.bytes::<16>())
}

/// Errors that the framework made are turned into ours: malformed, oversized, cut, cancelled, unknown.
#[derive(Clone)]
pub(super) struct Dressed;

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
pub(super) struct Bounded {
    pub(super) places: Arc<Semaphore>,
    /// Places that one caller takes at most.
    pub(super) share: usize,
    pub(super) shares: moka::sync::Cache<limits::Who, Arc<Semaphore>>,
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
        if rules::of_path(request.uri().path())
            .is_some_and(|r| matches!(r.kind, CallKind::StreamIn | CallKind::Upload))
        {
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
pub(super) struct Timed;

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
            .is_some_and(|r| !matches!(r.kind, CallKind::Read | CallKind::Mutation));
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
