//! Audit events and domain events as messages.

use prost_types::Any;

use crate::{
    proto::audit::{DomainEvent, VerifyAuditChainResponse},
    store::{
        audit::Verdict,
        outbox::{self, Row},
        scope_key::ScopeKey,
        time::timestamp,
    },
};

/// What stands before the type of a payload, as in all `Any` messages.
const TYPE_URL: &str = "type.googleapis.com/";

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
    use uuid::Uuid;

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
}
