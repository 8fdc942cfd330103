//! NetworkService: companies join the partner network before they open an account (NET-1); `brought.rs` has memberships of an older programme.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, Set,
};
use uuid::Uuid;

pub(crate) use super::brought::check_import_memberships;
pub use super::brought::{claim_membership, confirm_membership, import_memberships};
use super::{
    brought,
    entity::network_membership::{Column, Entity, Model},
    involvement, moves,
    wire::{self, NewMembership},
};
use crate::{
    access::{
        principal::{Kind, Principal},
        roles::Permission,
        scope::CallerScope,
    },
    app::{Read, Tx},
    check::Violations,
    error::{Error, Reason, Result},
    names::Name,
    proto::account::{
        GetMembershipRequest, JoinNetworkRequest, NetworkMembership, UpdateMembershipRequest,
    },
    store::{outbox::Event, scope_key::ScopeKey, update},
};

/// Who joined.
pub(super) fn joined_by(row: &Model) -> Principal {
    Principal {
        kind: Kind::from_number(row.joined_by_kind).unwrap_or(Kind::User),
        id: row.joined_by_id,
        tenant: row.joined_by_tenant_id,
    }
}

/// Where it is told of a membership: on the account that it became, before at home with whoever joined.
fn told_in(row: &Model) -> ScopeKey {
    row.account_id
        .map_or_else(|| joined_by(row).home(), ScopeKey::Account)
}

/// A company joins.
///
/// # Errors
/// `ALREADY_NETWORK_MEMBER` if the caller has a membership without an account; `PEOPLE_ONLY` to programs.
pub async fn join_network(
    tx: &mut Tx,
    scope: CallerScope,
    req: JoinNetworkRequest,
) -> Result<NetworkMembership> {
    let JoinNetworkRequest {
        network_membership,
        request_id: _,
        validate_only: _,
    } = req;
    let who = scope.principal();
    if !who.is_person() {
        return Err(Error::refused(Reason::PeopleOnly));
    }
    if network_membership
        .as_ref()
        .is_some_and(|n| n.brought.is_some())
    {
        return Err(Error::field(
            "network_membership.brought",
            "is only there of a membership that was brought from an older programme (ClaimMembership)",
        ));
    }
    let new = wire::new_membership(network_membership)?;
    if let Some(unused) = unused(tx.db(), who.id).await? {
        let name = Name::NetworkMembership(unused.id).to_string();
        return Err(already_member(&name));
    }
    let row = insert(tx, who, new).await?;
    let event = Event::new(
        "entente.account.v1.NetworkJoined",
        Name::NetworkMembership(row.id),
    );
    tx.emit(joined(event, &row));
    Ok(wire::membership(&row))
}

/// The membership of somebody that has no account.
pub(super) async fn unused<C: ConnectionTrait>(db: &C, who: Uuid) -> Result<Option<Model>> {
    Ok(Entity::find()
        .filter(Column::JoinedById.eq(who))
        .filter(Column::AccountId.is_null())
        .one(db)
        .await?)
}

/// That the caller has a membership of this name without an account.
pub(super) fn already_member(name: &str) -> Error {
    let (reason, field) = (Reason::AlreadyNetworkMember, "network_membership");
    Error::exists(reason, field, "is there already").with("membership", name)
}

/// Makes a membership, with a partner ID.
pub(super) async fn insert(tx: &mut Tx, who: Principal, new: NewMembership) -> Result<Model> {
    let (id, now) = (tx.id(), tx.now());
    let row = Model {
        id,
        partner_id: format!("P{}", &id.simple().to_string()[16..].to_uppercase()),
        legal_name: new.legal_name,
        country_code: new.country_code,
        website_uri: new.website_uri,
        contact_name: new.contact.display_name,
        contact_email: new.contact.email,
        contact_phone: new.contact.phone_number,
        joined_by_kind: who.kind as i16,
        joined_by_id: who.id,
        joined_by_tenant_id: who.tenant,
        account_id: None,
        create_time: now,
        update_time: now,
        version: 1,
    };
    tx.insert(row.clone()).await?;
    Ok(row)
}

/// The event of a new membership, with what it begins with.
pub(super) fn joined(event: Event, row: &Model) -> Event {
    let null = || serde_json::Value::Null;
    event
        .told_in(told_in(row))
        .change("partner_id", null(), row.partner_id.clone())
        .change("legal_name", null(), row.legal_name.clone())
        .change("country_code", null(), row.country_code.clone())
        .change("website_uri", null(), row.website_uri.clone())
}

