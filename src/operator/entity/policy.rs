//! `policies`: what the operator decided, each from a time on. Keys are those of `PolicyKey`; flags are 0 or 1. Never changed.

use sea_orm::entity::prelude::*;

use crate::policy::Row;

/// What was set.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "policies")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub policy_key: i64,
    pub value: i64,
    pub effective_time: i64,
    /// The name of the principal.
    pub set_by: String,
    pub create_time: i64,
}

impl From<Row> for Model {
    fn from(row: Row) -> Self {
        let Row {
            id,
            policy_key,
            value,
            effective_time,
            set_by,
            create_time,
        } = row;
        Self {
            id,
            policy_key,
            value,
            effective_time,
            set_by,
            create_time,
        }
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
