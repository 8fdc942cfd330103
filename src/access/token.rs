//! Access tokens (PWD-1): JWTs signed with Ed25519, typed `at+jwt`, for one audience. Signing keys lie sealed in the database, rotate,
//! and are known to verifiers before they sign.

use std::{sync::RwLock, time::Duration};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::principal::{Authenticated, Kind, Principal};
use crate::{
    env::{DAY_US, Env, HOUR_US, MINUTE_US, Micros, SECOND_US},
    error::{Error, Reason, Result},
    keys::Keys,
    store::{scope_key::ScopeKey, sql},
};

/// A signing key signs for so long.
pub const SIGNS_US: Micros = 30 * DAY_US;
/// A new key is published so long before it signs, so that verifiers that keep keys for an hour know it.
pub const PUBLISHED_AHEAD_US: Micros = 2 * HOUR_US;
/// A key verifies so long after it last signed: longer than any token lives.
pub const VERIFIES_AFTER_US: Micros = DAY_US;
/// Tokens whose signature was checked are remembered, by hash: a check costs 24 µs.
const REMEMBERED_TOKENS: u64 = 100_000;
/// Keys are read from the database at most so often for a key ID that isn't known, lest strangers buy queries with tokens.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(1);
/// Clocks of replicas differ by less than this: a key made because none signs is good for all of them.
const CLOCK_SLACK_US: Micros = MINUTE_US;
/// A token longer than this is none of ours.
const MAX_TOKEN_BYTES: usize = 4_096;

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    tid: Uuid,
    sid: Uuid,
    /// `user`, `app` or `identity`.
    knd: String,
    iat: i64,
    exp: i64,
    auth_time: i64,
}

/// A signing key as stored.
#[derive(Clone, Debug, FromQueryResult)]
pub struct KeyRow {
    /// The key ID.
    pub id: Uuid,
    /// 32 bytes.
    pub public_key: Vec<u8>,
    /// PKCS#8, sealed.
    pub sealed_private_key: Vec<u8>,
    /// Signs from here on.
    pub sign_from_time: i64,
    /// Signs until here.
    pub sign_until_time: i64,
    /// Verifies until here.
    pub expire_time: i64,
}

struct Known {
    row: KeyRow,
    verify: DecodingKey,
    sign: EncodingKey,
}

/// Signs and verifies.
pub struct Tokens {
    issuer: String,
    known: RwLock<(Vec<Known>, Option<std::time::Instant>)>,
    remembered: moka::sync::Cache<[u8; 32], (Authenticated, Micros)>,
}

impl Tokens {
    /// For tokens of this issuer; without keys until `refresh`.
    #[must_use]
    pub fn new(issuer: String) -> Self {
        Self {
            issuer,
            known: RwLock::default(),
            remembered: moka::sync::Cache::new(REMEMBERED_TOKENS),
        }
    }

    /// Reads the keys anew.
    ///
    /// # Errors
    /// Those of the database; internal, if a key doesn't open.
    pub async fn refresh<C: ConnectionTrait>(&self, db: &C, keys: &Keys) -> Result<()> {
        let rows = key_rows(db).await?;
        let mut known = Vec::with_capacity(rows.len());
        for row in rows {
            let private =
                keys.open(&format!("signing_keys/{}", row.id), &row.sealed_private_key)?;
            known.push(Known {
                verify: DecodingKey::from_ed_components(
                    &BASE64_URL_SAFE_NO_PAD.encode(&row.public_key),
                )
                .map_err(|e| Error::internal(e.to_string()))?,
                sign: EncodingKey::from_ed_der(&private),
                row,
            });
        }
        match self.known.write() {
            Ok(mut guard) => *guard = (known, Some(std::time::Instant::now())),
            Err(_) => return Err(Error::internal("the signing keys are poisoned")),
        }
        Ok(())
    }

