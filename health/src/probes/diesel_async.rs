//! The deadpool and bb8 pools of diesel-async, of any connection.
//!
//! Each run executes `SELECT 1`, on SQLite a query that reads the file, on a connection of the application's own pool. Before that the
//! pools execute `SELECT 1` themselves, which is another round trip, and two on the first use of a connection, unless they are built with
//! `RecyclingMethod::Fast`.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host; SQLite: the file can't be opened | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the server rejects the connection: wrong password, no such database, full, starting up | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response, not on a new connection either | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | an idle connection is silent, and another idle one responds | | UP |
//! | idle connections are silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | the pool is exhausted, and the server accepts further connections, or rejects them with an error | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | SQLite: locked by another writer, or silent for 400 ms | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | read-only transaction | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | SQLite: the file is not a database; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The errors of diesel do not contain the database's code, so all errors of a new connection have one kind. SQLite continues to read a
//! file that was removed or replaced, which is not detected, because the pools do not expose its path. The pools do not expose their
//! address, so messages do not contain one.
//!
//! A silent connection is closed instead of returned to the pool. bb8 keeps one whose test on check-out hangs, and returns it again: the
//! check is DEGRADED meanwhile. On SQLite one query runs at a time, and to its end, because diesel-async cannot cancel it.
//!
//! A warm pool that is not exhausted is probed only on its own connections. While the pool is exhausted, is slow to open a connection, or
//! has a silent idle one, the check opens a connection outside it, queries and closes it, at most once in 2 s (once in 900 ms while the
//! server cannot be connected to). It opens a second one concurrently only if the first gets no response for 2 s. Each replica of the
//! application does so.

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
    bb8::{self, Bb8Probe},
    deadpool::{self, DeadpoolProbe},
    diesel::{classify_connection, classify_error, is_sqlite, message, name, sql},
    pooled::Driver,
    single_flight::SingleFlight,
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
        stateless(self).probe().await
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(if is_sqlite::<C::Backend>() {
            Arc::new(SqliteProbe::new(of_deadpool(self)))
        } else {
            Arc::new(of_deadpool(self))
        })
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
        stateless(self).probe().await
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(if is_sqlite::<C::Backend>() { Arc::new(SqliteProbe::new(of_bb8(self))) } else { Arc::new(of_bb8(self)) })
    }

    fn resource(&self) -> Option<String> {
        Some(name::<C::Backend>().to_owned())
    }
}

/// How long SQLite may be silent before it is taken to be locked.
const BUSY_TIMEOUT: Duration = Duration::from_millis(400);

/// The probe of a pool of SQLite connections. Runs are not cancelled, because diesel-async panics on a runtime with one thread if a query is
/// dropped.
struct SqliteProbe {
    pool: Arc<dyn DynProbe>,
    in_flight: SingleFlight<Result<(), ProbeError>>,
}

impl SqliteProbe {
    fn new(pool: impl DynProbe + 'static) -> Self {
        Self { pool: Arc::new(pool), in_flight: SingleFlight::new() }
    }
}

impl DynProbe for SqliteProbe {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            let pool = Arc::clone(&self.pool);
            let result = timeout(BUSY_TIMEOUT, self.in_flight.join_or_spawn(async move { pool.probe().await })).await;
            result.unwrap_or_else(|_| Err(ProbeError::new(ProbeErrorKind::Saturated, "sqlite is locked by a writer")))
        })
    }

    fn resource(&self) -> Option<String> {
        Some("sqlite".to_owned())
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

fn of_deadpool<C>(pool: &Pool<C>) -> DeadpoolProbe<Select<C>, AsyncDieselConnectionManager<C>>
where
    C: PoolableConnection + 'static,
    AsyncDieselConnectionManager<C>: Manager<Type = C, Error = PoolError>,
{
    DeadpoolProbe::new(Select::new(), pool, |_| name::<C::Backend>().to_owned())
}

fn of_bb8<C>(pool: &Bb8Pool<C>) -> Bb8Probe<Select<C>, AsyncDieselConnectionManager<C>>
where
    C: PoolableConnection + 'static,
    AsyncDieselConnectionManager<C>: ManageConnection<Connection = C, Error = PoolError>,
{
    Bb8Probe::new(Select::new(), pool, name::<C::Backend>())
}

/// Returns a probe that remembers no earlier runs.
fn stateless<P: Probe>(pool: &P) -> Arc<dyn DynProbe> {
    pool.kept().expect("the probes of these pools have a state")
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

/// The query, on connections of that type.
struct Select<C>(PhantomData<fn() -> C>);

impl<C> Select<C> {
    fn new() -> Self {
        Self(PhantomData)
    }
}

impl<C> Clone for Select<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Select<C> {}

impl<C: AsyncConnection + 'static> Driver for Select<C> {
    type Connection = C;
    type Error = PoolError;

    // The pool executes a `SELECT 1` of its own before.
    const QUERIES: u32 = 2;

    async fn query(connection: &mut C) -> Result<(), PoolError> {
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

    fn may_serve_others(error: &PoolError) -> bool {
        // Any response, also that it is full, shows that the server works.
        classify_pool(error) == ProbeErrorKind::Rejected
    }

    fn invalidate(connection: &mut C) {
        C::TransactionManager::transaction_manager_status_mut(connection).set_in_error();
    }
}

/// Returns the kind of an error of diesel-async or of its pools, if it is one.
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
