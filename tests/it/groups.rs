//! Groups in their tenant: made, read, renamed, filled, deleted. What they give on accounts: `groups/rights.rs`; the last ones who must
//! remain: `groups/last.rs`; filled while they are added to an account: `groups/filling.rs`.

mod filling;
mod large;
mod last;
mod rights;

use entente::proto::{
    access::AccountRole,
    directory::{
        AddGroupMembersRequest, CreateGroupRequest, DeleteGroupsRequest, DeleteGroupsResponse,
        GetGroupRequest, Group, GroupMember, ListGroupMembersRequest, ListGroupsRequest,
        ListUserGroupsRequest, NewMembership, RemoveGroupMembersRequest,
        RemoveGroupMembersResponse, UpdateGroupRequest, UserKind, UserState,
    },
};
use tonic::{Code, Response, Status};

use crate::{
    claims::row_counts,
    harness::{
        Caller, Person, Site, TenantSite, both, fields, membership, new_user, refused, request_id,
    },
    invitations::Inviting as _,
    members::{crowd, list},
    people::{People as _, application, change, events, id, mask, person_as, second_admin},
};

/// Calls about groups.
pub(crate) trait Groups {
    async fn made(&self, request: CreateGroupRequest) -> Result<Group, Status>;
    async fn group(&self, name: &str) -> Result<Group, Status>;
    async fn rename(&self, name: &str, display_name: &str) -> Result<Group, Status>;
    async fn join(&self, group: &str, users: &[&str]) -> Result<Vec<GroupMember>, Status>;
    async fn part(&self, group: &str, users: &[&str])
    -> Result<RemoveGroupMembersResponse, Status>;
    async fn disband(&self, tenant: &str, names: &[&str]) -> Result<DeleteGroupsResponse, Status>;
    async fn groups_of(&self, user: &str) -> Result<Vec<Group>, Status>;
    async fn all_groups(&self, tenant: &str, filter: &str) -> Result<Vec<Group>, Status>;
    async fn in_group(&self, group: &str, filter: &str) -> Result<Vec<GroupMember>, Status>;
}

