//! Which messages one consumer holds, and how many it may hold at once.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::message_queue::machine::Claim;

/// The messages that one consumer holds: those it was handed whose leases have not ended.
#[derive(Debug)]
pub(in crate::message_queue) struct Window {
    size: usize,
    held: Mutex<BTreeSet<Claim>>,
}

/// One message in a window, until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Window>, Claim);

impl Window {
    /// A window of `size` messages.
    pub(in crate::message_queue) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, held: Mutex::default() })
    }

    fn claims(&self) -> MutexGuard<'_, BTreeSet<Claim>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages it holds.
    pub(in crate::message_queue) fn held(&self) -> usize {
        self.claims().len()
    }

    /// Whether it holds this one.
    pub(in crate::message_queue) fn holds(&self, claim: &Claim) -> bool {
        self.claims().contains(claim)
    }

    /// How many more it has room for.
    pub(super) fn room(&self) -> usize {
        self.size.saturating_sub(self.held())
    }

    /// Room for one message, taken.
    pub(super) fn take(self: &Arc<Self>, claim: Claim) -> Place {
        self.claims().insert(claim);
        Place(self.clone(), claim)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.claims().remove(&self.1);
    }
}
