//! What SQLite does with an open file.

use std::{
    ffi::{c_int, c_void},
    io, ptr, slice,
    sync::atomic::{Ordering, fence},
};

use rusqlite::ffi;

use super::{failed, guarded};
use crate::disk::{
    content::PAGE,
    handle::Handle,
    locks::Level,
    names::ENOSPC,
    shm::{LOCKS, Turn},
};

/// A file in the memory that SQLite has for it. SQLite sees the methods and moves the rest around for us.
#[repr(C)]
pub(super) struct File {
    base: ffi::sqlite3_file,
    open: Option<Box<Open>>,
}

struct Open {
    handle: Handle,
    /// Whether the next sync must also make the file's name durable.
    syncs_folder: bool,
    keeps_wal: bool,
    errno: i32,
}

impl File {
    /// A file that SQLite won't call.
    pub(super) fn closed() -> Self {
        Self { base: ffi::sqlite3_file { pMethods: ptr::null() }, open: None }
    }

    pub(super) fn become_open(&mut self, handle: Handle, syncs_folder: bool) {
        self.open = Some(Box::new(Open { handle, syncs_folder, keeps_wal: false, errno: 0 }));
        self.base.pMethods = &METHODS;
    }
}

impl Open {
    fn failed(&mut self, code: c_int, cause: &io::Error) -> c_int {
        self.errno = cause.raw_os_error().unwrap_or(0);
        failed(code, cause)
    }

    fn answer(&mut self, result: io::Result<()>, code: c_int) -> c_int {
        result.map_or_else(|cause| self.failed(code, &cause), |()| ffi::SQLITE_OK)
    }

