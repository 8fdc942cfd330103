//! Rows that indexes find by themselves, wherever they stand in a list.

use sea_orm::{
    DbBackend,
    sea_query::{Alias, Expr, ExprTrait, Query, SelectStatement, UnionType},
};
use uuid::Uuid;

use super::{
    Pairs, Trigrams,
    sql::{anywhere, column},
};

/// An index of trigrams knows pieces of so many letters or digits, and nothing of other characters (pg_trgm).
const TRIGRAM_CHARS: usize = 3;

/// A union of what indexes find. All rows that pass the comparison are among them, and maybe others.
#[derive(Clone, Debug)]
pub struct Found(Vec<Source>);

#[derive(Clone, Debug)]
enum Source {
    Text(&'static Trigrams, String),
    Pairs(Pairs, Uuid),
}

impl Found {
    /// Texts that hold `text`, which is folded; none if no index can find it.
    pub(super) fn by_text(indexes: &'static [Trigrams], text: &str) -> Option<Self> {
        let mut run = 0;
        let known = text.chars().any(|c| {
            run = if c.is_alphanumeric() { run + 1 } else { 0 };
            run >= TRIGRAM_CHARS
        });
        let sources = indexes.iter().map(|at| Source::Text(at, text.to_owned()));
        Some(Self(sources.collect())).filter(|found| known && !found.0.is_empty())
    }

    /// What is paired with an ID.
    pub(super) fn by_pairs(pairs: Pairs, id: Uuid) -> Self {
        Self(vec![Source::Pairs(pairs, id)])
    }

    /// What passes several comparisons is found by each of them: by the one that is likely to find the fewest.
    pub(super) fn all(of: impl Iterator<Item = Option<Self>>) -> Option<Self> {
        of.flatten().max_by_key(|found| {
            let narrowness = found.0.iter().map(|source| match source {
                Source::Text(_, text) => text.len(),
                Source::Pairs(..) => usize::MAX,
            });
            narrowness.min()
        })
    }

    /// What passes any of several comparisons is found if each of them finds its own.
    pub(super) fn any(of: impl Iterator<Item = Option<Self>>) -> Option<Self> {
        let all: Option<Vec<Self>> = of.collect();
        all.map(|found| Self(found.into_iter().flat_map(|found| found.0).collect()))
    }

    /// The IDs found, at most so many, in a column `id`; some may come twice.
    #[must_use]
    pub fn ids(&self, backend: DbBackend, most: u64) -> SelectStatement {
        let mut sources = self.0.iter().map(|source| source.ids(backend));
        let mut ids = sources.next().unwrap_or_default();
        ids.unions(sources.map(|source| (UnionType::All, source)));
        ids.limit(most).to_owned()
    }
}

impl Source {
    fn ids(&self, backend: DbBackend) -> SelectStatement {
        let mut ids = Query::select();
        match self {
            Self::Text(at, text) if backend == DbBackend::Sqlite => {
                // CROSS JOIN keeps the order, so that the index is read no further than rows are wanted.
                let search = format!("{}_search", at.table);
                let phrase = format!("{} : \"{}\"", at.column, text.replace('"', "\"\""));
                let row = column((at.table, "row_number"));
                let on = row.eq(Expr::col((Alias::new(&search), Alias::new("rowid"))));
                let matches =
                    Expr::cust_with_values(format!("{search} MATCH ?"), [phrase.as_str()]);
                ids.expr_as(column((at.table, "id")), Alias::new("id"))
                    .from(Alias::new(search))
                    .cross_join(Alias::new(at.table))
                    .and_where(on)
                    .and_where(matches);
            }
            Self::Text(at, text) => {
                ids.expr_as(column((at.table, "id")), Alias::new("id"))
                    .from(Alias::new(at.table))
                    .and_where(column((at.table, at.column)).like(anywhere(text)));
            }
            Self::Pairs(pairs, id) => {
                ids.expr_as(column((pairs.table, pairs.row)), Alias::new("id"))
                    .from(Alias::new(pairs.table))
                    .and_where(column((pairs.table, pairs.with)).eq(*id));
            }
        }
        ids
    }
}
