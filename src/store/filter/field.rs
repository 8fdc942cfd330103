//! The fields that a list offers to filter and order by.

use uuid::Uuid;

/// A column, as the names of its table (or the table's alias in the query) and of itself.
pub type Column = (&'static str, &'static str);

/// What kind of values a field has, and so which operators it takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text, compared regardless of case on a column that holds the folded form. Takes `=`, `!=`
    /// and `:`; `:` finds a substring of at least [`super::MIN_SUBSTRING_CHARS`], `=` and `!=` with a `*`
    /// at the value's end compare the beginning. The column must hold no upper-case ASCII letters,
    /// as SQLite's LIKE would take them for lower-case ones and PostgreSQL's would not.
    Text {
        /// Folds the value as the column's content was folded.
        fold: fn(&str) -> String,
    },
    /// As [`Kind::Text`], on a column with an index of trigrams: on PostgreSQL it is found by itself; on
    /// SQLite it is the FTS5 table `search`, which has a column of the same name, and knows rows by the
    /// `row_number` of the field's table.
    Indexed {
        /// Folds the value as the column's content was folded.
        fold: fn(&str) -> String,
        /// The FTS5 table on SQLite.
        search: &'static str,
    },
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
}

impl Kind {
    pub(super) fn operators(self) -> &'static [&'static str] {
        match self {
            Kind::Text { .. } | Kind::Indexed { .. } | Kind::Enum(_) => &["=", "!=", ":"],
            Kind::Flags(_) => &[":", "="],
            Kind::Instant { .. } => &["=", "!=", "<", "<=", ">", ">="],
            Kind::Exact | Kind::Bool | Kind::Id { .. } => &["=", "!="],
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

/// A field that `order_by` may name.
#[derive(Clone, Copy, Debug)]
pub struct OrderField {
    /// The API's name, such as `create_time`.
    pub name: &'static str,
    /// The column to sort by.
    pub column: Column,
    /// The direction if `order_by` is empty and this is the first field. A field that is named
    /// without a direction is ascending whatever this says.
    pub descending: bool,
}

/// What to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The API's name of the field.
    pub field: &'static str,
    /// Its column.
    pub column: Column,
    /// Whether the greatest comes first.
    pub descending: bool,
}
