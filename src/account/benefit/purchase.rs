//! BenefitService, buying (BEN-2): a purchase or renewal makes a charge, which goes to billing by an event; when billing confirms it, the
//! package begins or goes on. What billing refuses ends a package that never began, and changes nothing of one that did.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
};
use uuid::Uuid;

use super::{holding, package, wire};
use crate::{
    access::{
        account_state,
        scope::{AccountScope, OperatorScope},
    },
    account::entity::{
        account, charge,
        package::{Column, Entity, Model},
        package_offer,
    },
    app::{Read, Tx},
    check::Violations,
    env::{DAY_US, Micros},
    error::{Error, Reason, Result},
    names::Name,
    proto::account::{
        AccountState, BillingOutcome, BuyPackageRequest, ConfirmBillingRequest,
        ConfirmBillingResponse, ListPackagesRequest, ListPackagesResponse, Package, PackageState,
        RenewPackageRequest,
    },
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
        outbox::Event,
        scope_key::ScopeKey,
        sql,
        time::{json, rfc3339},
        update,
    },
};

/// Packages that an account has at most, lapsed ones included.
const MOST_PACKAGES: i64 = 1_000;
/// A package can be renewed so long before its expiry.
const RENEWED_BEFORE_US: Micros = 60 * DAY_US;
/// And so long after.
const RENEWED_AFTER_US: Micros = 30 * DAY_US;

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "package_offer",
            ("packages", "package_offer_id"),
            Kind::Id { parse: offer_id },
        ),
        Field::new("expire_time", ("packages", "expire_time"), Kind::TIME),
        Field::new("create_time", ("packages", "create_time"), Kind::TIME),
    ],
    orders: &[OrderField::new("create_time", ("packages", "create_time"))],
    id: ("packages", "id"),
};

fn offer_id(name: &str) -> Option<Uuid> {
    match Name::parse(name) {
        Some(Name::PackageOffer(id)) => Some(id),
        _ => None,
    }
}

/// The state of a package at an instant.
pub(super) fn state_of(row: &Model, now: Micros) -> PackageState {
    match (row.begin_time, row.expire_time) {
        (Some(_), Some(end)) if now < end => PackageState::Active,
        (Some(_), Some(end)) if now < end + RENEWED_AFTER_US => PackageState::Expired,
        (Some(_), Some(_)) => PackageState::Lapsed,
        _ if row.charge_id.is_none() => PackageState::Refused,
        _ => PackageState::Pending,
    }
}

/// Buys a package.
///
/// # Errors
/// `NOT_FOUND`, `PACKAGE_WITHDRAWN`, `TOO_MANY_PACKAGES`; `WRONG_STATE` for a draft.
pub async fn buy_package(
    tx: &mut Tx,
    scope: AccountScope,
    req: BuyPackageRequest,
) -> Result<Package> {
    let offer = package::find(tx.db(), &req.package_offer).await?;
    let state = state_of_account(tx, scope.id()).await?;
    if state == AccountState::Draft as i64 {
        return Err(account_state::wrong_state(state));
    }
    let sql = "SELECT COUNT(*) AS n FROM packages WHERE account_id = $1";
    let there = sql::row(tx.db(), sql, [scope.id().into()]).await?;
    if there.map_or(Ok(0), |row| row.try_get::<i64>("", "n"))? >= MOST_PACKAGES {
        return Err(
            Error::precondition(Reason::TooManyPackages).with("most", MOST_PACKAGES.to_string())
        );
    }
    let row = Model {
        id: tx.id(),
        account_id: scope.id(),
        package_offer_id: offer.id,
        display_name: offer.display_name.clone(),
        currency_code: offer.currency_code.clone(),
        amount_minor: offer.amount_minor,
        charge_id: None,
        begin_time: None,
        expire_time: None,
        create_time: tx.now(),
        version: 0,
    };
    tx.insert(row.clone()).await?;
    charge(tx, row, &offer).await
}

