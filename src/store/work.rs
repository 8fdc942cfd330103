//! A transaction from inside: what may be read, locked, inserted and told. It begins and ends in `app/` only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait,
    IntoActiveModel, Value,
};
use uuid::Uuid;

use super::{
    audit::{self, Body},
    outbox::{self, Event, Told},
    payload,
    scope_key::ScopeKey,
    sql,
};
use crate::{
    env::Micros,
    error::{Error, Result},
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
    /// The caller's address.
    pub client_address: String,
    /// The W3C trace ID.
    pub trace_id: String,
}

#[derive(Clone, Debug)]
struct Head {
    audit_count: i64,
    audit_hash: Vec<u8>,
    event_count: i64,
    /// When something was last written there: what comes after it is later, whatever the clocks say.
    last_time: Micros,
}

/// A transaction that writes.
pub struct Work {
    snapshot: Snapshot,
    heads: BTreeMap<ScopeKey, Head>,
    /// Scopes that were looked for and have no head: they don't exist.
    absent: BTreeSet<ScopeKey>,
    touched: BTreeSet<ScopeKey>,
    events: Vec<Event>,
    changed_fields: BTreeSet<&'static str>,
    resources: Vec<String>,
    actor: Option<String>,
    /// What somebody has by groups changed.
    regrouped: bool,
}

impl Work {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            heads: BTreeMap::new(),
            absent: BTreeSet::new(),
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
    pub fn db(&self) -> &DatabaseTransaction {
        &self.snapshot.db
    }

