//! Documents, and the bytes of them that nothing names.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    // Of an account, or of its uploader alone. Kinds of what it is attached to are those of `src/document.rs`; null while it is attached to
    // nothing.
    "CREATE TABLE documents (
        id {uuid} PRIMARY KEY,
        account_id {uuid},
        uploaded_by_kind smallint NOT NULL,
        uploaded_by_id {uuid} NOT NULL,
        uploaded_by_tenant_id {uuid} NOT NULL,
        display_name {text} NOT NULL,
        size_bytes bigint NOT NULL,
        media_type {text} NOT NULL,
        sha256 {bytes} NOT NULL,
        blob_key {text} NOT NULL,
        create_time bigint NOT NULL,
        attached_kind bigint,
        attached_id {uuid},
        attach_time bigint
    )",
    "CREATE UNIQUE INDEX documents_blob ON documents (blob_key)",
    "CREATE INDEX documents_attached ON documents (attached_kind, attached_id, id) WHERE attached_id IS NOT NULL",
    "CREATE INDEX documents_loose ON documents (create_time) WHERE attached_id IS NULL",
    "CREATE INDEX documents_by_account ON documents (account_id)",
    "CREATE INDEX documents_by_uploader ON documents (uploaded_by_id, id)",
    "CREATE INDEX documents_loose_by_tenant ON documents (uploaded_by_tenant_id) WHERE attached_id IS NULL AND account_id IS NULL",
    // Blobs that no row names: while their bytes come, and once their row is gone. What is doomed is removed, and no row takes it any more.
    "CREATE TABLE loose_blobs (
        blob_key {text} PRIMARY KEY,
        upload_id {text} NOT NULL,
        since bigint NOT NULL,
        is_doomed boolean NOT NULL
    )",
    "CREATE INDEX loose_blobs_by_time ON loose_blobs (since)",
];
