//! Opening a store: refuse what cannot be trusted, then read the tail back.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate_foundations::time::Wall;
use quorate_runtime::{
    Env,
    disk::{Disk, Lock, unfinished},
};
use rusqlite::Connection;

use super::{
    Config,
    backend::SqliteBackend,
    checkpoint,
    connection::{self, corrupt, failed},
    core::{Core, Sealing},
    erase,
    expiry::Expiry,
    identity::Largest,
    index,
    keys::{self, KeyFile, KeyRing},
    ledger, mark,
    queue::Queue,
    retiring, schemas,
    shared::{self, Shared},
    sql::Guard,
    tables,
    tail::{self, Slot, Tail},
    vfs,
    writer::Writer,
};
use crate::{
    event::Recorded,
    schema::SchemaRegistry,
    store::{OpenError, Store, StoreError, erasure::Erasure},
};

/// Opens the store at `config.path`, creating it if it is not there.
///
/// Checks the header, the schema, and the events that are not indexed yet with their hash chains; `verify` checks the
/// rest. Takes milliseconds whatever the size of the log.
///
/// # Errors
/// See [`OpenError`]; nothing was changed.
pub async fn open(env: &Env, config: Config) -> Result<Store, OpenError> {
    let (blocking_env, path) = (env.clone(), config.path.clone());
    let prepared = env.run_blocking(move || prepare(blocking_env, config)).await;
    let prepared = prepared.map_err(|cause| if is_full(&cause) { OpenError::NoRoom { path } } else { cause });
    if let Err(OpenError::Corrupt { .. }) = &prepared {
        env.reached("store: damage was found at opening");
    }
    let (core, lock) = prepared?;
    let shared = core.shared.clone();
    let queue = Arc::new(Queue::new(&shared.limits));
    queue.connect(env.dedicate("quorate-store", Box::new(Writer::new(core, queue.clone(), lock))));
    Ok(Store::new(env, Arc::new(SqliteBackend::new(env, shared, queue))))
}

pub(super) fn prepare(env: Env, config: Config) -> Result<(Core, Box<dyn Lock>), OpenError> {
    let path = canonical(&env, &config.path)?;
    let lock = take_lock(&env, &path)?;
    clear_restore(&**env.disk(), &path)?;
    let core = begin(env, Config { path, ..config }, None, tables::prepare)?;
    Ok((core, lock))
}

/// How the tables are made, or recognised: see [`tables::prepare`].
pub(super) type Recognise = fn(&dyn Disk, &Path, u64) -> Result<Connection, OpenError>;

/// Opens the store whose canonical path is `path`, and which is locked. A new one gets the id `store`, or one of its own.
pub(super) fn begin(
    env: Env,
    Config { path, limits, schemas: policy }: Config,
    store: Option<u64>,
    tables: Recognise,
) -> Result<Core, OpenError> {
    not_lost(&env, &path)?;
    rewrite_log(&env, &path)?;
    let mut random = env.random("store/open");
    // Ids stay below 2^63, so that they are the same number in every language.
    let drawn = random.u64() >> 1;
    let mut connection = tables(&**env.disk(), &path, store.unwrap_or(drawn))?;
    #[cfg(feature = "museum")]
    if env.planted("ack-before-sync") {
        connection.execute_batch("PRAGMA synchronous = NORMAL").map_err(failed("planting a bug"))?;
    }
    #[cfg(feature = "museum")]
    if env.planted("sync-wrong-file") {
        vfs::send_syncs_astray(&connection);
    }
    let damaged = |cause| damaged(&path, cause);
    let timeline = tables::timeline(&connection).map_err(damaged)?;
    let indexed = tables::meta(&connection, "indexed").map_err(damaged)?.cast_unsigned();
    if indexed > 0 {
        shared::block_of(&connection, indexed).map_err(damaged)?;
    }
    let mut tail = Tail::new(indexed, random.u64());
    replay(&connection, &mut tail).map_err(damaged)?;
    if tail.len() > 0 {
        env.reached("store: the tail was read back");
    }
    let schemas = SchemaRegistry::with(schemas::load(&path, &connection, policy)?);
    let largest = Largest::load(&connection).map_err(damaged)?;
    connection::bound_values(&connection, &limits).map_err(failed("bounding values"))?;
    let guard = Guard::watch(&mut connection).map_err(failed("installing the authorizer"))?;
    let sealing = Sealing::new(tables::meta(&connection, "sealed").map_err(damaged)?);
    let file = open_keys(&env, &path, &connection, sealing.said)?;
    let keys = KeyRing::new(&env, keys::path_of(&path), timeline.store, file);
    tail.resume(retiring::load(&connection).map_err(damaged)?);
    let mark = tables::meta(&connection, "clock").map_err(damaged)?;
    let expiry = Expiry::new(&env, (mark != 0).then(|| Wall::from_unix_nanos(mark)));
    vfs::tidy_at_close(&connection, true).map_err(failed("opening the store"))?;
    let shared = Arc::new(Shared::new(path, limits, timeline, tail, keys, expiry, schemas));
    Ok(Core::new(env, shared, connection, largest, guard, sealing))
}

