//! What the lock-free parts are built of. Their tests put loom's in its place.

pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use crate::stripes::{Lane, Lanes};

/// Threads that have a cell of each counter for themselves.
pub(crate) const OWNED: usize = 16;
/// Cells shared by all other threads.
pub(crate) const SHARED: usize = 8;

/// Buckets of a time: one for what is quick, and eight for each doubling up to an hour.
pub(crate) const BUCKETS: usize = 1 + 32 * 8;

/// The lanes of this process.
static LANES: Lanes = Lanes { taken: AtomicU32::new(0), guests: AtomicU32::new(0) };

thread_local! {
    /// This thread's lane, given back when the thread ends.
    static MINE: Mine = Mine(LANES.claim());
}

struct Mine(Lane);

impl Drop for Mine {
    fn drop(&mut self) {
        LANES.release(self.0);
    }
}

/// The lane of this thread. Whoever asks while the thread is being torn down is a guest.
#[inline]
pub(crate) fn lane() -> Lane {
    MINE.try_with(|mine| mine.0).unwrap_or(Lane::GUEST)
}
