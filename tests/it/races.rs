//! What a person's way in does while a credential changes, a session ends, or somebody guesses elsewhere (PWD-3, PWD-5, PWD-7, ATK-25).

use std::time::Duration;

use entente::{
    proto::{
        access::AccountRole,
        directory::{
            ChangePasswordRequest, ConfirmIdentityRequest, EndSessionRequest, SignOutRequest,
            SwitchTenantRequest,
        },
    },
    store::scope_key::ScopeKey,
};
use sea_orm::Value;
use tokio::sync::oneshot;
use tonic::{Code, Status};

use crate::{
    claims::{count, execute},
    groups::{Groups as _, group},
    guests::{guest, switch},
    harness::{Caller, PASSWORD, Site, both, membership, refused, wait_for_locks},
    members::{add, remove},
    people::{
        People as _, change, eventually, id, mailed_token, new_identity, number, refresh,
        second_admin,
    },
};

const WRONG: &str = "not the right one";

/// Waits until so many calls wait for what is held.
async fn queued(site: &Site, calls: usize) {
    eventually(async || site.app.lanes.present() == calls).await;
    if let Some(url) = &site.url {
        wait_for_locks(url, calls).await;
    }
}

/// Holds a scope's lock until told to let go.
async fn hold(site: &Site, scope: ScopeKey) -> oneshot::Sender<()> {
    let (held, is_held) = oneshot::channel();
    let (release, released) = oneshot::channel();
    let both = std::sync::Arc::new(std::sync::Mutex::new(Some((held, released))));
    let app = site.app.clone();
    tokio::spawn(async move {
        let job = app.job("test", move |tx, _| {
            let both = both.clone();
            Box::pin(async move {
                tx.lock([scope]).await?;
                let (held, released) = both.lock().unwrap().take().unwrap();
                held.send(()).unwrap();
                released.await.unwrap();
                Ok(())
            })
        });
        job.await.unwrap();
    });
    is_held.await.unwrap();
    release
}

// proves PWD-3, PWD-5, ATK-12
#[tokio::test]
async fn sign_in_with_the_old_password_does_not_outlive_its_reset_or_disabling() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        for (name, resets) in [("bob", true), ("dee", false)] {
            let bob = site.person(&contoso, name).await;
            let release = hold(&site, ScopeKey::Tenant(id(&contoso.name))).await;
            let (admin, target) = (contoso.admin.caller.clone(), bob.name.clone());
            let first = tokio::spawn(async move {
                if resets {
                    admin.reset(&target).await.map(drop)
                } else {
                    admin.disable(&target).await.map(drop)
                }
            });
            queued(&site, 1).await;
            let second = site.tokens(&bob.sign_in_name, PASSWORD);
            let release = async {
                tokio::time::sleep(Duration::from_millis(700)).await;
                release.send(()).unwrap();
            };
            let (second, ()) = tokio::join!(second, release);
            first.await.unwrap().unwrap();
            // Whichever came first, nothing of the old password is left.
            if let Ok(tokens) = second {
                let tried = site.with_token(&tokens.access_token).who_am_i().await;
                refused(tried, Code::Unauthenticated, "TOKEN_INVALID");
            }
            let sql = "SELECT COUNT(*) AS n FROM sessions WHERE user_id = $1 AND end_time IS NULL";
            assert_eq!(number(&site, sql, [id(&bob.name).into()]).await, 0);
        }
    })
    .await;
}

fn out<T: std::fmt::Debug>(tried: Result<T, Status>) {
    refused(tried, Code::Unauthenticated, "TOKEN_INVALID");
}

// proves PWD-9, PWD-1, PWD-8
#[tokio::test]
async fn sessions_opened_by_switching_end_with_the_sign_in_that_they_came_from() {
    both(async |site| {
        let guest = guest(&site, &[]).await;
        let name = &guest.fred.sign_in_name;
        for how in ["ended", "signed out", "stolen"] {
            let tokens = site.tokens(name, PASSWORD).await.unwrap();
            let home = site.with_token(&tokens.access_token);
            let there = switch(&home, &guest.contoso.name).await.unwrap();
            let there_caller = site.with_token(&there.access_token);
            // And from there back, and out again: all of one sign-in.
            let back = switch(&there_caller, "").await.unwrap();
            let back = site.with_token(&back.access_token);
            let other = site.sign_in(name, PASSWORD).await;
            match how {
                "ended" => {
                    let request = EndSessionRequest {
                        name: tokens.session.clone(),
                        ..EndSessionRequest::default()
                    };
                    other.sessions().end_session(request).await.unwrap();
                }
                "signed out" => {
                    let request = SignOutRequest::default();
                    home.sessions().sign_out(request).await.unwrap();
                }
                _ => {
                    let next = refresh(&site, &tokens.refresh_token).await.unwrap();
                    refresh(&site, &next.refresh_token).await.unwrap();
                    out(refresh(&site, &tokens.refresh_token).await);
                }
            }
            for caller in [&home, &there_caller, &back] {
                out(caller.who_am_i().await);
            }
            out(refresh(&site, &there.refresh_token).await);
            other.who_am_i().await.unwrap();
        }
    })
    .await;
}