    /// Signs a token; gives it with its expiry.
    ///
    /// # Errors
    /// If no key signs now: then the call's transaction is given up, a key made, and the call carried out anew.
    pub fn sign(
        &self,
        who: &Authenticated,
        now: Micros,
        lifetime: Micros,
    ) -> Result<(String, Micros)> {
        let known = self
            .known
            .read()
            .map_err(|_| Error::internal("the signing keys are poisoned"))?;
        let key = known
            .0
            .iter()
            .filter(|k| k.row.sign_from_time <= now && now < k.row.sign_until_time)
            .max_by_key(|k| k.row.sign_from_time)
            .ok_or_else(Error::no_key)?;
        let exp = (now + lifetime) / SECOND_US;
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: who.principal.id,
            tid: who.principal.tenant,
            sid: who.session,
            knd: kind_name(who.principal.kind).to_owned(),
            iat: now / SECOND_US,
            exp,
            auth_time: who.sign_in_time / SECOND_US,
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.row.id.to_string());
        let token = jsonwebtoken::encode(&header, &claims, &key.sign)
            .map_err(|e| Error::internal(e.to_string()))?;
        Ok((token, exp * SECOND_US))
    }

    /// What a token says, if it is one of ours that is still good. Whether its principal still may anything is not asked here.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `TOKEN_INVALID`, whatever is wrong with it (ATK-18). `Ok(None)` if it names a key that isn't known yet.
    pub fn verify(&self, token: &str, now: Micros) -> Result<Option<Authenticated>> {
        let refused = || Error::unauthenticated(Reason::TokenInvalid);
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused());
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref(),
        );
        if let Some((who, exp)) = self.remembered.get(&hash) {
            return if now < exp {
                Ok(Some(who))
            } else {
                Err(refused())
            };
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| refused())?;
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(TYPE) {
            return Err(refused());
        }
        let kid: Uuid = header
            .kid
            .as_deref()
            .and_then(|k| k.parse().ok())
            .ok_or_else(refused)?;
        let known = self
            .known
            .read()
            .map_err(|_| Error::internal("the signing keys are poisoned"))?;
        let Some(key) = known.0.iter().find(|k| k.row.id == kid) else {
            return Ok(None);
        };
        if now >= key.row.expire_time {
            return Err(refused());
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Time is the service's, which tests move; so the expiry is checked below.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.verify, &validation)
            .map_err(|_| refused())?
            .claims;
        let exp = claims.exp.saturating_mul(SECOND_US);
        if now >= exp {
            return Err(refused());
        }
        let kind = match claims.knd.as_str() {
            "user" => Kind::User,
            "app" => Kind::Application,
            "identity" => Kind::Identity,
            _ => return Err(refused()),
        };
        let who = Authenticated {
            principal: Principal {
                kind,
                id: claims.sub,
                tenant: claims.tid,
            },
            session: claims.sid,
            sign_in_time: claims.auth_time.saturating_mul(SECOND_US),
            expire_time: exp,
        };
        self.remembered.insert(hash, (who, exp));
        Ok(Some(who))
    }

    /// Whether the keys may be read again for a key ID that isn't known.
    #[must_use]
    pub fn may_look_again(&self) -> bool {
        self.known
            .read()
            .is_ok_and(|k| k.1.is_none_or(|at| at.elapsed() >= UNKNOWN_KEY_PAUSE))
    }
}

/// The audience of access tokens.
pub const AUDIENCE: &str = "entente";
/// The type of access tokens (RFC 9068).
pub const TYPE: &str = "at+jwt";

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::User => "user",
        Kind::Application => "app",
        Kind::Identity => "identity",
        // Never signs in; a token of this kind is refused.
        Kind::Group => "group",
    }
}

/// All keys that are kept, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn key_rows<C: ConnectionTrait>(db: &C) -> Result<Vec<KeyRow>> {
    let sql = "SELECT id, public_key, sealed_private_key, sign_from_time, sign_until_time, expire_time FROM signing_keys ORDER BY sign_from_time";
    Ok(
        KeyRow::find_by_statement(Statement::from_string(db.get_database_backend(), sql))
            .all(db)
            .await?,
    )
}

