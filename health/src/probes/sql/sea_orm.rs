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

use sea_orm::{
    ConnAcquireErr, ConnectionTrait as _, DatabaseConnection, DatabaseConnectionType, DbBackend, DbErr, RuntimeErr,
};
use sqlx::{Database, Executor, Pool};

use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{Probe, Session},
    probes::{classify::Classify, support::label::Label},
};

impl Probe for DatabaseConnection {
    const GROUP: &'static str = "database";

    async fn probe(&self) -> Result<(), ProbeError> {
        match pool_of(self) {
            Some(session) => session.probe().await,
            None => query(self).await,
        }
    }

    fn resource(&self) -> Option<String> {
        pool_of(self)?.into_inner().resource()
    }

    fn session(&self) -> Option<Session> {
        pool_of(self)
    }
}

/// Returns the session of the connection's sqlx pool, if it has one.
///
/// Which accessors exist depends on the features of sea-orm that the application enables, which a dependent crate cannot see. Inherent
/// methods take precedence over those of a trait, so sea-orm's accessor is called if it exists, and otherwise that of [`Accessors`], which
/// returns nothing.
fn pool_of(db: &DatabaseConnection) -> Option<Session> {
    // Each accessor panics for other variants. The variants exist with the same features, but their names can be compared without them.
    match &*format!("{:?}", db.inner) {
        "SqlxPostgresPoolConnection" => db.get_postgres_connection_pool().into_session(),
        "SqlxMySqlPoolConnection" => db.get_mysql_connection_pool().into_session(),
        "SqlxSqlitePoolConnection" => db.get_sqlite_connection_pool().into_session(),
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

trait IntoSession {
    fn into_session(self) -> Option<Session>;
}

impl IntoSession for NoPool {
    fn into_session(self) -> Option<Session> {
        None
    }
}

impl<DB> IntoSession for &Pool<DB>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    fn into_session(self) -> Option<Session> {
        Some(Session::open(self.clone()))
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
    db.execute_unprepared(sql).await.map(drop).map_err(|error| Label::new(name).error(error))
}

impl Classify for DbErr {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            // The error does not distinguish an exhausted pool from a server that cannot be connected to.
            Self::ConnectionAcquire(ConnAcquireErr::Timeout) => ProbeErrorKind::TimedOut,
            Self::Conn(RuntimeErr::SqlxError(error))
            | Self::Exec(RuntimeErr::SqlxError(error))
            | Self::Query(RuntimeErr::SqlxError(error)) => error.classify(),
            _ => ProbeErrorKind::Failed,
        }
    }
}
