//! Repetition by `request_id` (COM-4), and what tests of the kernel share: row counts and further replicas.

use std::{collections::BTreeMap, net::SocketAddr};

use entente::{
    app::App,
    proto::{
        access::AccountRole,
        account::LeaveAccountRequest,
        directory::{
            AssignDirectoryRolesRequest, CreateUserRequest, CreateUserResponse, DirectoryRole,
            EndSessionRequest, ListSessionsRequest,
        },
    },
    store,
};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use tokio::sync::oneshot;
use tonic::{Code, Response, Status, transport::Endpoint};

use crate::harness::{
    Caller, Database, Site, both, config, membership, new_user, reconcile, refused, request_id,
    serve,
};

/// The number that a query gives as `n`.
pub async fn count(app: &App, sql: &str) -> i64 {
    let statement = Statement::from_string(app.db.backend, sql);
    let row = app.db.read.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get("", "n").unwrap()
}

/// Runs a statement on a site's database; gives the rows touched.
pub async fn execute(app: &App, sql: &str) -> Result<u64, sea_orm::DbErr> {
    let statement = Statement::from_string(app.db.backend, sql);
    let done = app.db.write.execute_raw(statement).await?;
    reconcile(app).await;
    Ok(done.rows_affected())
}

/// All tables, but for what tells memory of changes: it comes and goes by itself.
pub async fn tables(app: &App) -> Vec<String> {
    let sql = match app.db.backend {
        DbBackend::Postgres => {
            "SELECT CAST(tablename AS text) AS name FROM pg_tables WHERE schemaname = 'public'"
        }
        _ => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    };
    let statement = Statement::from_string(app.db.backend, sql);
    let rows = app.db.read.query_all_raw(statement).await.unwrap();
    let names: Vec<String> = rows
        .iter()
        .map(|r| r.try_get("", "name").unwrap())
        .filter(|name| name != "changed_keys")
        .collect();
    assert!(names.len() > 15, "{names:?}");
    names
}

/// How many rows each table has; the scheduler's own apart, which come as time goes by.
pub async fn row_counts(app: &App) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for table in tables(app).await {
        if table != "jobs" {
            let n = count(app, &format!("SELECT COUNT(*) AS n FROM {table}")).await;
            counts.insert(table, n);
        }
    }
    counts
}

/// Holds every audit chain against its head.
pub async fn chains_are_intact(app: &App) {
    let scopes = store::audit::scopes(&app.db.read, None).await.unwrap();
    assert!(!scopes.is_empty());
    for scope in scopes {
        let keys = app.clone();
        // One snapshot a chain: jobs go on meanwhile.
        let verified = app.look(move |snapshot| {
            Box::pin(
                async move { store::audit::verify(snapshot.db(), &keys.keys, scope, None).await },
            )
        });
        let verdict = verified.await.unwrap();
        assert_eq!(verdict.findings, Vec::<String>::new());
    }
}

/// A further server over a site's PostgreSQL, with a folder of its own.
pub struct Replica {
    /// The application inside.
    pub app: App,
    /// Where gRPC is served.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    _folder: tempfile::TempDir,
}

impl Replica {
    /// Opens one over the database at a URL.
    pub async fn open(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.database_url = Some(url.to_owned());
        let (app, address, stop) = serve(config).await;
        Self {
            app,
            address,
            stop: Some(stop),
            _folder: folder,
        }
    }

    /// The caller, calling this replica.
    pub fn of(&self, caller: &Caller) -> Caller {
        Caller {
            channel: Endpoint::from_shared(format!("http://{}", self.address))
                .unwrap()
                .connect_lazy(),
            ..caller.clone()
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
    }
}

/// Whether an answer says that it was given before.
pub fn replayed<T>(response: &Response<T>) -> bool {
    response
        .metadata()
        .get("entente-replayed")
        .is_some_and(|v| v == "true")
}

fn named(tenant: &str, user_name: &str, id: &str) -> CreateUserRequest {
    CreateUserRequest {
        request_id: id.to_owned(),
        ..new_user(tenant, user_name)
    }
}

// proves COM-4
#[tokio::test]
async fn repetition_gets_the_first_answer_without_its_secret_and_changes_nothing() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let users = || contoso.admin.caller.users();
        let id = request_id();
        let request = named(&contoso.name, "bob", &id);
        let first = users().create_user(request.clone()).await.unwrap();
        assert!(!replayed(&first));
        let first = first.into_inner();
        assert!(!first.temporary_password.is_empty() && !first.secret_omitted);
        site.settle().await;
        let before = row_counts(&site.app).await;
        let second = users().create_user(request.clone()).await.unwrap();
        assert!(replayed(&second));
        let second = second.into_inner();
        assert_eq!(second.user, first.user);
        assert_eq!(second.temporary_password, "");
        assert!(second.secret_omitted);
        // The ID may be written in capitals: it is the same UUID.
        let shouted = named(&contoso.name, "bob", &id.to_uppercase());
        assert!(replayed(&users().create_user(shouted).await.unwrap()));
        assert_eq!(row_counts(&site.app).await, before);

