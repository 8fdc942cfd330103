//! AccountService: enrolling in programmes, and leaving them.

use entente::proto::{
    access::{AccountRole, AgreementKind, Program},
    account::{
        Account, AccountType, AgreementConsent, EnrollProgramRequest, GetAccountRequest,
        ImportAccountRequest, LeaveProgramRequest, LeaveProgramResponse, ProfileChanges,
        ResendVerificationMailRequest, SellerContact, SuspendAccountRequest, VerificationStepKind,
    },
};
use futures_util::future::join_all;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    agreements::{accept, acceptances, publish, version},
    claims::{count, row_counts},
    enrolment::{address, all_in_one, draft_of, member_tenant, open, steps::activate, whole},
    harness::{Caller, Site, TenantSite, both, fields, refused},
    members::add,
    network::contact,
    people::{denied, events, letters, second_admin},
    reviews::reviewer,
};

/// What an imported account lacks for the marketplace.
pub fn contacts() -> ProfileChanges {
    ProfileChanges {
        primary_contact: Some(contact("Paula")),
        seller_contact: Some(SellerContact {
            contact: Some(contact("Selma")),
            address: Some(address()),
        }),
        ..ProfileChanges::default()
    }
}

/// The request of an enrolment that accepts version 0 and lacks nothing.
pub fn enrolling(account: &str, tenant: &str, program: Program) -> EnrollProgramRequest {
    EnrollProgramRequest {
        name: account.to_owned(),
        tenant: tenant.to_owned(),
        program: program as i32,
        agreement: Some(AgreementConsent {
            version: 0,
            language_code: "en".to_owned(),
        }),
        changes: Some(contacts()),
        ..EnrollProgramRequest::default()
    }
}

/// Enrols.
pub async fn enroll(caller: &Caller, request: EnrollProgramRequest) -> Result<Account, Status> {
    let done = caller.accounts().enroll_program(request).await;
    done.map(Response::into_inner)
}

/// An account of a tenant that is in the marketplace.
pub async fn publisher(site: &Site, tenant: &TenantSite, name: &str) -> String {
    let account = site.account(tenant, name).await;
    let request = enrolling(&account, &tenant.name, Program::Marketplace);
    enroll(&tenant.admin.caller, request).await.unwrap();
    account
}

/// Leaves.
pub async fn leave(
    caller: &Caller,
    account: &str,
    tenant: &str,
    validate_only: bool,
) -> Result<LeaveProgramResponse, Status> {
    let request = LeaveProgramRequest {
        name: account.to_owned(),
        tenant: tenant.to_owned(),
        program: Program::Marketplace as i32,
        validate_only,
        ..LeaveProgramRequest::default()
    };
    let done = caller.accounts().leave_program(request).await;
    done.map(Response::into_inner)
}

async fn programs_of(caller: &Caller, name: &str) -> Vec<Program> {
    let name = name.to_owned();
    let mut accounts = caller.accounts();
    let got = accounts.get_account(GetAccountRequest { name }).await;
    got.unwrap().into_inner().programs().collect()
}

