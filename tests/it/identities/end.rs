//! What is kept of an identity, and its end.

use entente::proto::{
    access::AccountRole,
    account::{AddMembersRequest, LeaveAccountRequest},
    directory::{
        CloseIdentityRequest, Identity, IdentityState, SignOutRequest, UpdateIdentityRequest,
        UserState,
    },
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    documents::{first, pdf, upload},
    harness::{PASSWORD, both, new_tenant, refused, request_id, rights},
    invitations::{addresses, invited},
    network::{join, new_membership},
    people::{
        People as _, again, ask_recovery, audited, change, denied, events, guest, id, identity,
        letters, link_invalid, mailed_token, number, recover, refresh,
    },
};

use super::{ADDRESS, NEW, change_email, close, confirm_email, export, get, own_account, switch};

// proves IDN-2
#[tokio::test]
async fn export_tells_all_that_is_kept_of_the_person() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ida = identity(&site, ADDRESS).await;
        let gwen = guest(&site, &contoso.name, &ida).await;
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![gwen.clone()],
            rights: Some(rights(&[AccountRole::Developer])),
            ..AddMembersRequest::default()
        };
        let admin = &contoso.admin.caller;
        admin.members().add_members(request).await.unwrap();
        switch(&ida.caller, &contoso.name).await.unwrap();
        let made = ida
            .caller
            .tenants()
            .create_tenant(new_tenant("noors"))
            .await;
        let made = made.unwrap().into_inner().tenant.unwrap();
        let ended = site.sign_in(ADDRESS, PASSWORD).await;
        ended
            .sessions()
            .sign_out(SignOutRequest::default())
            .await
            .unwrap();
        for _ in 0..60 {
            get(&ida.caller, &ida.name).await.unwrap();
            let update = UpdateIdentityRequest {
                identity: Some(Identity {
                    name: ida.name.clone(),
                    family_name: "Noor".to_owned(),
                    ..Identity::default()
                }),
                ..UpdateIdentityRequest::default()
            };
            ida.caller
                .identities()
                .update_identity(update)
                .await
                .unwrap();
        }
        let northwind = site.tenant("northwind").await;
        let request = addresses(&northwind.name, &[ADDRESS]);
        let (invitation, _) = invited(&site, &northwind.admin.caller, request).await;
        let joined = join(&ida.caller, new_membership("Noors")).await.unwrap();
        let receipt = upload(&ida.caller, first(&ida.name, "evidence.pdf"), pdf(), 1_024).await;
        let receipt = receipt.unwrap();
        let told = export(&ida.caller, &ida.name).await.unwrap();
        assert_eq!(
            told.identity,
            Some(get(&ida.caller, &ida.name).await.unwrap())
        );
        assert_eq!(told.sessions.len(), 3, "one ended, and one as a guest");
        assert_eq!(told.sessions.iter().filter(|s| s.current).count(), 1);
        assert_eq!(told.language_code, "en");
        assert_eq!(told.networks.len(), 1);
        assert_eq!(told.networks[0].network, "127.0.0.0/24");
        assert_eq!((told.guests.len(), &told.guests[0].name), (1, &gwen));
        assert_eq!(told.rights.len(), 1);
        let right = &told.rights[0];
        assert_eq!(
            (&right.resource, &right.holder, right.by_group),
            (&account, &gwen, false)
        );
        assert_eq!(right.rights, ["DEVELOPER"]);
        assert_eq!(told.tenants, [made.name]);
        let mails: Vec<_> = told.mails.iter().map(|m| m.template.as_str()).collect();
        assert_eq!(mails, ["identity_confirmation", "invitation"]);
        assert_eq!(told.invitations.len(), 1);
        assert_eq!(told.invitations[0].name, invitation.name);
        let document = &told.documents[0];
        assert_eq!(
            (&document.name, &document.sha256),
            (&receipt.name, &receipt.sha256)
        );
        assert_eq!(told.account_resources, [joined.name]);
        let listed = audited(&ida.caller, &ida.name, "").await.unwrap();
        assert!(listed.len() > 60);
        assert_eq!(told.audit_events, listed, "all of them, in their order");
    })
    .await;
}

