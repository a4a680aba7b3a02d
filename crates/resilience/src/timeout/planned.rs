//! When the driver of the timers wakes next, and who tells it that this is too late.
//!
//! The driver looks through the wheels one after the other, and somebody may set a deadline in one that it has left
//! already. So it says "tell me of anything" before it begins to look, and what it found only afterwards: whoever sets a
//! deadline does so first and looks second at what the driver has planned.

use super::sync::{AtomicU64, Ordering};

/// The tick at which the driver wakes.
pub(super) struct Planned(AtomicU64);

impl Planned {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// The driver is about to look: until it has, it wants to be told of everything.
    pub(super) fn look(&self) {
        // Ordering: each wheel is behind a lock. Whoever sets a deadline in a wheel after the driver has looked at it takes
        // that lock after the driver gave it back, and so sees this, or what the driver planned later.
        self.0.store(u64::MAX, Ordering::Relaxed);
    }

    /// The driver has looked, and sleeps until `next`.
    pub(super) fn sleep(&self, next: Option<u64>) {
        self.0.store(next.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether the driver must be told of a deadline at `due` that was set just now: it plans to wake later, and nobody else
    /// is about to tell it of an earlier one.
    pub(super) fn is_later_than(&self, due: u64) -> bool {
        // Ordering: whoever finds an earlier deadline here that the driver hasn't planned relies on the one who put it here, and
        // who tells the driver after that. Its look then comes after both deadlines were set: had it looked at a wheel before,
        // this word would have been stored after.
        due < self.0.load(Ordering::Relaxed) && due < self.0.fetch_min(due, Ordering::Relaxed)
    }
}
