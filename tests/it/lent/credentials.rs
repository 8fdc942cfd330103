//! The credentials of a customer's admins whom a partner makes or resets: they reach the customer's people, and no partner (REL-14).

use entente::proto::{
    access::AccountRole,
    directory::{DirectoryRole, NewMembership, User},
    relationship::RelationshipLosses,
};
use tonic::Code;

use super::{GLOBAL, Lending, lent_to, numbers};
use crate::{
    groups::{group, joining},
    guests::switch,
    harness::{Caller, Database, PASSWORD, Person, Site, both, refused, request_id, rights},
    members::{add, adding},
    people::{
        People as _, again, ask_recovery, change, denied, guest, id, letters, link_invalid,
        mailed_link, named, recover, second_admin,
    },
    relationships::{self, terminate_as},
};

const NEW: &str = "a-second-good-phrase-47";

/// How many mails of a subject went to an address.
async fn told(site: &Site, to: &str, subject: &str) -> usize {
    let all = letters(site).await;
    let of = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    all.iter()
        .filter(|letter| letter.to == to && of(&letter.text).contains(subject))
        .count()
}

/// An agent makes a global admin, with an address of the agent's choice; gives its name and sign-in name.
async fn admin_made(lending: &Lending, agent: &Caller, address: &str) -> (String, String) {
    let mut request = lending.creating("newadmin");
    request.request_id = request_id();
    let user = request.user.as_mut().unwrap();
    user.directory_roles = numbers(&[GLOBAL]);
    user.recovery_email = address.to_owned();
    let made = lending.create(agent, request.clone()).await.unwrap();
    assert!(made.link_mailed && !made.secret_omitted);
    assert_eq!(made.temporary_password, "");
    let again = lending.create(agent, request).await.unwrap();
    assert!(again.link_mailed && !again.secret_omitted);
    let user = made.user.unwrap();
    assert_eq!(user.directory_roles, numbers(&[GLOBAL]));
    assert!(user.rights_asleep_until.is_some());
    (user.name, user.sign_in_name)
}

// proves REL-14, REL-22
#[tokio::test]
async fn a_new_admin_is_the_customers_and_the_partner_gets_no_way_in() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let agent = lending.agent();
        let address = "mallory@contoso.example";
        let (name, sign_in_name) = admin_made(&lending, agent, address).await;
        assert_eq!(
            told(&site, "ann@fabrikam.example", "Your partner made").await,
            1
        );
        assert_eq!(told(&site, address, "Choose").await, 0);
        // Nor by asking: the address is the agent's choice, and whoever reads it would run the tenant.
        ask_recovery(&site, &sign_in_name).await.unwrap();
        assert_eq!(told(&site, address, "entl_").await, 0);

        let token = mailed_link(&site, "it@fabrikam.example").await.unwrap();
        recover(&site, &token, NEW).await.unwrap();
        link_invalid(recover(&site, &token, NEW).await);
        let caller = site.sign_in(&sign_in_name, NEW).await;
        caller.user(&lending.customer.admin.name).await.unwrap();
        // Still not; until the person says that the address is its own.
        ask_recovery(&site, &sign_in_name).await.unwrap();
        assert_eq!(told(&site, address, "entl_").await, 0);
        caller.set_contact(&name, address).await.unwrap();
        ask_recovery(&site, &sign_in_name).await.unwrap();
        assert_eq!(told(&site, address, "entl_").await, 1);
    })
    .await;
}

