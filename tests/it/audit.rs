//! Audit events and their chains (COM-10, COM-11). What may stand in none of them is in `secrets.rs`.

use entente::{
    access::refusals,
    proto::{
        access::AccountRole,
        account::AddMembersRequest,
        audit::{AuditEvent, ListAuditEventsRequest, VerifyAuditChainRequest},
        directory::{UpdateUserRequest, User},
    },
};
use tonic::Code;

use crate::{
    claims::execute,
    harness::{Caller, Database, Site, both, membership, new_user, refused, rights},
};

const CREATE_USER: &str = "entente.directory.v1.UserService/CreateUser";
const ADD_MEMBERS: &str = "entente.account.v1.MemberService/AddMembers";

/// Events of a chain by an action, oldest first.
async fn events(caller: &Caller, parent: &str, action: &str) -> Vec<AuditEvent> {
    let request = ListAuditEventsRequest {
        parent: parent.to_owned(),
        page_size: 1_000,
        filter: format!("action = \"{action}\""),
        order_by: "create_time".to_owned(),
        ..ListAuditEventsRequest::default()
    };
    let page = caller.audit().list_audit_events(request).await.unwrap();
    page.into_inner().audit_events
}

async fn intact(caller: &Caller, parent: &str) -> bool {
    let parent = parent.to_owned();
    let request = VerifyAuditChainRequest { parent };
    let verdict = caller.audit().verify_audit_chain(request).await.unwrap();
    let verdict = verdict.into_inner();
    assert!(verdict.checked_count > 0);
    assert_eq!(verdict.intact, verdict.findings.is_empty());
    verdict.intact
}

// proves COM-10
#[tokio::test]
async fn mutation_is_one_event_in_each_scope_it_touches() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let mut request = new_user(&contoso.name, "bob");
        request.memberships = vec![membership(&account, &[AccountRole::Developer])];
        let made = admin.users().create_user(request).await.unwrap();
        let bob = made.into_inner().user.unwrap();
        let of_tenant = events(admin, &contoso.name, CREATE_USER).await;
        let of_account = events(admin, &account, CREATE_USER).await;
        assert_eq!((of_tenant.len(), of_account.len()), (1, 1));
        let (one, other) = (&of_tenant[0], &of_account[0]);
        assert_eq!(one.event_id, other.event_id);
        assert_eq!(one.actor, contoso.admin.name);
        assert_eq!(
            (one.outcome.as_str(), one.count, one.via.as_str()),
            ("OK", 1, "")
        );
        assert!(one.resources.contains(&bob.name));
        assert_eq!(one.client_address, "127.0.0.1");
        assert_eq!(one.trace_id.len(), 32);

        let update = UpdateUserRequest {
            user: Some(User {
                name: bob.name.clone(),
                given_name: "Unmistakable".to_owned(),
                ..User::default()
            }),
            ..UpdateUserRequest::default()
        };
        admin.users().update_user(update).await.unwrap();
        let action = "entente.directory.v1.UserService/UpdateUser";
        let updated = events(admin, &contoso.name, action).await;
        assert_eq!(updated.len(), 1);
        assert!(updated[0].changed_fields.contains(&"given_name".to_owned()));
        assert!(
            !format!("{updated:?}").contains("Unmistakable"),
            "never values"
        );
        assert!(intact(admin, &contoso.name).await && intact(admin, &account).await);
    })
    .await;
}

