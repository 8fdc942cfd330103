//! What groups give on accounts, who may bring that about, and how soon it counts.

use entente::proto::{
    access::{AccessCheck, AccountRole, CheckAccessRequest, ExplainAccessRequest, Rights},
    account::{
        AddMembersRequest, Candidate, GetAccountRequest, GetMemberRequest, GrantFinanceRequest,
        ListAccountsRequest, Member, MemberKind, RemoveMembersRequest, RestoreManagerRequest,
        SearchCandidatesRequest, UpdateMemberRequest, UpdateMembersRequest,
    },
    directory::{CreateGroupRequest, DirectoryRole},
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use super::{Groups as _, group, joining, member_of, new_group, owned, synchronize};
use crate::{
    associations::{associate, dissociate},
    claims::{Replica, replayed},
    harness::{Caller, Person, both, fields, membership, new_user, refused, request_id, rights},
    members::{add, adding, list, remove, singly, update},
    people::{People as _, Service, application, id, person_as, second_admin},
};

/// Whether somebody sees an account.
async fn sees(who: &Caller, account: &str) -> Result<(), Status> {
    let name = account.to_owned();
    let got = who.accounts().get_account(GetAccountRequest { name }).await;
    got.map(drop)
}

async fn member(caller: &Caller, account: &str, principal: &str) -> Result<Member, Status> {
    let name = member_of(account, principal);
    let got = caller.members().get_member(GetMemberRequest { name }).await;
    got.map(Response::into_inner)
}

/// What a member holds, and from where.
fn held(member: &Member) -> Vec<(&str, &str)> {
    let rights = member.effective_rights.iter();
    rights
        .map(|r| (r.right.as_str(), r.source.as_str()))
        .collect()
}

// proves GRP-1, APP-1, ROL-4, ROL-5, ROL-12, USR-4
#[tokio::test]
async fn groups_and_programs_are_added_and_changed_beside_users() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let joe = site.person(&contoso, "joe").await;
        let program = application(admin, &contoso.name, "Robot").await.name;
        let shop = group(&contoso, "Shop", &[&bob], None).await;
        let sales = group(&contoso, "Sales", &[&bob, &joe], None).await;
        let theirs = group(&fabrikam, "Theirs", &[], None).await;
        let gone = group(&contoso, "Gone", &[], None).await;
        admin.disband(&contoso.name, &[&gone]).await.unwrap();
        let mixed = Rights {
            roles: vec![AccountRole::Developer as i32],
            permissions: vec!["members.read".to_owned()],
        };
        let all = [shop.as_str(), &joe.name, &program, &sales];
        for (bad, code, reason) in [
            (&theirs, Code::PermissionDenied, "OTHER_TENANT"),
            (&gone, Code::FailedPrecondition, "NOT_IN_ASSOCIATED_TENANT"),
        ] {
            let request = adding(&account, &[&shop, bad], Some(mixed.clone()));
            refused(admin.members().add_members(request).await, code, reason);
        }
        let request = adding(&account, &all, Some(mixed.clone()));
        let added = admin.members().add_members(request).await.unwrap();
        let added = added.into_inner().members;
        let told: Vec<_> = added
            .iter()
            .map(|m| (m.principal.as_str(), m.kind(), m.active, m.synchronized))
            .collect();
        let kinds = [
            MemberKind::Group,
            MemberKind::User,
            MemberKind::Application,
            MemberKind::Group,
        ];
        let expected: Vec<_> = all
            .iter()
            .zip(kinds)
            .map(|(p, kind)| (*p, kind, true, false))
            .collect();
        assert_eq!(told, expected);
        assert!(added.iter().all(|m| m.rights == Some(mixed.clone())));
        assert_eq!(added[0].sign_in_name, "");
        let again = adding(&account, &[&shop], None);
        refused(
            admin.members().add_members(again).await,
            Code::AlreadyExists,
            "ALREADY_MEMBER",
        );
        // Bob, who is no member himself, has it at once.
        assert_eq!(list(&bob.caller, &account, "").await.unwrap().len(), 5);

        // What groups and programs never hold.
        let names: Vec<String> = all.iter().map(|p| member_of(&account, p)).collect();
        let with = |role: AccountRole| {
            let mut more = mixed.clone();
            more.roles.push(role as i32);
            more
        };
        crate::members::seed(
            &site,
            &contoso.admin.member_of(&account),
            entente::access::grants::FINANCE,
        )
        .await;
        for (name, role) in [
            (&names[0], AccountRole::Finance),
            (&names[0], AccountRole::Owner),
            (&names[2], AccountRole::Finance),
            (&names[2], AccountRole::Owner),
            (&names[2], AccountRole::AdminAgent),
        ] {
            let given = update(admin, &account, &[(name, with(role))]).await;
            refused(given, Code::FailedPrecondition, "NOT_ASSIGNABLE");
        }
        let request = GrantFinanceRequest {
            name: names[0].clone(),
            ..GrantFinanceRequest::default()
        };
        refused(
            admin.members().grant_finance(request).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        let bound = singly(&["delegated.act"]);
        refused(
            update(admin, &account, &[(&names[0], bound)]).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        // A group that people fill here may act for customers.
        let agents = [(names[0].as_str(), with(AccountRole::AdminAgent))];
        update(admin, &account, &agents).await.unwrap();
        let changed = [
            (names[0].as_str(), singly(&["statements.read"])),
            (names[3].as_str(), Rights::default()),
        ];
        let members = update(admin, &account, &changed).await.unwrap();
        assert_eq!(members[0].rights, Some(singly(&["statements.read"])));
        refused(
            list(&bob.caller, &account, "").await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        sees(&bob.caller, &account).await.unwrap();
        // Nobody is deleted with a group.
        let request = RemoveMembersRequest {
            parent: account.clone(),
            names: vec![names[0].clone()],
            delete_from_directory: true,
            ..RemoveMembersRequest::default()
        };
        let status = refused(
            admin.members().remove_members(request).await,
            Code::FailedPrecondition,
            "NOT_CREATED_HERE",
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["principal"], shop);
        let off = [names[0].as_str(), &names[3]];
        remove(admin, &account, &off, false).await.unwrap();
        refused(
            sees(&bob.caller, &account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // The group itself is still there.
        assert_eq!(admin.group(&shop).await.unwrap().member_count, 1);
    })
    .await;
}

// proves ROL-6, USR-7, GRP-3
#[tokio::test]
async fn rights_are_the_union_of_all_ways_and_each_way_is_named() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let off = site.person(&contoso, "off").await;
        let plain = site.person(&contoso, "plain").await;
        let readers = group(&contoso, "Readers", &[&bob], None).await;
        let managers = group(&contoso, "Managers", &[&bob, &plain], None).await;
        let empty = group(&contoso, "Empty", &[&bob], None).await;
        add(admin, &account, &[&bob], &[AccountRole::Developer])
            .await
            .unwrap();
        add(admin, &account, &[&off], &[]).await.unwrap();
        admin.disable(&off.name).await.unwrap();
        for (principal, given) in [
            (&readers, singly(&["members.read"])),
            (&managers, rights(&[AccountRole::Manager])),
            (&empty, Rights::default()),
        ] {
            let request = adding(&account, &[principal], Some(given));
            admin.members().add_members(request).await.unwrap();
        }
        let bobs = member(admin, &account, &bob.name).await.unwrap();
        assert_eq!(bobs.rights, Some(rights(&[AccountRole::Developer])));
        assert_eq!(held(&bobs)[0], ("DEVELOPER", "direct"));
        let mut by_groups = held(&bobs)[1..].to_vec();
        by_groups.sort_unstable();
        let mut expected = [
            ("MANAGER", managers.as_str()),
            ("members.read", readers.as_str()),
        ];
        expected.sort_unstable();
        assert_eq!(by_groups, expected);
        // The same in lists, with other members on the page, and for oneself.
        let rows = list(&bob.caller, &account, "").await.unwrap();
        let row = rows.iter().find(|m| m.principal == bob.name).unwrap();
        assert_eq!(*row, bobs);
        assert_eq!(
            member(&bob.caller, &account, &bob.name).await.unwrap(),
            bobs
        );
        let group_row = rows.iter().find(|m| m.principal == managers).unwrap();
        assert_eq!(held(group_row), [("MANAGER", "direct")]);
        // All of it together.
        let told = bob.caller.who_am_i().await.unwrap().accounts.remove(0);
        let mut all = told.rights.unwrap();
        all.roles.sort_unstable();
        let roles = [AccountRole::Manager, AccountRole::Developer];
        assert_eq!(all.roles, roles.map(|r| r as i32));
        assert_eq!(all.permissions, ["members.read"]);

        // Found by what they hold in all, by group, by kind, by whether they can act.
        let found = async |filter: &str| {
            let members = list(admin, &account, filter).await.unwrap();
            let mut names: Vec<_> = members.into_iter().map(|m| m.display_name).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(
            found("roles:MANAGER").await,
            ["Ann Smith", "Given bob", "Managers"]
        );
        assert_eq!(found("roles:MANAGER roles:DEVELOPER").await, ["Given bob"]);
        assert_eq!(found("kind=GROUP").await, ["Empty", "Managers", "Readers"]);
        assert_eq!(found("active=false").await, ["Given off"]);
        let by_group = format!("group=\"{managers}\"");
        assert_eq!(found(&by_group).await, ["Given bob"]);
        let users = admin.list(&contoso.name, &by_group).await.unwrap();
        assert_eq!(users.len(), 2);

        // Whoever is no member but by a group has no membership of its own.
        list(&plain.caller, &account, "").await.unwrap();
        refused(
            member(admin, &account, &plain.name).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let accounts = plain
            .caller
            .accounts()
            .list_accounts(ListAccountsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .accounts;
        assert_eq!(accounts.len(), 1);
        assert_eq!(accounts[0].name, account);
        // One way ends, the others stay.
        admin.part(&managers, &[&bob.name]).await.unwrap();
        let bobs = member(admin, &account, &bob.name).await.unwrap();
        let left = [("DEVELOPER", "direct"), ("members.read", readers.as_str())];
        assert_eq!(held(&bobs), left);
    })
    .await;
}

// proves USR-7, ROL-6
#[tokio::test]
async fn all_groups_that_give_the_same_are_named() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let joe = site.person(&contoso, "joe").await;
        add(admin, &account, &[&bob, &joe], &[AccountRole::Developer])
            .await
            .unwrap();
        let with = |role| Some(membership(&account, &[role]));
        let mut developers = Vec::new();
        for i in 0..3 {
            let name = format!("Developers {i}");
            developers.push(group(&contoso, &name, &[&bob], with(AccountRole::Developer)).await);
        }
        let helpers = group(
            &contoso,
            "Helpers",
            &[&bob],
            with(AccountRole::HelpdeskAgent),
        )
        .await;
        // Which gives nothing here, and one that is none of Bob's.
        group(&contoso, "Idle", &[&bob], None).await;
        group(&contoso, "Others", &[&joe], with(AccountRole::Developer)).await;
        developers.sort_unstable();
        let sources = |member: &Member| {
            let rights = member.effective_rights.iter();
            let source = rights.map(|r| {
                (
                    r.right.clone(),
                    r.source.clone(),
                    r.groups.clone(),
                    r.more_groups,
                )
            });
            source.collect::<Vec<_>>()
        };
        let right = |right: &str, groups: &[String], more: bool| {
            let source = groups.first().map_or("direct", String::as_str).to_owned();
            (right.to_owned(), source, groups.to_vec(), more)
        };
        let mut expected = [
            right("DEVELOPER", &[], false),
            right("DEVELOPER", &developers, false),
            right("HELPDESK_AGENT", &[helpers], false),
        ];
        expected.sort_unstable();
        let mut got = sources(&member(admin, &account, &bob.name).await.unwrap());
        got.sort_unstable();
        assert_eq!(got, expected);
        let listed = list(admin, &account, "user_name=\"bob\"").await.unwrap();
        let mut got = sources(&listed[0]);
        got.sort_unstable();
        assert_eq!(got, expected);
        // A mutation's answer names one, and that there are more.
        let name = member_of(&account, &bob.name);
        let same = [(name.as_str(), rights(&[AccountRole::Developer]))];
        let changed = update(admin, &account, &same).await.unwrap();
        let one = right("DEVELOPER", &developers[..1], true);
        assert!(sources(&changed[0]).contains(&one), "{changed:?}");
        // What one of them gave no longer is named no more.
        admin.part(&developers[0], &[&bob.name]).await.unwrap();
        let left = sources(&member(admin, &account, &bob.name).await.unwrap());
        assert!(left.contains(&right("DEVELOPER", &developers[1..], false)));
    })
    .await;
}

