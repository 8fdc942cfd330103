//! TenantAssociationService: whose people may work on an account (TEN-3, TEN-4).

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use tonic::Code;
use uuid::Uuid;

use super::{
    entity::association::{Column, Entity, Model},
    wire,
};
use crate::{
    access::{
        answers::demand_of_token,
        grants,
        principal::Authenticated,
        roles::Permission,
        scope::{AccountScope, Proof},
    },
    app::{Outside, Read, Tx},
    check::Violations,
    directory::{self, search},
    error::{Error, Reason, Result},
    names::Name,
    proto::{
        account::{
            AssociateTenantRequest, CreateAssociatedTenantRequest, CreateAssociatedTenantResponse,
            ListAssociatedTenantsRequest, ListAssociatedTenantsResponse, RemoveTenantRequest,
            RemoveTenantResponse, TenantAssociation,
        },
        directory::{Losses, LostMembership},
    },
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
        outbox::Event,
        scope_key::ScopeKey,
        update,
    },
};

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "tenant_display_name",
            ("account_tenants", "display_name_fold"),
            Kind::Text(search::TENANTS),
        ),
        Field::new(
            "create_time",
            ("account_tenants", "create_time"),
            Kind::TIME,
        ),
    ],
    orders: &[
        OrderField::new("create_time", ("account_tenants", "create_time")),
        OrderField::new(
            "tenant_display_name",
            ("account_tenants", "display_name_fold"),
        ),
    ],
    id: ("account_tenants", "tenant_id"),
};

/// Reads the second token: whoever proves to be global admin of the tenant.
///
/// # Errors
/// `INVALID_ARGUMENT` for a token that isn't good: it is a field here, not the caller's credential.
pub async fn prepare_associate_tenant(
    outside: &Outside,
    _proof: Proof,
    req: &AssociateTenantRequest,
) -> Result<Authenticated> {
    verify_admin_token(outside, &req.tenant_admin_token).await
}

/// Whose a second access token is.
///
/// # Errors
/// `INVALID_ARGUMENT` for a token that isn't good.
pub(super) async fn verify_admin_token(outside: &Outside, token: &str) -> Result<Authenticated> {
    let app = outside.app();
    let now = app.now().await?;
    let bad = |_| {
        Error::argument(
            Reason::TokenInvalid,
            "tenant_admin_token",
            "is no good access token",
        )
    };
    let known = app.tokens.verify(token, now).map_err(bad)?;
    if let Some(known) = known {
        return Ok(known);
    }
    app.tokens.refresh(&app.db.read, &app.keys).await?;
    app.tokens
        .verify(token, now)
        .map_err(bad)?
        .ok_or_else(|| bad(Error::late()))
}

/// Associates the tenant of the second token, whose principal must be its global admin (TEN-3).
///
/// # Errors
/// `ALREADY_ASSOCIATED`, `PERMISSION_DENIED`, `OPERATOR_TENANT`.
pub async fn associate_tenant(
    tx: &mut Tx,
    scope: AccountScope,
    _req: AssociateTenantRequest,
    admin: Authenticated,
) -> Result<TenantAssociation> {
    let tenant = admin.principal.tenant;
    directory::tenant::not_the_operators(tx, tenant)?;
    tx.lock([ScopeKey::Tenant(tenant), ScopeKey::Account(scope.id())])
        .await?;
    let caller = tx.caller().clone();
    demand_of_token(
        tx.db(),
        ("tenant_admin_token", admin),
        Permission::TenantUpdate,
        tenant,
        &caller,
        tx.now(),
    )
    .await?;
    // Whoever administers a customer is none of its people.
    if grants::lent::is_lent(tx.db(), scope.id(), tenant).await? {
        return Err(Error::precondition(Reason::SelfRelationship));
    }
    grants::associate(tx, scope.id(), tenant).await?;
    tx.emit(
        Event::new(
            "entente.account.v1.TenantAssociated",
            Name::TenantAssociation(scope.id(), tenant),
        )
        .change(
            "tenant",
            serde_json::Value::Null,
            Name::Tenant(tenant).to_string(),
        )
        .also_in(ScopeKey::Tenant(tenant)),
    );
    find(tx, scope.id(), tenant)
        .await
        .map(|row| wire::association(tx.app(), &row))
}

pub(crate) fn check_create_associated_tenant(
    req: &CreateAssociatedTenantRequest,
    v: &mut Violations,
) {
    directory::wire::check_first_admin(req.first_admin.as_ref(), v);
}

/// Hashes outside of the transaction.
///
/// # Errors
/// `OVERLOADED`.
pub async fn prepare_create_associated_tenant(
    outside: &Outside,
    _proof: Proof,
    req: &CreateAssociatedTenantRequest,
) -> Result<Option<String>> {
    directory::tenant::hash_first_password(outside, req.first_admin.as_ref()).await
}

