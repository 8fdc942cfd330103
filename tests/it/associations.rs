//! TenantAssociationService and AccountService.

use entente::{
    access::grants,
    proto::{
        access::AccountRole,
        account::{
            Account, AssociateTenantRequest, CreateAssociatedTenantRequest, GetAccountRequest,
            ImportAccountRequest, ListAccountsRequest, ListAssociatedTenantsRequest,
            RemoveTenantRequest, RemoveTenantResponse, RestoreManagerRequest, TenantAssociation,
        },
        directory::{DisableUserRequest, GetTenantRequest},
        operator::{AssignOperatorRolesRequest, OperatorRole},
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    harness::{Caller, PASSWORD, Person, both, fields, new_tenant, new_user, refused},
    members::{add, list, remove, seed},
    people::{Service, denied, identity, second_admin},
};

fn associating(account: &str, token: &str) -> AssociateTenantRequest {
    AssociateTenantRequest {
        parent: account.to_owned(),
        tenant_admin_token: token.to_owned(),
        ..AssociateTenantRequest::default()
    }
}

/// Associates the tenant of a global admin with an account.
pub async fn associate(
    by: &Person,
    account: &str,
    admin: &Person,
) -> Result<TenantAssociation, Status> {
    let token = admin.caller.token.clone().unwrap();
    let request = associating(account, &token);
    let done = by.caller.associations().associate_tenant(request).await?;
    Ok(done.into_inner())
}

/// Ends an association.
pub async fn dissociate(by: &Caller, account: &str, tenant: &str) -> Result<(), Status> {
    let tenant = tenant.rsplit('/').next().unwrap();
    let request = RemoveTenantRequest {
        name: format!("{account}/tenantAssociations/{tenant}"),
        ..RemoveTenantRequest::default()
    };
    let done = by.associations().remove_tenant(request).await?;
    assert_eq!(done.into_inner().resources.len(), 1);
    Ok(())
}

/// A refusal speaks of the token in the field, not of the caller.
fn of_the_token(status: &Status) {
    let told = status.get_details_error_info().unwrap().metadata;
    assert_eq!(told["field"], "tenant_admin_token");
    let text = status.message();
    assert!(
        text.starts_with("`tenant_admin_token`") && text.contains("global admin"),
        "{text}"
    );
}

async fn associated(by: &Caller, account: &str) -> Vec<TenantAssociation> {
    let request = ListAssociatedTenantsRequest {
        parent: account.to_owned(),
        ..ListAssociatedTenantsRequest::default()
    };
    let page = by.associations().list_associated_tenants(request).await;
    page.unwrap().into_inner().associations
}

// proves TEN-3
#[tokio::test]
async fn association_is_shown_before_it_is_made_and_changes_nothing_in_the_tenant() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let read = async || {
            let name = fabrikam.name.clone();
            let tenants = fabrikam.admin.caller.tenants();
            let tenant = { tenants }.get_tenant(GetTenantRequest { name }).await;
            tenant.unwrap().into_inner()
        };
        let before = read().await;
        let mut request = associating(&account, fabrikam.admin.caller.token.as_ref().unwrap());
        request.validate_only = true;
        let manager = &contoso.admin.caller;
        let shown = manager.associations().associate_tenant(request).await;
        let shown = shown.unwrap().into_inner();
        assert_eq!(shown.tenant, fabrikam.name);
        assert_eq!(shown.tenant_display_name, "fabrikam Company");
        assert_eq!(shown.domain, "fabrikam.partners.localhost");
        assert_eq!(associated(manager, &account).await.len(), 1);
        let made = associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        assert_eq!(made.domain, shown.domain);
        assert_eq!(associated(manager, &account).await.len(), 2);
        assert_eq!(read().await, before);
        refused(
            associate(&contoso.admin, &account, &fabrikam.admin).await,
            Code::AlreadyExists,
            "ALREADY_ASSOCIATED",
        );
        // Many accounts of one tenant; its people hold nothing there by that.
        let other = site.account(&fabrikam, "Fabrikam").await;
        associate(&fabrikam.admin, &other, &contoso.admin)
            .await
            .unwrap();
        let request = ListAssociatedTenantsRequest {
            parent: other.clone(),
            ..ListAssociatedTenantsRequest::default()
        };
        let seen = manager
            .associations()
            .list_associated_tenants(request)
            .await;
        refused(seen, Code::PermissionDenied, "PERMISSION_MISSING");
    })
    .await;
}

