//! A disk whose syncs are counted and take longer: what an ordinary cloud volume does, on a machine whose own disk is
//! quicker.
//!
//! SQLite reaches the disk through a table of functions per open file. Ours is the system's with one entry exchanged, so
//! that everything else stays the real thing.

#![expect(unsafe_code, reason = "SQLite's file functions are C")]

use std::{
    ffi::{CStr, c_int},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rusqlite::ffi;

/// The name it is known by.
const NAME: &CStr = c"quorate-slow-disk";

static SYNCS: AtomicU64 = AtomicU64::new(0);
static DELAY_NANOS: AtomicU64 = AtomicU64::new(0);
static METHODS: OnceLock<Methods> = OnceLock::new();
static SYSTEM: OnceLock<System> = OnceLock::new();

/// The functions of an open file, and the sync that was exchanged.
struct Methods {
    ours: ffi::sqlite3_io_methods,
    sync: unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int) -> c_int,
}

/// The system's own file system.
struct System(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite registers it once, never changes or frees it, and calls it from any thread.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

/// Every sync from now on takes so much longer.
pub(super) fn slow_down(delay: Duration) {
    DELAY_NANOS.store(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Waits as long as every sync takes longer.
pub(super) fn delay() {
    let delay = Duration::from_nanos(DELAY_NANOS.load(Ordering::Relaxed));
    if !delay.is_zero() {
        thread::sleep(delay);
    }
}

/// How many syncs there were.
pub(super) fn syncs() -> u64 {
    SYNCS.load(Ordering::Relaxed)
}

/// Has SQLite use this disk for every file that this process opens from now on. Doing it again changes nothing.
pub(super) fn install() {
    SYSTEM.get_or_init(|| {
        // SAFETY: the found file system lives as long as the process; the copy is leaked, so that it does too, and
        // differs in its name and in `xOpen`, which has the same signature.
        unsafe {
            let system = ffi::sqlite3_vfs_find(ptr::null());
            let ours = ffi::sqlite3_vfs { zName: NAME.as_ptr(), pNext: ptr::null_mut(), xOpen: Some(open), ..*system };
            ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 1);
            System(system)
        }
    });
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some(System(system)) = SYSTEM.get() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: the arguments are SQLite's own, handed on; `file` has room for the system's file, as `szOsFile` was copied.
    unsafe {
        let Some(open) = (**system).xOpen else { return ffi::SQLITE_CANTOPEN };
        let code = open(*system, name, file, flags, out_flags);
        if code == ffi::SQLITE_OK
            && let Some(theirs) = (*file).pMethods.as_ref()
            && let Some(sync) = theirs.xSync
        {
            let methods = METHODS
                .get_or_init(|| Methods { ours: ffi::sqlite3_io_methods { xSync: Some(slow_sync), ..*theirs }, sync });
            (*file).pMethods = &raw const methods.ours;
        }
        code
    }
}

unsafe extern "C" fn slow_sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    delay();
    match METHODS.get() {
        // SAFETY: `file` was opened by the system's own `xOpen`, whose sync this is.
        Some(methods) => unsafe { (methods.sync)(file, flags) },
        None => ffi::SQLITE_IOERR_FSYNC,
    }
}
