//! Who may call what: every method of ours times every kind of caller, on both databases, held against `access.txt`.
//! `ENTENTE_BLESS=1` writes the table anew; read what changed before committing it.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use entente::{
    access::roles::{self, ACCOUNT_ROLES, OPERATOR_ROLES, Permission, TENANT_ROLES},
    proto::{
        access::{AccountRole, AgreementKind, GetRoleTableRequest, Program},
        account::{
            Account, AddMembersRequest, GrantFinanceRequest, ImportAccountRequest, ReviewKind,
            TransferOwnershipRequest,
        },
        directory::{
            Application, CompletePasswordRecoveryRequest, CreateApplicationRequest,
            CreateGroupRequest, CreateKeyRequest, CreateUserRequest, DirectoryRole,
            InviteUsersRequest, KeyCredential, ResetPasswordRequest, SignInRequest, WhoAmIRequest,
            sign_in_request::Credential,
        },
        operator::{AssignOperatorRolesRequest, ListMailsRequest, OperatorRole},
        relationship::AcceptRelationshipRequest,
    },
};
use prost::Message as _;
use prost_reflect::MethodDescriptor;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    agreements::{publish, version},
    domains::naming,
    dynamic::{self, Names},
    enrolment::names::reserve,
    harness::{
        ADMINISTRATOR, Caller, PASSWORD, Person, Site, TenantSite, both, membership, new_user,
        refused, request_id, rights,
    },
    invitations::{addresses, invited, with_account, with_token},
    network::{join, new_membership},
    offers::{app_offer, create},
    people::{identity, link_invalid},
    programs::{enroll, enrolling},
};

/// Kinds of callers, by the heading of their column.
const COLUMNS: &[(&str, &str)] = &[
    ("nobody", "nobody: no token"),
    (
        "stranger",
        "global admin of another tenant and manager of that tenant's account",
    ),
    (
        "elsewhere",
        "user of the tenant, manager of another of its accounts",
    ),
    ("plain", "user of the tenant without roles"),
    ("global", "GLOBAL_ADMIN of the tenant"),
    ("billing", "BILLING_ADMIN of the tenant"),
    ("helpdesk", "HELPDESK_ADMIN of the tenant"),
    ("manager", "member with MANAGER"),
    ("develop", "member with DEVELOPER"),
    ("finance", "member with FINANCE"),
    ("agent", "member with ADMIN_AGENT"),
    ("hagent", "member with HELPDESK_AGENT"),
    ("owner", "personal identity that owns the account"),
    ("member", "member without roles"),
    (
        "opadmin",
        "OPERATOR_ADMIN who is GLOBAL_ADMIN of the operator tenant",
    ),
    ("opadmin2", "OPERATOR_ADMIN without directory role"),
    ("reviewer", "OPERATOR_REVIEWER"),
    ("opfin", "OPERATOR_FINANCE"),
    ("support", "OPERATOR_SUPPORT"),
    ("service", "application with OPERATOR_SERVICE"),
    ("app", "application of the tenant without rights"),
    ("identity", "personal identity"),
    ("temp", "user with a temporary password"),
    (
        "behalf",
        "application with OPERATOR_SERVICE on behalf of the GLOBAL_ADMIN",
    ),
    (
        "posing",
        "application without rights on behalf of the GLOBAL_ADMIN",
    ),
];

/// A tenant with everything in it that requests name, and whoever calls.
pub struct World {
    pub names: Names,
    /// What the stranger has of its own.
    pub own: Names,
    pub callers: BTreeMap<&'static str, Caller>,
}

const OPERATOR: &str = "operator";

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap()
}

/// A claim of an access token.
pub fn claim(token: &str, claim: &str) -> String {
    let payload = token.split('.').nth(1).unwrap();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    claims[claim].as_str().unwrap().to_owned()
}

fn session_of(token: &str) -> String {
    if claim(token, "knd") == "identity" {
        let (id, session) = (claim(token, "sub"), claim(token, "sid"));
        return format!("identities/{id}/sessions/{session}");
    }
    format!(
        "tenants/{}/users/{}/sessions/{}",
        claim(token, "tid"),
        claim(token, "sub"),
        claim(token, "sid")
    )
}

async fn domain(tenant: &TenantSite, domain_name: &str) -> String {
    let request = naming(&tenant.name, domain_name);
    let made = tenant.admin.caller.domains().create_domain(request).await;
    made.unwrap().into_inner().name
}

