//! BenefitService: levels, packages and their billing, and what is used of both, never beyond its count.

use std::collections::BTreeSet;

use entente::proto::{
    access::AccountRole,
    account::{
        ActivateBenefitRequest, AssignBenefitRequest, AssignBenefitResponse, Benefit,
        BenefitAssignment, BenefitKind, BillingOutcome, BuyPackageRequest, Competency,
        ConfirmBillingRequest, CreatePackageOfferRequest, GetMembershipLevelRequest, Level,
        ListBenefitAssignmentsRequest, ListBenefitsRequest, ListPackageOffersRequest,
        ListPackagesRequest, MembershipLevel, Package, PackageContent, PackageOffer, PackageState,
        RecordCompetencyRequest, ReleaseBenefitRequest, RenewPackageRequest,
        RevokeCompetencyRequest, UpdatePackageOfferRequest,
    },
    operator::{OperatorRole, PolicyKey},
};
use futures_util::future::join_all;
use prost_types::Timestamp;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    agreements::now,
    claims::row_counts,
    harness::{Caller, Site, both, fields, refused, request_id},
    members::{add, remove},
    people::{Service, again, denied, events, eventually, mask, staff},
    policies::{Value, set},
};

const DAY: i64 = 86_400;

fn metadatum(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info().unwrap();
    info.metadata.get(key).cloned().unwrap_or_default()
}

async fn record(
    operator: &Caller,
    account: &str,
    code: &str,
    until: i64,
) -> Result<Competency, Status> {
    let request = RecordCompetencyRequest {
        parent: account.to_owned(),
        competency: Some(Competency {
            code: code.to_owned(),
            expire_time: Some(Timestamp {
                seconds: until,
                nanos: 0,
            }),
            ..Competency::default()
        }),
        ..RecordCompetencyRequest::default()
    };
    let done = operator.benefits().record_competency(request).await;
    done.map(Response::into_inner)
}

async fn revoke(operator: &Caller, name: &str) -> Result<(), Status> {
    let request = RevokeCompetencyRequest {
        name: name.to_owned(),
        ..RevokeCompetencyRequest::default()
    };
    let done = operator.benefits().revoke_competency(request).await;
    done.map(drop)
}

pub async fn level(caller: &Caller, account: &str) -> Result<MembershipLevel, Status> {
    let request = GetMembershipLevelRequest {
        name: account.to_owned(),
    };
    let done = caller.benefits().get_membership_level(request).await;
    done.map(Response::into_inner)
}

fn content(kind: BenefitKind, name: &str, count: i64) -> PackageContent {
    PackageContent {
        kind: kind as i32,
        display_name: name.to_owned(),
        count,
    }
}

/// An action pack of a year: seats, keys and cases.
pub fn action_pack() -> PackageOffer {
    PackageOffer {
        display_name: "Action pack".to_owned(),
        currency_code: "EUR".to_owned(),
        amount_minor: 47_500,
        term_days: 365,
        contents: vec![
            content(BenefitKind::Seats, "Suite", 5),
            content(BenefitKind::Keys, "Server", 3),
            content(BenefitKind::Cases, "Support", 10),
        ],
        ..PackageOffer::default()
    }
}

pub async fn offer(operator: &Caller, offer: PackageOffer) -> Result<PackageOffer, Status> {
    let request = CreatePackageOfferRequest {
        package_offer: Some(offer),
        ..CreatePackageOfferRequest::default()
    };
    let done = operator.benefits().create_package_offer(request).await;
    done.map(Response::into_inner)
}

async fn change(
    operator: &Caller,
    offer: PackageOffer,
    paths: &[&str],
) -> Result<PackageOffer, Status> {
    let request = UpdatePackageOfferRequest {
        package_offer: Some(offer),
        update_mask: Some(mask(paths)),
        ..UpdatePackageOfferRequest::default()
    };
    let done = operator.benefits().update_package_offer(request).await;
    done.map(Response::into_inner)
}

async fn buy(caller: &Caller, account: &str, offer: &str) -> Result<Package, Status> {
    let request = BuyPackageRequest {
        parent: account.to_owned(),
        package_offer: offer.to_owned(),
        ..BuyPackageRequest::default()
    };
    let done = caller.benefits().buy_package(request).await;
    done.map(Response::into_inner)
}

