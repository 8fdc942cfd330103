//! What becomes of guests when something happens at their home (INV-5, ROL-10, ROL-13).

use super::*;

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
            "PERMISSION_MISSING",
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
            // The host sees a user that is there, and a member that isn't active.
            let admin = &guest.contoso.admin.caller;
            let user = admin.user(&guest.name).await.unwrap();
            assert_eq!(user.state(), UserState::Active, "{how}");
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
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
    })
    .await;
}
