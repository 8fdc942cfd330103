//! Tenants, users, their credentials and sessions, applications and their keys.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    "CREATE TABLE tenants (
        id {uuid} PRIMARY KEY,
        domain_prefix {text} NOT NULL,
        display_name {text} NOT NULL,
        display_name_fold {text} NOT NULL,
        contact_email {text} NOT NULL,
        is_operator boolean NOT NULL,
        state bigint NOT NULL,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    // The prefix of a deleted tenant is never given again, so its row keeps it.
    "CREATE UNIQUE INDEX tenants_domain_prefix ON tenants (domain_prefix)",
    "CREATE INDEX tenants_by_time ON tenants (create_time, id)",
    "CREATE INDEX tenants_by_name ON tenants (display_name_fold, id)",
    "CREATE TABLE users (
        {id},
        tenant_id {uuid} NOT NULL REFERENCES tenants (id),
        user_name {text} NOT NULL,
        user_name_fold {text} NOT NULL,
        given_name {text} NOT NULL,
        family_name {text} NOT NULL,
        display_name {text} NOT NULL,
        display_name_fold {text} NOT NULL,
        recovery_email {text} NOT NULL,
        kind bigint NOT NULL,
        state bigint NOT NULL,
        created_through_account {uuid},
        rights_asleep_until bigint,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        delete_time bigint,
        purge_time bigint,
        version bigint NOT NULL
    )",
    // State 3 is deleted: its user name is free at once.
    "CREATE UNIQUE INDEX users_user_name ON users (tenant_id, user_name_fold) WHERE state <> 3",
    "CREATE INDEX users_by_time ON users (tenant_id, create_time, id)",
    "CREATE INDEX users_by_name ON users (tenant_id, display_name_fold, id)",
    "CREATE INDEX users_by_purge ON users (purge_time) WHERE purge_time IS NOT NULL",
    "[sqlite] CREATE VIRTUAL TABLE users_search USING fts5 (
        display_name_fold, user_name_fold, content='users', content_rowid='row_number', tokenize='trigram'
    )",
    "[sqlite] CREATE TRIGGER users_search_insert AFTER INSERT ON users BEGIN
        INSERT INTO users_search (rowid, display_name_fold, user_name_fold) VALUES (new.row_number, new.display_name_fold, new.user_name_fold);
    END",
    "[sqlite] CREATE TRIGGER users_search_delete AFTER DELETE ON users BEGIN
        INSERT INTO users_search (users_search, rowid, display_name_fold, user_name_fold)
            VALUES ('delete', old.row_number, old.display_name_fold, old.user_name_fold);
    END",
    "[sqlite] CREATE TRIGGER users_search_update AFTER UPDATE OF display_name_fold, user_name_fold ON users BEGIN
        INSERT INTO users_search (users_search, rowid, display_name_fold, user_name_fold)
            VALUES ('delete', old.row_number, old.display_name_fold, old.user_name_fold);
        INSERT INTO users_search (rowid, display_name_fold, user_name_fold) VALUES (new.row_number, new.display_name_fold, new.user_name_fold);
    END",
    "[postgres] CREATE EXTENSION IF NOT EXISTS pg_trgm",
    "[postgres] CREATE INDEX users_display_name_trigrams ON users USING gin (display_name_fold gin_trgm_ops)",
    "[postgres] CREATE INDEX users_user_name_trigrams ON users USING gin (user_name_fold gin_trgm_ops)",
    "CREATE TABLE credentials (
        user_id {uuid} PRIMARY KEY REFERENCES users (id),
        hash {text} NOT NULL,
        temporary boolean NOT NULL,
        expire_time bigint,
        change_time bigint NOT NULL,
        strangers_failed bigint NOT NULL,
        known_failed bigint NOT NULL
    )",
    // Failed sign-ins of a user by network, and networks of successes.
    "CREATE TABLE sign_in_networks (
        user_id {uuid} NOT NULL,
        network {text} NOT NULL,
        failed bigint NOT NULL,
        locked_until bigint NOT NULL,
        last_success_time bigint NOT NULL,
        PRIMARY KEY (user_id, network)
    )",
    // Failures for names that don't exist: a fixed number of rows, so that strangers can't fill the disk.
    "CREATE TABLE sign_in_strangers (
        slot bigint PRIMARY KEY,
        failed bigint NOT NULL,
        locked_until bigint NOT NULL
    )",
    "CREATE TABLE sessions (
        id {uuid} PRIMARY KEY,
        user_id {uuid} NOT NULL REFERENCES users (id),
        tenant_id {uuid} NOT NULL,
        client_address {text} NOT NULL,
        create_time bigint NOT NULL,
        sign_in_time bigint NOT NULL,
        last_refresh_time bigint NOT NULL,
        expire_time bigint NOT NULL,
        end_time bigint,
        refresh_hash {bytes} NOT NULL,
        previous_hash {bytes} NOT NULL,
        previous_until bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE INDEX sessions_of_user ON sessions (user_id, create_time, id)",
    "CREATE INDEX sessions_by_expiry ON sessions (expire_time)",
    "CREATE TABLE applications (
        id {uuid} PRIMARY KEY,
        tenant_id {uuid} NOT NULL REFERENCES tenants (id),
        display_name {text} NOT NULL,
        display_name_fold {text} NOT NULL,
        reply_url {text} NOT NULL,
        application_id_uri {text} NOT NULL,
        state bigint NOT NULL,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX applications_reply_url ON applications (tenant_id, reply_url) WHERE reply_url <> ''",
    "CREATE UNIQUE INDEX applications_id_uri ON applications (tenant_id, application_id_uri) WHERE application_id_uri <> ''",
    "CREATE INDEX applications_by_time ON applications (tenant_id, create_time, id)",
    "CREATE INDEX applications_by_name ON applications (tenant_id, display_name_fold, id)",
    "CREATE TABLE application_keys (
        id {uuid} PRIMARY KEY,
        application_id {uuid} NOT NULL REFERENCES applications (id),
        hash {bytes} NOT NULL,
        hint {text} NOT NULL,
        create_time bigint NOT NULL,
        expire_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE INDEX application_keys_of_application ON application_keys (application_id, create_time, id)",
];
