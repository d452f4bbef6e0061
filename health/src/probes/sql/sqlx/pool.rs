//! The probe of a pool. This file is compiled for each version of sqlx, which is `super::sqlx`.

use std::time::Duration;

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
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        pool::{self, Pool, State, TakeError, Usage},
        sql::sqlstate::{classify_code, classify_mysql, is_full_pgbouncer},
        support::{debug_fields::DebugFields, label::Label},
    },
};

library_probe! {
    "database" <DB>,
    sqlx::Pool<DB> where { DB: Database, for<'c> &'c mut DB::Connection: Executor<'c, Database = DB> } => PoolProbe::of
}

/// A pool, and what its probe remembers between runs.
struct PoolProbe<DB: Database> {
    pool: SqlxPool<DB>,
    state: State<SqlxPool<DB>>,
    file: SqliteFile,
}

impl<DB: Database> PoolProbe<DB> {
    fn of(pool: &sqlx::Pool<DB>) -> Self {
        Self { pool: SqlxPool(pool.clone()), state: State::new(), file: SqliteFile::default() }
    }

    async fn run<Q: Query<DB>>(&self, query: Q) -> Result<Q::Output, ProbeError> {
        let pool = &self.pool.0;
        if pool.is_closed() {
            return Err(self.pool.label().error(Error::PoolClosed));
        }
        if Kind::of(pool) == Kind::Sqlite {
            return sqlite::run(&self.pool, &self.file, &query).await;
        }
        self.state.run(&self.pool, &OnPool(query)).await.map_err(|failure| failure.into_probe_error(&self.pool.label()))
    }
}

impl<DB> LibraryProbe for PoolProbe<DB>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    async fn probe(&self) -> Result<(), ProbeError> {
        self.pool.usage().observe();
        self.run(Statement(Kind::of(&self.pool.0).sql())).await
    }

    fn resource(&self) -> Option<String> {
        Some(self.pool.label().to_string())
    }

    fn address(&self) -> Option<usize> {
        // Clones of a pool share its options.
        Some(std::ptr::from_ref(self.pool.0.options()).addr())
    }
}

/// How long a dead connection may take to close before it is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(50);

/// A query on a connection.
pub(crate) trait Query<DB: Database>: Clone + Send + Sync + 'static {
    type Output: Send + 'static;

    fn run(&self, connection: &mut DB::Connection) -> impl Future<Output = Result<Self::Output, Error>> + Send;
}

/// A statement that has to succeed, whatever it returns.
#[derive(Clone, Copy)]
pub(super) struct Statement(pub(super) &'static str);

impl<DB> Query<DB> for Statement
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    type Output = ();

    async fn run(&self, connection: &mut DB::Connection) -> Result<(), Error> {
        // Raw SQL takes one round trip also on a new connection, and works behind proxies without prepared statements.
        connection.execute(sqlx::raw_sql(self.0)).await.map(drop)
    }
}

/// Runs a query on a connection of the pool, without the state of earlier runs.
pub(crate) async fn run<DB: Database, Q: Query<DB>>(pool: &sqlx::Pool<DB>, query: Q) -> Result<Q::Output, ProbeError> {
    PoolProbe::of(pool).run(query).await
}

/// A query of this module, for the algorithm for pools.
#[derive(Clone)]
struct OnPool<Q>(Q);

impl<DB: Database, Q: Query<DB>> pool::Query<SqlxPool<DB>> for OnPool<Q> {
    type Output = Q::Output;

    fn run(&self, connection: &mut DB::Connection) -> impl Future<Output = Result<Q::Output, Error>> + Send {
        self.0.run(connection)
    }
}

/// sqlx's side of the algorithm for pools.
pub(super) struct SqlxPool<DB: Database>(pub(super) sqlx::Pool<DB>);

impl<DB: Database> Clone for SqlxPool<DB> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A connection with a query in flight. Unless it is released, it is closed when it is dropped: in the pool, the next query would wait for
/// the response to this one.
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

    const RETRIES_SILENTLY: bool = true;
    const PINGS_ON_RELEASE: bool = true;

    fn usage(&self) -> Usage {
        let (size, idle) = (self.0.size() as usize, self.0.num_idle());
        Usage {
            taken: size.saturating_sub(idle),
            idle,
            max: self.0.options().get_max_connections() as usize,
            // The size includes attempts to connect.
            connected: None,
        }
    }

    async fn take_idle(&self) -> Option<Result<Taken<DB>, TakeError<Error>>> {
        // Without the ping of `acquire`, which the query makes redundant.
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
            // A dead connection may not close in time.
            let _ = timeout(CLOSE_TIMEOUT, connection.close()).await;
        }
    }

    async fn close(connection: DB::Connection) {
        let _ = connection.close().await;
    }

    fn label(&self) -> Label {
        label(&self.0)
    }
}

