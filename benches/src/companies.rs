//! Companies of the cases: accounts brought in, queues of reviews with whoever handles them, memberships that accounts are opened with. Masses by SQL,
//! as in `seed.rs`.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use crate::{
    ops::Memberships,
    seed::{Open, Person, columns, home, numbers},
    site::Rows,
    wire::{
        Token, Wire,
        account::{
            Account, ImportAccountRequest, ListReviewsRequest,
            account_service_client::AccountServiceClient,
            verification_service_client::VerificationServiceClient,
        },
        by,
        directory::{CreateUserRequest, User, user_service_client::UserServiceClient},
        operator::{
            AssignOperatorRolesRequest, OperatorRole, staff_service_client::StaffServiceClient,
        },
    },
};

/// Reviews of a long queue, and of a short one.
pub const REVIEWS: (usize, usize) = (100_000, 1_000);
/// Memberships that there are to open accounts with: more than any run uses.
const MEMBERSHIPS: usize = 300_000;

/// Brings in an account, of which somebody is the manager.
pub async fn import(wire: &Wire, operator: &Token, manager: &Person, name: &str) -> Result<String> {
    let request = ImportAccountRequest {
        account: Some(Account {
            publisher_display_name: name.to_owned(),
            legal_name: format!("{name} Ltd"),
            country_code: "FR".to_owned(),
            ..Account::default()
        }),
        tenant: manager.tenant(),
        first_manager: manager.name.clone(),
        ..ImportAccountRequest::default()
    };
    let mut client = AccountServiceClient::new(wire.of(0));
    let made = client.import_account(by(operator, request)).await?;
    Ok(made.into_inner().name)
}

/// Somebody of the operator who handles reviews, and can't do anything yet.
pub async fn reviewer(wire: &Wire, operator: &Token) -> Result<Person> {
    let request = CreateUserRequest {
        parent: home(wire, operator).await?,
        user: Some(User {
            user_name: "rita".to_owned(),
            given_name: "Rita".to_owned(),
            family_name: "Review".to_owned(),
            recovery_email: "rita@review.example".to_owned(),
            ..User::default()
        }),
        ..CreateUserRequest::default()
    };
    let mut users = UserServiceClient::new(wire.of(0));
    let made = users.create_user(by(operator, request)).await?.into_inner();
    let user = made.user.context("no user")?;
    let request = AssignOperatorRolesRequest {
        principal: user.name.clone(),
        roles: vec![OperatorRole::OperatorReviewer as i32],
        ..AssignOperatorRolesRequest::default()
    };
    let mut staff = StaffServiceClient::new(wire.of(0));
    staff.assign_operator_roles(by(operator, request)).await?;
    Ok(Person {
        name: user.name,
        sign_in_name: user.sign_in_name,
    })
}

/// Accounts like this one, and a review of the business of each, a second apart; half of them were claimed once, and are free again.
pub fn queue(rows: &Rows, account: &str, tenant: &str, many: usize) -> Result<()> {
    let columns = columns(rows, "accounts")?;
    let id = place(rows, "s.n");
    let new: Vec<String> = columns
        .iter()
        .map(|column| match column.as_str() {
            "id" => id.clone(),
            "publisher_display_name" => "'Queued ' || s.n".to_owned(),
            "publisher_display_name_fold" => "'queued ' || s.n".to_owned(),
            "legal_name" => "'Queued ' || s.n || ' Ltd'".to_owned(),
            "seller_id" => "'Q' || s.n".to_owned(),
            "create_time" => "a.create_time + s.n".to_owned(),
            other => format!("a.{other}"),
        })
        .collect();
    rows.execute(&format!(
        "{numbers} INSERT INTO accounts ({columns}) SELECT {new} FROM s, accounts a WHERE a.id = {account}; \
         {numbers} INSERT INTO associations (account_id, tenant_id, display_name_fold, create_time, version) \
         SELECT {id}, t.id, t.display_name_fold, t.create_time, 1 FROM s, tenants t WHERE t.id = {tenant}; \
         {numbers} INSERT INTO reviews (id, kind, account_id, subject, submitter, note, state, claimed_by, claim_expire_time, more_requested, \
         not_by, approvals_needed, first_approved_by, decided, decision, reason, decided_by, decide_time, create_time, update_time, version) \
         SELECT {review}, 2, {id}, 'accounts/' || s.n, 'tenants/none', 'Our extract is attached.', 1 + s.n % 2, NULL, \
         CASE WHEN s.n % 2 = 1 THEN 1 ELSE NULL END, '', NULL, 1, NULL, false, 0, '', '', NULL, a.create_time + s.n * 1000000, a.create_time, 1 \
         FROM s, accounts a WHERE a.id = {account}",
        numbers = numbers(many),
        columns = columns.join(", "),
        new = new.join(", "),
        account = rows.id(account),
        tenant = rows.id(tenant),
        review = rows.new_id(),
    ))
}

/// An ID that says a number.
fn place(rows: &Rows, number: &str) -> String {
    match rows {
        Rows::Sqlite(_) => {
            format!("unhex(printf('a0000000000040008000%012x', {number}))")
        }
        Rows::Postgres(_) => {
            format!("('a0000000-0000-4000-8000-' || lpad(to_hex({number}), 12, '0'))::uuid")
        }
    }
}

/// Memberships of the network by somebody of each tenant in turn.
pub fn memberships(rows: &Rows, people: &[Person]) -> Result<Arc<Memberships>> {
    let tenants = people.len();
    for (number, person) in people.iter().enumerate() {
        rows.execute(&format!(
            "{numbers} INSERT INTO network_memberships (id, partner_id, legal_name, country_code, website_uri, contact_name, contact_email, \
             contact_phone, joined_by_kind, joined_by_id, joined_by_tenant_id, account_id, create_time, update_time, version) \
             SELECT {id}, 'B' || ((s.n - 1) * {tenants} + {number}), 'Company', 'FR', '', 'Paula', 'paula@company.example', '+33142685300', 1, \
             {somebody}, {tenant}, NULL, 1, 1, 1 FROM s",
            numbers = numbers(MEMBERSHIPS / tenants),
            id = place(rows, &format!("((s.n - 1) * {tenants} + {number})")),
            somebody = rows.new_id(),
            tenant = rows.id(&person.tenant()),
        ))?;
    }
    let name = |n: usize| format!("networkMemberships/a0000000-0000-4000-8000-{n:012x}");
    let all = MEMBERSHIPS / tenants * tenants;
    Ok(Memberships::of((0..all).map(name).collect(), tenants))
}

/// The token of the page in the middle of the queue, and which page it is.
pub async fn late_reviews(open: &Open, many: usize) -> Result<(String, usize)> {
    const A_PAGE: usize = 50;
    let page = (many / A_PAGE / 2).max(2);
    let (_, token) = open.reviewer.as_ref().context("no reviewer")?;
    let mut client = VerificationServiceClient::new(open.wire.of(0));
    let (mut before, mut page_token) = ((page - 1) * A_PAGE, String::new());
    while before > 0 {
        let request = ListReviewsRequest {
            page_size: i32::try_from(before.min(1_000))?,
            page_token,
            ..ListReviewsRequest::default()
        };
        let told = client.list_reviews(by(token, request)).await?.into_inner();
        let came = told.reviews.len();
        ensure!(
            came > 0 && came <= before && !told.next_page_token.is_empty(),
            "a page came short"
        );
        page_token = told.next_page_token;
        before -= came;
    }
    Ok((page_token, page))
}