// proves USR-7
#[tokio::test]
async fn of_very_many_groups_that_give_the_same_the_first_are_named() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        add(admin, &account, &[&bob], &[]).await.unwrap();
        let mut groups = Vec::new();
        let another = async |i: usize| {
            let on = membership(&account, &[AccountRole::Developer]);
            group(&contoso, &format!("Group {i}"), &[&bob], Some(on)).await
        };
        for i in 0..50 {
            groups.push(another(i).await);
        }
        let all = member(admin, &account, &bob.name).await.unwrap();
        assert_eq!(all.effective_rights[0].groups.len(), 50);
        assert!(!all.effective_rights[0].more_groups);
        groups.push(another(50).await);
        groups.sort_unstable();
        let bob = member(admin, &account, &bob.name).await.unwrap();
        assert_eq!(bob.effective_rights.len(), 1);
        assert_eq!(bob.effective_rights[0].groups, groups[..50]);
        assert!(bob.effective_rights[0].more_groups);
    })
    .await;
}

async fn candidates(
    caller: &Caller,
    account: &str,
    filter: &str,
    page_size: i32,
) -> Vec<Candidate> {
    let mut request = SearchCandidatesRequest {
        parent: account.to_owned(),
        filter: filter.to_owned(),
        page_size,
        ..SearchCandidatesRequest::default()
    };
    let mut all = Vec::new();
    loop {
        let page = caller.members().search_candidates(request.clone()).await;
        let page = page.unwrap().into_inner();
        all.extend(page.candidates);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

// proves GRP-1, APP-1, USR-4, ROL-8, COM-6
#[tokio::test]
async fn users_groups_and_programs_are_found_together_page_by_page() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let other = group(&fabrikam, "Web Shop", &[], None).await;
        let off = site.person(&contoso, "webmaster").await;
        admin.disable(&off.name).await.unwrap();
        let mut shops = Vec::new();
        for i in 0..5 {
            let name = format!("Web Shop {i}");
            shops.push(group(&contoso, &name, &[], None).await);
            shops.push(application(admin, &contoso.name, &name).await.name);
            let user = format!("webshop{i}");
            shops.push(site.person(&contoso, &user).await.name);
        }
        let request = adding(&account, &[&shops[0], &shops[1]], None);
        admin.members().add_members(request).await.unwrap();
        let whole = candidates(admin, &account, "", 1_000).await;
        // Ann and all of these, but nobody who can't act, and nobody from elsewhere.
        assert_eq!(whole.len(), 16);
        assert!(
            whole
                .iter()
                .all(|c| c.principal != off.name && c.principal != other)
        );
        assert_eq!(candidates(admin, &account, "", 4).await, whole);
        let names: Vec<_> = whole
            .iter()
            .map(|c| c.display_name.to_lowercase())
            .collect();
        assert!(names.is_sorted());
        for filter in [
            "display_name:\"eb sho\"",
            "display_name=web* kind=GROUP OR kind=APPLICATION",
        ] {
            let found = candidates(admin, &account, filter, 3).await;
            assert_eq!(found.len(), 10, "{filter}");
            let kinds = |kind| found.iter().filter(|c| c.kind() == kind).count();
            assert_eq!(
                (kinds(MemberKind::Group), kinds(MemberKind::Application)),
                (5, 5)
            );
            assert!(found.iter().all(|c| c.user_name.is_empty()));
            let members: Vec<_> = found.iter().filter(|c| c.member).collect();
            assert_eq!(members.len(), 2);
        }
        let found = candidates(admin, &account, "user_name:\"ebsho\"", 2).await;
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|c| c.kind() == MemberKind::User));
        let found = candidates(admin, &account, "kind=USER", 0).await;
        assert_eq!(found.len(), 6);
    })
    .await;
}

