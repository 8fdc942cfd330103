//! What everybody is and holds, and what follows from it: who can act, which permissions, who counts as somebody's last.

use std::collections::{BTreeMap, BTreeSet};

use entente::access::exceptions::EXCEPTIONS;

use super::{
    Reasons, Words, check,
    relationships::{Holder, Relationship},
    unless,
};

/// The tenant of personal identities.
pub const NOWHERE: usize = usize::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Member,
    Guest,
    Identity,
    Group,
    Application,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Active,
    Disabled,
    Deleted,
    /// A guest that didn't accept yet.
    Invited,
}

/// Whose a password is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Password {
    /// The person chose it.
    Own,
    /// A temporary one, which somebody was shown.
    Temporary,
    /// The person is to choose it by a link that a partner had mailed.
    Mailed,
    /// That link is good for nothing any more.
    Void,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub roles: Words,
    pub single: Words,
}

impl Held {
    /// Whether another one has all of it, role for role.
    pub fn is_within(&self, other: &Self) -> bool {
        self.roles.is_subset(&other.roles) && self.single.is_subset(&other.single)
    }
}

/// Where a guest was invited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// What somebody signs in as.
    Of(usize),
    /// One that nobody has, by its number.
    New(usize),
}

/// A person, a group or a program.
#[derive(Clone, Debug)]
pub struct Principal {
    pub kind: Kind,
    pub tenant: usize,
    pub life: Life,
    /// Whether it has a recovery address.
    pub email: bool,
    /// Directory roles.
    pub roles: Words,
    /// Whether it has had some.
    pub had_roles: bool,
    /// The account through which it was made.
    pub through: Option<usize>,
    /// Whose credential a guest signs in with.
    pub home: Option<usize>,
    /// Where a guest was invited.
    pub address: Option<Address>,
    /// Whether it has a password of its own.
    pub credential: bool,
    pub password: Password,
    /// Whether its recovery address is one that a partner gave.
    pub given: bool,
    /// The relationship by which it was made.
    pub made_by: Option<usize>,
    /// The relationship by which its password was shown to a partner, until the customer sets another one.
    pub shown_by: Option<usize>,
    /// Whether somebody else set its credential within 72 hours (ROL-13).
    pub asleep: bool,
    /// What others woke of it since, by account.
    pub woken: BTreeMap<usize, Words>,
    /// Its ID in the local directory.
    pub external: Option<usize>,
    /// Whether the local directory has disabled it, and if an admin had before.
    pub off: Option<bool>,
    /// Who is in a group.
    pub inside: BTreeSet<usize>,
    /// Keys of an application.
    pub keys: usize,
    /// Counts what ended its sessions.
    pub ended: usize,
}

impl Principal {
    pub fn new(kind: Kind, tenant: usize) -> Self {
        Self {
            kind,
            tenant,
            life: Life::Active,
            email: false,
            roles: Words::new(),
            had_roles: false,
            through: None,
            home: None,
            address: None,
            credential: false,
            password: Password::Temporary,
            given: false,
            made_by: None,
            shown_by: None,
            asleep: false,
            woken: BTreeMap::new(),
            external: None,
            off: None,
            inside: BTreeSet::new(),
            keys: 0,
            ended: 0,
        }
    }

    pub fn is_person(&self) -> bool {
        matches!(self.kind, Kind::Member | Kind::Guest | Kind::Identity)
    }

    /// Whether a person has a credential, and can use it: by a password, a link, or the recovery address if no partner gave that.
    fn has_way_in(&self) -> bool {
        let comes_back = self.email && !self.given;
        self.credential && (self.password != Password::Void || comes_back)
    }
}

#[derive(Clone, Debug)]
pub struct Tenant {
    pub active: bool,
    pub synchronized: bool,
    /// The application that may synchronise it.
    pub agent: Option<usize>,
}

/// What an invitation promises, and in whose name.
#[derive(Clone, Debug)]
pub struct Promise {
    pub inviter: usize,
    pub on: Option<(usize, Held)>,
}

/// How far somebody has come who is to own an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Invited,
    /// A reviewer is to consent.
    Awaiting,
    /// Accepted from the owner; seven days later it would begin.
    HandingOver,
}

