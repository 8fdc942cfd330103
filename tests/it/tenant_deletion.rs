//! Deleting tenants, undoing that, and what is purged (TEN-7, TEN-1).

use entente::proto::{
    access::AccountRole,
    audit::{ListAuditEventsRequest, VerifyAuditChainRequest},
    directory::{
        CreateTenantRequest, DeleteTenantRequest, DeleteTenantResponse, DirectoryRole,
        GetTenantRequest, ListTenantsRequest, SwitchTenantRequest, Tenant, TenantState,
        UndeleteTenantRequest,
    },
    operator::OperatorRole,
};
use sea_orm::{ConnectionTrait as _, Statement, Value};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{
    claims::{Replica, chains_are_intact, count, execute, replayed, row_counts, tables},
    harness::{
        Caller, PASSWORD, Person, Site, TenantSite, both, fields, new_tenant, refused, request_id,
    },
    people::{
        People as _, again, application, change, events, eventually, execute_on, id, letters,
        number, numbered_id, operator_tenant, person_as, refresh, second_admin, sign_in_by_key,
        staff,
    },
};

const DAY_S: i64 = 86_400;

fn deletion(tenant: &str) -> DeleteTenantRequest {
    DeleteTenantRequest {
        name: tenant.to_owned(),
        request_id: request_id(),
        ..DeleteTenantRequest::default()
    }
}

async fn delete(caller: &Caller, tenant: &str) -> Result<DeleteTenantResponse, Status> {
    let done = caller.tenants().delete_tenant(deletion(tenant)).await;
    done.map(Response::into_inner)
}

fn by_token(token: &str) -> UndeleteTenantRequest {
    UndeleteTenantRequest {
        token: token.to_owned(),
        request_id: request_id(),
        ..UndeleteTenantRequest::default()
    }
}

async fn undelete(caller: &Caller, request: UndeleteTenantRequest) -> Result<Tenant, Status> {
    let done = caller.tenants().undelete_tenant(request).await;
    done.map(Response::into_inner)
}

async fn undelete_by_name(caller: &Caller, tenant: &str) -> Result<Tenant, Status> {
    let request = UndeleteTenantRequest {
        tenant: tenant.to_owned(),
        ..UndeleteTenantRequest::default()
    };
    undelete(caller, request).await
}

async fn get(caller: &Caller, tenant: &str) -> Result<Tenant, Status> {
    let name = tenant.to_owned();
    let got = caller.tenants().get_tenant(GetTenantRequest { name }).await;
    got.map(Response::into_inner)
}

async fn listed(caller: &Caller, show_deleted: bool) -> Vec<String> {
    let request = ListTenantsRequest {
        show_deleted,
        ..ListTenantsRequest::default()
    };
    let page = caller.tenants().list_tenants(request).await.unwrap();
    let tenants = page.into_inner().tenants.into_iter();
    tenants.map(|t| t.name).collect()
}

/// The token of the newest mail to an address that carries one.
async fn mailed_token(site: &Site, to: &str) -> Option<String> {
    let letters = letters(site).await;
    let letter = letters
        .iter()
        .find(|l| l.to == to && l.text.contains("undelete-tenant#"))?;
    let (_, rest) = letter.text.split_once("undelete-tenant#").unwrap();
    let token: String = rest
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .collect();
    // The mail shows it by itself too (COM-20).
    assert_eq!(
        letter.text.matches(&token).count() % 2,
        0,
        "{}",
        letter.text
    );
    Some(token)
}

/// Makes a person of one tenant a guest of another, as an invitation does.
async fn guest(site: &Site, host: &TenantSite, home: &Person) -> String {
    let sql = "INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, \
               recovery_email, kind, state, create_time, update_time, home_id, home_tenant_id, version) \
               VALUES ($1, $2, $3, $3, 'Gu', 'Est', 'Gu Est', 'gu est', '', 2, 1, 1, 1, $4, $5, 1)";
    let guest: Uuid = request_id().parse().unwrap();
    let tenant: Uuid = home.name.split('/').nth(1).unwrap().parse().unwrap();
    let values: [Value; 5] = [
        guest.into(),
        id(&host.name).into(),
        format!("{}@mail.example", id(&home.name)).into(),
        id(&home.name).into(),
        tenant.into(),
    ];
    change(site, sql, values).await;
    format!("{}/users/{guest}", host.name)
}