// proves GRP-3, ROL-10, ATK-12
#[tokio::test]
async fn joining_and_leaving_count_on_the_next_call_with_tokens_issued_before() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let developers = membership(&account, &[AccountRole::Manager]);
        let team = group(&contoso, "Team", &[], Some(developers)).await;
        let second = group(&contoso, "Second", &[], None).await;
        let replica = match &site.url {
            Some(url) => Some(Replica::open(url).await),
            None => None,
        };
        let there = replica
            .as_ref()
            .map_or_else(|| bob.caller.clone(), |r| r.of(&bob.caller));
        let may = async |expected: bool| {
            for who in [&bob.caller, &there] {
                let listed = list(who, &account, "").await;
                if expected {
                    listed.unwrap();
                } else {
                    refused(listed, Code::PermissionDenied, "PERMISSION_MISSING");
                }
            }
        };
        let to = member_of(&account, &team);
        for _ in 0..2 {
            may(false).await;
            admin.join(&team, &[&bob.name]).await.unwrap();
            may(true).await;
            // What the group holds changes.
            let less = [(to.as_str(), rights(&[AccountRole::Developer]))];
            update(admin, &account, &less).await.unwrap();
            may(false).await;
            sees(&bob.caller, &account).await.unwrap();
            let more = [(to.as_str(), rights(&[AccountRole::Manager]))];
            update(admin, &account, &more).await.unwrap();
            may(true).await;
            // Another group that gives the same stands in for it.
            let request = adding(&account, &[&second], Some(rights(&[AccountRole::Manager])));
            admin.members().add_members(request).await.unwrap();
            admin.join(&second, &[&bob.name]).await.unwrap();
            let losses = admin
                .part(&team, &[&bob.name])
                .await
                .unwrap()
                .losses
                .unwrap();
            assert_eq!(losses.by_group[0].member, to);
            assert_eq!(
                losses.by_group[0].rights,
                Some(rights(&[AccountRole::Manager]))
            );
            may(true).await;
            remove(admin, &account, &[&member_of(&account, &second)], false)
                .await
                .unwrap();
            may(false).await;
            admin.part(&second, &[&bob.name]).await.unwrap();
        }
        admin.join(&team, &[&bob.name]).await.unwrap();
        may(true).await;
        admin.disband(&contoso.name, &[&team]).await.unwrap();
        may(false).await;
    })
    .await;
}

