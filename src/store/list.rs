//! Pages by key (COM-6, COM-7): a page costs the same wherever it lies, its token is bound to its request, it reads a bounded number of
//! rows however selective the filter is, and it stays below what a message may have.
//!
//! A filter is applied to the rows of a window: so many in the list's order, from the token on. But where indexes find all rows that may
//! pass, and they are few, these are read instead, wherever in the list they stand.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::Message;
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, EntityTrait, FromQueryResult, JoinType, Order as Direction,
    QueryResult, QueryTrait, Select,
    sea_query::{Alias, Asterisk, Expr, ExprTrait, Query, SelectStatement},
};
use uuid::Uuid;

pub use super::filter::fold;
use super::filter::{self, Column, Field, FilterError, Found, Order, OrderField, column};
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
/// Bytes of items in one answer; half of what a message may have, since what surrounds them isn't counted.
const MOST_BYTES: usize = 2 * 1_024 * 1_024;

/// A request for a page. `build.rs` makes this for every request with these fields, and sees to it that a list has them all.
pub trait ListRequest: Sync {
    /// Items wanted at most; 0 for the default.
    fn page_size(&self) -> i32;
    /// Where the page begins; empty for the first.
    fn page_token(&self) -> &str;
    /// What the items must be.
    fn filter(&self) -> &str;
    /// How they are ordered.
    fn order_by(&self) -> &str;
    /// All of the request but its size and token, encoded.
    fn question(&self) -> Vec<u8>;
}

/// Who asks for a page, and by which method.
pub struct Asker<'a> {
    /// The keys that authenticate tokens.
    pub keys: &'a Keys,
    /// The caller's key: a token is good for its own caller only.
    pub caller: Vec<u8>,
    /// `package.Service/Method`.
    pub method: &'static str,
}

/// What a noun's list offers.
pub struct Listing {
    /// Fields to filter by.
    pub fields: &'static [Field],
    /// Fields to order by; the first is the default.
    pub orders: &'static [OrderField],
    /// Table and column of the row's ID, which makes every order total. The query selects from this table, under its own name. A column
    /// `id` is unique in it, others within the parent.
    pub id: Column,
}

impl Listing {
    /// Adds what is wrong with a request's filter and order.
    pub fn check(&self, request: &impl ListRequest, v: &mut Violations) {
        let filter = filter::parse(request.filter(), self.fields).err();
        let order = filter::parse_order(request.order_by(), self.orders).err();
        for (field, error) in [("filter", filter), ("order_by", order)] {
            if let Some(error) = error {
                v.also(field, error.to_string());
            }
        }
    }
}

/// A page, as the answer has it.
#[derive(Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// For the next page; empty on the last.
    pub next_page_token: String,
}

/// The rows of a page, before they are made into what the answer shows.
pub struct Rows<'a, M> {
    /// The rows.
    pub rows: Vec<M>,
    places: Vec<Position>,
    /// Whether others follow.
    more: bool,
    window_end: Option<Position>,
    seal: Seal<'a>,
}

impl<M> Rows<'_, M> {
    /// Leaves rows out that the asker isn't to see; the next page begins where it would have.
    pub fn leave_out(&mut self, gone: impl Fn(&M) -> bool) {
        if self.more {
            self.window_end = self.places.last().cloned();
            self.more = false;
        }
        let rows = std::mem::take(&mut self.rows);
        let places = std::mem::take(&mut self.places);
        for (row, place) in rows.into_iter().zip(places) {
            if !gone(&row) {
                self.rows.push(row);
                self.places.push(place);
            }
        }
    }

    /// The page of what the rows became, item for row. It comes short where the items are too large for one answer.
    #[must_use]
    pub fn page<T: Message>(self, mut items: Vec<T>) -> Page<T> {
        let mut cut = Cut::default();
        let fits = items
            .iter()
            .take_while(|item| cut.takes(item.encoded_len()));
        let fits = fits.count();
        items.truncate(fits);
        let next = match self.places.get(..fits).and_then(<[_]>::last) {
            Some(last) if self.more || fits < self.places.len() => Some(last),
            _ => self.window_end.as_ref(),
        };
        Page {
            items,
            next_page_token: next.map_or_else(String::new, |next| self.seal.close(next)),
        }
    }
}

