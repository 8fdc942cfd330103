//! The states of an account, the one table of what they allow and of how they follow on each other (ACC-13), and what else a method demands
//! of an account: programmes and agreements (ACC-9, AGR-5). Declared in the protos like permissions, and held against the account here, after
//! the proof, in the transaction as well as for reads.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::cache::Facts;
use crate::{
    env::Micros,
    error::{Error, Reason, Result},
    proto::{
        access::{AccountAct, AccountDemand, AgreementKind, Program},
        account::AccountState,
    },
    store::{
        memory::{Fact, Found},
        scope_key::ScopeKey,
        sql,
    },
};

/// A row of the table: a state, what may be done in it besides what always works, and which states follow on it.
#[derive(Debug)]
pub struct Row {
    /// The state.
    pub state: AccountState,
    /// Setting the account up and running it.
    pub manages: bool,
    /// Dealing with others.
    pub trades: bool,
    /// The states that may follow.
    pub then: &'static [AccountState],
}

/// All states and transitions of an account.
pub const TABLE: &[Row] = &[
    Row {
        state: AccountState::Draft,
        manages: true,
        trades: false,
        then: &[AccountState::Pending],
    },
    Row {
        state: AccountState::Pending,
        manages: true,
        trades: false,
        then: &[
            AccountState::Draft,
            AccountState::Active,
            AccountState::Suspended,
            AccountState::Rejected,
            AccountState::Closed,
        ],
    },
    Row {
        state: AccountState::Active,
        manages: true,
        trades: true,
        then: &[
            AccountState::Suspended,
            AccountState::Rejected,
            AccountState::Closed,
        ],
    },
    Row {
        state: AccountState::Suspended,
        manages: false,
        trades: false,
        then: &[
            AccountState::Pending,
            AccountState::Active,
            AccountState::Rejected,
            AccountState::Closed,
        ],
    },
    Row {
        state: AccountState::Rejected,
        manages: false,
        trades: false,
        then: &[AccountState::Closed],
    },
    Row {
        state: AccountState::Closed,
        manages: false,
        trades: false,
        then: &[],
    },
];

/// The row of a state; none for a number that is no state.
fn row(state: i64) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.state as i64 == state)
}

/// The name of a state on the wire, without its prefix.
#[must_use]
pub fn name(state: i64) -> &'static str {
    row(state).map_or("UNKNOWN", |row| {
        row.state.as_str_name().trim_start_matches("ACCOUNT_STATE_")
    })
}

/// Whether an act works in a state. Absence of a state never means yes.
#[must_use]
pub fn allows(state: i64, act: AccountAct) -> bool {
    match act {
        AccountAct::Unspecified => false,
        AccountAct::Always => true,
        AccountAct::Manage => row(state).is_some_and(|row| row.manages),
        AccountAct::Trade => row(state).is_some_and(|row| row.trades),
    }
}

/// Refuses a state that doesn't follow on another one.
///
/// # Errors
/// `WRONG_STATE`.
pub fn check_transition(from: i64, to: AccountState) -> Result<()> {
    if row(from).is_some_and(|row| row.then.contains(&to)) {
        Ok(())
    } else {
        Err(wrong_state(from))
    }
}

/// The states of an account that is over for good: nobody is tied to it any more, and nobody has to run it.
pub const OVER: [AccountState; 2] = [AccountState::Rejected, AccountState::Closed];

/// Whether an account is over for good.
///
/// # Errors
/// Those of the database.
pub async fn is_over<C: ConnectionTrait>(db: &C, account: Uuid) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM accounts WHERE id = $1 AND state IN ($2, $3)";
    let [rejected, closed] = OVER.map(|state| state as i64);
    let values: [Value; 3] = [account.into(), rejected.into(), closed.into()];
    Ok(sql::row(db, sql, values).await?.is_some())
}

/// The refusal of what a state doesn't allow.
#[must_use]
pub fn wrong_state(state: i64) -> Error {
    Error::precondition(Reason::WrongState).with("state", name(state))
}

