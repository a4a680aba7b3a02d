//! An event as the log keeps it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use quorate_foundations::time::Wall;

use super::{ArchiveId, ChainHash, DataHash, Extensions, KeyId, NewEvent, Position, Tags, Timestamp, Version, codec};

/// How many attributes are kept as text: see `codec`.
pub(super) const TEXTS: usize = 13;

/// An event as the log keeps it. Cheap to clone: clones share the bytes, which nothing changes.
///
/// Attributes are read in place, without copying.
#[derive(Clone)]
pub struct Recorded {
    position: Position,
    bytes: Bytes,
    layout: Layout,
    /// What sealed data says; `None` where it is not sealed, or nobody has opened it.
    opened: Option<Arc<Opened>>,
}

/// What became of sealed data when it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Its key opened it.
    Plain(Bytes),
    /// Its key was destroyed.
    Erased,
}

/// Where the attributes lie in an event's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Bit `n`: text `n` is present; bit `TEXTS`: data is.
    pub(super) present: u16,
    pub(super) texts_start: u32,
    /// The end of each text, and of the data.
    pub(super) ends: [u32; TEXTS + 1],
    pub(super) data_start: u32,
}

/// Why an event's data is gone although its place in the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stub {
    /// Its stream was truncated beyond it.
    Truncated,
    /// Its stream was closed for good.
    Tombstoned,
    /// It was moved to this archive.
    Archived(ArchiveId),
}

impl Stub {
    /// The two bits that say so in an event's flags.
    pub(crate) fn bits(self) -> u8 {
        match self {
            Self::Truncated => 1,
            Self::Tombstoned => 2,
            Self::Archived(_) => 3,
        }
    }

    /// The archive, where there is one.
    pub(crate) fn archive(self) -> Option<ArchiveId> {
        if let Self::Archived(archive) = self { Some(archive) } else { None }
    }
}

impl Recorded {
    pub(super) fn new(position: Position, bytes: Bytes, layout: Layout) -> Self {
        Self { position, bytes, layout, opened: None }
    }

    /// Reads the event that `bytes` hold.
    pub(crate) fn decode(position: Position, bytes: Bytes) -> Result<Self, super::DecodeError> {
        codec::decode(position, bytes)
    }

    /// The same with bytes of its own: what it was read from can be given back.
    pub(crate) fn detached(self) -> Self {
        Self { bytes: Bytes::copy_from_slice(&self.bytes), ..self }
    }

    /// Its place in the whole log.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Its place in its stream.
    pub fn version(&self) -> Version {
        Version::new(u64::from_le_bytes(self.fixed(2)))
    }

    /// When it was recorded, by the store's wall clock.
    pub fn recorded_at(&self) -> Wall {
        Wall::from_unix_nanos(i64::from_le_bytes(self.fixed(10)))
    }

    /// When it happened: its `time` where the producer gave one, else when it was recorded.
    pub fn happened_at(&self) -> Wall {
        self.time().map_or_else(|| self.recorded_at(), |time| time.instant())
    }

    /// Its link of the stream's hash chain.
    pub fn hash(&self) -> ChainHash {
        ChainHash::from_bytes(self.fixed(18))
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        self.text(0).unwrap_or_default()
    }

    /// `id`.
    pub fn id(&self) -> &str {
        self.text(1).unwrap_or_default()
    }

    /// `source`.
    pub fn source(&self) -> &str {
        self.text(2).unwrap_or_default()
    }

    /// `type`.
    pub fn kind(&self) -> &str {
        self.text(3).unwrap_or_default()
    }

    /// `subject`.
    pub fn subject(&self) -> Option<&str> {
        self.text(4)
    }

    /// `time`, as its producer wrote it.
    pub fn time_text(&self) -> Option<&str> {
        self.text(5)
    }

    /// `time`.
    pub fn time(&self) -> Option<Timestamp> {
        self.text(5).and_then(|text| text.parse().ok())
    }

    /// `datacontenttype`.
    pub fn content_type(&self) -> Option<&str> {
        self.text(6)
    }

    /// `dataschema`.
    pub fn schema(&self) -> Option<&str> {
        self.text(7)
    }

    /// `correlationid`.
    pub fn correlation_id(&self) -> Option<&str> {
        self.text(8)
    }

    /// `causationid`.
    pub fn causation_id(&self) -> Option<&str> {
        self.text(9)
    }

    /// Its tags with a blank between them, sorted.
    pub fn tags_text(&self) -> Option<&str> {
        self.text(10)
    }

