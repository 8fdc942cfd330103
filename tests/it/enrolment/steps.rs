//! VerificationService: employment and business, decided by reviewers, until the account is active, or rejected.

use std::collections::BTreeMap;

use entente::proto::{
    access::{AccountRole, AgreementKind},
    account::{
        Account, AccountState, AccountType, AppealDecisionRequest, ApprovalDecision,
        CloseAccountRequest, ContactChoice, DecideReviewRequest, GetAccountSettingsRequest,
        GetEnrolmentForApprovalRequest, RequestMoreRequest, Requirement, RequirementBlock,
        RequirementCode, Review, ReviewDecision, ReviewKind, ReviewState, SubmitAccountRequest,
        SubmitStepRequest, UpdateAccountRequest, Verification, VerificationStepKind as Kind,
        VerificationStepReason as StepReason, VerificationStepState as State,
    },
    operator::OperatorRole,
};
use tonic::{Code, Response, Status};

use super::{
    all_in_one, consent, draft_of, get, member_tenant, open, required, satisfy,
    states::{reinstate, suspend},
    submit, update,
    verification::{
        ADA, PAULA, confirm, decide, methods, requirements, resend, states, submitted, verification,
    },
    whole,
};
use crate::{
    agreements::{accept, now, publish, version},
    claims::execute,
    domains::{verified, with_dns},
    harness::{
        Caller, Database, Person, Site, TenantSite, both, fields, refused, request_id, rights,
    },
    members::{add, drop_rights, remove},
    network::contact,
    people::{
        again, denied, events, eventually, identity, letters, link_invalid, literal, mailed_token,
        mask, number, operator_tenant, sign_in_reading, staff,
    },
    reviews::{claim, queue, review, reviewer},
};

/// A document of an account, as if it had been uploaded; gives its name.
pub async fn document(site: &Site, account: &str) -> String {
    let name = format!("{account}/documents/{}", request_id());
    let bytes = match site.database {
        Database::Sqlite => "x'00'",
        Database::Postgres => "'\\x00'::bytea",
    };
    let (of, it) = (literal(site, account), literal(site, &name));
    let sql = format!(
        "INSERT INTO documents (id, account_id, uploaded_by_kind, uploaded_by_id, uploaded_by_tenant_id, display_name, size_bytes, media_type, \
         sha256, blob_key, create_time) VALUES ({it}, {of}, 1, {it}, {it}, 'register.pdf', 1, 'application/pdf', {bytes}, '{name}', 1)"
    );
    execute(&site.app, &sql).await.unwrap();
    name
}

pub fn submission(account: &str, step: Kind, documents: &[&str], note: &str) -> SubmitStepRequest {
    SubmitStepRequest {
        name: account.to_owned(),
        step: step as i32,
        documents: documents.iter().map(|d| (*d).to_owned()).collect(),
        note: note.to_owned(),
        ..SubmitStepRequest::default()
    }
}

pub async fn send(caller: &Caller, request: SubmitStepRequest) -> Result<Verification, Status> {
    let done = caller.verification().submit_step(request).await;
    done.map(Response::into_inner)
}

/// Submits a step with a new document.
pub async fn submit_step(site: &Site, caller: &Caller, account: &str, step: Kind) {
    let paper = document(site, account).await;
    let request = submission(account, step, &[&paper], "As asked.");
    send(caller, request).await.unwrap();
}

pub async fn appeal(
    caller: &Caller,
    account: &str,
    step: Kind,
    documents: &[&str],
) -> Result<Verification, Status> {
    let request = AppealDecisionRequest {
        name: account.to_owned(),
        step: step as i32,
        documents: documents.iter().map(|d| (*d).to_owned()).collect(),
        note: "We object.".to_owned(),
        ..AppealDecisionRequest::default()
    };
    let done = caller.verification().appeal_decision(request).await;
    done.map(Response::into_inner)
}

pub async fn judge(
    caller: &Caller,
    review: &str,
    decision: ReviewDecision,
    reason: &str,
) -> Result<Review, Status> {
    let request = DecideReviewRequest {
        name: review.to_owned(),
        decision: decision as i32,
        reason: reason.to_owned(),
        ..DecideReviewRequest::default()
    };
    let done = caller.verification().decide_review(request).await;
    done.map(Response::into_inner)
}

pub async fn ask_for(caller: &Caller, review: &str, text: &str) -> Result<Review, Status> {
    let request = RequestMoreRequest {
        name: review.to_owned(),
        text: text.to_owned(),
        ..RequestMoreRequest::default()
    };
    let done = caller.verification().request_more(request).await;
    done.map(Response::into_inner)
}

/// The only waiting review of a kind.
pub async fn waiting(caller: &Caller, kind: ReviewKind) -> Review {
    let mut found = queue(caller, kind, "state = WAITING").await;
    assert_eq!(found.len(), 1, "{kind:?}");
    found.pop().unwrap()
}

/// Claims the only waiting review of a kind, and decides it.
pub async fn settle(caller: &Caller, kind: ReviewKind, decision: ReviewDecision) -> Review {
    let found = waiting(caller, kind).await;
    claim(caller, &found.name).await.unwrap();
    judge(caller, &found.name, decision, "Because.")
        .await
        .unwrap()
}

/// No dead ends: whatever waits for the account, or was rejected, has its requirement.
pub async fn no_dead_end(caller: &Caller, account: &str) -> Vec<Requirement> {
    let due = requirements(caller, account).await;
    let told = verification(caller, account).await;
    let state = get(caller, account).await.unwrap().state();
    let by_step: BTreeMap<_, _> = due.iter().map(|r| (r.step.as_str(), r)).collect();
    for step in told.steps.iter().chain(&told.approval) {
        let name = step.kind().as_str_name();
        let name = name.trim_start_matches("VERIFICATION_STEP_KIND_");
        let waits = step.state() == State::ActionRequired
            || (step.state() == State::Rejected && state != AccountState::Rejected);
        let appealed = state == AccountState::Suspended && step.state() == State::ActionRequired;
        if state == AccountState::Pending || state == AccountState::Active || appealed {
            assert!(!waits || by_step.contains_key(name), "{step:?} {due:?}");
        }
        if let Some(found) = by_step.get(name).filter(|_| waits) {
            assert!(!found.text.is_empty() && !found.method.is_empty());
        }
    }
    due
}

