//! Random sequences of calls against a small model of who may do what (ROL-7, ROL-9, ATK-13). The model knows roles as sets of
//! permissions from `GetRoleTable`, and the exceptions from their table; else nothing of the server's. `ENTENTE_MODEL_SEED` replays a
//! run (0 takes a new one), `ENTENTE_MODEL_SEQUENCES` says how many sequences run on each database.

mod steps;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use entente::access::exceptions::EXCEPTIONS;

use crate::harness::{Database, Site};

type Words = BTreeSet<String>;
/// Why a call is refused: every reason that applies, since the model doesn't know the order of checks.
type Reasons = BTreeSet<&'static str>;

fn words(list: &[&str]) -> Words {
    list.iter().map(|w| (*w).to_owned()).collect()
}

/// Chance that can be repeated (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Up to `most` different ones, at least one.
    fn some<T: Clone + Ord>(&mut self, from: &[T], most: usize) -> Vec<T> {
        let count = 1 + self.below(most);
        let chosen: BTreeSet<T> = (0..count).map(|_| self.pick(from)).collect();
        chosen.into_iter().collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Active,
    Disabled,
    Deleted,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    roles: Words,
    single: Words,
}

#[derive(Clone, Debug)]
struct User {
    tenant: usize,
    life: Life,
    /// Whether it has a recovery address.
    email: bool,
    roles: Words,
    /// The account through which it was made.
    through: Option<usize>,
}

/// Roles and what they may do.
struct Table(BTreeMap<(String, String), Words>);

impl Table {
    fn role(&self, scope: &str, role: &str) -> &Words {
        &self.0[&(scope.to_owned(), role.to_owned())]
    }
}

/// What is given as part of a role only.
fn role_bound(permission: &str) -> bool {
    let whole = [
        "finance.grant",
        "delegated.act",
        "relationships.assign",
        "account.close",
        "tenants.remove_last",
        "members.restore_manager",
    ];
    whole.contains(&permission)
        || ["payouts.", "tax.", "owner."]
            .iter()
            .any(|p| permission.starts_with(p))
}

/// What everybody holds.
#[derive(Clone, Debug, Default)]
struct Model {
    users: Vec<User>,
    members: BTreeMap<(usize, usize), Held>,
    associated: BTreeSet<(usize, usize)>,
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize, Vec<usize>, Held),
    Update(usize, Vec<(usize, Held)>),
    Remove(usize, Vec<usize>, bool),
    Drop(usize, Held),
    Leave(usize),
    GrantFinance(usize, usize),
    RevokeFinance(usize, usize),
    RestoreManager(usize, usize),
    Roles(usize, Words),
    /// Tenant, whether with a recovery address, directory roles, memberships.
    Create(usize, bool, Words, Vec<(usize, Held)>),
    Disable(usize),
    Enable(usize),
    Delete(usize),
    Undelete(usize),
    Replace(usize, usize),
    /// Account, and whose token.
    Associate(usize, usize),
    Dissociate(usize, usize),
}

fn check(faults: Reasons) -> Result<(), Reasons> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

fn unless(holds: bool, reason: &'static str) -> Result<(), Reasons> {
    check(if holds {
        Reasons::new()
    } else {
        Reasons::from([reason])
    })
}

impl Model {
    fn on_tenant(&self, table: &Table, user: usize, tenant: usize) -> Words {
        let user = &self.users[user];
        let mut may = Words::new();
        if user.tenant == tenant {
            for role in &user.roles {
                may.extend(table.role("tenant", role).iter().cloned());
            }
        }
        may
    }

    fn on_account(&self, table: &Table, user: usize, account: usize) -> Words {
        let Some(held) = self.members.get(&(account, user)) else {
            return Words::new();
        };
        let mut may = table.role("account", "MEMBER").clone();
        may.extend(held.single.iter().cloned());
        for role in &held.roles {
            may.extend(table.role("account", role).iter().cloned());
        }
        may
    }

    fn active(&self, user: usize) -> bool {
        self.users[user].life == Life::Active
    }

    fn active_holders(&self, account: usize, role: &str) -> usize {
        let mine = self.members.iter().filter(|((a, _), _)| *a == account);
        mine.filter(|((_, u), held)| self.active(*u) && held.roles.contains(role))
            .count()
    }

    fn admins(&self, tenant: usize) -> Vec<usize> {
        (0..self.users.len())
            .filter(|u| self.active(*u) && self.users[*u].tenant == tenant)
            .filter(|u| self.users[*u].roles.contains("GLOBAL_ADMIN"))
            .collect()
    }

