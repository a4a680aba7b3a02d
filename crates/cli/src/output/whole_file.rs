//! Files that appear under their names when they are complete and durable.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate_runtime::disk::{self, Disk, Lock, unfinished};

use super::note;
use crate::exit::{Exit, Failure};

/// A file of lines in the making. Dropped before it is [finished](Self::finish), it leaves nothing.
pub(crate) struct WholeFile {
    disk: Arc<dyn Disk>,
    writer: Option<io::BufWriter<Box<dyn disk::Write>>>,
    path: PathBuf,
    partial: PathBuf,
    /// Of the unfinished file: two commands that write the same one would finish each other's.
    _lock: Box<dyn Lock>,
}

impl WholeFile {
    /// Begins the file that is to be `path`, in place of one that is there when it is finished.
    pub(crate) fn create(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self, Failure> {
        let partial = unfinished::of(path).map_err(|wrong| Failure::new(Exit::Usage, wrong.to_string()))?;
        let failed = |cause: &io::Error| Failure::io(partial.display(), cause);
        let was_there = disk.exists(&partial).map_err(|cause| failed(&cause))?;
        let lock = disk.lock(&partial).map_err(|cause| match cause.kind() {
            io::ErrorKind::WouldBlock => {
                Failure::new(Exit::Unavailable, format!("another command is writing {}", path.display()))
            }
            _ => failed(&cause),
        })?;
        if was_there {
            note(&format!("{} is what was left of a command that did not end, and is written anew", partial.display()));
        }
        let file = disk.create(&partial).map_err(|cause| failed(&cause))?;
        let writer = Some(io::BufWriter::with_capacity(256 << 10, file));
        Ok(Self { disk: disk.clone(), writer, path: path.into(), partial, _lock: lock })
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let written = writer.write_all(line.as_bytes()).and_then(|()| writer.write_all(b"\n"));
        written.map_err(|cause| Failure::io(self.partial.display(), &cause))
    }

    /// Makes the file durable and gives it its name.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let finished = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|mut file| file.sync())
            .and_then(|()| self.disk.rename(&self.partial, &self.path));
        if finished.is_err() {
            let _ = self.disk.remove(&self.partial);
        }
        finished.map_err(|cause| Failure::io(self.path.display(), &cause))
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        // Ordering: while the lock is held. Behind a rename another command may have begun one of this name.
        if self.writer.take().is_some() {
            let _ = self.disk.remove(&self.partial);
        }
    }
}
