//! Where facts come from: the transaction that a call has begun, or memory that is vouched for before the call answers. What decides over
//! rights asks here, and can't tell which it was.

use std::sync::Arc;

use sea_orm::{ConnectionTrait, FromQueryResult};
use uuid::Uuid;

use crate::{
    env::Micros,
    error::Result,
    store::{
        memory::{Fact, Found},
        sql,
    },
};

/// Tells facts.
pub trait Facts: Sync {
    /// For what is no fact to be remembered.
    type Db: ConnectionTrait;

    /// The transaction.
    fn db(&self) -> &Self::Db;

    /// What a fact is.
    fn know<F: Fact>(&self, fact: F) -> impl Future<Output = Result<Arc<F::Value>>> + Send;
}

/// A transaction remembers nothing.
impl<C: ConnectionTrait> Facts for C {
    type Db = C;

    fn db(&self) -> &C {
        self
    }

    async fn know<F: Fact>(&self, fact: F) -> Result<Arc<F::Value>> {
        Ok(Arc::new(fact.load(self).await?.value))
    }
}

/// How far the test clock is ahead.
#[derive(Clone, Copy, Debug)]
pub struct ClockOffset;

/// The key that the test clock's offset is told by.
const CLOCK: Uuid = Uuid::from_u128(0xC10C);

#[derive(FromQueryResult)]
struct Offset {
    value: String,
}

impl Fact for ClockOffset {
    type Value = Micros;

    fn key(&self) -> [Uuid; 4] {
        [CLOCK; 4]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<Micros>> {
        let sql = "SELECT value FROM meta WHERE key = 'clock_offset'";
        let row = sql::one::<Offset, _>(db, sql, []).await?;
        Ok(Found {
            value: row.and_then(|row| row.value.parse().ok()).unwrap_or(0),
            deps: vec![CLOCK],
            bytes: 0,
            keep: true,
        })
    }
}
