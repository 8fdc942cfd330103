//! The one owner of authority: who holds what where. Slices give and take only through here, so ROL-4, 5, 7, 9, 12 and 13 live here
//! and nowhere else. Everything is asked of the database at each call (ROL-10).

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, FromQueryResult, Statement, Value};
use uuid::Uuid;

use super::{
    principal::{Authenticated, Kind, Principal},
    roles::{self, ACCOUNT_ROLES, OPERATOR_ROLES, Permission, Permissions, Role, TENANT_ROLES},
};
use crate::{
    app::Tx,
    env::{HOUR_US, Micros},
    error::{Error, Reason, Result},
    names::Name,
    proto::{
        access::{AccountRole, Rights},
        directory::DirectoryRole,
        operator::OperatorRole,
    },
    store::{outbox::Event, scope_key::ScopeKey, sql, time::rfc3339},
};

/// Rights sleep so long after somebody else set the credential (ROL-13).
pub const ASLEEP_US: Micros = 72 * HOUR_US;

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

/// Whether a principal that has a good token may still act at all.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The password is temporary.
    pub must_change_password: bool,
    /// Some rights sleep until then.
    pub asleep_until: Option<Micros>,
}

#[derive(FromQueryResult)]
struct StandingRow {
    state: i64,
    tenant_state: i64,
    session_end: Option<i64>,
    session_expire: Option<i64>,
    temporary: Option<bool>,
    asleep_until: Option<i64>,
}

/// Asks whether the principal of a token is active, with its tenant, and its session or key not ended.
///
/// # Errors
/// `UNAUTHENTICATED`, `TOKEN_INVALID` if not; those of the database.
pub async fn standing<C: ConnectionTrait>(
    db: &C,
    who: &Authenticated,
    now: Micros,
) -> Result<Standing> {
    let refused = || Error::unauthenticated(Reason::TokenInvalid);
    let sql = match who.principal.kind {
        Kind::User => {
            "SELECT u.state AS state, t.state AS tenant_state, s.end_time AS session_end, s.expire_time AS session_expire, \
             c.temporary AS temporary, u.rights_asleep_until AS asleep_until \
             FROM users u JOIN tenants t ON t.id = u.tenant_id \
             LEFT JOIN sessions s ON s.id = $2 AND s.user_id = u.id \
             LEFT JOIN credentials c ON c.user_id = u.id \
             WHERE u.id = $1 AND u.tenant_id = $3"
        }
        Kind::Application => {
            "SELECT a.state AS state, t.state AS tenant_state, NULL AS session_end, k.expire_time AS session_expire, \
             NULL AS temporary, NULL AS asleep_until \
             FROM applications a JOIN tenants t ON t.id = a.tenant_id \
             LEFT JOIN application_keys k ON k.id = $2 AND k.application_id = a.id \
             WHERE a.id = $1 AND a.tenant_id = $3"
        }
        Kind::Identity => return Err(refused()),
    };
    let backend = db.get_database_backend();
    // PostgreSQL must know the types of bare NULLs.
    let sql = if backend == DbBackend::Postgres {
        sql.replace("NULL AS session_end", "NULL::bigint AS session_end")
            .replace("NULL AS temporary", "NULL::boolean AS temporary")
            .replace("NULL AS asleep_until", "NULL::bigint AS asleep_until")
    } else {
        sql.to_owned()
    };
    let values: [Value; 3] = [
        who.principal.id.into(),
        who.session.into(),
        who.principal.tenant.into(),
    ];
    let row = sql::one::<StandingRow, _>(db, sql, values).await?;
    let row = row.ok_or_else(refused)?;
    let alive = row.state == ACTIVE
        && row.tenant_state == ACTIVE
        && row.session_end.is_none()
        && row.session_expire.is_some_and(|at| now < at);
    if !alive {
        return Err(refused());
    }
    Ok(Standing {
        must_change_password: row.temporary.unwrap_or(false),
        asleep_until: row.asleep_until.filter(|until| now < *until),
    })
}

