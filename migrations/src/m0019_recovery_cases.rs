//! Cases of recovery (PWD-10), and who can stop each.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // Roles and states are those of `entente.directory.v1.RecoveryCase`; scopes and principals are numbered as in grants.
    "CREATE TABLE recovery_cases (
        id {uuid} PRIMARY KEY,
        role bigint NOT NULL,
        scope_kind smallint NOT NULL,
        scope_id {uuid} NOT NULL,
        person_kind smallint NOT NULL,
        person_id {uuid} NOT NULL,
        person_tenant_id {uuid} NOT NULL,
        proven_email {text} NOT NULL,
        note {text} NOT NULL,
        reopens_id {uuid},
        state bigint NOT NULL,
        opened_by_id {uuid} NOT NULL,
        opened_by {text} NOT NULL,
        approved_by_id {uuid},
        approved_by {text} NOT NULL,
        stopped_by {text} NOT NULL,
        stop_reason {text} NOT NULL,
        create_time bigint NOT NULL,
        approve_time bigint,
        due_time bigint,
        end_time bigint,
        version bigint NOT NULL
    )",
    "CREATE INDEX recovery_cases_by_time ON recovery_cases (create_time, id)",
    // One open case for a role on a scope.
    "CREATE UNIQUE INDEX recovery_cases_open ON recovery_cases (role, scope_kind, scope_id) WHERE state IN (1, 2, 3)",
    "CREATE INDEX recovery_cases_due ON recovery_cases (due_time) WHERE state IN (2, 3)",
    // A stopped case is opened again once, until that one ends.
    "CREATE INDEX recovery_cases_by_scope ON recovery_cases (scope_kind, scope_id, role, id)",
    // Whom a mail told of a case, and so who can stop it: its ID is the subject of the link.
    "CREATE TABLE recovery_notices (
        id {uuid} PRIMARY KEY,
        case_id {uuid} NOT NULL,
        recipient {text} NOT NULL
    )",
    "CREATE INDEX recovery_notices_by_case ON recovery_notices (case_id)",
];
