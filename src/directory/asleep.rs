//! Rights that sleep (ROL-13): their holders are told when somebody's credential is set by somebody else, and when something is given to a
//! person whose credential was; and other holders wake them.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, Value};
use uuid::Uuid;

use super::{
    IDENTITY,
    entity::user::{Column, Entity, Model},
    user, user_change, wire,
};
use crate::{
    access::{
        grants::{self, ASLEEP_US},
        principal::{Kind, Principal},
        roles::{Permission, Permissions},
        scope::CallerScope,
    },
    app::Tx,
    check::Violations,
    env::Micros,
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::directory::{User, WakeRightsRequest},
    store::{outbox::Event, scope_key::ScopeKey, sql, time::rfc3339, update},
};

/// Mails to other holders of sleeping rights, per scope: to so many who hold them directly, and to so many who do by groups. More than hold
/// money anywhere, and few enough for one transaction.
const MOST_HOLDERS_TOLD: i64 = 1_000;
/// People whom one mail names.
const MOST_NAMED: usize = 20;
/// Sleepers who are looked for among those who get something: more than one call adds, but for a group of thousands that gets it as a whole.
const MOST_SLEEPERS: usize = 1_000;
/// Scopes on which one call wakes something; each is locked, and told of.
const MOST_SCOPES_WOKEN: usize = 1_000;

/// The roles of a scope that have any of these permissions. What sleeps is held as part of a role only.
fn roles_with(scope: ScopeKey, permissions: Permissions) -> i64 {
    grants::roles_of(scope)
        .iter()
        .filter(|role| !role.permissions.within(permissions).is_empty())
        .fold(0, |bits, role| bits | role.bit())
}

/// Somebody else set this person's credential: what must sleep, sleeps for 72 hours, and the other holders are told (ROL-13).
///
/// # Errors
/// Those of the database.
pub async fn put_to_sleep(tx: &mut Tx, user: &Model, sign_in_name: &str) -> Result<()> {
    let until = tx.now() + ASLEEP_US;
    for (scope, set) in grants::by_scope(&grants::rights_of(tx.db(), user.id).await?) {
        let mine = grants::sleeping(scope, set.permissions(scope));
        if mine.is_empty() {
            continue;
        }
        let values = [
            ("name", user.display_name.clone()),
            ("sign_in_name", sign_in_name.to_owned()),
            ("scope", scope.to_string()),
            ("until", rfc3339(until)),
        ];
        let object = user_change::name(user);
        tell_others(
            tx,
            scope,
            roles_with(scope, mine),
            &[user.id],
            object,
            &values,
        )
        .await?;
    }
    // Also where nothing sleeps yet: what is given within that time sleeps too.
    grants::set_asleep(tx, user.id, Some(until)).await
}

#[derive(FromQueryResult)]
struct Sleeper {
    id: Uuid,
    tenant_id: Uuid,
    home_id: Option<Uuid>,
    kind: i64,
    display_name: String,
    user_name: String,
    domain_prefix: String,
    own: Option<Micros>,
    home: Option<Micros>,
    woken: Option<String>,
}

impl Sleeper {
    /// What was woken of its rights on the scope.
    fn woken(&self) -> Permissions {
        Permissions::from_stored(self.woken.as_deref().unwrap_or_default())
    }
}

/// Principals were given these sets on a scope, beside what they held: the other holders are told of those whose rights of that kind sleep,
/// one mail to each, and the members of groups with them (ROL-13). It asks nothing where nothing that sleeps is given.
///
/// # Errors
/// Those of the database.
pub async fn tell_of_gifts(
    tx: &mut Tx,
    scope: ScopeKey,
    gifts: &[(Principal, grants::Set)],
) -> Result<()> {
    let mut by_roles: BTreeMap<i64, (Permissions, Vec<Principal>)> = BTreeMap::new();
    for (to, set) in gifts {
        let sleeping = grants::sleeping(scope, set.permissions(scope));
        if !sleeping.is_empty() {
            let (given, principals) = by_roles.entry(roles_with(scope, sleeping)).or_default();
            *given = given.and(sleeping);
            principals.push(*to);
        }
    }
    for (roles, (given, to)) in by_roles {
        let mut sleepers = sleepers_among(tx, scope, &to).await?;
        sleepers.retain(|s| !given.without(s.woken()).is_empty());
        let Some(first) = sleepers.first() else {
            continue;
        };
        let until = sleepers.iter().filter_map(|s| s.own.max(s.home)).max();
        let values =
            [
                (
                    "name",
                    list(sleepers.iter().map(|s| s.display_name.clone())),
                ),
                (
                    "sign_in_name",
                    list(sleepers.iter().map(|s| {
                        wire::sign_in_name(tx.app(), s.kind, &s.user_name, &s.domain_prefix)
                    })),
                ),
                ("scope", scope.to_string()),
                ("until", rfc3339(until.unwrap_or_default())),
            ];
        let object = grants::home_principal(first.id, first.tenant_id).resource();
        let people: Vec<Uuid> = sleepers
            .iter()
            .flat_map(|s| [Some(s.id), s.home_id])
            .flatten()
            .collect();
        tell_others(tx, scope, roles, &people, object, &values).await?;
    }
    Ok(())
}

