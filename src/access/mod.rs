//! Who may do what (COM-1, ROL-1 to ROL-13). Rules come from the protos, permissions from one table, grants from one place; the
//! proof that a rule holds is a `Proof`, whose scopes nothing outside of here can make. Absence never means yes.

pub mod account_state;
pub mod answers;
pub mod cache;
pub mod exceptions;
pub mod grants;
pub mod layer;
pub mod limits;
pub mod link;
pub mod principal;
pub mod proof;
pub mod refusals;
pub mod roles;
pub mod rules;
pub mod scope;
pub mod token;

pub use answers::{check_access, explain_access, get_limits, get_role_table, test_my_permissions};
pub(crate) use answers::{check_check_access, check_explain_access, check_test_my_permissions};
