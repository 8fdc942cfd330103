//! RecoveryService: the way back where nobody is left who could give it (PWD-10).
//!
//! A case is open → waiting, once another person of the operator approved it → mailed, 72 hours later → completed, when the person chose a
//! password; it is stopped before that by whoever got a mail, or by the operator, and expires if the link isn't used. Nothing is given, and no
//! address changed, before it is mailed. A stopped case is opened again by two others, with more evidence, and then the operator only stops it.
//!
//! Evidence is documents, and a record in a verified domain, which is looked up as the case is approved. Where nobody is left in a tenant a case
//! makes a new global admin when it is mailed, who is gone again if the link isn't used. It may also make another identity the owner in the
//! place of one who can't come back; that one's finances begin 7 days later.
//!
//! All steps lock the operator, so they take turns. Staff sees no password and no token: the link goes to the proven address.

use std::collections::BTreeSet;

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel,
    QueryFilter, QueryOrder, Value, sea_query::ExprTrait as _,
};
use uuid::Uuid;

use super::{
    ACTIVE, DELETED, GUEST,
    domain::LookedUp,
    entity::{
        recovery_case::{Column, Entity, Model},
        user,
    },
    recovery_evidence as evidence, recovery_return, tenant, user_change,
};
use crate::{
    access::{
        grants::{self, GLOBAL_ADMIN, MANAGER, OWNER},
        link::{self, Link},
        principal::{Kind, Principal},
        scope::{OperatorScope, Proof},
    },
    app::{Read, Tx},
    check::Violations,
    document::{self, Subject, SubjectKind},
    env::{HOUR_US, Micros},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::LinkKind,
        directory::{
            ApproveRecoveryCaseRequest, GetRecoveryCaseRequest, ListRecoveryCasesRequest,
            ListRecoveryCasesResponse, NewAdmin, OpenRecoveryCaseRequest, RecoveryCase,
            RecoveryCaseState as State, RecoveryRole as Role, StopRecoveryCaseRequest,
            StopRecoveryCaseResponse,
        },
    },
    store::{
        filter::{Field, Kind as FilterKind, OrderField},
        list::{Listing, fold},
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::{self, rfc3339},
        update,
    },
};

/// What passes between the approval and the link.
const WAIT_US: Micros = 72 * HOUR_US;
/// Accounts of a tenant whose owners and contacts are told, and tenants of an account whose admins are.
const MOST_NEIGHBOURS: i64 = 100;
/// Cases that open each other again; one more needs people who can't be told apart from theirs any more.
const MOST_REOPENED: usize = 50;
/// Holders of a role who are told, on each scope.
const MOST_TOLD: i64 = 200;
/// Documents that one case takes, as the proto declares.
const MOST_DOCUMENTS: usize = 20;

const STATES: &[(&str, i64)] = &[
    ("OPEN", State::Open as i64),
    ("WAITING", State::Waiting as i64),
    ("MAILED", State::Mailed as i64),
    ("COMPLETED", State::Completed as i64),
    ("STOPPED", State::Stopped as i64),
    ("EXPIRED", State::Expired as i64),
];
const ROLES: &[(&str, i64)] = &[
    ("GLOBAL_ADMIN", Role::GlobalAdmin as i64),
    ("MANAGER", Role::Manager as i64),
    ("OWNER", Role::Owner as i64),
];

/// What lists of cases can be asked.
static LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "state",
            ("recovery_cases", "state"),
            FilterKind::Enum(STATES),
        ),
        Field::new("role", ("recovery_cases", "role"), FilterKind::Enum(ROLES)),
        Field::new(
            "create_time",
            ("recovery_cases", "create_time"),
            FilterKind::TIME,
        ),
    ],
    orders: &[OrderField::new(
        "create_time",
        ("recovery_cases", "create_time"),
    )],
    id: ("recovery_cases", "id"),
};

