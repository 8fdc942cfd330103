//! The queue of mails (COM-15), as the operator sees it: to whom and about what, never what they say.

use sea_orm::{ConnectionTrait as _, EntityTrait as _, Statement, Value};

use super::{
    entity::mail::{self, Entity},
    wire,
};
use crate::{
    access::scope::OperatorScope,
    app::{Read, Tx},
    check::Violations,
    error::{Error, Reason, Result},
    names::Name,
    proto::operator::{ListMailsRequest, ListMailsResponse, Mail, MailState, ResendMailRequest},
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
        outbox::Event,
        update,
    },
};

const QUEUED: i64 = MailState::Queued as i64;
const SENT: i64 = MailState::Sent as i64;
const FAILED: i64 = MailState::Failed as i64;
/// What callers call the states.
const STATES: &[(&str, i64)] = &[("QUEUED", QUEUED), ("SENT", SENT), ("FAILED", FAILED)];

/// What lists of mails can be asked.
static LISTING: Listing = Listing {
    fields: &[
        Field::new("recipient", ("mails", "recipient"), Kind::Exact),
        Field::new("template", ("mails", "template"), Kind::Exact),
        Field::new("object", ("mails", "object"), Kind::Exact),
        Field::new("state", ("mails", "state"), Kind::Enum(STATES)),
        Field::new("create_time", ("mails", "create_time"), Kind::TIME),
    ],
    orders: &[OrderField::new("create_time", ("mails", "create_time"))],
    id: ("mails", "id"),
};

pub(crate) fn check_list_mails(req: &ListMailsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Mails, by recipient or object.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad filter, order or token.
pub async fn list_mails(
    rd: &Read,
    _scope: OperatorScope,
    req: ListMailsRequest,
) -> Result<ListMailsResponse> {
    let page = rd.list(&req, &LISTING, Entity::find(), wire::mail).await?;
    Ok(ListMailsResponse {
        mails: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Queues a failed mail anew, with all its tries.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED`, `ETAG_MISMATCH`; `FAILED_PRECONDITION`, `WRONG_STATE` unless it has failed.
pub async fn resend_mail(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: ResendMailRequest,
) -> Result<Mail> {
    let ResendMailRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let missing = || Error::not_found("entente.dev/Mail", name.as_str());
    let Some(Name::Mail(id)) = Name::parse(&name) else {
        return Err(missing());
    };
    let row = mail::find(tx.db(), id).await?.ok_or_else(missing)?;
    update::check_etag(&etag, row.version)?;
    if row.state != FAILED {
        let state = STATES
            .iter()
            .find(|(_, number)| *number == row.state)
            .map_or("", |(name, _)| name);
        return Err(Error::precondition(Reason::WrongState).with("state", state));
    }
    let sql = "UPDATE mails SET state = $1, attempt_count = 0, next_attempt_time = $2, lease_id = NULL, version = version + 1 \
               WHERE id = $3 AND state = $4 AND version = $5";
    let values: [Value; 5] = [
        QUEUED.into(),
        tx.now().into(),
        id.into(),
        FAILED.into(),
        row.version.into(),
    ];
    let statement = Statement::from_sql_and_values(tx.db().get_database_backend(), sql, values);
    if tx.db().execute_raw(statement).await?.rows_affected() == 0 {
        return Err(Error::aborted(Reason::Conflict));
    }
    tx.emit(
        Event::new("entente.operator.v1.MailResent", Name::Mail(id))
            .change("state", FAILED, QUEUED),
    );
    let row = mail::find(tx.db(), id).await?.ok_or_else(missing)?;
    Ok(wire::mail(row))
}