/// The number of the active state, the same for users, tenants and applications.
pub const ACTIVE: i64 = 1;

/// What a principal holds on a scope.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Whether it is a member at all.
    pub member: bool,
    /// Role bits, direct and through groups.
    pub roles: i64,
    /// Single permissions.
    pub single: Permissions,
    /// All permissions together, asleep or not.
    pub all: Permissions,
    /// What a service may do on behalf of people: its own ceiling, if it has one.
    pub ceiling: Option<Permissions>,
}

#[derive(FromQueryResult)]
struct GrantRow {
    roles: i64,
    permissions: String,
    on_behalf_ceiling: String,
}

/// Asks what a principal holds on a scope: nothing on an account whose association with the principal's tenant has ended.
///
/// # Errors
/// Those of the database.
pub async fn held<C: ConnectionTrait>(db: &C, principal: Uuid, scope: ScopeKey) -> Result<Held> {
    let sql = "SELECT g.roles, g.permissions, g.on_behalf_ceiling FROM grants g \
               WHERE g.scope_kind = $1 AND g.scope_id = $2 AND g.principal_id = $3 \
               AND (g.scope_kind <> 2 OR g.principal_kind = 3 OR EXISTS \
                 (SELECT 1 FROM associations a WHERE a.account_id = g.scope_id AND a.tenant_id = g.tenant_id))";
    let values: [Value; 3] = [scope.kind().into(), scope.id().into(), principal.into()];
    let row = sql::one::<GrantRow, _>(db, sql, values).await?;
    let Some(row) = row else {
        return Ok(Held::default());
    };
    let single = Permissions::from_stored(&row.permissions);
    let base = if matches!(scope, ScopeKey::Account(_)) {
        roles::MEMBER
    } else {
        Permissions::NONE
    };
    Ok(Held {
        member: true,
        roles: row.roles,
        single,
        all: roles::permissions_of(roles_of(scope), row.roles)
            .and(single)
            .and(base),
        ceiling: (!row.on_behalf_ceiling.is_empty())
            .then(|| Permissions::from_stored(&row.on_behalf_ceiling)),
    })
}

/// The permissions of these that sleep on a scope while rights are asleep.
#[must_use]
pub fn sleeping(scope: ScopeKey, of: Permissions) -> Permissions {
    if scope == ScopeKey::Operator {
        of
    } else {
        of.within(roles::SLEEPING)
    }
}