        let other = named(&contoso.name, "robert", &id);
        let reused = users().create_user(other).await;
        refused(reused, Code::InvalidArgument, "REQUEST_ID_REUSED");
        let ended = AssignDirectoryRolesRequest {
            name: first.user.unwrap().name,
            request_id: id.clone(),
            ..AssignDirectoryRolesRequest::default()
        };
        let reused = users().assign_directory_roles(ended).await;
        refused(reused, Code::InvalidArgument, "REQUEST_ID_REUSED");
        assert_eq!(row_counts(&site.app).await, before);

        // Another caller's IDs are its own.
        let elsewhere = named(&fabrikam.name, "bob", &id);
        let made = fabrikam.admin.caller.users().create_user(elsewhere).await;
        assert!(!replayed(&made.unwrap()));
    })
    .await;
}

/// Sends one request through many callers at once.
async fn at_once(
    callers: &[Caller],
    times: usize,
    request: &CreateUserRequest,
) -> Vec<Result<Response<CreateUserResponse>, Status>> {
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..times {
        let (caller, request) = (callers[i % callers.len()].clone(), request.clone());
        tasks.spawn(async move { caller.users().create_user(request).await });
    }
    tasks.join_all().await
}

async fn one_effect(app: &App, answers: Vec<Result<Response<CreateUserResponse>, Status>>) {
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let new = answers.iter().filter(|a| !replayed(a)).count();
    let answers: Vec<_> = answers.into_iter().map(Response::into_inner).collect();
    let secrets = answers.iter().filter(|a| !a.secret_omitted).count();
    assert_eq!((new, secrets), (1, 1));
    assert!(answers.iter().all(|a| a.user == answers[0].user));
    for sql in [
        "SELECT COUNT(*) AS n FROM users WHERE user_name = 'bob'",
        "SELECT COUNT(*) AS n FROM outbox WHERE is_first AND type = 'entente.directory.v1.UserCreated'",
        "SELECT COUNT(*) AS n FROM audit_events WHERE action = 'entente.directory.v1.UserService/CreateUser'",
    ] {
        assert_eq!(count(app, sql).await, 1, "{sql}");
    }
}

// proves COM-4
#[tokio::test]
async fn sixteen_at_once_with_one_id_have_one_effect_and_equal_answers() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        execute(
            &site.app,
            "DELETE FROM outbox WHERE type = 'entente.directory.v1.UserCreated'",
        )
        .await
        .unwrap();
        let request = named(&contoso.name, "bob", &request_id());
        let answers = at_once(std::slice::from_ref(&contoso.admin.caller), 16, &request).await;
        one_effect(&site.app, answers).await;
    })
    .await;
}

// proves COM-4
#[tokio::test]
async fn two_replicas_at_once_with_one_id_have_one_effect() {
    let site = Site::open(Database::Postgres).await;
    let contoso = site.tenant("contoso").await;
    execute(
        &site.app,
        "DELETE FROM outbox WHERE type = 'entente.directory.v1.UserCreated'",
    )
    .await
    .unwrap();
    let replica = Replica::open(site.url.as_ref().unwrap()).await;
    let here = contoso.admin.caller.clone();
    let there = replica.of(&here);
    let request = named(&contoso.name, "bob", &request_id());
    let answers = at_once(&[here, there], 16, &request).await;
    one_effect(&site.app, answers).await;
}

// proves COM-4
#[tokio::test]
async fn failures_are_not_claimed() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let users = || contoso.admin.caller.users();
        let claims = "SELECT COUNT(*) AS n FROM claims";
        let before = count(&site.app, claims).await;
        let id = request_id();
        let taken = users().create_user(named(&contoso.name, "ann", &id)).await;
        refused(taken, Code::AlreadyExists, "USER_NAME_TAKEN");
        let bad = users().create_user(named(&contoso.name, "", &id)).await;
        refused(bad, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(count(&site.app, claims).await, before);
        let made = users().create_user(named(&contoso.name, "bob", &id)).await;
        assert!(!replayed(&made.unwrap()));
    })
    .await;
}

// proves COM-4, COM-8
#[tokio::test]
async fn validation_claims_nothing_and_writes_nothing() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let users = || contoso.admin.caller.users();
        site.settle().await;
        let before = row_counts(&site.app).await;
        let id = request_id();
        let mut request = named(&contoso.name, "bob", &id);
        request.validate_only = true;
        let checked = users().create_user(request.clone()).await.unwrap();
        assert!(!replayed(&checked));
        assert_eq!(checked.into_inner().temporary_password, "");
        let mut taken = named(&contoso.name, "ann", &id);
        taken.validate_only = true;
        refused(
            users().create_user(taken).await,
            Code::AlreadyExists,
            "USER_NAME_TAKEN",
        );
        assert_eq!(row_counts(&site.app).await, before);
        // The ID is still free, also for another request.
        let carol = named(&contoso.name, "carol", &id);
        let made = users().create_user(carol).await.unwrap();
        assert!(!replayed(&made) && !made.into_inner().temporary_password.is_empty());
    })
    .await;
}

