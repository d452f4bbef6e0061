//! `sea_orm::DatabaseConnection` of 2.x, and how errors of `SeaORM` are told apart.
//!
//! Behind it is a pool of sqlx 0.9, and that pool is asked: the question, the kinds and the messages are those of the
//! module `sqlx`. Its other questions take the pool: `writable(db.get_postgres_connection_pool())`.
//!
//! What has no such pool:
//!
//! | what | the question | what is not told |
//! | --- | --- | --- |
//! | a proxy, a mock | the same, by `execute_unprepared` | the address; saturation |
//! | `DatabaseConnection::default()` | none: it is [`ProbeErrorKind::Unreachable`], 'the database was never connected to' | |

use std::sync::Arc;

use sea_orm::{
    ConnAcquireErr, ConnectionTrait as _, DatabaseConnection, DatabaseConnectionType, DbBackend, DbErr, RuntimeErr,
};
use sqlx::{Database, Executor, Pool};

use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe, erase},
};

impl Probe for DatabaseConnection {
    const GROUP: &'static str = "database";

    async fn probe(&self) -> Result<(), ProbeError> {
        match pool_of(self) {
            Some(pool) => pool.probe().await,
            None => ask(self).await,
        }
    }

    fn resource(&self) -> Option<String> {
        pool_of(self)?.resource()
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        pool_of(self)
    }
}

impl From<DbErr> for ProbeError {
    fn from(error: DbErr) -> Self {
        Self::from_error(error)
    }
}

/// The pool of sqlx, whose probe is asked.
///
/// Which pools there are is up to the features of sea-orm that the application has on, and no dependent can see those. But
/// a method of the type itself goes before one of a trait: where sea-orm has the accessor that is called, else it is the
/// trait's, which has nothing to give.
fn pool_of(db: &DatabaseConnection) -> Option<Arc<dyn DynProbe>> {
    // The variants are there or not as the accessors are, which panic at each other's; their names are told everywhere.
    match &*format!("{:?}", db.inner) {
        "SqlxPostgresPoolConnection" => db.get_postgres_connection_pool().probed(),
        "SqlxMySqlPoolConnection" => db.get_mysql_connection_pool().probed(),
        "SqlxSqlitePoolConnection" => db.get_sqlite_connection_pool().probed(),
        _ => None,
    }
}

struct NoPool;

#[allow(dead_code, reason = "each gives way to sea-orm's own")]
trait Accessors {
    fn get_postgres_connection_pool(&self) -> NoPool {
        NoPool
    }

    fn get_mysql_connection_pool(&self) -> NoPool {
        NoPool
    }

    fn get_sqlite_connection_pool(&self) -> NoPool {
        NoPool
    }
}

impl Accessors for DatabaseConnection {}

trait Probed {
    fn probed(self) -> Option<Arc<dyn DynProbe>>;
}

impl Probed for NoPool {
    fn probed(self) -> Option<Arc<dyn DynProbe>> {
        None
    }
}

impl<DB> Probed for &Pool<DB>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    fn probed(self) -> Option<Arc<dyn DynProbe>> {
        Some(erase(self.clone()))
    }
}

/// Asks by what every connection can do.
async fn ask(db: &DatabaseConnection) -> Result<(), ProbeError> {
    if matches!(db.inner, DatabaseConnectionType::Disconnected) {
        return Err(ProbeError::new(ProbeErrorKind::Unreachable, "the database was never connected to"));
    }
    let (word, sql) = match db.get_database_backend() {
        DbBackend::Postgres => ("postgres", "SELECT 1"),
        DbBackend::MySql => ("mysql", "SELECT 1"),
        DbBackend::Sqlite => ("sqlite", "SELECT count(*) FROM sqlite_master"),
        _ => ("the database", "SELECT 1"),
    };
    db.execute_unprepared(sql).await.map(drop).map_err(|error| {
        let kind = classify(&error);
        ProbeError::new(kind, kind.message(word)).with_source(error)
    })
}

/// The kind of an error, by the driver's where there is one.
pub(crate) fn classify(error: &DbErr) -> ProbeErrorKind {
    match error {
        // All connections may be in use, or none be to be had: sea-orm says no more.
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => ProbeErrorKind::TimedOut,
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => super::sqlx::classify(error),
        _ => ProbeErrorKind::Failed,
    }
}
