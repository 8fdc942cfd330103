//! UserService, what admins do to those they administer: directory roles, one global admin in place of another (ROL-9), passwords (PWD-5).

use sea_orm::EntityTrait;

use super::{
    ACTIVE, DISABLED, GUEST, asleep, credential,
    entity::user::{Entity, Model},
    tenant,
    user::{bump, demand_state, find, holds_global_admin},
    user_change, user_state, wire,
};
use crate::{
    access::{
        grants::{self, GLOBAL_ADMIN},
        roles::{self, Permission, TENANT_ROLES},
        scope::TenantScope,
    },
    app::Tx,
    check::Violations,
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::directory::{
        AssignDirectoryRolesRequest, ReplaceGlobalAdminRequest, ReplaceGlobalAdminResponse,
        ResetPasswordRequest, ResetPasswordResponse, User,
    },
    store::{outbox::Event, scope_key::ScopeKey, update},
};

/// Sets a temporary password; sessions end, rights sleep (PWD-5, ROL-13).
///
/// # Errors
/// `PERMISSION_DENIED` for a helpdesk admin if the user holds anything; `OWN_CREDENTIAL`; `CREDENTIAL_ELSEWHERE` for a guest; `WRONG_STATE`,
/// `ETAG_MISMATCH`, `DIRECTORY_SYNCHRONIZED`.
pub async fn reset_password(
    tx: &mut Tx,
    scope: TenantScope,
    req: ResetPasswordRequest,
) -> Result<ResetPasswordResponse> {
    let (row, answer) = reset(tx, scope, req).await?;
    grants::lent::note_known(tx, row.id, false).await?;
    tell_of_temporary(tx, scope, &row).await?;
    Ok(answer)
}

/// Sets a temporary password, and tells the person nothing.
///
/// # Errors
/// As `reset_password`.
pub(super) async fn reset(
    tx: &mut Tx,
    scope: TenantScope,
    req: ResetPasswordRequest,
) -> Result<(Model, ResetPasswordResponse)> {
    let ResetPasswordRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let user = find(tx.db(), scope, &name).await?;
    update::check_etag(&etag, user.version)?;
    user_change::has_own_credential(&user)?;
    user_change::demand_made_here(&user)?;
    demand_state(&user, &[ACTIVE, DISABLED])?;
    if tx.caller().who.is_some_and(|w| w.principal.id == user.id) {
        // Knowing the old password is what protects one's own: a stolen token must not be worth more.
        return Err(Error::refused(Reason::OwnCredential));
    }
    demand_over(tx, &user).await?;
    let temporary_password = credential::make_temporary(tx, user.id).await?;
    let ended_session_count = credential::end_sessions(tx, user.id, None).await?;
    let prefix = tenant::find(tx.db(), scope).await?.domain_prefix;
    let sign_in_name = wire::sign_in_name(tx.app(), user.kind, &user.user_name, &prefix);
    asleep::put_to_sleep(tx, &user, &sign_in_name).await?;
    let row = bump(tx, &user).await?;
    tx.emit(
        Event::new(
            "entente.directory.v1.PasswordReset",
            user_change::name(&user),
        )
        .with("ended_session_count", ended_session_count)
        .touches(user.id),
    );
    let wire_user = user_change::to_wire(tx.db(), tx.app(), &row, tx.now()).await?;
    let answer = ResetPasswordResponse {
        user: Some(wire_user),
        temporary_password,
        secret_omitted: false,
        ended_session_count,
    };
    Ok((row, answer))
}

/// Tells a person that a temporary password was set, and by whom.
///
/// # Errors
/// Those of the database.
pub(super) async fn tell_of_temporary(tx: &mut Tx, scope: TenantScope, user: &Model) -> Result<()> {
    let tenant = tenant::find(tx.db(), scope).await?;
    let by = tx.caller().name();
    let prefix = &tenant.domain_prefix;
    let sign_in_name = wire::sign_in_name(tx.app(), user.kind, &user.user_name, prefix);
    let values = [
        ("name", user.display_name.clone()),
        ("sign_in_name", sign_in_name),
        ("organisation", tenant.display_name),
        ("by", caller_display_name(tx, &by).await?),
    ];
    let object = user_change::name(user);
    mail::queue(
        tx,
        Template::PasswordReset,
        &user.recovery_email,
        object,
        &values,
    )
    .await
}

