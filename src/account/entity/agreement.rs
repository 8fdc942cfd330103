//! `agreements`: versions of agreements. Kinds are those of `AgreementKind`.

use sea_orm::entity::prelude::*;

/// A version.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "agreements")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub kind: i64,
    /// Of the version; unique within the kind.
    pub number: i64,
    pub is_placeholder: bool,
    pub effective_time: i64,
    pub accept_by_time: Option<i64>,
    pub withdraw_time: Option<i64>,
    pub create_time: i64,
    /// Of the row.
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
