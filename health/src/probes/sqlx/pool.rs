//! The probe of a pool. This file is read once for each version of sqlx, which `super::sqlx` is; nothing in it is of one alone.

use std::{
    fs::File,
    future::Future,
    io::{self, Read as _},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use futures_util::future::{Either, select};
use percent_encoding::percent_decode_str;
use tokio::time::{sleep, timeout};

use super::sqlx::{self, ConnectOptions as _, Connection, Database, Error, Executor, Pool, pool::PoolConnection};
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::Probe,
    probes::{
        driver::{Described, PATIENCE, answer_or},
        sqlstate::classify_code,
    },
};

impl<DB> Probe for Pool<DB>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    const GROUP: &'static str = "database";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        answer(self, &Statement(Kind::of(self).sql())).await
    }

    fn resource(&self) -> Option<String> {
        Some(name(self))
    }
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        Self::from_error(error)
    }
}

/// How long a server may be silent to a new connection before it is asked with another one.
const SILENCE: Duration = Duration::from_secs(2);

/// How long an idle connection may be silent before others are asked beside it: longer than a question takes to a server at
/// the other end of the world, so that none is opened in vain round for round.
const SILENT_IDLE: Duration = Duration::from_millis(300);

/// How long SQLite may be silent before it is taken to be locked.
const LOCKED: Duration = Duration::from_millis(400);

/// Why the question has no answer, before it has a public message.
enum Failure {
    Driver(Error),
    /// Of so many connections, none is free.
    Saturated(u32),
    /// SQLite's file is there, and locked by who writes.
    Locked,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl Failure {
    fn public<DB: Database>(self, pool: &Pool<DB>) -> ProbeError {
        match self {
            Self::Saturated(connections) => ProbeError::new(
                ProbeErrorKind::Saturated,
                format!("connection pool exhausted ({connections} of {connections} in use)"),
            ),
            Self::Locked => ProbeError::new(ProbeErrorKind::Saturated, "sqlite is locked by a writer"),
            Self::Driver(error) => {
                let kind = classify(&error);
                let described = described(pool);
                let message = kind.message(&public_name(pool, &described));
                ProbeError::new(kind, message).with_source(error).with_secret(described.text("password: Some("))
            }
        }
    }
}

/// What is asked on a connection.
pub(crate) trait Question<DB: Database>: Sync {
    type Answer: Send;

