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

mod accepting;
pub mod links;
mod lists;
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
    let mut mine = letters.iter().filter(|l| l.to == address);
    let text = &mine
        .next_back()
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
        assert_eq!(listed, std::slice::from_ref(&guest));

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