// proves TEN-3
#[tokio::test]
async fn only_the_good_token_of_a_global_admin_brings_its_tenant() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let manager = &contoso.admin;
        let bob = site.person(&fabrikam, "bob").await;
        let status = refused(
            associate(manager, &account, &bob).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        of_the_token(&status);
        let operator = Person {
            name: String::new(),
            sign_in_name: String::new(),
            caller: site.operator().await,
        };
        refused(
            associate(manager, &account, &operator).await,
            Code::FailedPrecondition,
            "OPERATOR_TENANT",
        );
        let garbage = associating(&account, "garbage");
        let result = manager
            .caller
            .associations()
            .associate_tenant(garbage)
            .await;
        let status = refused(result, Code::InvalidArgument, "TOKEN_INVALID");
        assert_eq!(fields(&status), ["tenant_admin_token"]);
        // Whoever may not manage tenants isn't helped by the token.
        let status = refused(
            associate(&bob, &account, &fabrikam.admin).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let told = status.get_details_error_info().unwrap().metadata;
        assert!(!told.contains_key("field"), "{told:?}");
        site.advance(16 * 60).await;
        let fresh = Person {
            caller: site.sign_in(&manager.sign_in_name, PASSWORD).await,
            ..manager.clone()
        };
        refused(
            associate(&fresh, &account, &fabrikam.admin).await,
            Code::InvalidArgument,
            "TOKEN_INVALID",
        );
        assert_eq!(associated(&fresh.caller, &account).await.len(), 1);
    })
    .await;
}

// proves TEN-3, COM-16
#[tokio::test]
async fn the_list_of_a_service_bounds_whom_it_acts_for_and_not_the_admin_of_the_token() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let portal = Service::open(&site).await;
        let service = portal.caller(&site).await;
        let manager = Person {
            caller: site.on_behalf(&service, &contoso.admin.caller),
            ..contoso.admin.clone()
        };
        let operator = site.operator().await;
        let listed = async |permission: &str| {
            let request = AssignOperatorRolesRequest {
                principal: portal.name.clone(),
                roles: vec![OperatorRole::OperatorService as i32],
                on_behalf_ceiling: vec![permission.to_owned()],
                ..AssignOperatorRolesRequest::default()
            };
            let done = operator.staff().assign_operator_roles(request).await;
            done.unwrap();
        };
        // What the token's admin needs, which the manager doesn't.
        listed("tenant.update").await;
        denied(associate(&manager, &account, &fabrikam.admin).await);
        listed("tenants.manage").await;
        let made = associate(&manager, &account, &fabrikam.admin).await;
        assert_eq!(made.unwrap().tenant, fabrikam.name);
    })
    .await;
}

// proves TEN-3, PWD-5
#[tokio::test]
async fn token_of_a_temporary_password_brings_no_tenant() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let mut request = new_user(&fabrikam.name, "second");
        let user = request.user.as_mut().unwrap();
        user.directory_roles = vec![1];
        user.recovery_email = "second@fabrikam.example".to_owned();
        let made = fabrikam.admin.caller.users().create_user(request).await;
        let made = made.unwrap().into_inner();
        let name = made.user.unwrap().sign_in_name;
        let second = Person {
            name: String::new(),
            sign_in_name: name.clone(),
            caller: site.sign_in(&name, &made.temporary_password).await,
        };
        let status = refused(
            associate(&contoso.admin, &account, &second).await,
            Code::FailedPrecondition,
            "PASSWORD_CHANGE_REQUIRED",
        );
        of_the_token(&status);
        assert_eq!(associated(&contoso.admin.caller, &account).await.len(), 1);
    })
    .await;
}

// proves TEN-3, ROL-10
#[tokio::test]
async fn token_of_a_disabled_admin_brings_no_tenant() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let second = site
            .person_with(&fabrikam, "second", |r| {
                let user = r.user.as_mut().unwrap();
                user.directory_roles = vec![1];
                user.recovery_email = "second@fabrikam.example".to_owned();
            })
            .await;
        let request = DisableUserRequest {
            name: second.name.clone(),
            ..DisableUserRequest::default()
        };
        fabrikam
            .admin
            .caller
            .users()
            .disable_user(request)
            .await
            .unwrap();
        let result = associate(&contoso.admin, &account, &second).await;
        let status = refused(result, Code::InvalidArgument, "TOKEN_INVALID");
        assert_eq!(fields(&status), ["tenant_admin_token"]);
        assert_eq!(associated(&contoso.admin.caller, &account).await.len(), 1);
    })
    .await;
}

