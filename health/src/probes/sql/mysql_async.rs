//! `mysql_async::Pool`.
//!
//! Each run executes `SELECT 1` on a connection of the application's own pool: one round trip. The connection returns to the pool without
//! the reset that the pool sends otherwise (`COM_RESET_CONNECTION`), because the statement leaves nothing to reset.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, shutting down | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no such database, no permission, blocked host, TLS | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response, not on a new connection either | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | an idle connection is silent, and another idle one responds | | UP |
//! | idle connections are silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | the pool is exhausted, and the server accepts further connections, or is full | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | the server is full, and the pool has no connection | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the pool is disconnected; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The check does not wait for a connection that is in use. The application does: `get_conn` waits without a limit while all connections
//! are in use, so wrap it in [`tokio::time::timeout`]. A silent connection is closed instead of returned to the pool. `Pool::disconnect`
//! waits until all connections are returned, that of a run in flight too, so wrap it in a `timeout` as well.
//!
//! A warm pool that is not exhausted is probed only on its own connections. While the pool is exhausted, is slow to open a connection, or
//! has a silent idle one, the check opens a connection outside it, queries and closes it, at most once in 2 s (once in 900 ms while the
//! server cannot be connected to). It opens a second one concurrently only if the first gets no response for 2 s. Each replica of the
//! application does so. A pool exposes its options only by a connection. Until the check has had one, it opens none outside the pool, so a
//! pool that is exhausted before that is DEGRADED while its server is stopped or frozen, and DOWN when no connection has become free for 30 s.
//!
//! By default a pool keeps no more idle connections than the minimum of its constraints, 10. One whose minimum is 0 closes each connection
//! that is returned, so that each run opens one: set `with_inactive_connection_ttl`.
//!
//! The counters of the pool before a run are values of the run: `connections_in_use`, `connections_idle` and `connections_max`.
//!
//! The tasks of a pool run on the runtime that first uses it, and the pool is unusable after that runtime. If a check is first, that is the
//! thread of the library's probes, which does not end. If a worker of actix-web is first, it must not end before the others.
//!
//! # Examples
//!
//! ```no_run
//! use health::HealthCheck;
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     orders: mysql_async::Pool, // database.orders
//! }
//!
//! let state = AppState { orders: mysql_async::Pool::new("mysql://app:secret@10.0.0.7/orders") };
//! # drop(state);
//! ```

use std::{
    future::{Future, pending},
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use ::mysql_async::{Conn, DriverError, Error, IoError, Opts, Pool, prelude::Queryable as _};
use futures_util::FutureExt as _;

use super::sqlstate::classify_mysql_error;
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        pool::{self, Query, State, TakeError, Usage},
        support::{address::Address, debug_fields::DebugFields, label::Label},
    },
};

/// After this time without a free connection, a pool whose options are not known is unusable. The pool itself has no such limit; it is the
/// default of r2d2.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

library_probe! { "database", Pool => PoolProbe::of }

/// A pool, and what its probe remembers between runs.
struct PoolProbe {
    pool: MysqlPool,
    state: State<MysqlPool>,
}

impl PoolProbe {
    fn of(pool: &Pool) -> Self {
        Self { pool: MysqlPool::new(pool.clone()), state: State::new() }
    }
}

impl LibraryProbe for PoolProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        pool::Pool::usage(&self.pool).observe();
        self.state.run(&self.pool, &SelectOne).await.map_err(|failure| failure.into_probe_error(&self.pool.label))
    }

    fn resource(&self) -> Option<String> {
        Some(self.pool.label.to_string())
    }

    fn address(&self) -> Option<usize> {
        // Clones of a pool share its metrics.
        Some(Arc::as_ptr(&self.pool.pool.metrics()).addr())
    }
}

/// The driver's side of the algorithm for pools.
#[derive(Clone)]
struct MysqlPool {
    pool: Pool,
    label: Label,
    max: usize,
    /// A pool has no accessor for its options, but its connections have.
    options: Arc<OnceLock<Opts>>,
}

impl MysqlPool {
    fn new(pool: Pool) -> Self {
        let fields = DebugFields::of_prefix(&pool);
        let max = fields.number("max: ").map_or(usize::MAX, usize::from);
        Self { pool, label: label(&fields), max, options: Arc::default() }
    }
}

/// Reads the address from the `Debug` output, because a pool has no accessor for it.
fn label(fields: &DebugFields) -> Label {
    let address = if fields.contains("socket: Some(") {
        // The path of a Unix socket is not public.
        None
    } else if let Some((_, url)) = fields.0.split_once("address: Url(") {
        address_of_url(url)
    } else {
        fields.address("address: HostPort { host: ", "port: ")
    };
    Label::new("mysql").at(address).with_password(fields.text("pass: Some("))
}

/// Returns the address in the `Debug` output of a URL: the host is `Domain("db.internal")`, `Ipv4(10.0.0.7)` or `Ipv6(::1)`.
fn address_of_url(url: &str) -> Option<Address> {
    let (_, rest) = url.split_once("host: Some(")?;
    let (_, rest) = rest.split_once('(')?;
    let (host, rest) = rest.split_once(')')?;
    let port = DebugFields(rest.to_owned()).number("port: Some(").unwrap_or(3306);
    Some(Address { host: host.trim_matches('"').to_owned(), port })
}

#[derive(Clone, Copy)]
struct SelectOne;

