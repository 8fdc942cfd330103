//! Attacks by what requests name: IDs of others, fields of the server's own, addresses, hosts, page tokens (ATK-1, 5, 6, 10, 15, 19).

use entente::proto::{
    access::AccountRole,
    account::{
        Account, AccountState, AddMembersRequest, GetAccountRequest, GetMemberRequest,
        ImportAccountRequest, ListAccountsRequest, ListMembersRequest, Member,
        RemoveMembersRequest, SearchCandidatesRequest, UpdateMemberRequest, UpdateMembersRequest,
    },
    directory::{
        CreateApplicationRequest, DeleteKeyRequest, DirectoryRole, EndSessionRequest,
        EndUserSessionsRequest, GetApplicationRequest, GetTenantRequest, ListApplicationsRequest,
        ListKeysRequest, ListTenantsRequest, ListUsersRequest, ListUsersResponse, Tenant,
        UpdateTenantRequest, User, UserKind, UserState,
    },
};
use tonic::{Code, Request, Response, Status, transport::Endpoint};
use tonic_types::StatusExt as _;

use crate::{
    harness::{Caller, Site, both, fields, membership, new_tenant, new_user, refused, rights},
    people::{People as _, again, application, id, letters, mask, named, number, person_as},
};

fn denied(tried: Result<(), Status>) -> Status {
    refused(tried, Code::PermissionDenied, "PERMISSION_MISSING")
}

async fn rows(site: &Site) -> i64 {
    let sql = "SELECT (SELECT COUNT(*) FROM users) + (SELECT COUNT(*) FROM grants) + (SELECT COUNT(*) FROM outbox) \
               + (SELECT COUNT(*) FROM applications) + (SELECT COUNT(*) FROM application_keys) AS n";
    number(site, sql, []).await
}

