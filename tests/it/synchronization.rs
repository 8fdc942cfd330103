//! Directory synchronisation (TEN-5): what a local directory may bring about, and what it may not.

mod agent;
mod load;
mod rights;
mod stream;

use entente::proto::{
    access::{AccountRole, ErrorReason},
    account::{AddMembersRequest, ListMembersRequest},
    directory::{
        Application, CreateApplicationRequest, DirectoryApplication, DirectoryDeletion,
        DirectoryEntry, DirectoryFault, DirectoryGroup, DirectoryRole, DirectoryUser,
        GetDirectorySynchronizationRequest, GetDirectorySynchronizationResponse, GetGroupRequest,
        SetDirectorySynchronizationRequest, SetDirectorySynchronizationResponse,
        SyncDirectoryRequest, SyncDirectoryResponse, User, UserState, directory_entry::Change,
    },
};
use tonic::{Code, Response, Status};

use crate::{
    claims::chains_are_intact,
    harness::{Caller, Site, TenantSite, both, new_user, refused, request_id, rights},
    people::{People as _, again, application, events, id, named, number, sign_in_by_key},
};

/// An agent of a tenant's local directory, and the run that it is in.
pub struct Agent {
    /// The application.
    pub name: String,
    /// The tenant.
    pub tenant: String,
    /// With the application's token.
    pub caller: Caller,
    /// The run.
    pub run: String,
    /// The last sequence that was sent.
    pub sequence: i64,
}

impl Agent {
    /// Marks a tenant as synchronised, and signs its agent in.
    pub async fn of(site: &Site, tenant: &TenantSite) -> Self {
        let admin = &tenant.admin.caller;
        let app = application(admin, &tenant.name, "Agent").await;
        mark(admin, &tenant.name, &app.name).await.unwrap();
        let secret = admin.key(&app.name).await.unwrap().secret;
        let tokens = sign_in_by_key(site, &app.client_id, &secret).await.unwrap();
        Self {
            name: app.name,
            tenant: tenant.name.clone(),
            caller: site.with_token(&tokens.access_token),
            run: request_id(),
            sequence: 0,
        }
    }

    /// The next message of the run.
    pub fn message(&mut self, entries: Vec<DirectoryEntry>) -> SyncDirectoryRequest {
        self.sequence += 1;
        SyncDirectoryRequest {
            parent: self.tenant.clone(),
            request_id: self.run.clone(),
            sequence: self.sequence,
            entries,
            validate_only: false,
        }
    }

    /// Sends one message.
    pub async fn send(&mut self, entries: Vec<DirectoryEntry>) -> SyncDirectoryResponse {
        let message = self.message(entries);
        sync(&self.caller, vec![message]).await.unwrap()
    }

    /// Sends one message whose entries are all good.
    pub async fn bring(&mut self, entries: Vec<DirectoryEntry>) -> SyncDirectoryResponse {
        let answer = self.send(entries).await;
        assert_eq!(answer.faults, []);
        answer
    }

    /// Sends one message with one bad entry; gives the fault.
    pub async fn fault(&mut self, entry: DirectoryEntry) -> DirectoryFault {
        let external_id = entry.external_id.clone();
        let answer = self.send(vec![entry]).await;
        let mut faults = answer.faults.into_iter();
        faults.find(|f| f.external_id == external_id).unwrap()
    }
}

pub async fn mark(
    caller: &Caller,
    tenant: &str,
    agent: &str,
) -> Result<SetDirectorySynchronizationResponse, Status> {
    let request = SetDirectorySynchronizationRequest {
        name: tenant.to_owned(),
        enabled: !agent.is_empty(),
        agent: agent.to_owned(),
        ..SetDirectorySynchronizationRequest::default()
    };
    let done = caller
        .tenants()
        .set_directory_synchronization(request)
        .await;
    done.map(Response::into_inner)
}

pub async fn sync(
    caller: &Caller,
    messages: Vec<SyncDirectoryRequest>,
) -> Result<SyncDirectoryResponse, Status> {
    let stream = tokio_stream::iter(messages);
    let done = caller.tenants().sync_directory(stream).await;
    done.map(Response::into_inner)
}

