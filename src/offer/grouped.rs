//! ReportService, usage put together (OFR-3): units, and how many customers used them, by offer, period and country.
//!
//! Groups come by period, then offer, then country. They are worked out as they are asked for, a window of days at a time, so a page reads a
//! bounded number of rows, or those of one period if it has more: few of these are read at once, so that others have connections too. This
//! process holds the groups of a page, and no rows.

use std::{collections::BTreeMap, time::Duration};

use prost::Message;
use sea_orm::{
    ConnectionTrait, QueryResult, Value,
    sea_query::{Alias, Condition, Expr, ExprTrait, Order, Query},
};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::report::{
    Csv, Export, FIRST_DAY, LISTING, MOST_LINES, day_of, day_text, harmless, names_of,
};
use crate::{
    access::scope::AccountScope,
    app::{App, Read},
    call::{Batch, Then},
    check::Violations,
    error::{Error, Reason, Result},
    names::Name,
    proto::offer::{
        ExportReportRequest, ExportReportResponse, ListReportRequest, ListReportResponse,
        ReportDimension, UsageGroup,
    },
    store::{filter, list, sql},
};

/// Rows that a page reads, unless its first period has more.
const PAGE_ROWS: i64 = 10_000;
/// Pages at once that read a period with more rows than that; fewer than SQLite has connections that read.
pub const LONG_READS_AT_ONCE: usize = 3;
/// Whoever leaves such a read alone keeps its place for so long: the database goes on with it.
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// What usage is put together by.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupBy {
    offer: bool,
    country: bool,
    period: Period,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Period {
    All,
    Day,
    Month,
}

impl Period {
    /// Windows that are looked through for one page; then it comes short.
    fn most_windows(self) -> usize {
        match self {
            Self::All | Self::Day => 1,
            Self::Month => 60,
        }
    }

    /// A period on the wire.
    fn text(self, day: i64) -> String {
        let mut text = day_text(day);
        match self {
            Self::All => String::new(),
            Self::Day => text,
            Self::Month => {
                text.truncate("2026-11".len());
                text
            }
        }
    }
}

impl GroupBy {
    /// That of a request; none if it wants rows.
    pub(super) fn of(dimensions: &[i32]) -> Option<Self> {
        let has = |dimension: ReportDimension| dimensions.contains(&(dimension as i32));
        (!dimensions.is_empty()).then(|| Self {
            offer: has(ReportDimension::Offer),
            country: has(ReportDimension::Country),
            period: if has(ReportDimension::Day) {
                Period::Day
            } else if has(ReportDimension::Month) {
                Period::Month
            } else {
                Period::All
            },
        })
    }

    /// The columns that tell one group of a window from the next, in the order of the groups.
    fn keys(self) -> Vec<&'static str> {
        let keys = [
            ("day", self.period == Period::Day),
            ("offer_id", self.offer),
            ("country_code", self.country),
        ];
        let keys = keys.into_iter().filter(|(_, is_key)| *is_key);
        keys.map(|(name, _)| name).collect()
    }
}

/// Adds what is wrong with what usage is to be put together by.
pub(super) fn check(dimensions: &[i32], v: &mut Violations) {
    let has = |dimension: ReportDimension| dimensions.contains(&(dimension as i32));
    if has(ReportDimension::Day) && has(ReportDimension::Month) {
        v.also("group_by", "has both DAY and MONTH");
    }
}

/// Where the next page begins.
#[derive(Clone, PartialEq, Message)]
struct Place {
    /// The first day that is still to be looked at.
    #[prost(int64, tag = "1")]
    day: i64,
    /// The group of the window from there on that was told last.
    #[prost(message, optional, tag = "2")]
    after: Option<Told>,
}

/// A group that was told; what it isn't put together by is empty.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Told {
    #[prost(int64, tag = "1")]
    day: i64,
    #[prost(bytes = "vec", tag = "2")]
    offer: Vec<u8>,
    #[prost(string, tag = "3")]
    country: String,
}

/// Usage put together.
struct Group {
    /// Of a month, a day in it.
    day: i64,
    offer: Uuid,
    country: String,
    units: i64,
    customer_count: i64,
}

