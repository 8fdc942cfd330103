//! AccountService, ownership: how a personal identity comes to own an account that it didn't open (ACC-20), and how the owner hands it on.
//!
//! States of a tie: invited → awaiting consent → owner, for a first owner; invited → handing over → owner, for the next one. Refused, stopped
//! or replaced on the way; stopped also for 7 days after a first owner's beginning, and handed on after a next one's.
//!
//! Invariants. An account has no owner or one (`access/grants/owner`), and one tie on its way at most. Whoever is invited accepts with its
//! own sign-in, by the address that it has proven. A first owner begins by the consent of the approver who was verified last, or, where none
//! ever was, of a reviewer; and its finances begin 7 days later. A next one begins 7 days after it accepted, so that who steals an owner's
//! session gains nothing meanwhile. All that time approvers, primary contact, managers, and the owner who hands on, have a link that stops it.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel,
    QueryFilter, QueryOrder, Value,
};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{
    enrolment::address_of,
    entity::{
        account::{self, Model as Account},
        ownership::{Column, Entity, Model},
    },
    profile::{Person, Profile},
    review::{self, Progress},
    wire,
};
use crate::{
    access::{
        account_state,
        grants::{self, MANAGER, OWNER, identity},
        link::{self, Link},
        principal::{Kind, Principal},
        roles::Permission,
        scope::{AccountScope, CallerScope, Proof, TokenScope},
    },
    app::Tx,
    check::Violations,
    directory::address,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::LinkKind,
        account::{
            AcceptOwnershipRequest, ConfirmOwnershipRequest, ConfirmOwnershipResponse,
            InviteOwnerRequest, Ownership, OwnershipDecision, OwnershipState as State,
            ReviewDecision, ReviewKind, StopOwnershipRequest, StopOwnershipResponse,
            TransferOwnershipRequest,
        },
    },
    store::{
        list::fold,
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::{self, rfc3339},
    },
};

/// An invitation can be accepted for so long.
const ACCEPTABLE_US: Micros = 30 * DAY_US;
/// The approver can consent for so long.
const CONSENT_US: Micros = 30 * DAY_US;
/// A first owner's finances begin so long after consent, a next owner so long after accepting; until then it can be stopped.
const WAITING_US: Micros = 7 * DAY_US;
/// After a change of approver the old one gets the mails, too, for so long.
const OLD_APPROVER_US: Micros = 30 * DAY_US;
/// People who are told of one ownership.
const MOST_TOLD: i64 = 1_000;
/// Ownerships begun in one transaction.
const MOST_BEGUN: i64 = 20;

async fn account<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Account> {
    account::Entity::find_by_id(id)
        .one(db)
        .await?
        .ok_or_else(|| Error::not_found("entente.dev/Account", Name::Account(id).to_string()))
}

/// The tie of an account that is on its way, if there is one.
pub(super) async fn on_its_way<C: ConnectionTrait>(db: &C, account: Uuid) -> Result<Option<Model>> {
    Ok(Entity::find()
        .filter(Column::AccountId.eq(account))
        .filter(Column::State.lte(State::HandingOver as i64))
        .one(db)
        .await?)
}

/// Brings a tie into a state, and tells.
async fn change(
    tx: &mut Tx,
    old: &Model,
    to: State,
    more: impl FnOnce(&mut Model),
) -> Result<Model> {
    let mut row = old.clone();
    row.state = to as i64;
    row.update_time = tx.now();
    more(&mut row);
    row.clone()
        .into_active_model()
        .reset_all()
        .update(tx.db())
        .await?;
    let number = |state: i64| i32::try_from(state).unwrap_or(0);
    let named = |row: &Model| {
        row.identity_id
            .map_or(Json::Null, |id| Name::Identity(id).to_string().into())
    };
    tx.emit(
        Event::new(
            "entente.account.v1.OwnershipChanged",
            Name::Account(row.account_id),
        )
        .change("state", number(old.state), number(row.state))
        .change("identity", named(old), named(&row))
        .change(
            "begin_time",
            time::json(old.begin_time),
            time::json(row.begin_time),
        )
        .change(
            "finance_begin_time",
            time::json(old.finance_from),
            time::json(row.finance_from),
        ),
    );
    Ok(row)
}

