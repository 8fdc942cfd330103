//! Uploads and downloads: the bytes of one document as a stream. No transaction is open while they flow, and no more of them is in memory
//! than a part. The right is proven before, again at intervals, and for an upload once more by the mutation that ends it.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use futures_util::future::BoxFuture;
use http::{Request as HttpRequest, Response as HttpResponse};
use prost::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::{Response as GrpcResponse, Streaming, body::Body};
use tracing::Instrument as _;

use super::{
    Answers, Handler, OnceChunks, OnceStream, PROVES_ANEW, REPLAYED, answered, call_of, grpc,
    nothing_to_prepare, place_of_stream,
};
use crate::{
    access::{
        proof::{self, Named},
        refusals,
        roles::Permission,
        scope::Proof,
    },
    app::{App, Call, Outcome, Read, Tx, check},
    check::{Redact, Request},
    document::{self, Arrived, blobs::Upload, content::Watched},
    error::{Error, Language, Reason, Result},
    names::Name,
};

/// A document's bytes are there within so long, or the call is given up.
const WHOLE_WITHIN: Duration = Duration::from_secs(600);
/// The next message of an upload is there within so long.
const NEXT_WITHIN: Duration = Duration::from_secs(30);
/// How many bytes a second an upload brings at least, once it had some time: slower ones would keep others' places.
const LEAST_RATE: u64 = 4 * 1_024;
const RATE_COUNTS_AFTER: Duration = Duration::from_secs(20);
/// The most bytes that one message of an upload brings, as `content` declares.
const MOST_BYTES_A_MESSAGE: usize = 1_024 * 1_024;
/// Bytes that one message of a download brings.
const BYTES_A_MESSAGE: u64 = 512 * 1_024;
/// Uploads at once; each may keep a part in memory.
pub const UPLOADS_AT_ONCE: usize = 32;
/// Uploads of one caller at once, and of all of its tenant.
const UPLOADS_A_CALLER: usize = 4;
const UPLOADS_A_TENANT: usize = 8;

fn too_many(call: &Call) -> Error {
    Error::exhausted(Reason::TooManyCalls, Some(Duration::from_secs(1)))
        .with("method", call.rule.method)
}

/// A place among the uploads of the caller.
fn place_of_caller(app: &App, call: &Call) -> Result<OwnedSemaphorePermit> {
    let key = [b"upload".as_slice(), &call.caller.key()].concat();
    let own = app
        .streams
        .get_with(key, || Arc::new(Semaphore::new(UPLOADS_A_CALLER)));
    own.try_acquire_owned().map_err(|_| too_many(call))
}

/// A place among those of the caller's tenant, and among all uploads: for those who may upload.
fn place_of_upload(app: &App, call: &Call) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
    let key = [b"uploads of".as_slice(), call.caller.house().as_bytes()].concat();
    let of_tenant = app
        .streams
        .get_with(key, || Arc::new(Semaphore::new(UPLOADS_A_TENANT)));
    let of_tenant = of_tenant.try_acquire_owned().map_err(|_| too_many(call))?;
    let all = Arc::clone(&app.uploads).try_acquire_owned();
    let overloaded = |_| Error::exhausted(Reason::Overloaded, Some(Duration::from_secs(1)));
    Ok((of_tenant, all.map_err(overloaded)?))
}

/// The call, to be done before both its own deadline and ours.
fn in_time(call: &Call) -> Call {
    let mut call = call.clone();
    call.deadline = call.deadline.min(Instant::now() + WHOLE_WITHIN);
    call
}

/// What a stream's right is proven by, and when it was.
struct Proven<R> {
    named: Named,
    request: R,
    at: Instant,
}

impl<R: Request> Proven<R> {
    async fn anew(&mut self, app: &App, call: &Call) -> Result<()> {
        app.open_batch(call, &self.named, &self.request).await?;
        self.at = Instant::now();
        Ok(())
    }

    /// Proves it anew, and what the function demanded besides: before each part of what goes out.
    async fn still(&mut self, app: &App, call: &Call, demanded: Permission) -> Result<()> {
        let (rd, _) = app.open_batch(call, &self.named, &self.request).await?;
        let demanded = rd.demand(demanded, Name::Operator).await;
        drop(rd);
        match demanded {
            Ok(()) => Ok(()),
            Err(error) => Err(app.refuse(call, &self.named, error).await),
        }
    }

    async fn anew_if_due(&mut self, app: &App, call: &Call) -> Result<()> {
        if self.at.elapsed() < PROVES_ANEW {
            return Ok(());
        }
        self.anew(app, call).await
    }
}

