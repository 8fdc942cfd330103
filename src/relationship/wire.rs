//! Proto ⇄ rows of relationships; no other file of this slice converts.

use serde_json::Value as Json;

use super::entity::relationship::Model;
use crate::{
    access::{
        grants::lent::Assignment,
        roles::{ACCOUNT_ROLES, TENANT_ROLES, numbers_of},
    },
    names::Name,
    proto::relationship::{Relationship, RelationshipAssignment},
    store::{
        time::{json, timestamp},
        update::etag,
    },
};

fn number(n: i64) -> i32 {
    i32::try_from(n).unwrap_or(0)
}

fn customer(row: &Model) -> String {
    row.tenant_id
        .map_or_else(String::new, |id| Name::Tenant(id).to_string())
}

/// A relationship.
pub fn relationship(row: &Model) -> Relationship {
    let Model {
        id,
        account_id,
        tenant_id: _,
        kind,
        state,
        display_name,
        display_name_fold: _,
        message,
        customer_email,
        customer_domain,
        requested_roles,
        requested_days,
        roles,
        send_time,
        answer_expire_time,
        accept_time,
        accepted_by,
        agreement_number,
        end_time,
        roles_removed_time,
        roles_removed_by,
        closed_time,
        closed_by,
        due_time: _,
        create_time,
        update_time,
        version,
    } = row;
    Relationship {
        name: Name::Relationship(*account_id, *id).to_string(),
        display_name: display_name.clone(),
        kind: number(*kind),
        customer_email: customer_email.clone(),
        customer_domain: customer_domain.clone(),
        message: message.clone(),
        requested_roles: numbers_of(TENANT_ROLES, *requested_roles),
        requested_days: number(*requested_days),
        state: number(*state),
        customer: customer(row),
        granted_roles: numbers_of(TENANT_ROLES, *roles),
        end_time: end_time.and_then(timestamp),
        send_time: send_time.and_then(timestamp),
        answer_expire_time: answer_expire_time.and_then(timestamp),
        accept_time: accept_time.and_then(timestamp),
        accepted_by: accepted_by.clone(),
        agreement_version: *agreement_number,
        roles_removed_time: roles_removed_time.and_then(timestamp),
        roles_removed_by: roles_removed_by.clone(),
        close_time: closed_time.and_then(timestamp),
        closed_by: closed_by.clone(),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
    }
}

/// What events tell of a relationship, field by field; null for nothing.
pub fn told(row: &Model) -> Vec<(&'static str, Json)> {
    let text = |of: &str| {
        if of.is_empty() { Json::Null } else { of.into() }
    };
    let roles = |bits: i64| match bits {
        0 => Json::Null,
        bits => numbers_of(TENANT_ROLES, bits).into(),
    };
    vec![
        ("display_name", text(&row.display_name)),
        ("kind", row.kind.into()),
        ("customer_email", text(&row.customer_email)),
        ("customer_domain", text(&row.customer_domain)),
        ("message", text(&row.message)),
        ("requested_roles", roles(row.requested_roles)),
        ("requested_days", row.requested_days.into()),
        ("state", row.state.into()),
        ("customer", text(&customer(row))),
        ("granted_roles", roles(row.roles)),
        ("end_time", json(row.end_time)),
        ("send_time", json(row.send_time)),
        ("answer_expire_time", json(row.answer_expire_time)),
        ("accept_time", json(row.accept_time)),
        ("accepted_by", text(&row.accepted_by)),
        (
            "agreement_version",
            row.accept_time
                .map_or(Json::Null, |_| row.agreement_number.into()),
        ),
        ("roles_removed_time", json(row.roles_removed_time)),
        ("roles_removed_by", text(&row.roles_removed_by)),
        ("close_time", json(row.closed_time)),
        ("closed_by", text(&row.closed_by)),
    ]
}

/// What is assigned to people of the partner. A group that isn't there any more has no name.
pub fn assignment(of: &Assignment) -> RelationshipAssignment {
    let role = numbers_of(ACCOUNT_ROLES, of.holder_role);
    RelationshipAssignment {
        account_role: role.first().copied().unwrap_or_default(),
        group: of.group_tenant_id.map_or_else(String::new, |tenant| {
            Name::Group(tenant, of.holder_id).to_string()
        }),
        directory_roles: numbers_of(TENANT_ROLES, of.roles),
        create_time: timestamp(of.create_time),
    }
}
