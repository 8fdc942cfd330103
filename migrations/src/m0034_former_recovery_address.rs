//! What a person's recovery address was before a case of recovery set it, for whoever stops the case (PWD-10).

crate::step!(STATEMENTS);

/// None for the cases that were mailed before: they leave the address as it is.
const STATEMENTS: &[&str] = &["ALTER TABLE recovery_cases ADD COLUMN former_email {text}"];
