//! Other questions to a pool than whether it answers. Like `pool.rs`, read once for each version of sqlx.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    pool::{Kind, Query, Statement, name, run},
    sqlx::{self, ColumnIndex, Database, Decode, Error, Executor, Pool, Row as _, Type},
};
use crate::error::{ProbeError, ProbeErrorKind};

/// Whether the database takes writes: a primary, not a standby.
///
/// For a service that can do nothing without writing. Where the pool's host name leads to the primary, this shows that it
/// does, also after a failover.
///
/// | database | the question | [`ProbeErrorKind::ReadOnly`] is |
/// | --- | --- | --- |
/// | PostgreSQL | `transaction_read_only` | a standby; a server, role or database whose transactions are read-only |
/// | MySQL, MariaDB | `read_only`, `super_read_only`, `innodb_read_only`, and the session's transactions | a replica that is set so, also for who may write to it nevertheless |
/// | SQLite | a table is made and taken back | a file or a connection that is read-only, a full disk |
///
/// SQLite's answer takes the lock that all writers take, for less than a millisecond; another writer that keeps it longer than
/// 400 ms is [`ProbeErrorKind::Saturated`]. The other databases only look.
///
/// # Errors
///
/// It takes no writes, or does not answer: see the table of the module.
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
    // Each finds a row if there are no writes to be had.
    let refuses = match Kind::of(pool) {
        Kind::Postgres => "SELECT 1 WHERE current_setting('transaction_read_only')::boolean",
        // Not `@@read_only`: newer servers have words in it, others a number; and each has other names.
        Kind::MySql => {
            "SHOW VARIABLES WHERE Variable_name IN \
             ('read_only', 'super_read_only', 'innodb_read_only', 'transaction_read_only', 'tx_read_only') \
             AND Value NOT IN ('OFF', '0')"
        }
        Kind::Sqlite => return run(pool, RolledBackWrite).await,
        Kind::Other => {
            return Err(ProbeError::new(
                ProbeErrorKind::Failed,
                "whether the database takes writes is not known how to ask",
            ));
        }
    };
    if run(pool, ReturnsRows(refuses)).await? {
        let message = ProbeErrorKind::ReadOnly.message(&name(pool));
        return Err(ProbeError::new(ProbeErrorKind::ReadOnly, message)
            .with_source("a standby, a replica, or set to read-only transactions"));
    }
    Ok(())
}

/// Whether a statement of yours runs, e.g. `SELECT 1 FROM orders LIMIT 1`: the table is there, and its rows may be read.
///
/// What it finds does not matter, and may be nothing. All rows are read, so keep them few; and it is run each round, so keep
/// it cheap. Neither the statement nor what the database says of it is ever in an answer.
///
/// # Errors
///
/// The statement fails, or there is no answer: see the table of the module. A table that is not there is [`ProbeErrorKind::Failed`],
/// one that may not be read is [`ProbeErrorKind::Rejected`].
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

