//! Domain events and their watchers (COM-12).

use std::time::Duration;

use entente::proto::{
    audit::{DomainEvent, GetLastCursorRequest, WatchEventsRequest, WatchEventsResponse},
    directory::{
        AssignDirectoryRolesRequest, CreateApplicationRequest, CreateKeyRequest, DirectoryRole,
        KeyCredential, SignInRequest, UpdateUserRequest, User, sign_in_request::Credential,
    },
    operator::{AssignOperatorRolesRequest, OperatorRole},
};
use tonic::{Code, Status, Streaming};

use crate::{
    claims::count,
    harness::{Caller, Database, Site, TenantSite, both, new_user, refused},
};

const USER_CREATED: &str = "entente.directory.v1.UserCreated";
const DAY: i64 = 86_400;

fn watch(parent: &str, cursor: &str) -> WatchEventsRequest {
    WatchEventsRequest {
        parent: parent.to_owned(),
        cursor: cursor.to_owned(),
        ..WatchEventsRequest::default()
    }
}

async fn open(
    caller: &Caller,
    request: WatchEventsRequest,
) -> Result<Streaming<WatchEventsResponse>, Status> {
    let opened = caller.events().watch_events(request).await;
    opened.map(tonic::Response::into_inner)
}

async fn next(
    stream: &mut Streaming<WatchEventsResponse>,
) -> Result<Option<WatchEventsResponse>, Status> {
    let message = tokio::time::timeout(Duration::from_secs(20), stream.message()).await;
    message.expect("the stream says nothing")
}

/// Reads so many events.
async fn take(stream: &mut Streaming<WatchEventsResponse>, n: usize) -> Vec<DomainEvent> {
    let mut events = Vec::new();
    while events.len() < n {
        events.extend(next(stream).await.unwrap().unwrap().events);
    }
    events
}

async fn last_cursor(caller: &Caller, parent: &str) -> String {
    let parent = parent.to_owned();
    let request = GetLastCursorRequest { parent };
    let answer = caller.events().get_last_cursor(request).await.unwrap();
    answer.into_inner().cursor
}

/// Creates users by many at once.
async fn write(tenant: &TenantSite, prefix: &str, n: usize) {
    let mut writers = tokio::task::JoinSet::new();
    for i in 0..n {
        let caller = tenant.admin.caller.clone();
        let request = new_user(&tenant.name, &format!("{prefix}{i}"));
        writers.spawn(async move { caller.users().create_user(request).await.unwrap() });
    }
    writers.join_all().await;
}

/// A service of the operator's that may watch all events.
async fn service(site: &Site) -> Caller {
    let operator = site.operator().await;
    let me = operator
        .sessions()
        .who_am_i(entente::proto::directory::WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();
    let application = CreateApplicationRequest {
        parent: me.tenant.unwrap().name,
        application: Some(entente::proto::directory::Application {
            display_name: "Watcher".to_owned(),
            ..Default::default()
        }),
        ..CreateApplicationRequest::default()
    };
    let made = operator
        .applications()
        .create_application(application)
        .await;
    let made = made.unwrap().into_inner();
    let roles = AssignOperatorRolesRequest {
        principal: made.name.clone(),
        roles: vec![OperatorRole::OperatorService as i32],
        ..AssignOperatorRolesRequest::default()
    };
    operator.staff().assign_operator_roles(roles).await.unwrap();
    let key = CreateKeyRequest {
        parent: made.name,
        ..CreateKeyRequest::default()
    };
    let key = operator.applications().create_key(key).await.unwrap();
    let request = SignInRequest {
        credential: Some(Credential::Key(KeyCredential {
            client_id: made.client_id,
            secret: key.into_inner().secret,
        })),
        request_id: String::new(),
    };
    let tokens = site.nobody().sessions().sign_in(request).await.unwrap();
    site.with_token(&tokens.into_inner().access_token)
}

// proves COM-12
#[tokio::test]
async fn events_of_a_scope_are_gapless_and_each_is_delivered_in_order() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let from = last_cursor(admin, &contoso.name).await;
        // One watches while it happens, one comes after.
        let mut live = open(admin, watch(&contoso.name, &from)).await.unwrap();
        let writing = write(&contoso, "user", 32);
        let (seen, ()) = tokio::join!(take(&mut live, 32), writing);
        let mut late = open(admin, watch(&contoso.name, &from)).await.unwrap();
        assert_eq!(take(&mut late, 32).await, seen);
        let mut resources: Vec<_> = seen.iter().map(|e| e.resource.clone()).collect();
        resources.sort();
        resources.dedup();
        assert_eq!(resources.len(), 32);
        assert!(seen.iter().all(|e| e.r#type == USER_CREATED && e.actor == contoso.admin.name));
        // From the cursor of each event the watcher goes on with the next one.
        let mut rest = open(admin, watch(&contoso.name, &seen[9].cursor)).await.unwrap();
        assert_eq!(take(&mut rest, 22).await, seen[10..]);
        let gaps = "SELECT COUNT(*) AS n FROM (SELECT scope_id FROM outbox GROUP BY scope_kind, scope_id \
                    HAVING COUNT(*) <> MAX(scope_seq) OR MIN(scope_seq) <> 1) g";
        assert_eq!(count(&site.app, gaps).await, 0);
    })
    .await;
}

