//! Care for the store itself: verify, back up, back up keys.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate_data::store::{Progress, Store, StoreError, Verified};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ArchiveFiles, Archives};

/// The verbs that look after a store. Cheap to clone.
#[derive(Clone)]
pub struct StoreCare {
    store: Store,
    archives: Archives,
    backups: PathBuf,
    key_backups: PathBuf,
    // They read the whole store: one at a time is enough of that. Held by the work, and not by who waits for it.
    turn: Arc<Semaphore>,
}

/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The name could be more than a file's.
    #[error(
        "`{name}` is no name for a file here: 1 to 128 letters, digits, `.`, `-` and `_`, beginning with a letter or digit, and \
         not ending with `-wal`, `-shm` or `-journal`, which are SQLite's own"
    )]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// There is one of this name.
    #[error("a backup `{name}` exists already")]
    Exists {
        /// The name.
        name: String,
    },
    /// Another backup or verification is running.
    #[error("another backup or verification is running")]
    Running,
    /// The disk failed.
    #[error("the backup could not be written")]
    Io(#[from] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StoreCare {
    /// The verbs on `store`; backups go into the folder `backups`, those of keys into `key_backups`: whoever copies the
    /// one folder elsewhere does not copy the other with it.
    pub fn new(store: Store, archives: Archives, backups: PathBuf, key_backups: PathBuf) -> Self {
        Self { store, archives, backups, key_backups, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Checks every stored byte, and the files of archives: damaged ones are among the findings.
    ///
    /// # Errors
    /// [`BackupError::Running`] and the store's own.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the work: until that ends, another one is refused. So it is with a backup.
    pub async fn verify(&self, progress: Progress) -> Result<(Verified, ArchiveFiles), BackupError> {
        let (turn, care) = (self.turn()?, self.clone());
        let verifying = async move {
            let mut verified = care.store.verify(progress).await?;
            let mut files = care.archives.check_files().await?;
            verified.findings.append(&mut files.damaged);
            verified.findings.truncate(Verified::MAX_FINDINGS);
            Ok((verified, files))
        };
        self.to_its_end("store/verify", turn, verifying).await
    }

    /// Writes a consistent copy to `name` in the folder for backups, and returns its path and its size in bytes.
    ///
    /// It appears under its name when it is complete, never before, and none is ever overwritten.
    pub async fn backup(&self, name: &str, progress: Progress) -> Result<(PathBuf, u64), BackupError> {
        check_name(name)?;
        self.store.require(|engine| engine.online_backup, "copy itself: take a base backup, or use pg_dump")?;
        let (turn, care, name) = (self.turn()?, self.clone(), name.to_owned());
        let copying = async move {
            let path = care.free(&care.backups, &name).await?;
            let bytes = care.store.backup(path.clone(), progress).await?;
            Ok((path, bytes))
        };
        self.to_its_end("store/backup", turn, copying).await
    }

    /// Writes a consistent copy of the keys of data subjects to `name` in the folder for backups of keys, by the same
    /// rules, and returns its path and its size in bytes.
    pub async fn backup_keys(&self, name: &str) -> Result<(PathBuf, u64), BackupError> {
        check_name(name)?;
        self.store.require(|engine| engine.erasure, "keep keys of data subjects")?;
        let (turn, care, name) = (self.turn()?, self.clone(), name.to_owned());
        let copying = async move {
            let path = care.free(&care.key_backups, &name).await?;
            let bytes = care.store.backup_keys(path.clone()).await?;
            Ok((path, bytes))
        };
        self.to_its_end("store/backup-keys", turn, copying).await
    }

    fn turn(&self) -> Result<OwnedSemaphorePermit, BackupError> {
        self.turn.clone().try_acquire_owned().map_err(|_| BackupError::Running)
    }

    /// Does `work`, whose `turn` ends with it: whoever asked may be gone long before.
    async fn to_its_end<T: Send + 'static>(
        &self,
        what: &'static str,
        turn: OwnedSemaphorePermit,
        work: impl Future<Output = Result<T, BackupError>> + Send + 'static,
    ) -> Result<T, BackupError> {
        let work = async move {
            let _turn = turn;
            work.await
        };
        let done = self.store.env().tasks().to_its_end(what, work).await;
        done.unwrap_or_else(|| Err(StoreError::Closed.into()))
    }

    /// The path of `name` in `folder`, which is made if it is not there. Refuses one that is taken.
    async fn free(&self, folder: &Path, name: &str) -> Result<PathBuf, BackupError> {
        let (disk, folder, path) = (self.store.env().disk().clone(), folder.to_owned(), folder.join(name));
        let of_disk = path.clone();
        let taken = move || disk.create_dir_all(&folder).and_then(|()| disk.exists(&of_disk));
        if self.store.env().run_blocking(taken).await? {
            return Err(BackupError::Exists { name: name.to_owned() });
        }
        Ok(path)
    }
}

pub(super) fn check_name(name: &str) -> Result<(), BackupError> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let holds = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    // Beside a backup SQLite would take such a file for its own, and delete it.
    let sidecar = ["-wal", "-shm", "-journal"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
    if starts && holds && !sidecar && name.len() <= 128 {
        return Ok(());
    }
    Err(BackupError::Name { name: name.chars().take(64).collect() })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex, mpsc},
        time::Duration,
    };

    use quorate_data::{
        event::NewEvent,
        store::{AppendBatch, ExpectedVersion, Progress, sqlite},
    };
    use quorate_runtime::Env;

    use super::{Archives, BackupError, StoreCare, check_name};

    /// Work that stands still when it tells of its progress first, until what is returned last is dropped.
    fn stands_still() -> (Progress, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let may_go_on = Mutex::new(may_go_on);
        let progress = move |_, _| {
            if begun.send(()).is_ok() {
                let _ = may_go_on.lock().unwrap().recv();
            }
        };
        (Arc::new(progress), has_begun, go_on)
    }

    #[tokio::test(flavor = "multi_thread")]
    #[expect(clippy::disallowed_methods, reason = "whoever asks is taken away in the middle of it")]
    async fn work_whose_caller_went_away_keeps_its_place_until_it_ends() {
        let (folder, env) = (tempfile::tempdir().unwrap(), Env::real());
        let of = |name: &str| folder.path().join(name);
        let store = sqlite::open(&env, sqlite::Config::at(of("s.db"))).await.unwrap();
        let event = NewEvent::new("1", "/test", "noted");
        let batch = AppendBatch::to("notes".parse().unwrap(), ExpectedVersion::Any, vec![event]);
        store.append(batch).await.unwrap();
        let archives = Archives::new(store.clone(), of("archives"));
        let care = StoreCare::new(store, archives, of("backups"), of("keys"));
        let quiet = || -> Progress { Arc::new(|_, _| {}) };
        for is_backup in [true, false] {
            let (progress, has_begun, go_on) = stands_still();
            let asked = care.clone();
            let first = tokio::spawn(async move {
                if is_backup {
                    asked.backup("b", progress).await.map(drop)
                } else {
                    asked.verify(progress).await.map(drop)
                }
            });
            tokio::task::block_in_place(|| has_begun.recv().unwrap());
            first.abort();
            assert!(first.await.unwrap_err().is_cancelled());
            for refused in [
                care.backup("b", quiet()).await.map(drop),
                care.backup_keys("k").await.map(drop),
                care.verify(quiet()).await.map(drop),
            ] {
                assert!(matches!(refused, Err(BackupError::Running)), "{refused:?}");
            }
            drop((go_on, has_begun));
            while matches!(care.verify(quiet()).await, Err(BackupError::Running)) {
                env.sleep(Duration::from_millis(1)).await;
            }
        }
        let again = care.backup("b", quiet()).await;
        assert!(matches!(again, Err(BackupError::Exists { .. })), "it was done though nobody waited: {again:?}");
    }

    #[test]
    fn a_backups_name_cannot_leave_its_folder() {
        for name in ["monday", "2026-11-22.db", "a_b"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "../x",
            "/etc/passwd",
            "a\\b",
            "a b",
            "a\0",
            "é",
            "monday.db-wal",
            "monday.db-journal",
            "monday.db-SHM",
            &"x".repeat(129),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
