//! The tail: the newest events, with everything the index will say about them, in memory.
//!
//! A commit makes a group of events durable as blocks and nothing else; which stream, type and tag they belong to is
//! kept here until thousands of them go into the index tables at once, sorted. (A log-structured merge tree does the same
//! with its memtable; SQLite's transaction saves us its write-ahead log.) After a crash the tail is read back from the
//! blocks behind the `indexed` mark.
//!
//! Invariant: events `indexed < position <= published` are durable and visible; those behind `published` belong to the
//! group being written, visible to the writer alone, and [`rewind`](Tail::rewind) takes them back.

use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::HashMap;

use super::{
    conditions::Looks,
    retiring::{Range, Retiring},
};
pub(super) use crate::store::shape::identity;
use crate::{
    event::{ChainHash, Position, Recorded, Version},
    store::{Query, QueryItem, StreamHead, checked::Spent},
};

/// The most streams whose heads are remembered beyond the tail itself.
const MAX_SLOTS: usize = 32_768;

/// A word that events are listed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TermKind {
    /// The event's type.
    Type = 1,
    /// One of its tags.
    Tag = 2,
    /// Its stream's category.
    Category = 3,
    /// Its data subject.
    DataSubject = 4,
}

impl TermKind {
    pub(super) const ALL: [Self; 4] = [Self::Type, Self::Tag, Self::Category, Self::DataSubject];
}

pub(super) type Terms = HashMap<Arc<str>, Vec<u64>, FixedState>;

/// What is remembered of a stream.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// What the index tables say of it.
    pub(super) base: StreamHead,
    pub(super) base_hash: ChainHash,
    /// What the group being written makes of it; its version says nothing.
    pending: Option<StreamHead>,
    /// Its events in the tail: the first of them has version `base.version + 1`.
    pub(super) positions: Vec<u64>,
    last_hash: ChainHash,
    used: u64,
}

impl Default for Slot {
    /// A stream that the index tables do not know.
    fn default() -> Self {
        Self::indexed(StreamHead::default(), ChainHash::START)
    }
}

impl Slot {
    /// A stream as the index tables have it.
    pub(super) fn indexed(base: StreamHead, hash: ChainHash) -> Self {
        Self { base, base_hash: hash, pending: None, positions: Vec::new(), last_hash: hash, used: 0 }
    }

    /// Its version, events of the group being written included.
    pub(super) fn version(&self) -> Version {
        Version::new(self.base.version.get() + self.positions.len() as u64)
    }

    /// What it is like for readers who see the log up to `published`.
    pub(super) fn head(&self, published: u64) -> StreamHead {
        let visible = self.positions.partition_point(|position| *position <= published) as u64;
        StreamHead { version: Version::new(self.base.version.get() + visible), ..self.base }
    }

    /// What it is like for the writer: all of the group being written included.
    pub(super) fn own_head(&self) -> StreamHead {
        StreamHead { version: self.version(), ..self.pending.unwrap_or(self.base) }
    }

    /// The newest link of its hash chain.
    pub(super) fn hash(&self) -> ChainHash {
        self.last_hash
    }
}

/// A change of the group being written to what a stream is like.
struct Change {
    stream: Arc<str>,
    /// What was pending before.
    before: Option<StreamHead>,
    range: Option<Range>,
    /// Whether readers are shown less because of it.
    forgets: bool,
}

/// The newest events and their index.
pub(super) struct Tail {
    indexed: u64,
    published: u64,
    events: Vec<Recorded>,
    slots: HashMap<Arc<str>, Slot, FixedState>,
    terms: [Terms; TermKind::ALL.len()],
    ids: HashMap<u128, u64, FixedState>,
    flushes: u64,
    bytes: usize,
    /// Changes to streams by the group being written, to be published or taken back.
    changes: Vec<Change>,
    /// What is forgotten and still lies in blocks, as readers see it.
    retiring: Arc<Retiring>,
}