async fn application(
    site: &Site,
    tenant: &TenantSite,
    display_name: &str,
) -> (String, String, Caller) {
    let admin = || tenant.admin.caller.applications();
    let request = CreateApplicationRequest {
        parent: tenant.name.clone(),
        application: Some(Application {
            display_name: display_name.to_owned(),
            ..Application::default()
        }),
        ..CreateApplicationRequest::default()
    };
    let made = admin()
        .create_application(request)
        .await
        .unwrap()
        .into_inner();
    let request = CreateKeyRequest {
        parent: made.name.clone(),
        ..CreateKeyRequest::default()
    };
    let key = admin().create_key(request).await.unwrap().into_inner();
    let credential = KeyCredential {
        client_id: made.client_id,
        secret: key.secret,
    };
    let request = SignInRequest {
        credential: Some(Credential::Key(credential)),
        request_id: String::new(),
    };
    let tokens = site
        .nobody()
        .sessions()
        .sign_in(request)
        .await
        .unwrap()
        .into_inner();
    (
        made.name,
        key.key.unwrap().name,
        site.with_token(&tokens.access_token),
    )
}

async fn account(
    site: &Site,
    tenant: &TenantSite,
    publisher: &str,
    manager: &Person,
    owner: &str,
) -> String {
    let request = ImportAccountRequest {
        account: Some(Account {
            publisher_display_name: publisher.to_owned(),
            legal_name: format!("{publisher} Ltd"),
            country_code: "FR".to_owned(),
            ..Account::default()
        }),
        tenant: tenant.name.clone(),
        first_manager: manager.name.clone(),
        owner: owner.to_owned(),
        ..ImportAccountRequest::default()
    };
    let operator = site.operator().await;
    operator
        .accounts()
        .import_account(request)
        .await
        .unwrap()
        .into_inner()
        .name
}

/// Everything of a tenant that a request can name; `target` is whom things are done to.
fn named(
    tenant: &str,
    target: &Person,
    application: &str,
    key: &str,
    account: &str,
    staff: &str,
    mail: &str,
) -> Names {
    let token = target.caller.token.as_deref().unwrap();
    Names::default()
        .with("entente.dev/Tenant", tenant)
        .with("child of entente.dev/AuditEvent", tenant)
        .with("child of entente.dev/Acceptance", account)
        .with("resource", tenant)
        .with("checks.resource", tenant)
        .with("entente.dev/User", &target.name)
        .with("*", &target.name)
        .with("entente.dev/Session", session_of(token))
        .with("entente.dev/Application", application)
        .with("entente.dev/Key", key)
        .with("entente.dev/Account", account)
        .with("entente.dev/Member", target.member_of(account))
        .with(
            "entente.dev/TenantAssociation",
            format!("{account}/tenantAssociations/{}", last(tenant)),
        )
        .with(
            "entente.dev/Document",
            format!("{account}/documents/{}", request_id()),
        )
        .with("entente.dev/Staff", staff)
        .with("entente.dev/Mail", mail)
}

/// A version of an agreement that can be withdrawn still.
async fn upcoming_agreement(operator: &Caller) -> String {
    let upcoming = version(AgreementKind::Publisher, Some(4_000_000_000), None);
    publish(operator, upcoming).await.unwrap().name
}

