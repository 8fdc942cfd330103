//! The calls that are measured.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tonic::{Code, Status, transport::Channel};

use crate::{
    load::Op,
    seed::{Open, Person},
    site::PASSWORD,
    wire::{
        EchoRequest, EchoServiceClient, Token, Wire,
        access::{AccessCheck, CheckAccessRequest, access_service_client::AccessServiceClient},
        account::{
            Account, AccountState, AgreementConsent, Contact, CreateAccountRequest,
            ListReviewsRequest, PostalAddress, SellerContact,
            account_service_client::AccountServiceClient,
            verification_service_client::VerificationServiceClient,
        },
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

/// Asks for a user of another tenant, who is there or isn't: both are refused, and nobody is to tell them apart by time (COM-2).
pub fn refused(open: &Open, there: bool) -> Op {
    let (wire, tokens, people) = (open.wire.clone(), open.tokens.clone(), open.people.clone());
    Arc::new(move |caller, random| {
        let mut client = UserServiceClient::new(wire.of(caller));
        let who = random.usize(..people.len());
        let other = &people[(who + random.usize(1..people.len())) % people.len()];
        let name = if there {
            other.name.clone()
        } else {
            format!("{}/users/{}", other.tenant(), request_id(random))
        };
        let request = by(&tokens[who], GetUserRequest { name });
        Box::pin(async move {
            match client.get_user(request).await {
                Err(status) if status.code() == Code::PermissionDenied => Ok(()),
                told => told.and_then(|_| wrong(false)),
            }
        })
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

/// Opens an account all in one, as a tenant's admin: each with a membership of the network that nobody used yet.
pub fn open_account(open: &Open, memberships: &Arc<Memberships>) -> Op {
    let (wire, tokens) = (open.wire.clone(), open.tokens.clone());
    let memberships = memberships.clone();
    Arc::new(move |caller, random| {
        let mut client = AccountServiceClient::new(wire.of(caller));
        let (tenant, membership) = memberships.next();
        let word = format!("c{:012x}", random.u64(..) >> 16);
        let request = CreateAccountRequest {
            account: Some(company(&word)),
            network_membership: membership,
            submit: true,
            signatory_confirmed: true,
            agreement: Some(AgreementConsent {
                version: 0,
                language_code: "en".to_owned(),
            }),
            request_id: request_id(random),
            ..CreateAccountRequest::default()
        };
        let request = by(&tokens[tenant], request);
        Box::pin(async move {
            let made = client.create_account(request).await?.into_inner();
            let state = made.account.map(|a| a.state());
            wrong(state == Some(AccountState::Pending))
        })
    })
}

/// Memberships of the network, each good for one account: those of each tenant in turn.
pub struct Memberships {
    names: Vec<String>,
    tenants: usize,
    used: AtomicUsize,
}

impl Memberships {
    /// The first is the first tenant's, the next the next one's, and so on.
    pub fn of(names: Vec<String>, tenants: usize) -> Arc<Self> {
        Arc::new(Self {
            names,
            tenants,
            used: AtomicUsize::new(0),
        })
    }

    /// The tenant's number and the membership; none is left when they are used up, which the service refuses and the page tells.
    fn next(&self) -> (usize, String) {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        let name = self.names.get(number).cloned().unwrap_or_default();
        (number % self.tenants, name)
    }
}

/// A company that lacks nothing; the word is in its names.
fn company(word: &str) -> Account {
    let contact = |name: &str| Contact {
        display_name: format!("{name} Company"),
        email: format!("{name}@{word}.example"),
        phone_number: "+33142685300".to_owned(),
    };
    let address = PostalAddress {
        region_code: "FR".to_owned(),
        postal_code: "75008".to_owned(),
        locality: "Paris".to_owned(),
        address_lines: vec!["1 rue Royale".to_owned()],
        ..PostalAddress::default()
    };
    Account {
        publisher_display_name: word.to_owned(),
        legal_name: format!("{word} SA"),
        country_code: "FR".to_owned(),
        address: Some(address.clone()),
        primary_contact: Some(contact("paula")),
        seller_contact: Some(SellerContact {
            contact: Some(contact("sam")),
            address: Some(address),
        }),
        company_approver: Some(contact("ada")),
        ..Account::default()
    }
}

/// Reads a page of 50 reviews of the queue.
pub fn list_reviews(open: &Open, page_token: &str) -> Op {
    let (wire, page_token) = (open.wire.clone(), page_token.to_owned());
    let token = open.reviewer.as_ref().map(|(_, token)| token.clone());
    Arc::new(move |caller, _| {
        let mut client = VerificationServiceClient::new(wire.of(caller));
        let request = ListReviewsRequest {
            page_token: page_token.clone(),
            ..ListReviewsRequest::default()
        };
        let request = token.as_ref().map(|token| by(token, request));
        Box::pin(async move {
            let Some(request) = request else {
                return wrong(false);
            };
            let page = client.list_reviews(request).await?.into_inner();
            wrong(page.reviews.len() == 50)
        })
    })
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
