//! TenantAssociationService and AccountService.
