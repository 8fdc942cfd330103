//! Whether a principal may still act, and what it holds on a scope: asked of the database at each call, or of memory that the database
//! vouches for at each call (ROL-10). So what is told here is without time; what time makes of it is judged anew at each call.

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Value};
use uuid::Uuid;

use super::{Set, roles_of, sleep::sleeping};
use crate::{
    access::{
        cache::Facts,
        principal::{Authenticated, Kind, Principal},
        roles::{self, Permission, Permissions},
    },
    env::Micros,
    error::{Error, Reason, Result},
    store::{
        memory::{Fact, Found},
        scope_key::ScopeKey,
        sql,
        time::rfc3339,
    },
};

/// The number of the active state, the same for users, tenants and applications.
pub const ACTIVE: i64 = 1;

/// Whether a principal that has a good token may still act at all.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The password is temporary.
    pub must_change_password: bool,
    /// Some rights sleep until then.
    pub asleep_until: Option<Micros>,
    /// A guest's home: whose credential opened the session.
    pub home: Option<Principal>,
}

/// What the database tells of the principal of a token: its own state, its tenant's, its session's or key's, and its home's.
#[derive(Clone, Debug, FromQueryResult)]
pub struct StandingRow {
    state: i64,
    tenant_state: i64,
    session_end: Option<i64>,
    session_expire: Option<i64>,
    temporary: Option<bool>,
    asleep_until: Option<i64>,
    home_id: Option<Uuid>,
    home_tenant_id: Option<Uuid>,
    home_state: Option<i64>,
    home_tenant_state: Option<i64>,
    home_asleep_until: Option<i64>,
}

/// The fact of what there is of the principal of a token; none if there is no such principal.
#[derive(Clone, Copy, Debug)]
pub struct StandingOf(pub Authenticated);

impl Fact for StandingOf {
    type Value = Option<StandingRow>;

