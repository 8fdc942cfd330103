//! Credentials that somebody else sets, and recovery addresses: who may, and what sleeps after (PWD-5, ROL-13, ATK-14).

use entente::proto::{
    access::AccountRole,
    account::{
        AddMembersRequest, AssociateTenantRequest, Member, UpdateMemberRequest,
        UpdateMembersRequest,
    },
    directory::{
        DirectoryRole, ResetPasswordRequest, ResetPasswordResponse, UpdateOwnContactRequest, User,
    },
    operator::{ListMailsRequest, OperatorRole},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    harness::{Caller, PASSWORD, both, membership, refused, request_id, rights},
    people::{
        People as _, again, events, letters, named, operator_tenant, person_as, refresh,
        second_admin, staff,
    },
};

async fn search(caller: &Caller) -> Result<(), Status> {
    let request = ListMailsRequest::default();
    caller.mails().list_mails(request).await.map(drop)
}

/// Until when rights sleep, as a refusal says it.
fn until(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap();
    info.metadata["until"].clone()
}

// proves PWD-5
#[tokio::test]
async fn reset_gives_a_temporary_password_and_ends_everything_old() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site
            .person_with(&contoso, "bob", |r| {
                r.user.as_mut().unwrap().recovery_email = "bob@home.example".to_owned();
            })
            .await;
        let tokens = site.tokens(&bob.sign_in_name, PASSWORD).await.unwrap();
        let admin = &contoso.admin.caller;
        let request = ResetPasswordRequest {
            name: bob.name.clone(),
            request_id: request_id(),
            ..ResetPasswordRequest::default()
        };
        let checked = ResetPasswordRequest {
            validate_only: true,
            ..request.clone()
        };
        let checked = admin.users().reset_password(checked).await.unwrap();
        assert_eq!(checked.into_inner().temporary_password, "");
        bob.caller.who_am_i().await.unwrap();
        let done = admin.users().reset_password(request.clone()).await.unwrap();
        let ResetPasswordResponse {
            user,
            temporary_password,
            secret_omitted,
            ended_session_count,
        } = done.into_inner();
        assert_eq!(user.unwrap().name, bob.name);
        assert_eq!((secret_omitted, ended_session_count), (false, 2));
        let replay = admin.users().reset_password(request).await.unwrap();
        let replay = replay.into_inner();
        assert_eq!(replay.temporary_password, "");
        assert!(replay.secret_omitted);
        for (old, code) in [
            (bob.caller.who_am_i().await.map(drop), "TOKEN_INVALID"),
            (
                refresh(&site, &tokens.refresh_token).await.map(drop),
                "TOKEN_INVALID",
            ),
            (
                site.tokens(&bob.sign_in_name, PASSWORD).await.map(drop),
                "SIGN_IN_FAILED",
            ),
        ] {
            refused(old, Code::Unauthenticated, code);
        }
        site.settle_in(&bob.sign_in_name, &temporary_password).await;
        // It was good once.
        refused(
            site.tokens(&bob.sign_in_name, &temporary_password).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        assert_eq!(
            events(&site, "directory.v1.PasswordReset", &bob.name).await,
            1
        );
        let letters = letters(&site).await;
        let mine: Vec<_> = letters
            .iter()
            .filter(|l| l.to == "bob@home.example")
            .collect();
        assert_eq!(mine.len(), 1);
        assert!(
            letters
                .iter()
                .all(|l| !l.text.contains(&temporary_password))
        );
    })
    .await;
}

