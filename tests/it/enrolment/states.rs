//! What becomes of accounts: changed, stopped, let go on, found.

use std::collections::BTreeSet;

use entente::proto::{
    access::AccountRole,
    account::{
        Account, AccountSettings, AccountState, GetAccountSettingsRequest, ReinstateAccountRequest,
        SearchAccountsRequest, SuspendAccountRequest,
    },
    operator::OperatorRole,
};
use tonic::{Code, Response, Status};

use super::{all_in_one, draft_of, get, member_tenant, open, update, whole};
use crate::{
    harness::{Caller, both, fields, refused},
    members::{add, remove},
    people::{denied, staff},
};

pub async fn suspend(caller: &Caller, name: &str) -> Result<Account, Status> {
    let request = SuspendAccountRequest {
        name: name.to_owned(),
        reason: "Complaints.".to_owned(),
        ..SuspendAccountRequest::default()
    };
    let done = caller.accounts().suspend_account(request).await;
    done.map(Response::into_inner)
}

pub async fn reinstate(caller: &Caller, name: &str) -> Result<Account, Status> {
    let request = ReinstateAccountRequest {
        name: name.to_owned(),
        ..ReinstateAccountRequest::default()
    };
    let done = caller.accounts().reinstate_account(request).await;
    done.map(Response::into_inner)
}

async fn settings(caller: &Caller, name: &str) -> Result<AccountSettings, Status> {
    let request = GetAccountSettingsRequest {
        name: name.to_owned(),
    };
    let done = caller.accounts().get_account_settings(request).await;
    done.map(Response::into_inner)
}

// proves ACC-13
#[tokio::test]
async fn an_account_is_suspended_and_gets_its_state_back() {
    both(async |site| {
        let operator = site.operator().await;
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin.caller;
        let dee = site.person(&contoso, "dee").await;
        let made = open(ann, draft_of(whole("Contoso"))).await.unwrap();
        let draft = made.account.unwrap().name;
        // Of a draft there is nothing to stop.
        let status = refused(
            suspend(&operator, &draft).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        assert!(status.message().contains("DRAFT"));
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let made = open(&fabrikam.admin.caller, all_in_one(whole("Fabrikam")))
            .await
            .unwrap();
        let pending = made.account.unwrap().name;
        let active = site.account(&contoso, "Contoso Two").await;
        for (name, caller, state) in [
            (&pending, &fabrikam.admin.caller, AccountState::Pending),
            (&active, ann, AccountState::Active),
        ] {
            denied(suspend(caller, name).await);
            let stopped = suspend(&operator, name).await.unwrap();
            assert_eq!(stopped.state(), AccountState::Suspended);
            refused(
                suspend(&operator, name).await,
                Code::FailedPrecondition,
                "WRONG_STATE",
            );
            // Its people read why.
            let seen = get(caller, name).await.unwrap();
            assert_eq!(seen.suspension_reason, "Complaints.");
            let renamed = Account {
                legal_name: "Else".to_owned(),
                ..seen
            };
            refused(
                update(caller, renamed.clone(), &["legal_name"]).await,
                Code::FailedPrecondition,
                "WRONG_STATE",
            );
            let back = reinstate(&operator, name).await.unwrap();
            assert_eq!(back.state(), state);
            assert_eq!(back.suspension_reason, "");
            update(caller, renamed, &["legal_name"]).await.unwrap();
            refused(
                reinstate(&operator, name).await,
                Code::FailedPrecondition,
                "WRONG_STATE",
            );
        }
        let developer = [AccountRole::Developer];
        add(ann, &active, &[&dee], &developer).await.unwrap();
        suspend(&operator, &active).await.unwrap();
        let fay = site.person(&contoso, "fay").await;
        refused(
            add(ann, &active, &[&fay], &developer).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        remove(ann, &active, &[&dee.member_of(&active)], false)
            .await
            .unwrap();
    })
    .await;
}

// proves ACC-3, ATK-10
#[tokio::test]
async fn what_the_service_gives_is_not_changed_and_what_was_submitted_stays_whole() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin.caller;
        let made = open(ann, all_in_one(whole("Contoso"))).await.unwrap();
        let account = made.account.unwrap();
        let forged = Account {
            state: AccountState::Active as i32,
            seller_id: "S0".to_owned(),
            country_code: "GB".to_owned(),
            ..account.clone()
        };
        for field in [
            "state",
            "seller_id",
            "country_code",
            "type",
            "network_membership",
            "submit_time",
            "suspension_reason",
            "reverifying",
            "reverified_steps",
        ] {
            let tried = update(ann, forged.clone(), &[field]).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), ["update_mask"], "{field}");
        }
        let emptied = Account {
            name: account.name.clone(),
            ..Account::default()
        };
        for (mask, field) in [
            ("legal_name", "account.legal_name"),
            ("primary_contact", "account.primary_contact"),
            ("publisher_display_name", "account.publisher_display_name"),
        ] {
            let tried = update(ann, emptied.clone(), &[mask]).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), [field]);
        }
        assert_eq!(get(ann, &account.name).await.unwrap(), account);
    })
    .await;
}

// proves ACC-7, ACC-10, ACC-11
#[tokio::test]
async fn settings_show_ids_and_what_the_caller_is_and_hide_people_from_the_operators() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin;
        let dee = site.person(&contoso, "dee").await;
        let made = open(&ann.caller, all_in_one(whole("Contoso")))
            .await
            .unwrap();
        let account = made.account.unwrap();
        add(&ann.caller, &account.name, &[&dee], &[]).await.unwrap();
        let seen = settings(&ann.caller, &account.name).await.unwrap();
        assert_eq!(seen.account.as_ref(), Some(&account));
        assert_eq!(seen.seller_id, account.seller_id);
        assert!(seen.partner_id.starts_with('P'));
        assert_eq!(seen.tenants, std::slice::from_ref(&contoso.name));
        assert_eq!(
            (seen.caller.as_str(), seen.admin_agent),
            (ann.name.as_str(), true)
        );
        let seen = settings(&dee.caller, &account.name).await.unwrap();
        assert!(!seen.admin_agent);
        let eli = site.person(&contoso, "eli").await;
        denied(settings(&eli.caller, &account.name).await);

        let sam = staff(&site, "sam", OperatorRole::OperatorSupport).await;
        let masked = settings(&sam.caller, &account.name).await.unwrap();
        let masked = masked.account.unwrap();
        assert_eq!(masked.legal_name, account.legal_name);
        let contact = masked.primary_contact.unwrap();
        assert_eq!(contact.display_name, "P***");
        assert_eq!(contact.email, "p***@contoso.example");
        assert_eq!(contact.phone_number, "");
        let request = SearchAccountsRequest {
            filter: "state = PENDING AND legal_name : conto".to_owned(),
            ..SearchAccountsRequest::default()
        };
        let found = sam.caller.accounts().search_accounts(request.clone()).await;
        let found = found.unwrap().into_inner().accounts;
        assert_eq!(found.len(), 1);
        let approver = found[0].company_approver.clone().unwrap();
        assert_eq!(approver.email, "a***@contoso.example");
        let tried = ann.caller.accounts().search_accounts(request).await;
        denied(tried);
        let names: BTreeSet<_> = found.into_iter().map(|a| a.name).collect();
        assert!(names.contains(&account.name));
    })
    .await;
}
