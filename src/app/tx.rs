//! What functions that write, and their preparations, see.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use uuid::Uuid;

use super::{App, Call};
use crate::{
    access::{
        cache::Facts,
        grants::lent::Lent,
        principal::Caller,
        proof,
        roles::{Permission, Permissions},
        rules,
    },
    env::Micros,
    error::{Error, Result},
    names::Name,
    store::{memory::Fact, scope_key::ScopeKey, work::Work, writes::Writes},
};

/// What preparations see: no transaction, since they hash and wait.
pub struct Outside {
    pub(super) app: App,
    pub(super) call: Call,
}

impl Outside {
    /// The application; `look` reads what must be known before.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.call.caller
    }
}

/// A transaction that writes, as functions see it.
pub struct Tx {
    pub(super) app: App,
    pub(super) caller: Caller,
    pub(super) method: &'static str,
    pub(super) work: Work,
    pub(super) validate_only: bool,
    /// What was lent to the caller for this call.
    pub(super) lent: Option<Lent>,
    /// From when on the call's claim is kept, if it has moved the clock.
    pub(super) moved_to: Option<Micros>,
}

impl Deref for Tx {
    type Target = Work;
    fn deref(&self) -> &Work {
        &self.work
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Work {
        &mut self.work
    }
}

/// Facts come from memory as long as it holds what a statement would read: the database has vouched for it after the last lock, the
/// transaction has changed nothing that was there, and this call has made nothing yet, which it would have to see itself.
impl Facts for Tx {
    type Db = Writes;

    fn db(&self) -> &Writes {
        self.work.db()
    }

    async fn know<F: Fact>(&self, fact: F) -> Result<Arc<F::Value>> {
        let memory = &self.app.memory;
        let vouched = self.work.is_vouched_for() && memory.is_open();
        if vouched && let Some((value, _)) = memory.recall(&fact) {
            return Ok(value);
        }
        let at = memory.number();
        let found = fact.load(self.work.db()).await?;
        Ok(if vouched && !F::SEVERAL && self.work.db().is_clean() {
            memory.take(&fact, at, found).0
        } else {
            Arc::new(found.value)
        })
    }
}

impl Tx {
    /// The application.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// `package.Service/Method`, or the job.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// A new identifier.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.app.env.id(self.now())
    }

    /// Tells that the service's clock stands there once this is committed: the claim of a call that moves time must not end by it.
    pub(crate) fn clock_moved_to(&mut self, now: Micros) {
        self.moved_to = Some(now);
    }

    /// What was lent to the caller for this call, by which it was proven, if it wasn't by what it holds itself.
    #[must_use]
    pub fn lent(&self) -> Option<Lent> {
        self.lent
    }

    /// Whether all of it will be rolled back.
    #[must_use]
    pub fn validate_only(&self) -> bool {
        self.validate_only
    }

    /// What the caller may on a scope now, awake, and what was lent to it there for this call.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn caller_permissions(&self, scope: ScopeKey) -> Result<Permissions> {
        self.demanded(None);
        let own = proof::permissions(self.db(), &self.caller, scope, self.now()).await?;
        Ok(self.lent.map_or(own, |lent| own.and(lent.on(scope))))
    }

    fn demanded(&self, permission: Option<Permission>) {
        self.app.remember_demand(self.method, permission);
    }

    /// Demands what the rule of the method demands of accounts, of one that the proof doesn't name, or only where something is given. The
    /// account is locked.
    ///
    /// # Errors
    /// `WRONG_STATE`, `PROGRAM_NOT_ENROLLED`, `AGREEMENT_REQUIRED`; those of the database.
    pub async fn demand_of_account(&mut self, account: Uuid) -> Result<()> {
        self.work.lock([ScopeKey::Account(account)]).await?;
        match rules::of_path(&format!("/{}", self.method)).and_then(|r| r.account.as_ref()) {
            Some(demanded) => demanded.check(&*self, account, self.now()).await,
            None => Err(Error::internal("the rule demands nothing of accounts")),
        }
    }

    /// Demands what only the data tells: the permission, on the scope of what is named. The scope is locked.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `RIGHTS_ASLEEP`; those of the database.
    pub async fn demand(&mut self, permission: Permission, on: Name) -> Result<()> {
        self.demanded(Some(permission));
        let scope = on.scope();
        self.work.lock([scope]).await?;
        if self.lent.is_some_and(|l| l.on(scope).has(permission)) {
            return Ok(());
        }
        proof::demand(self.db(), &self.caller, permission, scope, self.now()).await
    }
}
