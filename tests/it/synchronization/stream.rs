//! The stream: faults of single entries, sequences, repetitions, two at once, rights that end meanwhile (TEN-5, COM-1, COM-4).

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    claims::row_counts,
    harness::fields,
    people::{eventually, execute_on},
};

// proves TEN-5, COM-9
#[tokio::test]
async fn faulty_entry_is_told_and_the_others_go_through() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        agent
            .bring(vec![
                user("u/old"),
                program("a/old", "https://old.example/"),
            ])
            .await;
        let long = "x".repeat(101);
        let mut nameless = user("u/nameless");
        if let Some(Change::User(user)) = &mut nameless.change {
            user.given_name = String::new();
            user.family_name = "a\u{1}b".to_owned();
        }
        let empty = DirectoryEntry {
            external_id: "u/empty".to_owned(),
            change: None,
        };
        let mut twice = group("g/twice", &["u/one"]);
        twice = with_group(twice, |g| g.removed_members = vec!["u/one".to_owned()]);
        let cases: Vec<(DirectoryEntry, ErrorReason, &str)> = vec![
            (
                named_user("u/1", "no good name"),
                ErrorReason::InvalidFields,
                "user.user_name",
            ),
            (nameless, ErrorReason::InvalidFields, "user.given_name"),
            (empty, ErrorReason::InvalidFields, "change"),
            (
                named_user("u/2", "ANN"),
                ErrorReason::UserNameTaken,
                "user.user_name",
            ),
            (
                named_user("u/3", "old"),
                ErrorReason::UserNameTaken,
                "user.user_name",
            ),
            (
                named_user("u/4", "one"),
                ErrorReason::UserNameTaken,
                "user.user_name",
            ),
            (
                group("u/old", &[]),
                ErrorReason::ResourceExists,
                "external_id",
            ),
            (user("a/old"), ErrorReason::ResourceExists, "external_id"),
            (
                with_group(group("g/long", &[]), |g| g.display_name = long),
                ErrorReason::InvalidFields,
                "group.display_name",
            ),
            (
                group("g/dup", &["u/one", "u/one"]),
                ErrorReason::InvalidFields,
                "group.members[1]",
            ),
            (twice, ErrorReason::InvalidFields, "group.removed_members"),
            (
                group("g/some", &["u/one", "u/nobody"]),
                ErrorReason::ResourceNotFound,
                "group.members",
            ),
            (
                program("a/1", "javascript:alert(1)"),
                ErrorReason::InvalidFields,
                "application.reply_url",
            ),
            (
                program("a/2", "https://old.example/"),
                ErrorReason::UriTaken,
                "application.reply_url",
            ),
        ];
        let mut entries = vec![user("u/one")];
        entries.extend(cases.iter().map(|(e, ..)| e.clone()));
        entries.extend([user("u/two"), group("g/good", &["u/one", "u/two"])]);
        let answer = agent.send(entries.clone()).await;
        let told = answer.synchronization.unwrap();
        assert_eq!((told.last_sequence, told.upserted_count), (2, 5));
        assert_eq!(told.fault_count, 14);
        assert_eq!(answer.faults.len(), cases.len());
        for (i, (entry, why, field)) in cases.iter().enumerate() {
            let fault = answer
                .faults
                .iter()
                .find(|f| f.external_id == entry.external_id);
            let fault = fault.unwrap_or_else(|| panic!("{} is no fault", entry.external_id));
            assert_eq!(
                (
                    reason(fault),
                    fault.field.as_str(),
                    fault.sequence,
                    fault.entry_index
                ),
                (*why, *field, 2, i32::try_from(i).unwrap() + 1),
                "{fault:?}"
            );
            assert!(!fault.description.is_empty() && fault.create_time.is_some());
        }
        assert_eq!(
            members(&site, &contoso.name, "g/good").await,
            ["one", "two"]
        );
        // A group of whose members some aren't known has the others.
        assert_eq!(members(&site, &contoso.name, "g/some").await, ["one"]);
        for absent in ["u/1", "u/2", "u/3", "u/4", "u/nameless", "u/empty"] {
            assert_eq!(
                name_of(&site, &contoso.name, "users", absent).await,
                None,
                "{absent}"
            );
        }
        for absent in ["g/dup", "g/long", "g/twice", "u/old"] {
            assert_eq!(
                name_of(&site, &contoso.name, "groups", absent).await,
                None,
                "{absent}"
            );
        }

        // All of them by pages, in order, to agent and admin alike.
        let mut paged = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = GetDirectorySynchronizationRequest {
                name: contoso.name.clone(),
                page_size: 4,
                page_token,
                ..GetDirectorySynchronizationRequest::default()
            };
            let mut tenants = agent.caller.tenants();
            let page = tenants
                .get_directory_synchronization(request)
                .await
                .unwrap()
                .into_inner();
            paged.extend(page.faults);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(paged, answer.faults);
        assert_eq!(
            state(&contoso.admin.caller, &contoso.name)
                .await
                .unwrap()
                .faults,
            paged
        );

        let request = GetDirectorySynchronizationRequest {
            name: contoso.name.clone(),
            filter: "reason = \"USER_NAME_TAKEN\" AND external_id != \"u/2\"".to_owned(),
            order_by: "external_id desc".to_owned(),
            ..GetDirectorySynchronizationRequest::default()
        };
        let mut tenants = agent.caller.tenants();
        let some = tenants
            .get_directory_synchronization(request)
            .await
            .unwrap();
        let some: Vec<_> = some
            .into_inner()
            .faults
            .into_iter()
            .map(|f| f.external_id)
            .collect();
        assert_eq!(some, ["u/4", "u/3"]);

        // What comes right is told no more; what is gone neither.
        let mut right = vec![user("u/1"), group("g/some", &["u/one"])];
        right.extend(
            cases[1..11]
                .iter()
                .filter(|(e, ..)| e.external_id.starts_with("u/"))
                .map(|(e, ..)| gone(&e.external_id)),
        );
        let answer = agent.send(right).await;
        let left: Vec<_> = answer
            .faults
            .iter()
            .map(|f| f.external_id.as_str())
            .collect();
        assert_eq!(left, ["a/1", "a/2", "a/old", "g/dup", "g/long", "g/twice"]);
    })
    .await;
}