impl Groups for Caller {
    async fn made(&self, request: CreateGroupRequest) -> Result<Group, Status> {
        let done = self.groups().create_group(request).await;
        done.map(Response::into_inner)
    }
    async fn group(&self, name: &str) -> Result<Group, Status> {
        let name = name.to_owned();
        let done = self.groups().get_group(GetGroupRequest { name }).await;
        done.map(Response::into_inner)
    }
    async fn rename(&self, name: &str, display_name: &str) -> Result<Group, Status> {
        let request = UpdateGroupRequest {
            group: Some(Group {
                name: name.to_owned(),
                display_name: display_name.to_owned(),
                ..Group::default()
            }),
            ..UpdateGroupRequest::default()
        };
        let done = self.groups().update_group(request).await;
        done.map(Response::into_inner)
    }
    async fn join(&self, group: &str, users: &[&str]) -> Result<Vec<GroupMember>, Status> {
        let done = self.groups().add_group_members(joining(group, users)).await;
        done.map(|r| r.into_inner().members)
    }
    async fn part(
        &self,
        group: &str,
        users: &[&str],
    ) -> Result<RemoveGroupMembersResponse, Status> {
        let request = RemoveGroupMembersRequest {
            parent: group.to_owned(),
            users: owned(users),
            ..RemoveGroupMembersRequest::default()
        };
        let done = self.groups().remove_group_members(request).await;
        done.map(Response::into_inner)
    }
    async fn disband(&self, tenant: &str, names: &[&str]) -> Result<DeleteGroupsResponse, Status> {
        let request = DeleteGroupsRequest {
            parent: tenant.to_owned(),
            names: owned(names),
            ..DeleteGroupsRequest::default()
        };
        let done = self.groups().delete_groups(request).await;
        done.map(Response::into_inner)
    }
    async fn groups_of(&self, user: &str) -> Result<Vec<Group>, Status> {
        let request = ListUserGroupsRequest {
            parent: user.to_owned(),
            order_by: "display_name".to_owned(),
            ..ListUserGroupsRequest::default()
        };
        let done = self.groups().list_user_groups(request).await;
        done.map(|r| r.into_inner().groups)
    }
    async fn all_groups(&self, tenant: &str, filter: &str) -> Result<Vec<Group>, Status> {
        let request = ListGroupsRequest {
            parent: tenant.to_owned(),
            filter: filter.to_owned(),
            order_by: "display_name".to_owned(),
            ..ListGroupsRequest::default()
        };
        let done = self.groups().list_groups(request).await;
        done.map(|r| r.into_inner().groups)
    }
    async fn in_group(&self, group: &str, filter: &str) -> Result<Vec<GroupMember>, Status> {
        let request = ListGroupMembersRequest {
            parent: group.to_owned(),
            filter: filter.to_owned(),
            order_by: "display_name".to_owned(),
            ..ListGroupMembersRequest::default()
        };
        let done = self.groups().list_group_members(request).await;
        done.map(|r| r.into_inner().members)
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The request of a group.
pub fn new_group(tenant: &str, display_name: &str) -> CreateGroupRequest {
    CreateGroupRequest {
        parent: tenant.to_owned(),
        group: Some(Group {
            display_name: display_name.to_owned(),
            ..Group::default()
        }),
        ..CreateGroupRequest::default()
    }
}

/// The request of joining.
pub fn joining(group: &str, users: &[&str]) -> AddGroupMembersRequest {
    AddGroupMembersRequest {
        parent: group.to_owned(),
        users: owned(users),
        ..AddGroupMembersRequest::default()
    }
}

/// A group that a tenant's global admin makes, with people in it and maybe a membership; gives its name.
pub async fn group(
    tenant: &TenantSite,
    display_name: &str,
    people: &[&Person],
    on: Option<NewMembership>,
) -> String {
    let request = CreateGroupRequest {
        members: people.iter().map(|p| p.name.clone()).collect(),
        memberships: on.into_iter().collect(),
        ..new_group(&tenant.name, display_name)
    };
    tenant.admin.caller.made(request).await.unwrap().name
}

/// The membership of a principal on an account.
pub fn member_of(account: &str, principal: &str) -> String {
    format!("{account}/members/{}", id(principal))
}

fn names(groups: &[Group]) -> Vec<&str> {
    groups.iter().map(|g| g.display_name.as_str()).collect()
}

fn people(members: &[GroupMember]) -> Vec<&str> {
    members.iter().map(|m| m.user.as_str()).collect()
}

/// Says that a local directory made a row.
pub async fn synchronize(site: &Site, table: &str, name: &str) {
    let sql = format!("UPDATE {table} SET external_id = 'S-1-5-21' WHERE id = $1");
    change(site, &sql, [id(name).into()]).await;
}

// proves GRP-2, GRP-3, COM-8
#[tokio::test]
async fn a_group_is_made_with_its_people_and_memberships_in_one_call() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let eve = site.person(&fabrikam, "eve").await;
        let admin = &contoso.admin.caller;
        let whole = |members: &[&str], roles: &[AccountRole]| CreateGroupRequest {
            members: owned(members),
            memberships: vec![membership(&account, roles)],
            ..new_group(&contoso.name, "Web shop")
        };
        let unknown = format!("{}/users/{}", contoso.name, request_id());
        let before = row_counts(&site.app).await;
        let developers = [AccountRole::Developer];
        let status = refused(
            admin.made(whole(&[&bob.name, &unknown], &developers)).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        assert_eq!(fields(&status), ["members[1]"]);
        for members in [[bob.name.as_str(), &eve.name], [&bob.name, &bob.name]] {
            let status = refused(
                admin.made(whole(&members, &developers)).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert!(fields(&status)[0].starts_with("members"), "{status:?}");
        }
        let twice = CreateGroupRequest {
            memberships: vec![membership(&account, &[]), membership(&account, &[])],
            ..new_group(&contoso.name, "Web shop")
        };
        let status = refused(
            admin.made(twice).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["memberships[1].account"]);
        for (who, request) in [
            // Each lacks one of the two permissions, or all.
            (&bob.caller, whole(&[], &[])),
            (&fabrikam.admin.caller, new_group(&contoso.name, "Spies")),
        ] {
            refused(
                who.made(request).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
        let checked = CreateGroupRequest {
            validate_only: true,
            ..whole(&[&bob.name], &developers)
        };
        assert_eq!(admin.made(checked).await.unwrap().member_count, 1);
        let after = row_counts(&site.app).await;
        for table in [
            "user_groups",
            "group_members",
            "grants",
            "group_rights",
            "outbox",
        ] {
            assert_eq!(after[table], before[table], "{table}");
        }

        let made = admin.made(whole(&[&bob.name], &developers)).await.unwrap();
        assert_eq!(
            (made.display_name.as_str(), made.member_count),
            ("Web shop", 1)
        );
        assert!(!made.synchronized && !made.etag.is_empty());
        assert_eq!(admin.group(&made.name).await.unwrap(), made);
        let told = bob.caller.who_am_i().await.unwrap().accounts;
        assert_eq!(told[0].account, account);
        assert_eq!(told[0].rights, membership(&account, &developers).rights);
        assert_eq!(
            events(&site, "directory.v1.GroupCreated", &made.name).await,
            1
        );
        assert_eq!(
            events(&site, "directory.v1.GroupMembersAdded", &made.name).await,
            1
        );
        let member = member_of(&account, &made.name);
        assert_eq!(events(&site, "account.v1.MemberAdded", &member).await, 1);
    })
    .await;
}

// proves GRP-6, ROL-8
#[tokio::test]
async fn groups_are_read_by_admins_and_ones_own_by_oneself() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let joe = site.person(&contoso, "joe").await;
        let manager = site
            .person_with(&contoso, "manager", |r| {
                r.memberships = vec![membership(&account, &[AccountRole::Manager])];
            })
            .await;
        let shop = group(&contoso, "Web Shop", &[&bob, &joe], None).await;
        let sales = group(&contoso, "Sales", &[&bob], None).await;
        group(&contoso, "Empty", &[], None).await;
        let foreign = group(&fabrikam, "Theirs", &[&fabrikam.admin], None).await;
        let admin = &contoso.admin.caller;
        let helper = person_as(
            &site,
            &contoso,
            "helper",
            entente::proto::directory::DirectoryRole::HelpdeskAdmin,
        )
        .await;
        for reader in [admin, &helper.caller] {
            let all = reader.all_groups(&contoso.name, "").await.unwrap();
            assert_eq!(names(&all), ["Empty", "Sales", "Web Shop"]);
            assert_eq!(all[2], reader.group(&shop).await.unwrap());
            let counts: Vec<_> = all.iter().map(|g| g.member_count).collect();
            assert_eq!(counts, [0, 1, 2]);
            let found = reader
                .all_groups(&contoso.name, "display_name:\"EB sh\"")
                .await;
            assert_eq!(names(&found.unwrap()), ["Web Shop"]);
            let theirs = reader.groups_of(&bob.name).await.unwrap();
            assert_eq!(names(&theirs), ["Sales", "Web Shop"]);
            let members = reader.in_group(&shop, "").await.unwrap();
            assert_eq!(people(&members), [bob.name.as_str(), &joe.name]);
            assert_eq!(members[0].sign_in_name, bob.sign_in_name);
            assert_eq!(members[0].kind(), UserKind::Member);
            let found = reader.in_group(&shop, "user_name=JO*").await.unwrap();
            assert_eq!(people(&found), [joe.name.as_str()]);
        }
        // One's own, and nobody else's.
        let own = bob.caller.groups_of(&bob.name).await.unwrap();
        assert_eq!(names(&own), ["Sales", "Web Shop"]);
        assert_eq!(
            names(&joe.caller.groups_of(&joe.name).await.unwrap()),
            ["Web Shop"]
        );
        let app = application(admin, &contoso.name, "App").await.name;
        for who in [&bob.caller, &manager.caller, &fabrikam.admin.caller] {
            for tried in [
                who.all_groups(&contoso.name, "").await.map(drop),
                who.group(&sales).await.map(drop),
                who.in_group(&sales, "").await.map(drop),
                who.groups_of(&joe.name).await.map(drop),
                who.made(new_group(&contoso.name, "Mine")).await.map(drop),
                who.rename(&sales, "Mine").await.map(drop),
                who.join(&sales, &[&joe.name]).await.map(drop),
                who.part(&sales, &[&bob.name]).await.map(drop),
                who.disband(&contoso.name, &[&sales]).await.map(drop),
            ] {
                refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
            }
        }
        // What lies elsewhere isn't there, and a program is in no group.
        let under = foreign.replace(&fabrikam.name, &contoso.name);
        for tried in [
            admin.group(&under).await.map(drop),
            admin.in_group(&under, "").await.map(drop),
            admin.rename(&under, "Ours").await.map(drop),
            admin.join(&under, &[&bob.name]).await.map(drop),
            admin.part(&under, &[&bob.name]).await.map(drop),
            admin.disband(&contoso.name, &[&under]).await.map(drop),
            admin
                .groups_of(&format!("{}/users/{}", contoso.name, request_id()))
                .await
                .map(drop),
        ] {
            refused(tried, Code::NotFound, "RESOURCE_NOT_FOUND");
        }
        for stranger in [&app, &sales] {
            let status = refused(
                admin.join(&sales, &[stranger]).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["users"], "{stranger}");
        }
    })
    .await;
}

