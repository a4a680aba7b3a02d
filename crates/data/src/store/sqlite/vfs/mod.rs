//! Checksums of pages: what comes from the disk is what went there.
//!
//! A seal on each envelope: it is put on when a page leaves for the disk, and looked at when the page comes back. SQLite
//! itself has none, so that a flipped byte in one of its own pages can hide a row, or serve another one. Every row of the
//! store's own tables has a checksum of its own besides, which names the row; indexes, and tables of rooms and of
//! the application, have only this.
//!
//! | where a page is read from | checked against |
//! |---|---|
//! | the database's file | a footer of eight bytes in the page: `page`, `database` |
//! | the write-ahead log | what this process wrote or recovered, kept in memory; or SQLite's own checksum: `frames`, `log` |
//!
//! It stands on whatever file system is SQLite's default when the first store is opened, and hands everything else on.
//! A page that does not pass fails the read with `SQLITE_IOERR_DATA`; [`last_damage`] tells which.
//!
//! *What it does not see*: bytes that change in memory; a file that is exchanged for an older copy of itself; the newest
//! transaction of a log that nobody recovered yet, which looks like one that a power cut tore. Where it was written back
//! already, [`mark`](super::mark) knows better. A database written by a program that does not know the footer reads as
//! damaged.
//!
//! Source: SQLite, "The Checksum VFS Shim", whose idea this is; ours also covers the log and misplaced pages.

mod damage;
mod database;
mod file;
mod frames;
mod log;
mod page;
mod real;
mod shim;

use std::{ffi::CStr, path::Path};

use rusqlite::{Connection, OpenFlags, config::DbConfig, ffi};

use super::{connection::corrupt, heap};
use crate::store::StoreError;

pub(super) use self::{damage::last as last_damage, frames::LogEnd, page::PAGE_SIZE};

/// Opens a connection whose pages are checked. A new database gets room for the footers.
///
/// It writes nothing back when it is closed, before [`tidy_at_close`]: SQLite would, as far as it could read the log, and
/// would remove the rest of a log that rotted.
pub(super) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(path, flags, name()?)?;
    tidy_at_close(&connection, false)?;
    // Otherwise a statement with a parameter for its LIMIT is compiled again each time it is bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    shim::reserve(&connection, page::FOOTER);
    Ok(connection)
}

/// Whether the last connection to a database writes the log back when it is closed, and removes it.
pub(super) fn tidy_at_close(connection: &Connection, tidy: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !tidy).map(|_| ())
}

/// The name of the file system; it is registered.
pub(super) fn name() -> rusqlite::Result<&'static CStr> {
    heap::count();
    if shim::register() {
        return Ok(shim::NAME);
    }
    let what = "the file system with checksums could not be registered".to_owned();
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ERROR), Some(what)))
}

/// Whether the pages of the database that `connection` has read from are checked.
#[expect(unsafe_code, reason = "SQLite's files are C")]
pub(super) fn is_checked(connection: &Connection) -> bool {
    // SAFETY: SQLite names a file that is open as long as the connection is.
    let database = unsafe { file::database(shim::file_of(connection, ffi::SQLITE_FCNTL_FILE_POINTER)) };
    database.is_some_and(|database| database.has_footers())
}

/// Plants a bug of the museum: syncs of the write-ahead log of `connection` go to the main file.
#[cfg(feature = "museum")]
#[expect(unsafe_code, reason = "SQLite's files are C")]
pub(super) fn send_syncs_astray(connection: &Connection) {
    // SAFETY: SQLite names a file that is open as long as the connection is.
    let database = unsafe { file::database(shim::file_of(connection, ffi::SQLITE_FCNTL_FILE_POINTER)) };
    database.iter().for_each(|database| database.send_syncs_astray());
}

/// Refuses a write-ahead log that is damaged in its middle or in its header, once SQLite has read it: it goes on without
/// what is behind the damage. Nothing was written meanwhile.
#[expect(unsafe_code, reason = "SQLite's files are C")]
pub(super) fn check_log(connection: &Connection) -> Result<(), StoreError> {
    let mut broken = None;
    // SAFETY: SQLite names a file that is open as long as the connection is.
    unsafe {
        file::with_log(shim::file_of(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER), |log| broken = log.broken_at());
    }
    broken.map_or(Ok(()), |place| Err(corrupt(place, log::MISMATCH)))
}

/// Where the last transaction of the write-ahead log ends; `None` where there is no log that others could share.
#[expect(unsafe_code, reason = "SQLite's files are C")]
pub(super) fn log_end(connection: &Connection) -> Option<LogEnd> {
    // SAFETY: SQLite names a file that is open as long as the connection is.
    unsafe { file::database(shim::file_of(connection, ffi::SQLITE_FCNTL_FILE_POINTER)).and_then(|d| file::log_end(&d)) }
}

/// How many frames the write-ahead log has, as far as this process knows.
#[expect(unsafe_code, reason = "SQLite's files are C")]
pub(super) fn log_frames(connection: &Connection) -> usize {
    // SAFETY: SQLite names a file that is open as long as the connection is.
    let database = unsafe { file::database(shim::file_of(connection, ffi::SQLITE_FCNTL_FILE_POINTER)) };
    database.map_or(0, |database| database.sums().len())
}

/// Looks at every page of the file and of the log, whether it is in use or not, and tells `found` the place and the kind
/// of every damage.
#[expect(unsafe_code, reason = "SQLite's files are C")]
pub(super) fn scan(connection: &Connection, mut found: impl FnMut(String, String)) -> rusqlite::Result<()> {
    // SAFETY: SQLite names files that are open as long as the connection is.
    unsafe {
        let journal = shim::file_of(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER);
        if let Some(database) = file::database(shim::file_of(connection, ffi::SQLITE_FCNTL_FILE_POINTER)) {
            let in_log = |number| {
                let mut holds = false;
                file::with_log(journal, |log| holds = log.holds(number, file::written_back(&database)));
                holds
            };
            let scanned = database.scan(in_log, &mut found);
            scanned.map_err(|code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))?;
        }
        file::with_log(journal, |log| log.scan(&mut found));
    }
    Ok(())
}
