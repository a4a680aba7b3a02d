//! Whether the files to which events were moved still hold them.

use std::{io, path::Path};

use quorate_data::{
    event::ArchiveId,
    store::{
        Archive, Finding, StoreError, Verified,
        archive::{ArchiveReader, DamagedArchive},
    },
};
use quorate_runtime::disk::Disk;

use super::Archives;

/// Archives that are looked up at a time.
const PAGE: usize = 256;

/// What became of the files of a store's archives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveFiles {
    /// How many hold what was moved to them.
    pub sound: u64,
    /// Those that are not where they were written to: moved by somebody, or lost. At most [`ArchiveFiles::MAX_LISTED`].
    pub missing: Vec<Archive>,
    /// How many more are missing.
    pub more_missing: u64,
    /// Those that hold something else, or cannot be read. At most [`Verified::MAX_FINDINGS`].
    pub damaged: Vec<Finding>,
}

impl ArchiveFiles {
    /// The most missing files that are listed.
    pub const MAX_LISTED: usize = 100;

    fn add(&mut self, archive: Archive, found: Result<(), Fault>) {
        let (place, name) = (format!("archive {}, the file `{}`", archive.id, archive.name), archive.name.clone());
        match found {
            Ok(()) => self.sound += 1,
            Err(Fault::Missing) if self.missing.len() < Self::MAX_LISTED => self.missing.push(archive),
            Err(Fault::Missing) => self.more_missing += 1,
            Err(Fault::Damaged(what)) if self.damaged.len() < Verified::MAX_FINDINGS => {
                let what =
                    format!("{what}; put a copy of `{name}` in its place: its events are in no backup of the store");
                self.damaged.push(Finding { place, what });
            }
            Err(Fault::Damaged(_)) => {}
        }
    }
}

/// What is wrong with a file.
enum Fault {
    Missing,
    Damaged(String),
}

impl Archives {
    /// Reads the file of every archive that the store names, to its end.
    ///
    /// # Errors
    /// The store's own: what is wrong with files is told by what is returned.
    pub async fn check_files(&self) -> Result<ArchiveFiles, StoreError> {
        let (mut files, mut after) = (ArchiveFiles::default(), ArchiveId::default());
        loop {
            let page = self.store.all_archives(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(files) };
            after = last.id;
            for archive in page {
                let (env, path, of) = (self.store.env(), self.path(&archive.name), archive.clone());
                let (disk, store) = (env.disk().clone(), self.store.timeline().store);
                let found = env.run_blocking(move || check(&*disk, &path, &of, store)).await;
                files.add(archive, found);
            }
        }
    }
}

/// Whether the file at `path` is `archive` of `store`.
fn check(disk: &dyn Disk, path: &Path, archive: &Archive, store: u64) -> Result<(), Fault> {
    let file = disk.open(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => Fault::Missing,
        _ => Fault::Damaged(format!("it cannot be opened: {cause}")),
    })?;
    let (manifest, _) = ArchiveReader::open(file).and_then(ArchiveReader::verify).map_err(|damage| {
        Fault::Damaged(match damage {
            DamagedArchive::Io(cause) => format!("it cannot be read: {cause}"),
            damage => damage.to_string(),
        })
    })?;
    let said = (manifest.store, &manifest.stream, manifest.first, manifest.last, manifest.hash);
    if said == (store, &archive.stream, archive.first, archive.last, archive.hash) {
        return Ok(());
    }
    let (stream, first, last) = (&manifest.stream, manifest.first, manifest.last);
    let what = format!("it is another archive, of versions {first} to {last} of stream `{stream}`");
    Err(Fault::Damaged(what))
}
