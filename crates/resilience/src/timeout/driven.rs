//! Whether somebody drives the timers: begun by the first who needs it, left when nothing is to be driven.

use super::sync::{AtomicBool, Ordering};

pub(super) struct Driven(AtomicBool);

impl Driven {
    pub(super) const fn new(driven: AtomicBool) -> Self {
        Self(driven)
    }

    /// Whether somebody does. Ask after an alarm was set: who sees that nobody does has to [begin](Self::begins).
    #[inline]
    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Says that somebody does. Returns whether nobody did: then it is the caller who has to.
    pub(super) fn begins(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// Says that nobody does, unless there are alarms: `is_empty` looks, under the locks that alarms are set with. Returns whether the
    /// caller has left; then it may be that another one has begun.
    pub(super) fn leaves(&self, is_empty: impl Fn() -> bool) -> bool {
        if !is_empty() {
            return false;
        }
        // Ordering: the wheels are behind locks. Who sets an alarm after this has looked at its wheel a second time sees that
        // nobody drives; what was set before is seen by that look.
        self.0.store(false, Ordering::Relaxed);
        is_empty() || !self.begins()
    }

    /// Says that nobody does, since whoever did is gone.
    pub(super) fn is_gone(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
