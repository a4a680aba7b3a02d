//! What the tests of the embedded store share.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion, Limits, OpenError, Progress, Store, conformance::Place, sqlite},
};
use quorate_runtime::{BoxFuture, Env};
use tempfile::TempDir;

/// A folder with one store in it.
pub(crate) struct Folder {
    folder: TempDir,
    /// How often the store crashed: each life has files of its own.
    crashes: AtomicUsize,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), crashes: AtomicUsize::new(0) }
    }

    /// Where the store's present file is.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join(format!("life-{}.db", self.crashes.load(Ordering::Relaxed)))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Opens the store with the default limits.
    pub(crate) async fn store(&self) -> Store {
        self.open(Limits::default()).await
    }
}

impl Place for Folder {
    fn open(&self, limits: Limits) -> BoxFuture<'_, Store> {
        Box::pin(async move {
            let config = sqlite::Config { limits, ..sqlite::Config::at(self.file()) };
            sqlite::open(&Env::real(), config).await.unwrap()
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path(name)
    }

    /// A crash is a photograph of the files: what the system would have after a kill at this moment.
    fn crash(&self, store: Store) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let from = self.file();
            self.crashes.fetch_add(1, Ordering::Relaxed);
            photograph(&from, &self.file());
            drop(store);
        })
    }
}

/// Copies a store's files as of one moment.
pub(crate) fn photograph(from: &Path, to: &Path) {
    // A reader keeps the write-ahead log from being checkpointed or begun anew while the files are copied.
    let pin = raw(from);
    pin.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").unwrap();
    std::fs::copy(from, to).unwrap();
    for suffix in ["-wal", ".mark", ".keys", ".keys-wal"] {
        if with_suffix(from, suffix).exists() {
            std::fs::copy(with_suffix(from, suffix), with_suffix(to, suffix)).unwrap();
        }
    }
}

/// A connection that a test reads or damages a store through. It writes pages whose checksums are right, so that what a test
/// damages is found by the checksums of rows.
pub(crate) fn raw(path: &Path) -> rusqlite::Connection {
    let file_system = sqlite::file_system().unwrap();
    rusqlite::Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), file_system).unwrap()
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// For whoever does not want to know how far it is.
pub(crate) fn quiet() -> Progress {
    Arc::new(|_, _| {})
}

/// Opens the store at `path`.
pub(crate) async fn open(path: &Path) -> Result<Store, OpenError> {
    sqlite::open(&Env::real(), sqlite::Config::at(path)).await
}

pub(crate) fn event(id: impl ToString) -> NewEvent {
    let id = id.to_string();
    let data = format!("{{\"of\": {id:?}}}");
    NewEvent::new(id, "/test", "thing.happened").json(data)
}

pub(crate) fn batch(stream: &str, events: Vec<NewEvent>) -> AppendBatch {
    AppendBatch::to(stream.parse().unwrap(), ExpectedVersion::Any, events)
}

/// Waits a moment of real time, between looks at another process.
pub(crate) fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}
