//! Restoring a store from a backup: a copy that is checked, on a timeline of its own.
//!
//! Every page is read and checked on the way, so that a backup that rotted is found now and not in a year; what only
//! `verify` can tell, whether the pages agree with each other, it tells once the store is open.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use quorate_runtime::{
    Env,
    disk::{Lock, unfinished},
};

use super::{
    checkpoint,
    connection::{corrupt, failed},
    ledger,
    open::{beside, canonical, damaged, take_lock},
    tables, vfs,
};
use crate::store::{OpenError, Progress, erasure::Ledger};

/// Makes `backup` the store at `path`, on a new timeline: tokens from before are refused rather than misread.
///
/// `progress` is told how many of the backup's bytes are copied.
///
/// Keys are not in a backup: the file `<path>.keys` must be in place before the store is opened, if anything in it is about
/// a data subject. See [`erasure`](crate::store::erasure) for what to do, and [`restore_with`] for the ledger.
///
/// # Errors
/// [`OpenError::Io`] with `AlreadyExists` if there is a store at `path`; a restore never overwrites.
pub async fn restore(env: &Env, backup: PathBuf, path: PathBuf, progress: Progress) -> Result<(), OpenError> {
    restore_and(env, backup, path, None, progress).await
}

/// As [`restore`], and whoever was erased according to `ledger` stays erased, however old the backup and the keys are.
///
/// # Errors
/// [`OpenError::LedgerOfAnotherStore`] if `ledger` was not exported from the store that `backup` is of.
pub async fn restore_with(
    env: &Env,
    backup: PathBuf,
    path: PathBuf,
    ledger: Ledger,
    progress: Progress,
) -> Result<(), OpenError> {
    restore_and(env, backup, path, Some(ledger), progress).await
}

async fn restore_and(
    env: &Env,
    backup: PathBuf,
    path: PathBuf,
    ledger: Option<Ledger>,
    progress: Progress,
) -> Result<(), OpenError> {
    let blocking_env = env.clone();
    env.run_blocking(move || copy_and_raise(&blocking_env, &backup, &path, ledger.as_ref(), &progress)).await
}

/// What the disk says of the file at `path`.
fn of_file(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |cause| OpenError::Io { path, cause }
}

fn copy_and_raise(
    env: &Env,
    backup: &Path,
    path: &Path,
    ledger: Option<&Ledger>,
    progress: &Progress,
) -> Result<(), OpenError> {
    let path = &*canonical(env, path)?;
    let lock = take_lock(env, path)?;
    // A write-ahead log that lost its store would be played into the restored one.
    for taken in [path.to_owned(), beside(path, "-wal")] {
        if env.disk().exists(&taken).map_err(of_file(&taken))? {
            return Err(OpenError::Io { path: taken, cause: io::ErrorKind::AlreadyExists.into() });
        }
    }
    let restored = copy_under_lock(env, backup, path, ledger, progress);
    if restored.is_err() {
        // There is no store, so there is nothing to lock. Ordering: removed while it is held, and whoever opened it before
        // finds that it has lost its name.
        let _ = env.disk().remove(&beside(path, ".lock"));
    }
    drop(lock);
    restored
}

/// After so many bytes it is told how far a restore is.
const STEP: u64 = 1 << 20;

fn copy_under_lock(
    env: &Env,
    backup: &Path,
    path: &Path,
    ledger: Option<&Ledger>,
    progress: &Progress,
) -> Result<(), OpenError> {
    let _untouched = whole(env, backup)?;
    let disk = &**env.disk();
    let mut from = disk.open(backup).map_err(of_file(backup))?;
    let (mut done, all) = (0, disk.size(backup).map_err(of_file(backup))?);
    let partial = unfinished::of(path).map_err(of_file(path))?;
    unfinished::clear(disk, &partial).map_err(of_file(&partial))?;
    let restored = (|| {
        let mut to = env.disk().create(&partial).map_err(of_file(&partial))?;
        loop {
            progress(done, all.max(done));
            let copied = io::copy(&mut from.by_ref().take(STEP), &mut to).map_err(of_file(&partial))?;
            if copied == 0 {
                break;
            }
            done += copied;
        }
        to.sync().map_err(of_file(&partial))?;
        drop(to);
        raise_epoch(env, &partial, ledger).map_err(|cause| of_backup(cause, &partial, backup))?;
        env.disk().rename(&partial, path).map_err(of_file(path))
    })();
    if restored.is_err() {
        // Why it failed says more than why something is left, which the next restore removes.
        let _ = unfinished::clear(disk, &partial);
    }
    restored
}

