//! Who can be added to an account: a tenant's active users, its groups and applications (USR-4, GRP-1, APP-1). Names only (ROL-8).

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::{
    ACTIVE,
    entity::candidate::{Column, Entity, Model},
    search,
};
use crate::{
    access::principal::{Kind as PrincipalKind, Principal},
    app::Read,
    error::Result,
    store::{
        filter::{Field, Kind, OrderField},
        list::{ListRequest, Listing, Page},
    },
};

/// What the search for candidates offers.
pub(crate) const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "display_name",
            ("candidates", "display_name_fold"),
            Kind::Text(search::PRINCIPALS),
        ),
        Field::new(
            "user_name",
            ("candidates", "user_name_fold"),
            Kind::Text(search::USER_NAMES),
        ),
        Field::new(
            "kind",
            ("candidates", "kind"),
            Kind::Enum(&[("USER", 1), ("APPLICATION", 2), ("GROUP", 4)]),
        ),
        Field::new("create_time", ("candidates", "create_time"), Kind::TIME),
    ],
    orders: &[
        OrderField::new("display_name", ("candidates", "display_name_fold")),
        OrderField::new("create_time", ("candidates", "create_time")),
    ],
    id: ("candidates", "id"),
};

/// Somebody who can be added to an account.
#[derive(Debug)]
pub struct Candidate {
    /// The user, group or application.
    pub principal: Principal,
    /// What people see.
    pub display_name: String,
    /// Unique in the tenant; empty for groups and applications.
    pub user_name: String,
}

/// The candidates of a tenant, for those who may add them to an account and are signed in through that tenant.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list<T: prost::Message>(
    rd: &Read,
    tenant: Uuid,
    req: &impl ListRequest,
    to_wire: impl Fn(Candidate) -> T,
) -> Result<Page<T>> {
    let select = Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::State.eq(ACTIVE));
    rd.list(req, &LISTING, select, |row: Model| {
        to_wire(Candidate {
            principal: Principal {
                kind: PrincipalKind::from_number(row.kind).unwrap_or(PrincipalKind::User),
                id: row.id,
                tenant,
            },
            display_name: row.display_name,
            user_name: row.user_name,
        })
    })
    .await
}
