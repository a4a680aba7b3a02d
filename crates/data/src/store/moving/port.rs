//! What an engine has to offer for a store to be moved from it and to it.

use quorate_runtime::BoxFuture;

use super::{MoveError, TableSum, Version};
use crate::{
    event::Recorded,
    store::{Progress, Timeline, Value, Verified},
};

/// What comes of a step.
pub(in crate::store) type Answer<'a, T> = BoxFuture<'a, Result<T, MoveError>>;

/// What a store that is to be left says of itself.
#[derive(Clone, Debug)]
pub(in crate::store) struct Standing {
    pub(in crate::store) timeline: Timeline,
    /// Where it went, if it was left.
    pub(in crate::store) gone: Option<Gone>,
}

/// Where a store went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Gone {
    /// As people read it.
    pub(in crate::store) to: String,
    /// The number that its destination drew for itself: no other one may open.
    pub(in crate::store) arrival: u64,
}

/// What a destination is to be marked with, or is marked with.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Mark {
    /// Which store it takes in, on which timeline.
    pub(in crate::store) from: Timeline,
    /// The only destination that will do, where the store was left already.
    pub(in crate::store) arrival: Option<u64>,
}

/// A table, by its columns in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Shape {
    pub(in crate::store) name: String,
    pub(in crate::store) columns: Vec<Column>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Column {
    pub(in crate::store) name: String,
}

impl Shape {
    /// The columns as a statement lists them.
    pub(in crate::store) fn list(&self) -> String {
        let quoted = self.columns.iter().map(|column| format!("\"{}\"", column.name));
        quoted.collect::<Vec<_>>().join(", ")
    }

    /// `$1, $2, …`, one for each column.
    pub(in crate::store) fn params(&self) -> String {
        (1..=self.columns.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
    }
}

/// A page of events, or of rows, has at most so many …
pub(in crate::store) const PAGE: usize = 1_000;
/// … and ends with the one that reaches so many bytes.
pub(in crate::store) const PAGE_BYTES: usize = 4 << 20;

/// A store that is to be left.
pub(in crate::store) trait Leaving: Send {
    fn standing(&self) -> Standing;
    /// What it has that goes nowhere, whatever the rooms say of theirs: each with what to do.
    fn obstacles(&mut self) -> Answer<'_, Vec<String>>;
    /// The last position.
    fn head(&mut self) -> Answer<'_, u64>;
    /// The next events behind `after`; none at the end.
    fn events(&mut self, after: u64) -> Answer<'_, Vec<Recorded>>;
    /// The rooms that have tables, and at which version they are.
    fn rooms(&mut self) -> Answer<'_, Vec<(String, u64)>>;
    /// The tables of rooms, in order of their names.
    fn tables(&mut self) -> Answer<'_, Vec<Shape>>;
    fn is_empty<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, bool>;
    /// From here on nobody else writes, until it is [left](Self::leave) or dropped. Every event committed before has a position.
    /// `last`: what rooms that several processes share have to say before.
    fn hold(&mut self, gone: Gone, last: Vec<&'static str>) -> Answer<'_, ()>;
    /// Its streams: name, version, newest hash.
    fn streams(&mut self) -> Answer<'_, TableSum>;
    /// Begins to read a table.
    fn read<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, ()>;
    /// Its next rows; none at the end.
    fn rows(&mut self) -> Answer<'_, Vec<Vec<Value>>>;
    /// Makes the hold last for good: durable when it returns.
    fn leave(&mut self) -> Answer<'_, ()>;
    fn verify(&mut self, progress: Progress) -> Answer<'_, Verified>;
}

/// A store that one arrives at: it opens for nobody until it is [opened](Self::open).
pub(in crate::store) trait Arriving: Send {
    /// Its number.
    fn arrival(&self) -> u64;
    /// Whether it is open already.
    fn is_open(&self) -> bool;
    /// Its newest event.
    fn newest(&mut self) -> Answer<'_, Option<Recorded>>;
    /// Takes in the events behind its newest one: durable when it returns.
    fn adopt(&mut self, events: Vec<Recorded>) -> Answer<'_, ()>;
    /// Its streams: name, version, newest hash.
    fn streams(&mut self) -> Answer<'_, TableSum>;
    /// Begins the transaction that opens it, with the tables of `rooms` as they are made.
    fn furnish(&mut self, rooms: Vec<Version>) -> Answer<'_, ()>;
    /// Takes the rows out of a table that it was made with.
    fn empty<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, ()>;
    fn put<'a>(&'a mut self, table: &'a Shape, rows: Vec<Vec<Value>>) -> Answer<'a, ()>;
    /// What a table holds, as it is read back.
    fn sum<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, TableSum>;
    /// Commits, on a timeline of its own.
    fn open(&mut self) -> Answer<'_, ()>;
    fn verify(&mut self, progress: Progress) -> Answer<'_, Verified>;
}
