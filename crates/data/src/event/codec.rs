//! Events as bytes.
//!
//! ```text
//! 0        format, 1
//! 1        flags: bits 0-1 stub (0 whole, 1 truncated, 2 tombstoned, 3 archived), bit 2 encrypted
//! 2..10    version in the stream          u64, little endian
//! 10..18   recorded time, ns since 1970   i64, little endian
//! 18..50   chain hash
//! 50..     header: the lengths of twelve texts, then the texts:
//!          stream id source type subject time datacontenttype dataschema correlationid causationid tags extensions
//! then     the length of the data, then the data; a stub has the data's 32-byte hash instead
//! ```
//! A length is a LEB128 number that is one more than the length in bytes; 0 says *absent*. The header is what the hash
//! chain covers, as it stands here. Decoding checks every bound: bytes come from a disk, and disks rot.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_foundations::time::Wall;

use super::{
    ChainHash, DataHash, NewEvent, Position, Recorded, Version,
    recorded::{Layout, TEXTS},
};

const FORMAT: u8 = 1;
pub(super) const FIXED: usize = 50;
pub(super) const ENCRYPTED: u8 = 0b100;
pub(super) const STUB: u8 = 0b11;

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

/// Where an event goes: what the log adds to it.
pub(crate) struct Place<'a> {
    pub(crate) stream: &'a str,
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) recorded_at: Wall,
    pub(crate) previous: ChainHash,
}

/// Writes `event` to the end of `buffer`, links it to the chain, and splits it off.
pub(crate) fn encode(event: &NewEvent, place: &Place<'_>, buffer: &mut BytesMut) -> Recorded {
    debug_assert!(buffer.is_empty(), "an event is split off as soon as it is written");
    let extensions = extensions_text(event);
    let texts: [Option<&str>; TEXTS] = [
        Some(place.stream),
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
    ];
    let data = event.data.as_deref();
    buffer.reserve(FIXED + 2 * TEXTS + 16 + event.size() + place.stream.len());
    buffer.put_u8(FORMAT);
    buffer.put_u8(0);
    buffer.put_u64_le(place.version.get());
    buffer.put_i64_le(place.recorded_at.unix_nanos());
    buffer.put_bytes(0, ChainHash::START.as_bytes().len());
    texts.iter().for_each(|text| put_length(buffer, text.map(str::len)));
    let mut ends = [0; TEXTS + 1];
    let texts_start = buffer.len();
    for (end, text) in ends.iter_mut().zip(texts) {
        buffer.put_slice(text.unwrap_or_default().as_bytes());
        *end = small(buffer.len());
    }
    let header_end = buffer.len();
    put_length(buffer, data.map(<[u8]>::len));
    let data_start = small(buffer.len());
    buffer.put_slice(data.unwrap_or_default());
    ends[TEXTS] = small(buffer.len());

    let nanos = place.recorded_at.unix_nanos();
    let data_hash = DataHash::of(data.unwrap_or_default());
    let hash = place.previous.link(place.version.get(), nanos, &buffer[FIXED..header_end], &data_hash);
    buffer[18..FIXED].copy_from_slice(hash.as_bytes());
    let present = texts.iter().enumerate().fold(0, |bits, (n, text)| bits | u16::from(text.is_some()) << n)
        | u16::from(data.is_some()) << TEXTS;
    let layout = Layout { present, texts_start: small(texts_start), ends, data_start };
    Recorded::new(place.position, buffer.split().freeze(), layout)
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
    if bytes[1] & STUB != 0 && data != Some(32) {
        return Err(DecodeError::new("a stub carries no data hash"));
    }
    let layout = Layout { present, texts_start: small(texts_start), ends, data_start };
    Ok(Recorded::new(position, bytes, layout))
}

/// The same event with its data replaced by the data's hash.
pub(crate) fn stub(event: &Recorded, kind: u8) -> Recorded {
    let header_end = event.layout().ends[TEXTS - 1] as usize;
    let mut bytes = BytesMut::with_capacity(header_end + 34);
    bytes.put_slice(&event.bytes()[..header_end]);
    bytes[1] = bytes[1] & !STUB | kind;
    put_length(&mut bytes, Some(32));
    let data_start = small(bytes.len());
    bytes.put_slice(event.data_hash().as_bytes());
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
