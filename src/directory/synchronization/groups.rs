//! Groups of the local directory and their members: who joins or leaves has the groups' rights from the next call on, or no more.

use std::collections::{BTreeSet, HashMap};

use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::entries::{Chunk, Entry};
use crate::{
    access::grants::{self, Filled, Filling},
    app::Tx,
    directory::{entity::group::Model, user_change},
    error::{Reason, Result},
    names::Name,
    proto::directory::DirectoryGroup,
    store::{
        list::fold,
        outbox::Event,
        scope_key::ScopeKey,
        sql::{self, Type},
    },
};

/// Members that a group may have for `replace_members`: what bounds the transaction.
const MOST_REPLACED: i64 = 20_000;
/// Members that one event names.
const MEMBERS_AN_EVENT: usize = 500;
/// Unknown members that a fault names.
const MOST_UNKNOWN_NAMED: usize = 5;

/// Deletes groups that are gone, with what they gave; gives how many. Accounts that lose their last manager so are told (ROL-9).
pub async fn delete(tx: &mut Tx, tenant: Uuid, gone: Vec<Model>) -> Result<usize> {
    if gone.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = gone.iter().map(|g| g.id).collect();
    let held = grants::held_by(tx, &ids).await?;
    let rights: Vec<grants::Right> = held
        .iter()
        .map(|(scope, grant)| grants::Right {
            scope: *scope,
            set: grants::Set::of_grant(grant),
            holder: grant.principal_id,
            by_group: true,
        })
        .collect();
    tx.lock(rights.iter().map(|right| right.scope)).await?;
    let shut_out = grants::ShutOut::before(tx, grants::at_stake(&rights)).await?;
    for right in &rights {
        grants::remove_anyway(tx, right.scope, right.holder).await?;
        if let ScopeKey::Account(account) = right.scope {
            tx.emit(user_change::member_removed(
                account,
                right.holder,
                right.set,
            ));
        }
    }
    grants::forget_principals(tx, &ids).await?;
    let sql = format!(
        "DELETE FROM user_groups WHERE id IN ({})",
        sql::in_ids(tx.db(), 1)
    );
    sql::execute(tx.db(), sql, [sql::ids(&ids)]).await?;
    shut_out.done(tx).await?;
    for group in &gone {
        let name = Name::Group(tenant, group.id);
        let old = group.display_name.as_str();
        tx.emit(
            Event::new("entente.directory.v1.GroupDeleted", name)
                .change("display_name", old, serde_json::Value::Null)
                .touches(group.id),
        );
    }
    Ok(gone.len())
}

