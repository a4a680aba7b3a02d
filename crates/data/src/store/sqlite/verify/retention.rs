//! Checking retention: stubs where a stream's head says so and nowhere else, archives that stubs name, metadata.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::{Check, note, place};
use crate::{
    event::{ArchiveId, Recorded, Stub},
    store::{
        Archive, StoreError, Verified,
        sqlite::{archive, index::StreamRow, metadata, retiring},
    },
};

/// What retention has written down, and what was seen of it in the log.
#[derive(Default)]
pub(super) struct Kept {
    archives: BTreeMap<ArchiveId, Archive>,
    /// The first version that is forgotten and still lies in the blocks, by stream.
    retiring: HashMap<String, u64>,
    seen: HashMap<String, Seen>,
    /// Rows of streams that have metadata.
    with_metadata: BTreeSet<i64>,
}

/// What the log holds of a stream.
#[derive(Clone, Copy)]
struct Seen {
    first_whole: Option<u64>,
    last_stub: u64,
}

impl Kept {
    /// Looks at an event.
    pub(super) fn event(&mut self, event: &Recorded, found: &mut Verified) {
        let version = event.version().get();
        if !self.seen.contains_key(event.stream()) {
            self.seen.insert(event.stream().to_owned(), Seen { first_whole: None, last_stub: 0 });
        }
        let Some(seen) = self.seen.get_mut(event.stream()) else { return };
        match event.stub() {
            None => drop(seen.first_whole.get_or_insert(version)),
            Some(_) => seen.last_stub = version,
        }
        let Some(Stub::Archived(id)) = event.stub() else { return };
        match self.archives.get(&id) {
            Some(archive) if archive.stream.as_str() != event.stream() || archive.last < event.version() => {
                found.find(place(event), format!("it names archive {id}, which is of other events"));
            }
            Some(archive) if archive.last == event.version() && archive.hash != event.hash() => {
                found.find(place(event), format!("its hash is not the one that archive {id} leads to"));
            }
            Some(_) => {}
            None => found.find(place(event), format!("it names archive {id}, which nothing is known of")),
        }
    }

    /// Looks at a stream's row, after all events.
    pub(super) fn stream(&mut self, row: &StreamRow, found: &mut Verified) {
        if row.head.metadata.get() > 0 {
            self.with_metadata.insert(row.id);
        }
        let Some(seen) = self.seen.get(&row.name) else { return };
        let first = row.head.first.get();
        let at = || format!("quorate_stream, row {}", row.id);
        if seen.last_stub >= first {
            found.find(at(), format!("version {} is a stub, although events from {first} on are kept", seen.last_stub));
        }
        let whole = seen.first_whole.filter(|whole| *whole < first);
        let retiring = self.retiring.get(&row.name).copied().unwrap_or(u64::MAX);
        if let Some(whole) = whole.filter(|whole| *whole < retiring) {
            found.find(at(), format!("version {whole} is whole, although it is forgotten and nobody is to wipe it"));
        }
    }
}

impl Check<'_> {
    /// Reads what the events are held against.
    pub(super) fn retention(&mut self) -> Result<(), StoreError> {
        self.each(archive::SELECT, |check, row| {
            match archive::read(row)? {
                Ok(archive) => drop(check.kept.archives.insert(archive.id, archive)),
                Err(cause) => note(&mut check.found, &cause),
            }
            Ok(())
        })?;
        self.each(retiring::SELECT, |check, row| {
            match retiring::read(row)? {
                Ok((stream, range)) => {
                    let first = check.kept.retiring.entry(stream.as_ref().to_owned()).or_insert(range.next);
                    *first = range.next.min(*first);
                }
                Err(cause) => note(&mut check.found, &cause),
            }
            Ok(())
        })
    }

    /// Values of metadata, once the streams are known.
    pub(super) fn metadata(&mut self) -> Result<(), StoreError> {
        self.each("SELECT stream, body, sum FROM quorate_stream_values", |check, row| {
            let (id, body): (i64, String) = (row.get(0)?, row.get(1)?);
            if let Err(cause) = metadata::check(id, &body, row.get(2)?) {
                note(&mut check.found, &cause);
            }
            if !check.kept.with_metadata.remove(&id) {
                check.found.find(format!("quorate_stream_values, row {id}"), "its stream has no metadata");
            }
            Ok(())
        })?;
        for id in std::mem::take(&mut self.kept.with_metadata) {
            self.found.find(format!("quorate_stream, row {id}"), "its metadata has no row in quorate_stream_values");
        }
        Ok(())
    }
}
