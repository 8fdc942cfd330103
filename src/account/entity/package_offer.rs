//! `package_offers`: packages that accounts can buy.

use sea_orm::entity::prelude::*;

use crate::{account::benefit::Content, store::json::Json};

/// A package offer.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "package_offers")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub display_name: String,
    pub display_name_fold: String,
    pub currency_code: String,
    /// The price of a term, in minor units.
    pub amount_minor: i64,
    pub term_days: i64,
    pub contents: Json<Vec<Content>>,
    pub withdrawn: bool,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
