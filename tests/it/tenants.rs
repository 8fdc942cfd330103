//! TenantService.
