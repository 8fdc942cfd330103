//! Several processes over one PostgreSQL share the timed work (COM-21) and the queue of reviews (VER-6), also when one of them is killed.

use std::{
    collections::BTreeSet,
    fs,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use entente::proto::{
    account::{Account, ImportAccountRequest, ReviewKind},
    operator::{AdvanceRequest, AssignOperatorRolesRequest, OperatorRole},
};
use futures_util::future::join_all;
use tonic::Code;

use crate::{
    claims::chains_are_intact,
    events::{last_cursor, open, take, watch},
    harness::{
        ADMINISTRATOR, Caller, PASSWORD, both, empty_postgres_database, new_tenant, new_user, psql,
        refused, request_id,
    },
    people::{eventually, execute_on, id},
    processes::{Server, Setting, home, settle_as, settle_in, sign_in_as},
    reviews::{claim, release},
};

/// The leases of a killed replica end before, of jobs after half a minute, of mails after two; its work is done by another soon after.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(240);

/// Servers over one database, and the password of the first administrator.
async fn replicas(settings: &[Setting], args: &[&str]) -> (Vec<Server>, String) {
    let servers: Vec<_> = settings.iter().map(|s| s.spawn(args)).collect();
    for (server, setting) in servers.iter().zip(settings) {
        server.ready(setting).await;
    }
    let password = settings
        .iter()
        .find_map(|s| fs::read_to_string(s.data().join("first-administrator-password")).ok());
    (servers, password.unwrap().trim().to_owned())
}

// proves COM-21, COM-12, COM-15
#[tokio::test]
async fn three_replicas_share_timed_work_and_one_is_killed() {
    let url = empty_postgres_database("three_replicas");
    let settings = [(); 3].map(|()| Setting::new(Some(url.clone())));
    let (servers, password) = replicas(&settings, &[]).await;
    let admin = settle_in(&servers[0], &password).await;
    let tenant = home(&admin).await;

    // Events and mails come in through all three, while one is killed in the middle of its timed work.
    let done = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for (s, server) in servers.iter().enumerate() {
        let caller = Caller {
            channel: server.nobody().channel,
            ..admin.clone()
        };
        let (tenant, done) = (tenant.clone(), done.clone());
        writers.spawn(async move {
            for n in 0.. {
                let user = new_user(&tenant, &format!("s{s}n{n}"));
                let made = caller.users().create_user(user).await.is_ok();
                if n % 10 == 0 {
                    let prefix = format!("company-{s}-{n}");
                    caller
                        .tenants()
                        .create_tenant(new_tenant(&prefix))
                        .await
                        .ok();
                }
                if !made || done.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
    }
    let of = |table: &str| -> u64 {
        let sql = format!("SELECT count(*) FROM {table}");
        psql(&url, &sql).parse().unwrap()
    };
    eventually(async || of("outbox") > 60 && of("mails") > 6).await;
    servers[2].signal("-KILL");
    let (events, mails) = (of("outbox"), of("mails"));
    eventually(async || of("outbox") > events + 40 && of("mails") > mails + 2).await;
    done.store(true, Ordering::SeqCst);
    writers.join_all().await;

    let begun = Instant::now();
    let left = "SELECT (SELECT count(*) FROM outbox WHERE is_first AND global_seq IS NULL) + (SELECT count(*) FROM mails WHERE state <> 2)";
    while psql(&url, left) != "0" {
        assert!(
            begun.elapsed() < TAKEN_OVER_WITHIN,
            "{} are left",
            psql(&url, left)
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Every event has one number, none is left out.
    let numbers = "SELECT count(*) || ' ' || count(DISTINCT global_seq) || ' ' || min(global_seq) || ' ' || max(global_seq) \
                   FROM outbox WHERE is_first";
    let told = psql(&url, numbers);
    let parts: Vec<u64> = told.split(' ').map(|n| n.parse().unwrap()).collect();
    assert!(parts[0] > 50, "{told}");
    assert_eq!(parts[1..], [parts[0], 1, parts[0]], "{told}");
    // Numbers follow the order of commits within each scope.
    let turned = "SELECT count(*) FROM outbox a JOIN outbox b USING (scope_kind, scope_id) \
                  WHERE a.is_first AND b.is_first AND a.scope_seq < b.scope_seq AND a.global_seq > b.global_seq";
    assert_eq!(psql(&url, turned), "0");
    // Every mail lies in a folder; one that the killed replica was at may lie in two.
    let queued: BTreeSet<_> = psql(&url, "SELECT id FROM mails")
        .lines()
        .map(str::to_owned)
        .collect();
    let written: BTreeSet<_> = settings
        .iter()
        .filter_map(|s| fs::read_dir(s.data().join("mails")).ok())
        .flatten()
        .flatten()
        .filter_map(|f| Some(f.file_name().to_str()?.strip_suffix(".eml")?.to_owned()))
        .collect();
    assert!(queued.len() > 3);
    assert_eq!(written, queued);
    assert_eq!(settings[0].run(&["verify-audit"]).status.code(), Some(0));
}

/// A reviewer with a password of its own; its sign-in name.
async fn reviewer(server: &Server, admin: &Caller, user_name: &str) -> String {
    let mut request = new_user(&home(admin).await, user_name);
    request.user.as_mut().unwrap().recovery_email = format!("{user_name}@review.example");
    let made = admin.users().create_user(request).await.unwrap();
    let made = made.into_inner();
    let user = made.user.unwrap();
    settle_as(server, &user.sign_in_name, &made.temporary_password).await;
    let request = AssignOperatorRolesRequest {
        principal: user.name,
        roles: vec![OperatorRole::OperatorReviewer as i32],
        ..AssignOperatorRolesRequest::default()
    };
    admin.staff().assign_operator_roles(request).await.unwrap();
    user.sign_in_name
}

/// Something of a company that waits for a reviewer; its name.
async fn waiting_review(url: &str, admin: &Caller) -> String {
    let made = admin.tenants().create_tenant(new_tenant("contoso")).await;
    let made = made.unwrap().into_inner();
    let request = ImportAccountRequest {
        account: Some(Account {
            publisher_display_name: "Contoso".to_owned(),
            legal_name: "Contoso Ltd".to_owned(),
            country_code: "FR".to_owned(),
            ..Account::default()
        }),
        tenant: made.tenant.unwrap().name,
        first_manager: made.first_admin.unwrap().name,
        ..ImportAccountRequest::default()
    };
    let account = admin.accounts().import_account(request).await.unwrap();
    let name = format!("operator/reviews/{}", request_id());
    let sql = format!(
        "INSERT INTO reviews (id, kind, account_id, subject, submitter, note, state, more_requested, approvals_needed, decided, decision, reason, \
         decided_by, create_time, update_time, version) \
         VALUES ('{}', {}, '{}', '{name}', '', '', 1, '', 1, false, 0, '', '', 1700000000000000, 1700000000000000, 1)",
        id(&name),
        ReviewKind::Offer as i64,
        id(&account.into_inner().name),
    );
    psql(url, &sql);
    name
}

async fn advance(admin: &Caller, seconds: i64) {
    let request = AdvanceRequest {
        by: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..AdvanceRequest::default()
    };
    admin.clock().advance(request).await.unwrap();
}

// proves VER-6, COM-14
#[tokio::test]
async fn two_processes_never_give_a_review_to_two_and_a_killed_ones_claim_ends_in_time() {
    let url = empty_postgres_database("reviews_of_two");
    let settings = [(); 2].map(|()| Setting::new(Some(url.clone())));
    let (servers, password) = replicas(&settings, &["--enable-test-clock"]).await;
    let admin = settle_in(&servers[0], &password).await;
    let names = [
        reviewer(&servers[0], &admin, "rita").await,
        reviewer(&servers[0], &admin, "rob").await,
    ];
    let name = waiting_review(&url, &admin).await;
    // What was given to whose password somebody else had set sleeps for 72 hours, which pass for both processes.
    advance(&admin, 73 * 3_600).await;
    let rita = sign_in_as(&servers[0], &names[0], PASSWORD).await.unwrap();
    let rob = sign_in_as(&servers[1], &names[1], PASSWORD).await.unwrap();
    for n in 0..10 {
        // Each of them is first in turn, twice at once.
        let (first, second) = if n % 2 == 0 {
            (&rita, &rob)
        } else {
            (&rob, &rita)
        };
        let callers = [first, second, first, second];
        let done = join_all(callers.map(|caller| claim(caller, &name))).await;
        let holders: Vec<_> = done.iter().flatten().map(|r| &r.claimed_by).collect();
        assert_eq!(holders.len(), 2, "{done:?}");
        assert_eq!(holders[0], holders[1]);
        let is_first = done[0].is_ok();
        for lost in done.into_iter().filter(Result::is_err) {
            refused(lost, Code::FailedPrecondition, "REVIEW_CLAIMED");
        }
        let (holder, other) = if is_first {
            (first, second)
        } else {
            (second, first)
        };
        let tried = release(other, &name).await;
        refused(tried, Code::FailedPrecondition, "REVIEW_NOT_CLAIMED");
        release(holder, &name).await.unwrap();
    }

    // Whoever claimed it through a process that was killed keeps it, as long as claims last.
    claim(&rita, &name).await.unwrap();
    servers[0].signal("-KILL");
    let tried = claim(&rob, &name).await;
    refused(tried, Code::FailedPrecondition, "REVIEW_CLAIMED");
    let admin = sign_in_as(&servers[1], ADMINISTRATOR, PASSWORD).await;
    advance(&admin.unwrap(), 31 * 60).await;
    let rob = sign_in_as(&servers[1], &names[1], PASSWORD).await.unwrap();
    claim(&rob, &name).await.unwrap();
    let rita = sign_in_as(&servers[1], &names[0], PASSWORD).await.unwrap();
    let tried = release(&rita, &name).await;
    refused(tried, Code::FailedPrecondition, "REVIEW_NOT_CLAIMED");
    let run = settings[1].run(&["verify-audit"]);
    assert_eq!(run.status.code(), Some(0));
}

// proves PWD-1, COM-21
#[tokio::test]
async fn a_clock_that_was_ahead_for_a_moment_decides_nothing_afterwards() {
    const DAY: i64 = 86_400_000_000;
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin;
        let cursor = last_cursor(&admin.caller, &contoso.name).await;
        // As a replica leaves it that was a day ahead.
        let now = site.app.now().await.unwrap();
        for sql in [
            "UPDATE heads SET last_time = $1",
            "UPDATE jobs SET due_time = $1",
        ] {
            let sql = sql.replace("$1", &(now + DAY).to_string());
            execute_on(&site, &sql).await;
        }
        site.app.memory.forget_heads();
        let tokens = site.tokens(&admin.sign_in_name, PASSWORD).await.unwrap();
        let end = tokens.access_expire_time.unwrap().seconds;
        assert!(end < (now + DAY) / 1_000_000, "{end}");
        // What happens is numbered by a job, and so told.
        let request = new_user(&contoso.name, "bob");
        let made = admin.caller.users().create_user(request).await.unwrap();
        let mut watched = watch(&contoso.name, &cursor);
        watched.types = vec!["entente.directory.v1.UserCreated".to_owned()];
        let mut told = open(&admin.caller, watched).await.unwrap();
        let told = take(&mut told, 1).await;
        assert_eq!(told[0].resource, made.into_inner().user.unwrap().name);
        chains_are_intact(&site.app).await;
    })
    .await;
}