pub async fn state(
    caller: &Caller,
    tenant: &str,
) -> Result<GetDirectorySynchronizationResponse, Status> {
    let request = GetDirectorySynchronizationRequest {
        name: tenant.to_owned(),
        ..GetDirectorySynchronizationRequest::default()
    };
    let got = caller
        .tenants()
        .get_directory_synchronization(request)
        .await;
    got.map(Response::into_inner)
}

fn entry(external_id: &str, change: Change) -> DirectoryEntry {
    DirectoryEntry {
        external_id: external_id.to_owned(),
        change: Some(change),
    }
}

/// A user whose user name is its external ID, or what comes after its last `/`.
pub fn user(external_id: &str) -> DirectoryEntry {
    let name = external_id.rsplit('/').next().unwrap();
    named_user(external_id, name)
}

pub fn named_user(external_id: &str, user_name: &str) -> DirectoryEntry {
    let user = DirectoryUser {
        user_name: user_name.to_owned(),
        given_name: "Given".to_owned(),
        family_name: user_name.to_owned(),
        disabled: false,
    };
    entry(external_id, Change::User(user))
}

pub fn disabled(external_id: &str) -> DirectoryEntry {
    let mut entry = user(external_id);
    if let Some(Change::User(user)) = &mut entry.change {
        user.disabled = true;
    }
    entry
}

pub fn group(external_id: &str, members: &[&str]) -> DirectoryEntry {
    let group = DirectoryGroup {
        display_name: format!("Group {external_id}"),
        members: members.iter().map(|m| (*m).to_owned()).collect(),
        ..DirectoryGroup::default()
    };
    entry(external_id, Change::Group(group))
}

fn with_group(mut of: DirectoryEntry, change: impl FnOnce(&mut DirectoryGroup)) -> DirectoryEntry {
    if let Some(Change::Group(group)) = &mut of.change {
        change(group);
    }
    of
}

/// The group leaves out whom it doesn't name.
pub fn only(external_id: &str, members: &[&str]) -> DirectoryEntry {
    with_group(group(external_id, members), |g| g.replace_members = true)
}

/// The group without these.
pub fn without(external_id: &str, members: &[&str]) -> DirectoryEntry {
    with_group(group(external_id, &[]), |g| {
        g.removed_members = members.iter().map(|m| (*m).to_owned()).collect();
    })
}

pub fn program(external_id: &str, reply_url: &str) -> DirectoryEntry {
    let application = DirectoryApplication {
        display_name: format!("Program {external_id}"),
        reply_url: reply_url.to_owned(),
        application_id_uri: String::new(),
    };
    entry(external_id, Change::Application(application))
}

pub fn gone(external_id: &str) -> DirectoryEntry {
    entry(external_id, Change::Deletion(DirectoryDeletion {}))
}

/// The resource name of what an external ID brought.
pub async fn name_of(site: &Site, tenant: &str, kind: &str, external_id: &str) -> Option<String> {
    use sea_orm::{ConnectionTrait as _, Statement};
    let (table, live) = match kind {
        "users" => ("users", " AND state <> 3"),
        "groups" => ("user_groups", ""),
        _ => ("applications", ""),
    };
    let sql = format!("SELECT id FROM {table} WHERE tenant_id = $1 AND external_id = $2{live}");
    let values = [id(tenant).into(), external_id.into()];
    let statement = Statement::from_sql_and_values(site.app.db.backend, sql, values);
    let row = site.app.db.read.query_one_raw(statement).await.unwrap()?;
    let id: uuid::Uuid = row.try_get("", "id").unwrap();
    Some(format!("{tenant}/{kind}/{id}"))
}

pub async fn user_of(site: &Site, tenant: &str, external_id: &str) -> String {
    let name = name_of(site, tenant, "users", external_id).await;
    name.unwrap_or_else(|| panic!("no user came of {external_id}"))
}

