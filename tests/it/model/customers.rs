//! What a partner's people do in a customer's tenant, by what it lends (REL-14, REL-22, PWD-6).

use std::collections::BTreeSet;

use entente::proto::relationship::{
    CreateCustomerUserRequest, DisableCustomerUserRequest, ListCustomerUsersRequest,
    ResetCustomerUserPasswordRequest,
};
use tonic::Status;

use super::{
    Reasons, Rng, Verdict, Words, check,
    doors::{Door, Made, nothing},
    draw::Draw,
    state::{By, Kind, Life, Model, Password, Principal},
    unless,
    users::{self, holds_anything, is_user},
    words,
    world::{World, directory_on_wire},
};
use crate::harness::{Caller, new_user};

/// Where addresses lie that partners give.
const PARTNERS: &str = "partner.example";

/// What is done, and by which relationship.
#[derive(Clone, Debug)]
pub enum Step {
    /// In which tenant.
    List(usize, usize),
    /// In which tenant, whether with an address, and with which directory roles.
    Create(usize, usize, bool, Words),
    Reset(usize, usize),
    Disable(usize, usize),
}

/// By a relationship that lends this in this tenant, to whom may act for customers.
fn lent(by: &By<'_>, which: usize, tenant: usize, permissions: &[&str]) -> Result<(), Reasons> {
    let now = by.model;
    let r = &now.relationships[which];
    let p = &now.principals[by.caller];
    unless(p.is_person() && p.tenant != tenant, "PERMISSION_MISSING")?;
    by.on_account(r.account, "delegated.act")?;
    let mut faults = Reasons::new();
    let may = now.lent_by(by.table, by.caller, which);
    if r.customer != Some(tenant) || !words(permissions).is_subset(&may) {
        faults.insert("PERMISSION_MISSING");
    }
    // How the account stands is told to whom anything is lent.
    if r.customer == Some(tenant) && !now.reaching(by.caller, which).is_empty() {
        faults.extend(now.trades(r.account).err().unwrap_or_default());
    }
    check(faults)
}

/// Whether a customer has, besides this one, a global admin who is in, by a password that no partner knows (REL-8, REL-14).
fn has_own_admin(model: &Model, tenant: usize, but: usize) -> bool {
    let mut admins = model.admins(tenant).into_iter();
    admins.any(|p| {
        let admin = &model.principals[p];
        p != but && admin.password == Password::Own && admin.shown_by.is_none()
    })
}

pub fn judge(by: By<'_>, step: &Step) -> Verdict {
    let mut next = by.begin()?;
    let now = by.model;
    match step {
        Step::List(which, tenant) => lent(&by, *which, *tenant, &["users.read"])?,
        Step::Create(which, tenant, email, roles) => {
            create(&by, &mut next, (*which, *tenant), *email, roles)?;
        }
        Step::Reset(which, target) => {
            let p = &now.principals[*target];
            lent(&by, *which, p.tenant, &["users.reset_password"])?;
            users::set_credential(&by, *target, p.external.is_some())?;
            if holds_anything(now, *target) {
                let mut faults = Reasons::new();
                faults.extend(
                    lent(&by, *which, p.tenant, &["directory_roles.assign"])
                        .err()
                        .unwrap_or_default(),
                );
                // A link would wait for the day on which whoever is shut out is let in again.
                if p.life != Life::Active {
                    faults.insert("WRONG_STATE");
                }
                check(faults)?;
                next.reset(*target, Password::Mailed, None);
            } else {
                next.reset(*target, Password::Temporary, Some(*which));
            }
        }
        Step::Disable(which, target) => {
            let p = &now.principals[*target];
            lent(&by, *which, p.tenant, &["users.disable"])?;
            users::disable(&mut next, *target)?;
            let is_admin = p.roles.contains("GLOBAL_ADMIN");
            let kept = !is_admin || has_own_admin(now, p.tenant, *target);
            unless(kept, "LAST_GLOBAL_ADMIN")?;
        }
    }
    Ok(next)
}

