//! What a comparison asks of a row, in SQL.

use sea_orm::{
    DbBackend,
    sea_query::{Alias, Expr, ExprTrait, LikeExpr, Query},
};

use super::{
    Column, Field, Kind, MIN_SUBSTRING_CHARS, Problem,
    fault::{RESOURCE, STAR, TIME, WHOLE},
    scan::Literal,
};

/// The test that a row must pass, which may come out NULL for a NULL column. For `!=` it's that of
/// `=`, for the caller to negate.
pub(super) fn test(
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
