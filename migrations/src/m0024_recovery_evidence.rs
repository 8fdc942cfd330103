//! What a review of owners and recovery left (ACC-20, PWD-10): approvers who approved, and are verified once the business
//! is; domains as evidence of cases of recovery, and admins whom these make.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    "CREATE TABLE approvers_to_verify (
        account_id {uuid} PRIMARY KEY,
        email_fold {text} NOT NULL
    )",
    // A verified domain as evidence: a record in it has to say the token.
    "ALTER TABLE recovery_cases ADD COLUMN domain_id {uuid}",
    "ALTER TABLE recovery_cases ADD COLUMN domain_tenant_id {uuid}",
    "ALTER TABLE recovery_cases ADD COLUMN domain_name {text} NOT NULL DEFAULT ''",
    "ALTER TABLE recovery_cases ADD COLUMN domain_token {text} NOT NULL DEFAULT ''",
    "ALTER TABLE recovery_cases ADD COLUMN domain_prove_time bigint",
    // The global admin that a case makes.
    "ALTER TABLE recovery_cases ADD COLUMN new_user_name {text} NOT NULL DEFAULT ''",
    "ALTER TABLE recovery_cases ADD COLUMN new_given_name {text} NOT NULL DEFAULT ''",
    "ALTER TABLE recovery_cases ADD COLUMN new_family_name {text} NOT NULL DEFAULT ''",
];
