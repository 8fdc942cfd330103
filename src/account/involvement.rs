//! Who may not handle what concerns a company (VER-6): reviewers who are, or were within 12 months, its members, guests, owners or contacts:
//! as users, by the person behind a guest, or by an address. Decided here, for all kinds of reviews.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, Value};
use uuid::Uuid;

use super::{
    entity::account::{Column, Entity},
    profile::Profile,
};
use crate::{
    access::roles::{OPERATOR_ROLES, Permission},
    app::{App, Tx},
    directory::wire::domain,
    env::{DAY_US, Micros},
    error::Result,
    store::{list::fold, sql},
};

/// Ties count for so long after they ended.
pub(crate) const COUNT_US: Micros = 365 * DAY_US;
/// Reviewers who are considered; an operator with more has enough of them.
const MOST_REVIEWERS: i64 = 500;
/// Ties dated in one transaction.
const DATED_A_TURN: i64 = 500;

/// A reviewer, with all that a company may know it by.
#[derive(Clone, Debug)]
pub(super) struct Reviewer {
    /// The user.
    pub id: Uuid,
    emails: BTreeSet<String>,
}

#[derive(FromQueryResult)]
struct Row {
    id: Uuid,
    user_name_fold: String,
    recovery_email: String,
    domain_prefix: String,
}

const COLUMNS: &str = "SELECT u.id, u.user_name_fold, u.recovery_email, t.domain_prefix";

impl Reviewer {
    fn of(app: &App, row: Row) -> Self {
        let sign_in = format!("{}@{}", row.user_name_fold, domain(app, &row.domain_prefix));
        let emails = [fold(&row.recovery_email), fold(&sign_in)];
        Self {
            id: row.id,
            emails: emails.into_iter().filter(|e| !e.is_empty()).collect(),
        }
    }

    /// A user, whether it is a reviewer or not.
    pub async fn by_id<C: ConnectionTrait>(db: &C, app: &App, id: Uuid) -> Result<Option<Self>> {
        let sql =
            format!("{COLUMNS} FROM users u JOIN tenants t ON t.id = u.tenant_id WHERE u.id = $1");
        let row = sql::one::<Row, _>(db, sql, [id.into()]).await?;
        Ok(row.map(|row| Self::of(app, row)))
    }

    /// All who may handle reviews and can act.
    pub async fn all<C: ConnectionTrait>(db: &C, app: &App) -> Result<Vec<Self>> {
        let roles = OPERATOR_ROLES
            .iter()
            .filter(|role| role.permissions.has(Permission::ReviewsHandle))
            .fold(0, |bits, role| bits | role.bit());
        let sql = format!(
            "{COLUMNS} FROM grants g JOIN active_people p ON p.id = g.principal_id JOIN users u ON u.id = p.id \
             JOIN tenants t ON t.id = u.tenant_id WHERE g.scope_kind = 0 AND (g.roles & $1) <> 0 ORDER BY u.id LIMIT $2"
        );
        let values: [Value; 2] = [roles.into(), MOST_REVIEWERS.into()];
        let rows = sql::all::<Row, _>(db, sql, values).await?;
        Ok(rows.into_iter().map(|row| Self::of(app, row)).collect())
    }
}

#[derive(FromQueryResult)]
struct Known {
    id: Uuid,
    user_name_fold: String,
}

#[derive(FromQueryResult)]
struct Tie {
    account_id: Uuid,
    reviewer: Uuid,
}

const PERSON: &[(&str, sql::Type)] = &[("r", sql::Type::Id), ("p", sql::Type::Id)];
const EMAIL: &[(&str, sql::Type)] = &[("r", sql::Type::Id), ("e", sql::Type::Text)];

/// Which of these reviewers are tied to which of these accounts, or were lately: account and reviewer. A fixed number of statements.
pub(super) async fn involved<C: ConnectionTrait>(
    db: &C,
    accounts: &[Uuid],
    reviewers: &[Reviewer],
    now: Micros,
) -> Result<BTreeSet<(Uuid, Uuid)>> {
    let mut found = BTreeSet::new();
    if accounts.is_empty() || reviewers.is_empty() {
        return Ok(found);
    }
    // A personal identity with a reviewer's address is taken for the same person.
    let all_emails = reviewers.iter().flat_map(|r| r.emails.iter());
    let sql = format!(
        "SELECT id, user_name_fold FROM users WHERE tenant_id = $1 AND state <> 3 AND user_name_fold IN ({})",
        sql::in_texts(db, 2)
    );
    let values: [Value; 2] = [
        Uuid::nil().into(),
        sql::texts(all_emails.map(String::as_str)),
    ];
    let identities = sql::all::<Known, _>(db, sql, values).await?;
    let (mut persons, mut emails) = (Vec::new(), Vec::new());
    for reviewer in reviewers {
        persons.push(vec![sql::id(reviewer.id), sql::id(reviewer.id)]);
        for identity in &identities {
            if reviewer.emails.contains(&identity.user_name_fold) {
                persons.push(vec![sql::id(reviewer.id), sql::id(identity.id)]);
            }
        }
        for email in &reviewer.emails {
            emails.push(vec![sql::id(reviewer.id), email.as_str().into()]);
        }
    }
    let values: [Value; 4] = [
        sql::ids(accounts),
        sql::table(persons),
        sql::table(emails),
        (now - COUNT_US).into(),
    ];
    let ties = sql::all::<Tie, _>(db, ties(db), values).await?;
    found.extend(ties.into_iter().map(|t| (t.account_id, t.reviewer)));
    let rows = Entity::find()
        .filter(sea_orm::ColumnTrait::is_in(
            &Column::Id,
            accounts.iter().copied(),
        ))
        .all(db)
        .await?;
    for row in rows {
        let contacts = contacts(&Profile::from_stored(&row.profile));
        for reviewer in reviewers {
            if !reviewer.emails.is_disjoint(&contacts) {
                found.insert((row.id, reviewer.id));
            }
        }
    }
    Ok(found)
}

