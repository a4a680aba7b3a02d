//! Events as bytes.
//!
//! ```text
//! 0        format, 1
//! 1        flags: bits 0-1 stub (0 whole, 1 truncated, 2 tombstoned, 3 archived), bit 2 encrypted
//! 2..10    version in the stream          u64, little endian
//! 10..18   recorded time, ns since 1970   i64, little endian
//! 18..50   chain hash
//! 50..     header: the lengths of thirteen texts, then the texts:
//!          stream id source type subject time datacontenttype dataschema correlationid causationid tags extensions
//!          datasubject
//! then     the length of the data, then the data; a stub has the data's 32-byte hash instead
//! ```
//! Data of a data subject is sealed: the 8 bytes of a [`KeyId`], a nonce, ciphertext and tag (see `store::erasure`). A stub
//! of it keeps the key's id behind the hash, and one of an archived event the 8 bytes of the archive's id behind that.
//!
//! A length is a LEB128 number that is one more than the length in bytes; 0 says *absent*. The header is what the hash
//! chain covers, as it stands here. Decoding checks every bound: bytes come from a disk, and disks rot.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_foundations::time::Wall;

use super::{
    ChainHash, DataHash, KeyId, NewEvent, Position, Recorded, Stub, Version,
    recorded::{Layout, TEXTS},
};

const FORMAT: u8 = 1;
pub(super) const FIXED: usize = 50;
pub(super) const ENCRYPTED: u8 = 0b100;
pub(super) const STUB: u8 = 0b11;
/// Which text is the data subject.
pub(super) const DATA_SUBJECT: usize = 12;
/// What an archive's id takes at the end of a stub.
pub(super) const ARCHIVE_BYTES: usize = 8;
/// The flags of a stub whose event is in an archive.
const ARCHIVED: u8 = 3;
/// The least that sealed data, or what a stub keeps of it, takes.
const SEALED_BYTES: usize = 32;

/// Bytes that are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct DecodeError {
    what: Cow<'static, str>,
}

impl DecodeError {
    pub(crate) fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into() }
    }
}

/// What the log adds to an event.
pub(crate) struct Place {
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) recorded_at: Wall,
    pub(crate) previous: ChainHash,
}

/// An event whose bytes are ready but for what only the log knows. Made where the caller runs, so that the one writer
/// has less to do.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    bytes: BytesMut,
    layout: Layout,
    data_hash: DataHash,
}

impl Prepared {
    /// Encodes an event whose data is kept as it is.
    pub(crate) fn new(event: &NewEvent, stream: &str) -> Self {
        assert!(!event.is_secret(), "invariant: data of a data subject is sealed");
        Self::encode(event, stream, |_, data| data.into())
    }

    /// Encodes an event whose data `seal` makes ciphertext of, given the header and the data.
    pub(crate) fn sealed(event: &NewEvent, stream: &str, seal: impl FnOnce(&[u8], &[u8]) -> Vec<u8>) -> Self {
        let mut sealed = Self::encode(event, stream, |header, data| seal(header, data).into());
        if event.is_secret() {
            sealed.bytes[1] |= ENCRYPTED;
        }
        sealed
    }

