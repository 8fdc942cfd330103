//! AccountService, enrolment: opening an account, changing what it tells of its company, submitting it (ACC-1 to ACC-6). In one call or in
//! steps, the same functions do the work.

use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, Set};
use serde_json::Value as Json;
use tonic::Code;
use uuid::Uuid;

use super::{
    acceptance::{self, Consent},
    brought,
    entity::{
        account::{Entity, Model},
        network_membership,
    },
    involvement, network,
    profile::{self, Profile},
    publisher_name, requirement, step,
    tenant_association::verify_admin_token,
    verification, wire,
};
use crate::{
    access::{
        account_state,
        answers::demand_of_token,
        grants::{self, ADMIN_AGENT, MANAGER},
        principal::{Authenticated, Kind, Principal},
        roles::Permission,
        scope::{CallerScope, Proof},
    },
    app::{Outside, Tx},
    check::Violations,
    directory,
    error::{Error, Reason, Result, reason_name},
    names::Name,
    proto::{
        access::AgreementKind,
        account::{
            Account, AccountState, AccountType, AgreementConsent, CreateAccountRequest,
            CreateAccountResponse, NewTenant, RequirementBlock, RequirementCode,
            SubmitAccountRequest, UpdateAccountRequest,
        },
    },
    store::{list::fold, outbox::Event, scope_key::ScopeKey, update},
};

const JOIN: &str = "entente.account.v1.NetworkService/JoinNetwork";
/// The ways to be, or to bring, a global admin.
const WAYS: &str = "tenant_admin_token, new_tenant";
const NEEDED: &str = "is needed to submit";

// ---- opening

pub(crate) fn check_create_account(req: &CreateAccountRequest, v: &mut Violations) {
    if let Some(account) = &req.account {
        profile::check_form(account, "account", v);
        profile::check_country(account, "account", v);
    }
    if let Some(new) = &req.new_tenant {
        if !req.tenant_admin_token.is_empty() {
            v.also("new_tenant", "stands beside tenant_admin_token; give one");
        }
        directory::wire::check_new_admin(new.first_admin.as_ref(), "new_tenant.first_admin", v);
    }
    match &req.account {
        Some(account) if !req.submit => profile::check(account, "account", v),
        // What can't be submitted tells all that it lacks: here beside what is wrong with it, else with what only the data tells (`finish`).
        Some(account) if !v.is_empty() => {
            for field in profile::missing(account) {
                v.also(format!("account.{field}"), NEEDED);
            }
            if req.agreement.is_none() {
                v.also("agreement", NEEDED);
            }
            if !req.signatory_confirmed {
                v.also("signatory_confirmed", NEEDED);
            }
        }
        _ => {}
    }
}

/// What is made ready outside of the transaction: whose the second token is, and the hash of a new admin's password.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    admin: Option<Authenticated>,
    hash: Option<String>,
}

/// Reads the second token, hashes the new admin's password.
///
/// # Errors
/// `INVALID_ARGUMENT` for a token that isn't good; `OVERLOADED`.
pub async fn prepare_create_account(
    outside: &Outside,
    _proof: Proof,
    req: &CreateAccountRequest,
) -> Result<Prepared> {
    let admin = match req.tenant_admin_token.as_str() {
        "" => None,
        token => Some(verify_admin_token(outside, token).await?),
    };
    let new = req.new_tenant.as_ref().and_then(|n| n.first_admin.as_ref());
    Ok(Prepared {
        admin,
        hash: directory::tenant::hash_first_password(outside, new).await?,
    })
}

/// The tenant of a new account, and who of it becomes the first member.
struct Opening {
    tenant: Uuid,
    admin: Principal,
    made: Option<directory::tenant::Made>,
}

