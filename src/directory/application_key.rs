//! Keys of applications: what they sign in with (APP-4). Only a MAC of the secret is stored; each call asks whether the key is there still.

use sea_orm::{
    ColumnTrait, EntityTrait, FromQueryResult, ModelTrait, PaginatorTrait, QueryFilter, Value,
};
use uuid::Uuid;

use super::{
    application::find,
    entity::{application, application_key as keys},
    wire,
};
use crate::{
    access::{
        grants::{self, GLOBAL_ADMIN},
        scope::TenantScope,
    },
    app::{App, Read, Tx},
    check::Violations,
    env::{DAY_US, MINUTE_US, Micros},
    error::{Error, Reason, Result},
    keys::Purpose,
    mail::{self, Template},
    names::Name,
    proto::directory::{
        CreateKeyRequest, CreateKeyResponse, DeleteKeyRequest, DeleteKeyResponse, ListKeysRequest,
        ListKeysResponse, Losses,
    },
    store::{
        filter::{Field, Kind as FilterKind, OrderField},
        list::{Listing, fold},
        outbox::Event,
        sql,
        time::{self, micros, rfc3339},
        update,
    },
};

/// Keys that an application has at most.
const MOST_KEYS: u64 = 10;
/// The shortest, the usual and the longest lifetime of a key; months of 365/12 days.
const SHORTEST_US: Micros = DAY_US;
const USUAL_US: Micros = 365 * DAY_US;
const LONGEST_US: Micros = 730 * DAY_US;
/// Callers' clocks are off by a little.
const CLOCK_SLACK_US: Micros = 5 * MINUTE_US;
/// When people are told that a key is about to expire.
const TOLD_BEFORE_US: [Micros; 3] = [30 * DAY_US, 7 * DAY_US, DAY_US];
/// Global admins who get such a mail: enough for somebody to look.
const MOST_ADMINS_TOLD: i64 = 20;
/// The beginning of every key, by which secret scanners know it.
const PREFIX: &str = "entk_";
/// Characters of a key that are random: 256 bits, each half of them in 22 digits of base 62.
const RANDOM_CHARS: usize = 44;
/// Characters of a key's checksum.
const CHECKSUM_CHARS: usize = 6;
/// Characters of a key that stay visible after the prefix.
const HINT_CHARS: usize = 4;

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "create_time",
            ("application_keys", "create_time"),
            FilterKind::TIME,
        ),
        Field::new(
            "expire_time",
            ("application_keys", "expire_time"),
            FilterKind::TIME,
        ),
    ],
    orders: &[OrderField::new(
        "create_time",
        ("application_keys", "create_time"),
    )],
    id: ("application_keys", "id"),
};

/// Makes a key. Whoever has it can be the application, so all that the application holds is demanded (ROL-7, APP-4).
///
/// # Errors
/// `TOO_MANY_KEYS`, `INVALID_ARGUMENT` for a bad lifetime, `CANNOT_GRANT_WHAT_YOU_LACK`.
pub async fn create_key(
    tx: &mut Tx,
    scope: TenantScope,
    req: CreateKeyRequest,
) -> Result<CreateKeyResponse> {
    let CreateKeyRequest {
        parent,
        key,
        request_id: _,
        validate_only: _,
    } = req;
    let application = find(tx.db(), scope, &parent).await?;
    grants::demand_all_held_by(tx, &[application.id]).await?;
    let now = tx.now();
    let expire_time = match key.and_then(|k| k.expire_time) {
        None => now + USUAL_US,
        Some(at) => {
            let at = micros(&at);
            if at < now + SHORTEST_US - CLOCK_SLACK_US || at > now + LONGEST_US + CLOCK_SLACK_US {
                return Err(Error::field(
                    "key.expire_time",
                    "must lie 1 day to 24 months from now",
                ));
            }
            at
        }
    };
    let live = keys::Entity::find()
        .filter(keys::Column::ApplicationId.eq(application.id))
        .filter(keys::Column::ExpireTime.gt(now))
        .count(tx.db())
        .await?;
    if live >= MOST_KEYS {
        return Err(Error::precondition(Reason::TooManyKeys).with("most", MOST_KEYS.to_string()));
    }
    let app = tx.app().clone();
    let secret = new_secret(&app);
    let row = keys::Model {
        id: tx.id(),
        application_id: application.id,
        hash: hash(&app, application.id, &secret),
        hint: secret.chars().take(PREFIX.len() + HINT_CHARS).collect(),
        create_time: now,
        expire_time,
        // A key that lives for a day needs no mail that it has a day to live.
        reminder_time: next_reminder(expire_time, now + CLOCK_SLACK_US),
        version: 1,
    };
    tx.insert(row.clone()).await?;
    tx.emit(
        Event::new(
            "entente.directory.v1.KeyCreated",
            Name::Key(application.tenant_id, application.id, row.id),
        )
        .change("hint", serde_json::Value::Null, row.hint.clone())
        .change(
            "expire_time",
            serde_json::Value::Null,
            time::json(row.expire_time),
        )
        .touches(application.id),
    );
    Ok(CreateKeyResponse {
        key: Some(wire::key(application.tenant_id, &row)),
        secret,
        secret_omitted: false,
    })
}

