//! What calls ask about a tenant again and again, as a fact that memory keeps.

use sea_orm::{ConnectionTrait, EntityTrait};
use uuid::Uuid;

use super::entity::tenant::{Entity, Model};
use crate::{
    error::Result,
    store::memory::{Fact, Found},
};

/// A tenant's row.
#[derive(Clone, Copy, Debug)]
pub(super) struct TenantCard(pub Uuid);

impl Fact for TenantCard {
    type Value = Option<Model>;

    fn key(&self) -> [Uuid; 4] {
        [self.0, Uuid::nil(), Uuid::nil(), Uuid::nil()]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<Option<Model>>> {
        let row = Entity::find_by_id(self.0).one(db).await?;
        let bytes = row.as_ref().map_or(0, |row| {
            [
                &row.domain_prefix,
                &row.display_name,
                &row.display_name_fold,
                &row.contact_email,
            ]
            .iter()
            .map(|text| text.capacity())
            .sum()
        });
        Ok(Found {
            deps: vec![self.0],
            bytes,
            // New tenants tell nothing.
            keep: row.is_some(),
            value: row,
        })
    }
}
