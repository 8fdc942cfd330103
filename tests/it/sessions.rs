//! SessionService: refreshing, ending, one's own password (PWD-1, PWD-2, PWD-3, PWD-5, PWD-8, PWD-9).

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use entente::proto::directory::{
    ChangePasswordRequest, ChangePasswordResponse, EndSessionRequest, SignOutRequest,
};
use tonic::{Code, Response, Status};

use crate::{
    harness::{Caller, PASSWORD, both, fields, new_user, refused, request_id},
    people::{People as _, Service, again, events, id, number, refresh},
};

const NEW: &str = "green chair on a hill";

async fn change_password(
    caller: &Caller,
    old: &str,
    new: &str,
    request_id: &str,
) -> Result<Response<ChangePasswordResponse>, Status> {
    let request = ChangePasswordRequest {
        old_password: old.to_owned(),
        new_password: new.to_owned(),
        request_id: request_id.to_owned(),
    };
    caller.sessions().change_password(request).await
}

// proves PWD-1
#[tokio::test]
async fn refresh_tokens_rotate() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let first = site
            .tokens(&contoso.admin.sign_in_name, PASSWORD)
            .await
            .unwrap();
        let mut token = first.refresh_token.clone();
        for _ in 0..5 {
            site.advance(600).await;
            let next = refresh(&site, &token).await.unwrap();
            assert_ne!(next.refresh_token, token);
            assert_eq!(next.session, first.session);
            assert_eq!(next.session_expire_time, first.session_expire_time);
            site.with_token(&next.access_token)
                .who_am_i()
                .await
                .unwrap();
            token = next.refresh_token;
        }
        // The first access token is long over.
        refused(
            site.with_token(&first.access_token).who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    })
    .await;
}

// proves PWD-1
#[tokio::test]
async fn replaced_refresh_token_works_for_a_minute_while_its_successor_was_not_used() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let name = &contoso.admin.sign_in_name;
        let first = site.tokens(name, PASSWORD).await.unwrap().refresh_token;
        let lost = refresh(&site, &first).await.unwrap().refresh_token;
        site.advance(50).await;
        let second = refresh(&site, &first).await.unwrap();
        // What was lost is worth nothing any more; whoever has it is a thief.
        let thief = site.with_token(&second.access_token);
        thief.who_am_i().await.unwrap();
        refused(
            refresh(&site, &lost).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        refused(
            thief.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );

        // A minute later it is over, though the successor was never used.
        let first = site.tokens(name, PASSWORD).await.unwrap().refresh_token;
        let second = refresh(&site, &first).await.unwrap();
        site.advance(61).await;
        refused(
            refresh(&site, &first).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        refused(
            refresh(&site, &second.refresh_token).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    })
    .await;
}

// proves PWD-1
#[tokio::test]
async fn refresh_token_used_after_its_successor_ends_the_session_for_good() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let name = &contoso.admin.sign_in_name;
        let other = site.tokens(name, PASSWORD).await.unwrap();
        let first = site.tokens(name, PASSWORD).await.unwrap();
        let second = refresh(&site, &first.refresh_token).await.unwrap();
        let third = refresh(&site, &second.refresh_token).await.unwrap();
        refused(
            refresh(&site, &first.refresh_token).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        // The end is kept though the call failed.
        for token in [&first, &second, &third] {
            refused(
                refresh(&site, &token.refresh_token).await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
            );
            refused(
                site.with_token(&token.access_token).who_am_i().await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
            );
        }
        let sql = "SELECT COUNT(*) AS n FROM sessions WHERE id = $1 AND end_time IS NOT NULL";
        assert_eq!(number(&site, sql, [id(&first.session).into()]).await, 1);
        // Another session of the same person goes on.
        refresh(&site, &other.refresh_token).await.unwrap();
    })
    .await;
}

// proves PWD-1, ATK-9
#[tokio::test]
async fn forged_refresh_tokens_end_no_session() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let tokens = site
            .tokens(&contoso.admin.sign_in_name, PASSWORD)
            .await
            .unwrap();
        let text = tokens.refresh_token.strip_prefix("entr_").unwrap();
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        let sealed = |bytes: &[u8]| format!("entr_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
        let mut forged = vec![
            text.to_owned(),
            "entr_".to_owned(),
            "x".repeat(256),
            sealed(&bytes[..47]),
            sealed(&[bytes.as_slice(), &[0]].concat()),
            tokens.access_token[..200].to_owned(),
        ];
        for i in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[i] ^= 1;
            forged.push(sealed(&altered));
        }
        for token in &forged {
            refused(
                refresh(&site, token).await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
            );
        }
        refresh(&site, &tokens.refresh_token).await.unwrap();
    })
    .await;
}

