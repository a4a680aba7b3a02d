//! What one can do with the files of a disk.

use std::io;

use quorate_runtime::fault::disk::Survival;

use super::{
    content::spans,
    inode::Inode,
    locks::HandleId,
    model::Journal,
    names::{EIO, ENOENT, ENOSPC, Entry, InodeId, error},
    state::{Kind, State, Stop},
    survival::Fate,
};

const EEXIST: i32 = 17;
const EWOULDBLOCK: i32 = 11;
const EFBIG: i32 = 27;

/// Larger than any file of ours; ext4's limit with pages of 4 KiB.
const LARGEST_FILE: u64 = 16 << 40;

/// How to open a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    /// Make it if it isn't there.
    pub(super) create: bool,
    /// Fail if it is there.
    pub(super) exclusive: bool,
    /// Empty it.
    pub(super) truncate: bool,
}

impl State {
    /// Opens the file at `path`, or one without a name.
    pub(super) fn open(&mut self, life: u64, path: Option<&str>, how: How) -> io::Result<HandleId> {
        self.begin(life, Kind::Open, &[])?;
        let inode = match path.map(|path| self.names.file(path)) {
            Some(Ok(_)) if how.exclusive => return Err(error(EEXIST)),
            Some(Ok(inode)) => inode,
            Some(Err(cause)) if how.create && cause.raw_os_error() == Some(ENOENT) => self.create(path)?,
            Some(Err(cause)) => return Err(cause),
            None => self.create(None)?,
        };
        if how.truncate {
            self.set_len(inode, 0);
        }
        let handle = self.next_id();
        self.open.insert(handle, inode);
        Ok(handle)
    }

    fn create(&mut self, path: Option<&str>) -> io::Result<InodeId> {
        let inode = self.next_id();
        if let Some(path) = path {
            let at = self.next_change();
            self.names.put(at, path, Entry::File(inode))?;
        }
        self.inodes.insert(inode, Inode::default());
        Ok(inode)
    }

    /// Closes a handle, which ends its locks.
    pub(super) fn close(&mut self, life: u64, handle: HandleId) {
        if life != self.life {
            return;
        }
        let Some(inode) = self.open.remove(&handle) else { return };
        if let Some(locks) = self.locks.get_mut(&inode) {
            locks.lower(handle, super::locks::Level::Unlocked);
        }
        self.leave_shm(handle, inode);
        if self.held.get(&inode) == Some(&handle) {
            self.held.remove(&inode);
        }
        if !self.open.values().any(|open| *open == inode) {
            self.locks.remove(&inode);
            self.forget_unreachable();
        }
    }

    /// Ends the use of the shared memory of `inode`; the last one out takes it along.
    pub(super) fn leave_shm(&mut self, handle: HandleId, inode: InodeId) {
        if self.shm.get_mut(&inode).is_some_and(|shm| shm.leave(handle)) {
            self.shm.remove(&inode);
        }
    }

    /// Locks the whole file of an open handle.
    pub(super) fn hold(&mut self, handle: HandleId) -> io::Result<()> {
        let inode = self.inode_of(handle)?;
        if self.held.contains_key(&inode) {
            return Err(error(EWOULDBLOCK));
        }
        self.held.insert(inode, handle);
        Ok(())
    }

    pub(super) fn inode_of(&self, handle: HandleId) -> io::Result<InodeId> {
        self.open.get(&handle).copied().ok_or_else(|| error(EIO))
    }

