//! The operator's staff and services: who may be one, what they see, and what is written of it. Acting for people: `staff/service.rs`;
//! limits of calls: `staff/limits.rs`.

mod limits;
mod service;

use entente::proto::{
    account::GetAccountRequest,
    audit::{AuditEvent, ListAuditEventsRequest},
    directory::{
        Application, CreateApplicationRequest, CreateKeyRequest, DirectoryRole, GetTenantRequest,
        KeyCredential, SignInRequest, sign_in_request::Credential,
    },
    operator::{
        AssignOperatorRolesRequest, ListStaffRequest, OperatorRole, RemoveOperatorRolesRequest,
        Staff,
    },
};
use tonic::{Code, Status};

use crate::{
    harness::{Caller, Site, TenantSite, both, fields, refused},
    people::{People as _, application, operator_tenant, second_admin},
};

async fn appoint(
    by: &Caller,
    principal: &str,
    roles: &[OperatorRole],
    ceiling: &[&str],
) -> Result<Staff, Status> {
    let request = AssignOperatorRolesRequest {
        principal: principal.to_owned(),
        roles: roles.iter().map(|r| *r as i32).collect(),
        on_behalf_ceiling: ceiling.iter().map(|c| (*c).to_owned()).collect(),
        ..AssignOperatorRolesRequest::default()
    };
    let done = by.staff().assign_operator_roles(request).await?;
    Ok(done.into_inner())
}

async fn dismiss(by: &Caller, principal: &str) -> Result<(), Status> {
    let id = principal.rsplit('/').next().unwrap();
    let request = RemoveOperatorRolesRequest {
        name: format!("operator/staff/{id}"),
        ..RemoveOperatorRolesRequest::default()
    };
    by.staff().remove_operator_roles(request).await.map(|_| ())
}

/// An application of a tenant, signed in: its name and itself.
async fn program(site: &Site, tenant: &TenantSite, name: &str) -> (String, Caller) {
    let request = CreateApplicationRequest {
        parent: tenant.name.clone(),
        application: Some(Application {
            display_name: name.to_owned(),
            ..Application::default()
        }),
        ..CreateApplicationRequest::default()
    };
    let mut clients = tenant.admin.caller.applications();
    let made = clients.create_application(request).await.unwrap();
    let made = made.into_inner();
    let request = CreateKeyRequest {
        parent: made.name.clone(),
        ..CreateKeyRequest::default()
    };
    let key = clients.create_key(request).await.unwrap().into_inner();
    let credential = KeyCredential {
        client_id: made.client_id,
        secret: key.secret,
    };
    let request = SignInRequest {
        credential: Some(Credential::Key(credential)),
        request_id: String::new(),
    };
    let tokens = site.nobody().sessions().sign_in(request).await.unwrap();
    let caller = site.with_token(&tokens.into_inner().access_token);
    (made.name, caller)
}

/// The events of a chain that a filter finds, newest last.
async fn chain(by: &Caller, parent: &str, filter: &str) -> Vec<AuditEvent> {
    let request = ListAuditEventsRequest {
        parent: parent.to_owned(),
        page_size: 1_000,
        filter: filter.to_owned(),
        ..ListAuditEventsRequest::default()
    };
    let page = by.audit().list_audit_events(request).await.unwrap();
    page.into_inner().audit_events
}

// proves ROL-11, ROL-12
#[tokio::test]
async fn operator_roles_go_to_the_operators_own_people_and_programs_each_to_its_kind() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let contoso = site.tenant("contoso").await;
        let by = &home.admin.caller;
        let bob = site.person(&home, "bob").await;
        let robot = application(&home.admin.caller, &home.name, "Portal")
            .await
            .name;
        let unfit = (Code::FailedPrecondition, "NOT_ASSIGNABLE");
        let support = [OperatorRole::OperatorSupport];
        let service = [OperatorRole::OperatorService];
        refused(
            appoint(by, &contoso.admin.name, &support, &[]).await,
            unfit.0,
            unfit.1,
        );
        let foreign = application(&contoso.admin.caller, &contoso.name, "Foreign")
            .await
            .name;
        refused(appoint(by, &foreign, &service, &[]).await, unfit.0, unfit.1);
        refused(appoint(by, &robot, &support, &[]).await, unfit.0, unfit.1);
        refused(
            appoint(by, &bob.name, &service, &[]).await,
            unfit.0,
            unfit.1,
        );
        refused(
            appoint(
                by,
                &bob.name,
                &[OperatorRole::OperatorAdmin, OperatorRole::OperatorFinance],
                &[],
            )
            .await,
            Code::FailedPrecondition,
            "ROLES_EXCLUDE_EACH_OTHER",
        );
        let group = crate::groups::group(&home, "Portals", &[&bob], None).await;
        for roles in [support, service] {
            refused(appoint(by, &group, &roles, &[]).await, unfit.0, unfit.1);
        }
        let unknown = format!("{}/users/{}", home.name, crate::harness::request_id());
        refused(
            appoint(by, &unknown, &support, &[]).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let status = refused(
            appoint(by, &bob.name, &support, &["users.read"]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["on_behalf_ceiling"]);
        let off = site.person(&home, "off").await;
        by.disable(&off.name).await.unwrap();
        refused(
            appoint(by, &off.name, &support, &[]).await,
            unfit.0,
            unfit.1,
        );
        // Everything is listed that was given.
        appoint(by, &robot, &service, &["users.read"])
            .await
            .unwrap();
        let finance = [OperatorRole::OperatorFinance, OperatorRole::OperatorSupport];
        appoint(by, &bob.name, &finance, &[]).await.unwrap();
        let request = ListStaffRequest {
            filter: "roles:OPERATOR_FINANCE".to_owned(),
            ..ListStaffRequest::default()
        };
        let listed = by.staff().list_staff(request).await.unwrap();
        let listed = listed.into_inner().staff;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].principal, bob.name);
        assert_eq!(listed[0].roles, [3, 4]);
        // Roles replace those held.
        let changed = appoint(by, &bob.name, &support, &[]).await.unwrap();
        assert_eq!(changed.roles, [4]);
        dismiss(by, &bob.name).await.unwrap();
        refused(
            dismiss(by, &bob.name).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
    })
    .await;
}

