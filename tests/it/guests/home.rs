//! What becomes of guests when something happens at their home (INV-5, ROL-10, ROL-13).

use super::*;
use crate::{
    groups::{Groups as _, group},
    harness::membership,
    members::list,
};

// proves INV-5
#[tokio::test]
async fn home_is_tied_to_one_guest_of_a_tenant_whatever_address_it_had() {
    both(async |site| {
        let guest = guest(&site, &[]).await;
        // Its sign-in name changes, and the new one is invited too.
        let renamed = User {
            user_name: "frederick".to_owned(),
            ..named(&guest.fred.name)
        };
        let home = &guest.fabrikam.admin.caller;
        let renamed = home.update(renamed, &["user_name"]).await.unwrap();
        let request = addresses(&guest.contoso.name, &[&renamed.sign_in_name]);
        let invites = guest.contoso.admin.caller.invite(request).await;
        let status = refused(invites, Code::InvalidArgument, "USER_EXISTS");
        assert_eq!(fields(&status), ["emails[0]"]);
        // Whoever gets the old name at home is nobody there.
        let heir = site.person(&guest.fabrikam, "fred").await;
        assert_eq!(heir.sign_in_name, guest.fred.sign_in_name);
        refused(
            switch(&heir.caller, &guest.contoso.name).await,
            Code::PermissionDenied,
            "NO_USER_THERE",
        );
    })
    .await;
}

/// Whether the guest is in, with all that its tokens could do.
async fn is_out(site: &Site, guest: &Guest, replica: Option<&Replica>) {
    out(guest.caller.who_am_i().await);
    out(account_of(&guest.caller, &guest.account).await);
    out(switch(&guest.caller, &guest.fabrikam.name).await);
    out(refresh(site, &guest.tokens.refresh_token).await);
    if let Some(replica) = replica {
        let there = replica.of(&guest.caller);
        out(there.who_am_i().await);
        out(account_of(&there, &guest.account).await);
    }
}

// proves INV-5, ROL-10, ATK-12, ATK-17
#[tokio::test]
async fn guest_is_out_with_its_home_on_every_replica() {
    both(async |site| {
        for how in ["disabled", "deleted", "tenant"] {
            let site = Site::open(site.database).await;
            let guest = guest(&site, &[AccountRole::Developer]).await;
            let replica = match (site.database, &site.url) {
                (Database::Postgres, Some(url)) => Some(Replica::open(url).await),
                _ => None,
            };
            if let Some(replica) = &replica {
                replica.of(&guest.caller).who_am_i().await.unwrap();
            }
            let home = &guest.fabrikam.admin.caller;
            // A user by itself has no temporary ways; only its states count.
            match how {
                "disabled" => drop(home.disable(&guest.fred.name).await.unwrap()),
                "deleted" => drop(home.delete(&guest.fred.name).await.unwrap()),
                _ => {
                    let sql = "UPDATE tenants SET state = 2 WHERE id = $1";
                    change(&site, sql, [id(&guest.fabrikam.name).into()]).await;
                }
            }
            is_out(&site, &guest, replica.as_ref()).await;
            out(guest.fred.caller.who_am_i().await);
            // The host sees a user that is there, and a member that isn't active; one that is deleted with its home.
            let admin = &guest.contoso.admin.caller;
            let user = admin.user(&guest.name).await.unwrap();
            let state = if how == "deleted" {
                UserState::Deleted
            } else {
                UserState::Active
            };
            assert_eq!(user.state(), state, "{how}");
            match how {
                "disabled" => {
                    home.enable(&guest.fred.name).await.unwrap();
                    is_out(&site, &guest, replica.as_ref()).await;
                    let fred = again(&site, &guest.fred).await;
                    let there = switch(&fred, &guest.contoso.name).await.unwrap();
                    let there = site.with_token(&there.access_token);
                    account_of(&there, &guest.account).await.unwrap();
                }
                "deleted" => {
                    // Who gets the name at home gets nothing else.
                    let heir = site.person(&guest.fabrikam, "fred").await;
                    assert_eq!(heir.caller.who_am_i().await.unwrap().tenants.len(), 1);
                }
                _ => {}
            }
        }
    })
    .await;
}

