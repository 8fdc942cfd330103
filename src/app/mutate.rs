//! Calls that write: first proof, preparation, then claim, proof, function, audit, events and reply in one transaction, run again where it
//! lost against another.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use prost::Message;
use uuid::Uuid;

use super::{App, Call, Outcome, Outside, Read, Tx, check, is_late_refusal, origin_of};
use crate::{
    access::{
        principal::Caller,
        proof::{self, Named},
        refusals,
        scope::Proof,
        token,
    },
    check::{Redact, Request},
    error::{Error, Reason, Result, reason_name},
    keys::{Mac, Purpose},
    proto::access::{CallKind, Idempotency},
    store::{
        idempotency::{self, Claim, Claimed},
        list::fold,
        scope_key::ScopeKey,
        work::Work,
    },
};

/// A transaction that lost against another is run again so often, then answered ABORTED.
pub(super) const MOST_ATTEMPTS: u32 = 10;
/// Writers of one scope that hold a connection at once; they would only wait for each other.
const WRITERS_A_SCOPE: usize = 4;
/// The first pause before another attempt; doubled each time, with jitter.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// What an attempt came to.
enum Attempt<S> {
    /// Committed, with the answer.
    Done(S),
    /// Answered before.
    Replay(Vec<u8>),
    /// Committed, with a refusal.
    Refused(Error),
}

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
        let (rd, proven) = {
            let rd = Read::in_snapshot(self, call).await?;
            let now = rd.now();
            match proof::prove(
                rd.db(),
                &self.keys,
                &call.caller,
                call.rule,
                &named,
                request,
                now,
            )
            .await
            {
                Ok(proven) => (rd, proven),
                Err(error) => {
                    // Only where the claimed call itself ended the right is the stored answer given without it (COM-4).
                    check(request).ok();
                    if let Some(claim) = self.claim_of(call, request)
                        && let Ok(Some(stored)) = idempotency::look_up(rd.db(), &claim, now).await
                        && stored.ended_right
                    {
                        return Ok(Err(stored.reply));
                    }
                    drop(rd);
                    return Err(self.refuse(call, &named, error).await);
                }
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
        S: Message + Default + Redact + Clone,
        P: Clone,
        G: for<'a> Fn(&'a Outside, Proof, &'a R) -> BoxFuture<'a, Result<P>>,
        F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>,
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
        let claim = self.claim_of(call, &request);
        let mut extra: Vec<ScopeKey> = Vec::new();
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let attempt = self
                .attempt(
                    call,
                    &request,
                    &named,
                    claim.as_ref(),
                    &extra,
                    &prepared,
                    &run,
                )
                .await;
            match attempt {
                Ok(Attempt::Done(answer)) => {
                    self.committed.notify_waiters();
                    return Ok((answer, false));
                }
                Ok(Attempt::Replay(bytes)) => return replayed(bytes),
                Ok(Attempt::Refused(error)) => {
                    if error.code() == tonic::Code::Unauthenticated {
                        refusals::unauthenticated(
                            self,
                            call.rule.method,
                            reason_name(error.reason()),
                            &call.caller,
                        );
                    }
                    return Err(error);
                }
                Err(error) if error.lacks_key() && attempts < MOST_ATTEMPTS => {
                    // In a task of its own, since it commits: a caller that leaves takes nothing along.
                    let app = self.clone();
                    let made = tokio::spawn(async move { token::rotate_keys(&app, false).await });
                    made.await.map_err(|e| Error::internal(e.to_string()))??;
                }
                Err(error) => {
                    let Some(needs) = error.again().map(<[ScopeKey]>::to_vec) else {
                        return Err(if is_late_refusal(&error) {
                            self.refuse(call, &named, error).await
                        } else {
                            error
                        });
                    };
                    if attempts >= MOST_ATTEMPTS {
                        return Err(error);
                    }
                    tracing::debug!(attempts, %error, "a transaction is run again");
                    if needs.is_empty() {
                        let jitter = u64::from(u16::from_be_bytes(self.env.bytes::<2>()));
                        tokio::time::sleep(pause + pause.mul_f64(jitter as f64 / 65_536.0)).await;
                        pause = (pause * 2).min(Duration::from_millis(100));
                    } else {
                        extra = needs;
                    }
                }
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one attempt is given all that the call has come to"
    )]
    async fn attempt<R, S, P, F>(
        &self,
        call: &Call,
        request: &R,
        named: &Named,
        claim: Option<&Claim>,
        extra: &[ScopeKey],
        prepared: &P,
        run: &F,
    ) -> Result<Attempt<S>>
    where
        R: Request,
        S: Message + Default + Redact + Clone,
        P: Clone,
        F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>,
    {
        let work = async {
            let mut scopes = proof::scopes(call.rule, named, &call.caller);
            let _turn = match scopes.last() {
                Some(scope) => Some(self.turn(*scope).await?),
                None => None,
            };
            let mut tx = Tx {
                app: self.clone(),
                caller: call.caller.clone(),
                method: call.rule.method,
                work: Work::new(self.snapshot(true).await?),
                validate_only: request.validate_only(),
                moved_to: None,
            };
            // What a mailed token is about is locked before it is proven, so that it is redeemed once.
            let link = proof::link_of(tx.db(), &self.keys, call.rule, request, tx.now()).await?;
            scopes.extend(link.map(|link| link.scope));
            tx.lock(scopes.into_iter().chain(extra.iter().copied()))
                .await?;
            let now = tx.now();
            let proven = match proof::prove(
                tx.db(),
                &self.keys,
                &call.caller,
                call.rule,
                named,
                request,
                now,
            )
            .await
            {
                Ok(proven) => proven,
                Err(error) => {
                    // The same call, a moment ago, may have ended the right: then its answer is given.
                    if let Some(claim) = claim
                        && let Ok(Some(stored)) = idempotency::look_up(tx.db(), claim, now).await
                        && stored.ended_right
                    {
                        return Ok((tx, Attempt::Replay(stored.reply), Vec::new()));
                    }
                    return Err(error);
                }
            };
            if let Some(claim) = claim
                && let Claimed::Replay(reply) = idempotency::claim(tx.db(), claim, now).await?
            {
                return Ok((tx, Attempt::Replay(reply), Vec::new()));
            }
            let touched: Vec<_> = proven.scopes().collect();
            for scope in touched {
                tx.touch(scope);
            }
            let (answer, outcome) =
                match run(&mut tx, proven, request.clone(), prepared.clone()).await? {
                    Outcome::Done(answer) => (Attempt::Done(answer), "OK"),
                    Outcome::Refuse(error) => {
                        let outcome = reason_name(error.reason());
                        (Attempt::Refused(error), outcome)
                    }
                };
            if tx.validate_only {
                return Ok((tx, answer, Vec::new()));
            }
            let event_id = tx.id();
            let origin = origin_of(call);
            let ended = match (&answer, call.caller.who) {
                (Attempt::Done(_), who)
                    if claim.is_some()
                        && (link.is_some()
                            || who.is_some_and(|who| tx.told_of(who.principal.id))) =>
                {
                    let again = proof::prove(
                        tx.db(),
                        &self.keys,
                        &call.caller,
                        call.rule,
                        named,
                        request,
                        now,
                    );
                    match again.await {
                        Ok(_) => false,
                        // A database that failed says nothing about rights; what was begun may be gone already.
                        Err(error) if error.again().is_some() || error.is_ours() => {
                            return Err(error);
                        }
                        Err(_) => true,
                    }
                }
                _ => false,
            };
            let with_events = call.rule.claims();
            tx.work
                .finish(&self.keys, &origin, outcome, event_id, with_events)
                .await?;
            let mut reply = Vec::new();
            match (claim, &answer) {
                (Some(claim), Attempt::Done(answer)) => {
                    let mut stored = answer.clone();
                    stored.redact();
                    reply = stored.encode_to_vec();
                    let kept_from = tx.moved_to.unwrap_or(now);
                    idempotency::settle(tx.db(), claim, &reply, ended, kept_from).await?;
                }
                (Some(claim), _) => idempotency::give_up(tx.db(), claim).await?,
                (None, _) => {}
            }
            Ok((tx, answer, reply))
        };
        let (tx, answer, reply) = self.in_time(call, work).await?;
        if tx.validate_only {
            tx.work.into_db().rollback().await?;
            return Ok(match answer {
                Attempt::Done(mut answer) => {
                    answer.redact();
                    Attempt::Done(answer)
                }
                other => other,
            });
        }
        // From here on nothing stops it: a commit that has begun is finished (COM-13).
        if let Err(fault) = self.commit(tx.work.into_db()).await? {
            let error = Error::from(fault);
            if error.again().is_some() {
                return Err(error);
            }
            // The connection broke while committing: the claim tells whether it was done.
            if let Some(claim) = claim
                && let Ok(now) = self.now().await
                && let Ok(Some(stored)) = idempotency::look_up(&self.db.read, claim, now).await
            {
                // Ours, or that of a repetition which came between: only ours may show its secrets.
                return Ok(if stored.reply == reply {
                    answer
                } else {
                    Attempt::Replay(stored.reply)
                });
            }
            return Err(Error::unavailable(
                Reason::DatabaseUnavailable,
                format!("the commit's outcome is unknown: {error}"),
            ));
        }
        Ok(answer)
    }

    async fn turn(&self, scope: ScopeKey) -> Result<tokio::sync::OwnedSemaphorePermit> {
        let turns = self.turns.get_with(scope, || {
            Arc::new(tokio::sync::Semaphore::new(WRITERS_A_SCOPE))
        });
        turns
            .acquire_owned()
            .await
            .map_err(|e| Error::internal(e.to_string()))
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