/// Ends a tie that is on its way: its links are void, and it is out of the queue.
async fn end(tx: &mut Tx, old: &Model, to: State) -> Result<Model> {
    link::revoke(tx, LinkKind::OwnershipConsent, old.id).await?;
    link::revoke(tx, LinkKind::OwnershipStop, old.id).await?;
    review::withdraw(tx, ReviewKind::Ownership, Name::Account(old.account_id)).await?;
    change(tx, old, to, |_| {}).await
}

/// An account is over, by whatever way: nobody comes to own it any more, and who was on the way, and who invited it, are told.
///
/// # Errors
/// Those of the database.
pub(super) async fn account_ended(tx: &mut Tx, row: &Account) -> Result<()> {
    let Some(tie) = on_its_way(tx.db(), row.id).await? else {
        return Ok(());
    };
    let tie = end(tx, &tie, State::Stopped).await?;
    tell_outcome(tx, row, &tie, Template::OwnershipEnded).await
}

// ---- inviting

/// Invites an identity to own an account that has no owner.
///
/// # Errors
/// `OWNER_EXISTS`, `APPROVER_NOT_VERIFIED`, `WORK_ADDRESS`, `TOO_MANY_CALLS`.
pub async fn invite_owner(
    tx: &mut Tx,
    scope: AccountScope,
    req: InviteOwnerRequest,
) -> Result<Ownership> {
    grants::check_may_invite_owner(tx, scope.id()).await?;
    let row = account(tx.db(), scope.id()).await?;
    if !is_for_reviewers(&row) && last_verified(tx.db(), row.id).await?.is_none() {
        return Err(Error::precondition(Reason::ApproverNotVerified));
    }
    invite(tx, &row, &req.email, false).await
}

/// Accounts that were brought in have no approver who was ever verified, unless one was later.
fn is_for_reviewers(row: &Account) -> bool {
    row.membership_id.is_none()
}

/// The owner invites the next one.
///
/// # Errors
/// `PERMISSION_DENIED` to everybody else, `RIGHTS_ASLEEP`, `RECENT_SIGN_IN_REQUIRED`, `WORK_ADDRESS`, `TOO_MANY_CALLS`; those of the account.
pub async fn transfer_ownership(
    tx: &mut Tx,
    scope: CallerScope,
    req: TransferOwnershipRequest,
) -> Result<Ownership> {
    let id = Name::parse(&req.account)
        .map(|n| n.id())
        .unwrap_or_default();
    tx.demand(Permission::OwnerTie, Name::Account(id)).await?;
    let who = scope.principal();
    // Managers hold it too, but only the owner hands on.
    let own = grants::find(tx.db(), ScopeKey::Account(id), who.id).await?;
    if own.is_none_or(|own| own.roles & OWNER == 0) {
        return Err(Error::not_oneself());
    }
    tx.demand_of_account(id).await?;
    let row = account(tx.db(), id).await?;
    let own = address_of(tx, &who.name()).await?;
    if own.iter().any(|own| fold(own) == fold(&req.email)) {
        return Err(Error::field("email", "is the owner's own"));
    }
    invite(tx, &row, &req.email, true).await
}

/// Makes a tie; the one that was on its way is replaced.
async fn invite(tx: &mut Tx, row: &Account, email: &str, is_transfer: bool) -> Result<Ownership> {
    address::not_of_work(tx, email, "email").await?;
    address::count_mail(tx, "ownership", &fold(email)).await?;
    let old = on_its_way(tx.db(), row.id).await?;
    if let Some(old) = old {
        end(tx, &old, State::Replaced).await?;
    }
    let by = tx
        .caller()
        .who
        .ok_or_else(|| Error::internal("nobody invites an owner"))?
        .principal;
    let now = tx.now();
    let tie = Model {
        id: tx.id(),
        account_id: row.id,
        is_transfer,
        email: email.to_owned(),
        email_fold: fold(email),
        identity_id: None,
        invited_by_kind: by.kind as i16,
        invited_by_id: by.id,
        invited_by_tenant_id: by.tenant,
        state: State::Invited as i64,
        expire_time: now + ACCEPTABLE_US,
        begin_time: None,
        finance_from: None,
        create_time: now,
        update_time: now,
    };
    Entity::insert(tie.clone().into_active_model())
        .exec_without_returning(tx.db())
        .await?;
    tx.emit(
        Event::new("entente.account.v1.OwnershipChanged", Name::Account(row.id))
            .change("state", Json::Null, State::Invited as i32)
            .change("transfer", Json::Null, is_transfer)
            .change("email", Json::Null, tie.email.clone()),
    );
    let values = [
        ("publisher", row.publisher_display_name.clone()),
        ("legal_name", row.legal_name.clone()),
        ("account", Name::Account(row.id).to_string()),
        ("email", tie.email.clone()),
        ("until", rfc3339(tie.expire_time)),
        ("origin", tx.app().config.public_origin.clone()),
    ];
    let about = Name::Account(row.id);
    mail::queue(tx, Template::OwnershipInvitation, email, about, &values).await?;
    Ok(wire::ownership(&tie))
}

