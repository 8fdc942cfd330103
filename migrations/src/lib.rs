//! The schema of Entente: one file a step, for SQLite and PostgreSQL alike. Steps are never changed once released; new ones are added.

use sea_orm_migration::{
    prelude::{DbErr, MigrationTrait, MigratorTrait, SchemaManager},
    sea_orm::{ConnectionTrait, DbBackend},
};

/// Makes the step of a file that is nothing but statements; it has the file's name.
macro_rules! step {
    ($statements:ident) => {
        /// This step.
        #[derive(sea_orm_migration::prelude::DeriveMigrationName)]
        pub struct Migration;

        #[sea_orm_migration::prelude::async_trait::async_trait]
        impl sea_orm_migration::prelude::MigrationTrait for Migration {
            async fn up(
                &self,
                manager: &sea_orm_migration::prelude::SchemaManager,
            ) -> Result<(), sea_orm_migration::prelude::DbErr> {
                crate::run(manager, $statements).await
            }
        }
    };
}
use step;

mod m0001_kernel;
mod m0002_directory;
mod m0003_account;
mod m0004_operator;
mod m0005_people;
mod m0006_event_payloads;
mod m0007_search;
mod m0008_changed_keys;
mod m0009_woken_rights;
mod m0010_agreements;
mod m0011_network;
mod m0012_enrolment;
mod m0013_verification;
mod m0014_reviews;
mod m0015_documents;
mod m0016_domains;
mod m0017_offers;
mod m0018_verified_by_domain;
mod m0019_recovery_cases;
mod m0020_ownership;
mod m0021_benefits;
mod m0022_name_claims;
mod m0023_brought_memberships;
mod m0024_recovery_evidence;
mod m0026_refused_charges;
mod m0027_former_addresses;
mod m0028_reviews_of_steps;
mod m0031_recovery_owner;
mod m0032_former_tenants;
mod m0033_languages;
mod m0034_former_recovery_address;
mod m0035_relationships;

/// Runs the steps that a database lacks.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_kernel::Migration),
            Box::new(m0002_directory::Migration),
            Box::new(m0003_account::Migration),
            Box::new(m0004_operator::Migration),
            Box::new(m0005_people::Migration),
            Box::new(m0006_event_payloads::Migration),
            Box::new(m0007_search::Migration),
            Box::new(m0008_changed_keys::Migration),
            Box::new(m0009_woken_rights::Migration),
            Box::new(m0010_agreements::Migration),
            Box::new(m0011_network::Migration),
            Box::new(m0012_enrolment::Migration),
            Box::new(m0013_verification::Migration),
            Box::new(m0014_reviews::Migration),
            Box::new(m0015_documents::Migration),
            Box::new(m0016_domains::Migration),
            Box::new(m0017_offers::Migration),
            Box::new(m0018_verified_by_domain::Migration),
            Box::new(m0019_recovery_cases::Migration),
            Box::new(m0020_ownership::Migration),
            Box::new(m0021_benefits::Migration),
            Box::new(m0022_name_claims::Migration),
            Box::new(m0023_brought_memberships::Migration),
            Box::new(m0024_recovery_evidence::Migration),
            Box::new(m0026_refused_charges::Migration),
            Box::new(m0027_former_addresses::Migration),
            Box::new(m0028_reviews_of_steps::Migration),
            Box::new(m0031_recovery_owner::Migration),
            Box::new(m0032_former_tenants::Migration),
            Box::new(m0033_languages::Migration),
            Box::new(m0034_former_recovery_address::Migration),
            Box::new(m0035_relationships::Migration),
        ]
    }
}

/// Runs statements in which `{uuid}`, `{bytes}` and `{text}` stand for the database's own types, and `{id}` for a table's ID where SQLite
/// needs a row number beside it that VACUUM keeps, for a search index.
///
/// Texts compare by code point on both databases, so that keyset pages come in the same order.
/// Lines that begin with `[postgres]` or `[sqlite]` are for that database only.
async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let (own, other, uuid, bytes, text, id) = match db.get_database_backend() {
        DbBackend::Postgres => (
            "[postgres]",
            "[sqlite]",
            "uuid",
            "bytea",
            "text COLLATE \"C\"",
            "id uuid PRIMARY KEY",
        ),
        _ => (
            "[sqlite]",
            "[postgres]",
            "blob",
            "blob",
            "text",
            "row_number INTEGER PRIMARY KEY, id blob NOT NULL UNIQUE",
        ),
    };
    for statement in statements {
        let statement = statement.trim();
        if statement.starts_with(other) {
            continue;
        }
        let sql = statement
            .strip_prefix(own)
            .unwrap_or(statement)
            .replace("{uuid}", uuid)
            .replace("{bytes}", bytes)
            .replace("{text}", text)
            .replace("{id}", id);
        db.execute_unprepared(&sql).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Databases remember which steps they have by these names.
    #[test]
    fn steps_have_the_names_of_their_files_in_order() {
        let steps = Migrator::migrations();
        let names: Vec<_> = steps.iter().map(|step| step.name()).collect();
        assert!(names.is_sorted());
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let files = std::fs::read_dir(folder).expect("this folder");
        let mut stems: Vec<_> = files
            .flatten()
            .filter_map(|file| {
                file.file_name()
                    .to_str()?
                    .strip_suffix(".rs")
                    .map(str::to_owned)
            })
            .filter(|stem| stem != "lib")
            .collect();
        stems.sort();
        assert_eq!(names, stems);
    }
}
