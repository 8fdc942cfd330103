//! Calls that share a commit: whatever one of them does, the others are answered as if it weren't there (COM-4, COM-13).

use std::{cell::OnceCell, sync::atomic::Ordering, time::Duration};

use entente::{
    access::{rules, scope::Proof},
    app::{App, Call, Outcome, Outside, Tx},
    directory::user,
    error::{Error, Reason, Result},
    proto::{
        access::AccountRole,
        directory::{
            AssignDirectoryRolesRequest, CreateUserRequest, CreateUserResponse, DirectoryRole,
        },
    },
    store::{sql, writes::VIEWS},
};
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{
    claims::{chains_are_intact, count, replayed},
    half_done::{At, Cut, Kind, Rows, Stage, dropped_after, idle, interrupt, told_to_try_again},
    harness::{Database, Site, both, membership, new_user, refused, request_id},
};

type Answer = Result<(CreateUserResponse, bool)>;

/// What is wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    /// Nothing.
    Not,
    /// It fails before it wrote.
    FailsUnwritten,
    /// It fails when it has rows that wait.
    FailsWaiting,
    /// It fails when it has written.
    FailsWritten,
    /// The name is that of another user.
    Taken,
    /// A statement of it fails.
    StatementFails,
    /// A statement of it fails, and it goes on.
    FaultSwallowed,
    /// It panics.
    Panics,
    /// It never ends.
    Late,
    /// Its caller leaves while it is at work.
    Gone,
    /// Its caller has left before its turn.
    GoneBefore,
}

/// The function of a call.
fn run(
    bad: Bad,
    gone: CancellationToken,
) -> impl for<'a> Fn(
    &'a mut Tx,
    Proof,
    CreateUserRequest,
    (),
) -> BoxFuture<'a, Result<Outcome<CreateUserResponse>>>
+ Send
+ Sync
+ 'static {
    move |tx, proof, request, ()| {
        let gone = gone.clone();
        Box::pin(async move {
            let failed = || Error::precondition(Reason::LastManager);
            let tenant = proof.tenant()?;
            if bad == Bad::FailsUnwritten {
                return Err(failed());
            }
            if bad == Bad::FaultSwallowed {
                let nonsense = sql::execute(tx.db(), "SELECT nothing FROM nowhere", []).await;
                nonsense.unwrap_err();
            }
            let made = user::create_user(tx, tenant, request).await?;
            match bad {
                Bad::FailsWaiting => return Err(failed()),
                Bad::FailsWritten => {
                    let write = "UPDATE meta SET value = 'spoilt' WHERE key = 'epoch'";
                    sql::execute(tx.db(), write, []).await?;
                    return Err(failed());
                }
                Bad::StatementFails => {
                    sql::execute(tx.db(), "SELECT nothing FROM nowhere", []).await?;
                }
                Bad::Panics => panic!("a function of the test panics"),
                Bad::Late => std::future::pending().await,
                Bad::Gone => {
                    gone.cancel();
                    std::future::pending().await
                }
                _ => {}
            }
            Ok(Outcome::Done(made))
        })
    }
}

fn request(stage: &Stage, name: &str) -> CreateUserRequest {
    CreateUserRequest {
        request_id: request_id(),
        ..new_user(&stage.tenant, name)
    }
}

/// Nothing is prepared.
fn nothing<'a>(_: &'a Outside, _: Proof, _: &'a CreateUserRequest) -> BoxFuture<'a, Result<()>> {
    Box::pin(async { Ok(()) })
}

/// A call, not yet begun.
fn call(
    stage: &Stage,
    request: CreateUserRequest,
    bad: Bad,
) -> impl Future<Output = Answer> + Send + 'static {
    let gone = CancellationToken::new();
    let within = if bad == Bad::Late { 1_500 } else { 60_000 };
    let (app, caller) = (stage.app.clone(), stage.who.clone());
    async move {
        let call = Call {
            rule: rules::of_path("/entente.directory.v1.UserService/CreateUser").unwrap(),
            caller,
            deadline: tokio::time::Instant::now() + Duration::from_millis(within),
            gone: gone.clone(),
        };
        if bad == Bad::GoneBefore {
            let (gone, app) = (gone.clone(), app.clone());
            let before = app.lanes.present();
            tokio::spawn(async move {
                while app.lanes.present() == before {
                    tokio::task::yield_now().await;
                }
                gone.cancel();
            });
        }
        app.mutate(&call, request, nothing, run(bad, gone)).await
    }
}