impl Model {
    pub(super) fn person(&self) -> Principal {
        Principal {
            kind: Kind::from_number(self.person_kind).unwrap_or(Kind::User),
            id: self.person_id,
            tenant: self.person_tenant_id,
        }
    }

    pub(super) fn scope(&self) -> Result<ScopeKey> {
        ScopeKey::from_parts(self.scope_kind, self.scope_id)
            .ok_or_else(|| Error::internal("a case of recovery on no scope"))
    }

    fn scope_name(&self) -> Result<Name> {
        match self.scope()? {
            ScopeKey::Tenant(id) => Ok(Name::Tenant(id)),
            ScopeKey::Account(id) => Ok(Name::Account(id)),
            _ => Err(Error::internal(
                "a case of recovery on no tenant or account",
            )),
        }
    }

    pub(super) fn name(&self) -> Name {
        Name::RecoveryCase(self.id)
    }

    /// Whether it makes a new admin.
    pub(super) fn makes_admin(&self) -> bool {
        !self.new_user_name.is_empty()
    }

    /// The role's bit, as in grants.
    pub(super) fn bit(&self) -> i64 {
        match Role::try_from(i32::try_from(self.role).unwrap_or_default()) {
            Ok(Role::GlobalAdmin) => GLOBAL_ADMIN,
            Ok(Role::Manager) => MANAGER,
            Ok(Role::Owner) => OWNER,
            Ok(Role::Unspecified) | Err(_) => 0,
        }
    }
}

async fn to_wire<C: ConnectionTrait>(db: &C, row: &Model) -> Result<RecoveryCase> {
    let documents = document::of_subject(db, SubjectKind::RecoveryCase, row.id).await?;
    with_documents(
        row,
        documents.iter().map(|d| d.name().to_string()).collect(),
    )
}

fn with_documents(row: &Model, documents: Vec<String>) -> Result<RecoveryCase> {
    let (domain_record_name, domain_record_value) = evidence::record(row).unwrap_or_default();
    Ok(RecoveryCase {
        domain: row.domain_id.map_or_else(String::new, |id| {
            Name::Domain(row.domain_tenant_id.unwrap_or_default(), id).to_string()
        }),
        domain_record_name,
        domain_record_value,
        domain_prove_time: row.domain_prove_time.and_then(time::timestamp),
        name: row.name().to_string(),
        role: i32::try_from(row.role).unwrap_or_default(),
        scope: row.scope_name()?.to_string(),
        person: if row.person_id.is_nil() {
            String::new()
        } else {
            row.person().name()
        },
        new_admin: row.makes_admin().then(|| NewAdmin {
            user_name: row.new_user_name.clone(),
            given_name: row.new_given_name.clone(),
            family_name: row.new_family_name.clone(),
        }),
        proven_email: row.proven_email.clone(),
        documents,
        note: row.note.clone(),
        reopens: row
            .reopens_id
            .map_or_else(String::new, |id| Name::RecoveryCase(id).to_string()),
        state: i32::try_from(row.state).unwrap_or_default(),
        opened_by: row.opened_by.clone(),
        approved_by: row.approved_by.clone(),
        stopped_by: row.stopped_by.clone(),
        stop_reason: row.stop_reason.clone(),
        create_time: time::timestamp(row.create_time),
        approve_time: row.approve_time.and_then(time::timestamp),
        due_time: row.due_time.and_then(time::timestamp),
        end_time: row.end_time.and_then(time::timestamp),
        etag: update::etag(row.version),
        replaces: row
            .replaces_id
            .map_or_else(String::new, |id| Name::Identity(id).to_string()),
    })
}

// ---- opening

