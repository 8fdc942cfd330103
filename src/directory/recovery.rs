//! The way back for people who forgot their password (PWD-4): asking costs the same for every name, since a job finds out whose it is and
//! mails the link; only to the address on file, never to one of the request (ATK-5).

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

pub use super::recovery_case::{
    approve_recovery_case, get_recovery_case, list_recovery_cases, open_recovery_case,
    stop_recovery_case,
};
pub(crate) use super::recovery_case::{
    check_list_recovery_cases, check_open_recovery_case, check_stop_recovery_case,
};
pub use super::recovery_evidence::prepare_approve_recovery_case;
pub(crate) use super::recovery_return::{ASIDE, go_on};
use super::{address, credential, password, recovery_return, session::split_sign_in_name, wire};
use crate::{
    access::{
        grants,
        link::{self, Link},
        principal::Principal,
        scope::{NobodyScope, Proof, TokenScope},
    },
    app::{App, Outside, Tx},
    check::Violations,
    env::{HOUR_US, Micros},
    error::{Error, Language, Result},
    mail::{self, Template},
    proto::{
        access::LinkKind,
        directory::{
            CompletePasswordRecoveryRequest, CompletePasswordRecoveryResponse,
            StartPasswordRecoveryRequest, StartPasswordRecoveryResponse,
        },
    },
    store::{list::fold, outbox::Event, sql},
};

/// A link is good for so long.
const LINK_US: Micros = HOUR_US;
/// What marks a link by which somebody chooses a password in place of one that a partner set, and went to the customer's people.
const PARTNERS: &[u8] = b"partner's";
/// The same where there was nothing but the address that a partner gave.
const PARTNERS_OWN: &[u8] = b"partner's own";

/// Whether what a link keeps is such a mark, and nothing that a case of recovery promised.
fn is_partners(payload: &[u8]) -> bool {
    payload == PARTNERS || payload == PARTNERS_OWN
}
/// Requests looked at in one transaction; what is left is done at once after.
const REQUESTS_AT_ONCE: i64 = 100;

/// Somebody whose password can be set by a mailed link: active with its tenant, with a credential, and no guest.
#[derive(FromQueryResult)]
struct Person {
    id: Uuid,
    tenant_id: Uuid,
    user_name: String,
    display_name: String,
    recovery_email: String,
    domain_prefix: String,
}

const PERSON: &str = "SELECT u.id, u.tenant_id, u.user_name, u.display_name, u.recovery_email, t.domain_prefix FROM users u \
                      JOIN tenants t ON t.id = u.tenant_id AND t.state = 1 JOIN credentials c ON c.user_id = u.id \
                      WHERE u.state = 1 AND u.kind <> 2";

impl Person {
    async fn by_name<C: ConnectionTrait>(db: &C, app: &App, name: &str) -> Result<Option<Self>> {
        let (prefix, user_name) = split_sign_in_name(app, name);
        let sql = format!(
            "{PERSON} AND u.recovery_email <> '' AND t.domain_prefix = $1 AND u.user_name_fold = $2"
        );
        let values: [Value; 2] = [prefix.into(), user_name.into()];
        sql::one(db, sql, values).await
    }

    async fn by_id<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Option<Self>> {
        sql::one(db, format!("{PERSON} AND u.id = $1"), [id.into()]).await
    }

    fn principal(&self) -> Principal {
        grants::home_principal(self.id, self.tenant_id)
    }

    /// What the person signs in with.
    fn sign_in_name(&self, app: &App) -> String {
        if self.domain_prefix.is_empty() {
            self.user_name.clone()
        } else {
            format!(
                "{}@{}",
                self.user_name,
                wire::domain(app, &self.domain_prefix)
            )
        }
    }

