//! AccountService: opening accounts, in one call and in steps, who may, and under which names.

mod anew;
pub mod names;
mod states;
pub mod steps;
pub mod verification;

use std::collections::BTreeSet;

use entente::proto::{
    access::{AccountRole, AgreementKind},
    account::{
        Account, AccountState, AccountType, AgreementConsent, AskGlobalAdminRequest,
        CreateAccountRequest, CreateAccountResponse, GetAccountRequest, ListAccountsRequest,
        ListRequiredActionsRequest, ListRequirementsRequest, Member, NewTenant, PostalAddress,
        Requirement, RequirementBlock, RequirementCode, SellerContact, SubmitAccountRequest,
        UpdateAccountRequest,
    },
};
use tonic::{Code, Response, Status};

use crate::{
    agreements::{accept, acceptances},
    claims::row_counts,
    dynamic,
    harness::{Caller, Site, TenantSite, both, fields, new_tenant, refused},
    members::list,
    network::{contact, join, new_membership},
    people::{denied, events, identity, letters, mask, operator_tenant, second_admin},
};

/// An address in Paris.
pub fn address() -> PostalAddress {
    PostalAddress {
        region_code: "FR".to_owned(),
        postal_code: "75008".to_owned(),
        locality: "Paris".to_owned(),
        address_lines: vec!["1 rue Royale".to_owned()],
        ..PostalAddress::default()
    }
}

/// An account that lacks nothing.
pub fn whole(publisher: &str) -> Account {
    Account {
        publisher_display_name: publisher.to_owned(),
        legal_name: format!("{publisher} SA"),
        country_code: "FR".to_owned(),
        address: Some(address()),
        primary_contact: Some(contact("Paula")),
        seller_contact: Some(SellerContact {
            contact: Some(contact("Selma")),
            address: Some(address()),
        }),
        company_approver: Some(contact("Ada")),
        ..Account::default()
    }
}

/// The request of a draft.
pub fn draft_of(account: Account) -> CreateAccountRequest {
    CreateAccountRequest {
        account: Some(account),
        ..CreateAccountRequest::default()
    }
}

/// The request of an account all in one.
pub fn all_in_one(account: Account) -> CreateAccountRequest {
    CreateAccountRequest {
        submit: true,
        signatory_confirmed: true,
        agreement: Some(consent()),
        ..draft_of(account)
    }
}

fn consent() -> AgreementConsent {
    AgreementConsent {
        version: 0,
        language_code: "en".to_owned(),
    }
}

/// Opens an account.
pub async fn open(
    caller: &Caller,
    request: CreateAccountRequest,
) -> Result<CreateAccountResponse, Status> {
    let done = caller.accounts().create_account(request).await;
    done.map(Response::into_inner)
}

/// A tenant whose admin has joined the network.
pub async fn member_tenant(site: &Site, prefix: &str) -> TenantSite {
    let tenant = site.tenant(prefix).await;
    join(&tenant.admin.caller, new_membership(prefix))
        .await
        .unwrap();
    tenant
}

pub async fn update(caller: &Caller, account: Account, paths: &[&str]) -> Result<Account, Status> {
    let request = UpdateAccountRequest {
        account: Some(account),
        update_mask: Some(mask(paths)),
        ..UpdateAccountRequest::default()
    };
    let done = caller.accounts().update_account(request).await;
    done.map(Response::into_inner)
}

async fn submit(caller: &Caller, name: &str) -> Result<Account, Status> {
    let request = SubmitAccountRequest {
        name: name.to_owned(),
        signatory_confirmed: true,
        ..SubmitAccountRequest::default()
    };
    let done = caller.accounts().submit_account(request).await;
    done.map(Response::into_inner)
}

/// What an account has to do.
pub async fn required(caller: &Caller, account: &str) -> Result<Vec<Requirement>, Status> {
    let request = ListRequiredActionsRequest {
        parent: account.to_owned(),
    };
    let done = caller.accounts().list_required_actions(request).await?;
    Ok(done.into_inner().requirements)
}

pub async fn get(caller: &Caller, name: &str) -> Result<Account, Status> {
    let name = name.to_owned();
    let done = caller
        .accounts()
        .get_account(GetAccountRequest { name })
        .await;
    done.map(Response::into_inner)
}

/// What an enrolment lacks.
async fn lacking(caller: &Caller, account: &str) -> Result<Vec<Requirement>, Status> {
    let request = ListRequirementsRequest {
        parent: account.to_owned(),
    };
    let done = caller.verification().list_requirements(request).await?;
    Ok(done.into_inner().requirements)
}