/// An active account, by all that makes one so.
async fn active(site: &Site, rita: &Person) -> (TenantSite, String) {
    let (contoso, name) = submitted(site).await;
    activate(site, rita, &contoso.admin.caller, &name).await;
    (contoso, name)
}

/// Makes the only account that is submitted active.
pub async fn activate(site: &Site, rita: &Person, ann: &Caller, name: &str) {
    prove(site, rita, ann, name).await;
    assert_eq!(get(ann, name).await.unwrap().state(), AccountState::Active);
}

/// Brings the only account that is submitted through all its steps.
async fn prove(site: &Site, rita: &Person, ann: &Caller, name: &str) {
    let to_paula = mailed_token(site, PAULA).await.unwrap();
    let to_ada = mailed_token(site, ADA).await.unwrap();
    confirm(site, &to_paula, ContactChoice::Confirm)
        .await
        .unwrap();
    decide(site, &to_ada, ApprovalDecision::Approve, "")
        .await
        .unwrap();
    for (step, kind) in [
        (Kind::Employment, ReviewKind::Employment),
        (Kind::Business, ReviewKind::Business),
    ] {
        submit_step(site, ann, name, step).await;
        settle(&rita.caller, kind, ReviewDecision::Approve).await;
    }
}

/// Submits a draft, and makes it active.
pub async fn submit_and_activate(site: &Site, rita: &Person, ann: &Caller, name: &str) {
    let request = SubmitAccountRequest {
        name: name.to_owned(),
        agreement: Some(consent()),
        signatory_confirmed: true,
        ..SubmitAccountRequest::default()
    };
    ann.accounts().submit_account(request).await.unwrap();
    activate(site, rita, ann, name).await;
}

// proves VER-1, VER-3, VER-4, VER-7, VER-8, ACC-13
#[tokio::test]
async fn an_empty_draft_becomes_active_by_doing_nothing_but_what_its_requirements_say() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin.caller;
        let empty = Account {
            country_code: "FR".to_owned(),
            ..Account::default()
        };
        let made = open(ann, draft_of(empty)).await.unwrap();
        let name = made.account.unwrap().name;
        let mut done = Vec::new();
        while get(ann, &name).await.unwrap().state() != AccountState::Active {
            assert!(done.len() < 40, "{done:?}");
            let due = required(ann, &name).await.unwrap();
            let method = due
                .first()
                .map_or("", |r| r.method.rsplit('/').next().unwrap());
            match method {
                // Nothing is the account's to do: a reviewer has it.
                "" => {
                    let mut found = queue(&rita.caller, ReviewKind::Unspecified, "").await;
                    let found = found.pop().unwrap().name;
                    claim(&rita.caller, &found).await.unwrap();
                    judge(&rita.caller, &found, ReviewDecision::Approve, "So it is.")
                        .await
                        .unwrap();
                }
                "ConfirmContact" => {
                    let token = mailed_token(&site, PAULA).await.unwrap();
                    confirm(&site, &token, ContactChoice::Confirm)
                        .await
                        .unwrap();
                }
                "ConfirmApproval" => {
                    let token = mailed_token(&site, ADA).await.unwrap();
                    decide(&site, &token, ApprovalDecision::Approve, "")
                        .await
                        .unwrap();
                }
                "SubmitStep" => {
                    let step = match due[0].step.as_str() {
                        "EMPLOYMENT" => Kind::Employment,
                        "BUSINESS" => Kind::Business,
                        other => panic!("{other} is no step that is submitted"),
                    };
                    assert_eq!(due[0].attempts_left, None);
                    submit_step(&site, ann, &name, step).await;
                }
                _ => satisfy(ann, &name, &due[0], &whole("Contoso")).await,
            }
            done.push(method.to_owned());
            no_dead_end(ann, &name).await;
        }
        let reviewed = done.iter().filter(|method| method.is_empty()).count();
        assert_eq!(reviewed, 2, "{done:?}");
        assert!(required(ann, &name).await.unwrap().is_empty());
    })
    .await;
}

