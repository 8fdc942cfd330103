//! A transaction from inside: what may be read, locked, inserted and told. It begins and ends in `app/` only.

use std::{collections::BTreeSet, sync::Arc};

use sea_orm::{ActiveModelTrait, DatabaseTransaction, IntoActiveModel};
use uuid::Uuid;

use super::{
    audit::Body,
    batch::Batch,
    outbox::{Event, Told},
    payload,
    scope_key::ScopeKey,
    writes::Writes,
};
use crate::{
    env::{MINUTE_US, Micros},
    error::Result,
    keys::Keys,
};

/// A transaction that reads.
pub struct Snapshot {
    db: DatabaseTransaction,
    now: Micros,
}

impl Snapshot {
    /// Wraps a transaction that has begun. `offset` is the test clock's.
    pub(crate) fn new(db: DatabaseTransaction, now: Micros) -> Self {
        Self { db, now }
    }

    /// The connection, for queries.
    #[must_use]
    pub fn db(&self) -> &DatabaseTransaction {
        &self.db
    }

    /// The one instant of this transaction, in microseconds.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.now
    }

    pub(crate) fn into_db(self) -> DatabaseTransaction {
        self.db
    }
}

/// Who did it, for audit and events.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The method or job.
    pub action: String,
    /// The principal's name; empty for nobody.
    pub actor: String,
    /// The application acted through.
    pub via: String,
    /// The relationship by which the actor acted for a customer.
    pub relationship: String,
    /// The caller's address.
    pub client_address: String,
    /// The W3C trace ID.
    pub trace_id: String,
}

/// A transaction that writes, as one call sees it; others may share it.
pub struct Work {
    batch: Batch,
    now: Micros,
    /// Scopes that this call locked.
    locked: BTreeSet<ScopeKey>,
    touched: BTreeSet<ScopeKey>,
    events: Vec<Event>,
    changed_fields: BTreeSet<&'static str>,
    resources: Vec<String>,
    actor: Option<String>,
    /// What somebody has by groups changed.
    regrouped: bool,
}

impl Work {
    pub(crate) fn new(batch: Batch, now: Micros) -> Self {
        Self {
            batch,
            now,
            locked: BTreeSet::new(),
            touched: BTreeSet::new(),
            events: Vec::new(),
            changed_fields: BTreeSet::new(),
            resources: Vec::new(),
            actor: None,
            regrouped: false,
        }
    }

    /// The connection, for queries and updates.
    #[must_use]
    pub fn db(&self) -> &Writes {
        &self.batch.db
    }

