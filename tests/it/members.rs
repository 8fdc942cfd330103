//! MemberService: adding, finding and removing the members of accounts. Changing them: `members/changes.rs`.

mod changes;

use entente::{
    names::Name,
    proto::{
        access::{AccountRole, Rights},
        account::{
            AddMembersRequest, DropRolesRequest, GetMemberRequest, LeaveAccountRequest,
            ListMembersRequest, Member, MemberKind, RemoveMembersRequest, RemoveTenantRequest,
            SearchCandidatesRequest, UpdateMemberRequest, UpdateMembersRequest,
        },
        directory::{DeleteUserRequest, DisableUserRequest, GetUserRequest, UserState},
    },
};
use sea_orm::{ConnectionTrait as _, Statement, Value};
use tonic::{Code, Status};

use crate::{
    associations::{associate, dissociate},
    harness::{
        Caller, Person, Site, TenantSite, both, fields, membership, new_user, refused, rights,
    },
    people::application,
};

/// The request that adds principals to an account.
pub fn adding(account: &str, principals: &[&str], given: Option<Rights>) -> AddMembersRequest {
    AddMembersRequest {
        parent: account.to_owned(),
        principals: principals.iter().map(|p| (*p).to_owned()).collect(),
        rights: given,
        ..AddMembersRequest::default()
    }
}

/// Adds people to an account; gives the members.
pub async fn add(
    caller: &Caller,
    account: &str,
    people: &[&Person],
    roles: &[AccountRole],
) -> Result<Vec<Member>, Status> {
    let principals: Vec<&str> = people.iter().map(|p| p.name.as_str()).collect();
    let request = adding(account, &principals, Some(rights(roles)));
    let added = caller.members().add_members(request).await?;
    Ok(added.into_inner().members)
}

/// Replaces the rights of members in one call.
pub async fn update(
    caller: &Caller,
    account: &str,
    changes: &[(&str, Rights)],
) -> Result<Vec<Member>, Status> {
    let requests = changes
        .iter()
        .map(|(name, rights)| UpdateMemberRequest {
            member: Some(Member {
                name: (*name).to_owned(),
                rights: Some(rights.clone()),
                ..Member::default()
            }),
        })
        .collect();
    let request = UpdateMembersRequest {
        parent: account.to_owned(),
        requests,
        ..UpdateMembersRequest::default()
    };
    let done = caller.members().update_members(request).await?;
    Ok(done.into_inner().members)
}

/// Removes members.
pub async fn remove(
    caller: &Caller,
    account: &str,
    names: &[&str],
    delete_from_directory: bool,
) -> Result<Vec<Member>, Status> {
    let request = RemoveMembersRequest {
        parent: account.to_owned(),
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        delete_from_directory,
        ..RemoveMembersRequest::default()
    };
    let done = caller.members().remove_members(request).await?;
    Ok(done.into_inner().resources)
}

/// The members of an account that a filter finds.
pub async fn list(caller: &Caller, account: &str, filter: &str) -> Result<Vec<Member>, Status> {
    let request = ListMembersRequest {
        parent: account.to_owned(),
        page_size: 1_000,
        filter: filter.to_owned(),
        ..ListMembersRequest::default()
    };
    let page = caller.members().list_members(request).await?;
    Ok(page.into_inner().members)
}

/// The names of the members that a filter finds, in the order of the list.
async fn found(caller: &Caller, account: &str, filter: &str) -> Vec<String> {
    let members = list(caller, account, filter).await.unwrap();
    members.into_iter().map(|m| m.display_name).collect()
}

/// Drops one's own rights.
pub async fn drop_rights(who: &Person, account: &str, rights: Rights) -> Result<Member, Status> {
    let request = DropRolesRequest {
        name: who.member_of(account),
        rights: Some(rights),
        ..DropRolesRequest::default()
    };
    let done = who.caller.members().drop_roles(request).await?;
    Ok(done.into_inner())
}

/// Leaves an account.
pub async fn leave(who: &Person, account: &str) -> Result<(), Status> {
    let request = LeaveAccountRequest {
        name: who.member_of(account),
        ..LeaveAccountRequest::default()
    };
    who.caller
        .members()
        .leave_account(request)
        .await
        .map(|_| ())
}

