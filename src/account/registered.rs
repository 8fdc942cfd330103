//! Business steps that a register of companies decides (VER-4): asked outside of transactions, before the account is asked for documents. A
//! match verifies the business, but for the company approver; anything else leaves it to documents and reviewers.

use sea_orm::{EntityTrait, FromQueryResult};
use uuid::Uuid;

use super::{
    entity::{account, verification_step},
    profile::Profile,
    step,
};
use crate::{
    app::{App, Tx},
    error::Result,
    names::Name,
    proto::account::{VerificationStepKind as Kind, VerificationStepState as State},
    registry::{Answer, Company},
    store::{outbox::Event, scope_key::ScopeKey, sql},
};

/// The reason of a step that waits for the register.
pub(super) const WAITS: &str = "REGISTER";
/// What finds such steps. An index holds all of that reason; people's own words may be it too, but not of a business in progress.
pub(crate) const WAITING: &str = "SELECT s.account_id FROM verification_steps s \
    WHERE s.reason = 'REGISTER' AND s.kind = 3 AND s.state = 2 LIMIT 20";

#[derive(FromQueryResult)]
struct Due {
    account_id: Uuid,
}

/// Asks the register about all that wait for it; gives how many there were.
///
/// # Errors
/// Those of the database. A register that can't be read knows nothing, which the log tells.
pub async fn ask_register(app: &App) -> Result<usize> {
    let Some(register) = app.registry.clone() else {
        return Ok(0);
    };
    let found = sql::all::<Due, _>(&app.db.read, WAITING, []).await?;
    for Due { account_id } in &found {
        let id = *account_id;
        let Some(row) = account::Entity::find_by_id(id).one(&app.db.read).await? else {
            continue;
        };
        let company = company(&row);
        let answer = match register.look_up(&company).await {
            Ok(answer) => answer,
            Err(fault) => {
                tracing::warn!(%fault, register = register.name(), "the register can't be read");
                Answer::Unknown
            }
        };
        let name = register.name();
        app.job("decide-by-register", move |tx, _| {
            let (company, answer) = (company.clone(), answer.clone());
            Box::pin(async move { decide(tx, id, name, &company, answer).await })
        })
        .await?;
    }
    Ok(found.len())
}

fn company(row: &account::Model) -> Company {
    let address = Profile::from_stored(&row.profile).address;
    Company {
        legal_name: row.legal_name.clone(),
        country_code: row.country_code.clone(),
        postal_code: address.map_or_else(String::new, |a| a.postal_code),
    }
}

/// Takes an answer in, if it is of the company as it is now.
async fn decide(tx: &mut Tx, id: Uuid, name: &str, of: &Company, answer: Answer) -> Result<()> {
    tx.lock([ScopeKey::Account(id)]).await?;
    let steps = step::all(tx.db(), id).await?;
    let waits = does_wait(&steps);
    let row = account::Entity::find_by_id(id).one(tx.db()).await?;
    if !waits || row.is_none_or(|row| company(&row) != *of) {
        return Ok(());
    }
    let record = match &answer {
        Answer::Match(record) => record.clone(),
        Answer::NoMatch | Answer::Unknown => String::new(),
    };
    tx.emit(
        Event::new("entente.account.v1.RegisterAnswered", Name::Account(id))
            .with("register", name)
            .with("record", record.clone()),
    );
    if record.is_empty() {
        leave_to_reviewers(tx, id).await
    } else {
        step::approved(tx, id, Kind::Business).await
    }
}

/// Whether the business step waits for the register.
fn does_wait(steps: &[verification_step::Model]) -> bool {
    step::of(steps, Kind::Business)
        .is_some_and(|s| s.reason == WAITS && s.state == State::InProgress as i64)
}

async fn leave_to_reviewers(tx: &mut Tx, id: Uuid) -> Result<()> {
    step::set(tx, id, Kind::Business, State::ActionRequired, "DOCUMENTS").await
}

/// Leaves to reviewers what waits for a register that isn't configured any more.
///
/// # Errors
/// Those of the database.
pub(crate) async fn without_register(tx: &mut Tx) -> Result<u64> {
    if tx.app().registry.is_some() {
        return Ok(0);
    }
    let found = sql::all::<Due, _>(tx.db(), WAITING, []).await?;
    tx.lock(found.iter().map(|d| ScopeKey::Account(d.account_id)))
        .await?;
    for Due { account_id } in found {
        // After the lock it may have been decided, or begun anew.
        if does_wait(&step::all(tx.db(), account_id).await?) {
            leave_to_reviewers(tx, account_id).await?;
        }
    }
    Ok(0)
}