/// The refusal of a permission that sleeps.
#[must_use]
pub fn asleep(permission: Permission, until: Micros) -> Error {
    Error::precondition(Reason::RightsAsleep)
        .with("permission", permission.name())
        .with("until", rfc3339(until))
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

/// Everything that a principal holds, with where; at most 10,000 scopes.
///
/// # Errors
/// Those of the database.
pub async fn all_of<C: ConnectionTrait>(db: &C, principal: Uuid) -> Result<Vec<(ScopeKey, Grant)>> {
    let sql = format!(
        "SELECT scope_kind, scope_id, {COLUMNS} FROM grants WHERE principal_id = $1 ORDER BY scope_kind, scope_id LIMIT 10000"
    );
    let rows = db
        .query_all_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            [principal.into()],
        ))
        .await?;
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
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for permissions that don't exist on accounts.
    pub fn of_request(rights: Option<&Rights>, field: &str) -> Result<Self> {
        let Some(rights) = rights else {
            return Ok(Self::default());
        };
        let mut faults = Vec::new();
        let single: Permissions = rights
            .permissions
            .iter()
            .filter_map(|p| Permission::parse(p))
            .collect();
        for name in single.without(roles::account_permissions()).names() {
            faults.push((
                format!("{field}.permissions"),
                format!("{name} is no permission on accounts"),
            ));
        }
        if !faults.is_empty() {
            return Err(Error::invalid(faults));
        }
        Ok(Self {
            roles: roles::bits_of(ACCOUNT_ROLES, &rights.roles),
            single,
        })
    }

    /// For the wire.
    #[must_use]
    pub fn to_rights(self) -> Rights {
        Rights {
            roles: roles::numbers_of(ACCOUNT_ROLES, self.roles),
            permissions: self.single.names().into_iter().map(str::to_owned).collect(),
        }
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
fn check_holdable(scope: ScopeKey, to: Principal, new: Set, old: Set) -> Result<()> {
    let refuse =
        |what: String| Err(Error::precondition(Reason::NotAssignable).with("lacking", what));
    match scope {
        ScopeKey::Account(_) => {
            let bound = new.single.without(old.single).within(roles::ROLE_BOUND);
            if !bound.is_empty() {
                return refuse(format!("{} singly", bound.names().join(", ")));
            }
            let added = new.roles & !old.roles;
            if added & OWNER != 0 {
                return refuse("OWNER by assignment".to_owned());
            }
            if !to.is_person() && added & roles::PEOPLE_ONLY_ACCOUNT_ROLES != 0 {
                let names =
                    roles::names_of(ACCOUNT_ROLES, added & roles::PEOPLE_ONLY_ACCOUNT_ROLES);
                return refuse(format!("{} by an application", names.join(", ")));
            }
        }
        ScopeKey::Tenant(_) if !to.is_person() && new.roles & GLOBAL_ADMIN != 0 => {
            return refuse("GLOBAL_ADMIN by an application".to_owned());
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

/// Who stands behind a change of grants.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// The caller, who must hold what changes (ROL-7), but for the exceptions of its method.
    Caller,
    /// The principal itself, dropping its own.
    Oneself,
    /// The service itself, at its first start or by a command on its host.
    Service,
}

/// Gives, changes or takes what a principal holds on a scope; a row is made if there is none and `keep_empty` or something is given.
/// The scope is locked. Emits nothing; the noun tells what happened.
///
/// # Errors
/// `CANNOT_GRANT_WHAT_YOU_LACK`, `NOT_ASSIGNABLE`, `LAST_MANAGER`, `LAST_GLOBAL_ADMIN`, `LAST_OPERATOR_ADMIN`; those of the database.
pub async fn set(tx: &mut Tx, scope: ScopeKey, to: Principal, new: Set, by: By) -> Result<()> {
    // The principal's own tenant too: who disables or deletes it there must see all that it holds.
    tx.lock([scope, to.home()]).await?;
    let old_grant = find(tx.db(), scope, to.id).await?;
    let old = old_grant.as_ref().map(Set::of_grant).unwrap_or_default();
    check_holdable(scope, to, new, old)?;
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
            let sql = "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
                       display_name_fold, create_time, update_time, version) VALUES ($1, $2, $3, $4, $5, $6, $7, '', \
                       COALESCE((SELECT display_name_fold FROM users WHERE id = $3), (SELECT display_name_fold FROM applications WHERE id = $3), ''), \
                       $8, $8, 1)";
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
    last.kept(tx).await
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
    let mut lacking: Vec<String> = changed_single
        .without(mine)
        .names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    for role in roles_of(scope)
        .iter()
        .filter(|r| (old.roles ^ new.roles) & r.bit() != 0)
    {
        let given = new.roles & role.bit() != 0;
        if role.permissions.without(mine).is_empty()
            || ((given || scope == ScopeKey::Operator) && excepted(tx, scope, to, role).await?)
        {
            continue;
        }
        lacking.push(role.name.to_owned());
    }
    if !lacking.is_empty() {
        return Err(
            Error::refused(Reason::CannotGrantWhatYouLack).with("lacking", lacking.join(", "))
        );
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

/// Whether the table of exceptions lets this caller give this role here.
async fn excepted(tx: &mut Tx, scope: ScopeKey, to: Principal, role: &Role) -> Result<bool> {
    if super::exceptions::of(tx.method(), role.name).is_none() {
        return Ok(false);
    }
    Ok(match (scope, role.bit()) {
        // By a MANAGER, to another person, where no active ADMIN_AGENT is; ImportAccount makes a new account.
        (ScopeKey::Account(_), ADMIN_AGENT) if !tx.method().ends_with("/ImportAccount") => {
            let by_manager = match tx.caller().who {
                Some(who) => {
                    held(tx.db(), who.principal.id, scope).await?.roles & MANAGER != 0
                        && who.principal.id != to.id
                }
                None => false,
            };
            by_manager
                && to.is_person()
                && active_holders(tx.db(), scope, ADMIN_AGENT, tx.now(), 1).await? == 0
        }
        _ => true,
    })
}

/// The role that a scope must not lose (ROL-9): asked before a change, and held against what is left after it. Who can't act anyway is no
/// loss, so a shut-out manager can be removed where no other is left.
#[must_use]
pub struct Last {
    scope: ScopeKey,
    /// The role that would be lost; none if somebody who can act is not among those who lose it.
    role: Option<(i64, Reason)>,
}

impl Last {
    /// Before a change by which `lost` roles are taken from somebody. The scope is locked.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn before(tx: &mut Tx, scope: ScopeKey, lost: i64) -> Result<Self> {
        let role = kept_role(scope).filter(|(bit, _)| lost & bit != 0);
        let Some((bit, reason)) = role else {
            return Ok(Self { scope, role: None });
        };
        tx.lock([scope]).await?;
        let there = active_holders(tx.db(), scope, bit, tx.now(), 1).await? > 0;
        Ok(Self {
            scope,
            role: there.then_some((bit, reason)),
        })
    }

    /// After the change: refuses it if nobody who can act is left.
    ///
    /// # Errors
    /// `LAST_MANAGER`, `LAST_GLOBAL_ADMIN`, `LAST_OPERATOR_ADMIN`.
    pub async fn kept(self, tx: &Tx) -> Result<()> {
        match self.role {
            Some((_, reason)) if self.is_lost(tx).await? => Err(Error::precondition(reason)),
            _ => Ok(()),
        }
    }

    async fn is_lost(&self, tx: &Tx) -> Result<bool> {
        Ok(match self.role {
            Some((bit, _)) => active_holders(tx.db(), self.scope, bit, tx.now(), 1).await? == 0,
            None => false,
        })
    }
}

fn kept_role(scope: ScopeKey) -> Option<(i64, Reason)> {
    match scope {
        ScopeKey::Operator => Some((OPERATOR_ADMIN, Reason::LastOperatorAdmin)),
        ScopeKey::Tenant(_) => Some((GLOBAL_ADMIN, Reason::LastGlobalAdmin)),
        ScopeKey::Account(_) => Some((MANAGER, Reason::LastManager)),
        ScopeKey::Identity(_) => None,
    }
}

/// How many active people who can sign in hold a role on a scope, counted up to `most`.
///
/// # Errors
/// Those of the database.
pub async fn active_holders(
    db: &DatabaseTransaction,
    scope: ScopeKey,
    role: i64,
    now: Micros,
    most: i64,
) -> Result<i64> {
    let sql = "SELECT COUNT(*) AS n FROM (SELECT 1 AS one FROM grants g \
               JOIN users u ON u.id = g.principal_id AND u.state = 1 \
               JOIN tenants t ON t.id = u.tenant_id AND t.state = 1 \
               JOIN credentials c ON c.user_id = u.id AND (c.expire_time IS NULL OR c.expire_time > $4) \
               WHERE g.scope_kind = $1 AND g.scope_id = $2 AND g.principal_kind = 1 AND (g.roles & $3) <> 0 \
               AND (g.scope_kind <> 2 OR EXISTS (SELECT 1 FROM associations a WHERE a.account_id = g.scope_id AND a.tenant_id = g.tenant_id)) \
               LIMIT $5) AS held";
    let values: [Value; 5] = [
        scope.kind().into(),
        scope.id().into(),
        role.into(),
        now.into(),
        most.into(),
    ];
    let row = sql::row(db, sql, values).await?;
    Ok(match row {
        Some(row) => row.try_get("", "n")?,
        None => 0,
    })
}

/// An act of a tenant that shuts somebody out and can't wait for the accounts: refused for the tenant's or the operator's last
/// administrator; accounts that lose their last manager are told (ROL-9).
#[must_use]
pub struct ShutOut(Vec<Last>);

impl ShutOut {
    /// Before it, with all that is held by whoever is shut out. The scopes are locked.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn before(tx: &mut Tx, held: &[(ScopeKey, Grant)]) -> Result<Self> {
        tx.lock(held.iter().map(|(scope, _)| *scope)).await?;
        let mut lasts = Vec::new();
        for (scope, grant) in held {
            lasts.push(Last::before(tx, *scope, grant.roles).await?);
        }
        Ok(Self(lasts))
    }

    /// After it.
    ///
    /// # Errors
    /// `LAST_GLOBAL_ADMIN`, `LAST_OPERATOR_ADMIN`; those of the database.
    pub async fn done(self, tx: &mut Tx) -> Result<()> {
        for last in self.0 {
            let ScopeKey::Account(account) = last.scope else {
                last.kept(tx).await?;
                continue;
            };
            if last.is_lost(tx).await? {
                tx.emit(Event::new(
                    "entente.account.v1.AccountWithoutManager",
                    Name::Account(account),
                ));
            }
        }
        Ok(())
    }
}

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

/// Associates a tenant with an account; both are locked.
///
/// # Errors
/// `ALREADY_ASSOCIATED`; those of the database.
pub async fn associate(tx: &mut Tx, account: Uuid, tenant: Uuid) -> Result<()> {
    tx.lock([ScopeKey::Tenant(tenant), ScopeKey::Account(account)])
        .await?;
    let sql = "INSERT INTO associations (account_id, tenant_id, create_time, version) VALUES ($1, $2, $3, 1)";
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
    let sql = "DELETE FROM associations WHERE account_id = $1 AND tenant_id = $2";
    sql::execute(tx.db(), sql, values).await?;
    // An account without any tenant counts its owner, who then alone remains.
    if association_count(tx.db(), account).await? > 0 {
        last.kept(tx).await?;
    }
    Ok(lost)
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

/// Puts a person's rights to sleep, since somebody else set the credential; or wakes them.
///
/// # Errors
/// Those of the database.
pub async fn set_asleep(tx: &mut Tx, user: Uuid, until: Option<Micros>) -> Result<()> {
    let sql = "UPDATE users SET rights_asleep_until = $1 WHERE id = $2";
    let values: [Value; 2] = [Value::BigInt(until), user.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Whether a principal exists and is active, with its tenant: `Some` with until when rights sleep, if they do.
///
/// # Errors
/// Those of the database.
pub async fn state<C: ConnectionTrait>(
    db: &C,
    principal: Principal,
    now: Micros,
) -> Result<Option<Option<Micros>>> {
    let (table, asleep) = match principal.kind {
        Kind::User => ("users", "p.rights_asleep_until"),
        Kind::Application => ("applications", "CAST(NULL AS bigint)"),
        Kind::Identity => return Ok(None),
    };
    let sql = format!(
        "SELECT {asleep} AS asleep FROM {table} p JOIN tenants t ON t.id = p.tenant_id \
         WHERE p.id = $1 AND p.tenant_id = $2 AND p.state = 1 AND t.state = 1"
    );
    let values: [Value; 2] = [principal.id.into(), principal.tenant.into()];
    let row = sql::row(db, sql, values).await?;
    Ok(match row {
        Some(row) => Some(
            row.try_get::<Option<i64>>("", "asleep")?
                .filter(|until| now < *until),
        ),
        None => None,
    })
}

/// A principal was renamed: its grants are listed under the new name.
///
/// # Errors
/// Those of the database.
pub async fn rename(tx: &mut Tx, principal: Uuid, display_name_fold: &str) -> Result<()> {
    let sql = "UPDATE grants SET display_name_fold = $1 WHERE principal_id = $2";
    let values: [Value; 2] = [display_name_fold.into(), principal.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}