// proves PWD-1
#[tokio::test]
async fn two_refreshes_at_once_give_one_token_that_works() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let first = site
            .tokens(&contoso.admin.sign_in_name, PASSWORD)
            .await
            .unwrap()
            .refresh_token;
        let (one, other) = tokio::join!(refresh(&site, &first), refresh(&site, &first));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_ne!(one.refresh_token, other.refresh_token);
        let sql = "SELECT version AS n FROM sessions WHERE id = $1";
        assert_eq!(number(&site, sql, [id(&one.session).into()]).await, 3);
    })
    .await;
}

// proves PWD-1
#[tokio::test]
async fn access_tokens_and_sessions_expire() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let name = &contoso.admin.sign_in_name;
        let tokens = site.tokens(name, PASSWORD).await.unwrap();
        let caller = site.with_token(&tokens.access_token);
        site.advance(895).await;
        caller.who_am_i().await.unwrap();
        site.advance(5).await;
        refused(
            caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        // Refreshing doesn't lengthen the session.
        let life = tokens.session_expire_time.unwrap().seconds
            - tokens.access_expire_time.unwrap().seconds
            + 900;
        site.advance(life - 900 - 60).await;
        site.settle().await;
        let last = refresh(&site, &tokens.refresh_token).await.unwrap();
        assert_eq!(last.session_expire_time, tokens.session_expire_time);
        let caller = site.with_token(&last.access_token);
        caller.who_am_i().await.unwrap();
        site.advance(61).await;
        refused(
            caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        refused(
            refresh(&site, &last.refresh_token).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    })
    .await;
}

// proves PWD-9
#[tokio::test]
async fn people_list_and_end_their_own_sessions_only() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let second = again(&site, &bob).await;
        let listed = bob.caller.list_sessions(&bob.name).await.unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed.iter().filter(|s| s.current).count(), 1);
        assert!(listed.iter().all(|s| s.client_address == "127.0.0.1"));
        let other = listed.iter().find(|s| !s.current).unwrap().clone();
        let end = |name: &str, etag: &str| EndSessionRequest {
            name: name.to_owned(),
            etag: etag.to_owned(),
            ..EndSessionRequest::default()
        };
        // Nobody else's, not even as a global admin, who has EndUserSessions.
        let admin = &contoso.admin.caller;
        refused(
            admin.sessions().end_session(end(&other.name, "")).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        refused(
            admin.list_sessions(&bob.name).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let mine = admin.list_sessions(&contoso.admin.name).await.unwrap();
        let session = mine[0].name.rsplit('/').next().unwrap();
        let mixed = format!("{}/sessions/{session}", bob.name);
        refused(
            bob.caller.sessions().end_session(end(&mixed, "")).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        refused(
            bob.caller
                .sessions()
                .end_session(end(&other.name, "\"99\""))
                .await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let request = end(&other.name, &other.etag);
        bob.caller.sessions().end_session(request).await.unwrap();
        refused(
            second.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        assert_eq!(bob.caller.list_sessions(&bob.name).await.unwrap().len(), 1);
        assert_eq!(
            events(&site, "directory.v1.SessionEnded", &other.name).await,
            1
        );
        refused(
            bob.caller
                .sessions()
                .end_session(end(&other.name, ""))
                .await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
    })
    .await;
}

// proves PWD-1, PWD-5
#[tokio::test]
async fn signing_out_ends_the_session_of_the_token_alone() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let made = contoso
            .admin
            .caller
            .users()
            .create_user(new_user(&contoso.name, "bob"))
            .await
            .unwrap()
            .into_inner();
        let name = made.user.unwrap().sign_in_name;
        // A temporary password is enough for WhoAmI and SignOut.
        let temporary = &made.temporary_password;
        let tokens = site.tokens(&name, temporary).await.unwrap();
        assert!(tokens.password_change_required);
        let other = site.sign_in(&name, temporary).await;
        let caller = site.with_token(&tokens.access_token);
        let me = caller.who_am_i().await.unwrap();
        assert!(me.password_change_required);
        refused(
            caller.list_sessions(&me.principal).await,
            Code::FailedPrecondition,
            "PASSWORD_CHANGE_REQUIRED",
        );
        let out = caller.sessions().sign_out(SignOutRequest::default()).await;
        out.unwrap();
        refused(
            caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        refused(
            refresh(&site, &tokens.refresh_token).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        other.who_am_i().await.unwrap();
    })
    .await;
}

// proves PWD-1
#[tokio::test]
async fn a_program_has_no_session_to_sign_out_of() {
    both(async |site| {
        let service = Service::open(&site).await.caller(&site).await;
        let out = service.sessions().sign_out(SignOutRequest::default()).await;
        let status = refused(out, Code::PermissionDenied, "PEOPLE_ONLY");
        assert!(status.message().contains("DeleteKey"), "{status:?}");
        service.who_am_i().await.unwrap();
        // Whoever it acts for signs out by it.
        let contoso = site.tenant("contoso").await;
        let acting = site.on_behalf(&service, &contoso.admin.caller);
        let out = acting.sessions().sign_out(SignOutRequest::default()).await;
        out.unwrap();
        let ended = contoso.admin.caller.who_am_i().await;
        refused(ended, Code::Unauthenticated, "TOKEN_INVALID");
    })
    .await;
}

// proves PWD-3, COM-4
#[tokio::test]
async fn changing_the_password_ends_all_other_sessions_and_can_be_repeated() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let old = site.tokens(&bob.sign_in_name, PASSWORD).await.unwrap();
        let mine = site.with_token(&old.access_token);
        let request = request_id();
        let changed = change_password(&mine, PASSWORD, NEW, &request).await;
        let changed = changed.unwrap().into_inner();
        assert_eq!(changed.ended_session_count, 1);
        let tokens = changed.tokens.unwrap();
        assert_eq!(tokens.session, old.session);
        refused(
            bob.caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        mine.who_am_i().await.unwrap();
        refresh(&site, &tokens.refresh_token).await.unwrap();

        // The same call again gets the first answer, without tokens; nothing ends.
        let replay = change_password(&mine, PASSWORD, NEW, &request)
            .await
            .unwrap();
        assert!(replay.metadata().contains_key("entente-replayed"));
        let replay = replay.into_inner();
        assert!(replay.secret_omitted);
        let shown = replay.tokens.unwrap_or_default();
        assert_eq!(
            (shown.access_token, shown.refresh_token),
            Default::default()
        );
        mine.who_am_i().await.unwrap();
        refused(
            change_password(&mine, PASSWORD, "another tall green tree", &request).await,
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
        );
        // One by which the temporary one went, and one now.
        assert_eq!(
            events(&site, "directory.v1.PasswordChanged", &bob.name).await,
            2
        );
        refused(
            site.tokens(&bob.sign_in_name, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        site.tokens(&bob.sign_in_name, NEW).await.unwrap();
    })
    .await;
}

// proves PWD-3, PWD-7, ATK-4
#[tokio::test]
async fn wrong_old_password_changes_nothing_and_counts_as_a_failed_sign_in() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        for _ in 0..10 {
            let status = refused(
                change_password(&bob.caller, "wrong green chair", NEW, "").await,
                Code::InvalidArgument,
                "SIGN_IN_FAILED",
            );
            assert_eq!(fields(&status), ["old_password"]);
        }
        refused(
            change_password(&bob.caller, PASSWORD, NEW, "").await,
            Code::ResourceExhausted,
            "SIGN_IN_LOCKED",
        );
        site.advance(61).await;
        again(&site, &bob).await;
    })
    .await;
}

