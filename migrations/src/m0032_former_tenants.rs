//! Accounts that a tenant was associated with lately are found by the tenant (VER-6): who is tied to them is tied to it.

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

const STATEMENTS: &[&str] =
    &["CREATE INDEX former_tenants_of_tenant ON former_tenants (tenant_id)"];
