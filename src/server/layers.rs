//! The layers around every call, but for the gate (`access/layer.rs`): trace, errors, places, deadline. Their order is in `server.rs`.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
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
/// Memory for messages is counted in pieces of so many bytes, beyond what any call has; a connection's windows have as much.
const BYTES_A_PLACE: usize = 16 * 1_024;
const BYTES_UNCOUNTED: usize = 16 * 1_024;
/// Pieces of all messages at once, and of one caller's: 512 MiB, and an eighth of it.
pub(super) const PLACES_IN_MEMORY: usize = 32_768;
pub(super) const SHARE_OF_MEMORY: usize = PLACES_IN_MEMORY / 8;
/// Reflection, of whatever version.
const REFLECTION: &str = "/grpc.reflection.";
/// How many talk with it at once, and how long: a tool asks what it needs and is gone.
pub(super) const REFLECTIONS_AT_ONCE: usize = 64;
const REFLECTION_WITHIN: Duration = Duration::from_secs(60);
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

/// At most so many calls at once, and so much memory for their messages; the rest are told to try again.
#[derive(Clone)]
pub(super) struct Bounded {
    pub(super) places: Places<limits::Who>,
    /// Memory for messages.
    pub(super) memory: Places<limits::Who>,
    /// Conversations with reflection, which stands outside of all that counts by caller.
    pub(super) outside: Arc<Semaphore>,
}

/// Places of all, of which one caller has at most a share.
#[derive(Clone)]
pub(super) struct Places<W> {
    all: Arc<Semaphore>,
    share: usize,
    shares: moka::sync::Cache<W, Arc<Semaphore>>,
}

impl<W: std::hash::Hash + Eq + Send + Sync + 'static> Places<W> {
    pub(super) fn new(all: usize, share: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            share: share.max(1),
            shares: moka::sync::Cache::builder()
                .max_capacity(100_000)
                .time_to_idle(Duration::from_secs(600))
                .build(),
        }
    }

    /// Places for one who calls. A caller's share comes first: what one sends too much must not take the places of others.
    fn take(&self, who: Option<W>, n: usize) -> Option<Taken> {
        let n = u32::try_from(n).ok()?;
        let own = match who {
            Some(who) => {
                let share = || Arc::new(Semaphore::new(self.share));
                let own = self.shares.get_with(who, share);
                Some(own.try_acquire_many_owned(n).ok()?)
            }
            None => None,
        };
        let all = Arc::clone(&self.all).try_acquire_many_owned(n).ok()?;
        Some(Taken {
            _own: own,
            _all: all,
        })
    }
}

