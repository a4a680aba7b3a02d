use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex},
};

use bytes::BytesMut;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use quorate_runtime::disk;

use super::{ArchiveReader, ArchiveWriter, DamagedArchive, MAGIC, Manifest};
use crate::event::{ChainHash, NewEvent, Place, Position, Prepared, Recorded, Stub, Version};

/// A file in memory.
#[derive(Clone, Default)]
struct Sheet(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl disk::Write for Sheet {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn events(count: u64) -> Vec<Recorded> {
    let mut previous = ChainHash::START;
    (1..=count)
        .map(|n| {
            let event = NewEvent::new(format!("e-{n}"), "/s", "t").json(format!("{{\"n\": {n}}}"));
            let place = Place {
                version: Version::new(n),
                position: Position::new(3 * n),
                recorded_at: Default::default(),
                previous,
            };
            let recorded = Prepared::new(&event, "s").record(&place, &mut BytesMut::new());
            previous = recorded.hash();
            recorded
        })
        .collect()
}

fn manifest(events: &[Recorded], previous: ChainHash) -> Manifest {
    Manifest {
        before: None,
        store: 7,
        stream: "s".parse().unwrap(),
        first: events[0].version(),
        last: events[events.len() - 1].version(),
        previous,
        hash: events[events.len() - 1].hash(),
    }
}

fn written(manifest: &Manifest, events: &[Recorded]) -> Vec<u8> {
    let sheet = Sheet::default();
    let mut writer = ArchiveWriter::begin(Box::new(sheet.clone()), manifest).unwrap();
    events.iter().for_each(|event| writer.event(event).unwrap());
    writer.finish().unwrap();
    std::mem::take(&mut sheet.0.lock().unwrap())
}

fn open(bytes: Vec<u8>) -> Result<ArchiveReader, DamagedArchive> {
    ArchiveReader::open(Box::new(io::Cursor::new(bytes)))
}

#[test]
fn events_come_out_byte_for_byte() {
    let all = events(9);
    let of = manifest(&all[3..], all[2].hash());
    let mut reader = open(written(&of, &all[3..])).unwrap();
    assert_eq!(reader.manifest(), &of);
    for event in &all[3..] {
        assert_eq!(reader.next_event().unwrap().as_ref(), Some(event));
    }
    assert!(reader.next_event().unwrap().is_none() && reader.next_event().unwrap().is_none());
    assert_eq!(open(written(&of, &all[3..])).unwrap().verify().unwrap(), (of, 6));
}

#[test]
fn an_archive_that_lies_about_itself_is_noticed() {
    let all = events(5);
    let honest = manifest(&all, ChainHash::START);
    let verify = |manifest: &Manifest, events: &[Recorded]| open(written(manifest, events)).unwrap().verify();
    assert!(verify(&honest, &all).is_ok());
    let lies = [
        Manifest { last: Version::new(6), ..honest.clone() },
        Manifest { last: Version::new(4), ..honest.clone() },
        Manifest { first: Version::new(2), ..honest.clone() },
        Manifest { previous: all[0].hash(), ..honest.clone() },
        Manifest { hash: all[0].hash(), ..honest.clone() },
        Manifest { stream: "t".parse().unwrap(), ..honest.clone() },
    ];
    for lie in &lies {
        assert!(matches!(verify(lie, &all), Err(DamagedArchive::Damaged { .. })), "{lie:?}");
    }
    let mut swapped = all.clone();
    swapped.swap(1, 2);
    let stubbed: Vec<_> = all.iter().map(|event| event.to_stub(Stub::Truncated)).collect();
    for events in [&all[..4], &swapped[..], &stubbed[..]] {
        assert!(verify(&honest, events).is_err());
    }
}

#[test]
fn whatever_stands_behind_an_archive_is_noticed_and_its_place_named() {
    let all = events(5);
    let first = written(&manifest(&all[..3], ChainHash::START), &all[..3]);
    let second = written(&manifest(&all[3..], all[2].hash()), &all[3..]);
    for behind in [&second[..], &first[..], b"somebody's note", &[0], &second[..5]] {
        let reader = open([&first[..], behind].concat()).unwrap();
        let said = reader.verify().unwrap_err().to_string();
        assert!(said.contains(&format!("ends at byte {},", first.len())), "{said}");
        let mut reader = open([&first[..], behind].concat()).unwrap();
        let read = (0..3).filter(|_| reader.next_event().unwrap().is_some()).count();
        assert_eq!(read, 3, "what was read before is sound all the same");
        assert!(reader.next_event().is_err(), "the end is not");
    }
}

#[test]
fn a_length_that_lies_costs_no_memory() {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(MAGIC).unwrap();
    out.write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert!(open(out.finish().unwrap()).is_err());
}

proptest! {
    #[test]
    fn any_flipped_byte_and_any_cut_is_noticed(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let all = events(20);
        let sound = written(&manifest(&all, ChainHash::START), &all);
        let at = at.index(sound.len());
        let cut = open(sound[..at].to_vec()).and_then(ArchiveReader::verify);
        prop_assert!(cut.is_err(), "cut at {}", at);
        // Bytes 4 to 9 of a gzip file tell its time, its compression and its system: nothing of ours.
        if !(3..10).contains(&at) {
            let mut flipped = sound;
            flipped[at] ^= flip;
            // The same bytes can be compressed in more than one way, and the last byte before the sum is filled up: a
            // flip that is not noticed changed nothing that is read.
            if let Ok(mut reader) = open(flipped) {
                let read: Result<Vec<_>, _> = std::iter::from_fn(|| reader.next_event().transpose()).take(21).collect();
                prop_assert!(read.is_err() || read.is_ok_and(|read| read == all), "byte {}", at);
            }
        }
    }

    #[test]
    fn reading_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), packed in any::<bool>()) {
        let mut out = GzEncoder::new(Vec::new(), Compression::default());
        out.write_all(MAGIC).unwrap();
        out.write_all(&bytes).unwrap();
        let bytes = if packed { out.finish().unwrap() } else { bytes };
        prop_assert!(open(bytes).and_then(ArchiveReader::verify).is_err());
    }
}
