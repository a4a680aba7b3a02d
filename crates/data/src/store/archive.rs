//! Archives: files that a stream's events were moved to.
//!
//! Think of a bound volume that leaves the reading room for the stacks: the shelf keeps a card for each page, with the
//! page's seal and the volume's number, and the volume can be checked against the cards, or by itself, for ever.
//!
//! An archive holds the events byte for byte as the log kept them, so that their hash chain can be computed again: from the
//! link before the first event to the one at the last, which both the file and the store remember. Data of a data subject
//! stays sealed in it, and the keys stay with the store: erasing the subject reaches every archive as well.
//!
//! ```text
//! gzip of:
//!   "quorate archive 2\n"
//!   length u32, then the manifest in JSON
//!   for each event: position u64, length u32, the event's bytes (see `event::codec`)
//!   0 u64, then the BLAKE3 hash of everything before it
//! ```
//! Numbers are little endian.
//!
//! *When not to use it*: as a backup (it holds one stream, and the store forgets it), or to be forgotten (truncate).

use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write as _};

use bytes::Bytes;
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use quorate_foundations::name::Name;
use quorate_runtime::disk;
use serde::{Deserialize, Serialize};

use crate::event::{ChainHash, Position, Recorded, Version};

const MAGIC: &[u8; 18] = b"quorate archive 2\n";
/// The longest manifest.
const MAX_MANIFEST: u32 = 1 << 16;
/// The longest event: far more than any store accepts.
const MAX_EVENT: u32 = 1 << 30;

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The store it is of: see [`Timeline::store`](super::Timeline).
    pub store: u64,
    /// The stream it is of.
    pub stream: Name,
    /// What was ordered: the first version to keep; `None` for everything there was. An order that died is known by it, also
    /// when the stream has grown.
    pub before: Option<Version>,
    /// The first version in it.
    pub first: Version,
    /// The last version in it.
    pub last: Version,
    /// The stream's hash chain before `first`.
    pub previous: ChainHash,
    /// The stream's hash chain at `last`.
    pub hash: ChainHash,
}

/// The manifest as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    store: String,
    stream: String,
    before: Option<u64>,
    first: u64,
    last: u64,
    previous: String,
    hash: String,
}

/// Why a file is no sound archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DamagedArchive {
    /// It is something else, or was changed, or cut off.
    #[error("{what}")]
    Damaged {
        /// What is wrong, and where.
        what: String,
    },
    /// It could not be read.
    #[error("the archive cannot be read")]
    Io(#[source] io::Error),
}

fn damaged(what: impl Into<String>) -> DamagedArchive {
    DamagedArchive::Damaged { what: what.into() }
}

fn unread(cause: io::Error) -> DamagedArchive {
    match cause.kind() {
        io::ErrorKind::UnexpectedEof => damaged("the archive is cut off"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            damaged(format!("the compression is damaged: {cause}"))
        }
        _ => DamagedArchive::Io(cause),
    }
}

/// Writes an archive.
pub(crate) struct ArchiveWriter {
    out: GzEncoder<BufWriter<Box<dyn disk::Write>>>,
    hasher: blake3::Hasher,
}

impl ArchiveWriter {
    pub(crate) fn begin(file: Box<dyn disk::Write>, manifest: &Manifest) -> io::Result<Self> {
        let out = GzEncoder::new(BufWriter::with_capacity(256 << 10, file), Compression::default());
        let mut writer = Self { out, hasher: blake3::Hasher::new() };
        writer.put(MAGIC)?;
        let written = serde_json::to_vec(&Written {
            store: manifest.store.to_string(),
            stream: manifest.stream.as_str().to_owned(),
            before: manifest.before.map(Version::get),
            first: manifest.first.get(),
            last: manifest.last.get(),
            previous: manifest.previous.to_string(),
            hash: manifest.hash.to_string(),
        })?;
        writer.put_sized(&written)?;
        Ok(writer)
    }

    pub(crate) fn event(&mut self, event: &Recorded) -> io::Result<()> {
        self.put(&event.position().get().to_le_bytes())?;
        self.put_sized(event.bytes())
    }

    /// Completes the file and makes it durable.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.put(&0_u64.to_le_bytes())?;
        let digest = *self.hasher.finalize().as_bytes();
        self.out.write_all(&digest)?;
        let mut file = self.out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync()
    }

    fn put_sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }
}

/// A file, and how many bytes were read from it.
struct Counted {
    file: Box<dyn Read + Send>,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Reads an archive, event by event, and checks it on the way.
///
/// # Example
/// ```
/// # use quorate_data::store::archive::{ArchiveReader, DamagedArchive};
/// # fn example(file: Box<dyn std::io::Read + Send>) -> Result<(), DamagedArchive> {
/// let mut archive = ArchiveReader::open(file)?;
/// while let Some(event) = archive.next_event()? {
///     println!("{} {}", event.version(), event.kind());
/// }
/// # Ok(())
/// # }
/// ```
pub struct ArchiveReader {
    from: GzDecoder<BufReader<Counted>>,
    hasher: blake3::Hasher,
    manifest: Manifest,
    version: Version,
    position: Position,
    hash: ChainHash,
    ended: bool,
}

impl ArchiveReader {
    /// Reads the manifest.
    pub fn open(file: Box<dyn Read + Send>) -> Result<Self, DamagedArchive> {
        let from = GzDecoder::new(BufReader::with_capacity(256 << 10, Counted { file, bytes: 0 }));
        let manifest = Manifest {
            store: 0,
            stream: Name::new("-").map_err(|wrong| damaged(wrong.to_string()))?,
            before: None,
            first: Version::ZERO,
            last: Version::ZERO,
            previous: ChainHash::START,
            hash: ChainHash::START,
        };
        let (version, position, hash) = (Version::ZERO, Position::ZERO, ChainHash::START);
        let mut reader = Self { from, hasher: blake3::Hasher::new(), manifest, version, position, hash, ended: false };
        let magic: [u8; MAGIC.len()] = reader.take().map_err(|wrong| match wrong {
            DamagedArchive::Damaged { .. } => damaged("this is no archive of quorate"),
            other => other,
        })?;
        if magic != *MAGIC {
            return Err(damaged("this is no archive of a format known here"));
        }
        let written = reader.take_sized(MAX_MANIFEST)?;
        reader.manifest = manifest_of(&written)?;
        (reader.version, reader.hash) = (Version::new(reader.manifest.first.get() - 1), reader.manifest.previous);
        Ok(reader)
    }

