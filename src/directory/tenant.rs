//! TenantService: making, reading, listing and changing tenants (TEN-1). Deleting them and their synchronisation have files of their own.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, Set,
    Value,
};
use uuid::Uuid;

use super::{
    ACTIVE, TENANT_DELETED, TENANT_PURGED, credential,
    entity::tenant::{self, Column, Entity, Model},
    search,
    tenant_card::TenantCard,
    user_change,
    wire::{self, NewTenant, NewUser},
};
pub(crate) use super::{
    synchronization::{
        check_get_directory_synchronization, check_set_directory_synchronization,
        check_sync_directory, get_directory_synchronization, set_directory_synchronization,
        sync_directory,
    },
    tenant_deletion::{check_undelete_tenant, delete_tenant, undelete_tenant},
};
use crate::{
    access::{
        cache::Facts,
        grants::{self, GLOBAL_ADMIN},
        principal::{Kind, Principal},
        roles::Permission,
        scope::{Proof, TenantScope},
    },
    app::{Outside, Read, Tx},
    check::Violations,
    env::Micros,
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::directory::{
        CreateTenantRequest, CreateTenantResponse, FirstAdmin, GetTenantRequest,
        ListTenantsRequest, ListTenantsResponse, Tenant, UpdateTenantRequest, User,
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
            ("tenants", "display_name_fold"),
            FilterKind::Text(search::TENANTS),
        ),
        Field::new(
            "domain_prefix",
            ("tenants", "domain_prefix"),
            FilterKind::Text(search::DOMAINS),
        ),
        Field::new(
            "state",
            ("tenants", "state"),
            FilterKind::Enum(&[("ACTIVE", 1), ("DELETED", 2)]),
        ),
        Field::new("create_time", ("tenants", "create_time"), FilterKind::TIME),
    ],
    orders: &[
        OrderField::new("create_time", ("tenants", "create_time")),
        OrderField::new("display_name", ("tenants", "display_name_fold")),
    ],
    id: ("tenants", "id"),
};

/// The hash of the password that the request gives the first admin, if it gives one; made outside the transaction.
///
/// # Errors
/// `OVERLOADED`.
pub async fn hash_first_password(
    outside: &Outside,
    admin: Option<&FirstAdmin>,
) -> Result<Option<String>> {
    let Some(admin) = admin.filter(|a| !a.password.is_empty()) else {
        return Ok(None);
    };
    outside
        .app()
        .hasher
        .hash(&admin.password, &outside.app().env)
        .await
        .map(Some)
}

pub(crate) fn check_create_tenant(req: &CreateTenantRequest, v: &mut Violations) {
    wire::check_first_admin(req.first_admin.as_ref(), v);
}

/// The personal identity that makes a tenant for itself; None if the operator makes it.
///
/// # Errors
/// `PERMISSION_DENIED` for everybody else.
fn maker(proof: &Proof) -> Result<Option<Uuid>> {
    if proof.by_operator() {
        return Ok(None);
    }
    let caller = proof.caller()?.principal();
    if caller.kind == Kind::Identity {
        Ok(Some(caller.id))
    } else {
        Err(Error::denied(Permission::TenantsCreate))
    }
}

/// Hashes outside of the transaction.
///
/// # Errors
/// `PERMISSION_DENIED` for whoever may not make tenants; as `hash_first_password`.
pub async fn prepare_create_tenant(
    outside: &Outside,
    proof: Proof,
    req: &CreateTenantRequest,
) -> Result<Option<String>> {
    maker(&proof)?;
    hash_first_password(outside, req.first_admin.as_ref()).await
}