/// Opens an account.
///
/// # Errors
/// `NOT_GLOBAL_ADMIN`, `NOT_NETWORK_MEMBER`, `INDIVIDUAL_ACCOUNTS_DEPRECATED`, `PUBLISHER_NAME_TAKEN`, `PUBLISHER_NAME_RESERVED`,
/// `ENROLMENT_INCOMPLETE`, `OPERATOR_TENANT`, `IDENTITY_ALREADY_TIED`; those of accepting.
pub async fn create_account(
    tx: &mut Tx,
    scope: CallerScope,
    req: CreateAccountRequest,
    prepared: Prepared,
) -> Result<CreateAccountResponse> {
    let CreateAccountRequest {
        account,
        network_membership,
        tenant_admin_token: _,
        new_tenant,
        submit,
        agreement,
        signatory_confirmed,
        request_id: _,
        validate_only: _,
    } = req;
    let mut account = account.ok_or_else(|| Error::field("account", "is required"))?;
    if account.r#type() == AccountType::Individual {
        return Err(Error::precondition(Reason::IndividualAccountsDeprecated));
    }
    let who = scope.principal();
    let opening = opening(tx, who, new_tenant, prepared).await?;
    let membership = membership_for(tx, who, &opening, &network_membership).await?;
    brought::fill(tx, &membership, &mut account).await?;
    let mut refused = Vec::new();
    if submit {
        // A name that can't be taken is told of with all that is missing, and no reason to stop here.
        let name = &mut account.publisher_display_name;
        if let Err(error) = publisher_name::check(tx, name).await {
            if error.is_ours() {
                return Err(error);
            }
            refused.push((name_field(), error));
            name.clear();
        }
    }
    let row = insert(tx, &account, &membership, signatory_confirmed).await?;
    let name = Name::Account(row.id);
    grants::associate(tx, row.id, opening.tenant).await?;
    publisher_name::claim(tx, row.id, &row.publisher_display_name).await?;
    give(
        tx,
        row.id,
        opening.admin,
        MANAGER | ADMIN_AGENT,
        grants::By::Caller,
    )
    .await?;
    if who.kind == Kind::Identity {
        let why = grants::Tie::Excepted(tx.method());
        let set = grants::tie_owner(tx, row.id, who.id, None, why).await?;
        joined(tx, row.id, who, set);
    }
    let null = || Json::Null;
    tx.emit(
        Event::new("entente.account.v1.AccountOpened", name)
            .change(
                "publisher_display_name",
                null(),
                row.publisher_display_name.clone(),
            )
            .change("legal_name", null(), row.legal_name.clone())
            .change("country_code", null(), row.country_code.clone())
            .change("state", null(), row.state)
            .also_in(ScopeKey::Tenant(opening.tenant)),
    );
    let row = if submit {
        finish(tx, row, agreement, refused).await?
    } else {
        if let Some(consent) = agreement {
            consent_to(tx, row.id, consent).await?;
        }
        row
    };
    let language = tx.caller().language;
    let requirements = requirement::of_account(tx.db(), tx.app(), &row, language, tx.now()).await?;
    let (tenant, first_admin, temporary_password) = match opening.made {
        Some(made) => (
            Some(made.tenant),
            Some(made.first_admin),
            made.temporary_password,
        ),
        None => (None, None, String::new()),
    };
    Ok(CreateAccountResponse {
        account: Some(wire::account(&row)),
        requirements,
        tenant,
        first_admin,
        temporary_password,
        secret_omitted: false,
    })
}

/// Whose tenant the account is opened for: that of a global admin who calls, that of the admin whose token an identity brings, or a new one.
async fn opening(
    tx: &mut Tx,
    who: Principal,
    new_tenant: Option<NewTenant>,
    prepared: Prepared,
) -> Result<Opening> {
    let no_admin = || Error::refused(Reason::NotGlobalAdmin).with("ways", WAYS);
    let refused = |error: Error| {
        if error.reason() == Reason::PermissionMissing {
            no_admin()
        } else {
            error
        }
    };
    match (who.kind, new_tenant, prepared.admin) {
        (Kind::Identity, Some(new), None) => {
            let NewTenant {
                tenant,
                first_admin,
            } = new;
            let mut tenant = directory::wire::new_tenant(tenant)?;
            tenant.created_by_identity = Some(who.id);
            let (admin, _) = directory::wire::first_admin(first_admin)?;
            let made =
                directory::tenant::make(tx, tenant, admin, prepared.hash, grants::By::Caller)
                    .await?;
            let admin = Principal {
                kind: Kind::User,
                id: made.first_admin_id,
                tenant: made.id,
            };
            Ok(Opening {
                tenant: made.id,
                admin,
                made: Some(made),
            })
        }
        (Kind::Identity, None, Some(admin)) => {
            let tenant = admin.principal.tenant;
            directory::tenant::not_the_operators(tx, tenant)?;
            tx.lock([ScopeKey::Tenant(tenant)]).await?;
            let caller = tx.caller().clone();
            let token = ("tenant_admin_token", admin);
            let permission = Permission::TenantUpdate;
            demand_of_token(tx.db(), token, permission, tenant, &caller, tx.now())
                .await
                .map_err(refused)?;
            Ok(Opening {
                tenant,
                admin: admin.principal,
                made: None,
            })
        }
        (Kind::User, None, None) => {
            let tenant = Name::Tenant(who.tenant);
            let demanded = tx.demand(Permission::TenantUpdate, tenant).await;
            demanded.map_err(refused)?;
            directory::tenant::not_the_operators(tx, who.tenant)?;
            Ok(Opening {
                tenant: who.tenant,
                admin: who,
                made: None,
            })
        }
        _ => Err(no_admin()),
    }
}

