//! The queue of reviews (VER-6): claimed, released, timed out, never two people's, and nobody's who is tied to the company.

use entente::proto::{
    account::{
        Account, ClaimReviewRequest, GetReviewRequest, ListReviewsRequest, NetworkMembership,
        ReleaseReviewRequest, Review, ReviewKind, ReviewState,
    },
    operator::OperatorRole,
};
use futures_util::future::join_all;
use tonic::{Code, Response, Status};

use crate::{
    attacks::replica,
    claims::execute,
    enrolment::{all_in_one, member_tenant, open, update, whole},
    harness::{Caller, Database, Person, Site, both, refused, request_id},
    network::contact,
    pages::far::effort,
    people::{
        again, audited, denied, events, eventually, identity, literal, number, operator_tenant,
        staff,
    },
};

/// A reviewer.
pub async fn reviewer(site: &Site, user_name: &str) -> Person {
    staff(site, user_name, OperatorRole::OperatorReviewer).await
}

pub async fn claim(caller: &Caller, name: &str) -> Result<Review, Status> {
    let request = ClaimReviewRequest {
        name: name.to_owned(),
        ..ClaimReviewRequest::default()
    };
    let done = caller.verification().claim_review(request).await;
    done.map(Response::into_inner)
}

pub async fn release(caller: &Caller, name: &str) -> Result<Review, Status> {
    let request = ReleaseReviewRequest {
        name: name.to_owned(),
        ..ReleaseReviewRequest::default()
    };
    let done = caller.verification().release_review(request).await;
    done.map(Response::into_inner)
}

pub async fn review(caller: &Caller, name: &str) -> Result<Review, Status> {
    let name = name.to_owned();
    let done = caller
        .verification()
        .get_review(GetReviewRequest { name })
        .await;
    done.map(Response::into_inner)
}

/// The first page of the queue.
pub async fn queue(caller: &Caller, kind: ReviewKind, filter: &str) -> Vec<Review> {
    let request = ListReviewsRequest {
        kind: kind as i32,
        filter: filter.to_owned(),
        ..ListReviewsRequest::default()
    };
    let done = caller.verification().list_reviews(request).await;
    done.unwrap().into_inner().reviews
}

/// Puts something into the queue that no method of verification does; gives its name.
pub async fn queued(site: &Site, account: &str, kind: ReviewKind, submitter: &str) -> String {
    let review = format!("operator/reviews/{}", request_id());
    let sql = format!(
        "INSERT INTO reviews (id, kind, account_id, subject, submitter, note, state, more_requested, approvals_needed, decided, decision, reason, \
         decided_by, create_time, update_time, version) \
         VALUES ({}, {}, {}, '{review}', '{submitter}', '', 1, '', 1, false, 0, '', '', 1700000000000000, 1700000000000000, 1)",
        literal(site, &review),
        kind as i64,
        literal(site, account),
    );
    execute(&site.app, &sql).await.unwrap();
    review
}

#[track_caller]
pub fn involved<T: std::fmt::Debug>(tried: Result<T, Status>) {
    refused(tried, Code::PermissionDenied, "REVIEWER_INVOLVED");
}

