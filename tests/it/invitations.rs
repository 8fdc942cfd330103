//! Invitations: who may be invited, what the mailed link is worth, and what accepting gives (INV-1 to INV-5).

use entente::proto::{
    access::{AccountRole, Rights},
    directory::{
        AcceptInvitationRequest, AcceptInvitationResponse, DirectoryRole, GetInvitationRequest,
        Invitation, InvitationState, InviteUsersRequest, ListInvitationsRequest,
        ResendInvitationRequest, RevokeInvitationRequest, UserKind, UserState,
    },
};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    claims::{count, replayed, row_counts},
    harness::{
        Caller, PASSWORD, Person, Site, TenantSite, both, fields, membership, refused, request_id,
        rights,
    },
    people::{People as _, again, change, events, id, letters, number, second_admin},
};

mod links;
mod withheld;

/// Calls about invitations.
pub(crate) trait Inviting {
    async fn invite(&self, request: InviteUsersRequest) -> Result<Vec<Invitation>, Status>;
    async fn invitation(&self, name: &str) -> Result<Invitation, Status>;
    async fn invitations_of(&self, tenant: &str, filter: &str) -> Result<Vec<Invitation>, Status>;
    async fn resend(&self, name: &str) -> Result<Invitation, Status>;
    async fn revoke(&self, name: &str) -> Result<Invitation, Status>;
    async fn accept(
        &self,
        request: AcceptInvitationRequest,
    ) -> Result<AcceptInvitationResponse, Status>;
}

impl Inviting for Caller {
    async fn invite(&self, request: InviteUsersRequest) -> Result<Vec<Invitation>, Status> {
        let done = self.invitations().invite_users(request).await;
        done.map(|r| r.into_inner().invitations)
    }
    async fn invitation(&self, name: &str) -> Result<Invitation, Status> {
        let name = name.to_owned();
        let request = GetInvitationRequest { name };
        let got = self.invitations().get_invitation(request).await;
        got.map(Response::into_inner)
    }
    async fn invitations_of(&self, tenant: &str, filter: &str) -> Result<Vec<Invitation>, Status> {
        let request = ListInvitationsRequest {
            parent: tenant.to_owned(),
            filter: filter.to_owned(),
            ..ListInvitationsRequest::default()
        };
        let got = self.invitations().list_invitations(request).await;
        got.map(|r| r.into_inner().invitations)
    }
    async fn resend(&self, name: &str) -> Result<Invitation, Status> {
        let request = ResendInvitationRequest {
            name: name.to_owned(),
            ..ResendInvitationRequest::default()
        };
        let done = self.invitations().resend_invitation(request).await;
        done.map(Response::into_inner)
    }
    async fn revoke(&self, name: &str) -> Result<Invitation, Status> {
        let request = RevokeInvitationRequest {
            name: name.to_owned(),
            ..RevokeInvitationRequest::default()
        };
        let done = self.invitations().revoke_invitation(request).await;
        done.map(Response::into_inner)
    }
    async fn accept(
        &self,
        request: AcceptInvitationRequest,
    ) -> Result<AcceptInvitationResponse, Status> {
        let done = self.invitations().accept_invitation(request).await;
        done.map(Response::into_inner)
    }
}

/// The request that invites addresses into a tenant.
pub(crate) fn addresses(tenant: &str, emails: &[&str]) -> InviteUsersRequest {
    InviteUsersRequest {
        parent: tenant.to_owned(),
        emails: emails.iter().map(|e| (*e).to_owned()).collect(),
        ..InviteUsersRequest::default()
    }
}

/// The same, with a membership of an account.
pub(crate) fn with_account(
    request: InviteUsersRequest,
    account: &str,
    roles: &[AccountRole],
) -> InviteUsersRequest {
    InviteUsersRequest {
        account: account.to_owned(),
        rights: Some(rights(roles)),
        ..request
    }
}

/// Whoever is signed in accepts.
pub(crate) fn with_token(token: &str) -> AcceptInvitationRequest {
    AcceptInvitationRequest {
        token: token.to_owned(),
        ..AcceptInvitationRequest::default()
    }
}

/// A person whom nobody knows yet accepts.
pub(crate) fn as_new(token: &str) -> AcceptInvitationRequest {
    AcceptInvitationRequest {
        token: token.to_owned(),
        given_name: "Gwen".to_owned(),
        family_name: "Guest".to_owned(),
        password: PASSWORD.to_owned(),
        request_id: String::new(),
    }
}

