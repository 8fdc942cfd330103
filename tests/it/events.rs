//! Domain events: COM-12.