// proves VER-1, VER-3, VER-4, VER-6, VER-7, VER-8, ACC-8
#[tokio::test]
async fn reviewers_ask_get_and_approve_and_the_account_is_active_with_both_its_mails() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        let dee = site.person(&contoso, "dee").await;
        let fabrikam = site.tenant("fabrikam").await;
        let theirs = site.account(&fabrikam, "Fabrikam").await;
        let paper = document(&site, &name).await;
        let early = submission(&name, Kind::Employment, &[&paper], "");
        refused(
            send(ann, early.clone()).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        confirm(&site, &to_paula, ContactChoice::Confirm)
            .await
            .unwrap();
        use State::{ActionRequired, InProgress, NotStarted, Verified};
        let begun = [Verified, ActionRequired, NotStarted, InProgress];
        assert_eq!(states(ann, &name).await, begun);

        // What is submitted is the account's, by those who may, and has a document.
        for stranger in [&dee.caller, &fabrikam.admin.caller, &rita.caller] {
            denied(send(stranger, early.clone()).await);
            denied(appeal(stranger, &name, Kind::Employment, &[&paper]).await);
        }
        let foreign = document(&site, &theirs).await;
        for (step, documents, reason, field) in [
            (Kind::Employment, vec![], "DOCUMENTS_NEEDED", "documents"),
            (
                Kind::Employment,
                vec![foreign.as_str()],
                "INVALID_FIELDS",
                "documents[0]",
            ),
            (Kind::Email, vec![paper.as_str()], "INVALID_FIELDS", "step"),
        ] {
            let tried = send(ann, submission(&name, step, &documents, "Here.")).await;
            let status = refused(tried, Code::InvalidArgument, reason);
            assert_eq!(fields(&status), [field]);
        }
        refused(
            send(ann, submission(&name, Kind::Business, &[&paper], "")).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let dry = SubmitStepRequest {
            validate_only: true,
            ..early.clone()
        };
        send(ann, dry).await.unwrap();
        assert!(
            queue(&rita.caller, ReviewKind::Employment, "")
                .await
                .is_empty()
        );
        send(ann, early.clone()).await.unwrap();
        assert!(
            no_dead_end(ann, &name)
                .await
                .iter()
                .all(|r| r.step == "APPROVAL")
        );
        // A document is evidence once.
        refused(
            send(ann, early).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );

        let found = waiting(&rita.caller, ReviewKind::Employment).await.name;
        refused(
            judge(&rita.caller, &found, ReviewDecision::Approve, "So it is.").await,
            Code::FailedPrecondition,
            "REVIEW_NOT_CLAIMED",
        );
        claim(&rita.caller, &found).await.unwrap();
        let seen = review(&rita.caller, &found).await.unwrap();
        assert_eq!(seen.documents.len(), 1);
        assert_eq!(seen.documents[0].name, paper);
        let company = seen.company.unwrap();
        assert_eq!(company.primary_contact.unwrap().email, PAULA);
        let tried = judge(&rita.caller, &found, ReviewDecision::Reject, " ").await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["reason"]);
        let tried = judge(&rita.caller, &found, ReviewDecision::Approve, "").await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["reason"]);

        // More is asked for, and brought, as often as it takes.
        for text in ["Your contract, please.", "The second page, please."] {
            claim(&rita.caller, &found).await.unwrap();
            let asked = ask_for(&rita.caller, &found, text).await.unwrap();
            assert_eq!(asked.state(), ReviewState::MoreRequested);
            let due = no_dead_end(ann, &name).await;
            let of_step = due.iter().find(|r| r.step == "EMPLOYMENT").unwrap();
            assert_eq!(of_step.detail, text);
            let step = &verification(ann, &name).await.steps[1];
            assert_eq!((step.state(), step.asked.as_str()), (ActionRequired, text));
            assert_eq!(step.reason_code(), StepReason::MoreRequested);
            assert!(step.method.ends_with("/SubmitStep") && !step.to_do.is_empty());
            assert!(step.last_decision.is_none() && !step.documents.is_empty());
            submit_step(&site, ann, &name, Kind::Employment).await;
        }
        assert_eq!(
            waiting(&rita.caller, ReviewKind::Employment).await.name,
            found
        );
        let seen = review(&rita.caller, &found).await.unwrap();
        assert_eq!(seen.documents.len(), 3);
        let done = settle(
            &rita.caller,
            ReviewKind::Employment,
            ReviewDecision::Approve,
        )
        .await;
        assert_eq!(done.decided_by, rita.name);
        assert_eq!(
            states(ann, &name).await,
            [Verified, Verified, ActionRequired, InProgress]
        );

        // The business is not verified without the approver.
        submit_step(&site, ann, &name, Kind::Business).await;
        settle(&rita.caller, ReviewKind::Business, ReviewDecision::Approve).await;
        assert_eq!(
            states(ann, &name).await,
            [Verified, Verified, InProgress, InProgress]
        );
        assert_eq!(
            methods(&no_dead_end(ann, &name).await)
                .into_iter()
                .collect::<Vec<_>>(),
            ["ConfirmApproval"]
        );
        assert_eq!(
            get(ann, &name).await.unwrap().state(),
            AccountState::Pending
        );
        // The approver sees all of it, and the link stays good.
        let to_ada = mailed_token(&site, ADA).await.unwrap();
        let look = async |token: &str| {
            let token = token.to_owned();
            let request = GetEnrolmentForApprovalRequest { token };
            let mut nobody = site.nobody().verification();
            let done = nobody.get_enrolment_for_approval(request).await;
            done.map(Response::into_inner)
        };
        for _ in 0..2 {
            let seen = look(&to_ada).await.unwrap();
            assert_eq!(seen.legal_name, "Contoso SA");
            assert_eq!(seen.primary_contact.unwrap().email, PAULA);
            assert_eq!(seen.accepted_agreements, ["PARTNER_NETWORK 0"]);
            let signatory = seen.signatory.unwrap();
            assert!(!signatory.display_name.is_empty() && !signatory.user_name.is_empty());
            assert!(signatory.principal.starts_with(&seen.tenants[0].name));
            assert!(!seen.tenants[0].display_name.is_empty());
            assert_eq!(seen.account_type, AccountType::Company as i32);
            assert!(!seen.partner_id.is_empty() && !seen.website_uri.is_empty());
        }
        link_invalid(look("entl_nonsense").await);
        decide(&site, &to_ada, ApprovalDecision::Approve, "")
            .await
            .unwrap();
        link_invalid(look(&to_ada).await);
        assert_eq!(states(ann, &name).await, [Verified; 4]);
        assert_eq!(get(ann, &name).await.unwrap().state(), AccountState::Active);
        let mails = letters(&site).await;
        let to_paula: Vec<_> = mails.iter().filter(|l| l.to == PAULA).collect();
        let about = |text: &str| to_paula.iter().filter(|l| l.text.contains(text)).count();
        assert_eq!((about("Please confirm"), about("is active")), (1, 1));
        assert_eq!(about("Your contract, please."), 1);
        assert_eq!(
            events(&site, "account.v1.AccountStateChanged", &name).await,
            2
        );
        assert_eq!(events(&site, "account.v1.ReviewDecided", &found).await, 1);
    })
    .await;
}

