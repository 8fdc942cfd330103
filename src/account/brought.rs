//! NetworkService, memberships of an older programme (NET-2): the operator brings them in by their old IDs; whoever is signed in asks for one; a
//! link goes to the contact address on file; and by it whoever asked brings the membership, once.
//!
//! States. An imported membership is there → brought, when it became one of the network → arrived, when the account that was opened with that one
//! is active. Until then enrolments fall back, drafts are removed, accounts are rejected or closed, and nothing of it is lost. What arrives can be chosen until the account is
//! submitted.
//!
//! Whether there is an old ID is a secret: asking writes the same row for every one, and a job finds out whose it is and mails the link. The link
//! is good for whoever asked, so neither whoever reads the contact's mail nor whoever guesses an ID brings anything alone.

use std::collections::BTreeMap;

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel,
    QueryFilter, Set, Value,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    benefit,
    entity::{
        account,
        imported_membership::{Column, Entity, Model},
        network_membership,
    },
    moves::{self, Moves},
    network,
    profile::{self, Person, Profile},
    wire::{self, NewMembership},
};
use crate::{
    access::{
        grants,
        link::{self, Link},
        principal::{Kind, Principal},
        scope::{CallerScope, OperatorScope, TokenScope},
    },
    app::Tx,
    check::{MOST_ITEMS_NAMED, Violations},
    directory::{self, address},
    env::{DAY_US, Micros},
    error::{Error, Language, Reason, Result},
    mail::{self, Template},
    names::Name,
    proto::{
        access::LinkKind,
        account::{
            Account, AccountState, BroughtMembership, ClaimMembershipRequest,
            ClaimMembershipResponse, ConfirmMembershipRequest, ImportMembershipsRequest,
            ImportMembershipsResponse, ImportedMembership, NetworkMembership,
        },
    },
    store::{list::fold, outbox::Event, scope_key::ScopeKey, sql, time::json, time::rfc3339},
};

/// A link is good for so long, and what was asked for is kept as long.
pub(crate) const LINK_US: Micros = 7 * DAY_US;

/// What was imported, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Imported {
    legal_name: String,
    country_code: String,
    website_uri: String,
    contact: Person,
    profile: Profile,
    moves: Moves,
}

impl Imported {
    fn to_stored(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal(e.to_string()))
    }

    fn from_stored(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| Error::internal(e.to_string()))
    }
}

/// Old IDs are the same whatever the case of their letters.
fn key(old_id: &str) -> String {
    fold(old_id.trim())
}

// ---- importing

/// What of an imported membership is checked and stored as that of an account is.
fn as_account(new: &ImportedMembership) -> Account {
    Account {
        country_code: new.country_code.clone(),
        address: new.address.clone(),
        primary_contact: new.primary_contact.clone(),
        seller_contact: new.seller_contact.clone(),
        company_approver: new.company_approver.clone(),
        ..Account::default()
    }
}

pub(crate) fn check_import_memberships(req: &ImportMembershipsRequest, v: &mut Violations) {
    let all = || req.memberships.iter().take(MOST_ITEMS_NAMED);
    for (i, new) in all().enumerate() {
        let field = format!("memberships[{i}]");
        let id = key(&new.old_id);
        if id.is_empty() {
            v.also(format!("{field}.old_id"), "is required");
        } else if all().take(i).any(|other| key(&other.old_id) == id) {
            v.also(format!("{field}.old_id"), "is there twice");
        }
        for part in wire::missing_of_contact(new.contact.as_ref()) {
            v.also(format!("{field}.contact.{part}"), "is required");
        }
        let account = as_account(new);
        profile::check(&account, &field, v);
        profile::check_country(&account, &field, v);
        moves::check(new.brought.as_ref(), &format!("{field}.brought"), v);
    }
}

