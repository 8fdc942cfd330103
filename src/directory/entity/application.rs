//! `applications`: programs registered in a tenant. States: 1 active.

use sea_orm::{QueryFilter, entity::prelude::*};

use crate::{access::scope::Reach, error::Error};

/// An application.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "applications")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub display_name: String,
    pub display_name_fold: String,
    /// Empty if it has none; so is the next.
    pub reply_url: String,
    pub application_id_uri: String,
    pub state: i64,
    pub create_time: i64,
    pub update_time: i64,
    /// The ID in the local directory; empty for what was made here.
    pub external_id: String,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The application of an ID that a proof reaches.
pub async fn find<C: ConnectionTrait>(
    db: &C,
    reach: impl Into<Reach>,
    id: Uuid,
) -> Result<Option<Model>, Error> {
    let reach = reach.into();
    if !reach.covers(id) {
        return Ok(None);
    }
    Ok(Entity::find_by_id(id)
        .filter(Column::TenantId.eq(reach.tenant()))
        .one(db)
        .await?)
}
