//! Registers of companies (VER-4): what says whether there is a company of a name at an address, asked outside of transactions. One can be
//! configured; without one, reviewers decide alone.

pub mod gleif;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{config::Config, error::Result};

/// A company, as an account tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Company {
    /// The legal name.
    pub legal_name: String,
    /// ISO 3166-1 alpha-2.
    pub country_code: String,
    /// The postal code of the legal address; empty if it has none.
    pub postal_code: String,
}

/// What a register says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is just this company: its ID in the register.
    Match(String),
    /// There is none of this name in this country.
    NoMatch,
    /// It can't tell: others of this name, another address, or the register can't be read.
    Unknown,
}

/// A register that can be asked.
pub trait Registry: Send + Sync {
    /// Its name, for the log and for events.
    fn name(&self) -> &'static str;

    /// Looks a company up. What can't be read is an error, which counts as not knowing.
    fn look_up<'a>(&'a self, company: &'a Company) -> BoxFuture<'a, Result<Answer>>;
}

/// The register that is configured.
#[must_use]
pub fn open(config: &Config) -> Option<Arc<dyn Registry>> {
    let path = config.gleif_file.clone()?;
    Some(Arc::new(gleif::Gleif::new(path)))
}
