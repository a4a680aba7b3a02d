//! Something that everybody looks at with each call, and somebody replaces now and then.

use std::sync::PoisonError;

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// What holds now. Whether it is still what one knows costs one load; the lock is for those who find that it isn't.
pub(super) struct Replaced<T> {
    /// Raised whenever something else holds.
    turn: AtomicU64,
    held: Mutex<T>,
}

/// Until which replacement one knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen(u64);

impl<T: Clone> Replaced<T> {
    pub(super) fn new(held: T) -> Self {
        Self { turn: AtomicU64::new(0), held: Mutex::new(held) }
    }

    /// Lets `next` hold for whoever looks from now on.
    pub(super) fn replace(&self, next: T) {
        let mut held = self.lock();
        *held = next;
        // Ordering: whoever sees the new turn takes the lock that is held here, and finds what is new.
        self.turn.fetch_add(1, Ordering::Release);
    }

    /// What holds, for somebody who knew nothing.
    pub(super) fn first(&self) -> (T, Seen) {
        // The turn first: what is replaced between the two is looked at once more.
        let seen = Seen(self.turn.load(Ordering::Acquire));
        (self.held(), seen)
    }

    /// What holds.
    pub(super) fn held(&self) -> T {
        self.lock().clone()
    }

    /// What holds, if it may be something else than was `seen`.
    #[inline]
    pub(super) fn newer(&self, seen: &mut Seen) -> Option<T> {
        let turn = self.turn.load(Ordering::Acquire);
        (turn != seen.0).then(|| self.adopt(seen, turn))
    }

    #[cold]
    fn adopt(&self, seen: &mut Seen, turn: u64) -> T {
        *seen = Seen(turn);
        self.held()
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
