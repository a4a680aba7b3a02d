//! A file of a simulated disk, open.

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    SimDisk,
    locks::{HandleId, Level},
    names::{EIO, ENOSPC, error},
    operations::How,
    shm::{Region, Turn},
};

/// An open file. It belongs to the life of the host in which it was opened, and fails in every later one.
pub(super) struct Handle {
    disk: SimDisk,
    id: HandleId,
    life: u64,
    path: Option<String>,
    /// Shared memory that somebody may still point into, whatever became of the disk.
    mapped: Vec<Region>,
}

impl Handle {
    /// Opens the file at `path`, or one without a name, in the life of its own that `disk` is in.
    pub(super) fn open(disk: &SimDisk, life: u64, path: Option<&str>, how: How) -> io::Result<Self> {
        let id = disk.with(|state| state.open(life, path, how))?;
        Ok(Self { disk: disk.clone(), id, life, path: path.map(str::to_owned), mapped: Vec::new() })
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.disk.with(|state| state.read(self.life, self.id, offset, into))
    }

    /// Reads until `into` is full or the file ends, as every careful caller does.
    pub(super) fn read_fully(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.read(offset + done as u64, &mut into[done..])? {
                0 => break,
                more => done += more,
            }
        }
        Ok(done)
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.with(|state| state.write(self.life, self.id, offset, bytes))
    }

    pub(super) fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.with(|state| state.truncate(self.life, self.id, len))
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.disk.with(|state| state.len(self.life, self.id))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.with(|state| state.sync(self.life, self.id))
    }

    pub(super) fn sync_folder(&self) -> io::Result<()> {
        self.disk.with(|state| state.sync_folder(self.life))
    }

    /// Locks the file as a whole, against every other handle.
    pub(super) fn hold(&self) -> io::Result<()> {
        self.disk.with(|state| state.hold(self.id))
    }

    /// Whether the file is still what its name leads to.
    pub(super) fn has_its_name(&self) -> bool {
        let Some(path) = &self.path else { return true };
        self.disk.with(|state| match (state.names.file(path), state.inode_of(self.id)) {
            (Ok(named), Ok(open)) => named == open,
            _ => false,
        })
    }

    pub(super) fn is_powersafe(&self) -> bool {
        self.disk.with(|state| state.model.powersafe_overwrite)
    }

    /// Raises SQLite's lock; `false` while another connection stands in the way.
    pub(super) fn raise(&self, wanted: Level) -> io::Result<bool> {
        self.disk.with(|state| {
            state.check_alive(self.life)?;
            let inode = state.inode_of(self.id)?;
            Ok(state.locks.entry(inode).or_default().raise(self.id, wanted))
        })
    }

    pub(super) fn lower(&self, wanted: Level) -> io::Result<()> {
        self.disk.with(|state| {
            state.check_alive(self.life)?;
            let inode = state.inode_of(self.id)?;
            state.locks.entry(inode).or_default().lower(self.id, wanted);
            Ok(())
        })
    }

    pub(super) fn level(&self) -> Level {
        let level = |state: &mut super::state::State| {
            let inode = state.inode_of(self.id).ok()?;
            Some(state.locks.get(&inode)?.level(self.id))
        };
        self.disk.with(level).unwrap_or_default()
    }

    pub(super) fn is_reserved(&self) -> io::Result<bool> {
        self.disk.with(|state| {
            state.check_alive(self.life)?;
            let inode = state.inode_of(self.id)?;
            Ok(state.locks.get(&inode).is_some_and(super::locks::FileLocks::is_reserved))
        })
    }

    /// Region `number`, each of `size` bytes, of the shared memory; `None` if it isn't there and wasn't to be made.
    pub(super) fn map(&mut self, number: usize, size: usize, extend: bool) -> io::Result<Option<*const AtomicU64>> {
        let region = self.disk.with(|state| {
            state.check_alive(self.life)?;
            let inode = state.inode_of(self.id)?;
            let free = state.free_bytes();
            let shm = state.shm.entry(inode).or_default();
            shm.join(self.id);
            let missing = (number + 1).saturating_sub(shm.regions());
            if missing > 0 && extend {
                if (missing * size) as u64 > free {
                    state.counts.no_space += 1;
                    return Err(error(ENOSPC));
                }
                shm.extend(number + 1, size);
            }
            Ok(shm.region(number).cloned())
        })?;
        let Some(region) = region else { return Ok(None) };
        let start = region.as_ptr();
        if !self.mapped.iter().any(|mapped| Arc::ptr_eq(mapped, &region)) {
            self.mapped.push(region);
        }
        Ok(Some(start))
    }

    /// Locks or unlocks `count` of the shared memory's locks from `first` on; `false` while others stand in the way.
    pub(super) fn lock_shm(&self, first: usize, count: usize, turn: Turn) -> io::Result<bool> {
        self.disk.with(|state| {
            state.check_alive(self.life)?;
            let inode = state.inode_of(self.id)?;
            let shm = state.shm.get_mut(&inode).ok_or_else(|| error(EIO))?;
            Ok(shm.lock(self.id, first, count, turn))
        })
    }

    /// Ends the use of the shared memory; nobody may point into it any more through this handle.
    pub(super) fn unmap(&mut self) {
        self.mapped.clear();
        self.disk.with(|state| {
            if state.life == self.life
                && let Ok(inode) = state.inode_of(self.id)
            {
                state.leave_shm(self.id, inode);
            }
        });
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.with(|state| state.close(self.life, self.id));
    }
}
