//! AccessService: what may be asked about rights and limits.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use super::{
    cache::Facts as _,
    grants::{self, Held, HeldOf, NotAwake, Source, lent::Lent, roles_of},
    principal::{Authenticated, Kind, Principal},
    proof,
    roles::{self, ACCOUNT_ROLES, OPERATOR_ROLES, Permission, Permissions, TENANT_ROLES},
    scope::{CallerScope, NobodyScope, OperatorScope, Proof},
};
use crate::{
    app::Read,
    check::{MOST_ITEMS_NAMED, Violations},
    error::{Error, Reason, Result, reason_name},
    names::Name,
    proto::access::{
        AccessCheck, AccessDecision, CallLimit, CheckAccessRequest, CheckAccessResponse,
        ExplainAccessRequest, ExplainAccessResponse, GetLimitsRequest, GetLimitsResponse,
        GetRoleTableRequest, RolePermissions, RoleTable, TestMyPermissionsRequest,
        TestMyPermissionsResponse,
    },
    store::scope_key::ScopeKey,
};

/// The whole table of roles (ROL-1).
///
/// # Errors
/// None.
pub async fn get_role_table(
    _rd: &Read,
    _scope: NobodyScope,
    _req: GetRoleTableRequest,
) -> Result<RoleTable> {
    let entry = |scope: &str, role: &str, permissions: Permissions| RolePermissions {
        scope: scope.to_owned(),
        role: role.to_owned(),
        permissions: permissions.names().into_iter().map(str::to_owned).collect(),
    };
    let mut all = Vec::new();
    for (scope, table) in [
        ("tenant", TENANT_ROLES),
        ("account", ACCOUNT_ROLES),
        ("operator", OPERATOR_ROLES),
    ] {
        all.extend(table.iter().map(|r| entry(scope, r.name, r.permissions)));
    }
    all.push(entry("account", "MEMBER", roles::MEMBER));
    Ok(RoleTable { roles: all })
}

pub(crate) fn check_check_access(req: &CheckAccessRequest, v: &mut Violations) {
    for (i, check) in req.checks.iter().enumerate().take(MOST_ITEMS_NAMED) {
        check_question(check, &format!("checks[{i}]."), v);
    }
}

/// Checks in a batch, as fresh as the database (COM-17).
///
/// # Errors
/// Those of the database.
pub async fn check_access(
    rd: &Read,
    _scope: OperatorScope,
    req: CheckAccessRequest,
) -> Result<CheckAccessResponse> {
    let mut parsed = Vec::with_capacity(req.checks.len());
    for check in &req.checks {
        parsed.push(question(check)?);
    }
    let mut decisions = Vec::with_capacity(parsed.len());
    let mut known: Option<(Principal, ScopeKey, Known)> = None;
    for (principal, permission, scope) in parsed {
        let facts = match &known {
            Some((p, s, facts)) if *p == principal && *s == scope => facts.clone(),
            _ => {
                let facts = ask(rd, principal, scope).await?;
                known = Some((principal, scope, facts.clone()));
                facts
            }
        };
        decisions.push(decide(&facts, permission, scope));
    }
    Ok(CheckAccessResponse { decisions })
}

pub(crate) fn check_test_my_permissions(req: &TestMyPermissionsRequest, v: &mut Violations) {
    if scope_of(&req.resource).is_none() {
        v.also("resource", NO_SCOPE);
    }
}

/// What the caller itself may (COM-17).
///
/// # Errors
/// Those of the database.
pub async fn test_my_permissions(
    rd: &Read,
    _caller: CallerScope,
    req: TestMyPermissionsRequest,
) -> Result<TestMyPermissionsResponse> {
    let scope =
        scope_of(&req.resource).ok_or_else(|| Error::internal("the resource was not checked"))?;
    let mut mine = rd.caller_permissions(scope).await?;
    if let ScopeKey::Tenant(tenant) = scope {
        mine = mine.and(rd.lent_permissions(tenant).await?);
    }
    let permissions = req
        .permissions
        .into_iter()
        .filter(|p| Permission::parse(p).is_some_and(|p| mine.has(p)))
        .collect();
    Ok(TestMyPermissionsResponse { permissions })
}

pub(crate) fn check_explain_access(req: &ExplainAccessRequest, v: &mut Violations) {
    check_question(&asked(req), "", v);
}

fn asked(req: &ExplainAccessRequest) -> AccessCheck {
    AccessCheck {
        principal: req.principal.clone(),
        permission: req.permission.clone(),
        resource: req.resource.clone(),
    }
}

