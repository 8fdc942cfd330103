//! Claims on publisher names (ACC-12), and names that are kept for whoever won one.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // States and answers are those of `entente.account.v1.NameClaim`.
    "CREATE TABLE name_claims (
        id {uuid} PRIMARY KEY,
        display_name {text} NOT NULL,
        statement {text} NOT NULL,
        -- The account that the name is to be for; none where the claimant has none yet.
        account_id {uuid},
        claimant_kind smallint NOT NULL,
        claimant_id {uuid} NOT NULL,
        claimant_tenant_id {uuid} NOT NULL,
        -- The account that has the name, or had it.
        holder_id {uuid} NOT NULL,
        state bigint NOT NULL,
        answer bigint NOT NULL,
        answer_text {text} NOT NULL,
        answer_time bigint,
        reason {text} NOT NULL,
        decide_time bigint,
        answer_until bigint NOT NULL,
        rename_until bigint,
        keep_until bigint,
        -- The holder was suspended, since it didn't rename in time.
        suspended boolean NOT NULL,
        -- When time does something to it.
        due_time bigint,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    // One on its way for what an account has.
    "CREATE UNIQUE INDEX name_claims_open ON name_claims (holder_id) WHERE state <= 3",
    "CREATE INDEX name_claims_alive ON name_claims (create_time) WHERE state <= 4",
    "CREATE INDEX name_claims_due ON name_claims (due_time) WHERE due_time IS NOT NULL",
    "CREATE INDEX name_claims_by_time ON name_claims (create_time, id)",
    "CREATE INDEX name_claims_of_claimant ON name_claims (claimant_id, create_time, id)",
    "CREATE INDEX name_claims_of_tenant ON name_claims (claimant_tenant_id, state)",
    "CREATE INDEX name_claims_of_account ON name_claims (account_id, create_time, id)",
    "CREATE INDEX name_claims_of_holder ON name_claims (holder_id, create_time, id)",
    // A key is an account's, or kept for a claim; one of both.
    "[postgres] ALTER TABLE publisher_names ALTER COLUMN account_id DROP NOT NULL",
    "[postgres] ALTER TABLE publisher_names ADD COLUMN kept_for {uuid}",
    "[sqlite] CREATE TABLE publisher_names_anew (
        skeleton {text} PRIMARY KEY,
        account_id {uuid},
        kept_for {uuid}
    )",
    "[sqlite] INSERT INTO publisher_names_anew (skeleton, account_id) SELECT skeleton, account_id FROM publisher_names",
    "[sqlite] DROP TABLE publisher_names",
    "[sqlite] ALTER TABLE publisher_names_anew RENAME TO publisher_names",
    "[sqlite] CREATE INDEX publisher_names_by_account ON publisher_names (account_id)",
    "CREATE INDEX publisher_names_by_claim ON publisher_names (kept_for) WHERE kept_for IS NOT NULL",
    // The other side of what is reviewed: an account, a tenant, or a person. Its people handle it no more than those of the account.
    "ALTER TABLE reviews ADD COLUMN other_id {uuid}",
];
