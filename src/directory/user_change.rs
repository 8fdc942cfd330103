//! What several RPCs do to users: making one, taking everything from one, giving memberships, telling holders of sleeping rights.

use sea_orm::{ActiveModelTrait, ConnectionTrait, FromQueryResult, IntoActiveModel, Set, Value};
use uuid::Uuid;

use super::{
    ACTIVE, DELETED, DISABLED, GUEST, IDENTITY, INVITED, RESTORABLE_US, credential,
    entity::user::Model,
    invitation,
    wire::{self, NewUser},
};
use crate::{
    access::{
        grants::{self, ASLEEP_US},
        link,
        principal::{Kind, Principal},
        roles::{self, TENANT_ROLES},
    },
    app::Tx,
    env::Micros,
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::directory::{Losses, LostMembership, NewMembership},
    store::{list::fold, outbox::Event, scope_key::ScopeKey, sql, time::rfc3339},
};

/// Mails to other holders of sleeping rights, per scope: to so many who hold them directly, and to so many who do by groups. More than hold
/// money anywhere, and few enough for one transaction.
const MOST_HOLDERS_TOLD: i64 = 1_000;

/// The principal of a user's row.
#[must_use]
pub fn principal(user: &Model) -> Principal {
    Principal {
        kind: if user.kind == IDENTITY {
            Kind::Identity
        } else {
            Kind::User
        },
        id: user.id,
        tenant: user.tenant_id,
    }
}

/// The name of a user's row.
#[must_use]
pub fn name(user: &Model) -> Name {
    principal(user).resource()
}

/// Inserts a user without credential and grants.
///
/// # Errors
/// `USER_NAME_TAKEN`.
pub async fn insert(
    tx: &mut Tx,
    tenant: Uuid,
    new: &NewUser,
    through: Option<Uuid>,
) -> Result<Model> {
    let now = tx.now();
    let display_name = new.display_name();
    let row = Model {
        id: tx.id(),
        tenant_id: tenant,
        user_name: new.user_name.clone(),
        user_name_fold: fold(&new.user_name),
        given_name: new.given_name.clone(),
        family_name: new.family_name.clone(),
        display_name_fold: fold(&display_name),
        display_name,
        recovery_email: new.recovery_email.clone(),
        kind: 1,
        state: ACTIVE,
        created_through_account: through,
        // Somebody else sets the first credential: what comes to sleep with it, sleeps (ROL-13).
        rights_asleep_until: Some(now + ASLEEP_US),
        create_time: now,
        update_time: now,
        delete_time: None,
        purge_time: None,
        home_id: None,
        home_tenant_id: None,
        external_id: String::new(),
        version: 1,
    };
    tx.insert(row.clone()).await?;
    Ok(row)
}

/// Inserts the guest of an invitation, who can do nothing before accepting. It never has a credential of its own (INV-5), so nothing of it
/// sleeps.
///
/// # Errors
/// `USER_NAME_TAKEN`; those of the database.
pub async fn insert_guest(
    tx: &mut Tx,
    tenant: Uuid,
    email: &str,
    through: Option<Uuid>,
) -> Result<Model> {
    let now = tx.now();
    let row = Model {
        id: tx.id(),
        tenant_id: tenant,
        user_name: email.to_owned(),
        user_name_fold: fold(email),
        given_name: String::new(),
        family_name: String::new(),
        display_name: String::new(),
        display_name_fold: String::new(),
        recovery_email: String::new(),
        kind: GUEST,
        state: INVITED,
        created_through_account: through,
        rights_asleep_until: None,
        create_time: now,
        update_time: now,
        delete_time: None,
        purge_time: None,
        home_id: None,
        home_tenant_id: None,
        external_id: String::new(),
        version: 1,
    };
    tx.insert(row.clone()).await?;
    Ok(row)
}

/// Refuses what would set a guest's credential, or the name that it signs in with: both are its home's (INV-5).
///
/// # Errors
/// `CREDENTIAL_ELSEWHERE`.
pub fn has_own_credential(user: &Model) -> Result<()> {
    if user.kind == GUEST {
        Err(Error::precondition(Reason::CredentialElsewhere))
    } else {
        Ok(())
    }
}

/// The event of a user that was made.
#[must_use]
pub fn created(user: &Model, directory_roles: i64) -> Event {
    let null = || serde_json::Value::Null;
    Event::new("entente.directory.v1.UserCreated", name(user))
        .change("user_name", null(), user.user_name.clone())
        .change("given_name", null(), user.given_name.clone())
        .change("family_name", null(), user.family_name.clone())
        .change(
            "directory_roles",
            null(),
            roles::numbers_of(TENANT_ROLES, directory_roles),
        )
        .touches(user.id)
}