/// The statement that finds ties by users and addresses: of members, also by groups; of guests of the company's tenants; of those who were; of
/// contacts before, and of the membership of the network.
fn ties<C: ConnectionTrait>(db: &C) -> String {
    let (accounts, x, y) = (
        sql::in_ids(db, 1),
        sql::rows(db, 2, PERSON),
        sql::rows(db, 3, EMAIL),
    );
    let members = format!(
        "SELECT scope_id AS account_id, principal_id FROM grants WHERE scope_kind = 2 AND scope_id IN ({accounts}) \
         UNION ALL SELECT scope_id AS account_id, user_id AS principal_id FROM group_rights WHERE scope_kind = 2 AND scope_id IN ({accounts})"
    );
    let places = format!(
        "SELECT a.id AS account_id, 2 AS k, a.id AS i FROM accounts a WHERE a.id IN ({accounts}) \
         UNION ALL SELECT s.account_id, 1 AS k, s.tenant_id AS i FROM associations s WHERE s.account_id IN ({accounts})"
    );
    format!(
        "SELECT g.account_id, x.r AS reviewer FROM ({members}) g JOIN users u ON u.id = g.principal_id \
         JOIN ({x}) x ON x.p = COALESCE(u.home_id, u.id) \
         UNION SELECT g.account_id, y.r FROM ({members}) g JOIN users u ON u.id = g.principal_id \
         JOIN ({y}) y ON y.e = lower(u.recovery_email) OR (u.kind <> 1 AND y.e = u.user_name_fold) \
         UNION SELECT s.account_id, x.r FROM ({x}) x JOIN users u ON u.home_id = x.p AND u.state <> 3 \
         JOIN associations s ON s.tenant_id = u.tenant_id AND s.account_id IN ({accounts}) \
         UNION SELECT s.account_id, y.r FROM associations s CROSS JOIN ({y}) y \
         JOIN users u ON u.tenant_id = s.tenant_id AND u.user_name_fold = y.e AND u.state <> 3 WHERE s.account_id IN ({accounts}) \
         UNION SELECT s.account_id, x.r FROM ({places}) s JOIN former_ties f ON f.scope_kind = s.k AND f.scope_id = s.i \
         AND (f.end_time IS NULL OR f.end_time > $4) JOIN ({x}) x ON x.p = f.person_id \
         UNION SELECT s.account_id, y.r FROM ({places}) s JOIN former_ties f ON f.scope_kind = s.k AND f.scope_id = s.i \
         AND (f.end_time IS NULL OR f.end_time > $4) JOIN ({y}) y ON y.e = f.email OR y.e = f.recovery_email \
         UNION SELECT c.account_id, y.r FROM former_contacts c JOIN ({y}) y ON y.e = c.email \
         WHERE c.account_id IN ({accounts}) AND c.end_time > $4 \
         UNION SELECT n.account_id, y.r FROM network_memberships n JOIN ({y}) y ON y.e = lower(n.contact_email) WHERE n.account_id IN ({accounts})"
    )
}

/// The addresses of a company's contacts.
fn contacts(profile: &Profile) -> BTreeSet<String> {
    let seller = profile.seller_contact.as_ref();
    [
        profile.primary_contact.as_ref(),
        seller.and_then(|s| s.contact.as_ref()),
        profile.company_approver.as_ref(),
    ]
    .into_iter()
    .flatten()
    .map(|person| fold(&person.email))
    .collect()
}

/// Remembers the contacts that an account has no more.
pub(super) async fn contacts_left(
    tx: &mut Tx,
    account: Uuid,
    old: &Profile,
    new: &Profile,
) -> Result<()> {
    for email in contacts(old).difference(&contacts(new)) {
        let sql = "INSERT INTO former_contacts (account_id, email, end_time) VALUES ($1, $2, $3) \
                   ON CONFLICT (account_id, email) DO UPDATE SET end_time = excluded.end_time";
        let values: [Value; 3] = [account.into(), email.as_str().into(), tx.now().into()];
        sql::execute(tx.db(), sql, values).await?;
    }
    Ok(())
}

/// Says when ties ended that triggers noted without a time.
///
/// # Errors
/// Those of the database.
pub(crate) async fn date_former_ties(tx: &mut Tx) -> Result<u64> {
    let sql = "UPDATE former_ties SET end_time = $1 WHERE (scope_kind, scope_id, user_id) IN \
               (SELECT scope_kind, scope_id, user_id FROM former_ties WHERE end_time IS NULL LIMIT $2)";
    let values: [Value; 2] = [tx.now().into(), DATED_A_TURN.into()];
    Ok(sql::execute(tx.db(), sql, values).await?.rows_affected())
}