/// The accounts that somebody is shown.
async fn listed(caller: &Caller) -> Vec<String> {
    let request = ListAccountsRequest::default();
    let done = caller.accounts().list_accounts(request).await.unwrap();
    let all = done.into_inner().accounts.into_iter();
    all.map(|account| account.name).collect()
}

fn roles_of(members: &[Member], who: &str) -> BTreeSet<i32> {
    let member = members.iter().find(|m| m.principal == who).unwrap();
    let rights = member.rights.clone().unwrap_or_default();
    rights.roles.into_iter().collect()
}

/// Does what a requirement says, by the method that it names.
pub async fn satisfy(caller: &Caller, name: &str, requirement: &Requirement, from: &Account) {
    let paths = dynamic::methods();
    assert!(paths.contains_key(&format!("/{}", requirement.method)));
    match requirement.method.rsplit('/').next().unwrap() {
        "UpdateAccount" => {
            let top = requirement.field.split('.').next().unwrap();
            let account = Account {
                name: name.to_owned(),
                ..from.clone()
            };
            update(caller, account, &[top]).await.unwrap();
        }
        "AcceptAgreement" => {
            let kind = AgreementKind::PartnerNetwork;
            accept(caller, name, kind, requirement.agreement_version)
                .await
                .unwrap();
        }
        "SubmitAccount" => {
            submit(caller, name).await.unwrap();
        }
        other => panic!("say here how {other} is called"),
    }
}

/// An account without what differs from one to the next.
fn bare(mut account: Account) -> Account {
    for text in [
        &mut account.name,
        &mut account.seller_id,
        &mut account.network_membership,
        &mut account.etag,
        &mut account.publisher_display_name,
        &mut account.legal_name,
    ] {
        text.clear();
    }
    (account.create_time, account.update_time) = (None, None);
    assert!(account.submit_time.take().is_some());
    account
}

// proves ACC-1, ACC-6, ACC-7, ACC-13, AGR-3, VER-7, NET-1
#[tokio::test]
async fn an_empty_draft_becomes_pending_by_doing_what_its_requirements_say() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin;
        let empty = Account {
            country_code: "FR".to_owned(),
            ..Account::default()
        };
        let made = open(&ann.caller, draft_of(empty)).await.unwrap();
        let account = made.account.unwrap();
        assert_eq!(account.state(), AccountState::Draft);
        assert!(account.seller_id.starts_with('S'));
        assert!(!account.network_membership.is_empty());
        assert_eq!(
            events(&site, "account.v1.AccountOpened", &account.name).await,
            1
        );
        let members = list(&ann.caller, &account.name, "").await.unwrap();
        assert_eq!(
            roles_of(&members, &ann.name),
            BTreeSet::from([AccountRole::Manager as i32, AccountRole::AdminAgent as i32])
        );
        let name = account.name;
        let first = required(&ann.caller, &name).await.unwrap();
        assert_eq!(first, made.requirements);
        let codes: BTreeSet<_> = first.iter().map(|r| r.code).collect();
        assert_eq!(
            codes,
            BTreeSet::from([
                RequirementCode::Field as i32,
                RequirementCode::Agreement as i32,
                RequirementCode::Signatory as i32,
                RequirementCode::Submission as i32
            ])
        );
        assert!(first.iter().all(|r| !r.text.is_empty()));
        let mut steps = 0;
        let mut pending = get(&ann.caller, &name).await.unwrap();
        while pending.state() == AccountState::Draft {
            let all = required(&ann.caller, &name).await.unwrap();
            satisfy(&ann.caller, &name, &all[0], &whole("Contoso")).await;
            pending = get(&ann.caller, &name).await.unwrap();
            steps += 1;
            assert!(steps < 20, "{all:?}");
        }
        assert_eq!(pending.state(), AccountState::Pending);
        assert_eq!(
            events(&site, "account.v1.AccountStateChanged", &name).await,
            1
        );
        // It isn't submitted twice.
        refused(
            submit(&ann.caller, &name).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );

        // All in one call: the same account.
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let made = open(&fabrikam.admin.caller, all_in_one(whole("Fabrikam")))
            .await
            .unwrap();
        // What is left is not the company's to do before it was submitted.
        let left = made.requirements.iter().map(Requirement::blocks);
        assert!(left.clone().all(|b| b == RequirementBlock::Activation) && left.count() == 2);
        let at_once = made.account.unwrap();
        let kept = acceptances(&fabrikam.admin.caller, &at_once.name).await;
        assert_eq!(kept.unwrap().len(), 1);
        assert_eq!(bare(at_once), bare(pending));
    })
    .await;
}

