//! `name_claims`: claims on publisher names. States and answers are those of the protos.

use sea_orm::entity::prelude::*;

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "name_claims")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The name, as the claimant writes it.
    pub display_name: String,
    pub statement: String,
    /// The account that the name is to be for; none where the claimant has none yet.
    pub account_id: Option<Uuid>,
    pub claimant_kind: i16,
    pub claimant_id: Uuid,
    pub claimant_tenant_id: Uuid,
    /// The account that has the name, or had it.
    pub holder_id: Uuid,
    pub state: i64,
    pub answer: i64,
    pub answer_text: String,
    pub answer_time: Option<i64>,
    pub reason: String,
    pub decide_time: Option<i64>,
    pub answer_until: i64,
    pub rename_until: Option<i64>,
    pub keep_until: Option<i64>,
    /// The holder was suspended, since it didn't rename in time.
    pub suspended: bool,
    /// When time does something to it.
    pub due_time: Option<i64>,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
