//! The one owner of authority: who holds what where. Slices give and take only through here, so ROL-4, 5, 6, 7, 9, 12, 13 and GRP-7 live
//! here and nowhere else. Everything is asked of the database at each call (ROL-10).
//!
//! A grant is what a principal holds on a scope: a user, an application, a personal identity, or a group, which holds for its members.
//! `group_rights` is worked out from the grants of groups and their members whenever one of these changes, and only by `groups`.

mod addresses;
mod associations;
mod excepted;
mod groups;
mod last;
pub mod lent;
mod owner;
mod passing;
mod people;
mod purge;
mod sleep;
mod standing;

use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};
use uuid::Uuid;

pub use self::{
    addresses::{addresses_of, addresses_of_person},
    associations::{
        accounts_of, associate, association_count, dissociate, is_associated, rename_tenant,
    },
    groups::{
        Filled, Filling, Given, empty_group, fill_groups, give_by_groups, given_by_groups,
        groups_of, held_by, join_group, leave_all_groups, leave_group, lock_scopes_of,
    },
    last::{Last, ShutOut, last_administrator, somebody_holds},
    owner::{
        Tie, check_may_invite_owner, demand_untied, identity, may_still_tie, owner_of, tie_owner,
        tied_to, untie_owner,
    },
    passing::demand_all_held_by,
    people::{
        Right, accounts_kept_from, at_stake, by_scope, can_act, holds_something, is_same_person,
        kept_by, rights_of, share_a_scope, shared_scopes,
    },
    purge::{forget_principals, forget_scope},
    sleep::{ASLEEP_US, Sleep, forget_woken, set_asleep, sleeping},
    standing::{
        ACTIVE, Held, HeldOf, NotAwake, Source, Standing, State, held, home_principal, standing,
        state,
    },
};
use super::{
    principal::{Kind, Principal},
    roles::{self, ACCOUNT_ROLES, OPERATOR_ROLES, Permission, Permissions, Role, TENANT_ROLES},
};
use crate::{
    app::Tx,
    check::{MOST_ITEMS_NAMED, Violations},
    error::{Error, Reason, Result},
    proto::{
        access::{AccountRole, Rights},
        directory::DirectoryRole,
        operator::OperatorRole,
    },
    store::{scope_key::ScopeKey, sql},
};

/// Rows of rights that one question reads.
const MOST_ROWS: usize = 10_000;

/// The bit of `GLOBAL_ADMIN`.
pub const GLOBAL_ADMIN: i64 = 1 << DirectoryRole::GlobalAdmin as i64;
/// The bit of `MANAGER`.
pub const MANAGER: i64 = 1 << AccountRole::Manager as i64;
/// The bit of `ADMIN_AGENT`.
pub const ADMIN_AGENT: i64 = 1 << AccountRole::AdminAgent as i64;
/// The bit of `FINANCE`.
pub const FINANCE: i64 = 1 << AccountRole::Finance as i64;
/// The bit of `OWNER`.
pub const OWNER: i64 = 1 << AccountRole::Owner as i64;
/// The bit of `OPERATOR_ADMIN`.
pub const OPERATOR_ADMIN: i64 = 1 << OperatorRole::OperatorAdmin as i64;
/// The bit of `OPERATOR_FINANCE`.
pub const OPERATOR_FINANCE: i64 = 1 << OperatorRole::OperatorFinance as i64;
/// The bit of `OPERATOR_SERVICE`.
pub const OPERATOR_SERVICE: i64 = 1 << OperatorRole::OperatorService as i64;

/// The roles of a scope.
#[must_use]
pub fn roles_of(scope: ScopeKey) -> &'static [Role] {
    match scope {
        ScopeKey::Operator => OPERATOR_ROLES,
        ScopeKey::Tenant(_) => TENANT_ROLES,
        ScopeKey::Account(_) => ACCOUNT_ROLES,
        ScopeKey::Identity(_) => &[],
    }
}

