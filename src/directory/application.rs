//! ApplicationService: programs of a tenant (APP-2, APP-3, APP-5). Their keys are in `application_key`.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, ModelTrait,
    QueryFilter, Set,
};
use uuid::Uuid;

pub(crate) use super::application_key::check_list_keys;
pub use super::application_key::{create_key, delete_key, list_keys};
use super::{
    ACTIVE, application_key,
    entity::application::{self, Column, Entity, Model},
    search, tenant, user_change, wire,
};
use crate::{
    access::{
        grants,
        principal::{Kind, Principal},
        scope::{Proof, Reach, TenantScope},
    },
    app::{Read, Tx},
    check::{MOST_ITEMS_NAMED, Violations},
    error::{Error, Reason, Result},
    names::Name,
    proto::directory::{
        Application, CreateApplicationRequest, DeleteApplicationsRequest,
        DeleteApplicationsResponse, GetApplicationRequest, ListApplicationsRequest,
        ListApplicationsResponse, Losses, LostMembership, UpdateApplicationRequest,
    },
    store::{
        filter::{Field, Kind as FilterKind, OrderField},
        list::{Listing, fold},
        outbox::Event,
        scope_key::ScopeKey,
        sql, update,
    },
};

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "display_name",
            ("applications", "display_name_fold"),
            FilterKind::Text(search::APPLICATIONS),
        ),
        Field::new(
            "create_time",
            ("applications", "create_time"),
            FilterKind::TIME,
        ),
    ],
    orders: &[
        OrderField::new("create_time", ("applications", "create_time")),
        OrderField::new("display_name", ("applications", "display_name_fold")),
    ],
    id: ("applications", "id"),
};

pub(crate) fn check_create_application(req: &CreateApplicationRequest, v: &mut Violations) {
    wire::check_memberships(&req.memberships, v);
}

/// Makes an application, with memberships.
///
/// # Errors
/// `URI_TAKEN`, `DIRECTORY_SYNCHRONIZED`, and those of giving.
pub async fn create_application(
    tx: &mut Tx,
    tenant: TenantScope,
    req: CreateApplicationRequest,
) -> Result<Application> {
    let CreateApplicationRequest {
        parent: _,
        application,
        memberships,
        request_id: _,
        validate_only: _,
    } = req;
    let Application {
        name: _,
        display_name,
        reply_url,
        application_id_uri,
        tenant_id: _,
        client_id: _,
        create_time: _,
        update_time: _,
        etag: _,
        synchronized: _,
    } = application.ok_or_else(|| Error::field("application", "is required"))?;
    tenant::refuse_synchronized(tx, tenant.id()).await?;
    let now = tx.now();
    let row = Model {
        id: tx.id(),
        tenant_id: tenant.id(),
        display_name_fold: fold(&display_name),
        display_name,
        reply_url,
        application_id_uri,
        state: ACTIVE,
        create_time: now,
        update_time: now,
        external_id: String::new(),
        version: 1,
    };
    tx.insert(row.clone()).await?;
    tx.emit(
        Event::new(
            "entente.directory.v1.ApplicationCreated",
            Name::Application(row.tenant_id, row.id),
        )
        .change(
            "display_name",
            serde_json::Value::Null,
            row.display_name.clone(),
        )
        .change("reply_url", serde_json::Value::Null, row.reply_url.clone())
        .change(
            "application_id_uri",
            serde_json::Value::Null,
            row.application_id_uri.clone(),
        )
        .touches(row.id),
    );
    user_change::join_accounts(tx, principal(&row), &memberships).await?;
    Ok(wire::application(&row))
}

/// Gives an application.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn get_application(
    rd: &Read,
    proof: Proof,
    req: GetApplicationRequest,
) -> Result<Application> {
    find(rd.db(), proof.reach()?, &req.name)
        .await
        .map(|row| wire::application(&row))
}

