//! ApplicationService: programs of a tenant, and the keys they sign in with (APP-2 to APP-4).

use aws_lc_rs::digest;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, ModelTrait, PaginatorTrait,
    QueryFilter, Value,
};
use uuid::Uuid;

use super::{
    ACTIVE,
    entity::{
        application::{self, Column, Entity, Model},
        application_key as keys,
    },
    search, user_change, wire,
};
use crate::{
    access::{
        grants::{self, OPERATOR_SERVICE},
        principal::{Kind, Principal},
        roles::Permission,
        scope::{Proof, Reach, TenantScope},
    },
    app::{App, Read, Tx},
    check::Violations,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    keys::Purpose,
    names::Name,
    proto::directory::{
        Application, CreateApplicationRequest, CreateKeyRequest, CreateKeyResponse,
        DeleteKeyRequest, DeleteKeyResponse, GetApplicationRequest, ListApplicationsRequest,
        ListApplicationsResponse, ListKeysRequest, ListKeysResponse, Losses,
    },
    store::{
        filter::{Field, Kind as FilterKind, OrderField},
        list::{Listing, fold},
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::{self, micros},
        update,
    },
};

/// Keys that an application has at most.
const MOST_KEYS: u64 = 10;
/// The shortest, the usual and the longest lifetime of a key; months of 365/12 days.
const SHORTEST_US: Micros = DAY_US;
const USUAL_US: Micros = 365 * DAY_US;
const LONGEST_US: Micros = 730 * DAY_US;
/// Callers' clocks are off by a little.
const CLOCK_SLACK_US: Micros = 5 * 60 * 1_000_000;
/// The beginning of every key, by which secret scanners know it.
const KEY_PREFIX: &str = "entk_";

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

const KEY_LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "create_time",
            ("application_keys", "create_time"),
            FilterKind::TIME,
        ),
        Field::new(
            "expire_time",
            ("application_keys", "expire_time"),
            FilterKind::TIME,
        ),
    ],
    orders: &[OrderField::new(
        "create_time",
        ("application_keys", "create_time"),
    )],
    id: ("application_keys", "id"),
};

pub(crate) fn check_create_application(req: &CreateApplicationRequest, v: &mut Violations) {
    wire::check_memberships(&req.memberships, v);
}

/// Makes an application, with memberships.
///
/// # Errors
/// `URI_TAKEN`, and those of giving.
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
    let principal = Principal {
        kind: Kind::Application,
        id: row.id,
        tenant: row.tenant_id,
    };
    user_change::join_accounts(tx, principal, &memberships).await?;
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

/// Makes a key. Whoever has it can be the application, so all that the application holds is demanded (ROL-7, APP-4).
///
/// # Errors
/// `TOO_MANY_KEYS`, `INVALID_ARGUMENT` for a bad lifetime, `CANNOT_GRANT_WHAT_YOU_LACK`.
pub async fn create_key(
    tx: &mut Tx,
    scope: TenantScope,
    req: CreateKeyRequest,
) -> Result<CreateKeyResponse> {
    let CreateKeyRequest {
        parent,
        key,
        request_id: _,
        validate_only: _,
    } = req;
    let application = find(tx.db(), scope, &parent).await?;
    demand_all_it_holds(tx, application.id).await?;
    let now = tx.now();
    let expire_time = match key.and_then(|k| k.expire_time) {
        None => now + USUAL_US,
        Some(at) => {
            let at = micros(&at);
            if at < now + SHORTEST_US - CLOCK_SLACK_US || at > now + LONGEST_US + CLOCK_SLACK_US {
                return Err(Error::field(
                    "key.expire_time",
                    "must lie 1 day to 24 months from now",
                ));
            }
            at
        }
    };
    let live = keys::Entity::find()
        .filter(keys::Column::ApplicationId.eq(application.id))
        .filter(keys::Column::ExpireTime.gt(now))
        .count(tx.db())
        .await?;
    if live >= MOST_KEYS {
        return Err(Error::precondition(Reason::TooManyKeys).with("most", MOST_KEYS.to_string()));
    }
    let app = tx.app().clone();
    let secret = new_secret(&app);
    let row = keys::Model {
        id: tx.id(),
        application_id: application.id,
        hash: key_hash(&app, application.id, &secret),
        hint: secret.chars().take(KEY_PREFIX.len() + 4).collect(),
        create_time: now,
        expire_time,
        version: 1,
    };
    tx.insert(row.clone()).await?;
    tx.emit(
        Event::new(
            "entente.directory.v1.KeyCreated",
            Name::Key(application.tenant_id, application.id, row.id),
        )
        .change("hint", serde_json::Value::Null, row.hint.clone())
        .change(
            "expire_time",
            serde_json::Value::Null,
            time::json(row.expire_time),
        )
        .touches(application.id),
    );
    Ok(CreateKeyResponse {
        key: Some(wire::key(application.tenant_id, &row)),
        secret,
        secret_omitted: false,
    })
}

