//! Services of the operator: acting for people (COM-16), and asking what others may (COM-17).

use entente::proto::{
    access::{
        AccessCheck, AccessDecision, AccountRole, CheckAccessRequest, ExplainAccessRequest,
        TestMyPermissionsRequest,
    },
    account::{GetAccountRequest, GrantFinanceRequest},
    directory::{GetUserRequest, WhoAmIRequest},
    operator::{ListStaffRequest, OperatorRole},
};
use tonic::{Code, Status};

use super::{appoint, chain, dismiss, program};
use crate::{
    harness::{Caller, Person, both, new_user, refused, rights},
    members::{add, list, seed, update},
    people::{People as _, Service, guest, operator_tenant},
};

async fn sees(who: &Caller, account: &str) -> Result<(), Status> {
    let request = GetAccountRequest {
        name: account.to_owned(),
    };
    who.accounts().get_account(request).await.map(|_| ())
}

// proves COM-16
#[tokio::test]
async fn a_service_acts_for_a_person_with_that_persons_rights_within_its_ceiling() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let foreign = site.account(&fabrikam, "Fabrikam").await;
        let ann = &contoso.admin;
        let (robot, service) = program(&site, &home, "Portal").await;
        let acting = site.on_behalf(&service, &ann.caller);
        let no_service = (Code::PermissionDenied, "ON_BEHALF_REFUSED");
        let denied = (Code::PermissionDenied, "PERMISSION_MISSING");
        // Not before it is a service of the operator.
        refused(sees(&acting, &account).await, no_service.0, no_service.1);
        let role = [OperatorRole::OperatorService];
        appoint(&home.admin.caller, &robot, &role, &[])
            .await
            .unwrap();
        sees(&acting, &account).await.unwrap();
        refused(sees(&acting, &foreign).await, denied.0, denied.1);
        // The service's own rights don't come to the person's: it may see any account by itself.
        sees(&service, &foreign).await.unwrap();
        let who = acting.sessions().who_am_i(WhoAmIRequest {}).await.unwrap();
        let who = who.into_inner();
        assert_eq!((who.principal, who.via), (ann.name.clone(), robot.clone()));
        // What changes is audited with both names.
        let bob = site.person(&contoso, "bob").await;
        add(&acting, &account, &[&bob], &[AccountRole::Developer])
            .await
            .unwrap();
        let adding = "action=\"entente.account.v1.MemberService/AddMembers\"";
        let events = chain(&ann.caller, &account, adding).await;
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].actor, ann.name);
        assert_eq!(events[0].via, robot);
        // Nobody else's token is a way in, in either place.
        let swapped = site.on_behalf(&ann.caller, &service);
        refused(sees(&swapped, &account).await, no_service.0, no_service.1);
        let two_people = site.on_behalf(&bob.caller, &ann.caller);
        refused(
            sees(&two_people, &account).await,
            no_service.0,
            no_service.1,
        );
        let two_programs = site.on_behalf(&service, &service);
        refused(
            sees(&two_programs, &account).await,
            no_service.0,
            no_service.1,
        );
        let (_, stranger) = program(&site, &contoso, "Own").await;
        let own = site.on_behalf(&stranger, &ann.caller);
        refused(sees(&own, &account).await, no_service.0, no_service.1);
        let mut garbage = acting.clone();
        garbage.on_behalf = Some("garbage".to_owned());
        refused(
            sees(&garbage, &account).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        // The person shut out, the service taken its role: both end on the next call.
        let for_bob = site.on_behalf(&service, &bob.caller);
        sees(&for_bob, &account).await.unwrap();
        ann.caller.disable(&bob.name).await.unwrap();
        refused(
            sees(&for_bob, &account).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        dismiss(&home.admin.caller, &robot).await.unwrap();
        refused(sees(&acting, &account).await, no_service.0, no_service.1);
    })
    .await;
}

