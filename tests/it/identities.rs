//! Personal identities (IDN-1, IDN-2): made by who reads the mail of the address and knows the password, and by nobody else.

use entente::proto::{
    access::{AccessCheck, AccountRole, CheckAccessRequest},
    account::{AddMembersRequest, AssociateTenantRequest, GetAccountRequest, LeaveAccountRequest},
    audit::{ExportAuditEventsRequest, VerifyAuditChainRequest},
    directory::{
        ChangeEmailRequest, CloseIdentityRequest, CloseIdentityResponse, ConfirmEmailRequest,
        ConfirmIdentityRequest, EndSessionRequest, ExportIdentityRequest, ExportIdentityResponse,
        GetIdentityRequest, Identity, IdentityState, ListTenantsRequest, SignOutRequest,
        SignUpRequest, StartPasswordRecoveryRequest, SwitchTenantRequest, TokenSet,
        UpdateIdentityRequest, UserState,
    },
};
use futures_util::future::join_all;
use sea_orm::Value;
use tonic::{Code, Request, Response, Status, transport::Endpoint};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{
    harness::{
        Caller, Database, PASSWORD, Person, Site, TenantSite, both, fields, new_tenant, refused,
        request_id, rights,
    },
    people::{
        People as _, Service, again, ask_recovery, audited, change, change_password, confirm,
        denied, events, guest, id, identity, letters, link_invalid, mailed_token, mask,
        new_identity, number, recover, refresh, sign_in_from,
    },
};

const ADDRESS: &str = "ida@mail.example";
const NEW: &str = "green chair on a hill";

async fn sign_up(site: &Site, request: SignUpRequest) -> Result<(), Status> {
    site.nobody().identities().sign_up(request).await.map(drop)
}

async fn get(caller: &Caller, name: &str) -> Result<Identity, Status> {
    let name = name.to_owned();
    let request = GetIdentityRequest { name };
    let got = caller.identities().get_identity(request).await;
    got.map(Response::into_inner)
}

async fn change_email(caller: &Caller, name: &str, new_email: &str) -> Result<(), Status> {
    let request = ChangeEmailRequest {
        name: name.to_owned(),
        new_email: new_email.to_owned(),
        ..ChangeEmailRequest::default()
    };
    caller.identities().change_email(request).await.map(drop)
}

async fn confirm_email(site: &Site, token: &str) -> Result<Identity, Status> {
    let request = ConfirmEmailRequest {
        token: token.to_owned(),
        ..ConfirmEmailRequest::default()
    };
    let done = site.nobody().identities().confirm_email(request).await;
    done.map(Response::into_inner)
}

async fn close(caller: &Caller, name: &str) -> Result<CloseIdentityResponse, Status> {
    let request = CloseIdentityRequest {
        name: name.to_owned(),
        ..CloseIdentityRequest::default()
    };
    let done = caller.identities().close_identity(request).await;
    done.map(Response::into_inner)
}

/// All that an export tells, in one.
async fn export(caller: &Caller, name: &str) -> Result<ExportIdentityResponse, Status> {
    let name = name.to_owned();
    let opened = caller
        .identities()
        .export_identity(ExportIdentityRequest { name })
        .await?;
    let (mut pieces, mut all) = (opened.into_inner(), ExportIdentityResponse::default());
    while let Some(piece) = pieces.message().await? {
        all.identity = all.identity.or(piece.identity);
        all.sessions.extend(piece.sessions);
        all.networks.extend(piece.networks);
        all.guests.extend(piece.guests);
        all.rights.extend(piece.rights);
        all.tenants.extend(piece.tenants);
        all.mails.extend(piece.mails);
        all.audit_events.extend(piece.audit_events);
    }
    Ok(all)
}

async fn identities(site: &Site) -> i64 {
    number(site, "SELECT COUNT(*) AS n FROM users WHERE kind = 3", []).await
}

/// Ends the time of all links of a kind so many microseconds from now.
async fn links_end(site: &Site, kind: i16, after_us: i64) {
    let sql = "UPDATE links SET expire_time = $1 WHERE kind = $2";
    let at = site.app.now().await.unwrap() + after_us;
    change(site, sql, [at.into(), kind.into()]).await;
}

/// A right on an account that no RPC gives an identity yet.
async fn own_account(site: &Site, person: &Person, account: &str) {
    let sql = "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
               display_name_fold, create_time, update_time, version) VALUES (2, $1, $2, 3, $3, $4, '', '', '', 0, 0, 1)";
    let values: [Value; 4] = [
        id(account).into(),
        id(&person.name).into(),
        Uuid::nil().into(),
        (1_i64 << AccountRole::Owner as i64).into(),
    ];
    change(site, sql, values).await;
}

async fn switch(caller: &Caller, tenant: &str) -> Result<TokenSet, Status> {
    let request = SwitchTenantRequest {
        tenant: tenant.to_owned(),
        ..SwitchTenantRequest::default()
    };
    let done = caller.sessions().switch_tenant(request).await;
    done.map(Response::into_inner)
}

