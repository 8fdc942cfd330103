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

use std::fmt;

use sea_orm::sea_query::{Alias, Expr, ExprTrait, LikeExpr, Query};
use sea_orm::{Condition, DbBackend};
use uuid::Uuid;

/// The longest filter or `order_by`, in bytes. What a person or a console writes is far shorter,
/// and an error may carry a part of it back.
pub const MAX_BYTES: usize = 2_000;

/// The most restrictions in one filter: each may cost the database a test on every row.
pub const MAX_TERMS: usize = 50;

/// The deepest nesting of parentheses: the parser recurses this far, and so do the writer of SQL
/// and the database after it.
pub const MAX_DEPTH: usize = 20;

/// The shortest substring to search for, in characters after folding: an index of trigrams cannot
/// find a shorter one, so that the database would read every row.
pub const MIN_SUBSTRING_CHARS: usize = 3;

/// A column, as the names of its table (or the table's alias in the query) and of itself.
pub type Column = (&'static str, &'static str);

/// What kind of values a field has, and so which operators it takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text, compared regardless of case on a column that holds the folded form. Takes `=`, `!=`
    /// and `:`; `:` finds a substring of at least [`MIN_SUBSTRING_CHARS`], `=` and `!=` with a `*`
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
    fn operators(self) -> &'static [&'static str] {
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

/// Turns a filter on `fields` into a condition; `None` if the filter is empty or blank.
///
/// The condition compares the fields' columns, which the query must have; all values are bound as
/// parameters. It may come out NULL for false, so join it to others by AND or OR, but don't negate
/// it.
///
/// # Errors
///
/// A [`FilterError`] if the filter doesn't follow the grammar, names another field, gives a field
/// an operator or a value that its [`Kind`] doesn't take, or exceeds [`MAX_BYTES`], [`MAX_TERMS`]
/// or [`MAX_DEPTH`].
pub fn parse(
    filter: &str,
    fields: &[Field],
    backend: DbBackend,
) -> Result<Option<Condition>, FilterError> {
    let mut parser = Parser::new(filter, fields)?;
    parser.backend = backend;
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(None);
    }
    let condition = parser.expression(false, 0)?;
    match parser.rest() {
        "" => Ok(Some(condition)),
        _ => parser.fail(parser.at, Problem::Syntax(STRAY)),
    }
}

/// Turns an `order_by`, a name of one of `fields` and perhaps `asc` or `desc` after it, into the
/// order to sort by. Empty or blank gives the first of `fields` in its own direction.
///
/// # Errors
///
/// A [`FilterError`] if it names another field (or `fields` is empty), or more than one, or exceeds
/// [`MAX_BYTES`].
pub fn parse_order(order_by: &str, fields: &[OrderField]) -> Result<Order, FilterError> {
    let mut parser = Parser::new(order_by, &[])?;
    parser.skip_space();
    let (name_at, name) = (parser.at, parser.word(false));
    parser.skip_space();
    let (direction_at, direction) = (parser.at, parser.word(false));
    parser.skip_space();
    if !matches!(direction, "" | "asc" | "desc") {
        return parser.fail(direction_at, Problem::Syntax(DIRECTION));
    }
    if !parser.rest().is_empty() {
        return parser.fail(parser.at, Problem::Syntax(ONE_FIELD));
    }
    let is_meant = |field: &&OrderField| name.is_empty() || field.name == name;
    match fields.iter().find(is_meant) {
        Some(field) => Ok(Order {
            field: field.name,
            column: field.column,
            descending: direction == "desc" || (name.is_empty() && field.descending),
        }),
        None => {
            parser.field = Some(name).filter(|name| !name.is_empty());
            let names = fields.iter().map(|field| field.name).collect();
            parser.fail(name_at, Problem::UnknownField(names))
        }
    }
}

const STRAY: &str = "No parenthesis is open here; remove this one.";
const UNCLOSED: &str = "This parenthesis is never closed; add a `)`.";
const UNQUOTED: &str = "This quotation mark is never closed; add another like it.";
const BACKSLASH: &str =
    "Write two backslashes for one; only a quotation mark or `*` may follow a single one.";
