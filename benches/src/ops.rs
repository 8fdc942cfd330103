//! The calls that are measured.

use std::sync::Arc;

use tonic::{Status, transport::Channel};

use crate::{
    load::Op,
    seed::{Open, Person},
    site::PASSWORD,
    wire::{
        EchoRequest, EchoServiceClient, Token, Wire,
        access::{AccessCheck, CheckAccessRequest, access_service_client::AccessServiceClient},
        by,
        directory::{
            CreateUserRequest, GetUserRequest, ListUsersRequest, PasswordCredential, SignInRequest,
            User, session_service_client::SessionServiceClient, sign_in_request::Credential,
            user_service_client::UserServiceClient,
        },
        request_id,
    },
};

/// Bytes of an echo: about as many as an answer with a user in it.
const ECHOED: usize = 256;
/// A permission that developers of an account have.
const PERMISSION: &str = "offers.manage";

/// A bare echo.
pub fn echo(wire: &Wire) -> Op {
    let (wire, payload) = (wire.clone(), vec![7; ECHOED]);
    Arc::new(move |caller, _| {
        let (mut client, payload) = (EchoServiceClient::new(wire.of(caller)), payload.clone());
        Box::pin(async move {
            let told = client.echo(EchoRequest { payload }).await?.into_inner();
            wrong(told.payload.len() == ECHOED)
        })
    })
}

/// An answer that isn't what it is to be counts as refused.
fn wrong(right: bool) -> Result<(), Status> {
    if right {
        Ok(())
    } else {
        #[expect(
            clippy::disallowed_methods,
            reason = "a client's, which no caller is told"
        )]
        Err(Status::data_loss("not the answer"))
    }
}

/// Reads one of these users, as one of those who have these tokens.
pub fn get_user(open: &Open, users: &[String]) -> Op {
    let (wire, tokens, users) = (open.wire.clone(), open.tokens.clone(), users.to_vec());
    Arc::new(move |caller, random| {
        let mut client = UserServiceClient::new(wire.of(caller));
        let name = users[random.usize(..users.len())].clone();
        let request = by(&tokens[caller % tokens.len()], GetUserRequest { name });
        Box::pin(async move {
            let user = client.get_user(request).await?.into_inner();
            wrong(!user.etag.is_empty())
        })
    })
}

/// Reads oneself: each caller in its own tenant.
pub fn get_self(open: &Open) -> Op {
    let (wire, tokens, people) = (open.wire.clone(), open.tokens.clone(), open.people.clone());
    Arc::new(move |caller, random| {
        let mut client = UserServiceClient::new(wire.of(caller));
        let who = random.usize(..people.len());
        let name = people[who].name.clone();
        let request = by(&tokens[who], GetUserRequest { name });
        Box::pin(async move { client.get_user(request).await.map(drop) })
    })
}

/// Reads a page of 50 users.
pub fn list_users(open: &Open, tenant: &str, page_token: &str) -> Op {
    let (wire, token) = (open.wire.clone(), open.tokens[0].clone());
    let (parent, page_token) = (tenant.to_owned(), page_token.to_owned());
    Arc::new(move |caller, _| {
        let mut client = UserServiceClient::new(wire.of(caller));
        let request = ListUsersRequest {
            parent: parent.clone(),
            page_token: page_token.clone(),
            ..ListUsersRequest::default()
        };
        let request = by(&token, request);
        Box::pin(async move {
            let page = client.list_users(request).await?.into_inner();
            wrong(page.users.len() == 50)
        })
    })
}

/// Asks about one of these people, or about all of them, each of whom may.
pub fn check(wire: &Wire, token: &Token, account: &str, people: &[String], batch: usize) -> Op {
    let (wire, token, account) = (wire.clone(), token.clone(), account.to_owned());
    let people = people.to_vec();
    Arc::new(move |caller, random| {
        let mut client = AccessServiceClient::new(wire.of(caller));
        let first = random.usize(..people.len());
        let checks = (0..batch).map(|n| AccessCheck {
            principal: people[(first + n) % people.len()].clone(),
            permission: PERMISSION.to_owned(),
            resource: account.clone(),
        });
        let request = CheckAccessRequest {
            checks: checks.collect(),
        };
        let request = by(&token, request);
        Box::pin(async move {
            let told = client.check_access(request).await?.into_inner();
            wrong(told.decisions.len() == batch && told.decisions.iter().all(|d| d.allowed))
        })
    })
}

/// Makes a user in one of these tenants, as its admin.
pub fn create(wire: &Wire, tokens: &[Token], admins: &[Person]) -> Op {
    let (wire, tokens) = (wire.clone(), tokens.to_vec());
    let tenants: Vec<String> = admins.iter().map(Person::tenant).collect();
    Arc::new(move |caller, random| {
        let channel = wire.of(caller);
        let which = random.usize(..tenants.len());
        let (token, tenant) = (tokens[which].clone(), tenants[which].clone());
        let word = format!("u{:012x}", random.u64(..) >> 16);
        let request = request_id(random);
        Box::pin(async move {
            let user = create_user(channel, &token, &tenant, &word, &request).await?;
            wrong(user.user_name == word)
        })
    })
}

/// Makes a user with a temporary password.
pub async fn create_user(
    channel: Channel,
    token: &Token,
    tenant: &str,
    word: &str,
    request_id: &str,
) -> Result<User, Status> {
    let request = CreateUserRequest {
        parent: tenant.to_owned(),
        user: Some(User {
            user_name: word.to_owned(),
            given_name: "Given".to_owned(),
            family_name: word.to_owned(),
            ..User::default()
        }),
        request_id: request_id.to_owned(),
        ..CreateUserRequest::default()
    };
    let mut client = UserServiceClient::new(channel);
    let made = client.create_user(by(token, request)).await?;
    Ok(made.into_inner().user.unwrap_or_default())
}

/// Signs one of these people in.
pub fn sign_in(open: &Open) -> Op {
    let (wire, people) = (open.wire.clone(), open.people.clone());
    Arc::new(move |caller, random| {
        let mut client = SessionServiceClient::new(wire.of(caller));
        let credential = PasswordCredential {
            sign_in_name: people[random.usize(..people.len())].sign_in_name.clone(),
            password: PASSWORD.to_owned(),
        };
        let request = SignInRequest {
            credential: Some(Credential::Password(credential)),
            ..SignInRequest::default()
        };
        Box::pin(async move {
            let tokens = client.sign_in(request).await?.into_inner();
            wrong(!tokens.access_token.is_empty())
        })
    })
}
