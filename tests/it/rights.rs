//! Who may give what, what nobody may hold, and how soon all of it counts. The last ones who must remain: `rights/last.rs`; how far exceptions
//! reach: `rights/exceptions.rs`; who hears of what sleeps: `rights/gifts.rs`; who wakes it: `rights/waking.rs`.

mod exceptions;
mod gifts;
mod last;
mod waking;

use entente::{
    access::grants,
    proto::{
        access::{AccountRole, Rights},
        account::GetAccountRequest,
        directory::{
            DirectoryRole, EnableUserRequest, GetUserRequest, ListUsersRequest,
            ResetPasswordRequest,
        },
    },
};
use tonic::{Code, Status};

use crate::{
    groups::{Groups as _, group},
    harness::{
        Caller, Database, Person, Site, TenantSite, both, config, membership, new_user, refused,
        rights, serve,
    },
    members::{add, adding, drop_rights, leave, list, remove, seed, singly, update},
    people::{People as _, application, second_admin},
};

/// Whether somebody sees an account.
async fn sees(who: &Caller, account: &str) -> Result<(), Status> {
    let request = GetAccountRequest {
        name: account.to_owned(),
    };
    who.accounts().get_account(request).await.map(|_| ())
}

const ALL: [(AccountRole, i64); 6] = [
    (AccountRole::Manager, grants::MANAGER),
    (AccountRole::Developer, 1 << 2),
    (AccountRole::Finance, grants::FINANCE),
    (AccountRole::AdminAgent, grants::ADMIN_AGENT),
    (AccountRole::HelpdeskAgent, 1 << 5),
    (AccountRole::Owner, grants::OWNER),
];

// proves ROL-7, ROL-4, ROL-12
#[tokio::test]
async fn each_role_gives_what_the_table_says_and_nothing_else() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let bob = site.person(&contoso, "bob").await;
        add(&contoso.admin.caller, &account, &[&bob], &[])
            .await
            .unwrap();
        // P: lacks users.assign. L: lacks what is given. N: nobody assigns it. y: may. In the order of ALL, given from left to right.
        for (giver, may) in [
            (AccountRole::Manager, "yyLLLN"),
            (AccountRole::Developer, "PPPPPP"),
            (AccountRole::Finance, "PPPPPP"),
            (AccountRole::AdminAgent, "LLLyyN"),
            (AccountRole::HelpdeskAgent, "PPPPPP"),
            (AccountRole::Owner, "PPPPPP"),
        ] {
            let name = format!("giver{}", giver as i32);
            let person = site.person(&contoso, &name).await;
            add(&contoso.admin.caller, &account, &[&person], &[])
                .await
                .unwrap();
            let member = person.member_of(&account);
            let bits = ALL.iter().find(|(role, _)| *role == giver).unwrap().1;
            seed(&site, &member, bits).await;
            for ((role, _), verdict) in ALL.iter().zip(may.chars()) {
                let given = rights(&[*role]);
                let target = bob.member_of(&account);
                let result = update(&person.caller, &account, &[(&target, given)]).await;
                println!("{giver:?} gives {role:?}");
                match verdict {
                    'y' => {
                        result.unwrap();
                        // And takes it again.
                        let none = [(target.as_str(), Rights::default())];
                        update(&person.caller, &account, &none).await.unwrap();
                    }
                    'L' => {
                        refused(result, Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
                    }
                    'N' => {
                        refused(result, Code::FailedPrecondition, "NOT_ASSIGNABLE");
                    }
                    _ => {
                        refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
                    }
                }
            }
            // What one lacks isn't taken from others either.
            if giver == AccountRole::Manager {
                let agent = contoso.admin.member_of(&account);
                let less = [(agent.as_str(), rights(&[AccountRole::Manager]))];
                refused(
                    update(&person.caller, &account, &less).await,
                    Code::PermissionDenied,
                    "CANNOT_GRANT_WHAT_YOU_LACK",
                );
            }
        }
    })
    .await;
}

