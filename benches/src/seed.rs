//! What the cases read and write: tenants, accounts and a service made by calls; masses of users, groups and grants by SQL, while the server is
//! stopped, so that it reads them as its own.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use crate::{
    companies::{REVIEWS, import, late_reviews, memberships, queue, reviewer},
    ops::Memberships,
    site::{ADMINISTRATOR, PASSWORD, Rows, Server, Site, sign_in, sign_in_by_key},
    wire::{
        Token, Wire, by,
        directory::{
            Application, CreateApplicationRequest, CreateKeyRequest, CreateTenantRequest,
            CreateUserRequest, DirectoryRole, FirstAdmin, ListUsersRequest, Tenant, User,
            WhoAmIRequest, application_service_client::ApplicationServiceClient,
            session_service_client::SessionServiceClient,
            tenant_service_client::TenantServiceClient, user_service_client::UserServiceClient,
        },
        operator::{
            AssignOperatorRolesRequest, OperatorRole, staff_service_client::StaffServiceClient,
        },
    },
};

/// Users of the small site.
pub const FEW_USERS: usize = 1_000;
/// People who call on the small site.
const PEOPLE: usize = 16;
/// Tenants of the shared site.
pub const TENANTS: usize = 100;
/// Groups of somebody with many, and of somebody with few.
pub const GROUPS: (usize, usize) = (2_000, 10);
/// Members of an account with many, and of one with few.
pub const GRANTS: (usize, usize) = (110_000, 10);
/// People asked about; a batch asks about each of them once.
pub const ASKED: usize = 100;

/// Somebody who signs in.
#[derive(Clone)]
pub struct Person {
    /// `tenants/../users/..`.
    pub name: String,
    /// `user@domain`.
    pub sign_in_name: String,
}

impl Person {
    /// Its tenant.
    pub fn tenant(&self) -> String {
        self.name.split('/').take(2).collect::<Vec<_>>().join("/")
    }
}

/// A site that serves.
pub struct Open {
    /// The site.
    pub site: Site,
    /// Its server.
    pub server: Server,
    /// Its connections.
    pub wire: Wire,
    /// Those who call.
    pub people: Vec<Person>,
    /// Their tokens.
    pub tokens: Vec<Token>,
    /// Who handles reviews, where there are any.
    pub reviewer: Option<(Person, Token)>,
}

impl Open {
    /// Everybody signs in anew: tokens end after an hour.
    pub async fn renew(&mut self) -> Result<()> {
        self.tokens.clear();
        for person in &self.people {
            self.tokens
                .push(sign_in(&self.wire, &person.sign_in_name, PASSWORD).await?);
        }
        if let Some((person, token)) = &mut self.reviewer {
            *token = sign_in(&self.wire, &person.sign_in_name, PASSWORD).await?;
        }
        Ok(())
    }

    async fn over(site: Site, people: Vec<Person>, reviewer: Option<Person>) -> Result<Self> {
        let (server, wire) = site.serve("data").await?;
        let mut open = Self {
            site,
            server,
            wire,
            people,
            tokens: Vec::new(),
            reviewer: None,
        };
        if let Some(person) = reviewer {
            let token = sign_in(&open.wire, &person.sign_in_name, PASSWORD).await?;
            open.reviewer = Some((person, token));
        }
        open.renew().await?;
        Ok(open)
    }
}

/// Makes a tenant; gives its first global admin, who can't do anything yet.
async fn tenant(wire: &Wire, operator: &Token, prefix: &str) -> Result<Person> {
    let request = CreateTenantRequest {
        tenant: Some(Tenant {
            domain_prefix: prefix.to_owned(),
            display_name: format!("{prefix} Company"),
            contact_email: format!("it@{prefix}.example"),
            ..Tenant::default()
        }),
        first_admin: Some(FirstAdmin {
            given_name: "Ann".to_owned(),
            family_name: "Smith".to_owned(),
            user_name: "ann".to_owned(),
            recovery_email: format!("ann@{prefix}.example"),
            ..FirstAdmin::default()
        }),
        ..CreateTenantRequest::default()
    };
    let mut tenants = TenantServiceClient::new(wire.of(0));
    let made = tenants.create_tenant(by(operator, request)).await?;
    let admin = made.into_inner().first_admin.context("no first admin")?;
    Ok(Person {
        name: admin.name,
        sign_in_name: admin.sign_in_name,
    })
}

