//! Claims on publisher names: filed, answered, decided, and what becomes of the name (ACC-12).

use entente::proto::{
    account::{
        Account, AccountState, AnswerNameClaimRequest, CheckPublisherNameRequest,
        CloseAccountRequest, Contact, CreateNameClaimRequest, DecideNameClaimRequest,
        GetAccountRequest, GetNameClaimRequest, ListNameClaimsRequest, NameClaim,
        NameClaimAnswer as Answer, NameClaimDecision as Decision, NameClaimState as State,
        PublisherNameAvailability as Availability, RequirementCode as Code_, ReviewKind,
    },
    directory::DeleteUserRequest,
};
use futures_util::future::join_all;
use tonic::{Code, Response, Status};

use crate::{
    claims::{chains_are_intact, execute, row_counts},
    documents::{download, first, png, upload},
    enrolment::{
        draft_of, member_tenant,
        names::{availability, reserve},
        open, required, update, whole,
    },
    harness::{Caller, Database, Person, Site, both, fields, refused, request_id},
    network::contact,
    people::{
        again, denied, events, eventually, execute_on, guest, identity, letters, literal,
        numbered_id,
    },
    reviews::{claim as take, involved, queue, review, reviewer},
};

const DAY: i64 = 86_400;
/// "Contoso", with a Cyrillic o.
const LOOKALIKE: &str = "C\u{43e}ntoso";

/// Uploads a document for an account, or for oneself; gives its name.
pub async fn paper(caller: &Caller, parent: &str) -> String {
    let done = upload(caller, first(parent, "proof.png"), png(200), 1_000).await;
    done.unwrap().name
}

/// A claim with a document, for an account or for oneself.
pub async fn filed(
    caller: &Caller,
    oneself: &str,
    account: &str,
    name: &str,
) -> Result<NameClaim, Status> {
    let parent = if account.is_empty() { oneself } else { account };
    let request = filing(account, name, &paper(caller, parent).await);
    let done = caller.name_claims().create_name_claim(request).await;
    done.map(Response::into_inner)
}

fn filing(account: &str, name: &str, document: &str) -> CreateNameClaimRequest {
    CreateNameClaimRequest {
        name_claim: Some(NameClaim {
            publisher_display_name: name.to_owned(),
            statement: "We are the older ones.".to_owned(),
            account: account.to_owned(),
            documents: vec![document.to_owned()],
            ..NameClaim::default()
        }),
        ..CreateNameClaimRequest::default()
    }
}

async fn answer(
    caller: &Caller,
    account: &str,
    claim: &str,
    change: impl FnOnce(&mut AnswerNameClaimRequest),
) -> Result<NameClaim, Status> {
    let mut request = AnswerNameClaimRequest {
        account: account.to_owned(),
        name: claim.to_owned(),
        answer: Answer::Contest as i32,
        text: "It is ours.".to_owned(),
        ..AnswerNameClaimRequest::default()
    };
    change(&mut request);
    let done = caller.name_claims().answer_name_claim(request).await;
    done.map(Response::into_inner)
}

/// Gives a name up, for another one if that isn't empty.
fn give_up(next: &str) -> impl FnOnce(&mut AnswerNameClaimRequest) {
    move |request| {
        request.answer = Answer::GiveUp as i32;
        request.text.clear();
        request.new_publisher_display_name = next.to_owned();
    }
}

async fn decide(caller: &Caller, claim: &str, decision: Decision) -> Result<NameClaim, Status> {
    let request = DecideNameClaimRequest {
        name: claim.to_owned(),
        decision: decision as i32,
        reason: "By the register.".to_owned(),
        ..DecideNameClaimRequest::default()
    };
    let done = caller.name_claims().decide_name_claim(request).await;
    done.map(Response::into_inner)
}

async fn get(caller: &Caller, claim: &str) -> Result<NameClaim, Status> {
    let name = claim.to_owned();
    let done = caller
        .name_claims()
        .get_name_claim(GetNameClaimRequest { name })
        .await;
    done.map(Response::into_inner)
}

