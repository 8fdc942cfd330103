//! Attacks that systems of this kind fell to.
