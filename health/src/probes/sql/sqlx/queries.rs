//! Further queries on a pool. Like `pool.rs`, compiled for each version of sqlx.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    pool::{Kind, Query, Statement, label, run},
    sqlx::{self, ColumnIndex, Database, Decode, Error, Executor, Pool, Row as _, Type},
};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    observe::observe,
};

/// Checks that the database accepts writes: that it is a primary, not a standby.
///
/// For a service that cannot work without writing, and a host name that has to resolve to the primary, also after a failover.
///
/// | database | query | [`ProbeErrorKind::ReadOnly`] is |
/// | --- | --- | --- |
/// | PostgreSQL | `transaction_read_only` | a standby; a server, role or database whose transactions are read-only |
/// | MySQL, MariaDB | `read_only`, `super_read_only`, `innodb_read_only`, and the session's transactions | a read-only server, also for users that may write nevertheless |
/// | SQLite | creates a table and rolls back | a read-only file or connection, a full disk |
///
/// On SQLite it holds the write lock for less than a millisecond. If another writer holds the lock for longer than 400 ms, the check is
/// [`ProbeErrorKind::Saturated`]. On the other databases it only reads.
///
/// # Errors
///
/// Returns an error if the database is read-only, and if the query fails as in the table of the module.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "sqlx")] mod example {
/// use health::HealthCheck;
/// use sqlx::PgPool;
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     #[health(with = health::probes::sqlx::writable, group = "database")]
///     primary: PgPool,
///     replica: PgPool,
/// }
/// # }
/// ```
pub async fn writable<DB>(pool: &Pool<DB>) -> Result<(), ProbeError>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    // Each returns a row if the database is read-only.
    let is_read_only = match Kind::of(pool) {
        Kind::Postgres => "SELECT 1 WHERE current_setting('transaction_read_only')::boolean",
        // Not `@@read_only`, which is a word or a number and has other names on other servers.
        Kind::MySql => {
            "SHOW VARIABLES WHERE Variable_name IN \
             ('read_only', 'super_read_only', 'innodb_read_only', 'transaction_read_only', 'tx_read_only') \
             AND Value NOT IN ('OFF', '0')"
        }
        Kind::Sqlite => return run(pool, RolledBackWrite).await,
        Kind::Other => {
            return Err(ProbeError::new(ProbeErrorKind::Failed, "`writable` does not support this database"));
        }
    };
    if run(pool, ReturnsRows(is_read_only)).await? {
        let source = "the server is a standby or a replica, or its transactions are read-only";
        return Err(label(pool).error_of_kind(ProbeErrorKind::ReadOnly, source));
    }
    Ok(())
}

/// Checks that a statement succeeds, e.g. `SELECT 1 FROM orders LIMIT 1`: the table exists, and its rows can be read.
///
/// The result does not matter, and may be empty. All rows are read, in each run, so keep them few. Responses contain neither the statement
/// nor the error text of the database.
///
/// # Errors
///
/// Returns an error if the statement fails as in the table of the module. A missing table is [`ProbeErrorKind::Failed`], and a missing
/// permission is [`ProbeErrorKind::Rejected`].
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "sqlx")] mod example {
/// use health::{HealthCheck, ProbeError, probes::sqlx::query};
/// use sqlx::PgPool;
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     #[health(with = orders, group = "database")]
///     orders: PgPool,
/// }
///
/// async fn orders(pool: &PgPool) -> Result<(), ProbeError> {
///     query(pool, "SELECT 1 FROM orders LIMIT 1").await
/// }
/// # }
/// ```
pub async fn query<DB>(pool: &Pool<DB>, statement: &'static str) -> Result<(), ProbeError>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    run(pool, Statement(statement)).await
}

/// Checks how far a standby of PostgreSQL's streaming replication is behind its primary: [`Status::Degraded`] from a lag of `degraded`,
/// [`Status::Down`] from a lag of `down`. The pool is that of the standby.
///
/// | state of the standby | status |
/// | --- | --- |
/// | a primary, or a promoted standby | UP |
/// | has replayed all that it has received, and the WAL receiver is connected | UP, however long the primary has been idle |
/// | has not replayed all; the lag is the age of the last replayed commit | by the limits |
/// | has not replayed any commit since it was started | DOWN |
/// | no WAL receiver: the primary is stopped, or rejects it | DEGRADED; DOWN if the last replayed commit is older than `down`, or unknown |
///
/// The age is calculated from the primary's clock and the standby's. It is an upper limit of the lag, because the missing commits may be
/// younger. A standby that appears to be behind is queried again for up to 300 ms, so that the first commit after an idle hour is not
/// reported as a lag of an hour. A primary that is frozen or unreachable without closing its connection is detected by the WAL receiver after
/// `wal_receiver_timeout` (60 s by default). A user with permission for `pg_stat_wal_receiver` (`GRANT pg_read_all_stats`) also detects
/// what the primary has not sent yet. A standby that only reads an archive has no WAL receiver.
///
/// The lag is a value of the run, `replication_lag_seconds`, if it is known.
///
/// The kind is [`ProbeErrorKind::Failed`], and the message e.g. 'postgres at 10.0.0.7:5432 is 12 s behind its primary'.
///
/// [`Status::Degraded`]: crate::Status::Degraded
/// [`Status::Down`]: crate::Status::Down
///
/// # Errors
///
/// Returns an error if the standby is behind, and if the query fails as in the table of the module.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "sqlx")] mod example {
/// use std::time::Duration;
///
/// use health::{HealthCheck, ProbeError, probes::sqlx::replication_lag};
/// use sqlx::PgPool;
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     primary: PgPool,
///     #[health(with = fresh, group = "database", optional)]
///     replica: PgPool,
/// }
///
/// async fn fresh(replica: &PgPool) -> Result<(), ProbeError> {
///     replication_lag(replica, Duration::from_secs(5), Duration::from_secs(60)).await
/// }
/// # }
/// ```
pub async fn replication_lag<DB>(pool: &Pool<DB>, degraded: Duration, down: Duration) -> Result<(), ProbeError>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'r> i64: Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    if Kind::of(pool) != Kind::Postgres {
        return Err(ProbeError::new(ProbeErrorKind::Failed, "`replication_lag` supports only PostgreSQL"));
    }
    let Some(mut standby) = run(pool, Replication).await? else { return Ok(()) };
    standby.observe();
    let (received, started) = (standby.received, Instant::now());
    while standby.is_behind_by(degraded.min(down)) && started.elapsed() < RECHECK_TIMEOUT.min(degraded) {
        sleep(RECHECK_INTERVAL).await;
        let Some(again) = run(pool, Replication).await? else { return Ok(()) };
        // It may have received more since.
        if again.has_replayed(received) {
            return Ok(());
        }
        standby = again;
        standby.observe();
    }
    let name = label(pool);
    let failed = |message| ProbeError::new(ProbeErrorKind::Failed, message).with_source(format!("{standby:?}"));
    if !standby.receives {
        let lost = failed(format!("{name} is not connected to its primary"));
        let old = standby.age.is_none_or(|age| age >= down);
        return Err(if old { lost } else { lost.degraded() });
    }
    if !standby.is_behind_by(degraded.min(down)) {
        return Ok(());
    }
    match standby.age {
        None => Err(failed(format!("{name} has not replayed any commit of its primary"))),
        Some(age) => {
            let lags = failed(format!("{name} is {} behind its primary", format_age(age)));
            Err(if age >= down { lags } else { lags.degraded() })
        }
    }
}

