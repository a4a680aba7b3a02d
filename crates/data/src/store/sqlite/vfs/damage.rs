//! From the file functions to the error: SQLite hands on a number, and no words.

use std::{cell::RefCell, ffi::c_int};

use rusqlite::ffi;

thread_local! {
    /// The last damage that this thread came across.
    static LAST: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Remembers the damage, and returns the code that says so.
pub(super) fn note(place: String, what: String) -> c_int {
    LAST.set(Some((place, what)));
    ffi::SQLITE_IOERR_DATA
}

/// The place and the kind of the damage that the call before on this thread failed on with `SQLITE_IOERR_DATA`.
pub(in crate::store::sqlite) fn last() -> (String, String) {
    LAST.take().unwrap_or_else(|| ("a page of the file".to_owned(), "the checksum does not match the bytes".to_owned()))
}
