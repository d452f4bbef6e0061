//! `Arc<Mutex<rusqlite::Connection>>` and, with the feature `r2d2_sqlite`, `r2d2::Pool<SqliteConnectionManager>`, of the version of rusqlite
//! that the application uses, from 0.32 to 0.43.
//!
//! Each run executes a query that reads the file, on the application's own connection, or one of its pool, on one thread of tokio's blocking
//! pool. A query that hangs cannot be cancelled: no other one starts until it returns, so it blocks one thread, however often the check is
//! polled. A pool executes an empty statement before that.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | the file or its folder does not exist, or cannot be opened | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the mutex is locked, or all connections of the pool are in use, for no longer than 30 s or the pool's `connection_timeout` | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | locked by another writer for longer than 100 ms, or a shorter `busy_timeout` | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | the application has begun a transaction on the connection, and released the mutex | nothing is read | UP |
//! | a disk that does not respond | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | not a database; the mutex is poisoned; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! While a run reads, a `busy_timeout` of more than 100 ms (rusqlite's default is 5 s) is 100 ms, because the application waits for the
//! mutex meanwhile. It is restored before the mutex is released. A `busy_handler` of the application is called as always: if it waits for
//! longer than the check's limit, the check is DOWN. In the WAL mode a writer does not lock out readers.
//!
//! A read in a transaction of the application would lock the database until that transaction ends, and other writers could not commit. So a
//! file that fails meanwhile is detected only by the statements of the application, also if it never ends the transaction.
//!
//! A run only reads, so a full disk, and a file that was removed, replaced or truncated, are not detected: add `probes::disk`. A thread that
//! panics while it holds the mutex poisons it, and then every `lock().unwrap()` of the application panics, too.
//!
//! The counters of a pool before a run are values of the run: `connections_in_use`, `connections_idle` and `connections_max`.
//!
//! # Examples
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use health::HealthCheck;
//! use rusqlite::Connection;
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     notes: Arc<Mutex<Connection>>, // database.notes
//! }
//!
//! # fn main() -> rusqlite::Result<()> {
//! let state = AppState { notes: Arc::new(Mutex::new(Connection::open_in_memory()?)) };
//! # drop(state);
//! # Ok(())
//! # }
//! ```

use std::{
    error::Error as StdError,
    fmt,
    sync::{Arc, Mutex, TryLockError},
    time::Duration,
};

use ::rusqlite::{Connection, Error};

use super::sqlstate::classify_code;
use crate::{
    error::ProbeErrorKind,
    probe::library_probe,
    probes::{
        classify::Classify,
        pool::{
            LOCKED,
            blocking::{BlockingPool, BlockingPoolProbe, Failure, Waiting},
        },
        support::label::Label,
    },
};

pub(super) const LABEL: Label = Label::new("sqlite");

/// How long a connection may be in use before the check is DOWN. The application waits for a mutex without a limit.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a run waits for another writer at most. It holds the mutex meanwhile.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

library_probe! {
    "database",
    Arc<Mutex<Connection>> => |connection: &Arc<Mutex<Connection>>| BlockingPoolProbe::new(Shared(Arc::clone(connection)))
}

/// A connection that threads share, as a pool of one.
#[derive(Clone)]
struct Shared(Arc<Mutex<Connection>>);

/// Why a shared connection fails.
#[derive(Debug)]
enum SharedError {
    Sqlite(Error),
    Poisoned,
}

impl BlockingPool for Shared {
    type Error = SharedError;

    fn query(&self, waiting: &Waiting) -> Result<(), Failure<SharedError>> {
        let locked = match self.0.try_lock() {
            Err(TryLockError::WouldBlock) => {
                waiting.set(true);
                let locked = self.0.lock();
                waiting.set(false);
                locked.map_err(|_| SharedError::Poisoned)
            }
            Err(TryLockError::Poisoned(_)) => Err(SharedError::Poisoned),
            Ok(locked) => Ok(locked),
        };
        locked.and_then(|connection| read(&connection).map_err(SharedError::Sqlite)).map_err(Failure::Driver)
    }

    fn max_size(&self) -> usize {
        1
    }

    fn acquire_timeout(&self) -> Duration {
        ACQUIRE_TIMEOUT
    }

    fn observe(&self) {}

    fn address(&self) -> Option<usize> {
        Some(Arc::as_ptr(&self.0).addr())
    }

    fn label(&self) -> Label {
        LABEL
    }
}

/// Reads the file, which SQLite does only in a read transaction. The query begins one, and ends it.
///
/// In a transaction that the application has begun, the lock of the query would remain until that one ends, so nothing is read.
pub(super) fn read(connection: &Connection) -> Result<(), Error> {
    if !connection.is_autocommit() {
        return Ok(());
    }
    let _lowered = LoweredBusyTimeout::new(connection)?;
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0)).map(drop)
}

/// Restores the `busy_timeout` of the application when it is dropped.
struct LoweredBusyTimeout<'a> {
    connection: &'a Connection,
    original: Duration,
}

impl<'a> LoweredBusyTimeout<'a> {
    /// Returns `None` if the timeout is short enough.
    fn new(connection: &'a Connection) -> Result<Option<Self>, Error> {
        // 0 if the application has a handler of its own, which `busy_timeout` would remove, and if its authorizer denies the pragma.
        let original: u32 = connection.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap_or(0);
        let original = Duration::from_millis(original.into());
        if original <= BUSY_TIMEOUT {
            return Ok(None);
        }
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Some(Self { connection, original }))
    }
}

impl Drop for LoweredBusyTimeout<'_> {
    fn drop(&mut self) {
        // SQLite fails only on a closed connection.
        let _ = self.connection.busy_timeout(self.original);
    }
}

impl Classify for Error {
    fn classify(&self) -> ProbeErrorKind {
        self.sqlite_error().map_or(ProbeErrorKind::Failed, |error| classify_code(&error.extended_code.to_string()))
    }

    fn message(&self, name: &str) -> String {
        match self.classify() {
            ProbeErrorKind::Saturated => LOCKED.to_owned(),
            kind => kind.message(name),
        }
    }
}

impl Classify for SharedError {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Sqlite(error) => error.classify(),
            Self::Poisoned => ProbeErrorKind::Failed,
        }
    }

    fn message(&self, name: &str) -> String {
        match self {
            Self::Sqlite(error) => error.message(name),
            Self::Poisoned => self.to_string(),
        }
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(f),
            Self::Poisoned => f.write_str("the mutex of the connection is poisoned"),
        }
    }
}

impl StdError for SharedError {}
