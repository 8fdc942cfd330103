//! Who wakes what of rights that sleep, and where (ROL-13).

use entente::proto::{
    access::{AccountRole, ExplainAccessRequest, TestMyPermissionsRequest},
    directory::{RightsWoken, User, WakeRightsRequest},
    operator::OperatorRole,
};
use tonic::{Code, Status};

use crate::{
    events::{last_cursor, open, payload, take, watch},
    groups::{Groups as _, group},
    guests::{guest, switch},
    harness::{
        Caller, Person, Site, TenantSite, both, fields, membership, refused, request_id, rights,
    },
    members::{add, update},
    people::{People as _, events, eventually, id, letters, number, operator_tenant, staff},
};

const ASKED: [&str; 3] = ["delegated.act", "members.read", "owner.tie"];
const ALL: &[&str] = &ASKED;
const PLAIN: &[&str] = &["members.read"];

async fn may(who: &Caller, on: &str, asked: &[&str]) -> Vec<String> {
    let request = TestMyPermissionsRequest {
        resource: on.to_owned(),
        permissions: asked.iter().map(|p| (*p).to_owned()).collect(),
    };
    let told = who.access().test_my_permissions(request).await.unwrap();
    told.into_inner().permissions
}

/// What of it on several accounts.
async fn may_on(who: &Caller, accounts: [&str; 2]) -> [Vec<String>; 2] {
    [
        may(who, accounts[0], ALL).await,
        may(who, accounts[1], ALL).await,
    ]
}

async fn wake_on(who: &Caller, whom: &str, on: &str) -> Result<User, Status> {
    let request = WakeRightsRequest {
        name: whom.to_owned(),
        scope: on.to_owned(),
        ..WakeRightsRequest::default()
    };
    let done = who.users().wake_rights(request).await;
    done.map(tonic::Response::into_inner)
}

fn nothing<T: std::fmt::Debug>(tried: Result<T, Status>) {
    refused(tried, Code::PermissionDenied, "NOTHING_TO_WAKE");
}

/// The person with a password that somebody else set, so asleep.
async fn reset(site: &Site, by: &Caller, person: &Person) -> Caller {
    let done = by.reset(&person.name).await.unwrap();
    site.settle_in(&person.sign_in_name, &done.temporary_password)
        .await
}

struct Two {
    contoso: TenantSite,
    one: String,
    two: String,
    bob: Person,
    joe: Person,
    kim: Person,
}

/// Bob is a manager and acts for customers on two accounts; Joe is a manager of the first, Kim acts for customers on the second.
async fn two(site: &Site) -> Two {
    let contoso = site.tenant("contoso").await;
    let one = site.account(&contoso, "One").await;
    let two = site.account(&contoso, "Two").await;
    let [bob, joe, kim] = [
        site.person(&contoso, "bob").await,
        site.person(&contoso, "joe").await,
        site.person(&contoso, "kim").await,
    ];
    let ann = &contoso.admin.caller;
    let (manager, agent) = (AccountRole::Manager, AccountRole::AdminAgent);
    for account in [&one, &two] {
        add(ann, account, &[&bob], &[manager, agent]).await.unwrap();
    }
    add(ann, &one, &[&joe], &[manager]).await.unwrap();
    add(ann, &two, &[&kim], &[agent]).await.unwrap();
    Two {
        contoso,
        one,
        two,
        bob,
        joe,
        kim,
    }
}

