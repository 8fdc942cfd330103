//! Who is shown what of a claim. The claimant sees what it said, what the holder says, and what became of it; the holder sees what the claimant
//! says, and not who it is; neither sees the other's documents. Reviewers see all, if they are tied to neither side.

use std::collections::BTreeSet;

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, sea_query::ExprTrait as _};
use uuid::Uuid;

use super::{Column, Entity, Model, STATES, find};
use crate::{
    access::{principal::Principal, roles::Permission, scope::Proof},
    account::review,
    app::Read,
    check::Violations,
    document::{self, SubjectKind},
    error::{Error, Reason, Result},
    names::Name,
    proto::account::{
        GetNameClaimRequest, ListNameClaimsRequest, ListNameClaimsResponse, NameClaim,
    },
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
        scope_key::ScopeKey,
        time::timestamp,
        update::etag,
    },
};

const LISTING: Listing = Listing {
    fields: &[
        Field::new("state", ("name_claims", "state"), Kind::Enum(STATES)),
        Field::new("create_time", ("name_claims", "create_time"), Kind::TIME),
    ],
    orders: &[OrderField::new(
        "create_time",
        ("name_claims", "create_time"),
    )],
    id: ("name_claims", "id"),
};

/// As whom somebody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// As whoever claims.
    Claimant,
    /// As a member of the account that has the name.
    Holder,
    /// As a reviewer who is tied to neither.
    Reviewer,
}

/// Claims for the wire, item for row.
pub(super) async fn shown<C: ConnectionTrait>(
    db: &C,
    rows: &[Model],
    side: impl Fn(&Model) -> Side,
) -> Result<Vec<NameClaim>> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let documents = document::of_subjects(db, SubjectKind::NameClaim, &ids).await?;
    let one = |row: &Model| {
        let of = |is_holders: bool| {
            documents
                .iter()
                .filter(|d| d.attached_id == Some(row.id))
                .filter(|d| (d.account_id == Some(row.holder_id)) == is_holders)
                .map(|d| d.name().to_string())
                .collect()
        };
        let side = side(row);
        let mut claim = wire(row);
        if side != Side::Holder {
            claim.claimant = row.claimant().name();
            claim.account = row
                .account_id
                .map_or_else(String::new, |id| Name::Account(id).to_string());
            claim.documents = of(false);
        }
        if side != Side::Claimant {
            claim.holder = Name::Account(row.holder_id).to_string();
            claim.answer_documents = of(true);
        }
        claim
    };
    Ok(rows.iter().map(one).collect())
}

/// What both sides see.
fn wire(row: &Model) -> NameClaim {
    let Model {
        id,
        display_name,
        statement,
        account_id: _,
        claimant_kind: _,
        claimant_id: _,
        claimant_tenant_id: _,
        holder_id: _,
        state,
        answer,
        answer_text,
        answer_time,
        reason,
        decide_time,
        answer_until,
        rename_until,
        keep_until,
        suspended: _,
        due_time: _,
        create_time,
        update_time,
        version,
    } = row;
    NameClaim {
        name: Name::NameClaim(*id).to_string(),
        publisher_display_name: display_name.clone(),
        statement: statement.clone(),
        account: String::new(),
        documents: Vec::new(),
        claimant: String::new(),
        holder: String::new(),
        state: i32::try_from(*state).unwrap_or(0),
        answer: i32::try_from(*answer).unwrap_or(0),
        answer_text: answer_text.clone(),
        answer_documents: Vec::new(),
        answer_expire_time: timestamp(*answer_until),
        answer_time: answer_time.and_then(timestamp),
        reason: reason.clone(),
        decide_time: decide_time.and_then(timestamp),
        rename_expire_time: rename_until.and_then(timestamp),
        keep_expire_time: keep_until.and_then(timestamp),
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
    }
}

/// Both sides, as the queue of reviews knows them.
fn sides(rd: &Read, row: &Model) -> [Uuid; 2] {
    [
        row.holder_id,
        row.claimants_side(rd.app().operator_tenant()),
    ]
}

/// Whether somebody filed a claim itself.
fn filed(row: &Model, who: Principal) -> bool {
    row.claimant() == who
}

/// As which side the caller of a party may look, if it is of one.
async fn party(rd: &Read, row: Option<&Model>, who: Principal) -> Result<Option<Side>> {
    if row.is_some_and(|row| filed(row, who)) {
        return Ok(Some(Side::Claimant));
    }
    // Asked also where there is no claim, or none for an account: a refusal costs the same.
    for (account, side) in [
        (row.and_then(|row| row.account_id), Side::Claimant),
        (row.map(|row| row.holder_id), Side::Holder),
    ] {
        let scope = ScopeKey::Account(account.unwrap_or_default());
        let held = rd.caller_permissions(scope).await?;
        if account.is_some() && held.has(Permission::AccountRead) {
            return Ok(Some(side));
        }
    }
    Ok(None)
}