/// Why a principal may or may not.
///
/// # Errors
/// Those of the database.
pub async fn explain_access(
    rd: &Read,
    proven: Proof,
    req: ExplainAccessRequest,
) -> Result<ExplainAccessResponse> {
    let check = asked(&req);
    let (principal, permission, scope) = question(&check)?;
    let facts = ask(rd, principal, scope).await?;
    let decision = decide(&facts, permission, scope);
    // Whether somebody exists elsewhere is not told with the rights that they lack here (COM-2).
    let known =
        proven.by_operator() || facts.held.member || scope == ScopeKey::Tenant(principal.tenant);
    let mut steps = Vec::new();
    if known {
        steps.push(if facts.active {
            format!("{} is active, and so is its tenant.", check.principal)
        } else {
            format!(
                "{} is not active, or its tenant isn't; so it may nothing.",
                check.principal
            )
        });
    }
    // Whoever is lent something is told of below, and so is known.
    if facts.must_change_password && (known || !facts.lent.is_empty()) {
        steps.push(
            "Its password is temporary; so it may nothing before it has chosen one.".to_owned(),
        );
    }
    if facts.held.member {
        for source in &facts.held.sources {
            let names = source.set.names(scope);
            let by = by_group(source);
            steps.push(if names.is_empty() {
                format!("It is a member of {scope} without roles{by}.")
            } else {
                format!("On {scope} it holds {}{by}.", names.join(", "))
            });
        }
    } else {
        steps.push(format!("On {scope} it holds nothing."));
    }
    for lent in &facts.lent {
        let roles = roles::names_of(TENANT_ROLES, lent.roles).join(", ");
        steps.push(format!(
            "{} lends it {roles} there, for the calls of DelegatedAdminService.",
            lent.name()
        ));
    }
    let asleep = facts
        .held
        .all
        .without(facts.held.awake(scope, facts.asleep_until, facts.now));
    steps.extend(sleep_of(&facts, asleep));
    steps.push(format!(
        "So {} is {}.",
        permission.name(),
        if decision.allowed {
            "allowed"
        } else {
            "refused"
        }
    ));
    let giving_roles = roles_of(scope)
        .iter()
        .filter(|r| r.permissions.has(permission))
        .map(|r| r.name.to_owned())
        .collect();
    Ok(ExplainAccessResponse {
        decision: Some(decision),
        steps,
        giving_roles,
    })
}

/// The caller's limits (COM-18).
///
/// # Errors
/// None.
pub async fn get_limits(
    rd: &Read,
    _caller: CallerScope,
    _req: GetLimitsRequest,
) -> Result<GetLimitsResponse> {
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let limits = rd
        .app()
        .limits
        .list(rd.caller())
        .into_iter()
        .map(|l| CallLimit {
            method: l.method.to_owned(),
            burst: number(l.burst),
            calls_per_minute: number(l.per_minute),
            remaining: number(l.remaining),
            kind: l.kind.into(),
        })
        .collect();
    Ok(GetLimitsResponse { limits })
}

type Question = (Principal, Permission, ScopeKey);

/// What the limits of the fields don't say: who may be asked about, and where.
fn check_question(check: &AccessCheck, at: &str, v: &mut Violations) {
    if asked_about(check).is_none() {
        v.also(
            format!("{at}principal"),
            "is no name of a user, an application or a personal identity",
        );
    }
    if scope_of(&check.resource).is_none() {
        v.also(format!("{at}resource"), NO_SCOPE);
    }
}

const NO_SCOPE: &str = "is no tenant, account or operator";

fn asked_about(check: &AccessCheck) -> Option<Principal> {
    Name::parse(&check.principal)
        .and_then(Principal::of)
        .filter(|p| p.kind != Kind::Group)
}

fn question(check: &AccessCheck) -> Result<Question> {
    match (
        asked_about(check),
        Permission::parse(&check.permission),
        scope_of(&check.resource),
    ) {
        (Some(principal), Some(permission), Some(scope)) => Ok((principal, permission, scope)),
        _ => Err(Error::internal("a question was not checked")),
    }
}

fn scope_of(resource: &str) -> Option<ScopeKey> {
    match Name::parse(resource)? {
        name @ (Name::Tenant(_) | Name::Account(_) | Name::Operator) => Some(name.scope()),
        _ => None,
    }
}

/// What is known of a principal on a scope.
#[derive(Clone)]
struct Known {
    active: bool,
    /// The password is temporary, so that it may nothing else before it has changed it (PWD-5).
    must_change_password: bool,
    now: i64,
    asleep_until: Option<i64>,
    held: Arc<Held>,
    /// What is lent to it there.
    lent: Vec<Lent>,
}

async fn ask(rd: &Read, principal: Principal, scope: ScopeKey) -> Result<Known> {
    let state = grants::state(rd, principal, rd.now()).await?;
    // Asked also of who isn't there: as many statements, so that time doesn't tell (COM-2).
    let held = rd.know(HeldOf {
        principal: principal.id,
        scope,
        home: Some(principal.tenant),
    });
    let held = held.await?;
    let held = state.map_or_else(Arc::default, |_| held);
    let asleep_until = state.and_then(|s| s.asleep_until);
    let mut lent = match scope {
        ScopeKey::Tenant(tenant) => {
            grants::lent::lent_to(rd, principal, tenant, asleep_until, rd.now()).await?
        }
        _ => Vec::new(),
    };
    if state.is_none() {
        lent.clear();
    }
    Ok(Known {
        active: state.is_some(),
        must_change_password: state.is_some_and(|s| s.must_change_password),
        now: rd.now(),
        asleep_until,
        held,
        lent,
    })
}