/// A user without a role, whose password is shown; or a global admin, who chooses it by a link. A tenant that a local directory fills gets
/// only these (TEN-5).
fn create(
    by: &By<'_>,
    next: &mut Model,
    (which, tenant): (usize, usize),
    email: bool,
    roles: &Words,
) -> Result<(), Reasons> {
    lent(by, which, tenant, &["users.create"])?;
    if !roles.is_empty() {
        lent(by, which, tenant, &["directory_roles.assign"])?;
    }
    let restores = roles.contains("GLOBAL_ADMIN");
    let mut faults = Reasons::new();
    if by.model.tenants[tenant].synchronized && !restores {
        faults.insert("DIRECTORY_SYNCHRONIZED");
    }
    // No other role is given this way.
    if (restores && !email) || !roles.is_subset(&words(&["GLOBAL_ADMIN"])) {
        faults.insert("INVALID_FIELDS");
    }
    // The one exception to ROL-7.
    let lends = by.model.reaching(by.caller, which).contains("GLOBAL_ADMIN");
    if restores && !lends {
        faults.insert("CANNOT_GRANT_WHAT_YOU_LACK");
    }
    check(faults)?;
    next.principals.push(Principal {
        email,
        given: email,
        roles: roles.clone(),
        had_roles: restores,
        credential: true,
        password: if restores {
            Password::Mailed
        } else {
            Password::Temporary
        },
        made_by: Some(which),
        shown_by: (!restores).then_some(which),
        asleep: true,
        ..Principal::new(Kind::Member, tenant)
    });
    Ok(())
}

/// A random step, by whoever may act for a customer; none where nothing is lent.
pub fn draw(draw: &Draw<'_>, rng: &mut Rng) -> Option<(Option<usize>, Step)> {
    let model = draw.model;
    let such = |r: &usize| {
        let r = &model.relationships[*r];
        draw.accounts.contains(&r.account) && r.customer.is_some()
    };
    let all: Vec<usize> = (0..model.relationships.len()).filter(such).collect();
    let lending = |r: &usize| !model.relationships[*r].assigned.is_empty();
    let lending: Vec<usize> = all.iter().copied().filter(lending).collect();
    let from = if lending.is_empty() || rng.chance(8) {
        &all
    } else {
        &lending
    };
    if from.is_empty() {
        return None;
    }
    let which = rng.pick(from);
    let r = &model.relationships[which];
    let role = rng.pick(&["ADMIN_AGENT", "ADMIN_AGENT", "HELPDESK_AGENT"]);
    let agents = model.agents(r.account, role);
    let reached: Vec<usize> = agents
        .iter()
        .copied()
        .filter(|p| !model.reaching(*p, which).is_empty())
        .collect();
    let agent = match rng.below(10) {
        0..=7 if !reached.is_empty() => Some(rng.pick(&reached)),
        8 if !agents.is_empty() => Some(rng.pick(&agents)),
        _ => None,
    };
    let tenant = match r.customer {
        Some(tenant) if rng.chance(94) => tenant,
        _ => rng.pick(draw.tenants),
    };
    let users = draw.users_of(tenant);
    let such = |holds: &dyn Fn(&Principal) -> bool| -> Vec<usize> {
        let users = users.iter().copied();
        users.filter(|p| holds(&model.principals[*p])).collect()
    };
    let active = such(&|p| p.life == Life::Active);
    let admins = such(&|p| p.life == Life::Active && p.roles.contains("GLOBAL_ADMIN"));
    let target = match rng.below(10) {
        0..=5 if !active.is_empty() => rng.pick(&active),
        6..=8 if !admins.is_empty() => rng.pick(&admins),
        _ => rng.pick(&users),
    };
    let step = match rng.below(20) {
        0..=2 => Step::List(which, tenant),
        3..=8 if draw.has_room() => {
            let roles = match rng.below(10) {
                0..=4 => Words::new(),
                5..=8 => words(&["GLOBAL_ADMIN"]),
                _ => words(&[rng.pick(&["BILLING_ADMIN", "HELPDESK_ADMIN"])]),
            };
            Step::Create(which, tenant, rng.chance(85), roles)
        }
        3..=14 => Step::Reset(which, target),
        _ => Step::Disable(which, target),
    };
    Some((agent, step))
}

