//! The language of mails that nobody asked for in their own: those of jobs, and of what the operator's staff do to companies (COM-15).
//!
//! A person's language is the one of their last sign-in. Whoever has none, such as a contact who is no user, is written to as those are who run
//! what the mail is about.

use sea_orm::Value;

use crate::{
    access::grants::{ACTIVE, GLOBAL_ADMIN, MANAGER, OWNER},
    app::Tx,
    error::{Language, Result},
    names::Name,
    store::{list::fold, scope_key::ScopeKey, sql},
};

/// The language in which somebody is written to about something. It is the caller's where that says enough: people write to people they
/// work with, and a mail that a call from nobody causes tells by no look at the database whether its address is known.
///
/// # Errors
/// Those of the database.
pub(super) async fn of(tx: &Tx, to: &str, about: Name) -> Result<Language> {
    let caller = tx.caller();
    let is_job = !tx.method().contains('/');
    let operator = tx.app().operator_tenant();
    let is_staff = caller.who.is_some_and(|w| w.principal.tenant == operator);
    if !(is_job || is_staff) {
        return Ok(caller.language);
    }
    let known = match of_address(tx, to).await? {
        None => of_those_who_run(tx, about.scope()).await?,
        known => known,
    };
    Ok(known.unwrap_or(caller.language))
}

/// The language of whoever is reached at an address; a guest's is that of its home.
async fn of_address(tx: &Tx, to: &str) -> Result<Option<Language>> {
    let sql = "SELECT c.language FROM ( \
               SELECT a.id, a.home_id FROM (SELECT id, home_id FROM users \
                 WHERE recovery_email <> '' AND lower(recovery_email) = $1 AND state = $2 LIMIT 20) a \
               UNION ALL SELECT b.id, b.home_id FROM (SELECT id, home_id FROM users \
                 WHERE kind <> 1 AND user_name_fold = $1 AND state = $2 LIMIT 20) b \
               ) u JOIN credentials c ON c.user_id = COALESCE(u.home_id, u.id) WHERE c.language <> '' ORDER BY u.id LIMIT 1";
    let values: [Value; 2] = [fold(to).into(), ACTIVE.into()];
    tag(tx, sql, values).await
}

/// The language of the first of those who run a tenant or an account.
async fn of_those_who_run(tx: &Tx, scope: ScopeKey) -> Result<Option<Language>> {
    let roles = match scope {
        ScopeKey::Tenant(_) => GLOBAL_ADMIN,
        ScopeKey::Account(_) => MANAGER | OWNER,
        ScopeKey::Operator | ScopeKey::Identity(_) => return Ok(None),
    };
    let sql = "SELECT c.language FROM grants g JOIN users u ON u.id = g.principal_id AND u.state = $4 \
               JOIN credentials c ON c.user_id = COALESCE(u.home_id, u.id) \
               WHERE g.scope_kind = $1 AND g.scope_id = $2 AND (g.roles & $3) <> 0 AND c.language <> '' ORDER BY g.create_time, u.id LIMIT 1";
    let values: [Value; 4] = [
        scope.kind().into(),
        scope.id().into(),
        roles.into(),
        ACTIVE.into(),
    ];
    tag(tx, sql, values).await
}

async fn tag(
    tx: &Tx,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Option<Language>> {
    let Some(row) = sql::row(tx.db(), sql, values).await? else {
        return Ok(None);
    };
    let tag: String = row.try_get("", "language")?;
    Ok(Some(Language::of_tag(&tag)))
}
