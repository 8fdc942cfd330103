//! Who may not handle what concerns a company (VER-6): reviewers who are, or were within 12 months, its members, guests, owners or contacts:
//! as users, by the person behind a guest, or by an address that they have or had. Decided here, for all kinds of reviews. Where a side has named
//! no account, as a claim on a name may, it is its tenant or the person, with all accounts that are theirs.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, Value};
use uuid::Uuid;

use super::{
    entity::account::{Column, Entity, Model},
    profile::Profile,
};
use crate::{
    access::{
        grants::OWNER,
        roles::{OPERATOR_ROLES, Permission},
    },
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
/// Accounts of tenants and people that are looked at in one go.
const BEHIND_AT_ONCE: usize = 2_000;
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

/// What a reviewer was called, or had as its recovery address, before.
#[derive(FromQueryResult)]
struct Former {
    user_id: Uuid,
    user_name_fold: String,
    recovery_email: String,
}

const COLUMNS: &str = "SELECT u.id, u.user_name_fold, u.recovery_email, t.domain_prefix";

impl Reviewer {
    /// Reviewers by their rows, with what they are called and were called lately.
    async fn of<C: ConnectionTrait>(
        db: &C,
        app: &App,
        rows: &[Row],
        now: Micros,
    ) -> Result<Vec<Self>> {
        let domains = Self::domains(db, app).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let sql = format!(
            "SELECT user_id, user_name_fold, recovery_email FROM former_addresses WHERE user_id IN ({}) AND (end_time IS NULL OR end_time > $2)",
            sql::in_ids(db, 1)
        );
        let values: [Value; 2] = [sql::ids(&ids), (now - COUNT_US).into()];
        let former = sql::all::<Former, _>(db, sql, values).await?;
        let reviewer = |row: &Row| {
            let own = domain(app, &row.domain_prefix);
            let former = former.iter().filter(|f| f.user_id == row.id);
            let mut emails = BTreeSet::new();
            for (name, recovery) in former
                .map(|f| (&f.user_name_fold, &f.recovery_email))
                .chain([(&row.user_name_fold, &row.recovery_email)])
            {
                let at = |domain: &String| fold(&format!("{name}@{domain}"));
                emails.extend(domains.iter().chain([&own]).map(at));
                emails.insert(fold(recovery));
            }
            emails.remove("");
            Self { id: row.id, emails }
        };
        Ok(rows.iter().map(reviewer).collect())
    }

    /// The domains that the operator has verified: its people have addresses there.
    async fn domains<C: ConnectionTrait>(db: &C, app: &App) -> Result<Vec<String>> {
        let sql = "SELECT domain_name FROM domains WHERE tenant_id = $1 AND state = 2";
        let mut found = Vec::new();
        for row in sql::rows_of(db, sql, [app.operator_tenant().into()]).await? {
            found.push(row.try_get("", "domain_name")?);
        }
        Ok(found)
    }

    /// A user, whether it is a reviewer or not.
    pub async fn by_id<C: ConnectionTrait>(
        db: &C,
        app: &App,
        id: Uuid,
        now: Micros,
    ) -> Result<Option<Self>> {
        let sql =
            format!("{COLUMNS} FROM users u JOIN tenants t ON t.id = u.tenant_id WHERE u.id = $1");
        let rows = sql::all::<Row, _>(db, sql, [id.into()]).await?;
        Ok(Self::of(db, app, &rows, now).await?.pop())
    }

    /// All who may handle reviews and can act.
    pub async fn all<C: ConnectionTrait>(db: &C, app: &App, now: Micros) -> Result<Vec<Self>> {
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
        Self::of(db, app, &rows, now).await
    }
}

#[derive(FromQueryResult)]
struct Tie {
    account_id: Uuid,
    reviewer: Uuid,
    /// When it ended; none if it lasts, or its end isn't dated yet.
    end_time: Option<Micros>,
    /// When the tenant in which it is, or was, ceased to be the company's; none as above.
    tenancy_end_time: Option<Micros>,
}

impl Tie {
    fn counts(&self, now: Micros) -> bool {
        let ends = [self.end_time, self.tenancy_end_time];
        ends.into_iter().flatten().all(|end| end > now - COUNT_US)
    }
}

const PERSON: &[(&str, sql::Type)] = &[("r", sql::Type::Id), ("p", sql::Type::Id)];
const EMAIL: &[(&str, sql::Type)] = &[("r", sql::Type::Id), ("e", sql::Type::Text)];

/// An account of a side that is none itself.
#[derive(FromQueryResult)]
struct Behind {
    side: Uuid,
    account_id: Uuid,
}

/// The accounts of tenants and of personal identities, after the one that was told last: which the tenant is associated with, or was lately, and
/// which the identity owns, or lately had something on.
async fn behind<C: ConnectionTrait>(
    db: &C,
    sides: &[Uuid],
    after: Option<&Behind>,
    now: Micros,
) -> Result<Vec<Behind>> {
    let these = sql::in_ids(db, 1);
    let sql = format!(
        "SELECT side, account_id FROM ( \
           SELECT tenant_id AS side, account_id FROM associations WHERE tenant_id IN ({these}) \
           UNION SELECT tenant_id, account_id FROM former_tenants WHERE tenant_id IN ({these}) AND (end_time IS NULL OR end_time > $2) \
           UNION SELECT principal_id, scope_id FROM grants WHERE principal_id IN ({these}) AND scope_kind = 2 AND (roles & $3) <> 0 \
           UNION SELECT person_id, scope_id FROM former_ties \
           WHERE person_id IN ({these}) AND user_id = person_id AND scope_kind = 2 AND (end_time IS NULL OR end_time > $2) \
         ) b WHERE (side, account_id) > ($4, $5) ORDER BY side, account_id LIMIT {BEHIND_AT_ONCE}"
    );
    let (side, account) = after.map_or((Uuid::nil(), Uuid::nil()), |b| (b.side, b.account_id));
    let values: [Value; 5] = [
        sql::ids(sides),
        (now - COUNT_US).into(),
        OWNER.into(),
        side.into(),
        account.into(),
    ];
    sql::all::<Behind, _>(db, sql, values).await
}

async fn companies<C: ConnectionTrait>(db: &C, ids: &[Uuid]) -> Result<Vec<Model>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(Entity::find()
        .filter(sea_orm::ColumnTrait::is_in(
            &Column::Id,
            ids.iter().copied(),
        ))
        .all(db)
        .await?)
}

