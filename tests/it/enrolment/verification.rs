//! VerificationService: what is asked by mail, and drafts that wait.

use std::collections::BTreeSet;

use entente::proto::{
    account::{
        Account, AccountState, ApprovalDecision, AskGlobalAdminRequest, ConfirmApprovalRequest,
        ConfirmApprovalResponse, ConfirmContactRequest, ConfirmContactResponse, ContactChoice,
        GetVerificationRequest, ListRequirementsRequest, Requirement,
        ResendVerificationMailRequest, Verification, VerificationStepKind as Kind,
        VerificationStepReason as StepReason, VerificationStepState as State,
    },
    operator::OperatorRole,
};
use tonic::{Code, Response, Status};

use super::{
    all_in_one, consent, draft_of, get, member_tenant, open, required, submit, update, whole,
};
use crate::{
    agreements::accept,
    claims::count,
    documents::evidence,
    harness::{Caller, Database, Site, TenantSite, both, fields, refused},
    network::{contact, join, new_membership},
    people::{
        again, denied, events, identity, letters, link_invalid, mailed_token, second_admin, staff,
    },
};

pub const PAULA: &str = "paula@contoso.example";
pub const ADA: &str = "ada@contoso.example";

pub async fn verification(caller: &Caller, name: &str) -> Verification {
    let name = name.to_owned();
    let request = GetVerificationRequest { name };
    let done = caller.verification().get_verification(request).await;
    done.unwrap().into_inner()
}

/// The states of the three steps, and of the approver's decision.
pub async fn states(caller: &Caller, name: &str) -> [State; 4] {
    let told = verification(caller, name).await;
    let of = |i: usize| told.steps[i].state();
    [of(0), of(1), of(2), told.approval.as_ref().unwrap().state()]
}

pub async fn confirm(
    site: &Site,
    token: &str,
    choice: ContactChoice,
) -> Result<ConfirmContactResponse, Status> {
    let request = ConfirmContactRequest {
        token: token.to_owned(),
        choice: choice as i32,
        ..ConfirmContactRequest::default()
    };
    let done = site.nobody().verification().confirm_contact(request).await;
    done.map(Response::into_inner)
}

pub async fn decide(
    site: &Site,
    token: &str,
    decision: ApprovalDecision,
    reason: &str,
) -> Result<ConfirmApprovalResponse, Status> {
    let request = ConfirmApprovalRequest {
        token: token.to_owned(),
        decision: decision as i32,
        reason: reason.to_owned(),
        ..ConfirmApprovalRequest::default()
    };
    let done = site.nobody().verification().confirm_approval(request).await;
    done.map(Response::into_inner)
}

pub async fn resend(caller: &Caller, name: &str, step: Kind) -> Result<Verification, Status> {
    let request = ResendVerificationMailRequest {
        name: name.to_owned(),
        step: step as i32,
        ..ResendVerificationMailRequest::default()
    };
    let done = caller
        .verification()
        .resend_verification_mail(request)
        .await;
    done.map(Response::into_inner)
}

pub async fn requirements(caller: &Caller, name: &str) -> Vec<Requirement> {
    let parent = name.to_owned();
    let request = ListRequirementsRequest { parent };
    let done = caller.verification().list_requirements(request).await;
    done.unwrap().into_inner().requirements
}

/// The last parts of the methods that requirements name.
pub fn methods(all: &[Requirement]) -> BTreeSet<&str> {
    let last = |r: &'_ Requirement| r.method.rsplit('/').next().unwrap().len();
    all.iter()
        .map(|r| &r.method[r.method.len() - last(r)..])
        .collect()
}

pub async fn submitted(site: &Site) -> (TenantSite, String) {
    let contoso = member_tenant(site, "contoso").await;
    let made = open(&contoso.admin.caller, all_in_one(whole("Contoso")))
        .await
        .unwrap();
    (contoso, made.account.unwrap().name)
}