/// A helpdesk admin may only over people who hold nothing anywhere (PWD-5); over others it takes who may change users.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub(super) async fn demand_over(tx: &mut Tx, user: &Model) -> Result<()> {
    if grants::holds_something(tx.db(), user.id).await? {
        // A partner, who is lent nothing else of the kind, administers those who run the tenant as one of them (REL-14).
        let needed = match tx.lent() {
            Some(_) => Permission::DirectoryRolesAssign,
            None => Permission::UsersUpdate,
        };
        tx.demand(needed, Name::Tenant(user.tenant_id)).await?;
    }
    Ok(())
}

pub(super) async fn caller_display_name(tx: &Tx, name: &str) -> Result<String> {
    Ok(match Name::parse(name) {
        Some(Name::User(_, id)) => Entity::find_by_id(id)
            .one(tx.db())
            .await?
            .map_or_else(|| "An administrator".to_owned(), |u| u.display_name),
        _ => "An administrator".to_owned(),
    })
}

/// Replaces the directory roles of a user.
///
/// # Errors
/// `INVALID_ARGUMENT` on `recovery_email` (USR-2), `LAST_GLOBAL_ADMIN`, `WRONG_STATE`, `ETAG_MISMATCH`, and those of giving.
pub async fn assign_directory_roles(
    tx: &mut Tx,
    scope: TenantScope,
    req: AssignDirectoryRolesRequest,
) -> Result<User> {
    let AssignDirectoryRolesRequest {
        name,
        directory_roles,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let user = find(tx.db(), scope, &name).await?;
    update::check_etag(&etag, user.version)?;
    demand_state(&user, &[ACTIVE, DISABLED])?;
    let roles = roles::bits_of(TENANT_ROLES, &directory_roles);
    let row = set_directory_roles(tx, &user, roles).await?;
    user_change::to_wire(tx.db(), tx.app(), &row, tx.now()).await
}

async fn set_directory_roles(tx: &mut Tx, user: &Model, new: i64) -> Result<Model> {
    // A guest has no such address, and is refused below whatever it has (USR-2).
    if new & GLOBAL_ADMIN != 0 && user.recovery_email.is_empty() && user.kind != GUEST {
        return Err(Error::field(
            "recovery_email",
            "is required for a global admin; set it with UpdateUser first",
        ));
    }
    let scope = ScopeKey::Tenant(user.tenant_id);
    let old = grants::find(tx.db(), scope, user.id)
        .await?
        .map_or(0, |g| g.roles);
    if new != old {
        grants::set(
            tx,
            scope,
            user_change::principal(user),
            grants::Set::of_roles(new),
            grants::By::Caller,
        )
        .await?;
        tx.emit(
            Event::new(
                "entente.directory.v1.DirectoryRolesAssigned",
                user_change::name(user),
            )
            .change(
                "directory_roles",
                roles::numbers_of(TENANT_ROLES, old),
                roles::numbers_of(TENANT_ROLES, new),
            )
            .touches(user.id),
        );
    }
    bump(tx, user).await
}

pub(crate) fn check_replace_global_admin(req: &ReplaceGlobalAdminRequest, v: &mut Violations) {
    if req.name == req.successor {
        v.also("successor", "must be another user");
    }
}

/// Disables one global admin and appoints another in one step (ROL-9).
///
/// # Errors
/// `INVALID_ARGUMENT` if the successor lacks a recovery address; `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn replace_global_admin(
    tx: &mut Tx,
    scope: TenantScope,
    req: ReplaceGlobalAdminRequest,
) -> Result<ReplaceGlobalAdminResponse> {
    let ReplaceGlobalAdminRequest {
        name,
        successor,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = find(tx.db(), scope, &name).await?;
    let next = find(tx.db(), scope, &successor).await?;
    update::check_etag(&etag, old.version)?;
    if !holds_global_admin(tx, &old).await? {
        return Err(Error::precondition(Reason::WrongState).with("state", "no global admin"));
    }
    demand_state(&next, &[ACTIVE])?;
    let roles = grants::find(tx.db(), ScopeKey::Tenant(next.tenant_id), next.id)
        .await?
        .map_or(0, |g| g.roles);
    let next = set_directory_roles(tx, &next, roles | GLOBAL_ADMIN).await?;
    let old = user_state::disable(tx, &old).await?;
    let now = tx.now();
    Ok(ReplaceGlobalAdminResponse {
        disabled: Some(user_change::to_wire(tx.db(), tx.app(), &old, now).await?),
        successor: Some(user_change::to_wire(tx.db(), tx.app(), &next, now).await?),
    })
}
