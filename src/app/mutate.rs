//! Calls that write: first proof, preparation, then claim, proof, function, audit, events and reply in one transaction, run again where it
//! lost against another.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use prost::Message;
use sea_orm::DbBackend;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::{
    App, Begin, Call, Outcome, Outside, Tx,
    attempt::{Attempt, Given},
    check, is_late_refusal,
    tx::Turn,
};
use crate::{
    access::{
        principal::Caller,
        proof::{self, Named},
        refusals,
        scope::Proof,
        token,
    },
    check::{Redact, Request},
    error::{Error, Result, reason_name},
    keys::{Mac, Purpose},
    proto::access::{CallKind, Idempotency},
    store::{
        idempotency::{self, Claim},
        list::fold,
        scope_key::ScopeKey,
    },
};

/// A transaction that lost against another is run again so often, then answered ABORTED.
pub(super) const MOST_ATTEMPTS: u32 = 10;
/// Writers of one scope that hold a connection at once; they would only wait for each other.
const WRITERS_A_SCOPE: usize = 4;
/// The first pause before another attempt; doubled each time, with jitter.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(2);

impl App {
    fn caller_mac(&self, caller: &Caller) -> Mac {
        self.keys.mac(Purpose::Request, &[b"caller", &caller.key()])
    }

    fn claim_of<R: Request>(&self, call: &Call, request: &R) -> Option<Claim> {
        if !call.rule.claims() || request.validate_only() {
            return None;
        }
        let mut request_id = Uuid::try_parse(request.request_id()).ok()?;
        if call.rule.kind == CallKind::StreamIn {
            // Each chunk of a stream is claimed by itself.
            let mac = self.keys.mac(
                Purpose::Request,
                &[
                    b"chunk",
                    request_id.as_bytes(),
                    &request.sequence().to_be_bytes(),
                ],
            );
            let mut first = [0; 16];
            first.copy_from_slice(&mac[..16]);
            request_id = Uuid::from_bytes(first);
        }
        let mut bare = request.clone();
        bare.clear_request_id();
        let caller = match call.rule.claimed_by() {
            "" => self.caller_mac(&call.caller),
            // No token came, so another alternative is to hold for the caller.
            field if call.caller.who.is_some() && request.text(field).is_empty() => {
                self.caller_mac(&call.caller)
            }
            // Of an open mutation: whoever brings the same token or address.
            field => self.keys.mac(
                Purpose::Request,
                &[
                    b"bearer",
                    field.as_bytes(),
                    fold(request.text(field)).as_bytes(),
                ],
            ),
        };
        Some(Claim {
            caller,
            request_id,
            method: call.rule.method.to_owned(),
            request: self.keys.mac(
                Purpose::Request,
                &[call.rule.method.as_bytes(), &bare.encode_to_vec()],
            ),
            for_ever: call.rule.declared.idempotency() == Idempotency::ForEver,
        })
    }

    /// The first proof of a call that writes, its checks, and, where marked, its preparation outside the transaction.
    ///
    /// # Errors
    /// Those of the proof, the checks and the preparation. A stored answer of a call that ended its caller's right comes as `Ok(Err(..))`.
    async fn first_proof<R, P, G>(
        &self,
        call: &Call,
        request: &mut R,
        prepare: G,
    ) -> Result<std::result::Result<(Named, P), Vec<u8>>>
    where
        R: Request,
        G: for<'a> Fn(&'a Outside, Proof, &'a R) -> BoxFuture<'a, Result<P>>,
    {
        let named = proof::resolve(call.rule, request)?;
        let (rd, proven) = self.proven(call, &named, request).await?;
        let proven = match proven {
            Ok(proven) => proven,
            Err(error) => {
                // Only where the claimed call itself ended the right is the stored answer given without it (COM-4).
                check(request).ok();
                if let Some(claim) = self.claim_of(call, request)
                    && let Ok(Some(stored)) = idempotency::look_up(rd.db(), &claim, rd.now()).await
                    && stored.ended_right
                {
                    return Ok(Err(stored.reply));
                }
                drop(rd);
                return Err(self.refuse(call, &named, error).await);
            }
        };
        check(request)?;
        if call.rule.declared.prepare
            && let Some(claim) = self.claim_of(call, request)
            && let Some(stored) = idempotency::look_up(rd.db(), &claim, rd.now()).await?
        {
            // What was prepared then may not be there any more; the answer is.
            return Ok(Err(stored.reply));
        }
        rd.end().await?;
        let outside = Outside {
            app: self.clone(),
            call: call.clone(),
        };
        match prepare(&outside, proven, request).await {
            Ok(prepared) => Ok(Ok((named, prepared))),
            Err(error) if is_late_refusal(&error) => Err(self.refuse(call, &named, error).await),
            Err(error) => Err(error),
        }
    }

