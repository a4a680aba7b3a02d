//! How far the write-ahead log was written back, noted beside the store.
//!
//! SQLite takes damage in the log for its end. If that is the newest transaction, nothing in the log tells it from one that
//! a power cut tore, and going on without it is right as long as none of it is in the store's file. Once it is, older pages
//! that the log still holds would stand before newer ones of the file: an index without its events, a stream that begins
//! anew. So before the log is written back, it is noted how far; a log that ends earlier afterwards is damaged.
//!
//! ```text
//! 0..8    the log's salts: it has others whenever it begins anew, and then all of it is in the file
//! 8..12   how many frames are being written back, u32 little endian
//! 12..16  CRC-32 of the bytes before
//! ```
//!
//! A note that is missing, or not what was written, says nothing: it is a second witness, and no part of the data.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use quorate_runtime::disk::{Disk, unfinished};
use rusqlite::Connection;

use super::{
    connection::corrupt,
    open::beside,
    vfs::{self, LogEnd},
};
use crate::store::StoreError;

/// Where the note of the store at `store` is.
pub(super) fn path_of(store: &Path) -> PathBuf {
    beside(store, ".mark")
}

/// Notes, durably, that the log of the store at `store` is being written back up to `end`.
pub(super) fn write(disk: &dyn Disk, store: &Path, end: LogEnd) -> io::Result<()> {
    let path = path_of(store);
    let partial = unfinished::of(&path)?;
    let mut file = disk.create(&partial)?;
    file.write_all(&encode(end))?;
    file.sync()?;
    drop(file);
    disk.rename(&partial, &path)
}

/// Refuses a log that ends before what was written back from it; SQLite has read it, and nothing was written meanwhile.
pub(super) fn check(disk: &dyn Disk, store: &Path, connection: &Connection) -> Result<(), StoreError> {
    let path = path_of(store);
    let noted = if disk.exists(&path).unwrap_or(false) { disk.read(&path).ok() } else { None };
    let (Some(noted), Some(end)) = (noted.as_deref().and_then(decode), vfs::log_end(connection)) else { return Ok(()) };
    if end.salts != noted.salts || end.frames >= noted.frames {
        return Ok(());
    }
    let (frames, path) = (noted.frames, path.display());
    let what = format!(
        "it ends there, although {frames} frames of it are in the file, as {path} says; if the store and its log are an older copy that was put back, remove that file"
    );
    Err(corrupt(format!("frame {} of the write-ahead log", end.frames + 1), what))
}

fn encode(end: LogEnd) -> Vec<u8> {
    let mut bytes: Vec<u8> = end.salts.iter().chain([&end.frames]).flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<LogEnd> {
    let (said, sum) = bytes.split_last_chunk::<4>()?;
    let words = said.chunks_exact(4).map(|word| word.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
    match words.collect::<Vec<u32>>()[..] {
        [first, second, frames] if crc32fast::hash(said).to_le_bytes() == *sum => {
            Some(LogEnd { salts: [first, second], frames })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use crate::store::sqlite::vfs::LogEnd;

    #[test]
    fn a_note_is_what_was_written_or_says_nothing() {
        let end = LogEnd { salts: [0x0102_0304, u32::MAX], frames: 4_012 };
        let bytes = encode(end);
        assert_eq!(decode(&bytes), Some(end));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "{at} bytes");
        }
    }
}
