//! Several processes over one PostgreSQL share the timed work, also when one of them is killed (COM-21).

use std::{
    collections::BTreeSet,
    fs,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    harness::{Caller, empty_postgres_database, new_tenant, new_user, psql},
    processes::{Setting, home, settle_in},
};

/// A killed replica's lease ends within so long, and its work is done by another soon after.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(60);

// proves COM-21, COM-12, COM-15
#[tokio::test]
async fn three_replicas_share_timed_work_and_one_is_killed() {
    let url = empty_postgres_database("three_replicas");
    let settings = [(); 3].map(|()| Setting::new(Some(url.clone())));
    let servers: Vec<_> = settings.iter().map(|s| s.spawn(&[])).collect();
    for (server, setting) in servers.iter().zip(&settings) {
        server.ready(setting).await;
    }
    let password = settings
        .iter()
        .find_map(|s| fs::read_to_string(s.data().join("first-administrator-password")).ok())
        .unwrap();
    let admin = settle_in(&servers[0], password.trim()).await;
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
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    servers[2].signal("-KILL");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
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
