//! What was verified and changes, of accounts that aren't active yet and of those that were brought in; and what goes on without what it was
//! begun with.

use entente::proto::{
    access::AgreementKind,
    account::{
        Account, AccountState, ContactChoice, ImportAccountRequest, RequirementBlock,
        RequirementCode, ReviewDecision, ReviewKind, UpdateAccountRequest,
        VerificationStepKind as Kind, VerificationStepReason as StepReason,
        VerificationStepState as State,
    },
};

use super::{
    get, required,
    steps::{no_dead_end, settle, submit_step},
    update,
    verification::{PAULA, confirm, methods, requirements, states, submitted, verification},
    whole,
};
use crate::{
    agreements::{accept, publish, version},
    claims::execute,
    harness::both,
    network::contact,
    people::{again, eventually, literal, mailed_token, mask},
    reviews::reviewer,
};

// proves AGR-1, AGR-3
#[tokio::test]
async fn a_version_without_a_date_is_told_of_and_keeps_nobody_from_anything() {
    both(async |site| {
        let operator = site.operator().await;
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let kind = AgreementKind::PartnerNetwork;
        // One accepted the version before, the other was brought in and accepted none.
        let before = site.account(&contoso, "Before").await;
        accept(ann, &before, kind, 0).await.unwrap();
        let bare = site.account(&contoso, "Bare").await;
        for account in [&before, &bare] {
            assert!(required(ann, account).await.unwrap().is_empty());
        }
        let made = publish(&operator, version(kind, None, None)).await;
        let number = made.unwrap().version;
        site.advance(400 * 86_400).await;
        let ann = &again(&site, &contoso.admin).await;
        for account in [&before, &bare] {
            let due = required(ann, account).await.unwrap();
            let [told] = &due[..] else { panic!("{due:?}") };
            assert_eq!(told.code(), RequirementCode::Agreement);
            assert_eq!(told.blocks(), RequirementBlock::Nothing);
            assert!(told.deadline.is_none() && told.agreement_version == number);
            assert!(requirements(ann, account).await.is_empty());
            let seller = Account {
                name: account.clone(),
                seller_contact: whole("Contoso").seller_contact,
                ..Account::default()
            };
            update(ann, seller, &["seller_contact"]).await.unwrap();
            accept(ann, account, kind, number).await.unwrap();
            assert!(required(ann, account).await.unwrap().is_empty());
        }
    })
    .await;
}

// proves VER-5
#[tokio::test]
async fn a_pending_account_is_told_before_saving_which_verified_steps_go_back() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        confirm(&site, &to_paula, ContactChoice::Confirm)
            .await
            .unwrap();
        // Only asked first, then for good.
        let replace = async |by: &str, expected: &[Kind]| {
            let mut other = whole("Contoso");
            other.name.clone_from(&name);
            other.primary_contact = Some(contact(by));
            let before = get(ann, &name).await.unwrap();
            for validate_only in [true, false] {
                let request = UpdateAccountRequest {
                    account: Some(other.clone()),
                    update_mask: Some(mask(&["primary_contact"])),
                    validate_only,
                    ..UpdateAccountRequest::default()
                };
                let told = ann.accounts().update_account(request).await;
                let told = told.unwrap().into_inner();
                assert_eq!(told.reverified_steps().collect::<Vec<_>>(), expected);
                // It is verified for the first time still.
                assert!(!told.reverifying && told.state() == AccountState::Pending);
                let is = get(ann, &name).await.unwrap();
                assert!(is == if validate_only { before.clone() } else { told });
            }
        };
        replace("Pia", &[Kind::Email]).await;
        let to_pia = mailed_token(&site, "pia@contoso.example").await.unwrap();
        confirm(&site, &to_pia, ContactChoice::Confirm)
            .await
            .unwrap();
        let told = get(ann, &name).await.unwrap();
        assert!(told.reverified_steps.is_empty());
        submit_step(&site, ann, &name, Kind::Employment).await;
        let approve = ReviewDecision::Approve;
        settle(&rita.caller, ReviewKind::Employment, approve).await;
        replace("Petra", &[Kind::Email, Kind::Employment]).await;
        let to_petra = mailed_token(&site, "petra@contoso.example").await.unwrap();
        confirm(&site, &to_petra, ContactChoice::Confirm)
            .await
            .unwrap();
        let told = get(ann, &name).await.unwrap();
        assert_eq!(
            told.reverified_steps().collect::<Vec<_>>(),
            [Kind::Employment]
        );
        no_dead_end(ann, &name).await;
    })
    .await;
}

