//! `relationships`. Kinds and states are those of the protos; roles are bits of directory roles.

use sea_orm::entity::prelude::*;

/// A relationship.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "relationships")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The partner's.
    pub account_id: Uuid,
    /// The customer's, once that accepted.
    pub tenant_id: Option<Uuid>,
    pub kind: i64,
    pub state: i64,
    pub display_name: String,
    pub display_name_fold: String,
    pub message: String,
    /// Whom it is sent to; or by domain, one of both.
    pub customer_email: String,
    /// In ASCII and lower case.
    pub customer_domain: String,
    pub requested_roles: i64,
    pub requested_days: i64,
    /// What is lent.
    pub roles: i64,
    pub send_time: Option<i64>,
    pub answer_expire_time: Option<i64>,
    pub accept_time: Option<i64>,
    pub accepted_by: String,
    /// The version of the customer agreement that was accepted with it; 0 before.
    pub agreement_number: i64,
    pub end_time: Option<i64>,
    pub roles_removed_time: Option<i64>,
    pub roles_removed_by: String,
    pub closed_time: Option<i64>,
    pub closed_by: String,
    /// When time ends it; none for what is a draft or over.
    pub due_time: Option<i64>,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
