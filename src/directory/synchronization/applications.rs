//! Applications of the local directory: made, changed, deleted. There are few, so each has statements of its own.

use std::collections::{BTreeSet, HashMap};

use sea_orm::{ActiveModelTrait, FromQueryResult, IntoActiveModel, Set};
use uuid::Uuid;

use super::{
    entries::{Chunk, Entry},
    names::{self, Want},
};
use crate::{
    access::grants,
    app::Tx,
    directory::{ACTIVE, application, entity::application::Model},
    error::{Reason, Result},
    names::Name,
    proto::directory::{DirectoryApplication, Losses},
    store::{list::fold, outbox::Event, sql},
};

/// Deletes applications that are gone, with all that they have; gives how many.
pub async fn delete(tx: &mut Tx, gone: Vec<Model>) -> Result<usize> {
    let mut scopes = BTreeSet::new();
    for row in &gone {
        let held = grants::all_of(tx.db(), row.id).await?;
        scopes.extend(held.into_iter().map(|(scope, _)| scope));
    }
    // All at once: they come in no order.
    tx.lock(scopes).await?;
    // Nobody is there to be told.
    let mut losses = Losses::default();
    for row in &gone {
        application::delete(tx, row, &mut losses).await?;
    }
    Ok(gone.len())
}

/// Makes and changes the chunk's applications.
pub async fn upsert(tx: &mut Tx, tenant: Uuid, chunk: &mut Chunk) -> Result<()> {
    for field in ["reply_url", "application_id_uri"] {
        refuse_taken(tx, tenant, chunk, field).await?;
    }
    let entries = std::mem::take(&mut chunk.applications);
    for entry in &entries {
        match chunk.known.applications.get(&entry.external_id) {
            None => insert(tx, tenant, entry).await?,
            Some(old) => change(tx, old.clone(), &entry.wanted).await?,
        }
    }
    chunk.applications = entries;
    Ok(())
}

fn uri<'a>(of: &'a DirectoryApplication, field: &str) -> &'a str {
    if field == "reply_url" {
        &of.reply_url
    } else {
        &of.application_id_uri
    }
}

#[derive(FromQueryResult)]
struct Holder {
    id: Uuid,
    uri: String,
}

/// Entries whose URI another application has become faults.
async fn refuse_taken(tx: &Tx, tenant: Uuid, chunk: &mut Chunk, field: &str) -> Result<()> {
    let having: Vec<usize> = (0..chunk.applications.len())
        .filter(|i| !uri(&chunk.applications[*i].wanted, field).is_empty())
        .collect();
    if having.is_empty() {
        return Ok(());
    }
    let wants: Vec<Want<'_>> = having
        .iter()
        .map(|i| {
            let entry = &chunk.applications[*i];
            let old = chunk.known.applications.get(&entry.external_id);
            Want {
                holder: old.map(|a| a.id),
                name: uri(&entry.wanted, field),
            }
        })
        .collect();
    let sql = format!(
        "SELECT id, {field} AS uri FROM applications WHERE tenant_id = $1 AND {field} <> '' AND {field} IN ({})",
        sql::in_texts(tx.db(), 2)
    );
    let wanted = sql::texts(wants.iter().map(|w| w.name));
    let holders = sql::all::<Holder, _>(tx.db(), sql, [tenant.into(), wanted]).await?;
    let held: HashMap<String, Uuid> = holders.into_iter().map(|h| (h.uri, h.id)).collect();
    let refused: BTreeSet<usize> = names::refused(&wants, &held, false)
        .into_iter()
        .map(|i| having[i])
        .collect();
    let mut kept = Vec::with_capacity(chunk.applications.len());
    for (i, entry) in std::mem::take(&mut chunk.applications)
        .into_iter()
        .enumerate()
    {
        if refused.contains(&i) {
            let field = format!("application.{field}");
            let what = "is that of another application of this tenant";
            chunk.fault(&entry, Reason::UriTaken, &field, what);
        } else {
            kept.push(entry);
        }
    }
    chunk.applications = kept;
    Ok(())
}

async fn insert(tx: &mut Tx, tenant: Uuid, entry: &Entry<DirectoryApplication>) -> Result<()> {
    let DirectoryApplication {
        display_name,
        reply_url,
        application_id_uri,
    } = entry.wanted.clone();
    let now = tx.now();
    let row = Model {
        id: tx.id(),
        tenant_id: tenant,
        display_name_fold: fold(&display_name),
        display_name,
        reply_url,
        application_id_uri,
        state: ACTIVE,
        create_time: now,
        update_time: now,
        external_id: entry.external_id.clone(),
        version: 1,
    };
    tx.insert(row.clone()).await?;
    let null = || serde_json::Value::Null;
    tx.emit(
        Event::new(
            "entente.directory.v1.ApplicationCreated",
            Name::Application(tenant, row.id),
        )
        .change("display_name", null(), row.display_name)
        .change("reply_url", null(), row.reply_url)
        .change("application_id_uri", null(), row.application_id_uri)
        .touches(row.id),
    );
    Ok(())
}

async fn change(tx: &mut Tx, old: Model, wanted: &DirectoryApplication) -> Result<()> {
    let DirectoryApplication {
        display_name,
        reply_url,
        application_id_uri,
    } = wanted;
    let event = Event::new(
        "entente.directory.v1.ApplicationUpdated",
        Name::Application(old.tenant_id, old.id),
    )
    .change(
        "display_name",
        old.display_name.clone(),
        display_name.clone(),
    )
    .change("reply_url", old.reply_url.clone(), reply_url.clone())
    .change(
        "application_id_uri",
        old.application_id_uri.clone(),
        application_id_uri.clone(),
    );
    if event.changes.is_empty() {
        return Ok(());
    }
    let (id, version) = (old.id, old.version);
    let renamed = old.display_name != *display_name;
    let mut row = old.into_active_model();
    row.display_name = Set(display_name.clone());
    row.display_name_fold = Set(fold(display_name));
    row.reply_url = Set(reply_url.clone());
    row.application_id_uri = Set(application_id_uri.clone());
    row.update_time = Set(tx.now());
    row.version = Set(version + 1);
    row.update(tx.db()).await?;
    if renamed {
        grants::rename(tx, id, &fold(display_name)).await?;
    }
    tx.emit(event);
    Ok(())
}
