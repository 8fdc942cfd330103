//! Policies: what the operator decides of the rules, each from a time on. Offers in versions, with an index of trigrams over their names; what is
//! used of them.

use sea_orm_migration::prelude::{
    DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait,
};

use crate::m0007_search::search;

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, STATEMENTS).await?;
        search(manager, "offers", &["display_name_fold"]).await
    }
}

const STATEMENTS: &[&str] = &[
    // Keys are those of `entente.operator.v1.PolicyKey`.
    "CREATE TABLE policies (
        id {uuid} PRIMARY KEY,
        policy_key bigint NOT NULL,
        value bigint NOT NULL,
        effective_time bigint NOT NULL,
        set_by {text} NOT NULL,
        create_time bigint NOT NULL
    )",
    "CREATE INDEX policies_in_force ON policies (policy_key, effective_time, create_time, id)",
    "CREATE INDEX policies_by_time ON policies (create_time, id)",
    "CREATE INDEX policies_by_effect ON policies (effective_time, id)",
    // Kinds and states are those of `entente.offer.v1`; the state is that of the last version.
    "CREATE TABLE offers (
        {id},
        account_id {uuid} NOT NULL,
        kind bigint NOT NULL,
        display_name_fold {text} NOT NULL,
        state bigint NOT NULL,
        latest_version bigint NOT NULL,
        live_version bigint NOT NULL,
        live boolean NOT NULL,
        was_published boolean NOT NULL,
        submit_time bigint NOT NULL,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE INDEX offers_by_time ON offers (account_id, create_time, id)",
    "CREATE INDEX offers_in_review ON offers (submit_time, id) WHERE state = 2",
    "CREATE INDEX offers_by_name ON offers (account_id, display_name_fold, id)",
    // Prices and customers are JSON: read and written as a whole.
    "CREATE TABLE offer_versions (
        offer_id {uuid} NOT NULL,
        number bigint NOT NULL,
        state bigint NOT NULL,
        display_name {text} NOT NULL,
        description {text} NOT NULL,
        prices {text} NOT NULL,
        customers {text} NOT NULL,
        review_reason {text} NOT NULL,
        create_time bigint NOT NULL,
        submit_time bigint,
        publish_time bigint,
        stop_time bigint,
        PRIMARY KEY (offer_id, number)
    )",
    // Days are counted from 1970 on.
    "CREATE TABLE offer_usage (
        id {uuid} PRIMARY KEY,
        account_id {uuid} NOT NULL,
        offer_id {uuid} NOT NULL,
        day bigint NOT NULL,
        country_code {text} NOT NULL,
        customer_id {uuid} NOT NULL,
        units bigint NOT NULL,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX offer_usage_once ON offer_usage (offer_id, day, country_code, customer_id)",
    "CREATE INDEX offer_usage_by_day ON offer_usage (account_id, day, id)",
    "CREATE INDEX offer_usage_by_time ON offer_usage (account_id, create_time, id)",
];
