//! DomainService: domains that a tenant proves to be its own by a record in the DNS (TEN-2).
//!
//! States: pending → verified ⇄ lapsed, by VerifyDomain or by the daily look-up (`domain_look_up`); gone when deleted, or purged with its
//! tenant. Invariants: a name is verified for one tenant at most; only whoever brings the record gets to know that another has it. A name
//! stands for itself alone: those below it may be delegated to other hands, so each is proven by its own record. A deleted tenant's
//! domains lapse, and are looked up again when it is restored.

use std::{net::IpAddr, sync::Arc, time::Duration};

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, PaginatorTrait,
    QueryFilter, Set,
};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{
    entity::domain::{self, Column, Entity, Model},
    wire,
};
use crate::{
    access::scope::{Proof, TenantScope},
    app::{App, Outside, Read, Tx},
    check::Violations,
    dns::{For, NoAnswer},
    env::{DAY_US, HOUR_US, Micros},
    error::{Error, Reason, Result},
    names::Name,
    proto::directory::{
        CreateDomainRequest, DeleteDomainRequest, DeleteDomainResponse, Domain, DomainState,
        GetDomainRequest, ListDomainsRequest, ListDomainsResponse, VerifyDomainRequest,
    },
    store::{
        filter::{Field, Kind as FilterKind, OrderField},
        list::Listing,
        outbox::Event,
        sql, time, update,
    },
};

const DOMAIN: &str = "entente.dev/Domain";
/// Named, not verified.
pub(super) const PENDING: i64 = 1;
/// The tenant's own.
pub(super) const VERIFIED: i64 = 2;
/// Was verified; its record is gone, or its tenant.
pub(super) const LAPSED: i64 = 3;
/// Domains of a tenant: each is looked up daily.
const MOST_DOMAINS: u64 = 100;
/// Look-ups on request of one tenant at once.
const LOOK_UPS_A_TENANT: usize = 2;
/// What the record's name begins with, before the domain.
const LABEL: &str = "_entente-verification";
/// What the record's value begins with, before the token.
const VALUE: &str = "entente-verification=";
/// The most characters of a domain: the record's name has 253 at most (RFC 1035).
const MOST_CHARS: usize = 253 - LABEL.len() - 1;
/// Names that the DNS of the world doesn't have, or that are no one's: a resolver's own network must not vouch for anybody (RFC 6761, 6762,
/// 7686, 8375, 9476; ICANN's `internal`). Those for examples and tests can be had by nobody either, but harm nobody in a DNS of one's own.
const LOCAL: &[&str] = &[
    "alt",
    "arpa",
    "internal",
    "invalid",
    "local",
    "localhost",
    "onion",
];

const LISTING: Listing = Listing {
    fields: &[
        Field::new(
            "domain_name",
            ("domains", "domain_name"),
            // A tenant has few: no index is needed to find texts in them.
            FilterKind::Text(&[]),
        ),
        Field::new(
            "state",
            ("domains", "state"),
            FilterKind::Enum(&[
                ("PENDING", PENDING),
                ("VERIFIED", VERIFIED),
                ("LAPSED", LAPSED),
            ]),
        ),
        Field::new("create_time", ("domains", "create_time"), FilterKind::TIME),
    ],
    orders: &[
        OrderField::new("create_time", ("domains", "create_time")),
        OrderField::new("domain_name", ("domains", "domain_name")),
    ],
    id: ("domains", "id"),
};

/// A domain's name as it is kept, in ASCII; or what is wrong with it.
pub(crate) fn normal(text: &str) -> std::result::Result<String, &'static str> {
    let form = "must be a domain such as contoso.example";
    let name = idna::domain_to_ascii_strict(text).map_err(|_| form)?;
    if name.len() > MOST_CHARS {
        return Err("has at most 231 characters in its ASCII form");
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if !name.contains('.') || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(form);
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err("must be a domain, not an address");
    }
    if LOCAL.contains(&last) {
        return Err("is no domain of the public DNS");
    }
    if psl::domain(name.as_bytes()).is_none() {
        return Err("is a public suffix, under which many have theirs");
    }
    Ok(name)
}

/// The domain of an address, as domains are kept.
pub(crate) fn domain_of(email: &str) -> Option<String> {
    let (_, domain) = email.rsplit_once('@')?;
    normal(domain).ok()
}

pub(super) fn record_name(row: &Model) -> String {
    format!("{LABEL}.{}", row.domain_name)
}

pub(super) fn record_value(row: &Model) -> String {
    format!("{VALUE}{}", row.token)
}

