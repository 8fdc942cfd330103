//! Looking records up in the DNS: never within a transaction, a bounded number at once, each within a bounded time. Nothing is remembered
//! here, since the resolver that is asked does that; and what it says of DNSSEC is its own to check.

use std::{net::SocketAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData},
    },
};
use tokio::sync::Semaphore;

use crate::config::Config;

/// Look-ups at once, that callers wait for, and the daily ones; others wait.
const MOST_AT_ONCE: usize = 32;
const MOST_DAILY_AT_ONCE: usize = 20;
/// A server that doesn't answer is given up after so long, and asked so often.
const ATTEMPT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// A look-up, waiting for its turn included, takes no longer: answers that are cut are asked for again over TCP, and names may be aliases.
const WHOLE: Duration = Duration::from_secs(8);
/// Records of one name that are looked at.
const MOST_RECORDS: usize = 100;

/// Why nothing is known, for the log. It says nothing about the record.
#[derive(Clone, Debug)]
pub struct NoAnswer(pub String);

/// Asks the DNS.
pub struct Dns {
    resolver: Result<TokioResolver, String>,
    turns: Semaphore,
    daily_turns: Semaphore,
}

/// Who waits for a look-up: neither keeps the others' turns.
#[derive(Clone, Copy, Debug)]
pub enum For {
    /// A caller.
    Caller,
    /// The daily look-up.
    Job,
}

impl Dns {
    /// Asks the configured servers, or those of the system. One that has none can look nothing up, and runs nevertheless.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let resolver = resolver(&config.dns_server_addresses());
        if let Err(fault) = &resolver {
            tracing::warn!(%fault, "no domain can be looked up; set dns_servers");
        }
        Self {
            resolver,
            turns: Semaphore::new(MOST_AT_ONCE),
            daily_turns: Semaphore::new(MOST_DAILY_AT_ONCE),
        }
    }

    /// The values of the TXT records of a name, each in one piece; none if there is no such name, or it has no such record.
    ///
    /// # Errors
    /// If no server answers in time, or only with failure.
    pub async fn texts(&self, name: &str, whom: For) -> Result<Vec<String>, NoAnswer> {
        let asked = async {
            let resolver = self.resolver.as_ref().map_err(|e| NoAnswer(e.clone()))?;
            let turns = match whom {
                For::Caller => &self.turns,
                For::Job => &self.daily_turns,
            };
            let _turn = turns.acquire().await.map_err(|e| NoAnswer(e.to_string()))?;
            // As it is: names of the local network are none of anybody's domain.
            let mut name = Name::from_ascii(name).map_err(|e| NoAnswer(e.to_string()))?;
            name.set_fqdn(true);
            match resolver.txt_lookup(name).await {
                Ok(found) => Ok(values(found.answers().iter().map(|record| &record.data))),
                Err(fault) if isnt_there(&fault) => Ok(Vec::new()),
                Err(fault) => Err(NoAnswer(fault.to_string())),
            }
        };
        tokio::time::timeout(WHOLE, asked)
            .await
            .unwrap_or_else(|_| Err(NoAnswer("no answer in time".to_owned())))
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|e| e.to_string())?
    } else {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = ATTEMPT;
    options.attempts = ATTEMPTS;
    options.edns0 = true;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build().map_err(|e| e.to_string())
}

/// Whether an answer says that there is no such record; all other failures say nothing.
fn isnt_there(fault: &NetError) -> bool {
    matches!(
        fault,
        NetError::Dns(DnsError::NoRecordsFound(NoRecords {
            response_code: ResponseCode::NXDomain | ResponseCode::NoError,
            ..
        }))
    )
}

fn values<'a>(records: impl Iterator<Item = &'a RData>) -> Vec<String> {
    records
        .filter_map(|data| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        })
        .take(MOST_RECORDS)
        .collect()
}
