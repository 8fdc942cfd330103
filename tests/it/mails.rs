//! Mails: COM-15, COM-20.
