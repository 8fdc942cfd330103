//! The configuration: one struct, from defaults, a file, the environment and flags, in that order; validated once, every fault named.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use config::Source as _;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::{
    env::{DAY_US, MINUTE_US, Micros},
    keys,
};

/// Calls at once beyond which no machine gets more done.
const MOST_CONCURRENT_CALLS: usize = 100_000;
/// Workers that hash passwords; each takes the memory of one hash.
const MOST_HASH_WORKERS: usize = 256;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// How answers come to be as fresh as the database.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Freshness {
    /// From memory, where the database vouches for it at each call. Needs a primary that shows its transactions as PostgreSQL does.
    #[default]
    Barrier,
    /// Read from the database at each call.
    Database,
}

/// Everything that can be configured. Each field is also `ENTENTE_` and its name in capitals.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Where operations are served: health, keys, discovery.
    pub ops_listen: SocketAddr,
    /// The folder of the embedded database, keys and mails.
    pub data_dir: PathBuf,
    /// PostgreSQL; the embedded SQLite if not set.
    pub database_url: Option<String>,
    /// PostgreSQL as the owner of the tables, for migrations; `database_url` if not set.
    pub migrate_database_url: Option<String>,
    /// Whether `serve` runs migrations that are missing.
    pub migrate_at_start: bool,
    /// What links in mails begin with, and the issuer of tokens.
    pub public_origin: String,
    /// Tenants' domains lie under it.
    pub base_domain: String,
    /// Refuses what is only good for trying out.
    pub production: bool,
    /// Serves TestClockService; refused in production.
    pub enable_test_clock: bool,
    /// The master key, base64 of 32 bytes; the file `master.key` in `data_dir` if not set.
    pub master_key: Option<String>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged, in the syntax of `tracing-subscriber`'s `EnvFilter`.
    pub log_filter: String,
    /// Lifetime of access tokens in seconds, 60 to 3,600.
    pub access_token_lifetime_s: u32,
    /// Lifetime of sessions in days, 1 to 90.
    pub session_lifetime_days: u32,
    /// Whom mails come from.
    pub mail_from: String,
    /// Where domains are looked up: addresses with ports, with commas between; the system's resolver if empty.
    pub dns_servers: String,
    /// Calls worked on at once; further ones are told to try again.
    pub max_concurrent_calls: usize,
    /// How long a stopping server waits for calls in flight, in seconds.
    pub drain_timeout_s: u32,
    /// Workers that hash passwords; as many as there are cores if 0.
    pub hash_workers: usize,
    /// Multiplies the limits of calls a caller.
    pub limits_factor: u32,
    /// `barrier`, or `database` for databases that only speak PostgreSQL's protocol.
    pub freshness: Freshness,
    /// The bucket of an S3-compatible store that keeps documents; the folder `blobs` in `data_dir` if not set, which replicas must share.
    pub s3_bucket: Option<String>,
    /// Where the store is, scheme and host; that of AWS in the region if not set. Without TLS only on this machine.
    pub s3_endpoint: Option<String>,
    /// The store's region.
    pub s3_region: String,
    /// The store's key; that of the machine's role at AWS if neither is set.
    pub s3_access_key_id: Option<String>,
    /// The key's secret.
    pub s3_secret_access_key: Option<String>,
    /// The bucket is named in the path, not in the host.
    pub s3_path_style: bool,
    /// All replicas share the folder of documents.
    pub blobs_shared: bool,
    /// LEI records that decide business verifications: the golden copy of the GLEIF in CSV (level 1). Reviewers alone decide if not set.
    pub gleif_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50_051)),
            ops_listen: SocketAddr::from(([127, 0, 0, 1], 9_090)),
            data_dir: PathBuf::from("data"),
            database_url: None,
            migrate_database_url: None,
            migrate_at_start: true,
            public_origin: "http://localhost:8080".to_owned(),
            base_domain: "partners.localhost".to_owned(),
            production: false,
            enable_test_clock: false,
            master_key: None,
            log_format: LogFormat::Human,
            log_filter: "info,sqlx=warn,sea_orm_migration=warn".to_owned(),
            access_token_lifetime_s: 900,
            session_lifetime_days: 14,
            mail_from: "Entente <no-reply@partners.localhost>".to_owned(),
            dns_servers: String::new(),
            max_concurrent_calls: 2_000,
            drain_timeout_s: 20,
            hash_workers: 0,
            limits_factor: 1,
            freshness: Freshness::default(),
            s3_bucket: None,
            s3_endpoint: None,
            s3_region: "us-east-1".to_owned(),
            s3_access_key_id: None,
            s3_secret_access_key: None,
            s3_path_style: true,
            blobs_shared: false,
            gleif_file: None,
        }
    }
}