// ---- accepting

/// The invited identity accepts. Whoever wasn't invited hears what it hears of an account that isn't there.
///
/// # Errors
/// `PERMISSION_DENIED`, `IDENTITY_ALREADY_TIED`, `APPROVER_NOT_VERIFIED`, `RECENT_SIGN_IN_REQUIRED`; those of the account.
pub async fn accept_ownership(
    tx: &mut Tx,
    scope: CallerScope,
    req: AcceptOwnershipRequest,
) -> Result<Ownership> {
    let who = scope.principal();
    let id = Name::parse(&req.account)
        .map(|n| n.id())
        .unwrap_or_default();
    tx.lock([ScopeKey::Account(id)]).await?;
    let tie = match who.kind {
        Kind::Identity => invited(tx, id, who).await?,
        _ => None,
    };
    let tie = tie.ok_or_else(Error::not_oneself)?;
    tx.demand_of_account(id).await?;
    grants::demand_untied(tx, who.id).await?;
    let row = account(tx.db(), id).await?;
    let accepted = if tie.is_transfer {
        let begin = tx.now() + WAITING_US;
        let tie = change(tx, &tie, State::HandingOver, |tie| {
            tie.identity_id = Some(who.id);
            tie.begin_time = Some(begin);
            tie.finance_from = Some(begin);
        })
        .await?;
        tell_all(tx, &row, &tie, Told::All).await?;
        tie
    } else {
        let tie = change(tx, &tie, State::AwaitingConsent, |tie| {
            tie.identity_id = Some(who.id);
        })
        .await?;
        ask_for_consent(tx, &row, &tie).await?;
        tie
    };
    Ok(wire::ownership(&accepted))
}

/// The invitation of an identity, by the address that it has proven, if who invited it still may.
async fn invited(tx: &Tx, account: Uuid, who: Principal) -> Result<Option<Model>> {
    let own = address_of(tx, &who.name()).await?;
    let Some(tie) = on_its_way(tx.db(), account).await? else {
        return Ok(None);
    };
    // Its own name; not an address at which the operator reaches it since a case of recovery.
    let is_theirs = own.first().is_some_and(|own| fold(own) == tie.email_fold);
    let is_open = tie.state == State::Invited as i64 && tx.now() < tie.expire_time;
    if !is_theirs || !is_open || !still_stands(tx, &tie).await? {
        return Ok(None);
    }
    Ok(Some(tie))
}

/// Whether who began a tie could still begin it: a transfer the owner, else who may tie an owner where none is.
async fn still_stands(tx: &Tx, tie: &Model) -> Result<bool> {
    let by = inviter(tie);
    let owner = grants::owner_of(tx.db(), tie.account_id).await?;
    let is_so = match owner {
        Some((owner, _)) => tie.is_transfer && by == identity(owner),
        None => !tie.is_transfer,
    };
    Ok(is_so && grants::may_still_tie(tx, by, tie.account_id).await?)
}

fn inviter(tie: &Model) -> Principal {
    Principal {
        kind: Kind::from_number(tie.invited_by_kind).unwrap_or(Kind::User),
        id: tie.invited_by_id,
        tenant: tie.invited_by_tenant_id,
    }
}