// proves TEN-4, ROL-10
#[tokio::test]
async fn removed_tenants_people_are_out_on_the_next_call_and_for_good() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let manager = &contoso.admin.caller;
        associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        let eve = site.person(&fabrikam, "eve").await;
        add(&fabrikam.admin.caller, &account, &[&eve], &[])
            .await
            .unwrap();
        let member = eve.member_of(&account);
        let developer = crate::harness::rights(&[AccountRole::Developer]);
        crate::members::update(manager, &account, &[(&member, developer)])
            .await
            .unwrap();
        let look = async || {
            let request = GetAccountRequest {
                name: account.clone(),
            };
            eve.caller.accounts().get_account(request).await
        };
        look().await.unwrap();
        dissociate(manager, &account, &fabrikam.name).await.unwrap();
        refused(look().await, Code::PermissionDenied, "PERMISSION_MISSING");
        assert_eq!(list(manager, &account, "").await.unwrap().len(), 1);
        associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        refused(look().await, Code::PermissionDenied, "PERMISSION_MISSING");
        assert_eq!(list(manager, &account, "").await.unwrap().len(), 1);
        refused(
            remove(manager, &account, &[&member], false).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
    })
    .await;
}

// proves TEN-4
#[tokio::test]
async fn nobody_removes_the_tenant_it_stands_on_and_only_owners_the_last_one() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let manager = &contoso.admin.caller;
        refused(
            dissociate(manager, &account, &contoso.name).await,
            Code::FailedPrecondition,
            "SIGNED_IN_THROUGH_TENANT",
        );
        refused(
            dissociate(manager, &account, &fabrikam.name).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        associate(&contoso.admin, &account, &fabrikam.admin)
            .await
            .unwrap();
        let eve = site.person(&fabrikam, "eve").await;
        add(&fabrikam.admin.caller, &account, &[&eve], &[])
            .await
            .unwrap();
        // A manager from the second tenant can't take the first: it would take the last manager but itself, who remains.
        refused(
            dissociate(&eve.caller, &account, &contoso.name).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let custom = crate::members::singly(&["tenants.manage"]);
        crate::members::update(manager, &account, &[(&eve.member_of(&account), custom)])
            .await
            .unwrap();
        refused(
            dissociate(&eve.caller, &account, &contoso.name).await,
            Code::FailedPrecondition,
            "LAST_MANAGER",
        );
        seed(&site, &eve.member_of(&account), grants::MANAGER).await;
        dissociate(&eve.caller, &account, &contoso.name)
            .await
            .unwrap();
        assert_eq!(associated(&eve.caller, &account).await.len(), 1);
        // The last tenant of an account, seen from outside of it.
        refused(
            dissociate(&eve.caller, &account, &fabrikam.name).await,
            Code::FailedPrecondition,
            "SIGNED_IN_THROUGH_TENANT",
        );
    })
    .await;
}

// proves TEN-1
#[tokio::test]
async fn associated_tenant_is_made_with_its_admin_in_one_call() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let manager = &contoso.admin.caller;
        let new = new_tenant("branch");
        let request = CreateAssociatedTenantRequest {
            parent: account.clone(),
            tenant: new.tenant,
            first_admin: new.first_admin,
            ..CreateAssociatedTenantRequest::default()
        };
        let bob = site.person(&contoso, "bob").await;
        let by_bob = bob.caller.associations();
        refused(
            { by_bob }.create_associated_tenant(request.clone()).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let made = manager
            .associations()
            .create_associated_tenant(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            made.association.unwrap().domain,
            "branch.partners.localhost"
        );
        let admin = made.first_admin.unwrap();
        assert_eq!(admin.directory_roles, [1]);
        let ann = Person {
            name: admin.name,
            caller: site
                .settle_in(&admin.sign_in_name, &made.temporary_password)
                .await,
            sign_in_name: admin.sign_in_name,
        };
        assert_eq!(associated(manager, &account).await.len(), 2);
        // The new admin holds nothing on the account, but may add people without rights.
        let request_account = GetAccountRequest {
            name: account.clone(),
        };
        refused(
            ann.caller.accounts().get_account(request_account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        add(&ann.caller, &account, &[&ann], &[]).await.unwrap();
        refused(
            manager
                .associations()
                .create_associated_tenant(request)
                .await,
            Code::AlreadyExists,
            "DOMAIN_TAKEN",
        );
    })
    .await;
}

