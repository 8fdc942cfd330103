//! Owners of accounts that were opened without one (ACC-20): invited, accepted, consented to, stopped; and ownership handed on.

use entente::proto::{
    access::{CheckAccessRequest, TestMyPermissionsRequest},
    account::{
        AcceptOwnershipRequest, Account, AccountSettings, AccountState, ApprovalDecision,
        CloseAccountRequest, ConfirmApprovalRequest, ConfirmOwnershipRequest,
        ConfirmOwnershipResponse, GetAccountSettingsRequest, GrantFinanceRequest,
        InviteOwnerRequest, LeaveAccountRequest, Ownership, OwnershipDecision,
        OwnershipState as State, ReviewKind, StopOwnershipRequest, SuspendAccountRequest,
        TransferOwnershipRequest, UpdateAccountRequest, VerificationStepState,
    },
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    enrolment::{all_in_one, draft_of, member_tenant, open, whole},
    harness::{Caller, PASSWORD, Person, Site, TenantSite, both, fields, refused, request_id},
    identities::{change_email, close, confirm_email},
    members::add,
    network::contact,
    people::{
        Service, change, events, eventually, execute_on, id, identity, letters, link_invalid,
        literal, mailed_token, mask,
    },
    reviews::{claim, involved, queue, reviewer},
};

const OLGA: &str = "olga@mail.example";
const NEXT: &str = "nick@mail.example";
const ADA: &str = "ada@contoso.example";
const PAULA: &str = "paula@contoso.example";
const ANN: &str = "ann@contoso.example";
const DAY_S: i64 = 86_400;

/// Calls about owners.
pub(crate) trait Owners {
    async fn invite_owner(&self, account: &str, email: &str) -> Result<Ownership, Status>;
    async fn accept_ownership(&self, account: &str) -> Result<Ownership, Status>;
    async fn hand_on(&self, account: &str, email: &str) -> Result<Ownership, Status>;
    async fn decide_ownership(
        &self,
        token: &str,
        decision: OwnershipDecision,
    ) -> Result<ConfirmOwnershipResponse, Status>;
    async fn stop_ownership(&self, token: &str) -> Result<(), Status>;
    async fn settings(&self, account: &str) -> Result<AccountSettings, Status>;
    async fn mine_of(&self, account: &str, permissions: &[&str]) -> Vec<String>;
}

impl Owners for Caller {
    async fn invite_owner(&self, account: &str, email: &str) -> Result<Ownership, Status> {
        let request = InviteOwnerRequest {
            account: account.to_owned(),
            email: email.to_owned(),
            ..InviteOwnerRequest::default()
        };
        let done = self.accounts().invite_owner(request).await;
        done.map(Response::into_inner)
    }
    async fn accept_ownership(&self, account: &str) -> Result<Ownership, Status> {
        let request = AcceptOwnershipRequest {
            account: account.to_owned(),
            ..AcceptOwnershipRequest::default()
        };
        let done = self.accounts().accept_ownership(request).await;
        done.map(Response::into_inner)
    }
    async fn hand_on(&self, account: &str, email: &str) -> Result<Ownership, Status> {
        let request = TransferOwnershipRequest {
            account: account.to_owned(),
            email: email.to_owned(),
            ..TransferOwnershipRequest::default()
        };
        let done = self.accounts().transfer_ownership(request).await;
        done.map(Response::into_inner)
    }
    async fn decide_ownership(
        &self,
        token: &str,
        decision: OwnershipDecision,
    ) -> Result<ConfirmOwnershipResponse, Status> {
        let request = ConfirmOwnershipRequest {
            token: token.to_owned(),
            decision: decision as i32,
            reason: "As it was said.".to_owned(),
            ..ConfirmOwnershipRequest::default()
        };
        let done = self.accounts().confirm_ownership(request).await;
        done.map(Response::into_inner)
    }
    async fn stop_ownership(&self, token: &str) -> Result<(), Status> {
        let request = StopOwnershipRequest {
            token: token.to_owned(),
            ..StopOwnershipRequest::default()
        };
        self.accounts().stop_ownership(request).await.map(drop)
    }
    async fn settings(&self, account: &str) -> Result<AccountSettings, Status> {
        let name = account.to_owned();
        let request = GetAccountSettingsRequest { name };
        let done = self.accounts().get_account_settings(request).await;
        done.map(Response::into_inner)
    }
    async fn mine_of(&self, account: &str, permissions: &[&str]) -> Vec<String> {
        let request = TestMyPermissionsRequest {
            resource: account.to_owned(),
            permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        };
        let done = self.access().test_my_permissions(request).await;
        done.unwrap().into_inner().permissions
    }
}

/// What begins later for a first owner.
const FINANCE: &[&str] = &[
    "payouts.settings.read",
    "payouts.settings.update",
    "payouts.hold",
    "tax.read",
    "tax.update",
    "finance.grant",
];

/// An account that a company has opened, without owner; its approver hasn't decided yet.
async fn opened(site: &Site, prefix: &str) -> (TenantSite, String) {
    let tenant = member_tenant(site, prefix).await;
    let made = open(&tenant.admin.caller, all_in_one(whole(prefix))).await;
    (tenant, made.unwrap().account.unwrap().name)
}

