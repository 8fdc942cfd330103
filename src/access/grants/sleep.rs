//! Rights that sleep because somebody else set the credential (ROL-13). The person's row tells until when; what other holders woke
//! meanwhile is kept by the user that holds it and by scope, until that time, or until the credential is set anew. So what is given later
//! sleeps too, until somebody wakes it who holds it there.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::{
    MOST_ROWS, Right,
    people::{rights_of, tell_if_cut},
};
use crate::{
    access::roles::{self, Permissions},
    app::Tx,
    env::{HOUR_US, Micros},
    error::Result,
    store::{scope_key::ScopeKey, sql},
};

/// Rights sleep so long after somebody else set the credential.
pub const ASLEEP_US: Micros = 72 * HOUR_US;

/// The permissions of these that sleep on a scope while rights are asleep, but for what was woken there.
#[must_use]
pub fn sleeping(scope: ScopeKey, of: Permissions) -> Permissions {
    if scope == ScopeKey::Operator {
        of
    } else {
        of.within(roles::SLEEPING)
    }
}

/// Puts a person's rights to sleep, whatever was woken before, since somebody else set the credential; or ends the sleep.
///
/// # Errors
/// Those of the database.
pub async fn set_asleep(tx: &mut Tx, person: Uuid, until: Option<Micros>) -> Result<()> {
    let sql = "UPDATE users SET rights_asleep_until = $1 WHERE id = $2";
    let values: [Value; 2] = [Value::BigInt(until), person.into()];
    sql::execute(tx.db(), sql, values).await?;
    forget_woken(tx, person).await
}

/// Forgets what was woken of a person's rights, as itself and as a guest elsewhere.
///
/// # Errors
/// Those of the database.
pub async fn forget_woken(tx: &mut Tx, person: Uuid) -> Result<()> {
    let sql = "DELETE FROM woken_rights WHERE user_id IN (SELECT id FROM users WHERE id = $1 OR home_id = $1)";
    sql::execute(tx.db(), sql, [person.into()]).await?;
    Ok(())
}

#[derive(FromQueryResult)]
struct WokenRow {
    user_id: Uuid,
    scope_kind: i16,
    scope_id: Uuid,
    permissions: String,
}

/// What would sleep of a person's rights, and what was woken of it: by scope, and by the user that holds it.
#[derive(Debug)]
pub struct Sleep(BTreeMap<(ScopeKey, Uuid), Slept>);

#[derive(Clone, Copy, Debug, Default)]
struct Slept {
    held: Permissions,
    woken: Permissions,
}

impl Sleep {
    /// Asks the database.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn of<C: ConnectionTrait>(db: &C, person: Uuid) -> Result<Self> {
        let mut all: BTreeMap<_, Slept> = BTreeMap::new();
        for Right {
            scope, set, holder, ..
        } in rights_of(db, person).await?
        {
            let held = sleeping(scope, set.permissions(scope));
            if !held.is_empty() {
                let slept = all.entry((scope, holder)).or_default();
                slept.held = slept.held.and(held);
            }
        }
        let sql = format!(
            "SELECT user_id, scope_kind, scope_id, permissions FROM woken_rights \
             WHERE user_id IN (SELECT id FROM users WHERE id = $1 OR home_id = $1) LIMIT {MOST_ROWS}"
        );
        let rows = sql::all::<WokenRow, _>(db, sql, [person.into()]).await?;
        tell_if_cut(rows.len(), "woken rights of a person", person);
        for row in rows {
            let slept = ScopeKey::from_parts(row.scope_kind, row.scope_id)
                .and_then(|scope| all.get_mut(&(scope, row.user_id)));
            if let Some(slept) = slept {
                slept.woken = Permissions::from_stored(&row.permissions);
            }
        }
        Ok(Self(all))
    }

    /// Where something sleeps.
    #[must_use]
    pub fn scopes(&self) -> BTreeSet<ScopeKey> {
        let asleep = |slept: &Slept| !slept.held.without(slept.woken).is_empty();
        let somewhere = self.0.iter().filter(|(_, slept)| asleep(slept));
        somewhere.map(|((scope, _), _)| *scope).collect()
    }

    /// Wakes what sleeps on a locked scope as far as `mine` goes, until `until`, when nothing sleeps any more. Gives what that is, and the
    /// users that hold it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn wake(
        &self,
        tx: &mut Tx,
        on: ScopeKey,
        mine: Permissions,
        until: Micros,
    ) -> Result<(Permissions, Vec<Uuid>)> {
        let (mut all, mut holders) = (Permissions::NONE, Vec::new());
        for ((_, holder), slept) in self.0.iter().filter(|((scope, _), _)| *scope == on) {
            let woken = slept.held.without(slept.woken).within(mine);
            if woken.is_empty() {
                continue;
            }
            let sql = "INSERT INTO woken_rights (user_id, scope_kind, scope_id, permissions, asleep_until) VALUES ($1, $2, $3, $4, $5) \
                       ON CONFLICT (user_id, scope_kind, scope_id) DO UPDATE SET permissions = excluded.permissions, \
                       asleep_until = excluded.asleep_until";
            let values: [Value; 5] = [
                (*holder).into(),
                on.kind().into(),
                on.id().into(),
                slept.woken.and(woken).to_stored().into(),
                until.into(),
            ];
            sql::execute(tx.db(), sql, values).await?;
            all = all.and(woken);
            holders.push(*holder);
        }
        Ok((all, holders))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::roles::Permission;

    // proves ROL-13
    #[test]
    fn sleep_lasts_72_hours() {
        assert_eq!(ASLEEP_US, 72 * 60 * 60 * 1_000_000);
    }

    // proves ROL-13
    #[test]
    fn on_the_operator_all_sleeps_and_elsewhere_what_the_table_names() {
        let (sleeps, stays) = (Permission::FinanceGrant, Permission::AccountRead);
        let both = Permissions::of(&[sleeps, stays]);
        assert_eq!(sleeping(ScopeKey::Operator, both), both);
        for scope in [
            ScopeKey::Account(Uuid::nil()),
            ScopeKey::Tenant(Uuid::nil()),
        ] {
            assert_eq!(sleeping(scope, both), Permissions::of(&[sleeps]));
        }
    }
}