/// Shows no secret: URLs of databases hold passwords.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("ops_listen", &self.ops_listen)
            .field("data_dir", &self.data_dir)
            .field("postgres", &self.database_url.is_some())
            .field("public_origin", &self.public_origin)
            .field("base_domain", &self.base_domain)
            .field("production", &self.production)
            .field("s3_bucket", &self.s3_bucket)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the file, if one is named, and the environment, setting by setting: what can't be read is a fault, in plain words, and the
    /// default stands for it, so that everything else is looked at too. Nothing is validated yet.
    #[must_use]
    pub fn load(file: Option<&Path>) -> (Self, Vec<String>) {
        let mut faults = Vec::new();
        let mut given = BTreeMap::new();
        if let Some(path) = file {
            let file = config::File::from(path).format(config::FileFormat::Toml);
            match file.collect() {
                Ok(settings) => given.extend(settings),
                Err(e) if path.is_file() => faults.push(e.to_string()),
                Err(_) => faults.push(format!("config: {} is no file", path.display())),
            }
        }
        for (name, value) in variables() {
            match of_variable(&name) {
                // A text as it stands: a folder may be named 007.
                Variable::Setting(setting) => match value.into_string() {
                    Ok(value) => {
                        given.insert(setting.to_owned(), config::Value::from(value));
                    }
                    Err(_) => faults.push(format!("{setting}: must be UTF-8")),
                },
                Variable::Misspelt(meant) => {
                    faults.push(format!("{name}: is no setting; {} is", variable(meant)));
                }
                Variable::Strange | Variable::AnotherOnes => {}
            }
        }
        (Self::of_settings(given, &mut faults), faults)
    }

    /// Variables that begin as settings do, and are none: of tools, or of a platform that names services so.
    #[must_use]
    pub fn strange_variables() -> Vec<String> {
        variables()
            .map(|(name, _)| name)
            .filter(|name| matches!(of_variable(name), Variable::Strange))
            .collect()
    }

    fn of_settings(given: BTreeMap<String, config::Value>, faults: &mut Vec<String>) -> Self {
        let read =
            |settings: &BTreeMap<String, config::Value>| -> Result<Self, config::ConfigError> {
                let mut builder = config::Config::builder();
                for (name, value) in settings {
                    builder = builder.set_override(name, value.clone())?;
                }
                builder.build()?.try_deserialize::<Self>()
            };
        let mut good = BTreeMap::new();
        for (name, value) in given {
            let Some((_, shape)) = FIELDS.iter().find(|(field, _)| *field == name) else {
                faults.push(format!("{name}: is no setting"));
                continue;
            };
            let alone = BTreeMap::from([(name.clone(), value.clone())]);
            if read(&alone).is_ok() {
                good.insert(name, value);
            } else {
                // Not what was given, which may be a secret.
                faults.push(format!("{name}: must be {shape}"));
            }
        }
        read(&good).unwrap_or_else(|e| {
            faults.push(e.to_string());
            Self::default()
        })
    }

    /// Every fault of the configuration, in plain words; none if it is good.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |bad: bool, text: &str| {
            if bad {
                faults.push(text.to_owned());
            }
        };
        let origin = url::Url::parse(&self.public_origin);
        let plain = origin.as_ref().is_ok_and(|u| {
            matches!(u.scheme(), "http" | "https")
                && u.has_host()
                && u.path() == "/"
                && u.query().is_none()
        });
        fault(
            !plain || self.public_origin.ends_with('/'),
            "public_origin: must be scheme and host without a path, such as https://partners.example",
        );
        let domain = self.base_domain.as_str();
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && l.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        fault(
            domain.len() > 200 || !domain.contains('.') || !domain.split('.').all(label),
            "base_domain: must be a lower-case domain, such as partners.example",
        );
        fault(
            !(60..=3_600).contains(&self.access_token_lifetime_s),
            "access_token_lifetime_s: must be 60 to 3600",
        );
        fault(
            !(1..=90).contains(&self.session_lifetime_days),
            "session_lifetime_days: must be 1 to 90",
        );
        let servers = self.dns_servers.split(',').filter(|s| !s.trim().is_empty());
        fault(
            servers.count() != self.dns_server_addresses().len(),
            "dns_servers: must be addresses with ports, such as 192.0.2.53:53,[2001:db8::53]:53",
        );
        fault(
            !(1..=MOST_CONCURRENT_CALLS).contains(&self.max_concurrent_calls),
            &format!("max_concurrent_calls: must be 1 to {MOST_CONCURRENT_CALLS}"),
        );
        fault(
            self.hash_workers > MOST_HASH_WORKERS,
            &format!("hash_workers: must be at most {MOST_HASH_WORKERS}"),
        );
        fault(
            EnvFilter::try_new(&self.log_filter).is_err(),
            "log_filter: must be directives such as info,sqlx=warn",
        );
        let key = self.master_key.as_deref();
        fault(
            key.is_some_and(|key| !keys::is_good(key)),
            "master_key: must be base64 of 32 random bytes: `openssl rand -base64 32` makes one",
        );
        fault(
            self.drain_timeout_s > 600,
            "drain_timeout_s: must be at most 600",
        );
        fault(self.limits_factor == 0, "limits_factor: must be 1 or more");
        fault(
            self.mail_from.parse::<lettre::message::Mailbox>().is_err(),
            "mail_from: must be an address, such as Entente <no-reply@partners.example>",
        );
        for (name, url) in [
            ("database_url", &self.database_url),
            ("migrate_database_url", &self.migrate_database_url),
        ] {
            fault(
                url.as_deref().is_some_and(|url| !is_postgres(url)),
                &format!(
                    "{name}: must be a URL such as postgres://user:password@host:5432/database, with % and two hex digits for signs that mean \
                     something there; leave it out for the embedded SQLite"
                ),
            );
        }
        fault(
            self.data_dir.as_os_str().is_empty(),
            "data_dir: must not be empty; leave it out for ./data",
        );
        fault(
            self.listen == self.ops_listen && self.listen.port() != 0,
            "ops_listen: must be another port than that of listen",
        );
        fault(
            self.migrate_database_url.is_some() && self.database_url.is_none(),
            "migrate_database_url: is of no use without database_url",
        );
        self.faults_of_store(&mut fault);
        if self.production {
            fault(
                self.enable_test_clock,
                "enable_test_clock: is refused in production mode",
            );
            fault(
                !self.public_origin.starts_with("https://"),
                "public_origin: must be https in production mode",
            );
            fault(
                domain.ends_with(".localhost"),
                "base_domain: must be set in production mode",
            );
            let of_nobody =
                |from: lettre::message::Mailbox| from.email.domain().ends_with(".localhost");
            fault(
                self.mail_from.parse().is_ok_and(of_nobody),
                "mail_from: must be set in production mode",
            );
            fault(
                self.database_url.is_some() && self.master_key.is_none(),
                "master_key: must be set in production mode with PostgreSQL, the same on all replicas",
            );
            fault(
                self.database_url.is_some() && self.s3_bucket.is_none() && !self.blobs_shared,
                "s3_bucket: must be set in production mode with PostgreSQL; or else blobs_shared, if all replicas share the folder of documents",
            );
        }
        faults
    }

    /// Where domains are looked up; nowhere for the system's resolver. What isn't an address is left out, and a fault.
    #[must_use]
    pub fn dns_server_addresses(&self) -> Vec<SocketAddr> {
        let servers = self.dns_servers.split(',');
        servers.filter_map(|s| s.trim().parse().ok()).collect()
    }

    fn faults_of_store(&self, fault: &mut impl FnMut(bool, &str)) {
        let endpoint = self.s3_endpoint.as_deref().map(url::Url::parse);
        let is_plain = |url: &url::Url| {
            let here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
            (url.scheme() == "https" || (url.scheme() == "http" && here))
                && url.path() == "/"
                && url.username().is_empty()
                && url.query().is_none()
        };
        fault(
            endpoint.is_some_and(|e| !e.is_ok_and(|e| is_plain(&e))),
            "s3_endpoint: must be https, scheme and host without a path; http for this machine only",
        );
        fault(
            self.s3_bucket.as_ref().is_some_and(String::is_empty),
            "s3_bucket: must not be empty; leave it out for the folder",
        );
        fault(self.s3_region.is_empty(), "s3_region: must not be empty");
        fault(
            self.s3_access_key_id.is_some() != self.s3_secret_access_key.is_some(),
            "s3_access_key_id and s3_secret_access_key: set both, or neither",
        );
        let others = [
            &self.s3_endpoint,
            &self.s3_access_key_id,
            &self.s3_secret_access_key,
        ];
        fault(
            self.s3_bucket.is_none() && others.iter().any(|o| o.is_some()),
            "s3_bucket: must be set for the other settings of the store to be of use",
        );
    }

    /// Lifetime of access tokens.
    #[must_use]
    pub fn access_token_lifetime(&self) -> Micros {
        i64::from(self.access_token_lifetime_s) * (MINUTE_US / 60)
    }

    /// Lifetime of sessions.
    #[must_use]
    pub fn session_lifetime(&self) -> Micros {
        i64::from(self.session_lifetime_days) * DAY_US
    }
}

