//! Signing in: what is guessed is counted, what is unknown looks like what is wrong, keys rotate (PWD-1, PWD-2, PWD-7, ATK-25).

use std::collections::BTreeSet;

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use entente::proto::directory::{
    GetJwksRequest, PasswordCredential, SignInRequest, TokenSet, WhoAmIRequest,
    sign_in_request::Credential,
};
use futures_util::future::join_all;
use sea_orm::Value;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::{
    claims::{Replica, execute},
    harness::{PASSWORD, Site, both, fields, new_user, refused},
    people::{
        People as _, Service, again, application, change, id, number, refresh, sign_in_by_key,
        sign_in_from,
    },
};

const WRONG: &str = "wrong green chair";

/// What a refusal tells, all of it.
fn told(status: &Status) -> (Code, String, Option<String>, bool) {
    let info = status.get_details_error_info();
    (
        status.code(),
        status.message().to_owned(),
        info.map(|i| format!("{} {:?}", i.reason, i.metadata)),
        status.get_details_retry_info().is_some(),
    )
}

/// After how many seconds a refusal says to try again.
fn wait_s(status: &Status) -> u64 {
    let info = status.get_details_retry_info().unwrap();
    info.retry_delay.unwrap().as_secs()
}

fn failed(result: Result<TokenSet, Status>) {
    refused(result, Code::Unauthenticated, "SIGN_IN_FAILED");
}

fn locked(result: Result<TokenSet, Status>) -> Status {
    refused(result, Code::ResourceExhausted, "SIGN_IN_LOCKED")
}

// proves PWD-7, ATK-25
#[tokio::test]
async fn ten_failures_lock_for_a_minute_then_for_longer() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let name = &bob.sign_in_name;
        for longest in [60, 120, 240] {
            for _ in 0..10 {
                failed(site.tokens(name, WRONG).await);
            }
            let status = locked(site.tokens(name, PASSWORD).await);
            let wait = wait_s(&status);
            assert!(wait <= longest && wait > longest - 30, "{wait}");
            // Trying while it is locked neither counts nor lengthens.
            locked(site.tokens(name, WRONG).await);
            site.advance(i64::try_from(longest).unwrap() + 1).await;
        }
        site.tokens(name, PASSWORD).await.unwrap();
        // A success begins anew.
        for _ in 0..9 {
            failed(site.tokens(name, WRONG).await);
        }
        site.tokens(name, PASSWORD).await.unwrap();
        for _ in 0..10 {
            failed(site.tokens(name, WRONG).await);
        }
        assert!(wait_s(&locked(site.tokens(name, PASSWORD).await)) <= 60);
        // Nobody else is touched.
        again(&site, &contoso.admin).await;
    })
    .await;
}

// proves PWD-7, ATK-25
#[tokio::test]
async fn guesses_at_once_are_counted_each() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        for name in [
            bob.sign_in_name.as_str(),
            "nobody@contoso.partners.localhost",
        ] {
            let tries = (0..24).map(|_| site.tokens(name, WRONG));
            let answers = join_all(tries).await;
            let guessed = answers
                .iter()
                .filter(|a| a.as_ref().is_err_and(|s| s.code() == Code::Unauthenticated))
                .count();
            assert_eq!(guessed, 10, "{name}");
        }
    })
    .await;
}

// proves PWD-7
#[tokio::test]
async fn strangers_dont_lock_out_a_known_network() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let name = &bob.sign_in_name;
        let service = Service::open(&site).await.caller(&site).await;
        let from = async |address: &str, password: &str| {
            sign_in_from(&service, address, name, password).await
        };
        from("203.0.113.5", PASSWORD).await.unwrap();
        for i in 0..10 {
            failed(from(&format!("198.51.100.{i}"), WRONG).await);
        }
        // The whole range is locked, other ranges aren't, and least of all the known one.
        locked(from("198.51.100.200", PASSWORD).await);
        failed(from("198.51.101.1", WRONG).await);
        failed(from("2001:db8:1::1", WRONG).await);
        from("203.0.113.99", PASSWORD).await.unwrap();
        locked(from("198.51.100.200", PASSWORD).await);
    })
    .await;
}