/// Makes, renames and fills the chunk's groups.
pub async fn upsert(tx: &mut Tx, tenant: Uuid, chunk: &mut Chunk) -> Result<()> {
    if chunk.groups.is_empty() {
        return Ok(());
    }
    refuse_too_large(tx, chunk).await?;
    let entries = std::mem::take(&mut chunk.groups);
    let ids = store(tx, tenant, chunk, &entries).await?;
    let members = members_of(tx, tenant, &entries).await?;
    let mut fillings = Vec::new();
    for (entry, id) in entries.iter().zip(ids) {
        let wanted = &entry.wanted;
        let known = |of: &[String]| -> Vec<Uuid> {
            of.iter().filter_map(|m| members.get(m).copied()).collect()
        };
        let (join, leave) = (known(&wanted.members), known(&wanted.removed_members));
        if join.len() < wanted.members.len() {
            tell_unknown(chunk, entry, &members);
        }
        if !join.is_empty() || !leave.is_empty() || wanted.replace_members {
            fillings.push(Filling {
                group: id,
                join,
                leave,
                only: wanted.replace_members,
            });
        }
    }
    chunk.groups = entries;
    let filled = grants::fill_groups(tx, tenant, &fillings).await?;
    for (group, changed) in filled {
        tell(tx, tenant, group, &changed);
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Size {
    group_id: Uuid,
    size: i64,
}

/// Who is in both lists, or is to replace more members than one transaction should, is a fault.
async fn refuse_too_large(tx: &Tx, chunk: &mut Chunk) -> Result<()> {
    let replaced: Vec<Uuid> = chunk
        .groups
        .iter()
        .filter(|e| e.wanted.replace_members)
        .filter_map(|e| chunk.known.groups.get(&e.external_id).map(|g| g.id))
        .collect();
    let mut too_large = BTreeSet::new();
    if !replaced.is_empty() {
        let sql = format!(
            "SELECT group_id, COUNT(*) AS size FROM group_members WHERE group_id IN ({}) GROUP BY group_id",
            sql::in_ids(tx.db(), 1)
        );
        let sizes = sql::all::<Size, _>(tx.db(), sql, [sql::ids(&replaced)]).await?;
        let large = sizes.into_iter().filter(|s| s.size > MOST_REPLACED);
        too_large.extend(large.map(|s| s.group_id));
    }
    let mut kept = Vec::with_capacity(chunk.groups.len());
    for entry in std::mem::take(&mut chunk.groups) {
        let wanted = &entry.wanted;
        let old = chunk.known.groups.get(&entry.external_id).map(|g| g.id);
        let named: BTreeSet<&str> = wanted.members.iter().map(String::as_str).collect();
        let (field, what) = if old.is_some_and(|id| too_large.contains(&id)) {
            (
                "group.replace_members",
                format!("the group has more than {MOST_REPLACED} members; send changes"),
            )
        } else if wanted
            .removed_members
            .iter()
            .any(|m| named.contains(m.as_str()))
        {
            (
                "group.removed_members",
                "name somebody who stands in `members` too".to_owned(),
            )
        } else {
            kept.push(entry);
            continue;
        };
        chunk.fault(&entry, Reason::InvalidFields, field, what);
    }
    chunk.groups = kept;
    Ok(())
}

/// Makes and renames groups; gives the ID of each entry's.
async fn store(
    tx: &mut Tx,
    tenant: Uuid,
    chunk: &Chunk,
    entries: &[Entry<DirectoryGroup>],
) -> Result<Vec<Uuid>> {
    let (mut made, mut renamed, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let name = entry.wanted.display_name.as_str();
        let cells = |id: Uuid| {
            vec![
                sql::id(id),
                name.into(),
                fold(name).into(),
                entry.external_id.as_str().into(),
            ]
        };
        match chunk.known.groups.get(&entry.external_id) {
            None => {
                let id = tx.id();
                ids.push(id);
                made.push(cells(id));
                tx.emit(told(
                    "entente.directory.v1.GroupCreated",
                    tenant,
                    id,
                    None,
                    name,
                ));
            }
            Some(old) => {
                ids.push(old.id);
                if old.display_name != name {
                    renamed.push((old.id, fold(name), cells(old.id)));
                    let before = Some(old.display_name.as_str());
                    tx.emit(told(
                        "entente.directory.v1.GroupUpdated",
                        tenant,
                        old.id,
                        before,
                        name,
                    ));
                }
            }
        }
    }
    let columns = [
        ("id", Type::Id),
        ("display_name", Type::Text),
        ("display_name_fold", Type::Text),
        ("external_id", Type::Text),
    ];
    let now = tx.now();
    if !made.is_empty() {
        let sql = format!(
            "INSERT INTO user_groups (id, tenant_id, display_name, display_name_fold, external_id, create_time, update_time, version) \
             SELECT x.id, $1, x.display_name, x.display_name_fold, x.external_id, $2, $2, 1 FROM ({}) x",
            sql::rows(tx.db(), 3, &columns)
        );
        let values: [Value; 3] = [tenant.into(), now.into(), sql::table(made)];
        sql::execute(tx.db(), sql, values).await?;
    }
    if !renamed.is_empty() {
        let sql = format!(
            "UPDATE user_groups SET display_name = x.display_name, display_name_fold = x.display_name_fold, update_time = $1, \
             version = user_groups.version + 1 FROM ({}) x WHERE user_groups.id = x.id",
            sql::rows(tx.db(), 2, &columns)
        );
        let cells = renamed.iter().map(|(_, _, cells)| cells.clone()).collect();
        sql::execute(tx.db(), sql, [now.into(), sql::table(cells)]).await?;
        let shown: Vec<(Uuid, String)> = renamed
            .into_iter()
            .map(|(id, fold, _)| (id, fold))
            .collect();
        grants::rename_all(tx, &shown).await?;
    }
    Ok(ids)
}

fn told(kind: &'static str, tenant: Uuid, id: Uuid, old: Option<&str>, new: &str) -> Event {
    let old = old.map_or(serde_json::Value::Null, Into::into);
    Event::new(kind, Name::Group(tenant, id)).change("display_name", old, new)
}

#[derive(FromQueryResult)]
struct Member {
    id: Uuid,
    external_id: String,
}

/// The users whom entries name as members, by external ID.
async fn members_of(
    tx: &Tx,
    tenant: Uuid,
    entries: &[Entry<DirectoryGroup>],
) -> Result<HashMap<String, Uuid>> {
    let named: BTreeSet<&str> = entries
        .iter()
        .flat_map(|e| e.wanted.members.iter().chain(&e.wanted.removed_members))
        .map(String::as_str)
        .collect();
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "SELECT id, external_id FROM users WHERE tenant_id = $1 AND external_id <> '' AND state <> 3 AND external_id IN ({})",
        sql::in_texts(tx.db(), 2)
    );
    let values: [Value; 2] = [tenant.into(), sql::texts(named)];
    let rows = sql::all::<Member, _>(tx.db(), sql, values).await?;
    Ok(rows.into_iter().map(|m| (m.external_id, m.id)).collect())
}

fn tell_unknown(chunk: &mut Chunk, entry: &Entry<DirectoryGroup>, known: &HashMap<String, Uuid>) {
    let unknown: Vec<&str> = entry
        .wanted
        .members
        .iter()
        .map(String::as_str)
        .filter(|m| !known.contains_key(*m))
        .collect();
    let some = unknown[..unknown.len().min(MOST_UNKNOWN_NAMED)].join(", ");
    let what = format!(
        "name {} who are no users of the local directory here, such as {some}; the others are in",
        unknown.len()
    );
    chunk.fault(entry, Reason::ResourceNotFound, "group.members", what);
}

/// Tells who joined a group and who left it, in the tenant and on the accounts where that gives or takes something.
fn tell(tx: &mut Tx, tenant: Uuid, group: Uuid, changed: &Filled) {
    for (kind, users) in [
        ("entente.directory.v1.GroupMembersAdded", &changed.joined),
        ("entente.directory.v1.GroupMembersRemoved", &changed.left),
    ] {
        for some in users.chunks(MEMBERS_AN_EVENT) {
            let names: Vec<String> = some
                .iter()
                .map(|user| Name::User(tenant, *user).to_string())
                .collect();
            let mut event = Event::new(kind, Name::Group(tenant, group)).with("users", names);
            for scope in &changed.scopes {
                event = event.also_in(*scope);
            }
            event.touches.extend(some);
            tx.emit(event);
        }
    }
}
