//! Who reads an account: its members; the operator's people; and drafts also the global admins of its tenants, who may finish them (ACC-1).

use sea_orm::{
    EntityTrait,
    sea_query::{Alias, Expr, ExprTrait as _, Query as Select, SelectStatement, UnionType},
};
use uuid::Uuid;

use super::entity::account::{Entity, Model};
use crate::{
    access::{grants, principal::Principal, roles::Permission, scope::Proof},
    app::Read,
    error::{Error, Result},
    names::Name,
    proto::account::AccountState,
    store::scope_key::ScopeKey,
};

/// The account that was proven, or, of its drafts, that a global admin of an associated tenant asks for.
///
/// # Errors
/// `PERMISSION_DENIED`, whether or not there is such an account; `NOT_FOUND`, to the operator's people only.
pub(super) async fn readable(rd: &Read, proof: &Proof, name: &str) -> Result<Model> {
    let id = Name::parse(name).map(|n| n.id()).unwrap_or_default();
    if proof.account().is_ok() || proof.by_operator() {
        let found = Entity::find_by_id(id).one(rd.db()).await?;
        return found.ok_or_else(|| Error::not_found("entente.dev/Account", name));
    }
    let who = proof.caller()?.principal();
    let denied = || Error::denied(Permission::AccountRead);
    let finishes = rd.demand(Permission::TenantUpdate, Name::Tenant(who.tenant));
    match finishes.await {
        Ok(()) => {}
        Err(error) if error.is_ours() => return Err(error),
        Err(_) => return Err(denied()),
    }
    let row = Entity::find_by_id(id).one(rd.db()).await?;
    let row = row.filter(|row| row.state == AccountState::Draft as i64);
    // Asked whether or not there is one: a refusal costs the same.
    let is_ours = grants::is_associated(rd.db(), id, who.tenant).await?;
    row.filter(|_| is_ours).ok_or_else(denied)
}

/// Whether somebody may finish the drafts of its tenant: its global admins.
async fn finishes_drafts(rd: &Read, who: Principal) -> Result<bool> {
    let held = rd.caller_permissions(ScopeKey::Tenant(who.tenant)).await?;
    Ok(held.has(Permission::TenantUpdate))
}

/// Selects the accounts that the caller is a member of, itself or by a group, and the drafts that it may finish.
///
/// # Errors
/// Those of the database.
pub(super) async fn reached(rd: &Read, who: Principal) -> Result<SelectStatement> {
    let column = |name: &'static str| Expr::col(Alias::new(name));
    let mut all = Select::select()
        .expr(column("account_id"))
        .from(Alias::new("account_reach"))
        .and_where(column("principal_id").eq(who.id))
        .to_owned();
    if finishes_drafts(rd, who).await? {
        all.union(UnionType::All, drafts_of(who.tenant));
    }
    Ok(all)
}

/// Selects the drafts of a tenant.
fn drafts_of(tenant: Uuid) -> SelectStatement {
    let column = |name: &'static str| Expr::col(Alias::new(name));
    let drafts = Select::select()
        .expr(column("id"))
        .from(Alias::new("accounts"))
        .and_where(column("state").eq(AccountState::Draft as i64))
        .and_where(
            Expr::col((Alias::new("accounts"), Alias::new("id")))
                .equals((Alias::new("associations"), Alias::new("account_id"))),
        )
        .to_owned();
    Select::select()
        .expr(column("account_id"))
        .from(Alias::new("associations"))
        .and_where(column("tenant_id").eq(tenant))
        .and_where(Expr::exists(drafts))
        .to_owned()
}
