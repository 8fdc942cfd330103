//! To whom of the partner's people lent roles go on (REL-9). The kernel keeps it (`access/grants/lent.rs`); here it is asked for, and told.

use super::{Model, of_account, wire};
use crate::{
    access::{
        grants::{
            ADMIN_AGENT,
            lent::{self, Assignment, HELPDESK_AGENT, Holder},
        },
        roles::{TENANT_ROLES, bits_of, numbers_of},
        scope::AccountScope,
    },
    app::{Read, Tx},
    check::Violations,
    error::{Error, Result},
    names::Name,
    proto::{
        access::AccountRole,
        relationship::{
            ListRelationshipAssignmentsRequest, ListRelationshipAssignmentsResponse,
            RelationshipAssignment, SetRelationshipAssignmentRequest,
            SetRelationshipAssignmentResponse,
        },
    },
    store::{outbox::Event, update},
};

pub(crate) fn check_set_relationship_assignment(
    req: &SetRelationshipAssignmentRequest,
    v: &mut Violations,
) {
    match (req.account_role(), req.group.is_empty()) {
        (AccountRole::Unspecified, true) => v.also("account_role", "is required, or group"),
        (AccountRole::Unspecified, false)
        | (AccountRole::AdminAgent | AccountRole::HelpdeskAgent, true) => {}
        (AccountRole::AdminAgent | AccountRole::HelpdeskAgent, false) => {
            v.also("group", "stands beside account_role; one of both is right");
        }
        _ => v.also("account_role", "must be ADMIN_AGENT or HELPDESK_AGENT"),
    }
}

fn holder(req: &SetRelationshipAssignmentRequest) -> Result<Holder> {
    match (req.account_role(), Name::parse(&req.group)) {
        (AccountRole::AdminAgent, None) => Ok(Holder::Role(ADMIN_AGENT)),
        (AccountRole::HelpdeskAgent, None) => Ok(Holder::Role(HELPDESK_AGENT)),
        (AccountRole::Unspecified, Some(Name::Group(tenant, id))) => Ok(Holder::Group(tenant, id)),
        _ => Err(Error::field("account_role", "is required, or group")),
    }
}

/// Assigns lent roles, in place of those that the holder had.
///
/// # Errors
/// `NOT_FOUND`, also for the group, `ETAG_MISMATCH`, `WRONG_STATE` for what isn't in force, `CANNOT_GRANT_WHAT_YOU_LACK` for what isn't lent,
/// `NOT_ASSIGNABLE`, `NOT_IN_ASSOCIATED_TENANT`, `TOO_MANY_ASSIGNMENTS`.
pub async fn set_relationship_assignment(
    tx: &mut Tx,
    scope: AccountScope,
    req: SetRelationshipAssignmentRequest,
) -> Result<SetRelationshipAssignmentResponse> {
    let to = holder(&req)?;
    let row = of_account(tx.db(), scope.id(), &req.name).await?;
    update::check_etag(&req.etag, row.version)?;
    let roles = bits_of(TENANT_ROLES, &req.directory_roles);
    let had = lent::assign(tx, row.id, to, roles).await?;
    let set = RelationshipAssignment {
        account_role: req.account_role,
        group: req.group,
        directory_roles: numbers_of(TENANT_ROLES, roles),
        create_time: None,
    };
    tell(tx, &row, &set, had);
    let now = lent::assignments(tx.db(), row.id).await?;
    let now = now.iter().map(wire::assignment);
    let mut now = now.filter(|a| (a.account_role, &a.group) == (set.account_role, &set.group));
    Ok(SetRelationshipAssignmentResponse {
        assignment: Some(now.next().unwrap_or(set)),
    })
}

/// Tells the partner; which of its people act for a customer is its own matter.
fn tell(tx: &mut Tx, row: &Model, set: &RelationshipAssignment, had: i64) {
    let holder = if set.group.is_empty() {
        let role = set.account_role().as_str_name();
        role.trim_start_matches("ACCOUNT_ROLE_").to_owned()
    } else {
        set.group.clone()
    };
    let roles = |numbers: Vec<i32>| match numbers.as_slice() {
        [] => serde_json::Value::Null,
        _ => numbers.into(),
    };
    let was = roles(numbers_of(TENANT_ROLES, had));
    let is = roles(set.directory_roles.clone());
    let event = Event::new(
        "entente.relationship.v1.RelationshipAssignmentSet",
        row.name(),
    );
    tx.emit(
        event
            .with("holder", holder)
            .change("directory_roles", was, is),
    );
}

/// Lists to whom lent roles are assigned.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn list_relationship_assignments(
    rd: &Read,
    scope: AccountScope,
    req: ListRelationshipAssignmentsRequest,
) -> Result<ListRelationshipAssignmentsResponse> {
    let row = of_account(rd.db(), scope.id(), &req.name).await?;
    let all = lent::assignments(rd.db(), row.id).await?;
    // A group that isn't there any more holds nothing.
    let there = |a: &&Assignment| a.holder_role != 0 || a.group_tenant_id.is_some();
    Ok(ListRelationshipAssignmentsResponse {
        assignments: all.iter().filter(there).map(wire::assignment).collect(),
    })
}