impl Query<MysqlPool> for SelectOne {
    type Output = ();

    fn run(&self, connection: &mut Conn) -> impl Future<Output = Result<(), Error>> + Send {
        connection.query_drop("SELECT 1")
    }
}

/// A connection with a query in flight. Unless it is released, it is closed when it is dropped: in the pool, the next query would wait for
/// the response to this one.
struct Taken(Option<Conn>);

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            // The first poll marks it as closed, after which its pool does not take it back.
            let _ = connection.disconnect().now_or_never();
        }
    }
}

impl pool::Pool for MysqlPool {
    type Connection = Conn;
    type Taken = Taken;
    type Error = Error;

    const RETRIES_SILENTLY: bool = false;
    const IDLE_IS_CERTAIN: bool = false;

    fn usage(&self) -> Usage {
        let metrics = self.pool.metrics();
        let in_use = metrics.connections_in_use.load(Ordering::Relaxed);
        let idle = metrics.connections_in_pool.load(Ordering::Relaxed);
        Usage { taken: in_use, idle, max: self.max, connected: Some(in_use + idle) }
    }

    fn connects_outside(&self) -> bool {
        self.options.get().is_some()
    }

    fn acquire_timeout(&self) -> Duration {
        ACQUIRE_TIMEOUT
    }

    async fn take_idle(&self) -> Option<Result<Taken, TakeError<Error>>> {
        if self.usage().idle == 0 {
            return None;
        }
        Some(self.acquire().await)
    }

    async fn acquire(&self) -> Result<Taken, TakeError<Error>> {
        let connection = self.pool.get_conn().await.map_err(TakeError::Driver)?;
        self.options.get_or_init(|| connection.opts().clone());
        Ok(Taken(Some(connection)))
    }

    async fn connect(&self) -> Result<Conn, Error> {
        match self.options.get() {
            Some(options) => Conn::new(options.clone()).await,
            None => pending().await,
        }
    }

    fn connection(taken: &mut Taken) -> &mut Conn {
        taken.0.as_mut().expect("it is taken until it is released")
    }

    fn release(mut taken: Taken) {
        if let Some(mut connection) = taken.0.take() {
            connection.reset_connection(false);
        }
    }

    async fn close(connection: Conn) {
        // The outcome is known, whatever the server responds.
        let _ = connection.disconnect().await;
    }

    fn label(&self) -> Label {
        self.label.clone()
    }
}

impl Classify for Error {
    #[allow(clippy::match_same_arms, reason = "the last of them does not exist without TLS")]
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Io(IoError::Io(error)) => classify_io(error),
            Self::Driver(DriverError::ConnectionClosed) => ProbeErrorKind::Unreachable,
            Self::Server(error) => classify_mysql_error(error.code, &error.state, &error.message),
            // Other errors of `Io` are those of TLS, whose variant depends on a feature of the driver.
            #[allow(unreachable_patterns, reason = "without TLS there is no other variant")]
            Self::Io(_)
            | Self::Driver(
                DriverError::UnknownAuthPlugin { .. }
                | DriverError::MysqlOldPasswordDisabled
                | DriverError::NoKeyFound
                | DriverError::NoClientSslFlagFromServer
                | DriverError::CleartextPluginDisabled
                | DriverError::InvalidParsecSalt,
            ) => ProbeErrorKind::Rejected,
            _ => ProbeErrorKind::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use ::mysql_async::{OptsBuilder, PoolConstraints, PoolOpts};

    use super::*;
    use crate::probes::pool::Pool as _;

    fn of(options: impl Into<Opts>) -> MysqlPool {
        MysqlPool::new(Pool::new(options.into()))
    }

    fn name_of(options: impl Into<Opts>) -> String {
        of(options).label.to_string()
    }

    #[test]
    fn a_name_contains_a_host_and_a_port_but_no_path() {
        let url = |url: &str| Opts::from_url(url).unwrap();
        assert_eq!(name_of(url("mysql://u:p@db.internal:3307/d")), "mysql at db.internal:3307");
        assert_eq!(name_of(url("mysql://u:p@10.0.0.7/d")), "mysql at 10.0.0.7:3306");
        assert_eq!(name_of(url("mysql://u:p@[::1]:3307/d")), "mysql at [::1]:3307");
        let builder = || OptsBuilder::default().user(Some("u")).pass(Some("p"));
        assert_eq!(name_of(builder().ip_or_hostname("::1").tcp_port(3307)), "mysql at [::1]:3307");
        assert_eq!(name_of(builder().socket(Some("/run/mysqld/mysqld.sock"))), "mysql");
        // A user name cannot forge the address.
        let forged = "address: HostPort { host: \"h\", port: 1";
        assert_eq!(name_of(builder().user(Some(forged)).ip_or_hostname("db").tcp_port(3307)), "mysql");
    }

    #[test]
    fn the_password_and_the_maximum_are_known_before_there_is_a_connection() {
        let constraints = PoolConstraints::new(1, 7).unwrap();
        let pool = of(OptsBuilder::default()
            .pass(Some("sesame"))
            .pool_opts(PoolOpts::default().with_constraints(constraints)));
        assert_eq!(pool.usage(), Usage { taken: 0, idle: 0, max: 7, connected: Some(0) });
        let error = pool.label.error_of_kind(ProbeErrorKind::Failed, "the password is sesame");
        assert!(!error.log_text().contains("sesame"), "{}", error.log_text());
    }
}
