//! How much memory SQLite holds on behalf of a thread.
//!
//! SQLite counts what the whole process holds. What one statement takes can be told from that only while nobody else works:
//! so its allocator is asked through one that counts by thread. A statement runs on one thread from beginning to end.
#![expect(unsafe_code, reason = "SQLite's allocator is C")]

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    marker::PhantomData,
    sync::OnceLock,
};

use rusqlite::ffi::{self, sqlite3_mem_methods};

use crate::store::{Bound, SqlError};

/// SQLite's own allocator; `None` where it was in use before ours could be put in front of it.
static BELOW: OnceLock<Option<Allocator>> = OnceLock::new();

struct Allocator(sqlite3_mem_methods);

// SAFETY: its functions may be called from any thread, and SQLite never changes them again.
unsafe impl Send for Allocator {}
// SAFETY: as above.
unsafe impl Sync for Allocator {}

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static MOST: Cell<i64> = const { Cell::new(i64::MAX) };
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Refuses memory on this thread beyond so much, until this is dropped. Does nothing where somebody used SQLite before us.
pub(super) struct Capped(PhantomData<*const ()>);

impl Capped {
    /// SQLite may hold so many bytes on this thread, as [`held`] counts them.
    pub(super) fn at(most: i64) -> Self {
        MOST.set(most);
        REFUSED.set(false);
        Self(PhantomData)
    }

    /// Whether it wanted more.
    #[expect(clippy::unused_self, reason = "the answer is of the time since this was made")]
    pub(super) fn refused(&self) -> bool {
        REFUSED.get()
    }
}

impl Drop for Capped {
    fn drop(&mut self) {
        MOST.set(i64::MAX);
    }
}

/// Runs something that SQLite may take so many bytes for on this thread.
///
/// # Errors
/// [`SqlError::Exceeded`] where it failed because it wanted more.
pub(super) fn capped<T>(bytes: usize, run: impl FnOnce() -> Result<T, SqlError>) -> Result<T, SqlError> {
    let capped = Capped::at(held().saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX)));
    let outcome = run();
    if outcome.is_err() && capped.refused() { Err(SqlError::Exceeded(Bound::Memory(bytes))) } else { outcome }
}

/// Whether so many bytes more are too many.
fn is_too_much(more: i64) -> bool {
    let refused = HELD.get().saturating_add(more) > MOST.get();
    if refused {
        REFUSED.set(true);
    }
    refused
}

/// Has SQLite's memory counted by thread. Works only before SQLite is first used.
pub(super) fn count() {
    BELOW.get_or_init(|| {
        let mut below = sqlite3_mem_methods {
            xMalloc: None,
            xFree: None,
            xRealloc: None,
            xSize: None,
            xRoundup: None,
            xInit: None,
            xShutdown: None,
            pAppData: std::ptr::null_mut(),
        };
        // SAFETY: SQLite copies its methods out, and ours in, where it is not in use yet; else it refuses both.
        unsafe {
            if ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMALLOC, &raw mut below) != ffi::SQLITE_OK {
                return None;
            }
            let mut ours =
                sqlite3_mem_methods { xMalloc: Some(malloc), xFree: Some(free), xRealloc: Some(realloc), ..below };
            let is_whole = below.xMalloc.is_some() && below.xFree.is_some() && below.xRealloc.is_some();
            let known = is_whole && below.xSize.is_some();
            if !known || ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw mut ours) != ffi::SQLITE_OK {
                return None;
            }
            // SQLite's own count takes a lock that all threads share, for every piece of memory.
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0);
            Some(Allocator(below))
        }
    });
}

/// Bytes that SQLite took on this thread and has not given back, give or take what moved between threads. Where somebody
/// used SQLite before us, those of the whole process.
pub(super) fn held() -> i64 {
    match BELOW.get() {
        Some(Some(_)) => HELD.get(),
        // SAFETY: it only reads a counter.
        _ => unsafe { ffi::sqlite3_memory_used() },
    }
}

fn note(change: i64) {
    HELD.set(HELD.get().wrapping_add(change));
}

/// SQLite's own allocator. It is there: ours is called only where it was put in front of it.
fn below() -> Option<&'static sqlite3_mem_methods> {
    BELOW.get().and_then(Option::as_ref).map(|Allocator(below)| below)
}

/// The size of what SQLite allocated.
///
/// # Safety
/// `memory` is null, or was allocated by `below` and not freed.
unsafe fn size(below: &sqlite3_mem_methods, memory: *mut c_void) -> i64 {
    match below.xSize {
        // SAFETY: as the caller says.
        Some(size) if !memory.is_null() => i64::from(unsafe { size(memory) }),
        _ => 0,
    }
}

unsafe extern "C" fn malloc(bytes: c_int) -> *mut c_void {
    let Some((below, malloc)) = below().and_then(|below| Some((below, below.xMalloc?))) else {
        return std::ptr::null_mut();
    };
    if is_too_much(bytes.into()) {
        return std::ptr::null_mut();
    }
    // SAFETY: SQLite asks for it as it would ask its own.
    unsafe {
        let memory = malloc(bytes);
        note(size(below, memory));
        memory
    }
}

unsafe extern "C" fn free(memory: *mut c_void) {
    let Some((below, free)) = below().and_then(|below| Some((below, below.xFree?))) else { return };
    // SAFETY: as above; it was allocated there.
    unsafe {
        note(-size(below, memory));
        free(memory);
    }
}

unsafe extern "C" fn realloc(memory: *mut c_void, bytes: c_int) -> *mut c_void {
    let Some((below, realloc)) = below().and_then(|below| Some((below, below.xRealloc?))) else {
        return std::ptr::null_mut();
    };
    // SAFETY: as above.
    unsafe {
        let before = size(below, memory);
        if is_too_much(i64::from(bytes) - before) {
            return std::ptr::null_mut();
        }
        let moved = realloc(memory, bytes);
        if !moved.is_null() {
            note(size(below, moved) - before);
        }
        moved
    }
}