/// Who is in the group that an external ID brought, by user name, in order.
pub async fn members(site: &Site, tenant: &str, external_id: &str) -> Vec<String> {
    use sea_orm::{ConnectionTrait as _, Statement};
    let sql = "SELECT u.user_name FROM group_members m JOIN user_groups g ON g.id = m.group_id JOIN users u ON u.id = m.user_id \
               WHERE g.tenant_id = $1 AND g.external_id = $2 ORDER BY u.user_name";
    let values = [id(tenant).into(), external_id.into()];
    let statement = Statement::from_sql_and_values(site.app.db.backend, sql, values);
    let rows = site.app.db.read.query_all_raw(statement).await.unwrap();
    rows.iter()
        .map(|r| r.try_get("", "user_name").unwrap())
        .collect()
}

/// Makes principals members of an account.
pub async fn add(caller: &Caller, account: &str, principals: &[&str], roles: &[AccountRole]) {
    let request = AddMembersRequest {
        parent: account.to_owned(),
        principals: principals.iter().map(|p| (*p).to_owned()).collect(),
        rights: Some(rights(roles)),
        ..AddMembersRequest::default()
    };
    caller.members().add_members(request).await.unwrap();
}

#[track_caller]
fn synchronized<T: std::fmt::Debug>(result: Result<T, Status>) {
    refused(result, Code::FailedPrecondition, "DIRECTORY_SYNCHRONIZED");
}

fn reason(fault: &DirectoryFault) -> ErrorReason {
    fault.reason.try_into().unwrap()
}

