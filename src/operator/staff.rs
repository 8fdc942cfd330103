//! Staff (ROL-11, ROL-12): who of the operator tenant holds operator roles. A staff's ID is that of the user or application.

use sea_orm::{ConnectionTrait as _, Statement, Value};
use serde_json::Value as Json;

use super::{
    entity::staff::{self, Staff as Row},
    wire,
};
use crate::{
    access::{
        grants::{self, By, OPERATOR_SERVICE, Set},
        principal::{Kind as PrincipalKind, Principal},
        roles::{self, OPERATOR_ROLES, Permission, Permissions},
        scope::OperatorScope,
    },
    app::{Read, Tx},
    check::Violations,
    directory::{asleep, search},
    error::{Error, Reason, Result},
    names::Name,
    proto::operator::{
        AssignOperatorRolesRequest, ListStaffRequest, ListStaffResponse, OperatorRole,
        RemoveOperatorRolesRequest, RemoveOperatorRolesResponse, Staff,
    },
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
        outbox::Event,
        scope_key::ScopeKey,
        update,
    },
};

/// What callers call the roles, and their bits.
const ROLES: &[(&str, i64)] = &[
    ("OPERATOR_ADMIN", grants::OPERATOR_ADMIN),
    (
        "OPERATOR_REVIEWER",
        1 << OperatorRole::OperatorReviewer as i64,
    ),
    ("OPERATOR_FINANCE", grants::OPERATOR_FINANCE),
    (
        "OPERATOR_SUPPORT",
        1 << OperatorRole::OperatorSupport as i64,
    ),
    ("OPERATOR_SERVICE", OPERATOR_SERVICE),
];

/// What lists of staff can be asked.
static LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "display_name",
            ("grants", "display_name_fold"),
            Kind::Text(search::PRINCIPALS),
        ),
        Field::new("roles", ("grants", "roles"), Kind::Flags(ROLES)),
        Field::new("create_time", ("grants", "create_time"), Kind::TIME),
    ],
    orders: &[
        OrderField::new("create_time", ("grants", "create_time")),
        OrderField::new("display_name", ("grants", "display_name_fold")),
    ],
    id: ("grants", "principal_id"),
};

pub(crate) fn check_assign_operator_roles(req: &AssignOperatorRolesRequest, v: &mut Violations) {
    if Name::parse(&req.principal)
        .and_then(Principal::of)
        .is_none()
    {
        v.also("principal", "is no name of a user or application");
    }
    let bits = roles::bits_of(OPERATOR_ROLES, &req.roles);
    if !req.on_behalf_ceiling.is_empty() && bits & OPERATOR_SERVICE == 0 {
        v.also("on_behalf_ceiling", "is for OPERATOR_SERVICE only");
    }
}

