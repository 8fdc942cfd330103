//! Timed work and the clock: COM-14, COM-21.
