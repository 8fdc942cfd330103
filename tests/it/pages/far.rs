//! Lists of more rows than a page may read: what lies far behind costs as little, and is found as well.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use entente::proto::account::ListMembersRequest;
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::Value as Json;
use tonic::Code;

use super::lists::{Asked, FAR, FAR_APPLICATION, FAR_GROUP, List, ROWS, STRANGE_GROUP, World};
use crate::{
    harness::{Database, Site, both, fields, refused},
    people::id,
};

/// Rows that one page of 50 may touch: those and their joins, and what a call reads beside.
const FEW: f64 = 1_000.0;

/// How the database carries out a statement.
pub struct Plan {
    /// As the database tells it.
    pub text: String,
    /// Rows that it read, where the database counts them.
    pub rows: Option<f64>,
    /// The whole, where it is told so.
    nodes: Json,
}

impl Plan {
    /// Asks the database.
    pub async fn of(site: &Site, statement: Statement) -> Self {
        let explain = match site.database {
            Database::Sqlite => "EXPLAIN QUERY PLAN",
            Database::Postgres => "EXPLAIN (ANALYZE, FORMAT JSON)",
        };
        let explained = Statement {
            sql: format!("{explain} {}", statement.sql),
            ..statement
        };
        let rows = site.app.db.read.query_all_raw(explained).await.unwrap();
        match site.database {
            Database::Sqlite => {
                let lines = rows
                    .iter()
                    .map(|r| r.try_get::<String>("", "detail").unwrap());
                Self {
                    text: lines.collect::<Vec<_>>().join("\n"),
                    rows: None,
                    nodes: Json::Null,
                }
            }
            Database::Postgres => {
                let plan: Json = rows[0].try_get_by_index(0).unwrap();
                Self {
                    text: serde_json::to_string_pretty(&plan).unwrap(),
                    rows: Some(rows_read(&plan, None)),
                    nodes: plan,
                }
            }
        }
    }

    /// Whether rows are put in order, instead of coming so.
    fn sorts(&self) -> bool {
        self.text.contains("TEMP B-TREE FOR ORDER BY") || self.text.contains("Sort\"")
    }

    /// Whether a list is walked in one of its orders.
    fn walks(&self) -> bool {
        self.text.contains("_by_time") || self.text.contains("_by_name")
    }
}

/// Rows that the nodes of a plan which read tables or indexes touched, or those which read one table.
fn rows_read(plan: &Json, of: Option<&str>) -> f64 {
    let number = |key: &str| plan[key].as_f64().unwrap_or(0.0);
    let own = match plan["Node Type"].as_str() {
        Some(node)
            if node.contains("Scan") && (of.is_none() || plan["Relation Name"].as_str() == of) =>
        {
            let rows = number("Actual Rows")
                + number("Rows Removed by Filter")
                + number("Rows Removed by Index Recheck");
            rows * number("Actual Loops").max(1.0)
        }
        _ => 0.0,
    };
    let inner: f64 = match plan {
        Json::Array(parts) => parts.iter().map(|part| rows_read(part, of)).sum(),
        Json::Object(parts) => parts.values().map(|part| rows_read(part, of)).sum(),
        _ => 0.0,
    };
    own + inner
}

/// Calls, and how much the database did for them, which is not how long it took: on SQLite steps of its machine, on PostgreSQL rows that its
/// plans for what was read touch.
pub async fn effort(site: &Site, calls: impl AsyncFnOnce()) -> f64 {
    if site.database == Database::Sqlite {
        let steps = Arc::new(AtomicU64::new(0));
        for pool in [&site.app.db.write, &site.app.db.read] {
            let pool = pool.get_sqlite_connection_pool();
            let mut all = Vec::new();
            for _ in 0..pool.options().get_max_connections() {
                all.push(pool.acquire().await.unwrap());
            }
            for connection in &mut all {
                let counted = steps.clone();
                let mut handle = connection.lock_handle().await.unwrap();
                handle.set_progress_handler(100, move || {
                    counted.fetch_add(100, Ordering::SeqCst);
                    true
                });
            }
        }
        calls().await;
        return steps.load(Ordering::SeqCst) as f64;
    }
    site.statements.start().await;
    calls().await;
    let mut rows = 0.0;
    for made in site.statements.made() {
        if made.sql.starts_with("SELECT") {
            rows += Plan::of(site, made).await.rows.unwrap();
        }
    }
    rows
}

/// The plans of the statements that read a page.
async fn plans(site: &Site, world: &World, list: List, asked: &Asked) -> Vec<Plan> {
    site.statements.start().await;
    world.ask(list, asked).await.unwrap();
    let mut plans = Vec::new();
    for made in site.statements.made() {
        if made.sql.contains("page_key") {
            plans.push(Plan::of(site, made).await);
        }
    }
    assert!(!plans.is_empty(), "{list:?}");
    plans
}

