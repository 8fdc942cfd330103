//! Audit chains (COM-10, COM-11): one a scope, each event hashed with the one before it under a key outside the database.

use prost::Message;
use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};
use uuid::Uuid;

use super::{
    scope_key::ScopeKey,
    sql::{self, Type},
};
use crate::{
    error::Result,
    keys::{Keys, Purpose},
    proto::audit::AuditEvent,
    store::time::timestamp,
};

/// What the hash of an event covers, as stored.
#[derive(Clone, PartialEq, Message)]
pub struct Body {
    /// When, in microseconds.
    #[prost(int64, tag = "1")]
    pub create_time: i64,
    /// The method or job.
    #[prost(string, tag = "2")]
    pub action: String,
    /// The principal's name, empty for nobody.
    #[prost(string, tag = "3")]
    pub actor: String,
    /// The application acted through, if any.
    #[prost(string, tag = "4")]
    pub via: String,
    /// Names of what it was done on.
    #[prost(string, repeated, tag = "5")]
    pub resources: Vec<String>,
    /// `OK` or the reason of the refusal.
    #[prost(string, tag = "6")]
    pub outcome: String,
    /// Names of changed fields.
    #[prost(string, repeated, tag = "7")]
    pub changed_fields: Vec<String>,
    /// The caller's address.
    #[prost(string, tag = "8")]
    pub client_address: String,
    /// The trace ID.
    #[prost(string, tag = "9")]
    pub trace_id: String,
    /// How many like events this one stands for.
    #[prost(int64, tag = "10")]
    pub count: i64,
    /// The same in the events of one call, 16 bytes.
    #[prost(bytes = "vec", tag = "11")]
    pub event_id: Vec<u8>,
    /// The name of the relationship by which it was done for a customer, if any.
    #[prost(string, tag = "12")]
    pub relationship: String,
}

/// A stored event.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Row {
    /// Place in the chain, from 1.
    pub seq: i64,
    /// The same in several chains.
    pub event_id: Uuid,
    /// When, in microseconds.
    pub create_time: i64,
    /// Index of `body.action`.
    pub action: String,
    /// Index of `body.actor`.
    pub actor: String,
    /// Index of `body.outcome`.
    pub outcome: String,
    /// What the hash covers.
    pub body: Vec<u8>,
    /// The hash.
    pub hash: Vec<u8>,
}

/// The hash of an event.
#[must_use]
pub fn hash(keys: &Keys, scope: ScopeKey, seq: i64, previous: &[u8], body: &[u8]) -> Vec<u8> {
    let id = scope.id();
    keys.mac(
        Purpose::Audit,
        &[
            &scope.kind().to_be_bytes(),
            id.as_bytes(),
            &seq.to_be_bytes(),
            previous,
            body,
        ],
    )
    .to_vec()
}

const COLUMNS: &[(&str, Type)] = &[
    ("scope_kind", Type::Number),
    ("scope_id", Type::Id),
    ("seq", Type::Number),
    ("event_id", Type::Id),
    ("create_time", Type::Number),
    ("action", Type::Text),
    ("actor", Type::Text),
    ("outcome", Type::Text),
    ("body", Type::Bytes),
    ("hash", Type::Bytes),
];

/// An event as a row for `insert_sql`. `encoded` is its body, which the hash covers.
pub(super) fn cells(
    scope: ScopeKey,
    seq: i64,
    body: &Body,
    encoded: &[u8],
    event_id: Uuid,
    hash: &[u8],
) -> Vec<serde_json::Value> {
    vec![
        scope.kind().into(),
        sql::id(scope.id()),
        seq.into(),
        sql::id(event_id),
        body.create_time.into(),
        body.action.as_str().into(),
        body.actor.as_str().into(),
        body.outcome.as_str().into(),
        sql::bytes(encoded),
        sql::bytes(hash),
    ]
}

/// The text that inserts the events that parameter `$n` holds, however many they are; the caller holds the heads of their scopes.
pub(super) fn insert_sql<C: ConnectionTrait>(db: &C, n: usize) -> String {
    sql::insert_rows(db, "audit_events", COLUMNS, n)
}

/// Events of a chain after a place, in order.
///
/// # Errors
/// Those of the database.
pub async fn after<C: ConnectionTrait>(
    db: &C,
    scope: ScopeKey,
    seq: i64,
    limit: u64,
) -> Result<Vec<Row>> {
    let sql = "SELECT seq, event_id, create_time, action, actor, outcome, body, hash FROM audit_events \
               WHERE scope_kind = $1 AND scope_id = $2 AND seq > $3 ORDER BY seq LIMIT $4";
    let values: [Value; 4] = [
        scope.kind().into(),
        scope.id().into(),
        seq.into(),
        i64::try_from(limit).unwrap_or(i64::MAX).into(),
    ];
    sql::all::<Row, _>(db, sql, values).await
}