impl Group {
    fn told(&self) -> Told {
        Told {
            day: self.day,
            offer: self.offer.as_bytes().to_vec(),
            country: self.country.clone(),
        }
    }
}

/// What is asked of an account's usage.
struct Asked<'a> {
    app: &'a App,
    account: Uuid,
    by: GroupBy,
    filter: Option<Condition>,
    last_day: i64,
}

fn column(name: &'static str) -> Expr {
    Expr::col((Alias::new("offer_usage"), Alias::new(name)))
}

impl Asked<'_> {
    /// The groups of a page, and where the next one begins; none if that was all.
    async fn page<C: ConnectionTrait>(
        &self,
        db: &C,
        from: Place,
        size: usize,
    ) -> Result<(Vec<Group>, Option<Place>)> {
        let mut found: Vec<Group> = Vec::new();
        let mut place = from;
        let reach = self.reach(db, place.day).await?;
        for n in 0..self.by.period.most_windows() {
            let Some(window) = self.window(db, place.day, reach).await? else {
                return Ok((found, None));
            };
            let is_long = reach.is_some_and(|reach| window.1 >= reach);
            if is_long && n > 0 {
                return Ok((found, Some(place)));
            }
            let long_read = is_long.then(|| LongRead::begin(self.app)).transpose()?;
            let wanted = size - found.len();
            let after = place.after.take();
            let groups = self.groups(db, window, after, wanted + 1).await;
            if let Some(read) = long_read {
                read.end();
            }
            let mut groups = groups?;
            let more = groups.len() > wanted;
            groups.truncate(wanted);
            // Where the page is full already, the window begins the next one.
            let told = groups.last().map(|last| Place {
                day: match self.by.period {
                    Period::Day => last.day,
                    Period::All | Period::Month => window.0,
                },
                after: Some(last.told()),
            });
            found.append(&mut groups);
            if more {
                let begin = Place {
                    day: window.0,
                    after: None,
                };
                return Ok((found, Some(told.unwrap_or(begin))));
            }
            if window.1 >= self.last_day {
                return Ok((found, None));
            }
            place = Place {
                day: window.1 + 1,
                after: None,
            };
        }
        Ok((found, Some(place)))
    }

    /// The day that has the first row beyond those of a page; none if there are fewer.
    async fn reach<C: ConnectionTrait>(&self, db: &C, from: i64) -> Result<Option<i64>> {
        let sql = "SELECT day FROM offer_usage WHERE account_id = $1 AND day >= $2 AND day <= $3 ORDER BY day, id LIMIT 1 OFFSET $4";
        let values: [Value; 4] = [
            self.account.into(),
            from.into(),
            self.last_day.into(),
            PAGE_ROWS.into(),
        ];
        let last = sql::row(db, sql, values).await?;
        Ok(last.map(|row| row.try_get("", "day")).transpose()?)
    }

    /// The first and last day of the next window from a day on, whole periods each; none if no usage follows.
    async fn window<C: ConnectionTrait>(
        &self,
        db: &C,
        from: i64,
        reach: Option<i64>,
    ) -> Result<Option<(i64, i64)>> {
        if from > self.last_day {
            return Ok(None);
        }
        let sql = "SELECT MIN(day) AS day FROM offer_usage WHERE account_id = $1 AND day >= $2 AND day <= $3";
        let values: [Value; 3] = [self.account.into(), from.into(), self.last_day.into()];
        let first = sql::row(db, sql, values).await?;
        let first: Option<i64> = first.map_or(Ok(None), |row| row.try_get("", "day"))?;
        Ok(first.map(|first| match (self.by.period, reach) {
            // Of what was told of it, too.
            (Period::All, _) => (from, self.last_day),
            (Period::Day, None) => (first, self.last_day),
            (Period::Day, Some(reach)) => (first, Ord::max(first, reach - 1)),
            (Period::Month, _) => (first, Ord::min(end_of_month(first), self.last_day)),
        }))
    }

    /// The groups of a window, in order, after the one that was told last.
    async fn groups<C: ConnectionTrait>(
        &self,
        db: &C,
        (first, last): (i64, i64),
        after: Option<Told>,
        most: usize,
    ) -> Result<Vec<Group>> {
        let keys = self.by.keys();
        let mut query = Query::select();
        query
            .from(Alias::new("offer_usage"))
            .and_where(column("account_id").eq(self.account))
            .and_where(column("day").gte(first))
            .and_where(column("day").lte(last))
            .expr_as(
                Expr::cust("CAST(SUM(offer_usage.units) AS bigint)"),
                Alias::new("units"),
            )
            .expr_as(
                Expr::cust("COUNT(DISTINCT offer_usage.customer_id)"),
                Alias::new("customer_count"),
            )
            .limit(most as u64);
        if let Some(filter) = &self.filter {
            query.cond_where(filter.clone());
        }
        for key in keys.iter().copied() {
            query
                .expr_as(column(key), Alias::new(key))
                .add_group_by([column(key)])
                .order_by_expr(column(key), Order::Asc);
        }
        if let Some(told) = after.filter(|_| !keys.is_empty()) {
            let values = keys.iter().map(|key| match *key {
                "day" => Expr::value(told.day),
                "offer_id" => Expr::value(Uuid::from_slice(&told.offer).unwrap_or_default()),
                _ => Expr::value(told.country.clone()),
            });
            let is = Expr::tuple(keys.iter().copied().map(column));
            query.and_where(ExprTrait::gt(is, Expr::tuple(values)));
        }
        let rows = db.query_all(&query).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            found.extend(self.group(row, first)?);
        }
        Ok(found)
    }

    /// A group of a row; none where nothing is put together by nothing.
    fn group(&self, row: &QueryResult, first: i64) -> Result<Option<Group>> {
        let Some(units) = row.try_get::<Option<i64>>("", "units")? else {
            return Ok(None);
        };
        Ok(Some(Group {
            day: if self.by.period == Period::Day {
                row.try_get("", "day")?
            } else {
                first
            },
            offer: if self.by.offer {
                row.try_get("", "offer_id")?
            } else {
                Uuid::nil()
            },
            country: if self.by.country {
                row.try_get("", "country_code")?
            } else {
                String::new()
            },
            units,
            customer_count: row.try_get("", "customer_count")?,
        }))
    }
}

