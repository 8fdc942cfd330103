//! `tenants`: organisations' directories. States: 1 active, 2 deleted, 3 purged: only the prefix is left.

use sea_orm::entity::prelude::*;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenants")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Lower case; unique for ever.
    pub domain_prefix: String,
    pub display_name: String,
    pub display_name_fold: String,
    pub contact_email: String,
    pub is_operator: bool,
    pub state: i64,
    /// Whether it is filled by a local directory.
    pub synchronized: bool,
    /// The application that may stream the local directory.
    pub sync_agent_id: Option<Uuid>,
    /// The personal identity that made it.
    pub created_by_identity: Option<Uuid>,
    pub delete_time: Option<i64>,
    /// Until when a deletion can be undone; of an active one that nobody uses, when it is purged.
    pub purge_time: Option<i64>,
    /// When somebody of it first signed in.
    pub first_use_time: Option<i64>,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
