//! `accounts`: partner companies. States are those of `AccountState`. Types: 1 company, 2 individual.

use sea_orm::entity::prelude::*;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "accounts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub publisher_display_name: String,
    pub publisher_display_name_fold: String,
    pub legal_name: String,
    pub legal_name_fold: String,
    pub country_code: String,
    pub r#type: i64,
    pub seller_id: String,
    pub state: i64,
    pub create_time: i64,
    pub update_time: i64,
    pub version: i64,
    /// Bits of `Program`.
    pub programs: i64,
    /// Addresses and contacts, in JSON (`profile.rs`).
    pub profile: String,
    /// The membership of the network that it was opened with.
    pub membership_id: Option<Uuid>,
    /// Who gave the word to may sign for the company.
    pub signatory: String,
    pub submit_time: Option<i64>,
    pub suspension_reason: String,
    /// Of a suspended account.
    pub state_before: i64,
    /// When the opener of an idle draft was told.
    pub idle_told_time: Option<i64>,
    /// The name of the principal who opened it; empty for imported ones.
    pub opened_by: String,
    /// Bits of the steps that an active account has to be verified in again.
    pub reverifying: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
