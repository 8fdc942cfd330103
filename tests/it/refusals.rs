//! What a refused call leaves in the audit, and what it costs (COM-10, COM-16, COM-18).

use entente::{
    access::refusals::flush,
    proto::{
        account::{AddMembersRequest, GetAccountRequest},
        directory::{CreateTenantRequest, DisableUserRequest},
        operator::OperatorRole,
    },
};
use tonic::Code;

use crate::{
    harness::{both, new_tenant, refused, request_id},
    people::{People as _, Service, audited, staff},
};

// proves COM-10, ROL-11
#[tokio::test]
async fn what_staff_is_refused_on_the_operator_stands_in_the_operators_chain() {
    both(async |site| {
        let sue = staff(&site, "sue", OperatorRole::OperatorSupport).await;
        let request: CreateTenantRequest = new_tenant("contoso");
        let tried = sue.caller.tenants().create_tenant(request).await;
        refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
        let operator = site.operator().await;
        let filter = "action = \"entente.directory.v1.TenantService/CreateTenant\"";
        let told = audited(&operator, "operator", filter).await.unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(
            (&told[0].actor, told[0].outcome.as_str()),
            (&sue.name, "PERMISSION_MISSING")
        );
    })
    .await;
}

// proves COM-10, COM-16
#[tokio::test]
async fn whoever_poses_as_a_service_is_named() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let [eve, bob] = [
            site.person(&contoso, "eve").await,
            site.person(&contoso, "bob").await,
        ];
        let request = DisableUserRequest {
            name: bob.name.clone(),
            ..DisableUserRequest::default()
        };
        let posing = site.on_behalf(&eve.caller, &contoso.admin.caller);
        let tried = posing.users().disable_user(request).await;
        refused(tried, Code::PermissionDenied, "ON_BEHALF_REFUSED");
        let filter = "action = \"entente.directory.v1.UserService/DisableUser\"";
        let told = audited(&contoso.admin.caller, &contoso.name, filter)
            .await
            .unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(
            (&told[0].actor, told[0].outcome.as_str()),
            (&eve.name, "ON_BEHALF_REFUSED")
        );
    })
    .await;
}

// proves COM-10
#[tokio::test]
async fn calls_without_good_credentials_are_one_event_a_method_and_minute() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let garbage = site.with_token("garbage");
        for _ in 0..3 {
            let tried = garbage.disable(&contoso.admin.name).await;
            refused(tried, Code::Unauthenticated, "TOKEN_INVALID");
        }
        let operator = site.operator().await;
        let filter = "action = \"entente.directory.v1.UserService/DisableUser\"";
        let told = async || audited(&operator, "operator", filter).await.unwrap();
        assert!(told().await.is_empty());
        for _ in 0..2 {
            flush(&site.app, true).await.unwrap();
            let told = told().await;
            assert_eq!(told.len(), 1);
            assert_eq!(
                (told[0].count, told[0].outcome.as_str()),
                (3, "TOKEN_INVALID")
            );
            assert_eq!(
                (told[0].actor.as_str(), told[0].client_address.as_str()),
                ("", "127.0.0.1")
            );
        }
    })
    .await;
}

// proves ROL-11
#[tokio::test]
async fn looks_of_services_are_counted_and_stand_in_the_operators_chain_alone() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let portal = Service::open(&site).await;
        let service = portal.caller(&site).await;
        for _ in 0..3 {
            let name = account.clone();
            let request = GetAccountRequest { name };
            service.accounts().get_account(request).await.unwrap();
        }
        flush(&site.app, true).await.unwrap();
        let filter = "action = \"entente.account.v1.AccountService/GetAccount\"";
        let told = audited(&site.operator().await, "operator", filter).await;
        let told = told.unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!((&told[0].actor, told[0].count), (&portal.name, 3));
        let own = audited(&contoso.admin.caller, &account, filter).await;
        assert!(own.unwrap().is_empty());
    })
    .await;
}

// proves COM-18
#[tokio::test]
async fn naming_many_strange_places_costs_little() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let strange = || format!("tenants/{}/users/{}", request_id(), request_id());
        let request = AddMembersRequest {
            parent: account,
            principals: (0..500).map(|_| strange()).collect(),
            ..AddMembersRequest::default()
        };
        site.statements.start().await;
        let tried = bob.caller.members().add_members(request).await;
        refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
        let made = site.statements.made().len();
        assert!(made < 40, "{made} statements");
    })
    .await;
}
