//! `reserved_names`: publisher names that no account takes. Their keys are `account/publisher_name.rs`'s.

use sea_orm::entity::prelude::*;

/// A reserved name.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "reserved_names")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub display_name: String,
    pub display_name_fold: String,
    pub note: String,
    pub create_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
