//! Pages by key (COM-6, COM-7): a page costs the same wherever it lies, its token is bound to its query, and it reads a bounded
//! number of rows however selective the filter is.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::Message;
use sea_orm::{
    ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, Order as Direction, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select, Value,
    sea_query::{Alias, Expr, ExprTrait, SimpleExpr},
};
use uuid::Uuid;

use super::filter::{self, Field, FilterError, OrderField};
use crate::{
    check::Violations,
    error::{Error, Reason, Result},
    keys::{Keys, Purpose},
};

/// Rows a page has if the request doesn't say.
const DEFAULT_PAGE_SIZE: usize = 50;
/// Rows a page has at most.
const MAX_PAGE_SIZE: usize = 1_000;
/// Rows read for one page, whatever the filter; then the page comes short, with a token.
const MAX_ROWS_READ: u64 = 10_000;

/// What a list request asks, and of what.
pub struct Query<'a> {
    /// The keys that authenticate tokens.
    pub keys: &'a Keys,
    /// Who asks: a token is good for its own caller only.
    pub caller: &'a [u8],
    /// The method and the parent that is listed.
    pub about: &'a [&'a str],
    /// As in the request.
    pub page_size: i32,
    /// As in the request.
    pub page_token: &'a str,
    /// As in the request.
    pub filter: &'a str,
    /// As in the request.
    pub order_by: &'a str,
}

/// Where a page ended.
#[derive(Clone, PartialEq, Message)]
struct Position {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "2")]
    number: Option<i64>,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
}

/// The key of a row in an order: the ordered column's value, and the row's ID.
pub enum Key {
    /// A text column.
    Text(String, Uuid),
    /// A numeric column.
    Number(i64, Uuid),
}

/// A page of rows.
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// For the next page; empty on the last.
    pub next_page_token: String,
}

/// What a noun's list offers.
pub struct Listing {
    /// Fields to filter by.
    pub fields: &'static [Field],
    /// Fields to order by; the first is the default.
    pub orders: &'static [OrderField],
    /// Table and column of the row's ID, which makes every order total.
    pub id: filter::Column,
}

impl Listing {
    /// Adds what is wrong with a filter and an order.
    pub fn check(&self, filter: &str, order_by: &str, v: &mut Violations) {
        // Which database it is for changes the SQL, not what is refused.
        let filter = filter::parse(filter, self.fields, DbBackend::Sqlite).err();
        let order = filter::parse_order(order_by, self.orders).err();
        for (field, error) in [("filter", filter), ("order_by", order)] {
            if let Some(error) = error {
                v.also(field, error.to_string());
            }
        }
    }
}