async fn switch(caller: &Caller, tenant: &str) -> Result<String, Status> {
    let request = SwitchTenantRequest {
        tenant: tenant.to_owned(),
        ..SwitchTenantRequest::default()
    };
    let switched = caller.sessions().switch_tenant(request).await;
    switched.map(|t| t.into_inner().access_token)
}

#[track_caller]
fn out<T: std::fmt::Debug>(result: Result<T, Status>) {
    refused(result, Code::Unauthenticated, "TOKEN_INVALID");
}

// proves TEN-7, ATK-12, ROL-10, COM-20
#[tokio::test]
async fn everybody_of_a_deleted_tenant_is_out_on_the_next_call_and_back_by_the_mailed_link() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let (ann, admin) = (&contoso.admin, &contoso.admin.caller);
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        let bob = second_admin(&site, &contoso, "bob").await;
        let thief = second_admin(&site, &contoso, "thief").await;
        admin.disable(&thief.name).await.unwrap();
        let app = application(admin, &contoso.name, "App").await;
        let key = admin.key(&app.name).await.unwrap();
        let program = async || sign_in_by_key(&site, &app.client_id, &key.secret).await;
        let program_caller = site.with_token(&program().await.unwrap().access_token);
        guest(&site, &fabrikam, &hal).await;
        let abroad = site.with_token(&switch(&hal.caller, &fabrikam.name).await.unwrap());
        let visitor = guest(&site, &contoso, &fabrikam.admin).await;
        let at_contoso = switch(&fabrikam.admin.caller, &contoso.name).await.unwrap();
        let at_contoso = site.with_token(&at_contoso);
        let tokens = site.tokens(&hal.sign_in_name, PASSWORD).await.unwrap();
        for caller in [&hal.caller, &program_caller, &abroad, &at_contoso] {
            caller.who_am_i().await.unwrap();
        }

        let done = delete(admin, &contoso.name).await.unwrap();
        let gone = &done.resources[0];
        assert_eq!(gone.state, TenantState::Deleted as i32);
        let days = |t: &Tenant| t.purge_time.unwrap().seconds - t.delete_time.unwrap().seconds;
        assert_eq!(days(gone), 30 * DAY_S);
        for caller in [
            admin,
            &bob.caller,
            &hal.caller,
            &program_caller,
            &abroad,
            &at_contoso,
        ] {
            out(caller.who_am_i().await);
        }
        // No way to a token either, and the visitor is still at home at home.
        refused(
            site.tokens(&hal.sign_in_name, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        refused(program().await, Code::Unauthenticated, "SIGN_IN_FAILED");
        out(refresh(&site, &tokens.refresh_token).await);
        fabrikam.admin.caller.who_am_i().await.unwrap();
        refused(
            switch(&fabrikam.admin.caller, &contoso.name).await,
            Code::PermissionDenied,
            "NO_USER_THERE",
        );
        assert_eq!(
            events(&site, "directory.v1.TenantDeleted", &contoso.name).await,
            1
        );

        // The link goes to the global admins who aren't disabled, and to nobody else.
        let token = mailed_token(&site, "ann@contoso.example").await.unwrap();
        assert_eq!(
            mailed_token(&site, "bob@contoso.example").await.as_ref(),
            Some(&token)
        );
        for other in [
            "thief@contoso.example",
            "it@contoso.example",
            "ann@fabrikam.example",
        ] {
            assert_eq!(mailed_token(&site, other).await, None, "{other}");
        }
        let nobody = site.nobody();
        let request = by_token(&token);
        let back = undelete(&nobody, request.clone()).await.unwrap();
        assert_eq!(
            (back.state, back.purge_time),
            (TenantState::Active as i32, None)
        );
        assert_ne!(back.contact_email, "it@contoso.example", "masked");
        // The same call again; another one with the token, which is used up.
        let again_ = nobody.tenants().undelete_tenant(request).await.unwrap();
        assert!(replayed(&again_));
        assert_eq!(again_.into_inner(), back);
        refused(
            undelete(&nobody, by_token(&token)).await,
            Code::PermissionDenied,
            "LINK_INVALID",
        );

        // Everybody is back with what was held; no session is.
        for caller in [admin, &hal.caller, &abroad, &at_contoso] {
            out(caller.who_am_i().await);
        }
        out(refresh(&site, &tokens.refresh_token).await);
        program().await.unwrap();
        let hal_again = again(&site, &hal).await;
        let me = hal_again.who_am_i().await.unwrap();
        assert_eq!(me.directory_roles, [DirectoryRole::HelpdeskAdmin as i32]);
        switch(&hal_again, &fabrikam.name).await.unwrap();
        let admin = again(&site, ann).await;
        admin.user(&visitor).await.unwrap();
        let user = admin.user(&thief.name).await.unwrap();
        assert_eq!(user.state, 2, "disabled as before");
        let second = delete(&admin, &contoso.name).await.unwrap();
        assert_eq!(
            second.losses,
            done.losses
                .map(|l| entente::proto::directory::TenantLosses {
                    session_count: second.losses.unwrap().session_count,
                    ..l
                })
        );
        // A new deletion has a new token.
        refused(
            undelete(&nobody, by_token(&token)).await,
            Code::PermissionDenied,
            "LINK_INVALID",
        );
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves ATK-12, ROL-10, TEN-7
#[tokio::test]
async fn deletion_of_a_tenant_takes_effect_on_every_replica() {
    both(async |site| {
        let Some(url) = &site.url else {
            return;
        };
        let replica = Replica::open(url).await;
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let far = [&contoso.admin.caller, &bob.caller].map(|c| replica.of(c));
        for caller in &far {
            caller.who_am_i().await.unwrap();
        }
        delete(&contoso.admin.caller, &contoso.name).await.unwrap();
        for caller in &far {
            out(caller.who_am_i().await);
        }
        undelete_by_name(&replica.of(&site.operator().await), &contoso.name)
            .await
            .unwrap();
        again(&site, &bob).await.who_am_i().await.unwrap();
    })
    .await;
}

// proves TEN-7, COM-8
#[tokio::test]
async fn deletion_demands_a_fresh_global_admin_and_a_tenant_that_no_account_uses() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        let fabrikam = site.tenant("fabrikam").await;
        let operator = site.operator().await;
        for caller in [&hal.caller, &fabrikam.admin.caller, &operator] {
            refused(
                delete(caller, &contoso.name).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
        let account = site.account(&contoso, "Contoso").await;
        let status = refused(
            delete(admin, &contoso.name).await,
            Code::FailedPrecondition,
            "TENANT_IN_USE",
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["uses"], account);
        let home = operator_tenant(&site).await;
        refused(
            delete(&home.admin.caller, &home.name).await,
            Code::FailedPrecondition,
            "OPERATOR_TENANT",
        );
        let mut stale = deletion(&fabrikam.name);
        stale.etag = "\"77\"".to_owned();
        refused(
            fabrikam.admin.caller.tenants().delete_tenant(stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        site.advance(601).await;
        refused(
            delete(&fabrikam.admin.caller, &fabrikam.name).await,
            Code::FailedPrecondition,
            "RECENT_SIGN_IN_REQUIRED",
        );
        let fresh = again(&site, &fabrikam.admin).await;
        site.settle().await;
        let before = row_counts(&site.app).await;
        let told = DeleteTenantRequest {
            validate_only: true,
            ..deletion(&fabrikam.name)
        };
        let told = fresh.tenants().delete_tenant(told).await.unwrap();
        let losses = told.into_inner().losses.unwrap();
        assert_eq!((losses.user_count, losses.guest_count), (1, 0));
        // One from when the tenant was made, one of now.
        assert_eq!(losses.session_count, 2);
        assert_eq!(row_counts(&site.app).await, before, "nothing is written");
        fresh.who_am_i().await.unwrap();
        delete(&fresh, &fabrikam.name).await.unwrap();
    })
    .await;
}

// proves COM-4, TEN-7
#[tokio::test]
async fn deletion_of_ones_own_tenant_is_replayed_though_it_ended_the_right_to_it() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let request = deletion(&contoso.name);
        let mut tenants = admin.tenants();
        let first = tenants.delete_tenant(request.clone()).await.unwrap();
        assert!(!replayed(&first));
        let second = tenants.delete_tenant(request.clone()).await.unwrap();
        assert!(replayed(&second));
        assert_eq!(first.into_inner(), second.into_inner());
        // Under another ID it is a call of somebody who is out.
        out(delete(admin, &contoso.name).await);
        let other = DeleteTenantRequest {
            etag: "\"1\"".to_owned(),
            ..request
        };
        out(tenants.delete_tenant(other).await);
        assert_eq!(
            events(&site, "directory.v1.TenantDeleted", &contoso.name).await,
            1
        );
    })
    .await;
}

