//! The decision: whether a rule holds for a caller on the very resources that a request names (COM-1, COM-2).

use std::sync::Arc;

use uuid::Uuid;

use super::{
    account_state,
    cache::Facts,
    grants::{
        self, Held, HeldOf, NotAwake, Standing,
        lent::{self, Lent, WaysTo},
    },
    link::{self, Link},
    principal::{Authenticated, Caller, Kind, Principal},
    roles::{self, Permission, Permissions},
    rules::{Demand, Pair, Rule},
    scope::Proof,
};
use crate::{
    check::Request,
    env::{MINUTE_US, Micros},
    error::{Error, Reason, Result},
    keys::Keys,
    names::Name,
    proto::access::{AccountAct, CallKind},
    store::scope_key::ScopeKey,
};

/// The resource names of a request that its rule speaks of: (field, names).
pub type Named = Vec<(&'static str, Vec<Name>)>;

/// Parses the names that the rule speaks of; nothing else of the request is looked at before the proof.
///
/// # Errors
/// `INVALID_ARGUMENT` naming each that is no name of the kind that the field takes.
pub fn resolve<R: Request>(rule: &Rule, request: &R) -> Result<Named> {
    let mut named: Named = Vec::new();
    let mut faults = Vec::new();
    let mut add = |field: &'static str, optional: bool, faults: &mut Vec<(String, String)>| {
        if field.starts_with('@') || named.iter().any(|(f, _)| *f == field) {
            return;
        }
        let mut texts = Vec::new();
        let Some(kinds) = request.names(field, &mut texts) else {
            return;
        };
        let mut names = Vec::with_capacity(texts.len());
        if texts.len() > MOST_NAMES {
            faults.push((
                field.to_owned(),
                format!("names more than {MOST_NAMES} resources"),
            ));
            return;
        }
        for text in texts {
            match Name::parse(text) {
                Some(name) if kinds.contains(&name.kind()) => names.push(name),
                // Nothing is demanded on it; if it has to be there, its limits say so.
                _ if text.is_empty() && optional => {}
                _ if text.is_empty() => faults.push((field.to_owned(), "is required".to_owned())),
                _ => faults.push((
                    field.to_owned(),
                    format!(
                        "is no name of a {}",
                        kinds.join(" or ").replace("entente.dev/", "")
                    ),
                )),
            }
        }
        named.push((field, names));
    };
    for alternative in &rule.any_of {
        match &alternative.demand {
            Demand::Oneself(field) => add(field, false, &mut faults),
            // What is demanded only where a field is set names nothing where it isn't.
            Demand::All(pairs) => pairs
                .iter()
                .filter(|p| p.when_set.is_empty() || request.is_set(p.when_set))
                .for_each(|p| add(p.at, false, &mut faults)),
            Demand::Public | Demand::SignedIn | Demand::Token(..) => {}
        }
        if !alternative.lent_by.is_empty() {
            add(alternative.lent_by, false, &mut faults);
        }
    }
    for (field, of) in &rule.within {
        add(of, false, &mut faults);
        add(field, true, &mut faults);
    }
    if !faults.is_empty() {
        faults.truncate(100);
        return Err(Error::invalid(faults));
    }
    for (field, of) in &rule.within {
        let scopes: Vec<_> = names_at(&named, of).iter().map(Name::scope).collect();
        if let Some(stranger) = names_at(&named, field)
            .iter()
            .find(|n| !scopes.contains(&n.scope()))
        {
            return Err(Error::field(
                *field,
                format!("{stranger} lies outside of {of}"),
            ));
        }
    }
    Ok(named)
}

/// Names that one field of a request gives to the proof; lists are bounded again by their own limits.
const MOST_NAMES: usize = 1_000;

fn names_at<'a>(named: &'a Named, field: &str) -> &'a [Name] {
    named
        .iter()
        .find(|(f, _)| *f == field)
        .map_or(&[], |(_, names)| names)
}

