//! `sessions`: sign-ins of people. Over at `end_time` or `expire_time`, whichever comes first.

use sea_orm::entity::prelude::*;

/// A session.
#[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sessions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub user_id: Uuid,
    pub tenant_id: Uuid,
    pub client_address: String,
    pub create_time: i64,
    pub sign_in_time: i64,
    pub last_refresh_time: i64,
    pub expire_time: i64,
    pub end_time: Option<i64>,
    /// MAC of the refresh token that is good now.
    pub refresh_hash: Vec<u8>,
    /// MAC of the one just replaced, which may be used again until `previous_until`.
    pub previous_hash: Vec<u8>,
    pub previous_until: i64,
    /// A guest's session: the person whose credential opened it.
    pub home_id: Option<Uuid>,
    /// The session of the sign-in that SwitchTenant opened it from.
    pub origin_id: Option<Uuid>,
    pub version: i64,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.id)
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
