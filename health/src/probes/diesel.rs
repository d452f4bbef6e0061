//! Blocking `diesel::r2d2::Pool`, and how errors of diesel are told apart.
//!
//! Each run executes `SELECT 1`, on SQLite a query that reads the file, on a connection of the application's own pool. That
//! blocks, so it is done on tokio's blocking pool. A query that hangs there cannot be cancelled: until it returns no other one
//! is begun, so that it costs one thread however often the check is polled. The pool executes `SELECT 1` before it hands a
//! connection out, which is a round trip of its own, unless it is built with `test_on_check_out(false)`.
//!
//! This pool does not use the algorithm of the others, because r2d2 gives no connection outside it and tells no more of a failed
//! attempt to connect than its text. So a probe never costs the server a connection outside the pool.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | no connection can be had: refused, wrong password, no such database | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the connection breaks, and no other one works | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no response to the query, on one connection | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | all connections of the pool are in use, for no longer than its own `connection_timeout` | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | SQLite: locked by another writer, and its `busy_timeout` (0 by default) is shorter than the check's limit | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | read-only transaction | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | SQLite: the file is not a database; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! Much is less exact here than elsewhere. The text of a failed attempt to connect is logged, but a wrong password is
//! [`ProbeErrorKind::Unreachable`] too. While all connections are in use, a busy server and a frozen one look the same, until the
//! pool's `connection_timeout` (30 s by default) has passed without one that came free. Then the application gets none either, and
//! the check is DOWN. SQLite goes on reading a file that was removed or replaced, and the pool does not expose its path: that is
//! not detected. A pool does not expose where it connects to, so the messages have no address.

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

use super::{driver::PATIENCE, pool::exhausted};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

/// How long the pool is waited for before it is asked why it gives no connection.
const REASON: Duration = Duration::from_millis(400);

impl<T: R2D2Connection + Send + 'static> Probe for Pool<ConnectionManager<T>> {
    const GROUP: &'static str = "database";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        Kept::new(self.clone()).probe().await
    }

    fn resource(&self) -> Option<String> {
        Some(name::<T::Backend>().to_owned())
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Kept::new(self.clone())))
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

/// A pool and the question that is under way on it.
struct Kept<T: R2D2Connection + Send + 'static> {
    pool: Pool<ConnectionManager<T>>,
    asking: Mutex<Asking>,
}

#[derive(Default)]
struct Asking {
    /// Outlives the round that began it, if that is given up.
    question: Option<Question>,
    /// The last one got no connection in all the time that the application would wait for one.
    starved: bool,
}

struct Question {
    answer: JoinHandle<Result<(), Failure>>,
    since: Instant,
    /// When it began, all connections were in use.
    all_in_use: bool,
}

/// Why the question has no answer.
enum Failure {
    /// The pool gave no connection.
    Pool(PoolError),
    Driver(Error),
    /// The runtime ended before the question.
    Dropped,
}

impl<T: R2D2Connection + Send + 'static> Kept<T> {
    fn new(pool: Pool<ConnectionManager<T>>) -> Self {
        Self { pool, asking: Mutex::default() }
    }

    async fn asked(&self) -> Result<(), ProbeError> {
        let asking = &mut *self.asking.lock().await;
        if asking.question.as_ref().is_some_and(|question| question.answer.is_finished()) {
            // That was an answer to an earlier round, which has been given up.
            let _ = asking.answer().await;
        }
        let question = asking.question.get_or_insert_with(|| {
            let pool = self.pool.clone();
            Question {
                all_in_use: self.all_in_use(),
                since: Instant::now(),
                answer: spawn_blocking(move || question(&pool)),
            }
        });
        // Those that came free meanwhile may have been taken by a question that hangs: only while it waits all are in use.
        let waits = question.all_in_use && question.since.elapsed() < self.pool.connection_timeout();
        if waits && !asking.starved {
            let in_time = timeout(PATIENCE, asking.answer()).await;
            match in_time {
                Ok(answer) => return answer.map_err(Failure::public::<T>),
                Err(_) if self.all_in_use() => return Err(exhausted(self.pool.max_size() as usize)),
                Err(_) => {}
            }
        }
        asking.answer().await.map_err(Failure::public::<T>)
    }

    fn all_in_use(&self) -> bool {
        let state = self.pool.state();
        state.connections >= self.pool.max_size() && state.idle_connections == 0
    }
}