async fn list(caller: &Caller, account: &str) -> Result<Vec<String>, Status> {
    let request = ListNameClaimsRequest {
        account: account.to_owned(),
        ..ListNameClaimsRequest::default()
    };
    let done = caller.name_claims().list_name_claims(request).await?;
    let claims = done.into_inner().name_claims;
    Ok(claims.into_iter().map(|claim| claim.name).collect())
}

/// Claims the review of the only claim that waits, and decides it.
async fn settled(rita: &Caller, claim: &str, decision: Decision) -> NameClaim {
    let waiting = queue(rita, ReviewKind::NameClaim, "state = WAITING").await;
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].subject, claim);
    take(rita, &waiting[0].name).await.unwrap();
    decide(rita, claim, decision).await.unwrap()
}

async fn rename(caller: &Caller, account: &str, name: &str) -> Result<Account, Status> {
    let new = Account {
        name: account.to_owned(),
        publisher_display_name: name.to_owned(),
        ..Account::default()
    };
    update(caller, new, &["publisher_display_name"]).await
}

async fn state(caller: &Caller, account: &str) -> AccountState {
    let name = account.to_owned();
    let mut accounts = caller.accounts();
    let found = accounts.get_account(GetAccountRequest { name }).await;
    found.unwrap().into_inner().state()
}

#[track_caller]
fn taken<T: std::fmt::Debug>(tried: Result<T, Status>) {
    refused(tried, Code::AlreadyExists, "PUBLISHER_NAME_TAKEN");
}

#[track_caller]
fn wrong_state<T: std::fmt::Debug>(tried: Result<T, Status>) {
    refused(tried, Code::FailedPrecondition, "WRONG_STATE");
}

async fn close(caller: &Caller, account: &str) {
    let request = CloseAccountRequest {
        name: account.to_owned(),
        ..CloseAccountRequest::default()
    };
    caller.accounts().close_account(request).await.unwrap();
}

async fn mails(site: &Site, to: &str, what: &str) -> usize {
    let all = letters(site).await;
    all.iter()
        .filter(|mail| mail.to == to && mail.text.contains(what))
        .count()
}

