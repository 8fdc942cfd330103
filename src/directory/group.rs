//! GroupService: the groups of a tenant, and who is in them (GRP-2 to GRP-7). What that gives on accounts is `access/grants.rs`'s.

use std::collections::BTreeMap;

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel,
    JoinType, QueryFilter, QuerySelect, QueryTrait, Set, Value,
    sea_query::{Expr, ExprTrait as _},
};
use uuid::Uuid;

use super::{
    DELETED, asleep,
    entity::{
        group::{self, Column, Entity, Model},
        group_member, user,
    },
    search, tenant, user_change,
    wire::{self, InGroup},
};
use crate::{
    access::{
        grants,
        principal::{Kind, Principal},
        scope::{Proof, TenantScope},
    },
    app::{Read, Tx},
    check::Violations,
    error::{Error, Reason, Result},
    names::Name,
    proto::directory::{
        AddGroupMembersRequest, AddGroupMembersResponse, CreateGroupRequest, DeleteGroupsRequest,
        DeleteGroupsResponse, GetGroupRequest, Group, GroupMember, ListGroupMembersRequest,
        ListGroupMembersResponse, ListGroupsRequest, ListGroupsResponse, ListUserGroupsRequest,
        ListUserGroupsResponse, Losses, LostMembership, RemoveGroupMembersRequest,
        RemoveGroupMembersResponse, UpdateGroupRequest,
    },
    store::{
        filter::{Field, Kind as FilterKind, OrderField},
        list::{Listing, fold},
        outbox::Event,
        scope_key::ScopeKey,
        sql, update,
    },
};

const GROUP: &str = "entente.dev/Group";
const USER: &str = "entente.dev/User";

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "display_name",
            ("user_groups", "display_name_fold"),
            FilterKind::Text(search::GROUPS),
        ),
        Field::new(
            "create_time",
            ("user_groups", "create_time"),
            FilterKind::TIME,
        ),
    ],
    orders: &[
        OrderField::new("create_time", ("user_groups", "create_time")),
        OrderField::new("display_name", ("user_groups", "display_name_fold")),
    ],
    id: ("user_groups", "id"),
};

const MEMBERS: Listing = Listing {
    fields: &[
        Field::new(
            "display_name",
            ("group_members", "display_name_fold"),
            FilterKind::Text(search::USERS),
        ),
        Field::new(
            "user_name",
            ("users", "user_name_fold"),
            FilterKind::Text(search::USER_NAMES),
        ),
        Field::new(
            "state",
            ("users", "state"),
            FilterKind::Enum(&[("ACTIVE", 1), ("DISABLED", 2), ("INVITED", 4)]),
        ),
        Field::new(
            "kind",
            ("users", "kind"),
            FilterKind::Enum(&[("MEMBER", 1), ("GUEST", 2)]),
        ),
        Field::new(
            "create_time",
            ("group_members", "create_time"),
            FilterKind::TIME,
        ),
    ],
    orders: &[
        OrderField::new("create_time", ("group_members", "create_time")),
        OrderField::new("display_name", ("group_members", "display_name_fold")),
    ],
    id: ("group_members", "user_id"),
};

pub(crate) fn check_create_group(req: &CreateGroupRequest, v: &mut Violations) {
    wire::check_memberships(&req.memberships, v);
}

/// Makes a group, with users in it and memberships on accounts (GRP-2).
///
/// # Errors
/// `DIRECTORY_SYNCHRONIZED`, `NOT_FOUND` for members who aren't there, and those of giving.
pub async fn create_group(
    tx: &mut Tx,
    tenant: TenantScope,
    req: CreateGroupRequest,
) -> Result<Group> {
    let CreateGroupRequest {
        parent: _,
        group,
        members,
        memberships,
        request_id: _,
        validate_only: _,
    } = req;
    let display_name = wire::new_group(group)?;
    let home = tenant::find(tx.db(), tenant).await?;
    if home.synchronized {
        return Err(synchronized(Name::Tenant(home.id)));
    }
    let users = users_of(tx, tenant, &members, "members").await?;
    let now = tx.now();
    let row = Model {
        id: tx.id(),
        tenant_id: tenant.id(),
        display_name_fold: fold(&display_name),
        display_name,
        external_id: String::new(),
        member_count: 0,
        create_time: now,
        update_time: now,
        version: 1,
    };
    tx.insert(row.clone()).await?;
    tx.emit(
        Event::new("entente.directory.v1.GroupCreated", name(&row)).change(
            "display_name",
            serde_json::Value::Null,
            row.display_name.clone(),
        ),
    );
    // Nothing is held yet: what joining gives is given after it, by who may (ROL-7).
    join(tx, &row, &users).await?;
    user_change::join_accounts(tx, principal(&row), &memberships).await?;
    Ok(wire::group(&reload(tx, row.id).await?))
}

