//! A cache of checked blocks.
//!
//! SQLite drops a reader's page cache whenever the writer commits; blocks are immutable, so that ours stays good. When it
//! is full a hand goes round, as in the second-chance (CLOCK) algorithm: what was used since its last round stays.
//!
//! Source: Corbató, "A Paging Experiment with the Multics System" (1968).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::block::Block;

/// Blocks by their first position, up to a number of bytes.
pub(super) struct BlockCache {
    inner: Mutex<Inner>,
    max_bytes: usize,
}

#[derive(Default)]
struct Inner {
    by_first: BTreeMap<u64, usize>,
    slots: Vec<Slot>,
    hand: usize,
    bytes: usize,
    changes: u64,
}

struct Slot {
    block: Block,
    used: bool,
}

/// When blocks were read. They are not cached if blocks changed since.
#[derive(Clone, Copy)]
pub(super) struct Epoch(u64);

impl BlockCache {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { inner: Mutex::default(), max_bytes }
    }

    /// To be taken before a block is read from the database.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.lock().changes)
    }

    /// The block that holds `position`.
    pub(super) fn get(&self, position: u64) -> Option<Block> {
        self.lock().get(position)
    }

    /// The blocks that hold `positions`, as far as they are here.
    pub(super) fn get_all(&self, positions: &[u64]) -> Vec<Option<Block>> {
        let mut inner = self.lock();
        positions.iter().map(|position| inner.get(*position)).collect()
    }

    /// Keeps a block that was read after `epoch` was taken.
    pub(super) fn put(&self, block: Block, epoch: Epoch) {
        let mut inner = self.lock();
        if inner.changes == epoch.0 && block.size() <= self.max_bytes {
            inner.put(block, self.max_bytes);
        }
    }

    /// Forgets the blocks that begin at `firsts`, because they changed in the database.
    pub(super) fn forget(&self, firsts: &[u64]) {
        let mut inner = self.lock();
        inner.changes += 1;
        for first in firsts {
            if let Some(n) = inner.by_first.get(first).copied() {
                inner.drop_slot(n);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn get(&mut self, position: u64) -> Option<Block> {
        let (_, n) = self.by_first.range(..=position).next_back()?;
        let slot = &mut self.slots[*n];
        if position >= slot.block.end() {
            return None;
        }
        slot.used = true;
        Some(slot.block.clone())
    }

    fn put(&mut self, block: Block, max_bytes: usize) {
        if self.by_first.contains_key(&block.first()) {
            return;
        }
        while self.bytes + block.size() > max_bytes {
            self.evict();
        }
        self.bytes += block.size();
        self.by_first.insert(block.first(), self.slots.len());
        self.slots.push(Slot { block, used: false });
    }

    /// Drops the next block that was not used since the hand last came by. There must be one.
    fn evict(&mut self) {
        loop {
            self.hand = if self.hand < self.slots.len() { self.hand } else { 0 };
            let slot = &mut self.slots[self.hand];
            if !std::mem::take(&mut slot.used) {
                break;
            }
            self.hand += 1;
        }
        self.drop_slot(self.hand);
    }

    fn drop_slot(&mut self, n: usize) {
        let gone = self.slots.swap_remove(n);
        self.bytes -= gone.block.size();
        self.by_first.remove(&gone.block.first());
        if let Some(moved) = self.slots.get(n) {
            self.by_first.insert(moved.block.first(), n);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::BlockCache;
    use crate::{
        event::{ChainHash, NewEvent, Place, Position, Prepared, Version},
        store::sqlite::block::{Block, encode},
    };

    fn block(position: u64) -> Block {
        let place = Place {
            version: Version::new(1),
            position: Position::new(position),
            recorded_at: Default::default(),
            previous: ChainHash::START,
        };
        let event = Prepared::new(&NewEvent::new("1", "/s", "t"), "s").record(&place, &mut BytesMut::new());
        let mut body = Vec::new();
        encode(&[event], &mut body);
        Block::check(position, body.into()).unwrap()
    }

    #[test]
    fn what_is_used_stays_and_the_bound_holds() {
        let size = block(1).size();
        let cache = BlockCache::new(size * 10);
        for position in 1..=1_000 {
            cache.put(block(position), cache.epoch());
            assert!(cache.get(1).is_some(), "position 1 was used all the time");
            assert!(cache.lock().bytes <= size * 10);
        }
        let held = (1..=1_000).filter(|position| cache.get(*position).is_some_and(|b| b.first() == *position)).count();
        assert_eq!(held, 10);
    }

    #[test]
    fn a_block_read_before_a_change_is_not_kept() {
        let cache = BlockCache::new(1 << 20);
        let epoch = cache.epoch();
        cache.forget(&[7]);
        cache.put(block(1), epoch);
        assert!(cache.get(1).is_none());
    }

    #[test]
    fn a_block_that_changed_is_forgotten_and_the_others_stay() {
        let cache = BlockCache::new(1 << 20);
        (1..=5).for_each(|position| cache.put(block(position), cache.epoch()));
        cache.forget(&[2, 5, 9]);
        let held: Vec<u64> = (1..=5).filter(|position| cache.get(*position).is_some()).collect();
        assert_eq!(held, [1, 3, 4]);
        assert_eq!(cache.lock().bytes, 3 * block(1).size());
    }
}
