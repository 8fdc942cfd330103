//! Documents: evidence that people upload, for whatever needs some (VER-3, VER-4, ACC-12, PWD-10).
//!
//! A document is an account's, or its uploader's alone where there is no account that it is about. It is uploaded by itself, then attached
//! once to what it is evidence for, and never changes; what nothing was made of goes after `KEPT_LOOSE_US`. The bytes are in the blob store
//! (`blob.rs`), under a random key that nobody is shown.

pub mod blobs;
pub mod content;
mod entity;

use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect as _, Value,
};
use uuid::Uuid;

pub use self::entity::Model;
use self::{
    content::Content,
    entity::{Column, Entity},
};
use crate::{
    access::principal::{Kind, Principal},
    app::Tx,
    check::Violations,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    names::Name,
    proto::account::Document,
    schedule::CHUNK,
    store::{sql, time::timestamp},
};

/// A document that is attached to nothing is kept so long.
pub const KEPT_LOOSE_US: Micros = 30 * DAY_US;
const MIB: i64 = 1_024 * 1_024;
/// Documents of an account, and their bytes.
const MOST_OF_AN_ACCOUNT: (i64, i64) = (2_000, 2_048 * MIB);
/// Those of them that wait to be attached.
const MOST_LOOSE_OF_AN_ACCOUNT: (i64, i64) = (100, 200 * MIB);
/// Those that are one uploader's alone, and wait.
const MOST_LOOSE_OF_AN_UPLOADER: (i64, i64) = (20, 100 * MIB);
/// All of that kind by the people of one tenant.
const MOST_LOOSE_OF_A_TENANT: (i64, i64) = (100, 300 * MIB);
/// Documents of one subject; `attach` takes no more.
pub const MOST_OF_A_SUBJECT: u64 = 200;

/// What documents are evidence for; its number in the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i64)]
pub enum SubjectKind {
    /// What reviewers decide about an account.
    Review = 1,
    /// A claim on a publisher name.
    NameClaim = 2,
    /// A case of recovery.
    RecoveryCase = 3,
}

/// What documents are attached to.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its kind.
    pub kind: SubjectKind,
    /// Its ID.
    pub id: Uuid,
    /// The account whose documents it takes; none for those that are the caller's alone.
    pub account: Option<Uuid>,
}

impl SubjectKind {
    /// The kind of a number in the database.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Review),
            2 => Some(Self::NameClaim),
            3 => Some(Self::RecoveryCase),
            _ => None,
        }
    }
}

impl Model {
    /// Who uploaded it.
    #[must_use]
    pub fn uploaded_by(&self) -> Principal {
        Principal {
            kind: Kind::from_number(self.uploaded_by_kind).unwrap_or(Kind::User),
            id: self.uploaded_by_id,
            tenant: self.uploaded_by_tenant_id,
        }
    }

    /// Its resource name.
    #[must_use]
    pub fn name(&self) -> Name {
        match self.account_id {
            Some(account) => Name::Document(account, self.id),
            None => Name::OwnDocument(self.id),
        }
    }

    /// Its receipt (VER-7).
    #[must_use]
    pub fn receipt(&self) -> Document {
        Document {
            name: self.name().to_string(),
            display_name: self.display_name.clone(),
            size_bytes: self.size_bytes,
            media_type: self.media_type.clone(),
            sha256: hex::encode(&self.sha256),
            uploaded_by: self.uploaded_by().name(),
            create_time: timestamp(self.create_time),
            attach_time: self.attach_time.and_then(timestamp),
        }
    }
}