/// Brings memberships of an older programme in: all of them, or none.
///
/// # Errors
/// `INVALID_ARGUMENT` for package offers that aren't there, and for what was brought already and says something else now.
pub async fn import_memberships(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: ImportMembershipsRequest,
) -> Result<ImportMembershipsResponse> {
    let named = req.memberships.iter().filter_map(|m| m.brought.as_ref());
    let offers = moves::offers(tx.db(), named.flat_map(|b| &b.packages)).await?;
    let keys: Vec<String> = req.memberships.iter().map(|m| key(&m.old_id)).collect();
    let known = Entity::find()
        .filter(Column::OldIdFold.is_in(keys))
        .all(tx.db())
        .await?;
    let known: BTreeMap<String, Model> = known
        .into_iter()
        .map(|row| (row.old_id_fold.clone(), row))
        .collect();
    let (mut v, now) = (Violations::default(), tx.now());
    let (mut created, mut replaced, mut unchanged) = (Vec::new(), Vec::new(), 0);
    for (i, new) in req.memberships.into_iter().enumerate() {
        let field = format!("memberships[{i}]");
        let imported = imported(&new, &offers, &field, &mut v);
        let (content, moves) = (imported.to_stored()?, imported.moves.to_stored());
        let old_id = new.old_id.trim().to_owned();
        match known.get(&key(&old_id)) {
            None => {
                let row = Model {
                    id: tx.id(),
                    old_id_fold: key(&old_id),
                    old_id: old_id.clone(),
                    content,
                    moves,
                    membership_id: None,
                    arrive_time: None,
                    create_time: now,
                    update_time: now,
                };
                tx.insert(row).await?;
                created.push(old_id);
            }
            Some(row) if row.content == content => unchanged += 1,
            Some(row) => {
                let sql = "UPDATE imported_memberships SET content = $1, moves = $2, update_time = $3 \
                           WHERE id = $4 AND membership_id IS NULL";
                let values: [Value; 4] = [content.into(), moves.into(), now.into(), row.id.into()];
                // What was mailed proved another contact, perhaps.
                let claims = format!("{CLAIMS} WHERE old_id_fold = $1");
                let old: Value = row.old_id_fold.clone().into();
                for claim in sql::all::<Claim, _>(tx.db(), claims, [old]).await? {
                    link::revoke(tx, LinkKind::MembershipClaim, claim.id).await?;
                }
                if sql::execute(tx.db(), sql, values).await?.rows_affected() == 0 {
                    v.also(
                        format!("{field}.old_id"),
                        "was brought already, and can't be changed",
                    );
                }
                replaced.push(old_id);
            }
        }
    }
    v.none()?;
    let number = |of: usize| i32::try_from(of).unwrap_or(i32::MAX);
    let answer = ImportMembershipsResponse {
        created_count: number(created.len()),
        replaced_count: number(replaced.len()),
        unchanged_count: unchanged,
    };
    if answer.created_count + answer.replaced_count > 0 {
        tx.emit(
            Event::new("entente.account.v1.MembershipsImported", Name::Operator)
                .with("created", created)
                .with("replaced", replaced),
        );
    }
    Ok(answer)
}

fn imported(
    new: &ImportedMembership,
    offers: &BTreeMap<Uuid, super::entity::package_offer::Model>,
    field: &str,
    v: &mut Violations,
) -> Imported {
    let contact = new.contact.clone().unwrap_or_default();
    let mut profile = Profile::of(&as_account(new));
    profile
        .primary_contact
        .get_or_insert_with(|| contact.clone().into());
    Imported {
        legal_name: new.legal_name.clone(),
        country_code: new.country_code.clone(),
        website_uri: new.website_uri.clone(),
        contact: contact.into(),
        profile,
        moves: Moves::imported(new.brought.as_ref(), offers, &format!("{field}.brought"), v),
    }
}

// ---- asking

/// Notes that somebody asks for a membership: the same for every old ID.
///
/// # Errors
/// `PEOPLE_ONLY` to programs; `TOO_MANY_CALLS`.
pub async fn claim_membership(
    tx: &mut Tx,
    scope: CallerScope,
    req: ClaimMembershipRequest,
) -> Result<ClaimMembershipResponse> {
    let who = scope.principal();
    if !who.is_person() {
        return Err(Error::refused(Reason::PeopleOnly));
    }
    let id = key(&req.old_id);
    // Nobody tries many IDs, and nobody's mailbox gets many mails.
    address::count_mail(tx, "memberships asked for by", &who.id.to_string()).await?;
    address::count_mail(tx, "membership", &id).await?;
    let sql = "INSERT INTO membership_claims (id, old_id_fold, claimant_kind, claimant_id, claimant_tenant_id, language, is_waiting, create_time) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (claimant_id, old_id_fold) DO UPDATE SET \
               language = excluded.language, is_waiting = excluded.is_waiting, create_time = excluded.create_time";
    let values: [Value; 8] = [
        tx.id().into(),
        id.into(),
        (who.kind as i16).into(),
        who.id.into(),
        who.tenant.into(),
        tx.caller().language.tag().into(),
        true.into(),
        tx.now().into(),
    ];
    sql::execute(tx.db(), sql, values).await?;
    tx.emit(
        Event::new("entente.account.v1.MembershipAskedFor", who.resource())
            .with("asked_by", who.name())
            .with("old_id", req.old_id),
    );
    Ok(ClaimMembershipResponse {})
}

