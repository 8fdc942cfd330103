//! Statements as text, for what is locked, counted or decided over sets. Values are bound, never written into the text.

use sea_orm::{
    ConnectionTrait, DbBackend, ExecResult, FromQueryResult, QueryResult, Statement, Value,
};
use uuid::Uuid;

use crate::{error::Result, keys::Mac};

fn statement<C: ConnectionTrait>(
    db: &C,
    sql: impl Into<String>,
    values: impl IntoIterator<Item = Value>,
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

/// Runs a statement.
///
/// # Errors
/// Those of the database.
pub async fn execute<C: ConnectionTrait>(
    db: &C,
    sql: impl Into<String>,
    values: impl IntoIterator<Item = Value>,
) -> Result<ExecResult> {
    Ok(db.execute_raw(statement(db, sql, values)).await?)
}

/// The first row of a query, if it has one.
///
/// # Errors
/// Those of the database.
pub async fn row<C: ConnectionTrait>(
    db: &C,
    sql: impl Into<String>,
    values: impl IntoIterator<Item = Value>,
) -> Result<Option<QueryResult>> {
    Ok(db.query_one_raw(statement(db, sql, values)).await?)
}

/// The first row of a query as a type, if it has one.
///
/// # Errors
/// Those of the database.
pub async fn one<T: FromQueryResult + Send + Sync, C: ConnectionTrait>(
    db: &C,
    sql: impl Into<String>,
    values: impl IntoIterator<Item = Value>,
) -> Result<Option<T>> {
    Ok(T::find_by_statement(statement(db, sql, values))
        .one(db)
        .await?)
}

/// All rows of a query as a type; the query bounds their number.
///
/// # Errors
/// Those of the database.
pub async fn all<T: FromQueryResult + Send + Sync, C: ConnectionTrait>(
    db: &C,
    sql: impl Into<String>,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<T>> {
    Ok(T::find_by_statement(statement(db, sql, values))
        .all(db)
        .await?)
}

/// Transactions with the same key take turns here until they end. SQLite's writers do so by themselves.
///
/// # Errors
/// Those of the database.
pub async fn take_turns<C: ConnectionTrait>(db: &C, key: &Mac) -> Result<()> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&key[..8]);
    let values: [Value; 1] = [i64::from_be_bytes(first).into()];
    execute(db, "SELECT pg_advisory_xact_lock($1)", values).await?;
    Ok(())
}

/// A sub-query of the IDs in the JSON array that parameter `$n` holds (`ids`): one text for lists of every length.
#[must_use]
pub fn in_ids<C: ConnectionTrait>(db: &C, n: usize) -> String {
    if db.get_database_backend() == DbBackend::Postgres {
        format!("SELECT CAST(value AS uuid) FROM jsonb_array_elements_text(CAST(${n} AS jsonb))")
    } else {
        format!("SELECT unhex(value) FROM json_each(${n})")
    }
}

/// The value for `in_ids`.
#[must_use]
pub fn ids(of: &[Uuid]) -> Value {
    let list: Vec<String> = of.iter().map(|id| id.simple().to_string()).collect();
    serde_json::json!(list).to_string().into()
}