/// Attaches documents to what they are evidence for, and gives them in the order named. They must be documents of the subject's account, or
/// the caller's own where it has none, and attached to nothing.
///
/// # Errors
/// `INVALID_ARGUMENT` that names each element of the field that is no such document, the same whether or not there is one;
/// `TOO_MANY_DOCUMENTS`.
pub async fn attach(
    tx: &mut Tx,
    subject: Subject,
    names: &[String],
    field: &str,
) -> Result<Vec<Model>> {
    let caller = tx.caller().who.map(|who| who.principal);
    let mut found: Vec<Model> = Vec::with_capacity(names.len());
    let mut wrong = Violations::default();
    for (i, name) in names.iter().enumerate() {
        let row = match (Name::parse(name), subject.account) {
            (Some(Name::Document(account, id)), Some(own)) if account == own => {
                by_id(tx.db(), id).await?
            }
            (Some(Name::OwnDocument(id)), None) => by_id(tx.db(), id).await?,
            _ => None,
        };
        let is_good = |row: &Model| {
            row.account_id == subject.account
                && row.attached_id.is_none()
                && (subject.account.is_some() || Some(row.uploaded_by()) == caller)
                && found.iter().all(|other| other.id != row.id)
        };
        match row.filter(is_good) {
            Some(mut row) => {
                row.attached_kind = Some(subject.kind as i64);
                row.attached_id = Some(subject.id);
                row.attach_time = Some(tx.now());
                found.push(row);
            }
            None => wrong.add(
                format!("{field}[{i}]"),
                "is no document that was uploaded for this and is attached to nothing yet",
            ),
        }
    }
    wrong.none()?;
    let sql = "SELECT COUNT(*) AS n FROM documents WHERE attached_kind = $1 AND attached_id = $2";
    let values: [Value; 2] = [(subject.kind as i64).into(), subject.id.into()];
    let before: i64 = match sql::row(tx.db(), sql, values).await? {
        Some(row) => row.try_get("", "n")?,
        None => 0,
    };
    if before.unsigned_abs() + found.len() as u64 > MOST_OF_A_SUBJECT {
        return Err(Error::exhausted(Reason::TooManyDocuments, None));
    }
    for row in &found {
        let sql = "UPDATE documents SET attached_kind = $2, attached_id = $3, attach_time = $4 \
                   WHERE id = $1 AND attached_id IS NULL";
        let values: [Value; 4] = [
            row.id.into(),
            row.attached_kind.into(),
            row.attached_id.into(),
            row.attach_time.into(),
        ];
        if sql::execute(tx.db(), sql, values).await?.rows_affected() != 1 {
            // Only what isn't an account's can be attached by somebody else at the same time.
            return Err(Error::contended("a document was attached meanwhile"));
        }
    }
    Ok(found)
}

/// What came, to be kept: the bytes lie in the store, but for calls that are only checked.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// What it is.
    pub content: Content,
    /// Where it is; none where all is to be rolled back.
    pub blob_key: Option<String>,
}

/// Keeps what came, under a name for the account, or for the uploader alone. Whatever they are is locked.
///
/// # Errors
/// `TOO_MANY_DOCUMENTS`; `CONFLICT` if the bytes were given up meanwhile.
pub async fn keep(
    tx: &mut Tx,
    account: Option<Uuid>,
    said_name: &str,
    arrived: Arrived,
) -> Result<Model> {
    let who = tx.caller().who.map(|who| who.principal);
    let who = who.ok_or_else(|| Error::internal("nobody uploads"))?;
    let size = i64::try_from(arrived.content.size).unwrap_or(i64::MAX);
    within_bounds(tx.db(), account, who, size).await?;
    if let Some(key) = &arrived.blob_key {
        blobs::take(tx, key).await?;
    } else if !tx.validate_only() {
        return Err(Error::internal("an upload without bytes"));
    }
    let row = Model {
        id: tx.id(),
        account_id: account,
        uploaded_by_kind: who.kind as i16,
        uploaded_by_id: who.id,
        uploaded_by_tenant_id: who.tenant,
        display_name: content::file_name(said_name),
        size_bytes: size,
        media_type: arrived.content.media_type.name().to_owned(),
        sha256: arrived.content.sha256.to_vec(),
        blob_key: arrived.blob_key.unwrap_or_default(),
        create_time: tx.now(),
        attached_kind: None,
        attached_id: None,
        attach_time: None,
    };
    tx.insert(row.clone()).await?;
    Ok(row)
}

/// Refuses a document of that size where there would be too many of an account, of an uploader, or of the uploader's tenant. Asked before the
/// bytes come, and again when they are kept.
///
/// # Errors
/// `TOO_MANY_DOCUMENTS`; those of the database.
pub async fn within_bounds<C: ConnectionTrait>(
    db: &C,
    account: Option<Uuid>,
    who: Principal,
    size: i64,
) -> Result<()> {
    const OWN: &str = "attached_id IS NULL AND account_id IS NULL";
    let mut bounds = Vec::new();
    match account {
        Some(account) => {
            bounds.push(("account_id = $1".to_owned(), account, MOST_OF_AN_ACCOUNT));
            let loose = "account_id = $1 AND attached_id IS NULL".to_owned();
            bounds.push((loose, account, MOST_LOOSE_OF_AN_ACCOUNT));
        }
        None => {
            let own = format!("{OWN} AND uploaded_by_id = $1");
            bounds.push((own, who.id, MOST_LOOSE_OF_AN_UPLOADER));
            if !who.tenant.is_nil() {
                let tenant = format!("{OWN} AND uploaded_by_tenant_id = $1");
                bounds.push((tenant, who.tenant, MOST_LOOSE_OF_A_TENANT));
            }
        }
    }
    for (which, id, (most, most_bytes)) in bounds {
        let sql = format!(
            "SELECT COUNT(*) AS n, CAST(COALESCE(SUM(size_bytes), 0) AS bigint) AS bytes FROM documents WHERE {which}"
        );
        let (count, bytes): (i64, i64) = match sql::row(db, &sql, [id.into()]).await? {
            Some(row) => (row.try_get("", "n")?, row.try_get("", "bytes")?),
            None => (0, 0),
        };
        if count >= most || bytes.saturating_add(size) > most_bytes {
            return Err(Error::exhausted(Reason::TooManyDocuments, None));
        }
    }
    Ok(())
}