/// Renews a package.
///
/// # Errors
/// `NOT_FOUND`, `NOT_RENEWABLE` with from when until when it is, `WRONG_STATE` while a charge is open, `PACKAGE_WITHDRAWN`, `ETAG_MISMATCH`.
pub async fn renew_package(
    tx: &mut Tx,
    scope: AccountScope,
    req: RenewPackageRequest,
) -> Result<Package> {
    let missing = || Error::not_found("entente.dev/Package", req.name.as_str());
    let Some(Name::Package(_, id)) = Name::parse(&req.name) else {
        return Err(missing());
    };
    let row = Entity::find_by_id(id)
        .filter(Column::AccountId.eq(scope.id()))
        .one(tx.db())
        .await?
        .ok_or_else(missing)?;
    update::check_etag(&req.etag, row.version)?;
    let end = match (row.charge_id, row.expire_time) {
        (None, Some(end)) => end,
        (Some(_), _) => return Err(wrong_state("CHARGE_OPEN")),
        (None, None) => return Err(wrong_state("REFUSED")),
    };
    let (from, until) = (end - RENEWED_BEFORE_US, end + RENEWED_AFTER_US);
    if tx.now() < from || tx.now() >= until {
        return Err(Error::precondition(Reason::NotRenewable)
            .with("from", rfc3339(from))
            .with("until", rfc3339(until)));
    }
    let offer = package_offer::Entity::find_by_id(row.package_offer_id);
    let offer = offer.one(tx.db()).await?.ok_or_else(missing)?;
    charge(tx, row, &offer).await
}

/// Opens a charge for a term as the offer is now, and tells billing of it.
async fn charge(tx: &mut Tx, row: Model, offer: &package_offer::Model) -> Result<Package> {
    if offer.withdrawn {
        return Err(Error::precondition(Reason::PackageWithdrawn));
    }
    let charge = charge::Model {
        id: tx.id(),
        account_id: row.account_id,
        package_id: row.id,
        display_name: offer.display_name.clone(),
        currency_code: offer.currency_code.clone(),
        amount_minor: offer.amount_minor,
        term_days: offer.term_days,
        contents: offer.contents.clone(),
        create_time: tx.now(),
        confirm_time: None,
        refuse_time: None,
    };
    tx.insert(charge.clone()).await?;
    let row = Model {
        charge_id: Some(charge.id),
        currency_code: charge.currency_code.clone(),
        amount_minor: charge.amount_minor,
        version: row.version + 1,
        ..row
    };
    row.clone()
        .into_active_model()
        .reset_all()
        .update(tx.db())
        .await?;
    tx.emit(
        Event::new(
            "entente.account.v1.PackageCharged",
            Name::Package(row.account_id, row.id),
        )
        .with("charge_id", charge.id.to_string())
        .with("package_offer", Name::PackageOffer(offer.id).to_string())
        .with("currency_code", charge.currency_code)
        .with("amount_minor", charge.amount_minor.to_string())
        .with("renewal", row.begin_time.is_some()),
    );
    Ok(wire::package(&row, tx.now()))
}

/// The state of an account that is there.
async fn state_of_account(tx: &Tx, id: Uuid) -> Result<i64> {
    let row = account::Entity::find_by_id(id).one(tx.db()).await?;
    let row =
        row.ok_or_else(|| Error::not_found("entente.dev/Account", Name::Account(id).to_string()))?;
    Ok(row.state)
}

fn wrong_state(state: &str) -> Error {
    Error::precondition(Reason::WrongState).with("state", state)
}

/// Billing confirms a charge, or refuses it.
///
/// # Errors
/// `NOT_FOUND`; `WRONG_STATE` if it said the other before, or the account has ended.
pub async fn confirm_billing(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: ConfirmBillingRequest,
) -> Result<ConfirmBillingResponse> {
    let missing = || Error::not_found("entente.dev/Charge", req.charge_id.as_str());
    let id = Uuid::try_parse(&req.charge_id).map_err(|_| missing())?;
    let charge = find_charge(tx.db(), id).await?.ok_or_else(missing)?;
    tx.lock([ScopeKey::Account(charge.account_id)]).await?;
    // Again, under the lock: of two at once one says it.
    let charge = find_charge(tx.db(), id).await?.ok_or_else(missing)?;
    let row = Entity::find_by_id(charge.package_id);
    let row = row.one(tx.db()).await?.ok_or_else(missing)?;
    tx.touch(ScopeKey::Operator);
    let is_refused = req.outcome() == BillingOutcome::Refused;
    let row = match (charge.confirm_time, charge.refuse_time) {
        (None, None) if is_refused => refuse(tx, row, &charge).await?,
        (None, None) => {
            let state = state_of_account(tx, charge.account_id).await?;
            if [AccountState::Rejected, AccountState::Closed]
                .map(|s| s as i64)
                .contains(&state)
            {
                return Err(account_state::wrong_state(state));
            }
            let row = go_on(tx, row, &charge).await?;
            holding::add(tx, &row, &charge.contents.0).await?;
            row
        }
        (Some(_), _) if is_refused => return Err(wrong_state("CONFIRMED")),
        (_, Some(_)) if !is_refused => return Err(wrong_state("REFUSED")),
        _ => row,
    };
    Ok(ConfirmBillingResponse {
        package: Some(wire::package(&row, tx.now())),
    })
}

