//! Audit of what was refused, and of looks by the operator's people (COM-10, ROL-11).
//!
//! Refused attempts at privileged calls go to the caller's own chain, and to the scope's where the caller belongs to it: the first at
//! once, the rest of the minute as one closing event. Unauthenticated ones are one operator event a method and minute.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Mutex,
    time::{Duration, Instant},
};

use sea_orm::Value;

use super::{
    grants,
    principal::{Caller, Principal},
    proof::Named,
};
use crate::{
    app::{App, Call, origin_of},
    env::HOUR_US,
    error::{Error, Result, reason_name},
    names::Name,
    store::{audit::Body, scope_key::ScopeKey, sql, work::Origin},
};

/// Kinds of refusals counted at once; beyond, further ones only stand in the log until the minute ends.
const MOST_COUNTED: usize = 50_000;
/// Those of one scope; beyond, further ones are counted together, so that nobody hides what others do.
const MOST_A_SCOPE: usize = 1_000;
/// What stands in the audit for kinds beyond those.
const FURTHER: (&str, &str) = ("further-refusals", "VARIOUS");
/// Scopes of one refusal in which the caller's membership is looked for: those of a batch beyond are told by the caller's own chain.
const MOST_SCOPES: usize = 10;
/// How long refusals are gathered.
const GATHERED: Duration = Duration::from_secs(60);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    scope: ScopeKey,
    actor: String,
    via: String,
    action: &'static str,
    outcome: &'static str,
}

struct Count {
    since: Instant,
    more: i64,
    address: String,
}

/// What is still to be written.
#[derive(Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    of: HashMap<Key, Count>,
    /// Kinds of a scope.
    kinds: HashMap<ScopeKey, usize>,
}

impl Counts {
    fn remove(&mut self, key: &Key) -> Option<Count> {
        let count = self.of.remove(key)?;
        if let Entry::Occupied(mut kinds) = self.kinds.entry(key.scope) {
            *kinds.get_mut() -= 1;
            if *kinds.get() == 0 {
                kinds.remove();
            }
        }
        Some(count)
    }

    fn insert(&mut self, key: Key, count: Count) {
        let scope = key.scope;
        if self.of.insert(key, count).is_none() {
            *self.kinds.entry(scope).or_default() += 1;
        }
    }
}

impl Tally {
    /// Counts one; whether it is the first of its minute.
    fn add(&self, mut key: Key, address: String, mut counts_itself: bool) -> bool {
        let Ok(mut counts) = self.0.lock() else {
            return false;
        };
        let kinds = counts.kinds.get(&key.scope).copied().unwrap_or(0);
        if kinds >= MOST_A_SCOPE && !counts.of.contains_key(&key) {
            key = Key {
                scope: key.scope,
                actor: String::new(),
                via: String::new(),
                action: FURTHER.0,
                outcome: FURTHER.1,
            };
            counts_itself = true;
        }
        if let Some(count) = counts.of.get_mut(&key) {
            count.more += 1;
            return false;
        }
        if counts.of.len() >= MOST_COUNTED {
            tracing::warn!(
                action = key.action,
                "too many kinds of refusals in a minute; this one is only logged"
            );
            return false;
        }
        counts.insert(
            key,
            Count {
                since: Instant::now(),
                more: i64::from(counts_itself),
                address,
            },
        );
        // What counts itself is told at the minute's end.
        !counts_itself
    }

    fn forget(&self, key: &Key) {
        if let Ok(mut counts) = self.0.lock() {
            counts.remove(key);
        }
    }

    fn due(&self, all: bool) -> Vec<Key> {
        let Ok(counts) = self.0.lock() else {
            return Vec::new();
        };
        let due = counts
            .of
            .iter()
            .filter(|(_, c)| all || c.since.elapsed() >= GATHERED);
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Takes a kind out to be written, if there is anything to write of it.
    fn take(&self, key: Key) -> Option<Unwritten<'_>> {
        let count = self.0.lock().ok()?.remove(&key)?;
        (count.more > 0).then(|| Unwritten {
            tally: self,
            kind: Some((key, count)),
        })
    }

    fn put_back(&self, key: Key, count: Count) {
        let Ok(mut counts) = self.0.lock() else {
            return;
        };
        match counts.of.get_mut(&key) {
            Some(since) => since.more += count.more,
            None => counts.insert(key, count),
        }
    }
}

