//! OfferService, the operator's side: what is in review, and what is decided of it (OFR-1). The queue is `account/review.rs`.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use uuid::Uuid;

use super::{
    KINDS,
    entity::{
        offer::{self, Entity, Model},
        version::Model as Version,
    },
    last_versions, live, version_of, wire, wrong_state,
};
use crate::{
    access::scope::OperatorScope,
    account::review::{self, Progress},
    app::{Read, Tx},
    check::Violations,
    error::{Error, Result},
    names::Name,
    proto::{
        account::{ReviewDecision, ReviewKind},
        offer::{
            DecideOfferReviewRequest, ListOfferReviewsRequest, ListOfferReviewsResponse, Offer,
            OfferDecision, OfferReview, OfferState,
        },
    },
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
        outbox::Event,
        update,
    },
};

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "account",
            ("offers", "account_id"),
            Kind::Id { parse: account_id },
        ),
        Field::new("kind", ("offers", "kind"), Kind::Enum(KINDS)),
        Field::new("submit_time", ("offers", "submit_time"), Kind::TIME),
    ],
    orders: &[OrderField::new("submit_time", ("offers", "submit_time"))],
    id: ("offers", "id"),
};

fn account_id(name: &str) -> Option<Uuid> {
    match Name::parse(name) {
        Some(Name::Account(id)) => Some(id),
        _ => None,
    }
}

pub(crate) fn check_list_offer_reviews(req: &ListOfferReviewsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists what is in review.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_offer_reviews(
    rd: &Read,
    _scope: OperatorScope,
    req: ListOfferReviewsRequest,
) -> Result<ListOfferReviewsResponse> {
    // Written out, so that the index of what is in review serves.
    let state = format!("offers.state = {}", OfferState::InReview as i64);
    let select = Entity::find().filter(Expr::cust(state));
    let mut found = rd.rows::<_, Model>(&req, &LISTING, select).await?;
    // What isn't published yet is nothing for those who are tied to its company; a page is shorter then.
    let tied = review::tied_to(rd, found.rows.iter().map(|row| row.account_id)).await?;
    found.leave_out(|row: &Model| tied.contains(&row.account_id));
    rd.looked(Name::Operator);
    let last = last_versions(rd.db(), &found.rows).await?;
    let names: Vec<String> = found.rows.iter().map(name_of).collect();
    let reviews = review::open_of(rd.db(), ReviewKind::Offer, &names).await?;
    let shown = found.rows.iter().map(|row| OfferReview {
        review: reviews
            .get(&name_of(row))
            .map_or_else(String::new, ToString::to_string),
        offer: last.get(&row.id).map(|version| wire::offer(row, version)),
    });
    let shown: Vec<OfferReview> = shown.collect();
    let page = found.page(shown);
    Ok(ListOfferReviewsResponse {
        offer_reviews: page.items,
        next_page_token: page.next_page_token,
    })
}

fn name_of(row: &Model) -> String {
    Name::Offer(row.account_id, row.id).to_string()
}

pub(crate) fn check_decide_offer_review(req: &DecideOfferReviewRequest, v: &mut Violations) {
    if req.reason.trim().is_empty() {
        v.also("reason", "is needed");
    }
}

/// Decides the review of an offer: it is published, or changes are asked for.
///
/// # Errors
/// Those of the queue: `WRONG_STATE`, `REVIEW_NOT_CLAIMED`, `REVIEWER_INVOLVED`, `NO_OTHER_REVIEWER`; of publishing: what is demanded of
/// the account, `PAYOUT_DETAILS_REQUIRED`; `ETAG_MISMATCH`.
pub async fn decide_offer_review(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: DecideOfferReviewRequest,
) -> Result<Offer> {
    let missing = || Error::not_found("entente.dev/Offer", req.name.as_str());
    let Some(Name::Offer(account, id)) = Name::parse(&req.name) else {
        return Err(missing());
    };
    let claimed = review::decidable(tx, ReviewKind::Offer, Name::Offer(account, id)).await?;
    let row = Entity::find_by_id(id)
        .filter(offer::Column::AccountId.eq(account))
        .one(tx.db())
        .await?
        .ok_or_else(missing)?;
    update::check_etag(&req.etag, row.version)?;
    let version = version_of(tx.db(), &row, row.latest_version).await?;
    let version = version.ok_or_else(missing)?;
    if version.state != OfferState::InReview as i64 {
        return Err(wrong_state(version.state));
    }
    if req.decision() == OfferDecision::Approve {
        tx.demand_of_account(account).await?;
        let decision = ReviewDecision::Approve;
        return match review::decide(tx, claimed, decision, req.reason).await? {
            Progress::Final => live::publish(tx, row, version).await,
            Progress::NeedsAnother => Ok(wire::offer(&row, &version)),
        };
    }
    review::decide(tx, claimed, ReviewDecision::Reject, req.reason.clone()).await?;
    let version = Version {
        review_reason: req.reason,
        ..version
    };
    let (row, version) = live::put(tx, row, version, OfferState::ChangesRequested).await?;
    tx.emit(
        Event::new(
            "entente.offer.v1.OfferChangesRequested",
            Name::Offer(account, id),
        )
        .with("version", version.number)
        .with("reason", version.review_reason.clone()),
    );
    Ok(wire::offer(&row, &version))
}
