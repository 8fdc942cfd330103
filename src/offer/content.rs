//! What an offer says: prices and customers as they are stored, and what is wrong with them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::entity::version::Model as Version;
use crate::{
    check::{MOST_ITEMS_NAMED, Violations},
    proto::offer::{Offer, OfferKind, Price},
};

/// A price, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredPrice {
    country_code: String,
    currency_code: String,
    amount_minor: i64,
}

/// Prices as a version stores them, in JSON.
pub fn prices_to_stored(prices: &[Price]) -> String {
    let stored: Vec<StoredPrice> = prices
        .iter()
        .map(|price| StoredPrice {
            country_code: price.country_code.clone(),
            currency_code: price.currency_code.clone(),
            amount_minor: price.amount_minor,
        })
        .collect();
    serde_json::json!(stored).to_string()
}

/// The prices of a version; none if it is free.
pub fn prices(version: &Version) -> Vec<Price> {
    let stored: Vec<StoredPrice> = serde_json::from_str(&version.prices).unwrap_or_default();
    let shown = stored.into_iter().map(|price| Price {
        country_code: price.country_code,
        currency_code: price.currency_code,
        amount_minor: price.amount_minor,
    });
    shown.collect()
}

/// Customers as a version stores them, in JSON.
pub fn customers_to_stored(customers: &[String]) -> String {
    serde_json::json!(customers).to_string()
}

/// The customers of a version.
pub fn customers(version: &Version) -> Vec<String> {
    serde_json::from_str(&version.customers).unwrap_or_default()
}

/// Adds what is wrong with the prices and customers of an offer that is sent.
pub fn check(offer: &Offer, v: &mut Violations) {
    let mut seen = BTreeSet::new();
    for (i, price) in offer.prices.iter().enumerate().take(MOST_ITEMS_NAMED) {
        let code = price.currency_code.as_str();
        if !seen.insert((price.country_code.as_str(), code)) {
            v.also(
                format!("offer.prices[{i}]"),
                "is a second price for this country and currency",
            );
        }
    }
    let mut named = BTreeSet::new();
    for (i, customer) in offer.customers.iter().enumerate().take(MOST_ITEMS_NAMED) {
        if !named.insert(customer.as_str()) {
            v.also(format!("offer.customers[{i}]"), "stands there twice");
        }
    }
}

/// Adds that customers are missing, or don't go with the kind.
pub fn check_customers(kind: OfferKind, count: usize, v: &mut Violations) {
    match (kind, count) {
        (OfferKind::LobApp, 0) => {
            v.also(
                "offer.customers",
                "are required: a LOB_APP is for named customers",
            );
        }
        (OfferKind::LobApp | OfferKind::Unspecified, _) | (_, 0) => {}
        _ => v.also("offer.customers", "go with kind LOB_APP only"),
    }
}

/// What differs between two offers, for events.
pub fn changes(
    before: &Offer,
    after: &Offer,
) -> Vec<(&'static str, serde_json::Value, serde_json::Value)> {
    let of = |offer: &Offer| {
        let prices: Vec<serde_json::Value> = offer
            .prices
            .iter()
            .map(|price| {
                serde_json::json!({
                    "country_code": price.country_code,
                    "currency_code": price.currency_code,
                    // 64-bit numbers are texts in proto3's JSON.
                    "amount_minor": price.amount_minor.to_string(),
                })
            })
            .collect();
        [
            ("display_name", offer.display_name.clone().into()),
            ("description", offer.description.clone().into()),
            ("prices", serde_json::Value::from(prices)),
            ("customers", offer.customers.clone().into()),
        ]
    };
    of(before)
        .into_iter()
        .zip(of(after))
        .map(|((field, was), (_, is))| (field, was, is))
        .collect()
}
