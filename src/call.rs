//! The adapter of every method: decoding by a codec of ours, carrying out, answering. `build.rs` generates one line a method.

pub mod transfer;

use std::{marker::PhantomData, sync::Arc, time::Duration};

use bytes::Buf as _;
use futures_util::{Stream, future::BoxFuture};
use http::{Request as HttpRequest, Response as HttpResponse};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{
    Request as GrpcRequest, Response as GrpcResponse, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{ClientStreamingService, Grpc, ServerStreamingService, UnaryService},
};
use tracing::Instrument as _;

pub use crate::app::Outcome;
use crate::{
    access::{
        proof::{self, Named},
        refusals,
        scope::Proof,
    },
    app::{App, Call, Outside, Read, Tx, check},
    check::{Redact, Request},
    error::{Error, Language, Reason, Result},
};

/// A message has at most so many bytes (COM-9).
pub const MAX_MESSAGE_BYTES: usize = 4 * 1_024 * 1_024;
/// A stream without news looks for some so often, for changes made by other replicas; each look proves its right anew, well within the
/// 5 seconds of COM-1.
const LOOKS_ANEW: Duration = Duration::from_millis(500);

/// A batch that isn't there within so long doesn't come: the database doesn't answer. Its own statements end before.
const BATCH_WITHIN: Duration = Duration::from_secs(35);

/// A stream whose client takes its time is proven anew so often (COM-1).
const PROVES_ANEW: Duration = Duration::from_secs(4);

/// Streams that one caller has open at once, all of its tenant, and all together: each looks at the database again and again.
const STREAMS_A_CALLER: usize = 20;
const STREAMS_A_TENANT: usize = 100;
/// All streams that are open at once.
pub const STREAMS_AT_ONCE: usize = 1_000;
/// However much is written, a stream looks no more often.
const LOOKS_APART: Duration = Duration::from_millis(50);

/// The header that says that an answer was given before.
pub const REPLAYED: &str = "entente-replayed";

/// Our codec: prost's, with clear errors.
pub struct Wire<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Wire<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// Encodes answers.
pub struct WireEncoder<T>(PhantomData<T>);
/// Decodes requests.
pub struct WireDecoder<U>(PhantomData<U>);

impl<T, U> Codec for Wire<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = WireEncoder<T>;
    type Decoder = WireDecoder<U>;
    fn encoder(&mut self) -> Self::Encoder {
        WireEncoder(PhantomData)
    }
    fn decoder(&mut self) -> Self::Decoder {
        WireDecoder(PhantomData)
    }
}

impl<T: Message> Encoder for WireEncoder<T> {
    type Item = T;
    type Error = Status;
    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> std::result::Result<(), Status> {
        item.encode(buffer)
            .map_err(|e| Error::internal(e.to_string()).to_status(Language::English))
    }
}

impl<U: Message + Default> Decoder for WireDecoder<U> {
    type Item = U;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> std::result::Result<Option<U>, Status> {
        let message = U::decode(&mut *buffer).map(Some);
        // What couldn't be decoded is not left for the next message.
        buffer.advance(buffer.remaining());
        message.map_err(|e| Error::undecodable(&e.to_string()))
    }
}

fn grpc<T, U>() -> Grpc<Wire<T, U>>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    Grpc::new(Wire::default())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

fn call_of(request: &HttpRequest<Body>) -> Result<Call> {
    // The gate put it there; a path that came around the gate is refused.
    request
        .extensions()
        .get::<Call>()
        .cloned()
        .ok_or_else(|| Error::internal("a call came around the gate"))
}

/// What answers one message.
type Handler<R, S> =
    Box<dyn FnOnce(R) -> BoxFuture<'static, std::result::Result<GrpcResponse<S>, Status>> + Send>;

/// A unary service made of one closure.
struct Once<R, S>(Option<Handler<R, S>>);

