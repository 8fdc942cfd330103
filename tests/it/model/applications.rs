//! Programs and their keys (APP-1 to APP-5, ROL-7, ROL-12).

use entente::proto::directory::{
    Application, CreateApplicationRequest, CreateKeyRequest, DeleteApplicationsRequest,
    DeleteKeyRequest,
};
use tonic::Status;

use super::{
    Reasons, Rng, Verdict, check,
    doors::{Door, Made, nothing},
    draw::{Draw, some_rights},
    state::{By, Held, Kind, Life, Model, Principal},
    unless,
    world::{World, memberships_on_wire},
};
use crate::harness::Caller;

/// Keys that an application gets here at most.
const MOST_KEYS: usize = 3;

#[derive(Clone, Debug)]
pub enum Step {
    Create(usize, Vec<(usize, Held)>),
    Key(usize),
    /// The newest key, which it signs in with.
    DeleteKey(usize),
    Delete(usize, Vec<usize>),
}

fn there(model: &Model, application: usize) -> Result<(), Reasons> {
    let life = model.principals[application].life;
    unless(life == Life::Active, "RESOURCE_NOT_FOUND")
}

/// Whoever can become the application, or ends it, holds all that it holds (ROL-7); for `directory.sync` its exception.
fn hold_all(by: &By<'_>, application: usize) -> Result<(), Reasons> {
    let mut faults = Reasons::new();
    for ((account, who), held) in &by.model.members {
        if *who == application {
            let what = by.table.held(held);
            faults.extend(by.lacking(*account, &what));
        }
    }
    check(faults)?;
    let tenant = by.model.principals[application].tenant;
    if by.model.tenants[tenant].agent == Some(application) {
        by.on_tenant(tenant, "sync.manage")?;
    }
    Ok(())
}

pub fn judge(by: By<'_>, step: &Step) -> Verdict {
    let mut next = by.begin()?;
    let now = by.model;
    match step {
        Step::Create(tenant, memberships) => {
            by.on_tenant(*tenant, "applications.manage")?;
            for (account, _) in memberships {
                by.on_account(*account, "users.assign")?;
            }
            unless(!now.tenants[*tenant].synchronized, "DIRECTORY_SYNCHRONIZED")?;
            let application = next.principals.len();
            next.principals
                .push(Principal::new(Kind::Application, *tenant));
            by.join(&mut next, "CreateApplication", application, memberships)?;
        }
        Step::Key(application) => {
            by.over(*application, "applications.manage")?;
            there(now, *application)?;
            hold_all(&by, *application)?;
            next.principals[*application].keys += 1;
        }
        Step::DeleteKey(application) => {
            by.over(*application, "applications.manage")?;
            there(now, *application)?;
            let p = &mut next.principals[*application];
            unless(p.keys > 0, "RESOURCE_NOT_FOUND")?;
            p.keys -= 1;
            p.ended += 1;
        }
        Step::Delete(tenant, applications) => {
            by.on_tenant(*tenant, "applications.manage")?;
            super::groups::own(now, applications)?;
            for application in applications {
                hold_all(&by, *application)?;
                next.forget(*application);
            }
        }
    }
    Ok(next)
}

pub fn draw(draw: &Draw<'_>, rng: &mut Rng) -> Step {
    let tenant = draw.tenant(rng);
    let these = draw.of_kind(Kind::Application, tenant);
    if these.is_empty() || (rng.chance(15) && draw.has_room()) {
        let memberships = if rng.chance(60) {
            vec![(rng.pick(draw.accounts), some_rights(rng))]
        } else {
            Vec::new()
        };
        return Step::Create(tenant, memberships);
    }
    let application = rng.pick(&these);
    let keys = draw.model.principals[application].keys;
    match rng.below(10) {
        0..=5 if keys < MOST_KEYS => Step::Key(application),
        6..=8 if keys > 0 => Step::DeleteKey(application),
        9 => Step::Delete(tenant, rng.some(&these, 2)),
        _ if keys < MOST_KEYS => Step::Key(application),
        _ => Step::DeleteKey(application),
    }
}

pub async fn call(world: &mut World<'_>, caller: &Caller, step: &Step) -> Result<Made, Status> {
    let mut applications = caller.applications();
    match step {
        Step::Create(tenant, memberships) => {
            let request = CreateApplicationRequest {
                parent: world.tenant_names[*tenant].clone(),
                application: Some(Application {
                    display_name: "A program".to_owned(),
                    ..Application::default()
                }),
                memberships: memberships_on_wire(world, memberships),
                ..CreateApplicationRequest::default()
            };
            let made = applications.create_application(request).await?.into_inner();
            Ok(Made::of(Door {
                sign_in_name: made.client_id,
                ..Door::of(made.name)
            }))
        }
        Step::Key(application) => {
            let request = CreateKeyRequest {
                parent: world.name(*application),
                ..CreateKeyRequest::default()
            };
            let made = applications.create_key(request).await?.into_inner();
            world.doors[*application]
                .keys
                .push((made.key.unwrap().name, made.secret));
            Ok(Made::default())
        }
        Step::DeleteKey(application) => {
            let newest = world.doors[*application].keys.last();
            let newest = newest.map(|(name, _)| name.clone());
            // One that never was, of the same application.
            let never = format!("{}/keys/{}", world.name(*application), uuid::Uuid::nil());
            let request = DeleteKeyRequest {
                name: newest.unwrap_or(never),
                ..DeleteKeyRequest::default()
            };
            let done = applications.delete_key(request).await.map(nothing)?;
            world.doors[*application].keys.pop();
            Ok(done)
        }
        Step::Delete(tenant, these) => {
            let request = DeleteApplicationsRequest {
                parent: world.tenant_names[*tenant].clone(),
                names: these.iter().map(|p| world.name(*p)).collect(),
                ..DeleteApplicationsRequest::default()
            };
            applications.delete_applications(request).await.map(nothing)
        }
    }
}