/// Everybody gets the administrator's password for good, and no rights sleep any more.
fn wake_all(rows: &Rows) -> Result<()> {
    rows.execute(
        "UPDATE users SET rights_asleep_until = NULL; \
         UPDATE credentials SET hash = (SELECT hash FROM credentials WHERE hash LIKE '$argon2id$%' LIMIT 1), temporary = false, \
         expire_time = NULL",
    )
}

/// Users like the tenant's first admin, a millisecond apart: `b1`, `b2`, ...
fn users(rows: &Rows, admin: &str, many: usize) -> Result<()> {
    let columns = columns(rows, "users")?;
    let new: Vec<String> = columns
        .iter()
        .map(|column| match column.as_str() {
            "id" => rows.new_id().to_owned(),
            "user_name" | "user_name_fold" => "'b' || s.n".to_owned(),
            "family_name" => "'Number' || s.n".to_owned(),
            "display_name" => "u.given_name || ' Number' || s.n".to_owned(),
            "display_name_fold" => "lower(u.given_name) || ' number' || s.n".to_owned(),
            "recovery_email" => "''".to_owned(),
            "create_time" => "u.create_time + s.n * 1000".to_owned(),
            other => format!("u.{other}"),
        })
        .collect();
    rows.execute(&format!(
        "{} INSERT INTO users ({}) SELECT {} FROM s, users u WHERE u.id = {}",
        numbers(many),
        columns.join(", "),
        new.join(", "),
        rows.id(admin),
    ))
}

/// Columns of a table, but for SQLite's own numbers of rows.
pub fn columns(rows: &Rows, table: &str) -> Result<Vec<String>> {
    let sql = match rows {
        Rows::Sqlite(_) => {
            format!("SELECT name FROM pragma_table_info('{table}') WHERE name <> 'row_number'")
        }
        Rows::Postgres(_) => format!(
            "SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' AND table_schema = 'public' \
             ORDER BY ordinal_position"
        ),
    };
    rows.column(&sql)
}

pub fn numbers(many: usize) -> String {
    format!(
        "WITH RECURSIVE s(n) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT n + 1 FROM s WHERE n < {many})"
    )
}

/// As PostgreSQL does by itself after a while; SQLite keeps its file as small as it can be.
fn settle(rows: &Rows) -> Result<()> {
    match rows {
        Rows::Sqlite(_) => rows.execute("PRAGMA wal_checkpoint(TRUNCATE)"),
        Rows::Postgres(_) => rows.execute("VACUUM ANALYZE"),
    }
}

/// A tenant of 1,000 users, some of whom call.
pub async fn small(site: Site) -> Result<(Open, Vec<String>)> {
    let (server, wire) = site.serve("data").await?;
    let operator = site.settle_in(&wire).await?;
    let ann = tenant(&wire, &operator, "contoso").await?;
    let one = ann.clone();
    let rita = reviewer(&wire, &operator).await?;
    let account = import(&wire, &operator, &ann, "Queued").await?;
    server.stop().await?;
    wake_all(&site.rows)?;
    let (server, wire) = site.serve("data").await?;
    let token = sign_in(&wire, &ann.sign_in_name, PASSWORD).await?;
    let mut people = vec![ann];
    let mut client = UserServiceClient::new(wire.of(0));
    for number in 1..PEOPLE {
        let request = CreateUserRequest {
            parent: one.tenant(),
            user: Some(User {
                user_name: format!("admin{number}"),
                given_name: "Admin".to_owned(),
                family_name: format!("Number{number}"),
                recovery_email: format!("admin{number}@contoso.example"),
                directory_roles: vec![DirectoryRole::GlobalAdmin as i32],
                ..User::default()
            }),
            ..CreateUserRequest::default()
        };
        let made = client.create_user(by(&token, request)).await?.into_inner();
        let user = made.user.context("no user")?;
        people.push(Person {
            name: user.name,
            sign_in_name: user.sign_in_name,
        });
    }
    server.stop().await?;
    wake_all(&site.rows)?;
    users(&site.rows, &one.name, FEW_USERS - PEOPLE)?;
    queue(&site.rows, &account, &one.tenant(), REVIEWS.1)?;
    settle(&site.rows)?;
    let names = names_of(&site.rows, &one.tenant(), FEW_USERS)?;
    Ok((Open::over(site, people, Some(rita)).await?, names))
}