/// A membership for the wire, with what it brings.
pub(super) async fn shown<C: ConnectionTrait>(db: &C, row: &Model) -> Result<NetworkMembership> {
    Ok(NetworkMembership {
        brought: brought::shown(db, row.id).await?,
        ..wire::membership(row)
    })
}

/// Gives a membership to whoever joined, or to members of its account.
///
/// # Errors
/// `PERMISSION_DENIED`, whether or not there is such a membership.
pub async fn get_membership(
    rd: &Read,
    scope: CallerScope,
    req: GetMembershipRequest,
) -> Result<NetworkMembership> {
    let row = by_name(rd.db(), &req.name).await?;
    if let Some(row) = &row
        && joined_by(row) == scope.principal()
    {
        return shown(rd.db(), row).await;
    }
    let account = row.as_ref().and_then(|row| row.account_id);
    rd.demand(
        Permission::AccountRead,
        Name::Account(account.unwrap_or_default()),
    )
    .await?;
    let row = row.ok_or_else(|| Error::denied(Permission::AccountRead))?;
    shown(rd.db(), &row).await
}

pub(crate) fn check_update_membership(req: &UpdateMembershipRequest, v: &mut Violations) {
    let Some(new) = &req.network_membership else {
        return;
    };
    let fields = update::fields(req.update_mask.as_ref(), new);
    if fields.contains(&"contact") {
        wire::check_membership(Some(new), v);
    }
    if fields.contains(&"brought") {
        moves::check(new.brought.as_ref(), "network_membership.brought", v);
    }
}

/// Changes a membership.
///
/// # Errors
/// `ETAG_MISMATCH`; `PERMISSION_DENIED`, whether or not there is such a membership; those of the account.
pub async fn update_membership(
    tx: &mut Tx,
    scope: CallerScope,
    req: UpdateMembershipRequest,
) -> Result<NetworkMembership> {
    let UpdateMembershipRequest {
        network_membership,
        update_mask,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let new =
        network_membership.ok_or_else(|| Error::field("network_membership", "is required"))?;
    let found = by_name(tx.db(), &new.name).await?;
    let is_own = |row: &Model| joined_by(row) == scope.principal();
    let account = found.as_ref().and_then(|row| row.account_id);
    if !found.as_ref().is_some_and(is_own) {
        let account = Name::Account(account.unwrap_or_default());
        tx.demand(Permission::AccountUpdate, account).await?;
    }
    let old = found.ok_or_else(|| Error::denied(Permission::AccountUpdate))?;
    if let Some(account) = account {
        tx.demand_of_account(account).await?;
    }
    update::check_etag(&etag, old.version)?;
    let mut event = Event::new(
        "entente.account.v1.NetworkMembershipUpdated",
        Name::NetworkMembership(old.id),
    )
    .told_in(told_in(&old));
    let mut row = old.clone().into_active_model();
    for field in update::fields(update_mask.as_ref(), &new) {
        match field {
            "legal_name" => {
                event = event.change(field, old.legal_name.clone(), new.legal_name.clone());
                row.legal_name = Set(new.legal_name.clone());
            }
            "website_uri" => {
                event = event.change(field, old.website_uri.clone(), new.website_uri.clone());
                row.website_uri = Set(new.website_uri.clone());
            }
            "contact" => {
                let contact = new.contact.clone().unwrap_or_default();
                let before = wire::membership(&old).contact;
                event = event.change(
                    field,
                    wire::contact_json(before.as_ref()),
                    wire::contact_json(Some(&contact)),
                );
                row.contact_name = Set(contact.display_name);
                row.contact_email = Set(contact.email);
                row.contact_phone = Set(contact.phone_number);
            }
            "brought" => {
                let (before, after) = brought::choose(tx, &old, new.brought.clone()).await?;
                event = event.change(field, before, after);
            }
            other => {
                return Err(Error::internal(format!(
                    "{other} is mutable, but nobody changes it"
                )));
            }
        }
    }
    row.update_time = Set(tx.now());
    row.version = Set(old.version + 1);
    let row: Model = row.update(tx.db()).await?;
    if let Some(account) = account
        && row.contact_email != old.contact_email
    {
        involvement::contact_left(tx, account, &old.contact_email).await?;
    }
    tx.emit(event);
    shown(tx.db(), &row).await
}

/// A membership by its name.
async fn by_name<C: ConnectionTrait>(db: &C, name: &str) -> Result<Option<Model>> {
    match Name::parse(name) {
        Some(Name::NetworkMembership(id)) => find(db, id).await,
        _ => Ok(None),
    }
}

pub(super) async fn find<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Option<Model>> {
    Ok(Entity::find_by_id(id).one(db).await?)
}
