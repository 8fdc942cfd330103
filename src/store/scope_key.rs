//! Where rights are held, chains are kept and changes are locked.

use uuid::Uuid;

/// A scope. The order is the order of locking.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ScopeKey {
    /// The operator.
    Operator,
    /// A tenant.
    Tenant(Uuid),
    /// An account.
    Account(Uuid),
    /// A personal identity.
    Identity(Uuid),
}

impl ScopeKey {
    /// The kind's number in the database.
    #[must_use]
    pub fn kind(self) -> i16 {
        match self {
            Self::Operator => 0,
            Self::Tenant(_) => 1,
            Self::Account(_) => 2,
            Self::Identity(_) => 3,
        }
    }

    /// The ID in the database; nil for the operator.
    #[must_use]
    pub fn id(self) -> Uuid {
        match self {
            Self::Operator => Uuid::nil(),
            Self::Tenant(id) | Self::Account(id) | Self::Identity(id) => id,
        }
    }

    /// What `kind` and `id` gave.
    #[must_use]
    pub fn from_parts(kind: i16, id: Uuid) -> Option<Self> {
        Some(match kind {
            0 => Self::Operator,
            1 => Self::Tenant(id),
            2 => Self::Account(id),
            3 => Self::Identity(id),
            _ => return None,
        })
    }
}

impl std::fmt::Display for ScopeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Tenant(id) => write!(f, "tenants/{id}"),
            Self::Account(id) => write!(f, "accounts/{id}"),
            Self::Identity(id) => write!(f, "identities/{id}"),
        }
    }
}