// proves VER-6, VER-7, ACC-13, ATK-23
#[tokio::test]
async fn a_rejection_is_appealed_once_and_another_reviewer_has_it() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        let to_ada = mailed_token(&site, ADA).await.unwrap();
        confirm(&site, &to_paula, ContactChoice::Confirm)
            .await
            .unwrap();
        decide(&site, &to_ada, ApprovalDecision::Approve, "")
            .await
            .unwrap();
        submit_step(&site, ann, &name, Kind::Employment).await;
        settle(&rita.caller, ReviewKind::Employment, ReviewDecision::Reject).await;
        let step = &verification(ann, &name).await.steps[1];
        assert_eq!(
            (step.state(), step.reason.as_str()),
            (State::Rejected, "Because.")
        );
        // What was brought, what was decided, and what is to be done stand with it.
        assert!(step.documents.len() == 1 && !step.documents[0].sha256.is_empty());
        let last = step.last_decision.as_ref().unwrap();
        assert_eq!(last.decision(), ReviewDecision::Reject);
        assert!(last.reason == "Because." && last.decide_time.is_some() && !last.appeal);
        assert!(step.method.ends_with("/AppealDecision") && !step.to_do.is_empty());
        assert!(step.appeal_expire_time.is_some());
        // The operator's people see how far it is, and not what was brought.
        let sam = staff(&site, "sam", OperatorRole::OperatorSupport).await;
        let request = GetAccountSettingsRequest { name: name.clone() };
        let seen = sam.caller.accounts().get_account_settings(request).await;
        let seen = seen.unwrap().into_inner().verification.unwrap();
        assert_eq!(seen.steps[1].state(), State::Rejected);
        assert!(seen.steps[1].documents.is_empty() && seen.steps[1].last_decision.is_none());
        let due = no_dead_end(ann, &name).await;
        assert_eq!(due.len(), 1);
        assert!(due[0].method.ends_with("/AppealDecision") && due[0].deadline.is_some());
        assert_eq!(
            (due[0].attempts_left, due[0].detail.as_str()),
            (Some(1), "Because.")
        );
        // Another contact is no way round it.
        let other = Account {
            name: name.clone(),
            primary_contact: Some(contact("Pia")),
            ..whole("Contoso")
        };
        refused(
            update(ann, other.clone(), &["primary_contact"]).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let tried = appeal(ann, &name, Kind::Employment, &[]).await;
        refused(tried, Code::InvalidArgument, "DOCUMENTS_NEEDED");
        let paper = document(&site, &name).await;
        appeal(ann, &name, Kind::Employment, &[&paper])
            .await
            .unwrap();
        refused(
            appeal(ann, &name, Kind::Employment, &[&paper]).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        // Whoever rejected it has no say, and there is nobody else.
        let found = waiting(&rita.caller, ReviewKind::EmploymentAppeal).await;
        assert!(found.no_other_reviewer);
        refused(
            claim(&rita.caller, &found.name).await,
            Code::PermissionDenied,
            "NO_OTHER_REVIEWER",
        );
        let rob = reviewer(&site, "rob").await;
        let found = waiting(&rita.caller, ReviewKind::EmploymentAppeal).await;
        assert!(!found.no_other_reviewer);
        refused(
            claim(&rita.caller, &found.name).await,
            Code::PermissionDenied,
            "REVIEWER_INVOLVED",
        );
        claim(&rob.caller, &found.name).await.unwrap();
        // More can be asked for of an appeal too.
        ask_for(&rob.caller, &found.name, "A better scan.")
            .await
            .unwrap();
        no_dead_end(ann, &name).await;
        // It is answered also while the account is suspended, as one appeals then.
        let operator = site.operator().await;
        suspend(&operator, &name).await.unwrap();
        assert_eq!(no_dead_end(ann, &name).await.len(), 1);
        let dry = SubmitStepRequest {
            validate_only: true,
            ..submission(&name, Kind::Employment, &[], "As asked.")
        };
        send(ann, dry).await.unwrap();
        reinstate(&operator, &name).await.unwrap();
        submit_step(&site, ann, &name, Kind::Employment).await;
        settle(
            &rob.caller,
            ReviewKind::EmploymentAppeal,
            ReviewDecision::Approve,
        )
        .await;
        no_dead_end(ann, &name).await;
        let step = &verification(ann, &name).await.steps[1];
        let last = step.last_decision.as_ref().unwrap();
        assert!(last.appeal && last.decision() == ReviewDecision::Approve);
        assert_eq!(step.documents.len(), 3);
        assert!(step.to_do.is_empty() && step.method.is_empty());

        // The second one is lost, which is the end.
        submit_step(&site, ann, &name, Kind::Business).await;
        settle(&rob.caller, ReviewKind::Business, ReviewDecision::Reject).await;
        let paper = document(&site, &name).await;
        appeal(ann, &name, Kind::Business, &[&paper]).await.unwrap();
        no_dead_end(ann, &name).await;
        settle(
            &rita.caller,
            ReviewKind::BusinessAppeal,
            ReviewDecision::Reject,
        )
        .await;
        assert_eq!(
            get(ann, &name).await.unwrap().state(),
            AccountState::Rejected
        );
        assert!(no_dead_end(ann, &name).await.is_empty());
        let paper = document(&site, &name).await;
        refused(
            appeal(ann, &name, Kind::Business, &[&paper]).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let mails = letters(&site).await;
        let to_paula = |text: &str| {
            let theirs = mails.iter().filter(|l| l.to == PAULA);
            theirs.filter(|l| l.text.contains(text)).count()
        };
        assert_eq!(to_paula("You can appeal once"), 2);
        assert_eq!(to_paula("was rejected for good"), 1);
        // Not she alone.
        let to_ann = mails.iter().filter(|l| l.to == "ann@contoso.example");
        let to_ann: Vec<_> = to_ann.map(|l| l.text.as_str()).collect();
        for text in ["You can appeal once", "was rejected for good"] {
            assert!(to_ann.iter().any(|l| l.contains(text)), "{text}");
        }
    })
    .await;
}

