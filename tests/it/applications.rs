//! ApplicationService.