// proves PWD-7, ATK-25
#[tokio::test]
async fn a_hundred_failures_close_sign_in_until_an_admin_resets() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let name = &bob.sign_in_name;
        let opened = Service::open(&site).await;
        let service = opened.caller(&site).await;
        let from = async |address: &str, password: &str| {
            sign_in_from(&service, address, name, password).await
        };
        for net in 0..10 {
            from(&format!("192.0.{net}.1"), PASSWORD).await.unwrap();
        }
        for net in 0..10 {
            for host in 0..10 {
                failed(from(&format!("198.51.{net}.{host}"), WRONG).await);
            }
        }
        let status = locked(from("198.52.1.1", PASSWORD).await);
        assert!(
            status.get_details_retry_info().is_none(),
            "waiting won't help"
        );
        for net in 0..10 {
            for host in 0..10 {
                failed(from(&format!("192.0.{net}.{host}"), WRONG).await);
            }
        }
        let status = locked(from("192.0.3.1", PASSWORD).await);
        assert!(
            status.get_details_retry_info().is_none(),
            "waiting won't help"
        );
        site.advance(10 * 24 * 3_600).await;
        let service = opened.caller(&site).await;
        locked(sign_in_from(&service, "192.0.3.1", name, PASSWORD).await);
        locked(sign_in_from(&service, "198.52.1.1", name, PASSWORD).await);
        let admin = again(&site, &contoso.admin).await;
        let temporary = admin.reset(&bob.name).await.unwrap().temporary_password;
        for address in ["192.0.3.1", "198.51.3.1", "198.52.1.1"] {
            sign_in_from(&service, address, name, &temporary)
                .await
                .unwrap();
        }
    })
    .await;
}

// proves PWD-7, PWD-5
#[tokio::test]
async fn reset_password_opens_the_locked_network_too() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        for _ in 0..10 {
            failed(site.tokens(&bob.sign_in_name, WRONG).await);
        }
        let admin = &contoso.admin.caller;
        let temporary = admin.reset(&bob.name).await.unwrap().temporary_password;
        site.settle_in(&bob.sign_in_name, &temporary).await;
    })
    .await;
}

// proves PWD-7
#[tokio::test]
async fn unknown_names_behave_as_wrong_passwords_do() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let counted = async || {
            let sql = "SELECT COALESCE(SUM(failed), 0) AS n FROM sign_in_strangers";
            let sql = match site.url {
                Some(_) => "SELECT CAST(COALESCE(SUM(failed), 0) AS bigint) AS n FROM sign_in_strangers",
                None => sql,
            };
            number(&site, sql, []).await
        };
        let written = async || {
            let sql = "SELECT (SELECT COUNT(*) FROM outbox) + (SELECT COUNT(*) FROM mails) AS n";
            number(&site, sql, []).await
        };
        let before = written().await;
        let mut stories = Vec::new();
        for name in [
            bob.sign_in_name.as_str(),
            "nobody@contoso.partners.localhost",
            "bob@nowhere.partners.localhost",
            "bob@contoso.example",
            "plain",
        ] {
            let begun = counted().await;
            let mut story = Vec::new();
            for _ in 0..12 {
                story.push(told(&site.tokens(name, WRONG).await.unwrap_err()));
            }
            stories.push(story);
            // One row for the network and one for all networks, each ten times; of the known user elsewhere.
            let strangers = if name == bob.sign_in_name { 0 } else { 20 };
            assert_eq!(counted().await - begun, strangers, "{name}");
        }
        assert_eq!(stories[0][9].0, Code::Unauthenticated);
        assert_eq!(stories[0][10].0, Code::ResourceExhausted);
        for story in &stories[1..] {
            assert_eq!(*story, stories[0]);
        }
        let sql = "SELECT n.failed + c.strangers_failed + c.known_failed AS n FROM sign_in_networks n \
                   JOIN credentials c ON c.user_id = n.user_id WHERE n.user_id = $1";
        assert_eq!(number(&site, sql, [id(&bob.name).into()]).await, 20);
        assert_eq!(written().await, before, "no event and no mail tells them apart");
    })
    .await;
}

// proves PWD-7, PWD-5, USR-6
#[tokio::test]
async fn whoever_may_not_sign_in_looks_like_a_wrong_password() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let disabled = site.person(&contoso, "disabled").await;
        admin.disable(&disabled.name).await.unwrap();
        let deleted = site.person(&contoso, "deleted").await;
        admin.delete(&deleted.name).await.unwrap();
        let made = admin
            .users()
            .create_user(new_user(&contoso.name, "late"))
            .await;
        let late = made.unwrap().into_inner();
        let late_name = late.user.unwrap().sign_in_name;
        site.advance(72 * 3_600).await;
        let wrong = site.tokens(&contoso.admin.sign_in_name, WRONG).await;
        let wrong = told(&wrong.unwrap_err());
        for (name, password) in [
            (&disabled.sign_in_name, PASSWORD),
            (&deleted.sign_in_name, PASSWORD),
            (&late_name, late.temporary_password.as_str()),
        ] {
            let status = site.tokens(name, password).await.unwrap_err();
            assert_eq!(told(&status), wrong, "{name}");
        }
    })
    .await;
}