/// The scopes that a proof of this rule will look at; locked before it in transactions that write.
#[must_use]
pub fn scopes(rule: &Rule, named: &Named, caller: &Caller) -> Vec<ScopeKey> {
    let mut scopes: Vec<ScopeKey> = Vec::new();
    for alternative in &rule.any_of {
        scopes.extend(names_at(named, alternative.lent_by).iter().map(Name::scope));
        match &alternative.demand {
            Demand::All(pairs) => {
                for pair in pairs {
                    if pair.at == "@operator" {
                        scopes.push(ScopeKey::Operator);
                    }
                    scopes.extend(names_at(named, pair.at).iter().map(Name::scope));
                }
            }
            Demand::Oneself(_) | Demand::SignedIn => {
                scopes.extend(caller.who.map(|a| a.principal.home()))
            }
            Demand::Public | Demand::Token(..) => {}
        }
    }
    if rule.declared.caller_optional {
        scopes.extend(caller.who.map(|a| a.principal.home()));
    }
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// What is remembered within one proof, so that each row is asked for once.
struct Asked<'a, F> {
    db: &'a F,
    caller: &'a Caller,
    now: Micros,
    standing: Option<Standing>,
    ceiling: Option<Permissions>,
    /// The service's ceiling is a list of its own, not the default.
    bounded: bool,
    held: Vec<(ScopeKey, Arc<Held>)>,
}

impl<F: Facts> Asked<'_, F> {
    /// What the caller may on a scope, in all and awake: what the person holds, within the ceiling of the service that acts for it.
    async fn permissions(&mut self, scope: ScopeKey) -> Result<(Permissions, Permissions)> {
        let held = self.held(scope).await?;
        let awake = held.awake(scope, self.asleep_until(), self.now);
        Ok(match self.ceiling {
            Some(ceiling) => (held.all.within(ceiling), awake.within(ceiling)),
            None => (held.all, awake),
        })
    }

    fn asleep_until(&self) -> Option<Micros> {
        self.standing.and_then(|s| s.asleep_until)
    }

    async fn held(&mut self, scope: ScopeKey) -> Result<Arc<Held>> {
        let Some(who) = self.caller.who else {
            return Ok(Arc::default());
        };
        Ok(match self.held.iter().find(|(s, _)| *s == scope) {
            Some((_, held)) => held.clone(),
            None => {
                let held = held(self.db, who, scope).await?;
                self.held.push((scope, held.clone()));
                held
            }
        })
    }

    /// What a relationship lends to the caller in a customer's tenant: to somebody who may act for customers of the account, awake, and within
    /// the ceiling of the service that acts for it. As many statements for a relationship that isn't there.
    async fn lent(
        &mut self,
        by: &[Name],
        tenant: Option<Uuid>,
        field: &'static str,
        scopes: &mut Vec<(&'static str, ScopeKey)>,
    ) -> Result<std::result::Result<Lent, Has>> {
        let ([Name::Relationship(account, relationship)], Some(tenant), Some(who)) =
            (by, tenant, self.caller.who)
        else {
            return Ok(Err(Has::No));
        };
        // A stolen key must not open many customers (ATK-20).
        if !who.principal.is_person() || who.principal.tenant == tenant {
            return Ok(Err(Has::No));
        }
        let scope = ScopeKey::Account(*account);
        let may_act = self.has(Permission::DelegatedAct, scope).await?;
        let roles = self.held(scope).await?.roles;
        let ways = self.db.know(WaysTo {
            principal: who.principal.id,
            tenant,
        });
        let ways = ways.await?;
        let by = (*account, *relationship);
        let reaching = lent::reaching(&ways, by, roles, self.now);
        // Whether there is anything to act by isn't told of what sleeps. Where nothing is lent, what is demanded is missing.
        if may_act != Has::Yes {
            return Ok(Err(may_act));
        }
        if let Some(way) = ways.iter().find(|way| way.account == *account)
            && reaching != 0
            && !account_state::allows(way.account_state, AccountAct::Trade)
        {
            return Err(account_state::wrong_state(way.account_state));
        }
        scopes.push((field, scope));
        let lent = Lent::of(by, tenant, reaching);
        Ok(Ok(lent.within(self.ceiling)))
    }

    /// Whether the caller has a permission on a scope, awake.
    async fn has(&mut self, permission: Permission, scope: ScopeKey) -> Result<Has> {
        let (all, awake) = self.permissions(scope).await?;
        if awake.has(permission) {
            return Ok(Has::Yes);
        }
        let held = self.held(scope).await?;
        let why = held.not_awake(permission, self.asleep_until(), self.now);
        Ok(match why.filter(|_| all.has(permission)) {
            Some(why) => Has::NotAwake(why, scope),
            None => Has::No,
        })
    }
}

