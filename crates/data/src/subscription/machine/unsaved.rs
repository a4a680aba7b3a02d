//! What is to be written before anybody hears of it.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Saved;
use crate::event::Position;

/// Which events' rows are to be written or deleted, and what the stored subscription is at.
#[derive(Debug)]
pub(super) struct Unsaved {
    /// The revision that the rows are at.
    pub(super) revision: u64,
    /// The checkpoint that was written last.
    pub(super) checkpoint: Position,
    /// How many events it had passed over.
    pub(super) passed_over: u64,
    put: BTreeSet<Position>,
    delete: BTreeMap<Position, Saved>,
}

impl Unsaved {
    pub(super) fn nothing(revision: u64, checkpoint: Position) -> Self {
        Self { revision, checkpoint, passed_over: 0, put: BTreeSet::new(), delete: BTreeMap::new() }
    }

    /// The event's row is to be written.
    pub(super) fn put(&mut self, position: Position) {
        self.put.insert(position);
    }

    /// The event's row, if it has one, is to be deleted.
    pub(super) fn delete(&mut self, position: Position, row: Option<Saved>) {
        self.put.remove(&position);
        self.delete.extend(row.map(|row| (position, row)));
    }

    pub(super) fn is_put(&self, position: Position) -> bool {
        self.put.contains(&position)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty()
    }

    pub(super) fn to_put(&self) -> impl Iterator<Item = Position> + '_ {
        self.put.iter().copied()
    }

    pub(super) fn to_delete(&self) -> impl Iterator<Item = (Position, Saved)> + '_ {
        self.delete.iter().map(|(position, row)| (*position, *row))
    }

    /// The row of the event at `position` is durable.
    pub(super) fn put_saved(&mut self, position: Position) {
        self.put.remove(&position);
    }

    /// A revision is durable, with `checkpoint`, up to which so many events were passed over, and without the rows that were `deleted`.
    pub(super) fn saved(
        &mut self,
        (checkpoint, passed_over): (Position, u64),
        deleted: impl Iterator<Item = Position>,
    ) {
        self.revision += 1;
        (self.checkpoint, self.passed_over) = (checkpoint, passed_over);
        for position in deleted {
            self.delete.remove(&position);
        }
    }
}