/// The first of many, and that there are more.
fn list(of: impl ExactSizeIterator<Item = String>) -> String {
    let more = of.len() > MOST_NAMED;
    let mut names: Vec<String> = of.take(MOST_NAMED).collect();
    if more {
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// Those of these people, and of the members of these groups, whose rights sleep, or whose home's do; with what was woken of them on a
/// scope.
async fn sleepers_among(tx: &Tx, scope: ScopeKey, of: &[Principal]) -> Result<Vec<Sleeper>> {
    let ids = |groups: bool| -> Vec<Uuid> {
        of.iter()
            .filter(|p| (p.kind == Kind::Group) == groups)
            .map(|p| p.id)
            .collect()
    };
    let (people, groups) = (ids(false), ids(true));
    let whom = if groups.is_empty() {
        sql::in_ids(tx.db(), 4)
    } else {
        format!(
            "{} UNION SELECT user_id FROM group_members WHERE group_id IN ({})",
            sql::in_ids(tx.db(), 4),
            sql::in_ids(tx.db(), 5)
        )
    };
    let sql = format!(
        "SELECT u.id, u.tenant_id, u.home_id, u.kind, u.display_name, u.user_name, t.domain_prefix, u.rights_asleep_until AS own, \
         h.rights_asleep_until AS home, w.permissions AS woken \
         FROM users u JOIN tenants t ON t.id = u.tenant_id LEFT JOIN users h ON h.id = u.home_id \
         LEFT JOIN woken_rights w ON w.user_id = u.id AND w.scope_kind = $2 AND w.scope_id = $3 \
         WHERE u.id IN ({whom}) AND (u.rights_asleep_until > $1 OR h.rights_asleep_until > $1) ORDER BY u.id LIMIT {MOST_SLEEPERS}"
    );
    let mut values: Vec<Value> = vec![
        tx.now().into(),
        scope.kind().into(),
        scope.id().into(),
        sql::ids(&people),
    ];
    if !groups.is_empty() {
        values.push(sql::ids(&groups));
    }
    let sleepers = sql::all::<Sleeper, _>(tx.db(), sql, values).await?;
    if sleepers.len() >= MOST_SLEEPERS {
        tracing::warn!(
            sleepers = sleepers.len(),
            "there may be more than the mails tell of"
        );
    }
    Ok(sleepers)
}

#[derive(FromQueryResult)]
struct Holder {
    address: String,
}

/// Queues a mail to the others who hold any of these roles on a scope, directly or by groups, and have an address; once to each address.
async fn tell_others(
    tx: &mut Tx,
    scope: ScopeKey,
    roles: i64,
    but: &[Uuid],
    object: Name,
    values: &[(&str, String)],
) -> Result<()> {
    let others = format!(
        "NOT IN ({0}) AND (d.home_id IS NULL OR d.home_id NOT IN ({0})) AND (d.recovery_email <> '' OR d.kind = 2) AND d.state = 1",
        sql::in_ids(tx.db(), 3)
    );
    // A guest was invited by its address, which is its name here.
    let sql = format!(
        "SELECT DISTINCT CASE WHEN u.recovery_email = '' THEN u.user_name ELSE u.recovery_email END AS address FROM ( \
           SELECT principal_id FROM (SELECT g.principal_id FROM grants g JOIN users d ON d.id = g.principal_id \
             WHERE g.scope_kind = $1 AND g.scope_id = $2 AND (g.roles & $4) <> 0 AND d.id {others} \
             ORDER BY g.create_time, g.principal_id LIMIT $5) a \
           UNION ALL \
           SELECT principal_id FROM (SELECT r.user_id AS principal_id FROM group_rights r JOIN users d ON d.id = r.user_id \
             WHERE r.scope_kind = $1 AND r.scope_id = $2 AND (r.roles & $4) <> 0 AND d.id {others} ORDER BY r.user_id LIMIT $5) b \
         ) x JOIN users u ON u.id = x.principal_id"
    );
    let parameters: [Value; 5] = [
        scope.kind().into(),
        scope.id().into(),
        sql::ids(but),
        roles.into(),
        MOST_HOLDERS_TOLD.into(),
    ];
    let holders = sql::all::<Holder, _>(tx.db(), sql, parameters).await?;
    let addresses: BTreeSet<String> = holders.into_iter().map(|h| h.address).collect();
    for address in addresses {
        mail::queue(tx, Template::RightsAsleep, &address, object, values).await?;
    }
    Ok(())
}

pub(crate) fn check_wake_rights(req: &WakeRightsRequest, v: &mut Violations) {
    if !req.scope.is_empty() && named_scope(&req.scope).is_none() {
        v.also("scope", "is no tenant, account or operator");
    }
}

fn named_scope(scope: &str) -> Option<ScopeKey> {
    match Name::parse(scope)? {
        name @ (Name::Tenant(_) | Name::Account(_) | Name::Operator) => Some(name.scope()),
        _ => None,
    }
}

/// Wakes what sleeps of another person's rights as far as the caller holds the same, there and awake; on one scope, or wherever that is so
/// (ROL-13). All that the person holds on a scope counts, as itself or as a guest, directly or by groups.
///
/// # Errors
/// `NOTHING_TO_WAKE` where that is nothing, for oneself, and for persons who don't exist alike; `ETAG_MISMATCH`.
pub async fn wake_rights(tx: &mut Tx, caller: CallerScope, req: WakeRightsRequest) -> Result<User> {
    let WakeRightsRequest {
        name,
        etag,
        scope,
        request_id: _,
        validate_only: _,
    } = req;
    let refused = || Error::refused(Reason::NothingToWake);
    let own = caller.principal().id;
    let (tenant, id) = match Name::parse(&name) {
        Some(Name::User(tenant, id)) => (tenant, id),
        // An owner is one.
        Some(Name::Identity(id)) => (Uuid::nil(), id),
        _ => return Err(refused()),
    };
    // Whoever has nothing in common with the person learns nothing, by time neither, and locks nothing of theirs.
    if own == id || !grants::share_a_scope(tx.db(), own, id).await? {
        return Err(refused());
    }
    let (named, person) = find_person(tx, tenant, id).await?.ok_or_else(refused)?;
    // A guest of the same home is oneself.
    if grants::is_same_person(tx.db(), own, person.id).await? {
        return Err(refused());
    }
    let until = person
        .rights_asleep_until
        .filter(|until| tx.now() < *until)
        .ok_or_else(refused)?;
    let shared = grants::shared_scopes(tx.db(), own, person.id).await?;
    let asleep = grants::Sleep::of(tx.db(), person.id).await?.scopes();
    let only = named_scope(&scope);
    let scopes: Vec<ScopeKey> = asleep
        .intersection(&shared)
        .filter(|on| only.is_none_or(|only| only == **on))
        .take(MOST_SCOPES_WOKEN)
        .copied()
        .collect();
    tx.lock(scopes.iter().copied()).await?;
    // What is held there stays so now.
    let sleep = grants::Sleep::of(tx.db(), person.id).await?;
    let mut woken_anything = false;
    for on in scopes {
        let mine = tx.caller_permissions(on).await?;
        let (woken, holders) = sleep.wake(tx, on, mine, until).await?;
        if woken.is_empty() {
            continue;
        }
        woken_anything = true;
        let event = Event::new(
            "entente.directory.v1.RightsWoken",
            user_change::name(&person),
        )
        .also_in(on)
        .with("scope", on.to_string())
        .with("permissions", woken.names());
        tx.emit(holders.into_iter().fold(event, Event::touches));
    }
    if !woken_anything {
        return Err(refused());
    }
    update::check_etag(&etag, named.version)?;
    let mut row = user::bump(tx, &person).await?;
    if named.id != person.id {
        row = user::bump(tx, &named).await?;
    }
    as_seen(tx, &row).await
}

/// A user of a tenant, or a personal identity, and the person that it is: what a guest holds sleeps with the credential, which is that of its
/// home. Where both are at home is locked.
async fn find_person(tx: &mut Tx, tenant: Uuid, id: Uuid) -> Result<Option<(Model, Model)>> {
    tx.lock([grants::home_principal(id, tenant).home()]).await?;
    let named = Entity::find_by_id(id)
        .filter(Column::TenantId.eq(tenant))
        .one(tx.db())
        .await?;
    let Some(named) = named else {
        return Ok(None);
    };
    let Some(home) = named.home_id else {
        return Ok(Some((named.clone(), named)));
    };
    let at = named.home_tenant_id.unwrap_or_default();
    tx.lock([grants::home_principal(home, at).home()]).await?;
    let person = Entity::find_by_id(home).one(tx.db()).await?;
    Ok(person.map(|person| (named, person)))
}

/// A user as the caller may see it: a holder from another tenant gets to see names, no more (ROL-8); of an identity not its address either.
async fn as_seen(tx: &Tx, row: &Model) -> Result<User> {
    if row.kind == IDENTITY {
        return Ok(wire::named_identity(row, tx.now()));
    }
    let whole = user_change::to_wire(tx.db(), tx.app(), row, tx.now()).await?;
    let home = ScopeKey::Tenant(row.tenant_id);
    if tx
        .caller_permissions(home)
        .await?
        .has(Permission::UsersRead)
    {
        return Ok(whole);
    }
    Ok(User {
        recovery_email: String::new(),
        directory_roles: Vec::new(),
        created_through_account: String::new(),
        ..whole
    })
}
