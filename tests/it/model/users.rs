//! Users of tenants, and credentials that others set (USR-1 to USR-8, PWD-5, ROL-9, ROL-13).

use std::collections::BTreeSet;

use entente::proto::directory::{
    AssignDirectoryRolesRequest, CreateUserRequest, DeleteUserRequest, DisableUserRequest,
    EnableUserRequest, ReplaceGlobalAdminRequest, ResetPasswordRequest, UndeleteUserRequest,
    UpdateUserRequest, WakeRightsRequest,
};
use tonic::Status;

use super::{
    Reasons, Rng, Verdict, Words, check,
    doors::{Door, Made, nothing},
    draw::{Draw, some_directory_roles, some_rights},
    state::{By, Held, Kind, Life, Model, NOWHERE, Password, Principal},
    unless,
    world::{World, directory_on_wire, memberships_on_wire},
};
use crate::{
    harness::{Caller, new_user},
    people::{mask, named},
};

#[derive(Clone, Debug)]
pub enum Step {
    Create(New),
    Roles(usize, Words),
    Disable(usize),
    Enable(usize),
    Delete(usize),
    Undelete(usize),
    Replace(usize, usize),
    Reset(usize),
    /// Another sets the recovery address.
    Contact(usize),
    /// On one account, or wherever it may be.
    Wake(usize, Option<usize>),
}

#[derive(Clone, Debug)]
pub struct New {
    pub tenant: usize,
    pub email: bool,
    pub roles: Words,
    pub groups: Vec<usize>,
    pub memberships: Vec<(usize, Held)>,
}

fn set_roles(by: &By<'_>, next: &mut Model, to: usize, new: &Words) -> Result<(), Reasons> {
    let before = next.clone();
    let p = &mut next.principals[to];
    let tenant = p.tenant;
    let mine = by.model.on_tenant(by.table, by.caller, tenant);
    let mut faults = Reasons::new();
    if new.contains("GLOBAL_ADMIN") {
        if p.kind == Kind::Guest {
            faults.insert("NOT_ASSIGNABLE");
        } else if !p.email {
            faults.insert("INVALID_FIELDS");
        }
    }
    // By a password that it was shown a partner would have what nobody lends (REL-22).
    if before.is_shown(to) && !new.is_subset(&p.roles) {
        faults.insert("NOT_ASSIGNABLE");
    }
    for role in p.roles.symmetric_difference(new) {
        if !by.table.role("tenant", role).is_subset(&mine) {
            faults.insert("CANNOT_GRANT_WHAT_YOU_LACK");
        }
    }
    check(faults)?;
    p.had_roles |= p.roles != *new;
    p.roles = new.clone();
    next.keeps_admin(&before, tenant)
}

/// A deletion takes all; the accounts can't hold it up (ROL-9).
pub fn delete(next: &mut Model, who: usize) -> Result<(), Reasons> {
    let before = next.clone();
    let p = &next.principals[who];
    let tenant = p.tenant;
    let mut faults = Reasons::new();
    if p.life == Life::Deleted {
        faults.insert("WRONG_STATE");
    }
    if p.external.is_some() {
        faults.insert("DIRECTORY_SYNCHRONIZED");
    }
    check(faults)?;
    next.forget(who);
    next.keeps_admin(&before, tenant)
}

pub fn disable(next: &mut Model, who: usize) -> Result<(), Reasons> {
    let before = next.clone();
    let p = &mut next.principals[who];
    unless(p.life == Life::Active, "WRONG_STATE")?;
    p.life = Life::Disabled;
    p.ended += 1;
    end_link(p);
    let tenant = p.tenant;
    next.keeps_admin(&before, tenant)
}

/// The link by which somebody was to choose a password is void: it was mailed before this.
fn end_link(p: &mut Principal) {
    if p.password == Password::Mailed {
        p.password = Password::Void;
    }
}

