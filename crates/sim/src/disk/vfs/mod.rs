//! SQLite's virtual file system over simulated disks.
//!
//! It behaves as SQLite's own for unix does, with one exception: a folder that can't be synced is an error, where that one
//! goes on. Nothing here decides anything; [`super::handle`] and the state behind it do.
//!
//! Panics end here, as input/output errors: unwinding into C would end the process without a word.
#![expect(unsafe_code, reason = "SQLite's VFS is a table of C functions")]

mod file;

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    ptr,
    sync::Once,
    time::Duration,
};

use quorate_runtime::random::Random;
use rusqlite::ffi;

use self::file::File;
use super::{
    SimDisk,
    handle::Handle,
    model::Model,
    names::{EINVAL, ENOENT, Entry, error},
    operations::How,
    world::{ROOT, world},
};

const NAME: &CStr = c"quorate-sim";

/// Longer paths can't be opened.
const LONGEST_PATH: usize = 1024;

/// The unix epoch as SQLite counts: milliseconds since noon in Greenwich on 24 November 4714 B.C.
const UNIX_EPOCH_MS: i64 = 210_866_760_000_000;

/// Lets everything in the process that opens SQLite do so on simulated disks. Call it before anything does: SQLite takes
/// its first randomness from whatever is the default then. Further calls do nothing.
///
/// From here on the process can't open a database of the real file system.
///
/// # Panics
/// When SQLite refuses, for lack of memory.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let random = Random::from_seed([0; 32]).stream("scratch");
        world().set_scratch(SimDisk::unlisted(&format!("{ROOT}-scratch"), Model::default(), random));
        // SAFETY: the table is leaked, so that it lives as long as SQLite may use it, and nobody else refers to it.
        let code = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(table())), 1) };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite refused the simulated file system");
    });
}

/// Lets SQLite ask for randomness again when it next needs some.
pub(super) fn forget_randomness() {
    // SAFETY: no bytes are asked for, which is how SQLite is told to start again.
    unsafe { ffi::sqlite3_randomness(0, ptr::null_mut()) };
}

fn table() -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 3,
        szOsFile: size_of::<File>() as c_int,
        mxPathname: LONGEST_PATH as c_int,
        pNext: ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: Some(dl_open),
        xDlError: Some(dl_error),
        xDlSym: Some(dl_sym),
        xDlClose: Some(dl_close),
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// Runs `work`; a panic in it becomes `code`.
fn guarded(code: c_int, work: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(code)
}

/// Remembers the error behind `code`, for who asks SQLite for it.
fn failed(code: c_int, cause: &io::Error) -> c_int {
    world().errno = cause.raw_os_error().unwrap_or(0);
    code
}

/// # Safety
/// `name` is null or a string that ends in a zero byte and outlives `'a`.
unsafe fn path_of<'a>(name: *const c_char) -> io::Result<&'a str> {
    if name.is_null() {
        return Err(error(EINVAL));
    }
    // SAFETY: see above.
    unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| error(EINVAL))
}

/// The disk that `path` is on, and the path's one name there.
fn locate(path: &str) -> io::Result<(SimDisk, String)> {
    let disk = world().disk_of(Path::new(path)).ok_or_else(|| error(ENOENT))?;
    let path = disk.resolve(Path::new(path))?;
    Ok((disk, path))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let file = file.cast::<File>();
    // SAFETY: SQLite hands over as much memory as the table says a file takes, for us to fill.
    unsafe { file.write(File::closed()) };
    guarded(ffi::SQLITE_CANTOPEN, || {
        // SAFETY: the name is null or a string of SQLite's that lives as long as the file.
        let path = if name.is_null() { Ok(None) } else { unsafe { path_of(name) }.map(Some) };
        let handle = match path.and_then(|path| open_handle(path, flags)) {
            Ok(handle) => handle,
            Err(cause) => return failed(ffi::SQLITE_CANTOPEN, &cause),
        };
        const JOURNALS: c_int = ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL;
        let is_new_journal = flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & JOURNALS != 0;
        // SAFETY: the memory is SQLite's for this file, and was filled above.
        unsafe { (*file).become_open(handle, is_new_journal) };
        if !flags_out.is_null() {
            // SAFETY: it points to an integer of the caller's.
            unsafe { *flags_out = flags };
        }
        ffi::SQLITE_OK
    })
}

