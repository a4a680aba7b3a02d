//! Checking a file that no node has open: a backup, or the store of a node that was stopped.
//!
//! Nothing is changed, not even what a crash left behind: a write-ahead log is read and stays as it is. A file without one is
//! opened as something that nobody writes to, so that it may lie on a disk that nobody can write to.

use std::{
    io,
    path::{Path, PathBuf},
};

use quorate_runtime::Env;
use rusqlite::Connection;

use super::{
    connection, mark,
    open::{beside, canonical, damaged, has_bytes, not_lost},
    restore::hold,
    tables, verify, vfs,
};
use crate::store::{OpenError, Progress, StoreError, Verified};

/// What [`verify_file`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedFile {
    /// What a node would have found, but for keys.
    pub verified: Verified,
    /// Events whose data is sealed with the key of a data subject. Their bytes and their place in the hash chain were
    /// checked, and not whether there is a key that opens them: a backup comes without keys.
    pub sealed: u64,
}

/// Checks every stored byte of the store or backup at `path`, as [`Store::verify`](crate::store::Store::verify) does for one
/// that is open. Changes nothing.
///
/// `progress` is told how many of the file's events are checked, more or less. Takes as long as reading the file, and more
/// where there are many streams; takes some 60 MB of memory.
///
/// # Errors
/// [`OpenError::Locked`] while a node has it open; [`OpenError::Lost`] where the file is empty and a log, mark or keys of its
/// store lie beside it; [`OpenError::Foreign`], [`OpenError::Newer`] and [`OpenError::Older`] for
/// what is no store, or none of this version; [`OpenError::Corrupt`] where it is so damaged that nothing else can be said.
/// Damage that is found besides is in the answer.
///
/// # Cancel safety
/// Dropping the future abandons the wait, not the work, which changes nothing.
///
/// # Example
/// ```
/// use quorate_data::store::sqlite;
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let (env, monday) = (quorate_runtime::Env::real(), folder.path().join("monday.db"));
/// # let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("shop.db"))).await?;
/// store.backup(monday.clone(), std::sync::Arc::new(|_, _| {})).await?;
///
/// let found = sqlite::verify_file(&env, monday, std::sync::Arc::new(|_, _| {})).await?;
/// assert!(found.verified.is_sound());
/// # store.close().await?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub async fn verify_file(env: &Env, path: PathBuf, progress: Progress) -> Result<VerifiedFile, OpenError> {
    let blocking_env = env.clone();
    env.run_blocking(move || inspect(&blocking_env, &path, &progress)).await
}

fn inspect(env: &Env, path: &Path, progress: &Progress) -> Result<VerifiedFile, OpenError> {
    let path = &*canonical(env, path)?;
    if env.disk().list(path).is_ok() {
        return Err(OpenError::Io { path: path.into(), cause: io::ErrorKind::IsADirectory.into() });
    }
    let size = env.disk().size(path).map_err(|cause| OpenError::Io { path: path.into(), cause })?;
    let _untouched = hold(env, path)?;
    // SQLite would delete the log beside a file without a byte.
    not_lost(env, path)?;
    if size == 0 {
        return Err(OpenError::Corrupt { path: path.into(), what: "it is empty".to_owned() });
    }
    let sqlite = |cause| tables::open_error(path, cause);
    let has_log = has_bytes(env, &beside(path, "-wal"))?;
    let connection = if has_log { connection::reader(path) } else { connection::reader_of_unchanging(path) };
    let connection = connection.map_err(sqlite)?;
    // Ended by closing the connection, if no damage has ended it before.
    connection.execute_batch("BEGIN").map_err(sqlite)?;
    tables::recognise(path, &connection)?;
    check(env, path, &connection, progress).map_err(|cause| damaged(path, cause))
}

fn check(env: &Env, path: &Path, connection: &Connection, progress: &Progress) -> Result<VerifiedFile, StoreError> {
    // A log that is damaged in its middle ends there for SQLite: what it reads is then sound, and not all there is.
    let log = vfs::check_log(connection).and_then(|()| mark::check(&**env.disk(), path, connection));
    let (mut verified, sealed) = verify::run_without_keys(connection, progress)?;
    if let Err(cause) = log {
        verify::note(&mut verified, &cause);
    }
    Ok(VerifiedFile { verified, sealed })
}