/// The database of a pool.
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

    /// Returns what messages call the database.
    fn display_name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
            Self::Other => "the database",
        }
    }

    /// Returns the query. SQLite reads its file only in a read transaction, which the query begins.
    fn sql(self) -> &'static str {
        if self == Self::Sqlite { "SELECT count(*) FROM sqlite_master" } else { "SELECT 1" }
    }
}

/// Returns the fields of a pool's options. `ConnectOptions::to_url_lossy` panics on hosts and user names that are invalid in a URL. The
/// options of `Any` contain the original URL, whose parts are returned in the form of the other drivers.
pub(super) fn debug_fields<DB: Database>(pool: &sqlx::Pool<DB>) -> DebugFields {
    let options = pool.connect_options();
    if DB::NAME != "Any" {
        return DebugFields::of(&options);
    }
    let url = options.to_url_lossy();
    let default_port = match Kind::of(pool) {
        Kind::Postgres => 5432,
        Kind::MySql => 3306,
        Kind::Sqlite => return file_fields(url.as_str()),
        Kind::Other => return DebugFields::default(),
    };
    if url.query_pairs().any(|(key, _)| matches!(&*key, "host" | "hostaddr" | "port" | "socket")) {
        // The query overrides the host of the URL.
        return DebugFields::default();
    }
    url.host_str().map_or_else(DebugFields::default, |host| {
        let port = url.port().unwrap_or(default_port);
        let password = url.password().map(|password| percent_decode_str(password).decode_utf8_lossy());
        DebugFields(format!("host: {host:?}, port: {port}, password: {password:?}"))
    })
}

/// Parses the URL of a SQLite database as sqlx does: <https://docs.rs/sqlx/0.9/sqlx/sqlite/struct.SqliteConnectOptions.html>.
fn file_fields(url: &str) -> DebugFields {
    let rest = url.strip_prefix("sqlite:").unwrap_or(url);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (file, query) = rest.split_once('?').unwrap_or((rest, ""));
    let file = percent_decode_str(file).decode_utf8_lossy();
    let in_memory = file == ":memory:" || query.split('&').any(|pair| pair == "mode=memory");
    DebugFields(format!("filename: {file:?}, in_memory: {in_memory}, vfs: None"))
}

/// Returns what messages call the database of a pool.
pub(super) fn label<DB: Database>(pool: &sqlx::Pool<DB>) -> Label {
    let fields = debug_fields(pool);
    // The path of a Unix socket is not public.
    let is_path = |host: &str| host.starts_with('/') || host.to_ascii_lowercase().contains("%2f");
    let address = fields
        .address("host: ", "port: ")
        .filter(|address| !fields.contains("socket: Some(") && !is_path(&address.host));
    Label::new(Kind::of(pool).display_name()).at(address).with_password(fields.text("password: Some("))
}

impl Classify for Error {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Io(error) => classify_io(error),
            Self::Tls(_) => ProbeErrorKind::Rejected,
            Self::PoolTimedOut => ProbeErrorKind::TimedOut,
            Self::WorkerCrashed => ProbeErrorKind::Unreachable,
            Self::Database(error) => classify_database(error, &DebugFields::of(error)),
            _ => ProbeErrorKind::Failed,
        }
    }

    fn breaks_connection(&self) -> bool {
        match self {
            Self::Io(_) | Self::Tls(_) | Self::Protocol(_) | Self::WorkerCrashed => true,
            // PostgreSQL ends the session with these severities, whatever the code. They have no accessor, but the `Debug` output contains
            // them.
            Self::Database(error) => {
                let fields = DebugFields::of(error);
                fields.contains("severity: Fatal")
                    || fields.contains("severity: Panic")
                    || classify_database(error, &fields) == ProbeErrorKind::Unreachable
            }
            error => error.classify() == ProbeErrorKind::Unreachable,
        }
    }

    fn is_timeout(&self) -> bool {
        // The driver itself has no timeout. These errors are of the server, which has cancelled the query.
        false
    }
}

/// Returns the kind of an error that the database sent.
#[allow(clippy::borrowed_box, reason = "only the box has the `Debug` output of the driver's type")]
fn classify_database(error: &Box<dyn DatabaseError>, fields: &DebugFields) -> ProbeErrorKind {
    // MySQL's number is more exact than its code. It has no accessor, but the `Debug` output contains it.
    if fields.starts_with("MySqlDatabaseError")
        && let Some(number) = fields.number("number: ")
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