// proves ACC-12, ACC-4, VER-7, COM-5
#[tokio::test]
async fn a_claim_is_answered_decided_and_the_name_kept_for_who_won_it() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let held = site.account(&contoso, "Contoso").await;
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let fay = &fabrikam.admin;
        let theirs = open(&fay.caller, draft_of(whole("Fabrikam")))
            .await
            .unwrap();
        let theirs = theirs.account.unwrap().name;
        let adatum = member_tenant(&site, "adatum").await;
        let third = open(&adatum.admin.caller, draft_of(whole("Adatum")))
            .await
            .unwrap();
        let third = third.account.unwrap().name;
        let rita = reviewer(&site, "rita").await.caller;
        reserve(&site.operator().await, "Tailspin").await.unwrap();
        taken(rename(&fay.caller, &theirs, LOOKALIKE).await);

        // What isn't there to be claimed, and by whom it isn't.
        let proof = paper(&fay.caller, &theirs).await;
        let own = paper(&fay.caller, &fay.name).await;
        let file = async |caller: &Caller, account: &str, name: &str, document: &str| {
            let request = filing(account, name, document);
            let done = caller.name_claims().create_name_claim(request).await;
            done.map(Response::into_inner)
        };
        let tried = file(&fay.caller, &theirs, "Nobody", &proof).await;
        refused(tried, Code::FailedPrecondition, "PUBLISHER_NAME_FREE");
        let tried = file(&fay.caller, &theirs, "Tailspln", &proof).await;
        refused(tried, Code::FailedPrecondition, "PUBLISHER_NAME_RESERVED");
        let tried = file(&fay.caller, &theirs, "FABRIKAM", &proof).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["name_claim.publisher_display_name"]);
        // An account's claim takes the account's documents.
        let tried = file(&fay.caller, &theirs, LOOKALIKE, &own).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["name_claim.documents[0]"]);
        denied(file(&fay.caller, &held, LOOKALIKE, &own).await);
        let missing = format!("accounts/{}", request_id());
        denied(file(&fay.caller, &missing, LOOKALIKE, &own).await);

        let before = row_counts(&site.app).await;
        let mut request = filing(&theirs, LOOKALIKE, &proof);
        request.validate_only = true;
        fay.caller
            .name_claims()
            .create_name_claim(request)
            .await
            .unwrap();
        assert_eq!(row_counts(&site.app).await, before);
        let made = file(&fay.caller, &theirs, LOOKALIKE, &proof).await.unwrap();
        assert_eq!(made.state(), State::AwaitingAnswer);
        assert_eq!(
            (made.claimant.as_str(), made.holder.as_str()),
            (fay.name.as_str(), "")
        );
        let until = made.answer_expire_time.unwrap().seconds - made.create_time.unwrap().seconds;
        assert_eq!(until, 14 * DAY);
        let claim = made.name.as_str();
        let tried = filed(&adatum.admin.caller, &adatum.admin.name, &third, "CONTOSO").await;
        refused(tried, Code::AlreadyExists, "NAME_CLAIM_OPEN");
        assert_eq!(mails(&site, "ann@contoso.example", claim).await, 1);

        // The holder is asked, and not told who asks.
        let due = required(ann, &held).await.unwrap();
        let due = due
            .iter()
            .find(|r| r.code() == Code_::NameClaimAnswer)
            .unwrap();
        assert_eq!(
            due.method,
            "entente.account.v1.NameClaimService/AnswerNameClaim"
        );
        assert_eq!(
            (due.name_claim.as_str(), due.deadline),
            (claim, made.answer_expire_time)
        );
        let seen = get(ann, claim).await.unwrap();
        assert_eq!(
            (seen.holder.as_str(), seen.claimant.as_str()),
            (held.as_str(), "")
        );
        assert!(seen.account.is_empty() && seen.documents.is_empty());
        assert_eq!(seen.statement, "We are the older ones.");
        for caller in [
            &adatum.admin.caller,
            &identity(&site, "ida@new.example").await.caller,
        ] {
            denied(get(caller, claim).await);
            denied(get(caller, &format!("nameClaims/{}", request_id())).await);
            denied(list(caller, &held).await);
            assert!(list(caller, "").await.unwrap().is_empty());
            denied(answer(caller, &held, claim, |_| {}).await);
            denied(decide(caller, claim, Decision::Grant).await);
        }
        assert_eq!(list(ann, &held).await.unwrap(), [claim]);
        assert_eq!(list(&fay.caller, &theirs).await.unwrap(), [claim]);
        assert_eq!(list(&fay.caller, "").await.unwrap(), [claim]);
        assert!(list(ann, "").await.unwrap().is_empty());

        // It answers for its own account only, once.
        denied(answer(&fay.caller, &held, claim, |_| {}).await);
        let tried = answer(&fay.caller, &theirs, claim, |_| {}).await;
        refused(tried, Code::NotFound, "RESOURCE_NOT_FOUND");
        wrong_state(decide(&rita, claim, Decision::Grant).await);
        let evidence = paper(ann, &held).await;
        let paper_of = evidence.clone();
        let done = answer(ann, &held, claim, |request| {
            request.documents = vec![paper_of]
        })
        .await;
        let done = done.unwrap();
        assert_eq!(
            (done.state(), done.answer()),
            (State::InReview, Answer::Contest)
        );
        assert_eq!(done.answer_documents, [evidence.as_str()]);
        wrong_state(answer(ann, &held, claim, |_| {}).await);
        let seen = get(&fay.caller, claim).await.unwrap();
        assert_eq!(
            (seen.answer_text.as_str(), seen.holder.as_str()),
            ("It is ours.", "")
        );
        assert!(seen.answer_documents.is_empty());

        // A reviewer sees both sides, and decides what it has claimed.
        let waiting = queue(&rita, ReviewKind::NameClaim, "").await;
        let whole_review = review(&rita, &waiting[0].name).await.unwrap();
        assert_eq!(whole_review.documents.len(), 2);
        download(&rita, &evidence).await.unwrap();
        let seen = get(&rita, claim).await.unwrap();
        assert_eq!((&seen.claimant, &seen.holder), (&fay.name, &held));
        let tried = decide(&rita, claim, Decision::Grant).await;
        refused(tried, Code::FailedPrecondition, "REVIEW_NOT_CLAIMED");
        denied(decide(&fay.caller, claim, Decision::Grant).await);
        let granted = settled(&rita, claim, Decision::Grant).await;
        assert_eq!(granted.state(), State::Granted);
        let until =
            granted.rename_expire_time.unwrap().seconds - granted.decide_time.unwrap().seconds;
        assert_eq!(until, 30 * DAY);
        let due = required(ann, &held).await.unwrap();
        let due = due.iter().find(|r| r.code() == Code_::Rename).unwrap();
        assert_eq!(
            due.method,
            "entente.account.v1.AccountService/UpdateAccount"
        );
        assert_eq!(due.deadline, granted.rename_expire_time);

        // Another spelling is no other name. From the moment it is another one, it is the claimant's alone.
        rename(ann, &held, "CONTOSO").await.unwrap();
        assert_eq!(get(ann, claim).await.unwrap().state(), State::Granted);
        taken(rename(&fay.caller, &theirs, LOOKALIKE).await);
        rename(ann, &held, "Northwind").await.unwrap();
        let kept = get(&fay.caller, claim).await.unwrap();
        assert_eq!(kept.state(), State::Kept);
        assert!(
            required(ann, &held)
                .await
                .unwrap()
                .iter()
                .all(|r| r.name_claim.is_empty())
        );
        assert_eq!(
            mails(&site, "ann@fabrikam.example", "which you claimed by").await,
            1
        );
        taken(rename(ann, &held, "Contoso").await);
        taken(rename(&adatum.admin.caller, &third, LOOKALIKE).await);
        let tried = filed(&adatum.admin.caller, &adatum.admin.name, &third, "Contoso").await;
        refused(tried, Code::AlreadyExists, "NAME_CLAIM_OPEN");
        // For the account that won it, and nobody else.
        let of = async |caller: &Caller, account: &str| {
            let request = CheckPublisherNameRequest {
                publisher_display_name: "Contoso".to_owned(),
                account: account.to_owned(),
            };
            let told = caller.accounts().check_publisher_name(request).await;
            told.unwrap().into_inner().availability()
        };
        assert_eq!(of(&fay.caller, &theirs).await, Availability::Available);
        assert_eq!(
            availability(&fay.caller, "Contoso").await,
            Availability::Taken
        );
        assert_eq!(availability(ann, "Contoso").await, Availability::Taken);
        rename(&fay.caller, &theirs, LOOKALIKE).await.unwrap();
        assert_eq!(get(&fay.caller, claim).await.unwrap().state(), State::Taken);
        taken(rename(ann, &held, "contoso").await);
        // Renaming on frees it, as any other name.
        rename(&fay.caller, &theirs, "Fabrikam Two").await.unwrap();
        rename(ann, &held, "Contoso").await.unwrap();
        assert_eq!(events(&site, "account.v1.NameClaimChanged", claim).await, 4);
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves ACC-12, ACC-13, VER-7
#[tokio::test]
async fn without_an_answer_it_is_decided_and_who_does_not_rename_is_suspended_until_then() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let held = site.account(&contoso, "Contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let fay = &fabrikam.admin;
        let rita = reviewer(&site, "rita").await;
        let claim = filed(&fay.caller, &fay.name, "", "Contoso")
            .await
            .unwrap()
            .name;
        site.advance(14 * DAY - 60).await;
        site.settle().await;
        assert!(
            queue(&again(&site, &rita).await, ReviewKind::NameClaim, "")
                .await
                .is_empty()
        );
        site.advance(180).await;
        site.settle().await;
        let ann = again(&site, &contoso.admin).await;
        assert_eq!(get(&ann, &claim).await.unwrap().state(), State::InReview);
        wrong_state(answer(&ann, &held, &claim, |_| {}).await);
        settled(&again(&site, &rita).await, &claim, Decision::Grant).await;
        site.advance(30 * DAY - 60).await;
        site.settle().await;
        let ann = again(&site, &contoso.admin).await;
        assert_eq!(state(&ann, &held).await, AccountState::Active);
        site.advance(180).await;
        site.settle().await;
        let ann = again(&site, &contoso.admin).await;
        assert_eq!(state(&ann, &held).await, AccountState::Suspended);
        assert_eq!(mails(&site, "ann@contoso.example", "and was not").await, 1);

        // No dead end: what the requirement names works, and lifts it.
        wrong_state(rename(&ann, &held, "Northwind").await);
        let due = required(&ann, &held).await.unwrap();
        let due = due.iter().find(|r| r.code() == Code_::Rename).unwrap();
        assert_eq!(
            due.method,
            "entente.account.v1.NameClaimService/AnswerNameClaim"
        );
        let tried = answer(&ann, &held, &claim, give_up(LOOKALIKE)).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["new_publisher_display_name"]);
        wrong_state(answer(&ann, &held, &claim, give_up("")).await);
        let kept = answer(&ann, &held, &claim, give_up("Northwind"))
            .await
            .unwrap();
        assert_eq!(kept.state(), State::Kept);
        assert_eq!(state(&ann, &held).await, AccountState::Active);

        // What nobody takes is free after 90 days.
        taken(rename(&ann, &held, "Contoso").await);
        site.advance(90 * DAY + 60).await;
        site.settle().await;
        let ann = again(&site, &contoso.admin).await;
        assert_eq!(get(&ann, &claim).await.unwrap().state(), State::Lapsed);
        rename(&ann, &held, "Contoso").await.unwrap();
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves ACC-12, VER-6
#[tokio::test]
async fn whoever_is_tied_to_either_side_neither_sees_nor_decides_a_claim() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let held = site.account(&contoso, "Contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let fay = &fabrikam.admin;
        let rita = reviewer(&site, "rita").await;
        let rob = reviewer(&site, "rob").await;
        let rolf = reviewer(&site, "rolf").await;
        // Rita is a guest of the claimant's tenant, which has no account; Rolf of the holder's.
        let visitor = guest(&site, &fabrikam.name, &rita).await;
        guest(&site, &contoso.name, &rolf).await;
        let claim = filed(&fay.caller, &fay.name, "", "Contoso").await.unwrap();
        let ann = &contoso.admin.caller;
        answer(ann, &held, &claim.name, |_| {}).await.unwrap();
        let waiting = queue(&rob.caller, ReviewKind::NameClaim, "").await;
        for tied in [&rita.caller, &rolf.caller] {
            let tried = take(tied, &waiting[0].name).await;
            refused(tried, Code::PermissionDenied, "REVIEWER_INVOLVED");
            let tried = get(tied, &claim.name).await;
            refused(tried, Code::PermissionDenied, "REVIEWER_INVOLVED");
            let tried = download(tied, &claim.documents[0]).await;
            refused(tried, Code::PermissionDenied, "REVIEWER_INVOLVED");
            assert!(list(tied, "").await.unwrap().is_empty());
            let told = queue(tied, ReviewKind::NameClaim, "").await;
            assert!(told[0].note.is_empty() && told[0].submitter.is_empty());
        }
        assert_eq!(list(&rob.caller, "").await.unwrap(), [claim.name.as_str()]);
        download(&rob.caller, &claim.documents[0]).await.unwrap();
        let refusal = settled(&rob.caller, &claim.name, Decision::Refuse).await;
        assert_eq!(refusal.state(), State::Refused);
        assert_eq!(mails(&site, "ann@contoso.example", "was refused").await, 1);
        assert_eq!(mails(&site, "ann@fabrikam.example", "was refused").await, 1);
        let gone = format!("DELETE FROM users WHERE id = {}", literal(&site, &visitor));
        execute(&site.app, &gone).await.unwrap();

        // The same side waits before it tries again; others don't.
        let tried = filed(&fay.caller, &fay.name, "", "contoso").await;
        refused(tried, Code::FailedPrecondition, "NAME_CLAIM_REFUSED");
        // An identity with a reviewer's address is that reviewer.
        let sql = format!(
            "UPDATE users SET recovery_email = 'rob@mail.example' WHERE id = {}",
            literal(&site, &rob.name)
        );
        execute(&site.app, &sql).await.unwrap();
        crate::harness::reconcile(&site.app).await;
        let same = identity(&site, "rob@mail.example").await;
        let claim = filed(&same.caller, &same.name, "", "contoso")
            .await
            .unwrap();
        answer(ann, &held, &claim.name, |_| {}).await.unwrap();
        let waiting = queue(&rita.caller, ReviewKind::NameClaim, "state = WAITING").await;
        let tried = take(&rob.caller, &waiting[0].name).await;
        refused(tried, Code::PermissionDenied, "REVIEWER_INVOLVED");
    })
    .await;
}