/// Which of these reviewers are tied to which of these accounts, or were lately: account and reviewer. A tenant, or a personal identity, by its
/// ID, is taken for a company too, where somebody has named no account: with all accounts of theirs. Two statements for accounts, however many, and
/// three more for each 2,000 accounts of others.
pub(super) async fn involved<C: ConnectionTrait>(
    db: &C,
    sides: &[Uuid],
    reviewers: &[Reviewer],
    now: Micros,
) -> Result<BTreeSet<(Uuid, Uuid)>> {
    let mut found = BTreeSet::new();
    if sides.is_empty() || reviewers.is_empty() {
        return Ok(found);
    }
    let rows = companies(db, sides).await?;
    let seen: BTreeSet<Uuid> = rows.iter().map(|row| row.id).collect();
    let named: BTreeSet<Uuid> = sides.iter().copied().collect();
    let others: Vec<Uuid> = named.difference(&seen).copied().collect();
    let all: Vec<Uuid> = named.into_iter().collect();
    found.extend(tied(db, &all, &rows, reviewers, now).await?);
    let mut last: Option<Behind> = None;
    while !others.is_empty() {
        let theirs = behind(db, &others, last.as_ref(), now).await?;
        let more: BTreeSet<Uuid> = theirs.iter().map(|b| b.account_id).collect();
        let new: Vec<Uuid> = more.into_iter().collect();
        let rows = companies(db, &new).await?;
        for (account, reviewer) in tied(db, &new, &rows, reviewers, now).await? {
            // Told of the sides that were asked about, and of nothing else.
            let of = theirs.iter().filter(|b| b.account_id == account);
            found.extend(of.map(|b| (b.side, reviewer)));
        }
        if theirs.len() < BEHIND_AT_ONCE {
            break;
        }
        last = theirs.into_iter().next_back();
    }
    Ok(found)
}

