//! The last manager, global admin and operator administrator remain, on every path (ROL-9).

use std::time::Duration;

use entente::proto::{
    access::AccountRole,
    audit::WatchEventsRequest,
    directory::{DirectoryRole, ReplaceGlobalAdminRequest},
};
use futures_util::future::join_all;
use tonic::{Code, Status};

use crate::{
    harness::{Caller, Person, both, membership, new_user, refused, rights},
    members::{add, drop_rights, leave, list, remove, singly, update},
    people::{People as _, second_admin},
};

// proves ROL-9
#[tokio::test]
async fn an_account_keeps_its_last_manager_on_every_path_of_its_own() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin;
        crate::associations::associate(ann, &account, &fabrikam.admin)
            .await
            .unwrap();
        let eve = site.person(&fabrikam, "eve").await;
        add(&fabrikam.admin.caller, &account, &[&eve], &[])
            .await
            .unwrap();
        let custom = singly(&["members.remove", "tenants.manage", "users.assign"]);
        update(&ann.caller, &account, &[(&eve.member_of(&account), custom)])
            .await
            .unwrap();
        // A manager who is shut out doesn't count.
        let off = site.person(&contoso, "off").await;
        add(&ann.caller, &account, &[&off], &[AccountRole::Manager])
            .await
            .unwrap();
        ann.caller.disable(&off.name).await.unwrap();
        let last = (Code::FailedPrecondition, "LAST_MANAGER");
        let member = ann.member_of(&account);
        let manager = rights(&[AccountRole::Manager]);
        let less = [(member.as_str(), rights(&[AccountRole::AdminAgent]))];
        refused(update(&ann.caller, &account, &less).await, last.0, last.1);
        refused(
            drop_rights(ann, &account, manager.clone()).await,
            last.0,
            last.1,
        );
        refused(leave(ann, &account).await, last.0, last.1);
        refused(
            remove(&eve.caller, &account, &[&member], false).await,
            last.0,
            last.1,
        );
        refused(
            crate::associations::dissociate(&eve.caller, &account, &contoso.name).await,
            last.0,
            last.1,
        );
        // With a second one, each path works.
        update(
            &ann.caller,
            &account,
            &[(&eve.member_of(&account), manager.clone())],
        )
        .await
        .unwrap();
        drop_rights(ann, &account, manager).await.unwrap();
        refused(leave(&eve, &account).await, last.0, last.1);
    })
    .await;
}

/// Waits for a domain event of a type on an account.
async fn told(who: &Caller, account: &str, kind: &str) -> bool {
    let request = WatchEventsRequest {
        parent: account.to_owned(),
        types: vec![kind.to_owned()],
        ..WatchEventsRequest::default()
    };
    let mut stream = who
        .events()
        .watch_events(request)
        .await
        .unwrap()
        .into_inner();
    for _ in 0..10 {
        let message = tokio::time::timeout(Duration::from_secs(60), stream.message()).await;
        let Ok(message) = message else {
            return false;
        };
        let events = message.unwrap().unwrap().events;
        if events
            .iter()
            .any(|e| e.r#type == kind && e.resource == account)
        {
            return true;
        }
    }
    false
}

// proves ROL-9
#[tokio::test]
async fn a_tenant_shuts_out_the_last_manager_and_the_account_is_told() {
    both(async |site| {
        for by_deletion in [false, true] {
            let prefix = if by_deletion { "deleting" } else { "disabling" };
            let tenant = site.tenant(prefix).await;
            let account = site.account(&tenant, prefix).await;
            let second = second_admin(&site, &tenant, "second").await;
            let watcher = site.person(&tenant, "watcher").await;
            let ann = &tenant.admin;
            add(&ann.caller, &account, &[&watcher], &[]).await.unwrap();
            let custom = singly(&["events.read", "members.read"]);
            let member = watcher.member_of(&account);
            update(&ann.caller, &account, &[(&member, custom)])
                .await
                .unwrap();
            let kind = "entente.account.v1.AccountWithoutManager";
            if by_deletion {
                second.caller.delete(&ann.name).await.unwrap();
            } else {
                second.caller.disable(&ann.name).await.unwrap();
            }
            assert!(told(&watcher.caller, &account, kind).await);
            let rows = list(&watcher.caller, &account, "roles:MANAGER").await;
            assert_eq!(rows.unwrap().len(), usize::from(!by_deletion));
        }
    })
    .await;
}

// proves ROL-9
#[tokio::test]
async fn a_tenant_keeps_its_last_global_admin_on_every_path() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin;
        let off = second_admin(&site, &contoso, "off").await;
        ann.caller.disable(&off.name).await.unwrap();
        let last = (Code::FailedPrecondition, "LAST_GLOBAL_ADMIN");
        let lesser = [DirectoryRole::BillingAdmin];
        refused(ann.caller.assign(&ann.name, &lesser).await, last.0, last.1);
        refused(ann.caller.assign(&ann.name, &[]).await, last.0, last.1);
        refused(ann.caller.disable(&ann.name).await, last.0, last.1);
        refused(ann.caller.delete(&ann.name).await, last.0, last.1);
        // By the way of an account: a user made through it who is now the last global admin.
        let heir = site
            .person_with(&contoso, "heir", |r| {
                let user = r.user.as_mut().unwrap();
                user.directory_roles = vec![DirectoryRole::GlobalAdmin as i32];
                user.recovery_email = "heir@contoso.example".to_owned();
                r.memberships = vec![membership(&account, &[AccountRole::Manager])];
            })
            .await;
        heir.caller.assign(&ann.name, &[]).await.unwrap();
        refused(
            remove(&heir.caller, &account, &[&heir.member_of(&account)], true).await,
            last.0,
            last.1,
        );
        let replace = |old: &Person, new: &Person| ReplaceGlobalAdminRequest {
            name: old.name.clone(),
            successor: new.name.clone(),
            ..ReplaceGlobalAdminRequest::default()
        };
        refused(
            heir.caller
                .users()
                .replace_global_admin(replace(&heir, &off))
                .await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let replaced = heir
            .caller
            .users()
            .replace_global_admin(replace(&heir, ann))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(replaced.successor.unwrap().directory_roles, [1]);
        refused(
            list(&heir.caller, &account, "").await,
            Code::Unauthenticated,
            "TOKEN_INVALID",
        );
    })
    .await;
}