// proves COM-16
#[tokio::test]
async fn the_ceiling_bounds_early_and_late_demands_and_what_is_given() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin;
        let operator = &home.admin.caller;
        let (robot, service) = program(&site, &home, "Portal").await;
        let role = [OperatorRole::OperatorService];
        let denied = (Code::PermissionDenied, "PERMISSION_MISSING");
        let lacking = (Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
        let bob = site.person(&contoso, "bob").await;
        let acting = site.on_behalf(&service, &ann.caller);
        // By default: no staff, no finances, and nothing that holds them is given.
        appoint(operator, &robot, &role, &[]).await.unwrap();
        let request = ListStaffRequest::default;
        let for_operator = site.on_behalf(&service, operator);
        operator.staff().list_staff(request()).await.unwrap();
        refused(
            for_operator.staff().list_staff(request()).await,
            denied.0,
            denied.1,
        );
        add(&acting, &account, &[&bob], &[]).await.unwrap();
        let target = bob.member_of(&account);
        seed(
            &site,
            &ann.member_of(&account),
            entente::access::grants::FINANCE,
        )
        .await;
        let finance = GrantFinanceRequest {
            name: target.clone(),
            ..GrantFinanceRequest::default()
        };
        refused(
            acting.members().grant_finance(finance.clone()).await,
            denied.0,
            denied.1,
        );
        let manager = [(target.as_str(), rights(&[AccountRole::Manager]))];
        refused(
            update(&acting, &account, &manager).await,
            lacking.0,
            lacking.1,
        );
        // A ceiling of its own replaces the default, both ways.
        let ceiling = [
            "users.assign",
            "members.read",
            "finance.grant",
            "users.create",
        ];
        appoint(operator, &robot, &role, &ceiling).await.unwrap();
        list(&acting, &account, "").await.unwrap();
        refused(sees(&acting, &account).await, denied.0, denied.1);
        let developer = [(target.as_str(), rights(&[AccountRole::Developer]))];
        refused(
            update(&acting, &account, &developer).await,
            lacking.0,
            lacking.1,
        );
        acting.members().grant_finance(finance).await.unwrap();
        // Late demands: without users.assign in the ceiling, a global admin still adds people, but only without rights.
        let joe = site.person(&contoso, "joe").await;
        appoint(operator, &robot, &role, &["users.create"])
            .await
            .unwrap();
        refused(
            add(&acting, &account, &[&joe], &[AccountRole::Developer]).await,
            denied.0,
            denied.1,
        );
        add(&acting, &account, &[&joe], &[]).await.unwrap();
        // members.remove is in the ceiling, users.delete, which deletion demands late, isn't.
        appoint(operator, &robot, &role, &["members.remove"])
            .await
            .unwrap();
        let member = joe.member_of(&account);
        let deletion = crate::members::remove(&acting, &account, &[&member], true).await;
        refused(deletion, denied.0, denied.1);
        crate::members::remove(&acting, &account, &[&member], false)
            .await
            .unwrap();
        // Directory rights are bounded too.
        refused(acting.assign(&bob.name, &[]).await, denied.0, denied.1);
        // As themselves people read through any service, and change something through one without a list of its own.
        let for_bob = site.on_behalf(&service, &bob.caller);
        for_bob.who_am_i().await.unwrap();
        let address = "bob@mail.example";
        let refusal = for_bob.set_contact(&bob.name, address).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
        appoint(operator, &robot, &role, &[]).await.unwrap();
        for_bob.set_contact(&bob.name, address).await.unwrap();
    })
    .await;
}

fn question(principal: &str, permission: &str, resource: &str) -> AccessCheck {
    AccessCheck {
        principal: principal.to_owned(),
        permission: permission.to_owned(),
        resource: resource.to_owned(),
    }
}

async fn ask(by: &Caller, checks: Vec<AccessCheck>) -> Result<Vec<AccessDecision>, Status> {
    let done = by
        .access()
        .check_access(CheckAccessRequest { checks })
        .await?;
    Ok(done.into_inner().decisions)
}

