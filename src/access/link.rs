//! Links in mails: a token that proves by itself, once, what its kind is for (INV-3, PWD-4, COM-20). Only a MAC of it is kept; a used,
//! expired, revoked or unknown one, and one of another kind, get one and the same answer.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    app::Tx,
    config::Config,
    env::Micros,
    error::{Error, Reason, Result},
    keys::{Keys, Purpose},
    proto::access::LinkKind,
    store::{scope_key::ScopeKey, sql},
};

/// The prefix of tokens, for secret scanners.
const PREFIX: &str = "entl_";

/// Wrong passwords that may come with one link.
const MOST_FAILED: i64 = 100;

/// What the token of a link proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is good for.
    pub kind: LinkKind,
    /// Whom or what it is about: an invitation, a user, a tenant.
    pub subject: Uuid,
    /// Where that lies.
    pub scope: ScopeKey,
}

/// Makes the link of a subject, and kills the one that it had; gives the token, which is kept nowhere. The payload comes back when it is
/// redeemed.
///
/// # Errors
/// Those of the database.
pub async fn make(
    tx: &mut Tx,
    link: Link,
    payload: &[u8],
    lifetime: Micros,
) -> Result<Zeroizing<String>> {
    let app = tx.app().clone();
    let token = Zeroizing::new(format!(
        "{PREFIX}{}",
        BASE64_URL_SAFE_NO_PAD.encode(app.env.bytes::<24>())
    ));
    revoke(tx, link.kind, link.subject).await?;
    let sealed = app.keys.seal(&place(link), payload)?;
    let sql = "INSERT INTO links (mac, kind, subject_id, scope_kind, scope_id, sealed_payload, create_time, expire_time) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let values: [Value; 8] = [
        mac(&app.keys, link.kind, &token).into(),
        (link.kind as i16).into(),
        link.subject.into(),
        link.scope.kind().into(),
        link.scope.id().into(),
        sealed.into(),
        tx.now().into(),
        (tx.now() + lifetime).into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    Ok(token)
}