/// The scope and the person of a request, where they fit the role.
fn named(new: &RecoveryCase) -> Option<(ScopeKey, Principal)> {
    let scope = Name::parse(&new.scope)?;
    if new.person.is_empty() {
        // One who is made is nobody yet.
        let (Name::Tenant(tenant), Role::GlobalAdmin) = (scope, new.role()) else {
            return None;
        };
        new.new_admin.as_ref()?;
        let nobody = Principal {
            kind: Kind::User,
            id: Uuid::nil(),
            tenant,
        };
        return Some((scope.scope(), nobody));
    }
    let person = Name::parse(&new.person)?;
    let fits = matches!(
        (new.role(), scope, person),
        (Role::GlobalAdmin, Name::Tenant(_), Name::User(..))
            | (Role::Manager, Name::Account(_), Name::User(..))
            | (Role::Owner, Name::Account(_), Name::Identity(_))
    );
    fits.then_some((scope.scope(), Principal::of(person)?))
}

pub(crate) fn check_open_recovery_case(req: &OpenRecoveryCaseRequest, v: &mut Violations) {
    let Some(new) = &req.recovery_case else {
        return;
    };
    if new.documents.is_empty() && new.domain.is_empty() {
        v.also("recovery_case.documents", "are needed without a domain");
    }
    if new.person.is_empty() == new.new_admin.is_none() {
        v.also(
            "recovery_case.person",
            "is needed, or else new_admin, and not both",
        );
        return;
    }
    if new.new_admin.is_some() && Name::parse(&new.scope).is_some() && named(new).is_none() {
        v.also(
            "recovery_case.new_admin",
            "is made as the global admin of a tenant only",
        );
    }
    let parsed = Name::parse(&new.scope).is_some() && Name::parse(&new.person).is_some();
    if parsed && new.role() != Role::Unspecified && named(new).is_none() {
        v.also(
            "recovery_case.role",
            "is a global admin's of a tenant, a manager's of an account, both users, or an owner's, who is an identity",
        );
    }
}

/// Opens a case.
///
/// # Errors
/// `INVALID_ARGUMENT` for a person who can't come back as that, documents that aren't the caller's, or a domain that proves nothing there;
/// `RECOVERY_CASE_OPEN`, `RECOVERY_CASE_STOPPED` where one must be opened again, `ANOTHER_OPERATOR`, `OPERATOR_TENANT`.
pub async fn open_recovery_case(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: OpenRecoveryCaseRequest,
) -> Result<RecoveryCase> {
    let new = req
        .recovery_case
        .ok_or_else(|| Error::field("recovery_case", "is required"))?;
    let who = caller(tx)?;
    let (scope, person) =
        named(&new).ok_or_else(|| Error::field("recovery_case.role", "doesn't fit"))?;
    // Nor a person of the operator by way of an account: it would come back with its operator roles.
    let operator = tx.app().operator_tenant();
    if scope == ScopeKey::Tenant(operator) || person.tenant == operator {
        return Err(Error::precondition(Reason::OperatorTenant));
    }
    let reopens = match Name::parse(&new.reopens) {
        Some(Name::RecoveryCase(id)) => Some(id),
        _ => None,
    };
    not_to_staff(tx, who, &new.proven_email).await?;
    let domain = evidence::named(tx, scope, &new.domain).await?;
    let replaces_id = match scope {
        ScopeKey::Account(account) if new.role() == Role::Owner => {
            let owner = grants::owner_of(tx.db(), account).await?;
            owner.map(|(id, _)| id).filter(|id| *id != person.id)
        }
        _ => None,
    };
    let new_admin = new.new_admin.unwrap_or_default();
    let row = Model {
        id: tx.id(),
        role: i64::from(new.role),
        scope_kind: scope.kind(),
        scope_id: scope.id(),
        person_kind: person.kind as i16,
        person_id: person.id,
        person_tenant_id: person.tenant,
        proven_email: new.proven_email,
        note: new.note,
        reopens_id: reopens,
        state: State::Open as i64,
        opened_by_id: who.id,
        opened_by: who.name(),
        approved_by_id: None,
        approved_by: String::new(),
        stopped_by: String::new(),
        stop_reason: String::new(),
        create_time: tx.now(),
        approve_time: None,
        due_time: None,
        end_time: None,
        version: 1,
        new_user_name: new_admin.user_name,
        new_given_name: new_admin.given_name,
        new_family_name: new_admin.family_name,
        domain_id: domain.as_ref().map(|d| d.id),
        domain_tenant_id: domain.as_ref().map(|d| d.tenant_id),
        domain_token: match &domain {
            Some(_) => evidence::token(tx),
            None => String::new(),
        },
        domain_name: domain.map_or_else(String::new, |d| d.domain_name),
        domain_prove_time: None,
        replaces_id,
        former_email: None,
    };
    if row.makes_admin() && !may_be_made(tx, &row).await? {
        return Err(Error::field(
            "recovery_case.new_admin",
            "is made where no global admin can sign in, in an active tenant, under a user name that nobody has",
        ));
    }
    if !row.makes_admin() && eligible(tx, &row).await?.is_none() {
        return Err(Error::field(
            "recovery_case.person",
            "is nobody who can come back as that there: active, no guest, of the tenant or an associated one, or the owner",
        ));
    }
    not_involved(tx, who, &row).await?;
    after_the_stopped_one(tx, who, &row, new.documents.len()).await?;
    tx.insert(row.clone()).await?;
    let subject = Subject {
        kind: SubjectKind::RecoveryCase,
        id: row.id,
        account: None,
    };
    document::attach(tx, subject, &new.documents, "recovery_case.documents").await?;
    let null = || serde_json::Value::Null;
    let shown = to_wire(tx.db(), &row).await?;
    tx.emit(
        Event::new("entente.directory.v1.RecoveryCaseOpened", row.name())
            .change("role", null(), shown.role)
            .change("scope", null(), shown.scope.clone())
            .change("person", null(), shown.person.clone())
            .change("reopens", null(), shown.reopens.clone())
            .change("domain", null(), shown.domain.clone())
            .change("replaces", null(), shown.replaces.clone())
            .change("state", null(), shown.state),
    );
    Ok(shown)
}

