//! OfferService: versions, going live, and what keeps an offer from it.

mod reports;

use entente::proto::{
    access::{AccountRole, AgreementKind, Program},
    account::{AccountState, CloseAccountRequest},
    offer::{
        CreateOfferRequest, DecideOfferReviewRequest, DeleteOfferRequest, GetOfferRequest,
        ListOfferReviewsRequest, ListOffersRequest, Offer, OfferDecision, OfferKind, OfferReview,
        OfferState, Price, PublishOfferRequest, StopOfferRequest, SubmitOfferRequest,
        UpdateOfferRequest,
    },
    operator::PolicyKey,
};
use futures_util::future::join_all;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    agreements::{accept, now, publish as publish_agreement, version},
    claims::row_counts,
    harness::{Caller, both, fields, refused},
    members::{add, seed},
    people::{again, change, denied, events, id, mask},
    policies::{Value, set},
    programs::{enroll, enrolling, leave, publisher},
    reviews::{claim, reviewer},
};

/// A free app.
pub fn app_offer(name: &str) -> Offer {
    Offer {
        kind: OfferKind::App as i32,
        display_name: name.to_owned(),
        ..Offer::default()
    }
}

/// Makes an offer.
pub async fn create(caller: &Caller, account: &str, offer: Offer) -> Result<Offer, Status> {
    let request = CreateOfferRequest {
        parent: account.to_owned(),
        offer: Some(offer),
        ..CreateOfferRequest::default()
    };
    let done = caller.offers().create_offer(request).await;
    done.map(Response::into_inner)
}

/// Publishes an offer.
pub async fn publish(caller: &Caller, name: &str) -> Result<Offer, Status> {
    let request = PublishOfferRequest {
        name: name.to_owned(),
        ..PublishOfferRequest::default()
    };
    let done = caller.offers().publish_offer(request).await;
    done.map(Response::into_inner)
}

async fn submit(caller: &Caller, name: &str) -> Result<Offer, Status> {
    let request = SubmitOfferRequest {
        name: name.to_owned(),
        ..SubmitOfferRequest::default()
    };
    let done = caller.offers().submit_offer(request).await;
    done.map(Response::into_inner)
}

async fn stop(caller: &Caller, name: &str) -> Result<Offer, Status> {
    let request = StopOfferRequest {
        name: name.to_owned(),
        ..StopOfferRequest::default()
    };
    let done = caller.offers().stop_offer(request).await;
    done.map(Response::into_inner)
}

async fn get(caller: &Caller, name: &str, version: i64) -> Result<Offer, Status> {
    let request = GetOfferRequest {
        name: name.to_owned(),
        version,
    };
    let done = caller.offers().get_offer(request).await;
    done.map(Response::into_inner)
}

async fn update(caller: &Caller, offer: Offer, paths: &[&str]) -> Result<Offer, Status> {
    let request = UpdateOfferRequest {
        offer: Some(offer),
        update_mask: Some(mask(paths)),
        ..UpdateOfferRequest::default()
    };
    let done = caller.offers().update_offer(request).await;
    done.map(Response::into_inner)
}

async fn delete(caller: &Caller, name: &str) -> Result<Vec<Offer>, Status> {
    let request = DeleteOfferRequest {
        name: name.to_owned(),
        ..DeleteOfferRequest::default()
    };
    let done = caller.offers().delete_offer(request).await;
    done.map(|d| d.into_inner().resources)
}

async fn list(caller: &Caller, account: &str, filter: &str) -> Result<Vec<String>, Status> {
    let request = ListOffersRequest {
        parent: account.to_owned(),
        filter: filter.to_owned(),
        order_by: "display_name".to_owned(),
        ..ListOffersRequest::default()
    };
    let done = caller.offers().list_offers(request).await?;
    let offers = done.into_inner().offers;
    Ok(offers.into_iter().map(|o| o.display_name).collect())
}

async fn reviews(caller: &Caller) -> Result<Vec<OfferReview>, Status> {
    let request = ListOfferReviewsRequest::default();
    let done = caller.offers().list_offer_reviews(request).await;
    done.map(|d| d.into_inner().offer_reviews)
}

async fn decide(
    caller: &Caller,
    name: &str,
    decision: OfferDecision,
    reason: &str,
) -> Result<Offer, Status> {
    let request = DecideOfferReviewRequest {
        name: name.to_owned(),
        decision: decision as i32,
        reason: reason.to_owned(),
        ..DecideOfferReviewRequest::default()
    };
    let done = caller.offers().decide_offer_review(request).await;
    done.map(Response::into_inner)
}

