//! Proto ⇄ rows of accounts; no other file of this slice converts.

use uuid::Uuid;

use super::entity::{account, association, member};
use crate::{
    access::{
        grants::{Given, Set},
        principal::{Kind, Principal},
        roles::Permissions,
    },
    app::App,
    directory::{GUEST, IDENTITY, wire::domain},
    error::{Error, Result},
    names::Name,
    proto::account::{
        Account, EffectiveRight, ImportAccountRequest, Member, MemberKind, TenantAssociation,
    },
    store::{scope_key::ScopeKey, time::timestamp, update::etag},
};

/// An account for the wire. Names of companies are what the operator's people work with, so nothing of it is masked yet.
pub fn account(row: &account::Model) -> Account {
    let account::Model {
        id,
        publisher_display_name,
        publisher_display_name_fold: _,
        legal_name,
        legal_name_fold: _,
        country_code,
        r#type,
        seller_id,
        state,
        create_time,
        update_time,
        version,
    } = row;
    Account {
        name: Name::Account(*id).to_string(),
        publisher_display_name: publisher_display_name.clone(),
        legal_name: legal_name.clone(),
        country_code: country_code.clone(),
        r#type: i32::try_from(*r#type).unwrap_or(0),
        seller_id: seller_id.clone(),
        state: i32::try_from(*state).unwrap_or(0),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
    }
}

/// An account to be made.
pub struct Imported {
    pub publisher_display_name: String,
    pub legal_name: String,
    pub country_code: String,
    pub kind: i64,
}

/// The account, tenant and first manager of an import.
pub fn imported(
    request: ImportAccountRequest,
) -> Result<(Imported, Uuid, Principal, Option<Principal>)> {
    let ImportAccountRequest {
        account,
        tenant,
        first_manager,
        owner,
        request_id: _,
        validate_only: _,
    } = request;
    let Account {
        name: _,
        publisher_display_name,
        legal_name,
        country_code,
        r#type,
        seller_id: _,
        state: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = account.ok_or_else(|| Error::field("account", "is required"))?;
    let Some(Name::Tenant(tenant)) = Name::parse(&tenant) else {
        return Err(Error::field("tenant", "is no tenant"));
    };
    let manager = Name::parse(&first_manager)
        .and_then(Principal::of)
        .filter(|p| p.kind == Kind::User);
    let manager = manager.ok_or_else(|| Error::field("first_manager", "is no user"))?;
    let owner = match owner.as_str() {
        "" => None,
        name => Some(
            Name::parse(name)
                .and_then(Principal::of)
                .filter(|p| p.kind == Kind::Identity)
                .ok_or_else(|| Error::field("owner", "is no personal identity"))?,
        ),
    };
    let kind = if r#type == 0 { 1 } else { i64::from(r#type) };
    Ok((
        Imported {
            publisher_display_name,
            legal_name,
            country_code,
            kind,
        },
        tenant,
        manager,
        owner,
    ))
}

/// The kind of a member.
pub fn member_kind(kind: Kind) -> MemberKind {
    match kind {
        Kind::Application => MemberKind::Application,
        Kind::Group => MemberKind::Group,
        Kind::User | Kind::Identity => MemberKind::User,
    }
}

/// A member for the wire, with what it holds directly.
pub fn member(app: &App, row: &member::Model) -> Member {
    let member::Model {
        account_id,
        principal_id,
        principal_kind,
        tenant_id,
        roles,
        permissions,
        display_name,
        display_name_fold: _,
        user_name,
        user_name_fold: _,
        domain_prefix,
        active,
        synchronized,
        user_kind,
        create_time,
        update_time,
        version,
    } = row;
    let kind = Kind::from_number(*principal_kind).unwrap_or(Kind::User);
    let principal = Principal {
        kind,
        id: *principal_id,
        tenant: *tenant_id,
    };
    let set = Set {
        roles: *roles,
        single: Permissions::from_stored(permissions),
    };
    Member {
        name: Name::Member(*account_id, *principal_id).to_string(),
        principal: principal.name(),
        display_name: display_name.clone(),
        sign_in_name: if user_name.is_empty() {
            String::new()
        } else if *user_kind == GUEST || *user_kind == IDENTITY {
            // A guest signs in with the name of its home, a personal identity with its address.
            user_name.clone()
        } else {
            format!("{user_name}@{}", domain(app, domain_prefix))
        },
        rights: Some(set.to_rights()),
        effective_rights: effective(*account_id, set, "direct", &[], false),
        kind: member_kind(kind) as i32,
        tenant: if kind == Kind::Identity {
            String::new()
        } else {
            Name::Tenant(*tenant_id).to_string()
        },
        active: *active == 1,
        synchronized: *synchronized == 1,
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
    }
}

/// Adds what groups give to a member.
pub fn add_given(member: &mut Member, account: Uuid, given: &Given) {
    let groups: Vec<String> = given.groups.iter().map(ToString::to_string).collect();
    if let Some(first) = groups.first() {
        let rights = effective(account, given.set, first, &groups, given.more);
        member.effective_rights.extend(rights);
    }
}

fn effective(
    account: Uuid,
    set: Set,
    source: &str,
    groups: &[String],
    more_groups: bool,
) -> Vec<EffectiveRight> {
    set.names(ScopeKey::Account(account))
        .into_iter()
        .map(|right| EffectiveRight {
            right,
            source: source.to_owned(),
            groups: groups.to_vec(),
            more_groups,
        })
        .collect()
}

/// An association for the wire.
pub fn association(app: &App, row: &association::Model) -> TenantAssociation {
    let association::Model {
        account_id,
        tenant_id,
        display_name,
        display_name_fold: _,
        domain_prefix,
        create_time,
        version,
    } = row;
    TenantAssociation {
        name: Name::TenantAssociation(*account_id, *tenant_id).to_string(),
        tenant: Name::Tenant(*tenant_id).to_string(),
        tenant_display_name: display_name.clone(),
        domain: domain(app, domain_prefix),
        create_time: timestamp(*create_time),
        etag: etag(*version),
    }
}