// proves COM-1, ROL-11
#[tokio::test]
async fn accounts_are_imported_by_the_operator_only_and_whole() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        site.account(&contoso, "Contoso").await;
        let operator = site.operator().await;
        let home = operator_tenant(&site).await;
        let import = async |who: &Caller, publisher: &str, tenant: &str, manager: &str| {
            let request = ImportAccountRequest {
                account: Some(Account {
                    publisher_display_name: publisher.to_owned(),
                    legal_name: "Legal".to_owned(),
                    country_code: "FR".to_owned(),
                    ..Account::default()
                }),
                tenant: tenant.to_owned(),
                first_manager: manager.to_owned(),
                ..ImportAccountRequest::default()
            };
            let done = who.accounts().import_account(request).await;
            done.map(tonic::Response::into_inner)
        };
        let (tenant, ann) = (contoso.name.as_str(), contoso.admin.name.as_str());
        refused(
            import(&contoso.admin.caller, "New", tenant, ann).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        refused(
            import(&operator, "CONTOSO", tenant, ann).await,
            Code::AlreadyExists,
            "PUBLISHER_NAME_TAKEN",
        );
        let foreign = import(&operator, "New", tenant, &fabrikam.admin.name).await;
        let status = refused(foreign, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["first_manager"]);
        let unknown = format!("{tenant}/users/{}", crate::harness::request_id());
        refused(
            import(&operator, "New", tenant, &unknown).await,
            Code::FailedPrecondition,
            "NOT_IN_ASSOCIATED_TENANT",
        );
        let staff = format!("{home}/users/{}", crate::harness::request_id());
        refused(
            import(&operator, "New", &home, &staff).await,
            Code::FailedPrecondition,
            "OPERATOR_TENANT",
        );
        let made = import(&operator, "New", tenant, ann).await.unwrap();
        let rows = list(&contoso.admin.caller, &made.name, "").await.unwrap();
        assert_eq!(
            rows[0].rights,
            Some(crate::harness::rights(&[
                AccountRole::Manager,
                AccountRole::AdminAgent
            ]))
        );
    })
    .await;
}

/// The name of the operator's tenant.
pub async fn operator_tenant(site: &crate::harness::Site) -> String {
    format!("tenants/{}", site.app.operator_tenant())
}

// proves ATK-15
#[tokio::test]
async fn accounts_are_listed_to_their_members_only() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let mine = site.account(&contoso, "Contoso").await;
        let theirs = site.account(&fabrikam, "Fabrikam").await;
        let own = async |who: &Caller| {
            let page = who
                .accounts()
                .list_accounts(ListAccountsRequest::default())
                .await;
            let accounts = page.unwrap().into_inner().accounts;
            accounts.into_iter().map(|a| a.name).collect::<Vec<_>>()
        };
        let get = async |who: &Caller, name: &str| {
            let request = GetAccountRequest {
                name: name.to_owned(),
            };
            let done = who.accounts().get_account(request).await;
            done.map(tonic::Response::into_inner)
        };
        assert_eq!(own(&contoso.admin.caller).await, [mine.as_str()]);
        assert_eq!(own(&fabrikam.admin.caller).await, [theirs.as_str()]);
        let operator = site.operator().await;
        assert!(own(&operator).await.is_empty());
        let bob = site.person(&contoso, "bob").await;
        assert!(own(&bob.caller).await.is_empty());
        let nowhere = format!("accounts/{}", crate::harness::request_id());
        for name in [&theirs, &nowhere] {
            refused(
                get(&contoso.admin.caller, name).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
        assert_eq!(get(&operator, &mine).await.unwrap().name, mine);
        refused(
            get(&operator, &nowhere).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
    })
    .await;
}

