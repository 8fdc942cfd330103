//! Enrolment of accounts (ACC): what they tell of their company, their publisher names, and names that are reserved.

use sea_orm_migration::{
    prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait},
    sea_orm::{ConnectionTrait, Statement, Value, prelude::Uuid},
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, STATEMENTS).await?;
        keep_names(manager).await
    }
}

const STATEMENTS: &[&str] = &[
    // Addresses and contacts, in JSON: read and written as a whole.
    "ALTER TABLE accounts ADD COLUMN profile {text} NOT NULL DEFAULT '{}'",
    // The membership of the network that it was opened with; null for imported ones.
    "ALTER TABLE accounts ADD COLUMN membership_id {uuid}",
    // Who gave the word to may sign for the company, and when it was submitted; none for drafts and imported ones.
    "ALTER TABLE accounts ADD COLUMN signatory {text} NOT NULL DEFAULT ''",
    "ALTER TABLE accounts ADD COLUMN submit_time bigint",
    // A suspended account: why, and the state that it had.
    "ALTER TABLE accounts ADD COLUMN suspension_reason {text} NOT NULL DEFAULT ''",
    "ALTER TABLE accounts ADD COLUMN state_before bigint NOT NULL DEFAULT 0",
    // When the opener of an idle draft was told.
    "ALTER TABLE accounts ADD COLUMN idle_told_time bigint",
    // Drafts have no name yet, and what makes names the same is more than their letters.
    "DROP INDEX accounts_publisher_display_name",
    "CREATE INDEX accounts_by_name ON accounts (publisher_display_name_fold, id)",
    "CREATE INDEX accounts_drafts ON accounts (update_time) WHERE state = 2",
    // Keys of publisher names: who has one has all names that look like it. Closed accounts keep theirs.
    "CREATE TABLE publisher_names (
        skeleton {text} PRIMARY KEY,
        account_id {uuid} NOT NULL
    )",
    "CREATE INDEX publisher_names_by_account ON publisher_names (account_id)",
    // Names that the operator keeps for whoever has the rights on them.
    "CREATE TABLE reserved_names (
        {id},
        display_name {text} NOT NULL,
        display_name_fold {text} NOT NULL,
        note {text} NOT NULL,
        create_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE INDEX reserved_names_by_time ON reserved_names (create_time, id)",
    "CREATE INDEX reserved_names_by_name ON reserved_names (display_name_fold, id)",
    "CREATE TABLE reserved_name_keys (
        skeleton {text} PRIMARY KEY,
        reserved_name_id {uuid} NOT NULL
    )",
    "CREATE INDEX reserved_name_keys_by_name ON reserved_name_keys (reserved_name_id)",
];

/// Keeps the names that accounts have, by their letters; what looks like one is kept once it is written anew.
async fn keep_names(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let backend = db.get_database_backend();
    let all = "SELECT id, publisher_display_name_fold FROM accounts WHERE publisher_display_name_fold <> ''";
    for row in db
        .query_all_raw(Statement::from_string(backend, all))
        .await?
    {
        let id: Uuid = row.try_get("", "id")?;
        let name: String = row.try_get("", "publisher_display_name_fold")?;
        let sql = "INSERT INTO publisher_names (skeleton, account_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let values: [Value; 2] = [name.into(), id.into()];
        db.execute_raw(Statement::from_sql_and_values(backend, sql, values))
            .await?;
    }
    Ok(())
}
