//! What a person's recovery address was before a case of recovery set it, for whoever stops the case (PWD-10).

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

/// None for the cases that were mailed before: they leave the address as it is.
const STATEMENTS: &[&str] = &["ALTER TABLE recovery_cases ADD COLUMN former_email {text}"];
