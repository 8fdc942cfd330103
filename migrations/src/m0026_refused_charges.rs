//! Charges that billing refuses (BEN-2).

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &["ALTER TABLE package_charges ADD COLUMN refuse_time bigint"];