// proves ATK-1, ATK-8
#[tokio::test]
async fn every_carrier_of_an_id_is_held_to_the_callers_scope() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let own = site.account(&fabrikam, "Fabrikam").await;
        let bob = site
            .person_with(&contoso, "bob", |r| {
                r.memberships = vec![membership(&account, &[AccountRole::Developer])];
            })
            .await;
        let ann = &contoso.admin.caller;
        let app = application(ann, &contoso.name, "App").await;
        let key = ann.key(&app.name).await.unwrap().key.unwrap().name;
        let session = bob.caller.list_sessions(&bob.name).await.unwrap().remove(0);
        let before = (rows(&site).await, ann.user(&bob.name).await.unwrap());
        let eve = &fabrikam.admin.caller;
        let theirs = User {
            given_name: "Eve".to_owned(),
            ..named(&bob.name)
        };
        // Outright: what lies in another tenant.
        for tried in [
            eve.user(&bob.name).await.map(drop),
            eve.update(theirs, &["given_name"]).await.map(drop),
            eve.disable(&bob.name).await.map(drop),
            eve.enable(&bob.name).await.map(drop),
            eve.delete(&bob.name).await.map(drop),
            eve.undelete(&bob.name, "eve").await.map(drop),
            eve.reset(&bob.name).await.map(drop),
            eve.assign(&bob.name, &[]).await.map(drop),
            eve.replace(&contoso.admin.name, &bob.name).await.map(drop),
            eve.set_contact(&bob.name, "eve@evil.example")
                .await
                .map(drop),
            eve.list(&contoso.name, "").await.map(drop),
            eve.list_sessions(&bob.name).await.map(drop),
            eve.key(&app.name).await.map(drop),
            eve.users()
                .create_user(new_user(&contoso.name, "eve"))
                .await
                .map(drop),
        ] {
            denied(tried);
        }
        let woken = eve.wake(&bob.name).await;
        refused(woken, Code::PermissionDenied, "NOTHING_TO_WAKE");
        let users = EndUserSessionsRequest {
            name: bob.name.clone(),
            ..EndUserSessionsRequest::default()
        };
        denied(eve.sessions().end_user_sessions(users).await.map(drop));
        let ended = EndSessionRequest {
            name: session.name.clone(),
            ..EndSessionRequest::default()
        };
        denied(eve.sessions().end_session(ended).await.map(drop));
        let tenant = GetTenantRequest {
            name: contoso.name.clone(),
        };
        denied(eve.tenants().get_tenant(tenant).await.map(drop));
        let tenant = UpdateTenantRequest {
            tenant: Some(Tenant {
                name: contoso.name.clone(),
                display_name: "Eve's".to_owned(),
                ..Tenant::default()
            }),
            ..UpdateTenantRequest::default()
        };
        denied(eve.tenants().update_tenant(tenant).await.map(drop));
        let apps = ListApplicationsRequest {
            parent: contoso.name.clone(),
            ..ListApplicationsRequest::default()
        };
        denied(eve.applications().list_applications(apps).await.map(drop));
        // Nested: one good name beside a foreign one.
        let mut user = new_user(&fabrikam.name, "mallory");
        user.memberships = vec![membership(&own, &[]), membership(&account, &[])];
        denied(eve.users().create_user(user).await.map(drop));
        let program = CreateApplicationRequest {
            parent: fabrikam.name.clone(),
            application: Some(entente::proto::directory::Application {
                display_name: "Evil".to_owned(),
                ..Default::default()
            }),
            memberships: vec![membership(&own, &[]), membership(&account, &[])],
            ..CreateApplicationRequest::default()
        };
        denied(
            eve.applications()
                .create_application(program)
                .await
                .map(drop),
        );
        let status = refused(
            eve.replace(&fabrikam.admin.name, &bob.name).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["successor"]);
        let members = AddMembersRequest {
            parent: own.clone(),
            principals: vec![bob.name.clone()],
            ..AddMembersRequest::default()
        };
        refused(
            eve.members().add_members(members).await,
            Code::PermissionDenied,
            "OTHER_TENANT",
        );
        let change = |name: String| UpdateMembersRequest {
            parent: own.clone(),
            requests: vec![UpdateMemberRequest {
                member: Some(Member {
                    name,
                    rights: Some(rights(&[])),
                    ..Member::default()
                }),
            }],
            ..UpdateMembersRequest::default()
        };
        let removal = |names: Vec<String>| RemoveMembersRequest {
            parent: own.clone(),
            names,
            ..RemoveMembersRequest::default()
        };
        refused(
            eve.members()
                .update_members(change(bob.member_of(&account)))
                .await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let names = vec![fabrikam.admin.member_of(&own), bob.member_of(&account)];
        refused(
            eve.members().remove_members(removal(names)).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        for name in [account.as_str(), own.as_str()] {
            let member = GetMemberRequest {
                name: bob.member_of(name),
            };
            let got = eve.members().get_member(member).await;
            match name == own {
                true => refused(got, Code::NotFound, "RESOURCE_NOT_FOUND"),
                false => refused(got, Code::PermissionDenied, "PERMISSION_MISSING"),
            };
        }
        // Mixed: a foreign ID under one's own parent is nothing that is there.
        let under = |name: &str| name.replace(&contoso.name, &fabrikam.name);
        for tried in [
            eve.user(&under(&bob.name)).await.map(drop),
            eve.disable(&under(&bob.name)).await.map(drop),
            eve.delete(&under(&bob.name)).await.map(drop),
            eve.reset(&under(&bob.name)).await.map(drop),
            eve.assign(&under(&bob.name), &[]).await.map(drop),
            eve.key(&under(&app.name)).await.map(drop),
            eve.members()
                .update_members(change(bob.member_of(&own)))
                .await
                .map(drop),
            eve.members()
                .remove_members(removal(vec![bob.member_of(&own)]))
                .await
                .map(drop),
        ] {
            refused(tried, Code::NotFound, "RESOURCE_NOT_FOUND");
        }
        let request = DeleteKeyRequest {
            name: under(&key),
            ..DeleteKeyRequest::default()
        };
        refused(
            eve.applications().delete_key(request).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let request = ListKeysRequest {
            parent: under(&app.name),
            ..ListKeysRequest::default()
        };
        refused(
            eve.applications().list_keys(request).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let name = GetApplicationRequest {
            name: under(&app.name),
        };
        refused(
            eve.applications().get_application(name).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        // Metadata: a person's token makes nobody somebody else.
        refused(
            site.on_behalf(eve, &bob.caller).user(&bob.name).await,
            Code::PermissionDenied,
            "ON_BEHALF_REFUSED",
        );
        assert_eq!(
            (rows(&site).await, ann.user(&bob.name).await.unwrap()),
            before
        );
        bob.caller.who_am_i().await.unwrap();
    })
    .await;
}

// proves ATK-5
#[tokio::test]
async fn mail_goes_only_to_one_stored_address() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let bob = site
            .person_with(&contoso, "bob", |r| {
                r.user.as_mut().unwrap().recovery_email = "bob@home.example".to_owned();
            })
            .await;
        let bob_caller = again(&site, &bob).await;
        for bad in [
            "bob@home.example,eve@evil.example",
            "bob@home.example;eve@evil.example",
            "bob@home.example eve@evil.example",
            "bob@home.example\neve@evil.example",
            "bob@home.example\r\nBcc: eve@evil.example",
            "bob@home.example%0aeve@evil.example@",
            "Bob <eve@evil.example>",
            "\"bob\"@home.example",
            "eve@evil",
        ] {
            let user = User {
                recovery_email: bad.to_owned(),
                ..named(&bob.name)
            };
            let mut new = new_user(&contoso.name, "new");
            new.user.as_mut().unwrap().recovery_email = bad.to_owned();
            let mut tenant = new_tenant("fabrikam");
            tenant.tenant.as_mut().unwrap().contact_email = bad.to_owned();
            tenant.first_admin.as_mut().unwrap().recovery_email = bad.to_owned();
            let operator = site.operator().await;
            for (tried, field) in [
                (
                    admin.update(user, &["recovery_email"]).await.map(drop),
                    "user.recovery_email",
                ),
                (
                    admin.users().create_user(new).await.map(drop),
                    "user.recovery_email",
                ),
                (
                    bob_caller.set_contact(&bob.name, bad).await.map(drop),
                    "recovery_email",
                ),
                (
                    operator.tenants().create_tenant(tenant).await.map(drop),
                    "tenant.contact_email",
                ),
            ] {
                let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
                let fields = fields(&status);
                assert!(fields.contains(&field.to_owned()), "{bad:?}: {fields:?}");
            }
        }
        admin.reset(&bob.name).await.unwrap();
        let letters = letters(&site).await;
        assert_eq!(
            letters
                .iter()
                .filter(|l| l.to == "bob@home.example")
                .count(),
            1
        );
        assert!(letters.iter().all(|l| !l.text.contains("evil.example")));
    })
    .await;
}

