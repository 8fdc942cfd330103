//! The language in which a person signed in last (COM-15).

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

/// Empty for whoever hasn't signed in since.
const STATEMENTS: &[&str] =
    &["ALTER TABLE credentials ADD COLUMN language {text} NOT NULL DEFAULT ''"];
