//! `verification_steps`: how far each step of an account's verification has come. Kinds and states are those of the protos.

use sea_orm::entity::prelude::*;

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "verification_steps")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub account_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub kind: i64,
    pub state: i64,
    pub reason: String,
    /// Until when the mailed link is good.
    pub link_expire_time: Option<i64>,
    pub start_time: Option<i64>,
    pub end_time: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
