//! Groups of 100,000 members, and members of 2,000 groups: what a check reads is counted, not timed (GRP-5).

use std::collections::BTreeSet;

use entente::proto::{
    access::AccountRole,
    account::GetAccountRequest,
    directory::{ListGroupMembersRequest, ListGroupMembersResponse},
};
use sea_orm::Value;
use tonic::{Code, Response, Status};

use super::{Groups as _, group, member_of};
use crate::{
    claims::{execute, tables},
    harness::{Caller, Database, Person, Site, both_asking, refused, rights},
    members::{adding, remove},
    pages::{bulk, far::Plan},
    people::{id, literal, number},
};

/// Members of the large group, beside one who was asked in.
const MANY: usize = 100_000;
/// Groups of one person, and of another.
const GROUPS: usize = 2_000;
const FEW: usize = 10;

async fn sees(who: &Caller, account: &str) -> Result<(), Status> {
    let name = account.to_owned();
    let got = who.accounts().get_account(GetAccountRequest { name }).await;
    got.map(drop)
}

/// As PostgreSQL does now and then by itself; SQLite doesn't, and would rather read through a table of four rows when it knows of it.
async fn analyze(site: &Site) {
    if site.database == Database::Postgres {
        execute(&site.app, "ANALYZE").await.unwrap();
    }
}

/// What a check comes to: statements, and, where the database counts them, rows read. Where it doesn't, no table is read through.
async fn read_by_check(site: &Site, who: &Caller, account: &str) -> (usize, Option<f64>) {
    site.statements.start().await;
    sees(who, account).await.unwrap();
    let made = site.statements.made();
    let (count, tables) = (made.len(), tables(&site.app).await);
    let mut rows = Some(0.0);
    for statement in made {
        let text = statement.sql.clone();
        let plan = Plan::of(site, statement).await;
        let scans = |table: &String| {
            let is_all = |line: &str| line == format!("SCAN {table}") || line.starts_with("SCAN g");
            plan.text.lines().any(is_all)
        };
        if site.database == Database::Sqlite {
            let scanned = tables.iter().find(|table| scans(table));
            assert_eq!(scanned, None, "{text}\n{}", plan.text);
        }
        rows = rows.zip(plan.rows).map(|(a, b)| a + b);
    }
    assert!(count > 2, "the statements were counted");
    (count, rows)
}

/// As many statements, and as many rows but for one or two of a tiny table that PostgreSQL reads through until it has the right one.
fn assert_alike(one: (usize, Option<f64>), other: (usize, Option<f64>)) {
    assert_eq!(one.0, other.0);
    let (rows, others) = (one.1.unwrap_or_default(), other.1.unwrap_or_default());
    assert!((rows - others).abs() < FEW as f64, "{rows} and {others}");
}

/// Rows that tell what groups give to somebody.
async fn rows_of(site: &Site, who: &Person) -> i64 {
    let sql = "SELECT COUNT(*) AS n FROM group_rights WHERE user_id = $1";
    number(site, sql, [id(&who.name).into()]).await
}

async fn page(
    caller: &Caller,
    group: &str,
    order_by: &str,
    page_token: &str,
) -> ListGroupMembersResponse {
    let request = ListGroupMembersRequest {
        parent: group.to_owned(),
        page_size: 1_000,
        order_by: order_by.to_owned(),
        page_token: page_token.to_owned(),
        ..ListGroupMembersRequest::default()
    };
    let done = caller.groups().list_group_members(request).await;
    done.map(Response::into_inner).unwrap()
}

