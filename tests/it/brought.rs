//! NetworkService: memberships of an older programme, brought in by the operator, and brought to a new account once, by their contact.

use entente::proto::account::{
    AccountState, BroughtCompetency, BroughtMembership, BroughtPackage, ClaimMembershipRequest,
    ClaimMembershipResponse, CloseAccountRequest, ConfirmMembershipRequest, Contact,
    ImportMembershipsRequest, ImportMembershipsResponse, ImportedMembership, Level,
    NetworkMembership, PackageState,
};
use futures_util::future::join_all;
use prost_types::Timestamp;
use tonic::{Code, Response, Status};

use crate::{
    agreements::now,
    benefits::{action_pack, benefits, level, offer, package},
    claims::row_counts,
    enrolment::{address, all_in_one, draft_of, get, open, steps, update as update_account, whole},
    harness::{Caller, Database, PASSWORD, Site, both, fields, refused, request_id},
    network::{contact, join, new_membership, update},
    people::{
        People as _, application, denied, events, identity, letters, link_invalid, mailed_token,
        number, sign_in_by_key,
    },
    reviews::reviewer,
};

const DAY: i64 = 86_400;
const CARLA: &str = "carla@contoso.example";

pub async fn import(
    operator: &Caller,
    memberships: Vec<ImportedMembership>,
) -> Result<ImportMembershipsResponse, Status> {
    let request = ImportMembershipsRequest {
        memberships,
        ..ImportMembershipsRequest::default()
    };
    let done = operator.network().import_memberships(request).await;
    done.map(Response::into_inner)
}

pub async fn ask(caller: &Caller, old_id: &str) -> Result<ClaimMembershipResponse, Status> {
    let request = ClaimMembershipRequest {
        old_id: old_id.to_owned(),
        ..ClaimMembershipRequest::default()
    };
    let done = caller.network().claim_membership(request).await;
    done.map(Response::into_inner)
}

