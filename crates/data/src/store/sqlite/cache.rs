//! A cache of checked blocks.
//!
//! SQLite drops a reader's page cache whenever the writer commits; blocks are immutable, so that ours stays good. Two
//! generations bound it: what is used moves to the young one, and when that has filled half of the space the old one is
//! dropped.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, PoisonError},
};

use super::block::Block;

/// Blocks by their first position, up to a number of bytes.
pub(super) struct BlockCache {
    inner: Mutex<Inner>,
    max_bytes: usize,
}

#[derive(Default)]
struct Inner {
    young: BTreeMap<u64, Block>,
    old: BTreeMap<u64, Block>,
    young_bytes: usize,
    changes: u64,
}

/// When a block was read. It is not cached if blocks changed since.
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
        let mut inner = self.lock();
        if let Some(block) = holding(&inner.young, position) {
            return Some(block.clone());
        }
        let block = holding(&inner.old, position)?.clone();
        inner.old.remove(&block.first());
        inner.put(block.clone(), self.max_bytes);
        Some(block)
    }

    /// Keeps a block that was read after `epoch` was taken.
    pub(super) fn put(&self, block: Block, epoch: Epoch) {
        let mut inner = self.lock();
        if inner.changes == epoch.0 {
            inner.put(block, self.max_bytes);
        }
    }

    /// Forgets everything, because blocks changed in the database.
    pub(super) fn clear(&self) {
        let mut inner = self.lock();
        *inner = Inner { changes: inner.changes + 1, ..Inner::default() };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn put(&mut self, block: Block, max_bytes: usize) {
        let size = block.size();
        if self.young.insert(block.first(), block).is_none() {
            self.young_bytes += size;
        }
        if self.young_bytes > max_bytes / 2 {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

fn holding(blocks: &BTreeMap<u64, Block>, position: u64) -> Option<&Block> {
    let (_, block) = blocks.range(..=position).next_back()?;
    (position < block.end()).then_some(block)
}