    /// Its tags, sorted.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.text(10).unwrap_or_default().split(' ').filter(|tag| !tag.is_empty())
    }

    /// Further extension attributes as a JSON object.
    pub fn extensions_json(&self) -> Option<&str> {
        self.text(11)
    }

    /// Further extension attributes.
    pub fn extensions(&self) -> Extensions {
        self.text(11).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// `datasubject`: the person, or other data subject, whose key its data is sealed with.
    pub fn data_subject(&self) -> Option<&str> {
        self.text(codec::DATA_SUBJECT)
    }

    /// `data`, byte for byte as received; `None` where there is none, only a stub of the event is left, or its data
    /// subject was [erased](Self::erased).
    pub fn data(&self) -> Option<&[u8]> {
        match self.opened.as_deref() {
            Some(Opened::Plain(plain)) => Some(plain),
            _ if self.is_encrypted() => None,
            _ => self.data_range().map(|range| &self.bytes[range]),
        }
    }

    /// [`data`](Self::data) as a handle that shares the bytes.
    pub fn data_bytes(&self) -> Option<Bytes> {
        match self.opened.as_deref() {
            Some(Opened::Plain(plain)) => Some(plain.clone()),
            _ if self.is_encrypted() => None,
            _ => self.data_range().map(|range| self.bytes.slice(range)),
        }
    }

    /// The data as the log keeps it, which is what the hash chain covers: ciphertext where it
    /// [is encrypted](Self::is_encrypted). `None` where there is none, or only a stub is left.
    pub fn stored_data(&self) -> Option<&[u8]> {
        self.data_range().map(|range| &self.bytes[range])
    }

    /// Whether its data can never be read again, because its data subject was erased.
    pub fn erased(&self) -> bool {
        self.opened.as_deref() == Some(&Opened::Erased)
    }

    /// Why only a stub is left; `None` for a whole event.
    pub fn stub(&self) -> Option<Stub> {
        match self.bytes[1] & codec::STUB {
            0 => None,
            1 => Some(Stub::Truncated),
            2 => Some(Stub::Tombstoned),
            _ => Some(Stub::Archived(self.archive_id())),
        }
    }

    /// Whether its data can never be read again: its data subject was [erased](Self::erased), or only a [stub](Self::stub) is
    /// left.
    pub(crate) fn is_gone(&self) -> bool {
        self.erased() || self.stub().is_some()
    }

    /// Whether the log keeps its data as ciphertext of a data subject's key; [`data`](Self::data) is in the clear all the
    /// same. What is derived from it must be forgotten when the data subject is erased.
    pub fn is_encrypted(&self) -> bool {
        self.bytes[1] & codec::ENCRYPTED != 0
    }

    /// The hash of its data as stored; known also for a stub.
    pub fn data_hash(&self) -> DataHash {
        let stored = &self.bytes[self.layout.data_start as usize..];
        match (self.stub(), stored.first_chunk()) {
            (Some(_), Some(hash)) => DataHash::from_bytes(*hash),
            _ => DataHash::of(stored),
        }
    }

    /// Which key its data is sealed with; known also for a stub.
    pub(crate) fn key_id(&self) -> Option<KeyId> {
        let stored = &self.bytes[self.layout.data_start as usize..];
        let key = if self.stub().is_some() { stored.get(32..) } else { Some(stored) };
        key.filter(|_| self.is_encrypted()).and_then(|key| key.first_chunk()).map(KeyId::from_bytes)
    }

    /// The archive that a stub ends with.
    fn archive_id(&self) -> ArchiveId {
        let end = self.layout.ends[TEXTS] as usize;
        ArchiveId::new(u64::from_le_bytes(self.fixed(end - codec::ARCHIVE_BYTES)))
    }

    /// The same event, with what its sealed data says.
    pub(crate) fn opened(mut self, opened: Opened) -> Self {
        self.opened = Some(Arc::new(opened));
        self
    }

    /// Everything up to the first `-` of the stream's name.
    pub fn category(&self) -> &str {
        category(self.stream())
    }

    /// Whether its hash follows from `previous`: the link before it in its stream.
    pub fn follows(&self, previous: &ChainHash) -> bool {
        let nanos = self.recorded_at().unix_nanos();
        previous.link(self.version().get(), nanos, self.header(), &self.data_hash()) == self.hash()
    }

    /// The attributes as the hash chain covers them.
    pub(crate) fn header(&self) -> &[u8] {
        &self.bytes[codec::FIXED..self.layout.ends[TEXTS - 1] as usize]
    }

    /// What is left of it when its data goes.
    pub(crate) fn to_stub(&self, kind: Stub) -> Self {
        codec::stub(self, kind)
    }

    /// It as it was handed in.
    pub fn to_new(&self) -> NewEvent {
        NewEvent {
            id: self.id().into(),
            source: self.source().into(),
            kind: self.kind().into(),
            subject: self.subject().map(Into::into),
            time: self.time(),
            content_type: self.content_type().map(Into::into),
            schema: self.schema().map(Into::into),
            correlation_id: self.correlation_id().map(Into::into),
            causation_id: self.causation_id().map(Into::into),
            data_subject: self.data_subject().map(Into::into),
            tags: Tags::new(self.tags()).unwrap_or_default(),
            extensions: self.extensions(),
            data: self.data_bytes(),
        }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    fn text_start(&self, n: usize) -> usize {
        (if n == 0 { self.layout.texts_start } else { self.layout.ends[n - 1] }) as usize
    }

    fn text(&self, n: usize) -> Option<&str> {
        let present = self.layout.present & 1 << n != 0;
        // Decoding checked every text, and encoding copied it from one.
        present.then(|| {
            std::str::from_utf8(&self.bytes[self.text_start(n)..self.layout.ends[n] as usize]).unwrap_or_default()
        })
    }

    fn data_range(&self) -> Option<std::ops::Range<usize>> {
        let present = self.layout.present & 1 << TEXTS != 0 && self.stub().is_none();
        present.then(|| self.layout.data_start as usize..self.layout.ends[TEXTS] as usize)
    }

    fn fixed<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[at..at + N]);
        field
    }
}

/// Everything up to the first `-` of a stream's name; the whole name where there is none.
fn category(stream: &str) -> &str {
    stream.split_once('-').map_or(stream, |(category, _)| category)
}

/// Equal as the log keeps them: whether sealed data was opened makes no difference.
impl PartialEq for Recorded {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position && self.bytes == other.bytes
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {}@{} {} {}", self.position, self.stream(), self.version(), self.kind(), self.id())
    }
}

#[cfg(test)]
mod tests;
