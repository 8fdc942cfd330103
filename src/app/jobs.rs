//! Jobs of the service itself.

use futures_util::future::BoxFuture;

use super::{
    App, Begin, Tx,
    mutate::{FIRST_PAUSE, MOST_ATTEMPTS},
    tx::UnderWay,
};
use crate::{
    access::{principal::Caller, scope::JobScope},
    error::{Language, Result},
    store::{batch::Batch, scope_key::ScopeKey, work::Origin, writes::Writes},
};

impl App {
    /// Runs a statement of the service's own bookkeeping, such as a lease or what became of a mail, in a transaction of its own: nothing of it
    /// is audited or told. It commits like all others, so that memory knows of it.
    pub(crate) async fn keep_books<T, F>(&self, run: F) -> Result<T>
    where
        F: for<'a> FnOnce(&'a Writes) -> BoxFuture<'a, Result<T>>,
    {
        let batch = Batch::new(self.begin(Begin::Write).await?, false, &self.memory);
        let answer = run(batch.db()).await?;
        self.commit(batch).await?;
        Ok(answer)
    }

    /// Runs a transaction that only writes audit events of its own making.
    pub(crate) async fn note<F>(&self, run: F) -> Result<()>
    where
        F: for<'a> Fn(&'a mut Tx) -> BoxFuture<'a, Result<()>>,
    {
        self.job("note", move |tx, _| run(tx)).await
    }

    /// Runs a job of the service's own in one transaction: with audit and events, without caller.
    ///
    /// # Errors
    /// Those of the job.
    pub async fn job<T, F>(&self, name: &'static str, run: F) -> Result<T>
    where
        F: for<'a> Fn(&'a mut Tx, JobScope) -> BoxFuture<'a, Result<T>>,
    {
        let mut attempts = 0;
        let mut extra = Vec::new();
        loop {
            attempts += 1;
            match self.job_once(name, &extra, &run).await {
                Err(error) if attempts < MOST_ATTEMPTS => match error.again() {
                    None => return Err(error),
                    Some([]) => tokio::time::sleep(FIRST_PAUSE * attempts).await,
                    Some(needs) => extra = needs.to_vec(),
                },
                other => return other,
            }
        }
    }

    async fn job_once<T, F>(&self, name: &'static str, extra: &[ScopeKey], run: &F) -> Result<T>
    where
        F: for<'a> Fn(&'a mut Tx, JobScope) -> BoxFuture<'a, Result<T>>,
    {
        let turn = self.turn(extra.last()).await?;
        let mut under_way = UnderWay::new(Tx {
            app: self.clone(),
            caller: Caller {
                who: None,
                via: None,
                address: None,
                language: Language::English,
                trace_id: String::new(),
            },
            method: name,
            work: self.open(Begin::Write).await?,
            validate_only: false,
            lent: None,
            moved_to: None,
            turn,
        });
        let tx = under_way.tx()?;
        tx.lock(extra.iter().copied()).await?;
        let answer = run(tx, JobScope::new()).await?;
        let event_id = tx.id();
        let origin = Origin {
            action: name.to_owned(),
            actor: format!("operator/jobs/{name}"),
            ..Origin::default()
        };
        tx.work
            .finish(&self.keys, &origin, "OK", event_id, true)
            .await?;
        tx.batch().write().await?;
        let Tx { work, turn, .. } = under_way.into_tx()?;
        self.commit(work.into_batch()).await?;
        drop(turn);
        Ok(answer)
    }
}
