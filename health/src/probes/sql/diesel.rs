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
//! | no response to the query, on one connection; on SQLite for 30 s | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | all connections of the pool are in use, for no longer than its own `connection_timeout` | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | SQLite: locked by another writer, or silent for 600 ms | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | SQLite: the file is not a database; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! Failures are distinguished less exactly than with other pools. A wrong password is [`ProbeErrorKind::Unreachable`] too; the text of the
//! error is in the log. While all connections are in use, a busy server and a frozen one look the same, until none has become free for the
//! pool's `connection_timeout` (30 s by default). Then the application's operations fail too, and the check is DOWN. SQLite continues to read
//! a file that was removed or replaced, which is not detected, because the pool does not expose its path. A pool does not expose its
//! address, so messages do not contain one.

use std::{any::type_name, marker::PhantomData, time::Duration};

use diesel::{
    ConnectionError,
    backend::Backend,
    r2d2::{ConnectionManager, Pool, PoolError, R2D2Connection},
    result::{DatabaseErrorKind, Error},
};

use crate::{
    error::ProbeErrorKind,
    probe::library_probe,
    probes::{
        classify::Classify,
        pool::{
            LOCKED,
            r2d2::{BlockingDriver, R2d2Probe},
        },
        support::label::Label,
    },
};

/// How long a writer may lock an SQLite: longer than the `busy_timeout` of most applications, after which a query fails. A query that is
/// silent for longer waits for the disk.
const WRITER_TIMEOUT: Duration = Duration::from_secs(30);

library_probe! {
    "database" <T>,
    Pool<ConnectionManager<T>> where { T: R2D2Connection + Send + 'static } => R2d2Probe::<Diesel<T>>::of
}

struct Diesel<T>(PhantomData<fn() -> T>);

impl<T: R2D2Connection + Send + 'static> BlockingDriver for Diesel<T> {
    type Manager = ConnectionManager<T>;
    type Error = Error;

    fn query(connection: &mut T) -> Result<(), Error> {
        connection.batch_execute(sql::<T::Backend>())
    }

    fn is_broken(error: &Error, connection: &mut T) -> bool {
        // If the server has ended the connection with a message, the error is that message, of any kind, and only a second query shows that
        // the connection is closed.
        error.breaks_connection() || connection.ping().is_err()
    }

    fn writer_timeout() -> Duration {
        if is_sqlite::<T::Backend>() { WRITER_TIMEOUT } else { Duration::ZERO }
    }

    fn label() -> Label {
        label::<T::Backend>()
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
        if is_locked(self) { LOCKED.to_owned() } else { self.classify().message(name) }
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
