//! What an operator does with the program around the service: a way back for the last administrator, a newer program over an older database,
//! and one whose tables belong to somebody else than the service (COM-10, COM-11, COM-19).

use std::fs;

use entente::{
    proto::audit::{ListAuditEventsRequest, VerifyAuditChainRequest},
    store::connect::Db,
};
use entente_migrations::Migrator;
use sea_orm_migration::MigratorTrait as _;
use tonic::Code;

use crate::{
    events::{open, watch},
    harness::{
        ADMINISTRATOR, Caller, PASSWORD, empty_postgres_database, new_user, postgres, psql, refused,
    },
    people::People as _,
    processes::{Setting, home, person, settle_as, sign_in, text},
};

async fn way_back(url: Option<String>) {
    let setting = Setting::new(url);
    let server = setting.serve(&[]).await;
    let admin = setting.administrator(&server).await;
    let tenant = home(&admin).await;
    let me = admin.who_am_i().await.unwrap().principal;
    drop(server);

    let told = setting.run(&["recover-admin"]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    let file = setting.data().join("first-administrator-password");
    let once = fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(!text(&told.stdout).contains(&once) && !text(&told.stderr).contains(&once));

    let server = setting.serve(&[]).await;
    // What was good before is good no more, not even for whoever was in.
    let before = Caller {
        channel: server.nobody().channel,
        ..admin
    };
    let asked = before.who_am_i().await;
    refused(asked, Code::Unauthenticated, "TOKEN_INVALID");
    let failed = "SIGN_IN_FAILED";
    let tried = sign_in(&server, PASSWORD).await;
    refused(tried, Code::Unauthenticated, failed);
    let admin = settle_as(&server, ADMINISTRATOR, &once).await;
    // Once: the way in is gone with the password that was chosen by it.
    let tried = sign_in(&server, &once).await;
    refused(tried, Code::Unauthenticated, failed);

    let filter = "action = \"recover-admin\"";
    for parent in ["operator", tenant.as_str()] {
        let request = ListAuditEventsRequest {
            parent: parent.to_owned(),
            filter: filter.to_owned(),
            ..ListAuditEventsRequest::default()
        };
        let page = admin.audit().list_audit_events(request).await.unwrap();
        let events = page.into_inner().audit_events;
        assert_eq!(events.len(), 1, "{parent}");
        assert_eq!(events[0].actor, "operator/jobs/recover-admin");
        assert_eq!(events[0].outcome, "OK");
        assert!(events[0].resources.contains(&me));
        let parent = parent.to_owned();
        let request = VerifyAuditChainRequest { parent };
        let verdict = admin.audit().verify_audit_chain(request).await.unwrap();
        assert!(verdict.into_inner().intact);
    }
    let mut watched = open(&admin, watch(&tenant, "")).await.unwrap();
    let message = watched.message().await.unwrap().unwrap();
    let recovered = message.events.iter();
    let recovered = recovered.filter(|e| e.r#type.ends_with(".AdministratorRecovered"));
    assert_eq!(recovered.count(), 1);
}

// proves COM-10, COM-19
#[tokio::test]
async fn way_back_of_the_administrator_works_once_and_is_audited_on_sqlite() {
    way_back(None).await;
}

// proves COM-10, COM-19
#[tokio::test]
async fn way_back_of_the_administrator_works_once_and_is_audited_on_postgres() {
    way_back(Some(empty_postgres_database("way_back"))).await;
}

// proves COM-19
#[tokio::test]
async fn database_of_an_older_program_is_brought_up_to_date_at_the_start() {
    for url in [None, Some(empty_postgres_database("older"))] {
        let setting = Setting::new(url.clone());
        let db = match &url {
            None => Db::sqlite(&setting.data()).await.unwrap(),
            Some(url) => Db::postgres("database_url", url).await.unwrap(),
        };
        Migrator::up(&db.write, Some(10)).await.unwrap();
        assert!(!db.is_current().await.unwrap());
        for pool in [&db.read, &db.lanes, &db.write] {
            pool.clone().close().await.unwrap();
        }
        drop(db);
        let later = vec![("ENTENTE_MIGRATE_AT_START", "false".to_owned())];
        let unready = setting.clone().with(later.clone());
        let told = unready.run(&["bootstrap", "--json"]);
        assert_eq!(told.status.code(), Some(1));
        assert!(text(&told.stderr).contains("entente migrate"));

        let server = setting.serve(&[]).await;
        let admin = setting.administrator(&server).await;
        let tenant = home(&admin).await;
        person(&server, &admin, &tenant, "bob").await;
        drop(server);
        // What is up to date needs nobody who brings it there.
        assert_eq!(setting.run(&["migrate"]).status.code(), Some(0));
        let unready = setting.with(later);
        let server = unready.serve(&[]).await;
        sign_in(&server, PASSWORD).await.unwrap();
    }
}

/// Runs SQL as another user than the tests' own; whether it was allowed.
fn may(url: &str, sql: &str) -> bool {
    std::panic::catch_unwind(|| psql(url, sql)).is_ok()
}

// proves COM-11, COM-19
#[tokio::test]
async fn tables_belong_to_the_owner_and_the_service_does_its_work_without() {
    // As the README says it is set up.
    let server = postgres();
    let root = server.url("postgres");
    for sql in [
        "CREATE ROLE entente_owner LOGIN",
        "CREATE ROLE entente_service LOGIN",
        "CREATE DATABASE two_users OWNER entente_owner",
    ] {
        psql(&root, sql);
    }
    psql(
        &server.url("two_users"),
        "ALTER DEFAULT PRIVILEGES FOR ROLE entente_owner IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO entente_service",
    );
    let of = |user: &str| format!("postgres://{user}@127.0.0.1:{}/two_users", server.port);
    let (owner, service) = (of("entente_owner"), of("entente_service"));

    // The service alone can make no tables, and says what is missing.
    let alone = Setting::new(Some(service.clone()));
    assert_eq!(alone.run(&["migrate"]).status.code(), Some(1));
    let later = vec![("ENTENTE_MIGRATE_AT_START", "false".to_owned())];
    let unready = Setting::new(Some(service.clone())).with(later.clone());
    let refused = unready.run(&["bootstrap", "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("entente migrate"));

    let owned = vec![("ENTENTE_MIGRATE_DATABASE_URL", owner.clone())];
    let setting = Setting::new(Some(service.clone())).with(owned);
    let migrated = setting.run(&["migrate"]);
    assert_eq!(
        migrated.status.code(),
        Some(0),
        "{}",
        text(&migrated.stderr)
    );
    let foreign = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tableowner <> 'entente_owner'";
    assert_eq!(psql(&owner, foreign), "0");
    let tables = psql(
        &owner,
        "SELECT count(*) > 20 FROM pg_tables WHERE schemaname = 'public'",
    );
    assert_eq!(tables, "t");

    // It serves, also where nobody gives it the owner's URL, and twice.
    let running = setting.serve(&[]).await;
    let admin = setting.administrator(&running).await;
    let tenant = home(&admin).await;
    let (bob, _) = person(&running, &admin, &tenant, "bob").await;
    let another = Setting::new(Some(service.clone())).with(later);
    let replica = another.serve(&[]).await;
    let there = Caller {
        channel: replica.nobody().channel,
        ..admin.clone()
    };
    there.user(&bob).await.unwrap();
    let made = there.users().create_user(new_user(&tenant, "carol")).await;
    let carol = made.unwrap().into_inner().user.unwrap();
    admin.delete(&carol.name).await.unwrap();
    // What it may not: change what was audited, or what keeps it from that.
    for sql in [
        "UPDATE audit_events SET actor = ''",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "DROP TABLE audit_events",
        "ALTER TABLE audit_events DISABLE TRIGGER USER",
        "CREATE TABLE mine (id int)",
    ] {
        assert!(!may(&service, sql), "{sql}");
    }
    assert!(may(&service, "SELECT count(*) FROM audit_events"));
    assert_eq!(another.run(&["verify-audit"]).status.code(), Some(0));
}