/// Gives role bits that no RPC gives, on an account.
pub async fn seed(site: &Site, member: &str, bits: i64) {
    let Some(Name::Member(account, principal)) = Name::parse(member) else {
        panic!("{member} is no member");
    };
    let sql = "UPDATE grants SET roles = roles | $1 WHERE scope_kind = 2 AND scope_id = $2 AND principal_id = $3";
    let values: [Value; 3] = [bits.into(), account.into(), principal.into()];
    let db = &site.app.db.write;
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    assert_eq!(db.execute_raw(statement).await.unwrap().rows_affected(), 1);
}

/// Single permissions only.
pub fn singly(permissions: &[&str]) -> Rights {
    Rights {
        roles: Vec::new(),
        permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
    }
}

/// Users that never sign in: their names.
pub async fn crowd(tenant: &TenantSite, prefix: &str, count: usize) -> Vec<String> {
    let mut names = Vec::with_capacity(count);
    for i in 0..count {
        let request = new_user(&tenant.name, &format!("{prefix}{i:03}"));
        let made = tenant.admin.caller.users().create_user(request).await;
        names.push(made.unwrap().into_inner().user.unwrap().name);
    }
    names
}

// proves USR-4
#[tokio::test]
async fn five_hundred_members_are_added_at_once_and_one_more_is_refused() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let manager = &contoso.admin.caller;
        let mut names = crowd(&contoso, "user", 501).await;
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let developers = || Some(rights(&[AccountRole::Developer]));
        let many = manager
            .members()
            .add_members(adding(&account, &all, developers()))
            .await;
        let status = refused(many, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["principals"]);
        assert_eq!(list(manager, &account, "").await.unwrap().len(), 1);
        let last = names.pop().unwrap();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let added = manager
            .members()
            .add_members(adding(&account, &all, developers()))
            .await
            .unwrap()
            .into_inner()
            .members;
        let principals: Vec<&str> = added.iter().map(|m| m.principal.as_str()).collect();
        assert_eq!(principals, all);
        assert!(added.iter().all(|m| m.rights == developers()));
        assert_eq!(list(manager, &account, "").await.unwrap().len(), 501);
        // One who is a member already: the other isn't added either.
        let again = manager
            .members()
            .add_members(adding(&account, &[&last, all[0]], None))
            .await;
        refused(again, Code::AlreadyExists, "ALREADY_MEMBER");
        assert_eq!(list(manager, &account, "").await.unwrap().len(), 501);
    })
    .await;
}

// proves USR-4
#[tokio::test]
async fn one_bad_principal_among_many_leaves_nobody_added() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let other = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let manager = &contoso.admin.caller;
        let good = crowd(&contoso, "user", 3).await;
        let out = site.person(&contoso, "out").await;
        let disabled = DisableUserRequest {
            name: out.name.clone(),
            ..DisableUserRequest::default()
        };
        manager.users().disable_user(disabled).await.unwrap();
        let unknown = format!("{}/users/{}", contoso.name, crate::harness::request_id());
        for (bad, code, reason) in [
            (&other.admin.name, Code::PermissionDenied, "OTHER_TENANT"),
            (
                &out.name,
                Code::FailedPrecondition,
                "NOT_IN_ASSOCIATED_TENANT",
            ),
            (
                &unknown,
                Code::FailedPrecondition,
                "NOT_IN_ASSOCIATED_TENANT",
            ),
            (&good[0], Code::InvalidArgument, "INVALID_FIELDS"),
        ] {
            let request = adding(&account, &[&good[0], &good[1], bad, &good[2]], None);
            refused(manager.members().add_members(request).await, code, reason);
            assert_eq!(list(manager, &account, "").await.unwrap().len(), 1);
        }
    })
    .await;
}

// proves USR-4
#[tokio::test]
async fn whoever_is_signed_in_through_another_tenant_is_told_which_one_to_use() {
    use tonic_types::StatusExt as _;
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        crate::associations::associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        let eve = site.person(&fabrikam, "eve").await;
        let result = add(&contoso.admin.caller, &account, &[&eve], &[]).await;
        let status = refused(result, Code::PermissionDenied, "OTHER_TENANT");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata.get("tenant"), Some(&fabrikam.name));
        // Through its own tenant it works, though its admin holds nothing on the account: without rights only.
        let with = add(
            &fabrikam.admin.caller,
            &account,
            &[&eve],
            &[AccountRole::Developer],
        )
        .await;
        refused(with, Code::PermissionDenied, "PERMISSION_MISSING");
        let added = add(&fabrikam.admin.caller, &account, &[&eve], &[]).await;
        assert!(added.unwrap()[0].effective_rights.is_empty());
        // Nobody else of the tenant may, and not on an account without the tenant.
        let joe = site.person(&fabrikam, "joe").await;
        let result = add(&eve.caller, &account, &[&joe], &[]).await;
        refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
        let foreign = site.account(&contoso, "Contoso Two").await;
        let result = add(&fabrikam.admin.caller, &foreign, &[&joe], &[]).await;
        refused(result, Code::FailedPrecondition, "NOT_IN_ASSOCIATED_TENANT");
        let nowhere = format!("accounts/{}", crate::harness::request_id());
        let result = add(&fabrikam.admin.caller, &nowhere, &[&joe], &[]).await;
        refused(result, Code::FailedPrecondition, "NOT_IN_ASSOCIATED_TENANT");
    })
    .await;
}

