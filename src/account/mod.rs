//! Accounts: partner companies, their associated tenants, and their members; agreements with them and with customers.
//!
//! Nouns and states. An account's states are one table, `access/account_state.rs`; imported accounts are `ACTIVE` at once. A version of an
//! agreement is upcoming, current or superseded, as time makes it, or withdrawn before it took effect. An acceptance has no states. A tenant is associated with an account or not. A member is a
//! user, group or application of an associated tenant, with or without rights; the rights themselves are `access/grants.rs`'s.
//!
//! Invariants. An account never loses its last active manager, but by its tenant's own act. Removing a tenant takes its people's
//! memberships for good. A member lies in an associated tenant. What was accepted is never changed or deleted.

pub mod acceptance;
pub mod agreement;
pub mod benefit;
mod brought;
mod closing;
mod decision;
pub mod document;
mod draft;
mod enrolment;
mod entity;
mod involvement;
mod kept;
pub mod member;
mod moves;
pub mod name_claim;
pub mod network;
mod ownership;
mod postal_code;
mod profile;
mod program;
mod progress;
pub(crate) mod publisher_name;
mod registered;
mod requirement;
pub(crate) mod review;
mod settings;
mod sight;
mod standing;
mod step;
mod submission;
pub mod tenant_association;
pub mod verification;
pub(crate) mod wire;

pub(crate) use self::{
    benefit::{SEATS_OF_NOBODY, release_seats},
    brought::{LINK_US as MEMBERSHIP_CLAIM_US, mail_membership_links},
    closing::people_of,
    draft::{remove_idle_drafts, tell_of_idle_drafts},
    involvement::{COUNT_US as TIES_COUNT_US, date_former_ties},
    name_claim::{
        ASIDE as CLAIM_ASIDE, end_of_gone as end_name_claims, go_on as go_on_with_name_claims,
    },
    registered::{WAITING as AT_REGISTER, ask_register, without_register},
    step::{PROVEN_LATER, activate_verified, reject_unappealed, verify_by_domain},
};
pub use self::{
    closing::close_account,
    draft::ask_global_admin,
    enrolment::{create_account, prepare_create_account, submit_account, update_account},
    ownership::{
        accept_ownership, confirm_ownership, invite_owner, stop_ownership, transfer_ownership,
    },
    program::{enroll_program, leave_program},
    settings::{check_publisher_name, get_account_settings, list_required_actions},
    standing::{reinstate_account, search_accounts, suspend_account},
};
pub(crate) use self::{
    enrolment::{check_create_account, check_update_account},
    ownership::{check_confirm_ownership, hand_over},
    program::check_enroll_program,
    standing::check_search_accounts,
};
pub(crate) use self::{kept::names_of_person, profile::contact_address};

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use crate::{
    access::{
        grants::{self, ADMIN_AGENT, MANAGER},
        scope::{CallerScope, OperatorScope, Proof},
    },
    account::entity::account::{self, Entity, Model},
    app::{Read, Tx},
    check::Violations,
    directory,
    error::{Error, Reason, Result},
    names::Name,
    proto::account::{
        Account, AccountState, GetAccountRequest, ImportAccountRequest, ListAccountsRequest,
        ListAccountsResponse,
    },
    store::{
        filter::{Field, Kind, OrderField, Trigrams},
        list::Listing,
        outbox::Event,
        scope_key::ScopeKey,
    },
};

const LISTING: Listing = Listing {
    fields: &FIELDS,
    orders: ORDERS,
    id: ("accounts", "id"),
};

/// What the operator's people ask of all accounts.
const SEARCH: Listing = Listing {
    fields: &[
        FIELDS[0],
        FIELDS[1],
        FIELDS[2],
        Field::new("state", ("accounts", "state"), Kind::Enum(STATES)),
    ],
    orders: ORDERS,
    id: ("accounts", "id"),
};

/// What callers call the states.
const STATES: &[(&str, i64)] = &[
    ("ACTIVE", AccountState::Active as i64),
    ("DRAFT", AccountState::Draft as i64),
    ("PENDING", AccountState::Pending as i64),
    ("SUSPENDED", AccountState::Suspended as i64),
    ("REJECTED", AccountState::Rejected as i64),
    ("CLOSED", AccountState::Closed as i64),
];

const FIELDS: [Field; 3] = [
    Field::new(
        "publisher_display_name",
        ("accounts", "publisher_display_name_fold"),
        Kind::Text(&[Trigrams {
            table: "accounts",
            column: "publisher_display_name_fold",
        }]),
    ),
    Field::new(
        "legal_name",
        ("accounts", "legal_name_fold"),
        Kind::Text(&[Trigrams {
            table: "accounts",
            column: "legal_name_fold",
        }]),
    ),
    Field::new("create_time", ("accounts", "create_time"), Kind::TIME),
];

