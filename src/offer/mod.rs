//! Offers: what publishers sell in the marketplace, and what is used of it (OFR).
//!
//! Nouns and states. An offer is of an account and has versions, numbered from 1 on; the last one may be in work, another one live. The states
//! are those of versions: a draft, or one whose review asked for changes, is in work; handed in where policy demands a review; published at
//! once, or by the review; stopped, by the publisher, by leaving the programme, or as the next version takes its place. `TABLE` has them all. An
//! offer's row holds the state of its last version, for lists. Usage is units of an offer, by day, country and customer (`report.rs`), told also by group (`grouped.rs`).
//!
//! Invariants. One version of an offer is live at most, one in work at most. What is in review isn't changed. What was published is never
//! deleted. Nothing with a price is published before its publisher can be paid (`payee.rs`). Nobody but its account sees an offer, until those
//! who may buy it have a way to.

mod content;
mod entity;
mod grouped;
mod live;
mod payee;
pub mod report;
mod review;
mod wire;

pub(crate) use self::grouped::LONG_READS_AT_ONCE;
pub(crate) use self::review::{check_decide_offer_review, check_list_offer_reviews};
pub use self::{
    live::{end_program, publish_offer, stop_offer, submit_offer},
    review::{decide_offer_review, list_offer_reviews},
};

use std::collections::BTreeMap;

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    Value,
};
use uuid::Uuid;

use self::entity::{
    offer::{self, Entity, Model},
    version::{self, Model as Version},
};
use crate::{
    access::scope::AccountScope,
    app::{Read, Tx},
    check::Violations,
    error::{Error, Reason, Result},
    names::Name,
    proto::offer::{
        CreateOfferRequest, DeleteOfferRequest, DeleteOfferResponse, GetOfferRequest,
        ListOffersRequest, ListOffersResponse, Offer, OfferKind, OfferState, UpdateOfferRequest,
    },
    store::{
        filter::{Field, Kind, OrderField, Trigrams},
        list::{Listing, fold},
        outbox::Event,
        sql, update,
    },
};

/// Offers that an account has at most, stopped ones included.
const MOST_OFFERS: i64 = 1_000;

/// All states of a version, and what may follow on each.
const TABLE: &[(OfferState, &[OfferState])] = &[
    (
        OfferState::Draft,
        &[OfferState::InReview, OfferState::Published],
    ),
    (
        OfferState::InReview,
        &[
            // Taken back with an offer that is stopped.
            OfferState::Draft,
            OfferState::ChangesRequested,
            OfferState::Published,
        ],
    ),
    (
        OfferState::ChangesRequested,
        &[OfferState::InReview, OfferState::Published],
    ),
    (OfferState::Published, &[OfferState::Stopped]),
    (OfferState::Stopped, &[]),
];

/// What callers call them.
const STATES: &[(&str, i64)] = &[
    ("DRAFT", OfferState::Draft as i64),
    ("IN_REVIEW", OfferState::InReview as i64),
    ("CHANGES_REQUESTED", OfferState::ChangesRequested as i64),
    ("PUBLISHED", OfferState::Published as i64),
    ("STOPPED", OfferState::Stopped as i64),
];

const KINDS: &[(&str, i64)] = &[
    ("APP", OfferKind::App as i64),
    ("SAAS", OfferKind::Saas as i64),
    ("SERVICE", OfferKind::Service as i64),
    ("LOB_APP", OfferKind::LobApp as i64),
];

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "display_name",
            ("offers", "display_name_fold"),
            Kind::Text(&[Trigrams {
                table: "offers",
                column: "display_name_fold",
            }]),
        ),
        Field::new("kind", ("offers", "kind"), Kind::Enum(KINDS)),
        Field::new("state", ("offers", "state"), Kind::Enum(STATES)),
        Field::new("live", ("offers", "live"), Kind::Bool),
        Field::new("create_time", ("offers", "create_time"), Kind::TIME),
    ],
    orders: &[
        OrderField::new("create_time", ("offers", "create_time")),
        OrderField::new("display_name", ("offers", "display_name_fold")),
    ],
    id: ("offers", "id"),
};

