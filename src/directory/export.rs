//! What is kept of a personal identity, for its person (IDN-2): one kind after another, in pieces, so that memory stays constant.

use sea_orm::{
    ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect, Value,
    sea_query::ExprTrait as _,
};
use uuid::Uuid;

use super::{
    entity::{
        invitation as invitations, session as sessions, tenant as tenants,
        user::{self as users, Model},
    },
    invitation, user_change, wire,
};
use crate::{
    access::{grants, principal::Principal, scope::CallerScope},
    account,
    app::Read,
    call::{Batch, Then},
    document,
    error::{Error, Result},
    names::Name,
    proto::directory::{
        ExportIdentityRequest, ExportIdentityResponse, HeldRights, IdentityDocument, IdentityMail,
        SignInNetwork,
    },
    store::{audit, scope_key::ScopeKey, sql, time::timestamp},
};

/// Entries in one message.
const MOST_ENTRIES: u16 = 500;
/// Audit events in one message: each may name a hundred resources.
const MOST_AUDIT_EVENTS: u16 = 50;

/// The kinds of what is kept, in the order in which they are told.
#[derive(Clone, Copy, Debug, Default)]
enum Kind {
    #[default]
    Profile,
    Sessions,
    Networks,
    Guests,
    Rights,
    Tenants,
    Invitations,
    Mails,
    Documents,
    Accounts,
    AuditEvents,
}

impl Kind {
    fn next(self) -> Option<Self> {
        Some(match self {
            Self::Profile => Self::Sessions,
            Self::Sessions => Self::Networks,
            Self::Networks => Self::Guests,
            Self::Guests => Self::Rights,
            Self::Rights => Self::Tenants,
            Self::Tenants => Self::Invitations,
            Self::Invitations => Self::Mails,
            Self::Mails => Self::Documents,
            Self::Documents => Self::Accounts,
            Self::Accounts => Self::AuditEvents,
            Self::AuditEvents => return None,
        })
    }
}

/// How far an export has come: a kind, and what of it was told last.
#[derive(Debug, Default)]
pub struct Export {
    kind: Kind,
    id: Uuid,
    text: String,
    place: i64,
    /// Where the audit chain ended when the export came to it.
    end: Option<i64>,
}

/// The next piece of what is kept of the caller.
///
/// # Errors
/// Those of the database.
pub async fn export_identity(
    rd: &Read,
    scope: CallerScope,
    _req: &ExportIdentityRequest,
    state: &mut Export,
) -> Result<Batch<ExportIdentityResponse>> {
    let caller = scope.principal();
    let (message, whole) = match state.kind {
        Kind::Profile => (profile(rd, scope).await?, true),
        Kind::Sessions => sessions_of(rd, scope, state).await?,
        Kind::Networks => networks(rd, caller.id, state).await?,
        Kind::Guests => guests(rd, caller.id, state).await?,
        Kind::Rights => rights(rd, caller, state).await?,
        Kind::Tenants => tenants_of(rd, caller.id, state).await?,
        Kind::Invitations => invitations(rd, caller.id, state).await?,
        Kind::Mails => mails(rd, caller, state).await?,
        Kind::Documents => documents(rd, caller.id, state).await?,
        Kind::Accounts => (accounts(rd, caller.id).await?, true),
        Kind::AuditEvents => audit_events(rd, caller, state).await?,
    };
    let mut then = Then::More;
    if whole {
        match state.kind.next() {
            Some(kind) => {
                *state = Export {
                    kind,
                    ..Export::default()
                };
            }
            None => then = Then::End,
        }
    }
    let message = (message != ExportIdentityResponse::default()).then_some(message);
    Ok(Batch { message, then })
}

/// A message, and whether all of its kind was told.
type Piece = (ExportIdentityResponse, bool);

/// Whether a page of so many rows is the last one.
fn is_last(rows: usize) -> bool {
    rows < usize::from(MOST_ENTRIES)
}

async fn profile(rd: &Read, scope: CallerScope) -> Result<ExportIdentityResponse> {
    let id = scope.principal().id;
    let row = users::find(rd.db(), scope, id)
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Identity", Name::Identity(id).to_string()))?;
    let sql = "SELECT language FROM credentials WHERE user_id = $1";
    let language = sql::row(rd.db(), sql, [id.into()]).await?;
    let language_code = language
        .map(|row| row.try_get("", "language"))
        .transpose()?;
    Ok(ExportIdentityResponse {
        identity: Some(wire::identity(&row, rd.now())),
        language_code: language_code.unwrap_or_default(),
        ..ExportIdentityResponse::default()
    })
}

