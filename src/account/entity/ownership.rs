//! `ownerships`: ties of identities to accounts, and what became of them. States are those of `OwnershipState`.

use sea_orm::entity::prelude::*;

/// A tie.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ownerships")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub account_id: Uuid,
    /// Whether the owner hands on.
    pub is_transfer: bool,
    pub email: String,
    pub email_fold: String,
    /// Who accepted.
    pub identity_id: Option<Uuid>,
    pub invited_by_kind: i16,
    pub invited_by_id: Uuid,
    pub invited_by_tenant_id: Uuid,
    pub state: i64,
    /// Until when it can be accepted.
    pub expire_time: i64,
    /// When it began, or will.
    pub begin_time: Option<i64>,
    /// When finances become the owner's.
    pub finance_from: Option<i64>,
    pub create_time: i64,
    pub update_time: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
