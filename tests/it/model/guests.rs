//! Guests: invited, accepting, signing in with what they have at home (INV-2 to INV-5).

use entente::proto::directory::{
    AcceptInvitationRequest, InviteUsersRequest, RevokeInvitationRequest,
};
use tonic::Status;

use super::{
    Reasons, Rng, Verdict, check,
    doors::{Door, Made, nothing},
    draw::{Draw, some_rights},
    state::{Address, By, Held, Kind, Life, Model, NOWHERE, Principal, Promise},
    unless,
    world::{World, on_wire},
};
use crate::harness::{Caller, PASSWORD};

#[derive(Clone, Debug)]
pub enum Step {
    /// Tenant, whom, and what is promised on an account.
    Invite(usize, Address, Option<(usize, Held)>),
    /// By the caller, as whoever has the address.
    Accept(usize),
    /// By nobody who signed in.
    AcceptAsNew(usize),
    Revoke(usize),
}

/// One spelling an address: that of an identity is the one that it was invited at.
fn canonical(model: &Model, address: Address) -> Address {
    match address {
        Address::Of(p) => model.principals[p].address.unwrap_or(address),
        Address::New(_) => address,
    }
}

/// Who has the address of an invitation.
fn holder(model: &Model, guest: usize) -> Option<usize> {
    let address = model.principals[guest].address;
    match address? {
        Address::Of(p) => Some(p).filter(|p| model.principals[*p].life != Life::Deleted),
        Address::New(_) => model
            .principals
            .iter()
            .position(|p| p.kind == Kind::Identity && p.address == address),
    }
}

pub fn judge(by: By<'_>, step: &Step) -> Verdict {
    let now = by.model;
    match step {
        Step::Invite(tenant, address, on) => invite(&by, *tenant, *address, on.as_ref()),
        Step::Accept(guest) => accept(&by, by.begin()?, *guest, Some(by.caller)),
        Step::AcceptAsNew(guest) => accept(&by, now.clone(), *guest, None),
        Step::Revoke(guest) => {
            let mut next = by.begin()?;
            by.over(*guest, "invitations.manage")?;
            let invited = now.principals[*guest].life == Life::Invited;
            unless(invited, "WRONG_STATE")?;
            next.forget(*guest);
            Ok(next)
        }
    }
}

fn invite(by: &By<'_>, tenant: usize, address: Address, on: Option<&(usize, Held)>) -> Verdict {
    let mut next = by.begin()?;
    let now = by.model;
    by.on_tenant(tenant, "invitations.manage")?;
    if let Some((account, _)) = on {
        by.on_account(*account, "users.assign")?;
    }
    let address = canonical(now, address);
    let there =
        |p: &Principal| p.life != Life::Deleted && p.tenant == tenant && p.address == Some(address);
    let at_home = match address {
        Address::Of(p) => {
            now.principals[p].tenant == tenant && now.principals[p].life != Life::Deleted
        }
        Address::New(_) => false,
    };
    if at_home || now.principals.iter().any(there) {
        return Err(Reasons::from(["USER_EXISTS", "INVALID_FIELDS"]));
    }
    let guest = next.principals.len();
    next.principals.push(Principal {
        life: Life::Invited,
        address: Some(address),
        through: on.map(|(account, _)| *account),
        ..Principal::new(Kind::Guest, tenant)
    });
    if let Some((account, held)) = on {
        let associated = now.associated.contains(&(*account, tenant));
        unless(associated, "NOT_IN_ASSOCIATED_TENANT")?;
        // What is promised is what could be given now; it is given later.
        let mut given = next.clone();
        given.give(by.table, by.caller, "InviteUsers", (*account, guest), held)?;
    }
    let promise = Promise {
        inviter: by.caller,
        on: on.cloned(),
    };
    next.promises.insert(guest, promise);
    Ok(next)
}

fn accept(by: &By<'_>, mut next: Model, guest: usize, caller: Option<usize>) -> Verdict {
    let now = by.model;
    let tenant = now.principals[guest].tenant;
    let open = now.principals[guest].life == Life::Invited && now.is_active(tenant);
    unless(open, "LINK_INVALID")?;
    let home = match (now.principals[guest].address, holder(now, guest)) {
        (_, Some(holder)) => {
            unless(caller == Some(holder), "SIGN_IN_AS_HOLDER")?;
            let mut others = now.principals.iter().filter(|p| p.life != Life::Deleted);
            let tied = others.any(|p| p.tenant == tenant && p.home == Some(holder));
            let here = now.principals[holder].tenant == tenant;
            unless(!tied && !here, "USER_EXISTS")?;
            holder
        }
        (Some(Address::New(_)), None) => {
            next.principals.push(Principal {
                credential: true,
                address: now.principals[guest].address,
                ..Principal::new(Kind::Identity, NOWHERE)
            });
            next.principals.len() - 1
        }
        _ => return check(Reasons::from(["WORK_ADDRESS"])).map(|()| next),
    };
    let p = &mut next.principals[guest];
    p.life = Life::Active;
    p.home = Some(home);
    let promise = now.promises[&guest].clone();
    if let Some((account, held)) = promise.on {
        let theirs = now.on_account(by.table, promise.inviter, account);
        let may = now.can_act(promise.inviter)
            && theirs.contains("users.assign")
            && now.manages(account).is_ok()
            && now.associated.contains(&(account, tenant));
        if may {
            let whole = |r: &&String| by.table.role("account", r).is_subset(&theirs);
            let given = Held {
                roles: held.roles.iter().filter(whole).cloned().collect(),
                single: held.single.intersection(&theirs).cloned().collect(),
            };
            unless(
                given == Held::default() || !next.is_shown(guest),
                "NOT_ASSIGNABLE",
            )?;
            next.members.insert((account, guest), given);
        }
    }
    Ok(next)
}

