//! `recovery_cases`: ways back for people who hold what nobody else does. Roles and states are those of the protos.

use sea_orm::entity::prelude::*;

/// A case.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "recovery_cases")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub role: i64,
    pub scope_kind: i16,
    pub scope_id: Uuid,
    pub person_kind: i16,
    pub person_id: Uuid,
    /// Nil for personal identities.
    pub person_tenant_id: Uuid,
    pub proven_email: String,
    pub note: String,
    /// The stopped case that it follows on.
    pub reopens_id: Option<Uuid>,
    pub state: i64,
    pub opened_by_id: Uuid,
    pub opened_by: String,
    pub approved_by_id: Option<Uuid>,
    pub approved_by: String,
    /// A principal's name, or the address that a stopping mail went to.
    pub stopped_by: String,
    pub stop_reason: String,
    pub create_time: i64,
    pub approve_time: Option<i64>,
    /// While it waits: when that is over. Once the link is mailed: when that ends.
    pub due_time: Option<i64>,
    pub end_time: Option<i64>,
    pub version: i64,
    /// The admin that it makes; empty for people who are there. Until it is made, the person's ID is nil.
    pub new_user_name: String,
    pub new_given_name: String,
    pub new_family_name: String,
    /// The domain that is evidence, and its name.
    pub domain_id: Option<Uuid>,
    pub domain_tenant_id: Option<Uuid>,
    pub domain_name: String,
    /// What its record must say.
    pub domain_token: String,
    /// When the record was found.
    pub domain_prove_time: Option<i64>,
    /// The owner in whose place another one comes.
    pub replaces_id: Option<Uuid>,
    /// The recovery address that the person had before the link was mailed; none before, and for those made anew.
    pub former_email: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
