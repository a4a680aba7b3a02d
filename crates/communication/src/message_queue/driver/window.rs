//! How many messages one consumer may hold at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The messages that one consumer holds: those it was handed whose leases have not ended.
#[derive(Debug)]
pub(in crate::message_queue) struct Window {
    size: usize,
    held: AtomicUsize,
}

/// One message in a window, until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Window>);

impl Window {
    /// A window of `size` messages.
    pub(in crate::message_queue) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, held: AtomicUsize::new(0) })
    }

    /// How many messages it holds.
    pub(in crate::message_queue) fn held(&self) -> usize {
        // Ordering: a count; the task that drives the queue is the only one that changes it.
        self.held.load(Ordering::Relaxed)
    }

    /// How many more it has room for.
    pub(super) fn room(&self) -> usize {
        self.size.saturating_sub(self.held())
    }

    /// Room for one message, taken.
    pub(super) fn take(self: &Arc<Self>) -> Place {
        self.held.fetch_add(1, Ordering::Relaxed);
        Place(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}