/// The token of the last mail to an address.
pub(crate) async fn token_for(site: &Site, address: &str) -> String {
    let letters = letters(site).await;
    let mine = letters.iter().filter(|l| l.to == address);
    let text = &mine
        .last()
        .unwrap_or_else(|| panic!("no mail to {address}"))
        .text;
    token_in(text)
}

fn token_in(text: &str) -> String {
    let at = text.find("entl_").expect("the mail has a token");
    text[at..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        .collect()
}

/// Invites one address, and gives the invitation and its token.
pub(crate) async fn invited(
    site: &Site,
    by: &Caller,
    request: InviteUsersRequest,
) -> (Invitation, String) {
    let made = by.invite(request).await.unwrap().remove(0);
    let token = token_for(site, &made.email).await;
    (made, token)
}

/// A personal identity, which comes to be as the guest of a tenant of its own.
pub(crate) async fn identity(site: &Site, address: &str, prefix: &str) -> Caller {
    let tenant = site.tenant(prefix).await;
    let request = addresses(&tenant.name, &[address]);
    let (_, token) = invited(site, &tenant.admin.caller, request).await;
    site.nobody().accept(as_new(&token)).await.unwrap();
    site.sign_in(address, PASSWORD).await
}

/// Everything that a refusal says.
fn said(status: &Status) -> (Code, String, Vec<u8>) {
    let (code, message) = (status.code(), status.message().to_owned());
    (code, message, status.details().to_vec())
}

// proves INV-1, INV-2
#[tokio::test]
async fn invited_address_becomes_a_guest_that_can_do_nothing_yet() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let request = with_account(
            addresses(&contoso.name, &["Gwen@Mail.example"]),
            &account,
            &[AccountRole::Developer],
        );
        let (made, token) = {
            let made = admin.invite(request).await.unwrap().remove(0);
            (made.clone(), token_for(&site, "Gwen@Mail.example").await)
        };
        assert_eq!(made.state(), InvitationState::Pending);
        assert_eq!(made.email, "Gwen@Mail.example");
        assert_eq!(made.account, account);
        assert_eq!(made.rights, Some(rights(&[AccountRole::Developer])));
        assert_eq!(made.inviter, contoso.admin.name);
        let lasts = made.expire_time.unwrap().seconds - made.send_time.unwrap().seconds;
        assert_eq!(lasts, 30 * 86_400);
        assert_eq!(admin.invitation(&made.name).await.unwrap(), made);

        let guest = admin.user(&made.user).await.unwrap();
        assert_eq!(guest.kind(), UserKind::Guest);
        assert_eq!(guest.state(), UserState::Invited);
        assert_eq!((guest.display_name.as_str(), guest.home.as_str()), ("", ""));
        assert_eq!(guest.sign_in_name, "Gwen@Mail.example");
        let listed = admin
            .list(&contoso.name, "state = INVITED AND kind = GUEST")
            .await
            .unwrap();
        assert_eq!(listed, [guest.clone()]);

        // Nothing is held, and no way leads in.
        let held = "SELECT COUNT(*) AS n FROM grants WHERE principal_id = $1";
        assert_eq!(number(&site, held, [id(&made.user).into()]).await, 0);
        let own = "SELECT COUNT(*) AS n FROM credentials WHERE user_id = $1";
        assert_eq!(number(&site, own, [id(&made.user).into()]).await, 0);
        refused(
            site.tokens("gwen@mail.example", PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        let members = entente::proto::account::AddMembersRequest {
            parent: account.clone(),
            principals: vec![made.user.clone()],
            ..Default::default()
        };
        refused(
            admin.members().add_members(members).await,
            Code::FailedPrecondition,
            "NOT_IN_ASSOCIATED_TENANT",
        );
        for done in [
            admin.disable(&made.user).await.map(drop),
            admin.enable(&made.user).await.map(drop),
            admin
                .assign(&made.user, &[DirectoryRole::HelpdeskAdmin])
                .await
                .map(drop),
        ] {
            refused(done, Code::FailedPrecondition, "WRONG_STATE");
        }

        // The mail has link and token; the database neither.
        let letters = letters(&site).await;
        let letter = letters.iter().find(|l| l.to == "Gwen@Mail.example");
        let text = &letter.unwrap().text;
        let link = format!(
            "{}/accept-invitation#{token}",
            site.app.config.public_origin
        );
        assert!(text.contains(&link), "{text}");
        assert!(text.replace(&link, "").contains(&token), "{text}");
        assert!(text.contains("Ann Smith") && text.contains("contoso Company"));
        for table in ["links", "invitations", "mails", "claims", "outbox"] {
            let sql = match site.app.db.backend {
                sea_orm::DbBackend::Postgres => format!(
                    "SELECT COUNT(*) AS n FROM {table} x WHERE CAST(x AS text) LIKE '%{token}%'"
                ),
                _ => continue,
            };
            assert_eq!(count(&site.app, &sql).await, 0, "{table}");
        }
        let kinds = [
            ("directory.v1.InvitationCreated", &made.name),
            ("directory.v1.UserCreated", &made.user),
        ];
        for (kind, of) in kinds {
            assert_eq!(events(&site, kind, of).await, 1, "{kind}");
        }
    })
    .await;
}

