//! Users of the local directory: made, changed, disabled, deleted. What concerns many is done by one statement; whoever holds something is
//! looked at alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::{
    entries::{Chunk, Entry},
    names::{self, Want},
};
use crate::{
    access::grants,
    app::Tx,
    directory::{
        ACTIVE, DELETED, DISABLED, RESTORABLE_US, entity::user::Model, user, user_change,
        user_state, wire,
    },
    error::{Reason, Result},
    proto::directory::DirectoryUser,
    store::{
        list::fold,
        outbox::Event,
        scope_key::ScopeKey,
        sql::{self, Type},
    },
};

// ---- deletions

/// Deletes the chunk's users that are gone; gives how many. The last global admin is a fault.
pub async fn delete(tx: &mut Tx, chunk: &mut Chunk) -> Result<usize> {
    let gone: Vec<Model> = chunk
        .deletions
        .iter()
        .filter_map(|e| chunk.known.users.get(&e.external_id).cloned())
        .collect();
    if gone.is_empty() {
        return Ok(0);
    }
    let holders = holders_among(tx, &gone).await?;
    let (holding, plain): (Vec<_>, Vec<_>) =
        gone.into_iter().partition(|u| holders.contains_key(&u.id));
    let mut deleted = delete_plain(tx, &plain).await?;
    for user in holding {
        let rights = holders.get(&user.id).map_or(&[][..], Vec::as_slice);
        if let Some(reason) = grants::last_administrator(tx, user.id, rights).await? {
            chunk.fault_of(
                &user.external_id,
                reason,
                "",
                "is the last administrator who can sign in; appoint another one here first",
            );
            continue;
        }
        let_go(tx, &[user.id]).await?;
        user_change::delete(tx, user).await?;
        deleted += 1;
    }
    Ok(deleted)
}

#[derive(FromQueryResult)]
struct Id {
    id: Uuid,
}

/// Those of these users who hold anything anywhere or are guests elsewhere, with what they hold; all that is concerned is locked.
async fn holders_among(tx: &mut Tx, users: &[Model]) -> Result<BTreeMap<Uuid, Vec<grants::Right>>> {
    let ids: Vec<Uuid> = users.iter().map(|u| u.id).collect();
    let sql = format!(
        "SELECT u.id FROM users u WHERE u.id IN ({}) AND (EXISTS (SELECT 1 FROM grants g WHERE g.principal_id = u.id) \
         OR EXISTS (SELECT 1 FROM group_rights r WHERE r.user_id = u.id) OR EXISTS (SELECT 1 FROM users g WHERE g.home_id = u.id))",
        sql::in_ids(tx.db(), 1)
    );
    let found = sql::all::<Id, _>(tx.db(), sql, [sql::ids(&ids)]).await?;
    let mut holders = BTreeMap::new();
    for row in found {
        holders.insert(row.id, grants::rights_of(tx.db(), row.id).await?);
    }
    // All at once, so that the transaction begins again once at most.
    let of_holders: Vec<Uuid> = holders.keys().copied().collect();
    let sql = format!(
        "SELECT DISTINCT tenant_id AS id FROM users WHERE home_id IN ({}) AND state <> 3",
        sql::in_ids(tx.db(), 1)
    );
    let abroad = sql::all::<Id, _>(tx.db(), sql, [sql::ids(&of_holders)]).await?;
    let scopes: BTreeSet<_> = holders
        .values()
        .flatten()
        .map(|r| r.scope)
        .chain(abroad.iter().map(|tenant| ScopeKey::Tenant(tenant.id)))
        .collect();
    tx.lock(scopes).await?;
    Ok(holders)
}

/// Deletes users who hold nothing.
async fn delete_plain(tx: &mut Tx, users: &[Model]) -> Result<usize> {
    if users.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = users.iter().map(|u| u.id).collect();
    grants::forget_principals(tx, &ids).await?;
    end_sessions(tx, &ids).await?;
    let_go(tx, &ids).await?;
    for (table, column) in [("credentials", "user_id"), ("links", "subject_id")] {
        let sql = format!(
            "DELETE FROM {table} WHERE {column} IN ({})",
            sql::in_ids(tx.db(), 1)
        );
        sql::execute(tx.db(), sql, [sql::ids(&ids)]).await?;
    }
    let now = tx.now();
    let sql = format!(
        "UPDATE users SET state = $1, delete_time = $2, purge_time = $3, update_time = $2, version = version + 1 WHERE id IN ({})",
        sql::in_ids(tx.db(), 4)
    );
    let values: [Value; 4] = [
        DELETED.into(),
        now.into(),
        (now + RESTORABLE_US).into(),
        sql::ids(&ids),
    ];
    sql::execute(tx.db(), sql, values).await?;
    for user in users {
        tx.emit(user_change::deleted(user));
    }
    Ok(users.len())
}