async fn renew(caller: &Caller, name: &str) -> Result<Package, Status> {
    let request = RenewPackageRequest {
        name: name.to_owned(),
        ..RenewPackageRequest::default()
    };
    let done = caller.benefits().renew_package(request).await;
    done.map(Response::into_inner)
}

async fn confirm(billing: &Caller, charge: &str) -> Result<Package, Status> {
    say(billing, charge, BillingOutcome::Confirmed).await
}

async fn say(billing: &Caller, charge: &str, outcome: BillingOutcome) -> Result<Package, Status> {
    let request = ConfirmBillingRequest {
        charge_id: charge.to_owned(),
        outcome: outcome as i32,
        request_id: request_id(),
        validate_only: false,
    };
    let done = billing.benefits().confirm_billing(request).await;
    done.map(|d| d.into_inner().package.unwrap())
}

pub async fn package(caller: &Caller, account: &str) -> Package {
    let request = ListPackagesRequest {
        parent: account.to_owned(),
        ..ListPackagesRequest::default()
    };
    let done = caller.benefits().list_packages(request).await.unwrap();
    let mut packages = done.into_inner().packages;
    assert_eq!(packages.len(), 1);
    packages.remove(0)
}

pub async fn benefits(
    caller: &Caller,
    account: &str,
    filter: &str,
) -> Result<Vec<Benefit>, Status> {
    let request = ListBenefitsRequest {
        parent: account.to_owned(),
        filter: filter.to_owned(),
        order_by: "display_name".to_owned(),
        ..ListBenefitsRequest::default()
    };
    let done = caller.benefits().list_benefits(request).await;
    done.map(|d| d.into_inner().benefits)
}

async fn activate(caller: &Caller, name: &str) -> Result<Benefit, Status> {
    let request = ActivateBenefitRequest {
        name: name.to_owned(),
        ..ActivateBenefitRequest::default()
    };
    let done = caller.benefits().activate_benefit(request).await;
    done.map(Response::into_inner)
}

async fn assign(
    caller: &Caller,
    name: &str,
    assignee: &str,
    count: i64,
) -> Result<AssignBenefitResponse, Status> {
    let request = AssignBenefitRequest {
        name: name.to_owned(),
        assignee: assignee.to_owned(),
        count,
        ..AssignBenefitRequest::default()
    };
    let done = caller.benefits().assign_benefit(request).await;
    done.map(Response::into_inner)
}

async fn assignments(
    caller: &Caller,
    benefit: &str,
    filter: &str,
) -> Result<Vec<BenefitAssignment>, Status> {
    let request = ListBenefitAssignmentsRequest {
        parent: benefit.to_owned(),
        filter: filter.to_owned(),
        ..ListBenefitAssignmentsRequest::default()
    };
    let done = caller.benefits().list_benefit_assignments(request).await;
    done.map(|d| d.into_inner().assignments)
}

async fn release(caller: &Caller, name: &str) -> Result<Benefit, Status> {
    let request = ReleaseBenefitRequest {
        name: name.to_owned(),
        ..ReleaseBenefitRequest::default()
    };
    let done = caller.benefits().release_benefit(request).await;
    done.map(|d| d.into_inner().benefit.unwrap())
}

/// The internal service that billing is.
async fn billing(site: &Site) -> Service {
    Service::open(site).await
}

