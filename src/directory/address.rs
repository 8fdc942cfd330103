//! E-mail addresses as names: whose an address is (INV-5), which can't be a personal identity's (IDN-1), and how often strangers may have
//! a mail sent (PWD-4).

use std::time::Duration;

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, Value};
use uuid::Uuid;

use super::{
    ACTIVE, DELETED, domain,
    entity::user::{Column, Entity, Model},
    session::split_sign_in_name,
    sign_in,
};
use crate::{
    app::{App, Tx},
    env::{HOUR_US, Micros},
    error::{Error, Reason, Result},
    keys::Purpose,
    store::{list::fold, sql},
};

/// Mails of one kind that strangers have sent to one address, or for one name, within the window.
const MAILS_A_TARGET: i64 = 5;
/// Mails that one network has sent within the window.
const MAILS_A_NETWORK: i64 = 60;
/// Mails are counted for so long.
const WINDOW_US: Micros = HOUR_US;
/// Rows that count; half for targets, half for networks.
const SLOTS: u64 = 1 << 17;

/// Whether an address lies in a tenant's domain, the operator's or a verified one: who has it signs in there. That is told of the domain, never
/// of the address.
///
/// # Errors
/// Those of the database.
pub async fn is_work_address<C: ConnectionTrait>(db: &C, app: &App, email: &str) -> Result<bool> {
    Ok(lies_under_base(app, email) || domain::verified_tenant_of(db, email).await?.is_some())
}

fn lies_under_base(app: &App, email: &str) -> bool {
    let folded = fold(email);
    let domain = folded.rsplit_once('@').map_or("", |(_, domain)| domain);
    let base = app.config.base_domain.as_str();
    domain == base
        || domain
            .strip_suffix(base)
            .is_some_and(|prefix| prefix.ends_with('.'))
}

/// Refuses an address that lies in a tenant's domain.
///
/// # Errors
/// `INVALID_ARGUMENT`, `WORK_ADDRESS`.
pub async fn not_of_work(tx: &Tx, email: &str, field: &'static str) -> Result<()> {
    if is_work_address(tx.db(), tx.app(), email).await? {
        Err(Error::argument(
            Reason::WorkAddress,
            field,
            "lies in a tenant's domain",
        ))
    } else {
        Ok(())
    }
}

/// The personal identity whose address this is, if there is one. Whoever asks for one address takes turns until the end of the
/// transaction, so that no two make an identity of it.
///
/// # Errors
/// Those of the database.
pub async fn holder_of(tx: &Tx, email: &str) -> Result<Option<Model>> {
    let folded = fold(email);
    let key = tx
        .app()
        .keys
        .mac(Purpose::Secret, &[b"address", folded.as_bytes()]);
    sql::take_turns(tx.db(), &key).await?;
    Ok(Entity::find()
        .filter(Column::TenantId.eq(Uuid::nil()))
        .filter(Column::UserNameFold.eq(folded))
        .filter(Column::State.ne(DELETED))
        .one(tx.db())
        .await?)
}

/// Whether an address is that of an active member of a tenant, who is no guest: the recovery address, or the name that it signs in with.
///
/// # Errors
/// Those of the database.
pub async fn is_members<C: ConnectionTrait>(
    db: &C,
    app: &App,
    tenant: Uuid,
    email: &str,
) -> Result<bool> {
    let folded = fold(email);
    let (prefix, user_name) = split_sign_in_name(app, &folded);
    let sql = "SELECT 1 AS one FROM users WHERE tenant_id = $1 AND kind = 1 AND state = $2 AND recovery_email <> '' AND lower(recovery_email) = $3 \
               UNION ALL SELECT 1 AS one FROM users u JOIN tenants t ON t.id = u.tenant_id \
               WHERE u.tenant_id = $1 AND u.kind = 1 AND u.state = $2 AND u.user_name_fold = $4 AND t.domain_prefix = $5 AND $5 <> '' LIMIT 1";
    let values: [Value; 5] = [
        tenant.into(),
        ACTIVE.into(),
        folded.clone().into(),
        user_name.into(),
        prefix.into(),
    ];
    Ok(sql::row(db, sql, values).await?.is_some())
}

#[derive(FromQueryResult)]
struct Count {
    begin_time: i64,
    mail_count: i64,
}

/// Counts a mail that a stranger has sent, whether or not one goes out: two statements for every target.
///
/// # Errors
/// `RESOURCE_EXHAUSTED`, `TOO_MANY_CALLS` with when to try again; those of the database.
pub async fn count_mail(tx: &Tx, kind: &'static str, target: &str) -> Result<()> {
    let network = sign_in::network(tx.caller().address);
    let factor = i64::from(tx.app().config.limits_factor);
    let target = slot(
        tx.app(),
        0,
        &[b"mails to", kind.as_bytes(), target.as_bytes()],
    );
    let network = slot(tx.app(), 1, &[b"mails from", network.as_bytes()]);
    // The target first: two that count take the rows in one order.
    for (slot, most) in [(target, MAILS_A_TARGET), (network, MAILS_A_NETWORK)] {
        let sql = "INSERT INTO mail_limits (slot, begin_time, mail_count) VALUES ($1, $2, 1) ON CONFLICT (slot) DO UPDATE SET \
                   mail_count = CASE WHEN mail_limits.begin_time <= $3 THEN 1 ELSE mail_limits.mail_count + 1 END, \
                   begin_time = CASE WHEN mail_limits.begin_time <= $3 THEN excluded.begin_time ELSE mail_limits.begin_time END \
                   RETURNING begin_time, mail_count";
        let values: [Value; 3] = [slot.into(), tx.now().into(), (tx.now() - WINDOW_US).into()];
        let count = sql::one::<Count, _>(tx.db(), sql, values)
            .await?
            .ok_or_else(|| Error::internal("a count of mails wasn't kept"))?;
        if count.mail_count > most.saturating_mul(factor) {
            let wait = u64::try_from(count.begin_time + WINDOW_US - tx.now()).unwrap_or(0);
            return Err(
                Error::exhausted(Reason::TooManyCalls, Some(Duration::from_micros(wait)))
                    .with("method", tx.method()),
            );
        }
    }
    Ok(())
}

/// How many mails may still be sent to a target now.
///
/// # Errors
/// Those of the database.
pub async fn mails_left<C: ConnectionTrait>(
    db: &C,
    app: &App,
    kind: &'static str,
    target: &str,
    now: Micros,
) -> Result<i32> {
    let parts: [&[u8]; 3] = [b"mails to", kind.as_bytes(), target.as_bytes()];
    let sql = "SELECT begin_time, mail_count FROM mail_limits WHERE slot = $1";
    let found = sql::one::<Count, _>(db, sql, [slot(app, 0, &parts).into()]).await?;
    let most = MAILS_A_TARGET.saturating_mul(i64::from(app.config.limits_factor));
    let spent = found.filter(|count| count.begin_time > now - WINDOW_US);
    let left = most - spent.map_or(0, |count| count.mail_count);
    Ok(i32::try_from(left.max(0)).unwrap_or(i32::MAX))
}

fn slot(app: &App, half: u64, parts: &[&[u8]]) -> i64 {
    let mac = app.keys.mac(Purpose::Secret, parts);
    let mut first = [0; 8];
    first.copy_from_slice(&mac[..8]);
    let row = u64::from_be_bytes(first) % (SLOTS / 2) + half * (SLOTS / 2);
    i64::try_from(row).unwrap_or(0)
}
