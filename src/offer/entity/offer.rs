//! `offers`. Kinds are those of `OfferKind`; the state is that of the last version, of `OfferState`.

use sea_orm::entity::prelude::*;

/// An offer.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "offers")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub account_id: Uuid,
    pub kind: i64,
    /// Of the last version's name.
    pub display_name_fold: String,
    pub state: i64,
    /// The number of the last version.
    pub latest_version: i64,
    /// The number of the version that is live; 0 if none is.
    pub live_version: i64,
    /// Whether one is.
    pub live: bool,
    /// Whether one ever was.
    pub was_published: bool,
    /// When a version was last handed in for review; 0 if none was.
    pub submit_time: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
