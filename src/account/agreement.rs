//! AgreementService, the operator's side: agreements in versions, with texts in several languages (AGR-1).

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, Value,
    sea_query::{Alias, CaseStatement, Query as Select},
};
use uuid::Uuid;

pub use super::acceptance::{accept_agreement, list_acceptances};
pub(crate) use super::acceptance::{check_accept_agreement, check_list_acceptances};
use super::{
    entity::{
        agreement::{Column, Entity, Model},
        agreement_text,
    },
    wire::{self, NewAgreement, NewText},
};
use crate::{
    access::{
        account_state::agreement_name,
        scope::{CallerScope, OperatorScope},
    },
    app::{App, Read, Tx},
    check::Violations,
    env::Micros,
    error::{Error, Reason, Result},
    names::Name,
    proto::{
        access::AgreementKind,
        account::{
            Agreement, AgreementState, GetAgreementRequest, ListAgreementsRequest,
            ListAgreementsResponse, PublishAgreementRequest, WithdrawAgreementRequest,
        },
    },
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::json,
        update,
    },
};

/// All kinds.
const KINDS: [AgreementKind; 5] = [
    AgreementKind::PartnerNetwork,
    AgreementKind::Publisher,
    AgreementKind::Collaborate,
    AgreementKind::Referrals,
    AgreementKind::Customer,
];
/// What callers call them in filters.
pub(super) const KIND_NAMES: &[(&str, i64)] = &[
    ("PARTNER_NETWORK", AgreementKind::PartnerNetwork as i64),
    ("PUBLISHER", AgreementKind::Publisher as i64),
    ("COLLABORATE", AgreementKind::Collaborate as i64),
    ("REFERRALS", AgreementKind::Referrals as i64),
    ("CUSTOMER", AgreementKind::Customer as i64),
];
const UPCOMING: i64 = AgreementState::Upcoming as i64;
const CURRENT: i64 = AgreementState::Current as i64;
const SUPERSEDED: i64 = AgreementState::Superseded as i64;
const WITHDRAWN: i64 = AgreementState::Withdrawn as i64;
/// What callers call the states, which time makes of versions.
const STATES: &[(&str, i64)] = &[
    ("UPCOMING", UPCOMING),
    ("CURRENT", CURRENT),
    ("SUPERSEDED", SUPERSEDED),
    ("WITHDRAWN", WITHDRAWN),
];

const LISTING: Listing = Listing {
    fields: &[
        Field::new("kind", ("agreements", "kind"), Kind::Enum(KIND_NAMES)),
        Field::new("state", ("shown", "state"), Kind::Enum(STATES)),
        Field::new(
            "effective_time",
            ("agreements", "effective_time"),
            Kind::TIME,
        ),
        Field::new("create_time", ("agreements", "create_time"), Kind::TIME),
    ],
    orders: &[OrderField::new(
        "create_time",
        ("agreements", "create_time"),
    )],
    id: ("agreements", "id"),
};

// ---- publishing, withdrawing

pub(crate) fn check_publish_agreement(req: &PublishAgreementRequest, v: &mut Violations) {
    wire::check_agreement(req, v);
}

/// Publishes the next version of an agreement.
///
/// # Errors
/// `INVALID_ARGUMENT` for dates that lie in the past or before those of the version before.
pub async fn publish_agreement(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: PublishAgreementRequest,
) -> Result<Agreement> {
    let PublishAgreementRequest {
        agreement,
        request_id: _,
        validate_only: _,
    } = req;
    let new = wire::new_agreement(agreement)?;
    let last = last_of(tx, new.kind).await?;
    let now = tx.now();
    let effective = new.effective_time.unwrap_or(now);
    let not_before = last
        .as_ref()
        .map_or(now, |last| Ord::max(now, last.effective_time));
    if effective < not_before {
        let what = if effective < now {
            "lies in the past; leave it out for at once"
        } else {
            "lies before that of the version before"
        };
        return Err(Error::field("agreement.effective_time", what));
    }
    if new.accept_by_time.is_some_and(|by| by < effective) {
        return Err(Error::field(
            "agreement.accept_by_time",
            "lies before effective_time",
        ));
    }
    let number = last.map_or(1, |last| last.number + 1);
    let (row, texts) = insert(tx, new, number, effective, false).await?;
    tx.emit(
        Event::new(
            "entente.account.v1.AgreementPublished",
            Name::Agreement(row.id),
        )
        .change("kind", serde_json::Value::Null, row.kind)
        .change("version", serde_json::Value::Null, row.number)
        .change(
            "effective_time",
            serde_json::Value::Null,
            json(row.effective_time),
        )
        .change(
            "accept_by_time",
            serde_json::Value::Null,
            json(row.accept_by_time),
        ),
    );
    let current = current(tx.db(), now).await?;
    let state = state_of(&row, &current, now);
    Ok(wire::agreement(&row, texts, state))
}

