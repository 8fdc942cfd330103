//! Mails before a key expires, and what becomes of expired keys (APP-4, COM-21).

use entente::{
    proto::{directory::DirectoryRole, operator::ListMailsRequest},
    schedule,
};

use sea_orm::{ConnectionTrait as _, Statement};

use super::{delete_key, key_until, keys, now_s};
use crate::{
    claims::Replica,
    harness::{Database, Site, TenantSite, both},
    people::{
        People as _, again, application, change, eventually, id, letters, number, person_as,
        second_admin,
    },
};

const DAY: i64 = 24 * 3_600;

/// Whom mails about expiring keys were sent to, the oldest first.
async fn told(site: &Site) -> Vec<String> {
    site.settle().await;
    // The operator's people see addresses masked.
    let db = &site.app.db;
    let sql =
        "SELECT recipient FROM mails WHERE template = 'key_expiring' ORDER BY create_time, id";
    let statement = Statement::from_string(db.backend, sql);
    let rows = db.read.query_all_raw(statement).await.unwrap();
    let recipients = rows.iter().map(|row| row.try_get("", "recipient"));
    recipients.collect::<Result<_, _>>().unwrap()
}

/// A key of a new application that lives so many days; gives the application and the key.
async fn key_of_days(site: &Site, contoso: &TenantSite, days: i64) -> (String, String) {
    let admin = again(site, &contoso.admin).await;
    let app = application(&admin, &contoso.name, "Feed").await;
    let end = now_s(site).await + days * DAY;
    let key = key_until(&admin, &app.name, end).await.unwrap();
    (app.name, key.key.unwrap().name)
}

// proves APP-4
#[tokio::test]
async fn contact_and_admins_are_told_30_7_and_1_days_before_a_key_expires() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let admin = &contoso.admin.caller;
        second_admin(&site, &contoso, "carol").await;
        let dave = second_admin(&site, &contoso, "dave").await;
        admin.disable(&dave.name).await.unwrap();
        person_as(&site, &contoso, "bill", DirectoryRole::BillingAdmin).await;
        // The contact who is an admin too gets one mail, not two.
        let fabrikam = site.tenant("fabrikam").await;
        let sql = "UPDATE users SET recovery_email = 'IT@fabrikam.example' WHERE id = $1";
        change(&site, sql, [id(&fabrikam.admin.name).into()]).await;
        let (app, key) = key_of_days(&site, &contoso, 40).await;
        key_of_days(&site, &fabrikam, 20).await;

        let to_contoso = [
            "ann@contoso.example",
            "carol@contoso.example",
            "it@contoso.example",
        ];
        let mut all: Vec<&str> = Vec::new();
        let mut day = 0;
        for (next, new) in [
            (9, &[][..]),
            (11, &to_contoso),
            (12, &[]),
            (14, &["it@fabrikam.example"]),
            (20, &["it@fabrikam.example"]),
            (32, &[]),
            (34, &to_contoso),
            (38, &[]),
            (40, &to_contoso),
            (45, &[]),
        ] {
            // Just before the day is over, so that each mark is passed by nearly a day.
            site.advance((next - day) * DAY - if day == 0 { 60 } else { 0 })
                .await;
            day = next;
            all.extend(new);
            all.sort_unstable();
            let mut told = told(&site).await;
            told.sort_unstable();
            assert_eq!(told, all, "after {day} days");
        }
        let operator = site.operator().await;
        let request = ListMailsRequest {
            filter: "template = \"key_expiring\" AND recipient = \"it@contoso.example\"".to_owned(),
            ..ListMailsRequest::default()
        };
        let mails = operator.mails().list_mails(request).await.unwrap();
        assert!(mails.into_inner().mails.iter().all(|m| m.object == key));
        let hint = keys(&again(&site, &contoso.admin).await, &app).await[0]
            .hint
            .clone();
        let letters = letters(&site).await;
        let letter = letters
            .iter()
            .find(|l| l.to == "it@contoso.example" && l.text.contains("Feed"));
        assert!(letter.unwrap().text.contains(&hint));
    })
    .await;
}

// proves APP-4, COM-21
#[tokio::test]
async fn mails_that_were_missed_are_one_and_what_is_gone_is_not_told_of() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        // A key of a day needs no mail that it has a day to live.
        key_of_days(&site, &contoso, 1).await;
        key_of_days(&site, &contoso, 50).await;
        let (_, deleted) = key_of_days(&site, &contoso, 50).await;
        let admin = again(&site, &contoso.admin).await;
        delete_key(&admin, &deleted, "").await.unwrap();
        let closed = site.tenant("closed").await;
        key_of_days(&site, &closed, 50).await;
        let sql = "UPDATE tenants SET state = 2 WHERE id = $1";
        change(&site, sql, [id(&closed.name).into()]).await;
        assert!(told(&site).await.is_empty());
        // Nothing ran for weeks: of two marks that were passed, one mail is sent.
        site.advance(45 * DAY).await;
        let both = ["ann@contoso.example", "it@contoso.example"];
        let mut sent = told(&site).await;
        sent.sort_unstable();
        assert_eq!(sent, both);
        // The last mark still comes; after the end none does.
        site.advance(4 * DAY + 60).await;
        assert_eq!(told(&site).await.len(), 4);
        site.advance(3 * DAY).await;
        assert_eq!(told(&site).await.len(), 4);
    })
    .await;
}

// proves APP-4, COM-21
#[tokio::test]
async fn replicas_that_look_at_once_send_each_mail_once() {
    let site = Site::open(Database::Postgres).await;
    let url = site.url.as_ref().unwrap();
    let replicas = [Replica::open(url).await, Replica::open(url).await];
    let contoso = site.tenant("contoso").await;
    // More than one transaction tells of.
    for _ in 0..12 {
        let admin = again(&site, &contoso.admin).await;
        let app = application(&admin, &contoso.name, "Feed").await;
        for _ in 0..5 {
            let end = now_s(&site).await + 31 * DAY;
            key_until(&admin, &app.name, end).await.unwrap();
        }
    }
    site.settle().await;
    for round in 1..=2 {
        site.advance(if round == 1 { 2 } else { 23 } * DAY).await;
        let mut work = tokio::task::JoinSet::new();
        for app in [&site.app, &replicas[0].app, &replicas[1].app] {
            for _ in 0..3 {
                let app = app.clone();
                work.spawn(async move { schedule::run_due(&app).await.unwrap() });
            }
        }
        work.join_all().await;
        let sql = "SELECT COUNT(*) AS n FROM mails WHERE template = 'key_expiring'";
        let sent = async || number(&site, sql, []).await;
        // The replicas' own schedulers take their part too, and may be at it still.
        eventually(async || sent().await >= round * 60 * 2).await;
        site.settle().await;
        assert_eq!(sent().await, round * 60 * 2);
    }
}

// proves APP-4
#[tokio::test]
async fn expired_keys_are_listed_for_a_month() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let (app, key) = key_of_days(&site, &contoso, 2).await;
        let listed = async || {
            site.settle().await;
            let admin = again(&site, &contoso.admin).await;
            let all = keys(&admin, &app).await;
            all.into_iter().map(|k| k.name).collect::<Vec<_>>()
        };
        site.advance(31 * DAY).await;
        assert_eq!(listed().await, [key]);
        site.advance(2 * DAY).await;
        assert_eq!(listed().await, [""; 0]);
    })
    .await;
}
