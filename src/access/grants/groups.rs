//! What groups give (ROL-6, GRP-3, GRP-5, GRP-7). The edges between groups and users, and what follows from them, are changed here only.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Value};
use uuid::Uuid;

use super::{Grant, Last, Right, Set, ShutOut, all_of, at_stake, lacking, of_lacking};
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
async fn work_out(tx: &mut Tx, scope: ScopeKey, whom: &str, of: Value) -> Result<()> {
    tx.regroup();
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
pub(super) async fn work_out_members(tx: &mut Tx, scope: ScopeKey, group: Uuid) -> Result<()> {
    let whom = "SELECT user_id FROM group_members WHERE group_id = $3";
    work_out(tx, scope, whom, group.into()).await
}

/// After edges of these users to a group changed: on all scopes where the group holds something.
async fn work_out_users(tx: &mut Tx, grants: &[(ScopeKey, Grant)], users: &[Uuid]) -> Result<()> {
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

/// Locks every scope on which one of these groups holds something, all at once: they come in no order. The groups' tenant is locked, so
/// that they get no more meanwhile.
///
/// # Errors
/// Those of the database.
pub async fn lock_scopes_of(tx: &mut Tx, groups: &[Uuid]) -> Result<()> {
    let mut scopes = Vec::new();
    for group in groups {
        let grants = all_of(tx.db(), *group).await?;
        scopes.extend(grants.into_iter().map(|(scope, _)| scope));
    }
    tx.lock(scopes).await
}

/// Whether joining these groups is something that the caller may bring about: `users.assign` on every account on which a group holds
/// rights, and all that it holds there (GRP-7, ROL-7). The accounts are locked.
///
/// # Errors
/// `CANNOT_GRANT_WHAT_YOU_LACK` naming what, and on which accounts; `RIGHTS_ASLEEP` or `RIGHTS_BEGIN_LATER` if all of it is held but not awake;
/// those of the database.
pub async fn give_by_groups(tx: &mut Tx, groups: &[Uuid]) -> Result<()> {
    lock_scopes_of(tx, groups).await?;
    super::lent::demand_of_joining(tx, groups).await?;
    let (mut missing, mut accounts) = (Vec::new(), Vec::new());
    let mut permissions = Vec::new();
    for group in groups {
        for (scope, grant) in all_of(tx.db(), *group).await? {
            let set = Set::of_grant(&grant);
            if set.is_empty() {
                continue;
            }
            let mine = tx.caller_permissions(scope).await?;
            let assign = Permissions::of(&[Permission::UsersAssign]).without(mine);
            let names: Vec<_> = lacking(scope, set, mine)
                .into_iter()
                .chain(assign.names().into_iter().map(str::to_owned))
                .collect();
            if !names.is_empty() && !accounts.contains(&scope) {
                accounts.push(scope);
            }
            if !names.is_empty() {
                permissions.push((scope, set.permissions(scope).without(mine).and(assign)));
            }
            for name in names {
                if !missing.contains(&name) {
                    missing.push(name);
                }
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    accounts.truncate(MOST_ACCOUNTS_NAMED);
    let accounts: Vec<_> = accounts.iter().map(ToString::to_string).collect();
    let refused = Error::refused(Reason::CannotGrantWhatYouLack)
        .with("lacking", missing.join(", "))
        .with("accounts", accounts.join(", "));
    Err(of_lacking(tx, &permissions, refused).await?)
}

/// Accounts that one refusal names.
const MOST_ACCOUNTS_NAMED: usize = 20;

/// Puts users of the group's own tenant into it; who is in it already stays. Gives those who are new. What joining gives was demanded
/// before (`give_by_groups`).
///
/// # Errors
/// `NOT_ASSIGNABLE` for whose password a partner was shown, if the group holds anything; those of the database.
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
    if grants.iter().any(|(_, g)| !Set::of_grant(g).is_empty()) {
        let on_accounts = grants
            .iter()
            .filter(|(s, _)| matches!(s, ScopeKey::Account(_)));
        let roles = on_accounts.fold(0, |roles, (_, grant)| roles | grant.roles);
        super::lent::ready_users(tx, &joined, roles).await?;
    }
    count(tx, group.id, joined.len(), "+").await?;
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
    count(tx, group.id, left.len(), "-").await?;
    work_out_users(tx, &grants, &left).await?;
    for last in lasts {
        last.kept(tx).await?;
    }
    Ok(left)
}

/// Keeps the number of a group's members.
async fn count(tx: &Tx, group: Uuid, users: usize, sign: &str) -> Result<()> {
    let sql = format!("UPDATE user_groups SET member_count = member_count {sign} $1 WHERE id = $2");
    let values: [Value; 2] = [
        i64::try_from(users).unwrap_or(i64::MAX).into(),
        group.into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// What is to become of a group's members, by a synchronisation.
#[derive(Debug)]
pub struct Filling {
    /// The group.
    pub group: Uuid,
    /// Users of its tenant who are in it.
    pub join: Vec<Uuid>,
    /// Users who aren't.
    pub leave: Vec<Uuid>,
    /// Whoever isn't among `join` leaves.
    pub only: bool,
}

/// Who joined a group, and who left it.
#[derive(Debug, Default)]
pub struct Filled {
    /// Those who are new.
    pub joined: Vec<Uuid>,
    /// Those who are gone.
    pub left: Vec<Uuid>,
    /// Where the group holds something.
    pub scopes: Vec<ScopeKey>,
}

/// Fills groups as the tenant's local directory has them, which asks nobody: what they give was given to them as such (GRP-7), and accounts
/// that lose their last manager are told (ROL-9). Set-based: as many statements for one group as for hundreds, but for those that hold
/// rights.
///
/// # Errors
/// Those of the database.
pub async fn fill_groups(
    tx: &mut Tx,
    tenant: Uuid,
    fillings: &[Filling],
) -> Result<BTreeMap<Uuid, Filled>> {
    let groups: Vec<Uuid> = fillings.iter().map(|f| f.group).collect();
    let held = held_by(tx, &groups).await?;
    tx.lock(
        held.iter()
            .map(|(scope, _)| *scope)
            .chain([ScopeKey::Tenant(tenant)]),
    )
    .await?;
    let rights: Vec<Right> = held
        .iter()
        .map(|(scope, grant)| Right {
            scope: *scope,
            set: Set::of_grant(grant),
            holder: grant.principal_id,
            by_group: true,
        })
        .collect();
    let shut_out = ShutOut::before(tx, at_stake(&rights)).await?;
    let mut filled: BTreeMap<Uuid, Filled> = BTreeMap::new();
    for edge in leave_by(tx, fillings).await? {
        filled
            .entry(edge.group_id)
            .or_default()
            .left
            .push(edge.user_id);
    }
    for edge in join_by(tx, tenant, fillings).await? {
        filled
            .entry(edge.group_id)
            .or_default()
            .joined
            .push(edge.user_id);
    }
    let mut affected: BTreeMap<ScopeKey, BTreeSet<Uuid>> = BTreeMap::new();
    for (scope, grant) in &held {
        if let Some(changed) = filled.get_mut(&grant.principal_id) {
            changed.scopes.push(*scope);
            let users = changed.joined.iter().chain(&changed.left);
            affected.entry(*scope).or_default().extend(users);
        }
    }
    let whom = sql::in_ids(tx.db(), 3);
    for (scope, users) in affected {
        let users: Vec<Uuid> = users.into_iter().collect();
        if !users.is_empty() {
            work_out(tx, scope, &whom, sql::ids(&users)).await?;
        }
    }
    count_all(tx, &filled).await?;
    shut_out.done(tx).await?;
    Ok(filled)
}

/// Keeps the numbers of members of many groups.
async fn count_all(tx: &Tx, filled: &BTreeMap<Uuid, Filled>) -> Result<()> {
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let rows: Vec<_> = filled
        .iter()
        .map(|(group, f)| (group, whole(f.joined.len()) - whole(f.left.len())))
        .filter(|(_, by)| *by != 0)
        .map(|(group, by)| vec![sql::id(*group), by.into()])
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let columns = [("id", sql::Type::Id), ("more", sql::Type::Number)];
    let sql = format!(
        "UPDATE user_groups SET member_count = member_count + x.more FROM ({}) x WHERE user_groups.id = x.id",
        sql::rows(tx.db(), 1, &columns)
    );
    sql::execute(tx.db(), sql, [sql::table(rows)]).await?;
    Ok(())
}

/// What groups hold, and where.
///
/// # Errors
/// Those of the database.
pub async fn held_by(tx: &Tx, groups: &[Uuid]) -> Result<Vec<(ScopeKey, Grant)>> {
    let sql = format!(
        "SELECT DISTINCT principal_id AS id FROM grants WHERE principal_kind = 4 AND principal_id IN ({})",
        sql::in_ids(tx.db(), 1)
    );
    let holding = sql::all::<Id, _>(tx.db(), sql, [sql::ids(groups)]).await?;
    let mut held = Vec::new();
    for group in holding {
        held.extend(all_of(tx.db(), group.id).await?);
    }
    Ok(held)
}

#[derive(FromQueryResult)]
struct Id {
    id: Uuid,
}

#[derive(FromQueryResult)]
struct Pair {
    group_id: Uuid,
    user_id: Uuid,
}

const PAIR: &[(&str, sql::Type)] = &[("g", sql::Type::Id), ("u", sql::Type::Id)];

fn pairs<'a>(of: impl Iterator<Item = (Uuid, &'a Vec<Uuid>)>) -> Vec<Vec<serde_json::Value>> {
    of.flat_map(|(group, users)| {
        users
            .iter()
            .map(move |user| vec![sql::id(group), sql::id(*user)])
    })
    .collect()
}

async fn leave_by(tx: &Tx, fillings: &[Filling]) -> Result<Vec<Pair>> {
    let db = tx.db();
    let mut left = Vec::new();
    let named = pairs(fillings.iter().map(|f| (f.group, &f.leave)));
    if !named.is_empty() {
        let sql = format!(
            "DELETE FROM group_members WHERE (group_id, user_id) IN (SELECT x.g, x.u FROM ({}) x) RETURNING group_id, user_id",
            sql::rows(db, 1, PAIR)
        );
        left = sql::all::<Pair, _>(db, sql, [sql::table(named)]).await?;
    }
    let only = || fillings.iter().filter(|f| f.only);
    let replaced: Vec<Uuid> = only().map(|f| f.group).collect();
    if !replaced.is_empty() {
        let stay = pairs(only().map(|f| (f.group, &f.join)));
        let sql = format!(
            "DELETE FROM group_members WHERE group_id IN ({}) AND (group_id, user_id) NOT IN (SELECT x.g, x.u FROM ({}) x) \
             RETURNING group_id, user_id",
            sql::in_ids(db, 1),
            sql::rows(db, 2, PAIR)
        );
        left.extend(sql::all::<Pair, _>(db, sql, [sql::ids(&replaced), sql::table(stay)]).await?);
    }
    Ok(left)
}

async fn join_by(tx: &Tx, tenant: Uuid, fillings: &[Filling]) -> Result<Vec<Pair>> {
    let named = pairs(fillings.iter().map(|f| (f.group, &f.join)));
    if named.is_empty() {
        return Ok(Vec::new());
    }
    // CROSS JOIN keeps SQLite from looking at the pairs once for each user of the tenant.
    let sql = format!(
        "INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) \
         SELECT x.g, u.id, u.display_name_fold, $2 FROM ({}) x CROSS JOIN users u \
         WHERE u.id = x.u AND u.tenant_id = $3 AND u.state <> 3 ON CONFLICT (group_id, user_id) DO NOTHING RETURNING group_id, user_id",
        sql::rows(tx.db(), 1, PAIR)
    );
    let values: [Value; 3] = [sql::table(named), tx.now().into(), tenant.into()];
    sql::all::<Pair, _>(tx.db(), sql, values).await
}

/// Takes everybody out of a group that is to be deleted, after its grants were removed; gives how many there were.
///
/// # Errors
/// Those of the database.
pub async fn empty_group(tx: &mut Tx, group: Uuid) -> Result<u64> {
    super::lent::unassign_group(tx, group).await?;
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
    tx.regroup();
    for sql in [
        "UPDATE user_groups SET member_count = member_count - 1 WHERE id IN (SELECT group_id FROM group_members WHERE user_id = $1)",
        "DELETE FROM group_members WHERE user_id = $1",
        "DELETE FROM group_rights WHERE user_id = $1",
    ] {
        sql::execute(tx.db(), sql, [user.into()]).await?;
    }
    Ok(groups)
}

#[derive(FromQueryResult)]
struct GivenRow {
    user_id: Uuid,
    roles: i64,
    permissions: String,
    groups: String,
    tenant_id: Uuid,
}

/// One set of rights that groups give to a user on a scope.
#[derive(Clone, Debug)]
pub struct Given {
    /// The user.
    pub user: Uuid,
    /// The roles and single permissions.
    pub set: Set,
    /// The groups that give just this, in order of their IDs, no more of them than were asked for.
    pub groups: Vec<Name>,
    /// Whether there are more.
    pub more: bool,
}

/// What groups give to these users on a scope, as far as their tenants are associated there: the same rows that a check of each reads. Of the
/// groups that give the same to a user, as many as `most` are named.
///
/// # Errors
/// Those of the database.
pub async fn given_by_groups<C: ConnectionTrait>(
    db: &C,
    scope: ScopeKey,
    users: &[Uuid],
    most: usize,
) -> Result<Vec<Given>> {
    let all = if db.get_database_backend() == DbBackend::Postgres {
        "string_agg(CAST(x.group_id AS text), ',')"
    } else {
        "group_concat(hex(x.group_id), ',')"
    };
    // One more than is named, to know whether there are more.
    let sql = format!(
        "SELECT r.user_id, r.roles, r.permissions, r.tenant_id, (SELECT {all} FROM (SELECT m.group_id FROM group_members m \
           JOIN grants g ON g.scope_kind = r.scope_kind AND g.scope_id = r.scope_id AND g.principal_id = m.group_id AND g.principal_kind = 4 \
           WHERE m.user_id = r.user_id AND g.roles = r.roles AND g.permissions = r.permissions ORDER BY m.group_id LIMIT $4) x) AS groups \
         FROM group_rights r WHERE r.scope_kind = $1 AND r.scope_id = $2 AND r.user_id IN ({}) \
         AND ($1 <> 2 OR EXISTS (SELECT 1 FROM associations a WHERE a.account_id = $2 AND a.tenant_id = r.tenant_id)) \
         ORDER BY r.user_id, r.group_id, r.roles, r.permissions",
        sql::in_ids(db, 3)
    );
    let values: [Value; 4] = [
        scope.kind().into(),
        scope.id().into(),
        sql::ids(users),
        i64::try_from(most.saturating_add(1)).unwrap_or(1).into(),
    ];
    let rows = sql::all::<GivenRow, _>(db, sql, values).await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let groups = row.groups.split(',');
            let mut groups: Vec<_> = groups.filter_map(|id| Uuid::try_parse(id).ok()).collect();
            groups.sort_unstable();
            let more = groups.len() > most;
            groups.truncate(most);
            Given {
                user: row.user_id,
                set: Set {
                    roles: row.roles,
                    single: Permissions::from_stored(&row.permissions),
                },
                groups: groups
                    .into_iter()
                    .map(|group| Name::Group(row.tenant_id, group))
                    .collect(),
                more,
            }
        })
        .collect())
}
