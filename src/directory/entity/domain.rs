//! `domains`: names of the DNS that tenants say are theirs. States: 1 pending, 2 verified, 3 lapsed.

use sea_orm::{QueryFilter, entity::prelude::*};

use crate::{access::scope::TenantScope, error::Error};

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "domains")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant_id: Uuid,
    /// In ASCII and lower case; among those that are verified, unique.
    pub domain_name: String,
    /// What the record proves the domain by; each naming has its own.
    pub token: String,
    pub state: i64,
    pub verify_time: Option<i64>,
    pub look_up_time: Option<i64>,
    pub missing_since_time: Option<i64>,
    /// When it is looked up again; none before it was verified.
    pub next_look_up_time: Option<i64>,
    /// Of whoever looks it up now.
    pub lease_id: Option<Uuid>,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The domain of an ID in a tenant.
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