async fn bring(caller: &Caller, token: &str) -> Result<NetworkMembership, Status> {
    let request = ConfirmMembershipRequest {
        token: token.to_owned(),
        ..ConfirmMembershipRequest::default()
    };
    let done = caller.network().confirm_membership(request).await;
    done.map(Response::into_inner)
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

/// A membership without anything but a company and its contact.
pub fn plain(old_id: &str) -> ImportedMembership {
    ImportedMembership {
        old_id: old_id.to_owned(),
        legal_name: "Contoso SA".to_owned(),
        country_code: "FR".to_owned(),
        website_uri: "https://contoso.example/".to_owned(),
        contact: Some(contact("Carla")),
        ..ImportedMembership::default()
    }
}

/// Gold for half a year, two competencies, and an action pack with 30 days left.
async fn rich(site: &Site, old_id: &str) -> ImportedMembership {
    let pack = offer(&site.operator().await, action_pack()).await.unwrap();
    let (today, half) = (now(site).await, now(site).await + 180 * DAY);
    let competency = |code: &str| BroughtCompetency {
        code: code.to_owned(),
        expire_time: at(half),
    };
    ImportedMembership {
        address: Some(address()),
        primary_contact: Some(contact("Paula")),
        company_approver: Some(contact("Ada")),
        brought: Some(BroughtMembership {
            level: Level::Gold as i32,
            level_expire_time: at(half),
            competencies: vec![competency("data"), competency("security")],
            packages: vec![BroughtPackage {
                package_offer: pack.name,
                begin_time: at(today - 335 * DAY),
                expire_time: at(today + 30 * DAY),
                contents: pack.contents[..2].to_vec(),
            }],
            ..BroughtMembership::default()
        }),
        ..plain(old_id)
    }
}

// proves NET-2
#[tokio::test]
async fn a_membership_is_brought_with_all_that_moves_and_arrives_once() {
    both(async |site| {
        let operator = site.operator().await;
        let rich = rich(&site, "MPN-4711").await;
        import(&operator, vec![rich.clone()]).await.unwrap();
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        // One that carries nothing makes way.
        let before = join(ann, new_membership("Contoso")).await.unwrap();
        ask(ann, " mpn-4711").await.unwrap();
        let token = mailed_token(&site, CARLA).await.unwrap();
        let made = bring(ann, &token).await.unwrap();
        assert_eq!(made.legal_name, "Contoso SA");
        assert_eq!(made.joined_by, contoso.admin.name);
        assert!(made.partner_id.starts_with('P') && made.partner_id != before.partner_id);
        let brought = made.brought.clone().unwrap();
        assert_eq!(brought.old_id, "MPN-4711");
        assert_eq!(brought.packages, rich.brought.as_ref().unwrap().packages);
        let told = events(&site, "account.v1.MembershipBrought", &made.name).await;
        assert_eq!(told, 1);

        // What moves can be made less, and taken up again; never more.
        let mut less = made.clone();
        let of = less.brought.as_mut().unwrap();
        of.level = Level::Silver as i32;
        of.competencies.pop();
        of.packages.clear();
        let done = update(ann, less, &["brought"], "").await.unwrap();
        let left = done.brought.unwrap();
        assert_eq!((left.competencies.len(), left.packages.len()), (1, 0));
        let mut more = made.clone();
        let of = more.brought.as_mut().unwrap();
        of.level_expire_time = at(now(&site).await + 999 * DAY);
        of.competencies[0].code = "quantum".to_owned();
        of.packages.push(of.packages[0].clone());
        let status = refused(
            update(ann, more, &["brought"], "").await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let named = |field: &str| format!("network_membership.brought.{field}");
        assert_eq!(
            fields(&status),
            [
                named("level_expire_time"),
                named("competencies[0]"),
                named("packages[1]")
            ]
        );
        update(ann, made.clone(), &["brought"], "").await.unwrap();

        // The draft begins with the profile; what the request says goes before.
        let mut of_request = whole("Contoso");
        of_request.legal_name = String::new();
        of_request.address = None;
        of_request.company_approver = None;
        of_request.primary_contact = Some(contact("Petra"));
        let done = open(ann, draft_of(of_request)).await.unwrap();
        let account = done.account.unwrap();
        assert_eq!(account.legal_name, "Contoso SA");
        assert_eq!(account.address, Some(address()));
        assert_eq!(account.company_approver, Some(contact("Ada")));
        assert_eq!(account.primary_contact, Some(contact("Petra")));
        let mut edited = account.clone();
        edited.legal_name = "Contoso SAS".to_owned();
        edited.primary_contact = Some(contact("Paula"));
        let paths = ["legal_name", "primary_contact"];
        update_account(ann, edited, &paths).await.unwrap();
        let name = account.name;
        assert_eq!(level(ann, &name).await.unwrap().level(), Level::Member);

        let rita = reviewer(&site, "rita").await;
        steps::submit_and_activate(&site, &rita, ann, &name).await;
        let moved = level(ann, &name).await.unwrap();
        assert_eq!(
            (moved.level(), moved.moved_level()),
            (Level::Gold, Level::Gold)
        );
        assert_eq!(moved.competency_count, 2);
        let pack = package(ann, &name).await;
        assert_eq!(pack.state(), PackageState::Active);
        assert_eq!(pack.expire_time, brought.packages[0].expire_time);
        let held = benefits(ann, &name, "kind = SEATS").await.unwrap();
        assert_eq!((held.len(), held[0].total_count), (1, 5));
        let arrived = "account.v1.MembershipArrived";
        assert_eq!(events(&site, arrived, &name).await, 1);
        refused(
            update(ann, made.clone(), &["brought"], "").await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        // Never again: neither by the link, nor by another one, nor with what another import says.
        link_invalid(bring(ann, &token).await);
        let sent = letters(&site)
            .await
            .iter()
            .filter(|l| l.to == CARLA)
            .count();
        ask(ann, "MPN-4711").await.unwrap();
        let again = letters(&site)
            .await
            .iter()
            .filter(|l| l.to == CARLA)
            .count();
        assert_eq!(sent, again);
        let status = refused(
            import(&operator, vec![plain("MPN-4711")]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["memberships[0].old_id"]);
        // The level counts for its time, the competencies for theirs.
        site.advance(181 * DAY).await;
        let ann = &site.sign_in(&contoso.admin.sign_in_name, PASSWORD).await;
        assert_eq!(level(ann, &name).await.unwrap().level(), Level::Member);
    })
    .await;
}

// proves NET-2
#[tokio::test]
async fn only_who_asked_brings_it_by_the_link_that_its_contact_got_and_of_two_one_wins() {
    both(async |site| {
        let operator = site.operator().await;
        import(&operator, vec![plain("A-1"), plain("A-2")])
            .await
            .unwrap();
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let mallory = identity(&site, "mallory@evil.example").await.caller;
        // A stranger's asking mails the contact alone, and doesn't undo what the contact asked for.
        ask(ann, "A-1").await.unwrap();
        let token = mailed_token(&site, CARLA).await.unwrap();
        ask(&mallory, "A-1").await.unwrap();
        let hers = mailed_token(&site, CARLA).await.unwrap();
        assert_ne!(token, hers);
        let to_mallory = letters(&site).await;
        assert!(
            to_mallory
                .iter()
                .all(|l| l.to != "mallory@evil.example" || !l.text.contains("A-1"))
        );
        // A stolen link is of no use with another sign-in, or none; nor is hers to the contact.
        link_invalid(bring(&mallory, &token).await);
        link_invalid(bring(&site.nobody(), &token).await);
        link_invalid(bring(ann, &hers).await);
        // At once: once.
        let done = join_all((0..4).map(|_| bring(ann, &token))).await;
        assert_eq!(done.iter().filter(|d| d.is_ok()).count(), 1);
        // The contact hands the other link on after all: too late.
        refused(
            bring(&mallory, &hers).await,
            Code::FailedPrecondition,
            "MEMBERSHIP_CLAIMED",
        );
        // Two who both have good links.
        let ida = identity(&site, "ida@new.example").await.caller;
        ask(&ida, "A-2").await.unwrap();
        let one = mailed_token(&site, CARLA).await.unwrap();
        ask(&mallory, "A-2").await.unwrap();
        let two = mailed_token(&site, CARLA).await.unwrap();
        let (a, b) = tokio::join!(bring(&ida, &one), bring(&mallory, &two));
        assert_eq!([a.is_ok(), b.is_ok()].iter().filter(|ok| **ok).count(), 1);
        let lost = if a.is_ok() { b } else { a };
        refused(lost, Code::FailedPrecondition, "MEMBERSHIP_CLAIMED");
        // Whoever has brought one that has no account yet brings no second one.
        import(&operator, vec![plain("A-3")]).await.unwrap();
        ask(ann, "A-3").await.unwrap();
        let third = mailed_token(&site, CARLA).await.unwrap();
        refused(
            bring(ann, &third).await,
            Code::AlreadyExists,
            "ALREADY_NETWORK_MEMBER",
        );
        // A link has its time.
        ask(&site.tenant("fabrikam").await.admin.caller, "A-3")
            .await
            .unwrap();
        let late = mailed_token(&site, CARLA).await.unwrap();
        site.advance(8 * DAY).await;
        let fay = site
            .sign_in("ann@fabrikam.partners.localhost", PASSWORD)
            .await;
        link_invalid(bring(&fay, &late).await);
    })
    .await;
}

// proves NET-2
#[tokio::test]
async fn asking_tells_nobody_whether_there_is_such_a_membership() {
    both(async |site| {
        let operator = site.operator().await;
        import(&operator, vec![plain("B-1")]).await.unwrap();
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let rows = "SELECT (SELECT COUNT(*) FROM membership_claims) + (SELECT COUNT(*) FROM outbox WHERE is_first) AS n";
        let mut wrote = Vec::new();
        for id in ["B-1", "B-2"] {
            let before = number(&site, rows, []).await;
            assert_eq!(ask(ann, id).await.unwrap(), ClaimMembershipResponse {});
            wrote.push(number(&site, rows, []).await - before);
        }
        assert_eq!(wrote, [2, 2]);
        assert_eq!(letters(&site).await.iter().filter(|l| l.to == CARLA).count(), 1);
        // Programs have no mailbox to prove.
        let robot = application(ann, &contoso.name, "Robot").await;
        let key = ann.key(&robot.name).await.unwrap();
        let tokens = sign_in_by_key(&site, &robot.client_id, &key.secret).await;
        let robot = site.with_token(&tokens.unwrap().access_token);
        refused(ask(&robot, "B-1").await, Code::PermissionDenied, "PEOPLE_ONLY");
        refused(
            ask(&site.nobody(), "B-1").await,
            Code::Unauthenticated,
            "CREDENTIALS_MISSING",
        );
        // Trying changes nothing.
        let before = row_counts(&site.app).await;
        let request = ClaimMembershipRequest {
            old_id: "B-9".to_owned(),
            validate_only: true,
            ..ClaimMembershipRequest::default()
        };
        ann.network().claim_membership(request).await.unwrap();
        assert_eq!(row_counts(&site.app).await, before);
    })
    .await;
    // Nobody goes through the IDs.
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::open_with(database, |c| c.limits_factor = 1).await;
        let ann = site.tenant("contoso").await.admin.caller;
        let mut tried = Vec::new();
        for i in 0..6 {
            tried.push(ask(&ann, &format!("C-{i}")).await);
        }
        let last = tried.pop().unwrap();
        assert!(tried.iter().all(Result::is_ok));
        refused(last, Code::ResourceExhausted, "TOO_MANY_CALLS");
    }
}

// proves NET-2
#[tokio::test]
async fn the_operator_imports_all_of_a_call_or_none_and_twice_is_once() {
    both(async |site| {
        let operator = site.operator().await;
        let ann = site.tenant("contoso").await.admin.caller;
        denied(import(&ann, vec![plain("D-1")]).await);
        // Everything wrong at once, by its field.
        let mut bad = rich(&site, "D-1").await;
        bad.contact = Some(Contact {
            phone_number: String::new(),
            ..contact("Carla")
        });
        bad.address.as_mut().unwrap().postal_code = "7500".to_owned();
        let brought = bad.brought.as_mut().unwrap();
        brought.level_expire_time = None;
        brought.competencies[1].code = "data".to_owned();
        brought.packages[0].expire_time = brought.packages[0].begin_time;
        let status = refused(
            import(&operator, vec![plain("d-1"), bad]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let mut named = fields(&status);
        named.sort();
        let of = |field: &str| format!("memberships[1].{field}");
        assert_eq!(
            named,
            [
                of("address.postal_code"),
                of("brought.competencies[1].code"),
                of("brought.level_expire_time"),
                of("brought.packages[0].expire_time"),
                of("contact.phone_number"),
                of("old_id"),
            ]
        );
        // What only the data tells: nothing of the call is there.
        let mut gone = rich(&site, "D-2").await;
        let offer = &mut gone.brought.as_mut().unwrap().packages[0].package_offer;
        offer.replace_range(offer.len() - 4.., "ffff");
        let status = refused(
            import(&operator, vec![plain("D-1"), gone]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), [of("brought.packages[0].package_offer")]);
        let left = "SELECT COUNT(*) AS n FROM imported_memberships";
        assert_eq!(number(&site, left, []).await, 0);
        let counts = |done: ImportMembershipsResponse| {
            (
                done.created_count,
                done.replaced_count,
                done.unchanged_count,
            )
        };
        let try_only = ImportMembershipsRequest {
            memberships: vec![plain("D-1")],
            validate_only: true,
            ..ImportMembershipsRequest::default()
        };
        let done = operator
            .network()
            .import_memberships(try_only)
            .await
            .unwrap();
        assert_eq!(counts(done.into_inner()), (1, 0, 0));
        assert_eq!(number(&site, left, []).await, 0);

        let all = || vec![plain("D-1"), plain("D-2")];
        assert_eq!(counts(import(&operator, all()).await.unwrap()), (2, 0, 0));
        assert_eq!(counts(import(&operator, all()).await.unwrap()), (0, 0, 2));
        let mut changed = all();
        changed[1].legal_name = "Contoso SAS".to_owned();
        assert_eq!(
            counts(import(&operator, changed.clone()).await.unwrap()),
            (0, 1, 1)
        );
        let request = || ImportMembershipsRequest {
            memberships: vec![plain("D-3")],
            request_id: request_id(),
            ..ImportMembershipsRequest::default()
        };
        let request = request();
        for _ in 0..2 {
            let done = operator.network().import_memberships(request.clone()).await;
            assert_eq!(counts(done.unwrap().into_inner()), (1, 0, 0));
        }
        // What was brought stays, also without an account; the same again is no fault.
        ask(&ann, "D-2").await.unwrap();
        let token = mailed_token(&site, CARLA).await.unwrap();
        let made = bring(&ann, &token).await.unwrap();
        assert_eq!(made.legal_name, "Contoso SAS");
        let status = refused(
            import(&operator, all()).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["memberships[1].old_id"]);
        assert_eq!(counts(import(&operator, changed).await.unwrap()), (0, 0, 2));
        // A membership of the network that wasn't brought has nothing to choose from.
        let ida = identity(&site, "ida@new.example").await.caller;
        let mut own = join(&ida, new_membership("Ida")).await.unwrap();
        own.brought = Some(BroughtMembership::default());
        let status = refused(
            update(&ida, own, &["brought"], "").await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["network_membership.brought"]);
    })
    .await;
}

// proves NET-2, ACC-13
#[tokio::test]
async fn a_draft_that_is_removed_loses_nothing_of_what_was_brought() {
    both(async |site| {
        let operator = site.operator().await;
        import(&operator, vec![plain("E-1")]).await.unwrap();
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        ask(ann, "E-1").await.unwrap();
        let token = mailed_token(&site, CARLA).await.unwrap();
        bring(ann, &token).await.unwrap();
        let made = open(ann, draft_of(whole("Contoso"))).await.unwrap();
        let draft = made.account.unwrap();
        assert_eq!(draft.state(), AccountState::Draft);
        // Another one without an account: the brought one can't come back beside it, so it can be asked for again.
        join(ann, new_membership("Contoso Two")).await.unwrap();
        for days in [91, 15] {
            site.advance(days * DAY).await;
            letters(&site).await;
        }
        let ann = &site.sign_in(&contoso.admin.sign_in_name, PASSWORD).await;
        denied(get(ann, &draft.name).await);
        ask(ann, "E-1").await.unwrap();
        let token = mailed_token(&site, CARLA).await.unwrap();
        let brought = bring(ann, &token).await.unwrap();
        assert_eq!(brought.brought.unwrap().old_id, "E-1");
        open(ann, all_in_one(whole("Contoso"))).await.unwrap();
    })
    .await;
}

// proves NET-2, ACC-13
#[tokio::test]
async fn what_an_account_that_is_over_never_got_is_brought_to_the_next_one() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let operator = site.operator().await;
        import(&operator, vec![plain("F-1")]).await.unwrap();
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let bring_it = async || {
            ask(ann, "F-1").await.unwrap();
            let token = mailed_token(&site, CARLA).await.unwrap();
            bring(ann, &token).await
        };
        bring_it().await.unwrap();
        let made = open(ann, all_in_one(whole("Contoso"))).await.unwrap();
        let name = made.account.unwrap().name;
        let letters_before = letters(&site).await.len();
        ask(ann, "F-1").await.unwrap();
        assert_eq!(letters(&site).await.len(), letters_before, "it is in use");
        let request = CloseAccountRequest {
            name,
            ..CloseAccountRequest::default()
        };
        operator.accounts().close_account(request).await.unwrap();
        let brought = bring_it().await.unwrap().brought.unwrap();
        assert_eq!(brought.old_id, "F-1");
        // Once it has arrived, the account keeps it.
        let made = open(ann, all_in_one(whole("Contoso Two"))).await.unwrap();
        let name = made.account.unwrap().name;
        steps::activate(&site, &rita, ann, &name).await;
        let request = CloseAccountRequest {
            name,
            ..CloseAccountRequest::default()
        };
        operator.accounts().close_account(request).await.unwrap();
        let letters_before = letters(&site).await.len();
        ask(ann, "F-1").await.unwrap();
        assert_eq!(letters(&site).await.len(), letters_before, "it is used up");
    })
    .await;
}
