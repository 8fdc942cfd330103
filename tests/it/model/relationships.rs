//! What tenants lend to partners' accounts, and to whom it goes on there (REL-3 to REL-10, REL-22). No time passes here: no request expires, and no
//! term ends.

use std::collections::BTreeMap;

use entente::proto::{
    access::AccountRole,
    relationship::{
        AcceptRelationshipRequest, CancelRelationshipRequest, CreateRelationshipRequest,
        DeclineRelationshipRequest, Relationship as Asked, RelationshipKind, RelationshipState,
        RemoveRelationshipRolesRequest, SendRelationshipRequest, SetRelationshipAssignmentRequest,
        TerminateRelationshipRequest,
    },
};
use tonic::Status;

use super::{
    Reasons, Rng, Verdict, Words, check,
    doors::{Made, nothing},
    draw::Draw,
    state::{By, Kind, Life, Model, Table},
    unless, words,
    world::{World, directory_on_wire},
};
use crate::harness::{Caller, request_id};

#[derive(Clone, Debug)]
pub enum Step {
    /// Account, at whose address, and for which roles: made and sent.
    Ask(usize, usize, Words),
    /// Relationship, which tenant answers, and what it lends.
    Accept(usize, usize, Words),
    Decline(usize, usize),
    /// By the partner.
    Cancel(usize),
    /// The tenant takes back what it lends.
    TakeBack(usize, usize),
    /// By a tenant, or by the partner.
    End(usize, Option<usize>),
    Assign(usize, Holder, Words),
}

/// To whom of the partner's people lent roles go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// Whoever has this role on the account.
    Role(&'static str),
    Group(usize),
}

const ADMIN_AGENT: &str = "ADMIN_AGENT";
const HELPDESK_AGENT: &str = "HELPDESK_AGENT";

#[derive(Clone, Debug)]
pub struct Relationship {
    pub account: usize,
    /// Whose address it was sent to.
    pub to: usize,
    pub asked: Words,
    pub state: RelationshipState,
    /// The tenant that accepted.
    pub customer: Option<usize>,
    /// Directory roles that are lent.
    pub roles: Words,
    pub assigned: BTreeMap<Holder, Words>,
}

impl Relationship {
    pub fn is_active(&self) -> bool {
        self.state == RelationshipState::Active
    }

    fn is_pending(&self) -> bool {
        self.state == RelationshipState::Pending
    }

    fn end(&mut self, state: RelationshipState) {
        self.state = state;
        self.take_back();
    }

    fn take_back(&mut self) {
        self.roles.clear();
        self.assigned.clear();
    }
}

/// What directory roles allow to a partner: to administer people, licences and incidents (REL-14, REL-20 to REL-22).
const LENT: &[&str] = &[
    "users.read",
    "users.create",
    "users.disable",
    "users.reset_password",
    "directory_roles.assign",
    "licences.assign",
    "incidents.manage",
];

impl Model {
    /// What an account in this state does with others.
    pub fn trades(&self, account: usize) -> Result<(), Reasons> {
        unless(!self.drafts.contains(&account), "WRONG_STATE")?;
        self.manages(account)
    }

    /// Whether a tenant has a relationship with this account in force.
    pub fn lends(&self, tenant: usize, account: usize) -> bool {
        let mut all = self.relationships.iter();
        all.any(|r| r.is_active() && r.customer == Some(tenant) && r.account == account)
    }

    /// The same with any account.
    pub fn is_customer(&self, tenant: usize) -> bool {
        let mut all = self.relationships.iter();
        all.any(|r| r.is_active() && r.customer == Some(tenant))
    }

    /// Groups of a tenant that leaves an account lose what is assigned to them there.
    pub fn unassign_tenant(&mut self, account: usize, tenant: usize) {
        let principals = &self.principals;
        let stays = |holder: &Holder| match holder {
            Holder::Role(_) => true,
            Holder::Group(group) => principals[*group].tenant != tenant,
        };
        let of_account = |r: &&mut Relationship| r.account == account;
        for relationship in self.relationships.iter_mut().filter(of_account) {
            relationship.assigned.retain(|holder, _| stays(holder));
        }
    }

