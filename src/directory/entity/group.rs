//! `user_groups`: groups of a tenant's users.

use sea_orm::{QueryFilter, entity::prelude::*};

use crate::{access::scope::TenantScope, error::Error};

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "user_groups")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub display_name: String,
    pub display_name_fold: String,
    /// The ID in the local directory; empty for what was made here.
    pub external_id: String,
    /// Written by `access/grants/groups.rs` alone.
    pub member_count: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The group of an ID in a tenant.
pub async fn find<C: ConnectionTrait>(
    db: &C,
    scope: TenantScope,
    id: Uuid,
) -> Result<Option<Model>, Error> {
    Ok(Entity::find_by_id(id)
        .filter(Column::TenantId.eq(scope.id()))
        .one(db)
        .await?)
}
