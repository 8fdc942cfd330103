//! The language in which a person signed in last (COM-15).

crate::step!(STATEMENTS);

/// Empty for whoever hasn't signed in since.
const STATEMENTS: &[&str] =
    &["ALTER TABLE credentials ADD COLUMN language {text} NOT NULL DEFAULT ''"];