/// The version of a kind that was published last, withdrawn ones included.
async fn last_of(tx: &Tx, kind: AgreementKind) -> Result<Option<Model>> {
    let of_kind = Entity::find().filter(Column::Kind.eq(kind as i64));
    Ok(of_kind.order_by_desc(Column::Number).one(tx.db()).await?)
}

async fn insert(
    tx: &mut Tx,
    new: NewAgreement,
    number: i64,
    effective_time: Micros,
    is_placeholder: bool,
) -> Result<(Model, Vec<agreement_text::Model>)> {
    let row = Model {
        id: tx.id(),
        kind: new.kind as i64,
        number,
        is_placeholder,
        effective_time,
        accept_by_time: new.accept_by_time,
        withdraw_time: None,
        create_time: tx.now(),
        version: 1,
    };
    tx.insert(row.clone()).await?;
    let mut texts = Vec::with_capacity(new.texts.len());
    for text in new.texts {
        let NewText {
            language,
            title,
            body,
        } = text;
        let whole = format!("{title}\n{body}");
        let text = agreement_text::Model {
            agreement_id: row.id,
            language,
            title,
            body,
            sha256: digest::digest(&digest::SHA256, whole.as_bytes())
                .as_ref()
                .to_vec(),
        };
        tx.insert(text.clone()).await?;
        texts.push(text);
    }
    Ok((row, texts))
}

/// Withdraws a version that nobody can have accepted yet.
///
/// # Errors
/// `NOT_FOUND`, `AGREEMENT_IN_EFFECT`, `WRONG_STATE`, `ETAG_MISMATCH`.
pub async fn withdraw_agreement(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: WithdrawAgreementRequest,
) -> Result<Agreement> {
    let WithdrawAgreementRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let mut row = find(tx.db(), &name).await?;
    update::check_etag(&etag, row.version)?;
    if row.withdraw_time.is_some() {
        return Err(Error::precondition(Reason::WrongState).with("state", "WITHDRAWN"));
    }
    if row.effective_time <= tx.now() {
        return Err(Error::precondition(Reason::AgreementInEffect));
    }
    (row.withdraw_time, row.version) = (Some(tx.now()), row.version + 1);
    let sql = "UPDATE agreements SET withdraw_time = $1, version = version + 1 WHERE id = $2";
    let values: [Value; 2] = [tx.now().into(), row.id.into()];
    sql::execute(tx.db(), sql, values).await?;
    tx.emit(
        Event::new(
            "entente.account.v1.AgreementWithdrawn",
            Name::Agreement(row.id),
        )
        .change(
            "withdraw_time",
            serde_json::Value::Null,
            json(row.withdraw_time),
        ),
    );
    let texts = texts_of(tx.db(), &row).await?;
    Ok(wire::agreement(&row, texts, AgreementState::Withdrawn))
}

// ---- reading

/// Gives a version with its texts.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn get_agreement(
    rd: &Read,
    _scope: CallerScope,
    req: GetAgreementRequest,
) -> Result<Agreement> {
    let row = find(rd.db(), &req.name).await?;
    let texts = texts_of(rd.db(), &row).await?;
    let current = current(rd.db(), rd.now()).await?;
    let state = state_of(&row, &current, rd.now());
    Ok(wire::agreement(&row, texts, state))
}

