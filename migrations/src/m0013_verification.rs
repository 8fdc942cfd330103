//! Verification of accounts (VER), and who opened them, to be told of drafts that nobody touches.

use sea_orm_migration::prelude::{
    DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, STATEMENTS).await
    }
}

const STATEMENTS: &[&str] = &[
    "ALTER TABLE accounts ADD COLUMN opened_by {text} NOT NULL DEFAULT ''",
    // Kinds and states are those of `entente.account.v1.VerificationStep`.
    "CREATE TABLE verification_steps (
        account_id {uuid} NOT NULL,
        kind bigint NOT NULL,
        state bigint NOT NULL,
        reason {text} NOT NULL,
        link_expire_time bigint,
        start_time bigint,
        end_time bigint,
        PRIMARY KEY (account_id, kind)
    )",
];
