//! What partners know of credentials of a customer's users: whom they made, whose password they were shown, which addresses they gave
//! (REL-14, REL-22).

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use crate::{
    access::{
        grants::{GLOBAL_ADMIN, MANAGER},
        principal::{Kind, Principal},
    },
    app::Tx,
    env::Micros,
    error::{Error, Reason, Result},
    names::Name,
    store::{scope_key::ScopeKey, sql},
};

/// What a partner did to a user's credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The user is new.
    pub is_made: bool,
    /// The partner was shown a temporary password.
    pub is_shown: bool,
}

/// Notes that a caller made a user by what is lent to it, or set the credential of one; with the address that it gave (REL-14). One relationship may
/// have made whom another one is shown the password of.
///
/// # Errors
/// Internal, if nothing was lent; those of the database.
pub async fn note_user(tx: &mut Tx, user: Uuid, known: Known, given: &str) -> Result<()> {
    let lent = tx
        .lent()
        .ok_or_else(|| Error::internal("nothing was lent"))?;
    let sql = "INSERT INTO delegated_users (id, relationship_id, shown_by, tenant_id, is_made, is_known, recovery_email, create_time) \
               VALUES ($1, $2, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO UPDATE SET is_known = excluded.is_known, \
               shown_by = CASE WHEN excluded.is_known THEN excluded.shown_by ELSE delegated_users.shown_by END";
    let values: [Value; 7] = [
        user.into(),
        lent.relationship.into(),
        lent.tenant.into(),
        known.is_made.into(),
        known.is_shown.into(),
        given.into(),
        tx.now().into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// A user's credential was set, by somebody of the customer's or by whoever reads an address that a partner gave.
///
/// # Errors
/// Those of the database.
pub async fn note_known(tx: &mut Tx, user: Uuid, is_known: bool) -> Result<()> {
    let sql = "UPDATE delegated_users SET is_known = $2 WHERE id = $1 AND is_known <> $2";
    let values: [Value; 2] = [user.into(), is_known.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Sees to it that a principal can be given these roles and more, whoever gives it; a group stands for those who are in it.
///
/// # Errors
/// As `ready_users`.
pub(in crate::access::grants) async fn ready(tx: &mut Tx, to: Principal, roles: i64) -> Result<()> {
    match to.kind {
        Kind::User => ready_of(tx, "SELECT $1", to.id.into(), roles).await,
        Kind::Group => {
            let whom = "SELECT user_id FROM group_members WHERE group_id = $1";
            ready_of(tx, whom, to.id.into(), roles).await
        }
        Kind::Identity | Kind::Application => Ok(()),
    }
}

/// Sees to it that users can be given something. Of new managers the homes of guests among them are locked: whoever is shut out there may be
/// the last one elsewhere (ROL-9). And nothing is given to whose credential a partner may know: nobody lends it, so no partner gets it by a
/// password that it was shown either (REL-22). Their own tenants are locked.
///
/// # Errors
/// `NOT_ASSIGNABLE`; those of the database.
pub(in crate::access::grants) async fn ready_users(
    tx: &mut Tx,
    users: &[Uuid],
    roles: i64,
) -> Result<()> {
    let whom = sql::in_ids(tx.db(), 1);
    ready_of(tx, &whom, sql::ids(users), roles).await
}

#[derive(FromQueryResult)]
struct Notable {
    home: Option<Uuid>,
    is_known: bool,
}

async fn ready_of(tx: &mut Tx, whom: &str, of: Value, roles: i64) -> Result<()> {
    let sql = format!(
        "SELECT DISTINCT h.tenant_id AS home, (d.id IS NOT NULL) AS is_known FROM users u LEFT JOIN users h ON h.id = u.home_id \
         LEFT JOIN delegated_users d ON d.id = COALESCE(u.home_id, u.id) AND d.is_known \
         WHERE u.id IN ({whom}) AND (u.home_id IS NOT NULL OR d.id IS NOT NULL)"
    );
    let mut found = sql::all::<Notable, _>(tx.db(), &sql, [of.clone()]).await?;
    // Personal identities have no home that could be locked.
    let homes = found.iter().filter_map(|n| n.home);
    let homes: Vec<_> = homes.filter(|home| !home.is_nil()).collect();
    if roles & MANAGER != 0 && !homes.is_empty() {
        tx.lock(homes.into_iter().map(ScopeKey::Tenant)).await?;
        found = sql::all::<Notable, _>(tx.db(), &sql, [of]).await?;
    }
    if found.iter().any(|n| n.is_known) {
        let what = "anything, before the password that a partner was shown is reset,";
        return Err(Error::precondition(Reason::NotAssignable).with("lacking", what));
    }
    Ok(())
}

/// Whoever knows a user's credential has set its recovery address: the person itself, unless that may be a partner.
///
/// # Errors
/// Those of the database.
pub async fn note_own_address(tx: &mut Tx, user: Uuid, recovery_email: &str) -> Result<()> {
    let sql = "UPDATE delegated_users SET recovery_email = CASE WHEN is_known THEN $2 ELSE '' END WHERE id = $1";
    let values: [Value; 2] = [user.into(), recovery_email.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Somebody of the customer's set a user's recovery address: no partner's, whichever it is.
///
/// # Errors
/// Those of the database.
pub async fn forget_given_address(tx: &mut Tx, user: Uuid) -> Result<()> {
    let sql =
        "UPDATE delegated_users SET recovery_email = '' WHERE id = $1 AND recovery_email <> ''";
    sql::execute(tx.db(), sql, [user.into()]).await?;
    Ok(())
}

/// Whether somebody's recovery address is one that came by a partner. Whoever runs the customer's tenant must not be reached by it: a partner
/// would get what nobody lends (REL-14, REL-22).
///
/// # Errors
/// Those of the database.
pub async fn is_given_address<C: ConnectionTrait>(
    db: &C,
    user: Uuid,
    recovery_email: &str,
) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM delegated_users WHERE id = $1 AND recovery_email = $2 AND recovery_email <> ''";
    let values: [Value; 2] = [user.into(), recovery_email.into()];
    Ok(sql::row(db, sql, values).await?.is_some())
}

/// Whether a tenant has, besides this one, a global admin who can act and whom no partner made or knows the credential of: who ends what it
/// lends (REL-8).
///
/// # Errors
/// Those of the database.
pub async fn has_own_admin<C: ConnectionTrait>(
    db: &C,
    tenant: Uuid,
    but: Uuid,
    now: Micros,
) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM grants g JOIN active_people p ON p.id = g.principal_id AND p.kind = 1 \
               JOIN credentials c ON c.user_id = p.credential_of AND (c.expire_time IS NULL OR c.expire_time > $4) \
               LEFT JOIN delegated_users d ON d.id = p.id \
               WHERE g.scope_kind = 1 AND g.scope_id = $1 AND (g.roles & $3) <> 0 AND p.id <> $2 \
               AND NOT c.temporary AND (d.id IS NULL OR NOT d.is_known) LIMIT 1";
    let values: [Value; 4] = [tenant.into(), but.into(), GLOBAL_ADMIN.into(), now.into()];
    Ok(sql::row(db, sql, values).await?.is_some())
}

#[derive(FromQueryResult)]
struct Made {
    id: Uuid,
    tenant_id: Uuid,
}

/// Users that were made by a relationship, or whose password it showed and nobody has set since, and who are there still, the newest first; at
/// most so many.
///
/// # Errors
/// Those of the database.
pub async fn users_made<C: ConnectionTrait>(
    db: &C,
    relationship: Uuid,
    most: i64,
) -> Result<Vec<Name>> {
    let sql = "SELECT m.id, m.tenant_id FROM delegated_users m JOIN users u ON u.id = m.id AND u.state <> 3 \
               WHERE ((m.relationship_id = $1 AND m.is_made) OR (m.shown_by = $1 AND m.is_known)) ORDER BY m.create_time DESC, m.id DESC LIMIT $2";
    let values: [Value; 2] = [relationship.into(), most.into()];
    let rows = sql::all::<Made, _>(db, sql, values).await?;
    Ok(rows
        .into_iter()
        .map(|made| Name::User(made.tenant_id, made.id))
        .collect())
}