/// The event of a user that was changed.
#[must_use]
pub fn updated(old: &Model, new: &Model) -> Event {
    Event::new("entente.directory.v1.UserUpdated", name(old))
        .change("user_name", old.user_name.clone(), new.user_name.clone())
        .change("given_name", old.given_name.clone(), new.given_name.clone())
        .change(
            "family_name",
            old.family_name.clone(),
            new.family_name.clone(),
        )
        .change(
            "recovery_email",
            old.recovery_email.clone(),
            new.recovery_email.clone(),
        )
}

/// The event of a user that was deleted.
#[must_use]
pub fn deleted(user: &Model) -> Event {
    Event::new("entente.directory.v1.UserDeleted", name(user))
        .change("state", user.state, DELETED)
        .touches(user.id)
}

/// Refuses what is changed in the tenant's local directory only (TEN-5).
///
/// # Errors
/// `DIRECTORY_SYNCHRONIZED`.
pub fn demand_made_here(user: &Model) -> Result<()> {
    if user.external_id.is_empty() {
        Ok(())
    } else {
        Err(Error::precondition(Reason::DirectorySynchronized).with("user", name(user).to_string()))
    }
}

/// Makes a new principal a member of accounts, with what the caller may give there (ROL-7). What is demanded on each account was proven.
///
/// # Errors
/// `OTHER_TENANT`, `NOT_IN_ASSOCIATED_TENANT`, and those of giving.
pub async fn join_accounts(
    tx: &mut Tx,
    principal: Principal,
    memberships: &[NewMembership],
) -> Result<()> {
    for (i, membership) in memberships.iter().enumerate() {
        let Some(Name::Account(account)) = Name::parse(&membership.account) else {
            return Err(Error::field(
                format!("memberships[{i}].account"),
                "is no account",
            ));
        };
        let set = grants::Set::of_request(membership.rights.as_ref());
        join_account(tx, principal, account, set).await?;
    }
    Ok(())
}

/// Makes a principal a member of one account.
///
/// # Errors
/// As `join_accounts`.
pub async fn join_account(
    tx: &mut Tx,
    principal: Principal,
    account: Uuid,
    set: grants::Set,
) -> Result<()> {
    let scope = ScopeKey::Account(account);
    tx.lock([scope]).await?;
    if tx
        .caller()
        .who
        .is_none_or(|w| w.principal.tenant != principal.tenant)
    {
        return Err(Error::refused(Reason::OtherTenant)
            .with("tenant", Name::Tenant(principal.tenant).to_string()));
    }
    if !grants::is_associated(tx.db(), account, principal.tenant).await? {
        return Err(
            Error::precondition(Reason::NotInAssociatedTenant).with("principal", principal.name())
        );
    }
    grants::set(tx, scope, principal, set, grants::By::Caller).await?;
    tx.emit(
        Event::new(
            "entente.account.v1.MemberAdded",
            Name::Member(account, principal.id),
        )
        .change("rights", serde_json::Value::Null, set.to_rights())
        .touches(principal.id),
    );
    Ok(())
}

/// Takes everything that a user has, as a deletion does: grants, credential, sessions. Gives what was lost. Refused for the tenant's last
/// global admin and the operator's last administrator; accounts that lose their last manager are told.
///
/// # Errors
/// `LAST_GLOBAL_ADMIN`, `LAST_OPERATOR_ADMIN`; those of the database.
pub async fn take_everything(tx: &mut Tx, user: &Model, state: i64) -> Result<Losses> {
    let held = grants::all_of(tx.db(), user.id).await?;
    let rights = grants::rights_of(tx.db(), user.id).await?;
    let shut_out = grants::ShutOut::before(tx, &rights).await?;
    set_state(tx, user.id, state).await?;
    let mut losses = Losses::default();
    for (scope, grant) in &held {
        grants::remove_anyway(tx, *scope, user.id).await?;
        match scope {
            ScopeKey::Account(account) => {
                let member = Name::Member(*account, user.id);
                let rights = grants::Set::of_grant(grant);
                losses.memberships.push(LostMembership {
                    member: member.to_string(),
                    rights: Some(rights.to_rights()),
                });
                tx.emit(member_removed(*account, user.id, rights));
            }
            ScopeKey::Tenant(_) => {
                losses.directory_roles = roles::numbers_of(TENANT_ROLES, grant.roles)
            }
            _ => {}
        }
    }
    losses.groups = grants::leave_all_groups(tx, user.id)
        .await?
        .iter()
        .map(ToString::to_string)
        .collect();
    losses.session_count = credential::end_sessions(tx, user.id, None).await?;
    let sql = "DELETE FROM credentials WHERE user_id = $1";
    sql::execute(tx.db(), sql, [user.id.into()]).await?;
    link::revoke_ways_in(tx, user.id).await?;
    shut_out.done(tx).await?;
    Ok(losses)
}

