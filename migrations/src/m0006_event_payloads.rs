//! Domain events as messages: the payload as it goes out, and the names of what changed.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // Events of before have no payload; watchers' cursors that lie among them are expired, as if their time had passed.
    "DELETE FROM outbox",
    // Names with spaces between.
    "ALTER TABLE outbox RENAME COLUMN changes TO changed_fields",
    "ALTER TABLE outbox ADD COLUMN payload {bytes} NOT NULL DEFAULT ''",
];