fn caller(tx: &Tx) -> Result<Principal> {
    let who = tx.caller().who.map(|who| who.principal);
    who.ok_or_else(|| Error::internal("nobody calls"))
}

/// The person, where it can come back as what the case says. Whatever else has to hold is asked again at each step.
pub(super) async fn eligible(tx: &Tx, case: &Model) -> Result<Option<user::Model>> {
    let (person, scope) = (case.person(), case.scope()?);
    let found = user::Entity::find_by_id(person.id)
        .filter(user::Column::TenantId.eq(person.tenant))
        .filter(user::Column::State.eq(ACTIVE))
        .one(tx.db())
        .await?
        .filter(|user| user.kind != GUEST && user_change::principal(user) == person);
    let Some(user) = found else {
        return Ok(None);
    };
    let fits = match scope {
        ScopeKey::Tenant(tenant) => {
            tenant == person.tenant && tenant::by_id(tx.db(), tenant).await?.state == ACTIVE
        }
        ScopeKey::Account(account) if case.bit() == OWNER => {
            // The owner, or one who owns nothing else, in the place of whom the case names, and of nobody who came after.
            match grants::owner_of(tx.db(), account).await? {
                Some((owner, _)) if owner == person.id => true,
                Some((owner, _)) if case.replaces_id == Some(owner) => {
                    grants::tied_to(tx.db(), person.id).await?.is_none()
                }
                Some(_) | None => false,
            }
        }
        ScopeKey::Account(account) => {
            grants::is_associated(tx.db(), account, person.tenant).await?
                && tenant::by_id(tx.db(), person.tenant).await?.state == ACTIVE
        }
        ScopeKey::Operator | ScopeKey::Identity(_) => false,
    };
    Ok(fits.then_some(user))
}

