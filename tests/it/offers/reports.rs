//! ReportService: usage recorded once, listed, and exported as CSV in constant memory.

use std::{collections::BTreeSet, time::Instant};

use entente::proto::{
    access::AccountRole,
    offer::{
        ExportReportRequest, ListReportRequest, ListReportResponse, RecordUsageRequest,
        RecordUsageResponse, ReportDimension as By, Usage, UsageGroup,
    },
    operator::OperatorRole,
};
use tonic::{Code, Response, Status};

use super::{app_offer, create, publish};
use crate::{
    claims::{count, execute},
    harness::{Caller, both, fields, refused, request_id},
    members::{add, seed},
    people::{Service, again, denied, literal, numbered_id, staff},
    processes::Setting,
    programs::publisher,
};

const CUSTOMER: &str = "tenants/01900000-0000-7000-8000-000000000001";

fn entry(offer: &str, day: &str, country: &str, units: i64) -> Usage {
    Usage {
        offer: offer.to_owned(),
        day: day.to_owned(),
        country_code: country.to_owned(),
        customer: CUSTOMER.to_owned(),
        units,
        ..Usage::default()
    }
}

fn message(run: &str, sequence: i64, entries: Vec<Usage>) -> RecordUsageRequest {
    RecordUsageRequest {
        request_id: run.to_owned(),
        sequence,
        entries,
        validate_only: false,
    }
}

async fn record(
    service: &Caller,
    messages: Vec<RecordUsageRequest>,
) -> Result<RecordUsageResponse, Status> {
    let done = service
        .reports()
        .record_usage(tokio_stream::iter(messages))
        .await;
    done.map(Response::into_inner)
}

async fn report(caller: &Caller, account: &str, filter: &str) -> Result<Vec<Usage>, Status> {
    let request = ListReportRequest {
        parent: account.to_owned(),
        filter: filter.to_owned(),
        ..ListReportRequest::default()
    };
    let done = caller.reports().list_report(request).await;
    done.map(|d| d.into_inner().usage)
}

/// All of a report as CSV; the most bytes that one piece had.
async fn export(caller: &Caller, request: ExportReportRequest) -> Result<(Vec<u8>, usize), Status> {
    let mut pieces = caller.reports().export_report(request).await?.into_inner();
    let (mut csv, mut most) = (Vec::new(), 0);
    while let Some(piece) = pieces.message().await? {
        most = most.max(piece.csv.len());
        csv.extend(piece.csv);
    }
    Ok((csv, most))
}

fn exporting(account: &str) -> ExportReportRequest {
    ExportReportRequest {
        parent: account.to_owned(),
        ..ExportReportRequest::default()
    }
}

