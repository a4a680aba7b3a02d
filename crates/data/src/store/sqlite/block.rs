//! Blocks: the rows in which the log is kept.
//!
//! A commit writes the events of a whole group as a few blocks of neighbouring events instead of a row each: that is
//! what group commit saves beyond the sync. A block is immutable until retention makes stubs in it.
//!
//! ```text
//! 0       format, 1
//! 1..5    CRC-32 of the first position (8 bytes, little endian) and everything behind this field
//! 5..9    number of events, u32 little endian
//! then    the end of each event, counted from the end of this list, u32 little endian
//! then    the events
//! ```

use bytes::Bytes;

use crate::event::{DecodeError, Position, Recorded};

/// Events are gathered into one block up to this many bytes: a reader of one event reads at most about so much.
pub(super) const TARGET_BYTES: usize = 8 << 10;

const FORMAT: u8 = 1;
const HEAD: usize = 9;

/// A block, checked: its events can be taken out one by one.
#[derive(Clone, Debug)]
pub(super) struct Block {
    first: u64,
    count: usize,
    body: Bytes,
}

impl Block {
    /// Checks the bytes of the block that begins with position `first`.
    pub(super) fn check(first: u64, body: Bytes) -> Result<Self, DecodeError> {
        if body.len() < HEAD || body[0] != FORMAT {
            return Err(DecodeError::new("this is no block of a known format"));
        }
        if checksum(first, &body[5..]) != number(&body, 1) {
            return Err(DecodeError::new("the checksum does not match the bytes"));
        }
        let count = number(&body, 5) as usize;
        let starts = HEAD + count * 4;
        let whole = count > 0 && starts <= body.len() && number(&body, starts - 4) as usize == body.len() - starts;
        if !whole {
            return Err(DecodeError::new("the lengths of a block do not add up"));
        }
        Ok(Self { first, count, body })
    }

    /// The position of its first event.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The position behind its last event.
    pub(super) fn end(&self) -> u64 {
        self.first + self.count as u64
    }

    /// The bytes it takes.
    pub(super) fn size(&self) -> usize {
        self.body.len()
    }

    /// The event at `position`, which must lie in this block.
    pub(super) fn event(&self, position: u64) -> Result<Recorded, DecodeError> {
        let n = usize::try_from(position - self.first).unwrap_or(usize::MAX);
        let starts = HEAD + self.count * 4;
        let end_of = |n: usize| starts + number(&self.body, HEAD + n * 4) as usize;
        let start = if n == 0 { starts } else { end_of(n - 1) };
        let end = end_of(n);
        if start > end || end > self.body.len() {
            return Err(DecodeError::new("an event lies outside its block"));
        }
        Recorded::decode(Position::new(position), self.body.slice(start..end))
    }

    /// All its events, in order.
    pub(super) fn events(&self) -> impl Iterator<Item = Result<Recorded, DecodeError>> {
        (self.first..self.end()).map(|position| self.event(position))
    }
}

/// Writes `events`, which follow one another, as blocks: calls `put` with each block's first position and bytes.
pub(super) fn write<E>(events: &[Recorded], mut put: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut body = Vec::new();
    let mut rest = events;
    while let Some(first) = rest.first() {
        let (block, later) = rest.split_at(fitting(rest));
        encode(block, &mut body);
        put(first.position().get(), &body)?;
        rest = later;
    }
    Ok(())
}

/// The bytes of one block that holds exactly `events`.
pub(super) fn encode(events: &[Recorded], body: &mut Vec<u8>) {
    body.clear();
    body.resize(HEAD, 0);
    body[0] = FORMAT;
    body[5..9].copy_from_slice(&(events.len() as u32).to_le_bytes());
    let mut end = 0;
    for event in events {
        end += event.bytes().len() as u32;
        body.extend_from_slice(&end.to_le_bytes());
    }
    events.iter().for_each(|event| body.extend_from_slice(event.bytes()));
    let first = events.first().map_or(0, |event| event.position().get());
    let sum = checksum(first, &body[5..]);
    body[1..5].copy_from_slice(&sum.to_le_bytes());
}

/// The events of the block whose bytes these would be if the checksum were right: what an attacker who writes it can reach.
pub(crate) fn events_of(first: u64, bytes: &[u8]) -> Result<Vec<Recorded>, DecodeError> {
    let mut body = bytes.to_vec();
    if body.len() >= HEAD {
        let sum = checksum(first, &body[5..]);
        body[1..5].copy_from_slice(&sum.to_le_bytes());
    }
    Block::check(first, body.into())?.events().collect()
}

fn fitting(events: &[Recorded]) -> usize {
    let mut bytes = 0;
    let beyond = events.iter().position(|event| {
        bytes += event.bytes().len();
        bytes > TARGET_BYTES
    });
    beyond.unwrap_or(events.len()).max(1)
}

fn checksum(first: u64, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&first.to_le_bytes());
    sum.update(bytes);
    sum.finalize()
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{Block, TARGET_BYTES, write};
    use crate::event::{ChainHash, NewEvent, Place, Position, Prepared, Recorded, Version};

    fn events(first: u64, sizes: &[usize]) -> Vec<Recorded> {
        let record = |(n, size): (u64, &usize)| {
            let event = NewEvent::new(format!("{n}"), "/s", "t").json(vec![b'x'; *size]);
            let place = Place {
                version: Version::new(n + 1),
                position: Position::new(first + n),
                recorded_at: Default::default(),
                previous: ChainHash::START,
            };
            Prepared::new(&event, "s").record(&place, &mut BytesMut::new())
        };
        (0..).zip(sizes).map(record).collect()
    }

    fn blocks(events: &[Recorded]) -> Vec<(u64, Vec<u8>)> {
        let mut blocks = vec![];
        write(events, |first, body| {
            blocks.push((first, body.to_vec()));
            Ok::<_, ()>(())
        })
        .unwrap();
        blocks
    }

    proptest! {
        #[test]
        fn events_come_out_as_they_went_in(first in 1..u64::MAX / 2, sizes in proptest::collection::vec(0..6_000_usize, 1..40)) {
            let events = events(first, &sizes);
            let mut read = vec![];
            for (first, body) in blocks(&events) {
                prop_assert!(body.len() < TARGET_BYTES + 10_000);
                let block = Block::check(first, body.into()).unwrap();
                prop_assert_eq!(block.first(), first);
                read.extend(block.events().map(Result::unwrap));
            }
            prop_assert_eq!(read, events);
        }

        #[test]
        fn any_flipped_byte_is_noticed(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let (first, mut body) = blocks(&events(5, &[10, 20, 30])).remove(0);
            let at = at.index(body.len());
            body[at] ^= flip;
            prop_assert!(Block::check(first, body.into()).is_err());
        }

        #[test]
        fn checking_survives_any_bytes(mut body in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(format) = body.first_mut() { *format = 1; }
            if body.len() >= 9 {
                let sum = super::checksum(1, &body[5..]);
                body[1..5].copy_from_slice(&sum.to_le_bytes());
            }
            if let Ok(block) = Block::check(1, body.into()) {
                block.events().for_each(drop);
            }
        }
    }

    #[test]
    fn a_block_at_another_place_is_noticed() {
        let (first, body) = blocks(&events(5, &[10])).remove(0);
        assert!(Block::check(first + 1, body.into()).is_err());
    }
}