    /// What the archive says of itself. That it is true is known when the last event was read.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The next event, as the log kept it: sealed data is ciphertext. `None` at the end, when all of it is known to be
    /// sound.
    ///
    /// # Errors
    /// [`DamagedArchive`] when anything is not what was written: what was read before is sound all the same.
    pub fn next_event(&mut self) -> Result<Option<Recorded>, DamagedArchive> {
        if self.ended {
            return Ok(None);
        }
        let position = Position::new(u64::from_le_bytes(self.take()?));
        if position == Position::ZERO {
            return self.end().map(|()| None);
        }
        let expected = self.version.next();
        let bytes = Bytes::from(self.take_sized(MAX_EVENT)?);
        let event =
            Recorded::decode(position, bytes).map_err(|wrong| damaged(format!("version {expected}: {wrong}")))?;
        let place = || format!("version {expected}");
        if event.stream() != self.manifest.stream.as_str() || event.version() != expected || position <= self.position {
            return Err(damaged(format!("another event stands where {} should", place())));
        }
        if event.stub().is_some() || expected > self.manifest.last {
            return Err(damaged(format!("{} should not be in this archive", place())));
        }
        if !event.follows(&self.hash) {
            return Err(damaged(format!("the hash of {} does not follow from the event before", place())));
        }
        (self.version, self.position, self.hash) = (event.version(), position, event.hash());
        Ok(Some(event))
    }

    /// Reads all that is left; returns how many events that were.
    pub fn verify(mut self) -> Result<(Manifest, u64), DamagedArchive> {
        let mut events = 0;
        while self.next_event()?.is_some() {
            events += 1;
        }
        Ok((self.manifest, events))
    }

    fn end(&mut self) -> Result<(), DamagedArchive> {
        let expected = *self.hasher.finalize().as_bytes();
        let mut digest = [0; 32];
        self.from.read_exact(&mut digest).map_err(unread)?;
        // Reading on makes the decoder check its own sum.
        let behind = self.from.read(&mut [0; 1]).map_err(unread)?;
        if digest != expected || behind != 0 {
            return Err(damaged("the archive's digest does not match its bytes"));
        }
        if self.version != self.manifest.last || self.hash != self.manifest.hash {
            return Err(damaged("the archive does not lead to the event and the hash that it names"));
        }
        self.nothing_behind()?;
        self.ended = true;
        Ok(())
    }

    /// The archive is all of its file: what is behind it is covered by no digest.
    fn nothing_behind(&mut self) -> Result<(), DamagedArchive> {
        let file = self.from.get_mut();
        if file.fill_buf().map_err(unread)?.is_empty() {
            return Ok(());
        }
        let at = file.get_ref().bytes - file.buffer().len() as u64;
        Err(damaged(format!("the archive ends at byte {at}, and the file goes on: something was added to it")))
    }

    fn take_sized(&mut self, max: u32) -> Result<Vec<u8>, DamagedArchive> {
        let length = u32::from_le_bytes(self.take()?);
        if length > max {
            return Err(damaged(format!("a length of {length} bytes is absurd")));
        }
        let mut bytes = Vec::new();
        // Memory follows what is there, not what a length claims.
        let read = self.from.by_ref().take(length.into()).read_to_end(&mut bytes).map_err(unread)?;
        if read < length as usize {
            return Err(damaged("the archive is cut off"));
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DamagedArchive> {
        let mut field = [0; N];
        self.from.read_exact(&mut field).map_err(unread)?;
        self.hasher.update(&field);
        Ok(field)
    }
}

fn manifest_of(written: &[u8]) -> Result<Manifest, DamagedArchive> {
    let wrong = |what: &str| damaged(format!("the manifest's {what} cannot be read"));
    let written: Written =
        serde_json::from_slice(written).map_err(|cause| damaged(format!("the manifest: {cause}")))?;
    if written.first == 0 || written.last < written.first {
        return Err(wrong("versions"));
    }
    Ok(Manifest {
        store: written.store.parse().map_err(|_| wrong("store"))?,
        stream: Name::new(written.stream).map_err(|_| wrong("stream"))?,
        before: written.before.map(Version::new),
        first: Version::new(written.first),
        last: Version::new(written.last),
        previous: hash_of(&written.previous).ok_or_else(|| wrong("previous hash"))?,
        hash: hash_of(&written.hash).ok_or_else(|| wrong("hash"))?,
    })
}

fn hash_of(text: &str) -> Option<ChainHash> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(ChainHash::from_bytes(bytes))
}

#[cfg(test)]
mod tests;