impl Tail {
    /// An empty tail behind `indexed`. `seed` keeps hostile names from colliding.
    pub(super) fn new(indexed: u64, seed: u64) -> Self {
        let state = || FixedState::with_seed(seed);
        Self {
            indexed,
            published: indexed,
            events: Vec::new(),
            slots: HashMap::with_hasher(state()),
            terms: std::array::from_fn(|_| HashMap::with_hasher(state())),
            ids: HashMap::with_hasher(state()),
            flushes: 0,
            bytes: 0,
            changes: Vec::new(),
            retiring: Arc::default(),
        }
    }

    /// Positions up to here are in the index tables.
    pub(super) fn indexed(&self) -> u64 {
        self.indexed
    }

    /// Positions up to here are durable and visible.
    pub(super) fn published(&self) -> u64 {
        self.published
    }

    /// The last position, the group being written included.
    pub(super) fn end(&self) -> u64 {
        self.indexed + self.events.len() as u64
    }

    /// How many events it holds.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// How many bytes its events take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The event at `position`; `None` where it is not in the tail.
    pub(super) fn event(&self, position: u64) -> Option<&Recorded> {
        let n = position.checked_sub(self.indexed + 1)?;
        self.events.get(usize::try_from(n).ok()?)
    }

    /// The events behind `after`, in order.
    pub(super) fn events_after(&self, after: u64) -> &[Recorded] {
        let skipped = usize::try_from(after.saturating_sub(self.indexed)).unwrap_or(usize::MAX);
        self.events.get(skipped..).unwrap_or_default()
    }

    /// What is remembered of `stream`.
    pub(super) fn slot(&self, stream: &str) -> Option<&Slot> {
        self.slots.get(stream)
    }

    /// Remembers what the index tables say of `stream`.
    pub(super) fn remember(&mut self, stream: &str, mut slot: Slot) {
        slot.used = self.flushes;
        self.slots.insert(stream.into(), slot);
    }

    /// Notes that the group being written changes what `stream` is like, and forgets a range of it. The stream must be
    /// remembered.
    pub(super) fn change(&mut self, stream: &str, head: StreamHead, range: Option<Range>) {
        let Some((name, slot)) = self.slots.get_key_value(stream) else {
            unreachable!("invariant: a stream is remembered before it is changed")
        };
        let forgets = range.is_some() || head.rules.are_stricter_than(&slot.own_head().rules);
        let change = Change { stream: name.clone(), before: slot.pending, range, forgets };
        self.changes.push(change);
        if let Some(slot) = self.slots.get_mut(stream) {
            slot.pending = Some(head);
        }
    }

    /// How many changes the group being written has made: to [`undo`](Self::undo) those behind.
    pub(super) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// The streams that the group being written changes, beside those that it appends to.
    pub(super) fn changed(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().map(|change| &*change.stream)
    }

    /// Whether any of these changes has readers shown less than before.
    pub(super) fn forgets(&self) -> bool {
        self.changes.iter().any(|change| change.forgets)
    }

    /// Takes back every change behind the first `kept`.
    pub(super) fn undo(&mut self, kept: usize) {
        while self.changes.len() > kept {
            let Some(change) = self.changes.pop() else { return };
            if let Some(slot) = self.slots.get_mut(&change.stream) {
                slot.pending = change.before;
            }
        }
    }

    /// Goes on with what the process before had to forget.
    pub(super) fn resume(&mut self, retiring: Retiring) {
        self.retiring = Arc::new(retiring);
    }

    /// What is forgotten and still lies in blocks, as readers see it.
    pub(super) fn retiring(&self) -> &Arc<Retiring> {
        &self.retiring
    }

    /// How many ranges wait to be wiped, the group being written included; those that are set aside do not.
    pub(super) fn forgetting(&self) -> usize {
        let waiting = self.retiring.len() - self.retiring.aside();
        waiting + self.changes.iter().filter(|change| change.range.is_some()).count()
    }

