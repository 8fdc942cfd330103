//! Groups and who is in them (GRP-2 to GRP-7, ROL-6, ROL-9, ROL-12).

use entente::proto::directory::{
    AddGroupMembersRequest, CreateGroupRequest, DeleteGroupsRequest, Group,
    RemoveGroupMembersRequest,
};
use tonic::Status;

use super::{
    Reasons, Rng, Verdict, check,
    doors::{Door, Made, nothing},
    draw::{Draw, some_rights},
    state::{By, Held, Kind, Life, Model, Principal},
    unless,
    world::{World, memberships_on_wire},
};
use crate::harness::Caller;

#[derive(Clone, Debug)]
pub enum Step {
    /// Tenant, who is in it, memberships.
    Create(usize, Vec<usize>, Vec<(usize, Held)>),
    Add(usize, Vec<usize>),
    Remove(usize, Vec<usize>),
    Delete(usize, Vec<usize>),
}

/// Groups that can be changed here.
pub fn own(model: &Model, groups: &[usize]) -> Result<(), Reasons> {
    let mut faults = Reasons::new();
    for group in groups.iter().map(|g| &model.principals[*g]) {
        if group.life != Life::Active {
            faults.insert("RESOURCE_NOT_FOUND");
        } else if group.external.is_some() {
            faults.insert("DIRECTORY_SYNCHRONIZED");
        }
    }
    check(faults)
}

/// Users that can be grouped here.
pub fn users(model: &Model, who: &[usize]) -> Result<(), Reasons> {
    let mut faults = Reasons::new();
    for user in who.iter().map(|p| &model.principals[*p]) {
        if user.life == Life::Deleted {
            faults.insert("RESOURCE_NOT_FOUND");
        }
        if user.external.is_some() {
            faults.insert("DIRECTORY_SYNCHRONIZED");
        }
    }
    check(faults)
}

/// Every account, since a group may be a member of all.
fn keep_managers(next: &Model, before: &Model) -> Result<(), Reasons> {
    for (account, _) in before.members.keys() {
        next.keeps_manager(before, *account)?;
    }
    Ok(())
}

pub fn judge(by: By<'_>, step: &Step) -> Verdict {
    let mut next = by.begin()?;
    let now = by.model;
    match step {
        Step::Create(tenant, inside, memberships) => {
            by.on_tenant(*tenant, "groups.manage")?;
            for (account, _) in memberships {
                by.on_account(*account, "users.assign")?;
            }
            unless(!now.tenants[*tenant].synchronized, "DIRECTORY_SYNCHRONIZED")?;
            users(now, inside)?;
            let group = next.principals.len();
            next.principals.push(Principal {
                inside: inside.iter().copied().collect(),
                ..Principal::new(Kind::Group, *tenant)
            });
            by.join(&mut next, "CreateGroup", group, memberships)?;
        }
        Step::Add(group, who) => {
            by.over(*group, "groups.manage")?;
            own(now, &[*group])?;
            users(now, who)?;
            by.give_by(*group)?;
            next.may_join(*group, who)?;
            next.principals[*group].inside.extend(who);
        }
        Step::Remove(group, who) => {
            by.over(*group, "groups.manage")?;
            own(now, &[*group])?;
            users(now, who)?;
            for user in who {
                let was_in = next.principals[*group].inside.remove(user);
                unless(was_in, "RESOURCE_NOT_FOUND")?;
            }
            keep_managers(&next, now)?;
        }
        Step::Delete(tenant, groups) => {
            by.on_tenant(*tenant, "groups.manage")?;
            own(now, groups)?;
            for group in groups {
                next.forget(*group);
            }
            keep_managers(&next, now)?;
        }
    }
    Ok(next)
}

pub fn draw(draw: &Draw<'_>, rng: &mut Rng) -> Step {
    let tenant = draw.tenant(rng);
    let groups = draw.of_kind(Kind::Group, tenant);
    let users = draw.users_of(tenant);
    if groups.is_empty() || (rng.chance(20) && draw.has_room()) {
        let memberships = if rng.chance(60) {
            vec![(rng.pick(draw.accounts), some_rights(rng))]
        } else {
            Vec::new()
        };
        return Step::Create(tenant, rng.some(&users, 3), memberships);
    }
    let group = rng.pick(&groups);
    let inside: Vec<usize> = draw.model.principals[group]
        .inside
        .iter()
        .copied()
        .collect();
    match rng.below(10) {
        0..=4 => Step::Add(group, rng.some(&users, 3)),
        5..=8 if !inside.is_empty() && rng.chance(90) => Step::Remove(group, rng.some(&inside, 2)),
        5..=8 => Step::Remove(group, rng.some(&users, 2)),
        _ => Step::Delete(tenant, rng.some(&groups, 2)),
    }
}

pub async fn call(world: &mut World<'_>, caller: &Caller, step: &Step) -> Result<Made, Status> {
    let mut groups = caller.groups();
    let names = |of: &[usize]| of.iter().map(|p| world.name(*p)).collect();
    match step {
        Step::Create(tenant, inside, memberships) => {
            let request = CreateGroupRequest {
                parent: world.tenant_names[*tenant].clone(),
                group: Some(Group {
                    display_name: "A group".to_owned(),
                    ..Group::default()
                }),
                members: names(inside),
                memberships: memberships_on_wire(world, memberships),
                ..CreateGroupRequest::default()
            };
            let made = groups.create_group(request).await?.into_inner();
            Ok(Made::of(Door::of(made.name)))
        }
        Step::Add(group, who) => {
            let request = AddGroupMembersRequest {
                parent: world.name(*group),
                users: names(who),
                ..AddGroupMembersRequest::default()
            };
            groups.add_group_members(request).await.map(nothing)
        }
        Step::Remove(group, who) => {
            let request = RemoveGroupMembersRequest {
                parent: world.name(*group),
                users: names(who),
                ..RemoveGroupMembersRequest::default()
            };
            groups.remove_group_members(request).await.map(nothing)
        }
        Step::Delete(tenant, these) => {
            let request = DeleteGroupsRequest {
                parent: world.tenant_names[*tenant].clone(),
                names: names(these),
                ..DeleteGroupsRequest::default()
            };
            groups.delete_groups(request).await.map(nothing)
        }
    }
}