// proves INV-1
#[tokio::test]
async fn text_of_addresses_is_taken_apart_at_commas_and_semicolons() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let request = |text: &str, emails: &[&str]| InviteUsersRequest {
            emails_text: text.to_owned(),
            ..addresses(&contoso.name, emails)
        };
        let made = admin
            .invite(request(
                " a@one.example, b@two.example;c@three.example;\n\td@four.example ,",
                &[],
            ))
            .await
            .unwrap();
        let told: Vec<_> = made.iter().map(|i| i.email.as_str()).collect();
        assert_eq!(
            told,
            [
                "a@one.example",
                "b@two.example",
                "c@three.example",
                "d@four.example"
            ]
        );
        for (text, emails, field) in [
            ("e@five.example", &["f@six.example"][..], "emails_text"),
            ("", &[], "emails"),
            (" ,; ", &[], "emails_text"),
        ] {
            let status = refused(
                admin.invite(request(text, emails)).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), [field]);
        }
        let all = admin.invitations_of(&contoso.name, "").await.unwrap();
        assert_eq!(all.len(), 4);
    })
    .await;
}

/// What a refusal says of each field: the field, and the reason of its own.
fn violations(status: &Status) -> Vec<(String, String)> {
    let bad = status.get_details_bad_request().unwrap();
    let all = bad.field_violations.into_iter();
    all.map(|v| (v.field, v.reason)).collect()
}

fn at(place: usize, reason: &str) -> (String, String) {
    (format!("emails[{place}]"), reason.to_owned())
}

// proves INV-1, INV-4, ATK-5
#[tokio::test]
async fn every_bad_repeated_eleventh_and_known_address_is_named_and_none_is_sent() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        site.person_with(&contoso, "bob", |r| {
            r.user.as_mut().unwrap().recovery_email = "bob@home.example".to_owned();
        })
        .await;
        let first = admin
            .invite(addresses(&contoso.name, &["here@mail.example"]))
            .await
            .unwrap();
        letters(&site).await;
        let before = row_counts(&site.app).await;
        let sent = [
            "good@mail.example",
            "here@mail.example",
            "no address",
            "GOOD@mail.example",
            "BOB@contoso.partners.localhost",
            "Bob <b@mail.example>",
            "b@mail.example\nBcc: thief@mail.example",
            "",
            "a@mail.example,c@mail.example",
            "x@mail.example",
            "eleventh@mail.example",
            "Here@mail.example",
        ];
        let status = refused(
            admin.invite(addresses(&contoso.name, &sent)).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(
            violations(&status),
            [
                at(1, "USER_EXISTS"),
                at(2, ""),
                at(3, ""),
                at(4, "USER_EXISTS"),
                at(5, ""),
                at(6, ""),
                at(7, ""),
                at(8, ""),
                at(10, ""),
                at(11, ""),
                at(11, ""),
            ]
        );
        // As one text: by what they are.
        let text = InviteUsersRequest {
            parent: contoso.name.clone(),
            emails_text: "good@mail.example; here@mail.example, nobody".to_owned(),
            ..InviteUsersRequest::default()
        };
        let status = refused(
            admin.invite(text).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let bad = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(bad.len(), 2);
        assert!(bad.iter().all(|v| v.field == "emails_text"));
        assert!(bad[0].description.contains("here@mail.example"));
        assert!(bad[0].description.contains(&first[0].user));
        assert!(bad[1].description.contains("nobody"));
        // Where somebody is there already, and nothing else is wrong, that is the reason of the whole.
        for known in ["HERE@mail.example", "bob@contoso.partners.localhost"] {
            let status = refused(
                admin
                    .invite(addresses(&contoso.name, &["good@mail.example", known]))
                    .await,
                Code::InvalidArgument,
                "USER_EXISTS",
            );
            assert_eq!(violations(&status), [at(1, "USER_EXISTS")]);
        }
        assert_eq!(row_counts(&site.app).await, before);
        assert!(
            letters(&site)
                .await
                .iter()
                .all(|l| l.to != "good@mail.example")
        );
        // Ten go; so does an address that is somebody's recovery address, or a deleted user's name.
        let ten: Vec<String> = (0..10).map(|i| format!("p{i}@mail.example")).collect();
        let ten: Vec<_> = ten.iter().map(String::as_str).collect();
        let made = admin.invite(addresses(&contoso.name, &ten)).await.unwrap();
        assert_eq!(made.len(), 10);
        admin
            .invite(addresses(&contoso.name, &["bob@home.example"]))
            .await
            .unwrap();
    })
    .await;
}

