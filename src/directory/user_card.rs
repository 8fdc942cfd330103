//! All that GetUser shows of a user, as one fact.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::{entity::user::Model, wire};
use crate::{
    access::scope::Reach,
    app::App,
    env::Micros,
    error::Result,
    proto::directory::User,
    store::{
        memory::{Fact, Found},
        sql,
    },
};

/// The fact of a user, deleted ones too; none if there is no such user in its tenant.
#[derive(Clone, Copy, Debug)]
pub struct UserCard {
    tenant: Uuid,
    id: Uuid,
}

impl UserCard {
    /// Of a user that a proof reaches; none otherwise.
    #[must_use]
    pub fn of(reach: Reach, id: Uuid) -> Option<Self> {
        reach.covers(id).then(|| Self {
            tenant: reach.tenant(),
            id,
        })
    }
}

/// A user, with its tenant's prefix and its directory roles.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Card {
    #[sea_orm(nested)]
    user: Model,
    domain_prefix: String,
    directory_roles: i64,
}

impl Card {
    /// For the wire.
    #[must_use]
    pub fn to_wire(&self, app: &App, now: Micros) -> User {
        wire::user(
            app,
            &self.user,
            &self.domain_prefix,
            self.directory_roles,
            now,
        )
    }

    fn bytes(&self) -> usize {
        let user = &self.user;
        [
            &user.user_name,
            &user.user_name_fold,
            &user.given_name,
            &user.family_name,
            &user.display_name,
            &user.display_name_fold,
            &user.recovery_email,
            &user.external_id,
            &self.domain_prefix,
        ]
        .iter()
        .map(|text| text.capacity())
        .sum()
    }
}

impl Fact for UserCard {
    type Value = Option<Card>;

    fn key(&self) -> [Uuid; 4] {
        [self.id, self.tenant, Uuid::nil(), Uuid::nil()]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<Option<Card>>> {
        let sql = "SELECT u.*, t.domain_prefix, COALESCE(g.roles, 0) AS directory_roles FROM users u JOIN tenants t ON t.id = u.tenant_id \
                   LEFT JOIN grants g ON g.scope_kind = 1 AND g.scope_id = u.tenant_id AND g.principal_id = u.id \
                   WHERE u.id = $1 AND u.tenant_id = $2";
        let values: [Value; 2] = [self.id.into(), self.tenant.into()];
        let card = sql::one::<Card, _>(db, sql, values).await?;
        Ok(Found {
            deps: vec![self.id, self.tenant],
            bytes: card.as_ref().map_or(0, Card::bytes),
            // New users tell nothing.
            keep: card.is_some(),
            value: card,
        })
    }
}