/// How far a standby of PostgreSQL's streaming replication is behind its primary: [`Status::Degraded`] from `degraded` on,
/// [`Status::Down`] from `down` on. Asked of the standby.
///
/// | what it finds | status |
/// | --- | --- |
/// | a primary, or a standby that was promoted | UP |
/// | all that was received is replayed, and more is being received | UP, however long the primary has been idle |
/// | not all is replayed, and the last commit that is was made so long ago on the primary | by the limits |
/// | not all is replayed, and since it started no commit was | DOWN |
/// | no WAL receiver: the primary is gone, or refuses it | DEGRADED; DOWN if that last commit is older than `down`, or unknown |
///
/// The time is that of the primary's clock until now by the standby's, and at most the lag: the rows that are missing may be
/// younger. What seems to be behind is looked at for a moment longer, so that the first commit after an idle hour is no lag of
/// an hour. A primary that is frozen or cut off, and closes no connection, is noticed when the WAL receiver notices it, after
/// `wal_receiver_timeout` (60 s if not set). Who may read `pg_stat_wal_receiver` (`GRANT pg_read_all_stats`) sees also what the primary has
/// and has not sent yet. A standby that only reads an archive has no WAL receiver.
///
/// The failure's kind is [`ProbeErrorKind::Failed`], its message e.g. 'postgres at 10.0.0.7:5432 is 12 s behind its primary'.
///
/// [`Status::Degraded`]: crate::Status::Degraded
/// [`Status::Down`]: crate::Status::Down
///
/// # Errors
///
/// It is behind, or does not answer: see the table of the module.
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
        return Err(ProbeError::new(
            ProbeErrorKind::Failed,
            "only postgres is known how to ask for its replication lag",
        ));
    }
    let Some(mut standby) = run(pool, Replication).await? else { return Ok(()) };
    let (received, looked) = (standby.received, Instant::now());
    while standby.is_behind_by(degraded.min(down)) && looked.elapsed() < CATCHES_UP.min(degraded) {
        sleep(LOOK_AGAIN).await;
        let Some(again) = run(pool, Replication).await? else { return Ok(()) };
        // More may have come meanwhile.
        if again.has_replayed(received) {
            return Ok(());
        }
        standby = again;
    }
    let name = name(pool);
    let failed = |message| ProbeError::new(ProbeErrorKind::Failed, message).with_source(format!("{standby:?}"));
    if !standby.receives {
        let lost = failed(format!("{name} receives nothing from its primary"));
        let old = standby.age.is_none_or(|age| age >= down);
        return Err(if old { lost } else { lost.degraded() });
    }
    if !standby.is_behind_by(degraded.min(down)) {
        return Ok(());
    }
    match standby.age {
        None => Err(failed(format!("{name} has replayed nothing of its primary's"))),
        Some(age) => {
            let lags = failed(format!("{name} is {} behind its primary", in_words(age)));
            Err(if age >= down { lags } else { lags.degraded() })
        }
    }
}

/// For how long, and how often, a standby that seems to be behind is looked at.
const CATCHES_UP: Duration = Duration::from_millis(300);
const LOOK_AGAIN: Duration = Duration::from_millis(40);

fn in_words(age: Duration) -> String {
    if age < Duration::from_secs(1) { format!("{} ms", age.as_millis()) } else { format!("{} s", age.as_secs()) }
}

/// Whether a statement finds any row.
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

/// A write that leaves nothing behind. To begin a transaction would not do: SQLite lets that begin on what it may not write.
#[derive(Clone, Copy)]
struct RolledBackWrite;

impl<DB> Query<DB> for RolledBackWrite
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    type Output = ();

    async fn run(&self, connection: &mut DB::Connection) -> Result<(), Error> {
        // With the lock from the start: a reader that becomes a writer may be refused at once where another one writes.
        let sql = "BEGIN IMMEDIATE; CREATE TABLE health_probes_whether_it_takes_writes (x); ROLLBACK";
        let wrote = connection.execute(sqlx::raw_sql(sql)).await;
        if wrote.is_err() {
            // There is no transaction if it did not begin.
            let _ = connection.execute(sqlx::raw_sql("ROLLBACK")).await;
        }
        wrote.map(drop)
    }
}

/// What a standby says of itself; nothing if it is none.
#[derive(Clone, Copy)]
struct Replication;

#[derive(Debug)]
struct Standby {
    /// A WAL receiver runs, and has been let in by the primary.
    receives: bool,
    /// How far it has received WAL, or knows of more; in bytes.
    received: Option<i64>,
    replayed: Option<i64>,
    /// How long ago the last commit that was replayed was made.
    age: Option<Duration>,
}

impl Standby {
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
        // The WAL receiver's own place is told to everybody, what it knows of the primary only to who may see that.
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
            // By the clocks of two machines, so it may be negative.
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