pub(crate) fn check_list_keys(req: &ListKeysRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists keys, without secrets.
///
/// # Errors
/// `NOT_FOUND`; `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_keys(
    rd: &Read,
    scope: TenantScope,
    req: ListKeysRequest,
) -> Result<ListKeysResponse> {
    let application = find(rd.db(), scope, &req.parent).await?;
    let select = keys::Entity::find().filter(keys::Column::ApplicationId.eq(application.id));
    let page = rd
        .list(&req, &LISTING, select, |row: keys::Model| {
            wire::key(application.tenant_id, &row)
        })
        .await?;
    Ok(ListKeysResponse {
        keys: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Deletes a key; tokens that came from it end at once, since each call asks for it. Nothing is passed on by that, so nothing that the
/// application holds is demanded: whoever runs the tenant can stop a leaked key.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn delete_key(
    tx: &mut Tx,
    scope: TenantScope,
    req: DeleteKeyRequest,
) -> Result<DeleteKeyResponse> {
    let DeleteKeyRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let not_found = || Error::not_found("entente.dev/Key", name.clone());
    let Some(Name::Key(tenant_id, application_id, id)) = Name::parse(&name) else {
        return Err(not_found());
    };
    let application = application::find(tx.db(), scope, application_id)
        .await?
        .ok_or_else(not_found)?;
    let row = keys::Entity::find_by_id(id)
        .filter(keys::Column::ApplicationId.eq(application.id))
        .one(tx.db())
        .await?
        .ok_or_else(not_found)?;
    update::check_etag(&etag, row.version)?;
    let resource = wire::key(tenant_id, &row);
    let losses = Losses {
        key_count: i32::from(tx.now() < row.expire_time),
        ..Losses::default()
    };
    let expire_time = time::json(row.expire_time);
    row.delete(tx.db()).await?;
    tx.emit(
        Event::new(
            "entente.directory.v1.KeyDeleted",
            Name::Key(tenant_id, application.id, id),
        )
        .change("hint", resource.hint.clone(), serde_json::Value::Null)
        .change("expire_time", expire_time, serde_json::Value::Null)
        .touches(application.id),
    );
    Ok(DeleteKeyResponse {
        resources: vec![resource],
        losses: Some(losses),
    })
}

/// Deletes all keys of an application; gives how many of them would still have signed in.
///
/// # Errors
/// Those of the database.
pub(super) async fn delete_all(tx: &mut Tx, application: Uuid) -> Result<i32> {
    let of_it = || keys::Entity::find().filter(keys::Column::ApplicationId.eq(application));
    let live = of_it()
        .filter(keys::Column::ExpireTime.gt(tx.now()))
        .count(tx.db())
        .await?;
    keys::Entity::delete_many()
        .filter(keys::Column::ApplicationId.eq(application))
        .exec(tx.db())
        .await?;
    Ok(i32::try_from(live).unwrap_or(i32::MAX))
}

// ---- secrets

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A number in so many digits of base 62, the highest first.
fn base62(mut number: u128, digits: usize) -> String {
    let mut text = vec![' '; digits];
    for digit in text.iter_mut().rev() {
        *digit = char::from(DIGITS[usize::try_from(number % 62).unwrap_or(0)]);
        number /= 62;
    }
    text.into_iter().collect()
}

/// `entk_`, random characters, and their checksum, so that scanners know a real one without asking.
fn new_secret(app: &App) -> String {
    let halves = [(); 2].map(|()| u128::from_be_bytes(app.env.bytes::<16>()));
    let random = halves.map(|half| base62(half, RANDOM_CHARS / 2)).concat();
    let checksum = checksum(&random);
    format!("{PREFIX}{random}{checksum}")
}

fn checksum(random: &str) -> String {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    base62(crc.checksum(random.as_bytes()).into(), CHECKSUM_CHARS)
}

fn is_well_formed(secret: &str) -> bool {
    secret
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_at_checked(RANDOM_CHARS))
        .is_some_and(|(random, sum)| sum == checksum(random))
}

fn hash(app: &App, application: Uuid, secret: &str) -> Vec<u8> {
    app.keys
        .mac(
            Purpose::Secret,
            &[
                b"application key",
                application.as_bytes(),
                secret.as_bytes(),
            ],
        )
        .to_vec()
}

/// A key that signs in.
#[derive(FromQueryResult)]
pub struct GoodKey {
    /// Its application's tenant.
    pub tenant_id: Uuid,
    /// When that was first used; none if never.
    pub first_use_time: Option<i64>,
    /// Its ID.
    pub key_id: Uuid,
    /// When it ends.
    pub expire_time: i64,
}

/// The key of an application whose secret this is, if it may sign in.
///
/// # Errors
/// Those of the database.
pub(super) async fn find_key(tx: &Tx, application: Uuid, secret: &str) -> Result<Option<GoodKey>> {
    if !is_well_formed(secret) {
        return Ok(None);
    }
    let hash = hash(tx.app(), application, secret);
    let sql = "SELECT a.tenant_id, t.first_use_time, k.id AS key_id, k.expire_time FROM application_keys k JOIN applications a ON a.id = k.application_id \
               JOIN tenants t ON t.id = a.tenant_id WHERE k.application_id = $1 AND k.hash = $2 AND k.expire_time > $3 \
               AND a.state = 1 AND t.state = 1";
    let values: [Value; 3] = [
        application.into(),
        Value::Bytes(Some(hash)),
        tx.now().into(),
    ];
    sql::one::<GoodKey, _>(tx.db(), sql, values).await
}

// ---- mails before a key expires

/// When people are to be told next, after an instant, that a key is about to expire.
fn next_reminder(expire_time: Micros, after: Micros) -> Option<Micros> {
    TOLD_BEFORE_US
        .map(|before| expire_time - before)
        .into_iter()
        .find(|at| *at > after)
}

#[derive(FromQueryResult)]
struct Expiring {
    id: Uuid,
    hint: String,
    expire_time: i64,
    reminder_time: i64,
    application_id: Uuid,
    application: String,
    tenant_id: Uuid,
    organisation: String,
    contact_email: String,
    tenant_state: i64,
}

/// Tells a tenant's contact and its global admins of keys that are about to expire, `most` at a time; gives how many were due. Each of
/// the three mails is sent once: when the next one is due stands with the key, and is changed in the transaction that queues the mails.
/// One that came too late, after others, stands for them. The scheduler's.
///
/// # Errors
/// Those of the database.
pub(crate) async fn tell_of_expiring_keys(tx: &mut Tx, most: i64) -> Result<i64> {
    let sql = "SELECT k.id, k.hint, k.expire_time, k.reminder_time, k.application_id, a.display_name AS application, a.tenant_id, \
               t.display_name AS organisation, t.contact_email, t.state AS tenant_state FROM application_keys k \
               JOIN applications a ON a.id = k.application_id JOIN tenants t ON t.id = a.tenant_id \
               WHERE k.reminder_time <= $1 ORDER BY k.reminder_time LIMIT $2";
    let values: [Value; 2] = [tx.now().into(), most.into()];
    let due = sql::all::<Expiring, _>(tx.db(), sql, values).await?;
    for key in &due {
        let next = next_reminder(key.expire_time, tx.now());
        let sql =
            "UPDATE application_keys SET reminder_time = $1 WHERE id = $2 AND reminder_time = $3";
        let values: [Value; 3] = [Value::BigInt(next), key.id.into(), key.reminder_time.into()];
        let there = sql::execute(tx.db(), sql, values).await?.rows_affected() == 1;
        if there && tx.now() < key.expire_time && key.tenant_state == super::ACTIVE {
            tell(tx, key).await?;
        }
    }
    Ok(i64::try_from(due.len()).unwrap_or(i64::MAX))
}

async fn tell(tx: &mut Tx, key: &Expiring) -> Result<()> {
    let mut told = Vec::new();
    let admins = admins_addresses(tx, key.tenant_id).await?;
    for address in std::iter::once(key.contact_email.clone()).chain(admins) {
        if told.contains(&fold(&address)) {
            continue;
        }
        let values = [
            ("organisation", key.organisation.clone()),
            ("application", key.application.clone()),
            ("hint", key.hint.clone()),
            ("until", rfc3339(key.expire_time)),
        ];
        let about = Name::Key(key.tenant_id, key.application_id, key.id);
        mail::queue(tx, Template::KeyExpiring, &address, about, &values).await?;
        told.push(fold(&address));
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Address {
    email: String,
}

/// Where a tenant's global admins who can act get mails; identities get theirs where they sign in.
pub(super) async fn admins_addresses(tx: &Tx, tenant: Uuid) -> Result<Vec<String>> {
    let sql = "SELECT CASE WHEN c.kind = 3 THEN c.user_name ELSE c.recovery_email END AS email FROM grants g \
               JOIN active_people p ON p.id = g.principal_id JOIN users c ON c.id = p.credential_of \
               WHERE g.scope_kind = 1 AND g.scope_id = $1 AND (g.roles & $2) <> 0 ORDER BY g.create_time, g.principal_id LIMIT $3";
    let values: [Value; 3] = [tenant.into(), GLOBAL_ADMIN.into(), MOST_ADMINS_TOLD.into()];
    let rows = sql::all::<Address, _>(tx.db(), sql, values).await?;
    Ok(rows.into_iter().map(|row| row.email).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves APP-4
    #[test]
    fn checksum_is_the_crc32_that_scanners_compute() {
        // The check value of CRC-32/ISO-HDLC is that of "123456789": 0xCBF43926.
        assert_eq!(checksum("123456789"), base62(0xCBF4_3926, CHECKSUM_CHARS));
        assert_eq!(base62(0, 6), "000000");
        assert_eq!(base62(61 * 62 + 10, 6), "0000zA");
        assert_eq!(base62(u128::MAX, 22).len(), 22);
        assert_eq!(base62(u128::MAX, 22), base62(u128::MAX, 23)[1..]);
    }

    // proves APP-4
    #[test]
    fn any_changed_character_is_seen() {
        let random = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh";
        let secret = format!("{PREFIX}{random}{}", checksum(random));
        assert!(is_well_formed(&secret));
        for at in 0..secret.len() {
            let mut changed = secret.clone();
            let other = if &secret[at..=at] == "7" { "8" } else { "7" };
            changed.replace_range(at..=at, other);
            assert!(!is_well_formed(&changed), "{changed}");
        }
        for bad in [
            "",
            PREFIX,
            &secret[..secret.len() - 1],
            &format!("{secret}0"),
            &format!("{PREFIX}é{}", &secret[PREFIX.len() + 2..]),
        ] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }

    // proves APP-4
    #[test]
    fn mails_come_30_7_and_1_days_before_the_end_and_never_at_once() {
        let day = |n: Micros| n * DAY_US;
        let mut at = day(0);
        let mut sent = Vec::new();
        while let Some(next) = next_reminder(day(365), at) {
            sent.push((day(365) - next) / DAY_US);
            at = next;
        }
        assert_eq!(sent, [30, 7, 1]);
        assert_eq!(next_reminder(day(30), 0), Some(day(23)));
        assert_eq!(next_reminder(day(1), 0), None);
        // The scheduler stood still for a while: one mail for those that were missed.
        assert_eq!(next_reminder(day(365), day(360)), Some(day(364)));
    }
}
