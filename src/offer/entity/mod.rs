//! The tables of this slice.

pub mod offer;
pub mod usage;
pub mod version;
