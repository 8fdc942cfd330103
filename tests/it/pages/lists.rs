//! Every list, asked the same way, over more rows than a page may read. They are made by SQL, without their calls.

use entente::proto::{
    account::{
        ListAccountsRequest, ListAssociatedTenantsRequest, ListMembersRequest,
        SearchCandidatesRequest,
    },
    audit::ListAuditEventsRequest,
    directory::{
        ListApplicationsRequest, ListGroupMembersRequest, ListGroupsRequest, ListKeysRequest,
        ListSessionsRequest, ListTenantsRequest, ListUserGroupsRequest, ListUsersRequest,
    },
    operator::{ListMailsRequest, ListStaffRequest},
};
use prost::Message as _;
use tonic::Status;
use uuid::Uuid;

use crate::{
    claims::execute,
    harness::{Caller, Database, Site, TenantSite},
    people::{application, id},
};

/// Rows of each list, beside the few that were there before: more than a page may read.
pub const ROWS: usize = 10_500;
/// The last row of each list by each order: the only one with a Zeppelin in its names.
pub const FAR: Uuid = Uuid::from_u128(0xffff_ffff_ffff_4fff_bfff_ffff_ffff_fff0);
/// An application and a group that are members, and a group that isn't.
pub const FAR_APPLICATION: Uuid = Uuid::from_u128(0xffff_ffff_ffff_4fff_bfff_ffff_ffff_fff1);
pub const FAR_GROUP: Uuid = Uuid::from_u128(0xffff_ffff_ffff_4fff_bfff_ffff_ffff_fff2);
pub const STRANGE_GROUP: Uuid = Uuid::from_u128(0xffff_ffff_ffff_4fff_bfff_ffff_ffff_fff3);

/// A group of all.
pub const CROWD: Uuid = Uuid::from_u128(0x0fff_ffff_ffff_4fff_bfff_ffff_ffff_fff4);

/// The lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Tenants,
    Users,
    Groups,
    GroupMembers,
    UserGroups,
    Applications,
    Keys,
    Sessions,
    Accounts,
    Associations,
    Members,
    Candidates,
    Staff,
    Mails,
    AuditEvents,
}

impl List {
    pub const ALL: [Self; 15] = [
        Self::Tenants,
        Self::Users,
        Self::Groups,
        Self::GroupMembers,
        Self::UserGroups,
        Self::Applications,
        Self::Keys,
        Self::Sessions,
        Self::Accounts,
        Self::Associations,
        Self::Members,
        Self::Candidates,
        Self::Staff,
        Self::Mails,
        Self::AuditEvents,
    ];

    /// Whether it shows what is the caller's own, which is put in order as a whole: it is as much as the caller's memberships.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Accounts | Self::UserGroups)
    }

    /// What it can be ordered by.
    pub fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Keys | Self::Sessions | Self::Mails | Self::AuditEvents => &["create_time"],
            Self::Accounts => &["create_time", "publisher_display_name"],
            Self::Associations => &["create_time", "tenant_display_name"],
            _ => &["create_time", "display_name"],
        }
    }

    /// The texts that can be searched in it.
    pub fn texts(self) -> &'static [&'static str] {
        match self {
            Self::Keys | Self::Sessions | Self::Mails | Self::AuditEvents => &[],
            Self::Tenants => &["display_name", "domain_prefix"],
            Self::Users | Self::GroupMembers | Self::Candidates | Self::Members => {
                &["display_name", "user_name"]
            }
            Self::Groups | Self::UserGroups | Self::Applications | Self::Staff => &["display_name"],
            Self::Accounts => &["publisher_display_name", "legal_name"],
            Self::Associations => &["tenant_display_name"],
        }
    }
}

/// What is asked of a list.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub filter: String,
    pub order_by: String,
    pub page_size: i32,
    pub page_token: String,
}

/// A page.
#[derive(Debug)]
pub struct Told {
    /// IDs of what it shows, the last parts of names.
    pub ids: Vec<String>,
    /// The token of the next one.
    pub next: String,
    /// Bytes of the answer.
    pub bytes: usize,
}

/// A tenant, an account, and who lists what is there.
pub struct World {
    pub contoso: TenantSite,
    pub account: String,
    application: String,
    operator: Caller,
}

