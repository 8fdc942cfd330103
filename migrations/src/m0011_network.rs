//! Memberships of the partner network (NET).

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    "CREATE TABLE network_memberships (
        id {uuid} PRIMARY KEY,
        partner_id {text} NOT NULL,
        legal_name {text} NOT NULL,
        country_code {text} NOT NULL,
        website_uri {text} NOT NULL,
        contact_name {text} NOT NULL,
        contact_email {text} NOT NULL,
        contact_phone {text} NOT NULL,
        joined_by_kind smallint NOT NULL,
        joined_by_id {uuid} NOT NULL,
        joined_by_tenant_id {uuid} NOT NULL,
        account_id {uuid},
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX network_memberships_partner_id ON network_memberships (partner_id)",
    // An account was opened with one membership; nobody has two without an account.
    "CREATE UNIQUE INDEX network_memberships_account ON network_memberships (account_id)",
    "CREATE UNIQUE INDEX network_memberships_unused ON network_memberships (joined_by_id) WHERE account_id IS NULL",
    "CREATE INDEX network_memberships_by_tenant ON network_memberships (joined_by_tenant_id)",
];