// proves GRP-6, COM-5
#[tokio::test]
async fn a_renamed_group_shows_its_new_name_everywhere_at_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let shop = group(&contoso, "Zebra", &[], Some(membership(&account, &[]))).await;
        let old = admin.group(&shop).await.unwrap();
        let new = admin.rename(&shop, "Aardvark").await.unwrap();
        assert_eq!(new.display_name, "Aardvark");
        assert_ne!(new.etag, old.etag);
        assert_eq!(admin.group(&shop).await.unwrap(), new);
        let listing = entente::proto::account::ListMembersRequest {
            parent: account.clone(),
            order_by: "display_name".to_owned(),
            ..Default::default()
        };
        let rows = admin.members().list_members(listing).await.unwrap();
        let shown: Vec<_> = rows.into_inner().members;
        let shown: Vec<_> = shown.iter().map(|m| m.display_name.as_str()).collect();
        assert_eq!(shown, ["Aardvark", "Ann Smith"]);
        let stale = UpdateGroupRequest {
            group: Some(Group {
                name: shop.clone(),
                display_name: "Badger".to_owned(),
                ..Group::default()
            }),
            etag: old.etag,
            ..UpdateGroupRequest::default()
        };
        let late = admin.groups().update_group(stale.clone()).await;
        refused(late, Code::Aborted, "ETAG_MISMATCH");
        let masked = UpdateGroupRequest {
            etag: String::new(),
            update_mask: Some(mask(&["member_count"])),
            ..stale
        };
        let status = refused(
            admin.groups().update_group(masked).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["update_mask"]);
        assert_eq!(events(&site, "directory.v1.GroupUpdated", &shop).await, 1);
        // Two may have one name.
        let second = group(&contoso, "Aardvark", &[], None).await;
        assert_ne!(second, shop);
    })
    .await;
}