/// The tenant that all pairs of an alternative name; none if they don't name one and the same.
fn place_of(pairs: &[Pair], named: &Named) -> Option<Uuid> {
    let mut places = pairs
        .iter()
        .flat_map(|pair| names_at(named, pair.at))
        .map(Name::scope);
    let first = places.next()?;
    match first {
        ScopeKey::Tenant(tenant) if places.all(|place| place == first) => Some(tenant),
        _ => None,
    }
}

/// Whether a pair holds by what is lent.
fn prove_lent_pair<R: Request>(
    lent: Lent,
    pair: &'static Pair,
    named: &Named,
    request: &R,
    scopes: &mut Vec<(&'static str, ScopeKey)>,
) -> Has {
    if !pair.when_set.is_empty() && !request.is_set(pair.when_set) {
        return Has::Yes;
    }
    for place in names_at(named, pair.at).iter().map(Name::scope) {
        if !lent.on(place).has(pair.permission) {
            return Has::No;
        }
        if !scopes.contains(&(pair.at, place)) {
            scopes.push((pair.at, place));
        }
    }
    Has::Yes
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    Yes,
    No,
    /// Held there, but it can't be used now.
    NotAwake(NotAwake, ScopeKey),
}

/// What the principal of a token holds on a scope.
async fn held<F: Facts>(db: &F, who: Authenticated, scope: ScopeKey) -> Result<Arc<Held>> {
    let principal = who.principal;
    db.know(HeldOf {
        principal: principal.id,
        scope,
        home: Some(principal.tenant),
    })
    .await
}

/// Asks whether the principals of the tokens may still act, and gives what bounds them.
async fn stand<'a, F: Facts>(db: &'a F, caller: &'a Caller, now: Micros) -> Result<Asked<'a, F>> {
    let mut asked = Asked {
        db,
        caller,
        now,
        standing: None,
        ceiling: None,
        bounded: false,
        held: Vec::new(),
    };
    // What has run out since the call began: a stream goes on longer than the token that it began with.
    let ran_out = |who: &Authenticated| who.expire_time <= now;
    if caller.who.iter().chain(&caller.via).any(ran_out) {
        return Err(Error::unauthenticated(Reason::TokenInvalid));
    }
    if let Some(via) = caller.via {
        let (ceiling, bounded) = service_ceiling(db, &via, now).await?;
        (asked.ceiling, asked.bounded) = (Some(ceiling), bounded);
    }
    if let Some(who) = caller.who {
        asked.standing = Some(grants::standing(db, &who, now).await?);
    }
    Ok(asked)
}

/// What a service may do for people, if it may act for them at all (COM-16), and whether that is a list of its own.
async fn service_ceiling<F: Facts>(
    db: &F,
    via: &Authenticated,
    now: Micros,
) -> Result<(Permissions, bool)> {
    grants::standing(db, via, now).await?;
    let held = held(db, *via, ScopeKey::Operator).await?;
    if via.principal.is_person() || !held.all.has(Permission::OnBehalfAct) {
        return Err(Error::refused(Reason::OnBehalfRefused));
    }
    let all: Permissions = Permission::ALL.iter().copied().collect();
    Ok((
        held.ceiling
            .unwrap_or_else(|| all.without(roles::NOT_ON_BEHALF)),
        held.ceiling.is_some(),
    ))
}

/// Proves a rule for a caller, on the names of its request.
///
/// # Errors
/// `UNAUTHENTICATED`, `PERMISSION_DENIED` (the same whether or not what is named exists), `FAILED_PRECONDITION` for a password to be
/// changed, a sign-in too old or rights asleep; those of the database.
pub async fn prove<R: Request, F: Facts>(
    db: &F,
    keys: &Keys,
    caller: &Caller,
    rule: &'static Rule,
    named: &Named,
    request: &R,
    now: Micros,
) -> Result<Proof> {
    if rule.ignores_caller() && rule.is_public() {
        return Ok(Proof::new(0, Vec::new(), None, false, true));
    }
    if caller.who.is_none() && !rule.is_open() {
        return Err(Error::unauthenticated(Reason::CredentialsMissing));
    }
    // Also where nobody needs to be: who is sent must be able to act.
    let mut asked = stand(db, caller, now).await?;
    let link = link_of(db, keys, rule, request, now).await?;
    let declared = &rule.declared;
    if asked.standing.is_some_and(|s| s.must_change_password)
        && !declared.open_before_password_change
    {
        return Err(Error::precondition(Reason::PasswordChangeRequired));
    }
    let bounded = asked.bounded;
    let mut first_missing = None;
    let mut asleep = None;
    for (i, alternative) in rule.any_of.iter().enumerate() {
        let mut scopes = Vec::new();
        let mut lent = None;
        let holds = match &alternative.demand {
            Demand::Public => {
                return Ok(Proof::new(i, Vec::new(), caller.who, false, true));
            }
            Demand::Token(..) => match link {
                // A service whose ceiling lists permissions ties nobody to anything either.
                Some(link) => {
                    return Ok(Proof::by_link(i, link, caller.who.filter(|_| !bounded)));
                }
                None => false,
            },
            _ if caller.who.is_none() => false,
            // A service whose ceiling lists permissions does nothing else for a person that changes anything.
            Demand::SignedIn | Demand::Oneself(_)
                if bounded
                    && !matches!(
                        rule.kind,
                        CallKind::Read | CallKind::StreamOut | CallKind::Download
                    ) =>
            {
                false
            }
            Demand::SignedIn | Demand::Oneself("@caller") => true,
            Demand::Oneself(field) => is_oneself(caller.who, names_at(named, field)),
            Demand::All(pairs) => {
                let mut all = true;
                if !alternative.lent_by.is_empty() {
                    let by = names_at(named, alternative.lent_by);
                    match asked
                        .lent(by, place_of(pairs, named), alternative.lent_by, &mut scopes)
                        .await?
                    {
                        Ok(found) => lent = Some(found),
                        Err(Has::NotAwake(why, place)) => {
                            asleep.get_or_insert((Permission::DelegatedAct, why, place));
                            continue;
                        }
                        Err(_) => {
                            first_missing.get_or_insert(Permission::DelegatedAct);
                            continue;
                        }
                    }
                }
                for pair in pairs {
                    let held = match lent {
                        Some(lent) => prove_lent_pair(lent, pair, named, request, &mut scopes),
                        None => prove_pair(&mut asked, pair, named, request, &mut scopes).await?,
                    };
                    match held {
                        Has::Yes => {}
                        Has::No => {
                            first_missing.get_or_insert(pair.permission);
                            all = false;
                        }
                        Has::NotAwake(why, place) => {
                            asleep.get_or_insert((pair.permission, why, place));
                            all = false;
                        }
                    }
                }
                all && !scopes.is_empty()
            }
        };
        if !holds {
            continue;
        }
        if matches!(alternative.demand, Demand::Oneself(_) | Demand::SignedIn)
            && let Some(who) = caller.who
        {
            scopes.push(("@caller", who.principal.home()));
        }
        let minutes = declared.sign_in_within_minutes;
        if minutes > 0
            && caller
                .who
                .is_some_and(|a| now - a.sign_in_time > i64::from(minutes) * MINUTE_US)
        {
            return Err(Error::precondition(Reason::RecentSignInRequired)
                .with("minutes", minutes.to_string()));
        }
        demand_of_accounts(db, rule, &scopes, now).await?;
        let proof = Proof::new(i, scopes, caller.who, alternative.masked, false);
        return Ok(match lent {
            Some(lent) => proof.by_lent(lent),
            None => proof,
        });
    }
    if let Some((permission, why, place)) = asleep {
        return Err(why.refusal(permission, place));
    }
    if rule
        .token()
        .is_some_and(|(_, field)| rule.needs_token() || !request.text(field).is_empty())
    {
        return Err(link::invalid());
    }
    if caller.who.is_none() {
        return Err(Error::unauthenticated(Reason::CredentialsMissing));
    }
    let error = first_missing.map_or_else(Error::not_oneself, Error::denied);
    Err(match other_way(rule, request) {
        Some(field) => error.with("or_set", field),
        None => error,
    })
}

/// The field that leads to another alternative of a rule, which demands nothing and so doesn't hold while the field isn't set.
fn other_way<R: Request>(rule: &Rule, request: &R) -> Option<&'static str> {
    let idle = |pair: &Pair| !pair.when_set.is_empty() && !request.is_set(pair.when_set);
    rule.any_of.iter().find_map(|a| match &a.demand {
        Demand::All(pairs) if pairs.iter().all(idle) => pairs.first().map(|p| p.when_set),
        _ => None,
    })
}