/// How many of many calls succeeded; the others were refused as said.
fn only(results: Vec<Result<(), Status>>, reason: &str) -> usize {
    let all = results.len();
    let bad: Vec<Status> = results.into_iter().filter_map(Result::err).collect();
    let count = all - bad.len();
    for status in bad {
        // Whoever lost the role meanwhile may no longer take it from others.
        use tonic_types::StatusExt as _;
        let told = status.get_details_error_info().unwrap().reason;
        assert!(told == reason || told == "PERMISSION_MISSING", "{status:?}");
    }
    count
}

// proves ROL-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_managers_removed_at_once_one_remains() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let ann = &contoso.admin;
        let mut members = vec![ann.member_of(&account)];
        for i in 0..63 {
            let mut request = new_user(&contoso.name, &format!("manager{i:02}"));
            request.memberships = vec![membership(&account, &[AccountRole::Manager])];
            let made = ann.caller.users().create_user(request).await.unwrap();
            let name = made.into_inner().user.unwrap().name;
            let id = name.rsplit('/').next().unwrap();
            members.push(format!("{account}/members/{id}"));
        }
        // Somebody who is no manager removes all of them.
        let remover = site.person(&contoso, "remover").await;
        add(&ann.caller, &account, &[&remover], &[]).await.unwrap();
        let custom = singly(&["members.remove", "members.read"]);
        let member = remover.member_of(&account);
        update(&ann.caller, &account, &[(&member, custom)])
            .await
            .unwrap();
        let removals = members.iter().map(async |name| {
            let removed = remove(&remover.caller, &account, &[name], false).await;
            removed.map(|_| ())
        });
        let count = only(join_all(removals).await, "LAST_MANAGER");
        assert_eq!(count, 63);
        let left = list(&remover.caller, &account, "roles:MANAGER").await;
        assert_eq!(left.unwrap().len(), 1);
    })
    .await;
}

// proves ROL-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_global_admins_demoted_at_once_one_remains() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin;
        let mut names = vec![ann.name.clone()];
        for i in 0..63 {
            let mut request = new_user(&contoso.name, &format!("admin{i:02}"));
            let user = request.user.as_mut().unwrap();
            user.directory_roles = vec![DirectoryRole::GlobalAdmin as i32];
            user.recovery_email = format!("admin{i:02}@contoso.example");
            let made = ann.caller.users().create_user(request).await.unwrap();
            names.push(made.into_inner().user.unwrap().name);
        }
        // The one who demotes is among them: once demoted, the rest is refused too.
        let calls = names
            .iter()
            .rev()
            .map(async |name| ann.caller.assign(name, &[]).await.map(drop));
        let count = only(join_all(calls).await, "LAST_GLOBAL_ADMIN");
        let sql =
            "SELECT COUNT(*) AS n FROM grants WHERE scope_kind = 1 AND roles = 2 AND scope_id = $1";
        let id = entente::names::Name::parse(&contoso.name).unwrap().id();
        use sea_orm::{ConnectionTrait as _, Statement};
        let db = &site.app.db.read;
        let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, [id.into()]);
        let row = db.query_one_raw(statement).await.unwrap().unwrap();
        let left: i64 = row.try_get("", "n").unwrap();
        assert!(left >= 1);
        assert_eq!(count + usize::try_from(left).unwrap(), 64);
    })
    .await;
}
