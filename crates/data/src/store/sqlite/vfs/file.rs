//! The functions of an open file, as SQLite calls them: ours where pages pass, the system's everywhere else.
//!
//! Memory: SQLite gives room for one file, `szOsFile` bytes. Ours comes first, the system's right behind it.
#![expect(unsafe_code, reason = "SQLite's file functions are C")]

use std::{
    ffi::{c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    rc::Rc,
    sync::{Mutex, PoisonError},
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods};

use super::{
    database::Database,
    frames::LogEnd,
    log::Log,
    real::{self, Real},
};

/// A file as SQLite sees it. What it keeps of us must begin like one of its own.
#[repr(C)]
pub(super) struct File {
    base: sqlite3_file,
    inner: *mut Inner,
}

/// Where the system's file begins.
pub(super) const REAL_AT: usize = size_of::<File>();

/// What we know of an open file.
struct Inner {
    real: Real,
    kind: Kind,
}

/// The files in which pages lie for good.
pub(super) enum Kind {
    Database(Rc<Database>),
    Log(Log),
}

/// The room for the system's file in the room that SQLite gave for ours.
pub(super) fn real_of(file: *mut sqlite3_file) -> *mut sqlite3_file {
    file.wrapping_byte_add(REAL_AT)
}

/// Makes `file` one of ours.
///
/// # Safety
/// `file` is the room that SQLite gave, and the system has opened its file in the part of it that `real` stands for.
pub(super) unsafe fn dress(file: *mut sqlite3_file, real: Real, kind: Kind) {
    let methods = table(real.methods());
    let inner = Box::into_raw(Box::new(Inner { real, kind }));
    // SAFETY: the room is ours to write, and SQLite aligns all memory to eight bytes, as much as two pointers need.
    unsafe { ptr::write(file.cast::<File>(), File { base: sqlite3_file { pMethods: methods }, inner }) }
}

/// What we know of `file`.
///
/// # Safety
/// `file` is one of ours, and open during `'f`.
unsafe fn inner<'f>(file: *mut sqlite3_file) -> &'f Inner {
    // SAFETY: `dress` wrote it, and `close` alone frees it.
    unsafe { &*(*file.cast::<File>()).inner }
}

/// The database that `file` is, if it is one of ours.
///
/// # Safety
/// `file` is null or an open file.
pub(super) unsafe fn database(file: *mut sqlite3_file) -> Option<Rc<Database>> {
    // SAFETY: as the caller promises; a file with a table of ours was dressed.
    unsafe {
        match (is_ours(file)).then(|| &inner(file).kind)? {
            Kind::Database(database) => Some(database.clone()),
            Kind::Log(_) => None,
        }
    }
}

/// Has `look` look at the log that `file` is, if it is one of ours.
///
/// # Safety
/// `file` is null or an open file.
pub(super) unsafe fn with_log(file: *mut sqlite3_file, look: impl FnOnce(&Log)) {
    // SAFETY: as the caller promises; a file with a table of ours was dressed.
    unsafe {
        if is_ours(file)
            && let Kind::Log(log) = &inner(file).kind
        {
            look(log);
        }
    }
}

/// How many frames of the log are in the file already. Zero where that cannot be known.
///
/// # Safety
/// The file of `database` is open, and its log's index mapped if the database says so.
pub(super) unsafe fn written_back(database: &Database) -> u64 {
    // "WAL-Index File Format": two headers of 48 bytes, then this number.
    const AT: usize = 2 * 48 / size_of::<u32>();
    // SAFETY: as the caller promises; the index is aligned as memory that is mapped, 32 KiB long, and others change it
    // while we look, whole numbers at a time.
    database.index().map_or(0, |index| u64::from(unsafe { ptr::read_volatile(index.add(AT)) }))
}

/// Where the last transaction of the log ends.
///
/// # Safety
/// The file of `database` is open, and its log's index mapped if the database says so; nobody writes to the log meanwhile.
pub(super) unsafe fn log_end(database: &Database) -> Option<LogEnd> {
    // "WAL-Index File Format": the header's fifth number, and its ninth and tenth, which are as they stand in the log.
    let index = database.index()?;
    // SAFETY: as the caller promises; the index is aligned as memory that is mapped, and 32 KiB long.
    let word = |at| unsafe { ptr::read_volatile(index.add(at)) };
    Some(LogEnd { salts: [word(8), word(9)], frames: word(4) })
}

/// # Safety
/// `file` is null or points to a file, open or not.
unsafe fn is_ours(file: *mut sqlite3_file) -> bool {
    // SAFETY: as the caller promises.
    let methods = unsafe { file.as_ref() }.map_or(ptr::null(), |file| file.pMethods);
    let tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    tables.iter().any(|(_, ours)| ptr::eq(*ours, methods))
}

/// Our tables, each with the address of the system's table that it stands on.
static TABLES: Mutex<Vec<(usize, &'static sqlite3_io_methods)>> = Mutex::new(Vec::new());

/// The table of ours that can do what `theirs` can. There are few, and they live as long as the process.
fn table(theirs: &'static sqlite3_io_methods) -> &'static sqlite3_io_methods {
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    let address = ptr::from_ref(theirs).addr();
    if let Some((_, ours)) = tables.iter().find(|table| table.0 == address) {
        return ours;
    }
    // What a version does not have is not looked at: the entries may not even be there.
    let (second, third) = (theirs.iVersion >= 2, theirs.iVersion >= 3);
    let ours = Box::leak(Box::new(sqlite3_io_methods {
        iVersion: theirs.iVersion.min(3),
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
        xShmMap: if second { theirs.xShmMap.and(Some(shm_map)) } else { None },
        xShmLock: if second { theirs.xShmLock.and(Some(shm_lock)) } else { None },
        xShmBarrier: if second { theirs.xShmBarrier.and(Some(shm_barrier)) } else { None },
        xShmUnmap: if second { theirs.xShmUnmap.and(Some(shm_unmap)) } else { None },
        xFetch: if third { Some(fetch) } else { None },
        xUnfetch: if third { theirs.xUnfetch.and(Some(unfetch)) } else { None },
    }));
    tables.push((address, ours));
    ours
}

/// Answers `otherwise` if `work` panics: nothing may unwind into SQLite.
fn guarded(otherwise: c_int, work: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    guarded(ffi::SQLITE_IOERR_CLOSE, || {
        // SAFETY: SQLite closes a file of ours once, and does not use it again; `dress` boxed what we know of it.
        unsafe {
            let inner = Box::from_raw((*file.cast::<File>()).inner);
            (*file).pMethods = ptr::null();
            let real = inner.real.file();
            inner.real.methods().xClose.map_or(ffi::SQLITE_OK, |close| close(real))
        }
    })
}

unsafe extern "C" fn read(file: *mut sqlite3_file, to: *mut c_void, count: c_int, offset: sqlite3_int64) -> c_int {
    guarded(ffi::SQLITE_IOERR_READ, || {
        // SAFETY: SQLite calls this with an open file of ours and room for `count` bytes, which are set here.
        let (inner, buffer) = unsafe {
            ptr::write_bytes(to.cast::<u8>(), 0, usize::try_from(count).unwrap_or(0));
            (inner(file), real::buffer(to, count))
        };
        match &inner.kind {
            Kind::Database(database) => database.read(buffer, offset),
            Kind::Log(log) => log.read(buffer, offset),
        }
    })
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, count: c_int, offset: sqlite3_int64) -> c_int {
    guarded(ffi::SQLITE_IOERR_WRITE, || {
        // SAFETY: SQLite calls this with an open file of ours and `count` bytes that stay as they are meanwhile.
        let (inner, bytes) = unsafe { (inner(file), real::bytes(from, count)) };
        match &inner.kind {
            Kind::Database(database) => database.write(bytes, offset),
            Kind::Log(log) => log.write(bytes, offset),
        }
    })
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    guarded(ffi::SQLITE_IOERR_TRUNCATE, || {
        // SAFETY: SQLite calls this with an open file of ours.
        let inner = unsafe { inner(file) };
        if let Kind::Log(log) = &inner.kind {
            log.truncated(size);
        }
        let Some(truncate) = inner.real.methods().xTruncate else { return ffi::SQLITE_IOERR_TRUNCATE };
        // SAFETY: the system's own function, with its own file.
        unsafe { truncate(inner.real.file(), size) }
    })
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    mapped: *mut *mut c_void,
) -> c_int {
    guarded(ffi::SQLITE_IOERR_SHMMAP, || {
        // SAFETY: SQLite calls this with an open file of ours and room for a pointer; the function is the system's own,
        // with its own file.
        let (inner, code, first) = unsafe {
            let inner = inner(file);
            let Some(map) = inner.real.methods().xShmMap else { return ffi::SQLITE_IOERR_SHMMAP };
            let code = map(inner.real.file(), region, size, extend, mapped);
            (inner, code, *mapped)
        };
        if code == ffi::SQLITE_OK
            && region == 0
            && !first.is_null()
            && let Kind::Database(database) = &inner.kind
        {
            database.mapped(first.cast::<u32>());
        }
        code
    })
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    guarded(ffi::SQLITE_OK, || {
        // SAFETY: SQLite calls this with an open file of ours.
        let inner = unsafe { inner(file) };
        if let Kind::Database(database) = &inner.kind {
            database.unmapped();
        }
        let Some(unmap) = inner.real.methods().xShmUnmap else { return ffi::SQLITE_OK };
        // SAFETY: the system's own function, with its own file.
        unsafe { unmap(inner.real.file(), delete) }
    })
}

/// Maps nothing: a page that is mapped would be read past us. SQLite then reads it the other way.
unsafe extern "C" fn fetch(_: *mut sqlite3_file, _: sqlite3_int64, _: c_int, page: *mut *mut c_void) -> c_int {
    // SAFETY: SQLite gives room for a pointer.
    unsafe { *page = ptr::null_mut() };
    ffi::SQLITE_OK
}

/// What the system's file is like, but that SQLite must not read parts of pages: it would read them past us.
unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    guarded(0, || {
        // SAFETY: SQLite calls this with an open file of ours; the function is the system's own, with its own file.
        unsafe {
            let real = inner(file).real;
            let theirs = real.methods().xDeviceCharacteristics.map_or(0, |function| function(real.file()));
            theirs & !ffi::SQLITE_IOCAP_SUBPAGE_READ
        }
    })
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    guarded(ffi::SQLITE_IOERR_FSYNC, || {
        // SAFETY: SQLite calls this with an open file of ours.
        let inner = unsafe { inner(file) };
        let real = inner.real;
        #[cfg(feature = "museum")]
        let real = match &inner.kind {
            Kind::Log(log) => log.astray().unwrap_or(real),
            Kind::Database(_) => real,
        };
        let Some(sync) = real.methods().xSync else { return ffi::SQLITE_IOERR_FSYNC };
        // SAFETY: the system's own function, with its own file.
        unsafe { sync(real.file(), flags) }
    })
}

/// Functions that are the system's, called with the system's file.
macro_rules! handed_on {
    ($($name:ident as $entry:ident ($($argument:ident: $type:ty),*), else $otherwise:expr;)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) -> c_int {
            guarded($otherwise, || {
                // SAFETY: SQLite calls this with an open file of ours; the function is the system's own, with its own file
                // and the arguments as SQLite gave them.
                unsafe {
                    let real = inner(file).real;
                    real.methods().$entry.map_or($otherwise, |function| function(real.file() $(, $argument)*))
                }
            })
        }
    )*};
}

handed_on! {
    file_size as xFileSize(size: *mut sqlite3_int64), else ffi::SQLITE_IOERR_FSTAT;
    lock as xLock(level: c_int), else ffi::SQLITE_IOERR_LOCK;
    unlock as xUnlock(level: c_int), else ffi::SQLITE_IOERR_UNLOCK;
    check_reserved_lock as xCheckReservedLock(held: *mut c_int), else ffi::SQLITE_IOERR_CHECKRESERVEDLOCK;
    file_control as xFileControl(operation: c_int, argument: *mut c_void), else ffi::SQLITE_NOTFOUND;
    sector_size as xSectorSize(), else 4096;
    shm_lock as xShmLock(offset: c_int, count: c_int, flags: c_int), else ffi::SQLITE_IOERR_SHMLOCK;
    unfetch as xUnfetch(offset: sqlite3_int64, page: *mut c_void), else ffi::SQLITE_OK;
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    guarded(ffi::SQLITE_OK, || {
        // SAFETY: SQLite calls this with an open file of ours; the function is the system's own, with its own file.
        unsafe {
            let real = inner(file).real;
            if let Some(barrier) = real.methods().xShmBarrier {
                barrier(real.file());
            }
        }
        ffi::SQLITE_OK
    });
}
