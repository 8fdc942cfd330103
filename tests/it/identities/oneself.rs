//! What an identity does with itself: sessions, names, another address.

use entente::proto::directory::{
    EndSessionRequest, Identity, IdentityState, SignOutRequest, StartPasswordRecoveryRequest,
    UpdateIdentityRequest,
};
use tonic::{Code, Request, transport::Endpoint};
use tonic_types::StatusExt as _;

use crate::{
    harness::{Caller, PASSWORD, both, fields, refused},
    people::{
        People as _, Service, again, ask_recovery, change_password, confirm, denied, events, guest,
        identity, letters, link_invalid, mailed_token, mask, new_identity, number, recover,
        refresh, sign_in_from,
    },
};

use super::{ADDRESS, NEW, change_email, close, confirm_email, export, get, links_end, sign_up};

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
