//! `mysql::Pool`, the blocking driver.
//!
//! Each run executes `SELECT 1` on a connection of the application's own pool, on one thread of tokio's blocking pool. A query that hangs
//! cannot be cancelled: no other one starts until it returns, so it blocks one thread, however often the check is polled. Before that the
//! pool pings the connection, which is another round trip, unless its options have `with_check_health(false)`. The connection returns to
//! the pool without the reset that the pool sends otherwise (`COM_RESET_CONNECTION`), because the statement leaves nothing to reset. A
//! check never costs the server a connection outside the pool.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, shutting down | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no such database, no permission, blocked host, TLS | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response to the query or to the attempt to connect | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | all connections of the pool are in use, for no longer than 30 s; or the server is full, and the pool has connections | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | none has become free for 30 s | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | the server is full, and the pool has no connection | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! While all connections are in use, a busy server and a frozen one look the same, until none has become free for 30 s. The application
//! waits longer: `get_conn` waits without a limit, so call `try_get_conn`. The pool is locked while it opens a connection, so one attempt
//! that hangs blocks all other users of the pool; `tcp_connect_timeout_ms` and `read_timeout` in the options limit that.
//!
//! A query on a connection that has died silently, behind a firewall for example, returns only after `read_timeout`, which has no default, or
//! when the operating system closes the connection. Until then the check is DOWN, although other connections of the pool may work: set
//! `read_timeout`.
//!
//! `Pool::new` opens the minimum number of connections (10 by default), and fails if it cannot.
//!
//! A pool does not expose its address, so messages do not contain one. The maximum number of connections is a value of each run,
//! `connections_max`. How many are in use is known only while all are: `connections_in_use` and `connections_idle`.
//!
//! # Examples
//!
//! ```no_run
//! use health::HealthCheck;
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     orders: mysql::Pool, // database.orders
//! }
//!
//! # fn main() -> Result<(), mysql::Error> {
//! let state = AppState { orders: mysql::Pool::new("mysql://app:secret@10.0.0.7/orders")? };
//! # drop(state);
//! # Ok(())
//! # }
//! ```

use std::time::{Duration, Instant};

use ::mysql::{DriverError, Error, Pool, PooledConn, prelude::Queryable as _};

use super::sqlstate::classify_mysql_error;
use crate::{
    error::{ProbeErrorKind, classify_io},
    observe::observe,
    probe::library_probe,
    probes::{
        classify::Classify,
        pool::{
            ALL_IN_USE,
            blocking::{BlockingPool, BlockingPoolProbe, Failure, Waiting},
        },
        support::{debug_fields::DebugFields, label::Label},
    },
};

/// After this time without a free connection, the pool is unusable. The pool itself has no such limit; it is the default of r2d2.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the pool may wait for a free connection before it returns, so that [`ACQUIRE_TIMEOUT`] is noticed.
const GET_TIMEOUT: Duration = Duration::from_millis(400);

library_probe! { "database", Pool => |pool: &Pool| BlockingPoolProbe::new(MysqlPool(pool.clone())) }

#[derive(Clone)]
struct MysqlPool(Pool);

impl MysqlPool {
    fn acquire(&self, waiting: &Waiting) -> Result<PooledConn, Error> {
        let started = Instant::now();
        let mut limit = Duration::ZERO;
        loop {
            match self.0.try_get_conn(limit) {
                Err(Error::DriverError(DriverError::Timeout)) if started.elapsed() < ACQUIRE_TIMEOUT => {
                    waiting.set(true);
                    limit = GET_TIMEOUT;
                }
                Err(error) => return Err(error),
                Ok(connection) => {
                    waiting.set(false);
                    return Ok(connection);
                }
            }
        }
    }

    /// Reads a number from the `Debug` output, because a pool has no accessors.
    fn number(&self, field: &str) -> usize {
        DebugFields::of(&self.0).number(field).unwrap_or_default().into()
    }
}

impl BlockingPool for MysqlPool {
    type Error = Error;

    fn query(&self, waiting: &Waiting) -> Result<(), Failure<Error>> {
        let mut others = self.number("count: ");
        loop {
            let mut connection = self.acquire(waiting).map_err(|error| match error {
                Error::DriverError(DriverError::Timeout) => Failure::Pool(ALL_IN_USE.into()),
                error if error.is_full() && self.number("count: ") == 0 => Failure::NoConnection(error),
                error => Failure::Driver(error),
            })?;
            let result = connection.query_drop("SELECT 1");
            // The pool closes a connection that fails to reset, as one does that is dead or that a late response may still arrive on.
            let is_usable = !result.as_ref().is_err_and(|error| error.breaks_connection() || error.is_timeout());
            connection.reset_connection(!is_usable);
            match result {
                // After a restart of the server all idle connections are dead. One that works is enough.
                Err(error) if others > 0 && error.breaks_connection() => others -= 1,
                result => return result.map_err(Failure::Driver),
            }
        }
    }

    fn max_size(&self) -> usize {
        self.number("max: ")
    }

    fn acquire_timeout(&self) -> Duration {
        ACQUIRE_TIMEOUT
    }

    fn observe(&self) {
        observe("connections_max", i64::try_from(self.max_size()).unwrap_or(i64::MAX));
    }

    fn address(&self) -> Option<usize> {
        None
    }

    fn label(&self) -> Label {
        Label::new("mysql")
    }
}

impl Classify for Error {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::IoError(error) => classify_io(error),
            Self::DriverError(DriverError::ConnectTimeout | DriverError::Timeout) => ProbeErrorKind::TimedOut,
            Self::DriverError(DriverError::CouldNotConnect(_) | DriverError::SetupError) => ProbeErrorKind::Unreachable,
            Self::DriverError(
                DriverError::TlsNotSupported
                | DriverError::UnknownAuthPlugin(_)
                | DriverError::OldMysqlPasswordDisabled
                | DriverError::CleartextPluginDisabled
                | DriverError::InvalidParsecSalt,
            ) => ProbeErrorKind::Rejected,
            Self::MySqlError(error) => classify_mysql_error(error.code, &error.state, &error.message),
            Self::CodecError(_)
            | Self::DriverError(_)
            | Self::UrlError(_)
            | Self::FromValueError(_)
            | Self::FromRowError(_) => ProbeErrorKind::Failed,
            // Only of TLS, whose variant depends on a feature of the driver.
            #[allow(unreachable_patterns, reason = "without TLS there is no other variant")]
            _ => ProbeErrorKind::Rejected,
        }
    }
}
