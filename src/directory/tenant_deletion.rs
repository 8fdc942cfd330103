//! Deleting tenants, undoing that, and purging what nobody wants any more (TEN-7, TEN-1). A deleted tenant is whole for 30 days, only that
//! nobody of it can act; then its rows go, some hundred a transaction, but for its own one, which keeps the prefix, and its audit chain.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, FromQueryResult, IntoActiveModel, QueryFilter,
    QueryOrder, Set, Value,
};
use uuid::Uuid;

use super::{
    ACTIVE, GUEST, RESTORABLE_US, TENANT_DELETED, TENANT_PURGED, domain,
    entity::tenant::{Column, Entity, Model},
    tenant, wire,
};
use crate::{
    access::{
        grants::{self, GLOBAL_ADMIN, lent},
        link::{self, Link},
        principal::Kind,
        scope::{Proof, TenantScope},
    },
    app::Tx,
    check::Violations,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::LinkKind,
        directory::{
            DeleteTenantRequest, DeleteTenantResponse, Tenant, TenantLosses, UndeleteTenantRequest,
        },
    },
    schedule::CHUNK,
    store::{
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::{self, rfc3339},
        update,
    },
};

/// Accounts that a refusal names.
const MOST_ACCOUNTS_NAMED: i64 = 20;
/// Global admins who get the link of an undeletion.
const MOST_ADMINS_TOLD: i64 = 1_000;
/// A tenant that nobody uses is purged so long after it was made, and its contact is told so long before.
const UNUSED_US: Micros = 30 * DAY_US;
const NOTICE_US: Micros = 7 * DAY_US;
/// Purges announced in one transaction, which locks all these tenants.
const MOST_ANNOUNCED: i64 = 50;

