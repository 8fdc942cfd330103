//! `benefits`: what packages and levels hold. Kinds are those of `BenefitKind`.

use sea_orm::entity::prelude::*;

/// A benefit.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "benefits")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub account_id: Uuid,
    /// None for that of the level.
    pub package_id: Option<Uuid>,
    pub kind: i64,
    pub display_name: String,
    pub display_name_fold: String,
    /// How many there are; of the level, policy says.
    pub total: i64,
    pub used: i64,
    pub activate_time: Option<i64>,
    pub create_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