// proves ACC-1, ACC-5
#[tokio::test]
async fn all_that_is_missing_or_wrong_is_named_at_once_and_nothing_is_left() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin.caller;
        let before = row_counts(&site.app).await;
        let empty = Account {
            country_code: "FR".to_owned(),
            ..Account::default()
        };
        let request = CreateAccountRequest {
            submit: true,
            ..draft_of(empty)
        };
        let status = refused(
            open(ann, request).await,
            Code::FailedPrecondition,
            "ENROLMENT_INCOMPLETE",
        );
        let named: BTreeSet<_> = fields(&status).into_iter().collect();
        let expected = [
            "account.address",
            "account.company_approver",
            "account.legal_name",
            "account.primary_contact",
            "account.publisher_display_name",
            "account.seller_contact.address",
            "account.seller_contact.contact",
            "agreement",
            "signatory_confirmed",
        ];
        assert_eq!(named, expected.map(str::to_owned).into());

        let mut wrong = whole("Contoso");
        wrong.address.as_mut().unwrap().postal_code = "SW1A 1AA".to_owned();
        let seller = wrong.seller_contact.as_mut().unwrap();
        seller.address.as_mut().unwrap().region_code = "DE".to_owned();
        seller.address.as_mut().unwrap().postal_code = String::new();
        wrong.primary_contact.as_mut().unwrap().email = "paula".to_owned();
        wrong.company_approver.as_mut().unwrap().phone_number = "0142685300".to_owned();
        let status = refused(
            open(ann, all_in_one(wrong)).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let named: BTreeSet<_> = fields(&status).into_iter().collect();
        let expected = [
            "account.address.postal_code",
            "account.company_approver.phone_number",
            "account.primary_contact.email",
            "account.seller_contact.address.postal_code",
        ];
        assert_eq!(named, expected.map(str::to_owned).into());
        let mut abroad = whole("Contoso");
        let there = abroad.address.as_mut().unwrap();
        (there.region_code, there.postal_code) = ("GB".to_owned(), "SW1A 1AA".to_owned());
        let status = refused(
            open(ann, all_in_one(abroad)).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["account.address.region_code"]);
        let tables = ["accounts", "grants", "publisher_names", "associations"];
        let after = row_counts(&site.app).await;
        for table in tables {
            assert_eq!(before[table], after[table], "{table}");
        }
        // Parts of what is there, what isn't at all, and what is no profile: one answer.
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let fay = &fabrikam.admin.caller;
        open(fay, draft_of(whole("Tailspin"))).await.unwrap();
        let before = row_counts(&site.app).await;
        let mut begun = whole("TAILSPIN");
        begun.company_approver = None;
        let tried = |account: &Account| CreateAccountRequest {
            submit: true,
            ..draft_of(account.clone())
        };
        let mut in_part = begun.clone();
        in_part
            .primary_contact
            .as_mut()
            .unwrap()
            .phone_number
            .clear();
        let there = in_part.address.as_mut().unwrap();
        (there.locality, there.postal_code) = (String::new(), "SW1A 1AA".to_owned());
        let status = refused(
            open(ann, tried(&in_part)).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let named: BTreeSet<_> = fields(&status).into_iter().collect();
        let all = [
            "account.address.locality",
            "account.address.postal_code",
            "account.company_approver",
            "account.primary_contact.phone_number",
            "agreement",
            "signatory_confirmed",
        ];
        assert_eq!(named, all.map(str::to_owned).into());
        // A name that another has hides nothing else.
        let status = refused(
            open(ann, tried(&begun)).await,
            Code::FailedPrecondition,
            "ENROLMENT_INCOMPLETE",
        );
        let named: BTreeSet<_> = fields(&status).into_iter().collect();
        let all = [
            "account.company_approver",
            "account.publisher_display_name",
            "agreement",
            "signatory_confirmed",
        ];
        assert_eq!(named, all.map(str::to_owned).into());
        // Where nothing else is wrong, the name is refused as such.
        refused(
            open(ann, all_in_one(whole("TAILSPIN"))).await,
            Code::AlreadyExists,
            "PUBLISHER_NAME_TAKEN",
        );
        let after = row_counts(&site.app).await;
        for table in tables {
            assert_eq!(before[table], after[table], "{table}");
        }
    })
    .await;
}