// proves REL-14
#[tokio::test]
async fn a_lost_admin_comes_back_by_the_address_on_file() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let (agent, ann) = (lending.agent(), &lending.customer.admin);
        let reset = lending.reset(agent, &ann.name).await.unwrap();
        assert!(reset.link_mailed && reset.ended_session_count > 0);
        assert_eq!(reset.temporary_password, "");
        ann.caller.who_am_i().await.unwrap_err();
        refused(
            site.tokens(&ann.sign_in_name, PASSWORD).await,
            Code::Unauthenticated,
            "SIGN_IN_FAILED",
        );
        let token = mailed_link(&site, "ann@fabrikam.example").await.unwrap();
        // The link is the notice: none that speaks of a temporary password.
        assert_eq!(
            told(&site, "ann@fabrikam.example", "temporary password").await,
            0
        );
        assert_eq!(told(&site, "it@fabrikam.example", "entl_").await, 0);
        recover(&site, &token, NEW).await.unwrap();
        let caller = site.sign_in(&ann.sign_in_name, NEW).await;
        caller.user(&ann.name).await.unwrap();
    })
    .await;
}

// proves REL-14
#[tokio::test]
async fn who_has_no_address_comes_back_by_the_tenants_contact_and_all_admins_hear() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let agent = lending.agent();
        let billing = DirectoryRole::BillingAdmin;
        let bill = crate::people::person_as(&site, &lending.customer, "bill", billing).await;
        let reset = lending.reset(agent, &bill.name).await.unwrap();
        assert!(reset.link_mailed);
        let token = mailed_link(&site, "it@fabrikam.example").await.unwrap();
        recover(&site, &token, NEW).await.unwrap();
        site.sign_in(&bill.sign_in_name, NEW).await;
        assert_eq!(
            told(&site, "ann@fabrikam.example", "Your partner reset").await,
            1
        );

        // Without either the agent is shown a temporary one, and the admins are told all the same.
        let sql = "UPDATE tenants SET contact_email = '' WHERE id = $1";
        change(&site, sql, [id(&lending.customer.name).into()]).await;
        let reset = lending.reset(agent, &bill.name).await.unwrap();
        assert!(!reset.link_mailed && !reset.temporary_password.is_empty());
        assert_eq!(
            told(&site, "ann@fabrikam.example", "Your partner reset").await,
            2
        );
        let caller = site
            .settle_in(&bill.sign_in_name, &reset.temporary_password)
            .await;
        caller.who_am_i().await.unwrap();
    })
    .await;
}

// proves REL-14, REL-22
#[tokio::test]
async fn who_is_shut_out_and_holds_something_is_not_reset() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let (agent, there) = (lending.agent(), &lending.customer);
        let amy = second_admin(&site, there, "amy").await;
        lending.disable(agent, &amy.name).await.unwrap();
        let ann = "ann@fabrikam.example";
        assert_eq!(told(&site, ann, "Your partner disabled").await, 1);
        refused(
            lending.reset(agent, &amy.name).await,
            Code::FailedPrecondition,
            "WRONG_STATE",
        );
        there.admin.caller.enable(&amy.name).await.unwrap();
        again(&site, &amy).await.who_am_i().await.unwrap();
        lending.reset(agent, &amy.name).await.unwrap();
    })
    .await;
}

// proves REL-8, REL-14, COM-18
#[tokio::test]
async fn nobody_who_holds_something_is_kept_out_by_resets() {
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::open_with(database, |c| c.limits_factor = 1).await;
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let (agent, ann) = (lending.agent(), &lending.customer.admin.name);
        for _ in 0..5 {
            lending.reset(agent, ann).await.unwrap();
        }
        let tried = lending.reset(agent, ann).await;
        refused(tried, Code::ResourceExhausted, "TOO_MANY_CALLS");
    }
}

// proves REL-8, REL-14, ROL-9
#[tokio::test]
async fn a_customer_keeps_an_admin_of_its_own() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let (agent, ann) = (lending.agent(), &lending.customer.admin);
        admin_made(&lending, agent, "mallory@contoso.example").await;
        // Whom nobody of the customer's has become yet ends nothing that is lent.
        refused(
            lending.disable(agent, &ann.name).await,
            Code::FailedPrecondition,
            "LAST_GLOBAL_ADMIN",
        );
        ann.caller.who_am_i().await.unwrap();
        let token = mailed_link(&site, "it@fabrikam.example").await.unwrap();
        recover(&site, &token, NEW).await.unwrap();
        lending.disable(agent, &ann.name).await.unwrap();
    })
    .await;
}