// proves TEN-7, COM-4
#[tokio::test]
async fn operator_undoes_a_deletion_within_its_30_days_and_not_after() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let adatum = site.tenant("adatum").await;
        let operator = site.operator().await;
        let status = refused(
            undelete_by_name(&operator, &contoso.name).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["state"], "ACTIVE");
        delete(&contoso.admin.caller, &contoso.name).await.unwrap();
        delete(&adatum.admin.caller, &adatum.name).await.unwrap();
        let token = mailed_token(&site, "ann@contoso.example").await.unwrap();

        let reviewer = staff(&site, "reviewer", OperatorRole::OperatorReviewer).await;
        let fabrikam = site.tenant("fabrikam").await;
        for caller in [&reviewer.caller, &fabrikam.admin.caller] {
            refused(
                undelete_by_name(caller, &contoso.name).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
        let status = refused(
            undelete(&operator, UndeleteTenantRequest::default()).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["tenant"]);
        refused(
            undelete_by_name(&operator, &format!("tenants/{}", request_id())).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        // What is deleted is shown to those who ask for it.
        assert!(!listed(&operator, false).await.contains(&contoso.name));
        assert!(listed(&operator, true).await.contains(&contoso.name));
        let there = get(&operator, &contoso.name).await.unwrap();
        assert_eq!(there.state, TenantState::Deleted as i32);

        let stale = UndeleteTenantRequest {
            tenant: contoso.name.clone(),
            etag: "\"77\"".to_owned(),
            ..UndeleteTenantRequest::default()
        };
        refused(
            undelete(&operator, stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let request = UndeleteTenantRequest {
            tenant: contoso.name.clone(),
            etag: there.etag,
            request_id: request_id(),
            ..UndeleteTenantRequest::default()
        };
        let back = undelete(&operator, request.clone()).await.unwrap();
        assert_eq!(back.state, TenantState::Active as i32);
        let second = operator.tenants().undelete_tenant(request.clone()).await;
        assert!(replayed(&second.unwrap()));
        // Without a token the caller's own rights are asked, and answers are its own.
        refused(
            undelete(&reviewer.caller, request).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // The token isn't good for anything any more.
        refused(
            undelete(&site.nobody(), by_token(&token)).await,
            Code::PermissionDenied,
            "LINK_INVALID",
        );
        again(&site, &contoso.admin).await.who_am_i().await.unwrap();

        let token = mailed_token(&site, "ann@adatum.example").await.unwrap();
        site.advance(30 * DAY_S + 1).await;
        let operator = site.operator().await;
        refused(
            undelete_by_name(&operator, &adatum.name).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        refused(
            undelete(&site.nobody(), by_token(&token)).await,
            Code::PermissionDenied,
            "LINK_INVALID",
        );
    })
    .await;
}

// proves ATK-1, ATK-2, ATK-3, TEN-7
#[tokio::test]
async fn token_undoes_the_deletion_of_its_own_tenant_only_and_once_of_many_at_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        delete(&contoso.admin.caller, &contoso.name).await.unwrap();
        delete(&fabrikam.admin.caller, &fabrikam.name)
            .await
            .unwrap();
        let token = mailed_token(&site, "ann@contoso.example").await.unwrap();
        let nobody = site.nobody();
        let for_other = UndeleteTenantRequest {
            tenant: fabrikam.name.clone(),
            ..by_token(&token)
        };
        let told = refused(
            undelete(&nobody, for_other).await,
            Code::PermissionDenied,
            "LINK_INVALID",
        );
        for i in [0, 5, token.len() / 2, token.len() - 1] {
            let mut altered = token.clone().into_bytes();
            altered[i] = if altered[i] == b'x' { b'y' } else { b'x' };
            let altered = String::from_utf8(altered).unwrap();
            let status = refused(
                undelete(&nobody, by_token(&altered)).await,
                Code::PermissionDenied,
                "LINK_INVALID",
            );
            assert_eq!(status.details(), told.details(), "one answer for all");
        }
        refused(
            undelete(&nobody, UndeleteTenantRequest::default()).await,
            Code::Unauthenticated,
            "CREDENTIALS_MISSING",
        );
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (nobody, request) = (nobody.clone(), by_token(&token));
            all.spawn(async move { undelete(&nobody, request).await });
        }
        let answers = all.join_all().await;
        assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
        for answer in answers.into_iter().filter(Result::is_err) {
            refused(answer, Code::PermissionDenied, "LINK_INVALID");
        }
        assert_eq!(
            events(&site, "directory.v1.TenantUndeleted", &contoso.name).await,
            1
        );
        let operator = site.operator().await;
        let theirs = get(&operator, &fabrikam.name).await.unwrap();
        assert_eq!(theirs.state, TenantState::Deleted as i32);
    })
    .await;
}

