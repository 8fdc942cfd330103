//! The snapshot of a call that reads: begun with its first statement, so that a call that memory answers begins none.

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
    prelude::async_trait::async_trait,
};
use tokio::sync::OnceCell;

use super::{App, Begin};

/// A snapshot that begins when it is first asked.
pub struct Lazy {
    app: App,
    begun: OnceCell<DatabaseTransaction>,
}

impl Lazy {
    pub(super) fn new(app: App) -> Self {
        Self {
            app,
            begun: OnceCell::new(),
        }
    }

    pub(super) fn over(app: App, begun: DatabaseTransaction) -> Self {
        Self {
            app,
            begun: OnceCell::new_with(Some(begun)),
        }
    }

    /// Whether it has begun: then all else that is read comes from it.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.initialized()
    }

    async fn db(&self) -> Result<&DatabaseTransaction, DbErr> {
        self.begun
            .get_or_try_init(|| self.app.begin(Begin::Read))
            .await
    }

    /// Ends it, if it began.
    pub(super) async fn end(self) -> Result<(), DbErr> {
        match self.begun.into_inner() {
            Some(begun) => begun.commit().await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl ConnectionTrait for Lazy {
    fn get_database_backend(&self) -> DbBackend {
        self.app.db.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.db().await?.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.db().await?.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.db().await?.query_one_raw(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.db().await?.query_all_raw(statement).await
    }
}
