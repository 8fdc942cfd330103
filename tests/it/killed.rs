//! The real program, killed in the midst of many calls: what was acknowledged is there, with all that tells of it, and nothing is half done.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use entente::proto::{
    audit::ListAuditEventsRequest,
    directory::{CreateUserRequest, ListUsersRequest, User},
};

use crate::{
    claims::replayed,
    events::{last_cursor, open, watch},
    harness::{Caller, PASSWORD, empty_postgres_database, new_user, request_id},
    people::eventually,
    processes::{Setting, home, sign_in, text},
};

/// What the writers were told before the end.
#[derive(Default)]
struct Told {
    acknowledged: Vec<CreateUserRequest>,
    unknown: Vec<CreateUserRequest>,
}

/// So many that calls share commits.
const WRITERS: usize = 24;

/// All users of a tenant.
async fn all_users(caller: &Caller, tenant: &str) -> Vec<User> {
    let (mut users, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListUsersRequest {
            parent: tenant.to_owned(),
            page_size: 1_000,
            page_token,
            ..ListUsersRequest::default()
        };
        let page = caller.users().list_users(request).await.unwrap();
        let page = page.into_inner();
        users.extend(page.users);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return users;
        }
    }
}

/// Holds the users of a tenant, but for the first administrator, against the events and the audit that tell of them: of each one's making
/// either tells once, and of nobody else's. Gives their names.
async fn told_alike(caller: &Caller, tenant: &str) -> BTreeSet<String> {
    let users = all_users(caller, tenant).await.into_iter();
    let (first, made): (Vec<_>, Vec<_>) = users.partition(|u| u.user_name == "admin");
    let made: BTreeSet<_> = made.into_iter().map(|u| u.name).collect();
    let once = |mut told: Vec<String>, what: &str| {
        told.sort();
        assert!(told.iter().eq(&made), "{what}: {told:?}, not {made:?}");
    };

    let action = "entente.directory.v1.UserService/CreateUser";
    let (mut audited, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListAuditEventsRequest {
            parent: tenant.to_owned(),
            page_size: 1_000,
            page_token,
            filter: format!("action = \"{action}\" AND outcome = \"OK\""),
            ..ListAuditEventsRequest::default()
        };
        let page = caller.audit().list_audit_events(request).await.unwrap();
        let page = page.into_inner();
        let users = page.audit_events.into_iter().flat_map(|e| e.resources);
        audited.extend(users.filter(|name| name.contains("/users/")));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    once(audited, "audit");

    let until = last_cursor(caller, tenant).await;
    let mut watched = open(caller, watch(tenant, "")).await.unwrap();
    let (mut created, mut seen) = (Vec::new(), String::new());
    while seen != until {
        let message = tokio::time::timeout(Duration::from_secs(60), watched.message()).await;
        let message = message.unwrap().unwrap().unwrap();
        seen = message.cursor;
        let users = message.events.into_iter();
        let users = users.filter(|e| e.r#type == "entente.directory.v1.UserCreated");
        created.extend(users.map(|e| e.resource));
    }
    created.retain(|name| *name != first[0].name);
    once(created, "events");
    made
}

async fn killed_in_the_middle(url: Option<String>) {
    let setting = Setting::new(url);
    let mut server = setting.serve(&[]).await;
    let admin = setting.administrator(&server).await;
    let tenant = home(&admin).await;
    let told = Arc::new(Mutex::new(Told::default()));
    let mut writers = tokio::task::JoinSet::new();
    for w in 0..WRITERS {
        let (admin, tenant, told) = (admin.clone(), tenant.clone(), told.clone());
        writers.spawn(async move {
            for n in 0.. {
                let request = CreateUserRequest {
                    request_id: request_id(),
                    ..new_user(&tenant, &format!("w{w}n{n}"))
                };
                let answer = admin.users().create_user(request.clone()).await;
                let mut told = told.lock().unwrap();
                if answer.is_ok() {
                    told.acknowledged.push(request);
                } else {
                    told.unknown.push(request);
                    return;
                }
            }
        });
    }
    eventually(async || told.lock().unwrap().acknowledged.len() > 50).await;
    server.signal("-KILL");
    server.ended().await;
    writers.join_all().await;

    let server = setting.serve(&[]).await;
    let tokens = sign_in(&server, PASSWORD).await.unwrap();
    let admin = Caller {
        token: Some(tokens.access_token),
        ..server.nobody()
    };
    let Told {
        acknowledged,
        unknown,
    } = std::mem::take(&mut *told.lock().unwrap());
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    assert_eq!(unknown.len(), WRITERS);
    // What the crash left has all that belongs to it, before anybody asks again.
    let left = told_alike(&admin, &tenant).await;
    // Whoever was told of success finds it under the same ID; who wasn't finds it or makes it, once.
    for request in &acknowledged {
        let again = admin.users().create_user(request.clone()).await.unwrap();
        assert!(replayed(&again));
        let user = again.into_inner().user.unwrap();
        assert!(left.contains(&user.name), "{} was lost", user.user_name);
    }
    let mut found = 0;
    for request in &unknown {
        let again = admin.users().create_user(request.clone()).await.unwrap();
        found += usize::from(replayed(&again));
    }
    assert_eq!(left.len(), acknowledged.len() + found);
    let all = told_alike(&admin, &tenant).await;
    assert_eq!(all.len(), acknowledged.len() + unknown.len());
    let users = all_users(&admin, &tenant).await;
    let mut names: Vec<_> = users.into_iter().map(|u| u.user_name).collect();
    let mut wanted: Vec<_> = acknowledged
        .iter()
        .chain(&unknown)
        .map(|r| r.user.as_ref().unwrap().user_name.clone())
        .chain(["admin".to_owned()])
        .collect();
    names.sort();
    wanted.sort();
    assert_eq!(names, wanted);
    drop(server);
    let verified = setting.run(&["verify-audit"]);
    assert_eq!(
        verified.status.code(),
        Some(0),
        "{}",
        text(&verified.stderr)
    );
}

// proves COM-4, COM-10, COM-11, COM-12
#[tokio::test]
async fn killed_server_keeps_what_it_acknowledged_and_nothing_half_on_sqlite() {
    killed_in_the_middle(None).await;
}

// proves COM-4, COM-10, COM-11, COM-12
#[tokio::test]
async fn killed_server_keeps_what_it_acknowledged_and_nothing_half_on_postgres() {
    killed_in_the_middle(Some(empty_postgres_database("killed"))).await;
}
