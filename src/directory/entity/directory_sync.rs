//! `directory_syncs`: how far a tenant's synchronisation has come; the run that was last begun.

use sea_orm::entity::prelude::*;

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "directory_syncs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    /// A UUID in its hyphenated form.
    pub request_id: String,
    pub last_sequence: i64,
    pub upserted_count: i64,
    pub deleted_count: i64,
    pub fault_count: i64,
    pub begin_time: i64,
    pub update_time: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