fn renamed(name: &str, display_name: &str) -> Offer {
    Offer {
        name: name.to_owned(),
        display_name: display_name.to_owned(),
        ..Offer::default()
    }
}

fn price(country: &str, currency: &str, amount_minor: i64) -> Price {
    Price {
        country_code: country.to_owned(),
        currency_code: currency.to_owned(),
        amount_minor,
    }
}

fn metadatum(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info().unwrap();
    info.metadata.get(key).cloned().unwrap_or_default()
}

// proves AGR-5, OFR-1, ACC-9
#[tokio::test]
async fn past_the_date_of_a_new_publisher_agreement_nothing_is_published_until_it_is_accepted() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = publisher(&site, &contoso, "Contoso").await;
        let tool = create(ann, &account, app_offer("Tool")).await.unwrap().name;
        let start = now(&site).await;
        let kind = AgreementKind::Publisher;
        let new = version(kind, None, Some(start + 600));
        publish_agreement(&site.operator().await, new)
            .await
            .unwrap();
        // Until its date nothing is refused.
        publish(ann, &tool).await.unwrap();
        update(ann, renamed(&tool, "Tool 2"), &["display_name"])
            .await
            .unwrap();
        site.advance(601).await;
        for tried in [publish(ann, &tool).await, submit(ann, &tool).await] {
            let status = refused(tried, Code::FailedPrecondition, "AGREEMENT_REQUIRED");
            assert_eq!(metadatum(&status, "agreement"), "PUBLISHER");
            assert_eq!(metadatum(&status, "version"), "1");
        }
        // Drafts, reading and stopping work.
        update(ann, renamed(&tool, "Tool 3"), &["display_name"])
            .await
            .unwrap();
        assert_eq!(list(ann, &account, "").await.unwrap(), ["Tool 3"]);
        let stopped = stop(ann, &tool).await.unwrap();
        assert_eq!((stopped.live_version, stopped.version), (0, 2));
        accept(ann, &account, kind, 1).await.unwrap();
        let live = publish(ann, &tool).await.unwrap();
        assert_eq!(
            (live.state(), live.live_version),
            (OfferState::Published, 2)
        );
    })
    .await;
}

// proves OFR-1, ROL-3, ACC-9, ACC-13
#[tokio::test]
async fn developers_manage_and_publish_and_others_do_not() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = site.account(&contoso, "Contoso").await;
        let dee = site.person(&contoso, "dee").await;
        let fin = site.person(&contoso, "fin").await;
        add(ann, &account, &[&dee], &[AccountRole::Developer])
            .await
            .unwrap();
        add(ann, &account, &[&fin], &[]).await.unwrap();
        let finance = 1_i64 << AccountRole::Finance as i64;
        seed(&site, &fin.member_of(&account), finance).await;
        let fabrikam = site.tenant("fabrikam").await;
        let stranger = &fabrikam.admin.caller;
        let theirs = publisher(&site, &fabrikam, "Fabrikam").await;
        let theirs = create(stranger, &theirs, app_offer("Theirs"))
            .await
            .unwrap();

        let tool = create(&dee.caller, &account, app_offer("Tool")).await;
        let tool = tool.unwrap().name;
        let none = tool.replace(&tool[tool.len() - 4..], "0000");
        for caller in [&fin.caller, stranger, &site.operator().await] {
            denied(create(caller, &account, app_offer("Other")).await);
            denied(list(caller, &account, "").await);
            for name in [&tool, &none] {
                denied(get(caller, name, 0).await);
                denied(publish(caller, name).await);
                denied(submit(caller, name).await);
                denied(stop(caller, name).await);
                denied(delete(caller, name).await);
                denied(update(caller, renamed(name, "Mine"), &["display_name"]).await);
            }
        }
        // One's own account with another's offer is no way either.
        let (_, last) = theirs.name.split_once("/offers/").unwrap();
        let mixed = format!("{account}/offers/{last}");
        refused(
            publish(&dee.caller, &mixed).await,
            Code::FailedPrecondition,
            "PROGRAM_NOT_ENROLLED",
        );
        refused(
            get(&dee.caller, &mixed, 0).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        for tried in [
            publish(&dee.caller, &tool).await,
            submit(&dee.caller, &tool).await,
        ] {
            let status = refused(tried, Code::FailedPrecondition, "PROGRAM_NOT_ENROLLED");
            assert_eq!(metadatum(&status, "program"), "MARKETPLACE");
        }
        enroll(
            ann,
            enrolling(&account, &contoso.name, Program::Marketplace),
        )
        .await
        .unwrap();
        for (state, may) in [
            (AccountState::Pending, false),
            (AccountState::Suspended, false),
            (AccountState::Active, true),
        ] {
            let sql = "UPDATE accounts SET state = $1 WHERE id = $2";
            change(&site, sql, [(state as i64).into(), id(&account).into()]).await;
            let tried = publish(&dee.caller, &tool).await;
            if may {
                tried.unwrap();
            } else {
                refused(tried, Code::FailedPrecondition, "WRONG_STATE");
            }
        }
        assert_eq!(events(&site, "offer.v1.OfferPublished", &tool).await, 1);
        // Stopping works also for who is suspended.
        let sql = "UPDATE accounts SET state = $1 WHERE id = $2";
        let suspended = AccountState::Suspended as i64;
        change(&site, sql, [suspended.into(), id(&account).into()]).await;
        refused(
            update(&dee.caller, renamed(&tool, "Tool 2"), &["display_name"]).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        stop(&dee.caller, &tool).await.unwrap();
    })
    .await;
}

