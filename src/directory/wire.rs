//! Proto ⇄ rows of the directory; no other file of this slice converts.

use sea_orm::FromQueryResult;
use uuid::Uuid;

use crate::{
    access::{
        grants::{GLOBAL_ADMIN, Set, home_principal},
        principal::{Kind, Principal},
        roles::{self, Permissions, TENANT_ROLES},
    },
    app::App,
    check::{self, MOST_ITEMS_NAMED, Violations},
    directory::{
        ACTIVE, DELETED, GUEST, IDENTITY,
        domain::{record_name, record_value},
        entity::{
            application, application_key, directory_sync, directory_sync_fault, domain, group,
            invitation, session, tenant, user,
        },
        password,
    },
    error::{Error, Reason, Result},
    names::Name,
    proto::directory::{
        Application, CreateUserRequest, DirectoryFault, DirectorySynchronization, Domain,
        FirstAdmin, Group, GroupMember, Identity, IdentityState, Invitation, InviteUsersRequest,
        Key, NewMembership, Session, Tenant, User,
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

/// A domain of a tenant for the wire.
pub fn domain_resource(row: &domain::Model) -> Domain {
    let domain::Model {
        id,
        tenant_id,
        domain_name,
        token: _,
        state,
        verify_time,
        look_up_time,
        missing_since_time,
        next_look_up_time: _,
        lease_id: _,
        create_time,
        update_time,
        version,
    } = row;
    Domain {
        name: Name::Domain(*tenant_id, *id).to_string(),
        domain_name: domain_name.clone(),
        state: i32::try_from(*state).unwrap_or(0),
        record_name: record_name(row),
        record_value: record_value(row),
        verify_time: verify_time.and_then(timestamp),
        look_up_time: look_up_time.and_then(timestamp),
        missing_since_time: missing_since_time.and_then(timestamp),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
    }
}

/// The name of a domain to be made, as it was given.
pub fn new_domain(domain: Option<Domain>) -> Result<String> {
    let Domain {
        name: _,
        domain_name,
        state: _,
        record_name: _,
        record_value: _,
        verify_time: _,
        look_up_time: _,
        missing_since_time: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = domain.ok_or_else(|| Error::field("domain", "is required"))?;
    Ok(domain_name)
}

/// A tenant's synchronisation, with the run that was last begun.
pub fn synchronization(
    tenant: &tenant::Model,
    run: Option<&directory_sync::Model>,
) -> DirectorySynchronization {
    let agent = tenant.sync_agent_id;
    let state = DirectorySynchronization {
        enabled: tenant.synchronized,
        agent: agent.map_or_else(String::new, |id| {
            Name::Application(tenant.id, id).to_string()
        }),
        ..DirectorySynchronization::default()
    };
    let Some(directory_sync::Model {
        tenant_id: _,
        request_id,
        last_sequence,
        upserted_count,
        deleted_count,
        fault_count,
        begin_time,
        update_time,
    }) = run
    else {
        return state;
    };
    DirectorySynchronization {
        request_id: request_id.clone(),
        last_sequence: *last_sequence,
        upserted_count: *upserted_count,
        deleted_count: *deleted_count,
        fault_count: *fault_count,
        begin_time: timestamp(*begin_time),
        update_time: timestamp(*update_time),
        ..state
    }
}

/// An entry that couldn't be taken over.
pub fn directory_fault(row: &directory_sync_fault::Model) -> DirectoryFault {
    let directory_sync_fault::Model {
        tenant_id: _,
        external_id,
        id: _,
        sequence,
        entry_index,
        reason,
        field,
        description,
        create_time,
    } = row;
    let reason = Reason::from_str_name(&format!("ERROR_REASON_{reason}"));
    DirectoryFault {
        external_id: external_id.clone(),
        sequence: *sequence,
        entry_index: i32::try_from(*entry_index).unwrap_or(i32::MAX),
        reason: reason.unwrap_or(Reason::Unspecified) as i32,
        field: field.clone(),
        description: description.clone(),
        create_time: timestamp(*create_time),
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
        sign_in_name: sign_in_name(app, *kind, user_name, prefix),
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

/// What a user signs in as: a guest with the name of its home, an identity with its address.
#[must_use]
pub fn sign_in_name(app: &App, kind: i64, user_name: &str, prefix: &str) -> String {
    if matches!(kind, GUEST | IDENTITY) {
        user_name.to_owned()
    } else {
        format!("{user_name}@{}", domain(app, prefix))
    }
}

/// A group for the wire.
pub fn group(row: &group::Model) -> Group {
    let group::Model {
        id,
        tenant_id,
        display_name,
        display_name_fold: _,
        external_id,
        member_count,
        create_time,
        update_time,
        version,
    } = row;
    Group {
        name: Name::Group(*tenant_id, *id).to_string(),
        display_name: display_name.clone(),
        synchronized: !external_id.is_empty(),
        member_count: *member_count,
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
    }
}

/// The display name of a group to be made.
pub fn new_group(group: Option<Group>) -> Result<String> {
    let Group {
        name: _,
        display_name,
        synchronized: _,
        member_count: _,
        create_time: _,
        update_time: _,
        etag: _,
    } = group.ok_or_else(|| Error::field("group", "is required"))?;
    Ok(display_name)
}

/// A user in a group, as lists read it.
#[derive(FromQueryResult)]
pub struct InGroup {
    pub user_id: Uuid,
    pub tenant_id: Uuid,
    pub display_name: String,
    pub user_name: String,
    pub kind: i64,
    pub state: i64,
    /// When it joined.
    pub create_time: i64,
}

/// A user in a group for the wire; `prefix` is its tenant's domain prefix.
pub fn group_member(app: &App, row: &InGroup, prefix: &str) -> GroupMember {
    let InGroup {
        user_id,
        tenant_id,
        display_name,
        user_name,
        kind,
        state,
        create_time,
    } = row;
    GroupMember {
        user: Name::User(*tenant_id, *user_id).to_string(),
        display_name: display_name.clone(),
        sign_in_name: sign_in_name(app, *kind, user_name, prefix),
        kind: i32::try_from(*kind).unwrap_or(0),
        state: i32::try_from(*state).unwrap_or(0),
        create_time: timestamp(*create_time),
    }
}

/// What others see of a personal identity that is named like a user: what it is called, and until when rights of it sleep.
pub fn named_identity(row: &user::Model, now: i64) -> User {
    User {
        name: Name::Identity(row.id).to_string(),
        given_name: row.given_name.clone(),
        family_name: row.family_name.clone(),
        display_name: row.display_name.clone(),
        state: i32::try_from(row.state).unwrap_or(0),
        rights_asleep_until: row
            .rights_asleep_until
            .filter(|until| now < *until)
            .and_then(timestamp),
        etag: etag(row.version),
        ..User::default()
    }
}

/// A personal identity for the wire.
pub fn identity(row: &user::Model, now: i64) -> Identity {
    let user::Model {
        id,
        tenant_id: _,
        user_name,
        user_name_fold: _,
        given_name,
        family_name,
        display_name,
        display_name_fold: _,
        recovery_email: _,
        kind: _,
        state,
        created_through_account: _,
        rights_asleep_until,
        create_time,
        update_time,
        delete_time,
        purge_time,
        home_id: _,
        home_tenant_id: _,
        external_id: _,
        version,
    } = row;
    let state = match *state {
        ACTIVE => IdentityState::Active,
        DELETED => IdentityState::Closed,
        _ => IdentityState::Unspecified,
    };
    Identity {
        name: Name::Identity(*id).to_string(),
        email: user_name.clone(),
        given_name: given_name.clone(),
        family_name: family_name.clone(),
        display_name: display_name.clone(),
        state: state.into(),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        close_time: delete_time.and_then(timestamp),
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
pub fn key(tenant_id: Uuid, row: &application_key::Model) -> Key {
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
pub fn session(row: &session::Model, current: Uuid) -> Session {
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
        origin_id: _,
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
    check_new_admin(admin, "first_admin", v);
}

/// As `check_first_admin`, of a field elsewhere.
pub fn check_new_admin(admin: Option<&FirstAdmin>, field: &str, v: &mut Violations) {
    if let Some(admin) = admin.filter(|a| !a.password.is_empty())
        && let Some(fault) = password::fault(&admin.password, &admin.user_name)
    {
        v.also(format!("{field}.password"), fault);
    }
}

/// The user of a creation, with its memberships and groups.
pub fn new_user(request: CreateUserRequest) -> Result<(NewUser, Vec<NewMembership>, Vec<String>)> {
    let CreateUserRequest {
        parent: _,
        user,
        memberships,
        groups,
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
    Ok((new, memberships, groups))
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
    /// The personal identity that makes it, if one does.
    pub created_by_identity: Option<Uuid>,
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
        created_by_identity: None,
    })
}

/// An invitation for the wire. `state` is what it is now.
pub fn invitation(row: &invitation::Model, state: i64) -> Invitation {
    let invitation::Model {
        id,
        tenant_id,
        user_id,
        email,
        email_fold: _,
        account_id,
        roles: _,
        permissions: _,
        inviter_id: _,
        inviter_kind: _,
        inviter_tenant_id: _,
        language: _,
        state: _,
        create_time,
        send_time,
        expire_time,
        answer_time,
        version,
    } = row;
    Invitation {
        name: Name::Invitation(*tenant_id, *id).to_string(),
        email: email.clone(),
        user: Name::User(*tenant_id, *user_id).to_string(),
        account: account_id.map_or_else(String::new, |a| Name::Account(a).to_string()),
        rights: account_id.map(|_| promised(row).to_rights()),
        inviter: inviter(row).name(),
        state: i32::try_from(state).unwrap_or(0),
        create_time: timestamp(*create_time),
        send_time: timestamp(*send_time),
        expire_time: timestamp(*expire_time),
        answer_time: answer_time.and_then(timestamp),
        etag: etag(*version),
    }
}

/// What an invitation promises on its account.
pub fn promised(row: &invitation::Model) -> Set {
    Set {
        roles: row.roles,
        single: Permissions::from_stored(&row.permissions),
    }
}

/// In whose name an invitation gives.
pub fn inviter(row: &invitation::Model) -> Principal {
    Principal {
        kind: Kind::from_number(row.inviter_kind).unwrap_or(Kind::User),
        id: row.inviter_id,
        tenant: row.inviter_tenant_id,
    }
}

/// Addresses that one call invites.
const MOST_INVITED: usize = 10;
/// Addresses that are looked at; of a list that is longer, or a text that holds more, only the whole is named.
const MOST_LOOKED_AT: usize = 50;
/// Violations named in one answer, which must fit into its trailers.
const MOST_FAULTS_NAMED: usize = 50;
/// Characters of a bad address that are given back.
const MOST_SHOWN: usize = 60;
/// The longest address (RFC 5321).
const MOST_EMAIL_BYTES: usize = 254;

/// What is to be invited, with what is wrong with the addresses so far.
pub struct NewInvitations {
    /// Those that are addresses, each once, with their places among all that were sent.
    pub addresses: Vec<(usize, String)>,
    pub account: Option<uuid::Uuid>,
    pub rights: Set,
    /// Whether the addresses came as one text.
    as_text: bool,
    faults: Vec<(usize, String, String, Option<Reason>)>,
}

impl NewInvitations {
    /// Adds a fault of the address at a place.
    pub fn fault(&mut self, place: usize, address: &str, what: &str, reason: Option<Reason>) {
        // In a list the place names the address; in a text people look for it by what it is.
        let (field, what) = if self.as_text {
            let shown: String = address.chars().take(MOST_SHOWN).collect();
            let what = format!("address {} ({shown}) {what}", place + 1);
            ("emails_text".to_owned(), what)
        } else {
            (format!("emails[{place}]"), what.to_owned())
        };
        self.faults.push((place, field, what, reason));
    }

    /// Refuses it with all faults of its addresses, in their order.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub fn check(&mut self) -> Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let mut faults = std::mem::take(&mut self.faults);
        faults.sort_by_key(|(place, ..)| *place);
        faults.truncate(MOST_FAULTS_NAMED);
        let faults = faults.into_iter().map(|(_, f, what, r)| (f, what, r));
        Err(Error::invalid_for(faults.collect()))
    }
}

/// The addresses of a request, taken apart; one more than are looked at, if there are so many.
fn sent_addresses(request: &InviteUsersRequest) -> Vec<&str> {
    let list = request.emails.iter().map(String::as_str);
    let parts = request.emails_text.split([',', ';']).map(str::trim);
    list.chain(parts.filter(|p| !p.is_empty()))
        .take(MOST_LOOKED_AT + 1)
        .collect()
}

/// What is wrong with an invitation beyond the declared limits. Its addresses are told together with what only the data tells, unless
/// something else is wrong already.
pub fn check_invitations(request: &InviteUsersRequest, v: &mut Violations) {
    let (listed, as_text) = (!request.emails.is_empty(), !request.emails_text.is_empty());
    if !listed && !as_text {
        v.also("emails", "is required, or emails_text");
    } else if listed && as_text {
        v.also("emails_text", "is set beside emails");
    } else if as_text {
        match sent_addresses(request).len() {
            0 => v.also("emails_text", "holds no address"),
            n if n > MOST_LOOKED_AT => v.also(
                "emails_text",
                format!("holds more than {MOST_LOOKED_AT} addresses"),
            ),
            _ => {}
        }
    }
    if request.account.is_empty() && request.rights.is_some() {
        v.also("account", "is required where rights are given");
    }
    Set::check(request.rights.as_ref(), "rights", v);
    if !v.is_empty() {
        for (_, field, what, _) in new_invitations(request).faults {
            v.add(field, what);
        }
    }
}

/// The addresses of an invitation, and what their guests are to hold (INV-1).
pub fn new_invitations(request: &InviteUsersRequest) -> NewInvitations {
    let InviteUsersRequest {
        parent: _,
        emails: _,
        emails_text,
        account,
        rights,
        request_id: _,
        validate_only: _,
    } = request;
    let mut new = NewInvitations {
        addresses: Vec::new(),
        account: Name::parse(account).map(|n| n.id()),
        rights: Set::of_request(rights.as_ref()),
        as_text: !emails_text.is_empty(),
        faults: Vec::new(),
    };
    let mut seen = std::collections::BTreeSet::new();
    for (place, address) in sent_addresses(request).into_iter().enumerate() {
        if place >= MOST_LOOKED_AT {
            break;
        }
        if place >= MOST_INVITED {
            let what = format!("is one too many: {MOST_INVITED} are invited at once");
            new.fault(place, address, &what, None);
        }
        if !check::is_email(address) || address.len() > MOST_EMAIL_BYTES {
            new.fault(place, address, "is no single e-mail address", None);
        } else if seen.insert(fold(address)) {
            new.addresses.push((place, address.to_owned()));
        } else {
            new.fault(place, address, "stands there before", None);
        }
    }
    new
}
