//! What functions that write, and their preparations, see.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use tokio::{runtime::Handle, sync::OwnedSemaphorePermit};
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
    pub(super) turn: Turn,
}

/// Whose turn it is to hold a connection while it waits for the writers of a scope before it.
pub(super) enum Turn {
    /// Nobody needs one: others share the transaction, or the database has one writer.
    Idle,
    /// It is needed for the first scope that is locked.
    Missing,
    /// It has come.
    Held(#[expect(dead_code, reason = "held, and dropped")] OwnedSemaphorePermit),
}

/// A transaction that is under way. Whoever leaves in the middle of a statement has it rolled back, and gives its turn up only then: the
/// server goes on waiting for a lock when nobody waits for the answer any more.
pub(super) struct UnderWay(Option<Tx>);

impl UnderWay {
    pub(super) fn new(tx: Tx) -> Self {
        Self(Some(tx))
    }

    pub(super) fn tx(&mut self) -> Result<&mut Tx> {
        self.0.as_mut().ok_or_else(Self::ended)
    }

    pub(super) fn into_tx(mut self) -> Result<Tx> {
        self.0.take().ok_or_else(Self::ended)
    }

    fn ended() -> Error {
        Error::internal("the transaction has ended")
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(Tx { work, turn, .. }) = self.0.take() else {
            return;
        };
        if let (Turn::Held(_), Ok(runtime)) = (&turn, Handle::try_current()) {
            let (db, _) = work.into_batch().into_parts();
            runtime.spawn(async move {
                if let Err(fault) = db.rollback().await {
                    tracing::debug!(%fault, "a transaction was left");
                }
                drop(turn);
            });
        }
    }
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

    /// Locks scopes, as `Work::lock`. Whoever waits for a lock holds a connection; so a call that came without a turn takes one at the first
    /// scope, and if none is left there, begins again when its turn has come.
    ///
    /// # Errors
    /// As `Work::lock`.
    pub async fn lock(&mut self, scopes: impl IntoIterator<Item = ScopeKey>) -> Result<()> {
        let scopes: Vec<_> = scopes.into_iter().collect();
        if let (Turn::Missing, Some(last)) = (&self.turn, scopes.last()) {
            match self.app.turn_at_once(*last) {
                Some(turn) => self.turn = Turn::Held(turn),
                None => return Err(Error::needs_scopes(self.work.with_locked(scopes))),
            }
        }
        self.work.lock(scopes).await
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

    /// The refusal of what the caller holds on a scope and can't use now; none if it lacks some of it altogether.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn not_awake(&self, missing: Permissions, scope: ScopeKey) -> Result<Option<Error>> {
        proof::not_awake(self.db(), &self.caller, missing, scope, self.now()).await
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