/// The local directory has no say any more whether these are disabled.
async fn let_go(tx: &Tx, users: &[Uuid]) -> Result<()> {
    let sql = format!(
        "DELETE FROM directory_disabled_users WHERE user_id IN ({})",
        sql::in_ids(tx.db(), 1)
    );
    sql::execute(tx.db(), sql, [sql::ids(users)]).await?;
    Ok(())
}

async fn end_sessions(tx: &Tx, users: &[Uuid]) -> Result<()> {
    for column in ["user_id", "home_id"] {
        let sql = format!(
            "UPDATE sessions SET end_time = $1, version = version + 1 WHERE end_time IS NULL AND expire_time > $1 AND {column} IN ({})",
            sql::in_ids(tx.db(), 2)
        );
        sql::execute(tx.db(), sql, [tx.now().into(), sql::ids(users)]).await?;
    }
    Ok(())
}

// ---- making and changing

/// Makes and changes the chunk's users.
pub async fn upsert(tx: &mut Tx, tenant: Uuid, chunk: &mut Chunk) -> Result<()> {
    refuse_taken_names(tx, tenant, chunk).await?;
    if chunk.users.is_empty() {
        return Ok(());
    }
    let (mut made, mut changed) = (Vec::new(), Vec::new());
    for entry in &chunk.users {
        match chunk.known.users.get(&entry.external_id) {
            None => made.push(new_row(tx, tenant, entry)),
            Some(old) => {
                let new = with_names(old, &entry.wanted);
                if new != *old {
                    changed.push((old.clone(), new));
                }
            }
        }
    }
    rename(tx, &changed).await?;
    insert(tx, tenant, &made).await?;
    for row in &made {
        tx.emit(user_change::created(row, 0));
    }
    let disabled: Vec<Uuid> = made
        .iter()
        .filter(|u| u.state == DISABLED)
        .map(|u| u.id)
        .collect();
    note_disabled(tx, &disabled, false).await?;
    change_states(tx, chunk).await
}

fn new_row(tx: &Tx, tenant: Uuid, entry: &Entry<DirectoryUser>) -> Model {
    let now = tx.now();
    let row = Model {
        id: tx.id(),
        tenant_id: tenant,
        user_name: String::new(),
        user_name_fold: String::new(),
        given_name: String::new(),
        family_name: String::new(),
        display_name: String::new(),
        display_name_fold: String::new(),
        recovery_email: String::new(),
        kind: 1,
        state: if entry.wanted.disabled {
            DISABLED
        } else {
            ACTIVE
        },
        created_through_account: None,
        // Nobody has set a credential: whoever sets the first one puts rights to sleep then (ROL-13).
        rights_asleep_until: None,
        create_time: now,
        update_time: now,
        delete_time: None,
        purge_time: None,
        home_id: None,
        home_tenant_id: None,
        external_id: entry.external_id.clone(),
        version: 1,
    };
    with_names(&row, &entry.wanted)
}

fn with_names(old: &Model, wanted: &DirectoryUser) -> Model {
    let DirectoryUser {
        user_name,
        given_name,
        family_name,
        disabled: _,
    } = wanted;
    let display_name = wire::display_name(given_name, family_name);
    Model {
        user_name: user_name.clone(),
        user_name_fold: fold(user_name),
        given_name: given_name.clone(),
        family_name: family_name.clone(),
        display_name_fold: fold(&display_name),
        display_name,
        ..old.clone()
    }
}

#[derive(FromQueryResult)]
struct Holder {
    id: Uuid,
    user_name_fold: String,
}