// proves TEN-5
#[tokio::test]
async fn user_names_are_swapped_and_handed_on_within_a_message() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        agent
            .bring(vec![
                named_user("1", "bob"),
                named_user("2", "cid"),
                named_user("3", "dan"),
            ])
            .await;
        let first = user_of(&site, &contoso.name, "1").await;
        agent
            .bring(vec![
                named_user("1", "cid"),
                named_user("2", "bob"),
                named_user("4", "dan"),
                gone("3"),
            ])
            .await;
        let admin = &contoso.admin.caller;
        assert_eq!(admin.user(&first).await.unwrap().user_name, "cid");
        // Not from one who keeps it after all.
        let answer = agent
            .send(vec![named_user("1", "ann"), named_user("2", "cid")])
            .await;
        let told: Vec<_> = answer
            .faults
            .iter()
            .map(|f| f.external_id.as_str())
            .collect();
        assert_eq!(told, ["1", "2"]);
        assert_eq!(
            admin
                .list(&contoso.name, "user_name = \"bob\"")
                .await
                .unwrap()
                .len(),
            1
        );
    })
    .await;
}

// proves TEN-5, COM-9
#[tokio::test]
async fn message_whose_entries_cannot_be_told_apart_is_refused_as_a_whole() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        let before = row_counts(&site.app).await;
        let many: Vec<String> = (0..10_000).map(|n| format!("u/{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let crowd = || (0..3).map(|n| group(&format!("g/{n}"), &many)).collect();
        for (entries, field) in [
            (
                vec![user("u/a"), user("u/b"), user("u/a")],
                "entries[2].external_id",
            ),
            (
                vec![user("u/a"), named_user("", "b")],
                "entries[1].external_id",
            ),
            (
                vec![named_user(&"x".repeat(257), "b")],
                "entries[0].external_id",
            ),
            (vec![named_user("a\u{7}", "b")], "entries[0].external_id"),
            (
                (0..501).map(|n| user(&format!("u/{n}"))).collect(),
                "entries",
            ),
            (crowd(), "entries"),
        ] {
            let message = agent.message(entries);
            let status = refused(
                sync(&agent.caller, vec![message]).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), [field]);
            agent.sequence -= 1;
        }
        assert_eq!(row_counts(&site.app).await, before);
    })
    .await;
}