    fn key(&self) -> [Uuid; 4] {
        let Principal { kind, id, tenant } = self.0.principal;
        [id, tenant, self.0.session, Uuid::from_u128(kind as u128)]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<Option<StandingRow>>> {
        let who = &self.0;
        let sql = match who.principal.kind {
            // Kind 3 of the table is that of personal identities: a token of one kind is good for that kind only.
            Kind::User | Kind::Identity => {
                "SELECT u.state AS state, t.state AS tenant_state, s.end_time AS session_end, s.expire_time AS session_expire, \
                 c.temporary AS temporary, u.rights_asleep_until AS asleep_until, u.home_id, u.home_tenant_id, \
                 h.state AS home_state, ht.state AS home_tenant_state, h.rights_asleep_until AS home_asleep_until \
                 FROM users u JOIN tenants t ON t.id = u.tenant_id \
                 LEFT JOIN users h ON h.id = u.home_id LEFT JOIN tenants ht ON ht.id = h.tenant_id \
                 LEFT JOIN sessions s ON s.id = $2 AND s.user_id = u.id AND (u.home_id IS NULL OR s.home_id = u.home_id) \
                 LEFT JOIN credentials c ON c.user_id = COALESCE(u.home_id, u.id) \
                 WHERE u.id = $1 AND u.tenant_id = $3 AND (u.kind = 3) = $4"
            }
            Kind::Application => {
                "SELECT a.state AS state, t.state AS tenant_state, CAST(NULL AS bigint) AS session_end, k.expire_time AS session_expire, \
                 CAST(NULL AS boolean) AS temporary, CAST(NULL AS bigint) AS asleep_until, CAST(NULL AS {uuid}) AS home_id, \
                 CAST(NULL AS {uuid}) AS home_tenant_id, CAST(NULL AS bigint) AS home_state, CAST(NULL AS bigint) AS home_tenant_state, \
                 CAST(NULL AS bigint) AS home_asleep_until \
                 FROM applications a JOIN tenants t ON t.id = a.tenant_id \
                 LEFT JOIN application_keys k ON k.id = $2 AND k.application_id = a.id \
                 WHERE a.id = $1 AND a.tenant_id = $3 AND $4 = $4"
            }
            Kind::Group => {
                return Ok(Found {
                    value: None,
                    deps: Vec::new(),
                    bytes: 0,
                    keep: false,
                });
            }
        };
        let uuid = if db.get_database_backend() == DbBackend::Postgres {
            "uuid"
        } else {
            "blob"
        };
        let values: [Value; 4] = [
            who.principal.id.into(),
            who.session.into(),
            who.principal.tenant.into(),
            (who.principal.kind == Kind::Identity).into(),
        ];
        let row = sql::one::<StandingRow, _>(db, sql.replace("{uuid}", uuid), values).await?;
        let mut deps = vec![who.principal.id, who.principal.tenant, who.session];
        // New sessions, keys and credentials tell nothing; so whoever lacks one is asked for each time.
        let whole = row.as_ref().is_some_and(|row| {
            deps.extend([row.home_id, row.home_tenant_id].into_iter().flatten());
            row.session_expire.is_some()
                && (who.principal.kind == Kind::Application || row.temporary.is_some())
        });
        Ok(Found {
            value: row,
            deps,
            bytes: 0,
            keep: whole,
        })
    }
}

impl StandingRow {
    /// What it comes to now.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `TOKEN_INVALID` if the principal or its tenant isn't active, its session or key has ended, or, for a guest, its
    /// home isn't active (INV-5).
    pub fn judge(row: Option<&Self>, now: Micros) -> Result<Standing> {
        let refused = || Error::unauthenticated(Reason::TokenInvalid);
        let row = row.ok_or_else(refused)?;
        let active = |state: i64, tenant_state: i64| state == ACTIVE && tenant_state == ACTIVE;
        let home_alive = row.home_id.is_none()
            || active(
                row.home_state.unwrap_or(0),
                row.home_tenant_state.unwrap_or(0),
            );
        let alive = active(row.state, row.tenant_state)
            && home_alive
            && row.session_end.is_none()
            && row.session_expire.is_some_and(|at| now < at);
        if !alive {
            return Err(refused());
        }
        Ok(Standing {
            must_change_password: row.temporary.unwrap_or(false),
            // Whose credential was set by another sleeps wherever that credential opens.
            asleep_until: row
                .asleep_until
                .max(row.home_asleep_until)
                .filter(|until| now < *until),
            home: row
                .home_id
                .map(|id| home_principal(id, row.home_tenant_id.unwrap_or_default())),
        })
    }
}

/// Asks whether the principal of a token may still act.
///
/// # Errors
/// As `StandingRow::judge`; those of the database.
pub async fn standing<F: Facts>(db: &F, who: &Authenticated, now: Micros) -> Result<Standing> {
    let row = db.know(StandingOf(*who)).await?;
    StandingRow::judge(row.as_ref().as_ref(), now)
}

/// The principal that a guest's row names as its home.
#[must_use]
pub fn home_principal(id: Uuid, tenant: Uuid) -> Principal {
    let kind = if tenant.is_nil() {
        Kind::Identity
    } else {
        Kind::User
    };
    Principal { kind, id, tenant }
}

/// What there is of a principal that exists and can act; of a guest what is of its home too.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Some rights sleep until then.
    pub asleep_until: Option<Micros>,
    /// The password is temporary.
    pub must_change_password: bool,
}

/// The fact of the state of a principal; none if it isn't there or can't act.
#[derive(Clone, Copy, Debug)]
pub struct StateOf(pub Principal);

#[derive(FromQueryResult)]
struct StateRow {
    asleep: Option<i64>,
    home_asleep: Option<i64>,
    temporary: Option<bool>,
    home_id: Option<Uuid>,
    home_tenant_id: Option<Uuid>,
}

impl Fact for StateOf {
    type Value = Option<State>;

