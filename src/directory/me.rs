//! All that WhoAmI tells of a principal, as one fact.

use prost::Message as _;
use sea_orm::{ConnectionTrait, EntityTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::{
    entity::{credential as credentials, tenant as tenants, user as users},
    wire,
};
use crate::{
    access::{
        grants,
        principal::{Kind, Principal},
        roles::{self, TENANT_ROLES},
    },
    app::App,
    error::Result,
    names::Name,
    proto::directory::{AccountChoice, WhoAmIResponse},
    store::{
        memory::{Fact, Found, MOST_DEPS},
        scope_key::ScopeKey,
        sql,
    },
};

/// Accounts that WhoAmI tells of.
const MOST_CHOICES: usize = 1_000;

/// The fact of who a principal is, and where it may work: the answer, but for the service that acts for it.
pub struct Me {
    /// Makes what goes over the wire.
    pub app: App,
    /// Who.
    pub principal: Principal,
}

#[derive(FromQueryResult)]
struct Choice {
    account_id: Uuid,
    display_name: String,
    roles: i64,
    permissions: String,
}

#[derive(FromQueryResult)]
struct Dep {
    id: Uuid,
}

impl Fact for Me {
    type Value = WhoAmIResponse;
    const SEVERAL: bool = true;

    fn key(&self) -> [Uuid; 4] {
        let Principal { kind, id, tenant } = self.principal;
        [id, tenant, Uuid::from_u128(kind as u128), Uuid::nil()]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<WhoAmIResponse>> {
        let principal = self.principal;
        // New credentials tell nothing, so a person without one is asked for each time.
        let (display_name, temporary, home) = match principal.kind {
            Kind::Application | Kind::Group => {
                let row = super::application::summary(db, principal.id).await?;
                (row.map(|a| a.display_name), Some(false), principal.id)
            }
            Kind::User | Kind::Identity => {
                let user = users::Entity::find_by_id(principal.id).one(db).await?;
                let home = user.as_ref().and_then(|u| u.home_id);
                let home = home.unwrap_or(principal.id);
                let credential = credentials::Entity::find_by_id(home).one(db).await?;
                (
                    user.map(|u| u.display_name),
                    credential.map(|c| c.temporary),
                    home,
                )
            }
        };
        // A program has one tenant, a person its home's and those that it is a guest of.
        let sql = "SELECT t.* FROM tenants t WHERE t.state = 1 AND t.domain_prefix <> '' AND (t.id = $1 OR t.id IN \
                   (SELECT u.tenant_id FROM users u WHERE u.state = 1 AND (u.id = $2 OR u.home_id = $2))) \
                   ORDER BY t.display_name_fold, t.id LIMIT 1000";
        let values: [Value; 2] = [principal.tenant.into(), home.into()];
        let tenants = sql::all::<tenants::Model, _>(db, sql, values).await?;
        let wire_tenant = |t: &tenants::Model| wire::tenant(&self.app, t, true);
        let sql = "SELECT a.id AS account_id, a.publisher_display_name AS display_name, g.roles, g.permissions FROM ( \
                     SELECT scope_id, tenant_id, roles, permissions FROM grants WHERE principal_id = $1 AND scope_kind = 2 \
                     UNION ALL \
                     SELECT scope_id, tenant_id, roles, permissions FROM group_rights WHERE user_id = $1 AND scope_kind = 2 \
                   ) g JOIN accounts a ON a.id = g.scope_id \
                   WHERE g.tenant_id = $2 OR EXISTS (SELECT 1 FROM associations s WHERE s.account_id = g.scope_id AND s.tenant_id = g.tenant_id) \
                   ORDER BY a.publisher_display_name_fold, a.id LIMIT 10000";
        let values: [Value; 2] = [principal.id.into(), Uuid::nil().into()];
        let choices = accounts_of(sql::all::<Choice, _>(db, sql, values).await?);
        let held = grants::held(db, principal.id, ScopeKey::Tenant(principal.tenant)).await?;
        // Also what isn't shown, as long as it is so: ended associations, disabled guests, deleted tenants.
        let sql = "SELECT u.id FROM users u WHERE u.id = $2 OR u.home_id = $2 \
                   UNION SELECT u.tenant_id AS id FROM users u WHERE u.id = $2 OR u.home_id = $2 \
                   UNION SELECT scope_id AS id FROM grants WHERE principal_id = $1 AND scope_kind = 2 \
                   UNION SELECT scope_id AS id FROM group_rights WHERE user_id = $1 AND scope_kind = 2 LIMIT 200";
        let values: [Value; 2] = [principal.id.into(), home.into()];
        let rows = sql::all::<Dep, _>(db, sql, values).await?;
        let mut deps: Vec<Uuid> = rows.into_iter().map(|row| row.id).collect();
        deps.extend([principal.id, principal.tenant, home]);
        let value = WhoAmIResponse {
            principal: principal.name(),
            display_name: display_name.unwrap_or_default(),
            tenant: tenants
                .iter()
                .find(|t| t.id == principal.tenant)
                .map(wire_tenant),
            tenants: tenants.iter().map(wire_tenant).collect(),
            directory_roles: roles::numbers_of(TENANT_ROLES, held.roles),
            accounts: choices,
            via: String::new(),
            password_change_required: temporary.unwrap_or(false),
        };
        Ok(Found {
            keep: temporary.is_some() && deps.len() <= MOST_DEPS,
            deps,
            bytes: 3 * value.encoded_len(),
            value,
        })
    }
}

/// One choice an account, with what is held there in all; the rows of one account follow each other.
fn accounts_of(rows: Vec<Choice>) -> Vec<AccountChoice> {
    let mut held: Vec<(Choice, grants::Set)> = Vec::new();
    for row in rows {
        let set = grants::Set {
            roles: row.roles,
            single: roles::Permissions::from_stored(&row.permissions),
        };
        match held.last_mut() {
            Some((last, all)) if last.account_id == row.account_id => {
                all.roles |= set.roles;
                all.single = all.single.and(set.single);
            }
            _ => held.push((row, set)),
        }
    }
    held.truncate(MOST_CHOICES);
    held.into_iter()
        .map(|(row, set)| AccountChoice {
            account: Name::Account(row.account_id).to_string(),
            display_name: row.display_name,
            rights: Some(set.to_rights()),
        })
        .collect()
}