pub(crate) fn check_list_agreements(req: &ListAgreementsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists versions, without the bodies of their texts.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_agreements(
    rd: &Read,
    _scope: CallerScope,
    req: ListAgreementsRequest,
) -> Result<ListAgreementsResponse> {
    let now = rd.now();
    let current = current(rd.db(), now).await?;
    // With the state that each has now, so that filters go by what is shown.
    let ids: Vec<Uuid> = current.values().map(|row| row.id).collect();
    let state = CaseStatement::new()
        .case(Column::WithdrawTime.is_not_null(), WITHDRAWN)
        .case(Column::EffectiveTime.gt(now), UPCOMING)
        .case(Column::Id.is_in(ids), CURRENT)
        .finally(SUPERSEDED);
    let shown = Select::select()
        .column(Column::Id)
        .expr_as(state, Alias::new("state"))
        .from(Entity)
        .to_owned();
    let found = rd
        .rows_with::<_, Model>(&req, &LISTING, Entity::find(), shown)
        .await?;
    let mut titles = titles_of(rd.db(), &found.rows).await?;
    let agreements = found.rows.iter().map(|row| {
        let texts = titles.remove(&row.id).unwrap_or_default();
        wire::agreement(row, texts, state_of(row, &current, now))
    });
    let agreements: Vec<Agreement> = agreements.collect();
    let page = found.page(agreements);
    Ok(ListAgreementsResponse {
        agreements: page.items,
        next_page_token: page.next_page_token,
    })
}

/// A version by its name.
async fn find<C: ConnectionTrait>(db: &C, name: &str) -> Result<Model> {
    let not_found = || Error::not_found("entente.dev/Agreement", name);
    match Name::parse(name) {
        Some(Name::Agreement(id)) => Entity::find_by_id(id).one(db).await?.ok_or_else(not_found),
        _ => Err(not_found()),
    }
}

/// All texts of a version, by language.
async fn texts_of<C: ConnectionTrait>(db: &C, row: &Model) -> Result<Vec<agreement_text::Model>> {
    let texts = agreement_text::Entity::find()
        .filter(agreement_text::Column::AgreementId.eq(row.id))
        .order_by_asc(agreement_text::Column::Language);
    Ok(texts.all(db).await?)
}

#[derive(FromQueryResult)]
struct Title {
    agreement_id: Uuid,
    language: String,
    title: String,
    sha256: Vec<u8>,
}

/// The texts of the versions of a page, without bodies.
async fn titles_of<C: ConnectionTrait>(
    db: &C,
    rows: &[Model],
) -> Result<BTreeMap<Uuid, Vec<agreement_text::Model>>> {
    let sql = format!(
        "SELECT agreement_id, language, title, sha256 FROM agreement_texts WHERE agreement_id IN ({}) ORDER BY agreement_id, language",
        sql::in_ids(db, 1)
    );
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut found: BTreeMap<Uuid, Vec<agreement_text::Model>> = BTreeMap::new();
    for title in sql::all::<Title, _>(db, sql, [sql::ids(&ids)]).await? {
        found
            .entry(title.agreement_id)
            .or_default()
            .push(agreement_text::Model {
                agreement_id: title.agreement_id,
                language: title.language,
                title: title.title,
                body: String::new(),
                sha256: title.sha256,
            });
    }
    Ok(found)
}

/// The current versions, by kind: the last one of each that is in effect.
///
/// # Errors
/// Those of the database.
pub(super) async fn current<C: ConnectionTrait>(
    db: &C,
    now: Micros,
) -> Result<BTreeMap<i64, Model>> {
    let sql = "SELECT id, kind, number, is_placeholder, effective_time, accept_by_time, withdraw_time, create_time, version FROM agreements g \
               WHERE g.withdraw_time IS NULL AND g.effective_time <= $1 AND NOT EXISTS (SELECT 1 FROM agreements later \
               WHERE later.kind = g.kind AND later.number > g.number AND later.withdraw_time IS NULL AND later.effective_time <= $1)";
    let rows = sql::all::<Model, _>(db, sql, [now.into()]).await?;
    Ok(rows.into_iter().map(|row| (row.kind, row)).collect())
}

/// The state of a version at an instant.
fn state_of(row: &Model, current: &BTreeMap<i64, Model>, now: Micros) -> AgreementState {
    if row.withdraw_time.is_some() {
        AgreementState::Withdrawn
    } else if row.effective_time > now {
        AgreementState::Upcoming
    } else if current
        .get(&row.kind)
        .is_none_or(|c| c.number <= row.number)
    {
        AgreementState::Current
    } else {
        AgreementState::Superseded
    }
}

// ---- the first start

/// Makes version 0 of each agreement, marked as a placeholder, unless there are versions (COM-19).
///
/// # Errors
/// Those of the database.
pub async fn make_placeholders(app: &App) -> Result<()> {
    let there = "SELECT 1 AS one FROM agreements LIMIT 1";
    if sql::row(&app.db.read, there, []).await?.is_some() {
        return Ok(());
    }
    app.job("make-placeholders", |tx, _| Box::pin(placeholders(tx)))
        .await
}

async fn placeholders(tx: &mut Tx) -> Result<()> {
    tx.lock([ScopeKey::Operator]).await?;
    for kind in KINDS {
        if last_of(tx, kind).await?.is_some() {
            continue;
        }
        let name = agreement_name(kind);
        let text = |language: &str, body: &str| NewText {
            language: language.to_owned(),
            title: format!("PLACEHOLDER {name}"),
            body: body.to_owned(),
        };
        let new = NewAgreement {
            kind,
            texts: vec![
                text(
                    "en",
                    "PLACEHOLDER. The operator has not published this agreement yet.",
                ),
                text(
                    "fr",
                    "PLACEHOLDER. L'opérateur n'a pas encore publié cet accord.",
                ),
            ],
            effective_time: None,
            accept_by_time: None,
        };
        let now = tx.now();
        let (row, _) = insert(tx, new, 0, now, true).await?;
        tx.emit(
            Event::new(
                "entente.account.v1.AgreementPublished",
                Name::Agreement(row.id),
            )
            .change("kind", serde_json::Value::Null, row.kind)
            .change("version", serde_json::Value::Null, row.number)
            .change("placeholder", serde_json::Value::Null, true)
            .change("effective_time", serde_json::Value::Null, json(now)),
        );
    }
    Ok(())
}
