//! Cases that were stopped, or whose time ran out: nothing is left of them, and what it takes to open the next one.

use entente::proto::directory::RecoveryCase;
use tonic::Code;

use super::{
    NEW, PROVEN, Role, State, WAIT, addressed, again_by_name, approve, case, get, link, open,
    opened, stop, support,
};
use crate::{
    claims::execute,
    harness::{Caller, Site, both, fields, refused},
    ownership::owns,
    people::{
        People as _, ask_recovery, denied, eventually, execute_on, identity, letters, link_invalid,
        literal, mailed_token, number, numbered_id, recover,
    },
};

// proves PWD-10
#[tokio::test]
async fn stopped_case_is_opened_again_by_two_others_on_more_evidence_only() {
    both(async |site| {
        let (tenant, mailbox) = addressed(&site).await;
        let mut people = Vec::new();
        for name in ["sue", "sam", "sid", "sol"] {
            people.push(support(&site, name).await.caller);
        }
        let [sue, sam, sid, sol] = &people[..] else {
            panic!("four people");
        };
        let again_by = async |who: &Caller, documents: usize, reopens: &str| {
            let mut new = case(
                who,
                Role::GlobalAdmin,
                &tenant.name,
                &tenant.admin.name,
                documents,
            )
            .await;
            new.reopens = reopens.to_owned();
            open(who, new).await
        };
        let made = again_by(sue, 1, "").await.unwrap().name;
        approve(sam, &made).await.unwrap();
        let token = mailed_token(&site, &mailbox).await.unwrap();
        let other = format!("operator/recoveryCases/{}", crate::harness::request_id());
        link_invalid(stop(&site.nobody(), &token, &other).await);
        link_invalid(stop(&site.nobody(), "entl_nothing", &made).await);
        assert_eq!(
            stop(&site.nobody(), &token, "").await.unwrap(),
            State::Stopped
        );
        link_invalid(stop(&site.nobody(), &token, "").await);
        let stopped = get(sue, &made).await;
        assert_eq!(
            (&*stopped.stopped_by, &*stopped.stop_reason),
            (&*mailbox, "It is not me.")
        );
        site.settle().await;
        assert_eq!(
            number(&site, "SELECT COUNT(*) AS n FROM links", []).await,
            0
        );

        let code = Code::FailedPrecondition;
        refused(again_by(sid, 2, "").await, code, "RECOVERY_CASE_STOPPED");
        refused(again_by(sue, 2, &made).await, code, "ANOTHER_OPERATOR");
        refused(again_by(sam, 2, &made).await, code, "ANOTHER_OPERATOR");
        let weak = refused(
            again_by(sid, 1, &made).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&weak), ["recovery_case.documents"]);
        let second = again_by(sid, 2, &made).await.unwrap().name;
        for who in [sue, sam, sid] {
            refused(approve(who, &second).await, code, "ANOTHER_OPERATOR");
        }
        approve(sol, &second).await.unwrap();
        // Those whom it concerns are told, and have no link.
        let told = letters(&site).await;
        let newest = told.iter().rfind(|l| l.to == mailbox).unwrap();
        assert!(
            newest.text.contains("Only the operator can stop it") && !newest.text.contains("entl_")
        );
        denied(stop(&tenant.admin.caller, "", &second).await);
        assert_eq!(stop(sue, "", &second).await.unwrap(), State::Stopped);
        refused(stop(sue, "", &second).await, code, "WRONG_STATE");
        // Nor does anybody of the first case open the third, nor approve of it.
        for who in [sue, sam, sid, sol] {
            refused(again_by(who, 3, &second).await, code, "ANOTHER_OPERATOR");
        }
        let uma = support(&site, "uma").await.caller;
        let third = again_by(&uma, 3, &second).await.unwrap().name;
        for who in [sue, sam] {
            refused(approve(who, &third).await, code, "ANOTHER_OPERATOR");
        }
        site.advance(WAIT + 60).await;
        assert_eq!(mailed_token(&site, PROVEN).await, None);
    })
    .await;
}

