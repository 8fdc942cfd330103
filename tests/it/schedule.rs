//! Timed work and the test clock (COM-14, COM-21).

use entente::{
    proto::{
        directory::DeleteUserRequest,
        operator::{AdvanceRequest, GetTimeRequest, SetTimeRequest},
    },
    schedule,
};
use tonic::Code;

use crate::{
    claims::{Replica, count, execute, replayed},
    harness::{Database, Site, both, new_user, refused, request_id},
    people::{mailed_token, new_identity},
};

const DAY: i64 = 86_400;

async fn attempts(site: &Site) -> i64 {
    count(
        &site.app,
        "SELECT attempt_count AS n FROM jobs WHERE name = 'purge-claims'",
    )
    .await
}

// proves COM-14
#[tokio::test]
async fn clock_moves_for_all_replicas_and_only_forward() {
    let site = Site::open(Database::Postgres).await;
    let replica = Replica::open(site.url.as_ref().unwrap()).await;
    let operator = site.operator().await;
    let there = replica.of(&operator);
    let now = async |caller: &crate::harness::Caller| {
        let time = caller.clock().get_time(GetTimeRequest {}).await.unwrap();
        time.into_inner().now.unwrap().seconds
    };
    let before = now(&there).await;
    // Less than the life of the token.
    site.advance(600).await;
    assert!((600..630).contains(&(now(&there).await - before)));
    assert!((now(&there).await - now(&operator).await).abs() < 5);
    let back = AdvanceRequest {
        by: Some(prost_types::Duration {
            seconds: -1,
            nanos: 0,
        }),
        ..AdvanceRequest::default()
    };
    let back = operator.clock().advance(back).await;
    refused(back, Code::InvalidArgument, "INVALID_FIELDS");
}

// proves COM-14, COM-4
#[tokio::test]
async fn repeated_move_of_the_clock_moves_it_once_however_far() {
    both(async |site| {
        let operator = || site.operator();
        let now = async || {
            let clock = operator().await;
            let time = clock.clock().get_time(GetTimeRequest {}).await.unwrap();
            time.into_inner().now.unwrap().seconds
        };
        let advance = AdvanceRequest {
            by: Some(prost_types::Duration {
                seconds: 40 * DAY,
                nanos: 0,
            }),
            request_id: request_id(),
            ..AdvanceRequest::default()
        };
        let before = now().await;
        let first = operator().await.clock().advance(advance.clone()).await;
        assert!(!replayed(first.as_ref().unwrap()));
        let again = operator().await.clock().advance(advance.clone()).await;
        assert!(replayed(again.as_ref().unwrap()));
        assert_eq!(first.unwrap().into_inner(), again.unwrap().into_inner());
        assert!((40 * DAY..41 * DAY).contains(&(now().await - before)));
        let set = SetTimeRequest {
            now: Some(prost_types::Timestamp {
                seconds: before + 80 * DAY,
                nanos: 0,
            }),
            request_id: request_id(),
            ..SetTimeRequest::default()
        };
        for expected in [false, true] {
            let set = operator().await.clock().set_time(set.clone()).await;
            assert_eq!(replayed(&set.unwrap()), expected);
        }
        // It is kept for a day from then on, no longer.
        site.advance(DAY + 60).await;
        let late = operator().await.clock().set_time(set).await;
        refused(late, Code::InvalidArgument, "INVALID_FIELDS");
    })
    .await;
}

// proves COM-14
#[tokio::test]
async fn clock_is_off_unless_it_is_switched_on() {
    let site = Site::open_with(Database::Sqlite, |c| c.enable_test_clock = false).await;
    let operator = site.operator().await;
    let time = operator.clock().get_time(GetTimeRequest {}).await;
    refused(time, Code::FailedPrecondition, "TEST_CLOCK_OFF");
}

