//! Instants on the wire and in texts: microseconds here, `google.protobuf.Timestamp` and RFC 3339 outside.

use prost_types::{Duration, Timestamp};

use crate::env::{Micros, SECOND_US};

/// An instant for the wire.
#[must_use]
pub fn timestamp(at: Micros) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: at.div_euclid(SECOND_US),
        nanos: i32::try_from(at.rem_euclid(SECOND_US) * 1_000).unwrap_or(0),
    })
}

/// An instant from the wire, cut to microseconds.
#[must_use]
pub fn micros(at: &Timestamp) -> Micros {
    at.seconds
        .saturating_mul(SECOND_US)
        .saturating_add(i64::from(at.nanos) / 1_000)
}

/// A duration from the wire, cut to microseconds.
#[must_use]
pub fn duration_micros(of: &Duration) -> Micros {
    of.seconds
        .saturating_mul(SECOND_US)
        .saturating_add(i64::from(of.nanos) / 1_000)
}

/// An instant as RFC 3339 in UTC, to the second.
#[must_use]
pub fn rfc3339(at: Micros) -> String {
    // Timestamp's Display is RFC 3339.
    timestamp(at - at.rem_euclid(SECOND_US)).map_or_else(String::new, |t| t.to_string())
}

/// An instant in proto3's JSON, to the microsecond; null for none.
#[must_use]
pub fn json(at: impl Into<Option<Micros>>) -> serde_json::Value {
    let timestamp = at.into().and_then(timestamp);
    timestamp.map_or(serde_json::Value::Null, |t| t.to_string().into())
}

/// Reads RFC 3339.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Micros> {
    text.parse::<Timestamp>().ok().map(|t| micros(&t))
}