// ---- signing up

// proves IDN-1, COM-10, COM-20
#[tokio::test]
async fn sign_up_makes_nothing_before_the_address_is_proven() {
    both(async |site| {
        sign_up(&site, new_identity(ADDRESS)).await.unwrap();
        assert_eq!(identities(&site).await, 0);
        refused(
            site.tokens(ADDRESS, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        let letters = letters(&site).await;
        let letter = letters.iter().find(|l| l.to == ADDRESS).unwrap();
        let token = mailed_token(&site, ADDRESS).await.unwrap();
        let link = format!("{}/confirm-identity#{token}", site.app.config.public_origin);
        assert!(letter.text.contains(&link), "{}", letter.text);
        // The names that a stranger gave don't stand in a mail to somebody else.
        assert!(!letter.text.contains("Ida"), "{}", letter.text);
        let made = confirm(&site, &token, PASSWORD).await.unwrap();
        assert_eq!(
            (made.email.as_str(), made.state()),
            (ADDRESS, IdentityState::Active)
        );
        assert_eq!(made.display_name, "Ida Noor");
        let ida = site.sign_in("IDA@mail.example", PASSWORD).await;
        let me = ida.who_am_i().await.unwrap();
        assert_eq!(
            (me.principal.as_str(), me.tenant),
            (made.name.as_str(), None)
        );
        assert!(me.tenants.is_empty() && me.accounts.is_empty());
        assert_eq!(get(&ida, &made.name).await.unwrap(), made);
        assert_eq!(
            events(&site, "directory.v1.IdentityCreated", &made.name).await,
            1
        );
        let told = audited(&ida, &made.name, "").await.unwrap();
        let actions: Vec<_> = told
            .iter()
            .map(|e| e.action.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(actions, ["ConfirmIdentity", "SignIn"]);
        assert!(told.iter().all(|e| e.actor == made.name));
        link_invalid(confirm(&site, &token, PASSWORD).await);
        // The realm of identities is no tenant.
        let listed = ida
            .tenants()
            .list_tenants(ListTenantsRequest::default())
            .await;
        assert!(listed.unwrap().into_inner().tenants.is_empty());
    })
    .await;
}

// proves IDN-1, COM-2
#[tokio::test]
async fn sign_up_answers_the_same_for_addresses_that_are_taken() {
    both(async |site| {
        identity(&site, ADDRESS).await;
        // All statements are warm.
        sign_up(&site, new_identity("warm@mail.example"))
            .await
            .unwrap();
        let mut told = Vec::new();
        for email in [ADDRESS, "nobody@mail.example", "IDA@MAIL.example"] {
            let (answer, cost) = site.cost_of(sign_up(&site, new_identity(email))).await;
            answer.unwrap();
            assert_eq!((cost.hashes, cost.mails), (1, 1), "{email}");
            told.push(cost.statements);
        }
        assert_eq!(told[0], told[1]);
        assert_eq!(told[0], told[2]);
        // The holder is told, and gets no token; nobody else does.
        let letters = letters(&site).await;
        let told: Vec<_> = letters
            .iter()
            .filter(|l| l.text.contains("already"))
            .collect();
        assert_eq!(told.len(), 2);
        assert!(
            told.iter()
                .all(|l| l.to == ADDRESS && !l.text.contains("entl_"))
        );
        let tokens = letters.iter().filter(|l| l.text.contains("entl_"));
        assert_eq!(tokens.filter(|l| l.to.to_lowercase() == ADDRESS).count(), 1);
        assert_eq!(identities(&site).await, 1);
    })
    .await;
}

// proves IDN-1
#[tokio::test]
async fn addresses_in_a_tenants_domain_are_refused_whoever_has_them() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ida = identity(&site, ADDRESS).await;
        let work = [
            contoso.admin.sign_in_name.as_str(),
            "nobody@contoso.partners.localhost",
            "nobody@nowhere.partners.localhost",
            "nobody@PARTNERS.localhost",
        ];
        let mut told = Vec::new();
        for email in work {
            let status = refused(
                sign_up(&site, new_identity(email)).await,
                Code::InvalidArgument,
                "WORK_ADDRESS",
            );
            assert_eq!(fields(&status), ["email"]);
            told.push((status.message().to_owned(), status.details().to_vec()));
            let status = refused(
                change_email(&ida.caller, &ida.name, email).await,
                Code::InvalidArgument,
                "WORK_ADDRESS",
            );
            assert_eq!(fields(&status), ["new_email"]);
        }
        assert!(
            told.windows(2).all(|w| w[0] == w[1]),
            "it is told of the domain"
        );
        sign_up(&site, new_identity("ann@notpartners.localhost.example"))
            .await
            .unwrap();
        sign_up(&site, new_identity("ann@evilpartners.localhost"))
            .await
            .unwrap();
    })
    .await;
}

