//! The view `candidates`: a tenant's users, groups and applications, who can be added to an account if they are active.

use sea_orm::entity::prelude::*;

/// A candidate.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "candidates")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant_id: Uuid,
    /// As in grants.
    pub kind: i16,
    /// 1 if it is active.
    pub state: i64,
    pub display_name: String,
    pub display_name_fold: String,
    /// Empty for groups and applications.
    pub user_name: String,
    pub create_time: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