/// Gives a claim.
///
/// # Errors
/// `PERMISSION_DENIED`, whether or not there is such a claim; `NOT_FOUND` and `REVIEWER_INVOLVED` to reviewers.
pub async fn get_name_claim(
    rd: &Read,
    proof: Proof,
    req: GetNameClaimRequest,
) -> Result<NameClaim> {
    let who = proof.caller()?.principal();
    let row = find(rd.db(), &req.name).await?;
    let side = party(rd, row.as_ref(), who).await?;
    let side = match (&row, side) {
        (_, Some(side)) => side,
        (Some(row), None) if proof.by_operator() => {
            demand_untied(rd, row).await?;
            rd.looked(row.name());
            Side::Reviewer
        }
        (None, None) if proof.by_operator() => return Err(super::missing(&req.name)),
        (row, None) => {
            let holder = row.as_ref().map(|row| row.holder_id).unwrap_or_default();
            rd.demand(Permission::AccountRead, Name::Account(holder))
                .await?;
            Side::Holder
        }
    };
    let row = row.ok_or_else(|| Error::denied(Permission::AccountRead))?;
    let mut all = shown(rd.db(), &[row], |_| side).await?;
    all.pop()
        .ok_or_else(|| Error::internal("a claim on a name is not shown"))
}

/// Refuses reviewers who are tied to either side.
async fn demand_untied(rd: &Read, row: &Model) -> Result<()> {
    let tied = review::tied_to(rd, sides(rd, row).into_iter()).await?;
    let who = rd.caller().who.map(|who| who.principal);
    if tied.is_empty() && !who.is_some_and(|who| filed(row, who)) {
        Ok(())
    } else {
        Err(Error::refused(Reason::ReviewerInvolved))
    }
}

/// Refuses whoever may not see what a claim is proven by.
///
/// # Errors
/// `REVIEWER_INVOLVED`, `PEOPLE_ONLY`; `PERMISSION_DENIED` if there is no such claim.
pub(in crate::account) async fn demand_sight(rd: &Read, id: Uuid) -> Result<()> {
    let row = Entity::find_by_id(id).one(rd.db()).await?;
    let row = row.ok_or_else(|| Error::denied(Permission::ReviewsHandle))?;
    demand_untied(rd, &row).await
}

/// Whether a claim that is for no account yet is the caller's, or that of somebody of its tenant.
///
/// # Errors
/// Those of the database.
pub(in crate::account) async fn is_callers(rd: &Read, claim: Uuid) -> Result<bool> {
    let row = Entity::find_by_id(claim).one(rd.db()).await?;
    let row = row.filter(|row| row.account_id.is_none());
    let who = rd.caller().who.map(|who| who.principal);
    Ok(row.zip(who).is_some_and(|(row, who)| {
        filed(&row, who) || (!who.tenant.is_nil() && row.claimant_tenant_id == who.tenant)
    }))
}

pub(crate) fn check_list_name_claims(req: &ListNameClaimsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists claims.
///
/// # Errors
/// `PERMISSION_DENIED` for an account that the caller may not read; `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_name_claims(
    rd: &Read,
    proof: Proof,
    req: ListNameClaimsRequest,
) -> Result<ListNameClaimsResponse> {
    let who = proof.caller()?.principal();
    let account = match Name::parse(&req.account) {
        Some(Name::Account(id)) => Some(id),
        _ => None,
    };
    if let Some(account) = account
        && !proof.by_operator()
    {
        rd.demand(Permission::AccountRead, Name::Account(account))
            .await?;
    }
    let mut select = Entity::find();
    if let Some(account) = account {
        let theirs = Column::HolderId
            .eq(account)
            .or(Column::AccountId.eq(account));
        select = select.filter(theirs);
    } else if !proof.by_operator() {
        select = select
            .filter(Column::ClaimantId.eq(who.id))
            .filter(Column::ClaimantTenantId.eq(who.tenant));
    }
    let mut found = rd.rows::<_, Model>(&req, &LISTING, select).await?;
    let side = if proof.by_operator() {
        // Whoever is tied to a side isn't told of its claims here; a page is shorter then.
        let all: BTreeSet<Uuid> = found.rows.iter().flat_map(|row| sides(rd, row)).collect();
        let tied = review::tied_to(rd, all.into_iter()).await?;
        found.leave_out(|row: &Model| {
            filed(row, who) || sides(rd, row).iter().any(|side| tied.contains(side))
        });
        rd.looked(Name::Operator);
        None
    } else {
        Some(account)
    };
    let claims = shown(rd.db(), &found.rows, |row| match side {
        None => Side::Reviewer,
        Some(Some(account)) if row.holder_id == account => Side::Holder,
        Some(_) => Side::Claimant,
    })
    .await?;
    let page = found.page(claims);
    Ok(ListNameClaimsResponse {
        name_claims: page.items,
        next_page_token: page.next_page_token,
    })
}
