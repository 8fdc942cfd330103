//! Acting for a customer: what a relationship lends, to whom, until when; and what both sides are told (REL-9, REL-14, REL-22).

mod at_once;
mod credentials;

use entente::proto::{
    access::{
        AccessCheck, AccessDecision, AccountRole, CheckAccessRequest, ExplainAccessRequest,
        TestMyPermissionsRequest,
    },
    audit::AuditEvent,
    directory::{DeleteGroupsRequest, DirectoryRole, UpdateTenantRequest, User},
    relationship::{
        AcceptRelationshipRequest, CreateCustomerUserRequest, CreateCustomerUserResponse,
        CreateRelationshipRequest, DisableCustomerUserRequest, ListCustomerUsersRequest,
        Relationship, RelationshipKind, RemoveRelationshipRolesRequest,
        ResetCustomerUserPasswordRequest, ResetCustomerUserPasswordResponse,
        SendRelationshipRequest, SetRelationshipAssignmentRequest, TerminateRelationshipRequest,
    },
};
use tonic::{Code, Response, Status};

use crate::{
    associations::{associate, dissociate},
    attacks::replica,
    claims::chains_are_intact,
    groups::{group, joining, synchronize},
    harness::{
        Caller, Person, Site, TenantSite, both, fields, new_user, refused, request_id, rights,
    },
    members::{add, update},
    people::{
        People as _, Service, again, application, audited, change, denied, events, id,
        sign_in_by_key,
    },
};

const DAY: i64 = 86_400;
const GLOBAL: DirectoryRole = DirectoryRole::GlobalAdmin;
const HELPDESK: DirectoryRole = DirectoryRole::HelpdeskAdmin;

/// A partner's account and a customer, with a relationship that lends, and whose roles are assigned to ADMIN_AGENT.
pub struct Lending {
    pub partner: TenantSite,
    pub account: String,
    pub customer: TenantSite,
    pub relationship: String,
}

fn numbers(roles: &[DirectoryRole]) -> Vec<i32> {
    roles.iter().map(|role| *role as i32).collect()
}

/// A request that a partner sends to a customer's admin; gives its name.
pub async fn asked(
    partner: &Caller,
    account: &str,
    email: &str,
    roles: &[DirectoryRole],
) -> String {
    let request = CreateRelationshipRequest {
        parent: account.to_owned(),
        relationship: Some(Relationship {
            display_name: request_id(),
            kind: RelationshipKind::DelegatedAdmin as i32,
            customer_email: email.to_owned(),
            requested_roles: numbers(roles),
            requested_days: 100,
            ..Relationship::default()
        }),
        ..CreateRelationshipRequest::default()
    };
    let made = partner.relationships().create_relationship(request).await;
    let name = made.unwrap().into_inner().name;
    let request = SendRelationshipRequest {
        name: name.clone(),
        ..SendRelationshipRequest::default()
    };
    partner
        .relationships()
        .send_relationship(request)
        .await
        .unwrap();
    name
}

/// A customer accepts, and lends these roles.
pub async fn accepted(
    customer: &TenantSite,
    relationship: &str,
    roles: &[DirectoryRole],
) -> Result<Relationship, Status> {
    let request = AcceptRelationshipRequest {
        name: relationship.to_owned(),
        tenant: customer.name.clone(),
        roles: numbers(roles),
        language_code: "en".to_owned(),
        ..AcceptRelationshipRequest::default()
    };
    let admin = &customer.admin.caller;
    let done = admin.relationships().accept_relationship(request).await;
    done.map(Response::into_inner)
}

async fn assign(
    by: &Caller,
    relationship: &str,
    change: impl FnOnce(&mut SetRelationshipAssignmentRequest),
) -> Result<(), Status> {
    let mut request = SetRelationshipAssignmentRequest {
        name: relationship.to_owned(),
        ..SetRelationshipAssignmentRequest::default()
    };
    change(&mut request);
    let done = by
        .relationships()
        .set_relationship_assignment(request)
        .await;
    done.map(drop)
}