// proves COM-12
#[tokio::test]
async fn operators_watcher_sees_every_event_once_in_the_relays_order() {
    both(async |site| {
        let watcher = service(&site).await;
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let unnumbered = "SELECT COUNT(*) AS n FROM outbox WHERE is_first AND global_seq IS NULL";
        while count(&site.app, unnumbered).await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let from = last_cursor(&watcher, "operator").await;
        let mut live = open(&watcher, watch("operator", &from)).await.unwrap();
        let writing = async {
            tokio::join!(write(&contoso, "a", 12), write(&fabrikam, "b", 12));
        };
        let (seen, ()) = tokio::join!(take(&mut live, 24), writing);
        let mut ids: Vec<_> = seen.iter().map(|e| e.event_id.clone()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 24);
        let mut late = open(&watcher, watch("operator", &from)).await.unwrap();
        assert_eq!(take(&mut late, 24).await, seen);
        let gaps = "SELECT MAX(global_seq) - COUNT(*) AS n FROM outbox WHERE is_first";
        assert_eq!(count(&site.app, gaps).await, 0);
        refused(
            open(&contoso.admin.caller, watch("operator", ""))
                .await
                .map(|_| ()),
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
    })
    .await;
}

// proves COM-12
#[tokio::test]
async fn foreign_and_broken_cursors_are_expired() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let admin = &contoso.admin.caller;
        let foreign = last_cursor(&fabrikam.admin.caller, &fabrikam.name).await;
        let own = last_cursor(admin, &contoso.name).await;
        open(admin, watch(&contoso.name, &own)).await.unwrap();
        for cursor in [foreign.as_str(), "x", "AAAA", &own[1..]] {
            let answer = open(admin, watch(&contoso.name, cursor)).await.map(|_| ());
            refused(answer, Code::OutOfRange, "CURSOR_EXPIRED");
        }
        // A restored database has another epoch.
        let other = Site::open(Database::Sqlite).await;
        let elsewhere = other.tenant("contoso").await;
        let cursor = last_cursor(&elsewhere.admin.caller, &elsewhere.name).await;
        let answer = open(admin, watch(&contoso.name, &cursor)).await.map(|_| ());
        refused(answer, Code::OutOfRange, "CURSOR_EXPIRED");
    })
    .await;
}

// proves COM-12
#[tokio::test]
async fn filters_leave_out_and_cursors_move_on_all_the_same() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let admin = &contoso.admin.caller;
        let from = last_cursor(admin, &contoso.name).await;
        let update = UpdateUserRequest {
            user: Some(User {
                name: bob.name.clone(),
                given_name: "Robert".to_owned(),
                ..User::default()
            }),
            ..UpdateUserRequest::default()
        };
        admin.users().update_user(update).await.unwrap();
        write(&contoso, "user", 2).await;
        let mut by_resource = watch(&contoso.name, &from);
        by_resource.resource = bob.name.clone();
        let seen = take(&mut open(admin, by_resource).await.unwrap(), 1).await;
        assert_eq!(seen[0].r#type, "entente.directory.v1.UserUpdated");
        let changes = seen[0].changes.as_ref().unwrap();
        assert!(changes.fields.contains_key("given_name"), "{changes:?}");

        let mut by_type = watch(&contoso.name, &from);
        by_type.types = vec![USER_CREATED.to_owned()];
        let seen = take(&mut open(admin, by_type).await.unwrap(), 2).await;
        assert!(seen.iter().all(|e| e.r#type == USER_CREATED));

        let mut none = watch(&contoso.name, &from);
        none.types = vec!["entente.directory.v1.Nothing".to_owned()];
        let message = next(&mut open(admin, none).await.unwrap()).await;
        let message = message.unwrap().unwrap();
        assert_eq!(message.events, []);
        assert_eq!(message.cursor, last_cursor(admin, &contoso.name).await);
    })
    .await;
}

