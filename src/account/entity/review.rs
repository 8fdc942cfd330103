//! `reviews`: what waits for the operator's reviewers, and what they decided. Kinds, states and decisions are those of the protos.

use sea_orm::entity::prelude::*;

/// A review.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "reviews")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub kind: i64,
    /// The company that it is about.
    pub account_id: Uuid,
    /// The name of what is reviewed.
    pub subject: String,
    pub submitter: String,
    pub note: String,
    /// A claimed one whose time is over waits again, which no row says.
    pub state: i64,
    pub claimed_by: Option<Uuid>,
    pub claim_expire_time: Option<i64>,
    /// What the reviewer asked for.
    pub more_requested: String,
    /// Whoever decided what is appealed against.
    pub not_by: Option<Uuid>,
    pub approvals_needed: i64,
    pub first_approved_by: Option<Uuid>,
    pub decided: bool,
    pub decision: i64,
    pub reason: String,
    /// The name of the principal; empty for what was withdrawn.
    pub decided_by: String,
    pub decide_time: Option<i64>,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
    /// The other side: an account, a tenant, or a person.
    pub other_id: Option<Uuid>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
