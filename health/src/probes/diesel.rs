//! Blocking `diesel::r2d2::Pool`, and how errors of diesel are classified.
//!
//! Each run executes `SELECT 1`, on SQLite a query that reads the file, on a connection of the application's own pool, on one thread of
//! tokio's blocking pool. A query that hangs cannot be cancelled: no other one starts until it returns, so it blocks one thread, however
//! often the check is polled. Before that the pool executes `SELECT 1`, which is another round trip, unless it is built with
//! `test_on_check_out(false)`.
//!
//! This pool does not use the algorithm of the others, because r2d2 opens no connection outside it and exposes only the text of a failed
//! attempt to connect. So a check never costs the server a connection outside the pool.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | the pool cannot connect: refused, wrong password, no such database | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the connection breaks, and no other one works | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no response to the query, on one connection | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | all connections of the pool are in use, for no longer than its own `connection_timeout` | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | SQLite: locked by another writer, and its `busy_timeout` (0 by default) is shorter than the check's limit | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | read-only transaction | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | SQLite: the file is not a database; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! Failures are distinguished less exactly than with other pools. A wrong password is [`ProbeErrorKind::Unreachable`] too; the text of the
//! error is in the log. While all connections are in use, a busy server and a frozen one look the same, until none has become free for the
//! pool's `connection_timeout` (30 s by default). Then the application's operations fail too, and the check is DOWN. SQLite continues to read
//! a file that was removed or replaced, which is not detected, because the pool does not expose its path. A pool does not expose its
//! address, so messages do not contain one.

use std::{
    any::type_name,
    error::Error as StdError,
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use diesel::{
    ConnectionError,
    backend::Backend,
    connection::SimpleConnection as _,
    r2d2::{ConnectionManager, Pool, PoolError, R2D2Connection},
    result::{DatabaseErrorKind, Error},
};
use tokio::{
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{driver::HEDGE_DELAY, pool::exhausted};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

/// How long the pool may take to return a connection or an error; then it is called again, for the error of its last attempt.
const GET_TIMEOUT: Duration = Duration::from_millis(400);

impl<T: R2D2Connection + Send + 'static> Probe for Pool<ConnectionManager<T>> {
    const GROUP: &'static str = "database";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        PoolProbe::new(self.clone()).probe().await
    }

    fn resource(&self) -> Option<String> {
        Some(name::<T::Backend>().to_owned())
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(PoolProbe::new(self.clone())))
    }
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        Self::from_error(error)
    }
}

impl From<ConnectionError> for ProbeError {
    fn from(error: ConnectionError) -> Self {
        Self::from_error(error)
    }
}

impl From<PoolError> for ProbeError {
    fn from(error: PoolError) -> Self {
        Self::from_error(error)
    }
}

/// A pool, and what its probe remembers between runs.
struct PoolProbe<T: R2D2Connection + Send + 'static> {
    pool: Pool<ConnectionManager<T>>,
    queries: Mutex<Queries>,
}

#[derive(Default)]
struct Queries {
    /// Stays in flight if the run that started it is dropped.
    in_flight: Option<InFlightQuery>,
    /// The last query got no connection for as long as the application would wait for one.
    starved: bool,
}

struct InFlightQuery {
    task: JoinHandle<Result<(), Failure>>,
    since: Instant,
    /// All connections were in use when it began.
    all_in_use: bool,
}

/// Why a query fails, before it has a public message.
enum Failure {
    /// The pool returned no connection.
    Pool(PoolError),
    Driver(Error),
    /// The runtime was shut down.
    Cancelled,
}

impl<T: R2D2Connection + Send + 'static> PoolProbe<T> {
    fn new(pool: Pool<ConnectionManager<T>>) -> Self {
        Self { pool, queries: Mutex::default() }
    }

    async fn run(&self) -> Result<(), ProbeError> {
        let queries = &mut *self.queries.lock().await;
        if queries.in_flight.as_ref().is_some_and(|query| query.task.is_finished()) {
            // It ended between the runs, so its result is outdated.
            let _ = queries.finish().await;
        }
        let query = queries.in_flight.get_or_insert_with(|| {
            let pool = self.pool.clone();
            InFlightQuery {
                all_in_use: self.all_in_use(),
                since: Instant::now(),
                task: spawn_blocking(move || query(&pool)),
            }
        });
        // Later all may be in use because the query itself hangs on a connection that became free.
        let waits = query.all_in_use && query.since.elapsed() < self.pool.connection_timeout();
        if waits && !queries.starved {
            let in_time = timeout(HEDGE_DELAY, queries.finish()).await;
            match in_time {
                Ok(result) => return result.map_err(Failure::into_probe_error::<T>),
                Err(_) if self.all_in_use() => return Err(exhausted(self.pool.max_size() as usize)),
                Err(_) => {}
            }
        }
        queries.finish().await.map_err(Failure::into_probe_error::<T>)
    }

    fn all_in_use(&self) -> bool {
        let state = self.pool.state();
        state.connections >= self.pool.max_size() && state.idle_connections == 0
    }
}