// proves BEN-1, BEN-3
#[tokio::test]
async fn levels_follow_competencies_that_count_now_and_give_cases() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = site.account(&contoso, "Contoso").await;
        let operator = site.operator().await;
        let start = now(&site).await;
        let of = async |caller: &Caller| level(caller, &account).await.unwrap();
        assert_eq!(of(ann).await.level(), Level::Member);
        assert!(benefits(ann, &account, "").await.unwrap().is_empty());
        let cloud = record(&operator, &account, "Cloud", start + 600).await;
        let cloud = cloud.unwrap();
        assert_eq!(
            events(&site, "account.v1.CompetencyRecorded", &cloud.name).await,
            1
        );
        assert_eq!(of(ann).await.level(), Level::Silver);
        for code in ["Data", "Security"] {
            record(&operator, &account, code, start + 9_000)
                .await
                .unwrap();
        }
        let told = of(ann).await;
        assert_eq!((told.level(), told.competency_count), (Level::Gold, 3));
        assert_eq!(told.competencies[0].code, "Cloud");
        // The level's own benefit: as many cases as policy says, now.
        let [cases] = &benefits(ann, &account, "").await.unwrap()[..] else {
            panic!("not one benefit")
        };
        assert_eq!((cases.total_count, cases.active), (20, false));
        refused(
            assign(ann, &cases.name, "", 1).await,
            Code::FailedPrecondition,
            "BENEFIT_NOT_ACTIVE",
        );
        activate(ann, &cases.name).await.unwrap();
        assign(ann, &cases.name, "", 6).await.unwrap();

        // Recorded again it is renewed, not counted twice; what expires or is taken away counts no more.
        let renewed = record(&operator, &account, "Cloud", start + 1_200).await;
        assert_eq!(renewed.unwrap().name, cloud.name);
        assert_eq!(of(ann).await.competency_count, 3);
        site.advance(1_201).await;
        let ann = again(&site, &contoso.admin).await;
        let operator = site.operator().await;
        assert_eq!(of(&ann).await.level(), Level::Silver);
        let left = assign(&ann, &cases.name, "", 1).await;
        // Silver gives fewer than are used already.
        let status = refused(left, Code::FailedPrecondition, "BENEFIT_EXHAUSTED");
        assert_eq!(metadatum(&status, "left"), "0");
        let two = Value::Number(2);
        set(&operator, PolicyKey::GoldCompetencies, two, None)
            .await
            .unwrap();
        assert_eq!(of(&ann).await.level(), Level::Gold);
        let data = of(&ann).await.competencies[0].name.clone();
        revoke(&operator, &data).await.unwrap();
        assert_eq!(of(&ann).await.level(), Level::Silver);

        let late = record(&operator, &account, "Late", start).await;
        let status = refused(late, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["competency.expire_time"]);
        let none = account.replace(&account[account.len() - 4..], "0000");
        refused(
            record(&operator, &none, "Cloud", start + 9_000).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let rae = staff(&site, "rae", OperatorRole::OperatorReviewer).await;
        for caller in [&ann, &rae.caller] {
            denied(record(caller, &account, "Cloud", start + 9_000).await);
            denied(revoke(caller, &cloud.name).await);
        }
        let stranger = site.tenant("fabrikam").await.admin.caller;
        denied(level(&stranger, &account).await);
        denied(benefits(&stranger, &account, "").await);
        denied(activate(&stranger, &cases.name).await);
    })
    .await;
}

