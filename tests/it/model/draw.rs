//! Random callers and steps: mostly what may succeed, sometimes anything.

use super::{
    Rng, Step, Words, accounts as opened, applications, customers, groups, guests, members,
    relationships,
    state::{Held, Kind, Life, Model, NOWHERE},
    synchronization, tenants, users, words,
};

/// Principals of a world at most, deleted ones included; what more is drawn makes nobody new.
const MOST_PRINCIPALS: usize = 110;
/// Those that are there at once.
const MOST_THERE: usize = 26;

/// What a step is drawn from.
pub struct Draw<'a> {
    pub model: &'a Model,
    pub accounts: &'a [usize],
    pub tenants: &'a [usize],
    pub caller: usize,
    /// Everybody of a tenant.
    pub all: Vec<usize>,
    /// Those of the caller's tenant.
    home: Vec<usize>,
}

impl<'a> Draw<'a> {
    fn new(
        model: &'a Model,
        accounts: &'a [usize],
        tenants: &'a [usize],
        caller: usize,
    ) -> Draw<'a> {
        let all: Vec<usize> = (0..model.principals.len())
            .filter(|p| model.principals[*p].tenant != NOWHERE)
            .collect();
        let tenant = model.principals[caller].tenant;
        let home = all
            .iter()
            .copied()
            .filter(|p| model.principals[*p].tenant == tenant)
            .collect::<Vec<_>>();
        let home = if home.is_empty() { all.clone() } else { home };
        Draw {
            model,
            accounts,
            tenants,
            caller,
            all,
            home,
        }
    }

    /// Mostly those of the caller's tenant, sometimes anybody.
    pub fn near(&self, rng: &mut Rng) -> &[usize] {
        if rng.chance(88) {
            &self.home
        } else {
            &self.all
        }
    }

    /// The same of users.
    pub fn people(&self, rng: &mut Rng) -> Vec<usize> {
        let near = self.near(rng).iter().copied();
        near.filter(|p| users::is_user(self.model, *p)).collect()
    }

    pub fn tenant(&self, rng: &mut Rng) -> usize {
        let own = self.model.principals[self.caller].tenant;
        if own == NOWHERE || rng.chance(8) {
            rng.pick(self.tenants)
        } else {
            own
        }
    }

    pub fn users_of(&self, tenant: usize) -> Vec<usize> {
        let all = self.all.iter().copied();
        all.filter(|p| users::is_user(self.model, *p) && self.model.principals[*p].tenant == tenant)
            .collect()
    }

    /// Those that are there, and one that isn't any more.
    pub fn of_kind(&self, kind: Kind, tenant: usize) -> Vec<usize> {
        let such = |p: &&usize| {
            let p = &self.model.principals[**p];
            p.kind == kind && p.tenant == tenant
        };
        let is_there = |p: &&usize| self.model.principals[**p].life != Life::Deleted;
        let gone = self.all.iter().filter(such).find(|p| !is_there(p));
        let these = self.all.iter().filter(such).filter(is_there);
        let these: Vec<usize> = these.copied().collect();
        if these.is_empty() {
            these
        } else {
            these.into_iter().chain(gone.copied()).collect()
        }
    }

    pub fn members_of(&self, account: usize) -> Vec<usize> {
        let members = self.model.members.range((account, 0)..(account + 1, 0));
        members.map(|((_, p), _)| *p).collect()
    }

    pub fn has_room(&self) -> bool {
        let there = |p: &&usize| self.model.principals[**p].life != Life::Deleted;
        self.all.len() < MOST_PRINCIPALS && self.all.iter().filter(there).count() < MOST_THERE
    }
}

/// Who holds something that makes steps go.
fn powerful(model: &Model, accounts: &[usize], who: usize) -> bool {
    let p = &model.principals[who];
    let holds = |a: &usize| {
        let sources = model.sources(who, *a);
        sources.iter().any(|held| **held != Held::default())
    };
    model.signs_in(who)
        && (p.roles.contains("GLOBAL_ADMIN")
            || (p.tenant != NOWHERE && model.tenants[p.tenant].agent == Some(who))
            || accounts.iter().any(holds))
}

