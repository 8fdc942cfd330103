//! Drafts: asking a global admin to open or finish one (ACC-1), and what becomes of those that nobody touches (ACC-13).

use sea_orm::{EntityTrait, FromQueryResult, Value};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{
    brought,
    enrolment::address_of,
    entity::account::{Entity, Model},
    ownership, publisher_name,
};
use crate::{
    access::{
        grants::{self, GLOBAL_ADMIN},
        principal::Kind,
        scope::CallerScope,
    },
    app::Tx,
    directory::{self, address, user_change::member_removed},
    document,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::account::{AccountState, AskGlobalAdminRequest, AskGlobalAdminResponse},
    schedule::CHUNK,
    store::{outbox::Event, scope_key::ScopeKey, sql, time::rfc3339},
};

/// Admins who are asked.
const MOST_ADMINS_ASKED: i64 = 50;
/// Drafts that its mail names.
const MOST_DRAFTS_NAMED: i64 = 20;
/// A draft that nobody touched for so long is told of.
const IDLE_US: Micros = 90 * DAY_US;
/// So long after that it is removed.
const NOTICE_US: Micros = 14 * DAY_US;
/// Drafts told of, or removed, in one transaction.
const DRAFTS_A_TURN: i64 = 50;

#[derive(FromQueryResult)]
struct Admin {
    display_name: String,
    recovery_email: String,
}

/// Mails the caller's question to the global admins of its tenant, whom it is not told.
///
/// # Errors
/// `PEOPLE_ONLY` to programs and identities, which have no tenant; `TOO_MANY_CALLS`.
pub async fn ask_global_admin(
    tx: &mut Tx,
    scope: CallerScope,
    _req: AskGlobalAdminRequest,
) -> Result<AskGlobalAdminResponse> {
    let who = scope.principal();
    if who.kind != Kind::User {
        return Err(Error::refused(Reason::PeopleOnly));
    }
    // Whoever asks, the admins of a tenant are asked so often only.
    address::count_mail(tx, "ask-admin", &who.tenant.to_string()).await?;
    let tenant = directory::tenant::by_id(tx.db(), who.tenant).await?;
    let by = directory::user::summary(tx.db(), who.id).await?;
    let by = by.map_or_else(String::new, |user| user.display_name);
    let sql = "SELECT u.display_name, u.recovery_email FROM grants g JOIN users u ON u.id = g.principal_id AND u.state = $1 \
               WHERE g.scope_kind = $2 AND g.scope_id = $3 AND (g.roles & $4) <> 0 AND u.recovery_email <> '' \
               ORDER BY g.create_time, u.id LIMIT $5";
    let values: [Value; 5] = [
        grants::ACTIVE.into(),
        ScopeKey::Tenant(who.tenant).kind().into(),
        who.tenant.into(),
        GLOBAL_ADMIN.into(),
        MOST_ADMINS_ASKED.into(),
    ];
    let drafts = drafts_of(tx, who.tenant).await?;
    for admin in sql::all::<Admin, _>(tx.db(), sql, values).await? {
        let values = [
            ("name", admin.display_name),
            ("drafts", drafts.clone()),
            ("by", by.clone()),
            ("organisation", tenant.display_name.clone()),
            ("origin", tx.app().config.public_origin.clone()),
        ];
        let template = Template::GlobalAdminAsked;
        let object = Name::Tenant(who.tenant);
        mail::queue(tx, template, &admin.recovery_email, object, &values).await?;
    }
    tx.emit(
        Event::new(
            "entente.account.v1.GlobalAdminAsked",
            Name::Tenant(who.tenant),
        )
        .with("asked_by", who.name()),
    );
    Ok(AskGlobalAdminResponse {})
}

#[derive(FromQueryResult)]
struct Draft {
    id: Uuid,
    publisher_display_name: String,
}

