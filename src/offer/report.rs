//! ReportService: usage of offers, recorded by the operator's services and read by publishers (OFR-3).
//!
//! A row is the units of an offer on a day, in a country, by a customer; what is recorded adds to it, by a statement that needs no lock of
//! accounts. Days are counted from 1970 on. Chunks are claimed for ever, so that none counts twice.

use std::collections::{BTreeMap, HashSet};

use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, Value};
use uuid::Uuid;

use super::{
    entity::usage::{Column, Entity, Model},
    grouped::{self, GroupBy, Told},
};
use crate::{
    access::scope::{AccountScope, OperatorScope},
    app::{Read, Tx},
    call::{Batch, Then},
    check::Violations,
    env::{DAY_US, Micros},
    error::{Error, Result},
    names::Name,
    proto::offer::{
        ExportReportRequest, ExportReportResponse, ListReportRequest, ListReportResponse,
        RecordUsageRequest, RecordUsageResponse, Usage,
    },
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
        outbox::Event,
        scope_key::ScopeKey,
        sql::{self, Type},
        time::{parse_rfc3339, rfc3339},
    },
};

/// Lines in one piece of an export: of the longest names they stay below what a message may have.
pub(super) const MOST_LINES: i64 = 4_000;
/// Entries of a message, as the proto says.
const MOST_ENTRIES: usize = 2_000;
/// Entries without an offer that an error names.
const MOST_MISSING_TOLD: usize = 100;
/// The first day that usage is recorded for: 1 January 2000.
pub(super) const FIRST_DAY: i64 = 10_957;

pub(super) const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "offer",
            ("offer_usage", "offer_id"),
            Kind::Id { parse: offer_id },
        ),
        Field::new(
            "day",
            ("offer_usage", "day"),
            Kind::Instant { parse: day_of },
        ),
        Field::new("country_code", ("offer_usage", "country_code"), Kind::Exact),
        Field::new(
            "customer",
            ("offer_usage", "customer_id"),
            Kind::Id { parse: tenant_id },
        ),
        Field::new("create_time", ("offer_usage", "create_time"), Kind::TIME),
    ],
    orders: &[
        OrderField::new("day", ("offer_usage", "day")),
        OrderField::new("create_time", ("offer_usage", "create_time")),
    ],
    id: ("offer_usage", "id"),
};

fn offer_id(name: &str) -> Option<Uuid> {
    match Name::parse(name) {
        Some(Name::Offer(_, id)) => Some(id),
        _ => None,
    }
}

fn tenant_id(name: &str) -> Option<Uuid> {
    match Name::parse(name) {
        Some(Name::Tenant(id)) => Some(id),
        _ => None,
    }
}

/// The number of a day such as `2026-11-21`.
pub(super) fn day_of(text: &str) -> Option<i64> {
    let day = parse_rfc3339(&format!("{text}T00:00:00Z"))?.div_euclid(DAY_US);
    // One spelling a day, and only days that there are.
    (day_text(day) == text).then_some(day)
}

pub(super) fn day_text(day: i64) -> String {
    let mut text = rfc3339(day.saturating_mul(DAY_US));
    text.truncate("2026-11-21".len());
    text
}

// ---- recording

pub(crate) fn check_record_usage(req: &RecordUsageRequest, v: &mut Violations) {
    for (i, entry) in req.entries.iter().enumerate().take(MOST_ENTRIES) {
        if day_of(&entry.day).is_none_or(|day| day < FIRST_DAY) {
            v.also(
                format!("entries[{i}].day"),
                "is no day from 2000 on, such as 2026-11-21",
            );
        }
    }
}

/// What is added up: offer, day, country, customer.
type Key = (Uuid, i64, String, Uuid);

/// Records a message of usage.
///
/// # Errors
/// `NOT_FOUND` naming all entries whose offer isn't there, or was never published; `INVALID_ARGUMENT` for days to come.
pub async fn record_usage(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: RecordUsageRequest,
) -> Result<RecordUsageResponse> {
    let entry_count = i32::try_from(req.entries.len()).unwrap_or(i32::MAX);
    are_there(tx, &req.entries).await?;
    let sums = sums(&req.entries, tx.now())?;
    let units = sums.values().sum::<i64>();
    add(tx, sums).await?;
    tx.touch(ScopeKey::Operator);
    tx.emit(
        Event::new("entente.offer.v1.UsageRecorded", Name::Operator)
            .with("entry_count", entry_count)
            .with("units", units),
    );
    Ok(RecordUsageResponse {
        sequence: req.sequence,
        entry_count,
    })
}

