//! Ownership of accounts (ACC-20): ties of personal identities on their way, approvers as they were verified, and when an owner's finances
//! begin.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // Until then what concerns finances isn't the owner's yet; null where it always was.
    "ALTER TABLE grants ADD COLUMN finance_from bigint",
    // States: 1 invited, 2 awaiting consent, 3 handing over, 4 owner; 5 refused, 6 stopped, 7 replaced, 8 handed on.
    "CREATE TABLE ownerships (
        id {uuid} PRIMARY KEY,
        account_id {uuid} NOT NULL,
        is_transfer boolean NOT NULL,
        email {text} NOT NULL,
        email_fold {text} NOT NULL,
        identity_id {uuid},
        invited_by_kind smallint NOT NULL,
        invited_by_id {uuid} NOT NULL,
        invited_by_tenant_id {uuid} NOT NULL,
        state bigint NOT NULL,
        expire_time bigint NOT NULL,
        begin_time bigint,
        finance_from bigint,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL
    )",
    // One on its way an account.
    "CREATE UNIQUE INDEX ownerships_open ON ownerships (account_id) WHERE state <= 3",
    "CREATE INDEX ownerships_by_account ON ownerships (account_id, create_time)",
    "CREATE INDEX ownerships_due ON ownerships (begin_time) WHERE state = 3",
    // Approvers, each from when it was verified until another one was.
    "CREATE TABLE account_approvers (
        account_id {uuid} NOT NULL,
        email_fold {text} NOT NULL,
        email {text} NOT NULL,
        display_name {text} NOT NULL,
        verify_time bigint NOT NULL,
        replace_time bigint,
        PRIMARY KEY (account_id, email_fold)
    )",
];