/// Deletes a tenant that no account uses: everybody is out, and for 30 days it can be undone (TEN-7).
///
/// # Errors
/// `TENANT_IN_USE`, `OPERATOR_TENANT`, `ETAG_MISMATCH`.
pub async fn delete_tenant(
    tx: &mut Tx,
    scope: TenantScope,
    req: DeleteTenantRequest,
) -> Result<DeleteTenantResponse> {
    let DeleteTenantRequest {
        name: _,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = tenant::find(tx.db(), scope).await?;
    update::check_etag(&etag, old.version)?;
    tenant::not_the_operators(tx, old.id)?;
    demand_no_account(tx, old.id).await?;
    let mut losses = losses(tx, old.id).await?;
    // Guests of it elsewhere are out with their home; accounts that lose their last manager so are told (ROL-9).
    let abroad = grants::accounts_kept_from(tx.db(), old.id).await?;
    let shut_out = grants::ShutOut::before(tx, abroad).await?;
    let now = tx.now();
    let mut row = old.clone().into_active_model();
    row.state = Set(TENANT_DELETED);
    row.delete_time = Set(Some(now));
    row.purge_time = Set(Some(now + RESTORABLE_US));
    row.update_time = Set(now);
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    losses.session_count = end_all_sessions(tx, row.id).await?;
    domain::let_go(tx, row.id).await?;
    shut_out.done(tx).await?;
    let mut event = Event::new("entente.directory.v1.TenantDeleted", Name::Tenant(row.id))
        .change("state", old.state, row.state)
        .touches(row.id);
    if let Some(who) = tx.caller().who {
        event = event.touches(who.principal.id);
    }
    tx.emit(event);
    send_link(tx, &row).await?;
    Ok(DeleteTenantResponse {
        resources: vec![wire::tenant(tx.app(), &row, false)],
        losses: Some(losses),
    })
}

async fn demand_no_account(tx: &Tx, id: Uuid) -> Result<()> {
    let accounts = grants::accounts_of(tx.db(), id, MOST_ACCOUNTS_NAMED).await?;
    let relationships = lent::in_force(tx.db(), id, MOST_ACCOUNTS_NAMED).await?;
    if accounts.is_empty() && relationships.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = accounts
        .into_iter()
        .map(|a| Name::Account(a).to_string())
        .chain(relationships.iter().map(Name::to_string))
        .collect();
    Err(Error::precondition(Reason::TenantInUse).with("uses", names.join(", ")))
}

#[derive(FromQueryResult)]
struct Counts {
    users: i64,
    guests: i64,
    groups: i64,
    applications: i64,
    keys: i64,
    abroad: i64,
}

async fn losses(tx: &Tx, id: Uuid) -> Result<TenantLosses> {
    let sql = "SELECT \
        (SELECT COUNT(*) FROM users WHERE tenant_id = $1 AND kind = 1 AND state <> 3) AS users, \
        (SELECT COUNT(*) FROM users WHERE tenant_id = $1 AND kind = 2 AND state <> 3) AS guests, \
        (SELECT COUNT(*) FROM user_groups WHERE tenant_id = $1) AS groups, \
        (SELECT COUNT(*) FROM applications WHERE tenant_id = $1) AS applications, \
        (SELECT COUNT(*) FROM application_keys k JOIN applications a ON a.id = k.application_id \
           WHERE a.tenant_id = $1 AND k.expire_time > $2) AS keys, \
        (SELECT COUNT(*) FROM users h JOIN users g ON g.home_id = h.id WHERE h.tenant_id = $1 AND h.state <> 3 AND g.state <> 3) AS abroad";
    let values: [Value; 2] = [id.into(), tx.now().into()];
    let counts = sql::one::<Counts, _>(tx.db(), sql, values)
        .await?
        .ok_or_else(|| Error::internal("a count has no row"))?;
    let whole = |n: i64| i32::try_from(n).unwrap_or(i32::MAX);
    Ok(TenantLosses {
        user_count: whole(counts.users),
        guest_count: whole(counts.guests),
        group_count: whole(counts.groups),
        application_count: whole(counts.applications),
        key_count: whole(counts.keys),
        session_count: 0,
        guest_elsewhere_count: whole(counts.abroad),
    })
}

/// Ends the sessions in a tenant, and those that its people have elsewhere: an undeletion brings none back.
async fn end_all_sessions(tx: &mut Tx, id: Uuid) -> Result<i32> {
    let mut ended = 0;
    for column in ["user_id", "home_id"] {
        let sql = format!(
            "UPDATE sessions SET end_time = $1, version = version + 1 WHERE end_time IS NULL AND expire_time > $1 \
             AND {column} IN (SELECT id FROM users WHERE tenant_id = $2)"
        );
        let values: [Value; 2] = [tx.now().into(), id.into()];
        ended += sql::execute(tx.db(), sql, values).await?.rows_affected();
    }
    Ok(i32::try_from(ended).unwrap_or(i32::MAX))
}

#[derive(FromQueryResult)]
struct Admin {
    display_name: String,
    user_name: String,
    recovery_email: String,
    kind: i64,
}

/// Mails the link that undoes the deletion to all global admins who aren't disabled: one token, which works once.
async fn send_link(tx: &mut Tx, row: &Model) -> Result<()> {
    let app = tx.app().clone();
    let scope = ScopeKey::Tenant(row.id);
    let made = Link {
        kind: LinkKind::TenantUndeletion,
        subject: row.id,
        scope,
    };
    let token = link::make(tx, made, &[], RESTORABLE_US).await?;
    let link = link::url(&app.config, made.kind, &token);
    let sql = "SELECT u.display_name, u.user_name, u.recovery_email, u.kind FROM grants g JOIN users u ON u.id = g.principal_id AND u.state = 1 \
               WHERE g.scope_kind = $1 AND g.scope_id = $2 AND (g.roles & $3) <> 0 ORDER BY g.create_time, u.id LIMIT $4";
    let values: [Value; 4] = [
        scope.kind().into(),
        scope.id().into(),
        GLOBAL_ADMIN.into(),
        MOST_ADMINS_TOLD.into(),
    ];
    let admins = sql::all::<Admin, _>(tx.db(), sql, values).await?;
    let by = deleter(tx, &admins).await?;
    for admin in admins {
        // A guest was invited by its address, which is its name here.
        let to = if admin.recovery_email.is_empty() && admin.kind == GUEST {
            admin.user_name
        } else {
            admin.recovery_email
        };
        let values = [
            ("name", admin.display_name),
            ("by", by.clone()),
            ("organisation", row.display_name.clone()),
            ("domain", wire::domain(&app, &row.domain_prefix)),
            ("until", rfc3339(row.purge_time.unwrap_or_default())),
            ("link", link.to_string()),
            ("token", token.to_string()),
        ];
        mail::queue(
            tx,
            Template::TenantDeleted,
            &to,
            Name::Tenant(row.id),
            &values,
        )
        .await?;
    }
    Ok(())
}

/// The display name of whoever deletes.
async fn deleter(tx: &Tx, admins: &[Admin]) -> Result<String> {
    let who = tx.caller().who.map(|who| who.principal);
    let name = match who.filter(|p| p.kind == Kind::User) {
        Some(principal) => super::user::summary(tx.db(), principal.id)
            .await?
            .map(|u| u.display_name),
        None => None,
    };
    let fallback = || admins.first().map(|a| a.display_name.clone());
    Ok(name.or_else(fallback).unwrap_or_default())
}

/// What callers call a state.
fn state_name(state: i64) -> &'static str {
    match state {
        ACTIVE => "ACTIVE",
        TENANT_DELETED => "DELETED",
        _ => "PURGED",
    }
}

pub(crate) fn check_undelete_tenant(req: &UndeleteTenantRequest, v: &mut Violations) {
    if req.token.is_empty() && req.tenant.is_empty() {
        v.also("tenant", "is required without a token");
    }
}