/// How many items a page is to have.
///
/// # Errors
/// `INVALID_ARGUMENT` for a negative size.
pub fn page_size(request: &impl ListRequest) -> Result<usize> {
    match usize::try_from(request.page_size()) {
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(n) => Ok(n.min(MAX_PAGE_SIZE)),
        Err(_) => Err(Error::field("page_size", "can't be negative")),
    }
}

/// The table of what rows show now and no column says, such as a state that time changes: filters name its columns.
const SHOWN: &str = "shown";

/// Reads the rows of a page of `select`, which must already be bound to its parent. `shown` selects what filters ask of the table `shown`: a
/// row for each of the list, by its `id`. It takes no part where there is no filter, nor in finding the window.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad size, filter, order or token; those of the database.
pub async fn rows<'a, E, M, C>(
    db: &C,
    asker: Asker<'a>,
    request: &impl ListRequest,
    listing: &Listing,
    select: Select<E>,
    shown: Option<SelectStatement>,
) -> Result<Rows<'a, M>>
where
    E: EntityTrait,
    M: FromQueryResult,
    C: ConnectionTrait,
{
    let size = page_size(request)?;
    let fault = |field, error: FilterError| Error::field(field, error.to_string());
    let filter = filter::parse(request.filter(), listing.fields).map_err(|e| fault("filter", e))?;
    let order = filter::parse_order(request.order_by(), listing.orders)
        .map_err(|e| fault("order_by", e))?;
    let order = Ordered {
        order,
        id: listing.id,
    };
    let seal = Seal::new(asker, request);
    let mut query = select.into_query();
    if !request.page_token().is_empty() {
        let after = seal.open_position(request.page_token())?;
        query.and_where(order.past(&after));
    }
    let mut window_end = None;
    if let Some(filter) = filter {
        match few(db, filter.found).await? {
            Some(found) => only(&mut query, &found, listing.id, db.get_database_backend()),
            None => {
                window_end = order.window_end(db, &query).await?;
                if let Some(end) = &window_end {
                    query.and_where(order.up_to(end));
                }
                if db.get_database_backend() == DbBackend::Postgres {
                    order.walk(&mut query);
                }
            }
        }
        if let Some(shown) = shown {
            let on = column((SHOWN, "id")).eq(column(listing.id));
            query.join_subquery(JoinType::InnerJoin, shown, Alias::new(SHOWN), on);
        }
        query.cond_where(filter.condition);
    }
    order.apply(&mut query).limit(size as u64 + 1);
    let read = db.query_all(&query).await?;
    let mut rows = Rows {
        rows: Vec::with_capacity(read.len().min(size)),
        places: Vec::with_capacity(read.len().min(size)),
        more: read.len() > size,
        window_end,
        seal,
    };
    for row in read.iter().take(size) {
        rows.rows.push(M::from_query_result(row, "")?);
        rows.places.push(Position::of(row)?);
    }
    Ok(rows)
}

/// What indexes find, if that is few enough to be read for one page.
async fn few<C: ConnectionTrait>(db: &C, found: Option<Found>) -> Result<Option<Found>> {
    let Some(found) = found else { return Ok(None) };
    let mut count = Query::select();
    let ids = found.ids(db.get_database_backend(), MAX_ROWS_READ + 1);
    count
        .expr_as(Expr::col(Asterisk).count(), Alias::new("n"))
        .from_subquery(ids, Alias::new("ids"));
    let n: i64 = match db.query_one(&count).await? {
        Some(row) => row.try_get("", "n")?,
        None => 0,
    };
    Ok(Some(found).filter(|_| n.unsigned_abs() <= MAX_ROWS_READ))
}

