//! What a partner's people do to the users of a customer's tenant, by what a relationship lends (REL-14, PWD-6). The same functions as for the
//! tenant's own people; only the credential of somebody who holds something goes another way, so that no partner gets hold of it.

use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::{
    application_key::admins_addresses, entity::user::Model, recovery, tenant, user, user_admin,
    user_change,
};
use crate::{
    access::{grants, scope::TenantScope},
    app::Tx,
    error::{Error, Result},
    mail::{self, Template},
    names::Name,
    proto::directory::{
        CreateUserRequest, CreateUserResponse, ResetPasswordRequest, ResetPasswordResponse,
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
    grants::lent::mark_made(tx, row.id, &row.recovery_email).await?;
    let mailed = hand_over(tx, tenant, &row, Template::PartnerMadeAdmin).await?;
    if mailed {
        made.temporary_password = String::new();
    }
    Ok((made, mailed))
}

/// Resets a user's password; gives the answer, and whether the new one is chosen by a link that was mailed to the customer's people.
///
/// # Errors
/// As `ResetPassword`.
pub async fn reset_password(
    tx: &mut Tx,
    tenant: TenantScope,
    req: ResetPasswordRequest,
) -> Result<(ResetPasswordResponse, bool)> {
    let (row, mut answer) = user_admin::reset(tx, tenant, req).await?;
    let mailed = hand_over(tx, tenant, &row, Template::PartnerResetAdmin).await?;
    if mailed {
        answer.temporary_password = String::new();
    } else {
        user_admin::tell_of_temporary(tx, tenant, &row).await?;
    }
    Ok((answer, mailed))
}

/// Sees to it that the credential of somebody who holds something reaches the customer's people, and tells every admin. Gives whether it
/// does; of somebody who holds nothing it needn't.
async fn hand_over(tx: &mut Tx, scope: TenantScope, row: &Model, notice: Template) -> Result<bool> {
    let held = grants::rights_of(tx.db(), row.id).await?;
    if held.iter().all(|right| right.set.is_empty()) {
        return Ok(false);
    }
    let tenant = tenant::find(tx.db(), scope).await?;
    let who = tx.caller().name();
    let by = [
        ("by", user_admin::caller_display_name(tx, &who).await?),
        ("account", partner(tx).await?),
        ("organisation", tenant.display_name.clone()),
    ];
    let mailed = recovery::mail_partners_link(tx, row.id, (&tenant.contact_email, &by)).await?;
    let mut values = by.to_vec();
    values.push(("name", row.display_name.clone()));
    let object = user_change::name(row);
    let admins = admins_addresses(tx, scope.id()).await?;
    for to in admins.iter().filter(|to| **to != row.recovery_email) {
        mail::queue(tx, notice, to, object, &values).await?;
    }
    Ok(mailed)
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