impl<R, S> UnaryService<R> for Once<R, S> {
    type Response = S;
    type Future = BoxFuture<'static, std::result::Result<GrpcResponse<S>, Status>>;
    fn call(&mut self, request: GrpcRequest<R>) -> Self::Future {
        match self.0.take() {
            Some(run) => run(request.into_inner()),
            None => Box::pin(async {
                Err(Error::internal("a unary call came twice").to_status(Language::English))
            }),
        }
    }
}

/// Carries out a method that reads.
pub async fn read<R, S, F>(app: App, request: HttpRequest<Body>, run: F) -> HttpResponse<Body>
where
    R: Request,
    S: Message + Send + 'static,
    F: for<'a> Fn(&'a Read, Proof, R) -> BoxFuture<'a, Result<S>> + Send + Sync + 'static,
{
    let call = match call_of(&request) {
        Ok(call) => call,
        Err(error) => return error.to_status(Language::English).into_http(),
    };
    let handler: Handler<R, S> = Box::new(move |message: R| {
        Box::pin(async move {
            let language = call.caller.language;
            let answer = tokio::time::timeout_at(call.deadline, app.read(&call, message, &run))
                .await
                .unwrap_or_else(|_| Err(Error::late()));
            answer
                .map(GrpcResponse::new)
                .map_err(|e| answered(&e, &call, language))
        })
    });
    grpc::<S, R>().unary(Once(Some(handler)), request).await
}

/// Carries out a method that writes.
pub async fn mutate<R, S, F>(app: App, request: HttpRequest<Body>, run: F) -> HttpResponse<Body>
where
    R: Request,
    S: Message + Default + Redact + Clone + Send + Sync + 'static,
    F: for<'a> Fn(&'a mut Tx, Proof, R) -> BoxFuture<'a, Result<Outcome<S>>>
        + Send
        + Sync
        + 'static,
{
    mutate_prepared::<R, S, _, _, ()>(
        app,
        request,
        nothing_to_prepare::<R>,
        move |tx, proof, message, ()| run(tx, proof, message),
    )
    .await
}

/// Carries out a method that writes, after a preparation outside the transaction.
pub async fn mutate_prepared<R, S, G, F, P>(
    app: App,
    request: HttpRequest<Body>,
    prepare: G,
    run: F,
) -> HttpResponse<Body>
where
    R: Request,
    S: Message + Default + Redact + Clone + Send + Sync + 'static,
    P: Clone + Send + Sync + 'static,
    G: for<'a> Fn(&'a Outside, Proof, &'a R) -> BoxFuture<'a, Result<P>> + Send + Sync + 'static,
    F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>
        + Send
        + Sync
        + 'static,
{
    let call = match call_of(&request) {
        Ok(call) => call,
        Err(error) => return error.to_status(Language::English).into_http(),
    };
    let handler: Handler<R, S> = Box::new(move |message: R| {
        Box::pin(async move {
            let language = call.caller.language;
            // The caller's future only waits: no COMMIT lies in it, so dropping it can't leave one half done.
            let _gone = call.gone.clone().drop_guard();
            let own = call.clone();
            let work = async move { app.mutate(&own, message, prepare, run).await };
            let task = tokio::spawn(work.in_current_span());
            let answer = match task.await {
                Ok(answer) => answer,
                Err(e) => Err(Error::internal(format!(
                    "a call ended without an answer: {e}"
                ))),
            };
            match answer {
                Ok((answer, replayed)) => {
                    let mut response = GrpcResponse::new(answer);
                    if replayed {
                        response.metadata_mut().insert(
                            REPLAYED,
                            tonic::metadata::MetadataValue::from_static("true"),
                        );
                    }
                    Ok(response)
                }
                Err(e) => Err(answered(&e, &call, language)),
            }
        })
    });
    grpc::<S, R>().unary(Once(Some(handler)), request).await
}

/// One batch of a stream, and what comes after it.
pub struct Batch<T> {
    /// The message, if there is anything to say.
    pub message: Option<T>,
    /// What comes next.
    pub then: Then,
}