/// The tenant in whose verified domain an address lies.
///
/// # Errors
/// Those of the database.
pub async fn verified_tenant_of<C: ConnectionTrait>(db: &C, email: &str) -> Result<Option<Uuid>> {
    let Some(name) = domain_of(email) else {
        return Ok(None);
    };
    Ok(verified(db, &name).await?.map(|row| row.tenant_id))
}

/// The tenant that has verified a domain, in the form in which domains are kept.
///
/// # Errors
/// Those of the database.
pub(crate) async fn tenant_of<C: ConnectionTrait>(db: &C, name: &str) -> Result<Option<Uuid>> {
    Ok(verified(db, name).await?.map(|row| row.tenant_id))
}

/// The verified domain of a name, if it is one.
pub(super) async fn verified_by_id<C: ConnectionTrait>(
    db: &C,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<Model>> {
    Ok(Entity::find_by_id(id)
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::State.eq(VERIFIED))
        .one(db)
        .await?)
}

pub(super) async fn verified<C: ConnectionTrait>(db: &C, name: &str) -> Result<Option<Model>> {
    Ok(Entity::find()
        .filter(Column::DomainName.eq(name))
        .filter(Column::State.eq(VERIFIED))
        .one(db)
        .await?)
}

/// When a domain that was looked up now is looked up again: within a day, and not all of them at the same time.
pub(super) fn next_look_up(id: Uuid, now: Micros) -> Micros {
    let spread = id.as_u128() % (2 * HOUR_US).unsigned_abs() as u128;
    now + DAY_US - Micros::try_from(spread).unwrap_or(0)
}

/// What a look-up told; nothing if there is no such domain.
pub type LookedUp = Option<std::result::Result<Vec<String>, NoAnswer>>;

fn name_of(row: &Model) -> Name {
    Name::Domain(row.tenant_id, row.id)
}

/// What tells that a domain came into another state.
pub(super) fn changed(kind: &'static str, old: &Model, row: &Model) -> Event {
    Event::new(kind, name_of(row))
        .change("state", old.state, row.state)
        .change(
            "verify_time",
            time::json(old.verify_time),
            time::json(row.verify_time),
        )
        .change(
            "missing_since_time",
            time::json(old.missing_since_time),
            time::json(row.missing_since_time),
        )
}

async fn find<C: ConnectionTrait>(db: &C, scope: TenantScope, name: &str) -> Result<Model> {
    let id = Name::parse(name).map(|n| n.id()).unwrap_or_default();
    domain::find(db, scope, id)
        .await?
        .ok_or_else(|| Error::not_found(DOMAIN, name))
}

pub(crate) fn check_create_domain(req: &CreateDomainRequest, v: &mut Violations) {
    let Some(domain) = &req.domain else {
        return;
    };
    if let Err(fault) = normal(&domain.domain_name)
        && !domain.domain_name.is_empty()
    {
        v.also("domain.domain_name", fault);
    }
}