// proves IDN-1, PWD-2, ATK-5
#[tokio::test]
async fn sign_up_takes_one_address_and_a_good_password() {
    both(async |site| {
        for bad in [
            "ida@mail.example,eve@evil.example",
            "ida@mail.example;eve@evil.example",
            "ida@mail.example eve@evil.example",
            "ida@mail.example\neve@evil.example",
            "ida@mail.example\r\nBcc: eve@evil.example",
            "Ida <eve@evil.example>",
            "\"ida\"@mail.example",
            "eve@evil",
        ] {
            let status = refused(
                sign_up(&site, new_identity(bad)).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["email"], "{bad:?}");
        }
        for bad in [
            "short",
            "password1234",
            "ida.noor-blue-gate-7",
            "xx ida.noor@mail.example",
        ] {
            let request = SignUpRequest {
                password: bad.to_owned(),
                ..new_identity("ida.noor@mail.example")
            };
            let status = refused(
                sign_up(&site, request).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["password"], "{bad}");
        }
        assert!(letters(&site).await.is_empty());
        assert_eq!(
            number(&site, "SELECT COUNT(*) AS n FROM links", []).await,
            0
        );
    })
    .await;
}

// proves COM-4, COM-8, IDN-1
#[tokio::test]
async fn sign_up_repeated_is_one_mail_and_checked_only_is_none() {
    both(async |site| {
        let checked = SignUpRequest {
            validate_only: true,
            ..new_identity(ADDRESS)
        };
        let before = crate::claims::row_counts(&site.app).await;
        sign_up(&site, checked).await.unwrap();
        assert_eq!(crate::claims::row_counts(&site.app).await, before);
        let request = SignUpRequest {
            request_id: request_id(),
            ..new_identity(ADDRESS)
        };
        for _ in 0..3 {
            sign_up(&site, request.clone()).await.unwrap();
        }
        assert_eq!(letters(&site).await.len(), 1);
        let other = SignUpRequest {
            given_name: "Eve".to_owned(),
            ..request.clone()
        };
        let status = refused(
            sign_up(&site, other).await,
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
        );
        assert_eq!(fields(&status), ["request_id"]);
        // Confirmed again under its ID, it gives the same answer; without, the link is used.
        let token = mailed_token(&site, ADDRESS).await.unwrap();
        let request = ConfirmIdentityRequest {
            token: token.clone(),
            password: PASSWORD.to_owned(),
            request_id: request_id(),
        };
        let nobody = site.nobody();
        let first = nobody.identities().confirm_identity(request.clone()).await;
        let again = nobody.identities().confirm_identity(request).await.unwrap();
        assert_eq!(first.unwrap().into_inner(), again.into_inner());
        link_invalid(confirm(&site, &token, PASSWORD).await);
        assert_eq!(identities(&site).await, 1);
    })
    .await;
}

// proves IDN-1, ATK-9
#[tokio::test]
async fn whoever_signs_up_with_anothers_address_gets_nothing_of_it() {
    both(async |site| {
        // Eve asks with a password of hers, Ida with her own: two mails to Ida.
        let eves = SignUpRequest {
            password: NEW.to_owned(),
            ..new_identity(ADDRESS)
        };
        sign_up(&site, eves).await.unwrap();
        let of_eve = mailed_token(&site, ADDRESS).await.unwrap();
        sign_up(&site, new_identity(ADDRESS)).await.unwrap();
        let of_ida = mailed_token(&site, ADDRESS).await.unwrap();
        // Ida opens the wrong one: her password isn't that of it.
        let status = refused(
            confirm(&site, &of_eve, PASSWORD).await,
            Code::InvalidArgument,
            "SIGN_IN_FAILED",
        );
        assert_eq!(fields(&status), ["password"]);
        assert_eq!(identities(&site).await, 0);
        confirm(&site, &of_ida, PASSWORD).await.unwrap();
        // What was asked for the same address before is worth nothing any more.
        link_invalid(confirm(&site, &of_eve, NEW).await);
        refused(
            site.tokens(ADDRESS, NEW).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        site.tokens(ADDRESS, PASSWORD).await.unwrap();
    })
    .await;
}

// proves ATK-3, IDN-1
#[tokio::test]
async fn one_address_has_one_identity_however_many_confirm_at_once() {
    both(async |site| {
        sign_up(&site, new_identity(ADDRESS)).await.unwrap();
        let token = mailed_token(&site, ADDRESS).await.unwrap();
        let answers = join_all((0..32).map(|_| confirm(&site, &token, PASSWORD))).await;
        assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
        answers
            .into_iter()
            .filter(Result::is_err)
            .for_each(|a| drop(link_invalid(a)));
        // As many links of one address: one of them is good.
        let mut tokens = Vec::new();
        for _ in 0..8 {
            let request = new_identity("twin@mail.example");
            sign_up(&site, request).await.unwrap();
            tokens.push(mailed_token(&site, "twin@mail.example").await.unwrap());
        }
        let answers = join_all(tokens.iter().map(|t| confirm(&site, t, PASSWORD))).await;
        assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
        answers
            .into_iter()
            .filter(Result::is_err)
            .for_each(|a| drop(link_invalid(a)));
        assert_eq!(identities(&site).await, 2);
    })
    .await;
}

// proves PWD-4, IDN-1, COM-18
#[tokio::test]
async fn mails_that_strangers_have_sent_are_limited_by_address_and_network() {
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::open_with(database, |c| c.limits_factor = 1).await;
        identity(&site, ADDRESS).await;
        let limited = |tried: Result<(), Status>| {
            let status = refused(tried, Code::ResourceExhausted, "TOO_MANY_CALLS");
            let retry = status.get_details_retry_info().unwrap();
            let wait = retry.retry_delay.unwrap().as_secs();
            assert!((3_000..=3_600).contains(&wait), "{wait}");
        };
        // The address is counted, whether or not it is taken, and however it is spelt; the one that Ida sent herself included.
        for (email, more) in [(ADDRESS, 4), ("nobody@mail.example", 5)] {
            for _ in 0..more {
                sign_up(&site, new_identity(email)).await.unwrap();
            }
            limited(sign_up(&site, new_identity(email)).await);
            limited(sign_up(&site, new_identity(&email.to_uppercase())).await);
        }
        // Another kind of mail is counted by itself.
        for name in [ADDRESS, "nobody@contoso.partners.localhost"] {
            for _ in 0..5 {
                ask_recovery(&site, name).await.unwrap();
            }
            limited(ask_recovery(&site, name).await);
        }
        // One network has had sixty sent, whoever of it asked, and for whom.
        let service = Service::open(&site).await.caller(&site).await;
        let ask = async |network: u8, host: u8| {
            let mut request = Request::new(StartPasswordRecoveryRequest {
                sign_in_name: format!("user-{network}-{host}@mail.example"),
                ..StartPasswordRecoveryRequest::default()
            });
            let said = format!("198.51.{network}.{host}").parse().unwrap();
            request
                .metadata_mut()
                .insert("entente-client-address", said);
            service
                .sessions()
                .start_password_recovery(request)
                .await
                .map(drop)
        };
        for host in 0..60 {
            ask(100, host).await.unwrap();
        }
        limited(ask(100, 60).await);
        ask(101, 0).await.unwrap();
        site.advance(3_601).await;
        sign_up(&site, new_identity(ADDRESS)).await.unwrap();
        ask_recovery(&site, ADDRESS).await.unwrap();
    }
}