// proves COM-1, COM-12
#[tokio::test]
async fn stream_ends_with_the_refusal_when_the_right_is_taken() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site
            .person_with(&contoso, "bob", |request| {
                let user = request.user.as_mut().unwrap();
                user.directory_roles = vec![DirectoryRole::GlobalAdmin as i32];
                user.recovery_email = "bob@contoso.example".to_owned();
            })
            .await;
        let from = last_cursor(&bob.caller, &contoso.name).await;
        let mut stream = open(&bob.caller, watch(&contoso.name, &from))
            .await
            .unwrap();
        next(&mut stream).await.unwrap();
        let take_away = AssignDirectoryRolesRequest {
            name: bob.name.clone(),
            ..AssignDirectoryRolesRequest::default()
        };
        let mut users = contoso.admin.caller.users();
        users.assign_directory_roles(take_away).await.unwrap();
        let end = loop {
            match next(&mut stream).await {
                Ok(Some(message)) => {
                    assert_eq!(message.events, [], "nothing after the right ended")
                }
                Ok(None) => panic!("it ended without a status"),
                Err(status) => break status,
            }
        };
        refused::<()>(Err(end), Code::PermissionDenied, "PERMISSION_MISSING");
    })
    .await;
}

// proves COM-12
#[tokio::test]
async fn events_are_kept_for_90_days() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let from = last_cursor(&contoso.admin.caller, &contoso.name).await;
        write(&contoso, "user", 3).await;
        site.settle().await;
        let of_tenant =
            "SELECT COUNT(*) AS n FROM outbox WHERE type = 'entente.directory.v1.UserCreated'";
        let before = count(&site.app, of_tenant).await;
        site.advance(89 * DAY).await;
        site.settle().await;
        assert_eq!(count(&site.app, of_tenant).await, before);
        site.advance(2 * DAY).await;
        site.settle().await;
        assert_eq!(count(&site.app, of_tenant).await, 0);
        let ann = site
            .sign_in(&contoso.admin.sign_in_name, crate::harness::PASSWORD)
            .await;
        let old = open(&ann, watch(&contoso.name, &from)).await.map(|_| ());
        refused(old, Code::OutOfRange, "CURSOR_EXPIRED");
        // Who begins anew gets what comes.
        let mut stream = open(&ann, watch(&contoso.name, "")).await.unwrap();
        ann.users()
            .create_user(new_user(&contoso.name, "new"))
            .await
            .unwrap();
        let seen = take(&mut stream, 1).await;
        assert_eq!(seen.last().unwrap().r#type, USER_CREATED);
    })
    .await;
}

// proves COM-12
#[tokio::test]
async fn cursors_of_before_a_restore_are_refused() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let events = || contoso.admin.caller.events();
        let request = GetLastCursorRequest {
            parent: contoso.name.clone(),
        };
        let before = events().get_last_cursor(request.clone()).await.unwrap();
        let before = before.into_inner().cursor;
        open(&contoso.admin.caller, watch(&contoso.name, &before))
            .await
            .unwrap();
        entente::start::renew_epoch(&site.app).await.unwrap();
        refused(
            open(&contoso.admin.caller, watch(&contoso.name, &before)).await,
            Code::OutOfRange,
            "CURSOR_EXPIRED",
        );
        let after = events().get_last_cursor(request).await.unwrap();
        open(
            &contoso.admin.caller,
            watch(&contoso.name, &after.into_inner().cursor),
        )
        .await
        .unwrap();
    })
    .await;
}
