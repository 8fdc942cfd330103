//! `packages`: packages that accounts bought.

use sea_orm::entity::prelude::*;

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "packages")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub account_id: Uuid,
    pub package_offer_id: Uuid,
    pub display_name: String,
    /// Of the last charge.
    pub currency_code: String,
    pub amount_minor: i64,
    /// The charge that billing has not confirmed yet.
    pub charge_id: Option<Uuid>,
    pub begin_time: Option<i64>,
    pub expire_time: Option<i64>,
    pub create_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
