//! Evidence of a case of recovery that the DNS gives (PWD-10): a record in a verified domain of the tenant, or of one that is associated with
//! the account. The case says which record; whoever comes back publishes it; it is looked up, outside of any transaction, as the case is
//! approved. The domain must still be theirs then: an association that ended, or a domain that lapsed meanwhile, proves nothing.

use sea_orm::EntityTrait;
use uuid::Uuid;

use super::{
    domain::{self, LookedUp},
    entity::{
        domain::Model as Domain,
        recovery_case::{Entity, Model},
    },
};
use crate::{
    access::{grants, scope::Proof},
    app::{Outside, Tx},
    dns::{For, NoAnswer},
    error::{Error, Reason, Result},
    names::Name,
    proto::directory::ApproveRecoveryCaseRequest,
    store::scope_key::ScopeKey,
};

/// Where the record lies, within the domain, and what it begins with.
const LABEL: &str = "_entente-recovery";
const VALUE: &str = "entente-recovery=";

/// What the record of a new case must say.
pub(super) fn token(tx: &Tx) -> String {
    hex::encode(tx.app().env.bytes::<16>())
}

/// The record that proves the domain of a case: its name and its value, if a domain is evidence.
pub(super) fn record(case: &Model) -> Option<(String, String)> {
    case.domain_id.map(|_| {
        (
            format!("{LABEL}.{}", case.domain_name),
            format!("{VALUE}{}", case.domain_token),
        )
    })
}

/// A domain that may be evidence on a scope: a verified one, of the tenant or of one that is associated with the account.
async fn find(tx: &Tx, scope: ScopeKey, tenant: Uuid, id: Uuid) -> Result<Option<Domain>> {
    let is_theirs = match scope {
        ScopeKey::Tenant(own) => own == tenant,
        ScopeKey::Account(account) => grants::is_associated(tx.db(), account, tenant).await?,
        ScopeKey::Operator | ScopeKey::Identity(_) => false,
    };
    if !is_theirs {
        return Ok(None);
    }
    domain::verified_by_id(tx.db(), tenant, id).await
}

/// The domain that a new case names as evidence, if it names one.
///
/// # Errors
/// `INVALID_ARGUMENT` for one that proves nothing there; those of the database.
pub(super) async fn named(tx: &Tx, scope: ScopeKey, name: &str) -> Result<Option<Domain>> {
    if name.is_empty() {
        return Ok(None);
    }
    let found = match Name::parse(name) {
        Some(Name::Domain(tenant, id)) => find(tx, scope, tenant, id).await?,
        _ => None,
    };
    found.map(Some).ok_or_else(|| {
        Error::field(
            "recovery_case.domain",
            "is no verified domain of the tenant, or of one associated with the account",
        )
    })
}

/// Looks the record of a case's domain up. What came of it is judged in the transaction, with what else is wrong with the case.
///
/// # Errors
/// Those of the database.
pub async fn prepare_approve_recovery_case(
    outside: &Outside,
    _proof: Proof,
    req: &ApproveRecoveryCaseRequest,
) -> Result<LookedUp> {
    let Some(Name::RecoveryCase(id)) = Name::parse(&req.name) else {
        return Ok(None);
    };
    let app = outside.app();
    let case = app
        .look(move |snapshot| {
            Box::pin(async move { Ok(Entity::find_by_id(id).one(snapshot.db()).await?) })
        })
        .await?;
    match case.as_ref().and_then(record) {
        Some((record, _)) => Ok(Some(app.dns.texts(&record, For::Caller).await)),
        None => Ok(None),
    }
}

/// Refuses a case whose domain proves nothing: its record isn't there, or the domain isn't theirs any more. Cases without one have documents.
///
/// # Errors
/// `DNS_UNAVAILABLE`, `DOMAIN_RECORD_NOT_FOUND`, `RECOVERY_EVIDENCE_GONE`; those of the database.
pub(super) async fn demand_record(
    tx: &Tx,
    case: &Model,
    scope: ScopeKey,
    looked_up: LookedUp,
) -> Result<()> {
    let (Some((record, value)), Some(id)) = (record(case), case.domain_id) else {
        return Ok(());
    };
    let tenant = case.domain_tenant_id.unwrap_or_default();
    if find(tx, scope, tenant, id).await?.is_none() {
        return Err(Error::precondition(Reason::RecoveryEvidenceGone)
            .with("domain", Name::Domain(tenant, id).to_string()));
    }
    let found = match looked_up {
        Some(Ok(found)) => found,
        Some(Err(NoAnswer(fault))) => {
            tracing::info!(%record, %fault, "a domain could not be looked up");
            return Err(Error::precondition(Reason::DnsUnavailable).with("record", record));
        }
        // Made after the look-up was prepared; a name that nobody was told yet.
        None => return Err(Error::aborted(Reason::Conflict)),
    };
    if !found.contains(&value) {
        return Err(Error::precondition(Reason::DomainRecordNotFound)
            .with("record", record)
            .with("found", found.len().to_string()));
    }
    Ok(())
}
