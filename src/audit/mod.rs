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

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, Select, Statement,
    Value,
};

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
        list::{Key, Listing, Query},
        scope_key::ScopeKey,
        time::parse_rfc3339,
    },
};

/// Events in one message of a stream.
const MOST_EVENTS: u16 = 500;
/// Bytes of events in one answer; half of what a message may have, since what surrounds them isn't counted.
const MOST_BYTES: usize = 2 * 1_024 * 1_024;
/// Bytes that an audit event has on the wire beside what is stored of it: its name, and its ID as text.
const BESIDE_BODY: usize = 200;

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
        Field {
            name: "create_time",
            column: ("audit_events", "create_time"),
            kind: Kind::Instant {
                parse: parse_rfc3339,
            },
        },
        Field {
            name: "action",
            column: ("audit_events", "action"),
            kind: Kind::Exact,
        },
        Field {
            name: "actor",
            column: ("audit_events", "actor"),
            kind: Kind::Exact,
        },
        Field {
            name: "outcome",
            column: ("audit_events", "outcome"),
            kind: Kind::Exact,
        },
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
    LISTING.check(&req.filter, &req.order_by, v);
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
    let ListAuditEventsRequest {
        parent,
        page_size,
        page_token,
        filter,
        order_by,
    } = req;
    let name = parent_of(&proof, &parent)?;
    chain_length(rd, name).await?;
    let (scope, caller) = (name.scope(), rd.caller().key());
    let query = Query {
        keys: &rd.app().keys,
        caller: &caller,
        about: &[rd.method(), &parent],
        page_size,
        page_token: &page_token,
        filter: &filter,
        order_by: &order_by,
    };
    let mut page = query.page(rd.db(), chain(scope), &LISTING, key).await?;
    let fits = fitting(page.rows.iter().map(|row| row.body.len() + BESIDE_BODY));
    if fits < page.rows.len() {
        // Tokens aren't bound to the size of a page, so a shorter one goes on all the same.
        let shorter = Query {
            page_size: i32::try_from(fits).unwrap_or(1),
            ..query
        };
        page = shorter.page(rd.db(), chain(scope), &LISTING, key).await?;
    }
    Ok(ListAuditEventsResponse {
        audit_events: page
            .rows
            .into_iter()
            .map(|row| wire::audit_event(scope, row.seq, &row.body))
            .collect(),
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
    let mut rows = store::audit::after(rd.db(), scope, state.at, u64::from(MOST_EVENTS)).await?;
    rows.retain(|row| row.seq <= end);
    rows.truncate(fitting(rows.iter().map(|row| row.body.len() + BESIDE_BODY)));
    // Without rows the chain ends before its head says so: then there is nothing to wait for, and verification tells of it.
    state.at = rows.last().map_or(end, |row| row.seq);
    let then = if state.at < end {
        Then::More
    } else {
        Then::End
    };
    let events: Vec<_> = rows
        .iter()
        .map(|row| wire::audit_event(scope, row.seq, &row.body))
        .collect();
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
    let sql = "SELECT audit_count FROM heads WHERE scope_kind = $1 AND scope_id = $2";
    let values: [Value; 2] = [scope.kind().into(), scope.id().into()];
    let statement = Statement::from_sql_and_values(rd.db().get_database_backend(), sql, values);
    match rd.db().query_one_raw(statement).await? {
        Some(row) => Ok(row.try_get("", "audit_count")?),
        None => Err(Error::not_found(parent.kind(), parent.to_string())),
    }
}

/// The events of one chain.
fn chain(scope: ScopeKey) -> Select<entity::Entity> {
    entity::Entity::find()
        .filter(entity::Column::ScopeKind.eq(scope.kind()))
        .filter(entity::Column::ScopeId.eq(scope.id()))
}

fn key(row: &entity::Model, _order: &'static str) -> Key {
    Key::Number(row.create_time, row.event_id)
}

/// How many events of these sizes go into one answer; at least one, if there is any.
fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0_usize;
    sizes
        .enumerate()
        .take_while(|(place, size)| {
            bytes = bytes.saturating_add(*size);
            *place == 0 || bytes <= MOST_BYTES
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stay_below_what_a_message_may_have_and_go_on() {
        assert_eq!(fitting(std::iter::empty()), 0);
        assert_eq!(fitting([1, 2, 3].into_iter()), 3);
        assert_eq!(fitting([MOST_BYTES + 1, 1].into_iter()), 1);
        assert_eq!(fitting([MOST_BYTES - 1, 1, 1].into_iter()), 2);
        assert_eq!(fitting([usize::MAX, usize::MAX].into_iter()), 1);
    }
}
