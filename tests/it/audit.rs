//! Audit chains: COM-10, COM-11.