// proves ATK-6, COM-20
#[tokio::test]
async fn links_keep_the_configured_origin_whatever_host_is_asked_for() {
    both(async |site| {
        let operator = site.operator().await;
        let evil = Endpoint::from_shared(format!("http://{}", site.address))
            .unwrap()
            .origin("http://evil.example".parse().unwrap())
            .connect_lazy();
        let caller = Caller {
            channel: evil,
            ..operator
        };
        let mut request = Request::new(new_tenant("contoso"));
        for (key, value) in [
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "ftp"),
            ("forwarded", "host=evil.example"),
            ("x-original-host", "evil.example"),
            ("origin", "http://evil.example"),
            ("referer", "http://evil.example/"),
        ] {
            request.metadata_mut().insert(key, value.parse().unwrap());
        }
        let made = caller.tenants().create_tenant(request).await.unwrap();
        let letters = letters(&site).await;
        let letter = letters.iter().find(|l| l.to == "it@contoso.example");
        let text = &letter.unwrap().text;
        assert!(text.contains(&site.app.config.public_origin), "{text}");
        assert!(!text.contains("evil.example"), "{text}");
        let admin = made.into_inner().first_admin.unwrap();
        assert_eq!(admin.sign_in_name, "ann@contoso.partners.localhost");
    })
    .await;
}