/// Whether a store could not be opened because the disk is full.
fn is_full(cause: &OpenError) -> bool {
    match cause {
        OpenError::Store(StoreError::DiskFull) => true,
        OpenError::Io { cause, .. } => {
            matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }
        _ => false,
    }
}

/// Removes what a restore left that died. Where there is no store, one would be begun that whoever ordered the restore takes
/// for the restored one: that is refused.
pub(super) fn clear_restore(disk: &dyn Disk, path: &Path) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io { path: path.into(), cause };
    let partial = unfinished::of(path).map_err(io)?;
    match disk.exists(&partial) {
        // It is longer than the store's, and too long then: a restore to there never began.
        Err(cause) if cause.kind() == io::ErrorKind::InvalidFilename => return Ok(()),
        Err(cause) => return Err(io(cause)),
        Ok(false) => return Ok(()),
        Ok(true) => {}
    }
    if !disk.exists(path).map_err(io)? {
        return Err(OpenError::Unrestored { path: path.into(), partial });
    }
    unfinished::clear(disk, &partial).map_err(io)
}

/// Refuses to begin a store where there was one: SQLite would delete the write-ahead log that lies beside an empty file, and
/// with it what may be the only copy of what was acknowledged.
///
/// A store's first page is durable before there is a log, a mark, or a key. What a crash leaves of one that was never begun is
/// a file without a byte, or its rollback journal.
pub(super) fn not_lost(env: &Env, path: &Path) -> Result<(), OpenError> {
    if has_bytes(env, path)? {
        return Ok(());
    }
    for left in [beside(path, "-wal"), mark::path_of(path), keys::path_of(path)] {
        if has_bytes(env, &left)? {
            env.reached("store: files of a store that is gone were found");
            return Err(OpenError::Lost { path: path.into(), left });
        }
    }
    Ok(())
}

/// The write-ahead log of `database`, if it is all that is left of it. SQLite would delete it when it connects.
///
/// As of the store's, the first page of the keys' file is durable before there is a log.
fn orphaned_log(env: &Env, database: &Path) -> Result<Option<PathBuf>, OpenError> {
    let log = beside(database, "-wal");
    let is_orphaned = !has_bytes(env, database)? && has_bytes(env, &log)?;
    Ok(is_orphaned.then_some(log))
}

/// Whether there is a file at `path` that is not empty.
pub(super) fn has_bytes(env: &Env, path: &Path) -> Result<bool, OpenError> {
    let disk = env.disk();
    let size = match disk.exists(path) {
        Ok(true) => disk.size(path),
        Ok(false) => Ok(0),
        // It is longer than the store's, and too long then: nothing has that name.
        Err(cause) if cause.kind() == io::ErrorKind::InvalidFilename => Ok(0),
        Err(cause) => Err(cause),
    };
    size.map(|bytes| bytes > 0).map_err(|cause| OpenError::Io { path: path.into(), cause })
}