    /// Tenants of the groups that an account's relationships are assigned to.
    pub fn tenants_of_holders(&self, account: usize) -> Vec<usize> {
        let of_account = self.relationships.iter().filter(|r| r.account == account);
        let holders = of_account.flat_map(|r| r.assigned.keys());
        let tenant = |holder: &Holder| match holder {
            Holder::Role(_) => None,
            Holder::Group(group) => Some(self.principals[*group].tenant),
        };
        holders.filter_map(tenant).collect()
    }

    /// Whether a request is sent to a tenant: by the address of an active member.
    fn is_addressed(&self, relationship: usize, tenant: usize) -> bool {
        let to = &self.principals[self.relationships[relationship].to];
        (to.kind, to.tenant, to.life) == (Kind::Member, tenant, Life::Active)
    }

    fn has_role(&self, who: usize, account: usize, role: &str) -> bool {
        let sources = self.sources(who, account);
        sources.iter().any(|held| held.roles.contains(role))
    }

    /// The directory roles that a relationship lends to somebody who may act for customers: what is assigned to its roles and groups, and no more
    /// than a helpdesk agent may have by being one (REL-9).
    pub fn reaching(&self, who: usize, relationship: usize) -> Words {
        let r = &self.relationships[relationship];
        let groups: Vec<usize> = self.groups_of(who).collect();
        let helpdesk = words(&["HELPDESK_ADMIN"]);
        let mut all = Words::new();
        for (holder, roles) in &r.assigned {
            let (reaches, is_admins) = match holder {
                Holder::Role(role) => (self.has_role(who, r.account, role), *role == ADMIN_AGENT),
                Holder::Group(group) => (groups.contains(group), true),
            };
            let roles = roles.intersection(&r.roles);
            let is_admin = self.has_role(who, r.account, ADMIN_AGENT) && is_admins;
            let fits = roles.filter(|role| is_admin || helpdesk.contains(*role));
            all.extend(fits.filter(|_| reaches).cloned());
        }
        all
    }

    /// What a relationship lets somebody do for its customer who may act for customers. Nobody but people acts, and nobody at home.
    pub fn lent_by(&self, table: &Table, who: usize, relationship: usize) -> Words {
        let p = &self.principals[who];
        if !p.is_person() || self.relationships[relationship].customer == Some(p.tenant) {
            return Words::new();
        }
        let lent = words(LENT);
        let roles = self.reaching(who, relationship);
        let all = roles.iter().flat_map(|role| table.role("tenant", role));
        all.filter(|p| lent.contains(*p)).cloned().collect()
    }

    /// What all relationships together let somebody do in a tenant.
    pub fn lent_on(&self, table: &Table, who: usize, tenant: usize) -> Words {
        let of_tenant = |r: &usize| self.relationships[*r].customer == Some(tenant);
        let mut all = Words::new();
        for r in (0..self.relationships.len()).filter(of_tenant) {
            let account = self.relationships[r].account;
            let may = self.on_account(table, who, account);
            if may.contains("delegated.act") && self.trades(account).is_ok() {
                all.extend(self.lent_by(table, who, r));
            }
        }
        all
    }

    /// People who get in and have a role on an account.
    pub fn agents(&self, account: usize, role: &str) -> Vec<usize> {
        (0..self.principals.len())
            .filter(|p| self.principals[*p].is_person() && self.signs_in(*p))
            .filter(|p| self.has_role(*p, account, role))
            .collect()
    }
}