/// Entries whose user name somebody else keeps become faults; names that are swapped within the chunk are parked first.
async fn refuse_taken_names(tx: &Tx, tenant: Uuid, chunk: &mut Chunk) -> Result<()> {
    let folded: Vec<String> = chunk
        .users
        .iter()
        .map(|e| fold(&e.wanted.user_name))
        .collect();
    let sql = format!(
        "SELECT id, user_name_fold FROM users WHERE tenant_id = $1 AND state <> 3 AND user_name_fold IN ({})",
        sql::in_texts(tx.db(), 2)
    );
    let wanted = sql::texts(folded.iter().map(String::as_str));
    let holders = sql::all::<Holder, _>(tx.db(), sql, [tenant.into(), wanted]).await?;
    let held: HashMap<String, Uuid> = holders
        .into_iter()
        .map(|h| (h.user_name_fold, h.id))
        .collect();
    let wants: Vec<Want<'_>> = chunk
        .users
        .iter()
        .zip(&folded)
        .map(|(entry, name)| Want {
            holder: chunk.known.users.get(&entry.external_id).map(|u| u.id),
            name,
        })
        .collect();
    let refused = names::refused(&wants, &held, true);
    // Names that one of the chunk hands on to another: free before anybody takes them.
    let parked: Vec<Uuid> = wants
        .iter()
        .enumerate()
        .filter(|(i, _)| !refused.contains(i))
        .filter_map(|(_, want)| held.get(want.name).filter(|h| want.holder != Some(**h)))
        .copied()
        .collect();
    park(tx, &parked).await?;
    let mut kept = Vec::with_capacity(chunk.users.len());
    for (i, entry) in std::mem::take(&mut chunk.users).into_iter().enumerate() {
        if refused.contains(&i) {
            chunk.fault(
                &entry,
                Reason::UserNameTaken,
                "user.user_name",
                "is taken in this tenant",
            );
        } else {
            kept.push(entry);
        }
    }
    chunk.users = kept;
    Ok(())
}

async fn park(tx: &Tx, users: &[Uuid]) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    // No user name holds a control character.
    let parked = users
        .iter()
        .map(|id| vec![sql::id(*id), format!("\u{1}{id}").into()])
        .collect();
    let columns = [("id", Type::Id), ("name", Type::Text)];
    let sql = format!(
        "UPDATE users SET user_name_fold = x.name FROM ({}) x WHERE users.id = x.id",
        sql::rows(tx.db(), 1, &columns)
    );
    sql::execute(tx.db(), sql, [sql::table(parked)]).await?;
    Ok(())
}

const NAMES: &[(&str, Type)] = &[
    ("id", Type::Id),
    ("user_name", Type::Text),
    ("user_name_fold", Type::Text),
    ("given_name", Type::Text),
    ("family_name", Type::Text),
    ("display_name", Type::Text),
    ("display_name_fold", Type::Text),
    ("external_id", Type::Text),
    ("state", Type::Number),
];

fn cells(row: &Model) -> Vec<serde_json::Value> {
    vec![
        sql::id(row.id),
        row.user_name.as_str().into(),
        row.user_name_fold.as_str().into(),
        row.given_name.as_str().into(),
        row.family_name.as_str().into(),
        row.display_name.as_str().into(),
        row.display_name_fold.as_str().into(),
        row.external_id.as_str().into(),
        row.state.into(),
    ]
}

async fn insert(tx: &Tx, tenant: Uuid, made: &[Model]) -> Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, \
         recovery_email, kind, state, create_time, update_time, external_id, version) \
         SELECT x.id, $1, x.user_name, x.user_name_fold, x.given_name, x.family_name, x.display_name, x.display_name_fold, \
         '', 1, x.state, $2, $2, x.external_id, 1 FROM ({}) x",
        sql::rows(tx.db(), 3, NAMES)
    );
    let rows = sql::table(made.iter().map(cells).collect());
    sql::execute(tx.db(), sql, [tenant.into(), tx.now().into(), rows]).await?;
    Ok(())
}

/// Stores changed names, also where lists show them.
async fn rename(tx: &mut Tx, changed: &[(Model, Model)]) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE users SET user_name = x.user_name, user_name_fold = x.user_name_fold, given_name = x.given_name, \
         family_name = x.family_name, display_name = x.display_name, display_name_fold = x.display_name_fold, \
         update_time = $1, version = users.version + 1 FROM ({}) x WHERE users.id = x.id",
        sql::rows(tx.db(), 2, NAMES)
    );
    let rows = sql::table(changed.iter().map(|(_, new)| cells(new)).collect());
    sql::execute(tx.db(), sql, [tx.now().into(), rows]).await?;
    let shown: Vec<(Uuid, String)> = changed
        .iter()
        .filter(|(old, new)| old.display_name_fold != new.display_name_fold)
        .map(|(_, new)| (new.id, new.display_name_fold.clone()))
        .collect();
    grants::rename_all(tx, &shown).await?;
    for (old, new) in changed {
        tx.emit(user_change::updated(old, new));
    }
    Ok(())
}

