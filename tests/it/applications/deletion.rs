//! Deleting applications: what goes, what can't come back, and who gets no token any more (APP-5, ATK-11, ATK-12, ATK-17).

use entente::proto::{
    access::AccountRole,
    account::{GetAccountRequest, GetMemberRequest, ListMembersRequest},
    directory::{
        Application, CreateApplicationRequest, ListApplicationsRequest, SwitchTenantRequest,
    },
};
use sea_orm::Value;
use tonic::{Code, Response, Status};

use super::{create, delete, delete_key, deletion, get, key_until, member_app, now_s};
use crate::{
    attacks::replica,
    claims::{chains_are_intact, replayed},
    harness::{Caller, Site, TenantSite, both, fields, membership, refused, request_id},
    people::{People as _, application, change, events, id, number, sign_in_by_key},
};

const DAY: i64 = 24 * 3_600;

/// A program, signed in, with what it signs in with.
struct Program {
    app: Application,
    key: String,
    secret: String,
    caller: Caller,
}

async fn program(site: &Site, admin: &Caller, app: Application) -> Program {
    let made = admin.key(&app.name).await.unwrap();
    let tokens = sign_in_by_key(site, &app.client_id, &made.secret).await;
    Program {
        app,
        key: made.key.unwrap().name,
        secret: made.secret,
        caller: site.with_token(&tokens.unwrap().access_token),
    }
}

async fn applications(caller: &Caller, tenant: &str) -> Vec<Application> {
    let request = ListApplicationsRequest {
        parent: tenant.to_owned(),
        page_size: 1_000,
        ..ListApplicationsRequest::default()
    };
    let listed = caller.applications().list_applications(request).await;
    listed.unwrap().into_inner().applications
}