/// Rows that name a tenant, by table; its own row, audit and events apart, and what jobs keep.
async fn left_of(site: &Site, tenant: Uuid) -> Vec<String> {
    let mut left = Vec::new();
    for (table, column) in [
        ("users", "tenant_id"),
        ("sessions", "tenant_id"),
        ("applications", "tenant_id"),
        ("user_groups", "tenant_id"),
        ("grants", "tenant_id"),
        ("grants", "scope_id"),
        ("group_rights", "tenant_id"),
        ("invitations", "tenant_id"),
        ("links", "scope_id"),
        ("directory_syncs", "tenant_id"),
        ("directory_sync_faults", "tenant_id"),
    ] {
        assert!(
            tables(&site.app).await.contains(&table.to_owned()),
            "{table}"
        );
        let sql = format!("SELECT COUNT(*) AS n FROM {table} WHERE {column} = $1");
        if number(site, &sql, [tenant.into()]).await > 0 {
            left.push(format!("{table}.{column}"));
        }
    }
    left
}

/// Fills a tenant with so many users, without credentials.
async fn crowd(site: &Site, tenant: &str, users: usize) {
    for n in 0..users {
        let sql = "INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, \
                   recovery_email, kind, state, create_time, update_time, version) VALUES ($1, $2, $3, $3, 'C', 'D', 'C D', 'c d', '', 1, 1, 1, 1, 1)";
        let user: Uuid = request_id().parse().unwrap();
        let values: [Value; 3] = [user.into(), id(tenant).into(), format!("c{n}").into()];
        change(site, sql, values).await;
    }
}

