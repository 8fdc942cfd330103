//! The proofs that functions are given. Only this module's parent makes them; to hold one is to be allowed.

use uuid::Uuid;

use super::{
    grants::lent::Lent,
    link::Link,
    principal::{Authenticated, Principal},
};
use crate::{
    error::{Error, Result},
    store::scope_key::ScopeKey,
};

/// Proven on a tenant.
#[derive(Clone, Copy, Debug)]
pub struct TenantScope(Uuid);

/// Proven on an account.
#[derive(Clone, Copy, Debug)]
pub struct AccountScope(Uuid);

/// Proven on the operator.
#[derive(Clone, Copy, Debug)]
pub struct OperatorScope(());

/// Signed in: proven of the caller itself.
#[derive(Clone, Copy, Debug)]
pub struct CallerScope(Authenticated);

/// A public method.
#[derive(Clone, Copy, Debug)]
pub struct NobodyScope(());

/// Proven by the token of a mailed link; with the principal that called, if one did.
#[derive(Clone, Copy, Debug)]
pub struct TokenScope(Link, Option<Authenticated>);

/// Timed work of the service's own.
#[derive(Clone, Copy, Debug)]
pub struct JobScope(());

impl TenantScope {
    /// The tenant.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.0
    }
}

impl AccountScope {
    /// The account.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.0
    }
}

impl CallerScope {
    /// Who calls.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.0.principal
    }

    /// The session or key that the token came from.
    #[must_use]
    pub fn session(&self) -> Uuid {
        self.0.session
    }
}

impl TokenScope {
    /// What the token proves.
    #[must_use]
    pub fn link(&self) -> Link {
        self.0
    }

    /// Who called, if anybody was signed in.
    #[must_use]
    pub fn caller(&self) -> Option<CallerScope> {
        self.1.map(CallerScope)
    }
}

impl JobScope {
    pub(crate) fn new() -> Self {
        Self(())
    }
}

/// Which rows of a tenant's nouns a proof reaches: all of them, or the caller's own.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    tenant: Uuid,
    only: Option<Uuid>,
}

impl Reach {
    /// The tenant that rows must lie in.
    #[must_use]
    pub fn tenant(&self) -> Uuid {
        self.tenant
    }

    /// Whether a row of this ID is reached.
    #[must_use]
    pub fn covers(&self, id: Uuid) -> bool {
        self.only.is_none_or(|own| own == id)
    }
}

impl From<TenantScope> for Reach {
    fn from(scope: TenantScope) -> Self {
        Self {
            tenant: scope.0,
            only: None,
        }
    }
}

impl From<CallerScope> for Reach {
    fn from(scope: CallerScope) -> Self {
        let principal = scope.principal();
        Self {
            tenant: principal.tenant,
            only: Some(principal.id),
        }
    }
}

/// What was proven for one call: which alternative of its rule, and on which scopes.
#[derive(Clone, Debug)]
pub struct Proof {
    alternative: usize,
    /// Field of the rule, scope.
    scopes: Vec<(&'static str, ScopeKey)>,
    who: Option<Authenticated>,
    masked: bool,
    public: bool,
    link: Option<Link>,
    /// Boxed, since few are.
    lent: Option<Box<Lent>>,
}

impl Proof {
    pub(in crate::access) fn new(
        alternative: usize,
        scopes: Vec<(&'static str, ScopeKey)>,
        who: Option<Authenticated>,
        masked: bool,
        public: bool,
    ) -> Self {
        Self {
            alternative,
            scopes,
            who,
            masked,
            public,
            link: None,
            lent: None,
        }
    }

    /// Proven by what a relationship lends to who calls.
    pub(in crate::access) fn by_lent(self, lent: Lent) -> Self {
        Self {
            lent: Some(Box::new(lent)),
            ..self
        }
    }

    /// Proven by the token of a link.
    pub(in crate::access) fn by_link(
        alternative: usize,
        link: Link,
        who: Option<Authenticated>,
    ) -> Self {
        Self {
            alternative,
            scopes: vec![("@link", link.scope)],
            who,
            masked: false,
            public: false,
            link: Some(link),
            lent: None,
        }
    }

    /// What was lent for it, if it wasn't the caller's own.
    #[must_use]
    pub fn lent(&self) -> Option<Lent> {
        self.lent.as_deref().copied()
    }

    /// The mailed token.
    ///
    /// # Errors
    /// Internal, if another alternative was proven.
    pub fn token(&self) -> Result<TokenScope> {
        self.link
            .map(|link| TokenScope(link, self.who))
            .ok_or_else(|| Error::internal("the rule proves no token"))
    }

    /// The place of the alternative that holds, in the order of the rule.
    #[must_use]
    pub fn alternative(&self) -> usize {
        self.alternative
    }

    /// Whether personal and financial details are to be masked.
    #[must_use]
    pub fn masked(&self) -> bool {
        self.masked
    }

    pub(crate) fn scopes(&self) -> impl Iterator<Item = ScopeKey> + '_ {
        self.scopes.iter().map(|(_, scope)| *scope)
    }

