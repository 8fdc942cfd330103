//! People and what they hold anywhere, however they come to it. A home and its guests are one person (INV-5).

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};
use uuid::Uuid;

use super::{GLOBAL_ADMIN, MANAGER, MOST_ROWS, OPERATOR_ADMIN, Set, last};
use crate::{
    access::roles::Permissions,
    env::Micros,
    error::Result,
    store::{scope_key::ScopeKey, sql},
};

/// Tells the log that a question had more answers than are read.
pub(super) fn tell_if_cut(rows: usize, what: &'static str, of: Uuid) {
    if rows >= MOST_ROWS {
        tracing::warn!(what, %of, rows, "there may be more than is read");
    }
}

/// Whether two principals are one person: the same, a home and its guest, or two guests of one home.
///
/// # Errors
/// Those of the database.
pub async fn is_same_person<C: ConnectionTrait>(db: &C, one: Uuid, other: Uuid) -> Result<bool> {
    if one == other {
        return Ok(true);
    }
    let sql = "SELECT 1 AS one FROM users a JOIN users b ON COALESCE(b.home_id, b.id) = COALESCE(a.home_id, a.id) \
               WHERE a.id = $1 AND b.id = $2";
    Ok(sql::row(db, sql, [one.into(), other.into()])
        .await?
        .is_some())
}

/// Whether a person can sign in and act: active, with its tenant, a guest with its home, and a credential that hasn't expired.
///
/// # Errors
/// Those of the database.
pub async fn can_act<C: ConnectionTrait>(db: &C, person: Uuid, now: Micros) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM active_people p \
               JOIN credentials c ON c.user_id = p.credential_of AND (c.expire_time IS NULL OR c.expire_time > $2) WHERE p.id = $1";
    Ok(sql::row(db, sql, [person.into(), now.into()])
        .await?
        .is_some())
}

/// Something that a person holds somewhere, however it comes to it.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    /// Where.
    pub scope: ScopeKey,
    /// The roles and single permissions.
    pub set: Set,
    /// The user that holds it: the person itself, or as a guest elsewhere.
    pub holder: Uuid,
    /// Whether it comes by a group.
    pub by_group: bool,
}

/// Whether a person holds any role or permission anywhere, directly or by a group; membership alone is none.
///
/// # Errors
/// Those of the database.
pub async fn holds_something<C: ConnectionTrait>(db: &C, person: Uuid) -> Result<bool> {
    let held = rights_of(db, person).await?;
    Ok(held.iter().any(|right| !right.set.is_empty()))
}

/// Everything that a person holds anywhere: directly and by groups, as itself and as a guest of other tenants; at most 10,000 rows, and the
/// log tells where that cuts.
///
/// # Errors
/// Those of the database.
pub async fn rights_of<C: ConnectionTrait>(db: &C, person: Uuid) -> Result<Vec<Right>> {
    let people = "SELECT id FROM users WHERE id = $1 OR home_id = $1";
    let sql = format!(
        "SELECT scope_kind, scope_id, principal_id AS holder, roles, permissions, 0 AS by_group FROM grants WHERE principal_id IN ({people}) \
         UNION ALL \
         SELECT scope_kind, scope_id, user_id AS holder, roles, permissions, 1 AS by_group FROM group_rights WHERE user_id IN ({people}) \
         ORDER BY scope_kind, scope_id, holder LIMIT {MOST_ROWS}"
    );
    let rows = db
        .query_all_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            [person.into()],
        ))
        .await?;
    tell_if_cut(rows.len(), "rights of a person", person);
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        let kind: i16 = row.try_get("", "scope_kind")?;
        let Some(scope) = ScopeKey::from_parts(kind, row.try_get("", "scope_id")?) else {
            continue;
        };
        let permissions: String = row.try_get("", "permissions")?;
        out.push(Right {
            scope,
            set: Set {
                roles: row.try_get("", "roles")?,
                single: Permissions::from_stored(&permissions),
            },
            holder: row.try_get("", "holder")?,
            by_group: row.try_get::<i32>("", "by_group")? != 0,
        });
    }
    Ok(out)
}

/// What rights come to on each scope.
#[must_use]
pub fn by_scope(rights: &[Right]) -> BTreeMap<ScopeKey, Set> {
    let mut all: BTreeMap<ScopeKey, Set> = BTreeMap::new();
    for right in rights {
        let set = all.entry(right.scope).or_default();
        set.roles |= right.set.roles;
        set.single = set.single.and(right.set.single);
    }
    all
}

