//! What a link is worth: once, for its time, for its own purpose (INV-3, ATK-2, ATK-3, ATK-7).

use entente::{
    access::{link, rules},
    proto::{access::LinkKind, operator::SetTimeRequest},
    store::scope_key::ScopeKey,
};
use prost_reflect::MethodDescriptor;

use super::{accepting::at_home, *};
use crate::{
    access::reason,
    dynamic::{self, Names},
};

/// The one answer to whatever is no good token.
async fn dead(site: &Site, token: &str) -> (Code, String, Vec<u8>) {
    let status = refused(
        site.nobody().accept(as_new(token)).await,
        Code::PermissionDenied,
        "LINK_INVALID",
    );
    assert!(fields(&status).is_empty());
    said(&status)
}

/// Whether a token is good, without using it up: what is refused then is something else.
async fn is_good(site: &Site, token: &str) -> bool {
    let tried = site.nobody().accept(with_token(token)).await;
    let told = reason(&tried.expect_err("nobody is signed in, and names are missing"));
    matches!(told.as_str(), "INVALID_FIELDS" | "SIGN_IN_AS_HOLDER")
}

// proves INV-3, ATK-2, ATK-7, COM-2
#[tokio::test]
async fn every_token_that_is_not_good_gets_one_and_the_same_answer() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let admin = &contoso.admin.caller;
        let one = async |address: &str| {
            let request = addresses(&contoso.name, &[address]);
            invited(&site, admin, request).await
        };
        let (_, token) = one("gwen@mail.example").await;
        let answer = dead(&site, "entl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await;
        // Every byte flipped, each bit that keeps it ASCII; cut, doubled, empty, far too long.
        let mut forged = Vec::new();
        for place in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                forged.push(String::from_utf8(bytes).unwrap());
            }
            forged.push(token[..place].to_owned());
        }
        forged.push(format!("{token}A"));
        forged.push(format!("{token}{token}"));
        forged.push(format!(" {token}"));
        forged.push("é".repeat(10_000));
        for token in &forged {
            assert_eq!(dead(&site, token).await, answer, "{token:?}");
        }
        // A signed-in caller hears the same.
        let status = refused(
            admin.accept(with_token(&forged[0])).await,
            Code::PermissionDenied,
            "LINK_INVALID",
        );
        assert_eq!(said(&status), answer);
        assert!(is_good(&site, &token).await);

        // One of another tenant is good there only.
        let request = addresses(&fabrikam.name, &["gwen@mail.example"]);
        let (there, theirs) = invited(&site, &fabrikam.admin.caller, request).await;
        let moved = "UPDATE links SET scope_id = $1 WHERE subject_id = $2";
        let to = |name: &str| [id(name).into(), id(&there.name).into()];
        change(&site, moved, to(&contoso.name)).await;
        assert_eq!(dead(&site, &theirs).await, answer);
        change(&site, moved, to(&fabrikam.name)).await;
        let accepted = site.nobody().accept(as_new(&theirs)).await.unwrap();
        assert_eq!(accepted.tenant.unwrap().name, fabrikam.name);
        assert_eq!(accepted.user.unwrap().name, there.user);
        let own = admin.list(&contoso.name, "kind = GUEST").await.unwrap();
        assert!(own.iter().all(|u| u.state() == UserState::Invited));

        // Used, killed by a new one, revoked, its guest deleted, its tenant gone.
        assert_eq!(dead(&site, &theirs).await, answer);
        let (resent, old) = one("hal@mail.example").await;
        admin.resend(&resent.name).await.unwrap();
        assert_eq!(dead(&site, &old).await, answer);
        let new = token_for(&site, "hal@mail.example").await;
        assert!(is_good(&site, &new).await);
        admin.revoke(&resent.name).await.unwrap();
        assert_eq!(dead(&site, &new).await, answer);
        let (deleted, token_of_deleted) = one("ida@mail.example").await;
        admin.delete(&deleted.user).await.unwrap();
        assert_eq!(dead(&site, &token_of_deleted).await, answer);
        let state = "UPDATE tenants SET state = $1 WHERE id = $2";
        change(&site, state, [2_i64.into(), id(&contoso.name).into()]).await;
        assert_eq!(dead(&site, &token).await, answer);
        change(&site, state, [1_i64.into(), id(&contoso.name).into()]).await;

        // Expired by a millisecond; a moment before it was good.
        let ends = "SELECT expire_time AS n FROM links WHERE kind = 1 ORDER BY expire_time LIMIT 1";
        let ends = number(&site, ends, []).await;
        let set = async |at: i64| {
            let now = prost_types::Timestamp {
                seconds: at / 1_000_000,
                nanos: i32::try_from(at % 1_000_000).unwrap() * 1_000,
            };
            let request = SetTimeRequest {
                now: Some(now),
                ..SetTimeRequest::default()
            };
            let operator = site.operator().await;
            operator.clock().set_time(request).await.unwrap();
        };
        set(ends - 60_000_000).await;
        site.settle().await;
        assert!(is_good(&site, &token).await);
        set(ends + 1_000).await;
        assert_eq!(dead(&site, &token).await, answer);
    })
    .await;
}

