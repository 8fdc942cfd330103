//! What a purge takes: authority of principals who can't act any more, and for good. Nobody loses by it, so nobody is asked or told.

use sea_orm::Value;
use uuid::Uuid;

use crate::{
    app::Tx,
    error::Result,
    store::{scope_key::ScopeKey, sql},
};

/// Forgets what users, groups and applications held, and who was in these groups.
///
/// # Errors
/// Those of the database.
pub async fn forget_principals(tx: &mut Tx, principals: &[Uuid]) -> Result<()> {
    let these = sql::in_ids(tx.db(), 1);
    let sql = format!(
        "UPDATE user_groups SET member_count = member_count - x.gone FROM (SELECT group_id, COUNT(*) AS gone FROM group_members \
         WHERE user_id IN ({these}) GROUP BY group_id) x WHERE user_groups.id = x.group_id"
    );
    sql::execute(tx.db(), sql, [sql::ids(principals)]).await?;
    for (table, column) in [
        ("grants", "principal_id"),
        ("group_members", "user_id"),
        ("group_members", "group_id"),
        ("group_rights", "user_id"),
        ("woken_rights", "user_id"),
        ("delegation_assignments", "holder_id"),
        ("delegated_users", "id"),
    ] {
        let sql = format!("DELETE FROM {table} WHERE {column} IN ({these})");
        sql::execute(tx.db(), sql, [sql::ids(principals)]).await?;
    }
    Ok(())
}

/// Forgets what is left of rights on a scope.
///
/// # Errors
/// Those of the database.
pub async fn forget_scope(tx: &mut Tx, scope: ScopeKey) -> Result<()> {
    for table in ["grants", "group_rights", "woken_rights"] {
        let sql = format!("DELETE FROM {table} WHERE scope_kind = $1 AND scope_id = $2");
        let values: [Value; 2] = [scope.kind().into(), scope.id().into()];
        sql::execute(tx.db(), sql, values).await?;
    }
    Ok(())
}