fn lacking(status: &Status) -> (Vec<String>, Vec<String>) {
    let info = status.get_details_error_info().unwrap();
    let split = |key: &str| {
        let list = info.metadata.get(key).map_or("", String::as_str);
        let mut list: Vec<_> = list.split(", ").map(str::to_owned).collect();
        list.sort_unstable();
        list
    };
    (split("lacking"), split("accounts"))
}

// proves GRP-7, ROL-7, ATK-13
#[tokio::test]
async fn nobody_is_lifted_by_a_group_beyond_what_the_caller_could_give() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let one = site.account(&contoso, "Contoso One").await;
        let two = site.account(&contoso, "Contoso Two").await;
        let ann = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        // A global admin who holds nothing on the accounts.
        let eve = second_admin(&site, &contoso, "eve").await;
        let mixed = Rights {
            roles: vec![
                AccountRole::Manager as i32,
                AccountRole::HelpdeskAgent as i32,
            ],
            permissions: vec!["statements.read".to_owned()],
        };
        let team = group(&contoso, "Team", &[], None).await;
        let request = adding(&one, &[&team], Some(mixed.clone()));
        ann.members().add_members(request).await.unwrap();
        let request = adding(&two, &[&team], Some(rights(&[AccountRole::Developer])));
        ann.members().add_members(request).await.unwrap();
        let granting = (Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
        let mut made_with = new_user(&contoso.name, "newcomer");
        made_with.groups = owned(&[&team]);
        let mut accounts = vec![one.clone(), two.clone()];
        accounts.sort_unstable();
        for tried in [
            eve.caller.join(&team, &[&eve.name]).await.map(drop),
            eve.caller.join(&team, &[&bob.name]).await.map(drop),
            eve.caller
                .users()
                .create_user(made_with.clone())
                .await
                .map(drop),
        ] {
            let status = refused(tried, granting.0, granting.1);
            let (what, on) = lacking(&status);
            assert_eq!(
                what,
                [
                    "DEVELOPER",
                    "HELPDESK_AGENT",
                    "MANAGER",
                    "statements.read",
                    "users.assign"
                ]
            );
            assert_eq!(on, accounts);
        }
        // Nor does a group get what its maker lacks, by any of the ways.
        let whole = CreateGroupRequest {
            members: owned(&[&eve.name]),
            memberships: vec![membership(&one, &[AccountRole::Developer])],
            ..new_group(&contoso.name, "Mine")
        };
        refused(
            eve.caller.made(whole).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let mine = eve
            .caller
            .made(new_group(&contoso.name, "Mine"))
            .await
            .unwrap()
            .name;
        eve.caller.join(&mine, &[&eve.name]).await.unwrap();
        let request = adding(&one, &[&mine], Some(rights(&[AccountRole::Developer])));
        refused(
            eve.caller.members().add_members(request).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // Nor without rights: that is for users only (USR-4).
        let request = adding(&one, &[&mine], None);
        refused(
            eve.caller.members().add_members(request.clone()).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        ann.members().add_members(request).await.unwrap();
        sees(&eve.caller, &one).await.unwrap();
        let mine = member_of(&one, &mine);
        let up = [(mine.as_str(), rights(&[AccountRole::Developer]))];
        refused(
            update(&eve.caller, &one, &up).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );

        // With users.assign, and all but one of what the group holds: that one is named.
        for account in [&one, &two] {
            let assign = Rights {
                roles: vec![AccountRole::Manager as i32],
                permissions: vec!["users.assign".to_owned(), "statements.read".to_owned()],
            };
            let request = adding(account, &[&eve.name], Some(assign));
            ann.members().add_members(request).await.unwrap();
        }
        let helper = [(mine.as_str(), Rights::default())];
        update(&eve.caller, &one, &helper).await.unwrap();
        let agent = Rights {
            permissions: vec!["offers.read".to_owned()],
            ..rights(&[AccountRole::AdminAgent])
        };
        let to = member_of(&one, &team);
        update(ann, &one, &[(&to, agent)]).await.unwrap();
        let tried = eve.caller.join(&team, &[&bob.name]).await;
        let status = refused(tried, granting.0, granting.1);
        assert_eq!(
            lacking(&status),
            (vec!["ADMIN_AGENT".to_owned()], vec![one.clone()])
        );
        assert!(bob.caller.who_am_i().await.unwrap().accounts.is_empty());
        assert!(ann.in_group(&team, "").await.unwrap().is_empty());
        // Who holds it all, may; and taking people out needs nothing of it.
        ann.join(&team, &[&bob.name]).await.unwrap();
        let joe = site
            .person_with(&contoso, "joe", |r| r.groups = owned(&[&team]))
            .await;
        assert_eq!(joe.caller.who_am_i().await.unwrap().accounts.len(), 2);
        let carl = second_admin(&site, &contoso, "carl").await;
        carl.caller
            .part(&team, &[&bob.name, &joe.name])
            .await
            .unwrap();
        assert!(joe.caller.who_am_i().await.unwrap().accounts.is_empty());
        // The exception for the first ADMIN_AGENT isn't one for groups.
        let less = rights(&[AccountRole::Manager]);
        let agents = rights(&[AccountRole::AdminAgent]);
        update(ann, &one, &[(&to, Rights::default())])
            .await
            .unwrap();
        crate::members::drop_rights(&contoso.admin, &one, agents.clone())
            .await
            .unwrap();
        assert_eq!(
            member(ann, &one, &contoso.admin.name).await.unwrap().rights,
            Some(less)
        );
        refused(
            update(ann, &one, &[(&to, agents)]).await,
            granting.0,
            granting.1,
        );
    })
    .await;
}

// proves COM-17, GRP-3
#[tokio::test]
async fn decisions_and_explanations_name_the_group() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let developers = membership(&account, &[AccountRole::Developer]);
        let team = group(&contoso, "Team", &[&bob], Some(developers)).await;
        let readers = group(&contoso, "Readers", &[&bob], None).await;
        let request = adding(&account, &[&readers], Some(singly(&["offers.read"])));
        admin.members().add_members(request).await.unwrap();
        let service = Service::open(&site).await.caller(&site).await;
        let check = |permission: &str| AccessCheck {
            principal: bob.name.clone(),
            permission: permission.to_owned(),
            resource: account.clone(),
        };
        let ask = async || {
            let permissions = [
                "offers.manage",
                "offers.read",
                "account.read",
                "members.read",
            ];
            let request = CheckAccessRequest {
                checks: permissions.iter().map(|p| check(p)).collect(),
            };
            let told = service.access().check_access(request).await.unwrap();
            told.into_inner().decisions
        };
        let told = ask().await;
        let allowed: Vec<_> = told.iter().map(|d| d.allowed).collect();
        assert_eq!(allowed, [true, true, true, false]);
        let developer = format!("DEVELOPER by {team}");
        let reader = format!("offers.read by {readers}");
        assert_eq!(told[0].because, std::slice::from_ref(&developer));
        let mut because = told[1].because.clone();
        because.sort_unstable();
        assert_eq!(because, [developer.clone(), reader]);
        assert_eq!(told[2].because, [developer]);
        assert_eq!(told[3].reason, "PERMISSION_MISSING");
        let request = ExplainAccessRequest {
            principal: bob.name.clone(),
            permission: "offers.manage".to_owned(),
            resource: account.clone(),
        };
        let explained = admin.access().explain_access(request).await.unwrap();
        let explained = explained.into_inner();
        assert_eq!(explained.decision.unwrap(), told[0]);
        assert!(
            explained.steps.iter().any(|s| s.contains(&team)),
            "{:?}",
            explained.steps
        );
        // A group is nobody who could be asked about.
        let mut about = check("offers.read");
        about.principal.clone_from(&team);
        let request = CheckAccessRequest {
            checks: vec![about],
        };
        let status = refused(
            service.access().check_access(request).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["checks[0].principal"]);
        admin.part(&team, &[&bob.name]).await.unwrap();
        let told = ask().await;
        assert!(!told[0].allowed);
        // What every member may, it may by the group that is one.
        assert_eq!(told[2].because, [format!("MEMBER by {readers}")]);
    })
    .await;
}

