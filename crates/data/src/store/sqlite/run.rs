//! Runs: the rows in which the index keeps positions.
//!
//! The index is inverted, like that of a search engine: for each stream, type, tag and category it lists the positions
//! of its events. A run is a stretch of such a list, ascending, as a CRC-32 followed by LEB128 differences. Runs are
//! written once and never changed.

use crate::event::DecodeError;

/// The most positions in one run, which bounds what a reader decodes to find one.
pub(super) const MAX_POSITIONS: usize = 512;

/// Writes a run of ascending `positions`. The checksum covers `key`, so that a run under another key is noticed.
pub(super) fn encode(key: &[u8], positions: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    let mut last = 0;
    for position in positions {
        put(&mut bytes, position - last);
        last = *position;
    }
    let sum = checksum(key, &bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads a run back.
pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Vec<u64>, DecodeError> {
    let (sum, rest) = bytes.split_first_chunk().ok_or_else(|| DecodeError::new("a run is cut off"))?;
    if checksum(key, rest) != u32::from_le_bytes(*sum) {
        return Err(DecodeError::new("the checksum does not match the bytes"));
    }
    let (mut positions, mut last, mut at) = (Vec::new(), 0_u64, 0);
    while at < rest.len() {
        last = last.checked_add(take(rest, &mut at)?).ok_or_else(|| DecodeError::new("a position is absurd"))?;
        positions.push(last);
    }
    Ok(positions)
}

/// Reads a run from what stands behind its checksum.
pub(crate) fn positions_of(differences: &[u8]) -> Result<Vec<u64>, DecodeError> {
    let bytes = [&checksum(&[], differences).to_le_bytes(), differences].concat();
    decode(&[], &bytes)
}

/// The checksum of a small row: of everything that identifies it and everything in it.
pub(super) fn checksum(key: &[u8], bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key);
    sum.update(bytes);
    sum.finalize()
}

/// The key of a run: which list, and where in it.
pub(super) fn key(list: i64, first: i64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&list.to_le_bytes());
    key[8..].copy_from_slice(&first.to_le_bytes());
    key
}

fn put(bytes: &mut Vec<u8>, mut rest: u64) {
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn take(bytes: &[u8], at: &mut usize) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or_else(|| DecodeError::new("a run is cut off"))?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::new("a position is absurd"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode, encode, key};

    proptest! {
        #[test]
        fn positions_come_out_as_they_went_in(positions in proptest::collection::btree_set(1..u64::MAX, 0..100)) {
            let positions: Vec<u64> = positions.into_iter().collect();
            prop_assert_eq!(decode(&key(1, 2), &encode(&key(1, 2), &positions)), Ok(positions));
        }

        #[test]
        fn any_flipped_byte_and_any_other_key_is_noticed(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let mut bytes = encode(&key(1, 2), &[1, 1_000, 1_000_000]);
            prop_assert!(decode(&key(1, 3), &bytes).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(decode(&key(1, 2), &bytes).is_err());
        }

        #[test]
        fn decoding_survives_any_bytes(rest in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = super::checksum(&key(1, 2), &rest).to_le_bytes().to_vec();
            bytes.extend(rest);
            let _ = decode(&key(1, 2), &bytes);
        }
    }
}
