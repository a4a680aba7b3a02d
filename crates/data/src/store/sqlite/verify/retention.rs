//! Checking retention: what is forgotten and still lies in blocks, archives that stubs name, metadata.

use std::collections::BTreeMap;

use super::{Check, note, place};
use crate::{
    event::{ArchiveId, Recorded, Stub},
    store::{
        Archive, StoreError, Verified,
        sqlite::{
            archive, metadata,
            retiring::{self, Retiring},
        },
    },
};

/// What retention has written down, for the log to be held against.
#[derive(Default)]
pub(super) struct Kept {
    archives: BTreeMap<ArchiveId, Archive>,
    /// What is forgotten and still lies in the blocks.
    retiring: Retiring,
}

impl Kept {
    /// Whether an event is forgotten, as a stub or as one that is going to be.
    pub(super) fn is_forgotten(&self, event: &Recorded) -> bool {
        event.stub().is_some() || self.retiring.covers(event)
    }

    /// Holds an event against the archive that it names.
    pub(super) fn event(&self, event: &Recorded, found: &mut Verified) {
        let Some(Stub::Archived(id)) = event.stub() else { return };
        match self.archives.get(&id) {
            Some(archive)
                if archive.stream.as_str() != event.stream()
                    || !(archive.first..=archive.last).contains(&event.version()) =>
            {
                found.find(place(event), format!("it names archive {id}, which is of other events"));
            }
            Some(archive) if archive.last == event.version() && archive.hash != event.hash() => {
                found.find(place(event), format!("its hash is not the one that archive {id} leads to"));
            }
            Some(_) => {}
            None => found.find(place(event), format!("it names archive {id}, which nothing is known of")),
        }
    }
}

impl Check<'_> {
    /// Reads what the events are held against.
    pub(super) fn retention(&mut self) -> Result<(), StoreError> {
        self.each(archive::SELECT, |check, row| {
            match archive::read(row)? {
                Ok(archive::Entry { archive, .. }) => drop(check.kept.archives.insert(archive.id, archive)),
                Err(cause) => note(&mut check.found, &cause),
            }
            Ok(())
        })?;
        self.each(retiring::SELECT, |check, row| {
            match retiring::read(row)? {
                Ok((stream, range)) => check.kept.retiring.add(&stream, range),
                Err(cause) => note(&mut check.found, &cause),
            }
            Ok(())
        })
    }

    /// Values of metadata against the streams they are of.
    pub(super) fn metadata(&mut self) -> Result<(), StoreError> {
        let values = "SELECT v.stream, v.body, v.sum, s.metadata FROM quorate_stream_values v
            LEFT JOIN quorate_stream s ON s.id = v.stream";
        self.each(values, |check, row| {
            let (id, body): (i64, String) = (row.get(0)?, row.get(1)?);
            if let Err(cause) = metadata::check(id, &body, row.get(2)?) {
                note(&mut check.found, &cause);
            }
            if row.get::<_, Option<i64>>(3)?.is_none_or(|version| version == 0) {
                check.found.find(format!("quorate_stream_values, row {id}"), "its stream has no metadata");
            }
            Ok(())
        })?;
        let without = "SELECT id FROM quorate_stream s WHERE metadata <> 0
            AND NOT EXISTS (SELECT 1 FROM quorate_stream_values WHERE stream = s.id)";
        self.each(without, |check, row| {
            let id: i64 = row.get(0)?;
            check.found.find(format!("quorate_stream, row {id}"), "its metadata has no row in quorate_stream_values");
            Ok(())
        })
    }
}