/// A grant as stored: a principal's directory roles, membership, or operator roles.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Grant {
    /// Who.
    pub principal_id: Uuid,
    /// User or application.
    pub principal_kind: i16,
    /// The principal's tenant.
    pub tenant_id: Uuid,
    /// Role bits.
    pub roles: i64,
    /// Single permissions, names with commas between.
    pub permissions: String,
    /// Names with commas between; empty for the default.
    pub on_behalf_ceiling: String,
    /// The principal's display name, folded, as lists order it.
    pub display_name_fold: String,
    /// When it was made.
    pub create_time: i64,
    /// When it was changed.
    pub update_time: i64,
    /// For the etag.
    pub version: i64,
}

impl Grant {
    /// Who holds it.
    #[must_use]
    pub fn principal(&self) -> Principal {
        let kind = Kind::from_number(self.principal_kind).unwrap_or(Kind::User);
        Principal {
            kind,
            id: self.principal_id,
            tenant: self.tenant_id,
        }
    }
}

const COLUMNS: &str = "principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, display_name_fold, create_time, update_time, version";

/// The grant of a principal on a scope.
///
/// # Errors
/// Those of the database.
pub async fn find<C: ConnectionTrait>(
    db: &C,
    scope: ScopeKey,
    principal: Uuid,
) -> Result<Option<Grant>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM grants WHERE scope_kind = $1 AND scope_id = $2 AND principal_id = $3"
    );
    let values: [Value; 3] = [scope.kind().into(), scope.id().into(), principal.into()];
    sql::one::<Grant, _>(db, sql, values).await
}

/// All grants on a scope; at most 10,000, and the log tells where that cuts.
///
/// # Errors
/// Those of the database.
pub async fn all_on<C: ConnectionTrait>(db: &C, scope: ScopeKey) -> Result<Vec<Grant>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM grants WHERE scope_kind = $1 AND scope_id = $2 ORDER BY principal_id LIMIT {MOST_ROWS}"
    );
    let values: [Value; 2] = [scope.kind().into(), scope.id().into()];
    let rows = sql::all::<Grant, _>(db, sql, values).await?;
    people::tell_if_cut(rows.len(), "grants on a scope", scope.id());
    Ok(rows)
}

/// Everything that a principal holds, with where; at most 10,000 scopes, and the log tells where that cuts.
///
/// # Errors
/// Those of the database.
pub async fn all_of<C: ConnectionTrait>(db: &C, principal: Uuid) -> Result<Vec<(ScopeKey, Grant)>> {
    let sql = format!(
        "SELECT scope_kind, scope_id, {COLUMNS} FROM grants WHERE principal_id = $1 ORDER BY scope_kind, scope_id LIMIT {MOST_ROWS}"
    );
    let rows = db
        .query_all_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            [principal.into()],
        ))
        .await?;
    people::tell_if_cut(rows.len(), "grants of a principal", principal);
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        let kind: i16 = row.try_get("", "scope_kind")?;
        if let Some(scope) = ScopeKey::from_parts(kind, row.try_get("", "scope_id")?) {
            out.push((scope, Grant::from_query_result(&row, "")?));
        }
    }
    Ok(out)
}

/// What is to be held: role bits and single permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Role bits.
    pub roles: i64,
    /// Single permissions.
    pub single: Permissions,
}

impl Set {
    /// Only roles.
    #[must_use]
    pub fn of_roles(roles: i64) -> Self {
        Self {
            roles,
            single: Permissions::NONE,
        }
    }

    /// What a grant holds.
    #[must_use]
    pub fn of_grant(grant: &Grant) -> Self {
        Self {
            roles: grant.roles,
            single: Permissions::from_stored(&grant.permissions),
        }
    }

