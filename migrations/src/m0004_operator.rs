//! The operator: what a database holds from its first moment.

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
    // The chain of the operator, and of all that is done by nobody.
    "[postgres] INSERT INTO heads VALUES (0, '00000000-0000-0000-0000-000000000000', 0, ''::bytea, 0, 0)",
    "[sqlite] INSERT INTO heads VALUES (0, x'00000000000000000000000000000000', 0, x'', 0, 0)",
];
