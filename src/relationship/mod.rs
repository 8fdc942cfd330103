//! Relationships between partners' accounts and customers' tenants, and what customers lend by them (REL).
//!
//! Nouns and states. A relationship is of an account, and of a tenant once that accepted. A draft is sent; the customer accepts or declines, or
//! time ends the request; the partner takes it back before; what was accepted is ended by either side, by time, or with the account. `TABLE` has
//! all that follows on each state. An assignment has no states: it is there, or not.
//!
//! Invariants. A request that was sent is never changed. Only the tenant that is addressed answers, and lends no more than was asked for, for no
//! longer. What is lent is `access/grants/lent.rs`'s, which is told of each beginning and end in the same transaction: what is `ACTIVE` here has its
//! row there, and nothing else has. Both scopes are locked whenever a customer's relationship changes. The mail identifies the request and gives no
//! rights; sending does the same whoever is asked, and a job finds out who that is. `relationship_counts` has how many of an account's haven't ended.
//!
//! `request.rs` is the partner's side until it is answered, `request_mail.rs` the mail of it, `answer.rs` the customer's side, `ending.rs` what ends it,
//! also time; `assignment.rs` to whom of the partner's people it goes on; `look.rs` who is shown what.

mod answer;
mod assignment;
pub(crate) mod delegated_admin;
mod ending;
mod entity;
mod look;
mod request;
mod request_mail;
mod wire;

pub use self::{
    answer::{accept_relationship, decline_relationship, remove_relationship_roles},
    assignment::{list_relationship_assignments, set_relationship_assignment},
    ending::terminate_relationship,
    look::{get_relationship, get_relationship_losses, list_relationships},
    request::{cancel_relationship, create_relationship, send_relationship, update_relationship},
};
pub(crate) use self::{
    assignment::check_set_relationship_assignment,
    ending::{ASIDE, NEEDED, date_those_of_ended_accounts, end_due},
    look::check_list_relationships,
    request::{check_create_relationship, check_update_relationship},
    request_mail::{MAIL_ASIDE, MAIL_NEEDED, mail_requests},
};

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
};
use uuid::Uuid;

use self::entity::relationship::{Column, Entity, Model};
use crate::{
    app::Tx,
    error::{Error, Reason, Result},
    names::Name,
    proto::relationship::{RelationshipKind, RelationshipState as State},
    store::{outbox::Event, scope_key::ScopeKey, sql},
};

/// All states, and what may follow on each.
const TABLE: &[(State, &[State])] = &[
    (State::Draft, &[State::Pending, State::Cancelled]),
    (
        State::Pending,
        &[
            State::Active,
            State::Declined,
            State::Cancelled,
            State::Expired,
        ],
    ),
    (State::Active, &[State::Expired, State::Terminated]),
    (State::Declined, &[]),
    (State::Cancelled, &[]),
    (State::Expired, &[]),
    (State::Terminated, &[]),
];

/// What callers call them.
const STATES: &[(&str, i64)] = &[
    ("DRAFT", State::Draft as i64),
    ("PENDING", State::Pending as i64),
    ("ACTIVE", State::Active as i64),
    ("DECLINED", State::Declined as i64),
    ("CANCELLED", State::Cancelled as i64),
    ("EXPIRED", State::Expired as i64),
    ("TERMINATED", State::Terminated as i64),
];

const KINDS: &[(&str, i64)] = &[
    ("DELEGATED_ADMIN", RelationshipKind::DelegatedAdmin as i64),
    ("ADVISOR", RelationshipKind::Advisor as i64),
];

const RELATIONSHIP: &str = "entente.dev/Relationship";

impl Model {
    fn name(&self) -> Name {
        Name::Relationship(self.account_id, self.id)
    }

    fn is_in(&self, state: State) -> bool {
        self.state == state as i64
    }

    /// The scopes that it lies in: the account's, and the customer's once it has one.
    fn scopes(&self) -> impl Iterator<Item = ScopeKey> {
        std::iter::once(ScopeKey::Account(self.account_id))
            .chain(self.tenant_id.map(ScopeKey::Tenant))
    }

    /// Whether it counts against what an account may have.
    fn is_open(&self) -> bool {
        [State::Draft, State::Pending, State::Active]
            .iter()
            .any(|state| self.is_in(*state))
    }

    /// Until when time lets it be: the customer's answer, or the end of the term. `due_time` is only when the job looks at it.
    fn until(&self) -> Option<i64> {
        if self.is_in(State::Pending) {
            self.answer_expire_time
        } else if self.is_in(State::Active) {
            self.end_time
        } else {
            None
        }
    }

    /// Whether time has ended it, though no job may have said so yet.
    fn is_overdue(&self, now: i64) -> bool {
        self.until().is_some_and(|at| at <= now)
    }