// proves VER-1, VER-2, VER-7, VER-8, ACC-8, ACC-10
#[tokio::test]
async fn contact_and_approver_are_asked_by_mail_and_answer_once() {
    both(async |site| {
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        use State::{ActionRequired, InProgress, NotStarted, Verified};
        let begun = [InProgress, NotStarted, NotStarted, InProgress];
        assert_eq!(states(ann, &name).await, begun);
        let due = requirements(ann, &name).await;
        let asked = BTreeSet::from(["ConfirmApproval", "ConfirmContact"]);
        assert_eq!(methods(&due), asked);
        assert!(due.iter().all(|r| r.deadline.is_some()));
        assert_eq!(due, required(ann, &name).await.unwrap());

        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        let to_ada = mailed_token(&site, ADA).await.unwrap();
        let mails = letters(&site).await;
        let one = mails.iter().find(|l| l.to == ADA).unwrap();
        assert!(one.text.contains("Contoso SA") && one.text.contains("Paula"));
        // Each token for its own question.
        link_invalid(confirm(&site, &to_ada, ContactChoice::Confirm).await);
        link_invalid(decide(&site, &to_paula, ApprovalDecision::Approve, "").await);
        // The business step is not verified by an approval alone.
        let done = decide(&site, &to_ada, ApprovalDecision::Approve, "").await;
        assert_eq!(done.unwrap().step.unwrap().state(), Verified);
        let approved = [InProgress, NotStarted, NotStarted, Verified];
        assert_eq!(states(ann, &name).await, approved);
        // At once and again: one answer counts.
        let tries = (0..8).map(|_| confirm(&site, &to_paula, ContactChoice::Confirm));
        let done = futures_util::future::join_all(tries).await;
        assert_eq!(done.iter().filter(|d| d.is_ok()).count(), 1);
        for lost in done.into_iter().filter(Result::is_err) {
            link_invalid(lost);
        }
        assert_eq!(
            states(ann, &name).await,
            [Verified, ActionRequired, NotStarted, Verified]
        );
        let due = requirements(ann, &name).await;
        assert_eq!(methods(&due), BTreeSet::from(["SubmitStep"]));
        assert_eq!(
            get(ann, &name).await.unwrap().state(),
            AccountState::Pending
        );
        assert_eq!(
            events(&site, "account.v1.VerificationStepChanged", &name).await,
            3
        );
        refused(
            resend(ann, &name, Kind::Email).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
    })
    .await;
}

// proves VER-2
#[tokio::test]
async fn a_contact_who_disowns_the_enrolment_stops_it() {
    both(async |site| {
        let rita = staff(&site, "rita", OperatorRole::OperatorReviewer).await;
        assert!(!rita.name.is_empty());
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        let to_ada = mailed_token(&site, ADA).await.unwrap();
        let done = confirm(&site, &to_paula, ContactChoice::NotOurs).await;
        let step = done.unwrap().step.unwrap();
        assert_eq!(
            (step.state(), step.reason_code(), step.reason.as_str()),
            (State::Rejected, StepReason::NotOurs, "")
        );
        assert_eq!(get(ann, &name).await.unwrap().state(), AccountState::Draft);
        // Nobody is asked about it any more.
        link_invalid(decide(&site, &to_ada, ApprovalDecision::Approve, "").await);
        let told: Vec<_> = letters(&site).await;
        for to in ["ann@contoso.example", "rita@operator.example"] {
            let theirs = told.iter().filter(|l| l.to == to);
            assert_eq!(theirs.filter(|l| l.text.contains(&name)).count(), 1, "{to}");
        }
        // Another contact, submitted anew: asked anew.
        let other = Account {
            name: name.clone(),
            primary_contact: Some(contact("Pia")),
            ..whole("Contoso")
        };
        update(ann, other, &["primary_contact"]).await.unwrap();
        submit(ann, &name).await.unwrap();
        let to_pia = mailed_token(&site, "pia@contoso.example").await.unwrap();
        confirm(&site, &to_pia, ContactChoice::Confirm)
            .await
            .unwrap();
        assert_eq!(states(ann, &name).await[0], State::Verified);
    })
    .await;
}

// proves VER-2, VER-7, VER-8
#[tokio::test]
async fn links_run_out_and_are_mailed_anew_and_others_are_asked_instead() {
    both(async |site| {
        let (contoso, name) = submitted(&site).await;
        let dee = site.person(&contoso, "dee").await;
        let first = mailed_token(&site, PAULA).await.unwrap();
        site.advance(7 * 86_400 + 1).await;
        let ann = again(&site, &contoso.admin).await;
        link_invalid(confirm(&site, &first, ContactChoice::Confirm).await);
        assert_eq!(states(&ann, &name).await[0], State::ActionRequired);
        let told = verification(&ann, &name).await;
        for step in told.steps.iter().take(1).chain(&told.approval) {
            assert_eq!(step.reason_code(), StepReason::LinkExpired);
            assert!(step.method.ends_with("/ResendVerificationMail") && !step.to_do.is_empty());
        }
        let due = requirements(&ann, &name).await;
        assert_eq!(methods(&due), BTreeSet::from(["ResendVerificationMail"]));
        for step in [Kind::Email, Kind::Approval] {
            resend(&ann, &name, step).await.unwrap();
        }
        let status = refused(
            resend(&ann, &name, Kind::Business).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["step"]);
        denied(resend(&again(&site, &dee).await, &name, Kind::Email).await);
        assert_eq!(states(&ann, &name).await[0], State::InProgress);
        let second = mailed_token(&site, PAULA).await.unwrap();
        assert_ne!(first, second);

        // A refusal says why, and another approver may decide otherwise.
        let to_ada = mailed_token(&site, ADA).await.unwrap();
        let tried = decide(&site, &to_ada, ApprovalDecision::Refuse, " ").await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["reason"]);
        decide(&site, &to_ada, ApprovalDecision::Refuse, "Not now.")
            .await
            .unwrap();
        let told = verification(&ann, &name).await.approval.unwrap();
        assert_eq!(
            (told.state(), told.reason_code(), told.reason.as_str()),
            (State::Rejected, StepReason::Refused, "Not now.")
        );
        let due = requirements(&ann, &name).await;
        assert_eq!(
            methods(&due),
            BTreeSet::from(["ConfirmContact", "UpdateAccount"])
        );
        let others = Account {
            name: name.clone(),
            primary_contact: Some(contact("Pia")),
            company_approver: Some(contact("Alma")),
            ..whole("Contoso")
        };
        let paths = ["primary_contact", "company_approver"];
        update(&ann, others, &paths).await.unwrap();
        link_invalid(confirm(&site, &second, ContactChoice::Confirm).await);
        let to_pia = mailed_token(&site, "pia@contoso.example").await.unwrap();
        let to_alma = mailed_token(&site, "alma@contoso.example").await.unwrap();
        confirm(&site, &to_pia, ContactChoice::Confirm)
            .await
            .unwrap();
        decide(&site, &to_alma, ApprovalDecision::Approve, "")
            .await
            .unwrap();
        let all = states(&ann, &name).await;
        assert_eq!((all[0], all[3]), (State::Verified, State::Verified));
    })
    .await;
}