    fn answer_busy(&mut self, result: io::Result<bool>, code: c_int) -> c_int {
        match result {
            Ok(true) => ffi::SQLITE_OK,
            Ok(false) => ffi::SQLITE_BUSY,
            Err(cause) => self.failed(code, &cause),
        }
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};

/// Runs `work` on the open file; a panic, or a file that isn't open, becomes `code`.
///
/// # Safety
/// `file` was filled by `open`, and nobody else uses it meanwhile: SQLite calls one method of a file at a time.
unsafe fn with(file: *mut ffi::sqlite3_file, code: c_int, work: impl FnOnce(&mut Open) -> c_int) -> c_int {
    guarded(code, || {
        // SAFETY: see above.
        let file = unsafe { &mut *file.cast::<File>() };
        file.open.as_deref_mut().map_or(code, work)
    })
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    guarded(ffi::SQLITE_IOERR_CLOSE, || {
        // SAFETY: SQLite closes a file that `open` filled, once.
        drop(unsafe { (*file.cast::<File>()).open.take() });
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, count: c_int, offset: i64) -> c_int {
    let work = |open: &mut Open| {
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: SQLite hands over `count` bytes to fill, which are filled with zeros before anything refers to them.
        let into = unsafe {
            into.cast::<u8>().write_bytes(0, count);
            slice::from_raw_parts_mut(into.cast::<u8>(), count)
        };
        match open.handle.read_fully(offset.cast_unsigned(), into) {
            Ok(read) if read == count => ffi::SQLITE_OK,
            Ok(read) => {
                into[read..].fill(0);
                ffi::SQLITE_IOERR_SHORT_READ
            }
            Err(cause) => open.failed(ffi::SQLITE_IOERR_READ, &cause),
        }
    };
    // SAFETY: SQLite calls methods of files that `open` filled, one at a time.
    unsafe { with(file, ffi::SQLITE_IOERR_READ, work) }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, count: c_int, offset: i64) -> c_int {
    let work = |open: &mut Open| {
        // SAFETY: SQLite hands over `count` bytes that it leaves alone meanwhile.
        let bytes = unsafe { slice::from_raw_parts(from.cast::<u8>(), usize::try_from(count).unwrap_or(0)) };
        match open.handle.write(offset.cast_unsigned(), bytes) {
            Ok(()) => ffi::SQLITE_OK,
            Err(cause) if cause.raw_os_error() == Some(ENOSPC) => open.failed(ffi::SQLITE_FULL, &cause),
            Err(cause) => open.failed(ffi::SQLITE_IOERR_WRITE, &cause),
        }
    };
    // SAFETY: as in `read`.
    unsafe { with(file, ffi::SQLITE_IOERR_WRITE, work) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    let work = |open: &mut Open| {
        let result = open.handle.truncate(len.cast_unsigned());
        open.answer(result, ffi::SQLITE_IOERR_TRUNCATE)
    };
    // SAFETY: as in `read`.
    unsafe { with(file, ffi::SQLITE_IOERR_TRUNCATE, work) }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    let work = |open: &mut Open| {
        if let Err(cause) = open.handle.sync() {
            return open.failed(ffi::SQLITE_IOERR_FSYNC, &cause);
        }
        if std::mem::take(&mut open.syncs_folder) {
            let result = open.handle.sync_folder();
            return open.answer(result, ffi::SQLITE_IOERR_DIR_FSYNC);
        }
        ffi::SQLITE_OK
    };
    // SAFETY: as in `read`.
    unsafe { with(file, ffi::SQLITE_IOERR_FSYNC, work) }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    let work = |open: &mut Open| match open.handle.len() {
        Ok(len) => {
            // SAFETY: it points to a number of the caller's.
            unsafe { *out = len.cast_signed() };
            ffi::SQLITE_OK
        }
        Err(cause) => open.failed(ffi::SQLITE_IOERR_FSTAT, &cause),
    };
    // SAFETY: as in `read`.
    unsafe { with(file, ffi::SQLITE_IOERR_FSTAT, work) }
}

fn level(code: c_int) -> Level {
    match code {
        ffi::SQLITE_LOCK_NONE => Level::Unlocked,
        ffi::SQLITE_LOCK_SHARED => Level::Shared,
        ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
        ffi::SQLITE_LOCK_PENDING => Level::Pending,
        _ => Level::Exclusive,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    let work = |open: &mut Open| {
        let result = open.handle.raise(level(wanted));
        open.answer_busy(result, ffi::SQLITE_IOERR_LOCK)
    };
    // SAFETY: as in `read`.
    unsafe { with(file, ffi::SQLITE_IOERR_LOCK, work) }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    let work = |open: &mut Open| {
        let result = open.handle.lower(level(wanted));
        open.answer(result, ffi::SQLITE_IOERR_UNLOCK)
    };
    // SAFETY: as in `read`.
    unsafe { with(file, ffi::SQLITE_IOERR_UNLOCK, work) }
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    const CODE: c_int = ffi::SQLITE_IOERR_CHECKRESERVEDLOCK;
    let work = |open: &mut Open| match open.handle.is_reserved() {
        Ok(is_reserved) => {
            // SAFETY: it points to a number of the caller's.
            unsafe { *out = c_int::from(is_reserved) };
            ffi::SQLITE_OK
        }
        Err(cause) => open.failed(CODE, &cause),
    };
    // SAFETY: as in `read`.
    unsafe { with(file, CODE, work) }
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    let work = |open: &mut Open| {
        let number = argument.cast::<c_int>();
        match what {
            // SAFETY: for each of these, SQLite's documentation says that the argument points to an integer.
            ffi::SQLITE_FCNTL_LOCKSTATE => unsafe { *number = open.handle.level() as c_int },
            // SAFETY: as above.
            ffi::SQLITE_FCNTL_LAST_ERRNO => unsafe { *number = open.errno },
            // SAFETY: as above.
            ffi::SQLITE_FCNTL_HAS_MOVED => unsafe { *number = c_int::from(!open.handle.has_its_name()) },
            // All connections are of this process, which is what SQLite asks about.
            // SAFETY: as above.
            ffi::SQLITE_FCNTL_EXTERNAL_READER => unsafe { *number = 0 },
            // SAFETY: as above.
            ffi::SQLITE_FCNTL_PERSIST_WAL => unsafe {
                match *number {
                    asked if asked < 0 => *number = c_int::from(open.keeps_wal),
                    wanted => open.keeps_wal = wanted != 0,
                }
            },
            // It is what the disk is; wishes change nothing.
            // SAFETY: as above.
            ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE => unsafe { *number = c_int::from(open.handle.is_powersafe()) },
            // SAFETY: the argument points to a pointer for a string that the caller frees with sqlite3_free.
            ffi::SQLITE_FCNTL_VFSNAME => unsafe {
                *argument.cast::<*mut std::ffi::c_char>() = ffi::sqlite3_mprintf(c"%s".as_ptr(), super::NAME.as_ptr());
            },
            ffi::SQLITE_FCNTL_SIZE_HINT | ffi::SQLITE_FCNTL_CHUNK_SIZE => {}
            _ => return ffi::SQLITE_NOTFOUND,
        }
        ffi::SQLITE_OK
    };
    // SAFETY: as in `read`.
    unsafe { with(file, ffi::SQLITE_IOERR, work) }
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    PAGE as c_int
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // No promise that pages are atomic, that a file grows only behind its bytes, or that writes keep their order.
    let work = |open: &mut Open| match open.handle.is_powersafe() {
        true => ffi::SQLITE_IOCAP_SUBPAGE_READ | ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE,
        false => ffi::SQLITE_IOCAP_SUBPAGE_READ,
    };
    // SAFETY: as in `read`.
    unsafe { with(file, 0, work) }
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    number: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let work = |open: &mut Open| {
        // SAFETY: it points to a pointer of the caller's.
        unsafe { *out = ptr::null_mut() };
        let (number, size) = (usize::try_from(number).unwrap_or(0), usize::try_from(size).unwrap_or(0));
        match open.handle.map(number, size, extend != 0) {
            Ok(Some(region)) => {
                // SAFETY: as above. The region stays where it is until `shm_unmap` or `close`; being made of atomics, it may
                // be written through this pointer.
                unsafe { *out = region.cast_mut().cast() };
                ffi::SQLITE_OK
            }
            Ok(None) => ffi::SQLITE_OK,
            Err(cause) if cause.raw_os_error() == Some(ENOSPC) => open.failed(ffi::SQLITE_IOERR_SHMSIZE, &cause),
            Err(cause) => open.failed(ffi::SQLITE_IOERR_SHMMAP, &cause),
        }
    };
    // SAFETY: as in `read`.
    unsafe { with(file, ffi::SQLITE_IOERR_SHMMAP, work) }
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    let work = |open: &mut Open| {
        let (first, count) = (usize::try_from(first).unwrap_or(LOCKS), usize::try_from(count).unwrap_or(LOCKS));
        if first + count > LOCKS {
            return ffi::SQLITE_IOERR_SHMLOCK;
        }
        let turn = match flags {
            flags if flags & ffi::SQLITE_SHM_UNLOCK != 0 => Turn::Release,
            flags if flags & ffi::SQLITE_SHM_SHARED != 0 => Turn::Share,
            _ => Turn::Exclude,
        };
        let result = open.handle.lock_shm(first, count, turn);
        open.answer_busy(result, ffi::SQLITE_IOERR_SHMLOCK)
    };
    // SAFETY: as in `read`.
    unsafe { with(file, ffi::SQLITE_IOERR_SHMLOCK, work) }
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    let work = |open: &mut Open| {
        open.handle.unmap();
        ffi::SQLITE_OK
    };
    // SAFETY: as in `read`.
    unsafe { with(file, ffi::SQLITE_OK, work) }
}

unsafe extern "C" fn fetch(_: *mut ffi::sqlite3_file, _: i64, _: c_int, out: *mut *mut c_void) -> c_int {
    // SAFETY: it points to a pointer of the caller's. Null says that nothing is mapped, and SQLite reads instead.
    unsafe { *out = ptr::null_mut() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn unfetch(_: *mut ffi::sqlite3_file, _: i64, _: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}
