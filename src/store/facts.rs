//! Small facts about this database, in the table `meta`.

use sea_orm::ConnectionTrait;

use super::sql;
use crate::error::Result;

/// A fact of this database.
///
/// # Errors
/// Those of the database.
pub async fn fact<C: ConnectionTrait>(db: &C, key: &str) -> Result<Option<String>> {
    let sql = "SELECT value FROM meta WHERE key = $1";
    let row = sql::row(db, sql, [key.into()]).await?;
    Ok(match row {
        Some(row) => Some(row.try_get("", "value")?),
        None => None,
    })
}
