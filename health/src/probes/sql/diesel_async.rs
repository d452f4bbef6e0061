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

use std::{marker::PhantomData, sync::Arc, time::Duration};

use ::{bb8::ManageConnection, deadpool::managed::Manager};
use diesel_async::{
    AsyncConnection, TransactionManager as _,
    pooled_connection::{
        AsyncDieselConnectionManager, PoolError, PoolableConnection, bb8::Pool as Bb8Pool,
        deadpool::Pool as DeadpoolPool,
    },
};
use tokio::time::timeout;

use super::diesel::{is_sqlite, label, sql};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        pool::{
            Pool,
            bb8::Bb8Probe,
            deadpool::DeadpoolProbe,
            driver::{Driver, PooledProbe},
            locked,
        },
        support::single_flight::SingleFlight,
    },
};

library_probe! {
    "database" <C>,
    DeadpoolPool<C> where {
        C: PoolableConnection + 'static,
        AsyncDieselConnectionManager<C>: Manager<Type = C, Error = PoolError>,
    } => |pool: &DeadpoolPool<C>| OnAnyDatabase::new(DeadpoolProbe::new(Select::new(), pool, |_| label::<C::Backend>()))
}

library_probe! {
    "database" <C>,
    Bb8Pool<C> where {
        C: PoolableConnection + 'static,
        AsyncDieselConnectionManager<C>: ManageConnection<Connection = C, Error = PoolError>,
    } => |pool: &Bb8Pool<C>| OnAnyDatabase::new(Bb8Probe::new(Select::new(), pool, label::<C::Backend>()))
}

/// How long SQLite may be silent before it is taken to be locked.
const BUSY_TIMEOUT: Duration = Duration::from_millis(400);

/// The probe of a pool. On SQLite, runs are not cancelled, because diesel-async panics on a runtime with one thread if a query is dropped.
struct OnAnyDatabase<P: Pool, C> {
    probe: Arc<PooledProbe<P, Select<C>>>,
    in_flight: SingleFlight<Result<(), ProbeError>>,
}

impl<P: Pool, C> OnAnyDatabase<P, C> {
    fn new(probe: PooledProbe<P, Select<C>>) -> Self {
        Self { probe: Arc::new(probe), in_flight: SingleFlight::new() }
    }
}

impl<P, C> LibraryProbe for OnAnyDatabase<P, C>
where
    P: Pool<Connection = C, Error = PoolError>,
    C: AsyncConnection + 'static,
{
    async fn probe(&self) -> Result<(), ProbeError> {
        if !is_sqlite::<C::Backend>() {
            return self.probe.probe().await;
        }
        // The task does not belong to the run, so its values are lost.
        self.probe.usage().observe();
        let probe = Arc::clone(&self.probe);
        let result = timeout(BUSY_TIMEOUT, self.in_flight.join_or_spawn(async move { probe.probe().await })).await;
        result.unwrap_or_else(|_| Err(locked()))
    }

    fn resource(&self) -> Option<String> {
        self.probe.resource()
    }

    fn address(&self) -> Option<usize> {
        self.probe.address()
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

    fn has_server() -> bool {
        !is_sqlite::<C::Backend>()
    }

    fn invalidate(connection: &mut C) {
        C::TransactionManager::transaction_manager_status_mut(connection).set_in_error();
    }
}

impl Classify for PoolError {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::ConnectionError(error) => error.classify(),
            Self::QueryError(error) => error.classify(),
        }
    }

    fn message(&self, name: &str) -> String {
        match self {
            Self::ConnectionError(error) => error.message(name),
            Self::QueryError(error) => error.message(name),
        }
    }

    fn may_serve_others(&self) -> bool {
        // Any response, also that it is full, shows that the server works.
        self.classify() == ProbeErrorKind::Rejected
    }
}