    /// Whoever can't act anyway is no loss: only an account that had an active manager must keep one.
    fn keeps_manager(&self, before: usize, account: usize) -> Result<(), Reasons> {
        let fine = before == 0 || self.active_holders(account, "MANAGER") > 0;
        unless(fine, "LAST_MANAGER")
    }

    fn keeps_admin(&self, user: usize, lost: &Words) -> Result<(), Reasons> {
        let tenant = self.users[user].tenant;
        let fine = !lost.contains("GLOBAL_ADMIN") || !self.admins(tenant).is_empty();
        unless(fine, "LAST_GLOBAL_ADMIN")
    }

    /// ROL-7: what changes is held by who changes it, but for the exceptions.
    fn give(
        &mut self,
        table: &Table,
        caller: usize,
        method: &str,
        (account, to): (usize, usize),
        new: &Held,
    ) -> Result<(), Reasons> {
        let mine = self.on_account(table, caller, account);
        let known = self.members.get(&(account, to)).cloned();
        let old = known.unwrap_or_default();
        let mut faults = Reasons::new();
        let added: Words = new.roles.difference(&old.roles).cloned().collect();
        if new.single.difference(&old.single).any(|p| role_bound(p))
            || added.contains("OWNER")
            || (!method.ends_with("Finance")
                && old.roles.contains("FINANCE") != new.roles.contains("FINANCE"))
        {
            faults.insert("NOT_ASSIGNABLE");
        }
        if !old
            .single
            .symmetric_difference(&new.single)
            .all(|p| mine.contains(p))
        {
            faults.insert("CANNOT_GRANT_WHAT_YOU_LACK");
        }
        for role in old.roles.symmetric_difference(&new.roles) {
            let listed = added.contains(role)
                && EXCEPTIONS
                    .iter()
                    .any(|e| e.method == method && e.gives.contains(&role.as_str()));
            let excepted = listed
                && (role != "ADMIN_AGENT"
                    || (caller != to
                        && self.members[&(account, caller)].roles.contains("MANAGER")
                        && self.active_holders(account, "ADMIN_AGENT") == 0));
            if !excepted && !table.role("account", role).is_subset(&mine) {
                faults.insert("CANNOT_GRANT_WHAT_YOU_LACK");
            }
        }
        check(faults)?;
        let before = self.active_holders(account, "MANAGER");
        self.members.insert((account, to), new.clone());
        self.keeps_manager(before, account)
    }

    fn take(&mut self, account: usize, user: usize) -> Result<(), Reasons> {
        let before = self.active_holders(account, "MANAGER");
        self.members.remove(&(account, user));
        self.keeps_manager(before, account)
    }

    fn set_roles(
        &mut self,
        table: &Table,
        caller: usize,
        to: usize,
        new: &Words,
    ) -> Result<(), Reasons> {
        let user = &self.users[to];
        let mine = self.on_tenant(table, caller, user.tenant);
        let mut faults = Reasons::new();
        if new.contains("GLOBAL_ADMIN") && !user.email {
            faults.insert("INVALID_FIELDS");
        }
        let old = user.roles.clone();
        for role in old.symmetric_difference(new) {
            if !table.role("tenant", role).is_subset(&mine) {
                faults.insert("CANNOT_GRANT_WHAT_YOU_LACK");
            }
        }
        check(faults)?;
        self.users[to].roles = new.clone();
        self.keeps_admin(to, &old.difference(new).cloned().collect())
    }

    fn delete(&mut self, user: usize) -> Result<(), Reasons> {
        let roles = std::mem::take(&mut self.users[user].roles);
        self.users[user].life = Life::Deleted;
        self.members.retain(|(_, u), _| *u != user);
        self.keeps_admin(user, &roles)
    }

    fn disable(&mut self, user: usize) -> Result<(), Reasons> {
        unless(self.active(user), "WRONG_STATE")?;
        self.users[user].life = Life::Disabled;
        let roles = self.users[user].roles.clone();
        self.keeps_admin(user, &roles)
    }

    /// Whoever is a member, or the refusal.
    fn found(&self, account: usize, user: usize) -> Result<(), Reasons> {
        let there = self.members.contains_key(&(account, user));
        unless(there, "RESOURCE_NOT_FOUND")
    }

