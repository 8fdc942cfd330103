//! Members of accounts, and their tenants (USR-4, USR-5, ROL-4, ROL-7, ROL-9, TEN-3, TEN-4, GRP-1, APP-1).

use entente::proto::account::{
    AddMembersRequest, AssociateTenantRequest, DropRolesRequest, GrantFinanceRequest,
    LeaveAccountRequest, Member, RemoveMembersRequest, RemoveTenantRequest, RestoreManagerRequest,
    RevokeFinanceRequest, UpdateMemberRequest, UpdateMembersRequest,
};
use tonic::Status;

use super::{
    Reasons, Rng, Verdict, check,
    doors::{Made, nothing},
    draw::{Draw, some_rights},
    state::{By, Held, Kind, Model},
    unless,
    world::{World, id_of, on_wire},
};
use crate::harness::Caller;

#[derive(Clone, Debug)]
pub enum Step {
    /// Account, whom, with what, and who is put into these groups on the way.
    Add(usize, Vec<usize>, Held, Vec<usize>),
    Update(usize, Vec<(usize, Held)>),
    Remove(usize, Vec<usize>, bool),
    Drop(usize, Held),
    Leave(usize),
    GrantFinance(usize, usize),
    RevokeFinance(usize, usize),
    RestoreManager(usize, usize),
    /// Account, and whose token.
    Associate(usize, usize),
    Dissociate(usize, usize),
}

/// Whoever is a member, or the refusal.
fn found(model: &Model, account: usize, who: usize) -> Result<Held, Reasons> {
    let held = model.members.get(&(account, who)).cloned();
    held.ok_or_else(|| Reasons::from(["RESOURCE_NOT_FOUND"]))
}

/// Ownership is handed on, never taken or dropped as a role (ACC-20).
fn keeps(old: &Held, new: &Held) -> Result<(), Reasons> {
    let lost = old.roles.contains("OWNER") && !new.roles.contains("OWNER");
    unless(!lost, "OWNS_ACCOUNT")
}