async fn approve(site: &Site, mailbox: &str) {
    waits_for_its_approver(site).await;
    let request = ConfirmApprovalRequest {
        token: mailed_token(site, mailbox).await.unwrap(),
        decision: ApprovalDecision::Approve as i32,
        ..ConfirmApprovalRequest::default()
    };
    let nobody = site.nobody();
    nobody
        .verification()
        .confirm_approval(request)
        .await
        .unwrap();
}

/// All else of the verification of accounts that are submitted is done: the approver's word is what their business waits for.
async fn waits_for_its_approver(site: &Site) {
    let pending = "account_id IN (SELECT id FROM accounts WHERE state = 3)";
    for sql in [
        format!("UPDATE verification_steps SET state = 4 WHERE kind IN (1, 2) AND {pending}"),
        format!(
            "UPDATE verification_steps SET state = 2, reviewed = TRUE WHERE kind = 3 AND {pending}"
        ),
    ] {
        execute_on(site, &sql).await;
    }
}

/// The same, with an approver who was verified.
pub(crate) async fn approved(site: &Site, prefix: &str) -> (TenantSite, String) {
    let made = opened(site, prefix).await;
    approve(site, ADA).await;
    made
}

/// An account with an owner whose finances haven't begun.
pub(crate) async fn owned(site: &Site) -> (TenantSite, String, Person) {
    let (contoso, account) = approved(site, "contoso").await;
    let admin = &contoso.admin.caller;
    admin.invite_owner(&account, OLGA).await.unwrap();
    let olga = identity(site, OLGA).await;
    olga.caller.accept_ownership(&account).await.unwrap();
    let token = mailed_token(site, ADA).await.unwrap();
    let consent = OwnershipDecision::Consent;
    site.nobody()
        .decide_ownership(&token, consent)
        .await
        .unwrap();
    (contoso, account, olga)
}

/// Makes an identity the owner of an account, as if it had opened it.
pub(crate) async fn owns(site: &Site, account: &str, owner: &Person) {
    let nowhere = "tenants/00000000-0000-0000-0000-000000000000";
    let sql = format!(
        "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
         display_name_fold, create_time, update_time, version) VALUES (2, {}, {}, 3, {}, {}, '', '', 'o', 1, 1, 1)",
        literal(site, account),
        literal(site, &owner.name),
        literal(site, nowhere),
        entente::access::grants::OWNER,
    );
    execute_on(site, &sql).await;
}

/// Tokens of links that consent and that stop, of accounts that the operator has stopped meanwhile.
pub(crate) async fn links(site: &Site) -> (String, String) {
    let mut tokens = Vec::new();
    for (prefix, email, mailbox) in [
        ("treyresearch", "tia@mail.example", ADA),
        ("wingtip", "win@mail.example", PAULA),
    ] {
        let (tenant, account) = approved(site, prefix).await;
        let admin = &tenant.admin.caller;
        admin.invite_owner(&account, email).await.unwrap();
        let owner = identity(site, email).await;
        owner.caller.accept_ownership(&account).await.unwrap();
        if mailbox == PAULA {
            let token = mailed_token(site, ADA).await.unwrap();
            let consent = OwnershipDecision::Consent;
            site.nobody()
                .decide_ownership(&token, consent)
                .await
                .unwrap();
        }
        tokens.push(mailed_token(site, mailbox).await.unwrap());
        let request = SuspendAccountRequest {
            name: account,
            reason: "Stopped.".to_owned(),
            ..SuspendAccountRequest::default()
        };
        let operator = site.operator().await;
        operator.accounts().suspend_account(request).await.unwrap();
    }
    let stop = tokens.pop().unwrap();
    (tokens.pop().unwrap(), stop)
}

async fn again(site: &Site, person: &Person) -> Caller {
    site.sign_in(&person.sign_in_name, PASSWORD).await
}

#[track_caller]
fn not_oneself<T: std::fmt::Debug>(result: Result<T, Status>) {
    let status = refused(result, Code::PermissionDenied, "PERMISSION_MISSING");
    let told = status.get_details_error_info().unwrap().metadata;
    assert!(!told.contains_key("permission"), "{told:?}");
}

/// Who got a mail about an owner, by template, since so many mails ago.
async fn told(site: &Site, words: &str, since: usize) -> Vec<String> {
    let mut to: Vec<_> = letters(site)
        .await
        .into_iter()
        .skip(since)
        .filter(|letter| letter.text.contains(words))
        .map(|letter| letter.to)
        .collect();
    to.sort();
    to
}

const STOP: &str = "StopOwnership";

/// The token of the newest mail by which somebody stops an owner.
pub(crate) async fn stop_token(site: &Site, to: &str) -> String {
    let letters = letters(site).await;
    let mine = letters
        .iter()
        .rfind(|l| l.to == to && l.text.contains(STOP));
    let (_, rest) = mine.unwrap().text.split_once("entl_").unwrap();
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    format!("entl_{}", &rest[..end.unwrap()])
}

