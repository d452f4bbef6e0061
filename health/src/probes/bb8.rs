//! bb8's side of the algorithm for pools.
//!
//! bb8 tries again and again to connect, and says nothing until its own timeout, and it does not give connections away: one that
//! is silent goes back to the pool, unless its driver can mark it as broken or notices it by itself.

use std::{future::Future, future::pending, pin::Pin, time::Duration};

use bb8::{ManageConnection, PooledConnection, RunError};
use tokio::time::timeout;

use super::{
    pool::{Pool, Query, State, TakeError, Usage},
    pooled::Driver,
};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::DynProbe,
};

/// How long an attempt goes on that others have overtaken: the driver of redis gives up a silent connection after 500 ms, and only
/// bb8's own test of it, if that fails, has the pool close it.
const ABANDONED_FOR: Duration = Duration::from_secs(1);

/// A pool of bb8, and what its probe remembers between runs.
pub(super) struct Bb8Probe<D, M>
where
    D: Driver,
    M: ManageConnection<Connection = D::Connection, Error = D::Error>,
{
    pool: Bb8<D, M>,
    state: State<Bb8<D, M>>,
}

impl<D, M> Bb8Probe<D, M>
where
    D: Driver,
    M: ManageConnection<Connection = D::Connection, Error = D::Error>,
{
    /// `name` is what messages call the resource.
    pub(super) fn new(driver: D, pool: &bb8::Pool<M>, name: &'static str) -> Self {
        Self { pool: Bb8 { driver, pool: pool.clone(), name }, state: State::new() }
    }

    pub(super) async fn run(&self) -> Result<(), ProbeError> {
        let query = self.pool.driver;
        self.state.run(&self.pool, &On(query)).await.map_err(|failure| failure.into_probe_error(&self.pool))
    }

    pub(super) fn name(&self) -> String {
        self.pool.name()
    }
}

impl<D, M> DynProbe for Bb8Probe<D, M>
where
    D: Driver,
    M: ManageConnection<Connection = D::Connection, Error = D::Error>,
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
}

struct Bb8<D, M: ManageConnection> {
    driver: D,
    pool: bb8::Pool<M>,
    name: &'static str,
}

impl<D: Driver, M: ManageConnection> Clone for Bb8<D, M> {
    fn clone(&self) -> Self {
        Self { driver: self.driver, pool: self.pool.clone(), name: self.name }
    }
}

/// A connection with a query under way. If that is dropped, or has shown that the connection is dead, it is invalidated.
struct Taken<D: Driver, M: ManageConnection<Connection = D::Connection>> {
    connection: Source<M>,
    invalidate: Option<fn(&mut D::Connection)>,
}

enum Source<M: ManageConnection> {
    Pool(PooledConnection<'static, M>),
    Outside(M::Connection),
}

impl<D: Driver, M: ManageConnection<Connection = D::Connection>> Taken<D, M> {
    fn new(connection: Source<M>) -> Self {
        Self { connection, invalidate: Some(D::invalidate) }
    }

    fn connection(&mut self) -> &mut D::Connection {
        match &mut self.connection {
            Source::Pool(connection) => connection,
            Source::Outside(connection) => connection,
        }
    }
}

impl<D: Driver, M: ManageConnection<Connection = D::Connection>> Drop for Taken<D, M> {
    fn drop(&mut self) {
        if let Some(invalidate) = self.invalidate {
            invalidate(self.connection());
        }
    }
}

/// The query of a driver's probe.
#[derive(Clone, Copy)]
struct On<D>(D);

impl<D, M> Query<Bb8<D, M>> for On<D>
where
    D: Driver,
    M: ManageConnection<Connection = D::Connection, Error = D::Error>,
{
    type Output = ();

    fn run(&self, connection: &mut D::Connection) -> impl Future<Output = Result<(), D::Error>> + Send {
        D::query(connection)
    }
}

impl<D, M> Pool for Bb8<D, M>
where
    D: Driver,
    M: ManageConnection<Connection = D::Connection, Error = D::Error>,
{
    type Connection = D::Connection;
    type Taken = Taken<D, M>;
    type Error = D::Error;

    const RETRIES_IN_SILENCE: bool = true;
    const ROUND_TRIPS: u32 = D::ROUND_TRIPS;
    const IDLE_IS_CERTAIN: bool = false;
    const CANCEL_SAFE: bool = D::CANCEL_SAFE;

    fn usage(&self) -> Usage {
        let state = self.pool.state();
        let (connections, idle) = (state.connections as usize, state.idle_connections as usize);
        Usage {
            taken: connections.saturating_sub(idle),
            idle,
            max: self.pool.config().max_size as usize,
            connected: Some(connections),
        }
    }

    fn has_server(&self) -> bool {
        D::has_server()
    }

    async fn take_idle(&self) -> Option<Result<Self::Taken, TakeError<D::Error>>> {
        if self.pool.state().idle_connections == 0 {
            return None;
        }
        Some(self.get().await)
    }

    async fn acquire(&self) -> Result<Self::Taken, TakeError<D::Error>> {
        if D::has_server() {
            return self.get().await;
        }
        // Why there is no connection to a file, only one outside the pool shows.
        let connection = self.pool.dedicated_connection().await.map_err(TakeError::Driver)?;
        Ok(Taken::new(Source::Outside(connection)))
    }

    async fn connect(&self) -> Result<D::Connection, D::Error> {
        self.pool.dedicated_connection().await
    }

    fn connection(taken: &mut Self::Taken) -> &mut D::Connection {
        taken.connection()
    }

    fn release(mut taken: Self::Taken) {
        taken.invalidate = None;
    }

    fn abandon(attempt: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(timeout(ABANDONED_FOR, attempt));
    }

    fn classify(error: &D::Error) -> ProbeErrorKind {
        D::classify(error)
    }

    fn may_serve_others(error: &D::Error) -> bool {
        D::may_serve_others(error)
    }

    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn message(error: &D::Error, name: &str) -> String {
        D::message(error, name)
    }
}

impl<D, M> Bb8<D, M>
where
    D: Driver,
    M: ManageConnection<Connection = D::Connection, Error = D::Error>,
{
    async fn get(&self) -> Result<Taken<D, M>, TakeError<D::Error>> {
        match self.pool.get_owned().await {
            Ok(connection) => Ok(Taken::new(Source::Pool(connection))),
            Err(RunError::User(error)) => Err(TakeError::Driver(error)),
            Err(error @ RunError::TimedOut) if !D::has_server() => {
                Err(TakeError::Pool(ProbeErrorKind::TimedOut, error.into()))
            }
            // It does not say why: a connection outside the pool shows more.
            Err(RunError::TimedOut) => pending().await,
        }
    }
}

/// The kind of what is the pool's own; the driver's error is in the chain of sources.
pub(super) fn classify<E>(error: &RunError<E>) -> Option<ProbeErrorKind> {
    match error {
        RunError::TimedOut => Some(ProbeErrorKind::TimedOut),
        RunError::User(_) => None,
    }
}