pub async fn world(site: &Site) -> World {
    let mut callers = BTreeMap::new();
    callers.insert("nobody", site.nobody());

    let contoso = site.tenant("contoso").await;
    let mia = site.person(&contoso, "mia").await;
    let target = site
        .person_with(&contoso, "target", |r| {
            r.user.as_mut().unwrap().recovery_email = "target@contoso.example".to_owned();
        })
        .await;
    let olga = identity(site, "olga@new.example").await;
    let home = account(site, &contoso, "Contoso", &mia, &olga.name).await;
    let (app, key, app_caller) = application(site, &contoso, "Reporter").await;
    callers.insert("app", app_caller);

    for (column, role) in [
        ("manager", Some(AccountRole::Manager)),
        ("develop", Some(AccountRole::Developer)),
        ("finance", None),
        ("agent", Some(AccountRole::AdminAgent)),
        ("hagent", Some(AccountRole::HelpdeskAgent)),
        ("member", None),
        ("target", None),
    ] {
        let person = if column == "target" {
            target.clone()
        } else {
            site.person(&contoso, column).await
        };
        let request = AddMembersRequest {
            parent: home.clone(),
            principals: vec![person.name.clone()],
            rights: Some(rights(role.as_slice())),
            ..AddMembersRequest::default()
        };
        mia.caller.members().add_members(request).await.unwrap();
        if column == "finance" {
            let request = GrantFinanceRequest {
                name: person.member_of(&home),
                ..GrantFinanceRequest::default()
            };
            olga.caller.members().grant_finance(request).await.unwrap();
        }
        if column != "target" {
            callers.insert(column, person.caller);
        }
    }
    callers.insert("owner", olga.caller.clone());

    let mallory = site.person(&contoso, "mallory").await;
    account(site, &contoso, "Contoso Two", &mallory, "").await;
    callers.insert("elsewhere", mallory.caller);
    callers.insert("plain", site.person(&contoso, "plain").await.caller);
    callers.insert(
        "global",
        site.sign_in(&contoso.admin.sign_in_name, PASSWORD).await,
    );
    for (column, role) in [
        ("billing", DirectoryRole::BillingAdmin),
        ("helpdesk", DirectoryRole::HelpdeskAdmin),
    ] {
        let person = site
            .person_with(&contoso, column, |r| {
                r.user.as_mut().unwrap().directory_roles = vec![role as i32];
            })
            .await;
        callers.insert(column, person.caller);
    }
    let fresh = contoso.admin.caller.users();
    let fresh = { fresh }
        .create_user(new_user(&contoso.name, "temp"))
        .await
        .unwrap()
        .into_inner();
    let sign_in_name = fresh.user.unwrap().sign_in_name;
    callers.insert(
        "temp",
        site.sign_in(&sign_in_name, &fresh.temporary_password).await,
    );

    let operator = site.operator().await;
    let me = operator
        .sessions()
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();
    let staff_tenant = TenantSite {
        name: me.tenant.unwrap().name,
        admin: Person {
            name: me.principal,
            sign_in_name: ADMINISTRATOR.to_owned(),
            caller: operator.clone(),
        },
    };
    callers.insert("opadmin", site.operator().await);
    let assign = async |principal: &str, role: OperatorRole| {
        let request = AssignOperatorRolesRequest {
            principal: principal.to_owned(),
            roles: vec![role as i32],
            ..AssignOperatorRolesRequest::default()
        };
        operator
            .staff()
            .assign_operator_roles(request)
            .await
            .unwrap()
            .into_inner()
            .name
    };
    let mut staff = String::new();
    for (column, role) in [
        ("opadmin2", OperatorRole::OperatorAdmin),
        ("reviewer", OperatorRole::OperatorReviewer),
        ("opfin", OperatorRole::OperatorFinance),
        ("support", OperatorRole::OperatorSupport),
    ] {
        let person = site.person(&staff_tenant, column).await;
        staff = assign(&person.name, role).await;
        callers.insert(column, person.caller);
    }
    let (service, _, service_caller) = application(site, &staff_tenant, "Portal").await;
    assign(&service, OperatorRole::OperatorService).await;
    let global = site.sign_in(&contoso.admin.sign_in_name, PASSWORD).await;
    callers.insert("behalf", site.on_behalf(&service_caller, &global));
    let global = site.sign_in(&contoso.admin.sign_in_name, PASSWORD).await;
    let posing = site.on_behalf(&callers["app"], &global);
    callers.insert("posing", posing);
    callers.insert("service", service_caller);

    // What a mail is about doesn't matter.
    let mails = operator
        .mails()
        .list_mails(ListMailsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mail = mails.mails.first().map_or_else(
        || format!("operator/mails/{}", request_id()),
        |m| m.name.clone(),
    );
    let candidate = site.person(&contoso, "candidate").await;
    let helper = site.person(&staff_tenant, "helper").await;
    let sleeper = site.person(&contoso, "sleeper").await;
    let request = AddMembersRequest {
        parent: home.clone(),
        principals: vec![sleeper.name.clone()],
        rights: Some(rights(&[AccountRole::AdminAgent])),
        ..AddMembersRequest::default()
    };
    mia.caller.members().add_members(request).await.unwrap();
    let request = ResetPasswordRequest {
        name: sleeper.name.clone(),
        ..ResetPasswordRequest::default()
    };
    contoso
        .admin
        .caller
        .users()
        .reset_password(request)
        .await
        .unwrap();
    let second = site.tenant("adatum").await;
    let team = crate::groups::group(&contoso, "Team", &[&target], None).await;
    // What this one gives, few may give.
    let rich = crate::groups::group(&contoso, "Developers", &[], None).await;
    let request = AddMembersRequest {
        parent: home.clone(),
        principals: vec![rich.clone()],
        rights: Some(rights(&[AccountRole::Developer])),
        ..AddMembersRequest::default()
    };
    mia.caller.members().add_members(request).await.unwrap();
    // Whose token goes with each request that takes one; the names that acceptance needs do not, so it stays good.
    let (invitation, token) = invited(
        site,
        &contoso.admin.caller,
        addresses(&contoso.name, &["guest@target.example"]),
    )
    .await;
    let ida = identity(site, "ida@new.example").await;
    callers.insert("identity", ida.caller);
    let other_identity = identity(site, "other@new.example").await;
    let request = TransferOwnershipRequest {
        account: home.clone(),
        email: "ida@new.example".to_owned(),
        ..TransferOwnershipRequest::default()
    };
    let mut accounts = olga.caller.accounts();
    accounts.transfer_ownership(request).await.unwrap();
    let agreement = upcoming_agreement(&operator).await;
    let membership = join(&callers["member"], new_membership("Member SA")).await;
    let membership = membership.unwrap();
    let reserved = reserve(&operator, "Tailspin").await.unwrap().name;
    let review = crate::reviews::queued(site, &home, ReviewKind::Offer, "").await;
    let named_domain = domain(&contoso, "contoso.example").await;
    let evidence = crate::documents::evidence(site, &mia.caller, &home).await;
    let offer = create(&mia.caller, &home, app_offer("Tool")).await.unwrap();
    let asked = crate::relationships::asking("Adatum", "ann@adatum.example");
    let asked = crate::relationships::create(&mia.caller, &home, asked).await;
    let relationship = asked.unwrap().name;
    // A customer whose tenant is administered by the account's people.
    let customer = site.tenant("customer").await;
    let lends = (&customer, "ann@customer.example");
    let all = [DirectoryRole::GlobalAdmin];
    let lent = crate::lent::lent_to(&mia.caller, &home, lends, &all).await;
    let customers = site.person(&customer, "theirs").await.name;
    let case = crate::recovery_cases::opened(site, &contoso.name, &contoso.admin.name).await;
    let claimed = crate::name_claims::filed(&callers["identity"], &ida.name, "", "Contoso").await;
    let claimed = claimed.unwrap().name;
    let names = named(&contoso.name, &target, &app, &key, &home, &staff, &mail)
        .with("entente.dev/RecoveryCase", &case)
        .with("OpenRecoveryCase.recovery_case.reopens", "")
        .with("OpenRecoveryCase.recovery_case.domain", "")
        .with("entente.dev/NetworkMembership", &membership.name)
        .with("entente.dev/Document", &evidence)
        .with("UploadDocument.parent", &home)
        .with("entente.dev/ReservedName", &reserved)
        .with("entente.dev/Review", &review)
        .with("entente.dev/NameClaim", &claimed)
        .with("entente.dev/Domain", &named_domain)
        .with("CreateDomain.domain.domain_name", "new.example")
        .with("ImportAccount.account.publisher_display_name", "Newcomer")
        .with("ImportAccount.account.legal_name", "Newcomer Ltd")
        .with("CreateAccount.tenant_admin_token", "")
        .with("entente.dev/Offer", &offer.name)
        .with("entente.dev/Relationship", &relationship)
        .with("ListCustomerUsers.parent", &customer.name)
        .with("ListCustomerUsers.relationship", &lent)
        .with("CreateCustomerUser.parent", &customer.name)
        .with("CreateCustomerUser.relationship", &lent)
        .with("ResetCustomerUserPassword.name", &customers)
        .with("ResetCustomerUserPassword.relationship", &lent)
        .with("DisableCustomerUser.name", &customers)
        .with("DisableCustomerUser.relationship", &lent)
        .with("customer's admin", &customer.admin.name)
        .with("AcceptRelationship.language_code", "en")
        .with(
            "entente.dev/Competency",
            format!("{home}/competencies/{}", request_id()),
        )
        .with(
            "entente.dev/Package",
            format!("{home}/packages/{}", request_id()),
        )
        .with(
            "entente.dev/Benefit",
            format!("{home}/benefits/{}", request_id()),
        )
        .with(
            "entente.dev/BenefitAssignment",
            format!(
                "{home}/benefits/{}/assignments/{}",
                request_id(),
                request_id()
            ),
        )
        .with(
            "entente.dev/PackageOffer",
            format!("packageOffers/{}", request_id()),
        )
        .with("entente.dev/Agreement", &agreement)
        .with("PublishAgreement.agreement.texts.language_code", "en")
        .with("AcceptAgreement.language_code", "en")
        .with("entente.dev/Group", &team)
        .with("group with rights", &rich)
        .with("AddMembers.principals", &candidate.name)
        .with("AssignOperatorRoles.principal", &helper.name)
        .with("ReplaceGlobalAdmin.name", &contoso.admin.name)
        .with("WakeRights.name", &sleeper.name)
        .with("entente.dev/Invitation", &invitation.name)
        .with("AcceptInvitation.token", &token)
        .with("entente.dev/Identity", &other_identity.name)
        .with(
            "tenant_admin_token",
            second.admin.caller.token.as_deref().unwrap(),
        );

    let fabrikam = site.tenant("fabrikam").await;
    let theirs = account(site, &fabrikam, "Fabrikam", &fabrikam.admin, "").await;
    let (their_app, their_key, _) = application(site, &fabrikam, "Theirs").await;
    let their_domain = domain(&fabrikam, "fabrikam.example").await;
    let (theirs_invited, _) = invited(
        site,
        &fabrikam.admin.caller,
        addresses(&fabrikam.name, &["guest@stranger.example"]),
    )
    .await;
    let marketplace = enrolling(&theirs, &fabrikam.name, Program::Marketplace);
    enroll(&fabrikam.admin.caller, marketplace).await.unwrap();
    let theirs_offer = create(&fabrikam.admin.caller, &theirs, app_offer("Theirs")).await;
    let theirs_offer = theirs_offer.unwrap();
    let own = named(
        &fabrikam.name,
        &fabrikam.admin,
        &their_app,
        &their_key,
        &theirs,
        &format!("operator/staff/{}", request_id()),
        &format!("operator/mails/{}", request_id()),
    )
    .with(
        "entente.dev/Group",
        crate::groups::group(&fabrikam, "Theirs", &[&fabrikam.admin], None).await,
    )
    .with(
        "entente.dev/Identity",
        format!("identities/{}", request_id()),
    )
    .with(
        "tenant_admin_token",
        second.admin.caller.token.as_deref().unwrap(),
    )
    .with("entente.dev/Invitation", theirs_invited.name)
    .with("entente.dev/Offer", theirs_offer.name)
    .with(
        "entente.dev/Relationship",
        format!("{theirs}/relationships/{}", request_id()),
    )
    .with("AcceptRelationship.language_code", "en")
    .with(
        "entente.dev/Competency",
        format!("{theirs}/competencies/{}", request_id()),
    )
    .with(
        "entente.dev/Package",
        format!("{theirs}/packages/{}", request_id()),
    )
    .with(
        "entente.dev/Benefit",
        format!("{theirs}/benefits/{}", request_id()),
    )
    .with(
        "entente.dev/BenefitAssignment",
        format!(
            "{theirs}/benefits/{}/assignments/{}",
            request_id(),
            request_id()
        ),
    )
    .with(
        "entente.dev/PackageOffer",
        format!("packageOffers/{}", request_id()),
    )
    .with("AcceptInvitation.token", &token)
    .with("entente.dev/ReservedName", &reserved)
    .with("entente.dev/Review", &review)
    .with("entente.dev/NameClaim", &claimed)
    .with("entente.dev/Domain", &their_domain)
    .with("CreateDomain.domain.domain_name", "new.example")
    .with("entente.dev/Document", &evidence)
    .with("UploadDocument.parent", &theirs)
    .with("entente.dev/RecoveryCase", &case)
    .with("OpenRecoveryCase.recovery_case.reopens", "")
    .with("OpenRecoveryCase.recovery_case.domain", "")
    .with("ImportAccount.account.publisher_display_name", "Newcomer")
    .with("ImportAccount.account.legal_name", "Newcomer Ltd")
    .with("CreateAccount.tenant_admin_token", "")
    .with(
        "entente.dev/NetworkMembership",
        format!("networkMemberships/{}", request_id()),
    )
    .with("entente.dev/Agreement", &agreement)
    .with("PublishAgreement.agreement.texts.language_code", "en")
    .with("AcceptAgreement.language_code", "en");
    callers.insert(
        "stranger",
        site.sign_in(&fabrikam.admin.sign_in_name, PASSWORD).await,
    );
    World {
        names,
        own,
        callers,
    }
}

/// One line of the table: a method, and what its request names.
struct Row {
    method: MethodDescriptor,
    about: String,
    what: What,
}

enum What {
    /// Resources by path that differ from those usual.
    Names(Vec<(String, String)>),
    /// A field that names the caller itself.
    Oneself(String),
    /// A request of its own.
    Message(Vec<u8>),
}

/// A method's own names go before those of all methods.
pub fn names_for(method: &MethodDescriptor, names: &Names) -> Names {
    let prefix = format!("{}.", method.name());
    let mut all = names.clone();
    for (key, name) in &names.0 {
        if let Some(path) = key.strip_prefix(&prefix) {
            all.0.insert(path.to_owned(), name.clone());
        }
    }
    all
}

fn rows(world: &World) -> Vec<Row> {
    let mut rows = Vec::new();
    for (path, method) in dynamic::methods() {
        let rule = entente::access::rules::of_path(&path).unwrap();
        let mut add = |about: &str, what: What| {
            rows.push(Row {
                method: method.clone(),
                about: about.to_owned(),
                what,
            });
        };
        let selves: Vec<_> = rule
            .declared
            .any_of
            .iter()
            .filter(|a| !a.self_.is_empty() && a.self_ != "@caller")
            .map(|a| a.self_.clone())
            .collect();
        let scopes = dynamic::places(&method).into_iter().find(|p| {
            let many = dynamic::reference_of(p.field())
                .is_some_and(|k| k == "*" || k.starts_with("child of"));
            many && (p.path == "parent" || p.path == "resource")
                && dynamic::takes(p.field()).format == 7
        });
        if let Some(place) = scopes {
            let mut all = vec![
                ("tenant", &world.names.0["entente.dev/Tenant"]),
                ("account", &world.names.0["entente.dev/Account"]),
            ];
            if dynamic::reference_of(place.field()).is_some_and(|k| k.starts_with("child of")) {
                all.push(("identity", &world.names.0["entente.dev/Identity"]));
            }
            let operator = OPERATOR.to_owned();
            all.push((OPERATOR, &operator));
            for (about, name) in all {
                add(about, What::Names(vec![(place.path.clone(), name.clone())]));
            }
        } else {
            add("", What::Names(Vec::new()));
        }
        for field in selves {
            add("oneself", What::Oneself(field));
        }
        let (tenant, account) = (
            &world.names.0["entente.dev/Tenant"],
            &world.names.0["entente.dev/Account"],
        );
        match method.name() {
            "CreateUser" => {
                let bare = CreateUserRequest {
                    validate_only: true,
                    ..new_user(tenant, "newcomer")
                };
                let mut with_role = bare.clone();
                with_role.user.as_mut().unwrap().directory_roles =
                    vec![DirectoryRole::HelpdeskAdmin as i32];
                add(
                    "with directory role",
                    What::Message(with_role.encode_to_vec()),
                );
                let grouped = CreateUserRequest {
                    groups: vec![world.names.0["entente.dev/Group"].clone()],
                    ..bare.clone()
                };
                add("with group", What::Message(grouped.encode_to_vec()));
                let joined = CreateUserRequest {
                    memberships: vec![membership(account, &[])],
                    ..bare
                };
                add("with membership", What::Message(joined.encode_to_vec()));
            }
            "CreateGroup" => {
                let joined = CreateGroupRequest {
                    memberships: vec![membership(account, &[])],
                    validate_only: true,
                    ..crate::groups::new_group(tenant, "New")
                };
                add("with membership", What::Message(joined.encode_to_vec()));
            }
            "InviteUsers" => {
                let bare = InviteUsersRequest {
                    validate_only: true,
                    ..addresses(tenant, &["newcomer@new.example"])
                };
                add("with addresses", What::Message(bare.encode_to_vec()));
                let joined = with_account(bare, account, &[]);
                add("with membership", What::Message(joined.encode_to_vec()));
            }
            "CreateApplication" => {
                let joined = CreateApplicationRequest {
                    parent: tenant.clone(),
                    application: Some(Application {
                        display_name: "New".to_owned(),
                        ..Application::default()
                    }),
                    memberships: vec![membership(account, &[])],
                    validate_only: true,
                    ..CreateApplicationRequest::default()
                };
                add("with membership", What::Message(joined.encode_to_vec()));
            }
            "AcceptRelationship" => {
                let lending = AcceptRelationshipRequest {
                    name: world.names.0["entente.dev/Relationship"].clone(),
                    tenant: tenant.clone(),
                    roles: vec![DirectoryRole::HelpdeskAdmin as i32],
                    language_code: "en".to_owned(),
                    validate_only: true,
                    ..AcceptRelationshipRequest::default()
                };
                add("with roles", What::Message(lending.encode_to_vec()));
            }
            "GetRelationship" | "TerminateRelationship" => {
                let of = vec![("tenant".to_owned(), tenant.clone())];
                add("the customer's", What::Names(of));
            }
            "ListRelationships" => {
                let of = vec![("parent".to_owned(), tenant.clone())];
                add("the customer's", What::Names(of));
            }
            "EnrollProgram" | "LeaveProgram" => {
                // Both rights at once has nobody but the stranger, on its own.
                let own = |kind: &str| world.own.0[kind].clone();
                add(
                    "the stranger's",
                    What::Names(vec![
                        ("name".to_owned(), own("entente.dev/Account")),
                        ("tenant".to_owned(), own("entente.dev/Tenant")),
                    ]),
                );
            }
            _ => {}
        }
    }
    rows
}

/// The name by which a caller is what a field names; None if it can't be.
pub fn oneself(
    caller: &Caller,
    method: &MethodDescriptor,
    field: &str,
    world: &World,
) -> Option<String> {
    let token = caller.on_behalf.as_deref().or(caller.token.as_deref())?;
    let place = dynamic::places(method)
        .into_iter()
        .find(|p| p.path == field)?;
    let (tenant, id) = (claim(token, "tid"), claim(token, "sub"));
    let (user, identity) = (
        claim(token, "knd") == "user",
        claim(token, "knd") == "identity",
    );
    let also = dynamic::takes(place.field()).also_names;
    match dynamic::reference_of(place.field())?.as_str() {
        "entente.dev/Identity" | "child of entente.dev/AuditEvent" if identity => {
            Some(format!("identities/{id}"))
        }
        _ if identity && also == "entente.dev/Identity" => Some(format!("identities/{id}")),
        "entente.dev/Session" if identity => Some(session_of(token)),
        "entente.dev/User" if user => Some(format!("tenants/{tenant}/users/{id}")),
        "entente.dev/Application" if !user && !identity => {
            Some(format!("tenants/{tenant}/applications/{id}"))
        }
        "entente.dev/Session" if user => Some(session_of(token)),
        // An upload that is the uploader's alone; other fields of any kind name no caller.
        "*" if user => Some(format!("tenants/{tenant}/users/{id}")),
        "*" if identity => Some(format!("identities/{id}")),
        "entente.dev/Member" => Some(format!(
            "{}/members/{id}",
            world.names.0["entente.dev/Account"]
        )),
        _ => None,
    }
}

pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "entente");
    info.reason
}