    /// What a request asks to be held on an account.
    #[must_use]
    pub fn of_request(rights: Option<&Rights>) -> Self {
        let Some(rights) = rights else {
            return Self::default();
        };
        let named: Permissions = rights
            .permissions
            .iter()
            .filter_map(|p| Permission::parse(p))
            .collect();
        Self {
            roles: roles::bits_of(ACCOUNT_ROLES, &rights.roles),
            single: named.within(roles::account_permissions()),
        }
    }

    /// Adds permissions that don't exist on accounts; `field` is that of the rights.
    pub fn check(rights: Option<&Rights>, field: &str, v: &mut Violations) {
        let names = rights.map_or(&[][..], |r| &r.permissions);
        for (i, name) in names.iter().enumerate().take(MOST_ITEMS_NAMED) {
            let there = |p| roles::account_permissions().has(p);
            if Permission::parse(name).is_some_and(|p| !there(p)) {
                let field = format!("{field}.permissions[{i}]");
                v.also(field, format!("{name} is no permission on accounts"));
            }
        }
    }

    /// For the wire, and for events.
    #[must_use]
    pub fn to_rights(self) -> Rights {
        Rights {
            roles: roles::numbers_of(ACCOUNT_ROLES, self.roles),
            permissions: self.single.names().into_iter().map(str::to_owned).collect(),
        }
    }

    /// Whether it is nothing but membership.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// What it has beyond another one.
    #[must_use]
    pub fn beyond(self, other: Self) -> Self {
        Self {
            roles: self.roles & !other.roles,
            single: self.single.without(other.single),
        }
    }

    /// The permissions that it gives on a scope.
    #[must_use]
    pub fn permissions(self, scope: ScopeKey) -> Permissions {
        roles::permissions_of(roles_of(scope), self.roles).and(self.single)
    }

    /// Names of its roles and permissions.
    #[must_use]
    pub fn names(self, scope: ScopeKey) -> Vec<String> {
        let roles = roles::names_of(roles_of(scope), self.roles);
        roles
            .into_iter()
            .chain(self.single.names())
            .map(str::to_owned)
            .collect()
    }
}

/// Refuses what can't be held this way, whoever gives it: role-bound permissions singly, people's roles by programs (ROL-4, ROL-12).
async fn check_holdable<C: ConnectionTrait>(
    db: &C,
    scope: ScopeKey,
    to: Principal,
    new: Set,
    old: Set,
    by: By,
) -> Result<()> {
    let refuse =
        |what: String| Err(Error::precondition(Reason::NotAssignable).with("lacking", what));
    match scope {
        ScopeKey::Account(_) => {
            let bound = new.single.without(old.single).within(roles::ROLE_BOUND);
            if !bound.is_empty() {
                return refuse(format!("{} singly", bound.names().join(", ")));
            }
            let added = new.roles & !old.roles;
            let makes_the_account = matches!(by, By::Service) && to.kind == Kind::Identity;
            if added & OWNER != 0 && !makes_the_account {
                return refuse("OWNER by assignment".to_owned());
            }
            let (people_only, whom) = match to.kind {
                Kind::User | Kind::Identity => (0, ""),
                Kind::Application => (roles::PEOPLE_ONLY_ACCOUNT_ROLES, "an application"),
                // ADMIN_AGENT may come by a group that people fill here, not by one that a local directory fills (ROL-12).
                Kind::Group if groups::is_synchronized(db, to.id).await? => {
                    (roles::PEOPLE_ONLY_ACCOUNT_ROLES, "a synchronised group")
                }
                Kind::Group => (FINANCE | OWNER, "a group"),
            };
            if added & people_only != 0 {
                let names = roles::names_of(ACCOUNT_ROLES, added & people_only);
                return refuse(format!("{} by {whom}", names.join(", ")));
            }
        }
        ScopeKey::Tenant(_) if to.kind == Kind::Group => {
            return refuse("directory roles by a group".to_owned());
        }
        ScopeKey::Tenant(_)
            if to.kind != Kind::Application && new.single.has(Permission::DirectorySync) =>
        {
            return refuse("directory.sync by other than an application".to_owned());
        }
        ScopeKey::Tenant(_) if !to.is_person() && new.roles & GLOBAL_ADMIN != 0 => {
            return refuse("GLOBAL_ADMIN by an application".to_owned());
        }
        // Who runs a tenant must be able to come back by an address on file there (USR-2); a guest's credential is another's matter.
        ScopeKey::Tenant(_) if new.roles & GLOBAL_ADMIN != 0 && is_guest(db, to).await? => {
            return refuse("GLOBAL_ADMIN by a guest".to_owned());
        }
        ScopeKey::Operator if new.roles != 0 && is_guest(db, to).await? => {
            return refuse("operator roles by a guest".to_owned());
        }
        ScopeKey::Operator if to.kind == Kind::Group => {
            return refuse("operator roles by a group".to_owned());
        }
        ScopeKey::Operator => {
            if new.roles & OPERATOR_ADMIN != 0 && new.roles & OPERATOR_FINANCE != 0 {
                return Err(Error::precondition(Reason::RolesExcludeEachOther)
                    .with("lacking", "OPERATOR_ADMIN and OPERATOR_FINANCE"));
            }
            let people = new.roles & !OPERATOR_SERVICE;
            if !to.is_person() && people != 0 {
                return refuse(format!(
                    "{} by an application",
                    roles::names_of(OPERATOR_ROLES, people).join(", ")
                ));
            }
            if to.is_person() && new.roles & OPERATOR_SERVICE != 0 {
                return refuse("OPERATOR_SERVICE by a person".to_owned());
            }
        }
        _ => {}
    }
    Ok(())
}