pub(crate) fn check_list_applications(req: &ListApplicationsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists the applications of a tenant.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_applications(
    rd: &Read,
    scope: TenantScope,
    req: ListApplicationsRequest,
) -> Result<ListApplicationsResponse> {
    let select = Entity::find().filter(Column::TenantId.eq(scope.id()));
    let page = rd
        .list(&req, &LISTING, select, |row: Model| wire::application(&row))
        .await?;
    Ok(ListApplicationsResponse {
        applications: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Changes names and URIs. Whoever sets the reply URL can have sign-ins led elsewhere, so all that the application holds is demanded.
///
/// # Errors
/// `URI_TAKEN`, `ETAG_MISMATCH`, `DIRECTORY_SYNCHRONIZED`, `CANNOT_GRANT_WHAT_YOU_LACK`.
pub async fn update_application(
    tx: &mut Tx,
    scope: TenantScope,
    req: UpdateApplicationRequest,
) -> Result<Application> {
    let UpdateApplicationRequest {
        application,
        update_mask,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let new = application.ok_or_else(|| Error::field("application", "is required"))?;
    let fields = update::fields(update_mask.as_ref(), &new);
    let old = find(tx.db(), scope, &new.name).await?;
    update::check_etag(&etag, old.version)?;
    refuse_synchronized(&old)?;
    grants::demand_all_held_by(tx, &[old.id]).await?;
    let mut event = Event::new("entente.directory.v1.ApplicationUpdated", name(&old));
    let mut row = old.clone().into_active_model();
    for field in fields {
        let (before, after) = match field {
            "display_name" => {
                row.display_name = Set(new.display_name.clone());
                row.display_name_fold = Set(fold(&new.display_name));
                (&old.display_name, &new.display_name)
            }
            "reply_url" => {
                row.reply_url = Set(new.reply_url.clone());
                (&old.reply_url, &new.reply_url)
            }
            "application_id_uri" => {
                row.application_id_uri = Set(new.application_id_uri.clone());
                (&old.application_id_uri, &new.application_id_uri)
            }
            other => {
                return Err(Error::internal(format!(
                    "{other} is mutable, but nobody changes it"
                )));
            }
        };
        event = event.change(field, before.clone(), after.clone());
    }
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    if row.display_name_fold != old.display_name_fold {
        grants::rename(tx, row.id, &row.display_name_fold).await?;
    }
    tx.emit(event);
    Ok(wire::application(&row))
}

pub(crate) fn check_delete_applications(req: &DeleteApplicationsRequest, v: &mut Violations) {
    for (i, name) in req.names.iter().enumerate().take(MOST_ITEMS_NAMED) {
        if req.names[..i].contains(name) {
            v.also(format!("names[{i}]"), "stands in the list before");
        }
    }
}

/// Deletes applications for good, all or nothing: their keys, and what they hold on accounts and the operator, go with them (APP-5).
///
/// # Errors
/// `NOT_FOUND`, `DIRECTORY_SYNCHRONIZED`, `CANNOT_GRANT_WHAT_YOU_LACK`.
pub async fn delete_applications(
    tx: &mut Tx,
    scope: TenantScope,
    req: DeleteApplicationsRequest,
) -> Result<DeleteApplicationsResponse> {
    let DeleteApplicationsRequest {
        parent: _,
        names,
        request_id: _,
        validate_only: _,
    } = req;
    let mut rows: Vec<Model> = Vec::with_capacity(names.len());
    for name in &names {
        let row = find(tx.db(), scope, name).await?;
        refuse_synchronized(&row)?;
        rows.push(row);
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    grants::demand_all_held_by(tx, &ids).await?;
    let mut losses = Losses::default();
    for row in &rows {
        delete(tx, row, &mut losses).await?;
    }
    Ok(DeleteApplicationsResponse {
        resources: rows.iter().map(wire::application).collect(),
        losses: Some(losses),
    })
}

/// Deletes one, with all that it has; adds what was lost. Its tokens end with the row, since each call asks for it. Whoever may is the
/// caller's business.
pub(super) async fn delete(tx: &mut Tx, row: &Model, losses: &mut Losses) -> Result<()> {
    let none = || serde_json::Value::Null;
    let mut event = Event::new("entente.directory.v1.ApplicationDeleted", name(row))
        .change("display_name", row.display_name.clone(), none())
        .change("reply_url", row.reply_url.clone(), none())
        .change("application_id_uri", row.application_id_uri.clone(), none())
        .touches(row.id);
    for (scope, grant) in grants::all_of(tx.db(), row.id).await? {
        grants::remove_anyway(tx, scope, row.id).await?;
        match scope {
            ScopeKey::Account(account) => {
                let held = grants::Set::of_grant(&grant);
                losses.memberships.push(LostMembership {
                    member: Name::Member(account, row.id).to_string(),
                    rights: Some(held.to_rights()),
                });
                tx.emit(user_change::member_removed(account, row.id, held));
            }
            // An internal service that is gone is news to the operator.
            other => event = event.also_in(other),
        }
    }
    losses.key_count += application_key::delete_all(tx, row.id).await?;
    let sql = "UPDATE tenants SET sync_agent_id = NULL WHERE sync_agent_id = $1";
    sql::execute(tx.db(), sql, [row.id.into()]).await?;
    row.clone().delete(tx.db()).await?;
    tx.emit(event);
    Ok(())
}

/// Refuses to change here what the local directory has to change (TEN-5).
fn refuse_synchronized(row: &Model) -> Result<()> {
    if row.external_id.is_empty() {
        return Ok(());
    }
    Err(Error::precondition(Reason::DirectorySynchronized)
        .with("application", name(row).to_string()))
}

fn principal(row: &Model) -> Principal {
    Principal {
        kind: Kind::Application,
        id: row.id,
        tenant: row.tenant_id,
    }
}

fn name(row: &Model) -> Name {
    Name::Application(row.tenant_id, row.id)
}

/// The application of a name that a proof reaches.
///
/// # Errors
/// `NOT_FOUND`.
pub(super) async fn find<C: ConnectionTrait>(
    db: &C,
    reach: impl Into<Reach>,
    name: &str,
) -> Result<Model> {
    let not_found = || Error::not_found("entente.dev/Application", name);
    match Name::parse(name) {
        Some(Name::Application(_, id)) => application::find(db, reach, id)
            .await?
            .ok_or_else(not_found),
        _ => Err(not_found()),
    }
}

/// What other slices know of an application.
pub struct Summary {
    /// Its tenant.
    pub tenant: Uuid,
    /// Whether it is active.
    pub active: bool,
    /// What people see.
    pub display_name: String,
}

/// A summary for other slices.
///
/// # Errors
/// Those of the database.
pub async fn summary<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Option<Summary>> {
    Ok(Entity::find_by_id(id).one(db).await?.map(|a| Summary {
        tenant: a.tenant_id,
        active: a.state == ACTIVE,
        display_name: a.display_name,
    }))
}