// proves USR-5
#[tokio::test]
async fn members_are_deleted_from_the_directory_only_where_made_through_the_account() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let here = site
            .person_with(&contoso, "here", |r| {
                r.memberships = vec![membership(&account, &[AccountRole::Developer])];
            })
            .await;
        let manager = site
            .person_with(&contoso, "manager", |r| {
                r.memberships = vec![membership(&account, &[AccountRole::Manager])];
            })
            .await;
        let elsewhere = site.person(&contoso, "elsewhere").await;
        add(admin, &account, &[&elsewhere], &[]).await.unwrap();
        let (a, b) = (here.member_of(&account), elsewhere.member_of(&account));
        let both_names = [a.as_str(), b.as_str()];
        refused(
            remove(&manager.caller, &account, &[&a], true).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        refused(
            remove(admin, &account, &both_names, true).await,
            Code::FailedPrecondition,
            "NOT_CREATED_HERE",
        );
        let unknown = format!("{account}/members/{}", crate::harness::request_id());
        refused(
            remove(admin, &account, &[&a, &unknown], false).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        assert_eq!(list(admin, &account, "").await.unwrap().len(), 4);
        // The developer holds no members.remove.
        refused(
            remove(&here.caller, &account, &[&b], false).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        remove(admin, &account, &[&a], true).await.unwrap();
        remove(&manager.caller, &account, &[&b], false)
            .await
            .unwrap();
        assert_eq!(list(admin, &account, "").await.unwrap().len(), 2);
        let state = async |person: &Person| {
            let name = person.name.clone();
            let user = admin.users().get_user(GetUserRequest { name }).await;
            user.unwrap().into_inner().state()
        };
        assert_eq!(state(&here).await, UserState::Deleted);
        assert_eq!(state(&elsewhere).await, UserState::Active);
    })
    .await;
}

// proves USR-7
#[tokio::test]
async fn members_are_found_by_role_kind_tenant_and_names() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        crate::associations::associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        let dev = site.person(&contoso, "developer").await;
        let plain = site.person(&fabrikam, "plain").await;
        let program = application(&contoso.admin.caller, &contoso.name, "Robot")
            .await
            .name;
        add(admin, &account, &[&dev], &[AccountRole::Developer])
            .await
            .unwrap();
        add(&fabrikam.admin.caller, &account, &[&plain], &[])
            .await
            .unwrap();
        let offers = Some(singly(&["offers.read"]));
        admin
            .members()
            .add_members(adding(&account, &[&program], offers))
            .await
            .unwrap();
        for (filter, expected) in [
            ("roles:MANAGER", vec!["Ann Smith"]),
            ("roles:DEVELOPER", vec!["Given developer"]),
            ("roles:FINANCE", vec![]),
            ("kind=APPLICATION", vec!["Robot"]),
            ("user_name=DEV*", vec!["Given developer"]),
            ("display_name:\"n plai\"", vec!["Given plain"]),
            (
                "display_name=given* AND NOT roles:DEVELOPER",
                vec!["Given plain"],
            ),
        ] {
            assert_eq!(found(admin, &account, filter).await, expected, "{filter}");
        }
        let theirs = format!("tenant=\"{}\"", fabrikam.name);
        assert_eq!(found(admin, &account, &theirs).await, ["Given plain"]);
        let unknown = list(admin, &account, "principal=x").await;
        let status = refused(unknown, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["filter"]);
        let rows = list(admin, &account, "").await.unwrap();
        let robot = rows.iter().find(|m| m.principal == program).unwrap();
        assert_eq!(robot.kind(), MemberKind::Application);
        assert_eq!(robot.effective_rights.len(), 1);
        assert_eq!(robot.effective_rights[0].right, "offers.read");
        assert_eq!(robot.effective_rights[0].source, "direct");
        let ann = rows.iter().find(|m| m.principal == contoso.admin.name);
        let held: Vec<_> = ann.unwrap().effective_rights.iter().collect();
        assert_eq!(held[0].right, "MANAGER");
        assert_eq!(held[1].right, "ADMIN_AGENT");
        assert!(held.iter().all(|r| r.source == "direct"));
        // Whoever holds no members.read sees itself only.
        refused(
            list(&dev.caller, &account, "").await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let get = async |name: String| {
            let request = GetMemberRequest { name };
            dev.caller.members().get_member(request).await
        };
        assert!(get(dev.member_of(&account)).await.is_ok());
        for other in [plain.member_of(&account), contoso.admin.member_of(&account)] {
            refused(
                get(other).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
    })
    .await;
}

