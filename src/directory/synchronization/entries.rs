//! A chunk of entries: held against their limits one by one, and what is there already of each.

use std::collections::{BTreeMap, HashSet};

use sea_orm::{ConnectionTrait, Value};
use uuid::Uuid;

use crate::{
    check::{At, Check as _, Mode, Violations},
    directory::entity::{application, group, user},
    error::{Error, Reason, Result},
    proto::directory::{
        DirectoryApplication, DirectoryDeletion, DirectoryEntry, DirectoryGroup, DirectoryUser,
        directory_entry::Change,
    },
    store::sql,
};

/// Entries of one chunk.
const MOST_ENTRIES: usize = 500;
/// Members of groups that one chunk names in all: what bounds its transaction.
const MOST_MEMBERS: usize = 20_000;

/// An entry that is within its limits.
pub struct Entry<T> {
    /// Its place in the chunk.
    pub index: usize,
    /// Its ID in the local directory.
    pub external_id: String,
    /// What it is to be.
    pub wanted: T,
}

/// An entry that couldn't be taken over, or not all of it.
pub struct Fault {
    pub index: usize,
    pub external_id: String,
    pub reason: Reason,
    pub field: String,
    pub description: String,
}

/// What is there of a chunk's external IDs.
#[derive(Default)]
pub struct Known {
    pub users: BTreeMap<String, user::Model>,
    pub groups: BTreeMap<String, group::Model>,
    pub applications: BTreeMap<String, application::Model>,
}

/// The entries of one message, by kind.
#[derive(Default)]
pub struct Chunk {
    pub users: Vec<Entry<DirectoryUser>>,
    pub groups: Vec<Entry<DirectoryGroup>>,
    pub applications: Vec<Entry<DirectoryApplication>>,
    pub deletions: Vec<Entry<()>>,
    pub known: Known,
    /// All external IDs of the message.
    pub external_ids: Vec<String>,
    pub faults: Vec<Fault>,
}

/// What is wrong with a message as such: external IDs that are bad or stand twice, since nothing could be told of such entries; too many
/// members.
pub fn check(entries: &[DirectoryEntry], v: &mut Violations) {
    let mut seen = HashSet::with_capacity(entries.len());
    let (root, mut members) = (At::root(), 0);
    for (index, entry) in entries.iter().enumerate().take(MOST_ENTRIES) {
        // The rest of an entry is held against its limits by itself.
        let mut bare = DirectoryEntry {
            external_id: entry.external_id.clone(),
            change: Some(Change::Deletion(DirectoryDeletion {})),
        };
        bare.check(&root.item("entries", index), Mode::Create, v);
        if !seen.insert(bare.external_id) {
            let place = format!("entries[{index}].external_id");
            v.also(place, "stands in the message before");
        }
        if let Some(Change::Group(group)) = &entry.change {
            members += group.members.len() + group.removed_members.len();
        }
    }
    if members > MOST_MEMBERS {
        let what = format!("name {members} members; at most {MOST_MEMBERS} are allowed");
        v.also("entries", what);
    }
}

fn entry<T>(index: usize, external_id: String, wanted: T) -> Entry<T> {
    Entry {
        index,
        external_id,
        wanted,
    }
}

impl Chunk {
    /// Sorts entries by kind; those past their limits become faults.
    pub fn of(entries: Vec<DirectoryEntry>) -> Self {
        let mut chunk = Self::default();
        for (index, mut entry) in entries.into_iter().enumerate() {
            let mut found = Violations::default();
            entry.check(&At::root(), Mode::Create, &mut found);
            let faults = found.none().err();
            let faults = faults.as_ref().map_or(&[][..], Error::fields);
            let DirectoryEntry {
                external_id,
                change,
            } = entry;
            chunk.external_ids.push(external_id.clone());
            match faults.first() {
                None => chunk.add(index, external_id, change),
                Some((field, what)) => {
                    let more = match faults.len() {
                        1 => String::new(),
                        n => format!("; and {} more", n - 1),
                    };
                    chunk.faults.push(Fault {
                        index,
                        external_id,
                        reason: Reason::InvalidFields,
                        field: field.clone(),
                        description: format!("{what}{more}"),
                    });
                }
            }
        }
        chunk
    }