/// Whether the admin that a case makes may be made: nobody is left in the tenant who is one, and its name is free.
pub(super) async fn may_be_made(tx: &Tx, case: &Model) -> Result<bool> {
    let tenant = case.person_tenant_id;
    let taken = user::Entity::find()
        .filter(user::Column::TenantId.eq(tenant))
        .filter(user::Column::UserNameFold.eq(fold(&case.new_user_name)))
        .filter(user::Column::State.ne(DELETED))
        .one(tx.db())
        .await?;
    let is_active = tenant::is_active(tx.db(), tenant).await?;
    let scope = ScopeKey::Tenant(tenant);
    let is_led = grants::somebody_holds(tx.db(), scope, GLOBAL_ADMIN, tx.now()).await?;
    Ok(taken.is_none() && is_active && !is_led)
}

/// The link goes to whoever comes back, and to nobody who opens or approves the case.
async fn not_to_staff(tx: &Tx, who: Principal, proven: &str) -> Result<()> {
    let own = grants::addresses_of_person(tx.db(), who.id).await?;
    if own.iter().any(|own| fold(own) == fold(proven)) {
        return Err(Error::precondition(Reason::AnotherOperator));
    }
    Ok(())
}

/// Whoever opens or approves is not who comes back.
async fn not_involved(tx: &Tx, who: Principal, case: &Model) -> Result<()> {
    if grants::is_same_person(tx.db(), who.id, case.person_id).await? {
        return Err(Error::precondition(Reason::AnotherOperator));
    }
    Ok(())
}

/// A stopped case is opened again, by others and on more evidence, or not at all.
async fn after_the_stopped_one(
    tx: &Tx,
    who: Principal,
    new: &Model,
    documents: usize,
) -> Result<()> {
    let last = Entity::find()
        .filter(Column::ScopeKind.eq(new.scope_kind))
        .filter(Column::ScopeId.eq(new.scope_id))
        .filter(Column::Role.eq(new.role))
        // What was stopped before anybody approved it was withdrawn: nobody was told of it, nobody objected.
        .filter(
            Column::State
                .ne(State::Stopped as i64)
                .or(Column::ApproveTime.is_not_null()),
        )
        .order_by_desc(Column::Id)
        .one(tx.db())
        .await?
        .filter(|case| case.state == State::Stopped as i64);
    let Some(stopped) = last else {
        return match new.reopens_id {
            None => Ok(()),
            Some(_) => Err(Error::field(
                "recovery_case.reopens",
                "is not the last case for this role there, or was not stopped",
            )),
        };
    };
    if new.reopens_id != Some(stopped.id) {
        return Err(Error::precondition(Reason::RecoveryCaseStopped)
            .with("case", stopped.name().to_string()));
    }
    not_one_of(tx, who, &stopped).await?;
    let before = document::of_subject(tx.db(), SubjectKind::RecoveryCase, stopped.id).await?;
    let weight = |documents: usize, case: &Model| documents + usize::from(case.domain_id.is_some());
    // As many documents as a case takes are enough again.
    let least = weight(before.len(), &stopped).min(MOST_DOCUMENTS - 1);
    if weight(documents, new) <= least {
        return Err(Error::field(
            "recovery_case.documents",
            "must be more than those of the case that was stopped",
        ));
    }
    Ok(())
}

/// Whoever opened or approved a stopped case, or one that it opened again, does neither for the next one.
async fn not_one_of(tx: &Tx, who: Principal, stopped: &Model) -> Result<()> {
    let mut at = Some(stopped.clone());
    for _ in 0..MOST_REOPENED {
        let Some(case) = at else {
            return Ok(());
        };
        for one in [Some(case.opened_by_id), case.approved_by_id] {
            if let Some(one) = one
                && grants::is_same_person(tx.db(), who.id, one).await?
            {
                return Err(Error::precondition(Reason::AnotherOperator));
            }
        }
        at = match case.reopens_id {
            Some(id) => Entity::find_by_id(id).one(tx.db()).await?,
            None => None,
        };
    }
    // Nobody is new to what was stopped so often.
    Err(Error::precondition(Reason::AnotherOperator))
}

