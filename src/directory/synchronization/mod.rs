//! Directory synchronisation (TEN-5): a tenant's local directory fills it, by a stream of entries from an agent.
//!
//! Nouns. An entry is a user, a group or an application of the local directory, known by its external ID there; the rows that come of it
//! carry that ID, and what was made here carries none. A run is what an agent sends under one request ID, in chunks numbered from 1; the
//! last one begun is the only one that goes on. A fault is an entry, or a part of one, that couldn't be taken over.
//!
//! Invariants. A chunk is one transaction, after the tenant's lock. Nothing without external ID is ever changed. No directory role is given
//! or taken but with the user that is deleted. The tenant keeps its last global admin: that deletion is a fault. Whoever comes back after a
//! deletion is somebody new. Memory and time of a chunk are bounded, whatever the length of the run.

mod applications;
mod entries;
mod groups;
mod names;
mod run;
mod users;

use sea_orm::{ActiveModelTrait, IntoActiveModel, Set, Value};
use uuid::Uuid;

pub(super) use self::users::is_disabled_there;
use self::{entries::Chunk, run::Run};
use super::{
    entity::{application, tenant::Model},
    tenant, wire,
};
use crate::{
    access::{
        grants,
        principal::{Kind, Principal},
        roles::{Permission, Permissions},
        scope::{Proof, TenantScope},
    },
    app::{Read, Tx},
    check::Violations,
    error::{Error, Reason, Result},
    names::Name,
    proto::directory::{
        GetDirectorySynchronizationRequest, GetDirectorySynchronizationResponse,
        SetDirectorySynchronizationRequest, SetDirectorySynchronizationResponse,
        SyncDirectoryRequest, SyncDirectoryResponse,
    },
    store::{outbox::Event, scope_key::ScopeKey, sql, update},
};

pub(crate) fn check_set_directory_synchronization(
    req: &SetDirectorySynchronizationRequest,
    v: &mut Violations,
) {
    if req.enabled && req.agent.is_empty() {
        v.also("agent", "is required");
    } else if !req.enabled && !req.agent.is_empty() {
        v.also("agent", "goes with `enabled` only");
    }
}

