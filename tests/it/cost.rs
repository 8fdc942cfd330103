//! What a call costs, counted: SQL statements, password hashes, mails (COM-2). Whoever has no right in a scope can't tell by time what is
//! there, since as much is done either way.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use entente::{
    access::refusals,
    proto::directory::{
        DeleteKeyRequest, KeyCredential, PasswordCredential, SignInRequest,
        sign_in_request::Credential,
    },
    store::connect::Db,
};
use sea_orm::Statement;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{
    access::{claim, names_for, world},
    dynamic::{self, Names, Place},
    harness::{ADMINISTRATOR, PASSWORD, Site, both_asking, new_user, refused, request_id},
    people::{People as _, application},
};

/// The statements that calls make. Those of the scheduler are left out: its tasks are older than the call. What begins or ends a transaction
/// isn't counted by itself; each transaction reads the test clock, which is.
#[derive(Clone, Default)]
pub struct Statements(Arc<Counted>);

#[derive(Default)]
struct Counted {
    /// Tasks with a lower number were there before the call.
    since: AtomicU64,
    made: Mutex<Vec<Statement>>,
    /// All that were ever made.
    all: AtomicU64,
}

/// The number of the task that runs this: they count up through the whole process.
fn task() -> Option<u64> {
    tokio::task::try_id().map(|id| id.to_string().parse().unwrap())
}

impl Statements {
    /// Counts what is done over these connections from now on.
    pub fn watch(&self, db: &mut Db) {
        self.0.since.store(u64::MAX, Ordering::SeqCst);
        for pool in [&mut db.write, &mut db.lanes, &mut db.read] {
            let counted = self.0.clone();
            pool.set_metric_callback(move |info| {
                counted.all.fetch_add(1, Ordering::SeqCst);
                // The tests' own statements are made by no task.
                if task().is_some_and(|id| id > counted.since.load(Ordering::SeqCst)) {
                    let mut made = counted.made.lock().unwrap();
                    made.push(info.statement.clone());
                }
            });
        }
    }

    /// How many were made, by whomever.
    pub fn all(&self) -> u64 {
        self.0.all.load(Ordering::SeqCst)
    }

    /// Begins anew.
    pub async fn start(&self) {
        let now = tokio::spawn(async { task() }).await.unwrap().unwrap();
        self.0.made.lock().unwrap().clear();
        self.0.since.store(now, Ordering::SeqCst);
    }

    /// What was done since the start, with its values; counts no more.
    pub fn made(&self) -> Vec<Statement> {
        self.0.since.store(u64::MAX, Ordering::SeqCst);
        std::mem::take(&mut self.0.made.lock().unwrap())
    }

    /// What was done since the start; counts no more.
    pub fn told(&self) -> Vec<String> {
        self.made().into_iter().map(|made| made.sql).collect()
    }
}

/// What a call cost.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Texts of the statements, in order.
    pub statements: Vec<String>,
    /// Password hashes.
    pub hashes: u64,
    /// Mails queued.
    pub mails: i64,
}

impl Cost {
    /// What time can tell.
    pub fn counts(&self) -> (usize, u64, i64) {
        (self.statements.len(), self.hashes, self.mails)
    }
}

