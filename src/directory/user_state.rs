//! UserService: users who are shut out, let in again, deleted, restored and, when their time is over, removed (USR-6).

use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect, Set,
};
use uuid::Uuid;

use super::{
    ACTIVE, DELETED, DISABLED, GUEST, IDENTITY, INVITED, asleep, credential,
    entity::user::{Column, Entity, Model},
    synchronization, tenant,
    user::{demand_state, find},
    user_change, wire,
};
use crate::{
    access::{grants, link, scope::TenantScope},
    app::Tx,
    error::{Error, Reason, Result},
    proto::directory::{
        DeleteUserRequest, DeleteUserResponse, DisableUserRequest, EnableUserRequest,
        UndeleteUserRequest, UndeleteUserResponse, User,
    },
    store::{list::fold, outbox::Event, sql, update},
};

/// Shuts a user out from the next call on; its sessions end, what it holds is kept (USR-6, ROL-9).
///
/// # Errors
/// `LAST_GLOBAL_ADMIN`, `LAST_OPERATOR_ADMIN`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn disable_user(
    tx: &mut Tx,
    scope: TenantScope,
    req: DisableUserRequest,
) -> Result<User> {
    let DisableUserRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = find(tx.db(), scope, &name).await?;
    update::check_etag(&etag, old.version)?;
    let row = disable(tx, &old).await?;
    user_change::to_wire(tx.db(), tx.app(), &row, tx.now()).await
}

/// Shuts an active user out.
pub(super) async fn disable(tx: &mut Tx, old: &Model) -> Result<Model> {
    demand_state(old, &[ACTIVE])?;
    let kept = grants::kept_by(tx.db(), old.id).await?;
    let shut_out = grants::ShutOut::before(tx, kept).await?;
    let row = change_state(tx, old, DISABLED, "entente.directory.v1.UserDisabled").await?;
    credential::end_sessions(tx, old.id, None).await?;
    link::revoke_ways_in(tx, old.id).await?;
    shut_out.done(tx).await?;
    Ok(row)
}

/// Lets a disabled user in again, with what it held; that is no grant (ROL-7).
///
/// # Errors
/// `WRONG_STATE`, `ETAG_MISMATCH`; `DIRECTORY_SYNCHRONIZED` for whom the local directory has disabled.
pub async fn enable_user(tx: &mut Tx, scope: TenantScope, req: EnableUserRequest) -> Result<User> {
    let EnableUserRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = find(tx.db(), scope, &name).await?;
    update::check_etag(&etag, old.version)?;
    demand_state(&old, &[DISABLED])?;
    if synchronization::is_disabled_there(tx, old.id).await? {
        return Err(Error::precondition(Reason::DirectorySynchronized));
    }
    let row = change_state(tx, &old, ACTIVE, "entente.directory.v1.UserEnabled").await?;
    user_change::to_wire(tx.db(), tx.app(), &row, tx.now()).await
}

async fn change_state(tx: &mut Tx, old: &Model, state: i64, kind: &'static str) -> Result<Model> {
    let mut row = old.clone().into_active_model();
    row.state = Set(state);
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    tx.emit(
        Event::new(kind, user_change::name(old))
            .change("state", old.state, state)
            .touches(old.id),
    );
    Ok(row)
}

/// Deletes a user (USR-6).
///
/// # Errors
/// `LAST_GLOBAL_ADMIN`, `LAST_OPERATOR_ADMIN`, `WRONG_STATE`, `ETAG_MISMATCH`, `DIRECTORY_SYNCHRONIZED`.
pub async fn delete_user(
    tx: &mut Tx,
    scope: TenantScope,
    req: DeleteUserRequest,
) -> Result<DeleteUserResponse> {
    let DeleteUserRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = find(tx.db(), scope, &name).await?;
    update::check_etag(&etag, old.version)?;
    user_change::demand_made_here(&old)?;
    demand_state(&old, &[ACTIVE, DISABLED, INVITED])?;
    let (row, losses) = user_change::delete(tx, old).await?;
    let resource = user_change::to_wire(tx.db(), tx.app(), &row, tx.now()).await?;
    Ok(DeleteUserResponse {
        resources: vec![resource],
        losses: Some(losses),
    })
}