/// A refusal for a permission names one of the role table, and none where only the principal itself may.
#[track_caller]
pub fn names_what_is_missing(status: &Status) {
    let info = status.get_details_error_info();
    let named = info.and_then(|i| i.metadata.get("permission").cloned());
    let right = match &named {
        Some(permission) => Permission::parse(permission).is_some(),
        None => status.message().contains("No permission lets anybody else"),
    };
    assert!(right, "{named:?}: {status:?}");
}

/// A cell of the table.
pub fn cell(method: &MethodDescriptor, answer: &Result<Vec<u8>, Status>) -> &'static str {
    let Err(status) = answer else {
        return "yes";
    };
    match reason(status).as_str() {
        // A token in a public request is not the caller's.
        "CREDENTIALS_MISSING" | "TOKEN_INVALID" if method.name() != "RefreshSession" => "who",
        "PERMISSION_MISSING" => {
            names_what_is_missing(status);
            "no"
        }
        "NOTHING_TO_WAKE" | "NO_USER_THERE" | "PEOPLE_ONLY" => "no",
        "PASSWORD_CHANGE_REQUIRED" => "pwd",
        "RECENT_SIGN_IN_REQUIRED" => "old",
        "RIGHTS_ASLEEP" => "asleep",
        "RIGHTS_BEGIN_LATER" => "later",
        "ON_BEHALF_REFUSED" => "posing",
        other => {
            assert!(
                !matches!(
                    status.code(),
                    Code::Internal | Code::Unknown | Code::Unavailable
                ),
                "{status:?}"
            );
            assert_ne!(other, "TOO_MANY_CALLS");
            "past"
        }
    }
}