/// Gives operator roles in place of those held.
///
/// # Errors
/// `PERMISSION_DENIED` without `directory_roles.assign` in the operator tenant too; `NOT_FOUND` for a principal that doesn't exist;
/// `FAILED_PRECONDITION`, `NOT_ASSIGNABLE` for one that lies elsewhere, isn't active or can't hold such a role; `ABORTED`, `ETAG_MISMATCH`; those of `grants::set`.
pub async fn assign_operator_roles(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: AssignOperatorRolesRequest,
) -> Result<Staff> {
    let AssignOperatorRolesRequest {
        principal,
        roles,
        on_behalf_ceiling,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let home = demand_home(tx).await?;
    let to = Name::parse(&principal)
        .and_then(Principal::of)
        .ok_or_else(|| Error::internal("the principal was not checked"))?;
    let bits = roles::bits_of(OPERATOR_ROLES, &roles);
    let ceiling: Permissions = on_behalf_ceiling
        .iter()
        .filter_map(|name| Permission::parse(name))
        .collect();
    check_assignable(tx, to, home, bits).await?;
    let old = staff::find(tx.db(), to.id).await?;
    match &old {
        Some(old) => update::check_etag(&etag, old.grant.version)?,
        None if etag.is_empty() => {}
        None => return Err(Error::aborted(Reason::EtagMismatch)),
    }
    grants::set(tx, ScopeKey::Operator, to, Set::of_roles(bits), By::Caller).await?;
    grants::set_ceiling(tx, to.id, ceiling).await?;
    let event = Event::new(
        "entente.operator.v1.OperatorRolesAssigned",
        Name::Staff(to.id),
    )
    .also_in(ScopeKey::Tenant(home))
    .change(
        "roles",
        old_roles(old.as_ref()),
        roles::numbers_of(OPERATOR_ROLES, bits),
    )
    .change(
        "on_behalf_ceiling",
        old.as_ref().map_or_else(Vec::new, ceiling_of),
        wire::permission_names(ceiling),
    )
    .touches(to.id);
    tx.emit(event);
    let before = old.as_ref().map_or(0, |old| old.grant.roles);
    let gift = Set::of_roles(bits & !before);
    asleep::tell_of_gifts(tx, ScopeKey::Operator, &[(to, gift)]).await?;
    let new = staff::find(tx.db(), to.id)
        .await?
        .ok_or_else(|| Error::internal("a grant is gone that was just made"))?;
    Ok(wire::staff(new))
}

/// Takes all operator roles.
///
/// # Errors
/// `PERMISSION_DENIED` without `directory_roles.assign` in the operator tenant too; `NOT_FOUND`; `ABORTED`, `ETAG_MISMATCH`;
/// `FAILED_PRECONDITION`, `LAST_OPERATOR_ADMIN`.
pub async fn remove_operator_roles(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: RemoveOperatorRolesRequest,
) -> Result<RemoveOperatorRolesResponse> {
    let RemoveOperatorRolesRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let home = demand_home(tx).await?;
    let missing = || Error::not_found("entente.dev/Staff", name.as_str());
    let Some(Name::Staff(id)) = Name::parse(&name) else {
        return Err(missing());
    };
    let old = staff::find(tx.db(), id).await?.ok_or_else(missing)?;
    update::check_etag(&etag, old.grant.version)?;
    grants::remove(tx, ScopeKey::Operator, id).await?;
    let event = Event::new("entente.operator.v1.OperatorRolesRemoved", Name::Staff(id))
        .also_in(ScopeKey::Tenant(home))
        .change("roles", old_roles(Some(&old)), Json::Null)
        .touches(id);
    tx.emit(event);
    let resource = wire::staff(old);
    Ok(RemoveOperatorRolesResponse {
        losses: resource.roles.clone(),
        resources: vec![resource],
    })
}

pub(crate) fn check_list_staff(req: &ListStaffRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Who holds operator roles.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad filter, order or token.
pub async fn list_staff(
    rd: &Read,
    _scope: OperatorScope,
    req: ListStaffRequest,
) -> Result<ListStaffResponse> {
    let page = rd.list(&req, &LISTING, staff::all(), wire::staff).await?;
    Ok(ListStaffResponse {
        staff: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Demands that the caller may give roles in the operator tenant too; gives that tenant. It is locked from here on.
async fn demand_home(tx: &mut Tx) -> Result<uuid::Uuid> {
    let home = tx.app().operator_tenant();
    tx.demand(Permission::DirectoryRolesAssign, Name::Tenant(home))
        .await?;
    Ok(home)
}

/// Refuses who doesn't lie in the operator tenant, or isn't active.
async fn check_assignable(tx: &Tx, to: Principal, home: uuid::Uuid, bits: i64) -> Result<()> {
    let refuse = |who: &str| {
        let roles = roles::names_of(OPERATOR_ROLES, bits).join(", ");
        Err(Error::precondition(Reason::NotAssignable).with("lacking", format!("{roles} {who}")))
    };
    if to.tenant != home {
        return refuse("outside of the operator tenant");
    }
    if grants::state(tx.db(), to, tx.now()).await?.is_some() {
        return Ok(());
    }
    let (table, kind) = match to.kind {
        PrincipalKind::Application => ("applications", "entente.dev/Application"),
        PrincipalKind::User | PrincipalKind::Identity => ("users", "entente.dev/User"),
        PrincipalKind::Group => return refuse("by a group"),
    };
    // State 3 is deleted.
    let sql =
        format!("SELECT 1 AS one FROM {table} WHERE id = $1 AND tenant_id = $2 AND state <> 3");
    let values: [Value; 2] = [to.id.into(), to.tenant.into()];
    let statement = Statement::from_sql_and_values(tx.db().get_database_backend(), sql, values);
    if tx.db().query_one_raw(statement).await?.is_none() {
        return Err(Error::not_found(kind, to.name()));
    }
    refuse("by somebody who isn't active")
}

/// The roles held before; null if none were.
fn old_roles(old: Option<&Row>) -> Json {
    old.map_or(Json::Null, |old| {
        roles::numbers_of(OPERATOR_ROLES, old.grant.roles).into()
    })
}

fn ceiling_of(old: &Row) -> Vec<String> {
    wire::permission_names(Permissions::from_stored(&old.grant.on_behalf_ceiling))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_can_be_filtered_by() {
        let all: Vec<_> = OPERATOR_ROLES
            .iter()
            .map(|role| (role.name, role.bit()))
            .collect();
        assert_eq!(ROLES, all);
    }
}
