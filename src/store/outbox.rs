//! Domain events (COM-12): rows of the same transaction, numbered without gaps within each of their scopes, and in the order of
//! commits over all scopes by the relay.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};
use uuid::Uuid;

use super::{
    scope_key::ScopeKey,
    sql::{self, Type},
};
use crate::{
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    names::Name,
};

/// Events are kept so long.
pub const KEPT_US: Micros = 90 * DAY_US;

/// What changed in one field. Values are in proto3's JSON; enumerations by name or number.
#[derive(Clone, Debug)]
pub struct Change {
    /// The field's name as in the message of `before` and `after`, which is mostly the resource's.
    pub field: &'static str,
    /// Before; null if there was nothing.
    pub old: serde_json::Value,
    /// After; null if there is nothing.
    pub new: serde_json::Value,
}

/// One change that other programs may want to know of.
#[derive(Clone, Debug)]
pub struct Event {
    /// The type, which is the full name of its message in an `events.proto`: `entente.directory.v1.UserCreated`.
    pub kind: &'static str,
    /// The resource.
    pub resource: Name,
    /// Where it is seen; the first is where it happened.
    pub scopes: Vec<ScopeKey>,
    /// Old and new values, never secrets: what the message has as `before` and `after`.
    pub changes: Vec<Change>,
    /// What else the message has.
    pub facts: Vec<(&'static str, serde_json::Value)>,
    /// Principals whose rights or state it changes: the keys that memory of them depends on.
    pub touches: Vec<Uuid>,
}

impl Event {
    /// An event in the resource's own scope.
    #[must_use]
    pub fn new(kind: &'static str, resource: Name) -> Self {
        Self {
            kind,
            resource,
            scopes: vec![resource.scope()],
            changes: Vec::new(),
            facts: Vec::new(),
            touches: Vec::new(),
        }
    }

    /// Told in this scope, where the resource's name doesn't say it.
    #[must_use]
    pub fn told_in(mut self, scope: ScopeKey) -> Self {
        self.scopes = vec![scope];
        self
    }

    /// Also seen in this scope.
    #[must_use]
    pub fn also_in(mut self, scope: ScopeKey) -> Self {
        if !self.scopes.contains(&scope) {
            self.scopes.push(scope);
        }
        self
    }

    /// A field's old and new value, null for none; nothing if they are equal.
    #[must_use]
    pub fn change(
        mut self,
        field: &'static str,
        old: impl Into<serde_json::Value>,
        new: impl Into<serde_json::Value>,
    ) -> Self {
        let (old, new) = (old.into(), new.into());
        if old != new {
            self.changes.push(Change { field, old, new });
        }
        self
    }

    /// A field of the event's own message beside `before` and `after`.
    #[must_use]
    pub fn with(mut self, field: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.facts.push((field, value.into()));
        self
    }

    /// Changes the rights or the state of this principal.
    #[must_use]
    pub fn touches(mut self, principal: Uuid) -> Self {
        self.touches.push(principal);
        self
    }
}

/// An event as one of its scopes sees it.
pub(super) struct Told<'a> {
    /// The event.
    pub event: &'a Event,
    /// The scope.
    pub scope: ScopeKey,
    /// Its number there.
    pub seq: i64,
    /// The scope is where it happened.
    pub is_first: bool,
    /// The same in all scopes.
    pub event_id: Uuid,
    /// Its message, encoded.
    pub payload: Arc<[u8]>,
    /// Who.
    pub actor: &'a str,
    /// When.
    pub create_time: Micros,
}

impl Told<'_> {
    pub(super) fn cells(&self) -> Vec<serde_json::Value> {
        let changed_fields: Vec<_> = self.event.changes.iter().map(|c| c.field).collect();
        let scopes: Vec<_> = self.event.scopes.iter().map(ToString::to_string).collect();
        vec![
            self.scope.kind().into(),
            sql::id(self.scope.id()),
            self.seq.into(),
            sql::id(self.event_id),
            self.is_first.into(),
            self.event.kind.into(),
            self.event.resource.to_string().into(),
            scopes.join(" ").into(),
            changed_fields.join(" ").into(),
            sql::bytes(&self.payload),
            self.actor.into(),
            self.create_time.into(),
        ]
    }
}

const COLUMNS: &[(&str, Type)] = &[
    ("scope_kind", Type::Number),
    ("scope_id", Type::Id),
    ("scope_seq", Type::Number),
    ("event_id", Type::Id),
    ("is_first", Type::Flag),
    ("type", Type::Text),
    ("resource", Type::Text),
    ("scopes", Type::Text),
    ("changed_fields", Type::Text),
    ("payload", Type::Bytes),
    ("actor", Type::Text),
    ("create_time", Type::Number),
];

/// The text that stores the events that parameter `$n` holds, however many they are.
pub(super) fn insert_sql<C: ConnectionTrait>(db: &C, n: usize) -> String {
    sql::insert_rows(db, "outbox", COLUMNS, n)
}

/// A stored event.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Row {
    /// The number that the watcher's cursor holds: within the scope, or over all.
    pub seq: i64,
    /// The same in several scopes.
    pub event_id: Uuid,
    /// The type.
    pub r#type: String,
    /// The resource's name.
    pub resource: String,
    /// The scopes' names, with spaces between.
    pub scopes: String,
    /// Who.
    pub actor: String,
    /// Names of the fields that changed, with spaces between.
    pub changed_fields: String,
    /// The message of the type, encoded.
    pub payload: Vec<u8>,
    /// When, in microseconds.
    pub create_time: i64,
}