// proves TEN-7, ATK-11, COM-11
#[tokio::test]
async fn purged_tenant_leaves_its_prefix_and_its_audit_chain_and_nothing_else() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let admin = &contoso.admin.caller;
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        let app = application(admin, &contoso.name, "App").await;
        admin.key(&app.name).await.unwrap();
        guest(&site, &fabrikam, &hal).await;
        switch(&hal.caller, &fabrikam.name).await.unwrap();
        guest(&site, &contoso, &fabrikam.admin).await;
        // More than one step takes.
        crowd(&site, &contoso.name, 620).await;
        let keys = count(&site.app, "SELECT COUNT(*) AS n FROM application_keys").await;
        assert_eq!(keys, 1);
        delete(admin, &contoso.name).await.unwrap();

        site.advance(29 * DAY_S).await;
        site.settle().await;
        assert!(left_of(&site, id(&contoso.name)).await.len() > 4);
        site.advance(DAY_S + 1).await;
        site.settle().await;
        // The server's own scheduler may be at it too.
        eventually(async || left_of(&site, id(&contoso.name)).await.is_empty()).await;
        assert_eq!(count(&site.app, "SELECT COUNT(*) AS n FROM application_keys").await, 0);
        let orphans = "SELECT COUNT(*) AS n FROM credentials WHERE user_id NOT IN (SELECT id FROM users)";
        assert_eq!(count(&site.app, orphans).await, 0);
        // Only what was its own: the guest from there is still a row of its host.
        let sql = "SELECT COUNT(*) AS n FROM users WHERE tenant_id = $1";
        assert_eq!(number(&site, sql, [id(&fabrikam.name).into()]).await, 2);
        let fay = again(&site, &fabrikam.admin).await;
        fay.who_am_i().await.unwrap();

        let operator = site.operator().await;
        refused(get(&operator, &contoso.name).await, Code::NotFound, "RESOURCE_NOT_FOUND");
        assert!(!listed(&operator, true).await.contains(&contoso.name));
        refused(
            undelete_by_name(&operator, &contoso.name).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let names = "SELECT COUNT(*) AS n FROM tenants WHERE domain_prefix = 'contoso' AND display_name = '' AND contact_email = ''";
        assert_eq!(count(&site.app, names).await, 1, "the tombstone says no more than the prefix");
        let status = refused(
            operator.tenants().create_tenant(new_tenant("Contoso")).await,
            Code::AlreadyExists,
            "DOMAIN_TAKEN",
        );
        assert_eq!(fields(&status), ["tenant.domain_prefix"]);
        refused(site.tokens(&hal.sign_in_name, PASSWORD).await, Code::Unauthenticated, "SIGN_IN_FAILED");
        assert_eq!(events(&site, "directory.v1.TenantPurged", &contoso.name).await, 1);
        // The operator reads and verifies its chain as ever.
        let request = VerifyAuditChainRequest {
            parent: contoso.name.clone(),
        };
        let verified = operator.audit().verify_audit_chain(request).await.unwrap();
        assert!(verified.into_inner().findings.is_empty());
        let request = ListAuditEventsRequest {
            parent: contoso.name.clone(),
            page_size: 1_000,
            ..ListAuditEventsRequest::default()
        };
        let told = operator.audit().list_audit_events(request).await.unwrap();
        let actions: Vec<_> = told.into_inner().audit_events.into_iter().map(|e| e.action).collect();
        assert!(actions.contains(&"purge-tenants".to_owned()), "{actions:?}");
        assert!(actions.iter().any(|a| a.ends_with("DeleteTenant")), "{actions:?}");
        chains_are_intact(&site.app).await;
    })
    .await;
}