// proves TEN-4, GRP-1
#[tokio::test]
async fn groups_of_a_removed_tenant_give_nothing_any_more_not_even_after_a_return() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        let eve = site.person(&fabrikam, "eve").await;
        let team = group(&fabrikam, "Team", &[&eve], None).await;
        // Through another tenant a group can't be added; by its own admin it can, with users.assign.
        let own = &fabrikam.admin;
        add(&own.caller, &account, &[own], &[]).await.unwrap();
        let member = own.member_of(&account);
        let assign = [(member.as_str(), singly(&["users.assign"]))];
        update(&contoso.admin.caller, &account, &assign)
            .await
            .unwrap();
        let request = adding(&account, &[&team], None);
        let status = refused(
            contoso
                .admin
                .caller
                .members()
                .add_members(request.clone())
                .await,
            Code::PermissionDenied,
            "OTHER_TENANT",
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["tenant"], fabrikam.name);
        fabrikam
            .admin
            .caller
            .members()
            .add_members(request)
            .await
            .unwrap();
        let to = member_of(&account, &team);
        let manager = [(to.as_str(), rights(&[AccountRole::Manager]))];
        update(&contoso.admin.caller, &account, &manager)
            .await
            .unwrap();
        list(&eve.caller, &account, "").await.unwrap();
        dissociate(&contoso.admin.caller, &account, &fabrikam.name)
            .await
            .unwrap();
        for gone in [
            list(&eve.caller, &account, "").await.map(drop),
            sees(&eve.caller, &account).await,
        ] {
            refused(gone, Code::PermissionDenied, "PERMISSION_MISSING");
        }
        associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        refused(
            sees(&eve.caller, &account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        assert_eq!(eve.caller.groups_of(&eve.name).await.unwrap().len(), 1);
    })
    .await;
}

