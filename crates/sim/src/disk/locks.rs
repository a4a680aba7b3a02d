//! Locks between the connections to one database file, by the rules of SQLite's unix VFS.

use std::collections::BTreeMap;

pub(super) type HandleId = u64;

/// How strongly a connection has locked a file. SQLite's documentation, "File Locking And Concurrency", section 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Unlocked,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

/// The locks on one file.
#[derive(Default)]
pub(super) struct FileLocks(BTreeMap<HandleId, Level>);

impl FileLocks {
    pub(super) fn level(&self, handle: HandleId) -> Level {
        self.0.get(&handle).copied().unwrap_or_default()
    }

    /// Raises the lock of `handle` to `wanted`; `false` while another one stands in the way.
    pub(super) fn raise(&mut self, handle: HandleId, wanted: Level) -> bool {
        let own = self.level(handle);
        if own >= wanted {
            return true;
        }
        let others = self.0.iter().filter(|(id, _)| **id != handle).map(|(_, level)| *level).max().unwrap_or_default();
        let granted = match wanted {
            Level::Shared => others < Level::Pending,
            Level::Exclusive if others >= Level::Reserved => false,
            Level::Exclusive => {
                // Whoever waits for readers to leave lets no new ones in.
                if own == Level::Reserved {
                    self.0.insert(handle, Level::Pending);
                }
                others < Level::Shared
            }
            _ => others < Level::Reserved,
        };
        if granted {
            self.0.insert(handle, wanted);
        }
        granted
    }

    /// Lowers the lock of `handle` to `wanted`.
    pub(super) fn lower(&mut self, handle: HandleId, wanted: Level) {
        if wanted == Level::Unlocked {
            self.0.remove(&handle);
        } else if self.level(handle) > wanted {
            self.0.insert(handle, wanted);
        }
    }

    /// Whether anybody is about to write.
    pub(super) fn is_reserved(&self) -> bool {
        self.0.values().any(|level| *level >= Level::Reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::{FileLocks, Level};

    #[test]
    fn one_writer_reserves_while_readers_stay() {
        let mut locks = FileLocks::default();
        assert!(locks.raise(1, Level::Shared) && locks.raise(2, Level::Shared));
        assert!(locks.raise(1, Level::Reserved) && locks.is_reserved());
        assert!(!locks.raise(2, Level::Reserved));
        assert!(locks.raise(3, Level::Shared));
    }

    #[test]
    fn a_writer_that_waits_lets_no_new_reader_in_and_gets_its_turn_when_the_last_one_leaves() {
        let mut locks = FileLocks::default();
        assert!(locks.raise(1, Level::Shared) && locks.raise(2, Level::Shared));
        assert!(locks.raise(1, Level::Reserved) && !locks.raise(1, Level::Exclusive));
        assert_eq!(locks.level(1), Level::Pending);
        assert!(!locks.raise(3, Level::Shared));
        locks.lower(2, Level::Unlocked);
        assert!(locks.raise(1, Level::Exclusive) && !locks.raise(3, Level::Shared));
        locks.lower(1, Level::Shared);
        assert!(locks.raise(3, Level::Shared));
    }
}
