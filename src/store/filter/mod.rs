//! The `filter` and `order_by` of list requests, as conditions for a query.
//!
//! A filter is the part of [AIP-160](https://google.aip.dev/160) that a list needs:
//!
//! ```text
//! expression = factor { [ "AND" ] factor }
//! factor     = term { "OR" term }
//! term       = [ "NOT" | "-" ] ( restriction | "(" expression ")" )
//! restriction = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" | ":" ) value
//! ```
//!
//! So `a=1 AND b=2 OR c=3` means `a=1 AND (b=2 OR c=3)`, and factors with nothing between them are
//! joined by AND. A value is a bare word or a string in `"` or `'`, in which `\"`, `\'`, `\\` and
//! `\*` stand for the character itself.
//!
//! A column that is NULL equals nothing, and no comparison with it holds: `a=1` and `a<1` leave its
//! row out, `a!=1` and `NOT a<1` keep it. So a filter and its negation part the rows in two, with
//! none lost between them.

mod fault;
mod field;
mod found;
mod parse;
mod scan;
mod sql;
#[cfg(test)]
mod tests;

pub use fault::{FilterError, Problem};
pub use field::{Column, Field, Kind, Order, OrderField, Pairs, Trigrams};
pub use found::Found;
pub use parse::{Filter, parse, parse_order};
pub(super) use sql::column;

/// The longest filter or `order_by`, in bytes. What a person or a console writes is far shorter,
/// and an error may carry a part of it back.
pub const MAX_BYTES: usize = 2_000;

/// The most restrictions in one filter: each may cost the database a test on every row.
pub const MAX_TERMS: usize = 50;

/// The deepest nesting of parentheses: the parser recurses this far, and so do the writer of SQL
/// and the database after it.
pub const MAX_DEPTH: usize = 20;

/// The shortest substring to search for, in characters after folding: an index of trigrams cannot
/// find a shorter one.
pub const MIN_SUBSTRING_CHARS: usize = 3;

/// Text folded for comparing and searching: Unicode lower case.
#[must_use]
pub fn fold(text: &str) -> String {
    text.to_lowercase()
}
