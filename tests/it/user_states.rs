//! The states of users: who is in, who is out, what comes back, and who must stay (USR-6, ROL-9).

mod deletion;

use entente::proto::{
    access::AccountRole,
    directory::{
        DeleteUserRequest, DirectoryRole, DisableUserRequest, EndUserSessionsRequest, User,
        UserDeleted, UserState,
    },
};
use prost::Message as _;
use tonic::Code;

use crate::{
    harness::{PASSWORD, both, membership, new_user, refused, request_id},
    people::{People as _, again, events, eventually, id, named, number, refresh, second_admin},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Rename,
    Disable,
    Enable,
    Delete,
    Undelete,
    Reset,
    Assign,
}

const ACTS: [Act; 7] = [
    Act::Rename,
    Act::Disable,
    Act::Enable,
    Act::Delete,
    Act::Undelete,
    Act::Reset,
    Act::Assign,
];

/// Where an act leads from a state; None where it is refused.
fn leads_to(from: UserState, act: Act) -> Option<UserState> {
    use UserState::{Active, Deleted, Disabled};
    match (from, act) {
        (Active | Disabled, Act::Rename | Act::Reset | Act::Assign) => Some(from),
        (Active, Act::Disable) => Some(Disabled),
        (Disabled, Act::Enable) | (Deleted, Act::Undelete) => Some(Active),
        (Active | Disabled, Act::Delete) => Some(Deleted),
        _ => None,
    }
}

// proves USR-6
#[tokio::test]
async fn every_act_on_a_user_in_every_state() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let mut count = 0;
        for from in [UserState::Active, UserState::Disabled, UserState::Deleted] {
            for act in ACTS {
                count += 1;
                let made = admin
                    .users()
                    .create_user(new_user(&contoso.name, &format!("user{count}")))
                    .await
                    .unwrap()
                    .into_inner();
                let name = made.user.unwrap().name;
                match from {
                    UserState::Disabled => drop(admin.disable(&name).await.unwrap()),
                    UserState::Deleted => drop(admin.delete(&name).await.unwrap()),
                    _ => {}
                }
                let before = admin.user(&name).await.unwrap();
                assert_eq!(before.state(), from);
                let done = match act {
                    Act::Rename => {
                        let user = User {
                            given_name: "Other".to_owned(),
                            ..named(&name)
                        };
                        admin.update(user, &["given_name"]).await.map(drop)
                    }
                    Act::Disable => admin.disable(&name).await.map(drop),
                    Act::Enable => admin.enable(&name).await.map(drop),
                    Act::Delete => admin.delete(&name).await.map(drop),
                    Act::Undelete => admin.undelete(&name, "").await.map(drop),
                    Act::Reset => admin.reset(&name).await.map(drop),
                    Act::Assign => admin
                        .assign(&name, &[DirectoryRole::HelpdeskAdmin])
                        .await
                        .map(drop),
                };
                let after = admin.user(&name).await.unwrap();
                match leads_to(from, act) {
                    Some(to) => {
                        done.unwrap_or_else(|e| panic!("{from:?} {act:?}: {e:?}"));
                        assert_eq!(after.state(), to, "{from:?} {act:?}");
                        assert_ne!(after.etag, before.etag, "{from:?} {act:?}");
                    }
                    None => {
                        println!("{from:?} {act:?}");
                        refused(done, Code::FailedPrecondition, "WRONG_STATE");
                        assert_eq!(after, before, "{from:?} {act:?}");
                    }
                }
                let deleted = after.state() == UserState::Deleted;
                assert_eq!(after.delete_time.is_some(), deleted);
                assert_eq!(after.purge_time.is_some(), deleted);
            }
        }
    })
    .await;
}