/// An account that was brought in, with its owner; and its tenant's association.
async fn with_owner(
    site: &crate::harness::Site,
    tenant: &crate::harness::TenantSite,
    owner: &Person,
) -> (String, String) {
    let request = ImportAccountRequest {
        account: Some(Account {
            publisher_display_name: "Brought In".to_owned(),
            legal_name: "Legal".to_owned(),
            country_code: "FR".to_owned(),
            ..Account::default()
        }),
        tenant: tenant.name.clone(),
        first_manager: tenant.admin.name.clone(),
        owner: owner.name.clone(),
        ..ImportAccountRequest::default()
    };
    let operator = site.operator().await;
    let made = operator.accounts().import_account(request).await;
    let account = made.unwrap().into_inner().name;
    let (_, tenant) = tenant.name.split_once('/').unwrap();
    let association = format!("{account}/tenantAssociations/{tenant}");
    (account, association)
}

// proves TEN-4, ROL-9
#[tokio::test]
async fn owner_removes_the_last_tenant_and_nobody_else_does() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let olga = identity(&site, "olga@mail.example").await;
        let (account, association) = with_owner(&site, &contoso, &olga).await;
        let removed = async |who: &Caller, validate_only: bool| {
            let request = RemoveTenantRequest {
                name: association.clone(),
                validate_only,
                ..RemoveTenantRequest::default()
            };
            let done = who.associations().remove_tenant(request).await;
            done.map(tonic::Response::<RemoveTenantResponse>::into_inner)
        };
        let ann = &contoso.admin.caller;
        let through = removed(ann, false).await;
        refused(
            through,
            Code::FailedPrecondition,
            "SIGNED_IN_THROUGH_TENANT",
        );
        // A service that acts for the owner, but not that far.
        let portal = Service::open(&site).await;
        let service = portal.caller(&site).await;
        let request = AssignOperatorRolesRequest {
            principal: portal.name.clone(),
            roles: vec![OperatorRole::OperatorService as i32],
            on_behalf_ceiling: vec!["tenants.manage".to_owned()],
            ..AssignOperatorRolesRequest::default()
        };
        let operator = crate::people::operator_tenant(&site).await.admin.caller;
        operator
            .staff()
            .assign_operator_roles(request)
            .await
            .unwrap();
        let acting = site.on_behalf(&service, &olga.caller);
        let tried = removed(&acting, false).await;
        refused(tried, Code::FailedPrecondition, "LAST_TENANT");

        let lost = removed(&olga.caller, true).await.unwrap();
        let losses = lost.losses.unwrap();
        assert_eq!(losses.memberships.len(), 1);
        assert_eq!(
            losses.memberships[0].member,
            contoso.admin.member_of(&account)
        );
        let get = async |who: &Caller| {
            let name = account.clone();
            who.accounts().get_account(GetAccountRequest { name }).await
        };
        get(ann).await.unwrap();
        let lost = removed(&olga.caller, false).await.unwrap();
        assert_eq!(lost.losses, Some(losses));
        denied(get(ann).await);
        get(&olga.caller).await.unwrap();
    })
    .await;
}

// proves ROL-9, ROL-12
#[tokio::test]
async fn an_owner_restores_a_manager_where_the_tenant_shut_out_the_last() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let olga = identity(&site, "olga@mail.example").await;
        let (account, _) = with_owner(&site, &contoso, &olga).await;
        let ben = site.person(&contoso, "ben").await;
        let ann = &contoso.admin.caller;
        add(ann, &account, &[&ben], &[]).await.unwrap();
        let restored = async |who: &Caller| {
            let request = RestoreManagerRequest {
                name: ben.member_of(&account),
                ..RestoreManagerRequest::default()
            };
            let done = who.members().restore_manager(request).await;
            done.map(tonic::Response::into_inner)
        };
        let early = restored(&olga.caller).await;
        refused(early, Code::FailedPrecondition, "MANAGER_EXISTS");
        let second = second_admin(&site, &contoso, "second").await;
        let shut = DisableUserRequest {
            name: contoso.admin.name.clone(),
            ..DisableUserRequest::default()
        };
        second.caller.users().disable_user(shut).await.unwrap();
        denied(restored(&ben.caller).await);
        denied(restored(&second.caller).await);
        let made = restored(&olga.caller).await.unwrap();
        let manager = crate::harness::rights(&[AccountRole::Manager]);
        assert_eq!(made.rights, Some(manager));
    })
    .await;
}