/// Carries out a method that takes the bytes of a document.
pub async fn upload<R, S, F>(app: App, request: HttpRequest<Body>, run: F) -> HttpResponse<Body>
where
    R: Request,
    S: Message + Default + Redact + Clone + Send + Sync + 'static,
    F: for<'a> Fn(&'a mut Tx, Proof, R, Arrived) -> BoxFuture<'a, Result<Outcome<S>>>
        + Send
        + Sync
        + 'static,
{
    let call = match call_of(&request) {
        Ok(call) => in_time(&call),
        Err(error) => return error.to_status(Language::English).into_http(),
    };
    let handler: Handler<Streaming<R>, S> = Box::new(move |parts: Streaming<R>| {
        Box::pin(async move {
            let language = call.caller.language;
            let _gone = call.gone.clone().drop_guard();
            let (answer, replayed) = take_upload(&app, &call, parts, run)
                .await
                .map_err(|e| answered(&e, &call, language))?;
            let mut response = GrpcResponse::new(answer);
            if replayed {
                let yes = tonic::metadata::MetadataValue::from_static("true");
                response.metadata_mut().insert(REPLAYED, yes);
            }
            Ok(response)
        })
    });
    grpc::<S, R>()
        .client_streaming(OnceChunks(Some(handler)), request)
        .await
}

async fn take_upload<R, S, F>(
    app: &App,
    call: &Call,
    mut parts: Streaming<R>,
    run: F,
) -> Result<(S, bool)>
where
    R: Request,
    S: Message + Default + Redact + Clone + Send + Sync + 'static,
    F: for<'a> Fn(&'a mut Tx, Proof, R, Arrived) -> BoxFuture<'a, Result<Outcome<S>>>
        + Send
        + Sync
        + 'static,
{
    let _own_place = place_of_caller(app, call)?;
    let Some(mut request) = next_part::<R>(app, call, &mut parts, None).await? else {
        return Err(Error::malformed("the stream brought no message"));
    };
    let mut proven = Proven {
        named: proof::resolve(call.rule, &request)?,
        request: request.clone(),
        at: Instant::now(),
    };
    let (rd, proof) = app.open_batch(call, &proven.named, &request).await?;
    check(&mut request)?;
    let _place = place_of_upload(app, call)?;
    // Before bytes come that would have no room; once more when they are kept.
    if let Some(who) = call.caller.who {
        let account = proof.account().ok().map(|scope| scope.id());
        document::within_bounds(rd.db(), account, who.principal, 1).await?;
    }
    drop(rd);
    if request.content().is_some_and(|c| !c.is_empty()) {
        return Err(Error::field(
            "content",
            "comes after the first message, which says what it is",
        ));
    }
    let mut watched = Watched::default();
    let mut upload = match request.validate_only() {
        true => None,
        false => Some(Upload::begin(app).await?),
    };
    let (began, mut came) = (Instant::now(), 0);
    while let Some(mut part) = next_part(app, call, &mut parts, Some(&mut proven)).await? {
        let content = part.content().map(std::mem::take).unwrap_or_default();
        if content.is_empty() || content.len() > MOST_BYTES_A_MESSAGE || part.encoded_len() > 0 {
            return Err(Error::field(
                "content",
                format!(
                    "is all that a message after the first one holds, 1 to {MOST_BYTES_A_MESSAGE} bytes"
                ),
            ));
        }
        watched.take(&content)?;
        came += content.len() as u64;
        let took = began.elapsed();
        if took > RATE_COUNTS_AFTER && came < LEAST_RATE * took.as_secs() {
            return Err(Error::late());
        }
        if let Some(upload) = &mut upload {
            upload.write(&content).await?;
        }
        proven.anew_if_due(app, call).await?;
    }
    let arrived = watched.end()?;
    // What a repetition has to bring again: the same bytes.
    if let Some(content) = request.content() {
        *content = arrived.sha256.to_vec();
    }
    let loose = match upload {
        Some(upload) => Some(upload.finish().await?),
        None => None,
    };
    let arrived = Arrived {
        content: arrived,
        blob_key: loose.as_ref().map(|l| l.key().to_owned()),
    };
    let (own, app) = (call.clone(), app.clone());
    // As for unary calls: no COMMIT lies in a future that the caller can drop; nor what becomes of the bytes.
    let work = async move {
        let done = app
            .mutate(
                &own,
                request,
                nothing_to_prepare::<R>,
                move |tx, proof, request, ()| run(tx, proof, request, arrived.clone()),
            )
            .await;
        if let (Ok((_, false)), Some(loose)) = (&done, loose) {
            loose.taken();
        }
        done
    };
    let task = tokio::spawn(work.in_current_span());
    task.await
        .map_err(|e| Error::internal(format!("an upload ended without an answer: {e}")))?
}