/// Whether a name is the operator's own, under which tenants have theirs by their prefix.
fn is_the_operators(app: &App, name: &str) -> bool {
    let base = app.config.base_domain.as_str();
    name.strip_suffix(base)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Names a domain, with a record of its own.
///
/// # Errors
/// `INVALID_ARGUMENT` for a name that can't be proven; `RESOURCE_EXISTS` for one that the tenant has named; `TOO_MANY_DOMAINS`.
pub async fn create_domain(
    tx: &mut Tx,
    scope: TenantScope,
    req: CreateDomainRequest,
) -> Result<Domain> {
    let CreateDomainRequest {
        parent: _,
        domain,
        request_id: _,
        validate_only: _,
    } = req;
    let given = wire::new_domain(domain)?;
    let field = "domain.domain_name";
    let domain_name = normal(&given).map_err(|fault| Error::field(field, fault))?;
    if is_the_operators(tx.app(), &domain_name) {
        return Err(Error::field(field, "is the operator's own"));
    }
    let named = Entity::find()
        .filter(Column::TenantId.eq(scope.id()))
        .count(tx.db())
        .await?;
    if named >= MOST_DOMAINS {
        return Err(Error::exhausted(Reason::TooManyDomains, None));
    }
    let now = tx.now();
    let row = Model {
        id: tx.id(),
        tenant_id: scope.id(),
        domain_name,
        token: hex::encode(tx.app().env.bytes::<16>()),
        state: PENDING,
        verify_time: None,
        look_up_time: None,
        missing_since_time: None,
        next_look_up_time: None,
        lease_id: None,
        create_time: now,
        update_time: now,
        version: 1,
    };
    // At once, so that the answer is that of the constraint.
    Entity::insert(row.clone().into_active_model())
        .exec_without_returning(tx.db())
        .await?;
    tx.emit(
        Event::new("entente.directory.v1.DomainCreated", name_of(&row)).change(
            "domain_name",
            serde_json::Value::Null,
            row.domain_name.clone(),
        ),
    );
    Ok(wire::domain_resource(&row))
}

/// Looks the record up, outside of any transaction. What came of it is judged within: the very same call may have been answered before.
///
/// # Errors
/// Those of the database.
pub async fn prepare_verify_domain(
    outside: &Outside,
    proof: Proof,
    req: &VerifyDomainRequest,
) -> Result<LookedUp> {
    let (scope, name) = (proof.tenant()?, req.name.clone());
    let app = outside.app();
    let row = app
        .look(move |snapshot| {
            let name = name.clone();
            Box::pin(async move { find(snapshot.db(), scope, &name).await.map(Some) })
        })
        .await
        .or_else(|error| match error.reason() {
            Reason::ResourceNotFound => Ok(None),
            _ => Err(error),
        })?;
    let Some(row) = row else {
        return Ok(None);
    };
    // One whose servers don't answer would keep the turns of all others.
    let key = [b"look-ups of".as_slice(), row.tenant_id.as_bytes()].concat();
    let turns = app
        .streams
        .get_with(key, || Arc::new(Semaphore::new(LOOK_UPS_A_TENANT)));
    let _turn = turns.try_acquire_owned().map_err(|_| {
        Error::exhausted(Reason::TooManyCalls, Some(Duration::from_secs(1)))
            .with("method", "entente.directory.v1.DomainService/VerifyDomain")
    })?;
    Ok(Some(app.dns.texts(&record_name(&row), For::Caller).await))
}

/// Verifies a domain whose record was found.
///
/// # Errors
/// `DNS_UNAVAILABLE`, `DOMAIN_RECORD_NOT_FOUND`, `DOMAIN_VERIFIED_ELSEWHERE`, `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn verify_domain(
    tx: &mut Tx,
    scope: TenantScope,
    req: VerifyDomainRequest,
    looked_up: LookedUp,
) -> Result<Domain> {
    let VerifyDomainRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let old = find(tx.db(), scope, &name).await?;
    update::check_etag(&etag, old.version)?;
    let record = record_name(&old);
    let found = match looked_up {
        Some(Ok(found)) => found,
        Some(Err(NoAnswer(fault))) => {
            tracing::info!(%record, %fault, "a domain could not be looked up");
            // Mostly the domain's own servers: a caller must not make this service look ill.
            return Err(Error::precondition(Reason::DnsUnavailable).with("record", record));
        }
        // Made after the look-up was prepared; a name that nobody was told yet.
        None => return Err(Error::aborted(Reason::Conflict)),
    };
    if !found.contains(&record_value(&old)) {
        return Err(Error::precondition(Reason::DomainRecordNotFound)
            .with("record", record)
            .with("found", found.len().to_string()));
    }
    let row = prove(tx, &old).await?;
    Ok(wire::domain_resource(&row))
}

/// Makes a domain whose record was just found the tenant's own.
///
/// # Errors
/// `DOMAIN_VERIFIED_ELSEWHERE`, also for two at once.
pub(super) async fn prove(tx: &mut Tx, old: &Model) -> Result<Model> {
    let other = verified(tx.db(), &old.domain_name).await?;
    if other.is_some_and(|other| other.id != old.id) {
        return Err(Error::exists(
            Reason::DomainVerifiedElsewhere,
            "name",
            "is a domain that another tenant has verified",
        ));
    }
    let now = tx.now();
    let mut row = old.clone().into_active_model();
    row.state = Set(VERIFIED);
    row.verify_time = Set(Some(now));
    row.look_up_time = Set(Some(now));
    row.missing_since_time = Set(None);
    row.next_look_up_time = Set(Some(next_look_up(old.id, now)));
    row.lease_id = Set(None);
    row.update_time = Set(now);
    row.version = Set(old.version + 1);
    let row: Model = row.update(tx.db()).await?;
    tx.emit(changed("entente.directory.v1.DomainVerified", old, &row));
    Ok(row)
}

/// A domain vouches for nobody any more.
pub(super) async fn lapse(tx: &mut Tx, old: &Model, next: Option<Micros>) -> Result<Model> {
    let now = tx.now();
    let mut row = old.clone().into_active_model();
    row.state = Set(LAPSED);
    row.next_look_up_time = Set(next);
    row.lease_id = Set(None);
    row.update_time = Set(now);
    row.version = Set(old.version + 1);
    let row: Model = row.update(tx.db()).await?;
    tx.emit(changed("entente.directory.v1.DomainLapsed", old, &row));
    Ok(row)
}

