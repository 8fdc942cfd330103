//! `package_charges`: what billing was told of, each with the term that it is for.

use sea_orm::entity::prelude::*;

use crate::{account::benefit::Content, store::json::Json};

/// A charge.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "package_charges")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub account_id: Uuid,
    pub package_id: Uuid,
    pub display_name: String,
    pub currency_code: String,
    pub amount_minor: i64,
    pub term_days: i64,
    pub contents: Json<Vec<Content>>,
    pub create_time: i64,
    pub confirm_time: Option<i64>,
    pub refuse_time: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
