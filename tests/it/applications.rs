//! ApplicationService: programs, their URIs and keys (APP-2, APP-3, APP-4, ROL-7, ATK-8).

mod changes;
mod deletion;
mod expiry;
mod keys;

use entente::proto::{
    access::{AccountRole, Rights, TestMyPermissionsRequest},
    account::{AddMembersRequest, ListMembersRequest},
    directory::{
        Application, CreateApplicationRequest, CreateKeyRequest, CreateKeyResponse,
        DeleteApplicationsRequest, DeleteApplicationsResponse, DeleteKeyRequest, DirectoryRole,
        GetApplicationRequest, Key, ListApplicationsRequest, ListKeysRequest,
        UpdateApplicationRequest,
    },
};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::{
    harness::{Caller, Database, Site, both, fields, membership, psql, refused, request_id},
    people::{People as _, again, application, change, events, id, person_as, sign_in_by_key},
};

const DAY: i64 = 24 * 3_600;

async fn create(
    caller: &Caller,
    tenant: &str,
    reply_url: &str,
    uri: &str,
) -> Result<Application, Status> {
    let request = CreateApplicationRequest {
        parent: tenant.to_owned(),
        application: Some(Application {
            display_name: "Portal".to_owned(),
            reply_url: reply_url.to_owned(),
            application_id_uri: uri.to_owned(),
            ..Application::default()
        }),
        ..CreateApplicationRequest::default()
    };
    let made = caller.applications().create_application(request).await;
    made.map(Response::into_inner)
}

async fn keys(caller: &Caller, application: &str) -> Vec<Key> {
    let request = ListKeysRequest {
        parent: application.to_owned(),
        ..ListKeysRequest::default()
    };
    let listed = caller.applications().list_keys(request).await.unwrap();
    listed.into_inner().keys
}

pub async fn key_until(
    caller: &Caller,
    application: &str,
    seconds: i64,
) -> Result<CreateKeyResponse, Status> {
    let request = CreateKeyRequest {
        parent: application.to_owned(),
        key: Some(Key {
            expire_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..Key::default()
        }),
        ..CreateKeyRequest::default()
    };
    let made = caller.applications().create_key(request).await;
    made.map(Response::into_inner)
}

async fn delete_key(caller: &Caller, name: &str, etag: &str) -> Result<(), Status> {
    let request = DeleteKeyRequest {
        name: name.to_owned(),
        etag: etag.to_owned(),
        ..DeleteKeyRequest::default()
    };
    caller.applications().delete_key(request).await.map(drop)
}

/// Changes an application as the mask says; all that is set without one.
async fn update(
    caller: &Caller,
    application: Application,
    mask: &[&str],
) -> Result<Application, Status> {
    let request = UpdateApplicationRequest {
        application: Some(application),
        update_mask: (!mask.is_empty()).then(|| crate::people::mask(mask)),
        ..UpdateApplicationRequest::default()
    };
    let changed = caller.applications().update_application(request).await;
    changed.map(Response::into_inner)
}

/// An application of which only the name is set.
fn only(name: &str) -> Application {
    Application {
        name: name.to_owned(),
        ..Application::default()
    }
}

/// The request that deletes applications of a tenant.
fn deletion(tenant: &str, names: &[&str]) -> DeleteApplicationsRequest {
    DeleteApplicationsRequest {
        parent: tenant.to_owned(),
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        request_id: request_id(),
        validate_only: false,
    }
}

async fn delete(
    caller: &Caller,
    tenant: &str,
    names: &[&str],
) -> Result<DeleteApplicationsResponse, Status> {
    let request = deletion(tenant, names);
    let done = caller.applications().delete_applications(request).await;
    done.map(Response::into_inner)
}

async fn get(caller: &Caller, name: &str) -> Result<Application, Status> {
    let name = name.to_owned();
    let request = GetApplicationRequest { name };
    let got = caller.applications().get_application(request).await;
    got.map(Response::into_inner)
}

