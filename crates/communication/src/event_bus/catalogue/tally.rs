//! What a page of the log adds to the catalogue.

use std::collections::BTreeMap;

use quorate_data::event::{Position, Recorded};
use quorate_foundations::time::Wall;

use super::Catalogue;

/// What events are counted under. Ordered, so that two processes touch rows in one order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Card {
    /// The type; empty: types beyond those that have a card of their own.
    pub(super) event_type: String,
    /// The `dataschema`; empty: none.
    pub(super) dataschema: String,
    /// The `source`; empty, which no event's is: sources and schemas beyond those that have a card of their own.
    pub(super) source: String,
}

/// How many events there are on a card, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) events: u64,
    pub(super) first: Position,
    pub(super) last: Position,
    /// When the last one was recorded, by the wall clock.
    pub(super) recorded: Wall,
}

impl Card {
    /// What is too long for a card is counted with what has none.
    fn of(event: &Recorded) -> Self {
        let is_long = |text: &str| text.len() > Catalogue::MAX_NAME_BYTES;
        let (event_type, dataschema, source) = (event.kind(), event.schema().unwrap_or_default(), event.source());
        if is_long(event_type) {
            return Self::others_of("");
        }
        if is_long(dataschema) || is_long(source) {
            return Self::others_of(event_type);
        }
        let [event_type, dataschema, source] = [event_type, dataschema, source].map(str::to_owned);
        Self { event_type, dataschema, source }
    }

    /// Where sources and schemas of the type are counted that have no card.
    pub(super) fn others_of(event_type: &str) -> Self {
        Self { event_type: event_type.to_owned(), dataschema: String::new(), source: String::new() }
    }

    /// Whether it counts what has no card.
    pub(super) fn is_of_others(&self) -> bool {
        self.source.is_empty()
    }
}

impl Count {
    pub(super) fn and(self, later: Self) -> Self {
        let first = self.first.min(later.first);
        let (last, recorded) = (self.last, self.recorded).max((later.last, later.recorded));
        Self { events: self.events + later.events, first, last, recorded }
    }
}

/// Counts `events`, which stand in order of position.
pub(super) fn tally(events: &[Recorded]) -> BTreeMap<Card, Count> {
    let mut tally = BTreeMap::<Card, Count>::new();
    for event in events {
        let (position, recorded) = (event.position(), event.recorded_at());
        let one = Count { events: 1, first: position, last: position, recorded };
        tally.entry(Card::of(event)).and_modify(|count| *count = count.and(one)).or_insert(one);
    }
    tally
}