/// Names of users of a tenant, in the order of their creation.
fn names_of(rows: &Rows, tenant: &str, most: usize) -> Result<Vec<String>> {
    let ids = rows.column(&format!(
        "SELECT {} FROM users WHERE tenant_id = {} ORDER BY create_time LIMIT {most}",
        rows.id_text("id"),
        rows.id(tenant)
    ))?;
    ids.iter().map(|id| name(tenant, "users", id)).collect()
}

fn name(parent: &str, collection: &str, id: &str) -> Result<String> {
    Ok(format!(
        "{parent}/{collection}/{}",
        uuid::Uuid::try_parse(id)?
    ))
}

/// A hundred tenants, each with its admin. The site is stopped in between: `copied` sees it then, with a user that was just made.
pub async fn shared<T>(
    site: Site,
    copied: impl AsyncFnOnce(&Site, &Wire, &Token, &Person) -> Result<()>,
    kept: impl FnOnce(&Site) -> Result<T>,
) -> Result<(Open, Arc<Memberships>, T)> {
    let (server, wire) = site.serve("data").await?;
    let operator = site.settle_in(&wire).await?;
    let mut people = Vec::with_capacity(TENANTS);
    for number in 0..TENANTS {
        people.push(tenant(&wire, &operator, &format!("tenant{number:03}")).await?);
    }
    server.stop().await?;
    wake_all(&site.rows)?;
    let (server, wire) = site.serve("data").await?;
    let token = sign_in(&wire, &people[0].sign_in_name, PASSWORD).await?;
    copied(&site, &wire, &token, &people[0]).await?;
    server.stop().await?;
    settle(&site.rows)?;
    let kept = kept(&site)?;
    let memberships = memberships(&site.rows, &people)?;
    settle(&site.rows)?;
    Ok((Open::over(site, people, None).await?, memberships, kept))
}

/// What there is to ask about the large site.
pub struct Large {
    /// The site, with its admin as the only caller.
    pub open: Open,
    /// Its tenant.
    pub tenant: String,
    /// A thousand of its users, from all over.
    pub users: Vec<String>,
    /// The token of a late page, and which page it is.
    pub late: (String, usize),
    /// The account on which groups hold roles; members of many groups, members of few.
    pub grouped: (String, Vec<String>, Vec<String>),
    /// An account with many members.
    pub wide: String,
    /// An account with few.
    pub narrow: String,
    /// The members of the latter, who are members of the former too.
    pub members_of_both: Vec<String>,
    /// How many members the account of many has.
    pub members: usize,
    /// How many reviews wait; the token of a page in their middle, and which page it is.
    pub reviews: usize,
    /// See above.
    pub late_reviews: (String, usize),
    /// The service that asks.
    pub service: Token,
    key: (String, String),
}

impl Large {
    /// All sign in anew.
    pub async fn renew(&mut self) -> Result<()> {
        self.open.renew().await?;
        self.service = sign_in_by_key(&self.open.wire, &self.key.0, &self.key.1).await?;
        Ok(())
    }
}