// proves VER-6, ACC-12
#[tokio::test]
async fn whoever_is_tied_to_an_account_of_the_claimants_is_tied_to_its_claim_for_no_account() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let held = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin.caller;
        let fabrikam = site.tenant("fabrikam").await;
        let fay = &fabrikam.admin;
        let theirs = site.account(&fabrikam, "Fabrikam").await;
        let litware = site.tenant("litware").await;
        let associated = format!(
            "INSERT INTO associations (account_id, tenant_id, display_name_fold, create_time, version) VALUES ({}, {}, 'litware', 1, 1)",
            literal(&site, &theirs),
            literal(&site, &litware.name),
        );
        execute_on(&site, &associated).await;
        // More accounts of the tenant than are looked at in one go come before it.
        let id = numbered_id(&site, "n");
        let further = format!(
            "WITH RECURSIVE s(n) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT n + 1 FROM s WHERE n < 4000) \
             INSERT INTO associations (account_id, tenant_id, display_name_fold, create_time, version) SELECT {id}, {}, 'f', 1, 1 FROM s",
            literal(&site, &fabrikam.name),
        );
        execute_on(&site, &further).await;
        let adatum = site.tenant("adatum").await;
        let owned = site.account(&adatum, "Adatum").await;
        let olga = identity(&site, "olga@mail.example").await;
        crate::ownership::owns(&site, &owned, &olga).await;
        let rita = reviewer(&site, "rita").await;
        let rob = reviewer(&site, "rob").await;
        let rolf = reviewer(&site, "rolf").await;
        // Rita is a guest of another tenant of the account of the claimant's tenant, Rob a contact of it; Rolf is a guest of what Olga owns.
        guest(&site, &litware.name, &rita).await;
        let of_it = Account {
            name: theirs.clone(),
            primary_contact: Some(Contact {
                email: "rob@operator.example".to_owned(),
                ..contact("Rob")
            }),
            ..Account::default()
        };
        update(&fay.caller, of_it, &["primary_contact"]).await.unwrap();
        guest(&site, &adatum.name, &rolf).await;

        let claim = filed(&fay.caller, &fay.name, "", "Contoso").await.unwrap();
        answer(ann, &held, &claim.name, |_| {}).await.unwrap();
        let waiting = queue(&rolf.caller, ReviewKind::NameClaim, "state = WAITING").await;
        let are_tied = async |tied: &[&Caller], claim: &NameClaim, review: &str| {
            for tied in tied {
                involved(take(tied, review).await);
                involved(get(tied, &claim.name).await);
                involved(download(tied, &claim.documents[0]).await);
                assert!(list(tied, "").await.unwrap().is_empty());
            }
        };
        let both_of_it = [&rita.caller, &rob.caller];
        are_tied(&both_of_it, &claim, &waiting[0].name).await;
        // An account that the tenant had lately is its own still.
        let gone = format!(
            "DELETE FROM associations WHERE account_id = {} AND tenant_id = {}",
            literal(&site, &theirs),
            literal(&site, &fabrikam.name),
        );
        execute_on(&site, &gone).await;
        are_tied(&both_of_it, &claim, &waiting[0].name).await;
        settled(&rolf.caller, &claim.name, Decision::Refuse).await;

        let claim = filed(&olga.caller, &olga.name, "", "contoso").await.unwrap();
        answer(ann, &held, &claim.name, |_| {}).await.unwrap();
        let waiting = queue(&rita.caller, ReviewKind::NameClaim, "state = WAITING").await;
        let tried = take(&rolf.caller, &waiting[0].name).await;
        involved(tried);
        involved(get(&rolf.caller, &claim.name).await);
        settled(&rita.caller, &claim.name, Decision::Refuse).await;
    })
    .await;
}