// proves VER-5, VER-7
#[tokio::test]
async fn an_imported_account_is_verified_in_what_changes_of_its_profile() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let old = site.tenant("old").await;
        let ann = &old.admin.caller;
        let request = ImportAccountRequest {
            account: Some(whole("Old")),
            tenant: old.name.clone(),
            first_manager: old.admin.name.clone(),
            ..ImportAccountRequest::default()
        };
        let made = site
            .operator()
            .await
            .accounts()
            .import_account(request)
            .await;
        let imported = made.unwrap().into_inner();
        let name = imported.name.clone();
        let renamed = Account {
            legal_name: "Old Holding SA".to_owned(),
            ..imported
        };
        let request = UpdateAccountRequest {
            account: Some(renamed.clone()),
            update_mask: Some(mask(&["legal_name"])),
            validate_only: true,
            ..UpdateAccountRequest::default()
        };
        let told = ann.accounts().update_account(request).await;
        let told = told.unwrap().into_inner();
        assert_eq!(
            told.reverified_steps().collect::<Vec<_>>(),
            [Kind::Business]
        );
        let as_imported = verification(ann, &name).await;
        assert!(
            as_imported
                .steps
                .iter()
                .all(|s| s.reason_code() == StepReason::Imported)
        );

        update(ann, renamed, &["legal_name"]).await.unwrap();
        use State::{ActionRequired, Verified};
        assert_eq!(
            states(ann, &name).await,
            [Verified, Verified, ActionRequired, Verified]
        );
        let due = no_dead_end(ann, &name).await;
        assert_eq!(
            methods(&due).into_iter().collect::<Vec<_>>(),
            ["SubmitStep"]
        );
        assert_eq!(due[0].blocks(), RequirementBlock::Payout);
        submit_step(&site, ann, &name, Kind::Business).await;
        settle(&rita.caller, ReviewKind::Business, ReviewDecision::Approve).await;
        let after = get(ann, &name).await.unwrap();
        assert!(!after.reverifying && after.state() == AccountState::Active);

        // What was never told was never verified: telling it sends nothing back.
        let bare = site.account(&old, "Bare").await;
        let told = Account {
            name: bare.clone(),
            primary_contact: Some(contact("Pia")),
            ..Account::default()
        };
        let told = update(ann, told, &["primary_contact"]).await.unwrap();
        assert!(!told.reverifying && told.reverified_steps.is_empty());
        assert_eq!(states(ann, &bare).await, [Verified; 4]);
    })
    .await;
}

// proves VER-4, VER-7
#[tokio::test]
async fn what_waits_for_a_register_that_is_configured_no_more_goes_on_with_documents() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let (contoso, name) = submitted(&site).await;
        let ann = &contoso.admin.caller;
        let to_paula = mailed_token(&site, PAULA).await.unwrap();
        confirm(&site, &to_paula, ContactChoice::Confirm)
            .await
            .unwrap();
        submit_step(&site, ann, &name, Kind::Employment).await;
        let approve = ReviewDecision::Approve;
        settle(&rita.caller, ReviewKind::Employment, approve).await;
        // As a server with a register left it.
        let sql = format!(
            "UPDATE verification_steps SET state = 2, reason = 'REGISTER' WHERE kind = 3 AND account_id = {}",
            literal(&site, &name)
        );
        execute(&site.app, &sql).await.unwrap();
        let step = &verification(ann, &name).await.steps[2];
        assert_eq!(
            (step.state(), step.reason_code()),
            (State::InProgress, StepReason::Register)
        );
        site.advance(120).await;
        eventually(async || {
            site.settle().await;
            states(ann, &name).await[2] == State::ActionRequired
        })
        .await;
        let step = &verification(ann, &name).await.steps[2];
        assert_eq!(step.reason_code(), StepReason::Documents);
        no_dead_end(ann, &name).await;
        submit_step(&site, ann, &name, Kind::Business).await;
    })
    .await;
}
