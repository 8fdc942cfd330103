//! `accounts`: partner companies. States are those of `AccountState`. Types: 1 company, 2 individual.

use sea_orm::entity::prelude::*;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "accounts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub publisher_display_name: String,
    /// Unique.
    pub publisher_display_name_fold: String,
    pub legal_name: String,
    pub legal_name_fold: String,
    pub country_code: String,
    pub r#type: i64,
    pub seller_id: String,
    pub state: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
    /// Bits of `Program`.
    pub programs: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