/// Nothing comes of a charge.
async fn refuse(tx: &mut Tx, old: Model, charge: &charge::Model) -> Result<Model> {
    let sql = "UPDATE package_charges SET refuse_time = $2 WHERE id = $1";
    sql::execute(tx.db(), sql, [charge.id.into(), tx.now().into()]).await?;
    let row = Model {
        charge_id: None,
        version: old.version + 1,
        ..old
    };
    row.clone()
        .into_active_model()
        .reset_all()
        .update(tx.db())
        .await?;
    tx.emit(
        Event::new(
            "entente.account.v1.PackageRefused",
            Name::Package(row.account_id, row.id),
        )
        .with("charge_id", charge.id.to_string())
        .with("renewal", row.begin_time.is_some()),
    );
    Ok(row)
}

async fn find_charge<C: ConnectionTrait>(db: &C, id: Uuid) -> Result<Option<charge::Model>> {
    Ok(charge::Entity::find_by_id(id).one(db).await?)
}

/// A package begins, or goes on for another term.
async fn go_on(tx: &mut Tx, old: Model, charge: &charge::Model) -> Result<Model> {
    let now = tx.now();
    let sql = "UPDATE package_charges SET confirm_time = $2 WHERE id = $1";
    sql::execute(tx.db(), sql, [charge.id.into(), now.into()]).await?;
    // The new term follows on the old one; what billing confirms after that can't be renewed any more begins anew.
    let from = old
        .expire_time
        .filter(|end| now < end + RENEWED_AFTER_US)
        .unwrap_or(now);
    let row = Model {
        display_name: charge.display_name.clone(),
        charge_id: None,
        begin_time: Some(old.begin_time.unwrap_or(now)),
        expire_time: Some(from + charge.term_days * DAY_US),
        version: old.version + 1,
        ..old.clone()
    };
    row.clone()
        .into_active_model()
        .reset_all()
        .update(tx.db())
        .await?;
    tx.emit(
        Event::new(
            "entente.account.v1.PackageConfirmed",
            Name::Package(row.account_id, row.id),
        )
        .change("begin_time", json(old.begin_time), json(row.begin_time))
        .change("expire_time", json(old.expire_time), json(row.expire_time))
        .with("charge_id", charge.id.to_string()),
    );
    Ok(row)
}

pub(crate) fn check_list_packages(req: &ListPackagesRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists the packages of an account.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_packages(
    rd: &Read,
    scope: AccountScope,
    req: ListPackagesRequest,
) -> Result<ListPackagesResponse> {
    let select = Entity::find().filter(Column::AccountId.eq(scope.id()));
    let page = rd
        .list(&req, &LISTING, select, |row: Model| {
            wire::package(&row, rd.now())
        })
        .await?;
    Ok(ListPackagesResponse {
        packages: page.items,
        next_page_token: page.next_page_token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves BEN-2
    #[test]
    fn time_says_the_state_of_a_package() {
        let row = |charge_id, begin_time, expire_time| Model {
            id: Uuid::nil(),
            account_id: Uuid::nil(),
            package_offer_id: Uuid::nil(),
            display_name: String::new(),
            currency_code: String::new(),
            amount_minor: 1,
            charge_id,
            begin_time,
            expire_time,
            create_time: 0,
            version: 1,
        };
        let charged = row(Some(Uuid::nil()), None, None);
        assert_eq!(state_of(&charged, 5), PackageState::Pending);
        assert_eq!(state_of(&row(None, None, None), 5), PackageState::Refused);
        let end = 100 * DAY_US;
        for (now, state) in [
            (end - 1, PackageState::Active),
            (end, PackageState::Expired),
            (end + RENEWED_AFTER_US - 1, PackageState::Expired),
            (end + RENEWED_AFTER_US, PackageState::Lapsed),
        ] {
            assert_eq!(state_of(&row(None, Some(0), Some(end)), now), state);
        }
    }
}
