//! What a comparison asks of a row, in SQL.

use sea_orm::sea_query::{Alias, Expr, ExprTrait, LikeExpr, Query};

use super::{
    Column, Field, Found, Kind, MIN_SUBSTRING_CHARS, Pairs, Problem,
    fault::{RESOURCE, STAR, TIME, WHOLE},
    fold,
    scan::Literal,
};

/// The test that a row must pass, which may come out NULL for a NULL column, and what finds all such rows. For `!=` it's that of `=`, for
/// the caller to negate.
pub(super) fn test(
    field: &Field,
    operator: &str,
    literal: &Literal,
) -> Result<(Expr, Option<Found>), Problem> {
    let column = column(field.column);
    let text = literal.text.as_str();
    let bad = |expected: &str| Problem::BadValue(expected.to_owned());
    let test = match field.kind {
        Kind::Text(indexes) => {
            let (test, text) = match literal.star {
                None if operator == ":" => {
                    let text = fold(text);
                    if text.chars().count() < MIN_SUBSTRING_CHARS {
                        return Err(Problem::TooShortForSubstring);
                    }
                    (column.like(anywhere(&text)), text)
                }
                None => (column.eq(fold(text)), fold(text)),
                Some(star) if operator != ":" && star > 0 && star + 1 == text.len() => {
                    let text = fold(&text[..star]);
                    (column.like(pattern("", &text)), text)
                }
                Some(_) => return Err(bad(STAR)),
            };
            // What equals a text, or begins with it, holds it too.
            return Ok((test, Found::by_text(indexes, &text)));
        }
        Kind::Paired(pairs) => {
            let id = (pairs.parse)(text).ok_or_else(|| bad(RESOURCE))?;
            return Ok((
                paired(field.column, &pairs, id),
                Some(Found::by_pairs(pairs, id)),
            ));
        }
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
    };
    Ok((test, None))
}

fn number(names: &[(&str, i64)], name: &str) -> Result<i64, Problem> {
    if let Some((_, number)) = names.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let names: Vec<&str> = names.iter().map(|(known, _)| *known).collect();
    Err(Problem::BadValue(format!("one of {}", names.join(", "))))
}

/// Whether the row is paired with an ID: one look into the index of pairs, however many there are.
fn paired(row: Column, pairs: &Pairs, id: uuid::Uuid) -> Expr {
    let mut pair = Query::select();
    pair.expr(Expr::val(1))
        .from(Alias::new(pairs.table))
        .and_where(column((pairs.table, pairs.with)).eq(id))
        .and_where(column((pairs.table, pairs.row)).eq(column(row)));
    if let Some((there, here)) = pairs.within {
        pair.and_where(column((pairs.table, there)).eq(column(here)));
    }
    Expr::exists(pair)
}

/// A column in an expression.
pub(in crate::store) fn column(of: Column) -> Expr {
    Expr::col((Alias::new(of.0), Alias::new(of.1)))
}

/// A LIKE pattern of anything, then exactly `text`, then anything.
pub(super) fn anywhere(text: &str) -> LikeExpr {
    pattern("%", text)
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