async fn is_guest<C: ConnectionTrait>(db: &C, who: Principal) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM users WHERE id = $1 AND kind = 2";
    Ok(sql::row(db, sql, [who.id.into()]).await?.is_some())
}

/// Who stands behind a change of grants.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// The caller, who must hold what changes (ROL-7), but for the exceptions of its method.
    Caller,
    /// The principal itself, dropping its own.
    Oneself,
    /// Somebody other than the caller, who was asked what it may still give (`give_in_name_of`).
    Another,
    /// The service itself, at its first start or by a command on its host.
    Service,
}

/// Gives, changes or takes what a principal holds on a scope; a row is made if there is none and `keep_empty` or something is given.
/// The scope is locked. Emits nothing; the noun tells what happened.
///
/// # Errors
/// `CANNOT_GRANT_WHAT_YOU_LACK`, `RIGHTS_ASLEEP` or `RIGHTS_BEGIN_LATER` for what is held but not awake, `NOT_ASSIGNABLE`, `LAST_MANAGER`,
/// `LAST_GLOBAL_ADMIN`, `LAST_OPERATOR_ADMIN`; those of the database.
pub async fn set(tx: &mut Tx, scope: ScopeKey, to: Principal, new: Set, by: By) -> Result<()> {
    // The principal's own tenant too: who disables or deletes it there must see all that it holds.
    tx.lock([scope, to.home()]).await?;
    let old_grant = find(tx.db(), scope, to.id).await?;
    let old = old_grant.as_ref().map(Set::of_grant).unwrap_or_default();
    if !new.beyond(old).is_empty() {
        lent::ready(tx, to, new.beyond(old).roles).await?;
    }
    check_holdable(tx.db(), scope, to, new, old, by).await?;
    if matches!(by, By::Caller) {
        check_may_change(tx, scope, to, old, new).await?;
    }
    let last = Last::before(tx, scope, old.roles & !new.roles).await?;
    let now = tx.now();
    match old_grant {
        Some(_) => {
            let sql = "UPDATE grants SET roles = $1, permissions = $2, update_time = $3, version = version + 1 \
                       WHERE scope_kind = $4 AND scope_id = $5 AND principal_id = $6";
            let values: [Value; 6] = [
                new.roles.into(),
                new.single.to_stored().into(),
                now.into(),
                scope.kind().into(),
                scope.id().into(),
                to.id.into(),
            ];
            sql::execute(tx.db(), sql, values).await?;
        }
        None => {
            // Versions begin at the time, so that no etag comes again when the same principal does (COM-5).
            let sql = "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
                       display_name_fold, create_time, update_time, version) VALUES ($1, $2, $3, $4, $5, $6, $7, '', \
                       COALESCE((SELECT display_name_fold FROM users WHERE id = $3), (SELECT display_name_fold FROM applications WHERE id = $3), \
                       (SELECT display_name_fold FROM user_groups WHERE id = $3), ''), \
                       $8, $8, $8)";
            let values: [Value; 8] = [
                scope.kind().into(),
                scope.id().into(),
                to.id.into(),
                (to.kind as i16).into(),
                to.tenant.into(),
                new.roles.into(),
                new.single.to_stored().into(),
                now.into(),
            ];
            sql::execute(tx.db(), sql, values).await?;
        }
    }
    if to.kind == Kind::Group {
        groups::work_out_members(tx, scope, to.id).await?;
    }
    last.kept(tx).await
}