    /// Refuses what time has ended.
    fn check_not_overdue(&self, now: i64) -> Result<()> {
        if self.is_overdue(now) {
            Err(wrong_state(State::Expired as i64))
        } else {
            Ok(())
        }
    }
}

fn missing(name: &str) -> Error {
    Error::not_found(RELATIONSHIP, name)
}

fn wrong_state(state: i64) -> Error {
    let name = STATES.iter().find(|(_, number)| *number == state);
    Error::precondition(Reason::WrongState).with("state", name.map_or("", |(name, _)| *name))
}

/// Refuses a state that doesn't follow on another one.
fn check_transition(from: i64, to: State) -> Result<()> {
    let row = TABLE.iter().find(|(state, _)| *state as i64 == from);
    if row.is_some_and(|(_, then)| then.contains(&to)) {
        Ok(())
    } else {
        Err(wrong_state(from))
    }
}

/// A relationship by its name.
async fn find<C: ConnectionTrait>(db: &C, name: &str) -> Result<Option<Model>> {
    let Some(Name::Relationship(account, id)) = Name::parse(name) else {
        return Ok(None);
    };
    Ok(Entity::find_by_id(id)
        .filter(Column::AccountId.eq(account))
        .one(db)
        .await?)
}

/// A relationship of an account that is proven, by its name.
async fn of_account<C: ConnectionTrait>(db: &C, account: Uuid, name: &str) -> Result<Model> {
    let row = find(db, name).await?;
    row.filter(|row| row.account_id == account)
        .ok_or_else(|| missing(name))
}

/// Brings a relationship into another state, and tells.
async fn go_to(
    tx: &mut Tx,
    old: &Model,
    to: State,
    event: &'static str,
    more: impl FnOnce(&mut Model),
) -> Result<Model> {
    check_transition(old.state, to)?;
    change(tx, old, event, |row| {
        row.state = to as i64;
        more(row);
    })
    .await
}

/// How a change is told: in the account, in the customer's tenant once it has one, and in one more scope.
struct Told {
    event: &'static str,
    also_in: Option<ScopeKey>,
}

impl From<&'static str> for Told {
    fn from(event: &'static str) -> Self {
        Self {
            event,
            also_in: None,
        }
    }
}

/// Changes a relationship, and tells.
async fn change(
    tx: &mut Tx,
    old: &Model,
    told: impl Into<Told>,
    more: impl FnOnce(&mut Model),
) -> Result<Model> {
    let mut row = old.clone();
    more(&mut row);
    row.update_time = tx.now();
    row.version += 1;
    row.clone()
        .into_active_model()
        .reset_all()
        .update(tx.db())
        .await?;
    if old.is_open() && !row.is_open() {
        let sql =
            "UPDATE relationship_counts SET open_count = open_count - 1 WHERE account_id = $1";
        sql::execute(tx.db(), sql, [row.account_id.into()]).await?;
    }
    let Told { event, also_in } = told.into();
    let mut event = Event::new(event, row.name());
    for scope in row.scopes().chain(also_in) {
        event = event.also_in(scope);
    }
    for ((field, was), (_, is)) in wire::told(old).into_iter().zip(wire::told(&row)) {
        event = event.change(field, was, is);
    }
    tx.emit(event);
    Ok(row)
}

/// What the partner calls itself.
async fn publisher<C: ConnectionTrait>(db: &C, account: Uuid) -> Result<String> {
    let sql = "SELECT publisher_display_name FROM accounts WHERE id = $1";
    Ok(match sql::row(db, sql, [account.into()]).await? {
        Some(row) => row.try_get("", "publisher_display_name")?,
        None => String::new(),
    })
}

/// The page of the portal that shows a relationship, as mails name it: the name says which one it is, and opens nothing.
fn link(tx: &Tx, row: &Model) -> String {
    format!(
        "{}/relationships#{}",
        tx.app().config.public_origin,
        row.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves REL-7
    #[test]
    fn states_follow_on_each_other_as_the_rules_say() {
        const ALL: [State; 7] = [
            State::Draft,
            State::Pending,
            State::Active,
            State::Declined,
            State::Cancelled,
            State::Expired,
            State::Terminated,
        ];
        for (from, to) in ALL.iter().zip([
            "nynnynn", "nnyyyyn", "nnnnnyy", "nnnnnnn", "nnnnnnn", "nnnnnnn", "nnnnnnn",
        ]) {
            let told: String = ALL
                .iter()
                .map(|s| match check_transition(*from as i64, *s) {
                    Ok(()) => 'y',
                    Err(_) => 'n',
                })
                .collect();
            assert_eq!(told, to, "{from:?}");
        }
        assert!(check_transition(99, State::Active).is_err());
        assert_eq!((TABLE.len(), STATES.len()), (ALL.len(), ALL.len()));
    }
}