// proves ACC-9, ACC-8, AGR-4
#[tokio::test]
async fn an_account_enrols_with_the_agreement_and_what_it_lacks_is_named() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = site.account(&contoso, "Contoso").await;
        let market = Program::Marketplace;
        let whole = enrolling(&account, &contoso.name, market);

        let bare = EnrollProgramRequest {
            agreement: None,
            ..whole.clone()
        };
        let before = row_counts(&site.app).await;
        let tried = enroll(ann, bare.clone()).await;
        let status = refused(tried, Code::FailedPrecondition, "AGREEMENT_REQUIRED");
        let told = status.get_details_error_info().unwrap().metadata;
        assert_eq!(
            (told["agreement"].as_str(), told["version"].as_str()),
            ("PUBLISHER", "0")
        );
        let mut wrong = whole.clone();
        wrong.agreement.as_mut().unwrap().version = 3;
        refused(
            enroll(ann, wrong).await,
            Code::FailedPrecondition,
            "NOT_CURRENT_VERSION",
        );
        let lacking = EnrollProgramRequest {
            changes: None,
            ..whole.clone()
        };
        let tried = enroll(ann, lacking).await;
        let status = refused(tried, Code::FailedPrecondition, "ENROLMENT_INCOMPLETE");
        assert_eq!(
            fields(&status),
            [
                "changes.primary_contact",
                "changes.seller_contact.contact",
                "changes.seller_contact.address"
            ]
        );
        let rehearsal = EnrollProgramRequest {
            validate_only: true,
            ..whole.clone()
        };
        let shown = enroll(ann, rehearsal).await.unwrap();
        assert_eq!(shown.programs().collect::<Vec<_>>(), [market]);
        // Nothing of it stays, not even what was accepted or changed before the refusal.
        let after = row_counts(&site.app).await;
        for table in ["acceptances", "outbox", "mails"] {
            assert_eq!(after[table], before[table], "{table}");
        }
        assert_eq!(programs_of(ann, &account).await, []);

        let mut named = whole.clone();
        let changes = named.changes.as_mut().unwrap();
        changes.publisher_display_name = "Contoso Apps".to_owned();
        let done = enroll(ann, named).await.unwrap();
        assert_eq!(done.publisher_display_name, "Contoso Apps");
        assert_eq!(done.primary_contact, Some(contact("Paula")));
        assert_eq!(programs_of(ann, &account).await, [market]);
        assert_eq!(acceptances(ann, &account).await.unwrap().len(), 1);
        assert_eq!(
            events(&site, "account.v1.ProgramEnrolled", &account).await,
            1
        );
        let mails = letters(&site).await;
        let mails: Vec<_> = mails
            .iter()
            .filter(|m| m.to == contact("Paula").email && m.text.contains("MARKETPLACE"))
            .collect();
        assert_eq!(mails.len(), 1);
        refused(
            enroll(ann, whole).await,
            Code::AlreadyExists,
            "ALREADY_ENROLLED",
        );

        // What was accepted before isn't asked again, nor are contacts that are there. Of many at once one does it.
        accept(ann, &account, AgreementKind::Collaborate, 0)
            .await
            .unwrap();
        let again = EnrollProgramRequest {
            program: Program::Collaborate as i32,
            changes: None,
            ..bare
        };
        let done = join_all((0..8).map(|_| enroll(ann, again.clone()))).await;
        assert_eq!(done.iter().filter(|d| d.is_ok()).count(), 1);
        for lost in done.into_iter().filter(Result::is_err) {
            refused(lost, Code::AlreadyExists, "ALREADY_ENROLLED");
        }
        // One that was accepted before a later version came is not enough.
        accept(ann, &account, AgreementKind::Referrals, 0)
            .await
            .unwrap();
        let next = version(AgreementKind::Referrals, None, None);
        publish(&site.operator().await, next).await.unwrap();
        let referrals = EnrollProgramRequest {
            program: Program::Referrals as i32,
            ..again
        };
        let status = refused(
            enroll(ann, referrals).await,
            Code::FailedPrecondition,
            "AGREEMENT_REQUIRED",
        );
        assert_eq!(
            status.get_details_error_info().unwrap().metadata["version"],
            "1"
        );
    })
    .await;
}

// proves ACC-9, ACC-2, ATK-1
#[tokio::test]
async fn enrolling_takes_both_rights_on_an_account_and_a_tenant_that_belong_together() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let whole = enrolling(&account, &contoso.name, Program::Marketplace);
        let manager = site.person(&contoso, "mia").await;
        let roles = [AccountRole::Manager];
        add(&contoso.admin.caller, &account, &[&manager], &roles)
            .await
            .unwrap();
        let global = second_admin(&site, &contoso, "gil").await;
        let fabrikam = site.tenant("fabrikam").await;
        let theirs = site.account(&fabrikam, "Fabrikam").await;
        for caller in [
            &manager.caller,
            &global.caller,
            &fabrikam.admin.caller,
            &site.operator().await,
        ] {
            denied(enroll(caller, whole.clone()).await);
            denied(leave(caller, &account, &contoso.name, false).await);
        }
        // One's own account with another's tenant, and the other way round.
        for (name, tenant) in [(&account, &fabrikam.name), (&theirs, &contoso.name)] {
            let mixed = enrolling(name, tenant, Program::Marketplace);
            denied(enroll(&contoso.admin.caller, mixed).await);
        }

        let old = ImportAccountRequest {
            account: Some(Account {
                publisher_display_name: "Old Ida".to_owned(),
                legal_name: "Ida".to_owned(),
                country_code: "FR".to_owned(),
                r#type: AccountType::Individual as i32,
                ..Account::default()
            }),
            tenant: contoso.name.clone(),
            first_manager: contoso.admin.name.clone(),
            ..ImportAccountRequest::default()
        };
        let operator = site.operator().await;
        let old = operator.accounts().import_account(old).await.unwrap();
        let old = enrolling(&old.into_inner().name, &contoso.name, Program::Marketplace);
        refused(
            enroll(&contoso.admin.caller, old).await,
            Code::FailedPrecondition,
            "INDIVIDUAL_ACCOUNTS_DEPRECATED",
        );
    })
    .await;
}

