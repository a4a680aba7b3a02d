//! The disk as the product sees it: the `Disk` port.

use std::{
    io,
    path::{Path, PathBuf},
};

use quorate_runtime::disk::{Disk, Lock, Write};

use super::{
    SimDisk,
    handle::Handle,
    names::{ENOENT, Entry, error},
    operations::How,
};

/// What is rewritten at a time.
const PIECE: usize = 64 << 10;

/// A disk in one life of its host: after a crash everything fails.
pub(super) struct Mount {
    disk: SimDisk,
    life: u64,
}

impl Mount {
    pub(super) fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), life: disk.life() }
    }

    fn handle(&self, path: &Path, how: How) -> io::Result<Handle> {
        Handle::open(&self.disk, self.life, Some(&self.disk.resolve(path)?), how)
    }

    fn look(&self, path: &Path) -> io::Result<Option<(Entry, u64)>> {
        let path = self.disk.resolve(path)?;
        self.disk.with(|state| state.look(self.life, &path))
    }
}

impl Disk for Mount {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = self.disk.resolve(path)?;
        let mut folders: Vec<&Path> =
            Path::new(&path).ancestors().take_while(|folder| self.disk.owns(folder)).collect();
        folders.reverse();
        for folder in folders.into_iter().filter_map(Path::to_str) {
            self.disk.with(|state| state.make_folder(self.life, folder))?;
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.look(path)?.is_some())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let path = self.disk.resolve(path)?;
        let entries = self.disk.with(|state| state.list(self.life, &path))?;
        Ok(entries.into_iter().map(PathBuf::from).collect())
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.look(path)?.map(|(_, len)| len).ok_or_else(|| error(ENOENT))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let handle = self.handle(path, How::default())?;
        let mut bytes = vec![0; usize::try_from(handle.len()?).map_err(io::Error::other)?];
        let read = handle.read_fully(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(Stream { handle: self.handle(path, How::default())?, offset: 0 }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        let handle = self.handle(path, How { create: true, truncate: true, exclusive: false })?;
        Ok(Box::new(Stream { handle, offset: 0 }))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        let handle = self.handle(path, How { create: true, truncate: false, exclusive: true })?;
        Ok(Box::new(Stream { handle, offset: 0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.disk.resolve(from)?, self.disk.resolve(to)?);
        self.disk.with(|state| {
            state.rename(self.life, &from, &to)?;
            state.sync_folder(self.life)
        })
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.handle(path, How::default())?.sync()
    }

    fn rewrite(&self, path: &Path) -> io::Result<()> {
        let handle = self.handle(path, How::default())?;
        let (mut piece, mut offset) = (vec![0; PIECE], 0);
        loop {
            let read = handle.read_fully(offset, &mut piece)?;
            if read == 0 {
                return handle.sync();
            }
            handle.write(offset, &piece[..read])?;
            offset += read as u64;
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = self.disk.resolve(path)?;
        self.disk.with(|state| state.remove(self.life, &path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let handle = self.handle(path, How { create: true, ..How::default() })?;
        handle.hold()?;
        Ok(Box::new(Held { _handle: handle }))
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        self.disk.with(|state| state.check_alive(self.life))?;
        Ok(self.disk.resolve(path)?.into())
    }

    fn network_filesystem(&self, _path: &Path) -> io::Result<Option<&'static str>> {
        self.disk.with(|state| state.check_alive(self.life))?;
        Ok(None)
    }
}

/// A file being read or written from its beginning.
struct Stream {
    handle: Handle,
    offset: u64,
}

impl io::Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.handle.read(self.offset, into)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.handle.write(self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stream {
    fn sync(&mut self) -> io::Result<()> {
        self.handle.sync()
    }
}

/// A file locked until this is dropped.
struct Held {
    _handle: Handle,
}

impl Lock for Held {}