#[derive(FromQueryResult)]
struct Claim {
    id: Uuid,
    old_id_fold: String,
    claimant_kind: i16,
    claimant_id: Uuid,
    claimant_tenant_id: Uuid,
    language: String,
}

impl Claim {
    fn claimant(&self) -> Principal {
        Principal {
            kind: Kind::from_number(self.claimant_kind).unwrap_or(Kind::User),
            id: self.claimant_id,
            tenant: self.claimant_tenant_id,
        }
    }
}

const CLAIMS: &str = "SELECT id, old_id_fold, claimant_kind, claimant_id, claimant_tenant_id, language FROM membership_claims";

async fn by_old_id<C: ConnectionTrait>(db: &C, fold: &str) -> Result<Option<Model>> {
    let found = Entity::find().filter(Column::OldIdFold.eq(fold));
    Ok(found.one(db).await?)
}

/// Mails the link of a membership that somebody asked for, if there is one that nobody has brought; the scheduler's. One a transaction, so that
/// nobody's audit names others.
///
/// # Errors
/// Those of the database.
pub(crate) async fn mail_membership_links(tx: &mut Tx) -> Result<u64> {
    let sql = format!("{CLAIMS} WHERE is_waiting ORDER BY create_time, id LIMIT 1");
    let Some(claim) = sql::one::<Claim, _>(tx.db(), sql, []).await? else {
        return Ok(0);
    };
    // The same is audited for every old ID, whether or not there is one.
    let who = claim.claimant();
    // And no import meanwhile: it would find no link to kill, and this one go to a contact that isn't on file any more.
    tx.lock([ScopeKey::Operator, who.home()]).await?;
    tx.touch(who.home());
    tx.about(who.name());
    let sql = "UPDATE membership_claims SET is_waiting = $1 WHERE id = $2";
    sql::execute(tx.db(), sql, [false.into(), claim.id.into()]).await?;
    let row = by_old_id(tx.db(), &claim.old_id_fold).await?;
    if let Some(row) = row.filter(|row| row.membership_id.is_none()) {
        mail_link(tx, &claim, &row).await?;
    }
    // There may be more; the scheduler goes on at once.
    Ok(u64::MAX)
}

async fn mail_link(tx: &mut Tx, claim: &Claim, row: &Model) -> Result<()> {
    let (app, who) = (tx.app().clone(), claim.claimant());
    let by = directory::user::summary(tx.db(), who.id).await?;
    let can_act = grants::state(tx.db(), who, tx.now()).await?.is_some();
    let Some(by) = by.filter(|_| can_act) else {
        return Ok(());
    };
    let imported = Imported::from_stored(&row.content)?;
    let made = Link {
        kind: LinkKind::MembershipClaim,
        subject: claim.id,
        scope: who.home(),
    };
    let token = link::make(tx, made, &[], LINK_US).await?;
    let url = link::url(&app.config, made.kind, &token);
    let values = [
        ("name", imported.contact.display_name),
        ("by", format!("{} ({})", by.display_name, by.user_name)),
        ("old_id", row.old_id.clone()),
        ("legal_name", imported.legal_name),
        ("until", rfc3339(tx.now() + LINK_US)),
        ("link", url.to_string()),
        ("token", token.to_string()),
    ];
    let (language, template) = (Language::of_tag(&claim.language), Template::MembershipClaim);
    let (to, object) = (&imported.contact.email, who.resource());
    mail::queue_in(tx, language, template, to, object, &values).await
}

