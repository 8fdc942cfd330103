//! Calls that change nothing. Facts come from memory, all else from one snapshot, begun when it is needed; before the answer the database
//! vouches that all facts held at one moment after the call came and no earlier than the snapshot. Where they didn't, the call is made anew,
//! and in the end with all of it in one snapshot. So an answer is never of something that wasn't so, nor a proof older than what it shows.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use prost::Message;
use sea_orm::{EntityTrait, FromQueryResult, Select, sea_query::SelectStatement};
use uuid::Uuid;

use super::{App, Begin, Call, Lazy, check};
use crate::{
    access::{
        cache::{ClockOffset, Facts},
        principal::Caller,
        proof::{self, Named},
        refusals,
        roles::{Permission, Permissions},
        scope::Proof,
    },
    check::Request,
    env::Micros,
    error::{Error, Result},
    names::Name,
    store::{
        list::{self, Asker, ListRequest, Listing, Page, Rows, Seal},
        memory::{Fact, Kept},
        scope_key::ScopeKey,
    },
};

/// A call that reads, as functions see it.
pub struct Read {
    pub(super) app: App,
    pub(super) call: Call,
    now: Micros,
    db: Lazy,
    /// The number of memory's clock from before all that this call reads.
    at: u64,
    /// What came from memory, to be vouched for; none if nothing may.
    used: Option<Mutex<Vec<Arc<Kept>>>>,
    /// Looks that the function told of, to be audited before its answer goes out.
    looks: Mutex<Vec<Name>>,
}

impl Facts for Read {
    type Db = Lazy;

    fn db(&self) -> &Lazy {
        &self.db
    }

    /// A fact: from memory, as long as nothing was read from the snapshot; else from that.
    async fn know<F: Fact>(&self, fact: F) -> Result<Arc<F::Value>> {
        let Some(used) = &self.used else {
            return Ok(Arc::new(fact.load(&self.db).await?.value));
        };
        let known = if self.db.has_begun() {
            None
        } else {
            self.app.memory.recall(&fact)
        };
        let (value, kept) = match known {
            Some(known) => known,
            None if F::SEVERAL || self.db.has_begun() => {
                let found = fact.load(&self.db).await?;
                // Of the snapshot, like what else it shows: nobody needs to vouch for it.
                return Ok(self.app.memory.take(&fact, self.at, found).0);
            }
            None => {
                let at = self.app.memory.number();
                let found = fact.load(&self.app.db.read).await?;
                self.app.memory.take(&fact, at, found)
            }
        };
        let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
        used.push(kept);
        Ok(value)
    }
}

impl Read {
    /// A call that may use memory.
    async fn with_memory(app: &App, call: &Call) -> Result<Self> {
        let mut rd = Self {
            app: app.clone(),
            call: call.clone(),
            now: 0,
            db: Lazy::new(app.clone()),
            at: app.memory.number(),
            used: Some(Mutex::new(Vec::with_capacity(8))),
            looks: Mutex::default(),
        };
        let offset = if app.config.enable_test_clock {
            *rd.know(ClockOffset).await?
        } else {
            0
        };
        rd.now = app.env.now() + offset;
        Ok(rd)
    }

    /// A call that reads all in one snapshot, which begins now.
    pub(super) async fn in_snapshot(app: &App, call: &Call) -> Result<Self> {
        let db = app.begin(Begin::Read).await?;
        let now = app.now_in(&db).await?;
        Ok(Self {
            app: app.clone(),
            call: call.clone(),
            now,
            db: Lazy::over(app.clone(), db),
            at: 0,
            used: None,
            looks: Mutex::default(),
        })
    }

    /// Proves the call's rule.
    async fn prove<R: Request>(&self, named: &Named, request: &R) -> Result<Proof> {
        let (call, keys) = (&self.call, &self.app.keys);
        let now = self.now;
        proof::prove(self, keys, &call.caller, call.rule, named, request, now).await
    }

    /// Whether all that came from memory held together, at a moment after this was asked.
    async fn is_vouched_for(&mut self) -> Result<bool> {
        match &mut self.used {
            Some(used) => {
                let used = used.get_mut().unwrap_or_else(PoisonError::into_inner);
                self.app.memory.vouch(used).await
            }
            None => Ok(true),
        }
    }