/// Lets an application stream a tenant's local directory.
pub(crate) async fn make_agent(site: &Site, application: &str) {
    let tenant = application.split('/').nth(1).unwrap();
    let tenant: Uuid = tenant.parse().unwrap();
    let sql = "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
               display_name_fold, create_time, update_time, version) VALUES (1, $1, $2, 2, $1, 0, 'directory.sync', '', '', 0, 0, 1)";
    change(site, sql, [tenant.into(), id(application).into()]).await;
    let sql = "UPDATE tenants SET sync_agent_id = $1 WHERE id = $2";
    change(site, sql, [id(application).into(), tenant.into()]).await;
}

/// An application that is a member of an account with a role.
async fn member_app(
    caller: &Caller,
    tenant: &str,
    account: &str,
    role: AccountRole,
) -> Application {
    let request = CreateApplicationRequest {
        parent: tenant.to_owned(),
        application: Some(Application {
            display_name: "Agent".to_owned(),
            ..Application::default()
        }),
        memberships: vec![membership(account, &[role])],
        ..CreateApplicationRequest::default()
    };
    let made = caller.applications().create_application(request).await;
    made.unwrap().into_inner()
}

pub async fn now_s(site: &Site) -> i64 {
    site.app.now().await.unwrap() / 1_000_000
}

// proves APP-2
#[tokio::test]
async fn uris_are_absolute_harmless_and_short() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let long = format!("https://a.example/{}", "x".repeat(239));
        for bad in [
            "http://a.example/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "/relative",
            "a.example/cb",
            "https://user:word@a.example/",
            " https://a.example/cb",
            "https:a.example/cb",
            "https:///a.example/cb",
            "https://a.example\\@b.example/cb",
            "https://\u{e9}.example/cb",
            &long,
        ] {
            let status = refused(
                create(admin, &contoso.name, bad, "").await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["application.reply_url"], "{bad}");
        }
        for bad in ["javascript:1", "data:,x", "file:///x", "relative", &long] {
            let status = refused(
                create(admin, &contoso.name, "", bad).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["application.application_id_uri"], "{bad}");
        }
        let most = &long[..256];
        for good in [
            most,
            "http://localhost:8080/cb",
            "http://127.0.0.1/cb",
            "http://[::1]:9/cb",
            "",
            "",
        ] {
            create(admin, &contoso.name, good, "").await.unwrap();
        }
        for good in [most, "api://contoso/portal", "urn:contoso:portal"] {
            create(admin, &contoso.name, "", good).await.unwrap();
        }
    })
    .await;
}

// proves APP-2
#[tokio::test]
async fn uris_are_unique_in_their_tenant() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let (url, uri) = ("https://a.example/cb", "api://portal");
        let admin = &contoso.admin.caller;
        create(admin, &contoso.name, url, uri).await.unwrap();
        for (url, uri, field) in [
            (url, "", "application.reply_url"),
            // However it is spelt.
            ("HTTPS://A.Example:443/x/../cb", "", "application.reply_url"),
            ("", uri, "application.application_id_uri"),
            ("", "API://portal", "application.application_id_uri"),
        ] {
            let status = refused(
                create(admin, &contoso.name, url, uri).await,
                Code::AlreadyExists,
                "URI_TAKEN",
            );
            assert_eq!(fields(&status), [field]);
        }
        create(&fabrikam.admin.caller, &fabrikam.name, url, uri)
            .await
            .unwrap();
        let (one, other) = tokio::join!(
            create(admin, &contoso.name, "https://b.example/", ""),
            create(admin, &contoso.name, "https://b.example/", "")
        );
        assert!(one.is_ok() != other.is_ok());
    })
    .await;
}