async fn table(site: &Site) -> String {
    let world = world(site).await;
    let rows = rows(&world);
    let mut lines = vec![String::new(); rows.len()];
    for (column, _) in COLUMNS {
        let caller = &world.callers[column];
        // Signing out comes last: it ends what the caller calls with.
        let (outs, others): (Vec<_>, Vec<_>) =
            (0..rows.len()).partition(|i| rows[*i].method.name() == "SignOut");
        for i in others.into_iter().chain(outs) {
            let row = &rows[i];
            let usual = names_for(&row.method, &world.names);
            let message = match &row.what {
                What::Message(bytes) => Some(bytes.clone()),
                What::Names(changed) => {
                    let names = changed
                        .iter()
                        .fold(usual, |n, (path, name)| n.with(path, name));
                    Some(dynamic::bytes(&dynamic::request(&row.method, &names)))
                }
                What::Oneself(field) => oneself(caller, &row.method, field, &world).map(|name| {
                    dynamic::bytes(&dynamic::request(&row.method, &usual.with(field, name)))
                }),
            };
            let told = match message {
                Some(message) => {
                    let answer = dynamic::call(caller, &row.method, message).await;
                    if std::env::var_os("ENTENTE_TOLD").is_some()
                        && let Err(status) = &answer
                    {
                        println!("{column} {} {}: {status:?}", row.method.name(), row.about);
                    }
                    cell(&row.method, &answer)
                }
                None => ".",
            };
            write!(lines[i], " {told:9}").unwrap();
        }
    }
    let mut text = String::from(
        "# Every method, and what each kind of caller gets; written by the test access_matrix with ENTENTE_BLESS=1.\n\
         # yes: allowed   past: allowed, then refused for another reason than rights   no: PERMISSION_MISSING or its like   who: UNAUTHENTICATED\n\
         # pwd: PASSWORD_CHANGE_REQUIRED   old: RECENT_SIGN_IN_REQUIRED   asleep: RIGHTS_ASLEEP   posing: ON_BEHALF_REFUSED   .: can't be\n#\n",
    );
    for (column, what) in COLUMNS {
        writeln!(text, "# {column:9} {what}").unwrap();
    }
    let head: String = COLUMNS.iter().map(|(c, _)| format!(" {c:9}")).collect();
    writeln!(text, "#\n{:62}{}", "# method", head.trim_end()).unwrap();
    for (row, line) in rows.iter().zip(lines) {
        let service = row.method.parent_service();
        let about = if row.about.is_empty() {
            String::new()
        } else {
            format!(" ({})", row.about)
        };
        let label = format!("{}/{}{about}", service.name(), row.method.name());
        writeln!(text, "{label:62}{}", line.trim_end()).unwrap();
    }
    text
}

