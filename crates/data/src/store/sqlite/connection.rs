//! Connections to the database file, and what SQLite's errors mean.

use std::{io, path::Path, sync::Arc, time::Duration};

use rusqlite::{Connection, OpenFlags, ffi, limits::Limit};

use super::vfs;
use crate::store::{Limits, StoreError};

/// Marks a database as a quorate store: "quor".
pub(super) const APPLICATION_ID: i32 = 0x7175_6f72;

/// How long a connection waits for another one's lock.
pub(super) const BUSY: Duration = Duration::from_secs(2);

/// What one value of a statement takes at most, unless events may be larger.
const VALUE_BYTES: i32 = 16 << 20;

/// The one connection that writes. It changes nothing before [`claim`].
pub(super) fn writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = vfs::connect(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// Makes the database the way we use ours, once it is known to be ours.
pub(super) fn claim(connection: &Connection) -> rusqlite::Result<()> {
    // Freed bytes must not survive in the file: SQLite overwrites them with zeros while secure_delete is on. Switching it on
    // only to forget would be too late for copies that were left behind when a page was split.
    // The writer writes the log back itself: see checkpoint.rs.
    const { assert!(vfs::PAGE_SIZE == 4096, "the statement below says so too") }
    connection.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;
         PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA secure_delete = ON;",
    )
}

/// Bounds what one value of a statement may take in memory; an event must fit.
pub(super) fn bound_values(connection: &Connection, limits: &Limits) -> rusqlite::Result<()> {
    let largest = i32::try_from(limits.event_bytes.saturating_mul(2)).unwrap_or(i32::MAX).max(VALUE_BYTES);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, largest).map(|_| ())
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    reading(vfs::connect(path, flags)?)
}

/// The same on a file without a write-ahead log that nobody writes to meanwhile. Makes no file beside it, and no lock.
pub(super) fn reader_of_unchanging(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut address = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => address.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => address.push(char::from(*byte)),
            byte => address.push_str(&format!("%{byte:02X}")),
        }
    }
    address.push_str("?immutable=1");
    reading(vfs::connect(Path::new(&address), flags)?)
}

fn reading(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(BUSY)?;
    // A megabyte: there are up to 16 of these, and each fills its cache with the pages of whatever is large.
    connection.execute_batch(
        "PRAGMA query_only = ON; PRAGMA cache_size = -1024; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;
         PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Says what SQLite's error means, where it matters to the caller.
pub(super) fn failed(doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |cause| match extended_code(&cause) {
        Some(ffi::SQLITE_FULL | ffi::SQLITE_IOERR_SHMSIZE) => StoreError::DiskFull,
        Some(ffi::SQLITE_BUSY | ffi::SQLITE_BUSY_RECOVERY | ffi::SQLITE_BUSY_SNAPSHOT) => StoreError::Busy,
        Some(ffi::SQLITE_NOTADB) => corrupt("the file", "it is not an SQLite database"),
        Some(ffi::SQLITE_IOERR_DATA) => {
            let (place, what) = vfs::last_damage();
            corrupt(place, what)
        }
        Some(code) if code & 0xff == ffi::SQLITE_CORRUPT => corrupt("the file", cause.to_string()),
        // Our own statements are right, and our own columns hold what we wrote: otherwise the bytes have changed.
        Some(ffi::SQLITE_ERROR) => corrupt("the schema", cause.to_string()),
        None if is_conversion(&cause) => corrupt(doing, cause.to_string()),
        _ => StoreError::Engine { doing, cause: Arc::new(cause) },
    }
}

/// Whether a commit that failed so may have become durable.
pub(super) fn is_behind_the_sync(code: i32) -> bool {
    matches!(code, ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP | ffi::SQLITE_IOERR_SHMOPEN)
}

/// Says what the system meant by refusing a write of `connection`, the last that failed on it.
///
/// SQLite calls a disk full when there is no space. An exhausted quota (EDQUOT) and a file that may not grow (EFBIG) are
/// a failed write to it, like a broken disk; for whoever waits for space they are the same.
pub(super) fn explained(connection: &Connection, error: StoreError) -> StoreError {
    let refused = code_of(&error) == Some(ffi::SQLITE_IOERR_WRITE);
    if refused && is_full(system_errno(connection)) { StoreError::DiskFull } else { error }
}

fn is_full(errno: i32) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(io::Error::from_raw_os_error(errno).kind(), FileTooLarge | QuotaExceeded | StorageFull)
}

#[expect(unsafe_code, reason = "rusqlite has no safe way to ask for it")]
fn system_errno(connection: &Connection) -> i32 {
    // SAFETY: the handle is open as long as the connection is borrowed, and only a number is read from it.
    unsafe { ffi::sqlite3_system_errno(connection.handle()) }
}

fn code_of(error: &StoreError) -> Option<i32> {
    let StoreError::Engine { cause, .. } = error else { return None };
    cause.downcast_ref().and_then(extended_code)
}

/// Whether a column holds something else than it should.
fn is_conversion(cause: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    matches!(cause, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..))
}

/// Whether going on could lose what was acknowledged: after a failed sync the kernel may have dropped dirty pages, and
/// a second sync would report success without them.
pub(super) fn is_fatal(error: &StoreError) -> bool {
    matches!(code_of(error), Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Whether bytes could not be read, as a broken disk has it.
pub(super) fn is_unreadable(error: &StoreError) -> bool {
    use ffi::{SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ};
    matches!(code_of(error), Some(SQLITE_IOERR_READ | SQLITE_IOERR_SHORT_READ | SQLITE_IOERR_CORRUPTFS))
}

/// Whether a constraint of the application's tables failed.
pub(super) fn constraint(error: &StoreError) -> Option<String> {
    let StoreError::Engine { cause, .. } = error else { return None };
    let code = cause.downcast_ref().and_then(extended_code)?;
    (code & 0xff == ffi::SQLITE_CONSTRAINT).then(|| cause.to_string())
}

pub(super) fn corrupt(place: impl Into<String>, what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { place: place.into(), what: what.to_string() }
}

pub(super) fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.extended_code),
        rusqlite::Error::SqlInputError { error, .. } => Some(error.extended_code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    /// The numbers are those of Linux, errno(3).
    #[cfg(target_os = "linux")]
    #[test]
    fn a_quota_and_a_limit_are_a_full_disk_and_a_broken_disk_is_not() {
        let (efbig, enospc, edquot) = (27, 28, 122);
        let (eio, erofs) = (5, 30);
        assert!([efbig, enospc, edquot].into_iter().all(super::is_full));
        assert!(![0, eio, erofs].into_iter().any(super::is_full));
    }
}