// proves VER-7, ACC-13, COM-15
#[tokio::test]
async fn a_rejection_that_nobody_appeals_against_is_final_after_thirty_days() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let (contoso, name) = submitted(&site).await;
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        confirm(&site, &to_paula, ContactChoice::Confirm)
            .await
            .unwrap();
        submit_step(&site, &contoso.admin.caller, &name, Kind::Employment).await;
        // The contact is nobody who signs in: it hears in the language of those who run the account, whoever of the operator's decides.
        sign_in_reading(&site, &contoso.admin, "fr").await;
        settle(&rita.caller, ReviewKind::Employment, ReviewDecision::Reject).await;
        let told = async |template: &str, language: &str| {
            let sql = "SELECT COUNT(*) AS n FROM mails WHERE recipient = $1 AND template = $2 AND language = $3";
            number(&site, sql, [PAULA.into(), template.into(), language.into()]).await
        };
        assert_eq!(told("step_rejected", "fr").await, 1);
        site.advance(29 * 86_400).await;
        site.settle().await;
        let ann = again(&site, &contoso.admin).await;
        assert_eq!(
            get(&ann, &name).await.unwrap().state(),
            AccountState::Pending
        );
        // The other link ran out meanwhile, and can be mailed so often.
        let due = no_dead_end(&ann, &name).await;
        let mails = due.iter().find(|r| r.step == "APPROVAL").unwrap();
        let left = mails.attempts_left.unwrap();
        resend(&ann, &name, Kind::Approval).await.unwrap();
        sign_in_reading(&site, &contoso.admin, "fr").await;
        site.advance(8 * 86_400).await;
        site.settle().await;
        assert_eq!(told("account_rejected", "fr").await, 1);
        let ann = again(&site, &contoso.admin).await;
        assert_eq!(
            get(&ann, &name).await.unwrap().state(),
            AccountState::Rejected
        );
        assert!(left > 0 && no_dead_end(&ann, &name).await.is_empty());
    })
    .await;
}

// proves VER-5, VER-7, ACC-13
#[tokio::test]
async fn an_active_account_that_is_refused_anew_stays_active_until_an_appeal_is_lost() {
    both(async |site| {
        let (rita, rob) = (reviewer(&site, "rita").await, reviewer(&site, "rob").await);
        let (contoso, name) = active(&site, &rita).await;
        let ann = &contoso.admin.caller;
        let renamed = Account {
            name: name.clone(),
            legal_name: "Contoso Holding SA".to_owned(),
            ..whole("Contoso")
        };
        update(ann, renamed, &["legal_name"]).await.unwrap();
        submit_step(&site, ann, &name, Kind::Business).await;
        settle(&rita.caller, ReviewKind::Business, ReviewDecision::Reject).await;
        no_dead_end(ann, &name).await;
        let refusals = letters(&site).await;
        let to_paula = refusals.iter().rfind(|l| l.to == PAULA).unwrap();
        assert!(to_paula.text.contains("stays active"));
        // Neither time, nor a time that was given before it was decided so, ends it.
        site.advance(20 * 86_400).await;
        let given = format!(
            "UPDATE verification_steps SET appeal_until = 1 WHERE kind = 3 AND account_id = {}",
            literal(&site, &name)
        );
        execute(&site.app, &given).await.unwrap();
        site.advance(20 * 86_400).await;
        let timed = "SELECT COUNT(*) AS n FROM verification_steps WHERE appeal_until IS NOT NULL";
        eventually(async || {
            site.settle().await;
            number(&site, timed, []).await == 0
        })
        .await;
        let ann = again(&site, &contoso.admin).await;
        assert_eq!(no_dead_end(&ann, &name).await.len(), 1);
        let still = get(&ann, &name).await.unwrap();
        assert_eq!(still.state(), AccountState::Active);
        assert!(still.reverifying, "payouts wait");
        let due = &no_dead_end(&ann, &name).await[0];
        assert_eq!(due.code(), RequirementCode::Appeal);
        assert_eq!(due.blocks(), RequirementBlock::Payout);
        assert_eq!((due.deadline, due.attempts_left), (None, Some(1)));
        let step = &verification(&ann, &name).await.steps[2];
        assert_eq!(step.state(), State::Rejected);
        assert_eq!(step.appeal_expire_time, None);

        let paper = document(&site, &name).await;
        appeal(&ann, &name, Kind::Business, &[&paper])
            .await
            .unwrap();
        let tried = appeal(&ann, &name, Kind::Business, &[&paper]).await;
        refused(tried, Code::FailedPrecondition, "WRONG_STATE");
        let rob = again(&site, &rob).await;
        settle(&rob, ReviewKind::BusinessAppeal, ReviewDecision::Reject).await;
        let lost = get(&ann, &name).await.unwrap();
        assert_eq!(lost.state(), AccountState::Rejected);
    })
    .await;
}

