//! Accounts.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    "CREATE TABLE accounts (
        id {uuid} PRIMARY KEY,
        publisher_display_name {text} NOT NULL,
        publisher_display_name_fold {text} NOT NULL,
        legal_name {text} NOT NULL,
        country_code {text} NOT NULL,
        type bigint NOT NULL,
        seller_id {text} NOT NULL,
        state bigint NOT NULL,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX accounts_publisher_display_name ON accounts (publisher_display_name_fold)",
    "CREATE UNIQUE INDEX accounts_seller_id ON accounts (seller_id)",
    "CREATE INDEX accounts_by_time ON accounts (create_time, id)",
    // Associations as lists show them: with the tenant's names.
    "CREATE VIEW account_tenants AS SELECT
        s.account_id, s.tenant_id, t.display_name, t.display_name_fold, t.domain_prefix, s.create_time, s.version
        FROM associations s JOIN tenants t ON t.id = s.tenant_id",
    // Members as lists show them: the grant, and who it is.
    "CREATE VIEW members AS SELECT
        g.scope_id AS account_id, g.principal_id, g.principal_kind, g.tenant_id, g.roles, g.permissions, g.display_name_fold,
        g.create_time, g.update_time, g.version,
        COALESCE(u.display_name, a.display_name, '') AS display_name,
        COALESCE(u.user_name, '') AS user_name,
        COALESCE(u.user_name_fold, '') AS user_name_fold,
        COALESCE(t.domain_prefix, '') AS domain_prefix,
        CAST(CASE WHEN COALESCE(u.state, a.state, 0) = 1 AND t.state = 1 THEN 1 ELSE 0 END AS bigint) AS active
        FROM grants g
        LEFT JOIN users u ON u.id = g.principal_id
        LEFT JOIN applications a ON a.id = g.principal_id
        LEFT JOIN tenants t ON t.id = g.tenant_id
        WHERE g.scope_kind = 2",
];