pub fn judge(by: By<'_>, step: &Step) -> Verdict {
    let mut next = by.begin()?;
    let now = by.model;
    match step {
        Step::Ask(account, to, roles) => {
            by.on_account(*account, "relationships.request")?;
            now.trades(*account)?;
            next.relationships.push(Relationship {
                account: *account,
                to: *to,
                asked: roles.clone(),
                state: RelationshipState::Pending,
                customer: None,
                roles: Words::new(),
                assigned: BTreeMap::new(),
            });
        }
        Step::Accept(which, tenant, roles) => {
            by.on_tenant(*tenant, "relationships.answer")?;
            if !roles.is_empty() {
                by.on_tenant(*tenant, "relationships.grant_roles")?;
            }
            accept(&by, *which, *tenant, roles)?;
            let r = &mut next.relationships[*which];
            r.state = RelationshipState::Active;
            r.customer = Some(*tenant);
            r.roles.clone_from(roles);
        }
        Step::Decline(which, tenant) => {
            by.on_tenant(*tenant, "relationships.answer")?;
            answers(now, *which, *tenant)?;
            next.relationships[*which].end(RelationshipState::Declined);
        }
        Step::Cancel(which) => {
            let r = &mut next.relationships[*which];
            by.on_account(r.account, "relationships.request")?;
            unless(r.is_pending(), "WRONG_STATE")?;
            r.end(RelationshipState::Cancelled);
        }
        Step::TakeBack(which, tenant) => {
            by.on_tenant(*tenant, "relationships.end")?;
            let r = &mut next.relationships[*which];
            unless(r.customer == Some(*tenant), "RESOURCE_NOT_FOUND")?;
            unless(r.is_active(), "WRONG_STATE")?;
            r.take_back();
        }
        Step::End(which, tenant) => {
            let r = &mut next.relationships[*which];
            let as_customer = tenant.is_some_and(|t| by.on_tenant(t, "relationships.end").is_ok());
            if !as_customer {
                by.on_account(r.account, "relationships.request")?;
            }
            let is_its = tenant.is_none_or(|t| r.customer == Some(t));
            unless(is_its, "RESOURCE_NOT_FOUND")?;
            unless(r.is_active(), "WRONG_STATE")?;
            r.end(RelationshipState::Terminated);
        }
        Step::Assign(which, to, roles) => {
            assign(&by, *which, *to, roles)?;
            let r = &mut next.relationships[*which];
            if roles.is_empty() {
                r.assigned.remove(to);
            } else {
                r.assigned.insert(*to, roles.clone());
            }
        }
    }
    Ok(next)
}

/// Whether a tenant can answer; whom a request isn't sent to isn't told how it stands (REL-3).
fn answers(now: &Model, which: usize, tenant: usize) -> Result<(), Reasons> {
    let r = &now.relationships[which];
    let theirs = r.customer == Some(tenant) || now.is_addressed(which, tenant);
    unless(theirs, "NOT_ADDRESSEE")?;
    unless(r.is_pending(), "WRONG_STATE")
}

/// No more than was asked for, by who holds it, and to nobody's own partner (REL-6, ROL-7).
fn accept(by: &By<'_>, which: usize, tenant: usize, roles: &Words) -> Result<(), Reasons> {
    let now = by.model;
    answers(now, which, tenant)?;
    let r = &now.relationships[which];
    let mine = now.on_tenant(by.table, by.caller, tenant);
    let mut faults = now.trades(r.account).err().unwrap_or_default();
    if !roles.is_subset(&r.asked) {
        faults.insert("INVALID_FIELDS");
    }
    if now.associated.contains(&(r.account, tenant)) {
        faults.insert("SELF_RELATIONSHIP");
    }
    let whole = |role: &String| by.table.role("tenant", role).is_subset(&mine);
    if !roles.iter().all(whole) {
        faults.insert("CANNOT_GRANT_WHAT_YOU_LACK");
    }
    check(faults)
}

fn assign(by: &By<'_>, which: usize, to: Holder, roles: &Words) -> Result<(), Reasons> {
    let now = by.model;
    let r = &now.relationships[which];
    by.on_account(r.account, "relationships.assign")?;
    now.trades(r.account)?;
    unless(r.is_active(), "WRONG_STATE")?;
    let mut faults = Reasons::new();
    if !roles.is_subset(&r.roles) {
        faults.insert("CANNOT_GRANT_WHAT_YOU_LACK");
    }
    match to {
        Holder::Role(role) => {
            if role == HELPDESK_AGENT && !roles.is_subset(&words(&["HELPDESK_ADMIN"])) {
                faults.insert("NOT_ASSIGNABLE");
            }
        }
        Holder::Group(group) => {
            let group = &now.principals[group];
            // ROL-12.
            if group.external.is_some() && roles.contains("GLOBAL_ADMIN") {
                faults.insert("NOT_ASSIGNABLE");
            }
            if group.life != Life::Active && !roles.is_empty() {
                faults.insert("RESOURCE_NOT_FOUND");
            }
            let associated = now.associated.contains(&(r.account, group.tenant));
            if !associated && !roles.is_empty() {
                faults.insert("NOT_IN_ASSOCIATED_TENANT");
            }
        }
    }
    check(faults)
}

