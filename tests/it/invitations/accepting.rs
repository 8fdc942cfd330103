//! Accepting: who must be signed in, what is made, what is given (INV-2, INV-4, INV-5).

use super::*;

// proves INV-2, INV-5, PWD-8, COM-10
#[tokio::test]
async fn accepting_makes_the_identity_of_an_address_that_nobody_has() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let request = with_account(
            addresses(&contoso.name, &["gwen@mail.example"]),
            &account,
            &[AccountRole::Developer],
        );
        let admin = &contoso.admin.caller;
        let (made, token) = invited(&site, admin, request).await;
        // Names and password are needed, all told at once, and the token stays good.
        let status = refused(
            site.nobody().accept(with_token(&token)).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["given_name", "family_name", "password"]);
        let weak = AcceptInvitationRequest {
            password: "gwen@mail.example 1".to_owned(),
            ..as_new(&token)
        };
        let status = refused(
            site.nobody().accept(weak).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["password"]);

        let accepted = site.nobody().accept(as_new(&token)).await.unwrap();
        let guest = accepted.user.unwrap();
        assert_eq!(guest.name, made.user);
        assert_eq!(guest.state(), UserState::Active);
        assert_eq!(guest.kind(), UserKind::Guest);
        assert_eq!(guest.display_name, "Gwen Guest");
        assert!(guest.home.starts_with("identities/"), "{}", guest.home);
        assert_eq!(admin.user(&made.user).await.unwrap(), guest);
        assert_eq!(accepted.tenant.unwrap().name, contoso.name);
        assert_eq!(accepted.account, account);
        assert!(accepted.joined_account);
        assert_eq!(accepted.given, Some(rights(&[AccountRole::Developer])));
        assert_eq!(accepted.withheld, Some(Rights::default()));
        let after = admin.invitation(&made.name).await.unwrap();
        assert_eq!(after.state(), InvitationState::Accepted);
        assert!(after.answer_time.is_some() && after.etag != made.etag);

        // The identity signs in by itself; nothing of it sleeps (ROL-13 counts what others set).
        let gwen = site.sign_in("GWEN@mail.example", PASSWORD).await;
        let me = gwen.who_am_i().await.unwrap();
        assert_eq!(me.principal, guest.home);
        assert!(me.tenant.is_none() && me.accounts.is_empty());
        let tenants: Vec<_> = me.tenants.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(tenants, [contoso.name.as_str()]);
        let asleep = "SELECT COUNT(*) AS n FROM users WHERE id IN ($1, $2) AND rights_asleep_until IS NOT NULL";
        let ids = [id(&guest.home).into(), id(&guest.name).into()];
        assert_eq!(number(&site, asleep, ids).await, 0);

        for (kind, of) in [
            ("directory.v1.InvitationAccepted", made.name.clone()),
            ("directory.v1.UserTied", guest.name.clone()),
            ("directory.v1.IdentityCreated", guest.home.clone()),
            (
                "account.v1.MemberAdded",
                format!("{account}/members/{}", id(&guest.name)),
            ),
        ] {
            assert_eq!(events(&site, kind, &of).await, 1, "{kind}");
        }
        // One audit event in each chain: tenant, account and identity, by the identity.
        let sql = "SELECT COUNT(*) AS n FROM audit_events WHERE action = $1 AND actor = $2";
        let action = "entente.directory.v1.InvitationService/AcceptInvitation";
        let by = guest.home.clone();
        assert_eq!(number(&site, sql, [action.into(), by.into()]).await, 3);
        crate::claims::chains_are_intact(&site.app).await;
        letters(&site).await;
        let withheld = "SELECT COUNT(*) AS n FROM mails WHERE template LIKE 'rights_withheld%'";
        assert_eq!(count(&site.app, withheld).await, 0);
    })
    .await;
}

/// A user of another tenant, and who invites it to contoso.
pub(super) async fn at_home(site: &Site) -> (TenantSite, Person, Invitation, String) {
    let contoso = site.tenant("contoso").await;
    let fabrikam = site.tenant("fabrikam").await;
    let fred = site.person(&fabrikam, "fred").await;
    let request = addresses(&contoso.name, &[&fred.sign_in_name]);
    let (made, token) = invited(site, &contoso.admin.caller, request).await;
    (contoso, fred, made, token)
}

// proves INV-5, ATK-9
#[tokio::test]
async fn address_with_a_home_is_accepted_by_exactly_that_user() {
    both(async |site| {
        let (contoso, fred, made, token) = at_home(&site).await;
        let other = site.tenant("adatum").await;
        let stranger = identity(&site, "gwen@mail.example", "northwind").await;
        let before = row_counts(&site.app).await;
        for caller in [
            &site.nobody(),
            &other.admin.caller,
            &contoso.admin.caller,
            &stranger,
        ] {
            for request in [with_token(&token), as_new(&token)] {
                refused(
                    caller.accept(request).await,
                    Code::FailedPrecondition,
                    "SIGN_IN_AS_HOLDER",
                );
            }
        }
        let mut after = row_counts(&site.app).await;
        // Refused attempts of the signed-in may be audited; nothing else came of them.
        after.insert("audit_events".to_owned(), before["audit_events"]);
        assert_eq!(after, before);
        // The password is the home's, and is not set here.
        let status = refused(
            fred.caller.accept(as_new(&token)).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["password"]);
        let accepted = fred.caller.accept(with_token(&token)).await.unwrap();
        let guest = accepted.user.unwrap();
        assert_eq!((&guest.name, &guest.home), (&made.user, &fred.name));
        assert_eq!(guest.display_name, "Given fred");
        assert_eq!(
            (accepted.account.as_str(), accepted.joined_account),
            ("", false)
        );
        assert_eq!((accepted.given, accepted.withheld), (None, None));
        let own = "SELECT COUNT(*) AS n FROM credentials WHERE user_id = $1";
        assert_eq!(number(&site, own, [id(&guest.name).into()]).await, 0);
    })
    .await;
}

