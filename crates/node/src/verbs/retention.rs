//! What streams keep: metadata with their rules, scavenging, archives.

use std::{io, path::PathBuf};

use quorate_data::{
    event::Version,
    store::{
        Archive, ArchiveError, ArchiveOrder, ExpectedVersion, MetadataError, Scavenged, SetMetadata, Store, StoreError,
        StreamMetadata,
    },
};
use quorate_foundations::name::Name;

use super::{BackupError, ReadError, Streams, store::check_name};

/// The verbs of archives, on one store. Cheap to clone.
#[derive(Clone)]
pub struct Archives {
    pub(super) store: Store,
    folder: PathBuf,
}

/// Why nothing was archived.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchivingError {
    /// The name could be more than a file's.
    #[error(transparent)]
    Name(BackupError),
    /// It was refused, or failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The folder could not be made.
    #[error("the folder for archives could not be made")]
    Folder(#[source] io::Error),
}

impl Streams {
    /// The metadata of a stream that has some, or that exists.
    pub async fn metadata(&self, stream: Name) -> Result<SetMetadata, ReadError> {
        let found = self.store().metadata(stream.clone()).await?;
        if found.version == Version::ZERO {
            self.head(stream).await?;
        }
        Ok(found)
    }

    /// Sets a stream's metadata and returns their new version; see [`Store::set_metadata`].
    pub async fn set_metadata(
        &self,
        stream: Name,
        expected: ExpectedVersion,
        metadata: StreamMetadata,
    ) -> Result<Version, MetadataError> {
        self.store().set_metadata(stream, expected, metadata).await
    }

    /// Forgets what no stream's rules keep any more; see [`Store::scavenge`].
    pub async fn scavenge(&self) -> Result<Scavenged, StoreError> {
        self.store().scavenge().await
    }

    /// The archive that holds `version` of `stream`, if that was moved to one.
    pub async fn archive_of(&self, stream: &Name, version: Version) -> Result<Option<Archive>, StoreError> {
        if !self.store().capabilities().retention {
            return Ok(None);
        }
        let archives = self.store().archives(stream.clone()).await?;
        Ok(archives.into_iter().find(|archive| (archive.first..=archive.last).contains(&version)))
    }
}

impl Archives {
    /// The verbs on `store`; archives go into `folder`.
    pub fn new(store: Store, folder: PathBuf) -> Self {
        Self { store, folder }
    }

    /// Moves the events of `stream` before `before`, or all of them, to the file `name` in the folder for archives.
    ///
    /// # Errors
    /// See [`ArchivingError`]; whatever it is, no event is lost, and repeating the same call is safe.
    pub async fn archive(&self, stream: Name, before: Option<Version>, name: &str) -> Result<Archive, ArchivingError> {
        check_name(name).map_err(ArchivingError::Name)?;
        self.store.require(|engine| engine.retention, "archive events").map_err(ArchiveError::from)?;
        let (disk, folder) = (self.store.env().disk().clone(), self.folder.clone());
        let made = self.store.env().run_blocking(move || disk.create_dir_all(&folder)).await;
        made.map_err(ArchivingError::Folder)?;
        let order = ArchiveOrder { stream, before, to: self.path(name), name: name.to_owned() };
        Ok(self.store.archive(order).await?)
    }

    /// The archives of a stream, in order of their versions.
    pub async fn of(&self, stream: Name) -> Result<Vec<Archive>, StoreError> {
        self.store.archives(stream).await
    }

    /// Where the archive `name` is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