const DIRECTORY_ROLES: &[&str] = &["GLOBAL_ADMIN", "HELPDESK_ADMIN", "BILLING_ADMIN"];

/// A random step; mostly the next one of what has begun, by whoever may take it.
pub fn draw(draw: &Draw<'_>, rng: &mut Rng) -> (Option<usize>, Step) {
    let model = draw.model;
    let of_accounts = |r: &usize| draw.accounts.contains(&model.relationships[*r].account);
    let all: Vec<usize> = (0..model.relationships.len()).filter(of_accounts).collect();
    let open = |r: &usize| {
        let r = &model.relationships[*r];
        r.is_active() || r.is_pending()
    };
    let open: Vec<usize> = all.iter().copied().filter(open).collect();
    if open.len() < 2 || rng.chance(10) {
        return draw_request(draw, rng);
    }
    let which = if rng.chance(5) {
        rng.pick(&all)
    } else {
        rng.pick(&open)
    };
    let r = &model.relationships[which];
    let addressed = r.customer.unwrap_or(model.principals[r.to].tenant);
    let tenant = if addressed >= draw.tenants.len() || rng.chance(8) {
        rng.pick(draw.tenants)
    } else {
        addressed
    };
    let admins = model.admins(tenant);
    let customer = (!admins.is_empty() && rng.chance(85)).then(|| rng.pick(&admins));
    let agents = model.agents(r.account, ADMIN_AGENT);
    let partner = (!agents.is_empty() && rng.chance(70)).then(|| rng.pick(&agents));
    if r.is_pending() {
        return match rng.below(10) {
            0 => (customer, Step::Decline(which, tenant)),
            1 => (partner, Step::Cancel(which)),
            2 => (partner, Step::End(which, None)),
            _ => {
                let asked: Vec<String> = r.asked.iter().cloned().collect();
                let mut roles: Words = rng.some(&asked, 3).into_iter().collect();
                if rng.chance(8) {
                    roles = words(&rng.some(DIRECTORY_ROLES, 2));
                } else if rng.chance(5) {
                    roles.clear();
                }
                (customer, Step::Accept(which, tenant, roles))
            }
        };
    }
    match rng.below(20) {
        0 => (customer, Step::TakeBack(which, tenant)),
        1 => (customer, Step::End(which, Some(tenant))),
        2 => (
            partner,
            Step::End(which, Some(tenant).filter(|_| rng.chance(50))),
        ),
        3 => (customer, Step::Accept(which, tenant, Words::new())),
        _ => (partner, draw_assignment(draw, rng, which)),
    }
}

fn draw_request(draw: &Draw<'_>, rng: &mut Rng) -> (Option<usize>, Step) {
    let model = draw.model;
    let account = rng.pick(draw.accounts);
    let members: Vec<usize> = (0..model.principals.len())
        .filter(|p| matches!(model.principals[*p].kind, Kind::Member | Kind::Identity))
        .collect();
    // Mostly those who could accept.
    let others: Vec<usize> = members
        .iter()
        .copied()
        .filter(|p| {
            let p = &model.principals[*p];
            p.kind == Kind::Member
                && p.life == Life::Active
                && !model.associated.contains(&(account, p.tenant))
        })
        .collect();
    let to = if others.is_empty() || rng.chance(15) {
        rng.pick(&members)
    } else {
        rng.pick(&others)
    };
    let agents = model.agents(account, rng.pick(&[ADMIN_AGENT, "MANAGER"]));
    let partner = (!agents.is_empty() && rng.chance(85)).then(|| rng.pick(&agents));
    let mut roles = words(&rng.some(DIRECTORY_ROLES, 3));
    if rng.chance(70) {
        roles.insert("GLOBAL_ADMIN".to_owned());
    }
    (partner, Step::Ask(account, to, roles))
}

