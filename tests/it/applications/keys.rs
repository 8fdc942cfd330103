//! Keys: their form, which scanners know, and changing them without a gap (APP-4).

use tonic::Code;

use super::{delete_key, get, keys};
use crate::{
    attacks::replica,
    harness::{Caller, both, refused},
    people::{People as _, application, sign_in_by_key},
};

const DIGITS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a scanner computes: CRC-32 as in zip files, bit by bit, in six digits of base 62.
fn checksum(random: &str) -> String {
    let mut crc = u32::MAX;
    for byte in random.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
        }
    }
    let (mut rest, mut digits) = (!crc as usize, Vec::new());
    for _ in 0..6 {
        digits.insert(0, DIGITS.as_bytes()[rest % 62]);
        rest /= 62;
    }
    String::from_utf8(digits).unwrap()
}

// proves APP-4, PWD-2
#[tokio::test]
async fn secret_has_a_prefix_random_characters_and_their_checksum() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let app = application(admin, &contoso.name, "Feed").await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            let secret = admin.key(&app.name).await.unwrap().secret;
            let (random, sum) = secret.strip_prefix("entk_").unwrap().split_at(44);
            assert!(random.chars().all(|c| DIGITS.contains(c)), "{secret}");
            assert_eq!(sum, checksum(random));
            assert!(!seen.contains(&random.to_owned()));
            seen.push(random.to_owned());
        }
    })
    .await;
}

// proves APP-4
#[tokio::test]
async fn mistyped_key_is_refused_like_a_wrong_one() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let app = application(admin, &contoso.name, "Feed").await;
        let secret = admin.key(&app.name).await.unwrap().secret;
        let random = &secret[5..49];
        let first = if random.starts_with('a') { "b" } else { "a" };
        let other = format!("{first}{}", &random[1..]);
        // Wrong, but whole; mistyped; without its checksum; of another product; what it once was, spaces.
        let mut answers = Vec::new();
        for wrong in [
            format!("entk_{other}{}", checksum(&other)),
            format!("entk_{other}{}", checksum(random)),
            format!("entk_{random}"),
            format!("ghp_{random}{}", checksum(random)),
            format!("{secret} "),
            secret.to_lowercase(),
        ] {
            let status = refused(
                sign_in_by_key(&site, &app.client_id, &wrong).await,
                Code::Unauthenticated,
                "SIGN_IN_FAILED",
            );
            answers.push((status.message().to_owned(), status.details().to_vec()));
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "one and the same answer");
        sign_in_by_key(&site, &app.client_id, &secret)
            .await
            .unwrap();
    })
    .await;
}

// proves APP-4, ATK-12
#[tokio::test]
async fn keys_are_changed_without_a_gap() {
    both(async |site| {
        let (channel, _folder) = replica(&site).await;
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let app = application(admin, &contoso.name, "Feed").await;
        let old = admin.key(&app.name).await.unwrap();
        let sign_in = async |secret: &str| {
            let tokens = sign_in_by_key(&site, &app.client_id, secret).await;
            tokens.map(|t| site.with_token(&t.access_token))
        };
        let there = |caller: &Caller| Caller {
            channel: channel.clone(),
            ..caller.clone()
        };
        let before = sign_in(&old.secret).await.unwrap();
        let new = admin.key(&app.name).await.unwrap();
        assert_ne!(new.secret, old.secret);
        // Both work while the program is moved over.
        let after = sign_in(&new.secret).await.unwrap();
        let still = sign_in(&old.secret).await.unwrap();
        for caller in [&before, &after, &still] {
            get(caller, &app.name).await.unwrap();
            get(&there(caller), &app.name).await.unwrap();
        }
        delete_key(admin, &old.key.unwrap().name, "").await.unwrap();
        // Tokens of the old one end at the next call, wherever it is made; those of the new one go on.
        for caller in [&before, &still] {
            for caller in [&there(caller), caller] {
                let answer = get(caller, &app.name).await;
                refused(answer, Code::Unauthenticated, "TOKEN_INVALID");
            }
        }
        let failed = sign_in(&old.secret).await.map(|c| c.token);
        refused(failed, Code::Unauthenticated, "SIGN_IN_FAILED");
        get(&there(&after), &app.name).await.unwrap();
        get(&after, &app.name).await.unwrap();
        sign_in(&new.secret).await.unwrap();
        assert_eq!(keys(admin, &app.name).await, [new.key.unwrap()]);
    })
    .await;
}
