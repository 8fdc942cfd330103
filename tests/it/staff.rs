//! StaffService, on-behalf, looks by the operator.
