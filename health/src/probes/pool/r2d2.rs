//! r2d2's side of the algorithm for blocking pools.
//!
//! r2d2 retries failed attempts to connect until its `connection_timeout` (30 s by default), and exposes only the text of the last one.

use std::time::{Duration, Instant};

use ::r2d2::{Error, ManageConnection, Pool, PooledConnection};

use super::{
    Usage,
    blocking::{BlockingPool, BlockingPoolProbe, Failure, Waiting},
};
use crate::probes::{classify::Classify, support::label::Label};

/// How long the pool may take to return a connection or an error; then it is called again, for the error of its last attempt.
const GET_TIMEOUT: Duration = Duration::from_millis(400);

/// A driver whose connections r2d2 pools, and the query of its probe. All of it blocks.
pub(in crate::probes) trait BlockingDriver: Send + Sync + 'static {
    type Manager: ManageConnection;
    type Error: Classify;

    fn query(connection: &mut <Self::Manager as ManageConnection>::Connection) -> Result<(), Self::Error>;

    /// Whether a connection is unusable after this error of the query.
    fn is_broken(error: &Self::Error, _: &mut <Self::Manager as ManageConnection>::Connection) -> bool {
        error.breaks_connection()
    }

    /// See [`BlockingPool::writer_timeout`].
    fn writer_timeout() -> Duration {
        Duration::ZERO
    }

    /// A pool exposes neither its address nor its options.
    fn label() -> Label;
}

pub(in crate::probes) type R2d2Probe<D> = BlockingPoolProbe<R2d2<D>>;

impl<D: BlockingDriver> R2d2Probe<D> {
    pub(in crate::probes) fn of(pool: &Pool<D::Manager>) -> Self {
        Self::new(R2d2(pool.clone()))
    }
}

pub(in crate::probes) struct R2d2<D: BlockingDriver>(Pool<D::Manager>);

impl<D: BlockingDriver> Clone for R2d2<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: BlockingDriver> R2d2<D> {
    fn usage(&self) -> Usage {
        let state = self.0.state();
        let (connections, idle) = (state.connections as usize, state.idle_connections as usize);
        Usage { taken: connections.saturating_sub(idle), idle, max: self.max_size(), connected: Some(connections) }
    }

    /// Returns a connection, or the error of the pool's last attempt to open one as soon as there is one.
    fn acquire(&self, waiting: &Waiting) -> Result<PooledConnection<D::Manager>, Error> {
        let (started, limit) = (Instant::now(), self.0.connection_timeout());
        loop {
            waiting.set(self.usage().is_exhausted());
            let left = limit.saturating_sub(started.elapsed());
            match self.0.get_timeout(left.min(GET_TIMEOUT)) {
                // The cause has no accessor, but the `Debug` output contains it. Without one, an attempt is in flight. An exhausted pool
                // does not connect, so that its error is one from before.
                Err(error)
                    if left > GET_TIMEOUT && (format!("{error:?}") == "Error(None)" || self.usage().is_exhausted()) => {
                }
                Err(error) => {
                    if left > GET_TIMEOUT {
                        // It has not waited for as long as the application does.
                        waiting.set(false);
                    }
                    return Err(error);
                }
                Ok(connection) => {
                    waiting.set(false);
                    return Ok(connection);
                }
            }
        }
    }
}

impl<D: BlockingDriver> BlockingPool for R2d2<D> {
    type Error = D::Error;

    fn query(&self, waiting: &Waiting) -> Result<(), Failure<D::Error>> {
        let mut others = self.0.state().connections;
        loop {
            let mut connection = self.acquire(waiting).map_err(|error| Failure::Pool(error.into()))?;
            match D::query(&mut connection) {
                // After a restart of the server all idle connections are dead. One that works is enough.
                Err(error) if others > 0 && D::is_broken(&error, &mut connection) => others -= 1,
                result => return result.map_err(Failure::Driver),
            }
        }
    }

    fn max_size(&self) -> usize {
        self.0.max_size() as usize
    }

    fn acquire_timeout(&self) -> Duration {
        self.0.connection_timeout()
    }

    fn observe(&self) {
        self.usage().observe();
    }

    fn writer_timeout(&self) -> Duration {
        D::writer_timeout()
    }

    fn address(&self) -> Option<usize> {
        None
    }

    fn label(&self) -> Label {
        D::label()
    }
}
