//! Guests: users of one tenant whose credential is elsewhere (INV-5, PWD-8, ROL-7, ROL-9, ROL-10).

use entente::proto::{
    access::AccountRole,
    account::{GetAccountRequest, LeaveAccountRequest, RemoveMembersRequest},
    directory::{
        ChangePasswordRequest, DirectoryRole, SwitchTenantRequest, TokenSet, User, UserKind,
        UserState,
    },
    operator::{AssignOperatorRolesRequest, OperatorRole},
};
use tonic::{Code, Response, Status};

use crate::{
    claims::Replica,
    harness::{Caller, Database, PASSWORD, Person, Site, TenantSite, both, fields, refused},
    invitations::{Inviting as _, addresses, as_new, invited, with_account, with_token},
    people::{
        People as _, again, change, events, id, named, number, operator_tenant, refresh,
        second_admin,
    },
};

mod home;
mod oneself;
mod sleep;

/// Gives tokens for another tenant; for the caller's home if none is named.
pub(crate) async fn switch(caller: &Caller, tenant: &str) -> Result<TokenSet, Status> {
    let request = SwitchTenantRequest {
        tenant: tenant.to_owned(),
        ..SwitchTenantRequest::default()
    };
    let done = caller.sessions().switch_tenant(request).await;
    done.map(Response::into_inner)
}

/// A guest of contoso, with its home.
pub(crate) struct Guest {
    /// Where it is a guest.
    pub contoso: TenantSite,
    /// An account of that tenant, of which it is a member.
    pub account: String,
    /// Its home's tenant.
    pub fabrikam: TenantSite,
    /// Its home.
    pub fred: Person,
    /// `tenants/../users/..` in contoso.
    pub name: String,
    /// Its tokens there.
    pub tokens: TokenSet,
    /// Signed in there.
    pub caller: Caller,
}

/// A user of fabrikam who is a guest of contoso, with roles on contoso's account.
pub(crate) async fn guest(site: &Site, roles: &[AccountRole]) -> Guest {
    let contoso = site.tenant("contoso").await;
    let account = site.account(&contoso, "Contoso").await;
    let fabrikam = site.tenant("fabrikam").await;
    let fred = site.person(&fabrikam, "fred").await;
    let request = addresses(&contoso.name, &[&fred.sign_in_name]);
    let request = with_account(request, &account, roles);
    let (made, token) = invited(site, &contoso.admin.caller, request).await;
    let accepted = fred.caller.accept(with_token(&token)).await.unwrap();
    assert!(accepted.joined_account);
    let tokens = switch(&fred.caller, &contoso.name).await.unwrap();
    Guest {
        caller: site.with_token(&tokens.access_token),
        name: made.user,
        contoso,
        account,
        fabrikam,
        fred,
        tokens,
    }
}

impl Guest {
    fn as_person(&self) -> Person {
        Person {
            name: self.name.clone(),
            sign_in_name: self.fred.sign_in_name.clone(),
            caller: self.caller.clone(),
        }
    }
}

async fn account_of(caller: &Caller, account: &str) -> Result<(), Status> {
    let request = GetAccountRequest {
        name: account.to_owned(),
    };
    caller.accounts().get_account(request).await.map(drop)
}

#[track_caller]
fn out<T: std::fmt::Debug>(tried: Result<T, Status>) {
    refused(tried, Code::Unauthenticated, "TOKEN_INVALID");
}

