//! Putting the application together, and what the command line does besides serving (COM-19).

use std::{
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{OnceLock, atomic::AtomicBool},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    access::{
        limits::Limits,
        refusals::Tally,
        token::{self, Tokens},
    },
    app::{App, Ending, Inner, lanes::Lanes},
    blob::Blobs,
    call::{STREAMS_AT_ONCE, transfer::UPLOADS_AT_ONCE},
    config::Config,
    dns::Dns,
    env::Env,
    error::{Error, Result},
    hash::Hasher,
    keys::{self, Keys, Purpose},
    offer,
    store::{connect::Db, facts::fact, memory::Memory, sql},
};

/// Opens the database, migrated if the configuration says so.
///
/// # Errors
/// If it can't be reached, or lacks migrations that may not be run.
pub async fn open(config: &Config) -> Result<Db> {
    // Keys, passwords and mails lie there: nobody else may look in.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .map_err(|e| Error::internal(format!("data_dir: {}: {e}", config.data_dir.display())))?;
    look_at(&config.data_dir);
    let db = match &config.database_url {
        Some(url) => Db::postgres("database_url", url).await?,
        None => Db::sqlite(&config.data_dir).await?,
    };
    if !db.is_current().await? {
        if !config.migrate_at_start {
            return Err(Error::internal(
                "the database lacks migrations; run `entente migrate`",
            ));
        }
        migrate(config, &db).await?;
    }
    if config.migrate_database_url.is_none() && db.owns_tables().await? {
        tracing::info!(
            "the service's own database user owns the tables; set migrate_database_url to have another one own them"
        );
    }
    Ok(db)
}

/// Tells the log of a data folder, made by somebody else, that others may look into.
fn look_at(folder: &Path) {
    let mode = std::fs::metadata(folder).map_or(0, |of| of.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(
            folder = %folder.display(),
            "others on this machine may look into the data folder; `chmod 700` closes it"
        );
    }
}

/// Runs the migrations, as the owner of the tables if one is configured.
///
/// # Errors
/// If one fails.
pub async fn migrate(config: &Config, db: &Db) -> Result<()> {
    match &config.migrate_database_url {
        Some(url) => Db::postgres("migrate_database_url", url).await?.migrate().await,
        None => db.migrate().await.map_err(|e| match &config.database_url {
            None => e,
            Some(_) => e.explained(
                "the tables couldn't be made or changed by the user of database_url; if another one owns them, set migrate_database_url, or \
                 run `entente migrate` as that one",
            ),
        }),
    }
}

/// What ends when an account leaves a programme, slice by slice.
const ENDINGS: &[Ending] = &[offer::end_program];

/// Puts the application together over an open database: keys, epoch, signing keys.
///
/// # Errors
/// If the master key isn't the database's, or anything can't be read.
pub async fn assemble(config: Config, db: Db, env: Env) -> Result<App> {
    let is_new = fact(&db.write, "master_key_fingerprint").await?.is_none();
    let keys = keys::load(
        config.master_key.as_deref(),
        &config.data_dir.join("master.key"),
        is_new,
        &env,
    )?;
    facts(&db.write, &keys, &env).await?;
    let operator = OnceLock::new();
    if let Some(id) = operator_tenant(&db.write).await? {
        operator.get_or_init(|| id);
    }
    let workers = match config.hash_workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let app = App::new(Inner {
        tokens: Tokens::new(config.public_origin.clone()),
        hasher: Hasher::new(workers).map_err(|e| Error::internal(e.to_string()))?,
        dns: Dns::new(&config),
        limits: Limits::new(config.limits_factor),
        tally: Tally::default(),
        operator,
        committed: Notify::new(),
        draining: CancellationToken::new(),
        lanes: Lanes::new(db.backend),
        turns: moka::sync::Cache::builder()
            .max_capacity(100_000)
            .time_to_idle(std::time::Duration::from_secs(600))
            .build(),
        streams: moka::sync::Cache::new(100_000),
        all_streams: std::sync::Arc::new(tokio::sync::Semaphore::new(STREAMS_AT_ONCE)),
        contact_of_account: |tx, account| Box::pin(crate::account::contact_address(tx, account)),
        endings: ENDINGS,
        registry: crate::registry::open(&config),
        blobs: Blobs::open(&config)?,
        uploads: std::sync::Arc::new(tokio::sync::Semaphore::new(UPLOADS_AT_ONCE)),
        long_reads: std::sync::Arc::new(tokio::sync::Semaphore::new(
            crate::offer::LONG_READS_AT_ONCE,
        )),
        healthy: AtomicBool::new(false),
        memory: Memory::new(config.freshness, db.voucher()),
        #[cfg(debug_assertions)]
        demanded: std::sync::Mutex::default(),
        env,
        keys,
        config,
        db,
    });
    token::rotate_keys(&app, false).await?;
    Ok(app)
}

/// The facts of this database: made at its first start, held against the master key at each.
async fn facts(db: &DatabaseConnection, keys: &Keys, env: &Env) -> Result<()> {
    let fingerprint = hex::encode(&keys.mac(Purpose::Fingerprint, &[b"master key"])[..16]);
    let epoch = BASE64_URL_SAFE_NO_PAD.encode(env.bytes::<9>());
    for (key, value) in [
        ("master_key_fingerprint", fingerprint.as_str()),
        ("epoch", &epoch),
        ("global_seq", "0"),
        ("clock_offset", "0"),
    ] {
        let sql = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING";
        sql::execute(db, sql, [key.into(), value.into()]).await?;
    }
    if fact(db, "master_key_fingerprint").await?.as_deref() != Some(fingerprint.as_str()) {
        return Err(Error::internal(
            "the master key is not the one of this database; set ENTENTE_MASTER_KEY to the one it was made with (by default it lies in \
             master.key in the data folder)",
        ));
    }
    Ok(())
}

/// Begins a new epoch: cursors of before are refused, since events may be numbered anew. To be run after a backup was restored, before
/// anything is served.
///
/// # Errors
/// Those of the database.
pub async fn renew_epoch(app: &App) -> Result<()> {
    app.job("renew-epoch", |tx, _| {
        Box::pin(async move {
            let operator = crate::store::scope_key::ScopeKey::Operator;
            tx.lock([operator]).await?;
            tx.touch(operator);
            let epoch = BASE64_URL_SAFE_NO_PAD.encode(tx.app().env.bytes::<9>());
            let sql = "UPDATE meta SET value = $1 WHERE key = 'epoch'";
            sql::execute(tx.db(), sql, [epoch.into()]).await?;
            Ok(())
        })
    })
    .await
}

/// The operator's tenant, if it was made.
///
/// # Errors
/// Those of the database.
pub async fn operator_tenant<C: ConnectionTrait>(db: &C) -> Result<Option<Uuid>> {
    let sql = "SELECT id FROM tenants WHERE is_operator";
    let row = db
        .query_one_raw(Statement::from_string(db.get_database_backend(), sql))
        .await?;
    Ok(match row {
        Some(row) => Some(row.try_get("", "id")?),
        None => None,
    })
}

/// Where the first administrator's one-time password is left when no terminal is there.
#[must_use]
pub fn password_file(config: &Config) -> PathBuf {
    config.data_dir.join("first-administrator-password")
}