fn to_role(
    role: AccountRole,
    roles: &[DirectoryRole],
) -> impl FnOnce(&mut SetRelationshipAssignmentRequest) {
    move |request| {
        request.account_role = role as i32;
        request.directory_roles = numbers(roles);
    }
}

fn to_group(
    group: &str,
    roles: &[DirectoryRole],
) -> impl FnOnce(&mut SetRelationshipAssignmentRequest) {
    move |request| {
        request.group = group.to_owned();
        request.directory_roles = numbers(roles);
    }
}

/// A relationship by which a customer lends these roles to an account, for its ADMIN_AGENTs.
pub async fn lent_to(
    agent: &Caller,
    account: &str,
    (customer, email): (&TenantSite, &str),
    roles: &[DirectoryRole],
) -> String {
    let relationship = asked(agent, account, email, roles).await;
    accepted(customer, &relationship, roles).await.unwrap();
    let to = to_role(AccountRole::AdminAgent, roles);
    assign(agent, &relationship, to).await.unwrap();
    relationship
}

impl Lending {
    /// A customer lends these roles, and they go to the ADMIN_AGENTs.
    pub async fn of(site: &Site, roles: &[DirectoryRole]) -> Self {
        let partner = site.tenant("contoso").await;
        let account = site.account(&partner, "Contoso").await;
        let customer = site.tenant("fabrikam").await;
        let by = (&customer, "ann@fabrikam.example");
        let relationship = lent_to(&partner.admin.caller, &account, by, roles).await;
        Self {
            partner,
            account,
            customer,
            relationship,
        }
    }

    /// The partner's admin agent.
    pub fn agent(&self) -> &Caller {
        &self.partner.admin.caller
    }

    pub async fn list(&self, by: &Caller) -> Result<Vec<User>, Status> {
        let request = ListCustomerUsersRequest {
            parent: self.customer.name.clone(),
            relationship: self.relationship.clone(),
            ..ListCustomerUsersRequest::default()
        };
        let done = by.delegated_admin().list_customer_users(request).await?;
        Ok(done.into_inner().users)
    }

    pub fn creating(&self, user_name: &str) -> CreateCustomerUserRequest {
        CreateCustomerUserRequest {
            parent: self.customer.name.clone(),
            relationship: self.relationship.clone(),
            user: new_user("", user_name).user,
            ..CreateCustomerUserRequest::default()
        }
    }

    pub async fn create(
        &self,
        by: &Caller,
        request: CreateCustomerUserRequest,
    ) -> Result<CreateCustomerUserResponse, Status> {
        let done = by.delegated_admin().create_customer_user(request).await;
        done.map(Response::into_inner)
    }

    pub async fn reset(
        &self,
        by: &Caller,
        user: &str,
    ) -> Result<ResetCustomerUserPasswordResponse, Status> {
        let request = ResetCustomerUserPasswordRequest {
            name: user.to_owned(),
            relationship: self.relationship.clone(),
            ..ResetCustomerUserPasswordRequest::default()
        };
        let mut client = by.delegated_admin();
        let done = client.reset_customer_user_password(request).await;
        done.map(Response::into_inner)
    }

    pub async fn disable(&self, by: &Caller, user: &str) -> Result<User, Status> {
        let request = DisableCustomerUserRequest {
            name: user.to_owned(),
            relationship: self.relationship.clone(),
            ..DisableCustomerUserRequest::default()
        };
        let done = by.delegated_admin().disable_customer_user(request).await;
        done.map(Response::into_inner)
    }

    async fn removed(&self) {
        let request = RemoveRelationshipRolesRequest {
            name: self.relationship.clone(),
            tenant: self.customer.name.clone(),
            ..RemoveRelationshipRolesRequest::default()
        };
        let admin = &self.customer.admin.caller;
        let done = admin
            .relationships()
            .remove_relationship_roles(request)
            .await;
        done.unwrap();
    }

    async fn terminated(&self, by: &Caller, tenant: &str) {
        let request = TerminateRelationshipRequest {
            name: self.relationship.clone(),
            tenant: tenant.to_owned(),
            ..TerminateRelationshipRequest::default()
        };
        let done = by.relationships().terminate_relationship(request).await;
        done.unwrap();
    }
}

