//! Tenants that a local directory fills (TEN-5, GRP-7, ROL-9, ROL-12).

use std::collections::BTreeSet;

use entente::proto::directory::{
    DirectoryApplication, DirectoryDeletion, DirectoryEntry, DirectoryGroup, DirectoryUser,
    SetDirectorySynchronizationRequest, SyncDirectoryRequest, directory_entry::Change,
};
use tonic::Status;

use super::{
    Rng, Verdict,
    doors::{Made, nothing},
    draw::Draw,
    state::{By, Kind, Life, Model, Principal},
    unless,
    world::World,
};
use crate::{
    harness::{Caller, request_id},
    people::number,
};

/// External IDs of each kind that a local directory has here: users are 0.., groups 10.., applications 20...
const USERS: usize = 4;
const GROUPS: usize = 10;
const APPLICATIONS: usize = 20;

#[derive(Clone, Debug)]
pub enum Step {
    /// Tenant, and the application that fills it; none ends that.
    Set(usize, Option<usize>),
    Chunk(usize, Vec<Entry>),
}

#[derive(Clone, Debug)]
pub enum Entry {
    /// Whether the local directory has disabled it.
    User(usize, bool),
    /// Who is in it, and whether nobody else is.
    Group(usize, BTreeSet<usize>, bool),
    Application(usize),
    Gone(usize),
}

impl Entry {
    fn external(&self) -> usize {
        match self {
            Self::User(x, _) | Self::Group(x, ..) | Self::Application(x) | Self::Gone(x) => *x,
        }
    }
}

/// What is there of an external ID.
pub fn known(model: &Model, tenant: usize, external: usize) -> Option<usize> {
    model
        .principals
        .iter()
        .position(|p| p.tenant == tenant && p.external == Some(external) && p.life != Life::Deleted)
}

fn kind_of(external: usize) -> Kind {
    match external {
        ..GROUPS => Kind::Member,
        GROUPS..APPLICATIONS => Kind::Group,
        _ => Kind::Application,
    }
}

pub fn judge(by: By<'_>, step: &Step) -> Verdict {
    let mut next = by.begin()?;
    let now = by.model;
    match step {
        Step::Set(tenant, agent) => {
            by.on_tenant(*tenant, "sync.manage")?;
            if let Some(agent) = agent {
                let p = &now.principals[*agent];
                unless(p.life == Life::Active, "RESOURCE_NOT_FOUND")?;
                unless(p.external.is_none(), "INVALID_FIELDS")?;
            }
            if agent.is_none() && now.tenants[*tenant].synchronized {
                // What came from there stays, as if made here.
                for p in next.principals.iter_mut().filter(|p| p.tenant == *tenant) {
                    p.external = None;
                    p.off = None;
                }
            }
            next.tenants[*tenant].synchronized = agent.is_some();
            next.tenants[*tenant].agent = *agent;
        }
        Step::Chunk(tenant, entries) => {
            if by.on_tenant(*tenant, "directory.sync").is_err() {
                by.on_tenant(*tenant, "sync.manage")?;
            }
            unless(now.tenants[*tenant].synchronized, "WRONG_STATE")?;
            carry_out(&mut next, *tenant, entries);
        }
    }
    Ok(next)
}

/// Deletions first, then users, applications and groups. What is wrong with an entry keeps no other back, and no account is asked.
fn carry_out(next: &mut Model, tenant: usize, entries: &[Entry]) {
    for entry in entries {
        if let (Entry::Gone(x), Some(p)) = (entry, known(next, tenant, entry.external())) {
            let before = next.clone();
            next.forget(p);
            if kind_of(*x) == Kind::Member && next.keeps_admin(&before, tenant).is_err() {
                *next = before;
            }
        }
    }
    for entry in entries {
        if let Entry::User(x, off) = entry {
            user(next, tenant, *x, *off);
        }
    }
    for entry in entries {
        if let Entry::Application(x) = entry
            && known(next, tenant, *x).is_none()
        {
            make(next, tenant, *x);
        }
    }
    for entry in entries {
        if let Entry::Group(x, inside, only) = entry {
            let group = known(next, tenant, *x).unwrap_or_else(|| make(next, tenant, *x));
            let users: BTreeSet<usize> = inside
                .iter()
                .filter_map(|x| known(next, tenant, *x))
                .collect();
            if *only {
                next.principals[group].inside = users;
            } else {
                next.principals[group].inside.extend(users);
            }
        }
    }
}

fn make(next: &mut Model, tenant: usize, external: usize) -> usize {
    next.principals.push(Principal {
        external: Some(external),
        ..Principal::new(kind_of(external), tenant)
    });
    next.principals.len() - 1
}

