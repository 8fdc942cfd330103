//! `acceptances`: what accounts and tenants accepted. Triggers refuse to change or delete any.

use sea_orm::entity::prelude::*;

/// An acceptance.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "acceptances")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Of an account or a tenant.
    pub scope_kind: i16,
    pub scope_id: Uuid,
    pub agreement_id: Uuid,
    pub kind: i64,
    pub number: i64,
    pub language: String,
    pub title: String,
    /// Of the text accepted.
    pub sha256: Vec<u8>,
    /// The name of the principal.
    pub accepted_by: String,
    pub create_time: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