// proves TEN-5
#[tokio::test]
async fn entries_of_each_kind_are_made_changed_and_deleted() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let mut agent = Agent::of(&site, &contoso).await;
        let answer = agent
            .bring(vec![
                user("u/bob"),
                user("u/cid"),
                disabled("u/dan"),
                group("g/1", &["u/bob", "u/cid"]),
                program("a/1", "https://one.example/back"),
            ])
            .await;
        let told = answer.synchronization.unwrap();
        assert_eq!((told.last_sequence, told.upserted_count), (1, 5));
        assert_eq!((told.enabled, &told.agent), (true, &agent.name));
        let bob = user_of(&site, &contoso.name, "u/bob").await;
        let made = admin.user(&bob).await.unwrap();
        assert!(made.synchronized);
        assert_eq!(made.display_name, "Given bob");
        assert_eq!(made.sign_in_name, "bob@contoso.partners.localhost");
        let dan = user_of(&site, &contoso.name, "u/dan").await;
        assert_eq!(
            admin.user(&dan).await.unwrap().state,
            UserState::Disabled as i32
        );
        assert_eq!(members(&site, &contoso.name, "g/1").await, ["bob", "cid"]);
        let found = admin
            .list(&contoso.name, "display_name : \"iven ci\"")
            .await
            .unwrap();
        assert_eq!(found.len(), 1);
        let app = name_of(&site, &contoso.name, "applications", "a/1")
            .await
            .unwrap();
        assert_eq!(events(&site, "directory.v1.UserCreated", &bob).await, 1);
        assert_eq!(
            events(&site, "directory.v1.ApplicationCreated", &app).await,
            1
        );

        // The same again changes nothing.
        let before = admin.user(&bob).await.unwrap();
        agent
            .bring(vec![
                user("u/bob"),
                group("g/1", &["u/bob"]),
                program("a/1", "https://one.example/back"),
            ])
            .await;
        assert_eq!(admin.user(&bob).await.unwrap(), before);
        assert_eq!(events(&site, "directory.v1.UserUpdated", &bob).await, 0);
        assert_eq!(members(&site, &contoso.name, "g/1").await, ["bob", "cid"]);

        agent
            .bring(vec![
                named_user("u/bob", "robert"),
                without("g/1", &["u/cid", "u/never-there"]),
                program("a/1", "https://two.example/back"),
                gone("u/dan"),
                gone("u/never-there"),
            ])
            .await;
        let renamed = admin.user(&bob).await.unwrap();
        assert_eq!(
            (renamed.user_name.as_str(), renamed.display_name.as_str()),
            ("robert", "Given robert")
        );
        assert_ne!(renamed.etag, before.etag);
        assert_eq!(members(&site, &contoso.name, "g/1").await, ["robert"]);
        assert_eq!(
            admin.user(&dan).await.unwrap().state,
            UserState::Deleted as i32
        );
        assert_eq!(events(&site, "directory.v1.UserDeleted", &dan).await, 1);

        agent.bring(vec![only("g/1", &["u/cid"])]).await;
        assert_eq!(members(&site, &contoso.name, "g/1").await, ["cid"]);
        let done = agent.bring(vec![gone("g/1"), gone("a/1")]).await;
        assert_eq!(name_of(&site, &contoso.name, "groups", "g/1").await, None);
        assert_eq!(
            name_of(&site, &contoso.name, "applications", "a/1").await,
            None
        );
        assert_eq!(
            events(&site, "directory.v1.ApplicationDeleted", &app).await,
            1
        );
        let told = done.synchronization.unwrap();
        assert_eq!(
            (told.last_sequence, told.deleted_count, told.fault_count),
            (5, 3, 0)
        );
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves TEN-5, USR-7, GRP-2
#[tokio::test]
async fn names_from_there_show_in_lists_here_and_groups_count_who_is_left() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let mut agent = Agent::of(&site, &contoso).await;
        agent
            .bring(vec![
                user("u/bob"),
                user("u/cid"),
                user("u/dan"),
                group("g/1", &["u/bob"]),
                group("g/2", &["u/bob", "u/cid", "u/dan"]),
            ])
            .await;
        let bob = user_of(&site, &contoso.name, "u/bob").await;
        let one = name_of(&site, &contoso.name, "groups", "g/1").await;
        let two = name_of(&site, &contoso.name, "groups", "g/2").await;
        let (one, two) = (one.unwrap(), two.unwrap());
        add(admin, &account, &[&bob, &one], &[AccountRole::Developer]).await;
        let count = async || {
            let request = GetGroupRequest { name: two.clone() };
            let found = admin.groups().get_group(request).await.unwrap();
            found.into_inner().member_count
        };
        assert_eq!(count().await, 3);

        let renamed = DirectoryGroup {
            display_name: "Zebras".to_owned(),
            ..DirectoryGroup::default()
        };
        agent
            .bring(vec![
                named_user("u/bob", "zoe"),
                entry("g/1", Change::Group(renamed)),
            ])
            .await;
        for (filter, found) in [
            ("display_name=\"given bob\"", 0),
            ("display_name=\"given zoe\"", 1),
            ("display_name=\"group g*\"", 0),
            ("display_name=zebras", 1),
        ] {
            let members = crate::members::list(admin, &account, filter).await;
            assert_eq!(members.unwrap().len(), found, "{filter}");
        }

        // Who leaves and who is gone count no more.
        agent
            .bring(vec![without("g/2", &["u/cid"]), gone("u/dan")])
            .await;
        assert_eq!(count().await, 1);
        assert_eq!(members(&site, &contoso.name, "g/2").await, ["zoe"]);
    })
    .await;
}