// proves INV-5
#[tokio::test]
async fn address_with_an_identity_is_accepted_by_exactly_that_identity() {
    both(async |site| {
        let gwen = identity(&site, "gwen@mail.example", "adatum").await;
        let contoso = site.tenant("contoso").await;
        let request = addresses(&contoso.name, &["Gwen@mail.example"]);
        let (made, token) = invited(&site, &contoso.admin.caller, request).await;
        refused(
            site.nobody().accept(as_new(&token)).await,
            Code::FailedPrecondition,
            "SIGN_IN_AS_HOLDER",
        );
        // Its guest elsewhere is somebody else.
        let me = gwen.who_am_i().await.unwrap();
        let there = crate::guests::switch(&gwen, &me.tenants[0].name)
            .await
            .unwrap();
        refused(
            site.with_token(&there.access_token)
                .accept(with_token(&token))
                .await,
            Code::FailedPrecondition,
            "SIGN_IN_AS_HOLDER",
        );
        let renamed = AcceptInvitationRequest {
            given_name: "Gwendolen".to_owned(),
            ..with_token(&token)
        };
        let guest = gwen.accept(renamed).await.unwrap().user.unwrap();
        assert_eq!((&guest.name, &guest.home), (&made.user, &me.principal));
        assert_eq!(guest.display_name, "Gwendolen Guest");
        assert_eq!(gwen.who_am_i().await.unwrap().display_name, "Gwen Guest");
        let one = "SELECT COUNT(*) AS n FROM users WHERE kind = 3";
        assert_eq!(count(&site.app, one).await, 1);
    })
    .await;
}

// proves INV-5, INV-4
#[tokio::test]
async fn address_of_an_organisation_is_accepted_only_by_a_user_of_it() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let admin = &contoso.admin.caller;
        let new = "fred@fabrikam.partners.localhost";
        let own = "carl@contoso.partners.localhost";
        let made = admin
            .invite(addresses(
                &contoso.name,
                &[
                    new,
                    own,
                    "x@partners.localhost",
                    "x@no.such.partners.localhost",
                ],
            ))
            .await
            .unwrap();
        for invitation in &made {
            let token = token_for(&site, &invitation.email).await;
            refused(
                site.nobody().accept(as_new(&token)).await,
                Code::FailedPrecondition,
                "WORK_ADDRESS",
            );
        }
        // Once there is such a user, it is the one.
        let fred = site.person(&fabrikam, "fred").await;
        let token = token_for(&site, new).await;
        refused(
            site.nobody().accept(as_new(&token)).await,
            Code::FailedPrecondition,
            "SIGN_IN_AS_HOLDER",
        );
        fred.caller.accept(with_token(&token)).await.unwrap();
        // One of the tenant itself needs no guest.
        let carl = site.person(&contoso, "carl").await;
        let token = token_for(&site, own).await;
        refused(
            carl.caller.accept(with_token(&token)).await,
            Code::AlreadyExists,
            "USER_EXISTS",
        );
        let look_alike = "x@notpartners.localhost";
        let request = addresses(&contoso.name, &[look_alike]);
        let (_, token) = invited(&site, admin, request).await;
        site.nobody().accept(as_new(&token)).await.unwrap();
    })
    .await;
}

// proves COM-4
#[tokio::test]
async fn repetitions_are_recognised_for_ever() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let request = InviteUsersRequest {
            request_id: request_id(),
            ..addresses(&contoso.name, &["gwen@mail.example"])
        };
        let first = contoso.admin.caller.invite(request.clone()).await.unwrap();
        let token = token_for(&site, "gwen@mail.example").await;
        let accept = AcceptInvitationRequest {
            request_id: request_id(),
            ..as_new(&token)
        };
        let accepted = site.nobody().accept(accept.clone()).await.unwrap();
        for days in [0, 2, 400] {
            if days > 0 {
                site.advance(days * 86_400).await;
            }
            site.settle().await;
            let ann = again(&site, &contoso.admin).await;
            let before = row_counts(&site.app).await;
            let repeated = ann.invitations().invite_users(request.clone()).await;
            let repeated = repeated.unwrap();
            assert!(replayed(&repeated), "after {days} days");
            assert_eq!(repeated.into_inner().invitations, first);
            let repeated = site
                .nobody()
                .invitations()
                .accept_invitation(accept.clone())
                .await;
            let repeated = repeated.unwrap();
            assert!(replayed(&repeated), "after {days} days");
            assert_eq!(repeated.into_inner(), accepted);
            assert_eq!(row_counts(&site.app).await, before);
        }
        let ann = again(&site, &contoso.admin).await;
        let other = InviteUsersRequest {
            emails: vec!["other@mail.example".to_owned()],
            ..request
        };
        refused(
            ann.invite(other).await,
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
        );
    })
    .await;
}