/// Refuses what the caller may not give or take here, without doing it: where it is to be done later (INV-1).
///
/// # Errors
/// `CANNOT_GRANT_WHAT_YOU_LACK`, `RIGHTS_ASLEEP` or `RIGHTS_BEGIN_LATER` for what is held but not awake, `NOT_ASSIGNABLE`; those of the database.
pub async fn check_may_give(tx: &mut Tx, scope: ScopeKey, to: Principal, new: Set) -> Result<()> {
    let old = find(tx.db(), scope, to.id).await?;
    let old = old.as_ref().map(Set::of_grant).unwrap_or_default();
    if !new.beyond(old).is_empty() {
        lent::ready(tx, to, new.beyond(old).roles).await?;
    }
    check_holdable(tx.db(), scope, to, new, old, By::Caller).await?;
    check_may_change(tx, scope, to, old, new).await
}

/// Gives in the name of somebody other than the caller, who promised it before (INV-4): a membership, and of the set the whole roles and
/// single permissions that this one holds there now, awake. No exception helps it. None if it may give nobody anything there any more.
///
/// # Errors
/// Those of `set`, but for ROL-7.
pub async fn give_in_name_of(
    tx: &mut Tx,
    by: Principal,
    scope: ScopeKey,
    to: Principal,
    promised: Set,
) -> Result<Option<Set>> {
    tx.lock([scope, to.home(), by.home()]).await?;
    if let ScopeKey::Account(account) = scope
        && !is_associated(tx.db(), account, to.tenant).await?
    {
        return Ok(None);
    }
    let given = givable(tx, by, scope, promised).await?;
    if let Some(given) = given {
        set(tx, scope, to, given, By::Another).await?;
    }
    Ok(given)
}

/// The part of a set that somebody other than the caller may give on a scope now; None if it may give nobody anything there.
async fn givable(tx: &Tx, by: Principal, scope: ScopeKey, set: Set) -> Result<Option<Set>> {
    let Some(state) = state(tx.db(), by, tx.now()).await? else {
        return Ok(None);
    };
    let held = held(tx.db(), by.id, scope).await?;
    let theirs = held.awake(scope, state.asleep_until, tx.now());
    if !theirs.has(Permission::UsersAssign) {
        return Ok(None);
    }
    let roles = roles_of(scope)
        .iter()
        .filter(|r| set.roles & r.bit() != 0 && r.permissions.without(theirs).is_empty())
        .fold(0, |bits, r| bits | r.bit());
    Ok(Some(Set {
        roles,
        single: set.single.within(theirs),
    }))
}