// ---- bringing

/// Whoever asked brings the membership.
///
/// # Errors
/// `LINK_INVALID`, also to anybody else; `MEMBERSHIP_CLAIMED`; `ALREADY_NETWORK_MEMBER` if the caller has brought another one, and opened no
/// account with it.
pub async fn confirm_membership(
    tx: &mut Tx,
    scope: TokenScope,
    _req: ConfirmMembershipRequest,
) -> Result<NetworkMembership> {
    let proven = scope.link();
    let sql = format!("{CLAIMS} WHERE id = $1");
    let claim = sql::one::<Claim, _>(tx.db(), sql, [proven.subject.into()]).await?;
    let claim = claim.ok_or_else(link::invalid)?;
    let who = claim.claimant();
    if scope.caller().map(|caller| caller.principal()) != Some(who) {
        return Err(link::invalid());
    }
    link::redeem(tx, proven).await?;
    let row = by_old_id(tx.db(), &claim.old_id_fold).await?;
    let row = row.ok_or_else(link::invalid)?;
    let replaces = make_way(tx, who).await?;
    let imported = Imported::from_stored(&row.content)?;
    let new = NewMembership {
        legal_name: imported.legal_name,
        country_code: imported.country_code,
        website_uri: imported.website_uri,
        contact: imported.contact.into(),
    };
    let membership = network::insert(tx, who, new).await?;
    // Of two at once one wins.
    let sql = "UPDATE imported_memberships SET membership_id = $1, update_time = $2 WHERE id = $3 AND membership_id IS NULL AND content = $4";
    let values: [Value; 4] = [
        membership.id.into(),
        tx.now().into(),
        row.id.into(),
        row.content.clone().into(),
    ];
    if sql::execute(tx.db(), sql, values).await?.rows_affected() == 0 {
        return Err(Error::precondition(Reason::MembershipClaimed));
    }
    let event = Event::new(
        "entente.account.v1.MembershipBrought",
        Name::NetworkMembership(membership.id),
    )
    .with("old_id", row.old_id.clone())
    .with("replaces", replaces);
    tx.emit(network::joined(event, &membership));
    network::shown(tx.db(), &membership).await
}

/// A membership of the caller's that carries nothing makes way: nobody has two without an account. Gives its name.
async fn make_way(tx: &mut Tx, who: Principal) -> Result<String> {
    let Some(unused) = network::unused(tx.db(), who.id).await? else {
        return Ok(String::new());
    };
    let name = Name::NetworkMembership(unused.id).to_string();
    if of(tx.db(), unused.id).await?.is_some() {
        return Err(network::already_member(&name));
    }
    let gone = network_membership::Entity::delete_by_id(unused.id);
    gone.exec(tx.db()).await?;
    Ok(name)
}

/// The imported membership that became one of the network, if that is one.
async fn of<C: ConnectionTrait>(db: &C, membership: Uuid) -> Result<Option<Model>> {
    let found = Entity::find().filter(Column::MembershipId.eq(membership));
    Ok(found.one(db).await?)
}

/// What a membership of the network brings, for the wire.
///
/// # Errors
/// Those of the database.
pub(super) async fn shown<C: ConnectionTrait>(
    db: &C,
    membership: Uuid,
) -> Result<Option<BroughtMembership>> {
    match of(db, membership).await? {
        Some(row) => {
            let moves = Moves::from_stored(&row.moves)?;
            Ok(Some(moves.to_wire(&row.old_id, row.arrive_time)))
        }
        None => Ok(None),
    }
}

// ---- choosing