// proves COM-8, PWD-8
#[tokio::test]
async fn switching_and_signing_out_can_be_tried_without_effect() {
    both(async |site| {
        let guest = guest(&site, &[]).await;
        let sessions = "SELECT COUNT(*) AS n FROM sessions";
        let before = count(&site.app, sessions).await;
        let request = SwitchTenantRequest {
            tenant: guest.contoso.name.clone(),
            validate_only: true,
            ..SwitchTenantRequest::default()
        };
        let told = guest.fred.caller.sessions().switch_tenant(request).await;
        let told = told.unwrap().into_inner();
        assert_eq!(
            (told.access_token.as_str(), told.refresh_token.as_str()),
            ("", "")
        );
        assert_eq!(count(&site.app, sessions).await, before);
        let request = SignOutRequest {
            validate_only: true,
            ..SignOutRequest::default()
        };
        guest
            .fred
            .caller
            .sessions()
            .sign_out(request)
            .await
            .unwrap();
        guest.fred.caller.who_am_i().await.unwrap();
    })
    .await;
}

async fn change_password(caller: &Caller, old: &str) -> Status {
    let request = ChangePasswordRequest {
        old_password: old.to_owned(),
        new_password: "green chair on a hill".to_owned(),
        ..ChangePasswordRequest::default()
    };
    let tried = caller.sessions().change_password(request).await;
    tried.unwrap_err()
}

// proves PWD-7, ATK-25, COM-2
#[tokio::test]
async fn nothing_is_compared_while_sign_in_is_locked() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        for _ in 0..10 {
            let tried = site.tokens(&bob.sign_in_name, WRONG).await;
            refused(tried, Code::Unauthenticated, "SIGN_IN_FAILED");
        }
        let begun = site.app.hasher.made();
        for password in [WRONG, PASSWORD] {
            let locked = Err::<(), _>(change_password(&bob.caller, password).await);
            refused(locked, Code::ResourceExhausted, "SIGN_IN_LOCKED");
            let tried = site.tokens(&bob.sign_in_name, password).await;
            refused(tried, Code::ResourceExhausted, "SIGN_IN_LOCKED");
        }
        assert_eq!(site.app.hasher.made(), begun);
    })
    .await;
}

// proves ATK-25, IDN-1
#[tokio::test]
async fn a_link_to_prove_an_address_is_void_after_a_hundred_wrong_passwords() {
    both(async |site| {
        let ask = async |email: &str, wrong: usize| {
            let request = new_identity(email);
            site.nobody().identities().sign_up(request).await.unwrap();
            let token = mailed_token(&site, email).await.unwrap();
            let confirm = async |password: &str| {
                let request = ConfirmIdentityRequest {
                    token: token.clone(),
                    password: password.to_owned(),
                    ..ConfirmIdentityRequest::default()
                };
                site.nobody().identities().confirm_identity(request).await
            };
            for _ in 0..wrong {
                refused(
                    confirm(WRONG).await,
                    Code::InvalidArgument,
                    "SIGN_IN_FAILED",
                );
            }
            confirm(PASSWORD).await
        };
        ask("ida@mail.example", 99).await.unwrap();
        let tried = ask("ivo@mail.example", 100).await;
        refused(tried, Code::PermissionDenied, "LINK_INVALID");
    })
    .await;
}

// proves PWD-7
#[tokio::test]
async fn names_that_do_not_exist_are_counted_each_by_itself() {
    both(async |site| {
        // Every slot is full of somebody else's failures.
        let sql = "INSERT INTO sign_in_strangers (slot, failed, locked_until, tag) WITH RECURSIVE s(n) AS \
                   (SELECT CAST(0 AS bigint) UNION ALL SELECT n + 1 FROM s WHERE n < 131071) \
                   SELECT n, 1000, 9000000000000000000, 1 FROM s";
        assert_eq!(execute(&site.app, sql).await.unwrap(), 131_072);
        let tried = site.tokens("nobody@contoso.partners.localhost", WRONG).await;
        refused(tried, Code::Unauthenticated, "SIGN_IN_FAILED");
    })
    .await;
}

// proves PWD-7, TEN-5
#[tokio::test]
async fn whoever_has_no_credential_is_locked_like_a_name_that_does_not_exist() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let user: [Value; 1] = [id(&bob.name).into()];
        change(&site, "DELETE FROM credentials WHERE user_id = $1", user).await;
        for name in [
            bob.sign_in_name.as_str(),
            "nobody@contoso.partners.localhost",
        ] {
            for _ in 0..10 {
                let tried = site.tokens(name, WRONG).await;
                refused(tried, Code::Unauthenticated, "SIGN_IN_FAILED");
            }
            let tried = site.tokens(name, WRONG).await;
            refused(tried, Code::ResourceExhausted, "SIGN_IN_LOCKED");
        }
    })
    .await;
}

// proves ROL-10, GRP-7
#[tokio::test]
async fn who_loses_an_account_meanwhile_brings_nobody_to_it_by_a_group() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let carol = second_admin(&site, &contoso, "carol").await;
        let bob = site.person(&contoso, "bob").await;
        let ann = contoso.admin.caller.clone();
        add(&ann, &account, &[&carol], &[AccountRole::Manager])
            .await
            .unwrap();
        let developers = membership(&account, &[AccountRole::Developer]);
        let team = group(&contoso, "Team", &[], Some(developers)).await;
        let release = hold(&site, ScopeKey::Account(id(&account))).await;
        let member = carol.member_of(&account);
        let taken = tokio::spawn({
            let account = account.clone();
            async move { remove(&ann, &account, &[&member], false).await }
        });
        queued(&site, 1).await;
        let joined = tokio::spawn({
            let (team, caller) = (team.clone(), carol.caller.clone());
            async move { caller.join(&team, &[&bob.name]).await }
        });
        queued(&site, 2).await;
        release.send(()).unwrap();
        taken.await.unwrap().unwrap();
        refused(
            joined.await.unwrap(),
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
    })
    .await;
}