/// Asks the approver who was verified last; the others get to know of it, and can stop it. Where none ever was, reviewers decide.
async fn ask_for_consent(tx: &mut Tx, row: &Account, tie: &Model) -> Result<()> {
    let Some(approver) = last_verified(tx.db(), row.id).await? else {
        if !is_for_reviewers(row) {
            return Err(Error::precondition(Reason::ApproverNotVerified));
        }
        let opened = review::Opened {
            kind: ReviewKind::Ownership,
            account: row.id,
            subject: Name::Account(row.id),
            submitter: inviter(tie).name(),
            note: format!("{} is to own the account.", tie.email),
            not_by: None,
            other: None,
        };
        review::open(tx, opened).await?;
        return Ok(());
    };
    let made = Link {
        kind: LinkKind::OwnershipConsent,
        subject: tie.id,
        scope: ScopeKey::Account(row.id),
    };
    let token = link::make(tx, made, &[], CONSENT_US).await?;
    let url = link::url(&tx.app().config, made.kind, &token);
    let values = [
        ("name", approver.display_name.clone()),
        ("publisher", row.publisher_display_name.clone()),
        ("legal_name", row.legal_name.clone()),
        ("email", tie.email.clone()),
        ("until", rfc3339(tx.now() + CONSENT_US)),
        ("link", url.to_string()),
        ("token", token.to_string()),
    ];
    let (template, about) = (Template::OwnershipConsent, Name::Account(row.id));
    mail::queue(tx, template, &approver.email, about, &values).await?;
    tell_all(tx, row, tie, Told::OtherApprovers(&approver.email)).await
}

// ---- approvers

#[derive(FromQueryResult)]
struct Approver {
    email: String,
    display_name: String,
}

/// The approver who was verified last.
async fn last_verified<C: ConnectionTrait>(db: &C, account: Uuid) -> Result<Option<Approver>> {
    let sql = "SELECT email, display_name FROM account_approvers WHERE account_id = $1 AND replace_time IS NULL";
    sql::one::<Approver, _>(db, sql, [account.into()]).await
}