// proves ROL-5, ROL-7, ROL-12
#[tokio::test]
async fn single_permissions_are_given_by_holders_but_never_those_of_a_role() {
    use tonic_types::StatusExt as _;
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let manager = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let joe = site.person(&contoso, "joe").await;
        add(manager, &account, &[&bob, &joe], &[]).await.unwrap();
        let target = bob.member_of(&account);
        let to = async |who: &Caller, target: &str, permission: &str| {
            update(who, &account, &[(target, singly(&[permission]))]).await
        };
        for bound in [
            "payouts.settings.read",
            "payouts.settings.update",
            "payouts.hold",
            "tax.read",
            "tax.update",
            "finance.grant",
            "owner.tie",
            "delegated.act",
            "relationships.assign",
            "account.close",
            "tenants.remove_last",
            "members.restore_manager",
        ] {
            refused(
                to(manager, &target, bound).await,
                Code::FailedPrecondition,
                "NOT_ASSIGNABLE",
            );
        }
        for foreign in ["users.create", "staff.manage", "no.such"] {
            refused(
                to(manager, &target, foreign).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
        }
        to(manager, &target, "users.assign").await.unwrap();
        // Now bob may give, but only what bob holds.
        let other = joe.member_of(&account);
        let status = refused(
            to(&bob.caller, &other, "offers.read").await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata.get("lacking").unwrap(), "offers.read");
        to(&bob.caller, &other, "users.assign").await.unwrap();
        refused(
            to(&bob.caller, &target, "offers.read").await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
        // A custom permission opens what it names: members.read does.
        refused(
            list(&joe.caller, &account, "").await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        to(manager, &other, "members.read").await.unwrap();
        assert_eq!(list(&joe.caller, &account, "").await.unwrap().len(), 3);
        // Singles and roles beside each other are the union (ROL-6).
        let mixed = Rights {
            roles: vec![AccountRole::Developer as i32],
            permissions: vec!["members.remove".to_owned()],
        };
        let members = update(manager, &account, &[(&other, mixed)]).await.unwrap();
        let held: Vec<_> = members[0].effective_rights.iter().collect();
        assert_eq!(held.len(), 2);
        remove(&joe.caller, &account, &[&target], false)
            .await
            .unwrap();
    })
    .await;
}

// proves ROL-7
#[tokio::test]
async fn a_manager_names_an_admin_agent_only_where_none_is_and_never_oneself() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin;
        let bob = site.person(&contoso, "bob").await;
        let joe = site.person(&contoso, "joe").await;
        add(&ann.caller, &account, &[&joe], &[]).await.unwrap();
        drop_rights(ann, &account, rights(&[AccountRole::AdminAgent]))
            .await
            .unwrap();
        let both_roles = rights(&[AccountRole::Manager, AccountRole::AdminAgent]);
        let oneself = [(ann.member_of(&account), both_roles.clone())];
        let oneself = [(oneself[0].0.as_str(), oneself[0].1.clone())];
        refused(
            update(&ann.caller, &account, &oneself).await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
        let program = application(&contoso.admin.caller, &contoso.name, "Robot")
            .await
            .name;
        let agent = || Some(rights(&[AccountRole::AdminAgent]));
        let robot = adding(&account, &[&program], agent());
        refused(
            ann.caller.members().add_members(robot).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        // Not by the way of making a user.
        let mut request = new_user(&contoso.name, "new");
        request.memberships = vec![membership(&account, &[AccountRole::AdminAgent])];
        refused(
            ann.caller.users().create_user(request).await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
        // One, not two at once; then no more.
        let second = site.person(&contoso, "second").await;
        refused(
            add(
                &ann.caller,
                &account,
                &[&bob, &second],
                &[AccountRole::AdminAgent],
            )
            .await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
        add(&ann.caller, &account, &[&bob], &[AccountRole::AdminAgent])
            .await
            .unwrap();
        let member = joe.member_of(&account);
        let agent = [(member.as_str(), rights(&[AccountRole::AdminAgent]))];
        refused(
            update(&ann.caller, &account, &agent).await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
        // The agent shut out, the manager may again; the agent's own gift goes any time.
        ann.caller.disable(&bob.name).await.unwrap();
        update(&ann.caller, &account, &agent).await.unwrap();
    })
    .await;
}

// proves ROL-8
#[tokio::test]
async fn directory_roles_give_nothing_on_accounts_and_account_roles_nothing_in_tenants() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let second = second_admin(&site, &contoso, "second").await;
        refused(
            sees(&second.caller, &account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        refused(
            list(&second.caller, &account, "").await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let manager = site.person(&contoso, "manager").await;
        add(
            &contoso.admin.caller,
            &account,
            &[&manager],
            &[AccountRole::Manager],
        )
        .await
        .unwrap();
        let mut request = new_user(&contoso.name, "new");
        request.memberships = vec![membership(&account, &[AccountRole::Developer])];
        refused(
            manager.caller.users().create_user(request).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let listing = ListUsersRequest {
            parent: contoso.name.clone(),
            ..ListUsersRequest::default()
        };
        refused(
            manager.caller.users().list_users(listing).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        refused(
            manager.caller.disable(&second.name).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // Nor do the lesser directory roles give greater ones.
        let helper = site.person(&contoso, "helper").await;
        contoso
            .admin
            .caller
            .assign(&helper.name, &[DirectoryRole::HelpdeskAdmin])
            .await
            .unwrap();
        refused(
            helper
                .caller
                .assign(&helper.name, &[DirectoryRole::HelpdeskAdmin])
                .await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
    })
    .await;
}

// proves ROL-10, ATK-12
#[tokio::test]
async fn changes_count_on_the_next_call_on_every_replica_with_tokens_issued_before() {
    let site = Site::open(Database::Postgres).await;
    let folder = tempfile::tempdir().unwrap();
    let mut other = config(folder.path());
    other.database_url.clone_from(&site.url);
    let (_app, address, _stop) = serve(other).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let there = |person: &Person| Caller {
        channel: channel.clone(),
        ..person.caller.clone()
    };
    let contoso = site.tenant("contoso").await;
    let fabrikam = site.tenant("fabrikam").await;
    let account = site.account(&contoso, "Contoso").await;
    crate::associations::associate(&contoso.admin, &account, &fabrikam.admin)
        .await
        .unwrap();
    let manager = &contoso.admin.caller;
    let eve = site.person(&fabrikam, "eve").await;
    let far = there(&eve);
    let denied = (Code::PermissionDenied, "PERMISSION_MISSING");
    for _ in 0..3 {
        refused(sees(&far, &account).await, denied.0, denied.1);
        // Membership.
        add(&fabrikam.admin.caller, &account, &[&eve], &[])
            .await
            .unwrap();
        sees(&far, &account).await.unwrap();
        refused(list(&far, &account, "").await, denied.0, denied.1);
        // Role, changed there, felt here.
        let member = eve.member_of(&account);
        let up = [(member.as_str(), rights(&[AccountRole::Manager]))];
        update(&there(&contoso.admin), &account, &up).await.unwrap();
        list(&eve.caller, &account, "").await.unwrap();
        list(&far, &account, "").await.unwrap();
        let down = [(member.as_str(), Rights::default())];
        update(manager, &account, &down).await.unwrap();
        refused(list(&far, &account, "").await, denied.0, denied.1);
        // Association.
        crate::associations::dissociate(manager, &account, &fabrikam.name)
            .await
            .unwrap();
        refused(sees(&far, &account).await, denied.0, denied.1);
        crate::associations::associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
    }
    // Directory role.
    let get = async |who: &Caller| {
        let name = fabrikam.admin.name.clone();
        who.users()
            .get_user(GetUserRequest { name })
            .await
            .map(|_| ())
    };
    refused(get(&far).await, denied.0, denied.1);
    let helper = [DirectoryRole::HelpdeskAdmin];
    fabrikam
        .admin
        .caller
        .assign(&eve.name, &helper)
        .await
        .unwrap();
    get(&far).await.unwrap();
    there(&fabrikam.admin).assign(&eve.name, &[]).await.unwrap();
    refused(get(&eve.caller).await, denied.0, denied.1);
    // Status: the token stays dead after the user is let in again.
    fabrikam.admin.caller.disable(&eve.name).await.unwrap();
    for who in [&far, &eve.caller] {
        refused(
            sees(who, &account).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    }
    let request = EnableUserRequest {
        name: eve.name.clone(),
        ..EnableUserRequest::default()
    };
    let enabled = fabrikam.admin.caller.users().enable_user(request).await;
    enabled.unwrap();
    refused(
        sees(&far, &account).await,
        Code::Unauthenticated,
        "TOKEN_INVALID",
    );
}

/// Sets a person's password by its admin, and signs it in again.
async fn reset(site: &Site, admin: &Person, person: &Person) -> Person {
    let request = ResetPasswordRequest {
        name: person.name.clone(),
        ..ResetPasswordRequest::default()
    };
    let done = admin.caller.users().reset_password(request).await.unwrap();
    let temporary = done.into_inner().temporary_password;
    Person {
        caller: site.settle_in(&person.sign_in_name, &temporary).await,
        ..person.clone()
    }
}

// proves ROL-13
#[tokio::test]
async fn rights_sleep_after_somebody_else_set_the_password_until_time_or_a_holder_wakes_them() {
    use tonic_types::StatusExt as _;
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin;
        let bob = site.person(&contoso, "bob").await;
        let joe = site.person(&contoso, "joe").await;
        let plain = site.person(&contoso, "plain").await;
        let manager = [AccountRole::Manager];
        add(&ann.caller, &account, &[&bob, &joe], &manager)
            .await
            .unwrap();
        add(&ann.caller, &account, &[&plain], &[]).await.unwrap();
        let target = plain.member_of(&account);
        let promote = [(target.as_str(), rights(&manager))];
        let plainly = [(target.as_str(), rights(&[AccountRole::Developer]))];
        let bob = reset(&site, ann, &bob).await;
        // Asleep is owner.tie, which MANAGER holds: so no manager is made, but what is awake works.
        let status = refused(
            update(&bob.caller, &account, &promote).await,
            Code::FailedPrecondition,
            "RIGHTS_ASLEEP",
        );
        let told = status.get_details_error_info().unwrap().metadata;
        assert_eq!(told["permission"], "owner.tie");
        assert!(told["until"].ends_with('Z') && told["woken_by"].contains("MANAGER"));
        // What isn't held at all is no matter of sleep.
        let more = rights(&[AccountRole::Manager, AccountRole::AdminAgent]);
        refused(
            update(&bob.caller, &account, &[(target.as_str(), more)]).await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
        // The same by a group that holds it, and by an application.
        let held = Some(membership(&account, &manager));
        let team = group(&contoso, "Team", &[], held).await;
        let second = second_admin(&site, &contoso, "second").await;
        add(&ann.caller, &account, &[&second], &manager)
            .await
            .unwrap();
        let second = reset(&site, ann, &second).await;
        let (code, reason) = (Code::FailedPrecondition, "RIGHTS_ASLEEP");
        refused(
            second.caller.join(&team, &[&plain.name]).await,
            code,
            reason,
        );
        let app = application(&ann.caller, &contoso.name, "Store").await;
        let request = adding(&account, &[&app.name], Some(rights(&manager)));
        ann.caller.members().add_members(request).await.unwrap();
        refused(second.caller.key(&app.name).await, code, reason);
        update(&bob.caller, &account, &plainly).await.unwrap();
        let denied = (Code::PermissionDenied, "NOTHING_TO_WAKE");
        refused(bob.caller.wake(&bob.name).await, denied.0, denied.1);
        refused(plain.caller.wake(&bob.name).await, denied.0, denied.1);
        let unknown = format!("{}/users/{}", contoso.name, crate::harness::request_id());
        refused(joe.caller.wake(&unknown).await, denied.0, denied.1);
        joe.caller.wake(&bob.name).await.unwrap();
        update(&bob.caller, &account, &promote).await.unwrap();
        // Nothing sleeps any more.
        refused(joe.caller.wake(&bob.name).await, denied.0, denied.1);
        // Who sleeps wakes nobody.
        let bob = reset(&site, ann, &bob).await;
        let joe = reset(&site, ann, &joe).await;
        refused(joe.caller.wake(&bob.name).await, denied.0, denied.1);
        // 72 hours do.
        site.advance(72 * 3_600 - 60).await;
        let bob = site
            .sign_in(&bob.sign_in_name, crate::harness::PASSWORD)
            .await;
        let other = site.person(&again(&site, &contoso).await, "other").await;
        let ann = site
            .sign_in(&ann.sign_in_name, crate::harness::PASSWORD)
            .await;
        add(&ann, &account, &[&other], &[]).await.unwrap();
        let target = other.member_of(&account);
        let promote = [(target.as_str(), rights(&manager))];
        refused(
            update(&bob, &account, &promote).await,
            Code::FailedPrecondition,
            "RIGHTS_ASLEEP",
        );
        site.advance(120).await;
        update(&bob, &account, &promote).await.unwrap();
    })
    .await;
}

/// The tenant with its admin signed in anew.
async fn again(site: &Site, tenant: &TenantSite) -> TenantSite {
    TenantSite {
        name: tenant.name.clone(),
        admin: Person {
            caller: site
                .sign_in(&tenant.admin.sign_in_name, crate::harness::PASSWORD)
                .await,
            ..tenant.admin.clone()
        },
    }
}

// proves ROL-12
#[tokio::test]
async fn programs_hold_no_role_of_people() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin;
        seed(&site, &ann.member_of(&account), grants::FINANCE).await;
        let program = application(&contoso.admin.caller, &contoso.name, "Robot")
            .await
            .name;
        let add_with = async |roles: &[AccountRole]| {
            let request = adding(&account, &[&program], Some(rights(roles)));
            ann.caller.members().add_members(request).await
        };
        for role in [
            AccountRole::Finance,
            AccountRole::AdminAgent,
            AccountRole::Owner,
        ] {
            refused(
                add_with(&[AccountRole::Developer, role]).await,
                Code::FailedPrecondition,
                "NOT_ASSIGNABLE",
            );
        }
        // MANAGER may be held by a program, but doesn't count as the last one.
        add_with(&[AccountRole::Manager]).await.unwrap();
        refused(
            leave(ann, &account).await,
            Code::FailedPrecondition,
            "LAST_MANAGER",
        );
    })
    .await;
}