// proves PWD-5, ATK-14
#[tokio::test]
async fn helpdesk_resets_only_people_who_hold_nothing() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let hal = person_as(&site, &contoso, "hal", DirectoryRole::HelpdeskAdmin).await;
        let bob = site.person(&contoso, "bob").await;
        let guest = site
            .person_with(&contoso, "guest", |r| {
                r.memberships = vec![membership(&account, &[])];
            })
            .await;
        hal.caller.reset(&bob.name).await.unwrap();
        hal.caller.reset(&guest.name).await.unwrap();
        let dev = site
            .person_with(&contoso, "dev", |r| {
                r.memberships = vec![membership(&account, &[AccountRole::Developer])];
            })
            .await;
        let single = site
            .person_with(&contoso, "single", |r| {
                let mut membership = membership(&account, &[]);
                membership.rights.as_mut().unwrap().permissions = vec!["offers.read".to_owned()];
                r.memberships = vec![membership];
            })
            .await;
        let bill = person_as(&site, &contoso, "bill", DirectoryRole::BillingAdmin).await;
        let hil = person_as(&site, &contoso, "hil", DirectoryRole::HelpdeskAdmin).await;
        for holder in [&contoso.admin, &dev, &single, &bill, &hil, &hal] {
            let before = contoso.admin.caller.user(&holder.name).await.unwrap();
            let reason = if holder.name == hal.name {
                "OWN_CREDENTIAL"
            } else {
                "PERMISSION_MISSING"
            };
            refused(
                hal.caller.reset(&holder.name).await,
                Code::PermissionDenied,
                reason,
            );
            let after = contoso.admin.caller.user(&holder.name).await.unwrap();
            assert_eq!(after, before);
            holder.caller.who_am_i().await.unwrap();
        }
        for other in [&bill, &dev] {
            refused(
                other.caller.reset(&bob.name).await,
                Code::PermissionDenied,
                "PERMISSION_MISSING",
            );
        }
        // Knowing the old one is what protects one's own.
        refused(
            contoso.admin.caller.reset(&contoso.admin.name).await,
            Code::PermissionDenied,
            "OWN_CREDENTIAL",
        );
        for holder in [&dev, &single, &bill, &hil, &hal] {
            contoso.admin.caller.reset(&holder.name).await.unwrap();
        }
    })
    .await;
}

// proves PWD-5
#[tokio::test]
async fn helpdesk_of_the_operator_resets_no_staff() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let support = staff(&site, "sue", OperatorRole::OperatorSupport).await;
        let hal = person_as(&site, &home, "hal", DirectoryRole::HelpdeskAdmin).await;
        refused(
            hal.caller.reset(&support.name).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        support.caller.who_am_i().await.unwrap();
    })
    .await;
}

// proves ROL-13
#[tokio::test]
async fn rights_of_staff_sleep_for_72_hours_after_a_reset() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let sue = staff(&site, "sue", OperatorRole::OperatorSupport).await;
        search(&sue.caller).await.unwrap();
        let temporary = home.admin.caller.reset(&sue.name).await.unwrap();
        let temporary = temporary.temporary_password;
        let caller = site.settle_in(&sue.sign_in_name, &temporary).await;
        let status = refused(
            search(&caller).await,
            Code::FailedPrecondition,
            "RIGHTS_ASLEEP",
        );
        let user = home.admin.caller.user(&sue.name).await.unwrap();
        let asleep_until = user.rights_asleep_until.unwrap();
        assert!(until(&status).ends_with('Z'), "{}", until(&status));
        let told = status.get_details_error_info().unwrap().metadata;
        let roles: Vec<&str> = told["woken_by"].split(", ").collect();
        assert!(roles.contains(&"OPERATOR_ADMIN") && roles.contains(&"OPERATOR_SUPPORT"));
        // Nobody wakes their own, and nobody wakes what they lack.
        let bob = site.person(&home, "bob").await;
        for other in [&caller, &bob.caller] {
            refused(
                other.wake(&sue.name).await,
                Code::PermissionDenied,
                "NOTHING_TO_WAKE",
            );
        }
        let letters = letters(&site).await;
        assert!(letters.iter().any(|l| l.to == "admin@operator.example"
            && l.text.contains(&sue.sign_in_name)
            && l.text.contains("asleep")));

        let now = home.admin.caller.user(&sue.name).await.unwrap();
        assert_eq!(now.rights_asleep_until, Some(asleep_until));
        site.advance(72 * 3_600 - 120).await;
        refused(
            search(&again(&site, &sue).await).await,
            Code::FailedPrecondition,
            "RIGHTS_ASLEEP",
        );
        site.advance(121).await;
        search(&again(&site, &sue).await).await.unwrap();
        let admin = site.operator().await;
        let user = admin.user(&sue.name).await.unwrap();
        assert_eq!(user.rights_asleep_until, None);
        // Nothing sleeps any more, so there is nothing to wake.
        refused(
            admin.wake(&sue.name).await,
            Code::PermissionDenied,
            "NOTHING_TO_WAKE",
        );
    })
    .await;
}