// proves COM-1, COM-2, ROL-1, ROL-2, ROL-3
#[tokio::test]
async fn access_matrix() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/access.txt");
    both(async |site| {
        let told = table(&site).await;
        if std::env::var_os("ENTENTE_BLESS").is_some() {
            fs::write(&file, &told).unwrap();
        }
        // A request that nobody may make shows nothing about who may.
        let mut somebody = BTreeMap::<&str, bool>::new();
        for line in told.lines().filter(|l| !l.starts_with('#')) {
            let method = line.split(' ').next().unwrap();
            let may = line.contains(" yes") || line.contains(" past");
            *somebody.entry(method).or_default() |= may;
        }
        let nobody: Vec<_> = somebody.iter().filter(|(_, may)| !**may).collect();
        assert!(nobody.is_empty(), "nobody may: {nobody:?}");
        let written = fs::read_to_string(&file).unwrap();
        for (told, written) in told.lines().zip(written.lines()) {
            assert_eq!(told, written, "access.txt says otherwise");
        }
        assert_eq!(told.lines().count(), written.lines().count());
    })
    .await;
}

// proves ROL-1
#[tokio::test]
async fn the_whole_table_of_roles_is_told_to_everybody() {
    both(async |site| {
        let request = GetRoleTableRequest::default();
        let told = site.nobody().access().get_role_table(request).await;
        let told = told.unwrap().into_inner().roles;
        let mut table: Vec<_> = [
            ("tenant", TENANT_ROLES),
            ("account", ACCOUNT_ROLES),
            ("operator", OPERATOR_ROLES),
        ]
        .into_iter()
        .flat_map(|(scope, roles)| roles.iter().map(move |r| (scope, r.name, r.permissions)))
        .collect();
        table.push(("account", "MEMBER", roles::MEMBER));
        assert_eq!(told.len(), table.len());
        for (scope, role, permissions) in table {
            let found = told.iter().find(|r| r.scope == scope && r.role == role);
            assert_eq!(found.unwrap().permissions, permissions.names(), "{role}");
        }
    })
    .await;
}

