//! The probe of a pool. This file is read once for each version of sqlx, which `super::sqlx` is; nothing in it is of one alone.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use tokio::time::timeout;

use super::{
    sqlite::{self, SqliteFile},
    sqlx::{
        self, ConnectOptions as _, Connection as _, Database, Error, Executor, error::DatabaseError,
        pool::PoolConnection,
    },
};
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::{DynProbe, Probe},
    probes::{
        driver::Described,
        pool::{self, Failure, Pool, State, TakeError, Usage},
        sqlstate::{classify_code, classify_mysql, is_full_pgbouncer},
    },
};

impl<DB> Probe for sqlx::Pool<DB>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    const GROUP: &'static str = "database";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        PoolProbe::new(self.clone()).ask().await
    }

    fn resource(&self) -> Option<String> {
        Some(name(self))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(PoolProbe::new(self.clone())))
    }
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        Self::from_error(error)
    }
}

/// A pool, and what its probe remembers between runs.
struct PoolProbe<DB: Database> {
    pool: SqlxPool<DB>,
    state: State<SqlxPool<DB>>,
    file: SqliteFile,
}

impl<DB: Database> PoolProbe<DB> {
    fn new(pool: sqlx::Pool<DB>) -> Self {
        Self { pool: SqlxPool(pool), state: State::new(), file: SqliteFile::default() }
    }

    async fn run<Q: Query<DB>>(&self, query: Q) -> Result<Q::Output, ProbeError> {
        let pool = &self.pool.0;
        if pool.is_closed() {
            return Err(Failure::Driver(Arc::new(Error::PoolClosed)).into_probe_error(&self.pool));
        }
        if Kind::of(pool) == Kind::Sqlite {
            return sqlite::run(&self.pool, &self.file, &query).await;
        }
        self.state.run(&self.pool, &On(query)).await.map_err(|failure| failure.into_probe_error(&self.pool))
    }
}

impl<DB> DynProbe for PoolProbe<DB>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(self.run(Statement(Kind::of(&self.pool.0).sql())))
    }

    fn resource(&self) -> Option<String> {
        Some(self.pool.name())
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// How long a dead connection may take to close before it is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(50);

/// What runs on a connection.
pub(crate) trait Query<DB: Database>: Clone + Send + Sync + 'static {
    type Output: Send + 'static;

    fn run(&self, connection: &mut DB::Connection) -> impl Future<Output = Result<Self::Output, Error>> + Send;
}

/// A statement that must run; what it returns does not matter.
#[derive(Clone, Copy)]
pub(super) struct Statement(pub(super) &'static str);

impl<DB> Query<DB> for Statement
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    type Output = ();

    async fn run(&self, connection: &mut DB::Connection) -> Result<(), Error> {
        // Raw, so that it is one round trip also on a connection that has not seen it before, and behind a proxy that keeps
        // no prepared statements.
        connection.execute(sqlx::raw_sql(self.0)).await.map(drop)
    }
}

/// Runs a query on a connection of the pool, with nothing remembered of earlier runs.
pub(crate) async fn run<DB: Database, Q: Query<DB>>(pool: &sqlx::Pool<DB>, query: Q) -> Result<Q::Output, ProbeError> {
    PoolProbe::new(pool.clone()).run(query).await
}

/// A query on any pool of sqlx.
#[derive(Clone)]
struct On<Q>(Q);

impl<DB: Database, Q: Query<DB>> pool::Query<SqlxPool<DB>> for On<Q> {
    type Output = Q::Output;

    fn run(&self, connection: &mut DB::Connection) -> impl Future<Output = Result<Q::Output, Error>> + Send {
        self.0.run(connection)
    }
}

/// sqlx's side of the algorithm.
pub(super) struct SqlxPool<DB: Database>(pub(super) sqlx::Pool<DB>);

