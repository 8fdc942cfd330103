//! `verification_steps`: how far each step of an account's verification has come. Kinds and states are those of the protos.

use sea_orm::entity::prelude::*;

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "verification_steps")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub account_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub kind: i64,
    pub state: i64,
    pub reason: String,
    /// Until when the mailed link is good.
    pub link_expire_time: Option<i64>,
    pub start_time: Option<i64>,
    pub end_time: Option<i64>,
    /// What a reviewer asked for.
    pub asked: String,
    /// A reviewer approved of it, or a register did.
    pub reviewed: bool,
    /// The reviewer who rejected it.
    pub rejected_by: Option<Uuid>,
    /// Until when a rejected one can be appealed against.
    pub appeal_until: Option<i64>,
    pub appealed: bool,
    /// Of the contact whose employment waits to be proven; else empty.
    pub email_domain: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
