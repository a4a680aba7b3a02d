//! Whose turn it is: whoever ends a branch, or asks a participant what it holds, does so alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as Lock, OwnedMutexGuard};

/// A lock for each of some things, for as long as somebody has it or waits for it.
///
/// Lock order: whoever has the turn of a participant may take those of its branches, and nobody takes another one's behind a branch's.
pub(super) struct Turns<K: Ord>(Mutex<BTreeMap<K, Arc<Lock<()>>>>);

/// Somebody's turn, or place in the line, until it is dropped.
pub(super) struct Turn<'t, K: Ord> {
    turns: &'t Turns<K>,
    key: K,
    lock: Arc<Lock<()>>,
    held: Option<OwnedMutexGuard<()>>,
}

impl<K: Ord> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone> Turns<K> {
    fn known(&self) -> MutexGuard<'_, BTreeMap<K, Arc<Lock<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, key: K) -> Turn<'_, K> {
        let lock = self.known().entry(key.clone()).or_default().clone();
        Turn { turns: self, key, lock, held: None }
    }

    /// Waits until it is the caller's turn, in the order of asking.
    ///
    /// # Cancel safety
    /// Cancel safe: whoever stops waiting leaves the line.
    pub(super) async fn take(&self, key: K) -> Turn<'_, K> {
        let mut turn = self.line(key);
        turn.held = Some(turn.lock.clone().lock_owned().await);
        turn
    }

    /// The caller's turn, unless somebody else has it.
    pub(super) fn take_if_free(&self, key: K) -> Option<Turn<'_, K>> {
        let mut turn = self.line(key);
        turn.held = Some(turn.lock.clone().try_lock_owned().ok()?);
        Some(turn)
    }
}

impl<K: Ord> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        let mut known = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.held = None;
        // This one's and the map's: nobody waits, and nobody can begin to while the map is held.
        if Arc::strong_count(&self.lock) == 2 {
            known.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn only_one_has_a_turn_and_who_stops_waiting_leaves_nothing_behind() {
        let turns = Turns::default();
        let first = turns.take("left").now_or_never().unwrap();
        assert!(turns.take_if_free("left").is_none());
        assert!(turns.take_if_free("right").is_some());
        let mut second = Box::pin(turns.take("left"));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(turns.take("left"));
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        drop(first);
        let third = third.now_or_never().unwrap();
        assert!(turns.take_if_free("left").is_none());
        drop(third);
        assert!(turns.known().is_empty());
    }
}