async fn sessions_of(rd: &Read, scope: CallerScope, state: &mut Export) -> Result<Piece> {
    let id = scope.principal().id;
    let rows = sessions::Entity::find()
        .filter(
            sessions::Column::UserId
                .eq(id)
                .or(sessions::Column::HomeId.eq(id)),
        )
        .filter(sessions::Column::Id.gt(state.id))
        .order_by_asc(sessions::Column::Id)
        .limit(u64::from(MOST_ENTRIES))
        .all(rd.db())
        .await?;
    state.id = rows.last().map_or(state.id, |row| row.id);
    let message = ExportIdentityResponse {
        sessions: rows
            .iter()
            .map(|row| wire::session(row, scope.session()))
            .collect(),
        ..ExportIdentityResponse::default()
    };
    Ok((message, is_last(rows.len())))
}

#[derive(FromQueryResult)]
struct Network {
    network: String,
    failed: i64,
    last_success_time: i64,
}

async fn networks(rd: &Read, id: Uuid, state: &mut Export) -> Result<Piece> {
    let sql = "SELECT network, failed, last_success_time FROM sign_in_networks WHERE user_id = $1 AND network > $2 ORDER BY network LIMIT $3";
    let values: [Value; 3] = [
        id.into(),
        state.text.clone().into(),
        i64::from(MOST_ENTRIES).into(),
    ];
    let rows = sql::all::<Network, _>(rd.db(), sql, values).await?;
    if let Some(last) = rows.last() {
        state.text.clone_from(&last.network);
    }
    let whole = is_last(rows.len());
    let networks = rows.into_iter().map(|row| SignInNetwork {
        network: row.network,
        failed_count: i32::try_from(row.failed).unwrap_or(i32::MAX),
        last_success_time: timestamp(row.last_success_time).filter(|_| row.last_success_time > 0),
    });
    let message = ExportIdentityResponse {
        networks: networks.collect(),
        ..ExportIdentityResponse::default()
    };
    Ok((message, whole))
}

async fn guests(rd: &Read, id: Uuid, state: &mut Export) -> Result<Piece> {
    let rows: Vec<Model> = users::Entity::find()
        .filter(users::Column::HomeId.eq(id))
        .filter(users::Column::Id.gt(state.id))
        .order_by_asc(users::Column::Id)
        .limit(u64::from(MOST_ENTRIES))
        .all(rd.db())
        .await?;
    state.id = rows.last().map_or(state.id, |row| row.id);
    let mut message = ExportIdentityResponse::default();
    for row in &rows {
        let guest = user_change::to_wire(rd.db(), rd.app(), row, rd.now()).await?;
        message.guests.push(guest);
    }
    Ok((message, is_last(rows.len())))
}

async fn rights(rd: &Read, caller: Principal, state: &mut Export) -> Result<Piece> {
    let all = grants::rights_of(rd.db(), caller.id).await?;
    let told = usize::try_from(state.place).unwrap_or(usize::MAX);
    let mut message = ExportIdentityResponse::default();
    for right in all.iter().skip(told).take(usize::from(MOST_ENTRIES)) {
        let holder = if right.holder == caller.id {
            caller.name()
        } else {
            let guest = users::Entity::find_by_id(right.holder).one(rd.db()).await?;
            guest.map_or_else(String::new, |g| user_change::name(&g).to_string())
        };
        message.rights.push(HeldRights {
            resource: right.scope.to_string(),
            holder,
            rights: right.set.names(right.scope),
            by_group: right.by_group,
        });
    }
    let told = told + message.rights.len();
    state.place = i64::try_from(told).unwrap_or(i64::MAX);
    Ok((message, told >= all.len()))
}

async fn tenants_of(rd: &Read, id: Uuid, state: &mut Export) -> Result<Piece> {
    let rows = tenants::Entity::find()
        .filter(tenants::Column::CreatedByIdentity.eq(id))
        .filter(tenants::Column::Id.gt(state.id))
        .order_by_asc(tenants::Column::Id)
        .limit(u64::from(MOST_ENTRIES))
        .all(rd.db())
        .await?;
    state.id = rows.last().map_or(state.id, |row| row.id);
    let names = rows.iter().map(|row| Name::Tenant(row.id).to_string());
    let message = ExportIdentityResponse {
        tenants: names.collect(),
        ..ExportIdentityResponse::default()
    };
    Ok((message, is_last(rows.len())))
}