/// Whether a version can be changed.
fn is_in_work(state: i64) -> bool {
    [
        OfferState::Draft as i64,
        OfferState::ChangesRequested as i64,
    ]
    .contains(&state)
}

fn wrong_state(state: i64) -> Error {
    let name = STATES.iter().find(|(_, number)| *number == state);
    Error::precondition(Reason::WrongState).with("state", name.map_or("", |(name, _)| *name))
}

/// Refuses a state that doesn't follow on another one.
fn check_transition(from: i64, to: OfferState) -> Result<()> {
    let row = TABLE.iter().find(|(state, _)| *state as i64 == from);
    if row.is_some_and(|(_, then)| then.contains(&to)) {
        Ok(())
    } else {
        Err(wrong_state(from))
    }
}

/// An offer of an account, with its last version.
async fn find<C: ConnectionTrait>(
    db: &C,
    scope: AccountScope,
    name: &str,
) -> Result<(Model, Version)> {
    let missing = || Error::not_found("entente.dev/Offer", name);
    let Some(Name::Offer(_, id)) = Name::parse(name) else {
        return Err(missing());
    };
    let row = Entity::find_by_id(id)
        .filter(offer::Column::AccountId.eq(scope.id()))
        .one(db)
        .await?
        .ok_or_else(missing)?;
    let last = version_of(db, &row, row.latest_version).await?;
    Ok((row, last.ok_or_else(missing)?))
}

/// A version of an offer.
async fn version_of<C: ConnectionTrait>(
    db: &C,
    row: &Model,
    number: i64,
) -> Result<Option<Version>> {
    Ok(version::Entity::find_by_id((row.id, number))
        .one(db)
        .await?)
}

/// Stores a version and its offer, which changed with it. Rows are written at once, so that later calls of the same commit see them.
async fn store(tx: &mut Tx, row: &Model, version: &Version) -> Result<()> {
    let row = row.clone().into_active_model().reset_all();
    Entity::update(row).exec(tx.db()).await?;
    let version = version.clone().into_active_model().reset_all();
    version::Entity::update(version).exec(tx.db()).await?;
    Ok(())
}

// ---- making, changing, removing

pub(crate) fn check_create_offer(req: &CreateOfferRequest, v: &mut Violations) {
    if let Some(new) = &req.offer {
        content::check(new, v);
        content::check_customers(new.kind(), new.customers.len(), v);
    }
}

/// Makes an offer, as a draft.
///
/// # Errors
/// `TOO_MANY_OFFERS`.
pub async fn create_offer(
    tx: &mut Tx,
    scope: AccountScope,
    req: CreateOfferRequest,
) -> Result<Offer> {
    let new = req
        .offer
        .ok_or_else(|| Error::field("offer", "is required"))?;
    let sql = "SELECT COUNT(*) AS n FROM offers WHERE account_id = $1";
    let there = sql::row(tx.db(), sql, [scope.id().into()]).await?;
    if there.map_or(Ok(0), |row| row.try_get::<i64>("", "n"))? >= MOST_OFFERS {
        return Err(
            Error::precondition(Reason::TooManyOffers).with("most", MOST_OFFERS.to_string())
        );
    }
    let (id, now) = (tx.id(), tx.now());
    let row = Model {
        id,
        account_id: scope.id(),
        kind: i64::from(new.kind),
        display_name_fold: fold(&new.display_name),
        state: OfferState::Draft as i64,
        latest_version: 1,
        live_version: 0,
        live: false,
        was_published: false,
        submit_time: 0,
        create_time: now,
        update_time: now,
        version: 1,
    };
    let first = Version {
        offer_id: id,
        number: 1,
        state: OfferState::Draft as i64,
        display_name: new.display_name.clone(),
        description: new.description.clone(),
        prices: content::prices_to_stored(&new.prices),
        customers: content::customers_to_stored(&new.customers),
        review_reason: String::new(),
        create_time: now,
        submit_time: None,
        publish_time: None,
        stop_time: None,
    };
    tx.insert(row.clone()).await?;
    tx.insert(first.clone()).await?;
    let shown = wire::offer(&row, &first);
    let mut event = Event::new("entente.offer.v1.OfferCreated", Name::Offer(scope.id(), id))
        .change("kind", serde_json::Value::Null, row.kind);
    for (field, _, is) in content::changes(&Offer::default(), &shown) {
        event = event.change(field, serde_json::Value::Null, is);
    }
    tx.emit(event);
    Ok(shown)
}