/// A place among the reads that go through very many rows.
struct LongRead(Option<OwnedSemaphorePermit>);

impl LongRead {
    fn begin(app: &App) -> Result<Self> {
        let place = app.long_reads.clone().try_acquire_owned();
        let place = place
            .map_err(|_| Error::exhausted(Reason::Overloaded, Some(Duration::from_secs(1))))?;
        Ok(Self(Some(place)))
    }

    /// The database is done with it.
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for LongRead {
    fn drop(&mut self) {
        if let Some(place) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                tokio::time::sleep(LEFT_ALONE).await;
                drop(place);
            });
        }
    }
}

/// The last day of the month of a day.
fn end_of_month(day: i64) -> i64 {
    let text = day_text(day);
    let mut parts = text.split('-').filter_map(|part| part.parse::<i64>().ok());
    let next = match (parts.next(), parts.next()) {
        (Some(year), Some(12)) => format!("{:04}-01-01", year + 1),
        (Some(year), Some(month)) => format!("{year:04}-{:02}-01", month + 1),
        _ => String::new(),
    };
    // Beyond all calendars each day is its own period.
    day_of(&next).map_or(day, |next| next - 1)
}

/// A page of groups.
pub(super) async fn list_groups(
    rd: &Read,
    scope: AccountScope,
    req: &ListReportRequest,
    by: GroupBy,
) -> Result<ListReportResponse> {
    let filter = filter::parse(&req.filter, LISTING.fields)
        .map_err(|e| Error::field("filter", e.to_string()))?;
    let asked = Asked {
        app: rd.app(),
        account: scope.id(),
        by,
        filter: filter.map(|filter| filter.condition),
        last_day: i64::MAX,
    };
    let seal = rd.seal(req);
    let from = if req.page_token.is_empty() {
        Place {
            day: FIRST_DAY,
            after: None,
        }
    } else {
        seal.open(&req.page_token)?
    };
    let size = list::page_size(req)?;
    let (found, next) = asked.page(rd.db(), from, size).await?;
    let names = names(rd, by, &found).await?;
    let groups = found.into_iter().map(|group| UsageGroup {
        offer: offer_name(scope, by, &group),
        offer_display_name: names.get(&group.offer).cloned().unwrap_or_default(),
        period: by.period.text(group.day),
        country_code: group.country,
        units: group.units,
        customer_count: group.customer_count,
    });
    Ok(ListReportResponse {
        usage: Vec::new(),
        next_page_token: next.map_or_else(String::new, |place| seal.close(&place)),
        groups: groups.collect(),
    })
}