// proves BEN-2, COM-4
#[tokio::test]
async fn a_package_begins_when_billing_confirms_is_renewed_in_time_and_lapses() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let operator = site.operator().await;
        let portal = billing(&site).await;
        let mut bad = action_pack();
        bad.currency_code = "XYZ".to_owned();
        bad.contents.push(content(BenefitKind::Seats, "Suite", 1));
        bad.term_days = 0;
        let status = refused(
            offer(&operator, bad).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(
            fields(&status),
            [
                "package_offer.currency_code",
                "package_offer.contents[3]",
                "package_offer.term_days"
            ]
        );
        let pack = offer(&operator, action_pack()).await.unwrap();
        let ann = &contoso.admin.caller;
        denied(offer(ann, action_pack()).await);
        let request = ListPackageOffersRequest {
            parent: account.clone(),
            filter: "withdrawn = false".to_owned(),
            ..ListPackageOffersRequest::default()
        };
        let listed = ann.benefits().list_package_offers(request).await.unwrap();
        assert_eq!(
            listed.into_inner().package_offers,
            std::slice::from_ref(&pack)
        );

        let dee = site.person(&contoso, "dee").await;
        add(ann, &account, &[&dee], &[AccountRole::Developer])
            .await
            .unwrap();
        denied(buy(&dee.caller, &account, &pack.name).await);
        let bought = buy(ann, &account, &pack.name).await.unwrap();
        assert_eq!(bought.state(), PackageState::Pending);
        assert_eq!(
            events(&site, "account.v1.PackageCharged", &bought.name).await,
            1
        );
        assert!(benefits(ann, &account, "").await.unwrap().is_empty());
        refused(
            renew(ann, &bought.name).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        for caller in [ann, &operator] {
            denied(confirm(caller, &bought.charge_id).await);
        }
        let service = portal.caller(&site).await;
        refused(
            confirm(&service, &request_id()).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        // Of many at once one confirms, and again later changes nothing.
        let done = join_all((0..8).map(|_| confirm(&service, &bought.charge_id))).await;
        let ends: BTreeSet<_> = done
            .into_iter()
            .map(|d| d.unwrap().expire_time.unwrap().seconds)
            .collect();
        assert_eq!(ends.len(), 1);
        assert_eq!(
            events(&site, "account.v1.PackageConfirmed", &bought.name).await,
            1
        );
        let first = package(ann, &account).await;
        assert_eq!(
            (first.state(), first.charge_id.as_str()),
            (PackageState::Active, "")
        );
        let end = first.expire_time.unwrap().seconds;
        assert_eq!(end - first.begin_time.unwrap().seconds, 365 * DAY);
        assert_eq!(benefits(ann, &account, "").await.unwrap().len(), 3);

        // What was bought keeps its contents; who renews gets those of then.
        let other = PackageOffer {
            name: pack.name.clone(),
            contents: vec![
                content(BenefitKind::Seats, "Suite", 8),
                content(BenefitKind::Cases, "Support", 4),
            ],
            amount_minor: 50_000,
            ..PackageOffer::default()
        };
        change(&operator, other, &["contents", "amount_minor"])
            .await
            .unwrap();
        let empty = PackageOffer {
            name: pack.name.clone(),
            ..PackageOffer::default()
        };
        let status = refused(
            change(&operator, empty, &["amount_minor"]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["package_offer.amount_minor"]);
        let counts = async |caller: &Caller| -> Vec<i64> {
            let all = benefits(caller, &account, "").await.unwrap();
            all.iter().map(|b| b.total_count).collect()
        };
        assert_eq!(counts(ann).await, [3, 5, 10]);
        let too_early = renew(ann, &bought.name).await;
        refused(too_early, Code::FailedPrecondition, "NOT_RENEWABLE");
        site.advance(306 * DAY).await;
        let ann = again(&site, &contoso.admin).await;
        let renewed = renew(&ann, &bought.name).await.unwrap();
        assert_eq!(
            (renewed.state(), renewed.amount_minor),
            (PackageState::Active, 50_000)
        );
        refused(
            renew(&ann, &bought.name).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let service = Service::open(&site).await.caller(&site).await;
        confirm(&service, &renewed.charge_id).await.unwrap();
        let second = package(&ann, &account).await;
        assert_eq!(second.expire_time.unwrap().seconds, end + 365 * DAY);
        assert_eq!(counts(&ann).await, [3, 8, 14]);

        // After its expiry it is no more used, can be renewed for 30 days, and lapses then.
        site.advance(59 * DAY + 365 * DAY + 29 * DAY).await;
        let ann = again(&site, &contoso.admin).await;
        assert_eq!(package(&ann, &account).await.state(), PackageState::Expired);
        let suite = benefits(&ann, &account, "kind = SEATS").await.unwrap();
        assert!(!suite[0].active);
        refused(
            activate(&ann, &suite[0].name).await,
            Code::FailedPrecondition,
            "BENEFIT_NOT_ACTIVE",
        );
        let before = row_counts(&site.app).await;
        let rehearsal = RenewPackageRequest {
            name: bought.name.clone(),
            validate_only: true,
            ..RenewPackageRequest::default()
        };
        ann.benefits().renew_package(rehearsal).await.unwrap();
        assert_eq!(
            row_counts(&site.app).await["package_charges"],
            before["package_charges"]
        );
        site.advance(DAY).await;
        let ann = again(&site, &contoso.admin).await;
        assert_eq!(package(&ann, &account).await.state(), PackageState::Lapsed);
        refused(
            renew(&ann, &bought.name).await,
            Code::FailedPrecondition,
            "NOT_RENEWABLE",
        );
        let gone = PackageOffer {
            name: pack.name.clone(),
            withdrawn: true,
            ..PackageOffer::default()
        };
        change(&site.operator().await, gone, &["withdrawn"])
            .await
            .unwrap();
        refused(
            buy(&ann, &account, &pack.name).await,
            Code::FailedPrecondition,
            "PACKAGE_WITHDRAWN",
        );
    })
    .await;
}

// proves BEN-3, ATK-1
#[tokio::test]
async fn no_benefit_is_used_beyond_its_count_also_by_64_at_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin;
        let account = site.account(&contoso, "Contoso").await;
        let operator = site.operator().await;
        let pack = offer(&operator, action_pack()).await.unwrap();
        let bought = buy(&ann.caller, &account, &pack.name).await.unwrap();
        let service = billing(&site).await.caller(&site).await;
        confirm(&service, &bought.charge_id).await.unwrap();
        let all = benefits(&ann.caller, &account, "").await.unwrap();
        let [keys, seats, cases] = &all[..] else {
            panic!("{all:?}")
        };
        let me = ann.member_of(&account);
        refused(
            assign(&ann.caller, &seats.name, &me, 1).await,
            Code::FailedPrecondition,
            "BENEFIT_NOT_ACTIVE",
        );
        for benefit in [keys, seats, cases] {
            let done = activate(&ann.caller, &benefit.name).await.unwrap();
            assert!(done.active);
            // Again changes nothing.
            let twice = activate(&ann.caller, &benefit.name).await.unwrap();
            assert_eq!(twice, done);
        }
        for (benefit, there) in [(keys, 3), (seats, 5), (cases, 10)] {
            let calls = (0..64).map(|_| assign(&ann.caller, &benefit.name, &me, 1));
            let done = join_all(calls).await;
            assert_eq!(done.iter().filter(|d| d.is_ok()).count(), there);
            for lost in done.into_iter().filter(Result::is_err) {
                let status = refused(lost, Code::FailedPrecondition, "BENEFIT_EXHAUSTED");
                assert_eq!(metadatum(&status, "left"), "0");
            }
        }
        let used = benefits(&ann.caller, &account, "").await.unwrap();
        assert!(used.iter().all(|b| b.used_count == b.total_count));
        let kept = "SELECT COUNT(*) AS n FROM benefit_assignments";
        assert_eq!(crate::claims::count(&site.app, kept).await, 18);

        // What is given back can be assigned again, once; a case that was used is used.
        let sql = "SELECT COUNT(*) AS n FROM benefits WHERE used > total";
        assert_eq!(crate::claims::count(&site.app, sql).await, 0);
        let more = assign(&ann.caller, &seats.name, &me, 2).await;
        refused(more, Code::FailedPrecondition, "BENEFIT_EXHAUSTED");
        let gone = format!("{}/assignments/{}", seats.name, request_id());
        refused(
            release(&ann.caller, &gone).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let assigned = async |of: &Benefit| {
            let all = assignments(&ann.caller, &of.name, "").await.unwrap();
            all[0].name.clone()
        };
        let seat = assigned(seats).await;
        let done = join_all((0..8).map(|_| release(&ann.caller, &seat))).await;
        assert_eq!(done.iter().filter(|d| d.is_ok()).count(), 1);
        assign(&ann.caller, &seats.name, &me, 1).await.unwrap();
        refused(
            release(&ann.caller, &assigned(cases).await).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );

        // For members of the account only, and by who may.
        let stranger = site.tenant("fabrikam").await;
        let theirs = site.account(&stranger, "Fabrikam").await;
        for nobody in [
            String::new(),
            stranger.admin.member_of(&theirs),
            stranger.admin.member_of(&account),
        ] {
            let tried = assign(&ann.caller, &seats.name, &nobody, 1).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), ["assignee"], "{nobody}");
        }
        let mixed = seats.name.replace(&account, &theirs);
        refused(
            activate(&stranger.admin.caller, &mixed).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let dee = site.person(&contoso, "dee").await;
        add(&ann.caller, &account, &[&dee], &[AccountRole::Developer])
            .await
            .unwrap();
        for caller in [&dee.caller, &stranger.admin.caller, &operator] {
            denied(assign(caller, &seats.name, &me, 1).await);
            denied(release(caller, &seat).await);
        }
    })
    .await;
}