// proves VER-6
#[tokio::test]
async fn a_review_is_claimed_released_and_timed_out_and_never_given_to_two() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let (rita, rob) = (reviewer(&site, "rita").await, reviewer(&site, "rob").await);
        let name = queued(&site, &account, ReviewKind::Offer, "").await;
        // Only reviewers.
        let admin = operator_tenant(&site).await.admin.caller;
        for caller in [&admin, &contoso.admin.caller] {
            denied(claim(caller, &name).await);
            denied(release(caller, &name).await);
            denied(review(caller, &name).await);
            let request = ListReviewsRequest::default();
            denied(caller.verification().list_reviews(request).await);
        }
        let missing = format!("operator/reviews/{}", request_id());
        refused(
            claim(&rita.caller, &missing).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        let request = ClaimReviewRequest {
            name: name.clone(),
            validate_only: true,
            ..ClaimReviewRequest::default()
        };
        let tried = rita.caller.verification().claim_review(request).await;
        assert_eq!(tried.unwrap().into_inner().state(), ReviewState::Claimed);

        // Two at once, through two servers where there can be two.
        let (channel, _folder) = replica(&site).await;
        let rob_elsewhere = Caller {
            channel,
            ..rob.caller.clone()
        };
        for _ in 0..5 {
            let callers = [&rita.caller, &rob_elsewhere, &rita.caller, &rob_elsewhere];
            let done = join_all(callers.map(|caller| claim(caller, &name))).await;
            let holders: Vec<_> = done.iter().flatten().map(|r| &r.claimed_by).collect();
            assert!(!holders.is_empty() && holders.iter().all(|h| *h == holders[0]));
            let holder = if *holders[0] == rita.name {
                &rita
            } else {
                &rob
            };
            let held = holders.len();
            let lost = done.into_iter().filter(Result::is_err);
            assert_eq!(held, 2);
            for lost in lost {
                refused(lost, Code::FailedPrecondition, "REVIEW_CLAIMED");
            }
            let other = if holder.name == rita.name {
                &rob
            } else {
                &rita
            };
            refused(
                release(&other.caller, &name).await,
                Code::FailedPrecondition,
                "REVIEW_NOT_CLAIMED",
            );
            let back = release(&holder.caller, &name).await.unwrap();
            assert_eq!(back.state(), ReviewState::Waiting);
            assert!(back.claimed_by.is_empty() && back.claim_expire_time.is_none());
        }
        let kind = "account.v1.ReviewClaimed";
        assert_eq!(events(&site, kind, &name).await, 15);

        // A claim that nobody used is over by itself.
        claim(&rita.caller, &name).await.unwrap();
        let all = ReviewKind::Unspecified;
        assert_eq!(queue(&rob.caller, all, "state = CLAIMED").await.len(), 1);
        assert!(queue(&rob.caller, all, "state = WAITING").await.is_empty());
        site.advance(29 * 60).await;
        let rob = again(&site, &rob).await;
        refused(
            claim(&rob, &name).await,
            Code::FailedPrecondition,
            "REVIEW_CLAIMED",
        );
        site.advance(2 * 60).await;
        assert_eq!(queue(&rob, all, "state = WAITING").await.len(), 1);
        claim(&rob, &name).await.unwrap();
        refused(
            release(&again(&site, &rita).await, &name).await,
            Code::FailedPrecondition,
            "REVIEW_NOT_CLAIMED",
        );
    })
    .await;
}

/// A guest of a tenant with this home, and a grant on an account if there is one; gives its ID.
async fn guest(site: &Site, tenant: &str, home: &str, account: Option<&str>) -> String {
    let user = format!("{tenant}/users/{}", request_id());
    let (it, of) = (literal(site, &user), literal(site, tenant));
    let home_tenant = literal(site, home.split("/users/").next().unwrap());
    let sql = format!(
        "INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, recovery_email, \
         kind, state, create_time, update_time, version, home_id, home_tenant_id) \
         VALUES ({it}, {of}, 'r@else.example', 'r@else.example', 'R', 'R', 'R', 'r', '', 2, 1, 1, 1, 1, {}, {home_tenant})",
        literal(site, home),
    );
    execute(&site.app, &sql).await.unwrap();
    if let Some(account) = account {
        let sql = format!(
            "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
             display_name_fold, create_time, update_time, version) VALUES (2, {}, {it}, 1, {of}, 4, '', '', 'r', 1, 1, 1)",
            literal(site, account),
        );
        execute(&site.app, &sql).await.unwrap();
    }
    user
}