/// Refuses a file that is not all there is: a store beside its log. Nobody else opens it while what this returns is held.
///
/// # Errors
/// [`OpenError::NotABackup`], [`OpenError::Locked`].
fn whole(env: &Env, backup: &Path) -> Result<Option<Box<dyn Lock>>, OpenError> {
    let (disk, backup) = (env.disk(), &*canonical(env, backup)?);
    for log in [beside(backup, "-wal"), beside(backup, "-journal")] {
        let left = match disk.exists(&log) {
            Ok(true) => disk.size(&log).map_err(of_file(&log))? > 0,
            Ok(false) => false,
            Err(cause) if cause.kind() == io::ErrorKind::InvalidFilename => false,
            Err(cause) => return Err(of_file(&log)(cause)),
        };
        if left {
            return Err(OpenError::NotABackup { path: backup.into(), log });
        }
    }
    hold(env, backup)
}

/// Keeps nodes from opening the file at the canonical path `file` while what this returns is held.
///
/// # Errors
/// [`OpenError::Locked`] if one has.
pub(super) fn hold(env: &Env, file: &Path) -> Result<Option<Box<dyn Lock>>, OpenError> {
    // A node has one beside its store, and what it has not written to the file yet may be in its memory alone.
    if !env.disk().exists(&beside(file, ".lock")).unwrap_or(false) {
        return Ok(None);
    }
    match take_lock(env, file) {
        Ok(lock) => Ok(Some(lock)),
        Err(held @ OpenError::Locked { .. }) => Err(held),
        // Nobody holds a lock that nobody may take.
        Err(_) => Ok(None),
    }
}

/// What is wrong with the copy is wrong with what it was copied from.
fn of_backup(cause: OpenError, copy: &Path, backup: &Path) -> OpenError {
    match cause {
        OpenError::Corrupt { path, what } if path == copy => OpenError::Corrupt { path: backup.into(), what },
        OpenError::Foreign { path } if path == copy => OpenError::Foreign { path: backup.into() },
        OpenError::Newer { path, found, known } if path == copy => {
            OpenError::Newer { path: backup.into(), found, known }
        }
        OpenError::Older { path, found, known } if path == copy => {
            OpenError::Older { path: backup.into(), found, known }
        }
        other => other,
    }
}

/// Begins a new timeline.
fn raise_epoch(env: &Env, path: &Path, ledger: Option<&Ledger>) -> Result<(), OpenError> {
    let connection = tables::prepare(&**env.disk(), path, 0)?;
    let damaged = |cause| damaged(path, cause);
    let mut wrong = None;
    vfs::scan(&connection, |place, what| _ = wrong.get_or_insert((place, what)))
        .map_err(failed("checking the backup"))
        .map_err(damaged)?;
    if let Some((place, what)) = wrong {
        return Err(damaged(corrupt(place, what)));
    }
    let timeline = tables::timeline(&connection).map_err(damaged)?;
    let next = timeline
        .later(env)
        .ok_or_else(|| damaged(corrupt("quorate_meta, row `epoch`", "there is no later timeline")))?;
    tables::set_meta(&connection, "epoch", next.epoch.into()).map_err(failed("raising the epoch"))?;
    if let Some(ledger) = ledger {
        let expected = timeline.store;
        if ledger.store != expected {
            return Err(OpenError::LedgerOfAnotherStore { found: ledger.store, expected });
        }
        ledger::add_all(&connection, &ledger.erasures).map_err(damaged)?;
    }
    // Leaves no write-ahead log behind: the file is about to be renamed.
    checkpoint::complete(connection).map_err(damaged)
}
