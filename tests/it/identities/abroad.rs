//! Identities elsewhere: tenants that they make, their chains, services that ask about them, and being shut out.

use entente::proto::{
    access::{AccessCheck, CheckAccessRequest},
    account::{AssociateTenantRequest, GetAccountRequest},
    audit::{ExportAuditEventsRequest, VerifyAuditChainRequest},
    directory::{Identity, UpdateIdentityRequest},
};
use futures_util::future::join_all;
use tonic::{Code, Response, Status};

use crate::{
    harness::{Caller, PASSWORD, TenantSite, both, new_tenant, refused, request_id},
    people::{
        People as _, Service, again, ask_recovery, audited, change, change_password, denied, guest,
        id, identity, letters, link_invalid, mailed_token, new_identity, number, recover, refresh,
    },
};

use super::{ADDRESS, NEW, change_email, confirm_email, identities, own_account, sign_up, switch};

async fn associate(caller: &Caller, account: &str, admin: &Caller) -> Result<(), Status> {
    let request = AssociateTenantRequest {
        parent: account.to_owned(),
        tenant_admin_token: admin.token.clone().unwrap(),
        ..AssociateTenantRequest::default()
    };
    let done = caller.associations().associate_tenant(request).await;
    done.map(drop)
}

// proves TEN-1, ROL-7
#[tokio::test]
async fn identity_makes_one_tenant_without_an_account_at_a_time() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ida = identity(&site, ADDRESS).await;
        // Sixteen at once: one.
        let prefixes: Vec<_> = (0..16).map(|i| format!("noors-{i}")).collect();
        let tries = prefixes.iter().map(|prefix| {
            let mut tenants = ida.caller.tenants();
            async move { tenants.create_tenant(new_tenant(prefix)).await }
        });
        let (made, refusals): (Vec<_>, Vec<_>) =
            join_all(tries).await.into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 1);
        for status in refusals {
            refused(status, Code::FailedPrecondition, "TENANT_LIMIT");
        }
        let made = made.into_iter().next().unwrap().unwrap().into_inner();
        let (tenant, first) = (made.tenant.unwrap(), made.first_admin.unwrap());
        let admin = site
            .settle_in(&first.sign_in_name, &made.temporary_password)
            .await;
        assert_eq!(
            admin.who_am_i().await.unwrap().tenant.unwrap().name,
            tenant.name
        );
        let told = audited(&ida.caller, &ida.name, "").await.unwrap();
        let last = told
            .iter()
            .rfind(|e| e.action.ends_with("/CreateTenant") && e.outcome == "OK");
        assert!(last.unwrap().resources.contains(&tenant.name));
        // What it made gives it nothing there.
        denied(ida.caller.user(&first.name).await);
        // Once an account has it, another may be made.
        associate(&contoso.admin.caller, &account, &admin)
            .await
            .unwrap();
        let second = ida
            .caller
            .tenants()
            .create_tenant(new_tenant("noors-20"))
            .await;
        let second = second.unwrap().into_inner().tenant.unwrap();
        // Deleted, it counts while it can be had back.
        let deleted = "UPDATE tenants SET state = 2, purge_time = $1 WHERE id = $2";
        let at = site.app.now().await.unwrap() + 60_000_000;
        change(&site, deleted, [at.into(), id(&second.name).into()]).await;
        let tried = ida
            .caller
            .tenants()
            .create_tenant(new_tenant("noors-21"))
            .await;
        refused(tried, Code::FailedPrecondition, "TENANT_LIMIT");
        site.advance(61).await;
        let ida = again(&site, &ida).await;
        ida.tenants()
            .create_tenant(new_tenant("noors-21"))
            .await
            .unwrap();
    })
    .await;
}

// proves TEN-1, COM-10
#[tokio::test]
async fn users_and_programs_make_no_tenants_and_their_tries_are_audited() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let request = new_tenant("fabrikam");
        denied(
            contoso
                .admin
                .caller
                .tenants()
                .create_tenant(request.clone())
                .await,
        );
        denied(
            site.person(&contoso, "bob")
                .await
                .caller
                .tenants()
                .create_tenant(request)
                .await,
        );
        let told = audited(&contoso.admin.caller, &contoso.name, "")
            .await
            .unwrap();
        let outcomes: Vec<_> = told
            .iter()
            .filter(|e| e.action.ends_with("/CreateTenant") && e.actor.contains("/users/"))
            .map(|e| e.outcome.as_str())
            .filter(|outcome| *outcome != "OK")
            .collect();
        assert_eq!(outcomes, ["PERMISSION_MISSING"; 2]);
        let sql = "SELECT COUNT(*) AS n FROM tenants WHERE domain_prefix = 'fabrikam'";
        assert_eq!(number(&site, sql, []).await, 0);
    })
    .await;
}