// proves COM-4
#[tokio::test]
async fn after_a_day_the_id_is_new() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let id = request_id();
        let request = named(&contoso.name, "bob", &id);
        let mut users = contoso.admin.caller.users();
        users.create_user(request.clone()).await.unwrap();
        site.advance(86_000).await;
        let ann = site
            .sign_in(&contoso.admin.sign_in_name, crate::harness::PASSWORD)
            .await;
        let again = ann.users().create_user(request.clone()).await.unwrap();
        assert!(replayed(&again));
        site.advance(401).await;
        let ann = site
            .sign_in(&contoso.admin.sign_in_name, crate::harness::PASSWORD)
            .await;
        let taken = ann.users().create_user(request).await;
        refused(taken, Code::AlreadyExists, "USER_NAME_TAKEN");
        let other = named(&contoso.name, "carol", &id);
        assert!(!replayed(&ann.users().create_user(other).await.unwrap()));
    })
    .await;
}

// proves COM-4
#[tokio::test]
async fn call_that_ended_its_own_right_is_replayed() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let bob = site
            .person_with(&contoso, "bob", |request| {
                let user = request.user.as_mut().unwrap();
                user.directory_roles = vec![DirectoryRole::GlobalAdmin as i32];
                user.recovery_email = "bob@contoso.example".to_owned();
                request.memberships = vec![membership(&account, &[AccountRole::Developer])];
            })
            .await;

        let mut leave = LeaveAccountRequest {
            name: bob.member_of(&account),
            request_id: request_id(),
            ..LeaveAccountRequest::default()
        };
        let members = || bob.caller.members();
        let first = members().leave_account(leave.clone()).await.unwrap();
        let again = members().leave_account(leave.clone()).await.unwrap();
        assert!(!replayed(&first) && replayed(&again));
        assert_eq!(first.into_inner(), again.into_inner());
        leave.request_id = request_id();
        members().leave_account(leave).await.unwrap_err();

        let mut assign = AssignDirectoryRolesRequest {
            name: bob.name.clone(),
            request_id: request_id(),
            ..AssignDirectoryRolesRequest::default()
        };
        let users = || bob.caller.users();
        let first = users().assign_directory_roles(assign.clone()).await;
        let again = users().assign_directory_roles(assign.clone()).await;
        let (first, again) = (first.unwrap(), again.unwrap());
        assert!(!replayed(&first) && replayed(&again));
        assert_eq!(first.into_inner(), again.into_inner());
        // Nothing but the very same request gets through.
        assign.directory_roles = vec![DirectoryRole::HelpdeskAdmin as i32];
        refused(
            users().assign_directory_roles(assign.clone()).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        assign.directory_roles.clear();
        assign.request_id = request_id();
        refused(
            users().assign_directory_roles(assign).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
    })
    .await;
}

// proves COM-4
#[tokio::test]
async fn ending_ones_own_session_is_replayed() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let list = ListSessionsRequest {
            parent: bob.name.clone(),
            ..ListSessionsRequest::default()
        };
        let sessions = || bob.caller.sessions();
        let listed = sessions().list_sessions(list).await.unwrap().into_inner();
        let current = listed.sessions.into_iter().find(|s| s.current).unwrap();
        let mut end = EndSessionRequest {
            name: current.name,
            request_id: request_id(),
            ..EndSessionRequest::default()
        };
        let first = sessions().end_session(end.clone()).await.unwrap();
        assert!(!replayed(&first));
        let before = row_counts(&site.app).await;
        let again = sessions().end_session(end.clone()).await.unwrap();
        assert!(replayed(&again));
        assert_eq!(first.into_inner(), again.into_inner());
        assert_eq!(row_counts(&site.app).await, before);
        end.request_id = request_id();
        refused(
            sessions().end_session(end).await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    })
    .await;
}

// proves COM-4, COM-9
#[tokio::test]
async fn text_that_is_normalised_is_the_same_request_again() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let users = || contoso.admin.caller.users();
        let mut request = named(&contoso.name, "jose", &request_id());
        request.user.as_mut().unwrap().given_name = "Jose\u{301}".to_owned();
        let first = users().create_user(request.clone()).await.unwrap();
        let again = users().create_user(request.clone()).await.unwrap();
        assert!(!replayed(&first) && replayed(&again));
        let user = again.into_inner().user.unwrap();
        assert_eq!(user.given_name, "Jos\u{e9}");
        // What a user agent composes means the same.
        request.user.as_mut().unwrap().given_name = "Jos\u{e9}".to_owned();
        assert!(replayed(&users().create_user(request).await.unwrap()));
    })
    .await;
}