// proves VER-6, ATK-23
#[tokio::test]
async fn the_operators_own_account_needs_two_reviewers() {
    both(async |site| {
        let (rita, rob) = (reviewer(&site, "rita").await, reviewer(&site, "rob").await);
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        let sql = format!(
            "INSERT INTO associations (account_id, tenant_id, display_name_fold, create_time, version) VALUES ({}, {}, 'operator', 1, 1)",
            literal(&site, &name),
            literal(&site, &operator_tenant(&site).await.name),
        );
        execute(&site.app, &sql).await.unwrap();
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        confirm(&site, &to_paula, ContactChoice::Confirm)
            .await
            .unwrap();
        submit_step(&site, ann, &name, Kind::Employment).await;
        let once = settle(&rita.caller, ReviewKind::Employment, ReviewDecision::Approve).await;
        assert_eq!(once.state(), ReviewState::Waiting);
        assert_eq!((once.approvals_needed, &once.first_approved_by), (2, &rita.name));
        assert_eq!(states(ann, &name).await[1], State::InProgress);
        refused(
            claim(&rita.caller, &once.name).await,
            Code::PermissionDenied,
            "REVIEWER_INVOLVED",
        );
        let twice = settle(&rob.caller, ReviewKind::Employment, ReviewDecision::Approve).await;
        assert_eq!(twice.state(), ReviewState::Decided);
        assert_eq!(states(ann, &name).await[1], State::Verified);
    })
    .await;
}

// proves VER-5
#[tokio::test]
async fn what_was_verified_and_changes_is_verified_anew_while_the_account_stays_active() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let (contoso, name) = active(&site, &rita).await;
        let ann = &contoso.admin.caller;
        let before = get(ann, &name).await.unwrap();
        assert!(!before.reverifying && before.reverified_steps.is_empty());
        let changed = |how: &dyn Fn(&mut Account)| {
            let mut account = before.clone();
            how(&mut account);
            account
        };
        let cases: [(&str, Account, &[Kind]); 4] = [
            (
                "legal_name",
                changed(&|a| a.legal_name = "Contoso Holding SA".to_owned()),
                &[Kind::Business],
            ),
            (
                "address",
                changed(&|a| a.address.as_mut().unwrap().locality = "Lyon".to_owned()),
                &[Kind::Business],
            ),
            (
                "primary_contact",
                changed(&|a| a.primary_contact = Some(contact("Pia"))),
                &[Kind::Email, Kind::Employment],
            ),
            (
                "company_approver",
                changed(&|a| a.company_approver = Some(contact("Alma"))),
                &[Kind::Business, Kind::Approval],
            ),
        ];
        // It is told before anything is saved.
        for (path, account, steps) in &cases {
            let request = UpdateAccountRequest {
                account: Some(account.clone()),
                update_mask: Some(mask(&[path])),
                validate_only: true,
                ..UpdateAccountRequest::default()
            };
            let told = ann.accounts().update_account(request).await.unwrap();
            let told = told.into_inner();
            assert!(told.reverifying, "{path}");
            assert_eq!(
                told.reverified_steps().collect::<Vec<_>>(),
                *steps,
                "{path}"
            );
            assert_eq!(told.state(), AccountState::Active);
        }
        assert_eq!(get(ann, &name).await.unwrap(), before);
        let seller = changed(&|a| {
            let seller = a.seller_contact.as_mut().unwrap();
            seller.contact = Some(contact("Sven"));
        });
        let told = update(ann, seller, &["seller_contact"]).await.unwrap();
        assert!(!told.reverifying);

        // All four at once, then step by step.
        let all = changed(&|a| {
            a.legal_name = "Contoso Holding SA".to_owned();
            a.primary_contact = Some(contact("Pia"));
            a.company_approver = Some(contact("Alma"));
        });
        let paths = ["legal_name", "primary_contact", "company_approver"];
        let told = update(ann, all.clone(), &paths).await.unwrap();
        assert_eq!(told.reverified_steps.len(), 4);
        let due = no_dead_end(ann, &name).await;
        assert!(due.len() == 2 && due.iter().all(|r| r.blocks() == RequirementBlock::Payout));
        // A contact who has nothing to do with it stops nothing, and is replaced.
        let to_pia = mailed_token(&site, "pia@contoso.example").await.unwrap();
        confirm(&site, &to_pia, ContactChoice::NotOurs)
            .await
            .unwrap();
        assert_eq!(get(ann, &name).await.unwrap().state(), AccountState::Active);
        no_dead_end(ann, &name).await;
        let petra = Account {
            primary_contact: Some(contact("Petra")),
            ..all.clone()
        };
        update(ann, petra, &["primary_contact"]).await.unwrap();
        let to_petra = mailed_token(&site, "petra@contoso.example").await.unwrap();
        confirm(&site, &to_petra, ContactChoice::Confirm)
            .await
            .unwrap();
        submit_step(&site, ann, &name, Kind::Employment).await;
        settle(
            &rita.caller,
            ReviewKind::Employment,
            ReviewDecision::Approve,
        )
        .await;
        submit_step(&site, ann, &name, Kind::Business).await;
        // What is changed under a reviewer's hands is void.
        let found = waiting(&rita.caller, ReviewKind::Business).await.name;
        claim(&rita.caller, &found).await.unwrap();
        let again = Account {
            legal_name: "Contoso Group SA".to_owned(),
            ..all
        };
        update(ann, again, &["legal_name"]).await.unwrap();
        refused(
            judge(&rita.caller, &found, ReviewDecision::Approve, "So it is.").await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        no_dead_end(ann, &name).await;
        submit_step(&site, ann, &name, Kind::Business).await;
        settle(&rita.caller, ReviewKind::Business, ReviewDecision::Approve).await;
        let still = get(ann, &name).await.unwrap();
        assert_eq!(still.reverified_steps().count(), 2);
        let to_alma = mailed_token(&site, "alma@contoso.example").await.unwrap();
        decide(&site, &to_alma, ApprovalDecision::Approve, "")
            .await
            .unwrap();
        let after = get(ann, &name).await.unwrap();
        assert!(!after.reverifying && after.state() == AccountState::Active);
        assert!(no_dead_end(ann, &name).await.is_empty());
    })
    .await;
}

