//! Masks (COM-8) and etags (COM-5).

use prost_types::FieldMask;

use crate::{
    check::Violations,
    error::{Error, Reason, Result},
};

/// What `build.rs` tells of a resource's fields.
pub trait Resource {
    /// Fields that a caller may change.
    const MUTABLE: &'static [&'static str];
    /// Fields that are output-only, immutable, or the name.
    const FIXED: &'static [&'static str];
    /// Fields that can't be emptied.
    const REQUIRED: &'static [&'static str];
    /// Whether a field is set.
    fn is_set(&self, field: &str) -> bool;
}

/// The fields to change: those of the mask, or all that are set if there is none. What is wrong with the mask was told before.
pub fn fields<R: Resource>(mask: Option<&FieldMask>, resource: &R) -> Vec<&'static str> {
    let paths = mask.map(|m| m.paths.as_slice()).unwrap_or_default();
    let all = R::MUTABLE.iter().copied();
    if paths.is_empty() {
        all.filter(|f| resource.is_set(f)).collect()
    } else {
        all.filter(|f| paths.iter().any(|p| p == f || p == "*"))
            .collect()
    }
}

/// Adds every path of a mask that is unknown, fixed, or would empty a required field; `field` is that of the resource. Called for every
/// request with an `update_mask`.
pub fn check<R: Resource>(
    mask: Option<&FieldMask>,
    resource: Option<&R>,
    field: &str,
    v: &mut Violations,
) {
    let (Some(mask), Some(resource)) = (mask, resource) else {
        return;
    };
    if v.names("update_mask") {
        return;
    }
    for path in &mask.paths {
        if path == "*" || R::MUTABLE.contains(&path.as_str()) {
            continue;
        }
        if R::FIXED.contains(&path.as_str()) {
            v.add("update_mask", format!("{path} can't be changed by callers"));
        } else {
            v.add(
                "update_mask",
                format!(
                    "{path} is no field of {field}; these can be changed: {}",
                    R::MUTABLE.join(", ")
                ),
            );
        }
    }
    if mask.paths.is_empty() {
        return;
    }
    for path in fields(Some(mask), resource) {
        if R::REQUIRED.contains(&path) && !resource.is_set(path) {
            v.also(
                format!("{field}.{path}"),
                "is required and can't be emptied",
            );
        }
    }
}

/// The etag of a row's version.
#[must_use]
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// Refuses a stale etag; an empty one is no check.
///
/// # Errors
/// `ABORTED`, `ETAG_MISMATCH`.
pub fn check_etag(sent: &str, version: i64) -> Result<()> {
    if sent.is_empty() || sent == etag(version) {
        Ok(())
    } else {
        Err(Error::aborted(Reason::EtagMismatch))
    }
}
