//! People beyond users of one tenant: groups and what they give, guests and their homes, personal identities, invitations, mailed links,
//! directory synchronisation, deleted tenants.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    "ALTER TABLE tenants ADD COLUMN synchronized boolean NOT NULL DEFAULT false",
    // The application that may stream the local directory.
    "ALTER TABLE tenants ADD COLUMN sync_agent_id {uuid}",
    // The personal identity that made it, which may have one without an account at a time (TEN-1).
    "ALTER TABLE tenants ADD COLUMN created_by_identity {uuid}",
    "ALTER TABLE tenants ADD COLUMN delete_time bigint",
    "ALTER TABLE tenants ADD COLUMN purge_time bigint",
    "ALTER TABLE tenants ADD COLUMN first_use_time bigint",
    // Whether those of before are in use, nobody has noted; none of them is purged as unused.
    "UPDATE tenants SET first_use_time = update_time",
    "CREATE INDEX tenants_unused ON tenants (create_time, id) WHERE first_use_time IS NULL",
    "CREATE INDEX tenants_by_purge ON tenants (purge_time) WHERE purge_time IS NOT NULL",
    "CREATE INDEX tenants_by_identity ON tenants (created_by_identity) WHERE created_by_identity IS NOT NULL",
    // The realm of personal identities: no tenant, which no name reaches and no list shows. So people have one table, and credentials,
    // sessions, locks and recovery are the same for all of them.
    "[postgres] INSERT INTO tenants (id, domain_prefix, display_name, display_name_fold, contact_email, is_operator, state, create_time, update_time, version)
        VALUES ('00000000-0000-0000-0000-000000000000', '', '', '', '', false, 1, 0, 0, 1)",
    "[sqlite] INSERT INTO tenants (id, domain_prefix, display_name, display_name_fold, contact_email, is_operator, state, create_time, update_time, version)
        VALUES (x'00000000000000000000000000000000', '', '', '', '', false, 1, 0, 0, 1)",
    // Kinds: 1 member, 2 guest, 3 personal identity. States: 1 active, 2 disabled, 3 deleted, 4 invited.
    // Whose credential a guest signs in with: a user elsewhere, or a personal identity.
    "ALTER TABLE users ADD COLUMN home_id {uuid}",
    "ALTER TABLE users ADD COLUMN home_tenant_id {uuid}",
    // The ID in the local directory; empty for what was made here.
    "ALTER TABLE users ADD COLUMN external_id {text} NOT NULL DEFAULT ''",
    "CREATE UNIQUE INDEX users_home ON users (tenant_id, home_id) WHERE home_id IS NOT NULL AND state <> 3",
    "CREATE INDEX users_of_home ON users (home_id) WHERE home_id IS NOT NULL",
    "CREATE UNIQUE INDEX users_external_id ON users (tenant_id, external_id) WHERE external_id <> '' AND state <> 3",
    "ALTER TABLE applications ADD COLUMN external_id {text} NOT NULL DEFAULT ''",
    "CREATE UNIQUE INDEX applications_external_id ON applications (tenant_id, external_id) WHERE external_id <> ''",
    // When people are told next that a key is about to expire; none when all mails were sent. For keys that are there already the first
    // that is due stands for those that were missed.
    "ALTER TABLE application_keys ADD COLUMN reminder_time bigint",
    "UPDATE application_keys SET reminder_time = expire_time - 2592000000000",
    "CREATE INDEX application_keys_by_reminder ON application_keys (reminder_time) WHERE reminder_time IS NOT NULL",
    "CREATE INDEX application_keys_by_expiry ON application_keys (expire_time)",
    // The person whose credential opened a guest's session.
    "ALTER TABLE sessions ADD COLUMN home_id {uuid}",
    "CREATE INDEX sessions_of_home ON sessions (home_id) WHERE home_id IS NOT NULL",
    // The session of the sign-in that a session for another tenant was opened from; it ends with that one.
    "ALTER TABLE sessions ADD COLUMN origin_id {uuid}",
    "CREATE INDEX sessions_of_origin ON sessions (origin_id) WHERE origin_id IS NOT NULL",
    // Which of the names that share a slot is counted there.
    "ALTER TABLE sign_in_strangers ADD COLUMN tag bigint NOT NULL DEFAULT 0",
    "CREATE TABLE user_groups (
        {id},
        tenant_id {uuid} NOT NULL REFERENCES tenants (id),
        display_name {text} NOT NULL,
        display_name_fold {text} NOT NULL,
        external_id {text} NOT NULL,
        -- Counted as people join and leave.
        member_count bigint NOT NULL DEFAULT 0,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX user_groups_external_id ON user_groups (tenant_id, external_id) WHERE external_id <> ''",
    "CREATE INDEX user_groups_by_time ON user_groups (tenant_id, create_time, id)",
    "CREATE INDEX user_groups_by_name ON user_groups (tenant_id, display_name_fold, id)",
    "CREATE TABLE group_members (
        group_id {uuid} NOT NULL,
        user_id {uuid} NOT NULL,
        display_name_fold {text} NOT NULL,
        create_time bigint NOT NULL,
        PRIMARY KEY (group_id, user_id)
    )",
    "CREATE INDEX group_members_of_user ON group_members (user_id, group_id)",
    "CREATE INDEX group_members_by_time ON group_members (group_id, create_time, user_id)",
    "CREATE INDEX group_members_by_name ON group_members (group_id, display_name_fold, user_id)",
    // What groups give to people, worked out when groups or their grants change: one row for each different set of rights that a person
    // has on a scope, however many groups give it, and one of these. So a check reads as little for 2,000 groups as for one.
    "CREATE TABLE group_rights (
        scope_kind smallint NOT NULL,
        scope_id {uuid} NOT NULL,
        user_id {uuid} NOT NULL,
        roles bigint NOT NULL,
        permissions {text} NOT NULL,
        group_id {uuid} NOT NULL,
        tenant_id {uuid} NOT NULL,
        PRIMARY KEY (scope_kind, scope_id, user_id, roles, permissions)
    )",
    "CREATE INDEX group_rights_of_user ON group_rights (user_id, scope_kind)",
    "CREATE INDEX group_rights_by_tenant ON group_rights (scope_kind, scope_id, tenant_id)",
    // People who can act, if their credential is good: themselves, their tenant, and for guests their home.
    "CREATE VIEW active_people AS SELECT
        u.id, u.tenant_id, u.kind, COALESCE(u.home_id, u.id) AS credential_of
        FROM users u JOIN tenants t ON t.id = u.tenant_id AND t.state = 1
        LEFT JOIN users h ON h.id = u.home_id
        LEFT JOIN tenants ht ON ht.id = h.tenant_id
        WHERE u.state = 1 AND (u.home_id IS NULL OR (h.state = 1 AND ht.state = 1))",
    // Accounts on which a principal may do anything: by its own membership, or by a group's; through tenants that are still associated.
    "CREATE VIEW account_reach AS
        SELECT g.principal_id, g.scope_id AS account_id FROM grants g WHERE g.scope_kind = 2 AND (g.principal_kind = 3 OR EXISTS
            (SELECT 1 FROM associations s WHERE s.account_id = g.scope_id AND s.tenant_id = g.tenant_id))
        UNION
        SELECT r.user_id AS principal_id, r.scope_id AS account_id FROM group_rights r WHERE r.scope_kind = 2 AND EXISTS
            (SELECT 1 FROM associations s WHERE s.account_id = r.scope_id AND s.tenant_id = r.tenant_id)",
    "DROP VIEW members",
    // Members as lists show them: the grant, and who it is.
    "CREATE VIEW members AS SELECT
        g.scope_id AS account_id, g.principal_id, g.principal_kind, g.tenant_id, g.roles, g.permissions, g.display_name_fold,
        g.create_time, g.update_time, g.version,
        COALESCE(u.display_name, a.display_name, d.display_name, '') AS display_name,
        COALESCE(u.user_name, '') AS user_name,
        COALESCE(u.user_name_fold, '') AS user_name_fold,
        COALESCE(u.kind, 0) AS user_kind,
        COALESCE(t.domain_prefix, '') AS domain_prefix,
        CASE WHEN COALESCE(u.external_id, a.external_id, d.external_id, '') <> '' THEN 1 ELSE 0 END AS synchronized,
        CAST(CASE WHEN t.state = 1 AND COALESCE(u.state, a.state, CASE WHEN d.id IS NULL THEN 0 ELSE 1 END) = 1
             AND (u.home_id IS NULL OR EXISTS (SELECT 1 FROM active_people p WHERE p.id = u.id)) THEN 1 ELSE 0 END AS bigint) AS active,
        -- Roles held directly or by groups; SQLite has no aggregate of bits.
        g.roles | COALESCE((SELECT MAX(r.roles & 2) | MAX(r.roles & 4) | MAX(r.roles & 8) | MAX(r.roles & 16) | MAX(r.roles & 32) | MAX(r.roles & 64)
             FROM group_rights r WHERE r.scope_kind = 2 AND r.scope_id = g.scope_id AND r.user_id = g.principal_id), 0) AS effective_roles
        FROM grants g
        LEFT JOIN users u ON u.id = g.principal_id
        LEFT JOIN applications a ON a.id = g.principal_id
        LEFT JOIN user_groups d ON d.id = g.principal_id
        LEFT JOIN tenants t ON t.id = g.tenant_id
        WHERE g.scope_kind = 2",
    // Who can be added to an account; kinds as in grants. Only without conditions of its own does PostgreSQL merge its parts in the order of
    // their indexes.
    "CREATE VIEW candidates AS SELECT
        u.id, u.tenant_id, CAST(1 AS smallint) AS kind, u.state, u.display_name, u.display_name_fold, u.user_name, u.user_name_fold, u.create_time
        FROM users u
        UNION ALL SELECT
        a.id, a.tenant_id, CAST(2 AS smallint) AS kind, a.state, a.display_name, a.display_name_fold, CAST('' AS text) AS user_name,
        CAST('' AS text) AS user_name_fold, a.create_time
        FROM applications a
        UNION ALL SELECT
        d.id, d.tenant_id, CAST(4 AS smallint) AS kind, CAST(1 AS bigint) AS state, d.display_name, d.display_name_fold,
        CAST('' AS text) AS user_name, CAST('' AS text) AS user_name_fold, d.create_time
        FROM user_groups d",
    // States: 1 pending, 2 accepted, 3 revoked. A pending one that is past its time has expired.
    "CREATE TABLE invitations (
        {id},
        tenant_id {uuid} NOT NULL REFERENCES tenants (id),
        user_id {uuid} NOT NULL,
        email {text} NOT NULL,
        email_fold {text} NOT NULL,
        account_id {uuid},
        roles bigint NOT NULL,
        permissions {text} NOT NULL,
        inviter_id {uuid} NOT NULL,
        inviter_kind smallint NOT NULL,
        inviter_tenant_id {uuid} NOT NULL,
        language {text} NOT NULL,
        state bigint NOT NULL,
        create_time bigint NOT NULL,
        send_time bigint NOT NULL,
        expire_time bigint NOT NULL,
        answer_time bigint,
        version bigint NOT NULL
    )",
    "CREATE INDEX invitations_by_time ON invitations (tenant_id, create_time, id)",
    "CREATE INDEX invitations_by_email ON invitations (tenant_id, email_fold, id)",
    "CREATE INDEX invitations_of_user ON invitations (user_id)",
    "CREATE INDEX invitations_by_expiry ON invitations (expire_time) WHERE state = 1",
    // Links in mails: only a MAC of the token is kept. One link of a kind for one subject; a new one kills the old.
    "CREATE TABLE links (
        mac {bytes} PRIMARY KEY,
        kind smallint NOT NULL,
        subject_id {uuid} NOT NULL,
        scope_kind smallint NOT NULL,
        scope_id {uuid} NOT NULL,
        sealed_payload {bytes} NOT NULL,
        -- Wrong passwords that came with it, where one is asked for.
        failed bigint NOT NULL DEFAULT 0,
        create_time bigint NOT NULL,
        expire_time bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX links_of_subject ON links (kind, subject_id)",
    "CREATE INDEX links_by_expiry ON links (expire_time)",
    // Names for which a way back was asked; worked off by a job, so that asking costs the same for every name.
    "CREATE TABLE recovery_requests (
        id {uuid} PRIMARY KEY,
        sign_in_name {text} NOT NULL,
        language {text} NOT NULL,
        create_time bigint NOT NULL
    )",
    // Mails that strangers had sent, for each address and each network: a fixed number of rows, so that strangers can't fill the disk.
    "CREATE TABLE mail_limits (
        slot bigint PRIMARY KEY,
        begin_time bigint NOT NULL,
        mail_count bigint NOT NULL
    )",
    // Users whom the local directory has disabled; `disabled_here` if an admin had done so before, and it stays when the directory's ends.
    "CREATE TABLE directory_disabled_users (
        user_id {uuid} PRIMARY KEY REFERENCES users (id),
        disabled_here boolean NOT NULL
    )",
    // How far a tenant's synchronisation has come.
    "CREATE TABLE directory_syncs (
        tenant_id {uuid} PRIMARY KEY REFERENCES tenants (id),
        request_id {text} NOT NULL,
        last_sequence bigint NOT NULL,
        upserted_count bigint NOT NULL,
        deleted_count bigint NOT NULL,
        fault_count bigint NOT NULL,
        begin_time bigint NOT NULL,
        update_time bigint NOT NULL
    )",
    // Entries that couldn't be taken over; the newest of each external ID, until it comes right.
    "CREATE TABLE directory_sync_faults (
        tenant_id {uuid} NOT NULL REFERENCES tenants (id),
        external_id {text} NOT NULL,
        id {uuid} NOT NULL,
        sequence bigint NOT NULL,
        entry_index bigint NOT NULL,
        reason {text} NOT NULL,
        field {text} NOT NULL,
        description {text} NOT NULL,
        create_time bigint NOT NULL,
        PRIMARY KEY (tenant_id, external_id)
    )",
];