/// Whether it is a URL of PostgreSQL's that the driver can read. It has a password in it, so nobody is told why it isn't.
fn is_postgres(url: &str) -> bool {
    let scheme = url.starts_with("postgres://") || url.starts_with("postgresql://");
    scheme
        && url::Url::parse(url).is_ok()
        && url
            .parse::<sea_orm::sqlx::postgres::PgConnectOptions>()
            .is_ok()
}

/// The environment, whatever bytes others put there.
fn variables() -> impl Iterator<Item = (String, OsString)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
}

/// What a variable of the environment is.
enum Variable {
    /// This setting.
    Setting(&'static str),
    /// None, but nearly the name of this setting.
    Misspelt(&'static str),
    /// None, though it begins as they do.
    Strange,
    /// Something else.
    AnotherOnes,
}

const PREFIX: &str = "ENTENTE_";

/// Letters in which a misspelt name differs from what was meant.
const SLIPS: usize = 2;

fn of_variable(name: &str) -> Variable {
    let Some(rest) = name.strip_prefix(PREFIX).filter(|_| name != CONFIG_FILE) else {
        return Variable::AnotherOnes;
    };
    let lower = rest.to_ascii_lowercase();
    let slips = |field: &str| strsim::osa_distance(field, &lower);
    match FIELDS
        .iter()
        .map(|(field, _)| *field)
        .min_by_key(|f| slips(f))
    {
        Some(field) if slips(field) == 0 => Variable::Setting(field),
        Some(field) if slips(field) <= SLIPS => Variable::Misspelt(field),
        _ => Variable::Strange,
    }
}

/// The variable of a setting.
fn variable(setting: &str) -> String {
    format!("{PREFIX}{}", setting.to_ascii_uppercase())
}

/// The variable that names the file of settings.
pub const CONFIG_FILE: &str = "ENTENTE_CONFIG";

const TEXT: &str = "a text";
const YES_OR_NO: &str = "true or false";
const NUMBER: &str = "a whole number, not negative";
const ADDRESS: &str = "an IP address and a port, such as 0.0.0.0:50051 or [::]:50051";

/// Names of all fields, as in a file, and what each is; a test holds them against the struct.
const FIELDS: &[(&str, &str)] = &[
    ("listen", ADDRESS),
    ("ops_listen", ADDRESS),
    ("data_dir", TEXT),
    ("database_url", TEXT),
    ("migrate_database_url", TEXT),
    ("migrate_at_start", YES_OR_NO),
    ("public_origin", TEXT),
    ("base_domain", TEXT),
    ("production", YES_OR_NO),
    ("enable_test_clock", YES_OR_NO),
    ("master_key", TEXT),
    ("log_format", "human or json"),
    ("log_filter", TEXT),
    ("access_token_lifetime_s", NUMBER),
    ("session_lifetime_days", NUMBER),
    ("mail_from", TEXT),
    ("dns_servers", TEXT),
    ("max_concurrent_calls", NUMBER),
    ("drain_timeout_s", NUMBER),
    ("hash_workers", NUMBER),
    ("limits_factor", NUMBER),
    ("freshness", "barrier or database"),
    ("s3_bucket", TEXT),
    ("s3_endpoint", TEXT),
    ("s3_region", TEXT),
    ("s3_access_key_id", TEXT),
    ("s3_secret_access_key", TEXT),
    ("s3_path_style", YES_OR_NO),
    ("blobs_shared", YES_OR_NO),
    ("gleif_file", TEXT),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_good_and_every_field_is_known() {
        assert_eq!(Config::default().faults(), Vec::<String>::new());
        // Unknown fields are refused with the list of known ones.
        let message = config::Config::builder()
            .set_override("no_such_field", 1)
            .and_then(|b| b.build())
            .and_then(config::Config::try_deserialize::<Config>)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        for (field, _) in FIELDS {
            assert!(message.contains(field), "{field} is not a field: {message}");
        }
        assert_eq!(
            message.matches('`').count() / 2,
            FIELDS.len() + 1,
            "{message}"
        );
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let config = Config {
            public_origin: "partners.example/".to_owned(),
            base_domain: "X".to_owned(),
            access_token_lifetime_s: 1,
            session_lifetime_days: 0,
            dns_servers: "192.0.2.53, [2001:db8::53]:53".to_owned(),
            ops_listen: Config::default().listen,
            data_dir: PathBuf::new(),
            ..Config::default()
        };
        assert_eq!(config.faults().len(), 7);
    }

    #[test]
    fn a_database_is_named_by_a_url_that_can_be_read_and_no_fault_tells_it() {
        let faults_of = |url: &str| {
            let config = Config {
                database_url: Some(url.to_owned()),
                ..Config::default()
            };
            config.faults()
        };
        for bad in [
            "postgres://user:hunter2@127.0.0.1:99999/db",
            "postgres://user:hunter2@[::1/db",
            "mysql://user:hunter2@127.0.0.1/db",
            "user:hunter2@127.0.0.1/db",
        ] {
            let faults = faults_of(bad);
            assert_eq!(faults.len(), 1, "{bad}: {faults:?}");
            assert!(faults[0].starts_with("database_url: ") && !faults[0].contains("hunter2"));
        }
        for good in [
            "postgres://user:p%40ss@db.example:6432/entente?sslmode=verify-full",
            "postgresql://db.example/entente",
        ] {
            assert_eq!(faults_of(good), Vec::<String>::new());
        }
    }

    #[test]
    fn misspelt_variables_are_told_apart_from_those_of_others() {
        let is = |name: &str| match of_variable(name) {
            Variable::Setting(setting) => setting,
            Variable::Misspelt(meant) => {
                assert_ne!(variable(meant), name);
                "misspelt"
            }
            Variable::Strange => "strange",
            Variable::AnotherOnes => "another's",
        };
        assert_eq!(is("ENTENTE_DATABASE_URL"), "database_url");
        assert_eq!(is("ENTENTE_LISTEN"), "listen");
        for slip in [
            "ENTENTE_PRODUCTON",
            "ENTENTE_DATABSE_URL",
            "ENTENTE_LISTNE",
            "ENTENTE_S3_BUCKETS",
        ] {
            assert_eq!(is(slip), "misspelt", "{slip}");
        }
        // Platforms name services so, and tests have variables of their own.
        for strange in [
            "ENTENTE_PORT",
            "ENTENTE_SERVICE_HOST",
            "ENTENTE_PORT_50051_TCP_ADDR",
            "ENTENTE_MODEL_SEED",
        ] {
            assert_eq!(is(strange), "strange", "{strange}");
        }
        assert_eq!(is("ENTENTE_CONFIG"), "another's");
        assert_eq!(is("PATH"), "another's");
        // No setting is nearly another.
        for (field, _) in FIELDS {
            assert_eq!(is(&variable(field)), *field);
        }
    }

    #[test]
    fn what_can_not_be_read_hides_nothing_else() {
        let given = [
            ("listen", config::Value::from("nowhere")),
            ("production", config::Value::from("perhaps")),
            ("no_such_field", config::Value::from(1)),
            ("master_key", config::Value::from(vec!["hidden"])),
            ("hash_workers", config::Value::from(1_000)),
            ("max_concurrent_calls", config::Value::from(i64::MAX)),
            ("log_filter", config::Value::from("entente=loud")),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value));
        let mut faults = Vec::new();
        let config = Config::of_settings(given.into(), &mut faults);
        faults.extend(config.faults());
        let begun = |name: &str| faults.iter().filter(|f| f.starts_with(name)).count();
        for name in [
            "listen: ",
            "production: ",
            "no_such_field: ",
            "master_key: ",
            "hash_workers: ",
            "max_concurrent_calls: ",
            "log_filter: ",
        ] {
            assert_eq!(begun(name), 1, "{name} in {faults:?}");
        }
        assert_eq!(faults.len(), 7, "{faults:?}");
        assert!(faults.iter().all(|f| !f.contains("hidden")));
        assert!(faults.contains(&format!("listen: must be {ADDRESS}")));
        let short = Config {
            master_key: Some("c2hvcnQ=".to_owned()),
            ..Config::default()
        };
        assert_eq!(short.faults().len(), 1);
    }

    #[test]
    fn a_store_of_documents_is_reached_by_tls_and_with_both_halves_of_its_key() {
        let named = |endpoint: &str, secret: Option<&str>| {
            let config = Config {
                s3_bucket: Some("documents".to_owned()),
                s3_endpoint: Some(endpoint.to_owned()),
                s3_access_key_id: Some("id".to_owned()),
                s3_secret_access_key: secret.map(str::to_owned),
                ..Config::default()
            };
            assert!(!format!("{config:?}").contains("hidden"));
            config.faults()
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(named("https://s3.example", Some("hidden")), none);
        assert_eq!(named("http://127.0.0.1:7070", Some("hidden")), none);
        assert_eq!(named("http://s3.example", Some("hidden")).len(), 1);
        assert_eq!(named("https://a:b@s3.example/x", Some("hidden")).len(), 1);
        assert_eq!(named("https://s3.example", None).len(), 1);
    }

    // proves COM-14
    #[test]
    fn production_refuses_what_is_for_trying_out() {
        let config = Config {
            production: true,
            enable_test_clock: true,
            ..Config::default()
        };
        assert!(
            config
                .faults()
                .iter()
                .any(|f| f.starts_with("enable_test_clock"))
        );
        let lacks_bucket = |change: fn(&mut Config)| {
            let mut config = Config {
                production: true,
                database_url: Some("postgres://db/entente".to_owned()),
                ..Config::default()
            };
            change(&mut config);
            let faults = config.faults();
            faults
                .iter()
                .any(|f| f.starts_with("s3_bucket: must be set in production"))
        };
        assert!(lacks_bucket(|_| {}));
        assert!(!lacks_bucket(|c| c.s3_bucket = Some("documents".to_owned())));
        assert!(!lacks_bucket(|c| c.blobs_shared = true));
        assert!(!lacks_bucket(|c| c.database_url = None));
    }
}