// proves TEN-5, USR-3
#[tokio::test]
async fn while_a_tenant_is_synchronised_what_comes_from_there_is_changed_there() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let here = site.person(&contoso, "here").await;
        let account = site.account(&contoso, "Contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        agent.bring(vec![user("u/bob"), user("u/cid")]).await;
        let bob = user_of(&site, &contoso.name, "u/bob").await;
        let cid = user_of(&site, &contoso.name, "u/cid").await;

        synchronized(
            admin
                .users()
                .create_user(new_user(&contoso.name, "new"))
                .await,
        );
        let app = CreateApplicationRequest {
            parent: contoso.name.clone(),
            application: Some(Application {
                display_name: "New".to_owned(),
                ..Application::default()
            }),
            ..CreateApplicationRequest::default()
        };
        synchronized(admin.applications().create_application(app.clone()).await);
        for (field, changed) in [
            (
                "given_name",
                User {
                    given_name: "Rob".to_owned(),
                    ..named(&bob)
                },
            ),
            (
                "user_name",
                User {
                    user_name: "rob".to_owned(),
                    ..named(&bob)
                },
            ),
        ] {
            synchronized(admin.update(changed, &[field]).await);
        }
        // Not the local directory's: without it nobody becomes a global admin. What Bob gets sleeps now, somebody else set a credential.
        let address = User {
            given_name: "Rob".to_owned(),
            recovery_email: "rob@mail.example".to_owned(),
            ..named(&bob)
        };
        let both_fields = ["recovery_email", "given_name"];
        synchronized(admin.update(address.clone(), &both_fields).await);
        let changed = admin.update(address, &["recovery_email"]).await.unwrap();
        assert_eq!(changed.recovery_email, "rob@mail.example");
        assert!(changed.synchronized && changed.rights_asleep_until.is_some());
        admin
            .assign(&bob, &[DirectoryRole::GlobalAdmin])
            .await
            .unwrap();
        admin.assign(&bob, &[]).await.unwrap();
        // The local directory leaves it as it is.
        agent.bring(vec![user("u/bob")]).await;
        let after = admin.user(&bob).await.unwrap();
        assert_eq!(after.recovery_email, "rob@mail.example");
        synchronized(admin.reset(&bob).await);
        synchronized(admin.delete(&bob).await);
        agent.bring(vec![gone("u/cid")]).await;
        synchronized(admin.undelete(&cid, "").await);
        // Disabling can't wait for the local directory, and being disabled there can't be undone here.
        admin.disable(&bob).await.unwrap();
        admin.enable(&bob).await.unwrap();
        // What comes from there can be a member as ever, and is shown under the name that it has there.
        add(admin, &account, &[&bob], &[AccountRole::Developer]).await;
        agent.bring(vec![named_user("u/bob", "robert")]).await;
        let listed = ListMembersRequest {
            parent: account.clone(),
            order_by: "display_name".to_owned(),
            ..ListMembersRequest::default()
        };
        let listed = admin
            .members()
            .list_members(listed)
            .await
            .unwrap()
            .into_inner();
        let names: Vec<_> = listed
            .members
            .iter()
            .map(|m| m.display_name.as_str())
            .collect();
        assert_eq!(names, ["Ann Smith", "Given robert"]);
        // Directory roles are given here.
        admin
            .assign(&bob, &[DirectoryRole::HelpdeskAdmin])
            .await
            .unwrap();
        // What was made here is changed here.
        admin
            .update(
                User {
                    given_name: "Her".to_owned(),
                    ..named(&here.name)
                },
                &["given_name"],
            )
            .await
            .unwrap();
        admin.reset(&here.name).await.unwrap();
        admin.delete(&here.name).await.unwrap();
        admin.undelete(&here.name, "").await.unwrap();
    })
    .await;
}

// proves TEN-5
#[tokio::test]
async fn who_is_disabled_there_and_who_is_disabled_here_are_kept_apart() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let mut agent = Agent::of(&site, &contoso).await;
        agent.bring(vec![user("u/bob"), disabled("u/cid")]).await;
        let bob = user_of(&site, &contoso.name, "u/bob").await;
        let cid = user_of(&site, &contoso.name, "u/cid").await;
        let state = async |name: &str| admin.user(name).await.unwrap().state;
        let (active, off) = (UserState::Active as i32, UserState::Disabled as i32);

        // Disabled here: the local directory knows nothing of it.
        admin.disable(&bob).await.unwrap();
        agent.bring(vec![user("u/bob")]).await;
        assert_eq!(state(&bob).await, off);
        // Disabled on both sides: it takes both to let her in.
        agent.bring(vec![disabled("u/bob")]).await;
        synchronized(admin.enable(&bob).await);
        agent.bring(vec![user("u/bob")]).await;
        assert_eq!(state(&bob).await, off);
        admin.enable(&bob).await.unwrap();
        // Disabled there only, from the first or later.
        synchronized(admin.enable(&cid).await);
        agent.bring(vec![user("u/cid"), disabled("u/bob")]).await;
        assert_eq!((state(&cid).await, state(&bob).await), (active, off));
        assert_eq!(events(&site, "directory.v1.UserDisabled", &bob).await, 2);
        assert_eq!(events(&site, "directory.v1.UserEnabled", &cid).await, 1);
        agent.bring(vec![user("u/bob")]).await;
        assert_eq!(state(&bob).await, active);
        let noted = "SELECT COUNT(*) AS n FROM directory_disabled_users";
        assert_eq!(number(&site, noted, []).await, 0);
    })
    .await;
}

