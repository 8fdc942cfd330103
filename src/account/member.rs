//! MemberService: who may work on an account (USR-4, USR-5, ROL-4, ROL-7, ROL-9).

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::{
    entity::member::{self, Column, Entity, Model},
    wire,
};
use crate::{
    access::{
        account_state,
        grants::{self, FINANCE, MANAGER, OWNER, Set},
        principal::{Kind as PrincipalKind, Principal},
        roles::{self, Permission},
        scope::{AccountScope, CallerScope, Proof},
    },
    app::{Read, Tx},
    check::{MOST_ITEMS_NAMED, Violations},
    directory::{self, asleep, search, user_change::add_losses},
    error::{Error, Reason, Result},
    names::Name,
    proto::{
        account::{
            AddMembersRequest, AddMembersResponse, Candidate, DropRolesRequest, GetMemberRequest,
            GrantFinanceRequest, LeaveAccountRequest, LeaveAccountResponse, ListMembersRequest,
            ListMembersResponse, Member, MemberKind, RemoveMembersRequest, RemoveMembersResponse,
            RestoreManagerRequest, RevokeFinanceRequest, SearchCandidatesRequest,
            SearchCandidatesResponse, UpdateMembersRequest, UpdateMembersResponse,
        },
        directory::{Losses, LostMembership},
    },
    store::{
        filter::{Field, Kind, OrderField, Pairs},
        list::Listing,
        outbox::Event,
        scope_key::ScopeKey,
        update,
    },
};

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "display_name",
            ("members", "display_name_fold"),
            Kind::Text(search::PRINCIPALS),
        ),
        Field::new(
            "user_name",
            ("members", "user_name_fold"),
            Kind::Text(search::USER_NAMES),
        ),
        Field::new(
            "roles",
            ("members", "effective_roles"),
            Kind::Flags(&[
                ("MANAGER", 2),
                ("DEVELOPER", 4),
                ("FINANCE", 8),
                ("ADMIN_AGENT", 16),
                ("HELPDESK_AGENT", 32),
                ("OWNER", 64),
            ]),
        ),
        Field::new(
            "kind",
            ("members", "principal_kind"),
            Kind::Enum(&[("USER", 1), ("APPLICATION", 2), ("GROUP", 4)]),
        ),
        Field::new(
            "tenant",
            ("members", "tenant_id"),
            Kind::Id { parse: tenant_id },
        ),
        Field::new(
            "active",
            ("members", "active"),
            Kind::Enum(&[("true", 1), ("false", 0)]),
        ),
        Field::new("group", ("members", "principal_id"), Kind::Paired(GROUPS)),
        Field::new("create_time", ("members", "create_time"), Kind::TIME),
    ],
    orders: &[
        OrderField::new("create_time", ("members", "create_time")),
        OrderField::new("display_name", ("members", "display_name_fold")),
    ],
    id: ("members", "principal_id"),
};

/// Groups into which one call puts users on the way: each joins all.
const MOST_GROUPS_FILLED: usize = 20;

/// Groups that a member is told of for each of its rights.
const MOST_GROUPS_NAMED: usize = 50;

/// The groups of members, as far as they are members too: who is in another group is its tenant's business.
const GROUPS: Pairs = Pairs {
    table: "member_groups",
    row: "user_id",
    with: "group_id",
    within: Some(("account_id", ("members", "account_id"))),
    parse: directory::user::group_id,
};

fn tenant_id(name: &str) -> Option<Uuid> {
    match Name::parse(name) {
        Some(Name::Tenant(id)) => Some(id),
        _ => None,
    }
}

pub(crate) fn check_add_members(req: &AddMembersRequest, v: &mut Violations) {
    for (i, name) in req.principals.iter().enumerate().take(MOST_ITEMS_NAMED) {
        if Name::parse(name).and_then(Principal::of).is_none() {
            v.also(
                format!("principals[{i}]"),
                "is no name of a user, group or application",
            );
        } else if !req.group_users.is_empty() && !is_group(name) {
            v.also(format!("principals[{i}]"), "is no group to put users into");
        }
    }
    if !req.group_users.is_empty() && req.principals.len() > MOST_GROUPS_FILLED {
        v.also(
            "principals",
            format!("takes at most {MOST_GROUPS_FILLED} groups to put users into"),
        );
    }
    Set::check(req.rights.as_ref(), "rights", v);
}

