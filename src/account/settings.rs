//! AccountService, reading: an account with what belongs to it (ACC-7, ACC-10), what it has to do (AGR-3), and whether a publisher name is free
//! (ACC-4).

use sea_orm::{EntityTrait, FromQueryResult};
use uuid::Uuid;

use super::{
    entity::account::{Entity, Model},
    network, ownership, progress,
    publisher_name::{self, Hindrance},
    requirement, sight, wire,
};
use crate::{
    access::{
        cache::Facts as _,
        grants::{self, ADMIN_AGENT, HeldOf},
        roles::Permission,
        scope::{CallerScope, Proof},
    },
    app::Read,
    directory,
    error::{Error, Result},
    names::Name,
    proto::account::{
        AccountOwner, AccountSettings, CheckPublisherNameRequest, CheckPublisherNameResponse,
        GetAccountSettingsRequest, ListRequiredActionsRequest, ListRequiredActionsResponse,
        Ownership, PublisherNameAvailability,
    },
    store::{scope_key::ScopeKey, sql},
};

/// Tenants that settings name; ListAssociatedTenants gives all.
const MOST_TENANTS: i64 = 100;

async fn find(rd: &Read, name: &str) -> Result<Model> {
    let id = Name::parse(name).map(|n| n.id()).unwrap_or_default();
    Entity::find_by_id(id)
        .one(rd.db())
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Account", name))
}

#[derive(FromQueryResult)]
struct Associated {
    tenant_id: Uuid,
}

/// Gives an account with what belongs to it.
///
/// # Errors
/// `NOT_FOUND`, to the operator's people only.
pub async fn get_account_settings(
    rd: &Read,
    proof: Proof,
    req: GetAccountSettingsRequest,
) -> Result<AccountSettings> {
    let who = proof.caller()?.principal();
    let held = rd
        .know(HeldOf {
            principal: who.id,
            scope: ScopeKey::Account(Name::parse(&req.name).map(|n| n.id()).unwrap_or_default()),
            home: Some(who.tenant),
        })
        .await?;
    let row = find(rd, &req.name).await?;
    let sql =
        "SELECT tenant_id FROM associations WHERE account_id = $1 ORDER BY tenant_id LIMIT $2";
    let tenants =
        sql::all::<Associated, _>(rd.db(), sql, [row.id.into(), MOST_TENANTS.into()]).await?;
    let membership = match row.membership_id {
        Some(id) => network::find(rd.db(), id).await?,
        None => None,
    };
    let language = rd.caller().language;
    let verification = progress::of_account(rd.db(), rd.app(), &row, language, rd.now()).await?;
    let mut shown = owner(rd, &row, proof.masked()).await?;
    if !proof.masked()
        && !rd
            .caller_permissions(ScopeKey::Account(row.id))
            .await?
            .has(Permission::MembersRead)
    {
        // That it has one is no secret to its members; who it is, is for those who see who is who.
        (shown.owner, shown.pending) = (None, None);
    }
    let mut account = wire::account(&row);
    if proof.masked() {
        account = wire::masked(account);
    }
    Ok(AccountSettings {
        seller_id: account.seller_id.clone(),
        account: Some(account),
        partner_id: membership.map_or_else(String::new, |m| m.partner_id),
        tenants: tenants
            .into_iter()
            .map(|t| Name::Tenant(t.tenant_id).to_string())
            .collect(),
        caller: who.name(),
        admin_agent: held.roles & ADMIN_AGENT != 0,
        verification: Some(if proof.masked() {
            progress::masked(verification)
        } else {
            verification
        }),
        has_owner: shown.has_owner,
        owner: shown.owner,
        pending_ownership: shown.pending,
    })
}

/// The owner of an account, and one on the way.
struct Shown {
    has_owner: bool,
    owner: Option<AccountOwner>,
    pending: Option<Ownership>,
}

async fn owner(rd: &Read, row: &Model, masked: bool) -> Result<Shown> {
    let found = grants::owner_of(rd.db(), row.id).await?;
    let owner = match found {
        Some((id, finance_from)) => directory::user::summary(rd.db(), id)
            .await?
            .map(|user| wire::account_owner(id, &user, finance_from, masked)),
        None => None,
    };
    let pending = ownership::on_its_way(rd.db(), row.id).await?;
    let pending = pending.as_ref().map(wire::ownership);
    Ok(Shown {
        has_owner: found.is_some(),
        owner,
        pending: if masked {
            pending.map(wire::masked_ownership)
        } else {
            pending
        },
    })
}

/// Gives what an account has to do.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub async fn list_required_actions(
    rd: &Read,
    proof: Proof,
    req: ListRequiredActionsRequest,
) -> Result<ListRequiredActionsResponse> {
    let row = sight::readable(rd, &proof, &req.parent).await?;
    let language = rd.caller().language;
    Ok(ListRequiredActionsResponse {
        requirements: requirement::of_account(rd.db(), rd.app(), &row, language, rd.now()).await?,
    })
}

/// Tells whether a publisher name can be taken, and not whose it is; to an account, whether it can.
///
/// # Errors
/// `PERMISSION_DENIED` for an account that the caller may not read.
pub async fn check_publisher_name(
    rd: &Read,
    _scope: CallerScope,
    req: CheckPublisherNameRequest,
) -> Result<CheckPublisherNameResponse> {
    let own = match Name::parse(&req.account) {
        Some(name @ Name::Account(id)) => {
            rd.demand(Permission::AccountRead, name).await?;
            Some(id)
        }
        _ => None,
    };
    let name = &req.publisher_display_name;
    let availability = match publisher_name::look_up(rd, own, name).await? {
        None => PublisherNameAvailability::Available,
        Some(Hindrance::Taken) => PublisherNameAvailability::Taken,
        Some(Hindrance::Reserved) => PublisherNameAvailability::Reserved,
    };
    Ok(CheckPublisherNameResponse {
        availability: availability as i32,
    })
}