/// Makes durable what a process that did not end well left in the write-ahead log of `database`, before anybody reads it.
///
/// It may have ended because a sync failed. What could not be written is then still shown by the kernel, but is on no disk,
/// and no later sync will write it: whatever came to stand behind it would be lost with it when the power fails. What a
/// failed checkpoint left of the database's own file needs no such care: all of it is in the log, and is written again.
///
/// Source: Rebello et al., "Can Applications Recover from fsync Failures?" (2020), section 4.
fn rewrite_log(env: &Env, database: &Path) -> Result<(), OpenError> {
    let log = beside(database, "-wal");
    let rewritten = match env.disk().exists(&log) {
        Ok(true) => env.disk().rewrite(&log),
        Ok(false) => Ok(()),
        Err(cause) => Err(cause),
    };
    rewritten.map_err(|cause| OpenError::Io { path: log, cause })
}

/// Opens the file of keys, if there is or must be one, and brings it and the ledger to the same state. The store knew of so
/// many `sealing` keys.
fn open_keys(env: &Env, store: &Path, connection: &Connection, sealing: i64) -> Result<Option<KeyFile>, OpenError> {
    let path = keys::path_of(store);
    let is_there = env.disk().exists(&path).map_err(|cause| OpenError::Io { path: path.clone(), cause })?;
    let damaged = |cause| damaged(store, cause);
    if (!is_there && sealing != 0) || orphaned_log(env, &path)?.is_some() {
        return Err(OpenError::KeysMissing { path });
    }
    if !is_there && ledger::head(connection).map_err(damaged)?.entries == 0 {
        return Ok(None);
    }
    let timeline = tables::timeline(connection).map_err(damaged)?;
    rewrite_log(env, &path)?;
    let file = KeyFile::open(&path, timeline.store, sealing == 0)?;
    if file.made() < sealing {
        // After a disaster it may be the newest that is left, and most events can be read.
        tracing::warn!(
            keys = %path.display(),
            lacking = sealing - file.made(),
            "the file of keys is older than the store: what was sealed since cannot be read; stop, and put the newest file \
             back with its `-wal`. `quorate store verify` names the events"
        );
    }
    ledger::reconcile(connection, &file).map_err(damaged)?;
    Ok(Some(file))
}

/// The store's one name. SQLite follows symbolic links, so the lock has to: under two names it would be two locks, and
/// the store would have two writers.
pub(super) fn canonical(env: &Env, path: &Path) -> Result<PathBuf, OpenError> {
    env.disk().canonical(path).map_err(|cause| OpenError::Io { path: path.into(), cause })
}

/// Locks the store whose canonical path is `path`, through a file beside it: closing any descriptor of the database file
/// would end the locks that SQLite holds on it.
pub(super) fn take_lock(env: &Env, path: &Path) -> Result<Box<dyn Lock>, OpenError> {
    let io = |cause| OpenError::Io { path: path.into(), cause };
    if let Some(kind) = env.disk().network_filesystem(path).map_err(io)? {
        return Err(OpenError::NetworkFilesystem { path: path.into(), kind });
    }
    env.disk().lock(&beside(path, ".lock")).map_err(|cause| match cause.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { path: path.into() },
        _ => io(cause),
    })
}

pub(super) fn damaged(path: &Path, cause: StoreError) -> OpenError {
    match cause {
        StoreError::Corrupt { place, what } => {
            OpenError::Corrupt { path: path.into(), what: format!("{place}: {what}") }
        }
        other => OpenError::Store(other),
    }
}

/// Reads the events behind the `indexed` mark back into the tail.
fn replay(connection: &Connection, tail: &mut Tail) -> Result<(), StoreError> {
    const READING: &str = "reading the tail";
    let mut select = connection
        .prepare("SELECT first, body FROM quorate_block WHERE first > ?1 ORDER BY first")
        .map_err(failed(READING))?;
    let mut rows = select.query([tail.indexed().cast_signed()]).map_err(failed(READING))?;
    while let Some(row) = rows.next().map_err(failed(READING))? {
        let first: i64 = row.get(0).map_err(failed(READING))?;
        let body: Vec<u8> = row.get(1).map_err(failed(READING))?;
        let block = shared::check(first, body.into())?;
        if block.first() != tail.end() + 1 {
            return Err(corrupt("quorate_block", format!("no row holds position {}", tail.end() + 1)));
        }
        for event in block.events() {
            let event = event.map_err(|what| corrupt(format!("quorate_block, row {first}"), what))?;
            restore_event(connection, tail, event)?;
        }
    }
    tail.publish();
    Ok(())
}