    /// The same as the writer sees it: the group being written included.
    pub(super) fn own_retiring(&self) -> Arc<Retiring> {
        let mut retiring = self.retiring.clone();
        for change in &self.changes {
            if let Some(range) = change.range {
                Arc::make_mut(&mut retiring).add(&change.stream, range);
            }
        }
        retiring
    }

    /// To change what is forgotten, once the blocks have.
    pub(super) fn retiring_mut(&mut self) -> &mut Retiring {
        Arc::make_mut(&mut self.retiring)
    }

    /// Where the event with this identity stands.
    pub(super) fn known(&self, identity: u128) -> Option<u64> {
        self.ids.get(&identity).copied()
    }

    /// The positions of a term's events in the tail, ascending.
    pub(super) fn postings(&self, kind: TermKind, word: &str) -> &[u64] {
        self.terms[kind as usize - 1].get(word).map_or(&[], Vec::as_slice)
    }

    /// The newest event behind `after`, up to `until`, that matches `query`.
    pub(super) fn matching(
        &self,
        query: &Query,
        after: u64,
        until: u64,
        looks: &mut Looks,
    ) -> Result<Option<Position>, Spent> {
        if query.is_everything() {
            return Ok((until > after.max(self.indexed)).then(|| Position::new(until)));
        }
        if until.min(self.end()) <= after.max(self.indexed) {
            return Ok(None);
        }
        let mut newest = None;
        for item in &query.items {
            newest = newest.max(self.matching_item(item, after, until, looks)?);
        }
        Ok(newest)
    }

    fn matching_item(
        &self,
        item: &QueryItem,
        after: u64,
        until: u64,
        looks: &mut Looks,
    ) -> Result<Option<Position>, Spent> {
        let lists = |kind, words: &[String]| words.iter().map(|word| self.postings(kind, word)).collect::<Vec<_>>();
        // All tags must be there, so the shortest list is enough; of types and categories any will do.
        let drivers = match item {
            item if !item.tags.is_empty() => {
                lists(TermKind::Tag, &item.tags).into_iter().min_by_key(|l| l.len()).into_iter().collect()
            }
            item if !item.types.is_empty() => lists(TermKind::Type, &item.types),
            item => lists(TermKind::Category, &item.categories),
        };
        let mut newest = None;
        for list in drivers {
            looks.spend(1)?;
            let end = list.partition_point(|position| *position <= until);
            for position in list[..end].iter().rev().take_while(|position| **position > after) {
                looks.spend(1)?;
                if self.event(*position).is_some_and(|event| item.matches(event)) {
                    newest = newest.max(Some(Position::new(*position)));
                    break;
                }
            }
        }
        Ok(newest)
    }

    /// All terms of a kind with their positions.
    pub(super) fn terms(&self, kind: TermKind) -> &Terms {
        &self.terms[kind as usize - 1]
    }

    /// All streams that are remembered.
    pub(super) fn streams(&self) -> impl Iterator<Item = (&Arc<str>, &Slot)> {
        self.slots.iter()
    }

    /// Adds the next event. Its stream must be remembered, and it must follow in both log and stream.
    pub(super) fn push(&mut self, event: Recorded, identity: u128) {
        let position = event.position().get();
        assert_eq!(position, self.end() + 1, "invariant: positions are dense");
        let flushes = self.flushes;
        let Some(slot) = self.slots.get_mut(event.stream()) else {
            unreachable!("invariant: a stream is remembered before an event is added to it")
        };
        slot.positions.push(position);
        slot.last_hash = event.hash();
        slot.used = flushes;
        for (kind, word) in words(&event) {
            post(&mut self.terms[kind as usize - 1], word, position);
        }
        self.ids.insert(identity, position);
        self.bytes += event.bytes().len();
        self.events.push(event);
    }

