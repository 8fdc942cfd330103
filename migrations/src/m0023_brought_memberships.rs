//! Memberships of an older programme (NET-2): what the operator brought in, who asked for one, and levels that were moved.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // What was imported, and what of it shall move, are JSON: read and written as a whole.
    "CREATE TABLE imported_memberships (
        id {uuid} PRIMARY KEY,
        old_id {text} NOT NULL,
        old_id_fold {text} NOT NULL,
        content {text} NOT NULL,
        moves {text} NOT NULL,
        membership_id {uuid},
        arrive_time bigint,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX imported_memberships_old_id ON imported_memberships (old_id_fold)",
    // Brought once.
    "CREATE UNIQUE INDEX imported_memberships_membership ON imported_memberships (membership_id)",
    // Who asked for which old ID, whether or not there is one: its ID is the subject of the link.
    "CREATE TABLE membership_claims (
        id {uuid} PRIMARY KEY,
        old_id_fold {text} NOT NULL,
        claimant_kind smallint NOT NULL,
        claimant_id {uuid} NOT NULL,
        claimant_tenant_id {uuid} NOT NULL,
        language {text} NOT NULL,
        is_waiting boolean NOT NULL,
        create_time bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX membership_claims_of ON membership_claims (claimant_id, old_id_fold)",
    "CREATE INDEX membership_claims_waiting ON membership_claims (create_time, id) WHERE is_waiting",
    "CREATE INDEX membership_claims_by_time ON membership_claims (create_time)",
    // A level that was moved, which counts until then.
    "CREATE TABLE moved_levels (
        account_id {uuid} PRIMARY KEY,
        level bigint NOT NULL,
        expire_time bigint NOT NULL
    )",
];