// proves OFR-3, ROL-3, COM-4
#[tokio::test]
async fn usage_is_recorded_once_and_shown_to_those_who_may_read_reports() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = publisher(&site, &contoso, "Contoso").await;
        let tool = create(ann, &account, app_offer("=cmd()"))
            .await
            .unwrap()
            .name;
        let draft = create(ann, &account, app_offer("Draft"))
            .await
            .unwrap()
            .name;
        publish(ann, &tool).await.unwrap();
        let portal = Service::open(&site).await;
        let service = portal.caller(&site).await;
        let run = request_id();
        let first = message(
            &run,
            1,
            vec![
                entry(&tool, "2026-01-01", "FR", 2),
                entry(&tool, "2026-01-01", "FR", 3),
                entry(&tool, "2026-01-02", "DE", 7),
            ],
        );
        let second = message(&run, 2, vec![entry(&tool, "2026-01-01", "FR", 10)]);
        let done = record(&service, vec![first.clone(), second.clone()]).await;
        assert_eq!(done.unwrap().sequence, 2);
        // Again, and two at once: nothing counts twice.
        let (one, two) = tokio::join!(
            record(&service, vec![first.clone(), second.clone()]),
            record(&service, vec![first.clone(), second.clone()])
        );
        one.and(two).unwrap();
        let ann = ann.clone();
        let told = report(&ann, &account, "").await.unwrap();
        let told: Vec<_> = told
            .iter()
            .map(|u| (u.day.as_str(), u.country_code.as_str(), u.units))
            .collect();
        assert_eq!(told, [("2026-01-01", "FR", 15), ("2026-01-02", "DE", 7)]);
        let filter = format!(
            "offer = \"{tool}\" day > \"2026-01-01\" customer = \"{CUSTOMER}\" country_code = DE"
        );
        assert_eq!(report(&ann, &account, &filter).await.unwrap().len(), 1);
        let sql = "SELECT COUNT(*) AS n FROM outbox WHERE type = 'entente.offer.v1.UsageRecorded'";
        assert_eq!(count(&site.app, sql).await, 2);

        // A message is taken as a whole or not at all, and what is wrong is named.
        let bad = message(
            &request_id(),
            1,
            vec![
                entry(&tool, "2026-01-03", "FR", 1),
                entry(&draft, "2026-01-03", "FR", 1),
                entry(&tool.replace("offers/0", "offers/f"), "2026-01-03", "FR", 1),
            ],
        );
        let status = refused(
            record(&service, vec![bad]).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        assert_eq!(fields(&status), ["entries[1]", "entries[2]"]);
        for (day, units, field) in [
            ("2026-02-30", 1, "entries[0].day"),
            ("1999-12-31", 1, "entries[0].day"),
            ("2199-01-01", 1, "entries[0].day"),
            ("2026-01-03", 0, "entries[0].units"),
            ("2026-01-03", -5, "entries[0].units"),
        ] {
            let bad = message(&request_id(), 1, vec![entry(&tool, day, "FR", units)]);
            let tried = record(&service, vec![bad]).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), [field], "{day}");
        }
        assert_eq!(report(&ann, &account, "").await.unwrap().len(), 2);

        // The CSV has the same, and a name that looks like a formula is none.
        let (csv, _) = export(&ann, exporting(&account)).await.unwrap();
        let expected = format!(
            "offer,offer_display_name,day,country_code,customer,units\r\n\
             {tool},'=cmd(),2026-01-01,FR,{CUSTOMER},15\r\n\
             {tool},'=cmd(),2026-01-02,DE,{CUSTOMER},7\r\n"
        );
        assert_eq!(String::from_utf8(csv).unwrap(), expected);
        let part = ExportReportRequest {
            begin_day: "2026-01-02".to_owned(),
            end_day: "2026-01-02".to_owned(),
            ..exporting(&account)
        };
        let (csv, _) = export(&ann, part).await.unwrap();
        assert_eq!(csv.iter().filter(|b| **b == b'\n').count(), 2);

        let (dee, fin) = (
            site.person(&contoso, "dee").await,
            site.person(&contoso, "fin").await,
        );
        add(&ann, &account, &[&dee], &[AccountRole::Developer])
            .await
            .unwrap();
        add(&ann, &account, &[&fin], &[]).await.unwrap();
        let finance = 1_i64 << AccountRole::Finance as i64;
        seed(&site, &fin.member_of(&account), finance).await;
        assert_eq!(report(&dee.caller, &account, "").await.unwrap().len(), 2);
        let stranger = site.tenant("fabrikam").await.admin.caller;
        let clerk = staff(&site, "clerk", OperatorRole::OperatorFinance).await;
        for caller in [&fin.caller, &stranger, &clerk.caller, &service] {
            denied(report(caller, &account, "").await);
            denied(export(caller, exporting(&account)).await);
        }
        for caller in [&ann, &stranger, &clerk.caller, &site.operator().await] {
            let one = message(&request_id(), 1, vec![entry(&tool, "2026-01-03", "FR", 1)]);
            denied(record(caller, vec![one]).await);
        }
        // Nor days later.
        site.advance(3 * 86_400).await;
        let service = portal.caller(&site).await;
        record(&service, vec![first, second]).await.unwrap();
        let ann = crate::people::again(&site, &contoso.admin).await;
        let units = report(&ann, &account, "").await.unwrap();
        assert_eq!(units.iter().map(|u| u.units).sum::<i64>(), 22);
    })
    .await;
}