impl Queries {
    /// Waits for the query in flight. If this future is dropped, the query stays in flight.
    async fn finish(&mut self) -> Result<(), Failure> {
        let Some(query) = &mut self.in_flight else { return Err(Failure::Cancelled) };
        let result = (&mut query.task).await;
        let all_in_use = query.all_in_use;
        self.in_flight = None;
        let result = match result {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(payload) => resume_unwind(payload),
                Err(_) => Err(Failure::Cancelled),
            },
        };
        self.starved = all_in_use && matches!(result, Err(Failure::Pool(_)));
        result
    }
}

impl<T: R2D2Connection + Send + 'static> DynProbe for PoolProbe<T> {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(self.run())
    }

    fn resource(&self) -> Option<String> {
        self.pool.resource()
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// Executes the query on a connection of the pool. Blocks.
fn query<T: R2D2Connection + Send + 'static>(pool: &Pool<ConnectionManager<T>>) -> Result<(), Failure> {
    let mut others = pool.state().connections;
    loop {
        let mut connection = connection(pool).map_err(Failure::Pool)?;
        match connection.batch_execute(sql::<T::Backend>()) {
            // After a restart of the server all idle connections are dead. One that works is enough.
            Err(error) if others > 0 && is_broken(&error, &mut *connection) => others -= 1,
            result => return result.map_err(Failure::Driver),
        }
    }
}

/// Whether a connection is unusable. If the server has ended it with a message, the error is that message, of any kind, and only a second
/// query shows that the connection is closed.
fn is_broken<T: R2D2Connection>(error: &Error, connection: &mut T) -> bool {
    classify_error(error) == ProbeErrorKind::Unreachable || connection.ping().is_err()
}

/// Returns a connection, or the error of the pool's last attempt to open one as soon as there is one. The pool itself retries until its
/// `connection_timeout`.
fn connection<T: R2D2Connection + Send + 'static>(
    pool: &Pool<ConnectionManager<T>>,
) -> Result<diesel::r2d2::PooledConnection<ConnectionManager<T>>, PoolError> {
    let (started, limit) = (Instant::now(), pool.connection_timeout());
    loop {
        let left = limit.saturating_sub(started.elapsed());
        match pool.get_timeout(left.min(GET_TIMEOUT)) {
            // The cause has no accessor, but the `Debug` output contains it. Without one, an attempt is in flight.
            Err(error) if left > GET_TIMEOUT && format!("{error:?}") == "Error(None)" => {}
            result => return result,
        }
    }
}

impl Failure {
    fn into_probe_error<T: R2D2Connection>(self) -> ProbeError {
        let name = name::<T::Backend>();
        match self {
            Self::Pool(error) => {
                ProbeError::new(ProbeErrorKind::Unreachable, ProbeErrorKind::Unreachable.message(name))
                    .with_source(error)
            }
            Self::Driver(error) => ProbeError::new(classify_error(&error), message(&error, name)).with_source(error),
            Self::Cancelled => ProbeError::new(ProbeErrorKind::Failed, ProbeErrorKind::Failed.message(name)),
        }
    }
}

/// Returns what messages call the database of a backend. Backends have no names, but their types have.
pub(super) fn name<B: Backend>() -> &'static str {
    match type_name::<B>() {
        "diesel::pg::backend::Pg" => "postgres",
        "diesel::mysql::backend::Mysql" => "mysql",
        "diesel::sqlite::backend::Sqlite" => SQLITE,
        _ => "the database",
    }
}

const SQLITE: &str = "sqlite";

pub(super) fn is_sqlite<B: Backend>() -> bool {
    name::<B>() == SQLITE
}

/// Returns the query. SQLite reads its file only in a read transaction, which the query begins.
pub(super) fn sql<B: Backend>() -> &'static str {
    if is_sqlite::<B>() { "SELECT count(*) FROM sqlite_master" } else { "SELECT 1" }
}

/// Returns the public message of an error.
pub(super) fn message(error: &Error, name: &str) -> String {
    if is_locked(error) { "sqlite is locked by a writer".to_owned() } else { classify_error(error).message(name) }
}

/// Whether SQLite returned `SQLITE_BUSY`. Diesel drops the code, and the text is a constant of SQLite (`sqlite3_errstr`).
fn is_locked(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, information) if information.message() == "database is locked")
}

/// Returns the kind of an error of diesel, if it is one.
pub(super) fn classify(error: &(dyn StdError + 'static)) -> Option<ProbeErrorKind> {
    if let Some(error) = error.downcast_ref() {
        return Some(classify_error(error));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(classify_connection(error));
    }
    error.is::<PoolError>().then_some(ProbeErrorKind::TimedOut)
}

/// Returns the kind of a query's error.
pub(super) fn classify_error(error: &Error) -> ProbeErrorKind {
    match error {
        _ if is_locked(error) => ProbeErrorKind::Saturated,
        Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection, _) => {
            ProbeErrorKind::Unreachable
        }
        Error::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _) => ProbeErrorKind::ReadOnly,
        _ => ProbeErrorKind::Failed,
    }
}

/// Returns the kind of a failure to connect.
pub(super) fn classify_connection(error: &ConnectionError) -> ProbeErrorKind {
    match error {
        ConnectionError::BadConnection(_) => ProbeErrorKind::Unreachable,
        ConnectionError::CouldntSetupConfiguration(error) => match classify_error(error) {
            // The server responded with an error.
            ProbeErrorKind::Failed => ProbeErrorKind::Rejected,
            kind => kind,
        },
        _ => ProbeErrorKind::Failed,
    }
}