/// Who is to own an account, and by whose invitation.
#[derive(Clone, Copy, Debug)]
pub struct Tie {
    pub who: usize,
    pub by: usize,
    pub transfer: bool,
    pub way: Way,
}

impl Tie {
    pub fn new(who: usize, by: usize, transfer: bool) -> Self {
        Self {
            who,
            by,
            transfer,
            way: Way::Invited,
        }
    }
}

/// Roles and what they may do.
pub struct Table(pub BTreeMap<(String, String), Words>);

impl Table {
    pub fn role(&self, scope: &str, role: &str) -> &Words {
        &self.0[&(scope.to_owned(), role.to_owned())]
    }

    /// What a set gives on an account.
    pub fn held(&self, held: &Held) -> Words {
        let roles = held.roles.iter().flat_map(|r| self.role("account", r));
        roles.chain(&held.single).cloned().collect()
    }
}

/// What is given as part of a role only (ROL-12).
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

/// What sleeps (ROL-13); `finance.grant` with it, since FINANCE is handed on by it.
fn sleeps(permission: &str) -> bool {
    ["delegated.act", "finance.grant"].contains(&permission)
        || ["payouts.", "tax.", "owner."]
            .iter()
            .any(|p| permission.starts_with(p))
}

/// What begins seven days later for an owner who was tied to an account (ACC-20).
fn begins_later(permission: &str) -> bool {
    permission == "finance.grant"
        || ["payouts.", "tax."]
            .iter()
            .any(|p| permission.starts_with(p))
}

/// What everybody holds.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub principals: Vec<Principal>,
    pub tenants: Vec<Tenant>,
    /// What members hold directly, by account.
    pub members: BTreeMap<(usize, usize), Held>,
    pub associated: BTreeSet<(usize, usize)>,
    /// By guest.
    pub promises: BTreeMap<usize, Promise>,
    /// Who is to own an account, by account.
    pub ties: BTreeMap<usize, Tie>,
    /// Accounts whose owner was tied to them within seven days.
    pub late: BTreeSet<usize>,
    pub drafts: BTreeSet<usize>,
    pub suspended: BTreeSet<usize>,
    pub relationships: Vec<Relationship>,
}

impl Model {
    pub fn is_active(&self, tenant: usize) -> bool {
        tenant == NOWHERE || self.tenants[tenant].active
    }

    /// Whether it exists and isn't shut out, with its tenant, and a guest with its home (INV-5).
    pub fn can_act(&self, who: usize) -> bool {
        let p = &self.principals[who];
        let home = p.home.is_none_or(|home| self.can_act(home));
        p.life == Life::Active && self.is_active(p.tenant) && home
    }

    /// The person: a guest is the one that it is at home.
    pub fn person(&self, who: usize) -> usize {
        self.principals[who].home.unwrap_or(who)
    }

    /// Whether it can act, and get in.
    pub fn signs_in(&self, who: usize) -> bool {
        let way_in = match self.principals[who].kind {
            Kind::Application => self.principals[who].keys > 0,
            Kind::Group => false,
            _ => self.principals[self.person(who)].has_way_in(),
        };
        way_in && self.can_act(who)
    }

    /// Whether it counts as somebody who is left (ROL-9): nobody does who is still to choose a password.
    pub fn counts(&self, who: usize) -> bool {
        let password = self.principals[self.person(who)].password;
        let has_one = matches!(password, Password::Own | Password::Temporary);
        has_one && self.signs_in(who)
    }

    pub fn asleep(&self, who: usize) -> bool {
        self.principals[who].asleep || self.principals[self.person(who)].asleep
    }

    pub fn ended(&self, who: usize) -> usize {
        let p = &self.principals[who];
        p.ended + p.home.map_or(0, |home| self.principals[home].ended)
    }

    pub fn groups_of(&self, who: usize) -> impl Iterator<Item = usize> {
        let groups = self.principals.iter().enumerate();
        groups
            .filter(move |(_, g)| g.life == Life::Active && g.inside.contains(&who))
            .map(|(i, _)| i)
    }

    /// What it holds on an account, directly and by groups (ROL-6, GRP-3).
    pub fn sources(&self, who: usize, account: usize) -> Vec<&Held> {
        let of = |p| self.members.get(&(account, p));
        let by_groups = self.groups_of(who).filter_map(of);
        of(who).into_iter().chain(by_groups).collect()
    }