impl<DB: Database> Clone for SqlxPool<DB> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A connection with a query under way. If that is dropped, the connection is closed: in the pool, the next query would wait
/// for the response to this one.
pub(super) struct Taken<DB: Database>(Option<PoolConnection<DB>>);

impl<DB: Database> Taken<DB> {
    pub(super) fn connection(&mut self) -> &mut DB::Connection {
        self.0.as_mut().expect("it is taken until it is released")
    }
}

impl<DB: Database> Drop for Taken<DB> {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}

impl<DB: Database> Pool for SqlxPool<DB> {
    type Connection = DB::Connection;
    type Taken = Taken<DB>;
    type Error = Error;

    const RETRIES_IN_SILENCE: bool = true;
    const PINGS_ON_RELEASE: bool = true;

    fn usage(&self) -> Usage {
        let (size, idle) = (self.0.size() as usize, self.0.num_idle());
        Usage {
            taken: size.saturating_sub(idle),
            idle,
            max: self.0.options().get_max_connections() as usize,
            // Its size counts attempts to connect.
            connected: None,
        }
    }

    async fn take_idle(&self) -> Option<Result<Taken<DB>, TakeError<Error>>> {
        // Without the ping of `acquire`: the query shows as much.
        self.0.try_acquire().map(|connection| Ok(Taken(Some(connection))))
    }

    async fn acquire(&self) -> Result<Taken<DB>, TakeError<Error>> {
        self.0.acquire().await.map(|connection| Taken(Some(connection))).map_err(TakeError::Driver)
    }

    fn acquire_timeout(&self) -> Duration {
        self.0.options().get_acquire_timeout()
    }

    async fn connect(&self) -> Result<DB::Connection, Error> {
        self.0.connect_options().connect().await
    }

    fn connection(taken: &mut Taken<DB>) -> &mut DB::Connection {
        taken.connection()
    }

    fn release(mut taken: Taken<DB>) {
        taken.0 = None;
    }

    async fn discard(mut taken: Taken<DB>) {
        if let Some(connection) = taken.0.take() {
            // How it closes does not matter; one that is dead may not even do that.
            let _ = timeout(CLOSE_TIMEOUT, connection.close()).await;
        }
    }

    async fn close(connection: DB::Connection) {
        let _ = connection.close().await;
    }

    fn classify(error: &Error) -> ProbeErrorKind {
        classify(error)
    }

    fn is_dead(error: &Error) -> bool {
        is_dead(error)
    }

    fn is_overdue(_: &Error) -> bool {
        // It never gives up by itself; what is overdue was cancelled by the server, which said so.
        false
    }

    fn name(&self) -> String {
        name(&self.0)
    }

    fn secret(&self) -> Option<String> {
        described(&self.0).text("password: Some(")
    }
}

/// Whether a connection is of no more use.
fn is_dead(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed => true,
        // PostgreSQL ends the session with these, whatever the code; a severity has no accessor here, but is printed.
        Error::Database(error) => {
            let printed = Described::by_debug(error);
            printed.says("severity: Fatal")
                || printed.says("severity: Panic")
                || classify_database(error, &printed) == ProbeErrorKind::Unreachable
        }
        error => classify(error) == ProbeErrorKind::Unreachable,
    }
}

/// What kind of server a pool is of, in the word that messages use.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Postgres,
    MySql,
    Sqlite,
    Other,
}

impl Kind {
    pub(super) fn of<DB: Database>(pool: &sqlx::Pool<DB>) -> Self {
        match DB::NAME {
            "PostgreSQL" => Self::Postgres,
            "MySQL" => Self::MySql,
            "SQLite" => Self::Sqlite,
            "Any" => match pool.connect_options().to_url_lossy().scheme() {
                "postgres" | "postgresql" => Self::Postgres,
                "mysql" | "mariadb" => Self::MySql,
                "sqlite" => Self::Sqlite,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
            Self::Other => "the database",
        }
    }

    /// The query. SQLite reads its file only in a read transaction, which this begins.
    fn sql(self) -> &'static str {
        if self == Self::Sqlite { "SELECT count(*) FROM sqlite_master" } else { "SELECT 1" }
    }
}