/// Refuses entries whose offer isn't there, or was never published.
async fn are_there(tx: &Tx, entries: &[Usage]) -> Result<()> {
    let names: HashSet<&str> = entries.iter().map(|e| e.offer.as_str()).collect();
    let ids: Vec<Uuid> = names.iter().filter_map(|name| offer_id(name)).collect();
    let sql = format!(
        "SELECT id, account_id FROM offers WHERE was_published AND id IN ({})",
        sql::in_ids(tx.db(), 1)
    );
    let mut there = HashSet::with_capacity(ids.len());
    for row in sql::rows_of(tx.db(), sql, [sql::ids(&ids)]).await? {
        let (account, id) = (row.try_get("", "account_id")?, row.try_get("", "id")?);
        there.insert(Name::Offer(account, id).to_string());
    }
    let missing = entries.iter().enumerate();
    let missing = missing.filter(|(_, entry)| !there.contains(&entry.offer));
    let missing = missing.take(MOST_MISSING_TOLD);
    let missing: Vec<_> = missing.map(|(i, entry)| (i, entry.offer.clone())).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::none_found("entente.dev/Offer", "entries", missing))
    }
}

fn sums(entries: &[Usage], now: Micros) -> Result<BTreeMap<Key, i64>> {
    let tomorrow = now.div_euclid(DAY_US) + 1;
    let mut sums = BTreeMap::new();
    let mut v = Violations::default();
    for (i, entry) in entries.iter().enumerate() {
        let (Some(offer), Some(day), Some(customer)) = (
            offer_id(&entry.offer),
            day_of(&entry.day),
            tenant_id(&entry.customer),
        ) else {
            return Err(Error::internal("an entry that was checked isn't whole"));
        };
        if day > tomorrow {
            v.also(format!("entries[{i}].day"), "lies in the future");
        }
        let key = (offer, day, entry.country_code.clone(), customer);
        *sums.entry(key).or_insert(0) += entry.units;
    }
    v.none()?;
    Ok(sums)
}

/// Adds to what is there, in the order of the keys, so that two at once take rows in one order.
async fn add(tx: &Tx, sums: BTreeMap<Key, i64>) -> Result<()> {
    const COLUMNS: &[(&str, Type)] = &[
        ("id", Type::Id),
        ("offer_id", Type::Id),
        ("day", Type::Number),
        ("country_code", Type::Text),
        ("customer_id", Type::Id),
        ("units", Type::Number),
    ];
    let rows = sums
        .into_iter()
        .map(|((offer, day, country, customer), units)| {
            vec![
                sql::id(tx.id()),
                sql::id(offer),
                day.into(),
                country.into(),
                sql::id(customer),
                units.into(),
            ]
        });
    let sql = format!(
        "INSERT INTO offer_usage (id, account_id, offer_id, day, country_code, customer_id, units, create_time, update_time) \
         SELECT x.id, o.account_id, x.offer_id, x.day, x.country_code, x.customer_id, x.units, $1, $1 \
         FROM ({}) x JOIN offers o ON o.id = x.offer_id WHERE 1 = 1 ORDER BY x.offer_id, x.day, x.country_code, x.customer_id \
         ON CONFLICT (offer_id, day, country_code, customer_id) \
         DO UPDATE SET units = offer_usage.units + excluded.units, update_time = excluded.update_time",
        sql::rows(tx.db(), 2, COLUMNS)
    );
    let values: [Value; 2] = [tx.now().into(), sql::table(rows.collect())];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

// ---- reading

pub(crate) fn check_list_report(req: &ListReportRequest, v: &mut Violations) {
    LISTING.check(req, v);
    grouped::check(&req.group_by, v);
    if !req.group_by.is_empty() && !req.order_by.is_empty() {
        v.also("order_by", "is of no use with group_by");
    }
}

/// Lists the usage of an account's offers.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_report(
    rd: &Read,
    scope: AccountScope,
    req: ListReportRequest,
) -> Result<ListReportResponse> {
    if let Some(by) = GroupBy::of(&req.group_by) {
        return grouped::list_groups(rd, scope, &req, by).await;
    }
    let select = Entity::find().filter(Column::AccountId.eq(scope.id()));
    let found = rd.rows::<_, Model>(&req, &LISTING, select).await?;
    let names = names_of(rd, found.rows.iter().map(|row| row.offer_id)).await?;
    let usage = found.rows.iter().map(|row| Usage {
        offer: Name::Offer(row.account_id, row.offer_id).to_string(),
        offer_display_name: names.get(&row.offer_id).cloned().unwrap_or_default(),
        day: day_text(row.day),
        country_code: row.country_code.clone(),
        customer: Name::Tenant(row.customer_id).to_string(),
        units: row.units,
    });
    let usage: Vec<Usage> = usage.collect();
    let page = found.page(usage);
    Ok(ListReportResponse {
        usage: page.items,
        next_page_token: page.next_page_token,
        groups: Vec::new(),
    })
}

/// What offers are called now.
pub(super) async fn names_of(
    rd: &Read,
    offers: impl Iterator<Item = Uuid>,
) -> Result<BTreeMap<Uuid, String>> {
    let mut offers: Vec<Uuid> = offers.collect();
    offers.sort_unstable();
    offers.dedup();
    let sql = format!(
        "SELECT v.offer_id, v.display_name FROM offers o JOIN offer_versions v ON v.offer_id = o.id AND v.number = o.latest_version \
         WHERE o.id IN ({})",
        sql::in_ids(rd.db(), 1)
    );
    let mut names = BTreeMap::new();
    for row in sql::rows_of(rd.db(), sql, [sql::ids(&offers)]).await? {
        let (id, name): (Uuid, String) = (
            row.try_get("", "offer_id")?,
            row.try_get("", "display_name")?,
        );
        names.insert(id, name);
    }
    Ok(names)
}

