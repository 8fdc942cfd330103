//! UploadDocument and DownloadDocument: what the steps of verification, appeals, claims and cases of recovery take as evidence (VER-3, VER-7).
//! What a document is, and how it is attached to something, is `crate::document`'s.

use sea_orm::EntityTrait as _;

use super::{entity::account, name_claim, review};
pub use crate::document::{Model, Subject, SubjectKind, attach, latest_of_subjects, of_subject};
use crate::{
    access::{account_state, roles::Permission, scope::Proof},
    app::{Read, Tx},
    call::transfer::Download,
    check::Violations,
    document::{self, Arrived, content},
    error::{Error, Result},
    names::Name,
    proto::account::{
        AccountState, Document, DownloadDocumentRequest, DownloadDocumentResponse,
        UploadDocumentRequest,
    },
    store::{outbox::Event, scope_key::ScopeKey},
};

pub(crate) fn check_upload_document(req: &UploadDocumentRequest, v: &mut Violations) {
    match Name::parse(&req.parent) {
        Some(Name::Account(_) | Name::User(..) | Name::Identity(_)) | None => {}
        Some(_) => v.also("parent", "is no account, user or identity"),
    }
}

/// Keeps a document whose bytes came.
///
/// # Errors
/// `WRONG_STATE` for a closed account, `TOO_MANY_DOCUMENTS`; `INVALID_ARGUMENT` if it isn't what it was said to be.
pub async fn upload_document(
    tx: &mut Tx,
    proof: Proof,
    req: UploadDocumentRequest,
    arrived: Arrived,
) -> Result<Document> {
    let (account, told_in) = match Name::parse(&req.parent) {
        Some(Name::Account(named)) => {
            let account = proof.account()?.id();
            if account != named {
                return Err(Error::internal("another account was proven"));
            }
            may_upload(tx, account).await?;
            (Some(account), ScopeKey::Account(account))
        }
        _ => (None, proof.caller()?.principal().home()),
    };
    let is = arrived.content.media_type.name();
    if !req.media_type.is_empty() && !req.media_type.eq_ignore_ascii_case(is) {
        return Err(Error::field("media_type", format!("the content is {is}")));
    }
    let row = document::keep(tx, account, &req.display_name, arrived).await?;
    let shown = row.receipt();
    let event = Event::new("entente.account.v1.DocumentUploaded", row.name()).told_in(told_in);
    let null = || serde_json::Value::Null;
    tx.emit(if account.is_some() {
        event
            .change("display_name", null(), shown.display_name.clone())
            .change("size_bytes", null(), shown.size_bytes)
            .change("media_type", null(), shown.media_type.clone())
            .change("sha256", null(), shown.sha256.clone())
            .change("uploaded_by", null(), shown.uploaded_by.clone())
    } else {
        // What is somebody's alone may be evidence against those who read the tenant's events: that there is one is all they hear.
        event.change("uploaded_by", null(), shown.uploaded_by.clone())
    });
    Ok(shown)
}

/// Of a closed account nothing is decided any more; a rejected one may appeal.
async fn may_upload(tx: &Tx, account: uuid::Uuid) -> Result<()> {
    let row = account::Entity::find_by_id(account).one(tx.db()).await?;
    match row {
        Some(row) if row.state != AccountState::Closed as i64 => Ok(()),
        row => Err(account_state::wrong_state(row.map_or(0, |row| row.state))),
    }
}

/// Gives a document that is evidence for something.
///
/// # Errors
/// `PERMISSION_DENIED`, whether or not there is such a document; as GetReview for whoever may not see what it is evidence for.
pub async fn download_document(
    rd: &Read,
    _proof: Proof,
    req: DownloadDocumentRequest,
) -> Result<Download<DownloadDocumentResponse>> {
    let row = document::by_name(rd.db(), &req.name).await?;
    let kind = row
        .as_ref()
        .and_then(|row| SubjectKind::from_number(row.attached_kind?));
    let demanded = if kind == Some(SubjectKind::RecoveryCase) {
        rd.demand(Permission::RecoveryOpen, Name::Operator).await?;
        Permission::RecoveryOpen
    } else {
        rd.demand(Permission::ReviewsHandle, Name::Operator).await?;
        Permission::ReviewsHandle
    };
    let row = row
        .filter(|_| kind.is_some())
        .ok_or_else(|| Error::denied(demanded))?;
    match (kind, row.attached_id) {
        (Some(SubjectKind::Review), Some(id)) => review::demand_sight(rd, id).await?,
        (Some(SubjectKind::NameClaim), Some(id)) => name_claim::demand_sight(rd, id).await?,
        _ => {}
    }
    Ok(Download {
        looked_at: row.name(),
        demanded,
        sha256: row.sha256.clone(),
        size: u64::try_from(row.size_bytes).unwrap_or_default(),
        first: DownloadDocumentResponse {
            document: Some(row.receipt()),
            content_disposition: content::as_attachment(&row.display_name),
            content_type_options: "nosniff".to_owned(),
            content: Vec::new(),
        },
        blob_key: row.blob_key,
        part: |content| DownloadDocumentResponse {
            content,
            ..DownloadDocumentResponse::default()
        },
    })
}
