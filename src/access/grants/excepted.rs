//! The bounds of the exceptions to ROL-7: that a method gives what its caller lacks stands in `access/exceptions.rs`; here is when.

use super::{ADMIN_AGENT, MANAGER, can_act, is_same_person, roles_of, somebody_holds};
use crate::{
    access::{
        exceptions,
        principal::Principal,
        roles::{self, Permissions, Role},
    },
    app::Tx,
    error::Result,
    store::scope_key::ScopeKey,
};

/// Whether the table of exceptions lets this caller, who may do `mine` there, awake and within the ceiling of the service that acts for
/// it, give this role here.
///
/// # Errors
/// Those of the database.
pub(super) async fn by_table(
    tx: &Tx,
    scope: ScopeKey,
    to: Principal,
    role: &Role,
    mine: Permissions,
) -> Result<bool> {
    if exceptions::of(tx.method(), role.name).is_none() {
        return Ok(false);
    }
    match (scope, role.bit()) {
        // These make a new account.
        (ScopeKey::Account(_), ADMIN_AGENT)
            if !["/ImportAccount", "/CreateAccount"]
                .iter()
                .any(|m| tx.method().ends_with(m)) =>
        {
            first_admin_agent(tx, scope, to, mine).await
        }
        // A delegated GLOBAL_ADMIN, and in the customer's tenant.
        (ScopeKey::Tenant(tenant), bit) if tx.method().ends_with("/CreateCustomerUser") => Ok(tx
            .lent()
            .is_some_and(|lent| lent.tenant == tenant && lent.roles & bit != 0)),
        _ => Ok(true),
    }
}

/// By a MANAGER, to another person than oneself, where no active ADMIN_AGENT is. Whoever can't act doesn't end that state, so nobody of
/// the kind is named.
async fn first_admin_agent(
    tx: &Tx,
    scope: ScopeKey,
    to: Principal,
    mine: Permissions,
) -> Result<bool> {
    let by_manager = roles::permissions_of(roles_of(scope), MANAGER)
        .without(mine)
        .is_empty();
    let Some(who) = tx.caller().who.filter(|_| by_manager && to.is_person()) else {
        return Ok(false);
    };
    Ok(!is_same_person(tx.db(), who.principal.id, to.id).await?
        && can_act(tx.db(), to.id, tx.now()).await?
        && !somebody_holds(tx.db(), scope, ADMIN_AGENT, tx.now()).await?)
}
