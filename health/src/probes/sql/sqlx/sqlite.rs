//! SQLite, whose server is a file. Like `pool.rs`, compiled for each version of sqlx.
//!
//! It does not use the algorithm for pools: a connection does not die, one outside the pool shows nothing and may create the file, and a
//! silent connection waits for another writer. What can fail is the file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::timeout;

use super::{
    pool::{Query, SqlxPool, debug_fields},
    sqlx::{ConnectOptions as _, Connection as _, Database, Error},
};
use crate::{
    error::ProbeError,
    probes::{
        classify::Classify,
        pool::{Pool as _, TakeError, exhausted, locked},
    },
};

/// After this time without a response the database is considered locked.
const BUSY_TIMEOUT: Duration = Duration::from_millis(400);

/// Runs a query on a connection of the pool, and checks the file while the connection is open.
pub(super) async fn run<DB: Database, Q: Query<DB>>(
    pool: &SqlxPool<DB>,
    file: &SqliteFile,
    query: &Q,
) -> Result<Q::Output, ProbeError> {
    let failed = |error: Error| pool.label().error(error);
    let queried = async {
        let mut taken = match pool.take_idle().await {
            Some(taken) => taken,
            None => {
                let usage = pool.usage();
                if usage.taken >= usage.max {
                    return Err(exhausted(usage.max));
                }
                pool.acquire().await
            }
        }
        .map_err(|error| match error {
            TakeError::Driver(error) => failed(error),
            _ => failed(Error::PoolTimedOut),
        })?;
        let result = query.run(taken.connection()).await;
        if result.as_ref().is_err_and(Classify::breaks_connection) {
            SqlxPool::discard(taken).await;
            return result.map_err(failed);
        }
        let checked = match result {
            Ok(output) => file.check(pool, query, Connected::Yes).await.map(|()| output),
            Err(error) => Err(error),
        };
        SqlxPool::release(taken);
        checked.map_err(failed)
    };
    match timeout(BUSY_TIMEOUT, Box::pin(queried)).await {
        Ok(result) => result,
        // Another connection, perhaps of another process, writes, and sqlx waits for it, by default for longer than the check's limit. A
        // disk that does not respond also ends here.
        Err(_) => match file.check(pool, query, Connected::Unknown).await {
            Ok(()) => Err(locked()),
            Err(error) => Err(failed(error)),
        },
    }
}

/// The file of a database, as the probe last saw it.
///
/// SQLite continues to read a file that was removed or replaced, and in WAL mode it may not notice that one was overwritten. The application
/// would lose what it writes there, so the path is checked, too.
///
/// The file itself is never opened, except by SQLite: a process that closes a file loses its locks on it, those of SQLite's connections,
/// too (<https://www.sqlite.org/howtocorrupt.html>, 2.2). An overwritten file in WAL mode is detected by a new connection, which is opened
/// only if the file has changed since an earlier run. In WAL mode that happens at a checkpoint.
///
/// A replaced file is detected only on Linux, from the open files of this process. If one of them was deleted under the database's path,
/// or was at that path in an earlier run, a connection still uses it. Connections to a file that was moved before the first run are
/// detected until one has opened the new file.
#[derive(Default)]
pub(super) struct SqliteFile {
    seen: Arc<Mutex<Seen>>,
}

/// Whether a connection of the pool is open while the file is checked.
#[derive(Clone, Copy, PartialEq)]
enum Connected {
    Yes,
    Unknown,
}

/// Device and inode.
type FileId = (u64, u64);

#[derive(Default)]
struct Seen {
    /// The file that all connections use.
    current: Option<FileId>,
    /// Files that were at the path earlier.
    earlier: Vec<FileId>,
    /// That of a file in WAL mode which a new connection could read, or which the first run saw.
    change: Option<Change>,
}

/// The last change of a file.
#[derive(Clone, Copy, PartialEq)]
struct Change {
    size: u64,
    at: SystemTime,
}