// proves COM-17
#[tokio::test]
async fn a_service_asks_a_thousand_questions_and_is_told_by_what_or_why_not() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin;
        let bob = site.person(&contoso, "bob").await;
        let (robot, service) = program(&site, &home, "Store").await;
        let one = || vec![question(&ann.name, "offers.publish", &account)];
        refused(
            ask(&service, one()).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let role = [OperatorRole::OperatorService];
        appoint(&home.admin.caller, &robot, &role, &[])
            .await
            .unwrap();
        // No person asks, not even the operator's administrator.
        refused(
            ask(&home.admin.caller, one()).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let many = ask(&service, vec![one().remove(0); 1_000]).await.unwrap();
        assert_eq!(many.len(), 1_000);
        assert!(many.iter().all(|d| d.allowed));
        let too_many = ask(&service, vec![one().remove(0); 1_001]).await;
        refused(too_many, Code::InvalidArgument, "INVALID_FIELDS");
        refused(
            ask(&service, Vec::new()).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let mixed = crate::members::singly(&["offers.publish"]);
        let mut mixed = mixed;
        mixed.roles = vec![AccountRole::Developer as i32];
        add(&ann.caller, &account, &[&bob], &[]).await.unwrap();
        let target = bob.member_of(&account);
        update(&ann.caller, &account, &[(&target, mixed)])
            .await
            .unwrap();
        let nowhere = format!("accounts/{}", crate::harness::request_id());
        let questions = || {
            vec![
                question(&bob.name, "offers.publish", &account),
                question(&bob.name, "account.read", &account),
                question(&bob.name, "members.read", &account),
                question(&ann.name, "users.create", &contoso.name),
                question(&bob.name, "offers.publish", &nowhere),
                question(&robot, "access.check", "operator"),
            ]
        };
        let told = ask(&service, questions()).await.unwrap();
        let because: Vec<_> = told.iter().map(|d| d.because.join("+")).collect();
        assert_eq!(
            because,
            [
                "DEVELOPER+offers.publish",
                "DEVELOPER",
                "",
                "GLOBAL_ADMIN",
                "",
                "OPERATOR_SERVICE"
            ]
        );
        let refusals: Vec<_> = told.iter().map(|d| d.reason.as_str()).collect();
        assert_eq!(
            refusals,
            ["", "", "PERMISSION_MISSING", "", "PERMISSION_MISSING", ""]
        );
        // As fresh as the database.
        let none = [(target.as_str(), entente::proto::access::Rights::default())];
        update(&ann.caller, &account, &none).await.unwrap();
        let told = ask(&service, questions()).await.unwrap();
        assert!(!told[0].allowed);
        assert_eq!(told[1].because, ["MEMBER"]);
        ann.caller.disable(&bob.name).await.unwrap();
        assert!(!ask(&service, questions()).await.unwrap()[1].allowed);
        let bad = vec![
            question(&ann.name, "offers.publish", &account),
            question(&account, "offers.publish", &account),
        ];
        refused(
            ask(&service, bad).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
    })
    .await;
}

// proves COM-17
#[tokio::test]
async fn neighbouring_questions_are_answered_each_for_its_own_principal_and_place() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let other = site.account(&contoso, "Northwind").await;
        let ann = &contoso.admin;
        let bob = site.person(&contoso, "bob").await;
        add(&ann.caller, &account, &[&bob], &[]).await.unwrap();
        let service = Service::open(&site).await.caller(&site).await;
        // Each shares the principal or the place with the one before.
        let questions = vec![
            question(&bob.name, "account.read", &account),
            question(&bob.name, "account.read", &other),
            question(&ann.name, "account.read", &other),
            question(&bob.name, "account.read", &other),
            question(&bob.name, "account.read", &account),
        ];
        let told = ask(&service, questions).await.unwrap();
        let allowed: Vec<_> = told.iter().map(|d| d.allowed).collect();
        assert_eq!(allowed, [true, false, true, false, true]);
    })
    .await;
}