/// Takes everything that a principal holds on a scope, and its membership. The scope is locked.
///
/// # Errors
/// Those of `set`, but for ROL-7, which removals are exempt from: what `members.remove` and the like demand is proven before.
pub async fn remove(tx: &mut Tx, scope: ScopeKey, principal: Uuid) -> Result<Option<Grant>> {
    tx.lock([scope]).await?;
    let held = find(tx.db(), scope, principal).await?;
    let last = Last::before(tx, scope, held.map_or(0, |grant| grant.roles)).await?;
    let removed = remove_anyway(tx, scope, principal).await?;
    last.kept(tx).await?;
    Ok(removed)
}

/// The same where the act can't wait for who comes next: it never fails for the last one (ROL-9).
///
/// # Errors
/// Those of the database.
pub async fn remove_anyway(tx: &mut Tx, scope: ScopeKey, principal: Uuid) -> Result<Option<Grant>> {
    tx.lock([scope]).await?;
    let Some(grant) = find(tx.db(), scope, principal).await? else {
        return Ok(None);
    };
    let sql = "DELETE FROM grants WHERE scope_kind = $1 AND scope_id = $2 AND principal_id = $3";
    let values: [Value; 3] = [scope.kind().into(), scope.id().into(), principal.into()];
    sql::execute(tx.db(), sql, values).await?;
    if grant.principal().kind == Kind::Group {
        groups::work_out_members(tx, scope, principal).await?;
    }
    Ok(Some(grant))
}

/// ROL-7: the caller holds all that changes, there and awake; or the exception of its method covers it.
async fn check_may_change(
    tx: &mut Tx,
    scope: ScopeKey,
    to: Principal,
    old: Set,
    new: Set,
) -> Result<()> {
    let mine = tx.caller_permissions(scope).await?;
    let changed_single = new
        .single
        .without(old.single)
        .and(old.single.without(new.single));
    let beyond = changed_single.without(mine);
    let mut missing: Permissions = Permission::ALL
        .iter()
        .copied()
        .filter(|p| beyond.has(*p) && super::exceptions::of(tx.method(), p.name()).is_none())
        .collect();
    let mut lacking: Vec<&str> = missing.names();
    for role in roles_of(scope)
        .iter()
        .filter(|r| (old.roles ^ new.roles) & r.bit() != 0)
    {
        let given = new.roles & role.bit() != 0;
        if role.permissions.without(mine).is_empty()
            || ((given || scope == ScopeKey::Operator)
                && excepted::by_table(tx, scope, to, role, mine).await?)
        {
            continue;
        }
        missing = missing.and(role.permissions.without(mine));
        lacking.push(role.name);
    }
    if !lacking.is_empty() {
        let refused =
            Error::refused(Reason::CannotGrantWhatYouLack).with("lacking", lacking.join(", "));
        return Err(of_lacking(tx, &[(scope, missing)], refused).await?);
    }
    if matches!(scope, ScopeKey::Account(_))
        && (old.roles ^ new.roles) & FINANCE != 0
        && !tx.method().ends_with("Finance")
    {
        // ROL-4: only by who holds it, only to people who are members already; GrantFinance and RevokeFinance see to that.
        return Err(Error::precondition(Reason::NotAssignable).with(
            "lacking",
            "FINANCE by other than GrantFinance and RevokeFinance",
        ));
    }
    Ok(())
}

/// The refusal of a caller who lacks all this, awake: of what sleeps if it holds all of it (ROL-13), else the one given.
async fn of_lacking(tx: &Tx, missing: &[(ScopeKey, Permissions)], refused: Error) -> Result<Error> {
    let mut first = None;
    for (scope, permissions) in missing {
        match tx.not_awake(*permissions, *scope).await? {
            Some(not_awake) => {
                first.get_or_insert(not_awake);
            }
            None => return Ok(refused),
        }
    }
    Ok(first.unwrap_or(refused))
}

/// Names of what a set has on a scope that `mine` lacks.
fn lacking(scope: ScopeKey, set: Set, mine: Permissions) -> Vec<String> {
    roles_of(scope)
        .iter()
        .filter(|role| set.roles & role.bit() != 0 && !role.permissions.without(mine).is_empty())
        .map(|role| role.name)
        .chain(set.single.without(mine).names())
        .map(str::to_owned)
        .collect()
}