// proves APP-5, ATK-12, COM-8, COM-4, ROL-10
#[tokio::test]
async fn deleted_application_is_gone_everywhere_and_its_tokens_end_on_every_replica() {
    both(async |site| {
        let (channel, _folder) = replica(&site).await;
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let second = site.account(&contoso, "Second").await;
        let admin = &contoso.admin.caller;
        let request = CreateApplicationRequest {
            parent: contoso.name.clone(),
            application: Some(Application {
                display_name: "Feed".to_owned(),
                ..Application::default()
            }),
            memberships: vec![
                membership(&account, &[AccountRole::Developer]),
                membership(&second, &[]),
            ],
            ..CreateApplicationRequest::default()
        };
        let made = admin.applications().create_application(request).await;
        let feed = program(&site, admin, made.unwrap().into_inner()).await;
        let spare = application(admin, &contoso.name, "Spare").await;
        key_until(admin, &feed.app.name, now_s(&site).await + 2 * DAY)
            .await
            .unwrap();
        let far = Caller {
            channel,
            ..feed.caller.clone()
        };
        let look = GetAccountRequest {
            name: account.clone(),
        };
        far.accounts().get_account(look.clone()).await.unwrap();

        // First only what would be lost.
        let request = deletion(&contoso.name, &[&spare.name, &feed.app.name]);
        let mut checked = request.clone();
        checked.validate_only = true;
        let checked = admin.applications().delete_applications(checked).await;
        let checked = checked.unwrap().into_inner();
        far.accounts().get_account(look.clone()).await.unwrap();
        assert_eq!(applications(admin, &contoso.name).await.len(), 2);

        let done = admin
            .applications()
            .delete_applications(request.clone())
            .await;
        let done = done.unwrap().into_inner();
        assert_eq!(done, checked);
        let names: Vec<_> = done.resources.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, [&spare.name, &feed.app.name]);
        let losses = done.losses.clone().unwrap();
        assert_eq!((losses.key_count, losses.session_count), (2, 0));
        let member = |account: &str| format!("{account}/members/{}", feed.app.client_id);
        let mut lost: Vec<_> = losses
            .memberships
            .iter()
            .map(|m| (m.member.clone(), m.rights.clone().unwrap().roles))
            .collect();
        lost.sort();
        let mut all = vec![
            (member(&account), vec![AccountRole::Developer as i32]),
            (member(&second), vec![]),
        ];
        all.sort();
        assert_eq!(lost, all);

        // The next call, there and here.
        for caller in [&far, &feed.caller] {
            let answer = caller.accounts().get_account(look.clone()).await;
            refused(answer, Code::Unauthenticated, "TOKEN_INVALID");
        }
        let again = sign_in_by_key(&site, &feed.app.client_id, &feed.secret).await;
        refused(again, Code::Unauthenticated, "SIGN_IN_FAILED");
        assert_eq!(applications(admin, &contoso.name).await, []);
        let gone = (Code::NotFound, "RESOURCE_NOT_FOUND");
        refused(get(admin, &feed.app.name).await, gone.0, gone.1);
        refused(admin.key(&feed.app.name).await, gone.0, gone.1);
        for account in [&account, &second] {
            let name = member(account);
            assert_eq!(events(&site, "account.v1.MemberRemoved", &name).await, 1);
            let request = GetMemberRequest { name };
            refused(admin.members().get_member(request).await, gone.0, gone.1);
        }
        let kind = "directory.v1.ApplicationDeleted";
        assert_eq!(events(&site, kind, &feed.app.name).await, 1);
        for table in ["application_keys", "applications"] {
            let sql = format!("SELECT COUNT(*) AS n FROM {table}");
            assert_eq!(number(&site, &sql, []).await, 0, "{table}");
        }
        // A repetition gets the first answer.
        let replay = admin
            .applications()
            .delete_applications(request)
            .await
            .unwrap();
        assert!(replayed(&replay));
        assert_eq!(replay.into_inner(), done);
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves APP-5
#[tokio::test]
async fn up_to_a_hundred_are_deleted_all_or_none() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let admin = &contoso.admin.caller;
        let mut names = Vec::new();
        for _ in 0..101 {
            names.push(create(admin, &contoso.name, "", "").await.unwrap().name);
        }
        let theirs = application(&fabrikam.admin.caller, &fabrikam.name, "Theirs").await;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let nobody = format!("{}/applications/{}", contoso.name, request_id());
        let bad = (Code::InvalidArgument, "INVALID_FIELDS");
        for (list, (code, reason), field) in [
            (&names[..], bad, "names"),
            (&[], bad, "names"),
            (&[names[0], names[1], names[0]], bad, "names[2]"),
            (&[names[0], &theirs.name], bad, "names"),
            (
                &[names[0], &nobody],
                (Code::NotFound, "RESOURCE_NOT_FOUND"),
                "",
            ),
        ] {
            let status = refused(delete(admin, &contoso.name, list).await, code, reason);
            if !field.is_empty() {
                assert_eq!(fields(&status), [field]);
            }
        }
        assert_eq!(applications(admin, &contoso.name).await.len(), 101);
        let done = delete(admin, &contoso.name, &names[..100]).await.unwrap();
        assert_eq!(done.resources.len(), 100);
        assert_eq!(applications(admin, &contoso.name).await[0].name, names[100]);
    })
    .await;
}

// proves APP-5, ROL-9
#[tokio::test]
async fn applications_of_many_accounts_are_deleted_in_one_call() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let mut accounts = Vec::new();
        for n in 0..6 {
            accounts.push(site.account(&contoso, &format!("Company {n}")).await);
        }
        // Each in an account that comes before the one of the application named before it: all are locked in one order all the same.
        let mut names = Vec::new();
        for account in accounts.iter().rev() {
            for _ in 0..3 {
                let app = member_app(admin, &contoso.name, account, AccountRole::Manager).await;
                names.push(app.name);
            }
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // No application is an account's last manager, since only people count.
        let done = delete(admin, &contoso.name, &names).await.unwrap();
        assert_eq!(done.losses.unwrap().memberships.len(), 18);
        for account in accounts {
            let request = ListMembersRequest {
                parent: account,
                ..ListMembersRequest::default()
            };
            let left = admin.members().list_members(request).await.unwrap();
            assert_eq!(left.into_inner().members.len(), 1);
        }
    })
    .await;
}

