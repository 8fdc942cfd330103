//! The blob store: bytes of documents, in a folder or in an S3-compatible store. Keys are random and never made of what a caller sent.
//!
//! What is written is there, also after a failure of power, before `Sink::finish` returns: in the folder by a file beside, synced and then
//! renamed, and the folder synced. Nothing here knows which blobs are of use: `document/blobs.rs` does.

use std::{
    io,
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use object_store::{
    ClientOptions, ObjectStoreExt as _, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    multipart::{MultipartStore as _, PartId},
    path::Path,
};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::{
    config::Config,
    error::{Error, Reason, Result},
};

/// The size of the parts that go to an S3-compatible store: the smallest that it takes, and all that is kept in memory of an upload.
const PART_BYTES: usize = 5 * 1_024 * 1_024;
/// One request to the store.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A request that failed is made again so often, within so long.
const RETRIES: usize = 3;
const RETRIES_WITHIN: Duration = Duration::from_secs(20);

/// Where blobs are.
pub enum Blobs {
    /// A folder: `{first two of the key}/{key}`.
    Folder(PathBuf),
    /// A bucket, with `documents/{key}`.
    S3(Box<AmazonS3>),
}

/// A key: 32 hexadecimal digits.
#[must_use]
pub fn key(random: [u8; 16]) -> String {
    hex::encode(random)
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::unavailable(Reason::StorageUnavailable, format!("{what}: {error}"))
}

impl Blobs {
    /// Opens the store that is configured.
    ///
    /// # Errors
    /// If the folder can't be made, or the configuration of the bucket makes no sense.
    pub fn open(config: &Config) -> Result<Self> {
        let Some(bucket) = &config.s3_bucket else {
            let folder = config.data_dir.join("blobs");
            make_folder(&folder)
                .map_err(|e| Error::internal(format!("{}: {e}", folder.display())))?;
            return Ok(Self::Folder(folder));
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&config.s3_region)
            .with_virtual_hosted_style_request(!config.s3_path_style)
            .with_retry(RetryConfig {
                max_retries: RETRIES,
                retry_timeout: RETRIES_WITHIN,
                ..RetryConfig::default()
            })
            .with_client_options(
                ClientOptions::new()
                    .with_timeout(REQUEST_WITHIN)
                    .with_connect_timeout(CONNECT_WITHIN)
                    // The configuration lets only loopback hosts be without TLS.
                    .with_allow_http(
                        config
                            .s3_endpoint
                            .as_ref()
                            .is_some_and(|e| e.starts_with("http://")),
                    ),
            );
        if let Some(endpoint) = &config.s3_endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let (Some(id), Some(secret)) = (&config.s3_access_key_id, &config.s3_secret_access_key) {
            builder = builder
                .with_access_key_id(id)
                .with_secret_access_key(secret);
        }
        let store = builder
            .build()
            .map_err(|e| Error::internal(format!("the blob store's bucket: {e}")))?;
        Ok(Self::S3(Box::new(store)))
    }

    /// Begins an upload in the store, if it keeps books of uploads: its ID there, else nothing. Until `Sink::open` no byte is anywhere.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`.
    pub async fn announce(&self, key: &str) -> Result<String> {
        match self {
            Self::Folder(_) => Ok(String::new()),
            Self::S3(store) => store
                .create_multipart(&path(key))
                .await
                .map_err(|e| failed("an upload could not begin", e)),
        }
    }

    /// Opens the way in for bytes of an upload that was announced.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`.
    pub async fn write(&self, key: &str, upload_id: &str) -> Result<Sink> {
        match self {
            Self::Folder(root) => {
                let (own, folder) = (root.clone(), folder_of(root, key));
                let made = folder.clone();
                on_disk(move || {
                    make_folder(&made)?;
                    sync_folder(&own)
                })
                .await?;
                let whole = folder.join(key);
                let file = tokio::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(part_of(&whole))
                    .await
                    .map_err(|e| failed("a blob could not be made", e))?;
                Ok(Sink::Folder { file, whole })
            }
            Self::S3(store) => Ok(Sink::S3 {
                store: store.clone(),
                path: path(key),
                upload_id: upload_id.to_owned(),
                parts: Vec::new(),
                waiting: Vec::with_capacity(PART_BYTES),
            }),
        }
    }

    /// Reads some bytes of a blob; fewer where it ends.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`, also where the blob is missing.
    pub async fn read(&self, key: &str, from: u64, most: u64) -> Result<Vec<u8>> {
        match self {
            Self::Folder(root) => {
                let read = async {
                    let mut file = tokio::fs::File::open(folder_of(root, key).join(key)).await?;
                    file.seek(io::SeekFrom::Start(from)).await?;
                    let mut bytes = Vec::new();
                    file.take(most).read_to_end(&mut bytes).await?;
                    Ok::<_, io::Error>(bytes)
                };
                read.await
                    .map_err(|e| failed("a blob could not be read", e))
            }
            Self::S3(store) => store
                .get_range(&path(key), from..from.saturating_add(most))
                .await
                .map(Vec::from)
                .map_err(|e| failed("a blob could not be read", e)),
        }
    }

    /// Removes a blob, or what there is of its upload; that nothing is there is well.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`.
    pub async fn remove(&self, key: &str, upload_id: &str) -> Result<()> {
        match self {
            Self::Folder(root) => {
                let whole = folder_of(root, key).join(key);
                on_disk(move || {
                    for file in [part_of(&whole), whole] {
                        match std::fs::remove_file(file) {
                            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                            _ => {}
                        }
                    }
                    Ok(())
                })
                .await
            }
            Self::S3(store) => {
                let path = path(key);
                if !upload_id.is_empty() {
                    gone(store.abort_multipart(&path, &upload_id.to_owned()).await)?;
                }
                gone(store.delete(&path).await)
            }
        }
    }
}

fn gone(outcome: object_store::Result<()>) -> Result<()> {
    match outcome {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(failed("a blob could not be removed", e)),
    }
}

fn path(key: &str) -> Path {
    Path::from_iter(["documents", key])
}

fn folder_of(root: &FilePath, key: &str) -> PathBuf {
    root.join(key.get(..2).unwrap_or("_"))
}

fn part_of(whole: &FilePath) -> PathBuf {
    whole.with_extension("part")
}

fn make_folder(folder: &FilePath) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Names in a folder are lasting once the folder itself was synced.
fn sync_folder(folder: &FilePath) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Runs what waits for the disk where that holds up nobody.
async fn on_disk(run: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(run)
        .await
        .map_err(|e| Error::internal(e.to_string()))?
        .map_err(|e| failed("the folder of blobs", e))
}

/// The way in for the bytes of one blob.
pub enum Sink {
    /// Into the folder.
    Folder {
        /// What is written to.
        file: tokio::fs::File,
        /// What it will be called.
        whole: PathBuf,
    },
    /// Into the bucket.
    S3 {
        /// The bucket.
        store: Box<AmazonS3>,
        /// What it will be called.
        path: Path,
        /// The upload there.
        upload_id: String,
        /// Parts that are there.
        parts: Vec<PartId>,
        /// Bytes of the next part.
        waiting: Vec<u8>,
    },
}

impl Sink {
    /// Takes further bytes.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Folder { file, .. } => file
                .write_all(bytes)
                .await
                .map_err(|e| failed("a blob could not be written", e)),
            Self::S3 { .. } => self.fill(bytes).await,
        }
    }

    /// Fills the part that waits, and sends it once there is more than it takes: the last one may be smaller, but not empty.
    async fn fill(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let Self::S3 { waiting, .. } = self else {
                return Ok(());
            };
            let room = PART_BYTES - waiting.len();
            if room == 0 {
                self.put_part().await?;
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            waiting.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    async fn put_part(&mut self) -> Result<()> {
        let Self::S3 {
            store,
            path,
            upload_id,
            parts,
            waiting,
        } = self
        else {
            return Ok(());
        };
        let part = PutPayload::from(std::mem::take(waiting));
        let done = store.put_part(path, upload_id, parts.len(), part).await;
        parts.push(done.map_err(|e| failed("a part could not be written", e))?);
        waiting.reserve_exact(PART_BYTES);
        Ok(())
    }

    /// All bytes came: the blob is there, lastingly, once this returns.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`.
    pub async fn finish(mut self) -> Result<()> {
        self.put_part().await?;
        match self {
            Self::Folder { mut file, whole } => {
                let synced = async {
                    file.flush().await?;
                    file.sync_all().await
                };
                synced
                    .await
                    .map_err(|e| failed("a blob could not be synced", e))?;
                on_disk(move || {
                    std::fs::rename(part_of(&whole), &whole)?;
                    whole.parent().map_or(Ok(()), sync_folder)
                })
                .await
            }
            Self::S3 {
                store,
                path,
                upload_id,
                parts,
                ..
            } => store
                .complete_multipart(&path, &upload_id, parts)
                .await
                .map(drop)
                .map_err(|e| failed("an upload could not be completed", e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_one_form_and_lie_in_few_folders() {
        let key = key([0xab; 16]);
        assert_eq!(key.len(), 32);
        let at = folder_of(FilePath::new("/blobs"), &key);
        assert_eq!(at, FilePath::new("/blobs/ab"));
    }
}