// proves OFR-1, COM-5, COM-6, COM-7, ATK-10
#[tokio::test]
async fn what_is_live_stays_so_while_the_next_version_is_in_work_and_all_can_be_read() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = publisher(&site, &contoso, "Contoso").await;
        let made = create(ann, &account, app_offer("Tool")).await.unwrap();
        let name = made.name.clone();
        assert_eq!(
            (made.state(), made.version, made.live_version),
            (OfferState::Draft, 1, 0)
        );
        let live = publish(ann, &name).await.unwrap();
        assert!(live.publish_time.is_some());
        refused(
            publish(ann, &name).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let stale = UpdateOfferRequest {
            offer: Some(renamed(&name, "Late")),
            etag: made.etag.clone(),
            ..UpdateOfferRequest::default()
        };
        refused(
            ann.offers().update_offer(stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let next = update(ann, renamed(&name, "Tool 2"), &["display_name"]);
        let next = next.await.unwrap();
        assert_eq!(
            (next.state(), next.version, next.live_version),
            (OfferState::Draft, 2, 1)
        );
        let old = get(ann, &name, 1).await.unwrap();
        assert_eq!(
            (old.display_name.as_str(), old.state()),
            ("Tool", OfferState::Published)
        );
        let live = "live = true display_name : \"tool 2\" state = DRAFT kind = APP";
        assert_eq!(list(ann, &account, live).await.unwrap(), ["Tool 2"]);
        // Of many at once one publishes.
        let done = join_all((0..8).map(|_| publish(ann, &name))).await;
        assert_eq!(done.iter().filter(|d| d.is_ok()).count(), 1);
        let old = get(ann, &name, 1).await.unwrap();
        assert_eq!((old.state(), old.live_version), (OfferState::Stopped, 2));
        assert!(old.stop_time.is_some());
        refused(
            get(ann, &name, 3).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        refused(
            delete(ann, &name).await,
            Code::FailedPrecondition,
            "OFFER_WAS_PUBLISHED",
        );
        stop(ann, &name).await.unwrap();
        refused(
            stop(ann, &name).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        // It comes back as its next version.
        let back = update(ann, renamed(&name, "Tool 3"), &["display_name"]);
        assert_eq!(back.await.unwrap().version, 3);
        assert_eq!(publish(ann, &name).await.unwrap().live_version, 3);

        for field in ["state", "version", "live_version", "kind", "etag"] {
            let tried = update(ann, renamed(&name, "Tool"), &[field]).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), ["update_mask"]);
        }
        let draft = create(ann, &account, app_offer("Away")).await.unwrap();
        let before = row_counts(&site.app).await;
        let gone = delete(ann, &draft.name).await.unwrap();
        assert_eq!(gone[0].display_name, "Away");
        let after = row_counts(&site.app).await;
        assert_eq!(after["offers"], before["offers"] - 1);
        assert_eq!(after["offer_versions"], before["offer_versions"] - 1);
    })
    .await;
}