// proves ROL-9, REL-14
#[tokio::test]
async fn who_is_still_to_choose_a_password_is_nobody_who_is_left() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let ann = &lending.customer.admin;
        let address = "mallory@contoso.example";
        let (name, sign_in_name) = admin_made(&lending, lending.agent(), address).await;
        let alone = |tried| refused(tried, Code::FailedPrecondition, "LAST_GLOBAL_ADMIN");
        alone(ann.caller.disable(&ann.name).await);
        // The link is void for whoever was shut out, and then nobody can be the new one.
        let token = mailed_link(&site, "it@fabrikam.example").await.unwrap();
        ann.caller.disable(&name).await.unwrap();
        ann.caller.enable(&name).await.unwrap();
        link_invalid(recover(&site, &token, NEW).await);
        alone(ann.caller.disable(&ann.name).await);
        lending.reset(lending.agent(), &name).await.unwrap();
        let token = mailed_link(&site, "it@fabrikam.example").await.unwrap();
        recover(&site, &token, NEW).await.unwrap();
        let caller = site.sign_in(&sign_in_name, NEW).await;
        ann.caller.disable(&ann.name).await.unwrap();
        caller.user(&ann.name).await.unwrap();
    })
    .await;
}

// proves REL-14
#[tokio::test]
async fn every_admin_hears_of_a_new_one_whatever_address_that_was_given() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let ann = "ann@fabrikam.example";
        admin_made(&lending, lending.agent(), ann).await;
        assert!(told(&site, ann, "Your partner made").await > 0);
    })
    .await;
}

// proves REL-22, ATK-5
#[tokio::test]
async fn an_address_that_was_set_with_a_password_that_a_partner_knew_is_no_way_in() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let (agent, ann) = (lending.agent(), &lending.customer.admin.caller);
        let bob = site.person(&lending.customer, "bob").await;
        let reset = lending.reset(agent, &bob.name).await.unwrap();
        let mallory = site
            .settle_in(&bob.sign_in_name, &reset.temporary_password)
            .await;
        let address = "mallory@contoso.example";
        mallory.set_contact(&bob.name, address).await.unwrap();
        // What the partner knows opens nothing, neither here nor on the customer's accounts, nor by a group.
        let billing = [DirectoryRole::BillingAdmin];
        let theirs = site.account(&lending.customer, "Fabrikam").await;
        let may = [AccountRole::Developer];
        let held = NewMembership {
            account: theirs.clone(),
            rights: Some(rights(&may)),
        };
        let fabrikam = &lending.customer;
        let crew = group(fabrikam, "Crew", &[&fabrikam.admin], Some(held)).await;
        let with_bob = group(fabrikam, "With Bob", &[&bob], None).await;
        let not_yet = [
            ann.assign(&bob.name, &billing).await.map(drop),
            add(ann, &theirs, &[&bob], &may).await.map(drop),
            { ann.members() }
                .add_members(adding(&theirs, &[&with_bob], Some(rights(&may))))
                .await
                .map(drop),
            { ann.groups() }
                .add_group_members(joining(&crew, &[&bob.name]))
                .await
                .map(drop),
        ];
        for tried in not_yet {
            let status = refused(tried, Code::FailedPrecondition, "NOT_ASSIGNABLE");
            assert!(status.message().contains("a partner was shown"), "{status}");
        }
        add(ann, &theirs, &[&bob], &[]).await.unwrap();
        // A password from the customer's own doesn't make the address the person's. Who holds nothing comes back by it, as anybody does; with a
        // link that is good until then.
        let reset = ann.reset(&bob.name).await.unwrap();
        ask_recovery(&site, &bob.sign_in_name).await.unwrap();
        let early = mailed_link(&site, address).await.unwrap();
        let into_crew = joining(&crew, &[&bob.name]);
        ann.groups().add_group_members(into_crew).await.unwrap();
        link_invalid(recover(&site, &early, NEW).await);
        ann.assign(&bob.name, &billing).await.unwrap();
        ask_recovery(&site, &bob.sign_in_name).await.unwrap();
        assert_eq!(told(&site, address, "entl_").await, 1);
        assert_eq!(told(&site, address, "No link").await, 1);
        let caller = site
            .settle_in(&bob.sign_in_name, &reset.temporary_password)
            .await;
        caller
            .set_contact(&bob.name, "bob@fabrikam.example")
            .await
            .unwrap();
        ask_recovery(&site, &bob.sign_in_name).await.unwrap();
        assert_eq!(told(&site, "bob@fabrikam.example", "entl_").await, 1);
    })
    .await;
}