/// The approver approved by its link: it is verified once the business is, of which its approval is a part (VER-8).
///
/// # Errors
/// Those of the database.
pub(super) async fn approver_approved(tx: &Tx, row: &Account) -> Result<()> {
    let Some(approver) = Profile::from_stored(&row.profile).company_approver else {
        return Ok(());
    };
    let sql = "INSERT INTO approvers_to_verify (account_id, email_fold) VALUES ($1, $2) \
               ON CONFLICT (account_id) DO UPDATE SET email_fold = excluded.email_fold";
    let values: [Value; 2] = [row.id.into(), fold(&approver.email).into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// The business was verified, and with it the approver who approved of it: from now on it is asked, also about an ownership that waits for the
/// consent of the one before, or of a reviewer.
///
/// # Errors
/// Those of the database.
pub(super) async fn approver_verified(tx: &mut Tx, row: &Account) -> Result<()> {
    let sql = "DELETE FROM approvers_to_verify WHERE account_id = $1 RETURNING email_fold";
    let approved = sql::row(tx.db(), sql, [row.id.into()]).await?;
    let (Some(approved), Some(person)) = (
        approved,
        Profile::from_stored(&row.profile).company_approver,
    ) else {
        return Ok(());
    };
    let Person {
        display_name,
        email,
        ..
    } = person;
    if approved.try_get::<String>("", "email_fold")? != fold(&email) {
        return Ok(());
    }
    let before = last_verified(tx.db(), row.id).await?;
    let is_new = before.is_none_or(|before| fold(&before.email) != fold(&email));
    let sql = "UPDATE account_approvers SET replace_time = $1 WHERE account_id = $2 AND replace_time IS NULL AND email_fold <> $3";
    let values: [Value; 3] = [tx.now().into(), row.id.into(), fold(&email).into()];
    sql::execute(tx.db(), sql, values).await?;
    let sql = "INSERT INTO account_approvers (account_id, email_fold, email, display_name, verify_time) VALUES ($1, $2, $3, $4, $5) \
               ON CONFLICT (account_id, email_fold) DO UPDATE SET email = excluded.email, display_name = excluded.display_name, \
               verify_time = excluded.verify_time, replace_time = NULL";
    let values: [Value; 5] = [
        row.id.into(),
        fold(&email).into(),
        email.into(),
        display_name.into(),
        tx.now().into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    let tie = on_its_way(tx.db(), row.id).await?;
    if let Some(tie) = tie.filter(|tie| is_new && tie.state == State::AwaitingConsent as i64) {
        review::withdraw(tx, ReviewKind::Ownership, Name::Account(row.id)).await?;
        ask_for_consent(tx, row, &tie).await?;
    }
    Ok(())
}

/// Addresses of approvers: the one verified last, those it replaced lately, and one who is named and not verified yet.
async fn approvers(tx: &Tx, row: &Account) -> Result<Vec<String>> {
    let sql = "SELECT email, display_name FROM account_approvers WHERE account_id = $1 AND (replace_time IS NULL OR replace_time > $2) \
               ORDER BY verify_time DESC LIMIT $3";
    let values: [Value; 3] = [
        row.id.into(),
        (tx.now() - OLD_APPROVER_US).into(),
        MOST_TOLD.into(),
    ];
    let known = sql::all::<Approver, _>(tx.db(), sql, values).await?;
    let named = Profile::from_stored(&row.profile).company_approver;
    Ok(known
        .into_iter()
        .map(|a| a.email)
        .chain(named.map(|p| p.email))
        .collect())
}

/// Who is told of an ownership, with the link that stops it.
enum Told<'a> {
    /// Approvers, primary contact, managers, and the owner who hands on.
    All,
    /// Approvers but the one who is asked to consent.
    OtherApprovers(&'a str),
}

/// Mails the link that stops an ownership: one token, which works once. The one that was mailed before is void.
async fn tell_all(tx: &mut Tx, row: &Account, tie: &Model, told: Told<'_>) -> Result<()> {
    let mut to = approvers(tx, row).await?;
    let lifetime = match told {
        Told::OtherApprovers(asked) => {
            to.retain(|email| fold(email) != fold(asked));
            CONSENT_US
        }
        Told::All => {
            let contact = Profile::from_stored(&row.profile).primary_contact;
            to.extend(contact.map(|p| p.email));
            let scope = ScopeKey::Account(row.id);
            to.extend(grants::addresses_of(tx.db(), scope, MANAGER, MOST_TOLD).await?);
            if tie.is_transfer {
                to.extend(address_of(tx, &inviter(tie).name()).await?);
            }
            WAITING_US
        }
    };
    let mut seen = Vec::new();
    to.retain(|email| {
        let folded = fold(email);
        let is_new = !email.is_empty() && !seen.contains(&folded);
        seen.push(folded);
        is_new
    });
    if to.is_empty() {
        return Ok(());
    }
    let made = Link {
        kind: LinkKind::OwnershipStop,
        subject: tie.id,
        scope: ScopeKey::Account(row.id),
    };
    let token = link::make(tx, made, &[], lifetime).await?;
    let url = link::url(&tx.app().config, made.kind, &token);
    let finance_from = tie.finance_from.unwrap_or(tx.now() + WAITING_US);
    let values = [
        ("publisher", row.publisher_display_name.clone()),
        ("legal_name", row.legal_name.clone()),
        ("email", tie.email.clone()),
        ("from", rfc3339(finance_from)),
        ("until", rfc3339(tx.now() + lifetime)),
        ("link", url.to_string()),
        ("token", token.to_string()),
    ];
    for email in to {
        let (template, about) = (Template::OwnershipNotice, Name::Account(row.id));
        mail::queue(tx, template, &email, about, &values).await?;
    }
    Ok(())
}

/// Tells the identity, and who invited it, what became of it.
async fn tell_outcome(tx: &mut Tx, row: &Account, tie: &Model, template: Template) -> Result<()> {
    let mut to = vec![tie.email.clone()];
    to.extend(address_of(tx, &inviter(tie).name()).await?);
    to.dedup();
    let values = [
        ("publisher", row.publisher_display_name.clone()),
        ("account", Name::Account(row.id).to_string()),
        ("email", tie.email.clone()),
        ("from", rfc3339(tie.finance_from.unwrap_or(tx.now()))),
    ];
    for email in to {
        mail::queue(tx, template, &email, Name::Account(row.id), &values).await?;
    }
    Ok(())
}

// ---- deciding

pub(crate) fn check_confirm_ownership(req: &ConfirmOwnershipRequest, v: &mut Violations) {
    if req.token.is_empty() && req.account.is_empty() {
        v.also("account", "is required without a token");
    }
    // A reviewer has reasons for consenting too.
    let is_needed = req.decision() == OwnershipDecision::Refuse || req.token.is_empty();
    if is_needed && req.reason.trim().is_empty() {
        v.also("reason", "is needed");
    }
}

/// The approver decides by the link, or a reviewer who has claimed it.
///
/// # Errors
/// `LINK_INVALID`, also for a token of another account than the one named; `WRONG_STATE`, `IDENTITY_ALREADY_TIED`, `OWNER_EXISTS`; those of
/// the queue and of the account.
pub async fn confirm_ownership(
    tx: &mut Tx,
    proof: Proof,
    req: ConfirmOwnershipRequest,
) -> Result<ConfirmOwnershipResponse> {
    let named = match Name::parse(&req.account) {
        Some(Name::Account(id)) => Some(id),
        _ => None,
    };
    let tie = if proof.by_operator() {
        // A token that proves nothing is as good as none here.
        let id = named.ok_or_else(link::invalid)?;
        tx.lock([ScopeKey::Account(id)]).await?;
        let (tie, progress) = waiting_for_reviewers(tx, id, &req).await?;
        if progress == Progress::NeedsAnother {
            let row = account(tx.db(), id).await?;
            return Ok(ConfirmOwnershipResponse {
                publisher_display_name: row.publisher_display_name,
                state: State::AwaitingConsent as i32,
            });
        }
        tie
    } else {
        let scope = proof.token()?;
        let tie = redeemed(tx, scope, named).await?;
        if tie.state != State::AwaitingConsent as i64 {
            return Err(link::invalid());
        }
        tie
    };
    let row = account(tx.db(), tie.account_id).await?;
    let tie = match req.decision() {
        OwnershipDecision::Consent => {
            tx.demand_of_account(row.id).await?;
            tx.lock([inviter(&tie).home()]).await?;
            // Who invited may be gone since; that another came first is told as that.
            let is_free = grants::owner_of(tx.db(), row.id).await?.is_none();
            if is_free && !still_stands(tx, &tie).await? {
                return Err(Error::precondition(Reason::WrongState));
            }
            begin(tx, &row, &tie).await?
        }
        OwnershipDecision::Refuse | OwnershipDecision::Unspecified => {
            let tie = end(tx, &tie, State::Refused).await?;
            tell_outcome(tx, &row, &tie, Template::OwnershipEnded).await?;
            tie
        }
    };
    Ok(ConfirmOwnershipResponse {
        publisher_display_name: row.publisher_display_name,
        state: i32::try_from(tie.state).unwrap_or(0),
    })
}

/// The tie that the reviewers of an account decide, if the caller has claimed it, and whether its decision is the last.
async fn waiting_for_reviewers(
    tx: &mut Tx,
    id: Uuid,
    req: &ConfirmOwnershipRequest,
) -> Result<(Model, Progress)> {
    let review = review::decidable(tx, ReviewKind::Ownership, Name::Account(id)).await?;
    let tie = on_its_way(tx.db(), id).await?;
    let tie = tie.filter(|tie| tie.state == State::AwaitingConsent as i64);
    let tie = tie.ok_or_else(|| Error::internal("a review of no ownership"))?;
    let decision = match req.decision() {
        OwnershipDecision::Consent => ReviewDecision::Approve,
        OwnershipDecision::Refuse | OwnershipDecision::Unspecified => ReviewDecision::Reject,
    };
    let progress = review::decide(tx, review, decision, req.reason.clone()).await?;
    Ok((tie, progress))
}

/// The tie of a link, which is used up.
async fn redeemed(tx: &mut Tx, scope: TokenScope, named: Option<Uuid>) -> Result<Model> {
    let proven = scope.link();
    let tie = Entity::find_by_id(proven.subject)
        .one(tx.db())
        .await?
        .ok_or_else(link::invalid)?;
    if named.is_some_and(|id| id != tie.account_id) {
        return Err(link::invalid());
    }
    link::redeem(tx, proven).await?;
    Ok(tie)
}

/// An identity begins to own an account: a first owner without finances for now.
async fn begin(tx: &mut Tx, row: &Account, tie: &Model) -> Result<Model> {
    let owner = tie
        .identity_id
        .ok_or_else(|| Error::internal("nobody has accepted an ownership"))?;
    let now = tx.now();
    let from = now + WAITING_US;
    let later = (!tie.is_transfer).then_some(from);
    let why = if tie.is_transfer {
        grants::Tie::HandedOn
    } else {
        grants::Tie::Excepted("InviteOwner")
    };
    let set = grants::tie_owner(tx, row.id, owner, later, why).await?;
    tx.emit(
        Event::new(
            "entente.account.v1.MemberAdded",
            Name::Member(row.id, owner),
        )
        .change("rights", Json::Null, set.to_rights())
        .touches(owner)
        .also_in(ScopeKey::Identity(owner)),
    );
    link::revoke(tx, LinkKind::OwnershipConsent, tie.id).await?;
    let tie = change(tx, tie, State::Owner, |tie| {
        tie.begin_time = Some(now);
        tie.finance_from = Some(later.unwrap_or(now));
    })
    .await?;
    if !tie.is_transfer {
        tell_all(tx, row, &tie, Told::All).await?;
    }
    tell_outcome(tx, row, &tie, Template::OwnershipBegun).await?;
    Ok(tie)
}

/// Somebody who was told stops an ownership.
///
/// # Errors
/// `LINK_INVALID`.
pub async fn stop_ownership(
    tx: &mut Tx,
    scope: TokenScope,
    _req: StopOwnershipRequest,
) -> Result<StopOwnershipResponse> {
    let tie = redeemed(tx, scope, None).await?;
    let row = account(tx.db(), tie.account_id).await?;
    if tie.state == State::Owner as i64 {
        // Another one may have come in its place, which is not this one's to stop.
        let owner = grants::owner_of(tx.db(), row.id).await?.map(|(id, _)| id);
        let owner = owner.filter(|id| Some(*id) == tie.identity_id);
        untie(tx, row.id, owner.ok_or_else(link::invalid)?).await?;
    }
    let tie = end(tx, &tie, State::Stopped).await?;
    tell_outcome(tx, &row, &tie, Template::OwnershipEnded).await?;
    Ok(StopOwnershipResponse {
        publisher_display_name: row.publisher_display_name,
    })
}

async fn untie(tx: &mut Tx, account: Uuid, owner: Uuid) -> Result<()> {
    let set = grants::untie_owner(tx, account, owner).await?;
    tx.emit(
        Event::new(
            "entente.account.v1.MemberRemoved",
            Name::Member(account, owner),
        )
        .change("rights", set.to_rights(), Json::Null)
        .touches(owner)
        .also_in(ScopeKey::Identity(owner)),
    );
    Ok(())
}

// ---- handing on

#[derive(FromQueryResult)]
struct Due {
    id: Uuid,
    account_id: Uuid,
}

/// Accounts whose next owner begins now; the scheduler's.
///
/// # Errors
/// Those of the database.
pub(crate) async fn hand_over(tx: &mut Tx) -> Result<u64> {
    let sql = "SELECT id, account_id FROM ownerships WHERE state = 3 AND begin_time <= $1 ORDER BY begin_time, id LIMIT $2";
    let due = sql::all::<Due, _>(tx.db(), sql, [tx.now().into(), MOST_BEGUN.into()]).await?;
    tx.lock(due.iter().map(|due| ScopeKey::Account(due.account_id)))
        .await?;
    for due in &due {
        let tie = Entity::find_by_id(due.id).one(tx.db()).await?;
        // Again under the lock: it may have been stopped meanwhile.
        if let Some(tie) = tie.filter(|tie| tie.state == State::HandingOver as i64) {
            hand_over_one(tx, &tie).await?;
        }
    }
    Ok(due.len() as u64)
}

async fn hand_over_one(tx: &mut Tx, tie: &Model) -> Result<()> {
    let row = account(tx.db(), tie.account_id).await?;
    let Some(next) = tie.identity_id else {
        return Err(Error::internal("nobody has accepted a transfer"));
    };
    let old = inviter(tie);
    tx.lock([old.home(), ScopeKey::Identity(next)]).await?;
    let now = tx.now();
    let can = still_stands(tx, tie).await?
        && account_state::allows(row.state, crate::proto::access::AccountAct::Manage)
        && grants::state(tx.db(), identity(next), now).await?.is_some()
        && grants::tied_to(tx.db(), next).await?.is_none();
    if !can {
        let tie = end(tx, tie, State::Refused).await?;
        return tell_outcome(tx, &row, &tie, Template::OwnershipEnded).await;
    }
    untie(tx, row.id, old.id).await?;
    let before = Entity::find()
        .filter(Column::AccountId.eq(row.id))
        .filter(Column::IdentityId.eq(old.id))
        .filter(Column::State.eq(State::Owner as i64))
        .order_by_desc(Column::CreateTime)
        .one(tx.db())
        .await?;
    if let Some(before) = before {
        link::revoke(tx, LinkKind::OwnershipStop, before.id).await?;
        change(tx, &before, State::HandedOn, |_| {}).await?;
    }
    link::revoke(tx, LinkKind::OwnershipStop, tie.id).await?;
    begin(tx, &row, tie).await?;
    Ok(())
}