// ---- approving

async fn by_name<C: ConnectionTrait>(db: &C, name: &str) -> Result<Model> {
    let missing = || Error::not_found("entente.dev/RecoveryCase", name);
    let Some(Name::RecoveryCase(id)) = Name::parse(name) else {
        return Err(missing());
    };
    Entity::find_by_id(id).one(db).await?.ok_or_else(missing)
}

fn wrong_state(case: &Model) -> Error {
    let name = STATES.iter().find(|(_, state)| *state == case.state);
    Error::precondition(Reason::WrongState).with("state", name.map_or("UNKNOWN", |(name, _)| *name))
}

/// Writes a case that changed, and tells of its state, also where it is about.
pub(super) async fn store(
    tx: &mut Tx,
    old: &Model,
    changed: Model,
    kind: &'static str,
) -> Result<Model> {
    let row = Model {
        version: old.version + 1,
        ..changed
    };
    let row = row.into_active_model().reset_all().update(tx.db()).await?;
    tx.emit(
        Event::new(kind, row.name())
            .also_in(row.scope()?)
            .change("state", old.state, row.state)
            .touches(row.person_id),
    );
    Ok(row)
}

/// Another person approves a case: 72 hours begin, and whoever it concerns is told.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`, `WRONG_STATE`, `ANOTHER_OPERATOR`; where a domain is evidence `DNS_UNAVAILABLE`, `DOMAIN_RECORD_NOT_FOUND` and
/// `RECOVERY_EVIDENCE_GONE`.
pub async fn approve_recovery_case(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: ApproveRecoveryCaseRequest,
    looked_up: LookedUp,
) -> Result<RecoveryCase> {
    let old = by_name(tx.db(), &req.name).await?;
    update::check_etag(&req.etag, old.version)?;
    if old.state != State::Open as i64 {
        return Err(wrong_state(&old));
    }
    let who = caller(tx)?;
    if grants::is_same_person(tx.db(), who.id, old.opened_by_id).await? {
        return Err(Error::precondition(Reason::AnotherOperator));
    }
    not_involved(tx, who, &old).await?;
    not_to_staff(tx, who, &old.proven_email).await?;
    if let Some(stopped) = old.reopens_id {
        let stopped = Entity::find_by_id(stopped).one(tx.db()).await?;
        let stopped = stopped.ok_or_else(|| Error::internal("a stopped case is gone"))?;
        not_one_of(tx, who, &stopped).await?;
    }
    let can_be = if old.makes_admin() {
        may_be_made(tx, &old).await?
    } else {
        eligible(tx, &old).await?.is_some()
    };
    if !can_be {
        return Err(wrong_state(&old));
    }
    evidence::demand_record(tx, &old, old.scope()?, looked_up).await?;
    let until = tx.now() + WAIT_US;
    let changed = Model {
        domain_prove_time: old.domain_id.map(|_| tx.now()),
        state: State::Waiting as i64,
        approved_by_id: Some(who.id),
        approved_by: who.name(),
        approve_time: Some(tx.now()),
        due_time: Some(until),
        ..old.clone()
    };
    let row = store(
        tx,
        &old,
        changed,
        "entente.directory.v1.RecoveryCaseApproved",
    )
    .await?;
    announce(tx, &row, until).await?;
    to_wire(tx.db(), &row).await
}