/// The scopes on which both of two principals hold something, if only membership: directly, by groups, as guests; at most 10,000, and the
/// log tells where that cuts.
///
/// # Errors
/// Those of the database.
pub async fn shared_scopes<C: ConnectionTrait>(
    db: &C,
    one: Uuid,
    other: Uuid,
) -> Result<BTreeSet<ScopeKey>> {
    let sql = shared_sql("DISTINCT a.scope_kind, a.scope_id", MOST_ROWS);
    let rows = sql::all::<Kept, _>(db, sql, [one.into(), other.into()]).await?;
    Ok(scopes(rows, "scopes that two principals share", other))
}

/// Whether there is any.
///
/// # Errors
/// Those of the database.
pub async fn share_a_scope<C: ConnectionTrait>(db: &C, one: Uuid, other: Uuid) -> Result<bool> {
    let sql = shared_sql("1 AS one", 1);
    let row = sql::row(db, sql, [one.into(), other.into()]).await?;
    Ok(row.is_some())
}

fn shared_sql(told: &str, most: usize) -> String {
    let scopes = |n: u8| {
        let people = format!("SELECT id FROM users WHERE id = ${n} OR home_id = ${n}");
        format!(
            "SELECT scope_kind, scope_id FROM grants WHERE principal_id = ${n} OR principal_id IN ({people}) \
             UNION ALL SELECT scope_kind, scope_id FROM group_rights WHERE user_id IN ({people})"
        )
    };
    format!(
        "SELECT {told} FROM ({}) a JOIN ({}) b ON b.scope_kind = a.scope_kind AND b.scope_id = a.scope_id LIMIT {most}",
        scopes(1),
        scopes(2)
    )
}

/// The scopes of these rights that must not lose their last one (ROL-9), and may by them.
#[must_use]
pub fn at_stake(rights: &[Right]) -> BTreeSet<ScopeKey> {
    rights
        .iter()
        .filter(|right| {
            last::kept_role(right.scope).is_some_and(|(bit, _)| right.set.roles & bit != 0)
        })
        .map(|right| right.scope)
        .collect()
}

#[derive(FromQueryResult)]
struct Kept {
    scope_kind: i16,
    scope_id: Uuid,
}

fn scopes(kept: Vec<Kept>, what: &'static str, of: Uuid) -> BTreeSet<ScopeKey> {
    tell_if_cut(kept.len(), what, of);
    kept.into_iter()
        .filter_map(|k| ScopeKey::from_parts(k.scope_kind, k.scope_id))
        .collect()
}

/// The scopes that may lose their last one with a person, as itself or as a guest elsewhere (ROL-9): only these are read, so that the bound
/// of 10,000 is far. The log tells where it cuts.
///
/// # Errors
/// Those of the database.
pub async fn kept_by<C: ConnectionTrait>(db: &C, person: Uuid) -> Result<BTreeSet<ScopeKey>> {
    let people = "SELECT id FROM users WHERE id = $1 OR home_id = $1";
    let kept = "((scope_kind = 0 AND (roles & $2) <> 0) OR (scope_kind = 1 AND (roles & $3) <> 0) OR (scope_kind = 2 AND (roles & $4) <> 0))";
    let sql = format!(
        "SELECT scope_kind, scope_id FROM grants WHERE principal_id IN ({people}) AND {kept} \
         UNION SELECT scope_kind, scope_id FROM group_rights WHERE user_id IN ({people}) AND {kept} LIMIT {MOST_ROWS}"
    );
    let values: [Value; 4] = [
        person.into(),
        OPERATOR_ADMIN.into(),
        GLOBAL_ADMIN.into(),
        MANAGER.into(),
    ];
    let rows = sql::all::<Kept, _>(db, sql, values).await?;
    Ok(scopes(rows, "scopes kept by a person", person))
}

/// The accounts that may lose their last manager with a tenant, whose people manage them as guests of other tenants (ROL-9, TEN-7); bounded
/// as `kept_by` is.
///
/// # Errors
/// Those of the database.
pub async fn accounts_kept_from<C: ConnectionTrait>(
    db: &C,
    tenant: Uuid,
) -> Result<BTreeSet<ScopeKey>> {
    let guests = "users h JOIN users g ON g.home_id = h.id";
    let sql = format!(
        "SELECT x.scope_kind, x.scope_id FROM {guests} JOIN grants x ON x.principal_id = g.id AND x.scope_kind = 2 AND (x.roles & $2) <> 0 \
         WHERE h.tenant_id = $1 \
         UNION SELECT x.scope_kind, x.scope_id FROM {guests} JOIN group_rights x ON x.user_id = g.id AND x.scope_kind = 2 AND (x.roles & $2) <> 0 \
         WHERE h.tenant_id = $1 LIMIT {MOST_ROWS}"
    );
    let values: [Value; 2] = [tenant.into(), MANAGER.into()];
    let rows = sql::all::<Kept, _>(db, sql, values).await?;
    Ok(scopes(rows, "accounts kept from a tenant", tenant))
}
