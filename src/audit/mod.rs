//! What happened: audit events for people, domain events for programs.
//!
//! Nouns and states. An audit event is a link in the chain of a tenant, an account or the operator; its name ends in its place there,
//! from 1. A domain event is a row of the outbox, numbered in each of its scopes. Neither has states: both are written once, at the end
//! of the transaction that they tell of, and never changed. Domain events are removed after 90 days, audit events never.
//!
//! Invariants. This slice only reads. What is shown of an audit event is what its hash covers, not the columns that find it. However
//! large events are, an answer stays below what a message may have, and each answer goes on by at least one event.

pub mod event;
mod wire;

use prost::Message as _;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, Select};

use crate::{
    access::scope::Proof,
    app::Read,
    call::{Batch, Then},
    check::Violations,
    error::{Error, Result},
    names::Name,
    proto::audit::{
        ExportAuditEventsRequest, ExportAuditEventsResponse, ListAuditEventsRequest,
        ListAuditEventsResponse, VerifyAuditChainRequest, VerifyAuditChainResponse,
    },
    store::{
        self,
        filter::{Field, Kind, OrderField},
        list::{Cut, Listing},
        scope_key::ScopeKey,
    },
};

/// Events in one message of a stream.
const MOST_EVENTS: u16 = 500;
/// `audit_events`, but for what only verification reads.
mod entity {
    use sea_orm::entity::prelude::*;

    /// A link of a chain.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub scope_kind: i16,
        #[sea_orm(primary_key, auto_increment = false)]
        pub scope_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub seq: i64,
        /// Unique within the chain.
        pub event_id: Uuid,
        pub create_time: i64,
        pub body: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// What lists of audit events can be asked.
static LISTING: Listing = Listing {
    fields: &[
        Field::new("create_time", ("audit_events", "create_time"), Kind::TIME),
        Field::new("action", ("audit_events", "action"), Kind::Exact),
        Field::new("actor", ("audit_events", "actor"), Kind::Exact),
        Field::new("outcome", ("audit_events", "outcome"), Kind::Exact),
    ],
    orders: &[OrderField {
        name: "create_time",
        column: ("audit_events", "create_time"),
        descending: true,
    }],
    id: ("audit_events", "event_id"),
};

/// How far an export has come.
#[derive(Debug, Default)]
pub struct Export {
    /// The last place in the chain that was read.
    at: i64,
    /// Where the chain ended when the export began, and so where the export ends.
    end: Option<i64>,
}

pub(crate) fn check_list_audit_events(req: &ListAuditEventsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Audit events of a tenant, an account or the operator (COM-11).
///
/// # Errors
/// `NOT_FOUND` to the operator's people, who may look at what doesn't exist; `INVALID_ARGUMENT` for a bad filter, order or token.
pub async fn list_audit_events(
    rd: &Read,
    proof: Proof,
    req: ListAuditEventsRequest,
) -> Result<ListAuditEventsResponse> {
    let name = parent_of(&proof, &req.parent)?;
    chain_length(rd, name).await?;
    let scope = name.scope();
    let page = rd
        .list(&req, &LISTING, chain(scope), |row: entity::Model| {
            store::audit::to_wire(scope, row.seq, &row.body)
        })
        .await?;
    Ok(ListAuditEventsResponse {
        audit_events: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Recomputes the chain of a tenant, an account or the operator (COM-11).
///
/// # Errors
/// `NOT_FOUND` to the operator's people, who may look at what doesn't exist.
pub async fn verify_audit_chain(
    rd: &Read,
    proof: Proof,
    req: VerifyAuditChainRequest,
) -> Result<VerifyAuditChainResponse> {
    let VerifyAuditChainRequest { parent } = req;
    let name = parent_of(&proof, &parent)?;
    chain_length(rd, name).await?;
    let verdict = store::audit::verify(rd.db(), &rd.app().keys, name.scope(), None).await?;
    Ok(wire::verdict(verdict))
}

/// The next audit events of an export: all that the chain had when the export began, in its order.
///
/// # Errors
/// `NOT_FOUND` to the operator's people, who may look at what doesn't exist.
pub async fn export_audit_events(
    rd: &Read,
    proof: Proof,
    req: &ExportAuditEventsRequest,
    state: &mut Export,
) -> Result<Batch<ExportAuditEventsResponse>> {
    let ExportAuditEventsRequest { parent, after } = req;
    let name = parent_of(&proof, parent)?;
    let end = match state.end {
        Some(end) => end,
        None => {
            let end = chain_length(rd, name).await?;
            *state = Export {
                at: *after,
                end: Some(end),
            };
            end
        }
    };
    let scope = name.scope();
    let rows = store::audit::after(rd.db(), scope, state.at, u64::from(MOST_EVENTS)).await?;
    let (mut events, mut cut) = (Vec::new(), Cut::default());
    for row in rows.iter().filter(|row| row.seq <= end) {
        let event = store::audit::to_wire(scope, row.seq, &row.body);
        if !cut.takes(event.encoded_len()) {
            break;
        }
        state.at = row.seq;
        events.push(event);
    }
    if events.is_empty() {
        // The chain ends before its head says so: there is nothing to wait for, and verification tells of it.
        state.at = end;
    }
    let then = if state.at < end {
        Then::More
    } else {
        Then::End
    };
    let message = (!events.is_empty()).then_some(ExportAuditEventsResponse {
        audit_events: events,
    });
    Ok(Batch { message, then })
}

/// The parent that a request names, held once more against what was proven.
fn parent_of(proof: &Proof, parent: &str) -> Result<Name> {
    let name = Name::parse(parent).ok_or_else(|| {
        Error::field(
            "parent",
            "is no name of a tenant, an account or the operator",
        )
    })?;
    if proof.by_operator() || proof.scopes().any(|proven| proven == name.scope()) {
        Ok(name)
    } else {
        Err(Error::internal("the proof doesn't reach the parent"))
    }
}

/// How many events a parent's chain has, by its head.
async fn chain_length(rd: &Read, parent: Name) -> Result<i64> {
    let scope = parent.scope();
    store::audit::count(rd.db(), scope)
        .await?
        .ok_or_else(|| Error::not_found(parent.kind(), parent.to_string()))
}

/// The events of one chain.
fn chain(scope: ScopeKey) -> Select<entity::Entity> {
    entity::Entity::find()
        .filter(entity::Column::ScopeKind.eq(scope.kind()))
        .filter(entity::Column::ScopeId.eq(scope.id()))
}