/// A case of a tenant's admin whose link is out; gives its name and the token.
async fn mailed(site: &Site, tenant: &str, admin: &str) -> (String, String) {
    let name = opened(site, tenant, admin).await;
    approve(&again_by_name(site, "sue").await, &name)
        .await
        .unwrap();
    site.advance(WAIT + 60).await;
    let token = link(site, &name).await;
    (name, token)
}

// proves PWD-10, PWD-4
#[tokio::test]
async fn nothing_is_left_of_a_link_that_was_stopped_or_ran_out() {
    both(async |site| {
        let (tenant, mailbox) = addressed(&site).await;
        support(&site, "sue").await;
        let admin = &tenant.admin;
        let to_proven = async || {
            letters(&site)
                .await
                .iter()
                .filter(|l| l.to == PROVEN)
                .count()
        };
        // Somebody asks for a way back meanwhile, too: that is the case's then, and ends with it.
        for (n, is_stopped) in [true, false, true].into_iter().enumerate() {
            let (name, first) = mailed(&site, &tenant.name, &admin.name).await;
            ask_recovery(&site, &admin.sign_in_name).await.unwrap();
            let second = mailed_token(&site, PROVEN).await.unwrap();
            link_invalid(recover(&site, &first, NEW).await);
            if is_stopped {
                let sue = again_by_name(&site, "sue").await;
                assert_eq!(stop(&sue, "", &name).await.unwrap(), State::Stopped);
            } else {
                site.advance(WAIT + 60).await;
                let sue = again_by_name(&site, "sue").await;
                eventually(async || {
                    site.settle().await;
                    get(&sue, &name).await.state() == State::Expired
                })
                .await;
            }
            link_invalid(recover(&site, &second, NEW).await);
            let ann = crate::people::again(&site, admin).await;
            assert_eq!(ann.user(&admin.name).await.unwrap().recovery_email, mailbox);
            // Whoever asks now is answered at the address that was there before, and nothing more goes to the other one.
            let before = to_proven().await;
            ask_recovery(&site, &admin.sign_in_name).await.unwrap();
            let token = mailed_token(&site, &mailbox).await.unwrap();
            assert_eq!(to_proven().await, before);
            if n == 2 {
                recover(&site, &token, NEW).await.unwrap();
            } else {
                // What the next one follows on isn't this test's.
                execute_on(&site, "DELETE FROM recovery_cases").await;
            }
        }
    })
    .await;
}

// proves PWD-10
#[tokio::test]
async fn one_of_two_cases_of_a_person_has_a_link_and_its_end_is_the_end_of_both() {
    both(async |site| {
        let (tenant, mailbox) = addressed(&site).await;
        let account = site.account(&tenant, "Contoso").await;
        let admin = &tenant.admin;
        let sue = support(&site, "sue").await.caller;
        let sam = support(&site, "sam").await.caller;
        let mut names = Vec::new();
        for (role, scope) in [(Role::GlobalAdmin, &tenant.name), (Role::Manager, &account)] {
            let new = case(&sue, role, scope, &admin.name, 1).await;
            let name = open(&sue, new).await.unwrap().name;
            approve(&sam, &name).await.unwrap();
            names.push(name);
        }
        site.advance(WAIT + 60).await;
        let sue = again_by_name(&site, "sue").await;
        eventually(async || {
            site.settle().await;
            get(&sue, &names[0]).await.state() == State::Expired
        })
        .await;
        let token = link(&site, &names[1]).await;
        // Whoever stops the one that is over finds it so; who stops the other one gives the address of before back.
        let late = stop(&sue, "", &names[0]).await;
        refused(late, Code::FailedPrecondition, "WRONG_STATE");
        assert_eq!(stop(&sue, "", &names[1]).await.unwrap(), State::Stopped);
        link_invalid(recover(&site, &token, NEW).await);
        let ann = crate::people::again(&site, admin).await;
        assert_eq!(ann.user(&admin.name).await.unwrap().recovery_email, mailbox);
    })
    .await;
}

