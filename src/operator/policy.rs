//! PolicyService: what the operator decides, from a date on. Who reads it is `policy.rs`.

use sea_orm::EntityTrait as _;

use super::{
    entity::policy::{Entity, Model},
    wire,
};
use crate::{
    access::scope::OperatorScope,
    app::{Read, Tx},
    check::Violations,
    error::{Error, Result},
    names::Name,
    policy::{self, Kind as Values},
    proto::operator::{
        GetPolicyRequest, ListPoliciesRequest, ListPoliciesResponse, Policy, PolicyKey,
        SetPolicyRequest,
    },
    store::{
        filter::{Field, Kind, OrderField},
        list::Listing,
        outbox::Event,
        time::{json, micros},
    },
};

/// What callers call the keys.
const KEYS: &[(&str, i64)] = &[
    ("OFFER_REVIEW_APP", PolicyKey::OfferReviewApp as i64),
    ("OFFER_REVIEW_SAAS", PolicyKey::OfferReviewSaas as i64),
    ("OFFER_REVIEW_SERVICE", PolicyKey::OfferReviewService as i64),
    ("OFFER_REVIEW_LOB_APP", PolicyKey::OfferReviewLobApp as i64),
    ("SILVER_COMPETENCIES", PolicyKey::SilverCompetencies as i64),
    ("GOLD_COMPETENCIES", PolicyKey::GoldCompetencies as i64),
    ("SILVER_CASES", PolicyKey::SilverCases as i64),
    ("GOLD_CASES", PolicyKey::GoldCases as i64),
];

/// What lists of policies can be asked.
const LISTING: Listing = Listing {
    fields: &[
        Field::new("key", ("policies", "policy_key"), Kind::Enum(KEYS)),
        Field::new("effective_time", ("policies", "effective_time"), Kind::TIME),
        Field::new("create_time", ("policies", "create_time"), Kind::TIME),
    ],
    orders: &[
        OrderField::new("create_time", ("policies", "create_time")),
        OrderField::new("effective_time", ("policies", "effective_time")),
    ],
    id: ("policies", "id"),
};

/// The value in force now.
///
/// # Errors
/// Those of the database.
pub async fn get_policy(rd: &Read, _scope: OperatorScope, req: GetPolicyRequest) -> Result<Policy> {
    let key = req.key();
    let (_, default) = policy::declared(key).ok_or_else(|| Error::field("key", "is required"))?;
    Ok(match policy::in_force(rd.db(), key, rd.now()).await? {
        Some(row) => wire::policy(&row.into()),
        None => wire::policy_of(key, default),
    })
}

pub(crate) fn check_list_policies(req: &ListPoliciesRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists what was set.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad filter, order or token.
pub async fn list_policies(
    rd: &Read,
    _scope: OperatorScope,
    req: ListPoliciesRequest,
) -> Result<ListPoliciesResponse> {
    let page = rd
        .list(&req, &LISTING, Entity::find(), |row: Model| {
            wire::policy(&row)
        })
        .await?;
    Ok(ListPoliciesResponse {
        policies: page.items,
        next_page_token: page.next_page_token,
    })
}

pub(crate) fn check_set_policy(req: &SetPolicyRequest, v: &mut Violations) {
    let Some(new) = &req.policy else { return };
    let Some((kind, _)) = policy::declared(new.key()) else {
        return;
    };
    match kind {
        Values::Flag if new.number != 0 => {
            v.also("policy.number", "doesn't go with this policy; set flag");
        }
        Values::Number(..) if new.flag => {
            v.also("policy.flag", "doesn't go with this policy; set number");
        }
        Values::Number(least, most) if !(least..=most).contains(&new.number) => v.also(
            "policy.number",
            format!("is {least} to {most} for this policy"),
        ),
        Values::Flag | Values::Number(..) => {}
    }
}

/// Sets a policy.
///
/// # Errors
/// `INVALID_ARGUMENT` for a time in the past.
pub async fn set_policy(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: SetPolicyRequest,
) -> Result<Policy> {
    let new = req
        .policy
        .ok_or_else(|| Error::field("policy", "is required"))?;
    let now = tx.now();
    let effective_time = new.effective_time.as_ref().map_or(now, micros);
    if effective_time < now {
        let what = "lies in the past; leave it out for at once";
        return Err(Error::field("policy.effective_time", what));
    }
    // The one that the key doesn't have is nothing.
    let value = i64::from(new.flag).max(new.number);
    let row = Model {
        id: tx.id(),
        policy_key: i64::from(new.key),
        value,
        effective_time,
        set_by: tx.caller().name(),
        create_time: now,
    };
    let key = new.key();
    let before = policy::in_force(tx.db(), key, effective_time).await?;
    tx.insert(row.clone()).await?;
    let shown = wire::policy(&row);
    let told = |value: i64| match policy::declared(key) {
        Some((Values::Flag, _)) => ("flag", serde_json::Value::from(value != 0)),
        _ => ("number", value.to_string().into()),
    };
    let (field, after) = told(value);
    let before = before.map_or(serde_json::Value::Null, |row| told(row.value).1);
    let null = || serde_json::Value::Null;
    tx.emit(
        Event::new("entente.operator.v1.PolicySet", Name::Policy(row.id))
            .change("key", null(), row.policy_key)
            .change(field, before, after)
            .change("effective_time", null(), json(effective_time)),
    );
    Ok(shown)
}