// proves GRP-6
#[tokio::test]
async fn five_hundred_join_and_leave_in_one_call_or_nobody_does() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let crowd = crowd(&contoso, "user", 501).await;
        let all: Vec<&str> = crowd.iter().map(String::as_str).collect();
        let team = group(&contoso, "Team", &[], None).await;
        for tried in [
            admin.join(&team, &all).await.map(drop),
            admin.part(&team, &all).await.map(drop),
            admin.join(&team, &[all[0], all[0]]).await.map(drop),
            admin.join(&team, &[]).await.map(drop),
        ] {
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert!(fields(&status)[0].starts_with("users"), "{status:?}");
        }
        let unknown = format!("{}/users/{}", contoso.name, request_id());
        let status = refused(
            admin.join(&team, &[all[0], &unknown, all[1]]).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        assert_eq!(fields(&status), ["users[1]"]);
        assert_eq!(admin.group(&team).await.unwrap().member_count, 0);
        let joined = admin.join(&team, &all[..500]).await.unwrap();
        assert_eq!(people(&joined), &all[..500]);
        // Who is in it stays.
        let joined = admin.join(&team, &[all[500], all[0]]).await.unwrap();
        assert_eq!(people(&joined), [all[500], all[0]]);
        assert!(joined[1].create_time.unwrap().seconds <= joined[0].create_time.unwrap().seconds);
        assert_eq!(admin.group(&team).await.unwrap().member_count, 501);
        let left = admin.part(&team, &all[..500]).await.unwrap();
        assert_eq!(people(&left.resources), &all[..500]);
        assert_eq!(admin.group(&team).await.unwrap().member_count, 1);
        let status = refused(
            admin.part(&team, &[all[500], all[0]]).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        assert_eq!(fields(&status), ["users[1]"]);
        let members = admin.in_group(&team, "").await.unwrap();
        assert_eq!(people(&members), [all[500]]);
        // Told once each, and nothing of those who were in it before.
        let told = |kind: &'static str| events(&site, kind, &team);
        assert_eq!(told("directory.v1.GroupMembersAdded").await, 2);
        assert_eq!(told("directory.v1.GroupMembersRemoved").await, 1);
        admin.join(&team, &[all[500]]).await.unwrap();
        assert_eq!(told("directory.v1.GroupMembersAdded").await, 2);
    })
    .await;
}