// ---- oneself

// proves PWD-1, PWD-3, PWD-9, IDN-1
#[tokio::test]
async fn sessions_of_identities_are_listed_refreshed_and_ended() {
    both(async |site| {
        let ida = identity(&site, ADDRESS).await;
        let tokens = site.tokens(ADDRESS, PASSWORD).await.unwrap();
        assert_eq!(tokens.tenant, "");
        assert!(
            tokens
                .session
                .starts_with(&format!("{}/sessions/", ida.name))
        );
        let second = site.with_token(&tokens.access_token);
        let listed = second.list_sessions(&ida.name).await.unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed.iter().filter(|s| s.current).count(), 1);
        let fresh = refresh(&site, &tokens.refresh_token).await.unwrap();
        let second = site.with_token(&fresh.access_token);
        // Another's sessions are nobody's matter.
        let eve = identity(&site, "eve@mail.example").await;
        denied(eve.caller.list_sessions(&ida.name).await);
        let end = |name: &str| EndSessionRequest {
            name: name.to_owned(),
            ..EndSessionRequest::default()
        };
        denied(
            eve.caller
                .sessions()
                .end_session(end(&tokens.session))
                .await,
        );
        ida.caller
            .sessions()
            .end_session(end(&tokens.session))
            .await
            .unwrap();
        for tried in [
            second.who_am_i().await.map(drop),
            refresh(&site, &fresh.refresh_token).await.map(drop),
        ] {
            refused(tried, Code::Unauthenticated, "TOKEN_INVALID");
        }
        // A new password ends all others.
        let third = site.sign_in(ADDRESS, PASSWORD).await;
        refused(
            change_password(&ida.caller, PASSWORD, "ida-noor-green-77").await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let changed = change_password(&ida.caller, PASSWORD, NEW).await.unwrap();
        refused(
            third.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        let ida = site.with_token(&changed.access_token);
        ida.sessions()
            .sign_out(SignOutRequest::default())
            .await
            .unwrap();
        refused(ida.who_am_i().await, Code::Unauthenticated, "TOKEN_INVALID");
        refused(
            site.tokens(ADDRESS, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        site.tokens(ADDRESS, NEW).await.unwrap();
    })
    .await;
}

// proves PWD-7, ATK-25, IDN-1
#[tokio::test]
async fn guesses_at_identities_are_locked_like_those_at_nobody() {
    both(async |site| {
        identity(&site, ADDRESS).await;
        let service = Service::open(&site).await.caller(&site).await;
        let from = async |network: usize, name: &str, password: &str| {
            sign_in_from(&service, &format!("198.51.{network}.7"), name, password).await
        };
        for name in [ADDRESS, "nobody@mail.example"] {
            for _ in 0..10 {
                let tried = from(1, name, "wrong green chair").await;
                refused(tried, Code::Unauthenticated, "SIGN_IN_FAILED");
            }
            let status = refused(
                from(1, name, PASSWORD).await,
                Code::ResourceExhausted,
                "SIGN_IN_LOCKED",
            );
            assert!(status.get_details_retry_info().is_some());
        }
        // A hundred from strange networks close it there; the known one goes on.
        for network in 2..11 {
            for _ in 0..10 {
                let tried = from(network, ADDRESS, "wrong green chair").await;
                refused(tried, Code::Unauthenticated, "SIGN_IN_FAILED");
            }
        }
        let status = refused(
            from(12, ADDRESS, PASSWORD).await,
            Code::ResourceExhausted,
            "SIGN_IN_LOCKED",
        );
        assert!(
            status.get_details_retry_info().is_none(),
            "waiting won't help"
        );
        site.tokens(ADDRESS, PASSWORD).await.unwrap();
    })
    .await;
}

// proves IDN-2, ATK-1, ATK-10, COM-5
#[tokio::test]
async fn nobody_sees_or_changes_an_identity_but_itself() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ida = identity(&site, ADDRESS).await;
        let eve = identity(&site, "eve@mail.example").await;
        let as_identity = contoso.admin.name.rsplit('/').next().unwrap();
        let as_identity = format!("identities/{as_identity}");
        let operator = site.operator().await;
        for caller in [&eve.caller, &contoso.admin.caller, &operator] {
            for name in [&ida.name, &as_identity] {
                let update = UpdateIdentityRequest {
                    identity: Some(Identity {
                        name: name.clone(),
                        given_name: "Eve".to_owned(),
                        ..Identity::default()
                    }),
                    ..UpdateIdentityRequest::default()
                };
                denied(get(caller, name).await);
                denied(caller.identities().update_identity(update).await);
                denied(change_email(caller, name, "x@mail.example").await);
                denied(export(caller, name).await);
                denied(close(caller, name).await);
            }
        }
        // A user is no identity, and an identity no user.
        denied(
            ida.caller
                .set_contact(&contoso.admin.name, "x@mail.example")
                .await,
        );
        let before = get(&ida.caller, &ida.name).await.unwrap();
        let change = |identity: Identity, paths: &[&str], etag: &str| UpdateIdentityRequest {
            identity: Some(Identity {
                name: ida.name.clone(),
                ..identity
            }),
            update_mask: (!paths.is_empty()).then(|| mask(paths)),
            etag: etag.to_owned(),
            ..UpdateIdentityRequest::default()
        };
        let forged = Identity {
            email: "eve@evil.example".to_owned(),
            state: IdentityState::Closed as i32,
            display_name: "Root".to_owned(),
            ..Identity::default()
        };
        for field in [
            "name",
            "email",
            "state",
            "display_name",
            "create_time",
            "update_time",
            "close_time",
            "purge_time",
            "etag",
        ] {
            let tried = ida
                .caller
                .identities()
                .update_identity(change(forged.clone(), &[field], ""))
                .await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), ["update_mask"], "{field}");
        }
        let none = ida
            .caller
            .identities()
            .update_identity(change(forged, &[], ""))
            .await
            .unwrap()
            .into_inner();
        assert_eq!((&none.email, none.state), (&before.email, before.state));
        let renamed = Identity {
            given_name: "Ada".to_owned(),
            ..Identity::default()
        };
        let stale = change(renamed.clone(), &["given_name"], &before.etag);
        refused(
            ida.caller.identities().update_identity(stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let request = change(renamed, &["given_name"], &none.etag);
        let after = ida.caller.identities().update_identity(request).await;
        assert_eq!(after.unwrap().into_inner().display_name, "Ada Noor");
        let me = ida.caller.who_am_i().await.unwrap();
        assert_eq!(me.display_name, "Ada Noor");
        assert_eq!(
            events(&site, "directory.v1.IdentityUpdated", &ida.name).await,
            2
        );
    })
    .await;
}