// proves ROL-13, ROL-10
#[tokio::test]
async fn each_holder_wakes_what_it_holds_itself_and_where_it_does() {
    both(async |site| {
        let Two {
            contoso,
            one,
            two,
            bob: person,
            joe,
            kim,
        } = two(&site).await;
        let ann = &contoso.admin.caller;
        let accounts = [one.as_str(), two.as_str()];
        let bob = reset(&site, ann, &person).await;
        // Asked twice, so that what is asleep is remembered.
        for _ in 0..2 {
            assert_eq!(may_on(&bob, accounts).await, [PLAIN, PLAIN]);
        }
        // Where the caller holds nothing that sleeps, nothing is woken.
        nothing(wake_on(&joe.caller, &person.name, &two).await);
        nothing(wake_on(&kim.caller, &person.name, &one).await);
        nothing(wake_on(&joe.caller, &person.name, &contoso.name).await);
        nothing(wake_on(&joe.caller, &person.name, "operator").await);
        let unknown = format!("accounts/{}", request_id());
        nothing(wake_on(&joe.caller, &person.name, &unknown).await);
        let bad = wake_on(&joe.caller, &person.name, &kim.name).await;
        let bad = refused(bad, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&bad), ["scope"]);
        assert_eq!(may_on(&bob, accounts).await, [PLAIN, PLAIN]);

        let from = last_cursor(ann, &one).await;
        let woken = joe.caller.wake(&person.name).await.unwrap();
        let told = take(&mut open(ann, watch(&one, &from)).await.unwrap(), 1).await;
        let told: RightsWoken = payload(&told, &person.name);
        assert_eq!(told.scope, one);
        assert!(told.permissions.contains(&"owner.tie".to_owned()));
        assert!(!told.permissions.contains(&"delegated.act".to_owned()));
        assert!(woken.rights_asleep_until.is_some());
        let manages: &[&str] = &["members.read", "owner.tie"];
        assert_eq!(may_on(&bob, accounts).await, [manages, PLAIN]);
        nothing(joe.caller.wake(&person.name).await);
        wake_on(&kim.caller, &person.name, &two).await.unwrap();
        let acts: &[&str] = &["delegated.act", "members.read"];
        assert_eq!(may_on(&bob, accounts).await, [manages, acts]);
        assert_eq!(
            events(&site, "directory.v1.RightsWoken", &person.name).await,
            2
        );
        // What is woken wakes others; what sleeps doesn't.
        let joe = Person {
            caller: reset(&site, ann, &joe).await,
            ..joe
        };
        assert_eq!(may(&joe.caller, &one, ALL).await, PLAIN);
        bob.wake(&joe.name).await.unwrap();
        assert_eq!(may(&joe.caller, &one, ALL).await, manages);
        // Who holds it everywhere wakes the rest of it, everywhere.
        ann.wake(&person.name).await.unwrap();
        assert_eq!(may_on(&bob, accounts).await, [ALL, ALL]);
        nothing(ann.wake(&person.name).await);
        // A credential that is set anew puts all to sleep again.
        let bob = reset(&site, ann, &person).await;
        assert_eq!(may_on(&bob, accounts).await, [PLAIN, PLAIN]);
        wake_on(ann, &person.name, &one).await.unwrap();
        assert_eq!(may_on(&bob, accounts).await, [ALL, PLAIN]);
    })
    .await;
}

// proves ROL-13
#[tokio::test]
async fn what_is_given_after_others_were_woken_sleeps_until_a_holder_wakes_that_too() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin.caller;
        let person = site.person(&contoso, "bob").await;
        add(ann, &account, &[&person], &[AccountRole::Manager])
            .await
            .unwrap();
        let bob = reset(&site, ann, &person).await;
        ann.wake(&person.name).await.unwrap();
        assert_eq!(
            may(&bob, &account, ALL).await,
            ["members.read", "owner.tie"]
        );
        let told = async || {
            let tells = |text: &str| text.contains("asleep") && text.contains(&account);
            let all = letters(&site).await.into_iter();
            all.filter(|l| l.to == "ann@contoso.example" && tells(&l.text))
                .count()
        };
        let before = told().await;
        // What was woken stays awake, also when it is taken and given again; and nobody is told that it sleeps.
        let member = person.member_of(&account);
        for roles in [&[][..], &[AccountRole::Manager]] {
            let change = [(member.as_str(), rights(roles))];
            update(ann, &account, &change).await.unwrap();
        }
        assert_eq!(
            may(&bob, &account, ALL).await,
            ["members.read", "owner.tie"]
        );
        assert_eq!(told().await, before);
        // By a group, and directly elsewhere.
        let agents = membership(&account, &[AccountRole::AdminAgent]);
        let team = group(&contoso, "Agents", &[], Some(agents)).await;
        ann.join(&team, &[&person.name]).await.unwrap();
        assert_eq!(
            may(&bob, &account, ALL).await,
            ["members.read", "owner.tie"]
        );
        assert_eq!(told().await, before + 1);
        let explain = ExplainAccessRequest {
            resource: account.clone(),
            principal: person.name.clone(),
            permission: "delegated.act".to_owned(),
        };
        let why = ann.access().explain_access(explain).await.unwrap();
        let why = why.into_inner();
        assert_eq!(why.decision.unwrap().reason, "RIGHTS_ASLEEP");
        let sleeps = |step: &&String| step.contains("sleep until");
        let steps: Vec<_> = why.steps.iter().filter(sleeps).collect();
        assert_eq!(steps.len(), 1);
        assert!(steps[0].contains("delegated.act") && !steps[0].contains("owner.tie"));
        let other = site.account(&contoso, "Other").await;
        add(ann, &other, &[&person], &[AccountRole::Manager])
            .await
            .unwrap();
        assert_eq!(may(&bob, &other, ALL).await, PLAIN);
        wake_on(ann, &person.name, &account).await.unwrap();
        assert_eq!(may_on(&bob, [&account, &other]).await, [ALL, PLAIN]);
    })
    .await;
}