// proves USR-6, INV-5, ROL-13, ATK-11
#[tokio::test]
async fn guest_goes_with_its_deleted_home_and_comes_back_with_nothing() {
    both(async |site| {
        let guest = guest(&site, &[AccountRole::AdminAgent]).await;
        let admin = &guest.contoso.admin.caller;
        let agents = membership(&guest.account, &[AccountRole::AdminAgent]);
        let team = group(&guest.contoso, "Team", &[], Some(agents)).await;
        admin.join(&team, &[&guest.name]).await.unwrap();
        let home = &guest.fabrikam.admin.caller;
        let done = home.delete(&guest.fred.name).await.unwrap();
        // What it held elsewhere is told there, and not at its home.
        let losses = done.losses.unwrap();
        assert!(losses.memberships.is_empty() && losses.groups.is_empty());
        assert!(losses.session_count >= 2, "{losses:?}");
        let member = guest.as_person().member_of(&guest.account);
        assert_eq!(events(&site, "account.v1.MemberRemoved", &member).await, 1);
        let deleted = "directory.v1.UserDeleted";
        assert_eq!(events(&site, deleted, &guest.name).await, 1);
        assert_eq!(events(&site, deleted, &guest.fred.name).await, 1);
        let left = list(admin, &guest.account, "").await.unwrap();
        assert!(left.iter().all(|m| m.name != member));
        assert!(admin.in_group(&team, "").await.unwrap().is_empty());

        // Whoever restores the home, and so knows its password, gets nothing of it.
        let back = home.undelete(&guest.fred.name, "").await.unwrap();
        let name = &guest.fred.sign_in_name;
        let fred = site.settle_in(name, &back.temporary_password).await;
        assert_eq!(fred.who_am_i().await.unwrap().tenants.len(), 1);
        refused(
            switch(&fred, &guest.contoso.name).await,
            Code::PermissionDenied,
            "NO_USER_THERE",
        );
        assert_eq!(
            admin.user(&guest.name).await.unwrap().state(),
            UserState::Deleted
        );
        admin.undelete(&guest.name, "").await.unwrap();
        let there = switch(&fred, &guest.contoso.name).await.unwrap();
        let there = site.with_token(&there.access_token);
        refused(
            account_of(&there, &guest.account).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
    })
    .await;
}

// proves USR-6, ROL-9
#[tokio::test]
async fn account_is_told_when_its_last_manager_is_deleted_at_home() {
    both(async |site| {
        let guest = guest(&site, &[AccountRole::Manager]).await;
        let leave = LeaveAccountRequest {
            name: guest.contoso.admin.member_of(&guest.account),
            ..LeaveAccountRequest::default()
        };
        let ann = &guest.contoso.admin.caller;
        ann.members().leave_account(leave).await.unwrap();
        let told = "account.v1.AccountWithoutManager";
        assert_eq!(events(&site, told, &guest.account).await, 0);
        let home = &guest.fabrikam.admin.caller;
        home.delete(&guest.fred.name).await.unwrap();
        assert_eq!(events(&site, told, &guest.account).await, 1);
    })
    .await;
}

// proves INV-5, PWD-3, PWD-5, ROL-13
#[tokio::test]
async fn new_password_at_home_ends_sessions_elsewhere_and_a_reset_puts_rights_to_sleep_there() {
    both(async |site| {
        let guest = guest(&site, &[AccountRole::AdminAgent, AccountRole::Developer]).await;
        let request = ChangePasswordRequest {
            old_password: PASSWORD.to_owned(),
            new_password: "green chair on a hill".to_owned(),
            ..ChangePasswordRequest::default()
        };
        let changed = guest.fred.caller.sessions().change_password(request).await;
        let changed = changed.unwrap().into_inner();
        assert!(changed.ended_session_count >= 1);
        is_out(&site, &guest, None).await;

        let fred = site.with_token(&changed.tokens.unwrap().access_token);
        let there = switch(&fred, &guest.contoso.name).await.unwrap();
        let there = site.with_token(&there.access_token);
        account_of(&there, &guest.account).await.unwrap();
        let home = &guest.fabrikam.admin.caller;
        let temporary = home.reset(&guest.fred.name).await.unwrap();
        out(there.who_am_i().await);
        out(fred.who_am_i().await);
        let name = &guest.fred.sign_in_name;
        let restricted = site.sign_in(name, &temporary.temporary_password).await;
        refused(
            switch(&restricted, &guest.contoso.name).await,
            Code::FailedPrecondition,
            "PASSWORD_CHANGE_REQUIRED",
        );
        let fred = site.settle_in(name, &temporary.temporary_password).await;
        let there = switch(&fred, &guest.contoso.name).await.unwrap();
        let there = site.with_token(&there.access_token);
        account_of(&there, &guest.account).await.unwrap();
        // Whoever set the password at home can't use or give what sleeps at the host.
        let request = entente::proto::account::UpdateMembersRequest {
            parent: guest.account.clone(),
            requests: vec![entente::proto::account::UpdateMemberRequest {
                member: Some(entente::proto::account::Member {
                    name: guest.contoso.admin.member_of(&guest.account),
                    rights: Some(crate::harness::rights(&[AccountRole::Manager])),
                    ..Default::default()
                }),
            }],
            ..Default::default()
        };
        refused(
            there.members().update_members(request).await,
            Code::FailedPrecondition,
            "RIGHTS_ASLEEP",
        );
    })
    .await;
}