/// The drafts of a tenant, as a mail names them: those touched last, each with its publisher name if it has one.
async fn drafts_of(tx: &Tx, tenant: Uuid) -> Result<String> {
    let sql = "SELECT a.id, a.publisher_display_name FROM associations s JOIN accounts a ON a.id = s.account_id \
               WHERE s.tenant_id = $1 AND a.state = 2 ORDER BY a.update_time DESC, a.id LIMIT $2";
    let values: [Value; 2] = [tenant.into(), MOST_DRAFTS_NAMED.into()];
    let found = sql::all::<Draft, _>(tx.db(), sql, values).await?;
    let named = found.iter().map(|draft| {
        let name = Name::Account(draft.id);
        match draft.publisher_display_name.as_str() {
            "" => name.to_string(),
            publisher => format!("{publisher} ({name})"),
        }
    });
    let named: Vec<String> = named.collect();
    Ok(if named.is_empty() {
        "-".to_owned()
    } else {
        named.join(", ")
    })
}

#[derive(FromQueryResult)]
struct Found {
    id: Uuid,
}

/// Tells the openers of drafts that nobody touched; many mails a draft, so a turn takes few.
///
/// # Errors
/// Those of the database.
pub async fn tell_of_idle_drafts(tx: &mut Tx) -> Result<u64> {
    let sql = "SELECT id FROM accounts WHERE state = 2 AND update_time <= $1 AND (idle_told_time IS NULL OR idle_told_time < update_time) \
               ORDER BY update_time LIMIT $2";
    let values: [Value; 2] = [(tx.now() - IDLE_US).into(), DRAFTS_A_TURN.into()];
    let found = sql::all::<Found, _>(tx.db(), sql, values).await?;
    for Found { id } in &found {
        let Some(row) = locked(tx, *id).await? else {
            continue;
        };
        if touched(tx, &row).await? {
            continue;
        }
        let values = [
            ("publisher", row.publisher_display_name.clone()),
            ("account", Name::Account(row.id).to_string()),
            ("until", rfc3339(tx.now() + NOTICE_US)),
        ];
        for to in told(tx, &row).await? {
            let template = Template::DraftIdle;
            mail::queue(tx, template, &to, Name::Account(row.id), &values).await?;
        }
        let sql = "UPDATE accounts SET idle_told_time = $1 WHERE id = $2";
        let values: [Value; 2] = [tx.now().into(), row.id.into()];
        sql::execute(tx.db(), sql, values).await?;
    }
    Ok(left(found.len()))
}

/// Whether somebody did something for the draft that its row doesn't show, such as accepting an agreement, adding a member, uploading a document;
/// then it counts from there on.
async fn touched(tx: &Tx, row: &Model) -> Result<bool> {
    let sql = "SELECT MAX(create_time) AS at FROM audit_events WHERE scope_kind = $1 AND scope_id = $2 AND outcome = 'OK' AND create_time > $3";
    let scope = ScopeKey::Account(row.id);
    let values: [Value; 3] = [
        scope.kind().into(),
        scope.id().into(),
        row.update_time.into(),
    ];
    let last = sql::row(tx.db(), sql, values).await?;
    let Some(last) = last.map_or(Ok(None), |row| row.try_get::<Option<i64>>("", "at"))? else {
        return Ok(false);
    };
    let sql = "UPDATE accounts SET update_time = $1 WHERE id = $2";
    sql::execute(tx.db(), sql, [last.into(), row.id.into()]).await?;
    Ok(last > tx.now() - IDLE_US)
}

/// Who hears that a draft is idle: its opener, or, where that one can't be reached, the admins of its tenants.
async fn told(tx: &Tx, row: &Model) -> Result<Vec<String>> {
    let opener = address_of(tx, &row.opened_by).await?;
    if !opener.is_empty() {
        return Ok(opener);
    }
    let sql = "SELECT u.recovery_email AS email FROM associations a JOIN grants g ON g.scope_kind = $1 AND g.scope_id = a.tenant_id \
               JOIN users u ON u.id = g.principal_id AND u.state = $2 \
               WHERE a.account_id = $3 AND (g.roles & $4) <> 0 AND u.recovery_email <> '' ORDER BY u.id LIMIT $5";
    let values: [Value; 5] = [
        ScopeKey::Tenant(row.id).kind().into(),
        grants::ACTIVE.into(),
        row.id.into(),
        GLOBAL_ADMIN.into(),
        MOST_ADMINS_ASKED.into(),
    ];
    let mut found = Vec::new();
    for row in sql::rows_of(tx.db(), sql, values).await? {
        found.push(row.try_get("", "email")?);
    }
    Ok(found)
}