// proves VER-6, ATK-23
#[tokio::test]
async fn nobody_handles_a_company_that_they_are_or_were_lately_tied_to() {
    both(async |site| {
        let (rita, rob) = (reviewer(&site, "rita").await, reviewer(&site, "rob").await);
        let contoso = member_tenant(&site, "contoso").await;
        let made = open(&contoso.admin.caller, all_in_one(whole("Contoso")))
            .await
            .unwrap();
        let account = made.account.unwrap().name;
        let name = queued(&site, &account, ReviewKind::Offer, "").await;
        claim(&rita.caller, &name).await.unwrap();
        release(&rita.caller, &name).await.unwrap();

        // A guest of the company's tenant, then one that is deleted.
        let tied = guest(&site, &contoso.name, &rita.name, None).await;
        involved(claim(&rita.caller, &name).await);
        involved(review(&rita.caller, &name).await);
        assert!(review(&rob.caller, &name).await.unwrap().company.is_some());
        let gone = format!("UPDATE users SET state = 3 WHERE id = {}", literal(&site, &tied));
        execute(&site.app, &gone).await.unwrap();
        involved(claim(&rita.caller, &name).await);
        execute(&site.app, "DELETE FROM former_ties").await.unwrap();
        claim(&rita.caller, &name).await.unwrap();
        release(&rita.caller, &name).await.unwrap();

        // A member of the account by a guest elsewhere; then one that was.
        let fabrikam = site.tenant("fabrikam").await;
        let tied = guest(&site, &fabrikam.name, &rita.name, Some(&account)).await;
        involved(claim(&rita.caller, &name).await);
        let left = format!("DELETE FROM grants WHERE principal_id = {}", literal(&site, &tied));
        execute(&site.app, &left).await.unwrap();
        involved(claim(&rita.caller, &name).await);

        // A contact, by address.
        let as_contact = |display_name: &str, email: &str| Account {
            name: account.clone(),
            company_approver: Some(entente::proto::account::Contact {
                email: email.to_owned(),
                ..contact(display_name)
            }),
            ..whole("Contoso")
        };
        let ann = &contoso.admin.caller;
        let rob_is = as_contact("Rob", "Rob@operator.example");
        update(ann, rob_is, &["company_approver"]).await.unwrap();
        // Nobody else is left, which the queue says too.
        refused(
            claim(&rob.caller, &name).await,
            Code::PermissionDenied,
            "NO_OTHER_REVIEWER",
        );
        let listed = queue(&rob.caller, ReviewKind::Offer, "").await;
        assert!(listed[0].no_other_reviewer && listed[0].legal_name == "Contoso SA");
        let rex = reviewer(&site, "rex").await;
        let listed = queue(&rob.caller, ReviewKind::Offer, "").await;
        assert!(!listed[0].no_other_reviewer);
        involved(claim(&rob.caller, &name).await);
        // And one that was.
        let other = as_contact("Alma", "alma@contoso.example");
        update(ann, other, &["company_approver"]).await.unwrap();
        involved(claim(&rob.caller, &name).await);

        // The owner, an identity with the reviewer's address.
        let owner = identity(&site, "rex@operator.example").await;
        let sql = format!(
            "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
             display_name_fold, create_time, update_time, version) VALUES (2, {}, {}, 3, {}, 2, '', '', 'r', 1, 1, 1)",
            literal(&site, &account),
            literal(&site, &owner.name),
            literal(&site, "tenants/00000000-0000-0000-0000-000000000000"),
        );
        execute(&site.app, &sql).await.unwrap();
        refused(
            claim(&rex.caller, &name).await,
            Code::PermissionDenied,
            "NO_OTHER_REVIEWER",
        );

        // Nor what they submitted.
        let theirs = site.account(&fabrikam, "Fabrikam").await;
        let own = queued(&site, &theirs, ReviewKind::Offer, &rex.name).await;
        involved(claim(&rex.caller, &own).await);
        claim(&rob.caller, &own).await.unwrap();

        // Ties are forgotten after 12 months, and not before. A job says when they ended, before time goes on here.
        let undated = "SELECT COUNT(*) AS n FROM former_ties WHERE end_time IS NULL";
        eventually(async || number(&site, undated, []).await == 0).await;
        site.advance(364 * 86_400).await;
        refused(
            claim(&again(&site, &rita).await, &name).await,
            Code::PermissionDenied,
            "NO_OTHER_REVIEWER",
        );
        site.advance(2 * 86_400).await;
        claim(&again(&site, &rita).await, &name).await.unwrap();
        site.settle().await;
        let left = "SELECT COUNT(*) AS n FROM former_ties";
        assert_eq!(number(&site, left, []).await, 0);
    })
    .await;
}