async fn close(caller: &Caller, name: &str, validate_only: bool) -> Result<Account, Status> {
    let request = CloseAccountRequest {
        name: name.to_owned(),
        validate_only,
        ..CloseAccountRequest::default()
    };
    let done = caller.accounts().close_account(request).await;
    done.map(Response::into_inner)
}

// proves ACC-13, ACC-7
#[tokio::test]
async fn an_account_is_closed_for_good_and_its_name_and_id_are_nobodys() {
    both(async |site| {
        let operator = site.operator().await;
        let rita = reviewer(&site, "rita").await;
        let sam = staff(&site, "sam", OperatorRole::OperatorSupport).await;
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        confirm(&site, &to_paula, ContactChoice::Confirm)
            .await
            .unwrap();
        submit_step(&site, ann, &name, Kind::Employment).await;
        let owner = identity(&site, "olga@new.example").await;
        let sql = format!(
            "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
             display_name_fold, create_time, update_time, version) VALUES (2, {}, {}, 3, {}, {}, '', '', 'o', 1, 1, 1)",
            literal(&site, &name),
            literal(&site, &owner.name),
            literal(&site, "tenants/00000000-0000-0000-0000-000000000000"),
            entente::access::grants::OWNER,
        );
        execute(&site.app, &sql).await.unwrap();
        // Managers don't, nor who reviews or looks on.
        for caller in [ann, &rita.caller, &sam.caller] {
            denied(close(caller, &name, false).await);
        }
        let before = get(ann, &name).await.unwrap();
        let told = close(&owner.caller, &name, true).await.unwrap();
        assert_eq!(told.state(), AccountState::Closed);
        assert_eq!(get(ann, &name).await.unwrap(), before);
        let closed = close(&owner.caller, &name, false).await.unwrap();
        assert_eq!(closed.seller_id, before.seller_id);
        // It is read still, and nothing else; nobody has it to review.
        assert_eq!(get(ann, &name).await.unwrap().state(), AccountState::Closed);
        assert!(queue(&rita.caller, ReviewKind::Unspecified, "").await.is_empty());
        assert!(requirements(ann, &name).await.is_empty());
        let to_ada = mailed_token(&site, ADA).await.unwrap();
        link_invalid(decide(&site, &to_ada, ApprovalDecision::Approve, "").await);
        for caller in [&owner.caller, &operator] {
            refused(
                close(caller, &name, false).await,
                Code::FailedPrecondition,
                "WRONG_STATE",
            );
        }
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let tried = open(&fabrikam.admin.caller, draft_of(whole("C\u{43e}ntoso"))).await;
        refused(tried, Code::AlreadyExists, "PUBLISHER_NAME_TAKEN");
        let mails = letters(&site).await;
        for to in ["olga@new.example", "ann@contoso.example", PAULA] {
            let theirs = mails.iter().filter(|l| l.to == to);
            let told = theirs.filter(|l| l.text.contains("was closed for good"));
            assert_eq!(told.count(), 1, "{to}");
        }
        // By the operator too, an active one.
        let active = site.account(&fabrikam, "Fabrikam").await;
        denied(close(&fabrikam.admin.caller, &active, false).await);
        let closed = close(&operator, &active, false).await.unwrap();
        assert_eq!(closed.state(), AccountState::Closed);
        assert_eq!(events(&site, "account.v1.AccountClosed", &active).await, 1);
        // A draft goes altogether: nothing was given yet that had to stay.
        let northwind = member_tenant(&site, "northwind").await;
        let made = open(&northwind.admin.caller, draft_of(whole("Northwind"))).await;
        let draft = made.unwrap().account.unwrap().name;
        denied(close(&northwind.admin.caller, &draft, false).await);
        close(&operator, &draft, true).await.unwrap();
        assert!(get(&northwind.admin.caller, &draft).await.is_ok());
        close(&operator, &draft, false).await.unwrap();
        denied(get(&northwind.admin.caller, &draft).await);
        let again = open(&northwind.admin.caller, draft_of(whole("Northwind"))).await;
        again.unwrap();
        let missing = format!("accounts/{}", request_id());
        refused(
            close(&operator, &missing, false).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        denied(close(&owner.caller, &missing, false).await);
    })
    .await;
}

// proves VER-3
#[tokio::test]
async fn a_verified_domain_of_an_associated_tenant_proves_employment_also_later() {
    with_dns(async |site, names| {
        let rita = reviewer(&site, "rita").await;
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        confirm(&site, &to_paula, ContactChoice::Confirm)
            .await
            .unwrap();
        assert_eq!(states(ann, &name).await[1], State::ActionRequired);
        submit_step(&site, ann, &name, Kind::Employment).await;
        let found = waiting(&rita.caller, ReviewKind::Employment).await.name;
        verified(&names, &contoso, "contoso.example").await;
        eventually(async || {
            site.settle().await;
            states(ann, &name).await[1] == State::Verified
        })
        .await;
        let withdrawn = review(&rita.caller, &found).await.unwrap();
        assert_eq!(withdrawn.decision(), ReviewDecision::Withdrawn);
        no_dead_end(ann, &name).await;
        // The next contact's is proven at once.
        let other = Account {
            name: name.clone(),
            primary_contact: Some(contact("Pia")),
            ..whole("Contoso")
        };
        update(ann, other, &["primary_contact"]).await.unwrap();
        assert_eq!(states(ann, &name).await[1], State::NotStarted);
        let to_pia = mailed_token(&site, "pia@contoso.example").await.unwrap();
        confirm(&site, &to_pia, ContactChoice::Confirm)
            .await
            .unwrap();
        assert_eq!(states(ann, &name).await[1], State::Verified);
        // Another company's domain says nothing of this one.
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let fay = &fabrikam.admin.caller;
        let made = open(fay, all_in_one(whole("Fabrikam"))).await.unwrap();
        let theirs = made.account.unwrap().name;
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        confirm(&site, &to_paula, ContactChoice::Confirm)
            .await
            .unwrap();
        site.settle().await;
        assert_eq!(states(fay, &theirs).await[1], State::ActionRequired);
    })
    .await;
}