    /// Carries out a call that writes.
    ///
    /// # Errors
    /// Those of the proof, the checks and the function; then nothing has changed, but for `Outcome::Refuse`.
    pub async fn mutate<R, S, P, G, F>(
        &self,
        call: &Call,
        mut request: R,
        prepare: G,
        run: F,
    ) -> Result<(S, bool)>
    where
        R: Request,
        S: Message + Default + Redact + Clone + Send + Sync + 'static,
        P: Clone + Send + Sync + 'static,
        G: for<'a> Fn(&'a Outside, Proof, &'a R) -> BoxFuture<'a, Result<P>>,
        F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>
            + Send
            + Sync
            + 'static,
    {
        let replayed = |bytes: Vec<u8>| -> Result<(S, bool)> {
            let stored = S::decode(bytes.as_slice())
                .map_err(|e| Error::internal(format!("a stored reply: {e}")))?;
            Ok((stored, true))
        };
        let (named, prepared) = match self
            .in_time(call, self.first_proof(call, &mut request, prepare))
            .await?
        {
            Ok(both) => both,
            Err(reply) => return replayed(reply),
        };
        let given = Arc::new(Given {
            app: self.clone(),
            call: call.clone(),
            claim: self.claim_of(call, &request),
            request,
            named,
            prepared,
            run,
        });
        match given.until_done().await? {
            Attempt::Done(answer) => Ok((answer, false)),
            Attempt::Replay(bytes) => replayed(bytes),
            Attempt::Refused(error) => {
                if error.code() == tonic::Code::Unauthenticated {
                    let reason = reason_name(error.reason());
                    refusals::unauthenticated(self, call.rule.method, reason, &call.caller);
                }
                Err(error)
            }
        }
    }

    fn turns(&self, scope: ScopeKey) -> Arc<Semaphore> {
        self.turns
            .get_with(scope, || Arc::new(Semaphore::new(WRITERS_A_SCOPE)))
    }

    /// Waits for a turn among the writers of a scope; what locks its first one later needs one then.
    pub(super) async fn turn(&self, scope: Option<&ScopeKey>) -> Result<Turn> {
        match scope {
            Some(scope) => {
                let turn = self.turns(*scope).acquire_owned().await;
                turn.map(Turn::Held)
                    .map_err(|e| Error::internal(e.to_string()))
            }
            None if self.db.backend == DbBackend::Postgres => Ok(Turn::Missing),
            None => Ok(Turn::Idle),
        }
    }

    /// A turn that nobody has to wait for.
    pub(super) fn turn_at_once(&self, scope: ScopeKey) -> Option<OwnedSemaphorePermit> {
        self.turns(scope).try_acquire_owned().ok()
    }

    /// Runs work until the deadline, or until the caller is gone; what it did is rolled back then.
    pub(super) async fn in_time<T>(
        &self,
        call: &Call,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            () = call.gone.cancelled() => Err(Error::cancelled()),
            done = tokio::time::timeout_at(call.deadline, work) => done.unwrap_or_else(|_| Err(Error::late())),
        }
    }
}

impl<R: Request, P, F> Given<R, P, F> {
    /// Whether the call may share its transaction: not if it is to be rolled back, and not if what it locks is found only in there.
    fn may_ride(&self) -> bool {
        self.call.rule.kind == CallKind::Mutation
            && !self.request.validate_only()
            && self.call.rule.token().is_none()
            && !self.app.lanes.are_apart()
    }

    /// Tries until it is done, or can't be.
    async fn until_done<S>(self: &Arc<Self>) -> Result<Attempt<S>>
    where
        S: Message + Default + Redact + Clone + Send + Sync + 'static,
        P: Clone + Send + Sync + 'static,
        F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>
            + Send
            + Sync
            + 'static,
    {
        let Self { app, call, .. } = &**self;
        let mut extra: Vec<ScopeKey> = Vec::new();
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let shared = if attempts == 1 && self.may_ride() {
                match app.lanes.alone() {
                    Some(_place) => Some(self.attempt(Begin::Lane, &[]).await),
                    None => self.ride().await.transpose(),
                }
            } else {
                None
            };
            let attempt = match shared {
                Some(attempt) => attempt,
                None => self.attempt(Begin::Write, &extra).await,
            };
            let error = match attempt {
                Ok(attempt) => return Ok(attempt),
                Err(error) => error,
            };
            if error.lacks_key() && attempts < MOST_ATTEMPTS {
                // In a task of its own, since it commits: a caller that leaves takes nothing along.
                let app = app.clone();
                let made = tokio::spawn(async move { token::rotate_keys(&app, false).await });
                made.await.map_err(|e| Error::internal(e.to_string()))??;
                continue;
            }
            let Some(needs) = error.again().map(<[ScopeKey]>::to_vec) else {
                // Without a lock that equal calls share, it may have lost against one that was committed meanwhile (COM-4).
                if self.scopes().is_empty()
                    && let Some(reply) = self.answered_before().await
                {
                    return Ok(Attempt::Replay(reply));
                }
                return Err(if is_late_refusal(&error) {
                    app.refuse(call, &self.named, error).await
                } else {
                    error
                });
            };
            if attempts >= MOST_ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(attempts, %error, "a transaction is run again");
            if needs.is_empty() {
                let jitter = u64::from(u16::from_be_bytes(app.env.bytes::<2>()));
                tokio::time::sleep(pause + pause.mul_f64(jitter as f64 / 65_536.0)).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            } else {
                extra = needs;
            }
        }
    }
}