/// The membership of the network that an account is opened with: the one named, the caller's own, or the only one of the tenant.
async fn membership_for(
    tx: &Tx,
    who: Principal,
    opening: &Opening,
    named: &str,
) -> Result<network_membership::Model> {
    use network_membership::Column;
    let missing = || Error::precondition(Reason::NotNetworkMember).with("method", JOIN);
    let unused = network_membership::Entity::find().filter(Column::AccountId.is_null());
    let found = match Name::parse(named) {
        Some(Name::NetworkMembership(id)) => unused.filter(Column::Id.eq(id)).one(tx.db()).await?,
        _ => {
            let own = unused.clone().filter(Column::JoinedById.eq(who.id));
            match own.one(tx.db()).await? {
                Some(own) => Some(own),
                None => {
                    let of_tenant = unused.filter(Column::JoinedByTenantId.eq(opening.tenant));
                    let mut two = sea_orm::QuerySelect::limit(of_tenant, 2)
                        .all(tx.db())
                        .await?;
                    if two.len() == 1 { two.pop() } else { None }
                }
            }
        }
    };
    let found = found.ok_or_else(missing)?;
    let joined_by = network::joined_by(&found);
    let is_theirs = joined_by == who
        || (joined_by.kind != Kind::Identity && joined_by.tenant == opening.tenant);
    if is_theirs { Ok(found) } else { Err(missing()) }
}

async fn insert(
    tx: &mut Tx,
    account: &Account,
    membership: &network_membership::Model,
    signatory_confirmed: bool,
) -> Result<Model> {
    let (id, now) = (tx.id(), tx.now());
    let mut row = wire::new_account(id, account, now);
    row.state = AccountState::Draft as i64;
    row.membership_id = Some(membership.id);
    row.opened_by = tx.caller().name();
    if signatory_confirmed {
        row.signatory = tx.caller().name();
    }
    tx.insert(row.clone()).await?;
    tx.open_scope(ScopeKey::Account(id)).await?;
    let mut used = membership.clone().into_active_model();
    used.account_id = Set(Some(id));
    used.update_time = Set(now);
    used.version = Set(membership.version + 1);
    used.update(tx.db()).await?;
    Ok(row)
}

/// Makes somebody a member of the new account.
async fn give(tx: &mut Tx, account: Uuid, to: Principal, roles: i64, by: grants::By) -> Result<()> {
    let set = grants::Set::of_roles(roles);
    grants::set(tx, ScopeKey::Account(account), to, set, by).await?;
    joined(tx, account, to, set);
    Ok(())
}

/// Tells that somebody is a member of a new account.
fn joined(tx: &mut Tx, account: Uuid, to: Principal, set: grants::Set) {
    tx.emit(
        Event::new(
            "entente.account.v1.MemberAdded",
            Name::Member(account, to.id),
        )
        .change("rights", Json::Null, set.to_rights())
        .touches(to.id)
        .also_in(to.home()),
    );
}

async fn consent_to(tx: &mut Tx, account: Uuid, consent: AgreementConsent) -> Result<()> {
    let AgreementConsent {
        version,
        language_code,
    } = consent;
    let consent = Consent {
        kind: AgreementKind::PartnerNetwork,
        number: version,
        language: &language_code,
        field: "agreement.language_code",
    };
    acceptance::accept(tx, ScopeKey::Account(account), consent).await?;
    Ok(())
}

// ---- submitting