impl World {
    /// With few rows.
    pub async fn small(site: &Site) -> Self {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso Publishing").await;
        let application = application(&contoso.admin.caller, &contoso.name, "Robot").await;
        Self {
            contoso,
            account,
            application: application.name,
            operator: site.operator().await,
        }
    }

    /// With many.
    pub async fn open(site: &Site) -> Self {
        let world = Self::small(site).await;
        for statement in MANY {
            world.execute(site, statement).await;
        }
        if site.database == Database::Postgres {
            execute(&site.app, "ANALYZE").await.unwrap();
        }
        world
    }

    /// Runs a statement, with IDs put into it.
    pub async fn execute(&self, site: &Site, statement: &str) -> u64 {
        let literal = |id: Uuid| match site.database {
            Database::Sqlite => format!("x'{}'", id.simple()),
            Database::Postgres => format!("'{id}'::uuid"),
        };
        let (random, bytes) = match site.database {
            Database::Sqlite => ("randomblob(16)", "x''"),
            Database::Postgres => ("gen_random_uuid()", "''::bytea"),
        };
        let mut sql = format!(
            "WITH RECURSIVE s(n) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT n + 1 FROM s WHERE n < {ROWS}) {statement}"
        );
        for (name, value) in [
            ("{tenant}", literal(id(&self.contoso.name))),
            ("{ann}", literal(id(&self.contoso.admin.name))),
            ("{account}", literal(id(&self.account))),
            ("{application}", literal(id(&self.application))),
            ("{nil}", literal(Uuid::nil())),
            ("{far}", literal(FAR)),
            ("{far_application}", literal(FAR_APPLICATION)),
            ("{far_group}", literal(FAR_GROUP)),
            ("{strange_group}", literal(STRANGE_GROUP)),
            ("{crowd}", literal(CROWD)),
            ("{random}", random.to_owned()),
            ("{bytes}", bytes.to_owned()),
        ] {
            sql = sql.replace(name, &value);
        }
        execute(&site.app, &sql).await.unwrap()
    }

    /// Asks a list.
    pub async fn ask(&self, list: List, asked: &Asked) -> Result<Told, Status> {
        let Asked {
            filter,
            order_by,
            page_size,
            page_token,
        } = asked.clone();
        macro_rules! page {
            ($client:expr, $method:ident, $request:ident { $($field:ident: $value:expr),* }, $items:ident, $name:ident) => {{
                let request = $request { $($field: $value,)* page_size, page_token, filter, order_by };
                let answer = $client.$method(request).await?.into_inner();
                Told {
                    bytes: answer.encoded_len(),
                    ids: answer.$items.iter().map(|item| last(&item.$name)).collect(),
                    next: answer.next_page_token,
                }
            }};
        }
        let Self {
            contoso,
            account,
            application,
            operator,
        } = self;
        let (ann, tenant) = (&contoso.admin.caller, contoso.name.clone());
        let (account, application) = (account.clone(), application.clone());
        Ok(match list {
            List::Tenants => {
                page!(
                    operator.tenants(),
                    list_tenants,
                    ListTenantsRequest { show_deleted: true },
                    tenants,
                    name
                )
            }
            List::Users => page!(
                ann.users(),
                list_users,
                ListUsersRequest {
                    parent: tenant,
                    show_deleted: false
                },
                users,
                name
            ),
            List::Groups => page!(
                ann.groups(),
                list_groups,
                ListGroupsRequest { parent: tenant },
                groups,
                name
            ),
            List::GroupMembers => page!(
                ann.groups(),
                list_group_members,
                ListGroupMembersRequest {
                    parent: format!("{tenant}/groups/{CROWD}")
                },
                members,
                user
            ),
            List::UserGroups => page!(
                ann.groups(),
                list_user_groups,
                ListUserGroupsRequest {
                    parent: contoso.admin.name.clone()
                },
                groups,
                name
            ),
            List::Applications => page!(
                ann.applications(),
                list_applications,
                ListApplicationsRequest { parent: tenant },
                applications,
                name
            ),
            List::Keys => page!(
                ann.applications(),
                list_keys,
                ListKeysRequest {
                    parent: application
                },
                keys,
                name
            ),
            List::Sessions => page!(
                ann.sessions(),
                list_sessions,
                ListSessionsRequest {
                    parent: contoso.admin.name.clone()
                },
                sessions,
                name
            ),
            List::Accounts => {
                page!(
                    ann.accounts(),
                    list_accounts,
                    ListAccountsRequest {},
                    accounts,
                    name
                )
            }
            List::Associations => page!(
                ann.associations(),
                list_associated_tenants,
                ListAssociatedTenantsRequest { parent: account },
                associations,
                tenant
            ),
            List::Members => page!(
                ann.members(),
                list_members,
                ListMembersRequest { parent: account },
                members,
                principal
            ),
            List::Candidates => page!(
                ann.members(),
                search_candidates,
                SearchCandidatesRequest { parent: account },
                candidates,
                principal
            ),
            List::Staff => page!(
                operator.staff(),
                list_staff,
                ListStaffRequest {},
                staff,
                name
            ),
            List::Mails => page!(
                operator.mails(),
                list_mails,
                ListMailsRequest {},
                mails,
                name
            ),
            List::AuditEvents => page!(
                ann.audit(),
                list_audit_events,
                ListAuditEventsRequest { parent: account },
                audit_events,
                name
            ),
        })
    }