// proves ACC-20, ROL-12, COM-17
#[tokio::test]
async fn invited_identity_owns_after_consent_and_has_finances_seven_days_later() {
    both(async |site| {
        let (contoso, account) = opened(&site, "contoso").await;
        let admin = &contoso.admin.caller;
        let early = admin.invite_owner(&account, OLGA).await;
        refused(early, Code::FailedPrecondition, "APPROVER_NOT_VERIFIED");
        approve(&site, ADA).await;
        let work = admin
            .invite_owner(&account, "x@contoso.partners.localhost")
            .await;
        let status = refused(work, Code::InvalidArgument, "WORK_ADDRESS");
        assert_eq!(fields(&status), ["email"]);
        let request = InviteOwnerRequest {
            account: account.clone(),
            email: OLGA.to_owned(),
            request_id: request_id(),
            ..InviteOwnerRequest::default()
        };
        let trial = InviteOwnerRequest {
            validate_only: true,
            request_id: String::new(),
            ..request.clone()
        };
        admin.accounts().invite_owner(trial).await.unwrap();
        assert!(
            admin
                .settings(&account)
                .await
                .unwrap()
                .pending_ownership
                .is_none()
        );
        let invited = admin.accounts().invite_owner(request.clone()).await;
        let invited = invited.unwrap().into_inner();
        assert_eq!(invited.state(), State::Invited);
        let replayed = admin.accounts().invite_owner(request).await.unwrap();
        assert_eq!(replayed.into_inner(), invited);

        // By nobody else, and not by who hasn't signed in just now.
        let other = identity(&site, "eve@mail.example").await;
        let olga = identity(&site, OLGA).await;
        for caller in [&other.caller, admin] {
            not_oneself(caller.accept_ownership(&account).await);
        }
        let nowhere = format!("accounts/{}", request_id());
        not_oneself(olga.caller.accept_ownership(&nowhere).await);
        site.advance(11 * 60).await;
        let stale = olga.caller.accept_ownership(&account).await;
        refused(stale, Code::FailedPrecondition, "RECENT_SIGN_IN_REQUIRED");
        let caller = again(&site, &olga).await;
        let accepted = caller.accept_ownership(&account).await.unwrap();
        assert_eq!(accepted.state(), State::AwaitingConsent);
        assert_eq!(accepted.identity, olga.name);
        not_oneself(caller.accept_ownership(&account).await);
        refused(
            caller.settings(&account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );

        let mails = letters(&site).await.len();
        let token = mailed_token(&site, ADA).await.unwrap();
        let nobody = site.nobody();
        let consent = OwnershipDecision::Consent;
        let decided = nobody.decide_ownership(&token, consent).await.unwrap();
        assert_eq!(decided.state(), State::Owner);
        link_invalid(nobody.decide_ownership(&token, consent).await);
        assert_eq!(told(&site, STOP, mails).await, [ADA, ANN, PAULA]);
        let stop = mailed_token(&site, PAULA).await.unwrap();

        let all = [&["account.close", "owner.tie", "members.read"], FINANCE].concat();
        let now = ["account.close", "owner.tie", "members.read"];
        assert_eq!(caller.mine_of(&account, &all).await, now);
        let cid = site.person(&contoso, "cid").await;
        add(admin, &account, &[&cid], &[]).await.unwrap();
        let grant = GrantFinanceRequest {
            name: cid.member_of(&account),
            ..GrantFinanceRequest::default()
        };
        let early = caller.members().grant_finance(grant.clone()).await;
        let status = refused(early, Code::FailedPrecondition, "RIGHTS_BEGIN_LATER");
        // Nobody can wake it, so nobody is named.
        let told = status.get_details_error_info().unwrap().metadata;
        assert!(told.contains_key("until") && !told.contains_key("woken_by"));
        let service = Service::open(&site).await;
        let check = CheckAccessRequest {
            checks: vec![entente::proto::access::AccessCheck {
                principal: olga.name.clone(),
                permission: "tax.update".to_owned(),
                resource: account.clone(),
            }],
        };
        let portal = service.caller(&site).await;
        let told = portal.access().check_access(check).await;
        let told = told.unwrap().into_inner().decisions.remove(0);
        assert_eq!(
            (told.allowed, told.reason.as_str()),
            (false, "RIGHTS_BEGIN_LATER")
        );

        let shown = again(&site, &contoso.admin).await.settings(&account).await;
        let shown = shown.unwrap();
        let owner = shown.owner.unwrap();
        assert_eq!((&owner.identity, owner.email.as_str()), (&olga.name, OLGA));
        assert!(shown.has_owner && owner.finance_begin_time.is_some());
        let shown = cid.caller.settings(&account).await.unwrap();
        assert!(shown.has_owner && shown.owner.is_none());
        let shown = site.operator().await.settings(&account).await.unwrap();
        assert_ne!(shown.owner.unwrap().email, OLGA, "it is masked");

        site.advance(7 * DAY_S - 120).await;
        let caller = again(&site, &olga).await;
        assert_eq!(caller.mine_of(&account, &all).await, now);
        site.advance(120).await;
        assert_eq!(caller.mine_of(&account, &all).await, all);
        caller.members().grant_finance(grant).await.unwrap();
        link_invalid(nobody.stop_ownership(&stop).await);

        // One owner, one account.
        let admin = again(&site, &contoso.admin).await;
        let second = admin.invite_owner(&account, NEXT).await;
        refused(second, Code::FailedPrecondition, "OWNER_EXISTS");
        let left = close(&caller, &olga.name).await;
        refused(left, Code::FailedPrecondition, "OWNS_ACCOUNT");
    })
    .await;
}

// proves ACC-20, ACC-1
#[tokio::test]
async fn identity_owns_one_account_at_most() {
    both(async |site| {
        let (_, _, olga) = owned(&site).await;
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let made = open(&fabrikam.admin.caller, all_in_one(whole("Fabrikam"))).await;
        let theirs = made.unwrap().account.unwrap().name;
        approve(&site, ADA).await;
        let admin = &fabrikam.admin.caller;
        admin.invite_owner(&theirs, OLGA).await.unwrap();
        let again = olga.caller.accept_ownership(&theirs).await;
        refused(again, Code::FailedPrecondition, "IDENTITY_ALREADY_TIED");
        // By opening one, too.
        let request = entente::proto::account::JoinNetworkRequest {
            network_membership: Some(crate::network::new_membership("Olga SA")),
            ..Default::default()
        };
        olga.caller.network().join_network(request).await.unwrap();
        let mut request = draft_of(whole("Olga"));
        request.tenant_admin_token = admin.token.clone().unwrap();
        let opened = open(&olga.caller, request).await;
        refused(opened, Code::FailedPrecondition, "IDENTITY_ALREADY_TIED");
    })
    .await;
}

// proves ACC-20, ATK-3
#[tokio::test]
async fn two_invitations_at_once_leave_one_and_the_approver_may_refuse() {
    both(async |site| {
        let (contoso, account) = approved(&site, "contoso").await;
        let admin = &contoso.admin.caller;
        let olga = identity(&site, OLGA).await;
        let nick = identity(&site, NEXT).await;
        let (one, two) = tokio::join!(
            admin.invite_owner(&account, OLGA),
            admin.invite_owner(&account, NEXT)
        );
        one.unwrap();
        two.unwrap();
        let left = admin.settings(&account).await.unwrap().pending_ownership;
        let left = left.unwrap().email;
        let (stays, goes) = if left == OLGA {
            (&olga, &nick)
        } else {
            (&nick, &olga)
        };
        not_oneself(goes.caller.accept_ownership(&account).await);
        let both = tokio::join!(
            stays.caller.accept_ownership(&account),
            stays.caller.accept_ownership(&account)
        );
        assert_eq!(u8::from(both.0.is_ok()) + u8::from(both.1.is_ok()), 1);
        let token = mailed_token(&site, ADA).await.unwrap();
        let nobody = site.nobody();
        let request = ConfirmOwnershipRequest {
            token: token.clone(),
            decision: OwnershipDecision::Refuse as i32,
            ..ConfirmOwnershipRequest::default()
        };
        let status = nobody.accounts().confirm_ownership(request.clone()).await;
        let status = refused(status, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["reason"]);
        // A token of another account than the one named is none.
        let request = ConfirmOwnershipRequest {
            account: format!("accounts/{}", request_id()),
            reason: "No.".to_owned(),
            ..request
        };
        link_invalid(nobody.accounts().confirm_ownership(request).await);
        let refuse = OwnershipDecision::Refuse;
        let decided = nobody.decide_ownership(&token, refuse).await.unwrap();
        assert_eq!(decided.state(), State::Refused);
        link_invalid(
            nobody
                .decide_ownership(&token, OwnershipDecision::Consent)
                .await,
        );
        not_oneself(stays.caller.accept_ownership(&account).await);
        let shown = admin.settings(&account).await.unwrap();
        assert!(!shown.has_owner && shown.pending_ownership.is_none());
        // An invitation that nobody takes ends by itself.
        admin.invite_owner(&account, OLGA).await.unwrap();
        site.advance(30 * DAY_S).await;
        let caller = again(&site, &olga).await;
        not_oneself(caller.accept_ownership(&account).await);
    })
    .await;
}

// proves ACC-20
#[tokio::test]
async fn approver_primary_contact_and_managers_can_each_stop_an_owner() {
    both(async |site| {
        let (contoso, account) = approved(&site, "contoso").await;
        let admin = &contoso.admin.caller;
        let olga = identity(&site, OLGA).await;
        let nobody = site.nobody();
        for mailbox in [ADA, PAULA, ANN] {
            admin.invite_owner(&account, OLGA).await.unwrap();
            olga.caller.accept_ownership(&account).await.unwrap();
            let token = mailed_token(&site, ADA).await.unwrap();
            // A token that consents doesn't stop.
            link_invalid(nobody.stop_ownership(&token).await);
            let consent = OwnershipDecision::Consent;
            nobody.decide_ownership(&token, consent).await.unwrap();
            olga.caller.settings(&account).await.unwrap();
            let stop = stop_token(&site, mailbox).await;
            nobody.stop_ownership(&stop).await.unwrap();
            link_invalid(nobody.stop_ownership(&stop).await);
            let out = olga.caller.settings(&account).await;
            refused(out, Code::PermissionDenied, "PERMISSION_MISSING");
            assert!(!admin.settings(&account).await.unwrap().has_owner);
        }
        // And owns nothing: it can be closed.
        close(&olga.caller, &olga.name).await.unwrap();
    })
    .await;
}

async fn name_approver(caller: &Caller, account: &str, name: &str) {
    let request = UpdateAccountRequest {
        account: Some(Account {
            name: account.to_owned(),
            company_approver: Some(contact(name)),
            ..Account::default()
        }),
        update_mask: Some(mask(&["company_approver"])),
        ..UpdateAccountRequest::default()
    };
    caller.accounts().update_account(request).await.unwrap();
}

// proves ACC-20
#[tokio::test]
async fn who_was_verified_last_consents_and_old_and_new_approver_can_stop() {
    const NINA: &str = "nina@contoso.example";
    both(async |site| {
        let (contoso, account) = approved(&site, "contoso").await;
        let admin = &contoso.admin.caller;
        let olga = identity(&site, OLGA).await;
        let nobody = site.nobody();
        // Whoever changes the approver can't have the new one consent before it is verified.
        name_approver(admin, &account, "Nina").await;
        let approval = mailed_token(&site, NINA).await.unwrap();
        admin.invite_owner(&account, OLGA).await.unwrap();
        let mails = letters(&site).await.len();
        olga.caller.accept_ownership(&account).await.unwrap();
        assert_eq!(told(&site, "ConfirmOwnership", mails).await, [ADA]);
        assert_eq!(told(&site, STOP, mails).await, [NINA]);
        let stop = mailed_token(&site, NINA).await.unwrap();
        nobody.stop_ownership(&stop).await.unwrap();
        link_invalid(
            nobody
                .decide_ownership(
                    &mailed_token(&site, ADA).await.unwrap(),
                    OwnershipDecision::Consent,
                )
                .await,
        );

        let request = ConfirmApprovalRequest {
            token: approval,
            decision: ApprovalDecision::Approve as i32,
            ..ConfirmApprovalRequest::default()
        };
        let mut verification = nobody.verification();
        verification.confirm_approval(request).await.unwrap();
        admin.invite_owner(&account, OLGA).await.unwrap();
        let mails = letters(&site).await.len();
        olga.caller.accept_ownership(&account).await.unwrap();
        assert_eq!(told(&site, "ConfirmOwnership", mails).await, [NINA]);
        assert_eq!(told(&site, STOP, mails).await, [ADA]);
        let stop = mailed_token(&site, ADA).await.unwrap();
        nobody.stop_ownership(&stop).await.unwrap();

        // For 30 days.
        site.advance(30 * DAY_S).await;
        let admin = again(&site, &contoso.admin).await;
        admin.invite_owner(&account, OLGA).await.unwrap();
        let mails = letters(&site).await.len();
        let caller = again(&site, &olga).await;
        caller.accept_ownership(&account).await.unwrap();
        assert_eq!(told(&site, STOP, mails).await, [] as [&str; 0]);
    })
    .await;
}

async fn approve_as(site: &Site, token: &str) {
    let request = ConfirmApprovalRequest {
        token: token.to_owned(),
        decision: ApprovalDecision::Approve as i32,
        ..ConfirmApprovalRequest::default()
    };
    let mut verification = site.nobody().verification();
    verification.confirm_approval(request).await.unwrap();
}

// proves ACC-20, VER-8
#[tokio::test]
async fn an_approver_who_is_verified_while_an_ownership_waits_is_asked_in_place_of_the_one_before()
{
    const NINA: &str = "nina@contoso.example";
    const NORA: &str = "nora@contoso.example";
    both(async |site| {
        let (contoso, account) = approved(&site, "contoso").await;
        let admin = &contoso.admin.caller;
        let olga = identity(&site, OLGA).await;
        let nobody = site.nobody();
        admin.invite_owner(&account, OLGA).await.unwrap();
        olga.caller.accept_ownership(&account).await.unwrap();
        let adas = mailed_token(&site, ADA).await.unwrap();
        // The next one's own word verifies nobody while the business is looked at anew.
        name_approver(admin, &account, "Nina").await;
        let approval = mailed_token(&site, NINA).await.unwrap();
        let of_it = literal(&site, &account);
        let again = format!(
            "UPDATE verification_steps SET state = 3, reviewed = FALSE WHERE kind = 3 AND account_id = {of_it}"
        );
        execute_on(&site, &again).await;
        let mails = letters(&site).await.len();
        approve_as(&site, &approval).await;
        assert_eq!(told(&site, "ConfirmOwnership", mails).await, [] as [&str; 0]);
        // With the business it is: the new one is asked, the old one only stops.
        name_approver(admin, &account, "Nora").await;
        let approval = mailed_token(&site, NORA).await.unwrap();
        let done = format!(
            "UPDATE verification_steps SET state = 2, reviewed = TRUE WHERE kind = 3 AND account_id = {of_it}"
        );
        execute_on(&site, &done).await;
        let mails = letters(&site).await.len();
        approve_as(&site, &approval).await;
        assert_eq!(told(&site, "ConfirmOwnership", mails).await, [NORA]);
        assert_eq!(told(&site, STOP, mails).await, [ADA]);
        let consent = OwnershipDecision::Consent;
        link_invalid(nobody.decide_ownership(&adas, consent).await);
        let noras = mailed_token(&site, NORA).await.unwrap();
        let decided = nobody.decide_ownership(&noras, consent).await.unwrap();
        assert_eq!(decided.state(), State::Owner);

        // Where reviewers were to decide, they have nothing left to.
        let fabrikam = site.tenant("fabrikam").await;
        let theirs = site.account(&fabrikam, "Fabrikam").await;
        let admin = &fabrikam.admin.caller;
        name_approver(admin, &theirs, "Nora").await;
        let rita = reviewer(&site, "rita").await;
        admin.invite_owner(&theirs, NEXT).await.unwrap();
        let nick = identity(&site, NEXT).await;
        nick.caller.accept_ownership(&theirs).await.unwrap();
        assert_eq!(queue(&rita.caller, ReviewKind::Ownership, "").await.len(), 1);
        name_approver(admin, &theirs, "Nina").await;
        let approval = mailed_token(&site, NINA).await.unwrap();
        approve_as(&site, &approval).await;
        let left = queue(&rita.caller, ReviewKind::Ownership, "").await;
        assert!(left.is_empty());
        let token = mailed_token(&site, NINA).await.unwrap();
        let decided = nobody.decide_ownership(&token, consent).await.unwrap();
        assert_eq!(decided.state(), State::Owner);
    })
    .await;
}

/// The owner is the only manager, by its own doing.
async fn only_manager(site: &Site, account: &str, owner: &Person, admin: &Person) {
    let bit = 1_i64 << entente::proto::access::AccountRole::Manager as i64;
    let sql = format!("UPDATE grants SET roles = roles | {bit} WHERE principal_id = $1");
    change(site, &sql, [id(&owner.name).into()]).await;
    let sql = format!(
        "UPDATE grants SET roles = roles - {bit} WHERE principal_id = $1 AND scope_id = $2 AND (roles & {bit}) <> 0"
    );
    change(site, &sql, [id(&admin.name).into(), id(account).into()]).await;
}

// proves ACC-20, ROL-9
#[tokio::test]
async fn an_owner_who_is_the_only_manager_is_stopped_and_hands_on_all_the_same() {
    both(async |site| {
        let (contoso, account, olga) = owned(&site).await;
        let stop = stop_token(&site, PAULA).await;
        only_manager(&site, &account, &olga, &contoso.admin).await;
        site.nobody().stop_ownership(&stop).await.unwrap();
        let out = olga.caller.settings(&account).await;
        refused(out, Code::PermissionDenied, "PERMISSION_MISSING");

        let (fabrikam, theirs) = approved(&site, "fabrikam").await;
        let admin = &fabrikam.admin.caller;
        admin.invite_owner(&theirs, OLGA).await.unwrap();
        olga.caller.accept_ownership(&theirs).await.unwrap();
        let token = mailed_token(&site, ADA).await.unwrap();
        let nobody = site.nobody();
        let consent = OwnershipDecision::Consent;
        nobody.decide_ownership(&token, consent).await.unwrap();
        only_manager(&site, &theirs, &olga, &fabrikam.admin).await;
        // Its old mailbox is not the only one that hears of it, once the operator has proven another.
        let sql = "UPDATE users SET recovery_email = 'olga@proven.example' WHERE id = $1";
        change(&site, sql, [id(&olga.name).into()]).await;
        let nick = identity(&site, NEXT).await;
        olga.caller.hand_on(&theirs, NEXT).await.unwrap();
        let mails = letters(&site).await.len();
        nick.caller.accept_ownership(&theirs).await.unwrap();
        let both = ["olga@mail.example", "olga@proven.example"];
        let heard = told(&site, STOP, mails).await;
        assert!(
            both.iter().all(|one| heard.iter().any(|to| to == one)),
            "{heard:?}"
        );
        site.advance(7 * DAY_S + 60).await;
        crate::people::eventually(async || {
            site.settle().await;
            let next = again(&site, &nick).await;
            next.mine_of(&theirs, &["account.read"]).await == ["account.read"]
        })
        .await;
        let before = again(&site, &olga).await;
        assert!(before.mine_of(&theirs, &["account.read"]).await.is_empty());
    })
    .await;
}

/// Who is told that an ownership came to nothing, since so many mails ago.
async fn told_of_end(site: &Site, since: usize) -> Vec<String> {
    told(site, "was refused or stopped", since).await
}

// proves ACC-20, ACC-13, IDN-2
#[tokio::test]
async fn an_account_that_is_over_ends_an_ownership_on_its_way_and_its_owner_is_free() {
    both(async |site| {
        const CHANGED: &str = "account.v1.OwnershipChanged";
        let (_, account, olga) = owned(&site).await;
        let nick = identity(&site, NEXT).await;
        olga.caller.hand_on(&account, NEXT).await.unwrap();
        nick.caller.accept_ownership(&account).await.unwrap();
        let stop = stop_token(&site, PAULA).await;
        let tied = close(&olga.caller, &olga.name).await;
        refused(tied, Code::FailedPrecondition, "OWNS_ACCOUNT");
        // Closed while it is being handed on.
        let (mails, changes) = (
            letters(&site).await.len(),
            events(&site, CHANGED, &account).await,
        );
        let request = CloseAccountRequest {
            name: account.clone(),
            ..CloseAccountRequest::default()
        };
        olga.caller.accounts().close_account(request).await.unwrap();
        assert_eq!(told_of_end(&site, mails).await, [NEXT, OLGA]);
        assert_eq!(events(&site, CHANGED, &account).await, changes + 1);
        link_invalid(site.nobody().stop_ownership(&stop).await);
        let shown = olga.caller.settings(&account).await.unwrap();
        assert!(shown.has_owner && shown.pending_ownership.is_none());
        site.advance(8 * DAY_S).await;
        site.settle().await;
        let (owner, next) = (again(&site, &olga).await, again(&site, &nick).await);
        assert!(next.mine_of(&account, &["account.read"]).await.is_empty());

        // Whose account is over is free for another one, and bound by that.
        let (fabrikam, theirs) = approved(&site, "fabrikam").await;
        let admin = &fabrikam.admin.caller;
        admin.invite_owner(&theirs, OLGA).await.unwrap();
        owner.accept_ownership(&theirs).await.unwrap();
        let token = mailed_token(&site, ADA).await.unwrap();
        let (nobody, consent) = (site.nobody(), OwnershipDecision::Consent);
        let decided = nobody.decide_ownership(&token, consent).await.unwrap();
        assert_eq!(decided.state(), State::Owner);
        let tied = close(&owner, &olga.name).await;
        refused(tied, Code::FailedPrecondition, "OWNS_ACCOUNT");
        // Rejected for good while it is being handed on.
        owner.hand_on(&theirs, NEXT).await.unwrap();
        next.accept_ownership(&theirs).await.unwrap();
        let mails = letters(&site).await.len();
        let it = literal(&site, &theirs);
        let rejected = VerificationStepState::Rejected as i32;
        for sql in [
            format!("UPDATE accounts SET state = 3 WHERE id = {it}"),
            format!(
                "UPDATE verification_steps SET state = {rejected}, appeal_until = 1 WHERE kind = 3 AND account_id = {it}"
            ),
        ] {
            execute_on(&site, &sql).await;
        }
        site.advance(11 * 60).await;
        let admin = again(&site, &fabrikam.admin).await;
        eventually(async || {
            site.settle().await;
            let shown = admin.settings(&theirs).await.unwrap();
            shown.account.unwrap().state() == AccountState::Rejected
        })
        .await;
        assert_eq!(told_of_end(&site, mails).await, [NEXT, OLGA]);
        let shown = admin.settings(&theirs).await.unwrap();
        assert!(shown.pending_ownership.is_none());
        // It reads what was its own until it goes.
        let owner = again(&site, &olga).await;
        for over in [&account, &theirs] {
            owner.settings(over).await.unwrap();
        }
        let request = LeaveAccountRequest {
            name: olga.member_of(&account),
            ..LeaveAccountRequest::default()
        };
        owner.members().leave_account(request).await.unwrap();
        close(&owner, &olga.name).await.unwrap();
    })
    .await;
}

// proves ACC-20
#[tokio::test]
async fn nothing_is_consented_to_once_who_invited_is_gone() {
    both(async |site| {
        let (contoso, account) = approved(&site, "contoso").await;
        let cid = site.person(&contoso, "cid").await;
        let admin = &contoso.admin.caller;
        let manager = [entente::proto::access::AccountRole::Manager];
        add(admin, &account, &[&cid], &manager).await.unwrap();
        cid.caller.invite_owner(&account, OLGA).await.unwrap();
        let olga = identity(&site, OLGA).await;
        olga.caller.accept_ownership(&account).await.unwrap();
        let sql = "DELETE FROM grants WHERE principal_id = $1";
        change(&site, sql, [id(&cid.name).into()]).await;
        let token = mailed_token(&site, ADA).await.unwrap();
        let consent = OwnershipDecision::Consent;
        refused(
            site.nobody().decide_ownership(&token, consent).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        assert!(!admin.settings(&account).await.unwrap().has_owner);
    })
    .await;
}

// proves ACC-20, VER-6
#[tokio::test]
async fn a_reviewer_who_is_to_own_an_account_handles_nothing_of_it() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let rita = reviewer(&site, "rita").await;
        let rob = reviewer(&site, "rob").await;
        // By the address of the reviewer's mail.
        let email = "rita@operator.example";
        contoso
            .admin
            .caller
            .invite_owner(&account, email)
            .await
            .unwrap();
        let owner = identity(&site, email).await;
        owner.caller.accept_ownership(&account).await.unwrap();
        let waiting = queue(&rob.caller, ReviewKind::Ownership, "").await;
        involved(claim(&rita.caller, &waiting[0].name).await);
        claim(&rob.caller, &waiting[0].name).await.unwrap();
    })
    .await;
}

