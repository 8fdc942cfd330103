//! Relationships between partners' accounts and customers' tenants, and what these lend (REL-1 to REL-10, REL-14). `delegations` and
//! `delegation_assignments` are authority, written by `access/grants/lent.rs` alone: memory keeps facts of both, which the customer's tenant
//! is the key of.

use sea_orm_migration::{
    prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait},
    sea_orm::{ConnectionTrait, DbBackend},
};

use crate::{
    m0007_search::search,
    m0008_changed_keys::{Inserts, Told},
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, STATEMENTS).await?;
        search(manager, "relationships", &["display_name_fold"]).await?;
        let postgres = manager.get_connection().get_database_backend() == DbBackend::Postgres;
        for told in TOLD {
            let triggers = if postgres {
                told.postgres()
            } else {
                told.sqlite()
            };
            let triggers: Vec<&str> = triggers.iter().map(String::as_str).collect();
            crate::run(manager, &triggers).await?;
        }
        Ok(())
    }
}

const STATEMENTS: &[&str] = &[
    // Kinds and states are those of `entente.relationship.v1`; roles are bits of directory roles. The customer is named by an address or by
    // a domain, and by its tenant once that has accepted.
    "CREATE TABLE relationships (
        {id},
        account_id {uuid} NOT NULL REFERENCES accounts (id),
        tenant_id {uuid},
        kind bigint NOT NULL,
        state bigint NOT NULL,
        display_name {text} NOT NULL,
        display_name_fold {text} NOT NULL,
        message {text} NOT NULL,
        customer_email {text} NOT NULL,
        customer_domain {text} NOT NULL,
        requested_roles bigint NOT NULL,
        requested_days bigint NOT NULL,
        roles bigint NOT NULL,
        send_time bigint,
        answer_expire_time bigint,
        accept_time bigint,
        accepted_by {text} NOT NULL,
        agreement_number bigint NOT NULL,
        end_time bigint,
        roles_removed_time bigint,
        roles_removed_by {text} NOT NULL,
        closed_time bigint,
        closed_by {text} NOT NULL,
        due_time bigint,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX relationships_display_name ON relationships (account_id, display_name_fold)",
    "CREATE INDEX relationships_by_time ON relationships (account_id, create_time, id)",
    "CREATE INDEX relationships_by_name ON relationships (account_id, display_name_fold, id)",
    "CREATE INDEX relationships_of_customer_by_time ON relationships (tenant_id, create_time, id)",
    "CREATE INDEX relationships_of_customer_by_name ON relationships (tenant_id, display_name_fold, id)",
    "CREATE INDEX relationships_due ON relationships (due_time, id) WHERE due_time IS NOT NULL",
    "CREATE INDEX relationships_due_of_account ON relationships (account_id, due_time) WHERE due_time IS NOT NULL",
    "CREATE INDEX relationships_sent ON relationships (account_id, send_time) WHERE send_time IS NOT NULL",
    // How many of an account's haven't ended.
    "CREATE TABLE relationship_counts (
        account_id {uuid} PRIMARY KEY REFERENCES accounts (id),
        open_count bigint NOT NULL
    )",
    // Requests that were sent and not mailed yet: a row whoever is asked, whether or not somebody is there.
    "CREATE TABLE relationship_mails (
        relationship_id {uuid} PRIMARY KEY,
        due_time bigint NOT NULL
    )",
    "CREATE INDEX relationship_mails_due ON relationship_mails (due_time, relationship_id)",
    // Accounts that are over: rejected and closed.
    "CREATE INDEX accounts_over ON accounts (id) WHERE state IN (5, 6)",
    // One row as long as a relationship is in force: what the customer lends to the account, until when.
    "CREATE TABLE delegations (
        relationship_id {uuid} PRIMARY KEY,
        account_id {uuid} NOT NULL,
        tenant_id {uuid} NOT NULL,
        roles bigint NOT NULL,
        end_time bigint NOT NULL
    )",
    "CREATE INDEX delegations_of_tenant ON delegations (tenant_id, relationship_id)",
    "CREATE INDEX delegations_of_account ON delegations (account_id, relationship_id)",
    // To whom of the account's people it goes on: members with an account role (`holder_id` is nil then), or those of a group.
    "CREATE TABLE delegation_assignments (
        relationship_id {uuid} NOT NULL,
        holder_role bigint NOT NULL,
        holder_id {uuid} NOT NULL,
        tenant_id {uuid} NOT NULL,
        roles bigint NOT NULL,
        create_time bigint NOT NULL,
        PRIMARY KEY (relationship_id, holder_role, holder_id)
    )",
    "CREATE INDEX delegation_assignments_of_tenant ON delegation_assignments (tenant_id)",
    "CREATE INDEX delegation_assignments_of_holder ON delegation_assignments (holder_id)",
    // Users that a partner made, or whose temporary password it was shown, by what a relationship lent (REL-14): whether it made them, whether
    // the credential may still be one that it knew, and the recovery address that came by it.
    "CREATE TABLE delegated_users (
        id {uuid} PRIMARY KEY,
        relationship_id {uuid} NOT NULL,
        tenant_id {uuid} NOT NULL,
        is_made boolean NOT NULL,
        is_known boolean NOT NULL,
        shown_by {uuid} NOT NULL,
        recovery_email {text} NOT NULL,
        create_time bigint NOT NULL
    )",
    "CREATE INDEX delegated_users_of ON delegated_users (relationship_id, create_time, id)",
    "CREATE INDEX delegated_users_shown ON delegated_users (shown_by, create_time, id)",
];

const TOLD: [Told; 2] = [
    Told {
        table: "delegations",
        keys: &["tenant_id"],
        inserts: Inserts::Told,
        only: &[],
    },
    Told {
        table: "delegation_assignments",
        keys: &["tenant_id"],
        inserts: Inserts::Told,
        only: &[],
    },
];