/// Whether a person holds anything anywhere, as itself or as a guest (PWD-5).
pub fn holds_anything(model: &Model, who: usize) -> bool {
    (0..model.principals.len())
        .filter(|p| model.person(*p) == who)
        .any(|p| {
            let groups = model.groups_of(p).collect::<Vec<_>>();
            let holds = |of: usize| {
                let of_it = model.members.iter().filter(move |((_, m), _)| *m == of);
                of_it.into_iter().any(|(_, held)| *held != Held::default())
            };
            !model.principals[p].roles.is_empty() || holds(p) || groups.into_iter().any(holds)
        })
}

/// Accounts (`Ok`) and tenants (`Err`) on which somebody has something, as itself or as a guest; directory roles count also when all were
/// taken again.
fn scopes(model: &Model, who: usize) -> BTreeSet<Result<usize, usize>> {
    let people = (0..model.principals.len())
        .filter(|p| *p == who || model.principals[*p].home == Some(who))
        .collect::<Vec<_>>();
    let accounts = model.members.keys().map(|(a, _)| *a);
    let mut scopes: BTreeSet<Result<usize, usize>> = accounts
        .filter(|a| people.iter().any(|p| !model.sources(*p, *a).is_empty()))
        .map(Ok)
        .collect();
    for p in people {
        let tenant = model.principals[p].tenant;
        let agent = tenant != NOWHERE && model.tenants[tenant].agent == Some(p);
        if agent || model.principals[p].had_roles {
            scopes.insert(Err(tenant));
        }
    }
    scopes
}

/// What of a person's rights sleeps, by account, and by who holds it: itself or a guest.
fn sleeping(by: &By<'_>, person: usize) -> Vec<(usize, usize, Words)> {
    let model = by.model;
    let accounts: BTreeSet<usize> = model.members.keys().map(|(a, _)| *a).collect();
    let people = (0..model.principals.len()).filter(|p| model.person(*p) == person);
    let each = people.flat_map(|p| accounts.iter().map(move |account| (*account, p)));
    let asleep = each.map(|(account, p)| {
        let mut all = model.all_on_account(by.table, p, account);
        all.retain(|permission| model.is_asleep(p, account, permission));
        (account, p, all)
    });
    asleep.filter(|(_, _, asleep)| !asleep.is_empty()).collect()
}

/// What a guest holds sleeps with the credential, which is its home's. Each wakes what it holds itself, awake, and there (ROL-13).
fn wake(by: &By<'_>, next: &mut Model, target: usize, only: Option<usize>) -> Result<(), Reasons> {
    let now = by.model;
    let person = now.person(target);
    let may = now.person(by.caller) != person
        && !scopes(now, by.caller).is_disjoint(&scopes(now, target));
    let mut woken_anything = false;
    for (account, holder, asleep) in sleeping(by, person) {
        let mine = now.on_account(by.table, by.caller, account);
        let woken: Vec<String> = asleep.intersection(&mine).cloned().collect();
        if may && only.is_none_or(|only| only == account) && !woken.is_empty() {
            let all = &mut next.principals[holder].woken;
            all.entry(account).or_default().extend(woken);
            woken_anything = true;
        }
    }
    unless(woken_anything, "NOTHING_TO_WAKE")
}

fn undelete(next: &mut Model, who: usize) -> Result<(), Reasons> {
    let old = next.principals[who].clone();
    let mut faults = Reasons::new();
    if old.external.is_some() {
        faults.insert("DIRECTORY_SYNCHRONIZED");
    }
    if old.life != Life::Deleted {
        faults.insert("WRONG_STATE");
    }
    check(faults)?;
    if old.kind == Kind::Guest {
        unless(old.home.is_some(), "WRONG_STATE")?;
        let mut faults = Reasons::new();
        for p in &next.principals {
            if p.kind == Kind::Guest && p.tenant == old.tenant && p.life != Life::Deleted {
                if p.home == old.home {
                    faults.insert("USER_EXISTS");
                }
                if p.address == old.address {
                    faults.insert("USER_NAME_TAKEN");
                }
            }
        }
        check(faults)?;
    }
    let p = &mut next.principals[who];
    p.life = Life::Active;
    p.credential = p.kind == Kind::Member;
    p.password = Password::Temporary;
    p.shown_by = None;
    if p.kind == Kind::Member {
        next.fall_asleep(who);
    }
    Ok(())
}