// ---- another address

// proves IDN-2, ATK-5
#[tokio::test]
async fn address_is_changed_by_who_proves_the_new_one_and_the_old_one_is_told() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ida = identity(&site, ADDRESS).await;
        let new = "ida@new.example";
        let gwen = guest(&site, &contoso.name, &ida).await;
        // A way back for the old address is asked for, and left.
        ask_recovery(&site, ADDRESS).await.unwrap();
        let way_back = mailed_token(&site, ADDRESS).await.unwrap();
        for bad in [
            "ida@new.example,eve@evil.example",
            "ida@new.example\nBcc: e@evil.example",
            "",
        ] {
            let tried = change_email(&ida.caller, &ida.name, bad).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), ["new_email"]);
        }
        let tried = change_email(&ida.caller, &ida.name, "Ida@MAIL.example").await;
        refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        change_email(&ida.caller, &ida.name, new).await.unwrap();
        let first = mailed_token(&site, new).await.unwrap();
        assert_eq!(get(&ida.caller, &ida.name).await.unwrap().email, ADDRESS);
        // A later request makes the first void.
        change_email(&ida.caller, &ida.name, new).await.unwrap();
        let second = mailed_token(&site, new).await.unwrap();
        link_invalid(confirm_email(&site, &first).await);
        let link = format!("{}/confirm-email#{second}", site.app.config.public_origin);
        assert!(
            letters(&site)
                .await
                .iter()
                .any(|l| l.to == new && l.text.contains(&link))
        );
        let changed = confirm_email(&site, &second).await.unwrap();
        assert_eq!(
            (changed.name.as_str(), changed.email.as_str()),
            (ida.name.as_str(), new)
        );
        link_invalid(confirm_email(&site, &second).await);
        // Old and new: signing in, recovery, and what tenants see of the guest.
        refused(
            site.tokens(ADDRESS, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        site.tokens(new, PASSWORD).await.unwrap();
        ida.caller.who_am_i().await.unwrap();
        link_invalid(recover(&site, &way_back, NEW).await);
        let seen = contoso.admin.caller.user(&gwen).await.unwrap();
        assert_eq!(seen.sign_in_name, new);
        let letters = letters(&site).await;
        let told = letters.iter().rfind(|l| l.to == ADDRESS).unwrap();
        assert!(
            told.text.contains(new) && !told.text.contains("entl_"),
            "{}",
            told.text
        );
        assert!(letters.iter().all(|l| !l.to.contains("evil")));
        let kind = "directory.v1.IdentityEmailChanged";
        assert_eq!(events(&site, kind, &ida.name).await, 1);
        // The old address is free.
        identity(&site, ADDRESS).await;
    })
    .await;
}