// proves ACC-1, ACC-2, NET-1
#[tokio::test]
async fn accounts_are_opened_by_global_admins_of_companies_in_the_network_only() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let dee = site.person(&contoso, "dee").await;
        let ida = identity(&site, "ida@new.example").await;
        let no_admin = |tried| refused(tried, Code::PermissionDenied, "NOT_GLOBAL_ADMIN");
        no_admin(open(&dee.caller, draft_of(whole("Contoso"))).await);
        no_admin(open(&ida.caller, draft_of(whole("Contoso"))).await);
        let with_token = |of: &Caller| CreateAccountRequest {
            tenant_admin_token: of.token.clone().unwrap(),
            ..draft_of(whole("Contoso"))
        };
        no_admin(open(&ida.caller, with_token(&dee.caller)).await);
        // Only identities prove a tenant by a token.
        no_admin(open(&dee.caller, with_token(&contoso.admin.caller)).await);
        let mut bad = with_token(&dee.caller);
        bad.tenant_admin_token = "nonsense".to_owned();
        let status = refused(
            open(&ida.caller, bad).await,
            Code::InvalidArgument,
            "TOKEN_INVALID",
        );
        assert_eq!(fields(&status), ["tenant_admin_token"]);
        let staff = operator_tenant(&site).await;
        refused(
            open(&staff.admin.caller, draft_of(whole("Operator"))).await,
            Code::FailedPrecondition,
            "OPERATOR_TENANT",
        );
        let person = Account {
            r#type: AccountType::Individual as i32,
            ..whole("Contoso")
        };
        refused(
            open(&contoso.admin.caller, draft_of(person)).await,
            Code::FailedPrecondition,
            "INDIVIDUAL_ACCOUNTS_DEPRECATED",
        );

        // Without a membership, or with another company's.
        let fabrikam = site.tenant("fabrikam").await;
        let status = refused(
            open(&fabrikam.admin.caller, draft_of(whole("Fabrikam"))).await,
            Code::FailedPrecondition,
            "NOT_NETWORK_MEMBER",
        );
        assert!(status.message().contains("JoinNetwork"));
        let theirs = join(&dee.caller, new_membership("Dee")).await.unwrap();
        let request = CreateAccountRequest {
            network_membership: theirs.name.clone(),
            ..draft_of(whole("Fabrikam"))
        };
        refused(
            open(&fabrikam.admin.caller, request).await,
            Code::FailedPrecondition,
            "NOT_NETWORK_MEMBER",
        );
        // Somebody else of the tenant joined: that one is named, and used once.
        let request = CreateAccountRequest {
            network_membership: theirs.name.clone(),
            ..draft_of(whole("Contoso"))
        };
        let made = open(&contoso.admin.caller, request).await.unwrap();
        assert_eq!(made.account.unwrap().network_membership, theirs.name);
        let request = CreateAccountRequest {
            network_membership: theirs.name,
            ..draft_of(whole("Contoso Two"))
        };
        refused(
            open(&contoso.admin.caller, request).await,
            Code::FailedPrecondition,
            "NOT_NETWORK_MEMBER",
        );
    })
    .await;
}

// proves ACC-1, ACC-6
#[tokio::test]
async fn an_identity_opens_with_an_admins_token_or_a_new_tenant_and_owns_the_account() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ida = identity(&site, "ida@new.example").await;
        join(&ida.caller, new_membership("Contoso")).await.unwrap();
        let request = CreateAccountRequest {
            tenant_admin_token: contoso.admin.caller.token.clone().unwrap(),
            ..all_in_one(whole("Contoso"))
        };
        let made = open(&ida.caller, request).await.unwrap();
        let account = made.account.unwrap();
        assert_eq!(account.state(), AccountState::Pending);
        let members = list(&ida.caller, &account.name, "").await.unwrap();
        let owner = BTreeSet::from([AccountRole::Owner as i32]);
        assert_eq!(roles_of(&members, &ida.name), owner);
        let first = BTreeSet::from([AccountRole::Manager as i32, AccountRole::AdminAgent as i32]);
        assert_eq!(roles_of(&members, &contoso.admin.name), first);

        let eva = identity(&site, "eva@new.example").await;
        join(&eva.caller, new_membership("Adatum")).await.unwrap();
        let tenant = new_tenant("adatum");
        let request = CreateAccountRequest {
            new_tenant: Some(NewTenant {
                tenant: tenant.tenant,
                first_admin: tenant.first_admin,
            }),
            ..draft_of(whole("Adatum"))
        };
        let made = open(&eva.caller, request).await.unwrap();
        let (account, admin) = (made.account.unwrap(), made.first_admin.unwrap());
        assert!(!made.temporary_password.is_empty());
        let members = list(&eva.caller, &account.name, "").await.unwrap();
        assert_eq!(roles_of(&members, &eva.name), owner);
        assert_eq!(roles_of(&members, &admin.name), first);
        // The owner finishes it.
        let request = SubmitAccountRequest {
            name: account.name.clone(),
            signatory_confirmed: true,
            agreement: Some(consent()),
            ..SubmitAccountRequest::default()
        };
        let done = eva.caller.accounts().submit_account(request).await;
        assert_eq!(done.unwrap().into_inner().state(), AccountState::Pending);
    })
    .await;
}

