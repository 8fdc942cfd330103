//! The words of a filter, and where it is read.

use super::{
    FilterError, MAX_BYTES, Problem,
    fault::{BACKSLASH, CONTROL, UNQUOTED, VALUE},
};

/// With each operator before those that it begins with.
const OPERATORS: [&str; 7] = ["!=", "<=", ">=", "=", "<", ">", ":"];

/// A value as it is meant, without quotes and escapes.
#[derive(Default)]
pub(super) struct Literal {
    pub text: String,
    /// Where in `text` the first `*` is that was not escaped.
    pub star: Option<usize>,
}

/// Reads a text from left to right.
pub(super) struct Scanner<'a> {
    text: &'a str,
    /// How far `text` is read; always on a character's boundary.
    pub at: usize,
    /// The field whose comparison is being read, for errors.
    pub field: Option<&'a str>,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Result<Self, FilterError> {
        let scanner = Self {
            text,
            at: 0,
            field: None,
        };
        if text.len() > MAX_BYTES {
            return scanner.fail(text.floor_char_boundary(MAX_BYTES), Problem::TooLong);
        }
        // PostgreSQL takes no NUL in text, and nobody means the others.
        match text.find(|c: char| c.is_control() && !c.is_whitespace()) {
            Some(at) => scanner.fail(at, Problem::Syntax(CONTROL)),
            None => Ok(scanner),
        }
    }

    pub fn fail<T>(&self, position: usize, problem: Problem) -> Result<T, FilterError> {
        let field = self.field.map(str::to_owned);
        Err(FilterError {
            position,
            field,
            problem,
        })
    }

    pub fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    pub fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// Takes a keyword, which must be a whole word, and the space after it.
    pub fn eat_keyword(&mut self, keyword: &str) -> bool {
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
    pub fn word(&mut self, is_value: bool) -> &'a str {
        let ends = |c: char| match c {
            ':' => !is_value,
            _ => c.is_whitespace() || "()\"'\\,=<>!".contains(c),
        };
        let word = self.rest().split(ends).next().unwrap_or_default();
        self.at += word.len();
        word
    }

    /// Takes an operator; none if there is none here.
    pub fn operator(&mut self) -> Option<&'static str> {
        OPERATORS.into_iter().find(|operator| self.eat(operator))
    }

    /// Takes a value: a bare word, or a string in quotes.
    pub fn literal(&mut self) -> Result<Literal, FilterError> {
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