// proves IDN-2, COM-2
#[tokio::test]
async fn changing_to_a_taken_address_answers_the_same_and_gives_nothing() {
    both(async |site| {
        let ida = identity(&site, ADDRESS).await;
        identity(&site, "bob@mail.example").await;
        change_email(&ida.caller, &ida.name, "warm@mail.example")
            .await
            .unwrap();
        let mut told = Vec::new();
        for email in ["bob@mail.example", "free@mail.example"] {
            let call = change_email(&ida.caller, &ida.name, email);
            let (answer, cost) = site.cost_of(call).await;
            answer.unwrap();
            assert_eq!((cost.hashes, cost.mails), (0, 1), "{email}");
            told.push(cost.statements);
        }
        assert_eq!(told[0], told[1]);
        let letters = letters(&site).await;
        let bobs = letters
            .iter()
            .rfind(|l| l.to == "bob@mail.example")
            .unwrap();
        assert!(bobs.text.contains("already") && !bobs.text.contains("entl_"));
        // Taken while the link was on its way: the link is void.
        let token = mailed_token(&site, "free@mail.example").await.unwrap();
        identity(&site, "free@mail.example").await;
        link_invalid(confirm_email(&site, &token).await);
        assert_eq!(get(&ida.caller, &ida.name).await.unwrap().email, ADDRESS);
    })
    .await;
}

// proves IDN-2, PWD-3
#[tokio::test]
async fn thief_of_a_session_does_not_take_the_address() {
    both(async |site| {
        let ida = identity(&site, ADDRESS).await;
        // An old sign-in isn't enough.
        site.advance(601).await;
        let fresh = again(&site, &ida).await;
        for tried in [
            change_email(&ida.caller, &ida.name, "eve@evil.example").await,
            close(&ida.caller, &ida.name).await.map(drop),
        ] {
            refused(tried, Code::FailedPrecondition, "RECENT_SIGN_IN_REQUIRED");
        }
        // Nor a link that was asked for before the password was changed, or recovered.
        change_email(&fresh, &ida.name, "eve@evil.example")
            .await
            .unwrap();
        let token = mailed_token(&site, "eve@evil.example").await.unwrap();
        change_password(&fresh, PASSWORD, NEW).await.unwrap();
        link_invalid(confirm_email(&site, &token).await);
        let fresh = site.sign_in(ADDRESS, NEW).await;
        change_email(&fresh, &ida.name, "eve@evil.example")
            .await
            .unwrap();
        let token = mailed_token(&site, "eve@evil.example").await.unwrap();
        ask_recovery(&site, ADDRESS).await.unwrap();
        let way_back = mailed_token(&site, ADDRESS).await.unwrap();
        recover(&site, &way_back, PASSWORD).await.unwrap();
        link_invalid(confirm_email(&site, &token).await);
        site.tokens(ADDRESS, PASSWORD).await.unwrap();
    })
    .await;
}

