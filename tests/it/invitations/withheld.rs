//! What the inviter may no longer give when the invitation is accepted (INV-4, ROL-7).

use entente::proto::account::{
    Member, RemoveMembersRequest, SuspendAccountRequest, UpdateMemberRequest, UpdateMembersRequest,
};

use super::*;

/// A global admin beside the first one who is a member of the account with roles, and invites with them.
struct Inviter {
    contoso: TenantSite,
    account: String,
    gus: Person,
    invitation: Invitation,
    token: String,
}

const PROMISED: [AccountRole; 2] = [AccountRole::Manager, AccountRole::Developer];

async fn inviter(site: &Site) -> Inviter {
    let contoso = site.tenant("contoso").await;
    let account = site.account(&contoso, "Contoso").await;
    let gus = site
        .person_with(&contoso, "gus", |r| {
            let user = r.user.as_mut().unwrap();
            user.directory_roles = vec![DirectoryRole::GlobalAdmin as i32];
            user.recovery_email = "gus@home.example".to_owned();
            r.memberships = vec![membership(&account, &[AccountRole::Manager])];
        })
        .await;
    let mut request = with_account(
        addresses(&contoso.name, &["gwen@mail.example"]),
        &account,
        &PROMISED,
    );
    request.rights.as_mut().unwrap().permissions = vec!["members.remove".to_owned()];
    let (invitation, token) = invited(site, &gus.caller, request).await;
    Inviter {
        contoso,
        account,
        gus,
        invitation,
        token,
    }
}

impl Inviter {
    /// The first manager changes what the inviter holds.
    async fn holds(&self, roles: &[AccountRole], permissions: &[&str]) {
        let mut rights = rights(roles);
        rights.permissions = permissions.iter().map(|p| (*p).to_owned()).collect();
        let request = UpdateMembersRequest {
            parent: self.account.clone(),
            requests: vec![UpdateMemberRequest {
                member: Some(Member {
                    name: self.gus.member_of(&self.account),
                    rights: Some(rights),
                    ..Member::default()
                }),
            }],
            ..UpdateMembersRequest::default()
        };
        let members = &self.contoso.admin.caller;
        members.members().update_members(request).await.unwrap();
    }

    /// Accepts, and gives what was told to guest and inviter.
    async fn accepted(
        &self,
        site: &Site,
        inviter: &str,
    ) -> (AcceptInvitationResponse, String, String) {
        let accepted = site.nobody().accept(as_new(&self.token)).await.unwrap();
        let letters = letters(site).await;
        let told = |to: &str| {
            let mut mine = letters.iter().filter(|l| l.to == to);
            mine.next_back().map(|l| l.text.clone()).unwrap_or_default()
        };
        (accepted, told("gwen@mail.example"), told(inviter))
    }

    /// What the guest holds on the account; None if it is no member.
    async fn held(&self, site: &Site) -> Option<Rights> {
        let gwen = site.sign_in("gwen@mail.example", PASSWORD).await;
        let there = crate::guests::switch(&gwen, &self.contoso.name)
            .await
            .unwrap();
        let me = site.with_token(&there.access_token).who_am_i().await;
        let mine = me.unwrap().accounts.into_iter().next();
        mine.map(|a| a.rights.unwrap())
    }
}

// proves INV-4, ROL-7, ROL-10
#[tokio::test]
async fn what_the_inviter_lacks_by_then_is_not_given_and_both_are_told() {
    both(async |site| {
        let case = inviter(&site).await;
        // The inviter keeps what it takes to give DEVELOPER, and no more.
        let left = [
            "users.assign",
            "offers.read",
            "offers.manage",
            "offers.publish",
            "reports.read",
        ];
        case.holds(&[], &left).await;
        let (accepted, guest, inviter) = case.accepted(&site, "gus@home.example").await;
        assert!(accepted.joined_account);
        let developer = rights(&[AccountRole::Developer]);
        assert_eq!(accepted.given, Some(developer.clone()));
        let withheld = accepted.withheld.unwrap();
        assert_eq!(withheld.roles, [AccountRole::Manager as i32]);
        assert_eq!(withheld.permissions, ["members.remove"]);
        assert_eq!(case.held(&site).await, Some(developer));
        for text in [guest, inviter] {
            assert!(text.contains("MANAGER") && text.contains("members.remove"));
            assert!(!text.contains("DEVELOPER") && text.contains(&case.account));
        }
    })
    .await;
}