/// Gives a group.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn get_group(rd: &Read, scope: TenantScope, req: GetGroupRequest) -> Result<Group> {
    find(rd.db(), scope, &req.name)
        .await
        .map(|row| wire::group(&row))
}

pub(crate) fn check_list_groups(req: &ListGroupsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists the groups of a tenant.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_groups(
    rd: &Read,
    scope: TenantScope,
    req: ListGroupsRequest,
) -> Result<ListGroupsResponse> {
    let select = Entity::find().filter(Column::TenantId.eq(scope.id()));
    let page = rd
        .list(&req, &LISTING, select, |row: Model| wire::group(&row))
        .await?;
    Ok(ListGroupsResponse {
        groups: page.items,
        next_page_token: page.next_page_token,
    })
}

pub(crate) fn check_list_user_groups(req: &ListUserGroupsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists the groups that a user is in: for those who may read all groups, and for the user.
///
/// # Errors
/// `NOT_FOUND` for a user who isn't there; `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_user_groups(
    rd: &Read,
    proof: Proof,
    req: ListUserGroupsRequest,
) -> Result<ListUserGroupsResponse> {
    let not_found = || Error::not_found(USER, req.parent.clone());
    let Some(Name::User(_, id)) = Name::parse(&req.parent) else {
        return Err(not_found());
    };
    let person = user::find(rd.db(), proof.reach()?, id)
        .await?
        .ok_or_else(not_found)?;
    // All of them are of the user's tenant. To say so would let SQLite look through all of its groups instead.
    let mine = group_member::Entity::find()
        .select_only()
        .column(group_member::Column::GroupId)
        .filter(group_member::Column::UserId.eq(person.id))
        .into_query();
    let select = Entity::find().filter(Column::Id.in_subquery(mine));
    let page = rd
        .list(&req, &LISTING, select, |row: Model| wire::group(&row))
        .await?;
    Ok(ListUserGroupsResponse {
        groups: page.items,
        next_page_token: page.next_page_token,
    })
}

pub(crate) fn check_list_group_members(req: &ListGroupMembersRequest, v: &mut Violations) {
    MEMBERS.check(req, v);
}

/// Lists who is in a group (GRP-5, GRP-6).
///
/// # Errors
/// `NOT_FOUND`; `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_group_members(
    rd: &Read,
    scope: TenantScope,
    req: ListGroupMembersRequest,
) -> Result<ListGroupMembersResponse> {
    let group = find(rd.db(), scope, &req.parent).await?;
    let prefix = tenant::find(rd.db(), scope).await?.domain_prefix;
    let page = rd
        .list(&req, &MEMBERS, in_group(group.id), |row: InGroup| {
            wire::group_member(rd.app(), &row, &prefix)
        })
        .await?;
    Ok(ListGroupMembersResponse {
        members: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Who is in a group, as `InGroup` has it.
fn in_group(group: Uuid) -> sea_orm::Select<group_member::Entity> {
    let mut select = group_member::Entity::find().filter(group_member::Column::GroupId.eq(group));
    let of_user = |column| Expr::col((user::Entity, column));
    let on = of_user(user::Column::Id).equals((group_member::Entity, group_member::Column::UserId));
    // All of them are there; so joined, queries of who is in the group alone needn't look at users.
    QueryTrait::query(&mut select).join(JoinType::LeftJoin, user::Entity, on);
    [
        user::Column::TenantId,
        user::Column::DisplayName,
        user::Column::UserName,
        user::Column::Kind,
        user::Column::State,
    ]
    .into_iter()
    .fold(select, |select, column| select.column(column))
}

/// Renames a group.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`, `DIRECTORY_SYNCHRONIZED`.
pub async fn update_group(
    tx: &mut Tx,
    scope: TenantScope,
    req: UpdateGroupRequest,
) -> Result<Group> {
    let UpdateGroupRequest {
        group,
        update_mask,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let new = group.ok_or_else(|| Error::field("group", "is required"))?;
    let fields = update::fields(update_mask.as_ref(), &new);
    let old = find(tx.db(), scope, &new.name).await?;
    update::check_etag(&etag, old.version)?;
    made_here(&old)?;
    let mut display_name = old.display_name.clone();
    for field in fields {
        match field {
            "display_name" => display_name.clone_from(&new.display_name),
            other => {
                return Err(Error::internal(format!(
                    "{other} is mutable, but nobody changes it"
                )));
            }
        }
    }
    let mut row = old.clone().into_active_model();
    row.display_name_fold = Set(fold(&display_name));
    row.display_name = Set(display_name);
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    grants::rename(tx, row.id, &row.display_name_fold).await?;
    tx.emit(
        Event::new("entente.directory.v1.GroupUpdated", name(&row)).change(
            "display_name",
            old.display_name,
            row.display_name.clone(),
        ),
    );
    Ok(wire::group(&row))
}

/// Puts users into a group; what that gives, the caller must be able to give (GRP-7).
///
/// # Errors
/// `NOT_FOUND` for a group or users who aren't there, `DIRECTORY_SYNCHRONIZED`, `CANNOT_GRANT_WHAT_YOU_LACK` naming the accounts.
pub async fn add_group_members(
    tx: &mut Tx,
    scope: TenantScope,
    req: AddGroupMembersRequest,
) -> Result<AddGroupMembersResponse> {
    let AddGroupMembersRequest {
        parent,
        users,
        request_id: _,
        validate_only: _,
    } = req;
    let group = find(tx.db(), scope, &parent).await?;
    made_here(&group)?;
    let users = users_of(tx, scope, &users, "users").await?;
    grants::give_by_groups(tx, &[group.id]).await?;
    join(tx, &group, &users).await?;
    Ok(AddGroupMembersResponse {
        members: among(tx, scope, &group, &users).await?,
    })
}

/// Puts users into groups that were just added to an account, as whoever adds them may (GRP-1, GRP-7).
///
/// # Errors
/// As those of `add_group_members`.
pub(crate) async fn fill(
    tx: &mut Tx,
    scope: TenantScope,
    groups: &[String],
    users: &[String],
) -> Result<()> {
    let rows = find_all(tx, scope, groups, "principals").await?;
    let users = users_of(tx, scope, users, "group_users").await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    grants::give_by_groups(tx, &ids).await?;
    for row in &rows {
        join(tx, row, &users).await?;
    }
    Ok(())
}

/// Puts a new user into groups of its tenant, as whoever makes it may (USR-1, GRP-7).
///
/// # Errors
/// As those of `add_group_members`.
pub(super) async fn join_all(
    tx: &mut Tx,
    scope: TenantScope,
    user: Uuid,
    groups: &[String],
) -> Result<()> {
    if groups.is_empty() {
        return Ok(());
    }
    let rows = find_all(tx, scope, groups, "groups").await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    grants::give_by_groups(tx, &ids).await?;
    for row in &rows {
        join(tx, row, &[user]).await?;
    }
    Ok(())
}

async fn join(tx: &mut Tx, group: &Model, users: &[Uuid]) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let joined = grants::join_group(tx, principal(group), users).await?;
    tell_members(tx, group, "entente.directory.v1.GroupMembersAdded", &joined).await?;
    for (scope, grant) in grants::all_of(tx.db(), group.id).await? {
        let set = grants::Set::of_grant(&grant);
        let gifts: Vec<_> = joined
            .iter()
            .map(|user| (person(group.tenant_id, *user), set))
            .collect();
        asleep::tell_of_gifts(tx, scope, &gifts).await?;
    }
    Ok(())
}

/// A user of a tenant, as principal.
fn person(tenant: Uuid, id: Uuid) -> Principal {
    Principal {
        kind: Kind::User,
        id,
        tenant,
    }
}

/// Tells who joined or left, in the tenant and on the accounts where that gives or takes something.
async fn tell_members(
    tx: &mut Tx,
    group: &Model,
    kind: &'static str,
    users: &[Uuid],
) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = users
        .iter()
        .map(|user| Name::User(group.tenant_id, *user).to_string())
        .collect();
    let mut event = Event::new(kind, name(group)).with("users", names);
    for (scope, _) in grants::all_of(tx.db(), group.id).await? {
        event = event.also_in(scope);
    }
    tx.emit(users.iter().fold(event, |event, user| event.touches(*user)));
    Ok(())
}

/// Takes users out of a group (GRP-3).
///
/// # Errors
/// `NOT_FOUND` for a group or users who aren't there, or not in it; `DIRECTORY_SYNCHRONIZED`, `LAST_MANAGER`.
pub async fn remove_group_members(
    tx: &mut Tx,
    scope: TenantScope,
    req: RemoveGroupMembersRequest,
) -> Result<RemoveGroupMembersResponse> {
    let RemoveGroupMembersRequest {
        parent,
        users: names,
        request_id: _,
        validate_only: _,
    } = req;
    let group = find(tx.db(), scope, &parent).await?;
    made_here(&group)?;
    let users = users_of(tx, scope, &names, "users").await?;
    let resources = among(tx, scope, &group, &users).await?;
    if resources.len() < users.len() {
        let is_there = |name: &String| resources.iter().any(|member| member.user == *name);
        let missing = names.into_iter().enumerate().filter(|(_, n)| !is_there(n));
        return Err(Error::none_found(USER, "users", missing.collect()));
    }
    let left = grants::leave_group(tx, principal(&group), &users).await?;
    tell_members(
        tx,
        &group,
        "entente.directory.v1.GroupMembersRemoved",
        &left,
    )
    .await?;
    let by_group = grants::all_of(tx.db(), group.id).await?;
    let by_group = by_group
        .into_iter()
        .filter_map(|(on, grant)| lost(on, &grant));
    let losses = Losses {
        by_group: by_group.collect(),
        ..Losses::default()
    };
    Ok(RemoveGroupMembersResponse {
        resources,
        losses: Some(losses),
    })
}

/// Deletes groups, from their tenant and from every account (GRP-4).
///
/// # Errors
/// `NOT_FOUND`, `DIRECTORY_SYNCHRONIZED`, `LAST_MANAGER`.
pub async fn delete_groups(
    tx: &mut Tx,
    scope: TenantScope,
    req: DeleteGroupsRequest,
) -> Result<DeleteGroupsResponse> {
    let DeleteGroupsRequest {
        parent: _,
        names,
        request_id: _,
        validate_only: _,
    } = req;
    let rows = find_all(tx, scope, &names, "names").await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    grants::lock_scopes_of(tx, &ids).await?;
    let mut losses = Losses::default();
    for row in &rows {
        for (on, grant) in grants::all_of(tx.db(), row.id).await? {
            grants::remove(tx, on, row.id).await?;
            losses.memberships.extend(lost(on, &grant));
            if let ScopeKey::Account(account) = on {
                let held = grants::Set::of_grant(&grant);
                tx.emit(user_change::member_removed(account, row.id, held));
            }
        }
        let count = grants::empty_group(tx, row.id).await?;
        losses.group_member_count += i64::try_from(count).unwrap_or(i64::MAX);
        Entity::delete_by_id(row.id).exec(tx.db()).await?;
        tx.emit(
            Event::new("entente.directory.v1.GroupDeleted", name(row))
                .change(
                    "display_name",
                    row.display_name.clone(),
                    serde_json::Value::Null,
                )
                .touches(row.id),
        );
    }
    Ok(DeleteGroupsResponse {
        resources: rows.iter().map(wire::group).collect(),
        losses: Some(losses),
    })
}

/// What a group holds on an account, as its membership there.
fn lost(on: ScopeKey, grant: &grants::Grant) -> Option<LostMembership> {
    let ScopeKey::Account(account) = on else {
        return None;
    };
    Some(LostMembership {
        member: Name::Member(account, grant.principal_id).to_string(),
        rights: Some(grants::Set::of_grant(grant).to_rights()),
    })
}

/// The principal of a group's row.
fn principal(group: &Model) -> Principal {
    Principal {
        kind: Kind::Group,
        id: group.id,
        tenant: group.tenant_id,
    }
}

fn name(group: &Model) -> Name {
    principal(group).resource()
}

/// What a local directory filled is changed there (TEN-5).
fn made_here(group: &Model) -> Result<()> {
    if group.external_id.is_empty() {
        Ok(())
    } else {
        Err(synchronized(name(group)))
    }
}

fn synchronized(what: Name) -> Error {
    Error::precondition(Reason::DirectorySynchronized).with("resource", what.to_string())
}

/// The group of a name that lies in the tenant proven.
async fn find<C: ConnectionTrait>(db: &C, scope: TenantScope, name: &str) -> Result<Model> {
    let not_found = || Error::not_found(GROUP, name);
    match Name::parse(name) {
        Some(Name::Group(_, id)) => group::find(db, scope, id).await?.ok_or_else(not_found),
        _ => Err(not_found()),
    }
}

/// The groups of these names, in their order, all to be changed here.
async fn find_all(
    tx: &Tx,
    scope: TenantScope,
    names: &[String],
    field: &str,
) -> Result<Vec<Model>> {
    let mut rows = Vec::with_capacity(names.len());
    let mut missing = Vec::new();
    for (i, text) in names.iter().enumerate() {
        match find(tx.db(), scope, text).await {
            Ok(row) => rows.push(row),
            Err(error) if error.reason() == Reason::ResourceNotFound => {
                missing.push((i, text.clone()));
            }
            Err(error) => return Err(error),
        }
    }
    if !missing.is_empty() {
        return Err(Error::none_found(GROUP, field, missing));
    }
    for row in &rows {
        made_here(row)?;
    }
    Ok(rows)
}

async fn reload(tx: &Tx, id: Uuid) -> Result<Model> {
    Entity::find_by_id(id)
        .one(tx.db())
        .await?
        .ok_or_else(|| Error::internal("a group vanished within its transaction"))
}

#[derive(FromQueryResult)]
struct Known {
    id: Uuid,
    external_id: String,
}

/// The users of these names, in their order: of the tenant, not deleted, and not those of a local directory, which alone groups them
/// (TEN-5).
async fn users_of(tx: &Tx, scope: TenantScope, names: &[String], field: &str) -> Result<Vec<Uuid>> {
    let ids: Vec<Uuid> = names
        .iter()
        .map(|name| Name::parse(name).map_or_else(Uuid::nil, |name| name.id()))
        .collect();
    let sql = format!(
        "SELECT id, external_id FROM users WHERE tenant_id = $1 AND state <> $2 AND id IN ({})",
        sql::in_ids(tx.db(), 3)
    );
    let values: [Value; 3] = [scope.id().into(), DELETED.into(), sql::ids(&ids)];
    let known = sql::all::<Known, _>(tx.db(), sql, values).await?;
    let missing: Vec<_> = names
        .iter()
        .enumerate()
        .filter(|(i, _)| known.iter().all(|user| user.id != ids[*i]))
        .map(|(i, name)| (i, name.clone()))
        .collect();
    if !missing.is_empty() {
        return Err(Error::none_found(USER, field, missing));
    }
    match known.iter().find(|user| !user.external_id.is_empty()) {
        Some(user) => Err(synchronized(Name::User(scope.id(), user.id))),
        None => Ok(ids),
    }
}

/// Those of these users who are in a group, in their order.
async fn among(
    tx: &Tx,
    scope: TenantScope,
    group: &Model,
    users: &[Uuid],
) -> Result<Vec<GroupMember>> {
    let prefix = tenant::find(tx.db(), scope).await?.domain_prefix;
    let rows = in_group(group.id)
        .filter(group_member::Column::UserId.is_in(users.iter().copied()))
        .into_model::<InGroup>()
        .all(tx.db())
        .await?;
    let mut rows: BTreeMap<Uuid, InGroup> =
        rows.into_iter().map(|row| (row.user_id, row)).collect();
    Ok(users
        .iter()
        .filter_map(|user| rows.remove(user))
        .map(|row| wire::group_member(tx.app(), &row, &prefix))
        .collect())
}
