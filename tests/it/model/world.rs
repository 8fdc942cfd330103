//! The server beside the model: takes each step by a call, and holds the outcome against the model's verdict.

use std::collections::BTreeMap;

use entente::{
    access::grants,
    names::Name,
    proto::{
        access::{AccountRole, GetRoleTableRequest, Rights},
        account::{
            AddMembersRequest, AssociateTenantRequest, DropRolesRequest, GrantFinanceRequest,
            LeaveAccountRequest, Member, RemoveMembersRequest, RemoveTenantRequest,
            RestoreManagerRequest, RevokeFinanceRequest, UpdateMemberRequest, UpdateMembersRequest,
        },
        directory::{
            AssignDirectoryRolesRequest, CreateUserRequest, DeleteUserRequest, DirectoryRole,
            DisableUserRequest, EnableUserRequest, ListUsersRequest, NewMembership,
            ReplaceGlobalAdminRequest, UndeleteUserRequest, UserState,
        },
    },
};
use sea_orm::{ConnectionTrait as _, Statement};
use tonic::{Response, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::{Held, Life, Model, Rng, Step, Table, User, Words};
use crate::harness::{Caller, PASSWORD, Person, Site, TenantSite, new_user};

/// A user's doors into the server.
struct Door {
    name: String,
    sign_in_name: String,
    /// The password if it is still a temporary one.
    temporary: Option<String>,
    /// The last token, good or ended.
    caller: Option<Caller>,
    live: bool,
}

pub struct World<'a> {
    site: &'a Site,
    table: Table,
    pub model: Model,
    doors: Vec<Door>,
    tenant_names: Vec<String>,
    account_names: Vec<String>,
    /// Those of this sequence.
    pub accounts: Vec<usize>,
    pub tenants: Vec<usize>,
    made: usize,
    history: Vec<String>,
    allowed: usize,
    refused: BTreeMap<&'static str, usize>,
}

fn id_of(name: &str) -> Uuid {
    Name::parse(name).unwrap().id()
}

fn roles_on_wire(roles: &Words) -> Vec<i32> {
    let number =
        |r: &String| AccountRole::from_str_name(&format!("ACCOUNT_ROLE_{r}")).unwrap() as i32;
    roles.iter().map(number).collect()
}

fn directory_on_wire(roles: &Words) -> Vec<i32> {
    let number =
        |r: &String| DirectoryRole::from_str_name(&format!("DIRECTORY_ROLE_{r}")).unwrap() as i32;
    roles.iter().map(number).collect()
}

fn on_wire(held: &Held) -> Option<Rights> {
    Some(Rights {
        roles: roles_on_wire(&held.roles),
        permissions: held.single.iter().cloned().collect(),
    })
}

/// What a call that makes credentials gives.
type Made = Option<(String, String, String)>;

fn nothing<T>(_: Response<T>) -> Made {
    None
}

impl<'a> World<'a> {
    pub async fn new(site: &'a Site) -> Self {
        let mut access = site.nobody().access();
        let table = access.get_role_table(GetRoleTableRequest {}).await.unwrap();
        let entries = table.into_inner().roles.into_iter();
        let table = entries
            .map(|r| ((r.scope, r.role), r.permissions.into_iter().collect()))
            .collect();
        Self {
            site,
            table: Table(table),
            model: Model::default(),
            doors: Vec::new(),
            tenant_names: Vec::new(),
            account_names: Vec::new(),
            accounts: Vec::new(),
            tenants: Vec::new(),
            made: 0,
            history: Vec::new(),
            allowed: 0,
            refused: BTreeMap::new(),
        }
    }

    fn know(&mut self, person: Person, tenant: usize, email: bool, roles: Words) {
        self.model.users.push(User {
            tenant,
            life: Life::Active,
            email,
            roles,
            through: None,
        });
        self.doors.push(Door {
            name: person.name,
            sign_in_name: person.sign_in_name,
            temporary: None,
            caller: Some(person.caller),
            live: true,
        });
    }

