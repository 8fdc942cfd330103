//! What a deletion takes, where it is told, and what a purge leaves.

use entente::proto::{
    access::AccountRole, account::RemoveMembersRequest, directory::DirectoryRole,
    operator::OperatorRole,
};
use sea_orm::Value;

use crate::{
    groups::{Groups as _, group},
    harness::{Database, Held, Site, both, membership, wait_for_locks},
    people::{People as _, audited, change, events, id, number, operator_tenant, staff},
};

/// How many events of a type a scope sees.
async fn seen_on(site: &Site, kind: &str, account: &str) -> i64 {
    let sql =
        "SELECT COUNT(*) AS n FROM outbox WHERE type = $1 AND scope_kind = 2 AND scope_id = $2";
    let values: [Value; 2] = [format!("entente.{kind}").into(), id(account).into()];
    number(site, sql, values).await
}

// proves USR-6, COM-12, COM-8
#[tokio::test]
async fn deleting_staff_is_told_on_the_operator() {
    both(async |site| {
        let home = operator_tenant(&site).await;
        let sue = staff(&site, "sue", OperatorRole::OperatorSupport).await;
        let done = home.admin.caller.delete(&sue.name).await.unwrap();
        let losses = done.losses.unwrap();
        assert_eq!(
            losses.operator_roles,
            [OperatorRole::OperatorSupport as i32]
        );
        let name = format!("operator/staff/{}", id(&sue.name));
        let told = events(&site, "operator.v1.OperatorRolesRemoved", &name).await;
        assert_eq!(told, 1);
        let action = "action=\"entente.directory.v1.UserService/DeleteUser\"";
        let on_operator = audited(&home.admin.caller, "operator", action).await;
        assert_eq!(on_operator.unwrap().len(), 1);
    })
    .await;
}

// proves USR-6, COM-10, COM-12
#[tokio::test]
async fn an_account_hears_of_a_deleted_user_who_had_something_there_by_a_group() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let other = site.account(&contoso, "Other").await;
        let bob = site.person(&contoso, "bob").await;
        let developers = membership(&account, &[AccountRole::Developer]);
        group(&contoso, "Developers", &[&bob], Some(developers)).await;
        contoso.admin.caller.delete(&bob.name).await.unwrap();
        assert_eq!(
            seen_on(&site, "directory.v1.UserDeleted", &account).await,
            1
        );
        assert_eq!(seen_on(&site, "directory.v1.UserDeleted", &other).await, 0);
        let action = "action=\"entente.directory.v1.UserService/DeleteUser\"";
        let there = audited(&contoso.admin.caller, &account, action).await;
        assert_eq!(there.unwrap().len(), 1);
    })
    .await;
}

// proves USR-5, COM-8
#[tokio::test]
async fn losses_of_several_deleted_members_are_one_whole() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let mut names = Vec::new();
        let mut people = Vec::new();
        for user_name in ["one", "two"] {
            let person = site
                .person_with(&contoso, user_name, |r| {
                    r.memberships = vec![membership(&account, &[AccountRole::Developer])];
                    let user = r.user.as_mut().unwrap();
                    user.directory_roles = vec![DirectoryRole::BillingAdmin as i32];
                })
                .await;
            names.push(person.member_of(&account));
            people.push(person);
        }
        let team = group(&contoso, "Team", &[&people[0], &people[1]], None).await;
        let other = group(&contoso, "Other", &[&people[1]], None).await;
        let request = RemoveMembersRequest {
            parent: account,
            names: names.clone(),
            delete_from_directory: true,
            ..RemoveMembersRequest::default()
        };
        let admin = &contoso.admin.caller;
        let done = admin.members().remove_members(request).await.unwrap();
        let losses = done.into_inner().losses.unwrap();
        let roles = [DirectoryRole::BillingAdmin as i32];
        assert_eq!(losses.directory_roles, roles);
        let mut groups = vec![team.clone(), other];
        groups.sort();
        assert_eq!(losses.groups, groups);
        let lost: Vec<_> = losses.memberships.into_iter().map(|m| m.member).collect();
        assert_eq!(lost, names);
        assert!(losses.session_count >= 2);
        assert!(admin.in_group(&team, "").await.unwrap().is_empty());
    })
    .await;
}

// proves USR-6
#[tokio::test]
async fn a_user_who_is_restored_while_the_purge_waits_is_not_purged() {
    let mut site = Site::open(Database::Postgres).await;
    let contoso = site.tenant("contoso").await;
    let bob = site.person(&contoso, "bob").await;
    contoso.admin.caller.delete(&bob.name).await.unwrap();
    site.stop_serving().await;
    let sql = "UPDATE users SET purge_time = 1 WHERE id = $1";
    change(&site, sql, [id(&bob.name).into()]).await;
    let due = "UPDATE jobs SET due_time = 0, lease_expire_time = 0 WHERE name = $1";
    change(&site, due, ["purge-users".into()]).await;
    // A restore, which holds the tenant as any change of it does.
    let (url, user) = (site.url.as_ref().unwrap(), id(&bob.name));
    let sql = format!(
        "SELECT 1 FROM heads FOR UPDATE; \
         UPDATE users SET state = 1, delete_time = NULL, purge_time = NULL WHERE id = '{user}'"
    );
    let restore = Held::by(url, &sql).await;
    let restored = async {
        wait_for_locks(url, 1).await;
        // Jobs run one after the other: this is the one that waits.
        let leased =
            "SELECT COUNT(*) AS n FROM jobs WHERE name = 'purge-users' AND lease_expire_time > 0";
        let waits = number(&site, leased, []).await;
        restore.release().await;
        assert_eq!(waits, 1);
    };
    tokio::join!(site.settle(), restored);
    let left = "SELECT COUNT(*) AS n FROM users WHERE id = $1 AND state = 1";
    assert_eq!(number(&site, left, [id(&bob.name).into()]).await, 1);
    assert_eq!(events(&site, "directory.v1.UserPurged", &bob.name).await, 0);
    // It ran, and didn't fail.
    let done = "SELECT COUNT(*) AS n FROM jobs WHERE name = 'purge-users' AND due_time > 0 AND last_error = ''";
    assert_eq!(number(&site, done, []).await, 1);
}