/// Makes a tenant, associated at once (TEN-1).
///
/// # Errors
/// `DOMAIN_TAKEN`.
pub async fn create_associated_tenant(
    tx: &mut Tx,
    scope: AccountScope,
    req: CreateAssociatedTenantRequest,
    hash: Option<String>,
) -> Result<CreateAssociatedTenantResponse> {
    let CreateAssociatedTenantRequest {
        parent: _,
        tenant,
        first_admin,
        request_id: _,
        validate_only: _,
    } = req;
    let new = directory::wire::new_tenant(tenant)?;
    let (admin, _) = directory::wire::first_admin(first_admin)?;
    let made = directory::tenant::make(tx, new, admin, hash, grants::By::Caller).await?;
    grants::associate(tx, scope.id(), made.id).await?;
    tx.emit(
        Event::new(
            "entente.account.v1.TenantAssociated",
            Name::TenantAssociation(scope.id(), made.id),
        )
        .change(
            "tenant",
            serde_json::Value::Null,
            Name::Tenant(made.id).to_string(),
        )
        .also_in(ScopeKey::Tenant(made.id)),
    );
    let association = find(tx, scope.id(), made.id).await?;
    Ok(CreateAssociatedTenantResponse {
        association: Some(wire::association(tx.app(), &association)),
        tenant: Some(made.tenant),
        first_admin: Some(made.first_admin),
        temporary_password: made.temporary_password,
        secret_omitted: false,
    })
}

pub(crate) fn check_list_associated_tenants(
    req: &ListAssociatedTenantsRequest,
    v: &mut Violations,
) {
    LISTING.check(req, v);
}

/// Lists the associated tenants.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_associated_tenants(
    rd: &Read,
    scope: AccountScope,
    req: ListAssociatedTenantsRequest,
) -> Result<ListAssociatedTenantsResponse> {
    let select = Entity::find().filter(Column::AccountId.eq(scope.id()));
    let page = rd
        .list(&req, &LISTING, select, |row: Model| {
            wire::association(rd.app(), &row)
        })
        .await?;
    Ok(ListAssociatedTenantsResponse {
        associations: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Removes a tenant: its people lose their memberships for good (TEN-4).
///
/// # Errors
/// `SIGNED_IN_THROUGH_TENANT`, `LAST_TENANT`, `LAST_MANAGER`, `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn remove_tenant(
    tx: &mut Tx,
    scope: AccountScope,
    req: RemoveTenantRequest,
) -> Result<RemoveTenantResponse> {
    let RemoveTenantRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let not_found = || Error::not_found("entente.dev/TenantAssociation", name.clone());
    let Some(Name::TenantAssociation(_, tenant)) = Name::parse(&name) else {
        return Err(not_found());
    };
    let row = Entity::find_by_id((scope.id(), tenant))
        .one(tx.db())
        .await?
        .ok_or_else(not_found)?;
    update::check_etag(&etag, row.version)?;
    if tx
        .caller()
        .who
        .is_some_and(|w| w.principal.tenant == tenant)
    {
        return Err(Error::precondition(Reason::SignedInThroughTenant));
    }
    if grants::association_count(tx.db(), scope.id()).await? <= 1 {
        let demanded = tx
            .demand(Permission::TenantsRemoveLast, Name::Account(scope.id()))
            .await;
        demanded.map_err(|e| {
            if e.code() == Code::PermissionDenied {
                Error::precondition(Reason::LastTenant)
            } else {
                e
            }
        })?;
    }
    let lost = grants::dissociate(tx, scope.id(), tenant).await?;
    let mut losses = Losses::default();
    for grant in lost {
        let set = grants::Set::of_grant(&grant);
        losses.memberships.push(LostMembership {
            member: Name::Member(scope.id(), grant.principal_id).to_string(),
            rights: Some(set.to_rights()),
        });
        tx.emit(directory::user_change::member_removed(
            scope.id(),
            grant.principal_id,
            set,
        ));
    }
    tx.emit(
        Event::new(
            "entente.account.v1.TenantRemoved",
            Name::TenantAssociation(scope.id(), tenant),
        )
        .change(
            "tenant",
            Name::Tenant(tenant).to_string(),
            serde_json::Value::Null,
        )
        .also_in(ScopeKey::Tenant(tenant)),
    );
    Ok(RemoveTenantResponse {
        resources: vec![wire::association(tx.app(), &row)],
        losses: Some(losses),
    })
}

async fn find(tx: &Tx, account: Uuid, tenant: Uuid) -> Result<Model> {
    Entity::find_by_id((account, tenant))
        .one(tx.db())
        .await?
        .ok_or_else(|| Error::internal("an association vanished within its transaction"))
}
