//! Many entries: within seconds, in bounded memory, and once each although the server is killed in the middle (TEN-5).

use std::time::{Duration, Instant};

use entente::proto::directory::CreateTenantRequest;

use super::*;
use crate::{
    harness::{PASSWORD, empty_postgres_database, new_tenant},
    processes::{Server, Setting, home},
};

/// Entries of the large synchronisation; `make nightly` says more.
fn entries() -> usize {
    std::env::var("ENTENTE_SYNC_ENTRIES").map_or(10_000, |n| n.parse().unwrap())
}

/// So many users, and a group of thousands of them for each few thousand; in messages of 500.
fn directory(entries: usize) -> Vec<Vec<DirectoryEntry>> {
    let groups = entries / 2_000 + 1;
    let users = entries - groups;
    let mut all: Vec<DirectoryEntry> = (0..users).map(|n| user(&format!("u/user-{n}"))).collect();
    for g in 0..groups {
        let members: Vec<String> = (0..3_000)
            .map(|n| format!("u/user-{}", (g * 1_777 + n) % users))
            .collect();
        let members: std::collections::BTreeSet<&str> =
            members.iter().map(String::as_str).collect();
        let members: Vec<&str> = members.into_iter().collect();
        all.push(group(&format!("g/{g}"), &members));
    }
    // At most 20,000 members a message.
    let (people, groups) = all.split_at(users);
    let people = people.chunks(500).map(<[_]>::to_vec);
    people.chain(groups.chunks(6).map(<[_]>::to_vec)).collect()
}

// proves TEN-5, GRP-5
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_entries_are_taken_over_within_seconds() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        let all = directory(entries());
        let messages: Vec<_> = all.into_iter().map(|e| agent.message(e)).collect();
        let begun = Instant::now();
        let answer = sync(&agent.caller, messages).await.unwrap();
        let first = begun.elapsed();
        assert_eq!(answer.faults, []);
        let told = answer.synchronization.unwrap();
        assert_eq!(usize::try_from(told.upserted_count).unwrap(), entries());
        let sql = "SELECT COUNT(*) AS n FROM users WHERE tenant_id = $1 AND external_id <> ''";
        let groups = entries() / 2_000 + 1;
        let users = number(&site, sql, [id(&contoso.name).into()]).await;
        assert_eq!(usize::try_from(users).unwrap(), entries() - groups);
        let members_ = number(&site, "SELECT COUNT(*) AS n FROM group_members", []).await;
        assert_eq!(usize::try_from(members_).unwrap(), groups * 3_000);

        // All of it again, as an agent does that has lost its place: nothing changes.
        (agent.run, agent.sequence) = (request_id(), 0);
        let messages: Vec<_> = directory(entries())
            .into_iter()
            .map(|e| agent.message(e))
            .collect();
        let begun = Instant::now();
        sync(&agent.caller, messages).await.unwrap();
        let second = begun.elapsed();
        let updated =
            "SELECT COUNT(*) AS n FROM outbox WHERE type = 'entente.directory.v1.UserUpdated'";
        assert_eq!(number(&site, updated, []).await, 0);
        // And all of it away.
        (agent.run, agent.sequence) = (request_id(), 0);
        let messages: Vec<_> = directory(entries())
            .into_iter()
            .map(|e| e.into_iter().map(|e| gone(&e.external_id)).collect())
            .map(|e| agent.message(e))
            .collect();
        let begun = Instant::now();
        let answer = sync(&agent.caller, messages).await.unwrap();
        let third = begun.elapsed();
        let told = answer.synchronization.unwrap();
        assert_eq!(usize::try_from(told.deleted_count).unwrap(), entries());
        println!(
            "{} entries on {:?}: {first:?}, again {second:?}, away {third:?}",
            entries(),
            site.database
        );
        // A debug build on a shared machine; 10,000 take a few seconds.
        let within = Duration::from_secs(45) * u32::try_from(entries().div_ceil(10_000)).unwrap();
        assert!(first < within && second < within && third < within);
    })
    .await;
}

/// A tenant of a running program, marked as synchronised, by its administrator with its agent.
async fn tenant_of(server: &Server, operator: &Caller) -> (Caller, Agent) {
    let sign_in = async |name: &str, password: &str| {
        crate::processes::sign_in_as(server, name, password)
            .await
            .unwrap()
    };
    let request = CreateTenantRequest {
        request_id: request_id(),
        ..new_tenant("contoso")
    };
    let made = operator
        .tenants()
        .create_tenant(request)
        .await
        .unwrap()
        .into_inner();
    let once = made.temporary_password;
    let name = made.first_admin.unwrap().sign_in_name;
    let restricted = sign_in(&name, &once).await;
    let change = entente::proto::directory::ChangePasswordRequest {
        old_password: once,
        new_password: PASSWORD.to_owned(),
        request_id: String::new(),
    };
    restricted.sessions().change_password(change).await.unwrap();
    let admin = sign_in(&name, PASSWORD).await;
    let tenant = made.tenant.unwrap().name;
    let app = application(&admin, &tenant, "Agent").await;
    mark(&admin, &tenant, &app.name).await.unwrap();
    let secret = admin.key(&app.name).await.unwrap().secret;
    let agent = Agent {
        name: app.name,
        tenant,
        caller: crate::processes::sign_in_by_key(server, &app.client_id, &secret).await,
        run: request_id(),
        sequence: 0,
    };
    (admin, agent)
}