fn open_handle(path: Option<&str>, flags: c_int) -> io::Result<Handle> {
    let is = |flag| flags & flag != 0;
    let how = How { create: is(ffi::SQLITE_OPEN_CREATE), exclusive: is(ffi::SQLITE_OPEN_EXCLUSIVE), truncate: false };
    let Some(path) = path else {
        let disk = world().disk_for_temporary().ok_or_else(|| error(ENOENT))?;
        return Handle::open(&disk, disk.life(), None, how);
    };
    let (disk, path) = locate(path)?;
    let handle = Handle::open(&disk, disk.life(), Some(&path), how)?;
    if is(ffi::SQLITE_OPEN_DELETEONCLOSE) {
        disk.with(|state| state.remove(state.life, &path))?;
    }
    Ok(handle)
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    guarded(ffi::SQLITE_IOERR_DELETE, || {
        // SAFETY: SQLite hands over a string that ends in zero.
        let (disk, path) = match unsafe { path_of(name) }.and_then(locate) {
            Ok(found) => found,
            Err(cause) => return failed(ffi::SQLITE_IOERR_DELETE, &cause),
        };
        match disk.with(|state| state.remove(state.life, &path)) {
            Err(cause) if cause.raw_os_error() == Some(ENOENT) => ffi::SQLITE_IOERR_DELETE_NOENT,
            Err(cause) => failed(ffi::SQLITE_IOERR_DELETE, &cause),
            Ok(()) if sync_folder & 1 == 0 => ffi::SQLITE_OK,
            Ok(()) => match disk.with(|state| state.sync_folder(state.life)) {
                Ok(()) => ffi::SQLITE_OK,
                Err(cause) => failed(ffi::SQLITE_IOERR_DIR_FSYNC, &cause),
            },
        }
    })
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, name: *const c_char, flags: c_int, result: *mut c_int) -> c_int {
    guarded(ffi::SQLITE_IOERR_ACCESS, || {
        // SAFETY: SQLite hands over a string that ends in zero.
        let found = unsafe { path_of(name) }.and_then(locate);
        match found.and_then(|(disk, path)| disk.with(|state| state.look(state.life, &path))) {
            Ok(entry) => {
                let is_there = match entry {
                    // To SQLite, an empty file isn't there: a journal that was never written, say.
                    Some((Entry::File(_), 0)) => flags != ffi::SQLITE_ACCESS_EXISTS,
                    other => other.is_some(),
                };
                // SAFETY: it points to an integer of the caller's.
                unsafe { *result = c_int::from(is_there) };
                ffi::SQLITE_OK
            }
            Err(cause) => failed(ffi::SQLITE_IOERR_ACCESS, &cause),
        }
    })
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    guarded(ffi::SQLITE_CANTOPEN, || {
        // SAFETY: SQLite hands over a string that ends in zero.
        match unsafe { path_of(name) }.and_then(locate) {
            Ok((_, path)) if path.len() < usize::try_from(room).unwrap_or(0) => {
                // SAFETY: `out` has `room` bytes, which the path and a zero fit into; resolved paths have no zero in them.
                unsafe {
                    ptr::copy_nonoverlapping(path.as_ptr(), out.cast(), path.len());
                    out.add(path.len()).write(0);
                }
                ffi::SQLITE_OK
            }
            Ok(_) => failed(ffi::SQLITE_CANTOPEN, &error(EINVAL)),
            Err(cause) => failed(ffi::SQLITE_CANTOPEN, &cause),
        }
    })
}

unsafe extern "C" fn dl_open(_: *mut ffi::sqlite3_vfs, _: *const c_char) -> *mut c_void {
    ptr::null_mut()
}

unsafe extern "C" fn dl_error(_: *mut ffi::sqlite3_vfs, room: c_int, out: *mut c_char) {
    const WHY: &CStr = c"a simulated host loads no libraries";
    let Some(len) = usize::try_from(room).ok().and_then(|room| room.checked_sub(1)) else { return };
    let len = len.min(WHY.count_bytes());
    // SAFETY: `out` has `room` bytes, which is more than `len`.
    unsafe {
        ptr::copy_nonoverlapping(WHY.as_ptr(), out, len);
        out.add(len).write(0);
    }
}

unsafe extern "C" fn dl_sym(
    _: *mut ffi::sqlite3_vfs,
    _: *mut c_void,
    _: *const c_char,
) -> Option<unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *mut c_void, *const c_char)> {
    None
}

unsafe extern "C" fn dl_close(_: *mut ffi::sqlite3_vfs, _: *mut c_void) {}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    guarded(0, || {
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
        world().fill(&mut bytes);
        // SAFETY: `out` has `count` bytes.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast(), bytes.len()) };
        count
    })
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    guarded(0, || {
        world().sleep(Duration::from_micros(u64::try_from(microseconds).unwrap_or(0)));
        microseconds
    })
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    guarded(ffi::SQLITE_ERROR, || {
        // SAFETY: it points to a number of the caller's.
        unsafe { *out = julian_ms() as f64 / 86_400_000.0 };
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn current_time_int64(_: *mut ffi::sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    guarded(ffi::SQLITE_ERROR, || {
        // SAFETY: it points to a number of the caller's.
        unsafe { *out = julian_ms() };
        ffi::SQLITE_OK
    })
}

fn julian_ms() -> i64 {
    // Asked outside the lock: the clock is the world's, and may do what it likes.
    let clock = world().clock();
    let nanos = clock.map_or(0, |now| now().unix_nanos());
    nanos.div_euclid(1_000_000) + UNIX_EPOCH_MS
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    guarded(0, || world().errno)
}
