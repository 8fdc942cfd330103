//! The configuration: one struct, from defaults, a file, the environment and flags, in that order; validated once, every fault named.

use std::{
    collections::BTreeMap,
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
        if let Some(file) = file {
            let file = config::File::from(file).format(config::FileFormat::Toml);
            match file.collect() {
                Ok(settings) => given.extend(settings),
                Err(e) => faults.push(e.to_string()),
            }
        }
        let environment = config::Environment::with_prefix("ENTENTE")
            .prefix_separator("_")
            .try_parsing(true);
        // Variables of tools and tests share the prefix; only those that are fields count.
        let environment = environment.source(Some(
            std::env::vars()
                .filter(|(name, _)| {
                    FIELDS.contains(&name.to_ascii_lowercase().trim_start_matches("entente_"))
                })
                .collect(),
        ));
        match environment.collect() {
            Ok(settings) => given.extend(settings),
            Err(e) => faults.push(e.to_string()),
        }
        (Self::of_settings(given, &mut faults), faults)
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
            if !FIELDS.contains(&name.as_str()) {
                faults.push(format!("{name}: is no setting"));
                continue;
            }
            let alone = BTreeMap::from([(name.clone(), value.clone())]);
            match read(&alone) {
                Ok(_) => {
                    good.insert(name, value);
                }
                // What was given may be a secret.
                Err(_) if SECRETS.contains(&name.as_str()) => {
                    faults.push(format!("{name}: must be a text"));
                }
                Err(e) => faults.push(format!("{name}: {e}")),
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
            let known = url
                .as_ref()
                .is_none_or(|u| u.starts_with("postgres://") || u.starts_with("postgresql://"));
            fault(
                !known,
                &format!("{name}: must be a postgres:// URL; leave it out for the embedded SQLite"),
            );
        }
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

/// Names of all fields, as in a file; a test holds it against the struct.
const FIELDS: &[&str] = &[
    "listen",
    "ops_listen",
    "data_dir",
    "database_url",
    "migrate_database_url",
    "migrate_at_start",
    "public_origin",
    "base_domain",
    "production",
    "enable_test_clock",
    "master_key",
    "log_format",
    "log_filter",
    "access_token_lifetime_s",
    "session_lifetime_days",
    "mail_from",
    "dns_servers",
    "max_concurrent_calls",
    "drain_timeout_s",
    "hash_workers",
    "limits_factor",
    "freshness",
    "s3_bucket",
    "s3_endpoint",
    "s3_region",
    "s3_access_key_id",
    "s3_secret_access_key",
    "s3_path_style",
    "blobs_shared",
    "gleif_file",
];

/// Settings whose values no fault tells.
const SECRETS: &[&str] = &[
    "database_url",
    "migrate_database_url",
    "master_key",
    "s3_access_key_id",
    "s3_secret_access_key",
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
        for field in FIELDS {
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
            ..Config::default()
        };
        assert_eq!(config.faults().len(), 5);
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