/// Restores a deleted user with a new temporary password, and nothing else that it had; as after a reset, what it gets within 72 hours
/// sleeps (ROL-13). A guest keeps the home that it signs in with; one
/// that never accepted has none, and is invited again instead.
///
/// # Errors
/// `USER_NAME_TAKEN` if the old name is taken and no new one is given, `USER_EXISTS` if a guest's home is tied to another guest by now;
/// `CREDENTIAL_ELSEWHERE` for a guest under a new name; `WRONG_STATE`, `ETAG_MISMATCH`,
/// `DIRECTORY_SYNCHRONIZED`.
pub async fn undelete_user(
    tx: &mut Tx,
    scope: TenantScope,
    req: UndeleteUserRequest,
) -> Result<UndeleteUserResponse> {
    let UndeleteUserRequest {
        name,
        user_name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = find(tx.db(), scope, &name).await?;
    update::check_etag(&etag, old.version)?;
    user_change::demand_made_here(&old)?;
    demand_state(&old, &[DELETED])?;
    if old.purge_time.is_some_and(|at| at <= tx.now()) {
        return Err(Error::not_found("entente.dev/User", name));
    }
    let is_guest = old.kind == GUEST;
    if is_guest && old.home_id.is_none() {
        return Err(Error::precondition(Reason::WrongState)
            .with("state", user_change::state_name(old.state)));
    }
    let mut row = old.clone().into_active_model();
    if !user_name.is_empty() {
        user_change::has_own_credential(&old)?;
        row.user_name_fold = Set(fold(&user_name));
        row.user_name = Set(user_name.clone());
    }
    row.state = Set(ACTIVE);
    row.delete_time = Set(None);
    row.purge_time = Set(None);
    row.rights_asleep_until = Set((!is_guest).then(|| tx.now() + grants::ASLEEP_US));
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    let temporary_password = if is_guest {
        String::new()
    } else {
        let prefix = tenant::find(tx.db(), scope).await?.domain_prefix;
        let sign_in_name = wire::sign_in_name(tx.app(), row.kind, &row.user_name, &prefix);
        asleep::put_to_sleep(tx, &row, &sign_in_name).await?;
        grants::lent::note_known(tx, row.id, false).await?;
        credential::make_temporary(tx, row.id).await?
    };
    tx.emit(
        Event::new(
            "entente.directory.v1.UserUndeleted",
            user_change::name(&row),
        )
        .change("state", old.state, ACTIVE)
        .change("user_name", old.user_name, row.user_name.clone())
        .touches(row.id),
    );
    let user = user_change::to_wire(tx.db(), tx.app(), &row, tx.now()).await?;
    Ok(UndeleteUserResponse {
        user: Some(user),
        temporary_password,
        secret_omitted: false,
    })
}

/// A deletion of a user that another slice has proven (USR-5): by its ID.
///
/// # Errors
/// As `delete_user`.
pub async fn delete_by_id(tx: &mut Tx, id: Uuid) -> Result<crate::proto::directory::Losses> {
    let user = Entity::find_by_id(id)
        .one(tx.db())
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/User", id.to_string()))?;
    user_change::demand_made_here(&user)?;
    demand_state(&user, &[ACTIVE, DISABLED])?;
    Ok(user_change::delete(tx, user).await?.1)
}

/// Removes users whose time to be restored is over; the scheduler's.
///
/// # Errors
/// Those of the database.
pub(crate) async fn purge_users(tx: &mut Tx) -> Result<u64> {
    let before = tx.now();
    let found = || {
        Entity::find()
            .filter(Column::PurgeTime.lte(before))
            .filter(Column::State.eq(DELETED))
            .order_by_asc(Column::PurgeTime)
            .order_by_asc(Column::Id)
            .limit(500)
    };
    let due = found().all(tx.db()).await?;
    tx.lock(due.iter().map(|user| user_change::principal(user).home()))
        .await?;
    // Under the locks: one that was restored meanwhile stays.
    let due = found().all(tx.db()).await?;
    for user in &due {
        for sql in [
            "DELETE FROM sessions WHERE user_id = $1",
            "DELETE FROM sign_in_networks WHERE user_id = $1",
            "DELETE FROM invitations WHERE user_id = $1",
            "DELETE FROM directory_disabled_users WHERE user_id = $1",
            "DELETE FROM delegated_users WHERE id = $1",
        ] {
            sql::execute(tx.db(), sql, [user.id.into()]).await?;
        }
        let sql = "DELETE FROM users WHERE id = $1 AND state = 3 AND purge_time <= $2";
        let gone = sql::execute(tx.db(), sql, [user.id.into(), before.into()]).await?;
        if gone.rows_affected() != 1 {
            return Err(Error::internal(
                "a user to be purged changed under its lock",
            ));
        }
        let kind = if user.kind == IDENTITY {
            "entente.directory.v1.IdentityPurged"
        } else {
            "entente.directory.v1.UserPurged"
        };
        tx.emit(Event::new(kind, user_change::name(user)).touches(user.id));
    }
    Ok(due.len() as u64)
}
