//! The deadpool and bb8 pools of diesel-async, of any connection.
//!
//! Each round asks `SELECT 1`, on SQLite a question that reads the file, on a connection of the application's own pool. The
//! pools ask `SELECT 1` of a connection before they give it, which is a round trip of its own, unless they are built with
//! `RecyclingMethod::Fast`.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host; SQLite: the file can't be opened | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the server lets no further connection in: wrong password, no such database, full, starting up | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no answer, also not to a new connection | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | all connections of the pool are in use, and the server answers a further one | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | SQLite: locked by who writes, or silent for 400 ms | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | read-only transaction | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | SQLite: the file is no database; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The errors of diesel have no code of the database's, so what a server says to a new connection is one kind. SQLite goes on
//! reading a file that has been removed, and the pools do not tell its path: that is not seen. The pools do not tell where they
//! connect to, and so neither do the messages.
//!
//! Whether a pool that is all in use belongs to a busy server or to a frozen one is found out with one connection beside it,
//! which is closed again; so it is where an idle connection is silent for 300 ms and, for bb8, which keeps the reason for
//! itself while it tries to connect, where there is no connection for 100 ms. One whose question was given up is closed by its
//! pool, and not kept. SQLite is asked one question at a time, which is never given up: diesel-async can't drop one.

use std::{error::Error, future::Future, marker::PhantomData, pin::Pin, sync::Arc, time::Duration};

use ::{
    bb8::{ManageConnection, RunError},
    deadpool::managed::{self, Manager},
};
use diesel_async::{
    AsyncConnection, TransactionManager as _,
    pooled_connection::{
        AsyncDieselConnectionManager, PoolError, PoolableConnection, bb8::Pool as Bb8Pool, deadpool::Pool,
    },
};

use tokio::time::timeout;

use super::{
    bb8, deadpool,
    diesel::{classify_connection, classify_error, is_sqlite, message, name, sql},
    one_at_a_time::OneAtATime,
    pooled::Question,
};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

impl<C> Probe for Pool<C>
where
    C: PoolableConnection + 'static,
    AsyncDieselConnectionManager<C>: Manager<Type = C, Error = PoolError>,
{
    const GROUP: &'static str = "database";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        if is_sqlite::<C::Backend>() { OfFile::new(self.clone()).ask().await } else { self.clone().asked().await }
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        is_sqlite::<C::Backend>().then(|| Arc::new(OfFile::new(self.clone())) as Arc<dyn DynProbe>)
    }

    fn resource(&self) -> Option<String> {
        Some(name::<C::Backend>().to_owned())
    }
}

impl<C> Probe for Bb8Pool<C>
where
    C: PoolableConnection + 'static,
    AsyncDieselConnectionManager<C>: ManageConnection<Connection = C, Error = PoolError>,
{
    const GROUP: &'static str = "database";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        if is_sqlite::<C::Backend>() { OfFile::new(self.clone()).ask().await } else { self.clone().asked().await }
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        is_sqlite::<C::Backend>().then(|| Arc::new(OfFile::new(self.clone())) as Arc<dyn DynProbe>)
    }

    fn resource(&self) -> Option<String> {
        Some(name::<C::Backend>().to_owned())
    }
}

/// How long SQLite may be silent before it is taken to be locked.
const LOCKED: Duration = Duration::from_millis(400);

/// A pool of connections to a file. A question that is dropped panics in diesel-async on a runtime of one thread, so each is
/// asked to its end.
struct OfFile<P> {
    pool: P,
    under_way: OneAtATime<Result<(), ProbeError>>,
}

impl<P: AskedToTheEnd> OfFile<P> {
    fn new(pool: P) -> Self {
        Self { pool, under_way: OneAtATime::new() }
    }
}

impl<P: AskedToTheEnd> DynProbe for OfFile<P> {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            let answer = timeout(LOCKED, self.under_way.answer(self.pool.clone().asked())).await;
            answer.unwrap_or_else(|_| Err(ProbeError::new(ProbeErrorKind::Saturated, "sqlite is locked by a writer")))
        })
    }

    fn resource(&self) -> Option<String> {
        Some("sqlite".to_owned())
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// A pool whose question can be asked by a task.
trait AskedToTheEnd: Clone + Send + Sync + 'static {
    fn asked(self) -> impl Future<Output = Result<(), ProbeError>> + Send + 'static;
}

impl<C> AskedToTheEnd for Pool<C>
where
    C: PoolableConnection + 'static,
    AsyncDieselConnectionManager<C>: Manager<Type = C, Error = PoolError>,
{
    async fn asked(self) -> Result<(), ProbeError> {
        let answer = deadpool::ask::<Select<C>, _, _>(&self).await;
        answer.map_err(|failure| failure.public(name::<C::Backend>()))
    }
}

impl<C> AskedToTheEnd for Bb8Pool<C>
where
    C: PoolableConnection + 'static,
    AsyncDieselConnectionManager<C>: ManageConnection<Connection = C, Error = PoolError>,
{
    async fn asked(self) -> Result<(), ProbeError> {
        let answer = bb8::ask::<Select<C>, _>(&self).await;
        answer.map_err(|failure| failure.public(name::<C::Backend>()))
    }
}

impl From<PoolError> for ProbeError {
    fn from(error: PoolError) -> Self {
        Self::from_error(error)
    }
}

impl From<managed::PoolError<PoolError>> for ProbeError {
    fn from(error: managed::PoolError<PoolError>) -> Self {
        Self::from_error(error)
    }
}

impl From<RunError<PoolError>> for ProbeError {
    fn from(error: RunError<PoolError>) -> Self {
        Self::from_error(error)
    }
}

struct Select<C>(PhantomData<C>);

impl<C: AsyncConnection + 'static> Question for Select<C> {
    type Connection = C;
    type Error = PoolError;

    async fn ask(connection: &mut C) -> Result<(), PoolError> {
        connection.batch_execute(sql::<C::Backend>()).await.map_err(PoolError::QueryError)
    }

    fn classify(error: &PoolError) -> ProbeErrorKind {
        classify_pool(error)
    }

    fn message(error: &PoolError, name: &str) -> String {
        match error {
            PoolError::QueryError(error) => message(error, name),
            PoolError::ConnectionError(error) => classify_connection(error).message(name),
        }
    }

    fn has_server() -> bool {
        !is_sqlite::<C::Backend>()
    }

    fn is_full(error: &PoolError) -> bool {
        // It answers, be it that it is full or something else: who has a connection is served.
        classify_pool(error) == ProbeErrorKind::Rejected
    }

    fn spoil(connection: &mut C) {
        C::TransactionManager::transaction_manager_status_mut(connection).set_in_error();
    }
}

/// The kind of an error of diesel-async's or of its pools', if it is one.
pub(super) fn classify(error: &(dyn Error + 'static)) -> Option<ProbeErrorKind> {
    if let Some(error) = error.downcast_ref() {
        return Some(classify_pool(error));
    }
    if let Some(kind) = error.downcast_ref().and_then(deadpool::classify::<PoolError>) {
        return Some(kind);
    }
    error.downcast_ref().and_then(bb8::classify::<PoolError>)
}

fn classify_pool(error: &PoolError) -> ProbeErrorKind {
    match error {
        PoolError::ConnectionError(error) => classify_connection(error),
        PoolError::QueryError(error) => classify_error(error),
    }
}
