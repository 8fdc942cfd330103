//! The owner of an account (ACC-20): a personal identity, and the only one. It comes to it by making the account, or by a tie that somebody with
//! `owner.tie` began and that was consented to (`account/ownership`). A first owner that was tied later has its finances begin later.

use sea_orm::{ConnectionTrait, Value};
use uuid::Uuid;

use super::{OWNER, Set, find, held, remove_anyway, set, state};
use crate::{
    access::{
        account_state, exceptions,
        principal::{Kind, Principal},
        roles::Permission,
    },
    app::Tx,
    env::Micros,
    error::{Error, Reason, Result},
    store::{scope_key::ScopeKey, sql},
};

/// The principal of a personal identity.
#[must_use]
pub fn identity(id: Uuid) -> Principal {
    Principal {
        kind: Kind::Identity,
        id,
        tenant: Uuid::nil(),
    }
}

/// Who owns an account, and when its finances begin or began, if they begin later than the ownership.
///
/// # Errors
/// Those of the database.
pub async fn owner_of<C: ConnectionTrait>(
    db: &C,
    account: Uuid,
) -> Result<Option<(Uuid, Option<Micros>)>> {
    let scope = ScopeKey::Account(account);
    let sql = "SELECT principal_id, finance_from FROM grants WHERE scope_kind = $1 AND scope_id = $2 AND principal_kind = $3 \
               AND (roles & $4) <> 0 ORDER BY principal_id LIMIT 1";
    let values: [Value; 4] = [
        scope.kind().into(),
        scope.id().into(),
        (Kind::Identity as i16).into(),
        OWNER.into(),
    ];
    Ok(match sql::row(db, sql, values).await? {
        Some(row) => Some((
            row.try_get("", "principal_id")?,
            row.try_get("", "finance_from")?,
        )),
        None => None,
    })
}

/// Refuses what would give a second owner, and methods that the table of exceptions doesn't let give one.
///
/// # Errors
/// `OWNER_EXISTS`; those of the database.
pub async fn check_may_invite_owner(tx: &Tx, account: Uuid) -> Result<()> {
    if exceptions::of(tx.method(), "OWNER").is_none() {
        return Err(Error::internal(
            "a method begins a tie that no exception lets it",
        ));
    }
    demand_no_owner(tx, account).await
}

async fn demand_no_owner(tx: &Tx, account: Uuid) -> Result<()> {
    match owner_of(tx.db(), account).await? {
        None => Ok(()),
        Some(_) => Err(Error::precondition(Reason::OwnerExists)),
    }
}

/// Whether somebody other than the caller, who began a tie, might still begin it: it can act, and holds `owner.tie` there, awake.
///
/// # Errors
/// Those of the database.
pub async fn may_still_tie(tx: &Tx, by: Principal, account: Uuid) -> Result<bool> {
    let now = tx.now();
    let Some(state) = state(tx.db(), by, now).await? else {
        return Ok(false);
    };
    let scope = ScopeKey::Account(account);
    let theirs = held(tx.db(), by.id, scope).await?;
    let awake = theirs.awake(scope, state.asleep_until, now);
    Ok(awake.has(Permission::OwnerTie))
}

/// Refuses an identity that owns an account, which it can't own twice. The identity is locked.
///
/// # Errors
/// `IDENTITY_ALREADY_TIED`; those of the database.
pub async fn demand_untied(tx: &mut Tx, id: Uuid) -> Result<()> {
    tx.lock([ScopeKey::Identity(id)]).await?;
    match tied_to(tx.db(), id).await? {
        Some(_) => Err(Error::precondition(Reason::IdentityAlreadyTied)),
        None => Ok(()),
    }
}

/// Why somebody may make an owner.
#[derive(Clone, Copy, Debug)]
pub enum Tie {
    /// An act of the table of exceptions lets it: a method, or the one that began what others consented to.
    Excepted(&'static str),
    /// The owner hands on what it holds.
    HandedOn,
}

/// Makes an identity the owner of an account that has none; what concerns finances begins at a time, if one is given. Emits nothing.
///
/// # Errors
/// `OWNER_EXISTS`, `IDENTITY_ALREADY_TIED`; `WRONG_STATE` if the identity can't act; those of the database.
pub async fn tie_owner(
    tx: &mut Tx,
    account: Uuid,
    id: Uuid,
    finance_from: Option<Micros>,
    why: Tie,
) -> Result<Set> {
    if let Tie::Excepted(act) = why
        && exceptions::of(act, "OWNER").is_none()
    {
        return Err(Error::internal(format!(
            "{act} makes an owner that no exception lets it"
        )));
    }
    let (scope, to) = (ScopeKey::Account(account), identity(id));
    tx.lock([scope, to.home()]).await?;
    demand_no_owner(tx, account).await?;
    demand_untied(tx, id).await?;
    if state(tx.db(), to, tx.now()).await?.is_none() {
        return Err(Error::precondition(Reason::WrongState).with("state", "CLOSED"));
    }
    let old = find(tx.db(), scope, id).await?;
    let old = old.as_ref().map(Set::of_grant).unwrap_or_default();
    let new = Set {
        roles: old.roles | OWNER,
        ..old
    };
    set(tx, scope, to, new, super::By::Service).await?;
    let sql = "UPDATE grants SET finance_from = $1 WHERE scope_kind = $2 AND scope_id = $3 AND principal_id = $4";
    let values: [Value; 4] = [
        finance_from.into(),
        scope.kind().into(),
        scope.id().into(),
        id.into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    Ok(new)
}

/// Takes an account from its owner, with all that it held there, also where it made itself the last manager: whoever may stop an owner can
/// always do it. Emits nothing.
///
/// # Errors
/// Those of the database.
pub async fn untie_owner(tx: &mut Tx, account: Uuid, id: Uuid) -> Result<Set> {
    let scope = ScopeKey::Account(account);
    tx.lock([scope, ScopeKey::Identity(id)]).await?;
    let grant = remove_anyway(tx, scope, id).await?;
    Ok(grant.as_ref().map(Set::of_grant).unwrap_or_default())
}

/// The account that an identity owns, if it owns one. Whose account was closed, or rejected for good, reads it still and is free: nobody could
/// hand it on any more.
///
/// # Errors
/// Those of the database.
pub async fn tied_to<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Option<Uuid>> {
    let sql = "SELECT g.scope_id FROM grants g WHERE g.principal_id = $1 AND g.scope_kind = $2 AND (g.roles & $3) <> 0 \
               AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.id = g.scope_id AND a.state IN ($4, $5)) ORDER BY g.scope_id LIMIT 1";
    let [rejected, closed] = account_state::OVER.map(|state| state as i64);
    let values: [Value; 5] = [
        id.into(),
        ScopeKey::Account(Uuid::nil()).kind().into(),
        OWNER.into(),
        rejected.into(),
        closed.into(),
    ];
    Ok(match sql::row(db, sql, values).await? {
        Some(row) => Some(row.try_get("", "scope_id")?),
        None => None,
    })
}