    /// All permissions on an account, asleep or not.
    pub fn all_on_account(&self, table: &Table, who: usize, account: usize) -> Words {
        let sources = self.sources(who, account);
        if sources.is_empty() {
            return Words::new();
        }
        let base = table.role("account", "MEMBER").iter().cloned();
        base.chain(sources.into_iter().flat_map(|held| table.held(held)))
            .collect()
    }

    /// Permissions on an account, awake.
    pub fn on_account(&self, table: &Table, who: usize, account: usize) -> Words {
        let mut may = self.all_on_account(table, who, account);
        may.retain(|p| !self.is_asleep(who, account, p) && !self.begins_later(who, account, p));
        may
    }

    /// Whether a permission that somebody holds on an account sleeps there, and nobody woke it (ROL-13).
    pub fn is_asleep(&self, who: usize, account: usize, permission: &str) -> bool {
        let woken = self.principals[who].woken.get(&account);
        let is_woken = woken.is_some_and(|woken| woken.contains(permission));
        self.asleep(who) && sleeps(permission) && !is_woken
    }

    /// Whether it is an owner's and begins later; then nobody can wake it (ACC-20).
    fn begins_later(&self, who: usize, account: usize, permission: &str) -> bool {
        let is_late = self.late.contains(&account) && self.owner(account) == Some(who);
        is_late && begins_later(permission)
    }

    /// Whether somebody may read an account: its members, and of a draft the global admins of its tenants, who may finish it (ACC-1).
    pub fn reads(&self, table: &Table, who: usize, account: usize) -> bool {
        let tenant = self.principals[who].tenant;
        let finishes = self.drafts.contains(&account)
            && self.associated.contains(&(account, tenant))
            && self.on_tenant(table, who, tenant).contains("tenant.update");
        finishes
            || self
                .on_account(table, who, account)
                .contains("account.read")
    }

    /// Somebody else set a person's credential: whatever was woken sleeps again, as itself and as a guest (ROL-13).
    pub fn fall_asleep(&mut self, who: usize) {
        self.principals[who].asleep = true;
        for p in 0..self.principals.len() {
            if self.person(p) == who {
                self.principals[p].woken.clear();
            }
        }
    }

    pub fn on_tenant(&self, table: &Table, who: usize, tenant: usize) -> Words {
        let p = &self.principals[who];
        let mut may = Words::new();
        if p.tenant == tenant && tenant != NOWHERE {
            for role in &p.roles {
                may.extend(table.role("tenant", role).iter().cloned());
            }
            if self.tenants[tenant].agent == Some(who) {
                may.insert("directory.sync".to_owned());
            }
        }
        may
    }

    /// People who can sign in and hold a role on an account, directly or by a group (ROL-9).
    pub fn holders(&self, account: usize, role: &str) -> usize {
        (0..self.principals.len())
            .filter(|p| self.principals[*p].is_person() && self.counts(*p))
            .filter(|p| {
                let sources = self.sources(*p, account);
                sources.iter().any(|held| held.roles.contains(role))
            })
            .count()
    }

    /// Global admins who can sign in.
    pub fn admins(&self, tenant: usize) -> Vec<usize> {
        (0..self.principals.len())
            .filter(|p| self.principals[*p].tenant == tenant && self.signs_in(*p))
            .filter(|p| self.principals[*p].roles.contains("GLOBAL_ADMIN"))
            .collect()
    }

    /// Whoever can't act anyway is no loss: only an account that had an active manager must keep one.
    pub fn keeps_manager(&self, before: &Self, account: usize) -> Result<(), Reasons> {
        let fine = before.holders(account, "MANAGER") == 0 || self.holders(account, "MANAGER") > 0;
        unless(fine, "LAST_MANAGER")
    }

    pub fn keeps_admin(&self, before: &Self, tenant: usize) -> Result<(), Reasons> {
        let counts = |model: &Self| model.admins(tenant).iter().any(|p| model.counts(*p));
        unless(!counts(before) || counts(self), "LAST_GLOBAL_ADMIN")
    }