// proves ACC-20
#[tokio::test]
async fn only_the_owner_hands_on_and_the_next_one_begins_seven_days_after_accepting() {
    both(async |site| {
        let (contoso, account, olga) = owned(&site).await;
        let admin = &contoso.admin.caller;
        // Managers hold owner.tie, and hand nothing on.
        not_oneself(admin.hand_on(&account, NEXT).await);
        let nick = identity(&site, NEXT).await;
        refused(
            nick.caller.hand_on(&account, OLGA).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let own = olga.caller.hand_on(&account, OLGA).await;
        let status = refused(own, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["email"]);
        // What the owner stops, and what runs its course.
        let invited = olga.caller.hand_on(&account, NEXT).await.unwrap();
        assert!(invited.transfer);
        nick.caller.accept_ownership(&account).await.unwrap();
        let stop = mailed_token(&site, OLGA).await.unwrap();
        site.nobody().stop_ownership(&stop).await.unwrap();
        site.advance(8 * DAY_S).await;
        site.settle().await;
        let (next, owner) = (again(&site, &nick).await, again(&site, &olga).await);
        owner.settings(&account).await.unwrap();

        owner.hand_on(&account, NEXT).await.unwrap();
        let mails = letters(&site).await.len();
        let accepted = next.accept_ownership(&account).await.unwrap();
        assert_eq!(accepted.state(), State::HandingOver);
        assert_eq!(told(&site, STOP, mails).await, [ADA, ANN, OLGA, PAULA]);
        let stop = mailed_token(&site, ADA).await.unwrap();
        site.advance(7 * DAY_S - 60).await;
        site.settle().await;
        let (next, owner) = (again(&site, &nick).await, again(&site, &olga).await);
        assert_eq!(owner.mine_of(&account, FINANCE).await, FINANCE);
        assert!(next.mine_of(&account, &["account.read"]).await.is_empty());
        site.advance(60).await;
        crate::people::eventually(async || {
            site.settle().await;
            !next.mine_of(&account, &["account.read"]).await.is_empty()
        })
        .await;
        assert_eq!(next.mine_of(&account, FINANCE).await, FINANCE);
        assert!(owner.mine_of(&account, &["account.read"]).await.is_empty());
        link_invalid(site.nobody().stop_ownership(&stop).await);
        close(&owner, &olga.name).await.unwrap();
        let kept = close(&next, &nick.name).await;
        refused(kept, Code::FailedPrecondition, "OWNS_ACCOUNT");
    })
    .await;
}

// proves ACC-20
#[tokio::test]
async fn no_owner_hands_its_account_on_to_itself_under_a_new_address() {
    both(async |site| {
        let (_, account, olga) = owned(&site).await;
        olga.caller.hand_on(&account, NEXT).await.unwrap();
        change_email(&olga.caller, &olga.name, NEXT).await.unwrap();
        let token = mailed_token(&site, NEXT).await.unwrap();
        confirm_email(&site, &token).await.unwrap();
        let tried = olga.caller.accept_ownership(&account).await;
        refused(tried, Code::FailedPrecondition, "IDENTITY_ALREADY_TIED");
    })
    .await;
}

// proves ACC-20, VER-6
#[tokio::test]
async fn imported_account_without_an_approver_has_its_owner_decided_by_a_reviewer() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let olga = identity(&site, OLGA).await;
        let rita = reviewer(&site, "rita").await;
        admin.invite_owner(&account, OLGA).await.unwrap();
        olga.caller.accept_ownership(&account).await.unwrap();
        let waiting = queue(&rita.caller, ReviewKind::Ownership, "").await;
        assert_eq!(waiting.len(), 1);
        let decision = |decision: OwnershipDecision| ConfirmOwnershipRequest {
            account: account.clone(),
            decision: decision as i32,
            reason: "The deed was shown.".to_owned(),
            ..ConfirmOwnershipRequest::default()
        };
        let consent = decision(OwnershipDecision::Consent);
        let early = rita
            .caller
            .accounts()
            .confirm_ownership(consent.clone())
            .await;
        refused(early, Code::FailedPrecondition, "REVIEW_NOT_CLAIMED");
        let own = admin.accounts().confirm_ownership(consent.clone()).await;
        refused(own, Code::PermissionDenied, "PERMISSION_MISSING");
        claim(&rita.caller, &waiting[0].name).await.unwrap();
        let done = rita.caller.accounts().confirm_ownership(consent).await;
        assert_eq!(done.unwrap().into_inner().state(), State::Owner);
        olga.caller.settings(&account).await.unwrap();
        assert!(olga.caller.mine_of(&account, FINANCE).await.is_empty());
        // The managers can stop it all the same.
        let stop = stop_token(&site, ANN).await;
        site.nobody().stop_ownership(&stop).await.unwrap();

        // What is replaced is out of the queue.
        admin.invite_owner(&account, OLGA).await.unwrap();
        olga.caller.accept_ownership(&account).await.unwrap();
        assert_eq!(
            queue(&rita.caller, ReviewKind::Ownership, "").await.len(),
            1
        );
        admin.invite_owner(&account, NEXT).await.unwrap();
        assert!(
            queue(&rita.caller, ReviewKind::Ownership, "")
                .await
                .is_empty()
        );
        let nick = identity(&site, NEXT).await;
        nick.caller.accept_ownership(&account).await.unwrap();
        let waiting = queue(&rita.caller, ReviewKind::Ownership, "").await;
        claim(&rita.caller, &waiting[0].name).await.unwrap();
        let refuse = decision(OwnershipDecision::Refuse);
        let done = rita.caller.accounts().confirm_ownership(refuse).await;
        assert_eq!(done.unwrap().into_inner().state(), State::Refused);
        assert!(!admin.settings(&account).await.unwrap().has_owner);
    })
    .await;
}