/// Waits until so many calls wait.
async fn present(app: &App, n: usize) {
    while app.lanes.present() < n {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Calls that wait for each other, in this order, and are let go at once.
async fn together(app: &App, calls: Vec<BoxFuture<'static, Answer>>) -> Vec<JoinHandle<Answer>> {
    let held = app.lanes.hold().await.unwrap();
    let mut tasks = Vec::new();
    for (n, call) in calls.into_iter().enumerate() {
        tasks.push(tokio::spawn(call));
        present(app, n + 1).await;
    }
    drop(held);
    tasks
}

/// How many statements did so.
fn made(site: &Site, what: &str) -> usize {
    let told = site.statements.told();
    told.iter().filter(|sql| sql.contains(what)).count()
}

const WRITES_AUDIT: &str = "INSERT INTO audit_events";

/// Holds what a bad call answered, alone after all, against what it is to answer.
fn answered(
    database: Database,
    bad: Bad,
    answer: std::result::Result<Answer, tokio::task::JoinError>,
) {
    if bad == Bad::Panics {
        assert!(answer.unwrap_err().is_panic());
        return;
    }
    let answer = answer.unwrap();
    let wanted = match bad {
        Bad::Not => None,
        // A transaction of PostgreSQL that had a fault can't go on; SQLite's can.
        Bad::FaultSwallowed if database == Database::Sqlite => None,
        Bad::FailsUnwritten | Bad::FailsWaiting | Bad::FailsWritten => {
            Some((Code::FailedPrecondition, Reason::LastManager))
        }
        Bad::Taken => Some((Code::AlreadyExists, Reason::UserNameTaken)),
        Bad::StatementFails | Bad::FaultSwallowed | Bad::Panics => {
            Some((Code::Internal, Reason::Internal))
        }
        Bad::Late => Some((Code::DeadlineExceeded, Reason::DeadlinePassed)),
        Bad::Gone | Bad::GoneBefore => Some((Code::Cancelled, Reason::CallCancelled)),
    };
    match (answer, wanted) {
        (Ok((_, replayed)), None) => assert!(!replayed),
        (Err(error), Some(wanted)) => assert_eq!((error.code(), error.reason()), wanted, "{error}"),
        (answer, _) => panic!("{bad:?}: {answer:?}"),
    }
}

// proves COM-4, COM-13
#[tokio::test]
async fn four_good_calls_of_a_batch_are_answered_as_if_the_bad_one_were_not_there() {
    both(async |mut site| {
        let mut stage = Stage::of(&mut site).await;
        stage.app.lanes.be_patient();
        let whole = stage.whole(Kind::Create).await;
        for bad in [
            Bad::Not,
            Bad::FailsUnwritten,
            Bad::FailsWaiting,
            Bad::FailsWritten,
            Bad::Taken,
            Bad::StatementFails,
            Bad::FaultSwallowed,
            Bad::Panics,
            Bad::Late,
            Bad::Gone,
            Bad::GoneBefore,
        ] {
            for at in [0, 2, 4] {
                println!("{bad:?} at place {at}");
                let mut calls: Vec<BoxFuture<'static, Answer>> = Vec::new();
                for n in 0..5 {
                    let bad = if n == at { bad } else { Bad::Not };
                    let name = match bad {
                        Bad::Taken => "three0".to_owned(),
                        _ => format!("good-{}", request_id()),
                    };
                    calls.push(Box::pin(call(&stage, request(&stage, &name), bad)));
                }
                let before = Rows::of(&stage.app).await;
                site.statements.start().await;
                let bad_done = bad == Bad::Not
                    || (bad == Bad::FaultSwallowed && site.database == Database::Sqlite);
                let held = stage.app.lanes.hold().await.unwrap();
                let mut tasks = Vec::new();
                for (n, call) in calls.into_iter().enumerate() {
                    tasks.push(tokio::spawn(call));
                    // Who is there no more keeps its place until its turn.
                    present(&stage.app, n + 1).await;
                    while bad == Bad::GoneBefore && n == at && !tasks[n].is_finished() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                drop(held);
                for (n, task) in tasks.into_iter().enumerate() {
                    let bad = if n == at { bad } else { Bad::Not };
                    answered(site.database, bad, task.await);
                }
                if matches!(bad, Bad::Not | Bad::FailsUnwritten | Bad::GoneBefore) {
                    // A slow machine may make two batches of them.
                    let commits = made(&site, WRITES_AUDIT);
                    assert!((1..4).contains(&commits), "{commits} commits");
                }
                idle(&stage.app).await;
                let added = Rows::of(&stage.app).await.since(&before);
                assert_eq!(added, whole.times(4 + i64::from(bad_done)), "{bad:?}");
                chains_are_intact(&stage.app).await;
            }
        }
        let spoilt = "SELECT COUNT(*) AS n FROM meta WHERE value = 'spoilt'";
        assert_eq!(count(&stage.app, spoilt).await, 0);
    })
    .await;
}

// proves COM-4
#[tokio::test]
async fn same_request_twice_in_a_batch_has_one_effect_and_two_equal_answers() {
    both(async |mut site| {
        let mut stage = Stage::of(&mut site).await;
        let whole = stage.whole(Kind::Create).await;
        let before = Rows::of(&stage.app).await;
        let one = request(&stage, "one");
        let mut other = request(&stage, "other");
        other.request_id.clone_from(&one.request_id);
        let calls = [one.clone(), one.clone(), other, one.clone()].map(|request| {
            let call = call(&stage, request, Bad::Not);
            Box::pin(call) as BoxFuture<'static, Answer>
        });
        let mut answers = Vec::new();
        for task in together(&stage.app, calls.into()).await {
            answers.push(task.await.unwrap());
        }
        let reused = answers.remove(2).unwrap_err();
        assert_eq!(
            (reused.code(), reused.reason()),
            (Code::InvalidArgument, Reason::RequestIdReused)
        );
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert!(!answers[0].0.temporary_password.is_empty());
        assert_eq!(
            answers.iter().map(|a| a.1).collect::<Vec<_>>(),
            [false, true, true]
        );
        for (answer, _) in &answers {
            assert_eq!(answer.user, answers[0].0.user);
        }
        assert_eq!(Rows::of(&stage.app).await.since(&before), whole);
    })
    .await;
}

// proves COM-4, COM-13
#[tokio::test]
async fn caller_that_leaves_a_batch_at_any_poll_takes_nobody_along() {
    both(async |mut site| {
        let mut stage = Stage::of(&mut site).await;
        let whole = stage.whole(Kind::Create).await;
        let (mut dropped, mut polls) = (0, 0);
        loop {
            let mut all_answered = true;
            for at in [At::Wait, At::Wake] {
                stage.app.memory.forget();
                let before = Rows::of(&stage.app).await;
                let held = stage.app.lanes.hold().await.unwrap();
                let mut good = Vec::new();
                let leaving = request(&stage, &format!("leaving-{}", request_id()));
                let left = {
                    let call = call(&stage, leaving.clone(), Bad::Not);
                    tokio::spawn(dropped_after(polls, at, call))
                };
                for n in 0..4 {
                    let name = format!("good-{}", request_id());
                    good.push(tokio::spawn(call(&stage, request(&stage, &name), Bad::Not)));
                    present(&stage.app, n + 1).await;
                }
                drop(held);
                for task in good {
                    assert!(!task.await.unwrap().unwrap().1);
                }
                match left.await.unwrap().0 {
                    Some(answer) => assert!(!answer.unwrap().1),
                    None => {
                        dropped += 1;
                        all_answered = false;
                    }
                }
                idle(&stage.app).await;
                let added = Rows::of(&stage.app).await.since(&before);
                let done = added == whole.times(5);
                assert!(done || added == whole.times(4), "{added:?}");
                let again = call(&stage, leaving, Bad::Not).await.unwrap();
                assert_eq!(again.1, done, "after {polls} polls, at {at:?}");
                chains_are_intact(&stage.app).await;
            }
            polls += 1;
            if all_answered {
                break;
            }
        }
        assert!(dropped >= 4, "{dropped}");
    })
    .await;
}

/// Five calls in one batch, whose database is broken by `arm` before it begins; each has one effect, now or when it is repeated. Gives how
/// many were answered with an error, and how many had been done in spite of it.
async fn five_over_a_broken_database(
    stage: &Stage,
    whole: &Rows,
    what: &str,
    arm: impl AsyncFnOnce(),
    disarm: impl FnOnce(),
) -> (i64, i64) {
    let before = Rows::of(&stage.app).await;
    idle(&stage.app).await;
    let held = stage.app.lanes.hold().await.unwrap();
    let (mut tasks, mut requests) = (Vec::new(), Vec::new());
    for n in 0..5 {
        let request = request(stage, &format!("user-{}", request_id()));
        tasks.push(tokio::spawn(call(stage, request.clone(), Bad::Not)));
        requests.push(request);
        present(&stage.app, n + 1).await;
    }
    arm().await;
    drop(held);
    let (mut failed, mut found) = (0, 0);
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    disarm();
    for (answer, request) in answers.into_iter().zip(requests) {
        match answer {
            Ok((made, replayed)) => {
                // Whoever made it is given its secret.
                assert!(!replayed && !made.temporary_password.is_empty(), "{what}");
            }
            Err(error) => {
                told_to_try_again(&error, what);
                failed += 1;
                let again = call(stage, request, Bad::Not).await.unwrap();
                found += i64::from(again.1);
            }
        }
    }
    idle(&stage.app).await;
    let added = Rows::of(&stage.app).await.since(&before);
    assert_eq!(added, whole.times(5), "{what}");
    chains_are_intact(&stage.app).await;
    (failed, found)
}

// proves COM-4, COM-13
#[tokio::test]
async fn statement_that_fails_in_a_batch_on_sqlite_spoils_it_for_nobody() {
    let mut site = Site::open(Database::Sqlite).await;
    let mut stage = Stage::of(&mut site).await;
    stage.app.lanes.be_patient();
    let whole = stage.whole(Kind::Create).await;
    for steps in [0, 40, 300] {
        for statements in 0.. {
            let what = format!("interrupted after {statements} statements and {steps} steps");
            let left = OnceCell::new();
            let arm = async || {
                left.set(interrupt(&site, statements, steps).await).unwrap();
            };
            let mut reached = false;
            let disarm = || reached = left.get().unwrap().swap(i64::MAX, Ordering::SeqCst) < 0;
            let (failed, found) =
                five_over_a_broken_database(&stage, &whole, &what, arm, disarm).await;
            // Each ran again by itself, unless it was the commit that failed.
            assert!(
                (failed == 0 || failed == 5) && found == 0,
                "{what}: {failed} {found}"
            );
            if !reached {
                assert!(statements > 4, "only {statements} failed");
                break;
            }
        }
    }
}

// proves COM-4, COM-13
#[tokio::test]
async fn connection_cut_in_a_batch_takes_nothing_of_it_along() {
    let mut site = Site::open(Database::Postgres).await;
    let mut stage = Stage::of(&mut site).await;
    let (cutter, _folder) = stage.through_a_cutter(&site).await;
    let whole = stage.whole(Kind::Create).await;
    let mut cuts = 0;
    for cut in [Cut::Before, Cut::After] {
        let mut whole_in_a_row = 0;
        for n in 1.. {
            let what = format!("cut {cut:?} message {n}");
            let mut reached = false;
            let (arm, disarm) = (async || cutter.arm(n, cut), || reached = cutter.disarm());
            five_over_a_broken_database(&stage, &whole, &what, arm, disarm).await;
            cuts += i32::from(reached);
            whole_in_a_row = if reached { 0 } else { whole_in_a_row + 1 };
            if whole_in_a_row == 2 {
                break;
            }
        }
    }
    assert!(cuts > 16, "only {cuts} were cut");
}

// proves ROL-10, COM-2
#[tokio::test]
async fn call_of_a_batch_sees_what_those_before_it_took_away() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person_with(&contoso, "bob", |request| {
            let user = request.user.as_mut().unwrap();
            user.directory_roles = vec![DirectoryRole::GlobalAdmin as i32];
            user.recovery_email = "bob@contoso.example".to_owned();
        });
        let bob = bob.await;
        let held = site.app.lanes.hold().await.unwrap();
        let assign = AssignDirectoryRolesRequest {
            name: bob.name.clone(),
            request_id: request_id(),
            ..AssignDirectoryRolesRequest::default()
        };
        let mut users = contoso.admin.caller.users();
        let taken = tokio::spawn(async move { users.assign_directory_roles(assign).await });
        present(&site.app, 1).await;
        let (mut users, request) = (bob.caller.users(), new_user(&contoso.name, "carol"));
        let made = tokio::spawn(async move { users.create_user(request).await });
        present(&site.app, 2).await;
        drop(held);
        taken.await.unwrap().unwrap();
        let made = made.await.unwrap();
        refused(made, Code::PermissionDenied, "PERMISSION_MISSING");
        let carols = "SELECT COUNT(*) AS n FROM users WHERE user_name = 'carol'";
        assert_eq!(count(&site.app, carols).await, 0);
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves COM-4
#[tokio::test]
async fn every_view_is_known_to_what_sends_rows_that_wait() {
    both(async |site| {
        let sql = match site.database {
            Database::Postgres => {
                "SELECT CAST(viewname AS text) AS name FROM pg_views WHERE schemaname = 'public' ORDER BY name"
            }
            Database::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name",
        };
        let rows = sql::rows_of(&site.app.db.read, sql, []).await.unwrap();
        let names: Vec<String> = rows.iter().map(|r| r.try_get("", "name").unwrap()).collect();
        assert_eq!(names, VIEWS);
    })
    .await;
}

/// So many call at once, each so often.
const CALLERS: usize = 64;
const CALLS: usize = 4;

// proves COM-10, COM-11, COM-12
#[tokio::test]
async fn chains_and_numbers_of_a_hot_tenant_have_no_gaps_and_time_follows_them() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        site.statements.start().await;
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            let (ann, tenant) = (contoso.admin.caller.clone(), contoso.name.clone());
            let account = account.clone();
            tasks.spawn(async move {
                for n in 0..CALLS {
                    let mut request = CreateUserRequest {
                        request_id: request_id(),
                        ..new_user(&tenant, &format!("u{caller}x{n}"))
                    };
                    if n == 0 {
                        // Two scopes are locked, one of them late.
                        request.memberships = vec![membership(&account, &[AccountRole::Developer])];
                    }
                    let mut users = ann.users();
                    let made = users.create_user(request.clone()).await.unwrap();
                    assert!(!replayed(&made));
                    if n == 1 {
                        assert!(replayed(&users.create_user(request).await.unwrap()));
                    }
                }
            });
        }
        tasks.join_all().await;
        let commits = made(&site, WRITES_AUDIT);
        assert!(commits < CALLERS * CALLS, "nothing shared a commit");
        chains_are_intact(&site.app).await;
        let gaps = "SELECT COUNT(*) AS n FROM (SELECT scope_kind, scope_id FROM outbox GROUP BY scope_kind, scope_id \
                    HAVING COUNT(*) <> MAX(scope_seq) OR MIN(scope_seq) <> 1) x";
        assert_eq!(count(&site.app, gaps).await, 0);
        let unordered = "SELECT COUNT(*) AS n FROM (SELECT create_time, \
                         LAG(create_time) OVER (PARTITION BY scope_kind, scope_id ORDER BY seq) AS before FROM audit_events) x \
                         WHERE before >= create_time";
        assert_eq!(count(&site.app, unordered).await, 0);
        let made = "SELECT COUNT(*) AS n FROM users WHERE user_name LIKE 'u%x%'";
        assert_eq!(count(&site.app, made).await, (CALLERS * CALLS) as i64);
    })
    .await;
}