/// Chooses what arrives, of what was imported; gives it before and after, for the event.
///
/// # Errors
/// `INVALID_ARGUMENT` for what was not imported, or of a membership that brings nothing; `WRONG_STATE` once the account is submitted.
pub(super) async fn choose(
    tx: &mut Tx,
    membership: &network_membership::Model,
    wanted: Option<BroughtMembership>,
) -> Result<(serde_json::Value, serde_json::Value)> {
    const FIELD: &str = "network_membership.brought";
    let row = of(tx.db(), membership.id).await?;
    // What wasn't changed is sent back, too.
    let same = match &row {
        Some(row) => {
            let now = Moves::from_stored(&row.moves)?.to_wire(&row.old_id, row.arrive_time);
            wanted.as_ref() == Some(&now)
        }
        None => wanted.is_none(),
    };
    if same {
        return Ok((serde_json::Value::Null, serde_json::Value::Null));
    }
    if let Some(account) = membership.account_id {
        tx.lock([ScopeKey::Account(account)]).await?;
        let row = account::Entity::find_by_id(account).one(tx.db()).await?;
        if row.is_some_and(|row| row.state != AccountState::Draft as i64) {
            return Err(Error::precondition(Reason::WrongState).with("state", "SUBMITTED"));
        }
    }
    let row = row.ok_or_else(|| {
        Error::field(
            FIELD,
            "is only there of a membership that was brought from an older programme",
        )
    })?;
    let mut v = Violations::default();
    let all = Imported::from_stored(&row.content)?.moves;
    let chosen = all.chosen(&wanted.unwrap_or_default(), FIELD, &mut v);
    v.none()?;
    let before = Moves::from_stored(&row.moves)?.to_json();
    let mut changed = row.into_active_model();
    changed.moves = Set(chosen.to_stored());
    changed.update_time = Set(tx.now());
    changed.update(tx.db()).await?;
    Ok((before, chosen.to_json()))
}

// ---- the account

/// An account that is opened with a membership that was brought begins with its profile, where the request says nothing else.
///
/// # Errors
/// Those of the database.
pub(super) async fn fill(
    tx: &Tx,
    membership: &network_membership::Model,
    account: &mut Account,
) -> Result<()> {
    let Some(row) = of(tx.db(), membership.id).await? else {
        return Ok(());
    };
    let Profile {
        address,
        primary_contact,
        seller_contact,
        company_approver,
    } = Imported::from_stored(&row.content)?.profile;
    if account.legal_name.is_empty() {
        account.legal_name.clone_from(&membership.legal_name);
    }
    // In another country the company has another address.
    let address = address.filter(|address| address.region_code == account.country_code);
    let of_request = Profile::of(account);
    account.address = of_request.address.or(address).map(Into::into);
    account.primary_contact = of_request
        .primary_contact
        .or(primary_contact)
        .map(Into::into);
    account.seller_contact = of_request.seller_contact.or(seller_contact).map(Into::into);
    account.company_approver = of_request
        .company_approver
        .or(company_approver)
        .map(Into::into);
    Ok(())
}

/// An account is active: what its membership brings arrives, once.
///
/// # Errors
/// Those of the database.
pub(super) async fn arrive(tx: &mut Tx, account: &account::Model) -> Result<()> {
    let Some(membership) = account.membership_id else {
        return Ok(());
    };
    let row = of(tx.db(), membership).await?;
    let Some(row) = row.filter(|row| row.arrive_time.is_none()) else {
        return Ok(());
    };
    let moves = Moves::from_stored(&row.moves)?;
    let level = benefit::arrive(tx, account.id, &moves).await?;
    let mut event = Event::new(
        "entente.account.v1.MembershipArrived",
        Name::Account(account.id),
    )
    .with("old_id", row.old_id.clone());
    if level {
        event = event
            .with("level", moves.level)
            .with("level_expire_time", json(moves.level_expire_time));
    }
    tx.emit(event);
    let mut changed = row.into_active_model();
    changed.arrive_time = Set(Some(tx.now()));
    changed.update_time = Set(tx.now());
    changed.update(tx.db()).await?;
    Ok(())
}

/// An account is over: what its membership was to bring and hasn't arrived can be brought again, to another one.
///
/// # Errors
/// Those of the database.
pub(super) async fn account_ended(tx: &Tx, account: &account::Model) -> Result<()> {
    match account.membership_id {
        Some(membership) => set_free(tx, membership).await,
        None => Ok(()),
    }
}

/// A draft is removed together with its membership, since whoever brought that has another one: it can be brought again.
///
/// # Errors
/// Those of the database.
pub(super) async fn set_free(tx: &Tx, membership: Uuid) -> Result<()> {
    let sql = "UPDATE imported_memberships SET membership_id = NULL WHERE membership_id = $1 AND arrive_time IS NULL";
    sql::execute(tx.db(), sql, [membership.into()]).await?;
    Ok(())
}