/// A kind that is taken out to be written; it goes back unless it was.
struct Unwritten<'a> {
    tally: &'a Tally,
    kind: Option<(Key, Count)>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        if let Some((key, count)) = self.kind.take() {
            self.tally.put_back(key, count);
        }
    }
}

/// A refusal that is to be audited.
pub(crate) struct Refused {
    who: Principal,
    origin: Origin,
    action: &'static str,
    outcome: &'static str,
    names: Vec<Name>,
    /// The operator's scope was demanded on beside those of the names.
    operator: bool,
}

impl Refused {
    /// What is to be audited of a refusal: attempts of the signed-in at privileged methods.
    pub(crate) fn of(call: &Call, named: &Named, error: &Error) -> Option<Self> {
        let audited = matches!(
            error.code(),
            tonic::Code::PermissionDenied | tonic::Code::FailedPrecondition
        );
        if !call.rule.declared.privileged || !audited {
            return None;
        }
        Some(Self {
            who: call.caller.who?.principal,
            origin: origin_of(call),
            action: call.rule.method,
            outcome: reason_name(error.reason()),
            names: named.iter().flat_map(|(_, names)| names).copied().collect(),
            operator: call.rule.demands_on_operator(),
        })
    }

    /// Writes it, if it is the first of its minute; else counts it.
    ///
    /// # Errors
    /// Those of the database; then the next one is the first again.
    pub(crate) async fn write(self, app: &App) -> Result<()> {
        let Self {
            who,
            origin,
            action,
            outcome,
            names,
            operator,
        } = self;
        let mut scopes = vec![who.home()];
        let mut demanded: Vec<ScopeKey> = names.iter().map(Name::scope).collect();
        demanded.extend(operator.then_some(ScopeKey::Operator));
        demanded.sort_unstable();
        demanded.dedup();
        for scope in demanded.into_iter().take(MOST_SCOPES) {
            if !scopes.contains(&scope) && grants::held(&app.db.read, who.id, scope).await?.member {
                scopes.push(scope);
            }
        }
        scopes.sort_unstable();
        let resources: Vec<String> = names.iter().take(20).map(ToString::to_string).collect();
        let key = |scope| Key {
            scope,
            actor: origin.actor.clone(),
            via: origin.via.clone(),
            action,
            outcome,
        };
        let mut at_once = Vec::new();
        for scope in scopes {
            if app
                .tally
                .add(key(scope), origin.client_address.clone(), false)
            {
                at_once.push(scope);
            }
        }
        let written = write(app, &at_once, &origin, outcome, &resources, 1).await;
        if written.is_err() {
            at_once
                .iter()
                .for_each(|scope| app.tally.forget(&key(*scope)));
        }
        written
    }
}

/// Counts a call without good credentials: one operator event a method and minute.
pub(crate) fn unauthenticated(
    app: &App,
    action: &'static str,
    outcome: &'static str,
    caller: &Caller,
) {
    let key = Key {
        scope: ScopeKey::Operator,
        actor: String::new(),
        via: String::new(),
        action,
        outcome,
    };
    app.tally.add(key, caller.address_text(), true);
}

/// Audits a look by the operator's people at what belongs to others: one event a person, resource and hour, committed before the
/// answer; looks by services are counted, one event a minute.
///
/// # Errors
/// Those of the database: then the look isn't granted.
pub(crate) async fn looked(app: &App, call: &Call, resource: Name) -> Result<()> {
    let Some(who) = call.caller.who else {
        return Ok(());
    };
    let origin = origin_of(call);
    if !who.principal.is_person() {
        let key = Key {
            scope: ScopeKey::Operator,
            actor: origin.actor,
            via: origin.via,
            action: call.rule.method,
            outcome: "OK",
        };
        app.tally.add(key, call.caller.address_text(), true);
        return Ok(());
    }
    let hour = app.now().await? / HOUR_US;
    let (resource_text, principal) = (resource.to_string(), who.principal.id);
    app.note(move |tx| {
        let (origin, resource) = (origin.clone(), resource_text.clone());
        Box::pin(async move {
            let sql = "INSERT INTO looks (principal_id, resource, hour) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            let values: [Value; 3] = [principal.into(), resource.clone().into(), hour.into()];
            let new = sql::execute(tx.db(), sql, values).await?.rows_affected() > 0;
            if !new {
                return Ok(());
            }
            let mut scopes = vec![ScopeKey::Operator];
            if let Some(name) = Name::parse(&resource)
                && name.scope() != ScopeKey::Operator
            {
                scopes.push(name.scope());
            }
            append(tx, &scopes, &origin, "OK", &[resource], 1).await
        })
    })
    .await
}

