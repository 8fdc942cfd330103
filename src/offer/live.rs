//! OfferService, going live: handing in, publishing, stopping (OFR-1, OFR-2), and what ends with the programme (ACC-9).

use futures_util::future::BoxFuture;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::{
    check_transition, content,
    entity::{
        offer::{self, Entity, Model},
        version::Model as Version,
    },
    find, payee, store, version_of, wire, wrong_state,
};
use crate::{
    access::scope::AccountScope,
    account::review::{self, Opened},
    app::Tx,
    document::{self, Subject, SubjectKind},
    error::{Error, Reason, Result},
    names::Name,
    policy,
    proto::{
        access::Program,
        account::ReviewKind,
        offer::{
            Offer, OfferKind, OfferState, PublishOfferRequest, StopOfferRequest, SubmitOfferRequest,
        },
        operator::PolicyKey,
    },
    store::{outbox::Event, update},
};

/// Whether policy demands that offers of this kind are reviewed.
async fn is_reviewed(tx: &Tx, row: &Model) -> Result<bool> {
    let kind = OfferKind::try_from(i32::try_from(row.kind).unwrap_or(0));
    let key = match kind.unwrap_or_default() {
        OfferKind::App => PolicyKey::OfferReviewApp,
        OfferKind::Saas => PolicyKey::OfferReviewSaas,
        OfferKind::Service => PolicyKey::OfferReviewService,
        OfferKind::LobApp => PolicyKey::OfferReviewLobApp,
        OfferKind::Unspecified => return Err(Error::internal("an offer of no kind")),
    };
    policy::flag(tx.db(), key, tx.now()).await
}

/// Hands the version in work in: to a review, or published at once where none is demanded.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`, `PAYOUT_DETAILS_REQUIRED`.
pub async fn submit_offer(
    tx: &mut Tx,
    scope: AccountScope,
    req: SubmitOfferRequest,
) -> Result<Offer> {
    let (row, last) = find(tx.db(), scope, &req.name).await?;
    update::check_etag(&req.etag, row.version)?;
    if !super::is_in_work(last.state) {
        // Also where policy demands no review any more: what is in one is decided there, or taken back.
        return Err(wrong_state(last.state));
    }
    if !is_reviewed(tx, &row).await? {
        if !req.documents.is_empty() {
            return Err(Error::field(
                "documents",
                "go to a review, and there is none",
            ));
        }
        return publish(tx, row, last).await;
    }
    check_transition(last.state, OfferState::InReview)?;
    payee::demand(tx.db(), row.account_id, &last).await?;
    let opened = Opened {
        kind: ReviewKind::Offer,
        account: row.account_id,
        subject: Name::Offer(row.account_id, row.id),
        submitter: tx.caller().name(),
        note: req.note,
        not_by: None,
        other: None,
    };
    let review = review::open(tx, opened).await?;
    let subject = Subject {
        kind: SubjectKind::Review,
        id: review.id,
        account: Some(row.account_id),
    };
    document::attach(tx, subject, &req.documents, "documents").await?;
    let row = Model {
        submit_time: tx.now(),
        ..row
    };
    let version = Version {
        submit_time: Some(tx.now()),
        review_reason: String::new(),
        ..last
    };
    let (row, version) = put(tx, row, version, OfferState::InReview).await?;
    tx.emit(told("entente.offer.v1.OfferSubmitted", &row, &version));
    Ok(wire::offer(&row, &version))
}

/// Publishes the version in work.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`, `OFFER_REVIEW_REQUIRED`, `PAYOUT_DETAILS_REQUIRED`.
pub async fn publish_offer(
    tx: &mut Tx,
    scope: AccountScope,
    req: PublishOfferRequest,
) -> Result<Offer> {
    let (row, last) = find(tx.db(), scope, &req.name).await?;
    update::check_etag(&req.etag, row.version)?;
    if !super::is_in_work(last.state) {
        return Err(wrong_state(last.state));
    }
    if is_reviewed(tx, &row).await? {
        return Err(Error::precondition(Reason::OfferReviewRequired));
    }
    publish(tx, row, last).await
}

