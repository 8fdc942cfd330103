//! What a refused call is told and leaves in the audit, and what it costs (COM-3, COM-10, COM-16, COM-18).

use std::{collections::BTreeMap, fs, path::Path};

use entente::{
    access::refusals::flush,
    proto::{
        account::{AddMembersRequest, GetAccountRequest},
        directory::{CreateTenantRequest, CreateUserRequest, DisableUserRequest, GetTenantRequest},
        operator::OperatorRole,
    },
};
use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    bad_input::{frame, send},
    harness::{both, new_tenant, refused, request_id},
    people::{People as _, Service, audited, staff},
};

/// The texts of a language, by reason.
fn texts(language: &str) -> BTreeMap<String, String> {
    let file = format!("src/texts/{language}.json");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

// proves COM-3
#[tokio::test]
async fn whoever_refuses_says_so_in_the_language_asked_for() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bearer = format!("Bearer {}", contoso.admin.caller.token.as_deref().unwrap());
        let foreign = GetTenantRequest {
            name: format!("tenants/{}", request_id()),
        };
        let empty = CreateUserRequest {
            parent: contoso.name.clone(),
            ..CreateUserRequest::default()
        };
        let get_tenant = "/entente.directory.v1.TenantService/GetTenant";
        let sync = "/entente.directory.v1.TenantService/SyncDirectory";
        let create_user = "/entente.directory.v1.UserService/CreateUser";
        // By the gate, the proof, the limits of fields, our codec in a call and in a stream, and the framework.
        let calls: [(&str, bool, Vec<u8>, &str); 8] = [
            (get_tenant, false, frame(&[]), "CREDENTIALS_MISSING"),
            (
                get_tenant,
                true,
                frame(&foreign.encode_to_vec()),
                "PERMISSION_MISSING",
            ),
            (
                create_user,
                true,
                frame(&empty.encode_to_vec()),
                "INVALID_FIELDS",
            ),
            (get_tenant, true, frame(&[0xff; 12]), "MALFORMED_MESSAGE"),
            (sync, true, frame(&[0xff; 12]), "MALFORMED_MESSAGE"),
            (
                get_tenant,
                true,
                vec![0, 0, 0, 0, 10, 1],
                "MALFORMED_MESSAGE",
            ),
            (get_tenant, true, vec![7, 0, 0, 0, 0], "MALFORMED_MESSAGE"),
            (
                "/entente.directory.v1.NoService/Nothing",
                true,
                frame(&[]),
                "UNKNOWN_METHOD",
            ),
        ];
        let of = BTreeMap::from([("en", texts("en")), ("fr", texts("fr"))]);
        for (asked, language) in [
            (None, "en"),
            (Some("en"), "en"),
            (Some("fr"), "fr"),
            (Some("fr-CA, en;q=0.5"), "fr"),
            (Some("en;q=0.3, FR;q=0.9"), "fr"),
            (Some("de, fr;q=0.2"), "fr"),
            // What isn't spoken here, and what is no language.
            (Some("de"), "en"),
            (Some("fr;q=0"), "en"),
            (Some("*"), "en"),
            (Some(";;,=q"), "en"),
            (Some(""), "en"),
        ] {
            for (path, signed_in, body, reason) in &calls {
                let mut headers = Vec::new();
                headers.extend(asked.map(|asked| ("accept-language", asked)));
                if *signed_in {
                    headers.push(("authorization", bearer.as_str()));
                }
                let status = send(&site, path, &headers, body.clone()).await;
                let info = status.get_details_error_info().unwrap();
                assert_eq!(info.reason, *reason, "{asked:?}: {status:?}");
                let filled = |language: &str| {
                    let mut text = of[language][*reason].clone();
                    for (key, value) in &info.metadata {
                        text = text.replace(&format!("{{{key}}}"), value);
                    }
                    text
                };
                let told = status.get_details_localized_message().unwrap();
                assert_eq!(
                    (told.locale.as_str(), told.message),
                    (language, filled(language)),
                    "{asked:?}: {reason}"
                );
                // What programs log is the same everywhere.
                assert_eq!(status.message(), filled("en"));
            }
        }
        assert_ne!(of["en"]["MALFORMED_MESSAGE"], of["fr"]["MALFORMED_MESSAGE"]);
    })
    .await;
}

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
