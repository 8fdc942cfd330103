//! What every call needs: heads of scopes, audit chains, the outbox, claims, jobs, keys, grants, mails.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // Small facts about this database: its epoch, the fingerprint of the master key, the test clock's offset.
    "CREATE TABLE meta (key {text} PRIMARY KEY, value {text} NOT NULL)",
    // One row a scope: locked by whoever changes anything there; holds the ends of its audit chain and of its events.
    "CREATE TABLE heads (
        scope_kind smallint NOT NULL,
        scope_id {uuid} NOT NULL,
        audit_count bigint NOT NULL,
        audit_hash {bytes} NOT NULL,
        event_count bigint NOT NULL,
        last_time bigint NOT NULL,
        PRIMARY KEY (scope_kind, scope_id)
    )",
    // `body` is what the hash covers; the other columns only find it.
    "CREATE TABLE audit_events (
        scope_kind smallint NOT NULL,
        scope_id {uuid} NOT NULL,
        seq bigint NOT NULL,
        event_id {uuid} NOT NULL,
        create_time bigint NOT NULL,
        action {text} NOT NULL,
        actor {text} NOT NULL,
        outcome {text} NOT NULL,
        body {bytes} NOT NULL,
        hash {bytes} NOT NULL,
        PRIMARY KEY (scope_kind, scope_id, seq)
    )",
    "CREATE INDEX audit_events_by_time ON audit_events (scope_kind, scope_id, create_time, event_id)",
    "CREATE TABLE outbox (
        scope_kind smallint NOT NULL,
        scope_id {uuid} NOT NULL,
        scope_seq bigint NOT NULL,
        event_id {uuid} NOT NULL,
        global_seq bigint,
        is_first boolean NOT NULL,
        type {text} NOT NULL,
        resource {text} NOT NULL,
        scopes {text} NOT NULL,
        actor {text} NOT NULL,
        changes {text} NOT NULL,
        create_time bigint NOT NULL,
        PRIMARY KEY (scope_kind, scope_id, scope_seq)
    )",
    "CREATE UNIQUE INDEX outbox_global ON outbox (global_seq)",
    "CREATE INDEX outbox_unnumbered ON outbox (create_time) WHERE is_first AND global_seq IS NULL",
    "CREATE INDEX outbox_by_time ON outbox (create_time)",
    "CREATE TABLE claims (
        caller {bytes} NOT NULL,
        request_id {uuid} NOT NULL,
        method {text} NOT NULL,
        request {bytes} NOT NULL,
        reply {bytes} NOT NULL,
        ended_right boolean NOT NULL,
        expire_time bigint NOT NULL,
        PRIMARY KEY (caller, request_id)
    )",
    "CREATE INDEX claims_by_expiry ON claims (expire_time)",
    "CREATE TABLE jobs (
        name {text} PRIMARY KEY,
        due_time bigint NOT NULL,
        lease_id {uuid},
        lease_expire_time bigint NOT NULL,
        attempt_count bigint NOT NULL,
        last_error {text} NOT NULL
    )",
    "CREATE INDEX jobs_due ON jobs (due_time)",
    "CREATE TABLE signing_keys (
        id {uuid} PRIMARY KEY,
        public_key {bytes} NOT NULL,
        sealed_private_key {bytes} NOT NULL,
        create_time bigint NOT NULL,
        sign_from_time bigint NOT NULL,
        sign_until_time bigint NOT NULL,
        expire_time bigint NOT NULL
    )",
    // Who holds what where: directory roles on tenants, account roles on accounts, operator roles on the operator.
    // A row without roles and permissions is a membership that gives nothing by itself.
    "CREATE TABLE grants (
        scope_kind smallint NOT NULL,
        scope_id {uuid} NOT NULL,
        principal_id {uuid} NOT NULL,
        principal_kind smallint NOT NULL,
        tenant_id {uuid} NOT NULL,
        roles bigint NOT NULL,
        permissions {text} NOT NULL,
        on_behalf_ceiling {text} NOT NULL,
        display_name_fold {text} NOT NULL,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (scope_kind, scope_id, principal_id)
    )",
    "CREATE INDEX grants_of_principal ON grants (principal_id, scope_kind)",
    "CREATE INDEX grants_by_time ON grants (scope_kind, scope_id, create_time, principal_id)",
    "CREATE INDEX grants_by_name ON grants (scope_kind, scope_id, display_name_fold, principal_id)",
    "CREATE INDEX grants_by_tenant ON grants (scope_kind, scope_id, tenant_id)",
    "CREATE TABLE associations (
        account_id {uuid} NOT NULL,
        tenant_id {uuid} NOT NULL,
        create_time bigint NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (account_id, tenant_id)
    )",
    "CREATE INDEX associations_of_tenant ON associations (tenant_id, account_id)",
    "CREATE TABLE mails (
        id {uuid} PRIMARY KEY,
        recipient {text} NOT NULL,
        template {text} NOT NULL,
        language {text} NOT NULL,
        object {text} NOT NULL,
        sealed_values {bytes} NOT NULL,
        state bigint NOT NULL,
        attempt_count bigint NOT NULL,
        last_error {text} NOT NULL,
        create_time bigint NOT NULL,
        send_time bigint,
        next_attempt_time bigint NOT NULL,
        lease_id {uuid},
        version bigint NOT NULL
    )",
    "CREATE INDEX mails_due ON mails (state, next_attempt_time)",
    "CREATE INDEX mails_by_time ON mails (create_time, id)",
    "CREATE INDEX mails_by_recipient ON mails (recipient, create_time)",
    "CREATE INDEX mails_by_object ON mails (object, create_time)",
    // Looks by the operator's people that were audited already: one a person, resource and hour.
    "CREATE TABLE looks (
        principal_id {uuid} NOT NULL,
        resource {text} NOT NULL,
        hour bigint NOT NULL,
        PRIMARY KEY (principal_id, resource, hour)
    )",
    "CREATE INDEX looks_by_hour ON looks (hour)",
    // The audit can't be changed by the service's own database user.
    "[postgres] CREATE FUNCTION entente_refuse_change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'audit events are never changed or deleted' USING ERRCODE = 'insufficient_privilege'; END $$",
    "[postgres] CREATE TRIGGER audit_events_are_kept BEFORE UPDATE OR DELETE ON audit_events
        FOR EACH ROW EXECUTE FUNCTION entente_refuse_change()",
    "[postgres] CREATE TRIGGER audit_events_are_kept_whole BEFORE TRUNCATE ON audit_events
        FOR EACH STATEMENT EXECUTE FUNCTION entente_refuse_change()",
    "[sqlite] CREATE TRIGGER audit_events_are_not_updated BEFORE UPDATE ON audit_events
        BEGIN SELECT RAISE(ABORT, 'audit events are never changed'); END",
    "[sqlite] CREATE TRIGGER audit_events_are_not_deleted BEFORE DELETE ON audit_events
        BEGIN SELECT RAISE(ABORT, 'audit events are never deleted'); END",
];