// proves ACC-9, ACC-8, ACC-13
#[tokio::test]
async fn a_draft_enrols_in_nothing_and_a_pending_account_is_told_that_it_asked() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin.caller;
        let draft = open(ann, draft_of(whole("Draft"))).await.unwrap();
        let draft = draft.account.unwrap().name;
        let request = EnrollProgramRequest {
            changes: None,
            ..enrolling(&draft, &contoso.name, Program::Marketplace)
        };
        refused(
            enroll(ann, request).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let fay = &fabrikam.admin.caller;
        let pending = open(fay, all_in_one(whole("Fabrikam"))).await.unwrap();
        let pending = pending.account.unwrap().name;
        let request = EnrollProgramRequest {
            changes: None,
            ..enrolling(&pending, &fabrikam.name, Program::Marketplace)
        };
        enroll(fay, request).await.unwrap();
        let sent = async |template: &str| {
            let sql = format!("SELECT COUNT(*) AS n FROM mails WHERE template = '{template}'");
            count(&site.app, &sql).await
        };
        assert_eq!(sent("program_submitted").await, 1);
        assert_eq!(sent("program_enrolled").await, 0);
        // And that it is in, once it is active.
        let rita = reviewer(&site, "rita").await;
        let again = ResendVerificationMailRequest {
            name: pending.clone(),
            step: VerificationStepKind::Email as i32,
            ..ResendVerificationMailRequest::default()
        };
        let mut verification = fay.verification();
        verification.resend_verification_mail(again).await.unwrap();
        activate(&site, &rita, fay, &pending).await;
        assert_eq!(sent("program_enrolled").await, 1);
        assert_eq!(programs_of(fay, &pending).await, [Program::Marketplace]);
    })
    .await;
}

// proves ACC-9, AGR-5
#[tokio::test]
async fn leaving_works_also_for_a_suspended_account() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = site.account(&contoso, "Contoso").await;
        let tried = leave(ann, &account, &contoso.name, false).await;
        let status = refused(tried, Code::FailedPrecondition, "PROGRAM_NOT_ENROLLED");
        let told = status.get_details_error_info().unwrap().metadata;
        assert_eq!(told["program"], "MARKETPLACE");
        let request = enrolling(&account, &contoso.name, Program::Marketplace);
        enroll(ann, request.clone()).await.unwrap();
        let request_of_suspension = SuspendAccountRequest {
            name: account.clone(),
            reason: "Complaints.".to_owned(),
            ..SuspendAccountRequest::default()
        };
        let operator = site.operator().await;
        let mut accounts = operator.accounts();
        accounts
            .suspend_account(request_of_suspension)
            .await
            .unwrap();
        let other = EnrollProgramRequest {
            program: Program::Referrals as i32,
            ..request
        };
        refused(
            enroll(ann, other).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let shown = leave(ann, &account, &contoso.name, true).await.unwrap();
        assert_eq!(shown.ended_count, 0);
        assert_eq!(programs_of(ann, &account).await, [Program::Marketplace]);
        leave(ann, &account, &contoso.name, false).await.unwrap();
        assert_eq!(programs_of(ann, &account).await, []);
        assert_eq!(events(&site, "account.v1.ProgramLeft", &account).await, 1);
    })
    .await;
}