/// The audit events of a chain that were done by a relationship.
async fn by_relationship(caller: &Caller, chain: &str, relationship: &str) -> Vec<AuditEvent> {
    let mut all = audited(caller, chain, "").await.unwrap();
    all.retain(|event| event.relationship == relationship);
    all
}

// proves REL-14, REL-9, PWD-6, COM-10
#[tokio::test]
async fn an_agent_acts_for_a_customer_and_both_sides_read_who_by_what() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let agent = lending.agent();
        let seen = lending.list(agent).await.unwrap();
        assert_eq!(seen[0].name, lending.customer.admin.name);

        let request = CreateCustomerUserRequest {
            request_id: request_id(),
            ..lending.creating("bob")
        };
        let checked = CreateCustomerUserRequest {
            validate_only: true,
            ..request.clone()
        };
        let checked = lending.create(agent, checked).await.unwrap();
        assert_eq!(checked.temporary_password, "");
        let made = lending.create(agent, request.clone()).await.unwrap();
        assert!(!made.link_mailed && !made.secret_omitted);
        let bob = made.user.unwrap();
        // Who holds nothing signs in with what the agent was shown.
        let caller = site
            .settle_in(&bob.sign_in_name, &made.temporary_password)
            .await;
        caller.who_am_i().await.unwrap();
        let again = lending.create(agent, request).await.unwrap();
        assert_eq!(again.user.unwrap().name, bob.name);
        assert!(again.secret_omitted && again.temporary_password.is_empty());
        assert_eq!(
            events(&site, "directory.v1.UserCreated", &bob.name).await,
            1
        );

        let reset = lending.reset(agent, &bob.name).await.unwrap();
        assert!(!reset.link_mailed && reset.ended_session_count > 0);
        caller.who_am_i().await.unwrap_err();
        let caller = site
            .settle_in(&bob.sign_in_name, &reset.temporary_password)
            .await;
        lending.disable(agent, &bob.name).await.unwrap();
        caller.who_am_i().await.unwrap_err();

        let theirs = by_relationship(
            &lending.customer.admin.caller,
            &lending.customer.name,
            &lending.relationship,
        )
        .await;
        let ours = by_relationship(agent, &lending.account, &lending.relationship).await;
        for chain in [&theirs, &ours] {
            let told: Vec<_> = chain
                .iter()
                .map(|e| e.action.rsplit('/').next().unwrap())
                .collect();
            let done = [
                "CreateCustomerUser",
                "ResetCustomerUserPassword",
                "DisableCustomerUser",
            ];
            assert_eq!(told, done);
            assert!(chain.iter().all(|e| e.actor == lending.partner.admin.name
                && e.via.is_empty()
                && e.outcome == "OK"
                && e.resources == [bob.name.clone()]));
        }
        let same = |a: &AuditEvent, b: &AuditEvent| a.event_id == b.event_id;
        assert!(theirs.iter().zip(&ours).all(|(a, b)| same(a, b)));
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves REL-22, ROL-8
#[tokio::test]
async fn what_is_lent_opens_nothing_but_its_own_calls_by_its_own_relationship() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let agent = lending.agent();
        let there = &lending.customer;
        // Not what the tenant's own people call.
        denied(agent.list(&there.name, "").await);
        denied(agent.user(&there.admin.name).await);
        denied(agent.reset(&there.admin.name).await);
        denied(agent.disable(&there.admin.name).await);
        denied(
            agent
                .users()
                .create_user(new_user(&there.name, "eve"))
                .await,
        );
        denied(agent.assign(&there.admin.name, &[]).await);
        denied(audited(agent, &there.name, "").await);
        denied(
            agent
                .tenants()
                .update_tenant(UpdateTenantRequest {
                    tenant: Some(entente::proto::directory::Tenant {
                        name: there.name.clone(),
                        display_name: "Ours".to_owned(),
                        ..Default::default()
                    }),
                    ..UpdateTenantRequest::default()
                })
                .await,
        );

        // Another tenant, a relationship that isn't there, one of another account: one and the same refusal.
        let other = site.tenant("woodgrove").await;
        let theirs = site.account(&other, "Woodgrove").await;
        let ours = &lending.relationship;
        let none = format!("{}/relationships/{}", lending.account, id(&other.name));
        let moved = format!("{theirs}/relationships/{}", id(ours));
        for (parent, relationship) in [
            (&other.name, ours),
            (&there.name, &none),
            (&there.name, &moved),
        ] {
            let request = ListCustomerUsersRequest {
                parent: parent.clone(),
                relationship: relationship.clone(),
                ..ListCustomerUsersRequest::default()
            };
            denied(agent.delegated_admin().list_customer_users(request).await);
        }
        // An agent of another account doesn't by naming its own account with this relationship.
        let request = ListCustomerUsersRequest {
            parent: there.name.clone(),
            relationship: moved,
            ..ListCustomerUsersRequest::default()
        };
        let by = other
            .admin
            .caller
            .delegated_admin()
            .list_customer_users(request)
            .await;
        denied(by);
        denied(lending.list(&other.admin.caller).await);
        denied(lending.list(&there.admin.caller).await);
        refused(
            lending.list(&site.nobody()).await,
            Code::Unauthenticated,
            "CREDENTIALS_MISSING",
        );

        // Who is lent GLOBAL_ADMIN makes a global admin, and gives no other role; nor is a group or a membership given.
        let mut request = lending.creating("carl");
        for roles in [&[HELPDESK][..], &[GLOBAL, HELPDESK]] {
            let user = request.user.as_mut().unwrap();
            user.directory_roles = numbers(roles);
            user.recovery_email = "carl@mail.example".to_owned();
            let tried = lending.create(agent, request.clone()).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), ["user.directory_roles"]);
        }
        request.user.as_mut().unwrap().recovery_email.clear();
        request.user.as_mut().unwrap().directory_roles = numbers(&[GLOBAL]);
        let status = lending.create(agent, request).await.unwrap_err();
        assert_eq!(fields(&status), ["user.recovery_email"]);
        // A tenant keeps its last global admin, whoever acts.
        let last = lending.disable(agent, &there.admin.name).await;
        refused(last, Code::FailedPrecondition, "LAST_GLOBAL_ADMIN");
    })
    .await;
}

