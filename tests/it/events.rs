//! Domain events and their watchers (COM-12).

use std::time::Duration;

use entente::proto::{
    POOL,
    access::AccountRole,
    account::{AccountImported, MemberAdded},
    audit::{DomainEvent, GetLastCursorRequest, WatchEventsRequest, WatchEventsResponse},
    directory::{
        AssignDirectoryRolesRequest, CreateApplicationRequest, CreateKeyRequest, DirectoryRole,
        DirectoryRolesAssigned, KeyCreated, KeyCredential, PasswordReset, SignInRequest,
        TenantCreated, UpdateUserRequest, User, UserCreated, UserDeleted, UserState, UserUpdated,
        sign_in_request::Credential,
    },
    operator::{AssignOperatorRolesRequest, OperatorRole, OperatorRolesAssigned},
};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use tonic::{Code, Status, Streaming};

use crate::{
    claims::{count, execute},
    harness::{Caller, Database, Site, TenantSite, both, fields, new_user, refused, rights},
    people::{People as _, again, literal, mask},
};

const USER_CREATED: &str = "entente.directory.v1.UserCreated";
const DAY: i64 = 86_400;

pub fn watch(parent: &str, cursor: &str) -> WatchEventsRequest {
    WatchEventsRequest {
        parent: parent.to_owned(),
        cursor: cursor.to_owned(),
        ..WatchEventsRequest::default()
    }
}

pub async fn open(
    caller: &Caller,
    request: WatchEventsRequest,
) -> Result<Streaming<WatchEventsResponse>, Status> {
    let opened = caller.events().watch_events(request).await;
    opened.map(tonic::Response::into_inner)
}

async fn next(
    stream: &mut Streaming<WatchEventsResponse>,
) -> Result<Option<WatchEventsResponse>, Status> {
    let message = tokio::time::timeout(Duration::from_secs(60), stream.message()).await;
    message.expect("the stream says nothing")
}

/// Reads so many events.
pub async fn take(stream: &mut Streaming<WatchEventsResponse>, n: usize) -> Vec<DomainEvent> {
    let mut events = Vec::new();
    while events.len() < n {
        events.extend(next(stream).await.unwrap().unwrap().events);
    }
    events
}

pub async fn last_cursor(caller: &Caller, parent: &str) -> String {
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

/// Waits until the relay has numbered all events.
async fn all_numbered(site: &Site) {
    let unnumbered = "SELECT COUNT(*) AS n FROM outbox WHERE is_first AND global_seq IS NULL";
    while count(&site.app, unnumbered).await > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// proves COM-1, PWD-1
#[tokio::test]
async fn a_stream_ends_with_the_token_that_it_began_with() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let cursor = last_cursor(admin, &contoso.name).await;
        let mut stream = open(admin, watch(&contoso.name, &cursor)).await.unwrap();
        write(&contoso, "early", 1).await;
        assert_eq!(take(&mut stream, 1).await.len(), 1);
        site.advance(901).await;
        let ended = loop {
            match next(&mut stream).await {
                Ok(Some(told)) => assert!(told.events.is_empty()),
                Ok(None) => panic!("it ended without a word"),
                Err(status) => break status,
            }
        };
        refused::<()>(Err(ended), Code::Unauthenticated, "TOKEN_INVALID");
        // Whoever has a new one goes on where it was.
        let anew = again(&site, &contoso.admin).await;
        open(&anew, watch(&contoso.name, &cursor)).await.unwrap();
    })
    .await;
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
        all_numbered(&site).await;
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
        assert_eq!(seen[0].changed_fields, ["given_name"]);

        let mut by_type = watch(&contoso.name, &from);
        by_type.types = vec![USER_CREATED.to_owned()];
        let seen = take(&mut open(admin, by_type).await.unwrap(), 2).await;
        assert!(seen.iter().all(|e| e.r#type == USER_CREATED));

        let mut none = watch(&contoso.name, &from);
        none.types = vec!["entente.directory.v1.DomainDeleted".to_owned()];
        let message = next(&mut open(admin, none.clone()).await.unwrap()).await;
        let message = message.unwrap().unwrap();
        assert_eq!(message.events, []);
        assert_eq!(message.cursor, last_cursor(admin, &contoso.name).await);

        // What never happens is waited for by nobody.
        let wrong = ["entente.directory.v1.User", "UserCreated", ""].map(str::to_owned);
        none.types.extend(wrong);
        let opened = match open(admin, none).await {
            Ok(mut stream) => next(&mut stream).await.map(drop),
            Err(status) => Err(status),
        };
        let status = refused(opened, Code::InvalidArgument, "INVALID_FIELDS");
        let mut named = fields(&status);
        named.sort_unstable();
        assert_eq!(named, ["types[1]", "types[2]", "types[3]"]);
    })
    .await;
}