// proves IDN-2, ROL-9, USR-6
#[tokio::test]
async fn closed_identity_is_out_everywhere_at_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ida = identity(&site, ADDRESS).await;
        let gwen = guest(&site, &contoso.name, &ida).await;
        let admin = &contoso.admin.caller;
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![gwen.clone()],
            rights: Some(rights(&[AccountRole::Manager])),
            ..AddMembersRequest::default()
        };
        admin.members().add_members(request).await.unwrap();
        let leave = LeaveAccountRequest {
            name: contoso.admin.member_of(&account),
            ..LeaveAccountRequest::default()
        };
        admin.members().leave_account(leave).await.unwrap();
        let tokens = site.tokens(ADDRESS, PASSWORD).await.unwrap();
        let as_guest = switch(&ida.caller, &contoso.name).await.unwrap();
        let guest_caller = site.with_token(&as_guest.access_token);
        guest_caller.who_am_i().await.unwrap();
        ask_recovery(&site, ADDRESS).await.unwrap();
        let way_back = mailed_token(&site, ADDRESS).await.unwrap();
        let fresh = again(&site, &ida).await;
        change_email(&fresh, &ida.name, "ida@new.example")
            .await
            .unwrap();
        let new_address = mailed_token(&site, "ida@new.example").await.unwrap();

        let checked = CloseIdentityRequest {
            name: ida.name.clone(),
            validate_only: true,
            ..CloseIdentityRequest::default()
        };
        // An account's last manager doesn't leave it this way either.
        let last = refused(
            fresh.identities().close_identity(checked.clone()).await,
            Code::FailedPrecondition,
            "LAST_MANAGER",
        );
        let info = last.get_details_error_info().unwrap();
        assert_eq!(info.metadata["account"], account);
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![contoso.admin.name.clone()],
            rights: Some(rights(&[AccountRole::Manager])),
            ..AddMembersRequest::default()
        };
        guest_caller.members().add_members(request).await.unwrap();
        let would = fresh.identities().close_identity(checked).await.unwrap();
        assert_eq!(would.into_inner().losses.unwrap().memberships.len(), 1);
        fresh.who_am_i().await.unwrap();
        let request = CloseIdentityRequest {
            name: ida.name.clone(),
            request_id: request_id(),
            ..CloseIdentityRequest::default()
        };
        let closed = fresh.identities().close_identity(request.clone()).await;
        let closed = closed.unwrap().into_inner();
        assert_eq!(closed.resources[0].state(), IdentityState::Closed);
        let losses = closed.losses.clone().unwrap();
        assert_eq!(losses.memberships.len(), 1);
        assert_eq!(losses.session_count, 4);
        // The call ended the right to make it; its answer is there all the same (COM-4).
        let again = fresh.identities().close_identity(request).await;
        assert_eq!(again.unwrap().into_inner(), closed);
        for caller in [&fresh, &ida.caller, &guest_caller] {
            refused(
                caller.who_am_i().await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
            );
        }
        for token in [&tokens.refresh_token, &as_guest.refresh_token] {
            refused(
                refresh(&site, token).await,
                Code::Unauthenticated,
                "TOKEN_INVALID",
            );
        }
        refused(
            site.tokens(ADDRESS, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        link_invalid(recover(&site, &way_back, NEW).await);
        link_invalid(confirm_email(&site, &new_address).await);
        let seen = admin.user(&gwen).await.unwrap();
        assert_eq!(seen.state(), UserState::Deleted);
        let told = events(&site, "account.v1.AccountWithoutManager", &account).await;
        assert_eq!(told, 0);
        assert_eq!(
            events(&site, "directory.v1.IdentityClosed", &ida.name).await,
            1
        );
        let letters = letters(&site).await;
        let told = letters.iter().rfind(|l| l.to == ADDRESS).unwrap();
        assert!(told.text.contains("closed"), "{}", told.text);
        // Its address is free, and who has it next inherits nothing.
        let next = identity(&site, ADDRESS).await;
        assert_ne!(next.name, ida.name);
        assert!(next.caller.who_am_i().await.unwrap().tenants.is_empty());
        let away = switch(&next.caller, &contoso.name).await;
        refused(away, Code::PermissionDenied, "NO_USER_THERE");
        denied(audited(&next.caller, &ida.name, "").await);
        // What is kept is purged after 30 days; the chain stays.
        let left = "SELECT COUNT(*) AS n FROM users WHERE id = $1";
        assert_eq!(number(&site, left, [id(&ida.name).into()]).await, 1);
        site.advance(30 * 24 * 3_600 + 60).await;
        site.settle().await;
        assert_eq!(number(&site, left, [id(&ida.name).into()]).await, 0);
        let operator = site.operator().await;
        assert!(!audited(&operator, &ida.name, "").await.unwrap().is_empty());
        crate::claims::chains_are_intact(&site.app).await;
    })
    .await;
}

// proves IDN-2
#[tokio::test]
async fn identity_that_owns_an_account_is_not_closed() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ida = identity(&site, ADDRESS).await;
        own_account(&site, &ida, &account).await;
        let status = refused(
            close(&ida.caller, &ida.name).await,
            Code::FailedPrecondition,
            "OWNS_ACCOUNT",
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["account"], account);
        ida.caller.who_am_i().await.unwrap();
        let sql = "DELETE FROM grants WHERE principal_id = $1";
        change(&site, sql, [id(&ida.name).into()]).await;
        close(&ida.caller, &ida.name).await.unwrap();
    })
    .await;
}