// proves OFR-1, OFR-2
#[tokio::test]
async fn what_has_a_price_waits_for_who_can_be_paid_and_what_is_free_does_not() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = publisher(&site, &contoso, "Contoso").await;
        let mut bad = app_offer("Tool");
        bad.prices = vec![
            price("FR", "EUR", 990),
            price("XX", "EUR", 990),
            price("FR", "ABC", 990),
            price("FR", "EUR", 1),
            price("DE", "EUR", 0),
        ];
        let tried = create(ann, &account, bad).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        let mut named = fields(&status);
        named.sort();
        assert_eq!(
            named,
            [
                "offer.prices[1].country_code",
                "offer.prices[2].currency_code",
                "offer.prices[3]",
                "offer.prices[4].amount_minor"
            ]
        );
        let mut priced = app_offer("Tool");
        priced.prices = vec![price("FR", "EUR", 990), price("CH", "CHF", 1_090)];
        let made = create(ann, &account, priced.clone()).await.unwrap();
        assert_eq!(made.prices, priced.prices);
        for tried in [
            publish(ann, &made.name).await,
            submit(ann, &made.name).await,
        ] {
            let status = refused(tried, Code::FailedPrecondition, "PAYOUT_DETAILS_REQUIRED");
            assert_eq!(fields(&status), ["payout_account", "tax_profile"]);
            assert_eq!(metadatum(&status, "missing"), "payout_account, tax_profile");
        }
        let free = Offer {
            name: made.name.clone(),
            ..Offer::default()
        };
        update(ann, free, &["prices"]).await.unwrap();
        publish(ann, &made.name).await.unwrap();
        // Prices that come with the next version wait too, and what is live stays.
        priced.name.clone_from(&made.name);
        update(ann, priced, &["prices"]).await.unwrap();
        refused(
            publish(ann, &made.name).await,
            Code::FailedPrecondition,
            "PAYOUT_DETAILS_REQUIRED",
        );
        assert_eq!(get(ann, &made.name, 0).await.unwrap().live_version, 1);
    })
    .await;
}

// proves OFR-1
#[tokio::test]
async fn a_line_of_business_app_names_its_customers_and_nothing_else_does() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = publisher(&site, &contoso, "Contoso").await;
        let customer = site.tenant("customer").await.name;
        let lob = |customers: &[&String]| Offer {
            kind: OfferKind::LobApp as i32,
            customers: customers.iter().map(|c| (*c).clone()).collect(),
            ..app_offer("Ledger")
        };
        for (offer, field) in [
            (lob(&[]), "offer.customers"),
            (lob(&[&customer, &customer]), "offer.customers[1]"),
            (
                Offer {
                    kind: OfferKind::Saas as i32,
                    ..lob(&[&customer])
                },
                "offer.customers",
            ),
        ] {
            let tried = create(ann, &account, offer).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), [field]);
        }
        let made = create(ann, &account, lob(&[&customer])).await.unwrap();
        assert_eq!(made.customers, std::slice::from_ref(&customer));
        let nobody = Offer {
            name: made.name.clone(),
            ..Offer::default()
        };
        let tried = update(ann, nobody, &["customers"]).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["offer.customers"]);
        publish(ann, &made.name).await.unwrap();
    })
    .await;
}

