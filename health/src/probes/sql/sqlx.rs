//! `sqlx::Pool` of any database, and how errors of sqlx are classified.
//!
//! Each run executes one query on an idle connection of the application's own pool: `SELECT 1`, or on SQLite one that reads the file. A
//! ping would not do, because on PostgreSQL it executes no query. The runs use the idle connections in turn, so the pool's
//! `idle_timeout` does not close them.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, shutting down or starting up | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no such database, no permission, account or host locked, TLS | [`ProbeErrorKind::Rejected`] | DOWN |
//! | an idle connection was closed, or ended by a message of the server (PostgreSQL: `FATAL`; MySQL: 1053, 1927, 4031) | the next one is used | UP |
//! | an idle connection is silent, and another idle one responds | | UP |
//! | idle connections are silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | the pool is exhausted, and the server accepts further connections | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | the server or the account has reached its maximum of connections (PostgreSQL: 53300; MySQL: 1040, 1203, 1226; pgbouncer), and the pool has some that work | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | the same, and the pool has none | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | only of the functions below: a read-only database, a full disk | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | SQLite: locked by another writer for longer than 400 ms | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | SQLite: the file is gone, or was replaced while connections have the old one (Linux) | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | SQLite: the file is not a database; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! sqlx counts attempts to connect as connections. So while the server is full, the pool is assumed to have no connection that works if it
//! was empty before the run, or if none became free within its own `acquire_timeout`: then the application's operations fail as well. The
//! functions below remember nothing between runs, so they detect only the empty pool.
//!
//! sqlx pings a connection when it is released. A run that begins before that ping has a response waits for it, instead of opening another
//! connection.
//!
//! A warm pool that is not exhausted is probed only on its own connections. While the pool is exhausted, is slow to open a connection, or
//! has a silent idle one, the check opens a connection outside it, queries and closes it, at most once in 2 s (once in 900 ms while the
//! server cannot be connected to). It opens a second one concurrently only if the first gets no response for 2 s. Each replica of the
//! application does so.
//!
//! Further queries, for `#[health(with = …)]` or a function of your own:
//!
//! | function | what it checks |
//! | --- | --- |
//! | [`writable`] | the database accepts writes: it is a primary, not a standby |
//! | [`replication_lag`] | how far a standby of PostgreSQL is behind its primary |
//! | [`query`] | a statement of your own succeeds |
//! | `migrated`, with the feature `sqlx-migrate` | all migrations of a `Migrator` are applied |
//!
//! They acquire a connection as the probe does, so the first table applies to them too.
//!
//! [`ProbeErrorKind::Unreachable`]: crate::ProbeErrorKind::Unreachable
//! [`ProbeErrorKind::Rejected`]: crate::ProbeErrorKind::Rejected
//! [`ProbeErrorKind::Saturated`]: crate::ProbeErrorKind::Saturated
//! [`ProbeErrorKind::ReadOnly`]: crate::ProbeErrorKind::ReadOnly
//! [`ProbeErrorKind::Failed`]: crate::ProbeErrorKind::Failed
//! [`ProbeErrorKind::TimedOut`]: crate::ProbeErrorKind::TimedOut

#[cfg(feature = "sqlx-migrate")]
mod migrate;
mod pool;
mod queries;
mod sqlite;

use ::sqlx;

#[cfg(feature = "sqlx-migrate")]
pub use self::migrate::migrated;
pub use self::queries::{query, replication_lag, writable};

#[cfg(test)]
mod tests {
    use super::{pool::debug_fields, sqlx};
    use crate::Probe as _;

    #[tokio::test]
    async fn a_name_contains_a_host_and_a_port_but_no_path() {
        use sqlx::postgres::{PgConnectOptions, PgPool};

        let named = |options: PgConnectOptions| PgPool::connect_lazy_with(options).resource().unwrap();
        let options = || PgConnectOptions::new_without_pgpass().username("a/b@c").password("\"p").port(5433);
        assert_eq!(named(options().host("db.internal")), "postgres at db.internal:5433");
        assert_eq!(named(options().host("::1")), "postgres at [::1]:5433");
        assert_eq!(named(options().host("/run/postgresql")), "postgres");
        assert_eq!(named(options().socket("/run/postgresql")), "postgres");
        assert_eq!(debug_fields(&PgPool::connect_lazy_with(options())).text("password: Some(").unwrap(), "\"p");
    }
}