    /// Walks a list to its end; gives the IDs, and how many pages there were.
    pub async fn walk(&self, list: List, mut asked: Asked) -> (Vec<String>, usize) {
        let (mut ids, mut pages) = (Vec::new(), 0);
        loop {
            let told = self.ask(list, &asked).await.unwrap();
            ids.extend(told.ids);
            pages += 1;
            if told.next.is_empty() {
                return (ids, pages);
            }
            asked.page_token = told.next;
        }
    }
}

fn last(name: &str) -> String {
    name.rsplit('/').next().unwrap().to_owned()
}

/// Fills the lists. Times are those of 2030 and later, so that the rows which were there before come first.
const MANY: &[&str] = &[
    "INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, recovery_email, \
        kind, state, create_time, update_time, version) \
     SELECT {random}, {tenant}, 'bulk' || n, 'bulk' || n, 'Bulk', 'User', 'Bulk ' || (n % 7), 'bulk ' || (n % 7), '', \
        1, 1, 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, recovery_email, \
        kind, state, create_time, update_time, version) \
     VALUES ({far}, {tenant}, 'Graf.Zeppelin', 'graf.zeppelin', 'Wärme', 'Zeppelin', 'Wärme Zeppelin', 'wärme zeppelin', '', \
        1, 1, 2000000000000000, 0, 1)",
    "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
        display_name_fold, create_time, update_time, version) \
     SELECT 2, {account}, u.id, 1, u.tenant_id, 4, '', '', u.display_name_fold, u.create_time, 0, 1 FROM users u WHERE u.create_time > 1800000000000000",
    "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
        display_name_fold, create_time, update_time, version) \
     SELECT 0, {nil}, u.id, 1, u.tenant_id, 16, '', '', u.display_name_fold, u.create_time, 0, 1 FROM users u WHERE u.create_time > 1800000000000000",
    "INSERT INTO applications (id, tenant_id, display_name, display_name_fold, reply_url, application_id_uri, state, create_time, update_time, version) \
     SELECT {random}, {tenant}, 'Bulk ' || (n % 7), 'bulk ' || (n % 7), '', '', 1, 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO applications (id, tenant_id, display_name, display_name_fold, reply_url, application_id_uri, state, create_time, update_time, version) \
     VALUES ({far_application}, {tenant}, 'Wärme Zeppelin', 'wärme zeppelin', '', '', 1, 2000000000000000, 0, 1)",
    "INSERT INTO user_groups (id, tenant_id, display_name, display_name_fold, external_id, create_time, update_time, version) \
     VALUES ({far_group}, {tenant}, 'Wärme Zeppelin', 'wärme zeppelin', '', 2000000000000000, 0, 1), \
        ({strange_group}, {tenant}, 'Others', 'others', '', 0, 0, 1), ({crowd}, {tenant}, 'Crowd', 'crowd', '', 0, 0, 1)",
    "INSERT INTO user_groups (id, tenant_id, display_name, display_name_fold, external_id, create_time, update_time, version) \
     SELECT {random}, {tenant}, 'Bulk ' || (n % 7), 'bulk ' || (n % 7), '', 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) \
     SELECT {crowd}, u.id, u.display_name_fold, u.create_time FROM users u WHERE u.create_time > 1800000000000000",
    "INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) \
     SELECT g.id, {ann}, 'ann smith', 0 FROM user_groups g WHERE g.display_name_fold IN ('bulk 3', 'wärme zeppelin')",
    "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
        display_name_fold, create_time, update_time, version) \
     VALUES (2, {account}, {far_application}, 2, {tenant}, 0, '', '', 'wärme zeppelin', 2000000000000000, 0, 1), \
        (2, {account}, {far_group}, 4, {tenant}, 0, '', '', 'wärme zeppelin', 2000000000000000, 0, 1)",
    "INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) \
     VALUES ({far_group}, {far}, 'wärme zeppelin', 0), ({strange_group}, {far}, 'wärme zeppelin', 0)",
    "INSERT INTO application_keys (id, application_id, hash, hint, create_time, expire_time, version) \
     SELECT {random}, {application}, {bytes}, 'hint', 1900000000000000 + n / 3 * 1000000, 2000000000000000, 1 FROM s",
    "INSERT INTO sessions (id, user_id, tenant_id, client_address, create_time, sign_in_time, last_refresh_time, expire_time, \
        refresh_hash, previous_hash, previous_until, version) \
     SELECT {random}, {ann}, {tenant}, '', 1900000000000000 + n / 3 * 1000000, 0, 0, 2000000000000000, {bytes}, {bytes}, 0, 1 FROM s",
    "INSERT INTO tenants (id, domain_prefix, display_name, display_name_fold, contact_email, is_operator, state, create_time, update_time, version) \
     SELECT {random}, 'bulk' || n, 'Bulk ' || (n % 7), 'bulk ' || (n % 7), '', false, 1, 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO tenants (id, domain_prefix, display_name, display_name_fold, contact_email, is_operator, state, create_time, update_time, version) \
     VALUES ({far}, 'graf-zeppelin', 'Wärme Zeppelin', 'wärme zeppelin', '', false, 1, 2000000000000000, 0, 1)",
    "INSERT INTO associations (account_id, tenant_id, display_name_fold, create_time, version) \
     SELECT {account}, t.id, t.display_name_fold, t.create_time, 1 FROM tenants t WHERE t.create_time > 1800000000000000",
    "INSERT INTO accounts (id, publisher_display_name, publisher_display_name_fold, legal_name, legal_name_fold, country_code, type, seller_id, \
        state, create_time, update_time, version) \
     SELECT {random}, 'Bulk ' || n, 'bulk ' || n, 'Bulk Ltd', 'bulk ltd', 'FR', 1, 'B' || n, 1, 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO accounts (id, publisher_display_name, publisher_display_name_fold, legal_name, legal_name_fold, country_code, type, seller_id, \
        state, create_time, update_time, version) \
     VALUES ({far}, 'Wärme Zeppelin', 'wärme zeppelin', 'Zeppelin GmbH', 'zeppelin gmbh', 'FR', 1, 'Z', 1, 2000000000000000, 0, 1)",
    "INSERT INTO associations (account_id, tenant_id, display_name_fold, create_time, version) \
     SELECT a.id, {tenant}, 'contoso company', a.create_time, 1 FROM accounts a WHERE a.create_time > 1800000000000000",
    "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
        display_name_fold, create_time, update_time, version) \
     SELECT 2, a.id, {ann}, 1, {tenant}, 2, '', '', 'ann smith', a.create_time, 0, 1 FROM accounts a WHERE a.create_time > 1800000000000000",
    "INSERT INTO mails (id, recipient, template, language, object, sealed_values, state, attempt_count, last_error, create_time, send_time, \
        next_attempt_time, version) \
     SELECT {random}, 'a@example.com', 'password_reset', 'en', '', {bytes}, 2, 1, '', 1900000000000000 + n / 3 * 1000000, 0, 0, 1 FROM s",
    "INSERT INTO audit_events (scope_kind, scope_id, seq, event_id, create_time, action, actor, outcome, body, hash) \
     SELECT 2, {account}, 1000000 + n, {random}, 1900000000000000 + n / 3 * 1000000, 'bulk', '', 'OK', {bytes}, {bytes} FROM s",
];