// proves ROL-13
#[tokio::test]
async fn who_holds_a_part_of_what_sleeps_on_the_operator_wakes_that_part() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let sue = staff(&site, "sue", OperatorRole::OperatorSupport).await;
        let rex = staff(&site, "rex", OperatorRole::OperatorFinance).await;
        let caller = reset(&site, &home.admin.caller, &sue).await;
        let asked = ["accounts.search", "recovery.open"];
        assert!(may(&caller, "operator", &asked).await.is_empty());
        wake_on(&rex.caller, &sue.name, "operator").await.unwrap();
        assert_eq!(may(&caller, "operator", &asked).await, ["accounts.search"]);
        nothing(rex.caller.wake(&sue.name).await);
        home.admin.caller.wake(&sue.name).await.unwrap();
        assert_eq!(may(&caller, "operator", &asked).await, asked);
    })
    .await;
}

// proves ROL-13, INV-5
#[tokio::test]
async fn rights_of_a_guest_are_woken_where_it_is_a_guest_only() {
    both(async |site| {
        let away = guest(&site, &[AccountRole::AdminAgent]).await;
        let eve = &away.fabrikam.admin.caller;
        let home_account = site.account(&away.fabrikam, "Fabrikam").await;
        add(
            eve,
            &home_account,
            &[&away.fred],
            &[AccountRole::AdminAgent],
        )
        .await
        .unwrap();
        let fred = reset(&site, eve, &away.fred).await;
        let tokens = switch(&fred, &away.contoso.name).await.unwrap();
        let there = site.with_token(&tokens.access_token);
        let may_act = async || {
            let asked = ["delegated.act"];
            let here = may(&fred, &home_account, &asked).await;
            let there = may(&there, &away.account, &asked).await;
            (here.len(), there.len())
        };
        assert_eq!(may_act().await, (0, 0));
        let ann = &away.contoso.admin.caller;
        ann.wake(&away.name).await.unwrap();
        assert_eq!(may_act().await, (0, 1));
        nothing(wake_on(ann, &away.name, &home_account).await);
        wake_on(eve, &away.fred.name, &home_account).await.unwrap();
        assert_eq!(may_act().await, (1, 1));
        // Set anew at home, it sleeps there too.
        let done = eve.reset(&away.fred.name).await.unwrap();
        let fred = site
            .settle_in(&away.fred.sign_in_name, &done.temporary_password)
            .await;
        let tokens = switch(&fred, &away.contoso.name).await.unwrap();
        let there = site.with_token(&tokens.access_token);
        assert!(
            may(&there, &away.account, &["delegated.act"])
                .await
                .is_empty()
        );
    })
    .await;
}

// proves ROL-13, COM-5, COM-8
#[tokio::test]
async fn a_stale_etag_and_a_mere_check_wake_nothing() {
    both(async |site| {
        let Two {
            contoso,
            one,
            bob: person,
            joe,
            ..
        } = two(&site).await;
        let bob = reset(&site, &contoso.admin.caller, &person).await;
        let stale = WakeRightsRequest {
            name: person.name.clone(),
            etag: "stale".to_owned(),
            ..WakeRightsRequest::default()
        };
        let tried = joe.caller.users().wake_rights(stale).await;
        refused(tried, Code::Aborted, "ETAG_MISMATCH");
        let check = WakeRightsRequest {
            name: person.name.clone(),
            validate_only: true,
            ..WakeRightsRequest::default()
        };
        joe.caller.users().wake_rights(check).await.unwrap();
        assert_eq!(may(&bob, &one, ALL).await, PLAIN);
    })
    .await;
}

// proves ROL-13, COM-21
#[tokio::test]
async fn what_was_woken_is_forgotten_when_nothing_sleeps_any_more_and_with_the_user() {
    both(async |site| {
        let Two {
            contoso, bob, kim, ..
        } = two(&site).await;
        let ann = &contoso.admin.caller;
        let kept = async |of: &Person| {
            let sql = "SELECT COUNT(*) AS n FROM woken_rights WHERE user_id = $1";
            number(&site, sql, [id(&of.name).into()]).await
        };
        for person in [&bob, &kim] {
            reset(&site, ann, person).await;
            ann.wake(&person.name).await.unwrap();
        }
        assert_eq!((kept(&bob).await, kept(&kim).await), (2, 1));
        ann.delete(&kim.name).await.unwrap();
        assert_eq!((kept(&bob).await, kept(&kim).await), (2, 0));
        site.advance(71 * 3_600).await;
        site.settle().await;
        assert_eq!(kept(&bob).await, 2);
        site.advance(2 * 3_600).await;
        site.settle().await;
        // The server's own scheduler may be at it too.
        eventually(async || kept(&bob).await == 0).await;
        let again = site
            .sign_in(&bob.sign_in_name, crate::harness::PASSWORD)
            .await;
        assert!(again.who_am_i().await.is_ok());
    })
    .await;
}
