use bytes::BytesMut;
use proptest::prelude::*;

use super::{Slot, Tail, TermKind, identity, words};
use crate::{
    event::{ChainHash, NewEvent, Place, Position, Prepared, Tags, Version},
    store::StreamHead,
};

/// Appends an event the way the writer does.
fn append(tail: &mut Tail, stream: u8, tag: u8) {
    let name = format!("s-{stream}");
    if tail.slot(&name).is_none() {
        tail.remember(&name, Slot::indexed(StreamHead::default(), ChainHash::START));
    }
    let slot = tail.slot(&name).unwrap();
    let position = tail.end() + 1;
    let event = NewEvent::new(position.to_string(), "/s", "t").tagged(Tags::new([format!("g:{tag}")]).unwrap());
    let place = Place {
        version: slot.version().next(),
        position: Position::new(position),
        recorded_at: Default::default(),
        previous: slot.hash(),
    };
    let event = Prepared::new(&event, &name).record(&place, &mut BytesMut::new());
    let identity = identity(event.stream(), event.source(), event.id());
    tail.push(event, identity);
}

/// Everything a tail says, in an order that does not depend on hashing.
fn image(tail: &Tail) -> String {
    let mut slots: Vec<String> = tail
        .streams()
        .filter(|(_, slot)| slot.version() > Version::ZERO)
        .map(|(name, slot)| format!("{name} {} {:?} {}", slot.version(), slot.positions, slot.hash()))
        .collect();
    slots.sort();
    let mut terms: Vec<String> = TermKind::ALL
        .iter()
        .flat_map(|kind| tail.terms(*kind).iter().map(move |term| format!("{kind:?} {term:?}")))
        .collect();
    terms.sort();
    let mut ids: Vec<u64> = tail.ids.values().copied().collect();
    ids.sort();
    format!("{} {} {:?} {slots:?} {terms:?} {ids:?}", tail.indexed(), tail.bytes(), tail.events)
}

proptest! {
    #[test]
    fn taking_a_group_back_leaves_no_trace(
        before in proptest::collection::vec((0..4_u8, 0..4_u8), 0..30),
        group in proptest::collection::vec((0..6_u8, 0..6_u8), 0..30),
        flush in any::<bool>(),
    ) {
        let mut tail = Tail::new(0, 7);
        before.iter().for_each(|(stream, tag)| append(&mut tail, *stream, *tag));
        tail.publish();
        if flush {
            tail.drop_indexed();
        }
        let (end, image_before) = (tail.end(), image(&tail));
        group.iter().for_each(|(stream, tag)| append(&mut tail, *stream, *tag));
        tail.rewind(end);
        prop_assert_eq!(image(&tail), image_before);
    }

    #[test]
    fn a_tail_lists_exactly_its_events(events in proptest::collection::vec((0..4_u8, 0..4_u8), 0..40)) {
        let mut tail = Tail::new(100, 7);
        events.iter().for_each(|(stream, tag)| append(&mut tail, *stream, *tag));
        tail.publish();
        for event in tail.events_after(0) {
            let position = event.position().get();
            prop_assert_eq!(tail.event(position), Some(event));
            prop_assert!(words(event).all(|(kind, word)| tail.postings(kind, word).contains(&position)));
            prop_assert!(tail.slot(event.stream()).unwrap().positions.contains(&position));
        }
        let listed: usize = tail.terms(TermKind::Tag).values().map(Vec::len).sum();
        prop_assert_eq!(listed, events.len());
        prop_assert_eq!(tail.end(), 100 + events.len() as u64);
    }
}

#[test]
fn readers_do_not_see_the_group_being_written() {
    let mut tail = Tail::new(0, 7);
    append(&mut tail, 1, 1);
    tail.publish();
    append(&mut tail, 1, 1);
    assert_eq!(tail.slot("s-1").unwrap().version(), Version::new(2));
    assert_eq!(tail.slot("s-1").unwrap().head(tail.published()).version, Version::new(1));
}

#[test]
fn streams_go_on_where_the_index_took_over() {
    let mut tail = Tail::new(0, 7);
    append(&mut tail, 1, 1);
    let hash = tail.slot("s-1").unwrap().hash();
    tail.publish();
    tail.drop_indexed();
    append(&mut tail, 1, 1);
    assert_eq!(tail.slot("s-1").unwrap().version(), Version::new(2));
    assert!(tail.event(2).unwrap().follows(&hash));
    assert_eq!((tail.len(), tail.event(1)), (1, None));
}

#[test]
fn streams_that_are_only_asked_for_do_not_pile_up() {
    let mut tail = Tail::new(0, 7);
    append(&mut tail, 1, 1);
    for n in 0..4 * super::MAX_SLOTS {
        tail.make_room(1);
        tail.remember(&format!("asked-{n}"), Slot::default());
    }
    assert!(tail.streams().count() <= 2 * super::MAX_SLOTS);
    assert_eq!(tail.slot("s-1").unwrap().version(), Version::new(1), "a stream with events in the tail stays");
}
