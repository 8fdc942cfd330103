//! What must not be lost: the last who can act of an account's managers, a tenant's global admins, the operator's administrators (ROL-9).

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, Value};
use uuid::Uuid;

use super::{GLOBAL_ADMIN, MANAGER, OPERATOR_ADMIN, Right};
use crate::{
    app::Tx,
    env::Micros,
    error::{Error, Reason, Result},
    names::Name,
    store::{outbox::Event, scope_key::ScopeKey, sql},
};

/// The role that a scope must not lose (ROL-9): asked before a change, and held against what is left after it. Who can't act anyway is no
/// loss, so a shut-out manager can be removed where no other is left.
#[must_use]
pub struct Last {
    scope: ScopeKey,
    /// The role that would be lost; none if somebody who can act is not among those who lose it.
    role: Option<(i64, Reason)>,
}

impl Last {
    /// Before a change by which `lost` roles are taken from somebody. The scope is locked.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn before(tx: &mut Tx, scope: ScopeKey, lost: i64) -> Result<Self> {
        let role = kept_role(scope).filter(|(bit, _)| lost & bit != 0);
        let Some((bit, reason)) = role else {
            return Ok(Self { scope, role: None });
        };
        tx.lock([scope]).await?;
        let there = somebody_holds(tx.db(), scope, bit, tx.now()).await?;
        Ok(Self {
            scope,
            role: there.then_some((bit, reason)),
        })
    }

    /// After the change: refuses it if nobody who can act is left.
    ///
    /// # Errors
    /// `LAST_MANAGER`, `LAST_GLOBAL_ADMIN`, `LAST_OPERATOR_ADMIN`.
    pub async fn kept(self, tx: &Tx) -> Result<()> {
        match self.role {
            Some((_, reason)) if self.is_lost(tx).await? => Err(Error::precondition(reason)),
            _ => Ok(()),
        }
    }

    async fn is_lost(&self, tx: &Tx) -> Result<bool> {
        Ok(match self.role {
            Some((bit, _)) => !somebody_holds(tx.db(), self.scope, bit, tx.now()).await?,
            None => false,
        })
    }
}

pub(super) fn kept_role(scope: ScopeKey) -> Option<(i64, Reason)> {
    match scope {
        ScopeKey::Operator => Some((OPERATOR_ADMIN, Reason::LastOperatorAdmin)),
        ScopeKey::Tenant(_) => Some((GLOBAL_ADMIN, Reason::LastGlobalAdmin)),
        ScopeKey::Account(_) => Some((MANAGER, Reason::LastManager)),
        ScopeKey::Identity(_) => None,
    }
}

/// Whether an active person who can sign in holds a role on a scope, directly or by a group. A guest counts on accounts, but keeps no
/// tenant and not the operator: its home may shut it out at any time.
///
/// # Errors
/// Those of the database.
pub async fn somebody_holds(
    db: &impl ConnectionTrait,
    scope: ScopeKey,
    role: i64,
    now: Micros,
) -> Result<bool> {
    somebody_else_holds(db, scope, role, now, Uuid::nil()).await
}

/// The same of everybody but one.
async fn somebody_else_holds(
    db: &impl ConnectionTrait,
    scope: ScopeKey,
    role: i64,
    now: Micros,
    but: Uuid,
) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM ( \
                 SELECT principal_id, tenant_id FROM grants WHERE scope_kind = $1 AND scope_id = $2 AND (roles & $3) <> 0 \
                 UNION ALL \
                 SELECT user_id AS principal_id, tenant_id FROM group_rights WHERE scope_kind = $1 AND scope_id = $2 AND (roles & $3) <> 0 \
               ) x JOIN active_people p ON p.id = x.principal_id \
               JOIN credentials c ON c.user_id = p.credential_of AND (c.expire_time IS NULL OR c.expire_time > $4) \
               WHERE p.id <> $5 AND p.credential_of <> $5 AND ($1 = 2 OR p.kind = 1) AND ($1 <> 2 OR p.kind = 3 OR EXISTS \
                 (SELECT 1 FROM associations a WHERE a.account_id = $2 AND a.tenant_id = x.tenant_id)) LIMIT 1";
    let values: [Value; 5] = [
        scope.kind().into(),
        scope.id().into(),
        role.into(),
        now.into(),
        but.into(),
    ];
    Ok(sql::row(db, sql, values).await?.is_some())
}

/// Why a person can't be shut out: as the last administrator of its tenant, or of the operator; none if it isn't. For acts that leave out
/// what can't be done instead of failing as a whole. The scopes are locked.
///
/// # Errors
/// Those of the database.
pub async fn last_administrator(
    tx: &mut Tx,
    person: Uuid,
    rights: &[Right],
) -> Result<Option<Reason>> {
    for right in rights {
        let kept = kept_role(right.scope)
            .filter(|_| !matches!(right.scope, ScopeKey::Account(_)))
            .filter(|(bit, _)| right.set.roles & bit != 0);
        let Some((bit, reason)) = kept else {
            continue;
        };
        tx.lock([right.scope]).await?;
        let now = tx.now();
        if somebody_holds(tx.db(), right.scope, bit, now).await?
            && !somebody_else_holds(tx.db(), right.scope, bit, now, person).await?
        {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// An act of a tenant that shuts somebody out and can't wait for the accounts: refused for the tenant's or the operator's last
/// administrator; accounts that lose their last manager are told (ROL-9).
#[must_use]
pub struct ShutOut(Vec<Last>);

impl ShutOut {
    /// Before it, with the scopes that may lose their last one by it: where whoever is shut out holds that role, there and as a guest
    /// elsewhere, directly and by groups. They are locked.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn before(tx: &mut Tx, scopes: BTreeSet<ScopeKey>) -> Result<Self> {
        tx.lock(scopes.iter().copied()).await?;
        let mut lasts = Vec::new();
        for scope in scopes {
            let role = kept_role(scope).map_or(0, |(bit, _)| bit);
            lasts.push(Last::before(tx, scope, role).await?);
        }
        Ok(Self(lasts))
    }

    /// After it.
    ///
    /// # Errors
    /// `LAST_GLOBAL_ADMIN`, `LAST_OPERATOR_ADMIN`; those of the database.
    pub async fn done(self, tx: &mut Tx) -> Result<()> {
        for last in self.0 {
            let ScopeKey::Account(account) = last.scope else {
                last.kept(tx).await?;
                continue;
            };
            if last.is_lost(tx).await? {
                tx.emit(Event::new(
                    "entente.account.v1.AccountWithoutManager",
                    Name::Account(account),
                ));
            }
        }
        Ok(())
    }
}