    fn key(&self) -> [Uuid; 4] {
        let Principal { kind, id, tenant } = self.0;
        [id, tenant, Uuid::nil(), Uuid::from_u128(kind as u128)]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<Self::Value>> {
        let homeless = "CAST(NULL AS bigint) AS asleep, CAST(NULL AS bigint) AS home_asleep, CAST(NULL AS boolean) AS temporary, \
                        CAST(NULL AS {uuid}) AS home_id, CAST(NULL AS {uuid}) AS home_tenant_id";
        let sql = match self.0.kind {
            Kind::User | Kind::Identity => {
                "SELECT u.rights_asleep_until AS asleep, h.rights_asleep_until AS home_asleep, c.temporary AS temporary, \
                 u.home_id, u.home_tenant_id FROM active_people p JOIN users u ON u.id = p.id \
                 LEFT JOIN users h ON h.id = u.home_id LEFT JOIN credentials c ON c.user_id = p.credential_of WHERE p.id = $1 AND p.tenant_id = $2"
                    .to_owned()
            }
            Kind::Application => format!(
                "SELECT {homeless} FROM applications p \
                 JOIN tenants t ON t.id = p.tenant_id WHERE p.id = $1 AND p.tenant_id = $2 AND p.state = 1 AND t.state = 1"
            ),
            Kind::Group => format!(
                "SELECT {homeless} FROM user_groups p \
                 JOIN tenants t ON t.id = p.tenant_id WHERE p.id = $1 AND p.tenant_id = $2 AND t.state = 1"
            ),
        };
        let uuid = if db.get_database_backend() == DbBackend::Postgres {
            "uuid"
        } else {
            "blob"
        };
        let Principal { kind, id, tenant } = self.0;
        let values: [Value; 2] = [id.into(), tenant.into()];
        let row = sql::one::<StateRow, _>(db, sql.replace("{uuid}", uuid), values).await?;
        let mut deps = vec![id, tenant];
        if let Some(row) = &row {
            deps.extend([row.home_id, row.home_tenant_id].into_iter().flatten());
        }
        Ok(Found {
            // New people and credentials tell nothing, and groups never.
            keep: match kind {
                Kind::User | Kind::Identity => row.as_ref().is_some_and(|r| r.temporary.is_some()),
                Kind::Application => row.is_some(),
                Kind::Group => false,
            },
            value: row.map(|row| State {
                asleep_until: row.asleep.max(row.home_asleep),
                must_change_password: row.temporary.unwrap_or(false),
            }),
            deps,
            bytes: 0,
        })
    }
}

/// The state of a principal that exists and can act now, with its tenant, and a guest with its home.
///
/// # Errors
/// Those of the database.
pub async fn state<F: Facts>(db: &F, principal: Principal, now: Micros) -> Result<Option<State>> {
    let found = *db.know(StateOf(principal)).await?;
    Ok(found.map(|state| State {
        asleep_until: state.asleep_until.filter(|until| now < *until),
        ..state
    }))
}

/// One way in which a principal comes to rights on a scope.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The roles and single permissions.
    pub set: Set,
    /// The group that gives them, or one of several that give the same; none if they are held directly.
    pub group: Option<Uuid>,
    /// The principal's, or the group's, tenant.
    pub tenant: Uuid,
}

/// Why a permission that is held can't be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAwake {
    /// Somebody else set the credential; others wake it, or this time comes (ROL-13).
    Asleep(Micros),
    /// It begins then for an owner who was tied to the account; nobody wakes it (ACC-20).
    BeginsLater(Micros),
}

impl NotAwake {
    /// Until when.
    #[must_use]
    pub fn until(self) -> Micros {
        match self {
            Self::Asleep(until) | Self::BeginsLater(until) => until,
        }
    }

    /// What callers are told.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Asleep(_) => Reason::RightsAsleep,
            Self::BeginsLater(_) => Reason::RightsBeginLater,
        }
    }

    /// The refusal of a permission on a scope. Who can wake it are other people there who hold it: by which roles it is held is told.
    #[must_use]
    pub fn refusal(self, permission: Permission, scope: ScopeKey) -> Error {
        let refused = Error::precondition(self.reason())
            .with("permission", permission.name())
            .with("until", rfc3339(self.until()));
        match self {
            Self::BeginsLater(_) => refused,
            Self::Asleep(_) => {
                let roles = roles_of(scope).iter();
                let waking: Vec<&str> = roles
                    .filter(|role| role.permissions.has(permission))
                    .map(|role| role.name)
                    .collect();
                refused.with("woken_by", waking.join(", "))
            }
        }
    }
}