// proves BEN-2
#[tokio::test]
async fn what_billing_refuses_never_begins_or_can_be_renewed_again() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = site.account(&contoso, "Contoso").await;
        let pack = offer(&site.operator().await, action_pack()).await.unwrap();
        let service = billing(&site).await.caller(&site).await;
        let bought = buy(ann, &account, &pack.name).await.unwrap();
        let charge = &bought.charge_id;
        let (yes, no) = (BillingOutcome::Confirmed, BillingOutcome::Refused);
        denied(say(ann, charge, no).await);
        for _ in 0..2 {
            let done = say(&service, charge, no).await.unwrap();
            assert_eq!(
                (done.state(), &*done.charge_id),
                (PackageState::Refused, "")
            );
        }
        let refusals = events(&site, "account.v1.PackageRefused", &bought.name).await;
        assert_eq!(refusals, 1);
        for tried in [
            say(&service, charge, yes).await,
            renew(ann, &bought.name).await,
        ] {
            let status = refused(tried, Code::FailedPrecondition, "WRONG_STATE");
            assert_eq!(metadatum(&status, "state"), "REFUSED");
        }
        assert_eq!(benefits(ann, &account, "").await.unwrap(), []);

        // A renewal that is refused leaves the term as it is, and can be tried again.
        let bought = buy(ann, &account, &pack.name).await.unwrap();
        let begun = confirm(&service, &bought.charge_id).await.unwrap();
        let late = say(&service, &bought.charge_id, no).await;
        let status = refused(late, Code::FailedPrecondition, "WRONG_STATE");
        assert_eq!(metadatum(&status, "state"), "CONFIRMED");
        site.advance(330 * DAY).await;
        let ann = again(&site, &contoso.admin).await;
        let service = billing(&site).await.caller(&site).await;
        let renewal = renew(&ann, &bought.name).await.unwrap();
        let kept = say(&service, &renewal.charge_id, no).await.unwrap();
        assert_eq!(kept.state(), PackageState::Active);
        assert_eq!(kept.expire_time, begun.expire_time);
        let again = renew(&ann, &bought.name).await.unwrap();
        let gone_on = confirm(&service, &again.charge_id).await.unwrap();
        let end = begun.expire_time.unwrap().seconds + 365 * DAY;
        assert_eq!(gone_on.expire_time.unwrap().seconds, end);
    })
    .await;
}