// proves ATK-11, APP-5
#[tokio::test]
async fn application_made_again_under_the_same_names_inherits_nothing() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let same = |memberships| CreateApplicationRequest {
            parent: contoso.name.clone(),
            application: Some(Application {
                display_name: "Feed".to_owned(),
                reply_url: "https://feed.example/cb".to_owned(),
                application_id_uri: "api://feed".to_owned(),
                ..Application::default()
            }),
            memberships,
            ..CreateApplicationRequest::default()
        };
        let make = async |memberships| {
            let made = admin
                .applications()
                .create_application(same(memberships))
                .await;
            made.unwrap().into_inner()
        };
        let first = make(vec![membership(&account, &[AccountRole::Manager])]).await;
        let old = program(&site, admin, first).await;
        delete(admin, &contoso.name, &[&old.app.name])
            .await
            .unwrap();
        // Its URIs are free again.
        let heir = make(Vec::new()).await;
        assert_ne!(heir.client_id, old.app.client_id);
        for client_id in [&heir.client_id, &old.app.client_id] {
            let status = sign_in_by_key(&site, client_id, &old.secret).await;
            refused(status, Code::Unauthenticated, "SIGN_IN_FAILED");
        }
        refused(
            old.caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        assert!(super::keys(admin, &heir.name).await.is_empty());
        let heir = program(&site, admin, heir).await;
        assert!(heir.caller.who_am_i().await.unwrap().accounts.is_empty());
        let request = GetAccountRequest { name: account };
        let seen = heir.caller.accounts().get_account(request).await;
        refused(seen, Code::PermissionDenied, "PERMISSION_MISSING");
    })
    .await;
}

/// A way by which a program is shut out.
async fn shut_out(site: &Site, admin: &Caller, contoso: &TenantSite, p: &Program, way: &str) {
    let set = async |sql: &str, of: &str| {
        let values: [Value; 1] = [id(of).into()];
        change(site, sql, values).await;
    };
    match way {
        "deleted" => drop(delete(admin, &contoso.name, &[&p.app.name]).await.unwrap()),
        "key deleted" => delete_key(admin, &p.key, "").await.unwrap(),
        "key expired" => {
            let sql = "UPDATE application_keys SET expire_time = create_time + 1 WHERE id = $1";
            set(sql, &p.key).await;
        }
        "disabled" => {
            set(
                "UPDATE applications SET state = 2 WHERE id = $1",
                &p.app.name,
            )
            .await
        }
        "tenant deleted" => set("UPDATE tenants SET state = 2 WHERE id = $1", &contoso.name).await,
        other => panic!("{other}"),
    }
}

// proves ATK-17, APP-4, APP-5
#[tokio::test]
async fn shut_out_applications_get_a_token_by_no_path() {
    both(async |site| {
        for way in [
            "deleted",
            "key deleted",
            "key expired",
            "disabled",
            "tenant deleted",
        ] {
            let contoso = site.tenant(&way.replace(' ', "-")).await;
            let admin = &contoso.admin.caller;
            let app = application(admin, &contoso.name, "Feed").await;
            let feed = program(&site, admin, app).await;
            feed.caller.who_am_i().await.unwrap();
            shut_out(&site, admin, &contoso, &feed, way).await;
            let signed_in = sign_in_by_key(&site, &feed.app.client_id, &feed.secret).await;
            refused(signed_in, Code::Unauthenticated, "SIGN_IN_FAILED");
            let dead = (Code::Unauthenticated, "TOKEN_INVALID");
            refused(feed.caller.who_am_i().await, dead.0, dead.1);
            for tenant in ["", &contoso.name] {
                let request = SwitchTenantRequest {
                    tenant: tenant.to_owned(),
                    ..SwitchTenantRequest::default()
                };
                let switched: Result<_, Status> =
                    feed.caller.sessions().switch_tenant(request).await;
                refused(switched.map(Response::into_inner), dead.0, dead.1);
            }
        }
    })
    .await;
}