    /// Two new tenants with three people each.
    pub async fn settle_anew(&mut self) {
        self.tenants.clear();
        for _ in 0..2 {
            let index = self.tenant_names.len();
            let tenant: TenantSite = self.site.tenant(&format!("tenant{index}")).await;
            self.tenant_names.push(tenant.name.clone());
            self.tenants.push(index);
            for user_name in ["one", "two"] {
                let email = user_name == "one";
                let person = self
                    .site
                    .person_with(&tenant, user_name, |r| {
                        if email {
                            r.user.as_mut().unwrap().recovery_email = "one@a.example".to_owned();
                        }
                    })
                    .await;
                self.know(person, index, email, Words::new());
            }
            self.know(tenant.admin, index, true, super::words(&["GLOBAL_ADMIN"]));
        }
    }

    /// Two new accounts, the first with both tenants, and with somebody for its finances at times.
    pub async fn open_accounts(&mut self, rng: &mut Rng) {
        self.accounts.clear();
        for tenant in self.tenants.clone() {
            let manager = rng.pick(&self.model.admins(tenant));
            let index = self.account_names.len();
            let caller = self.caller(manager).await.unwrap();
            let site = TenantSite {
                name: self.tenant_names[tenant].clone(),
                admin: Person {
                    name: self.doors[manager].name.clone(),
                    sign_in_name: String::new(),
                    caller,
                },
            };
            let account = self.site.account(&site, &format!("Account {index}")).await;
            self.account_names.push(account);
            self.accounts.push(index);
            self.model.associated.insert((index, tenant));
            let mut roles = super::words(&["MANAGER", "ADMIN_AGENT"]);
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
        let guest = rng.pick(&self.model.admins(self.tenants[1]));
        let account = self.accounts[0];
        let by = self
            .model
            .members
            .keys()
            .find(|(a, _)| *a == account)
            .unwrap()
            .1;
        self.take(by, &Step::Associate(account, guest), "opening")
            .await;
        // Lesser givers, who are where most is refused for want of what is given.
        let home: Vec<usize> = (0..self.model.users.len())
            .filter(|u| self.model.users[*u].tenant == self.tenants[0] && self.model.active(*u))
            .collect();
        let assigner = Held {
            roles: Words::new(),
            single: super::words(&["users.assign", "members.remove"]),
        };
        let agent = Held {
            roles: super::words(&["ADMIN_AGENT"]),
            single: Words::new(),
        };
        for held in [assigner.clone(), agent, assigner] {
            let step = Step::Add(account, vec![rng.pick(&home)], held);
            self.take(by, &step, "opening").await;
        }
    }

    fn member(&self, account: usize, user: usize) -> String {
        let id = id_of(&self.doors[user].name);
        format!("{}/members/{id}", self.account_names[account])
    }

    /// Somebody with a good token if it can have one, else with the last one.
    async fn caller(&mut self, user: usize) -> Option<Caller> {
        let door = &self.doors[user];
        if self.model.active(user) && !door.live {
            let caller = match &door.temporary {
                Some(temporary) => self.site.settle_in(&door.sign_in_name, temporary).await,
                None => self.site.sign_in(&door.sign_in_name, PASSWORD).await,
            };
            let door = &mut self.doors[user];
            door.caller = Some(caller);
            door.temporary = None;
            door.live = true;
        }
        self.doors[user].caller.clone()
    }

    /// A caller and its step; what merely lacks a permission is mostly drawn anew, so that sequences get somewhere.
    pub fn draw(&self, rng: &mut Rng) -> (usize, Step) {
        loop {
            let caller = self.model.caller(rng, &self.accounts, &self.tenants);
            let step = self.model.step(rng, &self.accounts, &self.tenants, caller);
            let dull = match self.model.judge(&self.table, caller, &step) {
                Ok(_) => false,
                Err(reasons) => [
                    "PERMISSION_MISSING",
                    "WRONG_STATE",
                    "TOKEN_INVALID",
                    "LAST_GLOBAL_ADMIN",
                    "NOT_IN_ASSOCIATED_TENANT",
                ]
                .iter()
                .any(|r| reasons.contains(r)),
            };
            if !dull || rng.chance(20) {
                return (caller, step);
            }
        }
    }

    /// Takes a step on the server and in the model; they must agree.
    pub async fn take(&mut self, by: usize, step: &Step, at: &str) {
        // Whoever never had a token can't call.
        let Some(caller) = self.caller(by).await else {
            return;
        };
        let token = match step {
            Step::Associate(_, admin) => match self.caller(*admin).await {
                Some(admin) => admin.token.unwrap(),
                None => return,
            },
            _ => String::new(),
        };
        let verdict = self.model.judge(&self.table, by, step);
        let outcome = self.call(&caller, by, step, token).await;
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
            let begin = self.history.len().saturating_sub(25);
            panic!(
                "{at}: the server says {told:?}, the model {:?}\n{}",
                verdict.map(|_| "allowed"),
                self.history[begin..].join("\n")
            );
        }
        match verdict {
            Ok(next) => {
                self.allowed += 1;
                let made = outcome.unwrap();
                if let Some((name, ..)) = &made {
                    // The model knows no sleep: that is another rule's.
                    self.site.wake(name).await;
                }
                self.follow(next, made);
            }
            Err(reasons) => {
                let told = told.unwrap();
                let reason = reasons.into_iter().find(|r| *r == told).unwrap();
                *self.refused.entry(reason).or_default() += 1;
            }
        }
    }