/// The next message of an upload; while the client takes its time, its right is proven anew (COM-1).
async fn next_part<R: Request>(
    app: &App,
    call: &Call,
    parts: &mut Streaming<R>,
    mut proven: Option<&mut Proven<R>>,
) -> Result<Option<R>> {
    let end = call.deadline.min(Instant::now() + NEXT_WITHIN);
    loop {
        tokio::select! {
            message = parts.message() => return message.map_err(|status| {
                // Our codec's refusals are as bare as the framework's.
                Error::of_framework(status.code(), status.message(), call.rule.method)
            }),
            // A server that stops waits for it as for every call, no longer than it is set to.
            () = tokio::time::sleep_until(end) => return Err(Error::late()),
            () = tokio::time::sleep(PROVES_ANEW) => {
                if let Some(proven) = &mut proven {
                    proven.anew(app, call).await?;
                }
            }
        }
    }
}

/// A document on its way out.
pub struct Download<S> {
    /// The first message, which says what comes.
    pub first: S,
    /// What is audited as looked at.
    pub looked_at: Name,
    /// Where the bytes are.
    pub blob_key: String,
    /// How many they are.
    pub size: u64,
    /// What they are.
    pub sha256: Vec<u8>,
    /// What is demanded of the caller on the operator, for as long as bytes go out.
    pub demanded: Permission,
    /// Makes a message of bytes.
    pub part: fn(Vec<u8>) -> S,
}

/// Carries out a method that answers the bytes of a document.
pub async fn download<R, S, F>(app: App, request: HttpRequest<Body>, run: F) -> HttpResponse<Body>
where
    R: Request,
    S: Message + Send + Sync + 'static,
    F: for<'a> Fn(&'a Read, Proof, R) -> BoxFuture<'a, Result<Download<S>>> + Send + Sync + 'static,
{
    let call = match call_of(&request) {
        Ok(call) => in_time(&call),
        Err(error) => return error.to_status(Language::English).into_http(),
    };
    let handler: Handler<R, Answers<S>> = Box::new(move |message: R| {
        Box::pin(async move {
            let language = call.caller.language;
            let opened = open_download(app, call.clone(), message, run).await;
            opened
                .map(GrpcResponse::new)
                .map_err(|e| answered(&e, &call, language))
        })
    });
    grpc::<S, R>()
        .server_streaming(OnceStream(Some(handler)), request)
        .await
}

async fn open_download<R, S, F>(app: App, call: Call, mut request: R, run: F) -> Result<Answers<S>>
where
    R: Request,
    S: Message + Send + Sync + 'static,
    F: for<'a> Fn(&'a Read, Proof, R) -> BoxFuture<'a, Result<Download<S>>> + Send + Sync + 'static,
{
    let named = proof::resolve(call.rule, &request)?;
    let place = place_of_stream(&app, &call)?;
    let (rd, proof) = app.open_batch(&call, &named, &request).await?;
    let mut proven = Proven {
        named,
        request: request.clone(),
        at: Instant::now(),
    };
    check(&mut request)?;
    let found = run(&rd, proof, request).await;
    drop(rd);
    let found = match found {
        Err(error) if error.code() == tonic::Code::PermissionDenied => {
            return Err(app.refuse(&call, &proven.named, error).await);
        }
        found => found?,
    };
    // Nothing goes out before it stands in the audit.
    refusals::looked(&app, &call, found.looked_at).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let work = async move {
        let _place = place;
        let Download {
            first,
            blob_key,
            size,
            sha256,
            demanded,
            part,
            looked_at: _,
        } = found;
        let (mut at, mut next) = (0, Ok(first));
        let mut read = digest::Context::new(&digest::SHA256);
        loop {
            let failed = next.is_err();
            let message = next.map_err(|e| answered(&e, &call, call.caller.language));
            let sent = tokio::time::timeout_at(call.deadline, sender.send(message)).await;
            // If the client is gone, or stopped reading, so is the wish for more.
            if failed || at >= size || !sent.is_ok_and(|sent| sent.is_ok()) {
                return;
            }
            let most = BYTES_A_MESSAGE.min(size - at);
            next = match proven.still(&app, &call, demanded).await {
                Ok(()) => app.blobs.read(&blob_key, at, most).await,
                Err(error) => Err(error),
            }
            .and_then(|bytes| {
                at += bytes.len() as u64;
                read.update(&bytes);
                let is_other = at >= size && read.clone().finish().as_ref() != sha256;
                if bytes.is_empty() || at > size || is_other {
                    return Err(Error::internal("a blob isn't what its document says"));
                }
                Ok(part(bytes))
            });
        }
    };
    tokio::spawn(work.in_current_span());
    Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(
        receiver,
    )))
}
