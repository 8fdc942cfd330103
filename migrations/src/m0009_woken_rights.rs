//! What other holders woke of rights that sleep (ROL-13): by the user that holds them, and by scope.

use sea_orm_migration::{
    prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait},
    sea_orm::{ConnectionTrait, DbBackend},
};

use crate::m0008_changed_keys::{Inserts, Told};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, STATEMENTS).await?;
        let postgres = manager.get_connection().get_database_backend() == DbBackend::Postgres;
        let triggers = if postgres {
            TOLD.postgres()
        } else {
            TOLD.sqlite()
        };
        let triggers: Vec<&str> = triggers.iter().map(String::as_str).collect();
        crate::run(manager, &triggers).await
    }
}

const STATEMENTS: &[&str] = &[
    // The permissions are names with commas between. Of no use after `asleep_until`, when the user's, or its home's, sleep ends.
    "CREATE TABLE woken_rights (
        user_id {uuid} NOT NULL,
        scope_kind smallint NOT NULL,
        scope_id {uuid} NOT NULL,
        permissions {text} NOT NULL,
        asleep_until bigint NOT NULL,
        PRIMARY KEY (user_id, scope_kind, scope_id)
    )",
    "CREATE INDEX woken_rights_by_end ON woken_rights (asleep_until)",
];

const TOLD: Told = Told {
    table: "woken_rights",
    keys: &["user_id"],
    inserts: Inserts::Told,
    only: &[],
};
