//! `imported_memberships`: memberships of an older programme, as the operator brought them in.

use sea_orm::entity::prelude::*;

/// A membership.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "imported_memberships")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub old_id: String,
    /// Unique.
    pub old_id_fold: String,
    /// In JSON (`brought.rs`).
    pub content: String,
    /// What of it shall move, in JSON.
    pub moves: String,
    /// The membership of the network that it became.
    pub membership_id: Option<Uuid>,
    /// When it arrived on the account of that one.
    pub arrive_time: Option<i64>,
    pub create_time: i64,
    pub update_time: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