impl Asking {
    /// Waits for the answer to the question that is under way. If the waiting is dropped, the question stays.
    async fn answer(&mut self) -> Result<(), Failure> {
        let Some(question) = &mut self.question else { return Err(Failure::Dropped) };
        let answer = (&mut question.answer).await;
        let all_in_use = question.all_in_use;
        self.question = None;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                Ok(payload) => resume_unwind(payload),
                Err(_) => Err(Failure::Dropped),
            },
        };
        self.starved = all_in_use && matches!(answer, Err(Failure::Pool(_)));
        answer
    }
}

impl<T: R2D2Connection + Send + 'static> DynProbe for Kept<T> {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(self.asked())
    }

    fn resource(&self) -> Option<String> {
        self.pool.resource()
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// Asks on a connection of the pool, and blocks until there is an answer.
fn question<T: R2D2Connection + Send + 'static>(pool: &Pool<ConnectionManager<T>>) -> Result<(), Failure> {
    let mut others = pool.state().connections;
    loop {
        let mut connection = connection(pool).map_err(Failure::Pool)?;
        match connection.batch_execute(sql::<T::Backend>()) {
            // After a restart of the server all idle connections are dead, and each says so at once. One that answers is enough.
            Err(error) if others > 0 && is_dead(&error, &mut *connection) => others -= 1,
            result => return result.map_err(Failure::Driver),
        }
    }
}

/// Whether a connection is of no more use. Where the server has ended it with a message, the error is that message, of whatever
/// kind; only a second query shows that there is no connection any more.
fn is_dead<T: R2D2Connection>(error: &Error, connection: &mut T) -> bool {
    classify_error(error) == ProbeErrorKind::Unreachable || connection.ping().is_err()
}

/// A connection, or the reason why there is none as soon as there is one: the pool itself tries again and again.
fn connection<T: R2D2Connection + Send + 'static>(
    pool: &Pool<ConnectionManager<T>>,
) -> Result<diesel::r2d2::PooledConnection<ConnectionManager<T>>, PoolError> {
    let (started, limit) = (Instant::now(), pool.connection_timeout());
    loop {
        let left = limit.saturating_sub(started.elapsed());
        match pool.get_timeout(left.min(REASON)) {
            // A reason has no accessor, but is printed. Without one, an attempt is under way.
            Err(error) if left > REASON && format!("{error:?}") == "Error(None)" => {}
            answer => return answer,
        }
    }
}

impl Failure {
    fn public<T: R2D2Connection>(self) -> ProbeError {
        let name = name::<T::Backend>();
        match self {
            Self::Pool(error) => {
                ProbeError::new(ProbeErrorKind::Unreachable, ProbeErrorKind::Unreachable.message(name))
                    .with_source(error)
            }
            Self::Driver(error) => ProbeError::new(classify_error(&error), message(&error, name)).with_source(error),
            Self::Dropped => ProbeError::new(ProbeErrorKind::Failed, ProbeErrorKind::Failed.message(name)),
        }
    }
}

/// What kind of database a backend is for, in the word that messages use. Backends have no names of their own, but types have;
/// what is not known here is asked as any database is.
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

/// The question. SQLite reads its file only in a read transaction, which this begins.
pub(super) fn sql<B: Backend>() -> &'static str {
    if is_sqlite::<B>() { "SELECT count(*) FROM sqlite_master" } else { "SELECT 1" }
}

/// The public message of a question's failure.
pub(super) fn message(error: &Error, name: &str) -> String {
    if is_locked(error) { "sqlite is locked by a writer".to_owned() } else { classify_error(error).message(name) }
}

/// SQLite's code for that is dropped by diesel, and its text is a constant: `sqlite3_errstr` of `SQLITE_BUSY`.
fn is_locked(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, information) if information.message() == "database is locked")
}

/// The kind of an error of diesel's, if it is one.
pub(super) fn classify(error: &(dyn StdError + 'static)) -> Option<ProbeErrorKind> {
    if let Some(error) = error.downcast_ref() {
        return Some(classify_error(error));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(classify_connection(error));
    }
    error.is::<PoolError>().then_some(ProbeErrorKind::TimedOut)
}

/// The kind of a question's failure.
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

/// The kind of a failure to connect.
pub(super) fn classify_connection(error: &ConnectionError) -> ProbeErrorKind {
    match error {
        ConnectionError::BadConnection(_) => ProbeErrorKind::Unreachable,
        ConnectionError::CouldntSetupConfiguration(error) => match classify_error(error) {
            // The server spoke, and did not let us in.
            ProbeErrorKind::Failed => ProbeErrorKind::Rejected,
            kind => kind,
        },
        _ => ProbeErrorKind::Failed,
    }
}
