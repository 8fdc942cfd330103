//! E-mail addresses as names: whose an address is (INV-5), and which can't be a personal identity's (IDN-1).

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::{
    DELETED,
    entity::user::{Column, Entity, Model},
};
use crate::{
    app::{App, Tx},
    error::{Error, Reason, Result},
    keys::Purpose,
    store::{list::fold, sql},
};

/// Whether an address lies in a tenant's domain: who has it signs in there. That is told of the domain, never of the address.
#[must_use]
pub fn is_work_address(app: &App, email: &str) -> bool {
    let folded = fold(email);
    let domain = folded.rsplit_once('@').map_or("", |(_, domain)| domain);
    let base = app.config.base_domain.as_str();
    domain == base
        || domain
            .strip_suffix(base)
            .is_some_and(|prefix| prefix.ends_with('.'))
}

/// Refuses an address that lies in a tenant's domain.
///
/// # Errors
/// `INVALID_ARGUMENT`, `WORK_ADDRESS`.
pub fn not_of_work(app: &App, email: &str, field: &'static str) -> Result<()> {
    if is_work_address(app, email) {
        Err(Error::argument(
            Reason::WorkAddress,
            field,
            "lies in a tenant's domain",
        ))
    } else {
        Ok(())
    }
}

/// The personal identity whose address this is, if there is one. Whoever asks for one address takes turns until the end of the
/// transaction, so that no two make an identity of it.
///
/// # Errors
/// Those of the database.
pub async fn holder_of(tx: &Tx, email: &str) -> Result<Option<Model>> {
    let folded = fold(email);
    let key = tx
        .app()
        .keys
        .mac(Purpose::Secret, &[b"address", folded.as_bytes()]);
    sql::take_turns(tx.db(), &key).await?;
    Ok(Entity::find()
        .filter(Column::TenantId.eq(Uuid::nil()))
        .filter(Column::UserNameFold.eq(folded))
        .filter(Column::State.ne(DELETED))
        .one(tx.db())
        .await?)
}
