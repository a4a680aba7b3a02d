//! Where a page ended, as a text that a client gives back.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{Buf, BufMut, Bytes};

use super::super::ViewError;
use crate::store::Value;

/// The longest cursor in bytes: it goes into an address.
const MAX_BYTES: usize = 8 << 10;

/// Where a page ended.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Cursor {
    /// Which code made the rows it points into; for tables without keys also which build.
    pub(super) rows: u64,
    /// Which query it belongs to.
    pub(super) query: u64,
    /// The values of the order's columns in the last row.
    pub(super) values: Vec<Value>,
}

/// What tells one thing from another, in eight bytes.
pub(in super::super) fn digest(what: &str) -> u64 {
    let hash = blake3::hash(what.as_bytes());
    hash.as_bytes()[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Cursor {
    /// As text.
    ///
    /// # Errors
    /// [`ViewError::InvalidQuery`] where its values are too long for one.
    pub(in super::super) fn write(&self) -> Result<String, ViewError> {
        let mut bytes = Vec::with_capacity(64);
        bytes.put_u64(self.rows);
        bytes.put_u64(self.query);
        for value in &self.values {
            match value {
                Value::Null => bytes.put_u8(0),
                Value::Integer(n) => {
                    bytes.put_u8(1);
                    bytes.put_i64(*n);
                }
                Value::Real(x) => {
                    bytes.put_u8(2);
                    bytes.put_u64(x.to_bits());
                }
                Value::Text(text) => put(&mut bytes, 3, text.as_bytes()),
                Value::Blob(blob) => put(&mut bytes, 4, blob),
            }
        }
        let sum = crc32fast::hash(&bytes);
        bytes.put_u32(sum);
        let text = URL_SAFE_NO_PAD.encode(bytes);
        if text.len() > MAX_BYTES {
            let what = format!(
                "the values of the order's columns are too long to go on behind them: a cursor has at most {MAX_BYTES} bytes"
            );
            return Err(ViewError::InvalidQuery { what });
        }
        Ok(text)
    }

    /// From text; `None` where it is none of ours.
    pub(super) fn read(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc32fast::hash(body).to_be_bytes() != sum {
            return None;
        }
        let mut body = body;
        let mut cursor = Self { rows: body.try_get_u64().ok()?, query: body.try_get_u64().ok()?, values: Vec::new() };
        while body.has_remaining() {
            cursor.values.push(match body.get_u8() {
                0 => Value::Null,
                1 => Value::Integer(body.try_get_i64().ok()?),
                2 => Value::Real(f64::from_bits(body.try_get_u64().ok()?)),
                3 => Value::Text(std::str::from_utf8(get(&mut body)?).ok()?.into()),
                4 => Value::Blob(Bytes::copy_from_slice(get(&mut body)?)),
                _ => return None,
            });
        }
        Some(cursor)
    }
}

fn put(to: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    to.put_u8(tag);
    to.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    to.put_slice(bytes);
}

fn get<'b>(from: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = from.try_get_u32().ok()? as usize;
    let (bytes, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::Cursor;
    use crate::store::Value;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-1e300..1e300).prop_map(Value::Real),
            any::<String>().prop_map(|text| Value::Text(text.into())),
            any::<Vec<u8>>().prop_map(|bytes| Value::Blob(bytes.into())),
        ]
    }

    proptest! {
        #[test]
        fn a_cursor_survives_being_written_and_read(rows: u64, query: u64, values in prop::collection::vec(value(), 0..5)) {
            let cursor = Cursor { rows, query, values };
            prop_assert_eq!(Cursor::read(&cursor.write().unwrap()), Some(cursor));
        }

        #[test]
        fn no_text_makes_reading_a_cursor_panic(text: String) {
            prop_assert_eq!(Cursor::read(&text), None);
        }
    }

    #[test]
    fn a_changed_cursor_is_none() {
        let text = Cursor { rows: 1, query: 2, values: vec![Value::Integer(3)] }.write().unwrap();
        let changed = text.replacen('A', "B", 1);
        assert_eq!(Cursor::read(&changed), None);
    }
}
