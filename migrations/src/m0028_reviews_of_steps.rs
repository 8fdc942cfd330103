//! Reviews of the steps of an account, the latest first (VER-7).

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] =
    &["CREATE INDEX reviews_of_account_by_kind ON reviews (account_id, kind, create_time)"];
