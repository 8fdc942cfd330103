//! The grammar.

use sea_orm::{Condition, sea_query::ExprTrait};

use super::{
    Field, FilterError, Found, MAX_DEPTH, MAX_TERMS, Order, OrderField, Problem,
    fault::{CAPITALS, COMPARISON, DIRECTION, ONE_FIELD, OPERATOR, SPACE, STRAY, UNCLOSED},
    scan::Scanner,
    sql::{column, test},
};

/// What a filter asks.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Compares the fields' columns, which the query must have; all values are bound as parameters. It may come out NULL for false, so
    /// join it to others by AND or OR, but don't negate it.
    pub condition: Condition,
    /// What finds all rows that may pass, without reading through the list; none if no index does.
    pub found: Option<Found>,
}

impl Filter {
    fn all(parts: Vec<Self>) -> Self {
        Self {
            found: Found::all(parts.iter().map(|part| part.found.clone())),
            condition: join(Condition::all(), parts),
        }
    }

    fn any(parts: Vec<Self>) -> Self {
        Self {
            found: Found::any(parts.iter().map(|part| part.found.clone())),
            condition: join(Condition::any(), parts),
        }
    }
}

fn join(to: Condition, parts: Vec<Filter>) -> Condition {
    parts
        .into_iter()
        .fold(to, |condition, part| condition.add(part.condition))
}

/// Reads a filter on `fields`; `None` if it is empty or blank.
///
/// # Errors
///
/// A [`FilterError`] if the filter doesn't follow the grammar, names another field, gives a field
/// an operator or a value that its [`Kind`](super::Kind) doesn't take, or exceeds
/// [`MAX_BYTES`](super::MAX_BYTES), [`MAX_TERMS`] or [`MAX_DEPTH`].
pub fn parse(filter: &str, fields: &[Field]) -> Result<Option<Filter>, FilterError> {
    let mut scan = Scanner::new(filter)?;
    scan.skip_space();
    if scan.rest().is_empty() {
        return Ok(None);
    }
    let mut parser = Parser {
        scan,
        fields,
        terms: 0,
    };
    let read = parser.expression(false, 0)?;
    match parser.scan.rest() {
        "" => Ok(Some(read)),
        _ => parser.scan.fail(parser.scan.at, Problem::Syntax(STRAY)),
    }
}

/// Turns an `order_by`, a name of one of `fields` and perhaps `asc` or `desc` after it, into the
/// order to sort by. Empty or blank gives the first of `fields` in its own direction.
///
/// # Errors
///
/// A [`FilterError`] if it names another field (or `fields` is empty), or more than one, or exceeds
/// [`MAX_BYTES`](super::MAX_BYTES).
pub fn parse_order(order_by: &str, fields: &[OrderField]) -> Result<Order, FilterError> {
    let mut scan = Scanner::new(order_by)?;
    scan.skip_space();
    let (name_at, name) = (scan.at, scan.word(false));
    scan.skip_space();
    let (direction_at, direction) = (scan.at, scan.word(false));
    scan.skip_space();
    if !matches!(direction, "" | "asc" | "desc") {
        return scan.fail(direction_at, Problem::Syntax(DIRECTION));
    }
    if !scan.rest().is_empty() {
        return scan.fail(scan.at, Problem::Syntax(ONE_FIELD));
    }
    let is_meant = |field: &&OrderField| name.is_empty() || field.name == name;
    match fields.iter().find(is_meant) {
        Some(field) => Ok(Order {
            column: field.column,
            descending: direction == "desc" || (name.is_empty() && field.descending),
        }),
        None => {
            scan.field = Some(name).filter(|name| !name.is_empty());
            let names = fields.iter().map(|field| field.name).collect();
            scan.fail(name_at, Problem::UnknownField(names))
        }
    }
}

struct Parser<'a> {
    scan: Scanner<'a>,
    fields: &'a [Field],
    terms: usize,
}

impl Parser<'_> {
    // Negation is carried down to the comparisons, by De Morgan's laws: only they know which column
    // may be NULL, and NOT leaves a NULL what it is.
    fn expression(&mut self, negated: bool, depth: usize) -> Result<Filter, FilterError> {
        let mut factors = Vec::new();
        loop {
            factors.push(self.factor(negated, depth)?);
            if self.scan.rest().is_empty() || self.scan.rest().starts_with(')') {
                break;
            }
            self.scan.eat_keyword("AND");
        }
        Ok(if negated {
            Filter::any(factors)
        } else {
            Filter::all(factors)
        })
    }

    fn factor(&mut self, negated: bool, depth: usize) -> Result<Filter, FilterError> {
        let mut terms = Vec::new();
        loop {
            terms.push(self.term(negated, depth)?);
            self.scan.skip_space();
            if !self.scan.eat_keyword("OR") {
                break;
            }
        }
        Ok(if negated {
            Filter::all(terms)
        } else {
            Filter::any(terms)
        })
    }

    fn term(&mut self, negated: bool, depth: usize) -> Result<Filter, FilterError> {
        let negated = negated != (self.scan.eat_keyword("NOT") || self.scan.eat("-"));
        let start = self.scan.at;
        let term = if self.scan.eat("(") {
            if depth == MAX_DEPTH {
                return self.scan.fail(start, Problem::TooDeep);
            }
            self.scan.skip_space();
            let inner = self.expression(negated, depth + 1)?;
            if !self.scan.eat(")") {
                return self.scan.fail(start, Problem::Syntax(UNCLOSED));
            }
            inner
        } else {
            self.restriction(negated)?
        };
        let may_follow = |c: char| c == ')' || c.is_whitespace();
        if !self.scan.rest().is_empty() && !self.scan.rest().starts_with(may_follow) {
            return self.scan.fail(self.scan.at, Problem::Syntax(SPACE));
        }
        Ok(term)
    }

    fn restriction(&mut self, negated: bool) -> Result<Filter, FilterError> {
        let start = self.scan.at;
        let name = self.scan.word(false);
        if matches!(name, "" | "AND" | "OR" | "NOT") {
            return self.scan.fail(start, Problem::Syntax(COMPARISON));
        }
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return self.scan.fail(start, Problem::TooManyTerms);
        }
        let Some(field) = self.fields.iter().find(|field| field.name == name) else {
            if ["and", "or", "not"].contains(&name.to_ascii_lowercase().as_str()) {
                return self.scan.fail(start, Problem::Syntax(CAPITALS));
            }
            self.scan.field = Some(name);
            let names = self.fields.iter().map(|field| field.name).collect();
            return self.scan.fail(start, Problem::UnknownField(names));
        };
        self.scan.field = Some(name);
        self.scan.skip_space();
        let start = self.scan.at;
        let Some(operator) = self.scan.operator() else {
            return self.scan.fail(start, Problem::Syntax(OPERATOR));
        };
        let allowed = field.kind.operators();
        if !allowed.contains(&operator) {
            return self.scan.fail(start, Problem::OperatorNotAllowed(allowed));
        }
        self.scan.skip_space();
        let start = self.scan.at;
        let literal = self.scan.literal()?;
        let (test, found) = match test(field, operator, &literal) {
            Ok(test) => test,
            Err(problem) => return self.scan.fail(start, problem),
        };
        self.scan.field = None;
        if negated == (operator == "!=") {
            let condition = test.into();
            return Ok(Filter { condition, found });
        }
        let is_null = column(field.column).is_null();
        Ok(Filter {
            condition: Condition::any().add(test.not()).add(is_null),
            found: None,
        })
    }
}
