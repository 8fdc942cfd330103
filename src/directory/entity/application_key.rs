//! `application_keys`: what applications sign in with. Only a MAC of the secret is stored.

use sea_orm::entity::prelude::*;

/// A key.
#[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "application_keys")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub application_id: Uuid,
    pub hash: Vec<u8>,
    pub hint: String,
    pub create_time: i64,
    pub expire_time: i64,
    /// When people are told next that it is about to expire; none when all that was to be told was.
    pub reminder_time: Option<i64>,
    pub version: i64,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