// proves PWD-2
#[tokio::test]
async fn outdated_hash_is_made_anew_at_the_next_sign_in() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let params = argon2::Params::new(1_024, 1, 1, Some(32)).unwrap();
        let old = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let (salt, mut hash) = ([7; 16], [0; 32]);
        old.hash_password_into(PASSWORD.as_bytes(), &salt, &mut hash)
            .unwrap();
        let stored = format!(
            "$argon2id$v=19$m=1024,t=1,p=1${}${}",
            BASE64_STANDARD_NO_PAD.encode(salt),
            BASE64_STANDARD_NO_PAD.encode(hash)
        );
        let sql = "UPDATE credentials SET hash = $1 WHERE user_id = $2";
        let values: [Value; 2] = [stored.clone().into(), id(&bob.name).into()];
        change(&site, sql, values).await;
        let is = async |pattern: &str| {
            let sql = "SELECT COUNT(*) AS n FROM credentials WHERE user_id = $1 AND hash LIKE $2";
            number(&site, sql, [id(&bob.name).into(), pattern.into()]).await == 1
        };
        failed(site.tokens(&bob.sign_in_name, WRONG).await);
        assert!(is("%$m=1024,t=1,p=1$%").await);
        site.tokens(&bob.sign_in_name, PASSWORD).await.unwrap();
        assert!(is("%$m=19456,t=2,p=1$%").await);
        site.tokens(&bob.sign_in_name, PASSWORD).await.unwrap();
    })
    .await;
}

fn kid(token: &str) -> String {
    let head = token.split('.').next().unwrap();
    let head = BASE64_URL_SAFE_NO_PAD.decode(head).unwrap();
    let head: serde_json::Value = serde_json::from_slice(&head).unwrap();
    head["kid"].as_str().unwrap().to_owned()
}

async fn published(site: &Site) -> Vec<String> {
    let jwks = site.nobody().sessions().get_jwks(GetJwksRequest {}).await;
    let keys = jwks.unwrap().into_inner().keys;
    assert!(keys.iter().all(|k| k.alg == "EdDSA" && k.r#use == "sig"));
    keys.into_iter().map(|k| k.kid).collect()
}

// proves PWD-1
#[tokio::test]
async fn signing_keys_rotate_without_a_failed_call() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let name = &contoso.admin.sign_in_name;
        let first = site.tokens(name, PASSWORD).await.unwrap();
        let old = kid(&first.access_token);
        assert_eq!(published(&site).await, std::slice::from_ref(&old));
        assert!(
            entente::access::token::rotate_keys(&site.app, true)
                .await
                .unwrap()
        );
        // The next key is published long before anything is signed by it.
        let keys = published(&site).await;
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0], old);
        let next = site.tokens(name, PASSWORD).await.unwrap();
        assert_eq!(kid(&next.access_token), old);
        site.advance(2 * 3_600 - 60).await;
        let last = refresh(&site, &next.refresh_token).await.unwrap();
        assert_eq!(kid(&last.access_token), old);
        let caller = site.with_token(&last.access_token);
        site.advance(120).await;
        caller.who_am_i().await.unwrap();
        let newer = refresh(&site, &last.refresh_token).await.unwrap();
        assert_eq!(kid(&newer.access_token), keys[1]);
        site.with_token(&newer.access_token)
            .who_am_i()
            .await
            .unwrap();
        // The old one is kept while anything signed by it may live.
        assert_eq!(published(&site).await.len(), 2);
        site.advance(25 * 3_600).await;
        assert_eq!(published(&site).await, [keys[1].clone()]);
    })
    .await;
}

