//! A real DNS server (nsd) on a loopback port, with a zone that tests write: `example.`, for which it speaks alone. Of other names it knows nothing,
//! and says so (REFUSED). Missing it is a failure, never a skip.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use entente::{
    config::Config,
    dns::{Dns, For},
};

use crate::{people::eventually, processes::free_port};

/// The server; ended with this.
pub struct NameServer {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    serial: AtomicU32,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let mut found = folders.map(|f| f.join("nsd")).filter(|p| p.exists());
    found
        .next()
        .expect("nsd is missing; scripts/tools.sh test installs it")
}

impl NameServer {
    /// One whose zone is empty.
    pub async fn start() -> Self {
        let mut server = Self {
            folder: tempfile::Builder::new()
                .prefix("entente-dns-")
                .tempdir()
                .unwrap(),
            port: free_port(),
            child: None,
            serial: AtomicU32::new(1),
        };
        server.write(&[]);
        server.resume().await;
        server
    }

    /// Where it answers, as it is configured.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Writes the zone: TXT records, by their full name.
    fn write(&self, records: &[(String, String)]) {
        let folder = self.folder.path().display();
        let serial = self.serial.load(Ordering::SeqCst);
        let mut zone = format!(
            "$ORIGIN example.\n$TTL 0\n@ SOA ns.example. host.example. {serial} 60 60 60 0\n@ NS ns.example.\nns A 127.0.0.1\n\
             serial TXT \"{serial}\"\n"
        );
        for (name, value) in records {
            // One record may be of several strings.
            let strings: Vec<_> = value
                .as_bytes()
                .chunks(200)
                .map(|part| format!("\"{}\"", str::from_utf8(part).unwrap()))
                .collect();
            zone.push_str(&format!("{name}. TXT {}\n", strings.join(" ")));
        }
        let at = |name: &str| self.folder.path().join(name);
        fs::write(at("example.zone"), zone).unwrap();
        let config = format!(
            "server:\n ip-address: 127.0.0.1\n port: {port}\n username: \"\"\n zonesdir: \"{folder}\"\n zonelistfile: \"{folder}/zone.list\"\n \
             database: \"\"\n pidfile: \"{folder}/pid\"\n xfrdfile: \"{folder}/xfrd.state\"\n xfrdir: \"{folder}\"\n server-count: 1\n \
             tcp-count: 50\nremote-control:\n control-enable: no\nzone:\n name: example.\n zonefile: example.zone\n",
            port = self.port,
        );
        fs::write(at("nsd.conf"), config).unwrap();
    }

    /// Publishes these TXT records, and no others.
    pub async fn publish(&self, records: &[(&str, &str)]) {
        self.serial.fetch_add(1, Ordering::SeqCst);
        let owned: Vec<_> = records
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.write(&owned);
        if let Some(child) = &self.child {
            signal(child, "-HUP");
            self.is_current().await;
        }
    }

    /// Waits until it answers with what was written last.
    async fn is_current(&self) {
        let dns = Dns::new(&Config {
            dns_servers: self.address(),
            ..Config::default()
        });
        let serial = self.serial.load(Ordering::SeqCst).to_string();
        eventually(async || {
            let told = dns.texts("serial.example", For::Caller).await;
            told.is_ok_and(|values| values == [serial.as_str()])
        })
        .await;
    }

    /// Nobody answers any more.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(&child, "-TERM");
            child.wait().ok();
        }
    }

    /// Answers again.
    pub async fn resume(&mut self) {
        let child = Command::new(program())
            .arg("-d")
            .arg("-c")
            .arg(self.folder.path().join("nsd.conf"))
            .stdin(Stdio::null())
            .stdout(log(self.folder.path()))
            .stderr(log(self.folder.path()))
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.is_current().await;
    }
}

fn log(folder: &Path) -> fs::File {
    fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap()
}

fn signal(child: &Child, signal: &str) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status();
    assert!(sent.unwrap().success());
}
