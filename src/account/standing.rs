//! AccountService, the operator's side: accounts stopped and let go on (ACC-13), and found (SearchAccounts).

use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, QueryFilter, Set};

use super::{
    SEARCH,
    enrolment::state_changed,
    entity::account::{Column, Entity, Model},
    wire,
};
use crate::{
    access::{account_state, scope::OperatorScope},
    app::{Read, Tx},
    check::Violations,
    error::{Error, Result},
    names::Name,
    proto::account::{
        Account, AccountState, ReinstateAccountRequest, SearchAccountsRequest,
        SearchAccountsResponse, SuspendAccountRequest,
    },
    store::{scope_key::ScopeKey, update},
};

/// Stops an account.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn suspend_account(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: SuspendAccountRequest,
) -> Result<Account> {
    let SuspendAccountRequest {
        name,
        reason,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = locked(tx, &name).await?;
    update::check_etag(&etag, old.version)?;
    account_state::check_transition(old.state, AccountState::Suspended)?;
    change(tx, old, AccountState::Suspended as i64, reason).await
}

/// Gives a suspended account the state back that it had.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn reinstate_account(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: ReinstateAccountRequest,
) -> Result<Account> {
    let ReinstateAccountRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = locked(tx, &name).await?;
    update::check_etag(&etag, old.version)?;
    reinstate(tx, old).await
}

/// Gives a suspended account the state back that it had.
///
/// # Errors
/// `WRONG_STATE`; those of the database.
pub(super) async fn reinstate(tx: &mut Tx, old: Model) -> Result<Account> {
    if old.state != AccountState::Suspended as i64 {
        return Err(account_state::wrong_state(old.state));
    }
    let back = if old.state_before == AccountState::Pending as i64 {
        AccountState::Pending
    } else {
        AccountState::Active
    };
    account_state::check_transition(old.state, back)?;
    change(tx, old, back as i64, String::new()).await
}

async fn locked(tx: &mut Tx, name: &str) -> Result<Model> {
    let missing = || Error::not_found("entente.dev/Account", name);
    let Some(Name::Account(id)) = Name::parse(name) else {
        return Err(missing());
    };
    tx.lock([ScopeKey::Account(id)]).await?;
    Entity::find_by_id(id)
        .one(tx.db())
        .await?
        .ok_or_else(missing)
}

/// Brings an account into a state, for a reason where it is suspended, and tells.
///
/// # Errors
/// Those of the database.
pub(super) async fn change(tx: &mut Tx, old: Model, state: i64, reason: String) -> Result<Account> {
    let mut row = old.clone().into_active_model();
    row.state_before = Set(old.state);
    row.state = Set(state);
    row.suspension_reason = Set(reason);
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row: Model = row.update(tx.db()).await?;
    state_changed(tx, &old, &row);
    Ok(wire::account(&row))
}

pub(crate) fn check_search_accounts(req: &SearchAccountsRequest, v: &mut Violations) {
    SEARCH.check(req, v);
}

/// All accounts, for the operator's people; contacts are masked.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn search_accounts(
    rd: &Read,
    _scope: OperatorScope,
    req: SearchAccountsRequest,
) -> Result<SearchAccountsResponse> {
    let select = Entity::find().filter(sea_orm::ColumnTrait::gt(&Column::State, 0));
    let page = rd
        .list(&req, &SEARCH, select, |row: Model| {
            wire::masked(wire::account(&row))
        })
        .await?;
    Ok(SearchAccountsResponse {
        accounts: page.items,
        next_page_token: page.next_page_token,
    })
}