// proves ATK-7, IDN-1, IDN-2
#[tokio::test]
async fn links_of_identities_end_on_the_dot() {
    both(async |site| {
        sign_up(&site, new_identity(ADDRESS)).await.unwrap();
        let token = mailed_token(&site, ADDRESS).await.unwrap();
        let lifetime = "SELECT expire_time - create_time AS n FROM links";
        assert_eq!(number(&site, lifetime, []).await, 24 * 3_600 * 1_000_000);
        links_end(&site, 3, -1_000).await;
        link_invalid(confirm(&site, &token, PASSWORD).await);
        links_end(&site, 3, 60_000_000).await;
        let made = confirm(&site, &token, PASSWORD).await.unwrap();
        let ida = site.sign_in(ADDRESS, PASSWORD).await;
        change_email(&ida, &made.name, "ida@new.example")
            .await
            .unwrap();
        let token = mailed_token(&site, "ida@new.example").await.unwrap();
        assert_eq!(number(&site, lifetime, []).await, 24 * 3_600 * 1_000_000);
        links_end(&site, 4, -1_000).await;
        link_invalid(confirm_email(&site, &token).await);
        links_end(&site, 4, 60_000_000).await;
        confirm_email(&site, &token).await.unwrap();
    })
    .await;
}

// proves ATK-6, COM-20
#[tokio::test]
async fn links_for_strangers_keep_the_configured_origin() {
    both(async |site| {
        identity(&site, ADDRESS).await;
        let evil = Endpoint::from_shared(format!("http://{}", site.address))
            .unwrap()
            .origin("http://evil.example".parse().unwrap())
            .connect_lazy();
        let caller = Caller {
            channel: evil,
            ..site.nobody()
        };
        let forged = |mut metadata: tonic::metadata::MetadataMap| {
            for key in [
                "x-forwarded-host",
                "forwarded",
                "x-original-host",
                "origin",
                "referer",
            ] {
                metadata.insert(key, "http://evil.example".parse().unwrap());
            }
            metadata
        };
        let mut request = Request::new(new_identity("new@mail.example"));
        *request.metadata_mut() = forged(Default::default());
        caller.identities().sign_up(request).await.unwrap();
        let mut request = Request::new(StartPasswordRecoveryRequest {
            sign_in_name: ADDRESS.to_owned(),
            ..Default::default()
        });
        *request.metadata_mut() = forged(Default::default());
        caller
            .sessions()
            .start_password_recovery(request)
            .await
            .unwrap();
        let letters = letters(&site).await;
        let origin = &site.app.config.public_origin;
        for (to, page) in [
            ("new@mail.example", "confirm-identity"),
            (ADDRESS, "recover-password"),
        ] {
            let letter = letters.iter().rfind(|l| l.to == to).unwrap();
            assert!(
                letter.text.contains(&format!("{origin}/{page}#entl_")),
                "{}",
                letter.text
            );
            assert!(!letter.text.contains("evil.example"), "{}", letter.text);
        }
    })
    .await;
}

// ---- export and end

// proves IDN-2
#[tokio::test]
async fn export_tells_all_that_is_kept_of_the_person() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ida = identity(&site, ADDRESS).await;
        let gwen = guest(&site, &contoso.name, &ida).await;
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![gwen.clone()],
            rights: Some(rights(&[AccountRole::Developer])),
            ..AddMembersRequest::default()
        };
        let admin = &contoso.admin.caller;
        admin.members().add_members(request).await.unwrap();
        switch(&ida.caller, &contoso.name).await.unwrap();
        let made = ida
            .caller
            .tenants()
            .create_tenant(new_tenant("noors"))
            .await;
        let made = made.unwrap().into_inner().tenant.unwrap();
        let ended = site.sign_in(ADDRESS, PASSWORD).await;
        ended
            .sessions()
            .sign_out(SignOutRequest::default())
            .await
            .unwrap();
        for _ in 0..60 {
            get(&ida.caller, &ida.name).await.unwrap();
            let update = UpdateIdentityRequest {
                identity: Some(Identity {
                    name: ida.name.clone(),
                    family_name: "Noor".to_owned(),
                    ..Identity::default()
                }),
                ..UpdateIdentityRequest::default()
            };
            ida.caller
                .identities()
                .update_identity(update)
                .await
                .unwrap();
        }
        let told = export(&ida.caller, &ida.name).await.unwrap();
        assert_eq!(
            told.identity,
            Some(get(&ida.caller, &ida.name).await.unwrap())
        );
        assert_eq!(told.sessions.len(), 3, "one ended, and one as a guest");
        assert_eq!(told.sessions.iter().filter(|s| s.current).count(), 1);
        assert_eq!(told.networks.len(), 1);
        assert_eq!(told.networks[0].network, "127.0.0.0/24");
        assert_eq!((told.guests.len(), &told.guests[0].name), (1, &gwen));
        assert_eq!(told.rights.len(), 1);
        let right = &told.rights[0];
        assert_eq!(
            (&right.resource, &right.holder, right.by_group),
            (&account, &gwen, false)
        );
        assert_eq!(right.rights, ["DEVELOPER"]);
        assert_eq!(told.tenants, [made.name]);
        assert_eq!(told.mails.len(), 1);
        assert_eq!(told.mails[0].template, "identity_confirmation");
        let listed = audited(&ida.caller, &ida.name, "").await.unwrap();
        assert!(listed.len() > 60);
        assert_eq!(told.audit_events, listed, "all of them, in their order");
    })
    .await;
}

