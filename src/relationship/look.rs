//! Who is shown what: the partner all of its relationships, the customer those that it accepted, and by name also what waits for its answer (REL-12).

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::{
    Column, Entity, KINDS, Model, STATES, State, answer::is_addressed, find, missing, of_account,
    wire,
};
use crate::{
    access::{
        grants::lent,
        scope::{Proof, TenantScope},
    },
    app::Read,
    check::Violations,
    error::Result,
    names::Name,
    proto::relationship::{
        GetRelationshipLossesRequest, GetRelationshipRequest, ListRelationshipsRequest,
        ListRelationshipsResponse, Relationship, RelationshipLosses,
    },
    store::{
        filter::{Field, Kind, OrderField, Trigrams},
        list::Listing,
    },
};

/// Users that an answer names.
const MOST_USERS_NAMED: i64 = 1_000;

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "display_name",
            ("relationships", "display_name_fold"),
            Kind::Text(&[Trigrams {
                table: "relationships",
                column: "display_name_fold",
            }]),
        ),
        Field::new("kind", ("relationships", "kind"), Kind::Enum(KINDS)),
        Field::new("state", ("relationships", "state"), Kind::Enum(STATES)),
        Field::new("create_time", ("relationships", "create_time"), Kind::TIME),
    ],
    orders: &[
        OrderField::new("create_time", ("relationships", "create_time")),
        OrderField::new("display_name", ("relationships", "display_name_fold")),
    ],
    id: ("relationships", "id"),
};

/// Gives a relationship.
///
/// # Errors
/// `NOT_FOUND`; for a tenant also what isn't its own, and what isn't sent to it.
pub async fn get_relationship(
    rd: &Read,
    proof: Proof,
    req: GetRelationshipRequest,
) -> Result<Relationship> {
    let Ok(tenant) = proof.tenant() else {
        let row = of_account(rd.db(), proof.account()?.id(), &req.name).await?;
        // Whoever names a tenant means a relationship with that one.
        let other = Name::parse(&req.tenant) != row.tenant_id.map(Name::Tenant);
        return if !req.tenant.is_empty() && other {
            Err(missing(&req.name))
        } else {
            Ok(wire::relationship(&row))
        };
    };
    let row = find(rd.db(), &req.name).await?;
    let row = row.ok_or_else(|| missing(&req.name))?;
    let waits = row.is_in(State::Pending);
    let is_theirs = row.tenant_id == Some(tenant.id())
        || (waits && is_addressed(rd.db(), rd.app(), &row, tenant.id()).await?);
    if is_theirs {
        Ok(wire::relationship(&row))
    } else {
        Err(missing(&req.name))
    }
}

/// What is assigned by a relationship, and the users that were made by it.
///
/// # Errors
/// Those of the database.
pub(super) async fn losses<C: ConnectionTrait>(
    db: &C,
    relationship: Uuid,
) -> Result<RelationshipLosses> {
    let assigned = lent::assignments(db, relationship).await?.len();
    let made = lent::users_made(db, relationship, MOST_USERS_NAMED).await?;
    Ok(RelationshipLosses {
        assignment_count: i32::try_from(assigned).unwrap_or(i32::MAX),
        made_users: made.iter().map(Name::to_string).collect(),
    })
}

/// Gives what is lost with a relationship, and what was made by it, to its customer; also after its end (REL-14).
///
/// # Errors
/// `NOT_FOUND`, also for what isn't the tenant's own.
pub async fn get_relationship_losses(
    rd: &Read,
    scope: TenantScope,
    req: GetRelationshipLossesRequest,
) -> Result<RelationshipLosses> {
    let row = find(rd.db(), &req.name).await?;
    let row = row.filter(|row| row.tenant_id == Some(scope.id()));
    let row = row.ok_or_else(|| missing(&req.name))?;
    losses(rd.db(), row.id).await
}

pub(crate) fn check_list_relationships(req: &ListRelationshipsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists the relationships of an account, or of a tenant.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_relationships(
    rd: &Read,
    proof: Proof,
    req: ListRelationshipsRequest,
) -> Result<ListRelationshipsResponse> {
    let of = match proof.account() {
        Ok(account) => Column::AccountId.eq(account.id()),
        Err(_) => Column::TenantId.eq(proof.tenant()?.id()),
    };
    let select = Entity::find().filter(of);
    let page = rd
        .list(&req, &LISTING, select, |row: Model| {
            wire::relationship(&row)
        })
        .await?;
    Ok(ListRelationshipsResponse {
        relationships: page.items,
        next_page_token: page.next_page_token,
    })
}