impl SqliteFile {
    /// # Errors
    ///
    /// Returns an error if the file does not exist, was replaced, or is not a database.
    async fn check<DB: Database, Q: Query<DB>>(
        &self,
        pool: &SqlxPool<DB>,
        query: &Q,
        connected: Connected,
    ) -> Result<(), Error> {
        let fields = debug_fields(&pool.0);
        if !fields.contains("in_memory: false") || !fields.contains("vfs: None") {
            return Ok(());
        }
        // Other names are not paths: https://www.sqlite.org/c3ref/open.html
        let is_path = |name: &String| !name.is_empty() && name != ":memory:" && !name.starts_with("file:");
        let Some(file) = fields.text("filename: ").filter(is_path).map(PathBuf::from) else { return Ok(()) };
        let seen = Arc::clone(&self.seen);
        let checked = tokio::task::spawn_blocking(move || seen.lock().check(&file, connected));
        let change = checked.await.map_err(|_| Error::WorkerCrashed)?.map_err(Error::Io)?;
        if let Some(change) = change {
            // It creates no file, because there is one.
            let mut connection = pool.0.connect_options().connect().await?;
            query.run(&mut connection).await?;
            let _ = connection.close().await;
            self.seen.lock().change = Some(change);
        }
        Ok(())
    }
}

impl Seen {
    /// Checks the file, while a connection of the pool is open. Returns its last change if it may have been overwritten.
    fn check(&mut self, file: &Path, connected: Connected) -> io::Result<Option<Change>> {
        let metadata = fs::metadata(file)?;
        self.check_id(file, &metadata, connected)?;
        if connected == Connected::Unknown || !has_wal(file)? {
            return Ok(None);
        }
        let change = Change { size: metadata.len(), at: metadata.modified()? };
        let last = *self.change.get_or_insert(change);
        Ok(Some(change).filter(|change| *change != last))
    }

    /// Checks that the connections use the file at the path.
    fn check_id(&mut self, file: &Path, metadata: &fs::Metadata, connected: Connected) -> io::Result<()> {
        let Some(id) = id_of(metadata) else { return Ok(()) };
        // Connections that were opened since use it too.
        if self.current == Some(id) {
            return Ok(());
        }
        self.earlier.extend(self.current.take());
        self.earlier.retain(|earlier| *earlier != id);
        let Some(open) = open_files(file) else { return Ok(()) };
        let has_old = open.deleted || self.earlier.iter().any(|earlier| open.ids.contains(earlier));
        if has_old || connected == Connected::Yes && !open.ids.contains(&id) {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the file was replaced, and connections use the old one",
            ));
        }
        if connected == Connected::Yes {
            self.earlier.clear();
            self.current = Some(id);
        }
        Ok(())
    }
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "other systems have none")]
fn id_of(metadata: &fs::Metadata) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt as _;

    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn id_of(_: &fs::Metadata) -> Option<FileId> {
    None
}

/// The open files of this process.
struct OpenFiles {
    ids: Vec<FileId>,
    /// One of them was deleted at the database's path.
    deleted: bool,
}

/// Returns `None` on systems without `/proc`.
fn open_files(file: &Path) -> Option<OpenFiles> {
    let mut deleted = fs::canonicalize(file).ok()?.into_os_string();
    deleted.push(" (deleted)");
    let mut open = OpenFiles { ids: Vec::new(), deleted: false };
    for descriptor in fs::read_dir("/proc/self/fd").ok()?.flatten() {
        open.deleted |= fs::read_link(descriptor.path()).is_ok_and(|path| path.as_os_str() == deleted);
        // Through the link, which refers to the open file itself.
        open.ids.extend(fs::metadata(descriptor.path()).ok().as_ref().and_then(id_of));
    }
    Some(open)
}

/// Whether the database is in WAL mode and has an open connection.
fn has_wal(file: &Path) -> io::Result<bool> {
    let mut wal = fs::canonicalize(file)?.into_os_string();
    wal.push("-wal");
    fs::exists(wal)
}
