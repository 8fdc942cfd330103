//! `credentials`: how a user signs in. `hash` is a PHC string (chosen by a person) or `hmac$` and a MAC (made by the service).

use sea_orm::entity::prelude::*;

/// A credential.
#[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credentials")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: Uuid,
    pub hash: String,
    /// Set by somebody else: good for ChangePassword alone.
    pub temporary: bool,
    pub expire_time: Option<i64>,
    pub change_time: i64,
    /// Failures in a row from unknown networks, and from known ones.
    pub strangers_failed: i64,
    pub known_failed: i64,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(withheld)")
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
