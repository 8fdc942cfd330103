//! BenefitService, who uses what of a benefit (BEN-3).

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::{holding, wire};
use crate::{
    access::scope::AccountScope,
    account::entity::benefit_assignment::{Column, Entity, Model},
    app::Read,
    check::Violations,
    error::Result,
    names::Name,
    proto::account::{ListBenefitAssignmentsRequest, ListBenefitAssignmentsResponse},
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
    },
};

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "assignee",
            ("benefit_assignments", "member_id"),
            Kind::Id { parse: member_id },
        ),
        Field::new(
            "create_time",
            ("benefit_assignments", "create_time"),
            Kind::TIME,
        ),
    ],
    orders: &[OrderField::new(
        "create_time",
        ("benefit_assignments", "create_time"),
    )],
    id: ("benefit_assignments", "id"),
};

fn member_id(name: &str) -> Option<Uuid> {
    match Name::parse(name) {
        Some(Name::Member(_, id)) => Some(id),
        _ => None,
    }
}

pub(crate) fn check_list_benefit_assignments(
    req: &ListBenefitAssignmentsRequest,
    v: &mut Violations,
) {
    LISTING.check(req, v);
}

/// Lists what is used of a benefit.
///
/// # Errors
/// `NOT_FOUND`; `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_benefit_assignments(
    rd: &Read,
    scope: AccountScope,
    req: ListBenefitAssignmentsRequest,
) -> Result<ListBenefitAssignmentsResponse> {
    let id = Name::parse(&req.parent).map(|n| n.id()).unwrap_or_default();
    holding::find(rd.db(), scope, id, &req.parent).await?;
    let select = Entity::find().filter(Column::BenefitId.eq(id));
    let page = rd
        .list(&req, &LISTING, select, |row: Model| wire::assignment(&row))
        .await?;
    Ok(ListBenefitAssignmentsResponse {
        assignments: page.items,
        next_page_token: page.next_page_token,
    })
}
