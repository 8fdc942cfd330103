//! What memory depends on: each change of a row that memory keeps facts of leaves the keys of these facts, in the same transaction, by
//! triggers. So nothing can be forgotten, by nobody's SQL.

use sea_orm_migration::{
    prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait},
    sea_orm::{ConnectionTrait, DbBackend},
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_connection().get_database_backend() == DbBackend::Postgres;
        let mut statements: Vec<String> = STATEMENTS.iter().map(|s| (*s).to_owned()).collect();
        for told in TOLD {
            statements.extend(if postgres {
                told.postgres()
            } else {
                told.sqlite()
            });
        }
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        crate::run(manager, &statements).await
    }
}

const STATEMENTS: &[&str] = &[
    // By the order of transactions, not of a sequence: a reader asks for what its last snapshot couldn't see. Gone after a crash, which
    // ends every connection, and with it what the reader has in memory.
    "[postgres] CREATE UNLOGGED TABLE changed_keys (xid xid8 NOT NULL DEFAULT pg_current_xact_id(), key uuid NOT NULL)",
    "[postgres] CREATE INDEX changed_keys_by_xid ON changed_keys (xid)",
    // Keys of all transactions before this one are gone; whoever hasn't seen them yet forgets everything.
    "[postgres] CREATE TABLE changed_keys_purge (below xid8 NOT NULL, mark xid8 NOT NULL, mark_time timestamptz NOT NULL)",
    "[postgres] INSERT INTO changed_keys_purge VALUES ('0', '0', now())",
    // One process: it takes the keys out as it commits, so they are numbered from 1 in each transaction.
    "[sqlite] CREATE TABLE changed_keys (n INTEGER PRIMARY KEY, key {uuid} NOT NULL)",
    // The test clock: its key is this fixed one.
    "[postgres] CREATE FUNCTION entente_tell_clock() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO changed_keys (key) VALUES ('00000000-0000-0000-0000-00000000c10c'); RETURN NULL; END $$",
    "[postgres] CREATE TRIGGER tell_clock AFTER UPDATE ON meta
        FOR EACH ROW WHEN (NEW.key = 'clock_offset') EXECUTE FUNCTION entente_tell_clock()",
    "[sqlite] CREATE TRIGGER tell_clock AFTER UPDATE ON meta WHEN new.key = 'clock_offset'
        BEGIN INSERT INTO changed_keys (key) VALUES (x'0000000000000000000000000000c10c'); END",
    // Emptied as a whole: the key of everything.
    "[postgres] CREATE FUNCTION entente_tell_all() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO changed_keys (key) VALUES ('00000000-0000-0000-0000-000000000000'); RETURN NULL; END $$",
];

/// More keys than this in one statement are as good as all.
const MOST_KEYS: &str = "4097";

/// A table that memory keeps facts of. Later steps that make such tables use it too, so what it makes stays as it is.
pub(crate) struct Told {
    pub(crate) table: &'static str,
    /// The columns that hold keys; null is none.
    pub(crate) keys: &'static [&'static str],
    pub(crate) inserts: Inserts,
    /// An update that changes none of these tells nothing. Empty for any update.
    pub(crate) only: &'static [&'static str],
}

