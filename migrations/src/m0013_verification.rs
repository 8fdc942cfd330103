//! Verification of accounts (VER), and who opened them, to be told of drafts that nobody touches.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    "ALTER TABLE accounts ADD COLUMN opened_by {text} NOT NULL DEFAULT ''",
    // Kinds and states are those of `entente.account.v1.VerificationStep`.
    "CREATE TABLE verification_steps (
        account_id {uuid} NOT NULL,
        kind bigint NOT NULL,
        state bigint NOT NULL,
        reason {text} NOT NULL,
        link_expire_time bigint,
        start_time bigint,
        end_time bigint,
        PRIMARY KEY (account_id, kind)
    )",
];
