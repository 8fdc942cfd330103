//! Whether a publisher can be paid, which what has a price waits for (OFR-2). The one place that asks; payouts will answer it.

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{content, entity::version::Model as Version};
use crate::error::{Error, Reason, Result};

/// What an account lacks before it can be paid: names as in errors, each with what is to be done.
///
/// # Errors
/// Those of the database.
async fn lacking<C: ConnectionTrait>(
    _db: &C,
    _account: Uuid,
) -> Result<Vec<(&'static str, &'static str)>> {
    // There are no payouts yet, so nobody has either of them.
    Ok(vec![
        ("payout_account", "is needed for an offer with prices"),
        ("tax_profile", "is needed for an offer with prices"),
    ])
}

/// Refuses a version with prices of an account that can't be paid; a free one needs nothing.
///
/// # Errors
/// `PAYOUT_DETAILS_REQUIRED`, naming all that is missing.
pub async fn demand<C: ConnectionTrait>(db: &C, account: Uuid, version: &Version) -> Result<()> {
    if content::prices(version).is_empty() {
        return Ok(());
    }
    let lacking = lacking(db, account).await?;
    if lacking.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = lacking.iter().map(|(name, _)| *name).collect();
    let fields = lacking
        .iter()
        .map(|(name, what)| ((*name).to_owned(), (*what).to_owned()));
    Err(Error::precondition(Reason::PayoutDetailsRequired)
        .with("missing", names.join(", "))
        .with_fields(fields.collect()))
}
