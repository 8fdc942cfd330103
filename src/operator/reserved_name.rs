//! ReservedNameService: publisher names that no account takes (ACC-4).

use sea_orm::EntityTrait as _;

use super::{
    entity::reserved_name::{Entity, Model},
    wire,
};
use crate::{
    access::scope::OperatorScope,
    account::publisher_name,
    app::{Read, Tx},
    check::Violations,
    error::{Error, Result},
    names::Name,
    proto::operator::{
        CreateReservedNameRequest, DeleteReservedNameRequest, DeleteReservedNameResponse,
        ListReservedNamesRequest, ListReservedNamesResponse, ReservedName,
    },
    store::{
        filter::{Field, Kind, OrderField},
        list::{Listing, fold},
        outbox::Event,
        sql, update,
    },
};

/// What lists of reserved names can be asked.
static LISTING: Listing = Listing {
    fields: &[Field::new(
        "create_time",
        ("reserved_names", "create_time"),
        Kind::TIME,
    )],
    orders: &[
        OrderField::new("create_time", ("reserved_names", "create_time")),
        OrderField::new("display_name", ("reserved_names", "display_name_fold")),
    ],
    id: ("reserved_names", "id"),
};

/// Reserves a name.
///
/// # Errors
/// `RESOURCE_EXISTS` if it is, or one that looks like it.
pub async fn create_reserved_name(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: CreateReservedNameRequest,
) -> Result<ReservedName> {
    let CreateReservedNameRequest {
        reserved_name,
        request_id: _,
        validate_only: _,
    } = req;
    let new = wire::new_reserved_name(reserved_name)?;
    let row = Model {
        id: tx.id(),
        display_name_fold: fold(&new.display_name),
        display_name: new.display_name,
        note: new.note,
        create_time: tx.now(),
        version: 1,
    };
    tx.insert(row.clone()).await?;
    publisher_name::reserve(tx, row.id, &row.display_name).await?;
    tx.emit(
        Event::new(
            "entente.operator.v1.ReservedNameCreated",
            Name::ReservedName(row.id),
        )
        .change(
            "display_name",
            serde_json::Value::Null,
            row.display_name.clone(),
        ),
    );
    Ok(wire::reserved_name(&row))
}

/// Frees a name.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn delete_reserved_name(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: DeleteReservedNameRequest,
) -> Result<DeleteReservedNameResponse> {
    let DeleteReservedNameRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let missing = || Error::not_found("entente.dev/ReservedName", name.as_str());
    let Some(Name::ReservedName(id)) = Name::parse(&name) else {
        return Err(missing());
    };
    let row = Entity::find_by_id(id)
        .one(tx.db())
        .await?
        .ok_or_else(missing)?;
    update::check_etag(&etag, row.version)?;
    publisher_name::free(tx, id).await?;
    let sql = "DELETE FROM reserved_names WHERE id = $1";
    sql::execute(tx.db(), sql, [id.into()]).await?;
    tx.emit(
        Event::new(
            "entente.operator.v1.ReservedNameDeleted",
            Name::ReservedName(id),
        )
        .change(
            "display_name",
            row.display_name.clone(),
            serde_json::Value::Null,
        ),
    );
    Ok(DeleteReservedNameResponse {
        resources: vec![wire::reserved_name(&row)],
    })
}

pub(crate) fn check_list_reserved_names(req: &ListReservedNamesRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists reserved names.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad filter, order or token.
pub async fn list_reserved_names(
    rd: &Read,
    _scope: OperatorScope,
    req: ListReservedNamesRequest,
) -> Result<ListReservedNamesResponse> {
    let page = rd
        .list(&req, &LISTING, Entity::find(), |row: Model| {
            wire::reserved_name(&row)
        })
        .await?;
    Ok(ListReservedNamesResponse {
        reserved_names: page.items,
        next_page_token: page.next_page_token,
    })
}
