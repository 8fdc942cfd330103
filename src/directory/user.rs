//! UserService: the people of a tenant (USR-1 to USR-8, PWD-5).

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel,
    JoinType, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Set, Value,
    sea_query::{Alias, Expr, ExprTrait as _},
};
use uuid::Uuid;

pub(crate) use super::asleep::check_wake_rights;
pub use super::asleep::wake_rights;
use super::{
    ACTIVE, DELETED, DISABLED, GUEST, IDENTITY, INVITED, asleep, credential,
    entity::user::{self, Column, Entity, Model},
    group, search, synchronization, tenant,
    user_card::UserCard,
    user_change,
    wire::{self, NewUser},
};
use crate::{
    access::{
        cache::Facts as _,
        grants::{self, GLOBAL_ADMIN},
        link,
        roles::{self, Permission, TENANT_ROLES},
        scope::{CallerScope, Proof, Reach, TenantScope},
    },
    app::{Read, Tx},
    check::Violations,
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::directory::{
        AssignDirectoryRolesRequest, CreateUserRequest, CreateUserResponse, DeleteUserRequest,
        DeleteUserResponse, DisableUserRequest, EnableUserRequest, GetUserRequest,
        ListUsersRequest, ListUsersResponse, ReplaceGlobalAdminRequest, ReplaceGlobalAdminResponse,
        ResetPasswordRequest, ResetPasswordResponse, UndeleteUserRequest, UndeleteUserResponse,
        UpdateOwnContactRequest, UpdateUserRequest, User,
    },
    store::{
        filter::{Field, Kind, OrderField, Pairs},
        list::{Listing, fold},
        outbox::Event,
        scope_key::ScopeKey,
        sql, update,
    },
};

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "state",
            ("users", "state"),
            Kind::Enum(&[
                ("ACTIVE", 1),
                ("DISABLED", 2),
                ("DELETED", 3),
                ("INVITED", 4),
            ]),
        ),
        Field::new(
            "kind",
            ("users", "kind"),
            Kind::Enum(&[("MEMBER", 1), ("GUEST", 2)]),
        ),
        Field::new(
            "user_name",
            ("users", "user_name_fold"),
            Kind::Text(search::USER_NAMES),
        ),
        Field::new(
            "display_name",
            ("users", "display_name_fold"),
            Kind::Text(search::USERS),
        ),
        Field::new(
            "directory_roles",
            ("g", "roles"),
            Kind::Flags(&[
                ("GLOBAL_ADMIN", 2),
                ("BILLING_ADMIN", 4),
                ("HELPDESK_ADMIN", 8),
            ]),
        ),
        Field::new("group", ("users", "id"), Kind::Paired(GROUPS)),
        Field::new("create_time", ("users", "create_time"), Kind::TIME),
    ],
    orders: &[
        OrderField::new("create_time", ("users", "create_time")),
        OrderField::new("display_name", ("users", "display_name_fold")),
    ],
    id: ("users", "id"),
};

/// The groups of users.
const GROUPS: Pairs = Pairs {
    table: "group_members",
    row: "user_id",
    with: "group_id",
    within: None,
    parse: group_id,
};

/// The ID in a group's name.
pub(crate) fn group_id(name: &str) -> Option<Uuid> {
    match Name::parse(name) {
        Some(Name::Group(_, id)) => Some(id),
        _ => None,
    }
}

/// A row of a list: the user, and its directory roles.
#[derive(FromQueryResult)]
struct Listed {
    #[sea_orm(nested)]
    user: Model,
    directory_roles: Option<i64>,
}

pub(crate) fn check_create_user(req: &CreateUserRequest, v: &mut Violations) {
    wire::check_new_user(req, v);
}