    fn file_mut(&mut self, inode: InodeId) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or_else(|| error(EIO))
    }

    /// Reads from `offset` on; returns fewer bytes at the end of the file, or when a fault says so.
    pub(super) fn read(&mut self, life: u64, handle: HandleId, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.check_alive(life)?;
        let inode = self.inode_of(handle)?;
        self.begin(life, Kind::Read, &[inode, offset, into.len() as u64])?;
        let read = self.file_mut(inode)?.current().read(offset, into);
        if read > 1 && self.happens(self.faults.short_reads) {
            self.counts.short_reads += 1;
            return Ok(1 + self.rng.below(read as u64 - 1) as usize);
        }
        Ok(read)
    }

    /// Writes all of `bytes`, or what fits of them and an error.
    pub(super) fn write(&mut self, life: u64, handle: HandleId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_alive(life)?;
        let inode = self.inode_of(handle)?;
        let verdict = self.begin(life, Kind::Write, &[inode, offset, bytes.len() as u64]);
        self.trace.update(bytes);
        match verdict {
            Ok(()) => self.put(inode, offset, bytes),
            // How much of it reaches the disk is decided like for everything else that wasn't synced.
            Err(Stop::Dying) => self.put(inode, offset, bytes).and(Err(error(EIO))),
            Err(stop) => Err(stop.into()),
        }
    }

    fn put(&mut self, inode: InodeId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset.saturating_add(bytes.len() as u64) > LARGEST_FILE {
            return Err(error(EFBIG));
        }
        let fitting = self.fitting(inode, offset, bytes.len())?;
        if fitting > 0 {
            let at = self.next_change();
            self.file_mut(inode)?.write(at, offset, &bytes[..fitting]);
        }
        if fitting < bytes.len() {
            self.counts.no_space += 1;
            return Err(error(ENOSPC));
        }
        Ok(())
    }

    /// How many of `len` bytes at `offset` there is space for.
    fn fitting(&mut self, inode: InodeId, offset: u64, len: usize) -> io::Result<usize> {
        if self.faults.capacity_bytes.is_none() {
            return Ok(len);
        }
        let mut pages = self.free_bytes() / super::content::PAGE as u64;
        let content = self.file_mut(inode)?.current();
        if content.missing(offset, len) <= pages {
            return Ok(len);
        }
        for (number, _, part) in spans(offset, len) {
            if content.page(number).is_none() {
                let Some(left) = pages.checked_sub(1) else { return Ok(part.start) };
                pages = left;
            }
        }
        Ok(len)
    }

    pub(super) fn truncate(&mut self, life: u64, handle: HandleId, len: u64) -> io::Result<()> {
        self.check_alive(life)?;
        let inode = self.inode_of(handle)?;
        self.begin(life, Kind::Truncate, &[inode, len])?;
        self.set_len(inode, len);
        Ok(())
    }

    fn set_len(&mut self, inode: InodeId, len: u64) {
        let at = self.next_change();
        if let Some(file) = self.inodes.get_mut(&inode) {
            file.truncate(at, len);
        }
    }

    pub(super) fn len(&mut self, life: u64, handle: HandleId) -> io::Result<u64> {
        self.check_alive(life)?;
        let inode = self.inode_of(handle)?;
        self.begin(life, Kind::Look, &[inode])?;
        Ok(self.file_mut(inode)?.current().len())
    }

    /// Makes a file durable; what else becomes so is up to the [`Journal`].
    pub(super) fn sync(&mut self, life: u64, handle: HandleId) -> io::Result<()> {
        self.check_alive(life)?;
        let inode = self.inode_of(handle)?;
        let verdict = self.begin(life, Kind::Sync, &[inode]);
        if matches!(verdict, Err(Stop::Injected(_))) {
            self.fail_sync(inode);
        }
        verdict?;
        self.charge_sync();
        if self.happens(self.faults.lying_syncs) {
            self.counts.lying_syncs += 1;
            return Ok(());
        }
        self.file_mut(inode)?.sync();
        if self.model.journal == Journal::Shared {
            self.commit();
        }
        Ok(())
    }

    fn fail_sync(&mut self, inode: InodeId) {
        let metadata = if self.rng.below(2) == 0 { u64::MAX } else { self.committed };
        let Some(file) = self.inodes.get_mut(&inode) else { return };
        file.fail_sync(&mut Fate { survival: Survival::Subset, metadata, data: 0, shreds: false, rng: &mut self.rng });
    }

    /// Makes the names in a folder durable.
    pub(super) fn sync_folder(&mut self, life: u64) -> io::Result<()> {
        self.begin(life, Kind::SyncFolder, &[])?;
        self.charge_sync();
        if self.happens(self.faults.lying_syncs) {
            self.counts.lying_syncs += 1;
            return Ok(());
        }
        match self.model.journal {
            Journal::Shared => self.commit(),
            Journal::Strict => self.names.commit(),
        }
        self.forget_unreachable();
        Ok(())
    }

    /// Writes the journal out.
    fn commit(&mut self) {
        self.names.commit();
        self.committed = self.last_change();
    }

    /// Whether something is at `path`: its kind, and a file's length.
    pub(super) fn look(&mut self, life: u64, path: &str) -> io::Result<Option<(Entry, u64)>> {
        self.begin(life, Kind::Look, &[])?;
        let Some(entry) = self.names.get(path) else { return Ok(None) };
        let len = match entry {
            Entry::Folder => 0,
            Entry::File(inode) => self.file_mut(inode)?.current().len(),
        };
        Ok(Some((entry, len)))
    }

    /// What lies in a folder.
    pub(super) fn list(&mut self, life: u64, path: &str) -> io::Result<Vec<String>> {
        self.begin(life, Kind::Look, &[])?;
        self.names.list(path)
    }

    pub(super) fn make_folder(&mut self, life: u64, path: &str) -> io::Result<()> {
        self.begin(life, Kind::MakeFolder, &[])?;
        match self.names.get(path) {
            Some(Entry::Folder) => Ok(()),
            Some(Entry::File(_)) => Err(error(EEXIST)),
            None => {
                let at = self.next_change();
                self.names.put(at, path, Entry::Folder)
            }
        }
    }

    pub(super) fn rename(&mut self, life: u64, from: &str, to: &str) -> io::Result<()> {
        self.begin(life, Kind::Rename, &[])?;
        let at = self.next_change();
        self.names.rename(at, from, to)
    }

    pub(super) fn remove(&mut self, life: u64, path: &str) -> io::Result<()> {
        self.begin(life, Kind::Remove, &[])?;
        let at = self.next_change();
        self.names.remove(at, path)
    }
}
