//! Publisher names (ACC-4): unique among all accounts under what makes them look alike, and kept from those that the operator reserved for
//! others.
//!
//! A name has keys, one row each, whose primary key settles two at once. Two names are the same if they share a key: letter case, width and
//! spaces apart, or as they look, both as written and in small letters. A closed account keeps its keys, so its name is never given again,
//! but to who won a claim on it (ACC-12): keys are an account's, or kept for a claim, whose claimant alone takes them.

use std::collections::BTreeSet;

use sea_orm::{FromQueryResult, Value};
use unicode_normalization::UnicodeNormalization as _;
use unicode_security::skeleton;
use uuid::Uuid;

use super::name_claim;
use crate::{
    app::{Read, Tx},
    document::content,
    error::{Error, Reason, Result},
    store::sql,
};

/// The keys of a name.
#[must_use]
pub fn keys(name: &str) -> BTreeSet<String> {
    let wide: String = name.nfkc().collect();
    let spaced = wide.split_whitespace().collect::<Vec<_>>().join(" ");
    let small = folded(&spaced);
    BTreeSet::from([look(&spaced), look(&small)])
}

/// A text without its case, also where the capitals are more letters than one, as of `ß`.
fn folded(text: &str) -> String {
    text.to_uppercase().to_lowercase()
}

/// What is wrong with a name that misleads.
pub const MISLEADS: &str = "has nothing that is seen, or characters that can't be";

/// Whether a name isn't what it looks like: characters that can't be seen, or turn the direction of text; or nothing is left that is seen.
#[must_use]
pub fn misleads(name: &str) -> bool {
    name.chars().any(content::misleads) || keys(name).contains("")
}

/// As a text looks, whatever its letters are, in small letters: `I`, `l`, `1` and `i` are one.
fn look(text: &str) -> String {
    let once = folded(&skeleton(text).collect::<String>());
    let twice = folded(&skeleton(&once).collect::<String>());
    twice
        .chars()
        .map(|c| if c == 'i' { 'l' } else { c })
        .collect::<String>()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Why a name can't be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Another account has it, or one that looks like it.
    Taken,
    /// The operator keeps it for whoever has the rights on it.
    Reserved,
}

pub(super) fn texts(keys: &BTreeSet<String>) -> Value {
    serde_json::json!(keys).to_string().into()
}

/// Who has keys of a name: an account, or a claim that they are kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub(super) struct Holder {
    /// The account.
    pub account_id: Option<Uuid>,
    /// The claim.
    pub kept_for: Option<Uuid>,
}

/// Who has keys of these; two at most, since a name has no more.
///
/// # Errors
/// Those of the database.
pub(super) async fn holders<C: sea_orm::ConnectionTrait>(
    db: &C,
    keys: &BTreeSet<String>,
) -> Result<Vec<Holder>> {
    let sql = format!(
        "SELECT DISTINCT account_id, kept_for FROM publisher_names WHERE skeleton IN ({}) ORDER BY account_id, kept_for",
        sql::in_texts(db, 1)
    );
    sql::all::<Holder, _>(db, sql, [texts(keys)]).await
}

async fn hindrance<C: sea_orm::ConnectionTrait>(
    db: &C,
    name: &str,
    is_free: impl Fn(&Holder) -> bool,
) -> Result<Option<Hindrance>> {
    let keys = keys(name);
    if !holders(db, &keys).await?.iter().all(is_free) {
        return Ok(Some(Hindrance::Taken));
    }
    let sql = format!(
        "SELECT 1 AS one FROM reserved_name_keys WHERE skeleton IN ({}) LIMIT 1",
        sql::in_texts(db, 1)
    );
    let reserved = sql::row(db, sql, [texts(&keys)]).await?;
    Ok(reserved.map(|_| Hindrance::Reserved))
}

/// What keeps a name from being taken now, by an account if it is one's; None if it is free, or kept for a claim of the caller's or its tenant's.
///
/// # Errors
/// Those of the database.
pub async fn look_up(rd: &Read, own: Option<Uuid>, name: &str) -> Result<Option<Hindrance>> {
    let mut kept = Vec::new();
    for holder in holders(rd.db(), &keys(name)).await? {
        let Some(claim) = holder.kept_for else {
            continue;
        };
        let caller = rd.caller().who.map(|who| who.principal.id);
        let may = match own {
            Some(account) => name_claim::may_take(rd.db(), caller, claim, account).await?,
            None => name_claim::is_callers(rd, claim).await?,
        };
        if may {
            kept.push(claim);
        }
    }
    let is_free = |holder: &Holder| {
        (own.is_some() && holder.account_id == own)
            || holder.kept_for.is_some_and(|claim| kept.contains(&claim))
    };
    let found = hindrance(rd.db(), name, is_free).await?;
    Ok(found.filter(|found| kept.is_empty() || *found == Hindrance::Taken))
}

/// What a name can't be taken for.
fn refused(found: Option<Hindrance>) -> Result<()> {
    let (reason, text) = match found {
        None => return Ok(()),
        Some(Hindrance::Taken) => (Reason::PublisherNameTaken, "is that of another account"),
        Some(Hindrance::Reserved) => (Reason::PublisherNameReserved, "is reserved for others"),
    };
    let field = "account.publisher_display_name";
    Err(Error::exists(reason, field, text))
}

