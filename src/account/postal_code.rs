//! Forms of postal codes by country (ACC-5), from `postal_codes.tsv`, whose head names its source and version.

use std::{
    collections::HashMap,
    sync::{LazyLock, OnceLock},
};

use regex::Regex;

/// A country's postal codes.
struct Form {
    is_needed: bool,
    pattern: &'static str,
    /// Compiled when it is first asked for.
    compiled: OnceLock<Option<Regex>>,
}

static FORMS: LazyLock<HashMap<&'static str, Form>> = LazyLock::new(|| {
    let lines = include_str!("postal_codes.tsv").lines();
    lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut cells = line.split('\t');
            let (country, needed, pattern) = (cells.next()?, cells.next()?, cells.next()?);
            let form = Form {
                is_needed: needed == "1",
                pattern,
                compiled: OnceLock::new(),
            };
            Some((country, form))
        })
        .collect()
});

/// Whether an address in a country needs a postal code.
#[must_use]
pub fn is_needed(country: &str) -> bool {
    FORMS.get(country).is_some_and(|form| form.is_needed)
}

/// Whether a postal code has its country's form; countries without codes take none.
#[must_use]
pub fn is_good(country: &str, code: &str) -> bool {
    let Some(form) = FORMS.get(country) else {
        return code.is_empty();
    };
    let compiled = form
        .compiled
        .get_or_init(|| Regex::new(&format!("^(?:{})$", form.pattern)).ok());
    code.is_empty() || compiled.as_ref().is_some_and(|form| form.is_match(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves ACC-5
    #[test]
    fn codes_have_the_form_of_their_country() {
        for (country, code, good) in [
            ("FR", "75008", true),
            ("FR", "7500", false),
            ("FR", "75008 ", false),
            ("GB", "SW1A 1AA", true),
            ("GB", "75008", false),
            ("US", "94043-1351", true),
            ("US", "94043-13", false),
            ("DE", "10117", true),
            ("CA", "K1A 0B1", true),
            ("CA", "12345", false),
            ("IE", "", true),
            ("AE", "", true),
            ("AE", "12345", false),
        ] {
            assert_eq!(is_good(country, code), good, "{country} {code}");
        }
        assert!(is_needed("FR") && is_needed("US") && !is_needed("IE") && !is_needed("AE"));
    }

    #[test]
    fn every_form_can_be_compiled() {
        assert!(FORMS.len() > 150);
        for (country, form) in FORMS.iter() {
            Regex::new(form.pattern).unwrap_or_else(|e| panic!("{country}: {e}"));
        }
    }
}
