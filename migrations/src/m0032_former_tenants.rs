//! Accounts that a tenant was associated with lately are found by the tenant (VER-6): who is tied to them is tied to it.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] =
    &["CREATE INDEX former_tenants_of_tenant ON former_tenants (tenant_id)"];
