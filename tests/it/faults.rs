//! Dropped awaits, failed statements, deadlines.