// proves BEN-3
#[tokio::test]
async fn seats_of_who_left_are_free_again_and_keys_stay_given() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin;
        let account = site.account(&contoso, "Contoso").await;
        let pack = offer(&site.operator().await, action_pack()).await.unwrap();
        let bought = buy(&ann.caller, &account, &pack.name).await.unwrap();
        let service = billing(&site).await.caller(&site).await;
        confirm(&service, &bought.charge_id).await.unwrap();
        let dee = site.person(&contoso, "dee").await;
        add(&ann.caller, &account, &[&dee], &[AccountRole::Developer])
            .await
            .unwrap();
        let all = benefits(&ann.caller, &account, "").await.unwrap();
        let [keys, seats, _] = &all[..] else {
            panic!("{all:?}")
        };
        for benefit in [keys, seats] {
            activate(&ann.caller, &benefit.name).await.unwrap();
            for who in [ann, &dee] {
                let member = who.member_of(&account);
                let done = assign(&ann.caller, &benefit.name, &member, 1).await;
                done.unwrap();
            }
        }
        // Members read who uses what; others don't.
        let hers = format!("assignee = \"{}\"", dee.member_of(&account));
        let found = assignments(&dee.caller, &seats.name, &hers).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].assignee, dee.member_of(&account));
        let stranger = site.tenant("fabrikam").await;
        let theirs = site.account(&stranger, "Fabrikam").await;
        denied(assignments(&stranger.admin.caller, &seats.name, "").await);
        let mixed = seats.name.replace(&account, &theirs);
        refused(
            assignments(&stranger.admin.caller, &mixed, "").await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );

        let left = dee.member_of(&account);
        remove(&ann.caller, &account, &[&left], false)
            .await
            .unwrap();
        site.advance(DAY).await;
        let ann = again(&site, ann).await;
        eventually(async || assignments(&ann, &seats.name, "").await.unwrap().len() == 1).await;
        let used: Vec<i64> = {
            let all = benefits(&ann, &account, "").await.unwrap();
            all.iter().map(|b| b.used_count).collect()
        };
        assert_eq!(used, [2, 1, 0]);
        let kept = assignments(&ann, &keys.name, "").await.unwrap();
        assert_eq!(kept.len(), 2);
    })
    .await;
}

