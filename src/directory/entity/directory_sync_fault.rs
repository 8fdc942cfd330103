//! `directory_sync_faults`: entries of a local directory that couldn't be taken over; the newest of each external ID, until it comes right.

use sea_orm::entity::prelude::*;

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "directory_sync_faults")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub external_id: String,
    /// Makes the order of pages total.
    pub id: Uuid,
    /// The message of the run that brought it, and its place there.
    pub sequence: i64,
    pub entry_index: i64,
    /// As on the wire, without the prefix.
    pub reason: String,
    pub field: String,
    pub description: String,
    pub create_time: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
