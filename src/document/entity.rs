//! `documents`: receipts, and where the bytes are. Only what they are attached to changes, once.

use sea_orm::entity::prelude::*;

/// A document.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "documents")]
pub struct Model {
    /// Its ID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Null for documents that are their uploader's alone.
    pub account_id: Option<Uuid>,
    /// Who uploaded it: the kind of principal.
    pub uploaded_by_kind: i16,
    /// The principal.
    pub uploaded_by_id: Uuid,
    /// Nil for personal identities.
    pub uploaded_by_tenant_id: Uuid,
    /// The name of the file, cleaned.
    pub display_name: String,
    /// Bytes.
    pub size_bytes: i64,
    /// By content.
    pub media_type: String,
    /// Of the content.
    pub sha256: Vec<u8>,
    /// Unique.
    pub blob_key: String,
    /// When it was uploaded.
    pub create_time: i64,
    /// A `SubjectKind`; null while it is attached to nothing.
    pub attached_kind: Option<i64>,
    /// What it is attached to.
    pub attached_id: Option<Uuid>,
    /// When it was attached.
    pub attach_time: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
