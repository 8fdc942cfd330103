//! `mails`, but for what a mail says, and the relay's lease. States: 1 queued, 2 sent, 3 failed.

use sea_orm::entity::prelude::*;

/// A mail.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "mails")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub recipient: String,
    /// A name of `crate::mail::Template`.
    pub template: String,
    /// A BCP 47 tag.
    pub language: String,
    /// A resource name.
    pub object: String,
    pub state: i64,
    pub attempt_count: i64,
    /// Empty if the last try didn't fail.
    pub last_error: String,
    pub create_time: i64,
    pub send_time: Option<i64>,
    /// Of meaning while the mail is queued.
    pub next_attempt_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The mail of an ID.
pub async fn find<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).one(db).await
}
