//! Yardsticks of writes: the rows that one CreateUser leaves behind, written by pgbench in three forms, and by SQLite itself with one commit a
//! call.
//!
//! The rows are copied from those that the service wrote for a user made while the bench was set up, so they have its columns and sizes,
//! whatever version it is. Only what must differ differs: IDs, names, places in chains, times.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use rusqlite::types::Value;

use crate::{
    load::Sample,
    postgres::psql,
    seed::{TENANTS, columns},
    site::Rows,
};

/// The user whose rows are copied.
#[derive(Clone)]
pub struct Model {
    /// `tenants/../users/..`.
    pub user: String,
    /// Its user name and family name, which no other row holds.
    pub word: String,
    /// The claim's ID.
    pub request_id: String,
}

/// How pgbench writes the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A statement a row, in one transaction.
    Statements,
    /// One statement for all rows.
    Cte,
    /// A function in the database.
    Function,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Statements, Self::Cte, Self::Function];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Statements => "a statement a row",
            Self::Cte => "one CTE",
            Self::Function => "a function",
        }
    }
}

/// Tables that one CreateUser writes to, and which of their rows are the model's.
fn tables(rows: &Rows, model: &Model) -> [(&'static str, String); 6] {
    let (user, request) = (rows.id(&model.user), rows.id(&model.request_id));
    let tenant = model.user.split('/').nth(1).unwrap_or_default();
    let scope = format!("scope_kind = 1 AND scope_id = {}", rows.id(tenant));
    [
        ("users", format!("id = {user}")),
        ("credentials", format!("user_id = {user}")),
        ("grants", format!("principal_id = {user}")),
        ("claims", format!("request_id = {request}")),
        ("audit_events", format!("{scope} ORDER BY seq DESC LIMIT 1")),
        ("outbox", format!("{scope} ORDER BY scope_seq DESC LIMIT 1")),
    ]
}

/// Rows of each table, to tell what a call wrote.
pub fn counts(rows: &Rows) -> Result<BTreeMap<String, i64>> {
    let sql = match rows {
        Rows::Sqlite(_) => {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '%\\_search%' ESCAPE '\\'"
        }
        Rows::Postgres(_) => "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    };
    let mut counts = BTreeMap::new();
    for table in rows.column(sql)? {
        let count = rows.column(&format!("SELECT COUNT(*) FROM {table}"))?;
        counts.insert(table, count.first().context("no count")?.parse()?);
    }
    Ok(counts)
}

/// What a call wrote, and whether the yardsticks write the same number of rows to the same tables.
pub fn written(rows: &Rows, model: &Model, before: &BTreeMap<String, i64>) -> Result<String> {
    let mut told = Vec::new();
    for (table, count) in counts(rows)? {
        let more = count - before.get(&table).copied().unwrap_or(0);
        if more == 0 {
            continue;
        }
        let ours = tables(rows, model);
        let ours = ours.iter().find(|(name, _)| **name == table);
        let copied = match ours {
            Some((name, which)) => {
                let sql = format!("SELECT COUNT(*) FROM (SELECT 1 FROM {name} WHERE {which}) AS r");
                rows.column(&sql)?
                    .first()
                    .context("no count")?
                    .parse::<i64>()?
            }
            None => 0,
        };
        let differs = if copied == more {
            ""
        } else {
            " (NOT WRITTEN BY THE YARDSTICKS)"
        };
        told.push(format!("{more} of {table}{differs}"));
    }
    Ok(told.join(", "))
}

/// What stands in a row of a yardstick.
#[derive(Clone)]
enum Cell {
    /// The same in each.
    Same(Value),
    /// A text around the word.
    Around(String),
    /// The user's ID, the tenant's, the claim's, the event's.
    Id,
    Tenant,
    Claim,
    Event,
    /// Places in the chain of audit events and in the outbox.
    Audit,
    Outbox,
    /// Now, in microseconds.
    Now,
}

fn cell(table: &str, column: &str, value: Value, word: &str) -> Cell {
    match (table, column, &value) {
        ("users", "id", _) | (_, "user_id" | "principal_id", _) => Cell::Id,
        (_, "tenant_id" | "scope_id", _) => Cell::Tenant,
        ("claims", "request_id", _) => Cell::Claim,
        (_, "event_id", _) => Cell::Event,
        ("audit_events", "seq", _) => Cell::Audit,
        ("outbox", "scope_seq", _) => Cell::Outbox,
        // Given after the commit.
        (_, "global_seq", _) => Cell::Same(Value::Null),
        (_, "create_time", _) => Cell::Now,
        (_, _, Value::Text(text)) if text.contains(word) => Cell::Around(text.clone()),
        _ => Cell::Same(value),
    }
}

// ---- PostgreSQL

/// How a script says what differs.
struct Says {
    id: &'static str,
    tenant: &'static str,
    claim: &'static str,
    event: &'static str,
    audit: &'static str,
    outbox: &'static str,
    word: &'static str,
}

/// By variables of pgbench: `t` is the tenant's number, `a` and `b` are random.
const BY_VARIABLES: Says = Says {
    id: "(lpad(to_hex(:a::bigint), 16, '0') || lpad(to_hex(:b::bigint), 16, '0'))::uuid",
    tenant: "('00000000-0000-4000-8000-' || lpad(:t::text, 12, '0'))::uuid",
    claim: "(lpad(to_hex(:b::bigint), 16, '0') || lpad(to_hex(:a::bigint), 16, '0'))::uuid",
    event: "(lpad(to_hex(:a::bigint), 16, '0') || lpad(to_hex(:a::bigint), 16, '0'))::uuid",
    audit: ":audit_count::bigint",
    outbox: ":event_count::bigint",
    word: "('u' || right(lpad(to_hex(:a::bigint), 16, '0'), 12))",
};
/// The same in one statement, where the head tells the places.
const BY_HEAD: Says = Says {
    audit: "h.audit_count",
    outbox: "h.event_count",
    ..BY_VARIABLES
};
/// By variables of a function.
const BY_FUNCTION: Says = Says {
    id: "v_id",
    tenant: "v_tenant",
    claim: "v_claim",
    event: "v_event",
    audit: "v_audit",
    outbox: "v_outbox",
    word: "v_word",
};
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

struct Row {
    table: &'static str,
    cells: Vec<(String, String, Cell)>,
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn model_rows(rows: &Rows, model: &Model) -> Result<Vec<Row>> {
    let Rows::Postgres(url) = rows else {
        anyhow::bail!("no PostgreSQL");
    };
    let mut out = Vec::new();
    for (table, which) in tables(rows, model) {
        let found = psql(
            url,
            &format!("SELECT row_to_json(r) FROM (SELECT * FROM {table} WHERE {which}) AS r"),
        )?;
        if found.is_empty() {
            continue;
        }
        let row: serde_json::Value = serde_json::from_str(&found)?;
        let types = psql(
            url,
            &format!(
                "SELECT column_name || ' ' || udt_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '{table}'"
            ),
        )?;
        let cells = types.lines().filter_map(|line| {
            let (column, kind) = line.split_once(' ')?;
            let value = match &row[column] {
                serde_json::Value::Null => Value::Null,
                serde_json::Value::String(text) => Value::Text(text.clone()),
                other => Value::Text(other.to_string()),
            };
            Some((
                column.to_owned(),
                kind.to_owned(),
                cell(table, column, value, &model.word),
            ))
        });
        out.push(Row {
            table,
            cells: cells.collect(),
        });
    }
    ensure!(!out.is_empty(), "the model has no rows");
    Ok(out)
}

impl Row {
    fn names(&self) -> String {
        let names: Vec<_> = self.cells.iter().map(|(name, ..)| name.as_str()).collect();
        names.join(", ")
    }

    fn values(&self, says: &Says, word: &str) -> String {
        let values: Vec<String> = self
            .cells
            .iter()
            .map(|(_, kind, cell)| match cell {
                Cell::Same(Value::Text(text)) => format!("{}::{kind}", quote(text)),
                Cell::Same(_) => format!("NULL::{kind}"),
                Cell::Around(text) => {
                    let parts: Vec<_> = text.split(word).map(quote).collect();
                    format!(
                        "({})::{kind}",
                        parts.join(&format!(" || {} || ", says.word))
                    )
                }
                Cell::Id => says.id.to_owned(),
                Cell::Tenant => says.tenant.to_owned(),
                Cell::Claim => says.claim.to_owned(),
                Cell::Event => says.event.to_owned(),
                Cell::Audit => says.audit.to_owned(),
                Cell::Outbox => says.outbox.to_owned(),
                Cell::Now => NOW.to_owned(),
            })
            .collect();
        values.join(", ")
    }
}

fn head(says: &Says) -> String {
    format!(
        "UPDATE heads SET audit_count = audit_count + 1, event_count = event_count + 1, audit_hash = decode(repeat('ab', 32), 'hex'), \
         last_time = {NOW} WHERE scope_kind = 1 AND scope_id = {}",
        says.tenant
    )
}

/// The scripts of pgbench, over a database that holds a hundred tenants with their heads and the model.
pub struct Scripts {
    url: String,
    folder: PathBuf,
}

impl Scripts {
    /// Writes them, and what they need in the database.
    pub fn write(rows: &Rows, model: &Model, folder: &Path) -> Result<Self> {
        let Rows::Postgres(url) = rows else {
            anyhow::bail!("no PostgreSQL");
        };
        let written = model_rows(rows, model)?;
        own_tenants(rows, model)?;
        let (word, mut inserts, mut parts) = (model.word.as_str(), String::new(), Vec::new());
        let mut body = String::new();
        for (number, row) in written.iter().enumerate() {
            let (table, names) = (row.table, row.names());
            let values = row.values(&BY_VARIABLES, word);
            inserts += &format!("INSERT INTO {table} ({names}) VALUES ({values});\n");
            parts.push(format!(
                "r{number} AS (INSERT INTO {table} ({names}) SELECT {} FROM h)",
                row.values(&BY_HEAD, word)
            ));
            body += &format!(
                "INSERT INTO {table} ({names}) VALUES ({});\n",
                row.values(&BY_FUNCTION, word)
            );
        }
        let (id, tenant, claim, event, word) = (
            own(BY_VARIABLES.id),
            own(BY_VARIABLES.tenant),
            own(BY_VARIABLES.claim),
            own(BY_VARIABLES.event),
            own(BY_VARIABLES.word),
        );
        psql(
            url,
            &format!(
                "CREATE FUNCTION yard_create(t integer, a bigint, b bigint) RETURNS void LANGUAGE plpgsql AS $yard$ DECLARE \
                 v_id uuid := {id}; v_tenant uuid := {tenant}; v_claim uuid := {claim}; v_event uuid := {event}; v_word text := {word}; \
                 v_audit bigint; v_outbox bigint; BEGIN {} RETURNING audit_count, event_count INTO v_audit, v_outbox; {body} END $yard$",
                head(&BY_FUNCTION)
            ),
        )?;
        let head = format!("{} RETURNING audit_count, event_count", head(&BY_VARIABLES));
        for hot in [false, true] {
            let tenant = if hot {
                "1".to_owned()
            } else {
                format!("random(1, {TENANTS})")
            };
            let sets = format!(
                "\\set t {tenant}\n\\set a random(1, 9000000000000000000)\n\\set b random(1, 9000000000000000000)\n"
            );
            for (form, text) in [
                (
                    Form::Statements,
                    format!("BEGIN;\n{head} \\gset\n{inserts}COMMIT;\n"),
                ),
                (
                    Form::Cte,
                    format!("WITH h AS ({head}), {} SELECT 1;\n", parts.join(", ")),
                ),
                (
                    Form::Function,
                    "SELECT yard_create(:t::integer, :a::bigint, :b::bigint);\n".to_owned(),
                ),
            ] {
                fs::write(script(folder, form, hot), format!("{sets}{text}"))?;
            }
        }
        Ok(Self {
            url: url.clone(),
            folder: folder.to_owned(),
        })
    }

    /// Runs one.
    pub async fn run(&self, form: Form, hot: bool, clients: u32, seconds: f64) -> Result<Sample> {
        crate::postgres::pgbench(
            &self.url,
            &script(&self.folder, form, hot),
            clients,
            seconds,
        )
        .await
    }
}

/// What variables of pgbench are called within a function.
fn own(expression: &str) -> String {
    ["a", "b", "t"]
        .iter()
        .fold(expression.to_owned(), |text, name| {
            text.replace(&format!(":{name}::"), &format!("{name}::"))
        })
}

fn script(folder: &Path, form: Form, hot: bool) -> PathBuf {
    let which = if hot { "hot" } else { "spread" };
    folder.join(format!("{form:?}-{which}.sql").to_lowercase())
}

/// A hundred tenants whose IDs are their numbers, and their heads, like those of the model.
fn own_tenants(rows: &Rows, model: &Model) -> Result<()> {
    let tenant = rows.id(model.user.split('/').nth(1).unwrap_or_default());
    let of = |table: &str, key: &str, scope: &str| -> Result<String> {
        let columns = columns(rows, table)?;
        let new: Vec<String> = columns
            .iter()
            .map(|column| match column.as_str() {
                c if c == key => {
                    "('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid".to_owned()
                }
                "domain_prefix" => "'yard' || n".to_owned(),
                other => other.to_owned(),
            })
            .collect();
        Ok(format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {table}, generate_series(1, {TENANTS}) AS n WHERE {scope} {key} = {tenant};",
            columns.join(", "),
            new.join(", ")
        ))
    };
    rows.execute(&of("tenants", "id", "")?)?;
    rows.execute(&of("heads", "scope_id", "scope_kind = 1 AND")?)
}

// ---- SQLite

/// Writes the model's rows by SQLite itself, one commit each, for so long: one thread, statements prepared once, the settings of the service.
pub fn one_commit_each(rows: &Rows, model: &Model, seconds: f64) -> Result<Sample> {
    let Rows::Sqlite(file) = rows else {
        anyhow::bail!("no SQLite");
    };
    let connection = rusqlite::Connection::open(file)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON",
    )?;
    connection.set_prepared_statement_cache_capacity(32);
    let mut inserts = Vec::new();
    for (table, which) in tables(rows, model) {
        let columns = columns(rows, table)?;
        let names = columns.join(", ");
        let found = connection.query_row(
            &format!("SELECT {names} FROM {table} WHERE {which}"),
            [],
            |row| {
                (0..columns.len())
                    .map(|n| row.get::<_, Value>(n))
                    .collect::<rusqlite::Result<Vec<_>>>()
            },
        );
        let found = match found {
            Err(rusqlite::Error::QueryReturnedNoRows) => continue,
            other => other?,
        };
        let cells: Vec<Cell> = columns
            .iter()
            .zip(found)
            .map(|(column, value)| cell(table, column, value, &model.word))
            .collect();
        let places = vec!["?"; cells.len()].join(", ");
        inserts.push((
            format!("INSERT INTO {table} ({names}) VALUES ({places})"),
            cells,
        ));
    }
    let tenants = tenants(&connection)?;
    let mut random = fastrand::Rng::new();
    let (begun, mut calls) = (Instant::now(), 0);
    while begun.elapsed().as_secs_f64() < seconds {
        let tenant = &tenants[random.usize(..tenants.len())];
        write(&connection, tenant, &inserts, &model.word, &mut random)?;
        calls += 1;
    }
    Ok(Sample::of_rate(calls, begun.elapsed().as_secs_f64()))
}

fn tenants(connection: &rusqlite::Connection) -> Result<Vec<Vec<u8>>> {
    let sql =
        "SELECT h.scope_id FROM heads h JOIN tenants t ON t.id = h.scope_id WHERE h.scope_kind = 1";
    let mut statement = connection.prepare(sql)?;
    let found = statement.query_map([], |row| row.get(0))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

fn write(
    connection: &rusqlite::Connection,
    tenant: &[u8],
    inserts: &[(String, Vec<Cell>)],
    word: &str,
    random: &mut fastrand::Rng,
) -> Result<()> {
    let bytes = |random: &mut fastrand::Rng| Value::Blob(random.u128(..).to_be_bytes().to_vec());
    let (id, claim, event) = (bytes(random), bytes(random), bytes(random));
    let own = format!("u{:012x}", random.u64(..) >> 16);
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let (audit, outbox, now): (i64, i64, i64) = connection
        .prepare_cached(
            "UPDATE heads SET audit_count = audit_count + 1, event_count = event_count + 1, audit_hash = zeroblob(32), \
             last_time = last_time + 1 WHERE scope_kind = 1 AND scope_id = ?1 RETURNING audit_count, event_count, last_time",
        )?
        .query_row([tenant], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for (sql, cells) in inserts {
        let values = cells.iter().map(|cell| match cell {
            Cell::Same(value) => value.clone(),
            Cell::Around(text) => Value::Text(text.replace(word, &own)),
            Cell::Id => id.clone(),
            Cell::Tenant => Value::Blob(tenant.to_vec()),
            Cell::Claim => claim.clone(),
            Cell::Event => event.clone(),
            Cell::Audit => Value::Integer(audit),
            Cell::Outbox => Value::Integer(outbox),
            Cell::Now => Value::Integer(now),
        });
        connection
            .prepare_cached(sql)?
            .execute(rusqlite::params_from_iter(values))?;
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}