// proves VER-2, VER-5
#[tokio::test]
async fn mails_to_whom_an_account_names_are_bounded_as_those_that_are_mailed_anew() {
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::open_with(database, |c| c.limits_factor = 1).await;
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        let named = async |who: &str| {
            let account = Account {
                name: name.clone(),
                primary_contact: Some(contact(who)),
                ..whole("Contoso")
            };
            update(ann, account, &["primary_contact"]).await
        };
        for _ in 0..5 {
            named("Pia").await.unwrap();
            named("Petra").await.unwrap();
        }
        let code = Code::ResourceExhausted;
        refused(named("Pia").await, code, "TOO_MANY_CALLS");
        let still = get(ann, &name).await.unwrap().primary_contact.unwrap();
        assert_eq!(still.email, "petra@contoso.example");
        // Both ways count as one.
        refused(
            resend(ann, &name, Kind::Email).await,
            code,
            "TOO_MANY_CALLS",
        );
        named("Pim").await.unwrap();
    }
}

// proves ACC-1
#[tokio::test]
async fn anyone_of_a_tenant_asks_its_admins_without_seeing_them() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let dee = site.person(&contoso, "dee").await;
        let request = AskGlobalAdminRequest::default();
        let mut accounts = dee.caller.accounts();
        accounts.ask_global_admin(request.clone()).await.unwrap();
        let mails = letters(&site).await;
        let asked = mails.iter().filter(|l| l.text.contains("Given dee"));
        let asked: Vec<_> = asked.map(|l| l.to.as_str()).collect();
        assert_eq!(asked, ["ann@contoso.example"]);
        let ida = identity(&site, "ida@new.example").await;
        refused(
            ida.caller.accounts().ask_global_admin(request).await,
            Code::PermissionDenied,
            "PEOPLE_ONLY",
        );
    })
    .await;
}

