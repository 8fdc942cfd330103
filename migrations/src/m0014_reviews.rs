//! Reviews (VER-6), the steps that they decide (VER-3, VER-4, VER-7), and who was tied to a company and is no longer: memberships that ended,
//! guests that are gone, contacts that were replaced.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // Kinds, states and decisions are those of `entente.account.v1.Review`.
    "CREATE TABLE reviews (
        id {uuid} PRIMARY KEY,
        kind bigint NOT NULL,
        -- The company that it is about.
        account_id {uuid} NOT NULL,
        -- The name of what is reviewed.
        subject {text} NOT NULL,
        submitter {text} NOT NULL,
        note {text} NOT NULL,
        -- A claimed one whose time is over waits again, which no row says.
        state bigint NOT NULL,
        claimed_by {uuid},
        claim_expire_time bigint,
        -- What the reviewer asked for.
        more_requested {text} NOT NULL,
        -- Whoever decided what is appealed against; somebody else handles it now.
        not_by {uuid},
        approvals_needed bigint NOT NULL,
        first_approved_by {uuid},
        decided boolean NOT NULL,
        decision bigint NOT NULL,
        reason {text} NOT NULL,
        decided_by {text} NOT NULL,
        decide_time bigint,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX reviews_open ON reviews (kind, subject) WHERE NOT decided",
    "CREATE INDEX reviews_by_time ON reviews (decided, create_time, id)",
    "CREATE INDEX reviews_by_kind ON reviews (decided, kind, create_time, id)",
    "CREATE INDEX reviews_of_account ON reviews (account_id, decided)",
    // Steps: what a reviewer asked for, what it approved of before the company approver did, and the appeal.
    "ALTER TABLE verification_steps ADD COLUMN asked {text} NOT NULL DEFAULT ''",
    "ALTER TABLE verification_steps ADD COLUMN reviewed boolean NOT NULL DEFAULT false",
    "ALTER TABLE verification_steps ADD COLUMN rejected_by {uuid}",
    "ALTER TABLE verification_steps ADD COLUMN appeal_until bigint",
    "ALTER TABLE verification_steps ADD COLUMN appealed boolean NOT NULL DEFAULT false",
    "CREATE INDEX verification_steps_by_appeal ON verification_steps (appeal_until) WHERE appeal_until IS NOT NULL",
    // Bits of the steps that an active account has to be verified in again.
    "ALTER TABLE accounts ADD COLUMN reverifying bigint NOT NULL DEFAULT 0",
    // Whoever was a member of an account (scope kind 2), or a guest of a tenant (1). The end is written by a job, soon after: triggers have
    // no clock of the service's.
    "CREATE TABLE former_ties (
        scope_kind smallint NOT NULL,
        scope_id {uuid} NOT NULL,
        user_id {uuid} NOT NULL,
        -- The person behind a guest.
        person_id {uuid} NOT NULL,
        recovery_email {text} NOT NULL,
        -- The name of guests and personal identities.
        email {text} NOT NULL,
        end_time bigint,
        PRIMARY KEY (scope_kind, scope_id, user_id)
    )",
    "CREATE INDEX former_ties_undated ON former_ties (scope_id) WHERE end_time IS NULL",
    "CREATE INDEX former_ties_by_end ON former_ties (end_time)",
    "CREATE INDEX former_ties_of_person ON former_ties (person_id)",
    "CREATE INDEX former_ties_by_email ON former_ties (email) WHERE email <> ''",
    "CREATE INDEX former_ties_by_recovery ON former_ties (recovery_email) WHERE recovery_email <> ''",
    // Tenants that an account had: their guests were tied to it.
    "CREATE TABLE former_tenants (
        account_id {uuid} NOT NULL,
        tenant_id {uuid} NOT NULL,
        end_time bigint,
        PRIMARY KEY (account_id, tenant_id)
    )",
    "CREATE INDEX former_tenants_by_end ON former_tenants (end_time)",
    "CREATE INDEX former_tenants_undated ON former_tenants (account_id) WHERE end_time IS NULL",
    "CREATE INDEX users_by_recovery ON users (lower(recovery_email)) WHERE recovery_email <> ''",
    "CREATE INDEX users_elsewhere_by_name ON users (user_name_fold) WHERE kind <> 1",
    "[postgres] CREATE FUNCTION entente_remember_tenant() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
        INSERT INTO former_tenants (account_id, tenant_id) VALUES (OLD.account_id, OLD.tenant_id)
            ON CONFLICT (account_id, tenant_id) DO UPDATE SET end_time = NULL;
        RETURN NULL; END $$",
    "[postgres] CREATE TRIGGER remember_tenant AFTER DELETE ON associations
        FOR EACH ROW EXECUTE FUNCTION entente_remember_tenant()",
    "[sqlite] CREATE TRIGGER remember_tenant AFTER DELETE ON associations
        BEGIN
        INSERT INTO former_tenants (account_id, tenant_id) VALUES (old.account_id, old.tenant_id)
            ON CONFLICT (account_id, tenant_id) DO UPDATE SET end_time = NULL;
        END",
    "CREATE TABLE former_contacts (
        account_id {uuid} NOT NULL,
        email {text} NOT NULL,
        end_time bigint NOT NULL,
        PRIMARY KEY (account_id, email)
    )",
    "CREATE INDEX former_contacts_by_end ON former_contacts (end_time)",
    "[postgres] CREATE FUNCTION entente_remember_members() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
        INSERT INTO former_ties (scope_kind, scope_id, user_id, person_id, recovery_email, email)
            SELECT 2, g.scope_id, u.id, COALESCE(u.home_id, u.id), lower(u.recovery_email), CASE WHEN u.kind = 1 THEN '' ELSE u.user_name_fold END
            FROM gone g JOIN users u ON u.id = g.principal_id WHERE g.scope_kind = 2
            ON CONFLICT (scope_kind, scope_id, user_id) DO UPDATE SET person_id = excluded.person_id,
            recovery_email = excluded.recovery_email, email = excluded.email, end_time = NULL;
        RETURN NULL; END $$",
    "[postgres] CREATE TRIGGER remember_members AFTER DELETE ON grants REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION entente_remember_members()",
    "[postgres] CREATE FUNCTION entente_remember_members_by_group() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
        INSERT INTO former_ties (scope_kind, scope_id, user_id, person_id, recovery_email, email)
            SELECT DISTINCT 2, g.scope_id, u.id, COALESCE(u.home_id, u.id), lower(u.recovery_email), CASE WHEN u.kind = 1 THEN '' ELSE u.user_name_fold END
            FROM gone g JOIN users u ON u.id = g.user_id WHERE g.scope_kind = 2
            ON CONFLICT (scope_kind, scope_id, user_id) DO UPDATE SET person_id = excluded.person_id,
            recovery_email = excluded.recovery_email, email = excluded.email, end_time = NULL;
        RETURN NULL; END $$",
    "[postgres] CREATE TRIGGER remember_members_by_group AFTER DELETE ON group_rights REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION entente_remember_members_by_group()",
    "[postgres] CREATE FUNCTION entente_remember_guest() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
        INSERT INTO former_ties (scope_kind, scope_id, user_id, person_id, recovery_email, email)
            VALUES (1, NEW.tenant_id, NEW.id, COALESCE(NEW.home_id, NEW.id), lower(NEW.recovery_email), NEW.user_name_fold)
            ON CONFLICT (scope_kind, scope_id, user_id) DO UPDATE SET person_id = excluded.person_id,
            recovery_email = excluded.recovery_email, email = excluded.email, end_time = NULL;
        RETURN NULL; END $$",
    "[postgres] CREATE TRIGGER remember_guest AFTER UPDATE OF state ON users
        FOR EACH ROW WHEN (NEW.kind = 2 AND NEW.state = 3 AND OLD.state <> 3) EXECUTE FUNCTION entente_remember_guest()",
    "[sqlite] CREATE TRIGGER remember_members AFTER DELETE ON grants WHEN old.scope_kind = 2
        BEGIN
        INSERT INTO former_ties (scope_kind, scope_id, user_id, person_id, recovery_email, email)
            SELECT 2, old.scope_id, u.id, COALESCE(u.home_id, u.id), lower(u.recovery_email), CASE WHEN u.kind = 1 THEN '' ELSE u.user_name_fold END
            FROM users u WHERE u.id = old.principal_id
            ON CONFLICT (scope_kind, scope_id, user_id) DO UPDATE SET person_id = excluded.person_id,
            recovery_email = excluded.recovery_email, email = excluded.email, end_time = NULL;
        END",
    "[sqlite] CREATE TRIGGER remember_members_by_group AFTER DELETE ON group_rights WHEN old.scope_kind = 2
        BEGIN
        INSERT INTO former_ties (scope_kind, scope_id, user_id, person_id, recovery_email, email)
            SELECT 2, old.scope_id, u.id, COALESCE(u.home_id, u.id), lower(u.recovery_email), CASE WHEN u.kind = 1 THEN '' ELSE u.user_name_fold END
            FROM users u WHERE u.id = old.user_id
            ON CONFLICT (scope_kind, scope_id, user_id) DO UPDATE SET person_id = excluded.person_id,
            recovery_email = excluded.recovery_email, email = excluded.email, end_time = NULL;
        END",
    "[sqlite] CREATE TRIGGER remember_guest AFTER UPDATE OF state ON users WHEN new.kind = 2 AND new.state = 3 AND old.state <> 3
        BEGIN
        INSERT INTO former_ties (scope_kind, scope_id, user_id, person_id, recovery_email, email)
            VALUES (1, new.tenant_id, new.id, COALESCE(new.home_id, new.id), lower(new.recovery_email), new.user_name_fold)
            ON CONFLICT (scope_kind, scope_id, user_id) DO UPDATE SET person_id = excluded.person_id,
            recovery_email = excluded.recovery_email, email = excluded.email, end_time = NULL;
        END",
];