// proves ROL-13
#[tokio::test]
async fn another_holder_wakes_sleeping_rights() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let admin = &home.admin.caller;
        let sue = staff(&site, "sue", OperatorRole::OperatorSupport).await;
        let sam = staff(&site, "sam", OperatorRole::OperatorSupport).await;
        let temporary = admin.reset(&sue.name).await.unwrap().temporary_password;
        let caller = site.settle_in(&sue.sign_in_name, &temporary).await;
        // Whose own sleep can wake nobody's.
        let asleep = admin.reset(&sam.name).await.unwrap().temporary_password;
        let sam = site.settle_in(&sam.sign_in_name, &asleep).await;
        refused(
            sam.wake(&sue.name).await,
            Code::PermissionDenied,
            "NOTHING_TO_WAKE",
        );
        // A name without anybody gets the same answer.
        let nobody = sue.name.replace(sue.name.rsplit('/').next().unwrap(), "");
        let nobody = format!("{nobody}018f0000-0000-7000-8000-000000000000");
        refused(
            admin.wake(&nobody).await,
            Code::PermissionDenied,
            "NOTHING_TO_WAKE",
        );
        admin.wake(&sue.name).await.unwrap();
        search(&caller).await.unwrap();
        assert_eq!(
            events(&site, "directory.v1.RightsWoken", &sue.name).await,
            1
        );
        refused(
            search(&sam).await,
            Code::FailedPrecondition,
            "RIGHTS_ASLEEP",
        );
    })
    .await;
}

// proves ROL-13
#[tokio::test]
async fn recovery_address_set_by_an_admin_puts_rights_to_sleep() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let sue = staff(&site, "sue", OperatorRole::OperatorSupport).await;
        let admin = &home.admin.caller;
        let other_name = User {
            given_name: "Susan".to_owned(),
            ..named(&sue.name)
        };
        admin.update(other_name, &["given_name"]).await.unwrap();
        search(&sue.caller).await.unwrap();
        let address = User {
            recovery_email: "sue2@operator.example".to_owned(),
            ..named(&sue.name)
        };
        let changed = admin.update(address, &["recovery_email"]).await.unwrap();
        assert!(changed.rights_asleep_until.is_some());
        refused(
            search(&sue.caller).await,
            Code::FailedPrecondition,
            "RIGHTS_ASLEEP",
        );
        // The old address is told, not the new one.
        let letters = letters(&site).await;
        assert_eq!(
            letters
                .iter()
                .filter(|l| l.to == "sue@operator.example")
                .count(),
            1
        );
        assert!(letters.iter().all(|l| l.to != "sue2@operator.example"));
        admin.wake(&sue.name).await.unwrap();
        search(&sue.caller).await.unwrap();
    })
    .await;
}