pub fn judge(by: By<'_>, step: &Step) -> Verdict {
    if let Step::Replace(old, successor) = step {
        // A name outside of the proven scope is a bad field, before anything is asked.
        let tenant = |p: &usize| by.model.principals[*p].tenant;
        unless(tenant(old) == tenant(successor), "INVALID_FIELDS")?;
    }
    let mut next = by.begin()?;
    let now = by.model;
    match step {
        Step::Create(new) => create(&by, &mut next, new)?,
        Step::Roles(target, roles) => {
            by.over(*target, "directory_roles.assign")?;
            let life = now.principals[*target].life;
            unless(matches!(life, Life::Active | Life::Disabled), "WRONG_STATE")?;
            set_roles(&by, &mut next, *target, roles)?;
        }
        Step::Disable(target) => {
            by.over(*target, "users.disable")?;
            disable(&mut next, *target)?;
        }
        Step::Enable(target) => {
            by.over(*target, "users.disable")?;
            let p = &mut next.principals[*target];
            unless(p.life == Life::Disabled, "WRONG_STATE")?;
            unless(p.off.is_none(), "DIRECTORY_SYNCHRONIZED")?;
            p.life = Life::Active;
        }
        Step::Delete(target) => {
            by.over(*target, "users.delete")?;
            delete(&mut next, *target)?;
        }
        Step::Undelete(target) => {
            by.over(*target, "users.delete")?;
            undelete(&mut next, *target)?;
        }
        Step::Replace(old, successor) => {
            by.over(*old, "directory_roles.assign")?;
            by.over(*old, "users.disable")?;
            let mut faults = Reasons::new();
            if old == successor {
                faults.insert("INVALID_FIELDS");
            }
            if !now.principals[*old].roles.contains("GLOBAL_ADMIN")
                || now.principals[*successor].life != Life::Active
            {
                faults.insert("WRONG_STATE");
            }
            check(faults)?;
            let mut roles = now.principals[*successor].roles.clone();
            roles.insert("GLOBAL_ADMIN".to_owned());
            set_roles(&by, &mut next, *successor, &roles)?;
            disable(&mut next, *old)?;
        }
        Step::Reset(target) => {
            by.over(*target, "users.reset_password")?;
            set_credential(&by, *target, now.principals[*target].external.is_some())?;
            if holds_anything(now, *target) {
                by.over(*target, "users.update")?;
            }
            next.reset(*target, Password::Temporary, None);
        }
        Step::Contact(target) => {
            by.over(*target, "users.update")?;
            // The recovery address is no data of a local directory.
            set_credential(&by, *target, false)?;
            let p = &mut next.principals[*target];
            p.email = true;
            p.given = false;
            end_link(p);
            next.fall_asleep(*target);
        }
        Step::Wake(target, on) => wake(&by, &mut next, *target, *on)?,
    }
    Ok(next)
}

impl Model {
    /// Somebody else set a person's password, or had a link mailed for it; sessions end.
    pub fn reset(&mut self, who: usize, password: Password, shown_by: Option<usize>) {
        let p = &mut self.principals[who];
        p.credential = true;
        p.password = password;
        p.shown_by = shown_by;
        p.ended += 1;
        self.fall_asleep(who);
    }
}

/// Whether somebody else may set a credential of this one at all.
pub fn set_credential(by: &By<'_>, target: usize, synchronized: bool) -> Result<(), Reasons> {
    let p = &by.model.principals[target];
    let mut faults = Reasons::new();
    if p.kind == Kind::Guest {
        faults.insert("CREDENTIAL_ELSEWHERE");
    }
    if synchronized {
        faults.insert("DIRECTORY_SYNCHRONIZED");
    }
    if !matches!(p.life, Life::Active | Life::Disabled) {
        faults.insert("WRONG_STATE");
    }
    // A partner's guest may be at home where it acts.
    if by.model.person(by.caller) == by.model.person(target) {
        faults.insert("OWN_CREDENTIAL");
    }
    check(faults)
}