/// A tenant is deleted: its domains are free for others.
///
/// # Errors
/// Those of the database.
pub(super) async fn let_go(tx: &mut Tx, tenant: Uuid) -> Result<()> {
    let verified = Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::State.eq(VERIFIED))
        .all(tx.db())
        .await?;
    for row in verified {
        lapse(tx, &row, None).await?;
    }
    let sql = "UPDATE domains SET next_look_up_time = NULL, lease_id = NULL WHERE tenant_id = $1";
    sql::execute(tx.db(), sql, [tenant.into()]).await?;
    Ok(())
}

/// A tenant is restored: what it had verified is looked up again, soon.
///
/// # Errors
/// Those of the database.
pub(super) async fn take_up(tx: &mut Tx, tenant: Uuid) -> Result<()> {
    let sql = "UPDATE domains SET next_look_up_time = $1 WHERE tenant_id = $2 AND state = $3";
    let values = [tx.now().into(), tenant.into(), LAPSED.into()];
    sql::execute(tx.db(), sql, values).await?;
    Ok(())
}

/// Gives a domain.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn get_domain(rd: &Read, scope: TenantScope, req: GetDomainRequest) -> Result<Domain> {
    let row = find(rd.db(), scope, &req.name).await?;
    Ok(wire::domain_resource(&row))
}

pub(crate) fn check_list_domains(req: &ListDomainsRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists the domains of a tenant.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_domains(
    rd: &Read,
    scope: TenantScope,
    req: ListDomainsRequest,
) -> Result<ListDomainsResponse> {
    let select = Entity::find().filter(Column::TenantId.eq(scope.id()));
    let page = rd
        .list(&req, &LISTING, select, |row: Model| {
            wire::domain_resource(&row)
        })
        .await?;
    Ok(ListDomainsResponse {
        domains: page.items,
        next_page_token: page.next_page_token,
    })
}

/// Deletes a domain.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn delete_domain(
    tx: &mut Tx,
    scope: TenantScope,
    req: DeleteDomainRequest,
) -> Result<DeleteDomainResponse> {
    let DeleteDomainRequest {
        name,
        etag,
        request_id: _,
        validate_only: _,
    } = req;
    let row = find(tx.db(), scope, &name).await?;
    update::check_etag(&etag, row.version)?;
    Entity::delete_by_id(row.id).exec(tx.db()).await?;
    let state = i32::try_from(row.state).unwrap_or(DomainState::Unspecified as i32);
    tx.emit(
        Event::new("entente.directory.v1.DomainDeleted", name_of(&row))
            .change(
                "domain_name",
                row.domain_name.clone(),
                serde_json::Value::Null,
            )
            .change("state", state, serde_json::Value::Null),
    );
    Ok(DeleteDomainResponse {
        resources: vec![wire::domain_resource(&row)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves TEN-2
    #[test]
    fn a_domain_has_one_form_and_is_one_that_a_company_can_have() {
        for (given, kept) in [
            ("contoso.example", "contoso.example"),
            ("Contoso.EXAMPLE", "contoso.example"),
            ("mail.contoso.co.uk", "mail.contoso.co.uk"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("contoso。example", "contoso.example"),
        ] {
            assert_eq!(normal(given).as_deref(), Ok(kept), "{given}");
        }
        let long = format!("{}.example", "a".repeat(64));
        let longest = format!("{}example", "abcdefg.".repeat(28));
        assert_eq!(longest.len(), MOST_CHARS);
        assert!(normal(&longest).is_ok());
        for wrong in [
            "",
            "contoso",
            "com",
            "co.uk",
            "github.io",
            "xn--55qx5d.cn",
            "公司.cn",
            "127.0.0.1",
            "10.1",
            "[::1]",
            "::1",
            "contoso.example.",
            ".contoso.example",
            "contoso..example",
            "-contoso.example",
            "con_toso.example",
            "con toso.example",
            "*.contoso.example",
            "contoso.example/x",
            "ann@contoso.example",
            "printer.local",
            "db.internal",
            "shop.localhost",
            "1.0.0.127.in-addr.arpa",
            "xn--a.example",
            &long,
            &format!("a{longest}"),
        ] {
            assert!(normal(wrong).is_err(), "{wrong} is taken");
        }
    }

    // proves TEN-2
    #[test]
    fn look_ups_come_within_a_day_and_not_all_at_once() {
        let at = |n: u128| next_look_up(Uuid::from_u128(n), 0);
        for n in [0, 1, 7_199_999_999, u128::MAX] {
            assert!((22 * HOUR_US..=DAY_US).contains(&at(n)));
        }
        assert_ne!(at(1), at(3_600_000_001));
    }
}