// proves USR-1, USR-6, GRP-3
#[tokio::test]
async fn users_are_made_in_groups_and_leave_all_of_them_for_good_when_deleted() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let developers = membership(&account, &[AccountRole::Developer]);
        let shop = group(&contoso, "Shop", &[], Some(developers)).await;
        let sales = group(&contoso, "Sales", &[], None).await;
        let foreign = group(&fabrikam, "Theirs", &[], None).await;
        let unknown = format!("{}/groups/{}", contoso.name, request_id());
        let into = |groups: &[&str]| {
            let mut request = new_user(&contoso.name, "bob");
            request.groups = owned(groups);
            request
        };
        let status = refused(
            admin.users().create_user(into(&[&shop, &unknown])).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        assert_eq!(fields(&status), ["groups[1]"]);
        for bad in [[shop.as_str(), &foreign], [&shop, &shop]] {
            let status = refused(
                admin.users().create_user(into(&bad)).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert!(fields(&status)[0].starts_with("groups"), "{status:?}");
        }
        let bob = site
            .person_with(&contoso, "bob", |r| r.groups = owned(&[&shop, &sales]))
            .await;
        assert_eq!(
            names(&bob.caller.groups_of(&bob.name).await.unwrap()),
            ["Sales", "Shop"]
        );
        assert_eq!(
            bob.caller.who_am_i().await.unwrap().accounts[0].account,
            account
        );
        assert_eq!(
            events(&site, "directory.v1.GroupMembersAdded", &shop).await,
            1
        );

        // A disabled one stays in its groups, and can be put into others.
        admin.disable(&bob.name).await.unwrap();
        let night = group(&contoso, "Night", &[], None).await;
        let joined = admin.join(&night, &[&bob.name]).await.unwrap();
        assert_eq!(joined[0].state(), UserState::Disabled);
        assert_eq!(
            admin.in_group(&shop, "state=DISABLED").await.unwrap().len(),
            1
        );
        admin.enable(&bob.name).await.unwrap();

        let losses = admin.delete(&bob.name).await.unwrap().losses.unwrap();
        let mut left = losses.groups;
        left.sort_unstable();
        let mut all = owned(&[&shop, &sales, &night]);
        all.sort_unstable();
        assert_eq!(left, all);
        for name in &all {
            assert_eq!(admin.group(name).await.unwrap().member_count, 0);
            assert!(admin.in_group(name, "").await.unwrap().is_empty());
        }
        refused(
            admin.join(&sales, &[&bob.name]).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let back = admin.undelete(&bob.name, "").await.unwrap();
        let caller = site
            .settle_in(&bob.sign_in_name, &back.temporary_password)
            .await;
        assert!(caller.groups_of(&bob.name).await.unwrap().is_empty());
        assert!(caller.who_am_i().await.unwrap().accounts.is_empty());
    })
    .await;
}

