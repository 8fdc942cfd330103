//! One attempt at a call that writes: locks, proof, claim, function, audit, events and reply, in a transaction of its own or in one that
//! others share.

use futures_util::future::BoxFuture;
use prost::Message;

use super::{
    App, Begin, Call, Outcome, Tx, origin_of,
    tx::{Turn, UnderWay},
};
use crate::{
    access::{
        cache::Facts,
        principal::Authenticated,
        proof::{self, Named},
        rules::Demand,
        scope::Proof,
    },
    check::{Redact, Request},
    error::{Error, Reason, Result, reason_name},
    store::{
        idempotency::{self, Claim},
        scope_key::ScopeKey,
        work::{Origin, Work},
    },
};

/// What an attempt came to.
pub(super) enum Attempt<S> {
    /// Committed, with the answer.
    Done(S),
    /// Answered before.
    Replay(Vec<u8>),
    /// Committed, with a refusal.
    Refused(Error),
}

/// What an attempt came to, with the reply that its claim stores.
pub(super) type Carried<S> = (Attempt<S>, Vec<u8>);

/// Proofs made in one transaction: what was asked, and how many statements had written when it was.
#[derive(Default)]
pub(super) struct Proofs(Vec<(Asked, u64, Proof)>);

/// All that a proof depends on but what the database holds.
#[derive(PartialEq)]
struct Asked {
    method: &'static str,
    who: Option<Authenticated>,
    via: Option<Authenticated>,
    named: Named,
    /// Of each permission that is demanded only where a field is set: whether it is.
    set: Vec<bool>,
}

impl Asked {
    fn of<R: Request, P, F>(given: &Given<R, P, F>) -> Self {
        let Call { rule, caller, .. } = &given.call;
        let pairs = rule.any_of.iter().flat_map(|a| match &a.demand {
            Demand::All(pairs) => pairs.as_slice(),
            _ => &[],
        });
        let set = pairs
            .filter(|pair| !pair.when_set.is_empty())
            .map(|pair| given.request.is_set(pair.when_set))
            .collect();
        Self {
            method: rule.method,
            who: caller.who,
            via: caller.via,
            named: given.named.clone(),
            set,
        }
    }
}

/// All that a call has come to before its transaction.
pub(super) struct Given<R, P, F> {
    pub(super) app: App,
    pub(super) call: Call,
    pub(super) request: R,
    pub(super) named: Named,
    pub(super) claim: Option<Claim>,
    pub(super) prepared: P,
    pub(super) run: F,
}

impl<R: Request, P: Clone, F> Given<R, P, F> {
    /// The scopes that the rule speaks of.
    pub(super) fn scopes(&self) -> Vec<ScopeKey> {
        proof::scopes(self.call.rule, &self.named, &self.call.caller)
    }

    /// What the function is given to write by.
    pub(super) fn tx(&self, work: Work, turn: Turn) -> Tx {
        Tx {
            app: self.app.clone(),
            caller: self.call.caller.clone(),
            method: self.call.rule.method,
            work,
            validate_only: self.request.validate_only(),
            lent: None,
            moved_to: None,
            turn,
        }
    }

    /// An attempt in a transaction of its own; `extra` are scopes that are locked besides those of the rule.
    pub(super) async fn attempt<S>(&self, kind: Begin, extra: &[ScopeKey]) -> Result<Attempt<S>>
    where
        S: Message + Default + Redact + Clone,
        F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>,
    {
        let work = async {
            let scopes = self.scopes();
            let turn = self.app.turn(scopes.last().or(extra.last())).await?;
            let mut under_way = UnderWay::new(self.tx(self.app.open(kind).await?, turn));
            let tx = under_way.tx()?;
            let carried = self.carry(tx, extra, &mut Proofs::default()).await?;
            if !tx.validate_only {
                tx.batch().write().await?;
            }
            Ok((under_way, carried))
        };
        let (under_way, (answer, reply)) = self.app.in_time(&self.call, work).await?;
        let tx = under_way.into_tx()?;
        let (validate_only, _turn) = (tx.validate_only, tx.turn);
        let batch = tx.work.into_batch();
        if validate_only {
            batch.into_parts().0.rollback().await?;
            return Ok(match answer {
                Attempt::Done(mut answer) => {
                    answer.redact();
                    Attempt::Done(answer)
                }
                other => other,
            });
        }
        // From here on nothing stops it: a commit that has begun is finished (COM-13).
        match self.app.commit(batch).await {
            Ok(()) => Ok(answer),
            Err(fault) => {
                let error = Error::from(fault);
                if error.again().is_some() {
                    return Err(error);
                }
                self.after_broken_commit((answer, reply), &error.to_string())
                    .await
            }
        }
    }

    /// The connection broke while committing: the claim tells whether it was done.
    pub(super) async fn after_broken_commit<S>(
        &self,
        (answer, reply): Carried<S>,
        fault: &str,
    ) -> Result<Attempt<S>> {
        if let Some(stored) = self.answered_before().await {
            // Ours, or that of a repetition which came between: only ours may show its secrets.
            return Ok(if stored == reply {
                answer
            } else {
                Attempt::Replay(stored)
            });
        }
        Err(Error::unavailable(
            Reason::DatabaseUnavailable,
            format!("the commit's outcome is unknown: {fault}"),
        ))
    }