// proves VER-4
#[tokio::test]
async fn a_register_that_knows_the_company_verifies_its_business_and_else_documents_do() {
    for database in [Database::Sqlite, Database::Postgres] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lei.csv");
        let header = "LEI,Entity.LegalName,Entity.LegalAddress.Country,Entity.LegalAddress.PostalCode,Entity.EntityStatus,Registration.RegistrationStatus";
        let record = "529900CONTOSO0000001,CONTOSO S.A.,FR,75008,ACTIVE,ISSUED";
        std::fs::write(&file, format!("{header}\n{record}\n")).unwrap();
        let configured = Some(file.clone());
        let site = Site::open_with(database, move |config| config.gleif_file = configured).await;
        let rita = reviewer(&site, "rita").await;
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        let to_ada = mailed_token(&site, ADA).await.unwrap();
        confirm(&site, &to_paula, ContactChoice::Confirm)
            .await
            .unwrap();
        submit_step(&site, ann, &name, Kind::Employment).await;
        settle(
            &rita.caller,
            ReviewKind::Employment,
            ReviewDecision::Approve,
        )
        .await;
        // Known, but not before the approver approved.
        let answered = "account.v1.RegisterAnswered";
        eventually(async || {
            site.settle().await;
            events(&site, answered, &name).await == 1
        })
        .await;
        assert_eq!(states(ann, &name).await[2], State::InProgress);
        decide(&site, &to_ada, ApprovalDecision::Approve, "")
            .await
            .unwrap();
        assert_eq!(get(ann, &name).await.unwrap().state(), AccountState::Active);
        // Under another name the register doesn't know it, nor if it can't be read: then there are documents.
        for legal_name in ["Contoso Holding SA", "Contoso Group SA"] {
            let renamed = Account {
                name: name.clone(),
                legal_name: legal_name.to_owned(),
                ..whole("Contoso")
            };
            update(ann, renamed, &["legal_name"]).await.unwrap();
            eventually(async || {
                site.settle().await;
                states(ann, &name).await[2] == State::ActionRequired
            })
            .await;
            no_dead_end(ann, &name).await;
            std::fs::remove_file(&file).ok();
        }
    }
}

// proves ACC-6, VER-7
#[tokio::test]
async fn enrolment_stays_unfinished_while_nobody_holds_admin_agent() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin.caller;
        let made = open(ann, draft_of(whole("Contoso"))).await.unwrap();
        let name = made.account.unwrap().name;
        let terms = AgreementKind::PartnerNetwork;
        accept(ann, &name, terms, 0).await.unwrap();
        let agents = async |block: RequirementBlock| {
            let due = required(ann, &name).await.unwrap();
            let due = due
                .iter()
                .filter(|r| r.code() == RequirementCode::AdminAgent);
            due.filter(|r| r.blocks() == block).count()
        };
        let (bea, dee) = (
            site.person(&contoso, "bea").await,
            site.person(&contoso, "dee").await,
        );
        let agent = [AccountRole::AdminAgent];
        drop_rights(&contoso.admin, &name, rights(&agent))
            .await
            .unwrap();
        assert_eq!(agents(RequirementBlock::Submission).await, 1);
        let status = refused(
            submit(ann, &name).await,
            Code::FailedPrecondition,
            "ENROLMENT_INCOMPLETE",
        );
        assert!(fields(&status).contains(&"admin_agent".to_owned()));
        add(ann, &name, &[&bea], &agent).await.unwrap();
        submit(ann, &name).await.unwrap();

        // Verified in all, it waits for one; soon after there is, it is active, and the contact hears of it.
        remove(ann, &name, &[&bea.member_of(&name)], false)
            .await
            .unwrap();
        assert_eq!(agents(RequirementBlock::Activation).await, 1);
        prove(&site, &rita, ann, &name).await;
        site.settle().await;
        assert_eq!(
            get(ann, &name).await.unwrap().state(),
            AccountState::Pending
        );
        add(ann, &name, &[&dee], &agent).await.unwrap();
        site.advance(120).await;
        eventually(async || get(ann, &name).await.unwrap().state() == AccountState::Active).await;
        let mails = letters(&site).await;
        let told = mails.iter().filter(|l| l.to == PAULA);
        assert!(told.filter(|l| l.text.contains("is active")).count() >= 1);
    })
    .await;
}

// proves AGR-3, VER-7
#[tokio::test]
async fn an_amended_agreement_comes_first_with_the_date_of_the_first_that_was_missed() {
    both(async |site| {
        let operator = site.operator().await;
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin.caller;
        let kind = AgreementKind::PartnerNetwork;
        let day = 86_400;
        accept(ann, &account, kind, 0).await.unwrap();
        let start = now(&site).await;
        let amended = version(kind, None, Some(start + 40 * day));
        let dated = publish(&operator, amended).await.unwrap().version;
        let due = required(ann, &account).await.unwrap();
        assert_eq!(due[0].code(), RequirementCode::Agreement);
        assert_eq!(due[0].blocks(), RequirementBlock::Covered);
        assert_eq!(due[0].deadline.as_ref().unwrap().seconds, start + 40 * day);
        // A later version without a date doesn't take that one's away.
        let later = publish(&operator, version(kind, None, None)).await;
        let later = later.unwrap().version;
        assert!(later > dated);
        let due = required(ann, &account).await.unwrap();
        assert_eq!(due[0].deadline.as_ref().unwrap().seconds, start + 40 * day);
        accept(ann, &account, kind, later).await.unwrap();
        assert!(required(ann, &account).await.unwrap().is_empty());
    })
    .await;
}
