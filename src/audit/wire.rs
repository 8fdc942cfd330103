//! Audit events and domain events as messages.

use prost::Message as _;
use prost_types::{ListValue, NullValue, Struct, value::Kind};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    proto::audit::{AuditEvent, DomainEvent, VerifyAuditChainResponse},
    store::{
        audit::{Body, Verdict},
        outbox::{self, Row},
        scope_key::ScopeKey,
        time::timestamp,
    },
};

/// JSON deeper than this goes out as its text: clients refuse messages that are nested too deeply, and each level is three messages.
const MOST_DEPTH: usize = 16;
/// Whole numbers beyond don't fit into a double; they go out as text, as in proto3's JSON.
const MOST_EXACT: i64 = 1 << 53;

/// An audit event, from what its hash covers. One that was made unreadable keeps its name only; verification tells of it.
pub(super) fn audit_event(scope: ScopeKey, seq: i64, body: &[u8]) -> AuditEvent {
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
    }
}

/// What a verification found.
pub(super) fn verdict(verdict: Verdict) -> VerifyAuditChainResponse {
    let Verdict {
        checked,
        findings,
        checkpoint,
    } = verdict;
    VerifyAuditChainResponse {
        intact: findings.is_empty(),
        checked_count: checked,
        findings,
        checkpoint,
    }
}

/// A domain event as a watcher of a scope sees it.
pub(super) fn domain_event(epoch: &str, scope: ScopeKey, row: Row) -> Result<DomainEvent> {
    let Row {
        seq,
        event_id,
        r#type,
        resource,
        scopes,
        actor,
        changes,
        create_time,
    } = row;
    let changes = serde_json::from_str(&changes)
        .map_err(|e| Error::internal(format!("the changes of event {event_id}: {e}")))?;
    Ok(DomainEvent {
        cursor: outbox::cursor(epoch, scope, seq),
        r#type,
        resource,
        scopes: scopes.split_whitespace().map(str::to_owned).collect(),
        create_time: timestamp(create_time),
        actor,
        changes: Some(structure(changes, 1)),
        event_id: event_id.to_string(),
    })
}

fn structure(json: serde_json::Map<String, Json>, depth: usize) -> Struct {
    Struct {
        fields: json
            .into_iter()
            .map(|(name, inner)| (name, value(inner, depth + 1)))
            .collect(),
    }
}

fn value(json: Json, depth: usize) -> prost_types::Value {
    let kind = match json {
        Json::Null => Kind::NullValue(NullValue::NullValue.into()),
        Json::Bool(is) => Kind::BoolValue(is),
        Json::Number(number) => match number.as_f64() {
            Some(double)
                if number.as_i64().map_or_else(
                    || number.is_f64(),
                    |n| (-MOST_EXACT..=MOST_EXACT).contains(&n),
                ) =>
            {
                Kind::NumberValue(double)
            }
            _ => Kind::StringValue(number.to_string()),
        },
        Json::String(text) => Kind::StringValue(text),
        deep if depth > MOST_DEPTH => Kind::StringValue(deep.to_string()),
        Json::Array(items) => Kind::ListValue(ListValue {
            values: items
                .into_iter()
                .map(|item| value(item, depth + 1))
                .collect(),
        }),
        Json::Object(fields) => Kind::StructValue(structure(fields, depth)),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(changes: &Json) -> Row {
        Row {
            seq: 7,
            event_id: Uuid::from_u128(1),
            r#type: "entente.directory.v1.UserUpdated".to_owned(),
            resource: "tenants/t/users/u".to_owned(),
            scopes: "tenants/t accounts/a".to_owned(),
            actor: "tenants/t/users/v".to_owned(),
            changes: changes.to_string(),
            create_time: 1_500_000,
        }
    }

    // proves COM-12
    #[test]
    fn domain_events_carry_old_and_new_values() {
        let changes = json!({ "display_name": { "old": null, "new": "B" }, "roles": { "old": ["A", true, 1.5], "new": [] } });
        let event = domain_event("e", ScopeKey::Operator, row(&changes)).unwrap();
        assert_eq!(event.scopes, ["tenants/t", "accounts/a"]);
        assert_eq!(
            outbox::parse_cursor(&event.cursor, "e", ScopeKey::Operator).unwrap(),
            7
        );
        let back = |name: &str, side: &str| match &event.changes.as_ref().unwrap().fields[name].kind
        {
            Some(Kind::StructValue(s)) => s.fields[side].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(back("display_name", "old").kind, Some(Kind::NullValue(0)));
        assert_eq!(
            back("display_name", "new"),
            prost_types::Value::from("B".to_owned())
        );
        let list = vec!["A".to_owned().into(), true.into(), 1.5.into()];
        assert_eq!(back("roles", "old"), prost_types::Value::from(list));
        assert_eq!(back("roles", "new"), prost_types::Value::from(Vec::new()));
        assert!(
            domain_event(
                "e",
                ScopeKey::Operator,
                Row {
                    changes: "[]".to_owned(),
                    ..row(&changes)
                }
            )
            .is_err()
        );
    }

    #[test]
    fn numbers_that_a_double_cannot_hold_are_texts() {
        for (number, kind) in [
            (
                json!(9_007_199_254_740_992_i64),
                Kind::NumberValue(9_007_199_254_740_992.0),
            ),
            (
                json!(9_007_199_254_740_993_i64),
                Kind::StringValue("9007199254740993".to_owned()),
            ),
            (
                json!(i64::MIN),
                Kind::StringValue("-9223372036854775808".to_owned()),
            ),
            (
                json!(u64::MAX),
                Kind::StringValue("18446744073709551615".to_owned()),
            ),
            (json!(0.5), Kind::NumberValue(0.5)),
        ] {
            assert_eq!(value(number, 1).kind, Some(kind));
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = (0..100).fold(json!("x"), |inner, i| {
            if i % 2 == 0 {
                json!([inner])
            } else {
                json!({ "a": inner })
            }
        });
        let event = domain_event(
            "e",
            ScopeKey::Operator,
            row(&json!({ "field": { "new": deep } })),
        )
        .unwrap();
        assert_eq!(
            DomainEvent::decode(event.encode_to_vec().as_slice()).unwrap(),
            event
        );
        let (mut at, mut depth) = (event.changes.unwrap().fields.remove("field").unwrap(), 1);
        let text = loop {
            depth += 1;
            at = match at.kind.unwrap() {
                Kind::StructValue(mut s) => s.fields.pop_last().unwrap().1,
                Kind::ListValue(mut l) => l.values.pop().unwrap(),
                Kind::StringValue(text) => break text,
                other => panic!("{other:?}"),
            };
        };
        assert!(
            depth <= MOST_DEPTH + 2 && text.starts_with(['[', '{']),
            "{depth} {text}"
        );
    }

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
        };
        let tenant = ScopeKey::Tenant(Uuid::from_u128(9));
        let event = audit_event(tenant, 12, &body.encode_to_vec());
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
        let unreadable = audit_event(tenant, 13, b"\xff\xff");
        let named = AuditEvent {
            name: format!("{tenant}/auditEvents/13"),
            ..AuditEvent::default()
        };
        assert_eq!(unreadable, named);
    }
}
