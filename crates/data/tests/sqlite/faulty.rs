//! A disk that fails when it is told to. It stands below the store's own file system, as the real one does.
#![expect(unsafe_code, reason = "SQLite's file functions are C")]

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr,
    sync::{Arc, Mutex, OnceLock},
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

/// What SQLite asks the disk to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Open,
    Read,
    Write,
    Sync,
    Truncate,
    /// Of which part of the index of the write-ahead log.
    Map(c_int),
    Delete,
}

/// Which of a store's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    File,
    Log,
    Keys,
    KeysLog,
    Other,
}

/// Looks at each operation, in order, before it is done, and says whether it fails, with which of SQLite's codes.
type Rule = Box<dyn FnMut(What, Which) -> Option<c_int> + Send>;

static RULES: Mutex<BTreeMap<PathBuf, Arc<Mutex<Rule>>>> = Mutex::new(BTreeMap::new());

/// Makes this the disk of the process, once.
fn install() {
    static SYSTEM: OnceLock<()> = OnceLock::new();
    // SAFETY: the default file system lives as long as the process, and so does ours, which is leaked.
    SYSTEM.get_or_init(|| unsafe {
        let system = ffi::sqlite3_vfs_find(ptr::null());
        let ours = sqlite3_vfs {
            szOsFile: (*system).szOsFile + size_of::<File>() as c_int,
            pNext: ptr::null_mut(),
            zName: c"faulty".as_ptr(),
            pAppData: system.cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            ..*system
        };
        ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 1);
    });
}

/// Has `rule` judge what happens to the files of `folder` from now on.
pub(crate) fn on(folder: &Path, rule: impl FnMut(What, Which) -> Option<c_int> + Send + 'static) {
    install();
    let mut rules = RULES.lock().unwrap();
    let boxed: Rule = Box::new(rule);
    match rules.get(folder) {
        Some(known) => *known.lock().unwrap() = boxed,
        None => drop(rules.insert(folder.to_owned(), Arc::new(Mutex::new(boxed)))),
    }
}

/// The disk of `folder` works.
pub(crate) fn mend(folder: &Path) {
    on(folder, |_, _| None);
}

fn judge(path: &Path, what: What) -> Option<c_int> {
    let rule = RULES.lock().unwrap().get(path.parent()?)?.clone();
    let name = path.to_str()?;
    let which = match name {
        _ if name.ends_with(".keys-wal") => Which::KeysLog,
        _ if name.ends_with(".keys") => Which::Keys,
        _ if name.ends_with("-wal") => Which::Log,
        _ if name.ends_with(".db") => Which::File,
        _ => Which::Other,
    };
    let mut rule = rule.lock().unwrap();
    (*rule)(what, which)
}

#[repr(C)]
struct File {
    base: sqlite3_file,
    inner: *mut Inner,
}

struct Inner {
    real: *mut sqlite3_file,
    path: PathBuf,
}

/// # Safety
/// `file` was opened by [`open`] below and is not closed.
unsafe fn inner<'f>(file: *mut sqlite3_file) -> (&'f Inner, &'f sqlite3_io_methods) {
    // SAFETY: `open` wrote it, and `close` alone frees it.
    unsafe {
        let inner = &*(*file.cast::<File>()).inner;
        (inner, &*(*inner.real).pMethods)
    }
}

fn path_of(name: *const c_char) -> PathBuf {
    if name.is_null() {
        return PathBuf::new();
    }
    // SAFETY: SQLite's names end with a zero.
    unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default().into()
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let path = path_of(name);
    // SAFETY: SQLite's own arguments, handed on; there is room for the system's file behind ours.
    unsafe {
        (*file).pMethods = ptr::null();
        if let Some(code) = judge(&path, What::Open) {
            return code;
        }
        let system: *mut sqlite3_vfs = (*vfs).pAppData.cast();
        let real = file.byte_add(size_of::<File>());
        let code = (*system).xOpen.unwrap()(system, name, real, flags, out);
        if code == ffi::SQLITE_OK {
            let inner = Box::into_raw(Box::new(Inner { real, path }));
            let methods = Box::leak(Box::new(table(&*(*real).pMethods)));
            ptr::write(file.cast(), File { base: sqlite3_file { pMethods: methods }, inner });
        }
        code
    }
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    if let Some(code) = judge(&path_of(name), What::Delete) {
        return code;
    }
    // SAFETY: SQLite's own arguments, handed on.
    unsafe {
        let system: *mut sqlite3_vfs = (*vfs).pAppData.cast();
        (*system).xDelete.unwrap()(system, name, sync)
    }
}

fn table(theirs: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods {
        iVersion: theirs.iVersion,
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
        xShmMap: theirs.xShmMap.and(Some(shm_map)),
        xShmLock: theirs.xShmLock.and(Some(shm_lock)),
        xShmBarrier: theirs.xShmBarrier.and(Some(shm_barrier)),
        xShmUnmap: theirs.xShmUnmap.and(Some(shm_unmap)),
        xFetch: theirs.xFetch.and(Some(fetch)),
        xUnfetch: theirs.xUnfetch.and(Some(unfetch)),
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once.
    unsafe {
        let inner = Box::from_raw((*file.cast::<File>()).inner);
        (*(*inner.real).pMethods).xClose.unwrap()(inner.real)
    }
}

macro_rules! functions {
    ($($name:ident as $entry:ident ($($argument:ident: $type:ty),*) $(judged as $what:expr)?;)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) -> c_int {
            // SAFETY: SQLite's own arguments, handed on with the system's file.
            unsafe {
                let (inner, methods) = inner(file);
                $(if let Some(code) = judge(&inner.path, $what) {
                    return code;
                })?
                methods.$entry.unwrap()(inner.real $(, $argument)*)
            }
        }
    )*};
}

functions! {
    read as xRead(to: *mut c_void, count: c_int, offset: sqlite3_int64) judged as What::Read;
    write as xWrite(from: *const c_void, count: c_int, offset: sqlite3_int64) judged as What::Write;
    truncate as xTruncate(size: sqlite3_int64) judged as What::Truncate;
    sync as xSync(flags: c_int) judged as What::Sync;
    file_size as xFileSize(size: *mut sqlite3_int64);
    lock as xLock(level: c_int);
    unlock as xUnlock(level: c_int);
    check_reserved_lock as xCheckReservedLock(held: *mut c_int);
    file_control as xFileControl(operation: c_int, argument: *mut c_void);
    sector_size as xSectorSize();
    device_characteristics as xDeviceCharacteristics();
    shm_map as xShmMap(part: c_int, size: c_int, extend: c_int, mapped: *mut *mut c_void) judged as What::Map(part);
    shm_lock as xShmLock(offset: c_int, count: c_int, flags: c_int);
    shm_unmap as xShmUnmap(delete: c_int);
    fetch as xFetch(offset: sqlite3_int64, count: c_int, page: *mut *mut c_void);
    unfetch as xUnfetch(offset: sqlite3_int64, page: *mut c_void);
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: the system's own function, with its own file.
    unsafe {
        let (inner, methods) = inner(file);
        methods.xShmBarrier.unwrap()(inner.real);
    }
}