    /// The one instant of this call, in microseconds.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.now
    }

    /// Whether what memory holds is what a statement would read.
    pub(crate) fn is_vouched_for(&self) -> bool {
        self.batch.is_vouched_for()
    }

    pub(crate) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    pub(crate) fn into_batch(self) -> Batch {
        self.batch
    }

    /// Locks scopes that exist, in their order. One that lies before a scope locked already can't be locked without danger of
    /// deadlock: then the whole begins again with all of them locked first. Scopes without a head are left out: they don't exist.
    ///
    /// # Errors
    /// Those of the database, and the wish to begin again.
    pub async fn lock(&mut self, scopes: impl IntoIterator<Item = ScopeKey>) -> Result<()> {
        let scopes: BTreeSet<_> = scopes.into_iter().collect();
        self.batch
            .lock(scopes.iter().copied(), &self.locked)
            .await?;
        self.has_locked(scopes);
        Ok(())
    }

    /// Locks scopes that the caller was proven on.
    ///
    /// # Errors
    /// As `lock`.
    pub(crate) async fn lock_proven(
        &mut self,
        scopes: impl IntoIterator<Item = ScopeKey>,
    ) -> Result<()> {
        let scopes: BTreeSet<_> = scopes.into_iter().collect();
        self.batch
            .lock_proven(scopes.iter().copied(), &self.locked)
            .await?;
        self.has_locked(scopes);
        Ok(())
    }

    /// Scopes, with those that this call has locked already.
    pub(crate) fn with_locked(&self, mut scopes: Vec<ScopeKey>) -> Vec<ScopeKey> {
        scopes.extend(self.locked.iter().copied());
        scopes
    }

    fn has_locked(&mut self, scopes: BTreeSet<ScopeKey>) {
        for scope in scopes {
            if let Some(head) = self.batch.heads.get(&scope) {
                // The clock was read before the lock was waited for; within a scope time follows the order of commits. Not where another
                // replica's clock was far ahead: what is decided by this instant must not be.
                if head.last_time - self.now < MOST_AHEAD_US {
                    self.now = self.now.max(head.last_time + 1);
                } else {
                    tracing::warn!(%scope, "the last commit here lies in the future; set the clocks of all replicas by NTP");
                }
                self.locked.insert(scope);
            }
        }
    }

    /// Makes the head of a new scope; nobody else sees it before the commit.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn open_scope(&mut self, scope: ScopeKey) -> Result<()> {
        self.batch.open_scope(scope).await?;
        self.locked.insert(scope);
        Ok(())
    }

    /// Inserts the row of something new, which nobody can have named before: it waits until a statement may read it or refer to it, or
    /// for the end, and goes out with others of its table.
    ///
    /// # Errors
    /// Those of the database, of this row or of others that waited; unique constraints answer as `store/fault.rs` says, when the row is sent.
    pub async fn insert<M, A>(&mut self, model: M) -> Result<()>
    where
        M: IntoActiveModel<A>,
        A: ActiveModelTrait,
    {
        Ok(self.batch.db.insert(model).await?)
    }

    /// The call's scope: gets an audit event even if nothing changes there.
    pub fn touch(&mut self, scope: ScopeKey) {
        self.touched.insert(scope);
    }

    /// Tells what changed.
    pub fn emit(&mut self, event: Event) {
        self.touched.extend(event.scopes.iter().copied());
        self.changed_fields
            .extend(event.changes.iter().map(|c| c.field));
        let resource = event.resource.to_string();
        if !self.resources.contains(&resource) {
            self.resources.push(resource);
        }
        self.events.push(event);
    }

    /// Who it turned out to be, where the call itself proves it: a sign-in.
    pub fn act_as(&mut self, actor: String) {
        self.actor = Some(actor);
    }

    /// Names what the call was about where no event does: a sign-in.
    pub fn about(&mut self, resource: String) {
        if !self.resources.contains(&resource) {
            self.resources.push(resource);
        }
    }

    /// Whether anything was told.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.events.is_empty()
    }

    /// What people have by groups changes: events name the group, not each of those who are in it.
    pub fn regroup(&mut self) {
        self.regrouped = true;
    }

    /// Whether something was told of this principal, or of what groups give: then its rights may have changed.
    #[must_use]
    pub fn told_of(&self, principal: Uuid) -> bool {
        self.regrouped || self.events.iter().any(|e| e.touches.contains(&principal))
    }

    /// Has audit events and domain events of the whole call written; the last thing that may fail by what the call did.
    ///
    /// # Errors
    /// Those of the database, and the wish to begin again if a scope told of wasn't locked.
    pub(crate) async fn finish(
        &mut self,
        keys: &Keys,
        origin: &Origin,
        outcome: &str,
        event_id: Uuid,
        with_events: bool,
    ) -> Result<()> {
        let touched: Vec<_> = self.touched.iter().copied().collect();
        self.lock(touched.iter().copied()).await?;
        let events = std::mem::take(&mut self.events);
        if with_events {
            let mut payloads: Vec<Arc<[u8]>> = Vec::with_capacity(events.len());
            for event in &events {
                payloads.push(payload::encode(event)?.into());
            }
            for (n, (event, payload)) in events.iter().zip(payloads).enumerate() {
                // One ID an event, the same in all its scopes; the call's own is that of its audit.
                let event_id = Uuid::from_u128(event_id.as_u128() ^ (n as u128 + 1));
                for (i, scope) in event.scopes.iter().enumerate() {
                    let Some(seq) = self.batch.next_event(*scope) else {
                        continue;
                    };
                    self.batch.tell(&Told {
                        event,
                        scope: *scope,
                        seq,
                        is_first: i == 0,
                        event_id,
                        payload: payload.clone(),
                        actor: &origin.actor,
                        create_time: self.now,
                    });
                }
            }
        }
        let mut resources: Vec<String> = std::mem::take(&mut self.resources);
        // One event stays readable whatever a batch did; the domain events name each resource.
        resources.truncate(MOST_AUDITED_RESOURCES);
        if touched.is_empty() {
            return Ok(());
        }
        let body = Body {
            create_time: self.now,
            action: origin.action.clone(),
            actor: self.actor.clone().unwrap_or_else(|| origin.actor.clone()),
            via: origin.via.clone(),
            resources,
            outcome: outcome.to_owned(),
            changed_fields: self
                .changed_fields
                .iter()
                .map(|f| (*f).to_owned())
                .collect(),
            client_address: origin.client_address.clone(),
            trace_id: origin.trace_id.clone(),
            count: 1,
            event_id: event_id.as_bytes().to_vec(),
            relationship: origin.relationship.clone(),
        };
        for scope in touched {
            self.batch.audit(keys, scope, &body, event_id, self.now);
        }
        Ok(())
    }

    /// Has one audit event written that no call's end writes: a refusal, a look.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn note(
        &mut self,
        keys: &Keys,
        scope: ScopeKey,
        body: &Body,
        event_id: Uuid,
    ) -> Result<()> {
        self.lock([scope]).await?;
        self.batch.audit(keys, scope, body, event_id, self.now);
        Ok(())
    }
}

/// How far clocks of replicas may be apart.
const MOST_AHEAD_US: Micros = MINUTE_US;

/// Resources named in one audit event.
const MOST_AUDITED_RESOURCES: usize = 100;