/// Kills the link of a subject, if there is one.
///
/// # Errors
/// Those of the database.
pub async fn revoke(tx: &mut Tx, kind: LinkKind, subject: Uuid) -> Result<()> {
    let sql = "DELETE FROM links WHERE kind = $1 AND subject_id = $2";
    let values: [Value; 2] = [(kind as i16).into(), subject.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Kills the links by which a person's credential or address would change: what was asked for under the old one is void.
///
/// # Errors
/// Those of the database.
pub async fn revoke_ways_in(tx: &mut Tx, person: Uuid) -> Result<()> {
    let sql = "DELETE FROM links WHERE kind IN ($1, $2) AND subject_id = $3";
    let values: [Value; 3] = [
        (LinkKind::PasswordRecovery as i16).into(),
        (LinkKind::EmailChange as i16).into(),
        person.into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

#[derive(FromQueryResult)]
struct Row {
    subject_id: Uuid,
    scope_kind: i16,
    scope_id: Uuid,
}

/// What a token of a kind proves now; None if nothing. One statement, whatever the token is.
///
/// # Errors
/// Those of the database.
pub(in crate::access) async fn find<C: ConnectionTrait>(
    db: &C,
    keys: &Keys,
    kind: LinkKind,
    token: &str,
    now: Micros,
) -> Result<Option<Link>> {
    let sql = "SELECT subject_id, scope_kind, scope_id FROM links WHERE mac = $1 AND kind = $2 AND expire_time > $3";
    let values: [Value; 3] = [
        mac(keys, kind, token).into(),
        (kind as i16).into(),
        now.into(),
    ];
    let row = sql::one::<Row, _>(db, sql, values).await?;
    Ok(row.and_then(|row| {
        Some(Link {
            kind,
            subject: row.subject_id,
            scope: ScopeKey::from_parts(row.scope_kind, row.scope_id)?,
        })
    }))
}

/// The payload of a link that was proven, without using it up; for preparations. None if it was used meanwhile.
///
/// # Errors
/// Those of the database.
pub async fn payload<C: ConnectionTrait>(
    db: &C,
    keys: &Keys,
    link: Link,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let sql = "SELECT sealed_payload FROM links WHERE kind = $1 AND subject_id = $2";
    let values: [Value; 2] = [(link.kind as i16).into(), link.subject.into()];
    match sql::row(db, sql, values).await? {
        Some(row) => {
            let sealed: Vec<u8> = row.try_get("", "sealed_payload")?;
            keys.open(&place(link), &sealed).map(Some)
        }
        None => Ok(None),
    }
}

/// Uses a link up, and gives its payload. It was proven after its scope was locked, so two at once find it used.
///
/// # Errors
/// `LINK_INVALID` if it is gone; those of the database.
pub async fn redeem(tx: &mut Tx, link: Link) -> Result<Zeroizing<Vec<u8>>> {
    let sql = "DELETE FROM links WHERE kind = $1 AND subject_id = $2 RETURNING sealed_payload";
    let values: [Value; 2] = [(link.kind as i16).into(), link.subject.into()];
    let row = sql::row(tx.db(), sql, values).await?.ok_or_else(invalid)?;
    let sealed: Vec<u8> = row.try_get("", "sealed_payload")?;
    tx.app().keys.open(&place(link), &sealed)
}

/// Counts a wrong password that came with a link; too many make it void.
///
/// # Errors
/// Those of the database.
pub async fn failed(tx: &mut Tx, link: Link) -> Result<()> {
    let sql = "UPDATE links SET failed = failed + 1 WHERE kind = $1 AND subject_id = $2";
    let values: [Value; 2] = [(link.kind as i16).into(), link.subject.into()];
    sql::execute(tx.db(), sql, values).await?;
    let sql = "DELETE FROM links WHERE kind = $1 AND subject_id = $2 AND failed >= $3";
    let values: [Value; 3] = [
        (link.kind as i16).into(),
        link.subject.into(),
        MOST_FAILED.into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// The one answer to a token that proves nothing.
#[must_use]
pub fn invalid() -> Error {
    Error::refused(Reason::LinkInvalid)
}

/// Links whose time is over; the scheduler's.
///
/// # Errors
/// Those of the database.
pub(crate) async fn sweep(tx: &mut Tx) -> Result<u64> {
    let sql =
        "DELETE FROM links WHERE mac IN (SELECT mac FROM links WHERE expire_time <= $1 LIMIT 1000)";
    Ok(sql::execute(tx.db(), sql, [tx.now().into()])
        .await?
        .rows_affected())
}

/// The address that a mail shows: a page of the operator's portal, the token in the fragment, which no server sees (COM-20).
#[must_use]
pub fn url(config: &Config, kind: LinkKind, token: &str) -> Zeroizing<String> {
    let page = page(kind);
    Zeroizing::new(format!("{}/{page}#{token}", config.public_origin))
}

/// The page of a kind, below `public_origin`. README.md lists them for whoever builds the portal.
fn page(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Unspecified => "",
        LinkKind::Invitation => "accept-invitation",
        LinkKind::PasswordRecovery => "recover-password",
        LinkKind::IdentityConfirmation => "confirm-identity",
        LinkKind::EmailChange => "confirm-email",
        LinkKind::TenantUndeletion => "undelete-tenant",
        LinkKind::ContactConfirmation => "confirm-contact",
        LinkKind::CompanyApproval => "approve-enrolment",
        LinkKind::OwnershipConsent => "consent-to-owner",
        LinkKind::OwnershipStop => "stop-owner",
        LinkKind::RecoveryStop => "stop-recovery",
        LinkKind::MembershipClaim => "bring-membership",
    }
}

/// A token is bound to its kind: a link for one thing is unknown to all others.
fn mac(keys: &Keys, kind: LinkKind, token: &str) -> Vec<u8> {
    let kind = (kind as i32).to_be_bytes();
    keys.mac(Purpose::Secret, &[b"link", &kind, token.as_bytes()])
        .to_vec()
}

fn place(link: Link) -> String {
    format!("links.sealed_payload/{}/{}", link.kind as i32, link.subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_keeps_opens_for_its_kind_and_subject_alone() {
        let of = |kind, subject| {
            place(Link {
                kind,
                subject: Uuid::from_u128(subject),
                scope: ScopeKey::Operator,
            })
        };
        let (one, other) = (LinkKind::Invitation, LinkKind::EmailChange);
        let places = [of(one, 1), of(other, 1), of(one, 2)];
        for (i, place) in places.iter().enumerate() {
            assert!(place.starts_with("links.sealed_payload/"));
            assert!(!places[..i].contains(place), "{place}");
        }
    }

    // proves COM-20
    #[test]
    fn the_readme_has_the_page_of_every_kind() {
        let text = include_str!("../../README.md");
        let mut pages = Vec::new();
        for number in 1..200 {
            let Ok(kind) = LinkKind::try_from(number) else {
                continue;
            };
            let page = page(kind);
            assert!(!page.is_empty() && !pages.contains(&page), "{kind:?}");
            assert!(
                text.contains(&format!("\n| `/{page}` | ")),
                "README.md lacks /{page}"
            );
            pages.push(page);
        }
        assert!(!pages.is_empty());
    }
}
