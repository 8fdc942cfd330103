//! Every list, asked the same way, over more rows than a page may read. They are made by SQL, without their calls.

use entente::proto::{
    account::{
        ListAcceptancesRequest, ListAccountsRequest, ListAgreementsRequest,
        ListAssociatedTenantsRequest, ListBenefitsRequest, ListMembersRequest,
        ListPackageOffersRequest, ListPackagesRequest, ListReviewsRequest, ReviewKind,
        SearchAccountsRequest, SearchCandidatesRequest,
    },
    audit::ListAuditEventsRequest,
    directory::{
        ListApplicationsRequest, ListDomainsRequest, ListGroupMembersRequest, ListGroupsRequest,
        ListInvitationsRequest, ListKeysRequest, ListRecoveryCasesRequest, ListSessionsRequest,
        ListTenantsRequest, ListUserGroupsRequest, ListUsersRequest,
    },
    offer::{ListOfferReviewsRequest, ListOffersRequest, ListReportRequest},
    operator::{
        ListMailsRequest, ListPoliciesRequest, ListReservedNamesRequest, ListStaffRequest,
        OperatorRole,
    },
    relationship::ListRelationshipsRequest,
};
use prost::Message as _;
use tonic::Status;
use uuid::Uuid;

use super::rows::MANY;
use crate::{
    claims::execute,
    harness::{Caller, Database, Person, Site, TenantSite},
    people::{application, id, staff},
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
    Invitations,
    Domains,
    RecoveryCases,
    SearchedAccounts,
    Reviews,
    ReviewsOfKind,
    DecidedReviews,
    Agreements,
    Acceptances,
    PackageOffers,
    Packages,
    Benefits,
    Offers,
    Relationships,
    OfferReviews,
    Usage,
    Policies,
    ReservedNames,
}

impl List {
    pub const ALL: [Self; 33] = [
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
        Self::Invitations,
        Self::Domains,
        Self::RecoveryCases,
        Self::SearchedAccounts,
        Self::Reviews,
        Self::ReviewsOfKind,
        Self::DecidedReviews,
        Self::Agreements,
        Self::Acceptances,
        Self::PackageOffers,
        Self::Packages,
        Self::Benefits,
        Self::Offers,
        Self::Relationships,
        Self::OfferReviews,
        Self::Usage,
        Self::Policies,
        Self::ReservedNames,
    ];

