//! What groups give (ROL-6, GRP-3, GRP-5, GRP-7). The edges between groups and users, and what follows from them, are changed here only.

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Value};
use uuid::Uuid;

use super::{Grant, Last, Set, all_of};
use crate::{
    access::{
        principal::Principal,
        roles::{Permission, Permissions},
    },
    app::Tx,
    error::{Error, Reason, Result},
    names::Name,
    store::{scope_key::ScopeKey, sql},
};

/// Whether a directory synchronisation fills a group.
///
/// # Errors
/// Those of the database.
pub(super) async fn is_synchronized<C: ConnectionTrait>(db: &C, group: Uuid) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM user_groups WHERE id = $1 AND external_id <> ''";
    Ok(sql::row(db, sql, [group.into()]).await?.is_some())
}

/// Works out anew what groups give on a scope to those whom a query names, after something of it changed.
async fn work_out(tx: &Tx, scope: ScopeKey, whom: &str, of: Value) -> Result<()> {
    let db = tx.db();
    let keyed = "scope_kind = $1 AND scope_id = $2";
    let values = || -> [Value; 3] { [scope.kind().into(), scope.id().into(), of.clone()] };
    let sql = format!("DELETE FROM group_rights WHERE {keyed} AND user_id IN ({whom})");
    sql::execute(db, sql, values()).await?;
    // One of the groups that give the same stands for all of them.
    let one = if db.get_database_backend() == DbBackend::Postgres {
        "(ARRAY_AGG(m.group_id ORDER BY m.group_id))[1]"
    } else {
        "MIN(m.group_id)"
    };
    let sql = format!(
        "INSERT INTO group_rights (scope_kind, scope_id, user_id, roles, permissions, group_id, tenant_id) \
         SELECT g.scope_kind, g.scope_id, m.user_id, g.roles, g.permissions, {one}, g.tenant_id \
         FROM group_members m JOIN grants g ON g.{keyed} AND g.principal_id = m.group_id AND g.principal_kind = 4 \
         WHERE m.user_id IN ({whom}) \
         GROUP BY g.scope_kind, g.scope_id, m.user_id, g.roles, g.permissions, g.tenant_id",
        keyed = "scope_kind = $1 AND g.scope_id = $2"
    );
    sql::execute(db, sql, values()).await?;
    Ok(())
}

/// After a group's own grant on a scope changed.
///
/// # Errors
/// Those of the database.
pub(super) async fn work_out_members(tx: &Tx, scope: ScopeKey, group: Uuid) -> Result<()> {
    let whom = "SELECT user_id FROM group_members WHERE group_id = $3";
    work_out(tx, scope, whom, group.into()).await
}

