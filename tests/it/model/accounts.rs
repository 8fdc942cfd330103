//! Accounts: opened by a global admin or a personal identity, suspended and given back, owned (ACC-1, ACC-13, ACC-20). No time passes here: whoever
//! is to own an account next is on its way until somebody stops it, and the finances of an owner who was tied don't begin.

use entente::proto::account::{
    AcceptOwnershipRequest, ConfirmOwnershipRequest, InviteOwnerRequest, OwnershipDecision,
    ReinstateAccountRequest, ReviewKind, StopOwnershipRequest, SuspendAccountRequest,
    TransferOwnershipRequest,
};
use tonic::Status;

use super::{
    Reasons, Rng, Verdict,
    doors::{Made, nothing},
    draw::Draw,
    state::{By, Held, Kind, Model, Tie, Way},
    unless, words,
    world::World,
};
use crate::{
    enrolment::{draft_of, open},
    harness::Caller,
    network::{join, new_membership},
    people::again,
    reviews::{claim, queue},
};

#[derive(Clone, Debug)]
pub enum Step {
    /// The next account, for this admin's tenant, by the caller: that admin, or an identity which then owns it.
    Create(usize, usize),
    /// Account, and which identity is to own it.
    Invite(usize, usize),
    Accept(usize),
    /// A reviewer consents, or refuses.
    Consent(usize, bool),
    /// By the owner: account, and which identity is the next one.
    Transfer(usize, usize),
    /// By a mailed link: who has begun to own it, or else who is to be the next.
    Stop(usize, bool),
    /// By the operator.
    Suspend(usize),
    Reinstate(usize),
}

impl Model {
    pub fn owner(&self, account: usize) -> Option<usize> {
        let mut members = self.members.range((account, 0)..(account + 1, 0));
        let owner = members.find(|(_, held)| held.roles.contains("OWNER"));
        owner.map(|((_, p), _)| *p)
    }

    fn owns_another(&self, who: usize, account: usize) -> bool {
        let mut members = self.members.iter();
        members.any(|((a, p), held)| *p == who && *a != account && held.roles.contains("OWNER"))
    }

    /// What an account in this state lets others than takers do.
    pub fn manages(&self, account: usize) -> Result<(), Reasons> {
        unless(!self.suspended.contains(&account), "WRONG_STATE")
    }

    /// Whether who began a tie could still begin it.
    fn stands(&self, by: &By<'_>, account: usize, tie: &Tie) -> bool {
        let owner = self.owner(account);
        let fits = match owner {
            Some(owner) => tie.transfer && tie.by == owner,
            None => !tie.transfer,
        };
        let theirs = self.on_account(by.table, tie.by, account);
        fits && self.can_act(tie.by) && theirs.contains("owner.tie")
    }
}