/// Makes sure that a key signs now and one will sign next; ends what has expired. `at_once` makes a new key that signs as soon as it
/// may. Runs in one transaction.
///
/// # Errors
/// Those of the database.
pub async fn rotate<C: ConnectionTrait>(
    db: &C,
    keys: &Keys,
    env: &Env,
    now: Micros,
    at_once: bool,
) -> Result<bool> {
    let rows = key_rows(db).await?;
    for row in rows.iter().filter(|r| r.expire_time <= now) {
        let sql = "DELETE FROM signing_keys WHERE id = $1";
        sql::execute(db, sql, [row.id.into()]).await?;
    }
    let last = rows.iter().map(|r| r.sign_until_time).max();
    let from = match last {
        // Nothing can be signed until this one signs, so it can't wait for verifiers.
        None => now - CLOCK_SLACK_US,
        Some(until) if until <= now => now - CLOCK_SLACK_US,
        Some(_) if at_once => now + PUBLISHED_AHEAD_US,
        Some(until) if until - now <= 2 * PUBLISHED_AHEAD_US => until,
        Some(_) => return Ok(false),
    };
    let id = env.id(now);
    let pair =
        Ed25519KeyPair::generate().map_err(|_| Error::internal("no signing key could be made"))?;
    let private = pair
        .to_pkcs8v1()
        .map_err(|_| Error::internal("no signing key could be made"))?;
    let sealed = keys.seal(&format!("signing_keys/{id}"), private.as_ref())?;
    if at_once {
        let sql = "UPDATE signing_keys SET sign_until_time = $1, expire_time = $2 WHERE sign_until_time > $1";
        let values = [from.into(), (from + VERIFIES_AFTER_US).into()];
        sql::execute(db, sql, values).await?;
    }
    let sql = "INSERT INTO signing_keys (id, public_key, sealed_private_key, create_time, sign_from_time, sign_until_time, expire_time) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let values: [Value; 7] = [
        id.into(),
        Value::Bytes(Some(pair.public_key().as_ref().to_vec())),
        Value::Bytes(Some(sealed)),
        now.into(),
        from.into(),
        (from + SIGNS_US).into(),
        (from + SIGNS_US + VERIFIES_AFTER_US).into(),
    ];
    sql::execute(db, sql, values).await?;
    tracing::info!(key = %id, public = %hex::encode(pair.public_key().as_ref()), "a signing key was made");
    Ok(true)
}

/// Makes sure that a key signs now and one will sign next, in a transaction of its own, and reads the keys. Replicas that come at once take
/// turns: one makes a key, the others find it.
///
/// # Errors
/// Those of the database.
pub async fn rotate_keys(app: &crate::app::App, at_once: bool) -> Result<bool> {
    let made = app
        .job("rotate-keys", move |tx, _| {
            Box::pin(async move {
                // The operator's head serialises replicas that start at once.
                tx.lock([ScopeKey::Operator]).await?;
                let app = tx.app().clone();
                let made = rotate(tx.db(), &app.keys, &app.env, tx.now(), at_once).await?;
                if made {
                    tx.touch(ScopeKey::Operator);
                }
                Ok(made)
            })
        })
        .await?;
    app.tokens.refresh(&app.db.read, &app.keys).await?;
    Ok(made)
}

