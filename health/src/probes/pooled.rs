//! What the probes of bb8's and deadpool's pools share.

use std::{error::Error, future::Future, pin::Pin};

use super::pool::{Pool, Query, State};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::DynProbe,
};

/// A driver whose connections are pooled: the query of its probe, and the meaning of its errors.
pub(super) trait Driver: Clone + Copy + Send + Sync + 'static {
    type Connection: Send + 'static;
    type Error: Error + Send + Sync + 'static;

    /// How long a run on an idle connection takes, in queries: more than one if the pool tests connections before it returns them.
    const QUERIES: u32;

    /// Whether an attempt to connect ends when it is dropped.
    const CANCEL_SAFE: bool = true;

    fn query(connection: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn classify(error: &Self::Error) -> ProbeErrorKind;

    /// Returns the public message of an error.
    fn message(error: &Self::Error, name: &str) -> String {
        Self::classify(error).message(name)
    }

    /// Whether there is a server. Connecting to a file may create it, and shows nothing about the pool's connections.
    fn has_server() -> bool {
        true
    }

    /// Whether a server that rejects a new connection with this error may still serve its open connections.
    fn may_serve_others(error: &Self::Error) -> bool {
        Self::classify(error) == ProbeErrorKind::Saturated
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
pub(super) struct DriverQuery<D>(D);

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
pub(super) struct PooledProbe<P: Pool, D> {
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

    pub(super) async fn run(&self) -> Result<(), ProbeError> {
        self.state.run(&self.pool, &self.query).await.map_err(|failure| failure.into_probe_error(&self.pool))
    }

    pub(super) fn name(&self) -> String {
        self.pool.name()
    }
}

impl<P, D> DynProbe for PooledProbe<P, D>
where
    P: Pool<Connection = D::Connection, Error = D::Error>,
    D: Driver,
{
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(self.run())
    }

    fn resource(&self) -> Option<String> {
        Some(self.name())
    }

    fn never_blocks(&self) -> bool {
        true
    }

    fn address(&self) -> Option<usize> {
        self.pool.address()
    }
}