    /// Whether it shows what is the caller's own, which is put in order as a whole: it is as much as the caller's memberships.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Accounts | Self::UserGroups)
    }

    /// What it can be ordered by.
    pub fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Keys
            | Self::Sessions
            | Self::Mails
            | Self::AuditEvents
            | Self::RecoveryCases
            | Self::Reviews
            | Self::ReviewsOfKind
            | Self::DecidedReviews
            | Self::Agreements
            | Self::Acceptances
            | Self::Packages => &["create_time"],
            Self::Accounts | Self::SearchedAccounts => &["create_time", "publisher_display_name"],
            Self::Invitations => &["create_time", "email"],
            Self::Domains => &["create_time", "domain_name"],
            Self::OfferReviews => &["submit_time"],
            Self::Usage => &["create_time", "day"],
            Self::Policies => &["create_time", "effective_time"],
            Self::Associations => &["create_time", "tenant_display_name"],
            _ => &["create_time", "display_name"],
        }
    }

    /// A time that it can be filtered by.
    pub fn time(self) -> &'static str {
        match self {
            Self::OfferReviews => "submit_time",
            _ => "create_time",
        }
    }

    /// The texts that can be searched in it.
    pub fn texts(self) -> &'static [&'static str] {
        match self {
            Self::Keys
            | Self::Sessions
            | Self::Mails
            | Self::AuditEvents
            | Self::RecoveryCases
            | Self::Reviews
            | Self::ReviewsOfKind
            | Self::DecidedReviews
            | Self::Agreements
            | Self::Acceptances
            | Self::PackageOffers
            | Self::Packages
            | Self::Benefits
            | Self::OfferReviews
            | Self::Usage
            | Self::Policies
            | Self::ReservedNames => &[],
            // A tenant has few domains; no index finds texts in them.
            Self::Domains => &[],
            Self::Invitations => &["email"],
            Self::Offers | Self::Relationships => &["display_name"],
            Self::Tenants => &["display_name", "domain_prefix"],
            Self::Users | Self::GroupMembers | Self::Candidates | Self::Members => {
                &["display_name", "user_name"]
            }
            Self::Groups | Self::UserGroups | Self::Applications | Self::Staff => &["display_name"],
            Self::Accounts | Self::SearchedAccounts => &["publisher_display_name", "legal_name"],
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
    reviewer: Person,
    support: Person,
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
            reviewer: staff(site, "rita", OperatorRole::OperatorReviewer).await,
            support: staff(site, "sue", OperatorRole::OperatorSupport).await,
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
            ($client:expr, $method:ident, $request:ident { $($field:ident: $value:expr),* }, $items:ident, $name:ident) => {
                page!($client, $method, $request { $($field: $value),* }, $items, |item| &item.$name)
            };
            ($client:expr, $method:ident, $request:ident { $($field:ident: $value:expr),* }, $items:ident, |$item:ident| $name:expr) => {{
                let request = $request { $($field: $value,)* page_size, page_token, filter, order_by };
                let answer = $client.$method(request).await?.into_inner();
                Told {
                    bytes: answer.encoded_len(),
                    ids: answer.$items.iter().map(|$item| last($name)).collect(),
                    next: answer.next_page_token,
                }
            }};
        }
        let Self {
            contoso,
            account,
            application,
            operator,
            reviewer,
            support,
        } = self;
        let (reviewer, support) = (&reviewer.caller, &support.caller);
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
            List::Invitations => page!(
                ann.invitations(),
                list_invitations,
                ListInvitationsRequest { parent: tenant },
                invitations,
                name
            ),
            List::Domains => page!(
                ann.domains(),
                list_domains,
                ListDomainsRequest { parent: tenant },
                domains,
                name
            ),
            List::RecoveryCases => page!(
                support.recoveries(),
                list_recovery_cases,
                ListRecoveryCasesRequest {},
                recovery_cases,
                name
            ),
            List::SearchedAccounts => page!(
                operator.accounts(),
                search_accounts,
                SearchAccountsRequest {},
                accounts,
                name
            ),
            List::Reviews | List::ReviewsOfKind | List::DecidedReviews => {
                let kind = match list {
                    List::ReviewsOfKind => ReviewKind::Business as i32,
                    _ => 0,
                };
                page!(
                    reviewer.verification(),
                    list_reviews,
                    ListReviewsRequest {
                        kind: kind,
                        decided: list == List::DecidedReviews
                    },
                    reviews,
                    name
                )
            }
            List::Agreements => page!(
                operator.agreements(),
                list_agreements,
                ListAgreementsRequest {},
                agreements,
                name
            ),
            List::Acceptances => page!(
                ann.agreements(),
                list_acceptances,
                ListAcceptancesRequest { parent: account },
                acceptances,
                name
            ),
            List::PackageOffers => page!(
                ann.benefits(),
                list_package_offers,
                ListPackageOffersRequest { parent: account },
                package_offers,
                name
            ),
            List::Packages => page!(
                ann.benefits(),
                list_packages,
                ListPackagesRequest { parent: account },
                packages,
                name
            ),
            List::Benefits => page!(
                ann.benefits(),
                list_benefits,
                ListBenefitsRequest { parent: account },
                benefits,
                name
            ),
            List::Offers => page!(
                ann.offers(),
                list_offers,
                ListOffersRequest { parent: account },
                offers,
                name
            ),
            List::Relationships => page!(
                ann.relationships(),
                list_relationships,
                ListRelationshipsRequest { parent: account },
                relationships,
                name
            ),
            List::OfferReviews => page!(
                reviewer.offers(),
                list_offer_reviews,
                ListOfferReviewsRequest {},
                offer_reviews,
                |item| &item.offer.as_ref().unwrap().name
            ),
            List::Usage => page!(
                ann.reports(),
                list_report,
                ListReportRequest {
                    parent: account,
                    group_by: Vec::new()
                },
                usage,
                customer
            ),
            List::Policies => page!(
                operator.policies(),
                list_policies,
                ListPoliciesRequest {},
                policies,
                name
            ),
            List::ReservedNames => page!(
                operator.reserved_names(),
                list_reserved_names,
                ListReservedNamesRequest {},
                reserved_names,
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
