//! Care for the store itself: verify, back up, back up keys.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate_data::store::{Progress, Store, StoreError, Verified};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{ArchiveFiles, Archives};

/// The verbs that look after a store. Cheap to clone.
#[derive(Clone)]
pub struct StoreCare {
    store: Store,
    archives: Archives,
    backups: PathBuf,
    key_backups: PathBuf,
    // They read the whole store: one at a time is enough of that.
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
    pub async fn verify(&self, progress: Progress) -> Result<(Verified, ArchiveFiles), BackupError> {
        let _turn = self.turn()?;
        let mut verified = self.store.verify(progress).await?;
        let mut files = self.archives.check_files().await?;
        verified.findings.append(&mut files.damaged);
        verified.findings.truncate(Verified::MAX_FINDINGS);
        Ok((verified, files))
    }

    /// Writes a consistent copy to `name` in the folder for backups, and returns its path and its size in bytes.
    ///
    /// It appears under its name when it is complete, never before, and none is ever overwritten.
    pub async fn backup(&self, name: &str, progress: Progress) -> Result<(PathBuf, u64), BackupError> {
        check_name(name)?;
        self.store.require(|engine| engine.online_backup, "copy itself: take a base backup, or use pg_dump")?;
        let _turn = self.turn()?;
        let path = self.free(&self.backups, name).await?;
        let bytes = self.store.backup(path.clone(), progress).await?;
        Ok((path, bytes))
    }

    /// Writes a consistent copy of the keys of data subjects to `name` in the folder for backups of keys, by the same
    /// rules, and returns its path and its size in bytes.
    pub async fn backup_keys(&self, name: &str) -> Result<(PathBuf, u64), BackupError> {
        check_name(name)?;
        self.store.require(|engine| engine.erasure, "keep keys of data subjects")?;
        let _turn = self.turn()?;
        let path = self.free(&self.key_backups, name).await?;
        let bytes = self.store.backup_keys(path.clone()).await?;
        Ok((path, bytes))
    }

    fn turn(&self) -> Result<SemaphorePermit<'_>, BackupError> {
        self.turn.try_acquire().map_err(|_| BackupError::Running)
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
    use super::check_name;

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