pub fn judge(by: By<'_>, step: &Step) -> Verdict {
    let now = by.model;
    let mut next = match step {
        Step::Consent(..) | Step::Stop(..) | Step::Suspend(_) | Step::Reinstate(_) => now.clone(),
        _ => by.begin()?,
    };
    match step {
        Step::Create(account, admin) => {
            let tenant = now.principals[*admin].tenant;
            let may = now.on_tenant(by.table, *admin, tenant);
            unless(may.contains("tenant.update"), "NOT_GLOBAL_ADMIN")?;
            next.drafts.insert(*account);
            next.associated.insert((*account, tenant));
            let manager = Held {
                roles: words(&["MANAGER", "ADMIN_AGENT"]),
                ..Held::default()
            };
            next.members.insert((*account, *admin), manager);
            if now.principals[by.caller].kind == Kind::Identity {
                let free = !now.owns_another(by.caller, *account);
                unless(free, "IDENTITY_ALREADY_TIED")?;
                next.own(*account, by.caller);
            }
        }
        Step::Invite(account, who) => {
            by.on_account(*account, "owner.tie")?;
            now.manages(*account)?;
            unless(now.owner(*account).is_none(), "OWNER_EXISTS")?;
            // Whoever approves was never verified; of imported accounts reviewers decide.
            unless(!now.drafts.contains(account), "APPROVER_NOT_VERIFIED")?;
            next.ties.insert(*account, Tie::new(*who, by.caller, false));
        }
        Step::Accept(account) => {
            let theirs = |tie: &&Tie| tie.way == Way::Invited && tie.who == by.caller;
            let tie = now.ties.get(account).filter(theirs);
            let tie = tie.filter(|tie| now.stands(&by, *account, tie));
            let tie = tie.ok_or_else(|| Reasons::from(["PERMISSION_MISSING"]))?;
            now.manages(*account)?;
            let free = !now.owns_another(by.caller, *account);
            unless(free, "IDENTITY_ALREADY_TIED")?;
            let way = if tie.transfer {
                Way::HandingOver
            } else {
                Way::Awaiting
            };
            next.ties.insert(*account, Tie { way, ..*tie });
        }
        Step::Consent(account, yes) => {
            let tie = now.ties[account];
            next.ties.remove(account);
            if *yes {
                now.manages(*account)?;
                let mut faults = Reasons::new();
                if !now.stands(&by, *account, &tie) || !now.can_act(tie.who) {
                    faults.insert("WRONG_STATE");
                }
                if now.owns_another(tie.who, *account) {
                    faults.insert("IDENTITY_ALREADY_TIED");
                }
                super::check(faults)?;
                next.own(*account, tie.who);
                next.late.insert(*account);
            }
        }
        Step::Transfer(account, who) => {
            by.on_account(*account, "owner.tie")?;
            let is_owner = now.owner(*account) == Some(by.caller);
            unless(is_owner, "PERMISSION_MISSING")?;
            now.manages(*account)?;
            unless(*who != by.caller, "INVALID_FIELDS")?;
            next.ties.insert(*account, Tie::new(*who, by.caller, true));
        }
        // Always, also where the owner made itself the last manager.
        Step::Stop(account, true) => {
            let owner = now.owner(*account);
            let owner = owner.ok_or_else(|| Reasons::from(["LINK_INVALID"]))?;
            next.members.remove(&(*account, owner));
            next.late.remove(account);
        }
        Step::Stop(account, false) => {
            next.ties.remove(account);
        }
        Step::Suspend(account) => {
            now.manages(*account)?;
            // Of a draft there is nothing to stop.
            unless(!now.drafts.contains(account), "WRONG_STATE")?;
            next.suspended.insert(*account);
        }
        Step::Reinstate(account) => {
            let was = next.suspended.remove(account);
            unless(was, "WRONG_STATE")?;
        }
    }
    Ok(next)
}

impl Model {
    fn own(&mut self, account: usize, who: usize) {
        let held = self.members.entry((account, who)).or_default();
        held.roles.insert("OWNER".to_owned());
    }
}

/// A random step; mostly the next one of what has begun, by whoever may take it.
pub fn draw(draw: &Draw<'_>, rng: &mut Rng) -> (Option<usize>, Step) {
    let model = draw.model;
    let stopped = draw.accounts.iter().copied();
    let stopped: Vec<usize> = stopped.filter(|a| model.suspended.contains(a)).collect();
    if !stopped.is_empty() && rng.chance(50) {
        return (None, Step::Reinstate(rng.pick(&stopped)));
    }
    let account = rng.pick(draw.accounts);
    let identities: Vec<usize> = (0..model.principals.len())
        .filter(|p| model.principals[*p].kind == Kind::Identity)
        .collect();
    if identities.is_empty() {
        return (None, Step::Suspend(account));
    }
    let who = rng.pick(&identities);
    if let Some(tie) = model.ties.get(&account)
        && rng.chance(75)
    {
        return match tie.way {
            Way::Invited if rng.chance(90) => (Some(tie.who), Step::Accept(account)),
            Way::Invited => (None, Step::Accept(account)),
            Way::Awaiting => (None, Step::Consent(account, rng.chance(85))),
            Way::HandingOver => (None, Step::Stop(account, false)),
        };
    }
    match (model.owner(account), rng.below(10)) {
        (_, 0 | 1) => (None, Step::Suspend(account)),
        (Some(_), 2..=4) if model.late.contains(&account) => (None, Step::Stop(account, true)),
        (Some(owner), 2..=8) => (Some(owner), Step::Transfer(account, who)),
        (Some(_), _) if rng.chance(50) => (None, Step::Transfer(account, who)),
        (Some(_), _) => {
            let managers = model.agents(account, "MANAGER");
            let manager = (!managers.is_empty()).then(|| rng.pick(&managers));
            (manager, Step::Invite(account, who))
        }
        _ => (None, Step::Invite(account, who)),
    }
}