// ---- disabled there, disabled here

#[derive(FromQueryResult)]
struct Disabled {
    user_id: Uuid,
    disabled_here: bool,
}

/// Disables and enables those who were there before as the local directory says; who was disabled here stays so.
async fn change_states(tx: &mut Tx, chunk: &mut Chunk) -> Result<()> {
    let ids: Vec<Uuid> = chunk.known.users.values().map(|u| u.id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT user_id, disabled_here FROM directory_disabled_users WHERE user_id IN ({})",
        sql::in_ids(tx.db(), 1)
    );
    let rows = sql::all::<Disabled, _>(tx.db(), sql, [sql::ids(&ids)]).await?;
    let noted: BTreeMap<Uuid, bool> = rows
        .into_iter()
        .map(|d| (d.user_id, d.disabled_here))
        .collect();
    let (mut disable, mut also, mut enable, mut let_be) = (vec![], vec![], vec![], vec![]);
    for entry in &chunk.users {
        let Some(user) = chunk.known.users.get(&entry.external_id) else {
            continue;
        };
        match (entry.wanted.disabled, noted.get(&user.id)) {
            (true, None) if user.state == ACTIVE => disable.push(user.clone()),
            (true, None) => also.push(user.id),
            (false, Some(false)) if user.state == DISABLED => enable.push(user.clone()),
            (false, Some(_)) => let_be.push(user.id),
            _ => {}
        }
    }
    note_disabled(tx, &also, true).await?;
    let enabled: Vec<Uuid> = enable.iter().map(|u| u.id).collect();
    let_be.extend(&enabled);
    let_go(tx, &let_be).await?;
    set_states(tx, &enable, ACTIVE, "entente.directory.v1.UserEnabled").await?;
    let disabled = disable_all(tx, chunk, disable).await?;
    note_disabled(tx, &disabled, false).await
}

/// Disables users; gives whom. The last global admin is a fault.
async fn disable_all(tx: &mut Tx, chunk: &mut Chunk, users: Vec<Model>) -> Result<Vec<Uuid>> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let holders = holders_among(tx, &users).await?;
    let (holding, plain): (Vec<_>, Vec<_>) =
        users.into_iter().partition(|u| holders.contains_key(&u.id));
    let mut disabled: Vec<Uuid> = plain.iter().map(|u| u.id).collect();
    end_sessions(tx, &disabled).await?;
    set_states(tx, &plain, DISABLED, "entente.directory.v1.UserDisabled").await?;
    for old in holding {
        let rights = holders.get(&old.id).map_or(&[][..], Vec::as_slice);
        if let Some(reason) = grants::last_administrator(tx, old.id, rights).await? {
            chunk.fault_of(
                &old.external_id,
                reason,
                "user.disabled",
                "is the last administrator who can sign in; appoint another one here first",
            );
            continue;
        }
        user_state::disable(tx, &user::reload(tx, &old).await?).await?;
        disabled.push(old.id);
    }
    Ok(disabled)
}

async fn set_states(tx: &mut Tx, users: &[Model], state: i64, event: &'static str) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = users.iter().map(|u| u.id).collect();
    let sql = format!(
        "UPDATE users SET state = $1, update_time = $2, version = version + 1 WHERE id IN ({})",
        sql::in_ids(tx.db(), 3)
    );
    let values: [Value; 3] = [state.into(), tx.now().into(), sql::ids(&ids)];
    sql::execute(tx.db(), sql, values).await?;
    for user in users {
        tx.emit(
            Event::new(event, user_change::name(user))
                .change("state", user.state, state)
                .touches(user.id),
        );
    }
    Ok(())
}

/// Notes that the local directory has disabled these, and whether an admin had before.
async fn note_disabled(tx: &Tx, users: &[Uuid], here: bool) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO directory_disabled_users (user_id, disabled_here) SELECT id, $1 FROM users WHERE id IN ({})",
        sql::in_ids(tx.db(), 2)
    );
    sql::execute(tx.db(), sql, [here.into(), sql::ids(users)]).await?;
    Ok(())
}

/// Whether the local directory has disabled a user, who so can't be enabled here.
pub async fn is_disabled_there(tx: &Tx, user: Uuid) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM directory_disabled_users WHERE user_id = $1";
    Ok(sql::row(tx.db(), sql, [user.into()]).await?.is_some())
}
