//! Domain events for programs (COM-12): watched from a cursor that the client keeps, at least once, in order.
//!
//! A watcher of a tenant or an account reads the numbers of that scope; the operator's reads the numbers over all scopes, which the
//! relay gives after the commit. Events that types or resource leave out still move the cursor.

use std::time::{Duration, Instant};

use prost::Message as _;

use super::{MOST_EVENTS, parent_of, wire};
use crate::{
    access::scope::Proof,
    app::Read,
    call::{Batch, Then},
    check::{MOST_ITEMS_NAMED, Violations},
    error::{Error, Reason, Result},
    names::Name,
    proto::audit::{
        GetLastCursorRequest, GetLastCursorResponse, WatchEventsRequest, WatchEventsResponse,
    },
    store::{facts::fact, list::Cut, outbox, payload},
};

/// A stream without news shows so often that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// How far a watcher has come.
#[derive(Debug, Default)]
pub struct Watch {
    /// The last number that was read; none before the first batch.
    at: Option<i64>,
    /// When the last message was made.
    told: Option<Instant>,
}

pub(crate) fn check_watch_events(req: &WatchEventsRequest, v: &mut Violations) {
    if !req.resource.is_empty() && Name::parse(&req.resource).is_none() {
        v.also("resource", "is no resource name that is known here");
    }
    // Whoever waits for what never comes would wait for ever.
    for (i, kind) in req.types.iter().enumerate().take(MOST_ITEMS_NAMED) {
        if !payload::is_type(kind) {
            v.also(
                format!("types[{i}]"),
                "is no type of event: the full name of a message in events.proto of a package",
            );
        }
    }
}

/// The next domain events of a watcher.
///
/// # Errors
/// `OUT_OF_RANGE`, `CURSOR_EXPIRED` for a cursor that is foreign, or older than what is kept.
pub async fn watch_events(
    rd: &Read,
    proof: Proof,
    req: &WatchEventsRequest,
    state: &mut Watch,
) -> Result<Batch<WatchEventsResponse>> {
    let WatchEventsRequest {
        parent,
        cursor,
        types,
        resource,
    } = req;
    let scope = parent_of(&proof, parent)?.scope();
    let epoch = &epoch(rd).await?;
    let at = match state.at {
        Some(at) => at,
        None => {
            let sent = if cursor.is_empty() {
                None
            } else {
                Some(outbox::parse_cursor(cursor, epoch, scope)?)
            };
            let (oldest, newest) = outbox::bounds(rd.db(), scope).await?;
            begin(sent, oldest, newest)?
        }
    };
    let rows = outbox::after(rd.db(), scope, at, i64::from(MOST_EVENTS)).await?;
    if rows.first().is_some_and(|row| row.seq > at + 1) {
        // A client that takes its time may fall behind what is kept.
        let (oldest, newest) = outbox::bounds(rd.db(), scope).await?;
        begin(Some(at), oldest, newest)?;
    }
    let mut then = if rows.len() == usize::from(MOST_EVENTS) {
        Then::More
    } else {
        Then::Wait
    };
    let (mut last, mut events, mut cut) = (at, Vec::new(), Cut::default());
    for row in rows {
        let seq = row.seq;
        if seq > last + 1 && last != at {
            // What lay between was purged while this was read.
            return Err(Error::out_of_range(Reason::CursorExpired));
        }
        if (types.is_empty() || types.contains(&row.r#type))
            && (resource.is_empty() || *resource == row.resource)
        {
            let event = wire::domain_event(epoch, scope, row);
            if !cut.takes(event.encoded_len()) {
                then = Then::More;
                break;
            }
            events.push(event);
        }
        last = seq;
    }
    state.at = Some(last);
    // The first message comes at once, so that a client sees that the stream lives, and has a cursor.
    let silent = state.told.is_some_and(|told| told.elapsed() < SIGN_OF_LIFE);
    if silent && events.is_empty() {
        return Ok(Batch {
            message: None,
            then,
        });
    }
    state.told = Some(Instant::now());
    let message = WatchEventsResponse {
        events,
        cursor: outbox::cursor(epoch, scope, last),
    };
    Ok(Batch {
        message: Some(message),
        then,
    })
}

/// The cursor of the last domain event of a tenant, an account or the operator.
///
/// # Errors
/// Those of the database.
pub async fn get_last_cursor(
    rd: &Read,
    proof: Proof,
    req: GetLastCursorRequest,
) -> Result<GetLastCursorResponse> {
    let GetLastCursorRequest { parent } = req;
    let scope = parent_of(&proof, &parent)?.scope();
    let (_, newest) = outbox::bounds(rd.db(), scope).await?;
    Ok(GetLastCursorResponse {
        cursor: outbox::cursor(&epoch(rd).await?, scope, newest),
    })
}

/// The number after which to read on: that of the cursor, if nothing after it is gone already; without one, before the oldest kept.
fn begin(cursor: Option<i64>, oldest: Option<i64>, newest: i64) -> Result<i64> {
    let before_kept = oldest.map_or(newest, |oldest| oldest - 1);
    match cursor {
        None => Ok(before_kept),
        Some(at) if (before_kept..=newest).contains(&at) => Ok(at),
        Some(_) => Err(Error::out_of_range(Reason::CursorExpired)),
    }
}

/// The database's epoch, asked each time: it is renewed by a restore.
async fn epoch(rd: &Read) -> Result<String> {
    fact(rd.db(), "epoch")
        .await?
        .ok_or_else(|| Error::internal("the database has no epoch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves COM-12
    #[test]
    fn a_cursor_is_good_while_all_after_it_is_kept() {
        let good = |cursor, oldest, newest| begin(cursor, oldest, newest).ok();
        // Nothing has happened yet.
        assert_eq!(good(None, None, 0), Some(0));
        assert_eq!(good(Some(0), None, 0), Some(0));
        assert_eq!(good(Some(1), None, 0), None);
        // All is kept.
        assert_eq!(good(None, Some(1), 9), Some(0));
        assert_eq!(good(Some(0), Some(1), 9), Some(0));
        assert_eq!(good(Some(9), Some(1), 9), Some(9));
        assert_eq!(good(Some(10), Some(1), 9), None);
        // The first five are gone: who has seen them all goes on, who hasn't can't.
        assert_eq!(good(None, Some(6), 9), Some(5));
        assert_eq!(good(Some(5), Some(6), 9), Some(5));
        assert_eq!(good(Some(4), Some(6), 9), None);
        // All are gone.
        assert_eq!(good(None, None, 9), Some(9));
        assert_eq!(good(Some(9), None, 9), Some(9));
        assert_eq!(good(Some(8), None, 9), None);
        let error = begin(Some(4), Some(6), 9).unwrap_err();
        assert_eq!(
            (error.code(), error.reason()),
            (tonic::Code::OutOfRange, Reason::CursorExpired)
        );
    }
}