// proves COM-10, COM-11
#[tokio::test]
async fn chain_of_an_identity_is_its_own_to_read_and_to_verify() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ida = identity(&site, ADDRESS).await;
        let eve = identity(&site, "eve@mail.example").await;
        let operator = site.operator().await;
        let verify = async |caller: &Caller, name: &str| {
            let parent = name.to_owned();
            let request = VerifyAuditChainRequest { parent };
            let done = caller.audit().verify_audit_chain(request).await;
            done.map(Response::into_inner)
        };
        let exported = async |caller: &Caller, name: &str| {
            let request = ExportAuditEventsRequest {
                parent: name.to_owned(),
                after: 0,
            };
            let opened = caller.audit().export_audit_events(request).await?;
            let (mut stream, mut all) = (opened.into_inner(), Vec::new());
            while let Some(message) = stream.message().await? {
                all.extend(message.audit_events);
            }
            Ok::<_, Status>(all)
        };
        let listed = audited(&ida.caller, &ida.name, "").await.unwrap();
        assert_eq!(exported(&ida.caller, &ida.name).await.unwrap(), listed);
        assert_eq!(listed[0].name, format!("{}/auditEvents/1", ida.name));
        let verdict = verify(&ida.caller, &ida.name).await.unwrap();
        assert!(verdict.intact && verdict.checked_count == 2);
        for caller in [&eve.caller, &contoso.admin.caller] {
            denied(audited(caller, &ida.name, "").await);
            denied(verify(caller, &ida.name).await);
            denied(exported(caller, &ida.name).await);
        }
        // The operator may look; that it did stands in the chain.
        audited(&operator, &ida.name, "").await.unwrap();
        assert!(verify(&operator, &ida.name).await.unwrap().intact);
        let after = audited(&ida.caller, &ida.name, "").await.unwrap();
        assert!(after.len() > listed.len());
        assert!(after.last().unwrap().action.contains("AuditService/"));
        let none = format!("identities/{}", request_id());
        refused(
            audited(&operator, &none, "").await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        // An identity reads no other kind of chain by its own.
        denied(audited(&ida.caller, &contoso.name, "").await);
        denied(audited(&ida.caller, "operator", "").await);
    })
    .await;
}

// proves COM-16, COM-17
#[tokio::test]
async fn services_ask_about_identities_and_act_for_them() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ida = identity(&site, ADDRESS).await;
        own_account(&site, &ida, &account).await;
        let service = Service::open(&site).await;
        let portal = service.caller(&site).await;
        let check = |permission: &str| AccessCheck {
            principal: ida.name.clone(),
            permission: permission.to_owned(),
            resource: account.clone(),
        };
        let ask = async || {
            let request = CheckAccessRequest {
                checks: vec![check("account.read"), check("offers.publish")],
            };
            let told = portal.access().check_access(request).await.unwrap();
            let told = told.into_inner().decisions;
            told.into_iter().map(|d| d.allowed).collect::<Vec<_>>()
        };
        assert_eq!(ask().await, [true, false]);
        let acting = site.on_behalf(&portal, &ida.caller);
        let me = acting.who_am_i().await.unwrap();
        assert_eq!((&me.principal, &me.via), (&ida.name, &service.name));
        assert_eq!(me.accounts[0].account, account);
        let read = GetAccountRequest {
            name: account.clone(),
        };
        acting.accounts().get_account(read).await.unwrap();
        let renamed = UpdateIdentityRequest {
            identity: Some(Identity {
                name: ida.name.clone(),
                given_name: "Ada".to_owned(),
                ..Identity::default()
            }),
            ..UpdateIdentityRequest::default()
        };
        acting.identities().update_identity(renamed).await.unwrap();
        let told = audited(&ida.caller, &ida.name, "").await.unwrap();
        let last = told.last().unwrap();
        assert_eq!((&last.actor, &last.via), (&ida.name, &service.name));
        let sql = "DELETE FROM grants WHERE principal_id = $1";
        change(&site, sql, [id(&ida.name).into()]).await;
        assert_eq!(ask().await, [false, false]);
    })
    .await;
}

// proves ATK-17
#[tokio::test]
async fn disabled_identities_get_a_token_by_no_path() {
    both(async |site| {
        let contoso: TenantSite = site.tenant("contoso").await;
        let ida = identity(&site, ADDRESS).await;
        guest(&site, &contoso.name, &ida).await;
        let tokens = site.tokens(ADDRESS, PASSWORD).await.unwrap();
        let as_guest = switch(&ida.caller, &contoso.name).await.unwrap();
        ask_recovery(&site, ADDRESS).await.unwrap();
        let way_back = mailed_token(&site, ADDRESS).await.unwrap();
        change_email(&ida.caller, &ida.name, "ida@new.example")
            .await
            .unwrap();
        let new_address = mailed_token(&site, "ida@new.example").await.unwrap();
        // No RPC disables one yet.
        let sql = "UPDATE users SET state = 2 WHERE id = $1";
        change(&site, sql, [id(&ida.name).into()]).await;
        let before = letters(&site).await.len();
        refused(
            site.tokens(ADDRESS, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        for token in [&tokens, &as_guest] {
            let live = site.with_token(&token.access_token);
            for tried in [
                refresh(&site, &token.refresh_token).await.map(drop),
                switch(&live, &contoso.name).await.map(drop),
                switch(&live, "").await.map(drop),
                change_password(&live, PASSWORD, NEW).await.map(drop),
                live.who_am_i().await.map(drop),
            ] {
                refused(tried, Code::Unauthenticated, "TOKEN_INVALID");
            }
        }
        link_invalid(recover(&site, &way_back, NEW).await);
        link_invalid(confirm_email(&site, &new_address).await);
        ask_recovery(&site, ADDRESS).await.unwrap();
        assert_eq!(letters(&site).await.len(), before);
        // Its address isn't free either.
        sign_up(&site, new_identity(ADDRESS)).await.unwrap();
        assert_eq!(identities(&site).await, 1);
        assert!(!letters(&site).await.last().unwrap().text.contains("entl_"));
    })
    .await;
}
