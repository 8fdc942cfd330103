//! request_id: COM-4.