fn restore_event(connection: &Connection, tail: &mut Tail, event: Recorded) -> Result<(), StoreError> {
    let stream = event.stream().to_owned();
    if tail.slot(&stream).is_none() {
        let row = index::stream(connection, &stream)?;
        tail.remember(&stream, row.map_or_else(Slot::default, |row| Slot::indexed(row.head, row.hash)));
    }
    // Data is wiped only behind the `indexed` mark, so this mark and this block are of different times.
    if event.stub().is_some() {
        let position = event.position();
        return Err(corrupt("quorate_block", format!("position {position} is forgotten before it was indexed")));
    }
    let expected = tail.slot(&stream).map(|slot| (slot.version().next(), slot.hash())).unwrap_or_default();
    if event.version() != expected.0 || !event.follows(&expected.1) {
        let place = format!("event {} (stream `{stream}`, version {})", event.position(), event.version());
        return Err(corrupt(place, "it does not follow from the event before"));
    }
    let identity = tail::identity(&stream, event.source(), event.id());
    tail.push(event, identity);
    Ok(())
}

/// Says that the keys of the store at `path` are lost for good: every data subject so far counts as erased, and the store
/// can be opened again without the events' data. There is no way back; find the keys, or a copy of them, first.
///
/// # Errors
/// [`OpenError::Io`] with `AlreadyExists` and the file's path if the keys are there, or their write-ahead log alone: it may be
/// the only copy of some. Put the file back beside it; only if that is lost for good, remove the log.
pub async fn give_up_keys(env: &Env, path: PathBuf) -> Result<(), OpenError> {
    let blocking_env = env.clone();
    env.run_blocking(move || give_up(&blocking_env, &path)).await
}

fn give_up(env: &Env, path: &Path) -> Result<(), OpenError> {
    // The keys and the lock lie beside the store, not beside a link to it.
    let path = &*canonical(env, path)?;
    let keys = keys::path_of(path);
    let io = |path: &Path, cause| OpenError::Io { path: path.into(), cause };
    if !env.disk().exists(path).map_err(|cause| io(path, cause))? {
        return Err(io(path, io::ErrorKind::NotFound.into()));
    }
    let _lock = take_lock(env, path)?;
    not_lost(env, path)?;
    if let Some(log) = orphaned_log(env, &keys)? {
        return Err(io(&log, io::ErrorKind::AlreadyExists.into()));
    }
    // Opening refuses an empty file as it refuses none.
    if env.disk().exists(&keys).map_err(|cause| io(&keys, cause))? && !matches!(keys::holds_nothing(&keys), Ok(true)) {
        return Err(io(&keys, io::ErrorKind::AlreadyExists.into()));
    }
    let connection = tables::prepare(&**env.disk(), path, 0)?;
    let damaged = |cause| damaged(path, cause);
    let timeline = tables::timeline(&connection).map_err(damaged)?;
    let newest = erase::newest_generations(&connection, timeline.store).map_err(damaged)?;
    let erased_at = env.wall();
    let erasure = |(subject, generation)| Erasure { subject, generation, erased_at };
    let erasures: Vec<Erasure> = newest.into_iter().map(erasure).collect();
    ledger::add_all(&connection, &erasures).map_err(damaged)?;
    // Opening makes a file of keys when there is a ledger; where it is empty, nothing was lost.
    tables::set_meta(&connection, "sealed", 0).map_err(failed("giving up the keys"))?;
    checkpoint::complete(connection).map_err(damaged)
}

/// The file whose name is that of the store with `suffix` behind it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