/// Places that are held until this is dropped.
struct Taken {
    _own: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

fn overloaded() -> Error {
    Error::exhausted(Reason::Overloaded, Some(Duration::from_secs(1)))
}

/// A request's message, and the memory that it takes.
async fn whole(
    mut body: Body,
    who: Option<&limits::Who>,
    memory: &Places<limits::Who>,
) -> std::result::Result<(Bytes, Vec<Taken>), Error> {
    let (mut first, mut rest, mut taken) = (Bytes::new(), BytesMut::new(), Vec::new());
    let (mut length, mut paid) = (0, BYTES_UNCOUNTED);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::malformed("the message was cut short"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length > MAX_MESSAGE_BYTES + FRAME_SLACK_BYTES {
            return Err(Error::exhausted(Reason::MessageTooLarge, None));
        }
        if length > paid {
            let n = (length - paid).div_ceil(BYTES_A_PLACE);
            let more = memory.take(who.cloned(), n).ok_or_else(overloaded)?;
            paid += n * BYTES_A_PLACE;
            taken.push(more);
        }
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    let message = if rest.is_empty() {
        first
    } else {
        rest.freeze()
    };
    Ok((message, taken))
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
        let language = language(request.headers());
        let refused = |error: Error| Ok(error.to_status(language).into_http());
        if stands_outside(request.uri().path()) {
            if !request.uri().path().starts_with(REFLECTION) {
                return inner.call(request).await;
            }
            let Ok(place) = Arc::clone(&self.outside).try_acquire_owned() else {
                return refused(overloaded());
            };
            let response = inner.call(request).await?;
            return Ok(response.map(|body| {
                let end = Box::pin(tokio::time::sleep(REFLECTION_WITHIN));
                Body::new(Ending {
                    body,
                    end,
                    _place: place,
                })
            }));
        }
        if rules::of_path(request.uri().path())
            .is_some_and(|r| matches!(r.kind, CallKind::StreamIn | CallKind::Upload))
        {
            // Its body comes chunk by chunk; each is bounded by the codec, and the streams of a caller are.
            return inner.call(request).await;
        }
        let (parts, body) = request.into_parts();
        let who = parts
            .extensions
            .get::<Call>()
            .map(|call| limits::who(&call.caller));
        let message = whole(body, who.as_ref(), &self.memory);
        let (body, _memory) = match tokio::time::timeout(BODY_WITHIN, message).await {
            Err(_) => return refused(Error::late()),
            Ok(Err(error)) => return refused(error),
            Ok(Ok(whole)) => whole,
        };
        let Some(_place) = self.places.take(who, 1) else {
            return refused(overloaded());
        };
        inner
            .call(Request::from_parts(parts, Body::new(Full::new(body))))
            .await
    }
}

/// An answer that ends after a while, and holds a place until then.
struct Ending {
    body: Body,
    end: Pin<Box<tokio::time::Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<http_body::Frame<Bytes>, tonic::Status>>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Error::late().to_status(Language::English))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
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
    use std::{convert::Infallible, net::IpAddr};

    use http_body_util::StreamBody;

    use super::*;

    fn frames(frames: Vec<usize>) -> Body {
        let frames = frames.into_iter().map(|n| {
            let data = Bytes::from(vec![7; n]);
            Ok::<_, Infallible>(http_body::Frame::data(data))
        });
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    fn at(address: &str) -> limits::Who {
        limits::Who::Address(address.parse::<IpAddr>().ok())
    }

    // proves COM-9
    #[tokio::test]
    async fn messages_take_no_more_memory_than_there_is_for_one_and_for_all() {
        const PLACE: usize = BYTES_A_PLACE;
        let memory = Places::new(6, 4);
        let [ann, bob] = [at("192.0.2.1"), at("192.0.2.2")];
        let read = async |who, parts: &[usize]| {
            let read = whole(frames(parts.to_vec()), Some(who), &memory).await;
            read.map(|(message, taken)| {
                assert_eq!(message, vec![7; parts.iter().sum()]);
                taken
            })
        };
        let is_refused = |read: std::result::Result<Vec<Taken>, Error>| {
            read.is_err_and(|e| e.reason() == Reason::Overloaded)
        };
        // What every message may have isn't counted.
        assert!(read(&ann, &[]).await.unwrap().is_empty());
        assert!(read(&ann, &[PLACE - 1, 1]).await.unwrap().is_empty());
        let first = read(&ann, &[PLACE, 1, PLACE - 1, 3]).await.unwrap();
        assert_eq!(first.len(), 2);
        // Two of her four places are left.
        assert!(is_refused(read(&ann, &[4 * PLACE]).await));
        let second = read(&ann, &[3 * PLACE]).await.unwrap();
        assert!(is_refused(read(&ann, &[PLACE + 1]).await));
        // And two of all six.
        assert!(is_refused(read(&bob, &[4 * PLACE]).await));
        assert_eq!(read(&bob, &[3 * PLACE]).await.unwrap().len(), 1);
        drop(first);
        assert_eq!(read(&ann, &[3 * PLACE]).await.unwrap().len(), 1);
        drop(second);
        assert_eq!(read(&bob, &[5 * PLACE]).await.unwrap().len(), 1);
        let memory = Places::new(999, 1);
        let too_large = whole(frames(vec![MAX_MESSAGE_BYTES, 2_000]), None, &memory);
        let error = too_large.await.err().unwrap();
        assert_eq!(error.reason(), Reason::MessageTooLarge);
    }

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