// proves PWD-8, INV-5
#[tokio::test]
async fn guest_switches_to_the_host_and_back_and_refreshes_there() {
    both(async |site| {
        let guest = guest(&site, &[AccountRole::Developer]).await;
        let home = guest.fred.caller.who_am_i().await.unwrap();
        let tenants: Vec<_> = home.tenants.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(
            tenants,
            [guest.contoso.name.as_str(), guest.fabrikam.name.as_str()]
        );
        assert_eq!(home.tenant.unwrap().name, guest.fabrikam.name);
        assert!(home.accounts.is_empty());

        assert_eq!(guest.tokens.tenant, guest.contoso.name);
        let me = guest.caller.who_am_i().await.unwrap();
        assert_eq!(me.principal, guest.name);
        assert_eq!(me.tenant.unwrap().name, guest.contoso.name);
        assert_eq!(me.tenants.len(), 2);
        assert_eq!(me.accounts.len(), 1);
        assert_eq!(me.accounts[0].account, guest.account);
        account_of(&guest.caller, &guest.account).await.unwrap();
        let own = guest.caller.user(&guest.name).await.unwrap();
        assert_eq!((own.kind(), &own.home), (UserKind::Guest, &guest.fred.name));
        let sessions = guest.caller.list_sessions(&guest.name).await.unwrap();
        assert_eq!(sessions.len(), 1);
        assert!(sessions[0].current);

        let refreshed = refresh(&site, &guest.tokens.refresh_token).await.unwrap();
        assert_eq!(refreshed.tenant, guest.contoso.name);
        let caller = site.with_token(&refreshed.access_token);
        account_of(&caller, &guest.account).await.unwrap();

        // Back home, by name and by default; and from there again.
        for tenant in [guest.fabrikam.name.as_str(), ""] {
            let back = switch(&caller, tenant).await.unwrap();
            assert_eq!(back.tenant, guest.fabrikam.name);
            let back = site.with_token(&back.access_token);
            assert_eq!(back.who_am_i().await.unwrap().principal, guest.fred.name);
            refused(
                account_of(&back, &guest.account).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
        // Nobody switches where it has no user, and what isn't there answers alike.
        let other = site.tenant("adatum").await;
        let none = "tenants/018f0000-0000-7000-8000-000000000000";
        for tenant in [other.name.as_str(), none] {
            refused(
                switch(&caller, tenant).await,
                Code::PermissionDenied,
                "NO_USER_THERE",
            );
        }
        refused(
            switch(&guest.contoso.admin.caller, &guest.fabrikam.name).await,
            Code::PermissionDenied,
            "NO_USER_THERE",
        );
    })
    .await;
}

// proves INV-5, ATK-9, PWD-5
#[tokio::test]
async fn guest_has_no_password_of_its_own_and_gets_none() {
    both(async |site| {
        let guest = guest(&site, &[]).await;
        let admin = &guest.contoso.admin.caller;
        let elsewhere = |tried: Result<(), Status>| {
            refused(tried, Code::FailedPrecondition, "CREDENTIAL_ELSEWHERE");
        };
        elsewhere(admin.reset(&guest.name).await.map(drop));
        let user = User {
            recovery_email: "thief@mail.example".to_owned(),
            user_name: "thief".to_owned(),
            given_name: "Frederick".to_owned(),
            ..named(&guest.name)
        };
        for field in ["recovery_email", "user_name"] {
            elsewhere(admin.update(user.clone(), &[field]).await.map(drop));
        }
        let tried = guest
            .caller
            .set_contact(&guest.name, "fred@mail.example")
            .await;
        elsewhere(tried.map(drop));
        for old in [PASSWORD, "wrong blue gate 77"] {
            let request = ChangePasswordRequest {
                old_password: old.to_owned(),
                new_password: "green chair on a hill".to_owned(),
                ..ChangePasswordRequest::default()
            };
            let tried = guest.caller.sessions().change_password(request).await;
            elsewhere(tried.map(drop));
        }
        // What the host calls it is the host's matter.
        let renamed = admin.update(user, &["given_name"]).await.unwrap();
        assert_eq!(renamed.display_name, "Frederick fred");
        let home = guest.fred.caller.who_am_i().await.unwrap();
        assert_eq!(home.display_name, "Given fred");

        // Signing in goes to the home, whatever name of the guest is tried.
        let tokens = site.tokens(&guest.fred.sign_in_name, PASSWORD).await;
        assert_eq!(tokens.unwrap().tenant, guest.fabrikam.name);
        let own = guest.fred.sign_in_name.clone();
        for name in [
            format!("{own}@contoso.partners.localhost"),
            "fred@contoso.partners.localhost".to_owned(),
            guest.name.clone(),
            id(&guest.name).to_string(),
        ] {
            refused(
                site.tokens(&name, PASSWORD).await,
                Code::Unauthenticated,
                "SIGN_IN_FAILED",
            );
        }
        let credentials = "SELECT COUNT(*) AS n FROM credentials WHERE user_id = $1";
        let of = [id(&guest.name).into()];
        assert_eq!(number(&site, credentials, of).await, 0);
    })
    .await;
}

// proves INV-2, ATK-9
#[tokio::test]
async fn only_accepting_gives_an_invited_guest_a_way_in() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let request = addresses(&contoso.name, &["gwen@mail.example"]);
        let (made, token) = invited(&site, admin, request).await;
        refused(
            admin.reset(&made.user).await,
            Code::FailedPrecondition,
            "CREDENTIAL_ELSEWHERE",
        );
        for tried in [
            admin.enable(&made.user).await.map(drop),
            admin.undelete(&made.user, "").await.map(drop),
        ] {
            refused(tried, Code::FailedPrecondition, "WRONG_STATE");
        }
        // Even a credential and an active row, put there by nobody's right, let nobody in as the guest.
        let forged = "INSERT INTO credentials (user_id, hash, temporary, change_time, strangers_failed, known_failed) \
                      SELECT $1, hash, false, 0, 0, 0 FROM credentials WHERE user_id = $2";
        let ids = [id(&made.user).into(), id(&contoso.admin.name).into()];
        change(&site, forged, ids).await;
        refused(
            site.tokens("gwen@mail.example", PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        change(
            &site,
            "DELETE FROM credentials WHERE user_id = $1",
            [id(&made.user).into()],
        )
        .await;
        site.nobody().accept(as_new(&token)).await.unwrap();
        let gwen = site.sign_in("gwen@mail.example", PASSWORD).await;
        switch(&gwen, &contoso.name).await.unwrap();
    })
    .await;
}

// proves USR-6, INV-5, ROL-10, ATK-11
#[tokio::test]
async fn host_disables_enables_deletes_and_restores_a_guest() {
    both(async |site| {
        let guest = guest(&site, &[AccountRole::Developer]).await;
        let admin = &guest.contoso.admin.caller;
        let tokens = &guest.tokens;
        admin.disable(&guest.name).await.unwrap();
        out(guest.caller.who_am_i().await);
        out(refresh(&site, &tokens.refresh_token).await);
        refused(
            switch(&guest.fred.caller, &guest.contoso.name).await,
            Code::PermissionDenied,
            "NO_USER_THERE",
        );
        // At home nothing has changed, but for what there is to choose from.
        let me = guest.fred.caller.who_am_i().await.unwrap();
        assert_eq!(me.tenants.len(), 1);
        admin.enable(&guest.name).await.unwrap();
        out(guest.caller.who_am_i().await);
        let back = switch(&guest.fred.caller, &guest.contoso.name)
            .await
            .unwrap();
        let back = site.with_token(&back.access_token);
        account_of(&back, &guest.account).await.unwrap();

        let gone = admin.delete(&guest.name).await.unwrap();
        let losses = gone.losses.unwrap();
        assert_eq!(losses.memberships.len(), 1);
        assert_eq!(losses.session_count, 1);
        out(back.who_am_i().await);
        refused(
            switch(&guest.fred.caller, &guest.contoso.name).await,
            Code::PermissionDenied,
            "NO_USER_THERE",
        );
        let status = refused(
            admin.undelete(&guest.name, "frederick").await,
            Code::FailedPrecondition,
            "CREDENTIAL_ELSEWHERE",
        );
        assert!(fields(&status).is_empty());
        let restored = admin.undelete(&guest.name, "").await.unwrap();
        assert_eq!(
            (
                restored.temporary_password.as_str(),
                restored.secret_omitted
            ),
            ("", false)
        );
        let user = restored.user.unwrap();
        assert_eq!(user.state(), UserState::Active);
        assert_eq!(
            (&user.home, user.kind()),
            (&guest.fred.name, UserKind::Guest)
        );
        assert!(user.rights_asleep_until.is_none());
        let back = switch(&guest.fred.caller, &guest.contoso.name)
            .await
            .unwrap();
        let back = site.with_token(&back.access_token);
        assert!(back.who_am_i().await.unwrap().accounts.is_empty());
        refused(
            account_of(&back, &guest.account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
    })
    .await;
}

// proves INV-4, INV-5, USR-6, ATK-11
#[tokio::test]
async fn address_of_a_deleted_guest_can_be_invited_again() {
    both(async |site| {
        let guest = guest(&site, &[AccountRole::Developer]).await;
        let admin = &guest.contoso.admin.caller;
        admin.delete(&guest.name).await.unwrap();
        let request = addresses(&guest.contoso.name, &[&guest.fred.sign_in_name]);
        let (made, token) = invited(&site, admin, request).await;
        assert_ne!(made.user, guest.name);
        // While the address is taken, and once its home is tied anew, the old guest doesn't come back.
        refused(
            admin.undelete(&guest.name, "").await,
            Code::AlreadyExists,
            "USER_NAME_TAKEN",
        );
        let accepted = guest.fred.caller.accept(with_token(&token)).await.unwrap();
        assert_eq!(accepted.user.unwrap().name, made.user);
        let there = switch(&guest.fred.caller, &guest.contoso.name)
            .await
            .unwrap();
        let me = site.with_token(&there.access_token).who_am_i().await;
        let me = me.unwrap();
        assert_eq!(me.principal, made.user);
        assert!(me.accounts.is_empty(), "nothing is inherited");
        let other = "UPDATE users SET user_name_fold = 'other@mail.example' WHERE id = $1";
        change(&site, other, [id(&guest.name).into()]).await;
        refused(
            admin.undelete(&guest.name, "").await,
            Code::AlreadyExists,
            "USER_EXISTS",
        );
        assert_eq!(
            admin.user(&guest.name).await.unwrap().state(),
            UserState::Deleted
        );
    })
    .await;
}

// proves USR-2, ROL-9, ROL-12
#[tokio::test]
async fn guest_never_runs_a_tenant_nor_the_operator() {
    both(async |site| {
        let guest = guest(&site, &[]).await;
        let admin = &guest.contoso.admin.caller;
        refused(
            admin
                .assign(&guest.name, &[DirectoryRole::GlobalAdmin])
                .await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        refused(
            admin.replace(&guest.contoso.admin.name, &guest.name).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        let helps = admin
            .assign(&guest.name, &[DirectoryRole::HelpdeskAdmin])
            .await
            .unwrap();
        assert_eq!(helps.directory_roles, [DirectoryRole::HelpdeskAdmin as i32]);
        let listed = guest.caller.list(&guest.contoso.name, "").await.unwrap();
        assert!(listed.iter().any(|u| u.name == guest.name));
        refused(
            guest.fred.caller.list(&guest.contoso.name, "").await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // Even one who held it from elsewhere is no last one.
        let sql = "UPDATE grants SET roles = 2 WHERE principal_id = $1 AND scope_kind = 1";
        change(&site, sql, [id(&guest.name).into()]).await;
        refused(
            admin.delete(&guest.contoso.admin.name).await,
            Code::FailedPrecondition,
            "LAST_GLOBAL_ADMIN",
        );

        let home = operator_tenant(&site).await;
        let operator = &home.admin.caller;
        let request = addresses(&home.name, &[&guest.fred.sign_in_name]);
        let (made, token) = invited(&site, operator, request).await;
        guest.fred.caller.accept(with_token(&token)).await.unwrap();
        let request = AssignOperatorRolesRequest {
            principal: made.user,
            roles: vec![OperatorRole::OperatorSupport as i32],
            ..AssignOperatorRolesRequest::default()
        };
        refused(
            operator.staff().assign_operator_roles(request).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
    })
    .await;
}

// proves ROL-9, ROL-7, USR-5
#[tokio::test]
async fn guest_counts_as_a_manager_of_an_account_while_its_home_is_in() {
    both(async |site| {
        let guest = guest(&site, &[AccountRole::Manager]).await;
        let first = &guest.contoso.admin;
        let leave = LeaveAccountRequest {
            name: first.member_of(&guest.account),
            validate_only: true,
            ..LeaveAccountRequest::default()
        };
        let leaves = async || first.caller.members().leave_account(leave.clone()).await;
        leaves().await.unwrap();
        let home = &guest.fabrikam.admin.caller;
        home.disable(&guest.fred.name).await.unwrap();
        refused(leaves().await, Code::FailedPrecondition, "LAST_MANAGER");
        home.enable(&guest.fred.name).await.unwrap();
        first
            .caller
            .members()
            .leave_account(LeaveAccountRequest {
                validate_only: false,
                ..leave
            })
            .await
            .unwrap();
        // The home's tenant can't wait for the account; the account is told.
        let told = "account.v1.AccountWithoutManager";
        assert_eq!(events(&site, told, &guest.account).await, 0);
        home.disable(&guest.fred.name).await.unwrap();
        assert_eq!(events(&site, told, &guest.account).await, 1);
    })
    .await;
}

// proves USR-5
#[tokio::test]
async fn guest_invited_through_an_account_is_removed_with_its_membership() {
    both(async |site| {
        let guest = guest(&site, &[AccountRole::Developer]).await;
        second_admin(&site, &guest.contoso, "gus").await;
        let request = RemoveMembersRequest {
            parent: guest.account.clone(),
            names: vec![guest.as_person().member_of(&guest.account)],
            delete_from_directory: true,
            ..RemoveMembersRequest::default()
        };
        let admin = &guest.contoso.admin.caller;
        admin.members().remove_members(request).await.unwrap();
        let user = admin.user(&guest.name).await.unwrap();
        assert_eq!(user.state(), UserState::Deleted);
        out(guest.caller.who_am_i().await);
        guest.fred.caller.who_am_i().await.unwrap();
    })
    .await;
}
