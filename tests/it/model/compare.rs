//! What the server says of everybody, held against the model.

mod relationships;

use std::collections::{BTreeMap, BTreeSet};

use entente::proto::{
    access::{AccessCheck, CheckAccessRequest, Rights, TestMyPermissionsRequest},
    account::GetAccountRequest,
    directory::{
        ListApplicationsRequest, ListGroupMembersRequest, ListGroupsRequest, ListUsersRequest,
        UserState,
    },
};
use sea_orm::{ConnectionTrait as _, Statement};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::{
    Rng, Words,
    state::{Kind, Life, NOWHERE, Password},
    synchronization,
    users::is_user,
    words,
    world::{World, directory_on_wire, id_of, on_wire},
};

/// What is asked about an account and a tenant: what gives, what sleeps, what every member has.
const ON_ACCOUNT: &[&str] = &[
    "account.read",
    "users.assign",
    "members.remove",
    "members.read",
    "tenants.manage",
    "finance.grant",
    "payouts.settings.update",
    "owner.tie",
    "delegated.act",
    "offers.publish",
    "incidents.handle",
    "account.close",
];
const ON_TENANT: &[&str] = &[
    "tenant.delete",
    "users.create",
    "users.reset_password",
    "users.read",
    "users.disable",
    "directory_roles.assign",
    "users.update",
    "groups.manage",
    "applications.manage",
    "directory.sync",
    "agreements.accept",
];
/// Questions of one CheckAccess.
const MOST_CHECKS: usize = 1_000;

fn sorted(rights: Option<Rights>) -> Option<Rights> {
    let mut rights = rights.unwrap_or_default();
    rights.roles.sort_unstable();
    rights.permissions.sort_unstable();
    Some(rights)
}