/// After edges of these users to a group changed: on all scopes where the group holds something.
async fn work_out_users(tx: &Tx, grants: &[(ScopeKey, Grant)], users: &[Uuid]) -> Result<()> {
    let whom = sql::in_ids(tx.db(), 3);
    for (scope, _) in grants {
        work_out(tx, *scope, &whom, sql::ids(users)).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct InGroup {
    user_id: Uuid,
}

/// Those of these users who are in a group.
async fn members_among(tx: &Tx, group: Uuid, users: &[Uuid]) -> Result<Vec<Uuid>> {
    let sql = format!(
        "SELECT user_id FROM group_members WHERE group_id = $1 AND user_id IN ({}) ORDER BY user_id",
        sql::in_ids(tx.db(), 2)
    );
    let values: [Value; 2] = [group.into(), sql::ids(users)];
    let rows = sql::all::<InGroup, _>(tx.db(), sql, values).await?;
    Ok(rows.into_iter().map(|r| r.user_id).collect())
}

/// Whether joining a group is something that the caller may bring about: `users.assign` on every account on which the group holds rights,
/// and all that it holds there (GRP-7, ROL-7). The accounts are locked.
///
/// # Errors
/// `CANNOT_GRANT_WHAT_YOU_LACK` naming what, and on which accounts; those of the database.
pub async fn give_by_groups(tx: &mut Tx, group: Uuid) -> Result<()> {
    let grants = all_of(tx.db(), group).await?;
    tx.lock(grants.iter().map(|(scope, _)| *scope)).await?;
    let (mut lacking, mut accounts) = (Vec::new(), Vec::new());
    for (scope, grant) in &grants {
        let set = Set::of_grant(grant);
        if set.is_empty() {
            continue;
        }
        let mine = tx.caller_permissions(*scope).await?;
        let demanded = set
            .permissions(*scope)
            .and(Permissions::of(&[Permission::UsersAssign]));
        if !demanded.without(mine).is_empty() {
            accounts.push(scope.to_string());
            for name in set
                .names(*scope)
                .into_iter()
                .chain((!mine.has(Permission::UsersAssign)).then(|| "users.assign".to_owned()))
            {
                if !lacking.contains(&name) {
                    lacking.push(name);
                }
            }
        }
    }
    if lacking.is_empty() {
        return Ok(());
    }
    accounts.truncate(MOST_ACCOUNTS_NAMED);
    Err(Error::refused(Reason::CannotGrantWhatYouLack)
        .with("lacking", lacking.join(", "))
        .with("accounts", accounts.join(", ")))
}

/// Accounts that one refusal names.
const MOST_ACCOUNTS_NAMED: usize = 20;

/// Puts users of the group's own tenant into it; who is in it already stays. Gives those who are new. What joining gives was demanded
/// before (`give_by_groups`), or the group is filled by a synchronisation.
///
/// # Errors
/// Those of the database.
pub async fn join_group(tx: &mut Tx, group: Principal, users: &[Uuid]) -> Result<Vec<Uuid>> {
    let grants = all_of(tx.db(), group.id).await?;
    tx.lock(grants.iter().map(|(scope, _)| *scope).chain([group.home()]))
        .await?;
    let already = members_among(tx, group.id, users).await?;
    let sql = format!(
        "INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) \
         SELECT $1, u.id, u.display_name_fold, $2 FROM users u WHERE u.tenant_id = $3 AND u.state <> 3 AND u.id IN ({}) \
         ON CONFLICT (group_id, user_id) DO NOTHING",
        sql::in_ids(tx.db(), 4)
    );
    let values: [Value; 4] = [
        group.id.into(),
        tx.now().into(),
        group.tenant.into(),
        sql::ids(users),
    ];
    sql::execute(tx.db(), sql, values).await?;
    let mut joined = members_among(tx, group.id, users).await?;
    joined.retain(|user| !already.contains(user));
    work_out_users(tx, &grants, &joined).await?;
    Ok(joined)
}

/// Takes users out of a group; gives those who were in it. What it gave them ends with the commit (GRP-3).
///
/// # Errors
/// `LAST_MANAGER`; those of the database.
pub async fn leave_group(tx: &mut Tx, group: Principal, users: &[Uuid]) -> Result<Vec<Uuid>> {
    let grants = all_of(tx.db(), group.id).await?;
    tx.lock(grants.iter().map(|(scope, _)| *scope).chain([group.home()]))
        .await?;
    let mut lasts = Vec::new();
    for (scope, grant) in &grants {
        lasts.push(Last::before(tx, *scope, grant.roles).await?);
    }
    let left = members_among(tx, group.id, users).await?;
    let sql = format!(
        "DELETE FROM group_members WHERE group_id = $1 AND user_id IN ({})",
        sql::in_ids(tx.db(), 2)
    );
    let values: [Value; 2] = [group.id.into(), sql::ids(users)];
    sql::execute(tx.db(), sql, values).await?;
    work_out_users(tx, &grants, &left).await?;
    for last in lasts {
        last.kept(tx).await?;
    }
    Ok(left)
}

/// Takes everybody out of a group that is to be deleted, after its grants were removed; gives how many there were.
///
/// # Errors
/// Those of the database.
pub async fn empty_group(tx: &mut Tx, group: Uuid) -> Result<u64> {
    let sql = "DELETE FROM group_members WHERE group_id = $1";
    Ok(sql::execute(tx.db(), sql, [group.into()])
        .await?
        .rows_affected())
}

#[derive(FromQueryResult)]
struct Edge {
    group_id: Uuid,
    tenant_id: Uuid,
}

/// The groups of a user, at most 10,000.
///
/// # Errors
/// Those of the database.
pub async fn groups_of<C: ConnectionTrait>(db: &C, user: Uuid) -> Result<Vec<Name>> {
    let sql = "SELECT m.group_id, g.tenant_id FROM group_members m JOIN user_groups g ON g.id = m.group_id \
               WHERE m.user_id = $1 ORDER BY m.group_id LIMIT 10000";
    let edges = sql::all::<Edge, _>(db, sql, [user.into()]).await?;
    Ok(edges
        .into_iter()
        .map(|e| Name::Group(e.tenant_id, e.group_id))
        .collect())
}

/// Takes a user out of all groups, with all that they gave, where the act can't wait for the accounts (`ShutOut` tells them).
///
/// # Errors
/// Those of the database.
pub async fn leave_all_groups(tx: &mut Tx, user: Uuid) -> Result<Vec<Name>> {
    let groups = groups_of(tx.db(), user).await?;
    for sql in [
        "DELETE FROM group_members WHERE user_id = $1",
        "DELETE FROM group_rights WHERE user_id = $1",
    ] {
        sql::execute(tx.db(), sql, [user.into()]).await?;
    }
    Ok(groups)
}