// proves APP-2, APP-3, ROL-7
#[tokio::test]
async fn application_is_made_with_memberships_and_shows_its_ids() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let request = CreateApplicationRequest {
            parent: contoso.name.clone(),
            application: Some(Application {
                display_name: "Portal".to_owned(),
                reply_url: "https://a.example/cb".to_owned(),
                application_id_uri: "api://portal".to_owned(),
                ..Application::default()
            }),
            memberships: vec![membership(&account, &[AccountRole::Developer])],
            request_id: request_id(),
            validate_only: false,
        };
        // What people alone hold, and what the caller lacks, isn't given; nothing is made.
        for (role, code, reason) in [
            (
                AccountRole::AdminAgent,
                Code::FailedPrecondition,
                "NOT_ASSIGNABLE",
            ),
            (
                AccountRole::Finance,
                Code::FailedPrecondition,
                "NOT_ASSIGNABLE",
            ),
        ] {
            let mut bad = request.clone();
            bad.request_id = request_id();
            bad.memberships = vec![membership(&account, &[role])];
            refused(
                admin.applications().create_application(bad).await,
                code,
                reason,
            );
        }
        let made = admin.applications().create_application(request).await;
        let made = made.unwrap().into_inner();
        let (tenant, client) = made.name.split_once("/applications/").unwrap();
        assert_eq!(tenant, format!("tenants/{}", made.tenant_id));
        assert_eq!(client, made.client_id);
        assert_eq!(made.reply_url, "https://a.example/cb");
        assert_eq!(made.application_id_uri, "api://portal");
        let get = GetApplicationRequest {
            name: made.name.clone(),
        };
        let got = admin.applications().get_application(get.clone()).await;
        assert_eq!(got.unwrap().into_inner(), made);
        let list = ListApplicationsRequest {
            parent: contoso.name.clone(),
            filter: "display_name : \"port\"".to_owned(),
            ..ListApplicationsRequest::default()
        };
        let listed = admin.applications().list_applications(list.clone()).await;
        assert_eq!(
            listed.unwrap().into_inner().applications,
            std::slice::from_ref(&made)
        );
        assert_eq!(
            events(&site, "directory.v1.ApplicationCreated", &made.name).await,
            1
        );
        let members = ListMembersRequest {
            parent: account.clone(),
            filter: "kind = APPLICATION".to_owned(),
            ..ListMembersRequest::default()
        };
        let members = admin.members().list_members(members).await.unwrap();
        assert_eq!(members.into_inner().members[0].principal, made.name);
        // Signed in it is itself, with what it was given.
        let secret = admin.key(&made.name).await.unwrap().secret;
        let tokens = sign_in_by_key(&site, &made.client_id, &secret)
            .await
            .unwrap();
        assert_eq!(tokens.refresh_token, "");
        let itself = site.with_token(&tokens.access_token);
        let me = itself.who_am_i().await.unwrap();
        assert_eq!((me.principal, me.accounts.len()), (made.name.clone(), 1));
        let got = itself.applications().get_application(get.clone()).await;
        assert_eq!(got.unwrap().into_inner(), made);
        let bill = person_as(&site, &contoso, "bill", DirectoryRole::BillingAdmin).await;
        for other in [&bill.caller, &itself] {
            refused(
                other.applications().list_applications(list.clone()).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
            refused(
                other.key(&made.name).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
    })
    .await;
}