fn draw_assignment(draw: &Draw<'_>, rng: &mut Rng, which: usize) -> Step {
    let model = draw.model;
    let r = &model.relationships[which];
    let groups = |is_near: bool| -> Vec<usize> {
        let all = draw.all.iter().copied();
        all.filter(|g| model.principals[*g].kind == Kind::Group)
            .filter(|g| {
                let group = &model.principals[*g];
                let near = model.associated.contains(&(r.account, group.tenant));
                !is_near || (near && group.life == Life::Active)
            })
            .collect()
    };
    let groups = groups(rng.chance(88));
    let to = match rng.below(10) {
        0..=3 => Holder::Role(ADMIN_AGENT),
        4 | 5 => Holder::Role(HELPDESK_AGENT),
        _ if groups.is_empty() => Holder::Role(ADMIN_AGENT),
        _ => Holder::Group(rng.pick(&groups)),
    };
    let lent: Vec<String> = r.roles.iter().cloned().collect();
    let roles = match rng.below(20) {
        0 | 1 => words(&rng.some(DIRECTORY_ROLES, 2)),
        2 => Words::new(),
        3..=15 if to == Holder::Role(HELPDESK_AGENT) => words(&["HELPDESK_ADMIN"]),
        _ if lent.is_empty() => words(&["HELPDESK_ADMIN"]),
        _ => rng.some(&lent, 3).into_iter().collect(),
    };
    Step::Assign(which, to, roles)
}

pub async fn call(world: &mut World<'_>, caller: &Caller, step: &Step) -> Result<Made, Status> {
    let mut relationships = caller.relationships();
    let name = |which: &usize| world.relationship_names[*which].clone();
    let tenant = |tenant: &usize| world.tenant_names[*tenant].clone();
    match step {
        Step::Ask(account, to, roles) => {
            let request = CreateRelationshipRequest {
                parent: world.account_names[*account].clone(),
                relationship: Some(Asked {
                    display_name: request_id(),
                    kind: RelationshipKind::DelegatedAdmin as i32,
                    customer_email: world.doors[*to].sign_in_name.clone(),
                    requested_roles: directory_on_wire(roles),
                    requested_days: 100,
                    ..Asked::default()
                }),
                ..CreateRelationshipRequest::default()
            };
            let made = relationships.create_relationship(request).await?;
            let name = made.into_inner().name;
            let request = SendRelationshipRequest {
                name: name.clone(),
                ..SendRelationshipRequest::default()
            };
            relationships.send_relationship(request).await?;
            world.relationship_names.push(name);
            Ok(Made::default())
        }
        Step::Accept(which, of, roles) => {
            let request = AcceptRelationshipRequest {
                name: name(which),
                tenant: tenant(of),
                roles: directory_on_wire(roles),
                language_code: "en".to_owned(),
                ..AcceptRelationshipRequest::default()
            };
            let done = relationships.accept_relationship(request).await;
            done.map(nothing)
        }
        Step::Decline(which, of) => {
            let request = DeclineRelationshipRequest {
                name: name(which),
                tenant: tenant(of),
                ..DeclineRelationshipRequest::default()
            };
            let done = relationships.decline_relationship(request).await;
            done.map(nothing)
        }
        Step::Cancel(which) => {
            let request = CancelRelationshipRequest {
                name: name(which),
                ..CancelRelationshipRequest::default()
            };
            let done = relationships.cancel_relationship(request).await;
            done.map(nothing)
        }
        Step::TakeBack(which, of) => {
            let request = RemoveRelationshipRolesRequest {
                name: name(which),
                tenant: tenant(of),
                ..RemoveRelationshipRolesRequest::default()
            };
            let done = relationships.remove_relationship_roles(request).await;
            done.map(nothing)
        }
        Step::End(which, of) => {
            let request = TerminateRelationshipRequest {
                name: name(which),
                tenant: of.as_ref().map(tenant).unwrap_or_default(),
                ..TerminateRelationshipRequest::default()
            };
            let done = relationships.terminate_relationship(request).await;
            done.map(nothing)
        }
        Step::Assign(which, to, roles) => {
            let mut request = SetRelationshipAssignmentRequest {
                name: name(which),
                directory_roles: directory_on_wire(roles),
                ..SetRelationshipAssignmentRequest::default()
            };
            match to {
                Holder::Role(role) => request.account_role = account_role(role),
                Holder::Group(group) => request.group = world.name(*group),
            }
            let done = relationships.set_relationship_assignment(request).await;
            done.map(nothing)
        }
    }
}

pub fn account_role(role: &str) -> i32 {
    AccountRole::from_str_name(&format!("ACCOUNT_ROLE_{role}")).unwrap() as i32
}