// proves VER-6, ATK-15, ATK-23
#[tokio::test]
async fn every_way_of_being_tied_counts_and_its_end_is_remembered() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let contoso = member_tenant(&site, "contoso").await;
        let made = open(&contoso.admin.caller, all_in_one(whole("Contoso"))).await;
        let made = made.unwrap().account.unwrap();
        let (account, membership) = (made.name, made.network_membership);
        let name = queued(&site, &account, ReviewKind::Offer, &contoso.admin.name).await;
        let run = async |sql: String| execute(&site.app, &sql).await.unwrap();
        let (a, t) = (literal(&site, &account), literal(&site, &contoso.name));
        let ann = literal(&site, &contoso.admin.name);
        let bea = literal(&site, &site.person(&contoso, "bea").await.name);
        // Where the ties' ends are kept, all of them.
        let forget = async || {
            for table in ["former_ties", "former_tenants", "former_contacts"] {
                run(format!("DELETE FROM {table}")).await;
            }
        };
        let address = "rita@operator.example";
        let group = literal(&site, "groups/00000000-0000-0000-0000-000000000009");
        for (tie, end, is_remembered) in [
            // A member with her recovery address.
            (
                format!("UPDATE users SET recovery_email = 'Rita@Operator.example' WHERE id = {ann}"),
                format!("UPDATE users SET recovery_email = 'ann@contoso.example' WHERE id = {ann}"),
                false,
            ),
            // One by a group, by that address.
            (
                format!(
                    "UPDATE users SET recovery_email = '{address}' WHERE id = {bea}; \
                     INSERT INTO group_rights (scope_kind, scope_id, user_id, group_id, tenant_id, roles, permissions) \
                     VALUES (2, {a}, {bea}, {group}, {t}, 1, '')"
                ),
                format!("DELETE FROM group_rights WHERE user_id = {bea}"),
                true,
            ),
            // The contact of its membership of the network.
            (
                format!("UPDATE network_memberships SET contact_email = '{address}' WHERE account_id = {a}"),
                format!("UPDATE network_memberships SET contact_email = 'paula@contoso.example' WHERE account_id = {a}"),
                false,
            ),
            // Somebody invited to a tenant of the company, by that address; then the tenant is no more the company's.
            (
                format!(
                    "UPDATE users SET kind = 2, user_name = '{address}', user_name_fold = '{address}', recovery_email = '' WHERE id = {bea}"
                ),
                format!("DELETE FROM associations WHERE account_id = {a}"),
                true,
            ),
        ] {
            claim(&rita.caller, &name).await.unwrap();
            release(&rita.caller, &name).await.unwrap();
            for statement in tie.split("; ") {
                run(statement.to_owned()).await;
            }
            refused(
                claim(&rita.caller, &name).await,
                Code::PermissionDenied,
                "NO_OTHER_REVIEWER",
            );
            let listed = queue(&rita.caller, ReviewKind::Offer, "").await;
            assert_eq!(listed[0].submitter, "", "{tie}");
            run(end).await;
            let after = claim(&rita.caller, &name).await;
            assert_eq!(after.is_err(), is_remembered, "{tie}");
            forget().await;
            if after.is_ok() {
                release(&rita.caller, &name).await.unwrap();
            }
        }
        let listed = queue(&rita.caller, ReviewKind::Offer, "").await;
        assert_eq!(listed[0].submitter, contoso.admin.name);
        // The membership's contact is remembered where it is changed by its method.
        run(format!("UPDATE network_memberships SET contact_email = '{address}' WHERE account_id = {a}")).await;
        let held = NetworkMembership {
            name: membership,
            contact: Some(contact("Paula")),
            ..NetworkMembership::default()
        };
        crate::network::update(&contoso.admin.caller, held, &["contact"], "").await.unwrap();
        refused(
            claim(&rita.caller, &name).await,
            Code::PermissionDenied,
            "NO_OTHER_REVIEWER",
        );
        // A reviewer with a new address is still the one with the old one, for 12 months.
        let me = literal(&site, &rita.name);
        run(format!("UPDATE users SET recovery_email = 'rita@new.example' WHERE id = {me}")).await;
        refused(
            claim(&rita.caller, &name).await,
            Code::PermissionDenied,
            "NO_OTHER_REVIEWER",
        );
        run("DELETE FROM former_addresses".to_owned()).await;
        claim(&rita.caller, &name).await.unwrap();
    })
    .await;
}

