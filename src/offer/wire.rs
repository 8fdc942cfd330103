//! Proto ⇄ rows of offers; no other file of this slice converts.

use super::{
    content,
    entity::{offer, version},
};
use crate::{
    names::Name,
    proto::offer::Offer,
    store::{time::timestamp, update::etag},
};

/// An offer, as a version has it.
pub fn offer(row: &offer::Model, version: &version::Model) -> Offer {
    let offer::Model {
        id,
        account_id,
        kind,
        display_name_fold: _,
        state: _,
        latest_version,
        live_version,
        live: _,
        was_published: _,
        submit_time: _,
        create_time,
        update_time,
        version: row_version,
    } = row;
    let number = |n: i64| i32::try_from(n).unwrap_or(0);
    Offer {
        name: Name::Offer(*account_id, *id).to_string(),
        kind: number(*kind),
        display_name: version.display_name.clone(),
        description: version.description.clone(),
        prices: content::prices(version),
        customers: content::customers(version),
        state: number(version.state),
        version: version.number,
        latest_version: *latest_version,
        live_version: *live_version,
        review_reason: version.review_reason.clone(),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        submit_time: version.submit_time.and_then(timestamp),
        publish_time: version.publish_time.and_then(timestamp),
        stop_time: version.stop_time.and_then(timestamp),
        etag: etag(*row_version),
    }
}