pub(crate) fn check_update_offer(req: &UpdateOfferRequest, v: &mut Violations) {
    if let Some(new) = &req.offer {
        content::check(new, v);
    }
}

/// Changes the version in work, or begins the next one.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE` for what is in review, `ETAG_MISMATCH`; `INVALID_ARGUMENT` for customers that don't go with the kind.
pub async fn update_offer(
    tx: &mut Tx,
    scope: AccountScope,
    req: UpdateOfferRequest,
) -> Result<Offer> {
    let UpdateOfferRequest {
        offer,
        update_mask,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let new = offer.ok_or_else(|| Error::field("offer", "is required"))?;
    let (old, last) = find(tx.db(), scope, &new.name).await?;
    update::check_etag(&etag, old.version)?;
    if last.state == OfferState::InReview as i64 {
        return Err(wrong_state(last.state));
    }
    let is_next = !is_in_work(last.state);
    let mut version = if is_next {
        next_of(&last, tx.now())
    } else {
        last.clone()
    };
    for field in update::fields(update_mask.as_ref(), &new) {
        match field {
            "display_name" => version.display_name.clone_from(&new.display_name),
            "description" => version.description.clone_from(&new.description),
            "prices" => version.prices = content::prices_to_stored(&new.prices),
            "customers" => version.customers = content::customers_to_stored(&new.customers),
            other => {
                return Err(Error::internal(format!(
                    "{other} is mutable, but nobody changes it"
                )));
            }
        }
    }
    let mut row = old.clone();
    row.display_name_fold = fold(&version.display_name);
    row.latest_version = version.number;
    row.state = version.state;
    row.update_time = tx.now();
    row.version += 1;
    let (before, shown) = (wire::offer(&old, &last), wire::offer(&row, &version));
    let mut v = Violations::default();
    content::check_customers(shown.kind(), shown.customers.len(), &mut v);
    v.none()?;
    if is_next {
        version::Entity::insert(version.clone().into_active_model())
            .exec_without_returning(tx.db())
            .await?;
    }
    store(tx, &row, &version).await?;
    let mut event = Event::new(
        "entente.offer.v1.OfferUpdated",
        Name::Offer(scope.id(), row.id),
    )
    .change("version", last.number, version.number);
    for (field, was, is) in content::changes(&before, &shown) {
        event = event.change(field, was, is);
    }
    tx.emit(event);
    Ok(shown)
}

/// The version that follows on another one, with what that has.
fn next_of(last: &Version, now: i64) -> Version {
    Version {
        number: last.number + 1,
        state: OfferState::Draft as i64,
        review_reason: String::new(),
        create_time: now,
        submit_time: None,
        publish_time: None,
        stop_time: None,
        ..last.clone()
    }
}

/// Removes an offer that was never published.
///
/// # Errors
/// `NOT_FOUND`, `OFFER_WAS_PUBLISHED`, `WRONG_STATE` for what is in review, `ETAG_MISMATCH`.
pub async fn delete_offer(
    tx: &mut Tx,
    scope: AccountScope,
    req: DeleteOfferRequest,
) -> Result<DeleteOfferResponse> {
    let (row, last) = find(tx.db(), scope, &req.name).await?;
    update::check_etag(&req.etag, row.version)?;
    if row.was_published {
        return Err(Error::precondition(Reason::OfferWasPublished));
    }
    if last.state == OfferState::InReview as i64 {
        return Err(wrong_state(last.state));
    }
    for sql in [
        "DELETE FROM offer_versions WHERE offer_id = $1",
        "DELETE FROM offers WHERE id = $1",
    ] {
        sql::execute(tx.db(), sql, [row.id.into()]).await?;
    }
    let gone = wire::offer(&row, &last);
    tx.emit(
        Event::new(
            "entente.offer.v1.OfferDeleted",
            Name::Offer(scope.id(), row.id),
        )
        .change(
            "display_name",
            gone.display_name.clone(),
            serde_json::Value::Null,
        )
        .change("kind", row.kind, serde_json::Value::Null),
    );
    Ok(DeleteOfferResponse {
        resources: vec![gone],
    })
}

// ---- reading

/// Gives an offer, as its last version or another one has it.
///
/// # Errors
/// `NOT_FOUND`, also for a version that there isn't.
pub async fn get_offer(rd: &Read, scope: AccountScope, req: GetOfferRequest) -> Result<Offer> {
    let (row, last) = find(rd.db(), scope, &req.name).await?;
    if req.version == 0 || req.version == last.number {
        return Ok(wire::offer(&row, &last));
    }
    let version = version_of(rd.db(), &row, req.version).await?;
    let version = version.ok_or_else(|| Error::not_found("entente.dev/Offer", req.name))?;
    Ok(wire::offer(&row, &version))
}

pub(crate) fn check_list_offers(req: &ListOffersRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists an account's offers.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_offers(
    rd: &Read,
    scope: AccountScope,
    req: ListOffersRequest,
) -> Result<ListOffersResponse> {
    let select = Entity::find().filter(offer::Column::AccountId.eq(scope.id()));
    let found = rd.rows::<_, Model>(&req, &LISTING, select).await?;
    let last = last_versions(rd.db(), &found.rows).await?;
    let shown = found.rows.iter().map(|row| {
        last.get(&row.id)
            .map(|version| wire::offer(row, version))
            .unwrap_or_default()
    });
    let shown: Vec<Offer> = shown.collect();
    let page = found.page(shown);
    Ok(ListOffersResponse {
        offers: page.items,
        next_page_token: page.next_page_token,
    })
}

/// The last version of each offer.
async fn last_versions<C: ConnectionTrait>(
    db: &C,
    rows: &[Model],
) -> Result<BTreeMap<Uuid, Version>> {
    let sql = format!(
        "SELECT v.* FROM offers o JOIN offer_versions v ON v.offer_id = o.id AND v.number = o.latest_version WHERE o.id IN ({})",
        sql::in_ids(db, 1)
    );
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let values: [Value; 1] = [sql::ids(&ids)];
    let versions = sql::all::<Version, _>(db, sql, values).await?;
    Ok(versions.into_iter().map(|v| (v.offer_id, v)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves OFR-1
    #[test]
    fn states_follow_on_each_other_as_the_rules_say() {
        const ALL: [OfferState; 5] = [
            OfferState::Draft,
            OfferState::InReview,
            OfferState::ChangesRequested,
            OfferState::Published,
            OfferState::Stopped,
        ];
        for (from, to) in [
            (OfferState::Draft, "nynyn"),
            (OfferState::InReview, "ynyyn"),
            (OfferState::ChangesRequested, "nynyn"),
            (OfferState::Published, "nnnny"),
            (OfferState::Stopped, "nnnnn"),
        ] {
            let told: String = ALL
                .iter()
                .map(|s| match check_transition(from as i64, *s) {
                    Ok(()) => 'y',
                    Err(_) => 'n',
                })
                .collect();
            assert_eq!(told, to, "{from:?}");
        }
        assert!(check_transition(99, OfferState::Published).is_err());
        let in_work: Vec<_> = ALL.iter().filter(|s| is_in_work(**s as i64)).collect();
        assert_eq!(in_work, [&OfferState::Draft, &OfferState::ChangesRequested]);
    }
}
