//! `network_memberships`: companies of the partner network.

use sea_orm::entity::prelude::*;

/// A membership.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "network_memberships")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Unique.
    pub partner_id: String,
    pub legal_name: String,
    pub country_code: String,
    pub website_uri: String,
    pub contact_name: String,
    pub contact_email: String,
    pub contact_phone: String,
    pub joined_by_kind: i16,
    pub joined_by_id: Uuid,
    /// Nil for personal identities.
    pub joined_by_tenant_id: Uuid,
    /// The account that was opened with it.
    pub account_id: Option<Uuid>,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