pub async fn call(world: &mut World<'_>, caller: &Caller, step: &Step) -> Result<Made, Status> {
    let mut customers = caller.delegated_admin();
    let relationship = |which: &usize| world.relationship_names[*which].clone();
    match step {
        Step::List(which, tenant) => {
            let request = ListCustomerUsersRequest {
                parent: world.tenant_names[*tenant].clone(),
                relationship: relationship(which),
                page_size: 1_000,
                ..ListCustomerUsersRequest::default()
            };
            let page = customers.list_customer_users(request).await?.into_inner();
            let told: BTreeSet<String> = page.users.into_iter().map(|u| u.name).collect();
            let is_there = |p: &usize| {
                let there = &world.model.principals[*p];
                is_user(&world.model, *p) && there.tenant == *tenant && there.life != Life::Deleted
            };
            let there = (0..world.doors.len()).filter(is_there);
            let expected: BTreeSet<String> = there.map(|p| world.name(p)).collect();
            world.agree("a customer's users", &told, &expected);
            Ok(Made::default())
        }
        Step::Create(which, tenant, email, roles) => {
            let relationship = relationship(which);
            world.made += 1;
            let user_name = format!("made{}", world.made);
            let parent = world.tenant_names[*tenant].clone();
            let mut user = new_user(&parent, &user_name).user.unwrap();
            user.directory_roles = directory_on_wire(roles);
            if *email {
                user.recovery_email = format!("{user_name}@{PARTNERS}");
            }
            let request = CreateCustomerUserRequest {
                parent,
                relationship,
                user: Some(user),
                ..CreateCustomerUserRequest::default()
            };
            world.all_mails().await;
            let made = customers.create_customer_user(request).await?.into_inner();
            let new = made.user.unwrap();
            world.agree("a link is mailed", &made.link_mailed, &!roles.is_empty());
            Ok(Made::of(Door {
                temporary: Some(made.temporary_password).filter(|p| !p.is_empty()),
                choice: mailed(world, made.link_mailed).await,
                sign_in_name: new.sign_in_name,
                email: new.recovery_email,
                ..Door::of(new.name)
            }))
        }
        Step::Reset(which, target) => {
            let request = ResetCustomerUserPasswordRequest {
                name: world.name(*target),
                relationship: relationship(which),
                ..ResetCustomerUserPasswordRequest::default()
            };
            world.all_mails().await;
            let done = customers.reset_customer_user_password(request).await?;
            let done = done.into_inner();
            let holds = holds_anything(&world.model, *target);
            world.agree("a link is mailed", &done.link_mailed, &holds);
            let choice = mailed(world, done.link_mailed).await;
            Ok(match choice {
                Some(token) => Made::choice(*target, token),
                None => Made::password(*target, done.temporary_password),
            })
        }
        Step::Disable(which, target) => {
            let request = DisableCustomerUserRequest {
                name: world.name(*target),
                relationship: relationship(which),
                ..DisableCustomerUserRequest::default()
            };
            let done = customers.disable_customer_user(request).await;
            done.map(nothing)
        }
    }
}

/// The token by which somebody chooses a password, which no partner gets (REL-14).
async fn mailed(world: &World<'_>, is_mailed: bool) -> Option<String> {
    let mails = if is_mailed {
        world.all_mails().await
    } else {
        Vec::new()
    };
    let mut newest = mails.into_iter().rev();
    let (to, token) = newest.find(|(_, token)| token.is_some())?;
    let is_partners = to.ends_with(PARTNERS);
    world.agree("a partner is mailed a way in", &is_partners, &false);
    token
}