/// Holds what the rule demands of accounts against those that were just proven: state, programme, agreements (COM-1).
async fn demand_of_accounts<F: Facts>(
    db: &F,
    rule: &Rule,
    scopes: &[(&'static str, ScopeKey)],
    now: Micros,
) -> Result<()> {
    let Some(demanded) = rule.account.as_ref().filter(|d| !d.late) else {
        return Ok(());
    };
    let mut seen = Vec::new();
    for (_, scope) in scopes {
        if let ScopeKey::Account(account) = *scope
            && !seen.contains(&account)
        {
            seen.push(account);
            demanded.check(db, account, now).await?;
        }
    }
    Ok(())
}

/// What the mailed token of a request proves, if its rule takes one.
///
/// # Errors
/// Those of the database.
pub async fn link_of<R: Request, F: Facts>(
    db: &F,
    keys: &Keys,
    rule: &Rule,
    request: &R,
    now: Micros,
) -> Result<Option<Link>> {
    match rule.token() {
        Some((kind, field)) => link::find(db.db(), keys, kind, request.text(field), now).await,
        None => Ok(None),
    }
}

async fn prove_pair<R: Request, F: Facts>(
    asked: &mut Asked<'_, F>,
    pair: &'static Pair,
    named: &Named,
    request: &R,
    scopes: &mut Vec<(&'static str, ScopeKey)>,
) -> Result<Has> {
    if !pair.when_set.is_empty() && !request.is_set(pair.when_set) {
        return Ok(Has::Yes);
    }
    let places: Vec<ScopeKey> = if pair.at == "@operator" {
        vec![ScopeKey::Operator]
    } else {
        names_at(named, pair.at).iter().map(Name::scope).collect()
    };
    let mut answer = Has::Yes;
    for place in places {
        match asked.has(pair.permission, place).await? {
            Has::Yes => {
                if !scopes.contains(&(pair.at, place)) {
                    scopes.push((pair.at, place));
                }
            }
            // It stays so, and asking on would be work for whoever names a thousand places.
            Has::No => return Ok(Has::No),
            asleep => answer = asleep,
        }
    }
    Ok(answer)
}

fn is_oneself(who: Option<Authenticated>, names: &[Name]) -> bool {
    let (Some(who), [name]) = (who, names) else {
        return false;
    };
    match *name {
        Name::User(..) | Name::Application(..) | Name::Identity(_) => {
            Principal::of(*name) == Some(who.principal)
        }
        Name::IdentitySession(identity, _) => {
            who.principal.kind == Kind::Identity && who.principal.id == identity
        }
        Name::Session(tenant, user, _) => {
            who.principal.tenant == tenant && who.principal.id == user
        }
        Name::Member(_, member) => who.principal.id == member,
        _ => false,
    }
}

/// What a caller may on a scope right now, awake; the basis of late demands and of giving (ROL-7).
///
/// # Errors
/// Those of the database; `UNAUTHENTICATED` if the caller may no longer act.
pub async fn permissions<F: Facts>(
    db: &F,
    caller: &Caller,
    scope: ScopeKey,
    now: Micros,
) -> Result<Permissions> {
    let mut asked = stand(db, caller, now).await?;
    let (_, awake) = asked.permissions(scope).await?;
    Ok(awake)
}

/// What is lent to a caller on a tenant right now, by whatever relationship: nothing that it does anywhere but by naming one.
///
/// # Errors
/// Those of the database; `UNAUTHENTICATED` if the caller may no longer act.
pub async fn lent_permissions<F: Facts>(
    db: &F,
    caller: &Caller,
    tenant: Uuid,
    now: Micros,
) -> Result<Permissions> {
    // At home nothing is lent to anybody, and that is where most ask.
    let Some(who) = caller.who.filter(|who| who.principal.tenant != tenant) else {
        return Ok(Permissions::NONE);
    };
    let asked = stand(db, caller, now).await?;
    let ceiling = asked.ceiling;
    if ceiling.is_some_and(|c| !c.has(Permission::DelegatedAct)) {
        return Ok(Permissions::NONE);
    }
    let all = lent::lent_to(db, who.principal, tenant, asked.asleep_until(), now).await?;
    Ok(all.into_iter().fold(Permissions::NONE, |all, lent| {
        all.and(lent.within(ceiling).permissions)
    }))
}

/// The refusal of permissions that a caller can't use on a scope now although it holds them there (ROL-13, ACC-20), within the ceiling of the
/// service that acts for it; none if it lacks one of them altogether.
///
/// # Errors
/// Those of the database; `UNAUTHENTICATED` if the caller may no longer act.
pub async fn not_awake<F: Facts>(
    db: &F,
    caller: &Caller,
    missing: Permissions,
    scope: ScopeKey,
    now: Micros,
) -> Result<Option<Error>> {
    let mut asked = stand(db, caller, now).await?;
    let mut first = None;
    for permission in Permission::ALL.iter().filter(|p| missing.has(**p)) {
        match asked.has(*permission, scope).await? {
            Has::Yes => {}
            Has::No => return Ok(None),
            Has::NotAwake(why, place) => {
                first.get_or_insert((*permission, why, place));
            }
        }
    }
    Ok(first.map(|(permission, why, place)| why.refusal(permission, place)))
}

/// Demands a permission of a caller on a scope, late.
///
/// # Errors
/// `PERMISSION_DENIED`, `RIGHTS_ASLEEP`; those of the database.
pub async fn demand<F: Facts>(
    db: &F,
    caller: &Caller,
    permission: Permission,
    scope: ScopeKey,
    now: Micros,
) -> Result<()> {
    let mut asked = stand(db, caller, now).await?;
    match asked.has(permission, scope).await? {
        Has::Yes => Ok(()),
        Has::No => Err(Error::denied(permission)),
        Has::NotAwake(why, scope) => Err(why.refusal(permission, scope)),
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection};
    use uuid::Uuid;

    use super::*;
    use crate::{
        access::rules::{self, Alternative},
        env::Env,
        error::Language,
        proto::{
            access::{LinkKind, MethodRule},
            account::AddMembersRequest,
            directory::{
                AcceptInvitationRequest, CreateTenantRequest, CreateUserRequest, GetUserRequest,
            },
            relationship::{CreateCustomerUserRequest, GetRelationshipRequest},
        },
    };

    const TENANT: Uuid = Uuid::from_u128(1);

    fn rule(method: &str) -> &'static Rule {
        rules::of_path(&format!("/entente.{method}")).unwrap()
    }

    fn nobody() -> Caller {
        Caller {
            who: None,
            via: None,
            address: None,
            language: Language::English,
            trace_id: String::new(),
        }
    }

    fn faults(told: Result<Named>) -> Vec<String> {
        let fields = |error: Error| {
            error
                .fields()
                .iter()
                .map(|(field, _)| field.clone())
                .collect()
        };
        told.map_or_else(fields, |_| Vec::new())
    }

    // proves COM-2
    #[test]
    fn a_name_that_the_rule_speaks_of_is_one_of_its_kind_and_is_told_once() {
        // Two alternatives of this rule speak of the same field.
        let of = |name: &str| {
            let name = name.to_owned();
            resolve(
                rule("directory.v1.UserService/GetUser"),
                &GetUserRequest { name },
            )
        };
        let user = Name::User(TENANT, Uuid::from_u128(2));
        assert_eq!(of(&user.to_string()).unwrap(), [("name", vec![user])]);
        for bad in [
            String::new(),
            "bob".to_owned(),
            Name::Tenant(TENANT).to_string(),
            Name::Application(TENANT, Uuid::from_u128(2)).to_string(),
        ] {
            assert_eq!(faults(of(&bad)), ["name"], "{bad:?}");
        }
    }

    // proves COM-2
    #[test]
    fn a_name_that_need_not_be_there_is_one_if_it_is_and_lies_within() {
        let of = |group: &str| {
            let request = CreateUserRequest {
                parent: Name::Tenant(TENANT).to_string(),
                groups: vec![group.to_owned()],
                ..CreateUserRequest::default()
            };
            faults(resolve(
                rule("directory.v1.UserService/CreateUser"),
                &request,
            ))
        };
        let group = |tenant| Name::Group(tenant, Uuid::from_u128(2)).to_string();
        assert_eq!(of(&group(TENANT)), [""; 0]);
        for bad in [group(Uuid::from_u128(3)), "team".to_owned()] {
            assert_eq!(of(&bad), ["groups"], "{bad:?}");
        }
    }

    // proves COM-18
    #[test]
    fn a_field_gives_a_thousand_names_to_a_proof_and_no_more() {
        let of = |count: usize| {
            let name = Name::User(TENANT, Uuid::from_u128(2)).to_string();
            let request = AddMembersRequest {
                parent: Name::Account(Uuid::from_u128(3)).to_string(),
                principals: vec![name; count],
                ..AddMembersRequest::default()
            };
            faults(resolve(
                rule("account.v1.MemberService/AddMembers"),
                &request,
            ))
        };
        assert_eq!(of(MOST_NAMES), [""; 0]);
        for count in [MOST_NAMES + 1, MOST_NAMES + 2] {
            assert_eq!(of(count), ["principals"]);
        }
    }

    // proves COM-1
    #[test]
    fn who_may_not_hears_of_the_field_that_leads_another_way() {
        let of = |tenant: &str| {
            let request = GetRelationshipRequest {
                tenant: tenant.to_owned(),
                ..GetRelationshipRequest::default()
            };
            let rule = rule("relationship.v1.RelationshipService/GetRelationship");
            other_way(rule, &request)
        };
        assert_eq!(of(""), Some("tenant"));
        assert_eq!(of(&Name::Tenant(TENANT).to_string()), None);
        // A field that only adds to what is demanded leads nowhere.
        let rule = rule("relationship.v1.DelegatedAdminService/CreateCustomerUser");
        assert_eq!(other_way(rule, &CreateCustomerUserRequest::default()), None);
    }

    // proves COM-1
    #[test]
    fn what_a_rule_looks_at_is_locked_before() {
        let request = CreateUserRequest {
            parent: Name::Tenant(TENANT).to_string(),
            ..CreateUserRequest::default()
        };
        let on_tenant = rule("directory.v1.UserService/CreateUser");
        let named = resolve(on_tenant, &request).unwrap();
        let found = scopes(on_tenant, &named, &nobody());
        assert_eq!(found, [ScopeKey::Tenant(TENANT)]);
        let on_operator = rule("directory.v1.TenantService/CreateTenant");
        let named = resolve(on_operator, &CreateTenantRequest::default()).unwrap();
        assert_eq!(scopes(on_operator, &named, &nobody()), [ScopeKey::Operator]);
    }

    /// A database with the table of links alone, which is empty.
    async fn no_links() -> DatabaseConnection {
        let mut options = ConnectOptions::new("sqlite::memory:");
        // A second connection would have a memory of its own.
        options.max_connections(1);
        let db = Database::connect(options).await.unwrap();
        let table = "CREATE TABLE links (mac blob, kind integer, subject_id blob, scope_kind integer, scope_id blob, expire_time bigint)";
        db.execute_unprepared(table).await.unwrap();
        db
    }

    // proves COM-1
    #[tokio::test]
    async fn nobody_is_signed_in_where_a_mailed_token_would_do_as_well() {
        let any_of = [
            Demand::Token(LinkKind::Invitation, "token"),
            Demand::SignedIn,
            Demand::Oneself("@caller"),
        ];
        let masked = false;
        let any_of = any_of.map(|demand| Alternative {
            demand,
            lent_by: "",
            masked,
        });
        // No method has such a rule; it is made for this test.
        let rule: &'static Rule = Box::leak(Box::new(Rule {
            method: "entente.test.v1.Test/Test",
            declared: MethodRule::default(),
            kind: CallKind::Mutation,
            any_of: any_of.into(),
            within: Vec::new(),
            account: None,
        }));
        let db = no_links().await;
        let keys = Keys::derive(&Env::seeded(1, 0).bytes::<32>()).unwrap();
        for (token, reason) in [
            ("", Reason::CredentialsMissing),
            ("entl_none", Reason::LinkInvalid),
        ] {
            let request = AcceptInvitationRequest {
                token: token.to_owned(),
                ..AcceptInvitationRequest::default()
            };
            let (named, caller) = (Vec::new(), nobody());
            let proven = prove(&db, &keys, &caller, rule, &named, &request, 0).await;
            assert_eq!(proven.unwrap_err().reason(), reason, "{token:?}");
        }
    }
}