    fn encode<'e>(event: &'e NewEvent, stream: &str, keep: impl FnOnce(&[u8], &'e [u8]) -> Cow<'e, [u8]>) -> Self {
        let extensions = extensions_text(event);
        let texts: [Option<&str>; TEXTS] = [
            Some(stream),
            Some(&event.id),
            Some(&event.source),
            Some(&event.kind),
            event.subject.as_deref(),
            event.time.as_ref().map(super::Timestamp::as_str),
            event.content_type.as_deref(),
            event.schema.as_deref(),
            event.correlation_id.as_deref(),
            event.causation_id.as_deref(),
            (!event.tags.is_empty()).then(|| event.tags.as_str()),
            extensions.as_deref(),
            event.data_subject.as_deref(),
        ];
        let mut bytes = BytesMut::with_capacity(FIXED + 2 * TEXTS + 64 + event.size() + stream.len());
        bytes.put_u8(FORMAT);
        bytes.put_bytes(0, FIXED - 1);
        texts.iter().for_each(|text| put_length(&mut bytes, text.map(str::len)));
        let texts_start = small(bytes.len());
        let mut ends = [0; TEXTS + 1];
        for (end, text) in ends.iter_mut().zip(texts) {
            bytes.put_slice(text.unwrap_or_default().as_bytes());
            *end = small(bytes.len());
        }
        let data = event.data.as_deref().map(|data| keep(&bytes[FIXED..], data));
        let data = data.as_deref();
        put_length(&mut bytes, data.map(<[u8]>::len));
        let data_start = small(bytes.len());
        bytes.put_slice(data.unwrap_or_default());
        ends[TEXTS] = small(bytes.len());
        let present = texts.iter().enumerate().fold(0, |bits, (n, text)| bits | u16::from(text.is_some()) << n)
            | u16::from(data.is_some()) << TEXTS;
        let layout = Layout { present, texts_start, ends, data_start };
        Self { bytes, layout, data_hash: DataHash::of(data.unwrap_or_default()) }
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes it to the end of `buffer`, links it to the chain, and splits it off.
    pub(crate) fn record(&self, place: &Place, buffer: &mut BytesMut) -> Recorded {
        debug_assert!(buffer.is_empty(), "an event is split off as soon as it is written");
        let nanos = place.recorded_at.unix_nanos();
        let hash = place.previous.link(place.version.get(), nanos, self.header(), &self.data_hash);
        buffer.put_slice(&self.bytes);
        buffer[2..10].copy_from_slice(&place.version.get().to_le_bytes());
        buffer[10..18].copy_from_slice(&nanos.to_le_bytes());
        buffer[18..FIXED].copy_from_slice(hash.as_bytes());
        Recorded::new(place.position, buffer.split().freeze(), self.layout)
    }

    /// As an event that is nowhere in the log: to look at what it says.
    pub(crate) fn unplaced(&self) -> Recorded {
        Recorded::new(Position::default(), self.bytes.clone().freeze(), self.layout)
    }

    /// Whether `recorded` is this event: the same content in the same words, and sealed with the same key.
    pub(crate) fn is(&self, recorded: &Recorded) -> bool {
        self.is_alike(recorded) && self.data_hash == recorded.data_hash()
    }

    /// Whether `recorded` is this event as far as can be told without its data.
    pub(crate) fn is_alike(&self, recorded: &Recorded) -> bool {
        self.header() == recorded.header()
    }

    fn header(&self) -> &[u8] {
        &self.bytes[FIXED..self.layout.ends[TEXTS - 1] as usize]
    }
}

/// Reads the event that `bytes` hold, all of them.
pub(crate) fn decode(position: Position, bytes: Bytes) -> Result<Recorded, DecodeError> {
    if bytes.len() < FIXED || bytes[0] != FORMAT {
        return Err(DecodeError::new("this is no event of a known format"));
    }
    let mut at = FIXED;
    let mut lengths = [None; TEXTS];
    for length in &mut lengths {
        *length = take_length(&bytes, &mut at)?;
    }
    let texts_start = at;
    let (mut present, mut ends) = (0, [0; TEXTS + 1]);
    for (n, length) in lengths.into_iter().enumerate() {
        present |= u16::from(length.is_some()) << n;
        at = end_of(at, length, bytes.len())?;
        ends[n] = small(at);
    }
    let texts =
        std::str::from_utf8(&bytes[texts_start..at]).map_err(|_| DecodeError::new("an attribute is not UTF-8"))?;
    if !ends[..TEXTS].iter().all(|end| texts.is_char_boundary(*end as usize - texts_start)) {
        return Err(DecodeError::new("a length cuts a character"));
    }
    let data = take_length(&bytes, &mut at)?;
    present |= u16::from(data.is_some()) << TEXTS;
    let data_start = small(at);
    at = end_of(at, data, bytes.len())?;
    ends[TEXTS] = small(at);
    if at != bytes.len() || present & 0b1111 != 0b1111 {
        return Err(DecodeError::new("an event's lengths do not add up"));
    }
    let (is_stub, is_sealed) = (bytes[1] & STUB != 0, bytes[1] & ENCRYPTED != 0);
    let key = if is_sealed { KeyId::BYTES } else { 0 };
    let archive = if bytes[1] & STUB == ARCHIVED { ARCHIVE_BYTES } else { 0 };
    if is_stub && data != Some(32 + key + archive) {
        return Err(DecodeError::new("a stub carries no data hash"));
    }
    let has_subject = present & 1 << DATA_SUBJECT != 0;
    if is_sealed && (!has_subject || data.is_none_or(|length| length < SEALED_BYTES)) {
        return Err(DecodeError::new("sealed data carries no key"));
    }
    if !is_stub && has_subject && data.is_some() && !is_sealed {
        return Err(DecodeError::new("data of a data subject is not sealed"));
    }
    let layout = Layout { present, texts_start: small(texts_start), ends, data_start };
    Ok(Recorded::new(position, bytes, layout))
}

/// The same event with its data replaced by the data's hash.
pub(crate) fn stub(event: &Recorded, kind: Stub) -> Recorded {
    let header_end = event.layout().ends[TEXTS - 1] as usize;
    let key = event.key_id().map(KeyId::to_bytes);
    let key = key.as_ref().map_or(&[][..], |key| &key[..]);
    let archive = kind.archive().map(|archive| archive.get().to_le_bytes());
    let archive = archive.as_ref().map_or(&[][..], |archive| &archive[..]);
    let kept = 32 + key.len() + archive.len();
    let mut bytes = BytesMut::with_capacity(header_end + 2 + kept);
    bytes.put_slice(&event.bytes()[..header_end]);
    bytes[1] = bytes[1] & !STUB | kind.bits();
    put_length(&mut bytes, Some(kept));
    let data_start = small(bytes.len());
    bytes.put_slice(event.data_hash().as_bytes());
    bytes.put_slice(key);
    bytes.put_slice(archive);
    let mut layout = *event.layout();
    layout.present |= 1 << TEXTS;
    layout.data_start = data_start;
    layout.ends[TEXTS] = small(bytes.len());
    Recorded::new(event.position(), bytes.freeze(), layout)
}

pub(super) fn extensions_text(event: &NewEvent) -> Option<String> {
    // A map of plain scalars always has a JSON form.
    (!event.extensions.is_empty()).then(|| serde_json::to_string(&event.extensions).unwrap_or_default())
}

fn small(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or_else(|_| unreachable!("an event is far below 4 GiB: the store's limits say so"))
}

fn put_length(buffer: &mut BytesMut, length: Option<usize>) {
    let mut rest = length.map_or(0, |length| length as u64 + 1);
    while rest >= 0x80 {
        buffer.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
}

fn take_length(bytes: &[u8], at: &mut usize) -> Result<Option<usize>, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(*at).ok_or_else(|| DecodeError::new("an event ends inside a length"))?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value.checked_sub(1).map(|length| length as usize));
        }
    }
    Err(DecodeError::new("a length is absurd"))
}

fn end_of(at: usize, length: Option<usize>, total: usize) -> Result<usize, DecodeError> {
    let end = at + length.unwrap_or(0);
    if end <= total { Ok(end) } else { Err(DecodeError::new("an event ends inside an attribute")) }
}
