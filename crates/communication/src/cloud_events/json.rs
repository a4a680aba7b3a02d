//! JSON texts, written straight into a buffer.

use bytes::{BufMut, BytesMut};
use serde::de::IgnoredAny;

/// Writes `text` as a JSON string, quotes included.
pub fn write_string(buffer: &mut BytesMut, text: &str) {
    buffer.reserve(text.len() + 2);
    buffer.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[*byte as usize];
        if escape == 0 {
            continue;
        }
        buffer.put_slice(&bytes[written..at]);
        written = at + 1;
        if escape == b'u' {
            buffer.put_slice(b"\\u00");
            buffer.put_slice(&[HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]);
        } else {
            buffer.put_slice(&[b'\\', escape]);
        }
    }
    buffer.put_slice(&bytes[written..]);
    buffer.put_u8(b'"');
}

/// How many bytes `text` is as a JSON string.
pub fn string_bytes(text: &[u8]) -> usize {
    let escaped = |byte: &u8| match ESCAPES[*byte as usize] {
        0 => 1,
        b'u' => 6,
        _ => 2,
    };
    2 + text.iter().map(escaped).sum::<usize>()
}

/// Writes `number` in digits, without quotes.
pub fn write_number(buffer: &mut BytesMut, number: u64) {
    buffer.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The letter behind the backslash for bytes that need one; `u` for those that are spelled in hex.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[0x0c] = b'f';
    table[b'\r' as usize] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Whether `bytes` are one JSON value and nothing else.
pub fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}