async fn names(rd: &Read, by: GroupBy, found: &[Group]) -> Result<BTreeMap<Uuid, String>> {
    if by.offer {
        names_of(rd, found.iter().map(|group| group.offer)).await
    } else {
        Ok(BTreeMap::new())
    }
}

fn offer_name(scope: AccountScope, by: GroupBy, group: &Group) -> String {
    if by.offer {
        Name::Offer(scope.id(), group.offer).to_string()
    } else {
        String::new()
    }
}

/// The next piece of CSV: a snapshot of its own, from where the last one ended.
pub(super) async fn export_groups(
    rd: &Read,
    scope: AccountScope,
    req: &ExportReportRequest,
    by: GroupBy,
    state: &mut Export,
) -> Result<Batch<ExportReportResponse>> {
    let mut csv = Csv::new();
    let was_begun = std::mem::replace(&mut state.begun, true);
    if !was_begun {
        state.day = day_of(&req.begin_day).unwrap_or(FIRST_DAY);
        let (day, month) = (by.period == Period::Day, by.period == Period::Month);
        let head = [
            ("day", day),
            ("month", month),
            ("offer", by.offer),
            ("offer_display_name", by.offer),
            ("country_code", by.country),
            ("units", true),
            ("customer_count", true),
        ];
        csv.line(shown(head))?;
    }
    let asked = Asked {
        app: rd.app(),
        account: scope.id(),
        by,
        filter: None,
        last_day: day_of(&req.end_day).unwrap_or(i64::MAX),
    };
    let from = Place {
        day: state.day,
        after: state.after.clone(),
    };
    let size = usize::try_from(MOST_LINES).unwrap_or(usize::MAX);
    let (found, next) = match asked.page(rd.db(), from, size).await {
        // What was begun isn't broken off for that.
        Err(error) if was_begun && error.reason() == Reason::Overloaded => {
            return Ok(Batch {
                message: None,
                then: Then::Wait,
            });
        }
        page => page?,
    };
    let names = names(rd, by, &found).await?;
    for group in &found {
        let name = names.get(&group.offer).map_or("", String::as_str);
        csv.line(shown([
            (by.period.text(group.day), by.period != Period::All),
            (offer_name(scope, by, group), by.offer),
            (harmless(name), by.offer),
            (harmless(&group.country), by.country),
            (group.units.to_string(), true),
            (group.customer_count.to_string(), true),
        ]))?;
    }
    let is_last = next.is_none();
    if let Some(next) = next {
        (state.day, state.after) = (next.day, next.after);
    }
    csv.batch(is_last)
}

/// The fields of those columns that there are.
fn shown<T, const N: usize>(columns: [(T, bool); N]) -> impl Iterator<Item = T> {
    let columns = columns.into_iter().filter(|(_, is_there)| *is_there);
    columns.map(|(field, _)| field)
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves OFR-3
    #[test]
    fn months_end_where_the_next_begin() {
        for (day, end) in [
            ("2026-02-01", "2026-02-28"),
            ("2028-02-28", "2028-02-29"),
            ("2026-12-31", "2026-12-31"),
            ("2026-12-01", "2026-12-31"),
            ("2026-01-31", "2026-01-31"),
        ] {
            assert_eq!(day_text(end_of_month(day_of(day).unwrap())), end);
        }
    }
}
