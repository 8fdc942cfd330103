//! `users`: people of a tenant, and, in the realm of no tenant, personal identities. States: 1 active, 2 disabled, 3 deleted, 4 invited.
//! Kinds: 1 member, 2 guest, 3 personal identity.

use sea_orm::{QueryFilter, entity::prelude::*};

use crate::{access::scope::Reach, error::Error};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub user_name: String,
    pub user_name_fold: String,
    pub given_name: String,
    pub family_name: String,
    pub display_name: String,
    pub display_name_fold: String,
    pub recovery_email: String,
    pub kind: i64,
    pub state: i64,
    pub created_through_account: Option<Uuid>,
    pub rights_asleep_until: Option<i64>,
    pub create_time: i64,
    pub update_time: i64,
    pub delete_time: Option<i64>,
    pub purge_time: Option<i64>,
    /// Whose credential a guest signs in with; none before it accepted, and for everybody else.
    pub home_id: Option<Uuid>,
    /// The tenant of that one; nil for a personal identity.
    pub home_tenant_id: Option<Uuid>,
    /// The ID in the local directory; empty for what was made here.
    pub external_id: String,
    pub version: i64,
}

impl Model {
    /// A row made at an instant, without names, and with nothing that comes later: a member who can act.
    #[must_use]
    pub fn new(id: Uuid, tenant_id: Uuid, now: i64) -> Self {
        Self {
            id,
            tenant_id,
            user_name: String::new(),
            user_name_fold: String::new(),
            given_name: String::new(),
            family_name: String::new(),
            display_name: String::new(),
            display_name_fold: String::new(),
            recovery_email: String::new(),
            kind: 1,
            state: 1,
            created_through_account: None,
            rights_asleep_until: None,
            create_time: now,
            update_time: now,
            delete_time: None,
            purge_time: None,
            home_id: None,
            home_tenant_id: None,
            external_id: String::new(),
            version: 1,
        }
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The user of an ID that a proof reaches, deleted ones too.
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
