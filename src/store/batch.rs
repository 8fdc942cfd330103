//! What one commit writes: of one call, or of several that share it. Heads of scopes run on in memory from call to call; audit events,
//! domain events, claims and heads are written at the end, by one statement a table at most.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use prost::Message as _;
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, Value};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{
    audit::{self, Body},
    heads::Heads,
    idempotency::{self, Claim, Found},
    memory::Memory,
    outbox::{self, Told},
    scope_key::ScopeKey,
    sql::{self, Type},
    writes::{End, Writes},
};
use crate::{
    env::Micros,
    error::{Error, Result},
    keys::{Keys, Mac},
};

/// The end of a scope's chains.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) audit_count: i64,
    pub(super) audit_hash: Vec<u8>,
    pub(super) event_count: i64,
    /// When something was last written there: what comes after it is later, whatever the clocks say.
    pub(super) last_time: Micros,
}

/// What one commit writes.
pub struct Batch {
    pub(super) db: Writes,
    /// Several calls write it.
    shared: bool,
    /// Heads as the last commit left them; none where others may commit too.
    known: Option<Arc<Heads>>,
    /// The database has vouched for memory, and nothing was locked since.
    vouched: bool,
    /// Of scopes that are locked.
    pub(super) heads: BTreeMap<ScopeKey, Head>,
    /// Scopes that were looked for and have no head: they don't exist.
    pub(super) absent: BTreeSet<ScopeKey>,
    /// Claims that were looked for, and those made since.
    claimed: HashMap<(Mac, Uuid), Option<Found>>,
    audits: Vec<Vec<Json>>,
    told: Vec<Vec<Json>>,
    claims: Vec<Vec<Json>>,
    /// When the first of `claims` was made.
    claimed_from: Micros,
    changed: BTreeSet<ScopeKey>,
    /// A domain event was told.
    has_news: bool,
}

const HEAD_COLUMNS: &[(&str, Type)] = &[
    ("scope_kind", Type::Number),
    ("scope_id", Type::Id),
    ("audit_count", Type::Number),
    ("audit_hash", Type::Bytes),
    ("event_count", Type::Number),
    ("last_time", Type::Number),
];

impl Batch {
    /// Of a transaction that has begun; `shared` if several calls are to write it.
    pub(crate) fn new(db: DatabaseTransaction, shared: bool, memory: &Memory) -> Self {
        Self {
            db: Writes::new(db),
            shared,
            known: memory.heads(),
            vouched: false,
            heads: BTreeMap::new(),
            absent: BTreeSet::new(),
            claimed: HashMap::new(),
            audits: Vec::new(),
            told: Vec::new(),
            claims: Vec::new(),
            claimed_from: Micros::MAX,
            changed: BTreeSet::new(),
            has_news: false,
        }
    }

    /// The connection.
    pub(crate) fn db(&self) -> &Writes {
        &self.db
    }

    /// Whether watchers of events have something to look for once it is committed.
    pub(crate) fn has_news(&self) -> bool {
        self.has_news
    }

    /// The transaction, and what its commit leaves.
    pub(crate) fn into_parts(self) -> (DatabaseTransaction, Leaves) {
        let (db, keys) = self.db.into_bare();
        let heads = self.heads;
        (db, Leaves { heads, keys })
    }

