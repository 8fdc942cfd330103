//! RelationshipService: what a partner asks for, who may answer, what is lent, and how it ends.

use entente::proto::{
    access::{AccountRole, AgreementKind},
    account::{CloseAccountRequest, SuspendAccountRequest},
    directory::{
        CreateDomainRequest, DeleteTenantRequest, DirectoryRole, DisableUserRequest, Domain,
    },
    relationship::{
        AcceptRelationshipRequest, CancelRelationshipRequest, CreateRelationshipRequest,
        DeclineRelationshipRequest, GetRelationshipLossesRequest, GetRelationshipRequest,
        ListRelationshipAssignmentsRequest, ListRelationshipsRequest, Relationship,
        RelationshipAssignment, RelationshipKind as RelKind, RelationshipLosses,
        RelationshipState as State, RemoveRelationshipRolesRequest,
        RemoveRelationshipRolesResponse, SendRelationshipRequest, SetRelationshipAssignmentRequest,
        TerminateRelationshipRequest, TerminateRelationshipResponse, UpdateRelationshipRequest,
    },
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    agreements::{acceptances, now, publish, version},
    claims::{chains_are_intact, row_counts},
    groups::group,
    harness::{
        Caller, Database, PASSWORD, Person, Site, TenantSite, both, both_asking, fields, refused,
        request_id,
    },
    members::add,
    people::{
        Letter, again, change, denied, events, eventually, execute_on, guest, id, letters, literal,
        mask, number, operator_tenant, person_as,
    },
};

const DAY: i64 = 86_400;
const GLOBAL: i32 = DirectoryRole::GlobalAdmin as i32;
const BILLING: i32 = DirectoryRole::BillingAdmin as i32;
const HELPDESK: i32 = DirectoryRole::HelpdeskAdmin as i32;

/// A request for two roles and 100 days, to an address.
pub fn asking(name: &str, email: &str) -> Relationship {
    Relationship {
        display_name: name.to_owned(),
        kind: RelKind::DelegatedAdmin as i32,
        customer_email: email.to_owned(),
        message: "We look after you.\nAlways.".to_owned(),
        requested_roles: vec![GLOBAL, HELPDESK],
        requested_days: 100,
        ..Relationship::default()
    }
}

/// The same, to a domain.
fn by_domain(name: &str, domain: &str) -> Relationship {
    Relationship {
        customer_domain: domain.to_owned(),
        ..asking(name, "")
    }
}

/// Makes a draft.
pub async fn create(
    caller: &Caller,
    account: &str,
    relationship: Relationship,
) -> Result<Relationship, Status> {
    let request = CreateRelationshipRequest {
        parent: account.to_owned(),
        relationship: Some(relationship),
        ..CreateRelationshipRequest::default()
    };
    let done = caller.relationships().create_relationship(request).await;
    done.map(Response::into_inner)
}

async fn update(
    caller: &Caller,
    relationship: Relationship,
    paths: &[&str],
) -> Result<Relationship, Status> {
    let request = UpdateRelationshipRequest {
        relationship: Some(relationship),
        update_mask: Some(mask(paths)),
        ..UpdateRelationshipRequest::default()
    };
    let done = caller.relationships().update_relationship(request).await;
    done.map(Response::into_inner)
}

/// Sends a draft.
pub async fn send(caller: &Caller, name: &str) -> Result<Relationship, Status> {
    let request = SendRelationshipRequest {
        name: name.to_owned(),
        ..SendRelationshipRequest::default()
    };
    let done = caller.relationships().send_relationship(request).await;
    done.map(Response::into_inner)
}

async fn cancel(caller: &Caller, name: &str) -> Result<Relationship, Status> {
    let request = CancelRelationshipRequest {
        name: name.to_owned(),
        ..CancelRelationshipRequest::default()
    };
    let done = caller.relationships().cancel_relationship(request).await;
    done.map(Response::into_inner)
}

fn accepting(name: &str, tenant: &str, roles: &[i32]) -> AcceptRelationshipRequest {
    AcceptRelationshipRequest {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        roles: roles.to_vec(),
        language_code: "en".to_owned(),
        ..AcceptRelationshipRequest::default()
    }
}

/// Accepts a request, lending these roles for as long as asked for.
pub async fn accept(
    caller: &Caller,
    tenant: &str,
    name: &str,
    roles: &[i32],
) -> Result<Relationship, Status> {
    accept_as(caller, accepting(name, tenant, roles)).await
}

async fn accept_as(
    caller: &Caller,
    request: AcceptRelationshipRequest,
) -> Result<Relationship, Status> {
    let done = caller.relationships().accept_relationship(request).await;
    done.map(Response::into_inner)
}

async fn decline(caller: &Caller, tenant: &str, name: &str) -> Result<Relationship, Status> {
    let request = DeclineRelationshipRequest {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        ..DeclineRelationshipRequest::default()
    };
    let done = caller.relationships().decline_relationship(request).await;
    done.map(Response::into_inner)
}

async fn remove(
    caller: &Caller,
    tenant: &str,
    name: &str,
    validate_only: bool,
) -> Result<RemoveRelationshipRolesResponse, Status> {
    let request = RemoveRelationshipRolesRequest {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        validate_only,
        ..RemoveRelationshipRolesRequest::default()
    };
    let done = caller
        .relationships()
        .remove_relationship_roles(request)
        .await;
    done.map(Response::into_inner)
}

/// Ends one: as the customer, if that is named.
pub async fn terminate_as(
    caller: &Caller,
    tenant: &str,
    name: &str,
    validate_only: bool,
) -> Result<TerminateRelationshipResponse, Status> {
    let request = TerminateRelationshipRequest {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        validate_only,
        ..TerminateRelationshipRequest::default()
    };
    let done = caller.relationships().terminate_relationship(request).await;
    done.map(Response::into_inner)
}

async fn terminate(caller: &Caller, tenant: &str, name: &str) -> Result<Relationship, Status> {
    let done = terminate_as(caller, tenant, name, false).await;
    done.map(|mut done| done.resources.remove(0))
}

/// What is lost with one, and was made by it.
pub async fn losses(
    caller: &Caller,
    tenant: &str,
    name: &str,
) -> Result<RelationshipLosses, Status> {
    let request = GetRelationshipLossesRequest {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
    };
    let done = caller
        .relationships()
        .get_relationship_losses(request)
        .await;
    done.map(Response::into_inner)
}

async fn get(caller: &Caller, tenant: &str, name: &str) -> Result<Relationship, Status> {
    let request = GetRelationshipRequest {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
    };
    let done = caller.relationships().get_relationship(request).await;
    done.map(Response::into_inner)
}