/// Makes a tenant with its first global admin, in one transaction.
///
/// # Errors
/// `DOMAIN_TAKEN`; `TENANT_LIMIT` for a personal identity that has a tenant without an account.
pub async fn create_tenant(
    tx: &mut Tx,
    proof: Proof,
    req: CreateTenantRequest,
    hash: Option<String>,
) -> Result<CreateTenantResponse> {
    let maker = maker(&proof)?;
    let CreateTenantRequest {
        tenant,
        first_admin,
        request_id: _,
        validate_only: _,
    } = req;
    let mut new = wire::new_tenant(tenant)?;
    let admin = wire::first_admin(first_admin)?.0;
    if let Some(identity) = maker {
        one_at_a_time(tx, identity).await?;
        new.created_by_identity = Some(identity);
    }
    let made = make(tx, new, admin, hash, grants::By::Caller).await?;
    Ok(CreateTenantResponse {
        tenant: Some(made.tenant),
        first_admin: Some(made.first_admin),
        temporary_password: made.temporary_password,
        secret_omitted: false,
    })
}

/// A personal identity has one tenant without an account at a time; one that it deleted counts while it can be had back. The identity is
/// locked.
async fn one_at_a_time(tx: &Tx, identity: Uuid) -> Result<()> {
    let sql = "SELECT t.id FROM tenants t WHERE t.created_by_identity = $1 AND (t.state = 1 OR t.purge_time > $2) \
               AND NOT EXISTS (SELECT 1 FROM associations a WHERE a.tenant_id = t.id) LIMIT 1";
    let values: [Value; 2] = [identity.into(), tx.now().into()];
    match sql::row(tx.db(), sql, values).await? {
        Some(row) => {
            let id: Uuid = row.try_get("", "id")?;
            Err(Error::precondition(Reason::TenantLimit)
                .with("tenant", Name::Tenant(id).to_string()))
        }
        None => Ok(()),
    }
}

/// A tenant just made.
pub struct Made {
    /// Its ID.
    pub id: Uuid,
    /// The tenant.
    pub tenant: Tenant,
    /// Its first global admin.
    pub first_admin: User,
    /// Its ID.
    pub first_admin_id: Uuid,
    /// The temporary password; empty if one was given.
    pub temporary_password: String,
}

/// Makes a tenant and its first global admin. Whoever may make the tenant gives GLOBAL_ADMIN there, by the table of exceptions.
///
/// # Errors
/// `DOMAIN_TAKEN`; those of the database.
pub async fn make(
    tx: &mut Tx,
    new: NewTenant,
    admin: NewUser,
    hash: Option<String>,
    by: grants::By,
) -> Result<Made> {
    let is_operator = matches!(by, grants::By::Service);
    let app = tx.app().clone();
    let (id, now) = (tx.id(), tx.now());
    let row = Model {
        id,
        domain_prefix: new.domain_prefix,
        display_name_fold: fold(&new.display_name),
        display_name: new.display_name,
        contact_email: new.contact_email,
        is_operator,
        state: ACTIVE,
        synchronized: false,
        sync_agent_id: None,
        created_by_identity: new.created_by_identity,
        delete_time: None,
        purge_time: None,
        first_use_time: None,
        create_time: now,
        update_time: now,
        version: 1,
    };
    tx.insert(row.clone()).await?;
    let scope = ScopeKey::Tenant(id);
    tx.open_scope(scope).await?;
    let user = user_change::insert(tx, id, &admin, None).await?;
    let temporary_password = match hash {
        Some(hash) => {
            credential::set(tx, user.id, &hash, true).await?;
            String::new()
        }
        None => credential::make_temporary(tx, user.id).await?,
    };
    if is_operator {
        // The first start is no case of ROL-13: nobody else could wake anything.
        grants::set_asleep(tx, user.id, None).await?;
    }
    let principal = Principal {
        kind: Kind::User,
        id: user.id,
        tenant: id,
    };
    grants::set(
        tx,
        scope,
        principal,
        grants::Set::of_roles(GLOBAL_ADMIN),
        by,
    )
    .await?;
    let name = Name::Tenant(id);
    tx.emit(
        Event::new("entente.directory.v1.TenantCreated", name)
            .change(
                "domain_prefix",
                serde_json::Value::Null,
                row.domain_prefix.clone(),
            )
            .change(
                "display_name",
                serde_json::Value::Null,
                row.display_name.clone(),
            ),
    );
    tx.emit(user_change::created(&user, GLOBAL_ADMIN));
    let first_admin = wire::user(&app, &user, &row.domain_prefix, GLOBAL_ADMIN, now);
    mail::queue(
        tx,
        Template::TenantCreated,
        &row.contact_email,
        name,
        &[
            ("organisation", row.display_name.clone()),
            ("domain", wire::domain(&app, &row.domain_prefix)),
            ("name", user.display_name.clone()),
            ("sign_in_name", first_admin.sign_in_name.clone()),
            ("origin", app.config.public_origin.clone()),
        ],
    )
    .await?;
    Ok(Made {
        id,
        tenant: wire::tenant(&app, &row, false),
        first_admin,
        first_admin_id: user.id,
        temporary_password,
    })
}

