//! A scope that somebody holds for long, over PostgreSQL: whoever needs it waits or leaves, and nobody else waits with them (COM-13).

use std::{future::Future, time::Duration};

use entente::proto::{
    access::AccountRole,
    directory::{
        CreateUserRequest, ListTenantsRequest, PasswordCredential, SignInRequest,
        sign_in_request::Credential,
    },
};
use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::{
    claims::chains_are_intact,
    harness::{Database, Held, PASSWORD, Person, Site, new_user, rights, wait_for_locks},
    members::add,
    people::{guest, id},
};

/// Holds the head of a scope.
async fn held(site: &Site, name: &str) -> Held {
    let sql = format!(
        "SELECT 1 FROM heads WHERE scope_id = '{}' FOR UPDATE",
        id(name)
    );
    Held::by(site.url.as_ref().unwrap(), &sql).await
}

/// What has nothing to do with the held scope is there long before that is free.
async fn at_once<T>(call: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(8), call).await;
    done.expect("it waits for what it has nothing to do with")
}

fn made_by(person: &Person, tenant: &str, user_name: &str) -> impl Future<Output = ()> + use<> {
    let (caller, request) = (person.caller.clone(), new_user(tenant, user_name));
    async move {
        caller.users().create_user(request).await.unwrap();
    }
}

fn signing_in(sign_in_name: &str) -> SignInRequest {
    let credential = PasswordCredential {
        sign_in_name: sign_in_name.to_owned(),
        password: PASSWORD.to_owned(),
    };
    SignInRequest {
        credential: Some(Credential::Password(credential)),
        request_id: String::new(),
    }
}

// proves COM-13
#[tokio::test]
async fn calls_of_a_held_tenant_keep_no_lane_from_the_calls_of_others() {
    let site = Site::open(Database::Postgres).await;
    let slow = site.tenant("slow").await;
    let mut others = Vec::new();
    // Some of them share its lane, whichever that is.
    for n in 0..8 {
        others.push(site.tenant(&format!("other{n}")).await);
    }
    let hold = held(&site, &slow.name).await;
    let mut waiting = JoinSet::new();
    for n in 0..6 {
        waiting.spawn(made_by(&slow.admin, &slow.name, &format!("slow{n}")));
    }
    wait_for_locks(site.url.as_ref().unwrap(), 1).await;
    for round in 0..2 {
        let mut calls = JoinSet::new();
        for other in &others {
            for n in 0..2 {
                let name = format!("user{round}x{n}");
                calls.spawn(made_by(&other.admin, &other.name, &name));
            }
        }
        at_once(calls.join_all()).await;
    }
    assert_eq!(waiting.len(), 6);
    hold.release().await;
    waiting.join_all().await;
    chains_are_intact(&site.app).await;
}

// proves COM-13, COM-18
#[tokio::test]
async fn whoever_waits_for_a_held_tenant_takes_no_connections_from_others_nor_by_leaving() {
    let site = Site::open(Database::Postgres).await;
    let operator = site.operator().await;
    let slow = site.tenant("slow").await;
    let hold = held(&site, &slow.name).await;
    let mut waiting = JoinSet::new();
    for n in 0..60 {
        let caller = slow.admin.caller.clone();
        let mut request = Request::new(CreateUserRequest {
            validate_only: true,
            ..new_user(&slow.name, &format!("user{n}"))
        });
        request.set_timeout(Duration::from_millis(200));
        waiting.spawn(async move {
            let left = caller.users().create_user(request).await.unwrap_err();
            // Its own clock or the server's, whichever is first.
            let late = [Code::Cancelled, Code::DeadlineExceeded];
            assert!(late.contains(&left.code()), "{left}");
        });
    }
    waiting.join_all().await;
    let list = async || {
        let mut client = operator.tenants();
        at_once(client.list_tenants(ListTenantsRequest::default()))
            .await
            .unwrap();
    };
    list().await;
    // Nor do those whose tenant is found on the way only.
    let mut waiting = JoinSet::new();
    for _ in 0..40 {
        let (nobody, request) = (site.nobody(), signing_in(&slow.admin.sign_in_name));
        waiting.spawn(async move { nobody.sessions().sign_in(request).await });
    }
    wait_for_locks(site.url.as_ref().unwrap(), 1).await;
    for _ in 0..5 {
        list().await;
    }
    hold.release().await;
    for signed_in in waiting.join_all().await {
        signed_in.unwrap();
    }
}

// proves ROL-9
#[tokio::test]
async fn whoever_gives_a_guest_something_waits_for_whoever_shuts_it_out_at_home() {
    let site = Site::open(Database::Postgres).await;
    let contoso = site.tenant("contoso").await;
    let fabrikam = site.tenant("fabrikam").await;
    let account = site.account(&contoso, "Contoso").await;
    let hal = site.person(&fabrikam, "hal").await;
    let gwen = Person {
        name: guest(&site, &contoso.name, &hal).await,
        ..hal.clone()
    };
    let hold = held(&site, &fabrikam.name).await;
    let (caller, account) = (contoso.admin.caller.clone(), account.clone());
    let given = tokio::spawn(async move {
        let may = [AccountRole::Manager];
        add(&caller, &account, &[&gwen], &may).await
    });
    wait_for_locks(site.url.as_ref().unwrap(), 1).await;
    assert!(!given.is_finished());
    hold.release().await;
    let members = given.await.unwrap().unwrap();
    assert_eq!(members[0].rights, Some(rights(&[AccountRole::Manager])));
}
