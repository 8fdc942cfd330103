//! How a case of recovery goes on once its 72 hours are over (PWD-10): who is to be made is made, the link is mailed to the proven address, and who
//! uses it comes back. What was made for a link that nobody used is gone again.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, Set,
};
use uuid::Uuid;

use super::{
    ACTIVE, asleep, credential,
    entity::{
        recovery_case::{Column, Entity, Model},
        user,
    },
    recovery_case::{eligible, may_be_made, revoke_stops, store},
    tenant, user_change, wire,
};
use crate::{
    access::{
        grants::{self, GLOBAL_ADMIN, OWNER},
        link::{self, Link},
        principal::Principal,
    },
    app::Tx,
    env::{DAY_US, HOUR_US, Micros},
    error::Result,
    mail::{self, Template},
    names::Name,
    proto::{access::LinkKind, directory::RecoveryCaseState as State},
    store::{outbox::Event, scope_key::ScopeKey, time::rfc3339},
};

/// The link is good for so long.
pub(super) const LINK_US: Micros = 72 * HOUR_US;
/// The finances of an owner who takes the place of another begin so long after (ACC-20).
const FINANCE_US: Micros = 7 * DAY_US;

/// Puts the case aside that `go_on` does next: due at $1, and at $2 instead.
///
/// Asked for twice: whoever moved it on meanwhile, while this waited, has said itself when it is due.
pub(crate) const ASIDE: &str = "UPDATE recovery_cases SET due_time = $2 WHERE state IN (2, 3) AND due_time <= $1 AND id = \
    (SELECT id FROM recovery_cases WHERE state IN (2, 3) AND due_time <= $1 ORDER BY due_time, id LIMIT 1)";

/// Mails the links of cases whose time is over, and ends those whose link ran out; the scheduler's. One case a transaction.
///
/// # Errors
/// Those of the database.
pub(crate) async fn go_on(tx: &mut Tx) -> Result<u64> {
    tx.lock([ScopeKey::Operator]).await?;
    let due = Entity::find()
        .filter(Column::State.is_in([State::Waiting as i64, State::Mailed as i64]))
        .filter(Column::DueTime.lte(tx.now()))
        .order_by_asc(Column::DueTime)
        .order_by_asc(Column::Id)
        .one(tx.db())
        .await?;
    let Some(case) = due else {
        return Ok(0);
    };
    tx.lock([case.scope()?, case.person().home()]).await?;
    let (case, user) = match case.state == State::Waiting as i64 {
        true if case.makes_admin() => make_admin(tx, case).await?,
        true => {
            let mut user = eligible(tx, &case).await?;
            if user.is_some() {
                give_way(tx, &case).await?;
                // As that has left it.
                user = eligible(tx, &case).await?;
            }
            (case, user)
        }
        false => (case, None),
    };
    revoke_stops(tx, case.id).await?;
    match user {
        Some(user) => mail_link(tx, &case, &user).await?,
        None => expire(tx, &case).await?,
    }
    tx.touch(ScopeKey::Operator);
    tx.touch(case.scope()?);
    tx.about(case.name().to_string());
    // The scheduler goes on at once.
    Ok(u64::MAX)
}

/// Ends a case by which nobody came back.
async fn expire(tx: &mut Tx, case: &Model) -> Result<()> {
    take_back(tx, case).await?;
    let changed = Model {
        state: State::Expired as i64,
        due_time: None,
        end_time: Some(tx.now()),
        ..case.clone()
    };
    let event = "entente.directory.v1.RecoveryCaseExpired";
    store(tx, case, changed, event).await.map(drop)
}

/// Ends what else is mailed to the person of a case: one link at a time leads to somebody, and the address of before is that of before all of them.
async fn give_way(tx: &mut Tx, case: &Model) -> Result<()> {
    let others = Entity::find()
        .filter(Column::PersonId.eq(case.person_id))
        .filter(Column::State.eq(State::Mailed as i64))
        .order_by_asc(Column::Id)
        .all(tx.db())
        .await?;
    for other in others {
        tx.lock([other.scope()?]).await?;
        expire(tx, &other).await?;
        tx.touch(other.scope()?);
    }
    Ok(())
}

