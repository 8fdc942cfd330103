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

/// All rows of a query; the query bounds their number.
///
/// # Errors
/// Those of the database.
pub async fn rows_of<C: ConnectionTrait>(
    db: &C,
    sql: impl Into<String>,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<QueryResult>> {
    Ok(db.query_all_raw(statement(db, sql, values)).await?)
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

/// A sub-query of the texts in the JSON array that parameter `$n` holds (`texts`).
#[must_use]
pub fn in_texts<C: ConnectionTrait>(db: &C, n: usize) -> String {
    if db.get_database_backend() == DbBackend::Postgres {
        format!("SELECT value FROM jsonb_array_elements_text(CAST(${n} AS jsonb))")
    } else {
        format!("SELECT value FROM json_each(${n})")
    }
}

/// The value for `in_texts`.
#[must_use]
pub fn texts<'a>(of: impl IntoIterator<Item = &'a str>) -> Value {
    let list: Vec<&str> = of.into_iter().collect();
    serde_json::json!(list).to_string().into()
}

/// The type of a column of `rows`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// A UUID, given as `id`.
    Id,
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// True or false.
    Flag,
    /// Bytes, given as `bytes`.
    Bytes,
}

/// A sub-query of the rows in the JSON array of arrays that parameter `$n` holds (`table`): many rows by one statement, whose text is the
/// same for each number of them.
#[must_use]
pub fn rows<C: ConnectionTrait>(db: &C, n: usize, columns: &[(&str, Type)]) -> String {
    let postgres = db.get_database_backend() == DbBackend::Postgres;
    let columns: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(i, (name, kind))| {
            let value = if postgres {
                match kind {
                    Type::Id => format!("CAST(value->>{i} AS uuid)"),
                    Type::Text => format!("value->>{i}"),
                    Type::Number => format!("CAST(value->>{i} AS bigint)"),
                    Type::Flag => format!("CAST(value->>{i} AS boolean)"),
                    Type::Bytes => format!("decode(value->>{i}, 'hex')"),
                }
            } else if matches!(kind, Type::Id | Type::Bytes) {
                format!("unhex(json_extract(value, '$[{i}]'))")
            } else {
                format!("json_extract(value, '$[{i}]')")
            };
            format!("{value} AS {name}")
        })
        .collect();
    let columns = columns.join(", ");
    if postgres {
        format!("SELECT {columns} FROM jsonb_array_elements(CAST(${n} AS jsonb))")
    } else {
        format!("SELECT {columns} FROM json_each(${n})")
    }
}

/// The value for `rows`.
#[must_use]
pub fn table(of: Vec<Vec<serde_json::Value>>) -> Value {
    serde_json::json!(of).to_string().into()
}

/// An ID within `table`.
#[must_use]
pub fn id(of: Uuid) -> serde_json::Value {
    of.simple().to_string().into()
}

/// Bytes within `table`.
#[must_use]
pub fn bytes(of: &[u8]) -> serde_json::Value {
    hex::encode(of).into()
}

/// The text that inserts the rows of the `table` that parameter `$n` holds; the same for each number of them.
#[must_use]
pub(super) fn insert_rows<C: ConnectionTrait>(
    db: &C,
    into: &str,
    columns: &[(&str, Type)],
    n: usize,
) -> String {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    format!(
        "INSERT INTO {into} ({}) SELECT x.{} FROM ({}) x",
        names.join(", "),
        names.join(", x."),
        rows(db, n, columns)
    )
}