/// Writes what is due; all of it when the server stops. What can't be written now is kept for the next time.
///
/// # Errors
/// Those of the database, the first of them.
pub async fn flush(app: &App, all: bool) -> Result<()> {
    let mut failed = None;
    for key in app.tally.due(all) {
        let Some(mut unwritten) = app.tally.take(key) else {
            continue;
        };
        let Some((key, count)) = &unwritten.kind else {
            continue;
        };
        let origin = Origin {
            action: key.action.to_owned(),
            actor: key.actor.clone(),
            via: key.via.clone(),
            relationship: String::new(),
            client_address: count.address.clone(),
            trace_id: String::new(),
        };
        match write(app, &[key.scope], &origin, key.outcome, &[], count.more).await {
            Ok(()) => unwritten.kind = None,
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn write(
    app: &App,
    scopes: &[ScopeKey],
    origin: &Origin,
    outcome: &'static str,
    resources: &[String],
    count: i64,
) -> Result<()> {
    if scopes.is_empty() {
        return Ok(());
    }
    let (scopes, origin, resources) = (scopes.to_vec(), origin.clone(), resources.to_vec());
    app.note(move |tx| {
        let (scopes, origin, resources) = (scopes.clone(), origin.clone(), resources.clone());
        Box::pin(async move { append(tx, &scopes, &origin, outcome, &resources, count).await })
    })
    .await
}

async fn append(
    tx: &mut crate::app::Tx,
    scopes: &[ScopeKey],
    origin: &Origin,
    outcome: &str,
    resources: &[String],
    count: i64,
) -> Result<()> {
    let event_id = tx.id();
    let body = Body {
        create_time: tx.now(),
        action: origin.action.clone(),
        actor: origin.actor.clone(),
        via: origin.via.clone(),
        relationship: origin.relationship.clone(),
        resources: resources.to_vec(),
        outcome: outcome.to_owned(),
        changed_fields: Vec::new(),
        client_address: origin.client_address.clone(),
        trace_id: origin.trace_id.clone(),
        count,
        event_id: event_id.as_bytes().to_vec(),
    };
    let app = tx.app().clone();
    tx.lock(scopes.iter().copied()).await?;
    for scope in scopes {
        tx.note(&app.keys, *scope, &body, event_id).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use uuid::Uuid;

    use super::*;
    use crate::{
        access::{
            principal::{Authenticated, Kind},
            rules,
        },
        error::{Language, Reason},
    };

    const ADDRESS: &str = "192.0.2.1";

    fn key(action: &'static str) -> Key {
        Key {
            scope: ScopeKey::Operator,
            actor: String::new(),
            via: String::new(),
            action,
            outcome: "PERMISSION_MISSING",
        }
    }

    fn due(tally: &Tally, all: bool) -> Vec<(&'static str, i64)> {
        let written = |key| {
            let (key, count) = tally.take(key)?.kind.take()?;
            assert_eq!(count.address, ADDRESS);
            Some((key.action, count.more))
        };
        let mut due: Vec<_> = tally.due(all).into_iter().filter_map(written).collect();
        due.sort_unstable();
        due
    }

    // proves COM-10
    #[test]
    fn the_first_of_a_minute_is_told_and_those_after_it_are_counted() {
        let tally = Tally::default();
        let add = |action, itself| tally.add(key(action), ADDRESS.to_owned(), itself);
        assert!(add("told", false) && !add("told", false) && !add("told", false));
        assert!(!add("counted", true) && !add("counted", true));
        assert!(add("alone", false));
        assert!(due(&tally, false).is_empty());
        // What was told at once and came once needs no second event.
        assert_eq!(due(&tally, true), [("counted", 2), ("told", 2)]);
        assert!(due(&tally, true).is_empty());
        assert!(add("told", false));
    }

    // proves COM-10
    #[test]
    fn a_minute_ends_for_each_kind_by_itself_and_what_was_not_written_is_first_again() {
        let tally = Tally::default();
        let add = |action| tally.add(key(action), ADDRESS.to_owned(), false);
        for action in ["old", "new"] {
            assert!(add(action) && !add(action));
        }
        if let Some(count) = tally.0.lock().unwrap().of.get_mut(&key("old")) {
            count.since = Instant::now().checked_sub(GATHERED).unwrap();
        }
        assert_eq!(due(&tally, false), [("old", 1)]);
        tally.forget(&key("new"));
        assert!(due(&tally, true).is_empty());
        assert!(add("new"));
    }

    // proves COM-10
    #[test]
    fn what_can_not_be_written_is_kept_with_what_comes_meanwhile() {
        let tally = Tally::default();
        let add = || tally.add(key("kept"), ADDRESS.to_owned(), false);
        assert!(add() && !add());
        let unwritten = tally.take(key("kept")).unwrap();
        assert!(add() && !add() && !add());
        drop(unwritten);
        assert_eq!(due(&tally, true), [("kept", 3)]);
        assert!(tally.0.lock().unwrap().kinds.is_empty());
    }

    // proves COM-10
    #[test]
    fn many_kinds_of_one_scope_are_counted_together_and_hide_nobody_elses() {
        let tally = Tally::default();
        let add = |scope, actor: usize| {
            let actor = actor.to_string();
            let key = Key {
                scope,
                actor,
                ..key("many")
            };
            tally.add(key, ADDRESS.to_owned(), false)
        };
        let of = |n: u128| ScopeKey::Tenant(Uuid::from_u128(n));
        assert!((0..MOST_A_SCOPE).all(|actor| add(of(0), actor)));
        assert!(!add(of(0), MOST_A_SCOPE) && !add(of(0), MOST_A_SCOPE + 1));
        assert!(!add(of(0), 0));
        // Others are told as ever.
        assert!(add(of(1), 0) && add(ScopeKey::Operator, 0));
        assert_eq!(due(&tally, true), [(FURTHER.0, 2), ("many", 1)]);
        // In all there are no more than memory has room for.
        let scopes = (0..).map(of).take(MOST_COUNTED / MOST_A_SCOPE);
        for scope in scopes {
            assert!((0..MOST_A_SCOPE).all(|actor| add(scope, actor)));
        }
        assert!(!add(ScopeKey::Operator, 0));
    }

    fn call(method: &str, who: bool) -> Call {
        let tenant = Uuid::from_u128(2);
        let principal = Principal {
            kind: Kind::User,
            id: Uuid::from_u128(1),
            tenant,
        };
        let who = who.then_some(Authenticated {
            principal,
            session: Uuid::nil(),
            sign_in_time: 0,
            expire_time: i64::MAX,
        });
        Call {
            rule: rules::of_path(&format!("/entente.{method}")).unwrap(),
            caller: Caller {
                who,
                via: None,
                address: None,
                language: Language::English,
                trace_id: String::new(),
            },
            deadline: tokio::time::Instant::now(),
            gone: CancellationToken::new(),
        }
    }

    // proves COM-10
    #[test]
    fn refusals_of_the_signed_in_by_privileged_methods_are_audited() {
        let of = |method, who, error: Error| Refused::of(&call(method, who), &Vec::new(), &error);
        let (disable, make) = (
            "directory.v1.UserService/DisableUser",
            "directory.v1.TenantService/CreateTenant",
        );
        let read = "directory.v1.UserService/GetUser";
        let denied = || Error::refused(Reason::NothingToWake);
        let told = of(disable, true, denied()).unwrap();
        assert_eq!(told.who.id, Uuid::from_u128(1));
        assert_eq!(told.outcome, "NOTHING_TO_WAKE");
        assert!(!told.operator);
        assert!(of(make, true, denied()).unwrap().operator);
        assert!(of(disable, true, Error::precondition(Reason::RightsAsleep)).is_some());
        assert!(of(disable, true, Error::field("name", "is bad")).is_none());
        assert!(of(disable, true, Error::unauthenticated(Reason::TokenInvalid)).is_none());
        assert!(of(disable, false, denied()).is_none());
        assert!(of(read, true, denied()).is_none());
    }
}