async fn list(caller: &Caller, parent: &str, filter: &str) -> Result<Vec<String>, Status> {
    let request = ListRelationshipsRequest {
        parent: parent.to_owned(),
        filter: filter.to_owned(),
        order_by: "display_name".to_owned(),
        ..ListRelationshipsRequest::default()
    };
    let done = caller.relationships().list_relationships(request).await?;
    let all = done.into_inner().relationships;
    Ok(all.into_iter().map(|r| r.display_name).collect())
}

fn to_role(name: &str, role: AccountRole, roles: &[i32]) -> SetRelationshipAssignmentRequest {
    SetRelationshipAssignmentRequest {
        name: name.to_owned(),
        account_role: role as i32,
        directory_roles: roles.to_vec(),
        ..SetRelationshipAssignmentRequest::default()
    }
}

fn to_group(name: &str, group: &str, roles: &[i32]) -> SetRelationshipAssignmentRequest {
    SetRelationshipAssignmentRequest {
        group: group.to_owned(),
        ..to_role(name, AccountRole::Unspecified, roles)
    }
}

/// Assigns lent roles.
async fn assign(
    caller: &Caller,
    request: SetRelationshipAssignmentRequest,
) -> Result<RelationshipAssignment, Status> {
    let done = caller
        .relationships()
        .set_relationship_assignment(request)
        .await;
    done.map(|d| d.into_inner().assignment.unwrap())
}

async fn assigned(caller: &Caller, name: &str) -> Result<Vec<RelationshipAssignment>, Status> {
    let name = name.to_owned();
    let request = ListRelationshipAssignmentsRequest { name };
    let done = caller
        .relationships()
        .list_relationship_assignments(request)
        .await;
    done.map(|d| d.into_inner().assignments)
}

#[track_caller]
fn wrong_state<T: std::fmt::Debug>(tried: Result<T, Status>, state: &str) {
    let status = refused(tried, Code::FailedPrecondition, "WRONG_STATE");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["state"], state);
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(tried: Result<T, Status>) {
    refused(tried, Code::NotFound, "RESOURCE_NOT_FOUND");
}

#[track_caller]
fn not_addressee<T: std::fmt::Debug>(tried: Result<T, Status>) {
    refused(tried, Code::FailedPrecondition, "NOT_ADDRESSEE");
}

/// A partner whose admin runs its account, and a customer.
struct World {
    contoso: TenantSite,
    account: String,
    fabrikam: TenantSite,
}

impl World {
    async fn open(site: &Site) -> Self {
        let contoso = site.tenant("contoso").await;
        let account = site.account(&contoso, "Contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        Self {
            contoso,
            account,
            fabrikam,
        }
    }

    fn partner(&self) -> &Caller {
        &self.contoso.admin.caller
    }

    fn customer(&self) -> &Caller {
        &self.fabrikam.admin.caller
    }

    async fn drafted(&self, name: &str) -> String {
        let new = asking(name, "ann@fabrikam.example");
        create(self.partner(), &self.account, new)
            .await
            .unwrap()
            .name
    }

    async fn sent(&self, name: &str) -> String {
        let draft = self.drafted(name).await;
        send(self.partner(), &draft).await.unwrap().name
    }

    async fn active(&self, name: &str, roles: &[i32]) -> String {
        let sent = self.sent(name).await;
        let done = accept(self.customer(), &self.fabrikam.name, &sent, roles).await;
        done.unwrap().name
    }
}

async fn verified(site: &Site, tenant: &TenantSite, domain: &str) {
    let request = CreateDomainRequest {
        parent: tenant.name.clone(),
        domain: Some(Domain {
            domain_name: domain.to_owned(),
            ..Domain::default()
        }),
        ..CreateDomainRequest::default()
    };
    let mut domains = tenant.admin.caller.domains();
    domains.create_domain(request).await.unwrap();
    let sql = format!("UPDATE domains SET state = 2 WHERE domain_name = '{domain}'");
    execute_on(site, &sql).await;
}

async fn in_force(site: &Site, name: &str) -> (i64, i64) {
    let of = |table: &str| {
        let id = literal(site, name);
        format!("SELECT COUNT(*) AS n FROM {table} WHERE relationship_id = {id}")
    };
    (
        number(site, &of("delegations"), []).await,
        number(site, &of("delegation_assignments"), []).await,
    )
}

/// What is counted of relationships that haven't ended is how many there are.
async fn all_open_are_counted(site: &Site) {
    let there = "SELECT COUNT(*) AS n FROM relationships WHERE state <= 3";
    let counted =
        "SELECT CAST(COALESCE(SUM(open_count), 0) AS bigint) AS n FROM relationship_counts";
    assert_eq!(
        number(site, there, []).await,
        number(site, counted, []).await
    );
}

/// A statement that makes many rows of a table `s` with numbers `n`, and random IDs.
async fn fill(site: &Site, rows: usize, statement: &str) {
    let random = match site.database {
        Database::Sqlite => "randomblob(16)",
        Database::Postgres => "gen_random_uuid()",
    };
    let numbers =
        format!("WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows})");
    let statement = statement.replace("{random}", random);
    execute_on(site, &format!("{numbers} {statement}")).await;
}

/// Relationships of an account in a state, sent then.
async fn fill_relationships(site: &Site, rows: usize, account: &str, state: State, sent: &str) {
    let (account, state) = (literal(site, account), state as i32);
    let statement = format!(
        "INSERT INTO relationships (id, account_id, kind, state, display_name, display_name_fold, message, customer_email, customer_domain, \
           requested_roles, requested_days, roles, accepted_by, agreement_number, roles_removed_by, closed_by, send_time, create_time, update_time, \
           version) \
         SELECT {{random}}, {account}, 1, {state}, 'Bulk ' || n, 'bulk ' || n, '', 'a@example.com', '', 8, 1, 0, '', 0, '', '', {sent}, 0, 0, 1 FROM s"
    );
    fill(site, rows, &statement).await;
}

/// Refused for now; for how many seconds.
#[track_caller]
fn limited<T: std::fmt::Debug>(tried: Result<T, Status>) -> u64 {
    let status = refused(tried, Code::ResourceExhausted, "TOO_MANY_CALLS");
    let retry = status.get_details_retry_info().unwrap();
    retry.retry_delay.unwrap().as_secs()
}

/// Refused for as many as there may be.
#[track_caller]
fn full<T: std::fmt::Debug>(tried: Result<T, Status>, reason: &str, most: &str) {
    let status = refused(tried, Code::ResourceExhausted, reason);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["most"], most);
}

/// Whether an event of a type is told of a relationship in so many scopes.
async fn told_in(site: &Site, kind: &str, name: &str) -> i64 {
    let sql = "SELECT COUNT(*) AS n FROM outbox WHERE type = $1 AND resource = $2";
    let kind = format!("entente.relationship.v1.{kind}");
    number(site, sql, [kind.into(), name.into()]).await
}