/// A tenant of a million users, 2,000 groups with a role each, and an account of 110,000 members.
pub async fn large(site: Site, many: usize) -> Result<Large> {
    let (server, wire) = site.serve("data").await?;
    let operator = site.settle_in(&wire).await?;
    let ann = tenant(&wire, &operator, "large").await?;
    let mut accounts = Vec::new();
    for publisher in ["Grouped", "Wide", "Narrow"] {
        accounts.push(import(&wire, &operator, &ann, publisher).await?);
    }
    let rita = reviewer(&wire, &operator).await?;
    let key = service(&wire, &operator).await?;
    server.stop().await?;

    let (rows, tenant) = (&site.rows, ann.tenant());
    ensure!(many >= 4 * ASKED, "at least {} users are needed", 4 * ASKED);
    wake_all(rows)?;
    users(rows, &ann.name, many)?;
    groups(rows, &tenant, &accounts[0])?;
    let members = GRANTS.0.min(many);
    for (account, first, count) in [
        (&accounts[1], 1, members),
        (&accounts[2], 2 * ASKED + 1, GRANTS.1),
    ] {
        grants(rows, &tenant, account, first, count)?;
    }
    let reviews = REVIEWS.0.min(many);
    queue(rows, &accounts[2], &tenant, reviews)?;
    settle(rows)?;
    let of = |first: usize, count: usize| people(rows, &tenant, first, count, 1);
    let (held, few) = (of(1, ASKED)?, of(ASKED + 1, ASKED)?);
    // Asked about on both accounts, so that nothing differs but how many others there are.
    let members_of_both = of(2 * ASKED + 1, GRANTS.1)?;
    let users = people(
        rows,
        &tenant,
        1,
        FEW_USERS.min(many),
        (many / FEW_USERS).max(1),
    )?;
    let open = Open::over(site, vec![ann], Some(rita)).await?;
    let service = sign_in_by_key(&open.wire, &key.0, &key.1).await?;
    let late = late_page(&open, &tenant, many).await?;
    let late_reviews = late_reviews(&open, reviews).await?;
    let [grouped, wide_account, narrow_account] =
        <[String; 3]>::try_from(accounts).map_err(|_| anyhow::anyhow!("not three accounts"))?;
    Ok(Large {
        open,
        tenant,
        users,
        late,
        grouped: (grouped, held, few),
        wide: wide_account,
        narrow: narrow_account,
        members_of_both,
        members,
        reviews,
        late_reviews,
        service,
        key,
    })
}

/// The operator's own tenant.
pub async fn home(wire: &Wire, operator: &Token) -> Result<String> {
    let mut sessions = SessionServiceClient::new(wire.of(0));
    let me = sessions.who_am_i(by(operator, WhoAmIRequest {})).await?;
    let home = me.into_inner().tenant;
    let home = home.with_context(|| format!("{ADMINISTRATOR} has no tenant"))?;
    Ok(home.name)
}

/// An internal service of the operator; gives its client ID and secret.
async fn service(wire: &Wire, operator: &Token) -> Result<(String, String)> {
    let request = CreateApplicationRequest {
        parent: home(wire, operator).await?,
        application: Some(Application {
            display_name: "Portal".to_owned(),
            ..Application::default()
        }),
        ..CreateApplicationRequest::default()
    };
    let mut applications = ApplicationServiceClient::new(wire.of(0));
    let made = applications
        .create_application(by(operator, request))
        .await?
        .into_inner();
    let request = AssignOperatorRolesRequest {
        principal: made.name.clone(),
        roles: vec![OperatorRole::OperatorService as i32],
        ..AssignOperatorRolesRequest::default()
    };
    let mut staff = StaffServiceClient::new(wire.of(0));
    staff.assign_operator_roles(by(operator, request)).await?;
    let request = CreateKeyRequest {
        parent: made.name,
        ..CreateKeyRequest::default()
    };
    let key = applications
        .create_key(by(operator, request))
        .await?
        .into_inner();
    Ok((made.client_id, key.secret))
}

/// Users by their numbers: so many from the first on, each a step after the one before.
fn people(
    rows: &Rows,
    tenant: &str,
    first: usize,
    count: usize,
    step: usize,
) -> Result<Vec<String>> {
    let wanted: Vec<String> = (0..count)
        .map(|n| format!("'b{}'", first + n * step))
        .collect();
    let ids = rows.column(&format!(
        "SELECT {} FROM users WHERE tenant_id = {} AND user_name_fold IN ({}) AND state <> 3",
        rows.id_text("id"),
        rows.id(tenant),
        wanted.join(", ")
    ))?;
    ensure!(
        ids.len() == count,
        "{} of {count} users were found",
        ids.len()
    );
    ids.iter().map(|id| name(tenant, "users", id)).collect()
}