/// Has a query read the rows found, and no others. Asked simply whether a row is among them, the database might rather walk the list in its
/// order, and look up each row.
fn only(query: &mut SelectStatement, found: &Found, id: Column, backend: DbBackend) {
    let ids = found.ids(backend, MAX_ROWS_READ);
    if backend == DbBackend::Postgres {
        // An array is known before the rows are read, so each table's own index serves, also within a union.
        let ids = Expr::SubQuery(None, Box::new(ids.into()));
        query.and_where(Expr::cust_with_exprs(
            "$1 = ANY (ARRAY $2)",
            [column(id), ids],
        ));
        return;
    }
    let (table, alias) = (Alias::new(id.0), Alias::new("ids"));
    let mut distinct = Query::select();
    distinct
        .distinct()
        .column(Alias::new("id"))
        .from_subquery(ids, alias.clone());
    // On SQLite, CROSS JOIN keeps the order of its tables.
    let mut rows = Query::select();
    rows.column((table.clone(), Asterisk))
        .from_subquery(distinct, alias)
        .cross_join(table.clone())
        .and_where(column(id).eq(column(("ids", "id"))));
    if id.1 == "id" {
        // There are no more rows than IDs, and a limit keeps the list's parent out of the question how to find them: of a union, CROSS
        // JOIN keeps no order.
        rows.limit(MAX_ROWS_READ);
    }
    query.from_clear().from_subquery(rows, table);
}

/// How many items go into one answer, by their bytes; at least one, if there is any.
#[derive(Default)]
pub struct Cut(Option<usize>);

impl Cut {
    /// Bytes that an item has on the wire beside its own: a field's number and a length.
    const AROUND: usize = 6;

    /// Whether an item of this size still goes in.
    pub fn takes(&mut self, bytes: usize) -> bool {
        let bytes = bytes.saturating_add(Self::AROUND);
        let all = self.0.map_or(bytes, |before| before.saturating_add(bytes));
        let takes = self.0.is_none() || all <= MOST_BYTES;
        self.0 = Some(all);
        takes
    }
}

/// An order that is total.
struct Ordered {
    order: Order,
    id: Column,
}

impl Ordered {
    fn key(&self) -> Expr {
        Expr::tuple([column(self.order.column), column(self.id)])
    }

    /// The rows past a position: from it on, but for itself. By a comparison that leaves out what is equal, PostgreSQL reckons that no row has
    /// the same value, and where very many have, it would put all of them in order.
    fn past(&self, position: &Position) -> Expr {
        let from = if self.order.descending {
            ExprTrait::lte(self.key(), position.key())
        } else {
            ExprTrait::gte(self.key(), position.key())
        };
        from.and(ExprTrait::ne(self.key(), position.key()))
    }

    /// The rows up to a position, and that itself.
    fn up_to(&self, position: &Position) -> Expr {
        if self.order.descending {
            ExprTrait::gte(self.key(), position.key())
        } else {
            ExprTrait::lte(self.key(), position.key())
        }
    }

    /// Orders a query.
    fn sort<'a>(&self, query: &'a mut SelectStatement) -> &'a mut SelectStatement {
        let direction = || {
            if self.order.descending {
                Direction::Desc
            } else {
                Direction::Asc
            }
        };
        query
            .order_by_expr(column(self.order.column), direction())
            .order_by_expr(column(self.id), direction())
    }

    /// Orders a query, and has it give each row's position.
    fn apply<'a>(&self, query: &'a mut SelectStatement) -> &'a mut SelectStatement {
        query
            .expr_as(column(self.order.column), Alias::new(Position::KEY))
            .expr_as(column(self.id), Alias::new(Position::ID));
        self.sort(query)
    }

    /// Puts the window, in its order, in the place of the list's table. Were the filter beside it, PostgreSQL might take what it thinks to
    /// be few rows by another index, and sort them. An offset, even of nothing, keeps it out.
    fn walk(&self, query: &mut SelectStatement) {
        let table = Alias::new(self.id.0);
        let mut window = query.clone();
        window
            .clear_selects()
            .column((table.clone(), Asterisk))
            .offset(0);
        self.sort(&mut window);
        query.from_clear().from_subquery(window, table);
    }

    /// The last row that may be looked at for a page; none if the list ends before. It is found on the index alone.
    async fn window_end<C: ConnectionTrait>(
        &self,
        db: &C,
        query: &SelectStatement,
    ) -> Result<Option<Position>> {
        let mut end = query.clone();
        end.clear_selects();
        self.apply(&mut end).limit(1).offset(MAX_ROWS_READ - 1);
        match db.query_one(&end).await? {
            Some(row) => Ok(Some(Position::of(&row)?)),
            None => Ok(None),
        }
    }
}