// proves USR-6, ROL-7
#[tokio::test]
async fn disabled_user_is_out_on_the_next_call_and_enabling_gives_back_what_was_held() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let bob = site
            .person_with(&contoso, "bob", |r| {
                r.user.as_mut().unwrap().directory_roles =
                    vec![DirectoryRole::HelpdeskAdmin as i32];
                r.memberships = vec![membership(&account, &[AccountRole::Developer])];
            })
            .await;
        let tokens = site.tokens(&bob.sign_in_name, PASSWORD).await.unwrap();
        let held = bob.caller.who_am_i().await.unwrap();
        assert_eq!(held.accounts.len(), 1);
        let admin = &contoso.admin.caller;
        admin.disable(&bob.name).await.unwrap();
        refused(
            bob.caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        refused(
            refresh(&site, &tokens.refresh_token).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        refused(
            site.tokens(&bob.sign_in_name, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        admin.enable(&bob.name).await.unwrap();
        // The sessions ended for good.
        refused(
            bob.caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        let back = again(&site, &bob).await.who_am_i().await.unwrap();
        assert_eq!(back, held);
        for kind in ["directory.v1.UserDisabled", "directory.v1.UserEnabled"] {
            assert_eq!(events(&site, kind, &bob.name).await, 1, "{kind}");
        }
    })
    .await;
}

// proves USR-6, ATK-11
#[tokio::test]
async fn deleting_frees_the_name_and_restoring_brings_nothing_back() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let bob = site
            .person_with(&contoso, "bob", |r| {
                r.user.as_mut().unwrap().directory_roles =
                    vec![DirectoryRole::HelpdeskAdmin as i32];
                r.memberships = vec![membership(&account, &[AccountRole::Developer])];
            })
            .await;
        let admin = &contoso.admin.caller;
        let gone = admin.delete(&bob.name).await.unwrap();
        assert_eq!(gone.resources[0].state(), UserState::Deleted);
        let losses = gone.losses.unwrap();
        assert_eq!(losses.memberships[0].member, bob.member_of(&account));
        let lost = losses.memberships[0].rights.as_ref().unwrap();
        assert_eq!(lost.roles, [AccountRole::Developer as i32]);
        assert_eq!(
            losses.directory_roles,
            [DirectoryRole::HelpdeskAdmin as i32]
        );
        assert_eq!(losses.session_count, 1);
        refused(
            bob.caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );

        // The name is free at once, and whoever gets it gets nothing else.
        let heir = site.person(&contoso, "bob").await;
        assert_ne!(heir.name, bob.name);
        let heirs = heir.caller.who_am_i().await.unwrap();
        assert_eq!((heirs.accounts.len(), heirs.directory_roles.len()), (0, 0));
        refused(
            admin.undelete(&bob.name, "").await,
            Code::AlreadyExists,
            "USER_NAME_TAKEN",
        );
        assert_eq!(
            admin.user(&bob.name).await.unwrap().state(),
            UserState::Deleted
        );

        let restored = admin.undelete(&bob.name, "robert").await.unwrap();
        let user = restored.user.unwrap();
        assert_eq!(user.sign_in_name, "robert@contoso.partners.localhost");
        assert!(user.directory_roles.is_empty());
        refused(
            bob.caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        refused(
            site.tokens(&user.sign_in_name, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        let robert = site
            .settle_in(&user.sign_in_name, &restored.temporary_password)
            .await;
        let me = robert.who_am_i().await.unwrap();
        assert_eq!(me.principal, bob.name);
        assert_eq!((me.accounts.len(), me.directory_roles.len()), (0, 0));
        assert_eq!(robert.list_sessions(&bob.name).await.unwrap().len(), 1);
    })
    .await;
}

// proves USR-6
#[tokio::test]
async fn restored_under_its_old_name_if_that_is_still_free() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let admin = &contoso.admin.caller;
        admin.delete(&bob.name).await.unwrap();
        let restored = admin.undelete(&bob.name, "").await.unwrap();
        assert_eq!(restored.user.unwrap().sign_in_name, bob.sign_in_name);
        site.settle_in(&bob.sign_in_name, &restored.temporary_password)
            .await;
    })
    .await;
}