// proves ATK-3
#[tokio::test]
async fn thirty_two_acceptances_at_once_tie_one_guest_and_give_one_membership() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let request = with_account(
            addresses(&contoso.name, &["gwen@mail.example"]),
            &account,
            &[AccountRole::Developer],
        );
        let (made, token) = invited(&site, &contoso.admin.caller, request).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let (caller, request) = (site.nobody(), as_new(&token));
            tasks.spawn(async move { caller.accept(request).await });
        }
        let (done, lost): (Vec<_>, Vec<_>) =
            tasks.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!((done.len(), lost.len()), (1, 31));
        for status in lost.into_iter().map(Result::unwrap_err) {
            // Those who came before the first had committed made a password for somebody who is there by now.
            let told = reason(&status);
            assert!(
                matches!(told.as_str(), "LINK_INVALID" | "SIGN_IN_AS_HOLDER"),
                "{status:?}"
            );
        }
        for (sql, what) in [
            ("SELECT COUNT(*) AS n FROM users WHERE kind = 3", 1),
            ("SELECT COUNT(*) AS n FROM users WHERE home_id IS NOT NULL", 1),
            ("SELECT COUNT(*) AS n FROM links WHERE kind = 1", 0),
            (
                "SELECT COUNT(*) AS n FROM outbox WHERE is_first AND type = 'entente.directory.v1.InvitationAccepted'",
                1,
            ),
            (
                "SELECT COUNT(*) AS n FROM outbox WHERE is_first AND type = 'entente.directory.v1.IdentityCreated'",
                1,
            ),
        ] {
            assert_eq!(count(&site.app, sql).await, what, "{sql}");
        }
        let held = "SELECT COUNT(*) AS n FROM grants WHERE principal_id = $1";
        assert_eq!(number(&site, held, [id(&made.user).into()]).await, 1);
    })
    .await;
}

// proves ATK-3, COM-4
#[tokio::test]
async fn thirty_two_at_once_with_one_request_id_have_one_effect_and_equal_answers() {
    both(async |site| {
        let (contoso, fred, _, token) = at_home(&site).await;
        let new = addresses(&contoso.name, &["gwen@mail.example"]);
        let (_, token_of_new) = invited(&site, &contoso.admin.caller, new).await;
        for (caller, request) in [
            (fred.caller, with_token(&token)),
            (site.nobody(), as_new(&token_of_new)),
        ] {
            let request = AcceptInvitationRequest {
                request_id: request_id(),
                ..request
            };
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..32 {
                let (caller, request) = (caller.clone(), request.clone());
                tasks.spawn(async move { caller.invitations().accept_invitation(request).await });
            }
            let answers = tasks.join_all().await;
            let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
            assert_eq!(answers.iter().filter(|a| !replayed(a)).count(), 1);
            let answers: Vec<_> = answers.into_iter().map(Response::into_inner).collect();
            assert!(answers.iter().all(|a| *a == answers[0]));
        }
        let tied = "SELECT COUNT(*) AS n FROM users WHERE home_id IS NOT NULL";
        assert_eq!(count(&site.app, tied).await, 2);
    })
    .await;
}

// proves INV-5
#[tokio::test]
async fn two_tenants_accepted_at_once_make_one_identity() {
    both(async |site| {
        let mut tokens = Vec::new();
        for prefix in ["contoso", "fabrikam", "adatum", "northwind"] {
            let tenant = site.tenant(prefix).await;
            let request = addresses(&tenant.name, &["gwen@mail.example"]);
            tokens.push(invited(&site, &tenant.admin.caller, request).await.1);
        }
        let mut tasks = tokio::task::JoinSet::new();
        for token in tokens.clone() {
            let caller = site.nobody();
            tasks.spawn(async move { caller.accept(as_new(&token)).await });
        }
        let answers = tasks.join_all().await;
        assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
        for lost in answers.into_iter().filter(Result::is_err) {
            refused(lost, Code::FailedPrecondition, "SIGN_IN_AS_HOLDER");
        }
        let one = "SELECT COUNT(*) AS n FROM users WHERE kind = 3";
        assert_eq!(count(&site.app, one).await, 1);
        // The tokens of the others are still good, for whom the address now has.
        let gwen = site.sign_in("gwen@mail.example", PASSWORD).await;
        for token in tokens {
            gwen.accept(with_token(&token)).await.ok();
        }
        assert_eq!(gwen.who_am_i().await.unwrap().tenants.len(), 4);
    })
    .await;
}

