//! The file system as SQLite calls it: the one that was its default, but for opening.
#![expect(unsafe_code, reason = "SQLite's file functions are C")]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::OnceLock,
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_vfs};

use super::{
    database::Database,
    file::{self, Kind, REAL_AT, real_of},
    log::Log,
    real::Real,
};

/// The name that SQLite knows it by.
pub(super) const NAME: &CStr = c"quorate";

/// What stands below ours.
struct System(*mut sqlite3_vfs);

// SAFETY: SQLite registers it once, never changes or frees it, and calls it from any thread.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

static SYSTEM: OnceLock<Option<System>> = OnceLock::new();

/// Makes the file system known to SQLite, on top of the one that is its default now; whether it could.
pub(super) fn register() -> bool {
    SYSTEM
        .get_or_init(|| {
            // SAFETY: the default file system lives as long as the process, and so does ours, which is leaked.
            unsafe {
                let system = ffi::sqlite3_vfs_find(ptr::null());
                let below = system.as_ref()?;
                let ours = Box::into_raw(Box::new(above(below)));
                (ffi::sqlite3_vfs_register(ours, 0) == ffi::SQLITE_OK).then_some(System(system))
            }
        })
        .is_some()
}

fn above(below: &sqlite3_vfs) -> sqlite3_vfs {
    let (second, third) = (below.iVersion >= 2, below.iVersion >= 3);
    sqlite3_vfs {
        iVersion: below.iVersion.min(3),
        szOsFile: below.szOsFile + REAL_AT as c_int,
        mxPathname: below.mxPathname,
        pNext: ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        // Our connections load no extensions.
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: if second { below.xCurrentTimeInt64.and(Some(current_time_int64)) } else { None },
        // For SQLite's own tests.
        xSetSystemCall: if third { Some(set_system_call) } else { None },
        xGetSystemCall: if third { Some(get_system_call) } else { None },
        xNextSystemCall: if third { Some(next_system_call) } else { None },
    }
}

/// Answers `otherwise` if `work` panics: nothing may unwind into SQLite.
fn guarded(otherwise: c_int, work: impl FnOnce(*mut sqlite3_vfs, &sqlite3_vfs) -> c_int) -> c_int {
    let Some(Some(System(system))) = SYSTEM.get() else { return otherwise };
    // SAFETY: it lives as long as the process, and nobody changes it.
    let below = unsafe { &**system };
    catch_unwind(AssertUnwindSafe(|| work(*system, below))).unwrap_or(otherwise)
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    guarded(ffi::SQLITE_CANTOPEN, |system, below| {
        let Some(open) = below.xOpen else { return ffi::SQLITE_CANTOPEN };
        // Journals and temporary files hold pages for a moment: they are the system's alone.
        let wrapped = flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL) != 0;
        let place = if wrapped { real_of(file) } else { file };
        // SAFETY: the arguments are SQLite's own, handed on; there is room for the system's file behind ours. SQLite takes
        // a file without a table for one that was not opened, and so must we be taken until ours is complete.
        unsafe {
            (*file).pMethods = ptr::null();
            (*place).pMethods = ptr::null();
            let code = open(system, name, place, flags, out_flags);
            if !wrapped || (*place).pMethods.is_null() {
                return code;
            }
            let real = Real::new(place);
            if code != ffi::SQLITE_OK {
                // SQLite would close a file that has a table, even if opening it failed.
                real.methods().xClose.map(|close| close(place));
                return code;
            }
            let kind = if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
                Kind::Database(Database::new(real))
            } else {
                let database = file::database(ffi::sqlite3_database_file_object(name));
                Kind::Log(Log::new(real, database.unwrap_or_else(|| Database::new(real))))
            };
            file::dress(file, real, kind);
            code
        }
    })
}

/// Functions that are the system's.
macro_rules! handed_on {
    ($($name:ident as $entry:ident ($($argument:ident: $type:ty),*), else $otherwise:expr;)*) => {$(
        unsafe extern "C" fn $name(_: *mut sqlite3_vfs $(, $argument: $type)*) -> c_int {
            guarded($otherwise, |system, below| {
                // SAFETY: the system's own function, with the arguments as SQLite gave them.
                below.$entry.map_or($otherwise, |function| unsafe { function(system $(, $argument)*) })
            })
        }
    )*};
}

handed_on! {
    delete as xDelete(name: *const c_char, sync: c_int), else ffi::SQLITE_IOERR_DELETE;
    access as xAccess(name: *const c_char, flags: c_int, out: *mut c_int), else ffi::SQLITE_IOERR_ACCESS;
    full_pathname as xFullPathname(name: *const c_char, count: c_int, out: *mut c_char), else ffi::SQLITE_CANTOPEN;
    randomness as xRandomness(count: c_int, out: *mut c_char), else 0;
    sleep as xSleep(micros: c_int), else 0;
    current_time as xCurrentTime(out: *mut f64), else ffi::SQLITE_ERROR;
    last_error as xGetLastError(count: c_int, out: *mut c_char), else 0;
    current_time_int64 as xCurrentTimeInt64(out: *mut sqlite3_int64), else ffi::SQLITE_ERROR;
    set_system_call as xSetSystemCall(name: *const c_char, call: ffi::sqlite3_syscall_ptr), else ffi::SQLITE_NOTFOUND;
}

unsafe extern "C" fn get_system_call(_: *mut sqlite3_vfs, name: *const c_char) -> ffi::sqlite3_syscall_ptr {
    let Some(Some(System(system))) = SYSTEM.get() else { return None };
    // SAFETY: the system's own function, with the argument as SQLite gave it.
    unsafe { (**system).xGetSystemCall.and_then(|function| function(*system, name)) }
}

unsafe extern "C" fn next_system_call(_: *mut sqlite3_vfs, name: *const c_char) -> *const c_char {
    let Some(Some(System(system))) = SYSTEM.get() else { return ptr::null() };
    // SAFETY: the system's own function, with the argument as SQLite gave it.
    unsafe { (**system).xNextSystemCall.map_or(ptr::null(), |function| function(*system, name)) }
}

/// The file that a connection's `operation` names, of its main database.
pub(super) fn file_of(connection: &rusqlite::Connection, operation: c_int) -> *mut sqlite3_file {
    let mut file: *mut sqlite3_file = ptr::null_mut();
    // SAFETY: the handle is open as long as the connection is borrowed, and there is room for the pointer asked for.
    unsafe {
        ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), operation, (&raw mut file).cast::<c_void>());
    }
    file
}

/// Has SQLite leave `bytes` bytes free at the end of each page, if the database is not begun yet.
pub(super) fn reserve(connection: &rusqlite::Connection, bytes: usize) {
    let mut bytes = bytes as c_int;
    // SAFETY: the handle is open as long as the connection is borrowed, and the argument is a number, as it should be.
    unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut bytes).cast::<c_void>(),
        );
    }
}