// proves USR-6
#[tokio::test]
async fn deleted_user_is_purged_after_30_days_and_not_before() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let carol = site.person(&contoso, "carol").await;
        contoso.admin.caller.delete(&bob.name).await.unwrap();
        let day = 24 * 3_600;
        site.advance(29 * day).await;
        site.settle().await;
        site.advance(day - 60).await;
        site.settle().await;
        let admin = again(&site, &contoso.admin).await;
        assert_eq!(
            admin.user(&bob.name).await.unwrap().state(),
            UserState::Deleted
        );
        site.advance(700).await;
        let left = async || {
            site.settle().await;
            let sql = "SELECT COUNT(*) AS n FROM users WHERE id = $1";
            number(&site, sql, [id(&bob.name).into()]).await
        };
        eventually(async || left().await == 0).await;
        let admin = again(&site, &contoso.admin).await;
        refused(
            admin.user(&bob.name).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        refused(
            admin.undelete(&bob.name, "").await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        admin.user(&carol.name).await.unwrap();
        assert_eq!(events(&site, "directory.v1.UserPurged", &bob.name).await, 1);
    })
    .await;
}

// proves ROL-9, USR-8
#[tokio::test]
async fn last_global_admin_stays_on_every_path() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let (ann, admin) = (&contoso.admin.name, &contoso.admin.caller);
        let last = "LAST_GLOBAL_ADMIN";
        let code = Code::FailedPrecondition;
        refused(admin.disable(ann).await, code, last);
        refused(admin.delete(ann).await, code, last);
        refused(admin.assign(ann, &[]).await, code, last);
        refused(
            admin.assign(ann, &[DirectoryRole::BillingAdmin]).await,
            code,
            last,
        );

        // Whoever can't sign in doesn't count.
        let carol = second_admin(&site, &contoso, "carol").await;
        admin.disable(&carol.name).await.unwrap();
        refused(admin.disable(ann).await, code, last);
        admin.enable(&carol.name).await.unwrap();
        admin.assign(ann, &[]).await.unwrap();
        let carol = again(&site, &carol).await;
        assert!(carol.user(ann).await.unwrap().directory_roles.is_empty());
        refused(
            admin.user(&carol.who_am_i().await.unwrap().principal).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
    })
    .await;
}

// proves ROL-9
#[tokio::test]
async fn two_global_admins_who_oust_each_other_at_once_leave_one() {
    both(async |site| {
        for prefix in ["contoso", "fabrikam", "tailspin"] {
            let tenant = site.tenant(prefix).await;
            let ann = &tenant.admin;
            let carol = second_admin(&site, &tenant, "carol").await;
            let (one, other) = tokio::join!(
                carol.caller.disable(&ann.name),
                ann.caller.delete(&carol.name)
            );
            let lost = match (one.map(drop), other.map(drop)) {
                (Ok(()), Err(lost)) | (Err(lost), Ok(())) => lost,
                both => panic!("exactly one: {both:?}"),
            };
            assert!(
                matches!(
                    lost.code(),
                    Code::Unauthenticated | Code::FailedPrecondition
                ),
                "{lost:?}"
            );
        }
    })
    .await;
}