    /// After the locks: looks claims up, so that `claimed` knows them, and has the database vouch for memory, if nothing did since the last
    /// lock: what memory then holds is what a statement would read.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn prepare<'a>(
        &mut self,
        claims: impl IntoIterator<Item = &'a Claim>,
        memory: &Memory,
    ) -> Result<()> {
        let vouched = self.vouched;
        let pass = async { vouched || memory.pass().await };
        let (looked, vouched) = tokio::join!(self.look_up(claims), pass);
        self.vouched = vouched;
        looked
    }

    /// Whether what memory holds is what a statement would read: the database has vouched for it after the last lock, this transaction has
    /// changed nothing that was there, and the present call has made nothing either. What others of the commit made, nobody has heard of.
    pub(crate) fn is_vouched_for(&self) -> bool {
        self.vouched && self.db.writes() == 0 && self.db.is_call_clean()
    }

    /// Another call begins.
    pub(crate) fn next_call(&self) {
        self.db.next_call();
    }

    /// Takes back what the present call did, if it has written nothing yet; whether it could be.
    pub(crate) fn take_back(&self) -> bool {
        self.db.take_back()
    }

    /// How many statements wrote, but for rows of things just made.
    pub(crate) fn writes(&self) -> u64 {
        self.db.writes()
    }

    /// Whether a statement failed: then nothing of it can be committed.
    pub(crate) fn has_failed(&self) -> bool {
        self.db.has_failed()
    }

    /// Locks scopes that whoever is at work was proven on: their heads may come from memory. Others never do, lest strangers hear by time what
    /// exists.
    ///
    /// # Errors
    /// As `lock`.
    pub(crate) async fn lock_proven(
        &mut self,
        wanted: impl IntoIterator<Item = ScopeKey>,
        own: &BTreeSet<ScopeKey>,
    ) -> Result<()> {
        let wanted: Vec<_> = wanted.into_iter().collect();
        if let Some(known) = &self.known {
            for scope in &wanted {
                if !self.heads.contains_key(scope)
                    && let Some(head) = known.get(*scope)
                {
                    self.heads.insert(*scope, head);
                }
            }
        }
        self.lock(wanted, own).await
    }

    /// Locks scopes for a call that has locked `own`, in their order. One that lies before a scope locked already can't be waited for
    /// without danger of deadlock: then the whole begins again with all of them locked first, unless it is free and others share the
    /// transaction. Scopes without a head are left out: they don't exist.
    ///
    /// # Errors
    /// Those of the database, and the wish to begin again.
    pub(crate) async fn lock(
        &mut self,
        wanted: impl IntoIterator<Item = ScopeKey>,
        own: &BTreeSet<ScopeKey>,
    ) -> Result<()> {
        let mut wanted: BTreeSet<_> = wanted
            .into_iter()
            .filter(|s| !self.heads.contains_key(s) && !self.absent.contains(s))
            .collect();
        let Some(first) = wanted.first().copied() else {
            return Ok(());
        };
        self.vouched = false;
        // Where nobody else writes, nobody is waited for, so order is nothing.
        let last = self.heads.last_key_value().map(|(last, _)| *last);
        if let Some(last) = last.filter(|last| self.known.is_none() && first < *last) {
            let later = wanted.split_off(&last);
            let again =
                || Error::needs_scopes(own.iter().chain(&wanted).chain(&later).copied().collect());
            if !self.shared {
                return Err(again());
            }
            for scope in wanted.iter().copied() {
                if !self.lock_free(scope).await? {
                    return Err(again());
                }
            }
            wanted = later;
        }
        if wanted.len() > 1 {
            return self.lock_all(wanted).await;
        }
        for scope in wanted {
            let head = self.read_head(scope, " FOR UPDATE").await?;
            self.locked(scope, head);
        }
        Ok(())
    }

    fn locked(&mut self, scope: ScopeKey, head: Option<Head>) {
        match head {
            Some(head) => {
                self.heads.insert(scope, head);
            }
            None => {
                self.absent.insert(scope);
            }
        }
    }

    /// Locks a scope if nobody else has it; whether that is so.
    async fn lock_free(&mut self, scope: ScopeKey) -> Result<bool> {
        let mut head = self.read_head(scope, " FOR UPDATE SKIP LOCKED").await?;
        if head.is_none() && self.db.get_database_backend() == DbBackend::Postgres {
            head = self.read_head(scope, "").await?;
            if head.is_some() {
                return Ok(false);
            }
        }
        self.locked(scope, head);
        Ok(true)
    }

    async fn read_head(&self, scope: ScopeKey, lock: &str) -> Result<Option<Head>> {
        let lock = match self.db.get_database_backend() {
            DbBackend::Postgres => lock,
            _ => "",
        };
        let sql = format!(
            "SELECT audit_count, audit_hash, event_count, last_time FROM heads WHERE scope_kind = $1 AND scope_id = $2{lock}"
        );
        let row = sql::row(&self.db, sql, [scope.kind().into(), scope.id().into()]).await?;
        row.map(|row| head_of(&row)).transpose()
    }

    /// Locks scopes that lie after all that are locked, by one statement.
    async fn lock_all(&mut self, wanted: BTreeSet<ScopeKey>) -> Result<()> {
        let lock = match self.db.get_database_backend() {
            DbBackend::Postgres => " FOR UPDATE OF h",
            _ => "",
        };
        let columns = &HEAD_COLUMNS[..2];
        let sql = format!(
            "SELECT h.scope_kind, h.scope_id, h.audit_count, h.audit_hash, h.event_count, h.last_time FROM ({}) x \
             JOIN heads h ON h.scope_kind = x.scope_kind AND h.scope_id = x.scope_id ORDER BY h.scope_kind, h.scope_id{lock}",
            sql::rows(&self.db, 1, columns)
        );
        let keys = wanted
            .iter()
            .map(|s| vec![s.kind().into(), sql::id(s.id())]);
        for row in sql::rows_of(&self.db, sql, [sql::table(keys.collect())]).await? {
            let scope =
                ScopeKey::from_parts(row.try_get("", "scope_kind")?, row.try_get("", "scope_id")?);
            if let Some(scope) = scope {
                self.heads.insert(scope, head_of(&row)?);
            }
        }
        let absent = wanted.into_iter().filter(|s| !self.heads.contains_key(s));
        self.absent.extend(absent);
        Ok(())
    }

    /// Makes the head of a new scope; nobody else sees it before the commit.
    pub(super) async fn open_scope(&mut self, scope: ScopeKey) -> Result<()> {
        let sql = "INSERT INTO heads (scope_kind, scope_id, audit_count, audit_hash, event_count, last_time) VALUES ($1, $2, 0, $3, 0, 0)";
        let head = Head {
            audit_count: 0,
            audit_hash: Vec::new(),
            event_count: 0,
            last_time: 0,
        };
        let values = [
            scope.kind().into(),
            scope.id().into(),
            Value::Bytes(Some(Vec::new())),
        ];
        sql::execute(&self.db, sql, values).await?;
        self.absent.remove(&scope);
        self.heads.insert(scope, head);
        Ok(())
    }

    /// The number of the next domain event of a scope, if there is such a scope.
    pub(super) fn next_event(&mut self, scope: ScopeKey) -> Option<i64> {
        let head = self.heads.get_mut(&scope)?;
        head.event_count += 1;
        self.changed.insert(scope);
        Some(head.event_count)
    }

    /// Has a domain event written.
    pub(super) fn tell(&mut self, told: &Told<'_>) {
        self.told.push(told.cells());
        self.has_news = true;
    }

    /// Has an audit event written, the next of its scope's chain; nothing if there is no such scope.
    pub(super) fn audit(
        &mut self,
        keys: &Keys,
        scope: ScopeKey,
        body: &Body,
        event_id: Uuid,
        now: Micros,
    ) {
        let Some(head) = self.heads.get_mut(&scope) else {
            return;
        };
        let seq = head.audit_count + 1;
        let encoded = body.encode_to_vec();
        let hash = audit::hash(keys, scope, seq, &head.audit_hash, &encoded);
        let cells = audit::cells(scope, seq, body, &encoded, event_id, &hash);
        self.audits.push(cells);
        head.audit_count = seq;
        head.audit_hash = hash;
        head.last_time = now;
        self.changed.insert(scope);
    }

    async fn look_up<'a>(&mut self, claims: impl IntoIterator<Item = &'a Claim>) -> Result<()> {
        let unknown: Vec<_> = claims
            .into_iter()
            .filter(|c| !self.claimed.contains_key(&c.key()))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let mut found = idempotency::find(&self.db, &unknown).await?;
        for claim in unknown {
            let key = claim.key();
            let found = found.remove(&key);
            self.claimed.entry(key).or_insert(found);
        }
        Ok(())
    }

    /// What is stored under a claim's ID, or was made by an earlier call of this commit.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn claimed(&mut self, claim: &Claim) -> Result<Option<&Found>> {
        self.look_up([claim]).await?;
        Ok(self.claimed.get(&claim.key()).and_then(Option::as_ref))
    }

    /// Has a claim stored, with its answer, which is kept from `kept_from` on. `now` is when it was looked up.
    pub(crate) fn claim(
        &mut self,
        claim: &Claim,
        reply: &[u8],
        ended_right: bool,
        now: Micros,
        kept_from: Micros,
    ) {
        let found = Found::new(claim, reply, ended_right, kept_from);
        self.claims.push(found.cells(claim));
        self.claimed_from = self.claimed_from.min(now);
        self.claimed.insert(claim.key(), Some(found));
    }

    /// Writes all that waits; the last thing before the commit.
    ///
    /// # Errors
    /// Those of the database; the wish to begin again if somebody else has made one of the claims meanwhile.
    pub(crate) async fn write(&mut self) -> Result<()> {
        let heads = self.changed_heads();
        let claims = std::mem::take(&mut self.claims);
        let audits = std::mem::take(&mut self.audits);
        let told = std::mem::take(&mut self.told);
        let all = claims.len() as u64;
        let from = [self.claimed_from.into()];
        let mut end = self.db.end().await?;
        add(&mut end, true, claims, idempotency::insert_sql, &from);
        add(&mut end, false, audits, audit::insert_sql, &[]);
        add(&mut end, false, told, outbox::insert_sql, &[]);
        add(&mut end, false, heads, heads_sql, &[]);
        if self.db.run(end).await? == all {
            Ok(())
        } else {
            Err(Error::contended("the same was claimed meanwhile"))
        }
    }

    fn changed_heads(&mut self) -> Vec<Vec<Json>> {
        let changed = std::mem::take(&mut self.changed);
        let heads = changed.iter().filter_map(|s| Some((s, self.heads.get(s)?)));
        let cells = |(scope, head): (&ScopeKey, &Head)| {
            vec![
                scope.kind().into(),
                sql::id(scope.id()),
                head.audit_count.into(),
                sql::bytes(&head.audit_hash),
                head.event_count.into(),
                head.last_time.into(),
            ]
        };
        heads.map(cells).collect()
    }
}