/// The payload of the one event of its type that tells of the resource, as a client has it.
pub fn payload<M: prost::Name + Default>(events: &[DomainEvent], resource: &str) -> M {
    let of_type: Vec<_> = events
        .iter()
        .filter(|e| e.r#type == M::full_name() && e.resource == resource)
        .collect();
    let [event] = of_type.as_slice() else {
        panic!("{} of {resource}: {of_type:?}", M::full_name());
    };
    event.payload.as_ref().unwrap().to_msg().unwrap()
}

/// Whatever the type: its message is in the descriptors, and holds nothing but what is told to have changed.
fn fits_its_message(event: &DomainEvent) {
    let any = event.payload.as_ref().unwrap();
    assert_eq!(
        any.type_url,
        format!("type.googleapis.com/{}", event.r#type)
    );
    let message = POOL.get_message_by_name(&event.r#type);
    let message = message.unwrap_or_else(|| panic!("{} is no message", event.r#type));
    let payload = DynamicMessage::decode(message, any.value.as_slice()).unwrap();
    assert_eq!(payload.unknown_fields().count(), 0, "{}", event.r#type);
    for side in ["before", "after"] {
        let Some(held) = payload.get_field_by_name(side) else {
            continue;
        };
        for (field, _) in held.as_message().unwrap().fields() {
            let name = field.name().to_owned();
            assert!(
                event.changed_fields.contains(&name),
                "{}: {name}",
                event.r#type
            );
        }
    }
}

// proves COM-12
#[tokio::test]
async fn payloads_are_messages_that_clients_decode_by_their_types() {
    both(async |site| {
        let watcher = service(&site).await;
        let contoso = site.tenant("contoso").await;
        let bob = site
            .person_with(&contoso, "bob", |request| {
                let user = request.user.as_mut().unwrap();
                user.recovery_email = "bob@contoso.example".to_owned();
            })
            .await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let update = UpdateUserRequest {
            user: Some(User {
                name: bob.name.clone(),
                given_name: "Robert".to_owned(),
                ..User::default()
            }),
            update_mask: Some(mask(&["given_name", "recovery_email"])),
            ..UpdateUserRequest::default()
        };
        admin.users().update_user(update).await.unwrap();
        let roles = AssignDirectoryRolesRequest {
            name: bob.name.clone(),
            directory_roles: vec![DirectoryRole::HelpdeskAdmin as i32],
            ..AssignDirectoryRolesRequest::default()
        };
        admin.users().assign_directory_roles(roles).await.unwrap();
        let reset = entente::proto::directory::ResetPasswordRequest {
            name: bob.name.clone(),
            ..Default::default()
        };
        let reset = admin.users().reset_password(reset).await.unwrap();
        let password = reset.into_inner().temporary_password;
        admin.delete(&bob.name).await.unwrap();
        all_numbered(&site).await;

        let from_the_first = watch("operator", "");
        let newest = last_cursor(&watcher, "operator").await;
        let mut stream = open(&watcher, from_the_first).await.unwrap();
        let mut events: Vec<DomainEvent> = Vec::new();
        while events.last().is_none_or(|e| e.cursor != newest) {
            events.extend(take(&mut stream, 1).await);
        }
        events.iter().for_each(fits_its_message);
        for event in &events {
            let bytes = event.encode_to_vec();
            let told = bytes
                .windows(password.len())
                .any(|w| w == password.as_bytes());
            assert!(!told, "{event:?}");
        }

        let made: UserCreated = payload(&events, &bob.name);
        assert_eq!(made.after.unwrap().user_name, "bob");
        let updated: UserUpdated = payload(&events, &bob.name);
        let (before, after) = (updated.before.unwrap(), updated.after.unwrap());
        assert_eq!(
            (
                before.recovery_email.as_str(),
                after.recovery_email.as_str()
            ),
            ("bob@contoso.example", "")
        );
        assert_eq!(
            (after.given_name.as_str(), before.family_name.as_str()),
            ("Robert", "")
        );
        let changed = events.iter().find(|e| e.r#type.ends_with(".UserUpdated"));
        assert_eq!(
            changed.unwrap().changed_fields,
            ["given_name", "recovery_email"]
        );
        let assigned: DirectoryRolesAssigned = payload(&events, &bob.name);
        let role = |user: Option<User>| user.unwrap().directory_roles;
        assert_eq!(role(assigned.before), Vec::<i32>::new());
        assert_eq!(role(assigned.after), [DirectoryRole::HelpdeskAdmin as i32]);
        let reset: PasswordReset = payload(&events, &bob.name);
        assert_eq!(reset.ended_session_count, 1);
        let deleted: UserDeleted = payload(&events, &bob.name);
        let state = |user: Option<User>| user.unwrap().state();
        assert_eq!(
            (state(deleted.before), state(deleted.after)),
            (UserState::Active, UserState::Deleted)
        );
        let tenant: TenantCreated = payload(&events, &contoso.name);
        assert_eq!(tenant.after.unwrap().domain_prefix, "contoso");
        let imported: AccountImported = payload(&events, &account);
        assert_eq!(imported.after.unwrap().publisher_display_name, "Contoso");
        let member: MemberAdded = payload(&events, &contoso.admin.member_of(&account));
        let manager = rights(&[AccountRole::Manager, AccountRole::AdminAgent]);
        assert_eq!(member.after.unwrap().rights, Some(manager));
        let key = events
            .iter()
            .find(|e| e.r#type.ends_with(".KeyCreated"))
            .unwrap();
        let key: KeyCreated = payload(&events, &key.resource);
        let key = key.after.unwrap();
        assert!(
            key.hint.starts_with("entk_") && key.expire_time.is_some(),
            "{key:?}"
        );
        let mut staff = events
            .iter()
            .filter(|e| e.r#type.ends_with(".OperatorRolesAssigned"));
        let staff: OperatorRolesAssigned = payload(&events, &staff.next_back().unwrap().resource);
        assert_eq!(staff.before, None);
        assert_eq!(
            staff.after.unwrap().roles,
            [OperatorRole::OperatorService as i32]
        );
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
async fn an_event_that_is_missing_in_the_middle_is_not_passed_over() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let from = last_cursor(ann, &contoso.name).await;
        write(&contoso, "user", 3).await;
        let of = format!("scope_id = {}", literal(&site, &contoso.name));
        let sql = format!(
            "DELETE FROM outbox WHERE {of} AND scope_seq = (SELECT MAX(scope_seq) - 1 FROM outbox WHERE {of})"
        );
        assert_eq!(execute(&site.app, &sql).await.unwrap(), 1);
        let end = match open(ann, watch(&contoso.name, &from)).await {
            Err(status) => status,
            Ok(mut stream) => loop {
                match next(&mut stream).await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it ended without a status"),
                    Err(status) => break status,
                }
            },
        };
        refused::<()>(Err(end), Code::OutOfRange, "CURSOR_EXPIRED");
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