/// Whether a step can be taken at all: something to decide on, a link that was mailed.
pub fn possible(world: &World<'_>, step: &Step) -> bool {
    match step {
        Step::Consent(account, _) => {
            let tie = world.model.ties.get(account);
            tie.is_some_and(|tie| tie.way == Way::Awaiting)
        }
        Step::Stop(account, begun) => world.stops.contains_key(&(*account, *begun)),
        _ => true,
    }
}

pub async fn call(
    world: &mut World<'_>,
    caller: &Caller,
    by: usize,
    step: &Step,
) -> Result<Made, Status> {
    let name = |a: &usize| world.account_names[*a].clone();
    let email = |p: &usize| world.doors[*p].sign_in_name.clone();
    let mut accounts = caller.accounts();
    match step {
        Step::Create(_, admin) => {
            world.made += 1;
            let publisher = format!("Account {}", world.made);
            // Of a call that failed a membership is left, which serves.
            join(caller, new_membership(&publisher)).await.ok();
            let mut request = draft_of(entente::proto::account::Account {
                publisher_display_name: publisher,
                country_code: "FR".to_owned(),
                ..Default::default()
            });
            if *admin != by {
                let admin = world.caller(*admin).await;
                request.tenant_admin_token = admin.and_then(|c| c.token).unwrap_or_default();
            }
            let made = open(caller, request).await?;
            world.account_names.push(made.account.unwrap().name);
            Ok(Made::default())
        }
        Step::Invite(a, who) => {
            let request = InviteOwnerRequest {
                account: name(a),
                email: email(who),
                ..InviteOwnerRequest::default()
            };
            accounts.invite_owner(request).await.map(nothing)
        }
        Step::Transfer(a, who) => {
            let request = TransferOwnershipRequest {
                account: name(a),
                email: email(who),
                ..TransferOwnershipRequest::default()
            };
            accounts.transfer_ownership(request).await?;
            world.stops.remove(&(*a, false));
            Ok(Made::default())
        }
        Step::Accept(a) => {
            let request = AcceptOwnershipRequest {
                account: name(a),
                ..AcceptOwnershipRequest::default()
            };
            forget_mails(world).await;
            accounts.accept_ownership(request).await?;
            keep_stop(world, *a, false).await;
            Ok(Made::default())
        }
        Step::Consent(a, yes) => {
            let (account, reviewer) = (name(a), world.reviewer);
            let reviewer = again(world.site, reviewer).await;
            let filter = format!("account = \"{account}\"");
            let review = queue(&reviewer, ReviewKind::Ownership, &filter).await;
            claim(&reviewer, &review[0].name).await?;
            let decision = if *yes {
                OwnershipDecision::Consent
            } else {
                OwnershipDecision::Refuse
            };
            let request = ConfirmOwnershipRequest {
                account,
                decision: decision as i32,
                reason: "By the deed.".to_owned(),
                ..ConfirmOwnershipRequest::default()
            };
            forget_mails(world).await;
            reviewer.accounts().confirm_ownership(request).await?;
            if *yes {
                keep_stop(world, *a, true).await;
            }
            Ok(Made::default())
        }
        Step::Stop(a, begun) => {
            let request = StopOwnershipRequest {
                token: world.stops[&(*a, *begun)].clone(),
                ..StopOwnershipRequest::default()
            };
            let mut nobody = world.site.nobody().accounts();
            nobody.stop_ownership(request).await?;
            world.stops.remove(&(*a, *begun));
            Ok(Made::default())
        }
        Step::Suspend(a) => {
            let request = SuspendAccountRequest {
                name: name(a),
                reason: "To see.".to_owned(),
                ..SuspendAccountRequest::default()
            };
            let mut operator = world.site.operator().await.accounts();
            operator.suspend_account(request).await.map(nothing)
        }
        Step::Reinstate(a) => {
            let request = ReinstateAccountRequest {
                name: name(a),
                ..ReinstateAccountRequest::default()
            };
            let mut operator = world.site.operator().await.accounts();
            operator.reinstate_account(request).await.map(nothing)
        }
    }
}

/// Removes what was mailed before.
async fn forget_mails(world: &World<'_>) {
    world.all_mails().await;
}

/// Keeps the token of the mails that tell of an ownership, if there is anybody to mail to.
async fn keep_stop(world: &mut World<'_>, account: usize, begun: bool) {
    world.stops.remove(&(account, begun));
    let mails = world.all_mails().await;
    if let Some(token) = mails.into_iter().find_map(|(_, token)| token) {
        world.stops.insert((account, begun), token);
    }
}