/// Gives a tenant.
///
/// # Errors
/// `NOT_FOUND`, to the operator's people only: others hold nothing on a tenant that isn't there.
pub async fn get_tenant(rd: &Read, proof: Proof, req: GetTenantRequest) -> Result<Tenant> {
    let id = Name::parse(&req.name).map(|n| n.id()).unwrap_or_default();
    let row = Entity::find_by_id(id)
        .filter(Column::State.ne(TENANT_PURGED))
        .one(rd.db())
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Tenant", req.name))?;
    Ok(wire::tenant(rd.app(), &row, proof.masked()))
}

pub(crate) fn check_list_tenants(req: &ListTenantsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists the caller's tenants, or all for those who may see all.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_tenants(
    rd: &Read,
    proof: Proof,
    req: ListTenantsRequest,
) -> Result<ListTenantsResponse> {
    // The realm of personal identities has no domain, and is no tenant; of a purged one only the prefix is left.
    let mut select = Entity::find()
        .filter(Column::DomainPrefix.ne(""))
        .filter(Column::State.ne(TENANT_PURGED));
    if !req.show_deleted {
        select = select.filter(Column::State.ne(TENANT_DELETED));
    }
    let mut masked = proof.masked();
    if !proof.by_operator() {
        let home = proof.caller()?.principal().tenant;
        select = select.filter(Column::Id.eq(home));
        // Whoever may not get the tenant sees of it what WhoAmI shows.
        let mine = rd.caller_permissions(ScopeKey::Tenant(home)).await?;
        masked = !mine.has(Permission::TenantRead);
    }
    let page = rd
        .list(&req, &LISTING, select, |row: Model| {
            wire::tenant(rd.app(), &row, masked)
        })
        .await?;
    Ok(ListTenantsResponse {
        tenants: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Changes display name or contact.
///
/// # Errors
/// `ETAG_MISMATCH`; `INVALID_ARGUMENT` for a bad mask.
pub async fn update_tenant(
    tx: &mut Tx,
    scope: TenantScope,
    req: UpdateTenantRequest,
) -> Result<Tenant> {
    let UpdateTenantRequest {
        tenant,
        update_mask,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let new = tenant.ok_or_else(|| Error::field("tenant", "is required"))?;
    let fields = update::fields(update_mask.as_ref(), &new);
    let old = find(tx.db(), scope).await?;
    update::check_etag(&etag, old.version)?;
    let mut event = Event::new("entente.directory.v1.TenantUpdated", Name::Tenant(old.id));
    let mut row = old.clone().into_active_model();
    for field in fields {
        match field {
            "display_name" => {
                event = event.change(
                    "display_name",
                    old.display_name.clone(),
                    new.display_name.clone(),
                );
                row.display_name = Set(new.display_name.clone());
                row.display_name_fold = Set(fold(&new.display_name));
            }
            "contact_email" => {
                event = event.change(
                    "contact_email",
                    old.contact_email.clone(),
                    new.contact_email.clone(),
                );
                row.contact_email = Set(new.contact_email.clone());
            }
            other => {
                return Err(Error::internal(format!(
                    "{other} is mutable, but nobody changes it"
                )));
            }
        }
    }
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row: tenant::Model = row.update(tx.db()).await?;
    if row.display_name_fold != old.display_name_fold {
        grants::rename_tenant(tx, row.id, &row.display_name_fold).await?;
    }
    tx.emit(event);
    Ok(wire::tenant(tx.app(), &row, false))
}

/// The tenant of a proof.
///
/// # Errors
/// `NOT_FOUND`, if it was purged meanwhile.
pub async fn find<C: ConnectionTrait>(db: &C, scope: TenantScope) -> Result<Model> {
    by_id(db, scope.id()).await
}

/// The row of a tenant that a proof, or a row that it reaches, names.
///
/// # Errors
/// `NOT_FOUND`.
pub(crate) async fn by_id<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Model> {
    Entity::find_by_id(id)
        .one(db)
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Tenant", Name::Tenant(id).to_string()))
}

/// Whether there is such a tenant, and it isn't deleted.
///
/// # Errors
/// Those of the database.
pub async fn is_active<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<bool> {
    let row = Entity::find_by_id(id).one(db).await?;
    Ok(row.is_some_and(|t| t.state == ACTIVE))
}

/// Notes that somebody of a tenant signs in: one that nobody ever used is purged (TEN-1). Whether the tenant is still there; but for the
/// first time that costs nothing.
///
/// # Errors
/// Those of the database.
pub(super) async fn note_use(
    tx: &mut Tx,
    tenant: Uuid,
    first_use_time: Option<Micros>,
) -> Result<bool> {
    if first_use_time.is_some() || tenant.is_nil() {
        return Ok(true);
    }
    // Before the row, as whoever purges does.
    tx.lock([ScopeKey::Tenant(tenant)]).await?;
    let sql = "UPDATE tenants SET first_use_time = COALESCE(first_use_time, $1), purge_time = NULL WHERE id = $2 AND state = 1";
    let values: [Value; 2] = [tx.now().into(), tenant.into()];
    Ok(sql::execute(tx.db(), sql, values).await?.rows_affected() == 1)
}

/// A tenant's summary for other slices: domain prefix, display name, whether it is active.
///
/// # Errors
/// Those of the database.
pub async fn summary<C: ConnectionTrait>(
    db: &C,
    id: Uuid,
) -> Result<Option<(String, String, bool)>> {
    Ok(Entity::find_by_id(id)
        .one(db)
        .await?
        .map(|t| (t.domain_prefix, t.display_name, t.state == ACTIVE)))
}

/// Refuses what can't be done with the operator's own tenant.
///
/// # Errors
/// `OPERATOR_TENANT`.
pub fn not_the_operators(tx: &Tx, tenant: Uuid) -> Result<()> {
    if tx.app().operator_tenant() == tenant {
        Err(Error::precondition(Reason::OperatorTenant))
    } else {
        Ok(())
    }
}

/// Refuses to make here what the tenant's local directory has to make (TEN-5); gives the tenant's domain prefix otherwise.
///
/// # Errors
/// `DIRECTORY_SYNCHRONIZED`; `NOT_FOUND`.
pub(crate) async fn refuse_synchronized(tx: &Tx, tenant: Uuid) -> Result<String> {
    let card = tx.know(TenantCard(tenant)).await?;
    let name = || Name::Tenant(tenant).to_string();
    match card.as_ref() {
        Some(row) if row.synchronized => {
            Err(Error::precondition(Reason::DirectorySynchronized).with("tenant", name()))
        }
        Some(row) => Ok(row.domain_prefix.clone()),
        None => Err(Error::not_found("entente.dev/Tenant", name())),
    }
}