    /// Ends the snapshot, if one began.
    pub(super) async fn end(self) -> Result<()> {
        Ok(self.db.end().await?)
    }

    /// The snapshot, for queries.
    #[must_use]
    pub fn db(&self) -> &Lazy {
        &self.db
    }

    /// The one instant of this call, in microseconds.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.now
    }

    /// The application.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.call.caller
    }

    /// `package.Service/Method`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.call.rule.method
    }

    /// A page of a list, as the request asks: of `select`, which is already bound to the list's parent, row by row.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a bad page, filter or order; those of the database.
    pub async fn list<E: EntityTrait, M: FromQueryResult, T: Message>(
        &self,
        request: &impl ListRequest,
        listing: &Listing,
        select: Select<E>,
        to_wire: impl Fn(M) -> T,
    ) -> Result<Page<T>> {
        let mut found = self.rows(request, listing, select).await?;
        let items = std::mem::take(&mut found.rows).into_iter().map(to_wire);
        let items = items.collect();
        Ok(found.page(items))
    }

    /// The rows of a page, where what the answer shows of them takes more than the row: `Rows::page` makes the page of it.
    ///
    /// # Errors
    /// As `list`.
    pub async fn rows<E: EntityTrait, M: FromQueryResult>(
        &self,
        request: &impl ListRequest,
        listing: &Listing,
        select: Select<E>,
    ) -> Result<Rows<'_, M>> {
        self.rows_of(request, listing, select, None).await
    }

    /// The same of a list whose filters also ask what no column says: `shown` selects that, by `id`, and is their table `shown`.
    ///
    /// # Errors
    /// As `list`.
    pub async fn rows_with<E: EntityTrait, M: FromQueryResult>(
        &self,
        request: &impl ListRequest,
        listing: &Listing,
        select: Select<E>,
        shown: SelectStatement,
    ) -> Result<Rows<'_, M>> {
        self.rows_of(request, listing, select, Some(shown)).await
    }

    async fn rows_of<E: EntityTrait, M: FromQueryResult>(
        &self,
        request: &impl ListRequest,
        listing: &Listing,
        select: Select<E>,
        shown: Option<SelectStatement>,
    ) -> Result<Rows<'_, M>> {
        list::rows(self.db(), self.asker(), request, listing, select, shown).await
    }

    /// What makes the tokens of a list whose pages are no rows of a table.
    #[must_use]
    pub fn seal(&self, request: &impl ListRequest) -> Seal<'_> {
        Seal::new(self.asker(), request)
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            keys: &self.app.keys,
            caller: self.call.caller.key(),
            method: self.method(),
        }
    }

    /// Demands what only the data tells: the permission, on the scope of what is named.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `RIGHTS_ASLEEP`; those of the database.
    pub async fn demand(&self, permission: Permission, on: Name) -> Result<()> {
        self.app.remember_demand(self.method(), Some(permission));
        proof::demand(self, &self.call.caller, permission, on.scope(), self.now()).await
    }

    /// Notes a look by the operator's people at something that no name of the rule tells. It is audited before the answer goes out (ROL-11), and
    /// after what is read from has been given back: whoever waited for a second connection while holding one would wait for others that do.
    pub fn looked(&self, resource: Name) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.push(resource);
    }

    /// What the caller may on a scope now, awake.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn caller_permissions(&self, scope: ScopeKey) -> Result<Permissions> {
        proof::permissions(self, &self.call.caller, scope, self.now()).await
    }

    /// What is lent to the caller on a tenant now, by whatever relationship.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn lent_permissions(&self, tenant: Uuid) -> Result<Permissions> {
        proof::lent_permissions(self, &self.call.caller, tenant, self.now()).await
    }
}

/// How a call that reads ended, before its facts were vouched for.
enum Ended<S> {
    /// The rule doesn't hold.
    Unproven(Error),
    /// The request is wrong, or the function failed.
    Failed(Error),
    Answered(Proof, S),
}

impl<S> Ended<S> {
    /// The database failed, or this service: of facts nothing is said.
    fn is_ours(&self) -> bool {
        matches!(self, Self::Unproven(e) | Self::Failed(e) if e.is_ours())
    }
}