/// A page of groups.
async fn grouped(
    caller: &Caller,
    account: &str,
    by: &[By],
    change: impl FnOnce(&mut ListReportRequest),
) -> Result<ListReportResponse, Status> {
    let mut request = ListReportRequest {
        parent: account.to_owned(),
        group_by: by.iter().map(|by| *by as i32).collect(),
        ..ListReportRequest::default()
    };
    change(&mut request);
    let done = caller.reports().list_report(request).await;
    done.map(Response::into_inner)
}

/// All groups, by pages of a size.
async fn all_groups(caller: &Caller, account: &str, by: &[By], page_size: i32) -> Vec<UsageGroup> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    for _ in 0..100 {
        let page = grouped(caller, account, by, |r| {
            (r.page_size, r.page_token) = (page_size, page_token.clone());
        });
        let page = page.await.unwrap();
        assert!(page.usage.is_empty() && page.groups.len() <= usize::try_from(page_size).unwrap());
        all.extend(page.groups);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
    panic!("the pages never end");
}

// proves OFR-3, COM-6
#[tokio::test]
async fn usage_is_put_together_by_offer_period_and_country_with_its_customers() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let account = publisher(&site, &contoso, "Contoso").await;
        let mut offers = Vec::new();
        for name in ["=Tool", "Desk"] {
            let offer = create(ann, &account, app_offer(name)).await.unwrap().name;
            publish(ann, &offer).await.unwrap();
            offers.push(offer);
        }
        // IDs are in the order in which they were made.
        let (tool, desk) = (offers[0].as_str(), offers[1].as_str());
        let other = |used: Usage| Usage {
            customer: "tenants/01900000-0000-7000-8000-000000000002".to_owned(),
            ..used
        };
        let service = Service::open(&site).await.caller(&site).await;
        let used = vec![
            entry(tool, "2025-12-31", "FR", 1),
            entry(tool, "2026-01-01", "FR", 2),
            other(entry(tool, "2026-01-01", "FR", 4)),
            entry(tool, "2026-01-31", "FR", 8),
            entry(tool, "2026-01-31", "DE", 16),
            entry(desk, "2026-01-01", "FR", 32),
            entry(desk, "2026-03-01", "FR", 64),
        ];
        record(&service, vec![message(&request_id(), 1, used)])
            .await
            .unwrap();

        let told = |groups: Vec<UsageGroup>| -> Vec<String> {
            let told = groups.iter().map(|g| {
                let offer = g.offer_display_name.as_str();
                assert_eq!(g.offer.is_empty(), offer.is_empty());
                let (period, country) = (&g.period, &g.country_code);
                format!(
                    "{period}|{offer}|{country}|{}|{}",
                    g.units, g.customer_count
                )
            });
            told.collect()
        };
        let cases: [(&[By], &[&str]); 7] = [
            (
                &[By::Country, By::Month, By::Offer],
                &[
                    "2025-12|=Tool|FR|1|1",
                    "2026-01|=Tool|DE|16|1",
                    "2026-01|=Tool|FR|14|2",
                    "2026-01|Desk|FR|32|1",
                    "2026-03|Desk|FR|64|1",
                ],
            ),
            (
                &[By::Day, By::Offer],
                &[
                    "2025-12-31|=Tool||1|1",
                    "2026-01-01|=Tool||6|2",
                    "2026-01-01|Desk||32|1",
                    "2026-01-31|=Tool||24|1",
                    "2026-03-01|Desk||64|1",
                ],
            ),
            (
                &[By::Day, By::Country],
                &[
                    "2025-12-31||FR|1|1",
                    "2026-01-01||FR|38|2",
                    "2026-01-31||DE|16|1",
                    "2026-01-31||FR|8|1",
                    "2026-03-01||FR|64|1",
                ],
            ),
            (
                &[By::Day],
                &[
                    "2025-12-31|||1|1",
                    "2026-01-01|||38|2",
                    "2026-01-31|||24|1",
                    "2026-03-01|||64|1",
                ],
            ),
            (
                &[By::Month],
                &["2025-12|||1|1", "2026-01|||62|2", "2026-03|||64|1"],
            ),
            (&[By::Offer], &["|=Tool||31|2", "|Desk||96|1"]),
            (&[By::Country], &["||DE|16|1", "||FR|111|2"]),
        ];
        for (by, expected) in cases {
            for page_size in [1, 2, 50] {
                let all = all_groups(ann, &account, by, page_size).await;
                assert_eq!(told(all), expected, "{by:?} by {page_size}");
            }
        }
        let filter = format!("day >= \"2026-01-01\" country_code = FR offer = \"{tool}\"");
        let filtered = grouped(ann, &account, &[By::Month], |r| r.filter = filter);
        let filtered = filtered.await.unwrap();
        assert_eq!(told(filtered.groups), ["2026-01|||14|2"]);

        // What makes no sense is named; a token is good for its own question only.
        let refusals: [(&[By], &str, &str); 4] = [
            (&[By::Day, By::Month], "", "group_by"),
            (&[By::Offer, By::Offer], "", "group_by[1]"),
            (&[By::Unspecified], "", "group_by[0]"),
            (&[By::Offer], "day", "order_by"),
        ];
        for (by, order, field) in refusals {
            let tried = grouped(ann, &account, by, |r| r.order_by = order.to_owned()).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), [field]);
        }
        let first = grouped(ann, &account, &[By::Month], |r| r.page_size = 1).await;
        let token = first.unwrap().next_page_token;
        let tried = grouped(ann, &account, &[By::Day], |r| r.page_token = token).await;
        refused(tried, Code::InvalidArgument, "PAGE_TOKEN_INVALID");

        let request = ExportReportRequest {
            begin_day: "2026-01-01".to_owned(),
            end_day: "2026-01-31".to_owned(),
            group_by: vec![By::Offer as i32, By::Month as i32],
            ..exporting(&account)
        };
        let (csv, _) = export(ann, request).await.unwrap();
        let expected = format!(
            "month,offer,offer_display_name,units,customer_count\r\n\
             2026-01,{tool},'=Tool,30,2\r\n\
             2026-01,{desk},Desk,32,1\r\n"
        );
        assert_eq!(String::from_utf8(csv).unwrap(), expected);
        let both_periods = ExportReportRequest {
            group_by: vec![By::Day as i32, By::Month as i32],
            ..exporting(&account)
        };
        let tried = export(ann, both_periods).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["group_by"]);
        // Nothing was used of another one's.
        let northwind = site.tenant("northwind").await;
        let theirs = publisher(&site, &northwind, "Northwind").await;
        let theirs = all_groups(&northwind.admin.caller, &theirs, &[By::Offer], 50).await;
        assert!(theirs.is_empty());
        denied(grouped(&northwind.admin.caller, &account, &[By::Offer], |_| {}).await);
    })
    .await;
}

