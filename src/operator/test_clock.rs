//! A clock that tests can move (COM-14): forward only, for everything that reads this database, while the configuration lets it.
//!
//! Time is the machine's, and an offset that is a row. A transaction has one instant: that of the transaction which moves the clock is
//! still the old one.

use sea_orm::{ConnectionTrait, Statement};

use super::wire;
use crate::{
    access::scope::OperatorScope,
    app::{App, Read, Tx},
    check::Violations,
    env::{DAY_US, Micros, SECOND_US},
    error::{Error, Reason, Result},
    names::Name,
    proto::operator::{AdvanceRequest, GetTimeRequest, ServiceTime, SetTimeRequest},
    store::{
        outbox::Event,
        sql,
        time::{self, duration_micros, micros, rfc3339},
    },
};

/// 100 years, with 25 leap days.
const FARTHEST_SET_US: Micros = 36_525 * DAY_US;
/// 10 years, with 3 leap days.
const FARTHEST_ADVANCE_US: Micros = 3_653 * DAY_US;
/// The year 9000, far enough from where timestamps end that everything can still be kept for a while.
const LATEST_US: Micros = 221_845_392_000 * SECOND_US;

/// The service's time.
///
/// # Errors
/// `FAILED_PRECONDITION`, `TEST_CLOCK_OFF`.
pub async fn get_time(
    rd: &Read,
    _scope: OperatorScope,
    req: GetTimeRequest,
) -> Result<ServiceTime> {
    let GetTimeRequest {} = req;
    check_on(rd.app())?;
    Ok(wire::service_time(rd.now(), offset(rd.db()).await?))
}

/// Sets the service's time.
///
/// # Errors
/// `FAILED_PRECONDITION`, `TEST_CLOCK_OFF`; `INVALID_ARGUMENT` for a time that isn't after now and within 100 years.
pub async fn set_time(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: SetTimeRequest,
) -> Result<ServiceTime> {
    let SetTimeRequest {
        now: wanted,
        request_id: _,
        validate_only: _,
    } = req;
    check_on(tx.app())?;
    let wanted = wanted.map_or(Micros::MIN, |at| micros(&at));
    let now = Moment::read(tx).await?;
    if wanted <= now.service() || wanted.saturating_sub(now.service()) > FARTHEST_SET_US {
        return Err(Error::field(
            "now",
            format!(
                "is not after {} and within 100 years of it",
                rfc3339(now.service())
            ),
        ));
    }
    move_to(tx, now, wanted, "now").await
}

pub(crate) fn check_advance(req: &AdvanceRequest, v: &mut Violations) {
    let by = req.by.as_ref().map_or(0, duration_micros);
    if !(1..=FARTHEST_ADVANCE_US).contains(&by) {
        v.also(
            "by",
            "is not more than nothing and at most 10 years; the clock counts microseconds",
        );
    }
}

/// Moves the service's time forward.
///
/// # Errors
/// `FAILED_PRECONDITION`, `TEST_CLOCK_OFF`; `INVALID_ARGUMENT` for a duration that leads too far.
pub async fn advance(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: AdvanceRequest,
) -> Result<ServiceTime> {
    let AdvanceRequest {
        by,
        request_id: _,
        validate_only: _,
    } = req;
    check_on(tx.app())?;
    let by = by.map_or(0, |by| duration_micros(&by));
    let now = Moment::read(tx).await?;
    move_to(tx, now, now.service() + by, "by").await
}

fn check_on(app: &App) -> Result<()> {
    if app.config.enable_test_clock {
        Ok(())
    } else {
        Err(Error::precondition(Reason::TestClockOff))
    }
}

/// An instant by the machine's clock, and how far the service's is ahead.
#[derive(Clone, Copy)]
struct Moment {
    machine: Micros,
    offset: Micros,
}

impl Moment {
    /// Now. The operator's scope is locked, so nobody else moves the clock; who did while this transaction waited for the lock is seen,
    /// though the transaction's own instant is older.
    async fn read(tx: &Tx) -> Result<Self> {
        Ok(Self {
            machine: tx.app().env.now(),
            offset: offset(tx.db()).await?,
        })
    }

    fn service(self) -> Micros {
        self.machine + self.offset
    }
}

async fn offset<C: ConnectionTrait>(db: &C) -> Result<Micros> {
    let sql = "SELECT value FROM meta WHERE key = 'clock_offset'";
    match db
        .query_one_raw(Statement::from_string(db.get_database_backend(), sql))
        .await?
    {
        Some(row) => {
            let text: String = row.try_get("", "value")?;
            text.parse()
                .map_err(|_| Error::internal("clock_offset is no number"))
        }
        None => Ok(0),
    }
}

async fn move_to(
    tx: &mut Tx,
    from: Moment,
    to: Micros,
    field: &'static str,
) -> Result<ServiceTime> {
    if to > LATEST_US {
        return Err(Error::field(
            field,
            format!("leads beyond {}", rfc3339(LATEST_US)),
        ));
    }
    let offset = to - from.machine;
    let sql = "INSERT INTO meta (key, value) VALUES ('clock_offset', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    sql::execute(tx.db(), sql, [offset.to_string().into()]).await?;
    tx.clock_moved_to(to);
    let event = Event::new("entente.operator.v1.ClockMoved", Name::Operator);
    tx.emit(event.change("now", time::json(from.service()), time::json(to)));
    Ok(wire::service_time(to, offset))
}