fn create(by: &By<'_>, next: &mut Model, new: &New) -> Result<(), Reasons> {
    by.on_tenant(new.tenant, "users.create")?;
    if !new.roles.is_empty() {
        by.on_tenant(new.tenant, "directory_roles.assign")?;
    }
    if !new.groups.is_empty() {
        by.on_tenant(new.tenant, "groups.manage")?;
    }
    for (account, _) in &new.memberships {
        by.on_account(*account, "users.assign")?;
    }
    let mut faults = Reasons::new();
    if by.model.tenants[new.tenant].synchronized {
        faults.insert("DIRECTORY_SYNCHRONIZED");
    }
    if new.roles.contains("GLOBAL_ADMIN") && !new.email {
        faults.insert("INVALID_FIELDS");
    }
    check(faults)?;
    let user = next.principals.len();
    next.principals.push(Principal {
        email: new.email,
        through: new.memberships.first().map(|(account, _)| *account),
        credential: true,
        asleep: true,
        ..Principal::new(Kind::Member, new.tenant)
    });
    set_roles(by, next, user, &new.roles)?;
    super::groups::own(by.model, &new.groups)?;
    for group in &new.groups {
        by.give_by(*group)?;
        next.principals[*group].inside.insert(user);
    }
    by.join(next, "CreateUser", user, &new.memberships)
}

pub fn draw(draw: &Draw<'_>, rng: &mut Rng) -> Step {
    let people = draw.people(rng);
    let target = rng.pick(&people);
    let such = |rng: &mut Rng, holds: &dyn Fn(&Principal) -> bool| {
        let these = people.iter().copied();
        let these: Vec<usize> = these
            .filter(|p| holds(&draw.model.principals[*p]))
            .collect();
        if these.is_empty() || rng.chance(12) {
            target
        } else {
            rng.pick(&these)
        }
    };
    match rng.below(24) {
        0..=3 if draw.has_room() => {
            let tenant = draw.model.principals[target].tenant;
            let memberships = if rng.chance(60) {
                vec![(rng.pick(draw.accounts), some_rights(rng))]
            } else {
                Vec::new()
            };
            let roles = if rng.chance(50) {
                some_directory_roles(rng)
            } else {
                Words::new()
            };
            let groups = draw.of_kind(Kind::Group, tenant);
            let groups = if groups.is_empty() || rng.chance(60) {
                Vec::new()
            } else {
                rng.some(&groups, 2)
            };
            Step::Create(New {
                tenant,
                email: rng.chance(80),
                roles,
                groups,
                memberships,
            })
        }
        // At times somebody whose password a partner knows.
        0..=5 if rng.chance(25) => {
            let known = such(rng, &|p| p.shown_by.is_some() && p.life == Life::Active);
            Step::Roles(known, some_directory_roles(rng))
        }
        0..=5 => Step::Roles(target, some_directory_roles(rng)),
        6..=8 => Step::Disable(such(rng, &|p| p.life == Life::Active)),
        9..=11 => Step::Enable(such(rng, &|p| p.life == Life::Disabled)),
        12 | 13 => Step::Delete(target),
        14 | 15 => Step::Undelete(such(rng, &|p| p.life == Life::Deleted)),
        16 => {
            let admin = such(rng, &|p| p.roles.contains("GLOBAL_ADMIN"));
            Step::Replace(admin, such(rng, &|p| p.life == Life::Active && p.email))
        }
        17 | 18 => Step::Reset(such(rng, &|p| p.life == Life::Active)),
        19 => Step::Contact(target),
        _ => {
            let on = rng.chance(40).then(|| rng.pick(draw.accounts));
            // Somebody who holds something where the caller does, mostly.
            let holds = |p: usize, account: &usize| !draw.model.sources(p, *account).is_empty();
            let sleepers: Vec<usize> = people
                .iter()
                .copied()
                .filter(|p| draw.model.asleep(*p) && *p != draw.caller)
                .filter(|p| {
                    let mut shared = draw.accounts.iter();
                    shared.any(|a| holds(*p, a) && holds(draw.caller, a))
                })
                .collect();
            if sleepers.is_empty() && !rng.chance(12) {
                // So that there is somebody later.
                return Step::Reset(such(rng, &|p| p.life == Life::Active));
            }
            let target = if sleepers.is_empty() || rng.chance(12) {
                target
            } else {
                rng.pick(&sleepers)
            };
            Step::Wake(target, on)
        }
    }
}