async fn killed_in_the_middle(url: Option<String>) {
    let setting = Setting::new(url);
    let mut server = setting.serve(&[]).await;
    let operator = setting.administrator(&server).await;
    assert!(!home(&operator).await.is_empty());
    let (admin, mut agent) = tenant_of(&server, &operator).await;
    let messages: Vec<SyncDirectoryRequest> = (0..400)
        .map(|n| {
            let users: Vec<_> = (0..20).map(|u| user(&format!("u/{n}-{u}"))).collect();
            let names: Vec<String> = users.iter().map(|u| u.external_id.clone()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut entries = users.clone();
            entries.push(group(&format!("g/{n}"), &names));
            agent.message(entries)
        })
        .collect();
    let stream = {
        let (caller, messages) = (agent.caller.clone(), messages.clone());
        tokio::spawn(async move { sync(&caller, messages).await })
    };
    // Once some are committed, it is killed.
    loop {
        let told = state(&admin, &agent.tenant)
            .await
            .unwrap()
            .synchronization
            .unwrap();
        if told.last_sequence >= 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.signal("-KILL");
    server.ended().await;
    assert!(
        stream.await.unwrap().is_err(),
        "it was killed before the end"
    );

    let server = setting.serve(&[]).await;
    let over = |caller: &Caller| Caller {
        channel: server.nobody().channel,
        ..caller.clone()
    };
    let (admin, caller) = (over(&admin), over(&agent.caller));
    let told = state(&caller, &agent.tenant)
        .await
        .unwrap()
        .synchronization
        .unwrap();
    assert_eq!(told.request_id, agent.run);
    let last = usize::try_from(told.last_sequence).unwrap();
    assert!((20..400).contains(&last), "{last}");
    // It goes on from there, with one that was committed sent once more.
    let rest = messages[last - 1..].to_vec();
    let answer = sync(&caller, rest).await.unwrap();
    assert_eq!(answer.faults, []);
    let told = answer.synchronization.unwrap();
    assert_eq!((told.last_sequence, told.upserted_count), (400, 400 * 21));
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = entente::proto::directory::ListUsersRequest {
            parent: agent.tenant.clone(),
            page_size: 1_000,
            page_token,
            ..Default::default()
        };
        let page = admin
            .users()
            .list_users(request)
            .await
            .unwrap()
            .into_inner();
        names.extend(page.users.into_iter().map(|u| u.user_name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    names.sort();
    let mut wanted: Vec<String> = (0..400)
        .flat_map(|n| (0..20).map(move |u| format!("{n}-{u}")))
        .chain(["ann".to_owned()])
        .collect();
    wanted.sort();
    assert_eq!(names, wanted);
    drop(server);
    let verified = setting.run(&["verify-audit"]);
    assert_eq!(verified.status.code(), Some(0));
}

// proves TEN-5, COM-4
#[tokio::test]
async fn killed_server_goes_on_where_it_was_and_each_entry_is_there_once_on_sqlite() {
    killed_in_the_middle(None).await;
}

// proves TEN-5, COM-4
#[tokio::test]
async fn killed_server_goes_on_where_it_was_and_each_entry_is_there_once_on_postgres() {
    killed_in_the_middle(Some(empty_postgres_database("sync_killed"))).await;
}

async fn memory_stays(url: Option<String>) {
    let setting = Setting::new(url);
    let server = setting.serve(&[]).await;
    let operator = setting.administrator(&server).await;
    let (_, mut agent) = tenant_of(&server, &operator).await;
    let mut total = 0;
    let mut send = async |count: usize| {
        let mut messages = Vec::new();
        for _ in 0..count {
            let users = (0..500).map(|u| user(&format!("u/{total}-{u}"))).collect();
            messages.push(agent.message(users));
            total += 1;
        }
        sync(&agent.caller, messages).await.unwrap();
    };
    // Caches and pools are warm after the first.
    send(6).await;
    let warm = server.peak_memory_kib();
    let more = entries() / 500;
    send(more).await;
    let after = server.peak_memory_kib();
    println!(
        "peak memory: {warm} KiB, {after} KiB after {} entries more",
        more * 500
    );
    // Not by the number of entries: they would be several times as much.
    assert!(after < warm + 24 * 1_024, "{warm} KiB, then {after} KiB");
}

// proves TEN-5
#[tokio::test]
async fn memory_does_not_grow_with_the_number_of_entries_on_sqlite() {
    memory_stays(None).await;
}

// proves TEN-5
#[tokio::test]
async fn memory_does_not_grow_with_the_number_of_entries_on_postgres() {
    memory_stays(Some(empty_postgres_database("sync_memory"))).await;
}
