//! What the probes of bb8's and deadpool's pools share.

use std::future::Future;

use super::{Pool, Query, State, Usage};
use crate::{error::ProbeError, probe::LibraryProbe, probes::classify::Classify};

/// A driver whose connections are pooled, and the query of its probe.
pub(in crate::probes) trait Driver: Copy + Send + Sync + 'static {
    type Connection: Send + 'static;
    type Error: Classify;

    /// How long a run on an idle connection takes, in queries: more than one if the pool tests connections before it returns them.
    const QUERIES: u32;

    /// Whether an attempt to connect ends when it is dropped.
    const CANCEL_SAFE: bool = true;

    fn query(connection: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether there is a server. Connecting to a file may create it, and shows nothing about the pool's connections.
    fn has_server() -> bool {
        true
    }

    /// Closes a connection outside the pool.
    fn close(connection: Self::Connection) -> impl Future<Output = ()> + Send {
        drop(connection);
        async {}
    }

    /// Makes the pool close a connection when it is released, for pools from which connections cannot be removed.
    fn invalidate(_: &mut Self::Connection) {}
}

/// The query of a driver, on a pool of its connections.
#[derive(Clone, Copy)]
pub(in crate::probes) struct DriverQuery<D>(D);

impl<D, P> Query<P> for DriverQuery<D>
where
    D: Driver,
    P: Pool<Connection = D::Connection, Error = D::Error>,
{
    type Output = ();

    fn run(&self, connection: &mut D::Connection) -> impl Future<Output = Result<(), D::Error>> + Send {
        D::query(connection)
    }
}

/// A pool of a driver's connections, and what its probe remembers between runs.
pub(in crate::probes) struct PooledProbe<P: Pool, D> {
    pool: P,
    query: DriverQuery<D>,
    state: State<P>,
}

impl<P, D> PooledProbe<P, D>
where
    P: Pool<Connection = D::Connection, Error = D::Error>,
    D: Driver,
{
    pub(super) fn of_pool(pool: P, driver: D) -> Self {
        Self { pool, query: DriverQuery(driver), state: State::new() }
    }

    pub(in crate::probes) fn usage(&self) -> Usage {
        self.pool.usage()
    }
}

impl<P, D> LibraryProbe for PooledProbe<P, D>
where
    P: Pool<Connection = D::Connection, Error = D::Error>,
    D: Driver,
{
    async fn probe(&self) -> Result<(), ProbeError> {
        self.pool.usage().observe();
        self.state.run(&self.pool, &self.query).await.map_err(|failure| failure.into_probe_error(&self.pool.label()))
    }

    fn resource(&self) -> Option<String> {
        Some(self.pool.label().to_string())
    }

    fn address(&self) -> Option<usize> {
        self.pool.address()
    }
}