// proves IDN-2, ROL-9, USR-6
#[tokio::test]
async fn closed_identity_is_out_everywhere_at_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ida = identity(&site, ADDRESS).await;
        let gwen = guest(&site, &contoso.name, &ida).await;
        let admin = &contoso.admin.caller;
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![gwen.clone()],
            rights: Some(rights(&[AccountRole::Manager])),
            ..AddMembersRequest::default()
        };
        admin.members().add_members(request).await.unwrap();
        let leave = LeaveAccountRequest {
            name: contoso.admin.member_of(&account),
            ..LeaveAccountRequest::default()
        };
        admin.members().leave_account(leave).await.unwrap();
        let tokens = site.tokens(ADDRESS, PASSWORD).await.unwrap();
        let as_guest = switch(&ida.caller, &contoso.name).await.unwrap();
        let guest_caller = site.with_token(&as_guest.access_token);
        guest_caller.who_am_i().await.unwrap();
        ask_recovery(&site, ADDRESS).await.unwrap();
        let way_back = mailed_token(&site, ADDRESS).await.unwrap();
        let fresh = again(&site, &ida).await;
        change_email(&fresh, &ida.name, "ida@new.example")
            .await
            .unwrap();
        let new_address = mailed_token(&site, "ida@new.example").await.unwrap();

        let checked = CloseIdentityRequest {
            name: ida.name.clone(),
            validate_only: true,
            ..CloseIdentityRequest::default()
        };
        let would = fresh.identities().close_identity(checked).await.unwrap();
        assert_eq!(would.into_inner().losses.unwrap().memberships.len(), 1);
        fresh.who_am_i().await.unwrap();
        let request = CloseIdentityRequest {
            name: ida.name.clone(),
            request_id: request_id(),
            ..CloseIdentityRequest::default()
        };
        let closed = fresh.identities().close_identity(request.clone()).await;
        let closed = closed.unwrap().into_inner();
        assert_eq!(closed.resources[0].state(), IdentityState::Closed);
        let losses = closed.losses.clone().unwrap();
        assert_eq!(losses.memberships.len(), 1);
        assert_eq!(losses.session_count, 4);
        // The call ended the right to make it; its answer is there all the same (COM-4).
        let again = fresh.identities().close_identity(request).await;
        assert_eq!(again.unwrap().into_inner(), closed);
        for caller in [&fresh, &ida.caller, &guest_caller] {
            refused(
                caller.who_am_i().await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
            );
        }
        for token in [&tokens.refresh_token, &as_guest.refresh_token] {
            refused(
                refresh(&site, token).await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
            );
        }
        refused(
            site.tokens(ADDRESS, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        link_invalid(recover(&site, &way_back, NEW).await);
        link_invalid(confirm_email(&site, &new_address).await);
        let seen = admin.user(&gwen).await.unwrap();
        assert_eq!(seen.state(), UserState::Deleted);
        let told = events(&site, "account.v1.AccountWithoutManager", &account).await;
        assert_eq!(told, 1);
        assert_eq!(
            events(&site, "directory.v1.IdentityClosed", &ida.name).await,
            1
        );
        let letters = letters(&site).await;
        let told = letters.iter().rfind(|l| l.to == ADDRESS).unwrap();
        assert!(told.text.contains("closed"), "{}", told.text);
        // Its address is free, and who has it next inherits nothing.
        let next = identity(&site, ADDRESS).await;
        assert_ne!(next.name, ida.name);
        assert!(next.caller.who_am_i().await.unwrap().tenants.is_empty());
        denied(switch(&next.caller, &contoso.name).await);
        denied(audited(&next.caller, &ida.name, "").await);
        // What is kept is purged after 30 days; the chain stays.
        let left = "SELECT COUNT(*) AS n FROM users WHERE id = $1";
        assert_eq!(number(&site, left, [id(&ida.name).into()]).await, 1);
        site.advance(30 * 24 * 3_600 + 60).await;
        site.settle().await;
        assert_eq!(number(&site, left, [id(&ida.name).into()]).await, 0);
        let operator = site.operator().await;
        assert!(!audited(&operator, &ida.name, "").await.unwrap().is_empty());
        crate::claims::chains_are_intact(&site.app).await;
    })
    .await;
}

// proves IDN-2
#[tokio::test]
async fn identity_that_owns_an_account_is_not_closed() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ida = identity(&site, ADDRESS).await;
        own_account(&site, &ida, &account).await;
        let status = refused(
            close(&ida.caller, &ida.name).await,
            Code::FailedPrecondition,
            "OWNS_ACCOUNT",
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["account"], account);
        ida.caller.who_am_i().await.unwrap();
        let sql = "DELETE FROM grants WHERE principal_id = $1";
        change(&site, sql, [id(&ida.name).into()]).await;
        close(&ida.caller, &ida.name).await.unwrap();
    })
    .await;
}

// ---- tenants, audit, services

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