/// An audit event, from what its hash covers. One that was made unreadable keeps its name only; verification tells of it.
#[must_use]
pub fn to_wire(scope: ScopeKey, seq: i64, body: &[u8]) -> AuditEvent {
    let body = Body::decode(body).unwrap_or_else(|error| {
        tracing::error!(%scope, seq, %error, "an audit event can't be read");
        Body::default()
    });
    let Body {
        create_time,
        action,
        actor,
        via,
        resources,
        outcome,
        changed_fields,
        client_address,
        trace_id,
        count,
        event_id,
        relationship,
    } = body;
    AuditEvent {
        name: format!("{scope}/auditEvents/{seq}"),
        event_id: Uuid::from_slice(&event_id).map_or_else(|_| String::new(), |id| id.to_string()),
        create_time: timestamp(create_time).filter(|_| create_time != 0),
        action,
        actor,
        via,
        resources,
        outcome,
        changed_fields,
        client_address,
        trace_id,
        count,
        relationship,
    }
}

/// What a verification found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Events checked.
    pub checked: i64,
    /// What doesn't fit, at most `MOST_FINDINGS`.
    pub findings: Vec<String>,
    /// Count and hash of the end, in hexadecimal.
    pub checkpoint: String,
}

/// Findings named; a chain broken once is broken everywhere after.
const MOST_FINDINGS: usize = 100;
/// Events read at a time: memory stays constant.
const CHUNK: u64 = 1_000;

/// Recomputes a chain and holds it against its head.
///
/// # Errors
/// Those of the database.
pub async fn verify<C: ConnectionTrait>(
    db: &C,
    keys: &Keys,
    scope: ScopeKey,
    since: Option<(i64, Vec<u8>)>,
) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let find = |text: String, findings: &mut Vec<String>| {
        if findings.len() < MOST_FINDINGS {
            findings.push(text);
        }
    };
    let head = head(db, scope).await?;
    let (mut at, mut previous) = (0_i64, Vec::new());
    let mut passed_since = since.is_none();
    loop {
        let rows = after(db, scope, at, CHUNK).await?;
        let Some(last) = rows.last().map(|r| r.seq) else {
            break;
        };
        for row in &rows {
            if row.seq != at + 1 {
                find(
                    format!("{scope}: events {} to {} are missing", at + 1, row.seq - 1),
                    &mut verdict.findings,
                );
            }
            if row.hash != hash(keys, scope, row.seq, &previous, &row.body) {
                find(
                    format!(
                        "{scope}: event {} was altered, or the one before it",
                        row.seq
                    ),
                    &mut verdict.findings,
                );
            }
            match Body::decode(row.body.as_slice()) {
                Ok(b)
                    if b.action == row.action
                        && b.actor == row.actor
                        && b.outcome == row.outcome
                        && b.create_time == row.create_time
                        && b.event_id == row.event_id.as_bytes() => {}
                _ => find(
                    format!(
                        "{scope}: the columns of event {} don't agree with it",
                        row.seq
                    ),
                    &mut verdict.findings,
                ),
            }
            if let Some((seq, hash)) = &since
                && row.seq == *seq
            {
                passed_since = true;
                if row.hash != *hash {
                    find(
                        format!("{scope}: event {seq} is not the one of the checkpoint"),
                        &mut verdict.findings,
                    );
                }
            }
            verdict.checked += 1;
            at = row.seq;
            previous.clone_from(&row.hash);
        }
        at = last;
    }
    match head {
        Some((count, hash)) if count == at && hash == previous => {}
        Some((count, _)) => find(
            format!("{scope}: the head counts {count} events, the chain ends at {at}"),
            &mut verdict.findings,
        ),
        None => find(
            format!("{scope}: the chain has no head"),
            &mut verdict.findings,
        ),
    }
    if let (false, Some((seq, _))) = (passed_since, &since)
        && *seq > 0
    {
        find(
            format!("{scope}: the tail after event {at} was cut; the checkpoint knows {seq}"),
            &mut verdict.findings,
        );
    }
    verdict.checkpoint = format!("{scope}:{at}:{}", hex::encode(&previous));
    Ok(verdict)
}