// proves OFR-3, COM-7
#[tokio::test]
async fn pages_of_months_come_short_and_few_read_very_much_at_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = publisher(&site, &contoso, "Contoso").await;
        let ann = &contoso.admin.caller;
        let tool = create(ann, &account, app_offer("Tool")).await.unwrap().name;
        let (a, o) = (literal(&site, &account), literal(&site, &tool));
        let id = numbered_id(&site, "n");
        // From 2026-01-01 on, which is day 20454: 12,000 in January, two in March, 11,000 on one day in May.
        let sql = format!(
            "WITH RECURSIVE s(n) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT n + 1 FROM s WHERE n < 23002) \
             INSERT INTO offer_usage (id, account_id, offer_id, day, country_code, customer_id, units, create_time, update_time) \
             SELECT {id}, {a}, {o}, CASE WHEN n <= 12000 THEN 20454 + n % 31 WHEN n <= 12002 THEN 20514 ELSE 20580 END, 'FR', {id}, 1, 1, 1 \
             FROM s"
        );
        execute(&site.app, &sql).await.unwrap();
        let told = |page: &ListReportResponse| {
            let groups = page.groups.iter().map(|g| (g.period.clone(), g.units));
            groups.collect::<Vec<_>>()
        };
        let first = grouped(ann, &account, &[By::Month], |_| ()).await.unwrap();
        assert_eq!(told(&first), [("2026-01".to_owned(), 12_000)]);
        let token = first.next_page_token;
        let next = async || grouped(ann, &account, &[By::Month], |r| r.page_token.clone_from(&token)).await;
        let march = ("2026-03".to_owned(), 2);
        assert_eq!(told(&next().await.unwrap()), [march]);
        let months = all_groups(ann, &account, &[By::Month], 50).await;
        let months: Vec<_> = months.iter().map(|g| (&*g.period, g.units)).collect();
        assert_eq!(
            months,
            [("2026-01", 12_000), ("2026-03", 2), ("2026-05", 11_000)]
        );
        let days = all_groups(ann, &account, &[By::Day], 5).await;
        assert_eq!((days.len(), days[32].units), (33, 11_000));
        let all = grouped(ann, &account, &[By::Offer], |_| ()).await.unwrap();
        assert_eq!(all.groups[0].customer_count, 23_002);

        // While others read as much, that is refused, and what takes little isn't.
        let others = site.app.long_reads.clone();
        let places = u32::try_from(others.available_permits()).unwrap();
        let others = others.try_acquire_many_owned(places).unwrap();
        for by in [By::Month, By::Offer] {
            let refused_now = grouped(ann, &account, &[by], |_| ()).await;
            refused(refused_now, Code::ResourceExhausted, "OVERLOADED");
        }
        next().await.unwrap();
        let some_days = grouped(ann, &account, &[By::Day], |_| ()).await.unwrap();
        assert!(some_days.groups.len() > 20);
        let one_day = |r: &mut ListReportRequest| r.filter = "day >= \"2026-05-01\"".to_owned();
        grouped(ann, &account, &[By::Day], one_day).await.unwrap();
        // What was begun waits for its turn.
        let request = ExportReportRequest {
            begin_day: "2026-02-01".to_owned(),
            group_by: vec![By::Month as i32],
            ..exporting(&account)
        };
        let mut pieces = ann.reports().export_report(request).await.unwrap();
        let pieces = pieces.get_mut();
        let first = pieces.message().await.unwrap().unwrap().csv;
        assert!(first.ends_with(b"2026-03,2,2\r\n"), "{first:?}");
        let waits = std::time::Duration::from_secs(2);
        let second = tokio::time::timeout(waits, pieces.message()).await;
        assert!(second.is_err(), "{second:?}");
        drop(others);
        let last = pieces.message().await.unwrap().unwrap().csv;
        assert_eq!(last, b"2026-05,11000,11000\r\n");
        grouped(ann, &account, &[By::Offer], |_| ()).await.unwrap();
    })
    .await;
}

