//! Employment that a verified domain proves (VER-3), also one that is verified later; accounts that are verified and lack an admin agent.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // Of the contact whose employment waits to be proven, as domains are named; empty where it doesn't.
    "ALTER TABLE verification_steps ADD COLUMN email_domain {text} NOT NULL DEFAULT ''",
    "CREATE INDEX verification_steps_by_domain ON verification_steps (email_domain) WHERE email_domain <> ''",
    // Those that wait for a register of companies.
    "CREATE INDEX verification_steps_at_register ON verification_steps (account_id) WHERE reason = 'REGISTER'",
    "CREATE INDEX accounts_pending ON accounts (id) WHERE state = 3",
];