/// Undoes a deletion: by the mailed token, or by the operator.
///
/// # Errors
/// `LINK_INVALID`, also for a token of another tenant than the one named; `NOT_FOUND`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn undelete_tenant(
    tx: &mut Tx,
    proof: Proof,
    req: UndeleteTenantRequest,
) -> Result<Tenant> {
    let UndeleteTenantRequest {
        token: _,
        tenant: name,
        etag,
        request_id: _,
    } = req;
    let named = match Name::parse(&name) {
        Some(Name::Tenant(id)) => Some(id),
        _ => None,
    };
    let id = if proof.by_operator() {
        // A token that proves nothing is as good as none here.
        named.ok_or_else(link::invalid)?
    } else {
        let proven = proof.token()?.link();
        if named.is_some_and(|id| id != proven.subject) {
            return Err(link::invalid());
        }
        proven.subject
    };
    tx.lock([ScopeKey::Tenant(id)]).await?;
    let not_found = || Error::not_found("entente.dev/Tenant", Name::Tenant(id).to_string());
    let old = tenant::by_id(tx.db(), id).await?;
    let now = tx.now();
    if old.state == TENANT_PURGED || old.purge_time.is_some_and(|at| at <= now) {
        return Err(not_found());
    }
    update::check_etag(&etag, old.version)?;
    if old.state != TENANT_DELETED {
        return Err(Error::precondition(Reason::WrongState).with("state", state_name(old.state)));
    }
    // Used up, whoever undoes it.
    link::revoke(tx, LinkKind::TenantUndeletion, id).await?;
    let mut row = old.clone().into_active_model();
    row.state = Set(ACTIVE);
    row.delete_time = Set(None);
    row.purge_time = Set(None);
    // Whoever takes the trouble to undo it wants it.
    row.first_use_time = Set(Some(old.first_use_time.unwrap_or(now)));
    row.update_time = Set(now);
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    domain::take_up(tx, id).await?;
    tx.emit(
        Event::new("entente.directory.v1.TenantUndeleted", Name::Tenant(id))
            .change("state", old.state, row.state)
            .touches(id),
    );
    // Whoever has the token need not be of the tenant any more, and the operator sees it as ever.
    Ok(wire::tenant(tx.app(), &row, true))
}

/// Tells the contacts of tenants that nobody uses when these are purged, and sets that time (TEN-1); the scheduler's.
///
/// # Errors
/// Those of the database.
pub(crate) async fn announce_purges(tx: &mut Tx) -> Result<u64> {
    let unused = "FROM tenants t WHERE t.first_use_time IS NULL AND t.create_time <= $1 AND t.state = 1 AND NOT t.is_operator \
                  AND t.domain_prefix <> '' AND t.purge_time IS NULL AND NOT EXISTS (SELECT 1 FROM associations a WHERE a.tenant_id = t.id)";
    let old: Value = (tx.now() - UNUSED_US + NOTICE_US).into();
    let sql = format!("SELECT t.* {unused} ORDER BY t.create_time, t.id LIMIT $2");
    let due = sql::all::<Model, _>(tx.db(), sql, [old.clone(), MOST_ANNOUNCED.into()]).await?;
    let ids: Vec<Uuid> = due.iter().map(|row| row.id).collect();
    tx.lock(ids.iter().map(|id| ScopeKey::Tenant(*id))).await?;
    // Again under the locks: somebody may have come meanwhile.
    let sql = format!(
        "SELECT t.* {unused} AND t.id IN ({})",
        sql::in_ids(tx.db(), 2)
    );
    let due = sql::all::<Model, _>(tx.db(), sql, [old, sql::ids(&ids)]).await?;
    let app = tx.app().clone();
    for row in &due {
        let at = (row.create_time + UNUSED_US).max(tx.now() + NOTICE_US);
        let sql = "UPDATE tenants SET purge_time = $1, update_time = $2, version = version + 1 WHERE id = $3";
        let values: [Value; 3] = [at.into(), tx.now().into(), row.id.into()];
        sql::execute(tx.db(), sql, values).await?;
        let name = Name::Tenant(row.id);
        tx.emit(
            Event::new("entente.directory.v1.TenantPurgeAnnounced", name).change(
                "purge_time",
                serde_json::Value::Null,
                time::json(at),
            ),
        );
        let values = [
            ("organisation", row.display_name.clone()),
            ("domain", wire::domain(&app, &row.domain_prefix)),
            ("until", rfc3339(at)),
            ("origin", app.config.public_origin.clone()),
        ];
        mail::queue(
            tx,
            Template::TenantUnused,
            &row.contact_email,
            name,
            &values,
        )
        .await?;
    }
    // A full batch may have left some.
    Ok(if ids.len() as i64 == MOST_ANNOUNCED {
        CHUNK.unsigned_abs()
    } else {
        0
    })
}