const CONTROL: &str = "Remove this control character.";
const SPACE: &str = "Write a space before this, or put the whole value in double quotes.";
const COMPARISON: &str = "Write a comparison here, such as `field=value`.";
const OPERATOR: &str = "Write an operator and a value after the field, such as `field=value`.";
const VALUE: &str = "Write one value here, in double quotes unless it is a plain word.";
const CAPITALS: &str = "Write AND, OR and NOT in capital letters.";
const DIRECTION: &str = "Write asc, desc or nothing after the field.";
const ONE_FIELD: &str = "Write one field only, and asc or desc after it, as in `name desc`.";
const STAR: &str =
    "without `*`, except at the end after `=` or `!=`; `\\*` in quotes is a plain one";
const WHOLE: &str = "the whole text, without `*`; `\\*` in quotes is a plain one";
const TIME: &str = "an RFC 3339 time, such as \"2026-01-31T09:30:00Z\"";
const RESOURCE: &str = "a name or ID of the resource that the field refers to";

/// With each operator before those that it begins with.
const OPERATORS: [&str; 7] = ["!=", "<=", ">=", "=", "<", ">", ":"];

#[derive(Default)]
struct Literal {
    text: String,
    /// Where in `text` the first `*` is that was not escaped.
    star: Option<usize>,
}

struct Parser<'a> {
    text: &'a str,
    fields: &'a [Field],
    /// How far `text` is read; always on a character's boundary.
    at: usize,
    terms: usize,
    /// The field whose comparison is being read, for errors.
    field: Option<&'a str>,
    backend: DbBackend,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, fields: &'a [Field]) -> Result<Self, FilterError> {
        let parser = Self {
            text,
            fields,
            at: 0,
            terms: 0,
            field: None,
            backend: DbBackend::Sqlite,
        };
        if text.len() > MAX_BYTES {
            return parser.fail(text.floor_char_boundary(MAX_BYTES), Problem::TooLong);
        }
        // PostgreSQL takes no NUL in text, and nobody means the others.
        match text.find(|c: char| c.is_control() && !c.is_whitespace()) {
            Some(at) => parser.fail(at, Problem::Syntax(CONTROL)),
            None => Ok(parser),
        }
    }

    fn fail<T>(&self, position: usize, problem: Problem) -> Result<T, FilterError> {
        let field = self.field.map(str::to_owned);
        Err(FilterError {
            position,
            field,
            problem,
        })
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// Takes a keyword, which must be a whole word, and the space after it.
    fn eat_keyword(&mut self, keyword: &str) -> bool {
        let start = self.at;
        let found = self.word(false) == keyword;
        if found {
            self.skip_space();
        } else {
            self.at = start;
        }
        found
    }

    /// Takes the longest run, maybe empty, of characters that mean nothing to the grammar. A value
    /// may have colons, as times have; a field is ended by one.
    fn word(&mut self, is_value: bool) -> &'a str {
        let ends = |c: char| match c {
            ':' => !is_value,
            _ => c.is_whitespace() || "()\"'\\,=<>!".contains(c),
        };
        let word = self.rest().split(ends).next().unwrap_or_default();
        self.at += word.len();
        word
    }

    // Negation is carried down to the comparisons, by De Morgan's laws: only they know which column
    // may be NULL, and NOT leaves a NULL what it is.
    fn expression(&mut self, negated: bool, depth: usize) -> Result<Condition, FilterError> {
        let mut condition = if negated {
            Condition::any()
        } else {
            Condition::all()
        };
        loop {
            condition = condition.add(self.factor(negated, depth)?);
            if self.rest().is_empty() || self.rest().starts_with(')') {
                return Ok(condition);
            }
            self.eat_keyword("AND");
        }
    }

    fn factor(&mut self, negated: bool, depth: usize) -> Result<Condition, FilterError> {
        let mut condition = if negated {
            Condition::all()
        } else {
            Condition::any()
        };
        loop {
            condition = condition.add(self.term(negated, depth)?);
            self.skip_space();
            if !self.eat_keyword("OR") {
                return Ok(condition);
            }
        }
    }

    fn term(&mut self, negated: bool, depth: usize) -> Result<Condition, FilterError> {
        let negated = negated != (self.eat_keyword("NOT") || self.eat("-"));
        let start = self.at;
        let condition = if self.eat("(") {
            if depth == MAX_DEPTH {
                return self.fail(start, Problem::TooDeep);
            }
            self.skip_space();
            let inner = self.expression(negated, depth + 1)?;
            if !self.eat(")") {
                return self.fail(start, Problem::Syntax(UNCLOSED));
            }
            inner
        } else {
            self.restriction(negated)?
        };
        let may_follow = |c: char| c == ')' || c.is_whitespace();
        if !self.rest().is_empty() && !self.rest().starts_with(may_follow) {
            return self.fail(self.at, Problem::Syntax(SPACE));
        }
        Ok(condition)
    }

    fn restriction(&mut self, negated: bool) -> Result<Condition, FilterError> {
        let start = self.at;
        let name = self.word(false);
        if matches!(name, "" | "AND" | "OR" | "NOT") {
            return self.fail(start, Problem::Syntax(COMPARISON));
        }
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return self.fail(start, Problem::TooManyTerms);
        }
        let Some(field) = self.fields.iter().find(|field| field.name == name) else {
            if ["and", "or", "not"].contains(&name.to_ascii_lowercase().as_str()) {
                return self.fail(start, Problem::Syntax(CAPITALS));
            }
            self.field = Some(name);
            let names = self.fields.iter().map(|field| field.name).collect();
            return self.fail(start, Problem::UnknownField(names));
        };
        self.field = Some(name);
        self.skip_space();
        let start = self.at;
        let Some(operator) = OPERATORS.into_iter().find(|operator| self.eat(operator)) else {
            return self.fail(start, Problem::Syntax(OPERATOR));
        };
        let allowed = field.kind.operators();
        if !allowed.contains(&operator) {
            return self.fail(start, Problem::OperatorNotAllowed(allowed));
        }
        self.skip_space();
        let start = self.at;
        let literal = self.literal()?;
        let test = match test(field, operator, &literal, self.backend) {
            Ok(test) => test,
            Err(problem) => return self.fail(start, problem),
        };
        self.field = None;
        if negated == (operator == "!=") {
            return Ok(test.into());
        }
        let is_null = Expr::col(field.column).is_null();
        Ok(Condition::any().add(test.not()).add(is_null))
    }

    fn literal(&mut self) -> Result<Literal, FilterError> {
        let start = self.at;
        let mut chars = self.rest().char_indices();
        let Some((_, quote @ ('"' | '\''))) = chars.next() else {
            return match self.word(true) {
                "" | "AND" | "OR" | "NOT" => self.fail(start, Problem::Syntax(VALUE)),
                word => Ok(Literal {
                    text: word.to_owned(),
                    star: word.find('*'),
                }),
            };
        };
        let mut literal = Literal::default();
        while let Some((offset, c)) = chars.next() {
            if c == quote {
                self.at += offset + c.len_utf8();
                return Ok(literal);
            }
            let c = match (c, chars.clone().next()) {
                ('\\', Some((_, escaped @ ('"' | '\'' | '\\' | '*')))) => {
                    chars.next();
                    escaped
                }
                ('\\', _) => return self.fail(start + offset, Problem::Syntax(BACKSLASH)),
                ('*', _) => {
                    literal.star.get_or_insert(literal.text.len());
                    c
                }
                _ => c,
            };
            literal.text.push(c);
        }
        self.fail(start, Problem::Syntax(UNQUOTED))
    }
}