// proves TEN-5
#[tokio::test]
async fn unmarking_leaves_what_came_as_if_it_had_been_made_here() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let mut agent = Agent::of(&site, &contoso).await;
        agent
            .bring(vec![
                user("u/bob"),
                disabled("u/off"),
                user("u/gone"),
                group("g/1", &["u/bob"]),
                program("a/1", ""),
            ])
            .await;
        agent.bring(vec![gone("u/gone")]).await;
        let bob = user_of(&site, &contoso.name, "u/bob").await;
        let off = user_of(&site, &contoso.name, "u/off").await;
        let app = name_of(&site, &contoso.name, "applications", "a/1")
            .await
            .unwrap();
        agent.fault(named_user("u/bad", "no good name")).await;

        let rehearsed = SetDirectorySynchronizationRequest {
            name: contoso.name.clone(),
            validate_only: true,
            ..SetDirectorySynchronizationRequest::default()
        };
        let mut tenants = admin.tenants();
        let told = tenants
            .set_directory_synchronization(rehearsed)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(told.released_count, 4);
        assert!(admin.user(&bob).await.unwrap().synchronized);

        let done = mark(admin, &contoso.name, "").await.unwrap();
        assert_eq!(done.released_count, 4);
        assert!(!done.tenant.unwrap().synchronized);
        let there = state(admin, &contoso.name).await.unwrap();
        assert_eq!(there.faults, []);
        let told = there.synchronization.unwrap();
        assert_eq!(
            (told.enabled, told.agent.as_str(), told.last_sequence),
            (false, "", 0)
        );
        assert!(!admin.user(&bob).await.unwrap().synchronized);
        admin
            .update(
                User {
                    given_name: "Rob".to_owned(),
                    ..named(&bob)
                },
                &["given_name"],
            )
            .await
            .unwrap();
        admin.reset(&bob).await.unwrap();
        admin.enable(&off).await.unwrap();
        admin.delete(&bob).await.unwrap();
        admin.undelete(&bob, "").await.unwrap();
        admin
            .users()
            .create_user(new_user(&contoso.name, "new"))
            .await
            .unwrap();
        application(admin, &contoso.name, "New").await;
        // The agent is an application like others.
        let message = agent.message(vec![user("u/bob")]);
        refused(
            sync(&agent.caller, vec![message]).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let by_admin = SyncDirectoryRequest {
            parent: contoso.name.clone(),
            request_id: request_id(),
            sequence: 1,
            ..SyncDirectoryRequest::default()
        };
        refused(
            sync(admin, vec![by_admin]).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );

        // A later synchronisation starts from nothing: it takes over nobody who is there.
        mark(admin, &contoso.name, &agent.name).await.unwrap();
        agent.run = request_id();
        agent.sequence = 0;
        let fault = agent.fault(user("u/bob")).await;
        assert_eq!(reason(&fault), ErrorReason::UserNameTaken);
        agent.bring(vec![gone("u/bob"), program("a/2", "")]).await;
        assert_eq!(
            admin.user(&bob).await.unwrap().state,
            UserState::Active as i32
        );
        let other = name_of(&site, &contoso.name, "applications", "a/2")
            .await
            .unwrap();
        assert_ne!(other, app);
        again(&site, &contoso.admin).await.who_am_i().await.unwrap();
    })
    .await;
}
