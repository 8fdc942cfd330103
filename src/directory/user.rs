//! UserService: the people of a tenant (USR-1 to USR-8, PWD-5).

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel,
    JoinType, QueryFilter, QuerySelect, QueryTrait, Set, Value,
    sea_query::{Alias, Expr, ExprTrait as _},
};
use uuid::Uuid;

use super::{
    ACTIVE, DELETED, DISABLED, asleep, credential,
    entity::user::{self, Column, Entity, Model},
    group, search, tenant,
    user_card::UserCard,
    user_change,
    wire::{self, NewUser},
};
pub(crate) use super::{asleep::check_wake_rights, user_admin::check_replace_global_admin};
pub use super::{
    asleep::wake_rights,
    user_admin::{assign_directory_roles, replace_global_admin, reset_password},
    user_state::{delete_user, disable_user, enable_user, undelete_user},
};
use crate::{
    access::{
        cache::Facts as _,
        grants::{self, GLOBAL_ADMIN},
        link,
        scope::{CallerScope, Proof, Reach, TenantScope},
    },
    app::{Read, Tx},
    check::Violations,
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::directory::{
        CreateUserRequest, CreateUserResponse, GetUserRequest, ListUsersRequest, ListUsersResponse,
        UpdateOwnContactRequest, UpdateUserRequest, User,
    },
    store::{
        filter::{Field, Kind, OrderField, Pairs},
        list::{Listing, fold},
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
    let (new, memberships, groups) = wire::new_user(req)?;
    // A partner makes the global admin who gives a customer its tenant back, whatever a local directory fills (TEN-5).
    let restores = tx.lent().is_some() && new.directory_roles & GLOBAL_ADMIN != 0;
    let domain_prefix = if restores {
        tenant::find(tx.db(), tenant).await?.domain_prefix
    } else {
        tenant::refuse_synchronized(tx, tenant.id()).await?
    };
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
    for field in &fields {
        match *field {
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
    // One that was there before is vouched for by another person's saying so alone, not by what else that changes.
    let is_oneself = tx.caller().who.is_some_and(|w| w.principal.id == old.id);
    if recovery_changed || (fields == ["recovery_email"] && !is_oneself) {
        grants::lent::forget_given_address(tx, old.id).await?;
    }
    if recovery_changed || changed.user_name != old.user_name {
        user_change::has_own_credential(&old)?;
    }
    if changed.recovery_email.is_empty() && holds_global_admin(tx, &old).await? {
        return Err(Error::field(
            "user.recovery_email",
            "is required for a global admin",
        ));
    }
    if recovery_changed && is_oneself {
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

/// The row as it is by now.
pub(super) async fn reload(tx: &Tx, user: &Model) -> Result<Model> {
    Entity::find_by_id(user.id)
        .one(tx.db())
        .await?
        .ok_or_else(|| Error::internal("a user vanished within its transaction"))
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
    grants::lent::note_own_address(tx, row.id, &row.recovery_email).await?;
    if row.recovery_email != old.recovery_email {
        after_recovery_change(tx, &old, &row).await?;
    }
    user_change::to_wire(tx.db(), tx.app(), &row, tx.now()).await
}

pub(super) async fn bump(tx: &mut Tx, user: &Model) -> Result<Model> {
    let sql = "UPDATE users SET update_time = $1, version = version + 1 WHERE id = $2";
    let values: [Value; 2] = [tx.now().into(), user.id.into()];
    sql::execute(tx.db(), sql, values).await?;
    reload(tx, user).await
}

/// The user of a name that a proof reaches.
pub(super) async fn find<C: ConnectionTrait>(
    db: &C,
    reach: impl Into<Reach>,
    name: &str,
) -> Result<Model> {
    let not_found = || Error::not_found("entente.dev/User", name);
    match Name::parse(name) {
        Some(Name::User(_, id)) => user::find(db, reach, id).await?.ok_or_else(not_found),
        _ => Err(not_found()),
    }
}

pub(super) async fn holds_global_admin(tx: &Tx, user: &Model) -> Result<bool> {
    let grant = grants::find(tx.db(), ScopeKey::Tenant(user.tenant_id), user.id).await?;
    Ok(grant.is_some_and(|g| g.roles & GLOBAL_ADMIN != 0))
}

pub(super) fn demand_state(user: &Model, states: &[i64]) -> Result<()> {
    if states.contains(&user.state) {
        Ok(())
    } else {
        Err(Error::precondition(Reason::WrongState)
            .with("state", user_change::state_name(user.state)))
    }
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