// proves ATK-10, COM-8
#[tokio::test]
async fn fields_of_the_servers_own_are_refused_in_every_mask_by_every_role() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        let bob = site.person(&contoso, "bob").await;
        let admin = &contoso.admin.caller;
        let time = Some(prost_types::Timestamp {
            seconds: 1_000_000_000,
            nanos: 0,
        });
        let forged = User {
            name: bob.name.clone(),
            user_name: String::new(),
            sign_in_name: "root@operator.partners.localhost".to_owned(),
            given_name: String::new(),
            family_name: String::new(),
            display_name: "Root".to_owned(),
            recovery_email: String::new(),
            directory_roles: vec![DirectoryRole::GlobalAdmin as i32],
            kind: UserKind::Guest as i32,
            state: UserState::Disabled as i32,
            created_through_account: "accounts/018f0000-0000-7000-8000-000000000000".to_owned(),
            create_time: time,
            update_time: time,
            delete_time: time,
            purge_time: time,
            rights_asleep_until: time,
            etag: "\"77\"".to_owned(),
            home: "identities/018f0000-0000-7000-8000-000000000000".to_owned(),
            synchronized: true,
        };
        let before = admin.user(&bob.name).await.unwrap();
        for field in [
            "name",
            "sign_in_name",
            "display_name",
            "directory_roles",
            "kind",
            "state",
            "created_through_account",
            "create_time",
            "update_time",
            "delete_time",
            "home",
            "synchronized",
            "purge_time",
            "rights_asleep_until",
            "etag",
        ] {
            let status = refused(
                admin.update(forged.clone(), &[field]).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["update_mask"], "{field}");
            for other in [&hal.caller, &bob.caller] {
                denied(other.update(forged.clone(), &[field]).await.map(drop));
            }
            assert_eq!(admin.user(&bob.name).await.unwrap(), before, "{field}");
        }
        let tenant = Tenant {
            name: contoso.name.clone(),
            domain_prefix: "operator".to_owned(),
            domain: "operator.example".to_owned(),
            state: 2,
            create_time: time,
            update_time: time,
            etag: "\"77\"".to_owned(),
            ..Tenant::default()
        };
        for field in [
            "name",
            "domain_prefix",
            "domain",
            "state",
            "create_time",
            "update_time",
            "etag",
        ] {
            let request = UpdateTenantRequest {
                tenant: Some(tenant.clone()),
                update_mask: Some(mask(&[field])),
                ..UpdateTenantRequest::default()
            };
            let status = refused(
                admin.tenants().update_tenant(request).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["update_mask"], "{field}");
        }
        // What is made takes none of them either.
        let mut request = new_user(&contoso.name, "new");
        request.user = Some(User {
            user_name: "new".to_owned(),
            given_name: "New".to_owned(),
            family_name: "User".to_owned(),
            directory_roles: vec![],
            ..forged
        });
        let made = admin.users().create_user(request).await.unwrap();
        let made = made.into_inner().user.unwrap();
        assert_ne!(made.name, bob.name);
        assert_eq!(made.display_name, "New User");
        assert_eq!(made.sign_in_name, "new@contoso.partners.localhost");
        assert_eq!(
            (made.kind(), made.state()),
            (UserKind::Member, UserState::Active)
        );
        assert_eq!(made.created_through_account, "");
        assert_ne!(made.create_time, time);
        assert!(made.delete_time.is_none() && made.rights_asleep_until != time);
        let import = ImportAccountRequest {
            account: Some(Account {
                publisher_display_name: "Contoso".to_owned(),
                legal_name: "Contoso Ltd".to_owned(),
                country_code: "FR".to_owned(),
                seller_id: "1".to_owned(),
                create_time: time,
                etag: "\"77\"".to_owned(),
                ..Account::default()
            }),
            tenant: contoso.name.clone(),
            first_manager: contoso.admin.name.clone(),
            ..ImportAccountRequest::default()
        };
        let operator = site.operator().await;
        let account = operator.accounts().import_account(import).await.unwrap();
        let account = account.into_inner();
        assert_ne!(account.seller_id, "1");
        assert_ne!(account.create_time, time);
        assert_eq!(account.state(), AccountState::Active);
    })
    .await;
}

/// What a refusal tells, but for what the request itself said.
fn told(status: &Status) -> (Code, String, String) {
    let info = status.get_details_error_info().unwrap();
    let metadata = format!("{} {:?}", info.reason, info.metadata);
    (status.code(), status.message().to_owned(), metadata)
}