/// The text that moves the heads that parameter `$n` holds.
fn heads_sql(db: &Writes, n: usize) -> String {
    format!(
        "UPDATE heads SET audit_count = x.audit_count, audit_hash = x.audit_hash, event_count = x.event_count, last_time = x.last_time \
         FROM ({}) x WHERE heads.scope_kind = x.scope_kind AND heads.scope_id = x.scope_id",
        sql::rows(db, n, HEAD_COLUMNS)
    )
}

/// Adds the statement that writes these rows, if there are any.
fn add(
    end: &mut End<'_>,
    counted: bool,
    rows: Vec<Vec<Json>>,
    text: impl Fn(&Writes, usize) -> String,
    more: &[Value],
) {
    if !rows.is_empty() {
        let values = [sql::table(rows)].into_iter().chain(more.iter().cloned());
        end.add(counted, text, values);
    }
}

/// What a commit leaves, for memory.
pub(crate) struct Leaves {
    /// The heads that it locked, as it leaves them.
    pub(super) heads: BTreeMap<ScopeKey, Head>,
    /// The keys that its rows told, if they were taken already.
    pub(super) keys: Option<Vec<Uuid>>,
}

fn head_of(row: &sea_orm::QueryResult) -> Result<Head> {
    Ok(Head {
        audit_count: row.try_get("", "audit_count")?,
        audit_hash: row.try_get("", "audit_hash")?,
        event_count: row.try_get("", "event_count")?,
        last_time: row.try_get("", "last_time")?,
    })
}