// proves REL-9, PWD-5
#[tokio::test]
async fn a_helpdesk_role_lends_what_it_allows_and_a_helpdesk_agent_gets_no_more() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL, HELPDESK]).await;
        let (agent, there) = (lending.agent(), &lending.customer);
        let plain = site.person(there, "plain").await;
        let hal = site.person(&lending.partner, "hal").await;
        let may = [AccountRole::HelpdeskAgent];
        add(agent, &lending.account, &[&hal], &may).await.unwrap();
        // What goes to the other role doesn't reach it.
        denied(lending.list(&hal.caller).await);
        let to = to_role(AccountRole::HelpdeskAgent, &[GLOBAL]);
        refused(
            assign(agent, &lending.relationship, to).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        let to = to_role(AccountRole::HelpdeskAgent, &[HELPDESK]);
        assign(agent, &lending.relationship, to).await.unwrap();
        assert_eq!(lending.list(&hal.caller).await.unwrap().len(), 2);
        lending.reset(&hal.caller, &plain.name).await.unwrap();
        // As with the tenant's own helpdesk: nobody who holds anything.
        denied(lending.reset(&hal.caller, &there.admin.name).await);
        denied(lending.disable(&hal.caller, &plain.name).await);
        denied(lending.create(&hal.caller, lending.creating("eve")).await);

        // Nor does a group make more of it.
        let everybody = group(&lending.partner, "Everybody", &[&hal], None).await;
        let to = to_group(&everybody, &[GLOBAL]);
        assign(agent, &lending.relationship, to).await.unwrap();
        denied(lending.create(&hal.caller, lending.creating("eve")).await);
        // Nor is anybody in it who may not act for customers at all.
        let dev = site.person(&lending.partner, "dev").await;
        let may = [AccountRole::Developer];
        add(agent, &lending.account, &[&dev], &may).await.unwrap();
        let join = joining(&everybody, &[&dev.name]);
        agent.groups().add_group_members(join).await.unwrap();
        denied(lending.list(&dev.caller).await);
        // What isn't lent is assigned to nobody.
        let to = to_role(AccountRole::AdminAgent, &[DirectoryRole::BillingAdmin]);
        refused(
            assign(agent, &lending.relationship, to).await,
            Code::PermissionDenied,
            "CANNOT_GRANT_WHAT_YOU_LACK",
        );
    })
    .await;
}