// proves TEN-5, COM-4
#[tokio::test]
async fn messages_follow_each_other_and_repetitions_change_nothing() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        let first = agent.message(vec![user("u/a")]);
        let second = agent.message(vec![user("u/b"), named_user("u/bad", "no name")]);
        let third = agent.message(vec![user("u/c")]);
        let gap = |status: Status, last: &str, run: &str| {
            let info = status.get_details_error_info().unwrap();
            assert_eq!(info.metadata["last_sequence"], last);
            assert_eq!(info.metadata["request_id"], run);
        };
        let tried = sync(&agent.caller, vec![second.clone()]).await;
        gap(
            refused(tried, Code::FailedPrecondition, "SEQUENCE_GAP"),
            "0",
            "",
        );
        let answer = sync(&agent.caller, vec![first.clone(), second.clone()])
            .await
            .unwrap();
        assert_eq!(answer.synchronization.as_ref().unwrap().last_sequence, 2);
        // A repetition within a stream, or in one that goes on: the first answer, and no effect.
        let before = row_counts(&site.app).await;
        let repeated = sync(&agent.caller, vec![first.clone(), second.clone()])
            .await
            .unwrap();
        assert_eq!(repeated, answer);
        assert_eq!(row_counts(&site.app).await, before);
        let mut other = second.clone();
        other.entries = vec![user("u/x")];
        refused(
            sync(&agent.caller, vec![other]).await,
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
        );
        let skipped = SyncDirectoryRequest {
            sequence: 5,
            ..third.clone()
        };
        let tried = sync(&agent.caller, vec![skipped]).await;
        gap(
            refused(tried, Code::FailedPrecondition, "SEQUENCE_GAP"),
            "2",
            &agent.run,
        );
        // What came before the gap stays.
        let skipped = SyncDirectoryRequest {
            sequence: 7,
            ..third.clone()
        };
        let tried = sync(&agent.caller, vec![third.clone(), skipped]).await;
        gap(
            refused(tried, Code::FailedPrecondition, "SEQUENCE_GAP"),
            "3",
            &agent.run,
        );
        user_of(&site, &contoso.name, "u/c").await;
        // Claims end; what is committed doesn't come twice even then.
        execute_on(&site, "DELETE FROM claims").await;
        let tried = sync(&agent.caller, vec![second.clone()]).await;
        gap(
            refused(tried, Code::FailedPrecondition, "SEQUENCE_GAP"),
            "3",
            &agent.run,
        );

        // Another run begins with 1, and the one before can't go on.
        let old = agent.run.clone();
        let late = agent.message(vec![user("u/late")]);
        (agent.run, agent.sequence) = (request_id(), 0);
        let told = agent.send(vec![user("u/d")]).await.synchronization.unwrap();
        assert_eq!(
            (
                told.request_id.as_str(),
                told.last_sequence,
                told.upserted_count
            ),
            (agent.run.as_str(), 1, 1)
        );
        assert_ne!(old, agent.run);
        let tried = sync(&agent.caller, vec![late]).await;
        gap(
            refused(tried, Code::FailedPrecondition, "SEQUENCE_GAP"),
            "1",
            &agent.run,
        );
        for bad in [
            SyncDirectoryRequest {
                request_id: String::new(),
                ..first.clone()
            },
            SyncDirectoryRequest {
                request_id: "no UUID".to_owned(),
                ..first.clone()
            },
            SyncDirectoryRequest {
                sequence: 0,
                ..first.clone()
            },
            SyncDirectoryRequest {
                sequence: -1,
                ..first.clone()
            },
        ] {
            refused(
                sync(&agent.caller, vec![bad]).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
        }
        refused(
            sync(&agent.caller, vec![]).await,
            Code::InvalidArgument,
            "MALFORMED_MESSAGE",
        );
    })
    .await;
}

