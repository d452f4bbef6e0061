//! `sea_orm::DatabaseConnection` of 2.x, and how errors of `SeaORM` are classified.
//!
//! It contains a pool of sqlx 0.9, which is probed: queries, kinds and messages are those of the module `sqlx`. Its further queries take
//! the pool: `writable(db.get_postgres_connection_pool())`.
//!
//! Connections without such a pool:
//!
//! | connection | query | not available |
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
            None => query(self).await,
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

/// Returns the probe of the connection's sqlx pool, if it has one.
///
/// Which accessors exist depends on the features of sea-orm that the application enables, which a dependent crate cannot see. Inherent
/// methods take precedence over those of a trait, so sea-orm's accessor is called if it exists, and otherwise that of [`Accessors`], which
/// returns nothing.
fn pool_of(db: &DatabaseConnection) -> Option<Arc<dyn DynProbe>> {
    // Each accessor panics for other variants. The variants exist with the same features, but their names can be compared without them.
    match &*format!("{:?}", db.inner) {
        "SqlxPostgresPoolConnection" => db.get_postgres_connection_pool().into_probe(),
        "SqlxMySqlPoolConnection" => db.get_mysql_connection_pool().into_probe(),
        "SqlxSqlitePoolConnection" => db.get_sqlite_connection_pool().into_probe(),
        _ => None,
    }
}

struct NoPool;

#[allow(dead_code, reason = "the accessors of sea-orm take precedence")]
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

trait IntoProbe {
    fn into_probe(self) -> Option<Arc<dyn DynProbe>>;
}

impl IntoProbe for NoPool {
    fn into_probe(self) -> Option<Arc<dyn DynProbe>> {
        None
    }
}

impl<DB> IntoProbe for &Pool<DB>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    fn into_probe(self) -> Option<Arc<dyn DynProbe>> {
        Some(erase(self.clone()))
    }
}

/// Executes the query by a method that every connection has.
async fn query(db: &DatabaseConnection) -> Result<(), ProbeError> {
    if matches!(db.inner, DatabaseConnectionType::Disconnected) {
        return Err(ProbeError::new(ProbeErrorKind::Unreachable, "the database was never connected to"));
    }
    let (name, sql) = match db.get_database_backend() {
        DbBackend::Postgres => ("postgres", "SELECT 1"),
        DbBackend::MySql => ("mysql", "SELECT 1"),
        DbBackend::Sqlite => ("sqlite", "SELECT count(*) FROM sqlite_master"),
        _ => ("the database", "SELECT 1"),
    };
    db.execute_unprepared(sql).await.map(drop).map_err(|error| {
        let kind = classify(&error);
        ProbeError::new(kind, kind.message(name)).with_source(error)
    })
}

/// Returns the kind of an error, which is that of sqlx's error if there is one.
pub(crate) fn classify(error: &DbErr) -> ProbeErrorKind {
    match error {
        // The error does not distinguish an exhausted pool from a server that cannot be connected to.
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => ProbeErrorKind::TimedOut,
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => super::sqlx::classify(error),
        _ => ProbeErrorKind::Failed,
    }
}