pub fn judge(by: By<'_>, step: &Step) -> Verdict {
    let mut next = by.begin()?;
    let (now, table, caller) = (by.model, by.table, by.caller);
    match step {
        Step::Add(account, targets, held, users) => {
            if let Err(refused) = by.on_account(*account, "users.assign") {
                for target in targets {
                    by.over(*target, "users.create")
                        .map_err(|_| refused.clone())?;
                }
                let is_user =
                    |p: &usize| matches!(now.principals[*p].kind, Kind::Member | Kind::Guest);
                let plain = *held == Held::default() && targets.iter().all(is_user);
                unless(plain, "PERMISSION_MISSING")?;
            }
            for user in users {
                by.over(*user, "groups.manage")?;
            }
            for target in targets {
                let tenant = now.principals[*target].tenant;
                let mut faults = Reasons::new();
                if tenant != by.tenant() {
                    faults.insert("OTHER_TENANT");
                }
                if !now.associated.contains(&(*account, tenant)) || !now.can_act(*target) {
                    faults.insert("NOT_IN_ASSOCIATED_TENANT");
                }
                if now.members.contains_key(&(*account, *target)) {
                    faults.insert("ALREADY_MEMBER");
                }
                check(faults)?;
                next.give(table, caller, "AddMembers", (*account, *target), held)?;
            }
            if !users.is_empty() {
                super::groups::own(now, targets)?;
                super::groups::users(now, users)?;
            }
            for group in targets.iter().filter(|_| !users.is_empty()) {
                by.give_by(*group)?;
                next.may_join(*group, users)?;
                next.principals[*group].inside.extend(users);
            }
        }
        Step::Update(account, changes) => {
            by.on_account(*account, "users.assign")?;
            let (managers, others): (Vec<_>, Vec<_>) = changes
                .iter()
                .partition(|(_, held)| held.roles.contains("MANAGER"));
            for (target, held) in managers.into_iter().chain(others) {
                let old = found(&next, *account, *target)?;
                let given = next.give(table, caller, "UpdateMembers", (*account, *target), held);
                let mut faults = given.err().unwrap_or_default();
                if !held.is_within(&old) {
                    faults.extend(now.manages(*account).err().unwrap_or_default());
                }
                faults.extend(keeps(&old, held).err().unwrap_or_default());
                check(faults)?;
            }
        }
        Step::Remove(account, targets, delete) => {
            by.on_account(*account, "members.remove")?;
            let mut faults = Reasons::new();
            for target in targets {
                let held = found(now, *account, *target)?;
                faults.extend(keeps(&held, &Held::default()).err().unwrap_or_default());
            }
            for target in targets.iter().filter(|_| *delete) {
                let p = &now.principals[*target];
                if by.over(*target, "users.delete").is_err() {
                    faults.insert("PERMISSION_MISSING");
                } else if p.through != Some(*account) || !p.is_person() {
                    faults.insert("NOT_CREATED_HERE");
                }
            }
            check(faults)?;
            for target in targets {
                next.take(*account, *target)?;
            }
            for target in targets.iter().filter(|_| *delete) {
                super::users::delete(&mut next, *target)?;
            }
        }
        Step::Drop(account, dropped) => {
            let old = now.members.get(&(*account, caller)).cloned();
            let old = old.ok_or_else(|| Reasons::from(["PERMISSION_MISSING"]))?;
            let new = Held {
                roles: old.roles.difference(&dropped.roles).cloned().collect(),
                single: old.single.difference(&dropped.single).cloned().collect(),
            };
            keeps(&old, &new)?;
            next.members.insert((*account, caller), new);
            next.keeps_manager(now, *account)?;
        }
        Step::Leave(account) => {
            let old = now.members.get(&(*account, caller));
            let old = old.ok_or_else(|| Reasons::from(["PERMISSION_MISSING"]))?;
            keeps(old, &Held::default())?;
            next.take(*account, caller)?;
        }
        Step::GrantFinance(account, target) => {
            by.on_account(*account, "finance.grant")?;
            let mut held = found(now, *account, *target)?;
            held.roles.insert("FINANCE".to_owned());
            next.give(table, caller, "GrantFinance", (*account, *target), &held)?;
        }
        Step::RevokeFinance(account, target) => {
            by.on_account(*account, "finance.grant")?;
            let mut held = found(now, *account, *target)?;
            held.roles.remove("FINANCE");
            next.give(table, caller, "RevokeFinance", (*account, *target), &held)?;
        }
        Step::RestoreManager(account, target) => {
            by.on_account(*account, "members.restore_manager")?;
            let mut held = found(now, *account, *target)?;
            let mut faults = Reasons::new();
            if now.holders(*account, "MANAGER") > 0 {
                faults.insert("MANAGER_EXISTS");
            }
            let is_user = matches!(now.principals[*target].kind, Kind::Member | Kind::Guest);
            if !is_user || !now.counts(*target) {
                faults.insert("NOT_ASSIGNABLE");
            }
            check(faults)?;
            held.roles.insert("MANAGER".to_owned());
            next.give(table, caller, "RestoreManager", (*account, *target), &held)?;
        }
        Step::Associate(account, admin) => {
            by.on_account(*account, "tenants.manage")?;
            let tenant = now.principals[*admin].tenant;
            unless(now.signs_in(*admin), "TOKEN_INVALID")?;
            let may = now.on_tenant(table, *admin, tenant);
            unless(may.contains("tenant.update"), "PERMISSION_MISSING")?;
            // Who lends to a partner is none of its own tenants (REL-8).
            unless(!now.lends(tenant, *account), "SELF_RELATIONSHIP")?;
            let new = next.associated.insert((*account, tenant));
            unless(new, "ALREADY_ASSOCIATED")?;
        }
        Step::Dissociate(account, tenant) => {
            by.on_account(*account, "tenants.manage")?;
            let there = next.associated.remove(&(*account, *tenant));
            unless(there, "RESOURCE_NOT_FOUND")?;
            let mut faults = Reasons::new();
            if by.tenant() == *tenant {
                faults.insert("SIGNED_IN_THROUGH_TENANT");
            }
            let left = next.associated.iter().any(|(a, _)| a == account);
            // The owner stays, who then is all that there is.
            if !left && by.on_account(*account, "tenants.remove_last").is_err() {
                faults.insert("LAST_TENANT");
            }
            check(faults)?;
            let of_tenant = |p: &usize| now.principals[*p].tenant == *tenant;
            next.members
                .retain(|(a, p), _| a != account || !of_tenant(p));
            next.unassign_tenant(*account, *tenant);
            if left {
                next.keeps_manager(now, *account)?;
            }
        }
    }
    Ok(next)
}

pub fn draw(draw: &Draw<'_>, rng: &mut Rng) -> Step {
    let account = rng.pick(draw.accounts);
    let members = draw.members_of(account);
    let inside = if members.is_empty() || rng.chance(10) {
        &draw.all
    } else {
        &members
    };
    let near = draw.near(rng);
    match rng.below(24) {
        0..=6 => {
            // Mostly somebody who isn't in it yet.
            let new: Vec<usize> = near
                .iter()
                .copied()
                .filter(|p| !members.contains(p) && draw.model.can_act(*p))
                .collect();
            let from = if new.is_empty() || rng.chance(15) {
                near
            } else {
                &new
            };
            let targets = rng.some(from, 2);
            let group = |p: &usize| draw.model.principals[*p].kind == Kind::Group;
            let users = if targets.iter().all(group) && rng.chance(50) {
                let tenant = draw.model.principals[targets[0]].tenant;
                rng.some(&draw.users_of(tenant), 2)
            } else {
                Vec::new()
            };
            Step::Add(account, targets, some_rights(rng), users)
        }
        7..=12 => {
            let chosen = rng.some(inside, 3);
            let changes = chosen.into_iter().map(|p| (p, some_rights(rng)));
            Step::Update(account, changes.collect())
        }
        13 | 14 => Step::Remove(account, rng.some(inside, 2), rng.chance(30)),
        15 => Step::Drop(account, some_rights(rng)),
        16 => Step::Leave(account),
        17 => Step::GrantFinance(account, rng.pick(inside)),
        18 => Step::RevokeFinance(account, rng.pick(inside)),
        19 if rng.chance(20) => Step::RestoreManager(account, rng.pick(inside)),
        19..=21 => {
            // Not of the last tenant, so that there is one to delete.
            let last = draw.tenants.last().copied();
            let admins: Vec<usize> = draw
                .all
                .iter()
                .copied()
                .filter(|p| draw.model.principals[*p].roles.contains("GLOBAL_ADMIN"))
                .filter(|p| Some(draw.model.principals[*p].tenant) != last)
                .collect();
            let people: Vec<usize> = draw
                .all
                .iter()
                .copied()
                .filter(|p| draw.model.principals[*p].kind != Kind::Group)
                .collect();
            let from = if admins.is_empty() || rng.chance(5) {
                &people
            } else {
                &admins
            };
            Step::Associate(account, rng.pick(from))
        }
        _ => {
            // At times one whose groups have something to lose.
            let assigned = draw.model.tenants_of_holders(account);
            let from = if assigned.is_empty() || rng.chance(50) {
                draw.tenants
            } else {
                &assigned
            };
            Step::Dissociate(account, rng.pick(from))
        }
    }
}

