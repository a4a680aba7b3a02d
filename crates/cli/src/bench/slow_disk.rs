//! A disk whose syncs are counted and take longer: what an ordinary cloud volume does, on a machine whose own disk is
//! quicker.
//!
//! SQLite reaches the disk through a table of functions per open file. Ours are the system's with one entry exchanged, so
//! that everything else stays the real thing.

#![expect(unsafe_code, reason = "SQLite's file functions are C")]

use std::{
    ffi::{CStr, c_int},
    ptr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
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
static TABLES: Mutex<Vec<&Methods>> = Mutex::new(Vec::new());
static SYSTEM: OnceLock<System> = OnceLock::new();

type Sync = unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int) -> c_int;

/// The functions of an open file, one of them exchanged. SQLite has several such tables: for files with and without
/// locks, say.
struct Methods {
    theirs: usize,
    ours: ffi::sqlite3_io_methods,
    sync: Sync,
}

/// The system's own file system.
struct System(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite registers it once, never changes or frees it, and calls it from any thread.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl std::marker::Sync for System {}

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
            (*file).pMethods = &raw const exchanged(theirs, sync).ours;
        }
        code
    }
}

/// The table that differs from `theirs` in its sync alone. There are few, and they live as long as the process.
fn exchanged(theirs: &ffi::sqlite3_io_methods, sync: Sync) -> &'static Methods {
    let mut tables = tables();
    let address = ptr::from_ref(theirs).addr();
    if let Some(known) = tables.iter().find(|methods| methods.theirs == address) {
        return known;
    }
    let ours = ffi::sqlite3_io_methods { xSync: Some(slow_sync), ..*theirs };
    let methods = &*Box::leak(Box::new(Methods { theirs: address, ours, sync }));
    tables.push(methods);
    methods
}

unsafe extern "C" fn slow_sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    delay();
    // SAFETY: SQLite calls this with an open file, whose table is set.
    let table = unsafe { (*file).pMethods };
    let methods = tables().iter().find(|methods| ptr::eq(&raw const methods.ours, table)).copied();
    match methods {
        // SAFETY: `file` was opened by the system's own `xOpen`, which gave it the table with this sync.
        Some(methods) => unsafe { (methods.sync)(file, flags) },
        None => ffi::SQLITE_IOERR_FSYNC,
    }
}

fn tables() -> MutexGuard<'static, Vec<&'static Methods>> {
    TABLES.lock().unwrap_or_else(PoisonError::into_inner)
}