// proves REL-22, REL-14
#[tokio::test]
async fn a_password_that_is_chosen_by_a_partners_address_is_one_that_it_knows() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let ann = &lending.customer.admin.caller;
        let mut request = lending.creating("carl");
        let address = "mallory@contoso.example";
        request.user.as_mut().unwrap().recovery_email = address.to_owned();
        let made = lending.create(lending.agent(), request).await.unwrap();
        let carl = made.user.unwrap();
        ann.reset(&carl.name).await.unwrap();
        ask_recovery(&site, &carl.sign_in_name).await.unwrap();
        let token = mailed_link(&site, address).await.unwrap();
        recover(&site, &token, NEW).await.unwrap();
        refused(
            ann.assign(&carl.name, &[GLOBAL]).await,
            Code::FailedPrecondition,
            "NOT_ASSIGNABLE",
        );
        // A deleted one that comes back has a password of the customer's.
        ann.delete(&carl.name).await.unwrap();
        ann.undelete(&carl.name, "").await.unwrap();
        let billing = [DirectoryRole::BillingAdmin];
        ann.assign(&carl.name, &billing).await.unwrap();
    })
    .await;
}

// proves REL-22
#[tokio::test]
async fn an_address_that_the_customers_admin_sets_is_the_persons() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let address = "new@fabrikam.example";
        let (name, sign_in_name) = admin_made(&lending, lending.agent(), address).await;
        ask_recovery(&site, &sign_in_name).await.unwrap();
        assert_eq!(told(&site, address, "entl_").await, 0);
        // Not by being there while something else is changed.
        let ann = &lending.customer.admin.caller;
        let whole = User {
            family_name: "Renamed".to_owned(),
            ..ann.user(&name).await.unwrap()
        };
        ann.update(whole, &[]).await.unwrap();
        ask_recovery(&site, &sign_in_name).await.unwrap();
        assert_eq!(told(&site, address, "entl_").await, 0);
        let user = User {
            recovery_email: address.to_owned(),
            ..named(&name)
        };
        ann.update(user, &["recovery_email"]).await.unwrap();
        ask_recovery(&site, &sign_in_name).await.unwrap();
        assert_eq!(told(&site, address, "entl_").await, 1);
    })
    .await;
}

// proves REL-14, PWD-3
#[tokio::test]
async fn a_partners_guest_resets_nobody_who_it_is_at_home() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let (partner, customer) = (&lending.partner, &lending.customer);
        let bob = site.person(customer, "bob").await;
        let guest = Person {
            name: guest(&site, &partner.name, &bob).await,
            sign_in_name: String::new(),
            caller: bob.caller.clone(),
        };
        let may = [AccountRole::AdminAgent];
        let (agent, account) = (lending.agent(), &lending.account);
        add(agent, account, &[&guest], &may).await.unwrap();
        let tokens = switch(&bob.caller, &partner.name).await.unwrap();
        let caller = site.with_token(&tokens.access_token);
        lending.list(&caller).await.unwrap();
        refused(
            lending.reset(&caller, &bob.name).await,
            Code::PermissionDenied,
            "OWN_CREDENTIAL",
        );
        bob.caller.who_am_i().await.unwrap();
        lending.reset(agent, &bob.name).await.unwrap();
    })
    .await;
}