/// Events after a number: those of a scope, or of all for the operator.
///
/// # Errors
/// Those of the database.
pub async fn after<C: ConnectionTrait>(
    db: &C,
    scope: ScopeKey,
    seq: i64,
    limit: i64,
) -> Result<Vec<Row>> {
    let columns = "event_id, type, resource, scopes, actor, changed_fields, payload, create_time";
    let (sql, values): (String, Vec<Value>) = if scope == ScopeKey::Operator {
        (
            format!(
                "SELECT global_seq AS seq, {columns} FROM outbox WHERE global_seq > $1 ORDER BY global_seq LIMIT $2"
            ),
            vec![seq.into(), limit.into()],
        )
    } else {
        (
            format!(
                "SELECT scope_seq AS seq, {columns} FROM outbox WHERE scope_kind = $1 AND scope_id = $2 AND scope_seq > $3 \
                 ORDER BY scope_seq LIMIT $4"
            ),
            vec![
                scope.kind().into(),
                scope.id().into(),
                seq.into(),
                limit.into(),
            ],
        )
    };
    sql::all::<Row, _>(db, sql, values).await
}

/// The oldest number that is kept, and the newest given.
///
/// # Errors
/// Those of the database.
pub async fn bounds<C: ConnectionTrait>(db: &C, scope: ScopeKey) -> Result<(Option<i64>, i64)> {
    let (oldest, newest, values): (&str, &str, Vec<Value>) = if scope == ScopeKey::Operator {
        (
            "SELECT MIN(global_seq) AS n FROM outbox",
            "SELECT CAST(value AS bigint) AS n FROM meta WHERE key = 'global_seq'",
            vec![],
        )
    } else {
        (
            "SELECT MIN(scope_seq) AS n FROM outbox WHERE scope_kind = $1 AND scope_id = $2",
            "SELECT event_count AS n FROM heads WHERE scope_kind = $1 AND scope_id = $2",
            vec![scope.kind().into(), scope.id().into()],
        )
    };
    let read = async |sql: &str| -> Result<Option<i64>> {
        Ok(match sql::row(db, sql, values.clone()).await? {
            Some(row) => row.try_get("", "n")?,
            None => None,
        })
    };
    Ok((read(oldest).await?, read(newest).await?.unwrap_or(0)))
}

/// Numbers the events that have none yet, in the order of their scopes' numbers; run by the relay, one at a time.
///
/// # Errors
/// Those of the database.
pub async fn number<C: ConnectionTrait>(db: &C, most: i64) -> Result<u64> {
    let backend = db.get_database_backend();
    let lock = if backend == sea_orm::DbBackend::Postgres {
        " FOR UPDATE"
    } else {
        ""
    };
    let sql = format!("SELECT value FROM meta WHERE key = 'global_seq'{lock}");
    let row = db
        .query_one_raw(Statement::from_string(backend, sql))
        .await?;
    let last: String = match row {
        Some(row) => row.try_get("", "value")?,
        None => return Err(Error::internal("the database has no global_seq")),
    };
    let last: i64 = last
        .parse()
        .map_err(|_| Error::internal("global_seq is no number"))?;
    // Within a scope `scope_seq` is the order of commits, and an event's id and time follow it.
    let sql = "UPDATE outbox SET global_seq = $1 + n.rank FROM ( \
                 SELECT scope_kind AS k, scope_id AS i, scope_seq AS s, ROW_NUMBER() OVER (ORDER BY create_time, scope_kind, scope_id, scope_seq) AS rank \
                 FROM outbox WHERE is_first AND global_seq IS NULL ORDER BY create_time, scope_kind, scope_id, scope_seq LIMIT $2 \
               ) AS n WHERE outbox.scope_kind = n.k AND outbox.scope_id = n.i AND outbox.scope_seq = n.s";
    let done = sql::execute(db, sql, [last.into(), most.into()])
        .await?
        .rows_affected();
    if done > 0 {
        let next = last + i64::try_from(done).unwrap_or(0);
        let sql = "UPDATE meta SET value = $1 WHERE key = 'global_seq'";
        sql::execute(db, sql, [next.to_string().into()]).await?;
    }
    Ok(done)
}

/// A cursor: the database's epoch, the scope, and the last number seen. Opaque to clients.
#[must_use]
pub fn cursor(epoch: &str, scope: ScopeKey, seq: i64) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{epoch} {scope} {seq}"))
}

/// The number in a cursor of this database and scope; 0 for the empty one.
///
/// # Errors
/// `OUT_OF_RANGE`, `CURSOR_EXPIRED` if it is foreign or no cursor at all.
pub fn parse_cursor(text: &str, epoch: &str, scope: ScopeKey) -> Result<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    let expired = || Error::out_of_range(Reason::CursorExpired);
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| expired())?;
    let plain = String::from_utf8(bytes).map_err(|_| expired())?;
    let mut parts = plain.split(' ');
    let (Some(e), Some(s), Some(n), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(expired());
    };
    if e != epoch || s != scope.to_string() {
        return Err(expired());
    }
    n.parse().ok().filter(|n| *n >= 0).ok_or_else(expired)
}