// proves USR-4, ROL-8
#[tokio::test]
async fn candidates_are_names_of_the_own_tenant_and_nothing_else() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        crate::associations::associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        let manager = site.person(&contoso, "manager").await;
        add(
            &contoso.admin.caller,
            &account,
            &[&manager],
            &[AccountRole::Manager],
        )
        .await
        .unwrap();
        let bob = crowd(&contoso, "bobby", 2).await;
        crowd(&fabrikam, "bobby", 1).await;
        let gone = DeleteUserRequest {
            name: bob[1].clone(),
            ..DeleteUserRequest::default()
        };
        contoso
            .admin
            .caller
            .users()
            .delete_user(gone)
            .await
            .unwrap();
        let search = async |who: &Caller, filter: &str| {
            let request = SearchCandidatesRequest {
                parent: account.clone(),
                filter: filter.to_owned(),
                ..SearchCandidatesRequest::default()
            };
            let page = who.members().search_candidates(request).await?;
            Ok::<_, Status>(page.into_inner().candidates)
        };
        for filter in [
            "user_name=bob*",
            "user_name:obby",
            "display_name:\"bobby0\"",
        ] {
            let rows = search(&manager.caller, filter).await.unwrap();
            assert_eq!(rows.len(), 1, "{filter}");
            assert_eq!(rows[0].principal, bob[0]);
            assert_eq!(rows[0].user_name, "bobby000");
            assert!(!rows[0].member);
        }
        let rows = search(&manager.caller, "user_name=manager").await.unwrap();
        assert!(rows[0].member);
        for filter in ["recovery_email=x", "state=ACTIVE", "user_name:bo"] {
            let result = search(&manager.caller, filter).await;
            refused(result, Code::InvalidArgument, "INVALID_FIELDS");
        }
        // The manager's users.assign shows names, and opens nothing of the tenant.
        let request = GetUserRequest {
            name: bob[0].clone(),
        };
        refused(
            manager.caller.users().get_user(request).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        refused(
            search(&fabrikam.admin.caller, "").await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
    })
    .await;
}

// proves COM-5
#[tokio::test]
async fn no_etag_of_a_member_or_an_association_is_good_for_the_one_that_comes_after_it() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let (ann, bob) = (&contoso.admin.caller, site.person(&contoso, "bob").await);
        let developer = [AccountRole::Developer];
        let first = add(ann, &account, &[&bob], &developer).await.unwrap();
        remove(ann, &account, &[&first[0].name], false)
            .await
            .unwrap();
        let second = add(ann, &account, &[&bob], &developer).await.unwrap();
        assert_eq!(first[0].name, second[0].name);
        let stale = UpdateMembersRequest {
            parent: account.clone(),
            requests: vec![UpdateMemberRequest {
                member: Some(Member {
                    rights: Some(Rights::default()),
                    ..first[0].clone()
                }),
            }],
            ..UpdateMembersRequest::default()
        };
        refused(
            ann.members().update_members(stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let admin = &contoso.admin;
        let early = associate(admin, &account, &fabrikam.admin).await.unwrap();
        dissociate(ann, &account, &fabrikam.name).await.unwrap();
        associate(admin, &account, &fabrikam.admin).await.unwrap();
        let stale = RemoveTenantRequest {
            name: early.name,
            etag: early.etag,
            ..RemoveTenantRequest::default()
        };
        refused(
            ann.associations().remove_tenant(stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
    })
    .await;
}
