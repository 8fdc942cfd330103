//! Domains of tenants (TEN-2), proven by a record in the DNS.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // States: 1 pending, 2 verified, 3 lapsed.
    "CREATE TABLE domains (
        id {uuid} PRIMARY KEY,
        tenant_id {uuid} NOT NULL,
        domain_name {text} NOT NULL,
        token {text} NOT NULL,
        state bigint NOT NULL,
        verify_time bigint,
        look_up_time bigint,
        missing_since_time bigint,
        next_look_up_time bigint,
        lease_id {uuid},
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX domains_named ON domains (tenant_id, domain_name)",
    "CREATE UNIQUE INDEX domains_verified ON domains (domain_name) WHERE state = 2",
    "CREATE INDEX domains_by_time ON domains (tenant_id, create_time, id)",
    "CREATE INDEX domains_by_name ON domains (tenant_id, domain_name, id)",
    "CREATE INDEX domains_due ON domains (next_look_up_time) WHERE next_look_up_time IS NOT NULL",
];