// proves COM-1, COM-16, INV-3
#[tokio::test]
async fn who_need_not_be_signed_in_is_ignored_or_has_to_be_good() {
    both(async |site| {
        let garbage = site.with_token("garbage");
        let behalf = Caller {
            on_behalf: Some("garbage".to_owned()),
            ..site.nobody()
        };
        let recover = async |who: &Caller| {
            let request = CompletePasswordRecoveryRequest {
                token: "entl_none".to_owned(),
                new_password: PASSWORD.to_owned(),
                ..CompletePasswordRecoveryRequest::default()
            };
            who.sessions().complete_password_recovery(request).await
        };
        for who in [&garbage, &behalf, &site.nobody()] {
            let request = GetRoleTableRequest::default();
            who.access().get_role_table(request).await.unwrap();
            link_invalid(recover(who).await);
        }
        // Where a caller may come along, it has to be one.
        let accept = async |who: &Caller| {
            let request = with_token("entl_none");
            who.invitations().accept_invitation(request).await
        };
        link_invalid(accept(&site.nobody()).await);
        let garbage = accept(&garbage).await;
        refused(garbage, Code::Unauthenticated, "TOKEN_INVALID");
        let behalf = accept(&behalf).await;
        refused(behalf, Code::Unauthenticated, "CREDENTIALS_MISSING");
    })
    .await;
}

