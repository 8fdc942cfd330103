//! Changing applications, what that demands of the caller, and what a local directory owns (APP-2, APP-4, APP-5, ROL-7, TEN-5).

use entente::proto::{
    access::AccountRole,
    account::ListMembersRequest,
    directory::{Application, CreateApplicationRequest, UpdateApplicationRequest},
    operator::{AssignOperatorRolesRequest, OperatorRole},
};
use tonic::Code;

use super::{
    create, delete, delete_key, deletion, get, key_until, keys, make_agent, member_app, now_s,
    only, update,
};
use crate::{
    harness::{both, fields, membership, refused, request_id},
    people::{
        People as _, Service, application, change, events, id, mask, operator_tenant, second_admin,
    },
};

// proves APP-2, COM-5, COM-8
#[tokio::test]
async fn update_changes_what_the_mask_names_and_shows_everywhere() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let old = member_app(admin, &contoso.name, &account, AccountRole::Developer).await;
        let full = Application {
            display_name: "Feed".to_owned(),
            reply_url: "https://feed.example/cb".to_owned(),
            application_id_uri: "api://feed".to_owned(),
            // What isn't in the mask is left as it is.
            ..only(&old.name)
        };
        let named = update(admin, full.clone(), &["display_name"])
            .await
            .unwrap();
        assert_eq!(
            (named.display_name.as_str(), named.reply_url.as_str()),
            ("Feed", "")
        );
        assert_ne!(named.etag, old.etag);
        // Without a mask: all that is set.
        let all = Application {
            display_name: String::new(),
            ..full.clone()
        };
        let all = update(admin, all, &[]).await.unwrap();
        assert_eq!(all.display_name, "Feed");
        assert_eq!(all.reply_url, "https://feed.example/cb");
        assert_eq!(all.application_id_uri, "api://feed");
        assert_eq!(get(admin, &old.name).await.unwrap(), all);
        // A mask can empty what isn't required.
        let emptied = update(admin, only(&old.name), &["reply_url"])
            .await
            .unwrap();
        assert_eq!(emptied.reply_url, "");
        let status = refused(
            update(admin, only(&old.name), &["display_name"]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["application.display_name"]);
        for fixed in [
            "name",
            "tenant_id",
            "client_id",
            "create_time",
            "update_time",
            "etag",
            "synchronized",
            "secret",
        ] {
            let status = refused(
                update(admin, full.clone(), &["display_name", fixed]).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["update_mask"], "{fixed}");
        }
        let mut stale = UpdateApplicationRequest {
            application: Some(full),
            update_mask: Some(mask(&["reply_url"])),
            etag: old.etag,
            request_id: request_id(),
            validate_only: false,
        };
        let answer = admin.applications().update_application(stale.clone()).await;
        refused(answer, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(get(admin, &old.name).await.unwrap(), emptied);
        stale.etag = emptied.etag.clone();
        stale.validate_only = true;
        let checked = admin.applications().update_application(stale).await;
        assert_eq!(
            checked.unwrap().into_inner().reply_url,
            "https://feed.example/cb"
        );
        assert_eq!(get(admin, &old.name).await.unwrap(), emptied);
        assert_eq!(
            events(&site, "directory.v1.ApplicationUpdated", &old.name).await,
            3
        );
        // The account lists it under its new name.
        let members = ListMembersRequest {
            parent: account,
            filter: "display_name = \"feed\"".to_owned(),
            order_by: "display_name".to_owned(),
            ..ListMembersRequest::default()
        };
        let members = admin.members().list_members(members).await.unwrap();
        assert_eq!(members.into_inner().members[0].principal, old.name);
    })
    .await;
}

// proves APP-2
#[tokio::test]
async fn updated_uris_stay_harmless_and_unique() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let (url, uri) = ("https://a.example/cb", "api://a");
        create(admin, &contoso.name, url, uri).await.unwrap();
        let other = create(admin, &contoso.name, "https://b.example/", "api://b")
            .await
            .unwrap();
        for (url, uri, field) in [(url, "", "reply_url"), ("", uri, "application_id_uri")] {
            let new = Application {
                reply_url: url.to_owned(),
                application_id_uri: uri.to_owned(),
                ..only(&other.name)
            };
            let status = refused(
                update(admin, new, &[field]).await,
                Code::AlreadyExists,
                "URI_TAKEN",
            );
            assert_eq!(fields(&status), [format!("application.{field}")]);
        }
        for bad in ["javascript:alert(1)", "http://a.example/", "relative"] {
            let new = Application {
                reply_url: bad.to_owned(),
                ..only(&other.name)
            };
            let status = refused(
                update(admin, new, &["reply_url"]).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["application.reply_url"], "{bad}");
        }
        // Its own are no others'.
        let same = update(admin, other.clone(), &["*"]).await.unwrap();
        assert_eq!(same.reply_url, other.reply_url);
    })
    .await;
}