pub(crate) enum Inserts {
    /// What isn't there is never remembered.
    Silent,
    Told,
    /// Told where this column isn't null, by it.
    If(&'static str),
}

const TOLD: &[Told] = &[
    Told {
        table: "tenants",
        keys: &["id"],
        inserts: Inserts::Silent,
        only: &[],
    },
    // Guests are told of to whoever they are at home.
    Told {
        table: "users",
        keys: &["id", "home_id"],
        inserts: Inserts::If("home_id"),
        only: &[],
    },
    Told {
        table: "applications",
        keys: &["id"],
        inserts: Inserts::Silent,
        only: &[],
    },
    Told {
        table: "accounts",
        keys: &["id"],
        inserts: Inserts::Silent,
        only: &[],
    },
    // Refreshing and failing are frequent, and change no fact that is remembered.
    Told {
        table: "sessions",
        keys: &["id"],
        inserts: Inserts::Silent,
        only: &["user_id", "end_time", "expire_time", "home_id"],
    },
    Told {
        table: "credentials",
        keys: &["user_id"],
        inserts: Inserts::Silent,
        only: &["temporary"],
    },
    Told {
        table: "application_keys",
        keys: &["id"],
        inserts: Inserts::Silent,
        only: &["application_id", "expire_time"],
    },
    Told {
        table: "grants",
        keys: &["principal_id"],
        inserts: Inserts::Told,
        only: &[],
    },
    Told {
        table: "group_rights",
        keys: &["user_id"],
        inserts: Inserts::Told,
        only: &[],
    },
    Told {
        table: "associations",
        keys: &["account_id"],
        inserts: Inserts::Told,
        only: &[],
    },
];

impl Told {
    /// Where few rows change at once, and only some changes matter, a trigger a row; else one a statement.
    pub(crate) fn postgres(&self) -> Vec<String> {
        let table = self.table;
        let mut all = vec![format!(
            "CREATE TRIGGER tell_truncate AFTER TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION entente_tell_all()"
        )];
        let by_row = |name: &str, when: &str, row: &str, keys: &[&str]| {
            let rows: Vec<String> = keys.iter().map(|k| format!("({row}.{k})")).collect();
            let rows = rows.join(", ");
            let event = name.to_uppercase();
            let condition = if when.is_empty() {
                String::new()
            } else {
                format!("WHEN ({when}) ")
            };
            vec![
                format!(
                    "CREATE FUNCTION entente_tell_{table}_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                     INSERT INTO changed_keys (key) SELECT k.key FROM (VALUES {rows}) k (key) WHERE k.key IS NOT NULL; RETURN NULL; END $$"
                ),
                format!(
                    "CREATE TRIGGER tell_{name} AFTER {event} ON {table} FOR EACH ROW {condition}EXECUTE FUNCTION entente_tell_{table}_{name}()"
                ),
            ]
        };
        let by_statement = |name: &str, transition: &str, tables: &[&str]| {
            let mut parts = Vec::new();
            for of in tables {
                for key in self.keys {
                    parts.push(format!(
                        "SELECT {key} AS key FROM {of} WHERE {key} IS NOT NULL"
                    ));
                }
            }
            let parts = parts.join(" UNION ");
            let event = name.to_uppercase();
            vec![
                format!(
                    "CREATE FUNCTION entente_tell_{table}_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                     INSERT INTO changed_keys (key) SELECT DISTINCT k.key FROM ({parts}) k LIMIT {MOST_KEYS}; RETURN NULL; END $$"
                ),
                format!(
                    "CREATE TRIGGER tell_{name} AFTER {event} ON {table} REFERENCING {transition} \
                     FOR EACH STATEMENT EXECUTE FUNCTION entente_tell_{table}_{name}()"
                ),
            ]
        };
        match self.inserts {
            Inserts::Silent => {}
            Inserts::Told => {
                all.extend(by_statement(
                    "insert",
                    "NEW TABLE AS now_there",
                    &["now_there"],
                ));
            }
            Inserts::If(column) => {
                all.extend(by_row(
                    "insert",
                    &format!("NEW.{column} IS NOT NULL"),
                    "NEW",
                    &[column],
                ));
            }
        }
        if self.only.is_empty() {
            all.extend(by_statement(
                "update",
                "OLD TABLE AS was_there NEW TABLE AS now_there",
                &["was_there", "now_there"],
            ));
            all.extend(by_statement(
                "delete",
                "OLD TABLE AS was_there",
                &["was_there"],
            ));
        } else {
            let changed: Vec<String> = self
                .only
                .iter()
                .map(|c| format!("OLD.{c} IS DISTINCT FROM NEW.{c}"))
                .collect();
            all.extend(by_row("update", &changed.join(" OR "), "OLD", self.keys));
            all.extend(by_row("delete", "", "OLD", self.keys));
        }
        all
    }

    pub(crate) fn sqlite(&self) -> Vec<String> {
        let table = self.table;
        let trigger = |name: &str, when: &str, rows: &[&str], keys: &[&str]| {
            let mut parts = Vec::new();
            for row in rows {
                for key in keys {
                    parts.push(format!(
                        "SELECT {row}.{key} AS key WHERE {row}.{key} IS NOT NULL"
                    ));
                }
            }
            let and = if when.is_empty() {
                String::new()
            } else {
                format!(" AND ({when})")
            };
            let event = name.to_uppercase();
            format!(
                "CREATE TRIGGER tell_{table}_{name} AFTER {event} ON {table} \
                 WHEN COALESCE((SELECT MAX(n) FROM changed_keys), 0) < {MOST_KEYS}{and} \
                 BEGIN INSERT INTO changed_keys (key) {}; END",
                parts.join(" UNION ")
            )
        };
        let mut all = Vec::new();
        match self.inserts {
            Inserts::Silent => {}
            Inserts::Told => all.push(trigger("insert", "", &["new"], self.keys)),
            Inserts::If(column) => {
                let when = format!("new.{column} IS NOT NULL");
                all.push(trigger("insert", &when, &["new"], &[column]));
            }
        }
        let changed: Vec<String> = self
            .only
            .iter()
            .map(|c| format!("old.{c} IS NOT new.{c}"))
            .collect();
        all.push(trigger(
            "update",
            &changed.join(" OR "),
            &["old", "new"],
            self.keys,
        ));
        all.push(trigger("delete", "", &["old"], self.keys));
        all
    }
}