/// A tenant that nobody signs in to.
async fn unused(site: &Site, prefix: &str) -> Tenant {
    let request = CreateTenantRequest {
        request_id: request_id(),
        ..new_tenant(prefix)
    };
    let made = site.operator().await.tenants().create_tenant(request).await;
    made.unwrap().into_inner().tenant.unwrap()
}

// proves TEN-1
#[tokio::test]
async fn tenant_that_nobody_used_and_no_account_has_is_purged_after_30_days_with_notice() {
    both(async |site| {
        let idle = unused(&site, "idle").await;
        let late = unused(&site, "late").await;
        let made = unused(&site, "having").await;
        let used = site.tenant("used").await;
        // An account has this one, which nobody signs in to.
        let sql = "INSERT INTO associations (account_id, tenant_id, create_time, version) VALUES ($1, $2, 1, 1)";
        let account = site.account(&used, "Used").await;
        change(&site, sql, [id(&account).into(), id(&made.name).into()]).await;
        let told = async |prefix: &str| {
            let to = format!("it@{prefix}.example");
            let letters = letters(&site).await;
            letters.iter().filter(|l| l.to == to).count()
        };

        site.advance(22 * DAY_S).await;
        site.settle().await;
        // When it was made, its contact was told.
        for prefix in ["idle", "late", "having", "used"] {
            assert_eq!(told(prefix).await, 1, "{prefix}");
        }
        site.advance(DAY_S + 60).await;
        site.settle().await;
        for (prefix, letters) in [("idle", 2), ("late", 2), ("having", 1), ("used", 1)] {
            assert_eq!(told(prefix).await, letters, "{prefix}");
        }
        let operator = site.operator().await;
        let announced = get(&operator, &idle.name).await.unwrap();
        assert_eq!(announced.state, TenantState::Active as i32);
        let days = announced.purge_time.unwrap().seconds - idle.create_time.unwrap().seconds;
        assert_eq!(days / DAY_S, 30);
        assert_eq!(events(&site, "directory.v1.TenantPurgeAnnounced", &idle.name).await, 1);

        // Somebody comes, in time: the first password is over by now, so a program of it does.
        let program: Uuid = request_id().parse().unwrap();
        let sql = "INSERT INTO applications (id, tenant_id, display_name, display_name_fold, reply_url, application_id_uri, state, \
                   create_time, update_time, version) VALUES ($1, $2, 'P', 'p', '', '', 1, 1, 1, 1)";
        change(&site, sql, [program.into(), id(&late.name).into()]).await;
        let (secret, hash) = a_key(&site, program).await;
        let sql = "INSERT INTO application_keys (id, application_id, hash, hint, create_time, expire_time, version) VALUES ($1, $2, $3, '', 1, $4, 1)";
        let key: Uuid = request_id().parse().unwrap();
        let far: i64 = 5_000_000_000_000_000;
        change(&site, sql, [key.into(), program.into(), Value::Bytes(Some(hash)), far.into()]).await;
        sign_in_by_key(&site, &program.to_string(), &secret).await.unwrap();
        assert_eq!(get(&operator, &late.name).await.unwrap().purge_time, None);

        site.advance(7 * DAY_S).await;
        site.settle().await;
        let operator = site.operator().await;
        refused(get(&operator, &idle.name).await, Code::NotFound, "RESOURCE_NOT_FOUND");
        assert_eq!(left_of(&site, id(&idle.name)).await, Vec::<String>::new());
        for kept in [&late.name, &made.name, &used.name] {
            let kept = get(&operator, kept).await.unwrap();
            assert_eq!((kept.state, kept.purge_time), (TenantState::Active as i32, None));
        }
        refused(
            operator.tenants().create_tenant(new_tenant("idle")).await,
            Code::AlreadyExists,
            "DOMAIN_TAKEN",
        );
        // Once the account is gone, the other one has its notice first.
        assert_eq!(execute(&site.app, "DELETE FROM associations WHERE create_time = 1").await.unwrap(), 1);
        site.advance(3_601).await;
        site.settle().await;
        assert_eq!(told("having").await, 2);
        get(&site.operator().await, &made.name).await.unwrap();
        chains_are_intact(&site.app).await;
    })
    .await;
}