/// Where a page ended: the ordered column's value, and the row's ID.
#[derive(Clone, PartialEq, Message)]
struct Position {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "2")]
    number: Option<i64>,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
}

impl Position {
    const KEY: &str = "page_key";
    const ID: &str = "page_id";

    /// That of a row.
    fn of(row: &QueryResult) -> std::result::Result<Self, DbErr> {
        let id: Uuid = row.try_get("", Self::ID)?;
        let number = row.try_get::<i64>("", Self::KEY).ok();
        let text = match number {
            Some(_) => None,
            None => Some(row.try_get("", Self::KEY)?),
        };
        Ok(Self {
            text,
            number,
            id: id.as_bytes().to_vec(),
        })
    }

    fn key(&self) -> Expr {
        let value = match &self.text {
            Some(text) => Expr::value(text.clone()),
            None => Expr::value(self.number.unwrap_or(0)),
        };
        let id = Uuid::from_slice(&self.id).unwrap_or_default();
        Expr::tuple([value, Expr::value(id)])
    }
}

/// Makes and opens the tokens of one request.
pub struct Seal<'a> {
    asker: Asker<'a>,
    /// What a token is bound to.
    question: Vec<u8>,
}

impl<'a> Seal<'a> {
    const MAC_BYTES: usize = 16;

    /// That of a request.
    #[must_use]
    pub fn new(asker: Asker<'a>, request: &impl ListRequest) -> Self {
        Self {
            asker,
            question: request.question(),
        }
    }

    fn mac(&self, payload: &[u8]) -> Vec<u8> {
        let Asker {
            keys,
            caller,
            method,
        } = &self.asker;
        let parts = [caller, method.as_bytes(), &self.question, payload];
        keys.mac(Purpose::Page, &parts)[..Self::MAC_BYTES].to_vec()
    }

    /// The token of the place where the next page begins.
    #[must_use]
    pub fn close(&self, place: &impl Message) -> String {
        let payload = place.encode_to_vec();
        let mut token = self.mac(&payload);
        token.extend_from_slice(&payload);
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    fn refused() -> Error {
        Error::argument(
            Reason::PageTokenInvalid,
            "page_token",
            "is not one of this query",
        )
    }

    /// The place of a token.
    ///
    /// # Errors
    /// `PAGE_TOKEN_INVALID` for one that wasn't made for this caller and request.
    pub fn open<P: Message + Default>(&self, token: &str) -> Result<P> {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| Self::refused())?;
        let (mac, payload) = bytes
            .split_at_checked(Self::MAC_BYTES)
            .ok_or_else(Self::refused)?;
        if !bool::from(subtle::ConstantTimeEq::ct_eq(
            mac,
            self.mac(payload).as_slice(),
        )) {
            return Err(Self::refused());
        }
        P::decode(payload).map_err(|_| Self::refused())
    }

    fn open_position(&self, token: &str) -> Result<Position> {
        let position: Position = self.open(token)?;
        if position.id.len() != 16 || (position.text.is_none() == position.number.is_none()) {
            return Err(Self::refused());
        }
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stay_below_what_a_message_may_have_and_go_on() {
        let fitting = |sizes: &[usize]| {
            let mut cut = Cut::default();
            sizes.iter().take_while(|size| cut.takes(**size)).count()
        };
        let most = MOST_BYTES - Cut::AROUND;
        assert_eq!(fitting(&[]), 0);
        assert_eq!(fitting(&[1, 2, 3]), 3);
        assert_eq!(fitting(&[most, 1]), 1);
        assert_eq!(fitting(&[most + 1, 1]), 1);
        assert_eq!(fitting(&[most - Cut::AROUND - 1, 1, 1]), 2);
        assert_eq!(fitting(&[usize::MAX, usize::MAX]), 1);
    }
}
