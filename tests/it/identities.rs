//! Personal identities (IDN-1, IDN-2): made by who reads the mail of the address and knows the password, and by nobody else. What an
//! identity does with itself: `identities/oneself.rs`; its end: `identities/end.rs`; elsewhere: `identities/abroad.rs`.

mod abroad;
mod end;
mod oneself;

use entente::proto::{
    access::AccountRole,
    directory::{
        ChangeEmailRequest, CloseIdentityRequest, CloseIdentityResponse, ConfirmEmailRequest,
        ConfirmIdentityRequest, ExportIdentityRequest, ExportIdentityResponse, GetIdentityRequest,
        Identity, IdentityState, ListTenantsRequest, SignUpRequest, StartPasswordRecoveryRequest,
        SwitchTenantRequest, TokenSet,
    },
};
use futures_util::future::join_all;
use sea_orm::Value;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{
    harness::{Caller, Database, PASSWORD, Person, Site, both, fields, refused, request_id},
    people::{
        People as _, Service, ask_recovery, audited, change, confirm, events, id, identity,
        letters, link_invalid, mailed_token, new_identity, number,
    },
};

pub(super) const ADDRESS: &str = "ida@mail.example";
pub(super) const NEW: &str = "green chair on a hill";

pub(super) async fn sign_up(site: &Site, request: SignUpRequest) -> Result<(), Status> {
    site.nobody().identities().sign_up(request).await.map(drop)
}

pub(super) async fn get(caller: &Caller, name: &str) -> Result<Identity, Status> {
    let name = name.to_owned();
    let request = GetIdentityRequest { name };
    let got = caller.identities().get_identity(request).await;
    got.map(Response::into_inner)
}

pub(super) async fn change_email(
    caller: &Caller,
    name: &str,
    new_email: &str,
) -> Result<(), Status> {
    let request = ChangeEmailRequest {
        name: name.to_owned(),
        new_email: new_email.to_owned(),
        ..ChangeEmailRequest::default()
    };
    caller.identities().change_email(request).await.map(drop)
}

pub(super) async fn confirm_email(site: &Site, token: &str) -> Result<Identity, Status> {
    let request = ConfirmEmailRequest {
        token: token.to_owned(),
        ..ConfirmEmailRequest::default()
    };
    let done = site.nobody().identities().confirm_email(request).await;
    done.map(Response::into_inner)
}

pub(super) async fn close(caller: &Caller, name: &str) -> Result<CloseIdentityResponse, Status> {
    let request = CloseIdentityRequest {
        name: name.to_owned(),
        ..CloseIdentityRequest::default()
    };
    let done = caller.identities().close_identity(request).await;
    done.map(Response::into_inner)
}

/// All that an export tells, in one.
pub(super) async fn export(caller: &Caller, name: &str) -> Result<ExportIdentityResponse, Status> {
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
        all.invitations.extend(piece.invitations);
        all.mails.extend(piece.mails);
        all.documents.extend(piece.documents);
        all.account_resources.extend(piece.account_resources);
        all.language_code.push_str(&piece.language_code);
        all.audit_events.extend(piece.audit_events);
    }
    Ok(all)
}

pub(super) async fn identities(site: &Site) -> i64 {
    number(site, "SELECT COUNT(*) AS n FROM users WHERE kind = 3", []).await
}

/// Ends the time of all links of a kind so many microseconds from now.
pub(super) async fn links_end(site: &Site, kind: i16, after_us: i64) {
    let sql = "UPDATE links SET expire_time = $1 WHERE kind = $2";
    let at = site.app.now().await.unwrap() + after_us;
    change(site, sql, [at.into(), kind.into()]).await;
}

/// A right on an account that no RPC gives an identity yet.
pub(super) async fn own_account(site: &Site, person: &Person, account: &str) {
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

pub(super) async fn switch(caller: &Caller, tenant: &str) -> Result<TokenSet, Status> {
    let request = SwitchTenantRequest {
        tenant: tenant.to_owned(),
        ..SwitchTenantRequest::default()
    };
    let done = caller.sessions().switch_tenant(request).await;
    done.map(Response::into_inner)
}

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