// proves ROL-11
#[tokio::test]
async fn each_look_at_a_review_is_audited() {
    both(async |site| {
        site.early_in_an_hour().await;
        let rita = reviewer(&site, "rita").await;
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let name = queued(&site, &account, ReviewKind::Offer, "").await;
        let looks = async |action: &str, resource: &str| {
            let seen = crate::people::audited(&site.operator().await, "operator", "")
                .await
                .unwrap();
            let action = format!("entente.account.v1.VerificationService/{action}");
            let mine = seen
                .iter()
                .filter(|e| e.action == action && e.actor == rita.name);
            mine.filter(|e| e.resources == [resource]).count()
        };
        for _ in 0..2 {
            review(&rita.caller, &name).await.unwrap();
            queue(&rita.caller, ReviewKind::Offer, "").await;
        }
        assert_eq!(looks("GetReview", &name).await, 1);
        assert_eq!(looks("ListReviews", "operator").await, 1);
    })
    .await;
}

// proves VER-6
#[tokio::test]
async fn a_company_of_many_people_is_reviewed_as_fast_as_a_small_one() {
    both(async |site| {
        let rita = reviewer(&site, "rita").await;
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let name = queued(&site, &account, ReviewKind::Offer, "").await;
        let claimed = async || {
            let calls = async || {
                claim(&rita.caller, &name).await.unwrap();
                release(&rita.caller, &name).await.unwrap();
            };
            effort(&site, calls).await
        };
        let before = claimed().await;
        // Fifty thousand members, and as many who were, all with addresses.
        let random = if site.database == Database::Postgres {
            "gen_random_uuid()"
        } else {
            "randomblob(16)"
        };
        let (a, t) = (literal(&site, &account), literal(&site, &contoso.name));
        for sql in [
            format!(
                "WITH RECURSIVE s(n) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT n + 1 FROM s WHERE n < 50000) \
                 INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, \
                 recovery_email, kind, state, create_time, update_time, version) \
                 SELECT {random}, {t}, 'm' || n, 'm' || n, 'M', 'M', 'M', 'm', 'm' || n || '@mail.example', 1, 1, 1, 1, 1 FROM s"
            ),
            format!(
                "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
                 display_name_fold, create_time, update_time, version) \
                 SELECT 2, {a}, id, 1, {t}, 2, '', '', 'm', 1, 1, 1 FROM users WHERE display_name_fold = 'm'"
            ),
            format!(
                "INSERT INTO former_ties (scope_kind, scope_id, user_id, person_id, recovery_email, email, end_time) \
                 SELECT 2, {a}, {random}, id, recovery_email, '', 9000000000000000 FROM users WHERE display_name_fold = 'm'"
            ),
        ] {
            execute(&site.app, &sql).await.unwrap();
        }
        if site.database == Database::Postgres {
            execute(&site.app, "ANALYZE").await.unwrap();
        }
        let after = claimed().await;
        // Whoever goes through all of them reads as many rows at least.
        assert!(after < before + 25_000.0, "{before} before, {after} with all of them");
    })
    .await;
}

