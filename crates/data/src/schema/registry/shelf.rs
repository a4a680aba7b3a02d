//! Which schemas are kept compiled: as many as their limit allows, the recently used ones.
//!
//! Compiled, a schema takes many times its text, and a registry may hold thousands of them that no event has named for
//! months. One hand goes round as over a clock's face: what was used since it last came by stays, the rest is put away
//! until there is room. (The CLOCK algorithm; Corbato, "A Paging Experiment with the Multics System", 1968.)

use super::entry::Entry;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// The compiled schemas of a registry.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// What stands there, with what it takes; the hand is at the front.
    kept: VecDeque<(Weak<Entry>, usize)>,
    bytes: usize,
}

impl Shelf {
    /// Notes that `entry` is compiled now, and puts others away until all together take at most `limit` bytes, or it is the
    /// only one.
    pub(super) fn keep(&self, entry: &Arc<Entry>, bytes: usize, limit: usize) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.kept.push_back((Arc::downgrade(entry), bytes));
        inner.bytes += bytes;
        // Two rounds: in the first each may have been used, and others may use it meanwhile.
        let mut looks = 2 * inner.kept.len();
        while inner.bytes > limit && inner.kept.len() > 1 {
            let Some((oldest, bytes)) = inner.kept.pop_front() else { return };
            looks = looks.saturating_sub(1);
            match oldest.upgrade() {
                Some(oldest) if Arc::ptr_eq(&oldest, entry) || (oldest.was_used() && looks > 0) => {
                    inner.kept.push_back((Arc::downgrade(&oldest), bytes));
                }
                Some(oldest) => {
                    oldest.put_away();
                    inner.bytes -= bytes;
                }
                None => inner.bytes -= bytes,
            }
        }
    }

    /// How many are compiled, and what they take.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.kept.len(), inner.bytes)
    }
}
