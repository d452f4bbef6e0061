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
    panic::resume_unwind,
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

use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        pool::{Usage, exhausted},
        support::{hedge::HEDGE_DELAY, label::Label},
    },
};

/// How long the pool may take to return a connection or an error; then it is called again, for the error of its last attempt.
const GET_TIMEOUT: Duration = Duration::from_millis(400);

library_probe! {
    "database" <T>,
    Pool<ConnectionManager<T>> where { T: R2D2Connection + Send + 'static } => PoolProbe::of
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
    fn of(pool: &Pool<ConnectionManager<T>>) -> Self {
        Self { pool: pool.clone(), queries: Mutex::default() }
    }

    async fn run(&self) -> Result<(), ProbeError> {
        self.usage().observe();
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

    fn usage(&self) -> Usage {
        let state = self.pool.state();
        let (connections, idle) = (state.connections as usize, state.idle_connections as usize);
        Usage {
            taken: connections.saturating_sub(idle),
            idle,
            max: self.pool.max_size() as usize,
            connected: Some(connections),
        }
    }

    fn all_in_use(&self) -> bool {
        self.usage().is_exhausted()
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

impl<T: R2D2Connection + Send + 'static> LibraryProbe for PoolProbe<T> {
    async fn probe(&self) -> Result<(), ProbeError> {
        self.run().await
    }

    fn resource(&self) -> Option<String> {
        Some(label::<T::Backend>().to_string())
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
    error.breaks_connection() || connection.ping().is_err()
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
        let label = label::<T::Backend>();
        match self {
            Self::Pool(error) => label.error_of_kind(ProbeErrorKind::Unreachable, error),
            Self::Driver(error) => label.error(error),
            Self::Cancelled => label.error_of_kind(ProbeErrorKind::Failed, "the runtime was shut down"),
        }
    }
}

const SQLITE: &str = "diesel::sqlite::backend::Sqlite";

/// Returns what messages call the database of a backend. Backends have no names, but their types have.
pub(super) fn label<B: Backend>() -> Label {
    Label::new(match type_name::<B>() {
        "diesel::pg::backend::Pg" => "postgres",
        "diesel::mysql::backend::Mysql" => "mysql",
        SQLITE => "sqlite",
        _ => "the database",
    })
}

pub(super) fn is_sqlite<B: Backend>() -> bool {
    type_name::<B>() == SQLITE
}

/// Returns the query. SQLite reads its file only in a read transaction, which the query begins.
pub(super) fn sql<B: Backend>() -> &'static str {
    if is_sqlite::<B>() { "SELECT count(*) FROM sqlite_master" } else { "SELECT 1" }
}

/// Whether SQLite returned `SQLITE_BUSY`. Diesel drops the code, and the text is a constant of SQLite (`sqlite3_errstr`).
fn is_locked(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, information) if information.message() == "database is locked")
}

impl Classify for Error {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            _ if is_locked(self) => ProbeErrorKind::Saturated,
            Self::DatabaseError(DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection, _) => {
                ProbeErrorKind::Unreachable
            }
            Self::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _) => ProbeErrorKind::ReadOnly,
            _ => ProbeErrorKind::Failed,
        }
    }

    fn message(&self, name: &str) -> String {
        if is_locked(self) { "sqlite is locked by a writer".to_owned() } else { self.classify().message(name) }
    }
}

impl Classify for ConnectionError {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::BadConnection(_) => ProbeErrorKind::Unreachable,
            Self::CouldntSetupConfiguration(error) => match error.classify() {
                // The server responded with an error.
                ProbeErrorKind::Failed => ProbeErrorKind::Rejected,
                kind => kind,
            },
            _ => ProbeErrorKind::Failed,
        }
    }
}

impl Classify for PoolError {
    fn classify(&self) -> ProbeErrorKind {
        ProbeErrorKind::TimedOut
    }
}