/// Purges tenants whose time has come, a step of one tenant a transaction; the scheduler's.
///
/// # Errors
/// Those of the database.
pub(crate) async fn purge_tenants(tx: &mut Tx) -> Result<u64> {
    let due = Entity::find()
        .filter(Column::PurgeTime.lte(tx.now()))
        .order_by_asc(Column::PurgeTime)
        .order_by_asc(Column::Id)
        .one(tx.db())
        .await?;
    let Some(due) = due else {
        return Ok(0);
    };
    tx.lock([ScopeKey::Tenant(due.id)]).await?;
    let row = tenant::by_id(tx.db(), due.id).await?;
    if row.purge_time.is_some_and(|at| at <= tx.now()) {
        purge_step(tx, row).await?;
    }
    Ok(CHUNK.unsigned_abs())
}

async fn purge_step(tx: &mut Tx, row: Model) -> Result<()> {
    if row.state == ACTIVE {
        let used = row.first_use_time.is_some()
            || !grants::accounts_of(tx.db(), row.id, 1).await?.is_empty();
        // From the first step on nobody comes in any more.
        let (state, purge_time) = if used {
            (ACTIVE, None)
        } else {
            (TENANT_DELETED, row.purge_time)
        };
        let mut changed = row.into_active_model();
        changed.state = Set(state);
        changed.purge_time = Set(purge_time);
        changed.update(tx.db()).await?;
        return Ok(());
    }
    for kind in ["users", "user_groups", "applications"] {
        let ids = some_of(tx, kind, row.id).await?;
        if !ids.is_empty() {
            return purge_rows(tx, kind, &ids).await;
        }
    }
    leave_tombstone(tx, row).await
}

#[derive(FromQueryResult)]
struct Id {
    id: Uuid,
}

async fn some_of(tx: &Tx, table: &str, tenant: Uuid) -> Result<Vec<Uuid>> {
    let sql = format!("SELECT id FROM {table} WHERE tenant_id = $1 LIMIT $2");
    let rows = sql::all::<Id, _>(tx.db(), sql, [tenant.into(), CHUNK.into()]).await?;
    Ok(rows.into_iter().map(|r| r.id).collect())
}

/// Removes rows of a tenant with all that hangs on them.
async fn purge_rows(tx: &mut Tx, table: &str, ids: &[Uuid]) -> Result<()> {
    grants::forget_principals(tx, ids).await?;
    let hanging: &[(&str, &str)] = match table {
        "users" => &[
            ("sessions", "user_id"),
            ("credentials", "user_id"),
            ("sign_in_networks", "user_id"),
            ("directory_disabled_users", "user_id"),
            ("invitations", "user_id"),
            ("links", "subject_id"),
        ],
        "applications" => &[("application_keys", "application_id")],
        _ => &[],
    };
    let these = sql::in_ids(tx.db(), 1);
    for (table, column) in hanging.iter().chain(&[(table, "id")]) {
        let sql = format!("DELETE FROM {table} WHERE {column} IN ({these})");
        sql::execute(tx.db(), sql, [sql::ids(ids)]).await?;
    }
    Ok(())
}

/// All is gone but the prefix, which is never given again, and the audit chain.
async fn leave_tombstone(tx: &mut Tx, row: Model) -> Result<()> {
    let scope = ScopeKey::Tenant(row.id);
    grants::forget_scope(tx, scope).await?;
    for table in [
        "invitations",
        "directory_sync_faults",
        "directory_syncs",
        "domains",
    ] {
        let sql = format!("DELETE FROM {table} WHERE tenant_id = $1");
        sql::execute(tx.db(), sql, [row.id.into()]).await?;
    }
    let sql = "DELETE FROM links WHERE scope_kind = $1 AND scope_id = $2";
    let values: [Value; 2] = [scope.kind().into(), scope.id().into()];
    sql::execute(tx.db(), sql, values).await?;
    let (id, old_state) = (row.id, row.state);
    let version = row.version + 1;
    let mut stone = row.into_active_model();
    stone.state = Set(TENANT_PURGED);
    stone.display_name = Set(String::new());
    stone.display_name_fold = Set(String::new());
    stone.contact_email = Set(String::new());
    stone.synchronized = Set(false);
    stone.sync_agent_id = Set(None);
    stone.created_by_identity = Set(None);
    stone.purge_time = Set(None);
    stone.update_time = Set(tx.now());
    stone.version = Set(version);
    stone.update(tx.db()).await?;
    tx.emit(
        Event::new("entente.directory.v1.TenantPurged", Name::Tenant(id))
            .change("state", old_state, serde_json::Value::Null)
            .touches(id),
    );
    Ok(())
}
