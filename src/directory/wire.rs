//! Proto ⇄ rows of the directory; no other file of this slice converts.

use crate::{
    access::{
        grants::{GLOBAL_ADMIN, Set, home_principal},
        roles::{self, TENANT_ROLES},
    },
    app::App,
    check::{MOST_ITEMS_NAMED, Violations},
    directory::{
        GUEST,
        entity::{application, application_key, session, tenant, user},
        password,
    },
    error::{Error, Result},
    names::Name,
    proto::directory::{
        Application, CreateUserRequest, FirstAdmin, Key, NewMembership, Session, Tenant, User,
    },
    store::{list::fold, time::timestamp, update::etag},
};

/// The domain of a tenant.
pub fn domain(app: &App, prefix: &str) -> String {
    format!("{prefix}.{}", app.config.base_domain)
}

/// A tenant for the wire; masked for the operator's people.
pub fn tenant(app: &App, row: &tenant::Model, masked: bool) -> Tenant {
    let tenant::Model {
        id,
        domain_prefix,
        display_name,
        display_name_fold: _,
        contact_email,
        is_operator: _,
        state,
        synchronized,
        sync_agent_id: _,
        created_by_identity: _,
        delete_time,
        purge_time,
        first_use_time: _,
        create_time,
        update_time,
        version,
    } = row;
    Tenant {
        name: Name::Tenant(*id).to_string(),
        domain_prefix: domain_prefix.clone(),
        domain: domain(app, domain_prefix),
        display_name: display_name.clone(),
        contact_email: if masked {
            mask_email(contact_email)
        } else {
            contact_email.clone()
        },
        state: i32::try_from(*state).unwrap_or(0),
        synchronized: *synchronized,
        delete_time: delete_time.and_then(timestamp),
        purge_time: purge_time.and_then(timestamp),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
    }
}

/// An address of which only the first letter and the domain are told.
pub fn mask_email(address: &str) -> String {
    match address.split_once('@') {
        Some((local, domain)) => format!("{}***@{domain}", local.chars().next().unwrap_or('*')),
        None => String::new(),
    }
}

/// A user for the wire. `prefix` is its tenant's domain prefix, `directory_roles` its role bits there.
pub fn user(app: &App, row: &user::Model, prefix: &str, directory_roles: i64, now: i64) -> User {
    let user::Model {
        id,
        tenant_id,
        user_name,
        user_name_fold: _,
        given_name,
        family_name,
        display_name,
        display_name_fold: _,
        recovery_email,
        kind,
        state,
        created_through_account,
        rights_asleep_until,
        create_time,
        update_time,
        delete_time,
        purge_time,
        home_id,
        home_tenant_id,
        external_id,
        version,
    } = row;
    User {
        name: Name::User(*tenant_id, *id).to_string(),
        user_name: user_name.clone(),
        // A guest signs in with the name of its home.
        sign_in_name: if *kind == GUEST {
            user_name.clone()
        } else {
            format!("{user_name}@{}", domain(app, prefix))
        },
        home: home_id.map_or_else(String::new, |id| {
            home_principal(id, home_tenant_id.unwrap_or_default()).name()
        }),
        synchronized: !external_id.is_empty(),
        given_name: given_name.clone(),
        family_name: family_name.clone(),
        display_name: display_name.clone(),
        recovery_email: recovery_email.clone(),
        directory_roles: roles::numbers_of(TENANT_ROLES, directory_roles),
        kind: i32::try_from(*kind).unwrap_or(0),
        state: i32::try_from(*state).unwrap_or(0),
        created_through_account: created_through_account
            .map_or_else(String::new, |a| Name::Account(a).to_string()),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        delete_time: delete_time.and_then(timestamp),
        purge_time: purge_time.and_then(timestamp),
        rights_asleep_until: rights_asleep_until
            .filter(|until| now < *until)
            .and_then(timestamp),
        etag: etag(*version),
    }
}

/// An application for the wire.
pub fn application(row: &application::Model) -> Application {
    let application::Model {
        id,
        tenant_id,
        display_name,
        display_name_fold: _,
        reply_url,
        application_id_uri,
        state: _,
        create_time,
        update_time,
        external_id,
        version,
    } = row;
    Application {
        synchronized: !external_id.is_empty(),
        name: Name::Application(*tenant_id, *id).to_string(),
        display_name: display_name.clone(),
        reply_url: reply_url.clone(),
        application_id_uri: application_id_uri.clone(),
        tenant_id: tenant_id.to_string(),
        client_id: id.to_string(),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
    }
}

/// A key for the wire, without its secret.
pub fn key(tenant_id: uuid::Uuid, row: &application_key::Model) -> Key {
    let application_key::Model {
        id,
        application_id,
        hash: _,
        hint,
        create_time,
        expire_time,
        reminder_time: _,
        version,
    } = row;
    Key {
        name: Name::Key(tenant_id, *application_id, *id).to_string(),
        expire_time: timestamp(*expire_time),
        create_time: timestamp(*create_time),
        hint: hint.clone(),
        etag: etag(*version),
    }
}