/// Sets what a service may do on behalf of people; empty for the default.
///
/// # Errors
/// Those of the database.
pub async fn set_ceiling(tx: &mut Tx, principal: Uuid, ceiling: Permissions) -> Result<()> {
    let sql = "UPDATE grants SET on_behalf_ceiling = $1 WHERE scope_kind = 0 AND principal_id = $2";
    let values: [Value; 2] = [ceiling.to_stored().into(), principal.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Principals were renamed, given as IDs with folded display names: see `rename`.
///
/// # Errors
/// Those of the database.
pub async fn rename_all(tx: &mut Tx, renamed: &[(Uuid, String)]) -> Result<()> {
    if renamed.is_empty() {
        return Ok(());
    }
    let columns = [("id", sql::Type::Id), ("fold", sql::Type::Text)];
    let rows = sql::rows(tx.db(), 1, &columns);
    let table: Vec<_> = renamed
        .iter()
        .map(|(id, fold)| vec![sql::id(*id), fold.as_str().into()])
        .collect();
    for (table_name, column) in [("grants", "principal_id"), ("group_members", "user_id")] {
        let sql = format!(
            "UPDATE {table_name} SET display_name_fold = x.fold FROM ({rows}) x WHERE {table_name}.{column} = x.id"
        );
        sql::execute(tx.db(), sql, [sql::table(table.clone())]).await?;
    }
    Ok(())
}

/// A principal was renamed: its grants, and groups that it is in, are listed under the new name.
///
/// # Errors
/// Those of the database.
pub async fn rename(tx: &mut Tx, principal: Uuid, display_name_fold: &str) -> Result<()> {
    for sql in [
        "UPDATE grants SET display_name_fold = $1 WHERE principal_id = $2",
        "UPDATE group_members SET display_name_fold = $1 WHERE user_id = $2",
    ] {
        let values: [Value; 2] = [display_name_fold.into(), principal.into()];
        sql::execute(tx.db(), sql, values).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves ROL-1
    #[test]
    fn bits_are_those_of_the_roles_that_they_are_named_after() {
        for (roles, name, bit) in [
            (TENANT_ROLES, "GLOBAL_ADMIN", GLOBAL_ADMIN),
            (ACCOUNT_ROLES, "MANAGER", MANAGER),
            (ACCOUNT_ROLES, "ADMIN_AGENT", ADMIN_AGENT),
            (ACCOUNT_ROLES, "FINANCE", FINANCE),
            (ACCOUNT_ROLES, "OWNER", OWNER),
            (OPERATOR_ROLES, "OPERATOR_ADMIN", OPERATOR_ADMIN),
            (OPERATOR_ROLES, "OPERATOR_FINANCE", OPERATOR_FINANCE),
            (OPERATOR_ROLES, "OPERATOR_SERVICE", OPERATOR_SERVICE),
        ] {
            let role = roles.iter().find(|role| role.name == name).unwrap();
            assert_eq!(bit, role.bit(), "{name}");
        }
    }

    // proves ROL-6
    #[test]
    fn a_set_is_empty_without_roles_and_permissions_and_has_the_names_of_both() {
        let on = ScopeKey::Account(Uuid::nil());
        let single = Permissions::of(&[Permission::OffersManage]);
        for (roles, single, names) in [
            (0, Permissions::NONE, &[][..]),
            (MANAGER, Permissions::NONE, &["MANAGER"]),
            (0, single, &["offers.manage"]),
            (
                MANAGER | FINANCE,
                single,
                &["MANAGER", "FINANCE", "offers.manage"],
            ),
        ] {
            let set = Set { roles, single };
            assert_eq!(set.is_empty(), names.is_empty(), "{names:?}");
            assert_eq!(set.names(on), names);
        }
    }
}
