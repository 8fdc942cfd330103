//! Audit events and domain events as messages.

use prost::Message as _;
use prost_types::Any;
use uuid::Uuid;

use crate::{
    proto::audit::{AuditEvent, DomainEvent, VerifyAuditChainResponse},
    store::{
        audit::{Body, Verdict},
        outbox::{self, Row},
        scope_key::ScopeKey,
        time::timestamp,
    },
};

/// What stands before the type of a payload, as in all `Any` messages.
const TYPE_URL: &str = "type.googleapis.com/";

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
pub(super) fn domain_event(epoch: &str, scope: ScopeKey, row: Row) -> DomainEvent {
    let Row {
        seq,
        event_id,
        r#type,
        resource,
        scopes,
        actor,
        changed_fields,
        payload,
        create_time,
    } = row;
    let names = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    DomainEvent {
        cursor: outbox::cursor(epoch, scope, seq),
        payload: Some(Any {
            type_url: format!("{TYPE_URL}{type}"),
            value: payload,
        }),
        r#type,
        resource,
        scopes: names(&scopes),
        create_time: timestamp(create_time),
        actor,
        event_id: event_id.to_string(),
        changed_fields: names(&changed_fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves COM-12
    #[test]
    fn domain_events_carry_the_message_of_their_type() {
        let row = Row {
            seq: 7,
            event_id: Uuid::from_u128(1),
            r#type: "entente.directory.v1.UserUpdated".to_owned(),
            resource: "tenants/t/users/u".to_owned(),
            scopes: "tenants/t accounts/a".to_owned(),
            actor: "tenants/t/users/v".to_owned(),
            changed_fields: "given_name recovery_email".to_owned(),
            payload: b"bytes".to_vec(),
            create_time: 1_500_000,
        };
        let event = domain_event("e", ScopeKey::Operator, row);
        assert_eq!(event.scopes, ["tenants/t", "accounts/a"]);
        assert_eq!(event.changed_fields, ["given_name", "recovery_email"]);
        assert_eq!(
            outbox::parse_cursor(&event.cursor, "e", ScopeKey::Operator).unwrap(),
            7
        );
        let payload = event.payload.unwrap();
        assert_eq!(
            payload.type_url,
            "type.googleapis.com/entente.directory.v1.UserUpdated"
        );
        assert_eq!(payload.value, b"bytes");
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