// proves REL-22, ROL-7
#[tokio::test]
async fn who_joins_somebody_to_a_group_that_acts_for_customers_gives_what_it_has() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let (agent, relationship) = (lending.agent(), &lending.relationship);
        let to = to_role(AccountRole::AdminAgent, &[]);
        assign(agent, relationship, to).await.unwrap();
        denied(lending.list(agent).await);
        let crew = group(&lending.partner, "Crew", &[], None).await;
        assign(agent, relationship, to_group(&crew, &[GLOBAL]))
            .await
            .unwrap();
        denied(lending.list(agent).await);

        // Runs the tenant, and may not say who acts for customers.
        let bea = crate::people::second_admin(&site, &lending.partner, "bea").await;
        let join = joining(&crew, &[&lending.partner.admin.name]);
        let tried = bea.caller.groups().add_group_members(join.clone()).await;
        refused(tried, Code::PermissionDenied, "CANNOT_GRANT_WHAT_YOU_LACK");
        denied(lending.list(agent).await);
        agent.groups().add_group_members(join).await.unwrap();
        lending.list(agent).await.unwrap();
        // What a local directory fills brings nobody to run a customer's tenant (ROL-12).
        let filled = group(&lending.partner, "Filled", &[], None).await;
        synchronize(&site, "user_groups", &filled).await;
        refused(
            assign(agent, relationship, to_group(&filled, &[GLOBAL])).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        // A group of a tenant that has nothing to do with the account gets nothing.
        let other = site.tenant("woodgrove").await;
        let strangers = group(&other, "Strangers", &[], None).await;
        refused(
            assign(agent, relationship, to_group(&strangers, &[GLOBAL])).await,
            Code::FailedPrecondition,
            "NOT_IN_ASSOCIATED_TENANT",
        );
    })
    .await;
}

// proves ATK-20, ROL-12
#[tokio::test]
async fn no_key_acts_for_a_customer() {
    both(async |site| {
        let lending = Lending::of(&site, &[HELPDESK]).await;
        let agent = lending.agent();
        let to = to_role(AccountRole::HelpdeskAgent, &[HELPDESK]);
        assign(agent, &lending.relationship, to).await.unwrap();
        let bot = application(agent, &lending.partner.name, "Bot").await;
        let principals = [bot.name.as_str()];
        let adding = crate::members::adding(
            &lending.account,
            &principals,
            Some(rights(&[AccountRole::HelpdeskAgent])),
        );
        agent.members().add_members(adding).await.unwrap();
        let secret = agent.key(&bot.name).await.unwrap().secret;
        let tokens = sign_in_by_key(&site, &bot.client_id, &secret)
            .await
            .unwrap();
        let bot = site.with_token(&tokens.access_token);
        denied(lending.list(&bot).await);
    })
    .await;
}

/// What ends an agent's acting, each by itself, at its next call, on another replica too.
async fn ends_at_once(name: &str, end: impl AsyncFn(&Site, &Lending, &Person)) {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let gus = site.person(&lending.partner, "gus").await;
        let roles = [AccountRole::AdminAgent];
        let (agent, account) = (lending.agent(), &lending.account);
        add(agent, account, &[&gus], &roles).await.unwrap();
        let (channel, _folder) = replica(&site).await;
        let far = Caller {
            channel,
            ..gus.caller.clone()
        };
        let here = [&gus.caller, &far];
        for (i, by) in here.iter().enumerate() {
            // Asked for twice, so that it is remembered where it can be.
            for _ in 0..2 {
                lending.list(by).await.unwrap();
            }
            let request = lending.creating(&format!("early{i}"));
            lending.create(by, request).await.unwrap();
        }
        end(&site, &lending, &gus).await;
        for by in here {
            let read = lending.list(by).await.map(drop);
            let wrote = lending.create(by, lending.creating("late")).await;
            for status in [read.unwrap_err(), wrote.map(drop).unwrap_err()] {
                let known = [Code::PermissionDenied, Code::Unauthenticated];
                assert!(known.contains(&status.code()), "{name}: {status:?}");
            }
        }
    })
    .await;
}