/// Makes a user with a temporary password, directory roles, groups and memberships (USR-1).
///
/// # Errors
/// `USER_NAME_TAKEN`, `NOT_FOUND` for groups that aren't there, `DIRECTORY_SYNCHRONIZED`, and those of giving.
pub async fn create_user(
    tx: &mut Tx,
    tenant: TenantScope,
    req: CreateUserRequest,
) -> Result<CreateUserResponse> {
    let domain_prefix = tenant::refuse_synchronized(tx, tenant.id()).await?;
    let (new, memberships, groups) = wire::new_user(req)?;
    let accounts: Vec<ScopeKey> = memberships
        .iter()
        .filter_map(|m| Name::parse(&m.account))
        .map(|n| n.scope())
        .collect();
    tx.lock(accounts.iter().copied()).await?;
    let through = accounts.first().map(ScopeKey::to_owned).map(ScopeKey::id);
    let user = user_change::insert(tx, tenant.id(), &new, through).await?;
    let temporary_password = credential::make_first(tx, user.id).await?;
    give_directory_roles(tx, &user, new.directory_roles).await?;
    tx.emit(user_change::created(&user, new.directory_roles));
    group::join_all(tx, tenant, user.id, &groups).await?;
    user_change::join_accounts(tx, user_change::principal(&user), &memberships).await?;
    Ok(CreateUserResponse {
        user: Some(wire::user(
            tx.app(),
            &user,
            &domain_prefix,
            new.directory_roles,
            tx.now(),
        )),
        temporary_password,
        secret_omitted: false,
    })
}

async fn give_directory_roles(tx: &mut Tx, user: &Model, directory_roles: i64) -> Result<()> {
    if directory_roles == 0 {
        return Ok(());
    }
    let scope = ScopeKey::Tenant(user.tenant_id);
    grants::set(
        tx,
        scope,
        user_change::principal(user),
        grants::Set::of_roles(directory_roles),
        grants::By::Caller,
    )
    .await
}

/// Gives a user.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn get_user(rd: &Read, proof: Proof, req: GetUserRequest) -> Result<User> {
    let not_found = || Error::not_found("entente.dev/User", &req.name);
    let reach = proof.reach()?;
    let fact = match Name::parse(&req.name) {
        Some(Name::User(_, id)) => UserCard::of(reach, id),
        _ => None,
    };
    let card = rd.know(fact.ok_or_else(not_found)?).await?;
    let card = card.as_ref().as_ref().ok_or_else(not_found)?;
    Ok(card.to_wire(rd.app(), rd.now()))
}

