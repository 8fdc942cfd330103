//! What a refused call leaves in the audit, and what it costs (COM-10, COM-16, COM-18).

use entente::proto::{
    account::AddMembersRequest,
    directory::{CreateTenantRequest, DisableUserRequest},
    operator::OperatorRole,
};
use tonic::Code;

use crate::{
    harness::{both, new_tenant, refused, request_id},
    people::{audited, staff},
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