/// A random step; whoever accepts is the one who has the address, mostly.
pub fn draw(draw: &Draw<'_>, rng: &mut Rng) -> (Option<usize>, Step) {
    let invited: Vec<usize> = draw
        .all
        .iter()
        .copied()
        .filter(|p| draw.model.principals[*p].life == Life::Invited)
        .collect();
    if !invited.is_empty() && rng.chance(70) {
        let guest = rng.pick(&invited);
        return match (holder(draw.model, guest), rng.below(10)) {
            (_, 0) => (None, Step::Revoke(guest)),
            (_, 1) => (None, Step::Accept(guest)),
            (Some(p), 2..) => (Some(p), Step::Accept(guest)),
            // Whoever had the address is gone: nobody can accept.
            (None, 3..) if matches!(draw.model.principals[guest].address, Some(Address::Of(_))) => {
                (None, Step::Revoke(guest))
            }
            _ => (None, Step::AcceptAsNew(guest)),
        };
    }
    let tenant = draw.tenant(rng);
    let on = if rng.chance(70) {
        Some((rng.pick(draw.accounts), some_rights(rng)))
    } else {
        None
    };
    let people: Vec<usize> = (0..draw.model.principals.len())
        .filter(|p| {
            matches!(
                draw.model.principals[*p].kind,
                Kind::Member | Kind::Identity
            ) && (draw.model.principals[*p].tenant != tenant || rng.chance(5))
        })
        .collect();
    let address = if people.is_empty() || rng.chance(25) {
        Address::New(draw.model.principals.len())
    } else {
        Address::Of(rng.pick(&people))
    };
    (None, Step::Invite(tenant, address, on))
}

/// Whether a step can be taken at all: nobody who is signed in makes an identity here.
pub fn possible(model: &Model, step: &Step) -> bool {
    match step {
        Step::Accept(guest) => {
            let address = model.principals[*guest].address;
            matches!(address, Some(Address::Of(_))) || holder(model, *guest).is_some()
        }
        Step::AcceptAsNew(_) | Step::Invite(..) | Step::Revoke(_) => true,
    }
}

pub async fn call(world: &mut World<'_>, caller: &Caller, step: &Step) -> Result<Made, Status> {
    match step {
        Step::Invite(tenant, address, on) => {
            let email = match address {
                Address::Of(p) => world.doors[*p].sign_in_name.clone(),
                Address::New(n) => format!("new{n}@world{}.example", world.base),
            };
            let request = InviteUsersRequest {
                parent: world.tenant_names[*tenant].clone(),
                emails: vec![email.clone()],
                account: on
                    .as_ref()
                    .map_or_else(String::new, |(a, _)| world.account_names[*a].clone()),
                rights: on.as_ref().and_then(|(_, held)| on_wire(held)),
                ..InviteUsersRequest::default()
            };
            let done = caller.invitations().invite_users(request).await?;
            let made = done.into_inner().invitations.remove(0);
            let token = world.mailed_token(&email).await;
            Ok(Made::of(Door {
                sign_in_name: email,
                invitation: made.name,
                link: token,
                ..Door::of(made.user)
            }))
        }
        Step::Accept(guest) => {
            let request = AcceptInvitationRequest {
                token: world.doors[*guest].link.clone(),
                ..AcceptInvitationRequest::default()
            };
            let done = caller.invitations().accept_invitation(request).await;
            done.map(nothing)
        }
        Step::AcceptAsNew(guest) => {
            let request = AcceptInvitationRequest {
                token: world.doors[*guest].link.clone(),
                given_name: "Ida".to_owned(),
                family_name: "Noor".to_owned(),
                password: PASSWORD.to_owned(),
                ..AcceptInvitationRequest::default()
            };
            let nobody = world.site.nobody();
            nobody.invitations().accept_invitation(request).await?;
            let email = world.doors[*guest].sign_in_name.clone();
            let name = world.identity_at(&email).await;
            Ok(Made::of(Door {
                sign_in_name: email,
                ..Door::of(name)
            }))
        }
        Step::Revoke(guest) => {
            let request = RevokeInvitationRequest {
                name: world.doors[*guest].invitation.clone(),
                ..RevokeInvitationRequest::default()
            };
            let done = caller.invitations().revoke_invitation(request).await;
            done.map(nothing)
        }
    }
}