/// Where a pool connects to. `ConnectOptions::to_url_lossy` would be the public way, but it panics on hosts and user names
/// that are no part of a URL. Those of `Any` are the URL that they were made of, and are described as its drivers' are.
pub(super) fn described<DB: Database>(pool: &sqlx::Pool<DB>) -> Described {
    let options = pool.connect_options();
    if DB::NAME != "Any" {
        return Described::by_debug(&options);
    }
    let url = options.to_url_lossy();
    let default_port = match Kind::of(pool) {
        Kind::Postgres => 5432,
        Kind::MySql => 3306,
        Kind::Sqlite => return described_file(url.as_str()),
        Kind::Other => return Described::default(),
    };
    if url.query_pairs().any(|(key, _)| matches!(&*key, "host" | "hostaddr" | "port" | "socket")) {
        // It says otherwise than the URL's own host.
        return Described::default();
    }
    url.host_str().map_or_else(Described::default, |host| {
        let port = url.port().unwrap_or(default_port);
        let password = url.password().map(|password| percent_decode_str(password).decode_utf8_lossy());
        Described(format!("host: {host:?}, port: {port}, password: {password:?}"))
    })
}

/// As sqlx reads the URL of a SQLite database: <https://docs.rs/sqlx/0.9/sqlx/sqlite/struct.SqliteConnectOptions.html>.
fn described_file(url: &str) -> Described {
    let rest = url.strip_prefix("sqlite:").unwrap_or(url);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (file, query) = rest.split_once('?').unwrap_or((rest, ""));
    let file = percent_decode_str(file).decode_utf8_lossy();
    let in_memory = file == ":memory:" || query.split('&').any(|pair| pair == "mode=memory");
    Described(format!("filename: {file:?}, in_memory: {in_memory}, vfs: None"))
}

/// What a pool is of, in the words of messages.
pub(crate) fn name<DB: Database>(pool: &sqlx::Pool<DB>) -> String {
    public_name(pool, &described(pool))
}

fn public_name<DB: Database>(pool: &sqlx::Pool<DB>, described: &Described) -> String {
    let word = Kind::of(pool).word();
    // A socket has a path, which may tell more than an address.
    let is_path = |host: &str| host.starts_with('/') || host.to_ascii_lowercase().contains("%2f");
    match described.address("host: ", "port: ") {
        Some(address) if !described.0.contains("socket: Some(") && !is_path(&address.host) => {
            format!("{word} at {address}")
        }
        _ => word.to_owned(),
    }
}

/// The kind of an error, by its variant and, where the database sent one, its code.
pub(crate) fn classify(error: &Error) -> ProbeErrorKind {
    match error {
        Error::Io(error) => classify_io(error),
        Error::Tls(_) => ProbeErrorKind::Rejected,
        Error::PoolTimedOut => ProbeErrorKind::TimedOut,
        Error::WorkerCrashed => ProbeErrorKind::Unreachable,
        Error::Database(error) => classify_database(error, &Described::by_debug(error)),
        _ => ProbeErrorKind::Failed,
    }
}

/// The kind of an error that the database sent, which is also given as it is printed.
#[allow(clippy::borrowed_box, reason = "it is printed as the driver's own, which is behind it")]
fn classify_database(error: &Box<dyn DatabaseError>, printed: &Described) -> ProbeErrorKind {
    // MySQL's number tells more than its code, which may be missing, and is to be had only as it is printed.
    if printed.starts_with("MySqlDatabaseError")
        && let Some(number) = printed.number("number: ")
        && let Some(kind) = classify_mysql(number, error.message())
    {
        return kind;
    }
    match error.code() {
        Some(code) if is_full_pgbouncer(&code, error.message()) => ProbeErrorKind::Saturated,
        Some(code) => classify_code(&code),
        None => ProbeErrorKind::Failed,
    }
}
