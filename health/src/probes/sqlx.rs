//! `sqlx::Pool` of any database, and how errors of sqlx are classified.
//!
//! Each run executes one query on an idle connection of the application's own pool: `SELECT 1`, or on SQLite one that reads
//! the file. A ping would not do: on PostgreSQL it is a protocol sync that runs no query. The runs use the idle connections in
//! turn, which keeps them from growing old enough for the pool's `idle_timeout`.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, shutting down or starting up | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no such database, no permission, account or host locked, TLS | [`ProbeErrorKind::Rejected`] | DOWN |
//! | an idle connection was closed, or ended by a message of the server's (PostgreSQL: `FATAL`; MySQL: 1053, 1927, 4031) | the next one is used | UP |
//! | an idle connection is silent, and another idle one responds | | UP |
//! | idle connections are silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | the pool is exhausted, and the server accepts further connections | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | the server or the account has all its connections (PostgreSQL: 53300; MySQL: 1040, 1203, 1226; pgbouncer), and the pool has some that work | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | the same, and the pool has none | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | read-only transaction, disk full | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | SQLite: locked by another writer for longer than 400 ms | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | SQLite: the file is gone, or was replaced while connections have the old one (Linux) | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | SQLite: the file is not a database; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! sqlx counts attempts to connect as connections. So while the server is full, the pool is taken to have none that work if it was
//! empty before the run, or if none came free within its own `acquire_timeout`: then the application fails as well. The functions
//! below remember nothing between runs, and see only the empty pool.
//!
//! A warm pool that is not exhausted is probed on its own connections only. What more a probe may cost the server, of each replica
//! of the application: while the pool is exhausted, while it has to open a connection and is slow at it, or while an idle one is
//! silent, one connection is opened outside the pool, queried and closed, at most once in 2 s (once in 900 ms while it cannot
//! connect). A second one is opened beside it only if it gets no response for 2 s.
//!
//! Other queries than the probe's, for `#[health(with = …)]` or a function of your own:
//!
//! | function | what it checks |
//! | --- | --- |
//! | [`writable`] | does it take writes: is it a primary, not a standby? |
//! | [`replication_lag`] | how far is a standby of PostgreSQL behind its primary? |
//! | [`query`] | does a statement of yours run? |
//! | `migrated`, with the feature `sqlx-migrate` | are all migrations of a `Migrator` applied? |
//!
//! They get a connection as the probe does, so the first table applies to them too.
//!
//! [`ProbeErrorKind::Unreachable`]: crate::ProbeErrorKind::Unreachable
//! [`ProbeErrorKind::Rejected`]: crate::ProbeErrorKind::Rejected
//! [`ProbeErrorKind::Saturated`]: crate::ProbeErrorKind::Saturated
//! [`ProbeErrorKind::ReadOnly`]: crate::ProbeErrorKind::ReadOnly
//! [`ProbeErrorKind::Failed`]: crate::ProbeErrorKind::Failed
//! [`ProbeErrorKind::TimedOut`]: crate::ProbeErrorKind::TimedOut

pub(super) mod pool;
mod questions;
mod sqlite;

use ::sqlx;

pub(crate) use self::pool::classify;
pub use self::questions::{query, replication_lag, writable};
// Empty without its feature.
#[allow(unreachable_pub, unused_imports)]
pub use super::sqlx_migrate::*;

#[cfg(test)]
mod tests {
    use super::{pool::described, sqlx};
    use crate::Probe as _;

    #[tokio::test]
    async fn a_sentence_names_a_host_and_a_port_and_no_path() {
        use sqlx::postgres::{PgConnectOptions, PgPool};

        let named = |options: PgConnectOptions| PgPool::connect_lazy_with(options).resource().unwrap();
        let options = || PgConnectOptions::new_without_pgpass().username("a/b@c").password("\"p").port(5433);
        assert_eq!(named(options().host("db.internal")), "postgres at db.internal:5433");
        assert_eq!(named(options().host("::1")), "postgres at [::1]:5433");
        assert_eq!(named(options().host("/run/postgresql")), "postgres");
        assert_eq!(named(options().socket("/run/postgresql")), "postgres");
        assert_eq!(described(&PgPool::connect_lazy_with(options())).text("password: Some(").unwrap(), "\"p");
    }
}