/// Who was disabled here stays so, whatever the local directory says; whom it has disabled stays so until it says otherwise.
fn user(next: &mut Model, tenant: usize, external: usize, off: bool) {
    let there = known(next, tenant, external);
    let who = there.unwrap_or_else(|| make(next, tenant, external));
    let before = next.clone();
    let p = &mut next.principals[who];
    match (off, p.off, p.life) {
        (true, None, Life::Active) => {
            p.life = Life::Disabled;
            p.off = Some(false);
            p.ended += 1;
        }
        (true, None, _) => p.off = Some(true),
        (false, Some(here), life) => {
            if !here && life == Life::Disabled {
                p.life = Life::Active;
            }
            p.off = None;
        }
        _ => {}
    }
    if next.keeps_admin(&before, tenant).is_err() {
        *next = before;
    }
}

pub fn draw(draw: &Draw<'_>, rng: &mut Rng) -> Step {
    let tenant = draw.tenant(rng);
    let agents = draw.of_kind(Kind::Application, tenant);
    let synchronized = draw.model.tenants[tenant].synchronized;
    if !agents.is_empty() && rng.chance(if synchronized { 20 } else { 70 }) {
        let agent = rng.pick(&agents);
        return Step::Set(tenant, Some(agent).filter(|_| !rng.chance(50)));
    }
    let count = 1 + rng.below(4);
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let external = match rng.below(10) {
            0..=4 => rng.below(USERS),
            5..=7 => GROUPS + rng.below(2),
            _ => APPLICATIONS,
        };
        if entries.iter().any(|e| e.external() == external) {
            continue;
        }
        entries.push(match kind_of(external) {
            _ if rng.chance(18) => Entry::Gone(external),
            Kind::Group => {
                let users: Vec<usize> = (0..USERS).collect();
                let inside = rng.some(&users, 3).into_iter().collect();
                Entry::Group(external, inside, rng.chance(50))
            }
            Kind::Application => Entry::Application(external),
            _ => Entry::User(external, rng.chance(30)),
        });
    }
    Step::Chunk(tenant, entries)
}

fn to_wire(world: &mut World<'_>, tenant: usize, entry: &Entry) -> DirectoryEntry {
    let text = |x: &usize| format!("e/{x}");
    let change = match entry {
        Entry::User(x, disabled) => {
            let there = known(&world.model, tenant, *x);
            let user_name = match there {
                Some(p) => world.doors[p].user_name.clone(),
                None => {
                    world.made += 1;
                    format!("ext{}", world.made)
                }
            };
            Change::User(DirectoryUser {
                user_name,
                given_name: "Given".to_owned(),
                family_name: "Family".to_owned(),
                disabled: *disabled,
            })
        }
        Entry::Group(_, inside, only) => Change::Group(DirectoryGroup {
            display_name: "A group".to_owned(),
            members: inside.iter().map(text).collect(),
            removed_members: Vec::new(),
            replace_members: *only,
        }),
        Entry::Application(_) => Change::Application(DirectoryApplication {
            display_name: "A program".to_owned(),
            ..DirectoryApplication::default()
        }),
        Entry::Gone(_) => Change::Deletion(DirectoryDeletion {}),
    };
    DirectoryEntry {
        external_id: text(&entry.external()),
        change: Some(change),
    }
}

pub async fn call(world: &mut World<'_>, caller: &Caller, step: &Step) -> Result<Made, Status> {
    match step {
        Step::Set(tenant, agent) => {
            let request = SetDirectorySynchronizationRequest {
                name: world.tenant_names[*tenant].clone(),
                enabled: agent.is_some(),
                agent: agent.map_or_else(String::new, |p| world.name(p)),
                ..SetDirectorySynchronizationRequest::default()
            };
            let mut tenants = caller.tenants();
            let done = tenants.set_directory_synchronization(request).await;
            done.map(nothing)
        }
        Step::Chunk(tenant, entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|entry| to_wire(world, *tenant, entry))
                .collect();
            let message = SyncDirectoryRequest {
                parent: world.tenant_names[*tenant].clone(),
                request_id: request_id(),
                sequence: 1,
                entries,
                validate_only: false,
            };
            let stream = tokio_stream::iter([message]);
            caller.tenants().sync_directory(stream).await?;
            Ok(Made::default())
        }
    }
}

/// How many principals a local directory has brought to a tenant that are there.
pub async fn brought(world: &World<'_>, tenant: usize) -> i64 {
    let id = crate::people::id(&world.tenant_names[tenant]);
    let sql = "SELECT (SELECT COUNT(*) FROM users WHERE tenant_id = $1 AND external_id <> '' AND state <> 3) \
               + (SELECT COUNT(*) FROM user_groups WHERE tenant_id = $1 AND external_id <> '') \
               + (SELECT COUNT(*) FROM applications WHERE tenant_id = $1 AND external_id <> '') AS n";
    number(world.site, sql, [id.into()]).await
}