// proves COM-21
#[tokio::test]
async fn three_replicas_do_each_job_once_when_it_is_due() {
    let site = Site::open(Database::Postgres).await;
    let url = site.url.as_ref().unwrap();
    let replicas = [Replica::open(url).await, Replica::open(url).await];
    site.settle().await;
    let before = attempts(&site).await;
    for round in 1..=3 {
        site.advance(601).await;
        let mut work = tokio::task::JoinSet::new();
        for app in [&site.app, &replicas[0].app, &replicas[1].app] {
            for _ in 0..4 {
                let app = app.clone();
                work.spawn(async move { schedule::run_due(&app).await.unwrap() });
            }
        }
        work.join_all().await;
        assert_eq!(attempts(&site).await, before + round);
    }
    let failed = "SELECT COUNT(*) AS n FROM jobs WHERE last_error <> ''";
    assert_eq!(count(&site.app, failed).await, 0);
}

// proves COM-21
#[tokio::test]
async fn work_of_a_killed_replica_is_taken_over_when_its_lease_ends() {
    both(async |site| {
        site.settle().await;
        let before = attempts(&site).await;
        // Somebody has claimed the job, and is never heard of again.
        let lease = site.app.now().await.unwrap() + 30_000_000;
        let id = match site.database {
            Database::Sqlite => "randomblob(16)",
            Database::Postgres => "gen_random_uuid()",
        };
        let sql = format!(
            "UPDATE jobs SET due_time = 0, lease_id = {id}, lease_expire_time = {lease} WHERE name = 'purge-claims'"
        );
        execute(&site.app, &sql).await.unwrap();
        site.settle().await;
        assert_eq!(attempts(&site).await, before, "the lease is respected");
        site.advance(31).await;
        site.settle().await;
        assert_eq!(attempts(&site).await, before + 1);
        let held = "SELECT COUNT(*) AS n FROM jobs WHERE name = 'purge-claims' AND lease_id IS NOT NULL";
        assert_eq!(count(&site.app, held).await, 0);
    })
    .await;
}

// proves COM-21
#[tokio::test]
async fn claims_sessions_and_deleted_users_are_purged_in_time() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut request = new_user(&contoso.name, "bob");
        request.request_id = request_id();
        let users = || contoso.admin.caller.users();
        let made = users().create_user(request).await.unwrap().into_inner();
        let delete = DeleteUserRequest {
            name: made.user.unwrap().name,
            ..DeleteUserRequest::default()
        };
        users().delete_user(delete).await.unwrap();
        let now = async |table: &str| {
            count(&site.app, &format!("SELECT COUNT(*) AS n FROM {table}")).await
        };
        let bobs = "users WHERE user_name = 'bob'";
        assert_eq!(
            (
                now("claims WHERE method LIKE '%/CreateUser'").await,
                now(bobs).await
            ),
            (1, 1)
        );
        site.advance(DAY + 1).await;
        site.settle().await;
        assert_eq!(now("claims WHERE method LIKE '%/CreateUser'").await, 0);
        assert_eq!(now(bobs).await, 1);
        let old = format!(
            "sessions WHERE create_time < {}",
            site.app.now().await.unwrap() - 3_600_000_000
        );
        assert!(now(&old).await > 0);
        site.advance(45 * DAY).await;
        site.settle().await;
        assert_eq!((now(&old).await, now(bobs).await), (0, 0));
        crate::claims::chains_are_intact(&site.app).await;
    })
    .await;
}

// proves COM-20, COM-21
#[tokio::test]
async fn links_whose_time_is_over_are_purged_and_no_others() {
    both(async |site| {
        let request = new_identity("ida@mail.example");
        site.nobody().identities().sign_up(request).await.unwrap();
        mailed_token(&site, "ida@mail.example").await.unwrap();
        let links = async || count(&site.app, "SELECT COUNT(*) AS n FROM links").await;
        assert_eq!(links().await, 1);
        let expire = "SELECT MAX(expire_time) AS n FROM links";
        let left = count(&site.app, expire).await - site.app.now().await.unwrap();
        site.advance(left / 1_000_000 - 60).await;
        site.settle().await;
        assert_eq!(links().await, 1);
        site.advance(660).await;
        site.settle().await;
        assert_eq!(links().await, 0);
    })
    .await;
}