/// Makes a link behind the service's back.
pub async fn link(site: &Site, kind: LinkKind, of: &str, scope: ScopeKey) -> String {
    let subject = id(of);
    let made = site.app.job("test", move |tx, _| {
        Box::pin(async move {
            let link = link::Link {
                kind,
                subject,
                scope,
            };
            let token = link::make(tx, link, b"", 60_000_000).await?;
            Ok(token.to_string())
        })
    });
    made.await.unwrap()
}

/// All methods that a mailed token opens: path, kind of link, and a call that brings a token.
fn redeeming() -> Vec<(String, LinkKind, MethodDescriptor)> {
    dynamic::methods()
        .into_iter()
        .filter_map(|(path, method)| {
            let (kind, _) = rules::of_path(&path).unwrap().token()?;
            Some((path, kind, method))
        })
        .collect()
}

/// Calls a redeeming method with a token.
async fn redeem(
    site: &Site,
    path: &str,
    method: &MethodDescriptor,
    token: &str,
) -> Result<Vec<u8>, Status> {
    let (_, field) = rules::of_path(path).unwrap().token().unwrap();
    let none = format!("tenants/{}", request_id());
    let names = Names::default()
        .with("entente.dev/Tenant", none)
        .with(field, token);
    let request = dynamic::bytes(&dynamic::request(method, &names));
    dynamic::call(&site.nobody(), method, request).await
}

fn kinds() -> Vec<LinkKind> {
    let all = (1..100).map_while(|n| LinkKind::try_from(n).ok());
    all.collect()
}

// proves ATK-3
#[tokio::test]
async fn every_kind_of_link_is_good_for_its_own_purpose_only() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let request = addresses(&contoso.name, &["gwen@mail.example"]);
        let (made, token) = invited(&site, &contoso.admin.caller, request).await;
        let scope = ScopeKey::Tenant(id(&contoso.name));
        let fred = site.person(&contoso, "fred").await;
        let tokens = site.tokens(&fred.sign_in_name, PASSWORD).await.unwrap();
        let mut answers = std::collections::BTreeSet::new();
        let mut tried = 0;
        for (path, own, method) in redeeming() {
            let mut others = vec![
                "entl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
                tokens.access_token.clone(),
                tokens.refresh_token.clone(),
            ];
            for kind in kinds().into_iter().filter(|k| *k != own) {
                others.push(match kind {
                    LinkKind::Invitation => token.clone(),
                    // Even of the very same subject.
                    _ => link(&site, kind, &made.name, scope).await,
                });
            }
            for other in others {
                let told = redeem(&site, &path, &method, &other).await;
                let status = refused(told, Code::PermissionDenied, "LINK_INVALID");
                answers.insert(format!("{:?}", said(&status)));
                tried += 1;
            }
        }
        assert!(tried >= kinds().len(), "{tried}");
        assert_eq!(answers.len(), 1, "one answer, whatever is tried where");
        assert!(is_good(&site, &token).await);
    })
    .await;
}

// proves ATK-7
#[tokio::test]
async fn every_kind_of_link_ends_on_the_dot() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let request = addresses(&contoso.name, &["gwen@mail.example"]);
        let (made, token) = invited(&site, &contoso.admin.caller, request).await;
        let scope = ScopeKey::Tenant(id(&contoso.name));
        let set = "UPDATE links SET expire_time = $1 WHERE kind = $2 AND subject_id = $3";
        for (path, kind, method) in redeeming() {
            let token = match kind {
                LinkKind::Invitation => token.clone(),
                _ => link(&site, kind, &made.name, scope).await,
            };
            let end = site.app.now().await.unwrap() - 1_000;
            let subject = id(&made.name);
            change(
                &site,
                set,
                [end.into(), (kind as i32).into(), subject.into()],
            )
            .await;
            let told = redeem(&site, &path, &method, &token).await;
            refused(told, Code::PermissionDenied, "LINK_INVALID");
        }
        let later = site.app.now().await.unwrap() + 60_000_000;
        let (kind, subject) = (LinkKind::Invitation as i32, id(&made.name));
        change(&site, set, [later.into(), kind.into(), subject.into()]).await;
        assert!(is_good(&site, &token).await);
    })
    .await;
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Resend,
    Revoke,
    Accept,
    DeleteGuest,
}