    /// ROL-4, ROL-12: what can't be held this way, whoever gives it.
    fn holdable(&self, method: &str, to: usize, old: &Held, new: &Held) -> bool {
        let to = &self.principals[to];
        let mut people_only = words_of(&["OWNER"]);
        if to.kind == Kind::Application || (to.kind == Kind::Group && to.external.is_some()) {
            people_only.extend(words_of(&["FINANCE", "ADMIN_AGENT"]));
        } else if to.kind == Kind::Group {
            people_only.extend(words_of(&["FINANCE"]));
        }
        let finance = old.roles.contains("FINANCE") != new.roles.contains("FINANCE");
        !new.single.difference(&old.single).any(|p| role_bound(p))
            && !new
                .roles
                .difference(&old.roles)
                .any(|r| people_only.contains(r))
            && (method.ends_with("Finance") || !finance)
    }

    /// Why somebody can't give what it lacks on an account, awake: it sleeps or begins later if all of it is held (ROL-13), else it isn't held.
    pub fn lacking(&self, table: &Table, who: usize, account: usize, missing: &Words) -> Reasons {
        let mut reasons = Reasons::new();
        if !missing.is_subset(&self.all_on_account(table, who, account)) {
            reasons.insert("CANNOT_GRANT_WHAT_YOU_LACK");
            return reasons;
        }
        if missing.iter().any(|p| self.is_asleep(who, account, p)) {
            reasons.insert("RIGHTS_ASLEEP");
        }
        if missing.iter().any(|p| self.begins_later(who, account, p)) {
            reasons.insert("RIGHTS_BEGIN_LATER");
        }
        reasons
    }

    /// REL-22: whether a partner was shown somebody's password; of a guest that of its home, of a group that of anybody in it.
    pub fn is_shown(&self, who: usize) -> bool {
        let p = &self.principals[who];
        let credential = p.home.unwrap_or(who);
        self.principals[credential].shown_by.is_some()
            || p.inside.iter().any(|user| self.is_shown(*user))
    }

    /// REL-22: whoever joins a group that holds something gets it.
    pub fn may_join(&self, group: usize, users: &[usize]) -> Result<(), Reasons> {
        let mut held = self.members.iter().filter(|((_, who), _)| *who == group);
        let gives = held.any(|(_, held)| *held != Held::default());
        let inside = &self.principals[group].inside;
        let mut new = users.iter().filter(|user| !inside.contains(user));
        unless(
            !gives || !new.any(|user| self.is_shown(*user)),
            "NOT_ASSIGNABLE",
        )
    }

    /// ROL-7: what changes is held by who changes it, but for the exceptions.
    pub fn give(
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
        let gets = !new.roles.is_subset(&old.roles) || !new.single.is_subset(&old.single);
        if !self.holdable(method, to, &old, new) || (gets && self.is_shown(to)) {
            faults.insert("NOT_ASSIGNABLE");
        }
        let singles = old.single.symmetric_difference(&new.single);
        let mut missing: Words = singles.filter(|p| !mine.contains(*p)).cloned().collect();
        for role in old.roles.symmetric_difference(&new.roles) {
            let listed = new.roles.contains(role)
                && EXCEPTIONS
                    .iter()
                    .any(|e| e.method == method && e.gives.contains(&role.as_str()));
            let excepted = listed
                && (role != "ADMIN_AGENT"
                    || (self.principals[to].is_person()
                        && self.person(caller) != self.person(to)
                        && self.counts(to)
                        && table.role("account", "MANAGER").is_subset(&mine)
                        && self.holders(account, "ADMIN_AGENT") == 0));
            if !excepted {
                let of_role = table.role("account", role);
                missing.extend(of_role.difference(&mine).cloned());
            }
        }
        faults.extend(self.lacking(table, caller, account, &missing));
        check(faults)?;
        let before = self.clone();
        self.members.insert((account, to), new.clone());
        self.keeps_manager(&before, account)
    }

    pub fn take(&mut self, account: usize, who: usize) -> Result<(), Reasons> {
        let before = self.clone();
        self.members.remove(&(account, who));
        self.keeps_manager(&before, account)
    }