/// Marks a tenant as filled by a local directory and names the agent, or ends that.
///
/// # Errors
/// `INVALID_ARGUMENT` or `NOT_FOUND` for the agent, `ETAG_MISMATCH`.
pub async fn set_directory_synchronization(
    tx: &mut Tx,
    scope: TenantScope,
    req: SetDirectorySynchronizationRequest,
) -> Result<SetDirectorySynchronizationResponse> {
    let SetDirectorySynchronizationRequest {
        name: _,
        enabled,
        agent,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = tenant::find(tx.db(), scope).await?;
    update::check_etag(&etag, old.version)?;
    let agent = match Name::parse(&agent) {
        Some(Name::Application(_, id)) => Some(agent_of(tx, scope, id, &agent).await?),
        _ => None,
    };
    if old.sync_agent_id != agent {
        for (of, may) in [(old.sync_agent_id, false), (agent, true)] {
            if let Some(of) = of {
                let of = Principal {
                    kind: Kind::Application,
                    id: of,
                    tenant: scope.id(),
                };
                let_sync(tx, of, may).await?;
            }
        }
    }
    let released_count = if old.synchronized && !enabled {
        release(tx, scope.id()).await?
    } else {
        0
    };
    let mut row = old.clone().into_active_model();
    row.synchronized = Set(enabled);
    row.sync_agent_id = Set(agent);
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row = row.update(tx.db()).await?;
    tx.emit(told(&old, &row));
    let run = run::find(tx.db(), row.id).await?;
    Ok(SetDirectorySynchronizationResponse {
        synchronization: Some(wire::synchronization(&row, run.as_ref())),
        tenant: Some(wire::tenant(tx.app(), &row, false)),
        released_count,
    })
}

fn told(old: &Model, new: &Model) -> Event {
    let agent = |row: &Model| {
        row.sync_agent_id.map_or(serde_json::Value::Null, |id| {
            Name::Application(row.id, id).to_string().into()
        })
    };
    let mut event = Event::new(
        "entente.directory.v1.DirectorySynchronizationSet",
        Name::Tenant(new.id),
    )
    .change("enabled", old.synchronized, new.synchronized)
    .change("agent", agent(old), agent(new));
    for id in [old.sync_agent_id, new.sync_agent_id].into_iter().flatten() {
        event = event.touches(id);
    }
    event
}

/// The agent that a request names: an application of the tenant that its local directory can't delete.
async fn agent_of(tx: &Tx, scope: TenantScope, id: Uuid, name: &str) -> Result<Uuid> {
    let row = application::find(tx.db(), scope, id)
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Application", name))?;
    if row.external_id.is_empty() {
        Ok(id)
    } else {
        Err(Error::field("agent", "must have been made here"))
    }
}

/// Gives `directory.sync` to an application, or takes it.
async fn let_sync(tx: &mut Tx, agent: Principal, may: bool) -> Result<()> {
    let scope = ScopeKey::Tenant(agent.tenant);
    let sync = Permissions::of(&[Permission::DirectorySync]);
    let old = grants::find(tx.db(), scope, agent.id).await?;
    let mut set = old.as_ref().map(grants::Set::of_grant).unwrap_or_default();
    set.single = if may {
        set.single.and(sync)
    } else {
        set.single.without(sync)
    };
    if !set.is_empty() {
        return grants::set(tx, scope, agent, set, grants::By::Caller).await;
    }
    // Nothing is left, or the application is gone.
    grants::remove(tx, scope, agent.id).await.map(drop)
}

/// What came from the local directory stays, as if made here; gives how much that is.
async fn release(tx: &mut Tx, id: Uuid) -> Result<i32> {
    let mut released = 0;
    // Deleted users too: who can be restored is restored as made here. They don't count.
    for (table, counts) in [
        ("users", "state <> 3"),
        ("users", "state = 3"),
        ("user_groups", "1 = 1"),
        ("applications", "1 = 1"),
    ] {
        let sql = format!(
            "UPDATE {table} SET external_id = '', update_time = $1, version = version + 1 WHERE tenant_id = $2 AND external_id <> '' AND {counts}"
        );
        let values: [Value; 2] = [tx.now().into(), id.into()];
        let done = sql::execute(tx.db(), sql, values).await?.rows_affected();
        released += if counts == "state = 3" { 0 } else { done };
    }
    let sql = "DELETE FROM directory_disabled_users WHERE user_id IN (SELECT id FROM users WHERE tenant_id = $1)";
    sql::execute(tx.db(), sql, [id.into()]).await?;
    run::forget(tx, id).await?;
    Ok(i32::try_from(released).unwrap_or(i32::MAX))
}

pub(crate) fn check_get_directory_synchronization(
    req: &GetDirectorySynchronizationRequest,
    v: &mut Violations,
) {
    run::LISTING.check(req, v);
}

/// Tells how far the synchronisation has come, with a page of faults.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page.
pub async fn get_directory_synchronization(
    rd: &Read,
    proof: Proof,
    req: GetDirectorySynchronizationRequest,
) -> Result<GetDirectorySynchronizationResponse> {
    let row = tenant::find(rd.db(), proof.tenant()?).await?;
    let run = run::find(rd.db(), row.id).await?;
    let page = run::page_of_faults(rd, row.id, &req).await?;
    Ok(GetDirectorySynchronizationResponse {
        synchronization: Some(wire::synchronization(&row, run.as_ref())),
        faults: page.items,
        next_page_token: page.next_page_token,
    })
}

pub(crate) fn check_sync_directory(req: &SyncDirectoryRequest, v: &mut Violations) {
    entries::check(&req.entries, v);
}

/// Takes over a chunk of entries.
///
/// # Errors
/// `SEQUENCE_GAP` naming the last one, `WRONG_STATE` if no local directory fills the tenant. What is wrong with an entry is none: it is recorded.
pub async fn sync_directory(
    tx: &mut Tx,
    proof: Proof,
    req: SyncDirectoryRequest,
) -> Result<SyncDirectoryResponse> {
    let SyncDirectoryRequest {
        parent: _,
        request_id,
        sequence,
        entries,
        validate_only,
    } = req;
    let row = tenant::find(tx.db(), proof.tenant()?).await?;
    if !row.synchronized {
        return Err(
            Error::precondition(Reason::WrongState).with("state", "filled by no local directory")
        );
    }
    let mut run = Run::go_on(
        run::find(tx.db(), row.id).await?,
        row.id,
        &request_id,
        sequence,
        validate_only,
        tx.now(),
    )?;
    let mut chunk = Chunk::of(entries);
    chunk.look_up(tx.db(), row.id).await?;
    // Deletions first: what they leave free can be taken by others of the chunk.
    let mut deleted = groups::delete(tx, row.id, chunk.groups_to_delete()).await?;
    deleted += applications::delete(tx, chunk.applications_to_delete()).await?;
    deleted += users::delete(tx, &mut chunk).await?;
    users::upsert(tx, row.id, &mut chunk).await?;
    applications::upsert(tx, row.id, &mut chunk).await?;
    groups::upsert(tx, row.id, &mut chunk).await?;
    run.count(&chunk, deleted);
    run.store(tx, &chunk).await?;
    // Also where nothing changed: the chunk is told.
    tx.touch(ScopeKey::Tenant(row.id));
    let faults = run::first_faults(tx.db(), row.id).await?;
    Ok(SyncDirectoryResponse {
        synchronization: Some(wire::synchronization(&row, Some(&run.row))),
        faults: faults.iter().map(wire::directory_fault).collect(),
    })
}
