//! How far the exceptions to ROL-7 reach: a manager who names the first admin agent.

use entente::proto::{
    access::AccountRole,
    account::RestoreManagerRequest,
    directory::EnableUserRequest,
    operator::{AssignOperatorRolesRequest, OperatorRole},
};
use tonic::{Code, Status};

use crate::{
    groups::member_of,
    guests::guest,
    harness::{Caller, Person, Site, TenantSite, both, new_user, refused, rights},
    members::{add, drop_rights, seed, update},
    people::{People as _, Service, again, operator_tenant, second_admin},
};

const LACKING: (Code, &str) = (Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");

/// An account whose manager is no admin agent any more, nor is anybody else.
async fn without_agent(site: &Site) -> (TenantSite, String) {
    let contoso = site.tenant("contoso").await;
    let account = site.account(&contoso, "Contoso").await;
    let agent = rights(&[AccountRole::AdminAgent]);
    drop_rights(&contoso.admin, &account, agent).await.unwrap();
    (contoso, account)
}

/// Makes a member admin agent, beside what else is named.
async fn name_agent(
    by: &Caller,
    account: &str,
    member: &str,
    beside: &[AccountRole],
) -> Result<(), Status> {
    let roles = [beside, &[AccountRole::AdminAgent]].concat();
    let change = [(member, rights(&roles))];
    update(by, account, &change).await.map(drop)
}

// proves ROL-13, ROL-7
#[tokio::test]
async fn a_manager_whose_rights_sleep_names_no_admin_agent() {
    both(async |site| {
        let (contoso, account) = without_agent(&site).await;
        let ann = &contoso.admin;
        let carol = second_admin(&site, &contoso, "carol").await;
        let reset = carol.caller.reset(&ann.name).await.unwrap();
        let asleep = site
            .settle_in(&ann.sign_in_name, &reset.temporary_password)
            .await;
        let agent = [AccountRole::AdminAgent];
        let tried = add(&asleep, &account, &[&carol], &agent).await;
        refused(tried, LACKING.0, LACKING.1);
        // What doesn't sleep is hers.
        add(&asleep, &account, &[&carol], &[]).await.unwrap();
        let member = carol.member_of(&account);
        let tried = name_agent(&asleep, &account, &member, &[]).await;
        refused(tried, LACKING.0, LACKING.1);
        site.wake(&ann.name).await;
        name_agent(&asleep, &account, &member, &[]).await.unwrap();
    })
    .await;
}

// proves COM-16, ROL-7
#[tokio::test]
async fn a_service_names_no_admin_agent_beyond_its_ceiling() {
    both(async |site| {
        let (contoso, account) = without_agent(&site).await;
        let operator = operator_tenant(&site).await.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let portal = Service::open(&site).await;
        let service = portal.caller(&site).await;
        let acting = site.on_behalf(&service, &contoso.admin.caller);
        for ceiling in [&["users.assign"][..], &[]] {
            let request = AssignOperatorRolesRequest {
                principal: portal.name.clone(),
                roles: vec![OperatorRole::OperatorService as i32],
                on_behalf_ceiling: ceiling.iter().map(|c| (*c).to_owned()).collect(),
                ..AssignOperatorRolesRequest::default()
            };
            operator
                .staff()
                .assign_operator_roles(request)
                .await
                .unwrap();
            let tried = add(&acting, &account, &[&bob], &[AccountRole::AdminAgent]).await;
            refused(tried, LACKING.0, LACKING.1);
        }
        add(&acting, &account, &[&bob], &[]).await.unwrap();
        let ann = &contoso.admin.caller;
        let member = bob.member_of(&account);
        name_agent(ann, &account, &member, &[]).await.unwrap();
    })
    .await;
}

// proves ROL-7, INV-5
#[tokio::test]
async fn a_manager_names_neither_the_own_guest_nor_the_own_home_admin_agent() {
    both(async |site| {
        let visit = guest(&site, &[AccountRole::Manager]).await;
        let (account, ann) = (&visit.account, &visit.contoso.admin);
        let fabrikam = &visit.fabrikam;
        crate::associations::associate(ann, account, &fabrikam.admin)
            .await
            .unwrap();
        let bob = site.person(fabrikam, "bob").await;
        let people = [&visit.fred, &bob];
        add(&fabrikam.admin.caller, account, &people, &[])
            .await
            .unwrap();
        let home = visit.fred.member_of(account);
        let abroad = member_of(account, &visit.name);
        let manager = [AccountRole::Manager];
        let raised = [(home.as_str(), rights(&manager))];
        update(&ann.caller, account, &raised).await.unwrap();
        let agent = rights(&[AccountRole::AdminAgent]);
        drop_rights(ann, account, agent).await.unwrap();

        for (by, to) in [(&visit.caller, &home), (&visit.fred.caller, &abroad)] {
            let tried = name_agent(by, account, to, &manager).await;
            refused(tried, LACKING.0, LACKING.1);
        }
        let other = bob.member_of(account);
        name_agent(&visit.caller, account, &other, &[])
            .await
            .unwrap();
    })
    .await;
}

// proves ROL-7, ROL-9
#[tokio::test]
async fn nobody_who_can_not_act_is_named_where_none_is_left() {
    both(async |site| {
        let (contoso, account) = without_agent(&site).await;
        let ann = &contoso.admin;
        let (bob, joe) = (
            site.person(&contoso, "bob").await,
            site.person(&contoso, "joe").await,
        );
        // Has never signed in, and can't after 72 hours.
        let late = ann
            .caller
            .users()
            .create_user(new_user(&contoso.name, "late"))
            .await;
        let late = late.unwrap().into_inner().user.unwrap();
        let late = Person {
            name: late.name,
            sign_in_name: late.sign_in_name,
            caller: site.nobody(),
        };
        let all = [&bob, &joe, &late];
        add(&ann.caller, &account, &all, &[]).await.unwrap();
        let members: Vec<String> = all.iter().map(|p| p.member_of(&account)).collect();
        for person in [&bob, &joe] {
            ann.caller.disable(&person.name).await.unwrap();
        }
        site.advance(73 * 3_600).await;
        let by = again(&site, ann).await;
        let agent = || rights(&[AccountRole::AdminAgent]);
        for named in [&members[..1], &members[..2], &members[2..]] {
            let changes: Vec<_> = named.iter().map(|m| (m.as_str(), agent())).collect();
            let tried = update(&by, &account, &changes).await;
            refused(tried, LACKING.0, LACKING.1);
        }
        // Nor by the owner as manager.
        let there = TenantSite {
            name: contoso.name.clone(),
            admin: Person {
                caller: by.clone(),
                ..ann.clone()
            },
        };
        let owner = site.person(&there, "owner").await;
        add(&by, &account, &[&owner], &[]).await.unwrap();
        seed(
            &site,
            &owner.member_of(&account),
            entente::access::grants::OWNER,
        )
        .await;
        let second = EnableUserRequest {
            name: joe.name.clone(),
            ..EnableUserRequest::default()
        };
        by.users().enable_user(second).await.unwrap();
        let sql = "UPDATE grants SET roles = 0 WHERE scope_kind = 2 AND principal_id = $1";
        crate::people::change(&site, sql, [crate::people::id(&ann.name).into()]).await;
        let restore = async |member: &str| {
            let request = RestoreManagerRequest {
                name: member.to_owned(),
                ..RestoreManagerRequest::default()
            };
            owner.caller.members().restore_manager(request).await
        };
        for member in [&members[0], &members[2]] {
            let tried = restore(member).await;
            refused(tried, Code::FailedPrecondition, "NOT_ASSIGNABLE");
        }
        restore(&members[1]).await.unwrap();
    })
    .await;
}