// proves COM-10
#[tokio::test]
async fn refused_attempts_are_one_event_at_once_and_one_that_closes() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let foreign = site.account(&fabrikam, "Fabrikam").await;
        let bob = site
            .person_with(&contoso, "bob", |request| {
                request.memberships = vec![membership(&account, &[AccountRole::Developer])];
            })
            .await;
        let admin = &contoso.admin.caller;
        for parent in [&account, &foreign] {
            for _ in 0..4 {
                let request = AddMembersRequest {
                    parent: parent.clone(),
                    principals: vec![bob.name.clone()],
                    rights: Some(rights(&[AccountRole::Manager])),
                    ..AddMembersRequest::default()
                };
                let denied = bob.caller.members().add_members(request).await;
                refused(denied, Code::PermissionDenied, "PERMISSION_MISSING");
            }
        }
        let counts = async |caller, parent: &str| -> Vec<i64> {
            let all = events(caller, parent, ADD_MEMBERS).await;
            assert!(
                all.iter()
                    .all(|e| e.actor == bob.name && e.outcome == "PERMISSION_MISSING")
            );
            all.iter().map(|e| e.count).collect()
        };
        assert_eq!(counts(admin, &contoso.name).await, [1]);
        assert_eq!(counts(admin, &account).await, [1]);
        refusals::flush(&site.app, true).await.unwrap();
        assert_eq!(counts(admin, &contoso.name).await, [1, 7]);
        assert_eq!(counts(admin, &account).await, [1, 3]);
        // Strangers don't write into others' chains.
        assert_eq!(counts(&fabrikam.admin.caller, &foreign).await, [0_i64; 0]);
        assert!(intact(admin, &contoso.name).await);
    })
    .await;
}

async fn open_to_tampering(site: &Site) {
    let statements: &[&str] = match site.database {
        Database::Sqlite => &[
            "DROP TRIGGER audit_events_are_not_updated",
            "DROP TRIGGER audit_events_are_not_deleted",
        ],
        Database::Postgres => &["ALTER TABLE audit_events DISABLE TRIGGER USER"],
    };
    for statement in statements {
        execute(&site.app, statement).await.unwrap();
    }
}

// proves COM-11
#[tokio::test]
async fn tampering_is_refused_by_the_database_and_found_in_the_chain() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        for name in ["bob", "carol", "dave"] {
            admin.users().create_user(new_user(&contoso.name, name)).await.unwrap();
        }
        for forbidden in [
            "UPDATE audit_events SET actor = ''",
            "DELETE FROM audit_events WHERE seq = 2",
        ] {
            execute(&site.app, forbidden).await.unwrap_err();
        }
        assert!(intact(admin, &contoso.name).await);
        open_to_tampering(&site).await;
        execute(&site.app, "CREATE TABLE saved AS SELECT * FROM audit_events").await.unwrap();
        let last = "seq = (SELECT MAX(b.seq) FROM audit_events b WHERE b.scope_kind = audit_events.scope_kind AND b.scope_id = audit_events.scope_id)";
        let other = |column: &str| {
            format!("UPDATE audit_events SET {column} = (SELECT b.{column} FROM audit_events b WHERE b.seq = 3 \
                     AND b.scope_kind = audit_events.scope_kind AND b.scope_id = audit_events.scope_id) WHERE seq = 2 AND scope_kind = 1")
        };
        let tamperings = [
            vec!["UPDATE audit_events SET actor = 'tenants/x' WHERE seq = 2".to_owned()],
            vec!["UPDATE audit_events SET outcome = 'X' WHERE seq = 2".to_owned()],
            vec!["UPDATE audit_events SET create_time = create_time + 1 WHERE seq = 2".to_owned()],
            vec![other("body")],
            vec![other("hash")],
            vec!["DELETE FROM audit_events WHERE seq = 2".to_owned()],
            vec!["DELETE FROM audit_events WHERE seq = 1".to_owned()],
            vec![format!("DELETE FROM audit_events WHERE {last}")],
            vec![
                "UPDATE audit_events SET seq = -2 WHERE seq = 2".to_owned(),
                "UPDATE audit_events SET seq = 2 WHERE seq = 3".to_owned(),
                "UPDATE audit_events SET seq = 3 WHERE seq = -2".to_owned(),
            ],
        ];
        for tampering in tamperings {
            for statement in &tampering {
                assert!(execute(&site.app, statement).await.unwrap() > 0, "{statement}");
            }
            assert!(!intact(admin, &contoso.name).await, "{tampering:?}");
            execute(&site.app, "DELETE FROM audit_events").await.unwrap();
            execute(&site.app, "INSERT INTO audit_events SELECT * FROM saved").await.unwrap();
            assert!(intact(admin, &contoso.name).await, "{tampering:?} was mended");
        }
    })
    .await;
}