// proves OFR-1, VER-6, VER-7
#[tokio::test]
async fn where_policy_demands_a_review_nothing_is_published_without() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = publisher(&site, &contoso, "Contoso").await;
        let start = now(&site).await;
        let operator = site.operator().await;
        let (key, on) = (PolicyKey::OfferReviewApp, Value::Flag(true));
        set(&operator, key, on, Some(start + 600)).await.unwrap();
        let early = create(ann, &account, app_offer("Early")).await.unwrap();
        // Until then, handing in publishes.
        let live = submit(ann, &early.name).await.unwrap();
        assert_eq!(live.state(), OfferState::Published);
        site.advance(601).await;
        let tool = create(ann, &account, app_offer("Tool")).await.unwrap().name;
        refused(
            publish(ann, &tool).await,
            Code::FailedPrecondition,
            "OFFER_REVIEW_REQUIRED",
        );
        let waiting = submit(ann, &tool).await.unwrap();
        assert_eq!(waiting.state(), OfferState::InReview);
        for tried in [
            submit(ann, &tool).await,
            publish(ann, &tool).await,
            update(ann, renamed(&tool, "Other"), &["display_name"]).await,
        ] {
            let status = refused(tried, Code::FailedPrecondition, "WRONG_STATE");
            assert_eq!(metadatum(&status, "state"), "IN_REVIEW");
        }
        refused(
            delete(ann, &tool).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        // Only who has claimed it decides; asking for changes tells why, and then it is handed in again.
        let rita = reviewer(&site, "rita").await.caller;
        let listed = reviews(&rita).await.unwrap();
        let [one] = &listed[..] else {
            panic!("{listed:?}")
        };
        assert_eq!(one.offer.as_ref(), Some(&waiting));
        let (approve, request) = (OfferDecision::Approve, OfferDecision::RequestChanges);
        refused(
            decide(&rita, &tool, approve, "So it is.").await,
            Code::FailedPrecondition,
            "REVIEW_NOT_CLAIMED",
        );
        denied(reviews(ann).await);
        denied(decide(ann, &tool, approve, "So it is.").await);
        claim(&rita, &one.review).await.unwrap();
        let tried = decide(&rita, &tool, request, "").await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["reason"]);
        let back = decide(&rita, &tool, request, "Say more.").await.unwrap();
        assert_eq!(
            (back.state(), back.review_reason.as_str()),
            (OfferState::ChangesRequested, "Say more.")
        );
        update(ann, renamed(&tool, "Tool, whole"), &["display_name"])
            .await
            .unwrap();
        submit(ann, &tool).await.unwrap();
        let again = reviews(&rita).await.unwrap().remove(0).review;
        claim(&rita, &again).await.unwrap();
        // What the account is refused for publishing refuses the approval.
        let sql = "UPDATE accounts SET state = $1 WHERE id = $2";
        for (state, may) in [
            (AccountState::Suspended, false),
            (AccountState::Active, true),
        ] {
            change(&site, sql, [(state as i64).into(), id(&account).into()]).await;
            let tried = decide(&rita, &tool, approve, "So it is.").await;
            if may {
                assert_eq!(tried.unwrap().live_version, 1);
            } else {
                refused(tried, Code::FailedPrecondition, "WRONG_STATE");
            }
        }
        refused(
            decide(&rita, &tool, approve, "So it is.").await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        assert!(reviews(&rita).await.unwrap().is_empty());
        update(ann, renamed(&tool, "Tool 2"), &["display_name"])
            .await
            .unwrap();
        submit(ann, &tool).await.unwrap();
        // Other kinds aren't reviewed.
        let mut saas = app_offer("Hosted");
        saas.kind = OfferKind::Saas as i32;
        let saas = create(ann, &account, saas).await.unwrap().name;
        publish(ann, &saas).await.unwrap();
        // Stopping takes back what is in review.
        let back = stop(ann, &tool).await.unwrap();
        assert_eq!((back.state(), back.live_version), (OfferState::Draft, 0));
        assert!(reviews(&rita).await.unwrap().is_empty());
    })
    .await;
}

// proves ACC-9, OFR-1
#[tokio::test]
async fn offers_stop_as_their_account_leaves_the_marketplace() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = publisher(&site, &contoso, "Contoso").await;
        let ann = again(&site, &contoso.admin).await;
        let mut live = Vec::new();
        for name in ["One", "Two"] {
            let made = create(&ann, &account, app_offer(name)).await.unwrap();
            publish(&ann, &made.name).await.unwrap();
            live.push(made.name);
        }
        create(&ann, &account, app_offer("Draft")).await.unwrap();
        let shown = leave(&ann, &account, &contoso.name, true).await.unwrap();
        live.sort();
        assert_eq!((shown.ended_count, &shown.ended), (2, &live));
        assert_eq!(list(&ann, &account, "live = true").await.unwrap().len(), 2);
        leave(&ann, &account, &contoso.name, false).await.unwrap();
        assert!(
            list(&ann, &account, "live = true")
                .await
                .unwrap()
                .is_empty()
        );
        assert_eq!(events(&site, "offer.v1.OfferStopped", &live[0]).await, 1);
    })
    .await;
}

// proves ACC-13, OFR-1
#[tokio::test]
async fn offers_stop_as_their_account_is_closed() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = publisher(&site, &contoso, "Contoso").await;
        let ann = again(&site, &contoso.admin).await;
        let made = create(&ann, &account, app_offer("One")).await.unwrap();
        publish(&ann, &made.name).await.unwrap();
        let request = CloseAccountRequest {
            name: account.clone(),
            ..CloseAccountRequest::default()
        };
        let operator = site.operator().await;
        operator.accounts().close_account(request).await.unwrap();
        let live = list(&ann, &account, "live = true").await.unwrap();
        assert!(live.is_empty(), "{live:?}");
        assert_eq!(events(&site, "offer.v1.OfferStopped", &made.name).await, 1);
    })
    .await;
}