/// Rows of the large report; `make nightly` says more.
fn rows() -> usize {
    std::env::var("ENTENTE_USAGE_ROWS").map_or(200_000, |n| n.parse().unwrap())
}

// proves OFR-3
#[tokio::test(flavor = "multi_thread")]
async fn large_reports_are_recorded_and_exported_in_pieces() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let account = publisher(&site, &contoso, "Contoso").await;
        let ann = &contoso.admin.caller;
        let tool = create(ann, &account, app_offer("Tool")).await.unwrap().name;
        publish(ann, &tool).await.unwrap();
        let service = Service::open(&site).await.caller(&site).await;
        let run = request_id();
        let customer = |n: usize| format!("tenants/01900000-0000-7000-8000-{n:012x}");
        let used = move |n: usize, tool: &str| Usage {
            customer: customer(n / 300),
            units: 1 + i64::try_from(n % 7).unwrap(),
            ..entry(
                tool,
                &format!("2025-{:02}-{:02}", 1 + n % 12, 1 + n / 12 % 25),
                "FR",
                1,
            )
        };
        let chunks = rows() / 2_000;
        // Made as they are sent, so that this process holds no more than a few.
        let messages = (0..chunks).map({
            let (tool, run) = (tool.clone(), run.clone());
            move |chunk| {
                let entries = (chunk * 2_000..(chunk + 1) * 2_000).map(|n| used(n, &tool));
                let sequence = i64::try_from(chunk).unwrap() + 1;
                message(&run, sequence, entries.collect())
            }
        });
        let begun = Instant::now();
        let done = service
            .reports()
            .record_usage(tokio_stream::iter(messages))
            .await;
        assert_eq!(
            usize::try_from(done.unwrap().into_inner().sequence).unwrap(),
            chunks
        );
        let recorded = begun.elapsed();
        let sql = "SELECT COUNT(*) AS n FROM offer_usage";
        let there = usize::try_from(count(&site.app, sql).await).unwrap();
        assert_eq!(there, chunks * 2_000);

        // By a program of its own, in whose memory there is nothing else.
        let ann = again(&site, &contoso.admin).await;
        let setting = Setting::of(&site).await;
        let server = setting.serve(&["--enable-test-clock"]).await;
        let ann = Caller {
            channel: server.nobody().channel,
            ..ann
        };
        // Code, caches and buffers come into memory with the first quarter; the rest takes none.
        let quarter = ExportReportRequest {
            end_day: "2025-03-31".to_owned(),
            ..exporting(&account)
        };
        let mut pieces = ann.reports().export_report(quarter).await.unwrap();
        while pieces.get_mut().message().await.unwrap().is_some() {}
        let before = server.peak_memory_kib();
        let begun = Instant::now();
        let request = exporting(&account);
        let mut pieces = ann.reports().export_report(request).await;
        let pieces = pieces.as_mut().unwrap().get_mut();
        let (mut lines, mut bytes, mut days) = (0, 0, BTreeSet::new());
        let mut last = String::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            assert!(piece.csv.len() < 2 * 1_024 * 1_024, "a piece is too large");
            bytes += piece.csv.len();
            for line in std::str::from_utf8(&piece.csv).unwrap().lines() {
                let day = line.split(',').nth(2).unwrap();
                assert!(lines == 0 || last.as_str() <= day, "not in order");
                if lines > 0 {
                    last = day.to_owned();
                    days.insert(last.clone());
                }
                lines += 1;
            }
        }
        let grown = server.peak_memory_kib().saturating_sub(before);
        println!(
            "{there} rows on {:?}: recorded in {recorded:?}, {bytes} bytes exported in {:?}, peak memory +{grown} KiB",
            site.database,
            begun.elapsed()
        );
        assert_eq!((lines, days.len()), (there + 1, 300));
        // Not by the number of rows: the other three quarters of the CSV would be more.
        assert!(grown < 12 * 1_024 && bytes > grown as usize * 1_024 * 2, "{grown} KiB");

        // Put together too, by days of which a window has many.
        let before = server.peak_memory_kib();
        for (by, groups) in [(By::Month, 12), (By::Day, 300)] {
            let begun = Instant::now();
            let request = ExportReportRequest {
                group_by: vec![by as i32, By::Offer as i32, By::Country as i32],
                ..exporting(&account)
            };
            let (csv, _) = export(&ann, request).await.unwrap();
            let csv = String::from_utf8(csv).unwrap();
            let lines: Vec<&str> = csv.lines().skip(1).collect();
            let number = |line: &str, i: usize| -> usize {
                line.rsplit(',').nth(i).unwrap().parse().unwrap()
            };
            assert_eq!(lines.len(), groups);
            let units: usize = lines.iter().map(|line| number(line, 1)).sum();
            assert_eq!(units, (0..there).map(|n| 1 + n % 7).sum::<usize>());
            let customers = lines.iter().map(|line| number(line, 0)).max().unwrap();
            assert!(customers > 1 && customers <= there / 300 + 1);
            println!("put together by {by:?} in {:?}", begun.elapsed());
        }
        let grown = server.peak_memory_kib().saturating_sub(before);
        println!("peak memory +{grown} KiB");
        assert!(grown < 24 * 1_024, "{grown} KiB");
    })
    .await;
}