/// A session for the wire.
pub fn session(row: &session::Model, current: uuid::Uuid) -> Session {
    let session::Model {
        id,
        user_id,
        tenant_id,
        client_address,
        create_time,
        sign_in_time: _,
        last_refresh_time,
        expire_time,
        end_time: _,
        refresh_hash: _,
        previous_hash: _,
        previous_until: _,
        home_id: _,
        version,
    } = row;
    let name = if tenant_id.is_nil() {
        Name::IdentitySession(*user_id, *id)
    } else {
        Name::Session(*tenant_id, *user_id, *id)
    };
    Session {
        name: name.to_string(),
        create_time: timestamp(*create_time),
        last_refresh_time: timestamp(*last_refresh_time),
        expire_time: timestamp(*expire_time),
        client_address: client_address.clone(),
        current: *id == current,
        etag: etag(*version),
    }
}

/// A person to be made, from the wire.
pub struct NewUser {
    pub user_name: String,
    pub given_name: String,
    pub family_name: String,
    pub recovery_email: String,
    pub directory_roles: i64,
}

impl NewUser {
    /// What people see.
    pub fn display_name(&self) -> String {
        display_name(&self.given_name, &self.family_name)
    }
}

/// Given and family name together.
pub fn display_name(given_name: &str, family_name: &str) -> String {
    format!("{given_name} {family_name}").trim().to_owned()
}

/// What is wrong with a new user beyond the declared limits.
pub fn check_new_user(request: &CreateUserRequest, v: &mut Violations) {
    // USR-2: who runs the tenant must be able to come back.
    if let Some(user) = &request.user
        && roles::bits_of(TENANT_ROLES, &user.directory_roles) & GLOBAL_ADMIN != 0
        && user.recovery_email.is_empty()
    {
        v.also("user.recovery_email", "is required for a global admin");
    }
    check_memberships(&request.memberships, v);
}

/// What is wrong with the memberships of a new principal.
pub fn check_memberships(memberships: &[NewMembership], v: &mut Violations) {
    for (i, membership) in memberships.iter().enumerate().take(MOST_ITEMS_NAMED) {
        if memberships[..i]
            .iter()
            .any(|m| m.account == membership.account)
        {
            v.also(
                format!("memberships[{i}].account"),
                "stands in the list before",
            );
        }
        Set::check(
            membership.rights.as_ref(),
            &format!("memberships[{i}].rights"),
            v,
        );
    }
}

/// What is wrong with the password that is given to a first admin, if one is.
pub fn check_first_admin(admin: Option<&FirstAdmin>, v: &mut Violations) {
    if let Some(admin) = admin.filter(|a| !a.password.is_empty())
        && let Some(fault) = password::fault(&admin.password, &admin.user_name)
    {
        v.also("first_admin.password", fault);
    }
}

/// The user of a creation, with its memberships.
pub fn new_user(request: CreateUserRequest) -> Result<(NewUser, Vec<NewMembership>)> {
    let CreateUserRequest {
        parent: _,
        user,
        memberships,
        request_id: _,
        validate_only: _,
    } = request;
    let user = user.ok_or_else(|| Error::field("user", "is required"))?;
    let User {
        name: _,
        user_name,
        sign_in_name: _,
        given_name,
        family_name,
        display_name: _,
        recovery_email,
        directory_roles,
        kind: _,
        state: _,
        created_through_account: _,
        create_time: _,
        update_time: _,
        delete_time: _,
        purge_time: _,
        rights_asleep_until: _,
        home: _,
        synchronized: _,
        etag: _,
    } = user;
    let directory_roles = roles::bits_of(TENANT_ROLES, &directory_roles);
    let new = NewUser {
        user_name,
        given_name,
        family_name,
        recovery_email,
        directory_roles,
    };
    Ok((new, memberships))
}

/// The first global admin of a new tenant, with the password given for it, if one was.
pub fn first_admin(admin: Option<FirstAdmin>) -> Result<(NewUser, String)> {
    let FirstAdmin {
        given_name,
        family_name,
        user_name,
        recovery_email,
        password,
    } = admin.ok_or_else(|| Error::field("first_admin", "is required"))?;
    Ok((
        NewUser {
            user_name,
            given_name,
            family_name,
            recovery_email,
            directory_roles: GLOBAL_ADMIN,
        },
        password,
    ))
}

/// What a new tenant is to be.
pub struct NewTenant {
    /// Lower case.
    pub domain_prefix: String,
    pub display_name: String,
    pub contact_email: String,
}

/// The tenant of a creation.
pub fn new_tenant(tenant: Option<Tenant>) -> Result<NewTenant> {
    let Tenant {
        name: _,
        domain_prefix,
        domain: _,
        display_name,
        contact_email,
        state: _,
        create_time: _,
        update_time: _,
        synchronized: _,
        delete_time: _,
        purge_time: _,
        etag: _,
    } = tenant.ok_or_else(|| Error::field("tenant", "is required"))?;
    Ok(NewTenant {
        domain_prefix: fold(&domain_prefix),
        display_name,
        contact_email,
    })
}
