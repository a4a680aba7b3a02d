//! What a shard was handed to look at, counted where it is read.
//!
//! What was done is counted elsewhere, where it is done. Each position is looked at once, and each event that matters is applied,
//! parked or skipped once: where the two counts differ, or the first is not the checkpoint, something was lost on the way, or taken
//! twice.

use std::collections::VecDeque;

use super::super::advance::digest;
use crate::event::Position;

/// What a shard was handed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Handed {
    /// Positions that were looked at.
    pub(in super::super) positions: u64,
    /// Events among them that matter to the shard.
    pub(in super::super) events: u64,
    /// A checksum over the positions of these.
    pub(in super::super) sum: i64,
}

impl Handed {
    /// With an event that was handed.
    pub(in super::super) fn and(self, event: Position) -> Self {
        Self { events: self.events + 1, sum: self.sum.wrapping_add(digest(event)), ..self }
    }

    /// With what was handed behind it.
    pub(in super::super) fn then(self, more: Self) -> Self {
        Self {
            positions: self.positions.saturating_add(more.positions),
            events: self.events.saturating_add(more.events),
            sum: self.sum.wrapping_add(more.sum),
        }
    }
}

/// The stretches of the log that were read and not committed yet, each from behind a position to another one.
#[derive(Clone, Debug, Default)]
pub(super) struct Stretches(VecDeque<(Position, Position)>);

impl Stretches {
    /// Everything behind `after` up to `to` was looked at.
    pub(super) fn read(&mut self, after: Position, to: Position) {
        self.0.push_back((after, to));
    }

    /// How many positions up to `to` were looked at.
    pub(super) fn up_to(&self, to: Position) -> u64 {
        let looked = |(after, end): &(Position, Position)| (*end).min(to).get().saturating_sub(after.get());
        self.0.iter().take_while(|(after, _)| *after < to).map(looked).sum()
    }

    /// What was looked at up to `to` is committed.
    pub(super) fn committed(&mut self, to: Position) {
        while let Some((after, end)) = self.0.front_mut() {
            if *end > to {
                *after = (*after).max(to);
                return;
            }
            self.0.pop_front();
        }
    }
}