// proves VER-6
#[tokio::test]
async fn a_long_queue_is_listed_by_age_and_not_slowed_by_its_length() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let rita = reviewer(&site, "rita").await;
        let late = queued(&site, &account, ReviewKind::NameClaim, "").await;
        let random = match site.database {
            Database::Sqlite => "randomblob(16)",
            Database::Postgres => "gen_random_uuid()",
        };
        // More that were decided than that are open, and older.
        let sql = format!(
            "WITH RECURSIVE s(n) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT n + 1 FROM s WHERE n < 200000) \
             INSERT INTO reviews (id, kind, account_id, subject, submitter, note, state, more_requested, approvals_needed, decided, decision, reason, \
             decided_by, create_time, update_time, version) \
             SELECT {random}, 5, {}, 'offers/' || n, '', '', CASE WHEN n > 100000 THEN 1 ELSE 4 END, '', 1, n <= 100000, 0, '', '', \
             1600000000000000 + n * 1000000 / 3, 0, 1 FROM s",
            literal(&site, &account)
        );
        execute(&site.app, &sql).await.unwrap();
        if site.database == Database::Postgres {
            execute(&site.app, "ANALYZE reviews").await.unwrap();
        }
        let calls = async || {
            let mut request = ListReviewsRequest::default();
            let mut times = Vec::new();
            for _ in 0..4 {
                let page = rita.caller.verification().list_reviews(request.clone()).await;
                let page = page.unwrap().into_inner();
                assert_eq!(page.reviews.len(), 50);
                times.extend(page.reviews.iter().map(|r| r.create_time.unwrap().seconds));
                request.page_token = page.next_page_token;
            }
            assert!(times.is_sorted() && times[0] >= 1_600_033_333);
            // The only one of its kind stands behind all others.
            let found = queue(&rita.caller, ReviewKind::NameClaim, "").await;
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].name, late);
            claim(&rita.caller, &late).await.unwrap();
        };
        let effort = effort(&site, calls).await;
        // Whoever goes through all that are open reads twice as many rows at least.
        assert!(effort < 50_000.0, "{effort}");
    })
    .await;
}

// proves ROL-11, COM-18
#[tokio::test]
async fn many_looks_at_once_are_answered_and_audited() {
    both(async |site| {
        site.early_in_an_hour().await;
        // More of them than there are connections: whoever held one and waited for another one would wait for all the others. Not so many
        // more that a busy machine takes longer over them than a call waits for a connection.
        let at_once = match site.database {
            Database::Sqlite => 10,
            Database::Postgres => 40,
        };
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let rita = reviewer(&site, "rita").await.caller;
        let name = queued(&site, &account, ReviewKind::Offer, "").await;
        let looks = join_all((0..at_once).map(async |i| {
            if i % 2 == 0 {
                review(&rita, &name).await.map(|found| vec![found])
            } else {
                let mut verification = rita.verification();
                let page = verification.list_reviews(ListReviewsRequest::default());
                page.await.map(|page| page.into_inner().reviews)
            }
        }));
        for seen in looks.await {
            assert_eq!(seen.unwrap()[0].name, name);
        }
        let audited = audited(&site.operator().await, "operator", "")
            .await
            .unwrap();
        let looks = |method: &str| {
            let action = format!("entente.account.v1.VerificationService/{method}");
            audited.iter().filter(|e| e.action == action).count()
        };
        // One of them a person, method and hour.
        assert_eq!((looks("GetReview"), looks("ListReviews")), (1, 1));
    })
    .await;
}