    /// The one instant of this transaction, in microseconds.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.snapshot.now
    }

    pub(crate) fn into_db(self) -> DatabaseTransaction {
        self.snapshot.db
    }

    /// Locks scopes that exist, in their order. One that lies before a scope locked already can't be locked without danger of
    /// deadlock: then the whole begins again with all of them locked first. Scopes without a head are left out: they don't exist.
    ///
    /// # Errors
    /// Those of the database, and the wish to begin again.
    pub async fn lock(&mut self, scopes: impl IntoIterator<Item = ScopeKey>) -> Result<()> {
        let wanted: BTreeSet<_> = scopes
            .into_iter()
            .filter(|s| !self.heads.contains_key(s) && !self.absent.contains(s))
            .collect();
        let Some(first) = wanted.first() else {
            return Ok(());
        };
        if self
            .heads
            .last_key_value()
            .is_some_and(|(last, _)| first < last)
        {
            let all: BTreeSet<_> = self.heads.keys().copied().chain(wanted).collect();
            return Err(Error::needs_scopes(all.into_iter().collect()));
        }
        for scope in wanted {
            if let Some(head) = self.read_head(scope).await? {
                // The clock was read before the lock was waited for; within a scope time follows the order of commits.
                self.snapshot.now = self.snapshot.now.max(head.last_time + 1);
                self.heads.insert(scope, head);
            } else {
                self.absent.insert(scope);
            }
        }
        Ok(())
    }

    async fn read_head(&self, scope: ScopeKey) -> Result<Option<Head>> {
        let db = self.db();
        let backend = db.get_database_backend();
        let lock = if backend == DbBackend::Postgres {
            " FOR UPDATE"
        } else {
            ""
        };
        let sql = format!(
            "SELECT audit_count, audit_hash, event_count, last_time FROM heads WHERE scope_kind = $1 AND scope_id = $2{lock}"
        );
        let row = sql::row(db, sql, [scope.kind().into(), scope.id().into()]).await?;
        Ok(match row {
            Some(row) => Some(Head {
                audit_count: row.try_get("", "audit_count")?,
                audit_hash: row.try_get("", "audit_hash")?,
                event_count: row.try_get("", "event_count")?,
                last_time: row.try_get("", "last_time")?,
            }),
            None => None,
        })
    }

    /// Makes the head of a new scope; nobody else sees it before the commit.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn open_scope(&mut self, scope: ScopeKey) -> Result<()> {
        let sql = "INSERT INTO heads (scope_kind, scope_id, audit_count, audit_hash, event_count, last_time) VALUES ($1, $2, 0, $3, 0, 0)";
        let values = [
            scope.kind().into(),
            scope.id().into(),
            Value::Bytes(Some(Vec::new())),
        ];
        sql::execute(self.db(), sql, values).await?;
        self.absent.remove(&scope);
        self.heads.insert(
            scope,
            Head {
                audit_count: 0,
                audit_hash: Vec::new(),
                event_count: 0,
                last_time: 0,
            },
        );
        Ok(())
    }

    /// Inserts a row that need not be read back in this transaction.
    ///
    /// # Errors
    /// Those of the database; unique constraints answer as `store/fault.rs` says.
    pub async fn insert<M, A>(&mut self, model: M) -> Result<()>
    where
        M: IntoActiveModel<A>,
        A: ActiveModelTrait + Send,
        <A::Entity as EntityTrait>::Model: Sync,
    {
        A::Entity::insert(model.into_active_model())
            .exec_without_returning(self.db())
            .await?;
        Ok(())
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

    /// Writes audit events and domain events of the whole call; the last thing before the commit.
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
            let mut told = Vec::with_capacity(events.len());
            for (n, event) in events.iter().enumerate() {
                // One ID an event, the same in all its scopes; the call's own is that of its audit.
                let event_id = Uuid::from_u128(event_id.as_u128() ^ (n as u128 + 1));
                let payload: Arc<[u8]> = payload::encode(event)?.into();
                for (i, scope) in event.scopes.iter().enumerate() {
                    let Some(head) = self.heads.get_mut(scope) else {
                        continue;
                    };
                    head.event_count += 1;
                    told.push(Told {
                        event,
                        scope: *scope,
                        seq: head.event_count,
                        is_first: i == 0,
                        event_id,
                        payload: payload.clone(),
                    });
                }
            }
            outbox::insert(self.db(), &told, &origin.actor, self.now()).await?;
        }
        let mut resources: Vec<String> = std::mem::take(&mut self.resources);
        // One event stays readable whatever a batch did; the domain events name each resource.
        resources.truncate(MOST_AUDITED_RESOURCES);
        for scope in touched {
            let Some(head) = self.heads.get(&scope) else {
                continue;
            };
            let body = Body {
                create_time: self.now(),
                action: origin.action.clone(),
                actor: self.actor.clone().unwrap_or_else(|| origin.actor.clone()),
                via: origin.via.clone(),
                resources: resources.clone(),
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
            };
            let head = self
                .append(keys, scope, head.clone(), &body, event_id)
                .await?;
            self.heads.insert(scope, head);
        }
        Ok(())
    }

    async fn append(
        &self,
        keys: &Keys,
        scope: ScopeKey,
        mut head: Head,
        body: &Body,
        event_id: Uuid,
    ) -> Result<Head> {
        use prost::Message as _;
        let seq = head.audit_count + 1;
        let hash = audit::hash(keys, scope, seq, &head.audit_hash, &body.encode_to_vec());
        audit::insert(self.db(), scope, seq, body, event_id, &hash).await?;
        head.audit_count = seq;
        head.audit_hash = hash;
        let sql = "UPDATE heads SET audit_count = $1, audit_hash = $2, event_count = $3, last_time = $4 WHERE scope_kind = $5 AND scope_id = $6";
        let values = [
            head.audit_count.into(),
            Value::Bytes(Some(head.audit_hash.clone())),
            head.event_count.into(),
            self.now().into(),
            scope.kind().into(),
            scope.id().into(),
        ];
        sql::execute(self.db(), sql, values).await?;
        Ok(head)
    }

    /// Writes one audit event that no call's end writes: a refusal, a look.
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
        if let Some(head) = self.heads.get(&scope).cloned() {
            let head = self.append(keys, scope, head, body, event_id).await?;
            self.heads.insert(scope, head);
        }
        Ok(())
    }
}

/// Resources named in one audit event.
const MOST_AUDITED_RESOURCES: usize = 100;