/// The same of accounts, tenants and people, each for itself; `rows` are those of the accounts.
async fn tied<C: ConnectionTrait>(
    db: &C,
    accounts: &[Uuid],
    rows: &[Model],
    reviewers: &[Reviewer],
    now: Micros,
) -> Result<BTreeSet<(Uuid, Uuid)>> {
    let mut found = BTreeSet::new();
    let (mut persons, mut emails) = (Vec::new(), Vec::new());
    for reviewer in reviewers {
        persons.push(vec![sql::id(reviewer.id), sql::id(reviewer.id)]);
        for email in &reviewer.emails {
            emails.push(vec![sql::id(reviewer.id), email.as_str().into()]);
        }
    }
    let values: [Value; 3] = [sql::ids(accounts), sql::table(persons), sql::table(emails)];
    let ties = sql::all::<Tie, _>(db, ties(db), values).await?;
    let ties = ties.into_iter().filter(|tie| tie.counts(now));
    found.extend(ties.map(|tie| (tie.account_id, tie.reviewer)));
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
/// contacts before, of the membership of the network, and of whoever is to own it. It goes from the reviewers, who are few, to the accounts: a
/// company may have a hundred thousand members.
///
/// What several parts use is named, so that it is planned once: accounts `a`, persons `x`, addresses `y`, tenants `t`, users `c`, former ties
/// `f`. Ends are judged by the caller, so that no plan depends on a value, and PostgreSQL keeps one.
fn ties<C: ConnectionTrait>(db: &C) -> String {
    let (accounts, persons, emails) = (
        sql::in_ids(db, 1),
        sql::rows(db, 2, PERSON),
        sql::rows(db, 3, EMAIL),
    );
    let each = |table: &str, on: &str| each(db, table, on);
    let named = "u.user_name_fold = y.e AND u.kind <> 1";
    // A personal identity (kind 3) with a reviewer's address is taken for the same person.
    let given = format!(
        "a(id) AS MATERIALIZED ({accounts}), y(r, e) AS MATERIALIZED ({emails}), \
         x(r, p) AS MATERIALIZED ({persons} UNION SELECT y.r, u.id FROM y {})",
        each(
            "users u",
            &format!("{named} AND u.kind = 3 AND u.state <> 3")
        ),
    );
    // The tenants of accounts, and those that were theirs lately; a tenant is its own.
    let tenants = "t(account_id, tenant_id, end_time) AS MATERIALIZED ( \
         SELECT account_id, tenant_id, CAST(NULL AS bigint) FROM associations WHERE account_id IN (SELECT id FROM a) \
         UNION SELECT account_id, tenant_id, end_time FROM former_tenants WHERE account_id IN (SELECT id FROM a) \
         UNION SELECT id, id, NULL FROM tenants WHERE id IN (SELECT id FROM a))";
    let user = "u.id, u.tenant_id, u.kind, u.state";
    let users = format!(
        "c(r, id, tenant_id, kind, state) AS MATERIALIZED (SELECT x.r, {user} FROM x {} UNION SELECT x.r, {user} FROM x {} \
         UNION SELECT y.r, {user} FROM y {} UNION SELECT y.r, {user} FROM y {})",
        each("users u", "u.id = x.p"),
        each("users u", "u.home_id = x.p"),
        each(
            "users u",
            "lower(u.recovery_email) = y.e AND u.recovery_email <> ''"
        ),
        each("users u", named),
    );
    let tie = "o.scope_kind, o.scope_id";
    let former = format!(
        "f(scope_kind, scope_id, r, end_time) AS MATERIALIZED (SELECT {tie}, x.r, o.end_time FROM x {} \
         UNION SELECT {tie}, y.r, o.end_time FROM y {} UNION SELECT {tie}, y.r, o.end_time FROM y {})",
        each("former_ties o", "o.person_id = x.p"),
        each("former_ties o", "o.email = y.e AND o.email <> ''"),
        each(
            "former_ties o",
            "o.recovery_email = y.e AND o.recovery_email <> ''"
        ),
    );
    let on_accounts = "g.scope_kind = 2 AND g.scope_id IN (SELECT id FROM a)";
    format!(
        "WITH {given}, {tenants}, {users}, {former} \
         SELECT g.scope_id AS account_id, c.r AS reviewer, CAST(NULL AS bigint) AS end_time, CAST(NULL AS bigint) AS tenancy_end_time FROM c {held} \
         UNION SELECT g.scope_id, c.r, NULL, NULL FROM c {by_groups} \
         UNION SELECT t.account_id, c.r, NULL, t.end_time FROM c JOIN t ON t.tenant_id = c.tenant_id \
           WHERE c.state <> 3 AND (c.kind = 2 OR t.account_id = t.tenant_id) \
         UNION SELECT t.account_id, y.r, NULL, t.end_time FROM t CROSS JOIN y {there} \
         UNION SELECT a.id, f.r, f.end_time, NULL FROM f JOIN a ON a.id = f.scope_id WHERE f.scope_kind = 2 \
         UNION SELECT t.account_id, f.r, f.end_time, t.end_time FROM f JOIN t ON t.tenant_id = f.scope_id WHERE f.scope_kind = 1 \
         UNION SELECT o.account_id, y.r, o.end_time, NULL FROM former_contacts o JOIN y ON y.e = o.email WHERE o.account_id IN (SELECT id FROM a) \
         UNION SELECT o.account_id, y.r, NULL, NULL FROM ownerships o JOIN y ON y.e = o.email_fold \
           WHERE o.account_id IN (SELECT id FROM a) AND o.state <= 3 \
         UNION SELECT o.account_id, x.r, NULL, NULL FROM ownerships o JOIN x ON x.p = o.identity_id \
           WHERE o.account_id IN (SELECT id FROM a) AND o.state <= 3 \
         UNION SELECT n.account_id, y.r, NULL, NULL FROM network_memberships n JOIN y ON y.e = lower(n.contact_email) \
           WHERE n.account_id IN (SELECT id FROM a) \
         UNION SELECT x.p, x.r, NULL, NULL FROM x WHERE x.p IN (SELECT id FROM a)",
        held = each(
            "grants g",
            &format!("g.principal_id = c.id AND {on_accounts}")
        ),
        by_groups = each(
            "group_rights g",
            &format!("g.user_id = c.id AND {on_accounts}")
        ),
        there = each(
            "users u",
            "u.tenant_id = t.tenant_id AND u.user_name_fold = y.e AND u.state <> 3"
        ),
    )
}

/// Joins, to each row of what stands before, the rows of a table (with an alias of one letter) that an index finds. CROSS JOIN keeps SQLite to
/// this order. PostgreSQL takes addresses for those of thousands, and would read whole tables at once, or all members of a company; an offset
/// has it look row by row.
fn each<C: ConnectionTrait>(db: &C, table: &str, on: &str) -> String {
    if db.get_database_backend() == DbBackend::Postgres {
        let alias = table.rsplit(' ').next().unwrap_or(table);
        format!("CROSS JOIN LATERAL (SELECT {alias}.* FROM {table} WHERE {on} OFFSET 0) {alias}")
    } else {
        format!("CROSS JOIN {table} WHERE {on}")
    }
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
        contact_left(tx, account, email).await?;
    }
    Ok(())
}

/// Remembers a contact that an account has no more.
pub(super) async fn contact_left(tx: &mut Tx, account: Uuid, email: &str) -> Result<()> {
    let sql = "INSERT INTO former_contacts (account_id, email, end_time) VALUES ($1, $2, $3) \
               ON CONFLICT (account_id, email) DO UPDATE SET end_time = excluded.end_time";
    let values: [Value; 3] = [account.into(), fold(email).into(), tx.now().into()];
    sql::execute(tx.db(), sql, values).await?;
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
    let dated = sql::execute(tx.db(), sql, values).await?.rows_affected();
    let sql = "UPDATE former_tenants SET end_time = $1 WHERE end_time IS NULL";
    let tenants = sql::execute(tx.db(), sql, [tx.now().into()]).await?;
    let sql = "UPDATE former_addresses SET end_time = $1 WHERE end_time IS NULL";
    let addresses = sql::execute(tx.db(), sql, [tx.now().into()]).await?;
    Ok(dated + tenants.rows_affected() + addresses.rows_affected())
}
