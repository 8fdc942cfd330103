//! Masks (COM-8) and etags (COM-5).

use prost_types::FieldMask;

use crate::error::{Error, Reason, Result};

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

/// The fields to change: those of the mask, or all that are set if there is none.
///
/// # Errors
/// `INVALID_ARGUMENT` with every path that is unknown, fixed, or would empty a required field.
pub fn fields<R: Resource>(
    mask: Option<&FieldMask>,
    resource: &R,
    message: &str,
) -> Result<Vec<&'static str>> {
    let paths = mask.map(|m| m.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        return Ok(R::MUTABLE
            .iter()
            .copied()
            .filter(|f| resource.is_set(f))
            .collect());
    }
    let mut faults = Vec::new();
    let mut fields = Vec::new();
    for path in paths {
        if path == "*" {
            fields.extend(R::MUTABLE.iter().copied());
            continue;
        }
        match R::MUTABLE.iter().find(|f| **f == path) {
            Some(field) if !fields.contains(field) => fields.push(*field),
            Some(_) => {}
            None if R::FIXED.contains(&path.as_str()) => {
                faults.push((
                    "update_mask".to_owned(),
                    format!("{path} can't be changed by callers"),
                ));
            }
            None => faults.push((
                "update_mask".to_owned(),
                format!(
                    "{path} is no field of {message}; these can be changed: {}",
                    R::MUTABLE.join(", ")
                ),
            )),
        }
    }
    for field in &fields {
        if R::REQUIRED.contains(field) && !resource.is_set(field) {
            faults.push((
                format!("{message}.{field}"),
                "is required and can't be emptied".to_owned(),
            ));
        }
    }
    if faults.is_empty() {
        Ok(fields)
    } else {
        Err(Error::invalid(faults))
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
