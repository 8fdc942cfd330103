//! Why a filter or an order is refused.

use std::fmt;

use super::{MAX_BYTES, MAX_DEPTH, MAX_TERMS, MIN_SUBSTRING_CHARS};

/// Why a filter or an `order_by` was refused. Its `Display` says where, why, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// Where, as a byte offset into the text: at most its length, and never inside a character.
    pub position: usize,
    /// The field in question, as the caller wrote it, so at most [`MAX_BYTES`] long.
    pub field: Option<String>,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a filter or an `order_by`. Its `Display` is a sentence that tells what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It doesn't follow the grammar; with a sentence on what to write instead.
    Syntax(&'static str),
    /// The field isn't one of these, which are.
    UnknownField(Vec<&'static str>),
    /// The field doesn't take the operator, but these.
    OperatorNotAllowed(&'static [&'static str]),
    /// The value isn't one of the field's; with what it must be.
    BadValue(String),
    /// A substring of fewer than [`MIN_SUBSTRING_CHARS`].
    TooShortForSubstring,
    /// More than [`MAX_BYTES`].
    TooLong,
    /// More than [`MAX_TERMS`].
    TooManyTerms,
    /// Parentheses deeper than [`MAX_DEPTH`].
    TooDeep,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Syntax(advice) => f.write_str(advice),
            Problem::UnknownField(names) => {
                let names = names.join(", ");
                write!(f, "There is no such field here; use one of {names}.")
            }
            Problem::OperatorNotAllowed(operators) => {
                let operators = operators.join(" ");
                write!(f, "The field does not take this operator, but {operators}.")
            }
            Problem::BadValue(expected) => write!(f, "The value must be {expected}."),
            Problem::TooShortForSubstring => {
                let least = MIN_SUBSTRING_CHARS;
                write!(
                    f,
                    "Write at least {least} characters, or `=ab*` to find a beginning."
                )
            }
            Problem::TooLong => write!(f, "Write at most {MAX_BYTES} bytes."),
            Problem::TooManyTerms => write!(f, "Write at most {MAX_TERMS} comparisons."),
            Problem::TooDeep => write!(f, "Nest parentheses at most {MAX_DEPTH} deep."),
        }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "At byte {}", self.position)?;
        if let Some(field) = &self.field {
            // Debug escapes what could garble a log or a terminal.
            write!(f, ", field {field:?}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for FilterError {}

pub(super) const STRAY: &str = "No parenthesis is open here; remove this one.";
pub(super) const UNCLOSED: &str = "This parenthesis is never closed; add a `)`.";
pub(super) const UNQUOTED: &str = "This quotation mark is never closed; add another like it.";
pub(super) const BACKSLASH: &str =
    "Write two backslashes for one; only a quotation mark or `*` may follow a single one.";
pub(super) const CONTROL: &str = "Remove this control character.";
pub(super) const SPACE: &str =
    "Write a space before this, or put the whole value in double quotes.";
pub(super) const COMPARISON: &str = "Write a comparison here, such as `field=value`.";
pub(super) const OPERATOR: &str =
    "Write an operator and a value after the field, such as `field=value`.";
pub(super) const VALUE: &str = "Write one value here, in double quotes unless it is a plain word.";
pub(super) const CAPITALS: &str = "Write AND, OR and NOT in capital letters.";
pub(super) const DIRECTION: &str = "Write asc, desc or nothing after the field.";
pub(super) const ONE_FIELD: &str =
    "Write one field only, and asc or desc after it, as in `name desc`.";
pub(super) const STAR: &str =
    "without `*`, except at the end after `=` or `!=`; `\\*` in quotes is a plain one";
pub(super) const WHOLE: &str = "the whole text, without `*`; `\\*` in quotes is a plain one";
pub(super) const TIME: &str = "an RFC 3339 time, such as \"2026-01-31T09:30:00Z\"";
pub(super) const RESOURCE: &str = "a name or ID of the resource that the field refers to";
