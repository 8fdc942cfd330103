//! Whom a case of recovery replaces as the owner of an account (PWD-10): who owned it as the case was opened, and nobody who came after.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &["ALTER TABLE recovery_cases ADD COLUMN replaces_id {uuid}"];