    /// The stored answer of the call's claim, outside of any transaction; None also if it can't be asked for.
    pub(super) async fn answered_before(&self) -> Option<Vec<u8>> {
        let claim = self.claim.as_ref()?;
        let now = self.app.now().await.ok()?;
        let stored = idempotency::look_up(&self.app.db.read, claim, now).await;
        Some(stored.ok()??.reply)
    }

    /// The proof, from memory or from the transaction.
    async fn prove<D: Facts>(&self, db: &D, tx: &Tx) -> Result<Proof> {
        proof::prove(
            db,
            &self.app.keys,
            &self.call.caller,
            self.call.rule,
            &self.named,
            &self.request,
            tx.now(),
        )
        .await
    }

    /// The proof that the function is given: made after the lock, or by an earlier call of the same caller in the same transaction, if
    /// nothing was written since that it may rest on.
    async fn prove_first(&self, tx: &mut Tx, proofs: &mut Proofs) -> Result<Proof> {
        let writes = tx.batch().writes();
        let asked = Asked::of(self);
        let made = proofs
            .0
            .iter()
            .find(|(a, at, _)| *a == asked && *at == writes);
        if let Some((_, _, proof)) = made {
            return Ok(proof.clone());
        }
        tx.db().proving(true);
        let proof = self.prove(tx, tx).await;
        tx.db().proving(false);
        if let Ok(proof) = &proof {
            proofs.0.retain(|(_, at, _)| *at == writes);
            proofs.0.push((asked, writes, proof.clone()));
        }
        proof
    }

    /// Everything but what the batch writes at its end. After an error it holds nothing of this call but locks, unless a statement of the
    /// function wrote.
    pub(super) async fn carry<S>(
        &self,
        tx: &mut Tx,
        extra: &[ScopeKey],
        proofs: &mut Proofs,
    ) -> Result<Carried<S>>
    where
        S: Message + Default + Redact + Clone,
        F: for<'a> Fn(&'a mut Tx, Proof, R, P) -> BoxFuture<'a, Result<Outcome<S>>>,
    {
        let Self { app, call, .. } = self;
        // What a mailed token is about is locked before it is proven, so that it is redeemed once.
        let link = proof::link_of(tx.db(), &app.keys, call.rule, &self.request, tx.now()).await?;
        let more = link.map(|link| link.scope);
        let more = more.into_iter().chain(extra.iter().copied());
        if more.clone().next().is_none() {
            tx.lock_proven(self.scopes()).await?;
        } else {
            tx.lock(more.chain(self.scopes())).await?;
        }
        tx.batch().prepare(&self.claim, &app.memory).await?;
        let now = tx.now();
        let proven = match self.prove_first(tx, proofs).await {
            Ok(proven) => proven,
            Err(error) => {
                // The same call, a moment ago, may have ended the right: then its answer is given.
                if let Some(claim) = &self.claim
                    && let Ok(Some(found)) = tx.batch().claimed(claim).await
                    && let Ok(Some(stored)) = found.answer(claim, now)
                    && stored.ended_right
                {
                    return Ok((Attempt::Replay(stored.reply), Vec::new()));
                }
                return Err(error);
            }
        };
        if let Some(claim) = &self.claim
            && let Some(found) = tx.batch().claimed(claim).await?
            && let Some(stored) = found.answer(claim, now)?
        {
            return Ok((Attempt::Replay(stored.reply), Vec::new()));
        }
        let touched: Vec<_> = proven.scopes().collect();
        for scope in touched {
            tx.touch(scope);
        }
        tx.lent = proven.lent();
        let ran = (self.run)(tx, proven, self.request.clone(), self.prepared.clone());
        let (answer, outcome) = match ran.await? {
            Outcome::Done(answer) => (Attempt::Done(answer), "OK"),
            Outcome::Refuse(error) => {
                let outcome = reason_name(error.reason());
                (Attempt::Refused(error), outcome)
            }
        };
        if tx.validate_only {
            // What its rows would break is told too.
            tx.db().flush().await?;
            return Ok((answer, Vec::new()));
        }
        let ended = match (&answer, call.caller.who) {
            (Attempt::Done(_), who)
                if self.claim.is_some()
                    && (link.is_some() || who.is_some_and(|who| tx.told_of(who.principal.id))) =>
            {
                match self.prove(tx.db(), tx).await {
                    Ok(_) => false,
                    // A database that failed says nothing about rights; what was begun may be gone already.
                    Err(error) if error.again().is_some() || error.is_ours() => return Err(error),
                    Err(_) => true,
                }
            }
            _ => false,
        };
        let event_id = tx.id();
        let with_events = call.rule.claims();
        let origin = Origin {
            relationship: tx
                .lent
                .map_or_else(String::new, |lent| lent.name().to_string()),
            ..origin_of(call)
        };
        tx.work
            .finish(&app.keys, &origin, outcome, event_id, with_events)
            .await?;
        let mut reply = Vec::new();
        // Only successes are claimed and replayed.
        if let (Some(claim), Attempt::Done(answer)) = (&self.claim, &answer) {
            let mut stored = answer.clone();
            stored.redact();
            reply = stored.encode_to_vec();
            let kept_from = tx.moved_to.unwrap_or(now);
            tx.batch().claim(claim, &reply, ended, now, kept_from);
        }
        Ok((answer, reply))
    }
}
