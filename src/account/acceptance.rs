//! AgreementService, the side of accounts and tenants: what they accepted (AGR-2, AGR-4).

use sea_orm::{ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter};

use super::{
    agreement::{self, KIND_NAMES},
    entity::{
        acceptance::{Column, Entity, Model},
        agreement_text,
    },
    wire,
};
use crate::{
    access::{account_state::agreement_name, scope::Proof},
    app::{Read, Tx},
    check::Violations,
    error::{Error, Reason, Result},
    names::Name,
    proto::{
        access::AgreementKind,
        account::{
            AcceptAgreementRequest, Acceptance, ListAcceptancesRequest, ListAcceptancesResponse,
        },
    },
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
        outbox::Event,
        scope_key::ScopeKey,
    },
};

const LISTING: Listing = Listing {
    fields: &[
        Field::new("kind", ("acceptances", "kind"), Kind::Enum(KIND_NAMES)),
        Field::new("create_time", ("acceptances", "create_time"), Kind::TIME),
    ],
    orders: &[OrderField::new(
        "create_time",
        ("acceptances", "create_time"),
    )],
    id: ("acceptances", "id"),
};

pub(crate) fn check_accept_agreement(req: &AcceptAgreementRequest, v: &mut Violations) {
    let is_customers = req.kind() == AgreementKind::Customer;
    match Name::parse(&req.parent) {
        Some(Name::Account(_)) if is_customers => {
            v.also("kind", "is accepted by the tenants of customers");
        }
        Some(Name::Tenant(_)) if !is_customers && req.kind() != AgreementKind::Unspecified => {
            v.also("kind", "is accepted by accounts");
        }
        _ => {}
    }
}

/// Accepts the current version of an agreement for an account or a tenant.
///
/// # Errors
/// `NOT_CURRENT_VERSION`, `PLACEHOLDER_AGREEMENT`; `INVALID_ARGUMENT` for a language that the version lacks.
pub async fn accept_agreement(
    tx: &mut Tx,
    proof: Proof,
    req: AcceptAgreementRequest,
) -> Result<Acceptance> {
    let kind = req.kind();
    let AcceptAgreementRequest {
        parent: _,
        kind: _,
        version,
        language_code,
        request_id: _,
        validate_only: _,
    } = req;
    let scope = match proof.account() {
        Ok(account) => ScopeKey::Account(account.id()),
        Err(_) => ScopeKey::Tenant(proof.tenant()?.id()),
    };
    let consent = Consent {
        kind,
        number: version,
        language: &language_code,
        field: "language_code",
    };
    accept(tx, scope, consent)
        .await
        .map(|row| wire::acceptance(&row))
}

/// What is accepted, as a request says it.
pub(crate) struct Consent<'a> {
    pub kind: AgreementKind,
    /// Of the version.
    pub number: i64,
    pub language: &'a str,
    /// The field that says the language.
    pub field: &'static str,
}

/// Keeps that a version was accepted, once; the caller has the right to, and the scope is locked.
///
/// # Errors
/// As `accept_agreement`.
pub(crate) async fn accept(tx: &mut Tx, scope: ScopeKey, consent: Consent<'_>) -> Result<Model> {
    let Consent {
        kind,
        number,
        language,
        field,
    } = consent;
    let mut current = agreement::current(tx.db(), tx.now()).await?;
    let current = current.remove(&(kind as i64));
    let Some(version) = current.as_ref().filter(|c| c.number == number) else {
        let is = current.map_or_else(|| "-".to_owned(), |c| c.number.to_string());
        return Err(Error::precondition(Reason::NotCurrentVersion)
            .with("agreement", agreement_name(kind))
            .with("version", is));
    };
    if version.is_placeholder && tx.app().config.production {
        return Err(Error::precondition(Reason::PlaceholderAgreement)
            .with("agreement", agreement_name(kind)));
    }
    let texts = agreement_text::Entity::find()
        .filter(agreement_text::Column::AgreementId.eq(version.id))
        .all(tx.db())
        .await?;
    let Some(text) = texts
        .iter()
        .find(|t| t.language.eq_ignore_ascii_case(language))
    else {
        let there: Vec<&str> = texts.iter().map(|t| t.language.as_str()).collect();
        return Err(Error::field(
            field,
            format!(
                "is no language of this version; it has {}",
                there.join(", ")
            ),
        ));
    };
    let before = Entity::find()
        .filter(Column::ScopeKind.eq(scope.kind()))
        .filter(Column::ScopeId.eq(scope.id()))
        .filter(Column::Kind.eq(kind as i64))
        .filter(Column::Number.eq(number))
        .one(tx.db())
        .await?;
    if let Some(before) = before {
        return Ok(before);
    }
    let row = Model {
        id: tx.id(),
        scope_kind: scope.kind(),
        scope_id: scope.id(),
        agreement_id: version.id,
        kind: version.kind,
        number,
        language: text.language.clone(),
        title: text.title.clone(),
        sha256: text.sha256.clone(),
        accepted_by: tx.caller().name(),
        create_time: tx.now(),
    };
    // At once, so that the proofs of calls which share the commit see it.
    Entity::insert(row.clone().into_active_model())
        .exec_without_returning(tx.db())
        .await?;
    let shown = wire::acceptance(&row);
    let null = || serde_json::Value::Null;
    let name = match scope {
        ScopeKey::Tenant(tenant) => Name::TenantAcceptance(tenant, row.id),
        _ => Name::Acceptance(scope.id(), row.id),
    };
    tx.emit(
        Event::new("entente.account.v1.AgreementAccepted", name)
            .change("agreement", null(), shown.agreement)
            .change("kind", null(), row.kind)
            .change("version", null(), row.number)
            .change("language_code", null(), row.language.clone())
            .change("sha256", null(), shown.sha256),
    );
    Ok(row)
}

pub(crate) fn check_list_acceptances(req: &ListAcceptancesRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists what an account or a tenant accepted.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_acceptances(
    rd: &Read,
    proof: Proof,
    req: ListAcceptancesRequest,
) -> Result<ListAcceptancesResponse> {
    let scope = match proof.account() {
        Ok(account) => ScopeKey::Account(account.id()),
        Err(_) => ScopeKey::Tenant(proof.tenant()?.id()),
    };
    let select = Entity::find()
        .filter(Column::ScopeKind.eq(scope.kind()))
        .filter(Column::ScopeId.eq(scope.id()));
    let page = rd
        .list(&req, &LISTING, select, |row: Model| wire::acceptance(&row))
        .await?;
    Ok(ListAcceptancesResponse {
        acceptances: page.items,
        next_page_token: page.next_page_token,
    })
}
