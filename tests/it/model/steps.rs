//! Random callers and steps: mostly what may succeed, sometimes anything.

use super::{Held, Life, Model, Rng, Step, Words, words};

impl Model {
    /// A random step that a caller takes.
    pub fn step(
        &self,
        rng: &mut Rng,
        accounts: &[usize],
        tenants: &[usize],
        caller: usize,
    ) -> Step {
        let account = rng.pick(accounts);
        let people: Vec<usize> = (0..self.users.len())
            .filter(|u| tenants.contains(&self.users[*u].tenant))
            .collect();
        let home: Vec<usize> = people
            .iter()
            .copied()
            .filter(|u| self.users[*u].tenant == self.users[caller].tenant)
            .collect();
        let members: Vec<usize> = people
            .iter()
            .copied()
            .filter(|u| self.members.contains_key(&(account, *u)))
            .collect();
        // Mostly what may succeed, sometimes anybody.
        let near = if rng.chance(85) { &home } else { &people };
        let inside = if members.is_empty() || rng.chance(10) {
            &people
        } else {
            &members
        };
        let target = rng.pick(near);
        let life = |life: Life, rng: &mut Rng| {
            let such: Vec<usize> = near
                .iter()
                .copied()
                .filter(|u| self.users[*u].life == life)
                .collect();
            if such.is_empty() || rng.chance(15) {
                target
            } else {
                rng.pick(&such)
            }
        };
        match rng.below(26) {
            0..=3 => Step::Add(account, rng.some(near, 3), some_rights(rng)),
            4..=8 => {
                let chosen = rng.some(inside, 3);
                let changes = chosen.into_iter().map(|u| (u, some_rights(rng)));
                Step::Update(account, changes.collect())
            }
            9 | 10 => Step::Remove(account, rng.some(inside, 2), rng.chance(30)),
            11 => Step::Drop(account, some_rights(rng)),
            12 => Step::Leave(account),
            13 => Step::GrantFinance(account, rng.pick(inside)),
            14 => Step::RevokeFinance(account, rng.pick(inside)),
            15 if rng.chance(20) => Step::RestoreManager(account, rng.pick(inside)),
            15..=17 => Step::Roles(target, some_directory_roles(rng)),
            18 if people.len() < 14 => {
                let tenant = self.users[target].tenant;
                let in_account = rng.chance(60);
                let memberships = if in_account {
                    vec![(account, some_rights(rng))]
                } else {
                    Vec::new()
                };
                let roles = if rng.chance(50) {
                    some_directory_roles(rng)
                } else {
                    Words::new()
                };
                Step::Create(tenant, rng.chance(80), roles, memberships)
            }
            18 | 19 => Step::Disable(life(Life::Active, rng)),
            20 => Step::Enable(life(Life::Disabled, rng)),
            21 => Step::Delete(life(Life::Active, rng)),
            22 => Step::Undelete(life(Life::Deleted, rng)),
            23 => Step::Replace(target, rng.pick(near)),
            24 => Step::Associate(account, rng.pick(&people)),
            _ => Step::Dissociate(account, rng.pick(tenants)),
        }
    }

    /// A random caller: mostly somebody who holds something.
    pub fn caller(&self, rng: &mut Rng, accounts: &[usize], tenants: &[usize]) -> usize {
        let all: Vec<usize> = (0..self.users.len())
            .filter(|u| tenants.contains(&self.users[*u].tenant))
            .collect();
        let powerful: Vec<usize> = all
            .iter()
            .copied()
            .filter(|u| {
                let assigns = |a: &usize| {
                    let held = self.members.get(&(*a, *u));
                    held.is_some_and(|h| !h.roles.is_empty() || !h.single.is_empty())
                };
                self.active(*u)
                    && (self.users[*u].roles.contains("GLOBAL_ADMIN")
                        || accounts.iter().any(assigns))
            })
            .collect();
        let lesser: Vec<usize> = powerful
            .iter()
            .copied()
            .filter(|u| {
                accounts.iter().any(|a| {
                    let held = self.members.get(&(*a, *u));
                    held.is_some_and(|h| {
                        !h.roles.contains("MANAGER")
                            && (h.roles.contains("ADMIN_AGENT")
                                || h.single.contains("users.assign"))
                    })
                })
            })
            .collect();
        if !lesser.is_empty() && rng.chance(40) {
            return rng.pick(&lesser);
        }
        if powerful.is_empty() || rng.chance(20) {
            rng.pick(&all)
        } else {
            rng.pick(&powerful)
        }
    }
}

fn some_rights(rng: &mut Rng) -> Held {
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

fn some_directory_roles(rng: &mut Rng) -> Words {
    if rng.chance(20) {
        return Words::new();
    }
    words(&rng.some(&["GLOBAL_ADMIN", "BILLING_ADMIN", "HELPDESK_ADMIN"], 2))
}
