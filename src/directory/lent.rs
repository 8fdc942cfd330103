//! What a partner's people do to the users of a customer's tenant, by what a relationship lends (REL-14, PWD-6). The same functions as for the
//! tenant's own people; only the credential of somebody who holds something goes another way, so that no partner gets hold of it.

use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::{
    ACTIVE, address, application_key::admins_addresses, credential, entity::user::Model, recovery,
    tenant, user, user_admin, user_change, user_state,
};
use crate::{
    access::{
        grants::{self, lent::Known},
        scope::TenantScope,
    },
    app::Tx,
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::directory::{
        CreateUserRequest, CreateUserResponse, DisableUserRequest, ResetPasswordRequest,
        ResetPasswordResponse, User,
    },
    store::sql,
};

/// Makes a user; gives the answer, and whether its first password is chosen by a link, which was mailed to somebody of the customer's: then
/// the answer has no temporary one.
///
/// # Errors
/// As `CreateUser`.
pub async fn create_user(
    tx: &mut Tx,
    tenant: TenantScope,
    req: CreateUserRequest,
) -> Result<(CreateUserResponse, bool)> {
    let mut made = user::create_user(tx, tenant, req).await?;
    let name = made.user.as_ref().map_or("", |user| &user.name);
    let row = user::find(tx.db(), tenant, name).await?;
    let mailed = hand_over(tx, tenant, &row, true).await?;
    if mailed {
        made.temporary_password = String::new();
    }
    Ok((made, mailed))
}

/// Resets a user's password; gives the answer, and whether the new one is chosen by a link that was mailed to the customer's people.
///
/// # Errors
/// As `ResetPassword`, `OWN_CREDENTIAL` also for a partner's guest who is at home there; `WRONG_STATE` for somebody who is disabled and holds
/// something; `TOO_MANY_CALLS` for who was reset often lately.
pub async fn reset_password(
    tx: &mut Tx,
    tenant: TenantScope,
    req: ResetPasswordRequest,
) -> Result<(ResetPasswordResponse, bool)> {
    let old = user::find(tx.db(), tenant, &req.name).await?;
    if let Some(who) = tx.caller().who
        && grants::is_same_person(tx.db(), who.principal.id, old.id).await?
    {
        return Err(Error::refused(Reason::OwnCredential));
    }
    if grants::holds_something(tx.db(), old.id).await? {
        // What was sent to a person who is shut out would wait for the day on which the person is let in again.
        user::demand_state(&old, &[ACTIVE])?;
        // Nor is anybody kept out for good, and so from ending what is lent (REL-8).
        address::count_mail(tx, "reset by a partner", &old.id.to_string()).await?;
    }
    let (row, mut answer) = user_admin::reset(tx, tenant, req).await?;
    let mailed = hand_over(tx, tenant, &row, false).await?;
    if mailed {
        answer.temporary_password = String::new();
    } else {
        user_admin::tell_of_temporary(tx, tenant, &row).await?;
    }
    Ok((answer, mailed))
}

/// Shuts a user out. The customer keeps an admin of its own, whom no partner made or knows the credential of; of whoever holds something all
/// admins hear.
///
/// # Errors
/// As `DisableUser`.
pub async fn disable_user(
    tx: &mut Tx,
    tenant: TenantScope,
    req: DisableUserRequest,
) -> Result<User> {
    let old = user::find(tx.db(), tenant, &req.name).await?;
    let done = user_state::disable_user(tx, tenant, req).await?;
    if user::holds_global_admin(tx, &old).await?
        && !grants::lent::has_own_admin(tx.db(), tenant.id(), old.id, tx.now()).await?
    {
        return Err(Error::precondition(Reason::LastGlobalAdmin));
    }
    if grants::holds_something(tx.db(), old.id).await? {
        let by = by_whom(tx, tenant).await?;
        tell_admins(tx, tenant, (Template::PartnerDisabledAdmin, &by), &old).await?;
    }
    Ok(done)
}

/// Sees to it that the credential of somebody who holds something reaches the customer's people, and tells every admin. Gives whether it
/// does; of somebody who holds nothing it needn't, and the partner is shown it.
async fn hand_over(tx: &mut Tx, scope: TenantScope, row: &Model, is_made: bool) -> Result<bool> {
    let given = if is_made { &row.recovery_email } else { "" };
    let note = |is_shown| Known { is_made, is_shown };
    if !grants::holds_something(tx.db(), row.id).await? {
        grants::lent::note_user(tx, row.id, note(true), given).await?;
        return Ok(false);
    }
    grants::lent::note_user(tx, row.id, note(false), given).await?;
    let by = by_whom(tx, scope).await?;
    let contact = tenant::find(tx.db(), scope).await?.contact_email;
    let mailed = recovery::mail_partners_link(tx, row.id, (&contact, &by)).await?;
    if mailed {
        // Whoever is to choose one isn't in yet: the link may be void before.
        credential::end_temporary(tx, row.id).await?;
    } else {
        grants::lent::note_user(tx, row.id, note(true), given).await?;
    }
    let notice = if is_made {
        Template::PartnerMadeAdmin
    } else {
        Template::PartnerResetAdmin
    };
    tell_admins(tx, scope, (notice, &by), row).await?;
    Ok(mailed)
}

type By = [(&'static str, String); 3];

/// Who acts, for which partner, in which tenant: what all these mails say.
async fn by_whom(tx: &Tx, scope: TenantScope) -> Result<By> {
    let who = tx.caller().name();
    Ok([
        ("by", user_admin::caller_display_name(tx, &who).await?),
        ("account", partner(tx).await?),
        (
            "organisation",
            tenant::find(tx.db(), scope).await?.display_name,
        ),
    ])
}

/// Tells all admins of a customer what was done to somebody, whoever has the same address.
async fn tell_admins(
    tx: &mut Tx,
    scope: TenantScope,
    (notice, by): (Template, &By),
    row: &Model,
) -> Result<()> {
    let mut values = by.to_vec();
    values.push(("name", row.display_name.clone()));
    let object = user_change::name(row);
    for to in admins_addresses(tx, scope.id()).await? {
        mail::queue(tx, notice, &to, object, &values).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Partner {
    publisher_display_name: String,
    legal_name: String,
}

/// What the customer knows the partner by.
async fn partner(tx: &Tx) -> Result<String> {
    let account = tx.lent().map_or_else(Uuid::nil, |lent| lent.account);
    let sql = "SELECT publisher_display_name, legal_name FROM accounts WHERE id = $1";
    let row = sql::one::<Partner, _>(tx.db(), sql, [account.into()]).await?;
    let row = row.ok_or_else(|| {
        Error::not_found("entente.dev/Account", Name::Account(account).to_string())
    })?;
    Ok(if row.publisher_display_name.is_empty() {
        row.legal_name
    } else {
        row.publisher_display_name
    })
}