// proves COM-4, ROL-9
#[tokio::test]
async fn whoever_takes_ones_own_right_from_a_group_still_gets_the_answer_again() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let managers = membership(&account, &[AccountRole::Manager]);
        let team = group(&contoso, "Team", &[&bob], Some(managers)).await;
        let request = UpdateMembersRequest {
            parent: account.clone(),
            requests: vec![UpdateMemberRequest {
                member: Some(Member {
                    name: member_of(&account, &team),
                    rights: Some(Rights::default()),
                    ..Member::default()
                }),
            }],
            request_id: request_id(),
            ..UpdateMembersRequest::default()
        };
        let first = bob
            .caller
            .members()
            .update_members(request.clone())
            .await
            .unwrap();
        assert!(!replayed(&first));
        refused(
            list(&bob.caller, &account, "").await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let again = bob.caller.members().update_members(request).await.unwrap();
        assert!(replayed(&again));
        assert_eq!(again.into_inner(), first.into_inner());
    })
    .await;
}

// proves COM-4, COM-8
#[tokio::test]
async fn a_repeated_joining_joins_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let team = group(&contoso, "Team", &[], None).await;
        let admin = &contoso.admin.caller;
        let mut request = joining(&team, &[&bob.name]);
        request.validate_only = true;
        let checked = admin.groups().add_group_members(request.clone()).await;
        assert_eq!(checked.unwrap().into_inner().members.len(), 1);
        assert_eq!(admin.group(&team).await.unwrap().member_count, 0);
        request.validate_only = false;
        request.request_id = request_id();
        let first = admin
            .groups()
            .add_group_members(request.clone())
            .await
            .unwrap();
        admin.part(&team, &[&bob.name]).await.unwrap();
        let again = admin.groups().add_group_members(request).await.unwrap();
        assert!(replayed(&again));
        assert_eq!(again.into_inner(), first.into_inner());
        assert_eq!(admin.group(&team).await.unwrap().member_count, 0);
    })
    .await;
}