pub async fn call(
    world: &mut World<'_>,
    caller: &Caller,
    by: usize,
    step: &Step,
) -> Result<Made, Status> {
    let account = |a: &usize| world.account_names[*a].clone();
    let member = |a: &usize, p: usize| world.member(*a, p);
    let mut members = caller.members();
    match step {
        Step::Add(a, targets, held, users) => {
            let request = AddMembersRequest {
                parent: account(a),
                principals: targets.iter().map(|p| world.name(*p)).collect(),
                rights: on_wire(held),
                group_users: users.iter().map(|p| world.name(*p)).collect(),
                ..AddMembersRequest::default()
            };
            members.add_members(request).await.map(nothing)
        }
        Step::Update(a, changes) => {
            let change = |(p, held): &(usize, Held)| UpdateMemberRequest {
                member: Some(Member {
                    name: member(a, *p),
                    rights: on_wire(held),
                    ..Member::default()
                }),
            };
            let request = UpdateMembersRequest {
                parent: account(a),
                requests: changes.iter().map(change).collect(),
                ..UpdateMembersRequest::default()
            };
            members.update_members(request).await.map(nothing)
        }
        Step::Remove(a, targets, delete_from_directory) => {
            let request = RemoveMembersRequest {
                parent: account(a),
                names: targets.iter().map(|p| member(a, *p)).collect(),
                delete_from_directory: *delete_from_directory,
                ..RemoveMembersRequest::default()
            };
            members.remove_members(request).await.map(nothing)
        }
        Step::Drop(a, held) => {
            let request = DropRolesRequest {
                name: member(a, by),
                rights: on_wire(held),
                ..DropRolesRequest::default()
            };
            members.drop_roles(request).await.map(nothing)
        }
        Step::Leave(a) => {
            let request = LeaveAccountRequest {
                name: member(a, by),
                ..LeaveAccountRequest::default()
            };
            members.leave_account(request).await.map(nothing)
        }
        Step::GrantFinance(a, p) => {
            let request = GrantFinanceRequest {
                name: member(a, *p),
                ..GrantFinanceRequest::default()
            };
            members.grant_finance(request).await.map(nothing)
        }
        Step::RevokeFinance(a, p) => {
            let request = RevokeFinanceRequest {
                name: member(a, *p),
                ..RevokeFinanceRequest::default()
            };
            members.revoke_finance(request).await.map(nothing)
        }
        Step::RestoreManager(a, p) => {
            let request = RestoreManagerRequest {
                name: member(a, *p),
                ..RestoreManagerRequest::default()
            };
            members.restore_manager(request).await.map(nothing)
        }
        Step::Associate(a, admin) => {
            let parent = account(a);
            let admin = world.caller(*admin).await;
            let request = AssociateTenantRequest {
                parent,
                tenant_admin_token: admin.and_then(|c| c.token).unwrap_or_default(),
                ..AssociateTenantRequest::default()
            };
            let done = caller.associations().associate_tenant(request).await;
            done.map(nothing)
        }
        Step::Dissociate(a, tenant) => {
            let tenant = id_of(&world.tenant_names[*tenant]);
            let request = RemoveTenantRequest {
                name: format!("{}/tenantAssociations/{tenant}", account(a)),
                ..RemoveTenantRequest::default()
            };
            let done = caller.associations().remove_tenant(request).await;
            done.map(nothing)
        }
    }
}

/// Whether a step can be taken at all: a second token has to have been there.
pub fn possible(world: &World<'_>, step: &Step) -> bool {
    match step {
        Step::Associate(_, admin) => world.model.signs_in(*admin) || world.has_token(*admin),
        Step::Drop(_, dropped) => *dropped != Held::default(),
        _ => true,
    }
}
