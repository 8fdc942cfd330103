//! `offer_versions`: what an offer says and said. States are those of `OfferState`.

use sea_orm::entity::prelude::*;

/// A version.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "offer_versions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub offer_id: Uuid,
    /// From 1 on.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    pub state: i64,
    pub display_name: String,
    pub description: String,
    /// In JSON (`content.rs`).
    pub prices: String,
    /// Names of tenants, in JSON.
    pub customers: String,
    /// Why changes were asked for.
    pub review_reason: String,
    pub create_time: i64,
    pub submit_time: Option<i64>,
    pub publish_time: Option<i64>,
    pub stop_time: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
