//! Known events: the table that makes a repeated append harmless.
//!
//! An event is known by its stream, `source` and `id`. Its key here begins with the id, 16 bytes where it is a UUID, and
//! ends with a hash of stream and source: time-ordered ids then go to the right edge of the table, whatever their
//! streams, and an id beyond the largest key was never seen, which spares the look-up.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    connection::{corrupt, failed},
    run,
    tail::identity,
};
use crate::{event::Recorded, store::StoreError};

const TEXT: u8 = 0;
const UUID: u8 = 1;

/// The key of an event in `quorate_event_id`.
pub(super) fn key(event: &Recorded) -> Vec<u8> {
    Origin::default().key(event.stream(), event.source(), event.id())
}

/// Where events come from: most have it in common with the one before, which spares hashing it again.
#[derive(Default)]
pub(super) struct Origin {
    stream: String,
    source: String,
    hash: Option<[u8; 16]>,
}

impl Origin {
    /// The key of an event.
    fn key(&mut self, stream: &str, source: &str, id: &str) -> Vec<u8> {
        if self.hash.is_none() || self.stream != stream || self.source != source {
            *self = Self {
                stream: stream.to_owned(),
                source: source.to_owned(),
                hash: Some(identity(stream, source, "").to_be_bytes()),
            };
        }
        key_of(id, self.hash.unwrap_or_default())
    }
}

fn key_of(id: &str, origin: [u8; 16]) -> Vec<u8> {
    let mut key = Vec::with_capacity(34);
    match canonical_uuid(id) {
        Some(uuid) => {
            key.push(UUID);
            key.extend_from_slice(uuid.as_bytes());
        }
        None => {
            // No control character is in an id, so the zero byte ends it.
            key.push(TEXT);
            key.extend_from_slice(id.as_bytes());
            key.push(0);
        }
    }
    key.extend_from_slice(&origin);
    key
}

/// An id that is a UUID in the one spelling that its 16 bytes give back.
fn canonical_uuid(id: &str) -> Option<uuid::Uuid> {
    let spelled = id.len() == 36 && !id.bytes().any(|b| b.is_ascii_uppercase());
    spelled.then(|| uuid::Uuid::try_parse(id).ok()).flatten()
}

/// The largest key of each kind that the table holds.
#[derive(Default)]
pub(super) struct Largest([Option<Vec<u8>>; 2]);

impl Largest {
    /// Reads them from the table.
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let load = |kind: u8| -> rusqlite::Result<Option<Vec<u8>>> {
            connection
                .prepare_cached(
                    "SELECT key FROM quorate_event_id WHERE key >= ?1 AND key < ?2 ORDER BY key DESC LIMIT 1",
                )?
                .query_row(params![&[kind][..], &[kind + 1][..]], |row| row.get(0))
                .optional()
        };
        let both = load(TEXT).and_then(|text| Ok(Self([text, load(UUID)?])));
        both.map_err(failed("reading quorate_event_id"))
    }

    /// Takes note of a key that was written.
    fn raise(&mut self, key: &[u8]) {
        let largest = &mut self.0[usize::from(key[0])];
        if largest.as_deref().is_none_or(|largest| largest < key) {
            *largest = Some(key.to_vec());
        }
    }

    fn may_hold(&self, key: &[u8]) -> bool {
        self.0[usize::from(key[0])].as_deref().is_some_and(|largest| key <= largest)
    }
}

/// Where an event of this stream, source and id stands, if the table knows it.
pub(super) fn find(
    connection: &Connection,
    largest: &Largest,
    origin: &mut Origin,
    (stream, source, id): (&str, &str, &str),
) -> Result<Option<u64>, StoreError> {
    let key = origin.key(stream, source, id);
    if !largest.may_hold(&key) {
        return Ok(None);
    }
    let mut select = connection
        .prepare_cached("SELECT position, sum FROM quorate_event_id WHERE key = ?1")
        .map_err(failed("reading quorate_event_id"))?;
    let row: Option<(i64, u32)> = select
        .query_row([&key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(failed("reading quorate_event_id"))?;
    let Some((position, sum)) = row else { return Ok(None) };
    if sum != checksum(&key, position) {
        return Err(corrupt(
            format!("quorate_event_id, the row of position {position}"),
            "the checksum does not match",
        ));
    }
    Ok(Some(position.cast_unsigned()))
}

pub(super) fn checksum(key: &[u8], position: i64) -> u32 {
    run::checksum(key, &position.to_le_bytes())
}

/// Writes the keys of `events`, sorted, so that each page of the table is touched once.
pub(super) fn insert(connection: &Connection, largest: &mut Largest, events: &[Recorded]) -> rusqlite::Result<()> {
    let mut origin = Origin::default();
    let key = |event: &Recorded| origin.key(event.stream(), event.source(), event.id());
    let positions = events.iter().map(|event| event.position().get().cast_signed());
    let mut keys: Vec<(Vec<u8>, i64)> = events.iter().map(key).zip(positions).collect();
    keys.sort_unstable();
    let mut insert =
        connection.prepare_cached("INSERT INTO quorate_event_id (key, position, sum) VALUES (?1, ?2, ?3)")?;
    for (key, position) in &keys {
        insert.execute(params![key, position, checksum(key, *position)])?;
        largest.raise(key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Origin, canonical_uuid};

    fn key_of(stream: &str, source: &str, id: &str) -> Vec<u8> {
        let mut other = Origin::default();
        other.key("another", "/origin", id);
        let key = other.key(stream, source, id);
        assert_eq!(key, Origin::default().key(stream, source, id), "whatever came before");
        key
    }

    #[test]
    fn only_the_canonical_spelling_of_a_uuid_is_kept_as_16_bytes() {
        assert!(canonical_uuid("01939a5e-7c00-7000-8000-0123456789ab").is_some());
        assert!(canonical_uuid("01939A5E-7C00-7000-8000-0123456789AB").is_none());
        assert!(canonical_uuid("01939a5e7c0070008000012345678900abcd").is_none());
        assert!(canonical_uuid("01939a5e-7c00-7000-8000-0123456789ag").is_none());
    }

    #[test]
    fn later_time_ordered_ids_have_larger_keys_in_any_stream() {
        let early = key_of("z", "/s", "01939a5e-7c00-7000-8000-0123456789ab");
        let late = key_of("a", "/s", "01939a5e-7c01-7000-8000-0123456789ab");
        assert!(early < late);
    }

    #[test]
    fn ids_that_prefix_each_other_do_not_meet() {
        assert_ne!(key_of("s", "/s", "a"), key_of("s", "/s", "ab"));
        assert_ne!(key_of("s", "/s", "a"), key_of("s", "/t", "a"));
        assert_ne!(key_of("st", "/s", "a"), key_of("s", "t/s", "a"));
    }
}