/// Who may give something, but not all.
fn lesser(model: &Model, accounts: &[usize], who: usize) -> bool {
    accounts.iter().any(|a| {
        let sources = model.sources(who, *a);
        let has = |role: &str| sources.iter().any(|held| held.roles.contains(role));
        let assigns = sources
            .iter()
            .any(|held| held.single.contains("users.assign"));
        !has("MANAGER") && (has("ADMIN_AGENT") || assigns)
    })
}

/// A random caller: mostly somebody who holds something.
fn caller(model: &Model, rng: &mut Rng, accounts: &[usize]) -> usize {
    let all: Vec<usize> = (0..model.principals.len())
        .filter(|p| model.principals[*p].kind != Kind::Group)
        .collect();
    let strong: Vec<usize> = all
        .iter()
        .copied()
        .filter(|p| powerful(model, accounts, *p))
        .collect();
    let weak: Vec<usize> = strong
        .iter()
        .copied()
        .filter(|p| lesser(model, accounts, *p))
        .collect();
    if !weak.is_empty() && rng.chance(30) {
        return rng.pick(&weak);
    }
    if strong.is_empty() || rng.chance(15) {
        rng.pick(&all)
    } else {
        rng.pick(&strong)
    }
}

/// A random caller with its step.
pub fn draw(model: &Model, rng: &mut Rng, accounts: &[usize], tenants: &[usize]) -> (usize, Step) {
    let by = caller(model, rng, accounts);
    let from = Draw::new(model, accounts, tenants, by);
    let step = match rng.below(118) {
        100..=107 => {
            let (as_other, step) = relationships::draw(&from, rng);
            return (as_other.unwrap_or(by), Step::Relationships(step));
        }
        108.. => match customers::draw(&from, rng) {
            Some((as_other, step)) => return (as_other.unwrap_or(by), Step::Customers(step)),
            None => Step::Members(members::draw(&from, rng)),
        },
        0..=30 => Step::Members(members::draw(&from, rng)),
        31..=39 => {
            let (as_other, step) = opened::draw(&from, rng);
            return (as_other.unwrap_or(by), Step::Accounts(step));
        }
        40..=61 => Step::Users(users::draw(&from, rng)),
        62..=73 => Step::Groups(groups::draw(&from, rng)),
        74..=81 => Step::Applications(applications::draw(&from, rng)),
        82..=89 => {
            let (as_other, step) = guests::draw(&from, rng);
            return (as_other.unwrap_or(by), Step::Guests(step));
        }
        90..=92 => {
            let (as_other, step) = tenants::draw(&from, rng);
            return (as_other.unwrap_or(by), Step::Tenants(step));
        }
        _ => Step::Synchronization(synchronization::draw(&from, rng)),
    };
    (by, step)
}

pub fn some_rights(rng: &mut Rng) -> Held {
    const ROLES: &[&str] = &[
        "MANAGER",
        "MANAGER",
        "DEVELOPER",
        "ADMIN_AGENT",
        "ADMIN_AGENT",
        "HELPDESK_AGENT",
    ];
    const SINGLE: &[&str] = &[
        "users.assign",
        "members.remove",
        "members.read",
        "tenants.manage",
        "offers.read",
        "audit.read",
        "statements.read",
    ];
    let mut held = Held::default();
    if rng.chance(65) {
        held.roles = words(&rng.some(ROLES, 2));
    }
    if rng.chance(6) {
        held.roles
            .insert(rng.pick(&["FINANCE", "OWNER"]).to_owned());
    }
    if rng.chance(25) {
        held.single = words(&rng.some(SINGLE, 2));
    }
    if rng.chance(4) {
        let bound = ["owner.tie", "payouts.settings.read", "relationships.assign"];
        held.single.insert(rng.pick(&bound).to_owned());
    }
    held
}

pub fn some_directory_roles(rng: &mut Rng) -> Words {
    if rng.chance(20) {
        return Words::new();
    }
    words(&rng.some(&["GLOBAL_ADMIN", "BILLING_ADMIN", "HELPDESK_ADMIN"], 2))
}