// proves ROL-9
#[tokio::test]
async fn global_admin_is_replaced_in_one_step() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let (ann, admin) = (&contoso.admin.name, &contoso.admin.caller);
        let bob = site.person(&contoso, "bob").await;
        refused(
            admin.replace(ann, ann).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        // USR-2 holds here too.
        refused(
            admin.replace(ann, &bob.name).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let user = User {
            recovery_email: "bob@contoso.example".to_owned(),
            ..named(&bob.name)
        };
        admin.update(user, &["recovery_email"]).await.unwrap();
        refused(
            admin.replace(&bob.name, ann).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        admin.disable(&bob.name).await.unwrap();
        refused(
            admin.replace(ann, &bob.name).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        admin.enable(&bob.name).await.unwrap();
        let done = admin.replace(ann, &bob.name).await.unwrap();
        assert_eq!(done.disabled.unwrap().state(), UserState::Disabled);
        assert_eq!(
            done.successor.unwrap().directory_roles,
            [DirectoryRole::GlobalAdmin as i32]
        );
        refused(
            admin.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        let bob = again(&site, &bob).await;
        assert_eq!(bob.user(ann).await.unwrap().state(), UserState::Disabled);
    })
    .await;
}

// proves COM-4, COM-5, COM-8
#[tokio::test]
async fn deletion_is_checked_first_bound_to_its_etag_and_replayed() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let admin = &contoso.admin.caller;
        let old = admin.user(&bob.name).await.unwrap().etag;
        let user = User {
            given_name: "Bobby".to_owned(),
            ..named(&bob.name)
        };
        admin.update(user, &["given_name"]).await.unwrap();
        let stale = DeleteUserRequest {
            name: bob.name.clone(),
            etag: old.clone(),
            ..DeleteUserRequest::default()
        };
        refused(
            admin.users().delete_user(stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let stale = DisableUserRequest {
            name: bob.name.clone(),
            etag: old,
            ..DisableUserRequest::default()
        };
        refused(
            admin.users().disable_user(stale).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        let request = DeleteUserRequest {
            name: bob.name.clone(),
            etag: admin.user(&bob.name).await.unwrap().etag,
            validate_only: true,
            request_id: request_id(),
        };
        let checked = admin.users().delete_user(request.clone()).await.unwrap();
        assert_eq!(checked.into_inner().losses.unwrap().session_count, 1);
        bob.caller.who_am_i().await.unwrap();
        let request = DeleteUserRequest {
            validate_only: false,
            ..request
        };
        let first = admin.users().delete_user(request.clone()).await.unwrap();
        let second = admin.users().delete_user(request).await.unwrap();
        assert!(second.metadata().contains_key("entente-replayed"));
        assert_eq!(first.into_inner(), second.into_inner());
        assert_eq!(
            events(&site, "directory.v1.UserDeleted", &bob.name).await,
            1
        );
    })
    .await;
}

// proves COM-12, USR-6
#[tokio::test]
async fn event_of_a_deletion_tells_the_state_before() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let carol = site.person(&contoso, "carol").await;
        let admin = &contoso.admin.caller;
        admin.disable(&bob.name).await.unwrap();
        for (person, before) in [(&bob, UserState::Disabled), (&carol, UserState::Active)] {
            admin.delete(&person.name).await.unwrap();
            let sql = "SELECT COUNT(*) AS n FROM outbox WHERE type = 'entente.directory.v1.UserDeleted' \
                       AND resource = $1 AND payload = $2 AND changed_fields = 'state'";
            let in_state = |state: UserState| {
                Some(User {
                    state: state.into(),
                    ..User::default()
                })
            };
            let told = UserDeleted {
                before: in_state(before),
                after: in_state(UserState::Deleted),
            };
            let values = [person.name.clone().into(), told.encode_to_vec().into()];
            assert_eq!(number(&site, sql, values).await, 1, "{before:?}");
        }
    })
    .await;
}

// proves PWD-5, USR-8
#[tokio::test]
async fn sessions_of_another_are_ended_by_those_who_may() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let carol = site.person(&contoso, "carol").await;
        let request = || EndUserSessionsRequest {
            name: bob.name.clone(),
            ..EndUserSessionsRequest::default()
        };
        refused(
            carol.caller.sessions().end_user_sessions(request()).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        again(&site, &bob).await;
        let admin = &contoso.admin.caller;
        let ended = admin.sessions().end_user_sessions(request()).await.unwrap();
        assert_eq!(ended.into_inner().ended_session_count, 2);
        refused(
            bob.caller.who_am_i().await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        carol.caller.who_am_i().await.unwrap();
        again(&site, &bob).await.who_am_i().await.unwrap();
    })
    .await;
}