// proves ATK-12, ROL-10, REL-8
#[tokio::test]
async fn roles_that_the_customer_takes_back_end_at_the_next_call() {
    ends_at_once("removed", async |_, lending, _| lending.removed().await).await;
}

// proves ATK-12, REL-10
#[tokio::test]
async fn a_relationship_that_either_side_ends_ends_at_the_next_call() {
    ends_at_once("by the customer", async |_, lending, _| {
        let admin = &lending.customer.admin.caller;
        lending.terminated(admin, &lending.customer.name).await;
    })
    .await;
    ends_at_once("by the partner", async |_, lending, _| {
        lending.terminated(lending.agent(), "").await;
    })
    .await;
}

// proves ATK-12, REL-9
#[tokio::test]
async fn an_assignment_that_is_taken_away_ends_at_the_next_call() {
    ends_at_once("unassigned", async |_, lending, _| {
        let to = to_role(AccountRole::AdminAgent, &[]);
        assign(lending.agent(), &lending.relationship, to)
            .await
            .unwrap();
    })
    .await;
}

// proves ATK-12, ROL-10
#[tokio::test]
async fn an_agent_who_is_one_no_more_is_out_at_the_next_call() {
    ends_at_once("role", async |_, lending, gus| {
        let member = gus.member_of(&lending.account);
        let none = rights(&[AccountRole::Developer]);
        let changes = [(member.as_str(), none)];
        update(lending.agent(), &lending.account, &changes)
            .await
            .unwrap();
    })
    .await;
    ends_at_once("disabled", async |_, lending, gus| {
        lending.agent().disable(&gus.name).await.unwrap();
    })
    .await;
}

// proves ATK-12, ROL-10, TEN-4
#[tokio::test]
async fn agents_of_a_tenant_that_leaves_the_account_are_out_at_the_next_call() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let agent = lending.agent();
        let other = site.tenant("woodgrove").await;
        let admin = &lending.partner.admin;
        associate(admin, &lending.account, &other.admin)
            .await
            .unwrap();
        let may = [AccountRole::AdminAgent];
        let theirs = [&other.admin];
        let by = &other.admin.caller;
        add(by, &lending.account, &theirs, &[]).await.unwrap();
        let member = other.admin.member_of(&lending.account);
        let changes = [(member.as_str(), rights(&may))];
        update(agent, &lending.account, &changes).await.unwrap();
        lending.list(&other.admin.caller).await.unwrap();
        dissociate(agent, &lending.account, &other.name)
            .await
            .unwrap();
        denied(lending.list(&other.admin.caller).await);
        lending.list(agent).await.unwrap();
    })
    .await;
}

// proves REL-7
#[tokio::test]
async fn what_is_lent_ends_with_its_term_before_any_job_has_run() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        lending.list(lending.agent()).await.unwrap();
        site.advance(100 * DAY - 60).await;
        let agent = again(&site, &lending.partner.admin).await;
        lending.list(&agent).await.unwrap();
        site.advance(60).await;
        denied(lending.list(&agent).await);
        denied(lending.create(&agent, lending.creating("late")).await);
    })
    .await;
}