/// Every admin, owner and primary contact whom a case concerns: of the tenant or account itself, and of those tied to it.
async fn concerned(tx: &Tx, case: &Model) -> Result<BTreeSet<String>> {
    let mut told = BTreeSet::new();
    let (tenants, accounts) = match case.scope()? {
        ScopeKey::Tenant(tenant) => {
            let accounts = grants::accounts_of(tx.db(), tenant, MOST_NEIGHBOURS).await?;
            (vec![tenant], accounts)
        }
        ScopeKey::Account(account) => {
            let sql = "SELECT tenant_id FROM associations WHERE account_id = $1 ORDER BY tenant_id LIMIT $2";
            let values: [Value; 2] = [account.into(), MOST_NEIGHBOURS.into()];
            let mut tenants = Vec::new();
            for row in sql::rows_of(tx.db(), sql, values).await? {
                tenants.push(row.try_get("", "tenant_id")?);
            }
            (tenants, vec![account])
        }
        ScopeKey::Operator | ScopeKey::Identity(_) => (Vec::new(), Vec::new()),
    };
    for id in tenants {
        let scope = ScopeKey::Tenant(id);
        told.extend(grants::addresses_of(tx.db(), scope, GLOBAL_ADMIN, MOST_TOLD).await?);
        told.insert(tenant::by_id(tx.db(), id).await?.contact_email);
    }
    let contact_of = tx.app().contact_of_account;
    for id in accounts {
        let scope = ScopeKey::Account(id);
        // The owner for itself: however many managers there are, they don't keep the mail from whoever has most to lose.
        for role in [OWNER, MANAGER] {
            told.extend(grants::addresses_of(tx.db(), scope, role, MOST_TOLD).await?);
        }
        told.extend(contact_of(tx, id).await?);
    }
    if let Some(owner) = case.replaces_id {
        told.extend(grants::addresses_of_person(tx.db(), owner).await?);
    }
    told.remove("");
    Ok(told)
}

/// Mails whoever a case concerns; each with a link that stops it, unless it was opened again.
async fn announce(tx: &mut Tx, case: &Model, until: Micros) -> Result<()> {
    let app = tx.app().clone();
    let role = ROLES.iter().find(|(_, role)| *role == case.role);
    let mut values = vec![
        ("role", role.map_or("", |(name, _)| *name).to_owned()),
        ("scope", case.scope_name()?.to_string()),
        ("until", rfc3339(until)),
        ("origin", app.config.public_origin.clone()),
    ];
    for address in concerned(tx, case).await? {
        if case.reopens_id.is_some() {
            let template = Template::RecoveryAnnouncedAgain;
            mail::queue(tx, template, &address, case.name(), &values).await?;
            continue;
        }
        let notice = tx.id();
        let sql = "INSERT INTO recovery_notices (id, case_id, recipient) VALUES ($1, $2, $3)";
        let row: [Value; 3] = [notice.into(), case.id.into(), address.clone().into()];
        sql::execute(tx.db(), sql, row).await?;
        let stop = Link {
            kind: LinkKind::RecoveryStop,
            subject: notice,
            scope: ScopeKey::Operator,
        };
        let token = link::make(tx, stop, &[], WAIT_US).await?;
        let url = link::url(&app.config, stop.kind, &token);
        let whole = values.len();
        values.push(("link", url.to_string()));
        values.push(("token", token.to_string()));
        let template = Template::RecoveryAnnounced;
        mail::queue(tx, template, &address, case.name(), &values).await?;
        values.truncate(whole);
    }
    Ok(())
}

/// Nobody stops a case by a mail any more.
pub(super) async fn revoke_stops(tx: &mut Tx, case: Uuid) -> Result<()> {
    let sql = "DELETE FROM links WHERE kind = $1 AND subject_id IN (SELECT id FROM recovery_notices WHERE case_id = $2)";
    let values: [Value; 2] = [(LinkKind::RecoveryStop as i16).into(), case.into()];
    sql::execute(tx.db(), sql, values).await?;
    let sql = "DELETE FROM recovery_notices WHERE case_id = $1";
    sql::execute(tx.db(), sql, [case.into()]).await?;
    Ok(())
}

// ---- stopping

pub(crate) fn check_stop_recovery_case(req: &StopRecoveryCaseRequest, v: &mut Violations) {
    if req.token.is_empty() && req.recovery_case.is_empty() {
        v.also("recovery_case", "is required without a token");
    }
}