/// A name of the same form, of nothing that exists; `within` keeps all but the last ID.
fn unreal(name: &str, within: bool) -> String {
    let last = name.split('/').count() - 1;
    name.split('/')
        .enumerate()
        .map(|(i, part)| {
            if part.parse::<Uuid>().is_ok() && (!within || i == last) {
                request_id()
            } else {
                part.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// The IDs of one name put in place of those of another, wherever they stand.
fn swapped(text: &str, of: &str, instead: &str) -> String {
    of.split('/')
        .zip(instead.split('/'))
        .fold(text.to_owned(), |text, (a, b)| {
            if a.len() == 36 {
                text.replace(a, b)
            } else {
                text
            }
        })
}

/// Everything that an answer says, with the IDs of one request put in place of the other's.
fn heard(answer: Result<Vec<u8>, Status>, of: &str, instead: &str) -> (Code, String, String) {
    let swap = |text: &str| swapped(text, of, instead);
    match answer {
        Ok(bytes) => (
            Code::Ok,
            String::new(),
            swap(&String::from_utf8_lossy(&bytes)),
        ),
        Err(status) => (
            status.code(),
            swap(status.message()),
            swap(&details(&status)),
        ),
    }
}

/// All that a status says beside its message; what has no order is put in one.
fn details(status: &Status) -> String {
    let all = status.get_error_details();
    let info = all.error_info().map(|info| {
        let metadata: BTreeMap<_, _> = info.metadata.iter().collect();
        format!("{} {} {metadata:?}", info.reason, info.domain)
    });
    let others = (all.retry_info(), all.debug_info(), all.quota_failure());
    let failures = (all.precondition_failure(), all.bad_request());
    let further = (all.request_info(), all.resource_info(), all.help());
    let text = all.localized_message();
    format!("{info:?} {others:?} {failures:?} {further:?} {text:?}")
}

fn place_names(places: &[Place]) -> Vec<&Place> {
    places
        .iter()
        .filter(|p| {
            p.field().kind() == prost_reflect::Kind::String
                && dynamic::reference_of(p.field()).is_some()
                && is_there(p.field())
        })
        .collect()
}

/// Whether every request has a field.
fn is_there(field: &prost_reflect::FieldDescriptor) -> bool {
    dynamic::behaves(field, dynamic::REQUIRED) || dynamic::behaves(field, dynamic::IDENTIFIER)
}

// proves COM-2
#[tokio::test]
async fn strangers_hear_the_same_of_what_exists_and_what_does_not_at_the_same_cost() {
    both_asking(async |site| {
        let world = world(&site).await;
        let (mut different, mut compared) = (Vec::new(), 0);
        for (_, method) in dynamic::methods() {
            if method.name() == "SignOut" {
                continue;
            }
            let all = dynamic::places(&method);
            for place in place_names(&all) {
                let kind = dynamic::reference_of(place.field()).unwrap();
                if kind == "entente.dev/Agreement" {
                    // The operator's, for everybody to read who is signed in: no secret.
                    continue;
                }
                let own = names_for(&method, &world.own);
                let foreign = names_for(&method, &world.names);
                let real = foreign
                    .0
                    .get(&place.path)
                    .unwrap_or(&foreign.0[&kind])
                    .clone();
                for (column, within) in [
                    ("nobody", false),
                    ("stranger", false),
                    ("stranger", true),
                    ("plain", false),
                    ("plain", true),
                    ("elsewhere", true),
                    ("app", true),
                    ("temp", true),
                    ("identity", true),
                ] {
                    let fake = unreal(&real, within);
                    // Once all else is the caller's own, once all else is the tenant's.
                    for rest in [&own, &foreign] {
                        let send = async |name: &str| {
                            let names = rest
                                .0
                                .iter()
                                .map(|(k, v)| (k.clone(), swapped(v, &real, name)))
                                .collect();
                            let names = Names(names).with(&place.path, name);
                            let mut request = dynamic::request(&method, &names);
                            // What needn't be there stands in no request until it is put there.
                            if !place.way.iter().all(is_there) {
                                let value = prost_reflect::Value::String(name.to_owned());
                                dynamic::set(&mut request, &place.way, &names, value);
                            }
                            let caller = &world.callers[column];
                            // Each refusal is the first of its minute.
                            refusals::flush(&site.app, true).await.unwrap();
                            // Which heads of the caller's own are remembered depends on who committed last.
                            site.app.memory.forget_heads();
                            let call = dynamic::call(caller, &method, dynamic::bytes(&request));
                            site.cost_of(call).await
                        };
                        let (answer, cost) = send(&real).await;
                        let there = heard(answer, &real, &fake);
                        // What one may see of one's own tenant may differ.
                        if column != "stranger" && there.0 == Code::Ok {
                            continue;
                        }
                        let (answer, other_cost) = send(&fake).await;
                        let not_there = heard(answer, &fake, &fake);
                        if there != not_there {
                            different.push(format!(
                                "{} {} as {column}:\n  {there:?}\n  {not_there:?}",
                                method.full_name(),
                                place.path
                            ));
                        }
                        // What lies in the caller's own tenant is no secret to it; that a refusal there is audited once more costs.
                        let token = world.callers[column].token.as_deref();
                        let home = token.map(|t| format!("tenants/{}", claim(t, "tid")));
                        if home.is_some_and(|h| real.starts_with(&h) && !fake.starts_with(&h)) {
                            continue;
                        }
                        compared += 1;
                        if cost.counts() != other_cost.counts() {
                            different.push(format!(
                                "{} {} as {column}, {:?}:\n  {cost:#?}\n  {other_cost:#?}",
                                method.full_name(),
                                place.path,
                                there.0,
                            ));
                        }
                    }
                }
            }
        }
        assert!(different.is_empty(), "{}", different.join("\n"));
        assert!(compared > 500, "only {compared} calls were compared");
    })
    .await;
}

/// A sign-in that fails, and what it cost.
async fn failing(site: &Site, credential: Credential) -> Cost {
    let request = SignInRequest {
        credential: Some(credential),
        request_id: String::new(),
    };
    let nobody = site.nobody();
    let call = async { nobody.sessions().sign_in(request).await };
    let (answer, cost) = site.cost_of(call).await;
    refused(answer, Code::Unauthenticated, "SIGN_IN_FAILED");
    cost
}

/// All cost the same, and something.
#[track_caller]
fn all_alike(costs: &[(&str, Cost)]) {
    let (first, cost) = &costs[0];
    for (what, other) in costs {
        assert_eq!(
            cost.counts(),
            other.counts(),
            "{first} and {what}: {cost:#?} {other:#?}"
        );
    }
}

// proves COM-2, PWD-7
#[tokio::test]
async fn sign_ins_that_fail_cost_the_same_whatever_is_wrong() {
    both_asking(async |site| {
        let contoso = site.tenant("contoso").await;
        let ann = &contoso.admin.caller;
        let bob = site.person(&contoso, "bob").await;
        let off = site.person(&contoso, "off").await;
        ann.disable(&off.name).await.unwrap();
        let gone = site.person(&contoso, "gone").await;
        ann.delete(&gone.name).await.unwrap();
        let mut users = ann.users();
        let fresh = users.create_user(new_user(&contoso.name, "fresh")).await;
        let fresh = fresh.unwrap().into_inner().user.unwrap();
        let password = |name: &str, password: &str| {
            Credential::Password(PasswordCredential {
                sign_in_name: name.to_owned(),
                password: password.to_owned(),
            })
        };
        let mut costs = Vec::new();
        for (what, name) in [
            ("a wrong password", bob.sign_in_name.as_str()),
            ("a wrong password of staff", ADMINISTRATOR),
            ("a wrong temporary password", &fresh.sign_in_name),
            ("a disabled user", &off.sign_in_name),
            ("a deleted user", &gone.sign_in_name),
            ("no such user", "nobody@contoso.partners.localhost"),
            ("no such tenant", "bob@nowhere.partners.localhost"),
            ("another domain", "bob@elsewhere.example"),
            ("no domain", "bob"),
        ] {
            let cost = failing(&site, password(name, "wrong green chair")).await;
            assert_eq!((cost.hashes, cost.mails), (1, 0), "{what}");
            costs.push((what, cost));
        }
        all_alike(&costs);
        let right = failing(&site, password(&off.sign_in_name, PASSWORD)).await;
        assert_eq!((right.hashes, right.mails), (1, 0));

        let app = application(ann, &contoso.name, "App").await;
        let bare = application(ann, &contoso.name, "Without keys").await;
        let secret = ann.key(&app.name).await.unwrap().secret;
        let key = |client_id: &str, secret: &str| {
            Credential::Key(KeyCredential {
                client_id: client_id.to_owned(),
                secret: secret.to_owned(),
            })
        };
        let other = ann.key(&app.name).await.unwrap();
        ann.applications()
            .delete_key(DeleteKeyRequest {
                name: other.key.unwrap().name,
                ..DeleteKeyRequest::default()
            })
            .await
            .unwrap();
        let mut costs = Vec::new();
        for (what, client_id, secret) in [
            ("a deleted key", app.client_id.as_str(), &other.secret),
            ("another's key", &bare.client_id, &secret),
            ("no such application", &request_id(), &secret),
        ] {
            let cost = failing(&site, key(client_id, secret)).await;
            assert_eq!((cost.hashes, cost.mails), (0, 0), "{what}");
            costs.push((what, cost));
        }
        all_alike(&costs);
        // What can be told without the database is told of everybody alike.
        let mut costs = Vec::new();
        for (what, client_id) in [
            ("no key, of an application", app.client_id.as_str()),
            ("no key, of nothing", &request_id()),
        ] {
            costs.push((what, failing(&site, key(client_id, "entk_no-key")).await));
        }
        all_alike(&costs);
    })
    .await;
}

// proves COM-2
#[tokio::test]
async fn what_a_call_costs_is_counted() {
    both_asking(async |site| {
        let contoso = site.tenant("contoso").await;
        let bob = site.person_with(&contoso, "bob", |r| {
            r.user.as_mut().unwrap().recovery_email = "bob@contoso.example".to_owned();
        });
        let bob = bob.await;
        let (answer, cost) = site.cost_of(contoso.admin.caller.user(&bob.name)).await;
        answer.unwrap();
        assert!((3..20).contains(&cost.statements.len()), "{cost:#?}");
        assert_eq!((cost.hashes, cost.mails), (0, 0));
        let read = cost.statements.len();
        let (answer, cost) = site.cost_of(contoso.admin.caller.reset(&bob.name)).await;
        answer.unwrap();
        assert!(cost.statements.len() > 2 * read, "{cost:#?}");
        assert_eq!((cost.hashes, cost.mails), (0, 1));
        let (answer, cost) = site.cost_of(site.tokens(ADMINISTRATOR, PASSWORD)).await;
        answer.unwrap();
        assert_eq!((cost.hashes, cost.mails), (1, 0));
        // What the scheduler does meanwhile is not the call's.
        let pause = tokio::time::sleep(std::time::Duration::from_millis(700));
        let ((), cost) = site.cost_of(pause).await;
        assert_eq!(cost.counts(), (0, 0, 0), "{cost:#?}");
    })
    .await;
}