    /// Takes over the model's next state, and what it means for tokens.
    fn follow(&mut self, next: Model, made: Made) {
        for user in 0..self.model.users.len() {
            let (old, new) = (self.model.users[user].life, next.users[user].life);
            if old != new {
                self.doors[user].live = false;
            }
            if (old, new) == (Life::Deleted, Life::Active) {
                let (_, _, temporary) = made.clone().unwrap();
                self.doors[user].temporary = Some(temporary);
            }
        }
        if next.users.len() > self.model.users.len() {
            let (name, sign_in_name, temporary) = made.unwrap();
            self.doors.push(Door {
                name,
                sign_in_name,
                temporary: Some(temporary),
                caller: None,
                live: false,
            });
        }
        self.model = next;
    }

    async fn call(
        &mut self,
        caller: &Caller,
        by: usize,
        step: &Step,
        token: String,
    ) -> Result<Made, Status> {
        let account = |a: &usize| self.account_names[*a].clone();
        let user = |u: &usize| self.doors[*u].name.clone();
        let (mut members, mut users) = (caller.members(), caller.users());
        match step {
            Step::Add(a, targets, held) => {
                let request = AddMembersRequest {
                    parent: account(a),
                    principals: targets.iter().map(user).collect(),
                    rights: on_wire(held),
                    ..AddMembersRequest::default()
                };
                members.add_members(request).await.map(nothing)
            }
            Step::Update(a, changes) => {
                let change = |(u, held): &(usize, Held)| UpdateMemberRequest {
                    member: Some(Member {
                        name: self.member(*a, *u),
                        rights: on_wire(held),
                        ..Member::default()
                    }),
                };
                let request = UpdateMembersRequest {
                    parent: account(a),
                    requests: changes.iter().map(change).collect(),
                    ..UpdateMembersRequest::default()
                };
                members.update_members(request).await.map(nothing)
            }
            Step::Remove(a, targets, delete_from_directory) => {
                let request = RemoveMembersRequest {
                    parent: account(a),
                    names: targets.iter().map(|u| self.member(*a, *u)).collect(),
                    delete_from_directory: *delete_from_directory,
                    ..RemoveMembersRequest::default()
                };
                members.remove_members(request).await.map(nothing)
            }
            Step::Drop(a, held) => {
                let request = DropRolesRequest {
                    name: self.member(*a, by),
                    rights: on_wire(held),
                    ..DropRolesRequest::default()
                };
                members.drop_roles(request).await.map(nothing)
            }
            Step::Leave(a) => {
                let request = LeaveAccountRequest {
                    name: self.member(*a, by),
                    ..LeaveAccountRequest::default()
                };
                members.leave_account(request).await.map(nothing)
            }
            Step::GrantFinance(a, u) => {
                let request = GrantFinanceRequest {
                    name: self.member(*a, *u),
                    ..GrantFinanceRequest::default()
                };
                members.grant_finance(request).await.map(nothing)
            }
            Step::RevokeFinance(a, u) => {
                let request = RevokeFinanceRequest {
                    name: self.member(*a, *u),
                    ..RevokeFinanceRequest::default()
                };
                members.revoke_finance(request).await.map(nothing)
            }
            Step::RestoreManager(a, u) => {
                let request = RestoreManagerRequest {
                    name: self.member(*a, *u),
                    ..RestoreManagerRequest::default()
                };
                members.restore_manager(request).await.map(nothing)
            }
            Step::Roles(u, roles) => {
                let request = AssignDirectoryRolesRequest {
                    name: user(u),
                    directory_roles: directory_on_wire(roles),
                    ..AssignDirectoryRolesRequest::default()
                };
                users.assign_directory_roles(request).await.map(nothing)
            }
            Step::Create(tenant, email, roles, memberships) => {
                self.made += 1;
                let name = format!("made{}", self.made);
                let mut request: CreateUserRequest = new_user(&self.tenant_names[*tenant], &name);
                let new = request.user.as_mut().unwrap();
                new.directory_roles = directory_on_wire(roles);
                if *email {
                    new.recovery_email = format!("{name}@a.example");
                }
                let membership = |(a, held): &(usize, Held)| NewMembership {
                    account: self.account_names[*a].clone(),
                    rights: on_wire(held),
                };
                request.memberships = memberships.iter().map(membership).collect();
                let made = users.create_user(request).await?.into_inner();
                let new = made.user.unwrap();
                Ok(Some((new.name, new.sign_in_name, made.temporary_password)))
            }
            Step::Disable(u) => {
                let request = DisableUserRequest {
                    name: user(u),
                    ..DisableUserRequest::default()
                };
                users.disable_user(request).await.map(nothing)
            }
            Step::Enable(u) => {
                let request = EnableUserRequest {
                    name: user(u),
                    ..EnableUserRequest::default()
                };
                users.enable_user(request).await.map(nothing)
            }
            Step::Delete(u) => {
                let request = DeleteUserRequest {
                    name: user(u),
                    ..DeleteUserRequest::default()
                };
                users.delete_user(request).await.map(nothing)
            }
            Step::Undelete(u) => {
                let request = UndeleteUserRequest {
                    name: user(u),
                    ..UndeleteUserRequest::default()
                };
                let made = users.undelete_user(request).await?.into_inner();
                let back = made.user.unwrap();
                Ok(Some((
                    back.name,
                    back.sign_in_name,
                    made.temporary_password,
                )))
            }
            Step::Replace(old, successor) => {
                let request = ReplaceGlobalAdminRequest {
                    name: user(old),
                    successor: user(successor),
                    ..ReplaceGlobalAdminRequest::default()
                };
                users.replace_global_admin(request).await.map(nothing)
            }
            Step::Associate(a, _) => {
                let request = AssociateTenantRequest {
                    parent: account(a),
                    tenant_admin_token: token,
                    ..AssociateTenantRequest::default()
                };
                let done = caller.associations().associate_tenant(request).await;
                done.map(nothing)
            }
            Step::Dissociate(a, tenant) => {
                let tenant = id_of(&self.tenant_names[*tenant]);
                let request = RemoveTenantRequest {
                    name: format!("{}/tenantAssociations/{tenant}", account(a)),
                    ..RemoveTenantRequest::default()
                };
                let done = caller.associations().remove_tenant(request).await;
                done.map(nothing)
            }
        }
    }

