//! A consistent copy of a store in use.

use std::{io, path::Path, sync::Arc};

use quorate_runtime::disk::{Disk, unfinished};

use super::{
    connection::{explained, failed},
    shared::{Reader, Shared},
};
use crate::store::{Progress, StoreError};

const COPYING: &str = "writing a backup";

/// After so many of SQLite's steps, some hundred rows, it is looked how large the copy is.
const STEPS: i32 = 1_000;

/// Copies the store as of now to the new file `to`; returns its size in bytes.
///
/// `progress` is told how many bytes the copy has, of those that the store's file has: it may end up smaller.
///
/// The copy gets its name when it is complete and durable: a crash leaves at most an [`unfinished`] file.
pub(super) fn run(shared: &Shared, disk: &Arc<dyn Disk>, to: &Path, progress: &Progress) -> Result<u64, StoreError> {
    shared.check_open()?;
    let total = disk.size(&shared.path).map_err(io)?;
    progress(0, total);
    let size = put(&**disk, to, |partial| {
        // One read transaction: with the backup API, every commit of the writer would make it start again.
        let mut reader = Reader::open(shared).map_err(failed(COPYING))?;
        // The copy is written through the same connection.
        reader.connection.execute_batch("PRAGMA query_only = OFF").map_err(failed(COPYING))?;
        let (disk, progress, copy) = (disk.clone(), progress.clone(), partial.to_owned());
        let look = move || {
            let size = disk.size(copy.as_ref()).unwrap_or(0).min(total);
            progress(size, total);
            false
        };
        reader.connection.progress_handler(STEPS, Some(look)).map_err(failed(COPYING))?;
        let copied = reader.connection.execute("VACUUM INTO ?1", [partial]);
        copied.map(|_| ()).map_err(|cause| explained(&reader.connection, failed(COPYING)(cause)))
    })?;
    progress(total, total);
    Ok(size)
}

/// Copies the keys as of now to the new file `to`; returns its size in bytes.
pub(super) fn keys(shared: &Shared, disk: &dyn Disk, to: &Path) -> Result<u64, StoreError> {
    shared.check_open()?;
    put(disk, to, |partial| shared.keys.copy(partial))
}

fn io(cause: io::Error) -> StoreError {
    StoreError::Engine { doing: COPYING, cause: Arc::new(cause) }
}

/// Lets `copy` write a file that gets the name `to` once it is complete and durable. Nobody else may be writing one of that name.
fn put(disk: &dyn Disk, to: &Path, copy: impl FnOnce(&str) -> Result<(), StoreError>) -> Result<u64, StoreError> {
    if disk.exists(to).map_err(io)? {
        return Err(io(io::ErrorKind::AlreadyExists.into()));
    }
    let partial = unfinished::of(to).map_err(io)?;
    // SQLite is told it in a statement, and would write to another file.
    let no_text = || io::Error::new(io::ErrorKind::InvalidFilename, "the path of a copy has to be UTF-8");
    let name = partial.to_str().ok_or_else(no_text).map_err(io)?;
    unfinished::clear(disk, &partial).map_err(io)?;
    if let Err(cause) = copy(name) {
        let _ = unfinished::clear(disk, &partial);
        return Err(cause);
    }
    disk.sync(&partial).map_err(io)?;
    disk.rename(&partial, to).map_err(io)?;
    disk.size(to).map_err(io)
}