pub(crate) fn check_export_report(req: &ExportReportRequest, v: &mut Violations) {
    for (field, day) in [("begin_day", &req.begin_day), ("end_day", &req.end_day)] {
        if !day.is_empty() && day_of(day).is_none() {
            v.also(field, "is no day such as 2026-11-21");
        }
    }
    grouped::check(&req.group_by, v);
}

/// How far an export has come: the row that was told last, or the group.
#[derive(Debug, Default)]
pub struct Export {
    pub(super) begun: bool,
    pub(super) day: i64,
    pub(super) after: Option<Told>,
    id: Uuid,
}

/// A piece of CSV.
pub(super) struct Csv(csv::Writer<Vec<u8>>);

impl Csv {
    pub(super) fn new() -> Self {
        let mut csv = csv::WriterBuilder::new();
        Self(
            csv.terminator(csv::Terminator::CRLF)
                .from_writer(Vec::new()),
        )
    }

    pub(super) fn line(&mut self, fields: impl IntoIterator<Item: AsRef<[u8]>>) -> Result<()> {
        self.0
            .write_record(fields)
            .map_err(|e| Error::internal(format!("CSV: {e}")))
    }

    pub(super) fn batch(self, is_last: bool) -> Result<Batch<ExportReportResponse>> {
        let csv = self.0.into_inner();
        let csv = csv.map_err(|e| Error::internal(format!("CSV: {e}")))?;
        Ok(Batch {
            message: (!csv.is_empty()).then_some(ExportReportResponse { csv }),
            then: if is_last { Then::End } else { Then::More },
        })
    }
}

#[derive(FromQueryResult)]
struct Line {
    id: Uuid,
    offer_id: Uuid,
    display_name: String,
    day: i64,
    country_code: String,
    customer_id: Uuid,
    units: i64,
}

/// The next piece of CSV: a snapshot of its own, from where the last one ended.
///
/// # Errors
/// Those of the database.
pub async fn export_report(
    rd: &Read,
    scope: AccountScope,
    req: &ExportReportRequest,
    state: &mut Export,
) -> Result<Batch<ExportReportResponse>> {
    if let Some(by) = GroupBy::of(&req.group_by) {
        return grouped::export_groups(rd, scope, req, by, state).await;
    }
    let mut csv = Csv::new();
    if !state.begun {
        state.begun = true;
        state.day = day_of(&req.begin_day).unwrap_or(FIRST_DAY);
        let head = [
            "offer",
            "offer_display_name",
            "day",
            "country_code",
            "customer",
            "units",
        ];
        csv.line(head)?;
    }
    let sql = "SELECT u.id, u.offer_id, v.display_name, u.day, u.country_code, u.customer_id, u.units FROM ( \
               SELECT * FROM offer_usage WHERE account_id = $1 AND (day, id) > ($2, $3) AND day <= $4 ORDER BY day, id LIMIT $5 \
               ) u JOIN offers o ON o.id = u.offer_id JOIN offer_versions v ON v.offer_id = o.id AND v.number = o.latest_version \
               ORDER BY u.day, u.id";
    let values: [Value; 5] = [
        scope.id().into(),
        state.day.into(),
        state.id.into(),
        day_of(&req.end_day).unwrap_or(i64::MAX).into(),
        MOST_LINES.into(),
    ];
    let lines = sql::all::<Line, _>(rd.db(), sql, values).await?;
    for line in &lines {
        csv.line([
            Name::Offer(scope.id(), line.offer_id).to_string(),
            harmless(&line.display_name),
            day_text(line.day),
            harmless(&line.country_code),
            Name::Tenant(line.customer_id).to_string(),
            line.units.to_string(),
        ])?;
    }
    if let Some(last) = lines.last() {
        (state.day, state.id) = (last.day, last.id);
    }
    csv.batch(i64::try_from(lines.len()).unwrap_or(i64::MAX) < MOST_LINES)
}

/// A text that no spreadsheet takes for a formula: one that might be gets an apostrophe before it.
pub(super) fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves OFR-3
    #[test]
    fn texts_that_begin_like_formulas_are_made_harmless() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(harmless(text), format!("'{text}"));
        }
        for text in ["", "Contoso = Co", "'=1", "1-1"] {
            assert_eq!(harmless(text), text);
        }
    }

    #[test]
    fn days_have_one_spelling_and_are_real() {
        assert_eq!(day_of("1970-01-02"), Some(1));
        assert_eq!(day_of("2000-01-01"), Some(FIRST_DAY));
        assert_eq!(day_text(FIRST_DAY), "2000-01-01");
        for text in [
            "2026-02-30",
            "2026-2-3",
            "26-02-03",
            "2026-02-03Z",
            "",
            "2026-13-01",
        ] {
            assert_eq!(day_of(text), None, "{text}");
        }
    }
}