// proves PWD-10
#[tokio::test]
async fn the_owner_is_told_however_many_managers_there_are() {
    both(async |site| {
        let (tenant, _) = addressed(&site).await;
        let account = site.account(&tenant, "Contoso").await;
        let (a, t) = (literal(&site, &account), literal(&site, &tenant.name));
        // All of them older than the owner.
        let id = numbered_id(&site, "n");
        for sql in [
            format!(
                "WITH RECURSIVE s(n) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT n + 1 FROM s WHERE n < 300) \
                 INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, \
                 recovery_email, kind, state, create_time, update_time, version) \
                 SELECT {id}, {t}, 'm' || n, 'm' || n, 'M', 'M', 'M', 'm', 'm' || n || '@mail.example', 1, 1, 1, 1, 1 FROM s"
            ),
            "INSERT INTO credentials (user_id, hash, temporary, change_time, strangers_failed, known_failed) \
             SELECT id, '', false, 1, 0, 0 FROM users WHERE display_name_fold = 'm'"
                .to_owned(),
            format!(
                "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
                 display_name_fold, create_time, update_time, version) \
                 SELECT 2, {a}, id, 1, {t}, 2, '', '', 'm', 1, 1, 1 FROM users WHERE display_name_fold = 'm'"
            ),
        ] {
            execute(&site.app, &sql).await.unwrap();
        }
        let olga = identity(&site, "olga@mail.example").await;
        owns(&site, &account, &olga).await;
        let nick = identity(&site, "nick@mail.example").await;
        let sue = support(&site, "sue").await.caller;
        let sam = support(&site, "sam").await.caller;
        let new = case(&sue, Role::Owner, &account, &nick.name, 1).await;
        let name = open(&sue, new).await.unwrap().name;
        approve(&sam, &name).await.unwrap();
        assert!(letters(&site).await.len() > 200);
        let token = mailed_token(&site, "olga@mail.example").await.unwrap();
        let stopped = stop(&site.nobody(), &token, "").await;
        assert_eq!(stopped.unwrap(), State::Stopped);
    })
    .await;
}

// proves PWD-10
#[tokio::test]
async fn a_case_that_was_withdrawn_or_had_all_evidence_does_not_close_the_way() {
    both(async |site| {
        let (tenant, mailbox) = addressed(&site).await;
        let mut people = Vec::new();
        for name in ["sue", "sam", "sid", "sol"] {
            people.push(support(&site, name).await.caller);
        }
        let [sue, sam, sid, sol] = &people[..] else {
            panic!("four people");
        };
        let evidence = async |who: &Caller, documents: usize, reopens: &str| {
            let (scope, admin) = (&tenant.name, &tenant.admin.name);
            let new = case(who, Role::GlobalAdmin, scope, admin, documents).await;
            let reopens = reopens.to_owned();
            RecoveryCase { reopens, ..new }
        };
        // Withdrawn before anybody approved it: the same two people go on, on the same evidence.
        let withdrawn = open(sue, evidence(sue, 2, "").await).await.unwrap().name;
        assert_eq!(stop(sue, "", &withdrawn).await.unwrap(), State::Stopped);
        let full = open(sue, evidence(sue, 20, "").await).await.unwrap().name;
        approve(sam, &full).await.unwrap();
        let token = mailed_token(&site, &mailbox).await.unwrap();
        stop(&site.nobody(), &token, "").await.unwrap();
        // One withdrawn in between doesn't take the place of the one that was stopped.
        let between = open(sid, evidence(sid, 20, &full).await).await;
        let withdrawn = stop(sid, "", &between.unwrap().name).await;
        assert_eq!(withdrawn.unwrap(), State::Stopped);
        let code = Code::FailedPrecondition;
        let by_sue = open(sue, evidence(sue, 1, &full).await).await;
        refused(by_sue, code, "ANOTHER_OPERATOR");
        let whole = evidence(sid, 20, &full).await;
        let unsaid = RecoveryCase {
            reopens: String::new(),
            ..whole.clone()
        };
        refused(open(sid, unsaid).await, code, "RECOVERY_CASE_STOPPED");
        let weak = RecoveryCase {
            documents: whole.documents[1..].to_vec(),
            ..whole.clone()
        };
        let weak = refused(
            open(sid, weak).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&weak), ["recovery_case.documents"]);
        let last = open(sid, whole).await.unwrap().name;
        approve(sol, &last).await.unwrap();
        assert_eq!(get(sid, &last).await.state(), State::Waiting);
    })
    .await;
}