/// What a rule demands of an account.
#[derive(Clone, Debug)]
pub struct Demanded {
    /// What the call is to it; none for reads.
    pub act: Option<AccountAct>,
    /// The programme that it must be in.
    pub program: Option<Program>,
    /// The agreements that must not be overdue.
    pub agreements: Vec<AgreementKind>,
    /// The function has it demanded.
    pub late: bool,
}

impl Demanded {
    /// What is declared.
    pub(super) fn of(declared: &AccountDemand) -> Self {
        Self {
            act: Some(declared.act()).filter(|act| *act != AccountAct::Unspecified),
            program: Some(declared.program()).filter(|p| *p != Program::Unspecified),
            agreements: declared.agreements().collect(),
            late: declared.late,
        }
    }

    /// Holds it against an account that is proven. One that isn't there is the function's to miss.
    ///
    /// # Errors
    /// `WRONG_STATE`, `PROGRAM_NOT_ENROLLED`, `AGREEMENT_REQUIRED`; those of the database.
    pub async fn check<F: Facts>(&self, db: &F, account: Uuid, now: Micros) -> Result<()> {
        let always = matches!(self.act, None | Some(AccountAct::Always));
        if always && self.program.is_none() {
            return Ok(());
        }
        let Some(found) = *db.know(StandingOfAccount(account)).await? else {
            return Ok(());
        };
        if let Some(act) = self.act
            && !allows(found.state, act)
        {
            return Err(wrong_state(found.state));
        }
        if let Some(program) = self.program
            && found.programs & bit(program) == 0
        {
            let name = program.as_str_name().trim_start_matches("PROGRAM_");
            return Err(Error::precondition(Reason::ProgramNotEnrolled).with("program", name));
        }
        // A draft owes nothing yet: to accept is a requirement of submitting it.
        if found.state == AccountState::Draft as i64 {
            return Ok(());
        }
        for kind in &self.agreements {
            if let Some(version) = overdue(db, ScopeKey::Account(account), *kind, now).await? {
                return Err(Error::precondition(Reason::AgreementRequired)
                    .with("agreement", agreement_name(*kind))
                    .with("version", version.number.to_string()));
            }
        }
        Ok(())
    }
}

/// The bit of a programme in the database.
#[must_use]
pub fn bit(program: Program) -> i64 {
    1 << program as i64
}

/// The name of an agreement on the wire, without its prefix.
#[must_use]
pub fn agreement_name(kind: AgreementKind) -> &'static str {
    kind.as_str_name().trim_start_matches("AGREEMENT_KIND_")
}

/// The fact of how an account stands; none if there is none.
#[derive(Clone, Copy, Debug)]
struct StandingOfAccount(Uuid);

#[derive(Clone, Copy, Debug, FromQueryResult)]
struct StandingRow {
    state: i64,
    programs: i64,
}

impl Fact for StandingOfAccount {
    type Value = Option<StandingRow>;

    fn key(&self) -> [Uuid; 4] {
        [self.0, Uuid::nil(), Uuid::nil(), Uuid::nil()]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<Self::Value>> {
        let sql = "SELECT state, programs FROM accounts WHERE id = $1";
        let value = sql::one::<StandingRow, _>(db, sql, [self.0.into()]).await?;
        Ok(Found {
            // New accounts tell nothing.
            keep: value.is_some(),
            value,
            deps: vec![self.0],
            bytes: 0,
        })
    }
}

/// The key that changes of agreements are told by.
const AGREEMENTS: Uuid = Uuid::from_u128(0xA63E);
/// Versions of one agreement with a date that are remembered; the latest ones, since accepting one accepts those before it.
const MOST_DATED: u64 = 100;

/// The fact of the versions of an agreement that have to be accepted by a date: numbers and dates, the latest first.
#[derive(Clone, Copy, Debug)]
struct DatedVersions(AgreementKind);

#[derive(Clone, Copy, Debug, FromQueryResult)]
struct Dated {
    number: i64,
    accept_by_time: i64,
}

impl Fact for DatedVersions {
    type Value = Vec<Dated>;