/// What a principal holds on a scope.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Whether it is a member at all.
    pub member: bool,
    /// Role bits, direct and through groups.
    pub roles: i64,
    /// Single permissions, direct and through groups.
    pub single: Permissions,
    /// All permissions together, asleep or not (ROL-6).
    pub all: Permissions,
    /// What was woken of those that sleep here (ROL-13).
    woken: Permissions,
    /// An owner's finances begin then (ACC-20); none if they always were its own.
    finance_from: Option<Micros>,
    /// What a service may do on behalf of people: its own ceiling, if it has one.
    pub ceiling: Option<Permissions>,
    /// Where it comes from.
    pub sources: Vec<Source>,
}

impl Held {
    /// Those of all permissions that are awake here now, if the person's rights are asleep until then (ROL-13), but for what begins later.
    #[must_use]
    pub fn awake(&self, scope: ScopeKey, asleep_until: Option<Micros>, now: Micros) -> Permissions {
        let awake = match asleep_until {
            Some(_) => self
                .all
                .without(sleeping(scope, self.all).without(self.woken)),
            None => self.all,
        };
        match self.finance_from {
            Some(from) if now < from => awake.without(roles::BEGINNING_LATER),
            _ => awake,
        }
    }

    /// Why a permission that is held isn't awake now, and until when.
    #[must_use]
    pub fn not_awake(
        &self,
        permission: Permission,
        asleep_until: Option<Micros>,
        now: Micros,
    ) -> Option<NotAwake> {
        let from = self
            .finance_from
            .filter(|from| now < *from && roles::BEGINNING_LATER.has(permission));
        match from {
            Some(from) if asleep_until <= Some(from) => Some(NotAwake::BeginsLater(from)),
            _ => asleep_until.map(NotAwake::Asleep),
        }
    }
}

#[derive(FromQueryResult)]
struct HeldRow {
    roles: i64,
    permissions: String,
    on_behalf_ceiling: String,
    group_id: Option<Uuid>,
    tenant_id: Uuid,
    finance_from: Option<i64>,
    woken: Option<String>,
}

/// The fact of what a principal holds on a scope.
#[derive(Clone, Copy, Debug)]
pub struct HeldOf {
    /// Who.
    pub principal: Uuid,
    /// Where.
    pub scope: ScopeKey,
    /// The principal's own tenant, if it is known: what isn't held there, or on the operator, is remembered too. Elsewhere strangers would
    /// fill the memory, and hear by time what was asked about before.
    pub home: Option<Uuid>,
}

impl Fact for HeldOf {
    type Value = Held;