// proves APP-4
#[tokio::test]
async fn keys_live_a_day_to_24_months_and_there_are_ten() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let app = application(admin, &contoso.name, "Portal").await;
        let now = now_s(&site).await;
        // Callers' clocks may be five minutes off.
        for bad in [
            now,
            now + DAY - 400,
            now + 730 * DAY + 400,
            -1,
            253_402_300_799,
        ] {
            let status = refused(
                key_until(admin, &app.name, bad).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["key.expire_time"]);
        }
        let usual = admin.key(&app.name).await.unwrap().key.unwrap();
        let life = usual.expire_time.unwrap().seconds - usual.create_time.unwrap().seconds;
        assert!((life - 365 * DAY).abs() <= 1);
        for good in [now + DAY, now + 730 * DAY] {
            let key = key_until(admin, &app.name, good).await.unwrap();
            assert_eq!(key.key.unwrap().expire_time.unwrap().seconds, good);
        }
        for _ in 0..6 {
            admin.key(&app.name).await.unwrap();
        }
        // Nine there are; of two at once one is the tenth.
        let (one, other) = tokio::join!(admin.key(&app.name), admin.key(&app.name));
        assert!(one.is_ok() != other.is_ok());
        refused(
            admin.key(&app.name).await,
            Code::FailedPrecondition,
            "TOO_MANY_KEYS",
        );
        assert_eq!(keys(admin, &app.name).await.len(), 10);
        delete_key(admin, &usual.name, "").await.unwrap();
        admin.key(&app.name).await.unwrap();
        // An expired one counts no more.
        site.advance(DAY + 1).await;
        again(&site, &contoso.admin)
            .await
            .key(&app.name)
            .await
            .unwrap();
    })
    .await;
}

// proves APP-4, COM-4, PWD-2
#[tokio::test]
async fn secret_is_shown_once_and_only_its_hash_is_stored() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let app = application(admin, &contoso.name, "Portal").await;
        let request = CreateKeyRequest {
            parent: app.name.clone(),
            request_id: request_id(),
            ..CreateKeyRequest::default()
        };
        let checked = CreateKeyRequest {
            validate_only: true,
            ..request.clone()
        };
        let checked = admin.applications().create_key(checked).await.unwrap();
        assert_eq!(checked.into_inner().secret, "");
        assert!(keys(admin, &app.name).await.is_empty());
        let first = admin.applications().create_key(request.clone()).await;
        let first = first.unwrap();
        assert!(!first.metadata().contains_key("entente-replayed"));
        let first = first.into_inner();
        assert!(first.secret.starts_with("entk_") && !first.secret_omitted);
        let replay = admin.applications().create_key(request).await.unwrap();
        assert!(replay.metadata().contains_key("entente-replayed"));
        let replay = replay.into_inner();
        assert_eq!(replay.secret, "");
        assert!(replay.secret_omitted);
        assert_eq!(replay.key, first.key);
        let listed = keys(admin, &app.name).await;
        assert_eq!(listed, [first.key.clone().unwrap()]);
        let hint = &listed[0].hint;
        assert!(first.secret.starts_with(hint.as_str()) && hint.len() < 12);
        sign_in_by_key(&site, &app.client_id, &first.secret)
            .await
            .unwrap();
        let key = &first.key.unwrap().name;
        assert_eq!(events(&site, "directory.v1.KeyCreated", key).await, 1);
        let body = &first.secret["entk_".len()..][..43];
        assert!(!everything(&site).contains(body));
        assert!(
            everything(&site).contains(hint.as_str()),
            "the search finds what is there"
        );
    })
    .await;
}

