//! `offer_usage`: units of an offer by day (counted from 1970 on), country and customer.

use sea_orm::entity::prelude::*;

/// Usage.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "offer_usage")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub account_id: Uuid,
    pub offer_id: Uuid,
    pub day: i64,
    pub country_code: String,
    pub customer_id: Uuid,
    pub units: i64,
    pub create_time: i64,
    pub update_time: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