// proves ROL-13, PWD-5
#[tokio::test]
async fn people_set_their_own_recovery_address_after_a_fresh_sign_in() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let sue = staff(&site, "sue", OperatorRole::OperatorSupport).await;
        let tokens = site.tokens(&sue.sign_in_name, PASSWORD).await.unwrap();
        let caller = site.with_token(&tokens.access_token);
        let mine = "sue@home.example";
        let changed = caller.set_contact(&sue.name, mine).await.unwrap();
        assert_eq!(changed.recovery_email, mine);
        assert_eq!(changed.rights_asleep_until, None);
        search(&caller).await.unwrap();
        refused(
            caller.set_contact(&home.admin.name, mine).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        site.advance(540).await;
        // Nine minutes later it is still fresh.
        let request = UpdateOwnContactRequest {
            name: sue.name.clone(),
            recovery_email: "late@home.example".to_owned(),
            validate_only: true,
            ..UpdateOwnContactRequest::default()
        };
        let checked = caller.users().update_own_contact(request).await;
        checked.unwrap();
        site.advance(61).await;
        let stale = refused(
            caller.set_contact(&sue.name, "late@home.example").await,
            Code::FailedPrecondition,
            "RECENT_SIGN_IN_REQUIRED",
        );
        let info = stale.get_details_error_info().unwrap();
        assert_eq!(info.metadata["minutes"], "10");
        // Refreshing is no sign-in.
        let refreshed = refresh(&site, &tokens.refresh_token).await.unwrap();
        let refreshed = site.with_token(&refreshed.access_token);
        refused(
            refreshed.set_contact(&sue.name, "late@home.example").await,
            Code::FailedPrecondition,
            "RECENT_SIGN_IN_REQUIRED",
        );
        let fresh = again(&site, &sue).await;
        fresh
            .set_contact(&sue.name, "fresh@home.example")
            .await
            .unwrap();
        let letters = letters(&site).await;
        for old in ["sue@operator.example", mine] {
            assert_eq!(letters.iter().filter(|l| l.to == old).count(), 1, "{old}");
        }
        assert!(letters.iter().all(|l| l.to != "late@home.example"));
    })
    .await;
}

// proves ROL-13, ATK-14
#[tokio::test]
async fn a_stale_sign_in_sets_ones_own_recovery_address_by_no_other_verb() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let name = &contoso.admin.name;
        let before = admin.user(name).await.unwrap();
        site.advance(601).await;
        let address = User {
            recovery_email: "thief@evil.example".to_owned(),
            ..named(name)
        };
        for mask in [&["recovery_email"][..], &["*"], &[]] {
            let mut user = address.clone();
            if mask == ["*"] {
                user.user_name = before.user_name.clone();
                user.given_name = before.given_name.clone();
                user.family_name = before.family_name.clone();
            }
            refused(
                admin.update(user, mask).await,
                Code::PermissionDenied,
                "OWN_CREDENTIAL",
            );
        }
        assert_eq!(admin.user(name).await.unwrap(), before);
        // One's own names are another matter.
        let user = User {
            given_name: "Anna".to_owned(),
            ..named(name)
        };
        admin.update(user, &["given_name"]).await.unwrap();
    })
    .await;
}

// proves ROL-13, ROL-8, ATK-15
#[tokio::test]
async fn whoever_wakes_rights_from_another_tenant_sees_no_more_than_names() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let carol = second_admin(&site, &contoso, "carol").await;
        let request = AssociateTenantRequest {
            parent: account.clone(),
            tenant_admin_token: fabrikam.admin.caller.token.clone().unwrap(),
            ..AssociateTenantRequest::default()
        };
        let ann = &contoso.admin.caller;
        ann.associations().associate_tenant(request).await.unwrap();
        let request = AddMembersRequest {
            parent: account.clone(),
            principals: vec![fabrikam.admin.name.clone()],
            ..AddMembersRequest::default()
        };
        let eve = &fabrikam.admin.caller;
        eve.members().add_members(request).await.unwrap();
        let request = UpdateMembersRequest {
            parent: account.clone(),
            requests: vec![UpdateMemberRequest {
                member: Some(Member {
                    name: fabrikam.admin.member_of(&account),
                    rights: Some(rights(&[AccountRole::Manager, AccountRole::AdminAgent])),
                    ..Member::default()
                }),
            }],
            ..UpdateMembersRequest::default()
        };
        ann.members().update_members(request).await.unwrap();
        carol.caller.reset(&contoso.admin.name).await.unwrap();
        let woken = eve.wake(&contoso.admin.name).await.unwrap();
        assert_eq!(woken.display_name, "Ann Smith");
        assert_eq!(woken.recovery_email, "");
        assert!(woken.directory_roles.is_empty());
    })
    .await;
}
