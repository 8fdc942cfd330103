//! Tenants deleted and undone (TEN-7).

use entente::proto::directory::{DeleteTenantRequest, UndeleteTenantRequest};
use tonic::Status;

use super::{
    Reasons, Rng, Verdict,
    doors::{Made, nothing},
    draw::Draw,
    state::{By, NOWHERE},
    unless,
    world::World,
};
use crate::harness::Caller;

#[derive(Clone, Debug)]
pub enum Step {
    Delete(usize),
    /// By the operator, or by a caller without the mail.
    Undelete(usize, bool),
}

pub fn judge(by: By<'_>, step: &Step) -> Verdict {
    match step {
        Step::Delete(tenant) => {
            let mut next = by.begin()?;
            by.on_tenant(*tenant, "tenant.delete")?;
            let used = next.associated.iter().any(|(_, t)| t == tenant);
            unless(!used && !next.is_customer(*tenant), "TENANT_IN_USE")?;
            next.tenants[*tenant].active = false;
            for p in &mut next.principals {
                // Keys are no sessions: the tokens that came from them are good again after an undeletion.
                if p.tenant == *tenant && p.is_person() {
                    p.ended += 1;
                }
            }
            Ok(next)
        }
        Step::Undelete(tenant, by_operator) => {
            let mut next = if *by_operator {
                by.model.clone()
            } else {
                by.begin()?;
                return Err(Reasons::from(["PERMISSION_MISSING", "LINK_INVALID"]));
            };
            unless(!next.tenants[*tenant].active, "WRONG_STATE")?;
            next.tenants[*tenant].active = true;
            Ok(next)
        }
    }
}

/// A random step; mostly of the last tenant, since accounts use the others.
pub fn draw(draw: &Draw<'_>, rng: &mut Rng) -> (Option<usize>, Step) {
    let gone = draw.tenants.iter().copied();
    let gone: Vec<usize> = gone.filter(|t| !draw.model.is_active(*t)).collect();
    if !gone.is_empty() && rng.chance(80) {
        return (None, Step::Undelete(rng.pick(&gone), rng.chance(85)));
    }
    let used: Vec<usize> = draw.model.associated.iter().map(|(_, t)| *t).collect();
    if !used.is_empty() && rng.chance(5) {
        let used = rng.pick(&used);
        let admins = draw.model.admins(used);
        if !admins.is_empty() {
            return (Some(rng.pick(&admins)), Step::Delete(used));
        }
    }
    let last = draw.tenants[draw.tenants.len() - 1];
    let admins = draw.model.admins(last);
    if !admins.is_empty() && rng.chance(70) {
        return (Some(rng.pick(&admins)), Step::Delete(last));
    }
    let step = match draw.model.principals[draw.caller].tenant {
        own if own != NOWHERE && rng.chance(80) => Step::Delete(own),
        _ => Step::Undelete(rng.pick(draw.tenants), rng.chance(50)),
    };
    (None, step)
}

pub async fn call(world: &mut World<'_>, caller: &Caller, step: &Step) -> Result<Made, Status> {
    match step {
        Step::Delete(tenant) => {
            let request = DeleteTenantRequest {
                name: world.tenant_names[*tenant].clone(),
                ..DeleteTenantRequest::default()
            };
            caller.tenants().delete_tenant(request).await.map(nothing)
        }
        Step::Undelete(tenant, by_operator) => {
            let request = UndeleteTenantRequest {
                tenant: world.tenant_names[*tenant].clone(),
                ..UndeleteTenantRequest::default()
            };
            let mut tenants = if *by_operator {
                world.site.operator().await.tenants()
            } else {
                caller.tenants()
            };
            tenants.undelete_tenant(request).await.map(nothing)
        }
    }
}
