//! TenantService (TEN-1).

use entente::proto::directory::{
    CreateTenantRequest, DirectoryRole, GetTenantRequest, ListTenantsRequest, Tenant,
    UpdateTenantRequest,
};
use tonic::{Code, Response, Status};

use crate::{
    harness::{Caller, both, fields, new_tenant, refused, request_id},
    people::{People as _, events, letters, mask, number, person_as},
};

async fn get(caller: &Caller, name: &str) -> Result<Tenant, Status> {
    let name = name.to_owned();
    let got = caller.tenants().get_tenant(GetTenantRequest { name }).await;
    got.map(Response::into_inner)
}

async fn list(caller: &Caller, filter: &str) -> Vec<Tenant> {
    let request = ListTenantsRequest {
        filter: filter.to_owned(),
        ..ListTenantsRequest::default()
    };
    let listed = caller.tenants().list_tenants(request).await.unwrap();
    listed.into_inner().tenants
}

async fn update(
    caller: &Caller,
    tenant: Tenant,
    paths: &[&str],
    etag: &str,
) -> Result<Tenant, Status> {
    let request = UpdateTenantRequest {
        tenant: Some(tenant),
        update_mask: (!paths.is_empty()).then(|| mask(paths)),
        etag: etag.to_owned(),
        ..UpdateTenantRequest::default()
    };
    let done = caller.tenants().update_tenant(request).await;
    done.map(Response::into_inner)
}

// proves TEN-1
#[tokio::test]
async fn tenant_is_made_with_its_first_admin_who_can_sign_in_at_once() {
    both(async |site| {
        let operator = site.operator().await;
        let mut request = new_tenant("Contoso-2");
        request.request_id = request_id();
        let checked = CreateTenantRequest {
            validate_only: true,
            ..request.clone()
        };
        let checked = operator.tenants().create_tenant(checked).await.unwrap();
        assert_eq!(checked.into_inner().temporary_password, "");
        let made = operator.tenants().create_tenant(request.clone()).await;
        let made = made.unwrap().into_inner();
        let (tenant, admin) = (made.tenant.unwrap(), made.first_admin.unwrap());
        assert_eq!(tenant.domain_prefix, "contoso-2");
        assert_eq!(tenant.domain, "contoso-2.partners.localhost");
        assert_eq!(admin.sign_in_name, "ann@contoso-2.partners.localhost");
        assert_eq!(admin.directory_roles, [DirectoryRole::GlobalAdmin as i32]);
        let ann = site
            .settle_in(&admin.sign_in_name, &made.temporary_password)
            .await;
        assert_eq!(ann.user(&admin.name).await.unwrap().name, admin.name);
        let replay = operator.tenants().create_tenant(request).await.unwrap();
        assert!(replay.metadata().contains_key("entente-replayed"));
        let replay = replay.into_inner();
        assert_eq!(replay.tenant.unwrap(), tenant);
        assert_eq!(replay.temporary_password, "");
        assert!(replay.secret_omitted);
        for (kind, name) in [
            ("directory.v1.TenantCreated", &tenant.name),
            ("directory.v1.UserCreated", &admin.name),
        ] {
            assert_eq!(events(&site, kind, name).await, 1, "{kind}");
        }
        let letters = letters(&site).await;
        let to: Vec<_> = letters.iter().map(|l| l.to.as_str()).collect();
        assert!(to.contains(&"it@Contoso-2.example"), "{to:?}");
        assert!(
            letters
                .iter()
                .all(|l| !l.text.contains(&made.temporary_password))
        );
    })
    .await;
}