    /// Takes everything from whoever is gone, and its guests with it; accounts aren't asked (ROL-9).
    pub fn forget(&mut self, who: usize) {
        let guests: Vec<usize> = (0..self.principals.len())
            .filter(|p| self.principals[*p].home == Some(who))
            .filter(|p| self.principals[*p].life != Life::Deleted)
            .collect();
        for guest in guests {
            self.forget(guest);
        }
        self.members.retain(|(_, p), _| *p != who);
        for group in &mut self.principals {
            group.inside.remove(&who);
        }
        for relationship in &mut self.relationships {
            relationship.assigned.remove(&Holder::Group(who));
        }
        let p = &mut self.principals[who];
        p.life = Life::Deleted;
        p.roles.clear();
        p.had_roles = false;
        p.inside.clear();
        p.credential = false;
        p.keys = 0;
        p.ended += 1;
        p.off = None;
        p.woken.clear();
        for tenant in &mut self.tenants {
            if tenant.agent == Some(who) {
                tenant.agent = None;
            }
        }
    }
}

fn words_of(list: &[&str]) -> Words {
    super::words(list)
}

/// A call in the making: who makes it, and what there is before.
#[derive(Clone, Copy)]
pub struct By<'a> {
    pub model: &'a Model,
    pub table: &'a Table,
    pub caller: usize,
}

impl By<'_> {
    /// What there is, if the caller gets in at all.
    pub fn begin(&self) -> Result<Model, Reasons> {
        unless(self.model.signs_in(self.caller), "TOKEN_INVALID")?;
        Ok(self.model.clone())
    }

    pub fn tenant(&self) -> usize {
        self.model.principals[self.caller].tenant
    }

    pub fn on_account(&self, account: usize, permission: &str) -> Result<(), Reasons> {
        let (table, who) = (self.table, self.caller);
        let all = self.model.all_on_account(table, who, account);
        let awake = self.model.on_account(table, who, account);
        unless(all.contains(permission), "PERMISSION_MISSING")?;
        let reason = if self.model.begins_later(who, account, permission) {
            "RIGHTS_BEGIN_LATER"
        } else {
            "RIGHTS_ASLEEP"
        };
        unless(awake.contains(permission), reason)
    }

    pub fn on_tenant(&self, tenant: usize, permission: &str) -> Result<(), Reasons> {
        let may = self.model.on_tenant(self.table, self.caller, tenant);
        unless(may.contains(permission), "PERMISSION_MISSING")
    }

    /// In the tenant where somebody is.
    pub fn over(&self, who: usize, permission: &str) -> Result<(), Reasons> {
        self.on_tenant(self.model.principals[who].tenant, permission)
    }

    /// Why the caller can't give all of this on an account; nothing if it can.
    pub fn lacking(&self, account: usize, what: &Words) -> Reasons {
        let mine = self.model.on_account(self.table, self.caller, account);
        let missing = what.difference(&mine).cloned().collect();
        self.model
            .lacking(self.table, self.caller, account, &missing)
    }

    /// GRP-7, REL-22: joining a group gives what it holds, and what is assigned to it.
    pub fn give_by(&self, group: usize) -> Result<(), Reasons> {
        let mut faults = Reasons::new();
        for relationship in &self.model.relationships {
            if relationship.assigned.contains_key(&Holder::Group(group)) {
                let assigns = super::words(&["relationships.assign"]);
                faults.extend(self.lacking(relationship.account, &assigns));
            }
        }
        for ((account, who), held) in &self.model.members {
            if *who == group && *held != Held::default() {
                let mut what = self.table.held(held);
                what.insert("users.assign".to_owned());
                faults.extend(self.lacking(*account, &what));
            }
        }
        check(faults)
    }

    /// Memberships of somebody new (USR-1, GRP-2, APP-2).
    pub fn join(
        &self,
        next: &mut Model,
        method: &str,
        new: usize,
        memberships: &[(usize, Held)],
    ) -> Result<(), Reasons> {
        let tenant = next.principals[new].tenant;
        for (account, held) in memberships {
            unless(self.tenant() == tenant, "OTHER_TENANT")?;
            let associated = self.model.associated.contains(&(*account, tenant));
            unless(associated, "NOT_IN_ASSOCIATED_TENANT")?;
            next.give(self.table, self.caller, method, (*account, new), held)?;
        }
        Ok(())
    }
}