/// Invitations to the identity's address, and those by which it became a guest.
async fn invitations(rd: &Read, id: Uuid, state: &mut Export) -> Result<Piece> {
    let sql = "SELECT i.* FROM invitations i WHERE i.id > $2 AND (i.email_fold IN (SELECT user_name_fold FROM users WHERE id = $1) \
               OR i.user_id IN (SELECT id FROM users WHERE home_id = $1)) ORDER BY i.id LIMIT $3";
    let values: [Value; 3] = [id.into(), state.id.into(), i64::from(MOST_ENTRIES).into()];
    let rows = sql::all::<invitations::Model, _>(rd.db(), sql, values).await?;
    state.id = rows.last().map_or(state.id, |row| row.id);
    let message = ExportIdentityResponse {
        invitations: rows
            .iter()
            .map(|row| invitation::to_wire(row, rd.now()))
            .collect(),
        ..ExportIdentityResponse::default()
    };
    Ok((message, is_last(rows.len())))
}

#[derive(FromQueryResult)]
struct Mail {
    id: Uuid,
    recipient: String,
    template: String,
    create_time: i64,
    send_time: Option<i64>,
}

async fn mails(rd: &Read, caller: Principal, state: &mut Export) -> Result<Piece> {
    // Those about the identity, and whatever else went to its address: invitations, what a guest of its was told.
    let sql = "SELECT id, recipient, template, create_time, send_time FROM mails WHERE id > $2 AND (object = $1 OR recipient IN \
               (SELECT user_name FROM users WHERE id = $4 UNION SELECT recovery_email FROM users WHERE id = $4)) ORDER BY id LIMIT $3";
    let values: [Value; 4] = [
        caller.name().into(),
        state.id.into(),
        i64::from(MOST_ENTRIES).into(),
        caller.id.into(),
    ];
    let rows = sql::all::<Mail, _>(rd.db(), sql, values).await?;
    state.id = rows.last().map_or(state.id, |row| row.id);
    let whole = is_last(rows.len());
    let mails = rows.into_iter().map(|row| IdentityMail {
        recipient: row.recipient,
        template: row.template,
        create_time: timestamp(row.create_time),
        send_time: row.send_time.and_then(timestamp),
    });
    let message = ExportIdentityResponse {
        mails: mails.collect(),
        ..ExportIdentityResponse::default()
    };
    Ok((message, whole))
}

/// What the person and its guests uploaded.
async fn documents(rd: &Read, id: Uuid, state: &mut Export) -> Result<Piece> {
    let most = u64::from(MOST_ENTRIES);
    let rows = document::of_person(rd.db(), id, state.id, most).await?;
    state.id = rows.last().map_or(state.id, |row| row.id);
    let documents = rows.iter().map(|row| IdentityDocument {
        name: row.name().to_string(),
        display_name: row.display_name.clone(),
        size_bytes: row.size_bytes,
        sha256: hex::encode(&row.sha256),
        create_time: timestamp(row.create_time),
    });
    let message = ExportIdentityResponse {
        documents: documents.collect(),
        ..ExportIdentityResponse::default()
    };
    Ok((message, is_last(rows.len())))
}

/// What is kept of the person as one who joined the network, or was to own an account.
async fn accounts(rd: &Read, id: Uuid) -> Result<ExportIdentityResponse> {
    let names = account::names_of_person(rd.db(), id).await?;
    Ok(ExportIdentityResponse {
        account_resources: names.iter().map(Name::to_string).collect(),
        ..ExportIdentityResponse::default()
    })
}

async fn audit_events(rd: &Read, caller: Principal, state: &mut Export) -> Result<Piece> {
    let scope = ScopeKey::Identity(caller.id);
    // What comes after the export began to tell of them is left for the next one: else it might never end.
    let end = match state.end {
        Some(end) => end,
        None => audit::count(rd.db(), scope).await?.unwrap_or(0),
    };
    state.end = Some(end);
    let mut rows = audit::after(rd.db(), scope, state.place, u64::from(MOST_AUDIT_EVENTS)).await?;
    rows.retain(|row| row.seq <= end);
    // Without rows the chain ends before its head says so; verification tells of it.
    state.place = rows.last().map_or(end, |row| row.seq);
    let events = rows
        .iter()
        .map(|row| audit::to_wire(scope, row.seq, &row.body));
    let message = ExportIdentityResponse {
        audit_events: events.collect(),
        ..ExportIdentityResponse::default()
    };
    Ok((message, state.place >= end))
}
