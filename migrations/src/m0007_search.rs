//! Indexes of trigrams over the names of tenants, applications, groups and accounts; associated tenants in the order of their names.

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
        fold_legal_names(manager).await?;
        number(manager, "tenants").await?;
        search(manager, "tenants", &["display_name_fold", "domain_prefix"]).await?;
        number(manager, "applications").await?;
        search(manager, "applications", &["display_name_fold"]).await?;
        search(manager, "user_groups", &["display_name_fold"]).await?;
        search(manager, "invitations", &["email_fold"]).await?;
        let names = ["publisher_display_name_fold", "legal_name_fold"];
        number(manager, "accounts").await?;
        search(manager, "accounts", &names).await
    }
}

const STATEMENTS: &[&str] = &[
    "ALTER TABLE accounts ADD COLUMN legal_name_fold {text} NOT NULL DEFAULT ''",
    // The tenant's name, folded: lists of associations are ordered by it.
    "ALTER TABLE associations ADD COLUMN display_name_fold {text} NOT NULL DEFAULT ''",
    "UPDATE associations SET display_name_fold =
        COALESCE((SELECT t.display_name_fold FROM tenants t WHERE t.id = associations.tenant_id), '')",
    "CREATE INDEX associations_by_time ON associations (account_id, create_time, tenant_id)",
    "CREATE INDEX associations_by_name ON associations (account_id, display_name_fold, tenant_id)",
    "DROP VIEW account_tenants",
    // A left join, so that queries of associations alone needn't look at tenants.
    "CREATE VIEW account_tenants AS SELECT
        s.account_id, s.tenant_id, COALESCE(t.display_name, '') AS display_name, s.display_name_fold,
        COALESCE(t.domain_prefix, '') AS domain_prefix, s.create_time, s.version
        FROM associations s LEFT JOIN tenants t ON t.id = s.tenant_id",
    // Who is in which of an account's groups.
    "CREATE VIEW member_groups AS SELECT
        g.scope_id AS account_id, m.group_id, m.user_id
        FROM grants g JOIN group_members m ON m.group_id = g.principal_id
        WHERE g.scope_kind = 2 AND g.principal_kind = 4",
];

/// Folds what is there as the service folds what comes: by all of Unicode, which SQLite's own functions don't know.
async fn fold_legal_names(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let backend = db.get_database_backend();
    let some = "SELECT id, legal_name FROM accounts WHERE legal_name_fold = '' AND legal_name <> '' LIMIT 500";
    loop {
        let rows = db
            .query_all_raw(Statement::from_string(backend, some))
            .await?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            let id: Uuid = row.try_get("", "id")?;
            let name: String = row.try_get("", "legal_name")?;
            let sql = "UPDATE accounts SET legal_name_fold = $1 WHERE id = $2";
            let values: [Value; 2] = [name.to_lowercase().into(), id.into()];
            db.execute_raw(Statement::from_sql_and_values(backend, sql, values))
                .await?;
        }
    }
}

/// Gives a table of SQLite row numbers that VACUUM keeps, as `{id}` gives them to a new one.
async fn number(manager: &SchemaManager<'_>, table: &str) -> Result<(), DbErr> {
    let statements = [
        format!("[sqlite] ALTER TABLE {table} ADD COLUMN row_number integer"),
        format!("[sqlite] UPDATE {table} SET row_number = rowid"),
        format!("[sqlite] CREATE UNIQUE INDEX {table}_row_number ON {table} (row_number)"),
        format!(
            "[sqlite] CREATE TRIGGER {table}_number AFTER INSERT ON {table} WHEN new.row_number IS NULL BEGIN
                UPDATE {table} SET row_number = (SELECT COALESCE(MAX(row_number), 0) + 1 FROM {table}) WHERE id = new.id;
            END"
        ),
    ];
    crate::run(manager, &statements.each_ref().map(String::as_str)).await
}

/// Makes the index of trigrams over folded texts of a table.
pub(crate) async fn search(
    manager: &SchemaManager<'_>,
    table: &str,
    columns: &[&str],
) -> Result<(), DbErr> {
    let list = columns.join(", ");
    let old = format!("old.{}", columns.join(", old."));
    let new = format!("new.{}", columns.join(", new."));
    let search = format!("{table}_search");
    let forget = format!(
        "INSERT INTO {search} ({search}, rowid, {list}) VALUES ('delete', old.row_number, {old});"
    );
    let mut statements = vec![
        format!(
            "[sqlite] CREATE VIRTUAL TABLE {search} USING fts5 (
                {list}, content='{table}', content_rowid='row_number', tokenize='trigram'
            )"
        ),
        format!("[sqlite] INSERT INTO {search} ({search}) VALUES ('rebuild')"),
        // The row number of a new row is known when it has one, be it from its beginning or from the table's own trigger.
        format!(
            "[sqlite] CREATE TRIGGER {search}_insert AFTER INSERT ON {table} WHEN new.row_number IS NOT NULL BEGIN
                INSERT INTO {search} (rowid, {list}) VALUES (new.row_number, {new});
            END"
        ),
        format!(
            "[sqlite] CREATE TRIGGER {search}_number AFTER UPDATE OF row_number ON {table} WHEN old.row_number IS NULL BEGIN
                INSERT INTO {search} (rowid, {list}) VALUES (new.row_number, {new});
            END"
        ),
        format!(
            "[sqlite] CREATE TRIGGER {search}_delete AFTER DELETE ON {table} BEGIN
                {forget}
            END"
        ),
        format!(
            "[sqlite] CREATE TRIGGER {search}_update AFTER UPDATE OF {list} ON {table} BEGIN
                {forget}
                INSERT INTO {search} (rowid, {list}) VALUES (new.row_number, {new});
            END"
        ),
    ];
    statements.extend(columns.iter().map(|column| {
        let name = column.trim_end_matches("_fold");
        format!("[postgres] CREATE INDEX {table}_{name}_trigrams ON {table} USING gin ({column} gin_trgm_ops)")
    }));
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    crate::run(manager, &statements).await
}