// proves ROL-7, ROL-9
#[tokio::test]
async fn staff_is_managed_with_both_rights_and_its_last_administrator_remains() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let first = &home.admin;
        let denied = (Code::PermissionDenied, "PERMISSION_MISSING");
        let last = (Code::FailedPrecondition, "LAST_OPERATOR_ADMIN");
        let administrator = [OperatorRole::OperatorAdmin];
        let support = [OperatorRole::OperatorSupport];
        // OPERATOR_ADMIN alone isn't enough, nor is GLOBAL_ADMIN alone.
        let half = site.person(&home, "half").await;
        appoint(&first.caller, &half.name, &administrator, &[])
            .await
            .unwrap();
        let other = second_admin(&site, &home, "other").await;
        for who in [&half, &other] {
            refused(
                appoint(&who.caller, &who.name, &support, &[]).await,
                denied.0,
                denied.1,
            );
            refused(dismiss(&who.caller, &first.name).await, denied.0, denied.1);
        }
        dismiss(&first.caller, &half.name).await.unwrap();
        refused(dismiss(&first.caller, &first.name).await, last.0, last.1);
        refused(
            appoint(&first.caller, &first.name, &support, &[]).await,
            last.0,
            last.1,
        );
        refused(other.caller.disable(&first.name).await, last.0, last.1);
        // Nor is anybody's own global admin role needed to be it: demoting works, and then nobody manages staff through it.
        other
            .caller
            .assign(&first.name, &[DirectoryRole::BillingAdmin])
            .await
            .unwrap();
        refused(
            appoint(&first.caller, &half.name, &support, &[]).await,
            denied.0,
            denied.1,
        );
    })
    .await;
}

// proves ROL-11
#[tokio::test]
async fn looks_of_staff_are_masked_and_audited_once_a_person_resource_and_hour() {
    both(async |site| {
        site.early_in_an_hour().await;
        let home = operator_tenant(&site).await;
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let sam = site.person(&home, "sam").await;
        let kim = site.person(&home, "kim").await;
        let by = &home.admin.caller;
        let see = async |who: &Caller| {
            let name = contoso.name.clone();
            let tenant = who.tenants().get_tenant(GetTenantRequest { name }).await;
            tenant.map(tonic::Response::into_inner)
        };
        refused(
            see(&sam.caller).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        for person in [&sam, &kim] {
            appoint(by, &person.name, &[OperatorRole::OperatorSupport], &[])
                .await
                .unwrap();
        }
        let own = see(&contoso.admin.caller).await.unwrap();
        let masked = see(&sam.caller).await.unwrap();
        assert_eq!(masked.display_name, own.display_name);
        assert_ne!(masked.contact_email, own.contact_email);
        for _ in 0..3 {
            see(&sam.caller).await.unwrap();
        }
        let looks = "action=\"entente.directory.v1.TenantService/GetTenant\" AND outcome=OK";
        let of_sam = format!("{looks} AND actor=\"{}\"", sam.name);
        let admin = &contoso.admin.caller;
        for (reader, parent) in [(admin, contoso.name.as_str()), (by, "operator")] {
            let events = chain(reader, parent, &of_sam).await;
            assert_eq!(events.len(), 1, "{parent}");
            assert_eq!(events[0].resources, [contoso.name.as_str()]);
        }
        // Another person, another resource, another hour: one each. The tenant's own looks are none.
        see(&kim.caller).await.unwrap();
        assert_eq!(chain(admin, &contoso.name, looks).await.len(), 2);
        let request = GetAccountRequest {
            name: account.clone(),
        };
        for _ in 0..2 {
            let seen = sam.caller.accounts().get_account(request.clone()).await;
            seen.unwrap();
        }
        let of_accounts = "action=\"entente.account.v1.AccountService/GetAccount\"";
        assert_eq!(chain(admin, &account, of_accounts).await.len(), 1);
        site.advance(3_600).await;
        let later = site
            .sign_in(&sam.sign_in_name, crate::harness::PASSWORD)
            .await;
        see(&later).await.unwrap();
        let admin = site
            .sign_in(&contoso.admin.sign_in_name, crate::harness::PASSWORD)
            .await;
        assert_eq!(chain(&admin, &contoso.name, &of_sam).await.len(), 2);
        // Staff opens nothing but what its table says.
        let result = crate::members::list(&later, &account, "").await;
        refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    })
    .await;
}