// proves PWD-1, COM-14
#[tokio::test]
async fn sign_in_is_served_at_once_after_the_clock_jumped_beyond_all_keys() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let name = &contoso.admin.sign_in_name;
        let old = kid(contoso.admin.caller.token.as_ref().unwrap());
        let replica = match &site.url {
            Some(url) => Some(Replica::open(url).await),
            None => None,
        };
        let advance = async |days: i64| {
            // The scheduler must not come first.
            let sql =
                "UPDATE jobs SET due_time = 9000000000000000 WHERE name = 'rotate-signing-keys'";
            execute(&site.app, sql).await.unwrap();
            site.advance(days * 86_400).await;
        };
        advance(400).await;
        // Several at once, on several replicas, find one key.
        let request = || SignInRequest {
            credential: Some(Credential::Password(PasswordCredential {
                sign_in_name: name.clone(),
                password: PASSWORD.to_owned(),
            })),
            request_id: String::new(),
        };
        let callers = (0..6).map(|i| match &replica {
            Some(replica) if i % 2 == 1 => replica.of(&site.nobody()),
            _ => site.nobody(),
        });
        let answers = join_all(callers.map(|caller| {
            let request = request();
            async move { caller.sessions().sign_in(request).await }
        }));
        let mut kids = BTreeSet::new();
        let mut last = TokenSet::default();
        for answer in answers.await {
            last = answer.unwrap().into_inner();
            kids.insert(kid(&last.access_token));
        }
        assert_eq!(kids.len(), 1, "{kids:?}");
        assert!(!kids.contains(&old));
        assert_eq!(published(&site).await, Vec::from_iter(kids));
        site.with_token(&last.access_token)
            .who_am_i()
            .await
            .unwrap();

        // An application's key outlives a month.
        let admin = site.sign_in(name, PASSWORD).await;
        let app = application(&admin, &contoso.name, "App").await;
        let secret = admin.key(&app.name).await.unwrap().secret;
        advance(40).await;
        let tokens = sign_in_by_key(&site, &app.client_id, &secret)
            .await
            .unwrap();
        assert_ne!(kid(&tokens.access_token), kid(&last.access_token));
    })
    .await;
}

// proves PWD-7, COM-16
#[tokio::test]
async fn only_internal_services_are_believed_about_addresses() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let seen = async |tokens: TokenSet| {
            let caller = site.with_token(&tokens.access_token);
            let sessions = caller.list_sessions(&bob.name).await.unwrap();
            let mine = sessions.into_iter().find(|s| s.current).unwrap();
            mine.client_address
        };
        let admin = &contoso.admin.caller;
        let plain = application(admin, &contoso.name, "Plain").await;
        let secret = admin.key(&plain.name).await.unwrap().secret;
        let tokens = sign_in_by_key(&site, &plain.client_id, &secret)
            .await
            .unwrap();
        let plain = site.with_token(&tokens.access_token);
        for liar in [&site.nobody(), &bob.caller, admin, &plain] {
            for said in ["203.0.113.5", "nonsense"] {
                let tokens = sign_in_from(liar, said, &bob.sign_in_name, PASSWORD).await;
                assert_eq!(seen(tokens.unwrap()).await, "127.0.0.1");
            }
        }
        let service = Service::open(&site).await.caller(&site).await;
        for (said, believed) in [
            ("203.0.113.5", "203.0.113.5"),
            ("2001:db8::7", "2001:db8::7"),
        ] {
            let tokens = sign_in_from(&service, said, &bob.sign_in_name, PASSWORD).await;
            assert_eq!(seen(tokens.unwrap()).await, believed);
        }
        // What is no one address of its is refused: its own would stand for the client's.
        let bad = |status: &Status| assert_eq!(fields(status), ["entente-client-address"]);
        for said in ["nonsense", "203.0.113.5, 10.0.0.1", "203.0.113.5:80"] {
            let tokens = sign_in_from(&service, said, &bob.sign_in_name, PASSWORD).await;
            bad(&refused(tokens, Code::InvalidArgument, "INVALID_FIELDS"));
        }
        // Also where it acts for somebody, and said twice.
        let acting = site.on_behalf(&service, &bob.caller);
        let said = |addresses: &[&str]| {
            let mut request = Request::new(WhoAmIRequest {});
            for address in addresses {
                let metadata = request.metadata_mut();
                metadata.append("entente-client-address", address.parse().unwrap());
            }
            request
        };
        for who in [&acting, &service] {
            let ask = async |addresses: &[&str]| {
                let mut sessions = who.sessions();
                sessions.who_am_i(said(addresses)).await.map(drop)
            };
            ask(&["203.0.113.5"]).await.unwrap();
            for addresses in [&["nonsense"][..], &["203.0.113.5", "203.0.113.5"]] {
                bad(&refused(
                    ask(addresses).await,
                    Code::InvalidArgument,
                    "INVALID_FIELDS",
                ));
            }
        }
    })
    .await;
}