    fn key(&self) -> [Uuid; 4] {
        let kind = Uuid::from_u128(u128::from(self.scope.kind().unsigned_abs()));
        [self.principal, self.scope.id(), kind, Uuid::nil()]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<Held>> {
        let scope = self.scope;
        let uuid = if db.get_database_backend() == DbBackend::Postgres {
            "uuid"
        } else {
            "blob"
        };
        let sql = format!(
            "SELECT x.roles, x.permissions, x.on_behalf_ceiling, x.group_id, x.tenant_id, x.finance_from, w.permissions AS woken FROM ( \
               SELECT roles, permissions, on_behalf_ceiling, CAST(NULL AS {uuid}) AS group_id, tenant_id, principal_kind, finance_from FROM grants \
                 WHERE scope_kind = $1 AND scope_id = $2 AND principal_id = $3 \
               UNION ALL \
               SELECT roles, permissions, '' AS on_behalf_ceiling, group_id, tenant_id, 4 AS principal_kind, CAST(NULL AS bigint) AS finance_from FROM group_rights \
                 WHERE scope_kind = $1 AND scope_id = $2 AND user_id = $3 \
             ) x LEFT JOIN woken_rights w ON w.user_id = $3 AND w.scope_kind = $1 AND w.scope_id = $2 \
             WHERE ($1 <> 2 OR x.principal_kind = 3 OR EXISTS \
               (SELECT 1 FROM associations a WHERE a.account_id = $2 AND a.tenant_id = x.tenant_id))"
        );
        let values: [Value; 3] = [
            scope.kind().into(),
            scope.id().into(),
            self.principal.into(),
        ];
        let rows = sql::all::<HeldRow, _>(db, sql, values).await?;
        let mut held = Held::default();
        for row in rows {
            let set = Set {
                roles: row.roles,
                single: Permissions::from_stored(&row.permissions),
            };
            held.member = true;
            held.roles |= set.roles;
            held.single = held.single.and(set.single);
            // The same in each row: it is the user's, not the grant's.
            if let Some(woken) = &row.woken {
                held.woken = Permissions::from_stored(woken);
            }
            held.finance_from = held.finance_from.max(row.finance_from);
            if !row.on_behalf_ceiling.is_empty() {
                held.ceiling = Some(Permissions::from_stored(&row.on_behalf_ceiling));
            }
            held.sources.push(Source {
                set,
                group: row.group_id,
                tenant: row.tenant_id,
            });
        }
        if held.member {
            let base = if matches!(scope, ScopeKey::Account(_)) {
                roles::MEMBER
            } else {
                Permissions::NONE
            };
            held.all = roles::permissions_of(roles_of(scope), held.roles)
                .and(held.single)
                .and(base);
        }
        let at_home = match scope {
            ScopeKey::Operator => true,
            ScopeKey::Tenant(id) => self.home == Some(id),
            ScopeKey::Account(_) | ScopeKey::Identity(_) => false,
        };
        Ok(Found {
            keep: held.member || at_home,
            deps: vec![self.principal, scope.id()],
            bytes: held.sources.capacity() * size_of::<Source>(),
            value: held,
        })
    }
}

/// Asks what a principal holds on a scope, directly and through groups: nothing on an account whose association with the principal's, or
/// the group's, tenant has ended. As many rows are read as there are different sets of rights, whatever the number of groups, of their
/// members and of grants on the scope (GRP-5).
///
/// # Errors
/// Those of the database.
pub async fn held<C: ConnectionTrait>(db: &C, principal: Uuid, scope: ScopeKey) -> Result<Held> {
    let fact = HeldOf {
        principal,
        scope,
        home: None,
    };
    Ok(fact.load(db).await?.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::roles::Permission as P;

    const NOW: Micros = 1_000;

    /// Somebody at home, who has settled in.
    fn row() -> StandingRow {
        StandingRow {
            state: ACTIVE,
            tenant_state: ACTIVE,
            session_end: None,
            session_expire: Some(NOW + 1),
            temporary: Some(false),
            asleep_until: None,
            home_id: None,
            home_tenant_id: None,
            home_state: None,
            home_tenant_state: None,
            home_asleep_until: None,
        }
    }

    fn guest() -> StandingRow {
        StandingRow {
            home_id: Some(Uuid::from_u128(1)),
            home_tenant_id: Some(Uuid::from_u128(2)),
            home_state: Some(ACTIVE),
            home_tenant_state: Some(ACTIVE),
            ..row()
        }
    }

    fn judge(from: StandingRow, change: impl FnOnce(&mut StandingRow)) -> Option<Standing> {
        let mut row = from;
        change(&mut row);
        StandingRow::judge(Some(&row), NOW).ok()
    }

    // proves ROL-10, INV-5
    #[test]
    fn whoever_lacks_one_thing_is_out() {
        const OUT: i64 = 2;
        assert!(judge(row(), |_| {}).is_some() && judge(guest(), |_| {}).is_some());
        assert!(StandingRow::judge(None, NOW).is_err());
        let lacks: [fn(&mut StandingRow); 6] = [
            |r| r.state = OUT,
            |r| r.tenant_state = OUT,
            |r| r.session_end = Some(1),
            |r| r.session_expire = None,
            |r| r.session_expire = Some(NOW),
            |r| r.session_expire = Some(NOW - 1),
        ];
        for (i, change) in lacks.into_iter().enumerate() {
            assert!(judge(row(), change).is_none(), "{i}");
            assert!(judge(guest(), change).is_none(), "a guest, {i}");
        }
        let lacks_home: [fn(&mut StandingRow); 4] = [
            |r| r.home_state = Some(OUT),
            |r| r.home_tenant_state = Some(OUT),
            |r| r.home_state = None,
            |r| r.home_tenant_state = None,
        ];
        for (i, change) in lacks_home.into_iter().enumerate() {
            assert!(judge(guest(), change).is_none(), "{i}");
        }
    }

    // proves ROL-13, INV-5
    #[test]
    fn rights_sleep_until_the_later_of_ones_own_time_and_that_of_home() {
        let asleep = |own, home| {
            judge(guest(), |r| {
                (r.asleep_until, r.home_asleep_until) = (own, home);
            })
            .and_then(|standing| standing.asleep_until)
        };
        assert_eq!(asleep(None, None), None);
        assert_eq!(asleep(Some(NOW), Some(NOW - 1)), None);
        assert_eq!(asleep(Some(NOW + 1), None), Some(NOW + 1));
        assert_eq!(asleep(Some(NOW + 1), Some(NOW + 2)), Some(NOW + 2));
        assert_eq!(asleep(Some(NOW + 3), Some(NOW + 2)), Some(NOW + 3));
    }

    // proves ROL-13, ACC-20
    #[test]
    fn who_is_refused_learns_until_when_and_whether_it_sleeps_or_begins() {
        for (why, reason) in [
            (NotAwake::Asleep(NOW), Reason::RightsAsleep),
            (NotAwake::BeginsLater(NOW), Reason::RightsBeginLater),
        ] {
            assert_eq!((why.until(), why.reason()), (NOW, reason));
            let refusal = why.refusal(P::FinanceGrant, ScopeKey::Operator);
            assert_eq!(refusal.reason(), reason);
        }
    }

    // proves ROL-13, ACC-20
    #[test]
    fn what_begins_later_is_woken_by_nobody_and_by_its_time() {
        let scope = ScopeKey::Account(Uuid::from_u128(3));
        let held = |finance_from| Held {
            all: Permissions::of(&[P::AccountRead, P::FinanceGrant, P::OwnerTie]),
            woken: Permissions::of(&[P::FinanceGrant]),
            finance_from,
            ..Held::default()
        };
        let awake = |finance_from, asleep| held(finance_from).awake(scope, asleep, NOW);
        let (read, finance, tie) = (
            Permissions::of(&[P::AccountRead]),
            Permissions::of(&[P::FinanceGrant]),
            Permissions::of(&[P::OwnerTie]),
        );
        assert_eq!(awake(None, None), read.and(finance).and(tie));
        assert_eq!(awake(None, Some(NOW + 5)), read.and(finance));
        assert_eq!(awake(Some(NOW + 1), None), read.and(tie));
        assert_eq!(awake(Some(NOW + 1), Some(NOW + 5)), read);
        assert_eq!(awake(Some(NOW), None), read.and(finance).and(tie));

        let why = |permission, from, asleep| held(from).not_awake(permission, asleep, NOW);
        let later = |at| Some(NotAwake::BeginsLater(at));
        assert_eq!(why(P::FinanceGrant, None, None), None);
        assert_eq!(why(P::FinanceGrant, Some(NOW + 1), None), later(NOW + 1));
        assert_eq!(why(P::FinanceGrant, Some(NOW), None), None);
        assert_eq!(why(P::OwnerTie, Some(NOW + 1), None), None);
        let both = why(P::FinanceGrant, Some(NOW + 1), Some(NOW + 5));
        assert_eq!(both, Some(NotAwake::Asleep(NOW + 5)));
        let both = why(P::FinanceGrant, Some(NOW + 9), Some(NOW + 5));
        assert_eq!(both, later(NOW + 9));
    }
}
