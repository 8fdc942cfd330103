//! Calls that change nothing: one snapshot, proof and function in it.

use std::ops::Deref;

use futures_util::future::BoxFuture;
use prost::Message;
use sea_orm::{EntityTrait, FromQueryResult, Select};

use super::{App, Call, check};
use crate::{
    access::{
        principal::Caller,
        proof::{self, Named},
        refusals,
        roles::Permissions,
        scope::Proof,
    },
    check::Request,
    error::{Error, Result},
    names::Name,
    store::{
        list::{self, Asker, ListRequest, Listing, Page, Rows},
        scope_key::ScopeKey,
        work::Snapshot,
    },
};

/// A transaction that reads, as functions see it.
pub struct Read {
    pub(super) app: App,
    pub(super) call: Call,
    pub(super) snapshot: Snapshot,
}

impl Deref for Read {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Read {
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
        let asker = Asker {
            keys: &self.app.keys,
            caller: self.call.caller.key(),
            method: self.method(),
        };
        list::rows(self.db(), asker, request, listing, select).await
    }

    /// What the caller may on a scope now, awake.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn caller_permissions(&self, scope: ScopeKey) -> Result<Permissions> {
        proof::permissions(self.db(), &self.call.caller, scope, self.now()).await
    }
}

impl App {
    /// Carries out a call that changes nothing.
    ///
    /// # Errors
    /// Those of the proof, the checks and the function.
    pub async fn read<R, S, F>(&self, call: &Call, mut request: R, run: &F) -> Result<S>
    where
        R: Request,
        F: for<'a> Fn(&'a Read, Proof, R) -> BoxFuture<'a, Result<S>>,
    {
        let named = proof::resolve(call.rule, &request)?;
        let snapshot = self.snapshot().await?;
        let now = snapshot.now();
        let rd = Read {
            app: self.clone(),
            call: call.clone(),
            snapshot,
        };
        let proven = match proof::prove(
            rd.db(),
            &self.keys,
            &call.caller,
            call.rule,
            &named,
            &request,
            now,
        )
        .await
        {
            Ok(proven) => proven,
            Err(error) => {
                drop(rd);
                return Err(self.refuse(call, &named, error).await);
            }
        };
        check(&mut request)?;
        let looked: Vec<Name> = if proven.by_operator()
            && proven.masked()
            && named.iter().all(|(_, names)| names.is_empty())
        {
            // A list of what belongs to others is a look at all of it.
            vec![Name::Operator]
        } else if proven.by_operator() {
            named.iter().flat_map(|(_, names)| names).copied().collect()
        } else {
            Vec::new()
        };
        let answer = run(&rd, proven, request).await?;
        rd.snapshot.into_db().commit().await?;
        if !looked.is_empty() {
            // Spawned: a caller that goes away can't take the trace of its look along.
            let (app, call) = (self.clone(), call.clone());
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
        let snapshot = self.snapshot().await?;
        let now = snapshot.now();
        let rd = Read {
            app: self.clone(),
            call: call.clone(),
            snapshot,
        };
        match proof::prove(
            rd.db(),
            &self.keys,
            &call.caller,
            call.rule,
            named,
            request,
            now,
        )
        .await
        {
            Ok(proven) => Ok((rd, proven)),
            Err(error) => {
                drop(rd);
                Err(self.refuse(call, named, error).await)
            }
        }
    }
}
