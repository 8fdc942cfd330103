//! Which tenants an account uses (TEN-3, TEN-4).

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::{COLUMNS, Grant, Last};
use crate::{
    app::Tx,
    error::Result,
    store::{scope_key::ScopeKey, sql},
};

/// Whether a tenant is associated with an account.
///
/// # Errors
/// Those of the database.
pub async fn is_associated<C: ConnectionTrait>(
    db: &C,
    account: Uuid,
    tenant: Uuid,
) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM associations WHERE account_id = $1 AND tenant_id = $2";
    let values: [Value; 2] = [account.into(), tenant.into()];
    Ok(sql::row(db, sql, values).await?.is_some())
}

/// How many tenants an account has.
///
/// # Errors
/// Those of the database.
pub async fn association_count<C: ConnectionTrait>(db: &C, account: Uuid) -> Result<i64> {
    let sql = "SELECT COUNT(*) AS n FROM associations WHERE account_id = $1";
    let row = sql::row(db, sql, [account.into()]).await?;
    Ok(match row {
        Some(row) => row.try_get("", "n")?,
        None => 0,
    })
}

#[derive(FromQueryResult)]
struct Used {
    account_id: Uuid,
}

/// Accounts that a tenant is associated with, at most so many.
///
/// # Errors
/// Those of the database.
pub async fn accounts_of<C: ConnectionTrait>(db: &C, tenant: Uuid, most: i64) -> Result<Vec<Uuid>> {
    let sql =
        "SELECT account_id FROM associations WHERE tenant_id = $1 ORDER BY account_id LIMIT $2";
    let rows = sql::all::<Used, _>(db, sql, [tenant.into(), most.into()]).await?;
    Ok(rows.into_iter().map(|r| r.account_id).collect())
}

/// Associates a tenant with an account; both are locked.
///
/// # Errors
/// `ALREADY_ASSOCIATED`; those of the database.
pub async fn associate(tx: &mut Tx, account: Uuid, tenant: Uuid) -> Result<()> {
    tx.lock([ScopeKey::Tenant(tenant), ScopeKey::Account(account)])
        .await?;
    // Versions begin at the time, so that no etag comes again when the tenant does (COM-5).
    let sql = "INSERT INTO associations (account_id, tenant_id, display_name_fold, create_time, version) \
               SELECT $1, t.id, t.display_name_fold, $3, $3 FROM tenants t WHERE t.id = $2";
    let values: [Value; 3] = [account.into(), tenant.into(), tx.now().into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Ends an association, with all memberships that came through it; gives those.
///
/// # Errors
/// `LAST_MANAGER`; those of the database.
pub async fn dissociate(tx: &mut Tx, account: Uuid, tenant: Uuid) -> Result<Vec<Grant>> {
    let scope = ScopeKey::Account(account);
    tx.lock([scope]).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM grants WHERE scope_kind = 2 AND scope_id = $1 AND tenant_id = $2 ORDER BY principal_id"
    );
    let values: [Value; 2] = [account.into(), tenant.into()];
    let lost = sql::all::<Grant, _>(tx.db(), sql, values.clone()).await?;
    let roles = lost.iter().fold(0, |bits, g| bits | g.roles);
    let last = Last::before(tx, scope, roles).await?;
    let sql = "DELETE FROM grants WHERE scope_kind = 2 AND scope_id = $1 AND tenant_id = $2";
    sql::execute(tx.db(), sql, values.clone()).await?;
    let sql = "DELETE FROM group_rights WHERE scope_kind = 2 AND scope_id = $1 AND tenant_id = $2";
    sql::execute(tx.db(), sql, values.clone()).await?;
    super::lent::unassign_tenant(tx, account, tenant).await?;
    let sql = "DELETE FROM associations WHERE account_id = $1 AND tenant_id = $2";
    sql::execute(tx.db(), sql, values).await?;
    // An account without any tenant counts its owner, who then alone remains.
    if association_count(tx.db(), account).await? > 0 {
        last.kept(tx).await?;
    }
    Ok(lost)
}

/// A tenant was renamed: its associations are listed under the new name.
///
/// # Errors
/// Those of the database.
pub async fn rename_tenant(tx: &mut Tx, tenant: Uuid, display_name_fold: &str) -> Result<()> {
    let sql = "UPDATE associations SET display_name_fold = $1 WHERE tenant_id = $2";
    let values: [Value; 2] = [display_name_fold.into(), tenant.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}