    /// Whether it was proven on the operator: a look at what belongs to others.
    #[must_use]
    pub fn by_operator(&self) -> bool {
        self.scopes.iter().any(|(at, _)| *at == "@operator")
    }

    /// The tenant proven.
    ///
    /// # Errors
    /// Internal, if the rule proves none.
    pub fn tenant(&self) -> Result<TenantScope> {
        self.scopes
            .iter()
            .filter(|(at, _)| !matches!(*at, "@caller" | "@link"))
            .find_map(|(_, s)| {
                if let ScopeKey::Tenant(id) = s {
                    Some(TenantScope(*id))
                } else {
                    None
                }
            })
            .ok_or_else(|| Error::internal("the rule proves no tenant"))
    }

    /// The account proven.
    ///
    /// # Errors
    /// Internal, if the rule proves none.
    pub fn account(&self) -> Result<AccountScope> {
        self.scopes
            .iter()
            .filter(|(at, _)| !matches!(*at, "@caller" | "@link"))
            .find_map(|(_, s)| {
                if let ScopeKey::Account(id) = s {
                    Some(AccountScope(*id))
                } else {
                    None
                }
            })
            .ok_or_else(|| Error::internal("the rule proves no account"))
    }

    /// The operator, proven.
    ///
    /// # Errors
    /// Internal, if the rule doesn't prove it.
    pub fn operator(&self) -> Result<OperatorScope> {
        if self.by_operator() {
            Ok(OperatorScope(()))
        } else {
            Err(Error::internal("the rule doesn't prove the operator"))
        }
    }

    /// The caller itself.
    ///
    /// # Errors
    /// Internal, if the rule lets nobody in.
    pub fn caller(&self) -> Result<CallerScope> {
        self.who
            .map(CallerScope)
            .ok_or_else(|| Error::internal("the rule proves no caller"))
    }

    /// A public method.
    ///
    /// # Errors
    /// Internal, if it isn't public.
    pub fn nobody(&self) -> Result<NobodyScope> {
        if self.public {
            Ok(NobodyScope(()))
        } else {
            Err(Error::internal("the method isn't public"))
        }
    }

    /// The rows of a tenant that are reached: all if a permission on it was proven, else the caller's own.
    ///
    /// # Errors
    /// Internal, if the rule proves neither.
    pub fn reach(&self) -> Result<Reach> {
        if self.by_operator() {
            return Err(Error::internal(
                "the operator's own rights reach no tenant's rows",
            ));
        }
        match self.tenant() {
            Ok(tenant) => Ok(tenant.into()),
            Err(_) => Ok(self.caller()?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::principal::Kind;

    #[test]
    fn who_reads_for_itself_reaches_itself_and_who_may_reaches_all() {
        let [own, other, tenant] = [1, 2, 3].map(Uuid::from_u128);
        let oneself = Reach::from(CallerScope(Authenticated {
            principal: Principal {
                kind: Kind::User,
                id: own,
                tenant,
            },
            session: Uuid::nil(),
            sign_in_time: 0,
            expire_time: i64::MAX,
        }));
        assert!(oneself.covers(own) && !oneself.covers(other));
        let all = Reach::from(TenantScope(tenant));
        assert!(all.covers(own) && all.covers(other));
        assert_eq!((oneself.tenant(), all.tenant()), (tenant, tenant));
    }

    #[test]
    fn functions_learn_which_alternative_was_proven() {
        for place in 0..3 {
            let proof = Proof::new(place, Vec::new(), None, false, false);
            assert_eq!(proof.alternative(), place);
        }
    }
}