const ORDERS: &[OrderField] = &[
    OrderField::new("create_time", ("accounts", "create_time")),
    OrderField::new(
        "publisher_display_name",
        ("accounts", "publisher_display_name_fold"),
    ),
];

pub(crate) fn check_import_account(req: &ImportAccountRequest, v: &mut Violations) {
    wire::check_import(req.account.as_ref(), v);
}

/// Brings an existing company in: account, association, first manager, in one transaction.
///
/// # Errors
/// `PUBLISHER_NAME_TAKEN`, `PUBLISHER_NAME_RESERVED`, `NOT_IN_ASSOCIATED_TENANT` if the manager isn't an active user, `OPERATOR_TENANT`.
pub async fn import_account(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: ImportAccountRequest,
) -> Result<Account> {
    let (new, tenant_id, manager, owner) = wire::imported(req)?;
    directory::tenant::not_the_operators(tx, tenant_id)?;
    tx.lock(
        [ScopeKey::Tenant(tenant_id)]
            .into_iter()
            .chain(owner.map(|o| o.home())),
    )
    .await?;
    if let Some(owner) = owner
        && grants::state(tx.db(), owner, tx.now()).await?.is_none()
    {
        return Err(Error::not_found("entente.dev/Identity", owner.name()));
    }
    let principal_name = manager.name();
    let user = directory::user::summary(tx.db(), manager.id).await?;
    let there = directory::tenant::is_active(tx.db(), tenant_id).await?;
    if !there || !user.is_some_and(|u| u.tenant == tenant_id && u.active) {
        return Err(
            Error::precondition(Reason::NotInAssociatedTenant).with("principal", principal_name)
        );
    }
    let id = tx.id();
    let row = wire::new_account(id, &new, tx.now());
    tx.insert(row.clone()).await?;
    let scope = ScopeKey::Account(id);
    tx.open_scope(scope).await?;
    grants::associate(tx, id, tenant_id).await?;
    publisher_name::claim(tx, id, &row.publisher_display_name).await?;
    let set = grants::Set::of_roles(MANAGER | ADMIN_AGENT);
    grants::set(tx, scope, manager, set, grants::By::Caller).await?;
    let null = || serde_json::Value::Null;
    tx.emit(
        Event::new("entente.account.v1.AccountImported", Name::Account(id))
            .change(
                "publisher_display_name",
                null(),
                row.publisher_display_name.clone(),
            )
            .change("legal_name", null(), row.legal_name.clone())
            .change("country_code", null(), row.country_code.clone())
            .also_in(ScopeKey::Tenant(tenant_id)),
    );
    tx.emit(
        Event::new(
            "entente.account.v1.MemberAdded",
            Name::Member(id, manager.id),
        )
        .change("rights", null(), set.to_rights())
        .touches(manager.id),
    );
    if let Some(owner) = owner {
        let why = grants::Tie::Excepted(tx.method());
        let set = grants::tie_owner(tx, id, owner.id, None, why).await?;
        tx.emit(
            Event::new("entente.account.v1.MemberAdded", Name::Member(id, owner.id))
                .change("rights", null(), set.to_rights())
                .touches(owner.id)
                .also_in(owner.home()),
        );
    }
    Ok(wire::account(&row))
}

/// Gives an account.
///
/// # Errors
/// `PERMISSION_DENIED`; `NOT_FOUND`, to the operator's people only.
pub async fn get_account(rd: &Read, proof: Proof, req: GetAccountRequest) -> Result<Account> {
    let row = sight::readable(rd, &proof, &req.name).await?;
    let account = wire::account(&row);
    Ok(if proof.masked() {
        wire::masked(account)
    } else {
        account
    })
}

pub(crate) fn check_list_accounts(req: &ListAccountsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists the accounts that the caller is a member of, itself or by a group, through tenants that are still associated; to a global admin also the
/// drafts of its tenant.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_accounts(
    rd: &Read,
    scope: CallerScope,
    req: ListAccountsRequest,
) -> Result<ListAccountsResponse> {
    let mine = sight::reached(rd, scope.principal()).await?;
    let mine = account::Column::Id.in_subquery(mine);
    let select = Entity::find()
        .filter(mine)
        .filter(account::Column::State.gt(0));
    let page = rd
        .list(&req, &LISTING, select, |row: Model| wire::account(&row))
        .await?;
    Ok(ListAccountsResponse {
        accounts: page.items,
        next_page_token: page.next_page_token,
    })
}