impl World<'_> {
    /// A part of all that is granted, another one each time, and what some people read.
    pub async fn compare(&mut self, rng: &mut Rng) {
        let account = rng.pick(&self.accounts);
        let tenant = rng.pick(&self.tenants);
        match rng.below(4) {
            0 => self.compare_members(account).await,
            1 => self.compare_users(tenant).await,
            2 => self.compare_relationships(account).await,
            _ => self.compare_others(tenant).await,
        }
        let scope = if rng.chance(75) {
            Ok(account)
        } else {
            Err(tenant)
        };
        let people: Vec<usize> = (0..self.doors.len()).collect();
        let people = rng.some(&people, 6);
        self.check_access(&people, scope).await;
        let who = rng.pick(&people);
        let owner = self.model.owner(account);
        for who in [who].into_iter().chain(owner) {
            self.compare_reads(who, account).await;
        }
    }

    /// All that is granted, on older accounts too.
    pub async fn compare_all(&mut self, rng: &mut Rng) {
        let everybody: Vec<usize> = (0..self.doors.len()).collect();
        for account in 0..self.account_names.len() {
            self.compare_members(account).await;
        }
        for account in self.accounts.clone() {
            self.compare_relationships(account).await;
            self.check_access(&everybody, Ok(account)).await;
            if let Some(owner) = self.model.owner(account) {
                self.compare_reads(owner, account).await;
            }
        }
        for tenant in self.tenants.clone() {
            self.compare_users(tenant).await;
            self.compare_others(tenant).await;
            self.check_access(&everybody, Err(tenant)).await;
        }
        for who in rng.some(&everybody, 10) {
            let account = rng.pick(&self.accounts);
            self.compare_reads(who, account).await;
        }
    }

    pub fn agree<T: PartialEq + std::fmt::Debug>(&self, what: &str, told: &T, expected: &T) {
        if told != expected {
            self.fail(&format!(
                "{what}: the server says\n  {told:?}\nthe model\n  {expected:?}"
            ));
        }
    }

    async fn compare_members(&mut self, account: usize) {
        let members = self.model.members.iter();
        let expected: BTreeMap<Uuid, Option<Rights>> = members
            .filter(|((a, _), _)| *a == account)
            .map(|((_, p), held)| (id_of(&self.doors[*p].name), sorted(on_wire(held))))
            .collect();
        let reader = (0..self.doors.len()).find(|p| {
            let may = self.model.on_account(&self.table, *p, account);
            self.model.signs_in(*p) && may.contains("members.read")
        });
        if let Some(reader) = reader {
            let caller = self.caller(reader).await.unwrap();
            let name = &self.account_names[account];
            let rows = crate::members::list(&caller, name, "").await.unwrap();
            let told: BTreeMap<Uuid, Option<Rights>> = rows
                .into_iter()
                .map(|m| (id_of(&m.name), sorted(m.rights)))
                .collect();
            self.agree("members", &told, &expected);
        }
        // Where nobody is left who could list them, the rows are counted.
        let db = &self.site.app.db.read;
        let sql = "SELECT COUNT(*) AS n FROM grants WHERE scope_kind = 2 AND scope_id = $1";
        let id = id_of(&self.account_names[account]);
        let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, [id.into()]);
        let row = db.query_one_raw(statement).await.unwrap().unwrap();
        let count: i64 = row.try_get("", "n").unwrap();
        self.agree("members", &usize::try_from(count).unwrap(), &expected.len());
    }

    async fn compare_users(&mut self, tenant: usize) {
        if !self.model.is_active(tenant) {
            return;
        }
        // The invariant itself: somebody is left.
        let admins = self.model.admins(tenant);
        assert!(!admins.is_empty(), "{}", self.at);
        let caller = self.caller(admins[0]).await.unwrap();
        let request = ListUsersRequest {
            parent: self.tenant_names[tenant].clone(),
            page_size: 1_000,
            show_deleted: true,
            ..ListUsersRequest::default()
        };
        let page = caller.users().list_users(request).await.unwrap();
        let told: BTreeMap<String, (i32, Vec<i32>, bool)> = page
            .into_inner()
            .users
            .into_iter()
            .map(|u| {
                (
                    u.name,
                    (u.state, u.directory_roles, u.rights_asleep_until.is_some()),
                )
            })
            .collect();
        let state = |life: Life| match life {
            Life::Active => UserState::Active as i32,
            Life::Disabled => UserState::Disabled as i32,
            Life::Deleted => UserState::Deleted as i32,
            Life::Invited => UserState::Invited as i32,
        };
        let expected: BTreeMap<String, (i32, Vec<i32>, bool)> = (0..self.doors.len())
            .filter(|p| is_user(&self.model, *p) && self.model.principals[*p].tenant == tenant)
            .map(|p| {
                let user = &self.model.principals[p];
                let mut roles = directory_on_wire(&user.roles);
                roles.sort_unstable();
                let all = (state(user.life), roles, user.asleep);
                (self.doors[p].name.clone(), all)
            })
            .collect();
        self.agree("users", &told, &expected);
    }

    fn there(&self, kind: Kind, tenant: usize) -> Vec<usize> {
        let such = |p: &usize| {
            let p = &self.model.principals[*p];
            p.kind == kind && p.tenant == tenant && p.life == Life::Active
        };
        (0..self.doors.len()).filter(such).collect()
    }

    /// Groups with who is in them, and applications.
    async fn compare_others(&mut self, tenant: usize) {
        if !self.model.is_active(tenant) {
            return;
        }
        let admin = self.model.admins(tenant)[0];
        let caller = self.caller(admin).await.unwrap();
        let parent = self.tenant_names[tenant].clone();
        let request = ListGroupsRequest {
            parent: parent.clone(),
            page_size: 1_000,
            ..ListGroupsRequest::default()
        };
        let mut groups = caller.groups();
        let page = groups.list_groups(request).await.unwrap().into_inner();
        let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for group in page.groups {
            let request = ListGroupMembersRequest {
                parent: group.name.clone(),
                page_size: 1_000,
                ..ListGroupMembersRequest::default()
            };
            let page = groups.list_group_members(request).await.unwrap();
            let members = page.into_inner().members.into_iter().map(|m| m.user);
            told.insert(group.name, members.collect());
        }
        let expected: BTreeMap<String, BTreeSet<String>> = self
            .there(Kind::Group, tenant)
            .into_iter()
            .map(|g| {
                let inside = self.model.principals[g].inside.iter();
                (self.name(g), inside.map(|p| self.name(*p)).collect())
            })
            .collect();
        self.agree("groups", &told, &expected);
        let request = ListApplicationsRequest {
            parent,
            page_size: 1_000,
            ..ListApplicationsRequest::default()
        };
        let page = caller.applications().list_applications(request).await;
        let applications = page.unwrap().into_inner().applications.into_iter();
        let told: BTreeSet<String> = applications.map(|a| a.name).collect();
        let expected: BTreeSet<String> = self
            .there(Kind::Application, tenant)
            .into_iter()
            .map(|p| self.name(p))
            .collect();
        self.agree("applications", &told, &expected);
        let brought = self
            .model
            .principals
            .iter()
            .filter(|p| p.tenant == tenant && p.external.is_some() && p.life != Life::Deleted);
        let told = synchronization::brought(self, tenant).await;
        self.agree(
            "synchronised",
            &usize::try_from(told).unwrap(),
            &brought.count(),
        );
    }

    /// What a principal may now on an account (`Ok`) or a tenant (`Err`).
    fn may(&self, who: usize, scope: Result<usize, usize>) -> Words {
        // With a temporary password, or before it has chosen one, it may nothing.
        let person = self.model.person(who);
        let to_choose = [Password::Mailed, Password::Void];
        let has_none = self.doors[person].temporary.is_some()
            || to_choose.contains(&self.model.principals[person].password);
        if !self.model.can_act(who) || has_none {
            return Words::new();
        }
        match scope {
            Ok(account) => self.model.on_account(&self.table, who, account),
            Err(tenant) => {
                let own = self.model.on_tenant(&self.table, who, tenant);
                let lent = self.model.lent_on(&self.table, who, tenant);
                own.union(&lent).cloned().collect()
            }
        }
    }

    /// What an internal service is told of these (COM-17).
    async fn check_access(&mut self, people: &[usize], scope: Result<usize, usize>) {
        let (resource, asked) = match scope {
            Ok(account) => (self.account_names[account].clone(), ON_ACCOUNT),
            Err(tenant) => (self.tenant_names[tenant].clone(), ON_TENANT),
        };
        let people = people.iter().copied().filter(|p| {
            let p = &self.model.principals[*p];
            p.kind != Kind::Group && p.tenant != NOWHERE
        });
        let questions: Vec<(usize, &str)> = people
            .flat_map(|p| asked.iter().map(move |permission| (p, *permission)))
            .collect();
        for some in questions.chunks(MOST_CHECKS) {
            let checks = some.iter().map(|(p, permission)| AccessCheck {
                principal: self.name(*p),
                permission: (*permission).to_owned(),
                resource: resource.clone(),
            });
            let request = CheckAccessRequest {
                checks: checks.collect(),
            };
            let mut access = self.service.access();
            let answer = access.check_access(request).await.unwrap().into_inner();
            for ((p, permission), decision) in some.iter().zip(answer.decisions) {
                let expected = self.may(*p, scope).contains(*permission);
                let what = format!("{p} has {permission} on {scope:?}");
                self.agree(&what, &decision.allowed, &expected);
            }
        }
    }

    /// What somebody is told of itself, and whether it reads the account.
    async fn compare_reads(&mut self, who: usize, account: usize) {
        let Some(caller) = self.caller(who).await else {
            return;
        };
        let name = self.account_names[account].clone();
        let request = TestMyPermissionsRequest {
            resource: name.clone(),
            permissions: ON_ACCOUNT.iter().map(|p| (*p).to_owned()).collect(),
        };
        let told = caller.access().test_my_permissions(request).await;
        let told = told.map(|r| r.into_inner().permissions.into_iter().collect::<Words>());
        let read = caller.accounts();
        let read = { read }.get_account(GetAccountRequest { name }).await;
        let reason = |s: &tonic::Status| s.get_details_error_info().map(|i| i.reason);
        let read = read.as_ref().err().map(reason);
        if self.model.signs_in(who) {
            let may = self.may(who, Ok(account));
            let asked = words(ON_ACCOUNT);
            let expected: Words = may.intersection(&asked).cloned().collect();
            match told {
                Ok(told) => self.agree("what one may oneself", &told, &expected),
                Err(status) => self.fail(&format!("{who} isn't told its rights: {status:?}")),
            }
            let missing = Some(Some("PERMISSION_MISSING".to_owned()));
            let expected = if self.model.reads(&self.table, who, account) {
                None
            } else {
                missing
            };
            self.agree("reading the account", &read, &expected);
        } else {
            let out = Some(Some("TOKEN_INVALID".to_owned()));
            self.agree("reading the account", &read, &out);
            assert!(told.is_err(), "{}", self.at);
        }
    }
}