impl Query<'_> {
    /// Reads the page of `select`, which must already be bound to its parent. `key` gives a row's key in the order named.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a bad filter, order or token; those of the database.
    pub async fn page<E, M, C>(
        &self,
        db: &C,
        select: Select<E>,
        listing: &Listing,
        key: impl Fn(&M, &'static str) -> Key,
    ) -> Result<Page<M>>
    where
        E: EntityTrait,
        M: FromQueryResult + Sized + Send + Sync,
        C: ConnectionTrait,
    {
        if self.page_size < 0 {
            return Err(Error::field("page_size", "can't be negative"));
        }
        let size = match usize::try_from(self.page_size).unwrap_or(0) {
            0 => DEFAULT_PAGE_SIZE,
            n => n.min(MAX_PAGE_SIZE),
        };
        let condition = filter::parse(self.filter, listing.fields, db.get_database_backend())
            .map_err(|e| fault("filter", &e))?;
        let order = filter::parse_order(self.order_by, listing.orders)
            .map_err(|e| fault("order_by", &e))?;
        let tuple = || -> SimpleExpr { Expr::tuple([column(order.column), column(listing.id)]) };
        let direction = || {
            if order.descending {
                Direction::Desc
            } else {
                Direction::Asc
            }
        };
        let ordered = |select: Select<E>| {
            select
                .order_by(column(order.column), direction())
                .order_by(column(listing.id), direction())
        };

        let mut select = select;
        if !self.page_token.is_empty() {
            let after = self.open(self.page_token)?;
            select = select.filter(past(tuple(), &after, order.descending, true));
        }
        let mut window_end = None;
        if let Some(condition) = condition {
            // The window: at most so many rows from here on are looked at; its end is found on the index alone.
            let mut end = ordered(select.clone()).select_only().into_query();
            end.expr_as(column(order.column), Alias::new("k"))
                .expr_as(column(listing.id), Alias::new("i"));
            end.limit(1).offset(MAX_ROWS_READ - 1);
            if let Some(row) = db.query_one(&end).await? {
                let id: Uuid = row.try_get("", "i")?;
                let position = match row.try_get::<i64>("", "k") {
                    Ok(number) => position(Key::Number(number, id)),
                    Err(_) => position(Key::Text(row.try_get("", "k")?, id)),
                };
                select = select.filter(past(tuple(), &position, !order.descending, false));
                window_end = Some(position);
            }
            select = select.filter(condition);
        }
        let mut rows: Vec<M> = ordered(select)
            .limit(size as u64 + 1)
            .into_model::<M>()
            .all(db)
            .await?;
        let more = rows.len() > size;
        rows.truncate(size);
        let next = if more {
            rows.last().map(|row| position(key(row, order.field)))
        } else {
            window_end
        };
        Ok(Page {
            rows,
            next_page_token: next.map_or_else(String::new, |p| self.seal(&p)),
        })
    }

    fn mac(&self, payload: &[u8]) -> [u8; 32] {
        let mut parts: Vec<&[u8]> = vec![
            self.caller,
            self.filter.as_bytes(),
            self.order_by.as_bytes(),
            payload,
        ];
        parts.extend(self.about.iter().map(|a| a.as_bytes()));
        self.keys.mac(Purpose::Page, &parts)
    }

    fn seal(&self, position: &Position) -> String {
        let payload = position.encode_to_vec();
        let mut token = self.mac(&payload)[..16].to_vec();
        token.extend_from_slice(&payload);
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    fn open(&self, token: &str) -> Result<Position> {
        let refused = || {
            Error::argument(
                Reason::PageTokenInvalid,
                "page_token",
                "is not one of this query",
            )
        };
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| refused())?;
        let (mac, payload) = bytes.split_at_checked(16).ok_or_else(refused)?;
        if !bool::from(subtle::ConstantTimeEq::ct_eq(mac, &self.mac(payload)[..16])) {
            return Err(refused());
        }
        let position = Position::decode(payload).map_err(|_| refused())?;
        if position.id.len() != 16 || (position.text.is_none() == position.number.is_none()) {
            return Err(refused());
        }
        Ok(position)
    }
}

fn position(key: Key) -> Position {
    match key {
        Key::Text(text, id) => Position {
            text: Some(text),
            number: None,
            id: id.as_bytes().to_vec(),
        },
        Key::Number(number, id) => Position {
            text: None,
            number: Some(number),
            id: id.as_bytes().to_vec(),
        },
    }
}

fn column(of: filter::Column) -> SimpleExpr {
    Expr::col((Alias::new(of.0), Alias::new(of.1)))
}

/// The rows past a position (or up to and with it, turned round, for the end of the window).
fn past(tuple: SimpleExpr, position: &Position, descending: bool, strictly: bool) -> SimpleExpr {
    let id = Uuid::from_slice(&position.id).unwrap_or_default();
    let value: Value = match (&position.text, position.number) {
        (Some(text), _) => text.clone().into(),
        (None, number) => number.unwrap_or(0).into(),
    };
    let there = Expr::tuple([Expr::value(value), Expr::value(id)]);
    match (descending, strictly) {
        (false, true) => ExprTrait::gt(tuple, there),
        (true, true) => ExprTrait::lt(tuple, there),
        (false, false) => ExprTrait::gte(tuple, there),
        (true, false) => ExprTrait::lte(tuple, there),
    }
}

fn fault(field: &'static str, error: &FilterError) -> Error {
    Error::field(field, error.to_string())
}

/// Text folded for comparing and searching: Unicode lower case.
#[must_use]
pub fn fold(text: &str) -> String {
    text.to_lowercase()
}