/// A key of an application of ours, made by another one, and what is stored of it.
async fn a_key(site: &Site, program: Uuid) -> (String, Vec<u8>) {
    let home = operator_tenant(site).await;
    let app = application(&home.admin.caller, &home.name, "Maker").await;
    let made = home.admin.caller.key(&app.name).await.unwrap();
    let parts: [&[u8]; 3] = [
        b"application key",
        program.as_bytes(),
        made.secret.as_bytes(),
    ];
    let hash = site.app.keys.mac(entente::keys::Purpose::Secret, &parts);
    (made.secret, hash.to_vec())
}

// proves TEN-1
#[tokio::test]
async fn first_use_is_noted_once_whoever_signs_in() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let sql = "SELECT COALESCE(first_use_time, 0) AS n FROM tenants WHERE id = $1";
        let noted = async || number(&site, sql, [id(&contoso.name).into()]).await;
        let first = noted().await;
        assert!(first > 0);
        site.advance(60).await;
        again(&site, &contoso.admin).await;
        assert_eq!(noted().await, first);
        // A guest of it who comes over from home uses it too.
        let host = unused(&site, "host").await;
        let host = TenantSite {
            name: host.name,
            admin: contoso.admin.clone(),
        };
        guest(&site, &host, &contoso.admin).await;
        let ann = again(&site, &contoso.admin).await;
        switch(&ann, &host.name).await.unwrap();
        assert!(number(&site, sql, [id(&host.name).into()]).await > 0);
    })
    .await;
}