// proves COM-8, TEN-5
#[tokio::test]
async fn rehearsal_tells_faults_and_writes_nothing() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        let before = row_counts(&site.app).await;
        let rehearsal = SyncDirectoryRequest {
            sequence: 40,
            validate_only: true,
            ..agent.message(vec![user("u/a"), named_user("u/b", "ann")])
        };
        let answer = sync(&agent.caller, vec![rehearsal]).await.unwrap();
        assert_eq!(answer.faults.len(), 1);
        assert_eq!(answer.synchronization.unwrap().upserted_count, 1);
        assert_eq!(row_counts(&site.app).await, before);
        assert_eq!(
            state(&agent.caller, &contoso.name).await.unwrap().faults,
            []
        );
    })
    .await;
}

// proves COM-1, ATK-1
#[tokio::test]
async fn later_message_that_names_another_tenant_ends_the_stream() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let mut agent = Agent::of(&site, &contoso).await;
        let theirs = Agent::of(&site, &fabrikam).await;
        let first = agent.message(vec![user("u/a")]);
        let foreign = SyncDirectoryRequest {
            parent: theirs.tenant.clone(),
            ..agent.message(vec![user("u/b")])
        };
        let third = agent.message(vec![user("u/c")]);
        let status = refused(
            sync(&agent.caller, vec![first, foreign.clone(), third]).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["parent"]);
        let told = state(&agent.caller, &contoso.name)
            .await
            .unwrap()
            .synchronization
            .unwrap();
        assert_eq!(told.last_sequence, 1);
        for tenant in [&contoso.name, &fabrikam.name] {
            assert_eq!(name_of(&site, tenant, "users", "u/b").await, None);
        }
        // Named at once it is refused like any other's.
        refused(
            sync(&agent.caller, vec![foreign]).await,
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
    })
    .await;
}

/// A stream that is kept open, and its answer.
struct Open {
    send: mpsc::Sender<SyncDirectoryRequest>,
    answer: tokio::task::JoinHandle<Result<SyncDirectoryResponse, Status>>,
}

fn open(caller: &Caller) -> Open {
    let (send, receive) = mpsc::channel(1);
    let mut tenants = caller.tenants();
    let answer = tokio::spawn(async move {
        let done = tenants.sync_directory(ReceiverStream::new(receive)).await;
        done.map(Response::into_inner)
    });
    Open { send, answer }
}

/// A right is proven anew so often at least, with a little for the answer.
const ANEW: Duration = Duration::from_millis(5_500);
/// A busy machine may take longer now and then; nothing else ends an open stream.
const WITHIN: Duration = Duration::from_secs(15);

// proves COM-1, ROL-10, ATK-12, TEN-5
#[tokio::test]
async fn stream_ends_within_5_seconds_once_the_right_to_it_is_taken() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        let other = application(admin, &contoso.name, "Other").await;
        let mut agent = Agent::of(&site, &contoso).await;
        let begin = async |agent: &mut Agent, n: i64| {
            let stream = open(&agent.caller);
            let message = agent.message(vec![user(&format!("u/{n}"))]);
            stream.send.send(message).await.unwrap();
            eventually(async || {
                let told = state(admin, &contoso.name).await.unwrap();
                told.synchronization.unwrap().last_sequence == n
            })
            .await;
            stream
        };
        // While the client takes its time.
        let mut n = 1;
        loop {
            let idle = begin(&mut agent, n).await;
            mark(admin, &contoso.name, &other.name).await.unwrap();
            let since = Instant::now();
            let answer = idle.answer.await.unwrap();
            let took = since.elapsed();
            refused(answer, Code::PermissionDenied, "PERMISSION_MISSING");
            mark(admin, &contoso.name, &agent.name).await.unwrap();
            n += 1;
            if took < ANEW {
                break;
            }
            assert!(took < WITHIN && n < 6, "{took:?}");
        }
        // At the next message, at once.
        let busy = begin(&mut agent, n).await;
        mark(admin, &contoso.name, &other.name).await.unwrap();
        busy.send
            .send(agent.message(vec![user("u/late")]))
            .await
            .unwrap();
        let since = Instant::now();
        refused(
            busy.answer.await.unwrap(),
            Code::PermissionDenied,
            "PERMISSION_MISSING",
        );
        assert!(since.elapsed() < WITHIN, "{:?}", since.elapsed());
        assert_eq!(name_of(&site, &contoso.name, "users", "u/late").await, None);
        agent.sequence -= 1;
        // The key deleted: whoever sends isn't known any more.
        mark(admin, &contoso.name, &agent.name).await.unwrap();
        let keyless = begin(&mut agent, n + 1).await;
        execute_on(&site, "DELETE FROM application_keys").await;
        let since = Instant::now();
        refused(
            keyless.answer.await.unwrap(),
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
        assert!(since.elapsed() < WITHIN, "{:?}", since.elapsed());
    })
    .await;
}

