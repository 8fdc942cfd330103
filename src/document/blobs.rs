//! Which blobs are of use. Each is a row of `loose_blobs` from before its first byte until the transaction that makes its document, and
//! again once the document is gone; so nothing is in the store that no row knows of, whatever is killed when.
//!
//! Loose blobs are removed a day after they came, which no upload takes; those whose call failed at once. What is to be removed is doomed
//! first, in a transaction, and a doomed one is taken by no document.

use sea_orm::Value;

use crate::{
    app::{App, Tx},
    blob::{self, Sink},
    env::{DAY_US, HOUR_US, Micros},
    error::{Error, Reason, Result},
    store::sql::{self, Type},
};

/// A blob without a document is given up after so long.
const ABANDONED_US: Micros = DAY_US;
/// One that could not be removed is tried again after so long.
const AGAIN_US: Micros = HOUR_US;
/// Blobs looked at in one statement.
const BATCH: i64 = 100;

/// A blob that is no document's yet: given up when it is dropped, unless one took it.
pub struct Loose {
    app: App,
    key: String,
    upload_id: String,
    is_settled: bool,
}

impl Loose {
    /// Where it is.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A document took it.
    pub fn taken(mut self) {
        self.is_settled = true;
    }
}

impl Drop for Loose {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let (app, key) = (self.app.clone(), std::mem::take(&mut self.key));
        let upload_id = std::mem::take(&mut self.upload_id);
        // Also when the caller is gone; where there is no runtime any more, the sweep does it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = give_up(&app, &key, &upload_id).await {
                    tracing::warn!(%error, "a blob that nobody needs is left to the sweep");
                }
            });
        }
    }
}

/// An upload, while its bytes come.
pub struct Upload {
    sink: Sink,
    loose: Loose,
}

impl Upload {
    /// Begins one: the row first, then the bytes.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`; those of the database.
    pub async fn begin(app: &App) -> Result<Self> {
        let key = blob::key(app.env.bytes());
        let upload_id = app.blobs.announce(&key).await?;
        let loose = Loose {
            app: app.clone(),
            key,
            upload_id,
            is_settled: false,
        };
        let sql = "INSERT INTO loose_blobs (blob_key, upload_id, since, is_doomed) VALUES ($1, $2, $3, $4)";
        let values: [Value; 4] = [
            loose.key.clone().into(),
            loose.upload_id.clone().into(),
            app.now().await?.into(),
            false.into(),
        ];
        if let Err(error) = app
            .keep_books(|db| Box::pin(sql::execute(db, sql, values)))
            .await
        {
            // No row tells the sweep of it, unless the row came to be all the same: then there is nothing left for it.
            if let Err(left) = app.blobs.remove(&loose.key, &loose.upload_id).await {
                tracing::warn!(error = %left, "an upload that could not begin is left in the store");
            }
            return Err(error);
        }
        let sink = app.blobs.write(&loose.key, &loose.upload_id).await?;
        Ok(Self { sink, loose })
    }

    /// Takes further bytes.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write(bytes).await
    }

    /// All bytes came, and are there lastingly.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`.
    pub async fn finish(self) -> Result<Loose> {
        self.sink.finish().await?;
        Ok(self.loose)
    }
}

/// A document takes a loose blob.
pub(super) async fn take(tx: &Tx, key: &str) -> Result<()> {
    let sql = "DELETE FROM loose_blobs WHERE blob_key = $1 AND NOT is_doomed";
    if sql::execute(tx.db(), sql, [key.into()])
        .await?
        .rows_affected()
        == 1
    {
        Ok(())
    } else {
        Err(Error::aborted(Reason::Conflict))
    }
}

/// Has the blobs of documents that go removed.
pub(super) async fn doom(tx: &Tx, keys: &[String]) -> Result<()> {
    const COLUMNS: &[(&str, Type)] = &[("blob_key", Type::Text)];
    if keys.is_empty() {
        return Ok(());
    }
    let rows = sql::rows(tx.db(), 1, COLUMNS);
    let sql = format!(
        "INSERT INTO loose_blobs (blob_key, upload_id, since, is_doomed) SELECT x.blob_key, '', 0, $2 FROM ({rows}) x"
    );
    let table = sql::table(keys.iter().map(|k| vec![k.as_str().into()]).collect());
    sql::execute(tx.db(), &sql, [table, true.into()]).await?;
    Ok(())
}

/// Removes a loose blob, unless a document took it meanwhile.
async fn give_up(app: &App, key: &str, upload_id: &str) -> Result<()> {
    let sql = "UPDATE loose_blobs SET is_doomed = $2, since = 0 WHERE blob_key = $1";
    let values: [Value; 2] = [key.into(), true.into()];
    let doomed = app.keep_books(|db| Box::pin(sql::execute(db, sql, values)));
    if doomed.await?.rows_affected() == 0 {
        return Ok(());
    }
    if let Err(error) = app.blobs.remove(key, upload_id).await {
        let sql = "UPDATE loose_blobs SET since = $2 WHERE blob_key = $1";
        let again = app.now().await? - ABANDONED_US + AGAIN_US;
        let values: [Value; 2] = [key.into(), again.into()];
        app.keep_books(|db| Box::pin(sql::execute(db, sql, values)))
            .await?;
        return Err(error);
    }
    let sql = "DELETE FROM loose_blobs WHERE blob_key = $1";
    let values: [Value; 1] = [key.into()];
    app.keep_books(|db| Box::pin(sql::execute(db, sql, values)))
        .await?;
    Ok(())
}

/// Removes what was given up, or left by a process that was killed; gives how many. Several replicas may do it at the same time.
///
/// # Errors
/// Those of the database; what the store can't remove is tried again later.
pub async fn sweep(app: &App) -> Result<usize> {
    let mut swept = 0;
    loop {
        let sql =
            "SELECT blob_key, upload_id FROM loose_blobs WHERE since <= $1 ORDER BY since LIMIT $2";
        let values: [Value; 2] = [(app.now().await? - ABANDONED_US).into(), BATCH.into()];
        let rows = sql::rows_of(&app.db.read, sql, values).await?;
        let whole = i64::try_from(rows.len()).unwrap_or(BATCH) == BATCH;
        let before = swept;
        for row in rows {
            let key: String = row.try_get("", "blob_key")?;
            let upload_id: String = row.try_get("", "upload_id")?;
            match give_up(app, &key, &upload_id).await {
                Ok(()) => swept += 1,
                Err(error) => tracing::warn!(%error, "a blob could not be removed yet"),
            }
        }
        // Where nothing could be removed, the same rows would come again: the next turn is soon enough.
        if !whole || swept == before {
            return Ok(swept);
        }
    }
}