/// How many events a chain has, by its head; None if there is no such scope.
///
/// # Errors
/// Those of the database.
pub async fn count<C: ConnectionTrait>(db: &C, scope: ScopeKey) -> Result<Option<i64>> {
    Ok(head(db, scope).await?.map(|(count, _)| count))
}

async fn head<C: ConnectionTrait>(db: &C, scope: ScopeKey) -> Result<Option<(i64, Vec<u8>)>> {
    let sql = "SELECT audit_count, audit_hash FROM heads WHERE scope_kind = $1 AND scope_id = $2";
    let row = sql::row(db, sql, [scope.kind().into(), scope.id().into()]).await?;
    Ok(match row {
        Some(row) => Some((
            row.try_get("", "audit_count")?,
            row.try_get("", "audit_hash")?,
        )),
        None => None,
    })
}

/// All scopes that have a chain or ought to have one, for `entente verify-audit`; keyset from `after`.
///
/// # Errors
/// Those of the database.
pub async fn scopes<C: ConnectionTrait>(db: &C, after: Option<ScopeKey>) -> Result<Vec<ScopeKey>> {
    let (kind, id) = after.map_or((-1, Uuid::nil()), |s| (s.kind(), s.id()));
    let sql = "SELECT scope_kind, scope_id FROM ( \
                 SELECT CAST(scope_kind AS bigint) AS scope_kind, scope_id FROM heads \
                 UNION SELECT CAST(scope_kind AS bigint), scope_id FROM audit_events \
                 UNION SELECT CAST(3 AS bigint), id FROM users WHERE tenant_id = $3 \
                 UNION SELECT CAST(1 AS bigint), id FROM tenants WHERE domain_prefix <> '' \
                 UNION SELECT CAST(2 AS bigint), id FROM accounts \
               ) AS every WHERE (scope_kind > $1 OR (scope_kind = $1 AND scope_id > $2)) ORDER BY scope_kind, scope_id LIMIT 1000";
    // Personal identities are the people of no tenant.
    let values: [Value; 3] = [i64::from(kind).into(), id.into(), Uuid::nil().into()];
    let rows = db
        .query_all_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            values,
        ))
        .await?;
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        let kind: i64 = row.try_get("", "scope_kind")?;
        let kind = i16::try_from(kind).unwrap_or(-1);
        out.extend(ScopeKey::from_parts(kind, row.try_get("", "scope_id")?));
    }
    Ok(out)
}

/// Reads a checkpoint as `verify` prints it.
#[must_use]
pub fn parse_checkpoint(text: &str) -> Option<(ScopeKey, i64, Vec<u8>)> {
    let mut parts = text.trim().splitn(3, ':');
    let (scope, seq, hash) = (
        parts.next()?,
        parts.next()?.parse().ok()?,
        hex::decode(parts.next()?).ok()?,
    );
    let scope = match scope.split_once('/') {
        None if scope == "operator" => ScopeKey::Operator,
        Some(("tenants", id)) => ScopeKey::Tenant(id.parse().ok()?),
        Some(("accounts", id)) => ScopeKey::Account(id.parse().ok()?),
        Some(("identities", id)) => ScopeKey::Identity(id.parse().ok()?),
        _ => return None,
    };
    Some((scope, seq, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_events_show_what_the_hash_covers() {
        let body = Body {
            create_time: 2_000_001,
            action: "a".to_owned(),
            actor: "b".to_owned(),
            via: "c".to_owned(),
            resources: vec!["d".to_owned()],
            outcome: "OK".to_owned(),
            changed_fields: vec!["e".to_owned()],
            client_address: "f".to_owned(),
            trace_id: "g".to_owned(),
            count: 3,
            event_id: Uuid::from_u128(5).as_bytes().to_vec(),
            relationship: "h".to_owned(),
        };
        let tenant = ScopeKey::Tenant(Uuid::from_u128(9));
        let event = to_wire(tenant, 12, &body.encode_to_vec());
        assert_eq!(event.name, format!("{tenant}/auditEvents/12"));
        assert_eq!(event.event_id, Uuid::from_u128(5).to_string());
        assert_eq!(
            event.create_time,
            Some(prost_types::Timestamp {
                seconds: 2,
                nanos: 1_000
            })
        );
        assert_eq!(
            (event.action.as_str(), event.count, event.outcome.as_str()),
            ("a", 3, "OK")
        );
        assert_eq!(event.relationship, "h");
        let unreadable = to_wire(tenant, 13, b"\xff\xff");
        let named = AuditEvent {
            name: format!("{tenant}/auditEvents/13"),
            ..AuditEvent::default()
        };
        assert_eq!(unreadable, named);
    }
}