/// Time brings a relationship to a state, once the job that does has its turn, which comes once a minute.
async fn comes_to(site: &Site, name: &str, state: State) {
    let sql = "SELECT state AS n FROM relationships WHERE id = $1";
    eventually(async || {
        site.settle().await;
        number(site, sql, [id(name).into()]).await == state as i64
    })
    .await;
}

// proves REL-1, REL-2, REL-3, REL-4, REL-6, REL-12, REL-18, COM-4, COM-5
#[tokio::test]
async fn a_partner_asks_and_the_customer_accepts_it_with_the_agreement() {
    both(async |site| {
        let world = World::open(&site).await;
        let (ann, fay) = (world.partner(), world.customer());
        let (account, tenant) = (world.account.as_str(), world.fabrikam.name.as_str());

        // What isn't whole is told at once; an advisor needn't say its role.
        let bare = Relationship {
            display_name: "Bare".to_owned(),
            kind: RelKind::DelegatedAdmin as i32,
            ..Relationship::default()
        };
        let status = refused(
            create(ann, account, bare).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let mut wrong = fields(&status);
        wrong.sort();
        assert_eq!(
            wrong,
            ["customer_email", "requested_days", "requested_roles"]
                .map(|f| format!("relationship.{f}"))
        );
        let mut both_ways = asking("Both", "ann@fabrikam.example");
        both_ways.customer_domain = "fabrikam.example".to_owned();
        let tried = create(ann, account, both_ways).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["relationship.customer_domain"]);
        let tried = create(ann, account, by_domain("Bad", "no domain")).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["relationship.customer_domain"]);
        let mut advisor = asking("Advisor", "ann@fabrikam.example");
        advisor.kind = RelKind::Advisor as i32;
        let tried = create(ann, account, advisor.clone()).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["relationship.requested_roles"]);
        advisor.requested_roles.clear();
        let made = create(ann, account, advisor).await.unwrap();
        assert_eq!(made.requested_roles, [HELPDESK]);

        // A draft is nobody's but the partner's; it is edited, and its name is its own.
        let draft = create(ann, account, by_domain("Fabrikam", "Fabrikam.Example"))
            .await
            .unwrap();
        assert_eq!(
            (draft.state(), draft.customer_domain.as_str()),
            (State::Draft, "fabrikam.example")
        );
        let name = draft.name.as_str();
        let tried = create(ann, account, asking("FABRIKAM", "x@fabrikam.example")).await;
        refused(tried, Code::AlreadyExists, "RESOURCE_EXISTS");
        not_found(get(fay, tenant, name).await);
        not_found(accept(fay, tenant, name, &[]).await);
        let info = denied(get(fay, "", name).await).get_details_error_info();
        let other_way = info.unwrap().metadata.remove("or_set");
        assert_eq!(other_way.as_deref(), Some("tenant"));
        let mut edit = asking("Fabrikam", "ann@fabrikam.example");
        edit.name = name.to_owned();
        edit.requested_days = 50;
        let tried = update(ann, edit.clone(), &["customer_email"]).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["relationship.customer_domain"]);
        let paths = ["customer_email", "customer_domain", "requested_days"];
        let edited = update(ann, edit.clone(), &paths).await.unwrap();
        assert_eq!(
            (edited.customer_email.as_str(), edited.requested_days),
            ("ann@fabrikam.example", 50)
        );
        assert!(edited.customer_domain.is_empty());
        let stale = SendRelationshipRequest {
            name: name.to_owned(),
            etag: draft.etag.clone(),
            ..SendRelationshipRequest::default()
        };
        let tried = ann.relationships().send_relationship(stale).await;
        refused(tried, Code::Aborted, "ETAG_MISMATCH");

        // Sent, it is as it is for 90 days, and the customer finds it by its name.
        let sent = send(ann, name).await.unwrap();
        let until = sent.answer_expire_time.unwrap().seconds - sent.send_time.unwrap().seconds;
        assert_eq!((sent.state(), until), (State::Pending, 90 * DAY));
        wrong_state(update(ann, edit, &["message"]).await, "PENDING");
        let seen = get(fay, tenant, name).await.unwrap();
        assert_eq!((seen.etag, seen.customer.as_str()), (sent.etag.clone(), ""));
        assert!(list(fay, tenant, "").await.unwrap().is_empty());

        // No more roles than asked for, no longer, and only the current agreement.
        let mut request = accepting(name, tenant, &[GLOBAL, BILLING]);
        request.days = 51;
        let status = refused(
            accept_as(fay, request.clone()).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        assert_eq!(fields(&status), ["roles", "days"]);
        (request.roles, request.days) = (vec![HELPDESK], 30);
        request.agreement_version = 7;
        let tried = accept_as(fay, request.clone()).await;
        refused(tried, Code::FailedPrecondition, "NOT_CURRENT_VERSION");
        request.agreement_version = 0;
        assert!(acceptances(fay, tenant).await.unwrap().is_empty());

        // Only a global admin lends; a billing admin accepts without, a helpdesk admin not at all.
        let bill = person_as(&site, &world.fabrikam, "bill", DirectoryRole::BillingAdmin).await;
        let help = person_as(&site, &world.fabrikam, "help", DirectoryRole::HelpdeskAdmin).await;
        denied(accept_as(&bill.caller, request.clone()).await);
        denied(accept(&help.caller, tenant, name, &[]).await);
        denied(decline(&help.caller, tenant, name).await);
        denied(accept_as(ann, request.clone()).await);
        // What was sent is mailed first.
        letters(&site).await;
        let before = row_counts(&site.app).await;
        request.validate_only = true;
        accept_as(fay, request.clone()).await.unwrap();
        assert_eq!(row_counts(&site.app).await, before);
        request.validate_only = false;
        request.request_id = request_id();
        let done = accept_as(fay, request.clone()).await.unwrap();
        assert_eq!(accept_as(fay, request).await.unwrap(), done);
        assert_eq!(
            (done.state(), done.granted_roles.as_slice()),
            (State::Active, &[HELPDESK][..])
        );
        let term = done.end_time.unwrap().seconds - done.accept_time.unwrap().seconds;
        assert_eq!(
            (term, done.customer.as_str(), done.accepted_by.as_str()),
            (30 * DAY, tenant, world.fabrikam.admin.name.as_str())
        );
        assert_eq!(in_force(&site, name).await, (1, 0));
        let accepted = acceptances(fay, tenant).await.unwrap();
        assert_eq!(
            (accepted.len(), accepted[0].kind()),
            (1, AgreementKind::Customer)
        );
        assert_eq!(told_in(&site, "RelationshipAccepted", name).await, 2);

        // The billing admin accepts another one, without roles; the agreement is accepted once.
        let second = world.sent("Second").await;
        let done = accept(&bill.caller, tenant, &second, &[]).await.unwrap();
        assert!(done.granted_roles.is_empty());
        assert_eq!(acceptances(fay, tenant).await.unwrap().len(), 1);

        // Both sides list and read what is theirs.
        assert_eq!(
            list(ann, account, "").await.unwrap(),
            ["Advisor", "Fabrikam", "Second"]
        );
        let drafts = list(ann, account, "state = DRAFT AND kind = ADVISOR").await;
        assert_eq!(drafts.unwrap(), ["Advisor"]);
        assert_eq!(
            list(ann, account, "display_name:abri").await.unwrap(),
            ["Fabrikam"]
        );
        assert_eq!(list(fay, tenant, "").await.unwrap(), ["Fabrikam", "Second"]);
        assert_eq!(list(&bill.caller, tenant, "").await.unwrap().len(), 2);
        denied(list(&help.caller, tenant, "").await);
        denied(list(ann, tenant, "").await);
        let theirs = get(ann, tenant, name).await.unwrap();
        assert_eq!(theirs, get(fay, tenant, name).await.unwrap());
        not_found(get(ann, &world.contoso.name, name).await);
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves REL-5, REL-7, REL-8, REL-10
#[tokio::test]
async fn each_state_goes_only_where_the_rules_say() {
    both(async |site| {
        let world = World::open(&site).await;
        let (ann, fay) = (world.partner(), world.customer());
        let tenant = world.fabrikam.name.as_str();
        let draft = world.drafted("Draft").await;
        let pending = world.sent("Pending").await;
        let active = world.active("Active", &[HELPDESK]).await;
        let declined = world.sent("Declined").await;
        let done = decline(fay, tenant, &declined).await.unwrap();
        assert_eq!(
            (done.state(), &done.closed_by),
            (State::Declined, &world.fabrikam.admin.name)
        );
        assert_eq!(told_in(&site, "RelationshipDeclined", &declined).await, 2);
        let cancelled = world.sent("Cancelled").await;
        let done = cancel(ann, &cancelled).await.unwrap();
        assert_eq!(
            (done.state(), &done.closed_by),
            (State::Cancelled, &world.contoso.admin.name)
        );
        let expired = world.sent("Expired").await;
        let of = literal(&site, &expired);
        execute_on(
            &site,
            &format!(
                "UPDATE relationships SET due_time = 1, answer_expire_time = 1 WHERE id = {of}"
            ),
        )
        .await;
        wrong_state(accept(fay, tenant, &expired, &[]).await, "EXPIRED");
        site.advance(61).await;
        comes_to(&site, &expired, State::Expired).await;
        assert!(get(ann, "", &expired).await.unwrap().closed_by.is_empty());
        let terminated = world.active("Terminated", &[HELPDESK]).await;
        let done = terminate(ann, "", &terminated).await.unwrap();
        assert_eq!(
            (done.state(), &done.closed_by),
            (State::Terminated, &world.contoso.admin.name)
        );
        assert_eq!(in_force(&site, &terminated).await, (0, 0));

        // update, send, cancel, accept, decline, remove, terminate by each side, assign
        for (state, name, outcomes) in [
            (
                State::Draft,
                &draft,
                "ok ok ok missing missing missing missing wrong wrong",
            ),
            (
                State::Pending,
                &pending,
                "wrong wrong ok ok ok missing missing wrong wrong",
            ),
            (
                State::Active,
                &active,
                "wrong wrong wrong wrong wrong ok ok ok ok",
            ),
            (
                State::Declined,
                &declined,
                "wrong wrong wrong wrong wrong missing missing wrong wrong",
            ),
            (
                State::Cancelled,
                &cancelled,
                "wrong wrong wrong wrong wrong missing missing wrong wrong",
            ),
            (
                State::Expired,
                &expired,
                "wrong wrong wrong wrong wrong missing missing wrong wrong",
            ),
            (
                State::Terminated,
                &terminated,
                "wrong wrong wrong wrong wrong wrong wrong wrong wrong",
            ),
        ] {
            let name = name.as_str();
            let before = get(ann, "", name).await.unwrap();
            assert_eq!(before.state(), state);
            let mut new = asking("Other", "");
            new.name = name.to_owned();
            let (mut ours, mut theirs) = (ann.relationships(), fay.relationships());
            let of = || (name.to_owned(), tenant.to_owned());
            let told = [
                ours.update_relationship(UpdateRelationshipRequest {
                    relationship: Some(new),
                    update_mask: Some(mask(&["display_name"])),
                    validate_only: true,
                    ..UpdateRelationshipRequest::default()
                })
                .await
                .err(),
                ours.send_relationship(SendRelationshipRequest {
                    name: of().0,
                    validate_only: true,
                    ..SendRelationshipRequest::default()
                })
                .await
                .err(),
                ours.cancel_relationship(CancelRelationshipRequest {
                    name: of().0,
                    validate_only: true,
                    ..CancelRelationshipRequest::default()
                })
                .await
                .err(),
                theirs
                    .accept_relationship(AcceptRelationshipRequest {
                        validate_only: true,
                        ..accepting(name, tenant, &[HELPDESK])
                    })
                    .await
                    .err(),
                theirs
                    .decline_relationship(DeclineRelationshipRequest {
                        name: of().0,
                        tenant: of().1,
                        validate_only: true,
                        ..DeclineRelationshipRequest::default()
                    })
                    .await
                    .err(),
                remove(fay, tenant, name, true).await.err(),
                theirs
                    .terminate_relationship(TerminateRelationshipRequest {
                        name: of().0,
                        tenant: of().1,
                        validate_only: true,
                        ..TerminateRelationshipRequest::default()
                    })
                    .await
                    .err(),
                ours.terminate_relationship(TerminateRelationshipRequest {
                    name: of().0,
                    validate_only: true,
                    ..TerminateRelationshipRequest::default()
                })
                .await
                .err(),
                ours.set_relationship_assignment(SetRelationshipAssignmentRequest {
                    validate_only: true,
                    ..to_role(name, AccountRole::AdminAgent, &[HELPDESK])
                })
                .await
                .err(),
            ];
            let told = told.map(|refusal| match refusal {
                None => "ok",
                Some(status) if status.code() == Code::NotFound => "missing",
                Some(status) => {
                    refused::<()>(Err(status), Code::FailedPrecondition, "WRONG_STATE");
                    "wrong"
                }
            });
            assert_eq!(told.join(" "), outcomes, "{state:?}");
            assert_eq!(get(ann, "", name).await.unwrap(), before);
        }
        all_open_are_counted(&site).await;
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves REL-3
#[tokio::test]
async fn only_the_tenant_that_is_addressed_answers() {
    both(async |site| {
        let world = World::open(&site).await;
        let (ann, fay) = (world.partner(), world.customer());
        let (account, tenant) = (world.account.as_str(), world.fabrikam.name.as_str());
        let adatum = site.tenant("adatum").await;
        verified(&site, &world.fabrikam, "fabrikam.example").await;
        verified(&site, &adatum, "adatum.example").await;
        let bob = site
            .person_with(&world.fabrikam, "bob", |r| {
                r.user.as_mut().unwrap().recovery_email = "Bob@Mail.example".to_owned();
            })
            .await;
        guest(&site, tenant, &adatum.admin).await;
        let sign_in_name = bob.sign_in_name.to_uppercase();
        let asked = async |request: Relationship| {
            let made = create(ann, account, request).await.unwrap();
            send(ann, &made.name).await.unwrap().name
        };
        for (n, request) in [
            by_domain("0", "fabrikam.example"),
            asking("1", "nobody@fabrikam.example"),
            asking("2", "bob@mail.example"),
            asking("3", &sign_in_name),
        ]
        .into_iter()
        .enumerate()
        {
            let name = asked(request).await;
            not_addressee(accept(&adatum.admin.caller, &adatum.name, &name, &[]).await);
            not_addressee(decline(&adatum.admin.caller, &adatum.name, &name).await);
            not_found(get(&adatum.admin.caller, &adatum.name, &name).await);
            assert_eq!(
                get(fay, tenant, &name).await.unwrap().display_name,
                n.to_string()
            );
            let done = accept(fay, tenant, &name, &[HELPDESK]).await.unwrap();
            assert_eq!(done.customer, tenant);
        }
        // A domain stands for itself alone; a guest's address is its home's; and who is out answers for nobody.
        for request in [
            by_domain("below", "mail.fabrikam.example"),
            asking("below by address", "x@mail.fabrikam.example"),
            asking("guest", "ann@adatum.example"),
            asking("guest by name", &adatum.admin.sign_in_name),
            by_domain("nobody", "nobody.example"),
            asking("stranger", "x@nobody.example"),
        ] {
            let name = asked(request).await;
            not_addressee(accept(fay, tenant, &name, &[]).await);
            not_found(get(fay, tenant, &name).await);
        }
        let name = asked(asking("disabled", "bob@mail.example")).await;
        let request = DisableUserRequest {
            name: bob.name.clone(),
            ..DisableUserRequest::default()
        };
        fay.users().disable_user(request).await.unwrap();
        not_addressee(accept(fay, tenant, &name, &[]).await);

        // Nobody lends to itself, and the operator to nobody.
        let own = asked(asking("own", "ann@contoso.example")).await;
        let tried = accept(ann, &world.contoso.name, &own, &[HELPDESK]).await;
        refused(tried, Code::FailedPrecondition, "SELF_RELATIONSHIP");
        let operator = operator_tenant(&site).await;
        let theirs = asked(asking("operator", &operator.admin.sign_in_name)).await;
        let tried = accept(&operator.admin.caller, &operator.name, &theirs, &[]).await;
        refused(tried, Code::FailedPrecondition, "OPERATOR_TENANT");
        let missing = format!("{account}/relationships/{}", request_id());
        not_found(accept(fay, tenant, &missing, &[]).await);
    })
    .await;
}

// proves REL-2, REL-3, COM-20
#[tokio::test]
async fn the_mail_says_what_is_asked_for_and_goes_to_whom_it_is_addressed() {
    both(async |site| {
        let world = World::open(&site).await;
        let (ann, account) = (world.partner(), world.account.as_str());
        verified(&site, &world.fabrikam, "fabrikam.example").await;
        let mut names = Vec::new();
        for request in [
            by_domain("by domain", "fabrikam.example"),
            asking("by address", "who@new.example"),
            by_domain("unknown", "nobody.example"),
        ] {
            let made = create(ann, account, request).await.unwrap();
            let sent = send(ann, &made.name).await.unwrap();
            // The same answer, whether or not somebody is there.
            assert_eq!((sent.state(), sent.customer.as_str()), (State::Pending, ""));
            names.push(made.name);
        }
        let all = letters(&site).await;
        let about = |name: &str| {
            let link = format!("/relationships#{name}");
            let found = all.iter().filter(|mail| mail.text.contains(&link));
            found.collect::<Vec<_>>()
        };
        let to = |name: &str| about(name).iter().map(|m| m.to.clone()).collect::<Vec<_>>();
        assert_eq!(to(&names[0]), ["ann@fabrikam.example"]);
        assert_eq!(to(&names[1]), ["who@new.example"]);
        assert!(to(&names[2]).is_empty());
        for what in [
            "Contoso",
            "GLOBAL_ADMIN, HELPDESK_ADMIN",
            "100 days",
            "We look after you. Always.",
        ] {
            assert!(about(&names[1])[0].text.contains(what), "{what}");
        }

        // A request that is over before the job comes to it isn't mailed.
        let name = world.sent("back").await;
        cancel(ann, &name).await.unwrap();
        let before = letters(&site).await.len();
        let of = literal(&site, &name);
        let sql =
            format!("INSERT INTO relationship_mails (relationship_id, due_time) VALUES ({of}, 1)");
        execute_on(&site, &sql).await;
        assert_eq!(letters(&site).await.len(), before);
    })
    .await;
}

// proves REL-2, COM-15
#[tokio::test]
async fn the_mail_is_in_the_language_of_whom_it_goes_to() {
    both(async |site| {
        let world = World::open(&site).await;
        let (ann, account) = (world.partner(), world.account.as_str());
        verified(&site, &world.fabrikam, "fabrikam.example").await;
        let fay = id(&world.fabrikam.admin.name);
        let sql = "UPDATE credentials SET language = 'fr' WHERE user_id = $1";
        change(&site, sql, [fay.into()]).await;
        for request in [
            by_domain("theirs", "fabrikam.example"),
            asking("a stranger's", "who@new.example"),
        ] {
            let made = create(ann, account, request).await.unwrap();
            send(ann, &made.name).await.unwrap();
        }
        let all = letters(&site).await;
        let to = |to: &str| {
            let of = |m: &&Letter| m.to == to && m.text.contains("/relationships#");
            let text = &all.iter().find(of).unwrap().text;
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(to("ann@fabrikam.example").contains("100 jours"));
        assert!(to("who@new.example").contains("100 days"));
    })
    .await;
}

// proves REL-2, COM-2
#[tokio::test]
async fn sending_tells_by_nothing_whether_somebody_is_there() {
    both_asking(async |site| {
        let world = World::open(&site).await;
        let (ann, account) = (world.partner(), world.account.as_str());
        verified(&site, &world.fabrikam, "fabrikam.example").await;
        world.sent("First").await;
        letters(&site).await;
        for validate_only in [true, false] {
            let mut costs = Vec::new();
            for to in [
                by_domain("", "fabrikam.example"),
                by_domain("", "nobody.example"),
                asking("", "ann@fabrikam.example"),
                asking("", &world.fabrikam.admin.sign_in_name),
                asking("", "x@nobody.example"),
            ] {
                let named = Relationship {
                    display_name: format!("{validate_only} {}", costs.len()),
                    ..to
                };
                let request = SendRelationshipRequest {
                    name: create(ann, account, named).await.unwrap().name,
                    validate_only,
                    ..SendRelationshipRequest::default()
                };
                site.app.memory.forget_heads();
                let mut client = ann.relationships();
                let (done, cost) = site.cost_of(client.send_relationship(request)).await;
                assert_eq!(done.unwrap().into_inner().state(), State::Pending);
                costs.push(cost);
                // What is mailed is mailed before the next is sent.
                letters(&site).await;
            }
            for cost in &costs {
                assert_eq!(cost.statements, costs[0].statements);
                let asks = |what: &str| cost.statements.iter().any(|sql| sql.contains(what));
                assert!(!asks("domains") && !asks("INTO mails"), "{cost:#?}");
                assert!(asks("INTO relationship_mails"));
            }
        }
        // World's first one went to the same address.
        let all = letters(&site).await;
        let to = |to: &str| {
            let of = |m: &&Letter| m.to == to && m.text.contains("/relationships#");
            all.iter().filter(of).count()
        };
        assert_eq!((to("ann@fabrikam.example"), to("x@nobody.example")), (3, 1));
    })
    .await;
}

// proves REL-2, PWD-4, COM-18
#[tokio::test]
async fn mails_to_one_addressee_and_those_of_one_account_are_bounded() {
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::open_with(database, |c| c.limits_factor = 1).await;
        let world = World::open(&site).await;
        let adatum = site.tenant("adatum").await;
        let theirs = site.account(&adatum, "Adatum").await;
        let (ann, account) = (world.partner(), world.account.as_str());
        let mut sent = 0;
        let mut ask = async |caller: &Caller, account: &str, to: Relationship| {
            sent += 1;
            let named = Relationship {
                display_name: format!("Number {sent}"),
                ..to
            };
            let name = create(caller, account, named).await.unwrap().name;
            send(caller, &name).await.map(|_| name)
        };
        // An address counts however it is spelt, and whoever asks; so does a domain. What is taken back has been sent.
        for forms in [
            ["victim@new.example", "Victim@New.Example"].map(|to| asking("", to)),
            ["new.example", "New.Example"].map(|to| by_domain("", to)),
        ] {
            let [plain, other] = forms;
            for to in [&plain, &other, &plain, &other] {
                let name = ask(ann, account, to.clone()).await.unwrap();
                cancel(ann, &name).await.unwrap();
            }
            let by = &adatum.admin.caller;
            ask(by, &theirs, other.clone()).await.unwrap();
            for to in [plain, other] {
                let wait = limited(ask(ann, account, to.clone()).await);
                assert!((3_000..=3_600).contains(&wait), "{wait}");
                limited(ask(by, &theirs, to).await);
            }
        }
        // What an account sends within a day is bounded, wherever it goes.
        let newest = "(SELECT MAX(send_time) FROM relationships)";
        fill_relationships(&site, 191, account, State::Cancelled, newest).await;
        ask(ann, account, asking("", "last@new.example"))
            .await
            .unwrap();
        let wait = limited(ask(ann, account, asking("", "next@new.example")).await);
        assert!((86_000..=86_400).contains(&wait), "{wait}");
        let by = &adatum.admin.caller;
        ask(by, &theirs, asking("", "next@new.example"))
            .await
            .unwrap();
        site.advance(DAY + 1).await;
        let ann = again(&site, &world.contoso.admin).await;
        ask(&ann, account, asking("", "victim@new.example"))
            .await
            .unwrap();
    }
}

// proves REL-5, REL-7
#[tokio::test]
async fn time_ends_what_it_says_whenever_the_job_looks() {
    both(async |site| {
        let world = World::open(&site).await;
        let (ann, fay) = (world.partner(), world.customer());
        let tenant = world.fabrikam.name.as_str();
        let over = world.sent("Over").await;
        let early = world.sent("Early").await;
        let ended = world.active("Ended", &[HELPDESK]).await;
        let soon = world.active("Soon", &[HELPDESK]).await;
        let of = |name: &str| literal(&site, name);
        for sql in [
            format!("UPDATE relationships SET answer_expire_time = 1, due_time = 9000000000000000 WHERE id = {}", of(&over)),
            format!("UPDATE relationships SET end_time = 1, due_time = 9000000000000000 WHERE id = {}", of(&ended)),
            format!("UPDATE relationships SET due_time = 1 WHERE id IN ({}, {})", of(&early), of(&soon)),
        ] {
            execute_on(&site, &sql).await;
        }
        // Put aside by the job, and over all the same.
        wrong_state(accept(fay, tenant, &over, &[]).await, "EXPIRED");
        wrong_state(decline(fay, tenant, &over).await, "EXPIRED");
        wrong_state(cancel(ann, &over).await, "EXPIRED");
        wrong_state(remove(fay, tenant, &ended, false).await, "EXPIRED");
        wrong_state(terminate(fay, tenant, &ended).await, "EXPIRED");
        wrong_state(terminate(ann, "", &ended).await, "EXPIRED");
        // Looked at too early, and dated anew.
        let done = accept(fay, tenant, &early, &[]).await.unwrap();
        assert_eq!(done.state(), State::Active);
        site.advance(61).await;
        let late = "SELECT COUNT(*) AS n FROM relationships WHERE due_time = end_time";
        eventually(async || {
            site.settle().await;
            number(&site, late, []).await == 2
        })
        .await;
        assert_eq!(get(ann, "", &soon).await.unwrap().state(), State::Active);
        assert_eq!(in_force(&site, &soon).await, (1, 0));
    })
    .await;
}

// proves REL-18
#[tokio::test]
async fn there_are_no_more_than_there_may_be() {
    both(async |site| {
        let world = World::open(&site).await;
        let (ann, fay) = (world.partner(), world.customer());
        let (account, tenant) = (world.account.as_str(), world.fabrikam.name.as_str());

        // Of an account, 10,000 that haven't ended.
        let first = world.sent("First").await;
        fill_relationships(&site, 9_997, account, State::Draft, "NULL").await;
        let count = "UPDATE relationship_counts SET open_count = (SELECT COUNT(*) FROM relationships WHERE state <= 3)";
        execute_on(&site, count).await;
        let second = world.sent("Second").await;
        let third = world.sent("Third").await;
        let tried = create(ann, account, asking("Fourth", "x@new.example")).await;
        full(tried, "TOO_MANY_OPEN_RELATIONSHIPS", "10000");
        all_open_are_counted(&site).await;
        cancel(ann, &third).await.unwrap();
        world.drafted("Fourth").await;
        let tried = create(ann, account, asking("Fifth", "x@new.example")).await;
        full(tried, "TOO_MANY_OPEN_RELATIONSHIPS", "10000");

        // Of a customer, 1,000 in force.
        let (of_account, of_tenant) = (literal(&site, account), literal(&site, tenant));
        let sql = format!(
            "INSERT INTO delegations (relationship_id, account_id, tenant_id, roles, end_time) \
             SELECT {{random}}, {of_account}, {of_tenant}, 0, 9000000000000000 FROM s"
        );
        fill(&site, 999, &sql).await;
        accept(fay, tenant, &first, &[HELPDESK]).await.unwrap();
        let tried = accept(fay, tenant, &second, &[HELPDESK]).await;
        full(tried, "TOO_MANY_RELATIONSHIPS", "1000");
        assert_eq!(get(ann, "", &second).await.unwrap().state(), State::Pending);

        // Of a relationship, 100 assignments.
        let of = literal(&site, &first);
        let sql = format!(
            "INSERT INTO delegation_assignments (relationship_id, holder_role, holder_id, tenant_id, roles, create_time) \
             SELECT {of}, 0, {{random}}, {of_tenant}, {}, 0 FROM s",
            1 << HELPDESK
        );
        fill(&site, 99, &sql).await;
        let to = |role, roles: &[i32]| to_role(&first, role, roles);
        let (agents, helpers) = (AccountRole::AdminAgent, AccountRole::HelpdeskAgent);
        assign(ann, to(agents, &[HELPDESK])).await.unwrap();
        full(assign(ann, to(helpers, &[HELPDESK])).await, "TOO_MANY_ASSIGNMENTS", "100");
        // What is there is changed, and makes room.
        assign(ann, to(agents, &[HELPDESK])).await.unwrap();
        assign(ann, to(agents, &[])).await.unwrap();
        assign(ann, to(helpers, &[HELPDESK])).await.unwrap();
        terminate(ann, "", &first).await.unwrap();
        accept(fay, tenant, &second, &[HELPDESK]).await.unwrap();
    })
    .await;
}

// proves REL-8, REL-9, REL-10, TEN-7
#[tokio::test]
async fn lent_roles_go_on_by_assignments_until_they_are_taken_back_or_it_ends() {
    both(async |site| {
        let world = World::open(&site).await;
        let (ann, fay) = (world.partner(), world.customer());
        let (account, tenant) = (world.account.as_str(), world.fabrikam.name.as_str());
        let name = world.active("Fabrikam", &[HELPDESK, GLOBAL]).await;
        let team = group(&world.contoso, "Team", &[], None).await;
        let strange = group(&world.fabrikam, "Strange", &[], None).await;

        // Roles or groups, one of both; what was lent, and for helpdesk agents no more than their own.
        let tried = assign(ann, to_role(&name, AccountRole::Manager, &[HELPDESK])).await;
        let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&status), ["account_role"]);
        let tried = assign(ann, to_role(&name, AccountRole::Unspecified, &[HELPDESK])).await;
        assert_eq!(fields(&tried.unwrap_err()), ["account_role"]);
        let mut two = to_group(&name, &team, &[HELPDESK]);
        two.account_role = AccountRole::AdminAgent as i32;
        assert_eq!(fields(&assign(ann, two).await.unwrap_err()), ["group"]);
        let tried = assign(ann, to_role(&name, AccountRole::AdminAgent, &[BILLING])).await;
        refused(tried, Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
        let tried = assign(ann, to_role(&name, AccountRole::HelpdeskAgent, &[GLOBAL])).await;
        refused(tried, Code::FailedPrecondition, "NOT_ASSIGNABLE");
        let tried = assign(ann, to_group(&name, &strange, &[HELPDESK])).await;
        refused(tried, Code::FailedPrecondition, "NOT_IN_ASSOCIATED_TENANT");

        let done = assign(ann, to_role(&name, AccountRole::AdminAgent, &[GLOBAL]))
            .await
            .unwrap();
        assert_eq!(
            (done.account_role(), done.directory_roles.as_slice()),
            (AccountRole::AdminAgent, &[GLOBAL][..])
        );
        assert!(done.create_time.is_some());
        assign(ann, to_role(&name, AccountRole::HelpdeskAgent, &[HELPDESK]))
            .await
            .unwrap();
        assign(ann, to_group(&name, &team, &[HELPDESK, GLOBAL]))
            .await
            .unwrap();
        let all = assigned(ann, &name).await.unwrap();
        assert_eq!(all.len(), 3);
        assert!(
            all.iter()
                .any(|a| a.group == team && a.directory_roles.len() == 2)
        );
        assign(ann, to_group(&name, &team, &[])).await.unwrap();
        assert_eq!(assigned(ann, &name).await.unwrap().len(), 2);
        assert_eq!(
            events(&site, "relationship.v1.RelationshipAssignmentSet", &name).await,
            4
        );

        // A manager asks and ends, but doesn't say who acts; an agent of the helpdesk reads.
        let mia = site.person(&world.contoso, "mia").await;
        let hal = site.person(&world.contoso, "hal").await;
        add(ann, account, &[&mia], &[AccountRole::Manager])
            .await
            .unwrap();
        add(ann, account, &[&hal], &[AccountRole::HelpdeskAgent])
            .await
            .unwrap();
        denied(assign(&mia.caller, to_role(&name, AccountRole::AdminAgent, &[])).await);
        denied(assign(fay, to_role(&name, AccountRole::AdminAgent, &[])).await);
        assert_eq!(assigned(&hal.caller, &name).await.unwrap().len(), 2);
        denied(terminate(&hal.caller, "", &name).await);
        denied(assigned(fay, &name).await);

        // The customer takes the roles back; it is told what is lost, and it stays active without them.
        let bill = person_as(&site, &world.fabrikam, "bill", DirectoryRole::BillingAdmin).await;
        denied(remove(ann, tenant, &name, false).await);
        not_found(remove(ann, &world.contoso.name, &name, false).await);
        not_found(terminate(ann, &world.contoso.name, &name).await);
        let shown = remove(&bill.caller, tenant, &name, true).await.unwrap();
        assert_eq!(shown.losses.unwrap().assignment_count, 2);
        assert_eq!(in_force(&site, &name).await, (1, 2));
        let done = remove(&bill.caller, tenant, &name, false).await.unwrap();
        let row = &done.resources[0];
        assert_eq!((row.state(), row.granted_roles.len()), (State::Active, 0));
        assert_eq!(row.roles_removed_by, bill.name);
        assert!(row.roles_removed_time.is_some());
        assert_eq!(get(ann, "", &name).await.unwrap(), *row);
        assert_eq!(in_force(&site, &name).await, (1, 0));
        assert_eq!(told_in(&site, "RelationshipRolesRemoved", &name).await, 2);
        let tried = assign(ann, to_role(&name, AccountRole::AdminAgent, &[HELPDESK])).await;
        refused(tried, Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
        // Once more takes nothing.
        let again = remove(fay, tenant, &name, false).await.unwrap();
        assert_eq!(again.resources, done.resources);

        // Either side ends it; a tenant with one in force isn't deleted.
        let request = DeleteTenantRequest {
            name: tenant.to_owned(),
            ..DeleteTenantRequest::default()
        };
        let tried = fay.tenants().delete_tenant(request).await;
        let status = refused(tried, Code::FailedPrecondition, "TENANT_IN_USE");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["uses"], name);
        let done = terminate(&bill.caller, tenant, &name).await.unwrap();
        assert_eq!(
            (done.state(), &done.closed_by),
            (State::Terminated, &bill.name)
        );
        assert_eq!(told_in(&site, "RelationshipTerminated", &name).await, 2);
        let second = world.active("Second", &[HELPDESK]).await;
        assign(ann, to_role(&second, AccountRole::AdminAgent, &[HELPDESK]))
            .await
            .unwrap();
        let shown = terminate_as(&mia.caller, "", &second, true).await.unwrap();
        assert_eq!(shown.losses.unwrap().assignment_count, 1);
        assert_eq!(in_force(&site, &second).await, (1, 1));
        let done = terminate(&mia.caller, "", &second).await.unwrap();
        assert_eq!((done.granted_roles.len(), &done.closed_by), (0, &mia.name));
        for name in [&name, &second] {
            assert_eq!(in_force(&site, name).await, (0, 0));
            assert_eq!(
                get(fay, tenant, name).await.unwrap().state(),
                State::Terminated
            );
        }
        assert_eq!(
            list(fay, tenant, "state = TERMINATED").await.unwrap().len(),
            2
        );
        let request = DeleteTenantRequest {
            name: tenant.to_owned(),
            validate_only: true,
            ..DeleteTenantRequest::default()
        };
        fay.tenants().delete_tenant(request).await.unwrap();
        chains_are_intact(&site.app).await;
    })
    .await;
}

async fn suspend(site: &Site, account: &str) {
    let request = SuspendAccountRequest {
        name: account.to_owned(),
        reason: "Looked at.".to_owned(),
        ..SuspendAccountRequest::default()
    };
    let operator = site.operator().await;
    operator.accounts().suspend_account(request).await.unwrap();
}

// proves REL-5, REL-7, REL-10, COM-21
#[tokio::test]
async fn time_and_the_end_of_the_account_end_relationships() {
    both(async |site| {
        let world = World::open(&site).await;
        let account = world.account.as_str();
        let pending = world.sent("Pending").await;
        let (long, short) = (
            world.active("Long", &[HELPDESK]).await,
            world.sent("Short").await,
        );
        let mut request = accepting(&short, &world.fabrikam.name, &[HELPDESK]);
        request.days = 1;
        accept_as(world.customer(), request).await.unwrap();

        site.advance(DAY + 1).await;
        comes_to(&site, &short, State::Expired).await;
        let ann = again(&site, &world.contoso.admin).await;
        let ended = get(&ann, "", &short).await.unwrap();
        assert_eq!(
            (ended.state(), ended.granted_roles.len()),
            (State::Expired, 0)
        );
        assert!(ended.closed_by.is_empty() && ended.close_time.is_some());
        assert_eq!(in_force(&site, &short).await, (0, 0));
        assert_eq!(told_in(&site, "RelationshipExpired", &short).await, 2);
        let all = letters(&site).await;
        let link = format!("/relationships#{short}");
        let of_end = all
            .iter()
            .filter(|m| m.text.contains(&link) && m.text.contains("has ended"));
        let mut to: Vec<_> = of_end.map(|m| m.to.as_str()).collect();
        to.sort_unstable();
        assert_eq!(to, ["ann@contoso.example", "it@fabrikam.example"]);
        for (name, state) in [(&pending, State::Pending), (&long, State::Active)] {
            assert_eq!(get(&ann, "", name).await.unwrap().state(), state);
        }

        site.advance(89 * DAY).await;
        comes_to(&site, &pending, State::Expired).await;
        let ann = again(&site, &world.contoso.admin).await;
        let fay = again(&site, &world.fabrikam.admin).await;
        let gone = get(&ann, "", &pending).await.unwrap();
        assert_eq!(gone.state(), State::Expired);
        assert_eq!(told_in(&site, "RelationshipExpired", &pending).await, 1);

        // An account that may not deal with others isn't accepted; one that is over keeps nothing.
        let made = create(&ann, account, asking("Late", "ann@fabrikam.example")).await;
        let late = send(&ann, &made.unwrap().name).await.unwrap().name;
        suspend(&site, account).await;
        let tried = accept(&fay, &world.fabrikam.name, &late, &[HELPDESK]).await;
        wrong_state(tried, "SUSPENDED");
        wrong_state(send(&ann, &late).await, "SUSPENDED");
        assert_eq!(get(&ann, "", &long).await.unwrap().state(), State::Active);
        let request = CloseAccountRequest {
            name: account.to_owned(),
            ..CloseAccountRequest::default()
        };
        let operator = site.operator().await;
        operator.accounts().close_account(request).await.unwrap();
        site.advance(700).await;
        comes_to(&site, &long, State::Terminated).await;
        comes_to(&site, &late, State::Cancelled).await;
        let fay = again(&site, &world.fabrikam.admin).await;
        let ended = get(&fay, &world.fabrikam.name, &long).await.unwrap();
        assert_eq!(
            (ended.state(), ended.closed_by.as_str()),
            (State::Terminated, "")
        );
        assert_eq!(in_force(&site, &long).await, (0, 0));
        let sql = "SELECT state AS n FROM relationships WHERE id = $1";
        let state = number(&site, sql, [id(&late).into()]).await;
        assert_eq!(state, State::Cancelled as i64);
        all_open_are_counted(&site).await;
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves REL-2, AGR-5
#[tokio::test]
async fn a_partner_asks_only_while_it_trades_under_the_agreement() {
    both(async |site| {
        let world = World::open(&site).await;
        let (ann, account) = (world.partner(), world.account.as_str());
        let draft = world.drafted("Draft").await;
        let at = now(&site).await;
        let dated = version(AgreementKind::PartnerNetwork, None, Some(at + 60));
        publish(&site.operator().await, dated).await.unwrap();
        send(ann, &draft).await.unwrap();
        site.advance(61).await;
        for tried in [
            create(ann, account, asking("Next", "x@new.example")).await,
            send(ann, &draft).await,
        ] {
            refused(tried, Code::FailedPrecondition, "AGREEMENT_REQUIRED");
        }
        // What only takes away works all the same.
        cancel(ann, &draft).await.unwrap();
        let plain: Person = site.person(&world.contoso, "paul").await;
        let paul = site.sign_in(&plain.sign_in_name, PASSWORD).await;
        denied(create(&paul, account, asking("Paul's", "x@new.example")).await);
        denied(list(&paul, account, "").await);
    })
    .await;
}