    fn key(&self) -> [Uuid; 4] {
        let kind = Uuid::from_u128(self.0 as u128);
        [AGREEMENTS, kind, Uuid::nil(), Uuid::nil()]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<Self::Value>> {
        let sql = format!(
            "SELECT number, accept_by_time FROM agreements WHERE kind = $1 AND withdraw_time IS NULL AND accept_by_time IS NOT NULL \
             ORDER BY number DESC LIMIT {MOST_DATED}"
        );
        let value = sql::all::<Dated, _>(db, sql, [(self.0 as i64).into()]).await?;
        Ok(Found {
            keep: true,
            deps: vec![AGREEMENTS],
            bytes: value.capacity() * size_of::<Dated>(),
            value,
        })
    }
}

/// The fact of the latest version of an agreement that an account or a tenant accepted; none if it never did.
#[derive(Clone, Copy, Debug)]
struct AcceptedUpTo(ScopeKey, AgreementKind);

impl Fact for AcceptedUpTo {
    type Value = Option<i64>;

    fn key(&self) -> [Uuid; 4] {
        let (scope, kind) = (self.0, Uuid::from_u128(self.1 as u128));
        let of = Uuid::from_u128(u128::from(scope.kind().unsigned_abs()));
        [scope.id(), kind, of, AGREEMENTS]
    }

