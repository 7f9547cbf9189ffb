//! What must outlive the process: one SQLite file, one thread that owns it.
//!
//! Every commit is on the disk before it is acknowledged (`synchronous=FULL` on a write-ahead
//! log). The file is locked for as long as it is open: a second gateway on the same store would
//! not see this one's revocations, so it does not start.

mod revocations;
mod schema;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

pub use revocations::{MAX_REASON, MAX_REVOCATIONS, NewRevocation, Record};

/// Jobs that may wait for the disk; more are refused.
const QUEUE: usize = 256;
/// How long another process' lock is waited for: one that is just ending lets go within this.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full; nothing was changed.
    #[error("the disk of the store is full")]
    DiskFull,
    /// There are [`MAX_REVOCATIONS`] already; nothing was changed.
    #[error("the store holds {MAX_REVOCATIONS} live revocations, as many as it may")]
    TooMany,
    /// Too many jobs wait for the disk.
    #[error("the store is busy")]
    Busy,
    /// Another process has the file open.
    #[error("{} is in use by another process: each gateway needs its own store.path", .0.display())]
    InUse(PathBuf),
    /// It is not a store of ours, or a damaged one.
    #[error("{}: {what}", .path.display())]
    Unsound {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file system.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// SQLite, about something that should not happen.
    #[error("the store failed: {0}")]
    Sqlite(rusqlite::Error),
    /// The store's thread has ended.
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            _ => Self::Sqlite(error),
        }
    }
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The way to the store's thread; clones share it. The last one to go waits until what was
/// submitted is done and the file is closed.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// None: being dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The thread ends when its queue is empty and nobody can add to it.
        self.jobs = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's thread ended by a panic");
        }
    }
}

impl Store {
    /// Opens or makes the file, checks it whole, brings its schema up to date and starts the
    /// thread. Blocks; to be called before the gateway serves.
    ///
    /// # Errors
    /// Anything but a sound store of ours that nobody else has open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = connect(path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new().name("store".to_owned());
        let spawned = thread.spawn(move || {
            let mut connection = connection;
            while let Some(job) = queue.blocking_recv() {
                job(&mut connection);
            }
            // Folds the log into the file, so that a backup of the file alone is whole.
            if let Err((_, error)) = connection.close() {
                tracing::warn!(%error, "the store was not closed properly");
            }
        });
        let thread = spawned.map_err(|error| StoreError::Io { path: path.to_owned(), error })?;
        Ok(Self { shared: Arc::new(Shared { jobs: Some(jobs), thread: Some(thread) }) })
    }

    /// Runs `job` on the store's thread. It runs to its end even when the caller stops waiting.
    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = self.submit(job)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// As [`Self::call`], for a caller outside of any runtime.
    fn call_blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = self.submit(job)?;
        answer.blocking_recv().map_err(|_| StoreError::Closed)?
    }

    fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let (tell, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody may be waiting any more; the work is done all the same.
            let _gone = tell.send(job(connection));
        });
        let jobs = self.shared.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        Ok(answer)
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    create(path)?;
    let told = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::InUse(path.to_owned())
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StoreError::Unsound { path: path.to_owned(), what: error.to_string() }
        }
        _ => error.into(),
    };
    let mut connection = Connection::open(path).map_err(told)?;
    connection.busy_timeout(LOCK_PATIENCE).map_err(told)?;
    // Exclusive before the log is first touched: no shared memory file, and no second process.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(told)?;
    connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))
        .map_err(told)
        .and_then(|mode| match mode.as_str() {
            "wal" => Ok(()),
            other => Err(StoreError::Unsound {
                path: path.to_owned(),
                what: format!("this file system allows no write-ahead log ({other})"),
            }),
        })?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(told)?;
    connection.pragma_update(None, "foreign_keys", "ON").map_err(told)?;
    connection.pragma_update(None, "trusted_schema", "OFF").map_err(told)?;
    let told_whole: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(told)?;
    if told_whole != "ok" {
        return Err(StoreError::Unsound { path: path.to_owned(), what: told_whole });
    }
    schema::migrate(&mut connection).map_err(|error| match error {
        schema::Error::Foreign(what) => StoreError::Unsound { path: path.to_owned(), what },
        schema::Error::Sqlite(error) => told(error),
    })?;
    Ok(connection)
}

/// Makes the file, readable by its owner alone (SQLite gives the log the same mode), and makes
/// sure that its name is on the disk as well.
fn create(path: &Path) -> Result<(), StoreError> {
    let io = |error| StoreError::Io { path: path.to_owned(), error };
    if path.exists() {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder).map_err(io)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file.sync_all().map_err(io)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests;