/// All that the database holds, as text.
fn everything(site: &Site) -> String {
    match site.database {
        Database::Sqlite => {
            let read = |name: &str| std::fs::read(site.folder.join(name)).unwrap_or_default();
            let bytes = [read("entente.db"), read("entente.db-wal")].concat();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Database::Postgres => {
            let url = site.url.as_ref().unwrap();
            let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'";
            let mut all = String::new();
            for table in psql(url, tables).lines() {
                all += &psql(url, &format!("SELECT t::text FROM {table} t"));
                // Bytes are printed in hexadecimal; what of them is text is searched as well.
                let columns = format!(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' AND data_type = 'bytea'"
                );
                for column in psql(url, &columns).lines() {
                    all += &psql(
                        url,
                        &format!("SELECT encode({column}, 'escape') FROM {table}"),
                    );
                }
            }
            all
        }
    }
}

// proves APP-4, ATK-12
#[tokio::test]
async fn deleted_and_expired_keys_sign_nobody_in_and_their_tokens_end_at_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let app = application(admin, &contoso.name, "Portal").await;
        let other = application(admin, &contoso.name, "Other").await;
        let made = admin.key(&app.name).await.unwrap();
        let kept = admin.key(&app.name).await.unwrap();
        let sign_in = async |secret: &str| sign_in_by_key(&site, &app.client_id, secret).await;
        let token = sign_in(&made.secret).await.unwrap().access_token;
        let kept_token = sign_in(&kept.secret).await.unwrap().access_token;
        let mut wrong = made.secret.clone();
        wrong.replace_range(10..11, if &wrong[10..11] == "a" { "b" } else { "a" });
        for (client, secret) in [
            (other.client_id.as_str(), made.secret.as_str()),
            (&app.client_id, &wrong),
            (&app.client_id, "entk_"),
            (&app.client_id, "x"),
            ("018f0000-0000-7000-8000-000000000000", &made.secret),
        ] {
            refused(
                sign_in_by_key(&site, client, secret).await,
                Code::Unauthenticated,
                "SIGN_IN_FAILED",
            );
        }
        let key = made.key.unwrap();
        refused(
            delete_key(admin, &key.name, "\"9\"").await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        // A key is reached through its own application only.
        let misplaced = key.name.replace(&app.client_id, &other.client_id);
        refused(
            delete_key(admin, &misplaced, "").await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        delete_key(admin, &key.name, &key.etag).await.unwrap();
        assert_eq!(events(&site, "directory.v1.KeyDeleted", &key.name).await, 1);
        refused(
            site.with_token(&token).who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        refused(
            sign_in(&made.secret).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        site.with_token(&kept_token).who_am_i().await.unwrap();

        // A key near its end gives tokens that end with it.
        let end = now_s(&site).await + DAY;
        let short = key_until(admin, &app.name, end).await.unwrap().secret;
        site.advance(DAY - 300).await;
        let tokens = sign_in(&short).await.unwrap();
        assert_eq!(tokens.access_expire_time.unwrap().seconds, end);
        site.with_token(&tokens.access_token)
            .who_am_i()
            .await
            .unwrap();
        site.advance(300).await;
        refused(
            site.with_token(&tokens.access_token).who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        refused(
            sign_in(&short).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        sign_in(&kept.secret).await.unwrap();
    })
    .await;
}

// proves APP-1, ROL-6
#[tokio::test]
async fn existing_applications_are_added_with_one_same_set_of_rights() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let mut names = Vec::new();
        for name in ["One", "Two"] {
            names.push(application(admin, &contoso.name, name).await.name);
        }
        let rights = Rights {
            roles: vec![AccountRole::Developer as i32],
            permissions: vec!["members.read".to_owned()],
        };
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: names.clone(),
            rights: Some(rights.clone()),
            ..AddMembersRequest::default()
        };
        let added = admin
            .members()
            .add_members(request)
            .await
            .unwrap()
            .into_inner()
            .members;
        assert_eq!(
            added
                .iter()
                .map(|m| m.principal.clone())
                .collect::<Vec<_>>(),
            names
        );
        assert!(added.iter().all(|m| m.rights.as_ref() == Some(&rights)));
        // What it may is the role and the single permission together, and nothing else.
        let key = admin.key(&names[0]).await.unwrap();
        let client_id = names[0].rsplit('/').next().unwrap();
        let one = sign_in_by_key(&site, client_id, &key.secret).await.unwrap();
        let one = site.with_token(&one.access_token);
        let request = ListMembersRequest {
            parent: account.clone(),
            ..ListMembersRequest::default()
        };
        assert_eq!(
            one.members()
                .list_members(request)
                .await
                .unwrap()
                .into_inner()
                .members
                .len(),
            3
        );
        let request = TestMyPermissionsRequest {
            resource: account,
            permissions: ["offers.manage", "members.read", "users.assign"]
                .map(str::to_owned)
                .to_vec(),
        };
        let may = one
            .access()
            .test_my_permissions(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(may.permissions, ["offers.manage", "members.read"]);
    })
    .await;
}