// proves TEN-5, COM-4
#[tokio::test]
async fn of_two_streams_at_once_one_goes_on_and_nothing_comes_twice() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        // The same run twice, as after a connection that was taken for dead.
        let messages: Vec<_> = (0..12)
            .map(|n| {
                agent.message(vec![
                    user(&format!("u/same-{n}")),
                    gone(&format!("u/none-{n}")),
                ])
            })
            .collect();
        let (one, two) = tokio::join!(
            sync(&agent.caller, messages.clone()),
            sync(&agent.caller, messages.clone())
        );
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one, two);
        let told = one.synchronization.unwrap();
        assert_eq!((told.last_sequence, told.upserted_count), (12, 12));

        // Two runs: what is last begun goes on, the other one is told, and no entry is there twice.
        let runs: Vec<Vec<SyncDirectoryRequest>> = (0..2)
            .map(|_| {
                (agent.run, agent.sequence) = (request_id(), 0);
                (0..12)
                    .map(|n| agent.message(vec![user(&format!("u/two-{n}"))]))
                    .collect()
            })
            .collect();
        let (one, two) = tokio::join!(
            sync(&agent.caller, runs[0].clone()),
            sync(&agent.caller, runs[1].clone())
        );
        let mut through = 0;
        for answer in [one, two] {
            match answer {
                Ok(answer) => {
                    through += 1;
                    assert_eq!(answer.synchronization.unwrap().last_sequence, 12);
                }
                Err(_) => drop(refused(answer, Code::FailedPrecondition, "SEQUENCE_GAP")),
            }
        }
        assert!(through >= 1);
        let all = contoso
            .admin
            .caller
            .list(
                &contoso.name,
                "user_name = \"two*\" OR user_name : \"two-\"",
            )
            .await;
        let mut names: Vec<_> = all.unwrap().into_iter().map(|u| u.user_name).collect();
        names.dedup();
        assert_eq!(names.len(), 12, "{names:?}");
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves COM-10, COM-12
#[tokio::test]
async fn each_message_is_audited_and_told() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let mut agent = Agent::of(&site, &contoso).await;
        agent.bring(vec![user("u/a"), user("u/b"), group("g/1", &["u/a", "u/b"])]).await;
        agent.bring(vec![]).await;
        let sql = "SELECT COUNT(*) AS n FROM audit_events WHERE scope_id = $1 AND action LIKE '%SyncDirectory' AND outcome = 'OK' AND actor = $2";
        let values = [id(&contoso.name).into(), agent.name.as_str().into()];
        assert_eq!(number(&site, sql, values).await, 2);
        let g = name_of(&site, &contoso.name, "groups", "g/1").await.unwrap();
        assert_eq!(events(&site, "directory.v1.GroupCreated", &g).await, 1);
        assert_eq!(events(&site, "directory.v1.GroupMembersAdded", &g).await, 1);
        agent.bring(vec![only("g/1", &[])]).await;
        assert_eq!(events(&site, "directory.v1.GroupMembersRemoved", &g).await, 1);
        let gone_too = agent.bring(vec![gone("g/1")]).await;
        assert_eq!(gone_too.synchronization.unwrap().deleted_count, 1);
        assert_eq!(events(&site, "directory.v1.GroupDeleted", &g).await, 1);
    })
    .await;
}
