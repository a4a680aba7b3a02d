//! The memory that connections in WAL mode share, and its locks.
//!
//! SQLite's unix VFS maps a file named `…-shm`. What is in it is worth nothing after a crash, and the connection that
//! comes first builds it anew; here it is memory from the start, and no such file is seen.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use super::locks::HandleId;

/// How many locks there are, `SQLITE_SHM_NLOCK`.
pub(super) const LOCKS: usize = 8;

/// A part of the shared memory. Atomics, since SQLite writes to it through plain pointers while others hold it, too.
pub(super) type Region = Arc<[AtomicU64]>;

#[derive(Clone, Copy, Default)]
struct Held {
    shared: u16,
    exclusive: u16,
}

/// What to do with a range of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Share,
    Exclude,
    Release,
}

/// The shared memory of one database file.
#[derive(Default)]
pub(super) struct Shm {
    regions: Vec<Region>,
    users: BTreeMap<HandleId, Held>,
}

impl Shm {
    pub(super) fn join(&mut self, handle: HandleId) {
        self.users.entry(handle).or_default();
    }

    /// Ends the use by `handle`, with its locks. Returns whether nobody is left.
    pub(super) fn leave(&mut self, handle: HandleId) -> bool {
        self.users.remove(&handle);
        self.users.is_empty()
    }

    pub(super) fn region(&self, number: usize) -> Option<&Region> {
        self.regions.get(number)
    }

    pub(super) fn regions(&self) -> usize {
        self.regions.len()
    }

    /// Bytes in all regions.
    pub(super) fn bytes(&self) -> u64 {
        self.regions.iter().map(|region| size_of_val(&**region) as u64).sum()
    }

    /// Adds regions of `size` bytes until there are `count`.
    pub(super) fn extend(&mut self, count: usize, size: usize) {
        while self.regions.len() < count {
            self.regions.push((0..size.div_ceil(8)).map(|_| AtomicU64::new(0)).collect());
        }
    }

    /// Takes or gives back `count` locks from `first` on; `false` while somebody else's stand in the way.
    pub(super) fn lock(&mut self, handle: HandleId, first: usize, count: usize, turn: Turn) -> bool {
        let mask = ((1_u32 << (first + count)) - (1_u32 << first)) as u16;
        let others = self.users.iter().filter(|(id, _)| **id != handle).map(|(_, held)| *held);
        let (shared, exclusive) = others.fold((0, 0), |(s, x), held| (s | held.shared, x | held.exclusive));
        let own = self.users.entry(handle).or_default();
        match turn {
            Turn::Release => {
                own.shared &= !mask;
                own.exclusive &= !mask;
                true
            }
            Turn::Share if exclusive & mask == 0 => {
                own.shared |= mask;
                true
            }
            Turn::Exclude if (shared | exclusive) & mask == 0 => {
                own.exclusive |= mask;
                true
            }
            Turn::Share | Turn::Exclude => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Shm, Turn};

    #[test]
    fn readers_share_a_lock_and_keep_a_writer_from_it() {
        let mut shm = Shm::default();
        assert!(shm.lock(1, 3, 1, Turn::Share) && shm.lock(2, 3, 1, Turn::Share));
        assert!(!shm.lock(3, 3, 5, Turn::Exclude));
        assert!(shm.lock(1, 3, 1, Turn::Release) && !shm.lock(3, 3, 1, Turn::Exclude));
        shm.leave(2);
        assert!(shm.lock(3, 3, 1, Turn::Exclude) && !shm.lock(1, 3, 1, Turn::Share));
    }
}
