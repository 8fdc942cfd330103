//! The mail of a request that was sent (REL-2): a job finds out to whom it goes, so that nobody learns by sending whether an address or a domain is
//! known here (COM-2).

use sea_orm::{EntityTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::{Entity, Model, State, link, publisher};
use crate::{
    access::{
        grants::{self, GLOBAL_ADMIN},
        roles::{TENANT_ROLES, names_of},
    },
    app::Tx,
    directory,
    error::Result,
    mail::{self, Template},
    schedule::CHUNK,
    store::{scope_key::ScopeKey, sql, time::rfc3339},
};

/// Global admins who get the mail.
const MOST_TOLD: i64 = 20;

/// What says that something waits to be mailed.
pub(crate) const MAIL_NEEDED: &str = "SELECT 1 AS one FROM relationship_mails LIMIT 1";

/// Puts the request aside that `mail_requests` mails next: due at $1, and at $2 instead.
pub(crate) const MAIL_ASIDE: &str = "UPDATE relationship_mails SET due_time = $2 WHERE due_time <= $1 AND relationship_id = \
    (SELECT relationship_id FROM relationship_mails WHERE due_time <= $1 ORDER BY due_time, relationship_id LIMIT 1)";

/// Notes that a request is to be mailed: the same for every addressee.
pub(super) async fn queue(tx: &Tx, relationship: Uuid) -> Result<()> {
    let sql = "INSERT INTO relationship_mails (relationship_id, due_time) VALUES ($1, $2)";
    let values: [Value; 2] = [relationship.into(), tx.now().into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

#[derive(FromQueryResult)]
struct Waiting {
    relationship_id: Uuid,
}

/// Mails the request that waits longest, if the partner hasn't taken it back; the scheduler's. One a transaction, so that nobody's audit names
/// others, and the same audit whether or not it goes to anybody.
///
/// # Errors
/// Those of the database.
pub(crate) async fn mail_requests(tx: &mut Tx) -> Result<u64> {
    let sql = "SELECT relationship_id FROM relationship_mails WHERE due_time <= $1 ORDER BY due_time, relationship_id LIMIT 1";
    let Some(next) = sql::one::<Waiting, _>(tx.db(), sql, [tx.now().into()]).await? else {
        return Ok(0);
    };
    let id = next.relationship_id;
    let sql = "DELETE FROM relationship_mails WHERE relationship_id = $1";
    sql::execute(tx.db(), sql, [id.into()]).await?;
    if let Some(row) = Entity::find_by_id(id).one(tx.db()).await? {
        let scope = ScopeKey::Account(row.account_id);
        tx.lock([scope]).await?;
        tx.touch(scope);
        tx.about(row.name().to_string());
        // Once more, as it is now that nothing happens to it.
        let row = Entity::find_by_id(id).one(tx.db()).await?;
        if let Some(row) = row.filter(|row| row.is_in(State::Pending)) {
            mail_request(tx, &row).await?;
        }
    }
    // There may be more; the scheduler goes on at once.
    Ok(CHUNK.unsigned_abs())
}

/// Where a request is mailed to; nowhere, if nobody has verified the domain.
async fn recipients(tx: &Tx, row: &Model) -> Result<Vec<String>> {
    if !row.customer_email.is_empty() {
        return Ok(vec![row.customer_email.clone()]);
    }
    let Some(tenant) = directory::domain::tenant_of(tx.db(), &row.customer_domain).await? else {
        return Ok(Vec::new());
    };
    let scope = ScopeKey::Tenant(tenant);
    let mut all = grants::addresses_of(tx.db(), scope, GLOBAL_ADMIN, MOST_TOLD).await?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

async fn mail_request(tx: &mut Tx, row: &Model) -> Result<()> {
    let message = match row.message.as_str() {
        "" => "–",
        message => message,
    };
    let values = [
        ("publisher", publisher(tx.db(), row.account_id).await?),
        (
            "roles",
            names_of(TENANT_ROLES, row.requested_roles).join(", "),
        ),
        ("days", row.requested_days.to_string()),
        ("message", message.to_owned()),
        ("link", link(tx, row)),
        ("until", rfc3339(row.answer_expire_time.unwrap_or_default())),
    ];
    for to in recipients(tx, row).await? {
        let template = Template::RelationshipRequested;
        mail::queue(tx, template, &to, row.name(), &values).await?;
    }
    Ok(())
}