// proves GRP-5, GRP-3, COM-6
#[tokio::test]
async fn a_group_of_100_000_is_given_a_role_paged_through_and_checked_like_one_of_10() {
    both_asking(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        bulk(&site, "bulk", MANY).await;
        let one = site.person(&contoso, "one").await;
        let few = site.person(&contoso, "few").await;
        let large = group(&contoso, "Large", &[&one], None).await;
        let small = group(&contoso, "Small", &[&few], None).await;
        for (group, bound) in [(&large, MANY), (&small, FEW - 1)] {
            let group = literal(&site, group);
            let sql = format!(
                "INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) \
                 SELECT {group}, u.id, u.display_name_fold, u.create_time FROM users u WHERE u.user_name LIKE 'bulk%' \
                 ORDER BY u.create_time LIMIT {bound}"
            );
            assert_eq!(execute(&site.app, &sql).await.unwrap(), bound as u64);
            let sql = format!(
                "UPDATE user_groups SET member_count = member_count + {bound} WHERE id = {group}"
            );
            execute(&site.app, &sql).await.unwrap();
        }
        assert_eq!(admin.group(&large).await.unwrap().member_count, MANY as i64 + 1);
        let developer = || Some(rights(&[AccountRole::Developer]));
        let request = adding(&account, &[&large, &small], developer());
        admin.members().add_members(request).await.unwrap();
        let given = "SELECT COUNT(*) AS n FROM group_rights";
        let none: [Value; 0] = [];
        // One row a person: those of the small group but `few` are in the large one too.
        assert_eq!(number(&site, given, none.clone()).await, MANY as i64 + 2);
        analyze(&site).await;
        assert_eq!((rows_of(&site, &one).await, rows_of(&site, &few).await), (1, 1));
        let by_large = read_by_check(&site, &one.caller, &account).await;
        let by_small = read_by_check(&site, &few.caller, &account).await;
        assert_alike(by_large, by_small);

        // The whole of it, page by page; a late page reads as little as the first.
        for order_by in ["create_time", "display_name desc"] {
            let (mut seen, mut token, mut costs) = (BTreeSet::new(), String::new(), Vec::new());
            loop {
                site.statements.start().await;
                let told = page(admin, &large, order_by, &token).await;
                let paged = site.statements.made().into_iter();
                let statement = paged.rev().find(|s| s.sql.contains("page_key")).unwrap();
                if seen.is_empty() || seen.len() > 98_000 {
                    let plan = Plan::of(&site, statement).await;
                    assert!(!plan.text.contains("SCAN group_members"), "{}", plan.text);
                    costs.push(plan.rows.unwrap_or(0.0));
                }
                let count = seen.len() + told.members.len();
                seen.extend(told.members.into_iter().map(|m| m.user));
                assert_eq!(seen.len(), count, "none comes twice");
                token = told.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(seen.len(), MANY + 1, "{order_by}");
            // A page and one row more, of edges and of users.
            assert!(costs.len() > 1 && costs.iter().all(|rows| *rows < 2_100.0), "{costs:?}");
        }

        // One leaves, all others stay; one joins; the group goes, and all of it ends.
        admin.part(&large, &[&one.name]).await.unwrap();
        refused(sees(&one.caller, &account).await, Code::PermissionDenied, "PERMISSION_MISSING");
        assert_eq!(number(&site, given, none.clone()).await, MANY as i64 + 1);
        admin.join(&large, &[&one.name]).await.unwrap();
        sees(&one.caller, &account).await.unwrap();
        remove(admin, &account, &[&member_of(&account, &large)], false).await.unwrap();
        refused(sees(&one.caller, &account).await, Code::PermissionDenied, "PERMISSION_MISSING");
        assert_eq!(number(&site, given, none).await, FEW as i64);
        let losses = admin.disband(&contoso.name, &[&large]).await.unwrap().losses;
        assert_eq!(losses.unwrap().group_member_count, MANY as i64 + 1);
    })
    .await;
}

// proves GRP-5, ROL-6
#[tokio::test]
async fn a_check_reads_no_more_for_a_member_of_2_000_groups_than_of_10() {
    both_asking(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let admin = &contoso.admin.caller;
        let many = site.person(&contoso, "many").await;
        let few = site.person(&contoso, "few").await;
        let random = match site.database {
            Database::Sqlite => "randomblob(16)",
            Database::Postgres => "gen_random_uuid()",
        };
        let (tenant, on) = (literal(&site, &contoso.name), literal(&site, &account));
        // Groups with a role each, and two different ones in turn, but for the last of each person.
        for (who, prefix, groups) in [(&many, "many", GROUPS - 1), (&few, "few", FEW - 1)] {
            let user = literal(&site, &who.name);
            for sql in [
                format!(
                    "WITH RECURSIVE s(n) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT n + 1 FROM s WHERE n < {groups}) \
                     INSERT INTO user_groups (id, tenant_id, display_name, display_name_fold, external_id, member_count, create_time, \
                     update_time, version) SELECT {random}, {tenant}, '{prefix} ' || n, '{prefix} ' || n, '', 1, n, n, 1 FROM s"
                ),
                format!(
                    "INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) \
                     SELECT id, {user}, '{prefix}', create_time FROM user_groups WHERE display_name LIKE '{prefix}%'"
                ),
                format!(
                    "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, \
                     on_behalf_ceiling, display_name_fold, create_time, update_time, version) \
                     SELECT 2, {on}, id, 4, tenant_id, CASE WHEN create_time % 2 = 0 THEN 4 ELSE 32 END, '', '', display_name_fold, \
                     create_time, 0, 1 FROM user_groups WHERE display_name LIKE '{prefix}%'"
                ),
            ] {
                assert_eq!(execute(&site.app, &sql).await.unwrap(), groups as u64, "{sql}");
            }
            // The last one comes as every group does, and has all of them worked out.
            let last = group(&contoso, "Last", &[who], None).await;
            let request = adding(&account, &[&last], Some(rights(&[AccountRole::Developer])));
            admin.members().add_members(request).await.unwrap();
        }
        analyze(&site).await;
        assert_eq!((rows_of(&site, &many).await, rows_of(&site, &few).await), (2, 2));
        let by_many = read_by_check(&site, &many.caller, &account).await;
        let by_few = read_by_check(&site, &few.caller, &account).await;
        assert_alike(by_many, by_few);
        // All of one's own groups are told, too.
        let mut request = entente::proto::directory::ListUserGroupsRequest {
            parent: many.name.clone(),
            page_size: 700,
            ..Default::default()
        };
        let mut seen = BTreeSet::new();
        loop {
            let told = many.caller.groups().list_user_groups(request.clone()).await;
            let told = told.unwrap().into_inner();
            seen.extend(told.groups.into_iter().map(|g| g.name));
            if told.next_page_token.is_empty() {
                break;
            }
            request.page_token = told.next_page_token;
        }
        assert_eq!(seen.len(), GROUPS);
    })
    .await;
}