/// Submits a draft.
///
/// # Errors
/// `ENROLMENT_INCOMPLETE` naming all that is missing, `WRONG_STATE`, `ETAG_MISMATCH`; those of accepting.
pub async fn submit_account(
    tx: &mut Tx,
    proof: Proof,
    req: SubmitAccountRequest,
) -> Result<Account> {
    let SubmitAccountRequest {
        name,
        agreement,
        signatory_confirmed,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let mut row = authorized(tx, &proof, &name, Permission::VerificationSubmit).await?;
    update::check_etag(&etag, row.version)?;
    account_state::check_transition(row.state, AccountState::Pending)?;
    if signatory_confirmed {
        row.signatory = tx.caller().name();
    }
    let row = finish(tx, row, agreement, Vec::new()).await?;
    Ok(wire::account(&row))
}

fn name_field() -> String {
    "account.publisher_display_name".to_owned()
}

/// A draft becomes `PENDING` if it lacks nothing. `refused` are fields that can't be taken as they are, which are named with what is missing.
async fn finish(
    tx: &mut Tx,
    row: Model,
    agreement: Option<AgreementConsent>,
    mut refused: Vec<(String, Error)>,
) -> Result<Model> {
    if let Some(consent) = agreement
        && let Err(error) = consent_to(tx, row.id, consent).await
    {
        if error.is_ours() {
            return Err(error);
        }
        refused.push(("agreement".to_owned(), error));
    }
    let language = tx.caller().language;
    let all = requirement::of_account(tx.db(), tx.app(), &row, language, tx.now()).await?;
    let mut missing: Vec<(String, String)> = all
        .into_iter()
        .filter(|r| r.blocks() == RequirementBlock::Submission)
        .map(|r| {
            let field = match (r.code(), r.field.as_str()) {
                (RequirementCode::Signatory, _) => "signatory_confirmed".to_owned(),
                (code, "") => {
                    let name = code.as_str_name();
                    name.trim_start_matches("REQUIREMENT_CODE_").to_lowercase()
                }
                (_, field) => format!("account.{field}"),
            };
            (field, format!("{} ({})", r.text, r.method))
        })
        .collect();
    // What was refused is told with its own reason if nothing else is wrong.
    let lacks_more = missing
        .iter()
        .any(|(field, _)| refused.iter().all(|(refused, _)| refused != field));
    if !lacks_more && refused.len() == 1 {
        return Err(refused.remove(0).1);
    }
    for (field, error) in &refused {
        let text = reason_name(error.reason()).to_owned();
        match missing.iter_mut().find(|(named, _)| named == field) {
            Some((_, told)) => *told = text,
            None => missing.push((field.clone(), text)),
        }
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|(field, _)| field.as_str()).collect();
        let names = names.join(", ");
        return Err(Error::precondition(Reason::EnrolmentIncomplete)
            .with("missing", names)
            .with_fields(missing));
    }
    let mut changed = row.clone().into_active_model();
    changed.state = Set(AccountState::Pending as i64);
    changed.signatory = Set(row.signatory.clone());
    changed.submit_time = Set(Some(tx.now()));
    changed.reverifying = Set(0);
    changed.update_time = Set(tx.now());
    changed.version = Set(row.version + 1);
    let changed: Model = changed.update(tx.db()).await?;
    state_changed(tx, &row, &changed);
    verification::begin(tx, &changed).await?;
    Ok(changed)
}

/// Where the principal of a name is reached; nowhere, if it is nobody any more. A personal identity first at its name.
pub(super) async fn address_of(tx: &Tx, principal: &str) -> Result<Vec<String>> {
    let id = Name::parse(principal).map(|n| n.id()).unwrap_or_default();
    grants::addresses_of_person(tx.db(), id).await
}

/// Tells that the state of an account changed.
pub(super) fn state_changed(tx: &mut Tx, old: &Model, new: &Model) {
    tx.emit(
        Event::new(
            "entente.account.v1.AccountStateChanged",
            Name::Account(new.id),
        )
        .change("state", old.state, new.state)
        .change(
            "suspension_reason",
            old.suspension_reason.clone(),
            new.suspension_reason.clone(),
        ),
    );
}

/// The account that was proven, or, of its drafts, that a global admin of an associated tenant calls for (ACC-1).
async fn authorized(
    tx: &mut Tx,
    proof: &Proof,
    name: &str,
    otherwise: Permission,
) -> Result<Model> {
    let denied = || Error::denied(otherwise);
    let id = Name::parse(name).map(|n| n.id()).unwrap_or_default();
    if proof.account().is_ok() {
        return Entity::find_by_id(id)
            .one(tx.db())
            .await?
            .ok_or_else(|| Error::not_found("entente.dev/Account", name));
    }
    let who = proof.caller()?.principal();
    tx.lock([ScopeKey::Account(id)]).await?;
    let row = Entity::find_by_id(id).one(tx.db()).await?;
    let is_theirs = grants::is_associated(tx.db(), id, who.tenant).await?;
    let demanded = tx
        .demand(Permission::TenantUpdate, Name::Tenant(who.tenant))
        .await;
    let may = match demanded {
        Ok(()) => true,
        Err(error) if error.code() == Code::PermissionDenied => false,
        Err(error) => return Err(error),
    };
    row.filter(|row| is_theirs && may && row.state == AccountState::Draft as i64)
        .ok_or_else(denied)
}