/// A token of a place so many rows behind the first.
async fn token_after(world: &World, list: List, order_by: &str, rows: usize) -> String {
    let mut asked = Asked {
        order_by: order_by.to_owned(),
        page_size: 1_000,
        ..Asked::default()
    };
    let mut passed = 0;
    while passed < rows {
        let told = world.ask(list, &asked).await.unwrap();
        passed += told.ids.len();
        asked.page_token = told.next;
        assert!(!asked.page_token.is_empty(), "{list:?} has fewer rows");
    }
    asked.page_token
}

// proves COM-6, COM-7
#[tokio::test]
async fn page_10_000_costs_what_page_1_costs_in_each_order() {
    both(async |site| {
        let world = World::open(&site).await;
        let mut faults = Vec::new();
        for list in List::ALL {
            if list.is_own() {
                // These are read by the caller's memberships, not looked for among all.
                for plan in plans(&site, &world, list, &Asked::default()).await {
                    let walks = plan.walks() && site.database == Database::Sqlite;
                    assert!(!walks, "{list:?}\n{}", plan.text);
                }
                continue;
            }
            for order in list.orders() {
                let far = token_after(&world, list, order, 10_000).await;
                let asked = |page_token: &str, page_size| Asked {
                    order_by: (*order).to_owned(),
                    page_token: page_token.to_owned(),
                    page_size,
                    ..Asked::default()
                };
                // Tokens aren't bound to the size: this is page 10,001 of pages of one row.
                for size in [1, 50] {
                    let first = plans(&site, &world, list, &asked("", size)).await;
                    let later = plans(&site, &world, list, &asked(&far, size)).await;
                    assert_eq!((first.len(), later.len()), (1, 1), "{list:?} {order}");
                    for plan in first.iter().chain(&later) {
                        let rows = plan.rows.unwrap_or(0.0);
                        if plan.sorts() || rows >= FEW {
                            faults.push(format!("{list:?} {order} {rows}\n{}", plan.text));
                        }
                    }
                }
                // With a filter that few rows pass, the end of the window is walked to on an index. What lies in the window is read
                // apart from the filter, so no more than that, and in order but where PostgreSQL reads all of it anyway.
                let filtered = Asked {
                    filter: format!("{} > \"2031-01-01T00:00:00Z\"", list.time()),
                    order_by: format!("{order} desc"),
                    ..asked("", 50)
                };
                let [end, page] = &plans(&site, &world, list, &filtered).await[..] else {
                    panic!("{list:?} {order}: not two statements");
                };
                if end.sorts() {
                    faults.push(format!("{list:?} {order} desc\n{}", end.text));
                }
                let walks = match site.database {
                    Database::Sqlite => !page.sorts(),
                    Database::Postgres => page.text.contains("Subquery Scan"),
                };
                assert!(walks, "{list:?} {order} desc\n{}", page.text);
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    })
    .await;
}

// proves VER-6
#[tokio::test]
async fn who_is_tied_to_a_company_is_found_however_many_people_the_company_has() {
    both(async |site| {
        let world = World::open(&site).await;
        site.statements.start().await;
        world.ask(List::Reviews, &Asked::default()).await.unwrap();
        let made = site.statements.made().into_iter();
        let ties: Vec<_> = made.filter(|s| s.sql.contains("former_ties")).collect();
        assert!(!ties.is_empty());
        for statement in ties {
            let plan = Plan::of(&site, statement).await;
            // A user is looked up by its name in a tenant, never looked for among all of it.
            let walks = plan.text.lines().any(|line| {
                line.ends_with("(tenant_id=?)") && line.contains(" u USING")
                    || line.ends_with("SCAN u")
            });
            assert!(!walks, "{}", plan.text);
            // Nor is anybody looked for among the members.
            for table in ["users", "grants", "group_rights"] {
                let rows = rows_read(&plan.nodes, Some(table));
                assert!(rows < FEW, "{table} {rows}\n{}", plan.text);
            }
        }
    })
    .await;
}

// proves COM-7
#[tokio::test]
async fn search_finds_a_row_beyond_the_window_on_each_list() {
    both(async |site| {
        let world = World::open(&site).await;
        let far = |list| match list {
            List::Applications => vec![FAR_APPLICATION.to_string()],
            List::Groups | List::UserGroups => vec![FAR_GROUP.to_string()],
            List::Members | List::Candidates => [FAR, FAR_APPLICATION, FAR_GROUP]
                .map(|id| id.to_string())
                .to_vec(),
            _ => vec![FAR.to_string()],
        };
        for list in List::ALL {
            for text in list.texts() {
                let expected = match *text {
                    "user_name" => vec![FAR.to_string()],
                    _ => far(list),
                };
                for filter in [
                    format!("{text} : \"EPPELI\""),
                    format!("{text} = nothing OR {text} : zep"),
                    format!("{text} : zeppelin create_time > \"2001-01-01T00:00:00Z\""),
                ] {
                    let asked = Asked {
                        filter: filter.clone(),
                        ..Asked::default()
                    };
                    let told = world.ask(list, &asked).await.unwrap();
                    let found = (told.ids, told.next);
                    assert_eq!(
                        found,
                        (expected.clone(), String::new()),
                        "{list:?} {filter}"
                    );
                }
                let search = Asked {
                    filter: format!("{text} : zeppelin"),
                    ..Asked::default()
                };
                for plan in plans(&site, &world, list, &search).await {
                    // What is found is read by its ID, not looked for along the list.
                    assert!(!plan.walks(), "{list:?} {text}\n{}", plan.text);
                    let rows = plan.rows.filter(|_| !list.is_own()).unwrap_or(0.0);
                    assert!(rows < FEW, "{list:?} {text} {rows}\n{}", plan.text);
                }
                let short = Asked {
                    filter: format!("{text} : ze"),
                    ..Asked::default()
                };
                let answer = world.ask(list, &short).await;
                let status = refused(answer, Code::InvalidArgument, "INVALID_FIELDS");
                assert_eq!(fields(&status), ["filter"], "{list:?} {text}");
            }
        }
    })
    .await;
}

// proves COM-6, COM-7
#[tokio::test]
async fn what_is_found_in_pages_comes_once_and_in_order() {
    both(async |site| {
        let world = World::open(&site).await;
        for (filter, all, pages) in [
            // Few enough for the index: no page comes short.
            ("display_name : \"bulk 3\"", ROWS / 7, 3),
            // Too many: the list is walked, a window at a time.
            ("display_name : bulk", ROWS, 15),
            ("display_name : bulk state = DISABLED", 0, 2),
        ] {
            for order_by in ["create_time", "display_name desc"] {
                let asked = Asked {
                    filter: filter.to_owned(),
                    order_by: order_by.to_owned(),
                    page_size: 700,
                    ..Asked::default()
                };
                let (ids, walked) = world.walk(List::Users, asked).await;
                let unique: BTreeSet<_> = ids.iter().collect();
                assert_eq!(
                    (ids.len(), unique.len(), walked),
                    (all, all, pages),
                    "{filter} {order_by}"
                );
            }
        }
    })
    .await;
}

// proves USR-7
#[tokio::test]
async fn users_and_members_are_found_by_group_wherever_they_stand() {
    both(async |site| {
        let world = World::open(&site).await;
        let group = |group| format!("{}/groups/{group}", world.contoso.name);
        let found = async |list, filter: String| {
            let asked = Asked {
                filter,
                ..Asked::default()
            };
            let told = world.ask(list, &asked).await.unwrap();
            (told.ids, told.next.is_empty())
        };
        let ann = id(&world.contoso.admin.name).to_string();
        let far = (vec![FAR.to_string()], true);
        let both = (vec![ann, FAR.to_string()], true);
        let nobody = (Vec::new(), true);
        for (list, of, all) in [
            (List::Users, FAR_GROUP, &both),
            (List::Users, STRANGE_GROUP, &far),
            (List::Members, FAR_GROUP, &both),
        ] {
            let filter = format!("group = \"{}\"", group(of));
            assert_eq!(found(list, filter.clone()).await, *all, "{list:?} {filter}");
            let filter = format!("{filter} display_name : zeppelin");
            assert_eq!(found(list, filter.clone()).await, far, "{list:?} {filter}");
            let filter = format!("group != \"{}\" user_name : zeppelin", group(of));
            assert_eq!(
                found(list, filter.clone()).await,
                nobody,
                "{list:?} {filter}"
            );
        }
        for (active, shown) in [(true, far), (false, nobody.clone())] {
            let filter = format!("user_name : zeppelin active = {active}");
            assert_eq!(found(List::Members, filter).await, shown, "{active}");
        }
        // Who is in a group that is no member of the account isn't shown there.
        let filter = format!("group = \"{}\"", group(STRANGE_GROUP));
        assert_eq!(found(List::Members, filter).await, nobody);
        let request = ListMembersRequest {
            parent: world.account.clone(),
            filter: "group = nothing".to_owned(),
            ..ListMembersRequest::default()
        };
        let answer = world
            .contoso
            .admin
            .caller
            .members()
            .list_members(request)
            .await;
        let status = refused(answer, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["filter"]);
    })
    .await;
}

// proves COM-6
#[tokio::test]
async fn pages_of_the_longest_rows_come_short_instead_of_too_large_for_a_message() {
    both(async |site| {
        let world = World::open(&site).await;
        // Longer than any field may be, so that the test holds whatever fields come.
        let long = format!(
            "UPDATE users SET display_name = '{}' WHERE create_time BETWEEN 1800000000000000 AND 1900000400000000",
            "n".repeat(5_000)
        );
        world.execute(&site, &long).await;
        let mut asked = Asked {
            page_size: 1_000,
            ..Asked::default()
        };
        let (mut ids, mut bytes) = (Vec::new(), 0);
        while ids.len() < 1_000 {
            let told = world.ask(List::Members, &asked).await.unwrap();
            assert!(told.bytes < 4 * 1_024 * 1_024, "{}", told.bytes);
            assert!(!told.ids.is_empty() && !told.next.is_empty());
            ids.extend(told.ids);
            bytes += told.bytes;
            asked.page_token = told.next;
        }
        let unique: BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        let thousand = bytes / ids.len() * 1_000;
        assert!(thousand > 4 * 1_024 * 1_024, "as one page: {thousand}");
    })
    .await;
}