// proves ACC-13, ROL-13, REL-2
#[tokio::test]
async fn who_sleeps_or_whose_account_is_suspended_changes_nothing_for_a_customer() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let agent = lending.agent();
        let gus = site.person(&lending.partner, "gus").await;
        let may = [AccountRole::AdminAgent];
        add(agent, &lending.account, &[&gus], &may).await.unwrap();
        lending.list(&gus.caller).await.unwrap();
        // Somebody else set the credential: for 72 hours it opens no customer.
        let reset = agent.reset(&gus.name).await.unwrap();
        let asleep = site
            .settle_in(&gus.sign_in_name, &reset.temporary_password)
            .await;
        refused(
            lending.list(&asleep).await,
            Code::FailedPrecondition,
            "RIGHTS_ASLEEP",
        );
        agent.wake(&gus.name).await.unwrap();
        lending.list(&asleep).await.unwrap();

        let sql = "UPDATE accounts SET state = 4 WHERE id = $1";
        change(&site, sql, [id(&lending.account).into()]).await;
        refused(
            lending.create(agent, lending.creating("bob")).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        refused(
            lending.list(agent).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        let portal = Service::open(&site).await.caller(&site).await;
        let who = &lending.partner.admin.name;
        let told = check(&portal, who, &["users.read"], &lending.customer.name).await;
        assert!(!told[0].allowed);
        // Whom nothing is lent to is refused as ever.
        denied(lending.list(&lending.customer.admin.caller).await);
    })
    .await;
}

// proves REL-22, REL-9
#[tokio::test]
async fn groups_lose_what_is_lent_with_their_tenant_and_by_being_deleted() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let (agent, account) = (lending.agent(), &lending.account);
        let other = site.tenant("woodgrove").await;
        let admin = &lending.partner.admin;
        associate(admin, account, &other.admin).await.unwrap();
        let crew = group(&other, "Crew", &[&other.admin], None).await;
        let ours = group(&lending.partner, "Ours", &[admin], None).await;
        for group in [&crew, &ours] {
            let to = to_group(group, &[GLOBAL]);
            assign(agent, &lending.relationship, to).await.unwrap();
        }
        let count = async || {
            let request = entente::proto::relationship::ListRelationshipAssignmentsRequest {
                name: lending.relationship.clone(),
            };
            let mut client = agent.relationships();
            let all = client.list_relationship_assignments(request).await;
            all.unwrap().into_inner().assignments.len()
        };
        assert_eq!(count().await, 3);
        dissociate(agent, account, &other.name).await.unwrap();
        assert_eq!(count().await, 2);
        associate(admin, account, &other.admin).await.unwrap();
        assert_eq!(count().await, 2);
        let request = DeleteGroupsRequest {
            parent: lending.partner.name.clone(),
            names: vec![ours],
            ..DeleteGroupsRequest::default()
        };
        agent.groups().delete_groups(request).await.unwrap();
        assert_eq!(count().await, 1);
        let told = audited(agent, account, "").await.unwrap();
        let deleted = |event: &&AuditEvent| event.action.ends_with("/DeleteGroups");
        assert_eq!(told.iter().filter(deleted).count(), 1);
        chains_are_intact(&site.app).await;
    })
    .await;
}

// proves REL-8, REL-14
#[tokio::test]
async fn a_customer_is_none_of_its_partners_own_tenants() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let (admin, customer) = (&lending.partner.admin, &lending.customer);
        refused(
            associate(admin, &lending.account, &customer.admin).await,
            Code::FailedPrecondition,
            "SELF_RELATIONSHIP",
        );
        lending.terminated(lending.agent(), "").await;
        associate(admin, &lending.account, &customer.admin)
            .await
            .unwrap();
    })
    .await;
}

// proves COM-2
#[tokio::test]
async fn a_stranger_hears_by_nothing_whether_a_tenant_has_partners() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let alone = site.tenant("alone").await;
        let woodgrove = site.tenant("woodgrove").await;
        let theirs = site.account(&woodgrove, "Woodgrove").await;
        let stranger = &woodgrove.admin.caller;
        let ask = async |tenant: &str| {
            let request = TestMyPermissionsRequest {
                resource: tenant.to_owned(),
                permissions: vec!["users.read".to_owned()],
            };
            let done = stranger.access().test_my_permissions(request).await;
            assert!(done.unwrap().into_inner().permissions.is_empty());
            let request = ListCustomerUsersRequest {
                parent: tenant.to_owned(),
                relationship: format!("{theirs}/relationships/{}", id(&theirs)),
                ..ListCustomerUsersRequest::default()
            };
            let mut client = stranger.delegated_admin();
            denied(client.list_customer_users(request).await);
        };
        // What is known of the stranger itself; then again and again, so that what is remembered of one would show.
        ask(&lending.partner.name).await;
        for _ in 0..3 {
            let ((), of_customer) = site.cost_of(ask(&lending.customer.name)).await;
            let ((), of_other) = site.cost_of(ask(&alone.name)).await;
            let told = |cost: &crate::cost::Cost| cost.statements.len();
            assert_eq!(told(&of_customer), told(&of_other));
        }
    })
    .await;
}