// proves TEN-1
#[tokio::test]
async fn prefixes_have_rules() {
    both(async |site| {
        let operator = site.operator().await;
        for bad in [
            "",
            "ab",
            "1contoso",
            "-contoso",
            "contoso-",
            "con.toso",
            "con_toso",
            "contôso",
            "con toso",
            &"a".repeat(28),
        ] {
            let status = refused(
                operator.tenants().create_tenant(new_tenant(bad)).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            let fields = fields(&status);
            assert!(
                fields.contains(&"tenant.domain_prefix".to_owned()),
                "{bad}: {fields:?}"
            );
        }
        for good in ["abc", "a1-b2--c3", &"a".repeat(27), "z-1"] {
            let mut request = new_tenant(good);
            request.tenant.as_mut().unwrap().contact_email = "it@contoso.example".to_owned();
            request.first_admin.as_mut().unwrap().recovery_email = "ann@contoso.example".to_owned();
            operator.tenants().create_tenant(request).await.unwrap();
        }
    })
    .await;
}

// proves TEN-1
#[tokio::test]
async fn prefix_belongs_to_one_tenant_ignoring_case_also_for_two_at_once() {
    both(async |site| {
        let operator = site.operator().await;
        let create = |prefix: &str| {
            let operator = operator.clone();
            let request = new_tenant(prefix);
            async move { operator.tenants().create_tenant(request).await }
        };
        create("contoso").await.unwrap();
        for taken in ["contoso", "CONTOSO", "Contoso"] {
            refused(create(taken).await, Code::AlreadyExists, "DOMAIN_TAKEN");
        }
        let (one, other) = tokio::join!(create("fabrikam"), create("FabriKam"));
        let lost = match (one, other) {
            (Ok(_), Err(lost)) | (Err(lost), Ok(_)) => lost,
            both => panic!("exactly one: {both:?}"),
        };
        refused::<()>(Err(lost), Code::AlreadyExists, "DOMAIN_TAKEN");
        // The loser left nothing behind, no admin either.
        assert_eq!(list(&operator, "").await.len(), 3);
        let sql = "SELECT COUNT(*) AS n FROM users";
        assert_eq!(number(&site, sql, []).await, 3);
    })
    .await;
}

// proves TEN-1, PWD-2, PWD-5
#[tokio::test]
async fn password_given_for_the_first_admin_is_temporary_and_held_to_the_policy() {
    both(async |site| {
        let operator = site.operator().await;
        let with = |password: &str| {
            let mut request = new_tenant("contoso");
            let admin = request.first_admin.as_mut().unwrap();
            admin.password = password.to_owned();
            admin.user_name = "ann.smith".to_owned();
            request
        };
        for bad in ["short", "passwordpassword", "i am ann.smith!"] {
            let status = refused(
                operator.tenants().create_tenant(with(bad)).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["first_admin.password"], "{bad}");
        }
        let given = "seven quiet rivers";
        let made = operator.tenants().create_tenant(with(given)).await.unwrap();
        let made = made.into_inner();
        assert_eq!(made.temporary_password, "");
        let admin = made.first_admin.unwrap();
        let restricted = site.sign_in(&admin.sign_in_name, given).await;
        refused(
            restricted.user(&admin.name).await,
            Code::FailedPrecondition,
            "PASSWORD_CHANGE_REQUIRED",
        );
        let ann = site.settle_in(&admin.sign_in_name, given).await;
        ann.user(&admin.name).await.unwrap();

        // Like every temporary one it ends after 72 hours.
        let mut late = with(given);
        late.tenant.as_mut().unwrap().domain_prefix = "fabrikam".to_owned();
        let made = operator.tenants().create_tenant(late).await.unwrap();
        let admin = made.into_inner().first_admin.unwrap();
        site.advance(72 * 3_600).await;
        refused(
            site.tokens(&admin.sign_in_name, given).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
    })
    .await;
}

// proves TEN-1, COM-5, COM-8
#[tokio::test]
async fn tenant_is_changed_by_mask_and_etag() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let before = get(admin, &contoso.name).await.unwrap();
        let new = Tenant {
            name: contoso.name.clone(),
            display_name: "Contoso GmbH".to_owned(),
            contact_email: "office@contoso.example".to_owned(),
            ..Tenant::default()
        };
        let half = update(admin, new.clone(), &["display_name"], &before.etag).await;
        let half = half.unwrap();
        assert_eq!(half.display_name, "Contoso GmbH");
        assert_eq!(half.contact_email, before.contact_email);
        refused(
            update(admin, new.clone(), &[], &before.etag).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let whole = update(admin, new.clone(), &[], &half.etag).await.unwrap();
        assert_eq!(whole.contact_email, "office@contoso.example");
        for fixed in ["domain_prefix", "domain", "state", "name", "etag", "none"] {
            let status = refused(
                update(admin, new.clone(), &[fixed], "").await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["update_mask"], "{fixed}");
        }
        let empty = Tenant {
            display_name: String::new(),
            ..new.clone()
        };
        let status = refused(
            update(admin, empty, &["display_name"], "").await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["tenant.display_name"]);
        assert_eq!(get(admin, &contoso.name).await.unwrap(), whole);
        let bill = person_as(&site, &contoso, "bill", DirectoryRole::BillingAdmin).await;
        get(&bill.caller, &contoso.name).await.unwrap();
        for other in [&bill.caller, &site.operator().await] {
            refused(
                update(other, new.clone(), &[], "").await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
        let kind = "directory.v1.TenantUpdated";
        assert_eq!(events(&site, kind, &contoso.name).await, 2);
    })
    .await;
}

// proves TEN-1, ROL-11, ATK-15
#[tokio::test]
async fn everybody_lists_only_their_own_tenant_and_the_operator_all_masked() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let bob = site.person(&contoso, "bob").await;
        for (caller, tenant) in [
            (&contoso.admin.caller, &contoso.name),
            (&fabrikam.admin.caller, &fabrikam.name),
            (&bob.caller, &contoso.name),
        ] {
            for filter in [
                "",
                "state = ACTIVE",
                "domain_prefix : \"con\" OR display_name : \"abr\"",
            ] {
                let names: Vec<_> = list(caller, filter)
                    .await
                    .into_iter()
                    .map(|t| t.name)
                    .collect();
                assert!(names.iter().all(|n| n == tenant), "{filter}: {names:?}");
            }
            assert_eq!(list(caller, "").await.len(), 1);
        }
        refused(
            get(&fabrikam.admin.caller, &contoso.name).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let whole = get(&contoso.admin.caller, &contoso.name).await.unwrap();
        assert_eq!(whole.contact_email, "it@contoso.example");
        assert_eq!(list(&contoso.admin.caller, "").await, [whole]);
        // The operator sees all, addresses masked; so do people who may not read the tenant.
        let operator = site.operator().await;
        assert_eq!(list(&operator, "").await.len(), 3);
        let masked = "i***@contoso.example";
        let seen = get(&operator, &contoso.name).await.unwrap();
        assert_eq!(seen.contact_email, masked);
        let listed = list(&operator, "domain_prefix = \"contoso\"").await;
        assert_eq!(listed, [seen]);
        refused(
            get(&bob.caller, &contoso.name).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        assert_eq!(list(&bob.caller, "").await[0].contact_email, masked);
        let me = bob.caller.who_am_i().await.unwrap();
        assert_eq!(me.tenant.unwrap().contact_email, masked);
        refused(
            site.nobody()
                .tenants()
                .list_tenants(ListTenantsRequest::default())
                .await,
            Code::Unauthenticated,
            "CREDENTIALS_MISSING",
        );
    })
    .await;
}

// proves TEN-1, ROL-11
#[tokio::test]
async fn only_the_operator_makes_tenants() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        for caller in [&contoso.admin.caller, &site.nobody()] {
            let code = match caller.token {
                Some(_) => (Code::PermissionDenied, "PERMISSION_MISSING"),
                None => (Code::Unauthenticated, "CREDENTIALS_MISSING"),
            };
            refused(
                caller.tenants().create_tenant(new_tenant("fabrikam")).await,
                code.0,
                code.1,
            );
        }
        assert_eq!(list(&site.operator().await, "").await.len(), 2);
    })
    .await;
}