// proves PWD-2
#[tokio::test]
async fn chosen_passwords_are_long_uncommon_and_not_the_user_name() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "robert.bauer").await;
        let long: String = (0_u32..64).map(|i| format!("{:04x}", i * 40_503 % 65_521)).collect();
        let too_long = format!("{long}x");
        for bad in [
            "short one 9",
            "passwordpassword",
            "qwertyuiop123",
            "my robert.bauer name",
            "ROBERT.BAUER is here",
            &too_long,
            PASSWORD,
        ] {
            println!("{bad}");
            let status = refused(
                change_password(&bob.caller, PASSWORD, bad, "").await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["new_password"]);
        }
        // Any Unicode, spaces kept, normalised but never trimmed.
        let mut old = PASSWORD.to_owned();
        let mut caller = bob.caller.clone();
        for good in [long.as_str(), "мой длинный пароль", " fore\u{302}t étoilée "] {
            let changed = change_password(&caller, &old, good, "").await.unwrap();
            let tokens = changed.into_inner().tokens.unwrap();
            caller = site.with_token(&tokens.access_token);
            old = good.to_owned();
        }
        site.tokens(&bob.sign_in_name, " for\u{ea}t étoilée ")
            .await
            .unwrap();
        refused(
            site.tokens(&bob.sign_in_name, "for\u{ea}t étoilée").await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        let sql = "SELECT COUNT(*) AS n FROM credentials WHERE user_id = $1 AND hash LIKE '$argon2id$v=19$m=19456,t=2,p=1$%'";
        assert_eq!(number(&site, sql, [id(&bob.name).into()]).await, 1);
    })
    .await;
}

// proves PWD-8
#[tokio::test]
async fn who_am_i_tells_name_organisation_and_accounts() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let me = contoso.admin.caller.who_am_i().await.unwrap();
        assert_eq!(me.principal, contoso.admin.name);
        assert_eq!(me.display_name, "Ann Smith");
        assert_eq!(me.tenant.unwrap().name, contoso.name);
        assert_eq!(me.tenants.len(), 1);
        assert_eq!(me.accounts.len(), 1);
        assert_eq!(me.accounts[0].account, account);
        assert_eq!(me.accounts[0].rights.as_ref().unwrap().roles.len(), 2);
        let bob = site.person(&contoso, "bob").await;
        let him = bob.caller.who_am_i().await.unwrap();
        assert_eq!((him.accounts.len(), him.directory_roles.len()), (0, 0));
        refused(
            site.nobody().who_am_i().await,
            Code::Unauthenticated,
            "CREDENTIALS_MISSING",
        );
    })
    .await;
}