async fn check(portal: &Caller, who: &str, what: &[&str], tenant: &str) -> Vec<AccessDecision> {
    let checks = what.iter().map(|permission| AccessCheck {
        principal: who.to_owned(),
        permission: (*permission).to_owned(),
        resource: tenant.to_owned(),
    });
    let request = CheckAccessRequest {
        checks: checks.collect(),
    };
    let done = portal.access().check_access(request).await.unwrap();
    done.into_inner().decisions
}

// proves COM-17, REL-14
#[tokio::test]
async fn access_that_is_lent_is_told_with_its_relationship() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let portal = Service::open(&site).await.caller(&site).await;
        let (agent, there) = (&lending.partner.admin, &lending.customer.name);
        let asked = ["users.create", "tenant.delete", "users.update"];
        let told = check(&portal, &agent.name, &asked, there).await;
        let allowed: Vec<bool> = told.iter().map(|d| d.allowed).collect();
        assert_eq!(allowed, [true, false, false]);
        let because = format!("GLOBAL_ADMIN lent by {}", lending.relationship);
        assert_eq!(told[0].because, [because]);

        let request = TestMyPermissionsRequest {
            resource: there.clone(),
            permissions: asked.iter().map(|p| (*p).to_owned()).collect(),
        };
        let mine = agent.caller.access().test_my_permissions(request).await;
        assert_eq!(mine.unwrap().into_inner().permissions, ["users.create"]);

        let request = ExplainAccessRequest {
            principal: agent.name.clone(),
            permission: "users.create".to_owned(),
            resource: there.clone(),
        };
        let admin = &lending.customer.admin.caller;
        let why = admin.access().explain_access(request).await.unwrap();
        let steps = why.into_inner().steps;
        let lends = format!("{} lends it GLOBAL_ADMIN", lending.relationship);
        assert!(
            steps.iter().any(|step| step.starts_with(&lends)),
            "{steps:?}"
        );

        lending.removed().await;
        let told = check(&portal, &agent.name, &["users.create"], there).await;
        assert!(!told[0].allowed);
    })
    .await;
}

// proves COM-16, REL-14, COM-10
#[tokio::test]
async fn a_service_acts_for_an_agent_within_its_ceiling_and_audit_names_all() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let service = Service::open(&site).await;
        let portal = service.caller(&site).await;
        let by = site.on_behalf(&portal, &lending.partner.admin.caller);
        let made = lending.create(&by, lending.creating("bob")).await.unwrap();
        let admin = &lending.customer.admin.caller;
        let chain = by_relationship(admin, &lending.customer.name, &lending.relationship).await;
        let last = chain.last().unwrap();
        assert_eq!(
            (last.actor.as_str(), last.via.as_str(), &last.resources),
            (
                lending.partner.admin.name.as_str(),
                service.name.as_str(),
                &vec![made.user.unwrap().name]
            )
        );
        for (ceiling, may_list, may_create) in [
            ("delegated.act,users.read", true, false),
            ("users.read,users.create", false, false),
            ("delegated.act,users.read,users.create", true, true),
        ] {
            let sql = "UPDATE grants SET on_behalf_ceiling = $1 WHERE scope_kind = 0 AND principal_id = $2";
            change(&site, sql, [ceiling.into(), id(&service.name).into()]).await;
            let listed = lending.list(&by).await.is_ok();
            let request = lending.creating(&format!("u{}", ceiling.len()));
            let created = lending.create(&by, request).await.is_ok();
            assert_eq!((listed, created), (may_list, may_create), "{ceiling}");
        }
    })
    .await;
}
