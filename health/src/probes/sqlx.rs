//! `sqlx::Pool` of any database, and how errors of sqlx are told apart.
//!
//! Each round asks one question on an idle connection of the application's own pool: `SELECT 1`, or on SQLite one that reads
//! the file. A ping would not do: on PostgreSQL it is a protocol sync that runs no query. Asking in turn on all of them, it
//! keeps idle connections from growing old enough for the pool's `idle_timeout`.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, shutting down or starting up | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no such database, no permission, TLS | [`ProbeErrorKind::Rejected`] | DOWN |
//! | SQLite: locked by who writes, for longer than 400 ms | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | all connections of the pool, or of the server, are in use, and the server lets further ones in or says that it is full | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | read-only transaction, disk full | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | SQLite: the file is gone | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | SQLite: the file is no database; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! Other questions than the probe's, for `#[health(with = …)]` or a function of one's own:
//!
//! | function | the question |
//! | --- | --- |
//! | [`writable`] | does it take writes: is it a primary, not a standby? |
//! | [`replication_lag`] | how far is a standby of PostgreSQL behind its primary? |
//! | [`query`] | does a statement of yours run? |
//! | `migrated`, with the feature `sqlx-migrate` | are all migrations of a `Migrator` applied? |
//!
//! They go the probe's way to a connection, so all of the first table is true of them too.
//!
//! [`ProbeErrorKind::Unreachable`]: crate::ProbeErrorKind::Unreachable
//! [`ProbeErrorKind::Rejected`]: crate::ProbeErrorKind::Rejected
//! [`ProbeErrorKind::Saturated`]: crate::ProbeErrorKind::Saturated
//! [`ProbeErrorKind::ReadOnly`]: crate::ProbeErrorKind::ReadOnly
//! [`ProbeErrorKind::Failed`]: crate::ProbeErrorKind::Failed

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