/// What comes after a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// More is there already.
    More,
    /// Look again when something was committed.
    Wait,
    /// That was all.
    End,
}

/// Carries out a method that streams out: each batch is a snapshot of its own, proven anew.
pub async fn stream_out<R, S, F, T>(
    app: App,
    request: HttpRequest<Body>,
    run: F,
) -> HttpResponse<Body>
where
    R: Request,
    S: Message + Send + Sync + 'static,
    T: Default + Send + 'static,
    F: for<'a> Fn(&'a Read, Proof, &'a R, &'a mut T) -> BoxFuture<'a, Result<Batch<S>>>
        + Send
        + Sync
        + 'static,
{
    let call = match call_of(&request) {
        Ok(call) => call,
        Err(error) => return error.to_status(Language::English).into_http(),
    };
    let handler: Handler<R, Answers<S>> = Box::new(move |message: R| {
        Box::pin(async move {
            let language = call.caller.language;
            let opened = open_stream(app, call.clone(), message, run).await;
            opened
                .map(GrpcResponse::new)
                .map_err(|e| answered(&e, &call, language))
        })
    });
    grpc::<S, R>()
        .server_streaming(OnceStream(Some(handler)), request)
        .await
}

/// Carries out a method that takes a stream of chunks: each is a mutation of its own, and the last one's answer is the call's. What was
/// committed stays, whatever comes after it.
pub async fn stream_in<R, S, F>(app: App, request: HttpRequest<Body>, run: F) -> HttpResponse<Body>
where
    R: Request,
    S: Message + Default + Redact + Clone + Send + Sync + 'static,
    F: for<'a> Fn(&'a mut Tx, Proof, R) -> BoxFuture<'a, Result<Outcome<S>>>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let call = match call_of(&request) {
        Ok(call) => call,
        Err(error) => return error.to_status(Language::English).into_http(),
    };
    let handler: Handler<Streaming<R>, S> = Box::new(move |chunks: Streaming<R>| {
        Box::pin(async move {
            let language = call.caller.language;
            let _gone = call.gone.clone().drop_guard();
            take_chunks(&app, &call, chunks, run)
                .await
                .map(GrpcResponse::new)
                .map_err(|e| answered(&e, &call, language))
        })
    });
    grpc::<S, R>()
        .client_streaming(OnceChunks(Some(handler)), request)
        .await
}

/// A client-streaming service made of one closure.
struct OnceChunks<R, S>(Option<Handler<Streaming<R>, S>>);

impl<R, S> ClientStreamingService<R> for OnceChunks<R, S> {
    type Response = S;
    type Future = BoxFuture<'static, std::result::Result<GrpcResponse<S>, Status>>;
    fn call(&mut self, request: GrpcRequest<Streaming<R>>) -> Self::Future {
        match self.0.take() {
            Some(run) => run(request.into_inner()),
            None => Box::pin(async {
                Err(Error::internal("a call came twice").to_status(Language::English))
            }),
        }
    }
}

async fn take_chunks<R, S, F>(app: &App, call: &Call, mut chunks: Streaming<R>, run: F) -> Result<S>
where
    R: Request,
    S: Message + Default + Redact + Clone + Send + Sync + 'static,
    F: for<'a> Fn(&'a mut Tx, Proof, R) -> BoxFuture<'a, Result<Outcome<S>>>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let _place = place_of_stream(app, call)?;
    let mut first: Option<(Named, R)> = None;
    let mut last: Option<S> = None;
    while let Some(chunk) = next_chunk(app, call, &mut chunks, first.as_ref()).await? {
        let named = proof::resolve(call.rule, &chunk)?;
        match &first {
            Some((begun, _)) if *begun != named => {
                return Err(Error::field(
                    named.first().map_or("parent", |(field, _)| *field),
                    "is another than in the first message of the stream",
                ));
            }
            Some(_) => {}
            None => first = Some((named, chunk.clone())),
        }
        let (own, run, app) = (call.clone(), run.clone(), app.clone());
        // As for unary calls: no COMMIT lies in a future that the caller can drop.
        let work = async move {
            app.mutate(
                &own,
                chunk,
                nothing_to_prepare::<R>,
                move |tx, proof, message, ()| run(tx, proof, message),
            )
            .await
        };
        let task = tokio::spawn(work.in_current_span());
        let (answer, _) = task
            .await
            .map_err(|e| Error::internal(format!("a chunk ended without an answer: {e}")))??;
        last = Some(answer);
    }
    last.ok_or_else(|| Error::malformed("the stream brought no message"))
}

