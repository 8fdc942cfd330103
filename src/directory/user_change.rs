//! What several RPCs do to users: making one, giving memberships, taking everything from one, deleting one.

use std::collections::BTreeSet;

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, Set,
    Value,
};
use uuid::Uuid;

use super::{
    ACTIVE, DELETED, DISABLED, GUEST, IDENTITY, INVITED, RESTORABLE_US, asleep, credential,
    entity::user::{Column, Entity, Model},
    invitation,
    wire::{self, NewUser},
};
use crate::{
    access::{
        grants::{self, ASLEEP_US},
        link,
        principal::{Kind, Principal},
        roles::{self, OPERATOR_ROLES, TENANT_ROLES},
    },
    app::Tx,
    env::Micros,
    error::{Error, Reason, Result},
    names::Name,
    proto::directory::{Losses, LostMembership, NewMembership},
    store::{list::fold, outbox::Event, scope_key::ScopeKey, sql},
};

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
        user_name: new.user_name.clone(),
        user_name_fold: fold(&new.user_name),
        given_name: new.given_name.clone(),
        family_name: new.family_name.clone(),
        display_name_fold: fold(&display_name),
        display_name,
        recovery_email: new.recovery_email.clone(),
        created_through_account: through,
        // Somebody else sets the first credential: what comes to sleep with it, sleeps (ROL-13).
        rights_asleep_until: Some(now + ASLEEP_US),
        ..Model::new(tx.id(), tenant, now)
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
    let row = Model {
        user_name: email.to_owned(),
        user_name_fold: fold(email),
        kind: GUEST,
        state: INVITED,
        created_through_account: through,
        ..Model::new(tx.id(), tenant, tx.now())
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
    asleep::tell_of_gifts(tx, scope, &[(principal, set)]).await
}

/// What was taken from a user.
#[derive(Debug, Default)]
pub struct Taken {
    /// For the answer.
    pub losses: Losses,
    /// Where groups gave something, which no membership of the user's own tells.
    pub by_groups: BTreeSet<ScopeKey>,
}

/// Takes everything that a user has, as a deletion does: grants, credential, sessions. Gives what was lost. Refused for the tenant's last
/// global admin and the operator's last administrator; accounts that lose their last manager are told.
///
/// # Errors
/// `LAST_GLOBAL_ADMIN`, `LAST_OPERATOR_ADMIN`; those of the database.
pub async fn take_everything(tx: &mut Tx, user: &Model, state: i64) -> Result<Taken> {
    let held = grants::all_of(tx.db(), user.id).await?;
    let rights = grants::rights_of(tx.db(), user.id).await?;
    tx.lock(rights.iter().map(|right| right.scope)).await?;
    let kept = grants::kept_by(tx.db(), user.id).await?;
    let shut_out = grants::ShutOut::before(tx, kept).await?;
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
                losses.directory_roles = roles::numbers_of(TENANT_ROLES, grant.roles);
            }
            ScopeKey::Operator => {
                losses.operator_roles = roles::numbers_of(OPERATOR_ROLES, grant.roles);
                tx.emit(staff_removed(user, &losses.operator_roles));
            }
            ScopeKey::Identity(_) => {}
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
    grants::forget_woken(tx, user.id).await?;
    link::revoke_ways_in(tx, user.id).await?;
    shut_out.done(tx).await?;
    Ok(Taken {
        losses,
        by_groups: rights
            .iter()
            .filter(|right| right.by_group && right.holder == user.id)
            .map(|right| right.scope)
            .collect(),
    })
}

/// The event of somebody who is no staff any more, told in the operator's name.
fn staff_removed(user: &Model, operator_roles: &[i32]) -> Event {
    Event::new(
        "entente.operator.v1.OperatorRolesRemoved",
        Name::Staff(user.id),
    )
    .also_in(ScopeKey::Tenant(user.tenant_id))
    .change("roles", operator_roles, serde_json::Value::Null)
    .touches(user.id)
}

/// Adds what one lost to what all lost; what is lost by several is named once.
pub fn add_losses(all: &mut Losses, one: Losses) {
    let Losses {
        memberships,
        directory_roles,
        session_count,
        key_count,
        groups,
        group_member_count,
        by_group,
        operator_roles,
    } = one;
    all.memberships.extend(memberships);
    for (all, one) in [
        (&mut all.directory_roles, directory_roles),
        (&mut all.operator_roles, operator_roles),
    ] {
        for role in one {
            if !all.contains(&role) {
                all.push(role);
            }
        }
    }
    all.session_count += session_count;
    all.key_count += key_count;
    all.groups.extend(groups);
    all.groups.sort_unstable();
    all.groups.dedup();
    all.group_member_count += group_member_count;
    all.by_group.extend(by_group);
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

/// The guest users of a home that aren't deleted.
///
/// # Errors
/// Those of the database.
pub async fn guests_of<C: ConnectionTrait>(db: &C, home: Uuid) -> Result<Vec<Model>> {
    Ok(Entity::find()
        .filter(Column::HomeId.eq(home))
        .filter(Column::State.ne(DELETED))
        .all(db)
        .await?)
}

/// Deletes a user: everything is taken from it, its name is free, and it can be restored for 30 days (USR-6). Its guests elsewhere are deleted
/// with it: whoever restores it here sets a new credential, and must get nothing there by it (INV-5, ROL-13). What they lose is told there,
/// and of the losses only that their sessions end: the rest is no business of their home's tenant.
///
/// # Errors
/// As `take_everything`.
pub async fn delete(tx: &mut Tx, user: Model) -> Result<(Model, Losses)> {
    let mut ended = 0;
    if user.kind != GUEST {
        let guests = guests_of(tx.db(), user.id).await?;
        if !guests.is_empty() {
            let rights = grants::rights_of(tx.db(), user.id).await?;
            let tenants = guests.iter().map(|g| ScopeKey::Tenant(g.tenant_id));
            tx.lock(rights.iter().map(|right| right.scope).chain(tenants))
                .await?;
        }
        for guest in guests {
            ended += delete_one(tx, guest).await?.1.session_count;
        }
    }
    let (row, mut losses) = delete_one(tx, user).await?;
    losses.session_count += ended;
    Ok((row, losses))
}

async fn delete_one(tx: &mut Tx, user: Model) -> Result<(Model, Losses)> {
    let Taken { losses, by_groups } = take_everything(tx, &user, DELETED).await?;
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
    tx.emit(by_groups.into_iter().fold(deleted(&user), Event::also_in));
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