// proves COM-17, PWD-5, INV-5
#[tokio::test]
async fn whoever_has_a_temporary_password_may_nothing_before_it_is_changed() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let foreign = site.account(&fabrikam, "Fabrikam").await;
        let (ann, finn) = (&contoso.admin.caller, &fabrikam.admin.caller);
        let made = ann
            .users()
            .create_user(new_user(&contoso.name, "bob"))
            .await;
        let made = made.unwrap().into_inner();
        let user = made.user.unwrap();
        let bob = Person {
            name: user.name,
            caller: site
                .sign_in(&user.sign_in_name, &made.temporary_password)
                .await,
            sign_in_name: user.sign_in_name,
        };
        let gwen = Person {
            name: guest(&site, &fabrikam.name, &bob).await,
            ..bob.clone()
        };
        let developer = [AccountRole::Developer];
        add(ann, &account, &[&bob], &developer).await.unwrap();
        add(finn, &foreign, &[&gwen], &developer).await.unwrap();
        let service = Service::open(&site).await.caller(&site).await;
        let told = async || {
            let questions = vec![
                question(&bob.name, "offers.publish", &account),
                question(&gwen.name, "offers.publish", &foreign),
                question(&bob.name, "members.read", &account),
            ];
            let told = ask(&service, questions).await.unwrap();
            let told = told.into_iter().map(|d| (d.allowed, d.reason));
            told.collect::<Vec<_>>()
        };
        let of = |allowed: bool, reason: &str| {
            let lacking = (false, "PERMISSION_MISSING".to_owned());
            let other = (allowed, reason.to_owned());
            vec![other.clone(), other, lacking]
        };
        let explain = async |by: &Caller, principal: &str, resource: &str| {
            let request = ExplainAccessRequest {
                resource: resource.to_owned(),
                principal: principal.to_owned(),
                permission: "offers.publish".to_owned(),
            };
            let done = by.access().explain_access(request).await;
            let done = done.unwrap().into_inner();
            let is_told = done.steps.iter().any(|s| s.contains("temporary"));
            (done.decision.unwrap().allowed, is_told)
        };
        let refused_for = of(false, "PASSWORD_CHANGE_REQUIRED");
        // Asked twice, so that what is remembered is right too.
        for _ in 0..2 {
            assert_eq!(told().await, refused_for);
        }
        assert_eq!(explain(ann, &bob.name, &account).await, (false, true));
        assert_eq!(explain(finn, &gwen.name, &foreign).await, (false, true));
        site.settle_in(&bob.sign_in_name, &made.temporary_password)
            .await;
        for _ in 0..2 {
            assert_eq!(told().await, of(true, ""));
        }
        assert_eq!(explain(ann, &bob.name, &account).await, (true, false));
        ann.reset(&bob.name).await.unwrap();
        assert_eq!(told().await, refused_for);
    })
    .await;
}

// proves COM-17
#[tokio::test]
async fn people_learn_what_they_may_and_auditors_why_others_may() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin;
        let bob = site.person(&contoso, "bob").await;
        add(&ann.caller, &account, &[&bob], &[AccountRole::Developer])
            .await
            .unwrap();
        let mine = async |who: &Caller, resource: &str, permissions: &[&str]| {
            let request = TestMyPermissionsRequest {
                resource: resource.to_owned(),
                permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
            };
            let done = who.access().test_my_permissions(request).await.unwrap();
            done.into_inner().permissions
        };
        let asked = ["offers.publish", "members.read", "account.read"];
        assert_eq!(
            mine(&bob.caller, &account, &asked).await,
            ["offers.publish", "account.read"]
        );
        assert_eq!(
            mine(&ann.caller, &contoso.name, &["users.create"]).await,
            ["users.create"]
        );
        let nowhere = format!("accounts/{}", crate::harness::request_id());
        assert!(mine(&bob.caller, &nowhere, &asked).await.is_empty());
        assert!(
            mine(&ann.caller, "operator", &["staff.manage"])
                .await
                .is_empty()
        );
        let explain = async |who: &Caller, permission: &str| {
            let request = ExplainAccessRequest {
                resource: account.clone(),
                principal: bob.name.clone(),
                permission: permission.to_owned(),
            };
            let done = who.access().explain_access(request).await;
            done.map(tonic::Response::into_inner)
        };
        for auditor in [&ann.caller, &home.admin.caller] {
            let told = explain(auditor, "members.read").await.unwrap();
            assert!(!told.decision.unwrap().allowed);
            assert!(told.giving_roles.contains(&"MANAGER".to_owned()));
            // That it is active, what it holds, and what comes of it.
            assert_eq!(told.steps.len(), 3, "{:?}", told.steps);
            let told = explain(auditor, "offers.publish").await.unwrap();
            assert_eq!(told.decision.unwrap().because, ["DEVELOPER"]);
        }
        refused(
            explain(&bob.caller, "offers.publish").await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // Reading oneself needs no right.
        let name = bob.name.clone();
        bob.caller
            .users()
            .get_user(GetUserRequest { name })
            .await
            .unwrap();
    })
    .await;
}
