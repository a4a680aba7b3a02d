//! How many events one transaction takes.

use std::time::Duration;

/// How many events one transaction takes: as many as fit into the time that others can wait.
///
/// The store has one writer, and appends wait while it applies a batch. So the batch grows while it stays below its time, the
/// less the nearer it is, and shrinks at once when it goes beyond. That it grows until it nearly fills its time matters:
/// what one more event costs depends on how many of the batch change the same rows, which only a larger batch can tell.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Pace {
    target: Duration,
    most: usize,
    batch: usize,
}

/// Where it begins.
const FIRST: usize = 64;

impl Pace {
    /// A pace of at most `most` events that aims at `target`.
    pub(in super::super) fn new(target: Duration, most: usize) -> Self {
        Self { target, most: most.max(1), batch: FIRST.min(most.max(1)) }
    }

    /// How many events the next transaction takes.
    pub(in super::super) fn batch(&self) -> usize {
        self.batch
    }

    /// A transaction of `count` events took `took` of the writer's time.
    pub(in super::super) fn took(&mut self, count: usize, took: Duration) {
        if took > self.target {
            let fitting = count as f64 * self.target.as_secs_f64() / took.as_secs_f64();
            self.batch = (fitting as usize).clamp(1, self.batch);
        } else if count >= self.batch {
            // Neither leads beyond the target where each further event costs what the ones before did.
            let grown = if took <= self.target / 2 {
                self.batch.saturating_mul(2)
            } else if took <= self.target / 5 * 4 {
                self.batch.saturating_add(self.batch / 4)
            } else {
                self.batch
            };
            self.batch = grown.min(self.most);
        }
    }

    /// A transaction of `count` events was rolled back because it took too long.
    pub(in super::super) fn too_long(&mut self, count: usize) {
        self.batch = (count / 2).clamp(1, self.most);
    }
}
