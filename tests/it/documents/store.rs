//! Other ways to keep and to lose bytes: an S3-compatible store, processes that are killed, and how much of it all is in memory.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{MIB, Slow, files, first, pdf, png, stored, upload, whole_way};
use crate::{
    claims::count,
    harness::{Caller, Database, Site, refused},
    outages::{Between, Line},
    people::{People as _, eventually},
    processes::{Setting, free_port, get},
    tour::tools,
};

const ACCESS: &str = "entente-tests";
const SECRET: &str = "worth nothing elsewhere";

/// An S3-compatible server over a folder, ended with the value.
struct Bucket {
    child: std::process::Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Bucket {
    async fn open() -> Self {
        let program = tools().join("bin/versitygw");
        assert!(
            program.exists(),
            "versitygw is missing; scripts/tools.sh test installs it"
        );
        let folder = tempfile::Builder::new()
            .prefix("entente-bucket-")
            .tempdir()
            .unwrap();
        for within in ["data/documents-here", "sidecar"] {
            std::fs::create_dir_all(folder.path().join(within)).unwrap();
        }
        let port = free_port();
        let child = Command::new(program)
            .args([
                "--access", ACCESS, "--secret", SECRET, "--health", "/health",
            ])
            .args(["--port", &format!("127.0.0.1:{port}"), "posix", "--sidecar"])
            .args([folder.path().join("sidecar"), folder.path().join("data")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self {
            child,
            folder,
            port,
        };
        let begun = Instant::now();
        while get(port, "/health").is_none_or(|(status, _)| status != 200) {
            assert!(begun.elapsed().as_secs() < 60, "versitygw did not start");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        this
    }

    /// Where what is whole lies.
    fn objects(&self) -> PathBuf {
        self.folder.path().join("data/documents-here/documents")
    }

    /// Where parts of what is not whole lie.
    fn parts(&self) -> PathBuf {
        self.folder.path().join("data/documents-here/.sgwtmp")
    }

    async fn site(&self, database: Database) -> Site {
        self.site_by(database, self.port).await
    }

    /// A site that reaches this server by another port.
    async fn site_by(&self, database: Database, port: u16) -> Site {
        Site::open_with(database, |config| {
            config.s3_bucket = Some("documents-here".to_owned());
            config.s3_endpoint = Some(format!("http://127.0.0.1:{port}"));
            config.s3_access_key_id = Some(ACCESS.to_owned());
            config.s3_secret_access_key = Some(SECRET.to_owned());
        })
        .await
    }
}

// proves VER-3, VER-7
#[tokio::test]
async fn document_goes_into_a_bucket_and_comes_out_of_it() {
    for database in [Database::Sqlite, Database::Postgres] {
        let bucket = Bucket::open().await;
        let site = bucket.site(database).await;
        whole_way(&site).await;
        assert_eq!(files(&bucket.objects()), 3);
        assert_eq!(files(&site.folder.join("blobs")), 0);
        // What is cut is given up there too, with the parts that came.
        let tenant = site.tenant("northwind").await;
        let account = site.account(&tenant, "Northwind").await;
        let slow = Slow::begin(&tenant.admin.caller, first(&account, "a.png")).await;
        let whole = png(7 * MIB);
        for chunk in whole.chunks(MIB) {
            slow.bring(chunk).await;
        }
        let loose = "SELECT COUNT(*) AS n FROM loose_blobs";
        eventually(async || files(&bucket.parts()) > 0).await;
        slow.call.abort();
        eventually(async || count(&site.app, loose).await == 0).await;
        assert_eq!((files(&bucket.objects()), files(&bucket.parts())), (3, 0));
        // Without its store nothing is taken, and the service lives.
        drop(bucket);
        let without = upload(&tenant.admin.caller, first(&account, "a"), pdf(), MIB).await;
        refused(without, tonic::Code::Unavailable, "STORAGE_UNAVAILABLE");
        site.operator().await;
    }
}

/// The name of whoever calls.
async fn oneself(caller: &Caller) -> String {
    caller.who_am_i().await.unwrap().principal
}

// proves COM-4, COM-21
#[tokio::test]
async fn killed_server_leaves_bytes_that_the_sweep_finds() {
    let setting = Setting::new(None);
    let mut server = setting.serve(&["--enable-test-clock"]).await;
    let administrator = setting.administrator(&server).await;
    let own = oneself(&administrator).await;
    let kept = upload(&administrator, first(&own, "kept.pdf"), pdf(), MIB).await;
    kept.unwrap();
    let slow = Slow::begin(&administrator, first(&own, "cut.png")).await;
    slow.bring(&png(MIB)).await;
    let blobs = setting.data().join("blobs");
    eventually(async || files(&blobs) == 2).await;
    server.signal("-KILL");
    server.ended().await;
    slow.call.await.unwrap().unwrap_err();
    assert_eq!(files(&blobs), 2);

    let site = Site::over(&setting.data()).await;
    site.settle().await;
    assert_eq!(files(&blobs), 2, "not before a day is over");
    site.advance(86_400 + 60).await;
    site.settle().await;
    stored(&site, 1).await;
    assert_eq!(files(&blobs), 1);
}

// proves VER-3
#[tokio::test]
async fn uploads_take_the_same_memory_however_large_they_are() {
    let setting = Setting::new(None);
    let server = setting.serve(&[]).await;
    let administrator = setting.administrator(&server).await;
    let own = oneself(&administrator).await;
    let round = async |bytes: usize| {
        let all = (0..4).map(|_| {
            let (caller, own) = (administrator.clone(), own.clone());
            async move { upload(&caller, first(&own, "a.png"), png(bytes), 16 * 1_024).await }
        });
        for done in futures_util::future::join_all(all).await {
            done.unwrap();
        }
    };
    round(MIB).await;
    let before = server.peak_memory_kib();
    round(10 * MIB).await;
    let grown = server.peak_memory_kib() - before;
    // Kept whole they would be 36 MiB more; what comes through the connection and waits for the disk is some MiB.
    assert!(grown < 24 * 1_024, "{grown} KiB more");
}

// proves VER-3
#[tokio::test]
async fn an_upload_waits_for_a_slow_bucket_and_is_not_kept_whole_meanwhile() {
    const CHUNK: usize = MIB / 4;
    let bucket = Bucket::open().await;
    let between = Between::open(bucket.port).await;
    let site = bucket.site_by(Database::Sqlite, between.port).await;
    let tenant = site.tenant("contoso").await;
    let account = site.account(&tenant, "Contoso").await;
    let whole = png(10 * MIB);
    let slow = Slow::begin(&tenant.admin.caller, first(&account, "a.png")).await;
    let mut chunks = whole.chunks(CHUNK);
    slow.bring(chunks.next().unwrap()).await;
    let loose = "SELECT COUNT(*) AS n FROM loose_blobs";
    eventually(async || count(&site.app, loose).await == 1).await;
    between.becomes(Line::Silent);
    let mut taken = 1;
    for chunk in chunks.by_ref() {
        // Whatever isn't taken in so long waits for the bucket, which takes nothing.
        if tokio::time::timeout(Duration::from_secs(3), slow.bring(chunk))
            .await
            .is_err()
        {
            break;
        }
        taken += 1;
    }
    // A part of 5 MiB, and what is on its way.
    let most = 8 * MIB / CHUNK;
    assert!(taken <= most, "{taken} of {most}");
    between.becomes(Line::Open);
    for chunk in whole.chunks(CHUNK).skip(taken) {
        slow.bring(chunk).await;
    }
    let receipt = slow.end().await.unwrap();
    assert_eq!(receipt.size_bytes, whole.len() as i64);
    assert_eq!((files(&bucket.objects()), files(&bucket.parts())), (1, 0));
}