// proves APP-4, APP-5, ROL-7, ATK-8
#[tokio::test]
async fn who_holds_less_than_an_application_can_neither_become_nor_change_nor_delete_it() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin.caller;
        let app = member_app(ann, &contoso.name, &account, AccountRole::Manager).await;
        let key = ann.key(&app.name).await.unwrap().key.unwrap();
        // A global admin of the same tenant who holds nothing on the account.
        let carol = &second_admin(&site, &contoso, "carol").await.caller;
        let plain = application(carol, &contoso.name, "Plain").await;
        let moved = Application {
            reply_url: "https://thief.example/".to_owned(),
            ..only(&app.name)
        };
        let lacks = (Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
        refused(carol.key(&app.name).await, lacks.0, lacks.1);
        refused(update(carol, moved.clone(), &[]).await, lacks.0, lacks.1);
        let both = [plain.name.as_str(), &app.name];
        let status = refused(delete(carol, &contoso.name, &both).await, lacks.0, lacks.1);
        assert!(format!("{status:?}").contains(&account), "it says where");
        assert_eq!(get(ann, &app.name).await.unwrap(), app);
        assert_eq!(keys(ann, &app.name).await.len(), 1);
        // What holds nothing is hers like anybody's; and a leaked key she can stop.
        carol.key(&plain.name).await.unwrap();
        let renamed = Application {
            display_name: "Plainer".to_owned(),
            ..only(&plain.name)
        };
        update(carol, renamed, &[]).await.unwrap();
        delete(carol, &contoso.name, &[&plain.name]).await.unwrap();
        delete_key(carol, &key.name, "").await.unwrap();
        // From another tenant's rights nothing at all.
        let eve = &fabrikam.admin.caller;
        let none = (Code::PermissionDenied, "PERMISSION_MISSING");
        refused(eve.key(&app.name).await, none.0, none.1);
        refused(update(eve, moved.clone(), &[]).await, none.0, none.1);
        let names = [app.name.as_str()];
        refused(delete(eve, &contoso.name, &names).await, none.0, none.1);
        let status = refused(
            delete(eve, &fabrikam.name, &names).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["names"]);
        // Who holds it all may.
        update(ann, moved, &[]).await.unwrap();
        delete(ann, &contoso.name, &names).await.unwrap();
    })
    .await;
}

// proves APP-4, ROL-7, ROL-12, ATK-17
#[tokio::test]
async fn internal_services_are_kept_by_those_who_manage_staff() {
    both(async |site| {
        let service = Service::open(&site).await;
        let home = operator_tenant(&site).await;
        let carol = &second_admin(&site, &home, "carol").await.caller;
        let renamed = Application {
            display_name: "Shop".to_owned(),
            ..only(&service.name)
        };
        let names = [service.name.as_str()];
        let none = (Code::PermissionDenied, "PERMISSION_MISSING");
        refused(carol.key(&service.name).await, none.0, none.1);
        refused(update(carol, renamed.clone(), &[]).await, none.0, none.1);
        refused(delete(carol, &home.name, &names).await, none.0, none.1);
        let admin = &home.admin.caller;
        admin.key(&service.name).await.unwrap();
        assert_eq!(keys(admin, &service.name).await.len(), 2);
        update(admin, renamed, &[]).await.unwrap();
        let caller = service.caller(&site).await;
        let for_ann = site.on_behalf(&caller, admin);
        for_ann.who_am_i().await.unwrap();
        delete(admin, &home.name, &names).await.unwrap();
        for caller in [&caller, &for_ann] {
            let answer = caller.who_am_i().await;
            refused(answer, Code::Unauthenticated, "TOKEN_INVALID");
        }
        // The operator's own chain tells that a service is gone.
        let sql =
            "SELECT COUNT(*) AS n FROM outbox WHERE scope_kind = 0 AND type = $1 AND resource = $2";
        let kind = "entente.directory.v1.ApplicationDeleted";
        let told = crate::people::number(&site, sql, [kind.into(), service.name.into()]).await;
        assert_eq!(told, 1);
    })
    .await;
}

