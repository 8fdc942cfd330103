//! The addresses that reviewers had (VER-6), and whom ownerships are about (IDN-2).

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // Of the operator's staff: a user's name or recovery address as it was. The end is written by a job, soon after: triggers have no clock of
    // the service's.
    "CREATE TABLE former_addresses (
        user_id {uuid} NOT NULL,
        user_name_fold {text} NOT NULL,
        recovery_email {text} NOT NULL,
        end_time bigint,
        PRIMARY KEY (user_id, user_name_fold, recovery_email)
    )",
    "CREATE INDEX ownerships_by_email ON ownerships (email_fold)",
    "CREATE INDEX ownerships_by_identity ON ownerships (identity_id) WHERE identity_id IS NOT NULL",
    "CREATE INDEX former_addresses_by_end ON former_addresses (end_time)",
    "CREATE INDEX former_addresses_undated ON former_addresses (user_id) WHERE end_time IS NULL",
    "[postgres] CREATE FUNCTION entente_remember_address() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
        INSERT INTO former_addresses (user_id, user_name_fold, recovery_email)
            SELECT OLD.id, OLD.user_name_fold, OLD.recovery_email
            WHERE EXISTS (SELECT 1 FROM grants g WHERE g.principal_id = OLD.id AND g.scope_kind = 0)
            ON CONFLICT (user_id, user_name_fold, recovery_email) DO UPDATE SET end_time = NULL;
        RETURN NULL; END $$",
    "[postgres] CREATE TRIGGER remember_address AFTER UPDATE OF user_name_fold, recovery_email ON users
        FOR EACH ROW WHEN (NEW.user_name_fold <> OLD.user_name_fold OR NEW.recovery_email <> OLD.recovery_email)
        EXECUTE FUNCTION entente_remember_address()",
    "[sqlite] CREATE TRIGGER remember_address AFTER UPDATE OF user_name_fold, recovery_email ON users
        WHEN new.user_name_fold <> old.user_name_fold OR new.recovery_email <> old.recovery_email
        BEGIN
        INSERT INTO former_addresses (user_id, user_name_fold, recovery_email)
            SELECT old.id, old.user_name_fold, old.recovery_email
            WHERE EXISTS (SELECT 1 FROM grants g WHERE g.principal_id = old.id AND g.scope_kind = 0)
            ON CONFLICT (user_id, user_name_fold, recovery_email) DO UPDATE SET end_time = NULL;
        END",
];