    fn add(&mut self, index: usize, external_id: String, change: Option<Change>) {
        match change {
            Some(Change::User(user)) => self.users.push(entry(index, external_id, user)),
            Some(Change::Group(group)) => self.groups.push(entry(index, external_id, group)),
            Some(Change::Application(application)) => {
                self.applications
                    .push(entry(index, external_id, application));
            }
            Some(Change::Deletion(_)) => self.deletions.push(entry(index, external_id, ())),
            // The check has found it missing.
            None => {}
        }
    }

    /// Reads what is there of the chunk's external IDs: a query a table. An ID that is another kind's is a fault.
    pub async fn look_up<C: ConnectionTrait>(&mut self, db: &C, tenant: Uuid) -> Result<()> {
        let values = || -> [Value; 2] {
            [
                tenant.into(),
                sql::texts(self.external_ids.iter().map(String::as_str)),
            ]
        };
        let among = format!(
            "WHERE tenant_id = $1 AND external_id <> '' AND external_id IN ({})",
            sql::in_texts(db, 2)
        );
        let users = sql::all::<user::Model, _>(
            db,
            format!("SELECT * FROM users {among} AND state <> 3"),
            values(),
        )
        .await?;
        let groups =
            sql::all::<group::Model, _>(db, format!("SELECT * FROM user_groups {among}"), values())
                .await?;
        let applications = sql::all::<application::Model, _>(
            db,
            format!("SELECT * FROM applications {among}"),
            values(),
        )
        .await?;
        let known = &mut self.known;
        known.users = by_id(users, |u| &u.external_id);
        known.groups = by_id(groups, |g| &g.external_id);
        known.applications = by_id(applications, |a| &a.external_id);
        let mut faults = Vec::new();
        let (u, g, a) = (&known.users, &known.groups, &known.applications);
        refuse_others(
            &mut self.users,
            &mut faults,
            |id| (g.contains_key(id), a.contains_key(id)),
            ["a group", "an application"],
        );
        refuse_others(
            &mut self.groups,
            &mut faults,
            |id| (u.contains_key(id), a.contains_key(id)),
            ["a user", "an application"],
        );
        refuse_others(
            &mut self.applications,
            &mut faults,
            |id| (u.contains_key(id), g.contains_key(id)),
            ["a user", "a group"],
        );
        self.faults.extend(faults);
        Ok(())
    }

    /// Groups that are gone.
    pub fn groups_to_delete(&self) -> Vec<group::Model> {
        let gone = self.deletions.iter();
        gone.filter_map(|e| self.known.groups.get(&e.external_id).cloned())
            .collect()
    }

    /// Applications that are gone.
    pub fn applications_to_delete(&self) -> Vec<application::Model> {
        let gone = self.deletions.iter();
        gone.filter_map(|e| self.known.applications.get(&e.external_id).cloned())
            .collect()
    }

    /// Records what is wrong with the entry of an external ID.
    pub fn fault_of(&mut self, external_id: &str, reason: Reason, field: &str, description: &str) {
        let users = self.users.iter().map(|e| (e.index, &e.external_id));
        let deletions = self.deletions.iter().map(|e| (e.index, &e.external_id));
        let found = users.chain(deletions).find(|(_, id)| *id == external_id);
        if let Some((index, _)) = found {
            self.faults.push(Fault {
                index,
                external_id: external_id.to_owned(),
                reason,
                field: field.to_owned(),
                description: description.to_owned(),
            });
        }
    }

    /// Records what is wrong with an entry.
    pub fn fault<T>(
        &mut self,
        entry: &Entry<T>,
        reason: Reason,
        field: &str,
        description: impl Into<String>,
    ) {
        self.faults.push(Fault {
            index: entry.index,
            external_id: entry.external_id.clone(),
            reason,
            field: field.to_owned(),
            description: description.into(),
        });
    }
}

fn by_id<T>(rows: Vec<T>, id: impl Fn(&T) -> &String) -> BTreeMap<String, T> {
    rows.into_iter()
        .map(|row| (id(&row).clone(), row))
        .collect()
}

fn refuse_others<T>(
    entries: &mut Vec<Entry<T>>,
    faults: &mut Vec<Fault>,
    is: impl Fn(&str) -> (bool, bool),
    names: [&str; 2],
) {
    entries.retain(|entry| {
        let other = match is(&entry.external_id) {
            (true, _) => names[0],
            (_, true) => names[1],
            _ => return true,
        };
        faults.push(Fault {
            index: entry.index,
            external_id: entry.external_id.clone(),
            reason: Reason::ResourceExists,
            field: "external_id".to_owned(),
            description: format!("is that of {other}; delete that first"),
        });
        false
    });
}