// proves COM-21, ACC-12
#[tokio::test]
async fn a_claim_that_cannot_go_on_holds_up_no_other() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let fay = &fabrikam.admin;
        let mut claims = Vec::new();
        for name in ["Contoso", "Northwind"] {
            site.account(&contoso, name).await;
            let claim = filed(&fay.caller, &fay.name, "", name).await.unwrap();
            claims.push(claim.name);
            site.advance(1).await;
        }
        // Whatever is wrong with the first one, it is due first.
        let it = literal(&site, &claims[0]);
        let (spoil, mend) = match site.database {
            Database::Sqlite => (
                format!(
                    "CREATE TRIGGER spoilt BEFORE UPDATE ON name_claims WHEN OLD.id = {it} AND NEW.state <> OLD.state \
                     BEGIN SELECT RAISE(ABORT, 'spoilt'); END"
                ),
                "DROP TRIGGER spoilt",
            ),
            Database::Postgres => (
                format!("ALTER TABLE name_claims ADD CONSTRAINT spoilt CHECK (id <> {it} OR state = 1)"),
                "ALTER TABLE name_claims DROP CONSTRAINT spoilt",
            ),
        };
        execute_on(&site, &spoil).await;
        site.advance(14 * DAY + 120).await;
        site.settle().await;
        // A job that failed is due again half a minute later.
        site.advance(60).await;
        let fay = again(&site, fay).await;
        let of = async |i: usize| get(&fay, &claims[i]).await.unwrap().state();
        eventually(async || {
            site.settle().await;
            of(1).await == State::InReview
        })
        .await;
        assert_eq!(of(0).await, State::AwaitingAnswer);
        execute_on(&site, mend).await;
        site.advance(11 * 60).await;
        eventually(async || {
            site.settle().await;
            of(0).await == State::InReview
        })
        .await;
    })
    .await;
}