/// The public keys that verify tokens now or soon.
///
/// # Errors
/// Those of the database.
pub async fn jwks(app: &crate::app::App) -> Result<Vec<crate::proto::directory::Jwk>> {
    let now = app.now().await?;
    let rows = key_rows(&app.db.read).await?;
    Ok(rows
        .into_iter()
        .filter(|r| now < r.expire_time)
        .map(|r| crate::proto::directory::Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: BASE64_URL_SAFE_NO_PAD.encode(&r.public_key),
            kid: r.id.to_string(),
            alg: "EdDSA".to_owned(),
            r#use: "sig".to_owned(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sea_orm::{ConnectOptions, Database, DatabaseConnection};

    use super::*;

    const NOW: Micros = 1_700_000_000 * SECOND_US + 345_678;
    const LIFETIME: Micros = 15 * MINUTE_US;

    /// A key that signs from then until then.
    struct Made {
        row: KeyRow,
        private: Vec<u8>,
    }

    fn made(id: u128, from: Micros, until: Micros) -> Made {
        let pair = Ed25519KeyPair::generate().unwrap();
        Made {
            row: KeyRow {
                id: Uuid::from_u128(id),
                public_key: pair.public_key().as_ref().to_vec(),
                sealed_private_key: Vec::new(),
                sign_from_time: from,
                sign_until_time: until,
                expire_time: until + DAY_US,
            },
            private: pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        }
    }

    fn tokens_of(issuer: &str, keys: &[&Made]) -> Tokens {
        let known = keys.iter().map(|key| Known {
            row: key.row.clone(),
            verify: DecodingKey::from_ed_components(
                &BASE64_URL_SAFE_NO_PAD.encode(&key.row.public_key),
            )
            .unwrap(),
            sign: EncodingKey::from_ed_der(&key.private),
        });
        let tokens = Tokens::new(issuer.to_owned());
        *tokens.known.write().unwrap() = (known.collect(), Some(Instant::now()));
        tokens
    }

    fn tokens(keys: &[&Made]) -> Tokens {
        tokens_of("entente.example", keys)
    }

    fn who(kind: Kind) -> Authenticated {
        Authenticated {
            principal: Principal {
                kind,
                id: Uuid::from_u128(11),
                tenant: Uuid::from_u128(12),
            },
            session: Uuid::from_u128(13),
            sign_in_time: NOW - 7 * SECOND_US,
            expire_time: i64::MAX,
        }
    }

    fn kid(token: &str) -> Option<String> {
        jsonwebtoken::decode_header(token).unwrap().kid
    }

    // proves PWD-1
    #[test]
    fn a_token_says_who_and_when_in_whole_seconds() {
        let key = made(1, NOW, NOW + DAY_US);
        let tokens = tokens(&[&key]);
        for kind in [Kind::User, Kind::Application, Kind::Identity] {
            let (token, exp) = tokens.sign(&who(kind), NOW, LIFETIME).unwrap();
            assert_eq!(exp, (1_700_000_000 + 900) * SECOND_US);
            let found = tokens.verify(&token, NOW).unwrap().unwrap();
            assert_eq!(found.principal, who(kind).principal);
            assert_eq!(found.session, who(kind).session);
            assert_eq!(found.sign_in_time, (1_700_000_000 - 7) * SECOND_US);
            assert_eq!(found.expire_time, exp);
            let claims = token.split('.').nth(1).unwrap();
            let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap();
            let claims: Claims = serde_json::from_slice(&claims).unwrap();
            assert_eq!(
                (claims.iat, claims.exp, claims.auth_time),
                (1_700_000_000, 1_700_000_900, 1_700_000_000 - 7)
            );
            assert_eq!(claims.iss, "entente.example");
        }
        // No group signs in.
        let (token, _) = tokens.sign(&who(Kind::Group), NOW, LIFETIME).unwrap();
        assert!(tokens.verify(&token, NOW).is_err());
    }

    // proves PWD-1
    #[test]
    fn the_newest_key_that_signs_now_signs() {
        let (old, new) = (made(1, NOW - 9, NOW + 9), made(2, NOW, NOW + 2));
        let tokens = tokens(&[&old, &new]);
        let signer = |now| tokens.sign(&who(Kind::User), now, LIFETIME);
        for (now, signs) in [
            (NOW - 10, None),
            (NOW - 9, Some(1)),
            (NOW - 1, Some(1)),
            (NOW, Some(2)),
            (NOW + 1, Some(2)),
            (NOW + 2, Some(1)),
            (NOW + 8, Some(1)),
            (NOW + 9, None),
        ] {
            let found = signer(now).ok().and_then(|(token, _)| kid(&token));
            let signs = signs.map(|n| Uuid::from_u128(n).to_string());
            assert_eq!(found, signs, "{}", now - NOW);
        }
    }

    // proves PWD-1, ATK-18
    #[test]
    fn a_token_is_good_until_it_or_its_key_expires_also_if_it_is_remembered() {
        let key = made(1, NOW, NOW + DAY_US);
        let signing = tokens(&[&key]);
        let (token, exp) = signing.sign(&who(Kind::User), NOW, LIFETIME).unwrap();
        for first in [NOW, exp - 1] {
            let tokens = tokens(&[&key]);
            assert!(tokens.verify(&token, first).unwrap().is_some());
            assert!(tokens.verify(&token, exp - 1).unwrap().is_some());
            assert!(tokens.verify(&token, exp).is_err());
        }
        assert!(tokens(&[&key]).verify(&token, exp).is_err());
        // The key is no good any more, though the token would be.
        let long = signing.sign(&who(Kind::User), NOW, 9 * DAY_US).unwrap().0;
        let end = key.row.expire_time;
        assert!(tokens(&[&key]).verify(&long, end - 1).unwrap().is_some());
        assert!(tokens(&[&key]).verify(&long, end).is_err());
        // A key that isn't known yet is looked for.
        let other = made(2, NOW, NOW + DAY_US);
        assert!(tokens(&[&other]).verify(&token, NOW).unwrap().is_none());
        // Another key of the same ID.
        let forged = made(1, NOW, NOW + DAY_US);
        assert!(tokens(&[&forged]).verify(&token, NOW).is_err());
    }

    // proves ATK-18
    #[test]
    fn what_is_no_access_token_of_ours_is_refused_though_signed() {
        let key = made(1, NOW, NOW + DAY_US);
        let tokens = tokens(&[&key]);
        let (token, _) = tokens.sign(&who(Kind::User), NOW, LIFETIME).unwrap();
        let claims = token.split('.').nth(1).unwrap();
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let signed = |typ: Option<&str>, change: &dyn Fn(&mut serde_json::Value)| {
            let mut header = Header::new(Algorithm::EdDSA);
            header.typ = typ.map(str::to_owned);
            header.kid = Some(key.row.id.to_string());
            let mut claims = claims.clone();
            change(&mut claims);
            let by = EncodingKey::from_ed_der(&key.private);
            jsonwebtoken::encode(&header, &claims, &by).unwrap()
        };
        let verify = |token: &str| tokens.verify(token, NOW).ok().flatten();
        assert!(verify(&signed(Some(TYPE), &|_| {})).is_some());
        assert!(verify(&signed(Some("JWT"), &|_| {})).is_none());
        assert!(verify(&signed(None, &|_| {})).is_none());
        for (claim, value) in [("aud", "other"), ("iss", "other"), ("knd", "group")] {
            let token = signed(Some(TYPE), &|c| c[claim] = value.into());
            assert!(verify(&token).is_none(), "{claim}");
        }
        // However good, none of ours is so long.
        let long = tokens_of(&"x".repeat(MAX_TOKEN_BYTES), &[&key]);
        let (token, _) = long.sign(&who(Kind::User), NOW, LIFETIME).unwrap();
        assert!(long.verify(&token, NOW).is_err());
    }

    /// A database with the table of keys alone.
    async fn stored() -> DatabaseConnection {
        let mut options = ConnectOptions::new("sqlite::memory:");
        // A second connection would have a memory of its own.
        options.max_connections(1);
        let db = Database::connect(options).await.unwrap();
        let table = "CREATE TABLE signing_keys (id blob, public_key blob, sealed_private_key blob, create_time bigint, \
                     sign_from_time bigint, sign_until_time bigint, expire_time bigint)";
        db.execute_unprepared(table).await.unwrap();
        db
    }

    // proves PWD-1
    #[tokio::test]
    async fn a_key_signs_for_30_days_verifies_a_day_longer_and_the_next_is_known_before() {
        const DAYS_30: Micros = 30 * DAY_US;
        let (db, env) = (stored().await, Env::seeded(1, 0));
        let keys = Keys::derive(&env.bytes::<32>()).unwrap();
        let rotated = async |now: Micros, at_once: bool| {
            let made = rotate(&db, &keys, &env, now, at_once).await.unwrap();
            let rows = key_rows(&db).await.unwrap();
            let times = rows
                .iter()
                .map(|r| (r.sign_from_time, r.sign_until_time, r.expire_time));
            (made, times.collect::<Vec<_>>())
        };
        let key = |from: Micros| (from, from + DAYS_30, from + DAYS_30 + DAY_US);
        // Clocks of other replicas may be a minute behind.
        let first = key(NOW - MINUTE_US);
        assert_eq!(rotated(NOW, false).await, (true, vec![first]));
        assert_eq!(rotated(NOW, false).await, (false, vec![first]));
        // The next one follows without a gap; it is made four hours before, and no earlier.
        let (_, end, gone) = first;
        let due = end - 4 * HOUR_US;
        assert_eq!(rotated(due - 1, false).await, (false, vec![first]));
        let second = key(end);
        assert_eq!(rotated(due, false).await, (true, vec![first, second]));
        assert_eq!(rotated(due, false).await, (false, vec![first, second]));
        assert_eq!(rotated(gone - 1, false).await.1, [first, second]);
        assert_eq!(rotated(gone, false).await, (false, vec![second]));
        // At once means two hours later, when all verifiers know it; then the old one signs no more.
        let next = gone + 2 * HOUR_US;
        let cut = (second.0, next, next + DAY_US);
        assert_eq!(rotated(gone, true).await, (true, vec![cut, key(next)]));
        // Where none signs any more, there is nobody to wait for.
        let late = next + 400 * DAY_US;
        assert_eq!(
            rotated(late, false).await,
            (true, vec![key(late - MINUTE_US)])
        );
        let (_, end, _) = key(late - MINUTE_US);
        let (made, times) = rotated(end, false).await;
        assert_eq!((made, times[1]), (true, key(end - MINUTE_US)));
    }

    #[test]
    fn keys_are_read_again_after_a_pause() {
        let tokens = Tokens::new(String::new());
        assert!(tokens.may_look_again());
        for (ago, may) in [(Duration::ZERO, false), (2 * UNKNOWN_KEY_PAUSE, true)] {
            let at = Instant::now().checked_sub(ago);
            *tokens.known.write().unwrap() = (Vec::new(), at);
            assert_eq!(tokens.may_look_again(), may, "{ago:?}");
        }
    }
}