/// The test that a row must pass, which may come out NULL for a NULL column. For `!=` it's that of
/// `=`, for the caller to negate.
fn test(
    field: &Field,
    operator: &str,
    literal: &Literal,
    backend: DbBackend,
) -> Result<Expr, Problem> {
    let column = Expr::col(field.column);
    let text = literal.text.as_str();
    let bad = |expected: &str| Problem::BadValue(expected.to_owned());
    Ok(match field.kind {
        Kind::Text { fold } | Kind::Indexed { fold, .. } => match literal.star {
            None if operator == ":" => {
                let text = fold(text);
                if text.chars().count() < MIN_SUBSTRING_CHARS {
                    return Err(Problem::TooShortForSubstring);
                }
                match field.kind {
                    Kind::Indexed { search, .. } if backend == DbBackend::Sqlite => {
                        matching(field.column, search, &text)
                    }
                    _ => column.like(pattern("%", &text)),
                }
            }
            None => column.eq(fold(text)),
            Some(star) if operator != ":" && star > 0 && star + 1 == text.len() => {
                column.like(pattern("", &fold(&text[..star])))
            }
            Some(_) => return Err(bad(STAR)),
        },
        Kind::Exact if literal.star.is_some() => return Err(bad(WHOLE)),
        Kind::Exact => column.eq(text),
        Kind::Enum(names) => column.eq(number(names, text)?),
        Kind::Flags(names) => {
            let bits = number(names, text)?;
            column.bit_and(bits).eq(bits)
        }
        Kind::Instant { parse } => {
            let instant = parse(text).ok_or_else(|| bad(TIME))?;
            match operator {
                "<" => column.lt(instant),
                "<=" => column.lte(instant),
                ">" => column.gt(instant),
                ">=" => column.gte(instant),
                _ => column.eq(instant),
            }
        }
        Kind::Bool => column.eq(text.parse::<bool>().map_err(|_| bad("true or false"))?),
        Kind::Id { parse } => column.eq(parse(text).ok_or_else(|| bad(RESOURCE))?),
    })
}