/// The event of a member that is gone.
#[must_use]
pub fn member_removed(account: Uuid, principal: Uuid, held: grants::Set) -> Event {
    Event::new(
        "entente.account.v1.MemberRemoved",
        Name::Member(account, principal),
    )
    .change("rights", held.to_rights(), serde_json::Value::Null)
    .touches(principal)
}

/// Deletes a user: everything is taken from it, its name is free, and it can be restored for 30 days (USR-6).
///
/// # Errors
/// As `take_everything`.
pub async fn delete(tx: &mut Tx, user: Model) -> Result<(Model, Losses)> {
    let losses = take_everything(tx, &user, DELETED).await?;
    if user.state == INVITED {
        invitation::withdraw(tx, user.id).await?;
    }
    let now = tx.now();
    let mut row = user.clone().into_active_model();
    row.state = Set(DELETED);
    row.delete_time = Set(Some(now));
    row.purge_time = Set(Some(now + RESTORABLE_US));
    row.update_time = Set(now);
    row.version = Set(user.version + 1);
    let row = row.update(tx.db()).await?;
    tx.emit(deleted(&user));
    Ok((row, losses))
}

/// What callers call a state.
#[must_use]
pub fn state_name(state: i64) -> &'static str {
    match state {
        ACTIVE => "ACTIVE",
        DISABLED => "DISABLED",
        DELETED => "DELETED",
        INVITED => "INVITED",
        _ => "UNKNOWN",
    }
}

/// Sets a user's state, so that whoever is out doesn't count among those who remain.
///
/// # Errors
/// Those of the database.
pub async fn set_state(tx: &mut Tx, user: Uuid, state: i64) -> Result<()> {
    let sql = "UPDATE users SET state = $1 WHERE id = $2";
    let values: [Value; 2] = [state.into(), user.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

#[derive(FromQueryResult)]
struct Holder {
    address: String,
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
        // What sleeps is held as part of a role only.
        let roles = grants::roles_of(scope)
            .iter()
            .filter(|role| !role.permissions.within(mine).is_empty())
            .fold(0, |bits, role| bits | role.bit());
        for holder in other_holders(tx, scope, roles, user.id).await? {
            let values = [
                ("name", user.display_name.clone()),
                ("sign_in_name", sign_in_name.to_owned()),
                ("scope", scope.to_string()),
                ("until", rfc3339(until)),
            ];
            mail::queue(
                tx,
                Template::RightsAsleep,
                &holder.address,
                name(user),
                &values,
            )
            .await?;
        }
    }
    // Also where nothing sleeps yet: what is given within that time sleeps too.
    grants::set_asleep(tx, user.id, Some(until)).await
}

/// The others who hold any of these roles on a scope, directly or by groups, and have an address.
async fn other_holders(tx: &Tx, scope: ScopeKey, roles: i64, but: Uuid) -> Result<Vec<Holder>> {
    // A guest was invited by its address, which is its name here.
    let sql = "SELECT DISTINCT CASE WHEN u.recovery_email = '' THEN u.user_name ELSE u.recovery_email END AS address FROM ( \
                 SELECT principal_id FROM (SELECT g.principal_id FROM grants g JOIN users d ON d.id = g.principal_id \
                   AND (d.recovery_email <> '' OR d.kind = 2) AND d.state = 1 WHERE g.scope_kind = $1 AND g.scope_id = $2 AND g.principal_id <> $3 AND (g.roles & $4) <> 0 \
                   ORDER BY g.create_time, g.principal_id LIMIT $5) a \
                 UNION ALL \
                 SELECT principal_id FROM (SELECT r.user_id AS principal_id FROM group_rights r JOIN users d ON d.id = r.user_id \
                   AND (d.recovery_email <> '' OR d.kind = 2) AND d.state = 1 WHERE r.scope_kind = $1 AND r.scope_id = $2 AND r.user_id <> $3 \
                   AND (r.roles & $4) <> 0 ORDER BY r.user_id LIMIT $5) b \
               ) x JOIN users u ON u.id = x.principal_id";
    let values: [Value; 5] = [
        scope.kind().into(),
        scope.id().into(),
        but.into(),
        roles.into(),
        MOST_HOLDERS_TOLD.into(),
    ];
    sql::all::<Holder, _>(tx.db(), sql, values).await
}

/// A user for the wire, with its tenant's domain and its directory roles looked up.
///
/// # Errors
/// Those of the database.
pub async fn to_wire<C: ConnectionTrait>(
    db: &C,
    app: &crate::app::App,
    user: &Model,
    now: Micros,
) -> Result<crate::proto::directory::User> {
    let tenant = super::tenant::by_id(db, user.tenant_id).await?;
    let held = grants::find(db, ScopeKey::Tenant(user.tenant_id), user.id).await?;
    Ok(wire::user(
        app,
        user,
        &tenant.domain_prefix,
        held.map_or(0, |g| g.roles),
        now,
    ))
}