// proves BEN-2, BEN-3
#[tokio::test]
async fn a_smaller_term_takes_the_latest_seats_back_and_drafts_and_closed_accounts_buy_nothing() {
    both(async |site| {
        let contoso = crate::enrolment::member_tenant(&site, "contoso").await;
        let ann = &contoso.admin;
        let draft = crate::enrolment::draft_of(crate::enrolment::whole("Contoso"));
        let draft = crate::enrolment::open(&ann.caller, draft).await.unwrap();
        let draft = draft.account.unwrap().name;
        let operator = site.operator().await;
        let pack = offer(&operator, action_pack()).await.unwrap();
        crate::agreements::accept(
            &ann.caller,
            &draft,
            entente::proto::access::AgreementKind::PartnerNetwork,
            0,
        )
        .await
        .unwrap();
        let status = refused(
            buy(&ann.caller, &draft, &pack.name).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        assert!(status.message().contains("DRAFT"));

        let account = site.account(&contoso, "Contoso Two").await;
        let bought = buy(&ann.caller, &account, &pack.name).await.unwrap();
        let service = billing(&site).await.caller(&site).await;
        confirm(&service, &bought.charge_id).await.unwrap();
        let seats = benefits(&ann.caller, &account, "kind = SEATS").await;
        let seats = seats.unwrap().remove(0);
        activate(&ann.caller, &seats.name).await.unwrap();
        let me = ann.member_of(&account);
        let mut kept = Vec::new();
        for count in [2, 1, 2] {
            let done = assign(&ann.caller, &seats.name, &me, count).await.unwrap();
            kept.push(done.assignment.unwrap().name);
        }
        let smaller = PackageOffer {
            name: pack.name.clone(),
            contents: vec![content(BenefitKind::Seats, "Suite", 3)],
            ..PackageOffer::default()
        };
        change(&operator, smaller, &["contents"]).await.unwrap();
        site.advance(330 * DAY).await;
        let caller = again(&site, ann).await;
        let service = billing(&site).await.caller(&site).await;
        let renewal = renew(&caller, &bought.name).await.unwrap();
        confirm(&service, &renewal.charge_id).await.unwrap();
        let now = benefits(&caller, &account, "kind = SEATS").await.unwrap();
        assert_eq!((now[0].total_count, now[0].used_count), (3, 3));
        let left = assignments(&caller, &seats.name, "").await.unwrap();
        let left: Vec<_> = left.into_iter().map(|a| a.name).collect();
        assert_eq!(left, kept[..2]);

        // What billing confirms of an account that has ended is told, so that it can be paid back.
        let more = buy(&caller, &account, &pack.name).await.unwrap();
        let close = entente::proto::account::CloseAccountRequest {
            name: account.clone(),
            ..Default::default()
        };
        let operator = site.operator().await;
        operator.accounts().close_account(close).await.unwrap();
        refused(
            confirm(&service, &more.charge_id).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let done = say(&service, &more.charge_id, BillingOutcome::Refused).await;
        assert_eq!(done.unwrap().state(), PackageState::Refused);
    })
    .await;
}

// proves BEN-1, BEN-2
#[tokio::test]
async fn whoever_records_competencies_or_makes_packages_reads_what_there_is() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let operator = site.operator().await;
        let until = now(&site).await + 400 * DAY;
        record(&operator, &account, "Data", until).await.unwrap();
        let told = level(&operator, &account).await.unwrap();
        assert_eq!(told.competencies.len(), 1);
        let nobodys = format!("accounts/{}", request_id());
        refused(
            level(&operator, &nobodys).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let mut pack = action_pack();
        pack.withdrawn = true;
        let pack = offer(&operator, pack).await.unwrap();
        let all = ListPackageOffersRequest {
            parent: account.clone(),
            ..ListPackageOffersRequest::default()
        };
        let listed = operator.benefits().list_package_offers(all.clone()).await;
        assert_eq!(listed.unwrap().into_inner().package_offers, [pack]);
        // Others of the operator's people are refused.
        let rita = staff(&site, "rita", OperatorRole::OperatorReviewer).await;
        denied(rita.caller.benefits().list_package_offers(all).await);
        denied(level(&rita.caller, &account).await);
    })
    .await;
}
