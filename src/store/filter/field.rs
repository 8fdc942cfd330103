//! The fields that a list offers to filter and order by.

use uuid::Uuid;

use crate::store::time::parse_rfc3339;

/// A column, as the names of its table (or the table's alias in the query) and of itself.
pub type Column = (&'static str, &'static str);

/// An index of trigrams over a column of folded texts, which finds IDs of its table's rows: on PostgreSQL by itself; on SQLite it is the
/// FTS5 table named as the table with `_search` behind, which has a column of the same name, and knows rows by their `row_number`.
#[derive(Clone, Copy, Debug)]
pub struct Trigrams {
    /// The table, with a column `id`.
    pub table: &'static str,
    /// The column of texts.
    pub column: &'static str,
}

/// Rows of the list paired with another resource, such as users with groups: a table that is indexed by both.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// The table or view of pairs.
    pub table: &'static str,
    /// Its column that holds what the field's column holds.
    pub row: &'static str,
    /// Its column of the other resource's ID.
    pub with: &'static str,
    /// A further column of pairs, and the column of the list that must hold the same.
    pub within: Option<(&'static str, Column)>,
    /// Reads the other resource's name; `None` if it's malformed.
    pub parse: fn(&str) -> Option<Uuid>,
}

/// What kind of values a field has, and so which operators it takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text, compared regardless of case on a column that holds the folded form ([`super::fold`]). Takes `=`, `!=` and `:`; `:` finds a
    /// substring of at least [`super::MIN_SUBSTRING_CHARS`], `=` and `!=` with a `*` at the value's end compare the beginning. The column
    /// must hold no upper-case ASCII letters, as SQLite's LIKE would take them for lower-case ones and PostgreSQL's would not. The indexes
    /// find the same texts, between them all, and give the IDs of the list's rows.
    Text(&'static [Trigrams]),
    /// Text compared as it is, on a column that is not folded, such as names of methods and resources.
    /// Takes `=` and `!=`, and no `*`: SQLite's LIKE would ignore case.
    Exact,
    /// One of a closed set, as pairs of the API's name and the number in the column, an `i64`.
    /// Takes `=`, `!=`, and `:` as `=`. Names are matched exactly.
    Enum(&'static [(&'static str, i64)]),
    /// A set of names, as pairs of the API's name and its bits in the column, an `i64`. Takes `:`,
    /// and `=` as `:`; both hold if all the name's bits are set, whatever else is.
    Flags(&'static [(&'static str, i64)]),
    /// A point in time, in microseconds since the epoch, as an `i64`. Takes `=`, `!=`, `<`, `<=`,
    /// `>` and `>=`.
    Instant {
        /// Reads an RFC 3339 time; `None` if it's malformed or out of range.
        parse: fn(&str) -> Option<i64>,
    },
    /// `true` or `false`. Takes `=` and `!=`.
    Bool,
    /// A resource, by name or ID, on a column of UUIDs. Takes `=` and `!=`.
    Id {
        /// Reads the name or ID; `None` if it's malformed.
        parse: fn(&str) -> Option<Uuid>,
    },
    /// A resource that the row is paired with, by name, where a row may have many. Takes `=` and `!=`, which ask whether it is one of
    /// them.
    Paired(Pairs),
}

impl Kind {
    /// A time in RFC 3339.
    pub const TIME: Self = Self::Instant {
        parse: parse_rfc3339,
    };

    pub(super) fn operators(self) -> &'static [&'static str] {
        match self {
            Kind::Text(_) | Kind::Enum(_) => &["=", "!=", ":"],
            Kind::Flags(_) => &[":", "="],
            Kind::Instant { .. } => &["=", "!=", "<", "<=", ">", ">="],
            Kind::Exact | Kind::Bool | Kind::Id { .. } | Kind::Paired(_) => &["=", "!="],
        }
    }
}

/// A field that a filter may name.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The API's name, such as `create_time`; may have dots, and must not be `AND`, `OR` or `NOT`.
    pub name: &'static str,
    /// The column to compare; NULL where the field has no value.
    pub column: Column,
    /// What it holds.
    pub kind: Kind,
}

impl Field {
    /// A field.
    #[must_use]
    pub const fn new(name: &'static str, column: Column, kind: Kind) -> Self {
        Self { name, column, kind }
    }
}

/// A field that `order_by` may name. An index must serve it: behind the columns that bind the list to its parent, its column, then that
/// of the row's ID.
#[derive(Clone, Copy, Debug)]
pub struct OrderField {
    /// The API's name, such as `create_time`.
    pub name: &'static str,
    /// The column to sort by: a text or a 64-bit number, never NULL.
    pub column: Column,
    /// The direction if `order_by` is empty and this is the first field. A field that is named
    /// without a direction is ascending whatever this says.
    pub descending: bool,
}

impl OrderField {
    /// A field that ascends.
    #[must_use]
    pub const fn new(name: &'static str, column: Column) -> Self {
        Self {
            name,
            column,
            descending: false,
        }
    }
}

/// What to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its column.
    pub column: Column,
    /// Whether the greatest comes first.
    pub descending: bool,
}