// proves TEN-5, REL-14
#[tokio::test]
async fn a_tenant_that_a_local_directory_fills_gets_an_admin_back_and_nobody_else() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let sql = "UPDATE tenants SET synchronized = TRUE WHERE id = $1";
        change(&site, sql, [id(&lending.customer.name).into()]).await;
        let agent = lending.agent();
        refused(
            lending.create(agent, lending.creating("bob")).await,
            Code::FailedPrecondition,
            "DIRECTORY_SYNCHRONIZED",
        );
        admin_made(&lending, agent, "new@fabrikam.example").await;
    })
    .await;
}

// proves REL-14, REL-8
#[tokio::test]
async fn what_was_made_is_listed_as_the_roles_are_taken_back() {
    both(async |site| {
        let lending = Lending::of(&site, &[GLOBAL]).await;
        let agent = again(&site, &lending.partner.admin).await;
        let mut made = Vec::new();
        for name in ["one", "two"] {
            let done = lending.create(&agent, lending.creating(name)).await;
            made.push(done.unwrap().user.unwrap().name);
        }
        let request = entente::proto::relationship::RemoveRelationshipRolesRequest {
            name: lending.relationship.clone(),
            tenant: lending.customer.name.clone(),
            ..Default::default()
        };
        let admin = &lending.customer.admin.caller;
        let done = admin
            .relationships()
            .remove_relationship_roles(request)
            .await;
        let losses = done.unwrap().into_inner().losses.unwrap();
        made.reverse();
        assert_eq!(losses.made_users, made);

        // And when it ends, and after; the partner isn't told which are there still.
        let (name, tenant) = (&lending.relationship, &lending.customer.name);
        let shown = terminate_as(&agent, "", name, true).await.unwrap();
        assert_eq!(shown.losses, Some(RelationshipLosses::default()));
        for validate_only in [true, false] {
            let done = terminate_as(admin, tenant, name, validate_only).await;
            assert_eq!(done.unwrap().losses.unwrap().made_users, made);
            assert_eq!(
                relationships::losses(admin, tenant, name)
                    .await
                    .unwrap()
                    .made_users,
                made
            );
        }
        admin.delete(&made[0]).await.unwrap();
        let left = relationships::losses(admin, tenant, name).await.unwrap();
        assert_eq!(left.made_users, made[1..]);
        denied(relationships::losses(&agent, tenant, name).await);
        let tried = relationships::losses(&agent, &lending.partner.name, name).await;
        refused(tried, Code::NotFound, "RESOURCE_NOT_FOUND");
    })
    .await;
}

// proves REL-14, REL-8
#[tokio::test]
async fn a_password_that_was_shown_is_listed_by_whom_it_was_shown_to() {
    both(async |site| {
        let first = Lending::of(&site, &[GLOBAL]).await;
        let ann = first.customer.admin.caller.clone();
        let bob = site.person(&first.customer, "bob").await.name;
        first.reset(first.agent(), &bob).await.unwrap();
        ann.reset(&bob).await.unwrap();
        let made = first.create(first.agent(), first.creating("carl")).await;
        let carl = made.unwrap().user.unwrap().name;
        let partner = site.tenant("woodgrove").await;
        let account = site.account(&partner, "Woodgrove").await;
        let by = (&first.customer, "ann@fabrikam.example");
        let relationship = lent_to(&partner.admin.caller, &account, by, &[GLOBAL]).await;
        let known_by = first.relationship.clone();
        let second = Lending {
            partner,
            account,
            customer: first.customer,
            relationship,
        };
        for user in [&bob, &carl] {
            second.reset(second.agent(), user).await.unwrap();
        }
        let listed = async |relationship: &str| {
            let told = relationships::losses(&ann, &second.customer.name, relationship);
            let mut users = told.await.unwrap().made_users;
            users.sort_unstable();
            users
        };
        // Who was made by one stays listed there too.
        assert_eq!(listed(&known_by).await, std::slice::from_ref(&carl));
        let mut both = vec![bob, carl];
        both.sort_unstable();
        assert_eq!(listed(&second.relationship).await, both);
    })
    .await;
}