/// Removes documents that nothing was made of in time; their bytes go after.
///
/// # Errors
/// Those of the database.
pub async fn purge_loose(tx: &mut Tx) -> Result<u64> {
    let sql = "DELETE FROM documents WHERE id IN (SELECT id FROM documents WHERE attached_id IS NULL AND create_time <= $1 \
               ORDER BY create_time LIMIT $2) AND attached_id IS NULL RETURNING blob_key";
    let values: [Value; 2] = [(tx.now() - KEPT_LOOSE_US).into(), CHUNK.into()];
    let mut keys = Vec::new();
    for row in sql::rows_of(tx.db(), sql, values).await? {
        keys.push(row.try_get::<String>("", "blob_key")?);
    }
    blobs::doom(tx, &keys).await?;
    Ok(keys.len() as u64)
}

/// Removes all documents of an account that is no more; their bytes go after.
///
/// # Errors
/// Those of the database.
pub async fn forget_account(tx: &Tx, account: Uuid) -> Result<()> {
    let sql = "DELETE FROM documents WHERE account_id = $1 RETURNING blob_key";
    let mut keys = Vec::new();
    for row in sql::rows_of(tx.db(), sql, [account.into()]).await? {
        keys.push(row.try_get::<String>("", "blob_key")?);
    }
    blobs::doom(tx, &keys).await
}

/// The documents that a person uploaded, also as a guest, by their IDs from one on.
///
/// # Errors
/// Those of the database.
pub async fn of_person<C: ConnectionTrait>(
    db: &C,
    who: Uuid,
    after: Uuid,
    most: u64,
) -> Result<Vec<Model>> {
    let sql = "SELECT * FROM documents WHERE uploaded_by_id IN (SELECT id FROM users WHERE id = $1 OR home_id = $1) AND id > $2 \
               ORDER BY id LIMIT $3";
    let values: [Value; 3] = [
        who.into(),
        after.into(),
        i64::try_from(most).unwrap_or(i64::MAX).into(),
    ];
    sql::all::<Model, _>(db, sql, values).await
}

/// A document by its name, if it is that one's.
///
/// # Errors
/// Those of the database.
pub async fn by_name<C: ConnectionTrait>(db: &C, name: &str) -> Result<Option<Model>> {
    let Some(name @ (Name::Document(..) | Name::OwnDocument(_))) = Name::parse(name) else {
        return Ok(None);
    };
    let row = by_id(db, name.id()).await?;
    Ok(row.filter(|row| row.name() == name))
}

async fn by_id<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Option<Model>> {
    Ok(Entity::find_by_id(id).one(db).await?)
}

/// The documents of several subjects of a kind, in one statement.
///
/// # Errors
/// Those of the database.
pub async fn of_subjects<C: ConnectionTrait>(
    db: &C,
    kind: SubjectKind,
    ids: &[Uuid],
) -> Result<Vec<Model>> {
    Ok(Entity::find()
        .filter(Column::AttachedKind.eq(kind as i64))
        .filter(Column::AttachedId.is_in(ids.iter().copied()))
        .order_by_asc(Column::Id)
        .all(db)
        .await?)
}

/// The latest documents of several subjects of a kind, the newest first.
///
/// # Errors
/// Those of the database.
pub async fn latest_of_subjects<C: ConnectionTrait>(
    db: &C,
    kind: SubjectKind,
    ids: &[Uuid],
    most: u64,
) -> Result<Vec<Model>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(Entity::find()
        .filter(Column::AttachedKind.eq(kind as i64))
        .filter(Column::AttachedId.is_in(ids.iter().copied()))
        .order_by_desc(Column::Id)
        .limit(most)
        .all(db)
        .await?)
}

/// The documents of a subject, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn of_subject<C: ConnectionTrait>(
    db: &C,
    kind: SubjectKind,
    id: Uuid,
) -> Result<Vec<Model>> {
    Ok(Entity::find()
        .filter(Column::AttachedKind.eq(kind as i64))
        .filter(Column::AttachedId.eq(id))
        .order_by_asc(Column::Id)
        .limit(MOST_OF_A_SUBJECT)
        .all(db)
        .await?)
}
