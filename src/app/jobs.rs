//! Jobs of the service itself.

use futures_util::future::BoxFuture;

use super::{
    App, Tx,
    mutate::{FIRST_PAUSE, MOST_ATTEMPTS},
};
use crate::{
    access::{principal::Caller, scope::JobScope},
    error::{Language, Result},
    store::{
        scope_key::ScopeKey,
        work::{Origin, Work},
    },
};

impl App {
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
        let mut tx = Tx {
            app: self.clone(),
            caller: Caller {
                who: None,
                via: None,
                address: None,
                language: Language::English,
                trace_id: String::new(),
            },
            method: name,
            work: Work::new(self.snapshot(true).await?),
            validate_only: false,
            moved_to: None,
        };
        tx.lock(extra.iter().copied()).await?;
        let answer = run(&mut tx, JobScope::new(name)).await?;
        let news = tx.has_news();
        let event_id = tx.id();
        let origin = Origin {
            action: name.to_owned(),
            actor: format!("operator/jobs/{name}"),
            ..Origin::default()
        };
        tx.work
            .finish(&self.keys, &origin, "OK", event_id, true)
            .await?;
        self.commit(tx.work.into_db()).await??;
        if news {
            self.committed.notify_waiters();
        }
        Ok(answer)
    }
}
