//! AccountService, the end of an account (ACC-13): by its owner or the operator. Its seller ID and publisher name stay its own for ever, unless
//! somebody wins a claim on the name (ACC-12).

use sea_orm::{ActiveModelTrait, EntityTrait, FromQueryResult, IntoActiveModel, Set, Value};
use uuid::Uuid;

use super::{
    brought, draft,
    enrolment::state_changed,
    entity::account::{Entity, Model},
    name_claim, ownership, program, step, wire,
};
use crate::{
    access::{
        account_state,
        grants::{self, MANAGER, OWNER},
        scope::Proof,
    },
    app::Tx,
    error::{Error, Result},
    mail::{self, Template},
    names::Name,
    proto::account::{Account, AccountState, CloseAccountRequest},
    store::{outbox::Event, scope_key::ScopeKey, sql, update},
};

/// People who are told.
const MOST_TOLD: i64 = 50;

/// Refuses to close an account whose ledger is not at zero. There is no ledger yet, so there is nothing to refuse.
#[expect(
    clippy::unused_async,
    reason = "the ledger, once it is there, is asked of the database"
)]
async fn demand_settled(_tx: &Tx, _account: Uuid) -> Result<()> {
    Ok(())
}

/// Ends an account.
///
/// # Errors
/// `NOT_FOUND` to the operator's people only; `WRONG_STATE`, `LEDGER_NOT_ZERO`, `ETAG_MISMATCH`.
pub async fn close_account(
    tx: &mut Tx,
    _proof: Proof,
    req: CloseAccountRequest,
) -> Result<Account> {
    let CloseAccountRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let missing = || Error::not_found("entente.dev/Account", name.as_str());
    let Some(Name::Account(id)) = Name::parse(&name) else {
        return Err(missing());
    };
    tx.lock([ScopeKey::Account(id)]).await?;
    let old = Entity::find_by_id(id)
        .one(tx.db())
        .await?
        .ok_or_else(missing)?;
    update::check_etag(&etag, old.version)?;
    if old.state == AccountState::Draft as i64 {
        // Nothing was given yet that had to stay: it goes, and its name and membership are free.
        draft::remove(tx, &old).await?;
        return Ok(Account {
            state: AccountState::Closed as i32,
            ..wire::account(&old)
        });
    }
    account_state::check_transition(old.state, AccountState::Closed)?;
    demand_settled(tx, id).await?;
    step::give_up(tx, id).await?;
    program::end_all(tx, &old).await?;
    let mut row = old.clone().into_active_model();
    row.state = Set(AccountState::Closed as i64);
    row.suspension_reason = Set(String::new());
    row.reverifying = Set(0);
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row: Model = row.update(tx.db()).await?;
    state_changed(tx, &old, &row);
    name_claim::holder_ended(tx, id).await?;
    ownership::account_ended(tx, &row).await?;
    brought::account_ended(tx, &row).await?;
    tx.emit(
        Event::new("entente.account.v1.AccountClosed", Name::Account(id))
            .with("seller_id", row.seller_id.clone()),
    );
    for to in people(tx, &row).await? {
        let values = [
            ("publisher", row.publisher_display_name.clone()),
            ("account", Name::Account(id).to_string()),
        ];
        mail::queue(tx, Template::AccountClosed, &to, Name::Account(id), &values).await?;
    }
    Ok(wire::account(&row))
}

#[derive(FromQueryResult)]
struct Told {
    email: String,
}

/// Addresses of the primary contact, the owner and the managers.
pub(super) async fn people(tx: &Tx, row: &Model) -> Result<Vec<String>> {
    let mut all = run_by(tx, row.id).await?;
    let contact = super::profile::Profile::from_stored(&row.profile).primary_contact;
    all.extend(contact.map(|c| c.email).filter(|email| !email.is_empty()));
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The same of an account by its ID.
///
/// # Errors
/// Those of the database.
pub(crate) async fn people_of(tx: &Tx, account: Uuid) -> Result<Vec<String>> {
    match Entity::find_by_id(account).one(tx.db()).await? {
        Some(row) => people(tx, &row).await,
        None => Ok(Vec::new()),
    }
}

/// Addresses of the owner and the managers of an account.
pub(super) async fn run_by(tx: &Tx, account: Uuid) -> Result<Vec<String>> {
    // A personal identity's address is its name.
    let sql = "SELECT CASE WHEN u.kind = 3 THEN u.user_name ELSE u.recovery_email END AS email \
               FROM grants g JOIN users u ON u.id = g.principal_id AND u.state = $1 \
               WHERE g.scope_kind = 2 AND g.scope_id = $2 AND (g.roles & $3) <> 0 ORDER BY u.id LIMIT $4";
    let values: [Value; 4] = [
        grants::ACTIVE.into(),
        account.into(),
        (OWNER | MANAGER).into(),
        MOST_TOLD.into(),
    ];
    let found = sql::all::<Told, _>(tx.db(), sql, values).await?;
    let mut all: Vec<String> = found.into_iter().map(|t| t.email).collect();
    all.retain(|email| !email.is_empty());
    all.sort_unstable();
    all.dedup();
    Ok(all)
}
