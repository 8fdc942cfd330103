//! `invitations`: of addresses into a tenant. States: 1 pending, 2 accepted, 3 revoked; a pending one that is past its time has expired.

use sea_orm::{QueryFilter, entity::prelude::*};

use crate::{access::scope::TenantScope, error::Error};

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "invitations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant_id: Uuid,
    /// The guest.
    pub user_id: Uuid,
    pub email: String,
    pub email_fold: String,
    /// The account that the guest is to be a member of.
    pub account_id: Option<Uuid>,
    /// Role bits on the account.
    pub roles: i64,
    /// Single permissions, names with commas between.
    pub permissions: String,
    /// In whose name rights are given.
    pub inviter_id: Uuid,
    pub inviter_kind: i16,
    pub inviter_tenant_id: Uuid,
    /// The language of its mails, the inviter's.
    pub language: String,
    pub state: i64,
    pub create_time: i64,
    /// When its link was last sent.
    pub send_time: i64,
    pub expire_time: i64,
    pub answer_time: Option<i64>,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The invitation of an ID in a tenant.
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