impl App {
    /// Carries out a call that changes nothing.
    ///
    /// # Errors
    /// Those of the proof, the checks and the function.
    pub async fn read<R, S, F>(&self, call: &Call, request: R, run: &F) -> Result<S>
    where
        R: Request,
        F: for<'a> Fn(&'a Read, Proof, R) -> BoxFuture<'a, Result<S>>,
    {
        let named = proof::resolve(call.rule, &request)?;
        for _ in 0..self.tries_from_memory() {
            let mut rd = Read::with_memory(self, call).await?;
            let ended = Self::read_once(&rd, &named, request.clone(), run).await;
            if ended.is_ours() || rd.is_vouched_for().await? {
                return self.answer(rd, &named, ended).await;
            }
        }
        let rd = Read::in_snapshot(self, call).await?;
        let ended = Self::read_once(&rd, &named, request, run).await;
        self.answer(rd, &named, ended).await
    }

    /// The first proof of a call that writes, with what it was read by: from memory that the database vouches for, or from a snapshot.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) async fn proven<R: Request>(
        &self,
        call: &Call,
        named: &Named,
        request: &R,
    ) -> Result<(Read, Result<Proof>)> {
        for _ in 0..self.tries_from_memory() {
            let mut rd = Read::with_memory(self, call).await?;
            let proof = rd.prove(named, request).await;
            if matches!(&proof, Err(error) if error.is_ours()) || rd.is_vouched_for().await? {
                return Ok((rd, proof));
            }
        }
        let rd = Read::in_snapshot(self, call).await?;
        let proof = rd.prove(named, request).await;
        Ok((rd, proof))
    }

    async fn read_once<R, S, F>(rd: &Read, named: &Named, mut request: R, run: &F) -> Ended<S>
    where
        R: Request,
        F: for<'a> Fn(&'a Read, Proof, R) -> BoxFuture<'a, Result<S>>,
    {
        let proven = match rd.prove(named, &request).await {
            Ok(proven) => proven,
            Err(error) => return Ended::Unproven(error),
        };
        if let Err(error) = check(&mut request) {
            return Ended::Failed(error);
        }
        match run(rd, proven.clone(), request).await {
            Ok(answer) => Ended::Answered(proven, answer),
            Err(error) => Ended::Failed(error),
        }
    }

    /// Gives the answer of a call, or its error; what is to be audited is, before.
    async fn answer<S>(&self, rd: Read, named: &Named, ended: Ended<S>) -> Result<S> {
        let Read {
            call, db, looks, ..
        } = rd;
        let (proven, answer) = match ended {
            Ended::Answered(proven, answer) => (proven, answer),
            Ended::Failed(error) => return Err(error),
            Ended::Unproven(error) => {
                drop(db);
                return Err(self.refuse(&call, named, error).await);
            }
        };
        db.end().await?;
        let mut looked = looks.into_inner().unwrap_or_else(PoisonError::into_inner);
        looked.extend(
            if proven.by_operator()
                && proven.masked()
                && named.iter().all(|(_, names)| names.is_empty())
            {
                // A list of what belongs to others is a look at all of it.
                vec![Name::Operator]
            } else if proven.by_operator() {
                named.iter().flat_map(|(_, names)| names).copied().collect()
            } else {
                Vec::new()
            },
        );
        if !looked.is_empty() {
            // Spawned: a caller that goes away can't take the trace of its look along.
            let app = self.clone();
            let written = tokio::spawn(async move {
                for resource in looked {
                    refusals::looked(&app, &call, resource).await?;
                }
                Ok::<(), Error>(())
            });
            written
                .await
                .map_err(|e| Error::internal(e.to_string()))??;
        }
        Ok(answer)
    }

    /// Begins what a stream reads in one batch: proof and snapshot.
    ///
    /// # Errors
    /// Those of the proof.
    pub async fn open_batch<R: Request>(
        &self,
        call: &Call,
        named: &Named,
        request: &R,
    ) -> Result<(Read, Proof)> {
        let rd = Read::in_snapshot(self, call).await?;
        match rd.prove(named, request).await {
            Ok(proven) => Ok((rd, proven)),
            Err(error) => {
                drop(rd);
                Err(self.refuse(call, named, error).await)
            }
        }
    }
}