// proves INV-1, ROL-7, ROL-4, USR-4
#[tokio::test]
async fn inviting_needs_the_right_to_invite_and_all_that_is_promised() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let theirs = site.account(&fabrikam, "Fabrikam").await;
        let gus = second_admin(&site, &contoso, "gus").await;
        let bob = site
            .person_with(&contoso, "bob", |r| {
                r.memberships = vec![membership(&account, &[AccountRole::Manager])];
            })
            .await;
        let ask = || addresses(&contoso.name, &["new@mail.example"]);
        // A manager is no global admin, and a global admin gives nothing on an account that holds nothing there.
        refused(
            bob.caller.invite(ask()).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        let developer = with_account(ask(), &account, &[AccountRole::Developer]);
        refused(
            gus.caller.invite(developer.clone()).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        refused(
            gus.caller.invite(with_account(ask(), &account, &[])).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // Another's account, and another's tenant.
        let admin = &contoso.admin.caller;
        refused(
            admin.invite(with_account(ask(), &theirs, &[])).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        refused(
            fabrikam.admin.caller.invite(ask()).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        // What nobody is given this way, or by whom it isn't held.
        for (role, code, reason) in [
            (
                AccountRole::Finance,
                Code::PermissionDenied,
                "CANNOT_GRANT_WHAT_YOU_LACK",
            ),
            (
                AccountRole::Owner,
                Code::FailedPrecondition,
                "NOT_ASSIGNABLE",
            ),
        ] {
            refused(
                admin.invite(with_account(ask(), &account, &[role])).await,
                code,
                reason,
            );
        }
        let singly = InviteUsersRequest {
            account: account.clone(),
            rights: Some(Rights {
                roles: Vec::new(),
                permissions: vec!["payouts.hold".to_owned()],
            }),
            ..ask()
        };
        refused(
            admin.invite(singly).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        let homeless = InviteUsersRequest {
            rights: Some(rights(&[AccountRole::Developer])),
            ..ask()
        };
        let status = refused(
            admin.invite(homeless).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["account"]);
        // The tenant is to be associated.
        let sql = "DELETE FROM associations WHERE account_id = $1";
        let open = "INSERT INTO associations (account_id, tenant_id, create_time, version) VALUES ($1, $2, 1, 1)";
        change(&site, sql, [id(&account).into()]).await;
        refused(
            admin.invite(developer.clone()).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        change(&site, open, [id(&account).into(), id(&contoso.name).into()]).await;
        let all = admin.invitations_of(&contoso.name, "").await.unwrap();
        assert!(all.is_empty(), "{all:?}");
        let checked = InviteUsersRequest {
            validate_only: true,
            ..developer.clone()
        };
        site.settle().await;
        let before = row_counts(&site.app).await;
        assert_eq!(admin.invite(checked).await.unwrap().len(), 1);
        assert_eq!(row_counts(&site.app).await, before);
        admin.invite(developer).await.unwrap();
    })
    .await;
}

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
async fn at_home(site: &Site) -> (TenantSite, Person, Invitation, String) {
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

// proves COM-7, ATK-8, ATK-15
#[tokio::test]
async fn invitations_are_listed_by_state_and_address_to_those_who_manage_them() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let made = admin
            .invite(addresses(
                &contoso.name,
                &["d@mail.example", "b@mail.example", "a@mail.example"],
            ))
            .await
            .unwrap();
        let joined = with_account(
            addresses(&contoso.name, &["c@mail.example"]),
            &account,
            &[AccountRole::Developer],
        );
        admin.invite(joined).await.unwrap();
        admin.revoke(&made[0].name).await.unwrap();
        let token = token_for(&site, "b@mail.example").await;
        site.nobody().accept(as_new(&token)).await.unwrap();
        let told = async |caller: &Caller, filter: &str| -> Vec<String> {
            let all = caller.invitations_of(&contoso.name, filter).await.unwrap();
            all.into_iter().map(|i| i.email).collect()
        };
        for (filter, emails) in [
            ("state = PENDING", &["a@mail.example", "c@mail.example"][..]),
            ("state = ACCEPTED", &["b@mail.example"]),
            ("state = REVOKED", &["d@mail.example"]),
            ("state = EXPIRED", &[]),
            ("email = \"A@mail.example\"", &["a@mail.example"]),
            (&format!("account = \"{account}\""), &["c@mail.example"]),
        ] {
            let mut found = told(admin, filter).await;
            found.sort();
            assert_eq!(found, emails, "{filter}");
        }
        // Pages by address.
        let mut request = ListInvitationsRequest {
            parent: contoso.name.clone(),
            page_size: 3,
            order_by: "email".to_owned(),
            ..ListInvitationsRequest::default()
        };
        let page = admin.invitations().list_invitations(request.clone()).await;
        let page = page.unwrap().into_inner();
        request.page_token = page.next_page_token;
        let rest = admin.invitations().list_invitations(request).await;
        let rest = rest.unwrap().into_inner();
        assert_eq!(rest.next_page_token, "");
        let all = page.invitations.iter().chain(&rest.invitations);
        let all: Vec<_> = all.map(|i| &i.email[..1]).collect();
        assert_eq!(all, ["a", "b", "c", "d"]);
        // With time, pending ones have expired, whoever looks.
        site.advance(31 * 86_400).await;
        site.settle().await;
        let ann = again(&site, &contoso.admin).await;
        assert!(told(&ann, "state = PENDING").await.is_empty());
        assert_eq!(told(&ann, "state = EXPIRED").await.len(), 2);

        // Nobody else sees or touches them.
        let eve = again(&site, &fabrikam.admin).await;
        let bob = site
            .person(
                &TenantSite {
                    name: contoso.name.clone(),
                    admin: Person {
                        caller: ann.clone(),
                        ..contoso.admin.clone()
                    },
                },
                "bob",
            )
            .await;
        let name = &made[2].name;
        for caller in [&eve, &bob.caller] {
            for tried in [
                caller.invitation(name).await.map(drop),
                caller.resend(name).await.map(drop),
                caller.revoke(name).await.map(drop),
                caller.invitations_of(&contoso.name, "").await.map(drop),
            ] {
                refused(tried, Code::PermissionDenied, "PERMISSION_MISSING");
            }
        }
        let under = name.replace(&contoso.name, &fabrikam.name);
        for tried in [
            eve.invitation(&under).await.map(drop),
            eve.resend(&under).await.map(drop),
            eve.revoke(&under).await.map(drop),
        ] {
            refused(tried, Code::NotFound, "RESOURCE_NOT_FOUND");
        }
    })
    .await;
}

// proves ATK-6, COM-20
#[tokio::test]
async fn links_keep_the_configured_origin_whatever_host_is_asked_for() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let evil = tonic::transport::Endpoint::from_shared(format!("http://{}", site.address))
            .unwrap()
            .origin("http://evil.example".parse().unwrap())
            .connect_lazy();
        let caller = Caller {
            channel: evil,
            ..contoso.admin.caller.clone()
        };
        let forged = |request: InviteUsersRequest| {
            let mut request = Request::new(request);
            for (key, value) in [
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "ftp"),
                ("forwarded", "host=evil.example"),
                ("x-original-host", "evil.example"),
                ("origin", "http://evil.example"),
                ("referer", "http://evil.example/"),
            ] {
                request.metadata_mut().insert(key, value.parse().unwrap());
            }
            request
        };
        let request = forged(addresses(&contoso.name, &["gwen@mail.example"]));
        let made = caller.invitations().invite_users(request).await.unwrap();
        let made = made.into_inner().invitations.remove(0);
        let token = token_for(&site, "gwen@mail.example").await;
        caller.resend(&made.name).await.unwrap();
        let again = token_for(&site, "gwen@mail.example").await;
        let letters = letters(&site).await;
        let mine: Vec<_> = letters
            .iter()
            .filter(|l| l.to == "gwen@mail.example")
            .collect();
        assert_eq!(mine.len(), 2);
        for (letter, token) in mine.iter().zip([&token, &again]) {
            let link = format!(
                "{}/accept-invitation#{token}",
                site.app.config.public_origin
            );
            assert!(letter.text.contains(&link), "{}", letter.text);
            assert!(!letter.text.contains("evil.example"), "{}", letter.text);
        }
    })
    .await;
}