// proves GRP-4, ATK-11, COM-8
#[tokio::test]
async fn a_deleted_group_is_gone_everywhere_and_one_of_its_name_inherits_nothing() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let other = site.account(&contoso, "Contoso Two").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let developers = membership(&account, &[AccountRole::Developer]);
        let shop = group(&contoso, "Shop", &[&bob], Some(developers.clone())).await;
        let second = group(&contoso, "Second", &[&bob], Some(membership(&other, &[]))).await;
        let mut many = vec![shop.clone(), second.clone()];
        while many.len() < 101 {
            many.push(group(&contoso, "Filler", &[], None).await);
        }
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let unknown = format!("{}/groups/{}", contoso.name, request_id());
        let status = refused(
            admin.disband(&contoso.name, &many).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["names"]);
        let status = refused(
            admin.disband(&contoso.name, &[&shop, &unknown]).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        assert_eq!(fields(&status), ["names[1]"]);
        assert_eq!(bob.caller.who_am_i().await.unwrap().accounts.len(), 2);

        let request = DeleteGroupsRequest {
            parent: contoso.name.clone(),
            names: owned(&many[..100]),
            validate_only: true,
            ..DeleteGroupsRequest::default()
        };
        let told = admin
            .groups()
            .delete_groups(request)
            .await
            .unwrap()
            .into_inner();
        let done = admin.disband(&contoso.name, &many[..100]).await.unwrap();
        assert_eq!(done, told);
        assert_eq!(done.resources.len(), 100);
        let losses = done.losses.unwrap();
        assert_eq!(losses.group_member_count, 2);
        let lost: Vec<_> = losses
            .memberships
            .iter()
            .map(|m| m.member.as_str())
            .collect();
        assert_eq!(
            lost,
            [member_of(&account, &shop), member_of(&other, &second)]
        );
        assert_eq!(losses.memberships[0].rights, developers.rights);
        assert!(bob.caller.who_am_i().await.unwrap().accounts.is_empty());
        assert!(bob.caller.groups_of(&bob.name).await.unwrap().is_empty());
        refused(
            admin.group(&shop).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        assert_eq!(list(admin, &account, "").await.unwrap().len(), 1);
        assert_eq!(events(&site, "directory.v1.GroupDeleted", &shop).await, 1);
        let gone = member_of(&account, &shop);
        assert_eq!(events(&site, "account.v1.MemberRemoved", &gone).await, 1);

        let heir = group(&contoso, "Shop", &[&bob], None).await;
        assert_ne!(heir, shop);
        assert!(bob.caller.who_am_i().await.unwrap().accounts.is_empty());
        assert_eq!(admin.group(&heir).await.unwrap().member_count, 1);
        assert_eq!(list(admin, &account, "").await.unwrap().len(), 1);
    })
    .await;
}