    /// What becomes of all by one call, or every reason why it is refused.
    fn judge(&self, table: &Table, caller: usize, step: &Step) -> Result<Self, Reasons> {
        let mut next = self.clone();
        if let Step::Replace(old, successor) = step {
            // A name outside of the proven scope is a bad field, before anything is asked.
            let same = self.users[*old].tenant == self.users[*successor].tenant;
            unless(same, "INVALID_FIELDS")?;
        }
        unless(self.active(caller), "TOKEN_INVALID")?;
        let on_account = |account: usize, permission: &str| {
            let holds = self.on_account(table, caller, account).contains(permission);
            unless(holds, "PERMISSION_MISSING")
        };
        let on_user = |user: usize, permission: &str| {
            let tenant = self.users[user].tenant;
            let holds = self.on_tenant(table, caller, tenant).contains(permission);
            unless(holds, "PERMISSION_MISSING")
        };
        let home = self.users[caller].tenant;
        match step {
            Step::Add(account, targets, held) => {
                if on_account(*account, "users.assign").is_err() {
                    for target in targets {
                        on_user(*target, "users.create")?;
                    }
                    unless(*held == Held::default(), "PERMISSION_MISSING")?;
                }
                for target in targets {
                    let tenant = self.users[*target].tenant;
                    let mut faults = Reasons::new();
                    if tenant != home {
                        faults.insert("OTHER_TENANT");
                    }
                    if !self.associated.contains(&(*account, tenant)) || !self.active(*target) {
                        faults.insert("NOT_IN_ASSOCIATED_TENANT");
                    }
                    if self.members.contains_key(&(*account, *target)) {
                        faults.insert("ALREADY_MEMBER");
                    }
                    check(faults)?;
                    next.give(table, caller, "AddMembers", (*account, *target), held)?;
                }
            }
            Step::Update(account, changes) => {
                on_account(*account, "users.assign")?;
                let (managers, others): (Vec<_>, Vec<_>) = changes
                    .iter()
                    .partition(|(_, held)| held.roles.contains("MANAGER"));
                for (target, held) in managers.into_iter().chain(others) {
                    next.found(*account, *target)?;
                    next.give(table, caller, "UpdateMembers", (*account, *target), held)?;
                }
            }
            Step::Remove(account, targets, delete) => {
                on_account(*account, "members.remove")?;
                for target in targets {
                    next.found(*account, *target)?;
                }
                for target in targets {
                    let mut faults = Reasons::new();
                    if *delete && on_user(*target, "users.delete").is_err() {
                        faults.insert("PERMISSION_MISSING");
                    }
                    if *delete && self.users[*target].through != Some(*account) {
                        faults.insert("NOT_CREATED_HERE");
                    }
                    check(faults)?;
                }
                for target in targets {
                    next.take(*account, *target)?;
                }
                for target in targets.iter().filter(|_| *delete) {
                    next.delete(*target)?;
                }
            }
            Step::Drop(account, dropped) => {
                let old = self.members.get(&(*account, caller)).cloned();
                let old = old.ok_or_else(|| Reasons::from(["PERMISSION_MISSING"]))?;
                let new = Held {
                    roles: old.roles.difference(&dropped.roles).cloned().collect(),
                    single: old.single.difference(&dropped.single).cloned().collect(),
                };
                let before = self.active_holders(*account, "MANAGER");
                next.members.insert((*account, caller), new);
                next.keeps_manager(before, *account)?;
            }
            Step::Leave(account) => {
                let member = self.members.contains_key(&(*account, caller));
                unless(member, "PERMISSION_MISSING")?;
                next.take(*account, caller)?;
            }
            Step::GrantFinance(account, target) => {
                on_account(*account, "finance.grant")?;
                next.found(*account, *target)?;
                let mut held = self.members[&(*account, *target)].clone();
                held.roles.insert("FINANCE".to_owned());
                next.give(table, caller, "GrantFinance", (*account, *target), &held)?;
            }
            Step::RevokeFinance(account, target) => {
                on_account(*account, "finance.grant")?;
                next.found(*account, *target)?;
                let mut held = self.members[&(*account, *target)].clone();
                held.roles.remove("FINANCE");
                next.give(table, caller, "RevokeFinance", (*account, *target), &held)?;
            }
            Step::RestoreManager(account, _) => {
                // Nobody is an owner here.
                on_account(*account, "members.restore_manager")?;
            }
            Step::Roles(target, roles) => {
                on_user(*target, "directory_roles.assign")?;
                unless(self.users[*target].life != Life::Deleted, "WRONG_STATE")?;
                next.set_roles(table, caller, *target, roles)?;
            }
            Step::Create(tenant, email, roles, memberships) => {
                let mine = self.on_tenant(table, caller, *tenant);
                unless(mine.contains("users.create"), "PERMISSION_MISSING")?;
                if !roles.is_empty() {
                    unless(
                        mine.contains("directory_roles.assign"),
                        "PERMISSION_MISSING",
                    )?;
                }
                for (account, _) in memberships {
                    on_account(*account, "users.assign")?;
                }
                next.users.push(User {
                    tenant: *tenant,
                    life: Life::Active,
                    email: *email,
                    roles: Words::new(),
                    through: memberships.first().map(|(account, _)| *account),
                });
                let new = next.users.len() - 1;
                next.set_roles(table, caller, new, roles)?;
                for (account, held) in memberships {
                    let associated = self.associated.contains(&(*account, *tenant));
                    unless(associated, "NOT_IN_ASSOCIATED_TENANT")?;
                    next.give(table, caller, "CreateUser", (*account, new), held)?;
                }
            }
            Step::Disable(target) => {
                on_user(*target, "users.disable")?;
                next.disable(*target)?;
            }
            Step::Enable(target) => {
                on_user(*target, "users.disable")?;
                let disabled = self.users[*target].life == Life::Disabled;
                unless(disabled, "WRONG_STATE")?;
                next.users[*target].life = Life::Active;
            }
            Step::Delete(target) => {
                on_user(*target, "users.delete")?;
                unless(self.users[*target].life != Life::Deleted, "WRONG_STATE")?;
                next.delete(*target)?;
            }
            Step::Undelete(target) => {
                on_user(*target, "users.delete")?;
                unless(self.users[*target].life == Life::Deleted, "WRONG_STATE")?;
                next.users[*target].life = Life::Active;
            }
            Step::Replace(old, successor) => {
                on_user(*old, "directory_roles.assign")?;
                on_user(*old, "users.disable")?;
                let mut faults = Reasons::new();
                if old == successor {
                    faults.insert("INVALID_FIELDS");
                }
                if !self.users[*old].roles.contains("GLOBAL_ADMIN") || !self.active(*successor) {
                    faults.insert("WRONG_STATE");
                }
                check(faults)?;
                let mut roles = self.users[*successor].roles.clone();
                roles.insert("GLOBAL_ADMIN".to_owned());
                next.set_roles(table, caller, *successor, &roles)?;
                next.disable(*old)?;
            }
            Step::Associate(account, admin) => {
                on_account(*account, "tenants.manage")?;
                let tenant = self.users[*admin].tenant;
                let mut faults = Reasons::new();
                if !self.active(*admin) {
                    faults.insert("TOKEN_INVALID");
                } else if !self
                    .on_tenant(table, *admin, tenant)
                    .contains("tenant.update")
                {
                    faults.insert("PERMISSION_MISSING");
                }
                check(faults)?;
                let new = next.associated.insert((*account, tenant));
                unless(new, "ALREADY_ASSOCIATED")?;
            }
            Step::Dissociate(account, tenant) => {
                on_account(*account, "tenants.manage")?;
                let there = next.associated.remove(&(*account, *tenant));
                unless(there, "RESOURCE_NOT_FOUND")?;
                let mut faults = Reasons::new();
                if home == *tenant {
                    faults.insert("SIGNED_IN_THROUGH_TENANT");
                }
                if !next.associated.iter().any(|(a, _)| a == account) {
                    faults.insert("LAST_TENANT");
                }
                check(faults)?;
                let of_tenant = |u: &usize| self.users[*u].tenant == *tenant;
                let before = self.active_holders(*account, "MANAGER");
                next.members
                    .retain(|(a, u), _| a != account || !of_tenant(u));
                next.keeps_manager(before, *account)?;
            }
        }
        Ok(next)
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

async fn run(site: &Site, seed: u64, sequences: u64) {
    let database = site.database;
    let mut rng = Rng(seed);
    let mut world = world::World::new(site).await;
    for sequence in 0..sequences {
        if sequence % 15 == 0 {
            world.settle_anew().await;
        }
        let at = format!("{database:?}, seed {seed}, sequence {sequence}");
        world.open_accounts(&mut rng).await;
        for _ in 0..30 {
            let (caller, step) = world.draw(&mut rng);
            world.take(caller, &step, &at).await;
        }
        world.compare(&at).await;
    }
    world.tell(database);
}

// proves ROL-7, ROL-9, ATK-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sequence_of_calls_gives_anybody_more_than_the_callers_could_give() {
    // A gate must not fail by chance for what it did not change: it always runs the same sequences. New ones run nightly.
    let seed = match number("ENTENTE_MODEL_SEED", 20_261_121) {
        0 => u64::from_be_bytes(entente::env::Env::system().bytes::<8>()),
        seed => seed,
    };
    let sequences = number("ENTENTE_MODEL_SEQUENCES", 60);
    println!("ENTENTE_MODEL_SEED={seed}");
    // Opened one after the other: the first of its kind makes a template, and blocks meanwhile.
    let sqlite = Site::open(Database::Sqlite).await;
    let postgres = Site::open(Database::Postgres).await;
    tokio::join!(
        run(&sqlite, seed, sequences),
        run(&postgres, seed, sequences)
    );
}
