//! Documents of accounts: what the steps of verification, appeals and claims take as evidence.

pub use crate::document::{Model, Subject, SubjectKind, attach, of_subject};