// proves TEN-5, GRP-7, ROL-12
#[tokio::test]
async fn what_a_local_directory_filled_is_changed_there() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let joe = site.person(&contoso, "joe").await;
        let theirs = group(&contoso, "From there", &[&bob], None).await;
        let ours = group(&contoso, "Made here", &[&bob], None).await;
        synchronize(&site, "user_groups", &theirs).await;
        synchronize(&site, "users", &joe.name).await;
        let elsewhere = (Code::FailedPrecondition, "DIRECTORY_SYNCHRONIZED");
        let mut made_with = new_user(&contoso.name, "newcomer");
        made_with.groups = owned(&[&ours, &theirs]);
        for tried in [
            admin.rename(&theirs, "Mine").await.map(drop),
            admin.join(&theirs, &[&contoso.admin.name]).await.map(drop),
            admin.part(&theirs, &[&bob.name]).await.map(drop),
            admin
                .disband(&contoso.name, &[&ours, &theirs])
                .await
                .map(drop),
            admin.users().create_user(made_with).await.map(drop),
            // Its users are grouped there too.
            admin.join(&ours, &[&joe.name]).await.map(drop),
        ] {
            refused(tried, elsewhere.0, elsewhere.1);
        }
        assert!(admin.group(&theirs).await.unwrap().synchronized);
        assert_eq!(names(&admin.groups_of(&bob.name).await.unwrap()).len(), 2);

        // Adding what it brought to an account works as ever, and says what it is; what it may hold is bounded.
        let adding =
            |roles: &[AccountRole], validate_only| entente::proto::account::AddMembersRequest {
                parent: account.clone(),
                principals: owned(&[&theirs]),
                rights: Some(crate::harness::rights(roles)),
                validate_only,
                ..Default::default()
            };
        for validate_only in [true, false] {
            let request = adding(&[AccountRole::Developer], validate_only);
            let added = admin.members().add_members(request).await.unwrap();
            let added = added.into_inner().members;
            assert!(added[0].synchronized, "{validate_only}");
        }
        let member = member_of(&account, &theirs);
        let agents = crate::harness::rights(&[AccountRole::Developer, AccountRole::AdminAgent]);
        let given = crate::members::update(admin, &account, &[(&member, agents)]).await;
        refused(given, Code::FailedPrecondition, "NOT_ASSIGNABLE");

        // Where a local directory makes groups, none is made here; those that were stay.
        change(
            &site,
            "UPDATE tenants SET synchronized = true WHERE id = $1",
            [id(&contoso.name).into()],
        )
        .await;
        refused(
            admin.made(new_group(&contoso.name, "New")).await,
            elsewhere.0,
            elsewhere.1,
        );
        admin.rename(&ours, "Still ours").await.unwrap();
        admin.part(&ours, &[&bob.name]).await.unwrap();
        admin.join(&ours, &[&bob.name]).await.unwrap();
        admin.disband(&contoso.name, &[&ours]).await.unwrap();
    })
    .await;
}

// proves GRP-3, GRP-6, INV-5
#[tokio::test]
async fn guests_join_groups_and_have_what_they_give_while_their_home_lets_them() {
    both(async |site| {
        let visit = crate::guests::guest(&site, &[]).await;
        let (contoso, account, fred) = (&visit.contoso, &visit.account, &visit.fred);
        let admin = &contoso.admin.caller;
        let developers = membership(account, &[AccountRole::Developer]);
        let team = group(contoso, "Team", &[], Some(developers.clone())).await;
        let joined = admin.join(&team, &[&visit.name]).await.unwrap();
        assert_eq!(joined[0].kind(), UserKind::Guest);
        assert_eq!(joined[0].sign_in_name, fred.sign_in_name);
        assert_eq!(admin.in_group(&team, "kind=GUEST").await.unwrap().len(), 1);
        let own = visit.caller.groups_of(&visit.name).await.unwrap();
        assert_eq!(names(&own), ["Team"]);
        let told = visit.caller.who_am_i().await.unwrap().accounts;
        assert_eq!(
            (&told[0].account, &told[0].rights),
            (account, &developers.rights)
        );
        // At home the same person has nothing of it.
        assert!(fred.caller.who_am_i().await.unwrap().accounts.is_empty());
        // The home itself is no user of this tenant.
        let status = refused(
            admin.join(&team, &[&fred.name]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["users"]);

        // Who is invited can be put into a group, and has what it gives once it came.
        let invitation = crate::invitations::addresses(&contoso.name, &["gwen@new.example"]);
        let (made, token) = crate::invitations::invited(&site, admin, invitation).await;
        let joined = admin.join(&team, &[&made.user]).await.unwrap();
        assert_eq!(joined[0].state(), UserState::Invited);
        assert_eq!(
            admin.in_group(&team, "state=INVITED").await.unwrap().len(),
            1
        );
        site.nobody()
            .accept(crate::invitations::as_new(&token))
            .await
            .unwrap();
        let home = site
            .sign_in("gwen@new.example", crate::harness::PASSWORD)
            .await;
        let tokens = crate::guests::switch(&home, &contoso.name).await.unwrap();
        let gwen = site.with_token(&tokens.access_token);
        let told = gwen.who_am_i().await.unwrap().accounts;
        assert_eq!(
            (&told[0].account, &told[0].rights),
            (account, &developers.rights)
        );

        let second = second_admin(&site, &visit.fabrikam, "second").await;
        second.caller.disable(&fred.name).await.unwrap();
        refused(
            visit.caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    })
    .await;
}