// proves APP-4, ROL-7, TEN-5
#[tokio::test]
async fn keys_of_the_synchronisation_agent_are_made_by_those_who_manage_synchronisation() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let agent = application(admin, &contoso.name, "Agent").await;
        let plain = application(admin, &contoso.name, "Plain").await;
        make_agent(&site, &agent.name).await;
        // Acting for the admin within a ceiling that has applications, but not the synchronisation.
        let service = Service::open(&site).await;
        let request = AssignOperatorRolesRequest {
            principal: service.name.clone(),
            roles: vec![OperatorRole::OperatorService as i32],
            on_behalf_ceiling: vec!["applications.manage".to_owned()],
            ..AssignOperatorRolesRequest::default()
        };
        let staff = site.operator().await;
        staff.staff().assign_operator_roles(request).await.unwrap();
        let portal = service.caller(&site).await;
        let narrow = site.on_behalf(&portal, admin);
        narrow.key(&plain.name).await.unwrap();
        let none = (Code::PermissionDenied, "PERMISSION_MISSING");
        let status = refused(narrow.key(&agent.name).await, none.0, none.1);
        assert!(format!("{status:?}").contains("sync.manage"));
        let names = [agent.name.as_str()];
        refused(delete(&narrow, &contoso.name, &names).await, none.0, none.1);
        // Nobody but the agent holds directory.sync; its admin manages it all the same.
        admin.key(&agent.name).await.unwrap();
        delete(admin, &contoso.name, &names).await.unwrap();
        let sql = "SELECT COUNT(*) AS n FROM tenants WHERE sync_agent_id IS NOT NULL";
        assert_eq!(crate::people::number(&site, sql, []).await, 0);
    })
    .await;
}

// proves TEN-5
#[tokio::test]
async fn what_the_local_directory_owns_is_made_changed_and_deleted_there() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let here = application(admin, &contoso.name, "Here").await;
        let there = application(admin, &contoso.name, "There").await;
        let tenant = id(&contoso.name);
        let sql = "UPDATE tenants SET synchronized = true WHERE id = $1";
        change(&site, sql, [tenant.into()]).await;
        let sql = "UPDATE applications SET external_id = 'cn=there' WHERE id = $1";
        change(&site, sql, [id(&there.name).into()]).await;

        let owned = (Code::FailedPrecondition, "DIRECTORY_SYNCHRONIZED");
        let made = create(admin, &contoso.name, "", "").await;
        refused(made, owned.0, owned.1);
        assert!(get(admin, &there.name).await.unwrap().synchronized);
        let renamed = |name: &str| Application {
            display_name: "New".to_owned(),
            ..only(name)
        };
        refused(
            update(admin, renamed(&there.name), &[]).await,
            owned.0,
            owned.1,
        );
        let names = [here.name.as_str(), &there.name];
        refused(delete(admin, &contoso.name, &names).await, owned.0, owned.1);
        let mut checked = deletion(&contoso.name, &names);
        checked.validate_only = true;
        let checked = admin.applications().delete_applications(checked).await;
        refused(checked, owned.0, owned.1);
        // Its keys are this service's, and so are memberships; what was made here stays as free as it was.
        admin.key(&there.name).await.unwrap();
        let request = entente::proto::account::AddMembersRequest {
            parent: account,
            principals: vec![there.name.clone()],
            ..Default::default()
        };
        admin.members().add_members(request).await.unwrap();
        update(admin, renamed(&here.name), &[]).await.unwrap();
        delete(admin, &contoso.name, &[&here.name]).await.unwrap();
        assert_eq!(get(admin, &there.name).await.unwrap().display_name, "There");
    })
    .await;
}

// proves APP-2, ROL-7
#[tokio::test]
async fn memberships_of_a_new_application_are_given_all_or_none() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let second = site.account(&contoso, "Second").await;
        let fabrikam = site.tenant("fabrikam").await;
        let theirs = site.account(&fabrikam, "Fabrikam").await;
        let admin = &contoso.admin.caller;
        let request = |accounts: &[&str]| CreateApplicationRequest {
            parent: contoso.name.clone(),
            application: Some(Application {
                display_name: "Feed".to_owned(),
                ..Application::default()
            }),
            memberships: accounts
                .iter()
                .map(|a| membership(a, &[AccountRole::Developer]))
                .collect(),
            ..CreateApplicationRequest::default()
        };
        let make = async |accounts: &[&str]| {
            let mut applications = admin.applications();
            applications.create_application(request(accounts)).await
        };
        let status = refused(
            make(&[&account, &second, &account]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["memberships[2].account"]);
        // On an account where the caller holds nothing, nothing is made anywhere.
        refused(
            make(&[&account, &theirs]).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let apps = "SELECT COUNT(*) AS n FROM applications";
        assert_eq!(crate::people::number(&site, apps, []).await, 0);
        let made = make(&[&account, &second]).await.unwrap().into_inner();
        for account in [&account, &second] {
            let member = format!("{account}/members/{}", made.client_id);
            assert_eq!(events(&site, "account.v1.MemberAdded", &member).await, 1);
        }
        // A key for it lives as long as was asked for, and no longer.
        let end = now_s(&site).await + 3 * 24 * 3_600;
        let key = key_until(admin, &made.name, end)
            .await
            .unwrap()
            .key
            .unwrap();
        assert_eq!(key.expire_time.unwrap().seconds, end);
    })
    .await;
}