async fn demand_all_it_holds(tx: &mut Tx, application: Uuid) -> Result<()> {
    let held = grants::all_of(tx.db(), application).await?;
    tx.lock(held.iter().map(|(scope, _)| *scope)).await?;
    let mut lacking = Vec::new();
    for (scope, grant) in held {
        if scope == ScopeKey::Operator && grant.roles == OPERATOR_SERVICE {
            // The table's exception: keys of internal services are made by those who manage the staff.
            tx.demand(Permission::StaffManage, Name::Operator).await?;
            continue;
        }
        let mine = tx.caller_permissions(scope).await?;
        let missing = user_change::permissions(scope, &grant).without(mine);
        lacking.extend(
            missing
                .names()
                .into_iter()
                .map(|p| format!("{p} on {scope}")),
        );
    }
    if lacking.is_empty() {
        Ok(())
    } else {
        Err(Error::refused(Reason::CannotGrantWhatYouLack).with("lacking", lacking.join(", ")))
    }
}

/// `entk_`, 43 characters of 256 random bits, and 6 of a checksum, so that scanners know a real one.
fn new_secret(app: &App) -> String {
    let body = BASE64_URL_SAFE_NO_PAD.encode(app.env.bytes::<32>());
    format!("{KEY_PREFIX}{body}{}", checksum(&body))
}

fn checksum(body: &str) -> String {
    let hash = digest::digest(&digest::SHA256, body.as_bytes());
    BASE64_URL_SAFE_NO_PAD
        .encode(hash.as_ref())
        .chars()
        .take(6)
        .collect()
}

fn is_well_formed(secret: &str) -> bool {
    secret
        .strip_prefix(KEY_PREFIX)
        .and_then(|rest| rest.split_at_checked(43))
        .is_some_and(|(body, sum)| sum == checksum(body))
}

fn key_hash(app: &App, application: Uuid, secret: &str) -> Vec<u8> {
    app.keys
        .mac(
            Purpose::Secret,
            &[
                b"application key",
                application.as_bytes(),
                secret.as_bytes(),
            ],
        )
        .to_vec()
}

pub(crate) fn check_list_keys(req: &ListKeysRequest, v: &mut Violations) {
    KEY_LISTING.check(req, v);
}

/// Lists keys, without secrets.
///
/// # Errors
/// `NOT_FOUND`; `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_keys(
    rd: &Read,
    scope: TenantScope,
    req: ListKeysRequest,
) -> Result<ListKeysResponse> {
    let application = find(rd.db(), scope, &req.parent).await?;
    let select = keys::Entity::find().filter(keys::Column::ApplicationId.eq(application.id));
    let page = rd
        .list(&req, &KEY_LISTING, select, |row: keys::Model| {
            wire::key(application.tenant_id, &row)
        })
        .await?;
    Ok(ListKeysResponse {
        keys: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Deletes a key; tokens that came from it end at once, since each call asks for it.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn delete_key(
    tx: &mut Tx,
    scope: TenantScope,
    req: DeleteKeyRequest,
) -> Result<DeleteKeyResponse> {
    let DeleteKeyRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let not_found = || Error::not_found("entente.dev/Key", name.clone());
    let Some(Name::Key(tenant_id, application_id, id)) = Name::parse(&name) else {
        return Err(not_found());
    };
    let application = application::find(tx.db(), scope, application_id)
        .await?
        .ok_or_else(not_found)?;
    let row = keys::Entity::find_by_id(id)
        .filter(keys::Column::ApplicationId.eq(application.id))
        .one(tx.db())
        .await?
        .ok_or_else(not_found)?;
    update::check_etag(&etag, row.version)?;
    let resource = wire::key(tenant_id, &row);
    let expire_time = time::json(row.expire_time);
    row.delete(tx.db()).await?;
    tx.emit(
        Event::new(
            "entente.directory.v1.KeyDeleted",
            Name::Key(tenant_id, application.id, id),
        )
        .change("hint", resource.hint.clone(), serde_json::Value::Null)
        .change("expire_time", expire_time, serde_json::Value::Null)
        .touches(application.id),
    );
    let losses = Losses {
        key_count: 1,
        ..Losses::default()
    };
    Ok(DeleteKeyResponse {
        resources: vec![resource],
        losses: Some(losses),
    })
}

async fn find<C: ConnectionTrait>(db: &C, reach: impl Into<Reach>, name: &str) -> Result<Model> {
    let not_found = || Error::not_found("entente.dev/Application", name);
    match Name::parse(name) {
        Some(Name::Application(_, id)) => application::find(db, reach, id)
            .await?
            .ok_or_else(not_found),
        _ => Err(not_found()),
    }
}

/// A key that signs in.
#[derive(FromQueryResult)]
pub struct GoodKey {
    /// Its application's tenant.
    pub tenant_id: Uuid,
    /// Its ID.
    pub key_id: Uuid,
    /// When it ends.
    pub expire_time: i64,
}

/// The key of an application whose secret this is, if it may sign in.
///
/// # Errors
/// Those of the database.
pub(super) async fn find_key(tx: &Tx, application: Uuid, secret: &str) -> Result<Option<GoodKey>> {
    if !is_well_formed(secret) {
        return Ok(None);
    }
    let hash = key_hash(tx.app(), application, secret);
    let sql = "SELECT a.tenant_id, k.id AS key_id, k.expire_time FROM application_keys k JOIN applications a ON a.id = k.application_id \
               JOIN tenants t ON t.id = a.tenant_id WHERE k.application_id = $1 AND k.hash = $2 AND k.expire_time > $3 \
               AND a.state = 1 AND t.state = 1";
    let values: [Value; 3] = [
        application.into(),
        Value::Bytes(Some(hash)),
        tx.now().into(),
    ];
    sql::one::<GoodKey, _>(tx.db(), sql, values).await
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