    fn ask(&self, connection: &mut DB::Connection) -> impl Future<Output = Result<Self::Answer, Error>> + Send;
}

/// A statement that must run; what it finds does not matter.
pub(super) struct Statement(pub(super) &'static str);

impl<DB> Question<DB> for Statement
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    type Answer = ();

    async fn ask(&self, connection: &mut DB::Connection) -> Result<(), Error> {
        // Raw, so that it is one round trip also on a connection that has not seen it before, and behind a proxy that keeps
        // no prepared statements.
        connection.execute(sqlx::raw_sql(self.0)).await.map(drop)
    }
}

/// Asks on an idle connection of the pool if there is one, and says what may be said of a failure.
pub(crate) async fn answer<DB: Database, Q: Question<DB>>(
    pool: &Pool<DB>,
    question: &Q,
) -> Result<Q::Answer, ProbeError> {
    let asked = async {
        let answer = ask(pool, question).await?;
        sqlite_file_is_there(pool, question).await?;
        Ok(answer)
    };
    asked.await.map_err(|failure: Failure| failure.public(pool))
}

async fn ask<DB: Database, Q: Question<DB>>(pool: &Pool<DB>, question: &Q) -> Result<Q::Answer, Failure> {
    if pool.is_closed() {
        return Err(Error::PoolClosed.into());
    }
    // After a restart of the server all idle connections are dead, and each says so at once. One that answers is enough.
    for _ in 0..=pool.size() {
        let Some(idle) = pool.try_acquire() else { break };
        // One may be dead without saying so: behind a firewall that forgot it, or opened by a thread that is blocked.
        let asked = async { Asking::ask(idle, question).await.map_err(Failure::Driver) };
        match answer_or(asked, SILENT_IDLE, other_answer(pool, question)).await {
            Err(Failure::Driver(error)) if is_dead(&error) => {}
            answer => return answer,
        }
    }
    ask_anew(pool, question).await
}

/// What else can be found out while an idle connection is silent.
async fn other_answer<DB: Database, Q: Question<DB>>(
    pool: &Pool<DB>,
    question: &Q,
) -> Option<Result<Q::Answer, Failure>> {
    if Kind::of(pool) == Kind::Sqlite {
        return Some(Err(locked(pool, question, SILENT_IDLE).await));
    }
    ask_anew(pool, question).await.ok().map(Ok)
}

/// Why SQLite is silent: another connection, perhaps of another process, writes, and sqlx waits for it; by default longer than
/// a check does. A disk that does not answer is silent here too.
async fn locked<DB: Database, Q: Question<DB>>(pool: &Pool<DB>, question: &Q, waited: Duration) -> Failure {
    sleep(LOCKED.saturating_sub(waited)).await;
    sqlite_file_is_there(pool, question).await.err().unwrap_or(Failure::Locked)
}

/// Asks on a connection that the pool has made sure of, or opens.
async fn ask_anew<DB: Database, Q: Question<DB>>(pool: &Pool<DB>, question: &Q) -> Result<Q::Answer, Failure> {
    loop {
        if is_saturated(pool) {
            // The counters can't tell a busy server from a dead one: on a server that is stopped or frozen, the
            // application's own attempts soon hold every place of the pool. So the server is asked whether it would let one
            // more in.
            let all = pool.options().get_max_connections();
            match refusal(pool).await {
                Some(error) if classify(&error) != ProbeErrorKind::Saturated => return Err(error.into()),
                // Meanwhile one may have come free.
                _ if is_saturated(pool) => return Err(Failure::Saturated(all)),
                _ => {}
            }
        }
        let asked = pin!(async { Asking::ask(pool.acquire().await?, question).await });
        // While a server refuses or starts up, the pool tries again and again and says nothing until its own time is over.
        let looked = pin!(async {
            sleep(PATIENCE).await;
            match Kind::of(pool) {
                Kind::Sqlite => Some(locked(pool, question, PATIENCE).await),
                _ => refusal(pool).await.map(Failure::Driver),
            }
        });
        match select(asked, looked).await {
            Either::Left((answer, _)) => return Ok(answer?),
            Either::Right((Some(failure), _)) => return Err(failure),
            // It lets new ones in, so what hangs is this attempt: one that was lost on the way, which nobody will answer.
            Either::Right((None, _)) => {}
        }
    }
}

/// A connection with a question under way. If that is dropped, the connection is closed: given back, it would hang there too.
struct Asking<DB: Database>(Option<PoolConnection<DB>>);

impl<DB: Database> Asking<DB> {
    async fn ask<Q: Question<DB>>(connection: PoolConnection<DB>, question: &Q) -> Result<Q::Answer, Error> {
        let mut asking = Self(Some(connection));
        let answer = question.ask(asking.0.as_mut().expect("it was put there")).await;
        let connection = asking.0.take().expect("it was put there");
        if answer.as_ref().is_err_and(is_dead) {
            // Waited for, so that its place in the pool is free; how the parting goes does not matter.
            let _ = connection.close().await;
        }
        answer
    }
}

impl<DB: Database> Drop for Asking<DB> {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}

fn is_saturated<DB: Database>(pool: &Pool<DB>) -> bool {
    pool.size() >= pool.options().get_max_connections() && pool.num_idle() == 0
}

/// Why the server would not let us in, if it would not; asked with a connection that is closed again, and asked anew where
/// there is no answer.
async fn refusal<DB: Database>(pool: &Pool<DB>) -> Option<Error> {
    if Kind::of(pool) == Kind::Sqlite {
        // To connect may create the file, and tells nothing that a look at it does not.
        return None;
    }
    loop {
        match timeout(SILENCE, pool.connect_options().connect()).await {
            Ok(Ok(connection)) => {
                // The answer is known; how the parting goes does not matter.
                let _ = connection.close().await;
                return None;
            }
            Ok(Err(error)) => return Some(error),
            Err(_) => {}
        }
    }
}

/// Whether a connection is of no more use.
fn is_dead(error: &Error) -> bool {
    matches!(error, Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed)
        || classify(error) == ProbeErrorKind::Unreachable
}

/// SQLite keeps reading a file that has been removed, and in WAL mode it may not look at one that was overwritten. The
/// application would lose what it writes there, so the file is looked at by its path.
async fn sqlite_file_is_there<DB: Database, Q: Question<DB>>(pool: &Pool<DB>, question: &Q) -> Result<(), Failure> {
    if Kind::of(pool) != Kind::Sqlite {
        return Ok(());
    }
    let described = described(pool);
    if !described.0.contains("in_memory: false") || !described.0.contains("vfs: None") {
        return Ok(());
    }
    // Other names are no paths: https://www.sqlite.org/c3ref/open.html
    let is_path = |name: &String| !name.is_empty() && name != ":memory:" && !name.starts_with("file:");
    let Some(file) = described.text("filename: ").filter(is_path).map(PathBuf::from) else { return Ok(()) };
    let header = tokio::task::spawn_blocking(move || sqlite_header(file));
    let looked = header.await.map_err(|_| Error::WorkerCrashed)?;
    if looked.map_err(Error::Io)? == Header::Other {
        // No database, or an encrypted one: a connection knows, and does not create a file, for there is one.
        let mut connection = pool.connect_options().connect().await?;
        question.ask(&mut connection).await?;
        let _ = connection.close().await;
    }
    Ok(())
}

#[derive(PartialEq)]
enum Header {
    /// That of a database, or none yet.
    Sqlite,
    Other,
}

fn sqlite_header(file: PathBuf) -> io::Result<Header> {
    // The first 16 bytes of every database: https://www.sqlite.org/fileformat.html, 'The Database Header'.
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut head = Vec::with_capacity(MAGIC.len());
    File::open(file)?.take(MAGIC.len() as u64).read_to_end(&mut head)?;
    Ok(if head.is_empty() || head == MAGIC { Header::Sqlite } else { Header::Other })
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
    pub(super) fn of<DB: Database>(pool: &Pool<DB>) -> Self {
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

    /// The question. SQLite reads its file only in a read transaction, which this begins.
    fn sql(self) -> &'static str {
        if self == Self::Sqlite { "SELECT count(*) FROM sqlite_master" } else { "SELECT 1" }
    }
}

/// Where a pool connects to. `ConnectOptions::to_url_lossy` would be the public way, but it panics on hosts and user names
/// that are no part of a URL. Those of `Any` are the URL that they were made of, and are described as its drivers' are.
pub(super) fn described<DB: Database>(pool: &Pool<DB>) -> Described {
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
pub(crate) fn name<DB: Database>(pool: &Pool<DB>) -> String {
    public_name(pool, &described(pool))
}

fn public_name<DB: Database>(pool: &Pool<DB>, described: &Described) -> String {
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
        Error::Database(error) => match error.code() {
            Some(code) => classify_code(&code),
            // MySQL refuses a connection before it speaks of codes; the number is to be had only as it is printed.
            None => match Described::by_debug(error).number("number: ") {
                Some(1040 | 1203 | 1226) => ProbeErrorKind::Saturated,
                Some(1129 | 1130) => ProbeErrorKind::Rejected,
                _ => ProbeErrorKind::Failed,
            },
        },
        _ => ProbeErrorKind::Failed,
    }
}