/// How long, and how often, a standby that appears to be behind is queried again.
const RECHECK_TIMEOUT: Duration = Duration::from_millis(300);
const RECHECK_INTERVAL: Duration = Duration::from_millis(40);

fn format_age(age: Duration) -> String {
    if age < Duration::from_secs(1) { format!("{} ms", age.as_millis()) } else { format!("{} s", age.as_secs()) }
}

/// Whether a statement returns any row.
#[derive(Clone, Copy)]
struct ReturnsRows(&'static str);

impl<DB> Query<DB> for ReturnsRows
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    type Output = bool;

    async fn run(&self, connection: &mut DB::Connection) -> Result<bool, Error> {
        Ok(!connection.fetch_all(sqlx::raw_sql(self.0)).await?.is_empty())
    }
}

/// A write that is rolled back. Beginning a transaction would not do, because SQLite begins one on a read-only file too.
#[derive(Clone, Copy)]
struct RolledBackWrite;

impl<DB> Query<DB> for RolledBackWrite
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    type Output = ();

    async fn run(&self, connection: &mut DB::Connection) -> Result<(), Error> {
        // `IMMEDIATE` waits for the lock. A transaction that begins as a reader may fail at once while another connection writes.
        let sql = "BEGIN IMMEDIATE; CREATE TABLE health_probes_whether_it_takes_writes (x); ROLLBACK";
        let result = connection.execute(sqlx::raw_sql(sql)).await;
        if result.is_err() {
            // Fails if there is no transaction.
            let _ = connection.execute(sqlx::raw_sql("ROLLBACK")).await;
        }
        result.map(drop)
    }
}

/// The replication state of a standby, or `None` of a primary.
#[derive(Clone, Copy)]
struct Replication;

#[derive(Debug)]
struct Standby {
    /// Whether the WAL receiver is connected.
    receives: bool,
    /// The position up to which it has received WAL, or knows that there is some, in bytes.
    received: Option<i64>,
    replayed: Option<i64>,
    /// The age of the last replayed commit.
    age: Option<Duration>,
}

impl Standby {
    fn observe(&self) {
        // A standby that has replayed all that it received does not lag, however old the last commit is.
        let lag = if self.has_replayed(self.received) { Some(Duration::ZERO) } else { self.age };
        if let Some(lag) = lag {
            observe("replication_lag_seconds", lag.as_secs_f64());
        }
    }

    fn has_replayed(&self, received: Option<i64>) -> bool {
        self.receives && received.is_some() && self.replayed >= received
    }

    fn is_behind_by(&self, limit: Duration) -> bool {
        self.receives && !self.has_replayed(self.received) && self.age.is_none_or(|age| age >= limit)
    }
}

impl<DB> Query<DB> for Replication
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'r> i64: Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    type Output = Option<Standby>;

    fn run(&self, connection: &mut DB::Connection) -> impl Future<Output = Result<Option<Standby>, Error>> + Send {
        // All users can read the position of the WAL receiver, but that of the primary only with permission.
        let sql = "SELECT pg_is_in_recovery()::int::bigint, \
             (SELECT count(*) FROM pg_stat_wal_receiver), \
             pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), \
                 (SELECT latest_end_lsn FROM pg_stat_wal_receiver)), '0/0')::bigint, \
             pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint, \
             (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint";
        let rows = connection.fetch_all(sqlx::raw_sql(sql));
        async move {
            let rows = rows.await?;
            let row = rows.first().ok_or(Error::RowNotFound)?;
            if row.try_get::<i64, _>(0)? == 0 {
                return Ok(None);
            }
            // From the clocks of two machines, so it may be negative.
            let age = row.try_get::<Option<i64>, _>(4)?.map(|ms| Duration::from_millis(ms.try_into().unwrap_or(0)));
            Ok(Some(Standby {
                receives: row.try_get::<i64, _>(1)? > 0,
                received: row.try_get(2)?,
                replayed: row.try_get(3)?,
                age,
            }))
        }
    }
}