    /// Holds all that is granted on the server against the model.
    pub async fn compare(&mut self, at: &str) {
        for account in self.accounts.clone() {
            self.compare_members(account, at).await;
        }
        for tenant in self.tenants.clone() {
            self.compare_users(tenant, at).await;
        }
    }

    async fn compare_members(&mut self, account: usize, at: &str) {
        let expected: BTreeMap<Uuid, Option<Rights>> = self
            .model
            .members
            .iter()
            .filter(|((a, _), _)| *a == account)
            .map(|((_, u), held)| (id_of(&self.doors[*u].name), on_wire(held)))
            .map(|(id, rights)| (id, sorted(rights)))
            .collect();
        let reader = (0..self.model.users.len()).find(|u| {
            let may = self.model.on_account(&self.table, *u, account);
            self.model.active(*u) && may.contains("members.read")
        });
        if let Some(reader) = reader {
            let caller = self.caller(reader).await.unwrap();
            let name = &self.account_names[account];
            let rows = crate::members::list(&caller, name, "").await.unwrap();
            let told: BTreeMap<Uuid, Option<Rights>> = rows
                .into_iter()
                .map(|m| (id_of(&m.name), sorted(m.rights)))
                .collect();
            assert_eq!(told, expected, "{at}");
        }
        // Where nobody is left who could list them, the rows are counted.
        let db = &self.site.app.db.read;
        let sql = "SELECT COUNT(*) AS n FROM grants WHERE scope_kind = 2 AND scope_id = $1";
        let id = id_of(&self.account_names[account]);
        let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, [id.into()]);
        let row = db.query_one_raw(statement).await.unwrap().unwrap();
        let count: i64 = row.try_get("", "n").unwrap();
        assert_eq!(usize::try_from(count).unwrap(), expected.len(), "{at}");
    }

    async fn compare_users(&mut self, tenant: usize, at: &str) {
        // The invariant itself: somebody is left.
        let admins = self.model.admins(tenant);
        assert!(!admins.is_empty(), "{at}");
        let caller = self.caller(admins[0]).await.unwrap();
        let request = ListUsersRequest {
            parent: self.tenant_names[tenant].clone(),
            page_size: 1_000,
            show_deleted: true,
            ..ListUsersRequest::default()
        };
        let page = caller.users().list_users(request).await.unwrap();
        let told: BTreeMap<String, (i32, Vec<i32>)> = page
            .into_inner()
            .users
            .into_iter()
            .map(|u| (u.name, (u.state, u.directory_roles)))
            .collect();
        let state = |life: Life| match life {
            Life::Active => UserState::Active as i32,
            Life::Disabled => UserState::Disabled as i32,
            Life::Deleted => UserState::Deleted as i32,
        };
        let users = self.model.users.iter().zip(&self.doors);
        let expected: BTreeMap<String, (i32, Vec<i32>)> = users
            .filter(|(u, _)| u.tenant == tenant)
            .map(|(u, door)| {
                let mut roles = directory_on_wire(&u.roles);
                roles.sort_unstable();
                (door.name.clone(), (state(u.life), roles))
            })
            .collect();
        assert_eq!(told, expected, "{at}");
    }

    /// Says what the sequences came to; they must have come to something.
    pub fn tell(&self, database: crate::harness::Database) {
        println!(
            "{database:?}: {} allowed, refused {:?}",
            self.allowed, self.refused
        );
        let refused: usize = self.refused.values().sum();
        assert!(self.allowed * 10 > refused, "{} : {refused}", self.allowed);
        if self.history.len() > 1_500 {
            for reason in [
                "CANNOT_GRANT_WHAT_YOU_LACK",
                "LAST_MANAGER",
                "NOT_ASSIGNABLE",
            ] {
                assert!(self.refused.contains_key(reason), "{reason} never came up");
            }
        }
    }
}

fn sorted(rights: Option<Rights>) -> Option<Rights> {
    let mut rights = rights.unwrap_or_default();
    rights.roles.sort_unstable();
    rights.permissions.sort_unstable();
    Some(rights)
}