// proves ACC-13
#[tokio::test]
async fn a_draft_that_nobody_touches_is_told_of_then_removed_and_its_name_is_free() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin;
        let made = open(&ann.caller, draft_of(whole("Contoso"))).await.unwrap();
        let name = made.account.unwrap().name;
        accept(
            &ann.caller,
            &name,
            entente::proto::access::AgreementKind::PartnerNetwork,
            consent().version,
        )
        .await
        .unwrap();
        let mails = async || {
            let all = letters(&site).await;
            all.iter().filter(|l| l.text.contains(&name)).count()
        };
        site.advance(89 * 86_400).await;
        assert_eq!(mails().await, 0);
        site.advance(2 * 86_400).await;
        assert_eq!(mails().await, 1);
        // Touched, it stays.
        let caller = again(&site, ann).await;
        let touched = Account {
            name: name.clone(),
            ..whole("Contoso")
        };
        update(&caller, touched, &["legal_name"]).await.unwrap();
        site.advance(30 * 86_400).await;
        site.settle().await;
        assert!(get(&again(&site, ann).await, &name).await.is_ok());
        site.advance(61 * 86_400).await;
        assert_eq!(mails().await, 2);
        // What is done for it counts too, though its row doesn't change.
        evidence(&site, &again(&site, ann).await, &name).await;
        site.advance(16 * 86_400).await;
        site.settle().await;
        assert!(get(&again(&site, ann).await, &name).await.is_ok());
        site.advance(75 * 86_400).await;
        assert_eq!(mails().await, 3);
        site.advance(13 * 86_400).await;
        site.settle().await;
        assert!(get(&again(&site, ann).await, &name).await.is_ok());
        site.advance(2 * 86_400).await;
        site.settle().await;
        let caller = again(&site, ann).await;
        denied(get(&caller, &name).await);
        assert_eq!(events(&site, "account.v1.DraftRemoved", &name).await, 1);
        // Its documents go, also those that were attached to something.
        let documents = "SELECT COUNT(*) AS n FROM documents";
        assert_eq!(count(&site.app, documents).await, 0);
        // Its members hear of it, and hold nothing there any more.
        let member = ann.member_of(&name);
        assert_eq!(events(&site, "account.v1.MemberRemoved", &member).await, 1);
        let held = "SELECT COUNT(*) AS n FROM grants WHERE scope_kind = 2";
        assert_eq!(count(&site.app, held).await, 0);
        // Name and membership are free; what was accepted is kept.
        let made = open(&caller, draft_of(whole("Contoso"))).await.unwrap();
        assert_ne!(made.account.unwrap().name, name);
        let kept = "SELECT COUNT(*) AS n FROM acceptances";
        assert_eq!(count(&site.app, kept).await, 1);

        // Whoever has joined anew meanwhile keeps that membership alone.
        join(&caller, new_membership("Contoso Two")).await.unwrap();
        site.advance(91 * 86_400).await;
        site.settle().await;
        site.advance(15 * 86_400).await;
        site.settle().await;
        let left = "SELECT COUNT(*) AS n FROM network_memberships";
        assert_eq!(count(&site.app, left).await, 1);
        let drafts = "SELECT COUNT(*) AS n FROM accounts";
        assert_eq!(count(&site.app, drafts).await, 0);
    })
    .await;
}

// proves ACC-13, VER-2
#[tokio::test]
async fn a_draft_that_was_handed_in_meanwhile_is_not_removed_when_it_comes_back() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin;
        let made = open(&ann.caller, draft_of(whole("Contoso"))).await.unwrap();
        let name = made.account.unwrap().name;
        let bea = second_admin(&site, &contoso, "bea").await;
        site.advance(91 * 86_400).await;
        site.settle().await;
        // Another admin hands it in; both hear that the contact knows nothing of it.
        accept(
            &again(&site, ann).await,
            &name,
            entente::proto::access::AgreementKind::PartnerNetwork,
            consent().version,
        )
        .await
        .unwrap();
        submit(&again(&site, &bea).await, &name).await.unwrap();
        site.advance(16 * 86_400).await;
        resend(&again(&site, ann).await, &name, Kind::Email)
            .await
            .unwrap();
        let token = mailed_token(&site, PAULA).await.unwrap();
        confirm(&site, &token, ContactChoice::NotOurs)
            .await
            .unwrap();
        site.advance(2 * 3_600).await;
        site.settle().await;
        let back = get(&again(&site, ann).await, &name).await.unwrap();
        assert_eq!(back.state(), entente::proto::account::AccountState::Draft);
        let told = letters(&site).await;
        let told = told
            .iter()
            .filter(|l| l.text.contains("to have nothing to do with it"));
        let to: Vec<&str> = told.map(|l| l.to.as_str()).collect();
        for address in ["ann@contoso.example", "bea@contoso.example"] {
            assert!(to.contains(&address), "{to:?}");
        }
    })
    .await;
}

// proves VER-1
#[tokio::test]
async fn all_steps_are_told_also_before_submission_and_of_imported_accounts() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin.caller;
        let made = open(ann, draft_of(whole("Contoso"))).await.unwrap();
        let name = made.account.unwrap().name;
        assert_eq!(states(ann, &name).await, [State::NotStarted; 4]);
        let first = &verification(ann, &name).await.steps[0];
        assert!(first.method.ends_with("/SubmitAccount") && !first.to_do.is_empty());
        let old = site.tenant("old").await;
        let imported = site.account(&old, "Old").await;
        assert_eq!(
            states(&old.admin.caller, &imported).await,
            [State::Verified; 4]
        );
        let told = verification(&old.admin.caller, &imported).await;
        let codes: Vec<_> = told.steps.iter().map(|s| s.reason_code()).collect();
        assert_eq!(codes, [StepReason::Imported; 3]);
        assert!(told.steps.iter().all(|s| s.to_do.is_empty()));
    })
    .await;
}