// proves INV-4, ACC-13
#[tokio::test]
async fn inviter_who_may_assign_nobody_gives_not_even_a_membership() {
    both(async |site| {
        for how in [
            "role",
            "member",
            "disabled",
            "deleted",
            "association",
            "suspended",
        ] {
            let site = Site::open(site.database).await;
            let case = inviter(&site).await;
            let admin = &case.contoso.admin.caller;
            match how {
                "role" => case.holds(&[AccountRole::Developer], &[]).await,
                "member" => {
                    let request = RemoveMembersRequest {
                        parent: case.account.clone(),
                        names: vec![case.gus.member_of(&case.account)],
                        ..RemoveMembersRequest::default()
                    };
                    admin.members().remove_members(request).await.unwrap();
                }
                "disabled" => drop(admin.disable(&case.gus.name).await.unwrap()),
                "deleted" => drop(admin.delete(&case.gus.name).await.unwrap()),
                // The account takes in nobody by then (ACC-13).
                "suspended" => {
                    let request = SuspendAccountRequest {
                        name: case.account.clone(),
                        reason: "Complaints.".to_owned(),
                        ..SuspendAccountRequest::default()
                    };
                    let staff = site.operator().await;
                    staff.accounts().suspend_account(request).await.unwrap();
                }
                _ => {
                    let sql = "DELETE FROM associations WHERE account_id = $1";
                    change(&site, sql, [id(&case.account).into()]).await;
                }
            }
            // Where the inviter is gone, the tenant's contact is told.
            let to = match how {
                "deleted" => "it@contoso.example",
                _ => "gus@home.example",
            };
            let (accepted, guest, inviter) = case.accepted(&site, to).await;
            assert!(!accepted.joined_account, "{how}");
            assert_eq!(accepted.given, None, "{how}");
            let withheld = accepted.withheld.unwrap();
            assert_eq!(withheld.roles, PROMISED.map(|r| r as i32), "{how}");
            assert_eq!(case.held(&site).await, None, "{how}");
            for text in [guest, inviter] {
                assert!(text.contains("MANAGER, DEVELOPER"), "{how}: {text}");
            }
            // The guest itself is there all the same.
            let user = accepted.user.unwrap();
            assert_eq!(user.state(), UserState::Active, "{how}");
            let events = events(&site, "account.v1.MemberAdded", &case.invitation.user).await;
            assert_eq!(events, 0);
        }
    })
    .await;
}

// proves INV-4, ROL-13
#[tokio::test]
async fn what_sleeps_at_the_inviter_is_not_given() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let request = with_account(
            addresses(&contoso.name, &["gwen@mail.example"]),
            &account,
            &[AccountRole::AdminAgent, AccountRole::Developer],
        );
        let (_, token) = invited(&site, &contoso.admin.caller, request).await;
        // ADMIN_AGENT acts for customers, which sleeps once somebody else has set the password.
        let gus = second_admin(&site, &contoso, "gus").await;
        gus.caller.reset(&contoso.admin.name).await.unwrap();
        let accepted = site.nobody().accept(as_new(&token)).await.unwrap();
        assert_eq!(accepted.given, Some(rights(&[AccountRole::Developer])));
        let withheld = accepted.withheld.unwrap();
        assert_eq!(withheld.roles, [AccountRole::AdminAgent as i32]);
    })
    .await;
}

// proves INV-4
#[tokio::test]
async fn membership_without_rights_is_promised_and_given() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let request = InviteUsersRequest {
            account: account.clone(),
            ..addresses(&contoso.name, &["gwen@mail.example"])
        };
        let (made, token) = invited(&site, &contoso.admin.caller, request).await;
        assert_eq!(made.rights, Some(Rights::default()));
        let accepted = site.nobody().accept(as_new(&token)).await.unwrap();
        assert!(accepted.joined_account);
        assert_eq!(accepted.given, Some(Rights::default()));
    })
    .await;
}