/// What methods prepare that aren't marked so.
fn nothing_to_prepare<'a, R>(_: &'a Outside, _: Proof, _: &'a R) -> BoxFuture<'a, Result<()>> {
    Box::pin(async { Ok(()) })
}

/// The next chunk of a stream; while the client takes its time, its right to the first one is proven anew (COM-1).
async fn next_chunk<R: Request>(
    app: &App,
    call: &Call,
    chunks: &mut Streaming<R>,
    first: Option<&(Named, R)>,
) -> Result<Option<R>> {
    loop {
        tokio::select! {
            message = chunks.message() => return message.map_err(|status| {
                // Our codec's refusals are as bare as the framework's.
                Error::of_framework(status.code(), status.message(), call.rule.method)
            }),
            () = tokio::time::sleep_until(call.deadline) => return Err(Error::late()),
            () = app.draining.cancelled() => {
                return Err(Error::unavailable(Reason::ShuttingDown, "draining"));
            }
            () = tokio::time::sleep(PROVES_ANEW) => {
                if let Some((named, request)) = first {
                    app.open_batch(call, named, request).await?;
                }
            }
        }
    }
}

/// A place among the streams that are open at once: of the caller, of its tenant, of all.
fn place_of_stream(app: &App, call: &Call) -> Result<[OwnedSemaphorePermit; 3]> {
    let among = |key: Vec<u8>, most: usize| {
        let places = app.streams.get_with(key, || Arc::new(Semaphore::new(most)));
        places.try_acquire_owned().map_err(|_| {
            Error::exhausted(Reason::TooManyCalls, Some(Duration::from_secs(1)))
                .with("method", call.rule.method)
        })
    };
    let of_tenant = [b"streams of".as_slice(), call.caller.house().as_bytes()].concat();
    let overloaded = |_| Error::exhausted(Reason::Overloaded, Some(Duration::from_secs(1)));
    Ok([
        among(call.caller.key(), STREAMS_A_CALLER)?,
        among(of_tenant, STREAMS_A_TENANT)?,
        Arc::clone(&app.all_streams)
            .try_acquire_owned()
            .map_err(overloaded)?,
    ])
}

type Answers<S> = std::pin::Pin<Box<dyn Stream<Item = std::result::Result<S, Status>> + Send>>;

struct OnceStream<R, S>(Option<Handler<R, Answers<S>>>);

impl<R, S: 'static> ServerStreamingService<R> for OnceStream<R, S> {
    type Response = S;
    type ResponseStream = Answers<S>;
    type Future = BoxFuture<'static, std::result::Result<GrpcResponse<Answers<S>>, Status>>;
    fn call(&mut self, request: GrpcRequest<R>) -> Self::Future {
        match self.0.take() {
            Some(run) => run(request.into_inner()),
            None => Box::pin(async {
                Err(Error::internal("a call came twice").to_status(Language::English))
            }),
        }
    }
}