/// Refuses a name that a new account can't take; none is free. Whom it is kept for, `claim` says.
///
/// # Errors
/// `PUBLISHER_NAME_TAKEN`, `PUBLISHER_NAME_RESERVED`.
pub async fn check(tx: &Tx, name: &str) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    let is_kept = |holder: &Holder| holder.kept_for.is_some();
    refused(hindrance(tx.db(), name, is_kept).await?)
}

/// Whether the operator keeps a name, whoever has it.
///
/// # Errors
/// Those of the database.
pub(super) async fn reserved(tx: &Tx, name: &str) -> Result<bool> {
    let found = hindrance(tx.db(), name, |_| true).await?;
    Ok(found == Some(Hindrance::Reserved))
}

/// Gives an account a name in place of the one it had; an empty one frees that. The account and its tenants are there, so that a name that is
/// kept for one of these is found. Where the name before was claimed, it is kept for the claimant.
///
/// # Errors
/// `PUBLISHER_NAME_TAKEN`, `PUBLISHER_NAME_RESERVED`.
pub async fn claim(tx: &mut Tx, account: Uuid, name: &str) -> Result<()> {
    let mut kept = Vec::new();
    let mut wanted = BTreeSet::new();
    if !name.is_empty() {
        wanted = keys(name);
        for holder in holders(tx.db(), &wanted).await? {
            let caller = tx.caller().who.map(|who| who.principal.id);
            if let Some(claim) = holder.kept_for
                && name_claim::may_take(tx.db(), caller, claim, account).await?
            {
                kept.push(claim);
            }
        }
        let is_free = |holder: &Holder| {
            holder.account_id == Some(account)
                || holder.kept_for.is_some_and(|claim| kept.contains(&claim))
        };
        let found = hindrance(tx.db(), name, is_free).await?;
        // Who won a name has it, though it was reserved since.
        refused(found.filter(|found| kept.is_empty() || *found == Hindrance::Taken))?;
    }
    name_claim::renaming(tx, account, &wanted).await?;
    let sql = "DELETE FROM publisher_names WHERE account_id = $1";
    sql::execute(tx.db(), sql, [account.into()]).await?;
    for claim in kept {
        name_claim::taken(tx, claim).await?;
    }
    for key in wanted {
        let sql = "INSERT INTO publisher_names (skeleton, account_id) VALUES ($1, $2)";
        let values: [Value; 2] = [key.into(), account.into()];
        sql::execute(tx.db(), sql, values).await?;
    }
    Ok(())
}

/// Keeps a name from accounts, under the ID of its reservation.
///
/// # Errors
/// `RESOURCE_EXISTS` if one that looks like it is reserved.
pub async fn reserve(tx: &mut Tx, id: Uuid, name: &str) -> Result<()> {
    for key in keys(name) {
        let sql = "INSERT INTO reserved_name_keys (skeleton, reserved_name_id) VALUES ($1, $2)";
        let values: [Value; 2] = [key.into(), id.into()];
        sql::execute(tx.db(), sql, values).await?;
    }
    Ok(())
}

/// Lets a reserved name be taken.
///
/// # Errors
/// Those of the database.
pub async fn free(tx: &mut Tx, id: Uuid) -> Result<()> {
    let sql = "DELETE FROM reserved_name_keys WHERE reserved_name_id = $1";
    sql::execute(tx.db(), sql, [id.into()]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        !keys(one).is_disjoint(&keys(other))
    }

    // proves ACC-4
    #[test]
    fn names_that_look_alike_are_one() {
        for (one, other) in [
            ("Contoso", "CONTOSO"),
            ("Contoso", "ＣＯＮＴＯＳＯ"),
            ("Contoso", "C\u{43e}ntoso"),
            ("Contoso", "\u{421}\u{41e}NTOSO"),
            ("Contoso", "  contoso "),
            ("Con toso", "con\u{2003}  TOSO"),
            ("PayPal", "PayPaI"),
            ("PayPal", "PAYPAL"),
            ("Intel", "lntel"),
            ("INTEL", "intel"),
            ("Micro", "MICRO"),
            ("modern", "rnodern"),
            ("Вкус", "ВКУС"),
            ("Ελλάς", "ΕΛΛΆΣ"),
            ("Straße", "straße"),
            ("Straße", "STRASSE"),
            ("Acme 10", "Acme lO"),
            ("Contoso", "Conto\u{200d}so"),
        ] {
            assert!(
                same(one, other),
                "{one} {other} {:?} {:?}",
                keys(one),
                keys(other)
            );
        }
        for (one, other) in [
            ("Contoso", "Contosa"),
            ("Contoso", "Con toso"),
            ("Acme 1", "Acme 2"),
            ("Alpha", "Beta"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    // proves ACC-4
    #[test]
    fn names_that_are_not_what_they_look_like_mislead() {
        for name in [
            "\u{200b}",
            "\u{202e}osotnoC",
            "Con\u{2066}toso",
            "\u{ad}",
            " ",
        ] {
            assert!(misleads(name), "{name:?}");
        }
        for name in [
            "Contoso",
            "Вкус",
            "株式会社",
            "E-Corp & Söhne",
            "\u{1f980} Crab",
        ] {
            assert!(!misleads(name), "{name:?}");
        }
    }
}
