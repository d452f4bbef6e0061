//! bb8's side of the algorithm for pools.
//!
//! bb8 retries failed attempts to connect, and returns no error before its own timeout. Connections cannot be removed from it: a silent
//! one returns to the pool, unless its driver can mark it as broken or notices it by itself.

use std::{future::Future, future::pending, pin::Pin, time::Duration};

use bb8::{ManageConnection, PooledConnection, RunError};
use tokio::time::timeout;

use super::{
    Pool, TakeError, Usage,
    driver::{Driver, PooledProbe},
};
use crate::{
    error::ProbeErrorKind,
    probes::{classify::Classify, support::label::Label},
};

/// How long an abandoned attempt goes on. The driver of redis fails on a silent connection after 500 ms, and the pool closes a
/// connection only if its own test of it fails.
const ABANDONED_TIMEOUT: Duration = Duration::from_secs(1);

pub(in crate::probes) type Bb8Probe<D, M> = PooledProbe<Bb8<D, M>, D>;

impl<D, M> Bb8Probe<D, M>
where
    D: Driver,
    M: ManageConnection<Connection = D::Connection, Error = D::Error>,
{
    pub(in crate::probes) fn new(driver: D, pool: &bb8::Pool<M>, label: Label) -> Self {
        Self::of_pool(Bb8 { driver, pool: pool.clone(), label }, driver)
    }
}

pub(in crate::probes) struct Bb8<D, M: ManageConnection> {
    driver: D,
    pool: bb8::Pool<M>,
    label: Label,
}

impl<D: Driver, M: ManageConnection> Clone for Bb8<D, M> {
    fn clone(&self) -> Self {
        Self { driver: self.driver, pool: self.pool.clone(), label: self.label.clone() }
    }
}

/// A connection with a query in flight. Unless it is released, it is invalidated when it is dropped.
pub(in crate::probes) struct Taken<D: Driver, M: ManageConnection<Connection = D::Connection>> {
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

impl<D, M> Pool for Bb8<D, M>
where
    D: Driver,
    M: ManageConnection<Connection = D::Connection, Error = D::Error>,
{
    type Connection = D::Connection;
    type Taken = Taken<D, M>;
    type Error = D::Error;

    const RETRIES_SILENTLY: bool = true;
    const QUERIES: u32 = D::QUERIES;
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
        // Only a connection outside the pool returns the error of opening a file.
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
        tokio::spawn(timeout(ABANDONED_TIMEOUT, attempt));
    }

    fn label(&self) -> Label {
        self.label.clone()
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
            // It has no cause. A connection outside the pool returns it.
            Err(RunError::TimedOut) => pending().await,
        }
    }
}

impl<E: Classify> Classify for RunError<E> {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::TimedOut => ProbeErrorKind::TimedOut,
            Self::User(error) => error.classify(),
        }
    }
}