// proves PWD-5, ATK-14
#[tokio::test]
async fn helpdesk_resets_nobody_who_holds_anything_by_a_group() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        let bob = site.person(&contoso, "bob").await;
        let idle = group(&contoso, "Idle", &[&bob], None).await;
        hal.caller.reset(&bob.name).await.unwrap();
        let request = adding(&account, &[&idle], Some(singly(&["offers.read"])));
        contoso
            .admin
            .caller
            .members()
            .add_members(request)
            .await
            .unwrap();
        refused(
            hal.caller.reset(&bob.name).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
    })
    .await;
}

// proves ROL-13
#[tokio::test]
async fn rights_by_groups_sleep_and_are_woken_by_who_holds_them_by_a_group() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let with_address = async |name: &'static str| {
            site.person_with(&contoso, name, |r| {
                r.user.as_mut().unwrap().recovery_email = format!("{name}@contoso.example");
            })
            .await
        };
        let bob = with_address("bob").await;
        let joe = with_address("joe").await;
        let dev = with_address("dev").await;
        let agents = membership(&account, &[AccountRole::AdminAgent]);
        group(&contoso, "Agents", &[&bob, &joe], Some(agents)).await;
        add(
            &contoso.admin.caller,
            &account,
            &[&dev],
            &[AccountRole::Developer],
        )
        .await
        .unwrap();
        let second = second_admin(&site, &contoso, "second").await;
        let temporary = second
            .caller
            .reset(&bob.name)
            .await
            .unwrap()
            .temporary_password;
        let caller = site.settle_in(&bob.sign_in_name, &temporary).await;
        let bob = Person { caller, ..bob };
        let may = async || {
            let request = entente::proto::access::TestMyPermissionsRequest {
                resource: account.clone(),
                permissions: vec!["delegated.act".to_owned(), "members.read".to_owned()],
            };
            let told = bob.caller.access().test_my_permissions(request).await;
            told.unwrap().into_inner().permissions
        };
        assert_eq!(may().await, ["members.read"]);
        // Those who hold it by the group are told, and who holds it directly; who holds something else isn't.
        let letters = crate::people::letters(&site).await;
        let told = |to: &str| {
            let about = letters.iter().filter(|l| l.to.contains(to));
            about.filter(|l| l.text.contains(&account)).count()
        };
        assert_eq!(told("joe@contoso.example"), 1);
        assert_eq!(told("ann@contoso.example"), 1);
        assert_eq!(told("dev@contoso.example"), 0);
        for who in [&dev, &second, &bob] {
            refused(
                who.caller.wake(&bob.name).await,
                Code::PermissionDenied,
                "NOTHING_TO_WAKE",
            );
        }
        joe.caller.wake(&bob.name).await.unwrap();
        assert_eq!(may().await, ["delegated.act", "members.read"]);
    })
    .await;
}