pub(crate) fn check_list_users(req: &ListUsersRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists and searches users (USR-7).
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_users(
    rd: &Read,
    scope: TenantScope,
    req: ListUsersRequest,
) -> Result<ListUsersResponse> {
    let mut select = Entity::find().filter(Column::TenantId.eq(scope.id()));
    if !req.show_deleted {
        select = select.filter(Column::State.ne(DELETED));
    }
    let on = Expr::col((Alias::new("g"), Alias::new("scope_kind")))
        .eq(1)
        .and(
            Expr::col((Alias::new("g"), Alias::new("scope_id")))
                .equals((user::Entity, Column::TenantId)),
        )
        .and(
            Expr::col((Alias::new("g"), Alias::new("principal_id")))
                .equals((user::Entity, Column::Id)),
        );
    QueryTrait::query(&mut select).join_as(
        JoinType::LeftJoin,
        Alias::new("grants"),
        Alias::new("g"),
        on,
    );
    let select = select.expr_as(
        Expr::col((Alias::new("g"), Alias::new("roles"))),
        "directory_roles",
    );
    let prefix = tenant::find(rd.db(), scope).await?.domain_prefix;
    let page = rd
        .list(&req, &LISTING, select, |row: Listed| {
            let roles = row.directory_roles.unwrap_or(0);
            wire::user(rd.app(), &row.user, &prefix, roles, rd.now())
        })
        .await?;
    Ok(ListUsersResponse {
        users: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Changes names or the recovery address (USR-3).
///
/// # Errors
/// `USER_NAME_TAKEN`, `ETAG_MISMATCH`, `WRONG_STATE` for a deleted or invited user, `DIRECTORY_SYNCHRONIZED` (TEN-5); `CREDENTIAL_ELSEWHERE`
/// for a guest's user name or recovery address; `OWN_CREDENTIAL` for one's own recovery address.
pub async fn update_user(tx: &mut Tx, scope: TenantScope, req: UpdateUserRequest) -> Result<User> {
    let UpdateUserRequest {
        user,
        update_mask,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let new = user.ok_or_else(|| Error::field("user", "is required"))?;
    let fields = update::fields(update_mask.as_ref(), &new);
    let old = find(tx.db(), scope, &new.name).await?;
    update::check_etag(&etag, old.version)?;
    // No data of the local directory's: without it nobody of those that it brings becomes a global admin (TEN-5, USR-2).
    if fields != ["recovery_email"] {
        user_change::demand_made_here(&old)?;
    }
    demand_state(&old, &[ACTIVE, DISABLED])?;
    let mut changed = NewUser {
        user_name: old.user_name.clone(),
        given_name: old.given_name.clone(),
        family_name: old.family_name.clone(),
        recovery_email: old.recovery_email.clone(),
        directory_roles: 0,
    };
    for field in fields {
        match field {
            "user_name" => changed.user_name.clone_from(&new.user_name),
            "given_name" => changed.given_name.clone_from(&new.given_name),
            "family_name" => changed.family_name.clone_from(&new.family_name),
            "recovery_email" => changed.recovery_email.clone_from(&new.recovery_email),
            other => {
                return Err(Error::internal(format!(
                    "{other} is mutable, but nobody changes it"
                )));
            }
        }
    }
    let recovery_changed = changed.recovery_email != old.recovery_email;
    if recovery_changed || changed.user_name != old.user_name {
        user_change::has_own_credential(&old)?;
    }
    if changed.recovery_email.is_empty() && holds_global_admin(tx, &old).await? {
        return Err(Error::field(
            "user.recovery_email",
            "is required for a global admin",
        ));
    }
    if recovery_changed && tx.caller().who.is_some_and(|w| w.principal.id == old.id) {
        // A fresh sign-in is what protects one's own: no other verb does the same without it.
        return Err(Error::refused(Reason::OwnCredential));
    }
    let row = store_names(tx, &old, &changed).await?;
    if recovery_changed {
        after_recovery_change(tx, &old, &row).await?;
    }
    user_change::to_wire(tx.db(), tx.app(), &reload(tx, &row).await?, tx.now()).await
}

/// Writes a user's names, and tells.
async fn store_names(tx: &mut Tx, old: &Model, new: &NewUser) -> Result<Model> {
    let mut row = old.clone().into_active_model();
    row.user_name = Set(new.user_name.clone());
    row.user_name_fold = Set(fold(&new.user_name));
    row.given_name = Set(new.given_name.clone());
    row.family_name = Set(new.family_name.clone());
    row.display_name = Set(new.display_name());
    row.display_name_fold = Set(fold(&new.display_name()));
    row.recovery_email = Set(new.recovery_email.clone());
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    if row.display_name_fold != old.display_name_fold {
        grants::rename(tx, row.id, &row.display_name_fold).await?;
    }
    tx.emit(user_change::updated(old, &row));
    Ok(row)
}

/// The recovery address is a credential: whoever sets another's puts rights to sleep; the old address is told.
async fn after_recovery_change(tx: &mut Tx, old: &Model, new: &Model) -> Result<()> {
    // Whoever reads the old mailbox only has no way in any more.
    link::revoke_ways_in(tx, new.id).await?;
    let prefix = tenant::by_id(tx.db(), new.tenant_id).await?.domain_prefix;
    let sign_in_name = format!("{}@{}", new.user_name, wire::domain(tx.app(), &prefix));
    let values = [
        ("name", new.display_name.clone()),
        ("sign_in_name", sign_in_name.clone()),
    ];
    mail::queue(
        tx,
        Template::RecoveryAddressChanged,
        &old.recovery_email,
        user_change::name(new),
        &values,
    )
    .await?;
    if tx.caller().who.is_none_or(|w| w.principal.id != new.id) {
        asleep::put_to_sleep(tx, new, &sign_in_name).await?;
    }
    Ok(())
}

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
    let prefix = tenant::find(tx.db(), scope).await?;
    let sign_in_name = format!(
        "{}@{}",
        user.user_name,
        wire::domain(tx.app(), &prefix.domain_prefix)
    );
    asleep::put_to_sleep(tx, &user, &sign_in_name).await?;
    let by = tx.caller().name();
    let by = caller_display_name(tx, &by).await?;
    let values = [
        ("name", user.display_name.clone()),
        ("sign_in_name", sign_in_name),
        ("organisation", prefix.display_name.clone()),
        ("by", by),
    ];
    mail::queue(
        tx,
        Template::PasswordReset,
        &user.recovery_email,
        user_change::name(&user),
        &values,
    )
    .await?;
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
    Ok(ResetPasswordResponse {
        user: Some(wire_user),
        temporary_password,
        secret_omitted: false,
        ended_session_count,
    })
}

/// A helpdesk admin may only over people who hold nothing anywhere (PWD-5); over others it takes who may change users.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub(super) async fn demand_over(tx: &mut Tx, user: &Model) -> Result<()> {
    let held = grants::rights_of(tx.db(), user.id).await?;
    if held.iter().any(|right| !right.set.is_empty()) {
        tx.demand(Permission::UsersUpdate, Name::Tenant(user.tenant_id))
            .await?;
    }
    Ok(())
}

async fn caller_display_name(tx: &Tx, name: &str) -> Result<String> {
    Ok(match Name::parse(name) {
        Some(Name::User(_, id)) => Entity::find_by_id(id)
            .one(tx.db())
            .await?
            .map_or_else(|| "An administrator".to_owned(), |u| u.display_name),
        _ => "An administrator".to_owned(),
    })
}

pub(super) async fn bump(tx: &mut Tx, user: &Model) -> Result<Model> {
    let sql = "UPDATE users SET update_time = $1, version = version + 1 WHERE id = $2";
    let values: [Value; 2] = [tx.now().into(), user.id.into()];
    sql::execute(tx.db(), sql, values).await?;
    reload(tx, user).await
}

/// The row as it is by now.
pub(super) async fn reload(tx: &Tx, user: &Model) -> Result<Model> {
    Entity::find_by_id(user.id)
        .one(tx.db())
        .await?
        .ok_or_else(|| Error::internal("a user vanished within its transaction"))
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
    let old = disable(tx, &old).await?;
    let now = tx.now();
    Ok(ReplaceGlobalAdminResponse {
        disabled: Some(user_change::to_wire(tx.db(), tx.app(), &old, now).await?),
        successor: Some(user_change::to_wire(tx.db(), tx.app(), &next, now).await?),
    })
}

/// Sets the caller's own recovery address.
///
/// # Errors
/// `RECENT_SIGN_IN_REQUIRED`, `CREDENTIAL_ELSEWHERE` for a guest, `ETAG_MISMATCH`.
pub async fn update_own_contact(
    tx: &mut Tx,
    scope: CallerScope,
    req: UpdateOwnContactRequest,
) -> Result<User> {
    let UpdateOwnContactRequest {
        name,
        recovery_email,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = find(tx.db(), scope, &name).await?;
    update::check_etag(&etag, old.version)?;
    user_change::has_own_credential(&old)?;
    let new = NewUser {
        user_name: old.user_name.clone(),
        given_name: old.given_name.clone(),
        family_name: old.family_name.clone(),
        recovery_email,
        directory_roles: 0,
    };
    let row = store_names(tx, &old, &new).await?;
    if row.recovery_email != old.recovery_email {
        after_recovery_change(tx, &old, &row).await?;
    }
    user_change::to_wire(tx.db(), tx.app(), &row, tx.now()).await
}

/// The user of a name that a proof reaches.
async fn find<C: ConnectionTrait>(db: &C, reach: impl Into<Reach>, name: &str) -> Result<Model> {
    let not_found = || Error::not_found("entente.dev/User", name);
    match Name::parse(name) {
        Some(Name::User(_, id)) => user::find(db, reach, id).await?.ok_or_else(not_found),
        _ => Err(not_found()),
    }
}

async fn holds_global_admin(tx: &Tx, user: &Model) -> Result<bool> {
    let grant = grants::find(tx.db(), ScopeKey::Tenant(user.tenant_id), user.id).await?;
    Ok(grant.is_some_and(|g| g.roles & GLOBAL_ADMIN != 0))
}

fn demand_state(user: &Model, states: &[i64]) -> Result<()> {
    if states.contains(&user.state) {
        Ok(())
    } else {
        Err(Error::precondition(Reason::WrongState)
            .with("state", user_change::state_name(user.state)))
    }
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

/// What other slices know of a user: tenant, account through which it was made, whether it is active, user and display name.
///
/// # Errors
/// Those of the database.
pub async fn summary<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Option<Summary>> {
    Ok(Entity::find_by_id(id).one(db).await?.map(|u| Summary {
        tenant: u.tenant_id,
        created_through_account: u.created_through_account,
        active: u.state == ACTIVE,
        display_name: u.display_name,
        user_name: u.user_name,
    }))
}

/// What other slices know of a user.
pub struct Summary {
    /// Its tenant.
    pub tenant: Uuid,
    /// The account through which it was made, if any.
    pub created_through_account: Option<Uuid>,
    /// Whether it is active.
    pub active: bool,
    /// What people see.
    pub display_name: String,
    /// Unique in the tenant.
    pub user_name: String,
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