    /// Takes back every event behind `end`.
    pub(super) fn rewind(&mut self, end: u64) {
        assert!(end >= self.published, "invariant: what is published is never taken back");
        while self.end() > end {
            let Some(event) = self.events.pop() else { return };
            self.bytes -= event.bytes().len();
            self.ids.remove(&identity(event.stream(), event.source(), event.id()));
            for (kind, word) in words(&event) {
                unpost(&mut self.terms[kind as usize - 1], word);
            }
            self.unlink(event.stream());
        }
    }

    fn unlink(&mut self, stream: &str) {
        let Some(slot) = self.slots.get_mut(stream) else { return };
        slot.positions.pop();
        let last = slot.positions.last().and_then(|position| position.checked_sub(self.indexed + 1));
        let event = last.and_then(|n| self.events.get(usize::try_from(n).ok()?));
        slot.last_hash = event.map_or(slot.base_hash, Recorded::hash);
    }

    /// Shows readers events up to here, whatever becomes of them; up to where they were shown before.
    #[cfg(feature = "museum")]
    pub(super) fn show(&mut self, published: u64) -> u64 {
        std::mem::replace(&mut self.published, published)
    }

    /// Makes everything up to the end, and every change, visible.
    pub(super) fn publish(&mut self) {
        self.published = self.end();
        for Change { stream, range, .. } in std::mem::take(&mut self.changes) {
            if let Some(range) = range {
                self.retiring_mut().add(&stream, range);
            }
            let slot = self.slots.get_mut(&stream);
            if let Some((slot, head)) = slot.and_then(|slot| slot.pending.take().map(|head| (slot, head))) {
                slot.base = StreamHead { version: slot.base.version, ..head };
            }
        }
    }

    /// Drops everything, once it all is in the index tables. Nothing may be unpublished.
    pub(super) fn drop_indexed(&mut self) {
        assert_eq!(self.published, self.end(), "invariant: only published events are indexed");
        self.indexed = self.published;
        self.flushes += 1;
        self.events = Vec::new();
        self.bytes = 0;
        self.ids.clear();
        self.ids.shrink_to(1 << 12);
        self.terms.iter_mut().for_each(HashMap::clear);
        for slot in self.slots.values_mut() {
            let version = slot.version();
            *slot = Slot {
                base: StreamHead { version, ..slot.base },
                used: slot.used,
                ..Slot::indexed(slot.base, slot.last_hash)
            };
        }
        self.evict();
    }

    /// Makes room for `coming` more streams to be remembered: many may be asked for, and never appended to.
    pub(super) fn make_room(&mut self, coming: usize) {
        if self.slots.len() + coming > 2 * MAX_SLOTS {
            self.slots.retain(|_, slot| !slot.positions.is_empty() || slot.pending.is_some());
        }
    }

    fn evict(&mut self) {
        let mut keep = 8;
        while self.slots.len() > MAX_SLOTS {
            let flushes = self.flushes;
            self.slots.retain(|_, slot| slot.used + keep >= flushes && keep > 0);
            keep /= 2;
        }
    }
}

/// The words an event is listed under.
pub(super) fn words(event: &Recorded) -> impl Iterator<Item = (TermKind, &str)> {
    let fixed = [(TermKind::Type, event.kind()), (TermKind::Category, event.category())];
    let subject = event.data_subject().map(|subject| (TermKind::DataSubject, subject));
    fixed.into_iter().chain(event.tags().map(|tag| (TermKind::Tag, tag))).chain(subject)
}

fn post(terms: &mut Terms, word: &str, position: u64) {
    if let Some(positions) = terms.get_mut(word) {
        positions.push(position);
    } else {
        terms.insert(word.into(), vec![position]);
    }
}

fn unpost(terms: &mut Terms, word: &str) {
    if let Some(positions) = terms.get_mut(word) {
        positions.pop();
        if positions.is_empty() {
            terms.remove(word);
        }
    }
}

#[cfg(test)]
mod tests;