// ---- changing

pub(crate) fn check_update_account(req: &UpdateAccountRequest, v: &mut Violations) {
    if let Some(account) = &req.account {
        profile::check(account, "account", v);
    }
}

/// Changes an account's profile.
///
/// # Errors
/// `PUBLISHER_NAME_TAKEN`, `PUBLISHER_NAME_RESERVED`, `TOO_MANY_CALLS`, `ETAG_MISMATCH`; `INVALID_ARGUMENT` for what a submitted account would lack.
pub async fn update_account(
    tx: &mut Tx,
    proof: Proof,
    req: UpdateAccountRequest,
) -> Result<Account> {
    let UpdateAccountRequest {
        account,
        update_mask,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let new = account.ok_or_else(|| Error::field("account", "is required"))?;
    let old = authorized(tx, &proof, &new.name, Permission::AccountUpdate).await?;
    update::check_etag(&etag, old.version)?;
    let fields = update::fields(update_mask.as_ref(), &new);
    let row = change(tx, &old, &new, &fields).await?;
    Ok(wire::account(&row))
}

/// Changes fields of an account's profile to what another one has.
///
/// # Errors
/// `PUBLISHER_NAME_TAKEN`, `PUBLISHER_NAME_RESERVED`; `INVALID_ARGUMENT` for what a submitted account would lack.
pub(super) async fn change(
    tx: &mut Tx,
    old: &Model,
    new: &Account,
    fields: &[&'static str],
) -> Result<Model> {
    let (before, sent) = (wire::account(old), Profile::of(new));
    let before_profile = Profile::from_stored(&old.profile);
    let mut profile = before_profile.clone();
    let mut row = old.clone();
    let mut event = Event::new("entente.account.v1.AccountUpdated", Name::Account(old.id));
    for field in fields {
        match *field {
            "publisher_display_name" => {
                row.publisher_display_name = new.publisher_display_name.clone();
                row.publisher_display_name_fold = fold(&new.publisher_display_name);
            }
            "legal_name" => {
                row.legal_name = new.legal_name.clone();
                row.legal_name_fold = fold(&new.legal_name);
            }
            "address" => profile.address = sent.address.clone(),
            "primary_contact" => profile.primary_contact = sent.primary_contact.clone(),
            "seller_contact" => profile.seller_contact = sent.seller_contact.clone(),
            "company_approver" => profile.company_approver = sent.company_approver.clone(),
            other => {
                return Err(Error::internal(format!(
                    "{other} is mutable, but nobody changes it"
                )));
            }
        }
    }
    row.profile = profile.to_stored();
    let is_other = row.legal_name != old.legal_name || profile.address != before_profile.address;
    if is_other && row.state == AccountState::Draft as i64 {
        // The word was given for another company.
        row.signatory = String::new();
    }
    row.version += 1;
    row.update_time = tx.now();
    row.idle_told_time = None;
    let after = wire::account(&row);
    check_whole(&row, &after)?;
    for (field, was, is) in wire::changes(&before, &after) {
        event = event.change(field, was, is);
    }
    if row.publisher_display_name != old.publisher_display_name {
        publisher_name::claim(tx, row.id, &row.publisher_display_name).await?;
    }
    row.clone()
        .into_active_model()
        .reset_all()
        .update(tx.db())
        .await?;
    involvement::contacts_left(tx, row.id, &before_profile, &profile).await?;
    let row = step::profile_changed(tx, old, row).await?;
    tx.emit(event);
    Ok(row)
}

/// What was submitted stays whole; an address stays in the account's country.
fn check_whole(row: &Model, after: &Account) -> Result<()> {
    let mut v = Violations::default();
    profile::check_country(after, "account", &mut v);
    if row.state != AccountState::Draft as i64 && row.submit_time.is_some() {
        for field in profile::missing(after) {
            v.also(
                format!("account.{field}"),
                "is needed by a submitted account",
            );
        }
    }
    v.none()
}
