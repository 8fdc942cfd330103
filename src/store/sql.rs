//! Statements as text, for what is locked, counted or decided over sets. Values are bound, never written into the text.

use sea_orm::{ConnectionTrait, ExecResult, FromQueryResult, QueryResult, Statement, Value};

use crate::error::Result;

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