// proves ROL-9, ROL-12
#[tokio::test]
async fn an_owner_restores_no_group_and_a_synchronised_group_gives_what_it_may() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        let owner = site.person(&fabrikam, "owner").await;
        let bob = site.person(&contoso, "bob").await;
        add(&fabrikam.admin.caller, &account, &[&owner], &[])
            .await
            .unwrap();
        crate::members::seed(
            &site,
            &owner.member_of(&account),
            entente::access::grants::OWNER,
        )
        .await;
        let team = group(&contoso, "Team", &[&bob], None).await;
        synchronize(&site, "user_groups", &team).await;
        let request = AddMembersRequest {
            rights: Some(rights(&[AccountRole::Manager])),
            ..adding(&account, &[&team], None)
        };
        contoso
            .admin
            .caller
            .members()
            .add_members(request)
            .await
            .unwrap();
        list(&bob.caller, &account, "").await.unwrap();
        let second = second_admin(&site, &contoso, "second").await;
        second.caller.disable(&contoso.admin.name).await.unwrap();
        let restore = async |principal: &str| {
            let request = RestoreManagerRequest {
                name: member_of(&account, principal),
                ..RestoreManagerRequest::default()
            };
            owner
                .caller
                .members()
                .restore_manager(request)
                .await
                .map(drop)
        };
        // Bob is still there, by the group.
        refused(
            restore(&owner.name).await,
            Code::FailedPrecondition,
            "MANAGER_EXISTS",
        );
        second.caller.disable(&bob.name).await.unwrap();
        refused(
            restore(&team).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        restore(&owner.name).await.unwrap();
        assert_eq!(id(&team), id(&member_of(&account, &team)));
    })
    .await;
}