/// Makes the admin of a case, who holds nothing yet and has a password that nobody knows; nobody, if somebody leads the tenant by now.
async fn make_admin(tx: &mut Tx, case: Model) -> Result<(Model, Option<user::Model>)> {
    if !may_be_made(tx, &case).await? {
        return Ok((case, None));
    }
    let new = wire::NewUser {
        user_name: case.new_user_name.clone(),
        given_name: case.new_given_name.clone(),
        family_name: case.new_family_name.clone(),
        recovery_email: case.proven_email.clone(),
        directory_roles: 0,
    };
    let user = user_change::insert(tx, case.person_tenant_id, &new, None).await?;
    credential::make_first(tx, user.id).await?;
    tx.emit(user_change::created(&user, 0));
    let case = Model {
        person_id: user.id,
        ..case
    };
    Ok((case, Some(user)))
}

/// Nobody came by the link that was mailed: what its way made is gone. The proven address is the person's no more, and no link that went there is
/// good; the admin that the case made is deleted, unless somebody of the tenant gave it something meanwhile, whose user it is then.
pub(super) async fn take_back(tx: &mut Tx, case: &Model) -> Result<()> {
    if case.state != State::Mailed as i64 {
        return Ok(());
    }
    tx.lock([case.person().home()]).await?;
    let user = user::Entity::find_by_id(case.person_id)
        .one(tx.db())
        .await?;
    let Some(user) = user else {
        return Ok(());
    };
    if !case.makes_admin() {
        // Whoever has set another one since keeps that.
        let is_its = user.recovery_email == case.proven_email;
        let former = case.former_email.as_ref().filter(|_| is_its);
        return match former {
            Some(former) => set_recovery_email(tx, &user, former).await.map(drop),
            None => link::revoke_ways_in(tx, user.id).await,
        };
    }
    link::revoke_ways_in(tx, user.id).await?;
    if user.state == ACTIVE && grants::rights_of(tx.db(), user.id).await?.is_empty() {
        user_change::delete(tx, user).await?;
    }
    Ok(())
}

/// Sets where a person is recovered; whoever reads the old mailbox has no way in any more.
async fn set_recovery_email(tx: &mut Tx, user: &user::Model, email: &str) -> Result<user::Model> {
    link::revoke_ways_in(tx, user.id).await?;
    let mut row = user.clone().into_active_model();
    row.recovery_email = Set(email.to_owned());
    row.update_time = Set(tx.now());
    row.version = Set(user.version + 1);
    let changed = row.update(tx.db()).await?;
    tx.emit(user_change::updated(user, &changed));
    Ok(changed)
}

/// What a person signs in with.
async fn sign_in_name(tx: &Tx, user: &user::Model) -> Result<String> {
    if user.tenant_id.is_nil() {
        return Ok(user.user_name.clone());
    }
    let prefix = tenant::by_id(tx.db(), user.tenant_id).await?.domain_prefix;
    Ok(format!(
        "{}@{}",
        user.user_name,
        wire::domain(tx.app(), &prefix)
    ))
}