/// Groups with a role each on an account, two different ones in turn; members `b1` to `b100` of 2,000 of them, and the next 100 of 10.
fn groups(rows: &Rows, tenant: &str, account: &str) -> Result<()> {
    let (tenant, account, new) = (rows.id(tenant), rows.id(account), rows.new_id());
    for (prefix, groups, first) in [("many", GROUPS.0, 1), ("few", GROUPS.1, ASKED + 1)] {
        let last = first + ASKED - 1;
        let names: Vec<String> = (first..=last).map(|n| format!("'b{n}'")).collect();
        let members = format!(
            "(SELECT id, display_name_fold, create_time FROM users WHERE tenant_id = {tenant} AND user_name_fold IN ({}) AND state <> 3)",
            names.join(", ")
        );
        let role = "CASE WHEN g.create_time % 2 = 0 THEN 4 ELSE 32 END";
        rows.execute(&format!(
            "{} INSERT INTO user_groups (id, tenant_id, display_name, display_name_fold, external_id, member_count, create_time, update_time, \
             version) SELECT {new}, {tenant}, '{prefix} ' || n, '{prefix} ' || n, '', {ASKED}, n, n, 1 FROM s; \
             INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) SELECT g.id, u.id, u.display_name_fold, u.create_time \
             FROM user_groups g, {members} u WHERE g.display_name LIKE '{prefix}%'; \
             INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
             display_name_fold, create_time, update_time, version) SELECT 2, {account}, g.id, 4, g.tenant_id, {role}, '', '', \
             g.display_name_fold, g.create_time, 0, 1 FROM user_groups g WHERE g.display_name LIKE '{prefix}%'; \
             INSERT INTO group_rights (scope_kind, scope_id, user_id, roles, permissions, group_id, tenant_id) SELECT 2, {account}, u.id, {role}, \
             '', g.id, g.tenant_id FROM user_groups g, {members} u WHERE g.display_name IN ('{prefix} 1', '{prefix} 2')",
            numbers(groups)
        ))?;
    }
    Ok(())
}

/// Members of an account by themselves, as developers.
fn grants(rows: &Rows, tenant: &str, account: &str, first: usize, count: usize) -> Result<()> {
    rows.execute(&format!(
        "{} INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
         display_name_fold, create_time, update_time, version) SELECT 2, {}, u.id, 1, u.tenant_id, 4, '', '', u.display_name_fold, \
         u.create_time, u.create_time, 1 FROM s JOIN users u ON u.tenant_id = {} AND u.user_name_fold = 'b' || (s.n + {}) AND u.state <> 3",
        numbers(count),
        rows.id(account),
        rows.id(tenant),
        first - 1
    ))
}

/// The token of page 10,000, or of the one in the middle if there are fewer; and which page it is.
async fn late_page(open: &Open, tenant: &str, many: usize) -> Result<(String, usize)> {
    const A_PAGE: usize = 50;
    let page = 10_000.min(many / A_PAGE / 2).max(2);
    // Tokens aren't bound to the size of pages.
    let mut before = (page - 1) * A_PAGE;
    let mut client = UserServiceClient::new(open.wire.of(0));
    let mut page_token = String::new();
    while before > 0 {
        let size = before.min(1_000);
        let request = ListUsersRequest {
            parent: tenant.to_owned(),
            page_size: i32::try_from(size)?,
            page_token,
            ..ListUsersRequest::default()
        };
        let told = client
            .list_users(by(&open.tokens[0], request))
            .await?
            .into_inner();
        ensure!(
            told.users.len() == size && !told.next_page_token.is_empty(),
            "a page came short"
        );
        page_token = told.next_page_token;
        before -= size;
    }
    Ok((page_token, page))
}