// proves COM-17
#[tokio::test]
async fn rights_on_the_operator_can_be_asked_about() {
    use entente::proto::access::TestMyPermissionsRequest;
    crate::harness::both(async |site| {
        let contoso = site.tenant("contoso").await;
        let request = TestMyPermissionsRequest {
            resource: "operator".to_owned(),
            permissions: vec!["staff.manage".to_owned(), "ledger.record".to_owned()],
        };
        let operator = site.operator().await;
        let mine = operator.access().test_my_permissions(request.clone()).await;
        assert_eq!(mine.unwrap().into_inner().permissions, ["staff.manage"]);
        let theirs = contoso
            .admin
            .caller
            .access()
            .test_my_permissions(request)
            .await;
        assert!(theirs.unwrap().into_inner().permissions.is_empty());
    })
    .await;
}

// proves COM-2
#[tokio::test]
async fn explanations_do_not_tell_whether_strangers_exist() {
    use entente::proto::access::ExplainAccessRequest;
    crate::harness::both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let there = contoso.admin.name.clone();
        let (tenant, _) = there.rsplit_once('/').unwrap();
        let not_there = format!("{tenant}/{}", crate::harness::request_id());
        let mut told = Vec::new();
        for principal in [there, not_there] {
            let request = ExplainAccessRequest {
                resource: fabrikam.name.clone(),
                principal,
                permission: "tenant.read".to_owned(),
            };
            let access = || fabrikam.admin.caller.access();
            told.push(access().explain_access(request).await.unwrap().into_inner());
        }
        assert_eq!(told[0], told[1]);
    })
    .await;
}
