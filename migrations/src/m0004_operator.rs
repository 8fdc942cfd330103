//! The operator: what a database holds from its first moment.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // The chain of the operator, and of all that is done by nobody.
    "[postgres] INSERT INTO heads VALUES (0, '00000000-0000-0000-0000-000000000000', 0, ''::bytea, 0, 0)",
    "[sqlite] INSERT INTO heads VALUES (0, x'00000000000000000000000000000000', 0, x'', 0, 0)",
];