pub async fn call(world: &mut World<'_>, caller: &Caller, step: &Step) -> Result<Made, Status> {
    let mut users = caller.users();
    let name = |p: &usize| world.name(*p);
    match step {
        Step::Create(new) => {
            world.made += 1;
            let user_name = format!("made{}", world.made);
            let tenant = &world.tenant_names[new.tenant];
            let mut request: CreateUserRequest = new_user(tenant, &user_name);
            let user = request.user.as_mut().unwrap();
            user.directory_roles = directory_on_wire(&new.roles);
            if new.email {
                user.recovery_email = format!("{user_name}@a.example");
            }
            request.groups = new.groups.iter().map(|g| world.name(*g)).collect();
            request.memberships = memberships_on_wire(world, &new.memberships);
            let made = users.create_user(request).await?.into_inner();
            let new = made.user.unwrap();
            Ok(Made::of(Door {
                temporary: Some(made.temporary_password),
                sign_in_name: new.sign_in_name,
                email: new.recovery_email,
                ..Door::of(new.name)
            }))
        }
        Step::Roles(p, roles) => {
            let request = AssignDirectoryRolesRequest {
                name: name(p),
                directory_roles: directory_on_wire(roles),
                ..AssignDirectoryRolesRequest::default()
            };
            users.assign_directory_roles(request).await.map(nothing)
        }
        Step::Disable(p) => {
            let request = DisableUserRequest {
                name: name(p),
                ..DisableUserRequest::default()
            };
            users.disable_user(request).await.map(nothing)
        }
        Step::Enable(p) => {
            let request = EnableUserRequest {
                name: name(p),
                ..EnableUserRequest::default()
            };
            users.enable_user(request).await.map(nothing)
        }
        Step::Delete(p) => {
            let request = DeleteUserRequest {
                name: name(p),
                ..DeleteUserRequest::default()
            };
            users.delete_user(request).await.map(nothing)
        }
        Step::Undelete(p) => {
            let request = UndeleteUserRequest {
                name: name(p),
                ..UndeleteUserRequest::default()
            };
            let made = users.undelete_user(request).await?.into_inner();
            Ok(Made::password(*p, made.temporary_password))
        }
        Step::Replace(old, successor) => {
            let request = ReplaceGlobalAdminRequest {
                name: name(old),
                successor: name(successor),
                ..ReplaceGlobalAdminRequest::default()
            };
            users.replace_global_admin(request).await.map(nothing)
        }
        Step::Reset(p) => {
            let request = ResetPasswordRequest {
                name: name(p),
                ..ResetPasswordRequest::default()
            };
            let done = users.reset_password(request).await?.into_inner();
            Ok(Made::password(*p, done.temporary_password))
        }
        Step::Contact(p) => {
            let mut user = named(&name(p));
            world.made += 1;
            user.recovery_email = format!("contact{}@a.example", world.made);
            let request = UpdateUserRequest {
                user: Some(user),
                update_mask: Some(mask(&["recovery_email"])),
                ..UpdateUserRequest::default()
            };
            users.update_user(request).await?;
            world.doors[*p].email = format!("contact{}@a.example", world.made);
            Ok(Made::default())
        }
        Step::Wake(p, on) => {
            let request = WakeRightsRequest {
                name: name(p),
                scope: on.map_or_else(String::new, |a| world.account_names[a].clone()),
                ..WakeRightsRequest::default()
            };
            users.wake_rights(request).await.map(nothing)
        }
    }
}

/// Personal identities are no users of a tenant.
pub fn is_user(model: &Model, who: usize) -> bool {
    let p = &model.principals[who];
    p.is_person() && p.tenant != NOWHERE
}