/// What of somebody's rights is not awake, by until when.
fn sleep_of(facts: &Known, asleep: Permissions) -> Vec<String> {
    let mut all: BTreeMap<(i64, bool), Vec<&str>> = BTreeMap::new();
    for permission in Permission::ALL.iter().filter(|p| asleep.has(**p)) {
        let why = facts
            .held
            .not_awake(*permission, facts.asleep_until, facts.now);
        if let Some(why) = why {
            let key = (why.until(), matches!(why, NotAwake::Asleep(_)));
            all.entry(key).or_default().push(permission.name());
        }
    }
    all.into_iter()
        .map(|((until, can_be_woken), names)| {
            // Nobody wakes what is to begin later.
            let waking = if can_be_woken {
                ", or until another holder wakes them"
            } else {
                ""
            };
            let until = crate::store::time::rfc3339(until);
            format!("Of this, {} sleep until {until}{waking}.", names.join(", "))
        })
        .collect()
}

/// ` by tenants/../groups/..`, or nothing if it is held directly.
fn by_group(source: &Source) -> String {
    source.group.map_or_else(String::new, |group| {
        format!(" by {}", Name::Group(source.tenant, group))
    })
}

/// `HELPDESK_ADMIN lent by accounts/../relationships/..`, if a relationship lends a permission.
fn lent_by(lent: &Lent, permission: Permission) -> Option<String> {
    let roles = TENANT_ROLES.iter().filter(|role| {
        lent.roles & role.bit() != 0 && grants::lent::lendable(role.bit()).has(permission)
    });
    let roles: Vec<&str> = roles.map(|role| role.name).collect();
    (!roles.is_empty()).then(|| format!("{} lent by {}", roles.join(", "), lent.name()))
}

fn decide(facts: &Known, permission: Permission, scope: ScopeKey) -> AccessDecision {
    let refuse = |reason: Reason| AccessDecision {
        allowed: false,
        because: Vec::new(),
        reason: reason_name(reason).to_owned(),
    };
    let lent: Vec<String> = facts
        .lent
        .iter()
        .filter_map(|l| lent_by(l, permission))
        .collect();
    if lent.is_empty() && (!facts.active || !facts.held.all.has(permission)) {
        return refuse(Reason::PermissionMissing);
    }
    // Whoever lacks the permission anyhow isn't told of, so that nobody learns by this who exists (COM-2).
    if facts.must_change_password {
        return refuse(Reason::PasswordChangeRequired);
    }
    if !lent.is_empty() {
        return AccessDecision {
            allowed: true,
            because: lent,
            reason: String::new(),
        };
    }
    if !facts
        .held
        .awake(scope, facts.asleep_until, facts.now)
        .has(permission)
    {
        let why = facts
            .held
            .not_awake(permission, facts.asleep_until, facts.now);
        return refuse(why.map_or(Reason::RightsAsleep, NotAwake::reason));
    }
    let mut because = Vec::new();
    for source in &facts.held.sources {
        let by = by_group(source);
        for role in roles_of(scope) {
            if source.set.roles & role.bit() != 0 && role.permissions.has(permission) {
                because.push(format!("{}{by}", role.name));
            }
        }
        if source.set.single.has(permission) {
            because.push(format!("{}{by}", permission.name()));
        }
    }
    if because.is_empty() {
        // What every member may.
        let sources = facts.held.sources.iter();
        because.extend(sources.map(|source| format!("MEMBER{}", by_group(source))));
    }
    AccessDecision {
        allowed: true,
        because,
        reason: String::new(),
    }
}

/// Holds another token's principal against a permission, for calls that carry a second proof (TEN-3).
///
/// # Errors
/// `INVALID_ARGUMENT` on the field if it may no longer act; `PERMISSION_DENIED` if it lacks the permission, and `PASSWORD_CHANGE_REQUIRED`, which
/// name the field.
pub async fn demand_of_token(
    db: &impl sea_orm::ConnectionTrait,
    (field, who): (&'static str, Authenticated),
    permission: Permission,
    tenant: Uuid,
    caller: &super::principal::Caller,
    now: i64,
) -> Result<()> {
    if who.principal.kind != Kind::User {
        return Err(Error::denied(permission).of_token(field));
    }
    // The second token is a field, not the caller's credential.
    let standing = grants::standing(db, &who, now).await.map_err(|error| {
        if error.reason() == Reason::TokenInvalid {
            Error::argument(Reason::TokenInvalid, field, "is no good access token")
        } else {
            error
        }
    })?;
    if standing.must_change_password {
        return Err(Error::precondition(Reason::PasswordChangeRequired).of_token(field));
    }
    let second = super::principal::Caller {
        who: Some(who),
        via: None,
        ..caller.clone()
    };
    let demanded = proof::demand(db, &second, permission, ScopeKey::Tenant(tenant), now).await;
    demanded.map_err(|error| error.of_token(field))
}