async fn open_stream<R, S, F, T>(app: App, call: Call, mut request: R, run: F) -> Result<Answers<S>>
where
    R: Request,
    S: Message + Send + Sync + 'static,
    T: Default + Send + 'static,
    F: for<'a> Fn(&'a Read, Proof, &'a R, &'a mut T) -> BoxFuture<'a, Result<Batch<S>>>
        + Send
        + Sync
        + 'static,
{
    let named = proof::resolve(call.rule, &request)?;
    let place = place_of_stream(&app, &call)?;
    // The first batch is made before the stream opens, so that a refusal is the call's status.
    let mut state = T::default();
    let (rd, proven) = app.open_batch(&call, &named, &request).await?;
    check(&mut request)?;
    let by_operator = proven.by_operator();
    let first = run(&rd, proven, &request, &mut state).await?;
    drop(rd);
    if let (true, Some(resource)) = (
        by_operator,
        named.iter().find_map(|(_, names)| names.first().copied()),
    ) {
        refusals::looked(&app, &call, resource).await?;
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    let work = async move {
        let _place = place;
        let mut batch = first;
        let mut looked = tokio::time::Instant::now();
        loop {
            if let Some(message) = batch.message {
                // A client that stops reading doesn't hold the stream beyond its deadline.
                let sent = tokio::select! {
                    sent = tokio::time::timeout_at(call.deadline, sender.send(Ok(message))) => sent.is_ok_and(|s| s.is_ok()),
                    () = app.draining.cancelled() => true,
                };
                if !sent {
                    return;
                }
            }
            let woken = app.committed.notified();
            match batch.then {
                Then::End => return,
                Then::More => {}
                Then::Wait => tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep(LOOKS_ANEW) => {}
                    () = app.draining.cancelled() => {}
                    () = sender.closed() => return,
                },
            }
            if matches!(batch.then, Then::Wait) {
                tokio::time::sleep_until(looked + LOOKS_APART).await;
            }
            looked = tokio::time::Instant::now();
            let next = if app.draining.is_cancelled() {
                Err(Error::unavailable(Reason::ShuttingDown, "draining"))
            } else {
                let end = call
                    .deadline
                    .min(tokio::time::Instant::now() + BATCH_WITHIN);
                let batch = next_batch(&app, &call, &named, &request, &run, &mut state);
                match tokio::time::timeout_at(end, batch).await {
                    Ok(batch) => batch,
                    Err(_) if end == call.deadline => Err(Error::late()),
                    Err(_) => Err(Error::unavailable(
                        Reason::DatabaseUnavailable,
                        "no batch in time",
                    )),
                }
            };
            batch = match next {
                Ok(batch) => batch,
                Err(error) => {
                    // If the client is gone, so is the wish for a status.
                    sender
                        .send(Err(answered(&error, &call, call.caller.language)))
                        .await
                        .ok();
                    return;
                }
            };
        }
    };
    tokio::spawn(work.in_current_span());
    Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(
        receiver,
    )))
}

async fn next_batch<R, S, F, T>(
    app: &App,
    call: &Call,
    named: &Named,
    request: &R,
    run: &F,
    state: &mut T,
) -> Result<Batch<S>>
where
    R: Request,
    F: for<'a> Fn(&'a Read, Proof, &'a R, &'a mut T) -> BoxFuture<'a, Result<Batch<S>>>,
{
    let (rd, proven) = app.open_batch(call, named, request).await?;
    run(&rd, proven, request, state).await
}

fn answered(error: &Error, call: &Call, language: Language) -> Status {
    match error.code() {
        tonic::Code::Internal => {
            tracing::error!(%error, method = call.rule.method, trace = %call.caller.trace_id, "a call failed")
        }
        tonic::Code::Unavailable => {
            tracing::warn!(%error, method = call.rule.method, "a call could not be served")
        }
        _ => tracing::debug!(%error, method = call.rule.method, "a call was refused"),
    }
    if error.reason() == Reason::Internal {
        return Error::internal("")
            .with("trace", call.caller.trace_id.clone())
            .to_status(language);
    }
    error.to_status(language)
}

/// The generated adapters, checks and tables.
#[expect(clippy::all, clippy::pedantic, reason = "generated from the protos")]
pub mod generated {
    include!(concat!(env!("OUT_DIR"), "/calls.rs"));
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves COM-1
    #[test]
    fn right_to_a_stream_is_proven_anew_within_5_seconds() {
        assert!(PROVES_ANEW.max(LOOKS_ANEW) < Duration::from_secs(5));
    }
}