// proves ATK-15, COM-2
#[tokio::test]
async fn strangers_learn_nothing_from_errors_lists_and_searches() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        site.account(&fabrikam, "Fabrikam").await;
        let bob = site.person(&contoso, "bob").await;
        let app = application(&contoso.admin.caller, &contoso.name, "App").await;
        let eve = &fabrikam.admin.caller;
        let none = "018f0000-0000-7000-8000-000000000000";
        let other = |name: &str| name.replace(&id(name).to_string(), none);
        // What is there and what isn't get one answer.
        for name in [&bob.name, &contoso.admin.name] {
            for (one, none) in [
                (
                    eve.user(name).await.map(drop),
                    eve.user(&other(name)).await.map(drop),
                ),
                (
                    eve.delete(name).await.map(drop),
                    eve.delete(&other(name)).await.map(drop),
                ),
                (
                    eve.reset(name).await.map(drop),
                    eve.reset(&other(name)).await.map(drop),
                ),
                (
                    eve.list_sessions(name).await.map(drop),
                    eve.list_sessions(&other(name)).await.map(drop),
                ),
                (
                    eve.key(&app.name).await.map(drop),
                    eve.key(&other(&app.name)).await.map(drop),
                ),
                (
                    eve.list(&contoso.name, "").await.map(drop),
                    eve.list(&other(&contoso.name), "").await.map(drop),
                ),
                // The name that is taken tells nothing to whoever may not make users there.
                (
                    eve.users()
                        .create_user(new_user(&contoso.name, "bob"))
                        .await
                        .map(drop),
                    eve.users()
                        .create_user(new_user(&contoso.name, "nobody"))
                        .await
                        .map(drop),
                ),
            ] {
                assert_eq!(told(&denied(one)), told(&denied(none)));
            }
            let wake = async |name: &str| {
                let tried = eve.wake(name).await;
                told(&refused(tried, Code::PermissionDenied, "NOTHING_TO_WAKE"))
            };
            assert_eq!(wake(name).await, wake(&other(name)).await);
        }
        let get = async |name: String| {
            let got = eve.accounts().get_account(GetAccountRequest { name }).await;
            told(&denied(got.map(drop)))
        };
        assert_eq!(get(account.clone()).await, get(other(&account)).await);
        // Lists and searches give what Get gives, whatever the filter.
        for filter in [
            "",
            "display_name : \"con\"",
            "publisher_display_name : \"con\"",
        ] {
            let request = ListAccountsRequest {
                filter: filter.to_owned(),
                ..ListAccountsRequest::default()
            };
            if let Ok(listed) = eve.accounts().list_accounts(request).await {
                let accounts = listed.into_inner().accounts;
                assert!(accounts.iter().all(|a| a.name != account), "{filter}");
            }
            let request = ListTenantsRequest {
                filter: filter.to_owned(),
                ..ListTenantsRequest::default()
            };
            if let Ok(listed) = eve.tenants().list_tenants(request).await {
                let tenants = listed.into_inner().tenants;
                assert!(tenants.iter().all(|t| t.name == fabrikam.name), "{filter}");
            }
        }
        let parent = account.clone();
        let request = SearchCandidatesRequest {
            parent: parent.clone(),
            filter: "user_name : \"bob\"".to_owned(),
            ..SearchCandidatesRequest::default()
        };
        denied(eve.members().search_candidates(request).await.map(drop));
        let request = ListMembersRequest {
            parent,
            ..ListMembersRequest::default()
        };
        denied(eve.members().list_members(request).await.map(drop));
        // A plain colleague sees oneself, not the others.
        denied(bob.caller.user(&contoso.admin.name).await.map(drop));
        denied(bob.caller.list(&contoso.name, "").await.map(drop));
    })
    .await;
}

async fn page(caller: &Caller, request: ListUsersRequest) -> Result<ListUsersResponse, Status> {
    let listed = caller.users().list_users(request).await;
    listed.map(Response::into_inner)
}

// proves ATK-19, COM-6
#[tokio::test]
async fn page_tokens_are_good_for_their_own_caller_and_query_only() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        site.person(&contoso, "bob").await;
        application(&contoso.admin.caller, &contoso.name, "App").await;
        let admin = &contoso.admin.caller;
        let with = |token: &str| ListUsersRequest {
            parent: contoso.name.clone(),
            page_size: 1,
            page_token: token.to_owned(),
            ..ListUsersRequest::default()
        };
        let token = page(admin, with("")).await.unwrap().next_page_token;
        assert_eq!(page(admin, with(&token)).await.unwrap().users.len(), 1);
        let bad = |result: Result<(), Status>| {
            let status = refused(result, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
            assert_eq!(fields(&status), ["page_token"]);
        };
        let mut forged: Vec<String> = (0..token.len()).map(|i| token[..i].to_owned()).collect();
        for i in 0..token.len() {
            let mut altered = token.clone();
            altered.replace_range(i..=i, if &token[i..=i] == "A" { "B" } else { "A" });
            forged.push(altered);
        }
        for text in ["' OR 1=1 --", "%00", "é", "null", "AAAA", "-1"] {
            forged.push(text.to_owned());
        }
        forged.push(format!("{token}A"));
        forged.push("A".repeat(2_000));
        for token in forged.iter().filter(|t| !t.is_empty()) {
            bad(page(admin, with(token)).await.map(drop));
        }
        // Foreign: another caller's, another filter's, another order's, another list's.
        bad(page(&hal.caller, with(&token)).await.map(drop));
        let mut request = with(&token);
        request.filter = "state = ACTIVE".to_owned();
        bad(page(admin, request).await.map(drop));
        let mut request = with(&token);
        request.order_by = "display_name".to_owned();
        bad(page(admin, request).await.map(drop));
        let mut request = with(&token);
        request.show_deleted = true;
        bad(page(admin, request).await.map(drop));
        let request = ListApplicationsRequest {
            parent: contoso.name.clone(),
            page_token: token.clone(),
            ..ListApplicationsRequest::default()
        };
        bad(admin
            .applications()
            .list_applications(request)
            .await
            .map(drop));
        let request = ListTenantsRequest {
            page_token: token.clone(),
            ..ListTenantsRequest::default()
        };
        bad(admin.tenants().list_tenants(request).await.map(drop));
        // The process lives, and the good token is good still.
        assert_eq!(page(admin, with(&token)).await.unwrap().users.len(), 1);
    })
    .await;
}