    /// The values that all mails about a recovery have.
    fn values(&self, app: &App) -> [(&'static str, String); 3] {
        [
            ("name", self.display_name.clone()),
            ("sign_in_name", self.sign_in_name(app)),
            ("origin", app.config.public_origin.clone()),
        ]
    }
}

/// Notes that a way back was asked for: the same for every name.
///
/// # Errors
/// `TOO_MANY_CALLS`; those of the database.
pub async fn start_password_recovery(
    tx: &mut Tx,
    _scope: NobodyScope,
    req: StartPasswordRecoveryRequest,
) -> Result<StartPasswordRecoveryResponse> {
    let StartPasswordRecoveryRequest {
        sign_in_name,
        request_id: _,
        validate_only: _,
    } = req;
    let name = fold(&sign_in_name);
    address::count_mail(tx, "recovery", &name).await?;
    let sql = "INSERT INTO recovery_requests (id, sign_in_name, language, create_time) VALUES ($1, $2, $3, $4)";
    let values: [Value; 4] = [
        tx.id().into(),
        name.into(),
        tx.caller().language.tag().into(),
        tx.now().into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    Ok(StartPasswordRecoveryResponse {})
}

#[derive(FromQueryResult)]
struct Asked {
    id: Uuid,
    sign_in_name: String,
    language: String,
}

/// Mails links to people who asked for a way back; the scheduler's. What is asked for one person is answered once, and one person is
/// answered in one transaction, so that nobody's audit names others.
///
/// # Errors
/// Those of the database.
pub(crate) async fn mail_recovery_links(tx: &mut Tx) -> Result<u64> {
    let app = tx.app().clone();
    let sql = "SELECT id, sign_in_name, language FROM recovery_requests ORDER BY id LIMIT $1";
    let asked = sql::all::<Asked, _>(tx.db(), sql, [REQUESTS_AT_ONCE.into()]).await?;
    let mut done = Vec::new();
    let mut found: Option<(Person, Language)> = None;
    for request in &asked {
        let person = Person::by_name(tx.db(), &app, &request.sign_in_name).await?;
        match (person, &found) {
            (None, _) => {}
            (Some(person), None) => {
                found = Some((person, Language::of_tag(&request.language)));
            }
            (Some(person), Some((first, _))) if person.id == first.id => {}
            // Another person's is answered in the next transaction.
            (Some(_), Some(_)) => break,
        }
        done.push(request.id);
    }
    if let Some((person, language)) = found {
        mail_link(tx, &person, language).await?;
    }
    let sql = format!(
        "DELETE FROM recovery_requests WHERE id IN ({})",
        sql::in_ids(tx.db(), 1)
    );
    sql::execute(tx.db(), sql, [sql::ids(&done)]).await?;
    let left = done.len() < asked.len() || i64::try_from(asked.len()) == Ok(REQUESTS_AT_ONCE);
    // The scheduler goes on at once for whoever did much.
    Ok(if left { u64::MAX } else { 0 })
}

async fn mail_link(tx: &mut Tx, person: &Person, language: Language) -> Result<()> {
    let app = tx.app().clone();
    let principal = person.principal();
    let home = principal.home();
    tx.lock([home]).await?;
    // It may have been shut out before the lock was had.
    let Some(person) = Person::by_id(tx.db(), person.id).await? else {
        return Ok(());
    };
    if person.recovery_email.is_empty() {
        return Ok(());
    }
    let link = Link {
        kind: LinkKind::PasswordRecovery,
        subject: person.id,
        scope: home,
    };
    // What a case of recovery promised goes on with the new link, as long as the case does.
    let promised = link::payload(tx.db(), &app.keys, link).await?;
    let promised = promised.filter(|promise| !is_partners(promise));
    let promised = promised.unwrap_or_default();
    // What two of the operator's people found to be the person's is.
    if promised.is_empty() && is_partners_way_in(tx, &person).await? {
        return tell_of_no_link(tx, &person, language).await;
    }
    let lifetime = if promised.is_empty() {
        LINK_US
    } else {
        recovery_return::LINK_US
    };
    let token = link::make(tx, link, &promised, lifetime).await?;
    let mut values = person.values(&app).to_vec();
    values.push((
        "link",
        link::url(&app.config, link.kind, &token).to_string(),
    ));
    values.push(("token", token.to_string()));
    let object = principal.resource();
    mail::queue_in(
        tx,
        language,
        Template::PasswordRecovery,
        &person.recovery_email,
        object,
        &values,
    )
    .await?;
    tx.touch(home);
    tx.about(object.to_string());
    Ok(())
}

/// Tells somebody who asked for a link why none comes, and how to come back.
async fn tell_of_no_link(tx: &mut Tx, person: &Person, language: Language) -> Result<()> {
    let app = tx.app().clone();
    let object = person.principal().resource();
    let (to, values) = (&person.recovery_email, person.values(&app));
    let template = Template::PasswordRecoveryRefused;
    mail::queue_in(tx, language, template, to, object, &values).await?;
    tx.touch(person.principal().home());
    tx.about(object.to_string());
    Ok(())
}

/// Whether the address on file is one that a partner gave, of somebody who holds something: whoever reads it would run the customer's tenant
/// (REL-22). The person sets one itself, or comes back by an administrator.
async fn is_partners_way_in(tx: &Tx, person: &Person) -> Result<bool> {
    Ok(
        grants::lent::is_given_address(tx.db(), person.id, &person.recovery_email).await?
            && grants::holds_something(tx.db(), person.id).await?,
    )
}

/// Sets the credential of somebody who holds something, and whom a partner made or reset, by a link (REL-14): to the address on file, if it is
/// the person's own, else to the tenant's contact, else to the address that the partner gave. Gives whether there was any.
///
/// # Errors
/// Those of the database.
pub(super) async fn mail_partners_link(
    tx: &mut Tx,
    person: Uuid,
    (contact, by): (&str, &[(&'static str, String)]),
) -> Result<bool> {
    let app = tx.app().clone();
    let person = Person::by_id(tx.db(), person).await?.ok_or_else(|| {
        Error::internal("whoever a partner made or reset can't choose a password")
    })?;
    let on_file = &person.recovery_email;
    let given = grants::lent::is_given_address(tx.db(), person.id, on_file).await?;
    let addresses = if given {
        [contact, on_file]
    } else {
        [on_file, contact]
    };
    let Some(to) = addresses.into_iter().find(|to| !to.is_empty()) else {
        return Ok(false);
    };
    let principal = person.principal();
    let link = Link {
        kind: LinkKind::PasswordRecovery,
        subject: person.id,
        scope: principal.home(),
    };
    let mark = if given && to == on_file {
        PARTNERS_OWN
    } else {
        PARTNERS
    };
    let token = link::make(tx, link, mark, credential::TEMPORARY_US).await?;
    let mut values = person.values(&app).to_vec();
    values.extend_from_slice(by);
    values.push((
        "link",
        link::url(&app.config, link.kind, &token).to_string(),
    ));
    values.push(("token", token.to_string()));
    let object = principal.resource();
    mail::queue(tx, Template::PartnersCredential, to, object, &values).await?;
    Ok(true)
}

pub(crate) fn check_complete_password_recovery(
    req: &CompletePasswordRecoveryRequest,
    v: &mut Violations,
) {
    if let Some(fault) = password::fault(&req.new_password, "") {
        v.also("new_password", fault);
    }
}

/// Hashes the new password.
///
/// # Errors
/// `LINK_INVALID` for whoever can't be recovered any more; `INVALID_ARGUMENT` for a password with the user's name in it; `OVERLOADED`.
pub async fn prepare_complete_password_recovery(
    outside: &Outside,
    proof: Proof,
    req: &CompletePasswordRecoveryRequest,
) -> Result<String> {
    let app = outside.app();
    let subject = proof.token()?.link().subject;
    let person = app
        .look(move |snapshot| Box::pin(async move { Person::by_id(snapshot.db(), subject).await }))
        .await?
        .ok_or_else(link::invalid)?;
    if let Some(fault) = password::fault(&req.new_password, &person.user_name) {
        return Err(Error::field("new_password", fault));
    }
    app.hasher.hash(&req.new_password, &app.env).await
}

/// Sets the password of the person whom the token names; all sessions end, what was counted is forgotten, and the person is told. What
/// sleeps stays asleep (ROL-13).
///
/// # Errors
/// `LINK_INVALID`, also for whoever was shut out meanwhile.
pub async fn complete_password_recovery(
    tx: &mut Tx,
    scope: TokenScope,
    _req: CompletePasswordRecoveryRequest,
    hash: String,
) -> Result<CompletePasswordRecoveryResponse> {
    let app = tx.app().clone();
    let link = scope.link();
    let promised = link::redeem(tx, link).await?;
    let person = Person::by_id(tx.db(), link.subject)
        .await?
        .ok_or_else(link::invalid)?;
    let principal = person.principal();
    let is_partners = is_partners(&promised);
    // It was mailed before the person got what it holds now.
    if promised.is_empty() && is_partners_way_in(tx, &person).await? {
        return Err(link::invalid());
    }
    let is_promised = !promised.is_empty() && !is_partners;
    let address = &person.recovery_email;
    let given = grants::lent::is_given_address(tx.db(), person.id, address).await?;
    // Who chooses it reads the address that the link went to: a partner, or the person.
    let is_known = if is_partners {
        promised.as_slice() == PARTNERS_OWN
    } else {
        given && !is_promised
    };
    grants::lent::note_known(tx, person.id, is_known).await?;
    if is_promised {
        grants::lent::forget_given_address(tx, person.id).await?;
    }
    credential::set(tx, person.id, &hash, false).await?;
    let ended_session_count = credential::end_sessions(tx, person.id, None).await?;
    if is_promised {
        recovery_return::complete(tx, &promised).await?;
    }
    let object = principal.resource();
    mail::queue(
        tx,
        Template::PasswordRecovered,
        &person.recovery_email,
        object,
        &person.values(&app),
    )
    .await?;
    tx.act_as(object.to_string());
    tx.emit(
        Event::new("entente.directory.v1.PasswordRecovered", object)
            .with("ended_session_count", ended_session_count)
            .touches(person.id),
    );
    Ok(CompletePasswordRecoveryResponse {
        ended_session_count,
    })
}