/// Stops a case.
///
/// # Errors
/// `LINK_INVALID`; for the operator `NOT_FOUND`, `ETAG_MISMATCH`, and `WRONG_STATE` for a case that ended.
pub async fn stop_recovery_case(
    tx: &mut Tx,
    proof: Proof,
    req: StopRecoveryCaseRequest,
) -> Result<StopRecoveryCaseResponse> {
    let (old, by) = if proof.by_operator() {
        let case = by_name(tx.db(), &req.recovery_case).await?;
        (case, caller(tx)?.name())
    } else {
        let (case, by) = by_notice(tx, proof.token()?.link()).await?;
        let named = Name::parse(&req.recovery_case);
        if named.is_some_and(|name| name != case.name()) {
            return Err(link::invalid());
        }
        (case, by)
    };
    update::check_etag(&req.etag, old.version)?;
    let open = [State::Open, State::Waiting, State::Mailed];
    if !open.iter().any(|state| *state as i64 == old.state) {
        return Err(wrong_state(&old));
    }
    recovery_return::take_back(tx, &old).await?;
    revoke_stops(tx, old.id).await?;
    let changed = Model {
        state: State::Stopped as i64,
        stopped_by: by,
        stop_reason: req.reason,
        due_time: None,
        end_time: Some(tx.now()),
        ..old.clone()
    };
    let row = store(
        tx,
        &old,
        changed,
        "entente.directory.v1.RecoveryCaseStopped",
    )
    .await?;
    Ok(StopRecoveryCaseResponse {
        state: i32::try_from(row.state).unwrap_or_default(),
    })
}

#[derive(FromQueryResult)]
struct Notice {
    case_id: Uuid,
    recipient: String,
}

/// The case of a mail's link, which is used up, and whom the mail went to.
async fn by_notice(tx: &mut Tx, stop: Link) -> Result<(Model, String)> {
    link::redeem(tx, stop).await?;
    let sql = "SELECT case_id, recipient FROM recovery_notices WHERE id = $1";
    let notice = sql::one::<Notice, _>(tx.db(), sql, [stop.subject.into()]).await?;
    let notice = notice.ok_or_else(link::invalid)?;
    let case = Entity::find_by_id(notice.case_id).one(tx.db()).await?;
    let case = case.filter(|case| case.state == State::Waiting as i64);
    Ok((case.ok_or_else(link::invalid)?, notice.recipient))
}

// ---- looking

/// Gives a case.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn get_recovery_case(
    rd: &Read,
    _scope: OperatorScope,
    req: GetRecoveryCaseRequest,
) -> Result<RecoveryCase> {
    let row = by_name(rd.db(), &req.name).await?;
    rd.looked(row.name());
    to_wire(rd.db(), &row).await
}

pub(crate) fn check_list_recovery_cases(req: &ListRecoveryCasesRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists cases.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad filter, order or token.
pub async fn list_recovery_cases(
    rd: &Read,
    _scope: OperatorScope,
    req: ListRecoveryCasesRequest,
) -> Result<ListRecoveryCasesResponse> {
    let found = rd
        .rows::<Entity, Model>(&req, &LISTING, Entity::find())
        .await?;
    let ids: Vec<Uuid> = found.rows.iter().map(|row| row.id).collect();
    let documents = document::of_subjects(rd.db(), SubjectKind::RecoveryCase, &ids).await?;
    let mut cases = Vec::with_capacity(ids.len());
    for row in &found.rows {
        let own = documents.iter().filter(|d| d.attached_id == Some(row.id));
        cases.push(with_documents(
            row,
            own.map(|d| d.name().to_string()).collect(),
        )?);
    }
    rd.looked(Name::Operator);
    let page = found.page(cases);
    Ok(ListRecoveryCasesResponse {
        recovery_cases: page.items,
        next_page_token: page.next_page_token,
    })
}