/// The proven address becomes the person's, what must sleep sleeps, since somebody else set it (ROL-13), and the link is on its way there.
async fn mail_link(tx: &mut Tx, case: &Model, user: &user::Model) -> Result<()> {
    let app = tx.app().clone();
    let person = case.person();
    let until = tx.now() + LINK_US;
    let name = sign_in_name(tx, user).await?;
    let mut values = vec![
        ("name", user.display_name.clone()),
        ("sign_in_name", name.clone()),
    ];
    let object = person.resource();
    let template = Template::RecoveryAddressChanged;
    if user.recovery_email != case.proven_email {
        mail::queue(tx, template, &user.recovery_email, object, &values).await?;
    }
    let changed = set_recovery_email(tx, user, &case.proven_email).await?;
    asleep::put_to_sleep(tx, &changed, &name).await?;
    let made = Link {
        kind: LinkKind::PasswordRecovery,
        subject: user.id,
        scope: person.home(),
    };
    let token = link::make(tx, made, case.id.as_bytes(), LINK_US).await?;
    let url = link::url(&app.config, made.kind, &token);
    values.push(("until", rfc3339(until)));
    values.push(("origin", app.config.public_origin.clone()));
    values.push(("link", url.to_string()));
    values.push(("token", token.to_string()));
    let template = Template::RecoveryLink;
    mail::queue(tx, template, &case.proven_email, object, &values).await?;
    let after = Model {
        state: State::Mailed as i64,
        due_time: Some(until),
        former_email: (!case.makes_admin()).then(|| user.recovery_email.clone()),
        ..case.clone()
    };
    store(tx, case, after, "entente.directory.v1.RecoveryCaseMailed").await?;
    Ok(())
}

/// The person chose a password by the link of a case: it holds what the case says, and its rights sleep from now on.
///
/// # Errors
/// `LINK_INVALID` if the case ended meanwhile, or the person can't come back any more.
pub(super) async fn complete(tx: &mut Tx, payload: &[u8]) -> Result<()> {
    let id = Uuid::from_slice(payload).map_err(|_| link::invalid())?;
    let find = Entity::find_by_id(id).filter(Column::State.eq(State::Mailed as i64));
    let case = find.clone().one(tx.db()).await?.ok_or_else(link::invalid)?;
    let (scope, person) = (case.scope()?, case.person());
    tx.lock([ScopeKey::Operator, scope, person.home()]).await?;
    let case = find.one(tx.db()).await?.ok_or_else(link::invalid)?;
    let user = eligible(tx, &case).await?.ok_or_else(link::invalid)?;
    // Who is made leads a tenant that nobody leads, still.
    if case.makes_admin() && grants::somebody_holds(tx.db(), scope, GLOBAL_ADMIN, tx.now()).await? {
        return Err(link::invalid());
    }
    let held = grants::find(tx.db(), scope, person.id).await?;
    let held = held.as_ref().map(grants::Set::of_grant).unwrap_or_default();
    let lacking = case.bit() & !held.roles;
    if lacking == OWNER {
        take_over(tx, scope.id(), person).await?;
    } else if lacking != 0 {
        let new = grants::Set {
            roles: held.roles | lacking,
            ..held
        };
        // The exception `recovery`: two of the operator's people and 72 hours stand for the caller, who is nobody yet.
        grants::set(tx, scope, person, new, grants::By::Service).await?;
    }
    let name = sign_in_name(tx, &user).await?;
    asleep::put_to_sleep(tx, &user, &name).await?;
    let changed = Model {
        state: State::Completed as i64,
        due_time: None,
        end_time: Some(tx.now()),
        ..case.clone()
    };
    store(
        tx,
        &case,
        changed,
        "entente.directory.v1.RecoveryCaseCompleted",
    )
    .await?;
    Ok(())
}

/// An identity becomes the owner in the place of one who can't come back; its finances begin later.
async fn take_over(tx: &mut Tx, account: Uuid, next: Principal) -> Result<()> {
    let owner = grants::owner_of(tx.db(), account).await?;
    let (old, _) = owner.ok_or_else(link::invalid)?;
    let lost = grants::untie_owner(tx, account, old).await?;
    tx.emit(user_change::member_removed(account, old, lost).also_in(ScopeKey::Identity(old)));
    let from = tx.now() + FINANCE_US;
    let why = grants::Tie::Excepted("recovery");
    let set = grants::tie_owner(tx, account, next.id, Some(from), why).await?;
    tx.emit(
        Event::new(
            "entente.account.v1.MemberAdded",
            Name::Member(account, next.id),
        )
        .change("rights", serde_json::Value::Null, set.to_rights())
        .touches(next.id)
        .also_in(next.home()),
    );
    Ok(())
}
