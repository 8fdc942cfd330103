//! Lists by page, etags, masks (COM-5 to COM-8).

pub mod far;
mod lists;
mod names;
mod rows;

use std::collections::BTreeSet;

use entente::proto::directory::{
    DeleteUserRequest, ListUsersRequest, ListUsersResponse, UpdateUserRequest, User,
};
use tonic::{Code, Status};

use crate::{
    claims::{execute, row_counts},
    harness::{Caller, Database, Site, both, fields, new_user, refused},
};

/// Inserts users without their calls: numbered, a second apart. The tenant must be the only one with an Ann.
pub async fn bulk(site: &Site, prefix: &str, n: usize) {
    let id = match site.database {
        Database::Sqlite => "randomblob(16)",
        Database::Postgres => "gen_random_uuid()",
    };
    let sql = format!(
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {n}) \
         INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, \
         recovery_email, kind, state, created_through_account, rights_asleep_until, create_time, update_time, delete_time, purge_time, version) \
         SELECT {id}, u.tenant_id, '{prefix}' || s.n, '{prefix}' || s.n, 'Bulk', 'User', '{prefix} ' || (s.n % 7), '{prefix} ' || (s.n % 7), \
         '', 1, 1, NULL, NULL, u.create_time + CAST(s.n / 3 AS bigint) * 1000000, u.update_time, NULL, NULL, 1 FROM users u, s WHERE u.user_name = 'ann'"
    );
    assert_eq!(execute(&site.app, &sql).await.unwrap(), n as u64);
}

async fn list(caller: &Caller, request: ListUsersRequest) -> Result<ListUsersResponse, Status> {
    let answer = caller.users().list_users(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Walks all pages; gives the users and how many pages there were.
async fn walk(caller: &Caller, mut request: ListUsersRequest) -> (Vec<User>, usize) {
    let (mut users, mut pages) = (Vec::new(), 0);
    loop {
        let page = list(caller, request.clone()).await.unwrap();
        users.extend(page.users);
        pages += 1;
        if page.next_page_token.is_empty() {
            return (users, pages);
        }
        request.page_token = page.next_page_token;
    }
}

fn of(parent: &str, page_size: i32) -> ListUsersRequest {
    ListUsersRequest {
        parent: parent.to_owned(),
        page_size,
        ..ListUsersRequest::default()
    }
}

// proves COM-6, COM-7
#[tokio::test]
async fn pages_hold_every_row_once_in_each_order() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        bulk(&site, "bulk", 250).await;
        for (size, pages) in [
            (0, 6),
            (1, 251),
            (100, 3),
            (250, 2),
            (251, 1),
            (1_000, 1),
            (i32::MAX, 1),
        ] {
            let (users, walked) = walk(admin, of(&contoso.name, size)).await;
            let names: BTreeSet<_> = users.iter().map(|u| u.name.clone()).collect();
            assert_eq!(
                (users.len(), names.len(), walked),
                (251, 251, pages),
                "size {size}"
            );
        }
        let negative = list(admin, of(&contoso.name, -1)).await;
        let status = refused(negative, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["page_size"]);
        for field in ["create_time", "display_name"] {
            let mut request = of(&contoso.name, 37);
            request.order_by = field.to_owned();
            let (up, _) = walk(admin, request.clone()).await;
            request.order_by = format!("{field} desc");
            let (mut down, _) = walk(admin, request).await;
            down.reverse();
            assert_eq!(up, down, "{field}");
            assert!(up.is_sorted_by_key(|u| match field {
                "create_time" => format!("{:020}", u.create_time.unwrap().seconds),
                _ => u.display_name.to_lowercase(),
            }));
            assert_eq!(up.len(), 251);
        }
    })
    .await;
}

// proves COM-6
#[tokio::test]
async fn token_is_bound_to_caller_parent_filter_and_order() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        bulk(&site, "bulk", 20).await;
        let fabrikam = site.tenant("fabrikam").await;
        let carol = site
            .person_with(&contoso, "carol", |request| {
                let user = request.user.as_mut().unwrap();
                user.directory_roles = vec![3];
            })
            .await;
        let admin = &contoso.admin.caller;
        let first = list(admin, of(&contoso.name, 5)).await.unwrap();
        let good = ListUsersRequest {
            page_token: first.next_page_token.clone(),
            ..of(&contoso.name, 5)
        };
        list(admin, good.clone()).await.unwrap();
        // The size of a page may change on the way.
        list(
            admin,
            ListUsersRequest {
                page_size: 7,
                ..good.clone()
            },
        )
        .await
        .unwrap();
        let mut forged = first.next_page_token.clone();
        let last = forged.pop().unwrap();
        forged.push(if last == 'A' { 'B' } else { 'A' });
        let bad = [
            ListUsersRequest {
                filter: "state = ACTIVE".to_owned(),
                ..good.clone()
            },
            ListUsersRequest {
                order_by: "display_name".to_owned(),
                ..good.clone()
            },
            ListUsersRequest {
                show_deleted: true,
                ..good.clone()
            },
            ListUsersRequest {
                page_token: "x".to_owned(),
                ..good.clone()
            },
            ListUsersRequest {
                page_token: first.next_page_token[3..].to_owned(),
                ..good.clone()
            },
        ];
        for request in bad {
            refused(
                list(admin, request).await,
                Code::InvalidArgument,
                "PAGE_TOKEN_INVALID",
            );
        }
        let other = list(&carol.caller, good.clone()).await;
        refused(other, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
        let parent = fabrikam.name.clone();
        let other = list(&fabrikam.admin.caller, ListUsersRequest { parent, ..good }).await;
        refused(other, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    })
    .await;
}