/// Removes drafts whose openers were told, and which nobody touched since.
///
/// # Errors
/// Those of the database.
pub async fn remove_idle_drafts(tx: &mut Tx) -> Result<u64> {
    let sql = "SELECT id FROM accounts WHERE state = 2 AND idle_told_time <= $1 AND update_time <= idle_told_time ORDER BY id LIMIT $2";
    let values: [Value; 2] = [(tx.now() - NOTICE_US).into(), DRAFTS_A_TURN.into()];
    let found = sql::all::<Found, _>(tx.db(), sql, values).await?;
    for Found { id } in &found {
        if let Some(row) = locked(tx, *id).await?
            && row
                .idle_told_time
                .is_some_and(|told| told >= row.update_time)
            && !touched(tx, &row).await?
        {
            remove(tx, &row).await?;
        }
    }
    Ok(left(found.len()))
}

/// What a turn that found so many drafts tells the scheduler: a full one may have left some.
fn left(found: usize) -> u64 {
    if i64::try_from(found).is_ok_and(|n| n < DRAFTS_A_TURN) {
        0
    } else {
        CHUNK.unsigned_abs()
    }
}

/// A draft, locked; None if it is none any more.
async fn locked(tx: &mut Tx, id: Uuid) -> Result<Option<Model>> {
    tx.lock([ScopeKey::Account(id)]).await?;
    let row = Entity::find_by_id(id).one(tx.db()).await?;
    Ok(row.filter(|row| row.state == AccountState::Draft as i64))
}

/// Removes a draft: members, tenants and name are free, its documents go; what was accepted is kept, and so is the chain.
pub(super) async fn remove(tx: &mut Tx, row: &Model) -> Result<()> {
    // It may have been submitted before, and its enrolment disowned since.
    ownership::account_ended(tx, row).await?;
    let scope = ScopeKey::Account(row.id);
    for grant in grants::all_on(tx.db(), scope).await? {
        tx.emit(member_removed(
            row.id,
            grant.principal_id,
            grants::Set::of_grant(&grant),
        ));
    }
    grants::forget_scope(tx, scope).await?;
    document::forget_account(tx, row.id).await?;
    publisher_name::claim(tx, row.id, "").await?;
    // The membership is free for another account, unless whoever joined has another one meanwhile; then what it brings is.
    let sql = "DELETE FROM network_memberships WHERE account_id = $1 AND EXISTS (SELECT 1 FROM network_memberships other \
               WHERE other.joined_by_id = network_memberships.joined_by_id AND other.account_id IS NULL)";
    let gone = sql::execute(tx.db(), sql, [row.id.into()]).await?;
    if gone.rows_affected() > 0
        && let Some(membership) = row.membership_id
    {
        brought::set_free(tx, membership).await?;
    }
    for sql in [
        "UPDATE network_memberships SET account_id = NULL, version = version + 1 WHERE account_id = $1",
        "DELETE FROM associations WHERE account_id = $1",
        "DELETE FROM verification_steps WHERE account_id = $1",
        "DELETE FROM ownerships WHERE account_id = $1",
        "DELETE FROM account_approvers WHERE account_id = $1",
        "DELETE FROM approvers_to_verify WHERE account_id = $1",
        "DELETE FROM accounts WHERE id = $1",
    ] {
        sql::execute(tx.db(), sql, [row.id.into()]).await?;
    }
    tx.emit(
        Event::new("entente.account.v1.DraftRemoved", Name::Account(row.id))
            .change(
                "publisher_display_name",
                row.publisher_display_name.clone(),
                Json::Null,
            )
            .change("legal_name", row.legal_name.clone(), Json::Null)
            .change("country_code", row.country_code.clone(), Json::Null),
    );
    Ok(())
}