// proves ROL-9, TEN-7
#[tokio::test]
async fn accounts_that_lose_their_last_manager_by_it_are_told() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&fabrikam, "Fabrikam").await;
        let visitor = guest(&site, &fabrikam, &contoso.admin).await;
        let sql = "UPDATE grants SET principal_id = $1 WHERE scope_id = $2";
        change(&site, sql, [id(&visitor).into(), id(&account).into()]).await;
        let at = site.with_token(&switch(&contoso.admin.caller, &fabrikam.name).await.unwrap());
        let me = at.who_am_i().await.unwrap();
        let held = &me.accounts[0].rights.as_ref().unwrap().roles;
        assert!(held.contains(&(AccountRole::Manager as i32)));
        // However much else it holds that no account can lose its last of, and is found before.
        let account_of = numbered_id(&site, "n.n");
        let sql = format!(
            "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
             display_name_fold, create_time, update_time, version) \
             WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n.n + 1 FROM n WHERE n.n < 10001) \
             SELECT 2, {account_of}, g.principal_id, 1, g.tenant_id, 4, '', '', '', 1, 1, 1 FROM n, grants g \
             WHERE g.scope_kind = 2 AND (g.roles & 2) <> 0"
        );
        execute_on(&site, &sql).await;

        let done = delete(&contoso.admin.caller, &contoso.name).await.unwrap();
        assert_eq!(done.losses.unwrap().guest_elsewhere_count, 1);
        assert_eq!(
            events(&site, "account.v1.AccountWithoutManager", &account).await,
            1
        );
        out(at.who_am_i().await);
    })
    .await;
}

// proves TEN-7
#[tokio::test]
async fn nothing_new_is_tied_to_a_deleted_tenant() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        delete(&contoso.admin.caller, &contoso.name).await.unwrap();
        let request = entente::proto::account::ImportAccountRequest {
            account: Some(entente::proto::account::Account {
                publisher_display_name: "Contoso".to_owned(),
                legal_name: "Contoso Ltd".to_owned(),
                country_code: "FR".to_owned(),
                ..Default::default()
            }),
            tenant: contoso.name.clone(),
            first_manager: contoso.admin.name.clone(),
            ..Default::default()
        };
        let operator = site.operator().await;
        refused(
            operator.accounts().import_account(request).await,
            Code::FailedPrecondition,
            "NOT_IN_ASSOCIATED_TENANT",
        );
        let sql = Statement::from_string(site.app.db.backend, "SELECT 1 AS one FROM associations");
        assert!(site.app.db.read.query_one_raw(sql).await.unwrap().is_none());
    })
    .await;
}