// proves ACC-12, ACC-13, ATK-10
#[tokio::test]
async fn the_name_of_a_closed_account_goes_to_who_won_it_and_of_two_at_once_one_takes_it() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let held = site.account(&contoso, "Contoso").await;
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let fay = &fabrikam.admin;
        let rita = reviewer(&site, "rita").await.caller;
        let operator = site.operator().await;
        let claim = filed(&fay.caller, &fay.name, "", LOOKALIKE)
            .await
            .unwrap()
            .name;
        // Nobody is left to answer, and reviewers have it at once.
        close(&operator, &held).await;
        let kept = settled(&rita, &claim, Decision::Grant).await;
        assert_eq!(kept.state(), State::Kept);
        let stranger = member_tenant(&site, "adatum").await;
        let tried = open(&stranger.admin.caller, draft_of(whole("Contoso"))).await;
        taken(tried);
        let opened = open(&fay.caller, draft_of(whole("Fabrikam")))
            .await
            .unwrap();
        let first = opened.account.unwrap().name;
        let second = site.account(&fabrikam, "Fabrikam Two").await;
        let both_at_once = [&first, &second].map(|account| rename(&fay.caller, account, "Contoso"));
        let done = join_all(both_at_once).await;
        assert_eq!(done.iter().filter(|d| d.is_ok()).count(), 1, "{done:?}");
        for lost in done.into_iter().filter(Result::is_err) {
            taken(lost);
        }
        assert_eq!(
            get(&fay.caller, &claim).await.unwrap().state(),
            State::Taken
        );
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves ACC-12
#[tokio::test]
async fn claims_are_bounded_given_in_to_and_end_with_their_claimants() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let fabrikam = site.tenant("fabrikam").await;
        let bob = site.person(&fabrikam, "bob").await;
        let mut held = Vec::new();
        for name in ["Contoso", "Northwind", "Tailspin", "Litware"] {
            held.push(site.account(&contoso, name).await);
        }
        // Two at once on one name.
        let fay: &Person = &fabrikam.admin;
        let tries = [&bob, fay].map(|who| filed(&who.caller, &who.name, "", "Contoso"));
        let done = join_all(tries).await;
        let won: Vec<_> = done.iter().flatten().collect();
        assert_eq!(won.len(), 1, "{done:?}");
        let who = if won[0].claimant == bob.name {
            &bob
        } else {
            fay
        };
        let first = won[0].name.clone();
        for lost in done.into_iter().filter(Result::is_err) {
            refused(lost, Code::AlreadyExists, "NAME_CLAIM_OPEN");
        }
        let second = filed(&who.caller, &who.name, "", "Northwind")
            .await
            .unwrap()
            .name;
        let third = filed(&who.caller, &who.name, "", "Tailspin")
            .await
            .unwrap()
            .name;
        let tried = filed(&who.caller, &who.name, "", "Litware").await;
        refused(tried, Code::ResourceExhausted, "TOO_MANY_NAME_CLAIMS");

        // Giving up is granting; with the next name it is free at once, and so it is by just renaming.
        let given = answer(ann, &held[0], &first, give_up("")).await.unwrap();
        assert_eq!(
            (given.state(), given.answer()),
            (State::Granted, Answer::GiveUp)
        );
        let given = answer(ann, &held[1], &second, give_up("Northwind Two"))
            .await
            .unwrap();
        assert_eq!(given.state(), State::Kept);
        rename(ann, &held[2], "Tailspin Two").await.unwrap();
        let given = get(ann, &third).await.unwrap();
        assert_eq!(
            (given.state(), given.answer()),
            (State::Kept, Answer::GiveUp)
        );

        // A claimant who is deleted claims nothing any more.
        if who.name == bob.name {
            let request = DeleteUserRequest {
                name: bob.name.clone(),
                ..DeleteUserRequest::default()
            };
            fay.caller.users().delete_user(request).await.unwrap();
        } else {
            let sql = format!(
                "UPDATE users SET state = 3 WHERE id = {}",
                literal(&site, &fay.name)
            );
            execute(&site.app, &sql).await.unwrap();
        }
        site.advance(601).await;
        let ann = again(&site, &contoso.admin).await;
        eventually(async || {
            site.settle().await;
            get(&ann, &first).await.unwrap().state() == State::Ended
        })
        .await;
        assert_eq!(get(&ann, &second).await.unwrap().state(), State::Ended);
        assert!(
            required(&ann, &held[0])
                .await
                .unwrap()
                .iter()
                .all(|r| r.name_claim.is_empty())
        );
        rename(&ann, &held[2], "Northwind").await.unwrap();
    })
    .await;
}
