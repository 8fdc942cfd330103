//! What an application holds is passed on by whoever can become it: with a key, or with the address that its sign-ins lead to (ROL-7, APP-4).

use uuid::Uuid;

use super::{Set, all_of, of_lacking, roles_of};
use crate::{
    access::{
        exceptions::STAND_INS,
        roles::{Permission, Permissions},
    },
    app::Tx,
    error::{Error, Reason, Result},
    names::Name,
    store::scope_key::ScopeKey,
};

/// What one refusal names: the head of an answer says it four times over, and clients take 16 KiB of that.
const MOST_NAMED: usize = 20;

/// Demands that the caller holds all that these applications hold, wherever they hold it; those scopes are locked. What no person can hold
/// is demanded as the table of exceptions says.
///
/// # Errors
/// `CANNOT_GRANT_WHAT_YOU_LACK` naming what, and where; `RIGHTS_ASLEEP` or `RIGHTS_BEGIN_LATER` if all of it is held but not awake;
/// `PERMISSION_MISSING` for what stands in; those of the database.
pub async fn demand_all_held_by(tx: &mut Tx, applications: &[Uuid]) -> Result<()> {
    let mut held = Vec::new();
    for application in applications {
        held.extend(all_of(tx.db(), *application).await?);
    }
    tx.lock(held.iter().map(|(scope, _)| *scope)).await?;
    let (mut lacking, mut permissions) = (Vec::new(), Vec::new());
    for (scope, grant) in held {
        let mut set = Set::of_grant(&grant);
        for stand_in in STAND_INS {
            let role = roles_of(scope)
                .iter()
                .find(|r| r.name == stand_in.holds)
                .map_or(0, |r| r.bit());
            let single: Permissions = Permission::parse(stand_in.holds).into_iter().collect();
            if set.roles & role == 0 && set.single.within(single).is_empty() {
                continue;
            }
            set.roles &= !role;
            set.single = set.single.without(single);
            tx.demand(stand_in.instead, name_of(scope)).await?;
        }
        let mine = tx.caller_permissions(scope).await?;
        let missing = set.permissions(scope).without(mine);
        if missing.is_empty() {
            continue;
        }
        permissions.push((scope, missing));
        let names = missing.names().into_iter();
        lacking.extend(names.map(|p| format!("{p} on {scope}")));
    }
    if lacking.is_empty() {
        return Ok(());
    }
    lacking.sort_unstable();
    lacking.dedup();
    lacking.truncate(MOST_NAMED);
    let refused =
        Error::refused(Reason::CannotGrantWhatYouLack).with("lacking", lacking.join(", "));
    Err(of_lacking(tx, &permissions, refused).await?)
}

fn name_of(scope: ScopeKey) -> Name {
    match scope {
        ScopeKey::Operator => Name::Operator,
        ScopeKey::Tenant(id) => Name::Tenant(id),
        ScopeKey::Account(id) => Name::Account(id),
        ScopeKey::Identity(id) => Name::Identity(id),
    }
}