// proves ACC-1
#[tokio::test]
async fn another_global_admin_finishes_a_draft_and_nobody_else_does() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let gus = second_admin(&site, &contoso, "gus").await;
        let dee = site.person(&contoso, "dee").await;
        let fabrikam = site.tenant("fabrikam").await;
        let mut begun = whole("Contoso");
        begun.legal_name = String::new();
        let made = open(&contoso.admin.caller, draft_of(begun)).await.unwrap();
        let name = made.account.unwrap().name;
        let with_name = Account {
            name: name.clone(),
            ..whole("Contoso")
        };
        for stranger in [&dee.caller, &fabrikam.admin.caller] {
            denied(update(stranger, with_name.clone(), &["legal_name"]).await);
            denied(submit(stranger, &name).await);
            denied(get(stranger, &name).await);
            denied(required(stranger, &name).await);
            denied(lacking(stranger, &name).await);
            assert!(listed(stranger).await.is_empty());
        }
        // The other admin finds the draft, once asked, and reads what it lacks.
        assert_eq!(listed(&gus.caller).await, [name.as_str()]);
        assert_eq!(listed(&contoso.admin.caller).await, [name.as_str()]);
        let asked = AskGlobalAdminRequest::default();
        dee.caller.accounts().ask_global_admin(asked).await.unwrap();
        let mails = letters(&site).await;
        let mut told = mails.iter().filter(|l| l.text.contains("Given dee"));
        assert!(told.all(|l| l.text.contains(&name)));
        assert_eq!(get(&gus.caller, &name).await.unwrap().name, name);
        let due = required(&gus.caller, &name).await.unwrap();
        assert!(due.iter().any(|r| r.field == "legal_name"));
        assert_eq!(lacking(&gus.caller, &name).await.unwrap(), due);
        let done = update(&gus.caller, with_name.clone(), &["legal_name"]).await;
        assert_eq!(done.unwrap().legal_name, "Contoso SA");
        let request = SubmitAccountRequest {
            name: name.clone(),
            agreement: Some(consent()),
            signatory_confirmed: true,
            ..SubmitAccountRequest::default()
        };
        let done = gus.caller.accounts().submit_account(request).await;
        assert_eq!(done.unwrap().into_inner().state(), AccountState::Pending);
        // It is no draft any more, and gus no member.
        denied(update(&gus.caller, with_name, &["legal_name"]).await);
        denied(submit(&gus.caller, &name).await);
        denied(get(&gus.caller, &name).await);
        denied(required(&gus.caller, &name).await);
        denied(lacking(&gus.caller, &name).await);
        assert!(listed(&gus.caller).await.is_empty());
    })
    .await;
}

// proves VER-7, ACC-1
#[tokio::test]
async fn the_word_to_may_sign_is_a_requirement_and_a_draft_keeps_it_until_the_company_is_another() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin.caller;
        let given = CreateAccountRequest {
            signatory_confirmed: true,
            agreement: Some(consent()),
            ..draft_of(whole("Contoso"))
        };
        let made = open(ann, given).await.unwrap();
        let account = made.account.unwrap();
        let lacks_word = |due: &[Requirement]| {
            let mut of = due.iter();
            of.any(|r| {
                r.code() == RequirementCode::Signatory && r.method.ends_with("/SubmitAccount")
            })
        };
        assert!(!lacks_word(&made.requirements));
        let without = SubmitAccountRequest {
            name: account.name.clone(),
            validate_only: true,
            ..SubmitAccountRequest::default()
        };
        let done = ann.accounts().submit_account(without.clone()).await;
        assert_eq!(done.unwrap().into_inner().state(), AccountState::Pending);
        // Of whom else it was said, nobody knows.
        let renamed = Account {
            name: account.name.clone(),
            legal_name: "Contoso Holding SA".to_owned(),
            ..whole("Contoso")
        };
        update(ann, renamed, &["legal_name"]).await.unwrap();
        assert!(lacks_word(&required(ann, &account.name).await.unwrap()));
        let done = ann.accounts().submit_account(without).await;
        let status = refused(done, Code::FailedPrecondition, "ENROLMENT_INCOMPLETE");
        assert_eq!(fields(&status), ["signatory_confirmed"]);
        let done = submit(ann, &account.name).await.unwrap();
        assert_eq!(done.state(), AccountState::Pending);
    })
    .await;
}