fn is_group(name: &str) -> bool {
    matches!(Name::parse(name), Some(Name::Group(..)))
}

/// Adds principals of one associated tenant with one same set of rights, all or nothing (USR-4). By whoever may give rights, or, users
/// without rights, by a global admin of their tenant. Users named beside are put into the groups added (GRP-1).
///
/// # Errors
/// `OTHER_TENANT`, `NOT_IN_ASSOCIATED_TENANT`, `ALREADY_MEMBER`, `CANNOT_GRANT_WHAT_YOU_LACK`; for users to put into groups those of
/// AddGroupMembers.
pub async fn add_members(
    tx: &mut Tx,
    proof: Proof,
    req: AddMembersRequest,
) -> Result<AddMembersResponse> {
    let AddMembersRequest {
        parent,
        principals,
        rights,
        group_users,
        request_id: _,
        validate_only: _,
    } = req;
    let Some(Name::Account(account)) = Name::parse(&parent) else {
        return Err(Error::field("parent", "is no account"));
    };
    let set = Set::of_request(rights.as_ref());
    let only_users = principals
        .iter()
        .all(|name| matches!(Name::parse(name), Some(Name::User(..))));
    if proof.alternative() == 1 && (set != Set::default() || !only_users) {
        // The second way in is for users without rights (USR-4); for all else users.assign is needed.
        tx.demand(Permission::UsersAssign, Name::Account(account))
            .await?;
    }
    let scope = ScopeKey::Account(account);
    tx.lock([scope]).await?;
    if proof.alternative() == 1 && is_callers_account(tx, account).await? {
        // The account itself wasn't proven.
        tx.demand_of_account(account).await?;
    }
    let caller_tenant = tx.caller().who.map(|w| w.principal.tenant);
    let mut added = Vec::with_capacity(principals.len());
    let mut gifts = Vec::with_capacity(principals.len());
    for name in &principals {
        let principal = Name::parse(name)
            .and_then(Principal::of)
            .ok_or_else(|| Error::internal("a principal was not checked"))?;
        if caller_tenant != Some(principal.tenant) {
            return Err(Error::refused(Reason::OtherTenant)
                .with("tenant", Name::Tenant(principal.tenant).to_string()));
        }
        let stranger =
            || Error::precondition(Reason::NotInAssociatedTenant).with("principal", name.clone());
        if !grants::is_associated(tx.db(), account, principal.tenant).await?
            || grants::state(tx.db(), principal, tx.now()).await?.is_none()
        {
            return Err(stranger());
        }
        if grants::find(tx.db(), scope, principal.id).await?.is_some() {
            return Err(
                Error::exists(Reason::AlreadyMember, "principals", "is a member already")
                    .with("principal", name.clone()),
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
        added.push(principal.id);
        gifts.push((principal, set));
    }
    asleep::tell_of_gifts(tx, scope, &gifts).await?;
    if !group_users.is_empty() {
        directory::group::fill(tx, proof.tenant()?, &principals, &group_users).await?;
    }
    Ok(AddMembersResponse {
        members: all_to_wire(tx, account, &added).await?,
    })
}

/// Whether the tenant that the caller is signed in through is associated with an account: to others it tells nothing of itself.
async fn is_callers_account(tx: &Tx, account: Uuid) -> Result<bool> {
    match tx.caller().who {
        Some(who) => grants::is_associated(tx.db(), account, who.principal.tenant).await,
        None => Ok(false),
    }
}

/// Gives FINANCE to a person who is a member (ROL-4).
///
/// # Errors
/// `NOT_FOUND`, `NOT_ASSIGNABLE`, `ETAG_MISMATCH`.
pub async fn grant_finance(
    tx: &mut Tx,
    scope: AccountScope,
    req: GrantFinanceRequest,
) -> Result<Member> {
    let GrantFinanceRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    change_finance(tx, scope, &name, &etag, |roles| roles | FINANCE).await
}

/// Takes FINANCE from a member.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn revoke_finance(
    tx: &mut Tx,
    scope: AccountScope,
    req: RevokeFinanceRequest,
) -> Result<Member> {
    let RevokeFinanceRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    change_finance(tx, scope, &name, &etag, |roles| roles & !FINANCE).await
}

async fn change_finance(
    tx: &mut Tx,
    scope: AccountScope,
    name: &str,
    etag: &str,
    change: impl Fn(i64) -> i64,
) -> Result<Member> {
    let row = find(tx, scope, name).await?;
    update::check_etag(etag, row.version)?;
    let old = set_of(&row);
    let new = Set {
        roles: change(old.roles),
        single: old.single,
    };
    let gift = replace(tx, &row, new, grants::By::Caller).await?;
    asleep::tell_of_gifts(tx, ScopeKey::Account(scope.id()), &[gift]).await?;
    to_wire(tx, row.account_id, row.principal_id).await
}

pub(crate) fn check_drop_roles(req: &DropRolesRequest, v: &mut Violations) {
    Set::check(req.rights.as_ref(), "rights", v);
}

/// Drops roles or permissions of the caller's own (ROL-7).
///
/// # Errors
/// `LAST_MANAGER`, `ETAG_MISMATCH`; `PERMISSION_DENIED` to whoever is no member.
pub async fn drop_roles(tx: &mut Tx, scope: CallerScope, req: DropRolesRequest) -> Result<Member> {
    let DropRolesRequest {
        name,
        rights,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let row = find_own(tx, scope, &name).await?;
    update::check_etag(&etag, row.version)?;
    let dropped = Set::of_request(rights.as_ref());
    refuse_owner_itself(tx, row.account_id, dropped.roles & row.roles).await?;
    let old = set_of(&row);
    let new = Set {
        roles: old.roles & !dropped.roles,
        single: old.single.without(dropped.single),
    };
    replace(tx, &row, new, grants::By::Oneself).await?;
    to_wire(tx, row.account_id, row.principal_id).await
}

/// Ends the caller's own membership.
///
/// # Errors
/// `LAST_MANAGER`, `ETAG_MISMATCH`; `PERMISSION_DENIED` to whoever is no member.
pub async fn leave_account(
    tx: &mut Tx,
    scope: CallerScope,
    req: LeaveAccountRequest,
) -> Result<LeaveAccountResponse> {
    let LeaveAccountRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let row = find_own(tx, scope, &name).await?;
    update::check_etag(&etag, row.version)?;
    refuse_owner_itself(tx, row.account_id, row.roles).await?;
    let mut losses = Losses::default();
    let member = remove(tx, &row, &mut losses).await?;
    Ok(LeaveAccountResponse {
        resources: vec![member],
        losses: Some(losses),
    })
}

pub(crate) fn check_search_candidates(req: &SearchCandidatesRequest, v: &mut Violations) {
    directory::candidate::LISTING.check(req, v);
}

/// Searches the caller's own tenant for users, groups and applications to add: their names, and nothing else (ROL-8).
///
/// # Errors
/// `NOT_IN_ASSOCIATED_TENANT` if the caller's tenant isn't associated; `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn search_candidates(
    rd: &Read,
    scope: AccountScope,
    req: SearchCandidatesRequest,
) -> Result<SearchCandidatesResponse> {
    let tenant = rd
        .caller()
        .who
        .map(|w| w.principal.tenant)
        .unwrap_or_default();
    if !grants::is_associated(rd.db(), scope.id(), tenant).await? {
        return Err(Error::precondition(Reason::NotInAssociatedTenant)
            .with("principal", rd.caller().name()));
    }
    let mut page = directory::candidate::list(rd, tenant, &req, |candidate| Candidate {
        principal: candidate.principal.name(),
        display_name: candidate.display_name,
        user_name: candidate.user_name,
        member: false,
        kind: wire::member_kind(candidate.principal.kind) as i32,
    })
    .await?;
    let ids = page.items.iter().filter_map(id_of);
    let members = member::among(rd.db(), scope, ids).await?;
    for candidate in &mut page.items {
        candidate.member = id_of(candidate).is_some_and(|id| members.contains(&id));
    }
    Ok(SearchCandidatesResponse {
        candidates: page.items,
        next_page_token: page.next_page_token,
    })
}

fn id_of(candidate: &Candidate) -> Option<Uuid> {
    Name::parse(&candidate.principal).map(|name| name.id())
}

/// Gives a member.
///
/// # Errors
/// `NOT_FOUND` to those who may read members; `PERMISSION_DENIED` to whoever asks for itself and is none.
pub async fn get_member(rd: &Read, proof: Proof, req: GetMemberRequest) -> Result<Member> {
    let Some(Name::Member(account, id)) = Name::parse(&req.name) else {
        return Err(Error::field("name", "is no member"));
    };
    let row = match proof.account() {
        Ok(scope) => member::find(rd.db(), scope, id)
            .await?
            .ok_or_else(|| Error::not_found("entente.dev/Member", req.name))?,
        Err(_) => {
            let own = proof.caller()?.principal();
            let row = if own.id == id {
                member::find_in(rd.db(), account, id).await?
            } else {
                None
            };
            row.ok_or_else(|| Error::denied(Permission::MembersRead))?
        }
    };
    let mut members = [wire::member(rd.app(), &row)];
    add_groups(rd.db(), row.account_id, &mut members, MOST_GROUPS_NAMED).await?;
    let [member] = members;
    Ok(member)
}

pub(crate) fn check_list_members(req: &ListMembersRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists and searches members (USR-7).
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_members(
    rd: &Read,
    scope: AccountScope,
    req: ListMembersRequest,
) -> Result<ListMembersResponse> {
    let select = Entity::find().filter(Column::AccountId.eq(scope.id()));
    let found = rd.rows(&req, &LISTING, select).await?;
    let to_wire = |row: &Model| wire::member(rd.app(), row);
    let mut members: Vec<Member> = found.rows.iter().map(to_wire).collect();
    add_groups(rd.db(), scope.id(), &mut members, MOST_GROUPS_NAMED).await?;
    let page = found.page(members);
    Ok(ListMembersResponse {
        members: page.items,
        next_page_token: page.next_page_token,
    })
}

pub(crate) fn check_update_members(req: &UpdateMembersRequest, v: &mut Violations) {
    let mut seen = BTreeSet::new();
    for (i, request) in req.requests.iter().enumerate().take(MOST_ITEMS_NAMED) {
        let Some(member) = &request.member else {
            continue;
        };
        let field = format!("requests[{i}].member");
        if !seen.insert(&member.name) {
            v.also(format!("{field}.name"), "stands in the list before");
        }
        Set::check(member.rights.as_ref(), &format!("{field}.rights"), v);
    }
}

/// Replaces the rights of members, all or nothing.
///
/// # Errors
/// `NOT_FOUND`, `CANNOT_GRANT_WHAT_YOU_LACK`, `LAST_MANAGER`, `ETAG_MISMATCH`; `OWNS_ACCOUNT` for an owner who would be none.
pub async fn update_members(
    tx: &mut Tx,
    scope: AccountScope,
    req: UpdateMembersRequest,
) -> Result<UpdateMembersResponse> {
    let UpdateMembersRequest {
        parent: _,
        requests,
        request_id: _,
        validate_only: _,
    } = req;
    let mut changes = Vec::with_capacity(requests.len());
    for member in requests.into_iter().filter_map(|r| r.member) {
        let set = Set::of_request(member.rights.as_ref());
        changes.push((member.name, member.etag, set));
    }
    // What is given comes before what is taken, so that a manager can be replaced by another in one call.
    let mut order: Vec<usize> = (0..changes.len()).collect();
    order.sort_by_key(|i| changes[*i].2.roles & MANAGER == 0);
    let mut gifts = Vec::with_capacity(changes.len());
    for i in order {
        let (name, etag, new) = &changes[i];
        let row = find(tx, scope, name).await?;
        update::check_etag(etag, row.version)?;
        refuse_owner(row.account_id, row.roles & !new.roles)?;
        if !new.beyond(set_of(&row)).is_empty() {
            tx.demand_of_account(scope.id()).await?;
        }
        gifts.push(replace(tx, &row, *new, grants::By::Caller).await?);
    }
    asleep::tell_of_gifts(tx, ScopeKey::Account(scope.id()), &gifts).await?;
    let ids: Vec<Uuid> = changes
        .iter()
        .filter_map(|(name, ..)| Name::parse(name))
        .map(|name| name.id())
        .collect();
    Ok(UpdateMembersResponse {
        members: all_to_wire(tx, scope.id(), &ids).await?,
    })
}

/// Removes members, all or nothing; with `delete_from_directory` also deletes users that were made through this account (USR-5).
///
/// # Errors
/// `NOT_FOUND`, `NOT_CREATED_HERE`, `LAST_MANAGER`, `PERMISSION_DENIED` for the owner.
pub async fn remove_members(
    tx: &mut Tx,
    scope: AccountScope,
    req: RemoveMembersRequest,
) -> Result<RemoveMembersResponse> {
    let RemoveMembersRequest {
        parent: _,
        names,
        delete_from_directory,
        request_id: _,
        validate_only: _,
    } = req;
    let mut rows = Vec::with_capacity(names.len());
    for name in &names {
        rows.push(find(tx, scope, name).await?);
    }
    let mut losses = Losses::default();
    let mut resources = Vec::with_capacity(rows.len());
    for row in &rows {
        refuse_owner(row.account_id, row.roles)?;
        if delete_from_directory {
            may_delete(tx, row).await?;
        }
    }
    for row in &rows {
        resources.push(remove(tx, row, &mut losses).await?);
    }
    if delete_from_directory {
        for row in &rows {
            let lost = directory::user_state::delete_by_id(tx, row.principal_id).await?;
            add_losses(&mut losses, lost);
        }
    }
    Ok(RemoveMembersResponse {
        resources,
        losses: Some(losses),
    })
}

/// Deletion from the directory: a user made through this account, by a global admin of its tenant.
async fn may_delete(tx: &mut Tx, row: &Model) -> Result<()> {
    let name = principal(row).resource();
    tx.demand(Permission::UsersDelete, name).await?;
    let user = directory::user::summary(tx.db(), row.principal_id).await?;
    if user.is_none_or(|u| u.created_through_account != Some(row.account_id)) {
        return Err(Error::precondition(Reason::NotCreatedHere).with("principal", name.to_string()));
    }
    Ok(())
}

/// Makes a member manager where no active manager is left.
///
/// # Errors
/// `MANAGER_EXISTS`, `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn restore_manager(
    tx: &mut Tx,
    scope: AccountScope,
    req: RestoreManagerRequest,
) -> Result<Member> {
    let RestoreManagerRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let row = find(tx, scope, &name).await?;
    update::check_etag(&etag, row.version)?;
    if grants::somebody_holds(tx.db(), ScopeKey::Account(scope.id()), MANAGER, tx.now()).await? {
        return Err(Error::precondition(Reason::ManagerExists));
    }
    if row.principal_kind != PrincipalKind::User as i16
        || !grants::can_act(tx.db(), row.principal_id, tx.now()).await?
    {
        return Err(Error::precondition(Reason::NotAssignable)
            .with("lacking", "MANAGER by who isn't an active person"));
    }
    let old = set_of(&row);
    let new = Set {
        roles: old.roles | MANAGER,
        single: old.single,
    };
    let gift = replace(tx, &row, new, grants::By::Caller).await?;
    asleep::tell_of_gifts(tx, ScopeKey::Account(scope.id()), &[gift]).await?;
    to_wire(tx, row.account_id, row.principal_id).await
}

// ---- what several do

fn set_of(row: &Model) -> Set {
    Set {
        roles: row.roles,
        single: roles::Permissions::from_stored(&row.permissions),
    }
}

fn principal(row: &Model) -> Principal {
    Principal {
        kind: PrincipalKind::from_number(row.principal_kind).unwrap_or(PrincipalKind::User),
        id: row.principal_id,
        tenant: row.tenant_id,
    }
}

/// Ownership is handed on, not removed.
fn refuse_owner(account: Uuid, roles: i64) -> Result<()> {
    if roles & OWNER == 0 {
        return Ok(());
    }
    let account = Name::Account(account).to_string();
    Err(Error::precondition(Reason::OwnsAccount).with("account", account))
}

/// The same for the owner itself, who may go once the account is over and nobody could take it over.
async fn refuse_owner_itself(tx: &Tx, account: Uuid, roles: i64) -> Result<()> {
    if roles & OWNER != 0 && account_state::is_over(tx.db(), account).await? {
        return Ok(());
    }
    refuse_owner(account, roles)
}

async fn find(tx: &Tx, scope: AccountScope, name: &str) -> Result<Model> {
    let not_found = || Error::not_found("entente.dev/Member", name);
    match Name::parse(name) {
        Some(Name::Member(account, id)) if account == scope.id() => {
            member::find(tx.db(), scope, id)
                .await?
                .ok_or_else(not_found)
        }
        _ => Err(not_found()),
    }
}

/// The caller's own membership; whoever is no member hears the same as of an account that doesn't exist.
async fn find_own(tx: &mut Tx, scope: CallerScope, name: &str) -> Result<Model> {
    let denied = || Error::denied(Permission::AccountRead);
    let own = scope.principal().id;
    match Name::parse(name) {
        Some(Name::Member(account, id)) if id == own => {
            tx.lock([ScopeKey::Account(account)]).await?;
            member::find_in(tx.db(), account, own)
                .await?
                .ok_or_else(denied)
        }
        _ => Err(denied()),
    }
}

/// Replaces what a member holds; gives what it has got beyond before, and who that is.
async fn replace(tx: &mut Tx, row: &Model, new: Set, by: grants::By) -> Result<(Principal, Set)> {
    let scope = ScopeKey::Account(row.account_id);
    let (member, old) = (principal(row), set_of(row));
    let gift = (member, new.beyond(old));
    if new == old {
        return Ok(gift);
    }
    grants::set(tx, scope, member, new, by).await?;
    tx.emit(
        Event::new(
            "entente.account.v1.MemberUpdated",
            Name::Member(row.account_id, row.principal_id),
        )
        .change("rights", old.to_rights(), new.to_rights())
        .touches(row.principal_id),
    );
    Ok(gift)
}

async fn remove(tx: &mut Tx, row: &Model, losses: &mut Losses) -> Result<Member> {
    let resource = wire::member(tx.app(), row);
    let held = set_of(row);
    grants::remove(tx, ScopeKey::Account(row.account_id), row.principal_id).await?;
    losses.memberships.push(LostMembership {
        member: resource.name.clone(),
        rights: Some(held.to_rights()),
    });
    tx.emit(directory::user_change::member_removed(
        row.account_id,
        row.principal_id,
        held,
    ));
    Ok(resource)
}

async fn to_wire(tx: &Tx, account: Uuid, id: Uuid) -> Result<Member> {
    let mut members = all_to_wire(tx, account, &[id]).await?;
    members
        .pop()
        .ok_or_else(|| Error::internal("a member vanished within its transaction"))
}

/// Members of an account for the wire, in this order.
async fn all_to_wire(tx: &Tx, account: Uuid, ids: &[Uuid]) -> Result<Vec<Member>> {
    let mut members = Vec::with_capacity(ids.len());
    for id in ids {
        let row = member::find_in(tx.db(), account, *id)
            .await?
            .ok_or_else(|| Error::internal("a member vanished within its transaction"))?;
        members.push(wire::member(tx.app(), &row));
    }
    // Up to 500 in an answer that can't be cut: where the rights come from in full, lists tell.
    add_groups(tx.db(), account, &mut members, 1).await?;
    Ok(members)
}

/// Adds what groups give to the users among these members, all in one query.
async fn add_groups<C: ConnectionTrait>(
    db: &C,
    account: Uuid,
    members: &mut [Member],
    most_groups: usize,
) -> Result<()> {
    let id_of = |member: &Member| Name::parse(&member.name).map(|name| name.id());
    let places: BTreeMap<Uuid, usize> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.kind() == MemberKind::User)
        .filter_map(|(i, member)| Some((id_of(member)?, i)))
        .collect();
    if places.is_empty() {
        return Ok(());
    }
    let users: Vec<Uuid> = places.keys().copied().collect();
    let scope = ScopeKey::Account(account);
    for given in grants::given_by_groups(db, scope, &users, most_groups).await? {
        if let Some(member) = places.get(&given.user).and_then(|i| members.get_mut(*i)) {
            wire::add_given(member, account, &given);
        }
    }
    Ok(())
}
