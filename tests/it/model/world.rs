//! The server beside the model: takes each step by a call, and holds the outcome against the model's verdict.

use std::{collections::BTreeMap, time::Instant};

use entente::{
    access::grants,
    names::Name,
    proto::{
        access::{AccountRole, GetRoleTableRequest, Rights},
        directory::{DirectoryRole, NewMembership},
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::{
    Rng, Step, Tally, Words, accounts, applications, customers,
    doors::{Door, Made},
    draw, groups, guests, members, relationships,
    state::{Held, Kind, Life, Model, NOWHERE, Password, Principal, Table, Tenant},
    synchronization, tenants, users, words,
};
use crate::{
    harness::{Caller, Person, Site, TenantSite},
    people::{People as _, Service},
};

/// Steps that many sequences must have taken. An owner whose account has no manager left is rare, so RestoreManager is not among them; nor is
/// CreateAccount, by which worlds get their accounts (`open_accounts`), whether or not it is counted.
pub const ALL_STEPS: &[&str] = &[
    "Members.Add",
    "Members.Update",
    "Members.Remove",
    "Members.Drop",
    "Members.Leave",
    "Members.GrantFinance",
    "Members.RevokeFinance",
    "Members.Associate",
    "Members.Dissociate",
    "Accounts.Invite",
    "Accounts.Accept",
    "Accounts.Consent",
    "Accounts.Transfer",
    "Accounts.Stop",
    "Accounts.Suspend",
    "Accounts.Reinstate",
    "Users.Create",
    "Users.Roles",
    "Users.Disable",
    "Users.Enable",
    "Users.Delete",
    "Users.Undelete",
    "Users.Replace",
    "Users.Reset",
    "Users.Contact",
    "Users.Wake",
    "Groups.Create",
    "Groups.Add",
    "Groups.Remove",
    "Groups.Delete",
    "Applications.Create",
    "Applications.Key",
    "Applications.DeleteKey",
    "Applications.Delete",
    "Guests.Invite",
    "Guests.Accept",
    "Guests.AcceptAsNew",
    "Guests.Revoke",
    "Tenants.Delete",
    "Tenants.Undelete",
    "Synchronization.Set",
    "Synchronization.Chunk",
    "Relationships.Ask",
    "Relationships.Accept",
    "Relationships.Decline",
    "Relationships.Cancel",
    "Relationships.TakeBack",
    "Relationships.End",
    "Relationships.Assign",
    "Customers.List",
    "Customers.Create",
    "Customers.Reset",
    "Customers.Disable",
];

/// Personal identities of a world that nobody had to invite.
const IDENTITIES: usize = 3;

pub struct World<'a> {
    pub site: &'a Site,
    pub service: Caller,
    /// Who consents to owners.
    pub reviewer: &'a Person,
    pub table: Table,
    pub model: Model,
    pub doors: Vec<Door>,
    pub tenant_names: Vec<String>,
    /// What its users sign in under.
    pub domains: Vec<String>,
    pub account_names: Vec<String>,
    pub relationship_names: Vec<String>,
    /// Those that steps are drawn for.
    pub accounts: Vec<usize>,
    pub tenants: Vec<usize>,
    /// Tokens of mails that stop owners, by account: those who have begun, and those who are to be the next.
    pub stops: BTreeMap<(usize, bool), String>,
    /// Numbers names, over all worlds of the site.
    pub made: usize,
    /// The number that this world began with.
    pub base: usize,
    /// Where the run is, for failures.
    pub at: String,
    history: Vec<String>,
}

pub fn id_of(name: &str) -> Uuid {
    Name::parse(name).unwrap().id()
}

pub fn directory_on_wire(roles: &Words) -> Vec<i32> {
    let number =
        |r: &String| DirectoryRole::from_str_name(&format!("DIRECTORY_ROLE_{r}")).unwrap() as i32;
    roles.iter().map(number).collect()
}

pub fn on_wire(held: &Held) -> Option<Rights> {
    let number =
        |r: &String| AccountRole::from_str_name(&format!("ACCOUNT_ROLE_{r}")).unwrap() as i32;
    Some(Rights {
        roles: held.roles.iter().map(number).collect(),
        permissions: held.single.iter().cloned().collect(),
    })
}

pub fn memberships_on_wire(world: &World<'_>, of: &[(usize, Held)]) -> Vec<NewMembership> {
    of.iter()
        .map(|(a, held)| NewMembership {
            account: world.account_names[*a].clone(),
            rights: on_wire(held),
        })
        .collect()
}

impl<'a> World<'a> {
    /// Three tenants with three people each; accounts don't use the last one, mostly.
    pub async fn new(site: &'a Site, service: &Service, reviewer: &'a Person, made: usize) -> Self {
        let service = service.caller(site).await;
        let mut access = site.nobody().access();
        let table = access.get_role_table(GetRoleTableRequest {}).await.unwrap();
        let entries = table.into_inner().roles.into_iter();
        let table = entries
            .map(|r| ((r.scope, r.role), r.permissions.into_iter().collect()))
            .collect();
        let mut world = Self {
            site,
            service,
            reviewer,
            table: Table(table),
            model: Model::default(),
            doors: Vec::new(),
            tenant_names: Vec::new(),
            domains: Vec::new(),
            account_names: Vec::new(),
            relationship_names: Vec::new(),
            accounts: Vec::new(),
            tenants: (0..3).collect(),
            stops: BTreeMap::new(),
            made,
            base: made,
            at: String::new(),
            history: Vec::new(),
        };
        for index in 0..3 {
            world.settle(index).await;
        }
        for number in 0..IDENTITIES {
            let email = format!("owner{number}@world{made}.example");
            let person = crate::people::identity(site, &email).await;
            world.let_in(person, Principal::new(Kind::Identity, NOWHERE));
        }
        world.mails();
        world
    }

    async fn settle(&mut self, index: usize) {
        self.made += 1;
        let tenant: TenantSite = self.site.tenant(&format!("tenant{}", self.made)).await;
        let (_, domain) = tenant.admin.sign_in_name.split_once('@').unwrap();
        self.domains.push(domain.to_owned());
        self.tenant_names.push(tenant.name.clone());
        self.model.tenants.push(Tenant {
            active: true,
            synchronized: false,
            agent: None,
        });
        for user_name in ["one", "two"] {
            let email = user_name == "one";
            let change = |r: &mut entente::proto::directory::CreateUserRequest| {
                if email {
                    r.user.as_mut().unwrap().recovery_email = "one@a.example".to_owned();
                }
            };
            let person = self.site.person_with(&tenant, user_name, change).await;
            let email = if email { "one@a.example" } else { "" };
            self.know(person, index, email, Words::new());
        }
        let email = format!("ann@tenant{}.example", self.made);
        self.know(tenant.admin, index, &email, words(&["GLOBAL_ADMIN"]));
    }

    /// Somebody whom the harness made, awake.
    fn know(&mut self, person: Person, tenant: usize, email: &str, roles: Words) {
        let principal = Principal {
            email: !email.is_empty(),
            had_roles: !roles.is_empty(),
            roles,
            ..Principal::new(Kind::Member, tenant)
        };
        self.let_in(person, principal);
        self.doors.last_mut().unwrap().email = email.to_owned();
    }

    fn let_in(&mut self, person: Person, principal: Principal) {
        self.model.principals.push(Principal {
            credential: true,
            password: Password::Own,
            ..principal
        });
        self.doors.push(Door {
            sign_in_name: person.sign_in_name,
            caller: Some((person.caller, Instant::now())),
            live: true,
            ..Door::of(person.name)
        });
    }

    /// Two new accounts, the first with two tenants, and with somebody for its finances at times.
    pub async fn open_accounts(&mut self, rng: &mut Rng) {
        self.accounts.clear();
        let mut tally = Tally::default();
        for tenant in [0, 1] {
            if !self.model.is_active(tenant) {
                let step = Step::Tenants(tenants::Step::Undelete(tenant, true));
                self.take(0, &step, &mut tally).await;
            }
            let manager = rng.pick(&self.model.admins(tenant));
            let index = self.account_names.len();
            if tenant == 1 && rng.chance(60) {
                self.create_account(rng, index, manager, &mut tally).await;
                continue;
            }
            self.made += 1;
            let publisher = format!("Account {}", self.made);
            let caller = self.caller(manager).await.unwrap();
            let site = TenantSite {
                name: self.tenant_names[tenant].clone(),
                admin: Person {
                    name: self.doors[manager].name.clone(),
                    sign_in_name: String::new(),
                    caller,
                },
            };
            let account = self.site.account(&site, &publisher).await;
            self.account_names.push(account);
            self.accounts.push(index);
            self.model.associated.insert((index, tenant));
            let mut roles = words(&["MANAGER", "ADMIN_AGENT"]);
            if rng.chance(50) {
                crate::members::seed(self.site, &self.member(index, manager), grants::FINANCE)
                    .await;
                roles.insert("FINANCE".to_owned());
            }
            let held = Held {
                roles,
                single: Words::new(),
            };
            self.model.members.insert((index, manager), held);
        }
        self.history
            .push(format!("accounts {:?} opened", self.accounts));
        let account = self.accounts[0];
        let by = self.model.members.keys().find(|(a, _)| *a == account);
        let by = by.unwrap().1;
        let other = rng.pick(&self.model.admins(1));
        let mut opening = vec![members::Step::Associate(account, other)];
        // Lesser givers, who are where most is refused for want of what is given.
        let home: Vec<usize> = (0..self.model.principals.len())
            .filter(|p| self.model.principals[*p].tenant == 0 && self.model.can_act(*p))
            .collect();
        let assigner = Held {
            roles: Words::new(),
            single: words(&["users.assign", "members.remove"]),
        };
        let agent = Held {
            roles: words(&["ADMIN_AGENT"]),
            single: Words::new(),
        };
        for held in [assigner.clone(), agent, assigner] {
            opening.push(members::Step::Add(
                account,
                vec![rng.pick(&home)],
                held,
                Vec::new(),
            ));
        }
        for step in opening {
            self.take(by, &Step::Members(step), &mut tally).await;
        }
        self.open_relationships(rng, by).await;
    }

    /// Customers end what they lend to older accounts, mostly; one of them lends to the first of the new ones.
    async fn open_relationships(&mut self, rng: &mut Rng, by: usize) {
        use relationships::{Holder, Step as Of};
        let mut tally = Tally::default();
        for which in 0..self.model.relationships.len() {
            let r = &self.model.relationships[which];
            let customer = r.customer.filter(|_| r.is_active());
            let is_old = !self.accounts.contains(&r.account);
            if let Some(tenant) = customer
                && is_old
                && rng.chance(80)
            {
                let admin = rng.pick(&self.model.admins(tenant));
                let step = Step::Relationships(Of::End(which, Some(tenant)));
                self.take(admin, &step, &mut tally).await;
            }
        }
        let admins = self.model.admins(2);
        if admins.is_empty() || rng.chance(30) {
            return;
        }
        let (account, which) = (self.accounts[0], self.model.relationships.len());
        let admin = rng.pick(&admins);
        let roles = words(&["GLOBAL_ADMIN", "HELPDESK_ADMIN"]);
        let all = [
            (by, Of::Ask(account, admin, roles.clone())),
            (admin, Of::Accept(which, 2, roles.clone())),
            (by, Of::Assign(which, Holder::Role("ADMIN_AGENT"), roles)),
        ];
        for (by, step) in all {
            self.take(by, &Step::Relationships(step), &mut tally).await;
        }
    }

    /// An account by CreateAccount: of an admin alone, or of an identity that owns none.
    async fn create_account(
        &mut self,
        rng: &mut Rng,
        index: usize,
        admin: usize,
        tally: &mut Tally,
    ) {
        let free = (0..self.model.principals.len()).filter(|p| {
            let mut held = self.model.members.iter().filter(|((_, who), _)| who == p);
            self.model.principals[*p].kind == Kind::Identity
                && held.all(|(_, held)| !held.roles.contains("OWNER"))
        });
        let free: Vec<usize> = free.collect();
        let by = if free.is_empty() || rng.chance(30) {
            admin
        } else {
            rng.pick(&free)
        };
        let step = Step::Accounts(accounts::Step::Create(index, admin));
        self.take(by, &step, tally).await;
        self.accounts.push(index);
    }

    pub fn name(&self, who: usize) -> String {
        self.doors[who].name.clone()
    }

    pub fn member(&self, account: usize, who: usize) -> String {
        let id = id_of(&self.doors[who].name);
        format!("{}/members/{id}", self.account_names[account])
    }

    pub fn has_token(&self, who: usize) -> bool {
        self.doors[who].caller.is_some()
    }

    /// A caller and its step; what merely lacks a permission is mostly drawn anew, so that sequences get somewhere.
    pub fn draw(&self, rng: &mut Rng) -> (usize, Step) {
        loop {
            let (caller, step) = draw::draw(&self.model, rng, &self.accounts, &self.tenants);
            let possible = match &step {
                Step::Members(step) => members::possible(self, step),
                Step::Guests(step) => guests::possible(&self.model, step),
                Step::Accounts(step) => accounts::possible(self, step),
                _ => true,
            };
            if !possible || (!self.model.signs_in(caller) && !self.has_token(caller)) {
                continue;
            }
            let dull = match self.model.judge(&self.table, caller, &step) {
                Ok(_) => false,
                Err(reasons) => [
                    "PERMISSION_MISSING",
                    "WRONG_STATE",
                    "TOKEN_INVALID",
                    "LAST_GLOBAL_ADMIN",
                    "NOT_IN_ASSOCIATED_TENANT",
                    "RESOURCE_NOT_FOUND",
                    "ALREADY_MEMBER",
                    "ALREADY_ASSOCIATED",
                    "INVALID_FIELDS",
                    "TENANT_IN_USE",
                ]
                .iter()
                .any(|r| reasons.contains(r)),
            };
            if !dull || rng.chance(8) {
                return (caller, step);
            }
        }
    }

    /// Takes a step on the server and in the model; they must agree.
    pub async fn take(&mut self, by: usize, step: &Step, tally: &mut Tally) {
        let caller = self.caller(by).await;
        let caller = caller.unwrap_or_else(|| self.site.nobody());
        if let Some(second) = step.second_caller() {
            self.caller(second).await;
        }
        let verdict = self.model.judge(&self.table, by, step);
        let outcome = match step {
            Step::Members(step) => members::call(self, &caller, by, step).await,
            Step::Accounts(step) => accounts::call(self, &caller, by, step).await,
            Step::Users(step) => users::call(self, &caller, step).await,
            Step::Groups(step) => groups::call(self, &caller, step).await,
            Step::Applications(step) => applications::call(self, &caller, step).await,
            Step::Guests(step) => guests::call(self, &caller, step).await,
            Step::Tenants(step) => tenants::call(self, &caller, step).await,
            Step::Synchronization(step) => synchronization::call(self, &caller, step).await,
            Step::Relationships(step) => relationships::call(self, &caller, step).await,
            Step::Customers(step) => customers::call(self, &caller, step).await,
        };
        let told = outcome.as_ref().err().map(|s| {
            let info = s.get_details_error_info();
            info.map_or_else(|| format!("{s:?}"), |i| i.reason)
        });
        self.history.push(format!("{by}: {step:?} -> {told:?}"));
        let agreed = match (&verdict, &told) {
            (Ok(_), None) => true,
            (Err(reasons), Some(told)) => reasons.contains(told.as_str()),
            _ => false,
        };
        if !agreed {
            let model = verdict.map(|_| "allowed");
            let fault = outcome.err();
            self.fail(&format!(
                "the server says {told:?}, the model {model:?}: {fault:?}"
            ));
        }
        match (verdict, outcome) {
            (Ok(next), Ok(made)) => {
                let text = format!("{step:?}");
                let kind: Vec<&str> = text.split(['(', ')']).take(2).collect();
                *tally.allowed.entry(kind.join(".")).or_default() += 1;
                self.follow(next, made).await;
            }
            (Err(reasons), refusal) => {
                let told = told.unwrap();
                if let (Err(status), "PERMISSION_MISSING") = (&refusal, told.as_str()) {
                    crate::access::names_what_is_missing(status);
                }
                let reason = reasons.into_iter().find(|r| *r == told).unwrap();
                *tally.refused.entry(reason).or_default() += 1;
            }
            (Ok(_), Err(_)) => {}
        }
    }

    /// Ends the test, and tells how it came to this.
    pub fn fail(&self, what: &str) -> ! {
        let begin = self.history.len().saturating_sub(40);
        let mut who = String::new();
        for (i, p) in self.model.principals.iter().enumerate() {
            who += &format!("  {i}: {p:?}\n");
        }
        panic!(
            "{}\n{}\n{who}  {:?}\n  {:?}\n  {:?}, suspended {:?}\n  {:?}\n{what}",
            self.at,
            self.history[begin..].join("\n"),
            self.model.tenants,
            self.model.members,
            self.model.ties,
            self.model.suspended,
            self.model.relationships,
        );
    }

    /// Takes over the model's next state, and what it means for tokens: those that ended are good for nothing from now on (ROL-10).
    async fn follow(&mut self, next: Model, made: Made) {
        let before = std::mem::replace(&mut self.model, next);
        for who in 0..before.principals.len() {
            let ended = self.model.ended(who) != before.ended(who);
            let key = &self.doors[who].signed_in_with;
            let other_key = self.doors[who].keys.iter().any(|(name, _)| name == key);
            let stays = other_key && self.model.principals[who].life == Life::Active;
            if ended && self.doors[who].live && !stays {
                self.doors[who].live = false;
                let (caller, _) = self.doors[who].caller.clone().unwrap();
                let tried = caller.who_am_i().await;
                if tried.as_ref().err().map(Status::code) != Some(Code::Unauthenticated) {
                    self.fail(&format!("the token of {who} is still good: {tried:?}"));
                }
            }
        }
        if let Some((who, temporary)) = made.password
            && !temporary.is_empty()
        {
            self.doors[who].temporary = Some(temporary);
            self.doors[who].live = false;
        }
        if let Some((who, token)) = made.choice {
            self.doors[who].choice = Some(token);
            self.doors[who].live = false;
        }
        self.doors.extend(made.door);
        for who in self.doors.len()..self.model.principals.len() {
            let door = self.brought(who).await;
            self.doors.push(door);
        }
    }
}
