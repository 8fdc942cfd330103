//! The view `members`: grants on accounts, and who holds them. Written by `access/grants.rs` alone.

use std::collections::BTreeSet;

use sea_orm::{QueryFilter, QuerySelect, entity::prelude::*};

use crate::{access::scope::AccountScope, error::Error};

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "members")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub account_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub principal_id: Uuid,
    pub principal_kind: i16,
    pub tenant_id: Uuid,
    pub roles: i64,
    pub permissions: String,
    pub display_name: String,
    pub display_name_fold: String,
    /// Empty for applications; so is the next.
    pub user_name: String,
    pub user_name_fold: String,
    pub domain_prefix: String,
    /// 1 if it can act.
    pub active: i64,
    /// 1 if it comes from a local directory.
    pub synchronized: i32,
    /// The kind of user; 0 for others.
    pub user_kind: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The member of an account.
pub async fn find<C: ConnectionTrait>(
    db: &C,
    scope: AccountScope,
    principal: Uuid,
) -> Result<Option<Model>, Error> {
    find_in(db, scope.id(), principal).await
}

/// The caller's own membership of an account that it names, or one that a row reached by a proof names.
pub async fn find_in<C: ConnectionTrait>(
    db: &C,
    account: Uuid,
    principal: Uuid,
) -> Result<Option<Model>, Error> {
    Ok(Entity::find()
        .filter(Column::AccountId.eq(account))
        .filter(Column::PrincipalId.eq(principal))
        .one(db)
        .await?)
}

/// Those of some principals that are members of an account.
pub async fn among<C: ConnectionTrait>(
    db: &C,
    scope: AccountScope,
    principals: impl Iterator<Item = Uuid>,
) -> Result<BTreeSet<Uuid>, Error> {
    let ids: Vec<Uuid> = Entity::find()
        .select_only()
        .column(Column::PrincipalId)
        .filter(Column::AccountId.eq(scope.id()))
        .filter(Column::PrincipalId.is_in(principals))
        .into_tuple()
        .all(db)
        .await?;
    Ok(ids.into_iter().collect())
}