    async fn load<C: ConnectionTrait>(&self, db: &C) -> Result<Found<Self::Value>> {
        let sql = "SELECT MAX(number) AS number FROM acceptances WHERE scope_kind = $1 AND scope_id = $2 AND kind = $3";
        let values: [Value; 3] = [
            self.0.kind().into(),
            self.0.id().into(),
            (self.1 as i64).into(),
        ];
        let value = match sql::row(db, sql, values).await? {
            Some(row) => row.try_get("", "number")?,
            None => None,
        };
        Ok(Found {
            // New acceptances are told, so that there is none is remembered too.
            keep: true,
            value,
            deps: vec![self.0.id()],
            bytes: 0,
        })
    }
}

/// A version of an agreement whose date is past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Its number.
    pub number: i64,
    /// The date.
    pub since: Micros,
}

/// The version of an agreement whose date is past, and that the account or tenant hasn't accepted, nor a later one.
///
/// # Errors
/// Those of the database.
pub async fn overdue<F: Facts>(
    db: &F,
    scope: ScopeKey,
    kind: AgreementKind,
    now: Micros,
) -> Result<Option<Overdue>> {
    let dated = db.know(DatedVersions(kind)).await?;
    let Some(due) = dated.iter().find(|v| v.accept_by_time <= now) else {
        return Ok(None);
    };
    let accepted = *db.know(AcceptedUpTo(scope, kind)).await?;
    Ok(if accepted.is_some_and(|n| n >= due.number) {
        None
    } else {
        Some(Overdue {
            number: due.number,
            since: due.accept_by_time,
        })
    })
}

/// By when somebody who accepted an agreement up to a version has to accept a later one, up to the current one: the first date of those.
///
/// # Errors
/// Those of the database.
pub async fn deadline<C: ConnectionTrait>(
    db: &C,
    kind: AgreementKind,
    accepted: Option<i64>,
    current: i64,
) -> Result<Option<Micros>> {
    let sql = "SELECT MIN(accept_by_time) AS at FROM agreements WHERE kind = $1 AND number > $2 AND number <= $3 AND withdraw_time IS NULL";
    let values: [Value; 3] = [
        (kind as i64).into(),
        accepted.unwrap_or(-1).into(),
        current.into(),
    ];
    match sql::row(db, sql, values).await? {
        Some(row) => Ok(row.try_get("", "at")?),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sea_orm::{ConnectOptions, Database};

    use super::*;

    const ALL: [AccountState; 6] = [
        AccountState::Draft,
        AccountState::Pending,
        AccountState::Active,
        AccountState::Suspended,
        AccountState::Rejected,
        AccountState::Closed,
    ];

    // proves ACC-13
    #[test]
    fn states_allow_what_the_rules_say() {
        // Draft, pending, active, suspended, rejected, closed.
        for (act, works) in [
            (AccountAct::Always, "yyyyyy"),
            (AccountAct::Manage, "yyynnn"),
            (AccountAct::Trade, "nnynnn"),
            (AccountAct::Unspecified, "nnnnnn"),
        ] {
            let told: String = ALL
                .iter()
                .map(|s| if allows(*s as i64, act) { 'y' } else { 'n' })
                .collect();
            assert_eq!(told, works, "{act:?}");
        }
        assert!(!allows(99, AccountAct::Manage) && !allows(0, AccountAct::Trade));
    }

    // proves ACC-13
    #[test]
    fn states_follow_on_each_other_as_the_rules_say() {
        for (from, to) in [
            (AccountState::Draft, "nynnnn"),
            (AccountState::Pending, "ynyyyy"),
            (AccountState::Active, "nnnyyy"),
            (AccountState::Suspended, "nyynyy"),
            (AccountState::Rejected, "nnnnny"),
            (AccountState::Closed, "nnnnnn"),
        ] {
            let told: String = ALL
                .iter()
                .map(|s| match check_transition(from as i64, *s) {
                    Ok(()) => 'y',
                    Err(_) => 'n',
                })
                .collect();
            assert_eq!(told, to, "{from:?}");
        }
        assert!(check_transition(99, AccountState::Active).is_err());
    }

    // proves AGR-5
    #[tokio::test]
    async fn of_the_versions_that_are_still_to_be_accepted_the_first_date_counts() {
        let mut options = ConnectOptions::new("sqlite::memory:");
        // A second connection would have a memory of its own.
        options.max_connections(1);
        let db = Database::connect(options).await.unwrap();
        let table = "CREATE TABLE agreements (kind bigint, number bigint, accept_by_time bigint, withdraw_time bigint)";
        db.execute_unprepared(table).await.unwrap();
        // The fifth was withdrawn; the last one is of another kind.
        let rows = "INSERT INTO agreements VALUES (2, 1, 100, NULL), (2, 2, NULL, NULL), (2, 3, 300, NULL), (2, 4, 200, NULL), \
                    (2, 5, 50, 7), (1, 1, 9, NULL)";
        db.execute_unprepared(rows).await.unwrap();
        for (accepted, current, date) in [
            (None, 5, Some(100)),
            (Some(1), 5, Some(200)),
            (Some(1), 3, Some(300)),
            (Some(1), 2, None),
            (Some(4), 5, None),
        ] {
            let found = deadline(&db, AgreementKind::Publisher, accepted, current).await;
            assert_eq!(found.unwrap(), date, "{accepted:?}, {current}");
        }
    }

    #[test]
    fn facts_of_other_accounts_and_agreements_are_other_facts() {
        let [one, other] = [1, 2].map(Uuid::from_u128);
        assert_ne!(StandingOfAccount(one).key(), StandingOfAccount(other).key());
        let [publisher, network] = [AgreementKind::Publisher, AgreementKind::PartnerNetwork];
        assert_ne!(DatedVersions(publisher).key(), DatedVersions(network).key());
        let accepted = BTreeSet::from([
            AcceptedUpTo(ScopeKey::Account(one), publisher).key(),
            AcceptedUpTo(ScopeKey::Account(one), network).key(),
            AcceptedUpTo(ScopeKey::Account(other), publisher).key(),
            AcceptedUpTo(ScopeKey::Tenant(one), publisher).key(),
        ]);
        assert_eq!(accepted.len(), 4);
    }
}