/// Puts a version in the place of the one that is live.
pub(super) async fn publish(tx: &mut Tx, mut row: Model, version: Version) -> Result<Offer> {
    check_transition(version.state, OfferState::Published)?;
    payee::demand(tx.db(), row.account_id, &version).await?;
    if row.live_version != 0 {
        row = end(tx, row).await?;
    }
    row.live_version = version.number;
    row.live = true;
    row.was_published = true;
    let version = Version {
        publish_time: Some(tx.now()),
        review_reason: String::new(),
        ..version
    };
    let (row, version) = put(tx, row, version, OfferState::Published).await?;
    tx.emit(told("entente.offer.v1.OfferPublished", &row, &version));
    Ok(wire::offer(&row, &version))
}

/// Stops what is live, and takes back what is in review.
///
/// # Errors
/// `NOT_FOUND`, `WRONG_STATE` if nothing is live, nor in review, `ETAG_MISMATCH`.
pub async fn stop_offer(tx: &mut Tx, scope: AccountScope, req: StopOfferRequest) -> Result<Offer> {
    let (row, last) = find(tx.db(), scope, &req.name).await?;
    update::check_etag(&req.etag, row.version)?;
    let row = stop(tx, row, last).await?;
    let last = version_of(tx.db(), &row, row.latest_version).await?;
    let last = last.ok_or_else(|| Error::internal("an offer lost its last version"))?;
    Ok(wire::offer(&row, &last))
}

async fn stop(tx: &mut Tx, row: Model, last: Version) -> Result<Model> {
    let is_in_review = last.state == OfferState::InReview as i64;
    if row.live_version == 0 && !is_in_review {
        return Err(wrong_state(last.state));
    }
    let stopped = row.live_version;
    let mut row = row;
    if is_in_review {
        let subject = Name::Offer(row.account_id, row.id);
        review::withdraw(tx, ReviewKind::Offer, subject).await?;
        (row, _) = put(tx, row, last, OfferState::Draft).await?;
    }
    if stopped != 0 {
        row = end(tx, row).await?;
    }
    tx.emit(
        Event::new(
            "entente.offer.v1.OfferStopped",
            Name::Offer(row.account_id, row.id),
        )
        .change("live_version", stopped, row.live_version),
    );
    Ok(row)
}

/// Ends the live version of an offer.
async fn end(tx: &mut Tx, mut row: Model) -> Result<Model> {
    let live = version_of(tx.db(), &row, row.live_version).await?;
    let live = live.ok_or_else(|| Error::internal("an offer lost its live version"))?;
    (row.live_version, row.live) = (0, false);
    let live = Version {
        stop_time: Some(tx.now()),
        ..live
    };
    let (row, _) = put(tx, row, live, OfferState::Stopped).await?;
    Ok(row)
}

/// Brings a version into a state, and stores it with its offer.
pub(super) async fn put(
    tx: &mut Tx,
    mut row: Model,
    mut version: Version,
    to: OfferState,
) -> Result<(Model, Version)> {
    check_transition(version.state, to)?;
    version.state = to as i64;
    if version.number == row.latest_version {
        row.state = version.state;
    }
    row.update_time = tx.now();
    row.version += 1;
    store(tx, &row, &version).await?;
    Ok((row, version))
}

/// The event of a version that came into a state.
fn told(kind: &'static str, row: &Model, version: &Version) -> Event {
    Event::new(kind, Name::Offer(row.account_id, row.id))
        .with("version", version.number)
        .with("free", content::prices(version).is_empty())
}

/// An account leaves a programme: with the marketplace its offers stop.
pub fn end_program(
    tx: &mut Tx,
    account: Uuid,
    program: Program,
) -> BoxFuture<'_, Result<Vec<Name>>> {
    Box::pin(async move {
        if program != Program::Marketplace {
            return Ok(Vec::new());
        }
        let of_account = Entity::find().filter(offer::Column::AccountId.eq(account));
        let mut ended = Vec::new();
        // As many as an account may have, at most.
        for row in of_account.all(tx.db()).await? {
            let is_in_review = row.state == OfferState::InReview as i64;
            if row.live_version == 0 && !is_in_review {
                continue;
            }
            let last = version_of(tx.db(), &row, row.latest_version).await?;
            let last = last.ok_or_else(|| Error::internal("an offer lost its last version"))?;
            let row = stop(tx, row, last).await?;
            ended.push(Name::Offer(account, row.id));
        }
        ended.sort_unstable();
        Ok(ended)
    })
}
