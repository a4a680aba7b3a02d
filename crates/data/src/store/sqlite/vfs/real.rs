//! A file as the system opened it.
#![expect(unsafe_code, reason = "SQLite's file functions are C")]

use std::{
    ffi::{c_int, c_void},
    slice,
};

use rusqlite::ffi;

/// A file as the system opened it: what ours stands on.
#[derive(Clone, Copy)]
pub(super) struct Real(*mut ffi::sqlite3_file);

impl Real {
    /// # Safety
    /// `file` was opened and is not closed as long as this or a copy of it is used; one thread at a time uses it.
    pub(super) unsafe fn new(file: *mut ffi::sqlite3_file) -> Self {
        Self(file)
    }

    /// The file itself, for functions that are handed on as they are.
    pub(super) fn file(self) -> *mut ffi::sqlite3_file {
        self.0
    }

    /// Its functions.
    pub(super) fn methods(self) -> &'static ffi::sqlite3_io_methods {
        // SAFETY: an open file has its table set, and tables live as long as the file system that is never unregistered.
        unsafe { &*(*self.0).pMethods }
    }

    /// Fills `buffer` from `offset` on; SQLite's code.
    pub(super) fn read(self, buffer: &mut [u8], offset: i64) -> c_int {
        let Some(read) = self.methods().xRead else { return ffi::SQLITE_IOERR_READ };
        let Ok(bytes) = c_int::try_from(buffer.len()) else { return ffi::SQLITE_IOERR_READ };
        // SAFETY: the file is open, and the buffer has room for as many bytes as are asked for.
        unsafe { read(self.0, buffer.as_mut_ptr().cast::<c_void>(), bytes, offset) }
    }

    /// Writes `bytes` at `offset`; SQLite's code.
    pub(super) fn write(self, bytes: &[u8], offset: i64) -> c_int {
        let Some(write) = self.methods().xWrite else { return ffi::SQLITE_IOERR_WRITE };
        let Ok(count) = c_int::try_from(bytes.len()) else { return ffi::SQLITE_IOERR_WRITE };
        // SAFETY: the file is open, and the bytes are as many as are said.
        unsafe { write(self.0, bytes.as_ptr().cast::<c_void>(), count, offset) }
    }

    /// Its size in bytes, or SQLite's code.
    pub(super) fn size(self) -> Result<u64, c_int> {
        let Some(file_size) = self.methods().xFileSize else { return Err(ffi::SQLITE_IOERR_FSTAT) };
        let mut size = 0;
        // SAFETY: the file is open, and there is room for the size.
        let code = unsafe { file_size(self.0, &raw mut size) };
        if code == ffi::SQLITE_OK { Ok(size.max(0).cast_unsigned()) } else { Err(code) }
    }
}

/// The buffer that SQLite hands to a read.
///
/// # Safety
/// `buffer` has room for `bytes` bytes, all of them set, and nobody else uses it during `'b`.
pub(super) unsafe fn buffer<'b>(buffer: *mut c_void, bytes: c_int) -> &'b mut [u8] {
    // SAFETY: as the caller promises; a count below zero is none.
    unsafe { slice::from_raw_parts_mut(buffer.cast(), usize::try_from(bytes).unwrap_or(0)) }
}

/// The bytes that SQLite hands to a write.
///
/// # Safety
/// `bytes` points to `count` bytes that nobody changes during `'b`.
pub(super) unsafe fn bytes<'b>(bytes: *const c_void, count: c_int) -> &'b [u8] {
    // SAFETY: as the caller promises; a count below zero is none.
    unsafe { slice::from_raw_parts(bytes.cast(), usize::try_from(count).unwrap_or(0)) }
}