// proves COM-6
#[tokio::test]
async fn rows_that_come_and_go_cause_no_duplicate_and_no_gap() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        bulk(&site, "bulk", 60).await;
        let mut request = of(&contoso.name, 10);
        let (before, _) = walk(admin, request.clone()).await;
        let (mut seen, mut round) = (Vec::new(), 0);
        loop {
            let page = list(admin, request.clone()).await.unwrap();
            seen.extend(page.users.into_iter().map(|u| u.name));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
            // One already seen goes, also the very last one, and new ones come.
            round += 1;
            let name = seen[seen.len() - if round % 2 == 0 { 1 } else { 4 }].clone();
            if name != contoso.admin.name {
                let request = DeleteUserRequest {
                    name,
                    ..DeleteUserRequest::default()
                };
                admin.users().delete_user(request).await.unwrap();
            }
            admin
                .users()
                .create_user(new_user(&contoso.name, &format!("new{round}")))
                .await
                .unwrap();
        }
        let unique: BTreeSet<_> = seen.iter().collect();
        assert_eq!(unique.len(), seen.len(), "duplicates");
        assert!(before.iter().all(|u| unique.contains(&u.name)), "gaps");
    })
    .await;
}

// proves COM-7
#[tokio::test]
async fn page_reads_a_bounded_number_of_rows_and_goes_on() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        bulk(&site, "bulk", 10_500).await;
        let rare = "UPDATE users SET state = 2 WHERE user_name = 'bulk10490'";
        execute(&site.app, rare).await.unwrap();
        let request = ListUsersRequest {
            filter: "state = DISABLED".to_owned(),
            ..of(&contoso.name, 10)
        };
        let first = list(admin, request.clone()).await.unwrap();
        assert_eq!(first.users, []);
        assert!(!first.next_page_token.is_empty(), "short, with a token");
        let (found, pages) = walk(admin, request).await;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].user_name.as_str(), pages), ("bulk10490", 2));
    })
    .await;
}

// proves COM-7
#[tokio::test]
async fn faults_of_filter_and_order_name_their_field() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        for filter in [
            "nothing = 1",
            "state = NOWHERE",
            "state =",
            "(state = ACTIVE",
            "state = ACTIVE AND",
            "display_name : \"ab\"",
            "create_time > \"yesterday\"",
        ] {
            let request = ListUsersRequest {
                filter: filter.to_owned(),
                ..of(&contoso.name, 0)
            };
            let status = refused(
                list(admin, request).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["filter"], "{filter}");
        }
        for order_by in [
            "nothing",
            "create_time sideways",
            "create_time,",
            "recovery_email",
        ] {
            let request = ListUsersRequest {
                order_by: order_by.to_owned(),
                ..of(&contoso.name, 0)
            };
            let status = refused(
                list(admin, request).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["order_by"], "{order_by}");
        }
        bulk(&site, "bulk", 21).await;
        for (filter, n) in [
            ("display_name : \"bulk 3\"", 3),
            ("NOT state = ACTIVE", 0),
            ("user_name = \"bulk1\" OR user_name = \"BULK2\"", 2),
            ("(user_name : \"bulk\" AND display_name != \"bulk 0\")", 18),
        ] {
            let request = ListUsersRequest {
                filter: filter.to_owned(),
                ..of(&contoso.name, 0)
            };
            assert_eq!(
                list(admin, request).await.unwrap().users.len(),
                n,
                "{filter}"
            );
        }
    })
    .await;
}

// proves COM-5, COM-8
#[tokio::test]
async fn stale_etags_bad_masks_and_losses_before_deletion() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await;
        let users = || contoso.admin.caller.users();
        let update = |paths: &[&str], etag: &str| UpdateUserRequest {
            user: Some(User {
                name: bob.name.clone(),
                given_name: "Robert".to_owned(),
                ..User::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|p| (*p).to_owned()).collect(),
            }),
            etag: etag.to_owned(),
            ..UpdateUserRequest::default()
        };
        let first = users()
            .update_user(update(&["given_name"], ""))
            .await
            .unwrap()
            .into_inner();
        users()
            .update_user(update(&["given_name"], &first.etag))
            .await
            .unwrap();
        let mut family = update(&["family_name"], &first.etag);
        family.user.as_mut().unwrap().family_name = "Other".to_owned();
        let second = users()
            .update_user(UpdateUserRequest {
                etag: String::new(),
                ..family.clone()
            })
            .await;
        assert_ne!(second.unwrap().into_inner().etag, first.etag);
        refused(
            users().update_user(family).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        for path in ["sign_in_name", "state", "nothing", "create_time"] {
            let answer = users().update_user(update(&[path], "")).await;
            refused(answer, Code::InvalidArgument, "INVALID_FIELDS");
        }
        let mut delete = DeleteUserRequest {
            name: bob.name.clone(),
            etag: first.etag.clone(),
            ..DeleteUserRequest::default()
        };
        refused(
            users().delete_user(delete.clone()).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        delete.etag.clear();
        delete.validate_only = true;
        site.settle().await;
        let before = row_counts(&site.app).await;
        let told = users()
            .delete_user(delete.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(row_counts(&site.app).await, before);
        assert!(told.losses.as_ref().unwrap().session_count > 0);
        delete.validate_only = false;
        let done = users().delete_user(delete).await.unwrap().into_inner();
        assert_eq!(done.losses, told.losses);
    })
    .await;
}
