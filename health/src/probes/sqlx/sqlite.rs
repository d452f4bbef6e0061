//! SQLite, whose server is a file. Like `pool.rs`, read once for each version of sqlx.
//!
//! It goes its own way to a connection, because no rule of the algorithm for pools applies: a connection does not die, one outside
//! the pool shows nothing and may create the file, and silence means that another connection writes. What can go wrong is the file.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::timeout;

use super::{
    pool::{Query, SqlxPool, described},
    sqlx::{ConnectOptions as _, Connection as _, Database, Error},
};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probes::pool::{Failure, Pool as _, TakeError, exhausted},
};

/// How long SQLite may be silent before it is taken to be locked.
const BUSY_TIMEOUT: Duration = Duration::from_millis(400);

/// Runs a query on a connection of the pool, and looks at the file while that is open.
pub(super) async fn run<DB: Database, Q: Query<DB>>(
    pool: &SqlxPool<DB>,
    file: &SqliteFile,
    query: &Q,
) -> Result<Q::Output, ProbeError> {
    let failed = |error| Failure::Driver(Arc::new(error)).into_probe_error(pool);
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
        if result.as_ref().is_err_and(SqlxPool::<DB>::is_dead) {
            SqlxPool::discard(taken).await;
            return result.map_err(failed);
        }
        let looked = match result {
            Ok(output) => file.look(pool, query, Connected::Yes).await.map(|()| output),
            Err(error) => Err(error),
        };
        SqlxPool::release(taken);
        looked.map_err(failed)
    };
    match timeout(BUSY_TIMEOUT, Box::pin(queried)).await {
        Ok(result) => result,
        // Another connection, perhaps of another process, writes, and sqlx waits for it; by default longer than a check does. A
        // disk that does not respond is silent here too.
        Err(_) => match file.look(pool, query, Connected::Unknown).await {
            Ok(()) => Err(ProbeError::new(ProbeErrorKind::Saturated, "sqlite is locked by a writer")),
            Err(error) => Err(failed(error)),
        },
    }
}

/// The file of a database, as the probe last saw it.
///
/// SQLite keeps reading a file that has been removed or replaced, and in WAL mode it may not look at one that was overwritten. The
/// application would lose what it writes there, so the file is looked at by its path.
///
/// A file that replaces another one is found out on Linux only, from the files that this process has open. Where one of them was
/// deleted under the database's path, or is a file that this probe saw there earlier, a connection still has it. Connections that
/// were opened to a file which was moved away before the first run are found out as long as none has the new one.
#[derive(Default)]
pub(super) struct SqliteFile {
    seen: Arc<Mutex<Seen>>,
}

/// Whether a connection of the pool is open while the file is looked at.
#[derive(Clone, Copy, PartialEq)]
enum Connected {
    Yes,
    Unknown,
}

/// Device and inode.
type FileId = (u64, u64);

#[derive(Default)]
struct Seen {
    /// The file that all connections have.
    current: Option<FileId>,
    /// Files that the path led to earlier.
    earlier: Vec<FileId>,
}

impl SqliteFile {
    /// # Errors
    ///
    /// The file is gone, was replaced, or is not a database.
    async fn look<DB: Database, Q: Query<DB>>(
        &self,
        pool: &SqlxPool<DB>,
        query: &Q,
        connected: Connected,
    ) -> Result<(), Error> {
        let described = described(&pool.0);
        if !described.says("in_memory: false") || !described.says("vfs: None") {
            return Ok(());
        }
        // Other names are not paths: https://www.sqlite.org/c3ref/open.html
        let is_path = |name: &String| !name.is_empty() && name != ":memory:" && !name.starts_with("file:");
        let Some(file) = described.text("filename: ").filter(is_path).map(PathBuf::from) else { return Ok(()) };
        let seen = Arc::clone(&self.seen);
        let looked = tokio::task::spawn_blocking(move || {
            let header = header(&file)?;
            Ok((header, seen.lock().check(&file, connected)))
        });
        let (header, checked) = looked.await.map_err(|_| Error::WorkerCrashed)?.map_err(Error::Io)?;
        if header == Header::Other {
            // Not a database, or an encrypted one: a connection knows, and does not create a file, for there is one.
            let mut connection = pool.0.connect_options().connect().await?;
            query.run(&mut connection).await?;
            let _ = connection.close().await;
        }
        checked.map_err(Error::Io)
    }
}

impl Seen {
    /// Whether the connections have the file that the path leads to.
    fn check(&mut self, file: &Path, connected: Connected) -> io::Result<()> {
        let Some(id) = id_of(&fs::metadata(file)?) else { return Ok(()) };
        // Connections that were opened since have it too.
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
                "the file was replaced, and connections have the old one",
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

/// What this process has open.
struct OpenFiles {
    ids: Vec<FileId>,
    /// One of them was deleted under the path that was asked for.
    deleted: bool,
}

/// Nothing where it cannot be found out.
fn open_files(file: &Path) -> Option<OpenFiles> {
    let mut deleted = fs::canonicalize(file).ok()?.into_os_string();
    deleted.push(" (deleted)");
    let mut open = OpenFiles { ids: Vec::new(), deleted: false };
    for descriptor in fs::read_dir("/proc/self/fd").ok()?.flatten() {
        open.deleted |= fs::read_link(descriptor.path()).is_ok_and(|path| path.as_os_str() == deleted);
        // Through the link, which leads to the open file itself.
        open.ids.extend(fs::metadata(descriptor.path()).ok().as_ref().and_then(id_of));
    }
    Some(open)
}

#[derive(PartialEq)]
enum Header {
    /// That of a database, or none yet.
    Sqlite,
    Other,
}

fn header(file: &Path) -> io::Result<Header> {
    // The first 16 bytes of every database: https://www.sqlite.org/fileformat.html, 'The Database Header'.
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut head = Vec::with_capacity(MAGIC.len());
    File::open(file)?.take(MAGIC.len() as u64).read_to_end(&mut head)?;
    Ok(if head.is_empty() || head == MAGIC { Header::Sqlite } else { Header::Other })
}
