//! The locks that conditions are held by.
//!
//! Whatever a condition's query can match carries certain words: its type, its stream's category, its tags. A condition takes,
//! for each item of its query, a word that every match has, for itself alone; an append shares the words of its events.
//! Both wait for each other, and never for those with other words. They do so in the order of the words' numbers, so that no
//! two wait for each other in a circle.

use std::collections::BTreeMap;

use super::ready::ReadyStream;
use crate::{
    event::blake3_of,
    store::{AppendCondition, QueryItem},
};

/// The most words that one transaction locks: a server has room for some thousand locks. Beyond it, the word that all share.
const MAX_WORDS: usize = 256;

/// What kind of word it is.
#[derive(Clone, Copy)]
enum Kind {
    Everything = 0,
    Type = 1,
    Category = 2,
    Tag = 3,
    /// No word of events.
    Lock = 4,
}

/// The words of one transaction: their numbers, and whether each is wanted alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words(BTreeMap<i64, bool>);

impl Words {
    /// The words of an append.
    pub(super) fn of(store: u64, streams: &[ReadyStream], conditions: &[AppendCondition]) -> Self {
        let mut words = Self::default();
        words.add(number(store, Kind::Everything, ""), false);
        words.add(schemas(store), false);
        for part in streams {
            let category = part.stream.as_str().split('-').next().unwrap_or_default();
            words.add(number(store, Kind::Category, category), false);
            for event in &part.events {
                let event = event.prepared.unplaced();
                words.add(number(store, Kind::Type, event.kind()), false);
                event.tags().for_each(|tag| words.add(number(store, Kind::Tag, tag), false));
            }
        }
        for condition in conditions {
            let query = &condition.fail_if_match;
            match query.is_everything() {
                true => words.add(number(store, Kind::Everything, ""), true),
                false => query.items.iter().for_each(|item| words.add_item(store, item)),
            }
        }
        words.bounded(store)
    }

    /// The words of appends that share a transaction.
    pub(super) fn union<'w>(store: u64, all: impl IntoIterator<Item = &'w Self>) -> Self {
        let mut words = Self::default();
        for (number, alone) in all.into_iter().flat_map(|words| &words.0) {
            words.add(*number, *alone);
        }
        words.bounded(store)
    }

    /// Whether these and `more` are few enough to be locked one by one; they are then among these. More than enough of one
    /// transaction are no reason to leave it alone.
    pub(super) fn join(&mut self, more: &Self) -> bool {
        let new = more.0.keys().filter(|number| !self.0.contains_key(number)).count();
        if !self.0.is_empty() && self.0.len() + new > MAX_WORDS {
            return false;
        }
        more.0.iter().for_each(|(number, alone)| self.add(*number, *alone));
        true
    }

    /// The numbers in order, and whether each is wanted alone.
    pub(super) fn columns(&self) -> (Vec<i64>, Vec<bool>) {
        self.0.iter().unzip()
    }

    fn add(&mut self, number: i64, alone: bool) {
        *self.0.entry(number).or_default() |= alone;
    }

    fn add_item(&mut self, store: u64, item: &QueryItem) {
        // One tag is enough: whatever matches has all of them. Of types and categories it has one of several.
        let (kind, words) = match item.tags.iter().min() {
            Some(tag) => (Kind::Tag, std::slice::from_ref(tag)),
            None if !item.types.is_empty() => (Kind::Type, &*item.types),
            None => (Kind::Category, &*item.categories),
        };
        words.iter().for_each(|word| self.add(number(store, kind, word), true));
    }

    fn bounded(self, store: u64) -> Self {
        if self.0.len() <= MAX_WORDS {
            return self;
        }
        Self(BTreeMap::from([(number(store, Kind::Everything, ""), true), (schemas(store), false)]))
    }
}

/// The lock of whoever gives positions.
pub(super) fn sequencing(store: u64) -> i64 {
    number(store, Kind::Lock, "sequencer")
}

/// The word that appends share, and that whoever registers a schema takes alone.
pub(super) fn schemas(store: u64) -> i64 {
    number(store, Kind::Lock, "schemas")
}

/// The lock of whoever makes or changes the tables in `schema`.
pub(super) fn tables(schema: &str) -> i64 {
    number(0, Kind::Lock, schema)
}

fn number(store: u64, kind: Kind, word: &str) -> i64 {
    let hash = blake3_of(&[&store.to_le_bytes(), &[kind as u8], word.as_bytes()]);
    let mut short = [0; 8];
    short.copy_from_slice(&hash[..8]);
    i64::from_le_bytes(short)
}
