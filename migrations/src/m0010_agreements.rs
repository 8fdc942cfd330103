//! Agreements in versions, and who accepted which (AGR). Acceptances are never changed or deleted. Programmes of accounts.
//! Memory keeps facts of both tables: changes of agreements are told by a fixed key, acceptances by that of their account or tenant.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // Bits of the programmes that an account is enrolled in.
    "ALTER TABLE accounts ADD COLUMN programs bigint NOT NULL DEFAULT 0",
    // A version of an agreement. Kinds are those of `entente.access.v1.AgreementKind`.
    "CREATE TABLE agreements (
        id {uuid} PRIMARY KEY,
        kind bigint NOT NULL,
        number bigint NOT NULL,
        is_placeholder boolean NOT NULL,
        effective_time bigint NOT NULL,
        accept_by_time bigint,
        withdraw_time bigint,
        create_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX agreements_number ON agreements (kind, number)",
    "CREATE INDEX agreements_by_time ON agreements (create_time, id)",
    "CREATE TABLE agreement_texts (
        agreement_id {uuid} NOT NULL REFERENCES agreements (id),
        language {text} NOT NULL,
        title {text} NOT NULL,
        body {text} NOT NULL,
        sha256 {bytes} NOT NULL,
        PRIMARY KEY (agreement_id, language)
    )",
    // Who accepted which version of what, where: an account's or a tenant's.
    "CREATE TABLE acceptances (
        id {uuid} PRIMARY KEY,
        scope_kind smallint NOT NULL,
        scope_id {uuid} NOT NULL,
        agreement_id {uuid} NOT NULL REFERENCES agreements (id),
        kind bigint NOT NULL,
        number bigint NOT NULL,
        language {text} NOT NULL,
        title {text} NOT NULL,
        sha256 {bytes} NOT NULL,
        accepted_by {text} NOT NULL,
        create_time bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX acceptances_once ON acceptances (scope_kind, scope_id, kind, number)",
    "CREATE INDEX acceptances_by_time ON acceptances (scope_kind, scope_id, create_time, id)",
    "[postgres] CREATE FUNCTION entente_refuse_change_of_acceptances() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'acceptances are never changed or deleted' USING ERRCODE = 'insufficient_privilege'; END $$",
    "[postgres] CREATE TRIGGER acceptances_are_kept BEFORE UPDATE OR DELETE ON acceptances
        FOR EACH ROW EXECUTE FUNCTION entente_refuse_change_of_acceptances()",
    "[postgres] CREATE TRIGGER acceptances_are_kept_whole BEFORE TRUNCATE ON acceptances
        FOR EACH STATEMENT EXECUTE FUNCTION entente_refuse_change_of_acceptances()",
    "[sqlite] CREATE TRIGGER acceptances_are_not_updated BEFORE UPDATE ON acceptances
        BEGIN SELECT RAISE(ABORT, 'acceptances are never changed'); END",
    "[sqlite] CREATE TRIGGER acceptances_are_not_deleted BEFORE DELETE ON acceptances
        BEGIN SELECT RAISE(ABORT, 'acceptances are never deleted'); END",
    "[postgres] CREATE FUNCTION entente_tell_agreements() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO changed_keys (key) VALUES ('00000000-0000-0000-0000-00000000a63e'); RETURN NULL; END $$",
    "[postgres] CREATE TRIGGER tell_agreements AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON agreements
        FOR EACH STATEMENT EXECUTE FUNCTION entente_tell_agreements()",
    "[sqlite] CREATE TRIGGER tell_agreements_insert AFTER INSERT ON agreements
        BEGIN INSERT INTO changed_keys (key) VALUES (x'0000000000000000000000000000a63e'); END",
    "[sqlite] CREATE TRIGGER tell_agreements_update AFTER UPDATE ON agreements
        BEGIN INSERT INTO changed_keys (key) VALUES (x'0000000000000000000000000000a63e'); END",
    "[sqlite] CREATE TRIGGER tell_agreements_delete AFTER DELETE ON agreements
        BEGIN INSERT INTO changed_keys (key) VALUES (x'0000000000000000000000000000a63e'); END",
    "[postgres] CREATE FUNCTION entente_tell_acceptances() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO changed_keys (key) SELECT DISTINCT n.scope_id FROM now_there n; RETURN NULL; END $$",
    "[postgres] CREATE TRIGGER tell_acceptances AFTER INSERT ON acceptances REFERENCING NEW TABLE AS now_there
        FOR EACH STATEMENT EXECUTE FUNCTION entente_tell_acceptances()",
    "[sqlite] CREATE TRIGGER tell_acceptances_insert AFTER INSERT ON acceptances
        BEGIN INSERT INTO changed_keys (key) VALUES (new.scope_id); END",
];