// proves INV-3
#[tokio::test]
async fn every_act_on_an_invitation_in_every_state() {
    use InvitationState::{Accepted, Expired, Pending, Revoked};
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        // Those that are to have expired come first; time moves once.
        let acts = [Act::Resend, Act::Revoke, Act::Accept, Act::DeleteGuest];
        let mut cases = Vec::new();
        for from in [Expired, Pending, Accepted, Revoked] {
            if !matches!(from, Expired) && cases.len() == acts.len() {
                site.advance(31 * 86_400).await;
                site.settle().await;
            }
            let ann = again(&site, &contoso.admin).await;
            for act in acts {
                let address = format!("p{}@mail.example", cases.len());
                let request = addresses(&contoso.name, &[&address]);
                let (made, token) = invited(&site, &ann, request).await;
                match from {
                    Accepted => drop(site.nobody().accept(as_new(&token)).await.unwrap()),
                    Revoked => drop(ann.revoke(&made.name).await.unwrap()),
                    _ => {}
                }
                cases.push((from, act, made, token));
            }
        }
        let ann = again(&site, &contoso.admin).await;
        for (from, act, made, token) in cases {
            let before = ann.invitation(&made.name).await.unwrap();
            assert_eq!(before.state(), from);
            let done = match act {
                Act::Resend => ann.resend(&made.name).await.map(drop),
                Act::Revoke => ann.revoke(&made.name).await.map(drop),
                Act::Accept => site.nobody().accept(as_new(&token)).await.map(drop),
                Act::DeleteGuest => ann.delete(&made.user).await.map(drop),
            };
            let leads_to = match (from, act) {
                (Pending | Expired, Act::Resend) => Some(Pending),
                (Pending | Expired, Act::Revoke | Act::DeleteGuest) => Some(Revoked),
                (Pending, Act::Accept) => Some(Accepted),
                // The guest who accepted is a user like others: its invitation stays what it was.
                (Accepted, Act::DeleteGuest) => Some(Accepted),
                _ => None,
            };
            let after = ann.invitation(&made.name).await.unwrap();
            match (leads_to, act) {
                (Some(to), _) => {
                    done.unwrap_or_else(|e| panic!("{from:?} {act:?}: {e:?}"));
                    assert_eq!(after.state(), to, "{from:?} {act:?}");
                }
                (None, Act::Accept) => {
                    refused(done, Code::PermissionDenied, "LINK_INVALID");
                    assert_eq!(after, before, "{from:?} {act:?}");
                }
                (None, _) => {
                    refused(done, Code::FailedPrecondition, "WRONG_STATE");
                    assert_eq!(after, before, "{from:?} {act:?}");
                }
            }
            let stale = ResendInvitationRequest {
                name: made.name.clone(),
                etag: "\"77\"".to_owned(),
                ..ResendInvitationRequest::default()
            };
            refused(
                ann.invitations().resend_invitation(stale).await,
                Code::Aborted,
                "ETAG_MISMATCH",
            );
        }
    })
    .await;
}

// proves INV-3, COM-21
#[tokio::test]
async fn revoked_address_is_free_and_guests_who_never_came_are_purged() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let request = || addresses(&contoso.name, &["gwen@mail.example"]);
        let (first, _) = invited(&site, admin, request()).await;
        admin.revoke(&first.name).await.unwrap();
        let gone = admin.user(&first.user).await.unwrap();
        assert_eq!(gone.state(), UserState::Deleted);
        // Who never accepted has nothing to sign in with, so is invited again instead of restored.
        refused(
            admin.undelete(&first.user, "").await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let (second, _) = invited(&site, admin, request()).await;
        assert_ne!(second.user, first.user);
        for (kind, of) in [
            ("directory.v1.InvitationRevoked", &first.name),
            ("directory.v1.UserDeleted", &first.user),
        ] {
            assert_eq!(events(&site, kind, of).await, 1, "{kind}");
        }
        // 30 days to accept, 30 to be sent anew, 30 as a deleted user.
        site.advance(59 * 86_400).await;
        site.settle().await;
        let ann = again(&site, &contoso.admin).await;
        let waits = ann.invitation(&second.name).await.unwrap();
        assert_eq!(waits.state(), InvitationState::Expired);
        refused(
            ann.invite(request()).await,
            Code::InvalidArgument,
            "USER_EXISTS",
        );
        site.advance(2 * 86_400).await;
        site.settle().await;
        let ann = again(&site, &contoso.admin).await;
        let over = ann.invitation(&second.name).await.unwrap();
        assert_eq!(over.state(), InvitationState::Revoked);
        refused(
            ann.resend(&second.name).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let (third, _) = invited(&site, &ann, request()).await;
        site.advance(31 * 86_400).await;
        site.settle().await;
        let ann = again(&site, &contoso.admin).await;
        refused(
            ann.invitation(&second.name).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        refused(
            ann.user(&second.user).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        // Sent anew, an expired one is good again.
        let back = ann.resend(&third.name).await.unwrap();
        assert_eq!(back.state(), InvitationState::Pending);
        let token = token_for(&site, "gwen@mail.example").await;
        site.nobody().accept(as_new(&token)).await.unwrap();
        crate::claims::chains_are_intact(&site.app).await;
    })
    .await;
}