fn number(names: &[(&str, i64)], name: &str) -> Result<i64, Problem> {
    if let Some((_, number)) = names.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let names: Vec<&str> = names.iter().map(|(known, _)| *known).collect();
    Err(Problem::BadValue(format!("one of {}", names.join(", "))))
}

/// The rows whose trigrams hold `text` in one piece, by SQLite's index `search`, which knows rows by
/// their `row_number` and columns by their names.
fn matching(column: Column, search: &'static str, text: &str) -> Expr {
    let phrase = format!("{} : \"{}\"", column.1, text.replace('"', "\"\""));
    let rows = Query::select()
        .column(Alias::new("rowid"))
        .from(Alias::new(search))
        .and_where(Expr::cust_with_exprs(
            format!("{search} MATCH ?"),
            [Expr::value(phrase)],
        ))
        .to_owned();
    Expr::col((Alias::new(column.0), Alias::new("row_number"))).in_subquery(rows)
}

/// A LIKE pattern of `before`, then exactly `text`, then anything.
fn pattern(before: &str, text: &str) -> LikeExpr {
    let mut pattern = before.to_owned();
    for c in text.chars() {
        if matches!(c, '\\' | '%' | '_') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    // PostgreSQL would take the backslash without being told; SQLite has no escape unless told.
    LikeExpr::new(pattern).escape('\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::{collection::vec, sample::select};
    use sea_orm::sea_query::{
        IntoValueTuple, PostgresQueryBuilder, Query, SelectStatement, SqliteQueryBuilder,
    };
    use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};
    use tokio::runtime::{Builder, Runtime};

    const fn field(name: &'static str, kind: Kind) -> Field {
        let column = ("t", name);
        Field { name, column, kind }
    }

    const TEXT: Kind = Kind::Text {
        fold: str::to_lowercase,
    };
    const TIMES: Kind = Kind::Instant {
        parse: |s| {
            s.strip_prefix("2026-01-31T09:30:")?
                .strip_suffix("+02:00")?
                .parse()
                .ok()
        },
    };
    const IDS: Kind = Kind::Id {
        parse: |s| s.parse().ok(),
    };
    const FIELDS: &[Field] = &[
        field("name", TEXT),
        field("state", Kind::Enum(&[("ON", 1), ("OFF", 2)])),
        field("roles", Kind::Flags(&[("BUYER", 1), ("ADMIN", 6)])),
        field("time", TIMES),
        field("active", Kind::Bool),
        field("owner.id", IDS),
        field("method", Kind::Exact),
    ];

    const A: Uuid = Uuid::from_u128(0xa);
    const B: Uuid = Uuid::from_u128(0xb);

    #[derive(Clone, Copy)]
    struct Row(
        Option<&'static str>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<bool>,
        Option<Uuid>,
        Option<&'static str>,
    );

    const ROWS: [Row; 7] = [
        Row(
            Some("acme corp"),
            Some(1),
            Some(1),
            Some(4),
            None,
            Some(A),
            None,
        ),
        Row(
            Some("the acme"),
            Some(2),
            Some(7),
            None,
            Some(true),
            None,
            Some("a.B/Get"),
        ),
        Row(
            Some(r"100%_\*"),
            None,
            Some(4),
            Some(5),
            Some(false),
            None,
            Some("a.b/get"),
        ),
        Row(
            Some(r#"1000x"\'"#),
            None,
            Some(0),
            Some(6),
            None,
            Some(B),
            Some("*"),
        ),
        Row(Some(""), Some(1), Some(8), None, None, None, Some("")),
        Row(Some("strauß-münchen"), None, None, None, None, None, None),
        Row(None, None, None, None, None, None, None),
    ];

    /// Comparisons, and the rows that each should find.
    const LEAVES: &[(&str, &[usize])] = &[
        (r#"name="Acme Corp""#, &[0]),
        ("name = ''", &[4]),
        ("name!='ACME corp'", &[1, 2, 3, 4, 5, 6]),
        ("name=ACME*", &[0]),
        ("name!=acme*", &[1, 2, 3, 4, 5, 6]),
        ("name:ACME", &[0, 1]),
        ("name:MÜNCH", &[5]),
        ("name:100%", &[2]),
        ("name=100_*", &[]),
        (r"name='100%_\\*'", &[2]),
        (r"name='100%_\\\*'", &[2]),
        (r"name='100%_\\\**'", &[2]),
        (r"name='100%_\\\*\**'", &[]),
        (r#"name:"_\\\*""#, &[2]),
        (r#"name:'x"\\\''"#, &[3]),
        ("state=ON", &[0, 4]),
        ("state:\"OFF\"", &[1]),
        ("state!=ON", &[1, 2, 3, 5, 6]),
        ("roles:BUYER", &[0, 1]),
        ("roles=ADMIN", &[1]),
        ("time=2026-01-31T09:30:5+02:00", &[2]),
        ("time!=2026-01-31T09:30:5+02:00", &[0, 1, 3, 4, 5, 6]),
        ("time<2026-01-31T09:30:5+02:00", &[0]),
        ("time <= '2026-01-31T09:30:5+02:00'", &[0, 2]),
        ("time>2026-01-31T09:30:5+02:00", &[3]),
        ("time>=2026-01-31T09:30:5+02:00", &[2, 3]),
        ("active=true", &[1]),
        ("active!=true", &[0, 2, 3, 4, 5, 6]),
        ("active=false", &[2]),
        ("owner.id=00000000-0000-0000-0000-00000000000a", &[0]),
        (
            "owner.id!=00000000-0000-0000-0000-00000000000a",
            &[1, 2, 3, 4, 5, 6],
        ),
        ("method=a.B/Get", &[1]),
        ("method!='a.B/Get'", &[0, 2, 3, 4, 5, 6]),
        (r"method='\*'", &[3]),
        ("method=''", &[4]),
    ];

    fn query(condition: Condition) -> SelectStatement {
        Query::select()
            .column("id")
            .from("t")
            .cond_where(condition)
            .to_owned()
    }

    struct Db(Runtime, DatabaseConnection);

    impl Db {
        fn new() -> Self {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let connection = runtime.block_on(async {
                let mut options = ConnectOptions::new("sqlite::memory:");
                // A second connection would have a memory of its own.
                options.max_connections(1);
                let db = Database::connect(options).await.unwrap();
                let table = r#"CREATE TEMPORARY TABLE t (id bigint, name text, state bigint,
                    roles bigint, time bigint, active boolean, "owner.id" uuid, method text)"#;
                db.execute_unprepared(table).await.unwrap();
                let mut insert = Query::insert().into_table("t").to_owned();
                insert.columns(
                    ["id"]
                        .into_iter()
                        .chain(FIELDS.iter().map(|field| field.name)),
                );
                for (id, Row(name, state, roles, time, active, owner, method)) in
                    (0_i64..).zip(ROWS)
                {
                    let values = (id, name, state, roles, time, active, owner, method);
                    insert.values_panic(values.into_value_tuple().into_iter().map(Expr::val));
                }
                db.execute(&insert).await.unwrap();
                db
            });
            Self(runtime, connection)
        }

        fn find(&self, filter: &str) -> Result<Vec<usize>, FilterError> {
            let condition =
                parse(filter, FIELDS, DbBackend::Sqlite)?.unwrap_or_else(Condition::all);
            let rows = self
                .0
                .block_on(self.1.query_all(&query(condition)))
                .unwrap();
            Ok(rows
                .iter()
                .map(|row| row.try_get_by_index::<i64>(0).unwrap() as usize)
                .collect())
        }
    }

    fn others(rows: &[usize]) -> Vec<usize> {
        (0..ROWS.len()).filter(|row| !rows.contains(row)).collect()
    }

    #[test]
    fn comparisons_find_their_rows_and_negations_the_others() {
        let db = Db::new();
        for (filter, rows) in LEAVES {
            assert_eq!(db.find(filter).unwrap(), *rows, "{filter}");
            for not in [format!("NOT {filter}"), format!("-({filter})")] {
                assert_eq!(db.find(&not).unwrap(), others(rows), "{not}");
            }
        }
        assert_eq!(db.find(" \t\n").unwrap(), others(&[]));
    }

    #[test]
    fn or_binds_tighter_than_and() {
        let db = Db::new();
        // Binding the other way round, the first three would also find row 1, 4 or 1.
        for (filter, rows) in [
            ("state=ON AND name='' OR state=OFF", vec![4]),
            ("name='' OR roles:BUYER AND state=OFF", vec![1]),
            ("state=OFF OR name='' state=ON", vec![4]),
            ("state=OFF OR (name='' AND state=ON)", vec![1, 4]),
            ("NOT state=ON OR name=''", vec![1, 2, 3, 4, 5, 6]),
            ("NOT (state=ON OR name:acme)", vec![2, 3, 5, 6]),
        ] {
            assert_eq!(db.find(filter).unwrap(), rows, "{filter}");
        }
    }

    #[test]
    fn sql_binds_values_and_escapes_patterns_on_both_databases() {
        let filter = r#"name:"a'%_\\\*" roles:ADMIN OR -(state=ON active=true)"#;
        let query = query(parse(filter, FIELDS, DbBackend::Sqlite).unwrap().unwrap());
        let sql = |pattern: &str, roles: [&str; 2], state: &str, active: &str| {
            let [mask, bits] = roles;
            let roles = format!(r#"("t"."roles" & {mask}) = {bits}"#);
            let state = format!(r#"(NOT "t"."state" = {state}) OR "t"."state" IS NULL"#);
            let active = format!(r#"(NOT "t"."active" = {active}) OR "t"."active" IS NULL"#);
            let rest = format!("({roles} OR ({state} OR ({active})))");
            format!(r#"SELECT "id" FROM "t" WHERE "t"."name" LIKE {pattern} AND {rest}"#)
        };
        let sqlite = sql(r"'%a''\%\_\\*%' ESCAPE '\'", ["6", "6"], "1", "TRUE");
        assert_eq!(query.to_string(SqliteQueryBuilder), sqlite);
        let postgres = sql(r"E'%a\'\\%\\_\\\\*%' ESCAPE E'\\'", ["6", "6"], "1", "TRUE");
        assert_eq!(query.to_string(PostgresQueryBuilder), postgres);
        let sqlite = sql(r"? ESCAPE '\'", ["?", "?"], "?", "?");
        assert_eq!(query.build(SqliteQueryBuilder).0, sqlite);
        let postgres = sql(r"$1 ESCAPE E'\\'", ["$2", "$3"], "$4", "$5");
        assert_eq!(query.build(PostgresQueryBuilder).0, postgres);
    }

    #[test]
    fn errors_say_where_and_what() {
        use Problem::{OperatorNotAllowed as Not, Syntax};
        let bad = |expected: &str| Problem::BadValue(expected.to_owned());
        let unknown = || Problem::UnknownField(FIELDS.iter().map(|field| field.name).collect());
        for (filter, position, field, problem) in [
            ("name='é", 5, "name", Syntax(UNQUOTED)),
            (r#"name="é\n""#, 8, "name", Syntax(BACKSLASH)),
            (r#"name="\"#, 6, "name", Syntax(BACKSLASH)),
            ("name=é'", 7, "", Syntax(SPACE)),
            ("name=a=b", 6, "", Syntax(SPACE)),
            ("(state=ON)(state=ON)", 10, "", Syntax(SPACE)),
            ("state==ON", 6, "state", Syntax(VALUE)),
            ("state=", 6, "state", Syntax(VALUE)),
            ("state= OR state=ON", 7, "state", Syntax(VALUE)),
            ("roles:(BUYER OR ADMIN)", 6, "roles", Syntax(VALUE)),
            ("active", 6, "active", Syntax(OPERATOR)),
            ("active AND state=ON", 7, "active", Syntax(OPERATOR)),
            ("state!ON", 5, "state", Syntax(OPERATOR)),
            ("=ON", 0, "", Syntax(COMPARISON)),
            ("()", 1, "", Syntax(COMPARISON)),
            ("- state=ON", 1, "", Syntax(COMPARISON)),
            ("AND state=ON", 0, "", Syntax(COMPARISON)),
            ("state=ON AND", 12, "", Syntax(COMPARISON)),
            ("state=ON OR AND state=ON", 12, "", Syntax(COMPARISON)),
            ("NOT NOT state=ON", 4, "", Syntax(COMPARISON)),
            ("'state'=ON", 0, "", Syntax(COMPARISON)),
            ("state=ON (", 10, "", Syntax(COMPARISON)),
            ("state=ON or active=true", 9, "", Syntax(CAPITALS)),
            ("state=ON)", 8, "", Syntax(STRAY)),
            ("((state=ON)", 0, "", Syntax(UNCLOSED)),
            ("name='\0'", 6, "", Syntax(CONTROL)),
            ("é=1 foo", 0, "é", unknown()),
            ("state=ON -Name:x", 10, "Name", unknown()),
            ("name > a", 5, "name", Not(&["=", "!=", ":"])),
            ("state<=ON", 5, "state", Not(&["=", "!=", ":"])),
            ("roles!=BUYER", 5, "roles", Not(&[":", "="])),
            ("time:1", 4, "time", Not(&["=", "!=", "<", "<=", ">", ">="])),
            ("active<true", 6, "active", Not(&["=", "!="])),
            ("owner.id:7", 8, "owner.id", Not(&["=", "!="])),
            ("method:get", 6, "method", Not(&["=", "!="])),
            ("name:éa", 5, "name", Problem::TooShortForSubstring),
            ("name=*", 5, "name", bad(STAR)),
            ("name=*a", 5, "name", bad(STAR)),
            ("name='a*b*'", 5, "name", bad(STAR)),
            ("name:abc*", 5, "name", bad(STAR)),
            ("state = on", 8, "state", bad("one of ON, OFF")),
            ("roles:*", 6, "roles", bad("one of BUYER, ADMIN")),
            ("time<yesterday", 5, "time", bad(TIME)),
            ("active=TRUE", 7, "active", bad("true or false")),
            ("owner.id=me", 9, "owner.id", bad(RESOURCE)),
            ("method=a.*", 7, "method", bad(WHOLE)),
        ] {
            let field = Some(field.to_owned()).filter(|field| !field.is_empty());
            let expected = FilterError {
                position,
                field,
                problem,
            };
            assert_eq!(
                parse(filter, FIELDS, DbBackend::Sqlite).unwrap_err(),
                expected,
                "{filter}"
            );
        }
        let error = parse("state=ON a\u{202e}b:1", &FIELDS[..2], DbBackend::Sqlite).unwrap_err();
        let expected = "There is no such field here; use one of name, state.";
        assert_eq!(
            error.to_string(),
            format!(r#"At byte 9, field "a\u{{202e}}b": {expected}"#)
        );
    }

    #[test]
    fn limits_hold() {
        let end = |filter: String| match parse(&filter, FIELDS, DbBackend::Sqlite) {
            Ok(_) => (filter.len(), None),
            Err(error) => (error.position, Some(error.problem)),
        };
        let many = |terms| vec!["active=true"; terms].join(" ");
        assert_eq!(end(many(MAX_TERMS)), (599, None));
        assert_eq!(end(many(MAX_TERMS + 1)), (600, Some(Problem::TooManyTerms)));
        let nested = |depth| format!("{}active=true{}", "NOT(".repeat(depth), ")".repeat(depth));
        assert_eq!(Db::new().find(&nested(MAX_DEPTH)).unwrap(), [1]);
        assert_eq!(end(nested(MAX_DEPTH + 1)), (83, Some(Problem::TooDeep)));
        assert_eq!(end("(".repeat(MAX_BYTES)), (20, Some(Problem::TooDeep)));
        let long = |chars| format!("name='a{}'", "é".repeat(chars));
        assert_eq!(end(long(996)), (2_000, None));
        assert_eq!(end(long(997)), (1_999, Some(Problem::TooLong)));
    }

    #[test]
    fn order_takes_one_field_and_a_direction() {
        let order_field = |name, descending| OrderField {
            name,
            column: ("t", name),
            descending,
        };
        let fields = [order_field("time", true), order_field("name", false)];
        for (text, field, descending) in [
            ("", "time", true),
            (" ", "time", true),
            ("time", "time", false),
            ("time desc", "time", true),
            (" name\tasc ", "name", false),
            ("name  desc", "name", true),
        ] {
            let column = ("t", field);
            let expected = Order {
                field,
                column,
                descending,
            };
            assert_eq!(parse_order(text, &fields), Ok(expected), "{text}");
        }
        assert!(!parse_order("", &fields[1..]).unwrap().descending);
        let unknown = || Problem::UnknownField(vec!["time", "name"]);
        for (text, position, problem) in [
            ("name,time", 4, Problem::Syntax(ONE_FIELD)),
            ("name desc, time", 9, Problem::Syntax(ONE_FIELD)),
            ("name desc asc", 10, Problem::Syntax(ONE_FIELD)),
            (",", 0, Problem::Syntax(ONE_FIELD)),
            ("name DESC", 5, Problem::Syntax(DIRECTION)),
            ("name time", 5, Problem::Syntax(DIRECTION)),
            (" -name", 1, unknown()),
            ("desc", 0, unknown()),
        ] {
            let error = parse_order(text, &fields).unwrap_err();
            assert_eq!(
                (error.position, error.problem),
                (position, problem),
                "{text}"
            );
        }
        let error = parse_order("", &[]).unwrap_err();
        assert_eq!(
            (error.field, error.problem),
            (None, Problem::UnknownField(vec![]))
        );
        let error = parse_order(&" ".repeat(MAX_BYTES + 1), &fields).unwrap_err();
        assert_eq!(error.problem, Problem::TooLong);
    }

    #[derive(Clone, Debug)]
    enum Tree {
        Leaf(usize),
        Not(Box<Tree>, &'static str),
        And(Vec<Tree>, &'static str),
        Or(Vec<Tree>),
    }

    impl Tree {
        fn any() -> impl Strategy<Value = Tree> {
            let leaf = (0..LEAVES.len()).prop_map(Tree::Leaf);
            leaf.prop_recursive(3, 20, 3, |tree| {
                let not = (tree.clone(), select(vec!["NOT ", "NOT", "-"]));
                let and = (vec(tree.clone(), 1..4), select(vec![" ", " AND "]));
                prop_oneof![
                    not.prop_map(|(tree, not)| Tree::Not(Box::new(tree), not)),
                    and.prop_map(|(trees, and)| Tree::And(trees, and)),
                    vec(tree, 1..4).prop_map(Tree::Or),
                ]
            })
        }

        fn text(&self) -> String {
            // Parentheses only where the grammar needs them.
            let operand = |tree: &Tree| match tree {
                Tree::And(..) => format!("({})", tree.text()),
                _ => tree.text(),
            };
            match self {
                Tree::Leaf(leaf) => LEAVES[*leaf].0.to_owned(),
                Tree::Not(tree, not) => match **tree {
                    Tree::Leaf(_) if *not != "NOT" => format!("{not}{}", tree.text()),
                    _ => format!("{not}({})", tree.text()),
                },
                Tree::And(trees, and) => trees.iter().map(Tree::text).collect::<Vec<_>>().join(and),
                Tree::Or(trees) => trees.iter().map(operand).collect::<Vec<_>>().join(" OR "),
            }
        }

        fn holds(&self, row: usize) -> bool {
            match self {
                Tree::Leaf(leaf) => LEAVES[*leaf].1.contains(&row),
                Tree::Not(tree, _) => !tree.holds(row),
                Tree::And(trees, _) => trees.iter().all(|tree| tree.holds(row)),
                Tree::Or(trees) => trees.iter().any(|tree| tree.holds(row)),
            }
        }
    }

    #[test]
    fn any_filter_finds_what_it_says() {
        let db = Db::new();
        proptest!(|(tree in Tree::any())| {
            let expected: Vec<usize> = (0..ROWS.len()).filter(|row| tree.holds(*row)).collect();
            prop_assert_eq!(db.find(&tree.text()).unwrap(), expected, "{}", tree.text());
        });
    }

    #[test]
    fn any_text_is_answered() {
        let db = Db::new();
        let tokens = "name state roles time active owner.id method = != < <= > >= : ( ) - * ' \" \\ % _ , \
                      AND OR NOT and ON BUYER true abc é 😀 \0 \u{85} name:' state=ON desc 1-2-3";
        let tokens: Vec<&str> = tokens.split(' ').chain([" "; 20]).collect();
        let soup = vec(select(tokens), 0..30).prop_map(|tokens| tokens.concat());
        let quoted = any::<String>().prop_map(|text| format!("name:\"{text}\" name='{text}*'"));
        let text = prop_oneof![soup, quoted, any::<String>(), "\\PC{0,700}"];
        let (column, descending) = (("t", "name"), false);
        let fields = ["name", "time"].map(|name| OrderField {
            name,
            column,
            descending,
        });
        proptest!(ProptestConfig::with_cases(2_000), |(text in text)| {
            let errors = [db.find(&text).err(), parse_order(&text, &fields).err()];
            for error in errors.into_iter().flatten() {
                prop_assert!(text.is_char_boundary(error.position), "{error}");
                prop_assert!(error.to_string().ends_with('.'), "{error}");
            }
        });
    }
}
